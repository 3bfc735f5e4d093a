package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/statesync"
)

// Every read is short: a reader that stays open pins the WAL, which then grows
// with all that is written.

const objectsPage = 500 // objects a read

// Versions are unsigned, and SQLite's integers are not: those of the upper half
// are the greater ones.
const removedAfterVersion = `CASE WHEN (w.removed < 0) = (s.version < 0) THEN w.removed > s.version ELSE w.removed < 0 END`

// Load implements [statesync.Log]. Its rows are the lives whose object exists
// and the tombstones that events may still come for: those that the resume
// point of their stream has not passed, and the untracked ones, which come back
// with the configuration. The epoch is 0 before the ledger is identified.
func (l *Ledger) Load(ctx context.Context) (*statesync.Memory, error) {
	m := &statesync.Memory{}
	err := l.read(ctx, func(c *sqlite.Conn) (err error) {
		*m = statesync.Memory{}
		m.Stale = l.renewal() // before the rest is read: so nothing goes unnoticed
		if err := sqlitex.Execute(c, "BEGIN", nil); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		defer func() {
			c.SetInterrupt(nil)
			if !c.AutocommitEnabled() {
				err = errors.Join(err, sqlitex.Execute(c, "ROLLBACK", nil))
			}
		}()
		if m.Epoch, err = readNumber(c, "SELECT value FROM meta WHERE key = 'epoch'"); err != nil {
			return fmt.Errorf("read epoch: %w", err)
		}
		if m.Streams, err = readStreams(c); err != nil {
			return fmt.Errorf("read streams: %w", err)
		}
		if m.Rows, err = readRows(c); err != nil {
			return fmt.Errorf("read workloads: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load ledger: %w", err)
	}
	return m, nil
}

// Objects implements [statesync.Log]. The objects come in the order of their
// UIDs, read a page at a time: what is written meanwhile may be among them.
func (l *Ledger) Objects(ctx context.Context, stream string, yield func(statesync.Object) error) error {
	for after := ""; ; {
		page, err := l.objects(ctx, stream, after)
		if err != nil {
			return fmt.Errorf("read objects of stream %s: %w", stream, err)
		}
		for _, o := range page {
			if err := yield(o); err != nil {
				return err
			}
		}
		if len(page) < objectsPage {
			return nil
		}
		after = page[len(page)-1].UID
	}
}

func (l *Ledger) objects(ctx context.Context, stream, after string) (out []statesync.Object, err error) {
	err = l.read(ctx, func(c *sqlite.Conn) error {
		out = nil
		return sqlitex.Execute(c,
			`SELECT uid, unread, body FROM objects
			 WHERE stream = (SELECT id FROM streams WHERE name = ?) AND uid > ? ORDER BY uid LIMIT ?`,
			&sqlitex.ExecOptions{Args: []any{stream, after, objectsPage}, ResultFunc: func(s *sqlite.Stmt) error {
				o := statesync.Object{Stream: stream, UID: s.ColumnText(0), Unread: s.ColumnBool(1), Body: make([]byte, s.ColumnLen(2))}
				s.ColumnBytes(2, o.Body)
				out = append(out, o)
				return nil
			}})
	})
	return out, err
}

// renewal returns the channel that the next renewed closes. What is handed
// over from now on rests on what is read now.
func (l *Ledger) renewal() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loaded = l.generation
	return l.stale
}

// renewed says that the ledger has begun anew: what was loaded no longer holds.
func (l *Ledger) renewed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.stale)
	l.stale = make(chan struct{})
}

func readStreams(c *sqlite.Conn) (out []statesync.Resume, err error) {
	err = sqlitex.Execute(c,
		"SELECT name, definition, version, at, lost FROM streams WHERE version != 0 OR lost != '' ORDER BY name",
		&sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			r := statesync.Resume{
				Stream: s.ColumnText(0), Definition: s.ColumnText(1),
				Version: uint64(s.ColumnInt64(2)), Lost: s.ColumnText(4),
			}
			if at := s.ColumnInt64(3); at != 0 {
				r.At = time.Unix(0, at).UTC()
			}
			out = append(out, r)
			return nil
		}})
	return out, err
}

func readRows(c *sqlite.Conn) (out []statesync.Row, err error) {
	err = readEach(c, `FROM workloads w LEFT JOIN streams s ON s.name = w.stream
		 WHERE w.gone = 0 OR w.state = ? OR w.stream != ''
		 AND (s.id IS NULL OR s.version = 0 OR s.lost != '' OR `+removedAfterVersion+`)
		 ORDER BY w.id`, string(statesync.Untracked), func(r statesync.Row) { out = append(out, r) })
	return out, err
}

// Recall returns the row of a workload that Load may have left out; without
// UID when there is none.
func (l *Ledger) Recall(ctx context.Context, uid string) (row statesync.Row, err error) {
	err = l.read(ctx, func(c *sqlite.Conn) error {
		return readEach(c, "FROM workloads w WHERE w.uid = ?", uid, func(r statesync.Row) { row = r })
	})
	if err != nil {
		return statesync.Row{}, fmt.Errorf("recall %s: %w", uid, err)
	}
	return row, nil
}

// readEach yields the rows of workloads that the rest of a query takes.
func readEach(c *sqlite.Conn, from, arg string, yield func(statesync.Row)) error {
	return sqlitex.Execute(c,
		`SELECT w.kind, w.namespace, w.name, w.uid, w.labels, w.stream, w.state, w.reason, w.epoch, w.seq, w.rv,
		 w.suspended, w.started, w.suspension, w.gone, w.removed `+from,
		&sqlitex.ExecOptions{Args: []any{arg}, ResultFunc: func(s *sqlite.Stmt) error {
			r := statesync.Row{
				Ref:    statesync.Ref{Kind: s.ColumnText(0), Namespace: s.ColumnText(1), Name: s.ColumnText(2), UID: s.ColumnText(3)},
				Stream: s.ColumnText(5), State: statesync.State(s.ColumnText(6)), Reason: s.ColumnText(7),
				Epoch: s.ColumnInt64(8), Seq: s.ColumnInt64(9), ResourceVersion: uint64(s.ColumnInt64(10)),
				Suspended: s.ColumnBool(11), Started: whole(s.ColumnInt64(12)), Suspension: whole(s.ColumnInt64(13)),
				Gone: s.ColumnInt64(14) != 0, Removed: uint64(s.ColumnInt64(15)),
			}
			if err := json.Unmarshal([]byte(s.ColumnText(4)), &r.Labels); err != nil {
				return fmt.Errorf("%w: labels of %s: %w", errDamaged, r.UID, err)
			}
			yield(r)
			return nil
		}})
}

// whole is the time of a number of seconds since 1970; zero for 0.
func whole(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}
