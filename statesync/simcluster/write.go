package simcluster

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"reflect"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes/scheme"
)

// Writes are worked out on objects as maps, whatever their type. They keep to
// what the API server does to every object: who owns which part of it, and
// that a write that changes nothing is none.

const (
	maxBody     = 3 << 20 // bytes, as the API server
	tries       = 5       // of a patch that others come in between of, and of names that are made
	suffix      = 5       // letters after generateName
	notLatest   = "the object has been modified; please apply your changes to the latest version and try again"
	notOfPath   = "the %s of the object (%s) does not match the %s on the URL (%s)"
	onlyPatches = "the body of the request was in an unknown format - accepted media types include: " + string(types.MergePatchType)
)

// stored is an object that was written through the API.
type stored struct{ obj runtime.Object }

// Object returns a copy.
func (s stored) Object() runtime.Object { return s.obj.DeepCopyObject() }

// change answers what is no read.
func (s *Server) change(c *call, verb string) error {
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	}
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if c.URL.Query().Has("dryRun") {
		return errDryRun()
	}
	switch {
	case c.resource.Namespaced && c.namespace == "":
	case verb == "create" && c.name == "":
		return s.create(c, body)
	case verb == "update" && c.name != "":
		return s.replace(c, body)
	case verb == "patch" && c.name != "":
		return s.patch(c, body)
	case verb == "delete" && c.sub == "":
		return s.delete(c, body)
	case verb == "deletecollection":
		return s.deleteAll(c, body)
	}
	return apierrors.NewMethodNotSupported(c.resource.groupResource(), verb)
}

// errDryRun refuses what would be taken for a write that was not made.
func errDryRun() error {
	return apierrors.NewBadRequest("got dryRun, want none: every write is made")
}

// decode reads the body of a write.
func (c *call) decode(body []byte) (runtime.Object, error) {
	info, err := c.encoding()
	if err != nil {
		return nil, err
	}
	want, got := c.resource.groupVersionKind(), schema.GroupVersionKind{}
	obj := c.resource.empty()
	if u, ok := obj.(*unstructured.Unstructured); ok {
		err = utiljson.Unmarshal(body, &u.Object)
		got = u.GroupVersionKind()
	} else {
		var said *schema.GroupVersionKind
		if obj, said, err = info.Serializer.Decode(body, &want, obj); said != nil {
			got = *said
		}
	}
	if err == nil && got != want {
		err = fmt.Errorf("got %s, want %s", got, want)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return obj, nil
}

// encoding is that of the body. Custom objects have JSON alone.
func (c *call) encoding() (runtime.SerializerInfo, error) {
	kind, _, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	if err != nil {
		kind = runtime.ContentTypeJSON
	}
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), kind)
	if !ok || c.resource.custom() && kind != runtime.ContentTypeJSON {
		return info, status(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, "the body of the request was in an unknown format: "+kind)
	}
	return info, nil
}

// fieldsOf is an object as a map, without its resourceVersion.
func fieldsOf(obj runtime.Object) (*unstructured.Unstructured, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		u = u.DeepCopy()
		unstructured.RemoveNestedField(u.Object, "metadata", "resourceVersion")
		return u, nil
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	unstructured.RemoveNestedField(m, "metadata", "resourceVersion")
	return &unstructured.Unstructured{Object: m}, nil
}

// newVersion is what the cluster keeps of an object.
func (r *Resource) newVersion(u *unstructured.Unstructured) (Version, error) {
	v := Version{Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(), Labels: u.GetLabels()}
	if r.custom() {
		v.Source = stored{u}
		return v, nil
	}
	obj := r.New()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, obj); err != nil {
		return v, apierrors.NewBadRequest(err.Error())
	}
	obj.GetObjectKind().SetGroupVersionKind(r.groupVersionKind())
	v.Source = stored{obj}
	return v, nil
}

// valid says what is wrong with an object's metadata, as the API server does.
func (r *Resource) valid(u *unstructured.Unstructured) error {
	values, ok := u.Object["metadata"].(map[string]any)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("metadata: got %T, want an object", u.Object["metadata"]))
	}
	var m metav1.ObjectMeta
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(values, &m); err != nil {
		return apierrors.NewBadRequest("metadata: " + err.Error())
	}
	if errs := validation.ValidateObjectMeta(&m, r.Namespaced, validation.NameIsDNSSubdomain, field.NewPath("metadata")); len(errs) > 0 {
		return apierrors.NewInvalid(r.groupVersionKind().GroupKind(), m.Name, errs)
	}
	return nil
}

