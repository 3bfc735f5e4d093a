package e2e

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// webApps are the lives of Deployments, StatefulSets, DaemonSets and
// ReplicaSets.
func webApps() []scenario {
	return []scenario{
		{"deployment-rollout", deploymentRollout},
		{"deployment-failed-rollout", deploymentFailedRollout},
		{"deployment-never-available", deploymentNeverAvailable},
		{"deployment-scaled", deploymentScaled},
		{"deployment-lost", deploymentLost},
		{"deployment-paused", deploymentPaused},
		{"deployment-short", deploymentShort},
		{"deployment-recreate", deploymentRecreate},
		{"deployment-failed-create", deploymentFailedCreate},
		{"statefulset-rollout", statefulSetRollout},
		{"statefulset-scaled", statefulSetScaled},
		{"statefulset-lost", statefulSetLost},
		{"daemonset-rollout", daemonSetRollout},
		{"daemonset-nowhere", daemonSetNowhere},
		{"replicaset-bare", replicaSetBare},
		{"replicaset-failed-create", replicaSetFailedCreate},
	}
}

func deploymentRollout(w *world) {
	api := env.client.AppsV1().Deployments(w.ns)
	d := w.deployment("web", 3, nil, "ready=never")
	pods := w.pods("web", 3, "running", podRunning)
	w.ready(pods[0])
	w.available(d, 1)
	w.ready(pods[1:]...)
	w.rolledOut(d)
	w.rolledOut(patch(w, api, "web", running("work:2", map[string]any{"ready": "300ms"})))
	w.remove(api, "web")
	w.tells("Deployment", d, "Queued>Running(RollingOut)>Running>Running(RollingOut)>Running>Deleted(Deleted)")
}

func deploymentFailedRollout(w *world) {
	api := env.client.AppsV1().Deployments(w.ns)
	d := w.deployment("web", 1, nil)
	w.rolledOut(d)
	d = patch(w, api, "web", running("work:missing", map[string]any{"end": "ErrImagePull"}))
	until(w, api, "web", "waiting for a new replica", func(now *appsv1.Deployment) bool {
		return now.Status.ObservedGeneration >= d.Generation && now.Status.Replicas == 2 && now.Status.UpdatedReplicas == 1
	})
	w.overdue("web")
	w.rolledOut(patch(w, api, "web", running("work:1", map[string]any{"end": nil})))
	w.remove(api, "web")
	w.tells("Deployment", d, "Queued>Running>Running(RollingOut)>Running(ProgressDeadlineExceeded)>Running>Deleted(Deleted)")
}

func deploymentNeverAvailable(w *world) {
	d := w.deployment("web", 1, nil, "ready=never")
	pods := w.pods("web", 1, "running", podRunning)
	until(w, env.client.AppsV1().Deployments(w.ns), "web", "waiting for a replica", func(now *appsv1.Deployment) bool {
		return now.Status.UpdatedReplicas == 1
	})
	w.overdue("web")
	w.ready(pods...)
	w.rolledOut(d)
	w.remove(env.client.AppsV1().Deployments(w.ns), "web")
	w.tells("Deployment", d, "Queued>Queued(ProgressDeadlineExceeded)>Running>Deleted(Deleted)")
}

// overdue gives the Deployment a short deadline, and waits until it has
// passed. It is given late, when nothing of the roll-out is to come any more:
// where everything is slow, that would otherwise be progress after all.
func (w *world) overdue(name string) {
	w.Helper()
	api := env.client.AppsV1().Deployments(w.ns)
	now := patch(w, api, name, spec(map[string]any{"progressDeadlineSeconds": 1}))
	until(w, api, name, "overdue", func(d *appsv1.Deployment) bool {
		return d.Status.ObservedGeneration >= now.Generation && progressing(d) == "ProgressDeadlineExceeded"
	})
}

func deploymentScaled(w *world) {
	api := env.client.AppsV1().Deployments(w.ns)
	d := w.deployment("web", 1, nil)
	w.rolledOut(d)
	w.rolledOut(patch(w, api, "web", spec(map[string]any{"replicas": 0})))
	w.rolledOut(patch(w, api, "web", spec(map[string]any{"replicas": 1})))
	w.remove(api, "web")
	w.tells("Deployment", d, "Queued>Running>Queued(ScaledToZero)>Queued>Running>Deleted(Deleted)")
}

