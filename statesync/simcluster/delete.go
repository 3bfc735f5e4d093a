package simcluster

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// delete takes an object away, or begins to: when it has finalizers, and when
// it is a pod that a kubelet has to stop.
func (s *Server) delete(c *call, body []byte) error {
	o, err := c.deleteOptions(body)
	if err != nil {
		return err
	}
	var left *Version
	gone := false
	for try := 1; ; try++ {
		left, gone, err = s.end(c.resource, c.namespace, c.name, o)
		if !apierrors.IsConflict(err) || o.Preconditions != nil || try == tries {
			break // no one came in between
		}
	}
	if err != nil {
		return err
	}
	if !gone || c.resource.Kind == "Pod" {
		return c.send(http.StatusOK, left)
	}
	return send(c.w, c.form, http.StatusOK, &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess,
		Details: &metav1.StatusDetails{Name: left.Name, Group: c.resource.Group, Kind: c.resource.Plural, UID: left.UID},
	})
}

// deleteAll takes away what a list would show.
func (s *Server) deleteAll(c *call, body []byte) error {
	o, err := c.deleteOptions(body)
	if err != nil {
		return err
	}
	q, err := c.query()
	if err != nil {
		return err
	}
	q.Limit = 0
	l, err := s.list(c, q)
	if err != nil {
		return err
	}
	for _, v := range l.objects {
		if _, _, err := s.end(c.resource, v.Namespace, v.Name, o); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return send(c.w, c.form, http.StatusOK, &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess})
}

func (c *call) deleteOptions(body []byte) (*metav1.DeleteOptions, error) {
	o := &metav1.DeleteOptions{}
	if len(body) > 0 {
		info, err := c.encoding()
		if err != nil {
			return nil, err
		}
		if info.EncodesAsText { // of any group's version
			err = utiljson.Unmarshal(body, o)
		} else {
			_, _, err = info.Serializer.Decode(body, nil, o)
		}
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	if len(o.DryRun) > 0 {
		return nil, errDryRun()
	}
	if text := c.URL.Query().Get("gracePeriodSeconds"); text != "" && o.GracePeriodSeconds == nil {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		o.GracePeriodSeconds = &n
	}
	if o.GracePeriodSeconds != nil && *o.GracePeriodSeconds < 0 {
		o.GracePeriodSeconds = new(int64(1)) // as the API server
	}
	return o, nil
}

// end takes an object away or begins to, and returns what is left of it, or
// what it was.
func (s *Server) end(r *Resource, namespace, object string, o *metav1.DeleteOptions) (left *Version, gone bool, err error) {
	before, err := s.cluster.Get(r, namespace, object)
	if err != nil {
		return nil, false, err
	}
	if err := met(r, before, o.Preconditions); err != nil {
		return nil, false, err
	}
	if r.Kind == "Namespace" && r.Group == "" {
		left, err = s.endNamespace(r, before)
		return left, err == nil, err
	}
	obj := before.Source.Object()
	u, err := fieldsOf(obj)
	if err != nil {
		return nil, false, err
	}
	grace := int64(0)
	if pod, ok := obj.(*corev1.Pod); ok {
		grace = graceOf(pod, o.GracePeriodSeconds)
	}
	finalizers := propagated(u.GetFinalizers(), o.PropagationPolicy)
	held := !slices.Equal(finalizers, u.GetFinalizers())
	u.SetFinalizers(finalizers)
	if grace == 0 && len(finalizers) == 0 {
		left, err = s.cluster.deleteAt(r, before)
		return left, err == nil, err
	}
	if !s.terminate(u, grace) && !held {
		return before, false, nil
	}
	v, err := r.newVersion(u)
	if err != nil {
		return nil, false, err
	}
	left, err = s.cluster.Update(r, v, before.Number)
	return left, false, err
}

// propagated are an object's finalizers once its deletion was asked for: what
// it controls stays, or goes first, as long as nobody takes them off.
func propagated(finalizers []string, policy *metav1.DeletionPropagation) []string {
	if policy == nil {
		return finalizers // of the deletions that were asked for before
	}
	out := slices.DeleteFunc(slices.Clone(finalizers), func(f string) bool {
		return f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents
	})
	switch *policy {
	case metav1.DeletePropagationOrphan:
		out = append(out, metav1.FinalizerOrphanDependents)
	case metav1.DeletePropagationForeground:
		out = append(out, metav1.FinalizerDeleteDependents)
	}
	return out
}

// met says which precondition does not hold.
func met(r *Resource, v *Version, p *metav1.Preconditions) error {
	var err error
	if p != nil && p.UID != nil && *p.UID != v.UID {
		err = fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, v.UID)
	}
	if p != nil && p.ResourceVersion != nil && *p.ResourceVersion != strconv.FormatInt(v.Number, 10) {
		err = fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%d). The object might have been modified", *p.ResourceVersion, v.Number)
	}
	if err != nil {
		return apierrors.NewConflict(r.groupResource(), v.Name, err)
	}
	return nil
}

