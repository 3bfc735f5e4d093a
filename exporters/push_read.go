package exporters

import (
	"math"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

const (
	// idleTime is how long what was read of a series is remembered after it was
	// last there: a neighbour may be away for a while.
	idleTime = time.Hour

	atOnce = 1024 // points that are put into the queue at once
)

// A table remembers of each series what was read last, so that the next reading
// can say what has come since.
type table struct {
	series   map[string]*known
	families map[string]*[2]int64 // the first and the last reading that had it
	most     int                  // series
	reading  int64
	idle     int64 // readings
	key      []byte
}

// known is what is remembered of one series.
type known struct {
	value float64
	hist  *metrics.HistogramSnapshot
	state any // the exporter's own
	last  int64
}

func newTable(most int, every time.Duration) *table {
	return &table{
		series: map[string]*known{}, families: map[string]*[2]int64{},
		most: most, idle: max(1, int64(idleTime/every)),
	}
}

// A round is one reading of all feeds.
type round struct {
	*table
	encode func(r *Reading, emit func(ref any, value float64, times uint64))
	queue  *queue
	at     int64  // milliseconds since 1970
	suffix []byte // of the keys of the feed's series
	points []Point
	made   int              // points, in all
	reason map[string]int64 // refused, by reason
}

// read takes one feed's families.
func (r *round) read(feed Feed, fams []metrics.Family, choose func(name string) bool) {
	r.suffix = r.suffix[:0]
	for _, t := range WithBase(nil, feed.Tags) {
		r.suffix = appendParts(r.suffix, t.Name, t.Value)
	}
	for _, f := range fams {
		if !choose(f.Desc.Name) {
			continue
		}
		seen := r.families[f.Desc.Name]
		if seen == nil {
			seen = &[2]int64{r.reading}
			r.families[f.Desc.Name] = seen
		}
		seen[1] = r.reading
		// A series that is new in a metric that was there before began at 0.
		sinceZero := feed.FromZero || seen[0] < r.reading
		points := f.Points
		if budget := f.Desc.Budget; budget > 0 && len(points) > budget {
			r.reason["over_budget"] += int64(len(points) - budget)
			points = points[:budget]
		}
		for i := range points {
			r.point(feed, &f.Desc, &points[i], sinceZero)
		}
	}
}

func (r *round) point(feed Feed, d *metrics.Desc, p *metrics.Point, sinceZero bool) {
	switch {
	case len(p.Tags) != len(d.Tags), d.Type == metrics.HistogramType && p.Hist == nil:
		r.reason["malformed"]++
		return
	case d.Type != metrics.HistogramType && !finite(p.Value):
		r.reason["not_finite"]++
		return
	}
	r.key = append(appendKey(r.key[:0], d, p), r.suffix...)
	s := r.series[string(r.key)]
	reading := Reading{Desc: d, Verbatim: feed.Verbatim, Value: p.Value, Hist: p.Hist, Known: s != nil || sinceZero}
	switch {
	case s == nil && len(r.series) >= r.most:
		r.reason["over_budget"]++
		return
	case s == nil:
		s = &known{}
		r.series[string(r.key)] = s
	case s.last == r.reading:
		r.reason["duplicate"]++
		return
	}
	s.last = r.reading
	switch d.Type {
	case metrics.CounterType:
		if reading.Grown = p.Value - s.value; reading.Grown < 0 { // it began anew
			reading.Grown = p.Value
		}
		s.value = p.Value
	case metrics.HistogramType:
		reading.Since = *p.Hist
		if s.hist != nil {
			reading.Since = p.Hist.Sub(*s.hist)
		}
		s.hist = p.Hist
	}
	if reading.State = s.state; s.state == nil {
		reading.Tags = tagsOf(feed, d, p)
	}
	r.encode(&reading, r.emit)
	s.state = reading.State
}

func (r *round) emit(ref any, value float64, times uint64) {
	if !finite(value) {
		r.reason["not_finite"]++
		return
	}
	if r.points = append(r.points, Point{Ref: ref, Value: value, Times: times, At: r.at}); len(r.points) == atOnce {
		r.flush()
	}
}

func (r *round) flush() {
	r.queue.put(r.points...)
	r.made += len(r.points)
	r.points = r.points[:0]
}

// end puts in what is left, and forgets series that are long gone.
func (r *round) end() {
	r.flush()
	for reason, n := range r.reason {
		r.queue.refuse(reason, n)
	}
	if r.reading%max(1, r.idle/8) != 0 {
		return
	}
	for key, s := range r.series {
		if s.last < r.reading-r.idle {
			delete(r.series, key)
		}
	}
	for name, seen := range r.families {
		if seen[1] < r.reading-r.idle {
			delete(r.families, name)
		}
	}
}

// renew lets go of what an exporter made of the series, for another one.
func (t *table) renew(most int, every time.Duration) {
	t.most, t.idle = most, max(1, int64(idleTime/every))
	for _, s := range t.series {
		s.state, s.last = nil, t.reading
	}
	for _, seen := range t.families {
		seen[1] = t.reading
	}
}

// appendKey makes the key of a series. It has the tags' names, because those of
// a family may become more.
func appendKey(key []byte, d *metrics.Desc, p *metrics.Point) []byte {
	key = appendParts(key, d.Name, string(d.Type))
	for i, value := range p.Tags {
		if value != "" {
			key = appendParts(key, d.Tags[i], value)
		}
	}
	return key
}

func appendParts(key []byte, a, b string) []byte {
	const end = 0xff // which no UTF-8 has
	return append(append(append(append(key, a...), end), b...), end)
}

func tagsOf(feed Feed, d *metrics.Desc, p *metrics.Point) []Tag {
	tags := make([]Tag, 0, len(p.Tags)+len(feed.Tags))
	for i, value := range p.Tags {
		if value != "" {
			tags = append(tags, Tag{d.Tags[i], value})
		}
	}
	return WithBase(tags, feed.Tags)
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
