package rule

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Samples are one series.
type Samples interface {
	Tags() map[string]string
	Counter() bool // it only grows, until it begins anew

	// Range yields the samples from one moment to another, both included, by growing
	// time. A NaN says that the series was not there.
	Range(from, to time.Time) iter.Seq2[time.Time, float64]
}

// An Input is what a rule reads.
type Input struct {
	Series []Samples // of the selector Series
	All    []Samples // of the selector All
}

// A Figure is what a rule judges.
type Figure struct {
	Tags   map[string]string // that were kept
	Value  float64           // finite, or NaN: not known
	Why    string            // it is not known
	Series int               // how many it was made of
}

// Known reports whether there is a value.
func (f Figure) Known() bool { return !math.IsNaN(f.Value) }

// Figures computes what a rule judges at a moment, sorted by tags. Later samples
// are not looked at. A figure that too few samples tell of is not known: it takes
// one for a level and a staleness, and for a rate and a quantile two that are
// half a window apart or more. Of a counter of two seconds' age nobody knows the
// rate by the minute.
func Figures(r Rule, in Input, now time.Time) []Figure {
	r = r.WithDefaults()
	groups := map[string]*group{}
	groupOf := func(s Samples) *group {
		tags := r.kept(s.Tags())
		key := keyOf(tags)
		if groups[key] == nil {
			groups[key] = &group{tags: tags}
		}
		return groups[key]
	}
	switch r.Func {
	case Absence:
		return []Figure{absence(r, in.Series, now)}
	case Share:
		for _, s := range in.Series {
			groupOf(s).part.add(r, s, now)
		}
		for _, s := range in.All {
			groupOf(s).all.add(r, s, now)
		}
	default:
		for _, s := range in.Series {
			groupOf(s).add(r, s, now)
		}
	}
	out := make([]Figure, 0, len(groups))
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		out = append(out, groups[key].figure(r))
	}
	return out
}

// kept are those of a series' tags that its figure has.
func (r Rule) kept(tags map[string]string) map[string]string {
	if r.Aggregate == Worst {
		return tags
	}
	kept := make(map[string]string, len(r.By))
	for _, name := range r.By {
		if v, ok := tags[name]; ok {
			kept[name] = v
		}
	}
	return kept
}

// keyOf is the same for the same tags.
func keyOf(tags map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		b.WriteString(name)
		b.WriteByte(0)
		b.WriteString(tags[name])
		b.WriteByte(0)
	}
	return b.String()
}

// A group is the series that make one figure.
type group struct {
	tags         map[string]string
	now, earlier tally
	why          string
	series       int
	part, all    growth // of a share
}

// A tally aggregates.
type tally struct {
	n             int
	sum, min, max float64
	worst         float64
}

func (t *tally) add(r Rule, v float64) {
	if math.IsNaN(v) {
		return
	}
	if t.n == 0 {
		t.min, t.max, t.worst = v, v, v
	}
	t.n++
	t.sum += v
	t.min, t.max = min(t.min, v), max(t.max, v)
	if cmp.Or(cmp.Compare(excess(r.Crit, v), excess(r.Crit, t.worst)), cmp.Compare(excess(r.Warn, v), excess(r.Warn, t.worst))) > 0 {
		t.worst = v
	}
}

func (t *tally) value(a Aggregate) float64 {
	switch {
	case t.n == 0:
		return math.NaN()
	case a == Sum:
		return t.sum
	case a == Min:
		return t.min
	case a == Max:
		return t.max
	case a == Avg:
		return t.sum / float64(t.n)
	}
	return t.worst // of the same tags from several sources
}

func (g *group) add(r Rule, s Samples, now time.Time) {
	g.series++
	v, why := of(r, s, now)
	g.now.add(r, v)
	if r.Func == Change {
		before, whyNot := of(r, s, now.Add(-r.Shift))
		g.earlier.add(r, before)
		if whyNot != "" {
			why = fmt.Sprintf("%s earlier: %s", short(r.Shift), whyNot)
		}
	}
	g.why = cmp.Or(g.why, why)
}

func (g *group) figure(r Rule) Figure {
	if r.Func == Share {
		return g.share(r)
	}
	f := Figure{Tags: g.tags, Value: g.now.value(r.Aggregate), Series: g.series}
	if r.Func == Change {
		f.Value = change(f.Value, g.earlier.value(r.Aggregate), r.Ratio)
	}
	f.Value = finite(f.Value)
	if !f.Known() {
		f.Why = cmp.Or(g.why, "no number")
	}
	return f
}

// change follows Prometheus: what was nothing and is something has grown without
// bounds. That nothing became of nothing is no change, though there it is no number.
func change(now, earlier float64, ratio bool) float64 {
	d := now - earlier
	if !ratio || d == 0 {
		return d
	}
	return d / math.Abs(earlier)
}

// finite keeps figures within what JSON can hold.
func finite(v float64) float64 {
	if math.IsInf(v, 0) {
		return math.Copysign(math.MaxFloat64, v)
	}
	return v
}

