package ledger

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/ledger/replay"
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
			o := options(t, t.TempDir())
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
	o := options(t, t.TempDir())
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
	o := options(t, t.TempDir())
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
	// A WAL that is made short leaves room once more, and what was put aside for
	// the detached sink gives way first.
	for i := 0; i < 5 && pressed() == nil; i++ {
		if books(t, l).Queued == 0 {
			fill()
		}
		now = now.Add(truncateEvery)
		l.commitAll(t.Context())
	}
	if diff := cmp.Diff([]string{"slow"}, pressed()); diff != "" {
		t.Errorf("pressed then (-want +got):\n%s", diff)
	}
}

// TestWhatIsPutAsideForNobodyGivesWay before the sink that delivers does: what
// sinks that were renamed again and again were to be told.
func TestWhatIsPutAsideForNobodyGivesWay(t *testing.T) {
	t.Parallel()
	now := epoch
	o := options(t, t.TempDir())
	o.MaxBytes = 8 << 20
	o.Now = func() time.Time { return now }
	l := openWith(t, o)
	identified(t, l)
	cursorOf(t, l, "well")
	for i := range 300 {
		commit(t, l, entry(fmt.Sprint("u", i), 1, 1))
	}
	l.truncate()
	head, _ := l.Head()
	save(t, l, statesync.Progress{Sink: "well", Acked: head})
	full := func() bool { l.retain(); return l.size.Load() >= l.tightBytes() }
	names := 0
	for ; !full(); names++ {
		if names == 100 {
			t.Fatal("the ledger is not full")
		}
		name := fmt.Sprint("platform-", names)
		cursorOf(t, l, name)
		l.Release(name)
		l.truncate()
	}
	pressed := false
	for i := range 20 { // one change in flight
		commit(t, l, entry("u1", int64(i)+2, 1))
		l.Save(statesync.Progress{Sink: "well", Acked: head + int64(i)})
		now = now.Add(3 * time.Second)
		l.commitAll(t.Context())
		pressed = pressed || l.Pressed("well")
	}
	if size := l.size.Load(); pressed || size >= l.tightBytes() || len(asides(t, l, "platform-0")) > 0 {
		t.Errorf("pressed: %t, with %d bytes of %d and %d names", pressed, size, o.MaxBytes, names)
	}
	if c := cursorOf(t, l, "platform-0"); c.Detached != statesync.DetachedFull || c.DetachedAt.IsZero() {
		t.Errorf("cursor %+v, want it detached", c)
	}
	if _, err := l.Attach(t.Context(), "platform-0"); err != nil {
		t.Fatal(err)
	}
	if got := asides(t, l, "platform-0"); len(got) != 301 || got[0].Gap == nil || !got[300].Initial {
		t.Errorf("%d put aside, want a gap, and where 300 workloads stand", len(got))
	}
	l.Release("platform-0")
	before := l.unchecked.Load()
	if err := l.Forget(t.Context(), "platform-0"); err != nil || l.unchecked.Load() < before+301*1024 {
		t.Errorf("forget: %v, and %d bytes written to the WAL, want about a KiB for each of 301 rows", err, l.unchecked.Load()-before)
	}
}

// TestWhoIsReplayedToPresses, and not the sink that is a few changes behind.
func TestWhoIsReplayedToPresses(t *testing.T) {
	t.Parallel()
	now := epoch
	o := options(t, t.TempDir())
	o.MaxBytes = 4 << 20
	o.Now = func() time.Time { return now }
	l := openWith(t, o)
	identified(t, l)
	for _, sink := range []string{"s", "well"} {
		cursorOf(t, l, sink)
	}
	for i := range int64(20) {
		commit(t, l, big("u", i+1))
	}
	head, _ := l.Head()
	refused := offered(t, l, 1)
	save(t, l, statesync.Progress{Sink: "s", Acked: head, Letters: []statesync.DeadLetter{{Delivery: refused.Delivery}}})
	save(t, l, statesync.Progress{Sink: "well", Acked: head})
	for refused := false; !refused; {
		l.truncate()
		_, err := runReplay(t, l, replay.Query{From: 1})
		refused = errors.Is(err, replay.ErrRefused)
	}
	for i := range int64(300) {
		if err := l.Append(t.Context(), big("v", i+1)); err != nil {
			t.Fatal(err)
		}
		l.commitAll(t.Context())
		if head, _ = l.Head(); books(t, l).Queued > 0 {
			break
		}
		l.Save(statesync.Progress{Sink: "s", Acked: head})
		now = now.Add(3 * time.Second)
		l.commitAll(t.Context())
	}
	if !l.Pressed("s") || l.Pressed("well") {
		t.Errorf("pressed: the one that is replayed to %t, the other %t", l.Pressed("s"), l.Pressed("well"))
	}
	_, err := l.Failure()
	const want = `sink s holds \d{3,} entries put aside, 1 dead letters; sink well holds \d+ changes$`
	if err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
		t.Errorf("failure %v, want %s", err, want)
	}
	l.Save(statesync.Progress{Sink: "s", Acked: head, Detach: statesync.DetachedFull})
	for range 2 { // the write-ahead log of so much deleting is cut too
		l.commitAll(t.Context())
		now = now.Add(truncateEvery)
	}
	if _, err := l.Failure(); err != nil || len(asides(t, l, "s")) > 0 {
		t.Errorf("%v, and %d put aside: want room once it is detached", err, len(asides(t, l, "s")))
	}
}

