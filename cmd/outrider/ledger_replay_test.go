package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent"
	"github.com/outrider-agent/outrider/metrics/metricstest"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/delivery"
	"github.com/outrider-agent/outrider/statesync/ledger"
	"github.com/outrider-agent/outrider/statesync/ledger/replay"
)

// buryLetters gives the sink archive a dead letter for each of some numbers of
// what writeLedger has written, and closes the ledger.
func buryLetters(t *testing.T, l *ledger.Ledger, numbers ...int64) {
	t.Helper()
	p := statesync.Progress{Sink: "archive"}
	for _, n := range numbers {
		read, err := l.Read(t.Context(), statesync.ReadQuery{After: n - 1, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 11, 22, 15, 4, 5, 0, time.UTC)
		read[0].PreviousSeq = n - 1
		p.Letters = append(p.Letters, statesync.DeadLetter{Delivery: read[0].Delivery, Tries: 3, First: at, Last: at, Error: "status 422, want 2xx"})
	}
	l.Save(p)
	if _, err := l.Cursor("archive"); err != nil { // which writes what is saved
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// reopen opens a ledger and runs it until the test ends.
func reopen(t *testing.T, dir string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(ledger.Options{Dir: dir, Log: slog.New(slog.DiscardHandler), Registry: metricstest.Registry(t), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ran, l.Close()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// TestTheVerbsWithoutAnAgent use the data directory themselves, and leave it as
// it was found.
func TestTheVerbsWithoutAnAgent(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	l, _ := writeLedger(t, dir, 1000)
	buryLetters(t, l, 7, 8, 9)
	config := filepath.Join(t.TempDir(), "outrider.yaml")
	if err := os.WriteFile(config, []byte("service: here\nstatesync: {kubeconfig: ./outrider.yaml, sinks: [{name: other, file: {path: ./other.ndjson}}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		args, want, err string
	}{
		{"deadletters --last 1", "3 archive load/Pod/a seq 9 Running>Queued\n    3 tries, last 2026-11-22 15:04:05Z: status 422, want 2xx\nthe last 1 of 3; all: --last 0\n", ""},
		{"replay --sink archive --dead-letters --state Failed", "found no dead letters to replay to sink archive\n", ""},
		{"replay --sink archive --dead-letters --dry-run", "found 3 dead letters to replay to sink archive; nothing was done\n", ""},
		{"replay --sink archive --dead-letters --id 2", "replayed 1 dead letter to sink archive: they are sent as fast as it takes them\n", ""},
		{"replay --sink archive --dead-letters", "replayed 2 dead letters to sink archive: they are sent as fast as it takes them\n", ""},
		{"deadletters", "no dead letters\n", ""},
		{"replay --sink archive --from 1 --to 200 --rate 0", "replayed 200 changes to sink archive: they are sent as fast as it takes them\n", ""},
		{"replay --sink archive --from 5000", "found no changes to replay to sink archive, up to its cursor at 1000\n", ""},
		{"replay --sink archive --since 1h --until 2026-11-22T00:00:00+99:00", "", "--until: got"},
		{"replay --sink none --from 1", "", "replay to sink none: refused: the ledger has no such sink"},
		{"sinks", "sink                                      acked        waiting      aside dead letters  configured\n" +
			"archive                                    1000            203        203            0  -\n", ""},
		{"attach archive", "", "attach sink archive: no agent answers in " + dir},
		{"forget archive --yes", "", "forget: no agent answers in " + dir + ", and got no configuration"},
		{"forget none --yes -c " + config, "", "forget sink none: refused: the ledger has no cursor of it"},
		{"forget other --yes -c " + config, "", "forget: got sink other, which " + config + " has"},
		{"forget archive --yes -c " + config, "sink archive: forgotten\n", ""},
		{"sinks", "no sinks: none was ever configured\n", ""},
	} {
		out, err := outrider(t, append(append([]string{"ledger"}, strings.Fields(step.args)...), "--dir", dir)...)
		if out != step.want || step.err == "" && err != nil || step.err != "" && (err == nil || !strings.Contains(err.Error(), step.err)) {
			t.Errorf("%s: got %q, error %v; want %q, error %q", step.args, out, err, step.want, step.err)
		}
	}
	if _, err := outrider(t, "ledger", "verify", filepath.Join(dir, ledger.File)); err != nil {
		t.Errorf("verify: %v", err)
	}
	held, err := agent.OpenDataDir(dir, "somebody")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := outrider(t, "ledger", "replay", "--sink", "archive", "--from", "1", "--dir", dir); err == nil || !strings.Contains(err.Error(), "is in use by pid") {
		t.Errorf("with somebody's directory: error %v", err)
	}
}

// TestAHeldLedgerIsCheckpointed, while it is held: else a long replay makes a
// write-ahead log as long.
func TestAHeldLedgerIsCheckpointed(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	l, _ := writeLedger(t, dir, 1000)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := (&ledgerPlace{}).holdLedger(dir, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}()
	size := func() int64 {
		info, err := os.Stat(filepath.Join(dir, ledger.File))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	before := size()
	if _, err := h.Replay(t.Context(), replay.Query{Sink: "archive", From: 1}, func(replay.Report) {}); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); size() == before; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("what was replayed stays in the write-ahead log")
		}
	}
}

// TestReplayThroughTheAgent asks it, and shows how far it is.
func TestReplayThroughTheAgent(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	l, _ := writeLedger(t, dir, 1000)
	buryLetters(t, l, 7, 8)
	l = reopen(t, dir)
	var attached []string
	c := startAgent(t, dir, map[string]http.Handler{
		"ledger/replay": replay.Handler(l, nil),
		"ledger/attach": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			attached = append(attached, r.FormValue("sink"))
			fmt.Fprintln(w, "sink "+r.FormValue("sink")+": attached")
		}),
		"ledger/forget": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			says := map[string]string{"old": "no", "older": "forget sink older: refused: no", "broken": ""}
			http.Error(w, says[r.FormValue("sink")], http.StatusConflict)
		}),
	})
	for _, step := range []struct{ args, want, err string }{
		{"replay --sink archive --dead-letters", "replayed 2 dead letters to sink archive: they are sent as fast as it takes them\n", ""},
		{"replay --sink archive --workload load/Pod/a --uid a --from 1 --to 100 --rate 1000/s", "replayed 100 changes to sink archive: they are sent as fast as it takes them\n", ""},
		{"replay --sink none --from 1", "", "replay to sink none: refused: the ledger has no such sink"},
		{"attach archive", "sink archive: attached\n", ""},
		{"forget old --yes", "", "forget sink old: no"},
		{"forget older --yes", "", "forget sink older: refused: no"},
		{"forget broken --yes", "", "forget sink broken: ask the agent: status 409, want 200: "},
	} {
		out, err := outrider(t, append(append([]string{"ledger"}, strings.Fields(step.args)...), "--dir", dir)...)
		if out != step.want || step.err == "" && err != nil || step.err != "" && (err == nil || !strings.Contains(err.Error(), step.err)) {
			t.Errorf("%s: got %q, error %v; want %q, error %q", step.args, out, err, step.want, step.err)
		}
		if len(c.asked) == 0 {
			t.Errorf("%s: the agent was not asked", step.args)
		}
	}
	if diff := cmp.Diff([]string{"archive"}, attached); diff != "" {
		t.Errorf("attached (-want +got):\n%s", diff)
	}
	out, err := outrider(t, "ledger", "replay", "--sink", "archive", "--from", "1", "--rate", "0", "--json", "--dir", dir)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var last replay.Report
	if failed := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || failed != nil || len(lines) < 2 || !last.Ended || last.Done != 1000 {
		t.Errorf("errors %v, %v; got %s, want some lines and 1000 done", err, failed, out)
	}
}

// TestAnInterruptedReplaySaysHowToGoOn interrupts at the first that is put
// aside, and goes on.
func TestAnInterruptedReplaySaysHowToGoOn(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	l, _ := writeLedger(t, dir, 1000)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = reopen(t, dir)
	startAgent(t, dir, map[string]http.Handler{"ledger/replay": replay.Handler(l, nil)})
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	root := rootCommand()
	root.SetArgs(strings.Fields("ledger replay --sink archive --from 1 --rate 40 --json --dir " + dir))
	out, in := io.Pipe()
	root.SetOut(in)
	ended := make(chan error, 1)
	go func() {
		ended <- root.ExecuteContext(ctx)
		_ = in.Close()
	}()
	var last replay.Report
	for d := json.NewDecoder(out); d.Decode(&last) == nil; {
		if last.Done > 0 {
			interrupt()
		}
	}
	err := <-ended
	want := fmt.Sprintf("interrupted: %d of 1000 changes replayed, up to number %d; go on with --from %d", last.Done, last.Last, last.Last+1)
	if err == nil || err.Error() != want || last.Done == 0 || last.Done > 100 {
		t.Errorf("error %v, want %q; the last line %+v", err, want, last)
	}
}

func TestReplayTellsPeople(t *testing.T) {
	t.Parallel()
	r := replay.Report{Sink: "s", Found: 1000, Done: 250, Last: 260, Seconds: 2.5}
	for want, got := range map[string]string{
		"replayed 250 of 1000 (25%), 100/s, 8s left":                                                      replayProgress(r, 0),
		"replayed 0 of 1000 (0%), 10s left":                                                               replayProgress(replay.Report{Found: 1000}, 100),
		"replayed 250 changes to sink s: they are sent as fast as it takes them; 750 have gone meanwhile": replayed(r),
		"no: 250 of 1000 changes replayed, up to number 260; go on with --from 261":                       replayEnded(r, errors.New("no"), false).Error(),
		"interrupted": replayEnded(replay.Report{Found: 9}, errors.New("no"), true).Error(),
		"no: 1 of 2 dead letters replayed; the rest are still dead letters: the same command goes on with them": replayEnded(
			replay.Report{Letters: true, Found: 2, Done: 1, Last: 5}, errors.New("no"), false).Error(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// taker is a sink that refuses some seqs as such until they are replayed.
type taker struct {
	mu     sync.Mutex
	refuse map[int64]bool
	got    []statesync.Delivery
	more   chan struct{} // gets one for each that came
}

func (s *taker) Deliver(_ context.Context, ds []statesync.Delivery) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		if s.refuse[d.Seq] && !d.Replayed {
			return &statesync.SinkError{Cause: "status_4xx", Rejected: true, Err: errors.New("status 422, want 2xx")}
		}
		if d.Mark == nil {
			s.got = append(s.got, d)
			s.more <- struct{}{}
		}
	}
	return nil
}

// TestAReplayIsDelivered has a real dispatcher deliver dead letters and changes
// that the command replays from a real ledger.
func TestAReplayIsDelivered(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	l, _ := writeLedger(t, dir, 20)
	buryLetters(t, l, 7)
	l = reopen(t, dir)
	cursor, err := l.Cursor("archive")
	if err != nil {
		t.Fatal(err)
	}
	sink := &taker{more: make(chan struct{}, 100), refuse: map[int64]bool{7: true}}
	d, err := delivery.New(delivery.Options{
		Name: "archive", Sink: sink, Source: l, Cursor: cursor, Registry: metricstest.Registry(t),
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- d.Run(ctx) }()
	startAgent(t, dir, map[string]http.Handler{"ledger/replay": replay.Handler(l, nil)})
	for _, args := range []string{"--dead-letters", "--from 9 --to 10"} {
		if _, err := outrider(t, strings.Fields("ledger replay --sink archive --dir "+dir+" "+args)...); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		select {
		case <-sink.more:
		case <-time.After(20 * time.Second):
			t.Fatal("what was replayed did not come")
		}
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	for i, want := range []int64{7, 9, 10} {
		got := sink.got[i]
		if got.Seq != want || got.Number != want || got.PreviousSeq != want-1 || !got.Replayed || got.Initial || got.ID == "" {
			t.Errorf("got %+v, want seq %d replayed", got, want)
		}
	}
}
