package collectors

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/outrider-agent/outrider/metrics"
)

var errStopped = errors.New("collectors: they have stopped")

// An adopter is a collector that can take the place of another one while that
// runs, and goes on where it stops. The other one's Run returns nil.
type adopter interface {
	Adopt(old Collector) bool
}

// A listener says when it hears what is sent to it.
type listener interface {
	Ready() <-chan struct{}
}

// A change is one collector of a reload.
type change struct {
	old, next *unit // nil: there is none
	spec      spec
}

// Reload implements the agent's Reloader: next is a [*Config]. What has not
// changed goes on undisturbed. What has is built before anything stops; then the
// old ones stop, and the new ones start, with the figures of the old ones and, for
// a socket at the same address, the socket. A collector that cannot start is tried
// again with the next reload.
func (s *Set) Reload(ctx context.Context, next any) (applied, restart []string, err error) {
	to, ok := next.(*Config)
	if !ok {
		return nil, nil, fmt.Errorf("BUG: reload collectors: got %T, want %T", next, to)
	}
	select {
	case <-s.began:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("reload collectors: %w", ctx.Err())
	}
	specs, err := to.specs()
	if err != nil {
		return nil, nil, err
	}
	changes, err := s.changes(specs)
	if err != nil {
		return nil, nil, err
	}
	var stay []*unit
	for _, c := range changes {
		if c.old != nil && c.spec.item.Config != nil {
			stay = append(stay, c.old)
		}
	}
	var errs []error
	for i := range changes {
		lines, err := s.swap(ctx, &changes[i], stay)
		if c := changes[i]; c.old == nil && c.next != nil {
			stay = append(stay, c.next)
		}
		applied, errs = append(applied, lines...), append(errs, err)
	}
	var units []*unit
	for _, c := range changes {
		if c.next != nil {
			units = append(units, c.next)
		}
	}
	s.mu.Lock()
	s.units = units
	s.mu.Unlock()
	for _, c := range changes {
		if c.next != nil && c.next != c.old {
			errs = append(errs, s.start(ctx, c.next))
		}
	}
	return applied, nil, errors.Join(errs...)
}

// changes finds out which collectors come, go and stay, and that those which come
// can be built.
func (s *Set) changes(specs []spec) (out []change, err error) {
	left := slices.Clone(s.current())
	for _, sp := range specs {
		c := change{spec: sp}
		if i := slices.IndexFunc(left, func(u *unit) bool { return u.name == sp.item.Name }); i >= 0 {
			c.old = left[i]
			left = slices.Delete(left, i, i+1)
		}
		if c.old != nil && c.old.is(sp.item) {
			c.next = c.old
		} else if _, err := s.build(sp.item, metrics.NewRegistry().Group(), s.opts.Log); err != nil {
			return nil, fmt.Errorf("collector %s: %w", sp.item.Name, err)
		}
		out = append(out, c)
	}
	for _, u := range left {
		out = append(out, change{old: u})
	}
	return out, nil
}

// is reports whether it does what an item says.
func (u *unit) is(item Item) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.broken == nil && u.Kind == item.Kind && u.Every == item.Every && u.Timeout == item.Timeout && reflect.DeepEqual(u.Config, item.Config)
}

// swap ends what has to go, and makes what takes its place, beside those that stay.
func (s *Set) swap(ctx context.Context, c *change, stay []*unit) (lines []string, err error) {
	switch {
	case c.next != nil: // it stays
		return s.remap(c), nil
	case c.spec.item.Config == nil:
		if err := c.old.end(ctx); err != nil {
			return nil, err
		}
		c.old.close()
		lines = append(lines, c.old.title()+": removed")
		for _, m := range c.old.maps {
			lines = append(lines, m.said("removed"))
		}
		return lines, nil
	case c.old == nil:
		next, err := s.unit(c.spec.item, nil)
		if err != nil {
			return nil, err
		}
		next.apart = hears(next, stay)
		next.show()
		c.next = next
		return append([]string{next.title() + ": added"}, s.remap(c)...), nil
	}
	c.old.group.Close() // the next one shows the same
	next, err := s.unit(c.spec.item, c.old.figures)
	if err == nil {
		if a, ok := next.collector.(adopter); ok {
			a.Adopt(c.old.collector)
		}
	}
	if err := errors.Join(err, c.old.end(ctx)); err != nil {
		return nil, err
	}
	next.apart = c.old.apart
	next.show()
	c.next = next
	return append([]string{next.title() + ": changed"}, s.remap(c)...), nil
}

// end stops it, and waits until it has.
func (u *unit) end(ctx context.Context) error {
	u.stop()
	select {
	case <-u.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop collector %s: %w", u.name, ctx.Err())
	}
}

// remap gives the collector the pipelines that it is to read, those of the one
// before it included.
func (s *Set) remap(c *change) (lines []string) {
	var before []*mapping
	if c.old != nil {
		before = c.old.maps
	}
	c.next.mapPipelines(s.opts.Registry, c.spec.pipelines, before)
	named := func(in []*mapping, m *mapping) *mapping {
		if i := slices.IndexFunc(in, func(o *mapping) bool { return o.Name == m.Name }); i >= 0 {
			return in[i]
		}
		return nil
	}
	for _, m := range c.next.maps {
		switch o := named(before, m); o {
		case m:
		case nil:
			lines = append(lines, m.said("added"))
		default:
			lines = append(lines, m.said("changed"))
		}
	}
	for _, m := range before {
		if named(c.next.maps, m) == nil {
			lines = append(lines, m.said("removed"))
		}
	}
	return lines
}

func (m *mapping) said(what string) string {
	return "pipeline " + m.Neighbour + ":" + m.Name + ": " + what
}

// start has a new collector work, and waits until it hears what is sent to it.
func (s *Set) start(ctx context.Context, u *unit) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return errStopped
	}
	u.begin(s.ctx, &s.work, func(err error) { u.log.Error("the collector has failed", "err", err) })
	s.mu.Unlock()
	l, ok := u.collector.(listener)
	if !ok {
		return nil
	}
	select {
	case <-l.Ready():
	case <-u.ended:
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.broken != nil {
			return fmt.Errorf("collector %s: %w", u.name, u.broken)
		}
	case <-ctx.Done():
		return fmt.Errorf("start collector %s: %w", u.name, ctx.Err())
	}
	return nil
}
