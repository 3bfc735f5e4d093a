package ledger

import (
	"fmt"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// fromFormat1 brings the tables of format 1 to those of format 2, which makes
// the others. Format 1 had no epoch but the first, and did not know streams.
const fromFormat1 = `
ALTER TABLE workloads ADD COLUMN stream     TEXT    NOT NULL DEFAULT '';
ALTER TABLE workloads ADD COLUMN epoch      INTEGER NOT NULL DEFAULT 1;
ALTER TABLE workloads ADD COLUMN started    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workloads ADD COLUMN suspension INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workloads ADD COLUMN removed    INTEGER NOT NULL DEFAULT 0;
`

// fromFormat2 brings the tables of format 2 to those of format 3, which makes
// the others. A sink of format 2 was given everything from its start on, in
// order, and nothing was left out.
const fromFormat2 = `
ALTER TABLE cursors ADD COLUMN position        TEXT    NOT NULL DEFAULT '';
ALTER TABLE cursors ADD COLUMN skipped         INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN marked_previous INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN marked          INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN marked_changes  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN marked_skipped  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN marked_waiting  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN detached        TEXT    NOT NULL DEFAULT '';
ALTER TABLE cursors ADD COLUMN detached_at     INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN gaps            INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN saves           INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN saved           INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN begun           INTEGER NOT NULL DEFAULT 0;
UPDATE cursors SET skipped = since, begun = since;
`

// fromFormat3 brings the tables of format 3 to those of format 4: it did not
// know since when a workload was what it is.
const fromFormat3 = `
ALTER TABLE workloads ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
`

// migrate makes the tables, or brings those of an earlier format to ours: all
// of it or nothing. A ledger of another format is left as it is.
func migrate(c *sqlite.Conn) error {
	return transaction(c, func() error {
		got, err := formatOf(c)
		if err != nil {
			return err
		}
		steps := ""
		switch got {
		case "":
			return fmt.Errorf("%w: it has no format", errDamaged)
		case fmt.Sprint(format):
			return makeTables(c)
		case "1":
			steps = fromFormat1 + fromFormat2 + fromFormat3
		case "2":
			steps = fromFormat2 + fromFormat3
		case "3":
			steps = fromFormat3
		default:
			return fmt.Errorf("ledger has format %s, want %d: it was written by another version of outrider", got, format)
		}
		if err := sqlitex.ExecuteScript(c, steps, nil); err != nil {
			return fmt.Errorf("migrate from format %s: %w", got, err)
		}
		if err := makeTables(c); err != nil {
			return err
		}
		return fillSince(c)
	})
}
