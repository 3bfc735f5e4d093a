package sinks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
)

// FileConfig describes a file to which changes are appended, one CloudEvent a
// line, in the ledger's order. Lines are synced to disk before they count as
// acknowledged.
type FileConfig struct {
	Path config.Path `yaml:"path" required:"true"`
}

// Target is the file, so that two sinks on one file can be refused.
func (c *FileConfig) Target() string { return filepath.Clean(string(c.Path)) }

// Open implements [Builder]. It makes the file if there is none, and takes
// away a last line that was not finished: its change was not acknowledged and
// is written again. A file that another process has open for changes is an
// error.
func (c *FileConfig) Open(string) (statesync.Sink, error) {
	s := &fileSink{path: string(c.Path)}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

type fileSink struct {
	path string
	f    *os.File // nil after it could not be opened again
	size int64    // up to where the file is acknowledged
	torn bool     // more than that was written, and could not be taken away
	buf  bytes.Buffer
}

func (s *fileSink) open() error {
	_, statErr := os.Stat(s.path)
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = lockError(s.path, err)
	}
	if err == nil {
		err = mayAppend(f)
	}
	if err == nil {
		s.size, err = cutTornLine(f)
	}
	if err == nil && errors.Is(statErr, os.ErrNotExist) {
		err = syncDir(filepath.Dir(s.path))
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	s.f, s.torn = f, false
	return nil
}

func lockError(path string, err error) error {
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s is in use by another agent: give each a file of its own", path)
	}
	return fmt.Errorf("lock %s: %w", path, err)
}

// follow looks whether somebody else has touched the file. One that was moved
// away or removed is opened anew under its name, so that rotation by renaming
// works; one that was cut or written to is gone on with after its last whole
// line.
func (s *fileSink) follow() error {
	if s.f != nil {
		now, err := os.Stat(s.path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		have, err := s.f.Stat()
		if err != nil {
			return err
		}
		here := now != nil && os.SameFile(now, have)
		if here && s.torn {
			return s.rewind()
		}
		if here && now.Size() == s.size {
			return nil
		}
		f := s.f
		if s.f = nil; f.Close() != nil {
			return fmt.Errorf("close %s after it was moved or changed", s.path)
		}
	}
	return s.open()
}

// Ordered implements [statesync.OrderedSink].
func (s *fileSink) Ordered() {}

// Deliver implements [statesync.Sink].
func (s *fileSink) Deliver(_ context.Context, ds []statesync.Delivery) error {
	s.buf.Reset()
	for _, d := range ds {
		line, err := statesync.MarshalEvent(d)
		if err != nil {
			return &statesync.SinkError{Cause: "encode", Err: err}
		}
		s.buf.Write(line)
		s.buf.WriteByte('\n')
	}
	if err := s.follow(); err != nil {
		return &statesync.SinkError{Cause: "open", Err: err}
	}
	n, err := s.f.WriteAt(s.buf.Bytes(), s.size)
	if err == nil {
		err = s.f.Sync()
	}
	if err != nil {
		return &statesync.SinkError{Cause: "write", Err: errors.Join(err, s.rewind())}
	}
	s.size += int64(n)
	return nil
}

// rewind takes away what was written and not acknowledged: it must not stay,
// because the next try may be of another length.
func (s *fileSink) rewind() error {
	err := s.f.Truncate(s.size)
	s.torn = err != nil
	return err
}

// Close implements [io.Closer].
func (s *fileSink) Close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}

// eventStart is how every line of ours begins.
const eventStart = `{"specversion":`

// mayAppend refuses a file that is not ours, before anything is cut from it:
// a wrong path in the configuration must not cost a key its bytes. A file that
// begins with zeros is one whose data a crash of the machine has lost.
func mayAppend(f *os.File) error {
	start := make([]byte, len(eventStart))
	n, err := f.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the first line: %w", err)
	}
	if start = bytes.TrimRight(start[:n], "\x00"); string(start) != eventStart[:len(start)] {
		return fmt.Errorf("%s holds something else than changes, want an empty file, a new one, or one that outrider wrote", f.Name())
	}
	return nil
}

// cutTornLine truncates the file after its last line break and returns its
// size.
func cutTornLine(f *os.File) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	const step = 64 << 10
	for at := end; at > 0; {
		from := max(0, at-step)
		block := make([]byte, at-from)
		if _, err := f.ReadAt(block, from); err != nil {
			return 0, fmt.Errorf("read the last line: %w", err)
		}
		if i := bytes.LastIndexByte(block, '\n'); i >= 0 {
			keep := from + int64(i) + 1
			return keep, truncate(f, keep, end)
		}
		at = from
	}
	return 0, truncate(f, 0, end)
}

func truncate(f *os.File, keep, size int64) error {
	if keep == size {
		return nil
	}
	if err := f.Truncate(keep); err != nil {
		return fmt.Errorf("cut an unfinished last line: %w", err)
	}
	return nil
}

// syncDir makes a new file's name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
