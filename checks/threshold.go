package checks

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// ThresholdConfig describes a figure of series in the last hour, and the ranges that
// it should be in. Exactly one of the functions says how the figure is made: Level,
// which is the default, to Change. What they mean in full, and what the ranges, For
// and KeepFor do, package rule says.
type ThresholdConfig struct {
	Series string            `yaml:"series" required:"true"` // a name
	Source string            `yaml:"source"`                 // a neighbour's or a collector's name; empty: all
	Match  map[string]string `yaml:"match"`                  // tags that the series have; they may have others

	Level     time.Duration      `yaml:"level"`     // the newest sample, at most this old; default 5m
	Rate      time.Duration      `yaml:"rate"`      // how fast a counter grew in this window, a second
	Quantile  *ThresholdQuantile `yaml:"quantile"`  // of the samples of a window
	Absence   time.Duration      `yaml:"absence"`   // fails when there was no sample for this long
	Staleness time.Duration      `yaml:"staleness"` // fails when the newest sample is older
	Change    *ThresholdChange   `yaml:"change"`    // against earlier

	// Aggregate is sum, min, max, avg, or worst, which judges each series by itself.
	// Default: sum of rates and changes, max of stalenesses, worst of all others. By
	// keeps apart by tags what is aggregated.
	Aggregate rule.Aggregate `yaml:"aggregate"`
	By        []string       `yaml:"by"`

	Warn      *nagios.Range `yaml:"warn"`
	Crit      *nagios.Range `yaml:"crit"`
	WarnClear *nagios.Range `yaml:"warn_clear"` // recovered only within this
	CritClear *nagios.Range `yaml:"crit_clear"`

	For     time.Duration `yaml:"for"`      // outside for this long before it counts
	KeepFor time.Duration `yaml:"keep_for"` // counts this much longer
}

// ThresholdQuantile is a quantile of the samples of a window.
type ThresholdQuantile struct {
	Q      float64       `yaml:"q" required:"true"` // 0 to 1
	Window time.Duration `yaml:"window" default:"5m"`
}

// ThresholdChange is how much more it is than it was.
type ThresholdChange struct {
	Shift  time.Duration `yaml:"shift" required:"true"` // how much earlier
	Window time.Duration `yaml:"window" default:"5m"`   // of a counter's rates; how old a level may be
	Ratio  bool          `yaml:"ratio"`                 // as a part of what it was: -0.5 is half as much
}

const maxThresholdReach = 24 * time.Hour // the most that is ever kept

// Validate is asked when the configuration is read.
func (c *ThresholdConfig) Validate() error {
	given := c.functions()
	if len(given) > 1 {
		return &config.FieldError{Key: given[1], Got: given[0] + " and " + given[1], Want: "one of level, rate, quantile, absence, staleness and change"}
	}
	var errs []error
	fixed := c.Absence != 0 || c.Staleness != 0
	for key, r := range map[string]*nagios.Range{"warn": c.Warn, "crit": c.Crit, "warn_clear": c.WarnClear, "crit_clear": c.CritClear} {
		if r != nil && fixed {
			errs = append(errs, &config.FieldError{Key: key, Got: r.String(), Want: "no range with " + given[0] + ", which is the limit itself"})
		}
	}
	if c.Absence != 0 && (c.Aggregate != "" || len(c.By) > 0) {
		errs = append(errs, &config.FieldError{Key: "absence", Got: "aggregate or by", Want: "neither: all series together are absent"})
	}
	r := c.rule("")
	if err := r.Validate(); err != nil {
		errs = append(errs, c.inPlace(err)...)
	}
	if reach := r.Reach(); reach > maxThresholdReach {
		errs = append(errs, &config.FieldError{Key: cmp.Or(append(given, "level")...), Got: reach.String() + " in all", Want: "24h at most, as the history"})
	}
	return errors.Join(errs...)
}

// functions are the keys of those that are given.
func (c *ThresholdConfig) functions() (given []string) {
	for _, f := range []struct {
		key   string
		given bool
	}{
		{"level", c.Level != 0},
		{"rate", c.Rate != 0},
		{"quantile", c.Quantile != nil},
		{"absence", c.Absence != 0},
		{"staleness", c.Staleness != 0},
		{"change", c.Change != nil},
	} {
		if f.given {
			given = append(given, f.key)
		}
	}
	return given
}

// inPlace puts a rule's errors at the keys of the configuration.
func (c *ThresholdConfig) inPlace(err error) (out []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	for _, err := range joined.Unwrap() {
		var e *rule.KeyError
		if !errors.As(err, &e) {
			out = append(out, err)
			continue
		}
		f := &config.FieldError{Key: e.Key, Got: e.Got, Want: e.Want}
		switch given := c.functions(); {
		case f.Key == "quantile":
			f.Key = "quantile.q"
		case f.Key == "shift":
			f.Key = "change.shift"
		case f.Key == "window" && (c.Quantile != nil || c.Change != nil):
			f.Key = given[0] + ".window"
		case f.Key == "window" && len(given) == 1:
			f.Key = given[0]
		case f.Key == "warn and crit":
			f.Key = ""
			f.Got = "neither warn nor crit"
		}
		out = append(out, f)
	}
	return out
}

