package workload

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// newReplicaSetAvailable is the reason of a Deployment's condition Progressing
// once its roll-out is complete, until the next one begins.
const newReplicaSetAvailable = "NewReplicaSetAvailable"

// deploymentKind is the kind's entry in the table. Read-only.
var deploymentKind = Kind{
	Name: "Deployment", Group: "apps", Version: "v1", Resource: "deployments", Collection: "deployments", Folds: true,
	Object:  func() runtime.Object { return &appsv1.Deployment{} },
	List:    func() runtime.Object { return &appsv1.DeploymentList{} },
	Reducer: reduceDeployment, Trimmer: trimDeployment, Assessor: assessApp,
	Reads: slices.Concat(readsOfAll,
		under("metadata", "generation"),
		under("spec", "replicas", "paused", "strategy.rollingUpdate"),
		under("status", "availableReplicas", "observedGeneration", "replicas", "updatedReplicas"),
		under("status.conditions", readsOfCondition...), under("status.conditions", "lastUpdateTime"),
	),
}

func trimDeployment(obj runtime.Object) {
	if d, ok := obj.(*appsv1.Deployment); ok {
		d.ManagedFields, d.Annotations = nil, nil
		d.Spec = appsv1.DeploymentSpec{Replicas: d.Spec.Replicas, Paused: d.Spec.Paused, Strategy: d.Spec.Strategy}
	}
}

// reduceDeployment: it rolls out while the condition Progressing says so, or
// pods of an earlier version are there: the condition comes late in a roll
// back to a version whose ReplicaSet is still there, and not at all without a
// progress deadline. Without one, a roll-out ends with the last pod of an
// earlier version.
func reduceDeployment(obj runtime.Object) (*Object, error) {
	d, ok := obj.(*appsv1.Deployment)
	if !ok {
		return nil, fmt.Errorf("reduce Deployment: got %T", obj)
	}
	o, err := ReduceMeta("Deployment", d)
	if err != nil {
		return nil, err
	}
	for _, c := range d.Status.Conditions {
		since := c.LastTransitionTime
		if c.Type == appsv1.DeploymentProgressing && !c.LastUpdateTime.IsZero() {
			since = c.LastUpdateTime // it stays True from one roll-out to the next; only this says when it last progressed
		}
		o.keepApp(newCondition(string(c.Type), c.Status, c.Reason, c.Message, since))
	}
	progressing, _ := o.condition(string(appsv1.DeploymentProgressing))
	s := &d.Status
	o.Replicas = Replicas{
		Desired: wanted(d.Spec.Replicas), Available: s.AvailableReplicas,
		Min: minAvailable(d), Stale: s.ObservedGeneration < d.Generation, Paused: d.Spec.Paused,
		Rolling: rolls(progressing) || s.Replicas > s.UpdatedReplicas,
	}
	return o, nil
}

func rolls(progressing Condition) bool {
	return progressing.True && progressing.Reason != newReplicaSetAvailable
}

// minAvailable returns how many available replicas the Deployment's condition
// Available asks for, as the Deployment controller counts them.
func minAvailable(d *appsv1.Deployment) int32 {
	n := wanted(d.Spec.Replicas)
	r := d.Spec.Strategy.RollingUpdate
	if r == nil { // all are replaced at once, and all are to be there
		return n
	}
	zero := intstr.FromInt32(0)
	surge, errS := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(r.MaxSurge, zero), int(n), true)
	unavailable, errU := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(r.MaxUnavailable, zero), int(n), false)
	switch {
	case errS != nil || errU != nil:
		return 0 // not known
	case surge == 0 && unavailable == 0:
		unavailable = 1 // else no roll-out could begin
	}
	return max(0, n-int32(min(int64(unavailable), int64(n))))
}
