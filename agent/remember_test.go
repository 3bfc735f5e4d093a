package agent

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// A counter is a component that remembers a number.
type counter struct {
	part
	n       int
	refuses error
}

func (c *counter) Remember() (json.RawMessage, error) { return json.Marshal(c.n) }

func (c *counter) Restore(text json.RawMessage) error {
	if c.refuses != nil {
		return c.refuses
	}
	return json.Unmarshal(text, &c.n)
}

// runOnce runs an agent until its check has run.
func runOnce(t *testing.T, dir string, c *counter) *Agent {
	t.Helper()
	var runs atomic.Int64
	c.name = "counter"
	c.checks = []runner.Check{{Name: "db", Every: time.Minute, Run: func(context.Context) verdict.Result {
		runs.Add(1)
		return verdict.Result{Status: verdict.Fail, Message: "connection refused"}
	}}}
	a := newAgent(t, Options{DataDir: dir, Components: []Component{c}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	for deadline := time.After(20 * time.Second); a.runner.Digest(runner.Query{Category: "all"}).Failing == nil || runs.Load() == 0; {
		select {
		case <-deadline:
			t.Fatal("the check did not fail within 20 s")
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return a
}

func failsSince(a *Agent) time.Time {
	for _, c := range a.runner.Digest(runner.Query{Category: "all"}).Checks {
		if c.Name == "db" {
			return c.Since
		}
	}
	return time.Time{}
}

func TestVerdictsAndComponentsOutliveARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := runOnce(t, dir, &counter{n: 7})
	c := &counter{}
	second := runOnce(t, dir, c)
	if c.n != 7 {
		t.Errorf("the component remembers %d, want 7", c.n)
	}
	if a, b := failsSince(first), failsSince(second); a.IsZero() || !a.Equal(b) {
		t.Errorf("the check fails since %v, and after the restart since %v, want the same", a, b)
	}
	if info, err := os.Stat(filepath.Join(dir, memoryFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want a file that nobody else reads", info, err)
	}
}

func TestAMemoryThatCannotBeReadIsSetAside(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"noise":           "\x00\xff{",
		"cut off":         `{"version":1,"parts":{"counter":`,
		"another version": `{"version":9,"parts":{}}`,
		"too large":       strings.Repeat(" ", mostMemory) + "{}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, memoryFile), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			c := &counter{n: 3}
			runOnce(t, dir, c)
			if c.n != 3 {
				t.Errorf("the component has %d of it, want nothing taken", c.n)
			}
			if aside, err := os.ReadFile(filepath.Join(dir, memoryFile+".bad")); err != nil || string(aside) != text {
				t.Errorf("set aside: %.20q, %v; want what was there", aside, err)
			}
			again := &counter{}
			if runOnce(t, dir, again); again.n != 3 {
				t.Errorf("after another restart %d, want 3", again.n)
			}
		})
	}
}

func TestAComponentThatTakesNothingBeginsAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	runOnce(t, dir, &counter{n: 7})
	c := &counter{n: 1, refuses: errors.New("of another shape")}
	if runOnce(t, dir, c); c.n != 1 {
		t.Errorf("it has %d, want 1", c.n)
	}
}
