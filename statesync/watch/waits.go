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
// Nothing waits for longer than patience, or than a minute while a stream is
// cut off; nor while the session ends, or when half of what may be pending
// waits already.

const (
	patience   = 10 * time.Second
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
	if !status.State.Ended() && !status.Suspended || status.State == statesync.Succeeded {
		return time.Time{}, nil
	}
	if until = w.ifPatient(d, w.untilTold(d, status, key, comes)); until.IsZero() {
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
func (w *Watcher) untilSeen(d *delta, comes *coming) time.Time {
	if w.rootLife(d) != nil {
		return time.Time{}
	}
	now := w.opts.Now()
	if comes.own[d.object.Root.UID] > 0 {
		return now.Add(lookAgain)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	until, most := d.observed.Add(patience), d.observed.Add(cutOff)
	for _, s := range w.streams {
		switch {
		case s.Kind.Name != d.object.Root.Kind || !s.takes(d.object.Namespace):
		case s.Selector != "": // which may leave it out
			return d.observed.Add(hopWait)
		case !s.isOpen():
			return sooner(most, now.Add(lookAgain))
		case s.began.Add(patience).After(until):
			until = s.began.Add(patience)
		}
	}
	return sooner(most, until)
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
		counted, seen = max(counted, l.counted), seen+l.lost
	}
	if d.late && w.podsComplete() {
		counted = seen // pods that ended before a list found the end may be gone
	}
	until = d.observed.Add(patience)
	switch again := w.opts.Now().Add(lookAgain); {
	case comes:
		return again
	case d.late && !w.podsComplete():
		return sooner(d.observed.Add(cutOff), again)
	case seen >= counted && !slices.ContainsFunc(pods, func(pod *workload.Object) bool { return !workload.Settled(pod) }):
		return time.Time{}
	}
	return until
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
