package scenario

import (
	"fmt"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/outrider-agent/outrider/statesync/simcluster"
)

const (
	hashLabel = appsv1.DefaultDeploymentUniqueLabelKey
	oldSets   = 2 // ReplicaSets of earlier versions that are kept
)

// An app is a web app: a Deployment with its ReplicaSets, the present one last.
type app struct {
	deployment *deploymentVersion
	sets       []*setVersion
	revision   int
}

func (a *app) now() *setVersion { return a.sets[len(a.sets)-1] }

// A deploymentVersion is a Deployment as it was for a while. It does not change.
type deploymentVersion struct {
	*entity
	generation, observed                int32
	wanted, replicas, updated, ready    int32
	tag                                 int32 // of its image
	set                                 string
	progress                            string // the reason of its condition Progressing
	progressAt, availableAt, progressed int64
}

// Object implements [simcluster.Source].
func (v *deploymentVersion) Object() runtime.Object {
	d := new(*v.look.object.(*appsv1.Deployment)) // what it points to is shared
	v.stamp(&d.ObjectMeta)
	d.Generation = int64(v.generation)
	d.Spec.Replicas = new(v.wanted)
	d.Spec.Template.Spec.PriorityClassName = fmt.Sprintf("release-%d", v.tag) // what a roll-out changes
	if v.observed == 0 {
		return d
	}
	st := &d.Status
	st.ObservedGeneration = int64(v.observed)
	st.Replicas, st.UpdatedReplicas, st.ReadyReplicas, st.AvailableReplicas = v.replicas, v.updated, v.ready, v.ready
	st.UnavailableReplicas, st.TerminatingReplicas = max(0, v.wanted-v.ready), new(int32(0))
	available, reason, message := corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability."
	if v.ready < v.wanted-v.wanted/4 {
		available, reason, message = corev1.ConditionFalse, "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
	}
	st.Conditions = []appsv1.DeploymentCondition{
		{Type: appsv1.DeploymentAvailable, Status: available, Reason: reason, Message: message, LastUpdateTime: at(v.availableAt), LastTransitionTime: at(v.availableAt)},
		{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: v.progress, Message: says(v.progress, v.set), LastUpdateTime: at(v.progressAt), LastTransitionTime: at(v.progressed)},
	}
	return d
}

// says is the message of the condition Progressing.
func says(progress, set string) string {
	switch progress {
	case "NewReplicaSetCreated":
		return fmt.Sprintf("Created new replica set %q", set)
	case "ReplicaSetUpdated":
		return fmt.Sprintf("ReplicaSet %q is progressing.", set)
	}
	return fmt.Sprintf("ReplicaSet %q has successfully progressed.", set)
}

// A setVersion is a ReplicaSet as it was for a while. It does not change.
type setVersion struct {
	*entity
	generation, observed    int32
	wanted, replicas, ready int32
	tag                     int32
}

// Object implements [simcluster.Source].
func (v *setVersion) Object() runtime.Object {
	r := new(*v.look.object.(*appsv1.ReplicaSet)) // what it points to is shared
	v.stamp(&r.ObjectMeta)
	r.GenerateName = "" // named after the hash of its template
	r.Generation = int64(v.generation)
	r.Annotations = map[string]string{"deployment.kubernetes.io/revision": fmt.Sprint(v.tag), "deployment.kubernetes.io/desired-replicas": fmt.Sprint(v.wanted)}
	r.Spec.Replicas = new(v.wanted)
	r.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/name": v.look.prefix, hashLabel: v.labels[hashLabel]}}
	r.Spec.Template.Labels = v.labels
	r.Spec.Template.Spec.PriorityClassName = fmt.Sprintf("release-%d", v.tag)
	r.Status = appsv1.ReplicaSetStatus{
		Replicas: v.replicas, FullyLabeledReplicas: v.replicas, ReadyReplicas: v.ready, AvailableReplicas: v.ready, ObservedGeneration: int64(v.observed),
	}
	return r
}

