package workload

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/outrider-agent/outrider/statesync"
)

func named(name string, created int) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Name, p.UID, p.CreationTimestamp = name, types.UID("uid-"+name), mt(created) }
}

func TestExplain(t *testing.T) {
	failedJob := Status{State: statesync.Failed, Reason: "BackoffLimitExceeded", Message: "too many"}
	waits := Status{State: statesync.Queued, Back: true}
	late := Status{State: statesync.Running, Reason: "ProgressDeadlineExceeded", Message: "too late"}
	with := func(s Status, message string, code ...int32) Status {
		s.Message = message
		if len(code) > 0 {
			s.ExitCode = &code[0]
		}
		return s
	}
	exit := func(name string, created int, reason string, code int32, finish int, edits ...func(*corev1.Pod)) *corev1.Pod {
		return pod("Failed", append([]func(*corev1.Pod){named(name, created), terminated(reason, code, finish)}, edits...)...)
	}
	unschedulable := pod("Pending", named("nowhere", 3), condition(corev1.PodScheduled, corev1.ConditionFalse, "Unschedulable"))
	pulls := pod("Pending", named("pulls", 1), waiting("ImagePullBackOff"))
	crashes := pod("Running", named("crashes", 2), crashed("Error", 3))
	tests := []struct {
		name   string
		kind   Kind
		status Status
		pods   []*corev1.Pod
		want   Status
	}{
		{"a job without pods stays as it is", jobKind, failedJob, nil, failedJob},
		{
			"the pod that failed last says how a job failed", jobKind, failedJob,
			[]*corev1.Pod{exit("a", 0, "Error", 1, 4), exit("c", 6, "Error", 42, 9), exit("b", 5, "OOMKilled", 137, 6)},
			with(failedJob, "too many; the last, c: container main: exit code 42", 42),
		},
		{
			"of two that failed in the same second the one created later does", jobKind, failedJob,
			[]*corev1.Pod{exit("b", 2, "Error", 2, 4), exit("a", 3, "OOMKilled", 137, 4)},
			with(failedJob, "too many; the last, a: container main: OOMKilled, exit code 137", 137),
		},
		{
			"one that was stopped with the job does not", jobKind, failedJob,
			[]*corev1.Pod{exit("a", 0, "Error", 42, 4), exit("b", 1, "Error", 1, 9, deleting(5)), pod("Succeeded", named("c", 2), terminated("Completed", 0, 9))},
			with(failedJob, "too many; the last, a: container main: exit code 42", 42),
		},
		{
			"a pod that restarts in place tells of the run before", jobKind, failedJob,
			[]*corev1.Pod{pod("Running", named("a", 0), crashed("Error", 7), deleting(5))},
			with(failedJob, "too many; the last, a: container main: exit code 7", 7),
		},
		{
			"an evicted pod says so", jobKind, failedJob,
			[]*corev1.Pod{pod("Failed", named("a", 0), status("Evicted", "low on memory"), condition(corev1.DisruptionTarget, corev1.ConditionTrue, corev1.PodReasonTerminationByKubelet))},
			with(failedJob, "too many; the last, a: Evicted: low on memory"),
		},
		{
			"what disrupted a pod says more than how its container was stopped", jobKind, failedJob,
			[]*corev1.Pod{exit("a", 0, "Error", 143, 4, condition(corev1.DisruptionTarget, corev1.ConditionTrue, "EvictionByEvictionAPI"), deleting(3))},
			with(failedJob, "too many; the last, a: Evicted: the cluster says", 143),
		},
		{
			"of two containers that restart the later one tells", jobKind, failedJob,
			[]*corev1.Pod{pod("Running", named("a", 0), crashed("Error", 7), crashed("Error", 8), func(p *corev1.Pod) {
				p.Status.ContainerStatuses[1].LastTerminationState.Terminated.StartedAt = mt(0)
			})},
			with(failedJob, "too many; the last, a: container main: exit code 7", 7),
		},
		{"an exit code that is known stays", jobKind, with(failedJob, "m", 5), []*corev1.Pod{exit("a", 0, "Error", 1, 4)}, with(failedJob, "m; the last, a: container main: exit code 1", 5)},
		{
			"a deadline ends a job's pods, and they say nothing of why", jobKind,
			Status{State: statesync.Failed, Reason: "DeadlineExceeded"},
			[]*corev1.Pod{exit("a", 0, "Error", 1, 4)},
			Status{State: statesync.Failed, Reason: "DeadlineExceeded"},
		},
		{
			"an image that cannot be pulled says most", deploymentKind, waits,
			[]*corev1.Pod{unschedulable, pulls, crashes},
			with(waits, "pod pulls: ImagePullBackOff: why"),
		},
		{
			"a crash says more than no node", statefulSetKind, waits,
			[]*corev1.Pod{unschedulable, crashes},
			with(waits, "pod crashes: CrashLoopBackOff: container main: exit code 3"),
		},
		{"no node says why none is available", replicaSetKind, waits, []*corev1.Pod{unschedulable}, with(waits, "pod nowhere: Unschedulable: the cluster says")},
		{"a pod says why a deadline has passed", deploymentKind, late, []*corev1.Pod{pod("Running", named("old", 0), running(1)), pulls}, with(late, "too late; pod pulls: ImagePullBackOff: why")},
		{"a pod on its way out says nothing", daemonSetKind, waits, []*corev1.Pod{pod("Running", named("a", 0), crashed("Error", 3), deleting(1))}, waits},
		{"what is scaled to zero waits for nothing", deploymentKind, Status{State: statesync.Queued, Reason: "ScaledToZero"}, []*corev1.Pod{pulls}, Status{State: statesync.Queued, Reason: "ScaledToZero"}},
		{"what no node matches waits for nothing", daemonSetKind, Status{State: statesync.Queued, Reason: "NoNodes"}, []*corev1.Pod{pulls}, Status{State: statesync.Queued, Reason: "NoNodes"}},
		{"a queued kind of the configuration speaks for itself", Kind{Name: "Notebook", Group: "kubeflow.org"}, waits, []*corev1.Pod{pulls}, waits},
		{"what runs waits for nothing", deploymentKind, Status{State: statesync.Running, Reason: "RollingOut"}, []*corev1.Pod{pulls}, Status{State: statesync.Running, Reason: "RollingOut"}},
		{"a kind of the configuration speaks for itself", Kind{Name: "Workflow", Group: "argoproj.io"}, failedJob, []*corev1.Pod{exit("a", 0, "Error", 1, 4)}, failedJob},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var pods []*Object
			for _, p := range tt.pods {
				o, err := podKind.Reduce(p)
				if err != nil {
					t.Fatal(err)
				}
				pods = append(pods, o)
			}
			for range max(1, len(pods)) { // each may be the first
				if diff := cmp.Diff(tt.want, tt.kind.Explain(tt.status, pods)); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
				if len(pods) > 0 {
					pods = append(pods[1:], pods[0])
				}
			}
		})
	}
}

