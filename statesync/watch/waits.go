package watch

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// Pods and the workloads that they run for come by different streams, whose
// versions cannot be compared: which of two events was first nobody knows. So
// that a workload has the same story however far one stream is behind the
// other:
//   - A pod waits for the workload that it folds into, if that has not been
//     seen, or has not been seen to be resumed.
//   - An end, or a suspension, that comes before any pod was seen to run waits
//     until every pod that the object counts has been seen to run, to end or to
//     be asked to go. So does one whose pod may say why. A Job that was made
//     suspended does not wait: what pods it has are of the run to come.
//
// Nothing waits for longer than patience, or than a minute while a stream is
// cut off; nor while the session ends, or when half of what may be pending
// waits already. Patience begins when the stream that is waited for has come as
// far, or shows nothing: one that is read more slowly, because it has more to
// say, may be minutes behind. Versions of two resources can be compared only
// where both are in one etcd; here it is enough that they seldom are not, since
// all that hangs on it is for how long at most something waits, and what times
// do not say.
//
// A stream of which much waits is held at a gate of its own until the others
// have come as far: see [stream.holdBack].

const (
	patience   = 10 * time.Second
	longest    = 5 * time.Minute        // for what a stream shows that is behind
	reasonWait = 100 * time.Millisecond // for a pod that may say why its workload failed
	cutOff     = time.Minute            // for what a stream shows that is cut off
	lookAgain  = time.Second            // while it is
)

// A coming says what else is to be handled under a key: how many deltas of each
// workload itself, and of the pods of each.
type coming struct{ own, pods map[string]int }

func newComing(deltas []*delta) *coming {
	c := &coming{}
	if len(deltas) > 1 {
		c.own, c.pods = map[string]int{}, map[string]int{}
	}
	for _, d := range deltas {
		c.add(d, 1)
	}
	return c
}

func (c *coming) add(d *delta, n int) {
	switch {
	case c.own == nil: // of one alone nobody asks
	case d.folded():
		c.pods[d.object.Root.UID] += n
	case !d.unresolved:
		c.own[d.object.UID] += n
	}
}

// less takes off a delta that is handled.
func (c *coming) less(d *delta) { c.add(d, -1) }

// waits says until when a delta waits; zero: it does not. What comes is what
// else is to be handled under its key.
func (w *Watcher) waits(ctx context.Context, d *delta, key statesync.Key, comes *coming) (until time.Time, err error) {
	kind := d.stream.Kind
	switch {
	case d.unresolved || d.stale || d.stream.FoldOnly && !d.folded():
		return time.Time{}, nil
	case d.folded():
		if d.object.Kind != "Pod" || !w.kinds[d.object.Root.Kind].PodsRun {
			return time.Time{}, nil
		}
		return w.ifPatient(d, w.untilSeen(d, comes)), nil
	case !kind.PodsRun:
		return time.Time{}, nil
	}
	status := kind.Assess(d.object)
	if d.removed {
		status = kind.Removed(d.object)
	}
	if !status.State.Ended() && (!status.Suspended || d.object.Phase == workload.Unrun) || status.State == statesync.Succeeded {
		return time.Time{}, nil
	}
	if until = w.ifPatient(d, w.untilTold(d, status, key, comes)); until.IsZero() {
		return until, nil
	}
	return until, w.tellBegin(ctx, d)
}

// ifPatient returns a time to wait for; zero when the delta does not wait, or
// no longer. Half of what may be pending may wait, with what is behind that:
// with more, the gate could stay closed to what is waited for.
func (w *Watcher) ifPatient(d *delta, until time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	others := w.waiting + w.behind
	if d.waiting {
		others--
	}
	room := w.counted(others) < w.opts.MaxPending/2
	waits := !w.hurry && until.After(w.opts.Now())
	if waits && !room {
		d.stream.hasty++
		waits = false
	}
	switch {
	case waits && !d.waiting:
		w.waiting++
		w.notBehind(d)
	case !waits && d.waiting:
		w.waiting--
	}
	if d.waiting = waits; !waits {
		return time.Time{}
	}
	return until
}

// park counts deltas that go back to their pending list: those behind what
// waits, and as ahead all of them, if what is waited for may come. The lock
// must be held.
func (w *Watcher) park(deltas []*delta) {
	comes := slices.ContainsFunc(deltas, func(d *delta) bool { return d.waiting && w.mayCome(d) })
	for _, d := range deltas {
		if !d.waiting && !d.behind {
			d.behind = true
			w.behind++
		}
		if comes && !d.ahead {
			d.ahead = true
			d.stream.ahead++
			w.ahead[d.stream.side()]++
			d.stream.holdBack()
		}
	}
	w.openIfRoom() // what is behind may be all that keeps it closed
}

// unpark takes a delta that is handled off these counts.
func (w *Watcher) unpark(d *delta) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notBehind(d)
	if d.ahead {
		d.ahead = false
		d.stream.ahead--
		if w.ahead[d.stream.side()]--; w.ahead[d.stream.side()] == w.opts.MaxPending/8 {
			for _, s := range w.streams {
				s.letGo()
			}
		}
	}
}

