package ledger

import (
	"errors"
	"fmt"
	"os"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// The tables:
//   - changes holds one row a change. Numbers come from AUTOINCREMENT: a plain
//     rowid is used again once retention has emptied the table, and cursors
//     would then skip for ever.
//   - workloads holds what is known of each life of a workload, written in the
//     transaction of its changes.
//   - cursors holds how far each sink has acknowledged.
//   - meta holds the format, the cluster and its epoch.
const schema = `
CREATE TABLE IF NOT EXISTS meta (
	key   TEXT PRIMARY KEY,
	value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workloads (
	id        INTEGER PRIMARY KEY,
	uid       TEXT NOT NULL UNIQUE,
	kind      TEXT NOT NULL,
	namespace TEXT NOT NULL,
	name      TEXT NOT NULL,
	labels    TEXT NOT NULL,
	state     TEXT NOT NULL,
	reason    TEXT NOT NULL,
	seq       INTEGER NOT NULL,
	rv        INTEGER NOT NULL,
	suspended INTEGER NOT NULL,
	last      INTEGER NOT NULL,
	gone      INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS changes (
	n        INTEGER PRIMARY KEY AUTOINCREMENT,
	workload INTEGER NOT NULL,
	seq      INTEGER NOT NULL,
	previous INTEGER NOT NULL,
	recorded INTEGER NOT NULL,
	body     TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS cursors (
	sink  TEXT PRIMARY KEY,
	since INTEGER NOT NULL,
	acked INTEGER NOT NULL
) WITHOUT ROWID;
`

// format is the version of the schema. A ledger of a later format is refused.
const format = 1

// makeFile makes the database file, if there is none, readable by its owner
// alone: SQLite would let everyone read it. Its WAL takes the same mode.
//
// It must be called before the first connection only. Closing any descriptor
// of a file drops all the locks that this process holds on it (fcntl(2)), and
// then another process that closes the database takes itself for the last one
// and deletes the WAL under our feet.
func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make database: %w", err)
	}
	return f.Close()
}

// openConn opens the database file for reading and writing; every commit is
// durable before it returns.
func openConn(path string) (*sqlite.Conn, error) {
	c, err := sqlite.OpenConn(path, sqlite.OpenReadWrite|sqlite.OpenWAL)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	for _, pragma := range []string{"PRAGMA synchronous=FULL", "PRAGMA busy_timeout=1000", "PRAGMA wal_autocheckpoint=2000"} {
		if err := sqlitex.ExecuteTransient(c, pragma, nil); err != nil {
			return nil, closeAfter(c, fmt.Errorf("open %s: %s: %w", path, pragma, err))
		}
	}
	return c, nil
}

// migrate makes the tables. A ledger of another format is left as it is.
func migrate(c *sqlite.Conn) error {
	tables, err := readNumber(c, "SELECT count(*) FROM sqlite_master WHERE name = 'meta'")
	if err != nil {
		return fmt.Errorf("read format: %w", err)
	}
	if tables > 0 {
		got, ok, err := readMeta(c, "format")
		if err != nil {
			return err
		}
		if ok && got != fmt.Sprint(format) {
			return fmt.Errorf("ledger has format %s, want %d: it was written by another version of outrider", got, format)
		}
	}
	if err := sqlitex.ExecuteScript(c, schema, nil); err != nil {
		return fmt.Errorf("make tables: %w", err)
	}
	if err := sqlitex.Execute(c, "INSERT INTO meta(key, value) VALUES('format', ?) ON CONFLICT DO NOTHING",
		&sqlitex.ExecOptions{Args: []any{fmt.Sprint(format)}}); err != nil {
		return fmt.Errorf("write format: %w", err)
	}
	return nil
}

func readMeta(c *sqlite.Conn, key string) (value string, ok bool, err error) {
	err = sqlitex.Execute(c, "SELECT value FROM meta WHERE key = ?", &sqlitex.ExecOptions{
		Args:       []any{key},
		ResultFunc: func(s *sqlite.Stmt) error { value, ok = s.ColumnText(0), true; return nil },
	})
	if err != nil {
		return "", false, fmt.Errorf("read %s: %w", key, err)
	}
	return value, ok, nil
}

func readNumber(c *sqlite.Conn, query string) (n int64, err error) {
	err = sqlitex.Execute(c, query, &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error { n = s.ColumnInt64(0); return nil },
	})
	return n, err
}

// head is the number of the last change ever written, retained or not.
func head(c *sqlite.Conn) (int64, error) {
	n, err := readNumber(c, "SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
	if err != nil {
		return 0, fmt.Errorf("read head: %w", err)
	}
	return n, nil
}

func closeAfter(c *sqlite.Conn, cause error) error {
	if err := c.Close(); err != nil {
		return fmt.Errorf("%w (and close: %w)", cause, err)
	}
	return cause
}
