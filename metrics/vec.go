package metrics

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"weak"
)

// Other is the value of a tag that has too many.
const Other = "__other__"

// foldedDesc describes what the budgets did. Read-only.
var foldedDesc = Desc{
	Name: "outrider_series_folded_total", Datadog: "outrider.series.folded", Type: CounterType, Unit: "series",
	Help: "New series that a metric's budget made part of one whose tag is " + Other + ", by metric and tag.",
	Tags: []string{"metric", "tag"}, Budget: 1000,
}

// A Vec has the instruments of one metric, one for each combination of its tags'
// values. Its methods may be called from many goroutines at once.
//
// An instrument that has not changed for the metric's [Desc.TTL] is shown no
// longer. It is kept for whoever holds it: when it is written to it is shown
// again, as it stands.
//
// Four fifths of the metric's budget are for what comes first. After that, a new
// combination counts under [Other] in the tag that has the most values, and when
// the budget is used up by these, in all tags. Gauges overwrite one another then.
type Vec[T any] struct {
	desc  Desc
	moves func(*T) uint64 // changes when the instrument is written to
	point func(*T, []string, func(Point))
	ticks func(*T, time.Time) // nil: it does not

	refused func(*T) uint64 // exemplars; nil: it has none
	refuse  func(n uint64)  // hears of those that are new

	mu     sync.Mutex
	live   map[string]*member[T]
	idle   map[string]weak.Pointer[member[T]]
	worst  int              // the tag that has the most values; -1: to be counted
	folded map[string]int64 // by tag
}

// A member begins with its instrument: so whoever holds that keeps the member.
type member[T any] struct {
	instrument T
	tags       []string
	last       uint64
	moved      time.Time // zero: since the last sweep, or made since
	refused    uint64    // exemplars that were told of
}

func newVec[T any](d Desc, moves func(*T) uint64, point func(*T, []string, func(Point))) *Vec[T] {
	return &Vec[T]{desc: d, moves: moves, point: point, live: map[string]*member[T]{}, idle: map[string]weak.Pointer[member[T]]{}, worst: -1, folded: map[string]int64{}}
}

// With returns the instrument of the tags' values, given in the order of
// [Desc.Tags]. Hold it where it is used often: With takes a lock. Another number
// of values than the metric has tags is a mistake of the program, and panics.
func (v *Vec[T]) With(values ...string) *T {
	if len(values) != len(v.desc.Tags) {
		panic(fmt.Sprintf("BUG: metric %s: got %d values for the tags %v", v.desc.Name, len(values), v.desc.Tags))
	}
	var space [128]byte
	key := appendKey(space[:0], values)
	v.mu.Lock()
	defer v.mu.Unlock()
	if m := v.find(key); m != nil {
		return &m.instrument
	}
	if folded := v.fold(values); folded != nil {
		values = folded
		if key = appendKey(space[:0], values); v.find(key) != nil {
			return &v.find(key).instrument
		}
	}
	m := &member[T]{tags: make([]string, len(values))}
	for i, value := range values {
		m.tags[i] = strings.Clone(value) // what it was cut from may be large
	}
	v.live[string(key)] = m
	return &m.instrument
}

func appendKey(b []byte, values []string) []byte {
	for _, value := range values {
		b = append(append(b, value...), 0xff) // which no UTF-8 has
	}
	return b
}

func (v *Vec[T]) find(key []byte) *member[T] {
	if m := v.live[string(key)]; m != nil {
		return m
	}
	if m := v.idle[string(key)].Value(); m != nil {
		v.wake(string(key), m)
		return m
	}
	return nil
}

func (v *Vec[T]) wake(key string, m *member[T]) {
	delete(v.idle, key)
	m.moved = time.Time{}
	v.live[key] = m
}

// fold returns the values under which a new combination counts; nil: its own.
func (v *Vec[T]) fold(values []string) []string {
	budget := v.desc.Budget
	if budget <= 0 || len(v.live) < budget-max(1, budget/5) || len(values) == 0 {
		return nil
	}
	if v.worst < 0 {
		v.worst = v.mostValues()
	}
	values = slices.Clone(values)
	if len(v.live) < budget-1 {
		values[v.worst] = Other
	} else {
		for i := range values {
			values[i] = Other
		}
	}
	v.folded[v.desc.Tags[v.worst]]++
	return values
}

func (v *Vec[T]) mostValues() int {
	counts := make([]int, len(v.desc.Tags))
	for i := range counts {
		seen := map[string]bool{}
		for _, m := range v.live {
			seen[m.tags[i]] = true
		}
		counts[i] = len(seen)
	}
	worst := 0
	for i, n := range counts {
		if n > counts[worst] {
			worst = i
		}
	}
	return worst
}

func (v *Vec[T]) points(yield func(Point)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.live {
		v.point(&m.instrument, m.tags, yield)
		v.tellRefused(m)
	}
}

func (v *Vec[T]) tellRefused(m *member[T]) {
	if v.refused == nil {
		return
	}
	if n := v.refused(&m.instrument); n > m.refused {
		v.refuse(n - m.refused)
		m.refused = n
	}
}

func (v *Vec[T]) foldedPoints(yield func(Point)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, tag := range slices.Sorted(maps.Keys(v.folded)) {
		yield(Point{Tags: []string{v.desc.Name, tag}, Value: float64(v.folded[tag])})
	}
}

