package demo

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/outrider-agent/outrider/metrics"
)

// fakeWorld notes what it is told.
type fakeWorld struct {
	mu   sync.Mutex
	told []Told
	log  []string
}

func (w *fakeWorld) Begin() error {
	w.log = append(w.log, "begin")
	if len(w.log) > 1 {
		return errors.New("it has begun before")
	}
	return nil
}

func (w *fakeWorld) Told(changes []Told) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, changes...)
}

func (w *fakeWorld) Figures() (Figures, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Figures{Offered: 7, Matched: int64(len(w.told)), Latency: metrics.HistogramSnapshot{Buckets: []metrics.Bucket{{Index: 1, Count: 2}}, Count: 2, Sum: 3}}, nil
}

func (w *fakeWorld) End(judge bool) (Verdict, error) {
	if judge {
		return Verdict{Offered: 7, Lost: 3, First: []string{"u1: Running"}}, nil
	}
	return Verdict{}, nil
}

// overPipes runs a world behind pipes.
func overPipes(t *testing.T, w world) (r *remote, end func() error) {
	t.Helper()
	orders, give := io.Pipe()
	answers, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- Obey(t.Context(), w, "/dir/kubeconfig", "127.0.0.1:1", orders, out)
		out.Close()
	}()
	r, err := newRemote(answers, give)
	if err != nil {
		t.Fatal(err)
	}
	return r, func() error {
		give.Close()
		return <-ended
	}
}

func TestRemoteIsTheWorldBehindIt(t *testing.T) {
	w := &fakeWorld{}
	r, end := overPipes(t, w)
	if r.kubeconfig != "/dir/kubeconfig" || r.address != "127.0.0.1:1" {
		t.Errorf("it is at %q with %q", r.address, r.kubeconfig)
	}
	if err := r.Begin(); err != nil {
		t.Errorf("begin: %v", err)
	}
	if err := r.Begin(); err == nil || !strings.Contains(err.Error(), "begin: it has begun before") {
		t.Errorf("begin again: %v, want the world's error", err)
	}
	r.Told([]Told{{"u1", "Queued", 1}, {"u1", "Running", 2}})
	r.Told([]Told{{"u2", "Queued", 3}})
	f, err := r.Figures() // what was told before comes before
	if diff := cmp.Diff(Figures{Offered: 7, Matched: 3, Latency: metrics.HistogramSnapshot{Buckets: []metrics.Bucket{{Index: 1, Count: 2}}, Count: 2, Sum: 3}}, f); diff != "" || err != nil {
		t.Errorf("figures: %v %s", err, diff)
	}
	v, err := r.End(true)
	if diff := cmp.Diff(Verdict{Offered: 7, Lost: 3, First: []string{"u1: Running"}}, v); diff != "" || err != nil {
		t.Errorf("verdict: %v %s", err, diff)
	}
	if v, err := r.End(false); err != nil || v.Lost != 0 {
		t.Errorf("stop: %+v, %v", v, err)
	}
	if _, err := r.ask("dance"); err == nil || !strings.Contains(err.Error(), `got "dance", want begin`) {
		t.Errorf("an order that is none: %v", err)
	}
	if diff := cmp.Diff([]Told{{"u1", "Queued", 1}, {"u1", "Running", 2}, {"u2", "Queued", 3}}, w.told); diff != "" {
		t.Errorf("told: %s", diff)
	}
	if err := end(); err != nil {
		t.Errorf("the orders' end: %v, want none", err)
	}
	if _, err := r.Figures(); err == nil {
		t.Error("figures of a world that is gone, want an error")
	}
}

func TestRemotePassesOnWithoutBeingAsked(t *testing.T) {
	w := &fakeWorld{}
	r, end := overPipes(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- r.run(ctx) }()
	r.Told([]Told{{"u1", "Queued", 1}})
	for deadline := time.Now().Add(20 * time.Second); ; {
		f, err := w.Figures()
		if err != nil {
			t.Fatal(err)
		}
		if f.Matched == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was passed on in 20s")
		}
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

func TestASimulationThatDoesNotSayWhereItIs(t *testing.T) {
	if _, err := newRemote(strings.NewReader("panic: x\n"), io.Discard); err == nil || !strings.Contains(err.Error(), "does not say where") {
		t.Errorf("got %v", err)
	}
}
