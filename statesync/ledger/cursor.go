package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
)

// The rules of cursors:
//   - A sink is of this run from its first Cursor to its Release: then it holds
//     the changes that it has not settled, unless it is detached.
//   - A new sink begins at the head, with an initial state of each workload that
//     lives: both in one transaction, so that the log goes on where they end.
//   - One that held nothing for a time, and whose changes are gone, comes back as
//     a detached one does: with a gap. So does one that was not configured.
//   - What a sink has saved before is written first.

// cursorColumns are those that scanCursor takes, of the table cursors k.
const cursorColumns = `k.sink, k.since, k.acked, k.position, k.marked_previous, k.marked, k.marked_changes, k.marked_skipped, k.marked_waiting,
	k.skipped, k.detached, k.detached_at, k.gaps, k.saved,
	(SELECT count(*) FROM aside a WHERE a.sink = k.sink AND a.what != 'skipped'),
	(SELECT count(*) FROM dead_letters d WHERE d.sink = k.sink),
	coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'aside'), 0),
	(SELECT count(*) FROM aside a INDEXED BY aside_parked WHERE a.what = 'parked' AND a.n > k.marked AND a.sink = k.sink)`

// A cursorRow is a cursor with what only the ledger needs.
type cursorRow struct {
	statesync.Cursor
	gaps  int64     // of the sink itself, so far
	saved time.Time // when anything was last saved; zero: never
}

func scanCursor(s *sqlite.Stmt) cursorRow {
	return cursorRow{
		Cursor: statesync.Cursor{
			Sink: s.ColumnText(0), Since: s.ColumnInt64(1), Acked: s.ColumnInt64(2), Position: s.ColumnText(3),
			Marked: statesync.Mark{
				Previous: s.ColumnInt64(4), Number: s.ColumnInt64(5),
				Changes: s.ColumnInt64(6), Skipped: s.ColumnInt64(7), Waiting: s.ColumnInt64(8),
			},
			Skipped: s.ColumnInt64(9), Detached: s.ColumnText(10), DetachedAt: instant(s.ColumnInt64(11)),
			Aside: s.ColumnInt64(14), Letters: s.ColumnInt64(15), AsideTop: s.ColumnInt64(16), Waiting: s.ColumnInt64(17),
		},
		gaps: s.ColumnInt64(12), saved: instant(s.ColumnInt64(13)),
	}
}

// instant is the time of nanoseconds since 1970; zero for 0.
func instant(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds).UTC()
}

func readCursor(c *sqlite.Conn, sink string) (row cursorRow, known bool, err error) {
	err = sqlitex.Execute(c, "SELECT "+cursorColumns+" FROM cursors k WHERE k.sink = ?", &sqlitex.ExecOptions{
		Args:       []any{sink},
		ResultFunc: func(s *sqlite.Stmt) error { row, known = scanCursor(s), true; return nil },
	})
	if err != nil {
		return row, false, fmt.Errorf("read cursor: %w", err)
	}
	return row, known, nil
}

// Cursor returns where a sink stands, and has it hold from now on what it has
// not settled. A sink not seen before is remembered as starting at the
// ledger's head, with where each workload stands put aside for it; after a
// rescue, which may have cost its cursor, at the oldest change that is left.
// It may be called at any time.
func (l *Ledger) Cursor(sink string) (out statesync.Cursor, err error) {
	err = l.alter(sink, func() error {
		row, known, err := readCursor(l.writer, sink)
		if err != nil {
			return err
		}
		if known {
			known, err = l.canGoOn(&row)
		} else {
			err = l.begin(sink)
		}
		if err == nil && !known {
			row, _, err = readCursor(l.writer, sink)
		}
		out = row.Cursor
		return err
	}, func() { l.hold(&out) })
	if err != nil {
		return statesync.Cursor{}, fmt.Errorf("cursor of sink %s: %w", sink, err)
	}
	return out, nil
}

