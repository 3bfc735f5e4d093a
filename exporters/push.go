package exporters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

const (
	firstPause = time.Second     // after one failure at most; doubled after each further one
	mostPause  = time.Minute     // between two tries, unless the other side asks for more
	mostAfter  = time.Hour       // that the other side may ask for
	stopTime   = 2 * time.Second // for what still waits at the end
	saidAgain  = 10 * time.Minute
)

// lastSuccessDesc describes how an exporter that pushes is doing. Read-only.
var lastSuccessDesc = metrics.Desc{
	Name: "outrider_exporter_last_success_age_seconds", Datadog: "outrider.exporter.last_success_age", Type: metrics.GaugeType, Unit: "seconds",
	Help: "How long ago an exporter last gave points away, or had none to give; since its start where it never did.",
	Tags: []string{"exporter"}, Budget: 20,
}

// PushOptions say what a [Push] is made of. What is zero is at its default.
type PushOptions struct {
	Name  string
	Kind  Builder
	Feeds func() []Feed // as they are now; nil: there are none

	// After is one whose Run has returned: this one goes on where it stopped.
	// Counters grow from what it read last, the books stay open, and where both
	// are of one kind what waits is sent.
	After *Push

	// Verdicts are given away with each reading by an exporter that is a [Teller].
	// Nil: there are none.
	Verdicts func() []Verdict

	Every  time.Duration
	Series Selector
	Queue  int
	MaxAge time.Duration

	Tags      map[string]string // of all series: service, env, version ...
	UserAgent string
	Metrics   *metrics.Group
	Log       *slog.Logger     // nil: nowhere
	Now       func() time.Time // nil: time.Now
}

// A Push gives what its feeds hold to one system, again and again. A system that is slow or dead blocks nothing: points
// wait in a queue with a bound.
type Push struct {
	opts     PushOptions
	exporter Exporter
	*course
}

// A course is what outlasts a push whose place another one takes.
type course struct {
	queue *queue
	table *table

	mu       sync.Mutex
	success  time.Time // the last one
	errors   int64
	failing  bool      // since the last batch that was sent whole
	failures int       // in a row that got nothing through
	said     time.Time // when a rejection was last logged

	at time.Time // of the last reading; the reader's
}

// NewPush makes the exporter, and registers its metrics but for one that goes on
// where another stopped.
func NewPush(o PushOptions) (*Push, error) {
	o.Every, o.Queue, o.MaxAge = cmp.Or(o.Every, defaultEvery), cmp.Or(o.Queue, defaultQueue), cmp.Or(o.MaxAge, defaultMaxAge)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Feeds == nil {
		o.Feeds = func() []Feed { return nil } // it sends what its exporter offers
	}
	p := &Push{opts: o}
	var err error
	p.exporter, err = o.Kind.Build(Env{
		Name: o.Name, Tags: o.Tags, UserAgent: o.UserAgent, Log: o.Log.With("exporter", o.Name), Now: o.Now,
		Offer: func(point Point) { p.queue.put(point) },
	})
	if err != nil {
		return nil, fmt.Errorf("exporter %s: %w", o.Name, err)
	}
	if o.After != nil {
		p.course = o.After.course
		if reflect.TypeOf(p.exporter) != reflect.TypeOf(o.After.exporter) {
			o.After.drop() // another kind's points mean nothing to this one
		}
		p.queue.bound(o.Queue)
		p.table.renew(o.Queue, o.Every)
		return p, nil
	}
	p.course = &course{table: newTable(o.Queue, o.Every), success: o.Now()}
	if p.queue, err = newQueue(o.Metrics, o.Name, o.Queue); err != nil {
		return nil, fmt.Errorf("exporter %s: %w", o.Name, err)
	}
	return p, p.register(o.Metrics, o.Name, o.Now)
}

func (c *course) register(g *metrics.Group, name string, now func() time.Time) error {
	tags := []string{name}
	return errors.Join(
		g.Func(errorsDesc, func(yield func(metrics.Point)) {
			c.mu.Lock()
			defer c.mu.Unlock()
			yield(metrics.Point{Tags: tags, Value: float64(c.errors)})
		}),
		g.Func(lastSuccessDesc, func(yield func(metrics.Point)) {
			c.mu.Lock()
			defer c.mu.Unlock()
			yield(metrics.Point{Tags: tags, Value: max(0, now().Sub(c.success).Seconds())})
		}),
	)
}

// Exporter is what gives the points away: for abilities of its kind, such as
// service checks.
func (p *Push) Exporter() Exporter { return p.exporter }

// errTaken is why a push ends whose place another one takes.
var errTaken = errors.New("another takes its place")

