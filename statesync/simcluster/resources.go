package simcluster

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Pods are the core group's.
func Pods() *Resource {
	return &Resource{
		Version: "v1", Plural: "pods", Kind: "Pod", Namespaced: true,
		New:     func() runtime.Object { return &corev1.Pod{} },
		NewList: func() runtime.Object { return &corev1.PodList{} },
	}
}

// Namespaces are the core group's.
func Namespaces() *Resource {
	return &Resource{
		Version: "v1", Plural: "namespaces", Kind: "Namespace",
		New:     func() runtime.Object { return &corev1.Namespace{} },
		NewList: func() runtime.Object { return &corev1.NamespaceList{} },
	}
}

// Jobs are of the group batch.
func Jobs() *Resource {
	return &Resource{
		Group: "batch", Version: "v1", Plural: "jobs", Kind: "Job", Namespaced: true,
		New:     func() runtime.Object { return &batchv1.Job{} },
		NewList: func() runtime.Object { return &batchv1.JobList{} },
	}
}

// Deployments are of the group apps.
func Deployments() *Resource {
	return &Resource{
		Group: "apps", Version: "v1", Plural: "deployments", Kind: "Deployment", Namespaced: true,
		New:     func() runtime.Object { return &appsv1.Deployment{} },
		NewList: func() runtime.Object { return &appsv1.DeploymentList{} },
	}
}

// ReplicaSets are of the group apps.
func ReplicaSets() *Resource {
	return &Resource{
		Group: "apps", Version: "v1", Plural: "replicasets", Kind: "ReplicaSet", Namespaced: true,
		New:     func() runtime.Object { return &appsv1.ReplicaSet{} },
		NewList: func() runtime.Object { return &appsv1.ReplicaSetList{} },
	}
}

// StatefulSets are of the group apps.
func StatefulSets() *Resource {
	return &Resource{
		Group: "apps", Version: "v1", Plural: "statefulsets", Kind: "StatefulSet", Namespaced: true,
		New:     func() runtime.Object { return &appsv1.StatefulSet{} },
		NewList: func() runtime.Object { return &appsv1.StatefulSetList{} },
	}
}

// DaemonSets are of the group apps.
func DaemonSets() *Resource {
	return &Resource{
		Group: "apps", Version: "v1", Plural: "daemonsets", Kind: "DaemonSet", Namespaced: true,
		New:     func() runtime.Object { return &appsv1.DaemonSet{} },
		NewList: func() runtime.Object { return &appsv1.DaemonSetList{} },
	}
}

// Custom is what a CustomResourceDefinition with a status subresource defines.
func Custom(group, version, plural, kind string, namespaced bool) *Resource {
	return &Resource{Group: group, Version: version, Plural: plural, Kind: kind, Namespaced: namespaced}
}

func (r *Resource) groupVersionKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
}

func (r *Resource) groupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: r.Group, Version: r.Version}
}

// custom reports whether the API server knows no type of it.
func (r *Resource) custom() bool { return r.New == nil }

// empty is an object without anything.
func (r *Resource) empty() runtime.Object {
	if r.custom() {
		return &unstructured.Unstructured{}
	}
	return r.New()
}
