// Package ledger is the durable, ordered record of changes: one SQLite file, written by one committer in groups.
//
// A change is the ledger's once its transaction is synced to disk; until then
// it can be read again from the API server. The committer works head of line:
// it tries one group until it is durable, so order is never at stake, and
// while it cannot, the workers wait and the watches close.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

// File is the name of the ledger in the data directory.
const File = "ledger.db"

const (
	backlogEntries = 4096 // entries handed over and not yet durable
	groupEntries   = 512  // entries that share a transaction, and so an fsync
	groupBytes     = 8 << 20
	pageBytes      = 4096 // SQLite's default
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

	// MaxBytes is the bound on the database and its WAL; 0: 2 GiB. At it
	// nothing more is recorded until the sinks have acknowledged.
	MaxBytes int64
	// Keep is how long acknowledged changes are kept, if there is room; 0: 24 h.
	Keep time.Duration
}

// Ledger implements [statesync.Log]. Open makes one, Run commits, Close
// releases the file.
type Ledger struct {
	opts    Options
	path    string
	slots   chan struct{} // one taken for each waiting entry: the bound
	more    chan struct{} // holds one token when there may be work for the committer
	stopped chan struct{} // closed when nothing is taken any more

	pipe     *metrics.Pipeline
	commits  *metrics.Timer
	recorded *metrics.Timer // observed to recorded, for each change
	checks   *metrics.Timer // checkpoints

	size      atomic.Int64  // of the database and its WAL, as last measured
	unchecked atomic.Int64  // bytes written since the last checkpoint, estimated
	grown     chan struct{} // holds one token when that is worth a checkpoint
	distrust  atomic.Bool   // a commit failed since the checkpointer opened the file

	mu       sync.Mutex // guards what follows
	closed   bool
	file     os.FileInfo // of the file at path when it was opened
	waiting  []waitingEntry
	savings  map[string][]*saving // by sink: saved and not yet durable
	ours     map[string]bool      // sinks of this run
	acked    map[string]int64     // durable cursors of those that hold changes
	aside    map[string]int64     // what is put aside for each sink, as last counted
	letters  map[string]int64     // dead letters of each sink, likewise
	tight    bool                 // nearly all room is used, and nothing can be deleted
	sweep    bool                 // changes may be deleted that were to be kept
	stale    chan struct{}        // closed and replaced when the ledger had to begin anew
	room     bool                 // entries may be committed
	head     int64
	wake     chan struct{} // closed and replaced when head moves, or something is put aside
	failure  error         // of the group now being tried; nil: none
	failedAt time.Time
	pruned   map[string]int64  // rows deleted, by table
	upkeep   map[string]upkeep // by step

	generation   int64     // counts the rescues of this run
	loaded       int64     // the generation that was loaded last
	losses       []span    // numbers that are known to be gone
	prunedTo     int64     // numbers up to here may be gone
	broken       error     // what is wrong with the file, until it is rescued
	cursorsLost  bool      // a sink without a cursor may have had one
	rescuedAt    time.Time // zero: never
	rescueReport string

	full error // why nothing is recorded; the committer's own

	// Who needs several of these takes them in this order.

	writing  sync.Mutex // guards what follows: a transaction at a time
	writer   *sqlite.Conn
	durable  int64 // the number of the last durable change; head follows
	largest  int64 // of the sizes that the file has had
	asideTop int64 // the highest place that this run has given
	ids      map[string]identity
	streams  map[string]int64 // ids of streams, by name
	retains  retention

	readMu sync.Mutex   // one reader at a time
	reader *sqlite.Conn // nil: to be opened
	shut   bool         // for good

	checking sync.Mutex   // one checkpoint at a time
	checker  *sqlite.Conn // nil until it is needed

	visiting sync.RWMutex // held by who reads over a connection of its own
}

// waitingEntry is an entry that is not durable yet.
type waitingEntry struct {
	statesync.Entry
	since      time.Time
	generation int64 // of the file that the watch had loaded
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
		grown:   make(chan struct{}, 1),
		stale:   make(chan struct{}),
		room:    true,
		savings: map[string][]*saving{},
		ours:    map[string]bool{},
		acked:   map[string]int64{},
		aside:   map[string]int64{},
		letters: map[string]int64{},
		wake:    make(chan struct{}),
		commits: metrics.NewTimer(), recorded: metrics.NewTimer(), checks: metrics.NewTimer(),
		pruned: map[string]int64{}, upkeep: map[string]upkeep{},
		ids: map[string]identity{}, streams: map[string]int64{},
	}
	if l.opts.MaxBytes == 0 {
		l.opts.MaxBytes = defaultMaxBytes
	}
	if l.opts.Keep == 0 {
		l.opts.Keep = defaultKeep
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if !os.SameFile(now, l.file) {
		return fmt.Errorf("the ledger was replaced: %s is another file now", l.path)
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
	l.waiting = append(l.waiting, waitingEntry{Entry: e, since: l.opts.Now(), generation: l.loaded})
	l.pipe.In(1)
	l.signal()
	return nil
}

// Head returns the number of the last durable change, and a channel that is
// closed when there is a later one, or when something was put aside for a sink
// that it has not put aside itself.
func (l *Ledger) Head() (int64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head, l.wake
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
	l.writing.Lock()
	defer l.writing.Unlock()
	l.readMu.Lock()
	defer l.readMu.Unlock()
	l.checking.Lock()
	defer l.checking.Unlock()
	l.visiting.Lock()
	defer l.visiting.Unlock()
	l.shut = true
	return l.release()
}

// release closes every connection. It needs all four locks.
func (l *Ledger) release() error {
	var errs []error
	for _, c := range []*sqlite.Conn{l.checker, l.reader, l.writer} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	l.checker, l.reader, l.writer = nil, nil, nil
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
		l.describeUpkeep(reg),
		reg.Func(statesync.StageDesc(), func(yield func(metrics.Point)) {
			s := l.recorded.Snapshot()
			yield(metrics.Point{Tags: []string{statesync.StageObservedRecorded, ""}, Hist: &s})
		}),
		reg.Func(metrics.Desc{
			Name: "outrider_ledger_head", Datadog: "outrider.ledger.head", Type: metrics.GaugeType,
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
