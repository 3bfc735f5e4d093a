package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/statesync"
)

// offered is a change of the log as a sink was offered it.
func offered(t testing.TB, l *Ledger, number int64) statesync.Offered {
	t.Helper()
	got, err := l.Read(context.Background(), statesync.ReadQuery{Sink: "s", After: number - 1, Limit: 1})
	if err != nil || len(got) != 1 || got[0].Number != number {
		t.Fatalf("read %+v, %v, want change %d", got, err, number)
	}
	return got[0]
}

// skipped is what is left out of a workload.
func skipped(uid string, from, to int64, cause string) (o statesync.Offered) {
	o.Workload = entry(uid, 1, 0).Row.Ref
	o.Cause, o.FromSeq, o.Seq = cause, from, to
	return o
}

// asides reads all that is put aside for a sink.
func asides(t testing.TB, l *Ledger, sink string) []statesync.Offered {
	t.Helper()
	got, err := l.Read(context.Background(), statesync.ReadQuery{Sink: sink, Aside: true, Limit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b statesync.Offered) int { return int(a.Aside - b.Aside) })
	return got
}

// tell says what an entry is, in a word or two.
func tell(o *statesync.Offered) string {
	out := fmt.Sprintf("%s %d", o.Workload.UID, o.Seq)
	switch {
	case o.Cause != "":
		out = fmt.Sprintf("%s %d-%d %s", o.Workload.UID, o.FromSeq, o.Seq, o.Cause)
	case o.Initial:
		out += " initial " + string(o.To)
	case o.Replayed:
		out += " replayed"
	case o.Gap != nil:
		out += fmt.Sprintf(" gap %d..%d", o.Gap.FromNumber, o.Gap.ToNumber)
	default:
		out += fmt.Sprintf(" number %d", o.Number)
	}
	if o.Told != nil {
		out += fmt.Sprintf(" told %d %v", o.Told.Seq, o.Told.Skipped)
	}
	return out
}

func tellAll(entries []statesync.Offered) []string {
	out := []string{}
	for i := range entries {
		out = append(out, tell(&entries[i]))
	}
	return out
}

