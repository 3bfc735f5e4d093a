package exporters

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/outrider-agent/outrider/metrics"
)

var errStopped = errors.New("exporters: they have stopped")

// A SetConfig is what a configuration says of exporters that push.
type SetConfig struct {
	Items []Config
	Tags  map[string]string // of all series: service, env, version ...
}

// SetOptions say what a [Set] is made of.
type SetOptions struct {
	SetConfig
	Feeds     func() []Feed // as they are now; called by several goroutines at once
	UserAgent string
	Registry  *metrics.Registry
	Log       *slog.Logger
}

// A Set runs the exporters that push. It is a component of the agent.
type Set struct {
	opts  SetOptions
	began chan struct{} // closed when Run has started what there is

	verdicts func() []Verdict // nil: there are none

	mu    sync.Mutex
	ctx   context.Context
	ended bool
	work  sync.WaitGroup

	runs []*active         // of New, then of Reload
	tags map[string]string // as of the last of these
}

// An active is one exporter at work.
type active struct {
	*Push
	config Config
	tags   map[string]string
	group  *metrics.Group
	stop   context.CancelCauseFunc
	ended  chan struct{}
}

// NewSet makes the exporters. They send nothing yet.
func NewSet(o SetOptions) (*Set, error) {
	s := &Set{opts: o, began: make(chan struct{}), tags: o.Tags}
	for _, item := range o.Items {
		r, err := s.make(item, o.Tags, nil)
		if err != nil {
			for _, r := range s.runs {
				r.group.Close()
			}
			return nil, err
		}
		s.runs = append(s.runs, r)
	}
	return s, nil
}

// make makes an exporter, that goes on where another stopped; nil: a new one.
func (s *Set) make(item Config, tags map[string]string, after *active) (*active, error) {
	kind, ok := item.Config.(Builder)
	if !ok {
		return nil, fmt.Errorf("BUG: exporter %s: %T is not a Builder", item.Name, item.Config)
	}
	r := &active{config: item, tags: tags, ended: make(chan struct{})}
	o := PushOptions{
		Name: item.Name, Kind: kind, Feeds: s.opts.Feeds, Every: item.Every, Series: item.Series, Queue: item.Queue, MaxAge: item.MaxAge,
		Tags: tags, UserAgent: s.opts.UserAgent, Log: s.opts.Log, Verdicts: s.told,
	}
	if after == nil {
		r.group = s.opts.Registry.Group()
	} else {
		r.group, o.After = after.group, after.Push
	}
	o.Metrics = r.group
	var err error
	if r.Push, err = NewPush(o); err != nil && after == nil {
		r.group.Close()
	}
	return r, err
}

// Attach says where verdicts come from. It is called before Run.
func (s *Set) Attach(verdicts func() []Verdict) { s.verdicts = verdicts }

func (s *Set) told() []Verdict {
	if s.verdicts == nil {
		return nil
	}
	return s.verdicts()
}

// Tags are those of all series, as of the last reload. They must not be changed.
func (s *Set) Tags() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tags
}

// Name is the component's.
func (s *Set) Name() string { return "exporters" }

// Run runs the exporters until ctx ends. Afterwards they are out of the registry.
func (s *Set) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	for _, r := range s.runs {
		s.begin(r)
	}
	s.mu.Unlock()
	close(s.began)
	<-ctx.Done()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runs {
		r.group.Close()
	}
	return nil
}

// begin needs the lock.
func (s *Set) begin(r *active) {
	ctx, stop := context.WithCancelCause(s.ctx)
	r.stop = stop
	s.work.Go(func() {
		defer close(r.ended)
		defer stop(nil)
		if err := r.Run(ctx); err != nil {
			s.opts.Log.Error("the exporter did not end cleanly", "exporter", r.config.Name, "err", err)
		}
	})
}

// Reload implements the agent's Reloader: next is a [*SetConfig]. What has not
// changed goes on undisturbed. One that has changed stops, and another one goes on
// with its books, and, where it is of the same kind, with the points that wait.
func (s *Set) Reload(ctx context.Context, next any) (applied, restart []string, err error) {
	to, ok := next.(*SetConfig)
	if !ok {
		return nil, nil, fmt.Errorf("BUG: reload exporters: got %T, want %T", next, to)
	}
	select {
	case <-s.began:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("reload exporters: %w", ctx.Err())
	}
	if err := s.check(to); err != nil {
		return nil, nil, err
	}
	var errs []error
	say := func(name, what string) { applied = append(applied, "exporter "+name+": "+what) }
	old := s.runs
	var runs []*active
	for _, item := range to.Items {
		i := slices.IndexFunc(old, func(r *active) bool { return r.config.Name == item.Name })
		switch {
		case i < 0:
			r, err := s.begun(item, to.Tags, nil)
			if errs = append(errs, err); err == nil {
				runs = append(runs, r)
				say(item.Name, "added")
			}
		case old[i].is(item, to.Tags):
			runs = append(runs, old[i])
		default:
			if err := old[i].end(ctx, errTaken); err != nil {
				return applied, nil, err
			}
			r, err := s.begun(item, to.Tags, old[i])
			if errs = append(errs, err); err == nil {
				runs = append(runs, r)
				say(item.Name, "changed")
			}
		}
	}
	for _, r := range old {
		if slices.ContainsFunc(to.Items, func(item Config) bool { return item.Name == r.config.Name }) {
			continue
		}
		if err := r.end(ctx, nil); err != nil {
			return applied, nil, err
		}
		r.group.Close()
		say(r.config.Name, "removed")
	}
	s.mu.Lock()
	s.runs, s.tags = runs, to.Tags
	s.mu.Unlock()
	return applied, nil, errors.Join(errs...)
}

// check finds out whether all can be built.
func (s *Set) check(to *SetConfig) error {
	scratch := &Set{opts: s.opts}
	scratch.opts.Registry = metrics.NewRegistry()
	for _, item := range to.Items {
		if _, err := scratch.make(item, to.Tags, nil); err != nil {
			return err
		}
	}
	return nil
}

func (r *active) is(item Config, tags map[string]string) bool {
	return r.config.Kind == item.Kind && reflect.DeepEqual(r.config.Config, item.Config) && reflect.DeepEqual(r.config.Series, item.Series) &&
		r.config.Every == item.Every && r.config.Queue == item.Queue && r.config.MaxAge == item.MaxAge && maps.Equal(r.tags, tags)
}

func (r *active) end(ctx context.Context, cause error) error {
	r.stop(cause)
	select {
	case <-r.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop exporter %s: %w", r.config.Name, ctx.Err())
	}
}

// begun makes an exporter that is at work.
func (s *Set) begun(item Config, tags map[string]string, after *active) (*active, error) {
	r, err := s.make(item, tags, after)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.ended {
		err = errStopped
		r.group.Close()
	}
	if err != nil {
		if after != nil { // nobody sends what it has left
			after.drop()
			after.group.Close()
		}
		return nil, err
	}
	s.begin(r)
	return r, nil
}
