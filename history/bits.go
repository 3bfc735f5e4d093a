package history

import "encoding/binary"

// A bitWriter appends to bytes bit by bit, the highest first.
type bitWriter struct {
	buf  []byte
	free uint8 // bits of the last byte that are not written yet
}

// put appends the n lowest bits of v; n is at most 64, and the others are 0.
func (w *bitWriter) put(v uint64, n uint) {
	if free := uint(w.free); free > 0 {
		last := &w.buf[len(w.buf)-1]
		if n <= free {
			*last |= byte(v << (free - n))
			w.free -= uint8(n)
			return
		}
		n -= free
		*last |= byte(v >> n)
		w.free = 0
	}
	for n >= 8 {
		n -= 8
		w.buf = append(w.buf, byte(v>>n))
	}
	if n > 0 {
		w.buf = append(w.buf, byte(v<<(8-n)))
		w.free = uint8(8 - n)
	}
}

// A bitReader reads what a bitWriter wrote. Beyond the end it reads zeros, and
// says so in bad.
type bitReader struct {
	data string
	pos  uint // in bits
	bad  bool
}

// peek returns the next 32 bits.
func (r *bitReader) peek() uint32 {
	at := int(r.pos / 8)
	var b [8]byte
	if at+8 <= len(r.data) {
		copy(b[:], r.data[at:at+8])
	} else if at < len(r.data) {
		copy(b[:], r.data[at:])
	}
	return uint32(binary.BigEndian.Uint64(b[:]) << (r.pos % 8) >> 32)
}

func (r *bitReader) skip(n uint) {
	r.pos += n
	if r.pos > uint(len(r.data))*8 {
		r.bad = true
	}
}

// take reads n bits, at most 64.
func (r *bitReader) take(n uint) (v uint64) {
	if n > 32 {
		v = uint64(r.peek()) << (n - 32)
		r.skip(32)
		n -= 32
	}
	if n > 0 {
		v |= uint64(r.peek() >> (32 - n))
		r.skip(n)
	}
	return v
}
