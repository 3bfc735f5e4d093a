package ledger

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// numbersIn returns the numbers of the changes in the file.
func numbersIn(t testing.TB, dir string) (out []int64) {
	t.Helper()
	s := visit(t, dir)
	for n := s.number("SELECT coalesce(min(n), 0) FROM changes"); n != 0; n = s.number(fmt.Sprintf("SELECT coalesce(min(n), 0) FROM changes WHERE n > %d", n)) {
		out = append(out, n)
	}
	return out
}

// retainAll has all deleted that need not be kept.
func retainAll(l *Ledger) {
	for l.retain().more {
	}
}

// TestAParkedChangeIsKept while others around it go, far behind, until it is
// settled, or its sink is let go.
func TestAParkedChangeIsKept(t *testing.T) {
	t.Parallel()
	for name, letGo := range map[string]func(t *testing.T, l *Ledger, place int64){
		"settled": func(t *testing.T, l *Ledger, place int64) {
			save(t, l, statesync.Progress{Sink: "s", Settled: []int64{place}})
		},
		"detached": func(t *testing.T, l *Ledger, _ int64) {
			save(t, l, statesync.Progress{Sink: "s", Detach: statesync.DetachedGone})
		},
		"released": func(_ *testing.T, l *Ledger, _ int64) { l.Release("s") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := epoch
			o := options(t.TempDir())
			o.Now = func() time.Time { return now }
			l := openWith(t, o)
			cursorOf(t, l, "s")
			cursorOf(t, l, "other")
			const n = 2*retainChunk + 10
			for i := range int64(n / 10) {
				commit(t, l, entry("a", 10*i+1, 10))
			}
			var put []statesync.Offered
			for _, number := range []int64{3, retainChunk, retainChunk + 1, n - 5} {
				put = append(put, offered(t, l, number))
			}
			save(t, l, statesync.Progress{Sink: "s", Acked: n, PutAside: put})
			save(t, l, statesync.Progress{Sink: "other", Acked: n - 2, PutAside: []statesync.Offered{skipped("a", 1, 2, "x")}})
			now = now.Add(25 * time.Hour)
			l.retains.sweep = now
			retainAll(l)
			want := []int64{3, retainChunk, retainChunk + 1, n - 5, n - 1, n}
			if diff := cmp.Diff(want, numbersIn(t, o.Dir)); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
			if got, err := l.Read(t.Context(), statesync.ReadQuery{Sink: "other", After: n - 2, Limit: 10}); err != nil || len(got) != 2 {
				t.Errorf("above the cursor: %d changes, %v, want 2", len(got), err)
			}
			if got := tellAll(asides(t, l, "s")); len(got) != 4 || got[0] != "a 3 number 3" {
				t.Errorf("put aside %q, want the 4 with their changes", got)
			}
			letGo(t, l, 1)
			now = now.Add(retainEvery)
			retainAll(l)
			if name == "settled" {
				if left := numbersIn(t, o.Dir); !slices.Equal(left, want) {
					t.Errorf("kept %v: looked through again at once", left)
				}
				now = now.Add(keptEvery)
				retainAll(l)
			}
			if want = want[1:]; name != "settled" {
				want = want[3:]
			}
			if diff := cmp.Diff(want, numbersIn(t, o.Dir)); diff != "" {
				t.Errorf("kept then (-want +got):\n%s", diff)
			}
			if l.pruned["changes"] != n-int64(len(want)) {
				t.Errorf("%d counted, want %d", l.pruned["changes"], n-len(want))
			}
		})
	}
}

