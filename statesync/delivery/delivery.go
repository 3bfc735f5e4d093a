// Package delivery takes changes from the log to one sink: a bounded window, a lane a workload, retries with back-off, and a cursor.
//
// A slow sink fills its window and stops reading; what it has not read stays
// in the log, on disk. A lane holds one workload's changes in order and has
// one of them in flight, so a failing workload delays nobody else: what comes
// for it is put aside, on disk too, and the cursor goes on.
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

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

const (
	defaultWindow      = 4096
	defaultConcurrency = 32
	defaultMarkEvery   = 10 * time.Second
	finishTime         = 1500 * time.Millisecond // for what is in flight when delivery stops
	leaveTime          = 500 * time.Millisecond  // for a sink to return once its context has ended
)

// A Source is the log as delivery reads it.
type Source interface {
	// Head returns the number of the last durable change, and a channel that
	// is closed when there is a later one, or when something was put aside
	// for a sink by somebody else.
	Head() (int64, <-chan struct{})
	// Read returns what is durable, in order.
	Read(ctx context.Context, q statesync.ReadQuery) ([]statesync.Offered, error)
	// Save makes progress durable soon.
	Save(p statesync.Progress)
	// Pressed reports whether there is hardly any room left and the sink is
	// the one that keeps the most.
	Pressed(sink string) bool
}

// A Policy says what becomes of a sink that keeps the log full.
type Policy string

// The policies.
const (
	Detach  Policy = "detach"  // it is given nothing more, until it is attached again
	Compact Policy = "compact" // it is given the last change of each workload alone
	Block   Policy = "block"   // it keeps what it needs, and nothing more is recorded
)

// Letters says what becomes of a change that a sink refuses as such.
type Letters string

// The policies for dead letters.
const (
	SkipLetters Letters = "skip" // it is kept as a dead letter, and the workload's next change is delivered
	ParkLetters Letters = "park" // the workload's later changes wait behind it
)

// Options say what is delivered where.
type Options struct {
	Name        string // of the sink
	Sink        statesync.Sink
	Source      Source
	Cursor      statesync.Cursor
	Window      int                            // changes in memory; default 4096
	Concurrency int                            // deliveries at once, one a lane, at most; default 32
	Filter      func(c *statesync.Change) bool // whether the sink wants a change; nil: all. It gets every gap.
	OnFull      Policy                         // default Detach
	Letters     Letters                        // default SkipLetters
	MarkEvery   time.Duration                  // default 10 s

	Registry     *metrics.Registry
	QueueMetrics workqueue.MetricsProvider
	Logger       *slog.Logger
	Now          func() time.Time
}

// Dispatcher delivers to one sink.
type Dispatcher struct {
	opts    Options
	batch   int  // deliveries a call, at most
	ordered bool // the sink wants the log's order
	metrics *metrics.Group
	pipe    *metrics.Pipeline
	stages  map[string]*metrics.Timer
	queue   workqueue.TypedDelayingInterface[statesync.Key]
	ready   chan statesync.Key // what the queue has given out
	room    chan struct{}      // holds one token when the window may have room
	eager   chan struct{}      // holds one token when progress is to be saved at once

	mu       sync.Mutex // guards what follows
	pace     pacer
	slots    *sync.Cond // of mu: a delivery has ended
	hurried  chan struct{}
	ended    chan struct{}
	head     int64 // the log's last number, as far as it is counted in
	standing Standing
	behind   time.Time // since when the log has changes that are not read; zero: not known to
	warned   time.Time // when a failure was last logged

	acknowledged, late int64 // changes, since New

	state // begins anew when the sink is attached again
}

// state is what a dispatcher knows from one attachment to the next.
type state struct {
	generation int64
	detached   string     // why nothing is delivered
	since      int64      // changes after it were all offered
	read       int64      // the last number taken
	window     *list.List // of *item from the log, by number: taken and not settled
	memory     int        // items in memory, those from aside included
	lanes      map[statesync.Key]*lane
	parked     int // lanes that are

	aside    int64          // units put aside and not in memory
	asideTop int64          // what was put aside up to here is counted
	sweep    bool           // what is put aside is to be gone through before the log is read on
	swept    place          // how far that has come
	fresh    bool           // others may have put something aside
	taken    map[int64]bool // places in memory, or settled and not durably so
	told     map[string]*told
	letters  int64

	effects  []effect        // not handed over
	marked   *statesync.Mark // acknowledged, and not handed over
	leaves   bool            // the detachment is not handed over
	putting  int             // entries put aside that are not durable
	homeless int             // those of them that no lane waits for
	unsaved  int             // effects that are not durable
	saves    int64           // that became durable and changed what Read returns
	unplaced bool            // the sink's first position is not durable
	saved    int64           // the cursor last handed over
	savedPos string
	position string
	marks    marks
	markNext *item  // of an ordered sink
	running  bool   // an ordered sink's batch is under way
	cluster  string // of the last change
	epoch    int64
	pressed  time.Time // since when the log is full of this sink's
	compaction
}