func TestWantsPods(t *testing.T) {
	for reason, want := range map[string]bool{
		"BackoffLimitExceeded": true, "PodFailurePolicy": true, "MaxFailedIndexesExceeded": true, "FailedIndexes": true,
		"DeadlineExceeded": false, "": false,
	} {
		if got := jobKind.WantsPods(Status{State: statesync.Failed, Reason: reason}); got != want {
			t.Errorf("a Job that failed with reason %q: got %v, want %v", reason, got, want)
		}
		if podKind.WantsPods(Status{State: statesync.Failed, Reason: reason}) {
			t.Errorf("a Pod that failed with reason %q wants pods", reason)
		}
	}
	if jobKind.WantsPods(Status{State: statesync.Queued, Reason: "FailedIndexes"}) {
		t.Error("a Job that has not ended wants pods")
	}
}

func TestSettled(t *testing.T) {
	for name, tt := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"pending":             {pod("Pending"), false},
		"running":             {pod("Running", running(1)), false},
		"not heard of":        {pod("Unknown"), false},
		"succeeded":           {pod("Succeeded"), true},
		"failed":              {pod("Failed"), true},
		"pending and deleted": {pod("Pending", deleting(1)), true},
	} {
		o, err := podKind.Reduce(tt.pod)
		if err != nil {
			t.Fatal(err)
		}
		if got := Settled(o); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
