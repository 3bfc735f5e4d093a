package delivery

import (
	"context"
	"time"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
)

// What is read, and when:
//   - At the start, and after a compaction, what is put aside comes first, in
//     its order: a sweep. It takes what no lane in memory waits for. Before
//     it a compaction goes through the log, and through what is put aside.
//   - Then the log.
//   - What others put aside (a replay) is looked for when there is a sign of
//     it, and once a second.
//   - Nothing is read while the window is full; but a compaction is let
//     through. While the breaker is open one entry is, when all lanes in memory
//     have been refused: it may be they that fail, and not the receiver.

const (
	readBatch = 512
	lookAside = time.Second
)

// A demand says what to read next.
type demand struct {
	statesync.ReadQuery
	thins      bool  // it is gone through, and nothing of it taken into memory
	saves      int64 // as it was then
	generation int64
	head       int64
	wake       <-chan struct{}
}

// next waits until there is something to read and room for it, and takes some
// in. It returns none only when ctx has ended. look says when to look for what
// others may have put aside.
func (d *Dispatcher) next(ctx context.Context, look <-chan time.Time) (items []*item, generation int64) {
	for ctx.Err() == nil {
		q := d.demand()
		if mark := d.takeMark(); mark != nil {
			return []*item{mark}, q.generation
		}
		if q.Limit > 0 {
			read, err := d.opts.Source.Read(ctx, q.ReadQuery)
			if err == nil {
				if items := d.take(q, read); len(items) > 0 {
					return items, q.generation
				}
			} else if ctx.Err() == nil {
				d.mu.Lock()
				d.failing(err, d.opts.Now())
				d.mu.Unlock()
				sleep(ctx, time.Second, nil)
			}
			continue
		}
		select {
		case <-q.wake:
			d.mayBeFresh(q.head)
		case <-look:
			d.mayBeFresh(-1)
		case <-d.room:
		case <-ctx.Done():
		}
	}
	return nil, 0
}

// mayBeFresh notes that others may have put something aside: unless the log's
// head has moved from where it was, which is then what there was a sign of.
func (d *Dispatcher) mayBeFresh(head int64) {
	now, _ := d.opts.Source.Head()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fresh = d.fresh || head < 0 || now == head
}

// takeMark returns the mark that an ordered sink is to be given next.
func (d *Dispatcher) takeMark() *item {
	d.mu.Lock()
	defer d.mu.Unlock()
	it := d.markNext
	d.markNext = nil
	return it
}

// demand says what to read.
func (d *Dispatcher) demand() demand {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := demand{saves: d.saves, generation: d.generation}
	q.wake = d.countIn()
	q.Sink, q.head = d.opts.Name, d.head
	if d.detached != "" || d.unplaced {
		return q
	}
	room := min(d.opts.Window-d.memory, d.opts.Window-d.unsaved, readBatch)
	switch {
	case d.compacts && d.head > d.read:
		q.After, q.Limit = d.read, int(min(d.head-d.read, int64(d.opts.Window-d.unsaved), readBatch))
	case d.thins && d.putting > 0:
	case d.thins:
		q.thins, q.Aside, q.After, q.AfterAside, q.Limit = true, true, d.thinned.number, d.thinned.id, min(d.opts.Window-d.unsaved, readBatch)
	case d.pace.open && d.untried(), d.sweep && d.homeless+len(d.left) > 0:
	case d.sweep:
		q.Aside, q.After, q.AfterAside, q.Limit = true, d.swept.number, d.swept.id, room
	case d.fresh:
		q.Aside, q.Fresh, q.AfterAside, q.Limit = true, true, d.asideTop, room
	default:
		q.After, q.Limit = d.read, int(min(d.head-d.read, int64(room)))
	}
	if q.Limit = max(0, q.Limit); d.pace.open && !d.compacts && !d.thins {
		q.Limit = min(q.Limit, 1)
	}
	return q
}

// take takes what was read into memory and returns it; nothing when it is out
// of date, because what it rests on has become durable meanwhile.
func (d *Dispatcher) take(q demand, read []statesync.Offered) []*item {
	d.mu.Lock()
	defer d.mu.Unlock()
	if q.generation != d.generation || q.saves != d.saves && (q.Aside || anyTold(read)) {
		return nil
	}
	_ = failpoint.Here("delivery/read")
	var items []*item
	switch {
	case q.thins:
		d.thin(q, read)
	case q.Aside:
		items = d.takeAside(q, read)
	default:
		items = d.takeLog(q, read)
	}
	if !d.ordered {
		for _, it := range items {
			d.line(it)
		}
	}
	return items
}