// create adds an object.
func (s *Server) create(c *call, body []byte) error {
	obj, err := c.decode(body)
	if err != nil {
		return err
	}
	m, _ := obj.(metav1.Object) // all are
	switch {
	case m.GetResourceVersion() != "":
		return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	case m.GetNamespace() != "" && m.GetNamespace() != c.namespace:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	case m.GetName() == "" && m.GetGenerateName() == "":
		return apierrors.NewBadRequest("name or generateName is required")
	case c.resource.Namespaced && !s.cluster.has(c.namespace):
		return apierrors.NewNotFound(Namespaces().groupResource(), c.namespace)
	}
	m.SetNamespace(c.namespace)
	m.SetUID(uuid.NewUUID())
	m.SetCreationTimestamp(metav1.NewTime(s.cluster.Clock()))
	m.SetDeletionTimestamp(nil)
	m.SetDeletionGracePeriodSeconds(nil)
	m.SetManagedFields(nil)
	generated := m.GetName() == ""
	if job, ok := obj.(*batchv1.Job); ok && generated && len(job.Labels) == 0 {
		job.Labels = maps.Clone(job.Spec.Template.Labels) // without those of its name, as the API server for once
	}
	for try := 1; ; try++ {
		if generated {
			m.SetName(m.GetGenerateName() + utilrand.String(suffix))
		}
		u, err := fieldsOf(withDefaults(obj.DeepCopyObject())) // which may speak of the name
		if err != nil {
			return err
		}
		begin(c.resource, u)
		if err := c.resource.valid(u); err != nil {
			return err
		}
		v, err := c.resource.newVersion(u)
		if err != nil {
			return err
		}
		made, err := s.cluster.Create(c.resource, v)
		if generated && apierrors.IsAlreadyExists(err) && try < tries {
			continue
		}
		if err != nil {
			return err
		}
		return c.send(http.StatusCreated, made)
	}
}

// has reports whether there is a namespace, be it only by what is in it.
func (c *Cluster) has(namespace string) bool {
	_, err := c.Get(Namespaces(), "", namespace)
	return err == nil || c.inhabited(namespace)
}

// replace puts an object, or its status, in place of what it was.
func (s *Server) replace(c *call, body []byte) error {
	obj, err := c.decode(body)
	if err != nil {
		return err
	}
	m, _ := obj.(metav1.Object)
	if m.GetName() != c.name {
		return apierrors.NewBadRequest(fmt.Sprintf(notOfPath, "name", m.GetName(), "name", c.name))
	}
	if m.GetNamespace() != "" && m.GetNamespace() != c.namespace {
		return apierrors.NewBadRequest(fmt.Sprintf(notOfPath, "namespace", m.GetNamespace(), "namespace", c.namespace))
	}
	if c.resource.custom() && m.GetResourceVersion() == "" {
		return status(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "metadata.resourceVersion: Invalid value: 0: must be specified for an update")
	}
	next, err := fieldsOf(obj)
	if err != nil {
		return err
	}
	before, err := s.cluster.Get(c.resource, c.namespace, c.name)
	if err != nil {
		return err
	}
	return s.put(c, before, next, m.GetResourceVersion())
}

// patch merges into an object, or into its status.
func (s *Server) patch(c *call, body []byte) error {
	kind, _, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	if err != nil || kind != string(types.MergePatchType) {
		return status(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, onlyPatches)
	}
	var changes map[string]any
	if err := utiljson.Unmarshal(body, &changes); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	for try := 1; ; try++ {
		before, err := s.cluster.Get(c.resource, c.namespace, c.name)
		if err != nil {
			return err
		}
		next, err := fieldsOf(before.Source.Object())
		if err != nil {
			return err
		}
		merge(next.Object, changes)
		wants := next.GetResourceVersion() // the patch may name it
		unstructured.RemoveNestedField(next.Object, "metadata", "resourceVersion")
		err = s.put(c, before, next, wants)
		if wants != "" || !apierrors.IsConflict(err) || try == tries {
			return err
		}
	}
}

