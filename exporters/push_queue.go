package exporters

import (
	"slices"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// keptRing is how many points the ring of an empty queue may have room for: what
// an outage needed is given back.
const keptRing = 4096

// A queue holds the points that wait, and keeps their books: each change of the
// structure and of the pipeline's terms is one, under the lock.
type queue struct {
	mu     sync.Mutex
	pipe   *metrics.Pipeline
	ring   []Point // a circle, from head
	head   int
	n      int
	flight []Point // taken out of the ring, and not settled: the sender's to read
	first  int64   // when the oldest in flight was read
	most   int     // points, in flight included

	wake chan struct{} // holds one signal when there is something new
}

func newQueue(g *metrics.Group, target string, most int) (*queue, error) {
	q := &queue{most: most, wake: make(chan struct{}, 1)}
	pipe, err := g.Pipeline(metrics.PipelineOptions{
		Name: "export", Target: target, Unit: "points", Lock: &q.mu, Queue: q.depth,
		Reasons: []string{"queue_full", "too_old", "rejected", "stopped", "duplicate", "malformed", "not_finite", "over_budget"},
	})
	q.pipe = pipe
	return q, err
}

// depth needs the lock.
func (q *queue) depth() metrics.Queue {
	d := metrics.Queue{Len: int64(q.n + len(q.flight))}
	switch {
	case len(q.flight) > 0:
		d.Oldest = time.UnixMilli(q.first)
	case q.n > 0:
		d.Oldest = time.UnixMilli(q.ring[q.head].At)
	}
	return d
}

// put takes points in. When there is no room the oldest that is not in flight
// goes.
func (q *queue) put(points ...Point) {
	if len(points) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pipe.In(int64(len(points)))
	full := int64(0)
	for _, p := range points {
		for q.n > 0 && q.n+len(q.flight) >= q.most {
			full++
			q.pop()
		}
		if len(q.flight) >= q.most {
			full++
			continue
		}
		if q.n == len(q.ring) {
			q.grow()
		}
		q.ring[(q.head+q.n)%len(q.ring)] = p
		q.n++
	}
	if full > 0 {
		q.pipe.Drop("queue_full", full)
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// refuse counts points that never waited.
func (q *queue) refuse(reason string, n int64) {
	if n == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pipe.In(n)
	q.pipe.Drop(reason, n)
}

// take returns what is in flight, made up to a batch from what waits. Points
// older than oldest, in milliseconds since 1970, are given up.
func (q *queue) take(batch int, oldest int64) []Point {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := len(q.flight)
	q.flight = slices.DeleteFunc(q.flight, func(p Point) bool { return p.At < oldest })
	old := before - len(q.flight)
	for q.n > 0 && len(q.flight) < batch {
		if p := q.pop(); p.At < oldest {
			old++
		} else {
			q.flight = append(q.flight, p)
		}
	}
	if old > 0 {
		q.pipe.Drop("too_old", int64(old))
	}
	if q.n == 0 && len(q.ring) > keptRing {
		q.ring, q.head = nil, 0
	}
	if len(q.flight) > 0 && (before == 0 || old > 0) {
		q.first = q.flight[0].At
	}
	return q.flight
}

// settle books what became of the points in flight, and returns how many of them
// are to be tried again.
func (q *queue) settle(s Sent) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	done := s.Out + s.Rejected
	q.flight = slices.Delete(q.flight, 0, done)
	q.pipe.Out(int64(s.Out))
	if s.Rejected > 0 {
		q.pipe.Drop("rejected", int64(s.Rejected))
	}
	return len(q.flight)
}

// retry counts the points in flight as tried again.
func (q *queue) retry(cause string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pipe.Retry(cause, int64(len(q.flight)))
}

// clear gives up all points, and returns how many there were.
func (q *queue) clear(reason string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.n + len(q.flight)
	q.ring, q.head, q.n, q.flight = nil, 0, 0, nil
	if n > 0 {
		q.pipe.Drop(reason, int64(n))
	}
	return n
}

// bound sets how many points may wait. What is more goes when the next ones come.
func (q *queue) bound(most int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.most = most
}

// pop needs the lock, and a point.
func (q *queue) pop() Point {
	p := q.ring[q.head]
	q.ring[q.head] = Point{} // lets go of the series
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	return p
}

// grow doubles the ring's room. It needs the lock.
func (q *queue) grow() {
	ring := make([]Point, min(max(2*len(q.ring), 256), q.most))
	copied := copy(ring, q.ring[q.head:])
	copy(ring[copied:], q.ring[:q.head])
	q.ring, q.head = ring, 0
}
