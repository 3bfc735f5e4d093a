package delivery

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// How the receiver as a whole is treated:
//   - Deliveries at once: as many as it takes well. Each that fails for a
//     reason of the receiver's makes them fewer, each that is taken more.
//   - Breaker: when several lanes in a row fail, and none succeeds between
//     them, it is the receiver that fails: nothing is tried but one delivery
//     now and then. The lanes wait meanwhile, and their own back-off does not
//     grow. A few lanes alone never open it: the others would pay for them.
//   - After that, the lanes are released at a bounded rate, which doubles each
//     second.
const (
	breakLanes   = 3 // lanes that fail in a row
	breakTries   = 5 // tries that do
	releaseFirst = 20.0
	releaseFull  = 5000.0 // a second; from there on there is no bound
	shrink       = 0.8    // of the deliveries at once
	shrinkEvery  = 100 * time.Millisecond
)

// A pacer is not safe for concurrent use.
type pacer struct {
	most     int
	limit    float64 // of inFlight
	inFlight int
	shrunk   time.Time

	lanes    []statesync.Key // that have failed in a row
	failures int             // in a row
	open     bool
	opened   int       // how often in a row it did
	until    time.Time // when it is open: of the next try
	probing  bool

	released time.Time // when it was closed; zero: there is no bound
	tokens   float64
	filled   time.Time
}

func newPacer(most int) pacer { return pacer{most: most, limit: float64(most)} }

// String is the state of the breaker.
func (p *pacer) String() string {
	switch {
	case p.probing:
		return "half-open"
	case p.open:
		return "open"
	}
	return "closed"
}

// admit asks whether a delivery may be tried now, and if not, when to ask
// again. It takes a token of the rate.
func (p *pacer) admit(now time.Time) (wait time.Duration, ok bool) {
	if p.open {
		if wait := p.rests(now); wait > 0 {
			return wait, false
		}
		if p.probing {
			return jitter(100 * time.Millisecond), false
		}
		p.probing = true
		return 0, true
	}
	if p.released.IsZero() {
		return 0, true
	}
	rate := releaseFirst * float64(int64(1)<<min(62, int(now.Sub(p.released)/time.Second)))
	if rate >= releaseFull {
		p.released = time.Time{}
		return 0, true
	}
	p.tokens = min(rate/10, p.tokens+rate*now.Sub(p.filled).Seconds())
	p.filled = now
	if p.tokens < 1 {
		return jitter(200 * time.Millisecond), false
	}
	p.tokens--
	return 0, true
}

// rests is how long nothing but a probe is tried from now on; 0: it is.
func (p *pacer) rests(now time.Time) time.Duration {
	if !p.open || !now.Before(p.until) {
		return 0
	}
	return p.until.Sub(now) + rand.N(100*time.Millisecond)
}

// jitter is between a half of a time and one and a half of it.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

func (p *pacer) full() bool { return p.inFlight >= max(1, int(p.limit)) }

func (p *pacer) begin() { p.inFlight++ }

// end notes what became of a delivery that was begun; failed: for a reason of
// the receiver's, not of the delivery.
func (p *pacer) end(key statesync.Key, failed bool, after time.Duration, now time.Time) {
	busy := p.full()
	p.inFlight--
	probe := p.probing
	p.probing = false
	if !failed {
		if p.open {
			p.released, p.tokens, p.filled, p.limit = now, 1, now, 1
		} else if busy {
			p.limit = min(float64(p.most), p.limit+1/p.limit)
		}
		p.open, p.opened, p.failures, p.lanes = false, 0, 0, nil
		return
	}
	if now.Sub(p.shrunk) >= shrinkEvery {
		p.limit, p.shrunk = max(1, p.limit*shrink), now
	}
	p.failures++
	if len(p.lanes) < breakLanes && !slices.Contains(p.lanes, key) {
		p.lanes = append(p.lanes, key)
	}
	switch {
	case p.open && !probe: // it was in flight when the breaker opened
	case p.open, len(p.lanes) >= breakLanes && p.failures >= breakTries:
		p.open = true
		p.opened++
		p.until = now.Add(max(after, grown(p.opened)))
	}
}
