package ledger

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
)

// What retention deletes, a chunk at a time. The rules are at the head of
// retain.go.

// acknowledged is the number up to which every sink of this run has
// acknowledged, durably.
func (l *Ledger) acknowledged() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.head
	for _, acked := range l.acked {
		n = min(n, acked)
	}
	return n
}

// holders returns the sinks that hold changes, as a JSON array.
func (l *Ledger) holders() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := json.Marshal(append([]string{}, slices.Sorted(maps.Keys(l.acked))...))
	return string(b), err
}

// prune deletes up to a chunk of changes and of tombstones: of changes at any
// age when pressed.
func (l *Ledger) prune(now time.Time, pressed bool) (deleted int, more bool, err error) {
	holders, err := l.holders()
	if err != nil {
		return 0, false, err
	}
	old, passed, moreChanges, err := l.oldChanges(now, pressed, holders)
	if err != nil {
		return 0, false, fmt.Errorf("find old changes: %w", err)
	}
	tombstones, moreTombstones, err := l.oldTombstones(now, holders)
	if err != nil {
		return 0, false, fmt.Errorf("find old tombstones: %w", err)
	}
	if len(old)+len(tombstones) == 0 {
		l.retains.passed = passed
		return 0, moreChanges || moreTombstones, nil
	}
	l.mu.Lock()
	if len(old) > 0 {
		l.prunedTo = max(l.prunedTo, old[len(old)-1]) // before a reader can see it
	}
	upTo := l.prunedTo
	l.mu.Unlock()
	if err := l.delete(old, tombstones, upTo); err != nil {
		return 0, false, err
	}
	l.retains.passed = passed
	l.wrote(1024*int64(len(old)) + pageBytes*int64(len(tombstones)+1))
	l.mu.Lock()
	l.pruned["changes"] += int64(len(old))
	l.pruned["workloads"] += int64(len(tombstones))
	l.mu.Unlock()
	return len(old), moreChanges || moreTombstones || pressed && len(old) > 0, nil
}

// delete deletes changes by number, and workloads by id.
func (l *Ledger) delete(changes, tombstones []int64, prunedTo int64) error {
	return transaction(l.writer, func() error {
		if err := l.exec("INSERT INTO meta(key, value) VALUES(?1, ?2) ON CONFLICT DO UPDATE SET value = max(CAST(value AS INTEGER), ?2)", metaPruned, prunedTo); err != nil {
			return fmt.Errorf("note what is deleted: %w", err)
		}
		for _, n := range changes {
			if err := l.exec("DELETE FROM changes WHERE n = ?", n); err != nil {
				return fmt.Errorf("delete old changes: %w", err)
			}
		}
		for _, id := range tombstones {
			if err := l.exec("DELETE FROM told WHERE sink IN (SELECT sink FROM cursors) AND workload = ?", id); err != nil {
				return fmt.Errorf("delete what was told of old tombstones: %w", err)
			}
			if err := l.exec("DELETE FROM workloads WHERE id = ?", id); err != nil {
				return fmt.Errorf("delete old tombstones: %w", err)
			}
		}
		return failpoint.Here("ledger/prune")
	})
}

// oldChanges looks through the next chunk of changes and returns those to be
// deleted, and up to where it need not look again for a while.
func (l *Ledger) oldChanges(now time.Time, pressed bool, holders string) (old []int64, passed int64, more bool, err error) {
	before := now.Add(-l.opts.Keep).UnixNano()
	if pressed {
		before = math.MaxInt64
	}
	passed = l.passed(now, pressed)
	// Ages are looked at within a chunk: a clock that was ahead for a while
	// does not hold up what came later.
	type row struct {
		n    int64
		held bool
	}
	var rows []row
	upTo := passed
	err = sqlitex.Execute(l.writer,
		`SELECT c.n, c.recorded, EXISTS (SELECT 1 FROM aside a WHERE a.n = c.n AND a.what = 'parked' AND a.sink IN (SELECT value FROM json_each(?)))
		 FROM changes c WHERE c.n > ? AND c.n <= ? ORDER BY c.n LIMIT ?`,
		&sqlitex.ExecOptions{Args: []any{holders, passed, l.acknowledged(), retainChunk}, ResultFunc: func(s *sqlite.Stmt) error {
			r := row{s.ColumnInt64(0), s.ColumnBool(2)}
			if rows = append(rows, r); s.ColumnInt64(1) < before {
				upTo = r.n
			}
			return nil
		}})
	if err != nil {
		return nil, 0, false, err
	}
	for _, r := range rows {
		if r.n <= upTo && !r.held {
			old = append(old, r.n)
		}
	}
	return old, upTo, len(rows) == retainChunk && rows[len(rows)-1].n == upTo, nil
}

