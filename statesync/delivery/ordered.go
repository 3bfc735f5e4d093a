package delivery

import (
	"context"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// sendInOrder delivers batches in the log's order until ctx ends.
func (d *Dispatcher) sendInOrder(ctx, sending context.Context) {
	look := time.NewTicker(lookAside)
	defer look.Stop()
	for {
		items, generation := d.next(ctx, look.C)
		if items == nil {
			return
		}
		d.use(generation, items, true)
		for rest := items; len(rest) > 0 && ctx.Err() == nil; {
			rest = d.sendRun(ctx, sending, generation, rest)
		}
		d.use(generation, items, false)
	}
}

// use keeps what is told of the workloads of some items in memory, or not any
// longer.
func (d *Dispatcher) use(generation int64, items []*item, begins bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if generation != d.generation {
		return
	}
	if d.running = begins; begins {
		for _, it := range items {
			d.remember(it)
		}
		return
	}
	for uid := range d.told {
		d.forget(uid)
	}
}

// sendRun delivers the items up to the first that is left out, or leaves that
// out, and returns the rest.
func (d *Dispatcher) sendRun(ctx, sending context.Context, generation int64, items []*item) []*item {
	d.mu.Lock()
	defer d.mu.Unlock()
	if generation != d.generation {
		return nil
	}
	n := 0
	for n < len(items) && !items[n].skips() {
		n++
	}
	if n == 0 {
		d.skip(items[0])
		return items[1:]
	}
	ds := d.deliveries(items[:n])
	for failures := 0; ctx.Err() == nil; {
		switch {
		case generation != d.generation:
			return nil
		case failures > 0 && (d.compacts || d.thins):
			d.putBack(items)
			return nil
		}
		sent := d.opts.Now()
		d.mu.Unlock()
		err := d.deliver(sending, ds)
		position, now := d.positionOf(err), d.opts.Now()
		d.mu.Lock()
		switch {
		case generation != d.generation:
			return nil
		case err == nil:
			d.position = position
			d.acknowledge(items[:n], sent, now)
			return items[n:]
		case isGone(err):
			d.detach(statesync.DetachedGone, err)
			return nil
		}
		d.refused(n, err, now)
		failures++
		hurried := d.hurried
		d.mu.Unlock()
		sleep(ctx, backoff(failures, err), hurried)
		d.mu.Lock()
	}
	return nil
}

// putBack puts what is in memory aside, in a compaction: the rest is not to
// wait for it. The lock must be held.
func (d *Dispatcher) putBack(items []*item) {
	for _, it := range items {
		switch {
		case it.Mark != nil:
			d.markNext = it
		case it.Aside == 0:
			d.putAside(it, nil)
		default:
			d.stays(it)
		}
	}
	d.saveNow()
}

// positionOf is where the sink stands after a call that was taken.
func (d *Dispatcher) positionOf(err error) string {
	if p, ok := d.opts.Sink.(statesync.PositionedSink); ok && err == nil {
		return p.Position()
	}
	return ""
}
