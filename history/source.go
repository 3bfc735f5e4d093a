package history

import (
	"slices"
	"strings"
)

// A source is what gives families, such as a collector.
type source struct {
	name     string
	families map[string]*family
	before   map[*series]*before // of histograms, by the series of their counts
	reads    reads
	newest   int64 // when the last read was, in milliseconds
	since    int64 // from when on nothing was given up, in milliseconds
	writers  int   // that are taking a read in
	half     int64 // of what is kept, in milliseconds

	// closed has a series once for each of its closed chunks, in the order in
	// which they were closed: that in which they go.
	closed     []*series
	closedSize int64

	series, bytes, index int64
}

// reads are when a source was read. The samples of its series refer to the
// numbers of the reads.
type reads struct {
	first  uint32 // number of the first one here; numbers may wrap around
	origin int64  // milliseconds
	after  []uint32
	size   int64
}

// hidden is a read that the clock was set back to before.
const hidden = 1<<32 - 1

// at returns when a read was. ok is false if it is not here any more, or hidden.
func (r *reads) at(read uint32) (ms int64, ok bool) {
	i := read - r.first
	if uint64(i) >= uint64(len(r.after)) || r.after[i] == hidden {
		return 0, false
	}
	return r.origin + int64(r.after[i]), true
}

// gone says that a read is not here any more.
func (r *reads) gone(read uint32) bool { return int32(read-r.first) < 0 }

// forget leaves out the reads from before cutoff.
func (r *reads) forget(cutoff int64) {
	n := 0
	for n < len(r.after) && (r.after[n] == hidden || r.origin+int64(r.after[n]) < cutoff) {
		n++
	}
	r.first += uint32(n)
	r.after = r.after[n:]
}

// begin notes a new read, and returns its number, or why it is not taken.
func (h *History) begin(src *source, now, at int64) (read uint32, reason string) {
	if src == nil {
		return 0, dropRefused
	}
	r := &src.reads
	r.forget(now - h.keep)
	switch back := src.newest - at; {
	case at < now-h.keep:
		return 0, dropTooOld
	case at > now+h.keep:
		return 0, dropFuture
	case len(r.after) == 0:
		src.newest = at
	case back < 0:
	case back <= backTolerance.Milliseconds():
		return 0, dropOutOfOrder
	default:
		for i, after := range r.after {
			if r.origin+int64(after) >= at {
				r.after[i] = hidden
			}
		}
		src.since = min(src.since, at)
	}
	if !h.roomForRead(src, at) {
		return 0, dropBudget
	}
	src.newest = at
	if src.since == 0 {
		src.since = at
	}
	r.after = append(r.after, uint32(at-r.origin))
	return r.first + uint32(len(r.after)) - 1, ""
}

// roomForRead makes room for one read more. When the reads move, their origin
// does: no read here is further from another one than twice of what is kept.
func (h *History) roomForRead(src *source, at int64) bool {
	r := &src.reads
	if len(r.after) == 0 {
		r.origin = at - h.keep
	}
	far := at-r.origin >= hidden || at < r.origin
	if len(r.after) < cap(r.after) && !far {
		return true
	}
	n := len(r.after) + len(r.after)/4 + 8
	size := allocated(4 * n)
	if !h.reserve(src, size, true) {
		return false
	}
	origin := at
	for _, after := range r.after {
		if after != hidden {
			origin = min(origin, r.origin+int64(after))
		}
	}
	origin -= h.keep
	moved := make([]uint32, len(r.after), n)
	for i, after := range r.after {
		moved[i] = hidden
		if after != hidden {
			moved[i] = uint32(r.origin + int64(after) - origin)
		}
	}
	h.release(src, r.size, true)
	r.after, r.size, r.origin = moved, size, origin
	return true
}

// sourceSize is about what a source takes, without its series.
const sourceSize = 512

// source returns the source of a name, or nil if there is no room for it.
func (h *History) source(name string) *source {
	src := h.sources[name]
	if src != nil {
		return src
	}
	src = &source{name: strings.Clone(name), families: map[string]*family{}, before: map[*series]*before{}, half: h.keep / 2}
	if !h.afford(src, sourceSize+int64(len(name))) {
		return nil
	}
	h.sources[src.name] = src
	return src
}

// expire lets go of the closed chunks all of whose reads are gone.
func (h *History) expire(src *source) {
	for len(src.closed) > 0 {
		s := src.closed[0]
		if !src.reads.gone(chunkLast(s.chunks[0])) {
			return
		}
		h.moved.out += h.letGo(src)
	}
}

// letGo takes out the chunk of a source that was closed first, and returns how
// many samples it had.
func (h *History) letGo(src *source) (samples int64) {
	s := src.closed[0]
	src.closed[0] = nil
	src.closed = src.closed[1:]
	chunk := s.chunks[0]
	copy(s.chunks, s.chunks[1:])
	s.chunks[len(s.chunks)-1] = ""
	s.chunks = s.chunks[:len(s.chunks)-1]
	h.release(src, allocated(len(chunk)), false)
	samples = chunkCount(chunk)
	h.kept -= samples
	return samples
}

// sweep lets go of what is too old in all sources, and of series that were in no
// read for as long.
func (h *History) sweep(now int64) {
	h.mu.Lock()
	names := make([]string, 0, len(h.sources))
	for name := range h.sources {
		names = append(names, name)
	}
	h.unlock()
	for _, name := range names {
		h.mu.Lock()
		if src := h.sources[name]; src != nil && src.writers == 0 {
			h.sweepSource(src, now)
		}
		h.unlock()
	}
}

func (h *History) sweepSource(src *source, now int64) {
	src.reads.forget(now - h.keep)
	h.expire(src)
	for name, f := range src.families {
		f.series = slices.DeleteFunc(f.series, func(s *series) bool {
			idle := len(s.chunks) == 0 && src.reads.gone(s.last)
			if idle {
				h.vanish(src, s)
			}
			return idle
		})
		if len(f.series) == 0 && !src.hasParts(f) {
			h.release(src, f.size+f.slots, true)
			delete(src.families, name)
		}
	}
	if len(src.families) == 0 && len(src.reads.after) == 0 {
		h.release(src, src.index, true)
		delete(h.sources, src.name)
	}
}

// vanish gives back what a series takes that has no closed chunk any more.
func (h *History) vanish(src *source, s *series) {
	h.kept -= int64(s.count)
	h.moved.out += int64(s.count)
	h.release(src, s.size(), true)
	if b := src.before[s]; b != nil {
		h.release(src, b.size(), true)
		delete(src.before, s)
	}
	src.series--
	s.coder = coder{}
	s.chunks = nil
}
