package watch

import (
	"container/list"
	"fmt"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// held is an entry of the indexer.
type held struct {
	*workload.Object
	own bool // it tells its own story, whoever comes to control it
}

// A delta is one thing that happened to one object.
type delta struct {
	stream   *stream
	object   *workload.Object // as it was last seen
	folded   bool             // it tells its controller's story
	removed  bool
	late     bool // not seen by the live watch as it happened
	listed   bool // found by a list
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
func (s *stream) Transformer() cache.TransformFunc { return s.Kind.Trim }

func (s *stream) put(obj any) error {
	o := s.reduce(obj)
	if o == nil {
		return nil
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
	o := s.reduce(obj)
	if o == nil {
		return nil
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
	listed := make([]*workload.Object, 0, len(items))
	there := make(map[string]bool, len(items)) // UIDs, of those too that cannot be read
	for _, item := range items {
		if o := s.reduce(item); o != nil {
			listed = append(listed, o)
		}
		if m, err := meta.Accessor(item); err == nil {
			there[string(m.GetUID())] = true
		}
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.listed == 0 {
		s.floor = s.mark()
	}
	s.taking = true
	now := s.w.opts.Now()
	for _, old := range s.missing(there) {
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
	s.taking, s.synced, s.listing = false, true, false
	if s.w.gate.closed() {
		s.pause()
	}
	return nil
}

// missing returns what is known of the stream and not there, by UID: objects
// of the indexer, and at the first list lives that the log remembers.
func (s *stream) missing(there map[string]bool) (gone []*workload.Object) {
	here := make(map[string]bool, len(s.objects))
	for _, old := range s.objects {
		here[old.UID] = true
		if !there[old.UID] {
			gone = append(gone, old.Object)
		}
	}
	for uid, l := range s.w.lives {
		if s.synced || here[uid] || there[uid] || l.Kind != s.Kind.Name ||
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
	old := s.objects[key]
	if old != nil && old.UID != o.UID {
		gone := *old.Object
		gone.ResourceVersion = o.ResourceVersion
		s.remove(&gone, true, now)
		old = nil
	}
	if old != nil && old.Controller.UID != o.Controller.UID {
		s.w.unfold(old.Object)
	}
	h := &held{Object: o, own: s.tellsItself(o, old)}
	s.objects[key] = h
	if !h.own {
		s.w.fold(o)
	}
	s.append(&delta{stream: s, object: o, folded: !h.own, late: late, observed: now})
}

func (s *stream) remove(o *workload.Object, late bool, now time.Time) {
	old := s.objects[objectKey(o)]
	if old != nil && old.UID == o.UID {
		delete(s.objects, objectKey(o))
		s.w.unfold(old.Object)
	} else {
		old = nil
	}
	s.append(&delta{stream: s, object: o, folded: !s.tellsItself(o, old), removed: true, late: late, observed: now})
}

// tellsItself reports whether an object tells a story of its own: all do but
// pods of tracked workloads. A pod that had one when a workload adopted it
// goes on with it, else its story would have no end.
func (s *stream) tellsItself(o *workload.Object, old *held) bool {
	if old != nil && old.own || s.w.lives[o.UID] != nil {
		return true
	}
	owner, ok := workload.Kinds[o.Controller.Kind]
	return !ok || o.Kind != "Pod" || !owner.Folds || owner.Group != o.Controller.Group || !s.w.tracked[owner.Name]
}

// fold and unfold keep the index of pods by their controller.
func (w *Watcher) fold(pod *workload.Object) {
	pods := w.pods[pod.Controller.UID]
	if pods == nil {
		pods = map[string]*workload.Object{}
		w.pods[pod.Controller.UID] = pods
	}
	pods[pod.UID] = pod
}

func (w *Watcher) unfold(pod *workload.Object) {
	pods := w.pods[pod.Controller.UID]
	if delete(pods, pod.UID); len(pods) == 0 {
		delete(w.pods, pod.Controller.UID)
	}
}

// append puts a delta at the end of its workload's pending list. At the bound
// it closes the gate.
func (s *stream) append(d *delta) {
	s.pipe.In(1)
	key, ok := s.key(d)
	if !ok {
		s.pipe.Out(1)
		return
	}
	if d.listed = s.taking; d.listed {
		s.listed++
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
	if d.listed {
		d.stream.listed--
	}
	d.stream.pipe.Out(1)
	if w.total--; w.total <= w.opts.MaxPending/2 {
		w.gate.open()
	}
}

// key returns the key of the workload whose story the delta tells; false when
// nobody wants it.
func (s *stream) key(d *delta) (statesync.Key, bool) {
	o := d.object
	if d.folded {
		return statesync.Key{Kind: o.Controller.Kind, Namespace: o.Namespace, Name: o.Controller.Name}, true
	}
	return statesync.Key{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}, !s.FoldOnly
}

// reduce returns nil for what cannot be read, which is counted and logged. The
// reflector is told nothing: it would log the whole object.
func (s *stream) reduce(obj any) *workload.Object {
	o, err := s.Kind.Reduce(obj)
	if err != nil {
		s.unreadable(err)
	}
	return o
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
