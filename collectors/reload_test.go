package collectors

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
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// counting is a source whose series is how often it was read.
func counting(n *atomic.Int64) *source {
	return &source{collect: func(context.Context) ([]metrics.Family, error) { return one(float64(n.Add(1))), nil }}
}

func (r *running) reload(t *testing.T, c Config, want ...string) {
	t.Helper()
	applied, restart, err := r.Reload(t.Context(), &c)
	if err != nil || len(restart) > 0 {
		t.Errorf("reload: %v, after a restart: %v", err, restart)
	}
	if diff := cmp.Diff(want, applied); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
	synctest.Wait()
}

func TestAReloadChangesOnlyWhatHasChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b, c atomic.Int64
		stays, goes, comes := item("stays", "host", counting(&a)), item("goes", "prometheus", counting(&b)), item("comes", "prometheus", counting(&c))
		r := start(t, Options{Config: Config{Items: []Item{stays, goes}}})
		r.reload(t, Config{Items: []Item{stays, goes}})
		time.Sleep(5 * time.Second)
		r.reload(t, Config{Items: []Item{comes, stays}}, "neighbour/comes: added", "neighbour/goes: removed")
		if a.Load() != 1 || b.Load() != 1 || c.Load() != 1 {
			t.Errorf("read %d, %d and %d times, want once each", a.Load(), b.Load(), c.Load())
		}
		if diff := cmp.Diff([]string{"neighbour/comes pass read 0s ago", "collector/stays pass read 5s ago"}, r.verdicts(t)); diff != "" {
			t.Error(diff)
		}
		if _, ok := value(r.reg.Gather(), "outrider_collector_series", "goes"); ok {
			t.Error("the figures of what is gone are still shown")
		}
		comes.Every = time.Second
		comes.Timeout = time.Second
		check := r.Checks()[0].Run // what the agent has, before and after
		r.reload(t, Config{Items: []Item{comes}}, "neighbour/comes: changed", "collector/stays: removed")
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if n := c.Load(); n != 12 {
			t.Errorf("read %d times, want 12: once, and every second from the change on", n)
		}
		if v := check(t.Context()); v.Message != "read 0s ago" {
			t.Errorf("the check says %q of a collector whose place was taken", v.Message)
		}
		for _, f := range r.reg.Gather() {
			if f.Desc.Name == "outrider_collector_duration_seconds" && (len(f.Points) != 1 || f.Points[0].Hist.Count != 12) {
				t.Errorf("%+v: want the figures of one collector, which go on", f.Points)
			}
		}
		r.reload(t, Config{}, "neighbour/comes: removed")
		r.reload(t, Config{Items: []Item{stays}}, "collector/stays: added")
		r.wants(t, 2, "one", "x") // how often its source was read
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if _, _, err := r.Reload(t.Context(), &Config{Items: []Item{goes}}); !errors.Is(err, errStopped) {
			t.Errorf("a reload after the end: got %v, want %v", err, errStopped)
		}
	})
}

// TestPipelinesOverAReload: one whose words stay keeps its books, though the
// collector that reads it is another.
func TestPipelinesOverAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := atomic.Int64{}
		in.Store(100)
		sold := &source{collect: func(context.Context) ([]metrics.Family, error) {
			return shop(float64(in.Add(10)), 50, 0, 0, 0), nil
		}}
		api, p := item("api", "prometheus", sold), orders()
		r := start(t, Options{Config: Config{Items: []Item{api}, Pipelines: []Pipeline{p}}})
		balance := func(want float64) {
			t.Helper()
			synctest.Wait()
			r.wants(t, want, "outrider_pipeline_balance", "orders", "", "orders", "api")
		}
		balance(0)
		time.Sleep(10 * time.Second)
		balance(10)
		api.Every = 20 * time.Second
		r.reload(t, Config{Items: []Item{api}, Pipelines: []Pipeline{p}}, "neighbour/api: changed")
		balance(20)
		p.Unit = "carts"
		r.reload(t, Config{Items: []Item{api}, Pipelines: []Pipeline{p}}, "pipeline api:orders: changed")
		time.Sleep(20 * time.Second)
		synctest.Wait()
		r.wants(t, 0, "outrider_pipeline_balance", "orders", "", "carts", "api")
		r.reload(t, Config{Items: []Item{api}}, "pipeline api:orders: removed")
		for _, f := range r.reg.Gather() {
			if f.Desc.Name == "outrider_pipeline_balance" && len(f.Points) > 0 {
				t.Errorf("a pipeline that was taken out is shown: %+v", f.Points)
			}
		}
	})
}

func TestAReloadThatIsRefusedChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		stays := item("stays", "host", counting(&n))
		r := start(t, Options{Config: Config{Items: []Item{stays}}})
		bad := stays
		bad.Config = &DogStatsDConfig{Listen: "nowhere"}
		for _, c := range []Config{{Items: []Item{bad}}, {Items: []Item{stays, stays}}, {Pipelines: []Pipeline{orders()}}} {
			applied, _, err := r.Reload(t.Context(), &c)
			if err == nil || len(applied) > 0 {
				t.Errorf("%+v: got %v and %v, want it refused", c, applied, err)
			}
		}
		if _, _, err := r.Reload(t.Context(), 1); err == nil || !strings.HasPrefix(err.Error(), "BUG: ") {
			t.Errorf("got %v", err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.wants(t, 2, "one", "x")
	})
}

// TestACollectorThatAReloadBreaksIsTriedAgain: it ends nobody, and says why.
func TestACollectorThatAReloadBreaksIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Bool
		busy.Store(true)
		var n atomic.Int64
		socket := counting(&n)
		socket.run = func(ctx context.Context) error {
			if busy.Load() {
				return errors.New("address already in use")
			}
			<-ctx.Done()
			return nil
		}
		c := Config{Items: []Item{item("socket", "host", socket)}}
		r := start(t, Options{})
		if _, _, err := r.Reload(t.Context(), &c); err != nil {
			t.Errorf("reload: %v; nobody knows yet", err)
		}
		synctest.Wait()
		if diff := cmp.Diff([]string{"collector/socket fail address already in use"}, r.verdicts(t)); diff != "" {
			t.Error(diff)
		}
		busy.Store(false)
		r.reload(t, c, "collector/socket: changed")
		if diff := cmp.Diff([]string{"collector/socket pass read 0s ago"}, r.verdicts(t)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestASocketOutlastsAReload: all is counted that is sent while the collector is
// changed again and again.
func TestASocketOutlastsAReload(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/socket"
	items := func(ttl time.Duration) Config {
		c := statsdConfig(t, "unix://"+path)
		c.TTL = ttl
		return Config{Items: []Item{{Item: config.Item{Name: "statsd", Kind: "dogstatsd", Config: &c}, Every: time.Second, Timeout: time.Second}}}
	}
	reg := metricstest.Registry(t)
	s, err := New(Options{Config: items(time.Minute), Registry: reg, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	statsdUntil(t, "it listens", func() bool { return len(reg.Pipelines()) == 2 })
	conn := statsdDial(t, "unixgram", path)
	var sent atomic.Int64
	stop, sending := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sending)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := conn.Write([]byte("hits:1|c")); err != nil {
				t.Error(err)
				return
			}
			sent.Add(1)
		}
	}()
	for i := range 20 {
		next := items(time.Duration(i+2) * time.Minute)
		if _, _, err := s.Reload(t.Context(), &next); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-sending
	packets := func() (s metrics.PipelineSnapshot) {
		for _, p := range reg.Pipelines() {
			if p.Unit == "packets" {
				s = p
			}
		}
		return s
	}
	statsdUntil(t, "all is counted", func() bool { return packets().Out == sent.Load() })
	if p := packets(); p.In != p.Out || p.TotalDropped() != 0 || p.Out == 0 {
		t.Errorf("%+v: want the %d that were sent counted", p, sent.Load())
	}
	statsdUntil(t, "the series has them all", func() bool {
		v, _ := value(s.Sources()[0].Gather(), "hits_total")
		return v == float64(sent.Load())
	})
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
