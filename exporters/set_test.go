package exporters

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// TestExportersOverAReload: what waits in an outage outlasts the change of an
// exporter, and the books stay open.
func TestExportersOverAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := metricstest.Registry(t)
		var v atomic.Int64
		v.Store(40)
		feeds := func() []Feed {
			return []Feed{{FromZero: true, Source: source(func() []metrics.Family {
				return []metrics.Family{family("c", metrics.CounterType, float64(v.Load()))}
			})}}
		}
		item := func(name string, b Builder, every time.Duration) Config {
			return Config{Item: config.Item{Name: name, Kind: "recorder", Config: b}, Every: every}
		}
		dead := &recorder{batch: 10, send: func(context.Context, []Point) (Sent, error) { return Sent{}, errors.New("connection refused") }}
		lives, stays := &recorder{batch: 10}, &recorder{batch: 10}
		s, err := NewSet(SetOptions{
			SetConfig: SetConfig{Items: []Config{item("a", recorderConfig{dead}, 10*time.Second), item("b", recorderConfig{stays}, 10*time.Second)}},
			Feeds:     feeds, Registry: reg, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		reload := func(c SetConfig, want ...string) {
			t.Helper()
			applied, restart, err := s.Reload(t.Context(), &c)
			if err != nil || len(restart) > 0 {
				t.Errorf("reload: %v, after a restart %v", err, restart)
			}
			if diff := cmp.Diff(want, applied); diff != "" {
				t.Errorf("applied (-want +got):\n%s", diff)
			}
			synctest.Wait()
		}
		balanced := func(target string) metrics.PipelineSnapshot {
			t.Helper()
			for _, p := range reg.Pipelines() {
				if off, known := p.Balance(); p.Target == target && (off != 0 || !known) {
					t.Errorf("%s: balance %d, known %t, want 0", target, off, known)
				}
				if p.Target == target {
					return p
				}
			}
			return metrics.PipelineSnapshot{}
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		b := item("b", recorderConfig{stays}, 10*time.Second)
		v.Store(42)
		reload(SetConfig{Items: []Config{b, item("a", recorderConfig{lives}, 20*time.Second)}}, "exporter a: changed")
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if got := lives.sums()["c,n=0"]; got != 42 {
			t.Errorf("the one that took its place sent %g, want 42: what waited and what came", got)
		}
		if p := balanced("a"); p.In != p.Out || p.In < 3 || p.TotalDropped() > 0 {
			t.Errorf("%+v: want all that came in sent", p)
		}
		if got := stays.sums()["c,n=0"]; got != 42 {
			t.Errorf("the one that stays sent %g, want 42", got)
		}
		reload(SetConfig{Items: []Config{b}}, "exporter a: removed")
		if p := balanced("a"); p.Name != "" {
			t.Errorf("what was taken out is shown: %+v", p)
		}
		reload(SetConfig{Items: []Config{b}, Tags: map[string]string{"env": "prod"}}, "exporter b: changed")
		applied, _, err := s.Reload(t.Context(), &SetConfig{Items: []Config{item("x", failingConfig{}, time.Second)}})
		if err == nil || !strings.Contains(err.Error(), "exporter x: no such place") || len(applied) > 0 {
			t.Errorf("got %v and %v, want it refused", applied, err)
		}
		balanced("b")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if all := reg.Pipelines(); len(all) > 0 {
			t.Errorf("after the end %+v is shown", all)
		}
		if _, _, err := s.Reload(t.Context(), &SetConfig{Items: []Config{item("c", recorderConfig{lives}, time.Second)}}); !errors.Is(err, errStopped) {
			t.Errorf("a reload after the end: got %v, want %v", err, errStopped)
		}
	})
}

// failingConfig cannot be built.
type failingConfig struct{}

func (failingConfig) Build(Env) (Exporter, error) { return nil, errors.New("no such place") }

// teller is an exporter that also gives verdicts away.
type teller struct {
	*recorder
	told chan Verdict
}

func (c teller) Build(Env) (Exporter, error) { return c, nil }

func (c teller) Tell(v Verdict) { c.told <- v }

func TestVerdictsAreToldWithEachReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kind := teller{&recorder{}, make(chan Verdict, 100)}
		s, err := NewSet(SetOptions{
			SetConfig: SetConfig{Items: []Config{
				{Item: config.Item{Name: "a", Kind: "teller", Config: kind}, Every: 10 * time.Second},
				{Item: config.Item{Name: "b", Kind: "recorder", Config: recorderConfig{&recorder{}}}, Every: 10 * time.Second},
			}},
			Registry: metricstest.Registry(t), Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		want := Verdict{Name: "outrider.check", Status: verdict.Fail, Message: "refused", Tags: []Tag{{"check", "db"}}}
		s.Attach(func() []Verdict { return []Verdict{want} })
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		close(kind.told)
		n := 0
		for got := range kind.told {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			n++
		}
		if n != 4 { // at once, after ten and twenty seconds, and at the end
			t.Errorf("told %d times in 25 seconds, want 4", n)
		}
	})
}
