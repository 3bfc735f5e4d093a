//go:build linux

package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"zombiezen.com/go/sqlite"

	"github.com/outrider-agent/outrider/statesync"
)

// late appends entries from the i-th on and returns how many are done.
func late(t testing.TB, l *Ledger, from, to int64) *atomic.Int64 {
	t.Helper()
	done := new(atomic.Int64)
	done.Store(from - 1)
	for i := from; i <= to; i++ {
		e := crashEntry(i)
		e.Changes[0].Message = strings.Repeat("x", 2000)
		e.Done = func() {
			if !done.CompareAndSwap(i-1, i) {
				t.Errorf("entry %d is done after %d", i, done.Load())
			}
		}
		if err := l.Append(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
	return done
}

func failed(l *Ledger, code sqlite.ResultCode) func() bool {
	return func() bool {
		_, err := l.Failure()
		return sqlite.ErrCode(err).ToPrimary() == code
	}
}

// TestAFullDisk: the ledger waits, loses nothing, and goes on by itself; its
// cursors too.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	needRoot(t, "to mount a tmpfs")
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		skipOrFail(t, fmt.Sprintf("mount a tmpfs: %v", err))
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	l := open(t, dir)
	if _, err := l.Cursor("s"); err != nil {
		t.Fatal(err)
	}
	start(t, l)
	record(t, l, crashEntry(1))
	const entries = 600
	done := late(t, l, 2, entries)
	until(t, "the disk is full", failed(l, sqlite.ResultFull))
	_, err := l.Failure()
	t.Logf("a full disk after %d entries: %v", done.Load(), err)
	if done.Load() == entries {
		t.Error("all entries are done on a full disk")
	}
	wholeEntries(t, l, done.Load())
	l.Save(statesync.Progress{Sink: "s", Acked: 2})
	if at, report := l.Rescued(); !at.IsZero() {
		t.Errorf("rescued: %s", report)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	until(t, "all is done", func() bool { _, err := l.Failure(); return err == nil && done.Load() == entries })
	wholeEntries(t, l, entries)
	until(t, "the cursor is durable", func() bool {
		return visit(t, dir).number("SELECT acked FROM cursors WHERE sink = 's'") == 2
	})
}

// TestARescueOnAFullDisk: the damaged ledger stays, and is rescued once there
// is room.
func TestARescueOnAFullDisk(t *testing.T) {
	t.Parallel()
	needRoot(t, "to mount a tmpfs")
	w := fill(t, 200)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", (int64(w.pages)+20)*pageBytes)); err != nil {
		skipOrFail(t, fmt.Sprintf("mount a tmpfs: %v", err))
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	if err := copyWreck(w.dir, dir); err != nil {
		t.Fatal(err)
	}
	spoil(t, dir, 0, make([]byte, 100))
	if l, err := Open(options(t, dir)); err == nil || sqlite.ErrCode(err).ToPrimary() != sqlite.ResultFull {
		t.Errorf("open: %v, %v, want a full disk", l, err)
	}
	if kept, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(kept) != 1 {
		t.Errorf("files %v, %v, want the damaged ledger alone", kept, err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=32m"); err != nil {
		t.Fatal(err)
	}
	l := openWreck(t, dir)
	w.survived(t, l, func(uint32) bool { return false })
}

// skipOrFail skips a test that this machine cannot run; in CI it must.
func skipOrFail(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func needRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		skipOrFail(t, "run the tests as root "+why)
	}
}
