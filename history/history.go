// Package history keeps the last hour of every series in memory.
//
// What one read of one source gave goes in with [History.Observe]; [History.Select]
// finds series again, and [Series.Range] their samples. A series is a name and
// tags of one source.
//
// Everything is within a fixed budget: the compressed samples, the names and tags,
// and what finds them. A new sample never waits for room and is hardly ever
// refused: when the budget is used up, the source that takes most of it loses its
// oldest closed chunk. So a source with too many series shortens its own history
// and not that of its neighbours. Names, tags and the chunks that are being written
// cannot be given up like that; they may take half of the budget, and of what is
// left of this half no source may take more than twice what stays free. Beyond
// that, new series are refused.
package history

import (
	"fmt"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// Options say how much is kept. The zero value is 16 MiB and an hour.
type Options struct {
	Budget  int64            // bytes; 0: 16 MiB; at least 64 KiB
	Keep    time.Duration    // 0: an hour; 1 minute to 24 hours
	Now     func() time.Time // nil: time.Now
	Metrics *metrics.Registry
}

// The limits of [Options].
const (
	defaultBudget = 16 << 20
	leastBudget   = 64 << 10
	defaultKeep   = time.Hour
	leastKeep     = time.Minute
	mostKeep      = 24 * time.Hour
)

// Why samples are dropped.
const (
	dropBudget     = "budget"        // their chunk had to go before its time
	dropRefused    = "series_budget" // a new series, for which there is no room
	dropOutOfOrder = "out_of_order"  // a read that is no later than the one before
	dropTooOld     = "too_old"       // a read from before what is kept
	dropFuture     = "in_future"     // a read from a day to come
	dropDuplicate  = "duplicate"     // a second one of the same series in one read
	dropMalformed  = "malformed"     // a point that does not fit its description
)

// backTolerance is how far a read may be dated before the one before it and be
// taken for one that came late. If it is more, the clock was set back.
const backTolerance = time.Minute

// batch is how many points are taken in before readers and others get their turn.
const batch = 256

// History holds the last samples of many series. Its methods may be called from
// many goroutines at once.
type History struct {
	opts  Options
	keep  int64 // milliseconds
	group *metrics.Group
	pipe  *metrics.Pipeline

	mu      sync.Mutex
	sources map[string]*source
	used    int64 // bytes of everything
	index   int64 // bytes of everything but closed chunks
	kept    int64 // samples in memory
	swept   int64 // when sources were looked through for what is idle, in milliseconds
	moved   tally
	buckets scratch
}

// tally is what has happened to samples since the books were told.
type tally struct {
	in, out int64
	drops   map[string]int64
}

// New returns an empty history and registers its metrics. Of the samples that came
// in some are in memory, some left it at the age of Keep, and the others were
// dropped: the books of that balance.
func New(o Options) (*History, error) {
	if o.Budget == 0 {
		o.Budget = defaultBudget
	}
	if o.Keep == 0 {
		o.Keep = defaultKeep
	}
	if o.Budget < leastBudget {
		return nil, fmt.Errorf("history: budget %d bytes, want at least %d", o.Budget, leastBudget)
	}
	if o.Keep < leastKeep || o.Keep > mostKeep {
		return nil, fmt.Errorf("history: keep %s, want %s to %s", o.Keep, leastKeep, mostKeep)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewRegistry()
	}
	h := &History{
		opts: o, keep: o.Keep.Milliseconds(), group: o.Metrics.Group(),
		sources: map[string]*source{}, moved: tally{drops: map[string]int64{}},
	}
	if err := h.register(); err != nil {
		h.group.Close()
		return nil, err
	}
	return h, nil
}

// Close takes the metrics out of the registry. The history can still be read.
func (h *History) Close() { h.group.Close() }

// Observe takes what one read of one source gave at one moment. Families and
// points should come in the same order each time, as collectors give them: then a
// sample costs about as much as a look at its tags. Nothing of fams is kept.
//
// Of a histogram it keeps the count and the sum, as series of their own with _count
// and _sum in their names, and of what was counted since the read before, if
// anything was, the quantiles _p50, _p95, _p99 and _max.
func (h *History) Observe(at time.Time, from string, fams []metrics.Family) {
	now := h.opts.Now().UnixMilli()
	h.mu.Lock()
	src := h.source(from)
	read, reason := h.begin(src, now, at.UnixMilli())
	if reason != "" {
		for i := range fams {
			h.lose(reason, points(fams[i].Points))
		}
		h.unlock()
		return
	}
	src.writers++
	left := batch
	for i := range fams {
		f := h.family(src, &fams[i].Desc)
		if f == nil {
			h.lose(dropRefused, points(fams[i].Points))
			continue
		}
		w := writer{h: h, src: src, f: f, read: read}
		for j := range fams[i].Points {
			if left--; left == 0 {
				left = batch
				h.unlock()
				h.mu.Lock()
			}
			w.point(&fams[i].Points[j], len(fams[i].Desc.Tags))
		}
	}
	src.writers--
	h.expire(src)
	due := now-h.swept > h.keep/60 || now < h.swept
	if due {
		h.swept = now
	}
	h.unlock()
	if due {
		h.sweep(now)
	}
}

// points is how many samples points have at least.
func points(of []metrics.Point) (n int64) {
	for i := range of {
		n++
		if of[i].Hist != nil {
			n++
		}
	}
	return n
}

// lose counts samples that came in and were not kept.
func (h *History) lose(reason string, n int64) {
	h.moved.in += n
	h.moved.drops[reason] += n
}

// unlock tells the books what happened, so that they balance whenever h.mu
// can be had, and releases h.mu.
func (h *History) unlock() {
	m := &h.moved
	if m.in > 0 {
		h.pipe.In(m.in)
	}
	if m.out > 0 {
		h.pipe.Out(m.out)
	}
	m.in, m.out = 0, 0
	for reason, n := range m.drops {
		h.pipe.Drop(reason, n)
	}
	clear(m.drops)
	h.mu.Unlock()
}

// A writer takes in the points of one family of one read. Its places are where it
// looks for the next series first.
type writer struct {
	h      *History
	src    *source
	f      *family
	read   uint32
	next   int
	parts  [len(parts)]*family // of a histogram
	nextOf [len(parts)]int
}

func (w *writer) point(p *metrics.Point, tags int) {
	switch {
	case len(p.Tags) != tags || p.Hist == nil && w.f.typ == metrics.HistogramType:
		w.h.lose(dropMalformed, 1)
	case p.Hist != nil:
		w.histogram(p)
	default:
		if s := w.series(w.f, p.Tags, &w.next); s != nil {
			w.h.append(w.src, s, w.read, p.Value, w.f.typ == metrics.CounterType)
		}
	}
}

// series returns the series with these tags, a new one if there is none, or nil
// if there is no room for it.
func (w *writer) series(f *family, tags []string, next *int) *series {
	i, ok := f.find(tags, *next)
	if !ok && !w.h.insert(w.src, f, i, tags, w.read) {
		w.h.lose(dropRefused, 1)
		return nil
	}
	*next = i + 1
	return f.series[i]
}
