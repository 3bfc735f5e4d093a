package collectors

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

// An Item is one entry of the configuration's collectors.
type Item struct {
	config.Item

	// Every is the time between the starts of two reads, and Timeout the deadline
	// of one; default Every, 10 s at most.
	Every   time.Duration `yaml:"every" default:"10s"`
	Timeout time.Duration `yaml:"timeout"`
}

// Bounds of how often a source is read.
const (
	leastEvery = 100 * time.Millisecond
	mostEvery  = time.Hour
	mostWait   = 10 * time.Second
)

// Validate checks that one read is over before the next one begins.
func (i *Item) Validate() error {
	if i.Every < leastEvery || i.Every > mostEvery {
		return &config.FieldError{Key: "every", Got: i.Every.String(), Want: fmt.Sprintf("%v to %v", leastEvery, mostEvery)}
	}
	if i.Timeout == 0 {
		i.Timeout = min(i.Every, mostWait)
	}
	if i.Timeout < time.Millisecond || i.Timeout > i.Every {
		return &config.FieldError{Key: "timeout", Got: i.Timeout.String(), Want: fmt.Sprintf("1ms to every, which is %v", i.Every)}
	}
	return nil
}

// A Config is what a configuration says of collectors.
type Config struct {
	Items      []Item
	Neighbours []Neighbour
	Pipelines  []Pipeline
}

// Options say what a [Set] is made of.
type Options struct {
	Config
	Registry *metrics.Registry

	// Observe is told what each read found, and by which collector. May be nil.
	Observe func(at time.Time, collector string, fams []metrics.Family)

	Log *slog.Logger
	Now func() time.Time
}

// A Set runs collectors, each at its own pace, and keeps what they found last.
// What they find of this machine joins the registry; what belongs to a neighbour
// is apart: see [Source].
type Set struct {
	opts  Options
	began chan struct{} // closed when Run has started what there is

	mu    sync.Mutex
	units []*unit // in the order of the configuration; the slice is replaced, not changed
	ctx   context.Context
	ended bool // nothing is started any more
	work  sync.WaitGroup
}

// New makes the collectors. It reads nothing yet.
func New(o Options) (*Set, error) {
	s := &Set{opts: o, began: make(chan struct{})}
	specs, err := o.specs()
	if err != nil {
		return nil, err
	}
	for _, sp := range specs {
		u, err := s.unit(sp.item, nil)
		if err != nil {
			for _, u := range s.units {
				u.close()
			}
			return nil, err
		}
		u.apart = hears(u, s.units)
		u.show()
		u.mapPipelines(o.Registry, sp.pipelines, nil)
		s.units = append(s.units, u)
	}
	return s, nil
}

// A spec is what a configuration says of one collector.
type spec struct {
	item      Item
	pipelines []Pipeline // that are read by it
}

// specs are those of the collectors, the neighbours' after the others.
func (c *Config) specs() (out []spec, err error) {
	items := slices.Clone(c.Items)
	for _, n := range c.Neighbours {
		if item, ok := n.item(); ok {
			items = append(items, item)
		}
	}
	for _, item := range items {
		if slices.ContainsFunc(out, func(sp spec) bool { return sp.item.Name == item.Name }) {
			return nil, fmt.Errorf("collector %s: the name is a neighbour's too, want one of its own", item.Name)
		}
		out = append(out, spec{item: item})
	}
	for i, p := range c.Pipelines {
		of := slices.IndexFunc(out, func(sp spec) bool { return sp.item.Name == p.Neighbour })
		if of < 0 {
			return nil, fmt.Errorf("pipelines[%d] %s: neighbour: got %s, want a neighbour with metrics, or a collector", i, p.Name, p.Neighbour)
		}
		if slices.ContainsFunc(out[of].pipelines, func(o Pipeline) bool { return o.Name == p.Name }) {
			return nil, fmt.Errorf("pipelines[%d] %s: got a second one of %s by this name, want one of its own", i, p.Name, p.Neighbour)
		}
		out[of].pipelines = append(out[of].pipelines, p)
	}
	return out, nil
}

