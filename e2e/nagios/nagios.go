// Package nagios runs a real Nagios for tests.
package nagios

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Options say what to run, and on what.
type Options struct {
	Command string            // path of nagios4
	Plugins map[string]string // names in $USER1$, to what they are links to
	Files   map[string][]byte // of objects, by their names: what deploy/nagios ships
	Hosts   []Host            // with an agent each
	Site    string            // more objects, in the words of Nagios

	// Interval is interval_length: seconds that Nagios takes for a minute; default 1.
	Interval int

	// Silent keeps Nagios from telling anybody.
	Silent bool
}

// A Host is what Nagios polls: an address on this machine.
type Host struct {
	Name, Port string
	Args       string // further arguments of check_digest; null is none
	More       string // further directives, a line each
}

// A Nagios is one run of it. It ends with the test.
type Nagios struct {
	dir   string
	cmd   *exec.Cmd
	said  bytes.Buffer  // what it printed; for reading once it has ended
	ended chan struct{} // closed then
	stop  func()
}

// Start runs Nagios until the test ends.
func Start(t testing.TB, o Options) *Nagios {
	t.Helper()
	n := &Nagios{dir: configure(t, o), ended: make(chan struct{})}
	n.cmd = exec.Command(o.Command, filepath.Join(n.dir, mainFile))
	n.cmd.Dir, n.cmd.Stdout, n.cmd.Stderr = n.dir, &n.said, &n.said
	n.cmd.WaitDelay = 5 * time.Second
	n.stop = sync.OnceFunc(func() { n.end(t) })
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = n.cmd.Wait() // a signal ends it
		close(n.ended)
	}()
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("Nagios printed last:\n%s\nand its log ends:\n%s", last(n.said.String(), 30), last(n.Log(), 60))
		}
	})
	return n
}

// Verify has Nagios read the same, and returns what it says of it, and whether that
// will do.
func Verify(t testing.TB, o Options) (says string, ok bool) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), o.Command, "-v", filepath.Join(configure(t, o), mainFile)).CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return string(out), err == nil
}

// Stop ends Nagios before the test does: its log is complete then.
func (n *Nagios) Stop() { n.stop() }

// end asks Nagios to end, and if that does not help makes it.
func (n *Nagios) end(t testing.TB) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = n.cmd.Process.Signal(s) // it may have ended
		select {
		case <-n.ended:
			return
		case <-time.After(15 * time.Second):
			t.Errorf("Nagios did not end in 15 s of %v", s)
		}
	}
}

// Log is all that it has logged so far.
func (n *Nagios) Log() string { return n.read("nagios.log") }

// read returns a file of Nagios; one that is not there yet is empty.
func (n *Nagios) read(file string) string {
	text, err := os.ReadFile(filepath.Join(n.dir, file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err.Error() // nothing that a test waits for
	}
	return string(text)
}

func last(text string, n int) string {
	lines := slices.Collect(strings.Lines(text))
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// patience is how long a test waits for Nagios, at most.
const patience = time.Minute

// waitFor waits until it is so.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}
