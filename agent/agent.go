// Package agent runs components together behind one set of listeners, checks and metrics.
//
// It knows no kind of anything: a component is a name and a Run, and what else
// it can do (checks, routes, actions, status lines, reloads) is found by type
// assertion. It installs no signal handlers, never exits, and changes nothing
// global, so that a program can embed it. One thing it cannot help: importing
// net/http/pprof and expvar registers them on http.DefaultServeMux, which the
// agent never serves; a program that embeds it should not serve it either.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-agent/outrider/agent/listen"
	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

// A Component is one part of the agent. Run is called once, and returns nil
// soon after ctx ends. An error stops the whole agent; nil before ctx ends
// means that the component has nothing more to do.
type Component interface {
	Name() string
	Run(ctx context.Context) error
}

// A Checker is a component with checks. They are added before Run, and those
// of a [Reloader] asked for again after each reload.
type Checker interface {
	Checks() []runner.Check
}

// A Routes component serves pages in the read ring of the public listener.
// The keys are patterns of [http.ServeMux].
type Routes interface {
	Routes() map[string]http.Handler
}

// An Actor is a component that can be told to act: POST /act/<key> on the
// debug listener and the control socket.
type Actor interface {
	Actions() map[string]http.Handler
}

// A StatusWriter adds lines to the status text. It must not block.
type StatusWriter interface {
	Status(w io.Writer)
}

// Listen says where to listen: host:port, :port (on loopback), unix:/path or
// off. Empty means off.
type Listen struct {
	Public string // health, metrics, pages
	Debug  string // pprof, expvar, actions
	Status string // the status text, which has no authentication: loopback or unix only
}

// StopTimeout is how long components may take to stop unless Options say
// otherwise. It is well below the 30 s after which Kubernetes kills.
const StopTimeout = 5 * time.Second

// Options say what an agent is made of.
type Options struct {
	Service string // what it rides with; default outrider
	Version string // of the agent: 1.2.0
	Build   string // commit and the like

	// DataDir is where the control socket is made; empty means none. It must
	// exist: see [OpenDataDir].
	DataDir string

	Listen Listen
	Auth   *listen.Auth // nil knows nobody

	// Trusted means that the program that mounts Handler and DebugHandler on
	// a server of its own also authenticates its users. Without it, such
	// requests count as coming from outside.
	Trusted bool

	Log      *slog.Logger      // nil logs nothing
	Registry *metrics.Registry // nil makes one

	// MetricsHandler makes what serves /metrics: the registry, and what the program
	// registers with [Agent.Registerer]. Nil means that there is no /metrics.
	MetricsHandler func(reg *metrics.Registry, program *prometheus.Registry) http.Handler

	Components []Component

	// Configuration reads the configuration file anew and checks it as a
	// whole, for [Agent.Reload] and POST /act/reload; nil means that there is
	// none to read. Its error says what is wrong, and holds no secret.
	Configuration func() (*Configuration, error)

	StopTimeout time.Duration // zero means [StopTimeout]
}

// An Agent runs components. Make one with [New].
type Agent struct {
	opts    Options
	log     *slog.Logger
	gate    *listen.Gate
	runner  *runner.Runner
	sampler *sampler
	reloads *reloads
	checks  map[string]map[string]bool // names, by component; of New, then of the reloads
	public  http.Handler
	debug   http.Handler
	host    string
	started time.Time
	program *prometheus.Registry

	ready chan struct{}

	mu    sync.Mutex
	ran   bool
	addrs map[string]net.Addr
}

