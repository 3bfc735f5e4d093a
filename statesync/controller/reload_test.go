package controller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/sinks"
)

// happen records a change of a workload of its own, and waits until it is
// durable.
func happen(t *testing.T, c *Controller, seq int64) {
	t.Helper()
	ref := statesync.Ref{Kind: "Pod", Namespace: "n", Name: "w", UID: "w"}
	durable := make(chan struct{})
	err := c.ledger.Append(t.Context(), statesync.Entry{
		Row: statesync.Row{Ref: ref, State: statesync.Running, Epoch: 1, Seq: seq, ResourceVersion: uint64(seq)},
		Changes: []statesync.Change{{
			ID: fmt.Sprint("w-", seq), Cluster: "here", Epoch: 1, Workload: ref, To: statesync.Running, Seq: seq,
			Occurred: time.Now(), Observed: time.Now(),
		}},
		Done: func() { close(durable) },
	})
	if err != nil {
		t.Fatal(err)
	}
	<-durable
}

// waitSynced waits until the first list is taken in: what happens before it,
// to a workload that is not on it, would be corrected.
func waitSynced(t *testing.T, c *Controller) {
	t.Helper()
	waitFor(t, "the first list", func() bool {
		head, _ := c.ledger.Head()
		return head >= 2 && status(t, c, "stream/pods").Status == verdict.Pass
	})
}

// seqs are the changes of that workload that a file holds, in its order.
func seqs(t *testing.T, path string) (out []int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var e struct {
			Type string
			Data struct {
				Workload statesync.Ref
				Seq      int64
				Initial  bool
			}
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if e.Type == statesync.EventType && e.Data.Workload.UID == "w" && !e.Data.Initial {
			out = append(out, e.Data.Seq)
		}
	}
	return out
}

func wantSeqs(t *testing.T, path string, want ...int64) {
	t.Helper()
	waitFor(t, fmt.Sprint(filepath.Base(path), " to hold ", want), func() bool { return slices.Equal(seqs(t, path), want) })
}

// with is the configuration with other sinks.
func with(c *Controller, to ...SinkConfig) *Config {
	next := *c.opts.Config
	next.Sinks = to
	return &next
}

// reloaded reloads and wants these lines, and an error with this text; "":
// none.
func reloaded(t *testing.T, c *Controller, to []SinkConfig, failure string, want ...string) {
	t.Helper()
	applied, restart, err := c.Reload(t.Context(), with(c, to...))
	if diff := cmp.Diff(want, applied); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
	if (failure == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), failure) {
		t.Errorf("got error %v, want %q", err, failure)
	}
	if restart != nil {
		t.Errorf("needs a restart: %s, want nothing", restart)
	}
}

const removed = ": removed; its cursor stays, until outrider ledger forget "

// targets are the sinks that have metrics.
func targets(c *Controller) (out []string) {
	for _, p := range c.opts.Registry.Pipelines() {
		if p.Name == "delivery" {
			out = append(out, p.Target)
		}
	}
	return out
}

func running(t *testing.T) (c *Controller, archive SinkConfig, path func(name string) string) {
	t.Helper()
	dir, api := t.TempDir(), &apiServer{}
	api.uid.Store("here")
	c, stop := start(t, dir, api)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	waitSynced(t, c)
	return c, c.opts.Config.Sinks[0], func(name string) string { return filepath.Join(dir, name) }
}

