// Package scenario fills a simulated cluster with workloads that come, run and go, and knows what must be told of each.
//
// Jobs, notebooks, web apps and custom objects (trainings.sim.outrider.dev)
// live as the cluster's own controllers would have them live: their objects
// are written in that order, with those conditions. Which life comes next,
// and every name and UID, come from the seed alone: the same seed and options
// give the same writes in the same order, however fast they come.
//
// Lives have durations, but the clock by which they pass is driven by the
// rate: it goes as fast as the changes asked for take. So the rate is kept
// with any number of workloads, a spike is everybody's life going faster, and
// after a pause nothing has been jumped over.
package scenario

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/statesync/simcluster"
)

// TrainingKind is the item of statesync.kinds in the agent's configuration that
// tells of trainings as the truth has it.
const TrainingKind = `kind: {group: sim.outrider.dev, version: v1, resource: trainings, name: Training}
cel:
  queued: object.?status.?phase.orValue("") in ["", "Pending"]
  running: object.status.phase == "Running"
  succeeded: object.status.phase == "Succeeded"
  failed: object.status.phase == "Failed"
  reason: object.status.reason
  message: object.status.message
  occurred: 'object.status.phase == "Running" ? object.status.startTime : object.status.completionTime'
`

// Options say what a scenario is like.
type Options struct {
	Seed       uint64
	Rate       float64 // changes of a workload's state a second; 0: none but in spikes
	Workloads  int     // that live at any time, those that have ended and are not yet deleted included; default 1,000
	Spikes     []Spike // of two at once the higher counts
	Daily      bool    // the rate follows the hours of a day, which lasts two minutes
	Namespaces int     // default 10
	Mix        Mix

	// Speed bounds how many times faster than real ones lives may go; what the
	// rate asks for beyond is not reached. 0: no bound.
	Speed float64

	Now func() time.Time // stamps the objects; default the cluster's clock
}

// Mix is how many of the workloads are of each sort, in shares of any unit.
// The zero Mix is 50, 20, 10 and 20.
type Mix struct {
	Jobs      float64
	Notebooks float64 // pods without a controller
	WebApps   float64 // Deployments with ReplicaSets and pods
	Custom    float64 // trainings.sim.outrider.dev
}

func (o *Options) check() error {
	finite := func(f float64) bool { return f >= 0 && !math.IsInf(f, 1) }
	switch m := o.Mix; {
	case !finite(o.Rate):
		return fmt.Errorf("rate: got %v, want changes a second, 0 or more", o.Rate)
	case o.Workloads < 0 || o.Workloads > math.MaxInt32:
		return fmt.Errorf("workloads: got %d, want 1 or more", o.Workloads)
	case o.Namespaces < 0 || o.Namespaces > math.MaxUint16:
		return fmt.Errorf("namespaces: got %d, want 1 to %d", o.Namespaces, math.MaxUint16)
	case !finite(o.Speed):
		return fmt.Errorf("speed: got %v, want times as fast as real lives, or 0 for as fast as the rate asks", o.Speed)
	case !finite(m.Jobs) || !finite(m.Notebooks) || !finite(m.WebApps) || !finite(m.Custom):
		return fmt.Errorf("mix: got %+v, want shares of 0 or more", m)
	}
	o.Workloads, o.Namespaces = cmp.Or(o.Workloads, 1000), cmp.Or(o.Namespaces, 10)
	o.Mix = cmp.Or(o.Mix, Mix{Jobs: 50, Notebooks: 20, WebApps: 10, Custom: 20})
	for _, s := range o.Spikes {
		if err := s.check(); err != nil {
			return err
		}
	}
	return nil
}

// A Scenario drives a cluster. It is safe for concurrent use.
type Scenario struct {
	opts    Options
	cluster *simcluster.Cluster
	truth   *Truth
	cast    *cast

	mu      sync.Mutex // guards what follows
	rand    *rand.Rand
	lives   []life  // one for each workload: when it is over, the next begins in its place
	heap    []int32 // lives by when they go on
	virtual time.Duration
	pace    pacer
	running bool
	names   int64 // given so far
	writes  int64
	live    map[string]int // objects by plural

	// Before Run the lives are led to where they begin, and what they write on
	// the way is kept here: of each object only the last version is created.
	staging bool
	staged  []written
	past    time.Duration // how long ago it is then
}

