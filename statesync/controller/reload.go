package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/delivery"
)

// Rules of a reload:
//   - A sink whose configuration is the same goes on without a pause. One that
//     is detached is attached again, with a gap.
//   - One that has changed is stopped, opened anew and goes on from its cursor.
//     If it cannot be opened, it goes on as it was.
//   - One that is taken out is stopped, and holds nothing back in the ledger
//     any more. Its cursor stays.
//   - What leaves is closed before anything is opened: two sinks may change
//     their files with each other.
//   - A sink that could not be opened, or not stopped, is tried again by the
//     next reload. Until then its check fails. While one still delivers that
//     was to stop, no other of its name is opened.
//   - Where a sink stands in a file counts only while nobody else may have
//     written there: not for one that is new, or writes elsewhere.

const (
	relieveEvery = time.Second
	// A detachment is asked for by a look at the dispatcher, which knows of it
	// a moment before the ledger does.
	attachWithin = time.Second
	attachEvery  = 20 * time.Millisecond
)

// errStopped is what is asked of a controller that does not run any more.
var errStopped = errors.New("state sync has stopped")

// An order is something that is done between two reloads, not during one.
type order struct {
	do   func(ctx context.Context, group *errgroup.Group)
	done chan struct{}
}

// Reload takes the sinks of a new configuration, a checked *[Config], and
// names the keys that count after a restart only. It waits for Run to begin;
// what has begun is not broken off before Run ends.
func (c *Controller) Reload(ctx context.Context, next any) (applied, restart []string, err error) {
	to, ok := next.(*Config)
	if !ok {
		return nil, nil, fmt.Errorf("BUG: reload state sync: got %T, want %T", next, to)
	}
	for _, key := range config.Changed(*c.opts.Config, *to) {
		if key = Section + "." + key; key != SinksKey {
			restart = append(restart, key)
		}
	}
	failure := c.ask(ctx, func(ctx context.Context, group *errgroup.Group) {
		applied, err = c.replaceSinks(ctx, group, to.Sinks)
	})
	if failure != nil {
		return nil, nil, fmt.Errorf("reload state sync: %w", failure)
	}
	return applied, restart, err
}

