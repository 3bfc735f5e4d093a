package history

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// clock is a clock that is set by hand.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.UnixMilli(1_700_000_000_000)} }

func open(t testing.TB, c *clock, o Options) *History {
	t.Helper()
	o.Now, o.Metrics = func() time.Time { return c.now }, metricstest.Registry(t)
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { audit(t, h) })
	return h
}

// audit counts anew what a history says of its bytes and samples, and holds it to
// its budget and its books.
func audit(t testing.TB, h *History) {
	t.Helper()
	if balance, ok := h.pipe.Snapshot().Balance(); balance != 0 || !ok {
		t.Errorf("books %+v: balance %d known %t, want 0", h.pipe.Snapshot(), balance, ok)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var used, index, kept int64
	for _, src := range h.sources {
		srcIndex, chunks, closed := sourceSize+int64(len(src.name))+src.reads.size+src.closedSize, int64(0), 0
		for _, f := range src.families {
			srcIndex += f.size + f.slots
			if !slices.IsSortedFunc(f.series, func(a, b *series) int {
				return slices.Compare(values(a.key, len(f.tags)), values(b.key, len(f.tags)))
			}) {
				t.Errorf("%s %s: series are not sorted", src.name, f.name)
			}
			for _, s := range f.series {
				srcIndex += s.size()
				kept += int64(s.count)
				closed += len(s.chunks)
				for _, chunk := range s.chunks {
					chunks += allocated(len(chunk))
					kept += chunkCount(chunk)
				}
			}
		}
		for _, b := range src.before {
			srcIndex += b.size()
		}
		if src.index != srcIndex || src.bytes != srcIndex+chunks || len(src.closed) != closed || src.writers != 0 {
			t.Errorf("source %s: index %d bytes %d closed %d writers %d, counted %d, %d, %d, want 0 writers",
				src.name, src.index, src.bytes, len(src.closed), src.writers, srcIndex, srcIndex+chunks, closed)
		}
		used, index = used+srcIndex+chunks, index+srcIndex
	}
	if h.used != used || h.index != index || h.kept != kept {
		t.Errorf("used %d index %d kept %d, counted %d, %d, %d", h.used, h.index, h.kept, used, index, kept)
	}
	if h.used > h.opts.Budget {
		t.Errorf("used %d bytes, budget %d", h.used, h.opts.Budget)
	}
}

func gauge(name string, tags []string, points ...metrics.Point) metrics.Family {
	return metrics.Family{Desc: metrics.Desc{Name: name, Type: metrics.GaugeType, Tags: tags}, Points: points}
}

func counter(name string, v float64) metrics.Family {
	return metrics.Family{Desc: metrics.Desc{Name: name, Type: metrics.CounterType}, Points: []metrics.Point{{Value: v}}}
}

func point(v float64, tags ...string) metrics.Point { return metrics.Point{Tags: tags, Value: v} }

type at struct {
	Ms   int64
	Bits uint64
}

func all(s Series) (out []at) {
	for when, v := range s.Range(time.UnixMilli(0), time.UnixMilli(1<<42)) {
		out = append(out, at{when.UnixMilli(), math.Float64bits(v)})
	}
	return out
}

// model is a history as plain slices.
type model struct {
	keep   int64
	series map[string][]at
	newest int64
}

func (m *model) observe(now, ms int64, values map[string]float64) {
	m.cut(func(a at) bool { return a.Ms < now-m.keep })
	if len(m.series) == 0 {
		m.newest = math.MinInt64
	}
	switch {
	case ms < now-m.keep || ms > now+m.keep || ms <= m.newest && m.newest-ms <= 60_000:
		return
	case ms <= m.newest:
		m.cut(func(a at) bool { return a.Ms >= ms })
	}
	m.newest = ms
	for name, v := range values {
		m.series[name] = append(m.series[name], at{ms, math.Float64bits(v)})
	}
}

func (m *model) cut(gone func(at) bool) {
	for name, s := range m.series {
		m.series[name] = slices.DeleteFunc(s, gone)
	}
	maps.DeleteFunc(m.series, func(_ string, s []at) bool { return len(s) == 0 })
}

func TestHistoryIsAsPlainSlicesAre(t *testing.T) {
	for seed := range uint64(9) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r, c := rand.New(rand.NewPCG(seed, 3)), newClock()
			h := open(t, c, Options{Keep: 10 * time.Minute})
			m := model{keep: 600_000, series: map[string][]at{}}
			var wilds []func() float64
			for range 12 {
				wilds = append(wilds, wild(r))
			}
			every := []time.Duration{time.Second, 10 * time.Second, 150 * time.Millisecond}[seed%3]
			for step := range 2500 {
				c.now = c.now.Add(every + time.Duration(r.IntN(40)-20)*time.Millisecond)
				read := c.now
				switch r.IntN(400) {
				case 0:
					c.now = c.now.Add(time.Duration(r.IntN(700)) * time.Second)
				case 1:
					c.now = c.now.Add(-time.Duration(r.IntN(700)) * time.Second)
				case 2:
					read = read.Add(time.Duration(r.IntN(4000)-2000) * time.Second)
				}
				given := map[string]float64{}
				typed := metrics.Family{Desc: metrics.Desc{Name: "c", Type: metrics.CounterType, Tags: []string{"n"}}}
				plain := gauge("g", []string{"n"})
				for i, next := range wilds {
					if v := next(); r.IntN(50) > 0 && (step/100+i)%9 > 0 {
						f := &typed
						if i%2 == 0 {
							f = &plain
						}
						f.Points = append(f.Points, point(v, fmt.Sprint(i)))
						given[f.Desc.Name+fmt.Sprint(i)] = v
					}
				}
				h.Observe(read, "s", []metrics.Family{typed, plain})
				m.observe(c.now.UnixMilli(), read.UnixMilli(), given)
				if step%125 == 124 {
					compare(t, h, m)
				}
			}
		})
	}
}

func compare(t *testing.T, h *History, m model) {
	t.Helper()
	got := map[string][]at{}
	for _, name := range h.Names() {
		for _, s := range h.Select(name, nil) {
			if samples := all(s); len(samples) > 0 {
				got[s.Name+s.Tags["n"]] = samples
			}
		}
	}
	if d := cmp.Diff(m.series, got); d != "" {
		t.Fatalf("samples (-model +history):\n%.2000s", d)
	}
}
