package alerts

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"time"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// The rules of queries.
//
// A level is judged at every point of the last minute, or of for: min is above a ceiling
// when all points are. What counters count is a count, and for is part of its window: a
// monitor with as_count can only add up. So for of a rate means that it is so on the
// whole of window and for together. Where any at all alerts, there must be at least as
// many as the rule needs to last for so long.

// A datadogQuery is HEAD:EXPR OP NUMBER in parts.
type datadogQuery struct {
	head, expr, op string
	convert        func(threshold *big.Rat) *big.Rat // into what the query compares with
	minutes        int                               // that it looks at
	full           bool                              // it takes data all over the window
	settle         time.Duration                     // until a new group is judged; 0: the default
	idle           bool                              // it has no data when nothing moves
	means          string                            // what the value is
}

func (q datadogQuery) number(v *float64) json.Number {
	return json.Number(datadogNumber(q.convert(decimal(*v))))
}

// recovery is empty where it is no other number: the server does not take the same one.
func (q datadogQuery) recovery(v *float64, alert json.Number) json.Number {
	if v == nil || q.number(v) == alert {
		return ""
	}
	return q.number(v)
}

func newDatadogQuery(r rule.Rule, own catalogue.Catalogue, side datadogSide) (datadogQuery, error) {
	s := datadogSeries{rule: r, own: own, up: side.op[0] == '>'}
	var q datadogQuery
	var err error
	switch r.Func {
	case rule.Level:
		q, err = s.level()
	case rule.Rate:
		q, err = s.rate()
	case rule.Quantile:
		q, err = s.quantile()
	case rule.Change:
		q, err = s.change()
	case rule.Share:
		q, err = s.share(side)
	default:
		err = fmt.Errorf("%s: want level, rate, quantile, change or share", r.Func)
	}
	if q.op == "" {
		q.op = side.op
	}
	if q.convert == nil {
		q.convert = func(v *big.Rat) *big.Rat { return v }
	}
	return q, err
}

// A datadogSeries is a rule's series as Datadog has them.
type datadogSeries struct {
	rule rule.Rule
	own  catalogue.Catalogue
	up   bool // too much is bad
}

// held is the window that all points of must be outside, and the function for it. Where
// the rule keeps what was outside, one point is enough.
func (s datadogSeries) held() (function, window string, minutes int, err error) {
	function, minutes = "max", datadogMinutes(s.rule.For)
	if s.up {
		function = "min"
	}
	if s.rule.For == 0 && s.rule.KeepFor > 0 {
		minutes = datadogMinutes(s.rule.KeepFor)
		function = map[string]string{"min": "max", "max": "min"}[function]
	}
	window, err = datadogWindow("for", minutes)
	return function, window, minutes, err
}

func (s datadogSeries) level() (datadogQuery, error) {
	function, window, minutes, err := s.held()
	return datadogQuery{
		head: fmt.Sprintf("%s(%s)", function, window), expr: s.leaf(s.rule.Series, s.space()),
		minutes: minutes, full: s.rule.For > time.Minute, means: "as it is measured",
	}, err
}

// counted is the window of what counters count, with for.
func (s datadogSeries) counted() (window string, minutes int, err error) {
	minutes = datadogMinutes(s.rule.Window + s.rule.For)
	window, err = datadogWindow("window and for", minutes)
	return window, minutes, err
}

func (s datadogSeries) rate() (datadogQuery, error) {
	window, minutes, err := s.counted()
	some := new(big.Rat).SetInt64(int64(s.rule.For / s.rule.Window))
	return datadogQuery{
		head: "sum(" + window + ")", expr: s.leaf(s.rule.Series, s.space()) + ".as_count()",
		minutes: minutes, full: !s.up, // too few are only so in the whole of it
		means: "counted in " + datadogSpan(minutes),
		convert: func(v *big.Rat) *big.Rat {
			if v.Sign() == 0 && s.up {
				return some
			}
			return v.Mul(v, new(big.Rat).SetInt64(int64(minutes)*60))
		},
	}, err
}

// quantile has only the ends of what was there: a monitor knows no others of a gauge.
func (s datadogSeries) quantile() (datadogQuery, error) {
	if s.rule.For > 0 {
		return datadogQuery{}, fmt.Errorf("for: got %s with a quantile, want none: a monitor looks at one window", s.rule.For)
	}
	function := map[float64]string{0: "min", 1: "max"}[s.rule.Quantile]
	if function == "" {
		return datadogQuery{}, fmt.Errorf("quantile.q: got %v, want 0 or 1: a monitor has percentiles of distributions alone, not of a gauge's points", s.rule.Quantile)
	}
	minutes := datadogMinutes(s.rule.Window)
	window, err := datadogWindow("quantile.window", minutes)
	return datadogQuery{
		head: fmt.Sprintf("%s(%s)", function, window), expr: s.leaf(s.rule.Series, s.space()), minutes: minutes,
		means: fmt.Sprintf("the %s of %s", function, datadogSpan(minutes)),
	}, err
}

