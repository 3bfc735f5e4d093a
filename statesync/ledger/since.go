package ledger

import (
	"encoding/json"
	"fmt"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/statesync"
)

// fillSince finds since when workloads are what they are, of those that are
// there and of which it is not known: as far as the changes are kept.
func fillSince(c *sqlite.Conn) error {
	type row struct{ id, last int64 }
	var rows []row
	err := sqlitex.Execute(c, "SELECT id, last FROM workloads WHERE gone = 0 AND since = 0 AND kind != ?", &sqlitex.ExecOptions{
		Args: []any{statesync.StreamKind},
		ResultFunc: func(s *sqlite.Stmt) error {
			rows = append(rows, row{s.ColumnInt64(0), s.ColumnInt64(1)})
			return nil
		},
	})
	for i := 0; i < len(rows) && err == nil; i++ {
		var since int64
		if since, err = sinceOf(c, rows[i].last); err != nil || since == 0 {
			continue
		}
		err = sqlitex.Execute(c, "UPDATE workloads SET since = ? WHERE id = ?", &sqlitex.ExecOptions{Args: []any{since, rows[i].id}})
	}
	if err != nil {
		return fmt.Errorf("find since when workloads are what they are: %w", err)
	}
	return nil
}

// sinceOf is when the last change of state of a workload was whose last change
// has number n; 0: not known. What cannot be read is for others to find.
func sinceOf(c *sqlite.Conn, n int64) (since int64, err error) {
	for n > 0 {
		next := int64(0)
		err := sqlitex.Execute(c, "SELECT previous, body FROM changes WHERE n = ?", &sqlitex.ExecOptions{
			Args: []any{n},
			ResultFunc: func(s *sqlite.Stmt) error {
				var told statesync.Change
				switch read := json.Unmarshal([]byte(s.ColumnText(1)), &told) == nil; {
				case !read:
				case moves(&told):
					since = seconds(told.Occurred)
				case s.ColumnInt64(0) < n: // always, but for a damaged file
					next = s.ColumnInt64(0)
				}
				return nil
			},
		})
		if err != nil {
			return 0, err
		}
		n = next
	}
	return since, nil
}
