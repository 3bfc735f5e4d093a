package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// openWith opens a ledger whose clock is the test's, and closes it at the end.
func openWith(t testing.TB, o Options) *Ledger {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

// commit appends entries and commits them, with what was acknowledged, without
// a goroutine.
func commit(t testing.TB, l *Ledger, entries ...statesync.Entry) {
	t.Helper()
	for _, e := range entries {
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	l.commitAll(t.Context())
	if s := books(t, l); s.Queued != 0 {
		_, err := l.Failure()
		t.Fatalf("%d entries wait: %v", s.Queued, err)
	}
}

// failures is how often a step of the upkeep has failed.
func failures(l *Ledger, step string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.upkeep[step].failures
}

// big is an entry of one change of about 4 KiB.
func big(uid string, seq int64) statesync.Entry {
	e := entry(uid, seq, 1)
	e.Changes[0].Message = strings.Repeat("x", 4000)
	return e
}

func TestWhichChangesAreKept(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		acked   map[string]int64 // by sink, durable, of this run
		waiting map[string]int64 // acknowledged, and not durable yet
		later   time.Duration    // since five changes were recorded
		want    int              // changes left
	}{
		"acknowledged and old":            {map[string]int64{"s": 5}, nil, 25 * time.Hour, 0},
		"acknowledged and young":          {map[string]int64{"s": 5}, nil, 23 * time.Hour, 5},
		"not acknowledged":                {map[string]int64{"s": 0}, nil, 1000 * time.Hour, 5},
		"acknowledged in part":            {map[string]int64{"s": 3}, nil, 25 * time.Hour, 2},
		"acknowledged by one of two":      {map[string]int64{"s": 5, "slow": 1}, nil, 25 * time.Hour, 4},
		"acknowledged and not durable":    {map[string]int64{"s": 0}, map[string]int64{"s": 5}, 25 * time.Hour, 5},
		"nobody is there to acknowledge":  {nil, nil, 25 * time.Hour, 0},
		"nobody, and young":               {nil, nil, time.Hour, 5},
		"a clock that was set far back":   {map[string]int64{"s": 5}, nil, -1000 * time.Hour, 5},
		"a sink of a run before is alone": {nil, map[string]int64{"gone": 2}, 25 * time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := epoch
			o := options(t, t.TempDir())
			o.Now = func() time.Time { return now }
			l := openWith(t, o)
			visit(t, o.Dir).exec("INSERT INTO cursors(sink, since, acked) VALUES('gone', 0, 0)")
			for sink, acked := range tt.acked {
				if _, err := l.Cursor(sink); err != nil {
					t.Fatal(err)
				}
				l.Save(statesync.Progress{Sink: sink, Acked: acked})
			}
			commit(t, l, entry("u", 1, 5))
			for sink, acked := range tt.waiting {
				l.Save(statesync.Progress{Sink: sink, Acked: acked})
			}
			now = epoch.Add(tt.later)
			l.retains = retention{} // a clock that goes back would else wait
			l.retain()
			got, err := readLog(t.Context(), l, 0, 10)
			if err != nil || len(got) != tt.want {
				t.Fatalf("%d changes are left, %v, want %d", len(got), err, tt.want)
			}
			if len(got) > 0 && got[len(got)-1].Number != 5 {
				t.Errorf("the last one has number %d, want 5: the oldest go first", got[len(got)-1].Number)
			}
			if l.pruned["changes"] != int64(5-tt.want) {
				t.Errorf("%d counted, want %d", l.pruned["changes"], 5-tt.want)
			}
		})
	}
}

// TestAClockThatWasAhead: what was recorded then does not keep what is older
// than Keep by the clock as it is now.
func TestAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	now := epoch.Add(10000 * time.Hour)
	o := options(t, t.TempDir())
	o.Now = func() time.Time { return now }
	l := openWith(t, o)
	commit(t, l, entry("u", 1, 2))
	now = epoch
	l.retains = retention{}
	commit(t, l, entry("u", 3, 2))
	now = epoch.Add(25 * time.Hour)
	l.retain()
	if got, err := readLog(t.Context(), l, 0, 10); err != nil || len(got) != 0 {
		t.Errorf("%d changes, %v, want none", len(got), err)
	}
}

