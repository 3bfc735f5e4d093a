// Package rule is the vocabulary of alerts: what a rule is, and the pure evaluator that turns samples into episodes.
//
// The words mean what they mean to users of Prometheus; where that is not possible,
// the comment of the word says so. Nothing here reads a clock.
package rule

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/checks/nagios"
)

// A Func says what is computed from the samples of one series.
type Func string

// The functions. All windows end now, and both of their ends belong to them.
const (
	// Level is the newest sample, if it is no older than Window; default 5 minutes,
	// as far as Prometheus looks back.
	Level Func = "level"

	// Rate is how fast a counter grew, in units a second: what came from the first
	// sample of the window to its last one, by the time between these two. A counter
	// that falls has begun anew at 0. Prometheus' rate extends the two samples to the
	// ends of the window: with samples all over it the two are the same, and for a
	// series that begins or ends within it Prometheus' figure is lower.
	Rate Func = "rate"

	// Quantile is the Quantile of the samples of the window, interpolated between the
	// two nearest ones, as Prometheus' quantile_over_time.
	Quantile Func = "quantile"

	// Absence is 1 if no series had a sample in the window, 0 if one had.
	Absence Func = "absence"

	// Staleness is the age of the newest sample in seconds. A series without a
	// sample in Window, by default an hour, is not known any more.
	Staleness Func = "staleness"

	// Change is how much more it is than it was, Shift earlier: now - earlier, or,
	// with Ratio, (now - earlier) / |earlier|, so that -0.5 is half as much. Of a
	// counter the rates over Window are compared, of all others the levels.
	Change Func = "change"

	// Share is which part of what All counts Series counts too: how much the one grew
	// in the window, by how much the other did. Where Short is given it is the lesser
	// of the shares in both windows: what is over, the short one does not know any
	// more. It is not known where All grew by less than Least, or not at all. Of no
	// series to count it is 0, where there are some of All.
	Share Func = "share"
)

// An Aggregate says how the figures of several series become one.
type Aggregate string

// The aggregates.
const (
	Sum Aggregate = "sum"
	Min Aggregate = "min"
	Max Aggregate = "max"
	Avg Aggregate = "avg"

	// Worst judges each series by itself, as a Prometheus rule without an
	// aggregation does.
	Worst Aggregate = "worst"
)

// A Selector names series: those of a name that have these tags, and none of the
// values of Except, of which a * at the end stands for any text; they may have other
// tags. Source is a neighbour's or a collector's
// name; empty: all.
type Selector struct {
	Source, Name string
	Tags         map[string]string
	Except       map[string][]string
}

// empty is the key of a value that is none.
func (s Selector) empty() string {
	for _, v := range s.Tags {
		if v == "" {
			return "match"
		}
	}
	for _, values := range s.Except {
		if len(values) == 0 || slices.Contains(values, "") {
			return "except"
		}
	}
	return ""
}

// Excepts reports whether a tag of a series has a value that is left out.
func (s Selector) Excepts(tags map[string]string) bool {
	for tag, patterns := range s.Except {
		if v, ok := tags[tag]; ok && slices.ContainsFunc(patterns, func(p string) bool { return fits(p, v) }) {
			return true
		}
	}
	return false
}

// fits reports whether a value is that of a pattern, in which * at the end is any text.
func fits(pattern, v string) bool {
	prefix, open := strings.CutSuffix(pattern, "*")
	return pattern == v || open && strings.HasPrefix(v, prefix)
}

// A Rule says when series are not well. A nil range never alerts.
type Rule struct {
	Name   string
	Series Selector

	Func     Func // empty: Level
	Window   time.Duration
	Quantile float64       // 0 to 1
	Shift    time.Duration // of Change
	Ratio    bool          // of Change
	All      Selector      // of Share
	Short    time.Duration // of Share: a second, shorter window; 0: none
	Least    float64       // of Share

	// Aggregate is by default Sum for Rate and Change, Max for Staleness, and Worst
	// for the others. By are the tags that are kept: there is a figure for each
	// combination of their values. Neither counts for Absence, and By not for Worst,
	// which keeps all tags. A Share is always one of sums.
	Aggregate Aggregate
	By        []string

	// A figure outside of Crit fails, one outside of Warn warns.
	Warn, Crit *nagios.Range

	// WarnClear and CritClear say when it is over: only once the figure is within
	// them. Between them and the alert a figure keeps the level that it has.
	WarnClear, CritClear *nagios.Range

	// For is how long the figure must be outside at every evaluation before it
	// counts: from the first one that found it there; one that does not begins anew.
	// KeepFor is how long it counts after the last one.
	For, KeepFor time.Duration
}

const (
	defaultLevelWindow = 5 * time.Minute
	defaultStaleWindow = time.Hour
)

