package checks

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/outrider-agent/outrider/checks/nagios"
)

// How a program is run.
//
// It leads a process group of its own, so that its children can be killed with it;
// they are, at the deadline and when it ended. A program that does not end even so
// is left to a goroutine that waits for it, and Check returns without it.
//
// Its output goes through pipes that are read here, not by os/exec: a child that
// left the group may hold them open for ever, and exec's Wait would wait for the
// program itself whatever its WaitDelay is.

const (
	// settle is how long a killed program has to end, and the output of an ended one
	// to be read.
	settle = 200 * time.Millisecond

	maxExecErrors = 4 << 10 // bytes that are kept of standard error: one line is shown
)

// A running is one run of a program.
type running struct {
	pid       int
	kill      func(group int)
	out, errs *capture

	ended chan struct{} // state and err are there
	gone  chan struct{} // so are its children
	state *os.ProcessState
	err   error // why the state is not known
}

func (e *execCheck) start() (*running, error) {
	out, outW, err := newCapture(int(e.maxOutput()))
	if err != nil {
		return nil, err
	}
	errs, errsW, err := newCapture(maxExecErrors)
	if err != nil {
		out.from.Close()
		outW.Close()
		return nil, err
	}
	cmd := exec.Command(e.path, e.Command[1:]...)
	cmd.Args[0] = e.Command[0]
	cmd.Env, cmd.Dir = e.env, cmp.Or(string(e.Dir), "/")
	cmd.Stdout, cmd.Stderr = outW, errsW
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	outW.Close()
	errsW.Close()
	if err != nil {
		out.from.Close()
		errs.from.Close()
		return nil, fmt.Errorf("start: %w", err)
	}
	p := &running{
		pid: cmd.Process.Pid, kill: e.kill, out: out, errs: errs,
		ended: make(chan struct{}), gone: make(chan struct{}),
	}
	go out.read()
	go errs.read()
	go p.bury(cmd)
	return p, nil
}

// bury waits for the program, then ends what it started and left behind.
func (p *running) bury(cmd *exec.Cmd) {
	defer close(p.gone)
	err := cmd.Wait()
	if p.state = cmd.ProcessState; p.state == nil {
		p.err = fmt.Errorf("wait for process %d: %w", p.pid, err)
	}
	close(p.ended)
	// The kernel gives a number away again only when nobody is in the group of that
	// number, and when it has gone through all the others.
	p.kill(p.pid)
	// Where the agent is process 1, as in a container, orphans become its children,
	// and would stay as zombies. Elsewhere it has none in the group.
	for {
		_, err := syscall.Wait4(-p.pid, nil, 0, nil)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

// wait waits until the program ended, or until ctx did, which ends the program. It
// reports whether that was what ended it. After it the output is complete, or as
// complete as it will be.
func (p *running) wait(ctx context.Context) (killed bool) {
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.kill(p.pid)
		within(settle, p.ended)
		killed = !closed(p.ended) || p.err == nil && p.signal() != ""
	}
	within(settle, p.out.done, p.errs.done, p.gone)
	p.out.stop()
	p.errs.stop()
	return killed
}

// within waits for all channels to be closed, at most for that time.
func within(most time.Duration, all ...chan struct{}) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for _, one := range all {
		select {
		case <-one:
		case <-timer.C:
			return
		}
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// signal names the signal that ended the program; "": none did.
func (p *running) signal() string {
	status, ok := p.state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return ""
	}
	if status.CoreDump() {
		return status.Signal().String() + ", core dumped"
	}
	return status.Signal().String()
}

// output is what the program printed, and its text: what it wrote to standard error
// if it printed nothing.
func (p *running) output() (o nagios.Output, text string) {
	printed := bytes.TrimSpace(p.out.kept.Bytes())
	if len(printed) > 0 {
		o = nagios.ParseOutput(printed)
		return o, o.Text
	}
	first, _, _ := strings.Cut(strings.TrimSpace(p.errs.kept.String()), "\n")
	return o, first
}

// killGroup kills a program and its children. That nobody is left to be killed is
// no error; and nothing is done about one who may not be.
func killGroup(group int) {
	_ = syscall.Kill(-group, syscall.SIGKILL)
}

// A capture keeps the beginning of what comes through a pipe, and throws away the
// rest, so that the writer does not wait.
type capture struct {
	from *os.File
	most int

	done    chan struct{} // what is below is there, and changes no more
	kept    bytes.Buffer
	dropped int64
	err     error
}

func newCapture(most int) (*capture, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	return &capture{from: r, most: most, done: make(chan struct{})}, w, nil
}

func (c *capture) read() {
	defer close(c.done)
	if _, err := io.Copy(c, c.from); !errors.Is(err, os.ErrClosed) {
		c.err = err
	}
}

// Write implements [io.Writer].
func (c *capture) Write(b []byte) (int, error) {
	room := max(0, min(len(b), c.most-c.kept.Len()))
	c.kept.Write(b[:room])
	c.dropped += int64(len(b) - room)
	return len(b), nil
}

// stop ends the reading: nobody that has the other end is waited for.
func (c *capture) stop() {
	c.from.Close()
	<-c.done
}
