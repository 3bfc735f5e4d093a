package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestRunServesAndStops(t *testing.T) {
	dir := t.TempDir()
	p := &part{name: "sync", actions: map[string]http.Handler{"replay": text("replayed")}, status: "sync is fine\n"}
	a := start(t, Options{
		Service: "payments", DataDir: dir, Components: []Component{p}, MetricsHandler: series,
		Listen: Listen{Public: ":0", Debug: ":0", Status: ":0"},
	})
	get := func(name, path string) string {
		r, err := http.Get("http://" + a.Addr(name).String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := get("public", "/metrics"); got != "series" {
		t.Errorf("metrics: got %q", got)
	}
	if got := get("debug", "/debug/vars"); !strings.Contains(got, "memstats") {
		t.Errorf("vars: got %q", got)
	}
	c, err := net.Dial("tcp", a.Addr("status").String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || !strings.Contains(string(got), "service payments") || !strings.HasSuffix(string(got), "sync is fine\n") {
		t.Errorf("status: got %q (%v)", got, err)
	}
	control := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "control"))
	}}}
	defer control.CloseIdleConnections()
	r, err := control.Post("http://outrider/act/replay", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if b, _ := io.ReadAll(r.Body); string(b) != "replayed" {
		t.Errorf("control: got %d %q, want replayed", r.StatusCode, b)
	}
	if err := a.Run(t.Context()); !errors.Is(err, errRanBefore) {
		t.Errorf("second run: got %v, want %v", err, errRanBefore)
	}
}

func TestListenersThatMayNotOpen(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	taken := busy.Addr().String()
	for name, tt := range map[string]struct {
		l    Listen
		want string
		is   error
	}{
		"a busy port": {
			Listen{Public: taken},
			"public listener: listen " + taken + ": address already in use: stop the process that listens there, or set listen.public to another address, or to off",
			syscall.EADDRINUSE,
		},
		"debug open to the world": {
			Listen{Debug: "0.0.0.0:0"},
			"debug listener 0.0.0.0:0: not on loopback and without authentication: set listen.web_config_file or listen.bearer_tokens_file, or listen on loopback",
			nil,
		},
		"status open to the world": {
			Listen{Public: ":0", Status: "0.0.0.0:0"},
			"status listener 0.0.0.0:0: not on loopback, and the status text has no authentication: listen on loopback or unix:/path",
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			ran := false
			a := newAgent(t, Options{Listen: tt.l, Components: []Component{&part{name: "c", run: func(context.Context) error { ran = true; return nil }}}})
			err := a.Run(t.Context())
			if err == nil || err.Error() != tt.want || tt.is != nil && !errors.Is(err, tt.is) || ran {
				t.Errorf("got %v (component ran: %v), want %s", err, ran, tt.want)
			}
			if a := a.Addr("public"); a != nil {
				if c, err := net.Dial("tcp", a.String()); err == nil {
					_ = c.Close()
					t.Error("the public listener is still open")
				}
			}
		})
	}
}

func TestAFailureStopsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		stopped := false
		a := newAgent(t, Options{Components: []Component{
			&part{name: "other", run: func(ctx context.Context) error { <-ctx.Done(); stopped = true; return ctx.Err() }},
			&part{name: "done", run: func(context.Context) error { return nil }},
			&part{name: "bad", run: func(context.Context) error { time.Sleep(time.Hour); return boom }},
		}})
		err := a.Run(t.Context())
		if !errors.Is(err, boom) || err.Error() != "component bad: boom" || !stopped {
			t.Errorf("got %v (other stopped: %v), want component bad: boom", err, stopped)
		}
	})
}

func TestStopping(t *testing.T) {
	for _, tt := range []struct {
		name  string
		stops time.Duration // how long the component takes
		err   func(ctx context.Context) error
		want  string
		took  time.Duration
	}{
		{"a component that is slow to stop", StopTimeout - time.Second, context.Context.Err, "", StopTimeout - time.Second},
		{"a component that says why it stopped", 0, func(ctx context.Context) error { return fmt.Errorf("read: %w", context.Cause(ctx)) }, "", 0},
		{"a component that fails while it stops", 0, func(context.Context) error { return errors.New("flush: disk full") }, "component c: flush: disk full", 0},
		{"a component that hangs", time.Hour, context.Context.Err, "stop: component c: still running after 5s", StopTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				run := func(ctx context.Context) error {
					<-ctx.Done()
					time.Sleep(tt.stops)
					return tt.err(ctx)
				}
				a := newAgent(t, Options{Components: []Component{&part{name: "c", run: run}, &part{name: "d"}}})
				// As signal.NotifyContext does: the cause names the signal.
				ctx, cancel := context.WithCancelCause(t.Context())
				go func() { <-a.Ready(); cancel(errors.New("terminated")) }()
				began := time.Now()
				err := a.Run(ctx)
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if took := time.Since(began); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				time.Sleep(tt.stops) // the bubble wants all of its goroutines to end
			})
		})
	}
}

func TestABrokenListenerStopsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, Options{Components: []Component{&part{name: "c"}}})
		broken := make(chan error, 1)
		broken <- errors.New("public listener: too many open files")
		if err := a.runParts(t.Context(), broken, nil); err == nil || err.Error() != "public listener: too many open files" {
			t.Errorf("got %v, want the listener's error", err)
		}
	})
}
