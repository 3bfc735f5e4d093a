package workload

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/outrider-agent/outrider/statesync"
)

// at is a moment some seconds after the objects of these tests were created.
func at(seconds int) time.Time { return time.Unix(1_800_000_000+int64(seconds), 0).UTC() }

func mt(seconds int) metav1.Time { return metav1.NewTime(at(seconds)) }

func pod(phase corev1.PodPhase, edits ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "load", Name: "p", UID: types.UID("u"), ResourceVersion: "10", CreationTimestamp: mt(0)},
		Status:     corev1.PodStatus{Phase: phase},
	}
	for _, edit := range edits {
		edit(p)
	}
	return p
}

func container(s corev1.ContainerState) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: "main", State: s})
	}
}

func waiting(reason string) func(*corev1.Pod) {
	return container(corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "why"}})
}

func running(start int) func(*corev1.Pod) {
	return container(corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: mt(start)}})
}

func terminated(reason string, code int32, finish int) func(*corev1.Pod) {
	return container(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		Reason: reason, ExitCode: code, StartedAt: mt(1), FinishedAt: mt(finish),
	}})
}

func crashed(reason string, code int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: "main", RestartCount: 2,
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Reason: reason, ExitCode: code, StartedAt: mt(1), FinishedAt: mt(2),
			}},
		})
	}
}

func condition(typ corev1.PodConditionType, status corev1.ConditionStatus, reason string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
			Type: typ, Status: status, Reason: reason, Message: "the cluster says", LastTransitionTime: mt(4),
		})
	}
}

func status(reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Reason, p.Status.Message = reason, message }
}

// deleting says that somebody asked for the deletion then, with 30 s of grace.
func deleting(asked int) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		grace, by := int64(30), mt(asked+30)
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &by, &grace
	}
}

