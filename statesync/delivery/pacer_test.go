package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// A clockedSink notes when it was called, and does what answer says.
type clockedSink struct {
	answer func(statesync.Delivery) error

	mu    sync.Mutex
	calls []time.Time
}

func (s *clockedSink) Deliver(_ context.Context, ds []statesync.Delivery) error {
	s.mu.Lock()
	s.calls = append(s.calls, time.Now())
	s.mu.Unlock()
	return s.answer(ds[0])
}

// between counts the calls from one time up to another.
func (s *clockedSink) between(from, to time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.calls {
		if !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// firstAfter is when the first call came after a time.
func (s *clockedSink) firstAfter(t time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.calls {
		if at.After(t) {
			return at
		}
	}
	return time.Time{}
}

// TestTheBreakerSparesAReceiverThatIsDown: in an hour of it nothing grows but
// the log, one delivery is tried now and then, and afterwards all is released
// at a rate that begins low.
func TestTheBreakerSparesAReceiverThatIsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		sink := &clockedSink{answer: func(statesync.Delivery) error {
			if !well.Load() {
				return errRefused
			}
			return nil
		}}
		log := newLog(t)
		d, _ := start(t, options(t, log, sink))
		log.addMany(20_000, 2000)
		time.Sleep(time.Minute)
		if s := d.Standing(); s.Breaker != "open" || s.Acked != 0 || s.Aside > 100 {
			t.Errorf("standing %+v, want the breaker open and hardly anything put aside", s)
		}
		from := time.Now()
		time.Sleep(time.Hour)
		if n := sink.between(from, time.Now()); n < 360 || n > 730 {
			t.Errorf("%d tries in an hour, want one in 5 to 10 s", n)
		}
		books(t, d)
		inMemory(t, d)
		well.Store(true)
		time.Sleep(2 * time.Minute)
		closed := sink.firstAfter(from.Add(time.Hour))
		for second, most := range []int{int(releaseFirst) + 5, int(2*releaseFirst) + 10, int(4*releaseFirst) + 20, int(8*releaseFirst) + 40} {
			began := closed.Add(time.Duration(second) * time.Second)
			if n := sink.between(began, began.Add(time.Second)); n > most || n < most/4 {
				t.Errorf("%d tries in second %d after it was closed, want up to %d", n, second, most)
			}
		}
		if s := d.Standing(); s.Breaker != "closed" || s.Waiting != 0 {
			t.Errorf("standing %+v, want all delivered", s)
		}
	})
}

// onlyGood takes the changes of one workload.
func onlyGood(_ context.Context, d statesync.Delivery, _ int) error {
	if d.Workload.Name != "good" {
		return errRefused
	}
	return nil
}

// TestAFewFailingLanesDoNotOpenTheBreaker, though nothing else is there to be
// delivered: what comes is not to wait for them.
func TestAFewFailingLanesDoNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, onlyGood)
		log := newLog(t)
		d, _ := start(t, options(t, log, sink))
		log.add("bad1", "bad2")
		time.Sleep(time.Hour)
		log.add("good")
		synctest.Wait()
		if s := d.Standing(); s.Breaker != "closed" || !sink.has("good-1") {
			t.Errorf("standing %+v, want the good one delivered at once", s)
		}
	})
}

// TestLanesThatFailAreNotTheReceiver: they have opened the breaker when nothing
// else was there. What comes later is tried, and closes it.
func TestLanesThatFailAreNotTheReceiver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, onlyGood)
		log := newLog(t)
		d, _ := start(t, options(t, log, sink))
		log.add("bad1", "bad2", "bad3")
		time.Sleep(time.Minute)
		log.add("good")
		time.Sleep(10 * time.Minute) // each probe is one lane's of four
		if s := d.Standing(); !sink.has("good-1") {
			t.Errorf("standing %+v, want the good one delivered", s)
		}
	})
}

// TestOneRetryAfterHoldsNobodyElseUp: nor the cursor, above which nothing
// becomes durable.
func TestOneRetryAfterHoldsNobodyElseUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, func(_ context.Context, d statesync.Delivery, _ int) error {
			if d.Workload.Name == "bad" {
				return &statesync.SinkError{After: time.Hour, Err: errors.New("status 429, want 2xx")}
			}
			return nil
		})
		log := newLog(t)
		o := options(t, log, sink)
		o.Window, o.Filter = 100, func(c *statesync.Change) bool { return c.Workload.Name != "filtered" }
		d, _ := start(t, o)
		log.add("bad")
		time.Sleep(time.Second)
		for range 300 {
			log.add("filtered", "good")
		}
		time.Sleep(time.Minute)
		if n := sink.count(); n != 300 {
			t.Errorf("%d of 300 delivered, standing %+v", n, d.Standing())
		}
	})
}

