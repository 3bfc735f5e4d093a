package alerts

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// A promQuery writes what a rule judges in PromQL.
type promQuery struct {
	rule    rule.Rule
	witness string
	desc    metrics.Desc // of the series, where the catalogue has it
	known   bool
	counter bool
	floor   bool // a figure can be too low
	domain  domain
	shown   []string // labels of the tags that its alerts have, as far as they are known
}

func newPromQuery(r Rule, own catalogue.Catalogue) *promQuery {
	q := &promQuery{rule: r.Rule(r.Name), witness: r.Witness}
	q.desc, q.known = own.Find(r.Series)
	q.counter = q.desc.Type == metrics.CounterType || !q.known && strings.HasSuffix(r.Series, "_total")
	q.domain = domainOf(q.rule, own)
	for _, r := range []*nagios.Range{q.rule.Warn, q.rule.Crit} {
		if r != nil {
			q.floor = q.floor || slices.ContainsFunc(bounds(*r, q.domain), func(b bound) bool { return b.op[0] == '<' })
		}
	}
	tags := q.rule.By
	switch {
	case q.rule.Func == rule.Absence && q.witness != "":
		tags = nil
	case q.rule.Func == rule.Absence:
		tags = slices.Sorted(maps.Keys(q.rule.Series.Tags))
	case q.rule.Aggregate == rule.Worst:
		tags = q.desc.Tags
	}
	for _, tag := range tags {
		label := q.label(tag)
		if _, one := q.rule.Series.Tags[tag]; slices.Contains(promReserved, tag) && !one {
			label = "exported_" + tag
		}
		if !slices.Contains(q.shown, label) {
			q.shown = append(q.shown, label)
		}
	}
	return q
}

// check refuses what Prometheus has no words for.
func (q *promQuery) check() error {
	for _, name := range []string{q.rule.Series.Name, q.rule.All.Name, q.witness} {
		if name != "" && !model.LegacyValidation.IsValidMetricName(name) {
			return fmt.Errorf("series: got %q, want a name of letters, digits, _ and :, as every Prometheus has them", name)
		}
	}
	tags := slices.Clone(q.rule.By)
	for _, of := range []rule.Selector{q.rule.Series, q.rule.All} {
		tags = slices.AppendSeq(slices.AppendSeq(tags, maps.Keys(of.Tags)), maps.Keys(of.Except))
	}
	slices.Sort(tags)
	for _, tag := range tags {
		if !model.LegacyValidation.IsValidLabelName(tag) {
			return fmt.Errorf("by, match or except: got the tag %q, want a name of letters, digits and _, as every Prometheus has them", tag)
		}
	}
	for _, d := range []struct {
		key string
		is  time.Duration
	}{{"window", q.rule.Window}, {"change.shift", q.rule.Shift}, {"share.short", q.rule.Short}} {
		if _, err := promDuration(d.is); err != nil {
			return fmt.Errorf("%s: %w", d.key, err)
		}
	}
	return nil
}

// level is the expression of one level. Once it fires it goes on until the figure is
// within the recovery values.
func (q *promQuery) level(alert, severity string, r nagios.Range, clear *nagios.Range) string {
	raised := q.outside(r)
	if clear == nil || q.rule.Func == rule.Absence {
		return raised
	}
	held := q.outside(*clear)
	if strings.Contains(held, "\nor ") {
		held = "(\n" + promIndent(held) + "\n)"
	}
	return fmt.Sprintf("%s\nor\n(\n%s\n)", raised, promIndent(fmt.Sprintf("%s\nand ignoring (%s)\nALERTS{alertname=%q,severity=%q,alertstate=\"firing\"}",
		held, strings.Join(promReserved, ", "), alert, severity)))
}

func promIndent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

// outside holds for figures that are outside of a range.
func (q *promQuery) outside(r nagios.Range) string {
	if q.rule.Func == rule.Absence {
		return q.absence()
	}
	sides := bounds(r, q.domain)
	if q.rule.Func == rule.Share && q.rule.Short > 0 && !q.floor && len(sides) == 1 {
		long, short := q.renamed(q.share(q.rule.Window)), q.renamed(q.share(q.rule.Short))
		return promCompare(long, sides[0]) + "\nand\n" + promCompare(short, sides[0])
	}
	figure := q.figure()
	switch {
	case len(sides) == 0:
		return figure // all figures that there can be
	case r.Inside && r.Start == r.End:
		return figure + " == " + promNumber(r.Start)
	case r.Inside:
		for _, b := range sides {
			figure = promCompare(figure, b)
		}
		return figure
	}
	parts := make([]string, len(sides))
	for i, b := range sides {
		parts[i] = promCompare(figure, b)
	}
	return strings.Join(parts, "\nor ")
}

