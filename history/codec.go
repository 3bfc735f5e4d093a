package history

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// How samples are stored. A chunk has values only: when they were read stands
// once in its source's reads, and a chunk says which of these is its first. A
// sample follows upon the read before; where the series was missing in some, a
// gap says in how many.
//
// Most values are whole numbers or have few decimals. Such a value is kept as a
// whole number, times a power of ten, and of that only how far it is from what
// was expected: for a gauge the value before, for a counter one average step
// more. The distance is in an adaptive Rice code, in which one that is mostly 0
// takes one bit. Quantiles of our histograms are the middles of buckets; they are
// kept as the bucket's index. What is none of these is kept as in Facebook's
// Gorilla: the bits that differ from the value before.
//
// Every value comes back bit by bit, -0 and NaN included.

// A mode is how the values of a chunk are made whole numbers: 0 to 9 are how many
// decimals they have.
const (
	modeMiddle = 10 // middles of buckets of metrics.Schema
	modeXOR    = 11 // not at all

	decimals = 9
)

// scales are the powers of ten of the modes. Read-only.
var scales = [decimals + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}

// What may stand in place of a distance.
const (
	tagFar  = 0 // a distance that is too far for the Rice code
	tagGap  = 1 // reads without a value; a sample follows
	tagMode = 2 // another mode; a sample follows
	tagRaw  = 3 // the value, as it is

	farQuotient = 8 // this many ones: a tag follows
	wholeLimit  = 1 << 53
	perBucket   = 64 // 2^metrics.Schema
)

// state is what coder and decoder know at the same place. The coder's own is here
// where it takes no room.
type state struct {
	mode        uint8
	young       uint8 // steps a counter has made, at most 2: how much the next one weighs
	lead, width uint8 // modeXOR: the zeros before the last bits that differed, and how many these were
	counter     bool
	odd         uint8  // the coder's: values in a row that the mode could not hold
	count       uint16 // the coder's: samples of the chunk
	value       int64  // the last, as mode makes it
	slope       int64  // the average step of a counter, in sixteenths
	mean        uint64 // the average distance, zigzagged, in sixteenths
}

// whole returns v as a whole number, as mode makes it. ok is false if it would not
// come back the same.
func whole(v float64, mode uint8) (m int64, ok bool) {
	switch mode {
	case 0:
		m = int64(v)
		ok = v < wholeLimit && v > -wholeLimit
	case modeMiddle:
		f := math.RoundToEven(math.Log2(v)*perBucket + 0.5)
		m, ok = int64(f), f < 1<<17 && f > -1<<17
	default:
		f := v * scales[mode]
		m, ok = int64(math.RoundToEven(f)), f < wholeLimit && f > -wholeLimit
	}
	return m, ok && math.Float64bits(value(m, mode)) == math.Float64bits(v)
}

// as returns v as a mode makes it that can hold it.
func as(v float64, mode uint8) int64 {
	if mode == modeXOR {
		return int64(math.Float64bits(v))
	}
	m, _ := whole(v, mode)
	return m
}

// value is the reverse of as.
func value(m int64, mode uint8) float64 {
	switch mode {
	case 0:
		return float64(m)
	case modeMiddle:
		return math.Exp2((float64(m) - 0.5) / perBucket)
	case modeXOR:
		return math.Float64frombits(uint64(m))
	default:
		return float64(m) / scales[mode]
	}
}

// modeOf returns the first mode from one on that can hold v.
func modeOf(v float64, from uint8) uint8 {
	for mode := from; mode < modeXOR; mode++ {
		if _, ok := whole(v, mode); ok {
			return mode
		}
	}
	return modeXOR
}

// expect is what the next value is held against.
func (s *state) expect() int64 {
	if s.counter && s.mode != modeXOR {
		return s.value + (s.slope+8)>>4
	}
	return s.value
}

// learn takes the next value in, which was so far from what was expected.
func (s *state) learn(m int64, far uint64) {
	if step := m - s.value; s.counter && step >= 0 {
		s.slope += (step<<4 - s.slope) >> s.young
		s.young = min(s.young+1, 2)
	}
	s.value = m
	s.mean = min(s.mean+min(far, s.mean+64)-s.mean>>4, 1<<56)
}

// rice is how many low bits of a distance stand as they are: about as many as are
// just noise, if distances are spread as 1/2^n.
func (s *state) rice() uint { return min(uint(bits.Len64(s.mean>>5)), 50) }

// turn goes on in another mode.
func (s *state) turn(mode uint8) {
	if mode <= decimals && s.mode < mode {
		by := int64(scales[mode-s.mode])
		s.value *= by // may overflow, and does so on both sides
		s.slope *= by
		s.mean = min(s.mean, 1<<40) * uint64(by)
		s.mode = mode
		return
	}
	was := int64(0)
	if mode == modeXOR {
		was = int64(math.Float64bits(value(s.value, s.mode)))
	}
	*s = state{mode: mode, value: was, counter: s.counter, count: s.count}
}