// TestATombstoneGoesThoughAnOlderChangeIsParked, and what was told of it with
// it; that of the parked one stays.
func TestATombstoneGoesThoughAnOlderChangeIsParked(t *testing.T) {
	t.Parallel()
	now := epoch
	o := options(t.TempDir())
	o.Now = func() time.Time { return now }
	l := openWith(t, o)
	cursorOf(t, l, "s")
	first, second := entry("first", 1, 2), ended("second", 1, statesync.Failed, true)
	first.Row.Gone = true
	first.Row.Removed, second.Row.Removed = 9, 9
	commit(t, l, first, second)
	told := []statesync.Skip{{From: 1, To: 1, Cause: statesync.SkipFilter}}
	save(t, l, statesync.Progress{
		Sink: "s", Acked: 3, PutAside: []statesync.Offered{offered(t, l, 1)},
		Told: []statesync.Told{{UID: "first", Skipped: told}, {UID: "second", Skipped: told}},
	})
	for range 3 {
		now = now.Add(25 * time.Hour)
		retainAll(l)
	}
	s := visit(t, o.Dir)
	if n := s.number("SELECT count(*) FROM workloads WHERE uid = 'first'"); n != 1 {
		t.Error("the workload of a parked change is gone")
	}
	if n := s.number("SELECT count(*) FROM workloads"); n != 1 {
		t.Errorf("%d workloads, want that of the parked change alone", n)
	}
	if n := s.number("SELECT count(*) FROM told WHERE workload IN (SELECT id FROM workloads)"); n != 1 || s.number("SELECT count(*) FROM told") != 1 {
		t.Errorf("%d told of workloads that are there, of %d", n, s.number("SELECT count(*) FROM told"))
	}
	save(t, l, statesync.Progress{Sink: "s", Settled: []int64{1}, Told: []statesync.Told{{UID: "second", Skipped: told}}})
	for range 3 {
		now = now.Add(25 * time.Hour)
		retainAll(l)
	}
	if n := s.number("SELECT (SELECT count(*) FROM workloads) + (SELECT count(*) FROM told) + (SELECT count(*) FROM changes)"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// TestWhoPresses: the sinks that hold the most of a ledger that is nearly
// full, be it in what they have not settled or in what they have parked; once
// one gives way, the others are not asked before that has had its effect.
func TestWhoPresses(t *testing.T) {
	t.Parallel()
	now := epoch
	o := options(t.TempDir())
	o.MaxBytes = 1 << 20
	o.Now = func() time.Time { return now }
	l := openWith(t, o)
	for _, sink := range []string{"parks", "slow", "well"} {
		cursorOf(t, l, sink)
	}
	pressed := func() (out []string) {
		for _, sink := range []string{"nobody", "parks", "slow", "well"} {
			if l.Pressed(sink) {
				out = append(out, sink)
			}
		}
		return out
	}
	fill := func() {
		for range 300 {
			head, _ := l.Head()
			if err := l.Append(t.Context(), big("a", head+1)); err != nil {
				t.Fatal(err)
			}
			now = now.Add(retainEvery)
			l.commitAll(t.Context())
			if books(t, l).Queued > 0 {
				return
			}
			if next, _ := l.Head(); next > head {
				parked := offered(t, l, next)
				l.Save(statesync.Progress{Sink: "parks", Acked: next, PutAside: []statesync.Offered{parked}})
				l.Save(statesync.Progress{Sink: "slow", Acked: next / 2})
				l.Save(statesync.Progress{Sink: "well", Acked: next})
			}
		}
		t.Fatal("the ledger is not full")
	}
	if got := pressed(); got != nil {
		t.Errorf("pressed %q at the start", got)
	}
	fill()
	if diff := cmp.Diff([]string{"parks"}, pressed()); diff != "" {
		t.Errorf("pressed (-want +got):\n%s", diff)
	}
	if _, err := l.Failure(); err == nil || !strings.Contains(err.Error(), "sink parks holds ") {
		t.Errorf("failure %v, want who holds how much", err)
	}
	head, _ := l.Head()
	l.Save(statesync.Progress{Sink: "parks", Acked: head, Detach: statesync.DetachedFull})
	group, savings := l.next()
	newHead, ok := l.commitUntilDurable(t.Context(), group, savings)
	if !ok {
		t.Fatal("not durable")
	}
	l.settle(group, savings, newHead)
	if got := pressed(); got != nil {
		t.Errorf("pressed %q before anything was deleted", got)
	}
	now = now.Add(truncateEvery)
	l.commitAll(t.Context())
	if s := books(t, l); s.Queued != 0 || l.Pressed("slow") {
		_, err := l.Failure()
		t.Errorf("%d entries wait, %v: there is room", s.Queued, err)
	}
	fill()
	now = now.Add(truncateEvery)
	l.commitAll(t.Context())
	if diff := cmp.Diff([]string{"slow"}, pressed()); diff != "" {
		t.Errorf("pressed then (-want +got):\n%s", diff)
	}
}