// Run reads the feeds and sends what they hold until ctx ends. Then it reads a
// last time, and tries once more to send what waits; what is left after two
// seconds is dropped, and counted. When ctx ends because of errTaken, all of that
// is left to the other one, but for the batch that is under way.
func (p *Push) Run(ctx context.Context) error {
	last, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	unhook := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(stopTime, end)
		context.AfterFunc(last, func() { t.Stop() })
	})
	defer unhook()

	reader := make(chan struct{})
	go func() {
		defer close(reader)
		p.readAll(ctx)
	}()
	for ctx.Err() == nil {
		p.step(ctx, last)
	}
	<-reader
	if !taken(ctx) {
		for last.Err() == nil && p.try(last) > 0 {
		}
		p.drop()
	}
	if c, ok := p.exporter.(io.Closer); ok {
		if err := c.Close(); err != nil {
			return fmt.Errorf("close exporter %s: %w", p.opts.Name, err)
		}
	}
	return nil
}

func taken(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errTaken) }

// drop gives up what waits.
func (p *Push) drop() {
	if n := p.queue.clear("stopped"); n > 0 {
		p.opts.Log.Warn("stopped with points unsent", "exporter", p.opts.Name, "points", n)
	}
}

// readAll reads at once, then every so often, and at the end.
func (p *Push) readAll(ctx context.Context) {
	tick := time.NewTicker(p.opts.Every)
	defer tick.Stop()
	for !taken(ctx) {
		// No two readings fall into one second: OpenTSDB would get two values
		// for one point of time.
		at := p.opts.Now()
		if !at.Before(p.at) && at.Sub(p.at) < time.Second {
			at = p.at.Add(time.Second)
		}
		p.at = at
		p.read(at)
		if ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (p *Push) read(at time.Time) {
	p.table.reading++
	r := round{
		table: p.table, queue: p.queue, encode: p.exporter.Encode, at: at.UnixMilli(),
		points: make([]Point, 0, atOnce), reason: map[string]int64{},
	}
	for _, feed := range p.opts.Feeds() {
		fams, err := feed.gather()
		if err != nil {
			p.opts.Log.Error("read failed", "exporter", p.opts.Name, "err", err)
			p.mu.Lock()
			p.errors++
			p.mu.Unlock()
			continue
		}
		r.read(feed, fams, p.opts.Series.Match)
	}
	r.end()
	if t, ok := p.exporter.(Teller); ok && p.opts.Verdicts != nil {
		for _, v := range p.opts.Verdicts() {
			t.Tell(v)
		}
	}
	if r.made == 0 {
		p.mu.Lock()
		p.success = p.opts.Now()
		p.mu.Unlock()
	}
}

// step sends one batch; where there is none it waits for one, and after a
// failure for the next try.
func (p *Push) step(ctx, last context.Context) {
	sent, f := p.send(last)
	switch {
	case f != nil && ctx.Err() == nil:
		p.queue.retry(f.Cause)
		pause := time.NewTimer(p.pause(f))
		defer pause.Stop()
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	case sent == 0 && f == nil:
		select {
		case <-ctx.Done():
		case <-p.queue.wake:
		}
	}
}

// try sends one batch, and returns how many points that settled: 0 when there
// are none or it failed.
func (p *Push) try(ctx context.Context) int {
	sent, f := p.send(ctx)
	if f != nil {
		return 0
	}
	return sent
}

func (p *Push) send(ctx context.Context) (settled int, f *Failure) {
	points := p.queue.take(p.exporter.Batch(), p.opts.Now().Add(-p.opts.MaxAge).UnixMilli())
	if len(points) == 0 {
		return 0, nil
	}
	sent, err := p.exporter.Send(ctx, points)
	if left := p.queue.settle(sent); left > 0 && err == nil {
		err = fmt.Errorf("%d points of a batch not sent, want a reason", left)
	}
	if err != nil {
		f = failureOf(err)
	}
	p.note(sent, f)
	return sent.Out + sent.Rejected, f
}

// note keeps the figures, and says in the log what the operator should know,
// but not again and again.
func (p *Push) note(sent Sent, f *Failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, log := p.opts.Now(), p.opts.Log.With("exporter", p.opts.Name)
	if sent.Out > 0 {
		p.success = now
	}
	if sent.Rejected > 0 {
		p.errors++
		if now.Sub(p.said) >= saidAgain {
			p.said = now
			log.Warn("points rejected", "points", sent.Rejected, "first", sent.Why)
		}
	}
	if f == nil {
		if p.failing {
			log.Info("export works again")
		}
		p.failing, p.failures = false, 0
		return
	}
	if sent.Out+sent.Rejected > 0 {
		p.failures = 0
	}
	p.errors++
	p.failures++
	if !p.failing {
		p.failing = true
		log.Warn("export failed, trying again", "cause", f.Cause, "err", f.Err)
	}
}

// pause is how long to wait before the next try: at random up to a time that
// doubles with each failure in a row, so that many agents do not come at once.
func (p *Push) pause(f *Failure) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	most := mostPause
	if n := p.failures - 1; n < 6 {
		most = min(most, firstPause<<n)
	}
	return max(rand.N(most), min(f.After, mostAfter))
}
