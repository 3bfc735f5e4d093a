package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// verify runs `outrider ledger verify` and wants nothing found.
func verify(t *testing.T, args ...string) {
	t.Helper()
	if err := verified(args...); err != nil {
		t.Error(err)
	}
}

func verified(args ...string) error {
	out, err := exec.Command(env.outrider, append([]string{"ledger", "verify"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ledger verify %v: %w\n%s", args, err, out)
	}
	return nil
}

// copyLedger copies the ledger in dir at random moments until stop is called,
// whatever the agent does at that moment, and wants every copy to hold. There is one at least.
func copyLedger(t *testing.T, dir string) (stop func()) {
	t.Helper()
	from, to := filepath.Join(dir, "outrider-data", "ledger.db"), t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	copies := 0
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				if copies > 0 { // a run too quick for one gets it now
					return
				}
			case <-time.After(200*time.Millisecond + rand.N(1800*time.Millisecond)):
			}
			file := filepath.Join(to, fmt.Sprintf("copy-%d.db", copies))
			if err := copyTo(from, file); err != nil {
				t.Errorf("copy the ledger: %v", err)
				return
			}
			copies++
			if err := verified(file); err != nil {
				t.Errorf("copy %d: %v", copies, err)
				return // the next ones would say the same
			}
			if err := os.Remove(file); err != nil {
				t.Error(err)
			}
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		t.Logf("%d copies of the ledger were made and verified", copies)
	})
	t.Cleanup(stop)
	return stop
}

// copyTo copies a ledger that may be in use. The connection only reads: the
// last one to close a database that it may write cleans up behind an agent
// that was killed, which is the next agent's to do.
func copyTo(from, to string) (err error) {
	c, err := sqlite.OpenConn(from, sqlite.OpenReadOnly)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.SetBusyTimeout(10 * time.Second)
	return sqlitex.ExecuteTransient(c, "VACUUM INTO ?", &sqlitex.ExecOptions{Args: []any{to}})
}
