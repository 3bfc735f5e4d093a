package workload

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/outrider-agent/outrider/statesync"
)

// Before is where a workload stood by its last change.
type Before struct {
	State      statesync.State // empty: not known before
	Suspended  bool
	Elsewhere  bool      // its pods are not here: none may move it
	Started    time.Time // when the workload, as last seen, began its present run; zero: not known
	Suspension time.Time // when it was last suspended; zero: never, as far as is known
}

// Steps returns the changes that lead from before to now, in order; none when
// nothing changed. Jumps are filled in from o's own timestamps and marked
// Reconstructed: a workload always goes Queued, then Running if it has run,
// then to its end.
//
// The rules of the way back: nothing follows an end; what runs stays Running
// until its object says that it does not: a Job's own Queued does not say so,
// its condition Suspended does, and that it has started anew. A web app that is
// being deleted loses its replicas, or lets go of them, and waits for none: it
// does not go back.
//
// What is first seen Queued has been so since it was created, if its object
// knows no better.
func Steps(before Before, now Status, o *Object) []Status {
	if before.State == "" && now.State == statesync.Queued && now.Occurred.IsZero() {
		now.Occurred = o.Created
	}
	switch {
	case before.State.Ended() || now.State == "":
		return nil
	case before.RunsAnew(now, o):
		return []Status{{State: statesync.Queued, Occurred: o.Started, Reconstructed: true}}
	case before.State == statesync.Running && now.State == statesync.Queued && !now.Suspended && (!now.Back || !o.DeleteRequested.IsZero()):
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

// RunsAnew reports whether what ran is in another run, though nobody saw it
// suspended: its start is another one.
func (before Before) RunsAnew(now Status, o *Object) bool {
	return before.State == statesync.Running && now.State == statesync.Queued && !now.Suspended &&
		!before.Started.IsZero() && !o.Started.IsZero() && !o.Started.Equal(before.Started)
}

// Retells reports whether a workload that stands where it stood has another
// reason for it. What a web app's object says on its way out is none: its pods
// are taken from it.
func (k Kind) Retells(was string, now Status, o *Object) bool {
	return now.Reason != was && (k.Ends || o.DeleteRequested.IsZero())
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
	if c, _ := o.condition(string(batchv1.JobSuspended)); o.Pods.Ready > 0 && !c.True {
		return o.Started, true
	}
	if o.Replicas.Available > 0 {
		return availableSince(o, true), true
	}
	return time.Time{}, false
}

// PodRuns says where a pod moves the workload it folds into: to Running, from
// Queued alone, unless it is suspended or has its pods elsewhere. A pod never
// starts a workload and never ends one.
//
// After a resume, the pods of the run before may still be around, running as
// far as their own stream has come: one created before the suspension moves
// nothing, nor does one that was asked to go by then. (The start of the new run
// is no measure: the Job controller creates pods before it writes startTime.)
// Neither does one that has ended, or is on its way out, and did not start in
// this run.
func PodRuns(owner Before, pod *Object) (Status, bool) {
	if owner.State != statesync.Queued || owner.Suspended || owner.Elsewhere {
		return Status{}, false
	}
	if pod.Created.Before(owner.Suspension) || !pod.DeleteRequested.IsZero() && !pod.DeleteRequested.After(owner.Suspension) {
		return Status{}, false
	}
	running := Status{State: statesync.Running, Occurred: firstStart(pod)}
	if pod.Phase == string(corev1.PodRunning) && pod.DeleteRequested.IsZero() {
		return running, true
	}
	t, ran := Ran(pod)
	return running, ran && !owner.Started.IsZero() && !t.Before(owner.Started)
}

// Settled reports whether nothing that comes of the pod can show that it ran,
// if it has not: it has ended, or its deletion was asked for.
func Settled(pod *Object) bool {
	phase := corev1.PodPhase(pod.Phase)
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed || !pod.DeleteRequested.IsZero()
}
