package sinks

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
)

// rotated writes changes, three of which fill a file (with the space at the
// end of the very first), and returns the sink.
func rotated(t *testing.T, dir string, cfg FileConfig, n int) *fileSink {
	t.Helper()
	cfg.Path = config.Path(filepath.Join(dir, "changes.jsonl"))
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = config.Bytes(len(linesOf(t, short(1, 3))) + 1)
	}
	opened, err := cfg.Open("")
	if err != nil {
		t.Fatal(err)
	}
	s := opened.(*fileSink)
	t.Cleanup(func() { _ = s.Close() })
	give(t, s, short(1, n)...)
	return s
}

// short are changes of lines of one length.
func short(from, to int) []statesync.Delivery {
	var out []statesync.Delivery
	for i := from; i <= to; i++ {
		out = append(out, delivery("a", int64(i+100)))
	}
	return out
}

func give(t *testing.T, s *fileSink, ds ...statesync.Delivery) {
	t.Helper()
	for _, d := range ds {
		if err := s.Deliver(t.Context(), []statesync.Delivery{d}); err != nil {
			t.Fatal(err)
		}
	}
}

// folder shows the files of a folder: name, and the seqs in it.
func folder(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		text := e.Name() + ":"
		for _, id := range idsIn(t, filepath.Join(dir, e.Name())) {
			var seq int
			if _, err := fmt.Sscanf(id, "a-%d", &seq); err != nil {
				t.Fatalf("line %q: %v", id, err)
			}
			text += fmt.Sprint(" ", seq-100)
		}
		out = append(out, text)
	}
	return strings.Join(out, "\n")
}

func TestFileRotates(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		maxFiles int
		want     string
	}{
		"all are kept": {0, "changes.jsonl: 10 11\nchanges.jsonl.000001: 1 2 3\nchanges.jsonl.000002: 4 5 6\nchanges.jsonl.000003: 7 8 9"},
		"two are kept": {2, "changes.jsonl: 10 11\nchanges.jsonl.000002: 4 5 6\nchanges.jsonl.000003: 7 8 9"},
		"one is kept":  {1, "changes.jsonl: 10 11\nchanges.jsonl.000003: 7 8 9"},
	} {
		dir := t.TempDir()
		rotated(t, dir, FileConfig{MaxFiles: tt.maxFiles}, 11)
		if got := folder(t, dir); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, tt.want)
		}
	}
}

