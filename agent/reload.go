package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/agent/listen"
	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

// Rules of a reload:
//   - The file is read and checked as a whole first. One with a mistake changes
//     nothing at all.
//   - Reloads happen one at a time, each with the file as it is then.
//   - One that has begun goes on when whoever asked has hung up, and ends with
//     the agent.
//   - The agent logs what came of it; the check agent/config fails until a
//     reload has gone well.

// A Reloader is a component that takes a new configuration while it runs.
// Reload is not called twice at once. It returns what it did, a line each, and
// the keys that differ from what runs and count after a restart only. With an
// error, the rest has been applied; it is tried again with the next reload.
// Its checks are asked for again afterwards.
type Reloader interface {
	Reload(ctx context.Context, config any) (applied, restart []string, err error)
}

// A Configuration is what the configuration file says now.
type Configuration struct {
	Components map[string]any // by name; a component that is not here goes on as it is
	Restart    []string       // other keys that differ from what runs
	Warnings   []string

	// Auth says who may read and act from now on; nil: who may now. What else
	// differs in its web configuration needs a restart.
	Auth *listen.Auth
}

// Reloaded is what came of a reload.
type Reloaded struct {
	Applied []string // a line each
	Restart []string // keys that count after a restart only
}

// ErrRefused marks a configuration with mistakes: nothing was changed.
var ErrRefused = errors.New("configuration refused, nothing was changed")

var errNotRunning = errors.New("reload: the agent has stopped")

const (
	reloadCheck = "agent/config"
	// answerReload is how long who asks waits: below the 30 s after which
	// the server hangs up.
	answerReload = 25 * time.Second
)

type reloadOutcome struct {
	Reloaded
	err error
}

// reloads are the reloads of one agent.
type reloads struct {
	read     func() (*Configuration, error) // nil: there are none
	requests chan chan reloadOutcome
	stopped  chan struct{} // closed when none is taken any more

	mu     sync.Mutex // guards what follows
	last   reloadOutcome
	at     time.Time // of the last; zero: there was none
	wellAt time.Time // of the last that went well, the start included
	well   int64     // how many went well
	failed int64
}

