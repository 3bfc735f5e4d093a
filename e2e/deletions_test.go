package e2e

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deletions are what kubectl delete does, with each value of --cascade.
func deletions() []scenario {
	return []scenario{
		{"deployment-deleted-foreground", func(w *world) { deploymentDeleted(w, metav1.DeletePropagationForeground) }},
		{"deployment-deleted-background", func(w *world) { deploymentDeleted(w, metav1.DeletePropagationBackground) }},
		{"deployment-leaving", deploymentLeaving},
		{"deployment-orphans", deploymentOrphans},
		{"statefulset-orphans", statefulSetOrphans},
		{"job-deleted-foreground", func(w *world) { jobDeleted(w, metav1.DeletePropagationForeground) }},
		{"job-deleted-background", func(w *world) { jobDeleted(w, metav1.DeletePropagationBackground) }},
		{"job-orphans", jobOrphans},
		{"job-deleted-queued", jobDeletedQueued},
		{"job-deleted-failing", jobDeletedFailing},
		{"job-deleted-succeeding", jobDeletedSucceeding},
		{"pod-deleted", podDeleted},
	}
}

func deploymentDeleted(w *world, policy metav1.DeletionPropagation) {
	d := w.deployment("web", 1, nil, "shutdown=500ms")
	w.rolledOut(d)
	w.removeBy(policy, env.client.AppsV1().Deployments(w.ns), "web")
	w.tells("Deployment", d, "Queued>Running>Deleted(Deleted)")
}

// deploymentLeaving loses its replicas one by one while a finalizer holds it:
// of what is to be deleted, nothing but the end is told.
func deploymentLeaving(w *world) {
	api := env.client.AppsV1().Deployments(w.ns)
	held := func(by ...string) map[string]any { return map[string]any{"metadata": map[string]any{"finalizers": by}} }
	d := w.deployment("web", 2, nil, "ready=never")
	pods := w.pods("web", 2, "running", podRunning)
	w.ready(pods[0])
	w.available(d, 1)
	w.ready(pods[1])
	w.rolledOut(d)
	patch(w, api, "web", held("e2e.example.com/hold"))
	w.remove(api, "web")
	for i, p := range pods {
		w.annotate(p.Name, map[string]any{"run": "0s", "exit": "1", "ready": "never"})
		w.available(d, int32(1-i))
	}
	patch(w, api, "web", held())
	w.tells("Deployment", d, "Queued>Running(RollingOut)>Running>Deleted(Deleted)")
}

// deploymentOrphans leaves a ReplicaSet behind, and that one a pod: each tells
// its own story from when it is on its own.
func deploymentOrphans(w *world) {
	d := w.deployment("web", 1, nil)
	w.rolledOut(d)
	deployments, sets, pods := env.client.AppsV1().Deployments(w.ns), env.client.AppsV1().ReplicaSets(w.ns), env.client.CoreV1().Pods(w.ns)
	w.removeBy(metav1.DeletePropagationOrphan, deployments, "web")
	gone(w, deployments, "web")
	list, err := sets.List(w.ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		w.Fatalf("%d ReplicaSets are left (%v), want 1", len(list.Items), err)
	}
	set := &list.Items[0]
	w.removeBy(metav1.DeletePropagationOrphan, sets, set.Name)
	gone(w, sets, set.Name)
	pod := w.orphan("web")
	w.remove(pods, pod.Name)
	w.tells("Deployment", d, "Queued>Running>Deleted(Deleted)")
	w.tells("ReplicaSet", set, "Queued>Running>Deleted(Deleted)")
	w.tells("Pod", pod, "Queued>Running>Cancelled(Deleted)")
}

// orphan waits until the one pod of the app runs and has no owner.
func (w *world) orphan(app string) *corev1.Pod {
	w.Helper()
	return &w.pods(app, 1, "running without an owner", func(p *corev1.Pod) bool {
		return podRunning(p) && len(p.OwnerReferences) == 0
	})[0]
}

func statefulSetOrphans(w *world) {
	s := w.statefulSet(1)
	w.settled(s)
	sets := env.client.AppsV1().StatefulSets(w.ns)
	w.removeBy(metav1.DeletePropagationOrphan, sets, "db")
	gone(w, sets, "db")
	pod := w.orphan("db")
	w.remove(env.client.CoreV1().Pods(w.ns), pod.Name)
	w.tells("StatefulSet", s, "Queued>Running>Deleted(Deleted)")
	w.tells("Pod", pod, "Queued>Running>Cancelled(Deleted)")
}

func jobDeleted(w *world, policy metav1.DeletionPropagation) {
	j := w.job("work", nil, "shutdown=500ms")
	w.pods("work", 1, "running", podRunning)
	w.removeBy(policy, env.client.BatchV1().Jobs(w.ns), "work")
	w.tells("Job", j, "Queued>Running>Cancelled(Deleted)")
}

func jobOrphans(w *world) {
	j := w.job("work", nil)
	w.pods("work", 1, "running", podRunning)
	jobs := env.client.BatchV1().Jobs(w.ns)
	w.removeBy(metav1.DeletePropagationOrphan, jobs, "work")
	gone(w, jobs, "work")
	pod := w.orphan("work")
	w.exit(pod.Name, 0)
	w.pods("work", 1, "over", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	w.remove(env.client.CoreV1().Pods(w.ns), pod.Name)
	w.tells("Job", j, "Queued>Running>Cancelled(Deleted)")
	w.tells("Pod", pod, "Queued>Running>Succeeded(Completed)")
}

func jobDeletedQueued(w *world) {
	j := w.job("work", func(s *batchv1.JobSpec) { s.Template.Spec.NodeSelector = map[string]string{"e2e/nowhere": "yes"} })
	w.pods("work", 1, "unschedulable", unschedulable)
	w.remove(env.client.BatchV1().Jobs(w.ns), "work")
	w.tells("Job", j, "Queued>Cancelled(Deleted)")
}

// A Job that has an outcome, but whose pods have not ended yet, keeps it.

func jobDeletedFailing(w *world) {
	j := w.job("work", func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = new(int64(2)) }, "shutdown=3s")
	w.pods("work", 1, "running", podRunning)
	w.jobIs("work", batchv1.JobFailureTarget)
	w.remove(env.client.BatchV1().Jobs(w.ns), "work")
	w.tells("Job", j, "Queued>Running>Failed(DeadlineExceeded)")
}

func jobDeletedSucceeding(w *world) {
	j := w.job("parts", func(s *batchv1.JobSpec) {
		indexed(s, 2)
		s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: new("0")}}}
	}, "shutdown=3s")
	w.exit(w.indexes("parts", 2)[0], 0)
	w.jobIs("parts", batchv1.JobSuccessCriteriaMet)
	w.remove(env.client.BatchV1().Jobs(w.ns), "parts")
	w.tells("Job", j, "Queued>Running>Succeeded(SuccessPolicy)")
}

func podDeleted(w *world) {
	p := w.bare("work", nil)
	w.pods("work", 1, "running", podRunning)
	w.remove(env.client.CoreV1().Pods(w.ns), "work")
	w.tells("Pod", p, "Queued>Running>Cancelled(Deleted)")
}
