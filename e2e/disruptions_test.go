package e2e

import (
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// disruptions are what the cluster itself does to a pod.
func disruptions() []scenario {
	return []scenario{
		{"pod-evicted", podEvicted},
		{"pod-evicted-by-kubelet", podEvictedByKubelet},
		{"pod-preempted", podPreempted},
		{"pod-tainted", podTainted},
		{"job-pod-evicted", jobPodEvicted},
		{"job-pod-evicted-ignored", jobPodEvictedIgnored},
		{"job-pod-out-of-memory", jobPodOutOfMemory},
	}
}

// evict asks for it as kubectl drain does.
func (w *world) evict(pod string) {
	w.Helper()
	if err := env.client.CoreV1().Pods(w.ns).EvictV1(w.ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod}}); err != nil {
		w.Fatalf("evict %s: %v", pod, err)
	}
}

func podEvicted(w *world) {
	p := w.bare("work", nil)
	w.pods("work", 1, "running", podRunning)
	w.evict("work")
	w.tells("Pod", p, "Queued>Running>Failed(Evicted)")
}

func podEvictedByKubelet(w *world) {
	p := w.bare("work", nil, "run=300ms", "end=Evicted")
	w.pods("work", 1, "evicted", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	w.remove(env.client.CoreV1().Pods(w.ns), "work")
	w.tells("Pod", p, "Queued>Running>Failed(Evicted)")
}

// most is more than half of a node of the stand-in kubelet.
func most(priority string) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		s.PriorityClassName, s.NodeSelector = priority, map[string]string{"kubernetes.io/hostname": "node-1"}
		s.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("6000")}
	}
}

func podPreempted(w *world) {
	pods := env.client.CoreV1().Pods(w.ns)
	for name, value := range map[string]int32{"e2e-low": 10, "e2e-high": 1000} {
		class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}
		_, err := env.client.SchedulingV1().PriorityClasses().Create(w.ctx, class, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) { // by a run before
			w.Fatal(err)
		}
	}
	low := w.bare("low", most("e2e-low"))
	w.pods("low", 1, "running", podRunning)
	high := w.bare("high", most("e2e-high"))
	gone(w, pods, "low")
	w.exit(w.pods("high", 1, "running", podRunning)[0].Name, 0)
	w.pods("high", 1, "over", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	w.remove(pods, "high")
	w.tells("Pod", low, "Queued>Running>Failed(Preempted)")
	w.tells("Pod", high, "Queued>Queued(Unschedulable)>Queued>Running>Succeeded(Completed)")
}

// podTainted is on a node of its own, because a taint that evicts would evict
// the pods of all other scenarios too. No kubelet is there: the scenario plays
// its part.
func podTainted(w *world) {
	pods, nodes := env.client.CoreV1().Pods(w.ns), env.client.CoreV1().Nodes()
	name := w.ns
	ours := corev1.Taint{Key: "e2e/alone", Value: "yes", Effect: corev1.TaintEffectNoSchedule}
	create(w, nodes, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{ours}},
	})
	defer w.remove(nodes, name)
	heartbeat := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339))
	if _, err := nodes.PatchStatus(w.ctx, name, []byte(heartbeat)); err != nil {
		w.Fatal(err)
	}
	p := w.bare("work", func(s *corev1.PodSpec) {
		s.NodeName = name
		s.Tolerations = []corev1.Toleration{{Key: ours.Key, Operator: corev1.TolerationOpExists, Effect: ours.Effect}}
	})
	began := metav1.Now()
	p.Status.Phase, p.Status.StartTime = corev1.PodRunning, &began
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "main", Image: "work:1", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}},
	}}
	if _, err := pods.UpdateStatus(w.ctx, p, metav1.UpdateOptions{}); err != nil {
		w.Fatal(err)
	}
	ours.Effect = corev1.TaintEffectNoExecute
	patch(w, nodes, name, spec(map[string]any{"taints": []corev1.Taint{ours}}))
	until(w, pods, "work", "told to go", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	if err := pods.Delete(w.ctx, "work", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
		w.Fatal(err)
	}
	w.tells("Pod", p, "Queued>Running>Failed(Evicted)")
}

func jobPodEvicted(w *world) {
	j := w.job("work", func(s *batchv1.JobSpec) { s.BackoffLimit = new(int32(0)) })
	w.evict(w.pods("work", 1, "running", podRunning)[0].Name)
	w.jobIs("work", batchv1.JobFailed)
	w.remove(env.client.BatchV1().Jobs(w.ns), "work")
	w.tells("Job", j, "Queued>Running>Failed(BackoffLimitExceeded)")
	w.exits(j, 143)
}

// jobPodEvictedIgnored does not count the eviction as an attempt.
func jobPodEvictedIgnored(w *world) {
	j := w.job("work", func(s *batchv1.JobSpec) {
		s.BackoffLimit = new(int32(0))
		s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
			Action:          batchv1.PodFailurePolicyActionIgnore,
			OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}},
		}}}
	})
	evicted := w.pods("work", 1, "running", podRunning)[0]
	w.evict(evicted.Name)
	next := w.pods("work", 1, "running", func(p *corev1.Pod) bool { return podRunning(p) && p.UID != evicted.UID })
	w.exit(next[0].Name, 0)
	w.jobIs("work", batchv1.JobComplete)
	w.remove(env.client.BatchV1().Jobs(w.ns), "work")
	w.tells("Job", j, "Queued>Running>Succeeded(CompletionsReached)")
}

func jobPodOutOfMemory(w *world) {
	j := w.job("work", func(s *batchv1.JobSpec) { s.BackoffLimit = new(int32(0)) }, "run=300ms", "end=OOMKilled")
	w.jobIs("work", batchv1.JobFailed)
	w.remove(env.client.BatchV1().Jobs(w.ns), "work")
	w.tells("Job", j, "Queued>Running>Failed(BackoffLimitExceeded)")
	w.exits(j, 137)
}
