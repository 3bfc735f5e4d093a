//go:build unix

package ledger

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// TestKilled kills a process that appends, and looks that the ledger it left
// holds whole entries in order, and every one that was done.
func TestKilled(t *testing.T) {
	const dirVariable = "OUTRIDER_TEST_KILLED_DIR"
	if dir := os.Getenv(dirVariable); dir != "" {
		appendUntilKilled(t, dir)
	}
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$", "-test.count=1")
	cmd.Env = append(os.Environ(), dirVariable+"="+dir)
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := int64(0)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, err := fmt.Sscanf(lines.Text(), "done %d", &done); err == nil && done == 150 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || done < 150 {
		t.Fatalf("the child ended by itself after %d entries: %v\n%s", done, err, trouble.String())
	}

	l := open(t, dir)
	wholeEntries(t, l, done)
	start(t, l)
	head, _ := l.Head()
	record(t, l, crashEntry(head/2+1), crashFlush("b", head/2), crashFlush("b", head/2+1))
	wholeEntries(t, l, head/2+1)
}

// crashEntry is the i-th entry, from 1: two changes of one workload, and what
// is kept of stream a.
func crashEntry(i int64) statesync.Entry {
	e := entry("u", 2*i-1, 2)
	flush := crashFlush("a", i)
	e.Objects, e.Resume = flush.Objects, flush.Resume
	return e
}

// crashObjects is how many objects a stream has, of which each flush writes
// crashFlushed.
const crashObjects, crashFlushed = 40, 7

// crashFlush is the i-th flush of a stream, from 1: some objects and the resume
// point.
func crashFlush(stream string, i int64) statesync.Entry {
	e := resume(stream, uint64(i))
	for j := range int64(crashFlushed) {
		e.Objects = append(e.Objects, statesync.Object{Stream: stream, UID: fmt.Sprint((crashFlushed*i + j) % crashObjects), Body: fmt.Append(nil, i)})
	}
	return e
}

// wholeFlushes fails unless the objects of a stream are those of its resume
// point, which it returns.
func wholeFlushes(t *testing.T, l *Ledger, stream string) int64 {
	t.Helper()
	version := int64(0)
	for _, s := range load(t, l).Streams {
		if s.Stream == stream {
			version = int64(s.Version)
		}
	}
	want := map[string]string{}
	for i := range version {
		for _, o := range crashFlush(stream, i+1).Objects {
			want[o.UID] = string(o.Body)
		}
	}
	if diff := cmp.Diff(want, objects(t, l, stream)); diff != "" {
		t.Errorf("stream %s at %d: objects (-want +got):\n%s", stream, version, diff)
	}
	return version
}

// wholeEntries fails unless the ledger holds a prefix of the entries, whole,
// and at least those that were done.
func wholeEntries(t *testing.T, l *Ledger, done int64) {
	t.Helper()
	got := readAll(t, l)
	head, _ := l.Head()
	if int64(len(got)) < 2*done || len(got)%2 != 0 || head != int64(len(got)) {
		t.Errorf("%d changes and head %d, want an even number of at least %d: %d entries of two were done", len(got), head, 2*done, done)
	}
	if len(got) > 0 && (got[0].Number != 1 || got[0].Seq != 1) {
		t.Errorf("first change has number %d and seq %d, want 1 and 1", got[0].Number, got[0].Seq)
	}
	if rows := load(t, l).Rows; len(rows) != 1 || rows[0].Seq != int64(len(got)) {
		t.Errorf("rows %+v, want one with seq %d: it is written with its changes", rows, len(got))
	}
	if a, b := wholeFlushes(t, l, "a"), wholeFlushes(t, l, "b"); 2*a != int64(len(got)) || b > a || b != 0 && b < done {
		t.Errorf("stream a at %d and b at %d after %d changes and %d entries done", a, b, len(got), done)
	}
}

