package kubelet

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestConditions(t *testing.T) {
	pod := newPod(never, "run", "1s")
	pod.Generation = 7
	pod.Spec.InitContainers = []corev1.Container{
		{Name: "setup", Image: "setup:1"},
		{Name: "sidecar", Image: "sidecar:1", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)},
	}
	script, err := ParseScript(pod.Annotations)
	if err != nil {
		t.Fatal(err)
	}
	type conditions map[corev1.PodConditionType]string
	check := func(stage string, want conditions) {
		t.Helper()
		got := conditions{}
		for _, condition := range pod.Status.Conditions {
			got[condition.Type] = string(condition.Status)
			if condition.Reason != "" {
				got[condition.Type] += " " + condition.Reason
			}
			if condition.ObservedGeneration != 7 {
				t.Errorf("%s: %s observed generation %d, want 7", stage, condition.Type, condition.ObservedGeneration)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: conditions (-want +got):\n%s", stage, diff)
		}
	}
	pod.Status = *accepted(pod, begin)
	check("accepted", conditions{
		corev1.PodReadyToStartContainers: "False", corev1.PodInitialized: "False ContainersNotInitialized",
		corev1.PodReady: "False ContainersNotReady", corev1.ContainersReady: "False ContainersNotReady",
	})
	pod.Status = *running(pod, script, 0, begin.Add(time.Second))
	check("running", conditions{
		corev1.PodReadyToStartContainers: "True", corev1.PodInitialized: "True", corev1.PodReady: "True", corev1.ContainersReady: "True",
	})
	if setup := pod.Status.InitContainerStatuses[0]; setup.State.Terminated == nil || !setup.Ready {
		t.Errorf("init container: got %+v, want it completed", setup)
	}
	if sidecar := pod.Status.InitContainerStatuses[1]; sidecar.State.Running == nil || !sidecar.Ready {
		t.Errorf("sidecar: got %+v, want it running and ready", sidecar)
	}
	pod.Status = *ended(pod, "Evicted", begin.Add(2*time.Second))
	check("evicted", conditions{
		corev1.PodReadyToStartContainers: "False", corev1.PodInitialized: "True", corev1.PodReady: "False PodFailed",
		corev1.ContainersReady: "False PodFailed", corev1.DisruptionTarget: "True TerminationByKubelet",
	})
	for _, container := range append(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses...) {
		end := container.State.Terminated
		if end == nil || end.FinishedAt.IsZero() || end.ContainerID == "" && container.Name != "setup" {
			t.Errorf("container %s: got %+v, want it terminated with time and identity", container.Name, container.State)
		}
	}
}

func TestRestartKeepsTheLastEnd(t *testing.T) {
	pod := newPod(always, "exit", "3")
	script, err := ParseScript(pod.Annotations)
	if err != nil {
		t.Fatal(err)
	}
	pod.Status = *running(pod, script, 0, begin)
	first := pod.Status.ContainerStatuses[0].ContainerID
	pod.Status = *exited(pod, script, 0, begin.Add(time.Second))
	pod.Status = *running(pod, script, 1, begin.Add(time.Second))
	got := pod.Status.ContainerStatuses[0]
	if got.RestartCount != 1 || got.ContainerID == first || !got.Ready {
		t.Errorf("restarted container: got %+v, want restart 1, a new identity, ready", got)
	}
	last := got.LastTerminationState.Terminated
	if last == nil || last.ExitCode != 3 || last.ContainerID != first {
		t.Errorf("last termination: got %+v, want exit code 3 of container %s", last, first)
	}
}

func TestOwnedLeavesOthersConditions(t *testing.T) {
	pod := newPod(always)
	pod.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
		{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByTaintManager"},
	}
	for _, condition := range owned(accepted(pod, begin)).Conditions {
		if condition.Type == corev1.PodScheduled || condition.Type == corev1.DisruptionTarget {
			t.Errorf("owned conditions: got %s, which is another's", condition.Type)
		}
	}
}
