package sinks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
)

// minFileBytes is the least max_bytes: smaller files would be many files.
const minFileBytes = 1 << 20

// FileConfig describes a file to which changes are appended, one CloudEvent a
// line, in the ledger's order. Lines are synced to disk before they count as
// acknowledged, and are in the file once, whatever crashes, as long as one sink
// alone writes the path and max_files leaves the file in which the cursor is.
//
// A sink takes over a file when it has no position in it: it is new, its path
// is another now, somebody cut the file, or another sink has written to it
// since. Then it takes nothing away, and goes on after the last whole line:
// what was not acknowledged yet may be there twice. The first line that it
// writes ends with a space, so that no other takes the lines for its own.
type FileConfig struct {
	Path config.Path `yaml:"path" required:"true"`
	// MaxBytes is what a file holds at most, unless one line alone is longer:
	// then it is renamed, to its name and a growing number of six digits, and
	// a new one is begun. 0: never.
	MaxBytes config.Bytes `yaml:"max_bytes"`
	// MaxFiles is how many such files are kept. 0: all.
	MaxFiles int `yaml:"max_files"`
}

// Validate is asked when the configuration is read.
func (c *FileConfig) Validate() error {
	var errs []error
	if c.MaxBytes != 0 && c.MaxBytes < minFileBytes {
		errs = append(errs, &config.FieldError{Key: "max_bytes", Got: c.MaxBytes.String(), Want: "0 (never rotated), or at least 1MiB"})
	}
	switch {
	case c.MaxFiles < 0:
		errs = append(errs, &config.FieldError{Key: "max_files", Got: fmt.Sprint(c.MaxFiles), Want: "0 (all are kept), or more"})
	case c.MaxFiles > 0 && c.MaxBytes == 0:
		errs = append(errs, &config.FieldError{Key: "max_files", Got: fmt.Sprint(c.MaxFiles) + " without max_bytes", Want: "max_bytes too: the file is not rotated without it"})
	}
	return errors.Join(errs...)
}