func cursorOf(t testing.TB, l *Ledger, sink string) statesync.Cursor {
	t.Helper()
	c, err := l.Cursor(sink)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// save saves and commits, without a goroutine.
func save(t testing.TB, l *Ledger, p statesync.Progress) {
	t.Helper()
	saved := false
	p.Saved = func() { saved = true }
	l.Save(p)
	l.commitAll(t.Context())
	if _, err := l.Failure(); err != nil || !saved {
		t.Fatalf("saved %t, %v", saved, err)
	}
}

func TestWhatIsPutAsideComesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	cursorOf(t, l, "s")
	cursorOf(t, l, "other")
	commit(t, l, entry("a", 1, 3), entry("b", 1, 2))
	parked := offered(t, l, 2)
	parked.PreviousSeq, parked.Skipped = 0, []statesync.Skip{{From: 1, To: 1, Cause: statesync.SkipFilter}}
	again := offered(t, l, 5)
	again.Replayed = true
	save(t, l, statesync.Progress{
		Sink: "s", Acked: 5, Position: "here", Skipped: 2, Marked: &statesync.Mark{Previous: 1, Number: 4, Changes: 2, Skipped: 1},
		PutAside: []statesync.Offered{
			parked, skipped("b", 1, 1, statesync.SkipFilter), skipped("a", 3, 3, statesync.SkipCompacted), skipped("b", 2, 2, statesync.SkipFilter), again,
		},
		Told:    []statesync.Told{{UID: "b", Seq: 7, Skipped: []statesync.Skip{{From: 8, To: 9, Cause: "x"}}}},
		Letters: []statesync.DeadLetter{{Delivery: parked.Delivery, Tries: 3, First: epoch, Last: epoch, Error: "refused"}},
	})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	l = open(t, dir)
	got := asides(t, l, "s")
	if diff := cmp.Diff([]string{
		"a 2 number 2", "b 1-2 filter told 7 [{8 9 x}]", "a 3-3 compacted", "b 2 replayed told 7 [{8 9 x}]",
	}, tellAll(got)); diff != "" {
		t.Fatalf("put aside (-want +got):\n%s", diff)
	}
	parked.Aside, parked.Replaced = got[0].Aside, true
	if diff := cmp.Diff(parked, got[0]); diff != "" {
		t.Errorf("parked (-want +got):\n%s", diff)
	}
	if got[3].Number != 5 || got[3].ID != "b-2" {
		t.Errorf("replayed %+v, want change 5", got[3])
	}
	key := got[0].Workload.Key()
	for name, tt := range map[string]struct {
		query statesync.ReadQuery
		want  []string
	}{
		"of a lane":                             {statesync.ReadQuery{Lane: &key}, []string{"a 3-3 compacted", "a 2 number 2"}},
		"after one":                             {statesync.ReadQuery{Lane: &key, AfterAside: got[2].Aside}, []string{"a 2 number 2"}},
		"after a number":                        {statesync.ReadQuery{After: 1, AfterAside: 1000}, []string{"a 2 number 2"}},
		"after it":                              {statesync.ReadQuery{After: 2, AfterAside: got[0].Aside}, []string{}},
		"what others put in":                    {statesync.ReadQuery{Fresh: true}, []string{"b 2 replayed told 7 [{8 9 x}]"}},
		"one, and what is not of the log first": {statesync.ReadQuery{Limit: 1}, []string{"b 1-2 filter told 7 [{8 9 x}]"}},
	} {
		tt.query.Sink, tt.query.Aside, tt.query.Limit = "s", true, max(tt.query.Limit, 10-9*tt.query.Limit)
		some, err := l.Read(t.Context(), tt.query)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, tellAll(some)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	want := statesync.Cursor{
		Sink: "s", Acked: 5, Position: "here", Skipped: 2, Marked: statesync.Mark{Previous: 1, Number: 4, Changes: 2, Skipped: 1},
		Aside: 2, AsideTop: got[3].Aside, Letters: 1,
	}
	if diff := cmp.Diff(want, cursorOf(t, l, "s")); diff != "" {
		t.Errorf("cursor (-want +got):\n%s", diff)
	}
	if some := asides(t, l, "other"); len(some) != 0 {
		t.Errorf("%d entries of another sink", len(some))
	}
	save(t, l, statesync.Progress{Sink: "other", Settled: []int64{got[0].Aside}})
	save(t, l, statesync.Progress{Sink: "s", Settled: []int64{got[0].Aside, got[1].Aside}, Told: []statesync.Told{{UID: "b"}, {UID: "nobody", Skipped: []statesync.Skip{{From: 1, To: 1}}}}})
	if diff := cmp.Diff([]string{"a 3-3 compacted", "b 2 replayed"}, tellAll(asides(t, l, "s"))); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if n := visit(t, dir).number("SELECT count(*) FROM told"); n != 0 {
		t.Errorf("%d rows told, want none", n)
	}
	if c := cursorOf(t, l, "s"); c.Acked != 5 || c.Position != "here" {
		t.Errorf("cursor %+v, want it where it was", c)
	}
}

// TestWhatTheLogSaysOfAChange: whether a later one is there, and what the sink
// was given before.
func TestWhatTheLogSaysOfAChange(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	for _, sink := range []string{"s", "other"} {
		cursorOf(t, l, sink)
	}
	commit(t, l, entry("a", 1, 2), entry("b", 1, 1))
	told := statesync.Told{UID: "a", Seq: 0, Skipped: []statesync.Skip{{From: 1, To: 1, Cause: statesync.SkipDeadLetter}}}
	l.Save(statesync.Progress{Sink: "s", Told: []statesync.Told{{UID: "a", Seq: 4, Skipped: told.Skipped}}})
	save(t, l, statesync.Progress{Sink: "s", Told: []statesync.Told{told}})
	for _, sink := range []string{"s", "other"} {
		got, err := l.Read(t.Context(), statesync.ReadQuery{Sink: sink, Limit: 10})
		if err != nil || len(got) != 3 {
			t.Fatalf("%+v, %v", got, err)
		}
		want := &told
		if sink == "other" {
			want = nil
		}
		if diff := cmp.Diff([]*statesync.Told{want, want, nil}, []*statesync.Told{got[0].Told, got[1].Told, got[2].Told}); diff != "" {
			t.Errorf("told to %s (-want +got):\n%s", sink, diff)
		}
		if !got[0].Replaced || got[1].Replaced || got[2].Replaced {
			t.Errorf("replaced %t, %t, %t, want the first alone", got[0].Replaced, got[1].Replaced, got[2].Replaced)
		}
	}
}

// TestAParkedChangeThatIsGone can only be told to be left out.
func TestAParkedChangeThatIsGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	cursorOf(t, l, "s")
	commit(t, l, entry("a", 1, 3))
	o := offered(t, l, 2)
	o.PreviousSeq = 1
	save(t, l, statesync.Progress{Sink: "s", Acked: 3, PutAside: []statesync.Offered{o}})
	visit(t, dir).exec("DELETE FROM changes WHERE n = 2")
	got := asides(t, l, "s")
	if len(got) != 1 || tell(&got[0]) != "a 2-2 missing" || got[0].Number != 2 || got[0].PreviousSeq != 1 || got[0].Workload.Key() != o.Workload.Key() {
		t.Errorf("%+v, want change 2 as missing", got)
	}
}

