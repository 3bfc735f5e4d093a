package delivery

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// given is what a receiver was told of a workload, in short.
type given struct {
	Seq, Previous int64
	Skipped       []statesync.Skip
	Replayed      bool
}

func (r *recorder) givenOf(uid string) (out []given) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.acked {
		if d.Workload.UID == uid {
			out = append(out, given{d.Seq, d.PreviousSeq, d.Skipped, d.Replayed})
		}
	}
	return out
}

// TestADeadLetterIsSkippedAndComesByReplay, over a restart too.
func TestADeadLetterIsSkippedAndComesByReplay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, func(_ context.Context, d statesync.Delivery, _ int) error {
			if d.Seq == 2 && !d.Replayed {
				return errRejected
			}
			return nil
		})
		log := newLog(t)
		log.sink = sink
		d, stop := start(t, options(t, log, sink))
		log.add("a", "a")
		time.Sleep(time.Minute)
		if n := len(sink.triesOf("a-2")); n != refuseTries {
			t.Errorf("%d tries of what is refused as such, want %d", n, refuseTries)
		}
		if s := d.Standing(); s.Letters != 1 || s.Waiting != 0 || s.Acked != 2 {
			t.Errorf("standing %+v, want one dead letter and nothing waiting", s)
		}
		if b := books(t, d); b.Dropped[statesync.SkipDeadLetter] != 1 {
			t.Errorf("books %+v, want a drop", b)
		}
		_ = stop()
		log = log.crash()
		o := options(t, log, sink)
		o.Cursor = log.cursor
		d, _ = start(t, o)
		log.add("a")
		time.Sleep(time.Second)
		log.replay(2)
		if d.LettersGone(1); d.Standing().Letters != 0 {
			t.Errorf("standing %+v, want no dead letter left", d.Standing())
		}
		time.Sleep(time.Minute)
		books(t, d)
		want := []given{
			{Seq: 1},
			{Seq: 3, Previous: 1, Skipped: []statesync.Skip{{From: 2, To: 2, Cause: statesync.SkipDeadLetter}}},
			{Seq: 2, Previous: 1, Replayed: true},
		}
		if diff := cmp.Diff(want, sink.givenOf("a")); diff != "" {
			t.Errorf("given (-want +got):\n%s", diff)
		}
		log.mu.Lock()
		defer log.mu.Unlock()
		if l := log.letters[0]; l.ID != "a-2" || l.Tries != refuseTries || l.Error != errRejected.Error() || !l.First.Before(l.Last) || l.PreviousSeq != 1 {
			t.Errorf("dead letter %+v", l)
		}
	})
}

// TestTriesAreOfOneChange: a replay that comes before a refused change has
// tries of its own.
func TestTriesAreOfOneChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, func(_ context.Context, d statesync.Delivery, _ int) error {
			if d.Seq == 1 && !d.Replayed {
				return nil
			}
			return &statesync.SinkError{After: 20 * time.Second, Rejected: true, Err: errors.New("status 422, want 2xx")}
		})
		log := newLog(t)
		start(t, options(t, log, sink))
		log.add("a", "a")
		time.Sleep(30 * time.Second) // sleep: a-2 is refused twice, and put aside
		log.replay(1)
		time.Sleep(30 * time.Minute) // sleep: both are refused for good
		if n := len(sink.triesOf("a-1")); n != 1+refuseTries {
			t.Errorf("%d tries of a-1, want one that is taken, and %d of its replay", n, refuseTries)
		}
		if n := log.kept(); n != 0 || len(log.letters) != 2 {
			t.Errorf("%d wait and %d dead letters, want none and both", n, len(log.letters))
		}
	})
}

