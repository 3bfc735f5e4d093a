package history

import "math/bits"

// reserve takes n bytes of the budget for a source: index or chunk. If the budget
// is used up, it lets go of closed chunks. False means that there are none left.
func (h *History) reserve(src *source, n int64, index bool) bool {
	for h.used+n > h.opts.Budget {
		if !h.evict() {
			return false
		}
	}
	h.used += n
	src.bytes += n
	if index {
		h.index += n
		src.index += n
	}
	return true
}

// release gives bytes back.
func (h *History) release(src *source, n int64, index bool) {
	h.used -= n
	src.bytes -= n
	if index {
		h.index -= n
		src.index -= n
	}
}

// afford takes n bytes for something new in the index, which is refused when the
// index takes half of the budget, or the source more than twice of what is left of
// that half.
func (h *History) afford(src *source, n int64) bool {
	left := h.opts.Budget/2 - h.index - n
	return left >= 0 && src.index+n <= 2*left && h.reserve(src, n, true)
}

// evict lets go of the oldest closed chunk of the source that takes most.
func (h *History) evict() bool {
	var most *source
	for _, src := range h.sources {
		if len(src.closed) > 0 && (most == nil || src.bytes > most.bytes || src.bytes == most.bytes && src.name < most.name) {
			most = src
		}
	}
	if most == nil {
		return false
	}
	if ms, ok := most.reads.at(chunkLast(most.closed[0].chunks[0])); ok {
		most.since = max(most.since, ms)
	}
	h.moved.drops[dropBudget] += h.letGo(most)
	return true
}

// room makes room for one element more in a slice of a source, whose bytes are
// size; each element takes width bytes. To make it, elements may leave the slice.
func room[T any](h *History, src *source, s *[]T, size *int64, width int) bool {
	if len(*s) < cap(*s) {
		return true
	}
	n := int(allocated((len(*s)+len(*s)/8+2)*width)) / width
	bytes := allocated(n * width)
	if !h.reserve(src, bytes, true) {
		return false
	}
	moved := make([]T, len(*s), n)
	copy(moved, *s)
	h.release(src, *size, true)
	*s, *size = moved, bytes
	return true
}

// allocated is what n bytes take in the heap, whose objects come in sizes: in
// steps of 16 bytes to 256, of a sixteenth of the next power of two beyond.
func allocated(n int) int64 {
	step := 16
	switch {
	case n <= 8:
		step = 8
	case n > 256:
		step = 1 << (bits.Len(uint(n-1)) - 4)
	}
	if n > 32<<10 {
		step = 8 << 10
	}
	return int64((n + step - 1) / step * step)
}
