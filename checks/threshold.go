package checks

import (
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
// it should be in.
type ThresholdConfig struct {
	rule.Spec
}

// Validate is asked when the configuration is read.
func (c *ThresholdConfig) Validate() error {
	var errs []error
	for _, e := range rule.KeyErrors(c.Spec.Validate()) {
		errs = append(errs, &config.FieldError{Key: e.Key, Got: e.Got, Want: e.Want})
	}
	return errors.Join(errs...)
}

// upTo is the range from 0 to a figure.
func upTo(v float64) *nagios.Range { return &nagios.Range{End: v} }

// Build implements [Builder].
func (c *ThresholdConfig) Build(env Env) (Checker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return newThreshold(c.Rule(env.Name), env), nil
}

func newThreshold(r rule.Rule, env Env) *threshold {
	t := &threshold{rule: r, series: env.Series, now: env.Now}
	t.state.Store(&rule.State{})
	return t
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
	in := rule.Input{Series: c.find(ctx, c.rule.Series), All: c.find(ctx, c.rule.All)}
	next, out := rule.Next(*c.state.Load(), c.rule, in, c.now())
	if err := ctx.Err(); err != nil {
		return verdict.Result{Status: verdict.Unknown, Message: fmt.Sprintf("reading %d series of %s: %v", len(in.Series)+len(in.All), c.rule.Series.Name, err)}
	}
	c.state.Store(&next)
	if len(out.Judgements) > 0 {
		return c.result(out)
	}
	return verdict.Result{Status: verdict.Unknown, Message: "no series " + subject(c.rule, nil) + c.hint()}
}

func (c *threshold) find(ctx context.Context, of rule.Selector) []rule.Samples {
	if of.Name == "" {
		return nil
	}
	found := c.series.Select(of.Source, of.Name, of.Tags)
	samples := make([]rule.Samples, 0, len(found))
	for _, s := range found {
		if !of.Excepts(s.Tags()) {
			samples = append(samples, untilDone{s, ctx})
		}
	}
	return samples
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
