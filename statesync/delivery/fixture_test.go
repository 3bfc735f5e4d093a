package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
	"github.com/outrider-agent/outrider/statesync"
)

var errRefused = &statesync.SinkError{Cause: "status_5xx", Err: errors.New("status 503, want 2xx")}

// A memoryLog is a Source in memory. It holds the dispatcher to its promises:
// what may be read, and what may be saved.
type memoryLog struct {
	t      testing.TB
	window int // no read may go beyond this many unacknowledged changes; 0: not looked at
	sink   *recorder
	lag    time.Duration // until what is saved is durable

	mu      sync.Mutex
	changes []statesync.Change // with numbers that grow; holes are lost changes
	head    int64
	wake    chan struct{}
	seq     map[string]int64 // by UID
	number  map[string]int64 // of the UID's last change
	saved   []int64
	failing int // reads that are still to fail
	furthest,
	reads int64
	full bool // it is, and the sink holds the most of it

	saving  []statesync.Progress // not durable
	dead    bool                 // the agent died: nothing becomes durable any more
	aside   []statesync.Offered
	places  int64 // given
	told    map[string]statesync.Told
	leftOut map[string]bool // IDs, ever
	from    int64           // numbers up to here are told by initial states
	letters []statesync.DeadLetter
	cursor  statesync.Cursor
}

func newLog(t testing.TB) *memoryLog {
	return &memoryLog{
		t: t, wake: make(chan struct{}), seq: map[string]int64{}, number: map[string]int64{},
		told: map[string]statesync.Told{}, leftOut: map[string]bool{}, cursor: statesync.Cursor{Sink: "sink"},
	}
}

// add appends one change for each UID named. A UID is also its lane's name;
// what follows a slash tells lives of one name apart.
func (l *memoryLog) add(uids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, uid := range uids {
		l.head++
		l.seq[uid]++
		name, _, _ := strings.Cut(uid, "/")
		l.changes = append(l.changes, statesync.Change{
			Number: l.head, Previous: l.number[uid], ID: fmt.Sprintf("%s-%d", uid, l.seq[uid]), Cluster: "c", Epoch: 1,
			Workload: statesync.Ref{Kind: "Pod", Namespace: "ns", Name: name, UID: uid},
			To:       statesync.Running, Seq: l.seq[uid], Observed: time.Now(), Occurred: time.Now(), Recorded: time.Now(),
		})
		l.number[uid] = l.head
	}
	l.wakeAll()
}

// wakeAll needs the lock.
func (l *memoryLog) wakeAll() {
	close(l.wake)
	l.wake = make(chan struct{})
}

// addMany appends n changes, to lanes 0 to lanes-1 in turn.
func (l *memoryLog) addMany(n, lanes int) {
	uids := make([]string, n)
	for i := range uids {
		uids[i] = fmt.Sprintf("w%d", i%lanes)
	}
	l.add(uids...)
}

// replay puts changes aside that were delivered before.
func (l *memoryLog) replay(numbers ...int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range numbers {
		c := l.changes[l.firstAbove(n-1)]
		l.put(statesync.Offered{Delivery: statesync.Delivery{Change: c, Replayed: true, PreviousSeq: c.Seq - 1}})
	}
	l.wakeAll()
}

// put needs the lock.
func (l *memoryLog) put(o statesync.Offered) {
	l.places++
	o.Aside = l.places
	l.aside = append(l.aside, o)
}

// lose takes changes out of the log.
func (l *memoryLog) lose(from, to int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes = slices.DeleteFunc(l.changes, func(c statesync.Change) bool { return c.Number >= from && c.Number <= to })
}

func (l *memoryLog) Read(_ context.Context, q statesync.ReadQuery) (out []statesync.Offered, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing > 0 {
		l.failing--
		return nil, errors.New("disk on strike")
	}
	if q.Limit < 1 {
		l.t.Errorf("read with limit %d, want 1 or more", q.Limit)
	}
	if q.Aside {
		slices.SortFunc(l.aside, func(a, b statesync.Offered) int {
			return cmp.Or(cmp.Compare(placeOf(&a).number, placeOf(&b).number), cmp.Compare(a.Aside, b.Aside))
		})
		for _, o := range l.aside {
			o.Replaced = own(&o) && l.seq[o.Workload.UID] > o.Seq
			if placeOf(&o).after(place{q.After, q.AfterAside}) && (q.Lane == nil || *q.Lane == o.Workload.Key()) && (!q.Fresh || !own(&o)) && len(out) < q.Limit {
				out = append(out, l.withTold(o))
			}
		}
		return out, nil
	}
	l.reads++
	if acked := int64(0); l.window > 0 {
		acked = l.sink.count()
		if over := q.After + int64(q.Limit) - acked - int64(l.window); over > 0 {
			l.t.Errorf("asked for %d changes after %d with %d acknowledged: %d beyond the window of %d", q.Limit, q.After, acked, over, l.window)
		}
	}
	from := l.firstAbove(q.After)
	for _, c := range l.changes[from:min(from+q.Limit, len(l.changes))] {
		out = append(out, l.withTold(statesync.Offered{
			Delivery: statesync.Delivery{Change: c}, Replaced: l.number[c.Workload.UID] != c.Number,
		}))
		l.furthest = max(l.furthest, c.Number)
	}
	return out, nil
}

