package sinks

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/outrider-agent/outrider/agent/config"
)

// resumed opens a sink as a start does, with the position that was kept.
func resumed(t *testing.T, cfg FileConfig, position string) *fileSink {
	t.Helper()
	opened, err := cfg.Open("")
	if err != nil {
		t.Fatal(err)
	}
	s := opened.(*fileSink)
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Resume(position); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestFileOfAnotherSinkIsNotCut: what lies beyond a sink's position is not its
// own when another sink has written there since, and acknowledged it.
func TestFileOfAnotherSinkIsNotCut(t *testing.T) {
	t.Parallel()
	// Each gets sinks one, which has written changes 1 to 3 to a, and two, which
	// has written 11 to 13 to b, as the positions that were kept.
	for name, tt := range map[string]struct {
		cfg  FileConfig // but for the path
		do   func(t *testing.T, open func(path, position string) *fileSink, one, two string)
		want string
	}{
		"they change their paths with each other": {do: func(t *testing.T, open func(string, string) *fileSink, one, two string) {
			first := open("b", one)
			give(t, first, short(21, 23)...)
			second := open("a", two)
			give(t, second, short(31, 31)...)
			give(t, first, short(24, 24)...)
		}, want: "a: 1 2 3 31\nb: 11 12 13 21 22 23 24"},
		"a path is given to a new one": {do: func(t *testing.T, open func(string, string) *fileSink, one, _ string) {
			third := open("a", "")
			give(t, third, short(41, 43)...)
			give(t, open("c", one), short(4, 4)...)
			give(t, third, short(44, 44)...)
		}, want: "a: 1 2 3 41 42 43 44\nb: 11 12 13\nc: 4"},
		"it is renamed and gets its name back": {do: func(t *testing.T, open func(string, string) *fileSink, one, _ string) {
			renamed := open("a", "")
			give(t, renamed, short(41, 43)...)
			_ = renamed.Close()
			give(t, open("a", one), short(4, 5)...)
		}, want: "a: 1 2 3 41 42 43 4 5\nb: 11 12 13"},
		"and the other name again": {do: func(t *testing.T, open func(string, string) *fileSink, one, _ string) {
			renamed := open("a", "")
			give(t, renamed, short(41, 43)...)
			_ = renamed.Close()
			back := open("a", one)
			give(t, back, short(4, 5)...)
			_ = back.Close()
			give(t, open("a", renamed.Position()), short(44, 44)...)
		}, want: "a: 1 2 3 41 42 43 4 5 44\nb: 11 12 13"},
		"the other one has rotated it since": {cfg: FileConfig{MaxBytes: 1800}, do: func(t *testing.T, open func(string, string) *fileSink, one, _ string) {
			renamed := open("a", "")
			give(t, renamed, short(41, 44)...)
			_ = renamed.Close()
			give(t, open("a", one), short(4, 4)...)
		}, want: "a: 44 4\na.000001: 1 2 3\na.000002: 41 42 43\nb: 11 12 13"},
		"it had taken over itself and written nothing": {do: func(t *testing.T, open func(string, string) *fileSink, _, _ string) {
			third := open("a", "")
			_ = third.Close()
			fourth := open("a", "")
			give(t, fourth, short(41, 43)...)
			_ = fourth.Close()
			give(t, open("a", third.Position()), short(51, 52)...)
		}, want: "a: 1 2 3 41 42 43 51 52\nb: 11 12 13"},
		"a change after a crash is its own": {do: func(t *testing.T, open func(string, string) *fileSink, _, _ string) {
			third := open("a", "")
			position := third.Position()
			give(t, third, short(41, 43)...)
			_ = third.Close()
			give(t, open("a", position), append(short(41, 41), short(52, 52)...)...)
		}, want: "a: 1 2 3 41 52\nb: 11 12 13"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			open := func(path, position string) *fileSink {
				cfg := tt.cfg
				cfg.Path = config.Path(filepath.Join(dir, path))
				return resumed(t, cfg, position)
			}
			one, two := open("a", ""), open("b", "")
			give(t, one, short(1, 3)...)
			give(t, two, short(11, 13)...)
			_ = one.Close()
			_ = two.Close()
			tt.do(t, open, one.Position(), two.Position())
			if got := folder(t, dir); got != tt.want {
				t.Errorf("\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// TestFileBesideADatedCopy: a name with somebody's date is not the number of a
// file that was rotated.
func TestFileBesideADatedCopy(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		position bool // a start; else a sync that fails
		content  func(t *testing.T, path string) []byte
	}{
		"a start, and a copy":         {true, func(t *testing.T, path string) []byte { return contentOf(t, path) }},
		"a start, and an empty file":  {true, func(*testing.T, string) []byte { return nil }},
		"a failure, and a copy":       {false, func(t *testing.T, path string) []byte { return contentOf(t, path) }},
		"a failure, and another file": {false, func(*testing.T, string) []byte { return []byte("notes\n") }},
	} {
		for _, date := range []string{".20261122", ".9223372036854775807"} {
			dir := t.TempDir()
			cfg := FileConfig{Path: config.Path(filepath.Join(dir, "changes.jsonl"))}
			s := resumed(t, cfg, "")
			give(t, s, short(1, 2)...)
			position := s.Position()
			dated := tt.content(t, s.path)
			if err := os.WriteFile(s.path+date, dated, 0o600); err != nil {
				t.Fatal(err)
			}
			if tt.position {
				give(t, s, short(3, 4)...) // written; the cursor is not
				_ = s.Close()
				s = resumed(t, cfg, position)
			} else {
				s.step = func(name string) error {
					if name == "file/sync" {
						return io.ErrUnexpectedEOF
					}
					return nil
				}
				if err := s.Deliver(t.Context(), short(3, 3)); err == nil {
					t.Fatal("acknowledged, and the sync has failed")
				}
				s.step = func(string) error { return nil }
			}
			give(t, s, short(3, 5)...)
			if got := contentOf(t, s.path+date); !bytes.Equal(got, dated) {
				t.Errorf("%s: %s is now %q", name, date, got)
			}
			remove(t, s.path+date)
			if got, want := folder(t, dir), "changes.jsonl: 1 2 3 4 5"; got != want {
				t.Errorf("%s, %s:\n%s\nwant\n%s", name, date, got, want)
			}
		}
	}
}

// TestFileRotatesBesideADatedCopy: nor does the copy come between the files
// that were rotated.
func TestFileRotatesBesideADatedCopy(t *testing.T) {
	t.Parallel()
	for _, date := range []string{".20261122", ".9223372036854775807"} {
		dir := t.TempDir()
		s := rotated(t, dir, FileConfig{}, 4)
		position := s.Position()
		dated := contentOf(t, s.rotatedName(1))
		if err := os.WriteFile(s.path+date, dated, 0o600); err != nil {
			t.Fatal(err)
		}
		give(t, s, short(5, 11)...)
		if err := s.Resume(position); err != nil {
			t.Fatal(err)
		}
		give(t, s, append(short(5, 5), short(20, 21)...)...)
		if got := contentOf(t, s.path+date); !bytes.Equal(got, dated) {
			t.Errorf("%s is now %q", date, got)
		}
		remove(t, s.path+date)
		if got, want := folder(t, dir), "changes.jsonl: 20 21\nchanges.jsonl.000001: 1 2 3\nchanges.jsonl.000002: 4 5"; got != want {
			t.Errorf("beside %s:\n%s\nwant\n%s", date, got, want)
		}
		s = rotated(t, t.TempDir(), FileConfig{}, 1)
		if err := os.WriteFile(s.path+".9223372036854775807", dated, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Resume(""); err != nil {
			t.Fatal(err)
		}
		if p, ok := parsePosition(s.Position()); !ok {
			t.Errorf("position %+v beside the highest number there is", p)
		}
	}
}

func contentOf(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFileThatSomebodyElseWritesIsNotOpenedAgain: its lock says so, whatever
// its inode was.
func TestFileThatSomebodyElseWritesIsNotOpenedAgain(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "changes.jsonl")
	s := resumed(t, FileConfig{Path: config.Path(name)}, "")
	give(t, s, short(1, 1)...)
	if f, ours, err := openAgain(name); ours || err != nil {
		t.Errorf("opened %v: ours %v, error %v; want neither", f, ours, err)
	}
	_ = s.Close()
	f, ours, err := openAgain(name)
	if !ours || err != nil {
		t.Fatalf("ours %v, error %v, once nobody writes it", ours, err)
	}
	_ = unlock(f.File)
}

// TestFileRemovesItsOwnOnly, of those with the names that rotated ones have.
func TestFileRemovesItsOwnOnly(t *testing.T) {
	t.Parallel()
	for _, number := range []string{".000002", ".000900", ".20260101"} {
		dir := t.TempDir()
		name := filepath.Join(dir, "changes.jsonl"+number)
		if err := os.WriteFile(name, []byte("my notes\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s := rotated(t, dir, FileConfig{MaxFiles: 1}, 12)
		if got := contentOf(t, name); string(got) != "my notes\n" {
			t.Errorf("%s is now %q", number, got)
		}
		remove(t, name)
		if files, err := s.rotatedFiles(); len(files) != 1 || err != nil {
			t.Errorf("beside %s: %d files are kept, error %v, want one", number, len(files), err)
		}
	}
}

// TestFileIsNotStuckBehindAFolder that has the next number.
func TestFileIsNotStuckBehindAFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, number := range []string{".000002", ".000003"} {
		if err := os.Mkdir(filepath.Join(dir, "changes.jsonl"+number), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := rotated(t, dir, FileConfig{}, 8)
	for _, number := range []int64{2, 3} {
		if err := os.Remove(s.rotatedName(number)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := folder(t, dir), "changes.jsonl: 7 8\nchanges.jsonl.000001: 1 2 3\nchanges.jsonl.000004: 4 5 6"; got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
}

func TestFileKeepsItsModeOverRotation(t *testing.T) {
	t.Parallel()
	s := rotated(t, t.TempDir(), FileConfig{}, 1)
	if err := os.Chmod(s.path, 0o640); err != nil {
		t.Fatal(err)
	}
	give(t, s, short(2, 8)...)
	if info, err := os.Stat(s.path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, error %v, want 0640 as of the file before", info.Mode(), err)
	}
}

// TestFileThatBeginsWithZerosIsLeftAlone, unless it holds nothing else: it may
// be the image of a disk.
func TestFileThatBeginsWithZerosIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "image")
	image := append(make([]byte, 100<<10), "the volume\nand the rest of it"...)
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := (&FileConfig{Path: config.Path(path)}).Open("")
	if err == nil {
		err = errors.Join(opened.(*fileSink).Close(), os.ErrExist)
	}
	if errors.Is(err, os.ErrExist) {
		t.Error("opened for changes")
	}
	if !bytes.Equal(contentOf(t, path), image) {
		t.Error("the file was changed")
	}
}
