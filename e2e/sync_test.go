package e2e

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// config is the configuration that the documentation promises to work as it
// stands, but for the namespace and the place of the kubeconfig.
const config = `service: platform-sync
data_dir: ./outrider-data
listen: {public: 127.0.0.1:9610, debug: 127.0.0.1:9611, status: 127.0.0.1:9612}
statesync:
  kubeconfig: ./kubeconfig          # empty: in-cluster, then ~/.kube/config
  namespaces: [%s]                # empty: all
  kinds: [Pod, Job]
  sinks:
    - name: platform
      webhook: {url: "http://127.0.0.1:18080/changes", secret_file: ./hook.key}
    - name: archive
      file: {path: ./changes.ndjson}
`

// workDir is a folder with what the configuration names.
func workDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hook.key"), []byte(hookKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(env.kubeconfig, filepath.Join(dir, "kubeconfig")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A plan says what a pod of the load shall do.
type plan struct {
	annotations map[string]string
	story       string // what must be told of it
	cut         bool   // deleted while it runs
}

func plans() []plan {
	ok := plan{map[string]string{"devcluster/run": "1s"}, "Pod Queued>Running>Succeeded(Completed)", false}
	return []plan{
		ok, ok, ok, ok, ok, ok, ok,
		{map[string]string{"devcluster/run": "1s", "devcluster/exit": "3"}, "Pod Queued>Running>Failed(Error)", false},
		{map[string]string{"devcluster/run": "1s", "devcluster/end": "OOMKilled"}, "Pod Queued>Running>Failed(OOMKilled)", false},
		{nil, "Pod Queued>Running>Cancelled(Deleted)", true},
	}
}

func newPod(name string, p plan) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: p.annotations, Labels: map[string]string{"load": "yes"}},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: "work:1"}}},
	}
}

// A load creates pods at a rate and deletes each once it has done its part.
type load struct {
	ns    string
	plans map[string]plan // by name

	mu      sync.Mutex
	created map[types.UID]time.Time // when the API server had answered
	want    map[string]string       // story by UID
	deleted map[types.UID]bool
	wg      sync.WaitGroup
}

// run creates n pods at rate a second in a namespace, and deletes each when
// it has ended; those to be cut while they run.
func (l *load) run(ctx context.Context, t *testing.T, ns string, n, rate int) {
	t.Helper()
	l.ns, l.plans = ns, map[string]plan{}
	l.created, l.want, l.deleted = map[types.UID]time.Time{}, map[string]string{}, map[types.UID]bool{}
	kinds := plans()
	for i := range n {
		l.plans[podName(i)] = kinds[i%len(kinds)]
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	informer := cache.NewSharedInformer(cache.NewListWatchFromClient(env.client.CoreV1().RESTClient(), "pods", ns, fields.Everything()), &corev1.Pod{}, 0)
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { l.saw(ctx, t, obj.(*corev1.Pod)) },
		UpdateFunc: func(_, obj any) { l.saw(ctx, t, obj.(*corev1.Pod)) },
	}); err != nil {
		t.Fatal(err)
	}
	l.wg.Go(func() { informer.RunWithContext(ctx) })
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for i := range n {
		<-tick.C
		l.wg.Go(func() { l.create(ctx, t, podName(i)) })
	}
	waitFor(t, 2*time.Minute, "every pod to be deleted", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.deleted) == n
	})
	cancel()
	l.wg.Wait()
}