// canGoOn reports whether the log has what a sink was not given. One that comes
// back to this run after retention has deleted such changes begins again.
func (l *Ledger) canGoOn(k *cursorRow) (bool, error) {
	l.mu.Lock()
	ours, pruned := l.ours[k.Sink], l.prunedTo
	l.mu.Unlock()
	if ours || k.Detached != "" || k.Acked >= pruned {
		return true, nil
	}
	left := int64(0)
	err := sqlitex.Execute(l.writer, "SELECT count(*) FROM changes WHERE n > ? AND n <= ?", &sqlitex.ExecOptions{
		Args:       []any{k.Acked, pruned},
		ResultFunc: func(s *sqlite.Stmt) error { left = s.ColumnInt64(0); return nil },
	})
	if err != nil || left == pruned-k.Acked {
		return true, err
	}
	l.opts.Log.Warn("sink comes back after changes that it was not given have been deleted: it is told a gap",
		"sink", k.Sink, "cursor", k.Acked, "deleted", pruned-k.Acked-left)
	return false, l.attach(k, k.saved)
}

// Attach has a detached sink begin again at the head, with a gap and where
// each workload stands put aside for it, and returns from where. A sink that
// is not detached is left as it is, with an error. It may be asked again when
// its answer was lost.
func (l *Ledger) Attach(ctx context.Context, sink string) (out statesync.Cursor, err error) {
	if err := ctx.Err(); err != nil {
		return out, fmt.Errorf("attach sink %s: %w", sink, err)
	}
	err = l.alter(sink, func() error {
		row, known, err := readCursor(l.writer, sink)
		switch {
		case err != nil:
			return err
		case !known:
			return fmt.Errorf("%w: the ledger has no cursor of it", errSink)
		case row.Detached == "" && l.holds(sink):
			return fmt.Errorf("%w: it is not detached", errSink)
		case row.Detached == "": // by an attach whose answer was lost
			out = row.Cursor
			return nil
		}
		if err := l.attach(&row, row.DetachedAt); err != nil {
			return err
		}
		row, _, err = readCursor(l.writer, sink)
		out = row.Cursor
		return err
	}, func() {
		if l.ours[sink] {
			l.hold(&out)
		}
	})
	if err != nil {
		return statesync.Cursor{}, fmt.Errorf("attach sink %s: %w", sink, err)
	}
	return out, nil
}

// holds reports whether a sink holds what it has not settled, or is not of
// this run and has no dispatcher that could.
func (l *Ledger) holds(sink string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, holds := l.acked[sink]
	return holds || !l.ours[sink]
}

// Release ends a sink's hold on the changes that it has not settled: it is not
// of this run any more. Its cursor stays.
func (l *Ledger) Release(sink string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ours, sink)
	l.letGo(sink)
}

// Unplace drops where sinks stand in what they write, of all sinks but these:
// others may write there now.
func (l *Ledger) Unplace(but ...string) error {
	var names []string
	err := l.alter("", func() error {
		names = nil
		return sqlitex.Execute(l.writer, "SELECT sink FROM cursors", &sqlitex.ExecOptions{
			ResultFunc: func(s *sqlite.Stmt) error { names = append(names, s.ColumnText(0)); return nil },
		})
	}, func() {})
	for _, name := range names {
		if err == nil && !slices.Contains(but, name) {
			err = l.alter(name, func() error { return l.exec("UPDATE cursors SET position = '' WHERE sink = ?", name) }, func() {})
		}
	}
	if err != nil {
		return fmt.Errorf("drop places of sinks: %w", err)
	}
	return nil
}

// Forget removes a sink that is not of this run, with all that is kept of it.
func (l *Ledger) Forget(ctx context.Context, sink string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("forget sink %s: %w", sink, err)
	}
	err := l.alter(sink, func() error {
		l.mu.Lock()
		ours := l.ours[sink]
		l.mu.Unlock()
		if ours {
			return fmt.Errorf("%w: it is configured", errSink)
		}
		// A new sink of that name goes on with the seq of its gaps.
		err := l.exec(`INSERT INTO meta(key, value) SELECT '`+metaGaps+`' || sink, gaps FROM cursors WHERE sink = ? AND gaps > 0
			ON CONFLICT DO UPDATE SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))`, sink)
		if err != nil {
			return err
		}
		removed := 0 // a damaged file may have cost the cursor alone
		for _, table := range []string{"cursors", "aside", "told", "dead_letters"} {
			if err := l.exec("DELETE FROM "+table+" WHERE sink = ?", sink); err != nil {
				return err
			}
			removed += l.writer.Changes()
		}
		if removed == 0 {
			return fmt.Errorf("%w: the ledger has no cursor of it", errSink)
		}
		return nil
	}, func() {})
	if err != nil {
		return fmt.Errorf("forget sink %s: %w", sink, err)
	}
	return nil
}