// graceOf is how many seconds a pod has to stop; none, when no kubelet has it
// or it has ended.
func graceOf(pod *corev1.Pod, asked *int64) int64 {
	switch {
	case pod.DeletionGracePeriodSeconds != nil && asked != nil: // it is on its way
		return *asked
	case pod.DeletionGracePeriodSeconds != nil:
		return *pod.DeletionGracePeriodSeconds
	case pod.Spec.NodeName == "", pod.Status.Phase == corev1.PodSucceeded, pod.Status.Phase == corev1.PodFailed:
		return 0
	case asked != nil:
		return *asked
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return *pod.Spec.TerminationGracePeriodSeconds
	}
	return defaultGrace
}

// terminate notes that an object is to go, and reports whether that is news:
// grace only becomes shorter.
func (s *Server) terminate(u *unstructured.Unstructured, grace int64) bool {
	begun := s.cluster.Clock()
	if at, old := u.GetDeletionTimestamp(), u.GetDeletionGracePeriodSeconds(); at != nil {
		if old == nil || grace >= *old {
			return false
		}
		begun = at.Add(-time.Duration(*old) * time.Second)
	} else if u.GetGeneration() > 0 {
		u.SetGeneration(u.GetGeneration() + 1)
	}
	u.SetDeletionTimestamp(seconds(begun.Add(time.Duration(grace) * time.Second)))
	u.SetDeletionGracePeriodSeconds(&grace)
	return true
}

// endNamespace takes a namespace away with all that is in it.
func (s *Server) endNamespace(r *Resource, before *Version) (*Version, error) {
	if before.Name == metav1.NamespaceSystem || before.Name == metav1.NamespaceDefault {
		return nil, apierrors.NewForbidden(r.groupResource(), before.Name, errors.New("this namespace may not be deleted"))
	}
	ns, ok := before.Source.Object().(*corev1.Namespace)
	if !ok {
		return nil, fmt.Errorf("end namespace %s: got %T, want a namespace", before.Name, before.Source.Object())
	}
	ns.DeletionTimestamp, ns.Status.Phase = seconds(s.cluster.Clock()), corev1.NamespaceTerminating
	v := *before
	v.Source = stored{ns}
	if _, err := s.cluster.Update(r, v, before.Number); err != nil {
		return nil, err
	}
	for _, inner := range s.cluster.Resources() {
		if !inner.Namespaced {
			continue
		}
		all, _, err := s.cluster.List(inner, before.Name)
		if err != nil {
			continue // it was taken away meanwhile
		}
		for _, o := range all {
			_, _ = s.cluster.Delete(inner, o.Namespace, o.Name, nil) // or it went by itself
		}
	}
	return s.cluster.Delete(r, "", before.Name, nil)
}
