package ledger

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
)

// The rules of what sinks save:
//   - It waits in memory, by sink, in order. What follows before the committer
//     comes is merged with it; what the committer has taken takes nothing more
//     in, because a try whose answer was lost may have written it.
//   - All that a sink has saved at once is in one transaction.
//   - Each has a number, which the sink's row holds once it is written: so none
//     is written twice, though entries put aside and dead letters are added.
//   - A sink's cursor never goes back.

// A saving is progress that is not durable yet.
type saving struct {
	statesync.Progress
	saved []func()
	taken bool        // nothing more is merged with it
	done  atomic.Bool // it is durable, or the sink was forgotten

	number int64 // among the sink's savings; 0: not known yet; guarded by writing
}

// Save makes a sink's progress durable soon: with the next group, or by
// itself. Of several that are saved before, the last says where the sink
// stands. What is saved of a sink that has no cursor is dropped.
func (l *Ledger) Save(p statesync.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	queue := l.savings[p.Sink]
	if n := len(queue); n > 0 && !queue[n-1].taken {
		queue[n-1].merge(&p)
	} else {
		s := &saving{Progress: statesync.Progress{Sink: p.Sink}}
		s.merge(&p)
		l.savings[p.Sink] = append(queue, s)
	}
	l.signal()
}

func (s *saving) merge(p *statesync.Progress) {
	s.Acked, s.Skipped = max(s.Acked, p.Acked), p.Skipped
	if p.Position != "" {
		s.Position = p.Position
	}
	if p.Marked != nil {
		s.Marked = p.Marked
	}
	if s.Detach == "" {
		s.Detach = p.Detach
	}
	s.PutAside = append(s.PutAside, p.PutAside...)
	s.Settled = append(s.Settled, p.Settled...)
	s.Compacted = append(s.Compacted, p.Compacted...)
	s.Told = append(s.Told, p.Told...)
	s.Letters = append(s.Letters, p.Letters...)
	if p.Saved != nil {
		s.saved = append(s.saved, p.Saved)
	}
}

// cost is about how many bytes a saving adds to the WAL: see the cost of an
// entry.
func (s *saving) cost() int64 {
	const row = 1024
	return pageBytes*int64(2+len(s.Settled)+len(s.Compacted)) + row*int64(len(s.PutAside)+len(s.Told)+len(s.Letters))
}

// fresh reports whether others than the sink put something aside.
func (s *saving) fresh() bool {
	return slices.ContainsFunc(s.PutAside, func(o statesync.Offered) bool {
		what := kindOf(&o)
		return what != asideParked && what != asideSkipped
	})
}

// take returns what waits of the sinks given; of all, when none is given. The
// lock must be held.
func (l *Ledger) take(sinks ...string) (out []*saving) {
	if len(sinks) == 0 {
		sinks = slices.Sorted(maps.Keys(l.savings))
	}
	for _, sink := range sinks {
		for _, s := range l.savings[sink] {
			s.taken = true
			out = append(out, s)
		}
	}
	return out
}

// settleSavings takes what is durable off the queues, and returns whom to
// tell, without a lock. The lock must be held.
func (l *Ledger) settleSavings(savings []*saving) (tell []func()) {
	for _, s := range savings {
		if s.done.Load() {
			continue // somebody else has written it with his own
		}
		s.done.Store(true)
		queue := slices.DeleteFunc(l.savings[s.Sink], func(other *saving) bool { return other == s })
		if l.savings[s.Sink] = queue; len(queue) == 0 {
			delete(l.savings, s.Sink)
		}
		if acked, holds := l.acked[s.Sink]; holds {
			l.acked[s.Sink] = max(acked, s.Acked)
			if s.Detach != "" {
				l.letGo(s.Sink)
			}
		}
		if s.fresh() {
			l.wakeReaders()
		}
		tell = append(tell, s.saved...)
	}
	return tell
}

// letGo ends a sink's hold on the changes. The lock must be held.
func (l *Ledger) letGo(sink string) {
	delete(l.acked, sink)
	l.tight, l.sweep = false, true // the next look at the size tells what is left
	l.signal()
}

// wakeReaders tells everyone who waits at the head. The lock must be held.
func (l *Ledger) wakeReaders() {
	close(l.wake)
	l.wake = make(chan struct{})
}

