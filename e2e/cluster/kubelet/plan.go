package kubelet

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Moments are what a pod's status tells only to the second, or not at all.
type Moments struct {
	// Since is when the containers got into their present state.
	Since time.Time
	// Accepted is when the kubelet first saw the pod; zero where another process of it did.
	Accepted time.Time
	// Deleting is when the kubelet saw the deletion.
	Deleting time.Time
}

// A Step is what the kubelet does next with a pod: write Status, or confirm the deletion, or look again after Wait. The zero Step is: nothing, until the pod changes.
type Step struct {
	Status  *corev1.PodStatus
	Confirm bool
	Wait    time.Duration
}

// pullRetry is the time from ErrImagePull to ImagePullBackOff.
const pullRetry = 100 * time.Millisecond

// Next plans the next step of a pod that is bound to one of our nodes. It is a pure function of what the API server holds and the time, so a kubelet that starts anew goes on where the last one was.
func Next(pod *corev1.Pod, at Moments, now time.Time) Step {
	if terminal(pod) {
		return Step{Confirm: pod.DeletionTimestamp != nil}
	}
	script, err := ParseScript(pod.Annotations)
	if pod.DeletionTimestamp != nil {
		if wait := at.Deleting.Add(script.Shutdown).Sub(now); wait > 0 {
			return Step{Wait: wait}
		}
		return write(shutDown(pod, script.ExitOnDelete, now))
	}
	if err != nil {
		return write(refused(pod, reasonBadAnnotation, err.Error(), now))
	}
	if pod.Status.StartTime == nil {
		if ending := ends[script.End]; ending.where == atAdmission {
			return write(refused(pod, script.End, ending.message, now))
		}
		return write(first(pod, script, now))
	}
	step := progress(pod, script, at.Since, now)
	limit := pod.Spec.ActiveDeadlineSeconds
	if limit == nil || step.Status != nil && terminalPhase(step.Status.Phase) {
		return step
	}
	begin := pod.Status.StartTime.Time
	if at.Accepted.After(begin) {
		begin = at.Accepted // the status has whole seconds, and the pod is to have its time
	}
	left := begin.Add(time.Duration(*limit) * time.Second).Sub(now)
	if left <= 0 {
		return write(ended(pod, reasonDeadlineExceeded, now))
	}
	if step.Status == nil && (step.Wait == 0 || left < step.Wait) {
		step.Wait = left
	}
	return step
}

// first is the first status of an admitted pod. Without a time to pull, the containers run in it already: a kubelet, too, writes only the latest where two follow at once.
func first(pod *corev1.Pod, script Script, now time.Time) *corev1.PodStatus {
	status := accepted(pod, now)
	if script.Pull > 0 || ends[script.End].where == inWaiting {
		return status
	}
	begun := *pod
	begun.Status = *status
	return running(&begun, script, 0, now)
}

// progress plans the next step of an accepted pod that nothing cuts short.
func progress(pod *corev1.Pod, script Script, since, now time.Time) Step {
	state, restarts := containerState(&pod.Status)
	switch {
	case state.Running != nil:
		return whileRunning(pod, script, restarts, since, now)
	case state.Terminated != nil:
		// A restart follows; the first is immediate, as a real kubelet's is.
		if restarts == 0 {
			return write(running(pod, script, restarts+1, now))
		}
		return write(waiting(pod, reasonCrashLoopBackOff, "back-off restarting failed container", now))
	case state.Waiting != nil && state.Waiting.Reason == reasonCrashLoopBackOff:
		return after(since.Add(script.wait(restarts)), now, func() *corev1.PodStatus {
			return running(pod, script, restarts+1, now)
		})
	}
	return whilePulling(pod, script, state.Waiting, since, now)
}

