package agent

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/agent/listen"
	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
	"github.com/prometheus/client_golang/prometheus"
)

// A part is a component with every ability.
type part struct {
	name    string
	run     func(context.Context) error
	routes  map[string]http.Handler
	actions map[string]http.Handler
	checks  []runner.Check
	status  string
}

func (p *part) Name() string                     { return p.name }
func (p *part) Routes() map[string]http.Handler  { return p.routes }
func (p *part) Actions() map[string]http.Handler { return p.actions }
func (p *part) Checks() []runner.Check           { return p.checks }
func (p *part) Status(w io.Writer)               { _, _ = io.WriteString(w, p.status) }
func (p *part) Run(ctx context.Context) error {
	if p.run == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return p.run(ctx)
}

func newAgent(t *testing.T, o Options) *Agent {
	t.Helper()
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// start runs an agent until the test ends, which must be a clean stop.
func start(t *testing.T, o Options) *Agent {
	t.Helper()
	a := newAgent(t, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	select {
	case <-a.Ready():
	case err := <-done:
		t.Fatalf("run: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return a
}

func series(*metrics.Registry, *prometheus.Registry) http.Handler { return text("series") }

func text(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) })
}

// ask asks a handler as if the request had come in on listener.
func ask(h http.Handler, method, path, listener string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1"+path, nil)
	addr, err := net.ResolveTCPAddr("tcp", listener)
	if err != nil {
		panic(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(listen.On(r.Context(), addr)))
	return w
}

func TestPublicListener(t *testing.T) {
	page := &part{name: "pages", routes: map[string]http.Handler{"/pipelines": text("a page")}}
	page.checks = []runner.Check{{Name: "pages/secret-name", Run: func(context.Context) verdict.Result { return verdict.Result{} }}}
	a := newAgent(t, Options{Service: "payments", MetricsHandler: series, Components: []Component{page}})
	const loopback, world = "127.0.0.1:9610", "0.0.0.0:9610"
	for _, tt := range []struct {
		path, listener string
		code           int
		has, hasNot    string
	}{
		{"/healthz", loopback, 200, "pages/secret-name", ""},
		{"/healthz", world, 200, "unknown", "pages/secret-name"},
		{"/livez", world, 200, "", "pages"},
		{"/readyz?full=1", world, 503, "", "runner"},
		{"/readyz?full=1", loopback, 503, "runner", ""},
		{"/metrics", loopback, 200, "series", ""},
		{"/metrics", world, 403, "no authentication", "series"},
		{"/pipelines", loopback, 200, "a page", ""},
		{"/pipelines", world, 403, "", "a page"},
		{"/", loopback, 200, `<a href="/pipelines">`, ""},
		{"/", world, 403, "", "payments"},
		{"/nowhere", loopback, 404, "", ""},
		{"/debug/pprof/", loopback, 404, "", ""},
		{"/debug/pprof/heap", loopback, 404, "", ""},
		{"/debug/vars", loopback, 404, "", ""},
		{"/act/reload", loopback, 404, "", ""},
		{"/status", loopback, 404, "", ""},
	} {
		w := ask(a.Handler(), "GET", tt.path, tt.listener)
		body := w.Body.String()
		if w.Code != tt.code || !strings.Contains(body, tt.has) || tt.hasNot != "" && strings.Contains(body, tt.hasNot) {
			t.Errorf("%s on %s: got %d %q, want %d with %q, without %q", tt.path, tt.listener, w.Code, body, tt.code, tt.has, tt.hasNot)
		}
	}
}

func TestDebugListener(t *testing.T) {
	act := &part{name: "sync", actions: map[string]http.Handler{"replay": text("replayed")}}
	a := newAgent(t, Options{Service: "payments", Components: []Component{act}})
	const loopback, world = "127.0.0.1:9611", "0.0.0.0:9611"
	for _, tt := range []struct {
		method, path, listener string
		code                   int
		has                    string
	}{
		{"GET", "/debug/pprof/", loopback, 200, "goroutine"},
		{"GET", "/debug/pprof/goroutine?debug=1", loopback, 200, "goroutine profile"},
		{"GET", "/debug/pprof/profile?seconds=301", loopback, 400, "at most 300"},
		{"GET", "/debug/pprof/trace?seconds=nan", loopback, 400, "at most 300"},
		{"GET", "/debug/pprof/", world, 403, ""},
		{"GET", "/debug/vars", loopback, 200, "memstats"},
		{"GET", "/debug/vars", world, 403, ""},
		{"GET", "/status", loopback, 200, "service payments"},
		{"GET", "/", loopback, 200, "/act/replay"},
		{"POST", "/act/replay", loopback, 200, "replayed"},
		{"GET", "/act/replay", loopback, 405, "want POST"},
		{"POST", "/act/replay", world, 403, ""},
		{"GET", "/healthz", loopback, 404, ""},
	} {
		w := ask(a.DebugHandler(), tt.method, tt.path, tt.listener)
		if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.has) {
			t.Errorf("%s %s on %s: got %d %.200q, want %d %q", tt.method, tt.path, tt.listener, w.Code, w.Body, tt.code, tt.has)
		}
	}
}

func TestOneProfileAtATime(t *testing.T) {
	slot := make(chan struct{}, 1)
	started, finish := make(chan struct{}), make(chan struct{})
	h := timed(slot, func(http.ResponseWriter, *http.Request) { close(started); <-finish })
	done := make(chan struct{})
	go func() { defer close(done); ask(h, "GET", "/", "127.0.0.1:1") }()
	<-started
	if w := ask(h, "GET", "/", "127.0.0.1:1"); w.Code != http.StatusTooManyRequests {
		t.Errorf("second: got %d, want 429", w.Code)
	}
	close(finish)
	<-done
	if len(slot) != 0 {
		t.Error("the slot is not free after the profile")
	}
}

func TestEmbeddingOpensNothing(t *testing.T) {
	a := newAgent(t, Options{MetricsHandler: series, Trusted: true})
	s := httptest.NewServer(a.Handler())
	defer s.Close()
	r, err := http.Get(s.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if b, _ := io.ReadAll(r.Body); string(b) != "series" {
		t.Errorf("got %q, want what MetricsHandler serves", b)
	}
	w := httptest.NewRecorder()
	newAgent(t, Options{MetricsHandler: series}).Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusForbidden {
		t.Errorf("not trusted: got %d, want 403", w.Code)
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	check := runner.Check{Name: "a", Run: func(context.Context) verdict.Result { return verdict.Result{} }}
	h := text("")
	for want, parts := range map[string][]Component{
		`component "a": want a name of its own`: {&part{name: "a"}, &part{name: "a"}},
		`component "": want a name of its own`:  {&part{}},
		`component b: add check "a"`:            {&part{name: "a", checks: []runner.Check{check}}, &part{name: "b", checks: []runner.Check{check}}},
		"component a: route /healthz":           {&part{name: "a", routes: map[string]http.Handler{"/healthz": h}}},
		"component a: route nopath":             {&part{name: "a", routes: map[string]http.Handler{"nopath": h}}},
		"component b: action replay":            {&part{name: "a", actions: map[string]http.Handler{"replay": h}}, &part{name: "b", actions: map[string]http.Handler{"replay": h}}},
	} {
		if _, err := New(Options{Components: parts}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestAComponentCanBringTheIndex(t *testing.T) {
	for _, pattern := range []string{"/", "/{$}", "GET /{$}"} {
		a := newAgent(t, Options{Components: []Component{&part{name: "web", routes: map[string]http.Handler{pattern: text("my page")}}}})
		if w := ask(a.Handler(), "GET", "/", "127.0.0.1:1"); w.Body.String() != "my page" {
			t.Errorf("%s: got %q, want the component's page", pattern, w.Body)
		}
	}
}

func TestRegistryHasTheChecks(t *testing.T) {
	reg := metricstest.Registry(t)
	a := newAgent(t, Options{Registry: reg})
	if a.Registry() != reg {
		t.Error("Registry is not the one given")
	}
	for _, f := range reg.Gather() {
		for _, p := range f.Points {
			if len(p.Tags) > 0 && p.Tags[0] == "agent/goroutines" {
				return
			}
		}
	}
	t.Error("got no series of the check agent/goroutines")
}