func TestSavesAreMerged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	cursorOf(t, l, "s")
	commit(t, l, entry("a", 1, 9))
	var called []int
	for i, p := range []statesync.Progress{
		{Acked: 3, Position: "x", Skipped: 3, Marked: &statesync.Mark{Number: 2}, PutAside: []statesync.Offered{offered(t, l, 3)}},
		{Acked: 5, Position: "y", Skipped: 2, PutAside: []statesync.Offered{offered(t, l, 5)}, Told: []statesync.Told{{UID: "a", Seq: 1, Skipped: []statesync.Skip{{From: 2, To: 2}}}}},
		{Acked: 4, Skipped: 1, Told: []statesync.Told{{UID: "a", Seq: 5}}},
	} {
		p.Sink, p.Saved = "s", func() { called = append(called, i) }
		l.Save(p)
	}
	if n := len(l.savings["s"]); n != 1 {
		t.Fatalf("%d savings, want them merged", n)
	}
	before := l.commits.Snapshot().Count
	l.commitAll(t.Context())
	if n := l.commits.Snapshot().Count - before; n != 1 {
		t.Errorf("%d transactions, want 1", n)
	}
	if diff := cmp.Diff([]int{0, 1, 2}, called); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	want := statesync.Cursor{Sink: "s", Acked: 5, Position: "y", Skipped: 1, Waiting: 2, Marked: statesync.Mark{Number: 2}, Aside: 2, AsideTop: 2}
	if diff := cmp.Diff(want, cursorOf(t, l, "s")); diff != "" {
		t.Errorf("cursor (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a 3 number 3", "a 5 number 5"}, tellAll(asides(t, l, "s"))); diff != "" {
		t.Errorf("put aside (-want +got):\n%s", diff)
	}
}

// TestALostAnswerIsNotSavedTwice: entries and dead letters are added, so a
// saving that reached the disk must not be written again, also when more was
// saved since, and not by the one who asks for the cursor meanwhile.
func TestALostAnswerIsNotSavedTwice(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		reached bool
		between func(t *testing.T, l *Ledger)
	}{
		"it reached the disk":              {true, nil},
		"it did not":                       {false, nil},
		"the sink is asked for, reached":   {true, func(t *testing.T, l *Ledger) { cursorOf(t, l, "s") }},
		"the sink is asked for, unreached": {false, func(t *testing.T, l *Ledger) { cursorOf(t, l, "s") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := open(t, dir)
			cursorOf(t, l, "s")
			commit(t, l, entry("a", 1, 4))
			o, calls := offered(t, l, 2), 0
			l.Save(statesync.Progress{
				Sink: "s", Acked: 2, PutAside: []statesync.Offered{o}, Letters: []statesync.DeadLetter{{Delivery: o.Delivery}},
				Saved: func() { calls++ },
			})
			group, savings := l.next()
			other := visit(t, dir)
			if !tt.reached {
				other.exec("CREATE TRIGGER strike BEFORE UPDATE ON cursors BEGIN SELECT RAISE(ABORT, 'disk on strike'); END")
			}
			if err := l.write(group, savings); (err == nil) != tt.reached {
				t.Fatal(err)
			}
			if err := l.drop(errors.New("the answer was lost")); err == nil {
				t.Fatal("no error")
			}
			if !tt.reached {
				other.exec(noStrike)
			}
			if calls != 0 {
				t.Error("told before it is known to be durable")
			}
			l.Save(statesync.Progress{Sink: "s", Acked: 3, PutAside: []statesync.Offered{offered(t, l, 3)}, Saved: func() { calls += 10 }})
			if tt.between != nil {
				if _, err := l.reopen(nil); err != nil {
					t.Fatal(err)
				}
				tt.between(t, l)
			}
			newHead, ok := l.commitUntilDurable(t.Context(), group, savings)
			if !ok {
				t.Fatal("not durable")
			}
			l.settle(group, savings, newHead)
			l.commitAll(t.Context())
			if diff := cmp.Diff([]string{"a 2 number 2", "a 3 number 3"}, tellAll(asides(t, l, "s"))); diff != "" {
				t.Errorf("put aside (-want +got):\n%s", diff)
			}
			if c := cursorOf(t, l, "s"); c.Acked != 3 || c.Letters != 1 || calls != 11 {
				t.Errorf("cursor %+v, told %d, want 3 acknowledged, one letter, and both told once", c, calls)
			}
			if len(l.savings) != 0 {
				t.Errorf("%d sinks have something left", len(l.savings))
			}
		})
	}
}

