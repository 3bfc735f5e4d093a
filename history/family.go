package history

import (
	"encoding/binary"
	"slices"
	"sort"
	"strings"

	"github.com/outrider-agent/outrider/metrics"
)

// A family has the series of one name of one source.
type family struct {
	name, unit string
	typ        metrics.Type
	size       int64 // what it takes in the index, without series
	tagsSize   int64 // of that what tags, given and from take

	tags  []string // their names, the columns of the series' keys
	given []string // the names of the last read, in its order
	from  []int    // for each column its place in given; -1: none

	series []*series // by growing key
	slots  int64     // bytes of series

	parts *[len(parts)]string // of histograms: the names of the families of their parts
}

// familySize is about what a family takes, without names and series.
const familySize = 256

// family returns the family of a description, or nil if there is no room for it.
func (h *History) family(src *source, d *metrics.Desc) *family {
	f := src.families[d.Name]
	if f == nil {
		if f = h.newFamily(src, d.Name, d); f == nil {
			return nil
		}
	}
	f.typ = d.Type
	if !slices.Equal(f.given, d.Tags) && !h.arrange(src, f, d.Tags) {
		return nil
	}
	return f
}

func (h *History) newFamily(src *source, name string, d *metrics.Desc) *family {
	size := int64(familySize + len(name) + len(d.Unit))
	if !h.afford(src, size) {
		return nil
	}
	f := &family{name: strings.Clone(name), unit: strings.Clone(d.Unit), typ: d.Type, size: size}
	src.families[f.name] = f
	return f
}

// arrange makes a family fit for points with these tags. If one is new, the keys
// of the series that there are get a column more; those that no series has any
// more go then.
func (h *History) arrange(src *source, f *family, given []string) bool {
	tags := f.tags
	if slices.ContainsFunc(given, func(tag string) bool { return !slices.Contains(tags, tag) }) {
		if tags = h.columns(src, f, given); tags == nil {
			return false
		}
	}
	f.tags, f.from = tags, make([]int, len(tags))
	f.given = make([]string, len(given))
	for i, tag := range given {
		f.given[i] = tags[slices.Index(tags, tag)] // its own copy
	}
	for i, tag := range tags {
		f.from[i] = slices.Index(given, tag)
	}
	return true
}

// columns gives the keys of a family's series new columns, and returns their names:
// first those of given, then others that some series has. It returns nil if there
// is no room.
func (h *History) columns(src *source, f *family, given []string) []string {
	used := make([]bool, len(f.tags))
	for _, s := range f.series {
		for i, v := range values(s.key, len(f.tags)) {
			used[i] = used[i] || v != ""
		}
	}
	// In the order of given, so that sorted points meet series in their order.
	var tags []string
	for _, tag := range given {
		if !slices.Contains(tags, tag) {
			tags = append(tags, strings.Clone(tag))
		}
	}
	for i, tag := range f.tags {
		if used[i] && !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	keys := make([]string, len(f.series))
	var tagsSize, keysSize, oldSize int64
	for i, s := range f.series {
		old, row := values(s.key, len(f.tags)), make([]string, len(tags))
		for c, tag := range tags {
			if was := slices.Index(f.tags, tag); was >= 0 {
				row[c] = old[was]
			}
		}
		keys[i] = key(row)
		keysSize += allocated(len(keys[i]))
		oldSize += allocated(len(s.key))
	}
	for _, tag := range tags {
		tagsSize += 40 + allocated(len(tag))
	}
	if !h.afford(src, keysSize+tagsSize) {
		return nil
	}
	h.release(src, oldSize+f.tagsSize, true)
	f.size += tagsSize - f.tagsSize
	f.tagsSize = tagsSize
	for i, s := range f.series {
		s.key = keys[i]
	}
	slices.SortFunc(f.series, func(a, b *series) int {
		return slices.Compare(values(a.key, len(tags)), values(b.key, len(tags)))
	})
	return tags
}

// find returns the place of the series with these tags: at best the one where it
// is looked for first. ok is false if there is none; it would belong there.
func (f *family) find(tags []string, first int) (place int, ok bool) {
	if first < len(f.series) && f.is(f.series[first].key, tags) {
		return first, true
	}
	place = sort.Search(len(f.series), func(i int) bool { return f.compare(f.series[i].key, tags) >= 0 })
	return place, place < len(f.series) && f.is(f.series[place].key, tags)
}

// is says that a key is that of the tags of a point.
func (f *family) is(key string, tags []string) bool {
	for _, from := range f.from {
		n, w := uvarint(key)
		v := ""
		if from >= 0 {
			v = tags[from]
		}
		if v != key[w:w+int(n)] {
			return false
		}
		key = key[w+int(n):]
	}
	return true
}

func (f *family) compare(key string, tags []string) int {
	for _, from := range f.from {
		n, w := uvarint(key)
		v := ""
		if from >= 0 {
			v = tags[from]
		}
		if c := strings.Compare(key[w:w+int(n)], v); c != 0 {
			return c
		}
		key = key[w+int(n):]
	}
	return 0
}

// row returns the values of a point's tags, one a column.
func (f *family) row(tags []string) []string {
	row := make([]string, len(f.from))
	for i, from := range f.from {
		if from >= 0 {
			row[i] = tags[from]
		}
	}
	return row
}

// key returns the key of a series: the value of each column after its length.
func key(row []string) string {
	var b []byte
	for _, v := range row {
		b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
	}
	return string(b)
}

// values returns the values of a key's columns.
func values(key string, columns int) []string {
	row := make([]string, columns)
	for i := range row {
		n, w := uvarint(key)
		row[i] = key[w : w+int(n)]
		key = key[w+int(n):]
	}
	return row
}
