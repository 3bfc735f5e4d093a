package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

var errRejected = &statesync.SinkError{Cause: "status_4xx", Rejected: true, Err: errors.New("status 422, want 2xx")}

// A proof is what a receiver can tell of completeness by what it was given.
type proof struct {
	given    map[string]map[int64]bool // seqs, by UID
	excused  map[string]map[int64]bool
	last     map[string]int64
	replayed int
}

func newProof() *proof {
	return &proof{given: map[string]map[int64]bool{}, excused: map[string]map[int64]bool{}, last: map[string]int64{}}
}

// all takes deliveries, and returns the last seq of each workload.
func (p *proof) all(t *testing.T, ds []statesync.Delivery) map[string]int64 {
	t.Helper()
	for _, d := range ds {
		if err := p.take(d); err != nil {
			t.Error(err)
		}
	}
	return p.last
}

// take returns what is wrong with a delivery after those before it.
func (p *proof) take(d statesync.Delivery) error {
	uid := d.Workload.UID
	if p.given[uid] == nil {
		p.given[uid], p.excused[uid] = map[int64]bool{}, map[int64]bool{}
	}
	switch {
	case d.Initial: // the story begins anew
		for seq := int64(1); seq <= d.Seq; seq++ {
			p.excused[uid][seq] = true
		}
		p.given[uid][d.Seq], p.last[uid] = true, d.Seq
		return nil
	case d.Gap != nil:
		return nil
	case d.Replayed:
		p.replayed++
		p.given[uid][d.Seq] = true
		return nil
	}
	if d.Seq <= p.last[uid] { // a repeat
		if !p.given[uid][d.Seq] {
			return fmt.Errorf("%s: seq %d comes after %d and was not given before", uid, d.Seq, p.last[uid])
		}
		return nil
	}
	// What was given and not acknowledged when the agent died may be left out
	// by the next: then the one before is an earlier one.
	if d.PreviousSeq > p.last[uid] || d.PreviousSeq > 0 && !p.given[uid][d.PreviousSeq] {
		return fmt.Errorf("%s: seq %d says that %d was given before it, and it was %d", uid, d.Seq, d.PreviousSeq, p.last[uid])
	}
	next := d.PreviousSeq + 1
	for _, s := range d.Skipped {
		if s.From != next || s.To < s.From {
			return fmt.Errorf("%s: seq %d skips %v after %d", uid, d.Seq, d.Skipped, d.PreviousSeq)
		}
		for ; next <= s.To; next++ {
			p.excused[uid][next] = true
		}
	}
	if next != d.Seq {
		return fmt.Errorf("%s: seq %d, previous %d, skipped %v: %d is not accounted for", uid, d.Seq, d.PreviousSeq, d.Skipped, next)
	}
	p.given[uid][d.Seq], p.last[uid] = true, d.Seq
	return nil
}

// TestTheStoryIsWholeWhateverHappens: refusals for now and for good, a filter,
// crashes at any time, a slow disk, a full log, replays. What the receiver is
// given tells of every change, by itself or as left out.
func TestTheStoryIsWholeWhateverHappens(t *testing.T) {
	t.Parallel()
	eachSeed(t, 6, storyProperty)
}

