package inspect

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/metrics/metricstest"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/ledger"
)

const cluster = "8c2e61a0-5b5e-4f64-9f0d-2f1f0f3f7c11"

var began = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// a writer writes a real ledger.
type writer struct {
	t    testing.TB
	dir  string
	l    *ledger.Ledger
	stop func()
	rows map[string]statesync.Row
}

// write opens a ledger in dir and commits until stop, or the end of the test.
func write(t testing.TB, dir string) *writer {
	t.Helper()
	l, err := ledger.Open(ledger.Options{Dir: dir, Log: slog.New(slog.DiscardHandler), Registry: metricstest.Registry(t), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Identify(cluster); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Cursor("archive"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	w := &writer{t: t, dir: dir, l: l, rows: map[string]statesync.Row{}}
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func (w *writer) path() string { return filepath.Join(w.dir, ledger.File) }

// append hands an entry over and waits until it is durable.
func (w *writer) append(e statesync.Entry) {
	w.t.Helper()
	durable := make(chan struct{})
	e.Done = func() { close(durable) }
	if err := w.l.Append(context.Background(), e); err != nil {
		w.t.Fatal(err)
	}
	<-durable
}

// change is the next change of a pod, and its row.
func (w *writer) change(uid string, to statesync.State) statesync.Entry {
	ref := statesync.Ref{Kind: "Pod", Namespace: "load", Name: "pod-" + uid, UID: uid, Labels: map[string]string{"app": "<" + uid + ">"}}
	row := w.rows[uid]
	from := row.State
	row.Ref, row.Stream, row.State, row.Reason, row.Epoch = ref, "pods", to, "Because", 1
	row.Seq++
	row.ResourceVersion = uint64(100 + row.Seq)
	row.Gone = to == statesync.Succeeded
	w.rows[uid] = row
	return statesync.Entry{Row: row, Changes: []statesync.Change{{
		ID:      statesync.ChangeID(cluster, 1, uid, "pods", row.ResourceVersion, 0, to),
		Cluster: cluster, Epoch: 1, Workload: ref, From: from, To: to, Reason: "Because", Message: "it <is> so",
		Seq: row.Seq, Occurred: began, Observed: began.Add(123 * time.Millisecond), ObservedLate: row.Seq == 2,
	}}}
}

// many records n changes of the pod b in one entry.
func (w *writer) many(n int) {
	w.t.Helper()
	var all statesync.Entry
	for range n {
		e := w.change("b", []statesync.State{statesync.Queued, statesync.Running}[w.rows["b"].Seq%2])
		all.Row, all.Changes = e.Row, append(all.Changes, e.Changes...)
	}
	w.append(all)
}

func (w *writer) gap() statesync.Entry {
	ref := statesync.StreamRef("pods")
	row := w.rows[ref.UID]
	row.Ref, row.Stream, row.Epoch = ref, "pods", 1
	row.Seq++
	w.rows[ref.UID] = row
	g := &statesync.Gap{Stream: "pods", Reason: statesync.GapExpired, FromRV: 100, ToRV: 200 + uint64(row.Seq), From: began, To: began.Add(time.Minute)}
	return statesync.Entry{Row: row, Changes: []statesync.Change{{
		ID:      statesync.ChangeID(cluster, 1, ref.UID, "gap", g.ToRV, g.FromRV, ""),
		Cluster: cluster, Epoch: 1, Workload: ref, Seq: row.Seq, Occurred: g.To, Observed: g.To, Gap: g,
	}}}
}

// small writes the ledger that most tests look at. Its changes:
//
//	1 a Queued      4 a Succeeded   7 b Running    10 c Queued
//	2 a Running     5 s Queued      8 c Queued     11 gap
//	3 b Queued      6 gap           9 c Untracked
func (w *writer) small() {
	w.append(w.change("a", statesync.Queued))
	w.append(w.change("a", statesync.Running))
	w.append(w.change("b", statesync.Queued))
	w.append(w.change("a", statesync.Succeeded))
	w.append(w.change("s", statesync.Queued))
	w.append(w.gap())
	w.append(w.change("b", statesync.Running))
	w.append(w.change("c", statesync.Queued))
	w.append(w.change("c", statesync.Untracked))
	w.append(w.change("c", statesync.Queued))
	w.append(w.gap())
	w.append(statesync.Entry{
		Objects: []statesync.Object{{Stream: "pods", UID: "b", Body: []byte("{}")}, {Stream: "pods", UID: "c", Body: []byte("{}"), Unread: true}},
		Resume:  &statesync.Resume{Stream: "pods", Definition: "all", Version: 250, At: began},
	})
	w.l.Save(statesync.Progress{Sink: "archive", Acked: 10})
	w.append(statesync.Entry{Resume: &statesync.Resume{Stream: "jobs", Definition: "all", Version: 250, At: began}})
}

const smallHead = 11

// stopped returns the path of the small ledger, closed.
func stopped(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	w := write(t, dir)
	w.small()
	w.stop()
	return filepath.Join(dir, ledger.File)
}

// alter runs a script on a ledger.
func alter(t testing.TB, path, script string) {
	t.Helper()
	c, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	if err := sqlitex.ExecuteScript(c, script, nil); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// look opens a ledger and closes it when the test ends.
func look(t testing.TB, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func list(t testing.TB, f *File, q Query) (out []Row) {
	t.Helper()
	if err := f.Ls(t.Context(), q, func(r Row) error { out = append(out, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func verify(t testing.TB, f *File) *Report {
	t.Helper()
	r, err := f.Verify(t.Context(), VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// files returns the names, sizes and times of what is in a folder.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = fmt.Sprint(info.Size(), info.ModTime().UnixNano())
	}
	return out
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
