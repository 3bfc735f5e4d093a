package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/outrider-agent/outrider/statesync"
)

func TestReadReturnsWhatWasAppended(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	start(t, l)
	code := int32(137)
	e := entry("u", 1, 1)
	e.Changes[0] = statesync.Change{
		ID: "id", Cluster: "c", Epoch: 3, Workload: e.Row.Ref, From: statesync.Running, To: statesync.Failed,
		Reason: "OOMKilled", Message: "two\nlines \x00 \U0001f4a5", ExitCode: &code, Seq: 1,
		Occurred: epoch, Observed: epoch.Add(123456789), Reconstructed: true, ObservedLate: true,
	}
	before := time.Now()
	record(t, l, e)
	got := readAll(t, l)
	want := []statesync.Change{e.Changes[0]}
	want[0].Number = 1
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(statesync.Change{}, "Recorded")); diff != "" {
		t.Errorf("(-appended +read):\n%s", diff)
	}
	if r := got[0].Recorded; r.Before(before) || r.After(time.Now()) {
		t.Errorf("recorded %s, want the time of the commit", r)
	}
}

func TestNumbersFollowTheOrderOfAppend(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	// More than one group, before the committer starts, of entries of 0 to 3 changes.
	var entries []statesync.Entry
	var want []string
	seq := map[string]int64{}
	for i := range groupEntries + 200 {
		uid := fmt.Sprintf("u%d", i%7)
		e := entry(uid, seq[uid]+1, i%4)
		seq[uid] += int64(i % 4)
		want = append(want, ids(e.Changes)...)
		entries = append(entries, e)
	}
	for _, e := range entries {
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	start(t, l)
	until(t, "all are durable", func() bool { return books(t, l).Queued == 0 })
	got := readAll(t, l)
	if diff := cmp.Diff(want, ids(got)); diff != "" {
		t.Errorf("(-appended +read):\n%s", diff)
	}
	if head, _ := l.Head(); head != int64(len(want)) || got[0].Number != 1 {
		t.Errorf("numbers %d to %d, want 1 to %d", got[0].Number, head, len(want))
	}
	if s := books(t, l); s.In != int64(len(entries)) || s.Out != s.In {
		t.Errorf("in %d, out %d, want %d", s.In, s.Out, len(entries))
	}
}

func TestReadAfter(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	start(t, l)
	record(t, l, entry("a", 1, 3), entry("b", 1, 2))
	for name, tt := range map[string]struct {
		after int64
		limit int
		want  []string
	}{
		"from the start":   {0, 2, []string{"a-1", "a-2"}},
		"within an entry":  {2, 2, []string{"a-3", "b-1"}},
		"less than asked":  {4, 10, []string{"b-2"}},
		"at the head":      {5, 10, []string{}},
		"beyond the head":  {99, 10, []string{}},
		"nothing is asked": {0, 0, []string{}},
	} {
		got, err := readLog(t.Context(), l, tt.after, tt.limit)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, ids(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := readLog(ended, l, 0, 10); err == nil {
		t.Error("a read whose context had ended gave no error")
	}
	if got, err := readLog(t.Context(), l, 0, 10); err != nil || len(got) != 5 {
		t.Errorf("after an interrupted read: %d changes, %v", len(got), err)
	}
}

func TestHeadWakesReaders(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	start(t, l)
	head, wake := l.Head()
	if head != 0 {
		t.Fatalf("head of an empty ledger is %d", head)
	}
	rowOnly := entry("u", 1, 0)
	record(t, l, rowOnly)
	select {
	case <-wake:
		t.Error("woken by an entry without changes")
	default:
	}
	record(t, l, entry("u", 1, 2))
	<-wake
	if head, _ = l.Head(); head != 2 {
		t.Errorf("head %d, want 2", head)
	}
}

// TestDoneComesAfterDurable looks with a second connection, in Done, whether
// the entry is there.
func TestDoneComesAfterDurable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	start(t, l)
	other := visit(t, dir)
	var wait sync.WaitGroup
	for i := range 20 {
		e := entry(fmt.Sprintf("u%d", i), 1, 2)
		wait.Add(1)
		e.Done = func() {
			defer wait.Done()
			if n := other.number(fmt.Sprintf("SELECT count(*) FROM changes JOIN workloads w ON w.id = workload WHERE uid = 'u%d' AND w.seq = 2", i)); n != 2 {
				t.Errorf("entry %d is done with %d changes in the file, want 2", i, n)
			}
			if head, _ := l.Head(); head < int64(2*i+2) {
				t.Errorf("entry %d is done with the head at %d", i, head)
			}
		}
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	wait.Wait()
}

func TestNumbersGoOnAfterRetentionEmptiedTheTable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	stop := start(t, l)
	record(t, l, entry("u", 1, 5))
	if err := errors.Join(stop(), l.Close()); err != nil {
		t.Fatal(err)
	}
	visit(t, dir).exec("DELETE FROM changes")

	l = open(t, dir)
	if head, _ := l.Head(); head != 5 {
		t.Errorf("head %d after reopening, want 5: cursors would skip", head)
	}
	start(t, l)
	record(t, l, entry("u", 6, 1))
	got, err := readLog(t.Context(), l, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Number != 6 || got[0].Previous != 5 {
		t.Errorf("read %+v, want number 6 with previous 5", got)
	}
}

func TestReopenedLedgerGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range int64(3) {
		l := open(t, dir)
		stop := start(t, l)
		record(t, l, entry("a", 2*i+1, 2), entry("b", i+1, 1))
		if err := errors.Join(stop(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, dir)
	if got := readAll(t, l); len(got) != 9 {
		t.Errorf("%d changes, want 9", len(got))
	}
	if s := books(t, l); s.Carried+s.In+s.Queued != 0 {
		t.Errorf("books of a ledger just opened: %+v, want nothing: what was durable is not its work", s)
	}
}

func TestCursors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	first, err := l.Cursor("first")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(statesync.Cursor{Sink: "first"}, first); diff != "" {
		t.Errorf("cursor in an empty ledger (-want +got):\n%s", diff)
	}
	stop := start(t, l)
	record(t, l, entry("u", 1, 10))
	l.Save(statesync.Progress{Sink: "first", Acked: 3})
	l.Save(statesync.Progress{Sink: "first", Acked: 7})
	l.Save(statesync.Progress{Sink: "nobody", Acked: 9}) // its row was removed meanwhile: it must not come back
	if err := errors.Join(stop(), l.Close()); err != nil {
		t.Fatal(err)
	}

	l = open(t, dir)
	for sink, want := range map[string]statesync.Cursor{
		"first":  {Sink: "first", Acked: 7},
		"second": {Sink: "second", Acked: 10, Skipped: 10, Aside: 1}, // a new sink starts at the head, and where u stands
		"nobody": {Sink: "nobody", Acked: 10, Skipped: 10, Aside: 1},
	} {
		for range 2 { // the second time it is not new
			got, err := l.Cursor(sink)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(statesync.Cursor{}, "AsideTop")); diff != "" {
				t.Errorf("cursor (-want +got):\n%s", diff)
			}
		}
	}
}

// TestCursorIsSavedWithoutChanges: a quiet cluster must not keep the last
// acknowledgements from the disk.
func TestCursorIsSavedWithoutChanges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	if _, err := l.Cursor("s"); err != nil {
		t.Fatal(err)
	}
	start(t, l)
	l.Save(statesync.Progress{Sink: "s", Acked: 4})
	other := visit(t, dir)
	until(t, "the cursor is in the file", func() bool {
		return other.number("SELECT acked FROM cursors WHERE sink = 's'") == 4
	})
}

func TestRowsComeBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	stop := start(t, l)
	alive := entry("alive", 1, 1)
	alive.Row.ResourceVersion, alive.Row.Suspended = 1<<63+5, true // versions are unsigned
	gone, ended, silent, bare := entry("gone", 1, 1), entry("ended", 1, 2), entry("silent", 1, 0), entry("bare", 1, 1)
	gone.Row.Gone = true
	ended.Row.State = statesync.Succeeded
	silent.Row.Seq = 0
	bare.Row.Labels = nil
	moved := entry("moved", 1, 1)
	record(t, l, alive, gone, ended, silent, bare, moved)
	again := entry("moved", 2, 1)
	again.Row.Labels = map[string]string{"new": "label"}
	record(t, l, again)
	if err := errors.Join(stop(), l.Close()); err != nil {
		t.Fatal(err)
	}

	l = open(t, dir)
	got := load(t, l).Rows
	slices.SortFunc(got, func(a, b statesync.Row) int { return strings.Compare(a.UID, b.UID) })
	want := []statesync.Row{alive.Row, bare.Row, ended.Row, again.Row, silent.Row}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestGoneWorkloadKeepsItsLinks: what comes for a UID after its removal still
// finds the change before.
func TestGoneWorkloadKeepsItsLinks(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	gone := entry("u", 1, 2)
	gone.Row.Gone = true
	if err := l.write([]waitingEntry{{Entry: gone}}, nil); err != nil {
		t.Fatal(err)
	}
	if len(l.ids) != 0 {
		t.Errorf("%d workloads that are gone stay in memory", len(l.ids))
	}
	start(t, l)
	record(t, l, entry("other", 1, 1), entry("u", 3, 1))
	if got := readAll(t, l); len(got) != 4 || got[3].Previous != 2 {
		t.Errorf("read %+v, want the last one to have previous 2", got)
	}
	if rows := load(t, l).Rows; len(rows) != 2 {
		t.Errorf("%d workloads, want the one that came back too", len(rows))
	}
}

func TestALedgerThatIsTakenAwayIsNoticed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	if err := l.Intact(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, File)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600: the ledger names people's workloads", info.Mode(), err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Intact(); err == nil || !strings.Contains(err.Error(), "was taken away") {
		t.Errorf("got %v, want that it was taken away", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Intact(); err == nil || !strings.Contains(err.Error(), "was replaced") {
		t.Errorf("got %v, want that it was replaced", err)
	}
}

func TestIdentify(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	for range 2 {
		if epoch, err := l.Identify("here"); epoch != 1 || err != nil {
			t.Fatalf("epoch %d, %v, want 1", epoch, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	visit(t, dir).exec("UPDATE meta SET value = '7' WHERE key = 'epoch'")
	l = open(t, dir)
	_, err := l.Identify("there")
	for _, part := range []string{"here", "there", filepath.Join(dir, File), "data_dir"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want one that says %q", err, part)
		}
	}
	if epoch, err := l.Identify("here"); epoch != 7 || err != nil {
		t.Errorf("epoch %d, %v after a refusal, want 7", epoch, err)
	}
}

func TestLedgerOfAnotherFormatIsRefusedAndLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	future := visit(t, dir)
	future.exec("UPDATE meta SET value = '5' WHERE key = 'format'; DROP TABLE workloads")
	l, err := Open(options(t, dir))
	if err == nil {
		_ = l.Close()
		t.Fatal("opened")
	}
	for _, part := range []string{"open ledger", "format 5", "want 4"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want one that says %q", err, part)
		}
	}
	if n := future.number("SELECT count(*) FROM sqlite_master WHERE name = 'workloads'"); n != 0 {
		t.Error("a ledger of a later format was changed: it got a table of ours")
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"no directory": func(t *testing.T, dir string) { _ = os.Remove(dir) },
		"a folder":     func(t *testing.T, dir string) { _ = os.Mkdir(filepath.Join(dir, File), 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			_ = os.Mkdir(dir, 0o700)
			prepare(t, dir)
			l, err := Open(options(t, dir))
			if err == nil {
				_ = l.Close()
				t.Fatal("opened")
			}
			if !strings.HasPrefix(err.Error(), "open ledger: ") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func write(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, File), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTwoLedgersInOneRegistry: the second is an error, and its file is
// released.
func TestTwoLedgersInOneRegistry(t *testing.T) {
	t.Parallel()
	o := options(t, t.TempDir())
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if second, err := Open(o); err == nil {
		_ = second.Close()
		t.Error("opened twice, with two pipelines of one name")
	}
}

func TestAppendBlocksAtTheBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, t.TempDir())
		for range backlogEntries {
			if err := l.Append(t.Context(), entry("u", 1, 0)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 2)
		go func() { result <- l.Append(ctx, entry("refused", 1, 1)) }()
		synctest.Wait()
		if len(result) != 0 {
			t.Fatalf("Append returned %v with %d entries waiting, want it to block", <-result, backlogEntries)
		}
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want that the context ended", err)
		}
		if s := books(t, l); s.In != backlogEntries || s.Queued != backlogEntries {
			t.Errorf("in %d, queued %d, want %d: the refused entry was not taken", s.In, s.Queued, backlogEntries)
		}

		go func() { result <- l.Append(context.Background(), entry("u", 1, 1)) }()
		synctest.Wait()
		stop := start(t, l)
		if err := <-result; err != nil {
			t.Errorf("once there is room: %v", err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"u-1"}, ids(readAll(t, l))); diff != "" {
			t.Errorf("recorded (-want +got):\n%s", diff)
		}
		if s := books(t, l); s.Queued != 0 || len(l.slots) != 0 {
			t.Errorf("queued %d, slots taken %d, want none", s.Queued, len(l.slots))
		}
	})
}

func TestCloseReleasesABlockedAppend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, t.TempDir())
		for range backlogEntries {
			if err := l.Append(t.Context(), entry("u", 1, 0)); err != nil {
				t.Fatal(err)
			}
		}
		result := make(chan error, 1)
		go func() { result <- l.Append(context.Background(), entry("v", 1, 1)) }()
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-result; !errors.Is(err, ErrClosed) {
			t.Errorf("error %v, want %v", err, ErrClosed)
		}
	})
}

