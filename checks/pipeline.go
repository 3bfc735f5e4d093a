package checks

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

// PipelineConfig describes what pipelines have to keep to, this process's and
// neighbours'. What nobody knows of a pipeline is said, and not judged.
type PipelineConfig struct {
	// Pipelines are patterns of name, name/target, or service:name/target, in
	// which * stands for any text without a slash. Empty: all.
	Pipelines []string `yaml:"pipelines"`

	// BalanceFor is how long the books may be off, beyond what reads of several
	// moments explain, before that fails. It takes two looks at least.
	BalanceFor time.Duration `yaml:"balance_for" default:"2m"`

	Oldest PipelineOldest `yaml:"oldest"`

	// Stuck is how long something may wait while nothing comes out and the backlog
	// does not shrink, before that fails; 0: for ever.
	Stuck time.Duration `yaml:"stuck" default:"5m"`

	Drops PipelineDrops `yaml:"drops"`
}

// PipelineOldest says how long the oldest item may wait; 0: for ever.
type PipelineOldest struct {
	Warn time.Duration `yaml:"warn" default:"1m"`
	Crit time.Duration `yaml:"crit" default:"5m"`
}

// PipelineDrops says how many items may be dropped in the last Over. A Warn of "~:"
// allows all.
type PipelineDrops struct {
	Over time.Duration `yaml:"over" default:"5m"`
	Warn *nagios.Range `yaml:"warn" default:"0"`
	Crit *nagios.Range `yaml:"crit"`
}

const maxPipelineMemory = time.Hour

// Validate is asked when the configuration is read.
func (c *PipelineConfig) Validate() error {
	for i, pattern := range c.Pipelines {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return &config.FieldError{Key: fmt.Sprintf("pipelines[%d]", i), Got: fmt.Sprintf("%q", pattern), Want: "a pattern such as orders, watch/*, or api:orders"}
		}
	}
	for _, d := range []struct {
		key      string
		got      time.Duration
		min, max time.Duration
	}{
		{"balance_for", c.BalanceFor, 0, maxPipelineMemory},
		{"oldest.warn", c.Oldest.Warn, 0, 1<<63 - 1},
		{"oldest.crit", c.Oldest.Crit, 0, 1<<63 - 1},
		{"stuck", c.Stuck, 0, maxPipelineMemory},
		{"drops.over", c.Drops.Over, time.Second, maxPipelineMemory},
	} {
		switch {
		case d.got >= d.min && d.got <= d.max:
		case d.max > maxPipelineMemory:
			return &config.FieldError{Key: d.key, Got: d.got.String(), Want: "0s or more"}
		default:
			return &config.FieldError{Key: d.key, Got: d.got.String(), Want: brief(d.min) + " to " + brief(d.max)}
		}
	}
	if c.Oldest.Crit > 0 && c.Oldest.Warn > c.Oldest.Crit {
		return &config.FieldError{Key: "oldest.warn", Got: c.Oldest.Warn.String(), Want: "at most crit, which is " + brief(c.Oldest.Crit)}
	}
	return nil
}

// Build implements [Builder].
func (c *PipelineConfig) Build(env Env) (Checker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &pipelineCheck{config: *c, pipelines: env.Pipelines, now: env.Now, seen: map[pipelineID]*watched{}}, nil
}

type pipelineID struct{ service, name, target string }

func idOf(p metrics.PipelineSnapshot) pipelineID { return pipelineID{p.Service, p.Name, p.Target} }

// String writes an identity as patterns do.
func (id pipelineID) String() string {
	s := id.name
	if id.service != "" {
		s = id.service + ":" + s
	}
	if id.target != "" {
		s += "/" + id.target
	}
	return s
}

type pipelineCheck struct {
	config    PipelineConfig
	pipelines func() []metrics.PipelineSnapshot
	now       func() time.Time
	seen      map[pipelineID]*watched // those of the last look
}

