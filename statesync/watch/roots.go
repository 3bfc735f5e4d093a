package watch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// An object's root is the workload whose story it tells: the topmost one, of a
// tracked kind that folds, in the chain of its controllers. The
// ownerReferences say who they are; for what lies between, the indexer is
// looked at. A pod whose ReplicaSet has not been seen waits for a moment, then
// the API server is asked.

const (
	maxHops = 8                      // from an object to its root
	hopWait = 100 * time.Millisecond // for a controller that has not been seen, before the API server is asked
	askOnce = 2 * time.Second        // for its answer
	askWait = 5 * time.Second        // before it is asked again
)

// A hop is a controller that is gone, or that a stream has not shown yet.
type hop struct {
	owner  workload.Owner // its own controller
	at     time.Time      // when that was found out
	absent bool           // the API server did not have it
	kept   bool           // by the log too, as what is gone
	gone   uint64         // the version at which it was gone; 0: it was not seen to go
}

// rootKinds lists the kinds that may be roots of a kind's objects, whatever
// lies between.
func (w *Watcher) rootKinds(kind string) (roots []string) {
	above := map[string]bool{}
	for lower := []string{kind}; len(lower) > 0; lower = lower[1:] {
		for name, k := range w.kinds {
			if !above[name] && k.MayControl(lower[0]) {
				above[name] = true
				lower = append(lower, name)
			}
		}
	}
	for name := range above {
		if w.isRoot(name) {
			roots = append(roots, name)
		}
	}
	slices.Sort(roots)
	return roots
}

// isRoot reports whether objects of a kind tell the stories of what they
// control.
func (w *Watcher) isRoot(kind string) bool { return w.tracked[kind] && w.kinds[kind].Folds }

// kindOf returns the kind that an ownerReference names.
func (w *Watcher) kindOf(c workload.Owner) (workload.Kind, bool) {
	if k, ok := w.kinds[c.Kind]; ok && k.Is(c) {
		return k, true
	}
	for _, k := range w.kinds {
		if k.Is(c) {
			return k, true
		}
	}
	return workload.Kind{}, false
}

// root returns the root of what a controller controls; without UID when it has
// none. It is known once all controllers in the chain have been seen: unseen is
// the first that has not, and without UID when there is none. The lock must be
// held.
func (w *Watcher) root(namespace string, c workload.Owner) (root, unseen workload.Owner) {
	for range maxHops {
		k, ok := w.kindOf(c)
		if !ok {
			break
		}
		if w.isRoot(k.Name) {
			root = workload.Owner{Group: k.Group, Kind: k.Name, Name: c.Name, UID: c.UID}
		}
		if len(w.roots[k.Name]) == 0 {
			break
		}
		above, seen := w.above(k, namespace, c)
		if !seen {
			return root, c
		}
		c = above
	}
	return root, workload.Owner{}
}

// above returns what controls a controller; nothing does when it tells a
// story of its own. It reports whether the controller has been seen.
func (w *Watcher) above(k workload.Kind, namespace string, c workload.Owner) (above workload.Owner, seen bool) {
	own, wide := namespace+"/"+c.Name, "/"+c.Name
	for _, s := range w.streams {
		if s.Kind.Name != k.Name || !s.takes(namespace) {
			continue
		}
		h := s.objects[own]
		if h == nil || h.UID != c.UID {
			h = s.objects[wide] // of the whole cluster
		}
		if h != nil && h.UID == c.UID {
			if !s.FoldOnly && h.own {
				return workload.Owner{}, true
			}
			return h.Controller, true
		}
		if h, ok := s.hops[c.UID]; ok {
			return h.owner, true
		}
	}
	return workload.Owner{}, false
}

// isWide reports whether a root is of the whole cluster. The lock must be held.
func (w *Watcher) isWide(root workload.Owner) bool {
	key := "/" + root.Name
	return slices.ContainsFunc(w.streams, func(s *stream) bool {
		if s.Kind.Name != root.Kind {
			return false
		}
		h := s.objects[key]
		return h != nil && h.UID == root.UID
	})
}