func deploymentLost(w *world) {
	d := w.deployment("web", 1, nil)
	w.rolledOut(d)
	w.lose(w.pods("web", 1, "ready", podReady)[0].Name, func() { w.available(d, 0) })
	w.rolledOut(d)
	w.remove(env.client.AppsV1().Deployments(w.ns), "web")
	w.tells("Deployment", d, "Queued>Running>Queued>Running>Deleted(Deleted)")
}

// lose lets a pod of a web app crash, and recover once that is seen.
func (w *world) lose(pod string, seen func()) {
	w.Helper()
	w.annotate(pod, map[string]any{"run": "0s", "exit": "1", "ready": "never"})
	seen()
	w.annotate(pod, map[string]any{"run": nil, "exit": nil, "ready": "0s"})
}

func deploymentPaused(w *world) {
	api := env.client.AppsV1().Deployments(w.ns)
	d := w.deployment("web", 1, func(s *appsv1.DeploymentSpec) { s.Paused = true })
	seen := func(now *appsv1.Deployment) bool {
		return now.Status.ObservedGeneration >= d.Generation && progressing(now) == "DeploymentPaused"
	}
	until(w, api, "web", "seen to be paused", seen)
	w.rolledOut(patch(w, api, "web", spec(map[string]any{"paused": false})))
	d = patch(w, api, "web", spec(map[string]any{"paused": true}))
	until(w, api, "web", "seen to be paused", seen)
	d = patch(w, api, "web", running("work:2", nil))
	until(w, api, "web", "seen to be paused", seen)
	w.rolledOut(patch(w, api, "web", spec(map[string]any{"paused": false})))
	w.remove(api, "web")
	w.tells("Deployment", d, "Queued(Paused)>Queued>Running>Running(Paused)>Running(RollingOut)>Running>Deleted(Deleted)")
}

// deploymentShort has one replica, then two of which one is not available:
// first a new one, then one that crashed.
func deploymentShort(w *world) {
	api := env.client.AppsV1().Deployments(w.ns)
	d := w.deployment("web", 1, nil, "ready=never")
	w.ready(w.pods("web", 1, "running", podRunning)...)
	w.rolledOut(d)
	d = patch(w, api, "web", spec(map[string]any{"replicas": 2}))
	short := func() {
		until(w, api, "web", "short of a replica", func(now *appsv1.Deployment) bool {
			return now.Status.ObservedGeneration >= d.Generation && now.Status.AvailableReplicas == 1 && now.Status.Replicas == 2
		})
	}
	short()
	w.ready(w.pods("web", 1, "running, but not ready", func(p *corev1.Pod) bool { return podRunning(p) && !podReady(p) })...)
	w.rolledOut(d)
	w.lose(w.pods("web", 2, "ready", podReady)[0].Name, short)
	w.rolledOut(d)
	w.remove(api, "web")
	w.tells("Deployment", d, "Queued>Running>Running(MinimumReplicasUnavailable)>Running>Running(MinimumReplicasUnavailable)>Running>Deleted(Deleted)")
}

// deploymentRecreate takes the old version away before the new one comes.
func deploymentRecreate(w *world) {
	api := env.client.AppsV1().Deployments(w.ns)
	d := w.deployment("web", 1, func(s *appsv1.DeploymentSpec) { s.Strategy.Type = appsv1.RecreateDeploymentStrategyType })
	w.rolledOut(d)
	w.rolledOut(patch(w, api, "web", running("work:2", map[string]any{"ready": "300ms"})))
	w.remove(api, "web")
	w.tells("Deployment", d, "Queued>Running>Running(RollingOut)>Queued>Running>Deleted(Deleted)")
}

// account makes the service account of the web apps, and unmake takes it away:
// without it, no pod can be created.
func (w *world) account() (unmake func()) {
	w.Helper()
	api := env.client.CoreV1().ServiceAccounts(w.ns)
	create(w, api, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}})
	return func() { w.remove(api, "robot") }
}

func asRobot(s *corev1.PodSpec) { s.ServiceAccountName = "robot" }

