package metrics

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A Counter counts what only grows. The zero Counter is ready.
type Counter struct {
	n atomic.Int64
	exemplified
}

// Inc counts one.
func (c *Counter) Inc() { c.n.Add(1) }

// Add counts n, which must not be negative.
func (c *Counter) Add(n int64) { c.n.Add(n) }

// Value is the count.
func (c *Counter) Value() int64 { return c.n.Load() }

// A Gauge is a value that goes up and down. The zero Gauge is 0, and ready.
type Gauge struct{ bits atomic.Uint64 }

// Set sets the value.
func (g *Gauge) Set(v float64) { g.bits.Store(math.Float64bits(v)) }

// Add adds to the value.
func (g *Gauge) Add(d float64) {
	for {
		old := g.bits.Load()
		if g.bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+d)) {
			return
		}
	}
}

// Value is the value.
func (g *Gauge) Value() float64 { return math.Float64frombits(g.bits.Load()) }

// A Meter counts events, and knows how many a second there were: averaged with
// weights that fall by e in 1, 5 and 15 minutes, as the load of a machine is, and
// over all of its life. Mark is as cheap as a counter; the rates follow once a
// second, by [Registry.Tick]. The zero Meter is ready.
type Meter struct {
	n atomic.Int64

	mu    sync.Mutex
	began time.Time // the first tick
	last  time.Time
	seen  int64
	first int64 // marked before the first tick
	rates [len(meterWindows)]float64
}

// meterWindows are those of a meter's rates. Read-only.
var meterWindows = [...]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}

// Rates are a meter's events a second.
type Rates struct{ One, Five, Fifteen, Mean float64 }

// Mark counts n events.
func (m *Meter) Mark(n int64) { m.n.Add(n) }

// Count is how many events there were.
func (m *Meter) Count() int64 { return m.n.Load() }

// Rates are those of the last tick; 0 before the second one.
func (m *Meter) Rates() Rates {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := Rates{One: m.rates[0], Five: m.rates[1], Fifteen: m.rates[2]}
	if life := m.last.Sub(m.began).Seconds(); life > 0 {
		r.Mean = float64(m.seen-m.first) / life
	}
	return r
}

// tick brings the rates up to now. The first span's rate is where they begin.
func (m *Meter) tick(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.n.Load()
	span := now.Sub(m.last).Seconds()
	switch {
	case m.began.IsZero():
		m.began, m.last, m.first, m.seen = now, now, n, n
		return
	case span <= 0: // the clock was put back
		m.last = now
		return
	}
	rate := float64(n-m.seen) / span
	begins := m.last.Equal(m.began)
	for i, window := range meterWindows {
		if begins {
			m.rates[i] = rate
		} else {
			m.rates[i] += (1 - math.Exp(-span/window.Seconds())) * (rate - m.rates[i])
		}
	}
	m.last, m.seen = now, n
}
