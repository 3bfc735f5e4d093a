package delivery

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

// The rules of lanes:
//   - A lane is known by its key and holds its changes in order; the first is
//     in flight, or waits for its turn in the work queue.
//   - The reader adds only idle lanes to the queue: adding a lane that backs
//     off would bypass its back-off, because the queue's Add knows of none.
//   - The time before which a lane is not tried is the lane's own, and a
//     worker that comes early puts the lane back until then.

// A lane holds one workload's changes.
type lane struct {
	items     []*item
	failures  int
	notBefore time.Time
}

// readIntoLanes fills the lanes from the log until ctx ends.
func (d *Dispatcher) readIntoLanes(ctx context.Context) {
	for {
		items := d.next(ctx)
		if items == nil {
			return
		}
		d.mu.Lock()
		for _, it := range items {
			key := it.Workload.Key()
			l := d.lanes[key]
			if l == nil {
				l = &lane{}
				d.lanes[key] = l
				d.queue.Add(key)
			}
			l.items = append(l.items, it)
		}
		d.mu.Unlock()
	}
}

// sendLanes delivers the first change of one lane after another.
func (d *Dispatcher) sendLanes(ctx, sending context.Context) {
	for {
		key, shutdown := d.queue.Get()
		if shutdown {
			return
		}
		if ctx.Err() == nil {
			d.sendFirst(sending, key)
		}
		d.queue.Done(key)
	}
}

func (d *Dispatcher) sendFirst(ctx context.Context, key statesync.Key) {
	d.mu.Lock()
	l := d.lanes[key]
	if l == nil {
		d.mu.Unlock()
		return
	}
	sent := d.opts.Now()
	if wait := l.notBefore.Sub(sent); wait > 0 {
		d.mu.Unlock()
		d.queue.AddAfter(key, wait)
		return
	}
	first := l.items[0]
	d.mu.Unlock()

	err := d.deliver(ctx, []statesync.Delivery{first.Delivery})
	now := d.opts.Now()

	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		l.failures++
		wait := backoff(l.failures, err)
		l.notBefore = now.Add(wait)
		d.refused(1, err, now)
		d.queue.AddAfter(key, wait)
		return
	}
	d.acknowledge(l.items[:1], sent, now)
	l.items[0] = nil
	l.items, l.failures = l.items[1:], 0
	if len(l.items) == 0 {
		delete(d.lanes, key)
		return
	}
	d.queue.Add(key)
}

func (d *Dispatcher) deliver(ctx context.Context, batch []statesync.Delivery) error {
	_ = failpoint.Here("delivery/sending")
	err := d.opts.Sink.Deliver(ctx, batch)
	_ = failpoint.Here("delivery/sent")
	return err
}

// sendInOrder delivers batches in the log's order until ctx ends.
func (d *Dispatcher) sendInOrder(ctx, sending context.Context) {
	for {
		items := d.next(ctx)
		if items == nil {
			return
		}
		batch := make([]statesync.Delivery, len(items))
		for i, it := range items {
			batch[i] = it.Delivery
		}
		for failures := 0; ctx.Err() == nil; {
			sent := d.opts.Now()
			err := d.deliver(sending, batch)
			now := d.opts.Now()
			d.mu.Lock()
			if err == nil {
				d.acknowledge(items, sent, now)
				d.mu.Unlock()
				break
			}
			d.refused(len(batch), err, now)
			d.mu.Unlock()
			failures++
			sleep(ctx, backoff(failures, err))
		}
	}
}

// backoff is how long to wait after a number of failures in a row: doubling
// from 200 ms up to 10 s, the upper half of it random, and never less than
// the receiver asked for.
func backoff(failures int, err error) time.Duration {
	wait := min(retryFirst<<min(failures-1, 16), retryMax)
	wait = wait/2 + rand.N(wait/2)
	if s, ok := errors.AsType[*statesync.SinkError](err); ok {
		wait = max(wait, s.After)
	}
	return wait
}

func cause(err error) string {
	if s, ok := errors.AsType[*statesync.SinkError](err); ok && s.Cause != "" {
		return s.Cause
	}
	return "error"
}

// observe counts the stages of an acknowledged change.
func (d *Dispatcher) observe(it *item, sent, acked time.Time) {
	d.stages[statesync.StageOccurredObserved].Observe(it.Observed.Sub(it.Occurred))
	d.stages[statesync.StageRecordedSent].Observe(sent.Sub(it.Recorded))
	d.stages[statesync.StageSentAcknowledged].Observe(acked.Sub(sent))
	d.stages[statesync.StageWhole].Observe(acked.Sub(it.Observed))
}

func (d *Dispatcher) describe() (err error) {
	d.pipe, err = d.opts.Registry.Pipeline(metrics.PipelineOptions{
		Name: "delivery", Target: d.opts.Name, Unit: "changes", Lock: &d.mu, Queue: d.queued,
	})
	if err != nil {
		return err
	}
	for _, stage := range []string{
		statesync.StageOccurredObserved, statesync.StageRecordedSent,
		statesync.StageSentAcknowledged, statesync.StageWhole,
	} {
		h := metrics.NewHistogram()
		d.stages[stage] = h
		tags := []string{stage, d.opts.Name}
		err := d.opts.Registry.Func(statesync.StageDesc(), func(yield func(metrics.Point)) {
			s := h.Snapshot()
			yield(metrics.Point{Tags: tags, Hist: &s})
		})
		if err != nil {
			return err
		}
	}
	return nil
}
