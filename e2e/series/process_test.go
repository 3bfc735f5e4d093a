package series

import (
	"context"
	"io"
	"net"
	"net/http"
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

// A process is one run of a command.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd

	mu  sync.Mutex
	out strings.Builder

	ended chan struct{} // closed when the process has ended
	err   error         // how; to be read once ended is closed
}

// Write collects what the process prints.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// start runs a command in dir until the test ends, or until stop.
func start(t *testing.T, dir, command string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: filepath.Base(command), cmd: exec.Command(command, args...), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, p, p
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "DD_") }) // would add tags
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}                                    // also if the tests are killed
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
		if t.Failed() {
			lines := slices.Collect(strings.Lines(p.printed()))
			t.Logf("%s printed %d lines, and last:\n%s", p.name, len(lines), strings.Join(lines[max(0, len(lines)-30):], ""))
		}
	})
	return p
}

// running fails the test if the process has ended.
func (p *process) running() {
	p.t.Helper()
	select {
	case <-p.ended:
		p.t.Fatalf("%s ended with %v", p.name, p.err)
	default:
	}
}

// stop sends SIGTERM and wants a clean end.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatalf("stop %s: %v", p.name, err)
	}
	select {
	case <-p.ended:
		if p.err != nil {
			p.t.Errorf("%s ended with %v, want a clean end", p.name, p.err)
		}
	case <-time.After(20 * time.Second):
		p.t.Fatalf("%s did not stop in 20 s", p.name)
	}
}

// freeAddress is one that nobody listened on a moment ago, on loopback.
func freeAddress(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen(network, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// get reads a page; the status is 0 when nobody answers.
func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// page is get of a page that must be there.
func page(t *testing.T, url string) string {
	t.Helper()
	status, body := get(t, url)
	if status != http.StatusOK {
		t.Fatalf("%s: status %d, want 200: %s", url, status, body)
	}
	return body
}

// patience is how long to wait for what takes a second or two on an idle machine.
const patience = 40 * time.Second

func waitFor(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	if !becomes(t, limit, done) {
		t.Fatalf("waited %s for %s", limit, what)
	}
}

// becomes waits until done, and reports whether it was in time.
func becomes(t *testing.T, limit time.Duration, done func() bool) bool {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
