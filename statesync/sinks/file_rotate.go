package sinks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A rotated file has the path's name and its generation: a number that grows
// and is not used twice.
const generationDigits = 6 // at least

const (
	maxTaken      = 1000    // names of others that are passed over
	maxGap        = 10_000  // between numbers: what is beyond is somebody's date, or made up
	maxGeneration = 1 << 53 // likewise
)

func (s *fileSink) rotatedName(generation int64) string {
	return fmt.Sprintf("%s.%0*d", s.target, generationDigits, generation)
}

// generationOf reads a rotated file's number off its name.
func (s *fileSink) generationOf(name string) (int64, bool) {
	digits, ok := strings.CutPrefix(name, s.target+".")
	generation, err := strconv.ParseInt(digits, 10, 64)
	return generation, ok && err == nil && generation > 0 && generation < maxGeneration && s.rotatedName(generation) == name
}

// rotatedFiles returns the numbers of those that are there, in order.
func (s *fileSink) rotatedFiles() ([]int64, error) {
	dir := filepath.Dir(s.target)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []int64
	for _, e := range entries {
		if g, ok := s.generationOf(filepath.Join(dir, e.Name())); ok && e.Type().IsRegular() {
			out = append(out, g)
		}
	}
	slices.Sort(out)
	for i := 1; i < len(out); i++ {
		if out[i]-out[i-1] > maxGap {
			return out[:i], nil
		}
	}
	return out, nil
}

// rotate gives the file under the path, which is synced, its number, and begins
// a new one. A process that ends in the middle leaves no file under the path,
// or an empty one.
func (s *fileSink) rotate() error {
	old := s.files[0]
	name, err := s.freeName(old)
	if err != nil {
		return err
	}
	if err := s.step("file/rename"); err != nil {
		return err
	}
	if err := os.Rename(s.target, name); err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	if err := s.syncDir(); err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	s.files[0].generation = max(s.files[0].generation, old.generation+1)
	s.rotated = true
	info, err := old.Stat()
	if err == nil { // somebody may have let others read it
		err = s.files[0].Chmod(info.Mode().Perm())
	}
	if err = errors.Join(err, unlock(old.File)); err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	return nil
}

// freeName returns the name that a file is to be rotated to. It passes over
// what others have put under the next numbers.
func (s *fileSink) freeName(f *file) (string, error) {
	for tries := 0; ; tries++ {
		name := s.rotatedName(f.generation)
		_, err := os.Lstat(name)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return name, nil
		case err != nil || tries == maxTaken:
			return "", errors.Join(err, fmt.Errorf("rotate: there is a file %s already", name))
		}
		f.generation++
	}
}

// prune removes the oldest rotated files beyond those that are kept, and what
// is of somebody else it does not count. One that
// cannot be removed is tried again after the next rotation: it must not keep
// changes from being delivered.
func (s *fileSink) prune() {
	if s.rotated = false; s.maxFiles == 0 {
		return
	}
	rotated, err := s.rotatedFiles()
	if err != nil {
		return
	}
	kept := 0
	for _, generation := range slices.Backward(rotated) {
		name := s.rotatedName(generation)
		f, ours, err := openAgain(name)
		if err != nil || !ours {
			continue
		}
		_ = unlock(f.File)
		if kept++; kept > s.maxFiles {
			_ = s.remove(name)
		}
	}
}

func (s *fileSink) remove(name string) error {
	if err := s.step("file/remove"); err != nil {
		return err
	}
	return os.Remove(name)
}

// syncDir makes the names of the path's folder durable.
func (s *fileSink) syncDir() error {
	if err := s.step("file/sync_dir"); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(s.target))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
