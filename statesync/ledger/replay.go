package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync/ledger/replay"
)

// A ledger replays: it implements [replay.Log], whose rules it keeps. A replayed
// entry holds a copy of its change, so retention need not wait for it.

const (
	replayRows    = 2000 // changes looked at in one read
	replayLetters = 500
)

// asideReplayed are rows of the table aside from changes c: the numbers are in
// the second argument, a JSON array. One that the sink has parked comes anyway.
const asideReplayed = `INSERT INTO aside(sink, lane, n, what, uid, cause, first, seq, previous, skipped, body)
	SELECT ?1, w.namespace || '/' || w.kind || '/' || w.name, c.n, '` + asideReplay + `', w.uid, '', c.seq, c.seq, c.seq - 1, '', c.body
	FROM changes c JOIN workloads w ON w.id = c.workload
	WHERE c.n IN (SELECT value FROM json_each(?2)) AND ` + notParked + ` ORDER BY c.n`

const notParked = "NOT EXISTS (SELECT 1 FROM aside a INDEXED BY aside_parked WHERE a.n = c.n AND a.sink = ?1 AND a.what = '" + asideParked + "')"

// asideLetters are such rows from dead letters, which the cause tells; also
// that one was an initial state.
const asideLetters = `INSERT INTO aside(sink, lane, n, what, uid, cause, first, seq, previous, skipped, body)
	SELECT sink, lane, n, '` + asideReplay + `', uid, iif(initial, '` + asideInitial + `', '` + asideLetter + `'), seq, seq, previous, skipped, body
	FROM dead_letters WHERE sink = ?1 AND id IN (SELECT value FROM json_each(?2)) ORDER BY id`

// A standing is what a replay must know of a sink. To read the whole cursor
// would count what is put aside, each time.
type standing struct {
	known    bool
	acked    int64
	detached string
}

func readStanding(c *sqlite.Conn, sink string) (out standing, err error) {
	err = sqlitex.Execute(c, "SELECT acked, detached FROM cursors WHERE sink = ?", &sqlitex.ExecOptions{
		Args:       []any{sink},
		ResultFunc: func(s *sqlite.Stmt) error { out = standing{true, s.ColumnInt64(0), s.ColumnText(1)}; return nil },
	})
	return out, err
}

// ReplayUpTo implements [replay.Log].
func (l *Ledger) ReplayUpTo(ctx context.Context, q *replay.Query) (upTo int64, err error) {
	var sink standing
	err = l.read(ctx, func(c *sqlite.Conn) (err error) {
		if sink, err = readStanding(c, q.Sink); err != nil || !q.Letters {
			upTo = sink.acked
			return err
		}
		return sqlitex.Execute(c, "SELECT max(id) FROM dead_letters WHERE sink = ?", &sqlitex.ExecOptions{
			Args:       []any{q.Sink},
			ResultFunc: func(s *sqlite.Stmt) error { upTo = s.ColumnInt64(0); return nil },
		})
	})
	if err != nil {
		return 0, fmt.Errorf("read where it stands: %w", err)
	}
	return upTo, l.mayReplay(q.Sink, sink)
}

// mayReplay refuses a sink that would not be given it.
func (l *Ledger) mayReplay(name string, sink standing) error {
	l.mu.Lock()
	left := len(l.ours) > 0 && !l.ours[name]
	l.mu.Unlock()
	switch {
	case !sink.known:
		return fmt.Errorf("%w: the ledger has no such sink", replay.ErrRefused)
	case left:
		return fmt.Errorf("%w: the sink is not configured", replay.ErrRefused)
	case sink.detached != "":
		return fmt.Errorf("%w: the sink is detached: attach it first, which tells it where every workload stands", replay.ErrRefused)
	}
	return nil
}