// of computes the figure of one series; NaN and why, if it cannot.
func of(r Rule, s Samples, now time.Time) (v float64, why string) {
	from := now.Add(-r.Window)
	switch r.Func {
	case Rate:
		return rate(s, from, now, r.Window)
	case Quantile:
		return quantile(s, from, now, r.Window, r.Quantile)
	case Staleness:
		return staleness(s, from, now, r.Window)
	case Change:
		if s.Counter() {
			return rate(s, from, now, r.Window)
		}
	}
	return level(s, from, now, r.Window)
}

func level(s Samples, from, now time.Time, window time.Duration) (v float64, why string) {
	v, why = math.NaN(), "no sample in "+short(window)
	for _, v = range s.Range(from, now) {
		why = ""
	}
	if math.IsNaN(v) && why == "" {
		why = "it is not there any more"
	}
	return v, why
}

func rate(s Samples, from, now time.Time, window time.Duration) (float64, string) {
	grew, n, span := grown(s, from, now)
	if why := tooFew(n, span, window); why != "" {
		return math.NaN(), why
	}
	return grew / span.Seconds(), ""
}

// grown is how much a counter grew from its first of n samples to its last one.
func grown(s Samples, from, to time.Time) (grew float64, n int, span time.Duration) {
	var began, ended time.Time
	last := 0.0
	for at, v := range s.Range(from, to) {
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
			continue
		case n == 0:
			began = at
		case v < last: // it began anew
			grew += v
		default:
			grew += v - last
		}
		ended, last = at, v
		n++
	}
	return grew, n, ended.Sub(began)
}

// A growth is how much the series of one side of a share grew.
type growth struct {
	series      int
	long, short float64
	known       bool // one of them has two samples
}

func (g *growth) add(r Rule, s Samples, now time.Time) {
	g.series++
	long, n, _ := grown(s, now.Add(-r.Window), now)
	short, _, _ := grown(s, now.Add(-r.Short), now)
	g.long, g.short, g.known = g.long+long, g.short+short, g.known || n > 1
}

func (g *group) share(r Rule) Figure {
	f := Figure{Tags: g.tags, Value: math.NaN(), Series: g.part.series + g.all.series}
	switch {
	case !g.all.known:
		f.Why = "there are fewer than two samples of " + r.All.Name
	case g.all.long < r.Least:
		f.Why = fmt.Sprintf("%s grew by %.4g in %s, want %.4g or more", r.All.Name, g.all.long, short(r.Window), r.Least)
	case g.all.long == 0:
		f.Why = fmt.Sprintf("%s did not grow in %s", r.All.Name, short(r.Window))
	case r.Short == 0:
		f.Value = g.part.long / g.all.long
	case g.all.short == 0:
		f.Why = fmt.Sprintf("%s did not grow in %s", r.All.Name, short(r.Short))
	default:
		f.Value = min(g.part.long/g.all.long, g.part.short/g.all.short)
	}
	return f
}

func quantile(s Samples, from, now time.Time, window time.Duration, q float64) (float64, string) {
	var values []float64
	var began, ended time.Time
	for at, v := range s.Range(from, now) {
		if math.IsNaN(v) {
			continue
		}
		if len(values) == 0 {
			began = at
		}
		ended = at
		values = append(values, v)
	}
	if why := tooFew(len(values), ended.Sub(began), window); why != "" {
		return math.NaN(), why
	}
	slices.Sort(values)
	rank := q * float64(len(values)-1)
	low := int(rank)
	high := min(low+1, len(values)-1)
	weight := rank - float64(low)
	if weight == 0 || values[low] == values[high] {
		return values[low], "" // infinities have no middle
	}
	return values[low]*(1-weight) + values[high]*weight, ""
}

// tooFew says why samples do not tell enough of a window; empty: they do.
func tooFew(n int, span, window time.Duration) string {
	if n >= 2 && span > 0 && span >= window/2 {
		return ""
	}
	noun := "samples"
	if n == 1 {
		noun = "sample"
	}
	return fmt.Sprintf("%d %s over %s, want 2 or more over at least %s", n, noun, short(span), short(window/2))
}

func staleness(s Samples, from, now time.Time, window time.Duration) (float64, string) {
	var last time.Time
	for at, v := range s.Range(from, now) {
		if !math.IsNaN(v) {
			last = at
		}
	}
	if last.IsZero() {
		return math.NaN(), "no sample in " + short(window)
	}
	return now.Sub(last).Seconds(), ""
}

func absence(r Rule, series []Samples, now time.Time) Figure {
	f := Figure{Value: 1, Series: len(series)}
	for _, s := range series {
		for _, v := range s.Range(now.Add(-r.Window), now) {
			if !math.IsNaN(v) {
				f.Value = 0
				return f
			}
		}
	}
	return f
}

// short writes a duration without the zeros that say nothing: 5m for 5m0s.
func short(d time.Duration) string {
	s := d.String()
	if d >= time.Second {
		s = d.Round(time.Millisecond).String()
	}
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
