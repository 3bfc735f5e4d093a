// Package ledger is the durable, ordered record of changes: one SQLite file, written by one committer in groups.
//
// A change is the ledger's once its transaction is synced to disk; until then
// it can be read again from the API server. The committer works head of line:
// it tries one group until it is durable, so order is never at stake, and
// while it cannot, the workers wait and the watches close.
package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

// File is the name of the ledger in the data directory.
const File = "ledger.db"

const (
	backlogEntries = 4096 // entries handed over and not yet durable
	groupEntries   = 512  // entries that share a transaction, and so an fsync
)

// ErrClosed is returned by Append once the ledger has stopped.
var ErrClosed = errors.New("ledger is closed")

// ErrOtherCluster is returned by Identify: waiting does not help.
var ErrOtherCluster = errors.New("belongs to another cluster")

// Options say where the ledger is.
type Options struct {
	Dir      string // the data directory; the caller holds its lock
	Log      *slog.Logger
	Registry *metrics.Registry
	Now      func() time.Time
}

// Ledger implements [statesync.Log]. Open makes one, Run commits, Close
// releases the file.
type Ledger struct {
	opts    Options
	path    string
	file    os.FileInfo   // of the file at path when it was opened
	slots   chan struct{} // one taken for each waiting entry: the bound
	more    chan struct{} // holds one token when there may be work for the committer
	stopped chan struct{} // closed when nothing is taken any more

	pipe     *metrics.Pipeline
	commits  *metrics.Histogram
	recorded *metrics.Histogram // observed to recorded, for each change

	mu       sync.Mutex // guards what follows
	closed   bool
	waiting  []waitingEntry
	cursors  map[string]int64 // acknowledgements not yet durable, by sink
	head     int64
	wake     chan struct{} // closed and replaced when head moves
	failure  error         // of the group now being tried; nil: none
	failedAt time.Time

	readMu sync.Mutex // one reader at a time
	reader *sqlite.Conn

	writing sync.Mutex // guards what follows: a transaction at a time
	writer  *sqlite.Conn
	ids     map[string]identity
}

// waitingEntry is an entry that is not durable yet.
type waitingEntry struct {
	statesync.Entry
	since time.Time
}

// identity is what the committer keeps in memory of a workload it has
// written: the row's id and its last change's number.
type identity struct{ id, last int64 }

// Open opens the ledger in a data directory, making it if there is none.
func Open(o Options) (*Ledger, error) {
	l := &Ledger{
		opts: o, path: filepath.Join(o.Dir, File),
		slots:   make(chan struct{}, backlogEntries),
		more:    make(chan struct{}, 1),
		stopped: make(chan struct{}),
		cursors: map[string]int64{},
		wake:    make(chan struct{}),
		commits: metrics.NewHistogram(), recorded: metrics.NewHistogram(),
		ids: map[string]identity{},
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	if err := l.describe(o.Registry); err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger: %w", err), l.close())
	}
	return l, nil
}

// Intact returns an error when the file is no longer where it was opened: what
// is recorded now would be gone with the process.
func (l *Ledger) Intact() error {
	now, err := os.Stat(l.path)
	if err != nil {
		return fmt.Errorf("the ledger was taken away: %w", err)
	}
	if !os.SameFile(now, l.file) {
		return fmt.Errorf("the ledger was replaced: %s is another file now", l.path)
	}
	return nil
}

func (l *Ledger) open() (err error) {
	if err := makeFile(l.path); err != nil {
		return err
	}
	if l.writer, err = openConn(l.path); err != nil {
		return err
	}
	if l.file, err = os.Stat(l.path); err != nil {
		return closeAfter(l.writer, err)
	}
	if err := migrate(l.writer); err != nil {
		return closeAfter(l.writer, err)
	}
	if l.head, err = head(l.writer); err != nil {
		return closeAfter(l.writer, err)
	}
	if l.reader, err = openConn(l.path); err != nil {
		return closeAfter(l.writer, err)
	}
	return nil
}

// Append implements [statesync.Log].
func (l *Ledger) Append(ctx context.Context, e statesync.Entry) error {
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.stopped:
		return ErrClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		<-l.slots
		return ErrClosed
	}
	l.waiting = append(l.waiting, waitingEntry{Entry: e, since: l.opts.Now()})
	l.pipe.In(1)
	l.signal()
	return nil
}

// Read implements [statesync.Log].
func (l *Ledger) Read(ctx context.Context, after int64, limit int) ([]statesync.Change, error) {
	l.readMu.Lock()
	defer l.readMu.Unlock()
	if l.reader == nil {
		return nil, ErrClosed
	}
	l.reader.SetInterrupt(ctx.Done())
	defer l.reader.SetInterrupt(nil)
	var out []statesync.Change
	err := sqlitex.Execute(l.reader,
		"SELECT n, previous, recorded, body FROM changes WHERE n > ? ORDER BY n LIMIT ?",
		&sqlitex.ExecOptions{Args: []any{after, limit}, ResultFunc: func(s *sqlite.Stmt) error {
			c := statesync.Change{}
			if err := json.Unmarshal([]byte(s.ColumnText(3)), &c); err != nil {
				return fmt.Errorf("change %d: %w", s.ColumnInt64(0), err)
			}
			c.Number, c.Previous = s.ColumnInt64(0), s.ColumnInt64(1)
			c.Recorded = time.Unix(0, s.ColumnInt64(2))
			out = append(out, c)
			return nil
		}})
	if err != nil {
		return nil, fmt.Errorf("read ledger after %d: %w", after, err)
	}
	return out, nil
}

