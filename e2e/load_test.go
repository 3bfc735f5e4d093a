package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// A plan says what a workload of the load shall do.
type plan struct {
	annotations map[string]string
	story       string // what must be told of it
	cut         bool   // deleted while it runs
}

const (
	podSucceeds = "Pod Queued>Running>Succeeded(Completed)"
	podCut      = "Pod Queued>Running>Cancelled(Deleted)"
	podRuns     = "Pod Queued>Running"
	jobSucceeds = "Job Queued>Running>Succeeded(CompletionsReached)"
)

// second makes a pod end well after a second. Read-only.
var second = map[string]string{"devcluster/run": "1s"}

func plans() []plan {
	ok := plan{second, podSucceeds, false}
	return []plan{
		ok, ok, ok, ok, ok, ok, ok,
		{map[string]string{"devcluster/run": "1s", "devcluster/exit": "3"}, "Pod Queued>Running>Failed(Error)", false},
		{map[string]string{"devcluster/run": "1s", "devcluster/end": "OOMKilled"}, "Pod Queued>Running>Failed(OOMKilled)", false},
		{nil, podCut, true},
	}
}

func newPod(name string, p plan) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: p.annotations, Labels: map[string]string{"load": "yes"}},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: "work:1"}}},
	}
}

// addLabels adds labels, given as name=value.
func addLabels(pod *corev1.Pod, labels []string) {
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		pod.Labels[k] = v
	}
}

// heavy are labels that make each change of a pod 9 KiB, so that few fill a
// file or a ledger.
func heavy() []string {
	labels := make([]string, 60)
	for i := range labels {
		labels[i] = fmt.Sprintf("%s.example/load-%02d=%s", strings.Repeat("a", 60), i, strings.Repeat("b", 63))
	}
	return labels
}

func newJob(name string, annotations map[string]string) *batchv1.Job {
	limit := int32(0)
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"load": "yes"}}, Spec: batchv1.JobSpec{BackoffLimit: &limit}}
	j.Spec.Template.Annotations = annotations
	j.Spec.Template.Spec = newPod("", plan{}).Spec
	return j
}

// A load creates pods at a rate and deletes each once it has done its part;
// those to be cut, while they run. It goes on while the API server is away.
type load struct {
	jobs   int           // a Job is created with each so many pods; 0: none
	linger time.Duration // between a workload's part and its deletion
	labels []string      // more of each pod's, as name=value

	ns     string
	plans  map[string]plan // by name; guarded by mu
	ctx    context.Context
	enough chan struct{} // closed when no more are to be created
	ending func()

	mu       sync.Mutex
	created  map[types.UID]time.Time // when the API server had answered
	want     map[string]string       // story by UID
	deleted  map[types.UID]bool
	removed  int            // deletions that the API server has answered
	creators sync.WaitGroup // what creates
	wg       sync.WaitGroup // all goroutines
}

// run creates n pods at rate a second, and returns when all are deleted.
func (l *load) run(ctx context.Context, t *testing.T, ns string, n, rate int) {
	t.Helper()
	l.start(ctx, t, ns, n, rate)
	l.creators.Wait()
	l.finish(t)
}

// start begins to create pods, n at most and until finish is called.
func (l *load) start(ctx context.Context, t *testing.T, ns string, n, rate int) {
	t.Helper()
	l.ns, l.plans = ns, map[string]plan{}
	l.created, l.want, l.deleted = map[types.UID]time.Time{}, map[string]string{}, map[types.UID]bool{}
	l.enough = make(chan struct{})
	l.ending = sync.OnceFunc(func() { close(l.enough) })
	ctx, cancel := context.WithCancel(ctx)
	l.ctx = ctx
	t.Cleanup(func() {
		cancel()
		l.ending()
		l.wg.Wait()
	})
	l.follow(t, env.client.CoreV1().RESTClient(), "pods", &corev1.Pod{})
	if l.jobs > 0 {
		l.follow(t, env.client.BatchV1().RESTClient(), "jobs", &batchv1.Job{})
	}
	l.creators.Add(1)
	l.wg.Go(func() {
		defer l.creators.Done()
		l.createAll(t, n, rate)
	})
}

func (l *load) createAll(t *testing.T, n, rate int) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	kinds := plans()
	for i := range n {
		select {
		case <-tick.C:
		case <-l.enough:
			return
		}
		l.creators.Go(func() { l.createPod(t, fmt.Sprintf("pod-%04d", i), kinds[i%len(kinds)]) })
		if l.jobs > 0 && i%l.jobs == 0 {
			l.creators.Go(func() { l.createJob(t, fmt.Sprintf("job-%04d", i), plan{second, jobSucceeds, false}) })
		}
	}
}

// finish ends the creation and waits until everything is deleted.
func (l *load) finish(t *testing.T) {
	t.Helper()
	l.ending()
	l.creators.Wait()
	waitFor(t, 2*time.Minute, "the whole load to be deleted", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.removed == len(l.want)
	})
}

