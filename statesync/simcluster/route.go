package simcluster

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/version"
)

// A call is a request for objects of a resource.
type call struct {
	*http.Request
	w               http.ResponseWriter
	resource        *Resource
	namespace, name string
	sub             string // a subresource; only status
	form            form
}

// status is an error as an API server answers it.
func status(code int32, reason metav1.StatusReason, message string) *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}}
}

// ServeHTTP answers as an API server does, or as the faults say.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := parsePath(r.URL.Path)
	verb := at.verb(r)
	w = &answer{w, func(code int) { s.stats.answered(verb, code) }}
	f, _ := negotiate(r.Header.Get("Accept"), false) // for errors alone
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); !ok || subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) != 1 {
		refuse(w, f, apierrors.NewUnauthorized("Unauthorized"))
		return
	}
	if r.URL.Path == "/sim/faults" {
		s.faults.ServeHTTP(w, r)
		return
	}
	c := s.route(r, at)
	var of *Resource
	if c != nil {
		of = c.resource
	}
	s.faults.wait(r.Context(), of)
	if err := s.faults.refused(of); err != nil {
		refuse(w, f, err)
		return
	}
	switch r.URL.Path {
	case "/version":
		w.Header().Set("Content-Type", runtime.ContentTypeJSON)
		_ = json.NewEncoder(w).Encode(version.Info{Major: "1", Minor: "36", GitVersion: "v1.36.0+simulated", Platform: "simulated"})
		return
	case "/healthz", "/livez", "/readyz":
		fmt.Fprint(w, "ok")
		return
	}
	if c == nil {
		http.Error(w, "404 page not found", http.StatusNotFound) // as the API server: no status
		return
	}
	c.w = w
	var err error
	if c.form, err = negotiate(r.Header.Get("Accept"), c.resource.custom()); err == nil {
		err = s.answer(c, verb)
	}
	if err != nil {
		refuse(w, f, err)
	}
}

// verb is what the API server calls a request: that of an object, or of a
// collection.
func (p place) verb(r *http.Request) string {
	collection := p.plural != "" && p.name == ""
	switch watch := r.URL.Query().Get("watch"); {
	case r.Method == http.MethodGet && (watch == "true" || watch == "1"):
		return "watch"
	case r.Method == http.MethodGet && collection:
		return "list"
	case r.Method == http.MethodGet:
		return "get"
	case r.Method == http.MethodPost:
		return "create"
	case r.Method == http.MethodPut:
		return "update"
	case r.Method == http.MethodPatch:
		return "patch"
	case r.Method == http.MethodDelete && collection:
		return "deletecollection"
	case r.Method == http.MethodDelete:
		return "delete"
	}
	return "other"
}

// A place is what a path names; without a plural, nothing.
type place struct{ group, version, namespace, plural, name, sub string }

// parsePath reads /api/v1/... and /apis/GROUP/VERSION/...
func parsePath(path string) place {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	var p place
	if slices.Contains(parts, "") {
		return p
	}
	switch {
	case parts[0] == "api" && len(parts) > 2:
		p.version, parts = parts[1], parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		p.group, p.version, parts = parts[1], parts[2], parts[3:]
	default:
		return place{}
	}
	if parts[0] == "namespaces" && len(parts) > 2 && (p.group != "" || parts[2] != "status") {
		p.namespace, parts = parts[1], parts[2:]
	}
	p.plural = parts[0]
	if len(parts) > 1 {
		p.name = parts[1]
	}
	if len(parts) > 2 {
		p.sub = parts[2]
	}
	if len(parts) > 3 {
		return place{}
	}
	return p
}

// route says what a path means; nil: nothing.
func (s *Server) route(r *http.Request, p place) *call {
	if p.plural == "" || p.sub != "" && p.sub != "status" {
		return nil
	}
	for _, res := range s.cluster.Resources() {
		if res.Plural != p.plural || res.Group != p.group || res.Version != p.version {
			continue
		}
		if !res.Namespaced && p.namespace != "" || res.Namespaced && p.namespace == "" && p.name != "" {
			return nil
		}
		return &call{Request: r, resource: res, namespace: p.namespace, name: p.name, sub: p.sub}
	}
	return nil
}

// answer does what is asked, or fails before anything was answered.
func (s *Server) answer(c *call, verb string) error {
	switch verb {
	case "list", "watch":
		return s.read(c)
	case "get":
		return s.get(c)
	}
	return s.change(c, verb)
}

// get answers with one object. A namespace that only its objects speak of is
// created on the way.
func (s *Server) get(c *call) error {
	if c.resource.Plural == "namespaces" && c.resource.Group == "" && s.cluster.inhabited(c.name) {
		if _, err := s.cluster.Get(c.resource, "", c.name); err != nil {
			_ = s.cluster.createNamespace(c.resource, c.name, uuid.NewUUID()) // or someone else was first
		}
	}
	v, err := s.cluster.Get(c.resource, c.namespace, c.name)
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, v)
}

// send answers with an object.
func (c *call) send(code int, v *Version) error {
	obj, err := c.form.object(c.resource, v)
	if err != nil {
		return err
	}
	return send(c.w, c.form, code, obj)
}

func send(w http.ResponseWriter, f form, code int, obj runtime.Object) error {
	w.Header().Set("Content-Type", f.info.MediaType)
	w.WriteHeader(code)
	_ = f.info.Serializer.Encode(obj, w) // what cannot be written, the client knows of
	return nil
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, f form, err error) {
	st := statusOf(err)
	if st.Details != nil && st.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(st.Details.RetryAfterSeconds)))
	}
	if f.info.Serializer == nil {
		f, _ = negotiate("", false)
	}
	_ = send(w, f, int(st.Code), st)
}

func statusOf(err error) *metav1.Status {
	var api apierrors.APIStatus
	if !errors.As(err, &api) {
		api = apierrors.NewInternalError(err)
	}
	st := api.Status()
	st.Kind, st.APIVersion = "Status", "v1"
	return &st
}
