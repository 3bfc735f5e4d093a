package history

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// An app is a source of series as programs have them. Reads use its points anew,
// which a history does not keep.
type app struct {
	fams   []metrics.Family
	feeds  []feed
	timers []*metrics.Timer
	reads  int
	r      *rand.Rand
}

// mix is how many of 100 series are as one of feeds.
type mix [12]int

var (
	// usual is what an exporter of a machine or of a service has: half of its
	// series stand still or nearly so. Read-only.
	usual = mix{30, 5, 5, 15, 13, 10, 8, 6, 3, 0, 4, 1}
	// busy has no series that stands still. Read-only.
	busy = mix{0, 0, 10, 10, 20, 20, 15, 10, 5, 5, 5, 0}
)

// newApp returns an app with about so many series, of which each family has 10,
// and with timers, each of which makes 6 more.
func newApp(seed uint64, series, timers int, m mix) *app {
	a := &app{r: rand.New(rand.NewPCG(seed, 4))}
	var kinds []int
	for kind, n := range m {
		for range n {
			kinds = append(kinds, kind)
		}
	}
	for i := range series / 10 {
		f := feeds[kinds[i*37%len(kinds)]]
		d := metrics.Desc{Name: fmt.Sprintf("service_subsystem_something_%d_total", i), Unit: "things", Type: metrics.GaugeType, Tags: []string{"handler", "code"}}
		if f.counter {
			d.Type = metrics.CounterType
		}
		var points []metrics.Point
		for j := range 10 {
			points = append(points, metrics.Point{Tags: []string{fmt.Sprintf("/api/v1/resource/%d", j), "200"}})
		}
		a.fams, a.feeds = append(a.fams, metrics.Family{Desc: d, Points: points}), append(a.feeds, f)
	}
	for i := range timers {
		d := metrics.Desc{Name: fmt.Sprintf("service_subsystem_operation_%d_seconds", i), Unit: "seconds", Type: metrics.HistogramType, Tags: []string{"handler"}}
		a.fams = append(a.fams, metrics.Family{Desc: d, Points: []metrics.Point{{Tags: []string{"/api"}, Hist: &metrics.HistogramSnapshot{}}}})
		a.timers = append(a.timers, metrics.NewTimer())
	}
	return a
}

func (a *app) read() []metrics.Family {
	for i, f := range a.feeds {
		for j := range a.fams[i].Points {
			p := &a.fams[i].Points[j]
			p.Value = f.next(a.r, a.reads, p.Value)
		}
	}
	for i, t := range a.timers {
		for range 20 {
			t.Observe(time.Duration(2e6 + 5e5*a.r.NormFloat64()))
		}
		*a.fams[len(a.feeds)+i].Points[0].Hist = t.Snapshot()
	}
	a.reads++
	return a.fams
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// hour feeds the history an hour and a half of 1,000 series read every second and
// 9,000 read every ten, by scale fewer, and returns how many samples that was, by how much the heap
// grew, and the time that the history took.
func hour(h *History, c *clock, m mix, scale int) (samples, bytes int64, took time.Duration) {
	fast, slow := newApp(1, 820/scale, 30/scale, m), newApp(2, 8700/scale, 50/scale, m)
	fast.read()
	slow.read()
	began := heap()
	observe := func(from string, fams []metrics.Family) {
		start := time.Now()
		h.Observe(c.now, from, fams)
		took += time.Since(start)
	}
	r := rand.New(rand.NewPCG(3, 3))
	for second := range 90 * 60 {
		c.now = c.now.Add(time.Second + time.Duration(r.IntN(5)-2)*time.Millisecond)
		observe("self", fast.read())
		if second%10 == 0 {
			observe("neighbour", slow.read())
		}
	}
	bytes = heap() - began
	runtime.KeepAlive(fast)
	runtime.KeepAlive(slow)
	return h.pipe.Snapshot().In, bytes, took
}

func TestAnHourOfTenThousandSeriesIsWithinTheBudget(t *testing.T) {
	scale := 1
	if underRace {
		scale = 10 // it takes ten times as long
	}
	for _, tt := range []struct {
		name  string
		mix   mix
		reach time.Duration // at least
	}{
		{"of the usual kinds", usual, time.Hour},
		{"all of them busy", busy, 30 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClock()
			h := open(t, c, Options{Budget: int64(defaultBudget / scale)})
			samples, grown, took := hour(h, c, tt.mix, scale)
			used, index := h.bytes()
			kept := h.pipe.Snapshot().Queued
			t.Logf("%d samples in, %d ns each; %d kept", samples, took.Nanoseconds()/samples, kept)
			t.Logf("%d bytes, %.2f a sample; index %d; the heap grew by %d; reach %s and %s",
				used, float64(used)/float64(kept), index, grown, h.Reach("self"), h.Reach("neighbour"))
			if used > h.opts.Budget {
				t.Errorf("%d bytes, want at most %d", used, h.opts.Budget)
			}
			if perSample := float64(used) / float64(kept); perSample > 2 {
				t.Errorf("%.2f bytes a sample, want at most 2", perSample)
			}
			if off := float64(used)/float64(grown) - 1; off < -0.15 || off > 0.15 {
				t.Errorf("it says %d bytes, the heap grew by %d: %.0f %% off, want at most 15", used, grown, 100*off)
			}
			for _, from := range []string{"self", "neighbour"} {
				if reach := h.Reach(from); reach < tt.reach {
					t.Errorf("the history of %s reaches %s back, want %s", from, reach, tt.reach)
				}
			}
			audit(t, h)
			runtime.KeepAlive(h)
		})
	}
}

func BenchmarkObserve(b *testing.B) {
	for _, tt := range []struct {
		name           string
		series, timers int
	}{{"plain", 10_000, 0}, {"timers", 0, 1000}} {
		b.Run(tt.name, func(b *testing.B) {
			c := newClock()
			h := open(b, c, Options{Budget: 256 << 20})
			a := newApp(1, tt.series, tt.timers, usual)
			for range 50 {
				c.now = c.now.Add(time.Second)
				h.Observe(c.now, "s", a.read())
			}
			before := h.pipe.Snapshot().In
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				c.now = c.now.Add(time.Second)
				fams := a.read()
				b.StartTimer()
				h.Observe(c.now, "s", fams)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(h.pipe.Snapshot().In-before), "ns/sample")
		})
	}
}
