package sinks

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
)

// A tail reads what is appended and follows rotation by inode, as tail -F and
// log shippers do. It fails when what it has read changes, be it within a line.
// Only where others move files away may an unfinished line be left in one, or
// go: it is dropped then.
type tail struct {
	path  string
	moved bool
	file  *os.File
	seen  []byte // of the file
	all   []byte // of those before it
}

func (r *tail) poll() error {
	for {
		if r.file == nil {
			f, err := os.Open(r.path)
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			r.file = f
		}
		now, statErr := os.Stat(r.path)
		have, err := r.file.Stat()
		if err == nil {
			err = r.read()
		}
		if err != nil || now != nil && os.SameFile(now, have) {
			return err
		}
		next, err := r.next(have)
		if err != nil || next == r.path && errors.Is(statErr, os.ErrNotExist) {
			return err
		}
		f, err := os.Open(next)
		if errors.Is(err, os.ErrNotExist) {
			return nil // it is just being renamed: later
		}
		if err != nil {
			return err
		}
		if again, err := r.next(have); err != nil || again != next && next == r.path {
			_ = f.Close() // it was rotated just then
			if err != nil {
				return err
			}
			continue
		}
		_ = r.file.Close()
		if r.moved {
			r.seen = wholeLines(r.seen)
		}
		r.all, r.seen, r.file = append(r.all, r.seen...), nil, f
	}
}

func wholeLines(b []byte) []byte { return b[:bytes.LastIndexByte(b, '\n')+1] }

// read takes what is new, and looks that what is old is still there.
func (r *tail) read() error {
	content, err := os.ReadFile(fmt.Sprintf("/dev/fd/%d", r.file.Fd()))
	if err != nil {
		return err
	}
	if r.moved && len(content) < len(r.seen) {
		r.seen = wholeLines(r.seen)
	}
	if !bytes.HasPrefix(content, r.seen) {
		return fmt.Errorf("a reader had %d bytes, and now there are %d and they are not the same", len(r.seen), len(content))
	}
	r.seen = content
	return nil
}

// next is the name of the file after the one that is read: the number after
// its own, or else the path. It asks for one name after the other: a listing
// may miss one that is just being renamed.
func (r *tail) next(have os.FileInfo) (string, error) {
	own := false
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s.%06d", r.path, n)
		info, err := os.Stat(name)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return r.path, nil
		case err != nil:
			return "", err
		case own:
			return name, nil
		}
		own = os.SameFile(info, have)
	}
}

func (r *tail) lines() string { return asSent(string(r.all) + string(r.seen)) }

// asSent takes away the space with which a sink takes a file over.
func asSent(lines string) string { return strings.ReplaceAll(lines, " \n", "\n") }

// A crashing is a file sink that dies at one of its steps, with a ledger whose
// commits may be late, and a reader that looks on at each step.
type crashing struct {
	t        *testing.T
	r        *rand.Rand
	cfg      FileConfig
	all      []statesync.Delivery // to be delivered
	acked    int                  // of them, durably so
	position string
	dieAt    int // steps from now
	steps    []string
	moves    int
	sink     *fileSink
	size     int64 // of the file that is being written
	tail     *tail // nil: nobody looks
}

var errDied = errors.New("the process has died")

func newCrashing(t *testing.T, seed uint64, maxBytes int) *crashing {
	path := filepath.Join(t.TempDir(), "changes.jsonl")
	return &crashing{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), tail: &tail{path: path},
		cfg: FileConfig{Path: config.Path(path), MaxBytes: config.Bytes(maxBytes)},
	}
}

func (c *crashing) look() {
	c.t.Helper()
	if c.tail == nil {
		return
	}
	if err := c.tail.poll(); err != nil {
		c.t.Fatalf("%v, after %q", err, c.steps)
	}
}

// step is called before each change to the disk.
func (c *crashing) step(name string) error {
	if c.dieAt <= 0 {
		return errDied
	}
	c.steps = append(c.steps, name)
	c.dieAt--
	dies := c.dieAt == 0
	switch name {
	case "file/write":
		c.size = c.sink.files[0].end
	case "file/sync": // the write is done, of this file or of none
		if f := c.sink.files[0]; dies && c.steps[len(c.steps)-2] == "file/write" { // it died within the write
			info, err := f.Stat()
			if err != nil {
				c.t.Fatal(err)
			}
			if more := info.Size() - c.size; more > 0 {
				if err := f.Truncate(c.size + c.r.Int64N(more+1)); err != nil {
					c.t.Fatal(err)
				}
			}
		}
	}
	c.look()
	if dies {
		return errDied
	}
	return nil
}

