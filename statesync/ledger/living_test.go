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
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// living returns all that the ledger yields, as texts.
func living(t testing.TB, l *Ledger, since time.Time) (out []string) {
	t.Helper()
	err := l.Living(t.Context(), since, func(w statesync.Living) error {
		at := "?"
		if !w.Since.IsZero() {
			at = w.Since.Sub(epoch).String()
		}
		out = append(out, fmt.Sprintf("%s %s %s %s app=%s", w.Key(), w.UID, w.State, at, w.Labels["app"]))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// leads is an entry whose changes lead through states, one at each of some seconds.
// A state that is the one before tells another reason.
func leads(uid string, seq int64, from statesync.State, seconds []int, states ...statesync.State) statesync.Entry {
	e := entry(uid, seq, len(states))
	for i, to := range states {
		c := &e.Changes[i]
		c.From, c.To, c.Occurred = from, to, epoch.Add(time.Duration(seconds[i])*time.Second)
		from = to
	}
	e.Row.State = from
	return e
}

func TestLivingTellsSinceWhenAWorkloadIsWhatItIs(t *testing.T) {
	t.Parallel()
	dir, now := scratch(t), epoch
	o := options(t, dir)
	o.Now = func() time.Time { return now }
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	untold := entry("untold", 1, 0)
	untold.Row.State, untold.Row.Seq = "", 0
	gap := entry("stream/pods", 1, 1)
	gap.Row.Ref = statesync.StreamRef("pods")
	gap.Changes[0].Workload, gap.Changes[0].Gap = gap.Row.Ref, &statesync.Gap{Stream: "pods", Reason: "Expired"}
	noTime := leads("no-time", 1, "", []int{0}, statesync.Queued)
	noTime.Changes[0].Occurred = time.Time{}
	commit(t, l, leads("queued", 1, "", []int{1}, statesync.Queued),
		leads("back", 1, "", []int{1, 2, 3}, statesync.Queued, statesync.Running, statesync.Queued),
		leads("retold", 1, "", []int{1, 2}, statesync.Queued, statesync.Running),
		leads("ended", 1, "", []int{1, 5}, statesync.Running, statesync.Succeeded),
		leads("early", 1, "", []int{1}, statesync.Running), leads("late", 1, "", []int{1}, statesync.Running),
		untold, gap, noTime)
	end := func(uid string, at int) {
		e := leads(uid, 2, statesync.Running, []int{at}, statesync.Failed)
		e.Row.Gone = true
		commit(t, l, e)
	}
	end("early", 7)
	now = now.Add(time.Minute)
	end("late", 8)
	commit(t, l, leads("retold", 3, statesync.Running, []int{30}, statesync.Running))
	moved := entry("queued", 2, 0) // by a version alone
	moved.Row.State = statesync.Queued
	commit(t, l, moved)

	want := []string{
		"ns/Pod/pod-queued queued Queued 1s app=queued",
		"ns/Pod/pod-back back Queued 3s app=back",
		"ns/Pod/pod-retold retold Running 2s app=retold",
		"ns/Pod/pod-ended ended Succeeded 5s app=ended",
		"ns/Pod/pod-no-time no-time Queued ? app=no-time",
		"ns/Pod/pod-late late Failed 8s app=late",
	}
	for range 2 { // and after a start
		if diff := cmp.Diff(want, living(t, l, epoch.Add(time.Second))); diff != "" {
			t.Errorf("living (-want +got):\n%s", diff)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, dir)
	}
	all := slices.Insert(slices.Clone(want), 5, "ns/Pod/pod-early early Failed 7s app=early")
	if diff := cmp.Diff(all, living(t, l, time.Time{})); diff != "" {
		t.Errorf("with all that have gone (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[:5], living(t, l, now.Add(time.Second))); diff != "" {
		t.Errorf("without what has gone (-want +got):\n%s", diff)
	}
}

// TestLivingReadsPageAfterPage of what is there, beside as many that have gone.
func TestLivingReadsPageAfterPage(t *testing.T) {
	t.Parallel()
	l := open(t, scratch(t))
	const n = 2*livingPage + 1
	other := visit(t, l.opts.Dir)
	other.exec(fmt.Sprintf(`
		WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < %d)
		INSERT INTO workloads SELECT i, 'u' || i, 'Pod', 'ns', 'n', '{}', '', 'Running', '', 1, 1, 1, 0, 0, 0, 0, (i %% 2) * 1000, 0, 1 FROM i`, 2*n))
	for _, kept := range []int{n, 2 * livingPage, livingPage, 1, 0} {
		other.exec(fmt.Sprintf("DELETE FROM workloads WHERE id > %d", 2*kept))
		seen := map[string]bool{}
		for _, line := range living(t, l, time.Unix(0, 999)) {
			seen[line] = true
		}
		if all := len(living(t, l, time.Unix(0, 999))); len(seen) != 2*kept || all != 2*kept {
			t.Errorf("%d of %d, %d times, want each once", len(seen), 2*kept, all)
		}
		if got := len(living(t, l, time.Unix(0, 1001))); got != kept {
			t.Errorf("%d that are there, want %d", got, kept)
		}
	}
}

func TestLivingRefuses(t *testing.T) {
	t.Parallel()
	stop := errors.New("enough")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tt := range map[string]struct {
		ctx     context.Context
		prepare func(t *testing.T, l *Ledger)
		want    string
	}{
		"what the caller refuses":    {t.Context(), func(*testing.T, *Ledger) {}, "enough"},
		"a context that has ended":   {ended, func(*testing.T, *Ledger) {}, "read workloads: context canceled"},
		"a ledger that is closed":    {t.Context(), func(t *testing.T, l *Ledger) { _ = l.Close() }, "read workloads: ledger is closed"},
		"a file that was taken away": {t.Context(), func(t *testing.T, l *Ledger) { _ = os.Remove(l.path) }, "read workloads: the ledger was taken away"},
		"another's file": {t.Context(), func(t *testing.T, l *Ledger) {
			_ = os.Rename(l.path, filepath.Join(l.opts.Dir, "old"))
			_ = os.WriteFile(l.path, nil, 0o600)
		}, "read workloads: the ledger was replaced"},
		"labels that are none": {t.Context(), func(t *testing.T, l *Ledger) {
			visit(t, l.opts.Dir).exec("UPDATE workloads SET labels = 'x'")
		}, "read workloads: damaged: labels of a: "},
		"a file known to be damaged": {t.Context(), func(t *testing.T, l *Ledger) { l.note(errDamaged) }, "read workloads: damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := open(t, scratch(t))
			commit(t, l, entry("a", 1, 1))
			tt.prepare(t, l)
			err := l.Living(tt.ctx, epoch, func(statesync.Living) error { return stop })
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// TestLivingIsNotInTheWayOfARescue, which sets the file aside: nothing is lost,
// and the new one is read.
func TestLivingIsNotInTheWayOfARescue(t *testing.T) {
	t.Parallel()
	var l *Ledger
	repairing, free := false, 0
	o := options(t, scratch(t))
	var mu sync.Mutex
	o.Now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		if repairing && l.visiting.TryRLock() {
			l.visiting.RUnlock()
			free++
		}
		return time.Now()
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	during := func(is bool) {
		mu.Lock()
		defer mu.Unlock()
		repairing = is
	}
	var all []statesync.Entry
	for i := range 300 {
		all = append(all, leads(fmt.Sprint("u", i), 1, "", []int{i, i + 1}, statesync.Queued, statesync.Running))
	}
	commit(t, l, all...)
	want := living(t, l, time.Now())
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		for {
			got := []string{}
			err := l.Living(t.Context(), time.Now(), func(w statesync.Living) error { got = append(got, w.UID); return nil })
			if err != nil && !errors.Is(err, errDamaged) || err == nil && len(got) != len(want) {
				t.Errorf("%d living, %v, want %d", len(got), err, len(want))
			}
			select {
			case <-stop:
				close(done)
				return
			default:
			}
		}
	}()
	for range 10 {
		l.writing.Lock()
		l.mu.Lock()
		l.rescuedAt = time.Time{}
		generation := l.generation
		l.mu.Unlock()
		during(true)
		err := l.repair(generation, errDamaged)
		during(false)
		l.writing.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-done
	if free > 0 {
		t.Error("the file could be visited while it was set aside")
	}
	if diff := cmp.Diff(want, living(t, l, time.Now())); diff != "" {
		t.Errorf("living (-before +after):\n%s", diff)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if again := living(t, open(t, l.opts.Dir), time.Now()); len(again) != len(want) {
		t.Errorf("%d after a start, want %d", len(again), len(want))
	}
}

// TestARescueFindsSinceWhen in rows, and for rows that are gone or of an earlier
// format in what is kept of the changes.
func TestARescueFindsSinceWhen(t *testing.T) {
	t.Parallel()
	retold := []statesync.State{statesync.Queued, statesync.Running, statesync.Running}
	for name, script := range map[string]string{
		"rows":                        "DELETE FROM changes WHERE seq < 3",
		"changes":                     "DELETE FROM workloads; DROP TABLE cursors",
		"a change after a row":        "UPDATE workloads SET state = 'Queued', seq = 1, last = 1, since = 5",
		"rows of an earlier format":   "UPDATE workloads SET since = 0",
		"rows that have not that far": "DROP INDEX living; ALTER TABLE workloads DROP COLUMN since; UPDATE meta SET value = '3' WHERE key = 'format'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := scratch(t)
			l := open(t, dir)
			commit(t, l, leads("a", 1, "", []int{1, 2, 3}, retold...))
			if _, err := l.checkpoint(t.Context(), "TRUNCATE"); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			other := visit(t, dir)
			other.exec(script)
			other.once("VACUUM") // leaves nothing of before
			if err := other.c.Close(); err != nil {
				t.Fatal(err)
			}
			spoil(t, dir, 0, make([]byte, 100))
			l = open(t, dir)
			if at, _ := l.Rescued(); at.IsZero() {
				t.Error("not rescued")
			}
			if diff := cmp.Diff([]string{"ns/Pod/pod-a a Running 2s app=a"}, living(t, l, time.Now())); diff != "" {
				t.Errorf("living (-want +got):\n%s", diff)
			}
		})
	}
}

// TestARescueOfFormat1ThatWasMigrated: its columns have another order, and rows
// that were not written since lack the last ones.
func TestARescueOfFormat1ThatWasMigrated(t *testing.T) {
	t.Parallel()
	dir := oldLedger(t, format1)
	l := open(t, dir)
	commit(t, l, leads("u", 3, statesync.Running, []int{4}, statesync.Queued), leads("new", 1, "", []int{5}, statesync.Queued))
	visit(t, dir).exec("INSERT INTO workloads(uid, kind, namespace, name, labels, state, reason, seq, rv, suspended, last, gone) VALUES('w', 'Pod', 'ns', 'w', '{}', 'Queued', '', 0, 0, 0, 0, 0)")
	if _, err := l.checkpoint(t.Context(), "TRUNCATE"); err != nil {
		t.Fatal(err)
	}
	want := []string{"ns/Pod/pod-u u Queued 4s app=u", "ns/Pod/pod-new new Queued 5s app=new", "ns/Pod/w w Queued ? app="}
	if diff := cmp.Diff(want, living(t, l, time.Now())); diff != "" {
		t.Errorf("living (-want +got):\n%s", diff)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	other := visit(t, dir)
	other.exec("DELETE FROM changes")
	other.once("VACUUM")
	if err := other.c.Close(); err != nil {
		t.Fatal(err)
	}
	spoil(t, dir, 0, make([]byte, 100))
	if diff := cmp.Diff(want, living(t, open(t, dir), time.Now())); diff != "" {
		t.Errorf("after a rescue, living (-want +got):\n%s", diff)
	}
}

// format3 is a ledger of format 3: what is not here is made by its own schema.
var format3 = strings.Replace(format2, "('format', '2')", "('format', '3')", 1) + fromFormat2 + `
DELETE FROM workloads; DELETE FROM changes; DELETE FROM sqlite_sequence; UPDATE cursors SET acked = 1;
` + format3Rows

const format3Rows = `
INSERT INTO workloads VALUES
	(1, 'moved', 'Pod', 'ns', 'moved', '{}', 'pods', 'Running', '', 1, 2, 7, 0, 0, 0, 2, 0, 0),
	(2, 'retold', 'Pod', 'ns', 'retold', '{}', 'pods', 'Running', '', 1, 3, 7, 0, 0, 0, 5, 0, 0),
	(3, 'old', 'Pod', 'ns', 'old', '{}', 'pods', 'Running', '', 1, 3, 7, 0, 0, 0, 0, 0, 0),
	(4, 'spoilt', 'Pod', 'ns', 'spoilt', '{}', 'pods', 'Queued', '', 1, 1, 7, 0, 0, 0, 6, 0, 0),
	(5, 'went', 'Pod', 'ns', 'went', '{}', 'pods', 'Failed', '', 1, 1, 7, 0, 0, 0, 7, 1000000000 * unixepoch(), 0),
	(6, 'stream/pods', 'Stream', '', 'pods', '{}', '', '', '', 1, 1, 0, 0, 0, 0, 8, 0, 0);
INSERT INTO changes(workload, seq, previous, recorded, body) VALUES
	(1, 1, 0, 1000000000 * unixepoch(), '{"workload":{"uid":"moved"},"seq":1,"from":"","to":"Queued","occurred":"2026-03-01T12:00:01Z"}'),
	(1, 2, 1, 1000000000 * unixepoch(), '{"workload":{"uid":"moved"},"seq":2,"from":"Queued","to":"Running","occurred":"2026-03-01T12:00:02Z"}'),
	(2, 1, 0, 1000000000 * unixepoch(), '{"workload":{"uid":"retold"},"seq":1,"from":"Queued","to":"Running","occurred":"2026-03-01T12:00:03Z"}'),
	(2, 2, 3, 1000000000 * unixepoch(), '{"workload":{"uid":"retold"},"seq":2,"from":"Running","to":"Running","occurred":"2026-03-01T12:00:04Z"}'),
	(2, 3, 4, 1000000000 * unixepoch(), '{"workload":{"uid":"retold"},"seq":3,"from":"Running","to":"Running","occurred":"2026-03-01T12:00:05Z"}'),
	(4, 1, 0, 1000000000 * unixepoch(), '{"workload":'),
	(5, 1, 0, 1000000000 * unixepoch(), '{"workload":{"uid":"went"},"seq":1,"from":"","to":"Failed","occurred":"2026-03-01T12:00:06Z"}'),
	(6, 1, 0, 1000000000 * unixepoch(), '{"workload":{"uid":"stream/pods"},"seq":1,"occurred":"2026-03-01T12:00:07Z","gap":{}}');
`

func TestALedgerOfFormat3IsGoneOnWith(t *testing.T) {
	t.Parallel()
	dir := oldLedger(t, format3)
	for range 2 { // migrated, and opened again
		l := open(t, dir)
		want := []string{
			"ns/Pod/moved moved Running 2s app=", "ns/Pod/retold retold Running 3s app=", "ns/Pod/old old Running ? app=", "ns/Pod/spoilt spoilt Queued ? app=",
		}
		if diff := cmp.Diff(want, living(t, l, time.Now().Add(time.Hour))); diff != "" {
			t.Errorf("living (-want +got):\n%s", diff)
		}
		if format := visit(t, dir).number("SELECT value FROM meta WHERE key = 'format'"); format != 4 {
			t.Errorf("format %d, want 4", format)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, dir)
	commit(t, l, leads("old", 4, statesync.Running, []int{9}, statesync.Succeeded))
	if got := living(t, l, time.Now().Add(time.Hour)); len(got) != 4 || got[2] != "ns/Pod/old old Succeeded 9s app=old" {
		t.Errorf("living %q", got)
	}
}

func TestAMigrationOfFormat3ThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	dir := oldLedger(t, format3)
	other := visit(t, dir)
	other.exec("CREATE TRIGGER strike BEFORE UPDATE ON workloads BEGIN SELECT RAISE(ABORT, 'disk on strike'); END")
	if l, err := Open(options(t, dir)); err == nil {
		_ = l.Close()
		t.Fatal("opened")
	}
	if n := other.number("SELECT count(*) FROM pragma_table_info('workloads')"); n != 18 {
		t.Errorf("%d columns, want the 18 of before", n)
	}
	other.exec("DROP TRIGGER strike")
	if got := living(t, open(t, dir), time.Now().Add(time.Hour)); len(got) != 4 {
		t.Errorf("living %q, want 4", got)
	}
}

// BenchmarkLiving reads 100,000 workloads beside as many that have gone: one
// operation is all of them.
func BenchmarkLiving(b *testing.B) {
	const n = 100_000
	l := open(b, b.TempDir())
	visit(b, l.opts.Dir).exec(fmt.Sprintf(`
		WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < %d)
		INSERT INTO workloads(uid, kind, namespace, name, labels, stream, state, reason, epoch, seq, rv, suspended, started, suspension, last, gone, removed, since)
		SELECT printf('8c2e61a0-5b5e-4f64-9f0d-%%012d', i), 'Pod', 'team-' || i %% 50, 'report-' || i, printf('{"app":"report","job-name":"report-%%d","controller-uid":"8c2e61a0-5b5e-4f64-9f0d-%%012d"}', i, i),
		'pods', 'Running', 'Started', 1, 2, i, 0, i, 0, 0, i %% 2, i, i FROM i`, 2*n))
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		got := 0
		err := l.Living(b.Context(), time.Now(), func(w statesync.Living) error { got += len(w.Labels); return nil })
		if err != nil || got != 3*n {
			b.Fatalf("%d labels, %v, want %d", got, err, 3*n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/workload")
}
