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
	askEvery     = 500 * time.Millisecond // a lane whether it may be tried
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
	asked    time.Time // until when the receiver wants nothing; it has taken nothing since
	probing  bool

	released time.Time // when it was closed; zero: there is no bound
	tokens   float64
	filled   time.Time
}

func newPacer(most int) pacer { return pacer{most: most, limit: float64(most)} }

// String is the state of the breaker.
func (p *pacer) String() string {
	switch {
	case p.open && p.probing:
		return "half-open"
	case p.open:
		return "open"
	}
	return "closed"
}

// admit asks whether a delivery may be tried now, as the probe if it is the one
// that an open breaker lets through, and if not, when to ask again. It takes a
// token of the rate.
func (p *pacer) admit(now time.Time) (probe bool, wait time.Duration) {
	if p.open {
		if wait := p.rests(now); wait > 0 {
			return false, wait
		}
		if p.probing {
			return false, askAgain()
		}
		p.probing = true
		return true, 0
	}
	if p.released.IsZero() {
		return false, 0
	}
	rate := releaseFirst * float64(int64(1)<<min(62, int(now.Sub(p.released)/time.Second)))
	if rate >= releaseFull {
		p.released = time.Time{}
		return false, 0
	}
	p.tokens = min(rate/10, p.tokens+rate*now.Sub(p.filled).Seconds())
	p.filled = now
	if p.tokens < 1 {
		return false, askAgain()
	}
	p.tokens--
	return false, 0
}

// rests is how long nothing but a probe is tried from now on; 0: it is.
func (p *pacer) rests(now time.Time) time.Duration {
	if !p.open || !now.Before(p.until) {
		return 0
	}
	return p.until.Sub(now) + rand.N(100*time.Millisecond)
}

// askAgain is when: not so soon that thousands of lanes keep a processor busy.
func askAgain() time.Duration { return askEvery/2 + rand.N(askEvery) }

func (p *pacer) full() bool { return p.inFlight >= max(1, int(p.limit)) }

func (p *pacer) begin() { p.inFlight++ }

// end notes what became of a delivery that was begun; failed: for a reason of
// the receiver's, not of the delivery.
func (p *pacer) end(key statesync.Key, probe, failed bool, after time.Duration, now time.Time) {
	busy := p.full()
	p.inFlight--
	if probe {
		p.probing = false
	}
	if !failed {
		if p.open {
			p.released, p.tokens, p.filled, p.limit = now, 1, now, 1
		} else if busy {
			p.limit = min(float64(p.most), p.limit+1/p.limit)
		}
		p.open, p.opened, p.failures, p.lanes, p.asked = false, 0, 0, nil, time.Time{}
		return
	}
	if asked := now.Add(after); after > 0 && asked.After(p.asked) {
		p.asked = asked
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
		p.until = now.Add(grown(p.opened))
	}
	if p.open && p.asked.After(p.until) {
		p.until = p.asked
	}
}
