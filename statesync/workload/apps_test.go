package workload

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/outrider-agent/outrider/statesync"
)

func appMeta(generation int64) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "load", Name: "a", UID: "u", ResourceVersion: "10", CreationTimestamp: mt(0), Generation: generation,
		Annotations: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
	}
}

func podTemplate() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "web:1"}}}}
}

// deployment returns one whose status is of the present spec, and counts
// current pods, updated ones, available ones.
func deployment(desired, current, updated, available int32, edits ...func(*appsv1.Deployment)) *appsv1.Deployment {
	quarter := intstr.FromString("25%")
	d := &appsv1.Deployment{
		ObjectMeta: appMeta(2),
		Spec: appsv1.DeploymentSpec{
			Replicas: &desired, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, Template: podTemplate(),
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &quarter, MaxUnavailable: &quarter},
			},
		},
		Status: appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: current, UpdatedReplicas: updated, AvailableReplicas: available},
	}
	for _, edit := range edits {
		edit(d)
	}
	return d
}

// says adds a condition that came to be at a time, and was last updated then
// or at a later one.
func says(typ appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason string, since int, updated ...int) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		c := appsv1.DeploymentCondition{
			Type: typ, Status: status, Reason: reason, Message: "says " + reason, LastTransitionTime: mt(since), LastUpdateTime: mt(since),
		}
		for _, at := range updated {
			c.LastUpdateTime = mt(at)
		}
		d.Status.Conditions = append(d.Status.Conditions, c)
	}
}

