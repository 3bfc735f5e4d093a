package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/outrider-agent/outrider/statesync"
)

// A Row is one change with its place in the ledger.
type Row struct {
	Number   int64     `json:"number"`
	Previous int64     `json:"previous_number"` // of this UID's change before; 0: none
	Recorded time.Time `json:"recorded"`
	Apart    []string  `json:"apart,omitempty"` // sinks that were not given it: they have put it aside, or left it out
	statesync.Change
}

// Query says which changes are listed.
type Query struct {
	Last     int            // the last so many of them; 0: all
	After    int64          // only numbers above
	Workload *statesync.Key // only this workload's, of all lives
	UID      string         // only this life's
	Gaps     bool           // only gaps
}

// ErrNoWorkload is returned by Ls when the ledger has never heard of the
// workload or stream that the query names.
var ErrNoWorkload = errors.New("no such workload in the ledger")

// Ls calls yield for each change that the query selects, in order of their
// numbers, up to the head at the start. An error of yield ends it.
func (f *File) Ls(ctx context.Context, q Query, yield func(Row) error) error {
	var b bounds
	var ids []int64
	err := f.page(ctx, func() (err error) {
		if b, err = f.bounds(); err != nil {
			return err
		}
		ids, err = f.selected(q)
		return err
	})
	if err != nil {
		return fmt.Errorf("list changes: %w", err)
	}
	if len(ids) == 0 && (q.UID != "" || q.Workload != nil) {
		return fmt.Errorf("list changes: %w", ErrNoWorkload)
	}
	if len(ids) == 0 && q.Gaps {
		return nil
	}
	from := max(q.After, b.first-1)
	if q.Last > 0 {
		err = f.lastRows(ctx, q, ids, from, b.head, yield)
	} else {
		err = f.rows(ctx, ids, from, b.head, yield)
	}
	if err != nil {
		return fmt.Errorf("list changes: %w", err)
	}
	return nil
}

// selected returns the ids of the workloads that a query selects; none when
// it selects all.
func (f *File) selected(q Query) (ids []int64, err error) {
	var where []string
	var args []any
	if q.UID != "" {
		where, args = append(where, "uid = ?"), append(args, q.UID)
	}
	if w := q.Workload; w != nil {
		where, args = append(where, "kind = ? AND namespace = ? AND name = ?"), append(args, w.Kind, w.Namespace, w.Name)
	}
	if q.Gaps {
		where, args = append(where, "kind = ?"), append(args, statesync.StreamKind)
	}
	if len(where) == 0 {
		return nil, nil
	}
	err = f.each("SELECT id FROM workloads WHERE "+strings.Join(where, " AND "), args, func(s *sqlite.Stmt) error {
		ids = append(ids, s.ColumnInt64(0))
		return nil
	})
	return ids, err
}

// step is how many numbers one transaction looks at: more when most of them
// are not wanted.
func step(ids []int64) int64 {
	if len(ids) > 0 {
		return 20 * pageRows
	}
	return pageRows
}

// rows yields the changes of some workloads, none meaning all, with numbers
// above from and up to to.
func (f *File) rows(ctx context.Context, ids []int64, from, to int64, yield func(Row) error) error {
	for ; from < to; from += step(ids) {
		rows, err := f.rowsBetween(ctx, ids, from, min(to, from+step(ids)))
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := yield(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// lastRows looks for the last changes from the end.
func (f *File) lastRows(ctx context.Context, q Query, ids []int64, from, to int64, yield func(Row) error) error {
	var found []Row // newest first
	for ; to > from && len(found) < q.Last; to -= step(ids) {
		rows, err := f.rowsBetween(ctx, ids, max(from, to-step(ids)), to)
		if err != nil {
			return err
		}
		slices.Reverse(rows)
		found = append(found, rows...)
	}
	for _, r := range slices.Backward(found[:min(len(found), q.Last)]) {
		if err := yield(r); err != nil {
			return err
		}
	}
	return nil
}

func (f *File) rowsBetween(ctx context.Context, ids []int64, from, to int64) (out []Row, err error) {
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	err = f.page(ctx, func() error {
		return f.each("SELECT n, previous, recorded, body, "+apart+` FROM changes c WHERE n > ? AND n <= ?
			AND (? = 'null' OR workload IN (SELECT value FROM json_each(?))) ORDER BY n`, []any{from, to, string(list), string(list)},
			func(s *sqlite.Stmt) error {
				r := Row{}
				if err := json.Unmarshal([]byte(s.ColumnText(3)), &r.Change); err != nil {
					return fmt.Errorf("change %d: %w", s.ColumnInt64(0), err)
				}
				r.Number, r.Previous, r.Recorded = s.ColumnInt64(0), s.ColumnInt64(1), nanos(s.ColumnInt64(2))
				if err := json.Unmarshal([]byte(s.ColumnText(4)), &r.Apart); err != nil {
					return fmt.Errorf("sinks apart of change %d: %w", r.Number, err)
				}
				out = append(out, r)
				return nil
			})
	})
	return out, err
}

// apart selects the sinks that were not given a change, and not yet told so, as
// a JSON array.
const apart = `(SELECT json_group_array(k.sink) FROM cursors k WHERE
	EXISTS (SELECT 1 FROM aside a WHERE a.n = c.n AND a.what = 'parked' AND a.sink = k.sink)
	OR EXISTS (SELECT 1 FROM told t, json_each(t.skipped) e WHERE t.sink = k.sink AND t.workload = c.workload
		AND c.seq BETWEEN e.value ->> 'from' AND e.value ->> 'to')
	OR EXISTS (SELECT 1 FROM workloads w JOIN aside a ON a.sink = k.sink AND a.lane = w.namespace || '/' || w.kind || '/' || w.name
		WHERE w.id = c.workload AND a.what = 'skipped' AND a.uid = w.uid AND c.seq BETWEEN a.first AND a.seq))`