func deploymentFailedCreate(w *world) {
	api := env.client.AppsV1().Deployments(w.ns)
	one := intstr.FromInt32(1)
	d := w.deployment("web", 1, func(s *appsv1.DeploymentSpec) {
		asRobot(&s.Template.Spec)
		// So that one replica of two is enough: else that is a reason, too.
		s.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxUnavailable: &one}
	}, "ready=300ms")
	failed := func(replicas int32) func(*appsv1.Deployment) bool {
		return func(d *appsv1.Deployment) bool {
			return d.Status.Replicas == replicas && slices.ContainsFunc(d.Status.Conditions, func(c appsv1.DeploymentCondition) bool {
				return c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue
			})
		}
	}
	until(w, api, "web", "without a pod", failed(0))
	unmake := w.account()
	w.rolledOut(d)
	unmake()
	d = patch(w, api, "web", spec(map[string]any{"replicas": 2}))
	until(w, api, "web", "without a second pod", failed(1))
	unmake = w.account()
	w.rolledOut(d)
	w.remove(api, "web")
	unmake()
	w.tells("Deployment", d, "Queued>Queued(FailedCreate)>Queued>Running>Running(FailedCreate)>Running>Deleted(Deleted)")
}

func (w *world) statefulSet(replicas int32, annotations ...string) *appsv1.StatefulSet {
	w.Helper()
	s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}}
	s.Spec.Replicas, s.Spec.Selector = &replicas, metav1.SetAsLabelSelector(labels.Set{"app": "db"})
	s.Spec.Template = template("db", corev1.RestartPolicyAlways, annotations...)
	return create(w, env.client.AppsV1().StatefulSets(w.ns), s)
}

func (w *world) statefulSetIs(s *appsv1.StatefulSet, what string, ok func(*appsv1.StatefulSet) bool) {
	w.Helper()
	until(w, env.client.AppsV1().StatefulSets(w.ns), s.Name, what, func(now *appsv1.StatefulSet) bool {
		return now.Status.ObservedGeneration >= s.Generation && ok(now)
	})
}

// settled waits until all replicas are new and available, and the rest gone.
func (w *world) settled(s *appsv1.StatefulSet) {
	w.Helper()
	w.statefulSetIs(s, "settled", func(now *appsv1.StatefulSet) bool {
		n, s := *now.Spec.Replicas, now.Status
		return s.Replicas == n && s.AvailableReplicas == n && s.CurrentRevision == s.UpdateRevision
	})
}

func statefulSetRollout(w *world) {
	api := env.client.AppsV1().StatefulSets(w.ns)
	s := w.statefulSet(2, "ready=300ms")
	w.settled(s)
	w.settled(patch(w, api, "db", running("work:2", nil)))
	w.remove(api, "db")
	w.tells("StatefulSet", s, "Queued>Running>Running(RollingOut)>Running>Deleted(Deleted)")
}

func statefulSetScaled(w *world) {
	api := env.client.AppsV1().StatefulSets(w.ns)
	s := w.statefulSet(1)
	w.settled(s)
	w.settled(patch(w, api, "db", spec(map[string]any{"replicas": 0})))
	w.settled(patch(w, api, "db", spec(map[string]any{"replicas": 1})))
	w.remove(api, "db")
	w.tells("StatefulSet", s, "Queued>Running>Queued(ScaledToZero)>Queued>Running>Deleted(Deleted)")
}

func statefulSetLost(w *world) {
	s := w.statefulSet(1)
	w.settled(s)
	w.lose("db-0", func() {
		w.statefulSetIs(s, "without replicas", func(now *appsv1.StatefulSet) bool { return now.Status.AvailableReplicas == 0 })
	})
	w.settled(s)
	w.remove(env.client.AppsV1().StatefulSets(w.ns), "db")
	w.tells("StatefulSet", s, "Queued>Running>Queued>Running>Deleted(Deleted)")
}

func (w *world) daemonSet(nodes map[string]string, annotations ...string) *appsv1.DaemonSet {
	w.Helper()
	d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "daemon"}}
	d.Spec.Selector = metav1.SetAsLabelSelector(labels.Set{"app": "daemon"})
	d.Spec.Template = template("daemon", corev1.RestartPolicyAlways, annotations...)
	d.Spec.Template.Spec.NodeSelector = nodes
	return create(w, env.client.AppsV1().DaemonSets(w.ns), d)
}

