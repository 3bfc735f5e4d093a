package metrics

import (
	"cmp"
	"slices"
	"strings"
)

// Merge puts what several owners show together, sorted by name and by tags. What
// two of them show by one name and with the same tags is added up; of gauges, which
// have no sum, the first one counts. Families of one name may differ in their tags;
// where they are described otherwise in another way, the first one counts, and the
// others are left out. The sets are not changed.
func Merge(sets ...[]Family) []Family {
	all := slices.Concat(sets...)
	slices.SortStableFunc(all, func(a, b Family) int { return strings.Compare(a.Desc.Name, b.Desc.Name) })
	out := all[:0]
	for _, f := range all {
		last := len(out) - 1
		switch {
		case last < 0 || out[last].Desc.Name != f.Desc.Name:
			out = append(out, f)
		case out[last].Desc.alike(f.Desc):
			a, b := aligned(out[last], f)
			a.Points = addedUp(f.Desc.Type, slices.Concat(a.Points, b.Points))
			out[last] = a
		}
	}
	return out
}

// alike is whether they differ in tags at most.
func (d Desc) alike(o Desc) bool {
	d.Tags, o.Tags = nil, nil
	return d.equal(o)
}

// aligned gives two families the tags of both.
func aligned(a, b Family) (Family, Family) {
	if slices.Equal(a.Desc.Tags, b.Desc.Tags) {
		return a, b
	}
	tags := slices.Clone(a.Desc.Tags)
	for _, t := range b.Desc.Tags {
		if !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	return a.withTags(tags), b.withTags(tags)
}

func (f Family) withTags(tags []string) Family {
	points := make([]Point, len(f.Points))
	for i, p := range f.Points {
		values := make([]string, len(tags))
		for j, v := range p.Tags {
			if at := slices.Index(tags, f.Desc.Tags[j]); at >= 0 {
				values[at] = v
			}
		}
		p.Tags = values
		points[i] = p
	}
	f.Desc.Tags, f.Points = tags, points
	return f
}

// addedUp sorts points, which it may change, and makes one of those whose tags are
// the same.
func addedUp(t Type, points []Point) []Point {
	slices.SortStableFunc(points, func(a, b Point) int { return slices.Compare(a.Tags, b.Tags) })
	out := points[:0]
	for _, p := range points {
		last := len(out) - 1
		switch {
		case last < 0 || !slices.Equal(out[last].Tags, p.Tags):
			out = append(out, p)
		case t == CounterType:
			out[last].Value += p.Value
			out[last].Exemplar = cmp.Or(p.Exemplar, out[last].Exemplar)
		case t == HistogramType && out[last].Hist != nil && p.Hist != nil:
			if sum, ok := out[last].Hist.Add(*p.Hist); ok {
				out[last].Hist = &sum
			}
		}
	}
	return out
}

// Add returns the histogram of the values of both. It is false when their bounds
// differ: one is exponential and the other not, say.
func (s HistogramSnapshot) Add(o HistogramSnapshot) (HistogramSnapshot, bool) {
	if !slices.Equal(s.Bounds, o.Bounds) || len(s.Counts) != len(o.Counts) {
		return s, false
	}
	s.Buckets, s.Negative = addBuckets(s.Buckets, o.Buckets), addBuckets(s.Negative, o.Negative)
	s.Counts = slices.Clone(s.Counts)
	for i, n := range o.Counts {
		s.Counts[i] += n
	}
	s.Zero, s.Count, s.Sum = s.Zero+o.Zero, s.Count+o.Count, s.Sum+o.Sum
	s.Exemplars = slices.Concat(s.Exemplars, o.Exemplars)
	return s, true
}

func addBuckets(a, b []Bucket) []Bucket {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(a, b Bucket) int { return cmp.Compare(a.Index, b.Index) })
	out := all[:0]
	for _, x := range all {
		if last := len(out) - 1; last >= 0 && out[last].Index == x.Index {
			out[last].Count += x.Count
		} else {
			out = append(out, x)
		}
	}
	return out
}
