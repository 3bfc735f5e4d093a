package ledger

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// The failures below are SQLite's own: a trigger that another connection adds
// raises an error on insert. They run on fake time, so that waiting between
// tries costs nothing.

const (
	strike   = "CREATE TRIGGER strike BEFORE INSERT ON changes WHEN NEW.seq >= 2 BEGIN SELECT RAISE(ABORT, 'disk on strike'); END"
	noStrike = "DROP TRIGGER strike"
)

func TestCommitIsTriedUntilDurable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, dir)
		stop := start(t, l)
		record(t, l, entry("before", 1, 1))
		synctest.Wait()
		if since, err := l.Failure(); err != nil || !since.IsZero() {
			t.Errorf("failure %v since %s of a ledger that is well", err, since)
		}
		if err := errors.Join(stop(), l.Close()); err != nil {
			t.Fatal(err)
		}

		other := visit(t, dir)
		other.exec(strike)
		var log bytes.Buffer
		o := options(t, dir)
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		l, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		began := time.Now()
		done := map[string]int{}
		appendCounted := func(uid string, n int) {
			e := entry(uid, 1, n)
			e.Done = func() { done[uid]++ }
			if err := l.Append(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		appendCounted("a", 1)
		appendCounted("b", 3) // its second change is what fails
		appendCounted("c", 1)
		stop = start(t, l) // now, so that the three are one group
		time.Sleep(time.Minute)
		synctest.Wait()

		since, failure := l.Failure()
		if failure == nil || !strings.Contains(failure.Error(), "disk on strike") || !strings.Contains(failure.Error(), "record b") {
			t.Errorf("failure %v, want one that says what failed and at which workload", failure)
		}
		if !since.Equal(began) {
			t.Errorf("failing since %s, want the first failure at %s", since, began)
		}
		if n := other.number("SELECT count(*) FROM changes") + other.number("SELECT count(*) FROM workloads"); n != 2 {
			t.Errorf("%d rows while the group fails, want the 2 from before: a group is durable whole or not at all", n)
		}
		if head, _ := l.Head(); head != 1 || len(done) != 0 {
			t.Errorf("head %d and done %v while nothing new is durable", head, done)
		}
		s := books(t, l)
		// 50 ms doubling to 5 s: 7 tries in the first 6.35 s, then one each 5 s.
		if tries := s.Retries["commit"] / 3; tries < 16 || tries > 20 || s.Queued != 3 {
			t.Errorf("%d retries of a group and %d queued after a minute, want 16 to 20 and 3", tries, s.Queued)
		}
		if !s.Oldest.Equal(began) {
			t.Errorf("oldest waits since %s, want %s", s.Oldest, began)
		}

		appendCounted("d", 1) // must not overtake
		other.exec(noStrike)
		time.Sleep(retryMax)
		synctest.Wait()
		if since, err := l.Failure(); err != nil || !since.IsZero() {
			t.Errorf("failure %v since %s after it had passed, want none", err, since)
		}
		if diff := cmp.Diff(map[string]int{"a": 1, "b": 1, "c": 1, "d": 1}, done); diff != "" {
			t.Errorf("entries done (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"before-1", "a-1", "b-1", "b-2", "b-3", "c-1", "d-1"}, ids(readAll(t, l))); diff != "" {
			t.Errorf("recorded (-want +got):\n%s", diff)
		}
		if s := books(t, l); s.Queued != 0 || s.Out != 4 {
			t.Errorf("queued %d, out %d, want 0 and 4", s.Queued, s.Out)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if failed, well := strings.Count(log.String(), "cannot commit"), strings.Count(log.String(), "commits again"); failed != 1 || well != 1 {
			t.Errorf("the failure was logged %d times and its end %d times, want once each:\n%s", failed, well, log.String())
		}
	})
}

// TestFailedCursorIsTriedAgain: a cursor waits with its group, and the last
// one saved is what becomes durable.
func TestFailedCursorIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, dir)
		if _, err := l.Cursor("s"); err != nil {
			t.Fatal(err)
		}
		other := visit(t, dir)
		other.exec("CREATE TRIGGER strike BEFORE UPDATE ON cursors BEGIN SELECT RAISE(ABORT, 'disk on strike'); END")
		start(t, l)
		l.Save(statesync.Progress{Sink: "s", Acked: 3})
		time.Sleep(time.Second)
		if _, err := l.Failure(); err == nil || !strings.Contains(err.Error(), "cursor of sink s") {
			t.Errorf("failure %v, want one that names the sink", err)
		}
		l.Save(statesync.Progress{Sink: "s", Acked: 8})
		other.exec(noStrike)
		time.Sleep(retryMax)
		synctest.Wait()
		if got := other.number("SELECT acked FROM cursors"); got != 8 {
			t.Errorf("acknowledged up to %d, want 8", got)
		}
		if _, err := l.Failure(); err != nil {
			t.Error(err)
		}
	})
}

