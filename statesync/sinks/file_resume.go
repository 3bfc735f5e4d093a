package sinks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Where a file sink goes on:
//   - In the file of the position's inode: under the path, under the name that
//     a rotation gave it, or under one that somebody else did. Files that were
//     rotated after it come next, and at last the one under the path: what they
//     hold was written beyond the position.
//   - When there is no such file any more, or it is too short or its position
//     is within a line, it was replaced or cut by somebody else. When a line
//     beyond the position ends with a space, another sink has taken the file
//     over. Then after the last whole line of the file under the path.
//   - A file under the path that is there because somebody moved the one before
//     it away may be this sink's or somebody else's. It is this sink's when its
//     first line is the one that comes. So is what lies at a position at which
//     the sink has begun, and of which nothing was acknowledged.

// A file is one that holds lines of the sink.
type file struct {
	*os.File
	inode      uint64
	generation int64
	at         int64 // the next line's place: what lies beyond may be what comes
	end        int64 // its size
	doubtful   bool  // may be somebody else's
}

// Position implements [statesync.PositionedSink].
func (s *fileSink) Position() string { return s.acked.String() }

// Resume implements [statesync.PositionedSink]. A position that another
// version wrote, or that is one of other files, is as good as none.
func (s *fileSink) Resume(text string) error {
	s.letGo()
	p, ok := parsePosition(text)
	if !ok || p.path != hashOf(s.target) {
		p = position{}
	}
	s.acked = p
	return s.restart()
}

// restart begins at the position again.
func (s *fileSink) restart() error {
	if err := s.begin(); err != nil {
		return err
	}
	return s.find(s.acked)
}

// letGo closes everything; the next delivery restarts.
func (s *fileSink) letGo() {
	for len(s.files) > 0 {
		s.advance()
	}
}

// begin opens the file under the path, to go on after its last whole line.
func (s *fileSink) begin() error {
	_, statErr := os.Stat(s.path)
	missing := errors.Is(statErr, os.ErrNotExist)
	if missing {
		if err := s.step("file/create"); err != nil {
			return err
		}
	}
	opened, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	f, err := s.take(opened)
	if err == nil && missing {
		err = s.syncDir()
	}
	if err != nil {
		return errors.Join(err, unlock(opened))
	}
	f.generation = max(f.generation, s.acked.generation) // a number is not used twice
	s.files = []*file{f}
	return nil
}

// take locks the file under the path and looks what it is.
func (s *fileSink) take(opened *os.File) (*file, error) {
	if err := unix.Flock(int(opened.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, lockError(s.path, err)
	}
	f, err := describeFile(opened)
	if err != nil {
		return nil, err
	}
	if ours, err := f.isOurs(); err != nil || !ours {
		return nil, errors.Join(err, fmt.Errorf("%s holds something else than changes, want an empty file, a new one, or one that outrider wrote", s.path))
	}
	if f.at, err = afterLastLine(opened); err != nil {
		return nil, err
	}
	if s.target, err = filepath.EvalSymlinks(s.path); err != nil {
		return nil, err
	}
	info, err := opened.Stat()
	if err != nil {
		return nil, err
	}
	if s.maxBytes > 0 && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file, and cannot be rotated: want one, or no max_bytes", s.path)
	}
	rotated, err := s.rotatedFiles()
	if err != nil {
		return nil, err
	}
	f.generation = 1
	if n := len(rotated); n > 0 {
		f.generation = rotated[n-1] + 1
	}
	return f, nil
}

func lockError(path string, err error) error {
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s is in use by another agent: give each a file of its own", path)
	}
	return fmt.Errorf("lock %s: %w", path, err)
}

func describeFile(opened *os.File) (*file, error) {
	info, err := opened.Stat()
	if err != nil {
		return nil, err
	}
	return &file{File: opened, inode: inodeOf(info), end: info.Size()}, nil
}

func inodeOf(info os.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}

// openAgain opens a file beside the path. One that another sink writes now is
// not ours.
func openAgain(name string) (f *file, ours bool, err error) {
	opened, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, false, err
	}
	if err := unix.Flock(int(opened.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = opened.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, false, nil
		}
		return nil, false, lockError(name, err)
	}
	f, err = describeFile(opened)
	if err == nil {
		ours, err = f.isOurs()
	}
	if err != nil || !ours {
		_ = unlock(opened)
		return nil, false, err
	}
	return f, true, nil
}

// unlock closes a file. It unlocks it before: a process that is just being
// forked would keep the lock else.
func unlock(f *os.File) error {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	return f.Close()
}