func promCompare(figure string, b bound) string {
	return figure + " " + b.op + " " + promNumber(b.value)
}

// promNumber writes digits as far as they are read easily.
func promNumber(v float64) string {
	r := nagios.Range{Start: v, End: v}
	text, _, _ := strings.Cut(strings.TrimPrefix(r.String(), "@"), ":")
	return text
}

// figure is what is judged, a vector that can be compared as it is.
func (q *promQuery) figure() string {
	r := q.rule
	var f string
	switch r.Func {
	case rule.Share:
		f = q.share(r.Window)
		if r.Short > 0 { // the lesser of the two, where there are both
			short := q.share(r.Short)
			f = fmt.Sprintf("((%[2]s < %[1]s) or (%[1]s and %[2]s))", f, short)
		}
	case rule.Change:
		now, earlier := q.aggregated(q.each(0)), q.aggregated(q.each(r.Shift))
		f = now + " - " + earlier
		if r.Ratio {
			f = fmt.Sprintf("(%s) / abs(%s)", f, earlier)
		}
	default:
		f = q.aggregated(q.each(0))
	}
	return q.renamed(f)
}

// renamed saves tags that the labels of the alert would take the place of.
func (q *promQuery) renamed(f string) string {
	for _, tag := range promReserved {
		if slices.Contains(q.shown, "exported_"+tag) {
			f = fmt.Sprintf("label_replace(%s, %q, \"$1\", %q, \"(.*)\")", f, "exported_"+tag, tag)
		}
	}
	return f
}

// aggregated makes one figure of those of the series. Of each agent apart: job and
// instance are kept.
func (q *promQuery) aggregated(each string) string {
	if q.rule.Aggregate != rule.Worst {
		return fmt.Sprintf("%s by (%s) (%s)", q.rule.Aggregate, strings.Join(q.kept(), ", "), each)
	}
	if strings.Contains(each, " and ") {
		return "(" + each + ")"
	}
	return each
}

func (q *promQuery) kept() []string {
	kept := []string{"job", "instance"}
	for _, tag := range q.rule.By {
		if label := q.label(tag); !slices.Contains(kept, label) {
			kept = append(kept, label)
		}
	}
	return kept
}

// each is the figure of each series by itself, as it was shift ago.
func (q *promQuery) each(shift time.Duration) string {
	r, of := q.rule, q.selector(q.rule.Series)
	ago := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return " offset " + model.Duration(d).String()
	}
	over := func(function string) string {
		return fmt.Sprintf("%s(%s[%s]%s)", function, of, model.Duration(r.Window), ago(shift))
	}
	switch {
	case r.Func == rule.Change && q.counter && shift > 0, r.Func == rule.Rate && q.floor:
		// The rate of a series that is younger than the window is too low.
		return over("rate") + " and " + of + ago(r.Window+shift)
	case r.Func == rule.Change && q.counter, r.Func == rule.Rate:
		return over("rate")
	case r.Func == rule.Quantile: // of half of the window or more
		return fmt.Sprintf("quantile_over_time(%s, %s[%s]) and %s%s", promNumber(r.Quantile), of, model.Duration(r.Window), of, ago(r.Window/2))
	case r.Func == rule.Staleness:
		step := min(max(r.Window/240, 15*time.Second), time.Minute).Round(time.Second)
		return fmt.Sprintf("time() - max_over_time(timestamp(%s)[%s:%s])", of, model.Duration(r.Window), model.Duration(step))
	case r.Window != 5*time.Minute:
		return over("last_over_time")
	}
	return of + ago(shift)
}

// share is the share in a window. Where the whole did not grow enough there is none.
func (q *promQuery) share(window time.Duration) string {
	sum := func(of rule.Selector) string {
		return fmt.Sprintf("sum by (%s) (increase(%s[%s]))", strings.Join(q.kept(), ", "), q.selector(of), model.Duration(window))
	}
	enough := "> 0"
	if window == q.rule.Window && q.rule.Least > 0 {
		enough = ">= " + promNumber(q.rule.Least)
	}
	part, all := sum(q.rule.Series), sum(q.rule.All)
	if q.floor { // where there is nothing to count it is 0, which is too little
		part = fmt.Sprintf("(%s or %s * 0)", part, all)
	}
	return fmt.Sprintf("%s / (%s %s)", part, all, enough)
}

// absence holds where there was no sample. Prometheus cannot know which agents should
// have the series; with a witness it can.
func (q *promQuery) absence() string {
	window := model.Duration(q.rule.Window)
	gone := fmt.Sprintf("%s[%s]", q.selector(q.rule.Series), window)
	if q.witness == "" {
		return "absent_over_time(" + gone + ")"
	}
	return fmt.Sprintf("group by (job, instance) (%[1]s)\nand group by (job, instance) (%[1]s offset %[2]s)\nunless on (%[3]s)\npresent_over_time(%[4]s)",
		q.witness, window, q.pages(), gone)
}

