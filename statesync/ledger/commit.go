package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

// The committer's rules:
//   - One group at a time, head of line: it is tried until it is durable.
//   - All of an entry is in one transaction: its changes and its row, objects
//     and the resume point that they allow.
//   - After a failure the connection is closed and opened again: an fsync that
//     failed once must not be trusted to succeed later. The last durable number
//     then says how much of the group had been written after all.
//   - Between groups it deletes what need not be kept, a chunk at a time; while
//     the ledger is full it commits the sinks' cursors and nothing else.

const (
	retryFirst = 50 * time.Millisecond
	retryMax   = 5 * time.Second
	lastTries  = time.Second // for what waits when the ledger stops
)

// Run commits what is appended until ctx ends, then what still waits, and
// returns. It gives up on that after a second: the API server
// still has it.
func (l *Ledger) Run(ctx context.Context) error {
	checking, stopChecking := context.WithCancel(context.WithoutCancel(ctx))
	var checkpoints sync.WaitGroup
	defer checkpoints.Wait()
	defer stopChecking()
	checkpoints.Go(func() { l.runCheckpoints(checking) })

	l.trustCursors()
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.more:
			l.commitAll(ctx)
		case <-tick.C:
			l.commitAll(ctx)
		case <-ctx.Done():
			l.refuse()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTries)
			defer cancel()
			l.commitAll(last)
			if _, err := l.Failure(); err != nil && !errors.Is(err, l.full) { // one that is full has lost nothing
				return fmt.Errorf("stop ledger: %w", err)
			}
			return nil
		}
	}
}

// SaveCursor makes a sink's acknowledgements durable soon: with the next
// group, or by themselves.
func (l *Ledger) SaveCursor(sink string, acked int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cursors[sink] = acked
	l.signal()
}

// Cursor returns how far a sink has acknowledged. A sink not seen before is
// remembered as starting at the ledger's head; after a rescue, which may have
// cost its cursor, at the oldest change that is left. It must not be called while
// Run runs.
func (l *Ledger) Cursor(sink string) (statesync.Cursor, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.writer == nil {
		return statesync.Cursor{}, fmt.Errorf("cursor of sink %s: %w", sink, errNoWriter)
	}
	start := l.head
	if l.cursorsLost {
		oldest, err := readNumber(l.writer, "SELECT min(n) FROM changes")
		if err != nil {
			return statesync.Cursor{}, fmt.Errorf("cursor of sink %s: %w", sink, err)
		}
		if oldest > 0 {
			start = oldest - 1
		}
	}
	err := sqlitex.Execute(l.writer, "INSERT INTO cursors(sink, since, acked) VALUES(?, ?, ?) ON CONFLICT DO NOTHING",
		&sqlitex.ExecOptions{Args: []any{sink, start, start}})
	if err != nil {
		return statesync.Cursor{}, fmt.Errorf("cursor of sink %s: %w", sink, err)
	}
	c := statesync.Cursor{Sink: sink}
	err = sqlitex.Execute(l.writer, "SELECT since, acked FROM cursors WHERE sink = ?", &sqlitex.ExecOptions{
		Args:       []any{sink},
		ResultFunc: func(s *sqlite.Stmt) error { c.Since, c.Acked = s.ColumnInt64(0), s.ColumnInt64(1); return nil },
	})
	if err != nil {
		return statesync.Cursor{}, fmt.Errorf("cursor of sink %s: %w", sink, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[sink] = c.Acked
	return c, nil
}

// trustCursors ends the time in which a sink may have lost its cursor.
func (l *Ledger) trustCursors() {
	l.writing.Lock()
	defer l.writing.Unlock()
	if !l.cursorsLost || l.writer == nil {
		return
	}
	if err := sqlitex.Execute(l.writer, "DELETE FROM meta WHERE key = ?", &sqlitex.ExecOptions{Args: []any{metaCursorsLost}}); err != nil {
		_ = l.drop(err) // it stands until the next start, which does no harm
		return
	}
	l.wrote(pageBytes)
}

// Identify ties the ledger to a cluster, at the first start, and returns the
// epoch. A ledger of another cluster gives [ErrOtherCluster]; after any other
// error it may be asked again.
func (l *Ledger) Identify(cluster string) (epoch int64, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.writer == nil {
		return 0, fmt.Errorf("identify ledger: %w", errNoWriter)
	}
	if err := sqlitex.Execute(l.writer, "INSERT INTO meta(key, value) VALUES('cluster', ?), ('epoch', '1') ON CONFLICT DO NOTHING",
		&sqlitex.ExecOptions{Args: []any{cluster}}); err != nil {
		return 0, l.drop(fmt.Errorf("identify ledger: %w", err))
	}
	known, err := readMeta(l.writer, "cluster")
	if err != nil {
		return 0, l.drop(fmt.Errorf("identify ledger: %w", err))
	}
	if known != cluster {
		return 0, fmt.Errorf("%s %w: it is of %s, but the API server says it is %s: set another data_dir", l.path, ErrOtherCluster, known, cluster)
	}
	if epoch, err = readNumber(l.writer, "SELECT value FROM meta WHERE key = 'epoch'"); err != nil {
		return 0, l.drop(fmt.Errorf("identify ledger: read epoch: %w", err))
	}
	return epoch, nil
}

// NewEpoch implements [statesync.Log]. It fails while the ledger cannot be
// written, and is then to be called again; an epoch that is counted twice does
// no harm. The caller has waited for everything that it appended: a resume
// point that became durable later would tell that its stream is not lost.
func (l *Ledger) NewEpoch(ctx context.Context, reason string) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("new epoch: %w", err)
	}
	if l.writer == nil {
		return fmt.Errorf("new epoch: %w", errNoWriter)
	}
	err := transaction(l.writer, func() error {
		if err := sqlitex.Execute(l.writer, "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'epoch'", nil); err != nil {
			return err
		}
		if l.writer.Changes() == 0 {
			return errors.New("the ledger has not been identified")
		}
		return sqlitex.Execute(l.writer, "UPDATE streams SET lost = ?", &sqlitex.ExecOptions{Args: []any{reason}})
	})
	if err != nil {
		return l.drop(fmt.Errorf("new epoch: %w", err))
	}
	l.wrote(pageBytes)
	return nil
}

