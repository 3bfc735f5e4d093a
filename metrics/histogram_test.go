package metrics

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuantileIsAtMost19PercentOff(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	shapes := []struct {
		name string
		draw func() time.Duration
	}{
		{"one value", func() time.Duration { return 42 * time.Millisecond }},
		{"evenly spread", func() time.Duration { return time.Millisecond + rand.N(time.Second) }},
		{"spread over all magnitudes", func() time.Duration { return time.Duration(100e3 * math.Pow(2, 20*rng.Float64())) }},
		{"two humps", func() time.Duration { return []time.Duration{time.Millisecond, 10 * time.Second}[rng.IntN(2)] }},
	}
	for _, shape := range shapes {
		h := NewHistogram()
		values := make([]float64, 10_001)
		for i := range values {
			d := shape.draw()
			values[i] = d.Seconds()
			h.Observe(d)
		}
		slices.Sort(values)
		s := h.Snapshot()
		for _, q := range []float64{0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1} {
			want := values[max(1, int(math.Ceil(q*float64(len(values)))))-1]
			if got := s.Quantile(q); math.Abs(got-want)/want > 0.19 {
				t.Errorf("%s: quantile %v = %vs, want %vs within 19 %%", shape.name, q, got, want)
			}
		}
	}
}

func TestQuantileAtTheEdges(t *testing.T) {
	t.Parallel()
	observe := func(ds ...time.Duration) HistogramSnapshot {
		h := NewHistogram()
		for _, d := range ds {
			h.Observe(d)
		}
		return h.Snapshot()
	}
	tests := []struct {
		name string
		s    HistogramSnapshot
		q    float64
		want float64
	}{
		{"an empty histogram has none", observe(), 0.5, math.NaN()},
		{"below the first bound it is that bound", observe(0, time.Nanosecond), 0.5, 100e-6},
		{"a negative duration counts as 0", observe(-time.Hour), 1, 100e-6},
		{"above the last bound it is infinite", observe(time.Hour), 0.5, math.Inf(1)},
		{"a value on a bound lies below it", observe(200 * time.Microsecond), 1, math.Sqrt(200e-6 * 100e-6 * math.Sqrt2)},
		{"the lowest quantile is the first value", observe(time.Microsecond, time.Hour), 0, 100e-6},
	}
	for _, tt := range tests {
		got := tt.s.Quantile(tt.q)
		if diff := math.Abs(got - tt.want); got != tt.want && !(math.IsNaN(got) && math.IsNaN(tt.want)) && !(diff < 1e-12) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestHistogramSnapshot(t *testing.T) {
	t.Parallel()
	h := NewHistogram()
	for range 3 {
		h.Observe(time.Millisecond)
	}
	h.Observe(time.Hour)
	h.Observe(-time.Second)
	s := h.Snapshot()
	if len(s.Counts) != len(s.Bounds)+1 || !slices.IsSorted(s.Bounds) {
		t.Errorf("%d counts for %d bounds, sorted %v", len(s.Counts), len(s.Bounds), slices.IsSorted(s.Bounds))
	}
	if s.Count != 5 || s.Sum != 3600.003 {
		t.Errorf("count %d, sum %v; want 5, 3600.003", s.Count, s.Sum)
	}
	got := map[int]uint64{}
	for i, n := range s.Counts {
		if n > 0 {
			got[i] = n
		}
	}
	// 1 ms is under 100 us * 2^(7/2) = 1.13 ms.
	if diff := cmp.Diff(map[int]uint64{0: 1, 7: 3, len(s.Bounds): 1}, got); diff != "" {
		t.Errorf("counts by bucket (-want +got):\n%s", diff)
	}
}

func TestHistogramCountsFromManyGoroutines(t *testing.T) {
	t.Parallel()
	h := NewHistogram()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				h.Observe(time.Millisecond)
			}
		})
	}
	for range 100 {
		h.Snapshot()
	}
	wg.Wait()
	if s := h.Snapshot(); s.Count != 4000 || s.Sum != 4 {
		t.Errorf("count %d, sum %v; want 4000, 4", s.Count, s.Sum)
	}
}

func TestObserveAndCountingDoNotAllocate(t *testing.T) {
	h := NewHistogram()
	p, err := NewRegistry().Pipeline(PipelineOptions{Name: "p", Unit: "items"})
	if err != nil {
		t.Fatal(err)
	}
	p.Drop("full", 1)
	p.Retry("busy", 1)
	for name, f := range map[string]func(){
		"Observe": func() { h.Observe(3 * time.Millisecond) },
		"In":      func() { p.In(1) },
		"Out":     func() { p.Out(1) },
		"Drop":    func() { p.Drop("full", 1) },
		"Retry":   func() { p.Retry("busy", 1) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	h := NewHistogram()
	b.ReportAllocs()
	for b.Loop() {
		h.Observe(3 * time.Millisecond)
	}
}
