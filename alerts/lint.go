package alerts

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// Lint says what is wrong with rules that could be read: names and tags that no series
// of ours has, ranges that can never be left or always are, thresholds in the wrong
// order. The result is sorted as the rules are.
func Lint(set *Set, own catalogue.Catalogue) error {
	var errs []error
	for _, r := range set.Rules {
		for _, text := range lint(r, own) {
			errs = append(errs, fmt.Errorf("rule %s: %s", r.Name, text))
		}
	}
	return errors.Join(errs...)
}

func lint(r Rule, own catalogue.Catalogue) (out []string) {
	wrong := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	is := r.Rule(r.Name)
	for _, s := range []struct {
		key string
		of  rule.Selector
		by  []string
	}{{"series", is.Series, is.By}, {"share.all", is.All, is.By}, {"witness", rule.Selector{Name: r.Witness}, nil}} {
		if s.of.Name != "" {
			lintSeries(s.key, s.of, s.by, own, wrong)
		}
	}
	if d, ok := own.Find(is.Series.Name); ok {
		counter := d.Type == metrics.CounterType
		switch {
		case counter && is.Func == rule.Level:
			wrong("level: got the counter %s, want rate: a counter's level says how long it has run", d.Name)
		case !counter && (is.Func == rule.Rate || is.Func == rule.Share):
			wrong("%s: got %s, which is a %s, want a counter", is.Func, d.Name, d.Type)
		}
	}
	if d, ok := own.Find(is.All.Name); ok && d.Type != metrics.CounterType {
		wrong("share.all: got %s, which is a %s, want a counter", d.Name, d.Type)
	}
	dom := domainOf(is, own)
	for _, l := range []struct {
		key string
		is  *nagios.Range
	}{{"warn", is.Warn}, {"crit", is.Crit}} {
		switch {
		case l.is == nil:
		case never(*l.is, dom):
			wrong("%s: got %s, which no figure from %v to %v is outside of: it can never fire", l.key, l.is, dom.low, dom.high)
		case always(*l.is, dom):
			wrong("%s: got %s, which every figure from %v to %v is outside of: it always fires", l.key, l.is, dom.low, dom.high)
		}
	}
	if is.Warn != nil && is.Crit != nil {
		lintOrder(*is.Warn, *is.Crit, dom, wrong)
	}
	return out
}

// lintSeries finds names of ours that are none, and tags that they do not have.
func lintSeries(key string, of rule.Selector, by []string, own catalogue.Catalogue, wrong func(string, ...any)) {
	d, ok := own.Find(of.Name)
	if !ok {
		if strings.HasPrefix(of.Name, "outrider_") {
			wrong("%s: got %s, which the agent does not have, want a name of docs/metrics.md", key, of.Name)
		}
		return
	}
	if d.Type == metrics.HistogramType {
		wrong("%s: got the histogram %s, want a counter or gauge: back ends keep histograms in parts that have other names", key, of.Name)
	}
	for tag := range of.Tags {
		if !slices.Contains(d.Tags, tag) {
			wrong("match: got %s, want a tag of %s: %s", tag, d.Name, strings.Join(d.Tags, ", "))
		}
	}
	for tag := range of.Except {
		if !slices.Contains(d.Tags, tag) {
			wrong("except: got %s, want a tag of %s: %s", tag, d.Name, strings.Join(d.Tags, ", "))
		}
	}
	for _, tag := range by {
		if !slices.Contains(d.Tags, tag) {
			wrong("by: got %s, want a tag of %s: %s", tag, d.Name, strings.Join(d.Tags, ", "))
		}
	}
}

// lintOrder wants crit to be farther out than warn, on one side at least and on none
// the other way round.
func lintOrder(warn, crit nagios.Range, dom domain, wrong func(string, ...any)) {
	before, after, same := false, false, false
	for _, c := range bounds(crit, dom) {
		for _, w := range bounds(warn, dom) {
			switch up := c.op[0] == '>'; {
			case w.op != c.op:
			case w.value == c.value:
				same = true
			case up == (w.value < c.value):
				before = true
			default:
				after = true
			}
		}
	}
	if after || same && !before {
		wrong("warn: got %s with crit %s, want warn to come first", &warn, &crit)
	}
}