// live opens the sink and delivers up to a number of changes, until it dies.
func (c *crashing) live(steps, to int) {
	c.t.Helper()
	c.dieAt = steps
	// Before Resume nothing of consequence is done; Open makes the file.
	opened, err := c.cfg.Open("")
	if err != nil {
		c.t.Fatal(err)
	}
	c.sink = opened.(*fileSink)
	c.sink.step = c.step
	defer c.sink.letGo()
	if err := c.sink.Resume(c.position); err != nil {
		c.dead(err)
		return
	}
	c.position = c.sink.Position() // durable before the first delivery
	lag := c.r.IntN(4)
	done := []struct {
		n        int
		position string
	}{{c.acked, c.position}}
	for n := c.acked; n < to; {
		batch := c.all[n:min(to, n+1+c.r.IntN(7))]
		if err := c.sink.Deliver(c.t.Context(), batch); err != nil {
			c.dead(err)
			return
		}
		n += len(batch)
		done = append(done, struct {
			n        int
			position string
		}{n, c.sink.Position()})
		if len(done) > lag {
			at := done[len(done)-1-lag]
			c.acked, c.position = at.n, at.position
		}
		c.look()
	}
	last := done[len(done)-1]
	c.acked, c.position = last.n, last.position
}

func (c *crashing) dead(err error) {
	c.t.Helper()
	if !errors.Is(err, errDied) {
		c.t.Fatalf("%v, after %q", err, c.steps)
	}
	c.steps = append(c.steps, "died")
}

// move takes the file away as logrotate does. While the ledger is behind by
// more than this one file nobody could tell what the moved one is.
func (c *crashing) move() {
	info, err := os.Stat(string(c.cfg.Path))
	if p, ok := parsePosition(c.position); err != nil || !ok || p.inode != inodeOf(info) {
		return
	}
	c.moves++
	c.tail.moved = true
	if err := os.Rename(string(c.cfg.Path), fmt.Sprintf("%s-moved-%d", c.cfg.Path, c.moves)); err != nil {
		c.t.Fatal(err)
	}
	c.steps = append(c.steps, "moved")
	c.look()
}