// FindReplay implements [replay.Log].
func (l *Ledger) FindReplay(ctx context.Context, q *replay.Query, after, upTo int64) (places []int64, looked int64, err error) {
	query, args, limit := replayOfLog(q, after, upTo)
	if q.Letters {
		query, args, limit = replayOfLetters(q, after, upTo)
	}
	err = l.read(ctx, func(c *sqlite.Conn) error {
		rows := 0
		places, looked = nil, upTo
		err := sqlitex.Execute(c, query, &sqlitex.ExecOptions{Args: args, ResultFunc: func(s *sqlite.Stmt) error {
			rows, looked = rows+1, s.ColumnInt64(0)
			if s.ColumnBool(1) {
				places = append(places, looked)
			}
			return nil
		}})
		if rows < limit {
			looked = upTo
		}
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("look for what to replay after %d: %w", after, err)
	}
	return places, looked, nil
}

// A selection is a condition and its arguments, which have numbers.
type selection struct {
	where []string
	args  []any
}

// and adds a condition on one more argument, at %d.
func (s *selection) and(where string, arg any) {
	s.args = append(s.args, arg)
	s.where = append(s.where, fmt.Sprintf(where, len(s.args)))
}

// replayOfLog selects each change of a part of the log, and whether it is
// wanted.
func replayOfLog(q *replay.Query, after, upTo int64) (query string, args []any, limit int) {
	s := selection{args: []any{q.Sink, after, upTo, replayRows}, where: []string{notParked}}
	if !q.Since.IsZero() {
		s.and("c.recorded >= ?%d", q.Since.UnixNano())
	}
	if !q.Until.IsZero() {
		s.and("c.recorded < ?%d", q.Until.UnixNano())
	}
	if q.UID != "" {
		s.and("w.uid = ?%d", q.UID)
	}
	if q.Workload != nil {
		s.and("w.namespace || '/' || w.kind || '/' || w.name = ?%d", q.Workload.String())
	}
	if q.State != "" {
		s.and("c.body ->> 'to' = ?%d", string(q.State))
	}
	return `SELECT c.n, iif(` + strings.Join(s.where, " AND ") + `, 1, 0) FROM changes c JOIN workloads w ON w.id = c.workload
		WHERE c.n > ?2 AND c.n <= ?3 ORDER BY c.n LIMIT ?4`, s.args, replayRows
}

// replayOfLetters selects dead letters that are wanted.
func replayOfLetters(q *replay.Query, after, upTo int64) (query string, args []any, limit int) {
	s := selection{args: []any{q.Sink, after, upTo, replayLetters}, where: []string{"sink = ?1", "id > ?2", "id <= ?3"}}
	if !q.Since.IsZero() {
		s.and("last >= ?%d", q.Since.UnixNano())
	}
	if !q.Until.IsZero() {
		s.and("last < ?%d", q.Until.UnixNano())
	}
	if q.UID != "" {
		s.and("uid = ?%d", q.UID)
	}
	if q.Workload != nil {
		s.and("lane = ?%d", q.Workload.String())
	}
	if q.State != "" {
		s.and("body ->> 'to' = ?%d", string(q.State))
	}
	if len(q.IDs) > 0 {
		s.and("id IN (SELECT value FROM json_each(?%d))", array(q.IDs))
	}
	return "SELECT id, 1 FROM dead_letters WHERE " + strings.Join(s.where, " AND ") + " ORDER BY id LIMIT ?4", s.args, replayLetters
}

// array is a list of numbers as JSON.
func array(ids []int64) string {
	b, err := json.Marshal(ids)
	if err != nil {
		panic("BUG: encode numbers: " + err.Error())
	}
	return string(b)
}

// Replay implements [replay.Log]. Dead letters go in the same transaction. It is
// refused while the ledger is nearly full.
func (l *Ledger) Replay(ctx context.Context, q *replay.Query, places []int64) (n int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var refused error
	err = l.alter(q.Sink, func() error {
		sink, err := readStanding(l.writer, q.Sink)
		if err != nil {
			return err
		}
		size, err := l.measure()
		if err != nil {
			return err
		}
		if refused = l.mayReplay(q.Sink, sink); refused == nil && size >= l.tightBytes() {
			refused = fmt.Errorf("%w: the ledger is nearly full: %d bytes, want less than %d: wait until the sinks have caught up, or raise ledger.max_bytes",
				replay.ErrRefused, size, l.tightBytes())
		}
		if refused == nil {
			n, err = l.putReplay(q, array(places))
		}
		return err
	}, func() {})
	if err == nil {
		err = refused
	}
	if err != nil {
		return 0, fmt.Errorf("put aside: %w", err)
	}
	return n, nil
}

// putReplay puts aside in the transaction that is open.
func (l *Ledger) putReplay(q *replay.Query, places string) (n int, err error) {
	insert := asideReplayed
	if q.Letters {
		insert = asideLetters
	}
	if err := l.exec(insert, q.Sink, places); err != nil {
		return 0, err
	}
	if n = l.writer.Changes(); n == 0 {
		return 0, nil // they have gone meanwhile
	}
	l.asideTop = max(l.asideTop, l.writer.LastInsertRowID())
	if err := failpoint.Here("ledger/replay"); err != nil || !q.Letters {
		return n, err
	}
	return n, l.exec("DELETE FROM dead_letters WHERE sink = ? AND id IN (SELECT value FROM json_each(?))", q.Sink, places)
}
