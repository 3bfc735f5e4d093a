package kubelet

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// setConditions derives the conditions a kubelet owns from phase and containers.
func setConditions(pod *corev1.Pod, status *corev1.PodStatus, now time.Time) {
	state, restarts := containerState(status)
	ran := state.Running != nil || state.Terminated != nil || restarts > 0
	sandbox := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse}
	if ran && !terminalPhase(status.Phase) {
		sandbox.Status = corev1.ConditionTrue
	}
	initialized := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	containersReady := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}
	switch {
	case status.Phase == corev1.PodSucceeded:
		initialized.Reason = "PodCompleted"
		containersReady.Status, containersReady.Reason = corev1.ConditionFalse, "PodCompleted"
	case status.Phase == corev1.PodFailed:
		containersReady.Status, containersReady.Reason = corev1.ConditionFalse, "PodFailed"
	case !allReady(status):
		containersReady.Status, containersReady.Reason = corev1.ConditionFalse, "ContainersNotReady"
		containersReady.Message = fmt.Sprintf("containers with unready status: [%s]", names(pod.Spec.Containers))
	}
	if !ran && len(pod.Spec.InitContainers) > 0 {
		initialized.Status, initialized.Reason = corev1.ConditionFalse, "ContainersNotInitialized"
		initialized.Message = fmt.Sprintf("containers with incomplete status: [%s]", names(pod.Spec.InitContainers))
	}
	ready := containersReady
	ready.Type = corev1.PodReady
	if ready.Status == corev1.ConditionTrue && !gatesOpen(pod) {
		ready.Status, ready.Reason = corev1.ConditionFalse, "ReadinessGatesNotReady"
	}
	for _, condition := range []corev1.PodCondition{sandbox, initialized, ready, containersReady} {
		setCondition(pod, status, condition, now)
	}
}

// setCondition keeps the time of the last transition where the condition's status stays what it was.
func setCondition(pod *corev1.Pod, status *corev1.PodStatus, condition corev1.PodCondition, now time.Time) {
	condition.ObservedGeneration = pod.Generation
	condition.LastTransitionTime = metav1.NewTime(now)
	for i, old := range status.Conditions {
		if old.Type != condition.Type {
			continue
		}
		if old.Status == condition.Status {
			condition.LastTransitionTime = old.LastTransitionTime
		}
		status.Conditions[i] = condition
		return
	}
	status.Conditions = append(status.Conditions, condition)
}

func gatesOpen(pod *corev1.Pod) bool {
	for _, gate := range pod.Spec.ReadinessGates {
		open := false
		for _, condition := range pod.Status.Conditions {
			open = open || condition.Type == gate.ConditionType && condition.Status == corev1.ConditionTrue
		}
		if !open {
			return false
		}
	}
	return true
}

// allReady tells whether every container is ready.
func allReady(status *corev1.PodStatus) bool {
	for _, container := range status.ContainerStatuses {
		if !container.Ready {
			return false
		}
	}
	return len(status.ContainerStatuses) > 0
}

// ready tells what the pod's condition Ready says.
func ready(status *corev1.PodStatus) bool {
	for _, condition := range status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// owned are the fields of a status that a kubelet writes. The conditions of others, such as PodScheduled, stay as the API server holds them.
func owned(status *corev1.PodStatus) corev1.PodStatus {
	mine := corev1.PodStatus{
		ObservedGeneration: status.ObservedGeneration,
		Phase:              status.Phase, Reason: status.Reason, Message: status.Message,
		StartTime: status.StartTime,
		HostIP:    status.HostIP, HostIPs: status.HostIPs, PodIP: status.PodIP, PodIPs: status.PodIPs,
		InitContainerStatuses: status.InitContainerStatuses, ContainerStatuses: status.ContainerStatuses,
	}
	for _, condition := range status.Conditions {
		switch condition.Type {
		case corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady:
			mine.Conditions = append(mine.Conditions, condition)
		case corev1.DisruptionTarget:
			if condition.Reason == corev1.PodReasonTerminationByKubelet {
				mine.Conditions = append(mine.Conditions, condition)
			}
		}
	}
	return mine
}