func TestDeployment(t *testing.T) {
	const yes, no, unknown = corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown
	const progressing, available, failure = appsv1.DeploymentProgressing, appsv1.DeploymentAvailable, appsv1.DeploymentReplicaFailure
	queued := func(reason, message string, occurred time.Time) Status {
		return Status{State: statesync.Queued, Reason: reason, Message: message, Occurred: occurred, Back: true}
	}
	runs := func(reason, message string, occurred time.Time) Status {
		return Status{State: statesync.Running, Reason: reason, Message: message, Occurred: occurred}
	}
	stale := func(d *appsv1.Deployment) { d.Generation++ }
	paused := func(d *appsv1.Deployment) { d.Spec.Paused = true }
	recreate := func(d *appsv1.Deployment) {
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	}
	complete := says(progressing, yes, "NewReplicaSetAvailable", 1, 5)
	rolling := says(progressing, yes, "ReplicaSetUpdated", 1, 7)
	late := says(progressing, no, "ProgressDeadlineExceeded", 9)
	const deadline, create = "says ProgressDeadlineExceeded", "says FailedCreate"
	never := time.Time{}
	tests := []struct {
		name string
		d    *appsv1.Deployment
		want Status
	}{
		{"a new one is queued", deployment(1, 0, 0, 0, func(d *appsv1.Deployment) { d.Status = appsv1.DeploymentStatus{} }), queued("", "", never)},
		{"none available is queued, since the condition says so", deployment(1, 1, 1, 0, rolling, says(available, no, "MinimumReplicasUnavailable", 3)), queued("", "", at(3))},
		{"a minimum of several says not since when none is available", deployment(3, 3, 3, 0, complete, says(available, no, "MinimumReplicasUnavailable", 3)), queued("", "", never)},
		{"a condition about an earlier minimum says not since when", deployment(1, 1, 1, 0, stale, says(available, no, "MinimumReplicasUnavailable", 3)), queued("", "", never)},
		{"a condition that says otherwise says not since when none is available", deployment(1, 1, 1, 0, complete, says(available, yes, "MinimumReplicasAvailable", 3)), queued("", "", never)},
		{"none wanted is ScaledToZero", deployment(0, 0, 0, 0, complete, says(available, yes, "MinimumReplicasAvailable", 3)), queued("ScaledToZero", "the Deployment is to have no replicas", never)},
		{"none wanted is ScaledToZero, whatever failed before", deployment(0, 0, 0, 0, late), queued("ScaledToZero", "the Deployment is to have no replicas", never)},
		{"none wanted, but some still there, runs", deployment(0, 1, 1, 1, stale, complete), runs("", "", never)},
		{"none available and past the deadline is queued with that reason", deployment(1, 1, 1, 0, late, says(available, no, "MinimumReplicasUnavailable", 3)), queued("ProgressDeadlineExceeded", deadline, at(9))},
		{"pods that cannot be created are why none is available", deployment(1, 0, 0, 0, rolling, says(available, no, "MinimumReplicasUnavailable", 3), says(failure, yes, "FailedCreate", 4)), queued("FailedCreate", create, at(4))},
		{"the deadline tells first, and then what failed", deployment(1, 0, 0, 0, late, says(failure, yes, "FailedCreate", 4)), queued("ProgressDeadlineExceeded", deadline+"; FailedCreate: "+create, never)},
		{"one made paused is queued as Paused", deployment(1, 0, 0, 0, paused), queued("Paused", "the Deployment is paused", never)},
		{"none available while recreated is queued", deployment(1, 1, 1, 0, recreate, rolling, says(available, no, "MinimumReplicasUnavailable", 3)), queued("", "", at(3))},

		{"all available runs, since its roll-out was complete", deployment(3, 3, 3, 3, complete, says(available, yes, "MinimumReplicasAvailable", 2)), runs("", "", at(5))},
		{"all available again runs, since they are", deployment(3, 3, 3, 3, complete, says(available, yes, "MinimumReplicasAvailable", 8)), runs("", "", at(8))},
		{"what may have none says not since when it has some", deployment(1, 1, 1, 1, complete, says(available, yes, "MinimumReplicasAvailable", 8), func(d *appsv1.Deployment) {
			all := intstr.FromString("100%")
			d.Spec.Strategy.RollingUpdate.MaxUnavailable = &all
		}), runs("", "", never)},
		{"what may have none because it may not have more says not since when either", deployment(1, 1, 1, 1, complete, says(available, yes, "MinimumReplicasAvailable", 8), func(d *appsv1.Deployment) {
			zero := intstr.FromInt32(0)
			d.Spec.Strategy.RollingUpdate.MaxSurge = &zero
		}), runs("", "", never)},
		{"a roll-out runs", deployment(3, 4, 2, 3, rolling, says(available, yes, "MinimumReplicasAvailable", 2)), runs("RollingOut", "says ReplicaSetUpdated", at(7))},
		{"a roll-out is why replicas are missing", deployment(3, 3, 2, 1, rolling, says(available, no, "MinimumReplicasUnavailable", 8)), runs("RollingOut", "says ReplicaSetUpdated", at(7))},
		{"a roll-out is not over with its last pod created", deployment(3, 3, 3, 2, rolling), runs("RollingOut", "says ReplicaSetUpdated", at(7))},
		{"pods of an earlier version are a roll-out, though the condition is late", deployment(3, 4, 1, 3, complete), runs("RollingOut", "", never)},
		{"pods of an earlier version are a roll-out without a deadline", deployment(3, 4, 1, 3), runs("RollingOut", "", never)},
		{"a new template that nobody has seen yet is no roll-out", deployment(3, 3, 3, 3, stale, complete, says(available, yes, "MinimumReplicasAvailable", 2)), runs("", "", at(5))},
		{"a roll-out goes on when the spec changes again", deployment(3, 4, 2, 3, stale, rolling), runs("RollingOut", "says ReplicaSetUpdated", at(7))},
		{"scaling up is no roll-out", deployment(5, 3, 3, 3, complete, says(available, no, "MinimumReplicasUnavailable", 8)), runs("MinimumReplicasUnavailable", "says MinimumReplicasUnavailable", never)},
		{"scaling up is no roll-out without a deadline", deployment(5, 3, 3, 3), runs("", "", never)},
		{"scaling down is no roll-out", deployment(3, 5, 5, 5, complete, says(available, yes, "MinimumReplicasAvailable", 2)), runs("", "", at(5))},
		{"a pod that crashes is no roll-out", deployment(3, 3, 3, 2, complete, says(available, no, "MinimumReplicasUnavailable", 8)), runs("MinimumReplicasUnavailable", "says MinimumReplicasUnavailable", never)},
		{"past the deadline runs with that reason", deployment(3, 4, 1, 3, late, says(available, yes, "MinimumReplicasAvailable", 2)), runs("ProgressDeadlineExceeded", deadline, at(9))},
		{"pods that cannot be created are told before the roll-out", deployment(1, 1, 0, 1, rolling, says(available, yes, "MinimumReplicasAvailable", 2), says(failure, yes, "FailedCreate", 4)), runs("FailedCreate", create, at(4))},
		{"a ReplicaSet that cannot be created is FailedCreate", deployment(1, 1, 0, 1, says(progressing, no, "ReplicaSetCreateError", 9), says(available, yes, "MinimumReplicasAvailable", 2)), runs("FailedCreate", "says ReplicaSetCreateError", at(9))},
		{"a pause tells before the roll-out that it holds", deployment(1, 2, 1, 1, paused, says(progressing, unknown, "DeploymentPaused", 6), says(available, yes, "MinimumReplicasAvailable", 2)), runs("Paused", "the Deployment is paused", at(6))},
		{"a pause that the controller has not seen is one", deployment(1, 1, 1, 1, paused, stale, complete), runs("Paused", "the Deployment is paused", never)},
		{"a pause says not since when before its condition does", deployment(1, 1, 1, 1, paused, complete, says(available, yes, "MinimumReplicasAvailable", 2)), runs("Paused", "the Deployment is paused", never)},
		{"one that goes on after a pause rolls out while earlier pods are there", deployment(1, 2, 1, 1, says(progressing, unknown, "DeploymentResumed", 6)), runs("RollingOut", "", never)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { assessed(t, deploymentKind, tt.d, tt.want) })
	}
}