// TestADayIsDeletedInChunks: no transaction is long, and none waits for the
// next second when there is more to do.
func TestADayIsDeletedInChunks(t *testing.T) {
	t.Parallel()
	now := epoch
	o := options(t, t.TempDir())
	o.Now = func() time.Time { return now }
	l := openWith(t, o)
	const n = 2*retainChunk + 100
	for i := range int64(n / 50) {
		commit(t, l, entry("u", 50*i+1, 50))
	}
	now = now.Add(25 * time.Hour)
	var left []int
	for more := true; more; {
		more = l.retain().more
		got, err := readLog(t.Context(), l, 0, 2*n)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, len(got))
	}
	if diff := cmp.Diff([]int{n - retainChunk, 100, 0}, left); diff != "" {
		t.Errorf("changes left (-want +got):\n%s", diff)
	}
}

func TestWhichTombstonesAreKept(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		stream  string
		removed uint64
		alive   bool
		unread  bool // a sink has not acknowledged its change
		keep    time.Duration
		later   time.Duration
		want    int
	}{
		"passed by its stream":          {stream: "at 10", removed: 10, later: 25 * time.Hour},
		"not passed by its stream":      {stream: "at 10", removed: 11, later: 25 * time.Hour, want: 1},
		"let go, and may come back":     {stream: "at 10", later: 89 * 24 * time.Hour, want: 1},
		"let go long ago":               {stream: "at 10", later: 91 * 24 * time.Hour},
		"young":                         {stream: "at 10", removed: 10, later: 23 * time.Hour, want: 1},
		"kept for short, and young":     {stream: "at 10", removed: 10, keep: time.Minute, later: 55 * time.Minute, want: 1},
		"kept for short, an hour old":   {stream: "at 10", removed: 10, keep: time.Minute, later: 61 * time.Minute},
		"alive":                         {stream: "at 10", alive: true, later: 25 * time.Hour, want: 1},
		"of a stream that is gone":      {stream: "gone", removed: 11, later: 25 * time.Hour},
		"of a stream that is lost":      {stream: "lost", removed: 1, later: 25 * time.Hour, want: 1},
		"of a stream without a version": {stream: "objects only", removed: 1, later: 25 * time.Hour, want: 1},
		"with a change that is left":    {stream: "at 10", removed: 10, unread: true, later: 25 * time.Hour, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := epoch
			o := options(t, t.TempDir())
			o.Keep = tt.keep
			o.Now = func() time.Time { return now }
			l := openWith(t, o)
			if _, err := l.Cursor("s"); err != nil {
				t.Fatal(err)
			}
			other := visit(t, o.Dir)
			e := entry("u", 1, 2)
			e.Row.Stream, e.Row.Removed, e.Row.Gone = tt.stream, tt.removed, !tt.alive
			commit(t, l, resume("at 10", 10), resume("lost", 10), keep("objects only", map[string]string{"x": "1"}), e)
			other.exec("UPDATE streams SET lost = 'Expired' WHERE name = 'lost'")
			if !tt.unread {
				l.Save(statesync.Progress{Sink: "s", Acked: 2})
			}
			now = now.Add(tt.later)
			for range 3 { // the cursor is durable, then changes go, then tombstones
				l.commitAll(t.Context())
				now = now.Add(2 * tombstonesEvery)
			}
			if n := other.number("SELECT count(*) FROM workloads"); n != int64(tt.want) {
				t.Errorf("%d rows, want %d", n, tt.want)
			}
			if l.pruned["workloads"] != int64(1-tt.want) {
				t.Errorf("%d counted, want %d", l.pruned["workloads"], 1-tt.want)
			}
		})
	}
}

// TestManyTombstonesThatStay are looked through in chunks, so that those that
// may go behind them do go, and then not again for a while.
func TestManyTombstonesThatStay(t *testing.T) {
	t.Parallel()
	now := epoch
	o := options(t, t.TempDir())
	o.Now = func() time.Time { return now }
	l := openWith(t, o)
	const n = 2*retainChunk + 50
	entries := []statesync.Entry{resume("a", 10)}
	for i := range n {
		e := entry(fmt.Sprint("u", i), 1, 0)
		e.Row.Stream, e.Row.Gone, e.Row.Removed = "a", true, 11
		if i%100 == 99 {
			e.Row.Removed = 9
		}
		entries = append(entries, e)
	}
	commit(t, l, entries...)
	now = now.Add(25 * time.Hour)
	rounds := 1
	for l.retain().more {
		rounds++
	}
	if rounds != 3 || l.pruned["workloads"] != n/100 {
		t.Errorf("%d deleted in %d rounds, want %d in 3", l.pruned["workloads"], rounds, n/100)
	}
	commit(t, l, resume("a", 11))
	now = now.Add(tombstonesEvery / 2)
	if l.retain(); l.pruned["workloads"] != n/100 {
		t.Error("the tombstones were looked through again within the minute")
	}
	now = now.Add(tombstonesEvery)
	for l.retain().more {
	}
	if l.pruned["workloads"] != n {
		t.Errorf("%d deleted, want all %d", l.pruned["workloads"], n)
	}
}