func TestClosedLedger(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	stop := start(t, l)
	record(t, l, entry("u", 1, 1))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for range 50 { // Append chooses between room and closed at random
		if err := l.Append(t.Context(), entry("u", 2, 1)); !errors.Is(err, ErrClosed) {
			t.Fatalf("append after Run: %v, want %v", err, ErrClosed)
		}
	}
	if got := readAll(t, l); len(got) != 1 {
		t.Errorf("after Run and before Close: %d changes, want 1", len(got))
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Errorf("close twice: %v", err)
	}
	if _, err := readLog(t.Context(), l, 0, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("read after Close: %v, want %v", err, ErrClosed)
	}
	if _, err := l.Load(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("load after Close: %v, want %v", err, ErrClosed)
	}
	if s := books(t, l); s.In != 1 || len(l.slots) != 0 {
		t.Errorf("in %d, slots taken %d: refused entries must leave no trace", s.In, len(l.slots))
	}
}

func TestRunThatHasEndedCommitsWhatWaits(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	if _, err := l.Cursor("s"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 600)
	for i := range int64(600) { // more than one group
		e := entry("u", i+1, 1)
		e.Done = func() { done <- struct{}{} }
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	l.Save(statesync.Progress{Sink: "s", Acked: 5})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, l); len(got) != 600 || len(done) != 600 {
		t.Errorf("%d changes, %d entries done, want 600", len(got), len(done))
	}
	if c, err := l.Cursor("s"); err != nil || c.Acked != 5 {
		t.Errorf("cursor %+v, %v, want 5 acknowledged", c, err)
	}
}

