package history

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/outrider-agent/outrider/metrics"
)

func histogram(name string, s *metrics.HistogramSnapshot, tags ...string) metrics.Family {
	return metrics.Family{
		Desc:   metrics.Desc{Name: name, Type: metrics.HistogramType, Unit: "seconds", Tags: tags},
		Points: []metrics.Point{{Tags: tags, Hist: s}},
	}
}

// feedAll gives the history one read a second of a family of one series.
func feedAll(h *History, c *clock, kind metrics.Type, values ...float64) {
	for _, v := range values {
		c.now = c.now.Add(time.Second)
		h.Observe(c.now, "s", []metrics.Family{{Desc: metrics.Desc{Name: "x", Type: kind}, Points: []metrics.Point{{Value: v}}}})
	}
}

func find(t *testing.T, h *History, name string, tags map[string]string) Series {
	t.Helper()
	s, ok := h.Find(name, tags)
	if !ok {
		t.Fatalf("no series %s %v; there are %v", name, tags, h.Names())
	}
	return s
}

func TestStatsOfAWindow(t *testing.T) {
	c := newClock()
	h := open(t, c, Options{})
	feedAll(h, c, metrics.GaugeType, 1000, 2000)
	for i := range 100 {
		feedAll(h, c, metrics.GaugeType, float64((i*37)%100+1))
	}
	feedAll(h, c, metrics.GaugeType, math.NaN(), math.Inf(1))
	got, ok := find(t, h, "x", nil).Stats(101 * time.Second)
	if want := (Stats{Now: 64, Min: 1, P95: 95, Max: 100, Count: 100}); got != want || !ok {
		t.Errorf("got %+v %t, want %+v", got, ok, want)
	}
	if st, ok := find(t, h, "x", nil).Stats(time.Second); ok || !math.IsNaN(st.Now) {
		t.Errorf("of a window without a number: %+v %t, want NaN and not ok", st, ok)
	}
	if _, ok := (Series{}).Stats(time.Hour); ok {
		t.Error("a series that was not found has stats")
	}
	if _, ok := h.Find("y", nil); ok {
		t.Error("y was found")
	}
}

func TestRateOfACounterThatBeginsAnew(t *testing.T) {
	c := newClock()
	h := open(t, c, Options{})
	feedAll(h, c, metrics.CounterType, 100, 110, 130, math.NaN(), 5, 10)
	x := find(t, h, "x", nil)
	if rate, ok := x.Rate(time.Minute); !ok || rate != (10+20+5+5)/5.0 {
		t.Errorf("rate %g %t, want 8", rate, ok)
	}
	want := Stats{Now: 5, Min: 2.5, P95: 20, Max: 20, Count: 4}
	if got, ok := x.RateStats(time.Minute); !ok || got != want {
		t.Errorf("rates %+v %t, want %+v", got, ok, want)
	}
	if rate, ok := x.Rate(0); ok {
		t.Errorf("rate of one sample %g, want none", rate)
	}
}

func TestStepsBeginAtMultiples(t *testing.T) {
	c := newClock() // at 20 s of a minute
	h := open(t, c, Options{})
	for i := range 100 {
		feedAll(h, c, metrics.GaugeType, float64(i))
		if i == 60 {
			c.now = c.now.Add(2 * time.Minute)
		}
	}
	var got []string
	for s := range Steps(find(t, h, "x", nil).Range(time.Time{}, c.now), time.Minute) {
		got = append(got, fmt.Sprintf("%s %g %g %g %g %d", s.At.Format("04:05"), s.Min, s.Max, s.Avg, s.Last, s.Count))
	}
	want := []string{"13:00 0 38 19 38 39", "14:00 39 60 49.5 60 22", "16:00 61 98 79.5 98 38", "17:00 99 99 99 99 1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("steps (-want +got):\n%s", d)
	}
	for s := range Steps(find(t, h, "x", nil).Range(time.Time{}, c.now), 0) {
		t.Errorf("a step of no length: %+v", s)
	}
}

func TestRangeIncludesBothEnds(t *testing.T) {
	c := newClock()
	h := open(t, c, Options{})
	began := c.now
	feedAll(h, c, metrics.GaugeType, 1, 2, 3, 4)
	for _, tt := range []struct {
		from, to time.Duration
		want     []float64
	}{
		{2 * time.Second, 3 * time.Second, []float64{2, 3}},
		{2*time.Second + 1, 3*time.Second - 1, nil},
		{3 * time.Second, 2 * time.Second, nil},
		{0, time.Hour, []float64{1, 2, 3, 4}},
	} {
		var got []float64
		for _, v := range find(t, h, "x", nil).Range(began.Add(tt.from), began.Add(tt.to)) {
			got = append(got, v)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("from %s to %s (-want +got):\n%s", tt.from, tt.to, d)
		}
	}
}

