//go:build unix

package ledger

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// TestAnotherProcessThatComesAndGoes opens and closes the database from
// another process, as `sqlite3 ledger.db` does, after the ledger has had to
// open it again: the stranger must not take itself for the last to leave,
// which is when SQLite deletes the WAL.
func TestAnotherProcessThatComesAndGoes(t *testing.T) {
	const variable = "OUTRIDER_TEST_STRANGER"
	if path := os.Getenv(variable); path != "" {
		c, err := sqlite.OpenConn(path, sqlite.OpenReadWrite|sqlite.OpenWAL)
		if err == nil {
			err = errors.Join(sqlitex.ExecuteTransient(c, "BEGIN IMMEDIATE", nil), sqlitex.ExecuteTransient(c, "ROLLBACK", nil), c.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	start(t, l)
	record(t, l, entry("a", 1, 1))
	l.writing.Lock()
	_ = l.drop(errors.New("as after a failed commit"))
	l.writing.Unlock()
	record(t, l, entry("a", 2, 1))
	cmd := exec.Command(os.Args[0], "-test.run=^TestAnotherProcessThatComesAndGoes$", "-test.count=1")
	cmd.Env = append(os.Environ(), variable+"="+filepath.Join(dir, File))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, File+"-wal")); err != nil {
		t.Errorf("the WAL is gone: %v", err)
	}
	record(t, l, entry("a", 3, 1))
	if got := len(readAll(t, l)); got != 3 {
		t.Errorf("%d changes, want 3", got)
	}
}