func TestStopGivesUpOnWhatCannotBeCommitted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, dir)
		other := visit(t, dir)
		other.exec(strike)
		stop := start(t, l)
		for i := range int64(3) {
			if err := l.Append(t.Context(), entry("u", i+2, 1)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		began := time.Now()
		err := stop()
		if err == nil || !strings.Contains(err.Error(), "stop ledger") || !strings.Contains(err.Error(), "disk on strike") {
			t.Errorf("error %v, want one that says why the ledger gave up", err)
		}
		if took := time.Since(began); took > lastTries+time.Second {
			t.Errorf("stopping took %s, want %s", took, lastTries)
		}
		if s := books(t, l); s.Queued != 3 || s.Out != 0 {
			t.Errorf("queued %d, out %d: what was given up stays on the books", s.Queued, s.Out)
		}
	})
}

// TestStopCommitsOnceTheFailurePasses: the two seconds at the end are used.
func TestStopCommitsOnceTheFailurePasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, dir)
		other := visit(t, dir)
		other.exec(strike)
		stop := start(t, l)
		if err := l.Append(t.Context(), entry("u", 1, 2)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		stopped := make(chan error, 1)
		go func() { stopped <- stop() }()
		time.Sleep(lastTries / 2)
		other.exec(noStrike)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if got := readAll(t, l); len(got) != 2 {
			t.Errorf("%d changes, want 2", len(got))
		}
	})
}

// TestLostAnswerIsNotWrittenTwice plays a commit that reached the disk and
// whose answer did not come back: the ledger knows no head that includes it,
// and has given its connection up.
func TestLostAnswerIsNotWrittenTwice(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before []statesync.Entry // in the group whose answer was lost
		after  []statesync.Entry // handed over since: the next group has both
	}{
		"the same group again":        {[]statesync.Entry{entry("a", 1, 2), entry("b", 1, 1)}, nil},
		"a larger group":              {[]statesync.Entry{entry("a", 1, 2), entry("b", 1, 1)}, []statesync.Entry{entry("c", 1, 1), entry("a", 3, 2)}},
		"then rows alone":             {[]statesync.Entry{entry("a", 1, 2)}, []statesync.Entry{entry("a", 3, 0), entry("b", 1, 0)}},
		"with rows alone in between":  {[]statesync.Entry{entry("a", 1, 1), entry("b", 1, 0)}, []statesync.Entry{entry("b", 1, 1), entry("a", 2, 1)}},
		"a group without any changes": {[]statesync.Entry{entry("a", 1, 0)}, []statesync.Entry{entry("a", 1, 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := open(t, dir)
			if _, err := l.Cursor("s"); err != nil {
				t.Fatal(err)
			}
			add := func(entries []statesync.Entry) (want []string) {
				for _, e := range entries {
					if err := l.Append(t.Context(), e); err != nil {
						t.Fatal(err)
					}
					want = append(want, ids(e.Changes)...)
				}
				return want
			}
			want := add(tt.before)
			if err := l.write(l.waiting, nil); err != nil {
				t.Fatal(err)
			}
			if err := l.drop(errors.New("the answer was lost")); err == nil {
				t.Fatal("no error")
			}
			want = append(want, add(tt.after)...)
			l.Save(statesync.Progress{Sink: "s", Acked: 1})

			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := l.Run(ctx); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(append([]string{}, want...), ids(readAll(t, l))); diff != "" {
				t.Errorf("recorded (-want +got):\n%s", diff)
			}
			if head, _ := l.Head(); head != int64(len(want)) {
				t.Errorf("head %d, want %d", head, len(want))
			}
			if s := books(t, l); s.Queued != 0 || s.Out != int64(len(tt.before)+len(tt.after)) {
				t.Errorf("queued %d, out %d", s.Queued, s.Out)
			}
			if c, err := l.Cursor("s"); err != nil || c.Acked != 1 {
				t.Errorf("cursor %+v, %v, want 1 acknowledged: it was not in the group that reached the disk", c, err)
			}
		})
	}
}