// Head returns the number of the last durable change, and a channel that is
// closed when there is a later one.
func (l *Ledger) Head() (int64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head, l.wake
}

// Workloads returns every workload that is not known to be gone.
func (l *Ledger) Workloads(ctx context.Context) ([]statesync.Row, error) {
	l.readMu.Lock()
	defer l.readMu.Unlock()
	if l.reader == nil {
		return nil, ErrClosed
	}
	l.reader.SetInterrupt(ctx.Done())
	defer l.reader.SetInterrupt(nil)
	var out []statesync.Row
	err := sqlitex.Execute(l.reader,
		"SELECT kind, namespace, name, uid, labels, state, reason, seq, rv, suspended FROM workloads WHERE gone = 0",
		&sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			r := statesync.Row{
				Ref:   statesync.Ref{Kind: s.ColumnText(0), Namespace: s.ColumnText(1), Name: s.ColumnText(2), UID: s.ColumnText(3)},
				State: statesync.State(s.ColumnText(5)), Reason: s.ColumnText(6), Seq: s.ColumnInt64(7),
				ResourceVersion: uint64(s.ColumnInt64(8)), Suspended: s.ColumnBool(9),
			}
			if err := json.Unmarshal([]byte(s.ColumnText(4)), &r.Labels); err != nil {
				return fmt.Errorf("labels of %s: %w", r.UID, err)
			}
			out = append(out, r)
			return nil
		}})
	if err != nil {
		return nil, fmt.Errorf("read workloads: %w", err)
	}
	return out, nil
}

// Identify ties the ledger to a cluster, at the first start, and returns the
// epoch. A ledger of another cluster gives [ErrOtherCluster]; after any other
// error it may be asked again.
func (l *Ledger) Identify(cluster string) (epoch int64, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.writer == nil {
		return 0, errors.New("identify ledger: it cannot be written now")
	}
	if err := sqlitex.Execute(l.writer, "INSERT INTO meta(key, value) VALUES('cluster', ?), ('epoch', '1') ON CONFLICT DO NOTHING",
		&sqlitex.ExecOptions{Args: []any{cluster}}); err != nil {
		return 0, fmt.Errorf("identify ledger: %w", err)
	}
	known, _, err := readMeta(l.writer, "cluster")
	if err != nil {
		return 0, fmt.Errorf("identify ledger: %w", err)
	}
	if known != cluster {
		return 0, fmt.Errorf("%s %w: it is of %s, but the API server says it is %s: set another data_dir", l.path, ErrOtherCluster, known, cluster)
	}
	if epoch, err = readNumber(l.writer, "SELECT value FROM meta WHERE key = 'epoch'"); err != nil {
		return 0, fmt.Errorf("identify ledger: read epoch: %w", err)
	}
	return epoch, nil
}

// Failure returns since when every attempt to commit has failed, and why the
// last one did; nil when the ledger is well.
func (l *Ledger) Failure() (since time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failedAt, l.failure
}

// Close releases the file. Run must have returned, if it was called.
func (l *Ledger) Close() error {
	l.refuse()
	return l.close()
}

func (l *Ledger) close() error {
	l.readMu.Lock()
	defer l.readMu.Unlock()
	var errs []error
	for _, c := range []*sqlite.Conn{l.reader, l.writer} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	l.reader, l.writer = nil, nil
	return errors.Join(errs...)
}

func (l *Ledger) describe(reg *metrics.Registry) (err error) {
	l.pipe, err = reg.Pipeline(metrics.PipelineOptions{
		Name: "ledger", Unit: "entries", Lock: &l.mu, Queue: l.queue,
	})
	if err != nil {
		return err
	}
	return errors.Join(
		reg.Func(statesync.StageDesc(), func(yield func(metrics.Point)) {
			s := l.recorded.Snapshot()
			yield(metrics.Point{Tags: []string{statesync.StageObservedRecorded, ""}, Hist: &s})
		}),
		reg.Func(metrics.Desc{
			Name: "outrider_ledger_head", Datadog: "outrider.ledger.head", Type: metrics.CounterType,
			Help: "Number of the last change in the ledger.", Unit: "changes", Budget: 1,
		}, func(yield func(metrics.Point)) {
			n, _ := l.Head()
			yield(metrics.Point{Value: float64(n)})
		}),
		reg.Func(metrics.Desc{
			Name: "outrider_ledger_commit_seconds", Datadog: "outrider.ledger.commit", Type: metrics.HistogramType,
			Help: "How long a group of entries takes to become durable, fsync included.", Unit: "seconds", Budget: 1,
		}, func(yield func(metrics.Point)) {
			s := l.commits.Snapshot()
			yield(metrics.Point{Hist: &s})
		}),
	)
}
