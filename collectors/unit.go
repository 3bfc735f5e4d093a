package collectors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

// A unit is one collector at work.
type unit struct {
	Item
	name      string
	collector Collector
	foreign   bool           // what it finds is a neighbour's
	apart     bool           // what it is sent has its name as a tag: another one may be sent the same
	group     *metrics.Group // what the collector shows by itself
	log       *slog.Logger
	now       func() time.Time
	figures   *figures
	observe   func(at time.Time, collector string, fams []metrics.Family)
	work      *sync.WaitGroup // of reads that do not come back
	stop      context.CancelFunc
	ended     chan struct{} // closed when it has stopped, but for such a read

	mu     sync.Mutex
	maps   []*mapping // told of each read
	ours   *ours      // nil: it is no neighbour
	last   []metrics.Family
	err    error
	read   time.Time // the last one that gave something
	failed string    // logged last
	hangs  bool      // a read has not come back
	broken error     // its Run has failed; nothing is read any more
}

// title is the name of its check.
func (u *unit) title() string {
	if u.foreign {
		return "neighbour/" + u.name
	}
	return "collector/" + u.name
}

// begin has it work until ctx ends or it is stopped. Its failure to do what it
// does between the reads goes to failed, once.
func (u *unit) begin(ctx context.Context, work *sync.WaitGroup, failed func(error)) {
	ctx, u.stop = context.WithCancel(ctx)
	u.work = work
	work.Go(func() {
		defer close(u.ended)
		var own sync.WaitGroup
		if r, ok := u.collector.(Runner); ok {
			own.Go(func() {
				if err := r.Run(ctx); err != nil && ctx.Err() == nil {
					u.mu.Lock()
					u.broken, u.last = err, nil
					u.mu.Unlock()
					u.stop()
					failed(err)
				}
			})
		}
		u.run(ctx)
		own.Wait()
		u.stop()
	})
}

// close takes it out of the registry.
func (u *unit) close() {
	u.group.Close()
	u.figures.group.Close()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, m := range u.maps {
		m.group.Close()
	}
}

func (u *unit) families() []metrics.Family {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last
}

// run reads until ctx ends.
func (u *unit) run(ctx context.Context) {
	tick := time.NewTicker(u.Every)
	defer tick.Stop()
	for {
		u.readOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

var errNotBack = errors.New("the read before has not come back yet")

// readOnce reads the source, and waits for as long as the deadline allows. A read
// that does not heed it goes on alone; nobody reads that source meanwhile.
func (u *unit) readOnce(ctx context.Context) {
	u.mu.Lock()
	hangs := u.hangs
	u.hangs = true
	u.mu.Unlock()
	if hangs {
		u.take(u.now(), nil, errNotBack)
		return
	}
	deadline, cancel := context.WithTimeout(ctx, u.Timeout)
	defer cancel()
	type found struct {
		fams []metrics.Family
		err  error
	}
	done := make(chan found, 1)
	began := time.Now()
	u.work.Go(func() {
		fams, err := u.collect(deadline)
		u.mu.Lock()
		u.hangs = false
		u.mu.Unlock()
		done <- found{fams, err}
	})
	select {
	case f := <-done:
		u.figures.took.Since(began)
		if ctx.Err() == nil {
			u.take(u.now(), f.fams, f.err)
		}
	case <-deadline.Done():
		select { // one that heeds it is about to say what it has
		case f := <-done:
			if ctx.Err() == nil {
				u.take(u.now(), f.fams, f.err)
			}
		case <-time.After(min(u.Every/2, time.Second)):
			if ctx.Err() == nil {
				u.take(u.now(), nil, fmt.Errorf("no answer within %v", u.Timeout))
			}
		}
	}
}

// collect turns a panic of one collector into its error.
func (u *unit) collect(ctx context.Context) (fams []metrics.Family, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return u.collector.Collect(ctx)
}

// take keeps what a read found. What could not be read is shown no longer: an old
// value is worse than none.
func (u *unit) take(at time.Time, fams []metrics.Family, err error) {
	series := 0
	for _, f := range fams {
		series += len(f.Points)
	}
	u.figures.series.Set(float64(series))
	u.mu.Lock()
	u.last, u.err = fams, err
	if u.apart {
		u.last = tagged(fams, u.name)
	}
	if fams != nil || err == nil {
		u.read = at
	}
	said := ""
	if err != nil {
		said = err.Error()
	}
	news := said != u.failed
	u.failed = said
	maps, ours := u.maps, u.ours
	u.mu.Unlock()
	if err != nil {
		u.figures.errors.Inc()
	}
	switch {
	case !news:
	case err != nil:
		u.log.Warn("could not be read, or not all of it", "err", err)
	default:
		u.log.Info("is read again, whole")
	}
	if u.observe != nil && len(fams) > 0 {
		u.observe(at, u.name, fams)
	}
	for _, m := range maps {
		m.take(at, fams)
	}
	if ours != nil {
		ours.take(at, fams)
	}
}

func (u *unit) check(context.Context) verdict.Result {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.broken != nil:
		return verdict.Result{Status: verdict.Fail, Message: u.broken.Error()}
	case u.err != nil && len(u.last) == 0:
		return verdict.Result{Status: verdict.Fail, Message: u.err.Error()}
	case u.err != nil:
		return verdict.Result{Status: verdict.Warn, Message: u.err.Error()}
	case u.read.IsZero():
		return verdict.Result{Status: verdict.Unknown, Message: "not read yet"}
	}
	return verdict.Result{Message: "read " + u.now().Sub(u.read).Round(time.Second).String() + " ago"}
}

// figures are what is measured of one collector, and of one that takes its place.
type figures struct {
	group  *metrics.Group
	took   *metrics.Timer
	errors *metrics.Counter
	series *metrics.Gauge
}

func newFigures(g *metrics.Group, collector string) (*figures, error) {
	desc := func(name, datadog, unit, help string) metrics.Desc {
		return metrics.Desc{
			Name: "outrider_collector_" + name, Datadog: "outrider.collector." + datadog, Unit: unit, Help: help,
			Tags: []string{"collector"}, Budget: 200,
		}
	}
	took, err1 := g.Timers(desc("duration_seconds", "duration", "seconds", "How long a read took."))
	failed, err2 := g.Counters(desc("errors_total", "errors", "errors", "Reads that failed, or of which a part did."))
	series, err3 := g.Gauges(desc("series", "series", "series", "Series that the last read found."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	return &figures{group: g, took: took.With(collector), errors: failed.With(collector), series: series.With(collector)}, nil
}

// tagged are families with the tag collector.
func tagged(fams []metrics.Family, collector string) []metrics.Family {
	out := make([]metrics.Family, len(fams))
	for i, f := range fams {
		f.Desc.Tags = append(slices.Clone(f.Desc.Tags), "collector")
		points := make([]metrics.Point, len(f.Points))
		for j, p := range f.Points {
			p.Tags = append(slices.Clone(p.Tags), collector)
			points[j] = p
		}
		f.Points = points
		out[i] = f
	}
	return out
}
