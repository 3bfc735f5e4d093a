package watch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/statesync/workload"
)

// cluster is an API server with a history: watches are answered from any
// version that is not compacted, lists from the present. The test writes the
// history, breaks watches, makes calls fail, compacts, loses events, and sets
// the cluster back.
type cluster struct {
	mu      sync.Mutex
	events  []happening // the one with version v is events[v-1]
	page    int         // objects in a page of the audit's list
	oldest  int         // versions at or below are compacted
	watches map[*tail]bool
	lose    func(happening) bool    // an event that no watch is told; nil: none
	fail    func(call string) error // how a call ends: list, watch, audit, get NAME; nil: well
	refused map[string]error        // how every call of a resource ends; nil: as fail says
	late    map[string]int          // by resource, the version up to which watches are told; absent: all
}

// A happening is one write.
type happening struct {
	resource string
	typ      kwatch.EventType
	object   runtime.Object
}

func newCluster() *cluster {
	return &cluster{watches: map[*tail]bool{}, page: 100, refused: map[string]error{}}
}

func (c *cluster) source(resource string) *collection { return &collection{c: c, resource: resource} }

// refusing makes every call of a resource fail from now on; nil: they succeed
// again.
func (c *cluster) refusing(resource string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused[resource] = err
}

// failing makes calls fail from now on; nil: they succeed again.
func (c *cluster) failing(fail func(call string) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = fail
}

// call says how a call ends. It may wait.
func (c *cluster) call(resource, name string) error {
	c.mu.Lock()
	fail, refused := c.fail, c.refused[resource]
	c.mu.Unlock()
	if fail == nil || refused != nil {
		return refused
	}
	return fail(name)
}

// write makes an object, or changes or removes it.
func (c *cluster) write(typ kwatch.EventType, obj runtime.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	obj = obj.DeepCopyObject()
	obj.(metav1.Object).SetResourceVersion(strconv.Itoa(len(c.events) + 1))
	h := happening{resourceOf(obj), typ, obj}
	c.events = append(c.events, h)
	for t := range c.watches {
		t.tell(c, len(c.events))
	}
}

// delay has watches of some resources told of what is written from now on only
// when it is shown.
func (c *cluster) delay(resources ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = map[string]int{}
	for _, r := range resources {
		c.late[r] = len(c.events)
	}
}

// show tells the watches of a resource of its next event.
func (c *cluster) show(resource string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for v := c.late[resource] + 1; v <= len(c.events); v++ {
		if c.events[v-1].resource == resource {
			c.late[resource] = v
			for t := range c.watches {
				t.tell(c, v)
			}
			return
		}
	}
}

func resourceOf(obj runtime.Object) string {
	switch obj.(type) {
	case *batchv1.Job:
		return "jobs"
	case *appsv1.Deployment:
		return "deployments"
	case *appsv1.ReplicaSet:
		return "replicasets"
	case *corev1.ConfigMap:
		return "notebooks"
	}
	return "pods"
}

// now is what exists at the present, by namespace/name.
func (c *cluster) now(resource string) map[string]runtime.Object {
	return c.at(resource, len(c.events))
}

func (c *cluster) at(resource string, version int) map[string]runtime.Object {
	out := map[string]runtime.Object{}
	for _, h := range c.events[:version] {
		if h.resource != resource {
			continue
		}
		m := h.object.(metav1.Object)
		key := m.GetNamespace() + "/" + m.GetName()
		if out[key] = h.object; h.typ == kwatch.Deleted {
			delete(out, key)
		}
	}
	return out
}

// bookmark tells every watch how far the cluster has come.
func (c *cluster) bookmark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t := range c.watches {
		t.out <- kwatch.Event{Type: kwatch.Bookmark, Object: bookmark(t.empty(), strconv.Itoa(len(c.events)), false)}
	}
}

// cut ends every watch, as a server does that is restarted.
func (c *cluster) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t := range c.watches {
		close(t.out)
	}
	clear(c.watches)
}

// cutOff ends the watches of a resource.
func (c *cluster) cutOff(resource string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t := range c.watches {
		if t.resource == resource {
			close(t.out)
			delete(c.watches, t)
		}
	}
}

// compact drops the history.
func (c *cluster) compact() {
	c.cut()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.oldest = len(c.events)
}

// restore sets the cluster back to a version.
func (c *cluster) restore(version int) {
	c.cut()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = c.events[:version:version]
	c.oldest = min(c.oldest, version)
}

func (c *cluster) head() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.events)
}

// A collection is a [Source] and an [Inspector] of a cluster.
type collection struct {
	c        *cluster
	resource string
	selects  func(metav1.Object) bool // nil: all
	bare     bool                     // metadata alone
}

// hop is the collection read by its metadata alone.
func (s *collection) hop() *collection { return &collection{s.c, s.resource, s.selects, true} }

// within is the collection of one namespace; labelled, of what has the label
// app=x.
func (s *collection) within(namespace string) *collection {
	return &collection{s.c, s.resource, func(m metav1.Object) bool { return m.GetNamespace() == namespace }, s.bare}
}

func (s *collection) labelled() *collection {
	return &collection{s.c, s.resource, func(m metav1.Object) bool {
		return (s.selects == nil || s.selects(m)) && m.GetLabels()["app"] == "x"
	}, s.bare}
}

// holds is what the collection selects, of what exists at the present.
func (s *collection) holds() []runtime.Object { return s.held(len(s.c.events)) }