func (w *Watcher) notBehind(d *delta) {
	if d.behind {
		d.behind = false
		w.behind--
	}
}

// mayCome reports whether a stream that is behind, and not cut off, may show
// what a delta waits for.
func (w *Watcher) mayCome(d *delta) bool {
	kind := "Pod"
	if d.folded() {
		kind = d.object.Root.Kind
	}
	return slices.ContainsFunc(w.streams, func(s *stream) bool {
		return s.Kind.Name == kind && s.takes(d.object.Namespace) && (s.waits || s.isOpen()) && s.isBehind(d)
	})
}

// isBehind reports whether the stream has not come as far as a delta of another.
func (s *stream) isBehind(d *delta) bool { return s.version < d.object.ResourceVersion && !s.apart }

// isOfOneEtcd reports whether versions of two streams may be compared, as far as
// is known.
func (w *Watcher) isOfOneEtcd() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.streams, func(s *stream) bool { return s.apart })
}

// side tells streams that wait for one another apart: pods, and the rest.
func (s *stream) side() int {
	if s.Kind.Name == "Pod" {
		return 0
	}
	return 1
}

// holdBack holds the stream at a gate of its own while it is ahead of others:
// when a quarter of what may be pending waits for these, and from then on when
// a quarter is in flight, as long as any of it waits. So they catch up, and
// nothing has to be told in haste. Streams of one side alone are held: the
// others may be what they wait for. The lock must be held.
func (s *stream) holdBack() {
	most := s.w.opts.MaxPending / 4
	if s.ahead == 0 || s.w.ahead[s.side()] < most && (!s.leads || s.inflight.Len() < most) ||
		slices.ContainsFunc(s.w.streams, func(other *stream) bool { return other.side() != s.side() && other.step.closed() }) {
		return
	}
	s.leads = true
	s.step.close()
	s.pause()
}

// letGo opens the stream's own gate again. The lock must be held.
func (s *stream) letGo() {
	if s.ahead == 0 {
		s.leads = false
	}
	most := s.w.opts.MaxPending / 8
	if s.ahead == 0 || s.inflight.Len() <= most && s.w.ahead[s.side()] <= most {
		s.step.open()
	}
}

// patience says until when a delta waits for what the stream may show. The lock
// must be held.
func (s *stream) patience(d *delta) time.Time {
	now, since, most := s.w.opts.Now(), later(d.observed, s.began), longest
	switch {
	case s.waits: // at a gate
		since = now
	case !s.isOpen():
		return sooner(d.observed.Add(cutOff), now.Add(lookAgain))
	case s.isBehind(d):
		since = later(since, s.seen)
	default:
		most = cutOff // a watch that ends again and again is no reason for more
	}
	return sooner(since.Add(patience), d.observed.Add(most))
}

// shownByAll returns the version that all streams have shown, or will not show
// anything of before: one that is open and silent has come as far as there is
// something to say. One whose calls fail is not waited for. The lock must be
// held.
func (w *Watcher) shownByAll(now time.Time) uint64 {
	shown := uint64(math.MaxUint64)
	for _, s := range w.streams {
		silent := s.isOpen() && !s.waits && now.Sub(s.seen) > patience
		if s.synced && s.failure == nil && !silent && !s.apart {
			shown = min(shown, s.version)
		}
	}
	return shown
}

