//go:build unix

package sinks

import (
	"errors"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// TestFileLeavesNoPartialLine limits the size of files, so that a batch is
// cut off within a line, as it is when a disk fills up. It is not parallel:
// the limit is the process's.
func TestFileLeavesNoPartialLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "changes.jsonl")
	s := openFile(t, path)
	if err := s.Deliver(t.Context(), []statesync.Delivery{delivery("a", 1)}); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	full := before
	full.Cur = uint64(s.acked.at*5/2 + 10) // room for one and a half lines more
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	lift := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Error(err)
		}
	}
	defer lift()
	batch := []statesync.Delivery{delivery("a", 2), delivery("a", 3), delivery("a", 4)}
	for range 3 {
		err := s.Deliver(t.Context(), batch)
		var sinkErr *statesync.SinkError
		if !errors.As(err, &sinkErr) || sinkErr.Cause != "write" || !errors.Is(err, syscall.EFBIG) {
			t.Fatalf("error %v, want one of cause write: file too large", err)
		}
		if diff := cmp.Diff([]string{"a-1", "a-2"}, idsIn(t, path)); diff != "" {
			t.Errorf("after a failure (-want +got):\n%s", diff)
		}
	}
	// A shorter batch is there already, and nothing of the longer one is behind it.
	if err := s.Deliver(t.Context(), batch[:1]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a-1", "a-2"}, idsIn(t, path)); diff != "" {
		t.Errorf("after a shorter batch (-want +got):\n%s", diff)
	}
	lift()
	if err := s.Deliver(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a-1", "a-2", "a-2", "a-3", "a-4"}, idsIn(t, path)); diff != "" {
		t.Errorf("with room again (-want +got):\n%s", diff)
	}
	// What a failure has left and does not come again is cut.
	full.Cur = uint64(s.acked.at + 1000)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), []statesync.Delivery{delivery("a", 5), delivery("a", 6), delivery("a", 7)}); err == nil {
		t.Fatal("no error, want a file too large")
	}
	if got := idsIn(t, path); len(got) == 5 {
		t.Fatal("nothing was written before the failure: the limit is too low for this test")
	}
	lift()
	if err := s.Deliver(t.Context(), []statesync.Delivery{delivery("b", 1)}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a-1", "a-2", "a-2", "a-3", "a-4", "b-1"}, idsIn(t, path)); diff != "" {
		t.Errorf("after another change came (-want +got):\n%s", diff)
	}
}
