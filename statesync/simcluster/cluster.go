// Package simcluster plays a Kubernetes API server that holds simulated objects: lists, watches, bookmarks, history, and faults on request.
//
// It is for what no real cluster on a small machine can do: a hundred thousand
// pods, thousands of changes a second, and faults at a given moment. What it
// answers is serialised by apimachinery's own codecs, and one suite holds it to
// what a real API server answers.
package simcluster

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/third_party/forked/golang/btree"
)

const defaultHistory = 100_000

// Options say what a cluster is like.
type Options struct {
	History int              // events kept of each resource; a watch from before is answered 410; default 100,000
	Now     func() time.Time // what its clock goes by; default time.Now
}

// A Resource is a collection of objects that the cluster serves.
type Resource struct {
	Group, Version, Plural, Kind string
	Namespaced                   bool
	New, NewList                 func() runtime.Object // nil: it is custom, and served as JSON alone
}

func (r *Resource) groupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Plural}
}

// A Source makes an object. It is shared by everyone who has a [Version] of it,
// and does not change.
type Source interface {
	// Object returns the whole object, but for its resourceVersion. It is the
	// caller's own, but not what its labels, annotations and spec point to.
	Object() runtime.Object
}

// A Version is an object as it was from one resourceVersion on. It does not
// change.
type Version struct {
	Namespace, Name string
	UID             types.UID
	Labels          map[string]string
	Number          int64 // its resourceVersion
	Source          Source
}

// An Event is a change of one object. Of a deletion, Object is what it last
// was, with the resourceVersion of its end.
type Event struct {
	Type   watch.EventType
	Object *Version
	Before *Version // nil: there was none
}

// A Cluster holds objects and what became of them. It is safe for concurrent
// use.
type Cluster struct {
	opts Options
	skew atomic.Int64 // nanoseconds that the clock is wrong by

	mu      sync.Mutex // guards what follows
	version int64      // the last resourceVersion given
	stores  map[schema.GroupResource]*store
	gone    map[schema.GroupResource]*store // taken away; their end may still be told
	order   []*Resource
}

// degree is of the trees of objects: nodes of up to 63.
const degree = 32

// order is that of lists: by namespace and name.
func order(a, b *Version) bool {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name)) < 0
}

// A store is one resource's objects and their events.
type store struct {
	resource *Resource
	objects  *btree.BTree[*Version] // a clone of it is a snapshot, and cheap
	events   []Event                // what was once in it is never written again: a part of it may be read without the lock
	expired  int64                  // a watch from a version below it is answered 410
	removed  bool
	wake     chan struct{}
}

// New returns a cluster that has the resources given, and nothing of them.
func New(o Options, resources ...*Resource) *Cluster {
	o.History = cmp.Or(o.History, defaultHistory)
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Cluster{opts: o, version: 1, stores: map[schema.GroupResource]*store{}, gone: map[schema.GroupResource]*store{}}
	for _, r := range resources {
		c.Add(r)
	}
	return c
}

// Add has the cluster serve a resource, as a CustomResourceDefinition that is
// created does.
func (c *Cluster) Add(r *Resource) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stores[r.groupResource()] == nil {
		c.stores[r.groupResource()] = &store{resource: r, objects: btree.New(degree, order), expired: c.version}
		delete(c.gone, r.groupResource())
		c.order = append(c.order, r)
	}
}

// Remove takes a resource away with its objects: what watches it is told of
// their deletion.
func (c *Cluster) Remove(r *Resource) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stores[r.groupResource()]
	if s == nil {
		return
	}
	for v, ok := s.objects.Min(); ok; v, ok = s.objects.Min() {
		c.remove(s, v, nil)
	}
	s.removed = true
	delete(c.stores, r.groupResource())
	c.gone[r.groupResource()] = s
	c.order = slices.DeleteFunc(c.order, func(other *Resource) bool { return other == s.resource })
	s.signal()
}

// Clock is the time by the cluster's own clock, with which its objects are
// stamped.
func (c *Cluster) Clock() time.Time { return c.opts.Now().Add(time.Duration(c.skew.Load())) }

// SetClock puts the cluster's clock on by a duration, or back by a negative
// one. What is stamped stays so.
func (c *Cluster) SetClock(by time.Duration) { c.skew.Add(int64(by)) }

