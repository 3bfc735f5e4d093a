package workload

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// daemonSetKind is the kind's entry in the table. Read-only.
var daemonSetKind = Kind{
	Name: "DaemonSet", Group: "apps", Version: "v1", Resource: "daemonsets", Collection: "daemonsets", Folds: true,
	Object:  func() runtime.Object { return &appsv1.DaemonSet{} },
	List:    func() runtime.Object { return &appsv1.DaemonSetList{} },
	Reducer: reduceDaemonSet, Trimmer: trimDaemonSet, Assessor: assessApp,
	Reads: slices.Concat(readsOfAll,
		under("metadata", "generation"),
		under("spec", "updateStrategy.type"),
		under("status", "desiredNumberScheduled", "numberAvailable", "observedGeneration", "updatedNumberScheduled", "currentNumberScheduled"),
		under("status.conditions", readsOfCondition...),
	),
}

func trimDaemonSet(obj runtime.Object) {
	if d, ok := obj.(*appsv1.DaemonSet); ok {
		d.ManagedFields, d.Annotations = nil, nil
		d.Spec = appsv1.DaemonSetSpec{UpdateStrategy: d.Spec.UpdateStrategy}
	}
}

// reduceDaemonSet: it rolls out while a node that is to run it has a pod of an
// earlier version. A node that joins has none yet, and is no roll-out.
func reduceDaemonSet(obj runtime.Object) (*Object, error) {
	d, ok := obj.(*appsv1.DaemonSet)
	if !ok {
		return nil, fmt.Errorf("reduce DaemonSet: got %T", obj)
	}
	o, err := ReduceMeta("DaemonSet", d)
	if err != nil {
		return nil, err
	}
	for _, c := range d.Status.Conditions {
		o.keepApp(newCondition(string(c.Type), c.Status, c.Reason, c.Message, c.LastTransitionTime))
	}
	s := &d.Status
	o.Replicas = Replicas{
		Desired: s.DesiredNumberScheduled, Available: s.NumberAvailable,
		Stale:   s.ObservedGeneration < d.Generation,
		Rolling: d.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType && s.UpdatedNumberScheduled < s.CurrentNumberScheduled,
	}
	return o, nil
}
