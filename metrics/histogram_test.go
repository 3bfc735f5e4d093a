package metrics

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// nearestRank is the quantile that all others are held to.
func nearestRank(sorted []float64, q float64) float64 {
	return sorted[max(1, int(math.Ceil(q*float64(len(sorted)))))-1]
}

func TestQuantilesAreWithinOnePercentOfNearestRank(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() float64{
		"log-normal":                func() float64 { return math.Exp(rng.NormFloat64()*2 - 5) },
		"bimodal":                   func() float64 { return []float64{0.001, 10}[rng.IntN(2)] * (1 + rng.Float64()/10) },
		"constant":                  func() float64 { return 0.042 },
		"evenly spread":             func() float64 { return 1e-3 + rng.Float64() },
		"over all magnitudes":       func() float64 { return math.Exp2(rng.Float64()*80 - 40) },
		"negative":                  func() float64 { return -math.Exp(rng.NormFloat64()) },
		"of both signs, and zeroes": func() float64 { return float64(rng.IntN(21)-10) * 1e6 },
	} {
		h := NewHistogram()
		values := make([]float64, 10_001)
		for i := range values {
			values[i] = draw()
			h.Observe(values[i])
		}
		slices.Sort(values)
		s := h.Snapshot()
		for _, q := range []float64{0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1} {
			want := nearestRank(values, q)
			if got := s.Quantile(q); math.Abs(got-want) > 0.01*math.Abs(want) {
				t.Errorf("%s: quantile %v = %v, want %v within 1 %%", name, q, got, want)
			}
		}
	}
}

func TestABucketEndsAtItsBound(t *testing.T) {
	t.Parallel()
	for index := int32(lowest * perOctave); index < (highest+1)*perOctave; index++ {
		at := bound(index)
		for _, tt := range []struct {
			v    float64
			want int32
		}{{at, index}, {math.Nextafter(at, math.Inf(1)), index + 1}, {at * 0.999, index}} {
			if octave, sub := bucketOf(tt.v); int32(octave*perOctave+sub) != tt.want {
				t.Fatalf("%v is in bucket %d, want %d", tt.v, octave*perOctave+sub, tt.want)
			}
		}
	}
}

func TestValuesAtTheEdges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		v    float64
		want float64 // quantile
		n    uint64
	}{
		{0, 0, 1},
		{math.Copysign(0, -1), 0, 1},
		{1e-300, 0, 1},
		{5e-324, 0, 1},
		{math.MaxFloat64, middle((highest+1)*perOctave - 1), 1},
		{math.Inf(1), middle((highest+1)*perOctave - 1), 1},
		{math.Inf(-1), -middle((highest+1)*perOctave - 1), 1},
		{math.NaN(), math.NaN(), 0},
	} {
		h := NewHistogram()
		h.Observe(tt.v)
		s := h.Snapshot()
		if got := s.Quantile(0.5); s.Count != tt.n || got != tt.want && !(math.IsNaN(got) && math.IsNaN(tt.want)) {
			t.Errorf("%v: %d values, median %v, want %d and %v", tt.v, s.Count, got, tt.n, tt.want)
		}
		if n := h.Rejected(); n != 1-tt.n {
			t.Errorf("%v: %d rejected, want %d", tt.v, n, 1-tt.n)
		}
	}
}

func TestTimer(t *testing.T) {
	t.Parallel()
	timer := NewTimer()
	for range 3 {
		timer.Observe(time.Millisecond)
	}
	timer.Observe(time.Hour)
	timer.Observe(-time.Second)
	s := timer.Snapshot()
	if s.Count != 5 || s.Sum != 3600.003 || s.Zero != 1 {
		t.Errorf("count %d, sum %v, zero %d; want 5, 3600.003 and 1", s.Count, s.Sum, s.Zero)
	}
	if got := s.Quantile(1); math.Abs(got-3600) > 36 {
		t.Errorf("maximum %v, want 3600 within 1 %%", got)
	}
}

