package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outrider-agent/outrider/agent/listen"
)

// closeTimeout is how long requests under way may take when everything else
// has stopped.
const closeTimeout = time.Second

// Run opens the listeners, runs everything and returns when it has stopped:
// nil after ctx ended, else the first error. A listener that cannot be opened
// is an error before anything has run. Components that have not stopped in
// time are named in the error, and left behind.
func (a *Agent) Run(ctx context.Context) error {
	a.mu.Lock()
	again := a.ran
	a.ran = true
	a.mu.Unlock()
	if again {
		return errRanBefore
	}
	listeners, err := a.open(ctx)
	if err != nil {
		close(a.reloads.stopped) // none was taken, and none will be
		return err
	}
	a.sampler.sample(time.Now())
	m := a.newMemory()
	if m != nil {
		a.restore(m)
	}
	stopServing, broken := a.serve(listeners)
	close(a.ready)
	err = a.runParts(ctx, broken, m)
	if m != nil && err == nil { // a part that is left behind may hold what it remembers
		a.saveAtEnd(m)
	}
	stopServing()
	return err
}

// A named listener is one of the agent's.
type named struct {
	net.Listener
	name string
}

func (a *Agent) open(ctx context.Context) (out []named, err error) {
	defer func() {
		if err != nil {
			for _, l := range out {
				_ = l.Close()
			}
			out = nil
		}
	}()
	for _, want := range []struct{ name, spec string }{
		{"public", a.opts.Listen.Public},
		{"debug", a.opts.Listen.Debug},
		{"status", a.opts.Listen.Status},
		{"control", a.controlSpec()},
	} {
		l, err := listen.Open(ctx, want.spec)
		if err != nil {
			return out, openError(want.name, err)
		}
		if l == nil {
			continue
		}
		out = append(out, named{l, want.name})
		if err := a.mayListen(want.name, want.spec, l.Addr()); err != nil {
			return out, err
		}
		a.mu.Lock()
		a.addrs[want.name] = l.Addr()
		a.mu.Unlock()
		a.log.Info("listening", "listener", want.name, "address", l.Addr().String())
	}
	return out, nil
}

// mayListen refuses what would be open to the world without a login.
func (a *Agent) mayListen(name, spec string, addr net.Addr) error {
	switch {
	case listen.Local(addr):
	case name == "status":
		return fmt.Errorf("%s listener %s: not on loopback, and the status text has no authentication: listen on loopback or unix:/path", name, spec)
	case a.opts.Auth.Knows():
	case name == "debug":
		return fmt.Errorf("%s listener %s: not on loopback and without authentication: set listen.web_config_file or listen.bearer_tokens_file, or listen on loopback", name, spec)
	default:
		a.log.Warn("listener is not on loopback and has no authentication: it answers probes, and what allow_unauthenticated names",
			"listener", name, "address", addr.String())
	}
	return nil
}

func openError(name string, err error) error {
	hint := "set listen." + name + " to another address, or to off"
	if name == "control" {
		hint = "set another data_dir"
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		hint = "stop the process that listens there, or " + hint
	}
	return fmt.Errorf("%s listener: %w: %s", name, err, hint)
}

// serve serves on the listeners until the function that it returns is called.
// What makes a server fail comes through broken.
func (a *Agent) serve(listeners []named) (stop func(), broken <-chan error) {
	var wg sync.WaitGroup
	errs := make(chan error, len(listeners))
	var stops []func()
	for _, l := range listeners {
		serve, stop := a.serverOf(l)
		stops = append(stops, stop)
		wg.Go(func() {
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				errs <- fmt.Errorf("%s listener: %w", l.name, err)
			}
		})
	}
	sampling, stopSampling := context.WithCancel(context.Background())
	wg.Go(func() { a.sampler.run(sampling) })
	return func() {
		stopSampling()
		var closing sync.WaitGroup
		for _, stop := range stops {
			closing.Go(stop)
		}
		closing.Wait()
		wg.Wait()
	}, errs
}

func (a *Agent) serverOf(l named) (serve func() error, stop func()) {
	if l.name == "status" {
		s := newStatusServer(l, a.WriteStatus)
		return s.serve, s.stop
	}
	h := a.public
	if l.name != "public" {
		h = a.debug
	}
	s := listen.NewServer(h, a.opts.Auth, a.log)
	return func() error { return listen.Serve(s, l.Listener) }, func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			_ = s.Close() // cuts what is still open
		}
	}
}

// runParts runs the checks and the components until ctx ends, one of them
// fails or a listener is broken, and waits for all.
func (a *Agent) runParts(ctx context.Context, broken <-chan error, m *memory) error {
	g, ctx := errgroup.WithContext(ctx)
	p := parts{running: map[string]bool{}}
	for _, c := range a.opts.Components {
		p.running["component "+c.Name()] = true
	}
	p.running["check runner"], p.running["reload"] = true, true
	if m != nil {
		p.running["memory"] = true
	}
	g.Go(func() error { return p.run(ctx, "check runner", a.runner.Run) })
	g.Go(func() error { return p.run(ctx, "reload", a.takeReloads) })
	if m != nil {
		g.Go(func() error {
			return p.run(ctx, "memory", func(ctx context.Context) error { return a.keepMemory(ctx, m) })
		})
	}
	for _, c := range a.opts.Components {
		g.Go(func() error { return p.run(ctx, "component "+c.Name(), c.Run) })
	}
	// This one also keeps the group alive when all components are done.
	g.Go(func() error {
		select {
		case err := <-broken:
			return p.done("", err)
		case <-ctx.Done():
			return nil
		}
	})

	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	<-ctx.Done()
	timeout := time.NewTimer(a.opts.StopTimeout)
	defer timeout.Stop()
	select {
	case err := <-done:
		return err // of the group: the first
	case <-timeout.C:
		left, first := p.state()
		return errors.Join(first, fmt.Errorf("stop: %s: still running after %v", strings.Join(left, ", "), a.opts.StopTimeout))
	}
}

// parts knows which parts still run, and what failed first.
type parts struct {
	mu      sync.Mutex
	running map[string]bool
	first   error
}

func (p *parts) run(ctx context.Context, name string, run func(context.Context) error) error {
	err := run(ctx)
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		err = nil // it says no more than that it was stopped
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return p.done(name, err)
}

func (p *parts) done(name string, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, name)
	if p.first == nil {
		p.first = err
	}
	return err
}

func (p *parts) state() (left []string, first error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.running)), p.first
}
