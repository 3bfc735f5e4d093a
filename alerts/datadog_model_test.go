package alerts

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/alerts/rule"
)

// A model of how Datadog evaluates monitors on metrics, by its documentation: once a
// minute, over the points of the window, for each group by itself. It shows what the
// words of a query come to. It is no Datadog, and it says nothing of
//
//   - the resolution: points are of 10 s, as the Datadog Agent sends them, however long
//     the window is; the server makes them coarser, and fills gaps of gauges;
//   - when data arrives: here it is there at once;
//   - is_greater with as_count: it is taken to see the sum, as in Datadog's guide;
//   - service checks, what is told to whom, and everything that is not said below.
const modelPoint = 10 * time.Second

// A modelSeries is one series as the exporter sends it: by the time since the beginning,
// a gauge's value, or how much came of a counter.
type modelSeries struct {
	tags   map[string]string
	points map[time.Duration]float64
}

// A modelData is the series of each metric.
type modelData map[string][]modelSeries

// add takes in a series that the agent recorded.
func (d modelData) add(name string, s *rule.Recorded, zero time.Time) {
	out := modelSeries{tags: map[string]string{"host": "h", "service": "s"}, points: map[time.Duration]float64{}}
	maps.Copy(out.tags, s.Labels)
	for i, p := range s.Points {
		at, v := p.At.Sub(zero).Truncate(modelPoint), p.Value
		if s.Grows {
			if i == 0 {
				continue
			}
			v = out.points[at] + p.Value - s.Points[i-1].Value
		}
		out.points[at] = v
	}
	d[name] = append(d[name], out)
}

// A modelParser reads an expression: sums of products of queries, numbers, brackets, abs
// and is_greater.
type modelParser struct {
	text   string
	leaves map[string]map[time.Duration]float64
	value  func(leaf string) float64
}

func (p *modelParser) sum() float64 {
	v := p.product()
	for {
		switch {
		case p.take(" + "):
			v += p.product()
		case p.take(" - "):
			v -= p.product()
		default:
			return v
		}
	}
}

func (p *modelParser) product() float64 {
	v := p.term()
	for {
		switch {
		case p.take(" * "):
			v *= p.term()
		case p.take(" / "):
			over := p.term()
			v /= over
			if over == 0 {
				v = math.NaN()
			}
		default:
			return v
		}
	}
}

func (p *modelParser) term() float64 {
	switch {
	case p.take("abs("):
		v := math.Abs(p.sum())
		p.want(")")
		return v
	case p.take("is_greater("):
		v := p.sum()
		p.want(", ")
		end := strings.IndexByte(p.text, ')')
		least, err := strconv.ParseFloat(p.text[:end], 64)
		if err != nil {
			panic("BUG: " + p.text)
		}
		p.text = p.text[end+1:]
		if v > least {
			return 1
		}
		return 0
	case p.take("("):
		v := p.sum()
		p.want(")")
		return v
	}
	for leaf := range p.leaves {
		if p.take(leaf) {
			return p.value(leaf)
		}
	}
	panic("BUG: no query: " + p.text)
}

func (p *modelParser) take(text string) bool {
	rest, found := strings.CutPrefix(p.text, text)
	p.text = rest
	return found
}

func (p *modelParser) want(text string) {
	if !p.take(text) {
		panic(fmt.Sprintf("BUG: want %q at %q", text, p.text))
	}
}

// A modelView is what the queries of an expression give for one group.
type modelView struct {
	datadogParts
	leaves map[string]map[time.Duration]float64 // by the text of the query
	points map[time.Duration]bool               // at which one of them gives something
}

func (d modelData) view(p datadogParts, group string) modelView {
	view := modelView{p, map[string]map[time.Duration]float64{}, map[time.Duration]bool{}}
	for _, l := range datadogLeaf.FindAllStringSubmatch(p.expr, -1) {
		found := map[time.Duration][]float64{}
		for _, s := range d[l[2]] {
			if !s.in(l[3]) || s.group(l[4]) != group {
				continue
			}
			for at, v := range s.points {
				found[at] = append(found[at], v)
				view.points[at] = true
			}
		}
		values := make(map[time.Duration]float64, len(found))
		for at, all := range found {
			slices.Sort(all)
			values[at] = modelAggregate(l[1], all)
		}
		view.leaves[l[0]] = values
	}
	return view
}

func (s modelSeries) in(scope string) bool {
	for part := range strings.SplitSeq(scope, ",") {
		if tag, v, _ := strings.Cut(part, ":"); part != "*" && s.tags[tag] != v {
			return false
		}
	}
	return true
}

// group is empty for a series that lacks a tag: it is in none.
func (s modelSeries) group(by string) string {
	var parts []string
	for tag := range strings.SplitSeq(by, ",") {
		v, ok := s.tags[tag]
		if !ok {
			return ""
		}
		parts = append(parts, tag+":"+v)
	}
	return strings.Join(parts, ",")
}

func modelAggregate(by string, values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	switch by {
	case "min":
		return slices.Min(values)
	case "max":
		return slices.Max(values)
	case "avg":
		return sum / float64(len(values))
	}
	return sum
}

