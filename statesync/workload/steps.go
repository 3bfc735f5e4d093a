package workload

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/outrider-agent/outrider/statesync"
)

// Before is where a workload stood by its last change.
type Before struct {
	State      statesync.State // empty: not known before
	Suspended  bool
	Started    time.Time // when the workload, as last seen, began its present run; zero: not known
	Suspension time.Time // when it was last suspended; zero: never, as far as is known
}

// Steps returns the changes that lead from before to now, in order; none when
// nothing changed. Jumps are filled in from o's own timestamps and marked
// Reconstructed: a workload always goes Queued, then Running if it has run,
// then to its end.
//
// The rules of the way back: nothing follows an end; a Job that runs stays
// Running until a condition says Suspended, so its own Queued is not one.
func Steps(before Before, now Status, o *Object) []Status {
	switch {
	case before.State.Ended():
		return nil
	case before.State == statesync.Running && now.State == statesync.Queued && !now.Suspended:
		return nil
	case before.State == now.State:
		return nil
	}
	var steps []Status
	if before.State == "" && now.State != statesync.Queued {
		steps = append(steps, Status{State: statesync.Queued, Occurred: o.Created, Reconstructed: true})
	}
	if before.State != statesync.Running && now.State.Ended() {
		if t, ok := ran(o, now); ok {
			steps = append(steps, Status{State: statesync.Running, Occurred: t, Reconstructed: true})
		}
	}
	return append(steps, now)
}

// ran reports whether a workload that was never seen running must have run
// before it ended, and since when.
func ran(o *Object, end Status) (time.Time, bool) {
	if t, ok := Ran(o); ok {
		return t, true
	}
	if end.State == statesync.Succeeded {
		return o.Started, true
	}
	return time.Time{}, false
}

// PodRuns says where a pod moves the workload it folds into: to Running, from
// Queued alone, unless it is suspended. A pod never starts a workload and
// never ends one. One on its way out moves nothing.
//
// After a resume, the pods of the run before may still be around, running as
// far as their own stream has come: one created before the suspension moves
// nothing. (The start of the new run is no measure: the Job controller creates
// pods before it writes startTime.) Neither does one that has ended and did
// not start in this run.
func PodRuns(owner Before, pod *Object) (Status, bool) {
	if owner.State != statesync.Queued || owner.Suspended || !pod.DeleteRequested.IsZero() {
		return Status{}, false
	}
	if pod.Created.Before(owner.Suspension) {
		return Status{}, false
	}
	running := Status{State: statesync.Running, Occurred: firstStart(pod)}
	if pod.Phase == string(corev1.PodRunning) {
		return running, true
	}
	t, ran := Ran(pod)
	return running, ran && !owner.Started.IsZero() && !t.Before(owner.Started)
}
