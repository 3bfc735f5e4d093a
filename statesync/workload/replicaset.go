package workload

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// replicaSetKind is the kind's entry in the table. Read-only.
var replicaSetKind = Kind{
	Name: "ReplicaSet", Group: "apps", Version: "v1", Resource: "replicasets", Collection: "replicasets", Folds: true,
	Object:  func() runtime.Object { return &appsv1.ReplicaSet{} },
	List:    func() runtime.Object { return &appsv1.ReplicaSetList{} },
	Reducer: reduceReplicaSet, Trimmer: trimReplicaSet, Assessor: assessApp,
	Reads: slices.Concat(readsOfAll,
		under("metadata", "generation"),
		under("spec", "replicas"),
		under("status", "availableReplicas", "observedGeneration"),
		under("status.conditions", readsOfCondition...),
	),
}

func trimReplicaSet(obj runtime.Object) {
	if d, ok := obj.(*appsv1.ReplicaSet); ok {
		d.ManagedFields, d.Annotations = nil, nil
		d.Spec = appsv1.ReplicaSetSpec{Replicas: d.Spec.Replicas}
	}
}

// reduceReplicaSet: it never rolls out. Pods keep the template they were made
// from.
func reduceReplicaSet(obj runtime.Object) (*Object, error) {
	d, ok := obj.(*appsv1.ReplicaSet)
	if !ok {
		return nil, fmt.Errorf("reduce ReplicaSet: got %T", obj)
	}
	o, err := ReduceMeta("ReplicaSet", d)
	if err != nil {
		return nil, err
	}
	for _, c := range d.Status.Conditions {
		o.keepApp(newCondition(string(c.Type), c.Status, c.Reason, c.Message, c.LastTransitionTime))
	}
	o.Replicas = Replicas{
		Desired: wanted(d.Spec.Replicas), Available: d.Status.AvailableReplicas,
		Stale: d.Status.ObservedGeneration < d.Generation,
	}
	return o, nil
}
