package simcluster

import (
	"cmp"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	defaultGrace        = 30 // seconds
	defaultBackoffLimit = 6
	quarter             = "25%" // of a Deployment's replicas may be missing, or too many, while it rolls out
)

// withDefaults fills in what the API server does, as far as someone reads it.
func withDefaults(obj runtime.Object) runtime.Object {
	switch o := obj.(type) {
	case *corev1.Pod:
		podDefaults(&o.Spec)
	case *batchv1.Job:
		if o.Spec.Completions == nil && o.Spec.Parallelism == nil {
			o.Spec.Completions = new(int32(1))
		}
		fill(&o.Spec.Parallelism, 1)
		fill(&o.Spec.BackoffLimit, defaultBackoffLimit)
		fill(&o.Spec.Suspend, false)
		podDefaults(&o.Spec.Template.Spec)
		selectPods(o)
	case *appsv1.Deployment:
		fill(&o.Spec.Replicas, 1)
		if o.Spec.Strategy.Type = cmp.Or(o.Spec.Strategy.Type, appsv1.RollingUpdateDeploymentStrategyType); o.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
			fill(&o.Spec.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
			fill(&o.Spec.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString(quarter))
			fill(&o.Spec.Strategy.RollingUpdate.MaxSurge, intstr.FromString(quarter))
		}
		podDefaults(&o.Spec.Template.Spec)
	case *appsv1.ReplicaSet:
		fill(&o.Spec.Replicas, 1)
		podDefaults(&o.Spec.Template.Spec)
	case *appsv1.StatefulSet:
		fill(&o.Spec.Replicas, 1)
		if o.Spec.UpdateStrategy.Type = cmp.Or(o.Spec.UpdateStrategy.Type, appsv1.RollingUpdateStatefulSetStrategyType); o.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType {
			fill(&o.Spec.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
			fill(&o.Spec.UpdateStrategy.RollingUpdate.Partition, 0)
		}
		podDefaults(&o.Spec.Template.Spec)
	case *appsv1.DaemonSet:
		o.Spec.UpdateStrategy.Type = cmp.Or(o.Spec.UpdateStrategy.Type, appsv1.RollingUpdateDaemonSetStrategyType)
		podDefaults(&o.Spec.Template.Spec)
	case *corev1.Namespace:
		o.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		o.Labels[corev1.LabelMetadataName] = o.Name
	}
	return obj
}

// selectPods gives a Job the selector of its pods, and its template the labels
// for it, which are the Job's own too when it has none. Its UID must be set.
func selectPods(j *batchv1.Job) {
	t := &j.Spec.Template
	if j.Spec.ManualSelector == nil || !*j.Spec.ManualSelector {
		t.Labels = maps.Clone(t.Labels)
		if t.Labels == nil {
			t.Labels = map[string]string{}
		}
		for _, prefix := range []string{"", "batch.kubernetes.io/"} {
			t.Labels[prefix+"controller-uid"], t.Labels[prefix+"job-name"] = string(j.UID), j.Name
		}
		j.Spec.Selector = metav1.SetAsLabelSelector(labels.Set{batchv1.ControllerUidLabel: string(j.UID)})
	}
	if len(j.Labels) == 0 {
		j.Labels = maps.Clone(t.Labels)
	}
}

func podDefaults(s *corev1.PodSpec) {
	if s.RestartPolicy == "" {
		s.RestartPolicy = corev1.RestartPolicyAlways
	}
	fill(&s.TerminationGracePeriodSeconds, defaultGrace)
}

func fill[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}
