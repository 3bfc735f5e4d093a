package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/listen"
	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// A reloadPart is a component whose configuration is the names of its checks.
type reloadPart struct {
	part
	reload func(ctx context.Context, config any) (applied, restart []string, err error)
}

func (p *reloadPart) Reload(ctx context.Context, config any) (applied, restart []string, err error) {
	return p.reload(ctx, config)
}

func namedCheck(name string) runner.Check {
	return runner.Check{Name: name, Run: func(context.Context) verdict.Result { return verdict.Result{Message: name} }}
}

// checkNames are those of the digest, but for the agent's own.
func checkNames(a *Agent) (names []string) {
	for _, c := range a.Runner().Digest(runner.Query{Category: runner.AllCategories}).Checks {
		if !strings.HasPrefix(c.Name, "agent/") && c.Name != "runner" {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names
}

// reloadFigures are the metrics of reloads, but for the time.
func reloadFigures(a *Agent) (out []string) {
	for _, f := range a.Registry().Gather() {
		if !strings.HasPrefix(f.Desc.Name, "outrider_config_reload_") || strings.Contains(f.Desc.Name, "timestamp") {
			continue
		}
		for _, p := range f.Points {
			out = append(out, fmt.Sprint(strings.TrimPrefix(f.Desc.Name, "outrider_config_reload_"), p.Tags, p.Value))
		}
	}
	return out
}

func reloadVerdict(t *testing.T, a *Agent) string {
	t.Helper()
	for range 2 { // the first may be one that looked before the reload
		if err := a.Runner().RunNow(t.Context(), reloadCheck); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range a.Runner().Digest(runner.Query{Category: runner.AllCategories}).Checks {
		if c.Name == reloadCheck {
			return fmt.Sprint(c.Status, " ", c.Message)
		}
	}
	t.Fatal("no check " + reloadCheck)
	return ""
}

func TestReload(t *testing.T) {
	p := &reloadPart{part: part{name: "sync", checks: []runner.Check{namedCheck("sync/a"), namedCheck("sync/b")}}}
	p.reload = func(_ context.Context, config any) (applied, restart []string, err error) {
		p.checks = nil
		for _, name := range config.([]string) {
			p.checks = append(p.checks, namedCheck(name))
		}
		if len(p.checks) == 1 {
			err = errors.New("sink c: no such folder")
		}
		return []string{"checks: " + strings.Join(config.([]string), " ")}, []string{"sync.kinds"}, err
	}
	other := &reloadPart{part: part{name: "other", checks: []runner.Check{namedCheck("other/x")}}}
	other.reload = func(context.Context, any) (applied, restart []string, err error) {
		t.Error("a component without a new configuration was given one")
		return nil, nil, nil
	}
	at := regexp.MustCompile(`at \d{4}-\S+Z`)
	var next func() (*Configuration, error)
	a := start(t, Options{Components: []Component{p, other}, Configuration: func() (*Configuration, error) { return next() }})
	post := func() string {
		w := ask(a.DebugHandler(), http.MethodPost, "/act/reload", "127.0.0.1:9611")
		return fmt.Sprint(w.Code, " ", w.Body.String())
	}
	give := func(names ...string) {
		next = func() (*Configuration, error) {
			return &Configuration{Components: map[string]any{"sync": names}, Restart: []string{"listen.public"}}, nil
		}
	}
	for _, tt := range []struct {
		name                    string
		prepare                 func()
		answer, verdict, checks string
		figures                 []string
	}{
		{
			"a good one is applied, and what needs a restart is named", func() { give("sync/b", "sync/c") },
			"200 checks: sync/b sync/c\nafter a restart only: listen.public, sync.kinds\n",
			"pass reloaded at TIME; after a restart only: listen.public, sync.kinds", "other/x sync/b sync/c",
			[]string{"successful[] 1", "total[failed] 0", "total[ok] 1"},
		},
		{
			"a file with mistakes changes nothing",
			func() {
				next = func() (*Configuration, error) { return nil, errors.New("o.yaml:3: sinks: got x, want a list") }
			},
			"422 configuration refused, nothing was changed:\no.yaml:3: sinks: got x, want a list\n",
			"fail reload at TIME: configuration refused, nothing was changed: o.yaml:3: sinks: got x, want a list", "other/x sync/b sync/c",
			[]string{"successful[] 0", "total[failed] 1", "total[ok] 1"},
		},
		{
			"one that is applied in part has failed", func() { give("sync/c") },
			"500 checks: sync/c\nafter a restart only: listen.public, sync.kinds\nsink c: no such folder\n",
			"fail reload at TIME: sink c: no such folder", "other/x sync/c",
			[]string{"successful[] 0", "total[failed] 2", "total[ok] 1"},
		},
		{
			"the next good one mends it", func() { give("sync/a", "sync/b") },
			"200 checks: sync/a sync/b\nafter a restart only: listen.public, sync.kinds\n",
			"pass reloaded at TIME; after a restart only: listen.public, sync.kinds", "other/x sync/a sync/b",
			[]string{"successful[] 1", "total[failed] 2", "total[ok] 2"},
		},
		{
			"a check whose name another one has is told", func() { give("sync/a", "other/x") },
			"500 checks: sync/a other/x\nafter a restart only: listen.public, sync.kinds\n" +
				`component sync: add check "other/x" (page every 10s): name is taken by "other/x" (page every 10s)` + "\n",
			`fail reload at TIME: component sync: add check "other/x" (page every 10s): name is taken by "other/x" (page every 10s)`,
			"other/x sync/a",
			[]string{"successful[] 0", "total[failed] 3", "total[ok] 2"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.prepare()
			if got := post(); got != tt.answer {
				t.Errorf("answer: got %q, want %q", got, tt.answer)
			}
			if got := at.ReplaceAllString(reloadVerdict(t, a), "at TIME"); got != tt.verdict {
				t.Errorf("check: got %q, want %q", got, tt.verdict)
			}
			if got := strings.Join(checkNames(a), " "); got != tt.checks {
				t.Errorf("checks: got %s, want %s", got, tt.checks)
			}
			if diff := cmp.Diff(tt.figures, reloadFigures(a)); diff != "" {
				t.Errorf("metrics (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnAgentWithoutAFileCannotBeReloaded(t *testing.T) {
	a := start(t, Options{})
	if w := ask(a.DebugHandler(), http.MethodPost, "/act/reload", "127.0.0.1:9611"); w.Code != http.StatusNotFound {
		t.Errorf("got %d, want 404", w.Code)
	}
	if _, err := a.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "without a configuration file") {
		t.Errorf("got %v", err)
	}
	if got := reloadFigures(a); got != nil {
		t.Errorf("metrics of what there is not: %q", got)
	}
}

func TestReloadsWaitForEachOtherAndOutliveWhoAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, done atomic.Int64
		p := &reloadPart{part: part{name: "sync"}}
		p.reload = func(context.Context, any) (applied, restart []string, err error) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Minute)
			now.Add(-1)
			done.Add(1)
			return nil, nil, nil
		}
		a := newAgent(t, Options{Components: []Component{p}, Configuration: reading("sync")})
		hurried, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		before := make(chan error, 1)
		go func() { _, err := a.Reload(hurried); before <- err }()
		synctest.Wait()
		stop := runQuietly(t, a) // the first one waits for it
		if err := <-before; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "still under way") {
			t.Errorf("one that hung up: got %v", err)
		}
		answers := make(chan error, 3)
		for range cap(answers) {
			go func() { _, err := a.Reload(t.Context()); answers <- err }()
		}
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if most.Load() != 1 || done.Load() != 4 {
			t.Errorf("%d reloads, %d at once; want 4, one at a time", done.Load(), most.Load())
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAReloadOfAnAgentThatCannotStartIsRefused(t *testing.T) {
	a := newAgent(t, Options{Listen: Listen{Public: "nowhere"}, Configuration: reading("sync")})
	if err := a.Run(t.Context()); err == nil {
		t.Fatal("it has started")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := a.Reload(ctx); !errors.Is(err, errNotRunning) {
		t.Errorf("got %v, want %v", err, errNotRunning)
	}
}

func TestAReloadTakesUsersAndTokens(t *testing.T) {
	load := func(digit string) *listen.Auth {
		path := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(path, []byte(strings.Repeat(digit, 64)), 0o600); err != nil {
			t.Fatal(err)
		}
		auth, err := listen.LoadAuth(listen.AuthOptions{BearerTokens: path})
		if err != nil {
			t.Fatal(err)
		}
		return auth
	}
	a := start(t, Options{Auth: load("0"), Configuration: func() (*Configuration, error) { return &Configuration{Auth: load("1")}, nil }})
	for _, want := range [][]string{{"listen: other users or tokens"}, nil} {
		o, err := a.Reload(t.Context())
		if diff := cmp.Diff(want, o.Applied); diff != "" || err != nil {
			t.Errorf("applied (-want +got), %v:\n%s", err, diff)
		}
	}
}

func TestAStopDuringAReloadIsClean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &reloadPart{part: part{name: "sync"}}
		p.reload = func(ctx context.Context, _ any) (applied, restart []string, err error) {
			<-ctx.Done()
			return nil, nil, ctx.Err()
		}
		a := newAgent(t, Options{Components: []Component{p}, Configuration: reading("sync")})
		stop := runQuietly(t, a)
		answers := make(chan error, 2)
		for range cap(answers) {
			go func() { _, err := a.Reload(context.Background()); answers <- err }()
		}
		synctest.Wait()
		if err := stop(); err != nil {
			t.Error(err)
		}
		var got []string
		for range cap(answers) {
			got = append(got, (<-answers).Error())
		}
		slices.Sort(got)
		if diff := cmp.Diff([]string{"context canceled", errNotRunning.Error()}, got); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
	})
}

func TestReloadMetricsAreRefusedTwice(t *testing.T) {
	reg := metricstest.Registry(t)
	d := metrics.Desc{Name: "outrider_config_reload_total", Help: "Another.", Type: metrics.GaugeType}
	if err := reg.Func(d, func(func(metrics.Point)) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Registry: reg, Configuration: reading("x")}); err == nil {
		t.Error("got no error for a metric that is described twice")
	}
}

// reading returns a configuration for one component.
func reading(component string) func() (*Configuration, error) {
	return func() (*Configuration, error) {
		return &Configuration{Components: map[string]any{component: nil}}, nil
	}
}

// runQuietly runs an agent without listeners.
func runQuietly(t *testing.T, a *Agent) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	<-a.Ready()
	return func() error { cancel(); return <-done }
}