func zigzag(v int64) uint64   { return uint64(v<<1) ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// The head of a chunk: the number of its first read, how many reads later its last
// one was, how many samples it has, and the state with the first of them.
const (
	headSpan, headCount, headMode = 4, 6, 8

	headMost   = headMode + 2 + 2*binary.MaxVarintLen64
	sampleMost = 20 // bytes of any sample, with a gap and another mode before it
)

// coder appends samples to a chunk.
type coder struct {
	bitWriter
	state
	first, last uint32 // reads
}

// begin starts a chunk with its first sample. What was learned in the chunk before
// stays known.
func (c *coder) begin(read uint32, v float64, counter bool) {
	mode := modeOf(v, 0)
	if mode < c.mode && c.mode <= min(decimals, mode+3) {
		if _, ok := whole(v, c.mode); ok {
			mode = c.mode // the next ones may have as many decimals as those before
		}
	}
	if mode != c.mode || counter != c.counter || mode == modeXOR {
		c.state = state{mode: mode, counter: counter}
	}
	c.value = as(v, mode)
	length := byte(bits.Len64(c.mean))
	c.mean = roundedMean(length)
	c.first, c.last, c.count, c.odd, c.free = read, read, 1, 0, 0

	lead := mode | c.young<<4
	if counter {
		lead |= 1 << 7
	}
	buf := binary.LittleEndian.AppendUint32(c.buf[:0], read)
	buf = append(buf, 0, 0, 0, 0, lead, length)
	if mode == modeXOR {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(c.value))
	} else {
		buf = binary.AppendUvarint(buf, zigzag(c.value))
	}
	c.buf = binary.AppendUvarint(buf, zigzag(c.slope))
}

// roundedMean is the mean of a length in bits, which is what a head keeps of it.
func roundedMean(length byte) uint64 { return 3 << min(length, 56) >> 2 }

// add appends a sample of a later read.
func (c *coder) add(read uint32, v float64) {
	if gap := read - c.last - 1; gap > 0 {
		n := uint(bits.Len32(gap))
		c.tag(tagGap)
		c.put(uint64(n-1), 4)
		c.put(uint64(gap), n)
	}
	c.last = read
	c.count++
	if c.mode == modeXOR {
		c.addXOR(as(v, modeXOR))
		return
	}
	if m, ok := whole(v, c.mode); ok {
		c.odd = 0
		c.addWhole(m)
		return
	}
	mode := modeOf(v, c.mode+1)
	// One value with many decimals among others is not worth a scale that
	// makes all of them long.
	if c.odd++; c.odd < 2 && (mode > decimals || mode-c.mode > 3) {
		c.tag(tagRaw)
		c.put(math.Float64bits(v), 64)
		return
	}
	c.odd = 0
	c.tag(tagMode)
	c.put(uint64(mode), 4)
	c.turn(mode)
	if mode == modeXOR {
		c.addXOR(as(v, mode))
	} else {
		c.addWhole(as(v, mode))
	}
}

func (c *coder) addWhole(m int64) {
	far, k := zigzag(m-c.expect()), c.rice()
	if q := far >> k; q < farQuotient {
		c.put((1<<(q+1)-2)<<k|far&(1<<k-1), uint(q)+1+k)
	} else {
		n := uint(bits.Len64(far))
		c.tag(tagFar)
		c.put(uint64(n-1), 6)
		c.put(far, n)
	}
	c.learn(m, far)
}

func (c *coder) addXOR(m int64) {
	diff := uint64(m ^ c.value)
	c.value = m
	if diff == 0 {
		c.put(0, 1)
		return
	}
	lead := min(uint(bits.LeadingZeros64(diff)), 30)
	width := 64 - lead - uint(bits.TrailingZeros64(diff))
	after := 64 - uint(c.lead) - uint(c.width)
	if c.width > 0 && lead >= uint(c.lead) && diff>>after<<after == diff && width+11 >= uint(c.width) {
		c.put(2, 2)
		c.put(diff>>after, uint(c.width))
		return
	}
	c.lead, c.width = uint8(lead), uint8(width)
	c.put(3<<11|uint64(lead)<<6|uint64(width-1), 13)
	c.put(diff>>(64-lead-width), width)
}

// tag says that what follows is no distance.
func (c *coder) tag(tag uint64) {
	if c.mode == modeXOR {
		c.put(3<<7|31<<2|tag, 9)
	} else {
		c.put((1<<farQuotient-1)<<2|tag, farQuotient+2)
	}
}

// chunk returns what there is as a chunk.
func (c *coder) chunk() string {
	binary.LittleEndian.PutUint16(c.buf[headSpan:], uint16(c.last-c.first))
	binary.LittleEndian.PutUint16(c.buf[headCount:], c.count)
	return string(c.buf)
}
