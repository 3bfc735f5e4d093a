package inspect

import (
	"context"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"zombiezen.com/go/sqlite"

	"github.com/outrider-agent/outrider/statesync"
)

// aside looks at what is kept for single sinks. A parked entry may lack its
// change: nothing is kept for a sink that is detached or not configured.
func (v *verifier) aside(ctx context.Context) error {
	err := v.f.page(ctx, func() error {
		rows, err := v.f.number("SELECT (SELECT count(*) FROM aside) + (SELECT count(*) FROM told) + (SELECT count(*) FROM dead_letters)")
		if err != nil {
			return err
		}
		v.check(checkAside).Scope = fmt.Sprintf("%d rows", rows)
		return v.f.each(`
			SELECT a.sink, 'an entry put aside, ' || a.id, 'a cursor of the sink' FROM aside a WHERE a.sink NOT IN (SELECT sink FROM cursors)
			UNION ALL SELECT t.sink, 'what it was told of workload ' || t.workload, 'a cursor of the sink' FROM told t WHERE t.sink NOT IN (SELECT sink FROM cursors)
			UNION ALL SELECT t.sink, 'what it was told of workload ' || t.workload, 'a workload that is there' FROM told t WHERE t.workload NOT IN (SELECT id FROM workloads)
			UNION ALL SELECT a.sink, 'change ' || a.n || ' put aside', 'one up to the cursor at ' || k.acked FROM aside a JOIN cursors k ON k.sink = a.sink WHERE a.what = 'parked' AND a.n > k.acked
			UNION ALL SELECT a.sink, 'an entry put aside, ' || a.id || ', that is "' || a.what || '"', 'parked, skipped, initial, replay or gap' FROM aside a WHERE a.what NOT IN ('parked', 'skipped', 'initial', 'replay', 'gap')`,
			nil, func(s *sqlite.Stmt) error {
				v.found(checkAside, Finding{UID: s.ColumnText(0), Got: s.ColumnText(1), Want: s.ColumnText(2)})
				return nil
			})
	})
	if err != nil {
		return err
	}
	for _, query := range []string{ // the last is read at once: a workload has a row a sink
		"SELECT id, sink, 'an entry put aside, ' || id, skipped, what IN ('initial', 'replay', 'gap'), seq, body FROM aside WHERE id > ? ORDER BY id LIMIT ?",
		"SELECT id, sink, 'dead letter ' || id, skipped, 1, seq, body FROM dead_letters WHERE id > ? ORDER BY id LIMIT ?",
		"SELECT workload, sink, 'what it was told of workload ' || workload, skipped, 0, 0, '' FROM told WHERE workload > ? AND ? > 0 ORDER BY workload",
	} {
		if err := v.understood(ctx, query); err != nil {
			return err
		}
	}
	return nil
}

// understood reads rows, by their first column, as the agent will.
func (v *verifier) understood(ctx context.Context, query string) error {
	for after, read := int64(-1), pageRows; read == pageRows; {
		read = 0
		err := v.f.page(ctx, func() error {
			return v.f.each(query, []any{after, pageRows}, func(s *sqlite.Stmt) error {
				read++
				after = s.ColumnInt64(0)
				var skips []statesync.Skip
				if skipped := s.ColumnText(3); skipped != "" && json.Unmarshal([]byte(skipped), &skips) != nil {
					v.found(checkAside, Finding{UID: s.ColumnText(1), Got: s.ColumnText(2) + ", with " + clip(skipped), Want: "JSON of what was left out"})
				}
				if s.ColumnBool(4) && !tells(s.ColumnText(6), s.ColumnInt64(5)) {
					v.found(checkAside, Finding{UID: s.ColumnText(1), Got: s.ColumnText(2), Want: fmt.Sprintf("JSON of a change with seq %d", s.ColumnInt64(5))})
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// tells reports whether a body is a change of that seq.
func tells(body string, seq int64) bool {
	var c statesync.Change
	return utf8.ValidString(body) && json.Unmarshal([]byte(body), &c) == nil && c.Seq == seq && c.Workload.UID != ""
}
