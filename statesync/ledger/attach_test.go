package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/ledger/replay"
)

// ended is an entry of one change that leads to a state.
func ended(uid string, seq int64, to statesync.State, gone bool) statesync.Entry {
	e := entry(uid, seq, 1)
	e.Row.State, e.Changes[0].To, e.Row.Gone = to, to, gone
	return e
}

// gapOf is an entry of one gap of a stream.
func gapOf(stream string, seq int64) statesync.Entry {
	ref := statesync.StreamRef(stream)
	return statesync.Entry{
		Row: statesync.Row{Ref: ref, Seq: seq, Epoch: 1},
		Changes: []statesync.Change{{
			ID: fmt.Sprint(stream, seq), Cluster: "c", Epoch: 1, Workload: ref, Seq: seq, Occurred: epoch, Observed: epoch,
			Gap: &statesync.Gap{Stream: stream, Reason: statesync.GapExpired, From: epoch, To: epoch},
		}},
	}
}

func identified(t testing.TB, l *Ledger) {
	t.Helper()
	if _, err := l.Identify("c"); err != nil {
		t.Fatal(err)
	}
}

func TestANewSinkIsToldWhereEverythingStands(t *testing.T) {
	t.Parallel()
	now := epoch
	o := options(t, t.TempDir())
	o.Now = func() time.Time { return now }
	l := openWith(t, o)
	identified(t, l)
	live := entry("live", 1, 3)
	live.Row.Epoch = 1
	commit(t, l, live, ended("done", 1, statesync.Succeeded, false), ended("let go", 1, statesync.Untracked, true), entry("queued", 1, 1),
		ended("gone", 1, statesync.Running, true), entry("silent", 1, 0), gapOf("pods", 1))
	silent := entry("silent", 1, 0)
	silent.Row.Seq = 0
	commit(t, l, silent)
	now = now.Add(time.Hour)
	want := statesync.Cursor{Sink: "s", Acked: 8, Skipped: 8, Aside: 2, AsideTop: 2}
	for range 2 {
		if diff := cmp.Diff(want, cursorOf(t, l, "s")); diff != "" {
			t.Errorf("cursor (-want +got):\n%s", diff)
		}
	}
	got := asides(t, l, "s")
	if diff := cmp.Diff([]string{"live 3 initial Running", "queued 1 initial Running"}, tellAll(got)); diff != "" {
		t.Fatalf("put aside (-want +got):\n%s", diff)
	}
	state := statesync.Offered{
		Delivery: statesync.Delivery{
			Change: statesync.Change{
				ID: got[0].ID, Cluster: "c", Epoch: 1, Workload: live.Row.Ref, To: statesync.Running, Reason: "Started", Seq: 3,
				Occurred: now, Observed: now, Recorded: now,
			},
			Initial: true,
		},
		Aside: 1,
	}
	if diff := cmp.Diff(state, got[0]); diff != "" || got[0].ID == "" || got[0].ID == got[1].ID {
		t.Errorf("initial state (-want +got):\n%s", diff)
	}
	again := entry("let go", 2, 1)
	again.Changes[0].From = statesync.Untracked
	commit(t, l, again, gapOf("pods", 2), entry("live", 4, 1))
	next, err := l.Read(t.Context(), statesync.ReadQuery{Sink: "s", After: 8, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"let go 2 number 9 told 0 [{1 1 before}]", "stream/pods 2 gap 0..0 told 0 [{1 1 before}]", "live 4 number 11"}, tellAll(next)); diff != "" {
		t.Errorf("what comes then (-want +got):\n%s", diff)
	}
	other := cursorOf(t, l, "other")
	if same := asides(t, l, "other"); other.Aside != 3 || same[2].ID == got[0].ID {
		t.Errorf("cursor %+v, %v: the ID of a later state is another", other, tellAll(same))
	}
}

