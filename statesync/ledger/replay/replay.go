// Package replay has a sink given again what a ledger keeps: at a rate, with progress, for an agent that is asked or for a command.
//
// The rules:
//   - Changes of the log come with their old ID, seq and number, up to the
//     sink's cursor: what is above it comes anyway, and so does what the sink
//     has put aside.
//   - Dead letters come as they were refused. Each goes in the transaction that
//     puts it aside. One that is refused again is a new one, which this replay
//     leaves alone.
//   - Everything is counted first, so that progress has a goal; then it is put
//     aside, some at a time, at the rate. The dispatcher takes it from there.
package replay

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrRefused marks what the ledger will not do, whatever is tried.
var ErrRefused = errors.New("refused")

const (
	// mostAtOnce is how many are put aside in one transaction: others wait to
	// write meanwhile.
	mostAtOnce = 500
	// turns are how many transactions a second a rate is spread over.
	turns = 4
)

// A Log keeps what can be replayed. A place is the number of a change, or the
// ID of a dead letter. What it refuses wraps [ErrRefused].
type Log interface {
	// ReplayUpTo returns the highest place that is now to be replayed.
	ReplayUpTo(ctx context.Context, q *Query) (int64, error)
	// FindReplay looks through a part of the places above after and up to upTo.
	// It returns those that the query selects, in order, and up to where it
	// looked; there are none above when that is upTo.
	FindReplay(ctx context.Context, q *Query, after, upTo int64) (places []int64, looked int64, err error)
	// Replay puts what is at places aside for the sink, whole or not at all, and
	// returns how much was there.
	Replay(ctx context.Context, q *Query, places []int64) (n int, err error)
}

// A Report says how far a replay has come.
type Report struct {
	Sink    string  `json:"sink"`
	Letters bool    `json:"dead_letters"` // else changes
	DryRun  bool    `json:"dry_run"`
	Found   int64   `json:"found"` // to be replayed
	Done    int64   `json:"done"`
	Last    int64   `json:"last"`   // place of the last one; 0: none yet
	Cursor  int64   `json:"cursor"` // of the sink: what is above comes anyway; 0 with dead letters
	Seconds float64 `json:"seconds"`
	Ended   bool    `json:"ended"`           // by itself: all is done
	Error   string  `json:"error,omitempty"` // why it ended before
}

// Left is how long the rest takes about; 0: not known.
func (r *Report) Left() time.Duration {
	if r.Done == 0 {
		return 0
	}
	return time.Duration(r.Seconds / float64(r.Done) * float64(max(0, r.Found-r.Done)) * float64(time.Second))
}

// Run replays what the query selects. It tells how far it is once all is
// counted, and after each transaction. When ctx ends, what was put aside stays
// so, and the report says how far that is.
func Run(ctx context.Context, log Log, q Query, tell func(Report)) (r Report, err error) {
	r = Report{Sink: q.Sink, Letters: q.Letters, DryRun: q.DryRun}
	defer func() {
		if err != nil {
			err = fmt.Errorf("replay to sink %s: %w", q.Sink, err)
		}
	}()
	if err := q.Check(); err != nil {
		return r, err
	}
	upTo, err := log.ReplayUpTo(ctx, &q)
	if err != nil {
		return r, err
	}
	if !q.Letters {
		r.Cursor = upTo
	}
	err = each(ctx, log, &q, upTo, func(places []int64) error { r.Found += int64(len(places)); return nil })
	if err != nil {
		return r, err
	}
	tell(r)
	if !q.DryRun && r.Found > 0 {
		began := time.Now()
		err = each(ctx, log, &q, upTo, func(places []int64) error { return r.put(ctx, log, &q, places, began, tell) })
		r.Seconds = time.Since(began).Seconds()
	}
	r.Ended = err == nil
	return r, err
}

// each calls do with all places, some at a time.
func each(ctx context.Context, log Log, q *Query, upTo int64, do func(places []int64) error) error {
	if q.To > 0 {
		upTo = min(upTo, q.To)
	}
	for after := max(0, q.From-1); after < upTo; {
		places, looked, err := log.FindReplay(ctx, q, after, upTo)
		if err != nil {
			return err
		}
		if len(places) > 0 {
			if err := do(places); err != nil {
				return err
			}
		}
		after = looked
	}
	return nil
}

// put puts places aside, at the rate.
func (r *Report) put(ctx context.Context, log Log, q *Query, places []int64, began time.Time, tell func(Report)) error {
	size := mostAtOnce
	if q.Rate > 0 {
		size = min(size, max(1, q.Rate/turns))
	}
	for len(places) > 0 {
		if q.Rate > 0 {
			due := began.Add(time.Duration(float64(r.Done) / float64(q.Rate) * float64(time.Second)))
			if err := wait(ctx, time.Until(due)); err != nil {
				return err
			}
		}
		some := places[:min(size, len(places))]
		n, err := log.Replay(ctx, q, some)
		if err != nil {
			return err
		}
		places = places[len(some):]
		r.Done, r.Last, r.Seconds = r.Done+int64(n), some[len(some)-1], time.Since(began).Seconds()
		tell(*r)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
