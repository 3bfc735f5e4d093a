package workload

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/outrider-agent/outrider/statesync"
)

// Rules of what pods add to their workload's account. They never change where
// it stands, nor its reason:
//   - To a Job that failed because its pods did: how the last one that failed
//     ended, and its exit code.
//   - To a web app that has no replica, or is past its deadline: what keeps a
//     pod of it waiting.
//   - The answer is the same for any order of the pods.

// WantsPods reports whether a pod's account could explain s.
func (k Kind) WantsPods(s Status) bool {
	return k.Group == "batch" && k.Name == "Job" && s.State == statesync.Failed && podsFail(s.Reason)
}

// Explain returns s with what the workload's pods, as far as they are known,
// say of it. Pods of earlier attempts may be among them.
func (k Kind) Explain(s Status, pods []*Object) Status {
	switch {
	case k.WantsPods(s):
		a := best(pods, failureOf)
		if a.rank == 0 {
			return s
		}
		s.Message = andThen(s.Message, "the last, "+a.pod.Name+": "+a.text)
		if s.ExitCode == nil {
			s.ExitCode = a.exitCode
		}
	case k.Group != "apps" || s.Reason == reasonScaledToZero || s.Reason == reasonNoNodes:
	case s.State == statesync.Queued || s.State == statesync.Running && s.Reason == reasonDeadline:
		if a := best(pods, waitOf); a.rank > 0 {
			s.Message = andThen(s.Message, "pod "+a.pod.Name+": "+a.text)
		}
	}
	return s
}

// Account returns the pod whose account of a failed Job is to be remembered
// when the pod is gone; nil: none of them has one.
func (k Kind) Account(pods ...*Object) *Object {
	return best(slices.DeleteFunc(pods, func(pod *Object) bool { return pod == nil }), failureOf).pod
}

// An account is what a pod says of its workload.
type account struct {
	pod      *Object
	rank     int // the higher, the more telling; 0: it says nothing
	at       time.Time
	text     string
	exitCode *int32
}

func best(pods []*Object, of func(*Object) account) (found account) {
	for _, pod := range pods {
		a := of(pod)
		if a.pod = pod; a.rank > 0 && (found.pod == nil || a.compare(found) > 0) {
			found = a
		}
	}
	return found
}

// compare orders accounts by rank, then by time, then by when their pods were
// created: times have whole seconds, and a retry comes later. The UID settles
// what is left.
func (a account) compare(b account) int {
	return cmp.Or(
		cmp.Compare(a.rank, b.rank), a.at.Compare(b.at),
		a.pod.Created.Compare(b.pod.Created), cmp.Compare(a.pod.UID, b.pod.UID),
	)
}

// failureOf says how a pod failed. One that its Job's controller stopped says
// less, because it may have failed of that; and one that restarts in place
// tells of the run before.
func failureOf(pod *Object) account {
	s := assessPod(pod)
	c, blamed := culprit(pod)
	switch {
	case s.State == statesync.Failed && blamed && s.Reason == cmpOr(c.Reason, "Error"):
		return account{rank: 3, at: s.Occurred, text: endingOf(c), exitCode: &c.ExitCode}
	case s.State == statesync.Failed:
		return account{rank: 3, at: s.Occurred, text: reasonAnd(s.Reason, s.Message), exitCode: s.ExitCode}
	case s.State == statesync.Cancelled && blamed && !stopped(c):
		return account{rank: 2, at: s.Occurred, text: endingOf(c), exitCode: &c.ExitCode}
	case s.State == statesync.Succeeded:
		return account{}
	}
	a := account{}
	for _, c := range pod.Containers {
		last := Container{Name: c.Name, Reason: c.LastReason, ExitCode: c.LastExitCode}
		if c.LastReason != "" && c.LastExitCode != 0 && (a.rank == 0 || c.LastStart.After(a.at)) {
			a = account{rank: 1, at: c.LastStart, text: endingOf(last), exitCode: &last.ExitCode}
		}
	}
	return a
}

// waitOf says what a pod that is to run waits for. What it can never get says
// more than that it crashes, and that says more than that it has no node.
func waitOf(pod *Object) account {
	if Settled(pod) {
		return account{}
	}
	s := assessPod(pod)
	a := account{text: reasonAnd(s.Reason, s.Message)}
	switch {
	case s.Reason == "":
	case s.Reason == "CrashLoopBackOff":
		a.rank = 2
	case s.Reason == corev1.PodReasonUnschedulable || s.Reason == corev1.PodReasonSchedulingGated:
		a.rank = 1
	default: // ImagePullBackOff, ErrImagePull, CreateContainerConfigError
		a.rank = 3
	}
	return a
}

// stopped reports whether a container ended as one does that is stopped.
func stopped(c Container) bool {
	return c.Reason != "OOMKilled" && (c.ExitCode == 137 || c.ExitCode == 143)
}

func endingOf(c Container) string {
	return "container " + c.Name + ": " + ending(c.Reason, c.ExitCode)
}

func reasonAnd(reason, message string) string {
	if message == "" {
		return reason
	}
	return reason + ": " + message
}
