package sinks

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
)

func openFile(t testing.TB, path string) *fileSink {
	t.Helper()
	s, err := (&FileConfig{Path: config.Path(path)}).Open("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.(*fileSink).Close() })
	return s.(*fileSink)
}

func TestFileOpensAfterTheLastWholeLine(t *testing.T) {
	t.Parallel()
	const block = 64 << 10
	a := eventStart + "a"
	long := eventStart + strings.Repeat("x", 3*block)
	for name, tt := range map[string]struct{ before, want string }{
		"no bytes":                                  {"", ""},
		"whole lines":                               {a + "\nb\n", a + "\nb\n"},
		"a torn line":                               {a + "\nb\ntorn", a + "\nb\n"},
		"nothing but a torn line":                   {a, ""},
		"nothing but a few bytes of one":            {a[:3], ""},
		"a torn line longer than a block":           {a + "\n" + long, a + "\n"},
		"nothing but one longer than a block":       {long, ""},
		"a torn line of one block":                  {a + "\n" + long[:block], a + "\n"},
		"a torn line of a block less one byte":      {a + "\n" + long[:block-1], a + "\n"},
		"a break on the border of blocks":           {long[:block-1] + "\n" + long[:block], long[:block-1] + "\n"},
		"a whole line longer than a block":          {long + "\n", long + "\n"},
		"zeros, as a crash leaves them":             {a + "\n\x00\x00\x00\x00", a + "\n"},
		"a first line that a crash left with zeros": {a[:6] + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", ""},
		"nothing but zeros":                         {strings.Repeat("\x00", 4096), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "changes.jsonl")
			if err := os.WriteFile(path, []byte(tt.before), 0o600); err != nil {
				t.Fatal(err)
			}
			s := openFile(t, path)
			d := delivery("a", 1)
			if err := s.Deliver(t.Context(), []statesync.Delivery{d}); err != nil {
				t.Fatal(err)
			}
			line, err := statesync.MarshalEvent(d)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if want := tt.want + string(line) + " \n"; string(got) != want {
				t.Errorf("%d bytes, want %d: what was whole, then the new line; it starts %.40q", len(got), len(want), got)
			}
		})
	}
}

func TestFileThatIsNotOursIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"a key": "c2VjcmV0", "a configuration": "service: x\nlisten: {}\n", "a line break": "\n"} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := (&FileConfig{Path: config.Path(path)}).Open(""); err == nil {
			_ = s.(*fileSink).Close()
			t.Errorf("%s was opened for changes", name)
		}
		if got, err := os.ReadFile(path); string(got) != content {
			t.Errorf("%s is now %q, %v", name, got, err)
		}
	}
}

func TestFileFollowsWhatOthersDoToIt(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		touch func(path string) error
		want  int // changes in the file at last, of two
	}{
		"moved away, as logrotate does":    {func(p string) error { return os.Rename(p, p+".1") }, 1},
		"removed":                          {os.Remove, 1},
		"emptied, as copytruncate does":    {func(p string) error { return os.Truncate(p, 0) }, 1},
		"cut in the middle of a line":      {func(p string) error { return os.Truncate(p, 30) }, 1},
		"written to without a line's end":  {func(p string) error { return appendTo(p, "mine") }, 2},
		"replaced by another file of ours": {func(p string) error { return errors.Join(os.Remove(p), appendTo(p, "")) }, 1},
		"left alone":                       {func(string) error { return nil }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "changes.jsonl")
			s := openFile(t, path)
			for i := range int64(2) {
				if err := s.Deliver(t.Context(), []statesync.Delivery{delivery("a", i+1)}); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					if err := tt.touch(path); err != nil {
						t.Fatal(err)
					}
				}
			}
			if ids := idsIn(t, path); len(ids) != tt.want || ids[len(ids)-1] != delivery("a", 2).ID {
				t.Errorf("changes %q, want %d, the second last", ids, tt.want)
			}
		})
	}
}

