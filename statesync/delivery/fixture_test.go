package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

var errRefused = &statesync.SinkError{Cause: "status_5xx", Err: errors.New("status 503, want 2xx")}

// A memoryLog is a Source in memory. It holds the dispatcher to its promises:
// what may be read, and what may be saved.
type memoryLog struct {
	t      testing.TB
	window int // no read may go beyond this many unacknowledged changes; 0: not looked at
	sink   *recorder

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
}

func newLog(t testing.TB) *memoryLog {
	return &memoryLog{t: t, wake: make(chan struct{}), seq: map[string]int64{}, number: map[string]int64{}}
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
			Number: l.head, Previous: l.number[uid], ID: fmt.Sprintf("%s-%d", uid, l.seq[uid]),
			Workload: statesync.Ref{Kind: "Pod", Namespace: "ns", Name: name, UID: uid},
			To:       statesync.Running, Seq: l.seq[uid], Observed: time.Now(), Occurred: time.Now(), Recorded: time.Now(),
		})
		l.number[uid] = l.head
	}
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

// lose takes changes out of the log.
func (l *memoryLog) lose(from, to int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var kept []statesync.Change
	for _, c := range l.changes {
		if c.Number < from || c.Number > to {
			kept = append(kept, c)
		}
	}
	l.changes = kept
}

func (l *memoryLog) Read(_ context.Context, after int64, limit int) ([]statesync.Change, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if l.failing > 0 {
		l.failing--
		return nil, errors.New("disk on strike")
	}
	if acked := int64(0); l.window > 0 {
		acked = l.sink.count()
		if over := after + int64(limit) - acked - int64(l.window); over > 0 {
			l.t.Errorf("asked for %d changes after %d with %d acknowledged: %d beyond the window of %d", limit, after, acked, over, l.window)
		}
	}
	from := l.firstAbove(after)
	out := slices.Clone(l.changes[from:min(from+limit, len(l.changes))])
	if len(out) > 0 {
		l.furthest = max(l.furthest, out[len(out)-1].Number)
	}
	return out, nil
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

func (l *memoryLog) SaveCursor(sink string, acked int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sink != "sink" {
		l.t.Errorf("cursor of %q saved", sink)
	}
	before := int64(0)
	if n := len(l.saved); n > 0 {
		if before = l.saved[n-1]; before >= acked {
			l.t.Errorf("cursor %d saved after %d, want it to grow", acked, before)
		}
	}
	l.saved = append(l.saved, acked)
	if l.sink == nil {
		return
	}
	for _, c := range l.changes[l.firstAbove(max(before, l.sink.from)):l.firstAbove(max(before, l.sink.from, acked))] {
		if !l.sink.has(c.ID) {
			l.t.Errorf("cursor %d saved, but the sink has not acknowledged %d", acked, c.Number)
			return
		}
	}
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
	t    testing.TB
	from int64 // numbers up to here were acknowledged before the test
	// answer decides on each try, from 1, of each delivery; nil takes everything.
	answer func(ctx context.Context, d statesync.Delivery, try int) error

	mu       sync.Mutex
	tries    map[string][]time.Time
	acked    []statesync.Delivery
	taken    map[string]bool
	inFlight map[statesync.Key]bool
	most     int // in flight at once
}

func newRecorder(t testing.TB, answer func(context.Context, statesync.Delivery, int) error) *recorder {
	return &recorder{t: t, answer: answer, tries: map[string][]time.Time{}, taken: map[string]bool{}, inFlight: map[statesync.Key]bool{}}
}

func (r *recorder) Deliver(ctx context.Context, ds []statesync.Delivery) error {
	if len(ds) != 1 {
		r.t.Errorf("%d deliveries in one call to a sink that is not ordered", len(ds))
	}
	d := ds[0]
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

func options(source Source, sink statesync.Sink) Options {
	return Options{
		Name: "sink", Sink: sink, Source: source, Cursor: statesync.Cursor{Sink: "sink"},
		Registry: metrics.NewRegistry(), Logger: slog.New(slog.DiscardHandler), Now: time.Now,
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
