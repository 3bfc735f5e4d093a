package e2e

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// TestALedgerThatIsLockedClosesTheGateAndLosesNothing locks the database from
// outside until the watches are held, and some time more, in which a Job is
// created, fails and is deleted. All of it is told, in order, and nothing by
// a list: the watches went on where they had stopped.
func TestALedgerThatIsLockedClosesTheGateAndLosesNothing(t *testing.T) {
	needCluster(t)
	s := newSession(t, "gate")
	a := s.start(t, with(t, configOf(s.ns), "  sinks:", "  max_pending: 100\n  sinks:"))
	unlock := lockLedger(t, filepath.Join(s.dir, "outrider-data", "ledger.db"))
	jobUID := make(chan string, 1)
	var held sync.WaitGroup
	t.Cleanup(held.Wait)
	held.Go(func() {
		defer unlock()
		defer close(jobUID)
		if waitHeld(t) {
			jobUID <- shortJob(t, s.ns)
		}
	})
	var l load
	l.run(t.Context(), t, s.ns, 200, 60)
	failed := <-jobUID
	drained(t, s.ns, time.Minute)
	a.stop()

	events := s.hook.received()
	told := stories(t, "webhook", events)
	// The streams of pods and of Jobs go on each by itself: the Job's end may
	// be read before its pod is, which then is too late to tell.
	if got := told[failed]; got != "Job Queued>Running>Failed(BackoffLimitExceeded)" && got != "Job Queued>Failed(BackoffLimitExceeded)" {
		t.Errorf("the Job's story: got %q, want it queued and failed", got)
	}
	delete(told, failed)
	compare(t, "webhook", l.want, told)
	fromTheWatch(t, events)
	s.verified(t)
}

// lockLedger keeps the agent from committing until unlock is called.
func lockLedger(t *testing.T, path string) (unlock func()) {
	t.Helper()
	c, err := sqlite.OpenConn(path, sqlite.OpenReadWrite|sqlite.OpenWAL)
	if err != nil {
		t.Fatal(err)
	}
	if err := sqlitex.ExecuteTransient(c, "BEGIN IMMEDIATE", nil); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := sqlitex.ExecuteTransient(c, "ROLLBACK", nil); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// waitHeld waits until a stream waits at the gate.
func waitHeld(t *testing.T) bool {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if _, body := get("http://127.0.0.1:9610/metrics"); strings.Contains(body, `outrider_stream_held{stream="pods/gate"} 1`) {
			return true
		}
		time.Sleep(50 * time.Millisecond) // sleep: between two looks
	}
	t.Error("no stream was held, want the gate closed")
	return false
}

// shortJob lives and fails while nobody watches, and returns its UID.
func shortJob(t *testing.T, ns string) string {
	jobs := env.client.BatchV1().Jobs(ns)
	created, err := jobs.Create(t.Context(), newJob("short", map[string]string{"devcluster/run": "100ms", "devcluster/exit": "1"}), metav1.CreateOptions{})
	if err != nil {
		t.Error(err)
		return ""
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if j, err := jobs.Get(t.Context(), "short", metav1.GetOptions{}); err == nil && j.Status.Failed > 0 && len(j.Status.Conditions) > 1 {
			break
		}
		time.Sleep(100 * time.Millisecond) // sleep: between two looks
	}
	background := metav1.DeletePropagationBackground
	if err := jobs.Delete(t.Context(), "short", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Error(err)
	}
	return string(created.UID)
}
