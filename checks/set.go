package checks

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

// A Runner runs checks that come and go: those that a neighbour's digest has.
type Runner interface {
	Add(checks ...runner.Check) error
	Renew(checks ...runner.Check) error
	Remove(names ...string)
}

// Options say what a [Set] is made of.
type Options struct {
	Items      []Item
	Series     Series // nil: there are none
	Pipelines  func() []metrics.PipelineSnapshot
	Workloads  Workloads   // nil: there is no state sync
	Heartbeats *Heartbeats // nil: its own
	Log        *slog.Logger
	Now        func() time.Time
}

// A Set is the checks of a configuration. It is a component of the agent, which
// runs them.
type Set struct {
	opts Options

	mu     sync.Mutex
	units  []*unit // in the order of the configuration; the slice is replaced, not changed
	runner Runner

	hidden map[string]bool // digests of which a member cannot be shown

	// Of fold alone: the checks of neighbours' digests that the runner has, and why
	// it has not taken others.
	folded  map[string]runner.Check
	refused map[string]string
}

// A unit is one check with what it was made from.
type unit struct {
	Item
	checker  Checker
	revision int // how often it has changed
}

// New makes the checks. None runs yet.
func New(o Options) (*Set, error) {
	s := &Set{opts: o, folded: map[string]runner.Check{}, refused: map[string]string{}}
	if s.opts.Heartbeats == nil {
		s.opts.Heartbeats = NewHeartbeats(o.Now)
	}
	for _, item := range o.Items {
		u, err := s.unit(item)
		if err != nil {
			return nil, err
		}
		s.units = append(s.units, u)
	}
	return s, nil
}

func (s *Set) unit(item Item) (*unit, error) {
	b, ok := item.Config.(Builder)
	if !ok {
		return nil, fmt.Errorf("BUG: check %s: kind %s: %T is not a Builder", item.Name, item.Kind, item.Config)
	}
	c, err := b.Build(Env{
		Name: item.Name, Log: s.opts.Log.With("check", item.Name), Now: s.opts.Now, Series: s.opts.Series, Pipelines: s.opts.Pipelines,
		Heartbeats: s.opts.Heartbeats, Workloads: s.opts.Workloads,
	})
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", item.Name, err)
	}
	return &unit{Item: item, checker: c}, nil
}

// Name is the component's.
func (s *Set) Name() string { return "checks" }

// Attach says who runs the checks of neighbours' digests. It is called before Run.
func (s *Set) Attach(r Runner) { s.runner = r }

// Actions implements the agent's Actor: POST heartbeat/NAME is a sign of life.
func (s *Set) Actions() map[string]http.Handler {
	return map[string]http.Handler{"heartbeat/{name}": s.opts.Heartbeats}
}

// A rememberer is a checker that knows something that must outlive a restart.
type rememberer interface {
	Snapshot() ([]byte, error)
	Restore(snapshot []byte) error
}

// remembered is what a set remembers.
type remembered struct {
	Heartbeats json.RawMessage            `json:"heartbeats"`
	Checks     map[string]json.RawMessage `json:"checks"`
}

// Remember implements the agent's Rememberer.
func (s *Set) Remember() (json.RawMessage, error) {
	out := remembered{Checks: map[string]json.RawMessage{}}
	var err error
	if out.Heartbeats, err = s.opts.Heartbeats.Snapshot(); err != nil {
		return nil, fmt.Errorf("heartbeats: %w", err)
	}
	for _, u := range s.current() {
		if c, ok := u.checker.(rememberer); ok {
			if out.Checks[u.Name], err = c.Snapshot(); err != nil {
				return nil, fmt.Errorf("check %s: %w", u.Name, err)
			}
		}
	}
	return json.Marshal(out)
}

// Restore implements the agent's Rememberer. What one check does not take, because
// it is another one now, is left out.
func (s *Set) Restore(text json.RawMessage) error {
	var before remembered
	if err := json.Unmarshal(text, &before); err != nil {
		return fmt.Errorf("restore checks: %w", err)
	}
	if len(before.Heartbeats) > 0 {
		if err := s.opts.Heartbeats.Restore(before.Heartbeats); err != nil {
			return err
		}
	}
	for _, u := range s.current() {
		c, ok := u.checker.(rememberer)
		own, had := before.Checks[u.Name]
		if !ok || !had {
			continue
		}
		if err := c.Restore(own); err != nil {
			s.opts.Log.Info("a check begins anew", "check", u.Name, "err", err)
		}
	}
	return nil
}

// Run shows the checks that neighbours' digests have as checks of their own, until
// ctx ends.
func (s *Set) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.fold()
		}
	}
}

func (s *Set) current() []*unit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.units
}

// Checks implements the agent's Checker.
func (s *Set) Checks() (out []runner.Check) {
	for _, u := range s.current() {
		name := u.Name // another of that name may take its place
		out = append(out, runner.Check{
			Name: name, Category: u.Category, Groups: u.Groups, Every: u.Every, Timeout: u.Timeout, StaleAfter: u.StaleAfter,
			FailAfter: u.FailAfter, PassAfter: u.PassAfter, Runbook: u.Runbook, DependsOn: u.DependsOn, Revision: u.revision,
			Run: func(ctx context.Context) verdict.Result {
				units := s.current()
				i := slices.IndexFunc(units, func(u *unit) bool { return u.Name == name })
				if i < 0 {
					return verdict.Result{Status: verdict.Unknown, Message: "not configured any more"}
				}
				return units[i].check(ctx, s.shows(name))
			},
		})
	}
	return out
}

// shows reports whether all members of a digest are shown as checks of their own.
func (s *Set) shows(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runner != nil && !s.hidden[name]
}

