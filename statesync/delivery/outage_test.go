package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// An endless is a Source whose changes are computed: of any number of lanes,
// which take turns.
type endless struct {
	lanes int64

	mu    sync.Mutex
	head  int64
	wake  chan struct{}
	aside map[int64]statesync.Offered
	place int64
	most  int // put aside at once
}

func (e *endless) grow(n int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.head += n
	close(e.wake)
	e.wake = make(chan struct{})
}

func (e *endless) change(n int64) statesync.Change {
	lane := (n - 1) % e.lanes
	name := fmt.Sprint("w", lane)
	return statesync.Change{
		Number: n, Previous: max(0, n-e.lanes), ID: fmt.Sprint(n), Cluster: "c", Epoch: 1, Seq: (n-1)/e.lanes + 1,
		Workload: statesync.Ref{Kind: "Pod", Namespace: "ns", Name: name, UID: name}, To: statesync.Running,
	}
}

func (e *endless) Head() (int64, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.head, e.wake
}

func (e *endless) Read(_ context.Context, q statesync.ReadQuery) (out []statesync.Offered, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !q.Aside {
		for n := q.After + 1; n <= e.head && len(out) < q.Limit; n++ {
			out = append(out, statesync.Offered{Delivery: statesync.Delivery{Change: e.change(n)}})
		}
		return out, nil
	}
	for n := int64(0); n <= e.place && q.Lane != nil; n++ { // in order of places, which is that of numbers here
		if o, ok := e.aside[n]; ok && o.Workload.Key() == *q.Lane && placeOf(&o).after(place{q.After, q.AfterAside}) && len(out) < q.Limit {
			out = append(out, o)
		}
	}
	return out, nil
}

func (e *endless) Save(p statesync.Progress) {
	e.mu.Lock()
	for _, o := range p.PutAside {
		e.place++
		o.Aside = e.place
		e.aside[e.place] = o
	}
	for _, id := range p.Settled {
		delete(e.aside, id)
	}
	e.most = max(e.most, len(e.aside))
	e.mu.Unlock()
	if p.Saved != nil {
		p.Saved()
	}
}

func (e *endless) Pressed(string) bool { return false }

// TestThreeHoursOfOutage: two million changes come while the receiver is down.
// Memory stays flat; then all are delivered, each once, in order.
func TestThreeHoursOfOutage(t *testing.T) {
	const hours, lanes = 3, 2000
	changes := int64(2_000_000)
	if os.Getenv("OUTRIDER_SEEDS") == "" { // as in make faults
		changes /= 20
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		down, last, total := true, make(map[string]int64, lanes), int64(0)
		sink := sinkFunc(func(d statesync.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			if down {
				return errRefused
			}
			if last[d.Workload.Name]++; last[d.Workload.Name] != d.Seq || d.PreviousSeq != d.Seq-1 {
				t.Errorf("%s: seq %d after %d, previous %d", d.Workload.Name, d.Seq, last[d.Workload.Name]-1, d.PreviousSeq)
			}
			total++
			return nil
		})
		log := &endless{lanes: lanes, wake: make(chan struct{}), aside: map[int64]statesync.Offered{}}
		d, _ := start(t, options(t, log, sink))
		const steps = hours * 360
		early, peak := uint64(0), uint64(0)
		for i := range steps {
			log.grow((changes - log.head) / int64(steps-i))
			time.Sleep(10 * time.Second)
			switch {
			case i == steps/20:
				early = heap()
			case i > steps/20 && i%40 == 0:
				peak = max(peak, heap())
			}
		}
		books(t, d)
		inMemory(t, d)
		if grown := int64(peak) - int64(early); grown > 4<<20 {
			t.Errorf("the heap grew by %d bytes in the outage, from %d, want it flat", grown, early)
		}
		if s := d.Standing(); s.Waiting != changes || log.most > 4*breakTries {
			t.Errorf("standing %+v and %d put aside, want all to wait in the log", s, log.most)
		}
		mu.Lock()
		down = false
		mu.Unlock()
		began := time.Now()
		for d.Standing().Waiting > 0 && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
			if time.Since(began)%(5*time.Second) == 0 {
				peak = max(peak, heap())
			}
		}
		if total != changes || len(last) != lanes {
			t.Errorf("%d changes of %d workloads, want %d of %d", total, len(last), changes, lanes)
		}
		if grown := int64(peak) - int64(early); grown > 8<<20 {
			t.Errorf("the heap grew by %d bytes, from %d, want it flat", grown, early)
		}
		books(t, d)
		t.Logf("heap %d bytes early, %d at most; delivered in %s of the test's time", early, peak, time.Since(began))
	})
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

type sinkFunc func(statesync.Delivery) error

func (f sinkFunc) Deliver(_ context.Context, ds []statesync.Delivery) error { return f(ds[0]) }

// TestAPoisonLaneCostsTheOthersNothing: a minute of a thousand healthy lanes,
// with one that always fails and without it, five times each.
func TestAPoisonLaneCostsTheOthersNothing(t *testing.T) {
	t.Parallel()
	var ratios []float64
	for i := range 5 {
		var p99 [2]time.Duration
		for poison := range 2 {
			synctest.Test(t, func(t *testing.T) { p99[poison] = healthyP99(t, uint64(i), poison == 1) })
		}
		ratios = append(ratios, float64(p99[1])/float64(p99[0]))
		t.Logf("p99 %s alone, %s with a poison lane", p99[0], p99[1])
	}
	slices.Sort(ratios)
	if median := ratios[2]; median > 1.2 {
		t.Errorf("the median of five is %.2f times the p99 without it, want 1.2 at most: %v", median, ratios)
	}
}

func healthyP99(t *testing.T, seed uint64, poison bool) time.Duration {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 3))
	var took []time.Duration
	sink := sinkFunc(func(d statesync.Delivery) error {
		mu.Lock()
		answers := time.Duration(1+r.IntN(20)) * time.Millisecond
		mu.Unlock()
		time.Sleep(answers) // sleep: in the bubble
		if d.Workload.Name == "poison" {
			return errRefused
		}
		mu.Lock()
		defer mu.Unlock()
		took = append(took, time.Since(d.Recorded))
		return nil
	})
	log := newLog(t)
	d, stop := start(t, options(t, log, sink))
	for tick := range 600 { // of 100 ms
		for i := range 60 {
			log.add(fmt.Sprint("w", (tick*60+i)%1000))
		}
		if poison && tick%3 == 0 {
			log.add("poison")
		}
		time.Sleep(100 * time.Millisecond) // sleep: runs in the bubble
	}
	time.Sleep(time.Second) // sleep: runs in the bubble
	mu.Lock()
	defer mu.Unlock()
	if len(took) != 36_000 {
		t.Errorf("%d delivered, want 36000", len(took))
	}
	if s := d.Standing(); s.Aside > 0 != poison || s.Breaker != "closed" {
		t.Errorf("standing %+v", s)
	}
	mu.Unlock()
	_ = stop()
	mu.Lock()
	slices.Sort(took)
	return took[len(took)*99/100]
}
