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
//   - cursors holds where each sink stands.
//   - aside holds what a sink is to be given, or told, apart from the log: by
//     places that are never used twice. A parked entry is a change that stays in
//     the log for it; the others have a body of their own, or need none.
//   - told holds what a sink was given of a workload, where that is not simply
//     the change before.
//   - dead_letters holds what a sink has refused, whole.
//   - losses holds numbers of changes that a damaged file has cost.
//   - meta holds the format, the cluster and its epoch.
//
// Times are nanoseconds since 1970, 0 for none; but started, suspension and
// since, which the cluster tells, are seconds.
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
	removed    INTEGER NOT NULL,
	since      INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS tombstones ON workloads(gone) WHERE gone != 0;
CREATE INDEX IF NOT EXISTS living ON workloads(id) WHERE gone = 0;
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
	sink            TEXT PRIMARY KEY,
	since           INTEGER NOT NULL,
	acked           INTEGER NOT NULL,
	position        TEXT    NOT NULL DEFAULT '',
	skipped         INTEGER NOT NULL DEFAULT 0,
	marked_previous INTEGER NOT NULL DEFAULT 0,
	marked          INTEGER NOT NULL DEFAULT 0,
	marked_changes  INTEGER NOT NULL DEFAULT 0,
	marked_skipped  INTEGER NOT NULL DEFAULT 0,
	marked_waiting  INTEGER NOT NULL DEFAULT 0,
	detached        TEXT    NOT NULL DEFAULT '',
	detached_at     INTEGER NOT NULL DEFAULT 0,
	gaps            INTEGER NOT NULL DEFAULT 0,
	saves           INTEGER NOT NULL DEFAULT 0,
	saved           INTEGER NOT NULL DEFAULT 0,
	begun           INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS aside (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	sink     TEXT    NOT NULL,
	lane     TEXT    NOT NULL,
	n        INTEGER NOT NULL,
	what     TEXT    NOT NULL,
	uid      TEXT    NOT NULL,
	cause    TEXT    NOT NULL,
	first    INTEGER NOT NULL,
	seq      INTEGER NOT NULL,
	previous INTEGER NOT NULL,
	skipped  TEXT    NOT NULL,
	body     TEXT    NOT NULL,
	ordinal  INTEGER GENERATED ALWAYS AS (iif(what IN ('parked', 'skipped'), n, 0)) VIRTUAL
);
CREATE INDEX IF NOT EXISTS aside_sinks ON aside(sink, ordinal, id, lane);
CREATE INDEX IF NOT EXISTS aside_lanes ON aside(sink, lane, ordinal);
CREATE INDEX IF NOT EXISTS aside_fresh ON aside(sink) WHERE what NOT IN ('parked', 'skipped');
CREATE INDEX IF NOT EXISTS aside_parked ON aside(n, sink) WHERE what = 'parked';
CREATE TABLE IF NOT EXISTS told (
	sink     TEXT    NOT NULL,
	workload INTEGER NOT NULL,
	seq      INTEGER NOT NULL,
	skipped  TEXT    NOT NULL,
	PRIMARY KEY (sink, workload)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	sink     TEXT    NOT NULL,
	n        INTEGER NOT NULL,
	uid      TEXT    NOT NULL,
	lane     TEXT    NOT NULL,
	seq      INTEGER NOT NULL,
	body     TEXT    NOT NULL,
	previous INTEGER NOT NULL,
	skipped  TEXT    NOT NULL,
	initial  INTEGER NOT NULL,
	tries    INTEGER NOT NULL,
	first    INTEGER NOT NULL,
	last     INTEGER NOT NULL,
	error    TEXT    NOT NULL
);
CREATE INDEX IF NOT EXISTS dead_letters_sinks ON dead_letters(sink);
CREATE TABLE IF NOT EXISTS losses (
	first INTEGER NOT NULL,
	last  INTEGER NOT NULL,
	at    INTEGER NOT NULL,
	cause TEXT NOT NULL
);
`

// format is the version of the schema. A ledger of a later format is refused.
const format = 4

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
