package datadog

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/DataDog/datadog-go/v5/statsd"

	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/metrics"
)

// What the parts of a line must not have: it would end them. Read-only.
const (
	metricName = ":|@#\n\r"
	tagName    = ":|,\n\r"
	tagValue   = "|,\n\r"
	checkText  = "|\r"
	eventText  = "|\n\r"
)

func clean(s, without string) string {
	if !strings.ContainsAny(s, without) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(without, r) {
			return '_'
		}
		return r
	}, s)
}

// nameOf is a metric's name. Datadog's OpenMetrics check (V2) adds .count to that of
// a counter, and a metric should have one name whichever way it comes. A name that
// such a check gave has its suffix already: .sum is one of a summary. One that a
// program sent by DogStatsD is what its dashboards look for, and stays.
func nameOf(d *metrics.Desc, verbatim bool) string {
	name := d.Datadog
	if name == "" {
		name = strings.TrimSuffix(d.Name, "_total")
	}
	if d.Type == metrics.CounterType && !verbatim && !strings.HasSuffix(name, ".count") && !strings.HasSuffix(name, ".sum") {
		name += ".count"
	}
	return clean(name, metricName)
}

// scaleOf is what a metric's values are multiplied with: what a program sent by
// DogStatsD has the unit that its dashboards know, as it has its name. The Agent,
// too, passes on timers in the milliseconds in which they are sent.
func scaleOf(d *metrics.Desc, verbatim bool) float64 {
	if verbatim && d.Unit == "seconds" && d.SentUnit == "milliseconds" {
		return 1000
	}
	return 1
}

