package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	vm "github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/client_golang/prometheus"
	gometrics "github.com/rcrowley/go-metrics"

	"github.com/outrider-agent/outrider/metrics"
)

// An instrument is one measurement with a handle that is held.
type instrument struct {
	kind, of string
	measure  func()
}

// durations are drawn beforehand, so that no instrument's branches are learned.
// Read-only.
var durations = func() (d [1024]time.Duration) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range d {
		d[i] = time.Duration(float64(time.Millisecond) * (0.1 + r.ExpFloat64()*20))
	}
	return d
}()

func instruments() []instrument {
	var (
		counter   metrics.Counter
		meter     metrics.Meter
		timer     metrics.Timer
		counter2  = prometheus.NewCounter(prometheus.CounterOpts{Name: "c"})
		histogram = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h"})
		counter3  = gometrics.NewCounter()
		meter3    = gometrics.NewMeter()
		timer3    = gometrics.NewTimer()
		set       = vm.NewSet()
		counter4  = set.NewCounter("c")
		timer4    = set.NewHistogram("h")
		i         int
	)
	next := func() time.Duration {
		i++
		return durations[i%len(durations)]
	}
	return []instrument{
		{"counter", "outrider", counter.Inc},
		{"counter", "client_golang", counter2.Inc},
		{"counter", "go-metrics", func() { counter3.Inc(1) }},
		{"counter", "VictoriaMetrics", counter4.Inc},
		{"meter", "outrider", func() { meter.Mark(1) }},
		{"meter", "go-metrics", func() { meter3.Mark(1) }},
		{"timer", "outrider", func() { timer.Observe(next()) }},
		{"timer", "client_golang", func() { histogram.Observe(next().Seconds()) }},
		{"timer", "go-metrics", func() { timer3.Update(next()) }},
		{"timer", "VictoriaMetrics", func() { timer4.Update(next().Seconds()) }},
	}
}

func BenchmarkInstruments(b *testing.B) {
	for _, in := range instruments() {
		b.Run(in.kind+"/"+in.of, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				in.measure()
			}
		})
	}
}

// TestInstrumentsAgainstTheField holds the ratios of five paired runs: half again
// as much as the budget, on the median, for the noise.
func TestInstrumentsAgainstTheField(t *testing.T) {
	all := instruments()
	took := func(kind, of string) float64 {
		i := slices.IndexFunc(all, func(in instrument) bool { return in.kind == kind && in.of == of })
		const n = 200_000
		began := time.Now()
		for range n {
			all[i].measure()
		}
		return float64(time.Since(began).Nanoseconds()) / n
	}
	for _, tt := range []struct {
		kind, of string
		most     float64
	}{
		{"counter", "client_golang", 1},
		{"meter", "go-metrics", 0.2},
		{"timer", "client_golang", 1.3},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			var ratios []float64
			var said string
			for range 5 {
				ours, theirs := took(tt.kind, "outrider"), took(tt.kind, tt.of)
				ratios = append(ratios, ours/theirs)
				said += fmt.Sprintf(" %.1f/%.1f", ours, theirs)
			}
			slices.Sort(ratios)
			t.Logf("%s against %s: %.2f times as long; ns:%s", tt.kind, tt.of, ratios[2], said)
			if ratios[2] > tt.most*1.5 {
				t.Errorf("%s took %.2f times as long as that of %s, want %.1f at most", tt.kind, ratios[2], tt.of, tt.most)
			}
		})
	}
	for _, in := range all {
		if n := testing.AllocsPerRun(1000, in.measure); in.of == "outrider" && n != 0 {
			t.Errorf("%s: %v allocations, want none", in.kind, n)
		}
	}
}
