// Package delivery takes changes from the log to one sink: a bounded window, a lane a workload, retries with back-off, and a cursor.
//
// A slow sink fills its window and stops reading; what it has not read stays
// in the log, on disk. A lane holds one workload's changes in order and has
// one of them in flight, so a failing workload delays nobody else.
package delivery

import (
	"container/list"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/util/workqueue"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

const (
	defaultWindow      = 4096
	defaultConcurrency = 32
	readBatch          = 512
	saveEvery          = 100 * time.Millisecond
	warnEvery          = time.Minute // between two log lines about refusals
	retryFirst         = 200 * time.Millisecond
	retryMax           = 10 * time.Second
	finishTime         = 1500 * time.Millisecond // for what is in flight when delivery stops
	leaveTime          = 500 * time.Millisecond  // for a sink to return once its context has ended
)

// A Source is the log as delivery reads it.
type Source interface {
	// Read returns up to limit durable changes with numbers above after, in
	// order.
	Read(ctx context.Context, after int64, limit int) ([]statesync.Change, error)
	// Head returns the number of the last durable change, and a channel that
	// is closed when there is a later one.
	Head() (int64, <-chan struct{})
	// SaveCursor makes a sink's acknowledgements durable soon.
	SaveCursor(sink string, acked int64)
}

// Options say what is delivered where.
type Options struct {
	Name        string // of the sink
	Sink        statesync.Sink
	Source      Source
	Cursor      statesync.Cursor
	Window      int // changes read and not acknowledged; default 4096
	Concurrency int // deliveries at once, one a lane; default 32

	Registry     *metrics.Registry
	QueueMetrics workqueue.MetricsProvider
	Logger       *slog.Logger
	Now          func() time.Time
}

// Dispatcher delivers to one sink.
type Dispatcher struct {
	opts   Options
	pipe   *metrics.Pipeline
	stages map[string]*metrics.Histogram
	queue  workqueue.TypedDelayingInterface[statesync.Key]
	room   chan struct{} // holds one token when the window may have room

	mu       sync.Mutex // guards what follows
	head     int64      // the log's last number, as far as it is counted in
	read     int64      // the last number taken into the window
	window   *list.List // of *item, by number: read and not acknowledged
	lanes    map[statesync.Key]*lane
	saved    int64 // the cursor last handed over
	standing Standing
	behind   time.Time // since when the log has changes that are not read; zero: not known to
	warned   time.Time // when a failure was last logged
}

// An item is a delivery in the window.
type item struct {
	statesync.Delivery
	place *list.Element
}

// Standing is how a sink does.
type Standing struct {
	Name    string
	Head    int64     // the log's last number
	Acked   int64     // everything up to this number is acknowledged
	Waiting int64     // changes not acknowledged
	Oldest  time.Time // when the oldest of them was observed; when none is read yet, since when
	Failing time.Time // since when every try has failed; zero: the last one succeeded
	Failure error     // of the last try that failed, be it to read or to deliver
}

// New returns a dispatcher; nothing is read before Run.
func New(o Options) (*Dispatcher, error) {
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	if o.Concurrency == 0 {
		o.Concurrency = defaultConcurrency
	}
	d := &Dispatcher{
		opts: o, stages: map[string]*metrics.Histogram{}, room: make(chan struct{}, 1),
		read: o.Cursor.Acked, saved: o.Cursor.Acked,
		window: list.New(), lanes: map[statesync.Key]*lane{},
		queue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[statesync.Key]{
			Name: "sink/" + o.Name, MetricsProvider: o.QueueMetrics,
		}),
	}
	d.standing.Name = o.Name
	if err := d.describe(); err != nil {
		d.queue.ShutDown()
		return nil, fmt.Errorf("sink %s: %w", o.Name, err)
	}
	d.head, _ = o.Source.Head()
	d.pipe.Carry(d.head - o.Cursor.Acked)
	return d, nil
}

// Run delivers until ctx ends. What is in flight then has 1.5 seconds to be
// acknowledged; the rest stays in the log. A sink that hangs beyond them, deaf
// to its context, is left behind with an error: it must not keep the others
// and the ledger from stopping well.
func (d *Dispatcher) Run(ctx context.Context) error {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var group errgroup.Group
	if _, ok := d.opts.Sink.(statesync.OrderedSink); ok {
		group.Go(func() error { d.sendInOrder(ctx, sending); return nil })
	} else {
		group.Go(func() error { d.readIntoLanes(ctx); return nil })
		for range d.opts.Concurrency {
			group.Go(func() error { d.sendLanes(ctx, sending); return nil })
		}
	}
	group.Go(func() error { d.saveCursors(ctx); return nil })
	<-ctx.Done()
	d.queue.ShutDown()
	defer time.AfterFunc(finishTime, cancel).Stop()
	finished := make(chan struct{})
	go func() { _ = group.Wait(); close(finished) }() // they return no errors
	leave := time.NewTimer(finishTime + leaveTime)
	defer leave.Stop()
	var err error
	select {
	case <-finished:
	case <-leave.C:
		err = fmt.Errorf("sink %s: still delivering %s after the stop, want %s at most", d.opts.Name, finishTime+leaveTime, finishTime)
	}
	d.save()
	return err
}