// TestASaveIsWholeOrNotAtAll: its last step fails.
func TestASaveIsWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, dir)
		cursorOf(t, l, "s")
		commit(t, l, entry("a", 1, 4))
		other := visit(t, dir)
		other.exec("CREATE TRIGGER strike BEFORE UPDATE OF marked ON cursors BEGIN SELECT RAISE(ABORT, 'disk on strike'); END")
		start(t, l)
		o, saved := offered(t, l, 2), 0
		l.Save(statesync.Progress{
			Sink: "s", Acked: 2, PutAside: []statesync.Offered{o}, Letters: []statesync.DeadLetter{{Delivery: o.Delivery}},
			Told: []statesync.Told{{UID: "a", Skipped: []statesync.Skip{{From: 1, To: 1}}}}, Marked: &statesync.Mark{Number: 2}, Saved: func() { saved++ },
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		const rows = "SELECT (SELECT count(*) FROM aside) + (SELECT count(*) FROM told) + (SELECT count(*) FROM dead_letters) + (SELECT max(acked) FROM cursors)"
		if n := other.number(rows); n != 0 || saved != 0 {
			t.Errorf("%d of it in the file, told %d times, want nothing", n, saved)
		}
		if _, err := l.Failure(); err == nil || !strings.Contains(err.Error(), "cursor of sink s") {
			t.Errorf("failure %v, want one that names the sink", err)
		}
		other.exec(noStrike)
		time.Sleep(retryMax)
		synctest.Wait()
		if n := other.number(rows); n != 1+1+1+2 || saved != 1 {
			t.Errorf("%d of it in the file, told %d times, want all once", n, saved)
		}
	})
}

// TestSomethingFreshWakesReaders: not what the sink has put aside itself.
func TestSomethingFreshWakesReaders(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	cursorOf(t, l, "s")
	commit(t, l, entry("a", 1, 2))
	_, wake := l.Head()
	o := offered(t, l, 1)
	save(t, l, statesync.Progress{Sink: "s", Acked: 1, PutAside: []statesync.Offered{o, skipped("a", 2, 2, "x")}})
	select {
	case <-wake:
		t.Error("woken by what the sink has put aside itself")
	default:
	}
	o.Replayed = true
	save(t, l, statesync.Progress{Sink: "s", PutAside: []statesync.Offered{o}})
	<-wake
	_, wake = l.Head()
	cursorOf(t, l, "new")
	<-wake
}

// TestWhatASinkHasSavedBeforeIsInItsCursor, while nothing else can be written.
func TestWhatASinkHasSavedBeforeIsInItsCursor(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	cursorOf(t, l, "s")
	commit(t, l, entry("a", 1, 4))
	saved := 0
	l.Save(statesync.Progress{Sink: "s", Acked: 3, Saved: func() { saved++ }})
	l.Release("s")
	if c := cursorOf(t, l, "s"); c.Acked != 3 || saved != 1 {
		t.Errorf("cursor %+v, told %d times, want 3 and once", c, saved)
	}
	l.commitAll(t.Context())
	if saved != 1 {
		t.Errorf("told %d times, want once", saved)
	}
}

