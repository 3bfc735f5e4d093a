package collectors

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/metrics"
)

// result forgets what the last text did not have, and returns what it had,
// sorted by name and tags. Tags, names and bounds are shared from read to read,
// and never changed.
func (t *promTable) result() []metrics.Family {
	t.sweep()
	if t.sorted == nil {
		t.sorted = slices.SortedFunc(maps.Values(t.families), func(a, b *promFamily) int { return strings.Compare(a.name, b.name) })
	}
	out := make([]metrics.Family, 0, len(t.sorted))
	for _, f := range t.sorted {
		if f.dirty {
			f.order(&t.shared)
		}
		f.describe(t.limit)
		out = append(out, metrics.Family{Desc: f.desc, Points: f.points(t.gen)})
	}
	if more := t.declared(); len(more) > 0 {
		out = append(out, more...)
		slices.SortFunc(out, func(a, b metrics.Family) int { return strings.Compare(a.Desc.Name, b.Desc.Name) })
	}
	return out
}

// declared are the metrics of which the text says the type, and has no series
// yet: a counter by reason, before the first one. It has counted nothing, which
// is not the same as not being there.
func (t *promTable) declared() (out []metrics.Family) {
	for _, g := range t.groups {
		if g.gen != t.gen || g.samples > 0 || g.cut {
			continue
		}
		name := g.name
		f := &promFamily{group: g}
		switch g.typ {
		case promCounter:
			f.typ = metrics.CounterType
			if t.open {
				name += "_total"
			}
		case promGauge:
			f.typ = metrics.GaugeType
		case promHistogram:
			f.typ = metrics.HistogramType
		default:
			continue
		}
		if len(t.relabel) > 0 {
			var kept bool
			if name, _, kept = t.relabel.apply(name, nil); !kept {
				continue
			}
		}
		if f.name = promSanitize(name, true); t.families[f.name] == nil {
			f.describe(t.limit)
			out = append(out, metrics.Family{Desc: f.desc})
		}
	}
	return out
}

// sweep takes out what was not seen. Most often there is nothing to do.
func (t *promTable) sweep() {
	if t.seen < len(t.entries) {
		for _, e := range t.entries {
			if e.gen != t.gen {
				t.remove(e)
			}
		}
	}
	for _, f := range t.families {
		gone := func(s *promSeries) bool {
			s.gone = s.gone || s.gen != t.gen
			return s.gone
		}
		before := len(f.series)
		f.series = slices.DeleteFunc(f.series, gone)
		f.dirty = f.dirty || len(f.series) < before
		maps.DeleteFunc(f.fresh, func(_ string, s *promSeries) bool { return gone(s) })
		if len(f.series)+len(f.fresh) == 0 {
			t.drop(f)
		}
	}
	if len(t.groups) > t.named {
		maps.DeleteFunc(t.groups, func(_ string, g *promGroup) bool { return g.gen != t.gen })
	}
	maps.DeleteFunc(t.names, func(_ string, n *promName) bool { return n.gen != t.gen })
}

// describe makes the description.
func (f *promFamily) describe(budget int) {
	f.desc = metrics.Desc{
		Name: f.name, Datadog: promDatadog(f, f.group), Type: f.typ, Tags: f.desc.Tags, Budget: budget,
		Help: cmp.Or(f.group.help, "Not described by the neighbour."),
		Unit: cmp.Or(f.group.unit, promUnit(f.name)),
	}
}

// promDatadog is the name that Datadog's OpenMetrics check (V2) gives: it takes
// _total off a counter and adds .count, and adds .sum, .count and .quantile to
// the parts of a summary. A histogram is one distribution there when it is told
// to make one, with the plain name.
func promDatadog(f *promFamily, g *promGroup) string {
	switch {
	case g.typ == promSummary && strings.HasSuffix(f.name, "_sum"):
		return strings.TrimSuffix(f.name, "_sum") + ".sum"
	case g.typ == promSummary && strings.HasSuffix(f.name, "_count"):
		return strings.TrimSuffix(f.name, "_count") + ".count"
	case g.typ == promSummary:
		return f.name + ".quantile"
	case f.typ == metrics.CounterType:
		return strings.TrimSuffix(f.name, "_total") + ".count"
	}
	return f.name
}

