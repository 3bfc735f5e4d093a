package collectors

import (
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/metrics"
)

// described is one line of a table of descriptors.
type described struct {
	name   string // without the prefix; its unit is the last word, if it is seconds or bytes
	typ    metrics.Type
	unit   string
	help   string
	budget int
	tags   []string
}

// catalogue has the descriptors of a kind, by their name without the prefix.
type catalogue map[string]*metrics.Desc

// describe makes the catalogue of one part: outrider_<part>_<name>, and in
// Datadog outrider.<part>.<name> without _total and _seconds. Every metric has
// the common tags before its own.
func describe(part string, common []string, rows []described) catalogue {
	c := make(catalogue, len(rows))
	for _, r := range rows {
		c[r.name] = &metrics.Desc{
			Name:    "outrider_" + part + "_" + r.name,
			Datadog: "outrider." + part + "." + strings.TrimSuffix(strings.TrimSuffix(r.name, "_total"), "_seconds"),
			Type:    r.typ, Unit: r.unit, Help: r.help, Budget: r.budget,
			Tags: slices.Concat(common, r.tags),
		}
	}
	return c
}

// list returns the descriptors, sorted by name.
func (c catalogue) list() []metrics.Desc {
	out := make([]metrics.Desc, 0, len(c))
	for _, d := range c {
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b metrics.Desc) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// maxTags is how many tags a metric of these kinds has.
const maxTags = 3

// A series' tags, as the key of a map.
type tagKey [maxTags]string

// findings gathers what one read of a source finds.
//
// The slices of tags are the same from read to read, so that who keeps series
// need not compare them again: they are never written to.
type findings struct {
	descs  catalogue
	common []string // values of the tags that all have
	at     map[string]int
	fams   []metrics.Family
	sizes  map[string]int // points of a family in the read before
	tags   map[tagKey][]string
	points int
}

func newFindings(descs catalogue, common ...string) *findings {
	return &findings{
		descs: descs, common: common, at: map[string]int{},
		sizes: map[string]int{}, tags: map[tagKey][]string{},
	}
}

// add adds the value of one series. The name is one of the catalogue's; tags are
// the values of its tags beyond the common ones.
func (f *findings) add(name string, value float64, tags ...string) {
	i, ok := f.at[name]
	if !ok {
		desc, known := f.descs[name]
		if !known || len(desc.Tags) != len(f.common)+len(tags) {
			panic("BUG: no metric " + name + " with these tags")
		}
		i = len(f.fams)
		f.at[name] = i
		f.fams = append(f.fams, metrics.Family{Desc: *desc, Points: make([]metrics.Point, 0, max(1, f.sizes[name]))})
	}
	f.fams[i].Points = append(f.fams[i].Points, metrics.Point{Tags: f.intern(tags), Value: value})
	f.points++
}

// addHistogram adds one series that is a histogram.
func (f *findings) addHistogram(name string, h metrics.HistogramSnapshot, tags ...string) {
	f.add(name, 0, tags...)
	points := f.fams[f.at[name]].Points
	points[len(points)-1].Hist = &h
}

func (f *findings) intern(tags []string) []string {
	if len(tags)+len(f.common) == 0 {
		return nil
	}
	var key tagKey
	n := copy(key[:], f.common)
	copy(key[n:], tags)
	kept, ok := f.tags[key]
	if !ok {
		kept = make([]string, 0, len(f.common)+len(tags))
		for _, v := range slices.Concat(f.common, tags) {
			kept = append(kept, strings.Clone(strings.ToValidUTF8(v, "\uFFFD")))
		}
		copy(key[:], kept)
		f.tags[key] = kept
	}
	return kept
}

// take returns what was added since the last time, sorted by name and tags.
// Where a series was added twice, the first one counts.
func (f *findings) take() []metrics.Family {
	out := f.fams
	if len(f.tags) > 2*f.points+64 { // what has gone for good
		clear(f.tags)
	}
	f.fams, f.points = make([]metrics.Family, 0, len(out)), 0
	clear(f.sizes)
	for name, i := range f.at {
		f.sizes[name] = len(out[i].Points)
	}
	clear(f.at)
	for i := range out {
		if points := out[i].Points; len(points) > 1 {
			slices.SortStableFunc(points, func(a, b metrics.Point) int { return slices.Compare(a.Tags, b.Tags) })
			out[i].Points = slices.CompactFunc(points, func(a, b metrics.Point) bool { return slices.Equal(a.Tags, b.Tags) })
		}
	}
	slices.SortFunc(out, func(a, b metrics.Family) int { return strings.Compare(a.Desc.Name, b.Desc.Name) })
	return out
}