// TestADetachedSinkComesBack with a gap and where everything stands, ends too:
// what it had put aside, was told to leave out, and what came meanwhile.
func TestADetachedSinkComesBack(t *testing.T) {
	t.Parallel()
	now := epoch
	dir := t.TempDir()
	o := options(t, dir)
	o.Now = func() time.Time { return now }
	l := openWith(t, o)
	identified(t, l)
	cursorOf(t, l, "s")
	cursorOf(t, l, "other")
	commit(t, l, gapOf("pods", 1), gapOf("jobs", 1), entry("live", 1, 1), ended("known", 1, statesync.Succeeded, true), entry("waits", 1, 1), ended("waits", 2, statesync.Failed, true),
		ended("refused", 1, statesync.Failed, true), entry("leaves", 1, 1))
	if _, err := l.Attach(t.Context(), "s"); !errors.Is(err, errSink) || !strings.Contains(err.Error(), "attach sink s: refused: it is not detached") {
		t.Errorf("attached a sink that is not detached: %v", err)
	}
	if _, err := l.Attach(t.Context(), "nobody"); !errors.Is(err, errSink) {
		t.Errorf("attached a sink that is not known: %v", err)
	}
	letter := offered(t, l, 7)
	save(t, l, statesync.Progress{
		Sink: "s", Acked: 8, Position: "p", Skipped: 1, Marked: &statesync.Mark{Number: 2, Changes: 2},
		PutAside: []statesync.Offered{offered(t, l, 5), offered(t, l, 6)}, Letters: []statesync.DeadLetter{{Delivery: letter.Delivery}},
		Told: []statesync.Told{{UID: "refused", Skipped: []statesync.Skip{{From: 1, To: 1, Cause: statesync.SkipDeadLetter}}}},
	})
	now = now.Add(time.Hour)
	l.Save(statesync.Progress{Sink: "s", Acked: 8, Skipped: 1, Detach: statesync.DetachedFull})
	if c := cursorOf(t, l, "s"); c.Detached != statesync.DetachedFull || !c.DetachedAt.Equal(now) || c.Position != "p" {
		t.Errorf("cursor %+v, want it detached and where it was", c)
	}
	if l.acknowledged() != 0 || l.acked["s"] != 0 {
		t.Errorf("acknowledged %d, want what the other sink holds", l.acknowledged())
	}
	now = now.Add(time.Hour)
	commit(t, l, ended("leaves", 2, statesync.Succeeded, true), gapOf("pods", 2))
	_, wake := l.Head()
	c, err := l.Attach(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	<-wake
	want := statesync.Cursor{Sink: "s", Acked: 10, Position: "p", Skipped: 5, Marked: statesync.Mark{Number: 2, Changes: 2}, Aside: 5, Letters: 1, AsideTop: 7}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("cursor (-want +got):\n%s", diff)
	}
	got := asides(t, l, "s")
	if diff := cmp.Diff([]string{
		"stream/sink/s 1 gap 4..10", "live 1 initial Running", "waits 2 initial Failed", "refused 1 initial Failed", "leaves 2 initial Succeeded",
	}, tellAll(got)); diff != "" {
		t.Fatalf("put aside (-want +got):\n%s", diff)
	}
	gap := statesync.Change{
		ID: got[0].ID, Cluster: "c", Epoch: 1, Workload: statesync.StreamRef("sink/s"), Seq: 1, Occurred: now, Observed: now, Recorded: now,
		Gap: &statesync.Gap{Stream: "sink/s", Reason: statesync.GapDetached, From: epoch, To: now, FromNumber: 4, ToNumber: 10},
	}
	if diff := cmp.Diff(gap, got[0].Change); diff != "" {
		t.Errorf("gap (-want +got):\n%s", diff)
	}
	commit(t, l, gapOf("pods", 3), gapOf("jobs", 2))
	next, err := l.Read(t.Context(), statesync.ReadQuery{Sink: "s", After: 10, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"stream/pods 3 gap 0..0 told 0 [{1 2 before}]", "stream/jobs 2 gap 0..0"}, tellAll(next)); diff != "" {
		t.Errorf("what comes then (-want +got):\n%s", diff)
	}
	save(t, l, statesync.Progress{Sink: "s", Acked: 10, Detach: statesync.DetachedGone})
	if _, err := l.Attach(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	again := tellAll(asides(t, l, "s"))
	if diff := cmp.Diff([]string{"stream/sink/s 1 gap 4..10", "stream/sink/s 2 gap 10..12"}, again[:2]); diff != "" {
		t.Errorf("the gap that it was not given yet, and the second (-want +got):\n%s", diff)
	}
}

// TestAnAttachKeepsDeadLettersThatAreReplayed: they are nowhere else.
func TestAnAttachKeepsDeadLettersThatAreReplayed(t *testing.T) {
	t.Parallel()
	l, _ := replays(t, options(t, t.TempDir()))
	letters(t, l)
	if r, err := runReplay(t, l, replay.Query{Letters: true}); err != nil || r.Done != 3 {
		t.Fatal(r, err)
	}
	want := replayed(t, l)
	saveNow(t, l, statesync.Progress{Sink: "s", Acked: 5, Detach: statesync.DetachedGone})
	if _, err := l.Attach(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, replayed(t, l)); diff != "" || len(want) != 3 {
		t.Errorf("to be sent again (-want +got):\n%s", diff)
	}
}

// TestAnAttachWhoseAnswerWasLost is asked for again by the next reload. The
// cursor's row counts as a later one than that of the detachment, which a
// rescue may find too.
func TestAnAttachWhoseAnswerWasLost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	identified(t, l)
	cursorOf(t, l, "s")
	commit(t, l, entry("a", 1, 2))
	save(t, l, statesync.Progress{Sink: "s", Acked: 2, Detach: statesync.DetachedGone})
	const saves = "SELECT saves FROM cursors"
	before := visit(t, dir).number(saves)
	err := l.alter("s", func() error {
		row, _, err := readCursor(l.writer, "s")
		return errors.Join(err, l.attach(&row, row.DetachedAt))
	}, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if now := visit(t, dir).number(saves); now <= before {
		t.Errorf("saves %d, want more than %d", now, before)
	}
	c, err := l.Attach(t.Context(), "s")
	if err != nil || c.Acked != 2 || l.acked["s"] != 2 || c.Aside != 2 {
		t.Errorf("attached again: %v, cursor %+v, holding from %d; want it to hold from 2, with one gap", err, c, l.acked["s"])
	}
	if _, err := l.Attach(t.Context(), "s"); !errors.Is(err, errSink) {
		t.Errorf("attached once more: %v, want that it is not detached", err)
	}
}

// TestWhatWasSavedOfADetachmentDoesNotOutliveIt: the committer has taken it,
// and settles it only after the sink came back.
func TestWhatWasSavedOfADetachmentDoesNotOutliveIt(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	cursorOf(t, l, "s")
	commit(t, l, entry("a", 1, 4))
	l.Save(statesync.Progress{Sink: "s", Acked: 2, Detach: statesync.DetachedGone})
	group, savings := l.next()
	if _, err := l.Attach(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	newHead, ok := l.commitUntilDurable(t.Context(), group, savings)
	if !ok {
		t.Fatal("not durable")
	}
	l.settle(group, savings, newHead)
	if acked, holds := l.acked["s"]; !holds || acked != 4 {
		t.Errorf("holds %t from %d, want it to hold from 4", holds, acked)
	}
	save(t, l, statesync.Progress{Sink: "s", Acked: 3}) // of who delivered before
	if c := cursorOf(t, l, "s"); c.Detached != "" || c.Acked != 4 {
		t.Errorf("cursor %+v, want it attached at 4", c)
	}
}

// TestANewSinkIsNotAheadOfTheHead, when it comes between a commit and its
// settlement.
func TestANewSinkIsNotAheadOfTheHead(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	if err := l.Append(t.Context(), entry("a", 1, 3)); err != nil {
		t.Fatal(err)
	}
	group, savings := l.next()
	newHead, err := l.try(group, savings)
	if err != nil {
		t.Fatal(err)
	}
	if head, _ := l.Head(); cursorOf(t, l, "s").Acked != 3 || head != 3 {
		t.Errorf("head %d, want it at the cursor of the new sink, 3", head)
	}
	l.settle(group, savings, newHead)
}

// TestASinkThatWasAway comes back where it was while the log has what it was
// not given, else with a gap.
func TestASinkThatWasAway(t *testing.T) {
	t.Parallel()
	for name, deleted := range map[string]bool{"its changes are there": false, "they were deleted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := epoch
			o := options(t, t.TempDir())
			o.Now = func() time.Time { return now }
			l := openWith(t, o)
			identified(t, l)
			cursorOf(t, l, "s")
			cursorOf(t, l, "other")
			commit(t, l, entry("a", 1, 2))
			save(t, l, statesync.Progress{Sink: "s", Acked: 2})
			l.Release("s")
			commit(t, l, entry("a", 3, 4))
			save(t, l, statesync.Progress{Sink: "other", Acked: 5})
			want := statesync.Cursor{Sink: "s", Acked: 2}
			var aside []string
			if deleted {
				now = now.Add(25 * time.Hour)
				l.retain()
				want.Acked, want.Skipped, want.Aside = 6, 4, 2
				aside = []string{"stream/sink/s 1 gap 2..6", "a 6 initial Running"}
			}
			if diff := cmp.Diff(want, cursorOf(t, l, "s"), ignoreTop); diff != "" {
				t.Errorf("cursor (-want +got):\n%s", diff)
			}
			got := asides(t, l, "s")
			if diff := cmp.Diff(append([]string{}, aside...), tellAll(got)); diff != "" {
				t.Errorf("put aside (-want +got):\n%s", diff)
			}
			if deleted && !got[0].Gap.From.Equal(epoch) {
				t.Errorf("gap from %s, want when it last saved, %s", got[0].Gap.From, epoch)
			}
			if n := l.acknowledged(); n != min(want.Acked, 5) {
				t.Errorf("acknowledged %d: it does not hold", n)
			}
		})
	}
}

