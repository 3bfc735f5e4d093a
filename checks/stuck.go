package checks

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/statesync"
)

// StuckConfig describes workloads that must not stay in a state for too long: longer
// than Than or, without it, Factor times as long as 99 % of those of their kind that
// went on from that state. That is learnt from what the check sees, and judged once
// 20 were seen; less than a minute is never too long.
type StuckConfig struct {
	Kinds      []string          `yaml:"kinds"`      // empty: all
	Namespaces []string          `yaml:"namespaces"` // empty: all
	Match      map[string]string `yaml:"match"`      // labels that the workloads have

	States []statesync.State `yaml:"states" default:"[Queued, Running]"`
	Than   time.Duration     `yaml:"than"`
	Factor float64           `yaml:"factor" default:"3"`

	// Workflow is the key of a label that all members of a workflow have. Then one
	// stuck member is named of each workflow: the one that holds up the others.
	Workflow string `yaml:"workflow"`
}

const (
	leastUsual   = time.Minute // Kubernetes' times are whole seconds: less says nothing
	learntEnough = 20
	maxNamed     = 5
)

// Validate is asked when the configuration is read.
func (c *StuckConfig) Validate() error {
	var errs []error
	for i, s := range c.States {
		if s != statesync.Queued && s != statesync.Running {
			errs = append(errs, &config.FieldError{Key: fmt.Sprintf("states[%d]", i), Got: string(s), Want: "Queued or Running: nothing leaves the others"})
		}
	}
	if len(c.States) == 0 {
		errs = append(errs, &config.FieldError{Key: "states", Got: "none", Want: "Queued, Running or both"})
	}
	if c.Than < 0 {
		errs = append(errs, &config.FieldError{Key: "than", Got: c.Than.String(), Want: "a time such as 2h, or none"})
	}
	if c.Factor < 1 || c.Factor > 1000 {
		errs = append(errs, &config.FieldError{Key: "factor", Got: fmt.Sprint(c.Factor), Want: "1 to 1000"})
	}
	return errors.Join(errs...)
}

// A Workload is one that is known now, and how long it has been what it is. One that
// has come to its end is shown at least once more.
type Workload struct {
	Kind, Namespace, Name, UID string

	State  statesync.State
	Since  time.Time // when it came to be in that state
	Labels map[string]string
}

// Workloads shows all workloads.
type Workloads interface {
	// Each calls a function for each of them, which does little and keeps no labels.
	// What it could not read, it says.
	Each(ctx context.Context, yield func(Workload)) error
}

// Build implements [Builder].
func (c *StuckConfig) Build(env Env) (Checker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &stuckCheck{config: *c, name: env.Name, workloads: env.Workloads, now: env.Now, usual: usual{}}, nil
}

type stuckCheck struct {
	config    StuckConfig
	name      string
	workloads Workloads // nil: there is no state sync
	now       func() time.Time

	mu    sync.Mutex // Snapshot may come while it checks
	usual usual
}

// A held is a workload that is too long in its state, with what it holds up.
type held struct {
	Workload
	age, limit time.Duration
	workflow   string
	others     int // of the workflow, that have not ended
}

func (h held) excess() time.Duration { return h.age - h.limit }

// A survey is one look at all workloads.
type survey struct {
	open, judged int
	stuck        []held
	flows        map[flowKey]*flow
	tooFew       map[kindState]int // have gone on so far
}

type flowKey struct{ namespace, name string }

// A flow is what is known of one workflow.
type flow struct {
	open    int
	culprit *held
}

