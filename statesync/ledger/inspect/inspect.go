// Package inspect reads a ledger for people: it sums it up, lists its changes, and recounts it.
//
// It never writes, and trusts no number that it can count itself. A ledger
// may be live, stopped, or a copy:
//   - Every page is a read transaction of its own. One that stayed open would
//     keep the WAL of a live ledger from shrinking, by 50 MB/s at worst.
//   - The file is opened through SQLite alone. Closing any other descriptor of
//     it drops all the locks that this process holds on it (fcntl(2)), and
//     this code also runs in the agent that writes the ledger.
package inspect

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// format is the version of the schema that this package reads.
const format = 4

// pageRows is how many rows are read in one transaction.
const pageRows = 500

// busyMillis is how long a reader waits for a writer that recovers the WAL.
const busyMillis = 2000

// File is an open ledger. It is not safe for use by several goroutines.
type File struct {
	path string
	conn *sqlite.Conn
	// quiet: it was opened in the belief that nobody writes to it, without
	// locks and without files beside it. Each page looks whether that holds.
	quiet bool
	had   besides
}

// besides are the files that SQLite keeps beside a database.
type besides struct{ wal, shm bool }

// Open opens a ledger for reading.
func Open(path string) (*File, error) {
	f, err := open(path, false)
	if err != nil {
		return nil, fmt.Errorf("open ledger %s: %w", path, err)
	}
	return f, nil
}

// open opens a ledger; ours is one that this process writes.
func open(path string, ours bool) (*File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(abs)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, errors.New("got no such file, want the path of a ledger")
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("got a directory or a device, want the file of a ledger, such as ledger.db")
	}
	f := &File{path: abs}
	if err := f.connect(info, ours); err != nil {
		return nil, err
	}
	if err := f.recognize(); err != nil {
		return nil, errors.Join(err, f.conn.Close())
	}
	return f, nil
}

// connect chooses how to open the file. Whoever has a database in WAL mode
// open has both the WAL and the -shm file beside it: where one is missing
// nobody writes, and SQLite need not make the other. In the process that writes,
// nothing but SQLite's usual way keeps its locks.
func (f *File) connect(info os.FileInfo, ours bool) error {
	walBytes := sizeOf(f.path + "-wal")
	f.had = besides{wal: walBytes >= 0, shm: sizeOf(f.path+"-shm") >= 0}
	if info.Size() == 0 && walBytes <= 0 {
		return errors.New("got an empty file, want a ledger")
	}
	query := url.Values{"mode": {"ro"}}
	switch {
	case ours:
	case f.had.wal && f.had.shm: // live, or it was until the process was killed
	case walBytes > 0: // a copy with its WAL
		f.quiet = true
		query.Set("vfs", "unix-none")
	default:
		f.quiet = true
		query.Set("immutable", "1")
	}
	uri := url.URL{Scheme: "file", Path: f.path, RawQuery: query.Encode()}
	c, err := sqlite.OpenConn(uri.String(), sqlite.OpenReadOnly|sqlite.OpenURI)
	if err != nil {
		return err
	}
	f.conn = c
	pragmas := []string{"PRAGMA busy_timeout=" + strconv.Itoa(busyMillis), "PRAGMA query_only=ON", "PRAGMA cell_size_check=ON"}
	if f.quiet && walBytes > 0 {
		// The index of the WAL then lives in memory, not in a -shm file.
		pragmas = append(pragmas, "PRAGMA locking_mode=EXCLUSIVE")
	}
	for _, p := range pragmas {
		if err := sqlitex.ExecuteTransient(c, p, nil); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", p, err), c.Close())
		}
	}
	return nil
}

// recognize wants a ledger of the format that this package knows.
func (f *File) recognize() error {
	tables, err := f.number("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('meta', 'changes', 'workloads', 'cursors')")
	switch {
	case sqlite.ErrCode(err).ToPrimary() == sqlite.ResultNotADB:
		return errors.New("got a file that is no SQLite database, want a ledger")
	case err != nil:
		return err
	case tables < 4:
		return errors.New("got a database without the tables of a ledger, want a ledger")
	}
	got, err := f.text("SELECT value FROM meta WHERE key = 'format'")
	if err != nil {
		return err
	}
	if got != strconv.Itoa(format) {
		return fmt.Errorf("got format %q, want %d: it was written by another version of outrider", got, format)
	}
	return nil
}

// Path is where the ledger is, absolute.
func (f *File) Path() string { return f.path }

// Close releases the file.
func (f *File) Close() error {
	if err := f.conn.Close(); err != nil {
		return fmt.Errorf("close ledger %s: %w", f.path, err)
	}
	return nil
}

// page runs read in one transaction, which ctx interrupts.
func (f *File) page(ctx context.Context, read func() error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.quiet {
		if now := (besides{sizeOf(f.path+"-wal") >= 0, sizeOf(f.path+"-shm") >= 0}); now != f.had {
			return fmt.Errorf("read ledger %s: an agent has opened it meanwhile: try again", f.path)
		}
	}
	f.conn.SetInterrupt(ctx.Done())
	defer f.conn.SetInterrupt(nil)
	defer sqlitex.Transaction(f.conn)(&err)
	return read()
}

// each calls row for every row of a query, within the page that is open.
func (f *File) each(query string, args []any, row func(s *sqlite.Stmt) error) error {
	return sqlitex.Execute(f.conn, query, &sqlitex.ExecOptions{Args: args, ResultFunc: row})
}

func (f *File) number(query string) (n int64, err error) {
	err = f.each(query, nil, func(s *sqlite.Stmt) error { n = s.ColumnInt64(0); return nil })
	return n, err
}

func (f *File) text(query string, args ...any) (out string, err error) {
	err = f.each(query, args, func(s *sqlite.Stmt) error { out = s.ColumnText(0); return nil })
	return out, err
}

// bounds are the numbers of the changes that are kept.
type bounds struct {
	first  int64 // lowest kept; above head when none is
	pruned int64 // up to here retention has deleted what nobody has put aside
	head   int64 // last ever written
}

// kept is how many changes there are at most.
func (f *File) kept(b bounds) (int64, error) {
	aside, err := f.number("SELECT count(*) FROM aside WHERE what = 'parked'")
	return b.head - max(b.first-1, b.pruned) + aside, err
}

func (f *File) bounds() (b bounds, err error) {
	if b.head, err = f.number("SELECT seq FROM sqlite_sequence WHERE name = 'changes'"); err != nil {
		return b, fmt.Errorf("read head: %w", err)
	}
	if b.pruned, err = f.number("SELECT value FROM meta WHERE key = 'pruned'"); err != nil {
		return b, fmt.Errorf("read what was deleted: %w", err)
	}
	b.first = b.head + 1
	err = f.each("SELECT n FROM changes ORDER BY n LIMIT 1", nil, func(s *sqlite.Stmt) error {
		b.first = s.ColumnInt64(0)
		return nil
	})
	if err != nil {
		return b, fmt.Errorf("read lowest number: %w", err)
	}
	return b, nil
}

// sizeOf returns a file's size; below 0 when it is not there.
func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return -1
	}
	return info.Size()
}
