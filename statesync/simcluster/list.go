package simcluster

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	listBuffer   = 64 << 10
	inconsistent = -1 // the version of a continue token that goes on with the present

	// Word for word the API server's.
	tooOld     = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
	tooLarge   = "Too large resource version: %d, current: %d"
	noContinue = "continue key is not valid: %v"
)

// A query is what a list or a watch asks for.
type query struct {
	internalversion.ListOptions
	version   int64 // of resourceVersion; 0: unset, or any
	namespace string
	labels    labels.Selector
	fields    fields.Selector
}

// read answers a list or a watch.
func (s *Server) read(c *call) error {
	q, err := c.query()
	if err != nil {
		return err
	}
	if err := s.faults.forbidden(c.resource, q.Watch); err != nil {
		return err
	}
	if q.Watch {
		return s.watch(c, q)
	}
	l, err := s.list(c, q)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", c.form.info.MediaType)
	c.w.WriteHeader(http.StatusOK)
	out := bufio.NewWriterSize(c.w, listBuffer)
	if err = l.write(out); err == nil {
		err = out.Flush()
	}
	if err != nil {
		s.opts.Logger.Debug("list broken off", "resource", c.resource.Plural, "err", err)
		panic(http.ErrAbortHandler) // the client must not take half for the whole
	}
	return nil
}

// query reads what is asked for, and checks it as the API server does.
func (c *call) query() (*query, error) {
	q := &query{namespace: c.namespace, labels: labels.Everything(), fields: fields.Everything()}
	if err := metainternal.ParameterCodec.DecodeParameters(c.URL.Query(), metav1.SchemeGroupVersion, &q.ListOptions); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if errs := validation.ValidateListOptions(&q.ListOptions, true); len(errs) > 0 {
		return nil, apierrors.NewInvalid(metav1.SchemeGroupVersion.WithKind("ListOptions").GroupKind(), "", errs)
	}
	q.Limit = max(q.Limit, 0) // as the API server
	if q.LabelSelector != nil {
		q.labels = q.LabelSelector
	}
	if q.FieldSelector != nil {
		q.fields = q.FieldSelector
	}
	if c.name != "" {
		q.fields = fields.AndSelectors(q.fields, fields.OneTermEqualSelector("metadata.name", c.name))
	}
	for _, req := range q.fields.Requirements() {
		if req.Field != "metadata.name" && req.Field != "metadata.namespace" {
			return nil, apierrors.NewBadRequest("field label not supported: " + req.Field)
		}
	}
	if q.ResourceVersion != "" {
		n, err := strconv.ParseUint(q.ResourceVersion, 10, 63)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("Invalid value: %q: %v", q.ResourceVersion, err))
		}
		q.version = int64(n)
	}
	return q, nil
}

// takes reports whether an object is asked for.
func (q *query) takes(v *Version) bool {
	return (q.namespace == "" || v.Namespace == q.namespace) && q.labels.Matches(labels.Set(v.Labels)) &&
		(q.fields.Empty() || q.fields.Matches(fields.Set{"metadata.name": v.Name, "metadata.namespace": v.Namespace}))
}

// A token is where a list goes on, as the API server writes it.
type token struct {
	APIVersion string `json:"v"`
	Version    int64  `json:"rv"`
	Start      string `json:"start"`
}

func (t token) String() string {
	t.APIVersion = metav1.SchemeGroupVersion.String()
	data, err := json.Marshal(t)
	if err != nil {
		panic("BUG: encode token: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

func parseToken(text string) (token, error) {
	var t token
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, &t)
	}
	if err == nil && (t.APIVersion != metav1.SchemeGroupVersion.String() || t.Start == "" || t.Version == 0) {
		err = fmt.Errorf("got %s, want a version and a start", data)
	}
	if err != nil {
		return token{}, apierrors.NewBadRequest(fmt.Sprintf(noContinue, err))
	}
	return t, nil
}

// list finds what answers a list.
func (s *Server) list(c *call, q *query) (*listing, error) {
	seen, start, err := s.look(c.resource, q)
	if err != nil {
		return nil, err
	}
	l := &listing{resource: c.resource, form: c.form, meta: metav1.ListMeta{ResourceVersion: strconv.FormatInt(seen.version, 10)}}
	limit := q.Limit
	if q.ResourceVersion == "0" && q.Continue == "" {
		limit = 0 // it is answered by the cache, which has no pages
	}
	var more int64
	seen.each(c.namespace, start, func(v *Version) bool {
		switch {
		case !q.takes(v):
		case limit == 0 || len(l.objects) < int(limit):
			l.objects = append(l.objects, v)
		default:
			more++
			return q.labels.Empty() && q.fields.Empty() // then the rest is counted
		}
		return true
	})
	if more > 0 {
		last := l.objects[len(l.objects)-1]
		l.meta.Continue = token{Version: seen.version, Start: last.Namespace + "/" + last.Name + "\x00"}.String()
		if q.labels.Empty() && q.fields.Empty() {
			l.meta.RemainingItemCount = &more
		}
	} else {
		s.lapses.listed(q, c.resource, seen.version)
	}
	return l, nil
}

// look returns the objects at the version that is asked for, and where to
// begin.
func (s *Server) look(r *Resource, q *query) (seen view, start string, err error) {
	if q.Continue != "" {
		if q.ResourceVersion != "" && q.ResourceVersion != "0" {
			return view{}, "", apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
		return s.goOn(r, q.Continue)
	}
	if now := s.cluster.Now(); q.version > now {
		return view{}, "", future(q.version, now)
	}
	exact := q.ResourceVersionMatch == metav1.ResourceVersionMatchExact || q.ResourceVersionMatch == "" && q.Limit > 0
	if !exact {
		q.version = 0
	}
	seen, err = s.cluster.view(r, q.version)
	return seen, "", err
}

// goOn looks at the objects as they were when a list began. A token whose
// version is gone is refused with another that goes on with the present.
func (s *Server) goOn(r *Resource, text string) (seen view, start string, err error) {
	t, err := parseToken(text)
	if err != nil {
		return view{}, "", err
	}
	if err = s.faults.tooOld(r); err == nil {
		seen, err = s.cluster.view(r, max(t.Version, 0))
	}
	if apierrors.IsResourceExpired(err) {
		refused := apierrors.NewResourceExpired(tooOld)
		refused.ErrStatus.Continue = token{Version: inconsistent, Start: t.Start}.String()
		err = refused
	}
	return seen, t.Start, err
}

// future is the answer to a version that the cluster has not reached.
func future(version, now int64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf(tooLarge, version, now), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{
		Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version",
	}}
	return err
}