// merge does what RFC 7386 says.
func merge(into, changes map[string]any) {
	for key, value := range changes {
		inner, ok := value.(map[string]any)
		switch {
		case value == nil:
			delete(into, key)
		case !ok:
			into[key] = value
		default:
			old, ok := into[key].(map[string]any)
			if !ok {
				old = map[string]any{}
				into[key] = old
			}
			merge(old, inner)
		}
	}
}

// put writes what a writer made of an object, as far as it is the writer's.
// number is the resourceVersion that it wants to have changed, if any.
func (s *Server) put(c *call, before *Version, next *unstructured.Unstructured, number string) error {
	if number != "" && number != fmt.Sprint(before.Number) || next.GetUID() != "" && next.GetUID() != before.UID {
		return apierrors.NewConflict(c.resource.groupResource(), c.name, errors.New(notLatest))
	}
	old, err := fieldsOf(before.Source.Object())
	if err != nil {
		return err
	}
	u := settle(c.resource, old, next, c.sub)
	if err := c.resource.valid(u); err != nil {
		return err
	}
	v, err := c.resource.newVersion(u)
	if err != nil {
		return err
	}
	written, err := fieldsOf(v.Source.Object()) // without what the type has not
	if err != nil {
		return err
	}
	delete(old.Object, "kind") // or has none, as it was made
	delete(old.Object, "apiVersion")
	delete(written.Object, "kind")
	delete(written.Object, "apiVersion")
	if reflect.DeepEqual(old.Object, written.Object) {
		return c.send(http.StatusOK, before)
	}
	if u.GetDeletionTimestamp() != nil && len(u.GetFinalizers()) == 0 && (u.GetDeletionGracePeriodSeconds() == nil || *u.GetDeletionGracePeriodSeconds() == 0) {
		gone, err := s.cluster.deleteAt(c.resource, before)
		if err != nil {
			return err
		}
		return c.send(http.StatusOK, gone)
	}
	after, err := s.cluster.Update(c.resource, v, before.Number)
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, after)
}

// settle is what becomes of an object when a writer wants another: the status
// is its own writer's, and what the API server keeps is the API server's.
func settle(r *Resource, old, next *unstructured.Unstructured, sub string) *unstructured.Unstructured {
	was, set := old.Object["status"]
	if sub == "status" {
		was, set = next.Object["status"]
		next = withMetadata(r, old, next)
	}
	if delete(next.Object, "status"); set {
		next.Object["status"] = was
	}
	next.SetNamespace(old.GetNamespace())
	next.SetName(old.GetName())
	next.SetGenerateName(old.GetGenerateName())
	next.SetUID(old.GetUID())
	next.SetCreationTimestamp(old.GetCreationTimestamp())
	next.SetDeletionTimestamp(old.GetDeletionTimestamp())
	next.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	next.SetGeneration(old.GetGeneration())
	next.SetManagedFields(nil)
	if old.GetGeneration() > 0 && !reflect.DeepEqual(wish(old), wish(next)) {
		next.SetGeneration(old.GetGeneration() + 1)
	}
	return next
}

// withMetadata is an object with what a write of its status changes of its
// metadata too.
func withMetadata(r *Resource, old, next *unstructured.Unstructured) *unstructured.Unstructured {
	u := old.DeepCopy()
	if r.custom() {
		return u
	}
	u.SetAnnotations(next.GetAnnotations())
	u.SetFinalizers(next.GetFinalizers())
	if r.Kind != "Deployment" {
		u.SetLabels(next.GetLabels())
	}
	if r.Kind != "Pod" {
		u.SetOwnerReferences(next.GetOwnerReferences())
	}
	return u
}

// wish is what of an object is neither its metadata nor its status.
func wish(u *unstructured.Unstructured) map[string]any {
	out := maps.Clone(u.Object)
	for _, key := range []string{"metadata", "status", "kind", "apiVersion"} {
		delete(out, key)
	}
	return out
}

// begin is how an object of the kind begins: with a status of its own.
func begin(r *Resource, u *unstructured.Unstructured) {
	delete(u.Object, "status")
	if r.Plural != "namespaces" {
		u.SetGeneration(1)
	}
	switch r.Kind {
	case "Pod":
		u.Object["status"] = map[string]any{"phase": string(corev1.PodPending)}
	case "Namespace":
		u.Object["status"] = map[string]any{"phase": string(corev1.NamespaceActive)}
	}
}

// seconds is a time as objects have it.
func seconds(t time.Time) *metav1.Time {
	m := metav1.NewTime(t.Truncate(time.Second))
	return &m
}
