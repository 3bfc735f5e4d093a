package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// Tests with a memoryLog run on fake time: minutes of back-off cost nothing,
// and what is asked of time can be asked exactly.

// seed is random, printed, and can be given again in OUTRIDER_TEST_SEED.
func seed(t *testing.T) uint64 {
	s := rand.Uint64()
	if text := os.Getenv("OUTRIDER_TEST_SEED"); text != "" {
		var err error
		if s, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("OUTRIDER_TEST_SEED=%d", s)
	return s
}

// seeds is how many runs to make: OUTRIDER_SEEDS, or a few.
func seeds(t *testing.T, few int) int {
	if text := os.Getenv("OUTRIDER_SEEDS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return few
}

// eachSeed runs a property on fake time, a few times or as often as seeds says.
func eachSeed(t *testing.T, few int, property func(*testing.T, *rand.Rand)) {
	for i := range seeds(t, few) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			s := seed(t)
			synctest.Test(t, func(t *testing.T) { property(t, rand.New(rand.NewPCG(s, 1))) })
		})
	}
}

func TestOrderIsKeptPerLaneWhateverFails(t *testing.T) {
	t.Parallel()
	eachSeed(t, 3, orderProperty)
}

func orderProperty(t *testing.T, r *rand.Rand) {
	var mu sync.Mutex // guards r
	random := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
	sink := newRecorder(t, func(_ context.Context, _ statesync.Delivery, _ int) error {
		if n := random(4); n > 0 {
			time.Sleep(time.Duration(random(20)) * time.Millisecond) // sleep: runs in the bubble of TestOrderIsKeptPerLaneWhateverFails
		}
		switch random(10) {
		case 0, 1:
			return errRefused
		case 2:
			return &statesync.SinkError{Cause: "status_4xx", After: time.Duration(random(3000)) * time.Millisecond, Err: errors.New("later")}
		}
		return nil
	})
	log := newLog(t)
	log.sink, log.lag = sink, time.Duration(random(200))*time.Millisecond
	o := options(t, log, sink)
	o.Window = 64 + random(200)
	d, stop := start(t, o)
	lanes := 40 + random(60)
	total := 0
	for range 12 {
		n := random(150)
		for range n {
			log.add(fmt.Sprintf("w%d/%d", random(lanes), random(2)))
		}
		total += n
		for range 20 {
			time.Sleep(time.Duration(random(100)) * time.Millisecond) // sleep: runs in the bubble of TestOrderIsKeptPerLaneWhateverFails
			if q := books(t, d); q.Queued > int64(total) {
				t.Errorf("queued %d of %d", q.Queued, total)
			}
			inMemory(t, d)
		}
	}
	time.Sleep(10 * time.Minute) // sleep: runs in the bubble of TestOrderIsKeptPerLaneWhateverFails
	synctest.Wait()
	if diff := cmp.Diff(log.lanes(), sink.perLane()); diff != "" {
		t.Errorf("each lane's changes, once each and in order (-log +acknowledged):\n%s", diff)
	}
	if sink.most > defaultConcurrency || sink.most < 2 {
		t.Errorf("%d deliveries at once, want several and at most %d", sink.most, defaultConcurrency)
	}
	b := books(t, d)
	if b.Out != int64(total) || b.In != int64(total) || b.Queued != 0 || b.TotalRetries() == 0 {
		t.Errorf("books %+v, want %d in and out, and retries", b, total)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if saved := log.lastSaved(); saved != int64(total) {
		t.Errorf("cursor %d, want %d", saved, total)
	}
	if len(d.lanes) != 0 {
		t.Errorf("%d idle lanes are kept", len(d.lanes))
	}
}

func TestOneFailingLaneDelaysNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, func(_ context.Context, d statesync.Delivery, _ int) error {
			if d.Workload.Name == "bad" {
				return errRefused
			}
			return nil
		})
		log := newLog(t)
		d, _ := start(t, options(t, log, sink))
		began := time.Now()
		log.add("bad", "bad", "bad")
		log.addMany(3000, 50)
		log.add("bad")
		synctest.Wait()
		if got := sink.count(); got != 3000 {
			t.Errorf("%d acknowledged after %s, want all 3000 of the other lanes at once", got, time.Since(began))
		}
		if got := len(sink.triesOf("bad-1")); got != 1 || len(sink.triesOf("bad-2")) != 0 {
			t.Errorf("the failing lane was tried %d times, and its second change %d times", got, len(sink.triesOf("bad-2")))
		}
		if s := d.Standing(); s.Acked != 0 {
			t.Errorf("standing %+v, want nothing acknowledged as a whole while the first change is", s)
		}
		time.Sleep(time.Second)
		if saved := log.lastSaved(); saved != 3004 {
			t.Errorf("cursor %d saved, want 3004: what the lane holds is put aside", saved)
		}
		s := d.Standing()
		if s.Acked != 3004 || s.Waiting != 4 || s.Aside != 4 || s.Parked != 1 || s.Head != 3004 || !s.Stuck.Equal(began) || !errors.Is(s.Failure, errRefused) {
			t.Errorf("standing %+v, want 4 waiting aside since %s", s, began)
		}
	})
}