// TestLedgerPutBackUnderARunningAgentIsNotContinued: with an older copy in
// its place the numbers would go on from elsewhere, and cursors would skip.
func TestLedgerPutBackUnderARunningAgentIsNotContinued(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, dir)
		stop := start(t, l)
		record(t, l, entry("a", 1, 5))
		other := visit(t, dir)
		other.exec(strike)
		if err := l.Append(t.Context(), entry("b", 1, 2)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		other.exec("DROP TRIGGER strike; DELETE FROM changes WHERE n > 2; UPDATE sqlite_sequence SET seq = 2")
		time.Sleep(time.Minute)
		synctest.Wait()
		_, err := l.Failure()
		if err == nil || !strings.Contains(err.Error(), "2") || !strings.Contains(err.Error(), "5") {
			t.Errorf("failure %v, want one that gives the file's head and the one expected", err)
		}
		if n := other.number("SELECT count(*) FROM changes"); n != 2 {
			t.Errorf("%d changes in the file, want the 2 that were put back", n)
		}
		if err := stop(); err == nil {
			t.Error("stopped without an error")
		}
	})
}

// TestShortLockIsWaitedFor: a backup that holds the file for a moment is no
// failure.
func TestShortLockIsWaitedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	other := visit(t, dir)
	other.once("BEGIN IMMEDIATE")
	done := make(chan struct{})
	e := entry("a", 1, 1)
	e.Done = func() { close(done) }
	if err := l.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	start(t, l)
	until(t, "the committer has taken the work up", func() bool { return len(l.more) == 0 })
	select {
	case <-done:
		t.Error("an entry is done while another connection holds the file")
	default:
	}
	other.once("ROLLBACK")
	<-done
	if s := books(t, l); len(s.Retries) != 0 {
		t.Errorf("retries %v, want none", s.Retries)
	}
	if got := readAll(t, l); len(got) != 1 {
		t.Errorf("%d changes, want 1", len(got))
	}
}

// TestFailureNamesTheWorkload: a change that the file refuses for ever stops the log,
// by design; the error must say which workload it is.
func TestFailureNamesTheWorkload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	e := entry("u", 1, 1)
	e.Changes[0].Occurred = time.Date(10001, 1, 1, 0, 0, 0, 0, time.UTC) // JSON has no such year
	if err := l.write([]waitingEntry{{Entry: e}}, nil); err == nil || !strings.Contains(err.Error(), "record u: encode change") {
		t.Errorf("error %v, want one that names the workload", err)
	}
	if n, err := readNumber(l.writer, "SELECT count(*) FROM workloads"); n != 0 || err != nil {
		t.Errorf("%d rows left behind, %v", n, err)
	}
}

// TestEveryConnectionSyncs: SQLite's own default in this mode would leave
// commits to the machine's page cache, also after the file was opened again.
func TestEveryConnectionSyncs(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	for _, when := range []string{"opened", "opened again"} {
		for pragma, want := range map[string]int64{"synchronous": 2, "busy_timeout": 1000} {
			if got, err := readNumber(l.writer, "PRAGMA "+pragma); got != want || err != nil {
				t.Errorf("%s: %s is %d, %v, want %d", when, pragma, got, err, want)
			}
		}
		if n, err := readNumber(l.writer, "SELECT count(*) FROM pragma_journal_mode WHERE journal_mode = 'wal'"); n != 1 || err != nil {
			t.Errorf("%s: no write-ahead log, %v", when, err)
		}
		_ = l.drop(errors.New("disk on strike"))
		if _, err := l.reopen(nil); err != nil {
			t.Fatal(err)
		}
	}
}