func TestSub(t *testing.T) {
	t.Parallel()
	h := NewHistogram()
	h.Observe(1)
	h.Observe(-3)
	before := h.Snapshot()
	h.Observe(1)
	h.Observe(100)
	h.Observe(0)
	s := h.Snapshot().Sub(before)
	if s.Count != 3 || s.Sum != 101 || len(s.Buckets) != 2 || len(s.Negative) != 0 || s.Zero != 1 {
		t.Errorf("got %+v, want 1, 100 and 0", s)
	}
	if s := before.Sub(h.Snapshot()); s.Count != before.Count {
		t.Errorf("%d values since a later snapshot, want all %d: it has begun anew", s.Count, before.Count)
	}
	others := HistogramSnapshot{Bounds: []float64{1, 2}, Counts: []uint64{1, 5, 2}, Count: 8, Sum: 20}
	s = others.Sub(HistogramSnapshot{Bounds: others.Bounds, Counts: []uint64{1, 2, 2}, Count: 5, Sum: 12})
	if diff := cmp.Diff(HistogramSnapshot{Bounds: others.Bounds, Counts: []uint64{0, 3, 0}, Count: 3, Sum: 8}, s); diff != "" {
		t.Error(diff)
	}
}

func TestQuantileByBounds(t *testing.T) {
	t.Parallel()
	s := HistogramSnapshot{Bounds: []float64{1, 4}, Counts: []uint64{2, 2, 1}, Count: 5}
	for q, want := range map[float64]float64{0: 0.5, 0.4: 0.5, 0.8: 2, 1: math.Inf(1)} {
		if got := s.Quantile(q); got != want {
			t.Errorf("quantile %v = %v, want %v", q, got, want)
		}
	}
}

func TestAtMostIsExactWhereBucketsEnd(t *testing.T) {
	t.Parallel()
	h := NewHistogram()
	values := []float64{-2, 0, 0.25, 0.3, 1, 1.4142, 1.5, 2, 3}
	for _, v := range values {
		h.Observe(v)
	}
	s := h.Snapshot()
	for _, most := range []float64{-4, -1, 0, 0.25, 0.5, 1, math.Sqrt2, 2, 4} {
		var want uint64
		for _, v := range values {
			if v <= most {
				want++
			}
		}
		if got := s.AtMost(most); got != want {
			t.Errorf("%d values of at most %v, want %d", got, most, want)
		}
	}
}

func TestCoarse(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	h := NewHistogram()
	for range 5000 {
		h.Observe(math.Exp(rng.NormFloat64() * 3))
	}
	s := h.Snapshot()
	for _, most := range []int{1000, 160, 20, 4} {
		buckets, schema := Coarse(s.Buckets, 5, most)
		var n, below uint64
		for _, b := range buckets {
			n += b.Count
			if upper := math.Exp2(float64(b.Index) * math.Exp2(-float64(schema))); upper <= 4 {
				below += b.Count
			}
		}
		if len(buckets) > most || n != s.Count {
			t.Errorf("%d buckets with %d values, want %d at most with %d", len(buckets), n, most, s.Count)
		}
		if schema >= -1 && below != s.AtMost(4) {
			t.Errorf("schema %d: %d values of at most 4, want %d", schema, below, s.AtMost(4))
		}
	}
}

func TestASnapshotPassesThroughJSON(t *testing.T) {
	t.Parallel()
	h := NewHistogram()
	for _, v := range []float64{-1, 0, 2, 2, 1e9} {
		h.Observe(v)
	}
	want := h.Snapshot()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got HistogramSnapshot
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHistogramCountsFromManyGoroutines(t *testing.T) {
	t.Parallel()
	h := NewHistogram()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				h.Observe(float64(i%3-1) * 2)
			}
		})
	}
	for range 100 {
		h.Snapshot()
	}
	wg.Wait()
	if s := h.Snapshot(); s.Count != 4000 || s.Sum != -8 {
		t.Errorf("count %d, sum %v; want 4000, -8", s.Count, s.Sum)
	}
}