// window evaluates the query at a moment: the points of [now - window, now). points are
// the moments at which there was something.
func (w modelView) window(now time.Duration) (v float64, points []time.Duration) {
	reach := time.Duration(datadogSpanMinutes(w.datadogParts.window)) * time.Minute
	shift := time.Duration(datadogSpanMinutes(w.shift)) * time.Minute
	at := func(at time.Duration) float64 {
		e := modelParser{w.expr, w.leaves, func(leaf string) float64 {
			if v, ok := w.leaves[leaf][at]; ok {
				return v
			}
			return math.NaN()
		}}
		return e.sum()
	}
	summed := func(from, to time.Duration) float64 {
		e := modelParser{w.expr, w.leaves, func(leaf string) (sum float64) {
			for t := from; t < to; t += modelPoint {
				sum += w.leaves[leaf][t]
			}
			return sum
		}}
		return e.sum()
	}
	counts := strings.Contains(w.expr, ".as_count()")
	var values []float64
	for t := max(0, now-reach); t < now; t += modelPoint {
		if !w.points[t] {
			continue
		}
		points = append(points, t)
		if counts {
			continue
		}
		if v := w.changed(at(t), func() float64 { return at(t - shift) }); !math.IsNaN(v) {
			values = append(values, v)
		}
	}
	switch {
	case counts && len(points) > 0:
		return w.changed(summed(now-reach, now), func() float64 { return summed(now-reach-shift, now-shift) }), points
	case len(values) == 0:
		return math.NaN(), points
	}
	return modelAggregate(w.function, values), points
}

// changed is the value, or how much more it is than before.
func (w modelView) changed(v float64, before func() float64) float64 {
	switch w.change {
	case "change":
		return v - before()
	case "pct_change":
		b := before()
		return (v - b) / b * 100
	}
	return v
}

// modelFull is Datadog's rule of a full window: the first part has data, and at most three
// have none. A part is a minute, of hours ten.
func modelFull(p datadogParts, points []time.Duration, now time.Duration) bool {
	part := time.Minute
	if strings.HasSuffix(p.window, "h") {
		part = 10 * time.Minute
	}
	reach := time.Duration(datadogSpanMinutes(p.window)) * time.Minute
	empty := 0
	for from := now - reach; from < now; from += part {
		has := slices.ContainsFunc(points, func(t time.Duration) bool { return t >= from && t < from+part })
		if !has && from == now-reach {
			return false
		}
		if !has {
			empty++
		}
	}
	return empty <= 3
}

// A modelEpisode is the time for which a group had a state.
type modelEpisode struct {
	group, state string
	began, ended time.Duration // 0: it goes on
}

// modelRun evaluates a monitor each minute until a moment.
func modelRun(m datadogMonitor, d modelData, until time.Duration) (out []modelEpisode) {
	p, ok := parseDatadog(m.Query)
	if !ok {
		panic("BUG: query " + m.Query)
	}
	groups := map[string]bool{}
	for _, l := range datadogLeaf.FindAllStringSubmatch(p.expr, -1) {
		for _, s := range d[l[2]] {
			if g := s.group(l[4]); g != "" && s.in(l[3]) {
				groups[g] = true
			}
		}
	}
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		out = append(out, modelGroup(m, p, d, group, until)...)
	}
	return out
}

func modelGroup(m datadogMonitor, p datadogParts, d modelData, group string, until time.Duration) (out []modelEpisode) {
	view := d.view(p, group)
	state, first, last := "ok", time.Duration(-1), time.Duration(0)
	become := func(next string, now time.Duration) {
		if next == state {
			return
		}
		if state != "ok" {
			out[len(out)-1].ended = now
		}
		if next != "ok" {
			out = append(out, modelEpisode{group: group, state: next, began: now})
		}
		state = next
	}
	for now := time.Minute; now <= until; now += time.Minute {
		v, points := view.window(now)
		if len(points) > 0 {
			last = points[len(points)-1]
			if first < 0 {
				first = points[0]
			}
		}
		quiet := now - last
		switch {
		case first < 0 || now-first < time.Duration(m.Options.NewGroupDelay)*time.Second:
		case m.Options.NotifyNoData && quiet > time.Duration(m.Options.NoDataTimeframe)*time.Minute:
			become("no data", now)
		case m.Options.TimeoutH > 0 && quiet > time.Duration(m.Options.TimeoutH)*time.Hour:
			become("ok", now)
		case math.IsNaN(v):
		case *m.Options.RequireFullWindow && !modelFull(p, points, now):
		default:
			become(modelState(m.Options.Thresholds, p.op, state, v), now)
		}
	}
	return out
}

// modelState is the state after a value. What alerts goes on to alert until the value
// has passed the end of recovery, and warns likewise.
func modelState(t datadogThresholds, op, before string, v float64) string {
	is := func(threshold, recovery string, raised bool) bool {
		if threshold == "" {
			return false
		}
		if raised && recovery != "" {
			threshold = recovery
		}
		limit, err := strconv.ParseFloat(threshold, 64)
		if err != nil {
			panic("BUG: threshold " + threshold)
		}
		switch op {
		case ">":
			return v > limit
		case ">=":
			return v >= limit
		case "<":
			return v < limit
		}
		return v <= limit
	}
	switch {
	case is(string(t.Critical), string(t.CriticalRecovery), before == "alert"):
		return "alert"
	case is(string(t.Warning), string(t.WarningRecovery), before == "alert" || before == "warn"):
		return "warn"
	}
	return "ok"
}
