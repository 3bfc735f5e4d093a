package metrics

import (
	"math"
	"sort"
	"sync/atomic"
	"time"
)

// A Histogram counts durations in buckets that grow by the square root of
// two, from 100 microseconds to 210 seconds: a quantile in that range is read
// at most 19 % off. Observe does not allocate and takes no lock.
type Histogram struct {
	counts []atomic.Uint64 // one a bound, and one above the last
	sum    atomic.Int64    // nanoseconds
}

// HistogramSnapshot is a histogram at one moment.
type HistogramSnapshot struct {
	Bounds []float64 // upper bounds in seconds, growing; shared, read-only
	Counts []uint64  // one a bound (not cumulative), and one above the last
	Count  uint64    // of all
	Sum    float64   // seconds
}

const histogramBuckets = 43

// bounds are the upper bounds in seconds, shared by all histograms. Read-only.
var bounds = histogramBounds()

func histogramBounds() []float64 {
	b := make([]float64, histogramBuckets)
	for i := range b {
		b[i] = 100e-6 * math.Pow(2, float64(i)/2)
	}
	return b
}

// NewHistogram returns an empty histogram.
func NewHistogram() *Histogram {
	return &Histogram{counts: make([]atomic.Uint64, histogramBuckets+1)}
}

// Observe counts one duration. A negative one, from a clock that was set
// back, counts as 0.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.counts[sort.SearchFloat64s(bounds, d.Seconds())].Add(1)
	h.sum.Add(int64(d))
}

// Snapshot reads the histogram. Observations made meanwhile may be in the
// counts and not yet in the sum.
func (h *Histogram) Snapshot() HistogramSnapshot {
	s := HistogramSnapshot{Bounds: bounds, Counts: make([]uint64, len(h.counts))}
	for i := range h.counts {
		s.Counts[i] = h.counts[i].Load()
		s.Count += s.Counts[i]
	}
	s.Sum = time.Duration(h.sum.Load()).Seconds()
	return s
}

// Quantile returns the quantile q (0 to 1) in seconds: the geometric middle of
// the bucket in which it lies, which no value in there is more than 19 % off.
// Below the first bound it is that bound, above the last +Inf; of an empty
// histogram it is NaN.
func (s HistogramSnapshot) Quantile(q float64) float64 {
	if s.Count == 0 {
		return math.NaN()
	}
	rank := max(1, uint64(math.Ceil(q*float64(s.Count))))
	var seen uint64
	for i, n := range s.Counts {
		if seen += n; seen >= rank && i < len(s.Bounds) {
			if i == 0 {
				return s.Bounds[0]
			}
			return math.Sqrt(s.Bounds[i-1] * s.Bounds[i])
		}
	}
	return math.Inf(1)
}