// check asks the checker. Where a digest's members are shown as checks of their own,
// the digest itself does not fail for what one of them says.
func (u *unit) check(ctx context.Context, shown bool) verdict.Result {
	if f, ok := u.checker.(Folder); ok && shown {
		return f.CheckApart(ctx)
	}
	return u.checker.Check(ctx)
}

// Reload implements the agent's Reloader: next is a *[]Item. A check that has not
// changed keeps what it knows.
func (s *Set) Reload(_ context.Context, next any) (applied, restart []string, err error) {
	to, ok := next.(*[]Item)
	if !ok {
		return nil, nil, fmt.Errorf("BUG: reload checks: got %T, want %T", next, to)
	}
	before := s.current()
	var units []*unit
	for _, item := range *to {
		i := slices.IndexFunc(before, func(u *unit) bool { return u.Name == item.Name })
		if i >= 0 && before[i].is(item) {
			units = append(units, before[i])
			continue
		}
		var u *unit
		if i >= 0 && before[i].asks(item) {
			u = &unit{Item: item, checker: before[i].checker} // with what it knows
		} else if u, err = s.unit(item); err != nil {
			return nil, nil, err
		}
		units = append(units, u)
		what := "added"
		if i >= 0 {
			what, u.revision = "changed", before[i].revision+1
		}
		applied = append(applied, "check "+item.Name+": "+what)
	}
	for _, u := range before {
		if !slices.ContainsFunc(*to, func(item Item) bool { return item.Name == u.Name }) {
			applied = append(applied, "check "+u.Name+": removed")
		}
	}
	s.mu.Lock()
	s.units = units
	s.mu.Unlock()
	s.opts.Heartbeats.keep(func(name string) bool {
		return slices.ContainsFunc(units, func(u *unit) bool { return u.Name == name })
	})
	return applied, nil, nil
}

func (u *unit) is(item Item) bool {
	a, b := u.Item, item
	a.Item, b.Item = item.Item, item.Item // places in the file
	return u.asks(item) && reflect.DeepEqual(a, b)
}

// asks reports whether an item asks the same, whatever becomes of the answer.
func (u *unit) asks(item Item) bool {
	return u.Kind == item.Kind && reflect.DeepEqual(u.Config, item.Config)
}

// A Folder is a checker that has found the checks of another digest.
type Folder interface {
	// Folded are those of the last digest that was read; false: since then it could
	// not be read.
	Folded() ([]Folded, bool)

	// CheckApart is Check without what they say.
	CheckApart(ctx context.Context) verdict.Result
}

// DigestOf describes the digest at an address, and leaves all else at its defaults.
func DigestOf(address string) *DigestConfig {
	return &DigestConfig{HTTPTarget: HTTPTarget{URL: address}, Redirects: 5, MaxBody: 1 << 20}
}

// fold has the runner show what the digests of neighbours have, as
// neighbour/check.
func (s *Set) fold() {
	if s.runner == nil {
		return
	}
	wanted, hidden := map[string]runner.Check{}, map[string]bool{}
	for _, u := range s.current() {
		f, ok := u.checker.(Folder)
		if !ok {
			continue
		}
		members, fresh := f.Folded()
		for _, m := range members {
			c := s.memberCheck(u, m)
			wanted[c.Name] = c
		}
		for name, c := range s.folded { // of the one before, until this one has read
			if members == nil && !fresh && strings.HasPrefix(name, u.Name+"/") {
				wanted[name] = c
			}
		}
	}
	for name := range s.folded {
		if _, ok := wanted[name]; !ok {
			s.runner.Remove(name)
			delete(s.folded, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		c := wanted[name]
		before, there := s.folded[name]
		var err error
		switch {
		case !there:
			err = s.runner.Add(c)
		case !sameMember(before, c):
			err = s.runner.Renew(c)
		}
		if err == nil {
			s.folded[name] = c
			delete(s.refused, name)
			continue
		}
		hidden[c.DependsOn[0]] = true
		if said := err.Error(); s.refused[name] != said {
			s.refused[name] = said
			s.opts.Log.Warn("a neighbour's check cannot be shown as one of ours; the check of its digest speaks for it", "check", name, "err", err)
		}
	}
	maps.DeleteFunc(s.refused, func(name, _ string) bool { _, ok := wanted[name]; return !ok })
	s.mu.Lock()
	s.hidden = hidden
	s.mu.Unlock()
}

// memberCheck is the check of one member of a neighbour's digest.
func (s *Set) memberCheck(u *unit, m Folded) runner.Check {
	return runner.Check{
		Name: u.Name + "/" + m.Name, Category: cmp.Or(m.Category, u.Category), Groups: u.Groups, DependsOn: []string{u.Name}, Runbook: u.Runbook,
		Every: u.Every, Timeout: u.Timeout, StaleAfter: u.StaleAfter,
		Run: func(context.Context) verdict.Result { return s.member(u.Name, m.Name) },
	}
}

// sameMember reports whether two checks are described alike.
func sameMember(a, b runner.Check) bool {
	a.Run, b.Run = nil, nil
	return reflect.DeepEqual(a, b)
}

// member is what a neighbour's digest says of one of its checks.
func (s *Set) member(check, member string) verdict.Result {
	for _, u := range s.current() {
		f, ok := u.checker.(Folder)
		if !ok || u.Name != check {
			continue
		}
		members, fresh := f.Folded()
		for _, m := range members {
			if m.Name == member && !fresh {
				return verdict.Result{Status: verdict.Unknown, Message: "the neighbour's digest cannot be read now"}
			}
			if m.Name == member {
				return verdict.Result{Status: m.Status, Message: cmp.Or(m.Message, "the neighbour says "+m.Status.String())}
			}
		}
	}
	return verdict.Result{Status: verdict.Unknown, Message: "the neighbour's digest has it no longer"}
}