func newReloads(read func() (*Configuration, error), reg *metrics.Registry) (*reloads, error) {
	r := &reloads{read: read, requests: make(chan chan reloadOutcome), stopped: make(chan struct{}), wellAt: time.Now()}
	if read == nil {
		return r, nil
	}
	for _, m := range []struct {
		name, help, unit string
		typ              metrics.Type
		tags             []string
		points           func(yield func(metrics.Point))
	}{
		{"total", "Reloads of the configuration, by result: ok or failed.", "items", metrics.CounterType, []string{"result"}, func(yield func(metrics.Point)) {
			yield(metrics.Point{Tags: []string{"ok"}, Value: float64(r.well)})
			yield(metrics.Point{Tags: []string{"failed"}, Value: float64(r.failed)})
		}},
		{"successful", "Whether the last reload went well, or there was none: 1, else 0.", "ratio", metrics.GaugeType, nil, func(yield func(metrics.Point)) {
			p := metrics.Point{Value: 1}
			if r.last.err != nil {
				p.Value = 0
			}
			yield(p)
		}},
		{"success_timestamp_seconds", "When the configuration was last read without a mistake, the start included.", "seconds", metrics.GaugeType, nil, func(yield func(metrics.Point)) {
			yield(metrics.Point{Value: float64(r.wellAt.Unix())})
		}},
	} {
		d := metrics.Desc{
			Name: "outrider_config_reload_" + m.name, Datadog: "outrider.config.reload." + strings.TrimSuffix(m.name, "_seconds"),
			Type: m.typ, Help: m.help, Unit: m.unit, Tags: m.tags, Budget: 2,
		}
		err := reg.Func(d, func(yield func(metrics.Point)) {
			r.mu.Lock()
			defer r.mu.Unlock()
			m.points(yield)
		})
		if err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	return r, nil
}

// Reload reads the configuration anew and hands it to the components, as
// [Options.Configuration] describes. It waits for Run to begin, and for
// reloads before it. After [ErrRefused] nothing was changed; after any other
// error something may have been. When ctx ends first the reload goes on.
func (a *Agent) Reload(ctx context.Context) (Reloaded, error) {
	if a.reloads.read == nil {
		return Reloaded{}, errors.New("reload: got an agent without a configuration file, want one that has it")
	}
	answer := make(chan reloadOutcome, 1)
	select {
	case a.reloads.requests <- answer:
	case <-a.reloads.stopped:
		return Reloaded{}, errNotRunning
	case <-ctx.Done():
		return Reloaded{}, fmt.Errorf("reload: wait for its turn: %w", ctx.Err())
	}
	select {
	case o := <-answer:
		return o.Reloaded, o.err
	case <-ctx.Done():
		return Reloaded{}, fmt.Errorf("reload: still under way: %w", ctx.Err())
	}
}

// takeReloads does what is asked for until ctx ends.
func (a *Agent) takeReloads(ctx context.Context) error {
	defer close(a.reloads.stopped)
	for {
		select {
		case answer := <-a.reloads.requests:
			if ctx.Err() != nil { // both were there: the stop counts
				answer <- reloadOutcome{err: errNotRunning}
				return nil
			}
			answer <- a.reload(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// reload does one, and says what came of it: there may be nobody who waits
// for the answer.
func (a *Agent) reload(ctx context.Context) reloadOutcome {
	var o reloadOutcome
	next, err := a.reloads.read()
	if err != nil {
		o.err = fmt.Errorf("%w:\n%w", ErrRefused, err)
	} else {
		for _, w := range next.Warnings {
			a.log.Warn("configuration", "warning", w)
		}
		o = a.apply(ctx, next)
	}
	a.reloads.note(o, time.Now())
	switch {
	case errors.Is(o.err, ErrRefused):
		a.log.Error("configuration not reloaded; the old one stays", "err", err)
	case o.err != nil:
		a.log.Error("configuration reloaded in part; what failed is tried again with the next reload",
			"err", o.err, "applied", o.Applied, "restart", o.Restart)
	case len(o.Restart) > 0:
		a.log.Warn("configuration reloaded; some changes count after a restart only", "applied", o.Applied, "restart", o.Restart)
	default:
		a.log.Info("configuration reloaded", "applied", o.Applied)
	}
	return o
}

func (a *Agent) apply(ctx context.Context, next *Configuration) reloadOutcome {
	o := reloadOutcome{Reloaded: Reloaded{Restart: slices.Clone(next.Restart)}}
	if next.Auth != nil && a.opts.Auth != nil {
		others, restart := a.opts.Auth.Take(next.Auth)
		if others {
			o.Applied = append(o.Applied, "listen: other users or tokens")
		}
		if restart {
			o.Restart = append(o.Restart, "listen.web_config_file")
		}
	}
	var errs []error
	for _, c := range a.opts.Components {
		reloader, ok := c.(Reloader)
		config, given := next.Components[c.Name()]
		if !ok || !given {
			continue
		}
		applied, restart, err := reloader.Reload(ctx, config)
		o.Applied, o.Restart = append(o.Applied, applied...), append(o.Restart, restart...)
		errs = append(errs, err, a.renewChecks(c))
	}
	slices.Sort(o.Restart)
	o.err = errors.Join(errs...)
	return o
}

// renewChecks takes a component's checks as they are now. One whose name stays
// keeps its verdict, and what it runs.
func (a *Agent) renewChecks(c Component) error {
	checker, ok := c.(Checker)
	if !ok {
		return nil
	}
	before, now := a.checks[c.Name()], map[string]bool{}
	var added, stay []runner.Check
	for _, check := range checker.Checks() {
		if now[check.Name] = true; before[check.Name] {
			stay = append(stay, check)
		} else {
			added = append(added, check)
		}
	}
	for name := range before {
		if !now[name] {
			a.runner.Remove(name)
		}
	}
	if err := a.runner.Renew(stay...); err != nil {
		return fmt.Errorf("component %s: %w", c.Name(), err)
	}
	if err := a.runner.Add(added...); err != nil {
		for _, check := range added {
			delete(now, check.Name)
		}
		a.checks[c.Name()] = now
		return fmt.Errorf("component %s: %w", c.Name(), err)
	}
	a.checks[c.Name()] = now
	return nil
}

func (r *reloads) note(o reloadOutcome, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.at = o, now
	if o.err != nil {
		r.failed++
		return
	}
	r.well, r.wellAt = r.well+1, now
}

func (r *reloads) check() runner.Check {
	return runner.Check{
		Name: reloadCheck, Category: verdict.Email, Every: 2 * time.Second,
		Run: func(context.Context) verdict.Result {
			r.mu.Lock()
			defer r.mu.Unlock()
			at := r.at.UTC().Format(time.RFC3339)
			switch {
			case r.at.IsZero():
				return verdict.Result{Message: "as it was at the start"}
			case r.last.err != nil:
				return verdict.Result{Status: verdict.Fail, Message: "reload at " + at + ": " + r.last.err.Error()}
			case len(r.last.Restart) > 0:
				return verdict.Result{Message: "reloaded at " + at + "; after a restart only: " + strings.Join(r.last.Restart, ", ")}
			}
			return verdict.Result{Message: "reloaded at " + at}
		},
	}
}

// serveReload answers POST /act/reload in lines of text. Status 422: the file
// was refused; 500: it was applied in part; 504: it takes longer.
func (a *Agent) serveReload(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), answerReload)
	defer cancel()
	o, err := a.Reload(ctx)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch {
	case errors.Is(err, ErrRefused):
		w.WriteHeader(http.StatusUnprocessableEntity)
	case errors.Is(err, context.DeadlineExceeded):
		w.WriteHeader(http.StatusGatewayTimeout)
	case errors.Is(err, errNotRunning):
		w.WriteHeader(http.StatusServiceUnavailable)
	case err != nil:
		w.WriteHeader(http.StatusInternalServerError)
	}
	_, _ = io.WriteString(w, o.text(err))
}

func (o Reloaded) text(err error) string {
	var b strings.Builder
	for _, line := range o.Applied {
		b.WriteString(line + "\n")
	}
	if len(o.Restart) > 0 {
		b.WriteString("after a restart only: " + strings.Join(o.Restart, ", ") + "\n")
	}
	switch {
	case err != nil:
		b.WriteString(err.Error() + "\n")
	case b.Len() == 0:
		b.WriteString("nothing has changed\n")
	}
	return b.String()
}