// rootKey is the key of the workload whose story an object tells.
func rootKey(o *workload.Object) statesync.Key {
	key := statesync.Key{Kind: o.Root.Kind, Namespace: o.Namespace, Name: o.Root.Name}
	if o.Wide {
		key.Namespace = ""
	}
	return key
}

// A teller says who tells an object's story.
type teller struct {
	own        bool // the object itself, whoever comes to control it
	unresolved bool // its root is not known yet
}

// findRoot notes the object's root. One that told a story of its own when a
// workload adopted it goes on with that, else the story would have no end.
func (s *stream) findRoot(o *workload.Object, old *held) teller {
	var known bool
	o.Root, known = s.rootOf(o, old)
	o.Wide = o.Root.UID != "" && o.Namespace != "" && s.w.isWide(o.Root)
	own := old != nil && old.own || s.w.lives[o.UID] != nil || known && o.Root.UID == ""
	behind := old != nil && old.unresolved // what came before is to be found first, under the same key
	return teller{own: own, unresolved: !own && (!known || behind)}
}

// rootOf returns the object's root. One whose root was found before keeps it as
// long as its controller is the same and is not to be seen.
func (s *stream) rootOf(o *workload.Object, old *held) (root workload.Owner, known bool) {
	root, unseen := s.w.root(o.Namespace, o.Controller)
	known = unseen.UID == ""
	if old == nil || old.unresolved || old.Root.UID == "" || old.Controller.UID != o.Controller.UID {
		return root, known
	}
	absent := root.UID == "" && slices.ContainsFunc(s.w.streams, func(other *stream) bool { return other.hops[o.Controller.UID].absent })
	if !known || absent { // that it is not there any more says nothing about before
		return old.Root, true
	}
	return root, known
}

// keepWithin and dropWithin keep the index of what is controlled.
func (w *Watcher) keepWithin(o *workload.Object) {
	for _, uid := range within(o) {
		objects := w.within[uid]
		if objects == nil {
			objects = map[string]*workload.Object{}
			w.within[uid] = objects
		}
		objects[o.UID] = o
	}
}

func (w *Watcher) dropWithin(o *workload.Object) {
	for _, uid := range within(o) {
		objects := w.within[uid]
		if delete(objects, o.UID); len(objects) == 0 {
			delete(w.within, uid)
		}
	}
}

func within(o *workload.Object) (uids []string) {
	if o.Controller.UID != "" {
		uids = append(uids, o.Controller.UID)
	}
	if o.Root.UID != "" && o.Root.UID != o.Controller.UID {
		uids = append(uids, o.Root.UID)
	}
	return uids
}

// moved gives what an object controls to another root, when the object has
// come under another controller, or under none: orphaned pods tell their own
// stories from then on. The lock must be held.
func (w *Watcher) moved(o *workload.Object, now time.Time) {
	for _, uid := range slices.Sorted(maps.Keys(w.within[o.UID])) {
		child := w.within[o.UID][uid]
		s := w.holderOf(child)
		if s == nil || child.Controller.UID != o.UID {
			continue
		}
		again := *child
		tells := s.findRoot(&again, s.objects[objectKey(child)]) // one that tells its own story goes on with it
		if tells.unresolved || again.Root.UID == child.Root.UID {
			continue
		}
		s.replace(child, &again, tells)
		s.feed(&delta{object: &again, teller: tells, recall: true, observed: now})
		w.moved(&again, now)
	}
}

// holderOf returns the stream whose indexer holds exactly this object.
func (w *Watcher) holderOf(o *workload.Object) *stream {
	for _, s := range w.streams {
		if s.Kind.Name == o.Kind {
			if h := s.objects[objectKey(o)]; h != nil && h.Object == o {
				return s
			}
		}
	}
	return nil
}

// replace puts an object in the place of the same one with another root.
func (s *stream) replace(old, o *workload.Object, tells teller) {
	s.w.dropWithin(old)
	h := s.objects[objectKey(old)]
	h.Object, h.teller = o, tells
	s.w.keepWithin(o)
}

