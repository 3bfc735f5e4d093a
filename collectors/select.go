package collectors

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

// A PipelineSelection says which pipelines, this process's and neighbours', are
// added up, and what is kept apart.
type PipelineSelection struct {
	// Pipelines are patterns of name, name/target, or service:name/target, in
	// which * stands for any text without a slash. Empty: all.
	Pipelines []string `yaml:"pipelines"`

	// By are the tags that are kept: service, pipeline, target, unit.
	By []string `yaml:"by" default:"[service, pipeline]"`
}

// selectable are the tags by which pipelines can be kept apart, in the order in
// which they are shown. Read-only.
var selectable = []string{"service", "pipeline", "target", "unit"}

// Validate checks the patterns and the tags.
func (s *PipelineSelection) Validate() error {
	for i, pattern := range s.Pipelines {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return &config.FieldError{Key: fmt.Sprintf("pipelines[%d]", i), Got: fmt.Sprintf("%q", pattern), Want: "a pattern such as orders, watch/*, or api:orders"}
		}
	}
	for i, tag := range s.By {
		if !slices.Contains(selectable, tag) {
			return &config.FieldError{Key: fmt.Sprintf("by[%d]", i), Got: tag, Want: "one of " + strings.Join(selectable, ", ")}
		}
	}
	return nil
}

// takes reports whether a pipeline is selected.
func (s *PipelineSelection) takes(p metrics.PipelineSnapshot) bool {
	if len(s.Pipelines) == 0 {
		return true
	}
	return slices.ContainsFunc(s.Pipelines, func(pattern string) bool {
		if service, rest, ok := strings.Cut(pattern, ":"); ok {
			if matched, _ := path.Match(service, p.Service); !matched {
				return false
			}
			pattern = rest
		}
		subject := p.Name
		if strings.Contains(pattern, "/") {
			subject += "/" + p.Target
		}
		matched, _ := path.Match(pattern, subject) // the pattern has been checked
		return matched
	})
}

// tags are the names of those that are kept.
func (s *PipelineSelection) tags() []string {
	return slices.DeleteFunc(slices.Clone(selectable), func(t string) bool { return !slices.Contains(s.By, t) })
}

// values are a pipeline's values of these.
func (s *PipelineSelection) values(p metrics.PipelineSnapshot) (out []string) {
	all := map[string]string{"service": p.Service, "pipeline": p.Name, "target": p.Target, "unit": p.Unit}
	for _, tag := range s.tags() {
		out = append(out, all[tag])
	}
	return out
}

// A sum adds up values under the tags that are kept.
type sum map[string]*metrics.Point

func (s sum) add(tags []string, v float64) {
	key := strings.Join(tags, "\xff")
	if s[key] == nil {
		s[key] = &metrics.Point{Tags: tags}
	}
	s[key].Value += v
}

// family is what was added up, sorted, with each value times a factor.
func (s sum) family(d metrics.Desc, factor float64) metrics.Family {
	f := metrics.Family{Desc: d}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		f.Points = append(f.Points, metrics.Point{Tags: s[key].Tags, Value: s[key].Value * factor})
	}
	slices.SortFunc(f.Points, func(a, b metrics.Point) int { return slices.Compare(a.Tags, b.Tags) })
	return f
}

// A follower finds out how far the counters of the selected pipelines have moved
// since it was asked last.
type follower struct {
	selection PipelineSelection
	pipelines func() []metrics.PipelineSnapshot
	now       func() time.Time

	at   time.Time
	last map[[3]string]metrics.PipelineSnapshot
}

func newFollower(s PipelineSelection, env Env) *follower {
	return &follower{selection: s, pipelines: env.Pipelines, now: env.Now}
}

// moved calls each for every selected pipeline that was there the last time, and
// returns the seconds since then; 0 the first time. What began anew has moved by
// what it counted since.
func (f *follower) moved(each func(now, before metrics.PipelineSnapshot)) (seconds float64) {
	at, pipes := f.now(), f.pipelines()
	if !f.at.IsZero() {
		seconds = at.Sub(f.at).Seconds()
	}
	next := make(map[[3]string]metrics.PipelineSnapshot, len(pipes))
	for _, p := range pipes {
		if !f.selection.takes(p) {
			continue
		}
		id := [3]string{p.Service, p.Name, p.Target}
		next[id] = p
		if before, ok := f.last[id]; ok && seconds > 0 {
			each(p, before)
		}
	}
	f.at, f.last = at, next
	return max(seconds, 0)
}

// grown is how far a counter has moved.
func grown(now, before int64) float64 {
	if now < before {
		before = 0
	}
	return float64(now - before)
}

// reasons adds up how far the counters by reason have moved.
func (f *follower) reasons(s sum, tags []string, now, before map[string]int64) {
	for _, why := range slices.Sorted(maps.Keys(now)) {
		s.add(append(slices.Clone(tags), why), grown(now[why], before[why]))
	}
}

// aggregateDesc describes a series that is a sum over pipelines.
func aggregateDesc(s PipelineSelection, name, unit, help string, more ...string) metrics.Desc {
	return metrics.Desc{
		Name: "outrider_" + name, Datadog: "outrider." + strings.ReplaceAll(name, "_rate", ".rate"), Type: metrics.GaugeType,
		Unit: unit, Help: help, Tags: slices.Concat([]string{"collector"}, s.tags(), more), Budget: 1000,
	}
}

// perSecond is what to multiply with; 0 the first time.
func perSecond(seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return 1 / seconds
}
