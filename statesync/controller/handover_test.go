package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/sinks"
)

// begun records that a workload has begun to run, with a message.
func begun(t *testing.T, c *Controller, name, message string) {
	t.Helper()
	ref := statesync.Ref{Kind: "Pod", Namespace: "n", Name: name, UID: name}
	durable := make(chan struct{})
	err := c.ledger.Append(t.Context(), statesync.Entry{
		Row: statesync.Row{Ref: ref, State: statesync.Running, Epoch: 1, Seq: 1, ResourceVersion: 1},
		Changes: []statesync.Change{{
			ID: name, Cluster: "here", Epoch: 1, Workload: ref, To: statesync.Running, Seq: 1, Message: message,
			Occurred: time.Now(), Observed: time.Now(),
		}},
		Done: func() { close(durable) },
	})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-durable:
	case <-time.After(20 * time.Second):
		r := status(t, c, "ledger")
		t.Fatalf("%s is not recorded: %s", name, r.Message)
	}
}

func settled(t *testing.T, c *Controller, name string) {
	t.Helper()
	waitFor(t, name+" to be settled", func() bool { return find(c.running(), name).dispatcher.Standing().Waiting == 0 })
}

// TestAFileThatChangesHandsKeepsItsLines: where a sink once stood in a file is
// not to cut off what another one has written there since.
func TestAFileThatChangesHandsKeepsItsLines(t *testing.T) {
	t.Run("a rename that is taken back", func(t *testing.T) {
		c, archive, path := running(t)
		file := path("renamed.ndjson")
		reloaded(t, c, []SinkConfig{archive, fileSink("one", file)}, "", "sink one: added")
		happen(t, c, 1)
		wantSeqs(t, file, 1)
		settled(t, c, "one")
		reloaded(t, c, []SinkConfig{archive, fileSink("two", file)}, "", "sink one"+removed+"one", "sink two: added")
		happen(t, c, 2)
		wantSeqs(t, file, 1, 2)
		settled(t, c, "two")
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		reloaded(t, c, []SinkConfig{archive, fileSink("one", file)}, "", "sink two"+removed+"two", "sink one: added")
		happen(t, c, 3)
		waitFor(t, "the third change", func() bool { s := seqs(t, file); return s[len(s)-1] == 3 })
		if after, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(after), string(before)) {
			t.Errorf("lines were cut off (%v):\n%s\nbefore:\n%s", err, after, before)
		}
	})
	t.Run("a rename that is taken back over restarts", func(t *testing.T) {
		dir, api := t.TempDir(), &apiServer{}
		api.uid.Store("here")
		file, held := filepath.Join(dir, "renamed.ndjson"), []byte(nil)
		for i, name := range []string{"one", "two", "one"} {
			c, stop := startWith(t, dir, api, sinks.Open, fileSink(name, file))
			waitSynced(t, c)
			happen(t, c, int64(i+1))
			waitFor(t, "the change", func() bool { s := seqs(t, file); return len(s) > 0 && s[len(s)-1] == int64(i+1) })
			settled(t, c, name)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			now, err := os.ReadFile(file)
			if err != nil || !strings.HasPrefix(string(now), string(held)) {
				t.Errorf("sink %s cut lines off (%v):\n%s\nbefore:\n%s", name, err, now, held)
			}
			held = now
		}
	})
	t.Run("a path that another sink takes, and a restart", func(t *testing.T) {
		dir, api := t.TempDir(), &apiServer{}
		api.uid.Store("here")
		a, b := filepath.Join(dir, "a.ndjson"), filepath.Join(dir, "b.ndjson")
		c, stop := startWith(t, dir, api, sinks.Open, fileSink("archive", a))
		waitSynced(t, c)
		happen(t, c, 1)
		wantSeqs(t, a, 1)
		settled(t, c, "archive")
		moved, second := fileSink("archive", b), fileSink("second", a)
		moved.Filter.Labels = "no=body" // nothing is written to b before the restart
		reloaded(t, c, []SinkConfig{moved, second}, "", "sink archive: changed", "sink second: added")
		happen(t, c, 2)
		wantSeqs(t, a, 1, 2)
		settled(t, c, "second")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		c, stop = startWith(t, dir, api, sinks.Open, fileSink("archive", b), second)
		waitSynced(t, c)
		happen(t, c, 3)
		wantSeqs(t, b, 3)
		wantSeqs(t, a, 1, 2, 3)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestASinkThatIsNotOpenDoesNotFillTheLedger: on_full counts for it too, and it
// hears of it when it is open again.
func TestASinkThatIsNotOpenDoesNotFillTheLedger(t *testing.T) {
	dir, api, broken := t.TempDir(), &apiServer{}, false
	api.uid.Store("here")
	open := func(item config.Item, agent string) (statesync.Sink, error) {
		if item.Name == "dead" && broken {
			return nil, errors.New("no such folder")
		}
		return sinks.Open(item, agent)
	}
	archive, dead := fileSink("archive", filepath.Join(dir, "a")), fileSink("dead", filepath.Join(dir, "dead"))
	c, stop := startBounded(t, dir, api, LedgerConfig{MaxBytes: minLedger, Keep: time.Nanosecond}, open, archive, dead)
	waitSynced(t, c)
	broken = true
	changed := dead
	changed.DeadLetters = "park"
	reloaded(t, c, []SinkConfig{archive, changed}, "no such folder")
	message := strings.Repeat("x", 200_000)
	for i := range 60 { // the bound and half of it
		begun(t, c, fmt.Sprint("w", i), message)
	}
	settled(t, c, "archive")
	broken = false
	reloaded(t, c, []SinkConfig{archive, changed}, "", "sink dead: opened")
	waitFor(t, "the gap", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "dead"))
		return err == nil && strings.Contains(string(b), `"`+statesync.GapDetached+`"`)
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// pickySink refuses the changes of one workload as such.
type pickySink struct{ statesync.Sink }

func (s pickySink) Deliver(_ context.Context, ds []statesync.Delivery) error {
	for _, d := range ds {
		if d.Mark == nil && d.Change.Workload.Name == "poison" {
			return &statesync.SinkError{Cause: "status_4xx", Rejected: true, Err: errors.New("status 422, want 2xx")}
		}
	}
	return nil
}

func TestOneParkedWorkloadWakesNobody(t *testing.T) {
	dir, api := t.TempDir(), &apiServer{}
	api.uid.Store("here")
	open := func(config.Item, string) (statesync.Sink, error) { return pickySink{}, nil }
	to := fileSink("picky", filepath.Join(dir, "unused"))
	to.DeadLetters = "park"
	c, stop := startWith(t, dir, api, open, to)
	waitSynced(t, c)
	begun(t, c, "poison", "")
	begun(t, c, "well", "")
	waitFor(t, "the parked workload alone", func() bool {
		s := c.running()[0].dispatcher.Standing()
		return s.Parked == 1 && s.Oldest.IsZero()
	})
	for _, later := range []time.Duration{0, 2 * time.Minute, time.Hour} {
		if r := sinkResult(c.running()[0].dispatcher.Standing(), 0, time.Now().Add(later)); r.Status != verdict.Warn {
			t.Errorf("after %s: got %s %q, want a warning", later, r.Status, r.Message)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAReloadRightAfterTheDetachment(t *testing.T) {
	dir, api, gone := t.TempDir(), &apiServer{}, &goneSink{}
	api.uid.Store("here")
	open := func(item config.Item, agent string) (_ statesync.Sink, err error) {
		gone.Sink, err = sinks.Open(item, agent)
		return gone, err
	}
	c, stop := startWith(t, dir, api, open, fileSink("gone", filepath.Join(dir, "gone")))
	waitSynced(t, c)
	for i := range 100 {
		begun(t, c, fmt.Sprint("p", i), "")
		for c.running()[0].dispatcher.Standing().Detached == "" {
			runtime.Gosched()
		}
		if _, _, err := c.Reload(t.Context(), c.opts.Config); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestWhatIsKnownOfASinkGoesWithIt: the figures of its work queue, and how many
// dead letters it has got of late.
func TestWhatIsKnownOfASinkGoesWithIt(t *testing.T) {
	c, archive, path := running(t)
	b := fileSink("b", path("b"))
	queues := func() (n int) {
		for _, f := range c.opts.Registry.Gather() {
			for _, p := range f.Points {
				if strings.HasPrefix(f.Desc.Name, "outrider_workqueue_") && p.Tags[0] == "sink/b" {
					n++
				}
			}
		}
		return n
	}
	reloaded(t, c, []SinkConfig{archive, b}, "", "sink b: added")
	if queues() == 0 {
		t.Error("no figures of the work queue of a sink")
	}
	c.mu.Lock()
	c.letters["b"] = &letters{added: []lettersAdded{{at: time.Now().Truncate(time.Minute), n: 3}}}
	c.mu.Unlock()
	reloaded(t, c, []SinkConfig{archive}, "", "sink b"+removed+"b")
	if n := queues(); n > 0 {
		t.Errorf("%d figures of the work queue of a sink that is taken out", n)
	}
	if got, want := act(c, "ledger/forget", "b"), "200 sink b: forgotten"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	reloaded(t, c, []SinkConfig{archive, b}, "", "sink b: added")
	settled(t, c, "b")
	if r := status(t, c, "sink/b"); r.Status != verdict.Pass {
		t.Errorf("a new sink without a dead letter: %s %q", r.Status, r.Message)
	}
}
