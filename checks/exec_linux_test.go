package checks

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// A child that leads a session of its own is out of reach, and may hold the output
// open for ever.
func TestExecDoesNotWaitForADaemon(t *testing.T) {
	t.Parallel()
	flag := filepath.Join(t.TempDir(), "flag")
	e := shell(t, "setsid sh -c ': >"+flag+"; exec sleep 15' & while [ ! -e "+flag+" ]; do sleep 0.01; done; echo fine", "")
	begun := time.Now()
	got := e.Check(t.Context())
	if got.Status != verdict.Pass || got.Message != "fine" {
		t.Errorf("got %v %q, want pass fine", got.Status, got.Message)
	}
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("took %v: waited for the daemon", took)
	}
}

// Where the agent is process 1 orphans become its children. It must wait for them,
// or they stay as zombies. Not parallel: it is about the whole process.
func TestExecBuriesOrphans(t *testing.T) {
	const setChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER: as process 1 is
	subreaper := func(on uintptr) {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, on, 0); errno != 0 {
			t.Fatal(errno)
		}
	}
	subreaper(1)
	defer subreaper(0)
	e := shell(t, "sleep 60 & sleep 60 & exec sleep 60", "")
	var pid atomic.Int64
	e.kill = func(group int) {
		pid.Store(int64(group))
		killGroup(group)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got := e.Check(ctx); got.Status != verdict.Fail {
		t.Errorf("got %v %q, want fail", got.Status, got.Message)
	}
	if left := e.left; left != nil {
		await(t, left.gone, "the children are not gone")
	}
	if orphan, err := syscall.Wait4(-int(pid.Load()), nil, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
		t.Errorf("process %d is still there, %v", orphan, err)
	}
}

// Not parallel: it counts what the whole process has open.
func TestExecLeavesNothingOpen(t *testing.T) {
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	fine, hangs := shell(t, "echo fine", ""), shell(t, "sleep 60 & sleep 60", "")
	gone, err := (&ExecConfig{Command: []string{"/bin/sh"}}).build()
	if err != nil {
		t.Fatal(err)
	}
	gone.path = "/no/such"
	run := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		fine.Check(t.Context())
		hangs.Check(ctx)
		gone.Check(t.Context())
	}
	run()
	filesBefore, before := files(), runtime.NumGoroutine()
	for range 20 {
		run()
	}
	if now := files(); now > filesBefore+5 {
		t.Errorf("%d files are open, there were %d", now, filesBefore)
	}
	if now := runtime.NumGoroutine(); now > before+5 {
		t.Errorf("%d goroutines, there were %d", now, before)
	}
}
