package delivery

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

const (
	saveEvery = 100 * time.Millisecond
	warnEvery = time.Minute // between two log lines about refusals

	slowDelivery = 100 * time.Millisecond // from which on the histogram names a change
)

// keepBooks hands progress over, sends marks, and looks whether the log is full
// because of this sink, until ctx ends.
func (d *Dispatcher) keepBooks(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	mark := time.NewTicker(d.opts.MarkEvery)
	defer mark.Stop()
	for {
		select {
		case <-tick.C:
			d.relieve()
		case <-d.eager:
		case <-mark.C:
			d.mark()
			continue
		case <-ctx.Done():
			return
		}
		d.save()
	}
}

// saveNow has progress handed over at once. It needs no lock.
func (d *Dispatcher) saveNow() {
	select {
	case d.eager <- struct{}{}:
	default:
	}
}

func (d *Dispatcher) wakeReader() {
	select {
	case d.room <- struct{}{}:
	default:
	}
}

// save hands over what has become of the deliveries since the last time.
func (d *Dispatcher) save() {
	d.mu.Lock()
	p := statesync.Progress{Sink: d.opts.Name, Acked: d.acked(), Position: d.position, Marked: d.marked}
	d.marks.upTo(p.Acked)
	if p.Skipped = d.marks.leftOutSince(); d.leaves {
		p.Detach = d.detached
	}
	effects := d.durable(&p)
	if len(effects) == 0 && p.Marked == nil && p.Detach == "" && p.Acked == d.saved && p.Position == d.savedPos {
		d.mu.Unlock()
		return
	}
	d.saved, d.savedPos, d.marked, d.leaves = p.Acked, p.Position, nil, false
	generation := d.generation
	if len(effects) > 0 || d.unplaced {
		p.Saved = func() { d.isSaved(generation, effects) }
	}
	d.mu.Unlock()
	d.opts.Source.Save(p)
	_ = failpoint.Here("delivery/saved")
}

// durable takes out the effects that may become durable, and puts them into
// progress. The lock must be held.
func (d *Dispatcher) durable(p *statesync.Progress) (effects []effect) {
	var later []effect
	for _, e := range d.effects {
		if e.number > p.Acked {
			later = append(later, e)
			continue
		}
		effects = append(effects, e)
		switch {
		case e.put != nil:
			p.PutAside = append(p.PutAside, *e.put)
		case e.settled > 0:
			p.Settled = append(p.Settled, e.settled)
		case e.compact > 0:
			p.Compacted = append(p.Compacted, e.compact)
		case e.told != nil:
			p.Told = append(p.Told, *e.told)
		case e.letter != nil:
			p.Letters = append(p.Letters, *e.letter)
		}
	}
	d.effects = later
	return effects
}

// isSaved is called when effects are durable: the log now says so itself.
func (d *Dispatcher) isSaved(generation int64, effects []effect) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if generation != d.generation {
		return
	}
	d.saves++
	d.unplaced = false
	d.unsaved -= len(effects)
	for _, e := range effects {
		delete(d.taken, e.settled)
		delete(d.left, e.compact)
		if e.told != nil {
			d.told[e.told.UID].saving--
			d.forget(e.told.UID)
		}
		if e.put != nil {
			if d.putting--; e.lane == nil {
				d.homeless--
			}
		}
		if l := e.lane; l != nil {
			if l.unsaved--; l.unsaved == 0 && len(l.items) == 0 {
				d.queue.Add(e.put.Workload.Key())
			}
		}
	}
	d.wakeReader()
}

// mark sends an account of what was gone through since the last one.
func (d *Dispatcher) mark() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.detached != "" || d.pace.open || d.cluster == "" {
		return
	}
	m := d.marks.make(d.acked())
	if m == nil {
		return
	}
	it := &item{Offered: statesync.Offered{Delivery: statesync.MarkDelivery(d.opts.Name, d.cluster, d.epoch, *m, d.opts.Now())}}
	it.Mark = m
	if d.ordered {
		d.markNext = it
		d.wakeReader()
		return
	}
	d.line(it)
}

// refused notes a try that failed. The lock must be held.
func (d *Dispatcher) refused(n int, err error, now time.Time) {
	d.pipe.Retry(cause(err), int64(n))
	d.failing(err, now)
}

// failing notes what holds the sink up. The lock must be held.
func (d *Dispatcher) failing(err error, now time.Time) {
	if d.standing.Failing.IsZero() || refuses(d.standing.Failure) && !refuses(err) {
		d.standing.Failing = now // until then the receiver was alive
	}
	d.standing.Failure = err
	if now.Sub(d.warned) >= warnEvery {
		d.warned = now
		d.opts.Logger.Warn("sink is held up; trying again until it goes on", "sink", d.opts.Name, "err", err)
	}
}

func cause(err error) string { return cmp.Or(said(err).Cause, "error") }

// observe counts an acknowledged change and its stages. The lock must be held.
func (d *Dispatcher) observe(it *item, sent, acked time.Time) {
	d.stages[statesync.StageOccurredObserved].Observe(it.Observed.Sub(it.Occurred))
	d.stages[statesync.StageRecordedSent].Observe(sent.Sub(it.Recorded))
	d.stages[statesync.StageSentAcknowledged].Observe(acked.Sub(sent))
	whole := acked.Sub(it.Observed)
	if d.acknowledged++; whole > lateAfter {
		d.late++
	}
	if whole < slowDelivery {
		d.stages[statesync.StageWhole].Observe(whole)
	} else {
		d.stages[statesync.StageWhole].ObserveWithExemplar(whole, metrics.Label{Name: "change", Value: it.ID})
	}
}

func (d *Dispatcher) describe() (err error) {
	d.pipe, err = d.metrics.Pipeline(metrics.PipelineOptions{
		Name: "delivery", Target: d.opts.Name, Unit: "changes", Lock: &d.mu, Queue: d.queued,
		Reasons: d.dropReasons(),
	})
	if err != nil {
		return err
	}
	for _, stage := range []string{
		statesync.StageOccurredObserved, statesync.StageRecordedSent,
		statesync.StageSentAcknowledged, statesync.StageWhole,
	} {
		h := metrics.NewTimer()
		d.stages[stage] = h
		tags := []string{stage, d.opts.Name}
		err := d.metrics.Func(statesync.StageDesc(), func(yield func(metrics.Point)) {
			s := h.Snapshot()
			yield(metrics.Point{Tags: tags, Hist: &s})
		})
		if err != nil {
			return err
		}
	}
	return errors.Join(d.describeSink()...)
}