// shorten keeps texts of checks and events within what a packet takes.
func shorten(text string) string {
	const most = 512
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

// mostTimes bounds what one line counts: Datadog's servers take sample rates
// down to about 1 to 260 million.
const mostTimes = 100_000_000

// samples yields a histogram's values and how often they were seen, at most as
// many as most, and those above mostTimes in several parts. A value is the
// middle of a bucket.
func samples(h metrics.HistogramSnapshot, most int, yield func(value float64, times uint64)) {
	give := func(value float64, times uint64) {
		for ; times > mostTimes; times -= mostTimes {
			yield(value, mostTimes)
		}
		if times > 0 {
			yield(value, times)
		}
	}
	if h.Bounds != nil {
		for i, n := range h.Counts {
			give(middleOfBounds(h.Bounds, i), n)
		}
		return
	}
	// Both signs keep at least one value.
	negative, schema := metrics.Coarse(h.Negative, metrics.Schema, max(1, most*len(h.Negative)/max(1, len(h.Negative)+len(h.Buckets))))
	for _, b := range slices.Backward(negative) {
		give(-middle(b.Index, schema), b.Count)
	}
	give(0, h.Zero)
	positive, schema := metrics.Coarse(h.Buckets, metrics.Schema, max(1, most-len(negative)))
	for _, b := range positive {
		give(middle(b.Index, schema), b.Count)
	}
}

// middle is the geometric middle of a bucket.
func middle(index int32, schema int) float64 {
	return math.Exp2((float64(index) - 0.5) * math.Exp2(-float64(schema)))
}

// middleOfBounds is the middle of a bucket of somebody else's: half of the first
// bound, and the last bound for what is above it.
func middleOfBounds(bounds []float64, i int) float64 {
	switch {
	case len(bounds) == 0:
		return 0
	case i >= len(bounds):
		return bounds[len(bounds)-1]
	case i == 0 && bounds[0] > 0:
		return bounds[0] / 2
	case i == 0:
		return bounds[0]
	case bounds[i-1] > 0:
		return math.Sqrt(bounds[i-1]) * math.Sqrt(bounds[i])
	}
	return (bounds[i-1] + bounds[i]) / 2
}

// rateOf is the sample rate with which a server counts a value so many times.
// The Agent cuts 1/rate off to a whole number (pkg/quantile: Agent.Insert), so it
// must not come out below.
func rateOf(times uint64) float64 {
	rate := 1 / float64(times)
	for uint64(1/rate) < times {
		rate = math.Nextafter(rate, 0)
	}
	return rate
}

// fraction is 1 for a count that is no whole number, or too large for one.
func fraction(p exporters.Point) int {
	s, ok := p.Ref.(*series)
	if ok && s.kind == metrics.CounterType && (p.Value != math.Trunc(p.Value) || math.Abs(p.Value) >= 1<<63) {
		return 1
	}
	return 0
}

// pack adds a count to the packet that is being filled.
func (e *Exporter) pack(p exporters.Point) error {
	s, ok := p.Ref.(*series)
	if !ok {
		panic(fmt.Sprintf("BUG: count of a %T for Datadog", p.Ref))
	}
	start := len(e.packet)
	e.packet = append(append(e.packet, s.name...), ':')
	e.packet = strconv.AppendFloat(e.packet, p.Value, 'f', -1, 64)
	e.packet = append(e.packet, "|c"...)
	for i, tag := range s.tags {
		separator := ","
		if i == 0 {
			separator = "|#"
		}
		e.packet = append(append(e.packet, separator...), tag...)
	}
	e.packet = append(append(e.packet, e.suffix...), '\n')
	switch most := e.out.target.packet; {
	case len(e.packet) <= most:
	case len(e.packet)-start > most:
		e.packet = e.packet[:start]
		return fmt.Errorf("metric %s: a line of more than %d bytes", s.name, most)
	default:
		line := append([]byte(nil), e.packet[start:]...)
		e.packet = e.packet[:start]
		e.flush()
		e.packet = append(e.packet, line...)
	}
	return nil
}

// flush sends the packet that is being filled. What goes wrong the writer
// remembers.
func (e *Exporter) flush() {
	if len(e.packet) > 0 {
		_, _ = e.out.Write(e.packet)
		e.packet = e.packet[:0]
	}
}

// added is what the client adds to each line of its own accord.
type added struct {
	tags   string // from the environment: entity, env, service, version
	suffix string // the container's ID, the cardinality ...
}

// additions asks a client that writes into memory.
func additions(options []statsd.Option) (added, error) {
	var a added
	w := &memory{}
	client, err := statsd.NewDirectWithWriter(w, options...)
	if err != nil {
		return a, fmt.Errorf("make client: %w", err)
	}
	err = errors.Join(client.Count("x", 1, nil, 1), client.Close())
	rest, found := strings.CutPrefix(strings.TrimSuffix(w.String(), "\n"), "x:1|c")
	if err != nil || !found {
		return a, errors.Join(err, fmt.Errorf("client wrote %q, want a line that begins x:1|c", w.String()))
	}
	if tags, found := strings.CutPrefix(rest, "|#"); found {
		a.tags, rest, found = strings.Cut(tags, "|")
		if found {
			rest = "|" + rest
		}
	}
	a.suffix = rest
	return a, nil
}

type memory struct{ bytes.Buffer }

func (*memory) Close() error { return nil }

// entity is the tag by which the Agent finds the pod.
func (a added) entity() map[string]string {
	const name = "dd.internal.entity_id"
	for tag := range strings.SplitSeq(a.tags, ",") {
		if value, ok := strings.CutPrefix(tag, name+":"); ok {
			return map[string]string{name: value}
		}
	}
	return nil
}

// without takes out of the lines of a packet the tags that the client added: the
// process' tags are among ours, and a neighbour's series have another service.
func without(packet []byte, tags string) []byte {
	if tags == "" {
		return packet
	}
	out := make([]byte, 0, len(packet))
	for line := range bytes.Lines(packet) {
		at := bytes.LastIndex(line, []byte("|#"+tags))
		if at < 0 {
			out = append(out, line...)
			continue
		}
		rest := line[at+len("|#"+tags):]
		out = append(out, line[:at]...)
		if after, ours := bytes.CutPrefix(rest, []byte(",")); ours {
			out, rest = append(out, "|#"...), after
		}
		out = append(out, rest...)
	}
	return out
}
