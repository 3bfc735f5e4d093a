package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics"
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
	reg, log := metrics.NewRegistry(), slog.New(slog.DiscardHandler)
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
		d, err := New(Options{Name: name, Sink: sink, Source: l, Cursor: cursor, Window: testWindow, Registry: reg, Logger: log, Now: time.Now})
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