func TestConcurrentAppendersKeepTheirOrder(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	start(t, l)
	const appenders, each = 16, 40
	stopReading, cancel := context.WithCancel(t.Context())
	var watching, all, durable sync.WaitGroup
	watching.Go(func() { // reads and balances while the others append
		for {
			books(t, l)
			head, wake := l.Head()
			if got, err := readLog(t.Context(), l, max(0, head-10), 10); err != nil || int64(len(got)) < min(head, 10) {
				t.Errorf("%d changes up to the head %d, %v: what is under the head can be read", len(got), head, err)
				return
			}
			select {
			case <-wake:
			case <-stopReading.Done():
				return
			}
		}
	})
	for a := range appenders {
		all.Go(func() {
			for i := range int64(each) {
				e := entry(fmt.Sprintf("u%d", a), 2*i+1, 2)
				durable.Add(1)
				e.Done = durable.Done
				if err := l.Append(t.Context(), e); err != nil {
					t.Error(err)
				}
				if i%10 == 0 {
					l.Save(statesync.Progress{Sink: "s", Acked: i})
				}
			}
		})
	}
	all.Wait()
	durable.Wait()
	cancel()
	watching.Wait()
	if got := readAll(t, l); len(got) != 2*appenders*each {
		t.Errorf("%d changes, want %d", len(got), 2*appenders*each)
	}
	if s := books(t, l); s.Out != appenders*each || len(s.Retries) != 0 {
		t.Errorf("out %d, retries %v, want %d and none", s.Out, s.Retries, appenders*each)
	}
}

func TestFiguresOfTheLedger(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	start(t, l)
	record(t, l, entry("u", 1, 3), entry("u", 4, 1))
	got := map[string]float64{}
	for _, f := range l.opts.Registry.Gather() {
		for _, p := range f.Points {
			if got[f.Desc.Name] = p.Value; p.Hist != nil {
				got[f.Desc.Name] = float64(p.Hist.Count)
			}
		}
	}
	if got["outrider_ledger_head"] != 4 || got["outrider_change_stage_seconds"] != 4 || got["outrider_ledger_commit_seconds"] < 1 {
		t.Errorf("head %v, stages observed %v, commits %v, want 4, 4 and at least 1", got["outrider_ledger_head"],
			got["outrider_change_stage_seconds"], got["outrider_ledger_commit_seconds"])
	}
}