// Check implements [Checker].
func (c *stuckCheck) Check(ctx context.Context) verdict.Result {
	if c.workloads == nil {
		return verdict.Result{Status: verdict.Unknown, Message: "there is no state sync, which would know of workloads"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	s := &survey{flows: map[flowKey]*flow{}, tooFew: map[kindState]int{}}
	limits := map[kindState]time.Duration{}
	c.usual.begin()
	err := c.workloads.Each(ctx, func(w Workload) {
		if ctx.Err() == nil && c.takes(w) {
			c.usual.see(w)
			c.judge(s, limits, w, now)
		}
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return verdict.Result{Status: verdict.Unknown, Message: fmt.Sprintf("reading workloads: %v", err)}
	}
	c.usual.end()
	return c.result(s)
}

func (c *stuckCheck) takes(w Workload) bool {
	if len(c.config.Kinds) > 0 && !slices.Contains(c.config.Kinds, w.Kind) ||
		len(c.config.Namespaces) > 0 && !slices.Contains(c.config.Namespaces, w.Namespace) {
		return false
	}
	for key, value := range c.config.Match {
		if got, ok := w.Labels[key]; !ok || got != value {
			return false
		}
	}
	return c.config.Workflow == "" || w.Labels[c.config.Workflow] != ""
}

// judge adds a workload to what is found.
func (c *stuckCheck) judge(s *survey, limits map[kindState]time.Duration, w Workload, now time.Time) {
	if w.State.Ended() {
		return
	}
	s.open++
	var f *flow
	name := ""
	if c.config.Workflow != "" {
		name = w.Labels[c.config.Workflow]
		key := flowKey{w.Namespace, name}
		if f = s.flows[key]; f == nil {
			f = &flow{}
			s.flows[key] = f
		}
		f.open++
	}
	if !slices.Contains(c.config.States, w.State) {
		return
	}
	limit, ok := c.limit(s, limits, kindState{w.Kind, w.State})
	if !ok {
		return
	}
	s.judged++
	age := now.Sub(w.Since)
	if age <= limit {
		return
	}
	w.Labels = nil // are not ours to keep
	h := held{Workload: w, age: age, limit: limit, workflow: name}
	switch {
	case f == nil:
		s.stuck = append(s.stuck, h)
	case f.culprit == nil || holdsUp(h, *f.culprit):
		f.culprit = &h
	}
}

// holdsUp reports whether it is rather a than b that the others wait for: one that
// runs, because what is queued may itself wait for it, and then the older one.
func holdsUp(a, b held) bool {
	if a.State != b.State {
		return a.State == statesync.Running
	}
	return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Name, b.Name)) < 0
}

// limit is how long a workload may stay in a state; ok is false while nobody knows.
func (c *stuckCheck) limit(s *survey, limits map[kindState]time.Duration, ks kindState) (limit time.Duration, ok bool) {
	if c.config.Than > 0 {
		return c.config.Than, true
	}
	if limit, ok = limits[ks]; ok {
		return limit, limit > 0
	}
	p99, n := c.usual.p99(ks)
	if n < learntEnough {
		s.tooFew[ks], limits[ks] = n, 0
		return 0, false
	}
	limit = max(leastUsual, time.Duration(c.config.Factor*p99*float64(time.Second)))
	limits[ks] = limit
	return limit, true
}

// result names those that are stuck.
func (c *stuckCheck) result(s *survey) verdict.Result {
	for _, f := range s.flows {
		if f.culprit != nil {
			f.culprit.others = f.open - 1
			s.stuck = append(s.stuck, *f.culprit)
		}
	}
	slices.SortStableFunc(s.stuck, func(a, b held) int {
		return cmp.Or(cmp.Compare(b.others, a.others), cmp.Compare(b.excess(), a.excess()), strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name))
	})
	n := float64(len(s.stuck))
	r := verdict.Result{Value: &n, Unit: "workloads", Measures: []verdict.Measure{{Label: "stuck", Value: n, Crit: "0"}, {Label: "open", Value: float64(s.open)}}}
	var texts []string
	for _, h := range s.stuck[:min(len(s.stuck), maxNamed)] {
		texts = append(texts, c.sentence(h))
	}
	switch {
	case len(s.stuck) > 0:
		r.Status = verdict.Fail
		r.Message = fmt.Sprintf("%d stuck: ", len(s.stuck)) + strings.Join(texts, "; ")
		if more := len(s.stuck) - maxNamed; more > 0 {
			// First, because what is too long is cut at its end.
			r.Message = fmt.Sprintf("%d stuck, the %d worst are: ", len(s.stuck), maxNamed) + strings.Join(texts, "; ")
		}
	case s.open > 0 && s.judged == 0:
		r.Status = verdict.Unknown
		r.Message = fmt.Sprintf("%d workloads, none of which can be judged", s.open)
	default:
		r.Message = fmt.Sprintf("%d workloads, none is stuck", s.open)
	}
	if more := s.unknown(); more != "" {
		r.Message += "; " + more
	}
	return r
}

func (c *stuckCheck) sentence(h held) string {
	who := h.Kind + " " + h.Namespace + "/" + h.Name
	want := "usual is up to "
	limit := h.limit
	if c.config.Than > 0 {
		want = "want at most "
	} else {
		limit = time.Duration(float64(limit) / c.config.Factor)
	}
	how := fmt.Sprintf("%s for %s, %s%s", h.State, brief(h.age.Round(time.Second)), want, brief(limit.Round(time.Second)))
	if c.config.Workflow == "" {
		return who + " " + how
	}
	text := fmt.Sprintf("workflow %s by %s, %s", h.workflow, who, how)
	switch {
	case h.others == 1:
		text += ", 1 other waits"
	case h.others > 1:
		text += fmt.Sprintf(", %d others wait", h.others)
	}
	return text
}

// unknown says for which kinds too few were seen.
func (s *survey) unknown() string {
	var parts []string
	for _, ks := range slices.SortedFunc(maps.Keys(s.tooFew), kindState.compare) {
		parts = append(parts, fmt.Sprintf("%s %s (%d seen)", ks.kind, ks.state, s.tooFew[ks]))
	}
	const some = 3
	if len(parts) == 0 {
		return ""
	}
	more := ""
	if len(parts) > some {
		more = fmt.Sprintf(" and %d more", len(parts)-some)
	}
	return fmt.Sprintf("what is usual takes %d to learn: %s%s", learntEnough, strings.Join(parts[:min(len(parts), some)], ", "), more)
}

// Snapshot is what the check has learnt.
func (c *stuckCheck) Snapshot() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return json.Marshal(c.usual.learnt())
}

// Restore takes a snapshot back.
func (c *stuckCheck) Restore(snapshot []byte) error {
	var learnt map[string]map[statesync.State][]float64
	if err := json.Unmarshal(snapshot, &learnt); err != nil {
		return fmt.Errorf("restore stuck %s: %w", c.name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for kind, states := range learnt {
		for state, seconds := range states {
			for _, s := range seconds {
				c.usual.learn(kindState{kind, state}, s)
			}
		}
	}
	return nil
}