func (s *collection) held(version int) (out []runtime.Object) {
	now := s.c.at(s.resource, version)
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if s.selects == nil || s.selects(now[key].(metav1.Object)) {
			out = append(out, s.form(now[key]))
		}
	}
	return out
}

// form is a copy of an object in the form in which the collection is read.
func (s *collection) form(obj runtime.Object) runtime.Object {
	obj = obj.DeepCopyObject()
	if !s.bare {
		return obj
	}
	m := obj.(metav1.Object)
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUID(), ResourceVersion: m.GetResourceVersion(),
		Labels: m.GetLabels(), OwnerReferences: m.GetOwnerReferences(),
		CreationTimestamp: m.GetCreationTimestamp(), DeletionTimestamp: m.GetDeletionTimestamp(),
	}}
}

func (s *collection) empty() runtime.Object { return s.kind().Object() }

func (s *collection) kind() workload.Kind {
	k := notebook()
	for _, known := range workload.Kinds {
		if known.Resource == s.resource {
			k = known
		}
	}
	if s.bare {
		return workload.Hop(k)
	}
	return k
}

// List is asked for one object to learn the version, and for all by a
// reflector to which a streamed list was refused.
func (s *collection) List(_ context.Context, o metav1.ListOptions) (runtime.Object, error) {
	if err := s.c.call(s.resource, "list"); err != nil {
		return nil, err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	version := strconv.Itoa(len(s.c.events))
	if o.Limit == 1 {
		return &metav1.List{ListMeta: metav1.ListMeta{ResourceVersion: version}}, nil
	}
	list := s.kind().List()
	list.(metav1.ListInterface).SetResourceVersion(version)
	return list, meta.SetList(list, s.holds())
}

func (s *collection) Watch(_ context.Context, o metav1.ListOptions) (kwatch.Interface, error) {
	c := s.c
	if err := c.call(s.resource, "watch"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &tail{collection: s, out: make(chan kwatch.Event, 10_000), stop: func() {}}
	t.stop = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.watches[t] {
			delete(c.watches, t)
			close(t.out)
		}
	}
	c.watches[t] = true
	if o.SendInitialEvents != nil {
		for _, obj := range s.holds() {
			t.out <- kwatch.Event{Type: kwatch.Added, Object: obj}
		}
		t.out <- kwatch.Event{Type: kwatch.Bookmark, Object: bookmark(t.empty(), strconv.Itoa(len(c.events)), true)}
		return t, nil
	}
	from, err := strconv.Atoi(o.ResourceVersion)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if from < c.oldest {
		t.out <- kwatch.Event{Type: kwatch.Error, Object: &apierrors.NewResourceExpired("too old").ErrStatus}
		return t, nil
	}
	for v := from + 1; v <= len(c.events); v++ {
		t.tell(c, v)
	}
	return t, nil
}

// ListMetadata lists a page, of the size that the test gives; its token is
// the version and the number of the next object.
func (s *collection) ListMetadata(_ context.Context, o metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	if err := s.c.call(s.resource, "audit"); err != nil {
		return nil, err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	page, version, next := s.c.page, len(s.c.events), 0
	if o.Continue != "" {
		if _, err := fmt.Sscanf(o.Continue, "%d/%d", &version, &next); err != nil || version > len(s.c.events) {
			return nil, apierrors.NewResourceExpired("continue " + o.Continue)
		}
	}
	list := &metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(version)}}
	all := s.held(version)
	for _, obj := range all[next:min(next+page, len(all))] {
		m := obj.(metav1.Object)
		list.Items = append(list.Items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUID(), ResourceVersion: m.GetResourceVersion(),
			OwnerReferences: m.GetOwnerReferences(),
		}})
	}
	if next+page < len(all) {
		list.Continue = fmt.Sprintf("%d/%d", version, next+page)
	}
	return list, nil
}

func (s *collection) Object(_ context.Context, namespace, name string) (runtime.Object, error) {
	if err := s.c.call(s.resource, "get "+name); err != nil {
		return nil, err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if obj, ok := s.c.now(s.resource)[namespace+"/"+name]; ok {
		return s.form(obj), nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource(s.resource), name)
}

// A tail is an open watch.
type tail struct {
	*collection
	out  chan kwatch.Event
	stop func()
}

// tell sends the event of a version, if the watch is of its kind. To a watch
// that selects, an object appears when it is selected, and is DELETED, as it
// was before, when it no longer is.
func (t *tail) tell(c *cluster, version int) {
	h := c.events[version-1]
	if h.resource != t.resource || c.lose != nil && c.lose(h) {
		return
	}
	if most, late := c.late[t.resource]; late && version > most {
		return
	}
	typ, obj := h.typ, t.form(h.object)
	if t.selects != nil {
		m := obj.(metav1.Object)
		before, was := c.at(t.resource, version-1)[m.GetNamespace()+"/"+m.GetName()]
		was = was && t.selects(before.(metav1.Object))
		is := typ != kwatch.Deleted && t.selects(m)
		switch {
		case !was && !is:
			return
		case !was:
			typ = kwatch.Added
		case !is:
			typ, obj = kwatch.Deleted, t.form(before)
			obj.(metav1.Object).SetResourceVersion(strconv.Itoa(version))
		}
	}
	t.out <- kwatch.Event{Type: typ, Object: obj}
}

func (t *tail) Stop()                           { t.stop() }
func (t *tail) ResultChan() <-chan kwatch.Event { return t.out }

func uidOf(obj runtime.Object) string {
	m, err := meta.Accessor(obj)
	if err != nil {
		panic(err)
	}
	return string(m.GetUID())
}