func (l *memoryLog) withTold(o statesync.Offered) statesync.Offered {
	if t, ok := l.told[o.Workload.UID]; ok {
		o.Told = &t
	}
	return o
}

// firstAbove is the index of the first change with a number above n. The lock
// must be held.
func (l *memoryLog) firstAbove(n int64) int {
	i, _ := slices.BinarySearchFunc(l.changes, n+1, func(c statesync.Change, n int64) int { return cmp.Compare(c.Number, n) })
	return i
}

func (l *memoryLog) Head() (int64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head, l.wake
}

func (l *memoryLog) Pressed(string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.full
}

func (l *memoryLog) Save(p statesync.Progress) {
	l.mu.Lock()
	if p.Sink != "sink" {
		l.t.Errorf("progress of %q saved", p.Sink)
	}
	l.saving = append(l.saving, p)
	l.mu.Unlock()
	if l.lag == 0 {
		l.settle()
	} else {
		time.AfterFunc(l.lag, l.settle)
	}
}

// settle makes the oldest progress durable.
func (l *memoryLog) settle() {
	l.mu.Lock()
	if l.dead || len(l.saving) == 0 {
		l.mu.Unlock()
		return
	}
	p := l.saving[0]
	l.saving = l.saving[1:]
	if l.cursor.Detached != "" { // it was attached again since
		l.mu.Unlock()
		return
	}
	if n := len(l.saved); n > 0 && l.saved[n-1] > p.Acked {
		l.t.Errorf("cursor %d saved after %d, want it to grow", p.Acked, l.saved[n-1])
	}
	for _, o := range p.PutAside {
		if o.Number > p.Acked && o.Number > 0 {
			l.t.Errorf("%s is put aside, and the cursor is at %d only", o.ID, p.Acked)
		}
		l.put(o)
	}
	gone, compacted := map[int64]bool{}, map[int64]bool{}
	for _, id := range p.Settled {
		gone[id] = true
	}
	for _, id := range p.Compacted {
		compacted[id] = true
	}
	for i := range l.aside {
		if o := &l.aside[i]; compacted[o.Aside] {
			*o = statesync.Offered{
				Delivery: statesync.Delivery{Change: statesync.Change{Number: o.Number, Workload: o.Workload, Seq: o.Seq}},
				Aside:    o.Aside, Cause: statesync.SkipCompacted, FromSeq: o.Seq,
			}
		}
	}
	before := len(l.aside)
	l.aside = slices.DeleteFunc(l.aside, func(o statesync.Offered) bool { return gone[o.Aside] })
	if before-len(l.aside) != len(p.Settled) {
		l.t.Errorf("%d entries settled, %d of them were there", len(p.Settled), before-len(l.aside))
	}
	for _, t := range p.Told {
		for _, s := range t.Skipped {
			for seq := s.From; seq <= s.To; seq++ {
				l.leftOut[fmt.Sprintf("%s-%d", t.UID, seq)] = true
			}
		}
		if l.told[t.UID] = t; len(t.Skipped) == 0 {
			delete(l.told, t.UID)
		}
	}
	l.letters = append(l.letters, p.Letters...)
	l.saved = append(l.saved, p.Acked)
	c := &l.cursor
	c.Acked, c.Position, c.Skipped = p.Acked, p.Position, p.Skipped
	if p.Marked != nil {
		c.Marked = *p.Marked
	}
	if c.Letters = int64(len(l.letters)); p.Detach != "" {
		c.Detached, c.DetachedAt = p.Detach, time.Now()
	}
	l.isSettled(p.Acked)
	l.mu.Unlock()
	if p.Saved != nil {
		p.Saved()
	}
}