func (l *load) create(ctx context.Context, t *testing.T, name string) {
	pod, err := env.client.CoreV1().Pods(l.ns).Create(ctx, newPod(name, l.plans[name]), metav1.CreateOptions{})
	if err != nil {
		t.Errorf("create pod: %v", err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.created[pod.UID] = time.Now()
	l.want[string(pod.UID)] = l.plans[name].story
}

func (l *load) saw(ctx context.Context, t *testing.T, pod *corev1.Pod) {
	plan, mine := l.plans[pod.Name]
	phase := pod.Status.Phase
	done := phase == corev1.PodSucceeded || phase == corev1.PodFailed || plan.cut && phase == corev1.PodRunning
	l.mu.Lock()
	defer l.mu.Unlock()
	if !mine || !done || pod.DeletionTimestamp != nil || l.deleted[pod.UID] {
		return
	}
	l.deleted[pod.UID] = true
	l.wg.Go(func() {
		if err := env.client.CoreV1().Pods(l.ns).Delete(context.WithoutCancel(ctx), pod.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete pod: %v", err)
		}
	})
}

func podName(i int) string { return fmt.Sprintf("pod-%04d", i) }

// drained waits until the namespace is empty and nothing waits in the agent.
func drained(t *testing.T, ns string, limit time.Duration) {
	t.Helper()
	waitFor(t, limit, "the pods of "+ns+" to be gone", func() bool {
		list, err := env.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{Limit: 1})
		return err == nil && len(list.Items) == 0
	})
	waitFor(t, limit, "every pipeline to be empty", func() bool {
		for name, p := range pipelines(t) {
			if p["queued"] != 0 && name != "" {
				return false
			}
		}
		return true
	})
}

func TestPodsAtSixtyASecond(t *testing.T) {
	needCluster(t)
	ns, dir, hook := namespace(t, "load"), workDir(t), startReceiver(t)
	a := startAgent(t, dir, fmt.Sprintf(config, ns))
	var l load
	l.run(t.Context(), t, ns, 600, 60)
	drained(t, ns, time.Minute)
	a.stop()

	events := hook.received()
	told := stories(t, "webhook", events)
	compare(t, "webhook", l.want, told)
	archive := readFile(t, filepath.Join(dir, "changes.ndjson"))
	compare(t, "file", l.want, stories(t, "file", archive))
	sameIDs(t, events, archive)
	log := kubeletLog(t, ns)
	truth := map[string]string{}
	for uid := range l.want {
		truth[uid] = fromKubelet(log[uid])
	}
	compare(t, "the kubelet's log", truth, told)
	late, seen := latencies(t, &l, log, events)
	t.Logf("writer's answer to read by the agent, %d changes: %s", len(seen), quantiles(seen))
	t.Logf("writer's answer to acknowledged by the webhook: %s", quantiles(late))
	// The budget is 250ms. Where the machine may be busy with something else,
	// the test holds ten times that; make bench holds the budget itself.
	budget := 250 * time.Millisecond
	if os.Getenv("OUTRIDER_BUDGETS") == "" {
		budget *= 10
	}
	if p99 := quantile(late, 0.99); p99 >= budget {
		t.Errorf("p99 %s, want under %s", p99, budget)
	}
}

// fromKubelet tells the story as the log of the stand-in kubelet has it.
func fromKubelet(log []set) string {
	story, phase := "Pod Queued", "Pending"
	for _, s := range log {
		if s.Op != "status" || s.Phase == phase {
			continue
		}
		switch phase = s.Phase; {
		case s.Phase == "Running":
			story += ">Running"
		case s.Phase == "Succeeded":
			story += ">Succeeded(Completed)"
		case s.Deleting:
			story += ">Cancelled(Deleted)"
		default:
			story += ">Failed(" + s.Reason + ")"
		}
	}
	return story
}

// latencies is how long after the writer's answer each change was
// acknowledged, and read by the agent. The writer of Queued is the test, of
// the rest the kubelet.
func latencies(t *testing.T, l *load, log map[string][]set, events []event) (acked, seen []time.Duration) {
	t.Helper()
	for _, e := range events {
		uid := e.Data.Workload.UID
		written := l.created[types.UID(uid)]
		if e.Data.To != "Queued" {
			i := slices.IndexFunc(log[uid], func(s set) bool {
				return s.Op == "status" && s.Phase != "Pending" && (s.Phase == "Running") == (e.Data.To == "Running")
			})
			if i < 0 {
				t.Errorf("%s %s: the kubelet set no such status", e.Subject, e.Data.To)
				continue
			}
			written = log[uid][i].Time
		}
		acked = append(acked, max(0, e.acked.Sub(written)))
		seen = append(seen, max(0, e.Data.Observed.Sub(written)))
	}
	slices.Sort(acked)
	slices.Sort(seen)
	return acked, seen
}

func quantiles(sorted []time.Duration) string {
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, max %s",
		quantile(sorted, 0.5), quantile(sorted, 0.9), quantile(sorted, 0.99), quantile(sorted, 1))
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Round(100 * time.Microsecond)
}

func compare(t *testing.T, where string, want, got map[string]string) {
	t.Helper()
	wrong := 0
	for uid, story := range want {
		if got[uid] == story {
			continue
		}
		if wrong++; wrong <= 10 {
			t.Errorf("%s: %s: got %q, want %q", where, uid, got[uid], story)
		}
	}
	if wrong > 0 || len(got) != len(want) {
		t.Errorf("%s: %d of %d stories are wrong, and %d were told", where, wrong, len(want), len(got))
	}
}

func sameIDs(t *testing.T, a, b []event) {
	t.Helper()
	ids := func(events []event) []string {
		out := make([]string, len(events))
		for i, e := range events {
			out[i] = e.ID
		}
		slices.Sort(out)
		return out
	}
	if x, y := ids(a), ids(b); slices.Compare(x, y) != 0 {
		t.Errorf("the webhook has %d changes, the file %d, or not the same ones", len(x), len(y))
	}
}

