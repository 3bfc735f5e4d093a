package collectors

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
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

// source is a collector that does what its function says.
type source struct {
	collect func(ctx context.Context) ([]metrics.Family, error)
	run     func(ctx context.Context) error
}

func (s *source) Build(Env) (Collector, error) {
	if s.run != nil {
		return &runningSource{s}, nil
	}
	return s, nil
}

func (s *source) Collect(ctx context.Context) ([]metrics.Family, error) { return s.collect(ctx) }

type runningSource struct{ *source }

func (s *runningSource) Run(ctx context.Context) error { return s.run(ctx) }

func one(v float64) []metrics.Family {
	return []metrics.Family{{
		Desc:   metrics.Desc{Name: "one", Help: "One.", Type: metrics.GaugeType, Tags: []string{"t"}},
		Points: []metrics.Point{{Tags: []string{"x"}, Value: v}},
	}}
}

func item(name, kind string, s *source) Item {
	return Item{Item: config.Item{Name: name, Kind: kind, Config: s}, Every: 10 * time.Second, Timeout: 5 * time.Second}
}

// running is a set at work in a bubble of virtual time.
type running struct {
	*Set
	reg  *metrics.Registry
	stop func() error
}

func start(t *testing.T, o Options) *running {
	t.Helper()
	r := &running{reg: metricstest.Registry(t)}
	o.Registry, o.Log, o.Now = r.reg, slog.New(slog.DiscardHandler), time.Now
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r.Set, r.stop = s, sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = r.stop() })
	synctest.Wait()
	return r
}

// value is that of a series; ok is false when it is not shown.
func value(fams []metrics.Family, name string, tags ...string) (v float64, ok bool) {
	for _, f := range fams {
		for _, p := range f.Points {
			if f.Desc.Name == name && cmp.Equal(append([]string{}, p.Tags...), append([]string{}, tags...)) {
				return p.Value, true
			}
		}
	}
	return 0, false
}

func (r *running) wants(t *testing.T, want float64, name string, tags ...string) {
	t.Helper()
	if got, ok := value(r.reg.Gather(), name, tags...); !ok || got != want {
		t.Errorf("%s%v: got %v (%t), want %v", name, tags, got, ok, want)
	}
}

func (r *running) verdicts(t *testing.T) (out []string) {
	t.Helper()
	for _, c := range r.Checks() {
		v := c.Run(t.Context())
		out = append(out, c.Name+" "+v.Status.String()+" "+v.Message)
	}
	return out
}

func TestEachCollectorIsReadAtItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mine, theirs atomic.Int64
		var mu sync.Mutex
		var observed []string
		count := func(n *atomic.Int64) *source {
			return &source{collect: func(context.Context) ([]metrics.Family, error) { return one(float64(n.Add(1))), nil }}
		}
		fast := item("fast", "host", count(&mine))
		fast.Every = time.Second
		r := start(t, Options{
			Config: Config{Items: []Item{fast, item("slow", "prometheus", count(&theirs))}},
			Observe: func(_ time.Time, source string, fams []metrics.Family) {
				mu.Lock()
				defer mu.Unlock()
				observed = append(observed, source)
			},
		})
		time.Sleep(30*time.Second + time.Millisecond)
		synctest.Wait()
		r.wants(t, 31, "one", "x")
		r.wants(t, 1, "outrider_collector_series", "slow")
		slow := r.Sources()[1]
		if v, _ := value(slow.Gather(), "one", "x"); v != 4 || slow.Name != "slow" || !slow.Neighbour || slow.FromZero {
			t.Errorf("%+v: read %v times, want slow, a neighbour, 4 times", slow, v)
		}
		mu.Lock()
		defer mu.Unlock()
		if n := strings.Count(strings.Join(observed, ","), "slow"); n != 4 || len(observed) != 35 {
			t.Errorf("%d reads observed, %d of them of slow, want 35 and 4", len(observed), n)
		}
		if diff := cmp.Diff([]string{"collector/fast pass read 0s ago", "neighbour/slow pass read 0s ago"}, r.verdicts(t)); diff != "" {
			t.Error(diff)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if _, ok := value(r.reg.Gather(), "one", "x"); ok {
			t.Error("after the end its series are still shown")
		}
	})
}

func TestWhatCannotBeReadIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var fams []metrics.Family
		err := errors.New("status 500, want 200")
		r := start(t, Options{Config: Config{Items: []Item{item("a", "host", &source{collect: func(context.Context) ([]metrics.Family, error) {
			mu.Lock()
			defer mu.Unlock()
			return fams, err
		}})}}})
		next := func(f []metrics.Family, e error) {
			mu.Lock()
			fams, err = f, e
			mu.Unlock()
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		for _, step := range []struct {
			fams  []metrics.Family
			err   error
			shown bool
			want  string
		}{
			{one(1), nil, true, "collector/a pass read 0s ago"},
			{one(2), errors.New("disk: no such file"), true, "collector/a warn disk: no such file"},
			{nil, errors.New("connection refused"), false, "collector/a fail connection refused"},
			{one(3), nil, true, "collector/a pass read 0s ago"},
		} {
			next(step.fams, step.err)
			if _, ok := value(r.reg.Gather(), "one", "x"); ok != step.shown {
				t.Errorf("%v, %v: shown %t, want %t", step.fams, step.err, ok, step.shown)
			}
			if got := r.verdicts(t)[0]; got != step.want {
				t.Errorf("got %s, want %s", got, step.want)
			}
		}
		r.wants(t, 3, "outrider_collector_errors_total", "a")
	})
}

func TestACollectorThatHangsOrPanicsHurtsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var reads atomic.Int64
		r := start(t, Options{Config: Config{Items: []Item{
			item("hangs", "host", &source{collect: func(context.Context) ([]metrics.Family, error) { reads.Add(1); <-release; return one(7), nil }}),
			item("panics", "prometheus", &source{collect: func(context.Context) ([]metrics.Family, error) { panic("division by zero") }}),
			item("heeds", "prometheus", &source{collect: func(ctx context.Context) ([]metrics.Family, error) {
				<-ctx.Done()
				return one(1), ctx.Err()
			}}),
		}}})
		time.Sleep(25 * time.Second)
		synctest.Wait()
		want := []string{
			"collector/hangs fail the read before has not come back yet",
			"neighbour/panics fail panic: division by zero",
			"neighbour/heeds warn context deadline exceeded",
		}
		if diff := cmp.Diff(want, r.verdicts(t)); diff != "" {
			t.Error(diff)
		}
		if n := reads.Load(); n != 1 {
			t.Errorf("the one that hangs was read %d times, want once until it comes back", n)
		}
		close(release)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.wants(t, 7, "one", "x")
	})
}

func TestACollectorOfItsOwnThatFailsEndsTheSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Options{Config: Config{Items: []Item{item("socket", "host", &source{
			collect: func(context.Context) ([]metrics.Family, error) { return nil, nil },
			run:     func(context.Context) error { return errors.New("address already in use") },
		})}}})
		synctest.Wait()
		if err := r.stop(); err == nil || err.Error() != "collector socket: address already in use" {
			t.Errorf("got %v, want collector socket: address already in use", err)
		}
	})
}

func TestItemsThatAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		every, timeout time.Duration
		want           string
	}{
		"too often":                     {time.Millisecond, 0, "every: got 1ms, want 100ms to 1h0m0s"},
		"too seldom":                    {2 * time.Hour, 0, "every: got 2h0m0s, want 100ms to 1h0m0s"},
		"a deadline after the next":     {time.Second, 2 * time.Second, "timeout: got 2s, want 1ms to every, which is 1s"},
		"a deadline that has gone by":   {time.Second, -1, "timeout: got -1ns, want 1ms to every, which is 1s"},
		"the deadline is what it takes": {time.Minute, 0, ""},
	} {
		i := Item{Every: tt.every, Timeout: tt.timeout}
		if err := i.Validate(); (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	i := Item{Every: time.Minute}
	if err := i.Validate(); err != nil || i.Timeout != 10*time.Second {
		t.Errorf("deadline of a read a minute: %v (%v), want 10s", i.Timeout, err)
	}
}

func TestTheSameNameTwice(t *testing.T) {
	s := &source{collect: func(context.Context) ([]metrics.Family, error) { return nil, nil }}
	_, err := New(Options{Config: Config{Items: []Item{item("a", "host", s), item("a", "host", s)}}, Registry: metricstest.Registry(t), Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "collector a: the name is a neighbour's too") {
		t.Errorf("got %v, want the name refused", err)
	}
}

func TestAnUnreadCollectorIsUnknown(t *testing.T) {
	u := &unit{now: time.Now}
	if r := u.check(t.Context()); r.Status != verdict.Unknown {
		t.Errorf("got %v, want unknown", r.Status)
	}
}