// resolve looks for the root of a delta's object, whose controller had not been
// seen, and says until when to wait before it is looked for again; zero: it is
// known, or the session ends. It returns an error only when ctx ends.
func (w *Watcher) resolve(ctx context.Context, d *delta) (until time.Time, err error) {
	for !w.isResolved(d) && !w.hurries() {
		if until = w.untilFound(d); until.After(w.opts.Now()) {
			return until, nil
		}
		if until, err = w.askAbove(ctx, d.object); err != nil || !until.IsZero() {
			return until, err
		}
	}
	return time.Time{}, nil // known, or read again by the next session
}

// untilFound says until when an object waits for a controller that has not been
// seen: longer while the stream that may show it is cut off, and until that had
// time to. One that the API server no longer has may be on its way, with who
// controlled it.
func (w *Watcher) untilFound(d *delta) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, _ := w.missingAbove(d.object)
	until, most := d.observed.Add(hopWait), d.observed.Add(cutOff)
	switch {
	case s == nil:
		return time.Time{}
	case s.waits: // what waits may be why it is held
		if until = d.observed.Add(patience); !until.After(w.opts.Now()) {
			d.stream.hasty++
		}
	case !s.isOpen():
		return sooner(most, w.opts.Now().Add(lookAgain))
	case s.began.Add(patience).After(until):
		return sooner(most, s.began.Add(patience))
	}
	return until
}

func (w *Watcher) hurries() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hurry
}

// isResolved reports whether the root is known by now, and if so notes it.
func (w *Watcher) isResolved(d *delta) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	again, s := *d.object, d.stream
	tells := s.findRoot(&again, nil)
	if tells.unresolved {
		return false
	}
	if h := s.objects[objectKey(d.object)]; h != nil && h.Object == d.object {
		s.replace(d.object, &again, tells)
	}
	d.object, d.teller = &again, tells
	return true
}