// TestALedgerThatWasEmptiedGoesOn: numbers are not used again, so cursors do
// not skip.
func TestALedgerThatWasEmptiedGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options(t, dir)
	o.Keep = time.Nanosecond
	l := openWith(t, o)
	if _, err := l.Cursor("s"); err != nil {
		t.Fatal(err)
	}
	gone := entry("u", 1, 3)
	gone.Row.Gone = true
	commit(t, l, gone)
	l.Save(statesync.Progress{Sink: "s", Acked: 3})
	commit(t, l)
	l.retains = retention{}
	l.retain()
	other := visit(t, dir)
	if n := other.number("SELECT count(*) FROM changes"); n != 0 {
		t.Fatalf("%d changes are left", n)
	}
	other.exec("DELETE FROM workloads") // as if an hour had passed
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	l = open(t, dir)
	c, err := l.Cursor("s")
	if err != nil || c.Acked != 3 {
		t.Fatalf("cursor %+v, %v", c, err)
	}
	head, wake := l.Head()
	if head != 3 {
		t.Errorf("head %d, want 3", head)
	}
	start(t, l)
	record(t, l, entry("v", 1, 2))
	<-wake
	got, err := readLog(t.Context(), l, c.Acked, 10)
	if err != nil || !slices.Equal(ids(got), []string{"v-1", "v-2"}) || got[0].Number != 4 || got[0].Previous != 0 {
		t.Errorf("after the cursor: %+v, %v, want numbers 4 and 5", got, err)
	}
}

