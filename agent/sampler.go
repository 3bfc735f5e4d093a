package agent

import (
	"context"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// Rates are over the last ten seconds: long enough to be steady, short enough
// that whoever watches a deploy sees it.
const (
	sampleEvery = time.Second
	sampleCount = 10
)

// A sampler reads the pipelines once a second, and remembers their counters of
// the last ten, and their depth and rates of the last hour.
type sampler struct {
	read func(now time.Time) []metrics.PipelineSnapshot

	mu    sync.Mutex
	ring  [sampleCount]sample
	next  int // where the next sample goes: the oldest one, once the ring is full
	hours map[pipelineID]*pipelineHours
}

type sample struct {
	at    time.Time // zero: not taken yet
	terms map[pipelineID]terms
}

type pipelineID struct{ service, name, target string }

type terms struct{ in, out int64 }

// pipelineHours are the last hour of what people ask of a pipeline first.
type pipelineHours struct{ queued, in, out hour }

func newSampler(read func(now time.Time) []metrics.PipelineSnapshot) *sampler {
	return &sampler{read: read, hours: map[pipelineID]*pipelineHours{}}
}

func idOf(p metrics.PipelineSnapshot) pipelineID { return pipelineID{p.Service, p.Name, p.Target} }

// run samples until ctx ends.
func (s *sampler) run(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.sample(now)
		}
	}
}

func (s *sampler) sample(now time.Time) {
	pipes := s.read(now)
	t := make(map[pipelineID]terms, len(pipes))
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.ring[(s.next+sampleCount-1)%sampleCount]
	span := now.Sub(last.at).Seconds()
	hours := make(map[pipelineID]*pipelineHours, len(pipes))
	for _, p := range pipes {
		id := idOf(p)
		t[id] = terms{p.In, p.Out}
		h := s.hours[id]
		if h == nil {
			h = &pipelineHours{}
		}
		hours[id] = h
		if p.Has(metrics.QueuedTerm) {
			h.queued.add(float64(p.Queued))
		}
		if before, ok := last.terms[id]; ok && span > 0 {
			if p.Has(metrics.InTerm) {
				h.in.add(max(0, float64(p.In-before.in)) / span)
			}
			if p.Has(metrics.OutTerm) {
				h.out.add(max(0, float64(p.Out-before.out)) / span)
			}
		}
	}
	s.hours = hours // those of pipelines that are gone go too
	s.ring[s.next] = sample{now, t}
	s.next = (s.next + 1) % sampleCount
}

// rates is how many items a second came in and went out since the oldest
// sample that knows the pipeline. ok is false when there is none yet.
func (s *sampler) rates(p metrics.PipelineSnapshot, now time.Time) (in, out float64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range sampleCount {
		old := s.ring[(s.next+i)%sampleCount]
		t, known := old.terms[idOf(p)]
		seconds := now.Sub(old.at).Seconds()
		if known && seconds > 0 {
			return float64(p.In-t.in) / seconds, float64(p.Out-t.out) / seconds, true
		}
	}
	return 0, 0, false
}

// A lastHour is how one measure of a pipeline was during the last hour.
type lastHour struct {
	low, p95, high float64
	known          bool
}

// lastHours returns depth and rates of the last hour.
func (s *sampler) lastHours(p metrics.PipelineSnapshot) (queued, in, out lastHour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hours[idOf(p)]
	if h == nil {
		return queued, in, out
	}
	of := func(h *hour) (l lastHour) {
		l.low, l.p95, l.high, l.known = h.stats()
		return l
	}
	return of(&h.queued), of(&h.in), of(&h.out)
}