// Target is the file, so that two sinks on one file can be refused. What this
// does not see, such as two names of one file, the file's lock does.
func (c *FileConfig) Target() string {
	path := filepath.Clean(string(c.Path))
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// Open implements [Builder]. It makes the file if there is none. A file that
// another process has open for changes is an error.
func (c *FileConfig) Open(string) (statesync.Sink, error) {
	s := &fileSink{path: string(c.Path), maxBytes: int64(c.MaxBytes), maxFiles: c.MaxFiles, step: failpoint.Here}
	if err := s.begin(); err != nil {
		return nil, err
	}
	s.acked = s.position(true)
	return s, nil
}

// fileSink appends lines to the file under a path. What was acknowledged ends
// at its position, which a start after a crash is told. What lies beyond it was
// written and perhaps acknowledged, and comes again: each line that comes is
// compared with the bytes that lie there. Equal ones stay; from the first
// difference on the rest is cut off. So whole lines that come again are never
// taken away from a reader that follows the file.
//
// There is one way back from any failure, be it the process's end or a full
// disk: to let go of everything and to begin at the position again.
type fileSink struct {
	path     string // as configured; it may be a link
	maxBytes int64
	maxFiles int
	step     func(name string) error // called before each change to the disk; a test may end it there

	acked   position
	files   []*file // from the one in which the next line goes, or lies, to the one under the path; none after a failure
	target  string  // the path without links, when files were opened
	doubt   bool    // what lies beyond the position is the sink's own only if its first line comes
	rotated bool    // since old files were last removed
	lines   bytes.Buffer
	there   []byte
}

// Ordered implements [statesync.OrderedSink].
func (s *fileSink) Ordered() {}

// Deliver implements [statesync.Sink].
func (s *fileSink) Deliver(_ context.Context, ds []statesync.Delivery) error {
	if len(ds) == 0 {
		return nil
	}
	if err := s.encode(ds); err != nil {
		return err
	}
	if err := s.follow(); err != nil {
		s.letGo()
		return &statesync.SinkError{Cause: "open", Err: err}
	}
	batch := s.lines.Bytes()
	if s.acked.takesOver {
		batch = signed(batch)
	}
	if err := s.write(batch); err != nil {
		s.letGo()
		return &statesync.SinkError{Cause: "write", Err: err}
	}
	if err := s.step("file/delivered"); err != nil {
		s.letGo()
		return &statesync.SinkError{Cause: "write", Err: err}
	}
	s.acked = s.position(false)
	if s.rotated {
		s.prune()
	}
	return nil
}

// encode fills lines. A change that cannot be written keeps the others of its
// batch out: they are in the log's order, and come again without it.
func (s *fileSink) encode(ds []statesync.Delivery) error {
	s.lines.Reset()
	errs := make([]error, len(ds))
	bad := 0
	for i, d := range ds {
		line, err := statesync.MarshalEvent(d)
		if err != nil {
			bad++
			errs[i] = &statesync.SinkError{Cause: "encode", Rejected: true, Err: err}
			continue
		}
		s.lines.Write(line)
		s.lines.WriteByte('\n')
	}
	if bad == 0 {
		return nil
	}
	for i := range errs {
		if errs[i] == nil {
			errs[i] = &statesync.SinkError{Cause: "encode", Err: errors.New("another change of its batch cannot be written")}
		}
	}
	return &statesync.BatchError{Errs: errs}
}

// write writes whole lines and syncs them. A run of them that goes into one
// file is written at once.
func (s *fileSink) write(batch []byte) error {
	from, to := 0, 0 // the run
	for to < len(batch) {
		f, last := s.files[0], len(s.files) == 1
		at := f.at + int64(to-from)
		line := batch[to : to+bytes.IndexByte(batch[to:], '\n')+1]
		there, err := s.lies(f, at, len(line))
		if err != nil {
			return err
		}
		full := s.maxBytes > 0 && at > 0 && at+int64(len(line)) > s.maxBytes
		isThere := bytes.Equal(there, line)
		begun := last && len(there) > 0 && bytes.HasPrefix(line, there)
		fits := last && len(there) == 0 && !full
		if isThere || begun || fits {
			s.doubt = s.doubt && !isThere
			to += len(line)
			continue
		}
		if err := s.flush(batch[from:to]); err != nil {
			return err
		}
		from = to
		switch {
		case len(there) > 0 && s.doubt:
			err = s.passOver()
		case len(there) > 0:
			err = s.cut()
		case last:
			err = s.rotate()
		default:
			s.advance()
		}
		if err != nil {
			return err
		}
	}
	return s.flush(batch[from:to])
}

// lies reads what lies where a line is to go: as many bytes, or as there are.
// They are not valid after the next call.
func (s *fileSink) lies(f *file, at int64, n int) ([]byte, error) {
	n = int(min(int64(n), max(0, f.end-at)))
	if n == 0 {
		return nil, nil
	}
	if cap(s.there) < n {
		s.there = make([]byte, n)
	}
	if _, err := f.ReadAt(s.there[:n], at); err != nil {
		return nil, fmt.Errorf("read what was written before: %w", err)
	}
	return s.there[:n], nil
}

// flush writes lines to their place in the first file and syncs it. Lines that
// lie there already are written again: after a sync that has failed the kernel
// takes what it could not write for written, and would not try it again.
func (s *fileSink) flush(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	f := s.files[0]
	if err := s.step("file/write"); err != nil {
		return err
	}
	n, err := f.WriteAt(lines, f.at)
	if err != nil {
		return errors.Join(err, s.untear(f))
	}
	f.at += int64(n)
	f.end = max(f.end, f.at)
	return s.sync(f)
}

// untear takes away the beginning of a line that a failed write has left:
// somebody may want to move the file before there is room for the rest. How
// much was written WriteAt does not say.
func (s *fileSink) untear(f *file) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	whole, err := afterLastLine(f.File)
	if whole = max(whole, f.end); err != nil || whole >= info.Size() {
		return err
	}
	return s.truncate(f, whole)
}

func (s *fileSink) sync(f *file) error {
	if err := s.step("file/sync"); err != nil {
		return err
	}
	return f.Sync()
}

func (s *fileSink) truncate(f *file, size int64) error {
	if err := s.step("file/truncate"); err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("cut what is to be written again: %w", err)
	}
	f.at, f.end = min(f.at, size), size
	return nil
}

// Close implements [io.Closer].
func (s *fileSink) Close() error {
	s.letGo()
	return nil
}