// takeLog takes what was read of the log into memory. Its numbers have no
// holes, so one that is not there is lost: counted as a drop and said aloud,
// never passed over in silence. The lock must be held.
func (d *Dispatcher) takeLog(q demand, read []statesync.Offered) []*item {
	upTo := q.After + int64(q.Limit)
	if len(read) > 0 {
		upTo = read[len(read)-1].Number
	}
	if missing := upTo - d.read - int64(len(read)); missing > 0 {
		d.pipe.Drop(statesync.SkipMissing, missing)
		d.opts.Logger.Error("changes are missing from the ledger", "sink", d.opts.Name,
			"missing", missing, "after", d.read, "up_to", upTo)
	}
	items := make([]*item, 0, len(read))
	number := d.read
	var gone []int64
	for _, o := range read {
		for number++; number < o.Number; number++ {
			gone = append(gone, number)
		}
		it := &item{Offered: o, unit: true}
		d.cluster, d.epoch = o.Cluster, o.Epoch
		switch {
		case !d.wants(&it.Change):
			it.Cause = statesync.SkipFilter
		case d.compacts && replaced(&o):
			it.Cause = statesync.SkipCompacted
		}
		d.hold(it)
		items = append(items, it)
	}
	for number++; number <= upTo; number++ {
		gone = append(gone, number)
	}
	d.read, d.behind = upTo, time.Time{}
	for _, number := range gone { // once what is before them is in memory
		d.marks.leftOut(number, d.acked())
	}
	if d.compacts {
		d.compactLog(items)
		items = nil
	}
	return items
}

// wants reports whether the sink's filter takes a change; gaps pass.
func (d *Dispatcher) wants(c *statesync.Change) bool {
	return d.opts.Filter == nil || c.Gap != nil || d.opts.Filter(c)
}

func anyTold(read []statesync.Offered) bool {
	for i := range read {
		if read[i].Told != nil {
			return true
		}
	}
	return false
}

// takeAside takes in what was put aside, but for what a lane in memory is to
// read by itself. The lock must be held.
func (d *Dispatcher) takeAside(q demand, read []statesync.Offered) []*item {
	items := make([]*item, 0, len(read))
	for i := range read {
		o := &read[i]
		d.welcome(o)
		if !q.Fresh {
			d.swept = placeOf(o)
		}
		if d.taken[o.Aside] {
			continue
		}
		if l := d.lanes[o.Workload.Key()]; l != nil && (l.parked || l.disk || len(l.items) >= d.laneCap()) {
			l.disk = true
			continue
		}
		items = append(items, d.fetch(o))
	}
	switch {
	case len(read) == q.Limit:
	case q.Fresh:
		d.fresh = false
	default:
		d.sweep = false
	}
	return items
}

// welcome counts in what somebody else has put aside. The lock must be held.
func (d *Dispatcher) welcome(o *statesync.Offered) {
	if own(o) || o.Aside <= d.asideTop {
		return
	}
	d.asideTop = o.Aside
	d.aside++
	d.pipe.In(1)
}

// fetch takes one entry from aside into memory. The lock must be held.
func (d *Dispatcher) fetch(o *statesync.Offered) *item {
	it := &item{Offered: *o, unit: o.Cause == "" || o.Cause == statesync.SkipMissing}
	if it.unit {
		d.aside--
	}
	switch {
	case it.Cause == statesync.SkipMissing:
		d.opts.Logger.Error("a change that was put aside is missing from the ledger", "sink", d.opts.Name, "number", it.Number)
	case it.Initial && !it.Replayed && !d.wants(&it.Change):
		it.Cause = statesync.SkipFilter
	}
	d.hold(it)
	return it
}

// untried reports whether a lane in memory has not been refused: one that a
// probe of the breaker could be. The lock must be held.
func (d *Dispatcher) untried() bool {
	for _, l := range d.lanes {
		if l.failures == 0 && l.group == nil && len(l.items) > 0 {
			return true
		}
	}
	return false
}
