package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
	"github.com/outrider-agent/outrider/statesync"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func options(t testing.TB, dir string) Options {
	return Options{Dir: dir, Log: slog.New(slog.DiscardHandler), Registry: metricstest.Registry(t), Now: time.Now}
}

// open opens a ledger and closes it when the test ends.
func open(t testing.TB, dir string) *Ledger {
	t.Helper()
	l, err := Open(options(t, dir))
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

// start runs the ledger until stop is called, or the test ends. stop returns
// Run's error.
func start(t testing.TB, l *Ledger) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// entry is an entry of n changes, of which the first has the number seq.
func entry(uid string, seq int64, n int) statesync.Entry {
	ref := statesync.Ref{Kind: "Pod", Namespace: "ns", Name: "pod-" + uid, UID: uid, Labels: map[string]string{"app": uid}}
	e := statesync.Entry{
		Row:  statesync.Row{Ref: ref, State: statesync.Running, Reason: "Started", Seq: seq + int64(n) - 1, ResourceVersion: uint64(seq)},
		Done: func() {},
	}
	for i := range int64(n) {
		e.Changes = append(e.Changes, statesync.Change{
			ID: fmt.Sprintf("%s-%d", uid, seq+i), Cluster: "c", Epoch: 1, Workload: ref,
			To: statesync.Running, Seq: seq + i, Occurred: epoch, Observed: epoch,
		})
	}
	return e
}

// record appends entries and waits until all are durable.
func record(t testing.TB, l *Ledger, entries ...statesync.Entry) {
	t.Helper()
	var durable sync.WaitGroup
	for _, e := range entries {
		durable.Add(1)
		e.Done = durable.Done
		if err := l.Append(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
	durable.Wait()
}

// readLog reads changes of the log.
func readLog(ctx context.Context, l *Ledger, after int64, limit int) ([]statesync.Change, error) {
	got, err := l.Read(ctx, statesync.ReadQuery{After: after, Limit: limit})
	out := make([]statesync.Change, len(got))
	for i := range got {
		out[i] = got[i].Change
	}
	return out, err
}

// readAll reads every change and fails when the numbers have holes or the
// links to the UID's change before are wrong.
func readAll(t testing.TB, l *Ledger) []statesync.Change {
	t.Helper()
	out, err := readLog(context.Background(), l, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]statesync.Change{}
	for i, c := range out {
		if i > 0 && c.Number != out[i-1].Number+1 {
			t.Errorf("number %d follows %d, want no holes", c.Number, out[i-1].Number)
		}
		if before := last[c.Workload.UID]; c.Previous != before.Number || c.Seq != before.Seq+1 {
			t.Errorf("change %d: previous %d and seq %d, want %d and %d", c.Number, c.Previous, c.Seq, before.Number, before.Seq+1)
		}
		last[c.Workload.UID] = c
	}
	return out
}

// load returns what the ledger holds of the time before.
func load(t testing.TB, l *Ledger) *statesync.Memory {
	t.Helper()
	m, err := l.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func ids(changes []statesync.Change) []string {
	out := make([]string, len(changes))
	for i, c := range changes {
		out[i] = c.ID
	}
	return out
}

// books returns the ledger's pipeline and fails when it does not balance.
func books(t testing.TB, l *Ledger) metrics.PipelineSnapshot {
	t.Helper()
	s := l.pipe.Snapshot()
	if balance, ok := s.Balance(); balance != 0 || !ok {
		t.Errorf("balance %d (known %t), want 0: %+v", balance, ok, s)
	}
	return s
}

// A stranger is a second connection to the ledger's file.
type stranger struct {
	t testing.TB
	c *sqlite.Conn
}

func visit(t testing.TB, dir string) stranger {
	t.Helper()
	c, err := sqlite.OpenConn(filepath.Join(dir, File), sqlite.OpenReadWrite|sqlite.OpenWAL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return stranger{t, c}
}

func (s stranger) exec(script string) {
	s.t.Helper()
	if err := sqlitex.ExecuteScript(s.c, script, nil); err != nil {
		s.t.Fatalf("%s: %v", script, err)
	}
}

// once runs one statement outside a transaction of its own.
func (s stranger) once(statement string) {
	s.t.Helper()
	if err := sqlitex.ExecuteTransient(s.c, statement, nil); err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
}

func (s stranger) number(query string) int64 {
	s.t.Helper()
	n, err := readNumber(s.c, query)
	if err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// until waits for a condition that another goroutine brings about.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still waiting until %s", what)
		}
	}
}
