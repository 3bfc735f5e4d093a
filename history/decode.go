package history

import (
	"encoding/binary"
	"math"
)

// chunkLast returns the number of the last read of a chunk.
func chunkLast(chunk string) uint32 {
	return le32(chunk) + uint32(le16(chunk[headSpan:]))
}

// chunkCount returns how many samples a chunk has.
func chunkCount(chunk string) int64 { return int64(le16(chunk[headCount:])) }

func le16(s string) uint16 { return uint16(s[0]) | uint16(s[1])<<8 }
func le32(s string) uint32 { return uint32(le16(s)) | uint32(le16(s[2:]))<<16 }

// A decoder reads the samples of a chunk.
type decoder struct {
	bitReader
	state
	left int
	read uint32 // of the last sample
	head bool   // the first sample is still to come
}

// decode returns a decoder of a chunk. A chunk that is none has no samples.
func decode(chunk string) decoder {
	if len(chunk) < headMode+2 {
		return decoder{}
	}
	lead, length := chunk[headMode], chunk[headMode+1]
	d := decoder{left: int(chunkCount(chunk)), read: le32(chunk), head: true}
	d.mode, d.young, d.counter = lead&15, lead>>4&3, lead>>7 == 1
	d.mean = roundedMean(length)
	rest := chunk[headMode+2:]
	switch {
	case d.mode > modeXOR || d.young > 2:
		return decoder{}
	case d.mode == modeXOR:
		if len(rest) < 8 {
			return decoder{}
		}
		d.value = int64(uint64(le32(rest)) | uint64(le32(rest[4:]))<<32)
		rest = rest[8:]
	default:
		u, n := uvarint(rest)
		d.value, rest = unzigzag(u), rest[n:]
	}
	u, n := uvarint(rest)
	d.slope = unzigzag(u)
	d.data = rest[n:]
	return d
}

// uvarint reads what [binary.AppendUvarint] wrote. Of what is none it reads 0,
// and all of it.
func uvarint(s string) (v uint64, n int) {
	if len(s) > 0 && s[0] < 0x80 {
		return uint64(s[0]), 1
	}
	var b [binary.MaxVarintLen64]byte
	v, n = binary.Uvarint(b[:copy(b[:], s)])
	if n <= 0 {
		return 0, len(s)
	}
	return v, n
}

// next returns the next sample and the number of its read. ok is false after the
// last one, and where the bytes make no sense.
func (d *decoder) next() (read uint32, v float64, ok bool) {
	if d.left <= 0 {
		return 0, 0, false
	}
	d.left--
	if d.head {
		d.head = false
		return d.read, value(d.value, d.mode), true
	}
	d.read++
	raw, v := d.sample()
	if d.bad {
		d.left = 0
		return 0, 0, false
	}
	if !raw {
		v = value(d.value, d.mode)
	}
	return d.read, v, true
}

// sample reads up to the next value, which is then the state's; one that stands as
// it is, it returns.
func (d *decoder) sample() (raw bool, v float64) {
	for !d.bad {
		tag, tagged := uint64(0), false
		if d.mode == modeXOR {
			tag, tagged = d.xor()
		} else {
			tag, tagged = d.distance()
		}
		if !tagged {
			return false, 0
		}
		switch tag {
		case tagFar:
			if d.mode == modeXOR {
				d.bad = true
				break
			}
			far := d.take(uint(d.take(6)) + 1)
			d.learn(d.expect()+unzigzag(far), far)
			return false, 0
		case tagGap:
			d.read += uint32(d.take(uint(d.take(4)) + 1))
		case tagMode:
			mode := uint8(d.take(4))
			if mode > modeXOR {
				d.bad = true
				break
			}
			d.turn(mode)
		case tagRaw:
			return true, math.Float64frombits(d.take(64))
		}
	}
	return false, 0
}

// distance reads one in Rice code, or a tag.
func (d *decoder) distance() (tag uint64, tagged bool) {
	next := d.peek()
	q := uint(0)
	for q < farQuotient && next>>(31-q)&1 == 1 {
		q++
	}
	if q == farQuotient {
		d.skip(q)
		return d.take(2), true
	}
	d.skip(q + 1)
	k := d.rice()
	far := uint64(q)<<k | d.take(k)
	d.learn(d.expect()+unzigzag(far), far)
	return 0, false
}

// xor reads the bits that differ, or a tag.
func (d *decoder) xor() (tag uint64, tagged bool) {
	switch next := d.peek(); {
	case next>>31 == 0:
		d.skip(1)
	case next>>30 == 2:
		d.skip(2)
		after := 64 - uint(d.lead) - uint(d.width)
		d.value ^= int64(d.take(uint(d.width)) << after)
	case next>>25&31 == 31:
		d.skip(7)
		return d.take(2), true
	default:
		d.skip(2)
		lead, width := uint(d.take(5)), uint(d.take(6))+1
		if lead+width > 64 {
			d.bad = true
			return 0, false
		}
		d.lead, d.width = uint8(lead), uint8(width)
		d.value ^= int64(d.take(width) << (64 - lead - width))
	}
	return 0, false
}