func TestPod(t *testing.T) {
	const (
		queued, runs      = statesync.Queued, statesync.Running
		succeeded, failed = statesync.Succeeded, statesync.Failed
		cancelled         = statesync.Cancelled
	)
	disrupted := func(reason string) func(*corev1.Pod) {
		return condition(corev1.DisruptionTarget, corev1.ConditionTrue, reason)
	}
	tests := []struct {
		name string
		pod  *corev1.Pod
		want Status
	}{
		{"a new pod is queued", pod("Pending"), Status{State: queued, Occurred: at(0)}},
		{"a pod without a phase is queued", pod(""), Status{State: queued, Occurred: at(0)}},
		{
			"a pod that fits no node is queued as Unschedulable",
			pod("Pending", condition(corev1.PodScheduled, corev1.ConditionFalse, "Unschedulable")),
			Status{State: queued, Reason: "Unschedulable", Message: "the cluster says", Occurred: at(0)},
		},
		{
			"a pod whose image cannot be pulled is queued as ImagePullBackOff",
			pod("Pending", condition(corev1.PodScheduled, corev1.ConditionTrue, ""), waiting("ImagePullBackOff")),
			Status{State: queued, Reason: "ImagePullBackOff", Message: "why", Occurred: at(0)},
		},
		{"a container being created is no reason", pod("Pending", waiting("ContainerCreating")), Status{State: queued, Occurred: at(0)}},
		{"neither is one that waits for the init containers", pod("Pending", waiting("PodInitializing")), Status{State: queued, Occurred: at(0)}},
		{
			"a running pod runs since its first container started",
			pod("Running", running(7), running(5)),
			Status{State: runs, Occurred: at(5)},
		},
		{
			"a crash loop runs, and says what crashed",
			pod("Running", crashed("OOMKilled", 137)),
			Status{State: runs, Reason: "CrashLoopBackOff", Message: "container main: OOMKilled, exit code 137", ExitCode: new(int32(137)), Occurred: at(1)},
		},
		{"a pod on a node not heard of runs", pod("Unknown", status("NodeLost", "gone")), Status{State: runs, Reason: "NodeLost", Message: "gone"}},
		{"a pod that is being deleted runs until its containers end", pod("Running", running(5), deleting(6)), Status{State: runs, Occurred: at(5)}},
		{
			"a pod whose containers ended well has succeeded",
			pod("Succeeded", terminated("Completed", 0, 3), terminated("Completed", 0, 9)),
			Status{State: succeeded, Reason: "Completed", ExitCode: new(int32(0)), Occurred: at(9)},
		},
		{
			"a pod that ended well while it was deleted has succeeded",
			pod("Succeeded", terminated("Completed", 0, 9), deleting(5)),
			Status{State: succeeded, Reason: "Completed", ExitCode: new(int32(0)), Occurred: at(9)},
		},
		{
			"an exit code tells why a pod failed",
			pod("Failed", terminated("Error", 3, 9)),
			Status{State: failed, Reason: "Error", Message: "container main: exit code 3", ExitCode: new(int32(3)), Occurred: at(9)},
		},
		{
			"OOMKilled tells why a pod failed",
			pod("Failed", terminated("OOMKilled", 137, 9)),
			Status{State: failed, Reason: "OOMKilled", Message: "container main: OOMKilled, exit code 137", ExitCode: new(int32(137)), Occurred: at(9)},
		},
		{
			"a sidecar that was stopped is not blamed",
			pod("Failed", terminated("Error", 143, 9), terminated("Error", 1, 8)),
			Status{State: failed, Reason: "Error", Message: "container main: exit code 1", ExitCode: new(int32(1)), Occurred: at(9)},
		},
		{
			"a deadline tells why a pod failed",
			pod("Failed", status("DeadlineExceeded", "too long"), terminated("Error", 143, 9)),
			Status{State: failed, Reason: "DeadlineExceeded", Message: "too long", ExitCode: new(int32(143)), Occurred: at(9)},
		},
		{
			"an evicted pod has failed, though it is being deleted",
			pod("Failed", status("Evicted", "low on memory"), disrupted(corev1.PodReasonTerminationByKubelet), deleting(5)),
			Status{State: failed, Reason: "Evicted", Message: "low on memory", Occurred: at(4)},
		},
		{
			"a preempted pod has failed",
			pod("Failed", disrupted(corev1.PodReasonPreemptionByScheduler), terminated("Error", 143, 9), deleting(5)),
			Status{State: failed, Reason: "Preempted", Message: "the cluster says", ExitCode: new(int32(143)), Occurred: at(9)},
		},
		{
			"a pod evicted through the API has failed",
			pod("Failed", disrupted("EvictionByEvictionAPI"), terminated("Error", 143, 9), deleting(5)),
			Status{State: failed, Reason: "Evicted", Message: "the cluster says", ExitCode: new(int32(143)), Occurred: at(9)},
		},
		{
			"a pod that failed after its deletion was asked for was cancelled",
			pod("Failed", terminated("Error", 143, 9), deleting(5)),
			Status{State: cancelled, Reason: "Deleted", Message: "the Pod was deleted before it ended; then: container main: exit code 143", ExitCode: new(int32(143)), Occurred: at(9)},
		},
		{
			"a node's clock may be behind when a pod is stopped",
			pod("Failed", terminated("Error", 143, 9), deleting(11)),
			Status{State: cancelled, Reason: "Deleted", Message: "the Pod was deleted before it ended; then: container main: exit code 143", ExitCode: new(int32(143)), Occurred: at(9)},
		},
		{
			"by more than that it is not",
			pod("Failed", terminated("Error", 143, 9), deleting(12)),
			Status{State: failed, Reason: "Error", Message: "container main: exit code 143", ExitCode: new(int32(143)), Occurred: at(9)},
		},
		{
			"so it may when a pod is killed",
			pod("Failed", terminated("Error", 137, 9), deleting(11)),
			Status{State: cancelled, Reason: "Deleted", Message: "the Pod was deleted before it ended; then: container main: exit code 137", ExitCode: new(int32(137)), Occurred: at(9)},
		},
		{
			"a pod killed for memory was not stopped",
			pod("Failed", terminated("OOMKilled", 137, 9), deleting(10)),
			Status{State: failed, Reason: "OOMKilled", Message: "container main: OOMKilled, exit code 137", ExitCode: new(int32(137)), Occurred: at(9)},
		},
		{
			"neither was one whose container is lost",
			pod("Failed", terminated("ContainerStatusUnknown", 137, 9), deleting(10)),
			Status{State: failed, Reason: "ContainerStatusUnknown", Message: "container main: ContainerStatusUnknown, exit code 137", ExitCode: new(int32(137)), Occurred: at(9)},
		},
		{
			"a pod that failed before its deletion was asked for has failed",
			pod("Failed", terminated("Error", 3, 4), deleting(5)),
			Status{State: failed, Reason: "Error", Message: "container main: exit code 3", ExitCode: new(int32(3)), Occurred: at(4)},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := podKind.Reduce(tt.pod)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, inUTC(podKind.Assess(o))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func inUTC(s Status) Status {
	if !s.Occurred.IsZero() {
		s.Occurred = s.Occurred.UTC()
	}
	return s
}

func TestReduceNamesWhatItCannotRead(t *testing.T) {
	p := pod("Pending")
	p.ResourceVersion = "soon"
	if _, err := podKind.Reduce(p); err == nil || err.Error() != `reduce Pod load/p: resourceVersion "soon", want a whole number` {
		t.Errorf("got %v", err)
	}
	if _, err := podKind.Reduce(&corev1.Node{}); err == nil {
		t.Error("a Node was reduced, want an error")
	}
}