// untilSeen says until when a pod waits for its root: while the streams that
// may show it are cut off, and until they had time to.
func (w *Watcher) untilSeen(d *delta, comes *coming) time.Time {
	now, l := w.opts.Now(), w.rootLife(d)
	switch {
	case l != nil && !w.isOfNextRun(d, l):
		return time.Time{}
	case comes.own[d.object.Root.UID] > 0:
		return now.Add(lookAgain)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	until := d.observed.Add(patience)
	for _, s := range w.streams {
		switch {
		case s.Kind.Name != d.object.Root.Kind || !s.takes(d.object.Namespace):
		case s.Selector != "" && l == nil: // which may leave it out
			return d.observed.Add(hopWait)
		default:
			until = later(until, s.patience(d))
		}
	}
	return until
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// untilTold says until when an end waits for what its pods may tell.
func (w *Watcher) untilTold(d *delta, status workload.Status, key statesync.Key, coming *coming) (until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o, l := d.object, w.lives[d.object.UID]
	if l != nil && (l.State.Ended() || l.Suspended || w.isReplayed(d, l)) {
		return time.Time{}
	}
	ran := l != nil && l.State == statesync.Running || o.Pods.Ready > 0 || o.Elsewhere
	if ran && (d.late || !d.stream.Kind.WantsPods(status)) {
		return time.Time{}
	}
	pods := w.podsOf(o.UID)
	comes := coming.pods[o.UID] > 0 || slices.ContainsFunc(w.pending[key], func(other *delta) bool {
		return other.folded() && other.object.Root.UID == o.UID // it has come meanwhile
	})
	if ran {
		return untilExplained(d, l, pods, comes)
	}
	counted, seen := o.Counted(), len(pods)
	if l != nil {
		counted, seen = max(counted-l.passed, l.counted), l.lost
		for _, pod := range pods {
			if l.ofThisRun(pod, w.firstOf(pod, l)) {
				seen++
			}
		}
	}
	if d.late && w.podsComplete() {
		counted = seen // pods that ended before a list found the end may be gone
	}
	switch again := w.opts.Now().Add(lookAgain); {
	case comes:
		return again
	case d.late && !w.podsComplete():
		return sooner(d.observed.Add(cutOff), again)
	case seen >= counted && !slices.ContainsFunc(pods, func(pod *workload.Object) bool { return !workload.Settled(pod) }):
		return time.Time{}
	}
	until = d.observed.Add(patience)
	for _, s := range w.streams {
		if s.Kind.Name == "Pod" && s.takes(o.Namespace) {
			until = later(until, s.patience(d))
		}
	}
	return until
}

// isOfNextRun reports whether a pod was created after its workload was
// suspended: then that has been resumed, which is still to be told.
func (w *Watcher) isOfNextRun(d *delta, l *life) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !l.Suspended || d.late || d.removed || l.Suspension.IsZero() {
		return false
	}
	if ofNext, sure := l.byVersion(d.object, d.first); sure {
		return ofNext
	}
	return d.object.Created.After(l.Suspension)
}

// ofThisRun reports whether a pod is of the run that is, and not of one before
// a suspension.
func (l *life) ofThisRun(pod *workload.Object, first sighting) bool {
	if ofThis, sure := l.byVersion(pod, first); sure {
		return ofThis
	}
	return !pod.Created.Before(l.Suspension)
}

// byVersion reports whether a pod is of the run after the last suspension; sure
// is whether versions say so, where times, which are whole seconds, do not. One
// that was there before it was seen live may be of either, if it was seen after
// the suspension.
func (l *life) byVersion(pod *workload.Object, first sighting) (after, sure bool) {
	after = first.version > l.stopped
	sure = first.version > 0 && l.stopped > 0 && (first.live || !after) && (l.timeless || pod.Created.Equal(l.Suspension))
	return after, sure
}

// noteClockBack finds that the cluster's clock was put back while a workload
// was suspended, by a run that began before: its pods were made before too.
func (l *life) noteClockBack() {
	if !l.Suspended && !l.Started.IsZero() && l.Started.Before(l.Suspension) {
		l.Suspension = l.Started.Add(-patience) // its pods may be made before it is said to have begun
		l.timeless = true
	}
}

// firstOf returns with what a pod was seen first. The lock must be held.
func (w *Watcher) firstOf(pod *workload.Object, l *life) sighting {
	if l != nil && pod == l.ran {
		return l.ranFirst
	}
	for _, s := range w.streams {
		if s.Kind.Name == pod.Kind && s.takes(pod.Namespace) {
			if h := s.objects[objectKey(pod)]; h != nil && h.UID == pod.UID {
				return h.first
			}
		}
	}
	return sighting{}
}

// untilExplained says until when a failure waits for the pods that it counts as
// failed, one of which may say why.
func untilExplained(d *delta, l *life, pods []*workload.Object, comes bool) time.Time {
	failed := 0
	if l != nil {
		failed = l.lostFailed
	}
	for _, pod := range pods {
		if pod.Phase == "Failed" {
			failed++
		}
	}
	if !comes && failed >= int(d.object.Pods.Failed) {
		return time.Time{}
	}
	return d.observed.Add(reasonWait)
}

// podsComplete reports whether all streams of pods hold what there is. The lock
// must be held.
func (w *Watcher) podsComplete() bool {
	for _, s := range w.streams {
		if s.Kind.Name == "Pod" && !s.synced {
			return false
		}
	}
	return true
}

// tellBegin tells the beginning of a workload whose end waits and that nothing
// was told of yet: its pods can move only what has begun.
func (w *Watcher) tellBegin(ctx context.Context, d *delta) error {
	l, err := w.life(ctx, d)
	if err != nil || l.State != "" {
		return err
	}
	began := workload.Status{State: statesync.Queued, Occurred: d.object.Created, Reconstructed: true}
	change := w.change(d, l, began, d.object.ResourceVersion) // the event itself may yet tell of Queued
	l.Started = d.object.Started
	_, err = w.handOver(ctx, statesync.Entry{Changes: []statesync.Change{change}, Row: l.Row})
	return err
}

// putBack makes deltas that wait the first that are pending under their key,
// and has the key looked at again.
func (w *Watcher) putBack(key statesync.Key, deltas []*delta, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hurry {
		w.queue.Add(key)
	}
	w.park(deltas)
	w.pending[key] = append(deltas, w.pending[key]...) // what has come meanwhile has put the key into the queue
	if at, ok := w.wakes[key]; ok && !until.Before(at) && at.After(w.opts.Now()) {
		return
	}
	w.wakes[key] = until
	time.AfterFunc(until.Sub(w.opts.Now()), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.wakes[key].Equal(until) {
			delete(w.wakes, key)
		}
		w.queue.Add(key)
	})
}
