package workload

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// statefulSetKind is the kind's entry in the table. Read-only.
var statefulSetKind = Kind{
	Name: "StatefulSet", Group: "apps", Version: "v1", Resource: "statefulsets", Collection: "statefulsets", Folds: true,
	Object:  func() runtime.Object { return &appsv1.StatefulSet{} },
	List:    func() runtime.Object { return &appsv1.StatefulSetList{} },
	Reducer: reduceStatefulSet, Trimmer: trimStatefulSet, Assessor: assessApp,
	Reads: slices.Concat(readsOfAll,
		under("metadata", "generation"),
		under("spec", "replicas", "updateStrategy.type", "updateStrategy.rollingUpdate.partition"),
		under("status", "availableReplicas", "observedGeneration", "currentRevision", "updateRevision", "currentReplicas"),
		under("status.conditions", readsOfCondition...),
	),
}

func trimStatefulSet(obj runtime.Object) {
	if d, ok := obj.(*appsv1.StatefulSet); ok {
		d.ManagedFields, d.Annotations = nil, nil
		d.Spec = appsv1.StatefulSetSpec{Replicas: d.Spec.Replicas, UpdateStrategy: d.Spec.UpdateStrategy}
	}
}

// reduceStatefulSet: it rolls out while its status has two revisions, which it
// has until every pod of the new one is ready. A partition holds pods at the
// old one: then it rolls out while more pods are of the old one than the
// partition holds. With the strategy OnDelete nobody rolls anything out.
func reduceStatefulSet(obj runtime.Object) (*Object, error) {
	d, ok := obj.(*appsv1.StatefulSet)
	if !ok {
		return nil, fmt.Errorf("reduce StatefulSet: got %T", obj)
	}
	o, err := ReduceMeta("StatefulSet", d)
	if err != nil {
		return nil, err
	}
	for _, c := range d.Status.Conditions {
		o.keepApp(newCondition(string(c.Type), c.Status, c.Reason, c.Message, c.LastTransitionTime))
	}
	var partition int32
	if r := d.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		partition = *r.Partition
	}
	s := &d.Status
	o.Replicas = Replicas{
		Desired: wanted(d.Spec.Replicas), Available: s.AvailableReplicas,
		Stale: s.ObservedGeneration < d.Generation,
		Rolling: d.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType &&
			s.CurrentRevision != s.UpdateRevision && (partition == 0 || s.CurrentReplicas > partition),
	}
	return o, nil
}