// signal tells the committer that there is work. It needs no lock.
func (l *Ledger) signal() {
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// refuse makes Append take nothing more.
func (l *Ledger) refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.stopped)
	}
}

// queue reports what waits, with l.mu held.
func (l *Ledger) queue() metrics.Queue {
	q := metrics.Queue{Len: int64(len(l.waiting))}
	if len(l.waiting) > 0 {
		q.Oldest = l.waiting[0].since
	}
	return q
}

// commitAll commits group after group, and deletes chunk after chunk, until
// nothing can be done now or ctx ends.
func (l *Ledger) commitAll(ctx context.Context) {
	for ctx.Err() == nil {
		left := l.retain()
		group, cursors := l.next()
		if len(group) == 0 && len(cursors) == 0 && left.connected {
			l.fail(l.full)
			if !left.more {
				return
			}
			continue
		}
		newHead, ok := l.commitUntilDurable(ctx, group, cursors)
		if !ok {
			return
		}
		l.settle(group, cursors, newHead)
		_ = failpoint.Here("ledger/settled") // nothing is left that could fail
	}
}

// next returns what the next transaction is to hold: no entries while there
// is no room for them.
func (l *Ledger) next() (group []waitingEntry, cursors map[string]int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cursors = maps.Clone(l.cursors)
	if !l.room {
		return nil, cursors
	}
	var bytes int64
	for _, e := range l.waiting[:min(len(l.waiting), groupEntries)] {
		if bytes += cost(&e.Entry); len(group) > 0 && bytes > groupBytes {
			break
		}
		group = append(group, e)
	}
	return group, cursors
}

// commitUntilDurable returns false when ctx ended first.
func (l *Ledger) commitUntilDurable(ctx context.Context, group []waitingEntry, cursors map[string]int64) (newHead int64, ok bool) {
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		newHead, err := l.try(group, cursors)
		if err == nil {
			l.fail(l.full)
			return newHead, true
		}
		l.fail(err)
		l.pipe.Retry("commit", int64(len(group)))
		select {
		case <-ctx.Done():
			return 0, false
		case <-time.After(wait):
		}
	}
}

// try commits the group once.
func (l *Ledger) try(group []waitingEntry, cursors map[string]int64) (newHead int64, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	newHead = l.head
	for _, e := range group {
		newHead += int64(len(e.Changes))
	}
	if l.writer == nil {
		if group, err = l.reopen(group); err != nil {
			return 0, err
		}
	}
	if err := l.write(group, cursors); err != nil {
		return 0, l.drop(err)
	}
	l.durable = newHead
	return newHead, nil
}

