package workload

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/outrider-agent/outrider/statesync"
)

// Rules for a Pod:
//   - The phase decides: Pending is Queued, Running is Running, Succeeded and
//     Failed are ends. Unknown (the node is not heard of) is Running.
//   - A Pod that fails after its deletion was asked for was cancelled, unless
//     the cluster itself disrupted it or its containers had ended before.
//   - Containers that were stopped are taken to have ended by that deletion
//     when they ended up to 2 s before it: clocks differ. So one that got the
//     same signal from elsewhere, with a deletion that close upon it, is
//     Cancelled when the end and the deletion are first read together, and
//     Failed when the end was read first: an end that was told stays.
//   - The reason is the most telling one: what waits while it is queued or
//     running, what ended it when it has ended.

// podKind is the kind's entry in the table. Read-only.
var podKind = Kind{
	Name: "Pod", Version: "v1", Resource: "pods", Collection: "pods", Ends: true,
	Object:  func() runtime.Object { return &corev1.Pod{} },
	List:    func() runtime.Object { return &corev1.PodList{} },
	Reducer: reducePod, Trimmer: trimPod, Assessor: assessPod,
	Reads: slices.Concat(readsOfAll,
		under("status", "phase", "reason", "message", "startTime"),
		under("status.conditions", readsOfCondition...),
		readsOfContainer("status.initContainerStatuses"), readsOfContainer("status.containerStatuses"),
	),
}

func trimPod(obj runtime.Object) {
	if p, ok := obj.(*corev1.Pod); ok {
		p.Spec, p.ManagedFields, p.Annotations = corev1.PodSpec{}, nil, nil
	}
}

func reducePod(obj runtime.Object) (*Object, error) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("reduce Pod: got %T", obj)
	}
	o, err := ReduceMeta("Pod", p)
	if err != nil {
		return nil, err
	}
	o.Phase, o.Reason, o.Message = string(p.Status.Phase), p.Status.Reason, p.Status.Message
	o.Started = timeOf(p.Status.StartTime)
	for _, c := range p.Status.Conditions {
		isTrue := c.Status == corev1.ConditionTrue
		if c.Type == corev1.DisruptionTarget && isTrue || c.Type == corev1.PodScheduled && !isTrue {
			o.Conditions = append(o.Conditions, newCondition(string(c.Type), c.Status, c.Reason, c.Message, c.LastTransitionTime))
		}
	}
	o.Containers = slices.Grow(o.Containers, len(p.Status.InitContainerStatuses)+len(p.Status.ContainerStatuses))
	for i := range p.Status.InitContainerStatuses {
		o.Containers = append(o.Containers, reduceContainer(&p.Status.InitContainerStatuses[i], true))
	}
	for i := range p.Status.ContainerStatuses {
		o.Containers = append(o.Containers, reduceContainer(&p.Status.ContainerStatuses[i], false))
	}
	return o, nil
}

func reduceContainer(s *corev1.ContainerStatus, init bool) Container {
	c := Container{Name: s.Name, Init: init}
	switch {
	case s.State.Waiting != nil && telling(s.State.Waiting.Reason):
		c.Waiting, c.WaitingMessage = s.State.Waiting.Reason, s.State.Waiting.Message
	case s.State.Running != nil:
		c.Started = s.State.Running.StartedAt.Time
	case s.State.Terminated != nil:
		t := s.State.Terminated
		c.Terminated, c.Reason, c.ExitCode = true, t.Reason, t.ExitCode
		c.Started, c.Finished = t.StartedAt.Time, t.FinishedAt.Time
	}
	if t := s.LastTerminationState.Terminated; t != nil {
		c.LastReason, c.LastExitCode, c.LastStart = t.Reason, t.ExitCode, t.StartedAt.Time
	}
	return c
}

// telling reports whether what a container waits for is more than its turn.
func telling(waiting string) bool {
	return waiting != "" && waiting != "ContainerCreating" && waiting != "PodInitializing"
}

func assessPod(o *Object) Status {
	switch corev1.PodPhase(o.Phase) {
	case corev1.PodRunning, corev1.PodUnknown:
		return podRunning(o)
	case corev1.PodSucceeded:
		return Status{State: statesync.Succeeded, Reason: "Completed", ExitCode: new(int32), Occurred: lastFinish(o)}
	case corev1.PodFailed:
		return podFailed(o)
	}
	return podQueued(o)
}

func podQueued(o *Object) Status {
	s := Status{State: statesync.Queued, Occurred: o.Created}
	for _, c := range o.Containers {
		if telling(c.Waiting) {
			s.Reason, s.Message = c.Waiting, c.WaitingMessage
			return s
		}
	}
	if c, ok := o.condition("PodScheduled"); ok && !c.True {
		s.Reason, s.Message = c.Reason, c.Message // Unschedulable, SchedulingGated
	}
	return s
}

