package workload

import (
	"maps"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/outrider-agent/outrider/statesync"
)

// TestRemoved has one row for every kind, last state, and what else had come
// upon the object, and says which end its removal gives.
func TestRemoved(t *testing.T) {
	const yes = corev1.ConditionTrue
	disrupted := func(reason string) func(*corev1.Pod) { return condition(corev1.DisruptionTarget, yes, reason) }
	outcome := func(typ batchv1.JobConditionType, reason string) func(*batchv1.Job) {
		return jobCondition(typ, yes, reason)
	}
	const failing, succeeding = batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet
	one, none := int32(1), int32(0)
	set := func(available int32) *appsv1.ReplicaSet {
		return &appsv1.ReplicaSet{ObjectMeta: appMeta(1), Spec: appsv1.ReplicaSetSpec{Replicas: &one}, Status: appsv1.ReplicaSetStatus{AvailableReplicas: available}}
	}
	stateful := func(available int32) *appsv1.StatefulSet {
		return &appsv1.StatefulSet{ObjectMeta: appMeta(1), Spec: appsv1.StatefulSetSpec{Replicas: &one}, Status: appsv1.StatefulSetStatus{AvailableReplicas: available}}
	}
	daemon := func(available int32) *appsv1.DaemonSet {
		return &appsv1.DaemonSet{ObjectMeta: appMeta(1), Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 1, NumberAvailable: available}}
	}
	late := says(appsv1.DeploymentProgressing, corev1.ConditionFalse, "ProgressDeadlineExceeded", 9)
	tests := []struct {
		kind, last, with string
		object           runtime.Object
		want             string
	}{
		{"Pod", "Queued", "nothing", pod("Pending"), "Cancelled Deleted"},
		{"Pod", "Queued", "a deletion", pod("Pending", deleting(1)), "Cancelled Deleted"},
		{"Pod", "Queued", "a preemption", pod("Pending", disrupted(corev1.PodReasonPreemptionByScheduler)), "Failed Preempted"},
		{"Pod", "Queued", "an eviction", pod("Pending", disrupted("EvictionByEvictionAPI"), deleting(1)), "Failed Evicted"},
		{"Pod", "Running", "nothing", pod("Running", running(1)), "Cancelled Deleted"},
		{"Pod", "Running", "a deletion", pod("Running", running(1), deleting(2)), "Cancelled Deleted"},
		{"Pod", "Running", "a preemption", pod("Running", running(1), disrupted(corev1.PodReasonPreemptionByScheduler)), "Failed Preempted"},
		{"Pod", "Running", "an eviction", pod("Running", running(1), disrupted("EvictionByEvictionAPI"), deleting(2)), "Failed Evicted"},
		{"Pod", "Running", "a taint", pod("Running", running(1), disrupted("DeletionByTaintManager"), deleting(2)), "Failed Evicted"},
		{"Pod", "Running", "a node that is lost", pod("Running", running(1), disrupted("DeletionByPodGC")), "Failed NodeLost"},
		{"Pod", "Running", "a kubelet that shuts down", pod("Running", running(1), disrupted(corev1.PodReasonTerminationByKubelet), status("Terminated", "")), "Failed Terminated"},
		{"Pod", "Running", "a disruption that was called off", pod("Running", running(1), condition(corev1.DisruptionTarget, corev1.ConditionFalse, "EvictionByEvictionAPI")), "Cancelled Deleted"},
		{"Pod", "Succeeded", "nothing", pod("Succeeded"), "Succeeded Completed"},
		{"Pod", "Succeeded", "an eviction", pod("Succeeded", disrupted("EvictionByEvictionAPI"), deleting(2)), "Succeeded Completed"},
		{"Pod", "Failed", "nothing", pod("Failed", terminated("Error", 3, 4)), "Failed Error"},
		{"Pod", "Failed", "a deletion after it", pod("Failed", terminated("Error", 3, 4), deleting(5)), "Failed Error"},
		{"Pod", "Failed", "an eviction", pod("Failed", terminated("Error", 143, 9), disrupted("EvictionByEvictionAPI"), deleting(5)), "Failed Evicted"},
		{"Pod", "Cancelled", "a deletion", pod("Failed", terminated("Error", 143, 9), deleting(5)), "Cancelled Deleted"},

		{"Job", "Queued", "nothing", job(), "Cancelled Deleted"},
		{"Job", "Queued", "a suspension", job(suspended, jobCondition(batchv1.JobSuspended, yes, "JobSuspended")), "Cancelled Deleted"},
		{"Job", "Queued", "a failure decided on", job(outcome(failing, "DeadlineExceeded")), "Failed DeadlineExceeded"},
		{"Job", "Running", "a ready pod", job(started(1), ready(1)), "Cancelled Deleted"},
		{"Job", "Running", "a failure decided on", job(started(1), ready(1), outcome(failing, "PodFailurePolicy")), "Failed PodFailurePolicy"},
		{"Job", "Running", "a success decided on", job(started(1), ready(1), outcome(succeeding, "SuccessPolicy")), "Succeeded SuccessPolicy"},
		{"Job", "Running", "a failure not decided on", job(started(1), jobCondition(failing, corev1.ConditionFalse, "PodFailurePolicy")), "Cancelled Deleted"},
		{"Job", "Succeeded", "nothing", job(outcome(succeeding, "SuccessPolicy"), outcome(batchv1.JobComplete, "SuccessPolicy")), "Succeeded SuccessPolicy"},
		{"Job", "Failed", "nothing", job(outcome(failing, "BackoffLimitExceeded"), outcome(batchv1.JobFailed, "BackoffLimitExceeded")), "Failed BackoffLimitExceeded"},

		{"Deployment", "Queued", "nothing", deployment(1, 0, 0, 0), "Deleted Deleted"},
		{"Deployment", "Queued", "a deadline that has passed", deployment(1, 1, 1, 0, late), "Deleted Deleted"},
		{"Deployment", "Running", "nothing", deployment(1, 1, 1, 1), "Deleted Deleted"},
		{"Deployment", "Running", "a deadline that has passed", deployment(1, 1, 1, 1, late), "Deleted Deleted"},
		{"ReplicaSet", "Queued", "nothing", set(none), "Deleted Deleted"},
		{"ReplicaSet", "Running", "nothing", set(one), "Deleted Deleted"},
		{"StatefulSet", "Queued", "nothing", stateful(none), "Deleted Deleted"},
		{"StatefulSet", "Running", "nothing", stateful(one), "Deleted Deleted"},
		{"DaemonSet", "Queued", "nothing", daemon(none), "Deleted Deleted"},
		{"DaemonSet", "Running", "nothing", daemon(one), "Deleted Deleted"},
	}
	had := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.kind+" "+tt.last+" with "+tt.with, func(t *testing.T) {
			k := Kinds[tt.kind]
			had[tt.kind+" "+tt.last] = true
			o, err := k.Reduce(tt.object)
			if err != nil {
				t.Fatal(err)
			}
			// A Job's own account is Queued until it ends: its pods run.
			if last := k.Assess(o).State; string(last) != tt.last && (tt.kind != "Job" || tt.last != "Running" || last != statesync.Queued) {
				t.Errorf("its last state is %s, want %s", last, tt.last)
			}
			got := k.Removed(o)
			if what := string(got.State) + " " + got.Reason; what != tt.want {
				t.Errorf("got %s, want %s", what, tt.want)
			}
			if !got.State.Ended() {
				t.Errorf("%s is no end", got.State)
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(Kinds)) {
		for _, last := range []string{"Queued", "Running"} {
			if !had[name+" "+last] {
				t.Errorf("no row has a %s that was %s", name, last)
			}
		}
	}
}
