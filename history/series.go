package history

import "slices"

// A series is the samples of one name and tags of one source.
type series struct {
	key    string   // see key
	chunks []string // closed ones, oldest first
	coder           // of the chunk that is open; its last read is the series'
}

const (
	seriesSize = 112 // with its place in the heap
	slotsSize  = 8   // of a pointer to one
	firstRoom  = 48  // bytes an open chunk begins with
	moreRoom   = 32  // and gets at a time
	mostRoom   = 512

	// A chunk stays until its last sample is too old. So none spans more than
	// half of what is kept, and one that is worth its head a quarter.
	worthHead = 96
)

// size is what a series takes in the index.
func (s *series) size() int64 {
	return seriesSize + allocated(len(s.key)) + int64(cap(s.buf)) + 16*int64(cap(s.chunks))
}

// insert adds a series with the tags of a point, at its place in the family.
func (h *History) insert(src *source, f *family, place int, tags []string, read uint32) bool {
	s := &series{key: key(f.row(tags))}
	s.last = read - 1
	if !h.afford(src, seriesSize+allocated(len(s.key))) {
		return false
	}
	if !room(h, src, &f.series, &f.slots, slotsSize) {
		h.release(src, s.size(), true)
		return false
	}
	f.series = slices.Insert(f.series, place, s)
	src.series++
	return true
}

// append adds a sample to a series.
func (h *History) append(src *source, s *series, read uint32, v float64, counter bool) {
	if int32(read-s.last) <= 0 {
		h.lose(dropDuplicate, 1)
		return
	}
	if s.count > 0 && (counter != s.counter || src.full(s, read)) {
		h.close(src, s)
	}
	if !h.grow(src, s) {
		h.lose(dropBudget, 1)
		return
	}
	if s.count == 0 {
		s.begin(read, v, counter)
	} else {
		s.add(read, v)
	}
	h.moved.in++
	h.kept++
}

// full says that the chunk of a series that is open should have no sample more.
func (src *source) full(s *series, read uint32) bool {
	if len(s.buf)+sampleMost > mostRoom || s.count == 1<<16-1 || read-s.first >= 1<<16 {
		return true
	}
	began, ok := src.reads.at(s.first)
	if !ok {
		return true
	}
	span := src.newest - began
	return span > src.half || span > src.half/2 && len(s.buf) > worthHead
}

// grow makes room for one sample more in the open chunk of a series.
func (h *History) grow(src *source, s *series) bool {
	need := len(s.buf) + sampleMost
	if s.count == 0 {
		need = headMost
	}
	if need <= cap(s.buf) {
		return true
	}
	size := allocated(max(firstRoom, min(len(s.buf)+sampleMost+moreRoom, mostRoom)))
	if !h.reserve(src, size, true) {
		return false
	}
	h.release(src, int64(cap(s.buf)), true)
	buf := make([]byte, len(s.buf), size)
	copy(buf, s.buf)
	s.buf = buf
	return true
}

// close makes the open chunk of a series a closed one. If there is no room for it,
// it is lost.
func (h *History) close(src *source, s *series) {
	count := int64(s.count)
	s.count = 0
	size := allocated(len(s.buf))
	if h.slot(src, s) && room(h, src, &src.closed, &src.closedSize, slotsSize) && h.reserve(src, size, false) {
		s.count = uint16(count)
		s.chunks = append(s.chunks, s.chunk())
		src.closed = append(src.closed, s)
		s.count = 0
		h.release(src, int64(cap(s.buf)), true)
		s.buf = nil
		return
	}
	h.kept -= count
	h.moved.drops[dropBudget] += count
}

// slot makes room for one chunk more in a series.
func (h *History) slot(src *source, s *series) bool {
	if len(s.chunks) < cap(s.chunks) {
		return true
	}
	size := 16 * int64(cap(s.chunks))
	return room(h, src, &s.chunks, &size, 16)
}