func TestALoopSeesWhatThereWasWhenItBegan(t *testing.T) {
	c := newClock()
	h := open(t, c, Options{})
	for range 300 {
		feedAll(h, c, metrics.GaugeType, 1)
	}
	n, end := 0, c.now
	for range find(t, h, "x", nil).Range(time.Time{}, end) {
		if n++; n == 1 {
			c.now = c.now.Add(-4 * time.Minute)
			feedAll(h, c, metrics.GaugeType, 2) // hides what is later
		}
	}
	if n != 300 {
		t.Errorf("%d samples, want the 300", n)
	}
	if got, _ := find(t, h, "x", nil).Stats(time.Hour); got.Count != 61 || got.Now != 2 {
		t.Errorf("after the clock was set back %+v, want 60 samples of before, and the 2", got)
	}
}

func TestTagsMayChangeTheirNamesAndOrder(t *testing.T) {
	c := newClock()
	h := open(t, c, Options{})
	reads := []metrics.Family{
		gauge("g", []string{"code", "host"}, point(1, "200", "b"), point(2, "500", "a")),
		gauge("g", []string{"host", "code"}, point(2, "a", "500"), point(1, "b", "200")),
		gauge("g", []string{"host", "zone", "code"}, point(2, "a", "", "500"), point(1, "b", "", "200"), point(3, "b", "z", "200")),
		gauge("g", []string{"code", "host"}, point(2, "500", "a"), point(1, "200", "b")),
		gauge("g", []string{"rack"}, point(4, "r")),
		gauge("g", nil, point(5)),
	}
	for _, f := range reads {
		c.now = c.now.Add(time.Second)
		h.Observe(c.now, "s", []metrics.Family{f})
	}
	got := map[string]int{}
	for _, s := range h.Select("g", nil) {
		st, _ := s.Stats(time.Minute)
		if st.Min != st.Max {
			t.Errorf("series %v has values %g to %g, want one", s.Tags, st.Min, st.Max)
		}
		got[fmt.Sprint(s.Tags, st.Now)] = st.Count
	}
	want := map[string]int{
		"map[code:200 host:b] 1": 4, "map[code:500 host:a] 2": 4, "map[code:200 host:b zone:z] 3": 1,
		"map[rack:r] 4": 1, "map[] 5": 1,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("samples by series (-want +got):\n%s", d)
	}
}

func TestWhatCannotBeKeptIsCountedByReason(t *testing.T) {
	c := newClock()
	h := open(t, c, Options{})
	x := []metrics.Family{counter("x", 1)}
	h.Observe(c.now, "s", x)
	h.Observe(c.now, "s", x)                      // at the same moment
	h.Observe(c.now.Add(-time.Second), "s", x)    // before
	h.Observe(c.now.Add(-61*time.Minute), "s", x) // too old
	h.Observe(c.now.Add(61*time.Minute), "s", x)  // in the future
	h.Observe(c.now.Add(time.Second), "s", []metrics.Family{
		counter("x", 1), counter("x", 2), // twice
		gauge("y", []string{"a"}, point(1)), // without its tag
		{Desc: metrics.Desc{Name: "z", Type: metrics.HistogramType}, Points: []metrics.Point{{}}},
	})
	want := map[string]int64{dropOutOfOrder: 2, dropTooOld: 1, dropFuture: 1, dropDuplicate: 1, dropMalformed: 2}
	if d := cmp.Diff(want, dropped(h)); d != "" {
		t.Errorf("dropped (-want +got):\n%s", d)
	}
	if p := h.pipe.Snapshot(); p.In != 9 || p.Queued != 2 {
		t.Errorf("books %+v, want 9 in and 2 kept", p)
	}
}