// reopen opens the database again after a failure and returns what of the
// group is still to be written: a try whose answer was lost may have reached
// the disk, and the group may have grown since. Entries without changes that
// follow the last durable number may be written twice.
func (l *Ledger) reopen(group []waitingEntry) (rest []waitingEntry, err error) {
	if err := l.repair(l.generation, nil); err != nil {
		return nil, err
	}
	if l.writer == nil {
		if l.writer, err = openConn(l.path); err != nil {
			l.note(err)
			return nil, err
		}
	}
	l.ids, l.streams = map[string]identity{}, map[string]int64{}
	durable, err := head(l.writer)
	if err != nil {
		return nil, l.drop(err)
	}
	n := l.head
	for rest = group; n < durable && len(rest) > 0; rest = rest[1:] {
		n += int64(len(rest[0].Changes))
	}
	if n != durable {
		return nil, l.drop(fmt.Errorf("%s ends at change %d, want %d: somebody else has put it there or writes to it", l.path, durable, n))
	}
	return rest, nil
}

// errNoWriter is what is said while the committer has given its connection up
// and not yet opened it again.
var errNoWriter = errors.New("the ledger cannot be written now")

// drop gives the writing connection up after an error. The committer opens it
// again; the checkpointer's goes too, because the file is what failed.
func (l *Ledger) drop(cause error) error {
	c := l.writer
	l.writer = nil
	l.note(cause)
	l.distrust.Store(true)
	l.signal()
	return closeAfter(c, cause)
}

func (l *Ledger) write(group []waitingEntry, cursors map[string]int64) error {
	bytes := pageBytes * int64(len(cursors))
	for i := range group {
		if !empty(&group[i].Entry) {
			bytes += cost(&group[i].Entry)
		}
	}
	if bytes == 0 {
		return nil
	}
	began := l.opts.Now()
	err := transaction(l.writer, func() error {
		if err := failpoint.Here("ledger/begin"); err != nil {
			return err
		}
		for i := range group {
			e := group[i].Entry
			if group[i].generation < l.generation {
				e.Objects, e.Resume = nil, nil
			}
			if err := l.writeEntry(&e); err != nil {
				return err
			}
		}
		for sink, acked := range cursors {
			if err := sqlitex.Execute(l.writer, "UPDATE cursors SET acked = ? WHERE sink = ?",
				&sqlitex.ExecOptions{Args: []any{acked, sink}}); err != nil {
				return fmt.Errorf("cursor of sink %s: %w", sink, err)
			}
		}
		return failpoint.Here("ledger/commit")
	})
	if err != nil {
		return err
	}
	l.commits.Observe(l.opts.Now().Sub(began))
	l.wrote(bytes)
	return failpoint.Here("ledger/committed")
}

// settle takes a durable group off the books and tells everyone.
func (l *Ledger) settle(group []waitingEntry, cursors map[string]int64, newHead int64) {
	l.mu.Lock()
	l.waiting = slices.Delete(l.waiting, 0, len(group))
	for sink, acked := range cursors {
		if l.cursors[sink] == acked {
			delete(l.cursors, sink)
		}
		if _, ours := l.acked[sink]; ours {
			l.acked[sink] = acked
		}
	}
	l.pipe.Out(int64(len(group)))
	if newHead != l.head {
		l.head = newHead
		close(l.wake)
		l.wake = make(chan struct{})
	}
	l.mu.Unlock()
	now := l.opts.Now()
	for _, e := range group {
		for i := range e.Changes {
			l.recorded.Observe(now.Sub(e.Changes[i].Observed))
		}
		<-l.slots
		if e.Done != nil {
			e.Done()
		}
	}
}

// fail remembers why the group now tried is not durable, and logs the first
// and the last of a run of failures.
func (l *Ledger) fail(err error) {
	l.mu.Lock()
	before, since := l.failure, l.failedAt
	switch {
	case err == nil:
		l.failedAt = time.Time{}
	case before == nil:
		l.failedAt = l.opts.Now()
	}
	l.failure = err
	l.mu.Unlock()
	switch {
	case err != nil && before == nil:
		l.opts.Log.Error("the ledger cannot commit; it tries again until it can, and the watches wait", "err", err)
	case err == nil && before != nil:
		l.opts.Log.Info("the ledger commits again", "after", l.opts.Now().Sub(since))
	}
}