func TestForgettingASink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	for _, sink := range []string{"s", "other"} {
		cursorOf(t, l, sink)
	}
	commit(t, l, entry("a", 1, 2))
	o := offered(t, l, 1)
	for _, sink := range []string{"s", "other"} {
		save(t, l, statesync.Progress{
			Sink: sink, Acked: 2, PutAside: []statesync.Offered{o}, Letters: []statesync.DeadLetter{{Delivery: o.Delivery}},
			Told: []statesync.Told{{UID: "a", Skipped: []statesync.Skip{{From: 1, To: 1}}}},
		})
	}
	if err := l.Forget(t.Context(), "s"); !errors.Is(err, errSink) || !strings.Contains(err.Error(), "forget sink s: refused: it is configured") {
		t.Errorf("forgot a sink of this run: %v", err)
	}
	if err := l.Forget(t.Context(), "nobody"); !errors.Is(err, errSink) {
		t.Errorf("forgot a sink that is not known: %v", err)
	}
	saved := false
	l.Save(statesync.Progress{Sink: "s", Acked: 2, PutAside: []statesync.Offered{o}, Saved: func() { saved = true }})
	l.Release("s")
	if err := l.Forget(t.Context(), "s"); err != nil || !saved {
		t.Fatal(err, saved)
	}
	sinks, err := l.Sinks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]statesync.Cursor{{Sink: "other", Acked: 2, Aside: 1, Waiting: 1, Letters: 1}}, sinks, ignoreTop); diff != "" {
		t.Errorf("sinks (-want +got):\n%s", diff)
	}
	other := visit(t, dir)
	for _, table := range []string{"cursors", "aside", "told", "dead_letters"} {
		if n := other.number("SELECT count(*) FROM " + table); n != 1 {
			t.Errorf("%d rows in %s, want the other sink's", n, table)
		}
	}
	other.exec("INSERT INTO told SELECT 'lost', workload, seq, skipped FROM told") // its cursor was on a bad page
	if err := l.Forget(t.Context(), "lost"); err != nil || other.number("SELECT count(*) FROM told") != 1 {
		t.Errorf("forget a sink without a cursor: %v, want what is kept of it gone", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{"forget": l.Forget(ended, "other"), "attach": func() error { _, err := l.Attach(ended, "other"); return err }()} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want that the context ended", name, err)
		}
	}
}

