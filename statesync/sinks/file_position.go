package sinks

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"slices"
)

// A position is a place in a file, up to which everything is acknowledged.
type position struct {
	path       uint64 // a hash: an inode is of one file system, and a path may become another sink's
	inode      uint64
	generation int64 // the number that the file has, or gets, when it is rotated
	at         int64
	takesOver  bool // the next line is the first one that the sink writes here
}

const positionFormat = "2:path=%016x:inode=%d:gen=%d:at=%d:new=%t"

func (p position) String() string {
	return fmt.Sprintf(positionFormat, p.path, p.inode, p.generation, p.at, p.takesOver)
}

// parsePosition reports whether text is a position as this version writes it.
func parsePosition(text string) (position, bool) {
	var p position
	_, err := fmt.Sscanf(text, positionFormat, &p.path, &p.inode, &p.generation, &p.at, &p.takesOver)
	return p, err == nil && p.at >= 0 && p.generation > 0 && p.String() == text
}

func hashOf(path string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(path))
	return h.Sum64()
}

// position is the next line's place.
func (s *fileSink) position(takesOver bool) position {
	f := s.files[0]
	return position{hashOf(s.target), f.inode, f.generation, f.at, takesOver}
}

// signed returns lines of which the first ends with a space: here a sink takes
// the file over.
func signed(lines []byte) []byte {
	return slices.Insert(lines, bytes.IndexByte(lines, '\n'), ' ')
}

// find goes on at a position rather than at the end, if its file is there and
// nobody has taken it over since.
func (s *fileSink) find(p position) error {
	active := s.files[0]
	end := active.at
	s.acked, s.doubt = s.position(true), false
	if p.inode == 0 {
		return nil
	}
	if found, err := s.findFiles(p); err != nil || !found {
		return err
	}
	taken, err := s.takenOver(p.takesOver)
	if err != nil {
		return err
	}
	if !taken {
		s.acked, s.doubt = p, p.takesOver
		return nil
	}
	for len(s.files) > 1 {
		s.advance()
	}
	active.at, active.doubtful = end, false
	return nil
}

// findFiles makes the files those from the position's on.
func (s *fileSink) findFiles(p position) (bool, error) {
	rotated, err := s.rotatedFiles()
	if err != nil {
		return false, err
	}
	for len(rotated) > 0 && rotated[0] < p.generation {
		rotated = rotated[1:]
	}
	active := s.files[0]
	if active.inode == p.inode && !slices.Contains(rotated, p.generation) { // else the inode was given to a new file
		ok, err := active.reaches(p.at)
		if ok {
			active.at = p.at
		}
		return ok, err
	}
	return s.findRotated(p, rotated)
}

// findRotated looks for the position's file under another name than the path.
// rotated are the numbers of those that were rotated since, and of itself.
func (s *fileSink) findRotated(p position, rotated []int64) (found bool, err error) {
	name := s.rotatedName(p.generation)
	byUs := len(rotated) > 0 && rotated[0] == p.generation && hasInode(name, p.inode)
	if !byUs {
		if name, err = s.movedAway(p.inode); err != nil || name == "" {
			return false, err
		}
	}
	names := []string{name}
	own, _ := s.generationOf(name)
	for _, generation := range rotated {
		if generation > own {
			names = append(names, s.rotatedName(generation))
		}
	}
	chain, err := s.openChain(names, p)
	if err != nil || len(chain) == 0 {
		return false, err
	}
	active := s.files[0]
	active.at, active.doubtful = 0, !byUs && len(chain) == 1
	s.files = append(chain, active)
	return true, s.syncDir() // the process before may not have come to it
}

// openChain opens files beside the path, all or none. The position is in the
// first.
func (s *fileSink) openChain(names []string, p position) (chain []*file, err error) {
	whole := false
	defer func() {
		if whole {
			return
		}
		for _, f := range chain {
			_ = unlock(f.File)
		}
		chain = nil
	}()
	for _, name := range names {
		f, ours, err := openAgain(name)
		if err != nil || !ours {
			return chain, err
		}
		chain = append(chain, f)
		f.generation = p.generation
		if g, ok := s.generationOf(name); ok {
			f.generation = g
		}
	}
	whole, err = chain[0].reaches(p.at)
	chain[0].at = p.at
	return chain, err
}

// takenOver reports whether beyond the position there is a line with which a
// sink has taken the file over. own says that the first may be this sink's.
func (s *fileSink) takenOver(own bool) (bool, error) {
	block, before := make([]byte, 64<<10), byte(0)
	for _, f := range s.files {
		for at := f.at; at < f.end; {
			n, err := f.ReadAt(block[:min(int64(len(block)), f.end-at)], at)
			if err != nil {
				return false, fmt.Errorf("read what was written before: %w", err)
			}
			for _, b := range block[:n] {
				if b == '\n' {
					if before == ' ' && !own {
						return true, nil
					}
					own = false
				}
				before = b
			}
			at += int64(n)
		}
	}
	return false, nil
}

// passOver leaves all that lies beyond the position: nothing says that it is
// the sink's own.
func (s *fileSink) passOver() error {
	for len(s.files) > 1 {
		s.advance()
	}
	s.doubt = false
	return s.keepWhole(s.files[0])
}