// isSettled wants everything up to the cursor to be acknowledged, put aside,
// left out or a dead letter. The lock must be held.
func (l *memoryLog) isSettled(acked int64) {
	if l.sink == nil || l.cursor.Detached != "" || l.t.Failed() {
		return
	}
	elsewhere := map[string]bool{}
	for _, o := range l.aside {
		for seq := max(1, o.FromSeq); seq <= o.Seq; seq++ {
			elsewhere[fmt.Sprintf("%s-%d", o.Workload.UID, seq)] = true
		}
		elsewhere[o.ID] = true
	}
	for _, letter := range l.letters {
		elsewhere[letter.ID] = true
	}
	for _, c := range l.changes[l.firstAbove(max(l.from, l.sink.from)):l.firstAbove(max(l.from, l.sink.from, acked))] {
		if !l.sink.has(c.ID) && !elsewhere[c.ID] && !l.leftOut[c.ID] {
			l.t.Errorf("cursor %d saved, but %s is neither acknowledged nor put aside", acked, c.ID)
			return
		}
	}
}

// attach is what the log does for a detached sink that comes back: a gap, and
// where every workload stands.
func (l *memoryLog) attach() statesync.Cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.aside, l.told, l.from = nil, map[string]statesync.Told{}, l.head
	l.put(statesync.Offered{Delivery: statesync.Delivery{Change: statesync.Change{
		ID: fmt.Sprint("gap-", l.cursor.Acked), Workload: statesync.StreamRef("sink/sink"), Seq: 1,
		Gap: &statesync.Gap{Stream: "sink/sink", FromNumber: l.cursor.Acked, ToNumber: l.head},
	}}})
	for _, uid := range slices.Sorted(maps.Keys(l.seq)) {
		c := l.changes[l.firstAbove(l.number[uid]-1)]
		c.Number, c.Previous, c.ID = 0, 0, "initial-"+c.ID
		l.put(statesync.Offered{Delivery: statesync.Delivery{Change: c, Initial: true}})
	}
	l.cursor = statesync.Cursor{
		Sink: "sink", Acked: l.head, Aside: int64(len(l.aside)), AsideTop: l.places,
		Letters: l.cursor.Letters, Marked: statesync.Mark{Number: l.head},
	}
	return l.cursor
}

func (l *memoryLog) isFull(full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = full
}

// kept is how many changes are put aside, without what is only told.
func (l *memoryLog) kept() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.aside {
		if o.Cause == "" {
			n++
		}
	}
	return n
}

// isDetached reports whether the sink is, durably.
func (l *memoryLog) isDetached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cursor.Detached != ""
}

// crash is what is left when the agent dies now.
func (l *memoryLog) crash() *memoryLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	again := newLog(l.t)
	again.changes, again.head, again.seq, again.number = slices.Clone(l.changes), l.head, maps.Clone(l.seq), maps.Clone(l.number)
	again.from, again.leftOut = l.from, maps.Clone(l.leftOut)
	again.aside, again.places, again.told = slices.Clone(l.aside), l.places, maps.Clone(l.told)
	again.letters, again.cursor, again.lag = slices.Clone(l.letters), l.cursor, l.lag
	again.cursor.Aside, again.cursor.AsideTop, again.cursor.Waiting = 0, l.places, 0
	for _, o := range again.aside {
		if o.Cause == "" {
			again.cursor.Aside++
		}
		if own(&o) && o.Cause == "" && o.Number > again.cursor.Marked.Number {
			again.cursor.Waiting++
		}
	}
	return again
}

func (l *memoryLog) lastSaved() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.saved) == 0 {
		return -1
	}
	return l.saved[len(l.saved)-1]
}

// A recorder is a sink that writes down what it is given. It fails the test
// when two deliveries of one key are there at once.
type recorder struct {
	t     testing.TB
	from  int64                        // numbers up to here were acknowledged before the test
	wants func(*statesync.Change) bool // nil: all
	// answer decides on each try, from 1, of each delivery; nil takes everything.
	answer func(ctx context.Context, d statesync.Delivery, try int) error

	mu       sync.Mutex
	tries    map[string][]time.Time
	acked    []statesync.Delivery
	taken    map[string]bool
	inFlight map[statesync.Key]bool
	most     int // in flight at once
	marks    []statesync.Mark
}

func newRecorder(t testing.TB, answer func(context.Context, statesync.Delivery, int) error) *recorder {
	return &recorder{t: t, answer: answer, tries: map[string][]time.Time{}, taken: map[string]bool{}, inFlight: map[statesync.Key]bool{}}
}