// assessed checks what the kind says of an object, trimmed or not.
func assessed(t *testing.T, k Kind, obj runtime.Object, want Status) {
	t.Helper()
	whole, err := k.Reduce(obj)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, inUTC(k.Assess(whole))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	k.Trimmer(obj)
	trimmed, err := k.Reduce(obj)
	if diff := cmp.Diff(whole, trimmed); err != nil || diff != "" {
		t.Errorf("trimmed it reduces to something else: %v (-whole +trimmed)\n%s", err, diff)
	}
}

func TestStatefulSet(t *testing.T) {
	queued := Status{State: statesync.Queued, Back: true}
	runs := Status{State: statesync.Running}
	rolls := Status{State: statesync.Running, Reason: "RollingOut"}
	set := func(desired, available, old int32, revisions string, edits ...func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
		s := &appsv1.StatefulSet{
			ObjectMeta: appMeta(2),
			Spec: appsv1.StatefulSetSpec{
				Replicas: &desired, Template: podTemplate(), ServiceName: "a",
				UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType},
			},
			Status: appsv1.StatefulSetStatus{
				ObservedGeneration: 2, Replicas: desired, AvailableReplicas: available, CurrentReplicas: old, UpdatedReplicas: desired - old,
				CurrentRevision: revisions[:1], UpdateRevision: revisions[1:],
			},
		}
		for _, edit := range edits {
			edit(s)
		}
		return s
	}
	partition := func(n int32) func(*appsv1.StatefulSet) {
		return func(s *appsv1.StatefulSet) {
			s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: &n}
		}
	}
	onDelete := func(s *appsv1.StatefulSet) {
		s.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
	}
	tests := []struct {
		name string
		set  *appsv1.StatefulSet
		want Status
	}{
		{"a new one is queued", set(3, 0, 0, "aa", func(s *appsv1.StatefulSet) { s.Status = appsv1.StatefulSetStatus{} }), queued},
		{"none wanted is ScaledToZero", set(0, 0, 0, "aa"), Status{State: statesync.Queued, Reason: "ScaledToZero", Message: "the StatefulSet is to have no replicas", Back: true}},
		{"one available runs", set(3, 1, 3, "aa"), runs},
		{"two revisions are a roll-out", set(3, 2, 2, "ab"), rolls},
		{"a roll-out is not over with its last pod created", set(3, 2, 0, "ab"), rolls},
		{"a roll-out without any replica available is queued", set(1, 0, 0, "ab"), queued},
		{"OnDelete is no roll-out", set(3, 3, 3, "ab", onDelete), runs},
		{"more pods of the old revision than the partition holds are a roll-out", set(3, 3, 3, "ab", partition(2)), rolls},
		{"what the partition holds is no roll-out", set(3, 3, 2, "ab", partition(2)), runs},
		{"a pod above the partition that is replaced is no roll-out", set(3, 2, 2, "ab", partition(2), func(s *appsv1.StatefulSet) { s.Status.UpdatedReplicas = 0 }), runs},
		{"scaling up above the partition is no roll-out", set(3, 3, 2, "ab", partition(2), func(s *appsv1.StatefulSet) { *s.Spec.Replicas = 9 }), runs},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { assessed(t, statefulSetKind, tt.set, tt.want) })
	}
}