// unit makes a collector, without its pipelines, that goes on with the figures of
// another; nil: with none.
func (s *Set) unit(item Item, f *figures) (_ *unit, err error) {
	u := &unit{
		Item: item, name: item.Name, group: s.opts.Registry.Group(), foreign: foreign[item.Kind], figures: f,
		log: s.opts.Log.With("collector", item.Name), now: s.opts.Now, observe: s.opts.Observe, ended: make(chan struct{}),
	}
	if u.figures == nil {
		u.figures, err = newFigures(s.opts.Registry.Group(), u.name)
	}
	if err == nil {
		u.collector, err = s.build(item, u.group, u.log)
	}
	if err != nil {
		u.group.Close()
		return nil, fmt.Errorf("collector %s: %w", item.Name, err)
	}
	return u, nil
}

// hears reports whether there is a collector among others to which programs send
// their metrics, when this is one.
func hears(u *unit, others []*unit) bool {
	if _, ok := u.collector.(Pipeliner); !ok {
		return false
	}
	return slices.ContainsFunc(others, func(o *unit) bool {
		_, ok := o.collector.(Pipeliner)
		return ok
	})
}

// show puts what it finds into the registry. By then it has taken the place of
// another one, if it is to.
func (u *unit) show() {
	if !u.foreign {
		u.group.Families(u.families)
	}
	if p, ok := u.collector.(Pipeliner); ok {
		u.group.Pipelines(p.Pipelines)
	}
}

func (s *Set) build(item Item, g *metrics.Group, log *slog.Logger) (Collector, error) {
	b, ok := item.Config.(Builder)
	if !ok {
		return nil, fmt.Errorf("BUG: kind %s: %T is not a Builder", item.Kind, item.Config)
	}
	return b.Build(Env{Name: item.Name, Metrics: g, Log: log, Now: s.opts.Now, Pipelines: s.opts.Registry.Pipelines})
}

// A Pipeliner is a collector to which others send what they count, the terms of
// their pipelines too.
type Pipeliner interface {
	Pipelines() []metrics.PipelineSnapshot
}

// Name is the component's.
func (s *Set) Name() string { return "collectors" }

// Run runs the collectors until ctx ends. Afterwards they are out of the
// registry. One that cannot do its work from the beginning ends them all; one that
// a reload has brought fails its check.
func (s *Set) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var failed error
	var once sync.Once
	s.mu.Lock()
	s.ctx = ctx
	for _, u := range s.units {
		u.begin(ctx, &s.work, func(err error) {
			once.Do(func() { failed = fmt.Errorf("collector %s: %w", u.name, err) })
			cancel(err)
		})
	}
	s.mu.Unlock()
	close(s.began)
	<-ctx.Done()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.work.Wait()
	for _, u := range s.current() {
		u.close()
	}
	return failed
}

func (s *Set) current() []*unit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.units
}

// Checks are one a collector: an answer that is missing for long is no page, but
// nobody should have to look for it.
func (s *Set) Checks() (out []runner.Check) {
	for _, u := range s.current() {
		name := u.name // another of that name may take its place
		out = append(out, runner.Check{
			Name: u.title(), Category: verdict.Email, Every: 2 * time.Second,
			Run: func(ctx context.Context) verdict.Result {
				units := s.current()
				i := slices.IndexFunc(units, func(u *unit) bool { return u.name == name })
				if i < 0 {
					return verdict.Result{Status: verdict.Unknown, Message: "not configured any more"}
				}
				return units[i].check(ctx)
			},
		})
	}
	return out
}

// Touched is when any of the collectors that are sent metrics and service checks was
// sent one of that name; zero: it was not.
func (s *Set) Touched(name string) (at time.Time) {
	for _, u := range s.current() {
		if t, ok := u.collector.(interface{ Touched(string) time.Time }); ok {
			if one := t.Touched(name); one.After(at) {
				at = one
			}
		}
	}
	return at
}

// A Source is what one collector found last.
type Source struct {
	Name      string // the collector's, which is the neighbour's where it reads one
	Neighbour bool   // its series are a neighbour's, and not part of the registry
	FromZero  bool   // its counters began at 0 in this process

	unit *unit
}

// Gather returns what the last read found; nothing when it failed.
func (s Source) Gather() []metrics.Family { return s.unit.families() }

// Sources are the collectors' sources, in the order of the configuration.
func (s *Set) Sources() (out []Source) {
	for _, u := range s.current() {
		_, heard := u.collector.(Pipeliner)
		out = append(out, Source{Name: u.name, Neighbour: u.foreign, FromZero: heard, unit: u})
	}
	return out
}