func (r *recorder) Deliver(ctx context.Context, ds []statesync.Delivery) error {
	if len(ds) != 1 {
		r.t.Errorf("%d deliveries in one call to a sink that is not ordered", len(ds))
	}
	d := ds[0]
	if d.Mark != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.marks = append(r.marks, *d.Mark)
		return nil
	}
	r.mu.Lock()
	if r.inFlight[d.Workload.Key()] {
		r.t.Errorf("two deliveries of %s at once", d.Workload.Key())
	}
	r.inFlight[d.Workload.Key()] = true
	r.most = max(r.most, len(r.inFlight))
	r.tries[d.ID] = append(r.tries[d.ID], time.Now())
	try := len(r.tries[d.ID])
	r.mu.Unlock()
	var err error
	if r.answer != nil {
		err = r.answer(ctx, d, try)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.inFlight, d.Workload.Key())
	if err == nil {
		r.acked = append(r.acked, d)
		r.taken[d.ID] = true
	}
	return err
}

// refusesUntil refuses everything until well is true.
func refusesUntil(well *atomic.Bool) func(context.Context, statesync.Delivery, int) error {
	return func(context.Context, statesync.Delivery, int) error {
		if !well.Load() {
			return errRefused
		}
		return nil
	}
}

func (r *recorder) has(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken[id]
}

func (r *recorder) count() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.from + int64(len(r.acked))
}

func (r *recorder) triesOf(id string) []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]time.Time{}, r.tries[id]...)
}

func (r *recorder) ids() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]string, len(r.acked))
	for i, d := range r.acked {
		out[i] = d.ID
	}
	return out
}

// perLane returns the acknowledged IDs of each lane.
func (r *recorder) perLane() map[string][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string][]string{}
	for _, d := range r.acked {
		out[d.Workload.Name] = append(out[d.Workload.Name], d.ID)
	}
	return out
}

// lanes returns the IDs of each lane in the log's order.
func (l *memoryLog) lanes() map[string][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string][]string{}
	for _, c := range l.changes {
		out[c.Workload.Name] = append(out[c.Workload.Name], c.ID)
	}
	return out
}

// An orderedRecorder is an ordered sink that writes batches down.
type orderedRecorder struct {
	t      testing.TB
	answer func(ctx context.Context, try int) error // try counts all calls, from 1

	mu      sync.Mutex
	busy    bool
	batches [][]string // every try, by ID
	acked   []string
}

func (r *orderedRecorder) Ordered() {}

func (r *orderedRecorder) Deliver(ctx context.Context, ds []statesync.Delivery) error {
	r.mu.Lock()
	if r.busy {
		r.t.Error("two calls at once to an ordered sink")
	}
	r.busy = true
	ids := make([]string, len(ds))
	for i, d := range ds {
		ids[i] = d.ID
	}
	r.batches = append(r.batches, ids)
	try := len(r.batches)
	r.mu.Unlock()
	var err error
	if r.answer != nil {
		err = r.answer(ctx, try)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy = false
	if err == nil {
		r.acked = append(r.acked, ids...)
	}
	return err
}

func (r *orderedRecorder) ackedIDs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.acked...)
}

func options(t testing.TB, source Source, sink statesync.Sink) Options {
	return Options{
		Name: "sink", Sink: sink, Source: source, Cursor: statesync.Cursor{Sink: "sink"}, MarkEvery: 1000 * time.Hour,
		Registry: metricstest.Registry(t), Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	}
}

// start runs a dispatcher until stop is called, or the test ends. stop
// returns Run's error.
func start(t testing.TB, o Options) (d *Dispatcher, stop func() error) {
	t.Helper()
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	var once sync.Once
	stop = func() error {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return d, stop
}

// books returns the dispatcher's pipeline and fails when it does not balance.
func books(t testing.TB, d *Dispatcher) metrics.PipelineSnapshot {
	t.Helper()
	s := d.pipe.Snapshot()
	if balance, ok := s.Balance(); balance != 0 || !ok {
		t.Errorf("balance %d (known %t), want 0: %+v", balance, ok, s)
	}
	return s
}

// until waits for a condition that another goroutine brings about.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still waiting until %s", what)
		}
	}
}

// inMemory wants no more in memory than the window allows, but for what
// lanes read again.
func inMemory(t testing.TB, d *Dispatcher) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if most := d.opts.Window + d.opts.Concurrency*laneLoad; d.memory > most || d.unsaved > most || d.memory < 0 || d.unsaved < 0 {
		t.Errorf("%d items in memory and %d effects, want %d at most", d.memory, d.unsaved, most)
	}
	if d.memory == 0 && len(d.lanes) == 0 && d.unsaved == 0 && !d.running && len(d.told)+len(d.taken)+d.parked > 0 {
		t.Errorf("at rest %d told, %d taken, %d parked lanes are kept", len(d.told), len(d.taken), d.parked)
	}
}