// movedAway returns the name of the file with that inode in the path's folder;
// empty: there is none.
func (s *fileSink) movedAway(inode uint64) (string, error) {
	dir := filepath.Dir(s.target)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if e.Type().IsRegular() && name != s.target && hasInode(name, inode) {
			return name, nil
		}
	}
	return "", nil
}

func hasInode(name string, inode uint64) bool {
	info, err := os.Stat(name)
	return err == nil && inodeOf(info) == inode
}

// reaches reports whether a line begins at a place, or the file ends there.
func (f *file) reaches(at int64) (bool, error) {
	if at == 0 || at > f.end {
		return at == 0, nil
	}
	before := make([]byte, 1)
	if _, err := f.ReadAt(before, at-1); err != nil {
		return false, fmt.Errorf("read what was acknowledged: %w", err)
	}
	return before[0] == '\n', nil
}

// follow looks whether somebody else has touched the file. One that was moved
// away or removed is opened anew under its name, so that rotation by renaming
// works; one that was cut or written to is gone on with after its last whole
// line.
func (s *fileSink) follow() error {
	if len(s.files) == 0 {
		return s.restart()
	}
	now, err := os.Stat(s.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	active := s.files[len(s.files)-1]
	here := now != nil && inodeOf(now) == active.inode
	if here && now.Size() == active.end {
		return nil
	}
	settled := len(s.files) == 1 && active.at == active.end
	s.letGo()
	if !here || !settled {
		return s.restart()
	}
	err = s.begin()
	if err == nil {
		s.acked, s.doubt = s.position(true), false
	}
	return err
}

// cut takes away what lies at the first file's place and beyond, because it is
// not what comes: a mark's numbers are others after a crash, or what was
// written is not wanted any more. A rotated file stays shorter then, those
// after it go, and what comes goes into the file under the path.
//
// It begins at the end: a crash on the way leaves less of the same lines, and
// never a hole in them.
func (s *fileSink) cut() error {
	f, n := s.files[0], len(s.files)-1
	active := s.files[n]
	switch {
	case active.doubtful && (n > 0 || f.at == 0):
		if err := s.keepWhole(active); err != nil {
			return err
		}
	case n > 0:
		if err := s.truncate(active, 0); err != nil {
			return err
		}
	}
	if f == active {
		return s.truncate(f, f.at)
	}
	for n--; n > 0; n-- {
		if err := s.remove(s.rotatedName(s.files[n].generation)); err != nil {
			return err
		}
	}
	if err := s.truncate(f, f.at); err != nil {
		return err
	}
	if err := s.sync(f); err != nil {
		return err
	}
	for len(s.files) > 1 {
		s.advance()
	}
	return s.syncDir()
}

// keepWhole leaves the whole lines of a file that somebody else put there.
func (s *fileSink) keepWhole(f *file) error {
	at, err := afterLastLine(f.File)
	f.at, f.doubtful = at, false
	return err
}

// advance goes on with the next file: nothing is to come into the first.
func (s *fileSink) advance() {
	_ = unlock(s.files[0].File) // what counts is synced
	s.files = s.files[1:]
}

// eventStart is how every line of ours begins.
const eventStart = `{"specversion":`

// isOurs tells a file of changes from another, before anything is cut from it:
// a wrong path in the configuration must not cost a key its bytes. A file that
// holds nothing but zeros is one whose data a crash of the machine has lost.
func (f *file) isOurs() (bool, error) {
	start := make([]byte, len(eventStart))
	n, err := f.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read the first line: %w", err)
	}
	if start = start[:n]; n > 0 && start[0] == 0 {
		return f.onlyZeros()
	}
	start = bytes.TrimRight(start, "\x00")
	return string(start) == eventStart[:len(start)], nil
}

func (f *file) onlyZeros() (bool, error) {
	block := make([]byte, 64<<10)
	for at := int64(0); at < f.end; {
		n, err := f.ReadAt(block[:min(int64(len(block)), f.end-at)], at)
		if err != nil {
			return false, fmt.Errorf("read the zeros that it begins with: %w", err)
		}
		if len(bytes.TrimLeft(block[:n], "\x00")) > 0 {
			return false, nil
		}
		at += int64(n)
	}
	return true, nil
}

// afterLastLine returns where the last whole line of a file ends.
func afterLastLine(f *os.File) (int64, error) {
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
			return from + int64(i) + 1, nil
		}
		at = from
	}
	return 0, nil
}
