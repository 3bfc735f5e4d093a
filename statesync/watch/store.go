package watch

import (
	"container/list"
	"fmt"
	"strconv"
	"time"

	"k8s.io/client-go/tools/cache"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// held is an entry of the indexer.
type held struct {
	*workload.Object
	teller
	settled uint64 // resourceVersion of the last delta that is durable with all that it caused
	first   sighting
	failing bool // its kind's rules failed on it
}

// A sighting says by which resourceVersion an object was there: that with which
// it was seen first. The live watch sees it as it is made. The zero sighting says
// nothing.
type sighting struct {
	version uint64
	live    bool
}

// A delta is one thing that happened to one object.
type delta struct {
	teller
	stream   *stream
	object   *workload.Object // as it was last seen
	removed  bool
	late     bool     // not seen by the live watch as it happened
	listed   bool     // found by a list or an audit
	anew     bool     // found by the first list under other rules, which may see another state in the same object
	setBack  bool     // found by the first list after the cluster was set back
	unread   uint64   // of the first list that it is from, kept by the log, which may have what it causes; 0: it is new
	recall   bool     // the log may remember its life, and nobody else
	stale    bool     // the indexer has something newer under the name
	waiting  bool     // for what another stream may tell
	first    sighting // of its object, as the indexer had it
	behind   bool     // put back because of one that waits
	ahead    bool     // counted as what others have to come as far as
	observed time.Time
	place    *list.Element // in the stream's inflight list
}

// folded reports whether the object tells the story of its root.
func (d *delta) folded() bool { return d.object.Root.UID != "" && !d.own && !d.unresolved }

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
	o, failure := s.reduce(obj)
	if o == nil {
		return nil
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.touch(o.ResourceVersion)
	s.upsert(o, failure, false, s.seen)
	return nil
}

// Delete implements [cache.ReflectorStore].
func (s *stream) Delete(obj any) error {
	if tomb, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = tomb.Obj
	}
	o, failure := s.reduce(obj)
	if o == nil {
		return nil
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.touch(o.ResourceVersion)
	s.judged(o, failure)
	s.removeAs(&delta{object: o, observed: s.seen})
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
	if s.own > 0 { // the tap's own: it is no sign of life
		s.own--
		return nil
	}
	s.touch(v)
	return nil
}

// upsert takes an object in. Another UID under the same name ends the old one
// first. The lock must be held, as for all that follows.
//
// What the log kept may be ahead of the version from which the watch goes on:
// an event that is older than the indexer's entry tells its own story, or that
// of an earlier life of the name, and leaves the entry as it is.
func (s *stream) upsert(o *workload.Object, failure error, late bool, now time.Time) {
	asked, was := s.hops[o.UID]
	delete(s.hops, o.UID) // it is there
	key := objectKey(o)
	old := s.objects[key]
	failing := s.judged(o, failure)
	if old != nil && !s.restoring && o.ResourceVersion < old.ResourceVersion {
		same := old
		if old.UID != o.UID {
			same = nil
		}
		s.append(&delta{stream: s, object: o, teller: s.findRoot(o, same), stale: true, late: late, observed: now})
		return
	}
	if old != nil && old.UID != o.UID {
		gone := *old.Object
		gone.ResourceVersion = o.ResourceVersion
		s.removeAs(&delta{object: &gone, late: true, observed: now})
		old = nil
	}
	h := &held{Object: o, teller: s.findRoot(o, old), failing: failing}
	switch {
	case old != nil && !s.restoring:
		h.settled, h.first = old.settled, old.first
	case old == nil && !s.restoring:
		h.first = sighting{version: o.ResourceVersion, live: !late}
	}
	d := &delta{stream: s, object: o, first: h.first, teller: h.teller, late: late, anew: late && s.rereads(), recall: s.recalls(), observed: now}
	if _, wanted := s.key(d); wanted {
		s.index(h)
	} else if old != nil || s.taking { // the log keeps all of a first list
		s.drop(o)
	}
	s.append(d)
	if old != nil && old.Controller.UID != o.Controller.UID || was && asked.owner.UID != o.Controller.UID {
		s.w.moved(o, now)
	}
}

// recalls reports whether an object may have been let go before: by a selector,
// or, when the session's first list has it, under another configuration.
func (s *stream) recalls() bool { return s.Selector != "" || !s.synced }

// rereads reports whether a list is being taken in that comes of a change of
// what the stream takes, or of its rules.
func (s *stream) rereads() bool {
	return s.taking && s.gap.reason == statesync.GapRedefined && s.Kind.Rules != ""
}

// drop takes an object that tells nothing any more out of the indexer, and out
// of the log.
func (s *stream) drop(o *workload.Object) {
	if h := s.objects[objectKey(o)]; h != nil && h.UID == o.UID {
		s.unindex(o)
	}
	s.dirty[o.UID] = kept{object: o, gone: true}
	s.leaves(o)
}

// leaves notes that an object is not kept any more: what comes late of the time
// before is not kept either.
func (s *stream) leaves(o *workload.Object) {
	s.left[o.UID] = max(s.left[o.UID], o.ResourceVersion)
}

// index puts an object into the indexer, in the place of what has its name.
// What is controlled is also found by its controller and by its root.
func (s *stream) index(h *held) {
	s.unindex(h.Object)
	s.objects[objectKey(h.Object)] = h
	s.w.keepWithin(h.Object)
	if h.failing {
		s.failing++
	}
}

func (s *stream) unindex(o *workload.Object) {
	if old := s.objects[objectKey(o)]; old != nil {
		delete(s.objects, objectKey(o))
		s.w.dropWithin(old.Object)
		if old.failing {
			s.failing--
		}
	}
}

// removeAs takes an object out; d says which, and how that was found.
func (s *stream) removeAs(d *delta) {
	old := s.objects[objectKey(d.object)]
	if old == nil || old.UID != d.object.UID || !d.late && old.ResourceVersion > d.object.ResourceVersion {
		old = nil
	}
	d.stream, d.removed, d.recall = s, true, s.recalls()
	d.teller = s.findRoot(d.object, old)
	if old != nil {
		d.first = old.first
		s.unindex(old.Object)
		s.isGone(old, d.object.ResourceVersion)
		if _, wanted := s.key(d); !wanted {
			s.drop(d.object)
		}
	}
	s.append(d)
}

// feed appends a delta of an object as the indexer has it, and lets that go if
// it tells nobody's story any more.
func (s *stream) feed(d *delta) {
	d.stream = s
	if _, wanted := s.key(d); !wanted {
		s.drop(d.object)
	}
	s.append(d)
}

// append puts a delta at the end of its workload's pending list. A pod that
// tells its own story is of its root's too: it may set that running.
func (s *stream) append(d *delta) {
	s.enqueue(d)
	if d.own && d.object.Kind == "Pod" && s.w.kinds[d.object.Root.Kind].PodsRun {
		of := *d
		of.own = false
		s.enqueue(&of)
	}
}

// enqueue puts a delta at the end of the pending list of its key. At the bound
// it closes the gate.
func (s *stream) enqueue(d *delta) {
	s.pipe.In(1)
	_ = failpoint.Here("watch/read")
	key, wanted := s.key(d)
	if !wanted {
		s.pipe.Out(1)
		return
	}
	if d.listed = s.taking; d.listed {
		s.listed++
	}
	d.place = s.inflight.PushBack(d)
	s.w.pending[key] = append(s.w.pending[key], d)
	s.w.queue.Add(key)
	_ = failpoint.Here("watch/pending")
	s.holdBack()
	if s.w.total++; s.w.counted(s.w.total) < s.w.opts.MaxPending {
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
	d.stream.letGo()
	d.stream.settle(d)
	d.stream.pipe.Out(1)
	w.less()
}

// less counts down what is not durable, and wakes who waits for that. The lock
// must be held.
func (w *Watcher) less() {
	w.total--
	w.openIfRoom()
	if w.total == 0 && w.idle != nil {
		close(w.idle)
		w.idle = nil
	}
}

// counted says how many of n deltas count for the gate: not those behind what
// waits, which may wait for what is yet to come through. There is a bound to
// that too, a little above the half that may be left when the gate closes.
func (w *Watcher) counted(n int) int { return n - min(w.behind, w.opts.MaxPending*5/8) }

func (w *Watcher) openIfRoom() {
	if w.counted(w.total) <= w.opts.MaxPending/2 {
		w.gate.open()
	}
}

// key returns the key of the workload whose story the delta tells; false when
// nobody wants it. What lies between pods and their roots is wanted, to know
// who controls whom.
func (s *stream) key(d *delta) (statesync.Key, bool) {
	o := d.object
	if d.folded() {
		return rootKey(o), true
	}
	return statesync.Key{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}, d.unresolved || !s.FoldOnly || s.isHop()
}

// isHop reports whether the stream is read only to know who controls whom.
func (s *stream) isHop() bool { return s.FoldOnly && s.Kind.Name != "Pod" }

// reduce returns nil for what cannot be read, which is counted and logged. The
// reflector is told nothing: it would log the whole object. With an object,
// the error says that its kind's rules failed on it.
func (s *stream) reduce(obj any) (*workload.Object, error) {
	o, err := s.Kind.Reduce(obj)
	if o == nil {
		s.unreadable(err)
		return nil, nil
	}
	return o, err
}

// judged counts an object on which its kind's rules failed, and names it once:
// until they do not.
func (s *stream) judged(o *workload.Object, failure error) (failing bool) {
	if failure == nil {
		return false
	}
	s.misjudged++
	if old := s.objects[objectKey(o)]; old == nil || old.UID != o.UID || !old.failing {
		s.w.opts.Logger.Warn("the rules of the kind fail on an object: it stays in the state it was in",
			"stream", s.Name(), "object", objectKey(o), "uid", o.UID, "err", failure)
	}
	return true
}

// touch notes that the stream lives and has come as far as version.
func (s *stream) touch(version uint64) {
	s.seen = s.w.opts.Now()
	s.reached = s.seen
	s.version = max(s.version, version)
	s.highest = max(s.highest, version)
}

func objectKey(o *workload.Object) string { return o.Namespace + "/" + o.Name }

func parseVersion(s string) (uint64, error) {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resourceVersion %q, want a whole number", s)
	}
	return v, nil
}