func storyProperty(t *testing.T, r *rand.Rand) {
	var mu sync.Mutex // guards r
	random := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
	down, calm, noLetters := false, false, false
	sink := newRecorder(t, func(_ context.Context, d statesync.Delivery, _ int) error {
		time.Sleep(time.Duration(random(20)) * time.Millisecond) // sleep: runs in the bubble
		mu.Lock()
		isDown, isCalm := down, calm
		mu.Unlock()
		switch {
		case isDown:
			return errRefused
		case d.Seq%7 == 3 && !d.Replayed && !noLetters:
			return errRejected
		case isCalm:
		case d.Workload.Name == "w0" && random(8) > 0, random(12) == 0:
			return errRefused
		}
		return nil
	})
	filtering, policy, seldom := random(2) == 0, []Policy{Block, Compact, Detach}[random(3)], random(2) == 0
	if filtering {
		sink.wants = func(c *statesync.Change) bool { return c.Seq%5 != 2 && !(c.Workload.Name == "w1" && c.Seq < 9) }
	}
	log := newLog(t)
	log.sink, log.lag = sink, time.Duration(random(300))*time.Millisecond
	kinds := []statesync.Sink{
		sink, &batchRecorder{sink, 2 + random(9), func() bool { return random(20) == 0 }}, &inOrder{&batchRecorder{sink, 0, func() bool { return random(5) == 0 }}},
	}
	kind := kinds[random(3)]
	noLetters = kind == kinds[2]
	defer func() {
		if t.Failed() {
			t.Logf("kind %T filtering %t policy %s lag %s", kind, filtering, policy, log.lag)
		}
	}()
	run := func() (*Dispatcher, func() error) {
		o := options(t, log, kind)
		o.Cursor, o.Filter, o.OnFull, o.Window = log.cursor, sink.wants, policy, 20+random(100)
		o.MarkEvery = 10 * time.Second
		return start(t, o)
	}
	d, stop := run()
	lanes := 3 + random(40)
	for range 30 {
		for range random(60) {
			log.add(fmt.Sprintf("w%d/%d", random(lanes), random(2)))
		}
		switch random(8) {
		case 0: // it dies
			again := log.crash()
			_ = stop()
			log = again
			log.sink = sink
			d, stop = run()
		case 1:
			mu.Lock()
			down = !down && !seldom
			mu.Unlock()
		case 2:
			log.mu.Lock()
			log.full = !log.full
			log.mu.Unlock()
		case 3:
			if n := int(d.Standing().Acked); n > 1 && random(2) == 0 {
				log.replay(int64(1 + random(n)))
			}
		}
		time.Sleep(time.Duration(random(4000)) * time.Millisecond) // sleep: runs in the bubble
		if log.isDetached() && random(3) == 0 {
			d.Attach(log.attach())
		}
		books(t, d)
		inMemory(t, d)
	}
	mu.Lock()
	down, calm = false, true
	mu.Unlock()
	log.mu.Lock()
	log.full = false
	log.mu.Unlock()
	time.Sleep(time.Second) // sleep: runs in the bubble
	if log.isDetached() {
		d.Attach(log.attach())
	}
	time.Sleep(20 * time.Minute) // sleep: runs in the bubble
	synctest.Wait()
	if q := books(t, d); q.Queued != 0 {
		t.Errorf("%d changes wait at rest: %+v", q.Queued, d.Standing())
	}
	inMemory(t, d)
	if err := stop(); err != nil {
		t.Error(err)
	}
	storyIsWhole(t, log, sink)
	if len(sink.marks) == 0 && policy != Detach {
		t.Error("no marks, want some")
	}
}

// A batchRecorder takes several deliveries at once; now and then it fails as a
// whole.
type batchRecorder struct {
	*recorder
	size int
	fail func() bool
}

func (r *batchRecorder) Batch() int { return r.size }

func (r *batchRecorder) Deliver(ctx context.Context, ds []statesync.Delivery) error {
	if len(ds) > r.size && r.size > 0 {
		r.t.Errorf("%d deliveries at once, want %d at most", len(ds), r.size)
	}
	if r.fail() {
		return errRefused
	}
	errs, failed, refused := make([]error, len(ds)), false, map[statesync.Key]bool{}
	left := map[statesync.Key]bool{}
	for i := range ds {
		key := ds[i].Workload.Key()
		if i > 0 && ds[i-1].Workload.Key() != key {
			left[ds[i-1].Workload.Key()] = true
		}
		if left[key] {
			r.t.Errorf("the changes of %s are not next to each other", key)
		}
		if refused[key] {
			errs[i] = errRefused
			continue
		}
		errs[i] = r.recorder.Deliver(ctx, ds[i:i+1])
		refused[key] = errs[i] != nil
		failed = failed || refused[key]
	}
	switch {
	case !failed:
		return nil
	case len(ds) == 1:
		return errs[0]
	}
	return &statesync.BatchError{Errs: errs}
}