func whilePulling(pod *corev1.Pod, script Script, state *corev1.ContainerStateWaiting, since, now time.Time) Step {
	ending := ends[script.End]
	if ending.where != inWaiting {
		return after(since.Add(script.Pull), now, func() *corev1.PodStatus { return running(pod, script, 0, now) })
	}
	if state != nil && state.Reason == script.End {
		return Step{}
	}
	if script.End == reasonImagePullBackOff {
		if state == nil || state.Reason != reasonErrImagePull {
			return after(since.Add(script.Pull), now, func() *corev1.PodStatus {
				return waiting(pod, reasonErrImagePull, ends[reasonErrImagePull].message, now)
			})
		}
		return after(since.Add(pullRetry), now, func() *corev1.PodStatus {
			return waiting(pod, script.End, ending.message, now)
		})
	}
	return after(since.Add(script.Pull), now, func() *corev1.PodStatus { return waiting(pod, script.End, ending.message, now) })
}

func whileRunning(pod *corev1.Pod, script Script, restarts int32, since, now time.Time) Step {
	var wait time.Duration
	if !ready(&pod.Status) && !script.Unready {
		if wait = since.Add(script.Ready).Sub(now); wait <= 0 {
			return write(becomeReady(pod, now))
		}
	}
	if script.Endless {
		return Step{Wait: wait}
	}
	left := since.Add(script.Run).Sub(now)
	if left > 0 {
		if wait > 0 {
			left = min(left, wait)
		}
		return Step{Wait: left}
	}
	if script.End != "" && ends[script.End].where == inPod {
		return write(ended(pod, script.End, now))
	}
	return write(exited(pod, script, restarts, now))
}

// exited is the end of one run: of the pod, or of a run that another follows.
func exited(pod *corev1.Pod, script Script, restarts int32, now time.Time) *corev1.PodStatus {
	exit := script.exit(restarts)
	end := corev1.ContainerStateTerminated{ExitCode: exit, Reason: exitReason(exit)}
	if exit != 0 {
		end.Message = ends[script.End].message
		// CrashLoopBackOff is what follows an error, not the reason of the end itself.
		if script.End != "" && script.End != reasonCrashLoopBackOff {
			end.Reason = script.End
		}
	}
	policy := pod.Spec.RestartPolicy
	if policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && exit != 0 {
		return crashed(pod, end, now)
	}
	return finished(pod, end, now)
}

// after waits until due and then writes the status.
func after(due, now time.Time, status func() *corev1.PodStatus) Step {
	if wait := due.Sub(now); wait > 0 {
		return Step{Wait: wait}
	}
	return write(status())
}

func write(status *corev1.PodStatus) Step { return Step{Status: status} }

func terminal(pod *corev1.Pod) bool { return terminalPhase(pod.Status.Phase) }

func terminalPhase(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

func exitReason(exit int32) string {
	if exit == 0 {
		return "Completed"
	}
	return "Error"
}

// containerState is the state that all containers of the pod share, and how often they were restarted.
func containerState(status *corev1.PodStatus) (corev1.ContainerState, int32) {
	if len(status.ContainerStatuses) == 0 {
		return corev1.ContainerState{}, 0
	}
	first := status.ContainerStatuses[0]
	return first.State, first.RestartCount
}

// entered is when the containers got into their present state as far as the status tells, to the second, for a kubelet that has not seen it happen.
func entered(status *corev1.PodStatus, now time.Time) time.Time {
	state, _ := containerState(status)
	switch {
	case state.Running != nil:
		return state.Running.StartedAt.Time
	case state.Waiting != nil && state.Waiting.Reason == reasonCrashLoopBackOff:
		if last := status.ContainerStatuses[0].LastTerminationState.Terminated; last != nil {
			return last.FinishedAt.Time
		}
	case status.StartTime != nil:
		return status.StartTime.Time
	}
	return now
}

// same tells whether the statuses say the same, whatever their times.
func same(a, b *corev1.PodStatus) bool {
	return a.Phase == b.Phase && a.Reason == b.Reason && ready(a) == ready(b) && sameState(a, b)
}

// sameState tells whether the containers are still in the state they were in.
func sameState(old, updated *corev1.PodStatus) bool {
	was, wasRestarts := containerState(old)
	is, isRestarts := containerState(updated)
	if was.Waiting != nil && is.Waiting != nil {
		return was.Waiting.Reason == is.Waiting.Reason && wasRestarts == isRestarts
	}
	return (was.Running != nil) == (is.Running != nil) && (was.Terminated != nil) == (is.Terminated != nil) &&
		(was.Waiting != nil) == (is.Waiting != nil) && wasRestarts == isRestarts
}