// appendUntilKilled is the child. It says which entries are done.
func appendUntilKilled(t *testing.T, dir string) {
	l := open(t, dir)
	start(t, l)
	for i := int64(1); ; i++ {
		e := crashEntry(i)
		e.Done = func() {
			if _, err := os.Stdout.WriteString(fmt.Sprintf("done %d\n", i)); err != nil {
				os.Exit(1) // the parent is gone
			}
		}
		done := e.Done
		e.Done = nil
		flush := crashFlush("b", i) // without changes, so it may be written twice
		flush.Done = done
		for _, e := range []statesync.Entry{e, flush} {
			if err := l.Append(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCopyOfARunningLedger copies database and log file in Done, when the
// committer stands still, and opens the copy: what is done is in the files.
func TestCopyOfARunningLedger(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	start(t, l)
	copies := map[int64]string{}
	var entries []statesync.Entry
	for i := range int64(40) {
		entries = append(entries, crashEntry(i+1))
	}
	record(t, l, entries[:3]...)
	for i, e := range entries[3:] {
		at := int64(i + 4)
		done := make(chan error, 1)
		e.Done = func() {
			if at%9 != 0 {
				done <- nil
				return
			}
			copies[at] = t.TempDir()
			done <- copyLedger(dir, copies[at])
		}
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if len(copies) != 4 {
		t.Fatalf("%d copies", len(copies))
	}
	for done, copied := range copies {
		c := open(t, copied)
		wholeEntries(t, c, done)
		if head, _ := c.Head(); head != 2*done {
			t.Errorf("copy made after %d entries has %d changes, want %d", done, head, 2*done)
		}
		start(t, c)
		record(t, c, crashEntry(done+1))
		wholeEntries(t, c, done+1)
	}
}

func copyLedger(from, to string) error {
	for _, name := range []string{File, File + "-wal"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// TestTornLogFile cuts the log file as a crash of the machine may, at every
// kind of place: the ledger opens with a prefix of whole entries.
func TestTornLogFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	start(t, l)
	for i := range int64(8) {
		record(t, l, crashEntry(i+1))
	}
	whole := t.TempDir()
	if err := copyLedger(dir, whole); err != nil {
		t.Fatal(err)
	}
	wal, err := os.ReadFile(filepath.Join(whole, File+"-wal"))
	if err != nil {
		t.Fatal(err)
	}
	var heads []int64
	for _, keep := range []int{len(wal), len(wal) - 1, len(wal) - 4096, len(wal) * 3 / 4, len(wal) / 2} {
		torn := t.TempDir()
		if err := copyLedger(dir, torn); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(torn, File+"-wal"), int64(keep)); err != nil {
			t.Fatal(err)
		}
		c := open(t, torn)
		head, _ := c.Head()
		heads = append(heads, head)
		if head > 0 {
			wholeEntries(t, c, head/2)
		}
	}
	if heads[0] != 16 || heads[1] != 14 || heads[4] == 0 || heads[4] >= 14 {
		t.Errorf("heads %v, want all 16 of the whole file, 14 without its last byte, and fewer after", heads)
	}
}

// TestDiskFull sets a limit on the size of files, which writes meet as they
// meet a full disk. It is not parallel: the limit is the process's.
func TestDiskFull(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l := open(t, dir)
	stop := start(t, l)
	record(t, l, crashEntry(1), crashEntry(2))

	info, err := os.Stat(filepath.Join(dir, File+"-wal"))
	if err != nil {
		t.Fatal(err)
	}
	full := before
	full.Cur = uint64(info.Size() + 20_000)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	lift := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Error(err)
		}
	}
	defer lift()
	const entries = 100
	done := make(chan int64, entries)
	for i := int64(3); i <= entries; i++ {
		e := crashEntry(i)
		e.Changes[0].Message = strings.Repeat("x", 1000)
		e.Done = func() { done <- i }
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the disk is full", func() bool { _, err := l.Failure(); return err != nil })
	_, failure := l.Failure()
	t.Logf("a full disk reads: %v", failure)
	wholeEntries(t, l, 2)
	if s := books(t, l); s.Queued == 0 || s.Retries["commit"] == 0 {
		t.Errorf("books %+v, want some that wait and retries", s)
	}
	lift()
	for want := int64(3); want <= entries; want++ {
		if got := <-done; got != want {
			t.Fatalf("entry %d is done, want %d", got, want)
		}
	}
	if err := errors.Join(stop(), l.Close()); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	wholeEntries(t, l, entries)
	if head, _ := l.Head(); head != 2*entries {
		t.Errorf("%d changes, want %d", head, 2*entries)
	}
}