func appLook(deployments, sets *simcluster.Resource, parts *look) *look {
	pod := parts.object.(*corev1.Pod)
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: parts.labels, Annotations: pod.Annotations}, Spec: pod.Spec}
	quarter := intstr.FromString("25%")
	set := &look{resource: sets, prefix: parts.prefix, labels: parts.labels, parts: parts, object: &appsv1.ReplicaSet{
		Spec: appsv1.ReplicaSetSpec{Template: template},
	}}
	return &look{resource: deployments, prefix: parts.prefix, labels: parts.labels, parts: set, object: &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Annotations:   map[string]string{"deployment.kubernetes.io/revision": "1", "sim.outrider.dev/source": pod.Annotations["sim.outrider.dev/source"]},
			ManagedFields: managed("kube-controller-manager", "Update", `"f:status":{"f:availableReplicas":{},"f:conditions":{".":{}},"f:observedGeneration":{},"f:readyReplicas":{},"f:replicas":{},"f:updatedReplicas":{}}`),
		},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/name": parts.prefix}}, Template: template, RevisionHistoryLimit: new(int32(oldSets)), ProgressDeadlineSeconds: new(int32(600)),
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &quarter, MaxUnavailable: &quarter},
			},
		},
	}}
}

// setDeployment writes another version of the life's Deployment.
func (s *Scenario) setDeployment(l *life, edit func(*deploymentVersion)) error {
	next := *l.app.deployment
	edit(&next)
	l.app.deployment = &next
	return s.update(&next)
}

func (s *Scenario) setSet(l *life, i int, edit func(*setVersion)) error {
	next := *l.app.sets[i]
	edit(&next)
	l.app.sets[i] = &next
	return s.update(&next)
}

// observe has the controllers count: first those of the ReplicaSets, then that
// of the Deployment.
func (s *Scenario) observe(l *life, progress string) error {
	next := *l.app.deployment
	next.replicas, next.updated, next.ready = 0, 0, 0
	for i, set := range l.app.sets {
		replicas, ready := int32(0), int32(0)
		for _, p := range l.pods {
			if p.owner != set.entity || p.marked {
				continue
			}
			if replicas++; p.stage == podRunning {
				ready++
			}
		}
		next.replicas, next.ready, next.updated = next.replicas+replicas, next.ready+ready, replicas
		if set.replicas == replicas && set.ready == ready && set.observed == set.generation {
			continue
		}
		err := s.setSet(l, i, func(v *setVersion) { v.replicas, v.ready, v.observed = replicas, ready, v.generation })
		if err != nil {
			return err
		}
	}
	now := s.now()
	if before := l.app.deployment; next.observed == 0 || (next.ready > 0) != (before.ready > 0) {
		next.availableAt = now
	}
	if next.progressed == 0 {
		next.progressed = now
	}
	if next.progress != progress {
		next.progressAt = now
	}
	next.observed, next.progress, next.set = next.generation, progress, l.app.now().name
	l.app.deployment = &next
	return s.update(&next)
}

// addSet creates the ReplicaSet of a new version.
func (s *Scenario) addSet(l *life) error {
	parts := l.main.look.parts
	e := s.entity(parts, l.main, s.suffixed(l.main.name, 9))
	e.labels = map[string]string{hashLabel: e.name[len(l.main.name)+1:]}
	maps.Copy(e.labels, parts.labels)
	l.app.revision++
	set := &setVersion{entity: e, generation: 1, wanted: l.app.deployment.wanted, tag: int32(l.app.revision)}
	l.app.sets = append(l.app.sets, set)
	return s.create(set)
}

// fill creates the pods that the present ReplicaSet has not.
func (s *Scenario) fill(l *life) error {
	set := l.app.now()
	n := int(set.wanted)
	for _, p := range l.pods {
		if p.owner == set.entity {
			n--
		}
	}
	for range n {
		e := s.entity(set.look.parts, set.entity, s.suffixed(set.name, 5))
		e.labels = set.labels
		if err := s.createPod(l, e); err != nil {
			return err
		}
	}
	return nil
}

func createApp(s *Scenario, l *life) error {
	if err := s.create(l.app.deployment); err != nil {
		return err
	}
	if err := s.addSet(l); err != nil {
		return err
	}
	if err := s.observe(l, "NewReplicaSetCreated"); err != nil {
		return err
	}
	if err := s.fill(l); err != nil {
		return err
	}
	return s.observe(l, "ReplicaSetUpdated")
}

func readyApp(s *Scenario, l *life) error {
	if err := s.movePods(l, podCreating, podRunning); err != nil {
		return err
	}
	return s.observe(l, "NewReplicaSetAvailable")
}