// passed is up to where changes need not be looked at now: what is left there
// is parked.
func (l *Ledger) passed(now time.Time, pressed bool) int64 {
	r, every := &l.retains, keptEvery
	if pressed {
		every = keptPressed
	}
	l.mu.Lock()
	sweep := l.sweep
	l.sweep = false
	l.mu.Unlock()
	if sweep || now.Sub(r.sweep) >= every {
		r.sweep, r.passed = now, 0
	}
	if sweep {
		r.leftovers = time.Time{}
	}
	return r.passed
}

// tightBytes is the size from which a sink may have to give way.
func (l *Ledger) tightBytes() int64 { return l.opts.MaxBytes / 20 * 19 }

// worthTruncating reports whether the WAL is to be made short: what it takes
// is not to press anyone.
func (l *Ledger) worthTruncating(size int64, now time.Time) bool {
	every := truncateEvery
	if size >= l.opts.MaxBytes {
		every = retainEvery
	}
	return size >= l.tightBytes() && now.Sub(l.retains.truncated) >= every
}

// countKept counts what each sink has put aside, and its dead letters.
func (l *Ledger) countKept(now time.Time) error {
	if now.Sub(l.retains.counted) < 2*retainEvery {
		return nil
	}
	l.retains.counted = now
	count := func(table string) (map[string]int64, error) {
		out := map[string]int64{}
		err := sqlitex.Execute(l.writer, "SELECT sink, count(*) FROM "+table+" INDEXED BY "+table+"_sinks GROUP BY sink", &sqlitex.ExecOptions{
			ResultFunc: func(s *sqlite.Stmt) error { out[s.ColumnText(0)] = s.ColumnInt64(1); return nil },
		})
		if err != nil {
			return nil, fmt.Errorf("count %s: %w", table, err)
		}
		return out, nil
	}
	aside, err := count("aside")
	if err != nil {
		return err
	}
	letters, err := count("dead_letters")
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.aside, l.letters = aside, letters
	return nil
}

// behind is how many changes of the log a sink holds. The lock must be held.
func (l *Ledger) behind(sink string) int64 {
	acked, ok := l.acked[sink]
	if !ok {
		return 0
	}
	return l.head - acked
}

// held is how much a sink holds that gives way when it is detached, about: what
// it has not settled, and what is put aside for it. The lock must be held.
func (l *Ledger) held(sink string) int64 {
	if _, ok := l.acked[sink]; !ok {
		return 0
	}
	return l.behind(sink) + l.aside[sink]
}

// Pressed reports whether the ledger is nearly full, with nothing left to
// delete, and the sink is among those that hold the most: what it has not
// settled, and what is put aside for it.
func (l *Ledger) Pressed(sink string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.tight {
		return false
	}
	most := int64(0)
	for other := range l.acked {
		most = max(most, l.held(other))
	}
	mine := l.held(sink)
	return mine > 0 && 10*mine >= 9*most
}

// oldTombstones looks through the next chunk of tombstones and returns those
// to be deleted. Most may have to stay for long: each is looked at once a
// minute.
func (l *Ledger) oldTombstones(now time.Time, holders string) (ids []int64, more bool, err error) {
	r := &l.retains
	if now.Before(r.tombstones) {
		return nil, false, nil
	}
	seen := 0
	err = sqlitex.Execute(l.writer,
		`SELECT w.gone, w.id, NOT EXISTS (SELECT 1 FROM changes WHERE n = w.last)
		 AND NOT EXISTS (SELECT 1 FROM aside a WHERE a.sink IN (SELECT value FROM json_each(?)) AND a.what = 'parked' AND a.lane = w.namespace || '/' || w.kind || '/' || w.name)
		 AND (w.state != ? AND w.removed != 0 OR w.gone < ?) AND (w.removed = 0 OR s.id IS NULL OR s.lost = '' AND NOT `+removedAfterVersion+`)
		 FROM workloads w LEFT JOIN streams s ON s.name = w.stream
		 WHERE w.gone != 0 AND w.gone < ? AND (w.gone, w.id) > (?, ?) ORDER BY w.gone, w.id LIMIT ?`,
		&sqlitex.ExecOptions{
			Args: []any{holders, string(statesync.Untracked), now.Add(-max(l.opts.Keep, untrackedKeep)).UnixNano(), now.Add(-max(l.opts.Keep, leastKeep)).UnixNano(), r.gone, r.id, retainChunk},
			ResultFunc: func(s *sqlite.Stmt) error {
				seen++
				r.gone, r.id = s.ColumnInt64(0), s.ColumnInt64(1)
				if s.ColumnBool(2) {
					ids = append(ids, r.id)
				}
				return nil
			},
		})
	if err != nil {
		return nil, false, err
	}
	if seen < retainChunk {
		r.gone, r.id, r.tombstones = 0, 0, now.Add(tombstonesEvery)
	}
	return ids, seen == retainChunk, nil
}
