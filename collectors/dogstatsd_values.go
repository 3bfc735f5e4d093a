package collectors

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"github.com/outrider-agent/outrider/metrics"
)

// maxStatsDBuckets bounds the memory of one histogram, to 8 KiB. With more, the
// buckets of twice the width are used: each doubling of the width doubles the
// error of a quantile, which begins at 0.55 %.
const maxStatsDBuckets = 512

// A statsdHistogram counts values with weights, in as little memory as the values
// need: ten thousand of them must fit beside everything else. [metrics.Histogram]
// is for few that are written to by many, and knows no weights.
type statsdHistogram struct {
	above, below []metrics.Bucket // sorted; the index is that of metrics, shifted
	shift        int
	zero, count  uint64
	sum          float64
	rest         float64 // what the weights left over: below 1
}

// The buckets of [metrics.HistogramSnapshot] reach from 2^-44 to 2^64.
const (
	lowestBucket  = -44 << metrics.Schema
	highestBucket = 64<<metrics.Schema - 1
)

// observe counts a value that happened 1/rate times.
func (h *statsdHistogram) observe(v, rate float64) {
	n := uint64(1)
	if rate < 1 {
		weight := 1/rate + h.rest
		whole := math.Floor(weight + 1e-9)
		h.rest = weight - whole
		n = uint64(whole)
	}
	h.count += n
	h.sum += v * float64(n)
	side := &h.above
	if v < 0 {
		side, v = &h.below, -v
	}
	index := bucketIndex(v)
	if index < lowestBucket {
		h.zero += n
		return
	}
	index = ((index - 1) >> h.shift) + 1
	i, found := slices.BinarySearchFunc(*side, index, func(b metrics.Bucket, index int32) int { return cmp.Compare(b.Index, index) })
	if found {
		(*side)[i].Count += n
		return
	}
	*side = slices.Insert(*side, i, metrics.Bucket{Index: index, Count: n})
	for len(h.above)+len(h.below) > maxStatsDBuckets {
		h.above, h.below = widen(h.above), widen(h.below)
		h.shift++
	}
}

// bucketIndex is the least index whose bound, 2^(index/64), v does not exceed.
// It is below all buckets for what counts as 0.
func bucketIndex(v float64) int32 {
	if v < 0x1p-44 {
		return lowestBucket - 1
	}
	return int32(min(math.Ceil(math.Log2(v)*(1<<metrics.Schema)), highestBucket))
}

func widen(buckets []metrics.Bucket) []metrics.Bucket {
	out := buckets[:0]
	for _, b := range buckets {
		b.Index = ((b.Index - 1) >> 1) + 1
		if n := len(out); n > 0 && out[n-1].Index == b.Index {
			out[n-1].Count += b.Count
		} else {
			out = append(out, b)
		}
	}
	return out
}

// snapshot is a copy. A bucket that was widened stands at its middle.
func (h *statsdHistogram) snapshot() *metrics.HistogramSnapshot {
	narrow := func(buckets []metrics.Bucket) []metrics.Bucket {
		out := slices.Clone(buckets)
		if h.shift > 0 {
			for i := range out {
				out[i].Index = out[i].Index<<h.shift - 1<<(h.shift-1)
			}
		}
		return out
	}
	return &metrics.HistogramSnapshot{Buckets: narrow(h.above), Negative: narrow(h.below), Zero: h.zero, Count: h.count, Sum: h.sum}
}

// A statsdSet counts distinct values: up to exactSet of them exactly, more with
// a standard error of 1.6 % (HyperLogLog with 4,096 registers, 4 KiB).
type statsdSet struct {
	exact map[uint64]struct{}
	most  []uint8 // nil: exact; else the longest run of zeros of each register
}

const (
	exactSet     = 256
	setRegisters = 4096
)

// add counts a value by its hash.
func (s *statsdSet) add(hash uint64) {
	if s.most == nil {
		if s.exact == nil {
			s.exact = map[uint64]struct{}{}
		}
		s.exact[hash] = struct{}{}
		if len(s.exact) <= exactSet {
			return
		}
		s.most = make([]uint8, setRegisters)
		for h := range s.exact {
			s.estimate(h)
		}
		s.exact = nil
		return
	}
	s.estimate(hash)
}

func (s *statsdSet) estimate(hash uint64) {
	register := hash % setRegisters
	run := uint8(bits.LeadingZeros64(hash|setRegisters-1)) + 1
	s.most[register] = max(s.most[register], run)
}

func (s *statsdSet) distinct() float64 {
	if s.most == nil {
		return float64(len(s.exact))
	}
	sum, empty := 0.0, 0
	for _, run := range s.most {
		sum += math.Ldexp(1, -int(run))
		if run == 0 {
			empty++
		}
	}
	const m = setRegisters
	n := 0.7213 / (1 + 1.079/m) * m * m / sum
	if n <= 2.5*m && empty > 0 { // few values: what is still empty tells more
		n = m * math.Log(m/float64(empty))
	}
	return math.Round(n)
}

func (s *statsdSet) clear() { *s = statsdSet{} }
