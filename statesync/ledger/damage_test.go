package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"zombiezen.com/go/sqlite"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/ledger/replay"
)

// resumeAt is an entry that keeps an object and moves the resume point.
func resumeAt(version uint64) statesync.Entry {
	return statesync.Entry{
		Objects: []statesync.Object{{Stream: "pods", UID: "u", Body: []byte("{}")}},
		Resume:  &statesync.Resume{Stream: "pods", Definition: "all", Version: version, At: epoch},
	}
}

func lossesOf(l *Ledger) []span {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.losses
}

// TestTheWatchLoadsAnewAfterARescue: what it hands over until then rests on
// objects that are gone; its changes do not.
func TestTheWatchLoadsAnewAfterARescue(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	if _, err := l.Identify("c"); err != nil {
		t.Fatal(err)
	}
	before := load(t, l)
	stop := start(t, l)
	record(t, l, entry("a", 1, 1), resumeAt(10))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.closed, l.stopped = false, make(chan struct{})
	l.mu.Unlock()

	waiting := resumeAt(11)
	waiting.Row, waiting.Changes = entry("b", 1, 1).Row, entry("b", 1, 1).Changes
	if err := l.Append(t.Context(), waiting); err != nil {
		t.Fatal(err)
	}
	l.writing.Lock()
	err := l.repair(0, fmt.Errorf("%w: the test says so", errDamaged))
	l.writing.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-before.Stale:
	default:
		t.Error("what was loaded before the rescue is not stale")
	}
	start(t, l)
	record(t, l, resumeAt(12))
	if diff := cmp.Diff([]string{"a-1", "b-1"}, ids(readAll(t, l))); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	m := load(t, l)
	want := []statesync.Resume{{Stream: "pods", Definition: "all", Version: 10, At: epoch, Lost: statesync.GapLedgerLost}}
	if diff := cmp.Diff(want, m.Streams); diff != "" || m.Epoch != 2 {
		t.Errorf("epoch %d, want 2; streams (-want +got):\n%s", m.Epoch, diff)
	}
	record(t, l, resumeAt(13))
	if m := load(t, l); m.Streams[0].Version != 13 || m.Streams[0].Lost != "" {
		t.Errorf("streams %+v, want one at 13, not lost", m.Streams)
	}
	select {
	case <-m.Stale:
		t.Error("what was loaded after the rescue is stale")
	default:
	}
	if at, report := l.Rescued(); at.IsZero() || !strings.Contains(report, "the test says so") {
		t.Errorf("rescued at %s: %q", at, report)
	}
}