func TestFileBelongsToOneAgent(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "changes.jsonl")
	openFile(t, path)
	if s, err := (&FileConfig{Path: config.Path(path)}).Open(""); err == nil || !strings.Contains(err.Error(), "is in use by another agent") {
		t.Errorf("opened twice: %v, %v", s, err)
	}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func TestFileGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "changes.jsonl")
	var want []string
	for i := range int64(3) {
		s := openFile(t, path)
		ds := []statesync.Delivery{delivery("a", 2*i+1), delivery("a", 2*i+2)}
		if err := s.Deliver(t.Context(), ds); err != nil {
			t.Fatal(err)
		}
		want = append(want, ds[0].ID, ds[1].ID)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, idsIn(t, path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600: changes name people's workloads", info.Mode(), err)
	}
}

func TestFileHasItsBytesWhenDeliverReturns(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "changes.jsonl")
	s := openFile(t, path)
	for i := range int64(5) {
		if err := s.Deliver(t.Context(), []statesync.Delivery{delivery("a", i+1)}); err != nil {
			t.Fatal(err)
		}
		if got := idsIn(t, path); len(got) != int(i+1) {
			t.Fatalf("%d lines after %d deliveries", len(got), i+1)
		}
	}
}

// TestFileTakesABatchWholeOrNotAtAll: one change that cannot be written keeps
// the others of its batch out too.
func TestFileTakesABatchWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "changes.jsonl")
	s := openFile(t, path)
	bad := delivery("b", 1)
	bad.Occurred = bad.Occurred.AddDate(9000, 0, 0) // JSON has no such year
	err := s.Deliver(t.Context(), []statesync.Delivery{delivery("a", 1), bad})
	var batchErr *statesync.BatchError
	if !errors.As(err, &batchErr) || len(batchErr.Errs) != 2 {
		t.Fatalf("error %v, want a BatchError of two", err)
	}
	for i, err := range batchErr.Errs {
		var sinkErr *statesync.SinkError
		if !errors.As(err, &sinkErr) || sinkErr.Cause != "encode" || sinkErr.Rejected != (i == 1) {
			t.Errorf("error of delivery %d: %+v, want one of cause encode, rejected if it is the bad one", i, err)
		}
	}
	if got := idsIn(t, path); len(got) != 0 {
		t.Errorf("the file has %v, want nothing", got)
	}
}

// TestFileOnAFullDevice writes to the device that is always full.
func TestFileOnAFullDevice(t *testing.T) {
	t.Parallel()
	const device = "/dev/full"
	if _, err := os.Stat(device); err != nil {
		t.Skip(err)
	}
	s := openFile(t, device)
	err := s.Deliver(t.Context(), []statesync.Delivery{delivery("a", 1)})
	var sinkErr *statesync.SinkError
	if !errors.As(err, &sinkErr) || sinkErr.Cause != "write" || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("error %v, want one of cause write that says that there is no space", err)
	}
	if s.acked.at != 0 {
		t.Errorf("acknowledged up to %d after a failure, want 0", s.acked.at)
	}
}

func TestFileThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, path := range map[string]string{"a folder": dir, "in no folder": filepath.Join(dir, "no", "such")} {
		if s, err := (&FileConfig{Path: config.Path(path)}).Open(""); err == nil {
			_ = s.(*fileSink).Close()
			t.Errorf("%s was opened", name)
		}
	}
}

func FuzzAfterLastLine(f *testing.F) {
	for _, seed := range []string{"", "\n", "a", "a\n", "a\nb", "\n\n", "a\x00\nb\xff"} {
		f.Add([]byte(seed), uint32(0))
	}
	f.Add([]byte("a\n"), uint32(64<<10))
	f.Fuzz(func(t *testing.T, content []byte, torn uint32) {
		content = append(content, bytes.Repeat([]byte("x"), int(torn%(200<<10)))...)
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		got, err := afterLastLine(file)
		if want := int64(bytes.LastIndexByte(content, '\n')) + 1; err != nil || got != want {
			t.Fatalf("the last whole line ends at %d, %v, want %d", got, err, want)
		}
	})
}

func FuzzParsePosition(f *testing.F) {
	for _, seed := range []string{"", "1:inode=3:gen=1:at=0", "1:inode=3:gen=0:at=0", "1:inode=3:gen=1:at=-1", "1:inode=3:gen=1:at=01", "1:inode=3:gen=1:at=1 ", "2:at=7"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, ok := parsePosition(text)
		if ok && (p.String() != text || p.at < 0 || p.generation < 1) {
			t.Fatalf("position %+v of %q, want what was written", p, text)
		}
	})
}
