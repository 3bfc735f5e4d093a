package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// A wreck is a ledger to be damaged: what it held is known.
type wreck struct {
	dir     string
	changes map[int64]statesync.Change
	on      map[int64][]uint32 // the pages that hold a change
	pages   uint32
	acked   int64
	head    int64
}

const wreckSink = "file"

// fill makes a ledger of some hundred pages, of which a quarter is
// acknowledged, and closes it.
func fill(t testing.TB, entries int) *wreck {
	t.Helper()
	w := &wreck{dir: scratch(t), changes: map[int64]statesync.Change{}, on: map[int64][]uint32{}}
	o := options(t, w.dir)
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Identify("cluster"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Cursor(wreckSink); err != nil {
		t.Fatal(err)
	}
	stop := start(t, l)
	var all []statesync.Entry
	for i := range entries {
		e := entry(fmt.Sprintf("u%d", i%(entries/3+1)), int64(i/(entries/3+1)*2+1), 2)
		e.Row.Stream, e.Row.Epoch = "pods", 1
		e.Changes[0].Message = strings.Repeat("m", 50+i%400)
		if i%37 == 0 {
			e.Changes[1].Message = strings.Repeat(fmt.Sprintf("long %d ", i), 1500) // on overflow pages
		}
		e.Objects = []statesync.Object{{Stream: "pods", UID: e.Row.UID, Body: bytes.Repeat([]byte("o"), 100)}}
		e.Resume = &statesync.Resume{Stream: "pods", Definition: "all", Version: uint64(i + 1), At: epoch}
		all = append(all, e)
	}
	record(t, l, all...)
	w.head, _ = l.Head()
	w.acked = w.head / 4
	l.Save(statesync.Progress{Sink: wreckSink, Acked: w.acked})
	until(t, "the cursor is durable", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.acked[wreckSink] == w.acked
	})
	for _, c := range readAll(t, l) {
		w.changes[c.Number] = c
	}
	if err := errors.Join(stop(), l.Close()); err != nil {
		t.Fatal(err)
	}
	w.locate(t)
	return w
}