// Standing reports how the sink does.
func (d *Dispatcher) Standing() Standing {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := d.queued() // first: it moves the head
	s := d.standing
	s.Head, s.Acked, s.Waiting, s.Oldest = d.head, d.acked(), q.Len, q.Oldest
	return s
}

// next waits until the log has changes beyond those read and the window has
// room, and takes some in. It returns none only when ctx has ended.
func (d *Dispatcher) next(ctx context.Context) []*item {
	for ctx.Err() == nil {
		after, limit, wake := d.demand()
		if limit > 0 {
			changes, err := d.opts.Source.Read(ctx, after, limit)
			if err == nil {
				if items := d.take(changes, after+int64(limit)); len(items) > 0 {
					return items
				}
			} else if ctx.Err() == nil {
				d.mu.Lock()
				d.failing(err, d.opts.Now())
				d.mu.Unlock()
				sleep(ctx, time.Second)
			}
			continue
		}
		select {
		case <-wake:
		case <-d.room:
		case <-ctx.Done():
		}
	}
	return nil
}

// demand says what to read of the log.
func (d *Dispatcher) demand() (after int64, limit int, wake <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wake = d.countIn()
	return d.read, int(min(d.head-d.read, int64(d.opts.Window-d.window.Len()), readBatch)), wake
}

// countIn counts in what is new in the log and returns a channel that is
// closed when there is more. The lock must be held.
func (d *Dispatcher) countIn() (wake <-chan struct{}) {
	head, wake := d.opts.Source.Head()
	d.pipe.In(head - d.head)
	d.head = head
	if d.head > d.read && d.behind.IsZero() {
		d.behind = d.opts.Now()
	}
	return wake
}

// take puts changes into the window; upTo is the number up to which they were
// asked for. Numbers have no holes, so one that is not there is lost: counted
// as a drop and said aloud, never passed over in silence.
func (d *Dispatcher) take(changes []statesync.Change, upTo int64) []*item {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(changes) > 0 {
		upTo = changes[len(changes)-1].Number
	}
	if missing := upTo - d.read - int64(len(changes)); missing > 0 {
		d.pipe.Drop("missing", missing)
		d.opts.Logger.Error("changes are missing from the ledger", "sink", d.opts.Name,
			"missing", missing, "after", d.read, "up_to", upTo)
	}
	_ = failpoint.Here("delivery/read")
	items := make([]*item, len(changes))
	for i, c := range changes {
		it := &item{Delivery: statesync.Delivery{Change: c}}
		if c.Previous > d.opts.Cursor.Since {
			it.PreviousSeq = c.Seq - 1
		}
		it.place = d.window.PushBack(it)
		items[i] = it
	}
	d.read, d.behind = upTo, time.Time{}
	return items
}

// acknowledge takes items off the books. The lock must be held.
func (d *Dispatcher) acknowledge(items []*item, sent, now time.Time) {
	for _, it := range items {
		d.window.Remove(it.place)
		d.observe(it, sent, now)
	}
	d.pipe.Out(int64(len(items)))
	_ = failpoint.Here("delivery/acknowledged")
	d.standing.Failing = time.Time{}
	select {
	case d.room <- struct{}{}:
	default:
	}
}

// refused notes a try that failed. The lock must be held.
func (d *Dispatcher) refused(n int, err error, now time.Time) {
	d.pipe.Retry(cause(err), int64(n))
	d.failing(err, now)
}

// failing notes what holds the sink up. The lock must be held.
func (d *Dispatcher) failing(err error, now time.Time) {
	if d.standing.Failing.IsZero() {
		d.standing.Failing = now
	}
	d.standing.Failure = err
	if now.Sub(d.warned) >= warnEvery {
		d.warned = now
		d.opts.Logger.Warn("sink is held up; trying again until it goes on", "sink", d.opts.Name, "err", err)
	}
}

// acked is the number up to which everything is acknowledged. The lock must
// be held.
func (d *Dispatcher) acked() int64 {
	if first := d.window.Front(); first != nil {
		return first.Value.(*item).Number - 1
	}
	return d.read
}

// queued reports what is not acknowledged: what is in the window, and what is
// still to be read. It looks at the log itself, because nobody reads while the
// sink holds everything up. The lock must be held.
func (d *Dispatcher) queued() metrics.Queue {
	d.countIn()
	q := metrics.Queue{Len: int64(d.window.Len()) + d.head - d.read}
	if first := d.window.Front(); first != nil {
		q.Oldest = first.Value.(*item).Observed
	} else if q.Len > 0 {
		q.Oldest = d.behind
	}
	return q
}

func (d *Dispatcher) saveCursors(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.save()
		case <-ctx.Done():
			return
		}
	}
}

func (d *Dispatcher) save() {
	d.mu.Lock()
	acked := d.acked()
	changed := acked != d.saved
	d.saved = acked
	d.mu.Unlock()
	if changed {
		d.opts.Source.SaveCursor(d.opts.Name, acked)
		_ = failpoint.Here("delivery/saved")
	}
}

func sleep(ctx context.Context, t time.Duration) {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
