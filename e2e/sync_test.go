package e2e

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestPodsAtSixtyASecond(t *testing.T) {
	needCluster(t)
	s := newSession(t, "load")
	a := s.start(t, configOf(s.ns))
	var l load
	l.run(t.Context(), t, s.ns, 600, 60)
	drained(t, s.ns, time.Minute)
	a.stop()

	s.want = l.stories()
	events := s.outcome(t)
	fromTheWatch(t, events)
	log := kubeletLog(t, s.ns)
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

func TestJobs(t *testing.T) {
	needCluster(t)
	s := newSession(t, "jobs")
	a := s.start(t, configOf(s.ns))
	jobs := env.client.BatchV1().Jobs(s.ns)
	create := func(name string, annotations map[string]string, edit func(*batchv1.JobSpec)) string {
		j := newJob(name, annotations)
		if edit != nil {
			edit(&j.Spec)
		}
		j, err := jobs.Create(t.Context(), j, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return string(j.UID)
	}
	suspend := func(yes bool) { suspendJob(t, s.ns, "pausing", yes) }
	told := func(uid, story string) {
		t.Helper()
		waitFor(t, 30*time.Second, story, func() bool { return storyOf(s.hook.received(), uid) == story })
		s.want[uid] = "Job " + story
	}
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
	drained(t, s.ns, time.Minute)
	told(held, "Queued>Cancelled(Deleted)")
	told(pausing, "Queued>Running>Queued(Suspended)>Running>Cancelled(Deleted)")
	told(complete, "Queued>Running>Succeeded(CompletionsReached)")
	a.stop()
	s.told(t) // and the pods of a Job tell no story of their own
}

// suspendJob suspends a Job, or lets it go on.
func suspendJob(t *testing.T, ns, name string, yes bool) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec":{"suspend":%v}}`, yes)
	if _, err := env.client.BatchV1().Jobs(ns).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestAReceiverThatFailsAndThenIsSlow(t *testing.T) {
	needCluster(t)
	s := newSession(t, "slow")
	a := s.start(t, configOf(s.ns))
	s.hook.answers(500, 0)
	go func() {
		time.Sleep(5 * time.Second) // sleep: the outage lasts this long, that is the test
		s.hook.answers(0, 50*time.Millisecond)
	}()
	var l load
	l.run(t.Context(), t, s.ns, 300, 60)
	began := time.Now()
	drained(t, s.ns, time.Minute)
	t.Logf("drained %s after the last deletion; %d tries for %d changes", time.Since(began).Round(time.Millisecond), s.hook.tried(), len(s.hook.received()))
	if retries := pipelines(t)["delivery/platform"]["retries"]; retries == 0 {
		t.Error("no retries are counted, want those of the outage")
	}
	a.stop()
	s.want = l.stories()
	fromTheWatch(t, s.outcome(t))
}
