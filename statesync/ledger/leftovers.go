package ledger

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/statesync"
)

// What is put aside for a sink that holds nothing, because it is detached or
// not of this run, gives way before a sink that is delivered to has to. The
// rules:
//   - Only while the ledger is nearly full, with no change left to delete.
//   - Such a sink is detached first: so it comes back with a gap.
//   - What it is then told anew goes, and no more: the state of a workload that
//     lives, and what is put aside of the log above the lowest that is parked,
//     where the gap begins. So do replays of the log.
//   - Its own gaps stay, and dead letters that are being replayed: they are
//     nowhere else.

// leftoverRows are looked at in one transaction.
const leftoverRows = 4 * retainChunk

// A leftover is a row of the table aside.
type leftover struct {
	id, n, marked       int64
	sink, what, cause   string
	lives, goes, parked bool
}

// dropLeftovers looks through the next chunk of what is put aside, and deletes
// what gives way.
func (l *Ledger) dropLeftovers(now time.Time) (dropped int, more bool, err error) {
	r := &l.retains
	if now.Before(r.leftovers) {
		return 0, false, nil
	}
	rows, err := l.nextLeftovers(r.looked)
	if err != nil {
		return 0, false, fmt.Errorf("find what is put aside for nobody: %w", err)
	}
	var going []leftover
	for _, row := range rows {
		if row.goes {
			going = append(going, row)
		}
	}
	if len(going) > 0 {
		if err := l.deleteLeftovers(going, now); err != nil {
			return 0, false, fmt.Errorf("delete what is put aside for nobody: %w", err)
		}
	}
	if more = len(rows) == leftoverRows; more {
		r.looked = rows[len(rows)-1].id
	} else {
		r.looked, r.leftovers = 0, now.Add(keptEvery)
	}
	return len(going), more, nil
}

// nextLeftovers returns the next rows, and which of them go.
func (l *Ledger) nextLeftovers(after int64) (rows []leftover, err error) {
	err = sqlitex.Execute(l.writer,
		`SELECT a.id, a.n, coalesce(k.marked, 0), a.sink, a.what, a.cause, EXISTS (SELECT 1 FROM workloads w WHERE w.uid = a.uid AND `+lives+`)
		 FROM aside a LEFT JOIN cursors k ON k.sink = a.sink WHERE a.id > ? ORDER BY a.id LIMIT ?`,
		&sqlitex.ExecOptions{Args: []any{after, leftoverRows}, ResultFunc: func(s *sqlite.Stmt) error {
			rows = append(rows, leftover{
				id: s.ColumnInt64(0), n: s.ColumnInt64(1), marked: s.ColumnInt64(2),
				sink: s.ColumnText(3), what: s.ColumnText(4), cause: s.ColumnText(5), lives: s.ColumnBool(6),
			})
			return nil
		}})
	if err != nil {
		return nil, err
	}
	delivers, lowest := l.delivers(), map[string]int64{}
	for i := range rows {
		row := &rows[i]
		if delivers[row.sink] {
			continue
		}
		switch row.what {
		case asideInitial:
			row.goes = row.lives
		case asideReplay:
			row.goes = row.cause == ""
		case asideParked, asideSkipped:
			if _, known := lowest[row.sink]; !known {
				if lowest[row.sink], err = l.lowestParked(row.sink); err != nil {
					return nil, err
				}
			}
			row.goes, row.parked = row.n > lowest[row.sink], row.what == asideParked
		}
	}
	return rows, nil
}

// delivers are the sinks that hold changes, or have saved something that is not
// durable yet.
func (l *Ledger) delivers() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]bool{}
	for sink := range l.acked {
		out[sink] = true
	}
	for sink := range l.savings {
		out[sink] = true
	}
	return out
}

// lowestParked is beyond all numbers when there is none.
func (l *Ledger) lowestParked(sink string) (n int64, err error) {
	n = 1<<63 - 1
	err = sqlitex.Execute(l.writer, "SELECT n FROM aside INDEXED BY aside_sinks WHERE sink = ? AND ordinal > 0 AND what = 'parked' ORDER BY ordinal LIMIT 1", &sqlitex.ExecOptions{
		Args: []any{sink}, ResultFunc: func(s *sqlite.Stmt) error { n = s.ColumnInt64(0); return nil },
	})
	return n, err
}

// deleteLeftovers deletes rows, of sinks that it detaches. What was parked since
// the last mark is left out, as it is when a sink comes back.
func (l *Ledger) deleteLeftovers(rows []leftover, now time.Time) error {
	gone, skipped := map[string]int64{}, map[string]int64{}
	for _, row := range rows {
		gone[row.sink]++
		if row.parked && row.n > row.marked {
			skipped[row.sink]++
		}
	}
	var detached []string
	err := transaction(l.writer, func() error {
		for _, sink := range slices.Sorted(maps.Keys(gone)) {
			if err := l.exec("UPDATE cursors SET skipped = skipped + ? WHERE sink = ?", skipped[sink], sink); err != nil {
				return err
			}
			if err := l.exec("UPDATE cursors SET detached = ?, detached_at = ? WHERE sink = ? AND detached = ''", statesync.DetachedFull, now.UnixNano(), sink); err != nil {
				return err
			}
			if l.writer.Changes() > 0 {
				detached = append(detached, sink)
			}
		}
		for _, row := range rows {
			if err := l.exec("DELETE FROM aside WHERE id = ?", row.id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, sink := range detached {
		l.opts.Log.Warn("the ledger is nearly full: what is put aside for a sink to which nothing is delivered gives way, and the sink is detached", "sink", sink)
	}
	l.wrote(1024 * int64(len(rows)))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pruned["aside"] += int64(len(rows))
	l.tight = false // the next look at the size tells what is left
	return nil
}