// WithDefaults fills in what is not said.
func (r Rule) WithDefaults() Rule {
	if r.Func == "" {
		r.Func = Level
	}
	switch {
	case r.Window != 0:
	case r.Func == Level || r.Func == Change:
		r.Window = defaultLevelWindow
	case r.Func == Staleness:
		r.Window = defaultStaleWindow
	}
	switch {
	case r.Aggregate != "":
	case r.Func == Rate || r.Func == Change || r.Func == Share:
		r.Aggregate = Sum
	case r.Func == Staleness:
		r.Aggregate = Max
	default:
		r.Aggregate = Worst
	}
	return r
}

// Reach is how far back samples are needed.
func (r Rule) Reach() time.Duration {
	r = r.WithDefaults()
	if r.Func == Change {
		return r.Window + r.Shift
	}
	return r.Window
}

// A KeyError says what is wrong with one key of a rule.
type KeyError struct {
	Rule           string // its name
	Key, Got, Want string
}

// Error implements error.
func (e *KeyError) Error() string {
	return fmt.Sprintf("rule %s: %s: got %s, want %s", e.Rule, e.Key, e.Got, e.Want)
}

// Validate says what no evaluator could do: all of it, a joined [KeyError] each.
func (r Rule) Validate() error {
	var errs []error
	wrong := func(key string, got any, want string) {
		errs = append(errs, &KeyError{r.Name, key, fmt.Sprint(got), want})
	}
	r = r.WithDefaults()
	if r.Series.Name == "" {
		wrong("series", "nothing", "the name of a series")
	}
	if !slices.Contains([]Func{Level, Rate, Quantile, Absence, Staleness, Change, Share}, r.Func) {
		wrong("func", r.Func, "level, rate, quantile, absence, staleness, change or share")
	}
	if !slices.Contains([]Aggregate{Sum, Min, Max, Avg, Worst}, r.Aggregate) {
		wrong("aggregate", r.Aggregate, "sum, min, max, avg or worst")
	}
	if r.Window <= 0 {
		wrong("window", r.Window, "more than 0")
	}
	for _, s := range []Selector{r.Series, r.All} {
		if why := s.empty(); why != "" {
			wrong(why, "an empty value", "text: a tag without a value is none")
		}
	}
	if r.Func == Quantile && !(r.Quantile >= 0 && r.Quantile <= 1) {
		wrong("quantile", r.Quantile, "0 to 1")
	}
	if r.Func == Change && r.Shift <= 0 {
		wrong("shift", r.Shift, "more than 0")
	}
	if r.Func == Share {
		r.wrongShare(wrong)
	}
	for key, d := range map[string]time.Duration{"for": r.For, "keep_for": r.KeepFor} {
		if d < 0 {
			wrong(key, d, "0 or more")
		}
	}
	if r.Warn == nil && r.Crit == nil {
		wrong("warn and crit", "nothing", "a range for one of them")
	}
	for _, l := range []struct {
		name         string
		alert, clear *nagios.Range
	}{{"warn", r.Warn, r.WarnClear}, {"crit", r.Crit, r.CritClear}} {
		switch {
		case l.clear == nil:
		case l.alert == nil:
			wrong(l.name+"_clear", l.clear, "none without "+l.name)
		case !within(*l.clear, *l.alert):
			wrong(l.name+"_clear", l.clear, "a range within "+l.name+", which is "+l.alert.String())
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func (r Rule) wrongShare(wrong func(key string, got any, want string)) {
	if r.All.Name == "" {
		wrong("all", "nothing", "the name of a series")
	}
	if r.Short < 0 || r.Short >= r.Window {
		wrong("short", r.Short, "less than window, which is "+r.Window.String())
	}
	if !(r.Least >= 0) {
		wrong("least", r.Least, "0 or more")
	}
	if r.Aggregate != Sum {
		wrong("aggregate", r.Aggregate, "sum: a share is one of sums")
	}
	for _, l := range []*nagios.Range{r.Warn, r.Crit} {
		if r.Short > 0 && l != nil && (l.Inside || l.Start > 0) {
			wrong("short", r.Short, "no second window with a range that has a lower end: the lesser share counts")
			break
		}
	}
}

// within reports whether a figure that is fine by the inner range is fine by the
// outer one too.
func within(inner, outer nagios.Range) bool {
	switch {
	case inner.Inside && outer.Inside:
		return inner.Start <= outer.Start && inner.End >= outer.End
	case inner.Inside:
		return math.IsInf(outer.Start, -1) && math.IsInf(outer.End, 1)
	case outer.Inside:
		return inner.End < outer.Start || inner.Start > outer.End
	}
	return inner.Start >= outer.Start && inner.End <= outer.End
}

// excess is how far into trouble a figure is; negative: it is fine.
func excess(r *nagios.Range, v float64) float64 {
	if r == nil {
		return math.Inf(-1)
	}
	switch {
	case r.Inside:
		return min(v-r.Start, r.End-v)
	case r.Start == 0 && v >= 0:
		return v - r.End // what cannot be negative is not near to it at 0
	}
	return max(r.Start-v, v-r.End)
}
