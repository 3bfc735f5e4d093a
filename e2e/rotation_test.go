package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// inTheFile are the places around a change's way into the file: up to its
// cursor, and in a rotation. Read-only.
var inTheFile = []place{
	{"delivery/sent", 20},
	{"delivery/saved", 3},
	{"file/write", 5},
	{"file/sync", 5},
	{"file/delivered", 5},
	{"file/rename", 1},
	{"file/sync_dir", 1},
	{"file/create", 1},
}

// TestTheFileHasEverythingOnce kills the agent between the file's write and its
// cursor, and in the middle of rotations, with a reader that follows. The files
// together hold each event once, as does what the reader has seen.
func TestTheFileHasEverythingOnce(t *testing.T) {
	needCluster(t)
	s := newSession(t, "rotation")
	s.killed = true
	config := with(t, configOf(s.ns), "file: {path: ./changes.ndjson}", "file: {path: ./changes.ndjson, max_bytes: 1MiB}")
	a := s.start(t, config)
	reader := follow(t, s.file())
	a.kill()
	l := load{labels: heavy()}
	l.start(t.Context(), t, s.ns, 100_000, 25)
	for round := range 2 { // later in the file each time
		for _, p := range inTheFile {
			p.times *= 1 + round
			a = launch(t, s.dir, config, fmt.Sprintf("%s=kill@%d", p.name, p.times))
			if !a.died(p.name, 20*time.Second) {
				t.FailNow() // with all the others it would take minutes
			}
		}
	}
	a = s.start(t, config)
	l.finish(t)
	drained(t, s.ns, time.Minute)
	maps.Copy(s.want, l.stories())
	s.hook.tells(t, time.Minute, s.want)
	a.stop()
	files := concatenated(t, s.file())
	if read := reader(); !bytes.Equal(read, files) {
		t.Errorf("a reader that follows has %d bytes, the files %d, or not the same", len(read), len(files))
	}
	n := len(rotated(t, s.file()))
	t.Logf("%d files, %d KiB", n, len(files)>>10)
	if n < 5 {
		t.Errorf("there are %d files, want rotations", n)
	}
	s.killed = false // of the file nothing is excused
	archive := s.archive(t)
	s.killed = true
	if events := s.outcome(t); len(events) != len(archive) {
		t.Errorf("the webhook has %d events, the file %d", len(events), len(archive))
	}
}

// follow reads a file sink's files as a log shipper does, until it is asked
// for what it has read: what is appended to one file, and once that was
// rotated and read to its end, the next one.
func follow(t *testing.T, path string) (read func() []byte) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var all []byte
	wg.Go(func() {
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		for last := false; ; {
			last = ctx.Err() != nil // what is there now is read once more
			next := successor(t, path, f)
			b, err := io.ReadAll(f)
			if all = append(all, b...); err != nil {
				t.Error(err)
				return
			}
			if next != "" {
				f.Close()
				if f, err = os.Open(next); err != nil {
					t.Error(err)
					return
				}
				continue
			}
			if last {
				f.Close()
				return
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	stop := sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(stop)
	return func() []byte {
		stop()
		return all
	}
}

// successor is the name of the file after the one that is open, which was
// rotated; empty: it was not, or is just being.
func successor(t *testing.T, path string, open *os.File) string {
	have, err := open.Stat()
	if err != nil {
		t.Error(err)
		return ""
	}
	names := rotated(t, path)
	i := slices.IndexFunc(names, func(name string) bool {
		info, err := os.Stat(name)
		return err == nil && os.SameFile(info, have)
	})
	if i < 0 || i == len(names)-1 {
		return ""
	}
	if _, err := os.Stat(names[i+1]); errors.Is(err, os.ErrNotExist) {
		return "" // the new one is still to come
	}
	return names[i+1]
}