// Sinks returns the cursors of all sinks, also of those that are not of this
// run, by name.
func (l *Ledger) Sinks(ctx context.Context) (out []statesync.Cursor, err error) {
	err = l.read(ctx, func(c *sqlite.Conn) error {
		out = nil
		return sqlitex.Execute(c, "SELECT "+cursorColumns+" FROM cursors k ORDER BY k.sink", &sqlitex.ExecOptions{
			ResultFunc: func(s *sqlite.Stmt) error { out = append(out, scanCursor(s).Cursor); return nil },
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read cursors: %w", err)
	}
	return out, nil
}

// alter runs f in a transaction of its own, after what the sink has saved;
// after runs once it is durable, with mu held. When f refuses, with errSink,
// nothing is done.
//
// A file that turns out to be damaged is rescued first: what asks for a cursor
// at the start is not to fail for a page that nobody has read before.
func (l *Ledger) alter(sink string, f func() error, after func()) error {
	tell, err := l.alterAndSettle(sink, f, after)
	if err != nil && l.mended() {
		tell, err = l.alterAndSettle(sink, f, after)
	}
	for _, saved := range tell {
		saved()
	}
	return err
}

// mended reports whether the file was found to be damaged and can be written
// again.
func (l *Ledger) mended() bool {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	broken := l.broken != nil
	l.mu.Unlock()
	if !broken || l.writer != nil {
		return false
	}
	_, err := l.reopen(nil)
	return err == nil
}

func (l *Ledger) alterAndSettle(sink string, f func() error, after func()) (tell []func(), err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.writer == nil {
		return nil, errNoWriter
	}
	l.mu.Lock()
	savings := l.take(sink)
	l.mu.Unlock()
	bytes, rows := int64(pageBytes), int64(0)
	err = transaction(l.writer, func() error {
		for _, s := range savings {
			bytes += s.cost()
			if err := l.writeSaving(s); err != nil {
				return fmt.Errorf("save: %w", err)
			}
		}
		before, err := readNumber(l.writer, "SELECT total_changes()")
		if err != nil {
			return err
		}
		if err := f(); err != nil {
			return err
		}
		if rows, err = readNumber(l.writer, "SELECT total_changes()"); err != nil {
			return err
		}
		rows -= before
		return failpoint.Here("ledger/alter")
	})
	if errors.Is(err, errSink) {
		return nil, err
	}
	if err == nil {
		err = failpoint.Here("ledger/altered")
	}
	if err != nil {
		return nil, l.drop(err)
	}
	l.wrote(bytes + pageBytes/4*rows)
	l.mu.Lock()
	defer l.mu.Unlock()
	tell = l.settleSavings(savings)
	after()
	if rows > 0 {
		l.wakeReaders()
	}
	return tell, nil
}

// hold has a sink of this run hold what it has not settled. The lock must be
// held.
func (l *Ledger) hold(c *statesync.Cursor) {
	l.ours[c.Sink] = true
	if c.Detached == "" {
		l.acked[c.Sink] = c.Acked
	}
}

// trustCursors ends the time in which a sink may have lost its cursor.
func (l *Ledger) trustCursors() {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	lost := l.cursorsLost
	l.mu.Unlock()
	if !lost || l.writer == nil {
		return
	}
	if err := l.exec("DELETE FROM meta WHERE key = ?", metaCursorsLost); err != nil {
		_ = l.drop(err) // it stands until the next start, which does no harm
		return
	}
	l.mu.Lock()
	l.cursorsLost = false
	l.mu.Unlock()
	l.wrote(pageBytes)
}