func TestJobs(t *testing.T) {
	needCluster(t)
	ns, dir, hook := namespace(t, "jobs"), workDir(t), startReceiver(t)
	a := startAgent(t, dir, fmt.Sprintf(config, ns))
	jobs := env.client.BatchV1().Jobs(ns)
	create := func(name string, annotations map[string]string, edit func(*batchv1.JobSpec)) string {
		limit := int32(0)
		spec := batchv1.JobSpec{BackoffLimit: &limit}
		spec.Template.Annotations = annotations
		spec.Template.Spec = newPod("", plan{}).Spec
		if edit != nil {
			edit(&spec)
		}
		j, err := jobs.Create(t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return string(j.UID)
	}
	suspend := func(yes bool) {
		patch := fmt.Sprintf(`{"spec":{"suspend":%v}}`, yes)
		if _, err := jobs.Patch(t.Context(), "pausing", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	told := func(uid, story string) {
		t.Helper()
		waitFor(t, 30*time.Second, story, func() bool { return storyOf(hook.received(), uid) == story })
	}
	second := map[string]string{"devcluster/run": "1s"}
	complete := create("complete", second, nil)
	failing := create("failing", map[string]string{"devcluster/run": "1s", "devcluster/exit": "7"}, nil)
	retried := create("retried", map[string]string{"devcluster/run": "100ms", "devcluster/exit": "7"}, func(s *batchv1.JobSpec) { *s.BackoffLimit = 1 })
	deadline := create("deadline", nil, func(s *batchv1.JobSpec) { limit := int64(2); s.ActiveDeadlineSeconds = &limit })
	held := create("held", second, func(s *batchv1.JobSpec) { yes := true; s.Suspend = &yes })
	pausing := create("pausing", nil, nil)
	deleted := create("deleted", nil, nil)

	told(pausing, "Queued>Running")
	suspend(true)
	told(pausing, "Queued>Running>Queued(Suspended)")
	suspend(false)
	told(pausing, "Queued>Running>Queued(Suspended)>Running")
	told(deleted, "Queued>Running")
	background := metav1.DeletePropagationBackground
	if err := jobs.Delete(t.Context(), "deleted", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
	told(deleted, "Queued>Running>Cancelled(Deleted)")
	told(complete, "Queued>Running>Succeeded(CompletionsReached)")
	told(failing, "Queued>Running>Failed(BackoffLimitExceeded)")
	told(deadline, "Queued>Running>Failed(DeadlineExceeded)")
	told(retried, "Queued>Running>Failed(BackoffLimitExceeded)")
	told(held, "Queued")
	if err := jobs.DeleteCollection(t.Context(), metav1.DeleteOptions{PropagationPolicy: &background}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	drained(t, ns, time.Minute)
	told(held, "Queued>Cancelled(Deleted)")
	told(pausing, "Queued>Running>Queued(Suspended)>Running>Cancelled(Deleted)")
	told(complete, "Queued>Running>Succeeded(CompletionsReached)")
	a.stop()
	all := stories(t, "webhook", hook.received())
	if len(all) != 7 {
		t.Errorf("%d stories, want 7: the pods of a Job tell no story of their own: %v", len(all), all)
	}
	compare(t, "file", all, stories(t, "file", readFile(t, filepath.Join(dir, "changes.ndjson"))))
}

// storyOf is one workload's story, without its kind.
func storyOf(events []event, uid string) (story string) {
	mine := slices.DeleteFunc(events, func(e event) bool { return e.Data.Workload.UID != uid })
	slices.SortFunc(mine, func(a, b event) int { return cmp.Compare(a.Data.Seq, b.Data.Seq) })
	for i, e := range mine {
		if i > 0 {
			story += ">"
		}
		story += e.Data.To
		if e.Data.Reason != "" && i > 0 {
			story += "(" + e.Data.Reason + ")"
		}
	}
	return story
}

func TestAReceiverThatFailsAndThenIsSlow(t *testing.T) {
	needCluster(t)
	ns, dir, hook := namespace(t, "slow"), workDir(t), startReceiver(t)
	a := startAgent(t, dir, fmt.Sprintf(config, ns))
	hook.answers(500, 0)
	go func() {
		time.Sleep(5 * time.Second) // sleep: the outage lasts this long, that is the test
		hook.answers(0, 50*time.Millisecond)
	}()
	var l load
	l.run(t.Context(), t, ns, 300, 60)
	began := time.Now()
	drained(t, ns, time.Minute)
	t.Logf("drained %s after the last deletion; %d tries for %d changes", time.Since(began).Round(time.Millisecond), hook.tried(), len(hook.received()))
	if retries := pipelines(t)["delivery/platform"]["retries"]; retries == 0 {
		t.Error("no retries are counted, want those of the outage")
	}
	a.stop()
	compare(t, "webhook", l.want, stories(t, "webhook", hook.received()))
	compare(t, "file", l.want, stories(t, "file", readFile(t, filepath.Join(dir, "changes.ndjson"))))
}
