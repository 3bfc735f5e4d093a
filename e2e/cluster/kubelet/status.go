package kubelet

import (
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The statuses below are those a real kubelet writes, in its words (pkg/kubelet/status and pkg/kubelet/kubelet_pods.go of Kubernetes).

// accepted: the kubelet has seen the pod and pulls its images.
func accepted(pod *corev1.Pod, now time.Time) *corev1.PodStatus {
	status := pod.Status.DeepCopy()
	status.Phase = corev1.PodPending
	status.StartTime = new(metav1.NewTime(now))
	status.HostIP, status.HostIPs = hostIP, []corev1.HostIP{{IP: hostIP}}
	reason := "ContainerCreating"
	if len(pod.Spec.InitContainers) > 0 {
		reason = "PodInitializing"
	}
	state := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	setContainers(pod, status, state, 0)
	setConditions(pod, status, now)
	return status
}

// waiting: the containers cannot run, now or ever, for the reason.
func waiting(pod *corev1.Pod, reason, message string, now time.Time) *corev1.PodStatus {
	status := pod.Status.DeepCopy()
	_, restarts := containerState(status)
	setContainers(pod, status, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}, restarts)
	setConditions(pod, status, now)
	return status
}

// running: the containers run; they are ready unless the script delays that.
func running(pod *corev1.Pod, script Script, restarts int32, now time.Time) *corev1.PodStatus {
	status := pod.Status.DeepCopy()
	status.Phase = corev1.PodRunning
	ip := podIP(pod)
	status.PodIP, status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	setContainers(pod, status, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(now)}}, restarts)
	if script.Ready == 0 && !script.Unready {
		setReady(status)
	}
	setConditions(pod, status, now)
	return status
}

func becomeReady(pod *corev1.Pod, now time.Time) *corev1.PodStatus {
	status := pod.Status.DeepCopy()
	setReady(status)
	setConditions(pod, status, now)
	return status
}

// crashed: the containers ended and will be restarted.
func crashed(pod *corev1.Pod, end corev1.ContainerStateTerminated, now time.Time) *corev1.PodStatus {
	status := pod.Status.DeepCopy()
	_, restarts := containerState(status)
	setContainers(pod, status, terminated(status, end, now), restarts)
	setConditions(pod, status, now)
	return status
}

// finished: the containers ended, and the pod with them.
func finished(pod *corev1.Pod, end corev1.ContainerStateTerminated, now time.Time) *corev1.PodStatus {
	status := crashed(pod, end, now)
	status.Phase = corev1.PodFailed
	if end.ExitCode == 0 {
		status.Phase = corev1.PodSucceeded
	}
	setConditions(pod, status, now)
	return status
}

// ended: the kubelet ended the pod for the reason.
func ended(pod *corev1.Pod, reason string, now time.Time) *corev1.PodStatus {
	ending := ends[reason]
	status := shutDown(pod, ending.exit, now)
	status.Phase, status.Reason, status.Message = corev1.PodFailed, reason, ending.message
	if ending.disrupted {
		setCondition(pod, status, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
			Reason: corev1.PodReasonTerminationByKubelet, Message: ending.message,
		}, now)
	}
	setConditions(pod, status, now)
	return status
}

// shutDown: the containers were told to end and did so with the exit code. Those that never ran count as failed, since nobody knows what they would have done.
func shutDown(pod *corev1.Pod, exit int32, now time.Time) *corev1.PodStatus {
	if state, _ := containerState(&pod.Status); state.Running != nil {
		return finished(pod, corev1.ContainerStateTerminated{ExitCode: exit, Reason: exitReason(exit)}, now)
	}
	return finished(pod, corev1.ContainerStateTerminated{
		ExitCode: exitSIGKILL, Reason: "ContainerStatusUnknown",
		Message: "The container could not be located when the pod was terminated",
	}, now)
}

// refused: the kubelet did not admit the pod.
func refused(pod *corev1.Pod, reason, message string, now time.Time) *corev1.PodStatus {
	status := pod.Status.DeepCopy()
	status.Phase, status.Reason = corev1.PodFailed, reason
	status.Message = "Pod was rejected: " + message
	if status.StartTime == nil {
		status.StartTime = new(metav1.NewTime(now))
	}
	status.ObservedGeneration = pod.Generation
	return status
}

