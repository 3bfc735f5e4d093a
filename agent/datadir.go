package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A DataDir is a data directory that this process alone may use, until Close.
type DataDir struct {
	path string
	lock *os.File
}

// OpenDataDir makes the directory, with mode 0700, if it is not there, and
// locks it: two agents on one ledger would deliver everything twice. The
// service is what the error shows to the second one.
//
// The lock is the kernel's, on the file "lock": it ends with the process, and
// what the file says is only for people.
func OpenDataDir(path, service string) (*DataDir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", path, err)
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w: want a directory this user may write, set data_dir", err)
	}
	// No link: a file elsewhere must not be written by whoever may make one.
	f, err := os.OpenFile(filepath.Join(abs, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w: want a directory this user may write, set data_dir", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("data directory %s is in use by %s: stop it or set another data_dir", abs, holder(f))
		}
		return nil, fmt.Errorf("data directory %s: lock: %w", abs, err)
	}
	d := &DataDir{path: abs, lock: f}
	text := fmt.Sprintf("pid %d (service %s, since %s)\n", os.Getpid(), printable(service), time.Now().UTC().Format(time.RFC3339))
	if err := errors.Join(f.Truncate(0), writeAt(f, text)); err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s: lock: %w", abs, err), d.Close())
	}
	return d, nil
}

// Path is the directory, absolute.
func (d *DataDir) Path() string { return d.path }

// Close lets another agent have the directory. The file stays: to remove it
// would give two agents two files to lock.
func (d *DataDir) Close() error {
	return errors.Join(d.lock.Truncate(0), d.lock.Close())
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// holder is what the process that has the lock wrote. It may be about to.
func holder(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 512))
	if text := strings.TrimSpace(string(b)); err == nil && text != "" {
		return strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return '_'
			}
			return r
		}, text)
	}
	return "another process"
}