// scratch is a folder where a sync costs nothing, if there is one: these
// tests open and rescue hundreds of ledgers, and no power fails.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ledger")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// locate finds the pages of each change.
func (w *wreck) locate(t testing.TB) {
	p, err := openPages(filepath.Join(w.dir, File))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	w.pages = p.count
	buf := make([]byte, p.pageSize)
	for n := range p.count {
		if err := p.page(n+1, buf); err != nil {
			t.Fatal(err)
		}
		_, err := p.cells(n+1, buf, func(c cell) error {
			if c.table && c.shape() == "NIIIIT" {
				w.on[c.rowid] = append(w.on[c.rowid], n+1)
				w.on[c.rowid] = append(w.on[c.rowid], overflowOf(p, buf, c)...)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(w.on) != len(w.changes) {
		t.Fatalf("%d changes on pages, want %d", len(w.on), len(w.changes))
	}
}

// overflowOf returns the overflow pages of a change: it is the last cell whose
// chain spells its body.
func overflowOf(p *pages, leaf []byte, c cell) (out []uint32) {
	body := c.values[5].(string)
	if len(body) < p.usable {
		return nil
	}
	buf := make([]byte, p.pageSize)
	for at := 0; at+4 <= p.usable; at++ {
		next := binary.BigEndian.Uint32(leaf[at:])
		var got []byte
		out = out[:0]
		for next > 1 && next <= p.count && len(got) < len(body) && p.page(next, buf) == nil {
			out = append(out, next)
			got = append(got, buf[4:p.usable]...)
			next = binary.BigEndian.Uint32(buf)
		}
		if len(got) > len(body)-p.usable && strings.HasSuffix(body, string(bytes.TrimRight(got, "\x00"))) {
			return out
		}
	}
	return nil
}

// copyTo copies the ledger's files.
func (w *wreck) copyTo(t testing.TB) string {
	t.Helper()
	dir := scratch(t)
	if err := copyWreck(w.dir, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyWreck(from, to string) error {
	for _, end := range []string{"", "-wal"} {
		b, err := os.ReadFile(filepath.Join(from, File+end))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, File+end), b, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// onPage returns whether a change is on one of the pages.
func (w *wreck) onPage(number int64, hit func(uint32) bool) bool {
	return slices.ContainsFunc(w.on[number], hit)
}

// survived reads on from the sink's cursor and fails when a change is not
// there that is not on a page that was hit, or is not as it was, or is missing
// and not among the losses. Then it records and reads a fresh one.
func (w *wreck) survived(t testing.TB, l *Ledger, hit func(uint32) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	got := map[int64]statesync.Change{}
	for after := w.acked; ; {
		page, err := readLog(ctx, l, after, 100)
		if err != nil {
			t.Fatalf("read after %d: %v", after, err)
		}
		if len(page) == 0 {
			break
		}
		for _, c := range page {
			if c.Number <= after {
				t.Fatalf("change %d after %d", c.Number, after)
			}
			after = c.Number
			got[c.Number] = c
		}
	}
	if _, err := l.Load(ctx); err != nil {
		t.Fatalf("load: %v", err)
	}
	if err := l.Objects(ctx, "pods", func(statesync.Object) error { return nil }); err != nil {
		t.Fatalf("objects: %v", err)
	}
	l.mu.Lock()
	losses := slices.Clone(l.losses)
	l.mu.Unlock()
	for n := w.acked + 1; n <= w.head; n++ {
		c, there := got[n]
		lost := slices.ContainsFunc(losses, func(s span) bool { return s.first <= n && n <= s.last })
		switch {
		case there && lost:
			t.Errorf("change %d is there and among the losses", n)
		case there:
			if diff := cmp.Diff(w.changes[n], c); diff != "" {
				t.Fatalf("change %d (-was +is):\n%s", n, diff)
			}
		case !w.onPage(n, hit):
			t.Fatalf("change %d is missing, and on pages %v, which were not hit; losses %v", n, w.on[n], losses)
		case !lost:
			t.Fatalf("change %d is missing and not among the losses %v", n, losses)
		}
	}
	head, _ := l.Head()
	if head < w.head {
		t.Errorf("head %d, want %d or more", head, w.head)
	}
	record(t, l, entry("fresh", 1, 1))
	page, err := readLog(ctx, l, head, 10)
	if err != nil || len(page) != 1 || page[0].ID != "fresh-1" || page[0].Number <= w.head {
		t.Fatalf("fresh change %+v, %v, want one above %d", page, err, w.head)
	}
}

// openWreck opens a damaged ledger as an agent does.
func openWreck(t testing.TB, dir string) *Ledger {
	t.Helper()
	l := open(t, dir)
	if _, err := l.Cursor(wreckSink); err != nil {
		t.Fatal(err)
	}
	start(t, l)
	return l
}

func spoil(t testing.TB, dir string, at int64, with []byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, File), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // later than the ledger: see makeFile
	if _, err := f.WriteAt(with, at); err != nil {
		t.Fatal(err)
	}
}

func dice(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("OUTRIDER_TEST_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("OUTRIDER_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// sample returns n of the pages; OUTRIDER_TEST_PAGES says another n. The first
// ones, which hold the roots, are always among them.
func sample(t testing.TB, r *rand.Rand, pages uint32, n int) (out []uint32) {
	if s := os.Getenv("OUTRIDER_TEST_PAGES"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
	}
	for i := range pages {
		out = append(out, i+1)
	}
	rest := out[min(12, len(out)):]
	r.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return out[:min(n, len(out))]
}

func TestOneBadPageCostsWhatWasOnIt(t *testing.T) {
	t.Parallel()
	w := fill(t, 250)
	r := dice(t)
	t.Logf("%d pages, %d changes, %d acknowledged", w.pages, w.head, w.acked)
	for _, page := range sample(t, r, w.pages, 18) {
		for name, with := range map[string][]byte{"zeros": make([]byte, pageBytes), "noise": noise(r, pageBytes)} {
			t.Run(fmt.Sprintf("page %d of %s", page, name), func(t *testing.T) {
				t.Parallel()
				dir := w.copyTo(t)
				spoil(t, dir, int64(page-1)*pageBytes, with)
				l := openWreck(t, dir)
				w.survived(t, l, func(n uint32) bool { return n == page })
			})
		}
	}
}

func TestABadPageUnderARunningLedger(t *testing.T) {
	t.Parallel()
	w := fill(t, 250)
	r := dice(t)
	for _, page := range sample(t, r, w.pages, 15) {
		for name, with := range map[string][]byte{"zeros": make([]byte, pageBytes), "noise": noise(r, pageBytes)} {
			t.Run(fmt.Sprintf("page %d of %s", page, name), func(t *testing.T) {
				t.Parallel()
				dir := w.copyTo(t)
				l := openWreck(t, dir)
				spoil(t, dir, int64(page-1)*pageBytes, with)
				w.survived(t, l, func(n uint32) bool { return n == page })
			})
		}
	}
}

func TestACutFile(t *testing.T) {
	t.Parallel()
	w := fill(t, 250)
	r := dice(t)
	whole := int64(w.pages) * pageBytes
	sizes := []int64{0, 1, 99, 100, pageBytes, whole - 1, whole - pageBytes}
	for range 3 {
		sizes = append(sizes, r.Int64N(int64(w.pages))*pageBytes, r.Int64N(whole))
	}
	for _, size := range sizes {
		gone := func(n uint32) bool { return int64(n)*pageBytes > size }
		t.Run(fmt.Sprintf("closed, cut to %d", size), func(t *testing.T) {
			t.Parallel()
			dir := w.copyTo(t)
			if err := os.Truncate(filepath.Join(dir, File), size); err != nil {
				t.Fatal(err)
			}
			l := openWreck(t, dir)
			w.afterACut(t, l, gone)
		})
		t.Run(fmt.Sprintf("running, cut to %d", size), func(t *testing.T) {
			t.Parallel()
			dir := w.copyTo(t)
			l := openWreck(t, dir)
			if err := os.Truncate(filepath.Join(dir, File), size); err != nil {
				t.Fatal(err)
			}
			w.survived(t, l, gone)
		})
	}
}

// afterACut is survived, when what tells the numbers may be gone too: then
// they go on far above.
func (w *wreck) afterACut(t testing.TB, l *Ledger, gone func(uint32) bool) {
	t.Helper()
	if head, _ := l.Head(); head > w.head {
		if head < time.Now().Add(-time.Minute).UnixMilli() {
			t.Errorf("head %d, want %d, or one from the clock", head, w.head)
		}
		record(t, l, entry("fresh", 1, 1))
		return
	}
	w.survived(t, l, gone)
}

func TestRescueKeepsTheDamagedFiles(t *testing.T) {
	t.Parallel()
	w := fill(t, 60)
	spoil(t, w.dir, 0, make([]byte, pageBytes))
	var want [3][]byte
	now := time.Date(2026, 11, 22, 15, 4, 5, 0, time.UTC)
	for i := range want {
		b, err := os.ReadFile(filepath.Join(w.dir, File))
		if err != nil {
			t.Fatal(err)
		}
		want[i] = b
		var log bytes.Buffer
		o := options(t, w.dir)
		o.Log, o.Now = slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now }
		l, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		at, report := l.Rescued()
		if !at.Equal(now) || !strings.Contains(report, "begun anew") || len(report) > 512 {
			t.Errorf("rescued at %s: %q", at, report)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), report[:100]) {
			t.Errorf("%d errors in the log, want the report once:\n%s", n, log.String())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		spoil(t, w.dir, 0, make([]byte, 100))
	}
	for i, name := range []string{"20261122T150405Z", "20261122T150405Z-2", "20261122T150405Z-3"} {
		b, err := os.ReadFile(filepath.Join(w.dir, File+asideSuffix+name))
		if err != nil || !bytes.Equal(b, want[i]) {
			t.Errorf("%s is not what was damaged: %d bytes, %v", name, len(b), err)
		}
	}
}

func TestWhatARescueBringsOver(t *testing.T) {
	t.Parallel()
	w := fill(t, 60)
	spoil(t, w.dir, 0, make([]byte, pageBytes))
	l := open(t, w.dir)
	m, err := l.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.Epoch != 2 || len(m.Rows) != 21 {
		t.Errorf("epoch %d and %d rows, want 2 and 21", m.Epoch, len(m.Rows))
	}
	want := []statesync.Resume{{Stream: "pods", Definition: "all", Version: 60, At: epoch, Lost: statesync.GapLedgerLost}}
	if diff := cmp.Diff(want, m.Streams); diff != "" {
		t.Errorf("streams (-want +got):\n%s", diff)
	}
	if err := l.Objects(t.Context(), "pods", func(o statesync.Object) error { return fmt.Errorf("object %s", o.UID) }); err != nil {
		t.Errorf("%v, want no objects", err)
	}
	if _, err := l.Identify("another"); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("error %v, want that of another cluster", err)
	}
	if epoch, err := l.Identify("cluster"); err != nil || epoch != 2 {
		t.Errorf("epoch %d, %v, want 2", epoch, err)
	}
	if c, err := l.Cursor(wreckSink); err != nil || c.Acked != w.acked || c.Since != 0 {
		t.Errorf("cursor %+v, %v, want %d acknowledged", c, err, w.acked)
	}
	if got := len(readAll(t, l)); got != int(w.head) {
		t.Errorf("%d changes, want %d", got, w.head)
	}
}

// TestARescueThatCrashed leaves the files as a crash does after each step.
func TestARescueThatCrashed(t *testing.T) {
	t.Parallel()
	w := fill(t, 60)
	spoil(t, w.dir, 0, make([]byte, pageBytes))
	for name, steps := range map[string]func(path string) error{
		"while the new file was made": func(path string) error { return os.WriteFile(path+makingSuffix, []byte("half"), 0o600) },
		"when it was ready":           func(path string) error { return makeReady(path) },
		"when the damaged file was set aside": func(path string) error {
			return errors.Join(makeReady(path), os.WriteFile(path+"-wal", []byte("the old WAL"), 0o600), os.Rename(path, path+asideSuffix+"X"))
		},
		"when its WAL was too": func(path string) error {
			return errors.Join(makeReady(path), os.Rename(path, path+asideSuffix+"X"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := w.copyTo(t)
			if err := steps(filepath.Join(dir, File)); err != nil {
				t.Fatal(err)
			}
			l := openWreck(t, dir)
			w.survived(t, l, func(uint32) bool { return false })
			if left, err := filepath.Glob(filepath.Join(dir, "*"+readySuffix+"*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if kept, err := filepath.Glob(filepath.Join(dir, "*"+asideSuffix+"*")); err != nil || len(kept) == 0 {
				t.Errorf("kept: %v, %v", kept, err)
			}
		})
	}
}

// makeReady does what a rescue does before it touches the damaged file.
func makeReady(path string) error {
	p, err := openPages(path)
	if err != nil {
		return err
	}
	defer p.close()
	r := &rebuild{pages: p, path: path + makingSuffix, last: last{durable: -1}, now: epoch}
	r.cause, r.aside = errDamaged, "aside"
	if err := r.make(0); err != nil {
		return err
	}
	return os.Rename(r.path, path+readySuffix+"X")
}