// TestDamageThatSQLiteDoesNotSee is what a reader must not pass over, nor wait
// for, nor stop at for ever.
func TestDamageThatSQLiteDoesNotSee(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script string
		lost   []span
	}{
		"no JSON":            {"UPDATE changes SET body = 'x' || body WHERE n = 7", []span{{7, 7}}},
		"no UTF-8":           {`UPDATE changes SET body = CAST(replace(CAST(body AS BLOB), CAST('Running' AS BLOB), x'FF') AS TEXT) WHERE n = 7`, []span{{7, 7}}},
		"a hole":             {"DELETE FROM changes WHERE n BETWEEN 5 AND 8", []span{{5, 8}}},
		"a hole at the end":  {"DELETE FROM changes WHERE n > 15", []span{{16, 20}}},
		"a hole at the head": {"DELETE FROM changes WHERE n IN (3, 4)", []span{{3, 4}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := open(t, dir)
			if _, err := l.Cursor("s"); err != nil {
				t.Fatal(err)
			}
			start(t, l)
			for i := range int64(10) {
				record(t, l, crashEntry(i+1))
			}
			l.Save(statesync.Progress{Sink: "s", Acked: 2})
			until(t, "the cursor is durable", func() bool { return l.acknowledged() == 2 })
			visit(t, dir).exec(tt.script)
			var got []int64
			for after := int64(2); ; {
				page, err := readLog(t.Context(), l, after, 3)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				for _, c := range page {
					after = c.Number
					got = append(got, c.Number)
				}
			}
			var want []int64
			for n := int64(3); n <= 20; n++ {
				if n < tt.lost[0].first || n > tt.lost[0].last {
					want = append(want, n)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("numbers (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.lost, lossesOf(l), cmp.AllowUnexported(span{})); diff != "" {
				t.Errorf("losses (-want +got):\n%s", diff)
			}
			record(t, l, entry("fresh", 1, 1))
			if head, _ := l.Head(); head != 21 {
				t.Errorf("head %d, want 21", head)
			}
		})
	}
}

// TestARescueBetweenACommitAndItsSettlement: what is durable is kept, what is
// not known to be is written again, under the same numbers.
func TestARescueBetweenACommitAndItsSettlement(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]bool{"the commit is known": true, "its answer was lost": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := open(t, t.TempDir())
			for _, e := range []statesync.Entry{entry("a", 1, 2), entry("b", 1, 1), entry("a", 3, 1)} {
				if err := l.Append(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
			group, _ := l.next()
			newHead := int64(4)
			l.writing.Lock()
			if err := l.write(group, nil); err != nil {
				t.Fatal(err)
			}
			if known {
				l.durable = newHead
			}
			err := l.repair(0, errDamaged)
			l.writing.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			if known {
				l.settle(group, nil, newHead)
			}
			start(t, l)
			record(t, l, entry("b", 2, 1))
			if diff := cmp.Diff([]string{"a-1", "a-2", "b-1", "a-3", "b-2"}, ids(readAll(t, l))); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if lost := lossesOf(l); len(lost) > 0 {
				t.Errorf("losses %v", lost)
			}
			if s := books(t, l); s.Queued != 0 || s.Out != 4 {
				t.Errorf("queued %d, out %d, want 0 and 4", s.Queued, s.Out)
			}
		})
	}
}

// TestADiskThatSpoilsEverything is not to be filled with damaged ledgers.
func TestADiskThatSpoilsEverything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var now atomic.Int64
	o := options(t, dir)
	o.Now = func() time.Time { return epoch.Add(time.Duration(now.Load())) }
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start(t, l)
	record(t, l, entry("a", 1, 4))
	spoilOne := func(n int) { visit(t, dir).exec(fmt.Sprintf("UPDATE changes SET body = 'x' WHERE n = %d", n)) }
	read := func() error { _, err := readLog(t.Context(), l, 0, 100); return err }
	spoilOne(1)
	if err := read(); err != nil {
		t.Fatal(err)
	}
	spoilOne(2)
	now.Add(int64(rescueEvery - time.Second))
	if err := read(); err == nil || !strings.Contains(err.Error(), "only 59s ago") {
		t.Errorf("error %v, want one that says how long ago the last rescue was", err)
	}
	now.Add(int64(time.Second))
	if err := read(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]span{{1, 1}, {2, 2}}, lossesOf(l), cmp.AllowUnexported(span{})); diff != "" {
		t.Errorf("losses (-want +got):\n%s", diff)
	}
}

// TestASinkThatMayHaveLostItsCursor starts at the oldest change that is left:
// repeats, never losses. Once all sinks have theirs, a new one is a new one.
func TestASinkThatMayHaveLostItsCursor(t *testing.T) {
	t.Parallel()
	w := fill(t, 60)
	s := visit(t, w.dir)
	s.exec("DELETE FROM cursors; DELETE FROM changes WHERE n <= 10")
	if err := s.c.Close(); err != nil {
		t.Fatal(err)
	}
	spoil(t, w.dir, 0, make([]byte, 100))
	l, err := Open(options(t, w.dir))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := l.Cursor(wreckSink); err != nil || c.Acked != 10 {
		t.Errorf("cursor %+v, %v, want 10", c, err)
	}
	stop := start(t, l)
	record(t, l, entry("fresh", 1, 1))
	if err := errors.Join(stop(), l.Close()); err != nil {
		t.Fatal(err)
	}
	l = open(t, w.dir)
	if c, err := l.Cursor(wreckSink); err != nil || c.Acked != 10 {
		t.Errorf("cursor %+v, %v, want 10", c, err)
	}
	if c, err := l.Cursor("new"); err != nil || c.Acked != w.head+1 {
		t.Errorf("cursor of a new sink %+v, %v, want %d", c, err, w.head+1)
	}
}

func TestWhatIsNoDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	start(t, l)
	e := entry("a", 1, 1)
	e.Objects = []statesync.Object{{Stream: "pods", UID: "u", Body: make([]byte, 100*pageBytes)}}
	record(t, l, e)
	gone := statesync.Entry{Objects: []statesync.Object{{Stream: "pods", UID: "u"}}}
	record(t, l, gone)
	s := visit(t, dir)
	s.once("VACUUM")
	s.once("PRAGMA wal_checkpoint(TRUNCATE)")
	record(t, l, entry("a", 2, 1))
	l.retain()
	record(t, l, entry("a", 3, 1))
	if got := len(readAll(t, l)); got != 3 {
		t.Errorf("%d changes, want 3", got)
	}
	if at, report := l.Rescued(); !at.IsZero() {
		t.Errorf("rescued: %s", report)
	}
	for name, err := range map[string]error{
		"busy": sqlite.ResultBusy.ToError(), "full": sqlite.ResultFull.ToError(), "I/O": sqlite.ResultIOErr.ToError(),
		"sync": sqlite.ResultIOErrFsync.ToError(), "permission": sqlite.ResultPerm.ToError(), "no file": sqlite.ResultCantOpen.ToError(),
		"none": nil, "closed": ErrClosed, "another cluster": ErrOtherCluster,
	} {
		if isDamage(err) {
			t.Errorf("%s counts as damage", name)
		}
	}
}

// TestAFileThatIsNoLedger is set aside like a damaged one.
func TestAFileThatIsNoLedger(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"a text":            func(t *testing.T, dir string) { write(t, dir, strings.Repeat("not a database\n", 1000)) },
		"an empty file":     func(t *testing.T, dir string) { write(t, dir, "") },
		"another database":  func(t *testing.T, dir string) { write(t, dir, ""); visit(t, dir).exec("CREATE TABLE x(y)") },
		"without its table": func(t *testing.T, dir string) { brief(t, dir); visit(t, dir).exec("DROP TABLE meta") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			prepare(t, dir)
			l := open(t, dir)
			if at, _ := l.Rescued(); at.IsZero() {
				t.Error("not rescued")
			}
			start(t, l)
			record(t, l, entry("fresh", 1, 1))
			if kept, err := filepath.Glob(filepath.Join(dir, "*"+asideSuffix+"*")); err != nil || len(kept) == 0 {
				t.Errorf("kept %v, %v", kept, err)
			}
		})
	}
}

