package delivery

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/outrider-agent/outrider/statesync"
)

// A wheel is a Source in memory that never ends and costs next to nothing.
type wheel struct {
	changes []statesync.Change
	mu      sync.Mutex
	head    int64
	wake    chan struct{}
}

func newWheel(lanes int) *wheel {
	w := &wheel{wake: make(chan struct{})}
	for i := range max(lanes, readBatch) {
		name := fmt.Sprintf("w%d", i%lanes)
		w.changes = append(w.changes, statesync.Change{ID: name, Workload: statesync.Ref{Kind: "Pod", Namespace: "ns", Name: name, UID: name}})
	}
	return w
}

func (w *wheel) grow(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.head += n
	close(w.wake)
	w.wake = make(chan struct{})
}

func (w *wheel) Read(_ context.Context, q statesync.ReadQuery) ([]statesync.Offered, error) {
	if q.Aside {
		return nil, nil
	}
	out := make([]statesync.Offered, q.Limit)
	for i := range out {
		out[i].Change = w.changes[(q.After+int64(i))%int64(len(w.changes))]
		out[i].Number = q.After + int64(i) + 1
	}
	return out, nil
}

func (w *wheel) Head() (int64, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.head, w.wake
}

func (w *wheel) Save(p statesync.Progress) {
	if p.Saved != nil {
		p.Saved()
	}
}

func (w *wheel) Pressed(string) bool { return false }

// counter is a sink that only counts.
type counter struct {
	mu   sync.Mutex
	left int
	done chan struct{}
}

func (c *counter) Deliver(_ context.Context, ds []statesync.Delivery) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left -= len(ds); c.left == 0 {
		close(c.done)
	}
	return nil
}

type orderedCounter struct{ *counter }

func (orderedCounter) Ordered() {}

// BenchmarkDelivery measures the dispatcher alone, with a log in memory and a
// sink that does nothing: one operation is one change acknowledged.
func BenchmarkDelivery(b *testing.B) {
	for _, tt := range []struct {
		name    string
		lanes   int
		ordered bool
	}{{"lanes=1", 1, false}, {"lanes=100", 100, false}, {"lanes=10000", 10000, false}, {"ordered", 100, true}} {
		b.Run(tt.name, func(b *testing.B) {
			source, count := newWheel(tt.lanes), &counter{left: b.N, done: make(chan struct{})}
			var sink statesync.Sink = count
			if tt.ordered {
				sink = orderedCounter{count}
			}
			start(b, options(b, source, sink))
			b.ReportAllocs()
			b.ResetTimer()
			source.grow(int64(b.N))
			<-count.done
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
		})
	}
}
