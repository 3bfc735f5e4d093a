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

// A sampler remembers the pipelines' counters of the last seconds.
type sampler struct {
	read func() []metrics.PipelineSnapshot

	mu   sync.Mutex
	ring [sampleCount]sample
	next int // where the next sample goes: the oldest one, once the ring is full
}

type sample struct {
	at    time.Time // zero: not taken yet
	terms map[pipelineID]terms
}

type pipelineID struct{ name, target string }

type terms struct{ in, out int64 }

func newSampler(read func() []metrics.PipelineSnapshot) *sampler { return &sampler{read: read} }

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
	pipes := s.read()
	t := make(map[pipelineID]terms, len(pipes))
	for _, p := range pipes {
		t[pipelineID{p.Name, p.Target}] = terms{p.In, p.Out}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
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
		t, known := old.terms[pipelineID{p.Name, p.Target}]
		seconds := now.Sub(old.at).Seconds()
		if known && seconds > 0 {
			return float64(p.In-t.in) / seconds, float64(p.Out-t.out) / seconds, true
		}
	}
	return 0, 0, false
}
