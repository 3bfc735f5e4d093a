package collectors

import (
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// collect returns what the table holds, and lets go of what is idle.
func (t *statsdTable) collect(now time.Time) []metrics.Family {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	out := make([]metrics.Family, 0, len(t.families))
	for _, f := range t.families {
		out = append(out, f.family(t.limits, now))
	}
	slices.SortFunc(out, func(a, b metrics.Family) int { return strings.Compare(a.Desc.Name, b.Desc.Name) })
	return out
}

// expire forgets series for which nothing has come for the time to live. One
// that comes back begins at 0, as after a restart of its sender.
func (t *statsdTable) expire(now time.Time) {
	refold := false
	for name, f := range t.families {
		before := len(f.series)
		for key, s := range f.series {
			if now.Sub(s.last) >= t.limits.ttl {
				s.gone = true
				delete(f.series, key)
			}
		}
		n := before - len(f.series)
		if n == 0 {
			continue
		}
		t.series -= n
		t.expired += int64(n)
		f.sorted = nil
		refold = refold || f.worst != ""
		f.worst = ""
		f.keys = f.usedKeys()
		if len(f.series) == 0 {
			delete(t.families, name)
			for _, claim := range f.claims {
				delete(t.claimed, claim)
			}
		}
	}
	if refold { // what was folded may have a series of its own now
		t.recent, t.older = map[string]*statsdSeries{}, nil
	}
	t.heard.expire(t.limits, now)
}

// usedKeys are the tags that the series still have.
func (f *statsdFamily) usedKeys() []string {
	used := map[string]bool{}
	for _, s := range f.series {
		for _, tag := range s.tags {
			used[tag.key] = true
		}
	}
	if len(used) == len(f.keys) {
		return f.keys
	}
	for _, s := range f.series {
		s.values = nil
	}
	return slices.DeleteFunc(slices.Clone(f.keys), func(key string) bool { return !used[key] })
}

func (f *statsdFamily) family(limits statsdLimits, now time.Time) metrics.Family {
	if f.sorted == nil {
		for _, s := range f.series {
			f.sorted = append(f.sorted, s)
			if s.values == nil {
				s.values = s.valuesOf(f.keys)
			}
		}
		slices.SortFunc(f.sorted, func(a, b *statsdSeries) int { return slices.Compare(a.values, b.values) })
	}
	out := metrics.Family{Desc: f.desc(limits), Points: make([]metrics.Point, len(f.sorted))}
	for i, s := range f.sorted {
		p := metrics.Point{Tags: s.values, Value: s.value}
		switch f.kind {
		case 'h', 'm':
			p.Hist = s.hist.snapshot()
		case 's':
			p.Value = s.distinct(limits.setWindow, now)
		}
		out.Points[i] = p
	}
	return out
}

// valuesOf are the values of the tags, in the order of the keys; empty: it does
// not have that tag.
func (s *statsdSeries) valuesOf(keys []string) []string {
	out := make([]string, len(keys))
	for _, tag := range s.tags {
		if i, has := slices.BinarySearch(keys, tag.key); has {
			out[i] = tag.value
		}
	}
	return out
}

// distinct is how many values a set had in the last whole window, or has so far
// in this one, if these are more.
func (s *statsdSeries) distinct(window time.Duration, now time.Time) float64 {
	if s.since.IsZero() {
		s.since = now
	}
	if now.Sub(s.since) >= window {
		s.shown, s.since = s.set.distinct(), now
		s.set.clear()
		return s.shown
	}
	return max(s.shown, s.set.distinct())
}

// desc describes a metric of which nothing is known but what its lines say.
func (f *statsdFamily) desc(limits statsdLimits) metrics.Desc {
	d := metrics.Desc{
		Name: f.prom, Datadog: f.name, Type: metrics.GaugeType, Tags: f.keys,
		Budget: limits.perMetric, Help: "Gauge " + f.name + ", as sent to DogStatsD.",
	}
	switch f.kind {
	case 'c':
		d.Type, d.Help = metrics.CounterType, "Counter "+f.name+", as sent to DogStatsD."
	case 'h':
		d.Type, d.Unit, d.Help = metrics.HistogramType, promUnit(f.prom), "Histogram "+f.name+", as sent to DogStatsD."
	case 'm':
		d.Type, d.Unit, d.SentUnit, d.Help = metrics.HistogramType, "seconds", "milliseconds", "Timer "+f.name+", as sent to DogStatsD in milliseconds."
	case 's':
		d.Help = "Distinct values of the set " + f.name + ", as sent to DogStatsD, in " + limits.setWindow.String() + "."
	}
	return d
}
