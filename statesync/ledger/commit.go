package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/metrics"
)

// The committer's rules:
//   - One group at a time, head of line: it is tried until it is durable.
//   - All of an entry is in one transaction: its changes and its row, objects
//     and the resume point that they allow.
//   - After a failure the connection is closed and opened again: an fsync that
//     failed once must not be trusted to succeed later. The last durable number
//     then says how much of the group had been written after all.
//   - Between groups it deletes what need not be kept, a chunk at a time; while
//     the ledger is full it commits what the sinks save and nothing else.

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
	checkpoints.Go(func() { l.RunCheckpoints(checking) })

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
		group, savings := l.next()
		if len(group) == 0 && len(savings) == 0 && left.connected {
			l.fail(l.full)
			if !left.more {
				return
			}
			continue
		}
		newHead, ok := l.commitUntilDurable(ctx, group, savings)
		if !ok {
			return
		}
		l.settle(group, savings, newHead)
		_ = failpoint.Here("ledger/settled") // nothing is left that could fail
	}
}

// next returns what the next transaction is to hold: no entries while there
// is no room for them.
func (l *Ledger) next() (group []waitingEntry, savings []*saving) {
	l.mu.Lock()
	defer l.mu.Unlock()
	savings = l.take()
	if !l.room {
		return nil, savings
	}
	var bytes int64
	for _, e := range l.waiting[:min(len(l.waiting), groupEntries)] {
		if bytes += cost(&e.Entry); len(group) > 0 && bytes > groupBytes {
			break
		}
		group = append(group, e)
	}
	return group, savings
}

// commitUntilDurable returns false when ctx ended first.
func (l *Ledger) commitUntilDurable(ctx context.Context, group []waitingEntry, savings []*saving) (newHead int64, ok bool) {
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		newHead, err := l.try(group, savings)
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
func (l *Ledger) try(group []waitingEntry, savings []*saving) (newHead int64, err error) {
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
	if err := l.write(group, savings); err != nil {
		return 0, l.drop(err)
	}
	l.durable = newHead
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moveHead(newHead) // before anyone who waits to write: a cursor is never ahead of it
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

func (l *Ledger) write(group []waitingEntry, savings []*saving) error {
	bytes := int64(0)
	for _, s := range savings {
		bytes += s.cost()
	}
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
		for _, s := range savings {
			if err := l.writeSaving(s); err != nil {
				return fmt.Errorf("cursor of sink %s: %w", s.Sink, err)
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
func (l *Ledger) settle(group []waitingEntry, savings []*saving, newHead int64) {
	l.mu.Lock()
	l.waiting = slices.Delete(l.waiting, 0, len(group))
	tell := l.settleSavings(savings)
	l.pipe.Out(int64(len(group)))
	l.moveHead(newHead)
	l.mu.Unlock()
	for _, saved := range tell {
		saved()
	}
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

// moveHead tells everyone of a new head. The lock must be held.
func (l *Ledger) moveHead(n int64) {
	if n == l.head {
		return
	}
	l.head = n
	l.wakeReaders()
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