// Standing is how a sink does.
type Standing struct {
	Name       string
	Head       int64     // the log's last number
	Acked      int64     // everything up to this number is settled
	Waiting    int64     // changes not acknowledged
	Oldest     time.Time // when the oldest of them was observed, parked ones aside; when none is read yet, since when
	Stuck      time.Time // when the oldest of the parked ones was observed
	Failing    time.Time // since when every try has failed, anew after refusals of changes as such; zero: the last one succeeded
	Failure    error     // of the last try that failed, be it to read or to deliver
	Parked     int       // workloads whose changes are refused for now
	Aside      int64     // of Waiting, those put aside on disk
	Letters    int64     // dead letters
	Breaker    string    // closed, open, half-open
	Detached   string    // why nothing is delivered; empty: it is
	DetachedAt time.Time
}

// New returns a dispatcher; nothing is read before Run.
func New(o Options) (*Dispatcher, error) {
	defaults(&o)
	batch := 1
	if b, ok := o.Sink.(statesync.BatchingSink); ok {
		batch = max(1, b.Batch())
	}
	d := &Dispatcher{
		opts: o, batch: batch, metrics: o.Registry.Group(), stages: map[string]*metrics.Timer{},
		room: make(chan struct{}, 1), eager: make(chan struct{}, 1), ready: make(chan statesync.Key, o.Concurrency+batch),
		hurried: make(chan struct{}), ended: make(chan struct{}),
		queue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[statesync.Key]{
			Name: "sink/" + o.Name, MetricsProvider: o.QueueMetrics,
		}),
	}
	d.slots = sync.NewCond(&d.mu)
	d.pace = newPacer(o.Concurrency)
	_, d.ordered = o.Sink.(statesync.OrderedSink)
	d.standing.Name = o.Name
	d.begin(o.Cursor)
	if err := d.describe(); err != nil {
		d.Close()
		return nil, fmt.Errorf("sink %s: %w", o.Name, err)
	}
	if err := d.resume(); err != nil {
		d.Close()
		return nil, fmt.Errorf("sink %s: go on from %q: %w", o.Name, o.Cursor.Position, err)
	}
	return d, nil
}

// resume counts in what waits, and has the sink go on from where it stood. One
// that has no position yet is given nothing before that is durable: else what
// it is given first would come twice after a crash.
func (d *Dispatcher) resume() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.head, _ = d.opts.Source.Head()
	if d.detached == "" {
		d.pipe.Carry(d.head - d.read + d.aside)
	}
	p, ok := d.opts.Sink.(statesync.PositionedSink)
	if !ok {
		return nil
	}
	if err := p.Resume(d.position); err != nil {
		return err
	}
	if d.position == "" {
		d.position = p.Position()
		d.unplaced = d.position != ""
		d.saveNow()
	}
	return nil
}

func defaults(o *Options) {
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	if o.Concurrency == 0 {
		o.Concurrency = defaultConcurrency
	}
	if o.MarkEvery == 0 {
		o.MarkEvery = defaultMarkEvery
	}
	if o.OnFull == "" {
		o.OnFull = Detach
	}
	if o.Letters == "" {
		o.Letters = SkipLetters
	}
}

// begin takes a cursor over.
func (d *Dispatcher) begin(c statesync.Cursor) {
	d.state = state{
		generation: d.generation + 1, detached: c.Detached,
		since: c.Since, read: c.Acked, saved: c.Acked, position: c.Position, savedPos: c.Position,
		window: list.New(), lanes: map[statesync.Key]*lane{}, taken: map[int64]bool{}, told: map[string]*told{},
		aside: c.Aside, asideTop: c.AsideTop, sweep: true, letters: c.Letters, marks: newMarks(c),
		compaction: newCompaction(),
	}
	d.standing.DetachedAt = c.DetachedAt
	if d.detached != "" {
		d.aside = 0
	}
}

