package watch

import (
	"container/list"
	"fmt"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// A delta is one thing that happened to one object.
type delta struct {
	stream   *stream
	object   *workload.Object // as it was last seen
	removed  bool
	late     bool // found by a list
	observed time.Time
	place    *list.Element // in the stream's inflight list
}

// The methods below make a stream the store behind its reflector. They run on
// the watch's goroutine and do constant work, but for Replace.

// Add implements [cache.ReflectorStore].
func (s *stream) Add(obj any) error { return s.put(obj) }

// Update implements [cache.ReflectorStore]. An object not known is added.
func (s *stream) Update(obj any) error { return s.put(obj) }

// Resync implements [cache.ReflectorStore]: there is none.
func (s *stream) Resync() error { return nil }

// Transformer implements [cache.TransformingStore]: a list that is streamed
// waits in memory without what the rules do not read.
func (s *stream) Transformer() cache.TransformFunc { return workload.Trim }

func (s *stream) put(obj any) error {
	o, err := s.reduce(obj)
	if err != nil {
		return err
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.touch(o.ResourceVersion)
	s.upsert(o, false, s.seen)
	return nil
}

// Delete implements [cache.ReflectorStore].
func (s *stream) Delete(obj any) error {
	if tomb, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = tomb.Obj
	}
	o, err := s.reduce(obj)
	if err != nil {
		return err
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.touch(o.ResourceVersion)
	s.remove(o, false, s.seen)
	return nil
}

// Bookmark implements [cache.ReflectorBookmarkStore]: the stream lives, and
// nothing up to the version is missing.
func (s *stream) Bookmark(version string) error {
	v, err := parseVersion(version)
	if err != nil {
		return fmt.Errorf("bookmark: %w", err)
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.touch(v)
	return nil
}

// Replace implements [cache.ReflectorStore]: it takes in a list as the
// difference to what is known, by UID. What is gone comes first, so that the
// end of one life of a name is told before the start of the next. It is
// exempt from the bound: a bound that closed during the first list would
// never open again.
func (s *stream) Replace(items []any, version string) error {
	v, err := parseVersion(version)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	listed := make(map[string]*workload.Object, len(items))
	for _, item := range items {
		o, err := s.reduce(item)
		if err != nil {
			return err
		}
		listed[o.UID] = o
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	now := s.w.opts.Now()
	for _, old := range s.missing(listed) {
		gone := *old
		gone.ResourceVersion = v
		s.remove(&gone, true, now)
	}
	for _, o := range listed {
		if old := s.objects[objectKey(o)]; old == nil || old.ResourceVersion != o.ResourceVersion {
			s.upsert(o, true, now)
		}
	}
	s.touch(v)
	s.synced = true
	if s.w.gate.closed() {
		s.pause()
	}
	return nil
}

// missing returns what is known of the stream and not in the list: objects of
// the indexer, and at the first list lives that the log remembers.
func (s *stream) missing(listed map[string]*workload.Object) (gone []*workload.Object) {
	held := make(map[string]bool, len(s.objects))
	for _, old := range s.objects {
		held[old.UID] = true
		if listed[old.UID] == nil {
			gone = append(gone, old)
		}
	}
	for uid, l := range s.w.lives {
		if s.synced || held[uid] || listed[uid] != nil || l.Kind != s.Kind.Name ||
			(s.Namespace != "" && l.Namespace != s.Namespace) {
			continue
		}
		gone = append(gone, &workload.Object{
			Kind: l.Kind, Namespace: l.Namespace, Name: l.Name, UID: uid, Labels: l.Labels,
		})
	}
	return gone
}

// upsert takes an object in. Another UID under the same name ends the old one
// first. The lock must be held, as for all that follows.
func (s *stream) upsert(o *workload.Object, late bool, now time.Time) {
	key := objectKey(o)
	if old := s.objects[key]; old != nil && old.UID != o.UID {
		gone := *old
		gone.ResourceVersion = o.ResourceVersion
		s.remove(&gone, true, now)
	}
	s.objects[key] = o
	if s.folds(o) {
		pods := s.w.pods[o.Controller.UID]
		if pods == nil {
			pods = map[string]*workload.Object{}
			s.w.pods[o.Controller.UID] = pods
		}
		pods[o.UID] = o
	}
	s.append(&delta{stream: s, object: o, late: late, observed: now})
}

func (s *stream) remove(o *workload.Object, late bool, now time.Time) {
	if old := s.objects[objectKey(o)]; old != nil && old.UID == o.UID {
		delete(s.objects, objectKey(o))
	}
	if pods := s.w.pods[o.Controller.UID]; pods != nil {
		if delete(pods, o.UID); len(pods) == 0 {
			delete(s.w.pods, o.Controller.UID)
		}
	}
	s.append(&delta{stream: s, object: o, removed: true, late: late, observed: now})
}

// append puts a delta at the end of its workload's pending list. At the bound
// it closes the gate.
func (s *stream) append(d *delta) {
	s.pipe.In(1)
	key, ok := s.key(d.object)
	if !ok {
		s.pipe.Out(1)
		return
	}
	d.place = s.inflight.PushBack(d)
	s.w.pending[key] = append(s.w.pending[key], d)
	s.w.queue.Add(key)
	if s.w.total++; s.w.total < s.w.opts.MaxPending {
		return
	}
	if s.w.gate.close() {
		for _, other := range s.w.streams {
			other.pause()
		}
	}
	s.pause() // it may have been opened just as the gate closed
}

// done takes a delta off the books: its changes, if any, are durable.
func (w *Watcher) done(d *delta) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d.stream.inflight.Remove(d.place)
	d.stream.pipe.Out(1)
	if w.total--; w.total <= w.opts.MaxPending/2 {
		w.gate.open()
	}
}

// key returns the key of the workload whose story the object tells; false
// when nobody wants it.
func (s *stream) key(o *workload.Object) (statesync.Key, bool) {
	if s.folds(o) {
		return statesync.Key{Kind: o.Controller.Kind, Namespace: o.Namespace, Name: o.Controller.Name}, true
	}
	return statesync.Key{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}, !s.FoldOnly
}

// folds reports whether the object is a pod that tells its controller's story.
func (s *stream) folds(o *workload.Object) bool {
	owner, ok := workload.Kinds[o.Controller.Kind]
	return ok && o.Kind == "Pod" && owner.Folds && owner.Group == o.Controller.Group && s.w.tracked[owner.Name]
}

func (s *stream) reduce(obj any) (*workload.Object, error) {
	ro, ok := obj.(runtime.Object)
	if !ok {
		return nil, fmt.Errorf("stream %s: got %T, want an object", s.Name(), obj)
	}
	return workload.Reduce(ro)
}

// touch notes that the stream lives and has come as far as version.
func (s *stream) touch(version uint64) {
	s.seen = s.w.opts.Now()
	s.version = max(s.version, version)
}

func objectKey(o *workload.Object) string { return o.Namespace + "/" + o.Name }

func parseVersion(s string) (uint64, error) {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resourceVersion %q, want a whole number", s)
	}
	return v, nil
}