func podRunning(o *Object) Status {
	s := Status{State: statesync.Running, Occurred: firstStart(o)}
	if corev1.PodPhase(o.Phase) == corev1.PodUnknown {
		s.Reason, s.Message = cmpOr(o.Reason, "NodeUnknown"), o.Message
		return s
	}
	for _, c := range o.Containers {
		if !telling(c.Waiting) {
			continue
		}
		s.Reason, s.Message = c.Waiting, c.WaitingMessage // CrashLoopBackOff, ImagePullBackOff
		if c.LastReason != "" {
			s.Message = "container " + c.Name + ": " + ending(c.LastReason, c.LastExitCode)
			s.ExitCode = &c.LastExitCode
		}
		return s
	}
	return s
}

func podFailed(o *Object) Status {
	s := Status{State: statesync.Failed, Reason: "Failed", Message: o.Message, Occurred: lastFinish(o)}
	culprit, found := culprit(o)
	if found {
		s.Reason = cmpOr(culprit.Reason, "Error")
		s.ExitCode = &culprit.ExitCode
		if s.Message == "" {
			s.Message = endingOf(culprit)
		}
	}
	if d, ok := disruption(o); ok {
		d.ExitCode = s.ExitCode
		if !s.Occurred.IsZero() {
			d.Occurred = s.Occurred
		}
		return d
	}
	if o.Reason != "" {
		s.Reason = podReason(o.Reason) // Evicted, DeadlineExceeded, NodeLost, Shutdown
	}
	if cancelled(o) {
		s.State = statesync.Cancelled
		s.Message = "the Pod was deleted before it ended; then: " + cmpOr(s.Message, s.Reason)
		s.Reason = "Deleted"
	}
	return s
}

// clockSkew is how far a node's clock, which says when a container ended, may
// be behind the API server's, which says when the deletion was asked for.
const clockSkew = 2 * time.Second

// cancelled reports whether a failed pod failed because somebody deleted it:
// the deletion was asked for, and not all containers had ended by then.
// Kubernetes times have whole seconds; in doubt the deletion came first. So it
// did when the containers ended as those do that are stopped, by SIGTERM or by
// SIGKILL with no other reason, and the clocks may be wrong.
func cancelled(o *Object) bool {
	if o.DeleteRequested.IsZero() || o.Reason == "DeadlineExceeded" || o.Reason == "Evicted" {
		return false
	}
	end, asked := lastFinish(o), o.DeleteRequested.Truncate(time.Second)
	if c, blamed := culprit(o); blamed && stopped(c) && (c.ExitCode == 143 || c.Reason == "Error") {
		asked = asked.Add(-clockSkew)
	}
	return end.IsZero() || !end.Before(asked)
}

// disruption reports the end that the cluster itself gave a pod, from its
// condition DisruptionTarget. The words for the reasons are shorter than
// Kubernetes' own and the same as in status.reason where both exist.
func disruption(o *Object) (Status, bool) {
	c, ok := o.condition(string(corev1.DisruptionTarget))
	if !ok || !c.True {
		return Status{}, false
	}
	reason := c.Reason
	switch c.Reason {
	case corev1.PodReasonPreemptionByScheduler:
		reason = "Preempted"
	case corev1.PodReasonTerminationByKubelet:
		reason = podReason(cmpOr(o.Reason, "Evicted"))
	case "EvictionByEvictionAPI", "DeletionByTaintManager":
		reason = "Evicted"
	case "DeletionByPodGC":
		reason = "NodeLost"
	}
	return Status{State: statesync.Failed, Reason: reason, Message: cmpOr(o.Message, c.Message), Occurred: c.Since}, true
}

func podReason(reason string) string {
	if reason == "Preempting" {
		return "Preempted"
	}
	return reason
}

// culprit returns the container that made the pod fail: killed for memory
// first, then the first that ended with an exit code other than 0. A sidecar
// that was stopped with the others ends by a signal (137, 143) and so comes
// last.
func culprit(o *Object) (found Container, ok bool) {
	rank := 0
	for _, c := range o.Containers {
		r := 0
		switch {
		case !c.Terminated || (c.ExitCode == 0 && c.Reason != "OOMKilled"):
		case c.Reason == "OOMKilled":
			r = 3
		case !stopped(c):
			r = 2
		default:
			r = 1
		}
		if r > rank {
			rank, found, ok = r, c, true
		}
	}
	return found, ok
}

// Ran reports whether a container of the pod, init containers aside, has ever
// started, and when the first did.
func Ran(o *Object) (time.Time, bool) {
	var first time.Time
	for _, c := range o.Containers {
		for _, t := range []time.Time{c.LastStart, c.Started} {
			if !c.Init && !t.IsZero() && (first.IsZero() || t.Before(first)) {
				first = t
			}
		}
	}
	return first, !first.IsZero()
}

func firstStart(o *Object) time.Time {
	if t, ok := Ran(o); ok {
		return t
	}
	return o.Started
}

func lastFinish(o *Object) (last time.Time) {
	for _, c := range o.Containers {
		if c.Finished.After(last) {
			last = c.Finished
		}
	}
	return last
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// ending says how a container ended. The reason Error says no more than the
// exit code does.
func ending(reason string, exitCode int32) string {
	if reason == "" || reason == "Error" {
		return fmt.Sprintf("exit code %d", exitCode)
	}
	return fmt.Sprintf("%s, exit code %d", reason, exitCode)
}
