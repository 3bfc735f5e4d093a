package metrics

import (
	"cmp"
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// Schema is the resolution of a [Histogram], in the words of Prometheus' native
// histograms: 2^Schema buckets for each doubling of the value. A quantile is read
// at most 0.55 % off.
const Schema = 6

const (
	perOctave = 1 << Schema
	lowest    = -44 // octaves: 2^-44 is below a picosecond; what is smaller counts as 0
	highest   = 63  // what is larger counts as the largest
)

// A Histogram counts values in buckets that grow by 2^(1/64), of either sign.
// Observe takes no lock, and allocates only for the first value of an octave.
// The zero Histogram is empty and ready.
type Histogram struct {
	exponential
	sum atomic.Uint64 // bits of a float64
}

// A Timer is a [Histogram] of durations, in seconds. The zero Timer is empty and
// ready.
type Timer struct {
	exponential
	sum atomic.Int64 // nanoseconds
}

// exponential are the counts of a histogram.
type exponential struct {
	zero     atomic.Uint64
	above    octaves
	below    atomic.Pointer[octaves] // nil: no negative value yet
	rejected atomic.Uint64           // values that are not a number
	exemplified
}

// octaves are the counts of the values of one sign, made when they are needed.
type octaves [highest - lowest + 1]atomic.Pointer[[perOctave]atomic.Uint64]

// A Bucket is how many values are in one bucket of a histogram: those above
// 2^((Index-1)/64), up to and with 2^(Index/64).
type Bucket struct {
	Index int32  `json:"i"`
	Count uint64 `json:"n"`
}

// HistogramSnapshot is a histogram at one moment, in one of two forms: with
// Buckets of [Schema], as ours are, or with Bounds and Counts, as others count.
type HistogramSnapshot struct {
	Buckets  []Bucket `json:"buckets,omitempty"`  // by growing index; none is empty
	Negative []Bucket `json:"negative,omitempty"` // by growing index of the value without its sign
	Zero     uint64   `json:"zero,omitempty"`     // values of 0, and next to it

	Bounds []float64 `json:"bounds,omitempty"` // upper bounds, growing; shared, read-only
	Counts []uint64  `json:"counts,omitempty"` // one a bound (not cumulative), and one above the last

	Count uint64  `json:"count"` // of all
	Sum   float64 `json:"sum"`

	Exemplars []Exemplar `json:"exemplars,omitempty"` // oldest first; none after [HistogramSnapshot.Sub]
}

// NewHistogram returns an empty histogram.
func NewHistogram() *Histogram { return &Histogram{} }

// NewTimer returns an empty timer.
func NewTimer() *Timer { return &Timer{} }

// Observe counts one value. One that is not a number is left out, and counted in
// [Histogram.Rejected].
func (h *Histogram) Observe(v float64) {
	if !h.count(v) {
		return
	}
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// Snapshot reads the histogram. Observations made meanwhile may be in the counts
// and not yet in the sum.
func (h *Histogram) Snapshot() HistogramSnapshot {
	return h.snapshot(math.Float64frombits(h.sum.Load()))
}

// Observe counts one duration. A negative one, from a clock that was set back,
// counts as 0.
func (t *Timer) Observe(d time.Duration) {
	d = max(d, 0)
	t.count(float64(d) * 1e-9)
	t.sum.Add(int64(d))
}

// Since counts the time since start.
func (t *Timer) Since(start time.Time) { t.Observe(time.Since(start)) }

// Snapshot reads the timer, in seconds, as [Histogram.Snapshot] does.
func (t *Timer) Snapshot() HistogramSnapshot {
	return t.snapshot(time.Duration(t.sum.Load()).Seconds())
}

// Rejected is how many values were not a number.
func (e *exponential) Rejected() uint64 { return e.rejected.Load() }

// writes changes with each value that is counted.
func (e *exponential) writes() uint64 { return e.snapshot(0).Count }

func (e *exponential) count(v float64) bool {
	side := &e.above
	if v < 0 {
		if side = e.below.Load(); side == nil {
			e.below.CompareAndSwap(nil, new(octaves))
			side = e.below.Load()
		}
		v = -v
	}
	octave, sub := bucketOf(v)
	switch {
	case octave >= lowest && octave <= highest:
	case v != v:
		e.rejected.Add(1)
		return false
	case octave < lowest:
		e.zero.Add(1)
		return true
	default: // the largest is not above its bound, though its value may be
		octave, sub = highest, perOctave-1
	}
	counts := side[octave-lowest].Load()
	if counts == nil {
		side[octave-lowest].CompareAndSwap(nil, new([perOctave]atomic.Uint64))
		counts = side[octave-lowest].Load()
	}
	counts[sub].Add(1)
	return true
}

// edges are the upper bounds of the buckets of an octave, as the mantissas of
// floats; hints, where to begin to look among them, by a mantissa's first seven
// bits: no bucket is narrower. Read-only.
var edges, hints = bucketEdges()

func bucketEdges() (edges [perOctave]uint64, hints [128]uint8) {
	for i := range edges {
		edges[i] = math.Float64bits(math.Exp2(float64(i)/perOctave)) & (1<<52 - 1)
	}
	for i := range hints {
		first, _ := slices.BinarySearch(edges[:], uint64(i)<<45)
		hints[i] = uint8(first)
	}
	return edges, hints
}

// bucketOf returns the bucket of a value that is not negative: its octave and
// which one in there. That of octave o and place s has the index o*64+s.
func bucketOf(v float64) (octave, sub int) {
	bits := math.Float64bits(v)
	octave, mantissa := int(bits>>52&0x7ff)-1023, bits&(1<<52-1)
	sub = int(hints[mantissa>>45])
	for sub < perOctave && mantissa > edges[sub] {
		sub++
	}
	if sub == perOctave {
		return octave + 1, 0
	}
	return octave, sub
}

func (e *exponential) snapshot(sum float64) HistogramSnapshot {
	s := HistogramSnapshot{Zero: e.zero.Load(), Sum: sum, Exemplars: e.exemplified.read()}
	s.Buckets, s.Count = e.above.read()
	if below := e.below.Load(); below != nil {
		var n uint64
		s.Negative, n = below.read()
		s.Count += n
	}
	s.Count += s.Zero
	return s
}

func (o *octaves) read() (out []Bucket, count uint64) {
	for i := range o {
		counts := o[i].Load()
		if counts == nil {
			continue
		}
		for sub := range counts {
			if n := counts[sub].Load(); n > 0 {
				out = append(out, Bucket{int32((i+lowest)*perOctave + sub), n})
				count += n
			}
		}
	}
	return out, count
}

// bound is the upper bound of a bucket.
func bound(index int32) float64 { return math.Exp2(float64(index) / perOctave) }

// middle is the geometric middle of a bucket.
func middle(index int32) float64 { return math.Exp2((float64(index) - 0.5) / perOctave) }

// Quantile returns the quantile q (0 to 1) by nearest rank: the middle of the
// bucket in which it lies. Of an empty histogram it is NaN. With bounds it is
// the geometric middle of two of them: below the first one half of it, above the
// last +Inf.
func (s HistogramSnapshot) Quantile(q float64) float64 {
	if s.Count == 0 {
		return math.NaN()
	}
	rank := max(1, uint64(math.Ceil(q*float64(s.Count))))
	var seen uint64
	if s.Bounds != nil {
		return s.quantileOfBounds(rank)
	}
	for _, b := range slices.Backward(s.Negative) {
		if seen += b.Count; seen >= rank {
			return -middle(b.Index)
		}
	}
	if seen += s.Zero; seen >= rank {
		return 0
	}
	for _, b := range s.Buckets {
		if seen += b.Count; seen >= rank {
			return middle(b.Index)
		}
	}
	return math.Inf(1) // what was counted while it was read
}

func (s HistogramSnapshot) quantileOfBounds(rank uint64) float64 {
	var seen uint64
	for i, bound := range s.Bounds {
		if seen += s.Counts[i]; seen < rank {
			continue
		}
		if i == 0 {
			return bound / 2
		}
		below := s.Bounds[i-1]
		if below <= 0 {
			return (below + bound) / 2
		}
		return math.Sqrt(below * bound)
	}
	return math.Inf(1)
}

// AtMost is how many values are at most bound. It is exact where a bucket ends,
// as at powers of two and of their square root.
func (s HistogramSnapshot) AtMost(most float64) (n uint64) {
	if s.Bounds != nil {
		for i, b := range s.Bounds {
			if b <= most {
				n += s.Counts[i]
			}
		}
		return n
	}
	for _, b := range s.Negative {
		if -middle(b.Index) <= most {
			n += b.Count
		}
	}
	if most >= 0 {
		n += s.Zero
	}
	for _, b := range s.Buckets {
		if bound(b.Index) > most*(1+1e-12) {
			break
		}
		n += b.Count
	}
	return n
}

// Sub returns what was counted since before, an earlier snapshot of the same
// histogram, without exemplars. Where it has fewer, because it began anew, it is
// all of it.
func (s HistogramSnapshot) Sub(before HistogramSnapshot) HistogramSnapshot {
	if s.Count < before.Count || len(s.Counts) != len(before.Counts) && before.Count > 0 {
		s.Exemplars = nil
		return s
	}
	d := HistogramSnapshot{
		Buckets: subBuckets(s.Buckets, before.Buckets), Negative: subBuckets(s.Negative, before.Negative),
		Zero: s.Zero - min(s.Zero, before.Zero), Bounds: s.Bounds, Sum: s.Sum - before.Sum,
	}
	d.Count = d.Zero
	for i, n := range s.Counts {
		if i < len(before.Counts) {
			n -= min(n, before.Counts[i])
		}
		d.Counts = append(d.Counts, n)
		d.Count += n
	}
	for _, b := range d.Buckets {
		d.Count += b.Count
	}
	for _, b := range d.Negative {
		d.Count += b.Count
	}
	return d
}

func subBuckets(s, before []Bucket) (out []Bucket) {
	for _, b := range s {
		i, found := slices.BinarySearchFunc(before, b.Index, func(o Bucket, index int32) int { return cmp.Compare(o.Index, index) })
		if found {
			b.Count -= min(b.Count, before[i].Count)
		}
		if b.Count > 0 {
			out = append(out, b)
		}
	}
	return out
}

// Coarse returns the buckets of a lower schema, which has 2^schema buckets for
// each doubling, at most as many as most: the schema falls until they are.
func Coarse(buckets []Bucket, schema, most int) (out []Bucket, used int) {
	for {
		out = out[:0]
		for _, b := range buckets {
			index := (b.Index-1)>>(Schema-schema) + 1
			if n := len(out); n > 0 && out[n-1].Index == index {
				out[n-1].Count += b.Count
			} else {
				out = append(out, Bucket{index, b.Count})
			}
		}
		if len(out) <= most || schema <= -4 {
			return out, schema
		}
		schema--
	}
}