var ignoreTop = cmpopts.IgnoreFields(statesync.Cursor{}, "AsideTop")

// TestWhatAReceiverAnsweredMayBeAnyBytes: a rescue takes over text alone.
func TestWhatAReceiverAnsweredMayBeAnyBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	cursorOf(t, l, "s")
	commit(t, l, entry("a", 1, 2))
	save(t, l, statesync.Progress{Sink: "s", Acked: 2, Letters: []statesync.DeadLetter{{Delivery: offered(t, l, 1).Delivery, Error: "x \xff y"}}})
	visit(t, dir).exec("UPDATE changes SET body = 'x' || body WHERE n = 2")
	if _, err := readLog(t.Context(), l, 0, 10); err != nil {
		t.Fatal(err)
	}
	if n := visit(t, dir).number("SELECT count(*) FROM dead_letters WHERE error = 'x \uFFFD y'"); n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
}

// TestWhatIsPutAsideIsReadByItsIndexes: by place, or by number, and never all
// of it.
func TestWhatIsPutAsideIsReadByItsIndexes(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	for name, tt := range map[string]struct {
		q     statesync.ReadQuery
		plans []string
	}{
		"the start of a sweep":   {statesync.ReadQuery{}, []string{"aside_sinks (sink=? AND ordinal=? AND id>?)", "aside_sinks (sink=? AND ordinal>?)"}},
		"by number":              {statesync.ReadQuery{After: 7, AfterAside: 3}, []string{"aside_sinks (sink=? AND ordinal>?)"}},
		"what is fresh":          {statesync.ReadQuery{AfterAside: 5, Fresh: true}, []string{"aside_fresh (sink=? AND rowid>?)"}},
		"the start of a lane":    {statesync.ReadQuery{Lane: &statesync.Key{}}, []string{"aside_lanes (sink=? AND lane=? AND ordinal=? AND rowid>?)", "aside_lanes (sink=? AND lane=? AND ordinal>?)"}},
		"by number, of one lane": {statesync.ReadQuery{After: 7, Lane: &statesync.Key{}}, []string{"aside_lanes (sink=? AND lane=? AND ordinal>?)"}},
	} {
		var got []string
		for _, part := range asideParts(&tt.q) {
			query, args := asideQuery(&tt.q, 10, part.where, part.args...)
			err := sqlitex.Execute(l.writer, "EXPLAIN QUERY PLAN "+query, &sqlitex.ExecOptions{Args: args, ResultFunc: func(s *sqlite.Stmt) error {
				if step, ok := strings.CutPrefix(s.ColumnText(3), "SEARCH a USING INDEX "); ok {
					got = append(got, step)
				} else if strings.HasPrefix(s.ColumnText(3), "USE TEMP B-TREE") {
					got = append(got, "sorted")
				}
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(tt.plans, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestReadsOfWhatIsPutAsideGoOnWhereTheyEnded, over the end of what has no
// number.
func TestReadsOfWhatIsPutAsideGoOnWhereTheyEnded(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	identified(t, l)
	commit(t, l, entry("a", 1, 1), entry("b", 1, 1))
	cursorOf(t, l, "s") // initial a, initial b
	commit(t, l, entry("a", 2, 3), entry("b", 2, 2))
	save(t, l, statesync.Progress{Sink: "s", Acked: 7, PutAside: []statesync.Offered{offered(t, l, 6), offered(t, l, 3), offered(t, l, 5), offered(t, l, 4)}})
	want := []string{"a 1 initial Running", "b 1 initial Running", "a 2 number 3", "a 3 number 4", "a 4 number 5", "b 2 number 6"}
	for limit := 1; limit < 8; limit++ {
		var got []string
		for q := (statesync.ReadQuery{Sink: "s", Aside: true, Limit: limit}); ; {
			read, err := l.Read(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, tellAll(read)...); len(read) < limit || len(got) > len(want) {
				break
			}
			last := read[len(read)-1]
			if q.After, q.AfterAside = last.Number, last.Aside; last.Initial {
				q.After = 0
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d at a time (-want +got):\n%s", limit, diff)
		}
	}
}
