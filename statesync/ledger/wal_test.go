package ledger

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/statesync"
)

// fillWAL makes a ledger as a crash leaves it: its last entries, one a commit,
// are in the WAL alone.
func fillWAL(t testing.TB) (w *wreck, frames []uint32) {
	t.Helper()
	w = fill(t, 200)
	l := open(t, w.dir)
	if _, err := l.Cursor(wreckSink); err != nil {
		t.Fatal(err)
	}
	for i := range int64(30) {
		e := entry(fmt.Sprintf("late%d", i%7), i/7*2+1, 2)
		e.Row.Stream = "pods"
		e.Changes[0].Message = strings.Repeat("late ", 300)
		e.Resume = &statesync.Resume{Stream: "pods", Definition: "all", Version: uint64(1000 + i), At: epoch}
		newHead, err := l.try([]waitingEntry{{Entry: e}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		l.head = newHead
	}
	clear(w.changes)
	for _, c := range readAll(t, l) {
		w.changes[c.Number] = c
	}
	w.head = l.head
	crashed := *w
	crashed.dir, crashed.on = scratch(t), map[int64][]uint32{}
	if err := copyLedger(w.dir, crashed.dir); err != nil {
		t.Fatal(err)
	}
	crashed.locate(t)
	wal, err := os.ReadFile(filepath.Join(crashed.dir, File+"-wal"))
	if err != nil {
		t.Fatal(err)
	}
	for at := walHeader; at < len(wal); at += frameHeader + pageBytes {
		frames = append(frames, binary.BigEndian.Uint32(wal[at:]))
	}
	return &crashed, frames
}

func frameAt(i int) int64 { return walHeader + int64(i)*(frameHeader+pageBytes) }

func spoilWAL(t testing.TB, dir string, at int64, with []byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, File+"-wal"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteAt(with, at); err != nil {
		t.Fatal(err)
	}
}

// TestABadFrameInTheWAL: SQLite would take it for the end of the WAL, and go
// on from an older state without a word.
func TestABadFrameInTheWAL(t *testing.T) {
	t.Parallel()
	w, frames := fillWAL(t)
	r := dice(t)
	t.Logf("%d frames", len(frames))
	for range 4 {
		i := r.IntN(len(frames) - 20) // two commits and more come after it
		for name, tt := range map[string]struct {
			at   int64
			with []byte
			hits []uint32
		}{
			"content zeroed":  {frameAt(i) + frameHeader, make([]byte, pageBytes), frames[i : i+1]},
			"content garbled": {frameAt(i) + frameHeader + r.Int64N(pageBytes-8), bytes.Repeat([]byte{0xff}, 8), frames[i : i+1]},
			"header garbled":  {frameAt(i), noise(r, frameHeader), frames[i : i+2]},
			"frame zeroed":    {frameAt(i), make([]byte, frameHeader+pageBytes), frames[i : i+2]},
		} {
			hit := func(n uint32) bool { return slices.Contains(tt.hits, n) }
			t.Run(fmt.Sprintf("frame %d %s", i, name), func(t *testing.T) {
				t.Parallel()
				dir := w.copyTo(t)
				spoilWAL(t, dir, tt.at, tt.with)
				l := openWreck(t, dir)
				if at, _ := l.Rescued(); at.IsZero() {
					t.Error("not rescued")
				}
				w.survived(t, l, hit)
			})
			if name == "content garbled" {
				continue // SQLite reads a frame unchecked: some of it may be altered for good
			}
			t.Run(fmt.Sprintf("frame %d %s under a running ledger", i, name), func(t *testing.T) {
				t.Parallel()
				dir := w.copyTo(t)
				l := openWreck(t, dir)
				spoilWAL(t, dir, tt.at, tt.with)
				w.survived(t, l, hit)
			})
		}
	}
}

func TestABadHeaderOfTheWAL(t *testing.T) {
	t.Parallel()
	w, frames := fillWAL(t)
	for name, with := range map[string][]byte{"zeros": make([]byte, walHeader), "noise": noise(dice(t), walHeader)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := w.copyTo(t)
			spoilWAL(t, dir, 0, with)
			l := openWreck(t, dir)
			w.survived(t, l, func(n uint32) bool { return n == frames[0] })
		})
	}
}

// commits reports whether a frame of the WAL ends a transaction.
func commits(t testing.TB, dir string, frame int) bool {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, File+"-wal"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pages := make([]byte, 4) // of the database after it, 0 when it does not
	if _, err := f.ReadAt(pages, frameAt(frame)+4); err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint32(pages) != 0
}

func TestACutWALUnderARunningLedger(t *testing.T) {
	t.Parallel()
	w, frames := fillWAL(t)
	r := dice(t)
	sizes := []int64{0, 1, walHeader, frameAt(len(frames)) - 1}
	for range 3 {
		sizes = append(sizes, frameAt(r.IntN(len(frames))), r.Int64N(frameAt(len(frames))))
	}
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			whole := 0 // frames up to the last commit that is left
			for i := range frames {
				if frameAt(i+1) <= size && commits(t, w.dir, i) {
					whole = i + 1
				}
			}
			gone := frames[whole:]
			dir := w.copyTo(t)
			l := openWreck(t, dir)
			if err := os.Truncate(filepath.Join(dir, File+"-wal"), size); err != nil {
				t.Fatal(err)
			}
			w.survived(t, l, func(n uint32) bool { return slices.Contains(gone, n) })
		})
	}
}

// TestWhatACrashLeavesIsNoDamage cuts and spoils the last transaction of the
// WAL, which may not have been synced.
func TestWhatACrashLeavesIsNoDamage(t *testing.T) {
	t.Parallel()
	w, frames := fillWAL(t)
	wal := filepath.Join(w.dir, File+"-wal")
	f, err := os.Open(wal)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	last := len(frames) - 2 // the frame after the last but one that commits
	for head := make([]byte, 8); ; last-- {
		if _, err := io.ReadFull(io.NewSectionReader(f, frameAt(last), 8), head); err != nil {
			t.Fatal(err)
		}
		if binary.BigEndian.Uint32(head[4:]) != 0 {
			last++
			break
		}
	}
	t.Logf("the last transaction has the frames %d to %d", last, len(frames)-1)
	for i := last; i < len(frames); i++ {
		dir := w.copyTo(t)
		spoilWAL(t, dir, frameAt(i)+frameHeader, make([]byte, 512))
		l := open(t, dir)
		head, _ := l.Head()
		if at, report := l.Rescued(); !at.IsZero() || head != w.head-2 {
			t.Errorf("frame %d: head %d, want %d and no rescue: %s", i, head, w.head-2, report)
		}
	}
}
