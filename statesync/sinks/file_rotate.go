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

func (s *fileSink) rotatedName(generation int64) string {
	return fmt.Sprintf("%s.%0*d", s.target, generationDigits, generation)
}

// generationOf reads a rotated file's number off its name.
func (s *fileSink) generationOf(name string) (int64, bool) {
	digits, ok := strings.CutPrefix(name, s.target+".")
	generation, err := strconv.ParseInt(digits, 10, 64)
	return generation, ok && err == nil && generation > 0 && s.rotatedName(generation) == name
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
	return out, nil
}

// rotate gives the file under the path, which is synced, its number, and begins
// a new one. A process that ends in the middle leaves no file under the path,
// or an empty one.
func (s *fileSink) rotate() error {
	old := s.files[0]
	name := s.rotatedName(old.generation)
	if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
		return errors.Join(err, fmt.Errorf("rotate: there is a file %s already", name))
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
	return old.Close()
}

// prune removes the oldest rotated files beyond those that are kept. One that
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
	for _, generation := range rotated[:max(0, len(rotated)-s.maxFiles)] {
		_ = s.remove(s.rotatedName(generation))
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
