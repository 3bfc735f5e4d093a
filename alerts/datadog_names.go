package alerts

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/metrics"
)

// datadogOptional are tags of ours that some series of a metric lack: a pipeline of which there
// is one has no target. Monitors do not see what lacks a tag that they group by, so they
// do not group by these. Read-only.
var datadogOptional = []string{"target", "unit"}

// by are the tags that a monitor groups by. whole says that these are all that tell the
// rule's series apart.
func (s datadogSeries) by() (tags []string, whole bool) {
	d, known := s.own.Find(s.rule.Series.Name)
	of := s.rule.By
	switch {
	case s.rule.Func == rule.Absence:
		of = nil
	case s.rule.Aggregate == rule.Worst:
		of, whole = d.Tags, known
	}
	tags = []string{"host", "service"}
	for _, tag := range of {
		if known && slices.Contains(datadogOptional, tag) {
			whole = false
			continue
		}
		if tag = datadogTag(tag); !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	return tags, whole
}

// space is the aggregate over the series of a group. The worst of several is the
// greatest where too much is bad.
func (s datadogSeries) space() string {
	_, whole := s.by()
	switch {
	case s.rule.Aggregate != rule.Worst:
		return string(s.rule.Aggregate)
	case whole && s.counter(s.rule.Series):
		return "sum"
	case s.up:
		return "max"
	}
	return "min"
}

// leaf is what is read of one metric.
func (s datadogSeries) leaf(of rule.Selector, space string) string {
	by, _ := s.by()
	return fmt.Sprintf("%s:%s{%s} by {%s}", space, s.name(of), datadogScope(of), strings.Join(by, ","))
}

func datadogScope(of rule.Selector) string {
	var scope []string
	if of.Source != "" {
		scope = append(scope, "service:"+datadogTag(of.Source))
	}
	for _, tag := range slices.Sorted(maps.Keys(of.Tags)) {
		scope = append(scope, datadogTag(tag)+":"+datadogTag(of.Tags[tag]))
	}
	for _, tag := range slices.Sorted(maps.Keys(of.Except)) {
		for _, v := range of.Except[tag] {
			text, open := strings.CutSuffix(v, "*")
			text = "!" + datadogTag(tag) + ":" + datadogTag(text)
			if open {
				text += "*"
			}
			scope = append(scope, text)
		}
	}
	if len(scope) == 0 {
		return "*"
	}
	return strings.Join(scope, ",")
}

// counter reports whether a selector's series are counters. Of those that the catalogue
// does not have the function tells, and else the name.
func (s datadogSeries) counter(of rule.Selector) bool {
	if d, known := s.own.Find(of.Name); known {
		return d.Type == metrics.CounterType
	}
	return s.rule.Func == rule.Rate || s.rule.Func == rule.Share || strings.HasSuffix(of.Name, "_total")
}

// name is that of a metric as the exporter datadog sends it: of a counter it ends in
// .count, but for what ends in .sum. Datadog makes other characters _.
func (s datadogSeries) name(of rule.Selector) string {
	name := strings.TrimSuffix(of.Name, "_total")
	if d, known := s.own.Find(of.Name); known && d.Datadog != "" {
		name = d.Datadog
	}
	if s.counter(of) && !strings.HasSuffix(name, ".count") && !strings.HasSuffix(name, ".sum") {
		name += ".count"
	}
	return strings.Map(func(c rune) rune {
		if c < unicode.MaxASCII && (unicode.IsLetter(c) || unicode.IsDigit(c)) || c == '_' || c == '.' {
			return c
		}
		return '_'
	}, name)
}

// datadogTag is a tag's name or value as Datadog keeps it.
func datadogTag(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsLetter(c) || unicode.IsDigit(c) || strings.ContainsRune("_-:./", c) {
			return unicode.ToLower(c)
		}
		return '_'
	}, text)
}

// datadogMinutes are whole minutes, rounded up; one at least.
func datadogMinutes(d time.Duration) int {
	return max(1, int((d+time.Minute-1)/time.Minute))
}

const datadogWeek = 7 * 24 * 60 // minutes: the longest window

func datadogWindow(key string, minutes int) (string, error) {
	switch {
	case minutes > datadogWeek:
		return "", fmt.Errorf("%s: got %s, want a week at most", key, datadogSpan(minutes))
	case minutes == datadogWeek:
		return "last_1w", nil
	case minutes == 24*60:
		return "last_1d", nil
	}
	return "last_" + datadogSpan(minutes), nil
}

func datadogSpan(minutes int) string {
	if minutes%60 == 0 {
		return strconv.Itoa(minutes/60) + "h"
	}
	return strconv.Itoa(minutes) + "m"
}

// decimal is the number that somebody wrote, so that products of it are exact too.
func decimal(v float64) *big.Rat {
	r, ok := new(big.Rat).SetString(strconv.FormatFloat(v, 'f', -1, 64))
	if !ok {
		panic(fmt.Sprintf("BUG: threshold %v", v))
	}
	return r
}

func datadogNumber(r *big.Rat) string {
	v, _ := r.Float64()
	return strconv.FormatFloat(v, 'f', -1, 64)
}
