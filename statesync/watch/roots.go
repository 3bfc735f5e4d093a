package watch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

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
)

// A hop is a controller that is gone, or that a stream has not shown yet.
type hop struct {
	owner workload.Owner // its own controller
	at    time.Time      // when that was found out
}

// whatClimbs says of which kinds the objects may have a root.
func (w *Watcher) whatClimbs() map[string]bool {
	climbs := map[string]bool{}
	for range w.kinds {
		for name := range w.kinds {
			for _, k := range w.kinds {
				if k.MayControl(name) && (w.tracked[k.Name] && k.Folds || climbs[k.Name]) {
					climbs[name] = true
				}
			}
		}
	}
	return climbs
}

// foldsInto lists the kinds that may be roots of a kind's objects.
func (w *Watcher) foldsInto(kind string) (roots []string) {
	above := map[string]bool{kind: true}
	for range w.kinds {
		for name := range w.kinds {
			for lower := range maps.Clone(above) {
				if w.kinds[name].MayControl(lower) && w.kinds[name].Folds {
					above[name] = true
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(above)) {
		if name != kind && w.tracked[name] {
			roots = append(roots, name)
		}
	}
	return roots
}

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
// none. It is known once all controllers in the chain have been seen. The lock
// must be held.
func (w *Watcher) root(namespace string, c workload.Owner) (root workload.Owner, known bool) {
	for range maxHops {
		k, ok := w.kindOf(c)
		if !ok {
			break
		}
		if w.tracked[k.Name] && k.Folds {
			root = workload.Owner{Group: k.Group, Kind: k.Name, Name: c.Name, UID: c.UID}
		}
		if !w.climbs[k.Name] {
			break
		}
		above, seen := w.above(k, namespace, c)
		if !seen {
			return root, false
		}
		c = above
	}
	return root, true
}

// above returns what controls a controller; nothing does when it tells a
// story of its own. It reports whether the controller has been seen.
func (w *Watcher) above(k workload.Kind, namespace string, c workload.Owner) (above workload.Owner, seen bool) {
	for _, s := range w.streams {
		if s.Kind.Name != k.Name {
			continue
		}
		for _, ns := range []string{namespace, ""} {
			h := s.objects[ns+"/"+c.Name]
			if h == nil || h.UID != c.UID {
				continue
			}
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
	own := old != nil && old.own || s.w.lives[o.UID] != nil || known && o.Root.UID == ""
	return teller{own: own, unresolved: !own && !known}
}

// rootOf returns the object's root. One whose root was found before keeps it as
// long as its controller is the same and is not to be seen.
func (s *stream) rootOf(o *workload.Object, old *held) (root workload.Owner, known bool) {
	root, known = s.w.root(o.Namespace, o.Controller)
	if !known && old != nil && !old.unresolved && old.Controller.UID == o.Controller.UID {
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
		tells := s.findRoot(&again, nil)
		if tells.unresolved || again.Root.UID == child.Root.UID {
			continue
		}
		s.replace(child, &again, tells)
		s.append(&delta{stream: s, object: &again, teller: tells, observed: now})
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

// resolve finds the root of a delta's object, whose controller had not been
// seen. It returns an error only when ctx ends.
func (w *Watcher) resolve(ctx context.Context, d *delta) error {
	if wait := hopWait - w.opts.Now().Sub(d.observed); wait > 0 && !w.isResolved(d) {
		sleep(ctx, wait)
	}
	for !w.isResolved(d) {
		if err := w.askAbove(ctx, d.object); err != nil {
			return err
		}
	}
	return nil
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
// has not been seen.
func (w *Watcher) askAbove(ctx context.Context, o *workload.Object) error {
	w.mu.Lock()
	c := o.Controller
	var missing *stream
	for range maxHops {
		k, ok := w.kindOf(c)
		if !ok {
			break
		}
		next, seen := w.above(k, o.Namespace, c)
		if !seen {
			missing = w.streamFor(k, o.Namespace)
			break
		}
		c = next
	}
	w.mu.Unlock()
	if missing == nil {
		return nil // it has come meanwhile
	}
	found := hop{at: w.opts.Now()}
	if source, ok := missing.Source.(Inspector); ok {
		err := w.insist(ctx, fmt.Sprintf("ask who controls %s %s/%s", c.Kind, o.Namespace, c.Name), func() error {
			obj, err := ask(ctx, source, o.Namespace, c.Name, c.UID)
			if apierrors.IsForbidden(err) {
				return nil // then what it controls tells its own story
			}
			if m, metaErr := meta.Accessor(obj); err == nil && metaErr == nil {
				found.owner = workload.ControllerOf(m)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	missing.hops[c.UID] = found
	return nil
}

// streamFor returns a stream of the kind that may hold objects of a namespace.
func (w *Watcher) streamFor(k workload.Kind, namespace string) *stream {
	for _, s := range w.streams {
		if s.Kind.Name == k.Name && (s.Namespace == "" || s.Namespace == namespace) {
			return s
		}
	}
	return nil
}

// route gives a delta whose root was not known to the worker that it is for;
// false: it tells its own story, and is for this one.
func (w *Watcher) route(d *delta) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	key, wanted := d.stream.key(d)
	if !wanted {
		if h := d.stream.objects[objectKey(d.object)]; h != nil && h.Object == d.object {
			d.stream.drop(d.object)
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

// forgetHops forgets controllers that are gone for long: nothing that they
// controlled comes any more.
func (s *stream) forgetHops(now time.Time) {
	for uid, h := range s.hops {
		if now.Sub(h.at) >= graveTime {
			delete(s.hops, uid)
		}
	}
}

// awaitHops waits until the streams that say who controls whom have read their
// first lists: without them each object would have to be asked about.
func (s *stream) awaitHops(ctx context.Context) error {
	for _, other := range s.w.streams {
		if other.rank() <= s.rank() || other.rank() == rankUnknown || !s.w.climbs[other.Kind.Name] {
			continue
		}
		select {
		case <-other.complete:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
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