// Run delivers until ctx ends. What is in flight then has 1.5 seconds to be
// acknowledged; the rest stays in the log. A sink that hangs beyond them, deaf
// to its context, is left behind with an error: it must not keep the others
// and the ledger from stopping well. While the sink is detached nothing is
// delivered.
func (d *Dispatcher) Run(ctx context.Context) error {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.slots.Broadcast()
	})()
	var group errgroup.Group
	if d.ordered {
		group.Go(func() error { d.sendInOrder(ctx, sending); return nil })
	} else {
		group.Go(func() error { d.readIntoLanes(ctx); return nil })
		group.Go(func() error { d.giveOut(); return nil })
		for range d.opts.Concurrency {
			group.Go(func() error { d.sendLanes(ctx, sending); return nil })
		}
	}
	group.Go(func() error { d.keepBooks(ctx); return nil })
	<-ctx.Done()
	d.queue.ShutDown()
	defer time.AfterFunc(finishTime, cancel).Stop()
	go func() { _ = group.Wait(); close(d.ended) }() // they return no errors
	leave := time.NewTimer(finishTime + leaveTime)
	defer leave.Stop()
	var err error
	select {
	case <-d.ended:
	case <-leave.C:
		err = fmt.Errorf("sink %s: still delivering %s after the stop, want %s at most", d.opts.Name, finishTime+leaveTime, finishTime)
	}
	d.save()
	return err
}

// Ended is closed once nothing is delivered any more: with Run's return, but
// for a sink that was left behind.
func (d *Dispatcher) Ended() <-chan struct{} { return d.ended }

// Close gives the metrics back, so that there can be another dispatcher of the
// same name. Run has returned.
func (d *Dispatcher) Close() {
	d.queue.ShutDown()
	d.metrics.Close()
}

// Attach goes on from where the log says that a detached sink is to begin
// again.
func (d *Dispatcher) Attach(c statesync.Cursor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.countIn()
	d.begin(c)
	inFlight := d.pace.inFlight
	d.pace = newPacer(d.opts.Concurrency)
	d.pace.inFlight = inFlight
	d.standing.Failing = time.Time{}
	d.pipe.In(d.head - c.Acked + c.Aside) // those of them that are in the log were dropped when they came
	d.wakeReader()
	d.hurry()
}

// hurry has an ordered sink's run look again, however long it was to wait. The
// lock must be held.
func (d *Dispatcher) hurry() {
	close(d.hurried)
	d.hurried = make(chan struct{})
}

// LettersGone notes that n dead letters are no more: they come again.
func (d *Dispatcher) LettersGone(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.letters = max(0, d.letters-n)
}

// Standing reports how the sink does.
func (d *Dispatcher) Standing() Standing {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := d.queued() // first: it moves the head
	s := d.standing
	s.Head, s.Acked, s.Waiting, s.Oldest, s.Stuck = d.head, d.acked(), q.Len, d.oldest(), d.stuck()
	s.Parked, s.Aside, s.Letters, s.Breaker, s.Detached = d.parked, d.aside, d.letters, d.pace.String(), d.detached
	return s
}

// detach gives nothing more to the sink, and keeps nothing for it. The lock
// must be held.
func (d *Dispatcher) detach(why string, err error) {
	d.opts.Logger.Error("sink is detached: it is given nothing more, and nothing is kept for it", "sink", d.opts.Name, "why", why, "err", err)
	q := d.queued()
	d.pipe.Drop(dropDetached, q.Len)
	stands := d.acked()
	for _, e := range d.effects {
		if e.put != nil { // it goes with the sink: the gap is to begin before it
			stands = min(stands, e.number-1)
		}
	}
	next := state{
		generation: d.generation + 1, detached: why, since: d.since, saved: max(stands, d.saved), position: d.position, savedPos: d.position,
		window: list.New(), lanes: map[statesync.Key]*lane{}, taken: map[int64]bool{}, told: map[string]*told{},
		letters: d.letters, saves: d.saves, read: d.head, leaves: true, marks: d.marks, compaction: newCompaction(),
	}
	for _, e := range d.effects { // all else goes with the sink
		if e.letter != nil {
			next.effects = append(next.effects, effect{letter: e.letter})
		}
	}
	next.unsaved = len(next.effects)
	d.state = next
	d.standing.DetachedAt = d.opts.Now()
	d.saveNow()
	d.hurry()
}

// sleep waits for a time, or until ctx ends or hurried is closed.
func sleep(ctx context.Context, t time.Duration, hurried <-chan struct{}) {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-hurried:
	case <-ctx.Done():
	}
}
