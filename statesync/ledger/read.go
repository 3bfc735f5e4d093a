package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/statesync"
)

// Read returns what a query selects, in order: of the log, changes with
// numbers above its After; or entries put aside for the sink, in the order of
// the log. PreviousSeq and Skipped are set in the latter alone, as they were when
// they were put aside.
//
// The numbers of the log have no holes above a sink's cursor, but for those
// that a damaged file has cost, which are missing. An entry put aside whose
// change is not there any more has the cause [CauseMissing].
func (l *Ledger) Read(ctx context.Context, q statesync.ReadQuery) (out []statesync.Offered, err error) {
	if q.Aside {
		return l.readAside(ctx, &q)
	}
	err = l.read(ctx, func(c *sqlite.Conn) error {
		out = nil
		head, _ := l.Head()
		err := sqlitex.Execute(c,
			`SELECT c.n, c.previous, c.recorded, c.body, w.last, t.seq, t.skipped
			 FROM changes c LEFT JOIN workloads w ON w.id = c.workload LEFT JOIN told t ON t.sink = ? AND t.workload = c.workload
			 WHERE c.n > ? ORDER BY c.n LIMIT ?`,
			&sqlitex.ExecOptions{Args: []any{q.Sink, q.After, q.Limit}, ResultFunc: func(s *sqlite.Stmt) error {
				o, err := scanLogged(s)
				out = append(out, o)
				return err
			}})
		if err != nil {
			return err
		}
		if len(out) == q.Limit {
			head = q.After
		}
		return l.missing(q.After, head, out)
	})
	if err != nil {
		return nil, fmt.Errorf("read ledger after %d: %w", q.After, err)
	}
	return out, nil
}

func scanLogged(s *sqlite.Stmt) (o statesync.Offered, err error) {
	if o.Change, err = decodeChange(s.ColumnText(3), s.ColumnInt64(0), s.ColumnInt64(1), s.ColumnInt64(2)); err != nil {
		return o, err
	}
	o.Replaced = !s.ColumnIsNull(4) && s.ColumnInt64(4) != o.Number
	if !s.ColumnIsNull(5) {
		o.Told, err = scanTold(s, 5, o.Workload.UID)
	}
	return o, err
}

// decodeChange makes a change of its row.
func decodeChange(body string, number, previous, recorded int64) (c statesync.Change, err error) {
	if err := json.Unmarshal([]byte(body), &c); err != nil {
		return c, fmt.Errorf("%w: change %d: %w", errDamaged, number, err)
	}
	if !utf8.ValidString(body) { // which the decoder mends in silence
		return c, fmt.Errorf("%w: change %d: it is not UTF-8", errDamaged, number)
	}
	c.Number, c.Previous = number, previous
	if recorded != 0 {
		c.Recorded = time.Unix(0, recorded)
	}
	return c, nil
}

func (l *Ledger) readAside(ctx context.Context, q *statesync.ReadQuery) (out []statesync.Offered, err error) {
	err = l.read(ctx, func(c *sqlite.Conn) error {
		out = nil
		for _, part := range asideParts(q) {
			query, args := asideQuery(q, q.Limit-len(out), part.where, part.args...)
			err := sqlitex.Execute(c, query, &sqlitex.ExecOptions{Args: args, ResultFunc: func(s *sqlite.Stmt) error {
				o, err := scanAside(s)
				out = append(out, o)
				return err
			}})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what was put aside for sink %s after %d: %w", q.Sink, q.After, err)
	}
	return out, nil
}

// An asidePart is a condition that one index answers, and its arguments.
type asidePart struct {
	where string
	args  []any
}

// asideParts are what to read, one after the other: first what has no number,
// by place alone. With both in one condition each read goes through all that
// has none.
func asideParts(q *statesync.ReadQuery) []asidePart {
	unnumbered := asidePart{"a.ordinal = 0 AND a.id > ?", []any{q.AfterAside}}
	switch {
	case q.After > 0:
		return []asidePart{{"(a.ordinal, a.id) > (?, ?)", []any{q.After, q.AfterAside}}}
	case q.Fresh: // which has no number
		return []asidePart{unnumbered}
	}
	return []asidePart{unnumbered, {"a.ordinal > 0", nil}}
}

// asideQuery selects entries of the sink.
func asideQuery(q *statesync.ReadQuery, limit int, where string, more ...any) (query string, args []any) {
	index, args := "aside_sinks", append([]any{q.Sink}, more...)
	if q.Fresh {
		index, where = "aside_fresh", where+" AND a.what NOT IN ('parked', 'skipped')"
	}
	if q.Lane != nil {
		index, where, args = "aside_lanes", where+" AND a.lane = ?", append(args, q.Lane.String())
	}
	query = "SELECT " + asideColumns + " FROM aside a INDEXED BY " + index + asideJoins + "WHERE a.sink = ? AND " + where + " ORDER BY a.ordinal, a.id LIMIT ?"
	return query, append(args, limit)
}