// promUnit is the unit that a name ends in; empty: it has none that is known.
func promUnit(name string) string {
	name = strings.TrimSuffix(name, "_total")
	switch unit := name[strings.LastIndexByte(name, '_')+1:]; unit {
	case "seconds", "bytes", "ratio", "celsius", "meters", "volts", "amperes", "joules", "grams":
		return unit
	}
	return ""
}

// points returns what this read found of a family.
func (f *promFamily) points(gen uint32) []metrics.Point {
	points := make([]metrics.Point, len(f.series))
	if f.typ != metrics.HistogramType {
		for i, s := range f.series {
			points[i] = metrics.Point{Tags: s.tags, Value: s.value}
		}
		return points
	}
	size := 0
	for _, s := range f.series {
		size += len(s.hist.buckets) + 1
	}
	counts, hists := make([]uint64, 0, size), make([]metrics.HistogramSnapshot, len(f.series))
	var bounds []float64
	var used [][]float64
	for i, s := range f.series {
		from := len(counts)
		bounds, counts = s.hist.read(gen, bounds[:0], counts, &hists[i])
		hists[i].Counts = counts[from:len(counts):len(counts)]
		hists[i].Bounds = f.share(bounds)
		if !slices.ContainsFunc(used, func(u []float64) bool { return promSame(u, hists[i].Bounds) }) {
			used = append(used, hists[i].Bounds)
		}
		points[i] = metrics.Point{Tags: s.tags, Hist: &hists[i]}
		if len(s.hist.buckets) > 2*len(bounds)+16 { // bounds come and go
			s.gone = true
		}
	}
	f.bounds = used[:min(len(used), 8)]
	return points
}

// share returns bounds as they are kept by the family.
func (f *promFamily) share(bounds []float64) []float64 {
	for _, b := range f.bounds {
		if slices.Equal(b, bounds) {
			return b
		}
	}
	own := append(make([]float64, 0, len(bounds)), bounds...)
	if len(f.bounds) < 8 {
		f.bounds = append(f.bounds, own)
	}
	return own
}

func promSame(a, b []float64) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// read appends the bounds, without +Inf, and the counts, which are those of each
// bucket alone. Where a bucket has fewer than the one below it, it has none.
// What has neither sum nor count, has the sum NaN, and the count of its buckets.
func (h *promHist) read(gen uint32, bounds []float64, counts []uint64, into *metrics.HistogramSnapshot) ([]float64, []uint64) {
	if !slices.IsSortedFunc(h.buckets, promCompareBounds) {
		// Indexes of buckets are known to the lines: a copy is sorted.
		sorted := promHist{buckets: slices.Clone(h.buckets), count: h.count, sum: h.sum, countGen: h.countGen, sumGen: h.sumGen}
		slices.SortFunc(sorted.buckets, promCompareBounds)
		return sorted.read(gen, bounds, counts, into)
	}
	below, all := 0.0, math.NaN()
	for _, b := range h.buckets {
		switch {
		case b.gen != gen:
		case math.IsInf(b.bound, 1):
			all = b.upTo
		default:
			own := uint64(0)
			if b.upTo > below {
				own = promCount(b.upTo) - promCount(below)
				below = b.upTo
			}
			bounds, counts = append(bounds, b.bound), append(counts, own)
			into.Count += own
		}
	}
	if math.IsNaN(all) && h.countGen == gen {
		all = h.count
	}
	above := uint64(0)
	if all > below {
		above = promCount(all) - promCount(below)
	}
	into.Count += above
	into.Sum = math.NaN()
	if h.sumGen == gen {
		into.Sum = h.sum
	}
	return bounds, append(counts, above)
}

func promCompareBounds(a, b promBucket) int { return cmp.Compare(a.bound, b.bound) }

// promCount rounds: the text format allows fractions of a count.
func promCount(v float64) uint64 {
	if v >= math.MaxUint64 {
		return math.MaxUint64
	}
	return uint64(math.Round(v))
}
