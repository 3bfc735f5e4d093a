package dashboards

import (
	"maps"
	"math"
	"slices"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
)

// A line is the edge of what is well: beyond it figures warn or fail.
type line struct {
	value float64
	crit  bool
	above bool // figures above it are not well; else those below
}

// lines are what a panel's rule draws, by value. Of a range whose inside alerts there
// are none.
func lines(p Panel, rules Rules) (out []line) {
	if p.Rule == "" {
		return nil
	}
	r, found := rules(p.Rule)
	if !found || !shows(p, r.WithDefaults()) {
		return nil
	}
	for _, is := range []struct {
		*nagios.Range
		crit bool
	}{{r.Warn, false}, {r.Crit, true}} {
		if is.Range == nil || is.Inside {
			continue
		}
		// A range such as 10 begins at 0 because it says nothing else: what the
		// rules judge does not go below.
		if is.Start != 0 && !math.IsInf(is.Start, 0) {
			out = append(out, line{is.Start, is.crit, false})
		}
		if !math.IsInf(is.End, 0) {
			out = append(out, line{is.End, is.crit, true})
		}
	}
	slices.SortStableFunc(out, func(a, b line) int {
		switch {
		case a.value < b.value:
			return -1
		case a.value > b.value:
			return 1
		}
		return 0
	})
	return out
}

// shows reports whether a panel's figures are those that a rule judges, if over
// another window.
func shows(p Panel, r rule.Rule) bool {
	return slices.ContainsFunc(p.Queries, func(q Query) bool {
		same := selects(q, q.Metric, r.Series)
		switch r.Func {
		case rule.Level:
			return same && q.Func == Level
		case rule.Rate:
			return same && q.Func == Rate && q.Per == ""
		case rule.Share:
			return same && q.Func == Rate && selects(q, q.Per, r.All)
		}
		return false
	})
}

// selects reports whether a query reads the series of a selector.
func selects(q Query, metric string, s rule.Selector) bool {
	return metric == s.Name && s.Source == "" && maps.Equal(q.Match, s.Tags) && maps.EqualFunc(q.Except, s.Except, slices.Equal)
}

// A step is where another level begins: figures from From on.
type step struct {
	from  float64 // -Inf: the first
	level int     // 0 well, 1 warn, 2 crit
}

// least stands for the smallest figure above 0. Who shows figures by steps counts the
// edge to what is beyond it, which is as good as right but at 0, where figures stay.
const least = 1e-9

// steps are the levels of all figures there are.
func steps(edges []line) []step {
	var values []float64
	for _, e := range edges {
		values = append(values, e.value)
	}
	slices.Sort(values)
	values = slices.Compact(values)
	out := []step{{math.Inf(-1), levelOf(edges, math.Inf(-1))}}
	for _, v := range values {
		level := levelOf(edges, math.Nextafter(v, math.Inf(1)))
		if v == 0 {
			v = least
		}
		if level != out[len(out)-1].level {
			out = append(out, step{v, level})
		}
	}
	return out
}

func levelOf(edges []line, v float64) (level int) {
	for _, e := range edges {
		if e.above && v > e.value || !e.above && v < e.value {
			if e.crit {
				return 2
			}
			level = 1
		}
	}
	return level
}