// terminated completes end with the times and the identity of the run that ended.
func terminated(status *corev1.PodStatus, end corev1.ContainerStateTerminated, now time.Time) corev1.ContainerState {
	state, _ := containerState(status)
	if state.Running != nil {
		end.StartedAt = state.Running.StartedAt
		end.FinishedAt = metav1.NewTime(now)
	}
	return corev1.ContainerState{Terminated: &end}
}

// setContainers puts all containers of the pod into the state. Init containers have completed once the others run.
func setContainers(pod *corev1.Pod, status *corev1.PodStatus, state corev1.ContainerState, restarts int32) {
	status.ObservedGeneration = pod.Generation
	status.ContainerStatuses = containers(pod, status.ContainerStatuses, pod.Spec.Containers, state, restarts)
	var inits []corev1.ContainerStatus
	for _, container := range pod.Spec.InitContainers {
		one := []corev1.Container{container}
		if p := container.RestartPolicy; p != nil && *p == corev1.ContainerRestartPolicyAlways {
			inits = append(inits, containers(pod, status.InitContainerStatuses, one, state, restarts)...)
			continue
		}
		initState := state
		if state.Running != nil {
			initState = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Reason: "Completed", StartedAt: state.Running.StartedAt, FinishedAt: state.Running.StartedAt,
			}}
		}
		old := find(status.InitContainerStatuses, container.Name)
		if old != nil && old.State.Terminated != nil {
			inits = append(inits, *old)
			continue
		}
		made := containers(pod, status.InitContainerStatuses, one, initState, 0)
		made[0].Ready = state.Running != nil
		inits = append(inits, made...)
	}
	status.InitContainerStatuses = inits
}

func containers(pod *corev1.Pod, old []corev1.ContainerStatus, specs []corev1.Container, state corev1.ContainerState, restarts int32) []corev1.ContainerStatus {
	made := make([]corev1.ContainerStatus, 0, len(specs))
	for _, spec := range specs {
		next := corev1.ContainerStatus{Name: spec.Name, Image: spec.Image, State: *state.DeepCopy(), RestartCount: restarts, Started: new(state.Running != nil)}
		if before := find(old, spec.Name); before != nil {
			next.ContainerID, next.ImageID = before.ContainerID, before.ImageID
			next.LastTerminationState = before.LastTerminationState
			if before.State.Terminated != nil && state.Terminated == nil {
				next.LastTerminationState = before.State
			}
		}
		if state.Running != nil {
			next.ImageID = "devcluster/" + spec.Image
			next.ContainerID = containerID(pod, spec.Name, restarts)
		}
		if next.State.Terminated != nil {
			next.State.Terminated.ContainerID = next.ContainerID
		}
		made = append(made, next)
	}
	return made
}

func setReady(status *corev1.PodStatus) {
	for _, each := range [][]corev1.ContainerStatus{status.ContainerStatuses, status.InitContainerStatuses} {
		for i := range each {
			if each[i].State.Running != nil {
				each[i].Ready = true
			}
		}
	}
}

func find(statuses []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range statuses {
		if statuses[i].Name == name {
			return &statuses[i]
		}
	}
	return nil
}

func names(containers []corev1.Container) string {
	all := make([]string, len(containers))
	for i, container := range containers {
		all[i] = container.Name
	}
	return strings.Join(all, " ")
}

// containerID is the same for every kubelet process that looks at the run.
func containerID(pod *corev1.Pod, name string, restarts int32) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", pod.UID, name, restarts))
	return fmt.Sprintf("devcluster://%x", sum)
}

// podIP spreads the pods over 10.128.0.0/9, away from the services' range. Nothing listens there; two pods of many thousands may share an address.
func podIP(pod *corev1.Pod) string {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(pod.UID))
	sum := hash.Sum32()
	return fmt.Sprintf("10.%d.%d.%d", 128+(sum>>16)&127, sum>>8&255, sum&255)
}