// New puts an agent together. Two components of one name, a route that
// another one has, and a check that the runner refuses are errors.
func New(o Options) (*Agent, error) {
	if o.Service == "" {
		o.Service = "outrider"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = metrics.NewRegistry()
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = StopTimeout
	}
	for _, spec := range []*string{&o.Listen.Public, &o.Listen.Debug, &o.Listen.Status} {
		if *spec == "" {
			*spec = "off"
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown" // a status text without a host is better than no agent
	}
	a := &Agent{
		opts: o, log: o.Log, host: host, started: time.Now(),
		gate:   &listen.Gate{Auth: o.Auth, Trusted: o.Trusted},
		runner: runner.New(runner.Options{Service: o.Service, Version: o.Version, Log: o.Log}),
		ready:  make(chan struct{}), addrs: map[string]net.Addr{}, program: prometheus.NewRegistry(),
		sampler: newSampler(o.Registry.Tick), checks: map[string]map[string]bool{},
	}
	if a.reloads, err = newReloads(o.Configuration, o.Registry); err != nil {
		return nil, err
	}
	if err := a.runner.Metrics(o.Registry); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if err := a.addChecks(); err != nil {
		return nil, err
	}
	if a.public, err = a.publicHandler(); err != nil {
		return nil, err
	}
	if a.debug, err = a.debugHandler(); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *Agent) addChecks() error {
	if err := a.runner.Add(goroutineCheck()); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if a.reloads.read != nil {
		if err := a.runner.Add(a.reloads.check()); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	var names []string
	for _, c := range a.opts.Components {
		if c.Name() == "" || slices.Contains(names, c.Name()) {
			return fmt.Errorf("component %q: want a name of its own", c.Name())
		}
		names = append(names, c.Name())
		if err := a.renewChecks(c); err != nil {
			return err
		}
	}
	return nil
}

// goroutineCheck notices a leak long before the memory does: an agent at work
// has a few hundred.
func goroutineCheck() runner.Check {
	const limit = 10_000
	return runner.Check{
		Name: "agent/goroutines", Category: verdict.Email, Every: 30 * time.Second,
		Run: func(context.Context) verdict.Result {
			n := runtime.NumGoroutine()
			value := float64(n)
			r := verdict.Result{Value: &value, Unit: "items", Message: fmt.Sprintf("%d goroutines", n)}
			if n > limit {
				r.Status = verdict.Fail
				r.Message = fmt.Sprintf("%d goroutines, want %d at most", n, limit)
			}
			return r
		},
	}
}

// Handler is what the public listener serves, for a mux of one's own. It
// opens nothing. See [Options.Trusted].
func (a *Agent) Handler() http.Handler { return a.public }

// DebugHandler is what the debug listener serves.
func (a *Agent) DebugHandler() http.Handler { return a.debug }

// Registry holds the agent's metrics.
func (a *Agent) Registry() *metrics.Registry { return a.opts.Registry }

// Pipeline registers a pipeline of the program's own: see [metrics.Pipeline].
func (a *Agent) Pipeline(o metrics.PipelineOptions) (*metrics.Pipeline, error) {
	return a.opts.Registry.Pipeline(o)
}

// Check adds a check of the program's own to the digest.
func (a *Agent) Check(c runner.Check) error { return a.runner.Add(c) }

// Registerer takes collectors of client_golang: what they collect is served with
// /metrics.
func (a *Agent) Registerer() prometheus.Registerer { return a.program }

// Runner runs the agent's checks: for those that belong to no component.
func (a *Agent) Runner() *runner.Runner { return a.runner }

// Ready is closed when the listeners are open.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Addr is where the listener public, debug, status or control listens; nil
// when it is off or not open yet.
func (a *Agent) Addr(name string) net.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.addrs[name]
}

// controlSpec is where the command's own verbs reach the agent.
func (a *Agent) controlSpec() string {
	if a.opts.DataDir == "" {
		return "off"
	}
	path := filepath.Join(a.opts.DataDir, "control")
	// The kernel's limit for a socket's path (unix(7): 108 with its zero).
	// Only the verbs miss it: no reason not to run.
	if len(path) > 107 {
		a.log.Warn("no control socket: its path is too long", "path", path, "got", len(path), "want", 107)
		return "off"
	}
	return "unix:" + path
}

var errRanBefore = errors.New("agent: Run: got a second call, want one")