// tick brings what goes with time up to now.
func (v *Vec[T]) tick(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.live {
		if v.ticks != nil {
			v.ticks(&m.instrument, now)
		}
		v.tellRefused(m)
	}
	v.worst = -1
	if v.desc.TTL <= 0 {
		return
	}
	for key, m := range v.live {
		if at := v.moves(&m.instrument); at != m.last || m.moved.IsZero() {
			m.last, m.moved = at, now
		} else if now.Sub(m.moved) >= v.desc.TTL {
			delete(v.live, key)
			v.idle[key] = weak.Make(m)
		}
	}
	for key, w := range v.idle {
		switch m := w.Value(); {
		case m == nil: // nobody holds it
			delete(v.idle, key)
		case v.moves(&m.instrument) != m.last:
			v.wake(key, m)
		}
	}
}

// Counters registers counters, until [Group.Close].
func (g *Group) Counters(d Desc) (*Vec[Counter], error) {
	d.Type = cmp.Or(d.Type, CounterType)
	v := newVec(d,
		func(c *Counter) uint64 { return uint64(c.Value()) },
		func(c *Counter, tags []string, yield func(Point)) {
			yield(Point{Tags: tags, Value: float64(c.Value()), Exemplar: c.Exemplar()})
		})
	v.refused = (*Counter).Refused
	return v, register(g, v, CounterType)
}

// Gauges registers gauges, until [Group.Close].
func (g *Group) Gauges(d Desc) (*Vec[Gauge], error) {
	d.Type = cmp.Or(d.Type, GaugeType)
	v := newVec(d,
		func(x *Gauge) uint64 { return x.bits.Load() },
		func(x *Gauge, tags []string, yield func(Point)) { yield(Point{Tags: tags, Value: x.Value()}) })
	return v, register(g, v, GaugeType)
}

// Histograms registers histograms, until [Group.Close].
func (g *Group) Histograms(d Desc) (*Vec[Histogram], error) {
	d.Type = cmp.Or(d.Type, HistogramType)
	v := newVec(d,
		func(h *Histogram) uint64 { return h.writes() },
		func(h *Histogram, tags []string, yield func(Point)) {
			s := h.Snapshot()
			yield(Point{Tags: tags, Hist: &s})
		})
	v.refused = (*Histogram).Refused
	return v, register(g, v, HistogramType)
}

// Timers registers timers, whose unit is seconds, until [Group.Close].
func (g *Group) Timers(d Desc) (*Vec[Timer], error) {
	d.Type, d.Unit = cmp.Or(d.Type, HistogramType), cmp.Or(d.Unit, "seconds")
	v := newVec(d,
		func(t *Timer) uint64 { return t.writes() },
		func(t *Timer, tags []string, yield func(Point)) {
			s := t.Snapshot()
			yield(Point{Tags: tags, Hist: &s})
		})
	v.refused = (*Timer).Refused
	return v, register(g, v, HistogramType)
}

// Meters registers meters, until [Group.Close]. They are shown as a counter, and
// as a gauge of rates whose name ends in _rate instead of _total, and whose tag
// window is 1m, 5m, 15m or mean.
func (g *Group) Meters(d Desc) (*Vec[Meter], error) {
	d.Type = cmp.Or(d.Type, CounterType)
	v := newVec(d,
		func(m *Meter) uint64 { return uint64(m.Count()) },
		func(m *Meter, tags []string, yield func(Point)) { yield(Point{Tags: tags, Value: float64(m.Count())}) })
	v.ticks = (*Meter).tick
	if err := register(g, v, CounterType); err != nil {
		return nil, err
	}
	return v, g.Func(rateDesc(d), func(yield func(Point)) {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, m := range v.live {
			r := m.instrument.Rates()
			for _, w := range []struct {
				name string
				rate float64
			}{{"1m", r.One}, {"5m", r.Five}, {"15m", r.Fifteen}, {"mean", r.Mean}} {
				yield(Point{Tags: append(slices.Clone(m.tags), w.name), Value: w.rate})
			}
		}
	})
}

func rateDesc(d Desc) Desc {
	d.Name = strings.TrimSuffix(d.Name, "_total") + "_rate"
	d.Type, d.Help = GaugeType, "A second: "+d.Help
	d.Tags, d.Budget = append(slices.Clone(d.Tags), "window"), 4*d.Budget
	if d.Unit != "" {
		d.Unit += " a second"
	}
	if d.Datadog != "" {
		d.Datadog += ".rate"
	}
	return d
}

func register[T any](g *Group, v *Vec[T], want Type) error {
	if v.desc.Type != want {
		return fmt.Errorf("metric %s: type %q, want %s", v.desc.Name, v.desc.Type, want)
	}
	v.refuse = func(n uint64) { g.registry.refuseExemplars(v.desc.Name, n) }
	if err := g.registry.add(v.desc, source{points: v.points, tick: v.tick, group: g}); err != nil {
		return err
	}
	if v.desc.Budget <= 0 || len(v.desc.Tags) == 0 {
		return nil
	}
	return g.registry.add(foldedDesc, source{points: v.foldedPoints, group: g})
}
