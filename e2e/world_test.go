package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// patience is how long a scenario waits for one of its stages: many scenarios
// share two cores, and the Job controller waits 20 s before a third attempt.
const patience = 60 * time.Second

// A scenario takes the workloads of one namespace through their lives, and
// says what must be told of each. It leaves nothing behind.
type scenario struct {
	name string
	run  func(w *world)
}

// scenarios are all of them. Each has a namespace of its own, so that they can
// run at the same time.
func scenarios() (all []scenario) {
	for _, some := range [][]scenario{webApps(), batches(), deletions(), disruptions()} {
		all = append(all, some...)
	}
	return all
}

// A world is the namespace that a scenario has to itself. Pods run as their
// annotations say; the scenario changes these to play the containers' part, so
// that no stage depends on how long another one took.
type world struct {
	*testing.T
	*worlds
	ctx context.Context
	ns  string
}

// inWorld runs one scenario, and returns when nothing is left of it.
func inWorld(t *testing.T, prefix string, s scenario) *world {
	t.Helper()
	w := &world{T: t, ctx: t.Context(), ns: namespace(t, prefix+s.name), worlds: &worlds{told: map[string]string{}, codes: map[string]int32{}}}
	t.Cleanup(w.abandon)
	began := time.Now()
	s.run(w)
	w.emptied()
	t.Logf("took %s", time.Since(began).Round(10*time.Millisecond))
	return w
}

// worlds is what must be told of workloads, by UID.
type worlds struct {
	told  map[string]string // every workload's story
	codes map[string]int32  // the exit codes of those whose end has one
	ended []string          // the scenarios that went as they should
}

// inWorlds runs all scenarios at once, each in a namespace that starts with
// prefix. It returns when the last has ended, with what must be told.
func inWorlds(t *testing.T, prefix string) *worlds {
	t.Helper()
	all := &worlds{told: map[string]string{}, codes: map[string]int32{}}
	var mu sync.Mutex
	t.Run("scenarios", func(t *testing.T) {
		var wg sync.WaitGroup
		for _, s := range scenarios() { // all at once, where t.Parallel would be as many as there are cores
			wg.Go(func() {
				t.Run(s.name, func(t *testing.T) {
					w := inWorld(t, prefix, s)
					mu.Lock()
					defer mu.Unlock()
					all.ended = append(all.ended, s.name)
					maps.Copy(all.told, w.told)
					maps.Copy(all.codes, w.codes)
				})
			})
		}
		wg.Wait()
	})
	return all
}

// tells says which story must be told of a workload: its states, each with its
// reason, where changes of reason alone are told too.
func (w *world) tells(kind string, o metav1.Object, story string) {
	w.told[string(o.GetUID())] = account(kind, o.GetNamespace(), o.GetName(), story)
}

// exits says which exit code the workload's end must have.
func (w *world) exits(o metav1.Object, code int32) { w.codes[string(o.GetUID())] = code }

// A watcher is the typed client of a kind in a namespace.
type watcher interface {
	Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
}

// until waits for the object to be as what says, and returns it as it then is.
// A watch costs the API server less than asking again and again.
func until[T metav1.Object](w *world, api watcher, name, what string, ok func(T) bool) T {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	var last T
	var failed error
	for ctx.Err() == nil {
		// Without a version the watch begins with the object as it is now.
		events, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err != nil {
			failed = err
			continue
		}
		for e := range events.ResultChan() {
			o, is := e.Object.(T)
			if !is {
				break
			}
			if last = o; e.Type != watch.Deleted && ok(o) {
				events.Stop()
				return o
			}
		}
		events.Stop()
	}
	b, err := json.Marshal(last)
	w.Fatalf("waited %s for %s to be %s (%v); it is %s", patience, name, what, errors.Join(failed, err), b)
	return last
}

// eventually waits for what takes more than one object to tell.
func (w *world) eventually(what string, done func() bool) {
	w.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			w.Fatalf("waited %s for %s", patience, what)
		}
		time.Sleep(100 * time.Millisecond) // sleep: between two looks
	}
}

// pods waits until exactly n pods with the label app are ok and not on their
// way out, and returns them by age.
func (w *world) pods(app string, n int, what string, ok func(p *corev1.Pod) bool) (found []corev1.Pod) {
	w.Helper()
	w.eventually(fmt.Sprintf("%d pods of %s to be %s", n, app, what), func() bool {
		list, err := env.client.CoreV1().Pods(w.ns).List(w.ctx, metav1.ListOptions{
			LabelSelector: labels.SelectorFromSet(labels.Set{"app": app}).String(),
		})
		if err != nil {
			return false
		}
		found = found[:0]
		for _, p := range list.Items {
			if p.DeletionTimestamp == nil && ok(&p) {
				found = append(found, p)
			}
		}
		return len(found) == n
	})
	return found
}

