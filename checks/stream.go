package checks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// StreamConfig describes how fresh the watches of state sync have to be. It reads
// their series, so that a neighbour's can be checked too.
type StreamConfig struct {
	Streams []string `yaml:"streams"` // patterns of names, such as pods or *; empty: all
	Source  string   `yaml:"source"`  // a neighbour's name; empty: all, this process's included

	// Warn and Crit are how long ago the last event or bookmark may be. A server
	// sends a bookmark about once a minute.
	Warn time.Duration `yaml:"warn" default:"90s"`
	Crit time.Duration `yaml:"crit" default:"150s"`

	// GapsFor is how long a gap is told of: an interval of which nobody can say what
	// happened; at most an hour, as the series.
	GapsFor time.Duration `yaml:"gaps_for" default:"1h"`
}

// The series of a stream.
const (
	streamObjects = "outrider_stream_objects" // there from the beginning
	streamAge     = "outrider_stream_seen_age_seconds"
	streamHeld    = "outrider_stream_held"
	streamGaps    = "outrider_stream_gaps_total"
)

// streamLookBack is how old a sample of a stream may be.
const streamLookBack = time.Minute

// Validate is asked when the configuration is read.
func (c *StreamConfig) Validate() error {
	var errs []error
	for i, pattern := range c.Streams {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			errs = append(errs, &config.FieldError{Key: fmt.Sprintf("streams[%d]", i), Got: fmt.Sprintf("%q", pattern), Want: "a pattern such as pods or *"})
		}
	}
	if c.Crit <= 0 {
		errs = append(errs, &config.FieldError{Key: "crit", Got: c.Crit.String(), Want: "a time such as 150s"})
	}
	if c.Warn <= 0 || c.Warn > c.Crit {
		errs = append(errs, &config.FieldError{Key: "warn", Got: c.Warn.String(), Want: "more than 0s, and at most crit, which is " + brief(c.Crit)})
	}
	if c.GapsFor < 0 || c.GapsFor > time.Hour {
		errs = append(errs, &config.FieldError{Key: "gaps_for", Got: c.GapsFor.String(), Want: "0s to 1h"})
	}
	return errors.Join(errs...)
}

// Build implements [Builder].
func (c *StreamConfig) Build(env Env) (Checker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &streamCheck{config: *c, series: env.Series, now: env.Now}, nil
}

type streamCheck struct {
	config StreamConfig
	series Series
	now    func() time.Time

	awaited map[string]time.Time // since when a stream that read nothing yet is
}

// Check implements [Checker].
func (c *streamCheck) Check(context.Context) verdict.Result {
	if c.series == nil {
		return verdict.Result{Status: verdict.Unknown, Message: "no series are kept here: streams cannot be judged"}
	}
	now := c.now()
	names := c.names(now)
	if len(names) == 0 {
		what := "stream"
		if len(c.config.Streams) > 0 {
			what += " " + strings.Join(c.config.Streams, " or ")
		}
		return verdict.Result{Status: verdict.Unknown, Message: "no " + what + " is known of in the last minute"}
	}
	awaited := c.awaited
	c.awaited = map[string]time.Time{}
	var worst verdict.Result
	var oldest float64
	ill := 0
	r := verdict.Result{Status: verdict.Pass, Unit: "seconds"}
	for i, name := range names {
		s := c.stream(name, now, awaited[name])
		if i == 0 || verdict.Compare(s.Status, worst.Status) > 0 {
			worst = s
		}
		if s.Status != verdict.Pass {
			ill++
		}
		if s.Value == nil {
			continue
		}
		oldest = max(oldest, *s.Value)
		if len(r.Measures) < verdict.MaxMeasures {
			r.Measures = append(r.Measures, verdict.Measure{
				Label: name, Value: *s.Value, Unit: "s", Warn: upTo(c.config.Warn.Seconds()).String(), Crit: upTo(c.config.Crit.Seconds()).String(),
			})
		}
	}
	r.Status, r.Message = worst.Status, worst.Message
	if len(r.Measures) > 0 {
		r.Value = &oldest
	}
	if ill == 0 && len(names) > 1 {
		r.Message = fmt.Sprintf("%d streams, the least fresh heard something %s ago", len(names), seconds(oldest))
	}
	r.Message += othersIll(ill-1, len(names))
	return r
}