// TestWhatIsToldAnewGivesWayAlone: a sink to which nothing is delivered is told
// the same when it comes back, whether what was put aside for it gave way or not.
func TestWhatIsToldAnewGivesWayAlone(t *testing.T) {
	t.Parallel()
	back := func(gives bool) (before, left, after []string, c statesync.Cursor) {
		l, _ := replays(t, options(t, t.TempDir()))
		record(t, l, ended("gone", 1, statesync.Failed, false)) // 7
		saveNow(t, l, statesync.Progress{Sink: "s", Acked: 7, PutAside: []statesync.Offered{offered(t, l, 6), offered(t, l, 7)}, Detach: statesync.DetachedGone})
		if _, err := l.Attach(t.Context(), "s"); err != nil { // a gap, and where a, b and gone stand
			t.Fatal(err)
		}
		record(t, l, entry("a", 5, 2), ended("late", 1, statesync.Failed, false), entry("b", 3, 1)) // 8 to 11
		leftOut := offered(t, l, 11)
		leftOut.Cause, leftOut.FromSeq = "x", leftOut.Seq
		saveNow(t, l, statesync.Progress{
			Sink: "s", Acked: 11, Marked: &statesync.Mark{Number: 8},
			PutAside: []statesync.Offered{skipped("a", 3, 3, "x"), offered(t, l, 8), offered(t, l, 9), offered(t, l, 10), leftOut},
		})
		letters(t, l)
		for _, q := range []replay.Query{{Letters: true}, {From: 1, To: 1}} {
			if _, err := runReplay(t, l, q); err != nil {
				t.Fatal(err)
			}
		}
		drop := func() {
			l.writing.Lock()
			defer l.writing.Unlock()
			l.retains.leftovers = time.Time{}
			if _, more, err := l.dropLeftovers(epoch); err != nil || more {
				t.Fatal(more, err)
			}
		}
		drop() // nothing: the sink is delivered to
		before = tellAll(asides(t, l, "s"))
		if !gives {
			saveNow(t, l, statesync.Progress{Sink: "s", Acked: 11, Detach: statesync.DetachedFull})
		}
		l.Release("s")
		if gives {
			drop()
		}
		left = tellAll(asides(t, l, "s"))
		c, err := l.Attach(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		return before, left, tellAll(asides(t, l, "s")), c
	}
	before, all, want, whole := back(false)
	again, left, got, c := back(true)
	if diff := cmp.Diff(before, again); diff != "" {
		t.Errorf("of a sink that is delivered to (-want +got):\n%s", diff)
	}
	for _, o := range left {
		all = slices.Delete(all, slices.Index(all, o), slices.Index(all, o)+1)
	}
	if diff := cmp.Diff([]string{"a 4 initial Running", "b 2 initial Running", "a 6 number 9", "late 1 number 10", "b 3-3 x", "a 1 replayed"}, all); diff != "" {
		t.Errorf("gave way (-want +got):\n%s", diff)
	}
	want = slices.DeleteFunc(want, func(s string) bool { return s == "a 1 replayed" })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what it is told when it comes back (-want +got):\n%s", diff)
	}
	whole.Aside-- // the replay of the log
	if diff := cmp.Diff(whole, c, ignoreTop); diff != "" {
		t.Errorf("cursor (-want +got):\n%s", diff)
	}
}
