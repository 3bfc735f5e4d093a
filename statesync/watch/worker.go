package watch

import (
	"context"
	"time"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// work drains keys until the queue is shut down and empty.
func (w *Watcher) work(ctx context.Context) {
	for {
		key, shutdown := w.queue.Get()
		if shutdown {
			return
		}
		w.drain(ctx, key)
		w.queue.Done(key)
	}
}

// drain takes a key's pending list and gives what it causes to the log, in
// order. Nothing goes back to the queue: a later delta of the key would
// overtake it.
func (w *Watcher) drain(ctx context.Context, key statesync.Key) {
	w.mu.Lock()
	deltas := w.pending[key]
	delete(w.pending, key)
	w.mu.Unlock()
	for _, d := range deltas {
		entry, wanted := w.reduce(d)
		if !wanted {
			w.done(d)
			continue
		}
		entry.Done = func() { w.done(d) }
		if err := w.opts.Log.Append(ctx, entry); err != nil {
			// The agent stops: what is not durable stays with the API server.
			return
		}
	}
}

// reduce says what a delta causes; false when nothing is to be recorded.
func (w *Watcher) reduce(d *delta) (statesync.Entry, bool) {
	if d.folded {
		return w.reducePod(d)
	}
	o := d.object
	l := w.life(o)
	if l.State.Ended() {
		if !d.removed {
			return statesync.Entry{}, false
		}
		return w.bury(l), true
	}
	if !d.removed && o.ResourceVersion <= l.ResourceVersion {
		return statesync.Entry{}, false // replayed; its changes are in the log
	}
	before := l.Row
	var changes []statesync.Change
	status := workload.Assess(o)
	if d.removed {
		status = workload.Removed(o)
	}
	steps := workload.Steps(l.before(), status, o)
	if len(steps) == 0 && w.opts.Reasons && status.State == l.State && status.Reason != l.Reason {
		steps = []workload.Status{status}
	}
	for _, step := range steps {
		changes = append(changes, w.change(d, l, step, 0))
	}
	if status.Suspended {
		l.suspension = status.Occurred
	}
	l.Suspended, l.started = status.Suspended, o.Started
	if pod, runs := w.runningPod(l); runs {
		changes = append(changes, w.change(d, l, pod, 0))
	}
	if len(changes) > 0 {
		l.ResourceVersion = o.ResourceVersion
	}
	if d.removed {
		w.forget(l)
	}
	entry := statesync.Entry{Changes: changes, Row: l.Row}
	return entry, len(changes) > 0 || d.removed || before.Suspended != l.Suspended
}

// reducePod says what a folded pod causes: it may move its owner to Running.
// A pod never starts an owner; one that runs before its owner is seen is
// found in the indexer when the owner comes.
func (w *Watcher) reducePod(d *delta) (statesync.Entry, bool) {
	w.mu.Lock()
	l := w.lives[d.object.Controller.UID]
	w.mu.Unlock()
	if l == nil || d.removed {
		return statesync.Entry{}, false
	}
	step, moves := workload.PodRuns(l.before(), d.object)
	if !moves {
		return statesync.Entry{}, false
	}
	change := w.change(d, l, step, l.ResourceVersion)
	return statesync.Entry{Changes: []statesync.Change{change}, Row: l.Row}, true
}

// runningPod looks in the indexer for a pod that moves its owner.
func (w *Watcher) runningPod(l *life) (workload.Status, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, pod := range w.pods[l.UID] {
		if step, moves := workload.PodRuns(l.before(), pod); moves {
			return step, true
		}
	}
	return workload.Status{}, false
}

// change makes the next change of a life, and moves the life to it. owner is
// the owner's last emitted resourceVersion when a folded pod causes it, else 0.
func (w *Watcher) change(d *delta, l *life, step workload.Status, owner uint64) statesync.Change {
	l.Seq++
	c := statesync.Change{
		ID:      statesync.ChangeID(w.opts.Cluster, w.opts.Epoch, l.UID, d.stream.Kind.Resource, d.object.ResourceVersion, owner, step.State),
		Cluster: w.opts.Cluster, Epoch: w.opts.Epoch, Workload: l.Ref,
		From: l.State, To: step.State, Reason: step.Reason, Message: step.Message, ExitCode: step.ExitCode,
		Seq: l.Seq, Occurred: step.Occurred, Observed: d.observed,
		Reconstructed: step.Reconstructed, ObservedLate: d.late,
	}
	if c.Occurred.IsZero() {
		c.Occurred = d.observed.Truncate(time.Second)
	}
	l.State, l.Reason = step.State, step.Reason
	return c
}

// life returns what is known of the object's life, beginning one if need be.
func (w *Watcher) life(o *workload.Object) *life {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.lives[o.UID]
	if l == nil {
		l = &life{}
		w.lives[o.UID] = l
	}
	l.Ref = o.Ref()
	return l
}

// bury records that the object of an ended life is gone.
func (w *Watcher) bury(l *life) statesync.Entry {
	w.forget(l)
	return statesync.Entry{Row: l.Row}
}

func (w *Watcher) forget(l *life) {
	l.Gone = true
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.lives, l.UID)
}

func (l *life) before() workload.Before {
	return workload.Before{State: l.State, Suspended: l.Suspended, Started: l.started, Suspension: l.suspension}
}
