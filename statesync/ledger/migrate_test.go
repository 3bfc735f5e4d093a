package ledger

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/statesync"
)

// format2 is the schema of format 2, with a ledger's first rows.
const format2 = `
CREATE TABLE meta ( key TEXT PRIMARY KEY, value TEXT NOT NULL ) WITHOUT ROWID;
CREATE TABLE workloads ( id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, labels TEXT NOT NULL, stream TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, rv INTEGER NOT NULL, suspended INTEGER NOT NULL, started INTEGER NOT NULL, suspension INTEGER NOT NULL, last INTEGER NOT NULL, gone INTEGER NOT NULL, removed INTEGER NOT NULL );
CREATE INDEX tombstones ON workloads(gone) WHERE gone != 0;
CREATE TABLE changes ( n INTEGER PRIMARY KEY AUTOINCREMENT, workload INTEGER NOT NULL, seq INTEGER NOT NULL, previous INTEGER NOT NULL, recorded INTEGER NOT NULL, body TEXT NOT NULL );
CREATE TABLE streams ( id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, definition TEXT NOT NULL, version INTEGER NOT NULL, at INTEGER NOT NULL, lost TEXT NOT NULL );
CREATE TABLE objects ( stream INTEGER NOT NULL, uid TEXT NOT NULL, unread INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (stream, uid) ) WITHOUT ROWID;
CREATE TABLE cursors ( sink TEXT PRIMARY KEY, since INTEGER NOT NULL, acked INTEGER NOT NULL ) WITHOUT ROWID;
CREATE TABLE losses ( first INTEGER NOT NULL, last INTEGER NOT NULL, at INTEGER NOT NULL, cause TEXT NOT NULL );
INSERT INTO meta VALUES('format', '2'), ('cluster', 'c'), ('epoch', '1');
INSERT INTO workloads VALUES(1, 'a', 'Pod', 'ns', 'pod-a', '{}', 'pods', 'Running', '', 1, 3, 7, 0, 0, 0, 3, 0, 0);
INSERT INTO changes(workload, seq, previous, recorded, body) VALUES
	(1, 1, 0, 1000000000 * unixepoch(), '{"id":"a-1","workload":{"kind":"Pod","namespace":"ns","name":"pod-a","uid":"a"},"seq":1}'),
	(1, 2, 1, 1000000000 * unixepoch(), '{"id":"a-2","workload":{"kind":"Pod","namespace":"ns","name":"pod-a","uid":"a"},"seq":2}'),
	(1, 3, 2, 1000000000 * unixepoch(), '{"id":"a-3","workload":{"kind":"Pod","namespace":"ns","name":"pod-a","uid":"a"},"seq":3}');
INSERT INTO cursors VALUES('s', 1, 2);
`

// TestALedgerOfFormat2IsGoneOnWith: its sinks keep their start, and are told
// nothing that they know.
func TestALedgerOfFormat2IsGoneOnWith(t *testing.T) {
	t.Parallel()
	dir := oldLedger(t, format2)
	for range 2 { // migrated, and opened again
		l := open(t, dir)
		want := statesync.Cursor{Sink: "s", Since: 1, Acked: 2, Skipped: 1}
		if diff := cmp.Diff(want, cursorOf(t, l, "s")); diff != "" {
			t.Errorf("cursor (-want +got):\n%s", diff)
		}
		if got := readAll(t, l); len(got) != 3 {
			t.Errorf("%d changes, want 3", len(got))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, dir)
	cursorOf(t, l, "s")
	save(t, l, statesync.Progress{Sink: "s", Acked: 3, PutAside: []statesync.Offered{offered(t, l, 3)}})
	if diff := cmp.Diff([]string{"a 3 number 3"}, tellAll(asides(t, l, "s"))); diff != "" {
		t.Errorf("put aside (-want +got):\n%s", diff)
	}
	if c := cursorOf(t, l, "new"); c.Acked != 3 || c.Aside != 1 {
		t.Errorf("cursor %+v, want a new sink at the head", c)
	}
}

func TestAMigrationOfFormat2ThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	dir := oldLedger(t, format2)
	other := visit(t, dir)
	other.exec("CREATE TRIGGER strike BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'disk on strike'); END")
	if l, err := Open(options(t, dir)); err == nil {
		_ = l.Close()
		t.Fatal("opened")
	}
	if n := other.number("SELECT (SELECT count(*) FROM pragma_table_info('cursors')) + (SELECT count(*) FROM sqlite_master WHERE name = 'aside')"); n != 3 {
		t.Errorf("%d columns of cursors and new tables, want the 3 of before", n)
	}
	other.exec(noStrike)
	open(t, dir)
}

// TestARescueOfFormat2, as it was: the rows of cursors have another shape.
func TestARescueOfFormat2(t *testing.T) {
	t.Parallel()
	dir := oldLedger(t, format2)
	spoil(t, dir, 0, make([]byte, 100))
	l := open(t, dir)
	if diff := cmp.Diff(statesync.Cursor{Sink: "s", Since: 1, Acked: 2, Skipped: 1}, cursorOf(t, l, "s")); diff != "" {
		t.Errorf("cursor (-want +got):\n%s", diff)
	}
}

