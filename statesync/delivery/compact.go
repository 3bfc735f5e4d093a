package delivery

import (
	"errors"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// The rules of a log that is full because of this sink:
//   - Detach: it is given nothing more, and holds nothing back.
//   - Compact: a pass over the log leaves out what a later change replaces and
//     puts the rest aside; then a pass over what is put aside does the same.
//     When the log is still full, and nothing has come since, it is detached:
//     there would be no room for anybody else.
//   - Block: nothing is done; the log records nothing more.

const (
	pressedFor   = time.Second      // before something is done about it
	compactEvery = 10 * time.Second // at most
	compactWorks = 30 * time.Second // until what it has made room for is deleted
)

// compaction is how far one has come.
type compaction struct {
	compacts    bool           // the log is gone through
	thins       bool           // then what is put aside is
	thinned     place          // how far
	left        map[int64]bool // places that are left out, and not durably so
	compactedTo int64          // the log's head at the last one
	compactedAt time.Time      // when it ended
}

func newCompaction() compaction { return compaction{left: map[int64]bool{}} }

// relieve does what the policy says when the log is full because of this sink.
func (d *Dispatcher) relieve() {
	pressed := d.opts.OnFull != Block && d.opts.Source.Pressed(d.opts.Name)
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.opts.Now()
	switch {
	case !pressed || d.detached != "":
		d.pressed = time.Time{}
	case d.pressed.IsZero():
		d.pressed = now
	case now.Sub(d.pressed) < pressedFor || d.compacts || d.thins:
	case d.opts.OnFull == Detach:
		d.detach(statesync.DetachedFull, errors.New("the ledger is full, and the sink holds the most of it"))
	case d.head == d.compactedTo:
		if now.Sub(d.compactedAt) >= compactWorks {
			d.detach(statesync.DetachedFull, errors.New("the ledger is full with the last change of each workload alone, which the sink has not taken"))
		}
	case now.Sub(d.compactedAt) >= compactEvery:
		d.compact()
	}
}

// compact begins a compaction. The lock must be held.
func (d *Dispatcher) compact() {
	d.opts.Logger.Warn("the ledger is full: the sink is given the last change of each workload alone",
		"sink", d.opts.Name, "changes", d.queued().Len)
	d.compacts, d.thins, d.thinned, d.compactedTo = d.head > d.read, true, place{}, d.head
	d.clearOut()
	d.sweep, d.swept = true, place{}
	d.saveNow()
	d.wakeReader()
	d.hurry()
}

// compactLog puts aside what was read of the log, but for what is left out. The
// lock must be held.
func (d *Dispatcher) compactLog(items []*item) {
	for _, it := range items {
		if l := d.lanes[it.Workload.Key()]; l != nil {
			d.putAsideOf(l, it)
		} else {
			d.putAside(it, nil)
		}
	}
	d.sweep, d.swept = true, place{}
	d.compacts, d.compactedTo = d.read < d.head, d.head
	d.saveNow()
}

// thin has the changes left out that were put aside and that a later one
// replaces. What a lane holds in memory stays with it. The lock must be held.
func (d *Dispatcher) thin(q demand, read []statesync.Offered) {
	for i := range read {
		o := &read[i]
		d.thinned = placeOf(o)
		if !own(o) || o.Cause != "" || !replaced(o) || d.taken[o.Aside] || d.left[o.Aside] {
			continue
		}
		d.left[o.Aside] = true
		d.effect(effect{compact: o.Aside})
		d.aside--
		d.pipe.Drop(statesync.SkipCompacted, 1)
		d.marks.came(o.Number)
		d.marks.leftOut(o.Number, d.acked())
	}
	if len(read) < q.Limit {
		d.thins, d.compactedAt = false, d.opts.Now()
	}
	d.saveNow()
}