func TestSinksComeAndGo(t *testing.T) {
	c, archive, path := running(t)
	before := c.running()[0]
	happen(t, c, 1)
	second := fileSink("second", path("second.ndjson"))
	reloaded(t, c, []SinkConfig{archive, second}, "", "sink second: added")
	happen(t, c, 2)
	wantSeqs(t, path("changes.ndjson"), 1, 2)
	wantSeqs(t, path("second.ndjson"), 2)
	if r := status(t, c, "sink/second"); r.Status != verdict.Pass {
		t.Errorf("sink/second: %s %q", r.Status, r.Message)
	}
	waitFor(t, "the second sink's cursor", func() bool { return c.running()[1].dispatcher.Standing().Waiting == 0 })

	third := fileSink("third", path("second.ndjson")) // the file that leaves with second
	reloaded(t, c, []SinkConfig{third, archive}, "", "sink second"+removed+"second", "sink third: added")
	if diff := cmp.Diff([]string{"archive", "third"}, targets(c)); diff != "" {
		t.Errorf("metrics of sinks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"third", "archive"}, c.names()); diff != "" {
		t.Errorf("sinks (-want +got):\n%s", diff)
	}
	if r := status(t, c, "sinks"); r.Status != verdict.Warn || !strings.Contains(r.Message, "second (at ") {
		t.Errorf("sinks: %s %q, want a warning that second's cursor is kept", r.Status, r.Message)
	}
	happen(t, c, 3)
	wantSeqs(t, path("changes.ndjson"), 1, 2, 3)
	wantSeqs(t, path("second.ndjson"), 2, 3)

	second = fileSink("second", path("again.ndjson"))
	reloaded(t, c, []SinkConfig{archive, second, third}, "", "sink second: added")
	wantSeqs(t, path("again.ndjson"), 3) // it goes on from where it was
	if r := status(t, c, "sinks"); r.Status != verdict.Pass {
		t.Errorf("sinks: %s %q", r.Status, r.Message)
	}
	if c.running()[0] != before {
		t.Error("a sink that did not change was interrupted")
	}
	reloaded(t, c, []SinkConfig{archive, second, third}, "")
}

func TestAChangedSinkGoesOnFromItsCursor(t *testing.T) {
	c, archive, path := running(t)
	happen(t, c, 1)
	other := fileSink("other", path("other.ndjson"))
	reloaded(t, c, []SinkConfig{archive, other}, "", "sink other: added")
	happen(t, c, 2)
	wantSeqs(t, path("changes.ndjson"), 1, 2)
	wantSeqs(t, path("other.ndjson"), 2)
	// Their files change places.
	archive, other = fileSink("archive", path("other.ndjson")), fileSink("other", path("changes.ndjson"))
	reloaded(t, c, []SinkConfig{archive, other}, "", "sink archive: changed", "sink other: changed")
	happen(t, c, 3)
	wantSeqs(t, path("changes.ndjson"), 1, 2, 3)
	wantSeqs(t, path("other.ndjson"), 2, 3)
	other.Filter.Labels = "no=body"
	reloaded(t, c, []SinkConfig{archive, other}, "", "sink other: changed")
	happen(t, c, 4)
	wantSeqs(t, path("other.ndjson"), 2, 3, 4)
	waitFor(t, "what is left out to be settled", func() bool { return c.running()[1].dispatcher.Standing().Waiting == 0 })
	wantSeqs(t, path("changes.ndjson"), 1, 2, 3)
}

func TestASinkThatCannotBeOpened(t *testing.T) {
	c, _, path := running(t)
	happen(t, c, 1)
	wrong := fileSink("archive", path("no/such/folder"))
	also := fileSink("also", path("no/such/other"))
	reloaded(t, c, []SinkConfig{wrong, also, fileSink("well", path("well.ndjson"))}, "it goes on as it was", "sink well: added")
	if diff := cmp.Diff([]string{"archive", "also", "well"}, c.names()); diff != "" {
		t.Errorf("sinks (-want +got):\n%s", diff)
	}
	if r := status(t, c, "sink/also"); r.Status != verdict.Fail || !strings.HasPrefix(r.Message, "not open: ") {
		t.Errorf("sink/also: %s %q, want a failure that it is not open", r.Status, r.Message)
	}
	happen(t, c, 2)
	wantSeqs(t, path("changes.ndjson"), 1, 2)
	wantSeqs(t, path("well.ndjson"), 2)

	if err := os.MkdirAll(path("no/such"), 0o700); err != nil {
		t.Fatal(err)
	}
	reloaded(t, c, []SinkConfig{wrong, also}, "", "sink well"+removed+"well", "sink archive: changed", "sink also: added")
	happen(t, c, 3)
	wantSeqs(t, path("no/such/folder"), 3)
	wantSeqs(t, path("no/such/other"), 3)

	// One that was never open leaves nothing.
	reloaded(t, c, []SinkConfig{wrong, also, fileSink("never", path("no/way/in"))}, "no such file or directory")
	reloaded(t, c, []SinkConfig{wrong, also}, "", "sink never: removed")

	// Neither as it is to be, nor as it was.
	if err := os.Rename(path("no"), path("away")); err != nil {
		t.Fatal(err)
	}
	reloaded(t, c, []SinkConfig{fileSink("archive", path("no/way")), also}, "no such file or directory")
	if r := status(t, c, "sink/archive"); r.Status != verdict.Fail || !strings.HasPrefix(r.Message, "not open: ") {
		t.Errorf("sink/archive: %s %q, want a failure that it is not open", r.Status, r.Message)
	}
	happen(t, c, 4)
	if err := os.Rename(path("away"), path("no")); err != nil {
		t.Fatal(err)
	}
	reloaded(t, c, []SinkConfig{wrong, also}, "", "sink archive: opened") // as it was
	wantSeqs(t, path("no/such/folder"), 3, 4)
}

// deafSink takes nothing and hears no context until it is let go.
type deafSink struct {
	let    chan struct{}
	calls  atomic.Int32
	closed atomic.Bool
}

func (s *deafSink) Close() error { s.closed.Store(true); return nil }

func (s *deafSink) Deliver(context.Context, []statesync.Delivery) error {
	s.calls.Add(1)
	<-s.let
	return errors.New("was let go")
}

func TestASinkThatCannotBeStopped(t *testing.T) {
	dir, api, deaf := t.TempDir(), &apiServer{}, &deafSink{let: make(chan struct{})}
	api.uid.Store("here")
	opened := 0
	open := func(item config.Item, agent string) (statesync.Sink, error) {
		if item.Name == "deaf" {
			if opened++; opened == 1 {
				return deaf, nil
			}
		}
		return sinks.Open(item, agent)
	}
	first, second := fileSink("deaf", filepath.Join(dir, "first")), fileSink("deaf", filepath.Join(dir, "second"))
	c, stop := startWith(t, dir, api, open, first)
	waitFor(t, "a delivery that hangs", func() bool { return deaf.calls.Load() > 0 })
	reloaded(t, c, []SinkConfig{second}, "sink deaf: still delivering")
	if r := status(t, c, "sink/deaf"); r.Status != verdict.Fail || !strings.Contains(r.Message, "still delivering") {
		t.Errorf("sink/deaf: %s %q, want a failure that it still delivers", r.Status, r.Message)
	}
	waitSynced(t, c)
	reloaded(t, c, nil, "sink deaf: still delivering") // it is not to be given up
	reloaded(t, c, []SinkConfig{second}, "sink deaf: still delivering")
	if opened != 1 {
		t.Errorf("opened %d times, want once: two would deliver at once", opened)
	}
	close(deaf.let)
	reloaded(t, c, []SinkConfig{second}, "", "sink deaf: opened")
	if !deaf.closed.Load() {
		t.Error("the sink that was left behind was not closed")
	}
	happen(t, c, 1)
	wantSeqs(t, filepath.Join(dir, "second"), 1)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestWhatNeedsARestartIsNamed(t *testing.T) {
	c, _, _ := running(t)
	next := *c.opts.Config
	next.Kinds = append(slices.Clone(next.Kinds), KindConfig{Kind: KindName{Name: "Job"}})
	next.Ledger.Keep++
	next.Reasons = true
	applied, restart, err := c.Reload(t.Context(), &next)
	if err != nil || applied != nil {
		t.Errorf("got %q, %v", applied, err)
	}
	if diff := cmp.Diff([]string{"statesync.kinds", "statesync.ledger.keep", "statesync.reasons"}, restart); diff != "" {
		t.Errorf("restart (-want +got):\n%s", diff)
	}
}

func TestReloadsAndLooksUntilTheStop(t *testing.T) {
	dir, api := t.TempDir(), &apiServer{}
	api.uid.Store("here")
	c, stop := start(t, dir, api)
	waitSynced(t, c)
	a, b := c.opts.Config.Sinks[0], fileSink("b", filepath.Join(dir, "b"))
	changed := b
	changed.OnFull = "block"
	var wg sync.WaitGroup
	ended := make(chan struct{})
	for _, lists := range [][][]SinkConfig{{{a}, {a, b}}, {{a, b}, {a, changed}, {b}}} {
		wg.Go(func() {
			for i := 0; ; i++ {
				if _, _, err := c.Reload(t.Context(), with(c, lists[i%len(lists)]...)); errors.Is(err, errStopped) {
					return
				} else if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-ended:
				return
			default:
				for _, check := range c.Checks() {
					check.Run(t.Context())
				}
				c.Status(&bytes.Buffer{})
				c.opts.Registry.Gather()
			}
		}
	})
	for seq := range int64(20) {
		happen(t, c, seq+1)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	close(ended)
	wg.Wait()
	if _, _, err := c.Reload(t.Context(), c.opts.Config); !errors.Is(err, errStopped) {
		t.Errorf("reload after the stop: got %v, want %v", err, errStopped)
	}
}

func TestAReloadThatNobodyWaitsForDoesNothing(t *testing.T) {
	c := &Controller{orders: make(chan order), stopped: make(chan struct{}), opts: Options{Config: &Config{}}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.Reload(ctx, &Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// act calls an action.
func act(c *Controller, name, sink string) string {
	w := httptest.NewRecorder()
	c.Actions()[name].ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/act/"+name+"?sink="+sink, nil))
	return fmt.Sprint(w.Code, " ", strings.TrimSpace(w.Body.String()))
}

func TestASinkIsForgottenByCommandAlone(t *testing.T) {
	c, archive, path := running(t)
	reloaded(t, c, []SinkConfig{archive, fileSink("b", path("b"))}, "", "sink b: added")
	for _, tt := range []struct{ verb, sink, want string }{
		{"ledger/forget", "b", "409 got sink b, which is configured, want one that is not: take it out and reload first"},
		{"ledger/attach", "b", "409 got sink b, which is attached, want one that is detached"},
		{"ledger/attach", "c", "409 got sink c, want one of archive, b"},
		{"ledger/forget", "c", "409 got sink c, want one of which the ledger has a cursor: outrider ledger sinks"},
	} {
		if got := act(c, tt.verb, tt.sink); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.verb, tt.sink, got, tt.want)
		}
	}
	reloaded(t, c, []SinkConfig{archive}, "", "sink b"+removed+"b")
	if got, want := act(c, "ledger/forget", "b"), "200 sink b: forgotten"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if r := status(t, c, "sinks"); r.Status != verdict.Pass {
		t.Errorf("sinks: %s %q", r.Status, r.Message)
	}
}

// goneSink answers that it wants nothing any more, until it does.
type goneSink struct {
	statesync.Sink
	wants atomic.Bool
}

func (s *goneSink) Deliver(ctx context.Context, ds []statesync.Delivery) error {
	if !s.wants.Load() {
		return &statesync.SinkError{Cause: "status_4xx", Gone: true, Err: errors.New("status 410, want 2xx")}
	}
	return s.Sink.Deliver(ctx, ds)
}

func (s *goneSink) Ordered()     {}
func (s *goneSink) Close() error { return s.Sink.(io.Closer).Close() }

func TestADetachedSinkComesBack(t *testing.T) {
	for name, back := range map[string]func(c *Controller, same, changed []SinkConfig){
		"by a reload of the same": func(c *Controller, same, _ []SinkConfig) {
			reloaded(t, c, same, "", "sink gone: attached again")
		},
		"by a reload that changes it": func(c *Controller, _, changed []SinkConfig) {
			reloaded(t, c, changed, "", "sink gone: changed and attached again")
		},
		"by command": func(c *Controller, _, _ []SinkConfig) {
			if got, want := act(c, "ledger/attach", "gone"), "200 sink gone: attached again, with a gap"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, api, gone := t.TempDir(), &apiServer{}, &goneSink{}
			api.uid.Store("here")
			open := func(item config.Item, agent string) (_ statesync.Sink, err error) {
				s, err := sinks.Open(item, agent)
				gone.Sink = s
				return gone, err
			}
			path := filepath.Join(dir, "gone.ndjson")
			to := fileSink("gone", path)
			c, stop := startWith(t, dir, api, open, to)
			waitSynced(t, c)
			happen(t, c, 1)
			waitFor(t, "the check to fail", func() bool { return status(t, c, "sink/gone").Status == verdict.Fail })
			if r := status(t, c, "sink/gone"); !strings.HasPrefix(r.Message, "detached since "+time.Now().UTC().Format("2006-")) || !strings.Contains(r.Message, "answered 410") {
				t.Errorf("sink/gone: %q", r.Message)
			}
			happen(t, c, 2)
			gone.wants.Store(true)
			changed := to
			changed.OnFull = "block"
			back(c, []SinkConfig{to}, []SinkConfig{changed})
			happen(t, c, 3)
			wantSeqs(t, path, 3)
			b, err := os.ReadFile(path)
			if err != nil || !bytes.Contains(b, []byte(`"`+statesync.GapDetached+`"`)) {
				t.Errorf("no gap (%v) in\n%s", err, b)
			}
			waitFor(t, "the check to pass", func() bool { return status(t, c, "sink/gone").Status == verdict.Pass })
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
