package demo

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

const shellMemory = 100 << 10 // at least, once it runs

func TestAChildIsStoppedAndMeasured(t *testing.T) {
	c, err := startChild("/bin/sh", []string{"-c", "trap 'exit 0' TERM; while :; do sleep 0.01; done"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	c.observe(1)
	for deadline := time.Now().Add(20 * time.Second); peakMemory(c.cmd.Process.Pid, nil) < shellMemory && time.Now().Before(deadline); {
		select { // it has a process, and no program yet
		case err := <-c.ended():
			t.Fatalf("it has ended: %v", err)
		default:
		}
	}
	memory, _, err := c.stop(false)
	if err != nil && !strings.Contains(err.Error(), "signal: terminated") { // it may not have set its trap yet
		t.Error(err)
	}
	if memory < shellMemory {
		t.Errorf("memory %d, want what a shell has", memory)
	}
}

func TestAChildThatDoesNotStopIsKilled(t *testing.T) {
	out, in := io.Pipe()
	c, err := startChild("/bin/sh", []string{"-c", "trap '' TERM; echo ready >&2; while :; do sleep 0.1; done"}, in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, _, err := c.stop(true); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < lastPatience || took > 20*lastPatience {
		t.Errorf("it took %s, want about %s", took, lastPatience)
	}
	if state := c.cmd.ProcessState; state == nil || !strings.Contains(state.String(), "killed") {
		t.Errorf("it is %v, want it killed", state)
	}
}

func TestAChildThatEndsByItself(t *testing.T) {
	c, err := startChild("/bin/sh", []string{"-c", "exit 3"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-c.ended(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("it ended with %v, want exit status 3", err)
	}
	began := time.Now()
	if _, _, err := c.stop(false); err != nil {
		t.Errorf("stop: %v, want nothing more", err)
	}
	if took := time.Since(began); took > stopPatience/2 {
		t.Errorf("stop took %s of what had ended", took)
	}
	if _, err := startChild("/no/such/program", []string{"run"}, io.Discard); err == nil || !strings.Contains(err.Error(), "start /no/such/program run:") {
		t.Errorf("got %v, want an error that says what was started", err)
	}
}

// attended starts a shell that is attended to, once it has said that it is
// there.
func attended(ctx, interrupted context.Context, t *testing.T, script string, hangs time.Duration) (*child, <-chan error) {
	t.Helper()
	out, in := io.Pipe()
	c, err := startChild("/bin/sh", []string{"-c", script}, in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.attend(ctx, interrupted, hangs) }()
	return c, ended
}

func TestAClusterThatHangsIsKilled(t *testing.T) {
	interrupted, interrupt := context.WithCancel(t.Context())
	c, ended := attended(t.Context(), interrupted, t, "trap '' TERM; echo ready >&2; while :; do sleep 0.1; done", 10*time.Millisecond)
	select {
	case err := <-ended:
		t.Fatalf("it was not to end yet: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	interrupt()
	err := <-ended
	if _, ok := errors.AsType[*endedError](err); !ok || !strings.Contains(err.Error(), "did not end within 10ms, and was killed") {
		t.Errorf("got %v, want that it was killed", err)
	}
	if state := c.cmd.ProcessState; state == nil || !strings.Contains(state.String(), "killed") {
		t.Errorf("it is %v, want it killed", state)
	}
}

func TestAClusterThatEndsByItself(t *testing.T) {
	_, ended := attended(t.Context(), t.Context(), t, "echo ready >&2; exit 3", time.Hour)
	if err := <-ended; err == nil || err.Error() != "the simulated cluster has ended: exit status 3" {
		t.Errorf("got %v, want exit status 3", err)
	}
}

func TestAClusterThatIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, ended := attended(ctx, t.Context(), t, "trap 'exit 0' TERM; echo ready >&2; while :; do sleep 0.01; done", time.Hour)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v, want nothing", err)
	}
}

func TestAnAgentInside(t *testing.T) {
	broken := errors.New("broken")
	a := startInside(t.Context(), func(ctx context.Context, config string) error {
		<-ctx.Done()
		return errors.Join(broken, errors.New(config))
	}, "a.yaml")
	a.observe(1 << 50)
	memory, cpu, err := a.stop(false)
	if memory != 1<<50 || cpu <= 0 || !errors.Is(err, broken) || !strings.Contains(err.Error(), "a.yaml") {
		t.Errorf("got %d, %v, %v", memory, cpu, err)
	}
}

func TestAGroupTellsTheFirstErrorAlone(t *testing.T) {
	failed := make(chan error, 1)
	g, stop := newGroup(t.Context(), failed)
	broken := errors.New("broken")
	g.run(func(context.Context) error { return broken })
	if err := <-failed; !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	g.run(func(ctx context.Context) error { <-ctx.Done(); return broken })
	stop()
	select {
	case err := <-failed:
		t.Errorf("after the stop: %v, want nothing", err)
	default:
	}
}