// writeSaving writes s in the transaction of its group, unless it is there.
func (l *Ledger) writeSaving(s *saving) error {
	if s.done.Load() {
		return nil
	}
	saves, known := int64(0), false
	err := sqlitex.Execute(l.writer, "SELECT saves FROM cursors WHERE sink = ?", &sqlitex.ExecOptions{
		Args:       []any{s.Sink},
		ResultFunc: func(q *sqlite.Stmt) error { saves, known = q.ColumnInt64(0), true; return nil },
	})
	if err != nil || !known {
		return err
	}
	if s.number == 0 {
		s.number = saves + 1
	}
	if s.number <= saves {
		return nil
	}
	for _, step := range []func(*saving) error{l.writeSettled, l.writeCompacted, l.writePutAside, l.writeTold, l.writeLetters, l.writeCursor} {
		if err := step(s); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) exec(query string, args ...any) error {
	return sqlitex.Execute(l.writer, query, &sqlitex.ExecOptions{Args: args})
}

func (l *Ledger) writeSettled(s *saving) error {
	for _, id := range s.Settled {
		if err := l.exec("DELETE FROM aside WHERE id = ? AND sink = ?", id, s.Sink); err != nil {
			return fmt.Errorf("settle %d: %w", id, err)
		}
	}
	return nil
}

// writeCompacted has changes told as left out that were to be given: they are
// not needed any more.
func (l *Ledger) writeCompacted(s *saving) error {
	for _, id := range s.Compacted {
		err := l.exec("UPDATE aside SET what = 'skipped', cause = ?, first = seq WHERE id = ? AND sink = ? AND what = 'parked'", statesync.SkipCompacted, id, s.Sink)
		if err != nil {
			return fmt.Errorf("leave out %d: %w", id, err)
		}
	}
	return nil
}

func (l *Ledger) writePutAside(s *saving) error {
	rows, err := asideRows(s.PutAside)
	if err != nil {
		return fmt.Errorf("put aside: %w", err)
	}
	for i := range rows {
		if err := l.putAside(s.Sink, &rows[i]); err != nil {
			return fmt.Errorf("put aside: %w", err)
		}
	}
	return failpoint.Here("ledger/save")
}

// writeTold keeps what the sink was given of workloads; not of those whose
// row is gone, of which nothing will be told.
func (l *Ledger) writeTold(s *saving) error {
	for i := range s.Told {
		t := &s.Told[i]
		if len(t.Skipped) == 0 {
			if err := l.exec("DELETE FROM told WHERE sink = ? AND workload = (SELECT id FROM workloads WHERE uid = ?)", s.Sink, t.UID); err != nil {
				return fmt.Errorf("told of %s: %w", t.UID, err)
			}
			continue
		}
		skipped, err := encodeSkips(t.Skipped)
		if err != nil {
			return err
		}
		err = l.exec(`INSERT INTO told(sink, workload, seq, skipped) SELECT ?, id, ?, ? FROM workloads WHERE uid = ?
			ON CONFLICT DO UPDATE SET seq = excluded.seq, skipped = excluded.skipped`, s.Sink, t.Seq, skipped, t.UID)
		if err != nil {
			return fmt.Errorf("told of %s: %w", t.UID, err)
		}
	}
	return nil
}

func (l *Ledger) writeLetters(s *saving) error {
	for i := range s.Letters {
		d := &s.Letters[i]
		body, err := json.Marshal(&d.Change)
		if err != nil {
			return fmt.Errorf("encode dead letter: %w", err)
		}
		skipped, err := encodeSkips(d.Skipped)
		if err != nil {
			return err
		}
		err = l.exec(`INSERT INTO dead_letters(sink, n, uid, lane, seq, body, previous, skipped, initial, tries, first, last, error)
			VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			s.Sink, d.Number, d.Workload.UID, d.Workload.Key().String(), d.Seq, string(body), d.PreviousSeq, skipped, d.Initial,
			d.Tries, nanoseconds(d.First), nanoseconds(d.Last), strings.ToValidUTF8(d.Error, "\uFFFD")) // a row with another text would be lost in a rescue
		if err != nil {
			return fmt.Errorf("insert dead letter: %w", err)
		}
	}
	return nil
}

func (l *Ledger) writeCursor(s *saving) error {
	now := l.opts.Now().UnixNano()
	err := l.exec(`UPDATE cursors SET acked = max(acked, ?1), position = iif(?2 = '', position, ?2), skipped = ?3, saves = ?4, saved = ?5
		WHERE sink = ?6`, s.Acked, s.Position, s.Skipped, s.number, now, s.Sink)
	if err != nil {
		return err
	}
	if m := s.Marked; m != nil {
		err := l.exec(`UPDATE cursors SET marked_previous = ?, marked = ?, marked_changes = ?, marked_skipped = ?, marked_waiting = ?
			WHERE sink = ?`, m.Previous, m.Number, m.Changes, m.Skipped, m.Waiting, s.Sink)
		if err != nil {
			return err
		}
	}
	if s.Detach == "" {
		return nil
	}
	return l.exec("UPDATE cursors SET detached = ?, detached_at = ? WHERE sink = ? AND detached = ''", s.Detach, now, s.Sink)
}
