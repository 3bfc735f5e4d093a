package workload

import (
	"reflect"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestReduceKeepsWhatIsRead: a cluster has many objects in memory, and most of
// what their status says is read by no rule.
func TestReduceKeepsWhatIsRead(t *testing.T) {
	const yes, no = corev1.ConditionTrue, corev1.ConditionFalse
	for name, tt := range map[string]struct {
		kind   string
		object runtime.Object
		want   string
	}{
		"a pod that runs": {"Pod", pod("Running", running(1), condition(corev1.PodInitialized, yes, ""), condition(corev1.PodReady, no, ""),
			condition(corev1.ContainersReady, yes, ""), condition(corev1.PodScheduled, yes, "")), ""},
		"a pod without a node":  {"Pod", pod("Pending", condition(corev1.PodScheduled, no, "Unschedulable")), "PodScheduled"},
		"a pod that is evicted": {"Pod", pod("Failed", condition(corev1.DisruptionTarget, yes, "EvictionByEvictionAPI"), condition(corev1.PodReady, no, "")), "DisruptionTarget"},
		"one that was not":      {"Pod", pod("Running", condition(corev1.DisruptionTarget, no, "EvictionByEvictionAPI")), ""},
		"a container to come":   {"Pod", pod("Pending", waiting("PodInitializing")), ""},
		"one that cannot":       {"Pod", pod("Pending", waiting("ErrImagePull")), "ErrImagePull why"},
		"a job that goes on": {"Job", job(jobCondition(batchv1.JobSuspended, no, "JobResumed"), jobCondition("Scheduled", yes, ""),
			jobCondition(batchv1.JobFailureTarget, yes, "")), "FailureTarget"},
		"a web app": {"Deployment", deployment(1, 1, 1, 1, says("Available", yes, "", 1), says("Progressing", no, "", 1),
			says("ReplicaFailure", no, "", 1), says("Healthy", yes, "", 1)), "Available Progressing ReplicaFailure"},
	} {
		k := Kinds[tt.kind]
		o, err := k.Reduce(tt.object)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range o.Conditions {
			got = append(got, c.Type)
		}
		for _, c := range o.Containers {
			got = append(got, c.Waiting, c.WaitingMessage)
		}
		if got := strings.TrimSpace(strings.Join(got, " ")); got != tt.want {
			t.Errorf("%s: kept %q, want %q", name, got, tt.want)
		}
	}
}

// TestObjectIsSmall: memory comes in sizes of 512 and then 576 bytes, and 160
// and 176; every pod of a cluster has an Object, and each container of it a
// Container.
func TestObjectIsSmall(t *testing.T) {
	for of, limit := range map[reflect.Type]uintptr{reflect.TypeFor[Object](): 512, reflect.TypeFor[Container](): 176} {
		if of.Size() > limit {
			t.Errorf("%v: got %d bytes, want %d at most", of, of.Size(), limit)
		}
	}
}
