package collectors

import (
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/metrics"
)

// The tags of a family's series. A series has its labels as one row of values, in
// the order of the names that any series of the family has; those that it does not
// have are empty. Rows go to whoever reads the result, and never change.

// find returns the series with these labels, which are sorted; nil: there is none.
func (f *promFamily) find(labels []promLabel) *promSeries {
	i, ok := slices.BinarySearchFunc(f.series, labels, func(s *promSeries, labels []promLabel) int {
		return promCompareRow(f.desc.Tags, s.tags, labels)
	})
	if ok && !f.series[i].gone {
		return f.series[i]
	}
	if len(f.fresh) == 0 {
		return nil
	}
	if s := f.fresh[promKey(labels)]; s != nil && !s.gone {
		return s
	}
	return nil
}

// promCompareRow compares a row of tags with labels. What has a label that the row
// has no place for comes after it.
func promCompareRow(names, row []string, labels []promLabel) int {
	for i, name := range names {
		value := ""
		if len(labels) > 0 && labels[0].name == name {
			value, labels = labels[0].value, labels[1:]
		}
		if c := strings.Compare(row[i], value); c != 0 {
			return c
		}
	}
	return -len(labels)
}

// add adds the series with these labels, which there was not; nil: the family would
// have too many names of labels.
func (f *promFamily) add(shared *promShared, labels []promLabel) *promSeries {
	if !f.columns(shared, labels) {
		return nil
	}
	s := &promSeries{family: f, tags: shared.row(promRow(f.desc.Tags, labels))}
	if f.typ == metrics.HistogramType {
		s.hist = &promHist{}
	}
	if f.fresh == nil {
		f.fresh = map[string]*promSeries{}
	}
	f.fresh[promKey(labels)] = s
	f.dirty = true
	return s
}

// columns gives the rows of a family a place for each of these labels. False: it
// would have too many.
func (f *promFamily) columns(shared *promShared, labels []promLabel) bool {
	names := f.desc.Tags
	for _, l := range labels {
		i, ok := slices.BinarySearch(names, l.name)
		switch {
		case ok:
			continue
		case len(names) == promMaxLabels:
			return false
		case len(names) == len(f.desc.Tags):
			names = slices.Clone(names)
		}
		names = slices.Insert(names, i, strings.Clone(l.name))
	}
	if len(names) > len(f.desc.Tags) {
		f.arrange(shared, names)
	}
	return true
}

// arrange gives all series rows of other names. The order of the series stays: a
// name is only left out, or new, where no series has it.
func (f *promFamily) arrange(shared *promShared, names []string) {
	from := make([]int, len(names))
	for i, name := range names {
		from[i] = slices.Index(f.desc.Tags, name)
	}
	row := make([]string, len(names))
	move := func(s *promSeries) {
		for i, was := range from {
			row[i] = ""
			if was >= 0 {
				row[i] = s.tags[was]
			}
		}
		s.tags = shared.row(row)
	}
	for _, s := range f.series {
		move(s)
	}
	for _, s := range f.fresh {
		move(s)
	}
	f.desc.Tags = names
}

// order takes the new series in, and leaves out the names that no series has any
// more.
func (f *promFamily) order(shared *promShared) {
	if spare := cap(f.series) - len(f.series) - len(f.fresh); spare < 0 || spare > len(f.series)/4+16 {
		f.series = append(make([]*promSeries, 0, len(f.series)+len(f.fresh)), f.series...)
	}
	f.series = slices.AppendSeq(f.series, maps.Values(f.fresh))
	f.fresh, f.dirty = nil, false
	used := make([]bool, len(f.desc.Tags))
	for _, s := range f.series {
		for i, v := range s.tags {
			used[i] = used[i] || v != ""
		}
	}
	if slices.Contains(used, false) {
		var names []string
		for i, name := range f.desc.Tags {
			if used[i] {
				names = append(names, name)
			}
		}
		f.arrange(shared, names)
	}
	slices.SortFunc(f.series, func(a, b *promSeries) int { return slices.Compare(a.tags, b.tags) })
}

// promRow returns the row of labels that are all among the names; both are sorted.
func promRow(names []string, labels []promLabel) []string {
	row := make([]string, len(names))
	i := 0
	for _, l := range labels {
		for names[i] != l.name {
			i++
		}
		row[i] = l.value
	}
	return row
}

func promKey(labels []promLabel) string {
	var b strings.Builder
	for _, l := range labels {
		b.WriteString(l.name)
		b.WriteByte(0xff) // in no UTF-8
		b.WriteString(l.value)
		b.WriteByte(0xff)
	}
	return b.String()
}

// A promShared makes equal texts, and equal rows of them, one: the metrics of a
// neighbour have the same tags again and again. Each place has what was put there
// last, so nothing must be taken out, and nothing grows beyond the limits.
type promShared struct {
	seed  maphash.Seed
	texts []string
	rows  [][]string
	made  int // rows
}

// The limits of what is shared.
const (
	promSharedLeast = 64
	promSharedMost  = 4096 // places
	promSharedText  = 128  // bytes
	promSharedRow   = 32   // texts
)

// row returns a row with these values, which may be one that there is.
func (p *promShared) row(values []string) []string {
	if len(values) == 0 {
		return []string{}
	}
	if p.made >= len(p.rows) && p.made < promSharedMost {
		if p.made == 0 {
			p.seed = maphash.MakeSeed()
		}
		places := max(promSharedLeast, 4*len(p.rows))
		p.texts, p.rows = make([]string, places), make([][]string, places)
	}
	var hash maphash.Hash
	hash.SetSeed(p.seed)
	for _, v := range values {
		hash.WriteString(v)
		hash.WriteByte(0xff)
	}
	place := &p.rows[hash.Sum64()%uint64(len(p.rows))]
	if slices.Equal(*place, values) {
		return *place
	}
	p.made++
	row := make([]string, len(values))
	for i, v := range values {
		row[i] = p.text(v)
	}
	if len(row) <= promSharedRow {
		*place = row
	}
	return row
}

func (p *promShared) text(s string) string {
	if len(s) > promSharedText {
		return strings.Clone(s)
	}
	place := &p.texts[maphash.String(p.seed, s)%uint64(len(p.texts))]
	if *place != s {
		*place = strings.Clone(s)
	}
	return *place
}
