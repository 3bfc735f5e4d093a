package history

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

func dropped(h *History) map[string]int64 { return h.pipe.Snapshot().Dropped }

// noise returns a family of n series of random values.
func noise(r *rand.Rand, n int) metrics.Family {
	f := gauge("noise", []string{"n"})
	for i := range n {
		f.Points = append(f.Points, point(r.Float64(), fmt.Sprintf("%06d", i)))
	}
	return f
}

func TestTheSourceThatTakesMostGivesFirst(t *testing.T) {
	c, r := newClock(), rand.New(rand.NewPCG(1, 1))
	h := open(t, c, Options{Budget: 512 << 10})
	for second := range 3000 {
		c.now = c.now.Add(time.Second)
		h.Observe(c.now, "greedy", []metrics.Family{noise(r, 200)})
		h.Observe(c.now, "modest", []metrics.Family{noise(r, 2)})
		if used := h.Bytes(); used > 512<<10 {
			t.Fatalf("%d bytes after %d s, budget %d", used, second, 512<<10)
		}
	}
	if dropped(h)[dropBudget] == 0 {
		t.Error("nothing was given up, want the greedy source's oldest samples")
	}
	greedy, modest := h.Reach("greedy"), h.Reach("modest")
	if greedy > 10*time.Minute || greedy < time.Minute || modest < 2998*time.Second {
		t.Errorf("reach %s and %s, want minutes and all of the %d s", greedy, modest, 3000)
	}
	var first time.Time
	for when := range h.Select("noise", func(s Series) bool { return s.Source == "greedy" })[0].Range(time.Time{}, c.now) {
		first = when
		break
	}
	if back := c.now.Sub(first); back < greedy {
		t.Errorf("the first sample is %s old, the reach is %s", back, greedy)
	}
}

func TestAMillionSeriesAreRefusedAndTheOthersStay(t *testing.T) {
	c, r := newClock(), rand.New(rand.NewPCG(1, 1))
	h := open(t, c, Options{Budget: 4 << 20})
	million := gauge("flood", []string{"id"})
	for i := range 1_000_000 {
		million.Points = append(million.Points, point(1, fmt.Sprint(i)))
	}
	for range 40 {
		c.now = c.now.Add(10 * time.Second)
		h.Observe(c.now, "modest", []metrics.Family{noise(r, 100)})
	}
	began := heap()
	c.now = c.now.Add(10 * time.Second)
	h.Observe(c.now, "flood", []metrics.Family{million})
	if grown := heap() - began; grown > 4<<20 {
		t.Errorf("the heap grew by %d bytes, want at most the budget", grown)
	}
	runtime.KeepAlive(h)
	runtime.KeepAlive(million)
	if n := dropped(h)[dropRefused]; n < 900_000 {
		t.Errorf("%d were refused, want nearly all", n)
	}
	if reach := h.Reach("modest"); reach < 390*time.Second {
		t.Errorf("the modest source's reach is %s, want all of its 6m40s", reach)
	}
	h.Observe(c.now.Add(time.Second), "late", []metrics.Family{noise(r, 100)})
	if got := len(h.Select("noise", func(s Series) bool { return s.Source == "late" })); got != 100 {
		t.Errorf("%d series of a source that came after the flood, want 100", got)
	}
}

func TestWhatIsIdleVanishes(t *testing.T) {
	c, r := newClock(), rand.New(rand.NewPCG(1, 1))
	h := open(t, c, Options{Keep: 10 * time.Minute})
	timer := metrics.NewTimer()
	for range 1000 {
		c.now = c.now.Add(time.Second)
		timer.Observe(time.Millisecond)
		s := timer.Snapshot()
		h.Observe(c.now, "a", []metrics.Family{noise(r, 50), histogram("lag_seconds", &s)})
	}
	for range 700 {
		c.now = c.now.Add(time.Second)
		h.Observe(c.now, "b", []metrics.Family{counter("n_total", 1)})
	}
	h.mu.Lock()
	sources := len(h.sources)
	h.mu.Unlock()
	if sources != 1 {
		t.Errorf("%d sources, want b alone", sources)
	}
	c.now = c.now.Add(time.Hour)
	h.sweep(c.now.UnixMilli()) // chunks
	p := h.pipe.Snapshot()
	if h.Bytes() != 0 || p.Queued != 0 || p.In != p.Out || p.In < 50_000 {
		t.Errorf("%d bytes are left, books %+v, want none and all samples out", h.Bytes(), p)
	}
}

func TestLittleIsKeptForLongerThanIsAsked(t *testing.T) {
	c := newClock()
	h := open(t, c, Options{})
	for range 3000 {
		c.now = c.now.Add(10 * time.Second)
		h.Observe(c.now, "s", []metrics.Family{counter("steady_total", 1)})
		if kept := h.pipe.Snapshot().Queued; kept > 541 {
			t.Fatalf("%d samples are kept, want those of an hour and a half at most", kept)
		}
	}
	if kept := len(all(h.Select("steady_total", nil)[0])); kept != 361 {
		t.Errorf("%d samples are found, want those of an hour", kept)
	}
}

func TestReadersAndWritersAtOnce(t *testing.T) {
	h, err := New(Options{Budget: 256 << 10, Keep: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	var writers, readers sync.WaitGroup
	began := time.Now()
	for i := range 3 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for read := range 300 {
				timer := metrics.NewTimer()
				timer.Observe(time.Second)
				s := timer.Snapshot()
				// Two of them write to one source, and all are far enough from
				// now for something to expire.
				when := began.Add(time.Duration(read-290) * 400 * time.Millisecond)
				h.Observe(when, fmt.Sprint(i/2), []metrics.Family{noise(r, 300+read%100), histogram("lag_seconds", &s)})
			}
		})
	}
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for _, name := range h.Names() {
					for _, s := range h.Select(name, nil) {
						s.Stats(time.Minute)
					}
				}
				h.sweep(time.Now().UnixMilli())
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	audit(t, h)
}

func TestOptionsAreChecked(t *testing.T) {
	for _, tt := range []struct {
		options Options
		want    string
	}{
		{Options{Budget: 1}, "history: budget 1 bytes, want at least 65536"},
		{Options{Keep: time.Second}, "history: keep 1s, want 1m0s to 24h0m0s"},
		{Options{Keep: 25 * time.Hour}, "history: keep 25h0m0s, want 1m0s to 24h0m0s"},
	} {
		if _, err := New(tt.options); err == nil || err.Error() != tt.want {
			t.Errorf("%+v: got error %v, want %s", tt.options, err, tt.want)
		}
	}
	r := metricstest.Registry(t)
	h, err := New(Options{Metrics: r})
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	for _, f := range r.Gather() {
		if len(f.Points) > 0 {
			t.Errorf("%s is shown of a history that was closed", f.Desc.Name)
		}
	}
	if _, err := New(Options{Metrics: r}); err != nil {
		t.Errorf("a history after another one was closed: %v", err)
	}
}
