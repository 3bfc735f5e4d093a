package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics/metricstest"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/ledger"
)

// TestFromLedgerToSinks appends to a real ledger while two sinks, one of each
// sort, refuse at random; the agent is stopped in the middle and started
// again. Each lane's changes arrive in order, none is lost, and only what was
// not acknowledged comes twice.
func TestFromLedgerToSinks(t *testing.T) {
	t.Parallel()
	const lanes, each, runs = 20, 24, 3
	dir := t.TempDir()
	s := seed(t)
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(s, 2))
	lucky := func() bool { mu.Lock(); defer mu.Unlock(); return random.IntN(20) > 0 }

	lanesSink := newRecorder(t, func(_ context.Context, _ statesync.Delivery, try int) error {
		if try == 1 && !lucky() {
			return errRefused
		}
		return nil
	})
	orderedSink := &orderedRecorder{t: t, answer: func(context.Context, int) error {
		if !lucky() {
			return errRefused
		}
		return nil
	}}
	for run := range int64(runs) {
		last := run == runs-1
		a := startAgent(t, dir, map[string]statesync.Sink{"lanes": lanesSink, "ordered": orderedSink})
		var appenders sync.WaitGroup
		for lane := range lanes {
			appenders.Go(func() {
				for i := range int64(each / runs) {
					if err := a.ledger.Append(t.Context(), laneEntry(lane, run*each/runs+i+1)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		appenders.Wait()
		if last {
			until(t, "all is acknowledged", func() bool {
				return books(t, a.dispatchers["lanes"]).Queued == 0 && books(t, a.dispatchers["ordered"]).Queued == 0 && a.head() == lanes*each
			})
		}
		a.stop()
	}

	var want []string
	for i := range each {
		want = append(want, fmt.Sprint(i+1))
	}
	for lane, got := range lanesSink.perLane() {
		if diff := cmp.Diff(laneIDs(lane, want), withoutRepeats(got)); diff != "" {
			t.Errorf("lane %s (-log +acknowledged):\n%s", lane, diff)
		}
	}
	for _, d := range lanesSink.acked {
		if d.PreviousSeq != d.Seq-1 {
			t.Errorf("%s has previous %d, want %d", d.ID, d.PreviousSeq, d.Seq-1)
		}
	}
	if repeats := len(lanesSink.acked) - lanes*each; repeats > (runs-1)*testWindow {
		t.Errorf("%d repeats after %d stops, want at most a window each", repeats, runs-1)
	}
	if got := orderedSink.acked; len(got) != len(withoutRepeats(got)) || len(got) != lanes*each {
		t.Errorf("ordered sink has %d changes, %d without repeats, want %d: a clean stop repeats nothing in order", len(got), len(withoutRepeats(got)), lanes*each)
	}
	if got := len(lanesSink.perLane()); got != lanes {
		t.Errorf("%d lanes, want %d", got, lanes)
	}
}

// TestTheStoryIsWholeWithTheLedger is the same as in memory: a lane that is
// refused for long, dead letters, a filter, a sink that comes late, and stops
// in between. The receiver can tell that it has everything.
func TestTheStoryIsWholeWithTheLedger(t *testing.T) {
	t.Parallel()
	const lanes, runs, each = 12, 4, 10
	dir := t.TempDir()
	var calm atomic.Bool
	answer := func(_ context.Context, d statesync.Delivery, try int) error {
		switch {
		case d.Workload.Name == "l0" && !calm.Load():
			return errRefused
		case d.Seq == 7 && d.Workload.Name != "l0":
			return errRejected
		case d.Seq%3 == 0 && try == 1:
			return errRefused
		}
		return nil
	}
	early, late := newRecorder(t, answer), newRecorder(t, answer)
	wants := func(c *statesync.Change) bool { return c.Seq%5 != 4 }
	seqs := map[string]int64{}
	for run := range int64(runs) {
		sinks := map[string]statesync.Sink{"early": early}
		if run > 1 {
			sinks["late"] = late
		}
		a := startAgentWith(t, dir, sinks, wants)
		for i := range int64(each) {
			for lane := range lanes {
				seq := run*each + i + 1
				if err := a.ledger.Append(t.Context(), laneEntry(lane, seq)); err != nil {
					t.Fatal(err)
				}
				seqs[fmt.Sprintf("l%d", lane)] = seq
			}
		}
		if run == 1 {
			until(t, "the lane is parked", func() bool { return a.dispatchers["early"].Standing().Parked > 0 })
		}
		if run == runs-1 {
			calm.Store(true)
			for name, d := range a.dispatchers {
				until(t, name+" has everything", func() bool { s := d.Standing(); return s.Head == runs*each*lanes && s.Waiting == 0 })
				books(t, d)
			}
		}
		a.stop()
	}
	for name, sink := range map[string]*recorder{"early": early, "late": late} {
		p := newProof()
		for _, d := range sink.acked {
			if err := p.take(d); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for uid, last := range seqs {
			for seq := int64(1); seq <= last; seq++ {
				if !p.given[uid][seq] && !p.excused[uid][seq] {
					t.Errorf("%s: %s-%d is not accounted for", name, uid, seq)
				}
			}
		}
	}
}

const testWindow = 100

func laneEntry(lane int, seq int64) statesync.Entry {
	ref := statesync.Ref{Kind: "Job", Namespace: "ns", Name: fmt.Sprintf("l%d", lane), UID: fmt.Sprintf("l%d", lane)}
	return statesync.Entry{
		Row: statesync.Row{Ref: ref, State: statesync.Running, Seq: seq}, Done: func() {},
		Changes: []statesync.Change{{ID: fmt.Sprintf("l%d-%d", lane, seq), Workload: ref, To: statesync.Running, Seq: seq, Observed: time.Now()}},
	}
}

func laneIDs(lane string, seqs []string) []string {
	out := make([]string, len(seqs))
	for i, s := range seqs {
		out[i] = lane + "-" + s
	}
	return out
}

// withoutRepeats takes out what was acknowledged before: after a stop, what
// stood above the cursor comes again.
func withoutRepeats(ids []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, id := range ids {
		if !seen[id] {
			out = append(out, id)
		}
		seen[id] = true
	}
	return out
}

// An agent is a ledger and its dispatchers.
type agent struct {
	ledger      *ledger.Ledger
	dispatchers map[string]*Dispatcher
	stop        func()
}

func (a agent) head() int64 { n, _ := a.ledger.Head(); return n }

// startAgent wires as the controller does: the ledger stops last.
func startAgent(t *testing.T, dir string, sinks map[string]statesync.Sink) agent {
	t.Helper()
	return startAgentWith(t, dir, sinks, nil)
}

func startAgentWith(t *testing.T, dir string, sinks map[string]statesync.Sink, wants func(*statesync.Change) bool) agent {
	t.Helper()
	reg, log := metricstest.Registry(t), slog.New(slog.DiscardHandler)
	l, err := ledger.Open(ledger.Options{Dir: dir, Log: log, Registry: reg, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	a := agent{ledger: l, dispatchers: map[string]*Dispatcher{}}
	sending, stopSending := context.WithCancel(context.Background())
	recording, stopRecording := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for name, sink := range sinks {
		cursor, err := l.Cursor(name)
		if err != nil {
			t.Fatal(err)
		}
		d, err := New(Options{Name: name, Sink: sink, Source: l, Cursor: cursor, Window: testWindow, Filter: wants, Registry: reg, Logger: log, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		a.dispatchers[name] = d
		group.Go(func() {
			if err := d.Run(sending); err != nil {
				t.Error(err)
			}
		})
	}
	recorded := make(chan error, 1)
	go func() { recorded <- l.Run(recording) }()
	a.stop = func() {
		stopSending()
		group.Wait()
		stopRecording()
		if err := errors.Join(<-recorded, l.Close()); err != nil {
			t.Error(err)
		}
	}
	return a
}
