package e2e

import (
	"cmp"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestDeadLetterAndReplay has the receiver refuse one change of a Job as such:
// the later ones come and say so, and a replay brings it. At each step the
// receiver can prove what it has.
func TestDeadLetterAndReplay(t *testing.T) {
	needCluster(t)
	s := newSession(t, "letters")
	var refusing atomic.Bool
	refusing.Store(true)
	s.hook.judges(func(e event) int {
		if refusing.Load() && e.Data.Workload.Name == "refused" && e.Data.Seq == 2 {
			return http.StatusUnprocessableEntity
		}
		return 0
	})
	a := s.start(t, configOf(s.ns))
	others := pods(t, s.ns, "others", 5, second)
	job, err := env.client.BatchV1().Jobs(s.ns).Create(t.Context(), newJob("refused", nil), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	uid := string(job.UID)
	told := func(r string, seq int64, more ...skip) event {
		t.Helper()
		var found event
		waitFor(t, 30*time.Second, "seq "+r, func() bool {
			events := changesOf(s.hook.received(), uid)
			i := slices.IndexFunc(events, func(e event) bool { return e.Data.Seq == seq })
			if i >= 0 {
				found = events[i]
			}
			return i >= 0
		})
		if diff := gocmp.Diff(more, found.Data.Skipped); diff != "" {
			t.Errorf("seq %d: skipped (-want +got):\n%s", seq, diff)
		}
		return found
	}
	jobRuns(t, s.ns, "refused")
	waitFor(t, 30*time.Second, "the dead letter to be counted", func() bool {
		_, message := check(t, "sink/platform")
		return strings.Contains(message, "1 dead letters in the last hour")
	})
	suspendJob(t, s.ns, "refused", true)
	if e := told("3", 3, skip{2, 2, "dead_letter"}); e.Data.Previous != 1 {
		t.Errorf("the change after the dead letter has previous %d, want 1", e.Data.Previous)
	}
	suspendJob(t, s.ns, "refused", false)
	told("4", 4)
	if r := whole(t, "with a dead letter", s.hook.everything()); r.Explained["dead_letter"] != 1 {
		t.Errorf("the receiver knows of %v that was left out, want one dead letter", r.Explained)
	}
	replayed(t, s, uid, &refusing)
	deleteJob(t, s.ns, "refused")
	if e := told("5", 5); e.Data.Previous != 4 {
		t.Errorf("the change after the replay has previous %d, want 4", e.Data.Previous)
	}
	others.tell(s.want, podSucceeds)
	s.hook.tells(t, time.Minute, s.want)
	marked(t, s.hook, highest(s.hook.received()))
	a.stop()
	s.want[uid] = "Job Queued>Running>Queued(Suspended)>Running>Cancelled(Deleted)"
	compare(t, "file", s.want, stories(t, "file", s.archive(t)))
	sameIDs(t, s.received(t), s.archive(t))
	if r := whole(t, "after the replay", s.hook.everything()); len(r.Explained) > 0 || r.Filled != 1 {
		t.Errorf("the receiver misses %v, and filled %d holes, want none and one", r.Explained, r.Filled)
	}
	addUp(t, "webhook", s.hook.everything(), false)
	s.verified(t)
}

// replayed has the one dead letter sent again, and wants it to be the change
// as the file has it.
func replayed(t *testing.T, s *session, uid string, refusing *atomic.Bool) {
	t.Helper()
	if out, err := runOnce(s.dir, "ledger", "deadletters"); err != nil || strings.Count(out, s.ns+"/Job/refused") != 1 || !strings.Contains(out, "422") {
		t.Errorf("ledger deadletters: %v, want the one of Job refused and its status 422:\n%s", err, out)
	}
	refusing.Store(false)
	if out, err := runOnce(s.dir, "ledger", "replay", "--sink", "platform", "--dead-letters"); err != nil {
		t.Fatalf("ledger replay: %v\n%s", err, out)
	}
	find := func(events []event) (event, bool) {
		i := slices.IndexFunc(events, func(e event) bool { return e.Data.Workload.UID == uid && e.Data.Seq == 2 })
		if i < 0 {
			return event{}, false
		}
		return events[i], true
	}
	var got event
	waitFor(t, 30*time.Second, "the replay", func() (ok bool) {
		got, ok = find(s.hook.received())
		return ok
	})
	want, _ := find(s.archive(t))
	if !got.Data.Replayed || got.ID != want.ID {
		t.Errorf("got %s, want a replay of %s", got.body, want.body)
	}
	got.Data.Replayed = false
	if diff := gocmp.Diff(want.Data, got.Data, gocmp.AllowUnexported(change{})); diff != "" {
		t.Errorf("the replay is not the change (-want +got):\n%s", diff)
	}
	if out, err := runOnce(s.dir, "ledger", "deadletters"); err != nil || strings.Contains(out, "refused") {
		t.Errorf("ledger deadletters after the replay: %v, want none:\n%s", err, out)
	}
}

// jobRuns waits until a Job's pod runs.
func jobRuns(t *testing.T, ns, name string) {
	t.Helper()
	waitFor(t, 30*time.Second, "the pod of Job "+name+" to run", func() bool {
		j, err := env.client.BatchV1().Jobs(ns).Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && j.Status.Ready != nil && *j.Status.Ready > 0
	})
}

func deleteJob(t *testing.T, ns, name string) {
	t.Helper()
	background := metav1.DeletePropagationBackground
	if err := env.client.BatchV1().Jobs(ns).Delete(t.Context(), name, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
}

// TestAReceiverThatForgets answers 200 to every fiftieth event and forgets it.
// What it has tells of each that is not there: the next change of the workload
// by its previous, a mark by its count.
func TestAReceiverThatForgets(t *testing.T) {
	needCluster(t)
	s := newSession(t, "forgets")
	s.killed = true
	var forgotten []event // by the receiver, which calls judge one at a time
	n := 0
	s.hook.judges(func(e event) int {
		if e.Type != changeType {
			return 0
		}
		if n++; n%50 != 0 {
			return 0
		}
		forgotten = append(forgotten, e)
		return forgets
	})
	a := launch(t, s.dir, configOf(s.ns), atAReplay[0].name+"=kill")
	a.ready()
	var l load
	l.run(t.Context(), t, s.ns, 200, 60)
	drained(t, s.ns, time.Minute)
	marked(t, s.hook, highest(s.archive(t)))
	s.hook.judges(nil)
	s.want = l.stories()
	compare(t, "file", s.want, stories(t, "file", s.archive(t)))
	whole(t, "file", readRecord(t, s.file()))

	if len(forgotten) != 12 {
		t.Fatalf("the receiver forgot %d changes, want 12 of 600", len(forgotten))
	}
	r := proof(t, "webhook", s.hook.everything())
	if r.Whole {
		t.Fatalf("the receiver takes itself for whole:\n%s", textOf(t, r))
	}
	chained := int64(0)
	for _, e := range forgotten {
		byChain, byMark := false, false
		for _, m := range r.Missing {
			byChain = byChain || m.Source == e.Source && m.Cause == "" && m.From <= e.Data.Seq && e.Data.Seq <= m.To
		}
		for _, a := range r.Accounts {
			byMark = byMark || a.Above < e.Data.Number && e.Data.Number <= a.UpTo && a.Got < a.Want
		}
		if byChain {
			chained++
		}
		if last := e.Data.To != "Queued" && e.Data.To != "Running"; byChain == last || !byMark {
			t.Errorf("%s seq %d, to %s, is forgotten: found by the chain: %v, by a mark: %v", e.Subject, e.Data.Seq, e.Data.To, byChain, byMark)
		}
	}
	missing := int64(0)
	for _, a := range r.Accounts {
		missing += a.Want - a.Got
	}
	if r.Unexplained != chained || missing != int64(len(forgotten)) {
		t.Errorf("%d changes are missed by the chain, %d by marks, want %d and %d:\n%s", r.Unexplained, missing, chained, len(forgotten), textOf(t, r))
	}
	t.Logf("%d forgotten: marks found all, the chain %d", len(forgotten), chained)
	s.restores(t, a)
}

// atAReplay is where the agent is killed when it is asked for a replay.
// Read-only.
var atAReplay = []place{{"ledger/replay", 1}}

// restores has everything sent again to a receiver that has forgotten some of
// it. The first time the agent is killed, and nothing comes of it.
func (s *session) restores(t *testing.T, a *agent) {
	t.Helper()
	replay := []string{"ledger", "replay", "--sink", "platform", "--from", "1", "--rate", "0"}
	if out, err := runOnce(s.dir, replay...); err == nil {
		t.Errorf("ledger replay of an agent that was killed: want an error: %s", out)
	}
	a.died(atAReplay[0].name, 20*time.Second)
	a = startAgent(t, s.dir, configOf(s.ns))
	quiet(t, time.Minute)
	if r := proof(t, "before the replay", s.hook.everything()); r.Replays > 0 {
		t.Errorf("%d events came of a replay that was not begun, want none", r.Replays)
	}
	had := len(s.hook.received()) // what the killed agent had not noted as acknowledged came again
	if out, err := runOnce(s.dir, replay...); err != nil {
		t.Fatalf("ledger replay: %v\n%s", err, out)
	}
	waitFor(t, time.Minute, "all of the replay", func() bool { return len(s.hook.received()) == had+len(s.archive(t)) })
	a.stop()
	if r := whole(t, "after the replay", s.hook.everything()); r.Replays != int64(len(s.archive(t))) {
		t.Errorf("%d replays came, want all %d changes", r.Replays, len(s.archive(t)))
	}
	events := s.hook.received()
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.Data.Seq, b.Data.Seq) })
	compare(t, "webhook", s.want, tellings(events))
	// The receiver's record has the changes in another order than they are linked.
	verify(t, "--against", s.file(), "--sink", "archive", "--dir", filepath.Join(s.dir, "outrider-data"))
}
