package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/delivery"
)

// A sink is one of the configuration, from when it is opened until it is
// closed. Its fields are set by whoever opens it, and read by everybody: what
// changes is put into another.
type sink struct {
	config     SinkConfig
	sink       statesync.Sink       // nil: it could not be opened
	dispatcher *delivery.Dispatcher // nil as well
	failure    error                // why not
	never      bool                 // it was never open: there is nothing that it could go on as
	released   bool                 // it holds nothing back in the ledger any more, though it is configured

	stop context.CancelCauseFunc // nil before it runs
	done chan struct{}           // closed when it has stopped
	left error                   // it still delivers after the stop: not to be closed under it; read after done
}

// leaveTime is how much longer one is waited for that still delivers after the
// stop, each time that it is to be closed.
const leaveTime = 500 * time.Millisecond

// errLeaves is why one sink is stopped, and not all of them.
var errLeaves = errors.New("sink is taken out")

// opened opens a sink and makes its dispatcher, which goes on from the sink's
// cursor. One that is detached stays so, unless attach says that it is to come
// back: it may have, even if the rest fails.
func (c *Controller) opened(ctx context.Context, of SinkConfig, attach bool) (_ *sink, attached bool, err error) {
	filter, err := of.Filter.Match()
	if err != nil {
		return nil, false, fmt.Errorf("sink %s: filter: %w", of.Name, err)
	}
	s := &sink{config: of, done: make(chan struct{})}
	if s.sink, err = c.opts.OpenSink(of.Item, c.opts.UserAgent); err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			c.queues.Remove(queueOf(of.Name))
			err = errors.Join(err, s.closeSink())
		}
	}()
	cursor, err := c.ledger.Cursor(of.Name)
	if err != nil {
		return nil, false, err
	}
	if attach && cursor.Detached != "" {
		if cursor, err = c.ledger.Attach(ctx, of.Name); err != nil {
			return nil, false, err
		}
		attached = true
	}
	concurrency := 0
	if limited, ok := s.sink.(interface{ Concurrency() int }); ok {
		concurrency = limited.Concurrency()
	}
	s.dispatcher, err = delivery.New(delivery.Options{
		Name: of.Name, Sink: s.sink, Source: c.ledger, Cursor: cursor, Concurrency: concurrency,
		Filter: filter, OnFull: of.OnFull, Letters: of.DeadLetters,
		Registry: c.opts.Registry, QueueMetrics: c.queues, Logger: c.opts.Logger, Now: c.opts.Now,
	})
	return s, attached, err
}

// deliver runs a sink's dispatcher in group until ctx ends or the sink is
// taken out.
func (s *sink) deliver(ctx context.Context, group *errgroup.Group) {
	ctx, stop := context.WithCancelCause(ctx)
	s.stop = stop
	group.Go(func() error {
		defer close(s.done)
		defer stop(nil)
		s.left = s.dispatcher.Run(ctx)
		if errors.Is(context.Cause(ctx), errLeaves) {
			return nil // who took it out asks for left
		}
		return s.left
	})
}

// end closes a sink whose delivery has ended. One that still delivers is let be,
// with the error that left says.
func (c *Controller) end(s *sink) error {
	if s.sink == nil {
		return nil
	}
	s.dispatcher.Close()
	c.queues.Remove(queueOf(s.config.Name))
	if s.left != nil {
		select {
		case <-s.dispatcher.Ended():
		case <-time.After(leaveTime):
			return s.left
		}
	}
	return s.closeSink()
}

func (s *sink) hasEnded() bool {
	select {
	case <-s.dispatcher.Ended():
		return true
	default:
		return false
	}
}

// hangs reports whether err, of end, says that the sink still delivers.
func (s *sink) hangs(err error) bool { return s.left != nil && errors.Is(err, s.left) }

// leftBehind is the sink until it has ended after all and can be closed.
func (s *sink) leftBehind() *sink {
	return &sink{config: s.config, sink: s.sink, dispatcher: s.dispatcher, failure: s.left, left: s.left}
}

// queueOf is what the dispatcher of a sink calls its work queue.
func queueOf(name string) string { return "sink/" + name }

func (s *sink) closeSink() error {
	closer, ok := s.sink.(io.Closer)
	if !ok {
		return nil
	}
	if err := closer.Close(); err != nil {
		return fmt.Errorf("close sink %s: %w", s.config.Name, err)
	}
	return nil
}

// running returns the sinks as they are now, in the configuration's order.
func (c *Controller) running() []*sink {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sinks)
}

func (c *Controller) setRunning(sinks []*sink) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sinks = sinks
}

// find returns the sink of that name; nil: there is none.
func find(sinks []*sink, name string) *sink {
	i := slices.IndexFunc(sinks, func(s *sink) bool { return s.config.Name == name })
	if i < 0 {
		return nil
	}
	return sinks[i]
}

// noteLetters returns how many dead letters a sink was seen to get within the
// last hour.
func (c *Controller) noteLetters(s delivery.Standing, now time.Time) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.letters[s.Name]
	if !ok {
		l = &letters{seen: s.Letters}
		c.letters[s.Name] = l
	}
	return l.note(s.Letters, now)
}

// forgetLetters drops the count of a sink: another one of its name is new.
func (c *Controller) forgetLetters(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.letters, name)
}

// letters counts the dead letters of a sink by the minute.
type letters struct {
	seen  int64
	added []lettersAdded // oldest first
}

type lettersAdded struct {
	at time.Time // the minute
	n  int64
}

// note takes a count in and returns how many were added in the last hour. A
// replay makes the count smaller, and takes nothing back.
func (l *letters) note(count int64, now time.Time) (lately int64) {
	if n := count - l.seen; n > 0 {
		minute := now.Truncate(time.Minute)
		if last := len(l.added) - 1; last < 0 || l.added[last].at != minute {
			l.added = append(l.added, lettersAdded{at: minute})
		}
		l.added[len(l.added)-1].n += n
	}
	l.seen = count
	l.added = slices.DeleteFunc(l.added, func(a lettersAdded) bool { return now.Sub(a.at) >= tellFor })
	for _, a := range l.added {
		lately += a.n
	}
	return lately
}