// TestAcknowledgedChangesMakeRoom: at any age, once nine tenths are in use.
func TestAcknowledgedChangesMakeRoom(t *testing.T) {
	t.Parallel()
	o := options(t, t.TempDir())
	o.MaxBytes = 2 << 20
	l := openWith(t, o)
	if _, err := l.Cursor("s"); err != nil {
		t.Fatal(err)
	}
	stop := start(t, l)
	const n, batch = 3600, 24 // 5 MB
	largest := int64(0)
	for i := range int64(n / batch) {
		var entries []statesync.Entry
		for j := range int64(batch) {
			e := entry("u", batch*i+j+1, 1)
			e.Changes[0].Message = strings.Repeat("x", 1000)
			entries = append(entries, e)
		}
		record(t, l, entries...)
		l.Save(statesync.Progress{Sink: "s", Acked: batch * (i + 1)})
		largest = max(largest, l.size.Load())
	}
	if _, err := l.Failure(); err != nil {
		t.Error(err)
	}
	got, err := readLog(t.Context(), l, 0, n)
	if err != nil || len(got) < n/20 || len(got) > n/2 || got[len(got)-1].Number != n {
		t.Errorf("%d changes left, %v, want a part, up to %d", len(got), err, n)
	}
	if largest > o.MaxBytes+batch*2*pageBytes { // the group that reached the bound may have gone over it
		t.Errorf("%d bytes at most, want little more than %d", largest, o.MaxBytes)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestAFullLedgerWaits: it takes nothing, loses nothing, says who is in the
// way, and goes on.
func TestAFullLedgerWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := options(t, t.TempDir())
		o.MaxBytes = 1 << 20
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		l := openWith(t, o)
		for _, sink := range []string{"dead", "well"} {
			if _, err := l.Cursor(sink); err != nil {
				t.Fatal(err)
			}
		}
		stop := start(t, l)
		const n = 600
		done := int64(0)
		for i := range int64(n) {
			e := big("u", i+1)
			e.Done = func() { done++ }
			if err := l.Append(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if i%20 == 0 {
				time.Sleep(time.Second)
				synctest.Wait()
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		head, _ := l.Head()
		_, err := l.Failure()
		for _, part := range []string{"is full", "want less than 1048576", fmt.Sprintf("sink dead holds %d changes", head)} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("failure %v, want one that says %q", err, part)
			}
		}
		if head < 20 || head >= n/2 || done != head {
			t.Errorf("head %d and %d done of %d", head, done, n)
		}
		if size := l.size.Load(); size < o.MaxBytes || size > o.MaxBytes*5/4 {
			t.Errorf("size %d, want about %d", size, o.MaxBytes)
		}
		if got := readAll(t, l); int64(len(got)) != head {
			t.Errorf("%d changes are left, want all %d", len(got), head)
		}

		l.Save(statesync.Progress{Sink: "well", Acked: head}) // durable, and no reason to go on
		time.Sleep(time.Minute)
		synctest.Wait()
		if now, _ := l.Head(); now != head {
			t.Errorf("head %d, want %d: one sink has acknowledged nothing", now, head)
		}
		if c, err := l.Cursor("well"); err != nil || c.Acked != head {
			t.Errorf("cursor %+v, %v, want %d: it is saved even now", c, err, head)
		}
		if _, err := l.Failure(); err == nil || strings.Contains(err.Error(), "sink well") {
			t.Errorf("failure %v, want one about the other sink", err)
		}
		if full := strings.Count(log.String(), "cannot commit"); full != 1 || strings.Contains(log.String(), "commits again") {
			t.Errorf("logged %d times, want once while it is full:\n%s", full, log.String())
		}

		for range n { // both sinks keep up from now on
			head, _ := l.Head()
			l.Save(statesync.Progress{Sink: "dead", Acked: head})
			l.Save(statesync.Progress{Sink: "well", Acked: head})
			time.Sleep(time.Second)
			synctest.Wait()
			if head == n {
				break
			}
		}
		if done != n {
			t.Errorf("%d entries done, want all %d", done, n)
		}
		if s := books(t, l); s.Queued != 0 || s.Out != n {
			t.Errorf("queued %d, out %d", s.Queued, s.Out)
		}
		if _, err := l.Failure(); err != nil {
			t.Error(err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if full := strings.Count(log.String(), "cannot commit"); full == 0 || full > 10 {
			t.Errorf("logged %d times:\n%s", full, log.String())
		}
	})
}

// TestRoomDoesNotWaitForDeleting: it may come from elsewhere.
func TestRoomDoesNotWaitForDeleting(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	strike := errors.New("disk on strike")
	for _, step := range []struct {
		size int64
		room bool
	}{{1, true}, {defaultMaxBytes, false}, {0, false}, {defaultMaxBytes - 1, true}, {0, true}} { // 0: not known
		l.bound(step.size, true, strike)
		if l.room != step.room || l.room != (l.full == nil) {
			t.Errorf("room %t and failure %v at %d bytes, want room %t", l.room, l.full, step.size, step.room)
		}
		if l.full != nil && !errors.Is(l.full, strike) {
			t.Errorf("failure %v, want one that says why nothing is deleted", l.full)
		}
	}
}

// TestAFullLedgerStops: what waits stays on the books; that is no error, and
// until then the failure says why it is full.
func TestAFullLedgerStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options(t, t.TempDir())
		o.MaxBytes = 32 << 10 // less than the tables need
		l := openWith(t, o)
		stop := start(t, l)
		if err := l.Append(t.Context(), entry("u", 1, 1)); err != nil {
			t.Fatal(err)
		}
		l.Save(statesync.Progress{Sink: "s", Acked: 0})
		time.Sleep(time.Minute)
		if _, err := l.Failure(); err == nil || !strings.Contains(err.Error(), "no sink holds a change") {
			t.Errorf("failure %v, want that it is full by itself", err)
		}
		if err := stop(); err != nil {
			t.Errorf("stop: %v, want none", err)
		}
		if s := books(t, l); s.Queued != 1 {
			t.Errorf("queued %d, want 1", s.Queued)
		}
	})
}

// TestDeletingThatFails is counted, logged once, tried again every five
// seconds, and holds nothing up.
func TestDeletingThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := options(t, t.TempDir())
		o.Keep = time.Second
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		l := openWith(t, o)
		other := visit(t, o.Dir)
		other.exec("CREATE TRIGGER strike BEFORE DELETE ON changes BEGIN SELECT RAISE(ABORT, 'disk on strike'); END")
		stop := start(t, l)
		for i := range int64(60) {
			record(t, l, entry("u", i+1, 1))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if _, err := l.Failure(); err != nil {
			t.Errorf("failure %v, want none: everything is durable", err)
		}
		if got := readAll(t, l); len(got) != 60 {
			t.Errorf("%d changes, want 60", len(got))
		}
		if n := failures(l, "prune"); n < 10 || n > 13 {
			t.Errorf("%d failures in a minute, want 12", n)
		}
		other.exec(noStrike)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := readAll(t, l); len(got) != 0 {
			t.Errorf("%d changes, want none", len(got))
		}
		if err := errors.Join(stop(), l.Close()); err != nil {
			t.Fatal(err)
		}
		if failed, well := strings.Count(log.String(), "upkeep fails"), strings.Count(log.String(), "upkeep works"); failed != 1 || well != 1 {
			t.Errorf("logged %d times, and its end %d times, want once each:\n%s", failed, well, log.String())
		}
	})
}