func linesOf(t testing.TB, ds []statesync.Delivery) string {
	t.Helper()
	var b strings.Builder
	for _, d := range ds {
		line, err := statesync.MarshalEvent(d)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	return b.String()
}

// filesOf returns what the files of a path hold, in the order of lines want,
// and each of them.
func filesOf(t testing.TB, path, want string) (string, []string) {
	t.Helper()
	names, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	contents := []string{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		contents = append(contents, asSent(string(b)))
	}
	slices.SortStableFunc(contents, func(a, b string) int {
		first := func(s string) int { line, _, _ := strings.Cut(s, "\n"); return strings.Index(want, line+"\n") }
		return cmp.Compare(first(a), first(b))
	})
	return strings.Join(contents, ""), contents
}

// whole fails unless the files hold the first n changes, each once.
func (c *crashing) whole(n int) {
	c.t.Helper()
	want := linesOf(c.t, c.all[:n])
	got, contents := filesOf(c.t, string(c.cfg.Path), want)
	if got != want {
		c.t.Errorf("the files have %d lines and %d bytes, want %d and %d, after %q",
			strings.Count(got, "\n"), len(got), n, len(want), c.steps)
	}
	for _, content := range contents {
		if c.cfg.MaxBytes > 0 && len(content) > int(c.cfg.MaxBytes) && strings.Count(content, "\n") > 1 {
			c.t.Errorf("a file of %d bytes, want %d at most", len(content), c.cfg.MaxBytes)
		}
	}
	c.look()
	if c.tail != nil && c.tail.lines() != want {
		c.t.Errorf("a reader has seen %d lines, want %d once, after %q", strings.Count(c.tail.lines(), "\n"), n, c.steps)
	}
}

func changes(n int) []statesync.Delivery {
	out := make([]statesync.Delivery, n)
	for i := range out {
		out[i] = delivery(fmt.Sprintf("w%d", i%3), int64(i+1))
		out[i].Message = strings.Repeat("m", i*37%200)
	}
	return out
}

// TestFileDiesAtEachStep lets the process die at each of its steps, and writes
// the rest in a second life.
func TestFileDiesAtEachStep(t *testing.T) {
	t.Parallel()
	for _, maxBytes := range []int{0, 1, 2500} {
		n := 1
		for died := true; died; n++ {
			c := newCrashing(t, uint64(n), maxBytes)
			c.all = changes(12)
			c.live(n, 8)
			died = slices.Contains(c.steps, "died")
			c.live(1000, len(c.all))
			c.whole(len(c.all))
			if t.Failed() {
				t.Fatalf("max_bytes %d, died at step %d", maxBytes, n)
			}
		}
		if n < 6 {
			t.Errorf("max_bytes %d: %d steps in all, want more: the test passes none", maxBytes, n)
		}
	}
}

// TestFileHoldsEachLineOnce lets the process die again and again, at random,
// with a ledger that lags behind and others that move the file away.
func TestFileHoldsEachLineOnce(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		c := newCrashing(t, seed, []int{0, 400, 1500, 4000}[seed%4])
		c.all = changes(60)
		for to := 0; to < len(c.all); {
			to = min(len(c.all), max(to, c.acked)+c.r.IntN(15))
			c.live(1+c.r.IntN(40), to)
			if c.r.IntN(4) == 0 {
				c.move()
			}
		}
		c.live(10_000, len(c.all))
		c.whole(len(c.all))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestFileIsTheModelWhenOthersCome: after a crash other lines come than were
// written, as when marks are counted anew. The files are what was acknowledged.
// Only the very first line is always the same: while nothing was acknowledged,
// it alone says whose the lines are.
func TestFileIsTheModelWhenOthersCome(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		c := newCrashing(t, seed, []int{0, 400, 1500, 4000}[seed%4])
		c.tail = nil
		c.all = changes(60)
		for to := 0; to < len(c.all); {
			to = min(len(c.all), max(to, c.acked)+c.r.IntN(20))
			c.live(1+c.r.IntN(40), to)
			for i := max(c.acked, 1); i < len(c.all); i++ {
				if c.r.IntN(8) == 0 {
					c.all[i].Message = fmt.Sprint("another after ", len(c.steps), strings.Repeat("x", c.r.IntN(200)))
				}
			}
		}
		c.live(10_000, len(c.all))
		c.whole(len(c.all))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestFileIsSyncedBeforeItIsAcknowledged looks at the steps of each delivery:
// what is written is synced, and so are the names of files.
func TestFileIsSyncedBeforeItIsAcknowledged(t *testing.T) {
	t.Parallel()
	for _, maxBytes := range []config.Bytes{0, 1200} {
		path := filepath.Join(t.TempDir(), "changes.jsonl")
		opened, err := (&FileConfig{Path: config.Path(path), MaxBytes: maxBytes}).Open("")
		if err != nil {
			t.Fatal(err)
		}
		s := opened.(*fileSink)
		defer s.Close()
		owed := map[string]bool{}
		var steps []string
		s.step = func(name string) error {
			steps = append(steps, name)
			switch name {
			case "file/write":
				owed["file"] = true
			case "file/sync":
				delete(owed, "file")
			case "file/rename":
				if owed["file"] {
					t.Errorf("renamed before it was synced: %q", steps)
				}
				owed["folder"] = true
			case "file/create", "file/remove":
				if name == "file/create" && owed["folder"] {
					t.Errorf("a new file before the name of the old one was synced: %q", steps)
				}
				owed["folder"] = true
			case "file/sync_dir":
				delete(owed, "folder")
			}
			return nil
		}
		for n := range 6 {
			steps = nil
			if err := s.Deliver(t.Context(), changes(20)[3*n:3*n+3]); err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(steps, "file/sync") || len(owed) > 0 {
				t.Errorf("acknowledged after %q: not synced are %v", steps, owed)
			}
		}
	}
}
