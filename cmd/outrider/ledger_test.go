package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/agent"
	"github.com/outrider-agent/outrider/metrics/metricstest"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/ledger"
	"github.com/outrider-agent/outrider/statesync/ledger/inspect"
)

// writeLedger writes n changes, all acknowledged by the sink archive, into a
// data directory, and returns the open ledger and what the sink got.
func writeLedger(t *testing.T, dir string, n int64) (l *ledger.Ledger, record string) {
	t.Helper()
	l, err := ledger.Open(ledger.Options{Dir: dir, Log: slog.New(slog.DiscardHandler), Registry: metricstest.Registry(t), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Identify("c"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Cursor("archive"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- l.Run(ctx) }()
	var text strings.Builder
	var e statesync.Entry
	for seq := int64(1); seq <= n; seq++ {
		ref := statesync.Ref{Kind: "Pod", Namespace: "load", Name: "a", UID: "a"}
		from, to := statesync.Queued, statesync.Running
		if seq%2 == 1 {
			from, to = to, from
		}
		if seq == 1 {
			from = ""
		}
		c := statesync.Change{ID: statesync.ChangeID("c", 1, "a", "pods", uint64(seq), 0, to), Cluster: "c", Epoch: 1, Workload: ref, From: from, To: to, Seq: seq, Occurred: time.Unix(seq, 0), Observed: time.Unix(seq, 0)}
		b, err := statesync.MarshalEvent(statesync.Delivery{Change: c, PreviousSeq: seq - 1})
		if err != nil {
			t.Fatal(err)
		}
		text.Write(append(b, '\n'))
		e.Row, e.Changes = statesync.Row{Ref: ref, State: to, Epoch: 1, Seq: seq}, append(e.Changes, c)
	}
	durable := make(chan struct{})
	e.Done = func() { close(durable) }
	if err := l.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	<-durable
	l.Save(statesync.Progress{Sink: "archive", Acked: n})
	cancel() // Run makes the cursor durable before it returns
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	return l, text.String()
}

// counted answers for a ledger and counts the questions.
type counted struct {
	path  string
	asked chan string
	more  map[string]http.Handler // actions that write
}

func (c *counted) Name() string { return "counted" }

func (c *counted) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (c *counted) Actions() map[string]http.Handler {
	out := map[string]http.Handler{}
	actions := inspect.Actions(c.path)
	maps.Copy(actions, c.more)
	for name, h := range actions {
		out[name] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.asked <- name; h.ServeHTTP(w, r) })
	}
	return out
}

// startAgent runs an agent that answers for the ledger in dir.
func startAgent(t *testing.T, dir string, more map[string]http.Handler) *counted {
	t.Helper()
	c := &counted{path: filepath.Join(dir, ledger.File), asked: make(chan string, 100), more: more}
	a, err := agent.New(agent.Options{DataDir: dir, Components: []agent.Component{c}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-a.Ready()
	return c
}

// shortDir makes a folder whose name leaves room for that of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "outrider")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func outrider(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out bytes.Buffer
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	err = root.ExecuteContext(t.Context())
	return out.String(), err
}

// TestALiveLedgerIsAskedThroughItsAgent wants the same answers from the agent
// as from the file.
func TestALiveLedgerIsAskedThroughItsAgent(t *testing.T) {
	dir := shortDir(t)
	l, record := writeLedger(t, dir, 1200)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	full, short := filepath.Join(dir, "full.ndjson"), filepath.Join(dir, "short.ndjson")
	lines := strings.SplitAfter(record, "\n")
	for path, text := range map[string]string{full: record, short: strings.Join(append(lines[:700:700], lines[701:]...), "")} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := startAgent(t, dir, nil)
	for _, args := range [][]string{
		{"stat"},
		{"stat", "--json"},
		{"ls"},
		{"ls", "--after", "3"},
		{"ls", "--json", "--last", "0"},
		{"ls", "--workload", "load/Pod/a", "--uid", "a", "--last", "3"},
		{"ls", "--gaps"},
		{"verify"},
		{"verify", "--json"},
		{"verify", "--against", full},
		{"sinks"},
		{"sinks", "--json"},
		{"deadletters"},
		{"deadletters", "--json", "--sink", "archive", "--last", "1"},
	} {
		fromAgent, err := outrider(t, append(append([]string{"ledger"}, args...), "--dir", dir)...)
		if err != nil {
			t.Errorf("%v: %v\n%s", args, err, fromAgent)
		}
		if len(c.asked) == 0 {
			t.Errorf("%v: the agent was not asked", args)
		}
		for len(c.asked) > 0 {
			<-c.asked
		}
		fromFile, err := outrider(t, append(append([]string{"ledger"}, args...), filepath.Join(dir, ledger.File))...)
		if err != nil || fromFile != fromAgent || len(c.asked) > 0 {
			t.Errorf("%v: %v, agent asked %d times; from the file\n%.500s\nfrom the agent\n%.500s", args, err, len(c.asked), fromFile, fromAgent)
		}
	}
	out, err := outrider(t, "ledger", "verify", "--dir", dir, "--against", short)
	if want := "change 701, a: got no line, want seq 701, to Queued"; !errors.Is(err, errFindings) || !strings.Contains(out, want) {
		t.Errorf("a line less: %v, want findings and %q in\n%s", err, want, out)
	}
	if _, err := outrider(t, "ledger", "ls", "--uid", "z", "--dir", dir); err == nil || !strings.Contains(err.Error(), "no such workload") {
		t.Errorf("an unknown workload: %v", err)
	}
}

func TestPickSink(t *testing.T) {
	sinks := []inspect.SinkStat{{Name: "a", Cursor: 9}, {Name: "b", Cursor: 4}, {Name: "c", Cursor: 7}}
	for name, want := range map[string]string{"": "b", "c": "c"} {
		if got, err := pickSink(sinks, name); err != nil || got.Name != want {
			t.Errorf("%q: %v, %v, want %s", name, got, err, want)
		}
	}
	if _, err := pickSink(sinks, "d"); !errors.Is(err, errUsage) || !strings.Contains(fmt.Sprint(err), "a, b, c") {
		t.Errorf("error %v, want one of usage that names the sinks", err)
	}
	if _, err := pickSink(nil, ""); err == nil || errors.Is(err, errUsage) {
		t.Errorf("error %v, want one, and not of usage", err)
	}
}
