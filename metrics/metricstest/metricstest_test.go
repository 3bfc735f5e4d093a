package metricstest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics"
)

// A recording is a test that takes down how it would have failed.
type recording struct {
	testing.TB
	cleanups []func()
	failures []string
}

func (r *recording) Helper()          {}
func (r *recording) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recording) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// judged runs a test to its end, and returns what it failed with.
func judged(t *testing.T, test func(t testing.TB)) string {
	t.Helper()
	r := &recording{TB: t}
	test(r)
	for _, cleanup := range slices.Backward(r.cleanups) {
		cleanup()
	}
	return strings.Join(r.failures, "\n")
}

// A queue of people, and its books.
type queue struct {
	mu    sync.Mutex
	len   int64
	books *metrics.Pipeline
}

func open(t testing.TB, reg *metrics.Registry, name, target string) *queue {
	t.Helper()
	l := &queue{}
	var err error
	l.books, err = reg.Pipeline(metrics.PipelineOptions{
		Name: name, Target: target, Unit: "people", Lock: &l.mu,
		Queue: func() metrics.Queue { return metrics.Queue{Len: l.len} },
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *queue) come(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.len += n
	l.books.In(n)
}

func (l *queue) leave(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.len -= n
	l.books.Out(n)
}

// TestBrokenBooksFailTheTest breaks some on purpose.
func TestBrokenBooksFailTheTest(t *testing.T) {
	for name, tt := range map[string]struct {
		test func(t testing.TB, reg *metrics.Registry)
		want []string // lines; none: the test passes
	}{
		"no pipeline": {func(testing.TB, *metrics.Registry) {}, nil},
		"all accounted for": {func(t testing.TB, reg *metrics.Registry) {
			l := open(t, reg, "till", "east")
			l.books.Carry(2)
			l.len = 2
			l.come(5)
			l.leave(3)
			l.books.Retry("no change", 4)
		}, nil},
		"two that left were not counted": {func(t testing.TB, reg *metrics.Registry) {
			open(t, reg, "fair", "").come(1)
			l := open(t, reg, "till", "east")
			l.books.Carry(1)
			l.come(5)
			l.leave(1)
			l.books.Drop("gave up", 1)
			l.len -= 2
		}, []string{"till target east: carried 1 + in 5 - out 1 - queued 2 - dropped 1 = balance 2, want 0 and nothing below 0; dropped: gave up 1"}},
		"balanced by what cannot be": {func(t testing.TB, reg *metrics.Registry) {
			l := open(t, reg, "till", "")
			l.come(1)
			l.leave(2)
		}, []string{"till target (none): carried 0 + in 1 - out 2 - queued -1 - dropped 0 = balance 0, want 0 and nothing below 0"}},
		"a reason below nothing": {func(t testing.TB, reg *metrics.Registry) {
			l := open(t, reg, "till", "")
			l.books.Drop("left", 3)
			l.books.Drop("came back", -3)
			l.books.Retry("no change", 1)
		}, []string{"till target (none): carried 0 + in 0 - out 0 - queued 0 - dropped 0 = balance 0, want 0 and nothing below 0; dropped: came back -3, left 3; retries: no change 1"}},
		"two of them": {func(t testing.TB, reg *metrics.Registry) {
			open(t, reg, "till", "west").books.In(1)
			open(t, reg, "till", "east").books.Out(1)
		}, []string{
			"till target east: carried 0 + in 0 - out 1 - queued 0 - dropped 0 = balance -1, want 0 and nothing below 0",
			"till target west: carried 0 + in 1 - out 0 - queued 0 - dropped 0 = balance 1, want 0 and nothing below 0",
		}},
		"a queue that nobody can read": {func(t testing.TB, reg *metrics.Registry) {
			p, err := reg.Pipeline(metrics.PipelineOptions{Name: "street", Unit: "people"})
			if err != nil {
				t.Fatal(err)
			}
			p.In(7)
		}, nil},
		"a neighbour's": {func(_ testing.TB, reg *metrics.Registry) {
			reg.Group().Pipelines(func() []metrics.PipelineSnapshot {
				return []metrics.PipelineSnapshot{{Service: "shop", Name: "till", Unit: "people", In: 7}}
			})
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // so that nobody waits
				got := judged(t, func(r testing.TB) { tt.test(r, Registry(r)) })
				want := ""
				if len(tt.want) > 0 {
					want = fmt.Sprintf("pipelines: %d do not balance 2s after the test:\n%s", len(tt.want), strings.Join(tt.want, "\n"))
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("what the test failed with (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestWhoIsAboutToCountIsWaitedFor: at the end of a test goroutines may still be
// at work.
func TestWhoIsAboutToCountIsWaitedFor(t *testing.T) {
	for _, late := range []time.Duration{0, time.Second, patience - time.Nanosecond, patience + time.Nanosecond} {
		synctest.Test(t, func(t *testing.T) {
			got := judged(t, func(r testing.TB) {
				l := open(r, Registry(r), "till", "east")
				l.come(1)
				l.len = 0 // left, and not counted yet
				go func() {
					time.Sleep(late)
					l.books.Out(1)
				}()
			})
			if in := late < patience; in != (got == "") {
				t.Errorf("counted %v after the test: failed with %q, want a failure: %t", late, got, !in)
			}
			time.Sleep(patience) // the clock of a bubble stops with it
		})
	}
}

// TestInABubble: the bubble's t ends in the bubble, whose time is not the clock's,
// and what was cleaned up later in it has been.
func TestInABubble(t *testing.T) {
	began := time.Now()
	var ended bool
	t.Run("bubble", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := open(t, Registry(t), "till", "east")
			t.Cleanup(func() { // before the registry's
				ended = true
				l.leave(1)
				go func() {
					time.Sleep(patience / 2)
					l.books.Drop("closed", 1)
				}()
			})
			l.come(1)
			l.books.In(1)
		})
	})
	if !ended || time.Since(began) >= patience/2 {
		t.Errorf("cleaned up: %t, after %v, want it at once, as in a bubble", ended, time.Since(began))
	}
}