// stories returns what must be told, by UID.
func (l *load) stories() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.want)
}

// follow lets the load see what becomes of its workloads.
func (l *load) follow(t *testing.T, client rest.Interface, resource string, object runtime.Object) {
	t.Helper()
	informer := cache.NewSharedInformer(cache.NewListWatchFromClient(client, resource, l.ns, fields.Everything()), object, 0)
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { l.saw(t, obj) },
		UpdateFunc: func(_, obj any) { l.saw(t, obj) },
	}); err != nil {
		t.Fatal(err)
	}
	l.wg.Go(func() { informer.RunWithContext(l.ctx) })
}

func (l *load) createPod(t *testing.T, name string, p plan) {
	pods := env.client.CoreV1().Pods(l.ns)
	l.create(t, name, p, func() (types.UID, error) {
		pod := newPod(name, p)
		addLabels(pod, l.labels)
		pod, err := pods.Create(l.ctx, pod, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // the answer to the try before was lost
			pod, err = pods.Get(l.ctx, name, metav1.GetOptions{})
		}
		return pod.GetUID(), err
	})
}

func (l *load) createJob(t *testing.T, name string, p plan) {
	jobs := env.client.BatchV1().Jobs(l.ns)
	l.create(t, name, p, func() (types.UID, error) {
		j, err := jobs.Create(l.ctx, newJob(name, p.annotations), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			j, err = jobs.Get(l.ctx, name, metav1.GetOptions{})
		}
		return j.GetUID(), err
	})
}

func (l *load) create(t *testing.T, name string, p plan, post func() (types.UID, error)) {
	l.mu.Lock()
	l.plans[name] = p
	l.mu.Unlock()
	var uid types.UID
	insist(l.ctx, t, "create "+name, func() (err error) {
		uid, err = post()
		return err
	})
	if uid == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.created[uid] = time.Now()
	l.want[string(uid)] = p.story
}

// saw deletes a workload that has done its part. One whose creation was not
// answered is seen here too.
func (l *load) saw(t *testing.T, obj any) {
	var meta *metav1.ObjectMeta
	var runs, ended bool
	var remove func() error
	policy := metav1.DeletePropagationBackground
	switch o := obj.(type) {
	case *corev1.Pod:
		meta, runs = &o.ObjectMeta, o.Status.Phase == corev1.PodRunning
		ended = o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed
		remove = func() error {
			return env.client.CoreV1().Pods(l.ns).Delete(l.ctx, o.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(o.UID))})
		}
	case *batchv1.Job:
		meta, ended = &o.ObjectMeta, o.Status.CompletionTime != nil
		remove = func() error {
			return env.client.BatchV1().Jobs(l.ns).Delete(l.ctx, o.Name, metav1.DeleteOptions{
				PropagationPolicy: &policy, Preconditions: metav1.NewUIDPreconditions(string(o.UID)),
			})
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p, mine := l.plans[meta.Name]
	if !mine || meta.DeletionTimestamp != nil || l.deleted[meta.UID] || !ended && !(p.cut && runs) {
		return
	}
	l.deleted[meta.UID] = true
	l.want[string(meta.UID)] = p.story
	l.wg.Go(func() {
		if !l.lingered() {
			return
		}
		insist(l.ctx, t, "delete "+meta.Name, func() error {
			if err := remove(); !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return err
			}
			return nil // the answer to the try before was lost
		})
		l.mu.Lock()
		defer l.mu.Unlock()
		l.removed++
	})
}

func (l *load) lingered() bool {
	select {
	case <-time.After(l.linger):
		return true
	case <-l.ctx.Done():
		return false
	}
}

// insist does something again until the API server has answered, for a minute
// at most.
func insist(ctx context.Context, t *testing.T, what string, do func() error) {
	for deadline := time.Now().Add(time.Minute); ctx.Err() == nil; {
		err := do()
		if err == nil {
			return
		}
		if ctx.Err() == nil && (!away(err) || time.Now().After(deadline)) {
			t.Errorf("%s: %v", what, err)
			return
		}
		time.Sleep(200 * time.Millisecond) // sleep: until the API server may be back
	}
}

// away reports whether the API server has not answered, or not as itself: it
// is just being stopped or started.
func away(err error) bool {
	var status apierrors.APIStatus
	return !errors.As(err, &status) || apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err) ||
		apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err)
}

// drained waits until the namespace is empty and nothing waits in the agent.
func drained(t *testing.T, ns string, limit time.Duration) {
	t.Helper()
	waitFor(t, limit, "the pods of "+ns+" to be gone", func() bool {
		list, err := env.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{Limit: 1})
		return err == nil && len(list.Items) == 0
	})
	quiet(t, limit)
}

// quiet waits until nothing waits in the agent.
func quiet(t *testing.T, limit time.Duration) {
	t.Helper()
	waitFor(t, limit, "every pipeline to be empty", func() bool {
		for name, p := range pipelines(t) {
			if p["queued"] != 0 && name != "" {
				return false
			}
		}
		return true
	})
}
