package runner

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
)

func TestChecksRunAtOnceAndThenWithinTheirInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		var starts []time.Time
		mustAdd(t, r, Check{Name: "a", Every: time.Minute, Run: func(context.Context) verdict.Result {
			starts = append(starts, time.Now())
			return verdict.Result{}
		}})
		began := time.Now()
		stop := start(t, r)
		time.Sleep(time.Hour)
		stop()
		if !starts[0].Equal(began) {
			t.Errorf("first run at %v, want at once, at %v", starts[0], began)
		}
		if len(starts) < 61 || len(starts) > 68 {
			t.Errorf("%d runs in an hour, want 61 to 68", len(starts))
		}
		for i := 1; i < len(starts); i++ {
			if gap := starts[i].Sub(starts[i-1]); gap < 54*time.Second || gap > time.Minute {
				t.Errorf("run %d came after %v, want 54s to 1m0s", i, gap)
			}
		}
	})
}

func TestChecksCanBeAddedAndRemovedWhileRunning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		start(t, r)
		time.Sleep(time.Second)
		var runs atomic.Int64
		mustAdd(t, r, Check{Name: "a", Run: func(context.Context) verdict.Result {
			runs.Add(1)
			return verdict.Result{}
		}})
		synctest.Wait()
		if runs.Load() != 1 {
			t.Errorf("%d runs after Add, want 1", runs.Load())
		}
		r.Remove("a")
		time.Sleep(time.Minute)
		if runs.Load() != 1 {
			t.Errorf("%d runs after Remove, want 1", runs.Load())
		}
	})
}

func TestWhatIsNoAnswerIsAFailure(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		run     func(context.Context) verdict.Result
		message string
		took    float64
	}{
		{"a panic", func(context.Context) verdict.Result { panic("boom\n") }, "panic: boom ", 0},
		{"a nil map", func(context.Context) verdict.Result {
			var m map[string]int
			m["x"] = 1 //nolint:govet,staticcheck // the panic is the test
			return verdict.Result{}
		}, "panic: assignment to entry in nil map", 0},
		{"the end of the goroutine", func(context.Context) verdict.Result { runtime.Goexit(); return verdict.Result{} }, "check ended its goroutine", 0},
		{"a check that honours its deadline speaks for itself", func(ctx context.Context) verdict.Result {
			<-ctx.Done()
			return verdict.Result{Status: verdict.Fail, Message: "dial 10.0.0.1: " + ctx.Err().Error()}
		}, "dial 10.0.0.1: context deadline exceeded", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRunner()
				mustAdd(t, r, Check{Name: "a", Timeout: 2 * time.Second, Run: tt.run})
				if err := r.RunNow(t.Context()); err != nil {
					t.Fatal(err)
				}
				c := get(t, r, "a")
				if c.Status != verdict.Fail || c.Message != tt.message || c.TookSeconds != tt.took {
					t.Errorf("%v %q after %vs; want fail %q after %vs", c.Status, c.Message, c.TookSeconds, tt.message, tt.took)
				}
				if n := r.stuck.Load(); n != 0 {
					t.Errorf("%d stuck, want 0", n)
				}
			})
		})
	}
}

func TestACheckThatOverrunsKeepsItsSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		release := make(chan struct{})
		var running, starts atomic.Int64
		mustAdd(t, r, Check{Name: "hung", Timeout: 2 * time.Second, Run: func(context.Context) verdict.Result {
			starts.Add(1)
			if n := running.Add(1); n != 1 {
				t.Errorf("%d runs at once", n)
			}
			defer running.Add(-1)
			<-release
			return verdict.Result{Message: "at last"}
		}})
		start(t, r)
		want := func(when string, status verdict.Status, message string, stale bool, runs uint64) {
			t.Helper()
			synctest.Wait()
			if c := get(t, r, "hung"); c.Status != status || c.Message != message || c.Stale != stale || c.Runs != runs {
				t.Errorf("%s: %v %q, stale %v, %d runs; want %v %q, stale %v, %d runs", when, c.Status, c.Message, c.Stale, c.Runs, status, message, stale, runs)
			}
		}
		const stuck = "no answer in 2s, still running since 2000-01-01T00:00:00Z"
		want("before the deadline", verdict.Unknown, "no result yet", false, 0)
		time.Sleep(2*time.Second + maxGrace)
		want("at the deadline", verdict.Unknown, stuck, true, 0)
		time.Sleep(2*time.Second - 1)
		want("before as much time again", verdict.Unknown, stuck, true, 0)
		time.Sleep(time.Nanosecond)
		want("after as much time again", verdict.Fail, stuck, true, 0)
		time.Sleep(time.Minute)
		want("a minute later", verdict.Fail, stuck, true, 0)
		if starts.Load() != 1 || r.stuck.Load() != 1 {
			t.Errorf("%d starts, %d stuck; want 1 and 1", starts.Load(), r.stuck.Load())
		}
		close(release)
		synctest.Wait()
		if c := get(t, r, "hung"); c.Status != verdict.Fail || r.stuck.Load() != 0 {
			t.Errorf("when it returned: %v, %d stuck; want fail, because the answer came too late, and 0", c.Status, r.stuck.Load())
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if c := get(t, r, "hung"); c.Status != verdict.Pass || c.Message != "at last" || c.Stale || c.Runs < 1 { // the schedule has jitter
			t.Errorf("after the next run: %+v, want it to pass", c)
		}
	})
}

func TestRunNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		var runs atomic.Int64
		slow := func(context.Context) verdict.Result {
			runs.Add(1)
			time.Sleep(time.Second)
			return verdict.Result{}
		}
		mustAdd(t, r, Check{Name: "a", Run: slow}, Check{Name: "b", Run: slow}, Check{Name: "c", Run: slow})
		began := time.Now()
		start(t, r)
		time.Sleep(500 * time.Millisecond)
		// All of them are under way: they are waited for, not run again.
		if err := r.RunNow(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != time.Second || runs.Load() != 3 {
			t.Errorf("%d runs, done after %v; want 3 after 1s", runs.Load(), took)
		}
		if err := r.RunNow(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		if c := get(t, r, "b"); c.Runs != 2 || c.TookSeconds != 1 {
			t.Errorf("b: %d runs, took %vs; want 2, 1s", c.Runs, c.TookSeconds)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := r.RunNow(ctx, "c"); err == nil || err.Error() != "run now: context deadline exceeded" {
			t.Errorf("RunNow with an ended context: %v", err)
		}
		time.Sleep(time.Second)
		if c := get(t, r, "c"); c.Runs != 1 {
			t.Errorf("c: %d results, want 1: what the caller gave up on is no result", c.Runs)
		}
	})
}

func TestRunNowBeforeRunIsTheFirstRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		mustAdd(t, r, Check{Name: "a", Run: answer(verdict.Pass, "")}, Check{Name: "b", Run: answer(verdict.Pass, "")})
		if err := r.RunNow(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		start(t, r)
		if a, b := get(t, r, "a").Runs, get(t, r, "b").Runs; a != 1 || b != 1 {
			t.Errorf("a ran %d times, b %d times; want once each", a, b)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if a := get(t, r, "a").Runs; a != 2 {
			t.Errorf("a ran %d times in two intervals, want 2", a)
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		run  func(context.Context) verdict.Result
		wait time.Duration
	}{
		{"a check that listens is waited for", func(ctx context.Context) verdict.Result {
			<-ctx.Done()
			time.Sleep(time.Second) // sleep: in the bubble below
			return verdict.Result{Status: verdict.Fail, Message: "interrupted"}
		}, time.Second},
		{"a check that does not listen is waited for up to a bound", func(context.Context) verdict.Result {
			time.Sleep(time.Hour) // sleep: in the bubble below
			return verdict.Result{}
		}, drainTime},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRunner()
				mustAdd(t, r, Check{Name: "a", Run: tt.run})
				stop := start(t, r)
				began := time.Now()
				stop()
				if waited := time.Since(began); waited != tt.wait {
					t.Errorf("waited %v, want %v", waited, tt.wait)
				}
				if c := get(t, r, "a"); c.Runs != 0 {
					t.Errorf("%v %q was recorded; an interrupted run is no result", c.Status, c.Message)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

func TestRunDoesNotWaitForAStuckCheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		release := make(chan struct{})
		mustAdd(t, r, Check{Name: "hung", Run: func(context.Context) verdict.Result { <-release; return verdict.Result{} }})
		stop := start(t, r)
		time.Sleep(time.Minute)
		began := time.Now()
		stop()
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %v, want not at all", waited)
		}
		close(release)
	})
}

func TestRunTwiceAtOnceIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		stop := start(t, r)
		if err := r.Run(t.Context()); err == nil || err.Error() != "run checks: already running" {
			t.Errorf("second Run: %v", err)
		}
		stop()
		start(t, r) // after its end it may start again
	})
}

func TestTheHeartbeatFailsWhenTheSchedulerStands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		want := func(when string, s verdict.Status) {
			t.Helper()
			if c := get(t, r, "runner"); c.Status != s {
				t.Errorf("%s: %v %q, want %v", when, c.Status, c.Message, s)
			}
		}
		want("before Run", verdict.Unknown)
		time.Sleep(30 * time.Second)
		want("30 seconds without Run", verdict.Fail)
		mustAdd(t, r, Check{Name: "a", Every: time.Hour, Run: answer(verdict.Pass, "")})
		stop := start(t, r)
		want("when it runs", verdict.Pass)
		time.Sleep(10 * time.Minute)
		want("when it has nothing to do", verdict.Pass)
		if c := get(t, r, "runner"); c.Message != "checks scheduled: 1" {
			t.Errorf("message %q", c.Message)
		}
		stop()
		time.Sleep(20 * time.Second)
		want("20 seconds after its end", verdict.Unknown)
		time.Sleep(10 * time.Second)
		want("30 seconds after its end", verdict.Fail)
	})
}

func TestARemovedCheckSaysNothingMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := New(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		release := make(chan struct{})
		mustAdd(t, r, Check{Name: "gone", Run: func(context.Context) verdict.Result { <-release; return verdict.Result{} }})
		stop := start(t, r)
		r.Remove("gone")
		time.Sleep(time.Minute)
		if r.stuck.Load() != 1 {
			t.Errorf("%d stuck, want 1: the goroutine is still there", r.stuck.Load())
		}
		close(release)
		synctest.Wait()
		stop()
		if r.stuck.Load() != 0 || strings.Contains(log.String(), "gone") {
			t.Errorf("%d stuck, log:\n%s", r.stuck.Load(), log.String())
		}
	})
}

func TestARemovedCheckThatAnswersInTimeSaysNothingEither(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := New(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		mustAdd(t, r, Check{Name: "gone", Run: func(context.Context) verdict.Result {
			time.Sleep(time.Second)
			return verdict.Result{Status: verdict.Fail}
		}})
		stop := start(t, r)
		r.Remove("gone")
		time.Sleep(2 * time.Second)
		stop()
		if strings.Contains(log.String(), "gone") {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

// The deadline's timer may fire while the answer waits for the lock.
func TestADeadlineAfterTheAnswerIsNone(t *testing.T) {
	t.Parallel()
	r := newRunner()
	mustAdd(t, r, Check{Name: "a", Run: answer(verdict.Pass, "")})
	if err := r.RunNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := r.set.Load().entries[0]
	r.overrun(t.Context(), e, &flight{recorded: make(chan struct{})})
	if c := get(t, r, "a"); c.Status != verdict.Pass || c.Runs != 1 || r.stuck.Load() != 0 {
		t.Errorf("%v, %d runs, %d stuck; want pass, 1, 0", c.Status, c.Runs, r.stuck.Load())
	}
}

func TestChangesAreLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := New(Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey || a.Key == "stack" {
					return slog.Attr{}
				}
				return a
			},
		}))})
		script := []func(){
			func() {}, func() {}, func() { panic("boom") }, func() { panic("boom") },
		}
		i := 0
		mustAdd(t, r, Check{Name: "a", FailAfter: 2, Run: func(context.Context) verdict.Result {
			i++
			script[i-1]()
			return verdict.Result{Message: "fine"}
		}})
		for range script {
			if err := r.RunNow(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		want := []string{
			`level=INFO msg="check changed" check=a category=page from=unknown to=pass message=fine`,
			`level=ERROR msg="check panicked" check=a panic=boom`,
			`level=ERROR msg="check panicked" check=a panic=boom`,
			`level=WARN msg="check changed" check=a category=page from=pass to=fail message="panic: boom"`,
		}
		synctest.Wait()
		if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(log.String()), "\n")); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
	})
}