// TestFailingLaneKeepsItsBackOff: fresh changes of a lane that fails must not
// have it tried again earlier.
func TestFailingLaneKeepsItsBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, func(context.Context, statesync.Delivery, int) error { return errRefused })
		log := newLog(t)
		d, _ := start(t, options(t, log, sink))
		for range 3000 { // five minutes
			log.add("bad")
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		tries := sink.triesOf("bad-1")
		// 200 ms doubling to 10 s, each between half and whole.
		if n := len(tries); n < 30 || n > 70 {
			t.Errorf("%d tries in five minutes with 3000 fresh changes, want 30 to 70", n)
		}
		for i := 1; i < len(tries); i++ {
			whole := min(retryFirst<<min(i-1, 16), retryMax)
			if wait := tries[i].Sub(tries[i-1]); wait < whole/2 || wait > whole {
				t.Errorf("try %d came %s after the one before, want %s to %s", i+1, wait, whole/2, whole)
			}
		}
		if b := books(t, d); b.Queued != 3000 || b.Retries["status_5xx"] != int64(len(tries)) || len(sink.tries) != 1 {
			t.Errorf("books %+v, %d changes tried: want 3000 queued, %d retries, and one change tried", b, len(sink.tries), len(tries))
		}
	})
}

// TestSuccessEndsTheBackOff: the next failure starts from the first wait.
func TestSuccessEndsTheBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, func(_ context.Context, _ statesync.Delivery, try int) error {
			if try <= 6 {
				return errRefused
			}
			return nil
		})
		log := newLog(t)
		start(t, options(t, log, sink))
		log.add("w", "w")
		time.Sleep(time.Minute)
		first, second := sink.triesOf("w-1"), sink.triesOf("w-2")
		if len(first) != 7 || len(second) != 7 {
			t.Fatalf("%d and %d tries, want 7", len(first), len(second))
		}
		if wait := second[0].Sub(first[6]); wait != 0 {
			t.Errorf("the lane waited %s after a success, want 0", wait)
		}
		if wait := second[1].Sub(second[0]); wait > retryFirst {
			t.Errorf("the first wait after a success is %s, want at most %s", wait, retryFirst)
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	const asked = 7 * time.Minute
	later := fmt.Errorf("wrapped: %w", &statesync.SinkError{Cause: "status_4xx", After: asked, Err: errors.New("status 429")})
	t.Run("by a lane", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			sink := newRecorder(t, func(_ context.Context, d statesync.Delivery, try int) error {
				if try == 1 && d.Workload.Name == "bad" {
					return later
				}
				return nil
			})
			log := newLog(t)
			start(t, options(t, log, sink))
			log.add("bad")
			for range 10 * 60 {
				time.Sleep(time.Second)
				log.add("bad", "good")
			}
			tries := sink.triesOf("bad-1")
			if len(tries) != 2 || tries[1].Sub(tries[0]) != asked {
				t.Errorf("tries at %v, want the second after %s", tries, asked)
			}
		})
	})
	t.Run("by an ordered sink", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var at []time.Time
			sink := &orderedRecorder{t: t, answer: func(_ context.Context, try int) error {
				if at = append(at, time.Now()); try == 1 {
					return later
				}
				return nil
			}}
			log := newLog(t)
			start(t, options(t, log, sink))
			log.add("a")
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if len(at) != 2 || at[1].Sub(at[0]) != asked {
				t.Errorf("tries at %v, want the second after %s", at, asked)
			}
		})
	})
}

// TestLivesOfOneNameShareALane: the end of the old one is acknowledged before
// the start of the new one is sent.
func TestLivesOfOneNameShareALane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, func(_ context.Context, d statesync.Delivery, try int) error {
			if d.Workload.UID == "w/old" && try < 4 {
				return errRefused
			}
			return nil
		})
		log := newLog(t)
		start(t, options(t, log, sink))
		log.add("w/old", "w/new", "w/old", "w/new")
		time.Sleep(time.Minute)
		if diff := cmp.Diff([]string{"w/old-1", "w/new-1", "w/old-2", "w/new-2"}, sink.ids()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		failures int
		err      error
		min, max time.Duration
	}{
		{"the first failure", 1, errRefused, 100 * time.Millisecond, 200 * time.Millisecond},
		{"the third", 3, errRefused, 400 * time.Millisecond, 800 * time.Millisecond},
		{"the sixth", 6, errRefused, 3200 * time.Millisecond, 6400 * time.Millisecond},
		{"the seventh", 7, errRefused, 5 * time.Second, 10 * time.Second},
		{"a million", 1_000_000, errRefused, 5 * time.Second, 10 * time.Second},
		{"another error", 1, errors.New("x"), 100 * time.Millisecond, 200 * time.Millisecond},
		{"the receiver asks for less", 7, &statesync.SinkError{After: time.Millisecond, Err: errRefused}, 5 * time.Second, 10 * time.Second},
		{"the receiver asks for more", 7, &statesync.SinkError{After: time.Hour, Err: errRefused}, time.Hour, time.Hour},
	} {
		low, high := time.Duration(1<<62), time.Duration(0)
		for range 200 {
			w := backoff(tt.failures, tt.err)
			low, high = min(low, w), max(high, w)
		}
		if low < tt.min || high > tt.max {
			t.Errorf("%s: %s to %s, want %s to %s", tt.name, low, high, tt.min, tt.max)
		}
		if tt.min != tt.max && high-low < (tt.max-tt.min)/4 {
			t.Errorf("%s: all within %s to %s, want them spread: lanes that failed together must not return together", tt.name, low, high)
		}
	}
}

// TestConcurrencyIsBounded: no more than asked for, and all of it is used.
func TestConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, func(context.Context, statesync.Delivery, int) error {
			time.Sleep(time.Second)
			return nil
		})
		log := newLog(t)
		o := options(t, log, sink)
		o.Concurrency = 5
		start(t, o)
		log.addMany(50, 50)
		began := time.Now()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := sink.count(); got != 50 || sink.most != 5 {
			t.Errorf("%d acknowledged in %s with %d at once, want 50 with 5", got, time.Since(began), sink.most)
		}
	})
}