func (s datadogSeries) change() (datadogQuery, error) {
	function, suffix := "change", ""
	of, window, minutes, err := s.held()
	scale := int64(1)
	if s.counter(s.rule.Series) {
		of, suffix = "sum", ".as_count()"
		window, minutes, err = s.counted()
		scale = int64(minutes) * 60
	}
	shift, shiftErr := datadogWindow("change.shift", datadogMinutes(s.rule.Shift))
	means := "more than " + datadogSpan(datadogMinutes(s.rule.Shift)) + " before"
	if s.rule.Ratio {
		function, scale, means = "pct_change", 100, "percent "+means
	}
	return datadogQuery{
		head: fmt.Sprintf("%s(%s(%s),%s)", function, of, window, shift), expr: s.leaf(s.rule.Series, s.space()) + suffix,
		minutes: minutes, means: means,
		settle:  time.Duration(minutes)*time.Minute + s.rule.Shift, // before it is there all was nothing
		convert: func(v *big.Rat) *big.Rat { return v.Mul(v, new(big.Rat).SetInt64(scale)) },
	}, errors.Join(err, shiftErr)
}

// share is a ratio of sums: with as_count Datadog adds up before it divides. Where least
// is not reached the value is 0, by the way that Datadog's guide to a minimum of
// requests shows. Of a floor it is the part that is missing, so that 0 is well.
func (s datadogSeries) share(side datadogSide) (datadogQuery, error) {
	window, minutes, err := s.counted()
	part, all := s.leaf(s.rule.Series, "sum")+".as_count()", s.leaf(s.rule.All, "sum")+".as_count()"
	q := datadogQuery{
		head: "sum(" + window + ")", expr: part + " / " + all, minutes: minutes, idle: true,
		means: fmt.Sprintf("the part of %s in %s", s.rule.All.Name, datadogSpan(minutes)),
	}
	if s.rule.Least == 0 {
		return q, err
	}
	if !s.up {
		for _, v := range []*float64{side.crit, side.warn, side.critClear, side.warnClear} {
			if v != nil && *v > 1 {
				return q, fmt.Errorf("share.least: got %v with a floor of %v, want a floor of 1 at most, or no least", s.rule.Least, *v)
			}
		}
		q.op = map[string]string{"<": ">", "<=": ">="}[side.op]
		q.expr = fmt.Sprintf("(%s - %s) / %s", all, part, all)
		q.means = fmt.Sprintf("the part of %s that is missing in %s", s.rule.All.Name, datadogSpan(minutes))
		q.convert = func(v *big.Rat) *big.Rat { return v.Sub(new(big.Rat).SetInt64(1), v) }
	}
	least := decimal(s.rule.Least)
	least.Mul(least, new(big.Rat).SetFrac64(int64(s.rule.Window+s.rule.For), int64(s.rule.Window)))
	enough, _ := least.Float64()
	q.expr = fmt.Sprintf("(%s) * is_greater(%s, %s)", q.expr, all, datadogNumber(decimal(max(0, math.Ceil(enough)-1))))
	return q, err
}

// datadogGone is the query of an absence or a staleness: it never alerts, because what is
// told is that its data is missing. ok is false if the rule is neither.
func datadogGone(r rule.Rule, own catalogue.Catalogue) (q datadogQuery, ok bool, err error) {
	s := datadogSeries{rule: r, own: own, up: true}
	switch r.Func {
	case rule.Absence:
		q.minutes = datadogMinutes(r.Window)
	case rule.Staleness:
		if r.Aggregate == rule.Sum || r.Aggregate == rule.Avg {
			return q, true, fmt.Errorf("aggregate: got %s with staleness, want max, min or worst: a monitor knows of each group whether it has data", r.Aggregate)
		}
		if _, known := own.Find(r.Series.Name); r.Aggregate == rule.Max && known {
			s.rule.Aggregate = rule.Worst // any of them
		}
		q.minutes = datadogMinutes(time.Duration(r.Crit.End * float64(time.Second)))
	default:
		return q, false, nil
	}
	q.expr = "abs(" + s.leaf(r.Series, "max") + ")"
	return q, true, nil
}

// onlyGone makes that its data is missing what a monitor is about.
func (m *datadogMonitor) onlyGone(minutes int) {
	m.Options.NotifyNoData, m.Options.NoDataTimeframe = true, minutes
	if m.Options.RenotifyInterval > 0 {
		m.Options.RenotifyStatuses = []string{"no data"}
	}
}

func datadogGoneMonitor(r Rule, o Owner, q datadogQuery) datadogMonitor {
	m := datadogNew(r, o, false)
	m.Type = datadogQueryAlert
	m.Query = "min(last_1m):" + q.expr + " < -1"
	m.Options.Thresholds.Critical = "-1"
	m.onlyGone(max(datadogAliveMinutes, q.minutes))
	m.Options.RequireFullWindow = new(bool)
	m.Message = datadogText{rule: r, owner: o, gone: true}.message()
	return m
}
