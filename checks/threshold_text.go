package checks

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// A figureUnit is how a figure is written: in a sentence, in a result, and in Nagios'
// performance data.
type figureUnit struct{ suffix, name, nagios string }

// unitOf is the unit of a rule's figures, which the name of the series tells.
func unitOf(r rule.Rule) figureUnit {
	name := strings.TrimSuffix(r.Series.Name, "_total")
	for _, part := range []string{"_sum", "_p50", "_p95", "_p99", "_max", "_min"} {
		name = strings.TrimSuffix(name, part)
	}
	u := figureUnit{}
	switch {
	case r.Func == rule.Staleness:
		return figureUnit{"s", "seconds", "s"}
	case r.Func == rule.Absence:
		return u
	case r.Func == rule.Change && r.Ratio, r.Func == rule.Share:
		return figureUnit{"", "ratio", ""}
	case strings.HasSuffix(name, "_seconds"):
		u = figureUnit{"s", "seconds", "s"}
	case strings.HasSuffix(name, "_bytes"):
		u = figureUnit{" bytes", "bytes", "B"}
	case strings.HasSuffix(name, "_ratio"):
		u = figureUnit{"", "ratio", ""}
	}
	if r.Func == rule.Rate {
		return figureUnit{suffix: u.suffix + "/s", name: u.name + "/s"}
	}
	return u
}

// subject writes which series a figure is of.
func subject(r rule.Rule, tags map[string]string) string {
	s := r.Series.Name
	if len(tags) == 0 {
		tags = r.Series.Tags
	}
	if len(tags) > 0 {
		s += "{" + strings.Join(sortedTags(tags), ",") + "}"
	}
	if r.Series.Source != "" {
		s += " of " + r.Series.Source
	}
	return s
}

// sentence says what a judgement is about: the figure, and what it should be where
// it is not.
func sentence(r rule.Rule, j rule.Judgement, now time.Time) string {
	of := subject(r, j.Tags)
	if r.Func == rule.Absence {
		switch {
		case !j.Known():
			return "no sample of " + of + " yet: " + j.Why
		case j.Value > 0:
			return "no sample of " + of + " for " + brief(r.Window) + ", want one"
		}
		return of + " is there"
	}
	what := of
	switch r.Func {
	case rule.Rate:
		what = "rate of " + of + " over " + brief(r.Window)
	case rule.Quantile:
		what = fmt.Sprintf("%s quantile of %s over %s", strconv.FormatFloat(r.Quantile, 'g', -1, 64), of, brief(r.Window))
	case rule.Staleness:
		what = "age of the newest sample of " + of
	case rule.Share:
		what = "share of " + of + " in " + r.All.Name + " over " + brief(r.Window)
		if r.Short > 0 {
			what += " and " + brief(r.Short)
		}
	case rule.Change:
		what = "change of " + of + " against " + brief(r.Shift) + " earlier"
	}
	if !j.Known() {
		return what + " is not known: " + j.Why
	}
	suffix := unitOf(r).suffix
	text := what + " is " + nagios.Figure(j.Value, r.Warn, r.Crit) + suffix
	outside, clear := r.Crit, r.CritClear
	if j.Status == verdict.Warn || outside == nil || !outside.Alerts(j.Value) && j.Status != verdict.Fail && r.Warn != nil {
		outside, clear = r.Warn, r.WarnClear
	}
	switch {
	case outside.Alerts(j.Value):
		text += ", want " + wanted(*outside, j.Value, suffix)
		if j.Status == verdict.Pass && !j.Held.IsZero() {
			text += fmt.Sprintf("; for %s, counts after %s", brief(now.Sub(j.Held).Round(time.Second)), brief(r.For))
		}
	case j.Status != verdict.Pass && clear != nil && clear.Alerts(j.Value):
		text += ", want " + wanted(*clear, j.Value, suffix) + " to recover"
	case j.Status != verdict.Pass:
		text += ", well again for less than " + brief(r.KeepFor)
	}
	return text
}

// wanted says a range in words.
func wanted(r nagios.Range, v float64, suffix string) string {
	plain := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	low, high := !math.IsInf(r.Start, -1), !math.IsInf(r.End, 1)
	switch {
	case r.Inside && low && high:
		return "less than " + plain(r.Start) + " or more than " + plain(r.End) + suffix
	case r.Inside && low:
		return "less than " + plain(r.Start) + suffix
	case r.Inside && high:
		return "more than " + plain(r.End) + suffix
	case r.Inside:
		return "nothing at all"
	case low && high && r.Start == r.End:
		return plain(r.Start) + suffix
	case low && high && (r.Start != 0 || v < 0):
		return plain(r.Start) + " to " + plain(r.End) + suffix
	case high:
		return "at most " + plain(r.End) + suffix
	case low:
		return "at least " + plain(r.Start) + suffix
	}
	return "anything"
}

// brief writes a duration without the zeros that say nothing: 5m, not 5m0s.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// measureOf is a judgement as performance data.
func measureOf(r rule.Rule, j rule.Judgement) verdict.Measure {
	label := r.Series.Name
	if len(j.Tags) > 0 {
		var values []string
		for _, tag := range sortedTags(j.Tags) {
			_, value, _ := strings.Cut(tag, "=")
			values = append(values, value)
		}
		label += "/" + strings.Join(values, "/")
	}
	m := verdict.Measure{Label: label, Value: j.Value, Unit: unitOf(r).nagios}
	if r.Warn != nil {
		m.Warn = r.Warn.String()
	}
	if r.Crit != nil {
		m.Crit = r.Crit.String()
	}
	return m
}