// present holds where there is something to judge, by the name alone.
func (q *promQuery) present() string {
	r := q.rule
	of := q.selector(rule.Selector{Source: r.Series.Source, Name: r.Series.Name})
	if level := r.Func == rule.Level || r.Func == rule.Change && !q.counter; level && r.Window == 5*time.Minute {
		return of
	}
	return fmt.Sprintf("present_over_time(%s[%s])", of, model.Duration(r.Window))
}

// pages are the labels by which a witness and the series of one agent find each other.
// Those of a neighbour are on another page, which is scraped by another job.
func (q *promQuery) pages() string {
	if q.known && q.rule.Series.Source == "" {
		return "job, instance"
	}
	return "instance"
}

// selector names series.
func (q *promQuery) selector(of rule.Selector) string {
	var matchers []string
	for _, tag := range slices.Sorted(maps.Keys(of.Tags)) {
		matchers = append(matchers, q.label(tag)+"="+strconv.Quote(of.Tags[tag]))
	}
	for _, tag := range slices.Sorted(maps.Keys(of.Except)) {
		values := make([]string, len(of.Except[tag]))
		for i, v := range of.Except[tag] {
			text, open := strings.CutSuffix(v, "*")
			if values[i] = regexp.QuoteMeta(text); open {
				values[i] += ".*"
			}
		}
		matchers = append(matchers, q.label(tag)+"!~"+strconv.Quote(strings.Join(values, "|")))
	}
	if of.Source != "" {
		matchers = append(matchers, q.source(of))
	}
	if len(matchers) == 0 {
		return of.Name
	}
	return of.Name + "{" + strings.Join(matchers, ",") + "}"
}

// ofTheAgent begin names that are on the agent's own page whatever its collectors are.
// Read-only.
var ofTheAgent = []string{"go_", "process_", "promhttp_"}

// ofCollectors begin names of ours that collectors show. Read-only.
var ofCollectors = []string{
	"outrider_host_", "outrider_cgroup_", "outrider_process_", "outrider_runtime_",
	"outrider_throughput_", "outrider_queue_", "outrider_retries_", "outrider_drops_",
}

// source matches the page of a source: a neighbour's has its name as the label
// neighbour. What a collector finds of the machine, or what is sent to it, is on the
// agent's own page, which does not have the label.
func (q *promQuery) source(of rule.Selector) string {
	begins := func(prefixes []string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(of.Name, p) })
	}
	if q.known && !begins(ofCollectors) || begins(ofTheAgent) {
		return "neighbour=" + strconv.Quote(of.Source)
	}
	return "neighbour=~" + strconv.Quote(regexp.QuoteMeta(of.Source)+"|")
}

// label is a tag as Prometheus has it: where the target has a label of that name, the
// series' own has another one.
func (q *promQuery) label(tag string) string {
	if tag == "job" || tag == "instance" || tag == "neighbour" && q.rule.Series.Source != "" {
		return "exported_" + tag
	}
	return tag
}

// summary adds who, how much and where to a rule's summary.
func (q *promQuery) summary(text string) string {
	if q.rule.Func == rule.Absence && q.witness == "" {
		return text
	}
	var b strings.Builder
	b.WriteString("{{ $labels.instance }}: " + text)
	if v := q.value(); v != "" {
		b.WriteString(": " + v)
	}
	for _, label := range q.shown {
		fmt.Fprintf(&b, "{{ with $labels.%[1]s }}, %[2]s {{ . }}{{ end }}", label, strings.TrimPrefix(label, "exported_"))
	}
	return b.String()
}

// value is a template of the figure; empty: it says nothing that the summary does not.
func (q *promQuery) value() string {
	unit := q.desc.Unit
	switch r := q.rule; {
	case r.Func == rule.Absence, slices.Contains([]string{"flag", "bool", "status"}, unit) && r.Aggregate == rule.Worst:
		return ""
	case r.Func == rule.Share, r.Func == rule.Change && r.Ratio:
		return "{{ $value | humanizePercentage }}"
	case r.Func == rule.Staleness, unit == "seconds" && !q.counter:
		return "{{ $value | humanizeDuration }}"
	case r.Func == rule.Rate, r.Func == rule.Change && q.counter:
		return strings.TrimSpace(`{{ $value | printf "%.4g" }} `+unit) + " a second"
	case unit == "ratio":
		unit = ""
	}
	return strings.TrimSpace(`{{ $value | printf "%.4g" }} ` + unit)
}
