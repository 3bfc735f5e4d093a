package ledger

import (
	"errors"
	"fmt"
	"os"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// The tables:
//   - changes holds one row a change, and one a gap. Numbers come from
//     AUTOINCREMENT: a plain rowid is used again once retention has emptied
//     the table, and cursors would then skip for ever.
//   - workloads holds what is known of each life of a workload, and of each
//     stream as the workload whose changes are its gaps; written in the
//     transaction of its changes.
//   - streams holds how far each stream has come; objects, what it held then.
//   - cursors holds how far each sink has acknowledged.
//   - losses holds numbers of changes that a damaged file has cost.
//   - meta holds the format, the cluster and its epoch.
//
// Times are nanoseconds since 1970, 0 for none; but started and suspension,
// which the cluster tells, are seconds.
const schema = `
CREATE TABLE IF NOT EXISTS meta (
	key   TEXT PRIMARY KEY,
	value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workloads (
	id         INTEGER PRIMARY KEY,
	uid        TEXT NOT NULL UNIQUE,
	kind       TEXT NOT NULL,
	namespace  TEXT NOT NULL,
	name       TEXT NOT NULL,
	labels     TEXT NOT NULL,
	stream     TEXT NOT NULL,
	state      TEXT NOT NULL,
	reason     TEXT NOT NULL,
	epoch      INTEGER NOT NULL,
	seq        INTEGER NOT NULL,
	rv         INTEGER NOT NULL,
	suspended  INTEGER NOT NULL,
	started    INTEGER NOT NULL,
	suspension INTEGER NOT NULL,
	last       INTEGER NOT NULL,
	gone       INTEGER NOT NULL,
	removed    INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS tombstones ON workloads(gone) WHERE gone != 0;
CREATE TABLE IF NOT EXISTS changes (
	n        INTEGER PRIMARY KEY AUTOINCREMENT,
	workload INTEGER NOT NULL,
	seq      INTEGER NOT NULL,
	previous INTEGER NOT NULL,
	recorded INTEGER NOT NULL,
	body     TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS streams (
	id         INTEGER PRIMARY KEY,
	name       TEXT NOT NULL UNIQUE,
	definition TEXT NOT NULL,
	version    INTEGER NOT NULL,
	at         INTEGER NOT NULL,
	lost       TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS objects (
	stream INTEGER NOT NULL,
	uid    TEXT NOT NULL,
	unread INTEGER NOT NULL,
	body   BLOB NOT NULL,
	PRIMARY KEY (stream, uid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursors (
	sink  TEXT PRIMARY KEY,
	since INTEGER NOT NULL,
	acked INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS losses (
	first INTEGER NOT NULL,
	last  INTEGER NOT NULL,
	at    INTEGER NOT NULL,
	cause TEXT NOT NULL
);
`

// format is the version of the schema. A ledger of a later format is refused.
const format = 2

// makeLedger makes the ledger at path, if there is none: whole or not at all,
// so that one without a format is a damaged one.
func makeLedger(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	making := path + makingSuffix
	if err := makeFile(making); err != nil {
		return err
	}
	c, err := sqlite.OpenConn(making, sqlite.OpenReadWrite)
	if err != nil {
		return fmt.Errorf("make %s: %w", making, err)
	}
	if err := errors.Join(makeTables(c), c.Close(), syncFile(making)); err != nil {
		return fmt.Errorf("make %s: %w", making, err)
	}
	return rename(making, path)
}

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
// durable before it returns. None moves the WAL into the database: that is the
// checkpointer's.
func openConn(path string) (*sqlite.Conn, error) {
	c, err := sqlite.OpenConn(path, sqlite.OpenReadWrite|sqlite.OpenWAL)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	for _, pragma := range []string{"PRAGMA synchronous=FULL", "PRAGMA busy_timeout=1000", "PRAGMA wal_autocheckpoint=0"} {
		if err := sqlitex.ExecuteTransient(c, pragma, nil); err != nil {
			return nil, closeAfter(c, fmt.Errorf("open %s: %s: %w", path, pragma, err))
		}
	}
	return c, nil
}

// fromFormat1 brings the tables of format 1 to those of format 2, which makes
// the others. Format 1 had no epoch but the first, and did not know streams.
const fromFormat1 = `
ALTER TABLE workloads ADD COLUMN stream     TEXT    NOT NULL DEFAULT '';
ALTER TABLE workloads ADD COLUMN epoch      INTEGER NOT NULL DEFAULT 1;
ALTER TABLE workloads ADD COLUMN started    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workloads ADD COLUMN suspension INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workloads ADD COLUMN removed    INTEGER NOT NULL DEFAULT 0;
`

// migrate makes the tables, or brings those of an earlier format to ours: all
// of it or nothing. A ledger of another format is left as it is.
func migrate(c *sqlite.Conn) error {
	return transaction(c, func() error {
		got, err := formatOf(c)
		if err != nil {
			return err
		}
		switch got {
		case "":
			return fmt.Errorf("%w: it has no format", errDamaged)
		case fmt.Sprint(format):
		case "1":
			if err := sqlitex.ExecuteScript(c, fromFormat1, nil); err != nil {
				return fmt.Errorf("migrate from format 1: %w", err)
			}
		default:
			return fmt.Errorf("ledger has format %s, want %d: it was written by another version of outrider", got, format)
		}
		return makeTables(c)
	})
}

// makeTables makes the tables that are missing.
func makeTables(c *sqlite.Conn) error {
	if err := sqlitex.ExecuteScript(c, schema, nil); err != nil {
		return fmt.Errorf("make tables: %w", err)
	}
	if err := sqlitex.Execute(c, "INSERT INTO meta(key, value) VALUES('format', ?) ON CONFLICT DO UPDATE SET value = excluded.value",
		&sqlitex.ExecOptions{Args: []any{fmt.Sprint(format)}}); err != nil {
		return fmt.Errorf("write format: %w", err)
	}
	return nil
}

// formatOf is empty for a file without tables.
func formatOf(c *sqlite.Conn) (string, error) {
	tables, err := readNumber(c, "SELECT count(*) FROM sqlite_master WHERE name = 'meta'")
	if err != nil {
		return "", fmt.Errorf("read format: %w", err)
	}
	if tables == 0 {
		return "", nil
	}
	got, err := readMeta(c, "format")
	return got, err
}

// transaction runs f in a transaction, which is rolled back when f fails.
func transaction(c *sqlite.Conn, f func() error) (err error) {
	if err := sqlitex.Execute(c, "BEGIN IMMEDIATE", nil); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() {
		// SQLite has rolled back by itself after some errors.
		if err == nil || c.AutocommitEnabled() {
			return
		}
		if failed := sqlitex.Execute(c, "ROLLBACK", nil); failed != nil {
			err = fmt.Errorf("%w (and roll back: %w)", err, failed)
		}
	}()
	if err := f(); err != nil {
		return err
	}
	if err := sqlitex.Execute(c, "COMMIT", nil); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func readMeta(c *sqlite.Conn, key string) (value string, err error) {
	err = sqlitex.Execute(c, "SELECT value FROM meta WHERE key = ?", &sqlitex.ExecOptions{
		Args:       []any{key},
		ResultFunc: func(s *sqlite.Stmt) error { value = s.ColumnText(0); return nil },
	})
	if err != nil {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	return value, nil
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