// Resources returns what the cluster serves, in the order in which it was
// added.
func (c *Cluster) Resources() []*Resource {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.order)
}

// store returns a resource's. The lock must be held.
func (c *Cluster) store(r *Resource) (*store, error) {
	if s := c.stores[r.groupResource()]; s != nil {
		return s, nil
	}
	return nil, noSuchResource(r)
}

func noSuchResource(r *Resource) error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "get", r.groupResource(), "", "the server could not find the requested resource", 0, false)
}

// Create adds an object and gives it a version. Its UID must be its own.
func (c *Cluster) Create(r *Resource, v Version) (*Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.store(r)
	if err != nil {
		return nil, err
	}
	if s.objects.Has(&v) {
		return nil, apierrors.NewAlreadyExists(r.groupResource(), v.Name)
	}
	return c.put(s, watch.Added, v, nil), nil
}

// Update puts another version in place of an object's last one; of that with
// the number given, if it is not 0.
func (c *Cluster) Update(r *Resource, v Version, number int64) (*Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, before, err := c.find(r, v.Namespace, v.Name)
	if err != nil {
		return nil, err
	}
	if number != 0 && number != before.Number || v.UID != before.UID {
		return nil, conflict(r, v.Name, before, number, v.UID)
	}
	return c.put(s, watch.Modified, v, before), nil
}

// Delete takes an object away. last is what it was at its end; nil: as it was.
func (c *Cluster) Delete(r *Resource, namespace, object string, last Source) (*Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, before, err := c.find(r, namespace, object)
	if err != nil {
		return nil, err
	}
	return c.remove(s, before, last), nil
}

// deleteAt takes an object away that is still at the version given.
func (c *Cluster) deleteAt(r *Resource, v *Version) (*Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, before, err := c.find(r, v.Namespace, v.Name)
	if err != nil {
		return nil, err
	}
	if before != v {
		return nil, conflict(r, v.Name, before, v.Number, v.UID)
	}
	return c.remove(s, before, nil), nil
}

func conflict(r *Resource, object string, got *Version, number int64, uid types.UID) error {
	return apierrors.NewConflict(r.groupResource(), object, fmt.Errorf("it is at %d of %s, want %d of %s", got.Number, got.UID, number, uid))
}

// Get returns an object's last version.
func (c *Cluster) Get(r *Resource, namespace, object string) (*Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, v, err := c.find(r, namespace, object)
	return v, err
}

// find returns an object. The lock must be held.
func (c *Cluster) find(r *Resource, namespace, object string) (*store, *Version, error) {
	s, err := c.store(r)
	if err != nil {
		return nil, nil, err
	}
	v, ok := s.objects.Get(&Version{Namespace: namespace, Name: object})
	if !ok {
		return nil, nil, apierrors.NewNotFound(r.groupResource(), object)
	}
	return s, v, nil
}

// put notes a version. The lock must be held.
func (c *Cluster) put(s *store, what watch.EventType, v Version, before *Version) *Version {
	c.version++
	v.Number = c.version
	s.objects.ReplaceOrInsert(&v)
	s.happened(Event{what, &v, before}, c.opts.History)
	return &v
}

// remove notes an end. The lock must be held.
func (c *Cluster) remove(s *store, before *Version, last Source) *Version {
	c.version++
	v := *before
	v.Number = c.version
	if last != nil {
		v.Source = last
	}
	s.objects.Delete(before)
	s.happened(Event{watch.Deleted, &v, before}, c.opts.History)
	return &v
}

// happened keeps an event, and lets the oldest go when there are twice as many
// as are to be kept.
func (s *store) happened(e Event, keep int) {
	if len(s.events) >= 2*keep {
		s.forget(len(s.events) - keep)
	}
	s.events = append(s.events, e)
	s.signal()
}

// forget lets the oldest n events go.
func (s *store) forget(n int) {
	if n == 0 {
		return
	}
	s.expired = s.events[n-1].Object.Number
	s.events = slices.Clone(s.events[n:])
}

func (s *store) signal() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