func TestReplicaSet(t *testing.T) {
	set := func(desired, current, available int32, conditions ...appsv1.ReplicaSetCondition) *appsv1.ReplicaSet {
		return &appsv1.ReplicaSet{
			ObjectMeta: appMeta(1), Spec: appsv1.ReplicaSetSpec{Replicas: &desired, Template: podTemplate()},
			Status: appsv1.ReplicaSetStatus{ObservedGeneration: 1, Replicas: current, AvailableReplicas: available, Conditions: conditions},
		}
	}
	failed := appsv1.ReplicaSetCondition{
		Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "over quota", LastTransitionTime: mt(4),
	}
	tests := []struct {
		name string
		set  *appsv1.ReplicaSet
		want Status
	}{
		{"none available is queued", set(2, 2, 0), Status{State: statesync.Queued, Back: true}},
		{"none wanted is ScaledToZero", set(0, 0, 0), Status{State: statesync.Queued, Reason: "ScaledToZero", Message: "the ReplicaSet is to have no replicas", Back: true}},
		{"pods that cannot be created are why none is available", set(2, 0, 0, failed), Status{State: statesync.Queued, Reason: "FailedCreate", Message: "over quota", Back: true}},
		{"some available runs", set(2, 2, 1), Status{State: statesync.Running}},
		{"some available and the rest not to be created runs and says so", set(2, 1, 1, failed), Status{State: statesync.Running, Reason: "FailedCreate", Message: "over quota"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { assessed(t, replicaSetKind, tt.set, tt.want) })
	}
}

func TestDaemonSet(t *testing.T) {
	set := func(desired, current, updated, available int32, edits ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
		s := &appsv1.DaemonSet{
			ObjectMeta: appMeta(2),
			Spec:       appsv1.DaemonSetSpec{Template: podTemplate(), UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType}},
			Status: appsv1.DaemonSetStatus{
				ObservedGeneration: 2, DesiredNumberScheduled: desired, CurrentNumberScheduled: current, UpdatedNumberScheduled: updated, NumberAvailable: available,
			},
		}
		for _, edit := range edits {
			edit(s)
		}
		return s
	}
	onDelete := func(s *appsv1.DaemonSet) { s.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType }
	tests := []struct {
		name string
		set  *appsv1.DaemonSet
		want Status
	}{
		{"one that nobody has looked at is queued", set(0, 0, 0, 0, func(s *appsv1.DaemonSet) { s.Status.ObservedGeneration = 0 }), Status{State: statesync.Queued, Back: true}},
		{"one that no node matches is queued as NoNodes", set(0, 0, 0, 0), Status{State: statesync.Queued, Reason: "NoNodes", Message: "no node is to run the DaemonSet's pods", Back: true}},
		{"none available is queued", set(2, 2, 2, 0), Status{State: statesync.Queued, Back: true}},
		{"some available runs", set(2, 2, 2, 1), Status{State: statesync.Running}},
		{"a node with an earlier version is a roll-out", set(2, 2, 1, 1), Status{State: statesync.Running, Reason: "RollingOut"}},
		{"a node that joins is no roll-out", set(3, 2, 2, 2), Status{State: statesync.Running}},
		{"OnDelete is no roll-out", set(2, 2, 1, 2, onDelete), Status{State: statesync.Running}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { assessed(t, daemonSetKind, tt.set, tt.want) })
	}
}