// onNodes waits until the DaemonSet is wanted on n nodes, available on some of
// them and up to date on all of them.
func (w *world) onNodes(d *appsv1.DaemonSet, n, available int32) {
	w.Helper()
	until(w, env.client.AppsV1().DaemonSets(w.ns), d.Name, "on its nodes", func(now *appsv1.DaemonSet) bool {
		s := now.Status
		return s.ObservedGeneration >= d.Generation && s.DesiredNumberScheduled == n && s.CurrentNumberScheduled == n &&
			s.UpdatedNumberScheduled == n && s.NumberAvailable == available
	})
}

func daemonSetRollout(w *world) {
	api := env.client.AppsV1().DaemonSets(w.ns)
	d := w.daemonSet(nil, "ready=never")
	pods := w.pods("daemon", 3, "running", podRunning)
	w.ready(pods[0])
	w.onNodes(d, 3, 1)
	w.ready(pods[1:]...)
	w.onNodes(d, 3, 3)
	w.onNodes(patch(w, api, "daemon", running("work:2", map[string]any{"ready": "200ms"})), 3, 3)
	w.remove(api, "daemon")
	w.tells("DaemonSet", d, "Queued>Running>Running(RollingOut)>Running>Deleted(Deleted)")
}

func daemonSetNowhere(w *world) {
	api := env.client.AppsV1().DaemonSets(w.ns)
	d := w.daemonSet(map[string]string{"e2e/nowhere": "yes"})
	w.onNodes(d, 0, 0)
	select_ := func(nodes map[string]any) map[string]any {
		return spec(map[string]any{"template": map[string]any{"spec": map[string]any{"nodeSelector": nodes}}})
	}
	w.onNodes(patch(w, api, "daemon", select_(map[string]any{"e2e/nowhere": nil, "kubernetes.io/hostname": "node-0"})), 1, 1)
	w.onNodes(patch(w, api, "daemon", select_(map[string]any{"e2e/nowhere": "yes", "kubernetes.io/hostname": nil})), 0, 0)
	w.remove(api, "daemon")
	w.tells("DaemonSet", d, "Queued>Queued(NoNodes)>Queued>Running>Queued(NoNodes)>Deleted(Deleted)")
}

func (w *world) replicaSet(edit func(*corev1.PodSpec)) *appsv1.ReplicaSet {
	w.Helper()
	r := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "set"}}
	r.Spec.Selector = metav1.SetAsLabelSelector(labels.Set{"app": "set"})
	r.Spec.Template = template("set", corev1.RestartPolicyAlways)
	if edit != nil {
		edit(&r.Spec.Template.Spec)
	}
	return create(w, env.client.AppsV1().ReplicaSets(w.ns), r)
}

// replicated waits until the ReplicaSet has what it is to have, and that many
// of them are available.
func (w *world) replicated(r *appsv1.ReplicaSet, available int32) {
	w.Helper()
	until(w, env.client.AppsV1().ReplicaSets(w.ns), r.Name, "replicated", func(now *appsv1.ReplicaSet) bool {
		s := now.Status
		return s.ObservedGeneration >= r.Generation && s.Replicas == *now.Spec.Replicas && s.AvailableReplicas == available
	})
}

func replicaSetBare(w *world) {
	api := env.client.AppsV1().ReplicaSets(w.ns)
	r := w.replicaSet(nil)
	w.replicated(r, 1)
	w.lose(w.pods("set", 1, "ready", podReady)[0].Name, func() { w.replicated(r, 0) })
	w.replicated(r, 1)
	w.replicated(patch(w, api, "set", spec(map[string]any{"replicas": 0})), 0)
	w.replicated(patch(w, api, "set", spec(map[string]any{"replicas": 1})), 1)
	w.remove(api, "set")
	w.tells("ReplicaSet", r, "Queued>Running>Queued>Running>Queued(ScaledToZero)>Queued>Running>Deleted(Deleted)")
}

func replicaSetFailedCreate(w *world) {
	api := env.client.AppsV1().ReplicaSets(w.ns)
	r := w.replicaSet(asRobot)
	until(w, api, "set", "without a pod", func(r *appsv1.ReplicaSet) bool {
		return len(r.Status.Conditions) == 1 && r.Status.Conditions[0].Type == appsv1.ReplicaSetReplicaFailure
	})
	unmake := w.account()
	w.replicated(r, 1)
	w.remove(api, "set")
	unmake()
	w.tells("ReplicaSet", r, "Queued>Queued(FailedCreate)>Queued>Running>Deleted(Deleted)")
}