// TestFreshChangesDoNotBypassTheBackOff: 20 a second, for ten minutes.
func TestFreshChangesDoNotBypassTheBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := &clockedSink{answer: func(statesync.Delivery) error { return errRefused }}
		log := newLog(t)
		d, _ := start(t, options(t, log, sink))
		began := time.Now()
		for range 12_000 {
			log.add("bad")
			time.Sleep(50 * time.Millisecond)
		}
		if n := sink.between(began, time.Now()); n < 60 || n > 130 {
			t.Errorf("%d tries in 10 minutes, want one in 5 to 10 s", n)
		}
		if s := d.Standing(); s.Parked != 1 || s.Waiting != 12_000 || s.Acked < 11_900 {
			t.Errorf("standing %+v, want one lane parked and the cursor at the log's end", s)
		}
		inMemory(t, d)
		books(t, d)
	})
}

// TestConcurrencyAdapts: a receiver that takes four at once and refuses the
// rest is soon given about as many.
func TestConcurrencyAdapts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var now, refusals atomic.Int64
		sink := newRecorder(t, func(context.Context, statesync.Delivery, int) error {
			defer now.Add(-1)
			if now.Add(1) > 4 {
				refusals.Add(1)
				return &statesync.SinkError{Cause: "status_429", Err: errors.New("status 429, want 2xx")}
			}
			time.Sleep(20 * time.Millisecond)
			return nil
		})
		log := newLog(t)
		d, _ := start(t, options(t, log, sink))
		for range 600 {
			log.addMany(10, 1000)
			time.Sleep(100 * time.Millisecond)
		}
		early := refusals.Load()
		for range 600 {
			log.addMany(10, 1000)
			time.Sleep(100 * time.Millisecond)
		}
		if late := refusals.Load() - early; late > 1000 {
			t.Errorf("%d refusals in the second minute of 6,000 changes, want it to have learnt", late)
		}
		time.Sleep(time.Minute)
		if s := d.Standing(); s.Waiting != 0 {
			t.Errorf("standing %+v, want all delivered", s)
		}
	})
}

// TestPacer: a table of what a pacer says after a series of outcomes.
func TestPacer(t *testing.T) {
	t.Parallel()
	began := time.Unix(1000, 0)
	lane := func(i int) statesync.Key { return statesync.Key{Name: fmt.Sprint(i)} }
	for _, tt := range []struct {
		name     string
		outcomes string // a digit: a lane that fails; +: one that succeeds
		want     string
	}{
		{"nothing", "", "closed"},
		{"two lanes for long", "0101010101", "closed"},
		{"three lanes", "01201", "open"},
		{"three lanes, too few tries", "0120", "closed"},
		{"a success between", "0120+1201", "closed"},
		{"and then", "0120+12012", "open"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPacer(8)
			for _, c := range tt.outcomes {
				p.begin()
				p.end(lane(int(c-'0')), false, c != '+', 0, began)
			}
			if got := p.String(); got != tt.want {
				t.Errorf("after %q: %s, want %s", tt.outcomes, got, tt.want)
			}
		})
	}
}

// TestAnOpenBreaker lets one probe through, when the receiver wants it: what it
// asked for counts, at whichever of the failures it did.
func TestAnOpenBreaker(t *testing.T) {
	t.Parallel()
	began := time.Unix(1000, 0)
	p := newPacer(8)
	for i := range 7 {
		p.begin()
		if i == 6 {
			break // in flight when the breaker opens
		}
		p.end(statesync.Key{Name: fmt.Sprint(i)}, false, true, map[int]time.Duration{1: 30 * time.Second, 5: time.Minute}[i], began)
	}
	if _, wait := p.admit(began.Add(59 * time.Second)); wait < time.Second {
		t.Errorf("admitted after %s: want the receiver's own wish kept", wait)
	}
	if probe, wait := p.admit(began.Add(time.Minute)); !probe || wait > 0 || p.String() != "half-open" {
		t.Errorf("%s, probe %t in %s: want one", p.String(), probe, wait)
	}
	p.end(statesync.Key{Name: "6"}, false, true, 0, began.Add(time.Minute))
	if _, wait := p.admit(began.Add(time.Minute)); wait == 0 || p.String() != "half-open" {
		t.Errorf("%s, admitted in %s: want no second probe", p.String(), wait)
	}
	p.begin()
	p.end(statesync.Key{Name: "1"}, true, false, 0, began.Add(time.Minute))
	if p.String() != "closed" || p.limit != 1 {
		t.Errorf("%s with %v at once, want it closed with 1", p.String(), p.limit)
	}
	for i := range 6 {
		p.begin()
		p.end(statesync.Key{Name: fmt.Sprint(i)}, false, true, 0, began.Add(time.Minute))
	}
	if wait := p.rests(began.Add(time.Minute)); wait == 0 || wait > time.Second {
		t.Errorf("rests %s, want nothing of what was asked before it took something", wait)
	}
}