// brief makes a ledger.
func brief(t testing.TB, dir string) {
	l, err := Open(options(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestARescueOfFormat1, as it was and migrated: then its columns are in
// another order.
func TestARescueOfFormat1(t *testing.T) {
	t.Parallel()
	for name, migrated := range map[string]bool{"as it was": false, "migrated": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := oldLedger(t, format1)
			if migrated {
				l, err := Open(options(t, dir))
				if err != nil {
					t.Fatal(err)
				}
				stop := start(t, l)
				e := entry("w", 1, 1)
				e.Row.Stream, e.Row.Epoch, e.Row.Started = "pods", 1, epoch
				record(t, l, e)
				if err := errors.Join(stop(), l.Close()); err != nil {
					t.Fatal(err)
				}
			}
			spoil(t, dir, 0, make([]byte, 100))
			l := open(t, dir)
			want := []statesync.Row{entry("u", 1, 2).Row}
			want[0].Epoch, want[0].ResourceVersion = 1, 7
			if migrated {
				want = append(want, entry("w", 1, 1).Row)
				want[1].Stream, want[1].Epoch, want[1].Started = "pods", 1, epoch
			}
			m := load(t, l)
			if diff := cmp.Diff(want, m.Rows); diff != "" || m.Epoch != 2 {
				t.Errorf("epoch %d, want 2; rows (-want +got):\n%s", m.Epoch, diff)
			}
			if c, err := l.Cursor("s"); err != nil || c.Acked != 2 {
				t.Errorf("cursor %+v, %v, want 2 acknowledged", c, err)
			}
			if got := len(readAll(t, l)); got != 2+len(want) {
				t.Errorf("%d changes, want %d", got, 2+len(want))
			}
		})
	}
}

// TestRowsAreMendedFromTheirChanges: a life whose row is lost, or an older one,
// must not begin again at seq 1.
func TestRowsAreMendedFromTheirChanges(t *testing.T) {
	t.Parallel()
	w := fill(t, 60)
	s := visit(t, w.dir)
	s.exec("DELETE FROM workloads WHERE uid = 'u1'; UPDATE workloads SET seq = 1, state = 'Queued', last = 1 WHERE uid = 'u2'")
	if err := s.c.Close(); err != nil {
		t.Fatal(err)
	}
	spoil(t, w.dir, 0, make([]byte, 100))
	l := open(t, w.dir)
	rows := map[string]statesync.Row{}
	for _, r := range load(t, l).Rows {
		rows[r.UID] = r
	}
	for _, uid := range []string{"u1", "u2"} {
		if r := rows[uid]; r.Seq != rows["u3"].Seq || r.State != statesync.Running || r.Stream != "pods" || r.Name != "pod-"+uid {
			t.Errorf("row %+v, want one like %+v", r, rows["u3"])
		}
	}
	start(t, l)
	record(t, l, entry("u1", rows["u1"].Seq+1, 1), entry("u2", rows["u2"].Seq+1, 1))
	readAll(t, l) // looks at the chains
}

// TestWhatWasDeletedStaysSo: free pages hold old rows.
func TestWhatWasDeletedStaysSo(t *testing.T) {
	t.Parallel()
	w := fill(t, 60)
	s := visit(t, w.dir)
	s.exec("DELETE FROM changes WHERE n <= 100")
	if free := s.number("PRAGMA freelist_count"); free < 5 {
		t.Fatalf("%d free pages", free)
	}
	if err := s.c.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := rescue(filepath.Join(w.dir, File), last{durable: -1}, epoch, errDamaged, func() {})
	if err != nil || r.changes != 20 {
		t.Fatalf("%+v, %v, want the 20 changes that were left", r, err)
	}
}

// TestDamageThatNobodyReads is found by the committer and the checkpointer.
func TestDamageThatNobodyReads(t *testing.T) {
	t.Parallel()
	for name, strike := range map[string]func(t *testing.T, l *Ledger, w *wreck){
		"the file is cut": func(t *testing.T, l *Ledger, w *wreck) {
			if err := os.Truncate(l.path, int64(w.pages-4)*pageBytes); err != nil {
				t.Fatal(err)
			}
		},
		"the WAL is cut": func(t *testing.T, l *Ledger, _ *wreck) {
			if err := os.Truncate(l.path+"-wal", frameAt(3)); err != nil {
				t.Fatal(err)
			}
			if _, err := l.checkpoint(t.Context(), "PASSIVE"); !isDamage(err) {
				t.Errorf("checkpoint: %v, want damage", err)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.broken == nil {
				t.Error("the checkpointer told nobody")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := fillWAL(t)
			dir := w.copyTo(t)
			l := open(t, dir)
			if name == "the file is cut" {
				if _, err := l.checkpoint(t.Context(), "TRUNCATE"); err != nil {
					t.Fatal(err)
				}
				l.retain() // sees the size
			}
			strike(t, l, w)
			l.retain()
			if _, err := l.try(nil, nil); err != nil {
				t.Fatal(err)
			}
			if at, _ := l.Rescued(); at.IsZero() {
				t.Error("not rescued")
			}
			if head, _ := l.Head(); head != w.head {
				t.Errorf("head %d, want %d", head, w.head)
			}
		})
	}
}

func TestARescueThatCannotBeMade(t *testing.T) {
	t.Parallel()
	w := fill(t, 60)
	spoil(t, w.dir, 0, make([]byte, 100))
	inTheWay := filepath.Join(w.dir, File+makingSuffix)
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(options(t, w.dir)); err == nil || !strings.Contains(err.Error(), makingSuffix) {
		t.Errorf("error %v, want one that names what is in the way", err)
	}
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	w.survived(t, openWreck(t, w.dir), func(uint32) bool { return false })
}

// TestTheReaderIsOpenedAgain: the file became shorter, as VACUUM makes it, and
// could not be opened anew when that was noticed.
func TestTheReaderIsOpenedAgain(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	start(t, l)
	record(t, l, entry("a", 1, 1))
	l.writing.Lock()
	l.readMu.Lock()
	l.checking.Lock()
	err := l.release()
	l.checking.Unlock()
	l.readMu.Unlock()
	l.writing.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	record(t, l, entry("b", 1, 1))
	if got := ids(readAll(t, l)); len(got) != 2 {
		t.Errorf("read %q, want both changes", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := readLog(t.Context(), l, 0, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("read a closed ledger: %v, want %v", err, ErrClosed)
	}
}

// TestARowThatWouldNotBeUnderstoodIsNotRescued: its JSON is whole, but tells
// nothing. A rescue that took it over would be followed by another, for ever.
func TestARowThatWouldNotBeUnderstoodIsNotRescued(t *testing.T) {
	t.Parallel()
	for name, strike := range map[string]string{
		"a time with a changed bit":  `UPDATE aside SET body = replace(body, '"2026-03-', '"2026-s3-') WHERE id = 2`,
		"nothing":                    `UPDATE aside SET body = '' WHERE id = 2`,
		"of no kind that there is":   `UPDATE aside SET what = 'gnitial', body = '' WHERE id = 2`,
		"what was left out":          `UPDATE aside SET skipped = '{}' WHERE id = 2`,
		"what it was told":           `UPDATE told SET skipped = '{}'`,
		"a dead letter":              `UPDATE dead_letters SET body = replace(body, '"2026-03-', '"2026-s3-')`,
		"what a dead letter follows": `UPDATE dead_letters SET skipped = '{}'`,
		"labels":                     `UPDATE workloads SET labels = '[]' WHERE uid = 'a'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := epoch
			dir := t.TempDir()
			o := options(t, dir)
			o.Now = func() time.Time { return now }
			l := openWith(t, o)
			identified(t, l)
			commit(t, l, entry("a", 1, 1), entry("b", 1, 1))
			cursorOf(t, l, "s")
			commit(t, l, entry("a", 2, 1), entry("b", 2, 1))
			refused := offered(t, l, 4)
			save(t, l, statesync.Progress{
				Sink: "s", Acked: 3, Letters: []statesync.DeadLetter{{Delivery: refused.Delivery}},
				Told: []statesync.Told{{UID: "a", Skipped: []statesync.Skip{{From: 1, To: 1, Cause: "x"}}}},
			})
			visit(t, dir).exec(strike)
			for range 4 {
				letters := replay.Query{Sink: "s", Letters: true}
				_, _ = replay.Run(t.Context(), l, letters, func(replay.Report) {}) // finds it damaged, or puts the damage aside
				_, _ = l.Read(t.Context(), statesync.ReadQuery{Sink: "s", Aside: true, Limit: 10})
				_, _ = l.Load(t.Context())
				now = now.Add(2 * time.Minute)
			}
			if got, err := l.Read(t.Context(), statesync.ReadQuery{Sink: "s", Aside: true, Limit: 10}); err != nil || len(got) == 0 {
				t.Errorf("put aside %q, %v, want what is left", tellAll(got), err)
			}
			if _, err := l.Load(t.Context()); err != nil {
				t.Error(err)
			}
			kept, err := filepath.Glob(filepath.Join(dir, File+asideSuffix+"*Z"))
			if err != nil || len(kept) != 1 {
				t.Errorf("damaged ledgers %v, %v, want one", kept, err)
			}
			if _, said := l.Rescued(); name != "labels" && !strings.Contains(said, "pages and 1 rows kept for sinks unreadable") {
				t.Errorf("the rescue says %q, want that a row is missing", said)
			}
		})
	}
}