// TestWhatIsPutAsideAfterAFailureWakesReaders, at the place that was given up.
func TestWhatIsPutAsideAfterAFailureWakesReaders(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	cursorOf(t, l, "s")
	put := func(failure error) error {
		return l.alter("s", func() error {
			return errors.Join(l.putAside("s", &asideRow{what: asideSkipped}), failure)
		}, func() {})
	}
	if err := put(errors.New("the disk is full")); err == nil {
		t.Fatal("it did not fail")
	}
	l.commitAll(t.Context()) // opens the file again
	_, wake := l.Head()
	if err := put(nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-wake:
	default:
		t.Error("nobody was woken")
	}
}

// TestAForgottenSinksNameGoesOnWithItsGaps: a receiver may know the seq of the
// last one.
func TestAForgottenSinksNameGoesOnWithItsGaps(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	identified(t, l)
	for want := range int64(3) {
		cursorOf(t, l, "s")
		save(t, l, statesync.Progress{Sink: "s", Detach: statesync.DetachedGone})
		if _, err := l.Attach(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		if got := asides(t, l, "s"); len(got) != 1 || got[0].Seq != want+1 || got[0].PreviousSeq != want {
			t.Errorf("put aside %q, want a gap with seq %d after %d", tellAll(got), want+1, want)
		}
		l.Release("s")
		if err := l.Forget(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSinksComeAndGoWhileItRuns, and none is ahead of the head.
func TestSinksComeAndGoWhileItRuns(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	start(t, l)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range int64(300) {
			if err := l.Append(context.Background(), entry(fmt.Sprint("u", i%10), i/10+1, 1)); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := range 60 {
		sink := fmt.Sprint("s", i%7)
		c, err := l.Cursor(sink)
		if err != nil {
			t.Fatal(err)
		}
		head, _ := l.Head()
		if c.Acked > head {
			t.Fatalf("cursor at %d with the head at %d", c.Acked, head)
		}
		seqs := map[string]int64{}
		for _, o := range asides(t, l, sink) {
			if o.Initial {
				seqs[o.Workload.UID] = o.Seq
			}
		}
		next, err := l.Read(t.Context(), statesync.ReadQuery{Sink: sink, After: c.Acked, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range next {
			if o.Seq != seqs[o.Workload.UID]+1 {
				t.Fatalf("change %d has seq %d after %d", o.Number, o.Seq, seqs[o.Workload.UID])
			}
			seqs[o.Workload.UID] = o.Seq
		}
		switch i % 3 {
		case 0:
			l.Release(sink)
			if err := l.Forget(t.Context(), sink); err != nil {
				t.Fatal(err)
			}
		case 1:
			l.Save(statesync.Progress{Sink: sink, Acked: c.Acked, Detach: statesync.DetachedGone})
			if _, err := l.Attach(t.Context(), sink); err != nil {
				t.Fatal(err)
			}
			l.Release(sink)
			if err := l.Forget(t.Context(), sink); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-done
	if s := books(t, l); len(s.Retries) != 0 {
		t.Errorf("retries %v, want none", s.Retries)
	}
}

// TestPlacesAreDropped: also the one that was saved last and is not written yet.
func TestPlacesAreDropped(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	for _, sink := range []string{"s", "kept"} {
		cursorOf(t, l, sink)
		save(t, l, statesync.Progress{Sink: sink, Position: "p"})
	}
	for _, sink := range []string{"s", "kept"} {
		l.Save(statesync.Progress{Sink: sink, Position: "q"})
		l.Release(sink)
	}
	if err := l.Unplace("kept", "unknown"); err != nil {
		t.Fatal(err)
	}
	l.commitAll(t.Context())
	for sink, want := range map[string]string{"s": "", "kept": "q"} {
		if got := cursorOf(t, l, sink).Position; got != want {
			t.Errorf("%s: got place %q, want %q", sink, got, want)
		}
	}
}