// ask has something done by the goroutine that may change the sinks, and
// waits for it.
func (c *Controller) ask(ctx context.Context, do func(ctx context.Context, group *errgroup.Group)) error {
	o := order{do: do, done: make(chan struct{})}
	select {
	case c.orders <- o:
	case <-c.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	<-o.done // it ends soon after Run is told to
	return nil
}

// takeOrders does what is asked for until ctx ends. It starts deliveries in
// group, of which it must be one itself.
func (c *Controller) takeOrders(ctx context.Context, group *errgroup.Group) {
	defer close(c.stopped)
	look := time.NewTicker(relieveEvery)
	defer look.Stop()
	for {
		select {
		case o := <-c.orders:
			o.do(ctx, group)
			close(o.done)
		case <-look.C:
			c.relieve()
		case <-ctx.Done():
			return
		}
	}
}

// relieve does for sinks that are not open what a dispatcher does for its own:
// they must not keep the ledger full for the others. One that is open again goes
// on from its cursor, with a gap if what it missed has been deleted.
func (c *Controller) relieve() {
	sinks := c.running()
	for i, s := range sinks {
		if s.failure == nil || s.released || s.config.OnFull == delivery.Block || !c.ledger.Pressed(s.config.Name) {
			continue
		}
		c.opts.Logger.Error("the ledger is full: nothing more is kept for a sink that is not open", "sink", s.config.Name, "err", s.failure)
		c.ledger.Release(s.config.Name)
		released := *s
		released.released = true
		sinks[i] = &released
	}
	c.setRunning(sinks)
}

// replaceSinks makes the running sinks those of the configuration, and says
// what it did.
func (c *Controller) replaceSinks(ctx context.Context, group *errgroup.Group, to []SinkConfig) (applied []string, err error) {
	before := c.running()
	stays := map[string]*sink{}
	var leave []*sink
	for _, s := range before {
		i := slices.IndexFunc(to, func(next SinkConfig) bool { return next.Name == s.config.Name })
		if i >= 0 && s.failure == nil && s.config.same(&to[i]) {
			stays[s.config.Name] = s
			continue
		}
		leave = append(leave, s)
	}
	var now []*sink
	failed := c.takeOut(leave)
	for _, s := range leave {
		name := s.config.Name
		err = errors.Join(err, failed[name])
		if slices.ContainsFunc(to, func(next SinkConfig) bool { return next.Name == name }) {
			continue
		}
		c.ledger.Release(name)
		switch {
		case s.hangs(failed[name]):
			now = append(now, s.leftBehind())
		case s.never:
			applied = append(applied, "sink "+name+": removed")
		default:
			applied = append(applied, "sink "+name+": removed; its cursor stays, until outrider ledger forget "+name)
		}
	}
	if len(stays) != len(before) || len(stays) != len(to) {
		err = errors.Join(err, c.unplace(before, to))
	}
	for i := range to {
		name := to[i].Name
		s, did, failure := stays[name], "", error(nil)
		switch old := find(before, name); {
		case s != nil:
			did, failure = c.attachIfDetached(ctx, s)
		case old != nil && old.hangs(failed[name]):
			// Two that deliver one workload's changes could change their order.
			s = old.leftBehind()
		default:
			s, did, failure = c.openAnew(ctx, group, to[i], old)
		}
		if s != nil {
			now = append(now, s)
		}
		if did != "" {
			applied = append(applied, "sink "+name+": "+did)
		}
		err = errors.Join(err, failure)
	}
	c.setRunning(now)
	return applied, err
}

// unplace drops where sinks stand in what they write, but for those that write
// where they did.
func (c *Controller) unplace(before []*sink, to []SinkConfig) error {
	var stay []string
	for i := range to {
		// One that was not open had no hold on its file.
		if old := find(before, to[i].Name); old != nil && old.sink != nil && old.config.target() == to[i].target() {
			stay = append(stay, to[i].Name)
		}
	}
	return c.ledger.Unplace(stay...)
}

// takeOut stops and closes sinks, all at once. Those that could not be are
// returned, by name.
func (c *Controller) takeOut(leave []*sink) (failed map[string]error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed = map[string]error{}
	for _, s := range leave {
		wg.Go(func() {
			if s.stop != nil {
				s.stop(errLeaves)
				<-s.done
			}
			if err := c.end(s); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[s.config.Name] = err
			}
		})
	}
	wg.Wait()
	return failed
}

// openAnew opens a sink that is new or was changed; old is what it was, nil:
// it is new. A changed one that cannot be opened goes on as it was; if that
// fails too, or there is nothing to go on with, it stays as one that is not
// open, whose check fails.
func (c *Controller) openAnew(ctx context.Context, group *errgroup.Group, to SinkConfig, old *sink) (s *sink, did string, err error) {
	if ctx.Err() != nil {
		return &sink{config: to, failure: errStopped}, "", fmt.Errorf("sink %s: %w", to.Name, errStopped)
	}
	s, attached, err := c.opened(ctx, to, true)
	switch {
	case err == nil && (old == nil || old.never):
		did = "added"
	case err == nil && old.failure != nil:
		did = "opened"
	case err == nil:
		did = "changed"
	case old == nil || old.never:
		c.ledger.Release(to.Name) // it has not begun
		return &sink{config: to, failure: err, never: true}, "", err
	default:
		failure, already := err, attached
		s, attached, err = c.opened(ctx, old.config, true)
		if err != nil {
			return &sink{config: old.config, failure: failure}, "", errors.Join(failure, err)
		}
		attached = attached || already
		err = fmt.Errorf("%w; it goes on as it was", failure)
	}
	if attached {
		did += " and attached again"
	}
	s.deliver(ctx, group)
	return s, did, err
}

// attachIfDetached has a sink delivered to again that was detached.
func (c *Controller) attachIfDetached(ctx context.Context, s *sink) (did string, err error) {
	if s.dispatcher.Standing().Detached == "" {
		return "", nil
	}
	var cursor statesync.Cursor
	for until := time.Now().Add(attachWithin); ; {
		if cursor, err = c.ledger.Attach(ctx, s.config.Name); err == nil {
			s.dispatcher.Attach(cursor)
			return "attached again", nil
		}
		select {
		case <-time.After(attachEvery):
		case <-ctx.Done():
			return "", err
		}
		if time.Now().After(until) {
			return "", err
		}
	}
}
