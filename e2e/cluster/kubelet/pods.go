package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
)

const (
	// workers bounds the requests in flight.
	workers = 32
	// A request whose answer does not come is sent again; both status and delete can be repeated.
	requestDeadline = 10 * time.Second
	retryFirst      = 20 * time.Millisecond
	retryMax        = time.Second
)

// pods takes every pod of our nodes through its phases. It is one watch, one queue and a fixed number of workers: a pod that waits costs an entry in the queue's heap.
type pods struct {
	client kubernetes.Interface
	clock  clock.WithTicker
	truth  *truth
	nodes  map[string]bool
	store  *store
	queue  workqueue.TypedRateLimitingInterface[string]

	mu    sync.Mutex
	known map[string]*record
}

// A record is what this process has seen of one pod. Only the worker that holds the pod's key uses it.
type record struct {
	// last is the newest state of the pod: its own last answer, where the watch is behind it.
	last *corev1.Pod
	at   Moments
	// unanswered is a status that was sent, but whose answer was lost: it may have been set or not.
	unanswered *corev1.PodStatus
	// confirmed is set once the deletion is confirmed: a pod with finalizers stays for a while.
	confirmed bool
}

func newPods(client kubernetes.Interface, clk clock.WithTicker, log *truth, nodes []string) *pods {
	p := &pods{client: client, clock: clk, truth: log, nodes: map[string]bool{}, known: map[string]*record{}}
	for _, name := range nodes {
		p.nodes[name] = true
	}
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryMax)
	p.queue = workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[string]{Clock: clk})
	p.store = newStore(p.queue.Add)
	return p
}

// listed tells whether the pods were listed once.
func (p *pods) listed() bool { return p.store.filled.Load() }

// run watches and works until ctx ends.
func (p *pods) run(ctx context.Context) error {
	bound := cache.NewListWatchFromClient(p.client.CoreV1().RESTClient(), "pods", metav1.NamespaceAll,
		fields.OneTermNotEqualSelector("spec.nodeName", ""))
	reflector := cache.NewReflectorWithOptions(bound, &corev1.Pod{}, p.store, cache.ReflectorOptions{
		Name: "pods",
		// A test that restarts the API server should not wait for the 30 s a reflector may back off by default.
		Backoff: &wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 5, Cap: time.Second},
	})
	var group sync.WaitGroup
	group.Go(func() { reflector.RunWithContext(ctx) })
	for range workers {
		group.Go(func() { p.work(ctx) })
	}
	<-ctx.Done()
	p.queue.ShutDown()
	group.Wait()
	return nil
}

func (p *pods) work(ctx context.Context) {
	for {
		key, shutdown := p.queue.Get()
		if shutdown {
			return
		}
		if err := p.sync(ctx, key); err != nil {
			if ctx.Err() == nil {
				slog.Warn("pod not synced, will retry", "pod", key, "err", err)
			}
			p.queue.AddRateLimited(key)
		} else {
			p.queue.Forget(key)
		}
		p.queue.Done(key)
	}
}

// sync does the steps of one pod that are due.
func (p *pods) sync(ctx context.Context, key string) error {
	seen, err := p.look(key)
	if err != nil {
		return err
	}
	for seen != nil && ctx.Err() == nil {
		pod := seen.last
		now := p.clock.Now()
		if pod.DeletionTimestamp != nil && seen.at.Deleting.IsZero() {
			seen.at.Deleting = now
		}
		step := Next(pod, seen.at, now)
		switch {
		case step.Confirm && !seen.confirmed:
			if err := p.confirm(ctx, seen); err != nil {
				return gone(err)
			}
		case step.Status != nil:
			if err := p.set(ctx, seen, step.Status); err != nil {
				return gone(err)
			}
		case step.Wait > 0:
			p.queue.AddAfter(key, step.Wait)
			return nil
		default:
			return nil
		}
	}
	return nil
}

// look gives the record of the pod, or nil for one that is not, or no longer, ours.
func (p *pods) look(key string) (*record, error) {
	obj, exists, _ := p.store.GetByKey(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !exists {
		delete(p.known, key)
		return nil, nil
	}
	pod := obj.(*corev1.Pod)
	if !p.nodes[pod.Spec.NodeName] {
		return nil, nil
	}
	seen := p.known[key]
	if seen == nil || seen.last.UID != pod.UID {
		seen = &record{last: pod, at: Moments{Since: entered(&pod.Status, p.clock.Now())}}
		p.known[key] = seen
		return seen, nil
	}
	if !newer(pod, seen.last) {
		return seen, nil
	}
	lost := seen.unanswered
	if seen.last, seen.unanswered = pod, nil; lost == nil || !same(lost, &pod.Status) {
		return seen, nil
	}
	// The watch brings the answer that was lost.
	seen.at.Since = p.clock.Now()
	return seen, p.truth.record(opStatus, pod)
}

// set writes the status and logs the answer.
func (p *pods) set(ctx context.Context, seen *record, status *corev1.PodStatus) error {
	pod := seen.last
	if seen.unanswered != nil {
		// The same again changes nothing where it was set, and the answer then names the version that it was set with.
		status = seen.unanswered
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status":   owned(status),
	})
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	ctx, cancel := requestContext(ctx)
	defer cancel()
	answer, err := p.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		seen.unanswered = status
		return fmt.Errorf("set status: %w", err)
	}
	seen.unanswered = nil
	now := p.clock.Now()
	if pod.Status.StartTime == nil {
		seen.at.Accepted = now
	}
	if !sameState(&pod.Status, &answer.Status) {
		seen.at.Since = now
	}
	before := pod.ResourceVersion
	if err := p.answered(seen, opStatus, answer); err != nil {
		return err
	}
	if answer.ResourceVersion == before {
		// The plan would ask for the same again, at once.
		return fmt.Errorf("set status: got resource version %s unchanged, want a new one", before)
	}
	return nil
}

// confirm tells the API server that the containers of a pod that is being deleted have ended.
func (p *pods) confirm(ctx context.Context, seen *record) error {
	pod := seen.last
	ctx, cancel := requestContext(ctx)
	defer cancel()
	answer := &corev1.Pod{}
	err := p.client.CoreV1().RESTClient().Delete().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).
		Body(&metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &pod.UID}}).
		Do(ctx).Into(answer)
	if err != nil {
		return fmt.Errorf("confirm deletion: %w", err)
	}
	seen.confirmed = true
	return p.answered(seen, opDelete, answer)
}

// answered keeps the answer, and logs it unless the request turned out to change nothing.
func (p *pods) answered(seen *record, op string, answer *corev1.Pod) error {
	trim(answer)
	changed := answer.ResourceVersion != seen.last.ResourceVersion
	seen.last = answer
	if !changed {
		return nil
	}
	return p.truth.record(op, answer)
}

// requestContext outlives the kubelet's: a request that was sent is to be answered and logged before the kubelet stops.
func requestContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), requestDeadline)
}

// newer tells whether a is a later state of the same pod than b. After a restored backup the versions start lower, and the pod listed then counts: the whole cluster is restarted for that.
func newer(a, b *corev1.Pod) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err != nil || order > 0
}

// gone makes no error of a pod that no longer exists: the watch will tell. A conflict is tried again, on the pod that then has the name.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