// New returns a scenario whose workloads are there already: what has to be
// listed. To tell of everything, a watcher has listed them before Run begins.
// It adds the resources that the cluster does not have.
func New(c *simcluster.Cluster, o Options) (*Scenario, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	if o.Now == nil {
		o.Now = c.Clock
	}
	s := &Scenario{
		opts: o, cluster: c, live: map[string]int{},
		rand:  rand.New(rand.NewPCG(o.Seed, 0x6f757472696465)),
		lives: make([]life, o.Workloads), heap: make([]int32, o.Workloads),
		pace: pacer{rate: o.rateAt},
	}
	s.cast = newCast(c, o.Namespaces)
	s.truth = newTruth(s.cast)
	for i := range s.lives {
		s.heap[i] = int32(i)
		l := &s.lives[i]
		l.slot, l.kind = int32(i), s.pickKind()
		if err := s.lead(l); err != nil {
			return nil, fmt.Errorf("scenario: %w", err)
		}
	}
	for i := len(s.heap)/2 - 1; i >= 0; i-- {
		s.sift(i)
	}
	return s, nil
}

func (s *Scenario) pickKind() kindIndex {
	m := s.opts.Mix
	at := s.rand.Float64() * (m.Jobs + m.Notebooks + m.WebApps + m.Custom)
	for i, share := range []float64{m.Jobs, m.Notebooks, m.WebApps} {
		if at < share {
			return kindIndex(i)
		}
		at -= share
	}
	return kindTraining
}

// Truth is what must be told.
func (s *Scenario) Truth() *Truth { return s.truth }

// Run lets the workloads live. It returns nil when ctx ends, or when nothing
// more is asked for: without a rate, after the last spike. Called again, it
// goes on where it was.
func (s *Scenario) Run(ctx context.Context) error {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	began := time.Now().Add(-s.setRunning(true))
	defer s.setRunning(false)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if s.advance(time.Since(began)) {
			return nil
		}
	}
}

// setRunning returns for how long the scenario has run.
func (s *Scenario) setRunning(running bool) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = running
	if !running {
		s.reconcile()
	}
	return s.pace.at
}

// advance makes the changes that are due, and reports whether there will be
// none any more.
func (s *Scenario) advance(elapsed time.Duration) (over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pace.advance(elapsed)
	limit := time.Duration(math.MaxInt64)
	if s.opts.Speed > 0 {
		limit = time.Duration(float64(elapsed) * s.opts.Speed)
	}
	for s.pace.due() && s.lives[s.heap[0]].due <= limit {
		s.step()
	}
	s.pace.sample(elapsed)
	return s.opts.Rate == 0 && elapsed > s.opts.lastSpike() && s.pace.behind() < 1
}

// Figures are how a scenario is getting on.
type Figures struct {
	Offered  int64          // changes that must be told, made by Run so far
	Writes   int64          // to the cluster, those of New included
	Asked    float64        // changes a second that the plan asks for now; 0 when it does not run
	Achieved float64        // changes a second over the last second
	Behind   int64          // changes that should have been made by now and were not
	Live     map[string]int // objects by plural
	Speed    float64        // how many times faster than real ones lives have gone so far
}

// Figures returns how the scenario is getting on.
func (s *Scenario) Figures() Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := Figures{
		Offered: int64(s.pace.done), Writes: s.writes, Achieved: s.pace.achieved(),
		Behind: int64(s.pace.behind()), Live: maps.Clone(s.live),
	}
	if s.running {
		f.Asked = s.opts.rateAt(s.pace.at)
	}
	if s.pace.at > 0 {
		f.Speed = float64(s.virtual) / float64(s.pace.at)
	}
	return f
}