// rule is what the configuration means.
func (c *ThresholdConfig) rule(name string) rule.Rule {
	r := rule.Rule{
		Name: name, Series: rule.Selector{Source: c.Source, Name: c.Series, Tags: c.Match}, Aggregate: c.Aggregate, By: c.By,
		Warn: c.Warn, Crit: c.Crit, WarnClear: c.WarnClear, CritClear: c.CritClear, For: c.For, KeepFor: c.KeepFor,
	}
	switch {
	case c.Rate != 0:
		r.Func, r.Window = rule.Rate, c.Rate
	case c.Quantile != nil:
		r.Func, r.Window, r.Quantile = rule.Quantile, c.Quantile.Window, c.Quantile.Q
	case c.Absence != 0:
		r.Func, r.Window = rule.Absence, c.Absence
		r.Crit = new(nagios.Range) // 0
	case c.Staleness != 0:
		r.Func, r.Window = rule.Staleness, max(time.Hour, 2*c.Staleness)
		r.Crit = upTo(c.Staleness.Seconds())
	case c.Change != nil:
		r.Func, r.Window, r.Shift, r.Ratio = rule.Change, c.Change.Window, c.Change.Shift, c.Change.Ratio
	default:
		r.Func, r.Window = rule.Level, c.Level
	}
	return r.WithDefaults()
}

// upTo is the range from 0 to a figure.
func upTo(v float64) *nagios.Range { return &nagios.Range{End: v} }

// Build implements [Builder].
func (c *ThresholdConfig) Build(env Env) (Checker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	t := &threshold{rule: c.rule(env.Name), series: env.Series, now: env.Now}
	t.state.Store(&rule.State{})
	return t, nil
}

// A threshold runs a rule live.
type threshold struct {
	rule   rule.Rule
	series Series
	now    func() time.Time
	state  atomic.Pointer[rule.State] // Snapshot may come while it checks
}

// Check implements [Checker].
func (c *threshold) Check(ctx context.Context) verdict.Result {
	if c.series == nil {
		return verdict.Result{Status: verdict.Unknown, Message: "no series are kept here: " + subject(c.rule, nil) + " cannot be judged"}
	}
	found := c.series.Select(c.rule.Series.Source, c.rule.Series.Name, c.rule.Series.Tags)
	samples := make([]rule.Samples, len(found))
	for i, s := range found {
		samples[i] = untilDone{s, ctx}
	}
	next, out := rule.Next(*c.state.Load(), c.rule, samples, c.now())
	if err := ctx.Err(); err != nil {
		return verdict.Result{Status: verdict.Unknown, Message: fmt.Sprintf("reading %d series of %s: %v", len(found), c.rule.Series.Name, err)}
	}
	c.state.Store(&next)
	if len(found) == 0 && len(out.Judgements) == 0 {
		return verdict.Result{Status: verdict.Unknown, Message: "no series " + subject(c.rule, nil) + c.hint()}
	}
	return c.result(out)
}

// untilDone are samples that end when nobody waits any more. The figure that was
// made of them is then not used.
type untilDone struct {
	Samples
	ctx context.Context
}

// Range implements [rule.Samples].
func (s untilDone) Range(from, to time.Time) iter.Seq2[time.Time, float64] {
	if s.ctx.Err() != nil {
		return func(func(time.Time, float64) bool) {}
	}
	return s.Samples.Range(from, to)
}

// hint says what somebody may have meant who named a series that is not there.
func (c *threshold) hint() string {
	name := c.rule.Series.Name
	has := func(more string) bool { return len(c.series.Select(c.rule.Series.Source, name+more, nil)) > 0 }
	switch {
	case has(""):
		return ", though there are some of that name"
	case has("_p99") && has("_count"):
		return fmt.Sprintf("; it is a histogram, kept as %s_count, _sum, _p50, _p95, _p99 and _max", name)
	case has("_total"):
		return "; there is " + name + "_total"
	case c.rule.Series.Source != "" && len(c.series.Select("", name, c.rule.Series.Tags)) > 0:
		return "; others have it"
	}
	return ""
}

// result makes one result of all judgements: the worst of them, and how many
// others are no better.
func (c *threshold) result(out rule.Outcome) verdict.Result {
	worst, _ := out.Worst(c.rule) // there is one
	r := verdict.Result{Status: worst.Status, Message: sentence(c.rule, worst, c.now())}
	if worst.Known() {
		r.Value, r.Unit = &worst.Value, unitOf(c.rule).name
	}
	others, notKnown := 0, 0 // others: the worst one included
	for _, j := range out.Judgements {
		if j.Known() && len(r.Measures) < verdict.MaxMeasures {
			r.Measures = append(r.Measures, measureOf(c.rule, j))
		}
		if j.Status == worst.Status && (worst.Status == verdict.Warn || worst.Status == verdict.Fail) {
			others++
		}
		if !j.Known() {
			notKnown++
		}
	}
	switch {
	case others == 2:
		r.Message += "; so is 1 other"
	case others > 2:
		r.Message += fmt.Sprintf("; so are %d others", others-1)
	}
	if notKnown > 0 && worst.Known() {
		r.Message += fmt.Sprintf("; %d of %d not known", notKnown, len(out.Judgements))
	}
	return r
}

// Snapshot is what the check must remember over a restart: since when figures are
// outside.
func (c *threshold) Snapshot() ([]byte, error) { return json.Marshal(c.state.Load()) }

// Restore takes a snapshot back.
func (c *threshold) Restore(snapshot []byte) error {
	var s rule.State
	if err := json.Unmarshal(snapshot, &s); err != nil {
		return fmt.Errorf("restore threshold %s: %w", c.rule.Name, err)
	}
	c.state.Store(&s)
	return nil
}

// sortedTags writes tags as name=value, sorted.
func sortedTags(tags map[string]string) (out []string) {
	for name, value := range tags {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}
