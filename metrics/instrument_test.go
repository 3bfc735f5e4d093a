package metrics

import (
	"math"
	"testing"
	"time"
)

func TestTheHotPathDoesNotAllocate(t *testing.T) {
	g := NewRegistry().Group()
	p, err := g.Pipeline(PipelineOptions{Name: "p", Unit: "items"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := g.Counters(Desc{Name: "c_total", Help: "C.", Tags: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	var (
		c Counter
		x Gauge
		m Meter
		h Histogram
		d Timer
	)
	for name, f := range map[string]func(){
		"counter":        func() { c.Inc() },
		"gauge":          func() { x.Set(1); x.Add(2) },
		"meter":          func() { m.Mark(1) },
		"histogram":      func() { h.Observe(3) },
		"timer":          func() { d.Observe(3 * time.Millisecond) },
		"no exemplar":    func() { d.ObserveWithExemplar(time.Millisecond, Label{"trace_id", ""}); c.AddWithExemplar(1) },
		"vec":            func() { v.With("x", "y").Inc() },
		"pipeline":       func() { p.In(1); p.Out(1) },
		"drops, retries": func() { p.Drop("full", 1); p.Retry("busy", 1) },
	} {
		f()
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

// TestAMeterIsLikeALoadAverage holds the rates to what the formula gives for a
// steady rate that stops.
func TestAMeterIsLikeALoadAverage(t *testing.T) {
	t.Parallel()
	var m Meter
	m.Mark(1000) // before anybody looked: it belongs to no span
	now := time.Unix(1_700_000_000, 0)
	m.tick(now)
	if r := m.Rates(); r != (Rates{}) {
		t.Errorf("before the second tick: %+v, want none", r)
	}
	for range 600 {
		m.Mark(10)
		now = now.Add(time.Second)
		m.tick(now)
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 0.001*max(want, 1) {
			t.Errorf("%s: %v a second, want %v", what, got, want)
		}
	}
	r := m.Rates()
	near("one minute", r.One, 10)
	near("five minutes", r.Five, 10)
	near("fifteen minutes", r.Fifteen, 10)
	near("mean", r.Mean, 10)
	for range 60 {
		now = now.Add(time.Second)
		m.tick(now)
	}
	r = m.Rates()
	near("one minute after the end", r.One, 10*math.Exp(-1))
	near("five minutes", r.Five, 10*math.Exp(-1./5))
	near("fifteen minutes", r.Fifteen, 10*math.Exp(-1./15))
	near("mean", r.Mean, 6000./660)
	if m.Count() != 7000 {
		t.Errorf("count %d, want 7000", m.Count())
	}
}

func TestAMeterUnderAClockThatIsPutBack(t *testing.T) {
	t.Parallel()
	var m Meter
	now := time.Unix(1_700_000_000, 0)
	for _, step := range []time.Duration{0, time.Second, -time.Hour, time.Second, time.Second} {
		now = now.Add(step)
		m.Mark(5)
		m.tick(now)
	}
	if r := m.Rates(); math.IsNaN(r.One) || math.IsInf(r.One, 0) || r.One < 0 || r.One > 10 {
		t.Errorf("%+v a second, want about 5", r)
	}
}

func BenchmarkCounter(b *testing.B) {
	var c Counter
	b.ReportAllocs()
	for b.Loop() {
		c.Inc()
	}
}

func BenchmarkMeter(b *testing.B) {
	var m Meter
	b.ReportAllocs()
	for b.Loop() {
		m.Mark(1)
	}
}

func BenchmarkTimer(b *testing.B) {
	var t Timer
	b.ReportAllocs()
	for b.Loop() {
		t.Observe(3 * time.Millisecond)
	}
}

func BenchmarkHistogram(b *testing.B) {
	var h Histogram
	b.ReportAllocs()
	for b.Loop() {
		h.Observe(0.003)
	}
}

func BenchmarkVecWith(b *testing.B) {
	v, err := NewRegistry().Group().Counters(Desc{Name: "c_total", Help: "C.", Tags: []string{"a", "b"}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		v.With("one", "two").Inc()
	}
}