// List returns a namespace's objects, or all for "", by namespace and name, and
// the cluster's version.
func (c *Cluster) List(r *Resource, namespace string) (all []*Version, version int64, err error) {
	seen, err := c.view(r, 0)
	if err != nil {
		return nil, 0, err
	}
	seen.each(namespace, "", func(v *Version) bool {
		all = append(all, v)
		return true
	})
	return all, seen.version, nil
}

// A view is a resource's objects as they were at one version.
type view struct {
	objects *btree.BTree[*Version]
	version int64
}

// view returns the objects as they are now, or as they were at a version that
// is not 0. It fails with 410 when the history does not reach it.
func (c *Cluster) view(r *Resource, version int64) (view, error) {
	c.mu.Lock()
	s, err := c.store(r)
	if err == nil && version != 0 && (version < s.expired || version > c.version) {
		err = expired(version, s.expired)
	}
	if err != nil {
		c.mu.Unlock()
		return view{}, err
	}
	seen := view{s.objects.Clone(), cmp.Or(version, c.version)}
	events := s.events[s.after(seen.version):]
	c.mu.Unlock()

	for _, e := range slices.Backward(events) {
		if e.Before != nil {
			seen.objects.ReplaceOrInsert(e.Before)
		} else {
			seen.objects.Delete(e.Object)
		}
	}
	return seen, nil
}

// each calls f with the objects of a namespace, or of all for "", in order,
// from the one with the key of start on, until f says no.
func (v view) each(namespace, start string, f func(*Version) bool) {
	from := &Version{Namespace: namespace}
	if start != "" {
		from.Namespace, from.Name, _ = strings.Cut(start, "/")
	}
	v.objects.AscendGreaterOrEqual(from, func(o *Version) bool {
		return (namespace == "" || o.Namespace == namespace) && f(o)
	})
}

// inhabited reports whether some resource has an object in the namespace.
func (c *Cluster) inhabited(namespace string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.stores {
		found := false
		s.objects.AscendGreaterOrEqual(&Version{Namespace: namespace}, func(v *Version) bool {
			found = v.Namespace == namespace
			return false
		})
		if found {
			return true
		}
	}
	return false
}

// Events returns some of what happened to a resource after a version, in
// order; they are not to be changed. When there is nothing, the version up to which that holds, and a
// channel that is closed when there is. It fails with 410 when the history no
// longer goes back that far, and with 404 when the resource is gone and all of
// its end was told.
func (c *Cluster) Events(r *Resource, after int64, most int) (events []Event, version int64, wake <-chan struct{}, err error) {
	s, err := c.stream(r)
	if err != nil {
		return nil, 0, nil, err
	}
	return c.next(s, after, most)
}

// stream returns what tells of a resource's events, also of its end.
func (c *Cluster) stream(r *Resource) (*store, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.gone[r.groupResource()]; s != nil {
		return s, nil
	}
	return c.store(r)
}

// next is [Cluster.Events] of one stream.
func (c *Cluster) next(s *store, after int64, most int) (events []Event, version int64, wake <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if after < s.expired {
		return nil, 0, nil, expired(after, s.expired)
	}
	from := s.after(after)
	if events = s.events[from:min(len(s.events), from+most)]; len(events) > 0 {
		return events, events[len(events)-1].Object.Number, nil, nil
	}
	if s.removed {
		return nil, 0, nil, noSuchResource(s.resource)
	}
	if s.wake == nil {
		s.wake = make(chan struct{})
	}
	return nil, c.version, s.wake, nil
}

// after is the index of the first event after a version.
func (s *store) after(version int64) int {
	return sort.Search(len(s.events), func(i int) bool { return s.events[i].Object.Number > version })
}

// expired is the API server's answer to a version that the history no longer
// reaches, word for word.
func expired(version, oldest int64) error {
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", version, oldest))
}

// Now is the version of the last change.
func (c *Cluster) Now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// Compact forgets the history: a watch from before now is answered 410.
func (c *Cluster) Compact() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.stores {
		s.forget(len(s.events))
		s.expired = c.version
	}
}

// SetBack has the next versions begin below those given before, as a restored
// backup of etcd does, and the history forgotten. The objects keep theirs.
func (c *Cluster) SetBack(by int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version = max(1, c.version-by)
	for _, s := range c.stores {
		s.forget(len(s.events))
		s.expired = c.version
		s.signal()
	}
}