// TestFileNumbersAreNotUsedTwice: somebody may have taken the rotated ones
// away, and know them by their names.
func TestFileNumbersAreNotUsedTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := rotated(t, dir, FileConfig{}, 7)
	position := s.Position()
	for n := 1; n < 3; n++ {
		if err := os.Remove(s.rotatedName(int64(n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Resume(position); err != nil {
		t.Fatal(err)
	}
	give(t, s, short(8, 10)...)
	if got, want := folder(t, dir), "changes.jsonl: 10\nchanges.jsonl.000003: 7 8 9"; got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
}

// TestFileGoesOnAt opens a folder with a position that was taken after the
// fourth change of eleven, delivers a change and looks at what there is.
func TestFileGoesOnAt(t *testing.T) {
	t.Parallel()
	const all = "changes.jsonl: 10 11\nchanges.jsonl.000001: 1 2 3\nchanges.jsonl.000002: 4 5 6\nchanges.jsonl.000003: 7 8 9"
	path := func(dir string) string { return filepath.Join(dir, "changes.jsonl") }
	rename := func(from, to string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		touch    func(t *testing.T, dir string)
		position func(p position) string // nil: as it was
		give     []statesync.Delivery
		want     string
	}{
		"what lies there comes again": {give: short(5, 12), want: strings.Replace(all, "11", "11 12", 1)},
		"a part of it comes again":    {give: short(5, 6), want: all},
		"another line comes, and those after it": {
			give: append(short(5, 5), short(20, 21)...),
			want: "changes.jsonl: 20 21\nchanges.jsonl.000001: 1 2 3\nchanges.jsonl.000002: 4 5",
		},
		"another line comes in a later file": {
			give: append(short(5, 7), short(20, 21)...),
			want: "changes.jsonl: 20 21\nchanges.jsonl.000001: 1 2 3\nchanges.jsonl.000002: 4 5 6\nchanges.jsonl.000003: 7",
		},
		"another line comes in the last file": {
			give: append(short(5, 10), short(20, 21)...),
			want: strings.Replace(all, "10 11", "10 20 21", 1),
		},
		"no position is known":         {position: func(position) string { return "" }, give: short(12, 12), want: strings.Replace(all, "11", "11 12", 1)},
		"another version's position":   {position: func(p position) string { return "2:" + p.String() }, give: short(12, 12), want: strings.Replace(all, "11", "11 12", 1)},
		"a position of another file":   {position: func(p position) string { p.inode += 1 << 40; return p.String() }, give: short(12, 12), want: strings.Replace(all, "11", "11 12", 1)},
		"a position of another path":   {position: func(p position) string { p.path++; return p.String() }, give: short(12, 12), want: strings.Replace(all, "11", "11 12", 1)},
		"a position beyond the end":    {position: func(p position) string { p.at += 1 << 20; return p.String() }, give: short(12, 12), want: strings.Replace(all, "11", "11 12", 1)},
		"a position within a line":     {position: func(p position) string { p.at--; return p.String() }, give: short(12, 12), want: strings.Replace(all, "11", "11 12", 1)},
		"somebody else gave it a name": {touch: rename("changes.jsonl.000002", "x"), give: short(5, 12), want: "changes.jsonl: 10 11 12\nchanges.jsonl.000001: 1 2 3\nchanges.jsonl.000003: 7 8 9\nx: 4 5 6"},
		"somebody took its file away":  {touch: func(t *testing.T, dir string) { remove(t, path(dir)+".000002") }, give: short(12, 12), want: "changes.jsonl: 10 11 12\nchanges.jsonl.000001: 1 2 3\nchanges.jsonl.000003: 7 8 9"},
		"it died before a new one":     {touch: func(t *testing.T, dir string) { remove(t, path(dir)) }, give: short(5, 10), want: strings.Replace(all, "10 11", "10", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := rotated(t, dir, FileConfig{}, 4)
			p, _ := parsePosition(s.Position())
			give(t, s, short(5, 11)...)
			if tt.touch != nil {
				_ = s.Close()
				tt.touch(t, dir)
			}
			text := p.String()
			if tt.position != nil {
				text = tt.position(p)
			}
			if err := s.Resume(text); err != nil {
				t.Fatal(err)
			}
			if err := s.Deliver(t.Context(), tt.give); err != nil {
				t.Fatal(err)
			}
			if got := folder(t, dir); got != tt.want {
				t.Errorf("\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// TestFileLeavesOthersAlone: what lies where the sink's own files would be, and
// is not, stays as it is; changes go on in the file under the path.
func TestFileLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	t.Run("a file of another kind among the rotated ones", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		s := rotated(t, dir, FileConfig{}, 4)
		position := s.Position()
		give(t, s, short(5, 11)...)
		name := s.rotatedName(3)
		replace(t, name, "c2VjcmV0")
		if err := s.Resume(position); err != nil {
			t.Fatal(err)
		}
		give(t, s, short(20, 20)...)
		if got, err := os.ReadFile(name); string(got) != "c2VjcmV0" {
			t.Errorf("the file is now %q, %v", got, err)
		}
		if got := idsIn(t, s.path); len(got) != 3 {
			t.Errorf("changes %q in the file under the path, want one more than the two before", got)
		}
	})
	t.Run("an archive put back under the path", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		s := rotated(t, dir, FileConfig{MaxBytes: 1 << 20}, 4)
		if err := os.Rename(s.path, s.path+"-old"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path, []byte(linesOf(t, short(30, 32))+eventStart), 0o600); err != nil {
			t.Fatal(err)
		}
		give(t, s, short(5, 6)...)
		if got, want := folder(t, dir), "changes.jsonl: 30 31 32 5 6\nchanges.jsonl-old: 1 2 3 4"; got != want {
			t.Errorf("\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("lines that somebody else has added", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		s := rotated(t, dir, FileConfig{MaxBytes: 1 << 20}, 2)
		if err := appendTo(s.path, linesOf(t, short(30, 30))); err != nil {
			t.Fatal(err)
		}
		give(t, s, short(3, 3)...)
		if got, want := folder(t, dir), "changes.jsonl: 1 2 30 3"; got != want {
			t.Errorf("\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("a file that has a rotated one's name", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		s := rotated(t, dir, FileConfig{}, 3)
		if err := os.WriteFile(s.rotatedName(1), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(s.rotatedName(2), 0o700); err != nil {
			t.Fatal(err)
		}
		give(t, s, short(4, 4)...) // with the next number
		if got, err := os.ReadFile(s.rotatedName(1)); string(got) != "mine" {
			t.Errorf("the file is now %q, %v", got, err)
		}
		if got := idsIn(t, s.rotatedName(3)); len(got) != 3 {
			t.Errorf("rotated %q, want three changes", got)
		}
	})
}

// TestFileBehindALink is rotated where the file is: the link stays.
func TestFileBehindALink(t *testing.T) {
	t.Parallel()
	dir, links := t.TempDir(), t.TempDir()
	link := filepath.Join(links, "link")
	if err := os.Symlink(filepath.Join(dir, "changes.jsonl"), link); err != nil {
		t.Fatal(err)
	}
	cfg := FileConfig{Path: config.Path(link), MaxBytes: config.Bytes(len(linesOf(t, short(1, 3))) + 1)}
	opened, err := cfg.Open("")
	if err != nil {
		t.Fatal(err)
	}
	s := opened.(*fileSink)
	defer s.Close()
	give(t, s, short(1, 5)...)
	if got, want := folder(t, dir), "changes.jsonl: 4 5\nchanges.jsonl.000001: 1 2 3"; got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
	plain := FileConfig{Path: config.Path(filepath.Join(dir, "x", "..", "changes.jsonl"))}
	if cfg.Target() != plain.Target() {
		t.Errorf("targets %q and %q, want one: they are one file", cfg.Target(), plain.Target())
	}
	inLink := FileConfig{Path: config.Path(filepath.Join(links, "folder", "new"))}
	if err := os.Symlink(dir, filepath.Join(links, "folder")); err != nil {
		t.Fatal(err)
	}
	if got, want := inLink.Target(), filepath.Join(filepath.Dir(plain.Target()), "new"); got != want {
		t.Errorf("target %q, want %q", got, want)
	}
	hard := filepath.Join(links, "hard")
	if err := os.Link(filepath.Join(dir, "changes.jsonl"), hard); err != nil {
		t.Fatal(err)
	}
	if second, err := (&FileConfig{Path: config.Path(hard)}).Open(""); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opened under a second name: %v, %v", second, err)
	}
}

// TestFileSyncsWhatAFailedSyncLeft: the kernel would take it for written.
func TestFileSyncsWhatAFailedSyncLeft(t *testing.T) {
	t.Parallel()
	s := rotated(t, t.TempDir(), FileConfig{}, 1)
	failing, writes := true, 0
	s.step = func(name string) error {
		if name == "file/write" {
			writes++
		}
		if name == "file/sync" && failing {
			failing = false
			return os.ErrDeadlineExceeded
		}
		return nil
	}
	if err := s.Deliver(t.Context(), short(2, 2)); err == nil {
		t.Fatal("acknowledged, and the sync has failed")
	}
	give(t, s, short(2, 2)...)
	if got := idsIn(t, s.path); writes != 2 || len(got) != 2 {
		t.Errorf("%d writes, file %q; want the line written twice, and there once", writes, got)
	}
}

// TestFileIsSyncedIndeed closes the file when it is to be synced: that must be
// noticed.
func TestFileIsSyncedIndeed(t *testing.T) {
	t.Parallel()
	s := rotated(t, t.TempDir(), FileConfig{}, 1)
	s.step = func(name string) error {
		if name == "file/sync" {
			return s.files[0].Close()
		}
		return nil
	}
	if err := s.Deliver(t.Context(), short(2, 2)); err == nil {
		t.Error("acknowledged, and the file could not be synced")
	}
}

// TestFileUnderAnInodeThatIsUsedAgain: the position's file is gone, and the one
// under the path has its inode.
func TestFileUnderAnInodeThatIsUsedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := rotated(t, dir, FileConfig{}, 8)
	now, _ := parsePosition(s.Position())
	now.generation, now.at = 2, now.at/2
	remove(t, s.rotatedName(1))
	if err := s.Resume(now.String()); err != nil {
		t.Fatal(err)
	}
	give(t, s, short(20, 20)...)
	if got, want := folder(t, dir), "changes.jsonl: 7 8 20\nchanges.jsonl.000002: 4 5 6"; got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
}

func TestFileConfigRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sink, want string // want is empty when it is accepted
	}{
		{"file: {path: x}", ""},
		{"file: {path: x, max_bytes: 1MiB, max_files: 3}", ""},
		{"file: {path: x, max_bytes: 64KiB}", "max_bytes: got 64KiB"},
		{"file: {path: x, max_files: -1, max_bytes: 1GiB}", "max_files: got -1"},
		{"file: {path: x, max_files: 3}", "max_files: got 3 without max_bytes"},
	} {
		_, err := parse(t, tt.sink)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.sink, err, tt.want)
		}
	}
	device := FileConfig{Path: "/dev/null", MaxBytes: 1 << 20}
	if s, err := device.Open(""); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("opened a device that is to be rotated: %v, %v", s, err)
	}
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, name, content string) {
	t.Helper()
	remove(t, name)
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