// inOrder makes an ordered sink of one.
type inOrder struct{ r *batchRecorder }

func (*inOrder) Ordered() {}

func (o *inOrder) Deliver(ctx context.Context, ds []statesync.Delivery) error {
	if o.r.fail() {
		return errRefused
	}
	for i := range ds { // what is taken before one that is refused comes again
		if err := o.r.recorder.Deliver(ctx, ds[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// TestABatchIsTriedAgainAsItIs, and after a few failures each lane by itself:
// one whose change breaks the receiver holds nobody up.
func TestABatchIsTriedAgainAsItIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := &batches{}
		log := newLog(t)
		o := options(t, log, sink)
		o.Concurrency = 1
		d, _ := start(t, o)
		log.add("first")
		synctest.Wait()
		log.add("a", "bad", "b", "c", "a")
		time.Sleep(time.Minute)
		if s := d.Standing(); s.Waiting != 1 || s.Acked != 6 || s.Parked != 1 {
			t.Errorf("standing %+v, want the bad one alone to wait", s)
		}
		books(t, d)
		tried := map[string]int{}
		sink.mu.Lock()
		defer sink.mu.Unlock()
		for _, ids := range sink.tried {
			if strings.Contains(ids, ",") && strings.Contains(ids, "bad") {
				tried[ids]++
			}
		}
		for ids, n := range tried {
			if n != groupTries {
				t.Errorf("%s tried together %d times, want %d", ids, n, groupTries)
			}
		}
		if len(tried) != 1 {
			t.Errorf("tried %v, want one batch with the bad one", sink.tried)
		}
	})
}

// batches is a sink that one change breaks.
type batches struct {
	mu    sync.Mutex
	tried []string
}

func (*batches) Batch() int { return 10 }

func (b *batches) Deliver(_ context.Context, ds []statesync.Delivery) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for _, d := range ds {
		ids = append(ids, d.ID)
	}
	if ids[0] == "first-1" {
		time.Sleep(time.Second) // sleep: runs in the bubble of TestABatchIsTriedAgainAsItIs
	}
	b.tried = append(b.tried, strings.Join(ids, ","))
	if strings.Contains(strings.Join(ids, ","), "bad") {
		return errRefused
	}
	return nil
}

func storyIsWhole(t *testing.T, log *memoryLog, sink *recorder) {
	t.Helper()
	p := newProof()
	numbers := map[int64]bool{}
	for _, d := range sink.acked {
		numbers[d.Number] = true
	}
	p.all(t, sink.acked)
	letters := map[string]bool{}
	for _, l := range log.letters {
		letters[l.ID] = true
	}
	for _, c := range log.changes {
		uid := c.Workload.UID
		skipped := false
		if told, ok := log.told[uid]; ok { // not yet told
			for _, s := range told.Skipped {
				skipped = skipped || s.From <= c.Seq && c.Seq <= s.To
			}
		}
		switch {
		case p.given[uid][c.Seq], p.excused[uid][c.Seq], skipped:
		default:
			t.Errorf("%s, number %d, was lost", c.ID, c.Number)
		}
	}
	if len(log.aside) > 0 {
		t.Errorf("%d entries are left aside", len(log.aside))
	}
	for _, m := range sink.marks {
		n := int64(0)
		for number := range numbers {
			if number > m.Previous && number <= m.Number {
				n++
			}
		}
		if n < m.Changes || min(m.Changes, m.Skipped, m.Waiting) < 0 || m.Changes+m.Skipped+m.Waiting != m.Number-m.Previous {
			t.Errorf("mark %+v, and %d were given", m, n)
		}
	}
}
