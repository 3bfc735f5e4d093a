package delivery

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// TestCompaction: of each workload the last change comes, and what was left out
// is told.
func TestCompaction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var good atomic.Bool
		sink := newRecorder(t, refusesUntil(&good))
		log := newLog(t)
		o := options(t, log, sink)
		o.OnFull, o.Window = Compact, 50
		d, _ := start(t, o)
		log.addMany(1000, 20)
		time.Sleep(time.Minute)
		log.isFull(true)
		time.Sleep(10 * time.Second)
		log.isFull(false)
		if s := d.Standing(); s.Waiting > 100 {
			t.Errorf("standing %+v, want the backlog compacted", s)
		}
		good.Store(true)
		time.Sleep(5 * time.Minute)
		books(t, d)
		last := newProof().all(t, sink.acked)
		for uid, last := range last {
			if last != 50 {
				t.Errorf("%s: seq %d is the last that came, want 50", uid, last)
			}
		}
		if len(last) != 20 || len(sink.acked) > 150 {
			t.Errorf("%d workloads, %d changes, want 20 and few", len(last), len(sink.acked))
		}
	})
}

// TestCompactionOfWhatIsPutAside: of a workload that is refused for long, and
// of all of them in one full log after another, the last change is kept alone.
func TestCompactionOfWhatIsPutAside(t *testing.T) {
	t.Parallel()
	for name, refused := range map[string]func(statesync.Delivery) bool{
		"one workload": func(d statesync.Delivery) bool { return d.Workload.Name == "w0" },
		"all":          func(statesync.Delivery) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var good atomic.Bool
				sink := newRecorder(t, func(_ context.Context, d statesync.Delivery, _ int) error {
					if !good.Load() && refused(d) {
						return errRefused
					}
					return nil
				})
				log := newLog(t)
				o := options(t, log, sink)
				o.OnFull, o.Window, o.MarkEvery = Compact, 50, time.Second
				d, _ := start(t, o)
				for round := range 20 {
					log.addMany(200, 10)
					time.Sleep(time.Minute)
					log.isFull(true)
					time.Sleep(20 * time.Second)
					log.isFull(false)
					if n := log.kept(); n > 10+20 { // what one lane in flight holds may stay
						t.Fatalf("round %d: %d changes are kept of 10 workloads: %+v", round, n, d.Standing())
					}
					books(t, d)
					inMemory(t, d)
				}
				good.Store(true)
				time.Sleep(5 * time.Minute)
				if q := books(t, d); q.Queued != 0 {
					t.Errorf("%d changes wait at rest", q.Queued)
				}
				storyIsWhole(t, log, sink)
				for uid, last := range newProof().all(t, sink.acked) {
					if last != 400 {
						t.Errorf("%s: seq %d is the last that came, want 400", uid, last)
					}
				}
			})
		})
	}
}

// TestACompactionThatIsNotEnough: a log that stays full though each workload's
// last change alone is kept is let go, for the others' sake.
func TestACompactionThatIsNotEnough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, func(context.Context, statesync.Delivery, int) error { return errRefused })
		log := newLog(t)
		o := options(t, log, sink)
		o.OnFull = Compact
		d, _ := start(t, o)
		log.addMany(1000, 10)
		time.Sleep(time.Minute)
		log.isFull(true)
		time.Sleep(compactWorks - time.Second)
		if log.isDetached() {
			t.Errorf("detached before what was left out could be deleted")
		}
		time.Sleep(10 * time.Second)
		if !log.isDetached() || d.Standing().Detached != statesync.DetachedFull {
			t.Errorf("standing %+v, want it detached", d.Standing())
		}
		books(t, d)
	})
}

// TestAFailingRunHearsOfIt: an ordered sink that is to wait for an hour, as
// the receiver asked, is compacted, detached and attached meanwhile.
func TestAFailingRunHearsOfIt(t *testing.T) {
	t.Parallel()
	for _, policy := range []Policy{Compact, Detach} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var good atomic.Bool
				sink := &orderedRecorder{t: t, answer: func(context.Context, int) error {
					if !good.Load() {
						return &statesync.SinkError{After: time.Hour, Err: errors.New("later")}
					}
					return nil
				}}
				log := newLog(t)
				o := options(t, log, sink)
				o.OnFull, o.Window = policy, 50
				d, _ := start(t, o)
				log.addMany(1000, 10)
				time.Sleep(time.Second)
				good.Store(true)
				log.isFull(true)
				time.Sleep(5 * time.Second)
				log.isFull(false)
				if log.isDetached() != (policy == Detach) {
					t.Fatalf("standing %+v", d.Standing())
				}
				if policy == Detach {
					d.Attach(log.attach())
				}
				time.Sleep(5 * time.Second)
				if n := len(sink.ackedIDs()); n < 10 || n > 61 {
					t.Errorf("%d changes came, want the last of 10 workloads and what was in memory at most", n)
				}
				if q := books(t, d); q.Queued != 0 {
					t.Errorf("%d changes wait at rest: %+v", q.Queued, d.Standing())
				}
			})
		})
	}
}
