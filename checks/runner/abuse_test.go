package runner

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// TestBadChecksHurtNothingElse runs four that do what checks must not beside two
// that are well: those run on time, and every answer stays small.
func TestBadChecksHurtNothingElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		release := make(chan struct{})
		var good, other, flips int
		mustAdd(
			t, r,
			Check{Name: "panics", Every: time.Second, Run: func(context.Context) verdict.Result { panic(strings.Repeat("boom", 1<<18)) }},
			Check{Name: "hangs", Every: time.Second, Run: func(context.Context) verdict.Result { <-release; return verdict.Result{} }},
			Check{Name: "talks", Every: time.Second, Run: func(context.Context) verdict.Result {
				many := make([]verdict.Measure, 1000)
				for i := range many {
					many[i] = verdict.Measure{Label: strings.Repeat("l", 1000), Unit: strings.Repeat("u", 1000), Value: 1}
				}
				return verdict.Result{Message: strings.Repeat("x", 1<<20), Unit: strings.Repeat("u", 1<<20), Measures: many}
			}},
			Check{Name: "flaps", Every: time.Second, Run: func(context.Context) verdict.Result {
				flips++
				return verdict.Result{Status: verdict.Status(flips % 2 * int(verdict.Fail))}
			}},
			Check{Name: "good", Category: verdict.Email, Every: time.Second, Run: func(context.Context) verdict.Result { good++; return verdict.Result{} }},
			Check{Name: "other", Category: verdict.Email, Every: 10 * time.Second, Run: func(context.Context) verdict.Result { other++; return verdict.Result{} }},
		)
		stop := start(t, r)
		synctest.Wait()
		before := runtime.NumGoroutine()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if after := runtime.NumGoroutine(); after > before+20 { // other tests run beside this one
			t.Errorf("%d goroutines, %d two minutes before: want about as many", after, before)
		}
		if good < 120 || good > 135 || other < 12 || other > 14 {
			t.Errorf("%d and %d runs of the good ones, want 120 to 135 and 12 to 14", good, other)
		}
		for name, want := range map[string]verdict.Status{
			"panics": verdict.Fail, "hangs": verdict.Fail, "talks": verdict.Pass, "flaps": verdict.Fail, "good": verdict.Pass, "other": verdict.Pass, "runner": verdict.Pass,
		} {
			c := get(t, r, name)
			if c.Status != want || len(c.Message) > verdict.MaxMessage || len(c.Measures) > verdict.MaxMeasures || len(c.Unit) > 512 {
				t.Errorf("%s: %v, message of %d bytes, unit of %d, %d measures; want %v", name, c.Status, len(c.Message), len(c.Unit), len(c.Measures), want)
			}
		}
		if hung, flapping := get(t, r, "hangs"), get(t, r, "flaps"); !hung.Stale || !flapping.Flapping || flapping.Changes > 12 {
			t.Errorf("hangs: stale %v, want true; flaps: flapping %v after %d changes, want true and 12 at most", hung.Stale, flapping.Flapping, flapping.Changes)
		}
		if n := do(r.Healthz(everybody), "GET", "/healthz?category=all").Body.Len(); n > 32<<10 {
			t.Errorf("a digest of %d bytes, want less than 32 KiB", n)
		}
		if b, err := r.Remember(); err != nil || len(b) > 64<<10 {
			t.Errorf("%d bytes to remember, %v; want less than 64 KiB", len(b), err)
		}
		close(release)
		stop()
	})
}

// A sink is a ResponseWriter that keeps the status code.
type sink struct {
	header http.Header
	code   int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(code int)        { s.code = code }

const polls = 1_000_000

// TestAMillionPollsRunNoCheckAndGrowNothing polls in all forms while checks run.
func TestAMillionPollsRunNoCheckAndGrowNothing(t *testing.T) {
	r := newRunner()
	var runs atomic.Int64
	for _, name := range []string{"a", "b", "c"} {
		mustAdd(t, r, Check{Name: name, Every: 50 * time.Millisecond, StaleAfter: time.Minute, Groups: []string{"ready"}, Run: func(context.Context) verdict.Result {
			runs.Add(1)
			return verdict.Result{Message: "fine"}
		}})
	}
	var asked atomic.Int64
	mustAdd(t, r, Check{Name: "polled", Every: 24 * time.Hour, Run: func(context.Context) verdict.Result { asked.Add(1); return verdict.Result{} }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	if err := r.RunNow(t.Context()); err != nil {
		t.Fatal(err)
	}

	full, word := r.Healthz(everybody), r.Probe()
	var requests []func(*sink)
	for _, target := range []string{"/healthz", "/healthz?category=all", "/healthz?format=text&group=ready", "/healthz?format=nagios", "/healthz?format=openmetrics", "/healthz?check=a"} {
		req := httptest.NewRequest(http.MethodGet, target, nil)
		requests = append(requests, func(s *sink) { full.ServeHTTP(s, req) })
	}
	probe := httptest.NewRequest(http.MethodGet, "/healthz", nil)
	// Nine of ten are what pollers ask for; the others cost a rendering now and then.
	for range 54 {
		requests = append(requests, func(s *sink) { word.ServeHTTP(s, probe) })
	}
	poll := func(n int) {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				s := &sink{header: http.Header{}}
				for i := range n / 2 {
					if requests[i%len(requests)](s); s.code != http.StatusOK {
						t.Errorf("status %d, want 200", s.code)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	poll(polls / 100)
	first := asked.Load() // RunNow and Run may both have asked
	heap, goroutines := heapInUse(), runtime.NumGoroutine()
	began := time.Now()
	poll(polls)
	took := time.Since(began)
	if grown := heapInUse() - heap; grown > 1<<20 {
		t.Errorf("the heap grew by %d bytes, want less than 1 MiB", grown)
	}
	if n := runtime.NumGoroutine(); n > goroutines+10 {
		t.Errorf("%d goroutines, before %d", n, goroutines)
	}
	if n := len(r.cache.pages); n > 10 {
		t.Errorf("%d pages kept, want one for each way to ask", n)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := asked.Load() - first; n > 0 {
		t.Errorf("a check that is due each day ran %d times while it was polled, want never", n)
	}
	if most := 3 * (time.Since(began).Milliseconds()/40 + 100); runs.Load() > most {
		t.Errorf("checks that are due each 50 ms ran %d times in %v, want at most %d", runs.Load(), took, most)
	}
	t.Logf("%d polls in %v: %.0f a second; %d runs meanwhile", polls, took, polls/took.Seconds(), runs.Load())
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
