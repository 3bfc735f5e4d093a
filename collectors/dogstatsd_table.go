package collectors

import (
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// A lineDrop says why a line that was understood does not count.
type lineDrop uint8

const (
	lineCounted lineDrop = iota
	dropParse
	dropName
	dropTypeConflict
	dropNameTaken
	dropBudget
	dropLate
	dropNegative
	dropPipeline
	lineDrops
)

// lineDropReasons are the reasons as they are shown. Read-only.
var lineDropReasons = [lineDrops]string{
	dropParse:        "parse",         // not understood
	dropName:         "name",          // longer than 200 bytes, not printable ASCII, or without a letter
	dropTypeConflict: "type_conflict", // the metric has another type
	dropNameTaken:    "name_taken",    // another metric has this name in Prometheus, or it is the agent's
	dropBudget:       "budget",        // no series is left, even with all tags folded
	dropLate:         "late",          // a gauge's value that is older than the one it has
	dropNegative:     "negative",      // a counter would fall
	dropPipeline:     "pipeline",      // pipeline.* without the tag pipeline, or of the wrong type
}

// lineDropWants are what was expected instead. Read-only.
var lineDropWants = [lineDrops]string{
	dropName:         "want a name of at most 200 bytes of printable ASCII, with a letter",
	dropTypeConflict: "want the type with which the metric began",
	dropNameTaken:    "want a name that differs in more than characters that Prometheus does not have",
	dropBudget:       "want fewer series",
	dropLate:         "want a timestamp that is not before the last one",
	dropNegative:     "want counters that only grow",
	dropPipeline:     "want the tag pipeline, and type c, or g for pipeline.queued",
}

// statsdLimits bound what a sender can make the collector keep.
type statsdLimits struct {
	series, perMetric int
	tags, tagLength   int
	ttl, setWindow    time.Duration
	relativeGauges    bool
}

// A statsdTable sums up lines. A line like one before costs one look-up of the
// name and tags as they are written, and no memory.
type statsdTable struct {
	seed maphash.Seed

	mu       sync.Mutex
	limits   statsdLimits
	families map[string]*statsdFamily // by the name as sent
	claimed  map[string]*statsdFamily // names in Prometheus
	series   int

	// What was seen lately: name, type and tags as written. Two generations
	// bound it, when a sender never repeats itself.
	recent, older map[string]*statsdSeries
	key           []byte

	folded  map[[2]string]*int64 // lines, by metric and tag
	cut     int64                // tags
	expired int64                // series
	heard   statsdHeard
	news    statsdNews
}

// A statsdFamily has the series of one name.
type statsdFamily struct {
	name   string // as sent
	kind   byte   // the type, d like h
	prom   string
	claims []string // in Prometheus
	keys   []string // of all series' tags, sorted
	series map[string]*statsdSeries
	worst  string // the tag that has the most values; empty: to be counted

	sorted []*statsdSeries // nil: not since the last new one
}

type statsdSeries struct {
	family *statsdFamily
	tags   []statsdTag
	values []string // of the family's keys; nil: not since the last new one
	last   time.Time
	gone   bool
	folds  *int64 // counts the lines of a series that is folded

	value float64
	stamp int64 // of a gauge: seconds, when it was sent with one
	hist  statsdHistogram
	set   statsdSet
	shown float64 // of a set: distinct values of the last window
	since time.Time
}

func newStatsDTable(limits statsdLimits) *statsdTable {
	return &statsdTable{
		seed: maphash.MakeSeed(), limits: limits,
		families: map[string]*statsdFamily{}, claimed: map[string]*statsdFamily{},
		recent: map[string]*statsdSeries{}, folded: map[[2]string]*int64{},
	}
}

// add counts a line. It is called with mu held.
func (t *statsdTable) add(l *DogStatsDLine, now time.Time) lineDrop {
	switch l.Kind {
	case DogStatsDEvent:
		t.news.event(l)
		return lineCounted
	case DogStatsDCheck:
		t.news.check(l, t.limits, now)
		return lineCounted
	}
	t.key = append(append(append(append(t.key[:0], l.Type), l.Name...), '|'), l.Tags...)
	s := t.recent[string(t.key)]
	if s == nil || s.gone {
		if term, ok := pipelineTermOf(l.Name); ok {
			return t.heard.add(term, l, t.limits, now)
		}
		var drop lineDrop
		if s, drop = t.find(l); s == nil {
			return drop
		}
	}
	if s.folds != nil {
		*s.folds++
	}
	return s.take(t, l, now)
}

// take counts the values of a line.
func (s *statsdSeries) take(t *statsdTable, l *DogStatsDLine, now time.Time) lineDrop {
	switch l.Type {
	case 'c':
		if slices.Min(l.Values) < 0 {
			return dropNegative
		}
		for _, v := range l.Values {
			s.value += v / l.Rate
		}
	case 'g':
		if l.Stamp != 0 {
			if l.Stamp < s.stamp {
				return dropLate
			}
			s.stamp = l.Stamp
		}
		v := l.Values[len(l.Values)-1]
		if t.limits.relativeGauges && l.Sign != 0 {
			v += s.value
		}
		s.value = v
	case 's':
		s.set.add(maphash.Bytes(t.seed, l.Text))
	case 'm':
		for _, v := range l.Values {
			s.hist.observe(v/1000, l.Rate)
		}
	default:
		for _, v := range l.Values {
			s.hist.observe(v, l.Rate)
		}
	}
	s.last = now
	return lineCounted
}

// find returns the series of a line that was not seen lately, and remembers it.
func (t *statsdTable) find(l *DogStatsDLine) (*statsdSeries, lineDrop) {
	s := t.older[string(t.key)]
	if s == nil || s.gone {
		var drop lineDrop
		if s, drop = t.resolve(l); s == nil {
			return nil, drop
		}
	}
	if len(t.recent) >= 2*t.limits.series {
		t.older, t.recent = t.recent, make(map[string]*statsdSeries, len(t.recent))
	}
	t.recent[string(t.key)] = s
	return s, lineCounted
}

func (t *statsdTable) resolve(l *DogStatsDLine) (*statsdSeries, lineDrop) {
	kind := l.Type
	if kind == 'd' {
		kind = 'h'
	}
	f := t.families[string(l.Name)]
	if f == nil {
		if !validStatsDName(l.Name) {
			return nil, dropName
		}
		if t.series >= t.limits.series {
			return nil, dropBudget
		}
		f = &statsdFamily{name: string(l.Name), kind: kind, series: map[string]*statsdSeries{}}
		f.prom = statsdPromName(f.name, kind)
		f.claims = []string{f.prom}
		if kind == 'h' || kind == 'm' {
			f.claims = append(f.claims, f.prom+"_bucket", f.prom+"_count", f.prom+"_sum")
		}
		for _, name := range f.claims {
			if t.claimed[name] != nil || strings.HasPrefix(name, "outrider_") { // the agent's own
				return nil, dropNameTaken
			}
		}
	} else if f.kind != kind {
		return nil, dropTypeConflict
	}
	tags, cut := statsdTags(l.Tags, t.limits.tags, t.limits.tagLength)
	tags, more := f.known(tags)
	t.cut += cut + more
	s := t.place(f, tags)
	if s == nil {
		return nil, dropBudget
	}
	return s, lineCounted
}

// known leaves out tags that a family cannot take, because it has had too many
// other ones.
func (f *statsdFamily) known(tags []statsdTag) (out []statsdTag, cut int64) {
	room := maxStatsDKeys - len(f.keys)
	out = tags[:0]
	for _, tag := range tags {
		if _, has := slices.BinarySearch(f.keys, tag.key); !has {
			if room == 0 {
				cut++
				continue
			}
			room--
		}
		out = append(out, tag)
	}
	return out, cut
}

// place returns the series for the tags, which it makes if there is room. Four
// fifths of a metric's budget, and 95 % of that of all, are for what comes first;
// after that a new series has its most varied tag folded, and when that does not
// fit either, all of them.
func (t *statsdTable) place(f *statsdFamily, tags []statsdTag) *statsdSeries {
	if s := f.series[seriesKey(tags)]; s != nil {
		return s
	}
	own := func(budget, share int) int { return budget - max(1, budget/share) }
	if len(tags) == 0 {
		if t.series < t.limits.series && len(f.series) < t.limits.perMetric {
			return t.make(f, tags)
		}
		return nil
	}
	if t.series < own(t.limits.series, 20) && len(f.series) < own(t.limits.perMetric, 5) {
		return t.make(f, tags)
	}
	if f.worst == "" {
		f.worst = f.mostValues(tags)
	}
	one, all := slices.Clone(tags), slices.Clone(tags)
	folds := t.foldCounter(f.name, f.worst)
	for i := range tags {
		if tags[i].key == f.worst {
			one[i].value = metrics.Other
		}
		all[i].value = metrics.Other
	}
	for i, folded := range [][]statsdTag{one, all} {
		s := f.series[seriesKey(folded)]
		if s == nil && t.series < t.limits.series-1+i && len(f.series) < t.limits.perMetric-1+i {
			s = t.make(f, folded)
		}
		if s != nil {
			if s.folds == nil && !slices.Equal(folded, tags) {
				s.folds = folds
			}
			return s
		}
	}
	return nil
}

// maxFoldCounters bounds what is told apart of what was folded.
const maxFoldCounters = 200

func (t *statsdTable) foldCounter(metric, tag string) *int64 {
	key := [2]string{metric, tag}
	if t.folded[key] == nil {
		if len(t.folded) >= maxFoldCounters {
			key = [2]string{metrics.Other, metrics.Other}
		}
		if t.folded[key] == nil {
			t.folded[key] = new(int64)
		}
	}
	return t.folded[key]
}

// mostValues is the tag with the most values, those of a new series included.
func (f *statsdFamily) mostValues(tags []statsdTag) string {
	seen := map[statsdTag]bool{}
	for _, s := range f.series {
		for _, tag := range s.tags {
			seen[tag] = true
		}
	}
	counts := map[string]int{}
	for tag := range seen {
		counts[tag.key]++
	}
	worst := tags[0].key
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		if counts[key] > counts[worst] {
			worst = key
		}
	}
	return worst
}

func (t *statsdTable) make(f *statsdFamily, tags []statsdTag) *statsdSeries {
	if len(f.series) == 0 {
		t.families[f.name] = f
		for _, name := range f.claims {
			t.claimed[name] = f
		}
	}
	s := &statsdSeries{family: f, tags: slices.Clone(tags)}
	f.series[seriesKey(tags)] = s
	f.sorted = nil
	t.series++
	for _, tag := range tags {
		if i, has := slices.BinarySearch(f.keys, tag.key); !has {
			f.keys = slices.Insert(slices.Clone(f.keys), i, tag.key) // the old ones were given away
			for _, other := range f.series {
				other.values = nil
			}
		}
	}
	return s
}

func seriesKey(tags []statsdTag) string {
	var b strings.Builder
	for _, tag := range tags {
		b.WriteString(tag.key)
		b.WriteByte(0xff) // which no UTF-8 has
		b.WriteString(tag.value)
		b.WriteByte(0xff)
	}
	return b.String()
}