func podRunning(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning }

func podReady(p *corev1.Pod) bool { return podIs(p, corev1.PodReady, corev1.ConditionTrue) }

// unschedulable: the scheduler has looked at the pod and found no node.
func unschedulable(p *corev1.Pod) bool {
	return podIs(p, corev1.PodScheduled, corev1.ConditionFalse)
}

func podIs(p *corev1.Pod, condition corev1.PodConditionType, status corev1.ConditionStatus) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == condition {
			return c.Status == status
		}
	}
	return false
}

// annotate changes how a pod runs; nil takes an annotation away. A pod that is
// gone meanwhile is an error: no scenario expects it.
func (w *world) annotate(pod string, annotations map[string]any) {
	w.Helper()
	prefixed := map[string]any{}
	for k, v := range annotations {
		prefixed["devcluster/"+k] = v
	}
	patch(w, env.client.CoreV1().Pods(w.ns), pod, map[string]any{"metadata": map[string]any{"annotations": prefixed}})
}

// ready lets the pods become ready.
func (w *world) ready(pods ...corev1.Pod) {
	w.Helper()
	for _, p := range pods {
		w.annotate(p.Name, map[string]any{"ready": "0s"})
	}
}

// exit ends the containers of a running pod.
func (w *world) exit(pod string, code int) {
	w.Helper()
	w.annotate(pod, map[string]any{"run": "0s", "exit": fmt.Sprint(code)})
}

// A patcher is the typed client of a kind in a namespace.
type patcher[T any] interface {
	Patch(ctx context.Context, name string, pt types.PatchType, data []byte, o metav1.PatchOptions, subresources ...string) (T, error)
}

// patch merges a change into an object and returns what it then is.
func patch[T any](w *world, api patcher[T], name string, change map[string]any) T {
	w.Helper()
	b, err := json.Marshal(change)
	if err != nil {
		w.Fatal(err)
	}
	o, err := api.Patch(w.ctx, name, types.MergePatchType, b, metav1.PatchOptions{})
	if err != nil {
		w.Fatalf("patch %s with %s: %v", name, b, err)
	}
	return o
}

// spec is a change of an object's spec.
func spec(fields map[string]any) map[string]any { return map[string]any{"spec": fields} }

// running is the change of a web app's template to another image, with other
// annotations if there are any; nil takes one away.
func running(image string, annotations map[string]any) map[string]any {
	prefixed := map[string]any{}
	for k, v := range annotations {
		prefixed["devcluster/"+k] = v
	}
	return spec(map[string]any{"template": map[string]any{
		"metadata": map[string]any{"annotations": prefixed},
		"spec":     map[string]any{"containers": []any{map[string]any{"name": "main", "image": image}}},
	}})
}

// A creator is the typed client of a kind in a namespace.
type creator[T any] interface {
	Create(ctx context.Context, o T, opts metav1.CreateOptions) (T, error)
}

func create[T any](w *world, api creator[T], o T) T {
	w.Helper()
	made, err := api.Create(w.ctx, o, metav1.CreateOptions{})
	if err != nil {
		w.Fatalf("create %T: %v", o, err)
	}
	return made
}

// A deleter is the typed client of a kind in a namespace.
type deleter interface {
	Delete(ctx context.Context, name string, o metav1.DeleteOptions) error
}

// remove deletes an object as kubectl does: what it owns goes after it.
func (w *world) remove(api deleter, name string) {
	w.Helper()
	w.removeBy(metav1.DeletePropagationBackground, api, name)
}

func (w *world) removeBy(policy metav1.DeletionPropagation, api deleter, name string) {
	w.Helper()
	if err := api.Delete(w.ctx, name, metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		w.Fatalf("delete %s in %s: %v", name, policy, err)
	}
}