// names are the streams that there are, sorted.
func (c *streamCheck) names(now time.Time) []string {
	var names []string
	for _, s := range c.series.Select(c.config.Source, streamObjects, nil) {
		if _, _, ok := newest(s, now, streamLookBack); ok && c.takes(s.Tags()["stream"]) {
			names = append(names, s.Tags()["stream"])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (c *streamCheck) takes(name string) bool {
	return len(c.config.Streams) == 0 || slices.ContainsFunc(c.config.Streams, func(pattern string) bool {
		ok, _ := path.Match(pattern, name) // the pattern has been checked
		return ok
	})
}

// stream judges one. Of several sources' streams of a name it is the least fresh.
func (c *streamCheck) stream(name string, now, awaited time.Time) verdict.Result {
	of := map[string]string{"stream": name}
	age := math.NaN()
	for _, s := range c.series.Select(c.config.Source, streamAge, of) {
		if at, v, ok := newest(s, now, streamLookBack); ok {
			if v += now.Sub(at).Seconds(); !(age >= v) {
				age = v
			}
		}
	}
	if math.IsNaN(age) {
		if awaited.IsZero() || awaited.After(now) {
			awaited = now
		}
		c.awaited[name] = awaited
		r := verdict.Result{Status: verdict.Unknown, Message: "stream " + name + " has read nothing yet"}
		if waited := now.Sub(awaited); waited > c.config.Crit {
			r.Status = verdict.Fail
			r.Message += fmt.Sprintf(", awaited for %s, want an event or bookmark in %s", brief(waited.Round(time.Second)), brief(c.config.Crit))
		}
		return r
	}
	r := verdict.Result{Status: verdict.Pass, Value: &age, Message: "stream " + name + " heard something " + seconds(age) + " ago"}
	late := func(want time.Duration) string {
		return fmt.Sprintf("stream %s heard no event or bookmark for %s, want one in %s", name, seconds(age), brief(want))
	}
	switch {
	case c.isHeld(of, now):
		r.Message = "stream " + name + " is held: what it read waits to be recorded"
	case age > c.config.Crit.Seconds():
		r.Status, r.Message = verdict.Fail, late(c.config.Crit)
	case age > c.config.Warn.Seconds():
		r.Status, r.Message = verdict.Warn, late(c.config.Warn)
	default:
		if n := c.gaps(of, now); n > 0 {
			r.Status, r.Message = verdict.Warn, fmt.Sprintf("stream %s has %s in the last %s: nobody can say what happened then", name, gapWord(n), brief(c.config.GapsFor))
		}
	}
	return r
}

func gapWord(n float64) string {
	if n == 1 {
		return "a gap"
	}
	return fmt.Sprintf("%.0f gaps", n)
}

func (c *streamCheck) isHeld(of map[string]string, now time.Time) bool {
	return slices.ContainsFunc(c.series.Select(c.config.Source, streamHeld, of), func(s Samples) bool {
		_, v, ok := newest(s, now, streamLookBack)
		return ok && v > 0
	})
}

// gaps is how many there were in the time they are told of.
func (c *streamCheck) gaps(of map[string]string, now time.Time) (n float64) {
	for _, s := range c.series.Select(c.config.Source, streamGaps, of) {
		last := math.NaN()
		for _, v := range s.Range(now.Add(-c.config.GapsFor), now) {
			if v > last {
				n += v - last
			}
			if !math.IsNaN(v) {
				last = v
			}
		}
	}
	return n
}

// newest is the newest sample of a series, if it is there and no older than that.
func newest(s Samples, now time.Time, lookBack time.Duration) (at time.Time, v float64, ok bool) {
	v = math.NaN()
	for at, v = range s.Range(now.Add(-lookBack), now) {
		ok = true
	}
	return at, v, ok && !math.IsNaN(v)
}

// seconds writes a number of seconds as a duration.
func seconds(v float64) string {
	return brief(time.Duration(v * float64(time.Second)).Round(time.Second))
}
