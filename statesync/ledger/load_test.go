package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/statesync"
)

func resume(stream string, version uint64) statesync.Entry {
	return statesync.Entry{Resume: &statesync.Resume{Stream: stream, Definition: "all of " + stream, Version: version, At: epoch}}
}

func keep(stream string, bodies map[string]string) statesync.Entry {
	var e statesync.Entry
	for uid, body := range bodies {
		o := statesync.Object{Stream: stream, UID: uid, Unread: strings.HasPrefix(body, "unread")}
		if body != "gone" {
			o.Body = []byte(body)
		}
		e.Objects = append(e.Objects, o)
	}
	return e
}

// objects returns the bodies of a stream's objects, and fails when their order
// is not that of their UIDs.
func objects(t testing.TB, l *Ledger, stream string) map[string]string {
	t.Helper()
	out := map[string]string{}
	var uids []string
	err := l.Objects(context.Background(), stream, func(o statesync.Object) error {
		if o.Stream != stream || o.Body == nil || o.Unread != strings.HasPrefix(string(o.Body), "unread") {
			t.Errorf("object %+v, want one of stream %s", o, stream)
		}
		out[o.UID] = string(o.Body)
		uids = append(uids, o.UID)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(uids) || len(uids) != len(out) {
		t.Errorf("objects come as %q, want each once, in order", uids)
	}
	return out
}

// TestWhatIsKeptOfStreams writes each case's entries twice, the second time to
// a ledger that was opened in between: an entry without changes may be written
// again after a commit whose answer was lost.
func TestWhatIsKeptOfStreams(t *testing.T) {
	t.Parallel()
	point := func(name string, version uint64) statesync.Resume {
		return statesync.Resume{Stream: name, Definition: "all of " + name, Version: version, At: epoch}
	}
	for name, tt := range map[string]struct {
		entries []statesync.Entry
		objects map[string]string // of stream a
		streams []statesync.Resume
	}{
		"nothing":                        {[]statesync.Entry{{}}, map[string]string{}, nil},
		"a resume point":                 {[]statesync.Entry{resume("a", 5)}, map[string]string{}, []statesync.Resume{point("a", 5)}},
		"the last resume point":          {[]statesync.Entry{resume("a", 5), resume("a", 9)}, map[string]string{}, []statesync.Resume{point("a", 9)}},
		"a version of the upper half":    {[]statesync.Entry{resume("a", 1<<63+5)}, map[string]string{}, []statesync.Resume{point("a", 1<<63+5)}},
		"streams by name":                {[]statesync.Entry{resume("b", 1), resume("a", 2)}, map[string]string{}, []statesync.Resume{point("a", 2), point("b", 1)}},
		"objects before a resume point":  {[]statesync.Entry{keep("a", map[string]string{"x": "1"})}, map[string]string{"x": "1"}, nil},
		"objects as they were last":      {[]statesync.Entry{keep("a", map[string]string{"x": "unread 1", "y": ""}), keep("a", map[string]string{"x": "2"})}, map[string]string{"x": "2", "y": ""}, nil},
		"an object that is gone":         {[]statesync.Entry{keep("a", map[string]string{"x": "1", "y": "2"}), keep("a", map[string]string{"x": "gone", "z": "gone"})}, map[string]string{"y": "2"}, nil},
		"objects of another stream":      {[]statesync.Entry{keep("b", map[string]string{"x": "1"}), resume("b", 3)}, map[string]string{}, []statesync.Resume{point("b", 3)}},
		"a stream that is forgotten":     {[]statesync.Entry{keep("a", map[string]string{"x": "1"}), resume("a", 3), resume("b", 4), {Forget: "a"}}, map[string]string{}, []statesync.Resume{point("b", 4)}},
		"an unknown stream is forgotten": {[]statesync.Entry{{Forget: "c"}, resume("a", 3)}, map[string]string{}, []statesync.Resume{point("a", 3)}},
		"one that comes back":            {[]statesync.Entry{keep("a", map[string]string{"x": "1"}), resume("a", 3), {Forget: "a"}, resume("b", 1), keep("a", map[string]string{"y": "2"})}, map[string]string{"y": "2"}, []statesync.Resume{point("b", 1)}},
		"one put in place of itself": {
			[]statesync.Entry{keep("a", map[string]string{"x": "1"}), {Forget: "a", Objects: keep("a", map[string]string{"y": "2"}).Objects, Resume: resume("a", 7).Resume}},
			map[string]string{"y": "2"},
			[]statesync.Resume{point("a", 7)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, when := range []string{"at first", "written again"} {
				l := open(t, dir)
				stop := start(t, l)
				record(t, l, tt.entries...)
				if diff := cmp.Diff(tt.objects, objects(t, l, "a")); diff != "" {
					t.Errorf("%s: objects (-want +got):\n%s", when, diff)
				}
				if diff := cmp.Diff(tt.streams, load(t, l).Streams); diff != "" {
					t.Errorf("%s: streams (-want +got):\n%s", when, diff)
				}
				if err := errors.Join(stop(), l.Close()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestAllOfAnEntryIsDurableTogether looks with another connection after every
// Done, and makes the last part of an entry fail.
func TestAllOfAnEntryIsDurableTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	if _, err := l.Identify("c"); err != nil {
		t.Fatal(err)
	}
	other := visit(t, dir)
	other.exec("CREATE TRIGGER strike BEFORE UPDATE ON streams WHEN NEW.version = 13 BEGIN SELECT RAISE(ABORT, 'disk on strike'); END")
	e := entry("u", 1, 2)
	e.Objects, e.Resume = keep("a", map[string]string{"x": "1"}).Objects, resume("a", 13).Resume
	start(t, l)
	durable := make(chan struct{})
	e.Done = func() { close(durable) }
	if err := l.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	until(t, "the entry fails", func() bool { _, err := l.Failure(); return err != nil })
	if _, err := l.Failure(); err == nil || !strings.Contains(err.Error(), "resume point of stream a") || !strings.Contains(err.Error(), "disk on strike") {
		t.Errorf("failure %v, want one that says what failed", err)
	}
	for _, table := range []string{"changes", "workloads", "streams", "objects"} {
		if n := other.number("SELECT count(*) FROM " + table); n != 0 {
			t.Errorf("%d rows in %s of an entry that failed", n, table)
		}
	}
	other.exec(noStrike)
	<-durable
	for _, table := range []string{"changes WHERE n = 2", "workloads", "streams WHERE version = 13", "objects"} {
		if n := other.number("SELECT count(*) FROM " + table); n != 1 {
			t.Errorf("%d rows in %s, want 1", n, table)
		}
	}
}

// TestEntriesWithoutADone: they keep their place, and nobody waits.
func TestEntriesWithoutADone(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	var order []int
	done := func(i int) func() { return func() { order = append(order, i) } }
	full, bare := entry("u", 1, 1), entry("u", 2, 1)
	full.Done, bare.Done = done(1), nil
	for _, e := range []statesync.Entry{full, {Done: done(2)}, {}, bare, {Done: done(3)}} {
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	start(t, l)
	until(t, "all are durable", func() bool { return books(t, l).Queued == 0 })
	record(t, l, statesync.Entry{}) // alone, so without a transaction
	if n := l.commits.Snapshot().Count; n != 1 {
		t.Errorf("%d transactions, want 1: there is nothing to write for an entry that holds nothing", n)
	}
	if diff := cmp.Diff([]int{1, 2, 3}, order); diff != "" {
		t.Errorf("order of Done (-want +got):\n%s", diff)
	}
	if got := ids(readAll(t, l)); len(got) != 2 {
		t.Errorf("recorded %v, want both changes", got)
	}
}

// TestWhichRowsComeBack: those of live objects, and the tombstones that events
// may still come for.
func TestWhichRowsComeBack(t *testing.T) {
	t.Parallel()
	type row struct {
		stream  string
		state   statesync.State
		removed uint64
		alive   bool
	}
	for name, tt := range map[string]struct {
		row
		want bool
	}{
		"alive":                                  {row{"at 10", statesync.Running, 0, true}, true},
		"alive, ended":                           {row{"at 10", statesync.Failed, 0, true}, true},
		"alive, of no stream":                    {row{"", statesync.Running, 0, true}, true},
		"removed before the resume point":        {row{"at 10", statesync.Failed, 9, false}, false},
		"removed at the resume point":            {row{"at 10", statesync.Failed, 10, false}, false},
		"removed after the resume point":         {row{"at 10", statesync.Failed, 11, false}, true},
		"removed far after it":                   {row{"at 10", statesync.Failed, math.MaxUint64, false}, true},
		"removed before a high resume point":     {row{"high", statesync.Failed, 11, false}, false},
		"removed nobody knows when":              {row{"at 10", statesync.Failed, 0, false}, false},
		"of a stream that is lost":               {row{"lost", statesync.Failed, 1, false}, true},
		"of a stream without a resume point":     {row{"objects only", statesync.Failed, 1, false}, true},
		"of a stream without a row":              {row{"unknown", statesync.Failed, 1, false}, true},
		"of no stream":                           {row{"", statesync.Failed, 1, false}, false},
		"untracked, before the resume point":     {row{"at 10", statesync.Untracked, 9, false}, true},
		"untracked, of a stream no longer known": {row{"", statesync.Untracked, 0, false}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := open(t, dir)
			start(t, l)
			record(t, l, resume("at 10", 10), resume("high", math.MaxUint64-1), resume("lost", 10), keep("objects only", map[string]string{"x": "1"}))
			visit(t, dir).exec("UPDATE streams SET lost = 'Expired' WHERE name = 'lost'")
			e := entry("u", 1, 1)
			e.Row.Stream, e.Row.State, e.Row.Removed, e.Row.Gone = tt.stream, tt.state, tt.removed, !tt.alive
			e.Row.Epoch, e.Row.Started, e.Row.Suspension = 3, epoch, epoch.Add(time.Hour)
			record(t, l, e)
			want := []statesync.Row{e.Row}
			if !tt.want {
				want = nil
			}
			if diff := cmp.Diff(want, load(t, l).Rows); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if row, err := l.Recall(t.Context(), "u"); err != nil || cmp.Diff(e.Row, row) != "" {
				t.Errorf("recalled %+v, %v, want %+v", row, err, e.Row)
			}
			if row, err := l.Recall(t.Context(), "nobody"); err != nil || row.UID != "" {
				t.Errorf("recalled %+v, %v, want nothing", row, err)
			}
		})
	}
}

// TestARowOfAStream: the gaps' row is one like any.
func TestARowOfAStream(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	start(t, l)
	ref := statesync.StreamRef("a")
	gap := &statesync.Gap{Stream: "a", Reason: statesync.GapExpired, FromRV: 3, ToRV: 9, From: epoch, To: epoch.Add(time.Minute)}
	row := statesync.Row{Ref: ref, Stream: "a", Seq: 1, Epoch: 1, ResourceVersion: 9}
	record(t, l, statesync.Entry{Row: row, Changes: []statesync.Change{{ID: "gap", Epoch: 1, Workload: ref, Seq: 1, Gap: gap}}})
	if diff := cmp.Diff([]statesync.Row{row}, load(t, l).Rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if got := readAll(t, l); len(got) != 1 || !cmp.Equal(got[0].Gap, gap) {
		t.Errorf("read %+v, want the gap", got)
	}
}

func TestObjectsComeAPageAtATime(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	start(t, l)
	for _, n := range []int{objectsPage - 1, objectsPage, objectsPage + 1, 2*objectsPage + 7} {
		stream := fmt.Sprint("stream ", n)
		want := map[string]string{}
		for i := range n {
			want[fmt.Sprintf("uid-%d", i)] = fmt.Sprint("body ", i)
		}
		record(t, l, keep(stream, want))
		if diff := cmp.Diff(want, objects(t, l, stream)); diff != "" {
			t.Errorf("%d objects (-want +got):\n%s", n, diff)
		}
	}
	enough, seen := errors.New("enough"), 0
	err := l.Objects(t.Context(), fmt.Sprint("stream ", objectsPage+1), func(statesync.Object) error {
		if seen++; seen == objectsPage+1 {
			return enough
		}
		record(t, l, keep("other", map[string]string{"x": "1"})) // nothing is held up meanwhile
		if _, err := readLog(t.Context(), l, 0, 1); err != nil {
			t.Fatal(err)
		}
		return nil
	})
	if !errors.Is(err, enough) || seen != objectsPage+1 {
		t.Errorf("error %v after %d objects, want yield's own after %d", err, seen, objectsPage+1)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Objects(ended, "other", func(statesync.Object) error { return nil }); err == nil || !strings.Contains(err.Error(), "stream other") {
		t.Errorf("error %v of a read whose context had ended", err)
	}
}

func TestNewEpoch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	stop := start(t, l)
	if m := load(t, l); m.Epoch != 0 {
		t.Errorf("epoch %d of a ledger that is nobody's, want 0", m.Epoch)
	}
	if err := l.NewEpoch(t.Context(), statesync.GapRestored); err == nil || !strings.Contains(err.Error(), "not been identified") {
		t.Errorf("error %v, want that the ledger is nobody's", err)
	}
	record(t, l, resume("a", 5), keep("b", map[string]string{"x": "1"})) // and the connection is opened again
	if epoch, err := l.Identify("here"); epoch != 1 || err != nil {
		t.Fatal(epoch, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.NewEpoch(ended, "never"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that the context ended", err)
	}
	if err := l.NewEpoch(t.Context(), statesync.GapRestored); err != nil {
		t.Fatal(err)
	}
	want := []statesync.Resume{*resume("a", 5).Resume, {Stream: "b"}}
	want[0].Lost, want[1].Lost = statesync.GapRestored, statesync.GapRestored
	for _, when := range []string{"at once", "opened again"} {
		m := load(t, l)
		if diff := cmp.Diff(want, m.Streams); diff != "" || m.Epoch != 2 {
			t.Errorf("%s: epoch %d, want 2, and streams (-want +got):\n%s", when, m.Epoch, diff)
		}
		if err := errors.Join(stop(), l.Close()); err != nil {
			t.Fatal(err)
		}
		l = open(t, dir)
		stop = start(t, l)
	}
	record(t, l, resume("a", 9))
	want[0] = *resume("a", 9).Resume
	if diff := cmp.Diff(want, load(t, l).Streams); diff != "" {
		t.Errorf("after a resume point (-want +got):\n%s", diff)
	}
	if epoch, err := l.Identify("here"); epoch != 2 || err != nil {
		t.Errorf("epoch %d, %v, want 2", epoch, err)
	}
}

// TestNewEpochIsWholeOrNot makes its second step fail.
func TestNewEpochIsWholeOrNot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	start(t, l)
	if _, err := l.Identify("here"); err != nil {
		t.Fatal(err)
	}
	record(t, l, resume("a", 5))
	other := visit(t, dir)
	other.exec("CREATE TRIGGER strike BEFORE UPDATE ON streams BEGIN SELECT RAISE(ABORT, 'disk on strike'); END")
	err := l.NewEpoch(t.Context(), statesync.GapRestored)
	if err == nil || !strings.Contains(err.Error(), "new epoch: ") || sqlite.ErrCode(err).ToPrimary() != sqlite.ResultConstraint {
		t.Errorf("error %v, want SQLite's own", err)
	}
	if m := load(t, l); m.Epoch != 1 {
		t.Errorf("epoch %d after a failure, want 1", m.Epoch)
	}
	other.exec(noStrike)
	until(t, "it works again", func() bool { return l.NewEpoch(t.Context(), statesync.GapRestored) == nil })
	if m := load(t, l); m.Epoch != 2 || m.Streams[0].Lost != statesync.GapRestored {
		t.Errorf("loaded %+v, want epoch 2 and the stream lost", m)
	}
}

func TestStaleIsClosedByARenewal(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	before := load(t, l).Stale
	select {
	case <-before:
		t.Fatal("stale from the start")
	default:
	}
	l.renewed()
	<-before
	select {
	case <-load(t, l).Stale:
		t.Error("what was loaded since is stale too")
	default:
	}
	l.renewed()
}

// format1 is the schema of format 1, with a ledger's first rows.
const format1 = `
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE workloads (
	id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
	labels TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, seq INTEGER NOT NULL, rv INTEGER NOT NULL,
	suspended INTEGER NOT NULL, last INTEGER NOT NULL, gone INTEGER NOT NULL
);
CREATE TABLE changes (
	n INTEGER PRIMARY KEY AUTOINCREMENT, workload INTEGER NOT NULL, seq INTEGER NOT NULL, previous INTEGER NOT NULL,
	recorded INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE TABLE cursors (sink TEXT PRIMARY KEY, since INTEGER NOT NULL, acked INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES('format', '1'), ('cluster', 'here'), ('epoch', '1');
INSERT INTO workloads VALUES(1, 'u', 'Pod', 'ns', 'pod-u', '{"app":"u"}', 'Running', 'Started', 2, 7, 0, 2, 0);
INSERT INTO workloads VALUES(2, 'v', 'Job', 'ns', 'v', 'null', 'Failed', '', 1, 8, 1, 3, 1772366400000000000);
INSERT INTO changes(workload, seq, previous, recorded, body) VALUES
	(1, 1, 0, 1000000000 * unixepoch(), '{"id":"u-1","workload":{"uid":"u"},"seq":1}'), (1, 2, 1, 1000000000 * unixepoch(), '{"id":"u-2","workload":{"uid":"u"},"seq":2}'),
	(2, 1, 0, 1000000000 * unixepoch(), '{"id":"v-1","workload":{"uid":"v"},"seq":1}');
INSERT INTO cursors VALUES('s', 0, 2);
`

// oldLedger makes a ledger of an earlier format.
func oldLedger(t *testing.T, tables string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	c, err := sqlite.OpenConn(filepath.Join(dir, File), sqlite.OpenReadWrite|sqlite.OpenCreate|sqlite.OpenWAL)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sqlitex.ExecuteScript(c, tables, nil), c.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestALedgerOfFormat1IsGoneOnWith(t *testing.T) {
	t.Parallel()
	dir := oldLedger(t, format1)
	for range 2 { // migrated, and opened again
		l := open(t, dir)
		want := entry("u", 1, 2).Row
		want.Epoch, want.ResourceVersion = 1, 7
		m := load(t, l)
		if diff := cmp.Diff([]statesync.Row{want}, m.Rows); diff != "" || m.Epoch != 1 || m.Streams != nil {
			t.Fatalf("epoch %d, streams %v, and rows (-want +got):\n%s", m.Epoch, m.Streams, diff)
		}
		if c, err := l.Cursor("s"); err != nil || c.Acked != 2 {
			t.Errorf("cursor %+v, %v, want 2 acknowledged", c, err)
		}
		if got := ids(readAll(t, l)); !slices.Equal(got, []string{"u-1", "u-2", "v-1"}) {
			t.Errorf("changes %v", got)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, dir)
	start(t, l)
	ended := entry("v", 2, 1)
	ended.Row.Stream = "jobs"
	record(t, l, entry("u", 3, 1), ended, resume("jobs", 3), keep("jobs", map[string]string{"v": "1"}))
	if got := readAll(t, l); len(got) != 5 || got[4].Previous != 3 {
		t.Errorf("read %+v, want the chain of v to go on", got)
	}
	if rows := load(t, l).Rows; len(rows) != 2 || rows[1].Stream != "jobs" {
		t.Errorf("rows %+v, want v with its stream", rows)
	}
}

func TestAMigrationThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	dir := oldLedger(t, format1)
	other := visit(t, dir)
	other.exec("CREATE TABLE objects(x)") // in the way of the last steps
	other.exec("CREATE TRIGGER strike BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'disk on strike'); END")
	if l, err := Open(options(t, dir)); err == nil {
		_ = l.Close()
		t.Fatal("opened")
	}
	if n := other.number("SELECT count(*) FROM pragma_table_info('workloads') WHERE name = 'stream'"); n != 0 {
		t.Error("the table was changed, and the format was not")
	}
	other.exec("DROP TRIGGER strike; DROP TABLE objects")
	l := open(t, dir)
	if rows := load(t, l).Rows; len(rows) != 1 {
		t.Errorf("rows %+v", rows)
	}
}