// TestARescueBringsOverWhatIsKeptForSinks, also what is parked far behind, and
// no loss is told of what was deleted around it. Places go on.
func TestARescueBringsOverWhatIsKeptForSinks(t *testing.T) {
	t.Parallel()
	now := epoch
	o := options(t, scratch(t))
	o.Now = func() time.Time { return now }
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	identified(t, l)
	for _, sink := range []string{"s", "gone"} {
		cursorOf(t, l, sink)
	}
	commit(t, l, entry("a", 1, 20))
	replay := offered(t, l, 4)
	replay.Replayed = true
	skip := []statesync.Skip{{From: 3, To: 9, Cause: statesync.SkipCompacted}}
	put := []statesync.Offered{offered(t, l, 3), skipped("a", 4, 9, statesync.SkipCompacted), replay}
	put[0].Skipped = skip
	save(t, l, statesync.Progress{
		Sink: "s", Acked: 20, Position: "p", Skipped: 6, Marked: &statesync.Mark{Previous: 1, Number: 15, Changes: 9, Skipped: 3, Waiting: 2}, PutAside: put,
		Told:    []statesync.Told{{UID: "a", Seq: 2, Skipped: skip}},
		Letters: []statesync.DeadLetter{{Delivery: statesync.Delivery{Change: replay.Change, PreviousSeq: 3, Skipped: skip}, Tries: 4, First: epoch, Last: epoch, Error: "no"}},
	})
	save(t, l, statesync.Progress{Sink: "gone", Acked: 2, Detach: statesync.DetachedGone})
	now = now.Add(25 * time.Hour)
	retainAll(l)
	save(t, l, statesync.Progress{Sink: "s", Acked: 20, PutAside: []statesync.Offered{skipped("a", 10, 10, "x")}})
	save(t, l, statesync.Progress{Sink: "s", Acked: 20, Skipped: 6, Settled: []int64{4}})
	sinks, err := l.Sinks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before, letters := asides(t, l, "s"), readLetters(t, l)
	if len(before) != 3 || tell(&before[0]) != "a 3 number 3 told 2 [{3 9 compacted}]" || len(numbersIn(t, o.Dir)) != 1 || !strings.Contains(letters, "no") {
		t.Fatalf("put aside %q, %v kept, letters %q", tellAll(before), numbersIn(t, o.Dir), letters)
	}
	if _, err := l.checkpoint(t.Context(), "TRUNCATE"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	spoil(t, o.Dir, 0, make([]byte, 100))
	l = open(t, o.Dir)
	if at, report := l.Rescued(); at.IsZero() || !strings.Contains(report, ": 0 changes lost;") {
		t.Errorf("rescued %s: %s", at, report)
	}
	if diff := cmp.Diff(before, asides(t, l, "s")); diff != "" {
		t.Errorf("put aside (-was +is):\n%s", diff)
	}
	after, err := l.Sinks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sinks, after, ignoreTop); diff != "" {
		t.Errorf("sinks (-was +is):\n%s", diff)
	}
	if diff := cmp.Diff(letters, readLetters(t, l)); diff != "" {
		t.Errorf("dead letters (-was +is):\n%s", diff)
	}
	cursorOf(t, l, "s")
	// The page that says which places were given is gone, but this run's are
	// known.
	save(t, l, statesync.Progress{Sink: "s", Acked: 20, PutAside: []statesync.Offered{skipped("a", 11, 11, "x")}})
	top := cursorOf(t, l, "s").AsideTop
	save(t, l, statesync.Progress{Sink: "s", Acked: 20, Settled: []int64{top}})
	l.writing.Lock()
	l.rescuedAt = time.Time{}
	err = l.repair(0, errDamaged)
	l.writing.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	save(t, l, statesync.Progress{Sink: "s", Acked: 20, PutAside: []statesync.Offered{skipped("a", 12, 12, "x")}})
	if got := cursorOf(t, l, "s").AsideTop; got <= top {
		t.Errorf("place %d given after %d", got, top)
	}
}

// TestNoLossIsToldAroundAParkedChange when neither cursors nor what was deleted
// are known any more.
func TestNoLossIsToldAroundAParkedChange(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	l := open(t, dir)
	cursorOf(t, l, "s")
	commit(t, l, entry("a", 1, 20))
	save(t, l, statesync.Progress{Sink: "s", Acked: 15, PutAside: []statesync.Offered{offered(t, l, 3)}})
	if _, err := l.checkpoint(t.Context(), "TRUNCATE"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	other := visit(t, dir)
	other.exec("DELETE FROM changes WHERE n < 16 AND n != 3; DELETE FROM cursors; DROP TABLE meta")
	if err := other.c.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	if at, report := l.Rescued(); at.IsZero() || !strings.Contains(report, ": 0 changes lost;") {
		t.Errorf("rescued %s: %s", at, report)
	}
	if got := numbersIn(t, dir); len(got) != 6 {
		t.Errorf("changes %v, want 3 and 16 to 20", got)
	}
}

// readLetters returns all dead letters as one text.
func readLetters(t testing.TB, l *Ledger) string {
	t.Helper()
	s, out := visit(t, filepath.Dir(l.path)), ""
	err := sqlitex.Execute(s.c, "SELECT * FROM dead_letters ORDER BY id", &sqlitex.ExecOptions{ResultFunc: func(q *sqlite.Stmt) error {
		for i := range q.ColumnCount() {
			out += q.ColumnText(i) + " "
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