func TestHistogramsAreKeptAsSeries(t *testing.T) {
	for _, tt := range []struct {
		name string
		read func(fast, slow uint64) metrics.HistogramSnapshot // so many values of 0.01 and of 1
		want [4]float64
	}{
		{"with buckets", func(fast, slow uint64) metrics.HistogramSnapshot {
			var timer metrics.Timer
			for range fast {
				timer.Observe(10 * time.Millisecond)
			}
			for range slow {
				timer.Observe(time.Second)
			}
			return timer.Snapshot()
		}, [4]float64{0.01, 0.01, 1, 1}},
		{"with bounds", func(fast, slow uint64) metrics.HistogramSnapshot {
			return metrics.HistogramSnapshot{
				Bounds: []float64{0.005, 0.02, 0.5, 2}, Counts: []uint64{0, fast, 0, slow, 0},
				Count: fast + slow, Sum: float64(fast)*0.01 + float64(slow),
			}
		}, [4]float64{0.01, 0.01, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClock()
			h := open(t, c, Options{})
			read := func(fast, slow uint64) {
				c.now = c.now.Add(time.Second)
				s := tt.read(fast, slow)
				h.Observe(c.now, "s", []metrics.Family{histogram("lag_seconds", &s, "lane")})
			}
			read(0, 1000) // before: of no matter
			read(97, 1003)
			read(97, 1003) // nothing came
			read(0, 2)     // it began anew
			tags := map[string]string{"lane": "lane"}
			counts, _ := find(t, h, "lag_seconds_count", tags).Stats(time.Minute)
			if want := (Stats{Now: 2, Min: 2, P95: 1100, Max: 1100, Count: 4}); counts != want {
				t.Errorf("counts %+v, want %+v", counts, want)
			}
			sums, _ := find(t, h, "lag_seconds_sum", tags).Stats(time.Minute)
			if math.Abs(sums.Max-1003.97) > 1e-6 || sums.Now != 2 {
				t.Errorf("sums %+v, want 2, and at most 1003.97", sums)
			}
			var got [4][]float64
			for i, suffix := range []string{"_p50", "_p95", "_p99", "_max"} {
				s := find(t, h, "lag_seconds"+suffix, tags)
				if s.Type != metrics.GaugeType || s.Unit != "seconds" {
					t.Errorf("%s is a %s of %s, want a gauge of seconds", s.Name, s.Type, s.Unit)
				}
				for _, v := range s.Range(time.Time{}, c.now) {
					got[i] = append(got[i], v)
				}
			}
			want := [4][]float64{}
			for i, v := range tt.want {
				want[i] = []float64{v, 1}
			}
			if d := cmp.Diff(want, got, cmpopts.EquateApprox(0.006, 0)); d != "" {
				t.Errorf("quantiles (-want +got):\n%s", d)
			}
		})
	}
}

func TestMalformedHistogramsDoNoHarm(t *testing.T) {
	c := newClock()
	h := open(t, c, Options{})
	for i, s := range []metrics.HistogramSnapshot{
		{Bounds: []float64{1, 2}, Counts: []uint64{1}, Count: 1},
		{Bounds: []float64{1, 2}, Counts: []uint64{1, 1, 1}, Count: 3},
		{Bounds: []float64{1, 2}, Count: 7},
		{Counts: []uint64{4, 4, 4, 4}, Count: 16},
		{Buckets: []metrics.Bucket{{Index: 5, Count: 1}, {Index: -5, Count: 1}}, Count: 20},
		{Negative: []metrics.Bucket{{Index: 1 << 30, Count: 1 << 63}}, Zero: 3, Count: 30, Sum: math.NaN()},
		{Count: 40},
	} {
		c.now = c.now.Add(time.Second)
		h.Observe(c.now, "s", []metrics.Family{histogram("lag_seconds", &s)})
		if st, _ := find(t, h, "lag_seconds_count", nil).Stats(time.Hour); st.Count != i+1 {
			t.Errorf("after %+v: %d counts, want %d", s, st.Count, i+1)
		}
	}
}

func TestMetricsOfAHistory(t *testing.T) {
	c := newClock()
	h := open(t, c, Options{Keep: time.Minute})
	for range 90 {
		feedAll(h, c, metrics.GaugeType, 1)
	}
	got := map[string]float64{}
	for _, f := range h.opts.Metrics.Gather() {
		for _, p := range f.Points {
			if len(p.Tags) < 2 {
				got[fmt.Sprint(f.Desc.Name, p.Tags)] = p.Value
			}
		}
	}
	used, index := h.bytes()
	want := map[string]float64{
		"outrider_history_reach_seconds[s]": 60, "outrider_history_series[s]": 1, "outrider_history_budget_bytes[]": 16 << 20,
		"outrider_history_bytes[index]": float64(index), "outrider_history_bytes[chunks]": float64(used - index),
		"outrider_history_samples[]": 90, "outrider_history_samples_observed_total[]": 90, "outrider_history_samples_expired_total[]": 0,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("metrics (-want +got):\n%s", d)
	}
}
