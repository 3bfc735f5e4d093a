package watch

import (
	"context"
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
//     seen.
//   - An end, or a suspension, that comes before any pod was seen to run waits
//     until every pod that the object counts has been seen to run, to end or to
//     be asked to go. So does one whose pod may say why.
//
// Nothing waits for longer than patience, or while the session ends, or when
// half of what may be pending waits already.

const (
	patience   = 10 * time.Second
	reasonWait = 100 * time.Millisecond // for a pod that may say why its workload failed
	lookAgain  = 200 * time.Millisecond // while a stream is cut off
)

// waits says until when a delta waits; zero: it does not. others are what else
// waits under its key, and what comes after it.
func (w *Watcher) waits(ctx context.Context, d *delta, others ...[]*delta) (until time.Time, err error) {
	kind := d.stream.Kind
	switch {
	case d.unresolved || d.stale || d.stream.FoldOnly && !d.folded():
		return time.Time{}, nil
	case d.folded():
		if d.object.Kind != "Pod" || !w.kinds[d.object.Root.Kind].PodsRun {
			return time.Time{}, nil
		}
		return w.ifPatient(d, w.untilSeen(d, others)), nil
	case !kind.PodsRun:
		return time.Time{}, nil
	}
	status := kind.Assess(d.object)
	if d.removed {
		status = kind.Removed(d.object)
	}
	if !status.State.Ended() && !status.Suspended || status.State == statesync.Succeeded {
		return time.Time{}, nil
	}
	if until = w.ifPatient(d, w.untilTold(d, status, others)); until.IsZero() {
		return until, nil
	}
	return until, w.tellBegin(ctx, d)
}

// ifPatient returns a time to wait for; zero when the delta does not wait, or
// no longer. Half of what may be pending may wait: with more, the gate could
// stay closed to what is waited for.
func (w *Watcher) ifPatient(d *delta, until time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	room := d.waiting || w.waiting < w.opts.MaxPending/2
	waits := !w.hurry && until.After(w.opts.Now())
	if waits && !room {
		d.stream.hasty++
		waits = false
	}
	switch {
	case waits && !d.waiting:
		w.waiting++
	case !waits && d.waiting:
		w.waiting--
	}
	if d.waiting = waits; !waits {
		return time.Time{}
	}
	return until
}

// untilSeen says until when a pod waits for its root: while the streams that
// may show it are cut off, and until they had time to.
func (w *Watcher) untilSeen(d *delta, others [][]*delta) time.Time {
	if w.rootLife(d) != nil {
		return time.Time{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.comes(d, others, func(other *delta) bool { return other.object.UID == d.object.Root.UID }) {
		return w.opts.Now().Add(lookAgain)
	}
	until := d.observed.Add(patience)
	for _, s := range w.streams {
		if s.Kind.Name != d.object.Root.Kind {
			continue
		}
		if !s.synced || s.current == nil || !s.current.isOpen() {
			return w.opts.Now().Add(lookAgain)
		}
		if t := s.began.Add(patience); t.After(until) {
			until = t
		}
	}
	return until
}

// untilTold says until when an end waits for what its pods may tell.
func (w *Watcher) untilTold(d *delta, status workload.Status, others [][]*delta) (until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o, l := d.object, w.lives[d.object.UID]
	if l != nil && (l.State.Ended() || l.Suspended || l.Epoch == w.epoch && o.ResourceVersion <= l.ResourceVersion) {
		return time.Time{}
	}
	pods := w.podsOf(o.UID)
	comes := w.comes(d, others, func(other *delta) bool { return other.folded() && other.object.Root.UID == o.UID })
	if l != nil && l.State == statesync.Running || o.Pods.Ready > 0 || o.Elsewhere {
		return w.untilExplained(d, l, status, pods, comes)
	}
	counted, seen := o.Counted(), len(pods)
	if l != nil {
		counted, seen = max(counted, l.counted), seen+l.lost
	}
	if d.late && w.podsComplete() {
		counted = seen // pods that ended before a list found the end may be gone
	}
	until = d.observed.Add(patience)
	switch again := w.opts.Now().Add(lookAgain); {
	case comes:
		return again
	case seen >= counted && !slices.ContainsFunc(pods, func(pod *workload.Object) bool { return !workload.Settled(pod) }):
		return time.Time{}
	case d.late && again.Before(until):
		return again
	}
	return until
}

// untilExplained says until when a failure waits for the pods that it counts as
// failed, one of which may say why. The lock must be held.
func (w *Watcher) untilExplained(d *delta, l *life, status workload.Status, pods []*workload.Object, comes bool) time.Time {
	if !d.stream.Kind.WantsPods(status) || d.late {
		return time.Time{}
	}
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

// comes reports whether what a delta waits for is pending under its key, and so
// will be handled, however long that takes while the log is behind. The lock
// must be held.
func (w *Watcher) comes(d *delta, others [][]*delta, what func(*delta) bool) bool {
	key, _ := d.stream.key(d)
	return slices.ContainsFunc(slices.Concat(append(others, w.pending[key])...), what)
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
	change := w.change(d, l, began, 0)
	l.Started = d.object.Started
	_, err = w.handOver(ctx, statesync.Entry{Changes: []statesync.Change{change}, Row: l.Row})
	return err
}

// putBack makes deltas that wait the first that are pending under their key,
// and has the key looked at again.
func (w *Watcher) putBack(key statesync.Key, deltas []*delta, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pending[key]) > 0 { // what has come meanwhile has put the key into the queue
		w.pending[key] = append(deltas, w.pending[key]...)
	} else {
		w.pending[key] = deltas
	}
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