// TestParkedLettersHoldTheirWorkloadBack and nobody else.
func TestParkedLettersHoldTheirWorkloadBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		sink := newRecorder(t, func(_ context.Context, d statesync.Delivery, _ int) error {
			if d.Workload.Name == "a" && d.Seq == 2 && !well.Load() {
				return errRejected
			}
			return nil
		})
		log := newLog(t)
		o := options(t, log, sink)
		o.Letters = ParkLetters
		d, _ := start(t, o)
		log.add("a", "a", "a", "b", "b")
		time.Sleep(10 * time.Minute)
		if got := sink.ids(); len(got) != 3 || slices.Contains(got, "a-3") {
			t.Errorf("acknowledged %v, want a-1 and all of b", got)
		}
		if s := d.Standing(); s.Parked != 1 || s.Letters != 0 || s.Waiting != 2 {
			t.Errorf("standing %+v, want the lane parked", s)
		}
		if n := len(sink.triesOf("a-2")); n != refuseTries {
			t.Errorf("%d tries in 10 minutes, want %d and the next after %s", n, refuseTries, stuckWait)
		}
		well.Store(true)
		time.Sleep(2 * stuckWait)
		if got := sink.givenOf("a"); len(got) != 3 || got[2].Previous != 2 {
			t.Errorf("given %+v, want all of a", got)
		}
		books(t, d)
	})
}

// TestDetached: by the receiver's word, and because the log is full.
func TestDetached(t *testing.T) {
	t.Parallel()
	gone := &statesync.SinkError{Cause: "status_4xx", Gone: true, Err: errRefused}
	for _, why := range []string{statesync.DetachedGone, statesync.DetachedFull} {
		t.Run(why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var good atomic.Bool
				sink := newRecorder(t, func(context.Context, statesync.Delivery, int) error {
					switch {
					case good.Load():
						return nil
					case why == statesync.DetachedGone:
						return gone
					}
					return errRefused
				})
				log := newLog(t)
				d, _ := start(t, options(t, log, sink))
				log.addMany(100, 10)
				time.Sleep(time.Minute)
				log.mu.Lock()
				log.full = why == statesync.DetachedFull
				log.mu.Unlock()
				time.Sleep(5 * time.Second)
				log.addMany(50, 10)
				time.Sleep(time.Minute)
				s := d.Standing()
				if s.Detached != why || s.DetachedAt.IsZero() || s.Waiting != 0 {
					t.Errorf("standing %+v, want it detached and nothing kept", s)
				}
				if b := books(t, d); b.Dropped["detached"] != 150 {
					t.Errorf("books %+v, want all dropped", b)
				}
				log.mu.Lock()
				c := log.cursor
				log.mu.Unlock()
				if c.Detached != why || c.Acked >= 100 {
					t.Errorf("cursor %+v, want it detached where it stood", c)
				}
				good.Store(true)
				log.mu.Lock()
				log.full = false
				log.told, log.aside = map[string]statesync.Told{}, nil
				log.cursor = statesync.Cursor{Sink: "sink", Acked: log.head, Aside: 1, AsideTop: log.places + 1}
				c = log.cursor
				log.put(statesync.Offered{Delivery: statesync.Delivery{Initial: true, Change: statesync.Change{
					ID: "initial", Workload: statesync.Ref{Kind: "Pod", Namespace: "ns", Name: "w0", UID: "w0"}, Seq: 15,
				}}})
				log.mu.Unlock()
				d.Attach(c)
				log.add("w0")
				time.Sleep(time.Minute)
				want := []given{{Seq: 15}, {Seq: 16, Previous: 15}}
				if diff := cmp.Diff(want, sink.givenOf("w0")); diff != "" {
					t.Errorf("given after it was attached again (-want +got):\n%s", diff)
				}
				if s := d.Standing(); s.Waiting != 0 || s.Detached != "" || s.Breaker != "closed" {
					t.Errorf("standing %+v, want it well", s)
				}
				books(t, d)
			})
		})
	}
}

// TestADetachedSinksCursorIsBehindWhatItLacks: what was being put aside when
// the receiver said that it wants nothing any more is in the gap.
func TestADetachedSinksCursorIsBehindWhatItLacks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		sink := newRecorder(t, func(_ context.Context, d statesync.Delivery, _ int) error {
			if d.Workload.Name == "bad" {
				tries.Add(1)
				return errRefused
			}
			for tries.Load() < parkAfter {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Millisecond)
			return &statesync.SinkError{Gone: true, Err: errors.New("status 410")}
		})
		log := newLog(t)
		start(t, options(t, log, sink))
		log.add("bad", "other")
		time.Sleep(10 * time.Second)
		log.mu.Lock()
		defer log.mu.Unlock()
		if c := log.cursor; c.Detached == "" || c.Acked >= 1 && len(log.aside) == 0 {
			t.Errorf("cursor %+v, and the first change is neither given nor aside", c)
		}
	})
}
