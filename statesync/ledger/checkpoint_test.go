package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// TestCommitsCopyNothing: what a commit waits for is its own sync alone.
func TestCommitsCopyNothing(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	before, err := readNumber(l.writer, "PRAGMA wal_autocheckpoint")
	if err != nil || before != 0 {
		t.Errorf("the writer checkpoints by itself after %d pages, %v", before, err)
	}
	if n, err := readNumber(l.reader, "PRAGMA wal_autocheckpoint"); err != nil || n != 0 {
		t.Errorf("the reader checkpoints by itself after %d pages, %v", n, err)
	}
	for i := range int64(400) {
		commit(t, l, big("u", i+1))
	}
	if wal, err := l.walSize(); err != nil || wal < 400*4096 {
		t.Errorf("the WAL has %d bytes, %v, want all that was written", wal, err)
	}
	if l.checker != nil {
		t.Error("a connection for checkpoints, without Run")
	}
}

// TestTheWALIsUsedAgain: what was written is copied within seconds, and then
// the next commits start over in the WAL.
func TestTheWALIsUsedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, t.TempDir())
		start(t, l)
		var sizes []int64
		for i := range int64(20) {
			var entries []statesync.Entry
			for j := range int64(10) {
				entries = append(entries, big("u", 10*i+j+1))
			}
			record(t, l, entries...)
			time.Sleep(2 * checkpointEvery)
			synctest.Wait()
			size, err := l.walSize()
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, size)
		}
		if sizes[19] > 2*sizes[0] {
			t.Errorf("the WAL grows: %v", sizes)
		}
		n := l.checks.Snapshot().Count
		if n < 20 || n > 22 {
			t.Errorf("%d checkpoints, want one after each of 20 writes", n)
		}
		time.Sleep(time.Minute)
		if now := l.checks.Snapshot().Count; now > n+1 {
			t.Errorf("%d checkpoints of a ledger at rest", now-n)
		}
	})
}

// TestTheWALHasABound, under writes that never pause; and at rest it is small.
func TestTheWALHasABound(t *testing.T) {
	t.Parallel()
	o := options(t, t.TempDir())
	o.MaxBytes = 8 << 20 // so the WAL may have 1 MiB
	o.Keep = time.Nanosecond
	l := openWith(t, o)
	stop := start(t, l)
	largest := int64(0)
	inFlight := make(chan struct{}, 50)
	for i := range int64(2000) { // 8 MB
		e := big("u", i+1)
		e.Done = func() { <-inFlight }
		inFlight <- struct{}{}
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			size, err := l.walSize()
			if err != nil {
				t.Fatal(err)
			}
			largest = max(largest, size)
		}
	}
	if largest < 1<<19 || largest > 5<<20 {
		t.Errorf("the WAL had %d bytes at most, want some more than 1 MiB at most", largest)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestAReaderThatStaysOpen pins the WAL: it is noticed, nothing fails, and
// once the reader has gone the WAL is emptied.
func TestAReaderThatStaysOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	commit(t, l, big("u", 1))
	other := visit(t, dir)
	other.once("BEGIN")
	other.number("SELECT count(*) FROM changes")
	for i := range int64(20) {
		commit(t, l, big("u", i+2))
	}
	if complete, err := l.checkpoint(t.Context(), "PASSIVE"); complete || err != nil {
		t.Errorf("complete %t, %v, want that some is left for the reader's sake", complete, err)
	}
	l.writing.Lock()
	if l.truncate() {
		t.Error("emptied under a reader's feet")
	}
	l.writing.Unlock()
	if failures(l, "truncate") != 0 {
		t.Error("a reader is counted as a failure")
	}
	commit(t, l, big("u", 22))
	other.once("ROLLBACK")
	l.writing.Lock()
	defer l.writing.Unlock()
	if size, err := l.walSize(); !l.truncate() || err != nil || size == 0 {
		t.Errorf("not emptied, with %d bytes before, %v", size, err)
	}
	if size, err := l.walSize(); size != 0 || err != nil {
		t.Errorf("%d bytes, %v, want none", size, err)
	}
}

// TestCheckpointsThatFail are counted, logged once a run, and tried again.
func TestCheckpointsThatFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := options(t, t.TempDir())
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		l := openWith(t, o)
		commit(t, l, big("u", 1))
		path := l.path
		move := func(to string) {
			l.checking.Lock()
			defer l.checking.Unlock()
			l.path = to
		}
		move(filepath.Join(o.Dir, "elsewhere"))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); l.RunCheckpoints(ctx) }()
		for range 60 { // what is written meanwhile makes it no more eager
			l.wrote(checkpointBytes)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := failures(l, "checkpoint"); n < 28 || n > 32 {
			t.Errorf("%d failures in a minute, want one each two seconds", n)
		}
		move(path)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := l.checks.Snapshot().Count; n == 0 || n > 2 {
			t.Errorf("%d checkpoints, want one: what was written still counted", n)
		}
		cancel()
		<-ended
		if failed, well := strings.Count(log.String(), "upkeep fails"), strings.Count(log.String(), "upkeep works"); failed != 1 || well != 1 {
			t.Errorf("logged %d times, and its end %d times, want once each:\n%s", failed, well, log.String())
		}
	})
}

// TestACheckpointTrustsNoConnectionFromBeforeAFailure opens the file again.
func TestACheckpointTrustsNoConnectionFromBeforeAFailure(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	for i := range int64(3) {
		commit(t, l, big("u", i+1))
		before := l.checker
		for range 2 {
			if complete, err := l.checkpoint(t.Context(), "PASSIVE"); !complete || err != nil {
				t.Fatal(complete, err)
			}
		}
		if l.checker == nil || l.checker == before {
			t.Error("the same connection as before the failure")
		}
		l.writing.Lock()
		if err := l.drop(errors.New("disk on strike")); err == nil {
			t.Error("no error")
		}
		l.writing.Unlock()
	}
	if got := readAll(t, l); len(got) != 3 {
		t.Errorf("%d changes, want 3", len(got))
	}
}

func TestFiguresOfTheUpkeep(t *testing.T) {
	t.Parallel()
	o := options(t, t.TempDir())
	o.Keep = time.Nanosecond
	l := openWith(t, o)
	commit(t, l, entry("u", 1, 3))
	l.retains = retention{}
	l.retain()
	if _, err := l.checkpoint(t.Context(), "PASSIVE"); err != nil {
		t.Fatal(err)
	}
	l.keepUp("checkpoint", errors.New("disk on strike"))
	got := map[string]float64{}
	for _, f := range o.Registry.Gather() {
		for _, p := range f.Points {
			name := fmt.Sprint(f.Desc.Name, p.Tags)
			if got[name] = p.Value; p.Hist != nil {
				got[name] = float64(p.Hist.Count)
			}
		}
	}
	for name, want := range map[string]float64{
		"outrider_ledger_bound_bytes[]":                     2 << 30,
		"outrider_ledger_pruned_total[changes]":             3,
		"outrider_ledger_upkeep_failures_total[checkpoint]": 1,
		"outrider_ledger_checkpoint_seconds[]":              1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	wal, size := got["outrider_ledger_wal_bytes[]"], got["outrider_ledger_size_bytes[]"]
	if wal < 4096 || size < 10*4096+walLimit || size > 200000+walLimit {
		t.Errorf("WAL %v and size %v bytes, want the tables besides", wal, size)
	}
	if used := got["outrider_ledger_used_ratio[]"]; used != size/(2<<30) {
		t.Errorf("used ratio %v, want %v bytes of 2 GiB", used, size)
	}
}