// askAbove asks the API server about the first controller in the chain that
// has not been seen. When it does not answer, no other object of the stream is
// asked about for a while: a worker must not be kept from its other keys.
func (w *Watcher) askAbove(ctx context.Context, o *workload.Object) (until time.Time, err error) {
	w.mu.Lock()
	missing, c := w.missingAbove(o)
	if missing == nil {
		w.mu.Unlock()
		return time.Time{}, nil // it has come meanwhile
	}
	if now := w.opts.Now(); now.Before(missing.askAgain) {
		defer w.mu.Unlock()
		return missing.askAgain, nil
	}
	before := missing.askAgain
	until = w.opts.Now().Add(askWait)
	missing.askAgain = until
	w.mu.Unlock()
	found := hop{at: w.opts.Now(), absent: true}
	if source, ok := missing.Source.(Inspector); ok {
		once, cancel := context.WithTimeout(ctx, askOnce)
		obj, err := ask(once, source, o.Namespace, c.Name, c.UID)
		cancel()
		switch {
		case ctx.Err() != nil:
			return until, ctx.Err()
		case err != nil && !apierrors.IsForbidden(err): // then what it controls tells its own story
			if before.IsZero() {
				w.opts.Logger.Warn("cannot ask who controls an object; trying again, what it controls waits",
					"kind", c.Kind, "object", o.Namespace+"/"+c.Name, "err", err)
			}
			return until, nil
		}
		if m, metaErr := meta.Accessor(obj); err == nil && metaErr == nil {
			found.owner, found.absent = workload.ControllerOf(m), false
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	missing.askAgain = time.Time{}
	if _, known := missing.hops[c.UID]; !known { // its removal may have come meanwhile, and says more
		missing.hops[c.UID] = found
	}
	return time.Time{}, nil
}

// missingAbove returns the first controller in the chain that has not been
// seen, and a stream that may show it; nil: all have been. The lock must be
// held.
func (w *Watcher) missingAbove(o *workload.Object) (*stream, workload.Owner) {
	_, unseen := w.root(o.Namespace, o.Controller)
	if k, ok := w.kindOf(unseen); ok {
		for _, s := range w.streams {
			if s.Kind.Name == k.Name && s.takes(o.Namespace) {
				return s, unseen
			}
		}
	}
	return nil, unseen
}

// route gives a delta whose root was not known to the worker that it is for;
// false: it tells its own story, and is for this one.
func (w *Watcher) route(d *delta) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	key, wanted := d.stream.key(d)
	if !wanted {
		if h := d.stream.objects[objectKey(d.object)]; h == nil || h.UID != d.object.UID || h.Object == d.object {
			d.stream.drop(d.object) // the log may have it from a first list
		}
		d.stale = true // nothing of it is kept
		return false
	}
	if !d.folded() {
		return false
	}
	w.pending[key] = append(w.pending[key], d)
	w.queue.Add(key)
	return true
}

// isGone notes that a controller is gone: what it controlled goes after it, and
// may be read later, after a crash too.
func (s *stream) isGone(h *held, version uint64) {
	if len(s.w.roots[s.Kind.Name]) == 0 || s.Kind.Name == "Pod" {
		return
	}
	owner := h.Controller
	if h.own && !s.FoldOnly {
		owner = workload.Owner{}
	}
	s.hops[h.UID] = hop{owner: owner, at: s.w.opts.Now(), kept: owner.UID != "", gone: version}
}

// isOver reports whether nothing can come any more of what has been gone for
// some time, as of a version, when all streams have shown another.
func isOver(age time.Duration, gone, shown uint64) bool {
	return age >= longest || age >= graveTime && shown >= gone
}

// forgetHops forgets controllers that are gone for long, once nothing that they
// controlled comes any more, by how far all streams have come: while a stream of
// pods is cut off, they stay, as many as may be pending.
func (s *stream) forgetHops(now time.Time, shown uint64) {
	if len(s.hops) < s.w.opts.MaxPending && slices.ContainsFunc(s.w.streams, func(pods *stream) bool {
		return pods.Kind.Name == "Pod" && !pods.isOpen()
	}) {
		return
	}
	for uid, h := range s.hops {
		if !isOver(now.Sub(h.at), h.gone, shown) {
			continue
		}
		if delete(s.hops, uid); h.kept {
			s.dirty[uid] = kept{object: &workload.Object{UID: uid}, gone: true}
		}
	}
}

// awaitHops waits until the streams that say who controls whom have read their
// first lists: without them each object would have to be asked about. One that
// may not be read is not waited for.
func (s *stream) awaitHops(ctx context.Context) error {
	for _, other := range s.w.streams {
		if other.rank() <= s.rank() || other.rank() == rankUnknown || len(s.w.roots[other.Kind.Name]) == 0 ||
			s.Namespace != "" && other.Namespace != "" && s.Namespace != other.Namespace {
			continue
		}
		if err := s.awaitHop(ctx, other); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) awaitHop(ctx context.Context, other *stream) error {
	s.w.mu.Lock()
	complete := other.complete
	s.w.mu.Unlock()
	for first := true; ; first = false {
		s.w.mu.Lock()
		failure := other.failure
		s.w.mu.Unlock()
		select {
		case <-complete:
			if !first {
				s.notWell(nil)
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		if apierrors.IsForbidden(failure) || apierrors.IsNotFound(failure) {
			s.w.opts.Logger.Warn("a stream may not be read: what its objects control tells its own story",
				"stream", other.Name(), "err", failure)
			s.notWell(nil)
			return nil
		}
		s.notWell(fmt.Errorf("waits for the first list of %s, which says who controls whom", other.Name()))
		sleep(ctx, hopWait)
	}
}

// The ranks of kinds: a kind is controlled by those of higher rank alone.
const (
	rankPod = iota
	rankOfPods
	rankOfOthers
	rankUnknown // a configured kind may control anything, and need not be there
)

func (s *stream) rank() int {
	switch k := s.Kind; {
	case k.Name == "Pod":
		return rankPod
	case k.MayControl(""):
		return rankUnknown
	case k.MayControl("Pod"):
		return rankOfPods
	}
	return rankOfOthers
}