// gone waits until there is no object of the name.
func gone[T any](w *world, api interface {
	Get(ctx context.Context, name string, o metav1.GetOptions) (T, error)
}, name string,
) {
	w.Helper()
	w.eventually(name+" to be gone", func() bool {
		_, err := api.Get(w.ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// emptied waits until the namespace holds no workload.
func (w *world) emptied() {
	w.Helper()
	w.eventually("namespace "+w.ns+" to be empty", func() bool {
		left, err := w.left()
		return err == nil && left == 0
	})
}

func (w *world) left() (n int, err error) {
	one, ctx := metav1.ListOptions{Limit: 1}, w.ctx
	apps, batch := env.client.AppsV1(), env.client.BatchV1()
	count := func(items int, e error) { n, err = n+items, errors.Join(err, e) }
	deployments, e := apps.Deployments(w.ns).List(ctx, one)
	count(len(deployments.Items), e)
	sets, e := apps.ReplicaSets(w.ns).List(ctx, one)
	count(len(sets.Items), e)
	stateful, e := apps.StatefulSets(w.ns).List(ctx, one)
	count(len(stateful.Items), e)
	daemons, e := apps.DaemonSets(w.ns).List(ctx, one)
	count(len(daemons.Items), e)
	jobs, e := batch.Jobs(w.ns).List(ctx, one)
	count(len(jobs.Items), e)
	pods, e := env.client.CoreV1().Pods(w.ns).List(ctx, one)
	count(len(pods.Items), e)
	return n, err
}

// abandon deletes what a scenario that failed has left.
func (w *world) abandon() {
	if !w.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	policy := metav1.DeletePropagationBackground
	o, all := metav1.DeleteOptions{PropagationPolicy: &policy}, metav1.ListOptions{}
	apps, batch := env.client.AppsV1(), env.client.BatchV1()
	if err := errors.Join(
		batch.CronJobs(w.ns).DeleteCollection(ctx, o, all),
		apps.Deployments(w.ns).DeleteCollection(ctx, o, all),
		apps.StatefulSets(w.ns).DeleteCollection(ctx, o, all),
		apps.DaemonSets(w.ns).DeleteCollection(ctx, o, all),
		apps.ReplicaSets(w.ns).DeleteCollection(ctx, o, all),
	); err != nil {
		w.Errorf("empty namespace %s: %v", w.ns, err)
	}
}

// template is that of pods labelled app, with annotations as "ready=never".
func template(app string, policy corev1.RestartPolicy, annotations ...string) corev1.PodTemplateSpec {
	no := false
	t := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}, Annotations: map[string]string{}},
		Spec: corev1.PodSpec{
			RestartPolicy: policy, AutomountServiceAccountToken: &no,
			Containers: []corev1.Container{{Name: "main", Image: "work:1"}},
		},
	}
	for _, a := range annotations {
		k, v, _ := strings.Cut(a, "=")
		t.Annotations["devcluster/"+k] = v
	}
	return t
}

// bare is a pod of its own.
func (w *world) bare(name string, edit func(*corev1.PodSpec), annotations ...string) *corev1.Pod {
	w.Helper()
	t := template(name, corev1.RestartPolicyNever, annotations...)
	t.Name = name
	if edit != nil {
		edit(&t.Spec)
	}
	return create(w, env.client.CoreV1().Pods(w.ns), &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec})
}

// job is one whose pods run until they are told to exit, if no annotation says
// otherwise.
func (w *world) job(name string, edit func(*batchv1.JobSpec), annotations ...string) *batchv1.Job {
	w.Helper()
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}}
	j.Spec.Template = template(name, corev1.RestartPolicyNever, annotations...)
	if edit != nil {
		edit(&j.Spec)
	}
	return create(w, env.client.BatchV1().Jobs(w.ns), j)
}

// jobIs waits for a condition of the Job.
func (w *world) jobIs(name string, condition batchv1.JobConditionType) *batchv1.Job {
	w.Helper()
	return until(w, env.client.BatchV1().Jobs(w.ns), name, string(condition), func(j *batchv1.Job) bool {
		return jobHas(j, condition)
	})
}

func jobHas(j *batchv1.Job, condition batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == condition {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// deployment is a web app of that many replicas.
func (w *world) deployment(name string, replicas int32, edit func(*appsv1.DeploymentSpec), annotations ...string) *appsv1.Deployment {
	w.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}}
	d.Spec.Replicas, d.Spec.Selector = &replicas, metav1.SetAsLabelSelector(labels.Set{"app": name})
	d.Spec.Template = template(name, corev1.RestartPolicyAlways, annotations...)
	if edit != nil {
		edit(&d.Spec)
	}
	return create(w, env.client.AppsV1().Deployments(w.ns), d)
}

// rolledOut waits until all replicas are new and available, and the rest gone.
func (w *world) rolledOut(d *appsv1.Deployment) *appsv1.Deployment {
	w.Helper()
	return until(w, env.client.AppsV1().Deployments(w.ns), d.Name, "rolled out", func(now *appsv1.Deployment) bool {
		n, s := *now.Spec.Replicas, now.Status
		return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == n && s.AvailableReplicas == n && s.Replicas == n &&
			progressing(now) == "NewReplicaSetAvailable"
	})
}

// progressing is the reason of the condition Progressing.
func progressing(d *appsv1.Deployment) string {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing {
			return c.Reason
		}
	}
	return ""
}

// available waits until a Deployment has that many available replicas.
func (w *world) available(d *appsv1.Deployment, n int32) *appsv1.Deployment {
	w.Helper()
	return until(w, env.client.AppsV1().Deployments(w.ns), d.Name, fmt.Sprintf("available %d times", n), func(now *appsv1.Deployment) bool {
		return now.Status.ObservedGeneration >= d.Generation && now.Status.AvailableReplicas == n
	})
}