// Check implements [Checker].
func (c *pipelineCheck) Check(context.Context) verdict.Result {
	now := c.now()
	var all []metrics.PipelineSnapshot
	if c.pipelines != nil {
		all = c.pipelines()
	}
	selected := slices.DeleteFunc(slices.Clone(all), func(p metrics.PipelineSnapshot) bool { return !c.takes(p) })
	before := c.seen
	c.seen = make(map[pipelineID]*watched, len(selected))
	var found []finding
	for _, p := range selected {
		w := before[idOf(p)]
		if w == nil {
			w = &watched{}
		}
		c.seen[idOf(p)] = w
		w.look(p, now, c.config)
		found = append(found, c.judge(w, p, now))
	}
	if len(selected) == 0 {
		return verdict.Result{Status: verdict.Unknown, Message: c.nothing(all)}
	}
	return c.result(found)
}

func (c *pipelineCheck) nothing(all []metrics.PipelineSnapshot) string {
	if len(all) == 0 {
		return "there are no pipelines"
	}
	const some = 10
	var have []string
	for _, p := range all[:min(len(all), some)] {
		have = append(have, idOf(p).String())
	}
	if len(all) > some {
		have = append(have, fmt.Sprintf("%d more", len(all)-some))
	}
	return "no pipeline is " + strings.Join(c.config.Pipelines, " or ") + "; there are " + strings.Join(have, ", ")
}

// othersIll says how many others are not well.
func othersIll(n, of int) string {
	switch {
	case n <= 0:
		return ""
	case n == 1:
		return fmt.Sprintf("; 1 other of %d is not well", of)
	}
	return fmt.Sprintf("; %d others of %d are not well", n, of)
}

// takes reports whether a pipeline is selected.
func (c *pipelineCheck) takes(p metrics.PipelineSnapshot) bool {
	matches := func(pattern, s string) bool {
		ok, _ := path.Match(pattern, s) // the pattern has been checked
		return ok
	}
	return len(c.config.Pipelines) == 0 || slices.ContainsFunc(c.config.Pipelines, func(pattern string) bool {
		if service, rest, ok := strings.Cut(pattern, ":"); ok {
			if !matches(service, p.Service) {
				return false
			}
			pattern = rest
		}
		if strings.Contains(pattern, "/") {
			return matches(pattern, p.Name+"/"+p.Target)
		}
		return matches(pattern, p.Name)
	})
}

// result makes one result: the worst pipeline, and how many others are not well.
func (c *pipelineCheck) result(found []finding) verdict.Result {
	worst, ill := found[0], 0
	var queued, drops, oldest float64
	var unknown []string
	for _, f := range found {
		if verdict.Compare(f.status, worst.status) > 0 {
			worst = f
		}
		if f.status != verdict.Pass {
			ill++
		}
		queued, drops, oldest = queued+f.queued, drops+f.drops, max(oldest, f.oldest)
		if f.unknown != "" {
			unknown = append(unknown, f.id.String()+" "+f.unknown)
		}
	}
	value := float64(ill)
	r := verdict.Result{Status: worst.status, Value: &value, Unit: "pipelines"}
	switch {
	case ill == 0 && len(found) == 1:
		r.Message = fmt.Sprintf("%s is well, %.0f wait", worst.id, queued)
	case ill == 0:
		r.Message = fmt.Sprintf("%d pipelines are well, %.0f items wait", len(found), queued)
	default:
		r.Message = worst.id.String() + ": " + worst.message
	}
	r.Message += othersIll(ill-1, len(found))
	if len(unknown) > 0 {
		const some = 3
		more := ""
		if len(unknown) > some {
			more = fmt.Sprintf(" and of %d more", len(unknown)-some)
		}
		r.Message += "; not known: " + strings.Join(unknown[:min(len(unknown), some)], ", ") + more
	}
	age := verdict.Measure{Label: "oldest", Value: oldest, Unit: "s"}
	if d := c.config.Oldest.Warn; d > 0 {
		age.Warn = upTo(d.Seconds()).String()
	}
	if d := c.config.Oldest.Crit; d > 0 {
		age.Crit = upTo(d.Seconds()).String()
	}
	lost := verdict.Measure{Label: "drops", Value: drops}
	if len(found) == 1 { // the limits are those of one
		for to, limit := range map[*string]*nagios.Range{&lost.Warn: c.config.Drops.Warn, &lost.Crit: c.config.Drops.Crit} {
			if limit != nil {
				*to = limit.String()
			}
		}
	}
	r.Measures = []verdict.Measure{{Label: "queued", Value: queued}, age, lost}
	return r
}