// scale has the Deployment want another number of replicas; its controllers
// see to it.
func scale(to func(int32) int32) func(*Scenario, *life) error {
	return func(s *Scenario, l *life) error {
		n := to(l.app.deployment.wanted)
		if err := s.setDeployment(l, func(v *deploymentVersion) { v.wanted, v.generation = n, v.generation+1 }); err != nil {
			return err
		}
		last := len(l.app.sets) - 1
		if err := s.setSet(l, last, func(v *setVersion) { v.wanted, v.generation = n, v.generation+1 }); err != nil {
			return err
		}
		set := l.app.now()
		if n > 0 {
			if err := s.fill(l); err != nil {
				return err
			}
		} else if err := s.endPods(l, set.entity); err != nil {
			return err
		}
		return s.observe(l, "NewReplicaSetAvailable")
	}
}

// releaseApp begins a roll-out. The pods of the version before stay until
// those of the new one run.
func releaseApp(s *Scenario, l *life) error {
	err := s.setDeployment(l, func(v *deploymentVersion) { v.tag, v.generation = v.tag+1, v.generation+1 })
	if err != nil {
		return err
	}
	if err := s.addSet(l); err != nil {
		return err
	}
	if err := s.fill(l); err != nil {
		return err
	}
	return s.observe(l, "ReplicaSetUpdated")
}

func rolledApp(s *Scenario, l *life) error {
	if err := s.movePods(l, podCreating, podRunning); err != nil {
		return err
	}
	if err := s.observe(l, "ReplicaSetUpdated"); err != nil {
		return err
	}
	before := len(l.app.sets) - 2
	if err := s.setSet(l, before, func(v *setVersion) { v.wanted, v.generation = 0, v.generation+1 }); err != nil {
		return err
	}
	if err := s.endPods(l, l.app.sets[before].entity); err != nil {
		return err
	}
	if err := s.observe(l, "NewReplicaSetAvailable"); err != nil {
		return err
	}
	if len(l.app.sets) <= oldSets+1 {
		return nil
	}
	oldest := l.app.sets[0]
	l.app.sets = slices.Clone(l.app.sets[1:])
	return s.delete(oldest.entity)
}

// moveApp has all pods of the app go from one stage to another, and the
// controllers count.
func moveApp(from, to podStage) func(*Scenario, *life) error {
	return func(s *Scenario, l *life) error {
		if err := s.movePods(l, from, to); err != nil {
			return err
		}
		return s.observe(l, l.app.deployment.progress)
	}
}

// deleteApp is what kubectl delete does: the Deployment goes at once, and the
// garbage collector deletes what it controlled.
func deleteApp(s *Scenario, l *life) error {
	if err := s.delete(l.main); err != nil {
		return err
	}
	if err := all(l.app.sets, func(set *setVersion) error { return s.delete(set.entity) }); err != nil {
		return err
	}
	return s.endPods(l, nil)
}

func appScripts() []script {
	first := func(s *Scenario, l *life) {
		of := s.look(s.cast.apps)
		l.main = s.entity(of, nil, s.numbered(of.prefix))
		l.app = &app{deployment: &deploymentVersion{entity: l.main, generation: 1, wanted: int32(1 + s.rand.IntN(3)), tag: 1}}
	}
	create := step{30 * time.Second, queued, createApp}
	place := step{2 * time.Second, none, (*Scenario).placePods}
	ready := step{10 * time.Second, running, readyApp}
	up := step{30 * time.Minute, none, scale(func(n int32) int32 { return n + 1 })}
	grown := step{10 * time.Second, none, readyApp}
	down := step{time.Hour, queued, scale(func(int32) int32 { return 0 })}
	back := step{30 * time.Minute, none, scale(func(int32) int32 { return 2 })}
	release := step{time.Hour, none, releaseApp}
	rolled := step{10 * time.Second, none, rolledApp}
	crash := step{time.Hour, queued, moveApp(podRunning, podCrashing)}
	recover := step{time.Minute, running, moveApp(podCrashing, podRunning)}
	gone := step{time.Hour, deleted, deleteApp}
	return []script{
		{30, first, []step{create, place, ready, release, place, rolled, release, place, rolled, gone}},
		{20, first, []step{create, place, ready, up, place, grown, down, back, place, ready, gone}},
		{20, first, []step{create, place, ready, down, back, place, ready, down, back, place, ready, gone}},
		{20, first, []step{create, place, ready, crash, recover, release, place, rolled, gone}},
		{10, first, []step{create, place, ready, down, gone}},
	}
}
