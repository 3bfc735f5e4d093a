package history

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// A Series names a series that was found. It is for use at once: the samples of a
// series that has vanished, and came back, have to be found anew.
type Series struct {
	Source, Name string
	Tags         map[string]string // without empty ones
	Type         metrics.Type
	Unit         string

	in  *History
	of  *series
	src *source
	key string
}

// Names returns the names of all series, sorted.
func (h *History) Names() []string {
	names := map[string]bool{}
	h.mu.Lock()
	for _, src := range h.sources {
		for name, f := range src.families {
			if len(f.series) > 0 {
				names[name] = true
			}
		}
	}
	h.mu.Unlock()
	return slices.Sorted(maps.Keys(names))
}

// Select returns the series of a name that match, sorted by source and by the values
// of their tags. A nil match is all of them.
func (h *History) Select(name string, match func(Series) bool) []Series {
	var found []Series
	var columns [][]string
	h.mu.Lock()
	for _, src := range h.sources {
		f := src.families[name]
		if f == nil {
			continue
		}
		for _, s := range f.series {
			found = append(found, Series{Source: src.name, Name: f.name, Type: f.typ, Unit: f.unit, in: h, of: s, src: src, key: s.key})
			columns = append(columns, f.tags)
		}
	}
	h.mu.Unlock()
	for i := range found {
		found[i].Tags = make(map[string]string, len(columns[i]))
		for c, v := range values(found[i].key, len(columns[i])) {
			if v != "" {
				found[i].Tags[columns[i][c]] = v
			}
		}
	}
	if match != nil {
		found = slices.DeleteFunc(found, func(s Series) bool { return !match(s) })
	}
	slices.SortStableFunc(found, func(a, b Series) int { return cmp.Compare(a.Source, b.Source) })
	return found
}

// Find returns the series of a name with exactly these tags, of the first source
// that has it.
func (h *History) Find(name string, tags map[string]string) (s Series, ok bool) {
	found := h.Select(name, func(s Series) bool { return maps.Equal(s.Tags, tags) })
	if len(found) == 0 {
		return Series{}, false
	}
	return found[0], true
}

// Range yields the samples from one moment to another, both included, by growing
// time. They are those that there were when the loop began.
func (s Series) Range(from, to time.Time) iter.Seq2[time.Time, float64] {
	return func(yield func(time.Time, float64) bool) {
		if s.in == nil {
			return
		}
		first, last := from.UnixMilli(), to.UnixMilli()
		if time.UnixMilli(first).Before(from) {
			first++
		}
		chunks, when := s.in.copyOf(s.src, s.of)
		for _, chunk := range chunks {
			if ms, ok := when.at(chunkLast(chunk)); ok && ms < first || when.gone(chunkLast(chunk)) {
				continue
			}
			d := decode(chunk)
			for {
				read, v, ok := d.next()
				if !ok {
					break
				}
				ms, ok := when.at(read)
				if ok && ms > last {
					return
				}
				if ok && ms >= first && !yield(time.UnixMilli(ms), v) {
					return
				}
			}
		}
	}
}

// copyOf returns the chunks of a series and the reads they refer to, which the
// caller may read in peace.
func (h *History) copyOf(src *source, s *series) ([]string, reads) {
	h.mu.Lock()
	defer h.mu.Unlock()
	chunks := slices.Clone(s.chunks)
	if s.count > 0 {
		chunks = append(chunks, s.chunk())
	}
	when := src.reads
	when.after = slices.Clone(when.after)
	return chunks, when
}

// last returns the last d of a series.
func (s Series) last(d time.Duration) iter.Seq2[time.Time, float64] {
	if s.in == nil {
		return s.Range(time.Time{}, time.Time{})
	}
	now := s.in.opts.Now()
	return s.Range(now.Add(-d), now)
}

// Stats sums up the last window of a series. ok is false if it has no number.
func (s Series) Stats(window time.Duration) (st Stats, ok bool) { return Summarize(s.last(window)) }

// RateStats sums up how fast a counter grew in the last window, in units a second.
func (s Series) RateStats(window time.Duration) (st Stats, ok bool) {
	return Summarize(Rates(s.last(window)))
}

// Rate returns how fast a counter grew in the last window, in units a second: what
// came from its first sample to its last one, by the time between these. ok is false
// if there are not two.
func (s Series) Rate(window time.Duration) (perSecond float64, ok bool) {
	var began, ended time.Time
	var sum, last float64
	for at, v := range s.last(window) {
		switch {
		case !isNumber(v):
			continue
		case began.IsZero():
			began = at
		default:
			sum += grown(last, v)
		}
		ended, last = at, v
	}
	if !ended.After(began) {
		return 0, false
	}
	return sum / ended.Sub(began).Seconds(), true
}
