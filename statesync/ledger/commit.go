package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

// The committer's rules:
//   - One group at a time, head of line: it is tried until it is durable.
//   - All of an entry is in one transaction: its changes and its row.
//   - After a failure the connection is closed and opened again: an fsync that
//     failed once must not be trusted to succeed later. The last durable number
//     then says how much of the group had been written after all.

const (
	retryFirst = 50 * time.Millisecond
	retryMax   = 5 * time.Second
	lastTries  = time.Second // for what waits when the ledger stops
)

// Run commits what is appended until ctx ends, then what still waits, and
// returns. It gives up on that after a second: the API server
// still has it.
func (l *Ledger) Run(ctx context.Context) error {
	for {
		select {
		case <-l.more:
			l.commitAll(ctx)
		case <-ctx.Done():
			l.refuse()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTries)
			defer cancel()
			l.commitAll(last)
			if _, err := l.Failure(); err != nil {
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
// remembered as starting at the ledger's head. It must not be called while
// Run runs.
func (l *Ledger) Cursor(sink string) (statesync.Cursor, error) {
	err := sqlitex.Execute(l.writer, "INSERT INTO cursors(sink, since, acked) VALUES(?, ?, ?) ON CONFLICT DO NOTHING",
		&sqlitex.ExecOptions{Args: []any{sink, l.head, l.head}})
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
	return c, nil
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

// commitAll commits group after group until nothing waits or ctx ends.
func (l *Ledger) commitAll(ctx context.Context) {
	for ctx.Err() == nil {
		l.mu.Lock()
		group := slices.Clone(l.waiting[:min(len(l.waiting), groupEntries)])
		cursors := maps.Clone(l.cursors)
		l.mu.Unlock()
		if len(group) == 0 && len(cursors) == 0 {
			return
		}
		newHead, ok := l.commitUntilDurable(ctx, group, cursors)
		if !ok {
			return
		}
		l.settle(group, cursors, newHead)
	}
}

// commitUntilDurable returns false when ctx ended first.
func (l *Ledger) commitUntilDurable(ctx context.Context, group []waitingEntry, cursors map[string]int64) (newHead int64, ok bool) {
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		began := l.opts.Now()
		newHead, err := l.try(group, cursors)
		if err == nil {
			l.commits.Observe(l.opts.Now().Sub(began))
			l.fail(nil)
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
	return newHead, nil
}

// reopen opens the database again after a failure and returns what of the
// group is still to be written: a try whose answer was lost may have reached
// the disk, and the group may have grown since.
func (l *Ledger) reopen(group []waitingEntry) (rest []waitingEntry, err error) {
	if l.writer, err = openConn(l.path); err != nil {
		return nil, err
	}
	l.ids = map[string]identity{}
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

// drop gives the writing connection up after an error.
func (l *Ledger) drop(cause error) error {
	c := l.writer
	l.writer = nil
	return closeAfter(c, cause)
}

func (l *Ledger) write(group []waitingEntry, cursors map[string]int64) (err error) {
	end, err := sqlitex.ImmediateTransaction(l.writer)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer end(&err)
	for i := range group {
		if err := l.writeEntry(&group[i].Entry); err != nil {
			return fmt.Errorf("record %s: %w", group[i].Row.UID, err)
		}
	}
	for sink, acked := range cursors {
		if err := sqlitex.Execute(l.writer, "UPDATE cursors SET acked = ? WHERE sink = ?",
			&sqlitex.ExecOptions{Args: []any{acked, sink}}); err != nil {
			return fmt.Errorf("cursor of sink %s: %w", sink, err)
		}
	}
	return nil
}

func (l *Ledger) writeEntry(e *statesync.Entry) error {
	id, err := l.identity(e.Row)
	if err != nil {
		return err
	}
	recorded := l.opts.Now()
	for i := range e.Changes {
		c := &e.Changes[i]
		body, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("encode change: %w", err)
		}
		err = sqlitex.Execute(l.writer, "INSERT INTO changes(workload, seq, previous, recorded, body) VALUES(?, ?, ?, ?, ?)",
			&sqlitex.ExecOptions{Args: []any{id.id, c.Seq, id.last, recorded.UnixNano(), string(body)}})
		if err != nil {
			return fmt.Errorf("insert change: %w", err)
		}
		id.last = l.writer.LastInsertRowID()
	}
	r := e.Row
	labels, err := json.Marshal(r.Labels)
	if err != nil {
		return fmt.Errorf("encode labels: %w", err)
	}
	err = sqlitex.Execute(l.writer,
		"UPDATE workloads SET labels = ?, state = ?, reason = ?, seq = ?, rv = ?, suspended = ?, last = ?, gone = ? WHERE id = ?",
		&sqlitex.ExecOptions{Args: []any{
			string(labels), string(r.State), r.Reason, r.Seq, int64(r.ResourceVersion), r.Suspended, id.last, goneAt(r, recorded), id.id,
		}})
	if err != nil {
		return fmt.Errorf("update workload: %w", err)
	}
	l.ids[r.UID] = id
	if r.Gone {
		delete(l.ids, r.UID)
	}
	return nil
}

// goneAt is 0 for a workload whose object exists, else when it went.
func goneAt(r statesync.Row, now time.Time) int64 {
	if !r.Gone {
		return 0
	}
	return now.UnixNano()
}

// identity returns the workload's row, making it if there is none.
func (l *Ledger) identity(r statesync.Row) (identity, error) {
	if id, ok := l.ids[r.UID]; ok {
		return id, nil
	}
	err := sqlitex.Execute(l.writer,
		`INSERT INTO workloads(uid, kind, namespace, name, labels, state, reason, seq, rv, suspended, last, gone)
		 VALUES(?, ?, ?, ?, '{}', '', '', 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING`,
		&sqlitex.ExecOptions{Args: []any{r.UID, r.Kind, r.Namespace, r.Name}})
	if err != nil {
		return identity{}, fmt.Errorf("insert workload: %w", err)
	}
	var id identity
	err = sqlitex.Execute(l.writer, "SELECT id, last FROM workloads WHERE uid = ?", &sqlitex.ExecOptions{
		Args:       []any{r.UID},
		ResultFunc: func(s *sqlite.Stmt) error { id = identity{s.ColumnInt64(0), s.ColumnInt64(1)}; return nil },
	})
	if err != nil {
		return identity{}, fmt.Errorf("find workload: %w", err)
	}
	return id, nil
}

// settle takes a durable group off the books and tells everyone.
func (l *Ledger) settle(group []waitingEntry, cursors map[string]int64, newHead int64) {
	l.mu.Lock()
	l.waiting = slices.Delete(l.waiting, 0, len(group))
	for sink, acked := range cursors {
		if l.cursors[sink] == acked {
			delete(l.cursors, sink)
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
		e.Done()
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
