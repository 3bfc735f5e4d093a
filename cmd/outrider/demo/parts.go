package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A group is what runs beside the agent, until it is stopped.
type group struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed chan<- error
}

func newGroup(ctx context.Context, failed chan<- error) (*group, func()) {
	g := &group{failed: failed}
	g.ctx, g.cancel = context.WithCancel(ctx)
	return g, g.stop
}

// run runs a part. An error of it is told once.
func (g *group) run(part func(ctx context.Context) error) {
	g.wg.Go(func() {
		if err := part(g.ctx); err != nil && g.ctx.Err() == nil {
			select {
			case g.failed <- err:
			default: // another one has been told
			}
		}
	})
}

// stop stops the parts and waits for them. It may be called again.
func (g *group) stop() {
	g.cancel()
	g.wg.Wait()
}

// An agent runs, in this process or in one of its own.
type agent interface {
	// observe notes what memory it has now, in bytes.
	observe(memory int64)
	// ended gives the error with which it ended, once, and is closed.
	ended() <-chan error
	// stop stops it; soon, when it must not take its time. It returns the most
	// memory that it had and the processor time that it took, in seconds.
	stop(soon bool) (memory int64, cpu float64, err error)
}

func patience(soon bool) time.Duration {
	if soon {
		return lastPatience
	}
	return stopPatience
}

// inside is an agent in this process: its figures are the whole process's.
type inside struct {
	cancel context.CancelFunc
	done   chan error
	most   int64
}

func startInside(ctx context.Context, run func(ctx context.Context, config string) error, config string) *inside {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a := &inside{cancel: cancel, done: make(chan error, 1)}
	go func() {
		defer close(a.done)
		a.done <- run(ctx, config)
	}()
	return a
}

func (a *inside) observe(memory int64) { a.most = max(a.most, memory) }
func (a *inside) ended() <-chan error  { return a.done }

func (a *inside) stop(soon bool) (int64, float64, error) {
	a.cancel()
	var err error
	select {
	case err = <-a.done:
	case <-time.After(patience(soon)):
		if !soon { // else it ends with the process
			err = fmt.Errorf("it did not stop within %s", stopPatience)
		}
	}
	var u syscall.Rusage
	if failure := syscall.Getrusage(syscall.RUSAGE_SELF, &u); failure != nil {
		return a.most, 0, errors.Join(err, fmt.Errorf("read what was used: %w", failure))
	}
	return max(a.most, peakMemory(os.Getpid(), &u)), processorTime(&u), err
}

// A child is a program of its own. It is no part of the terminal's foreground,
// so that Ctrl-C is this process's alone.
type child struct {
	cmd  *exec.Cmd
	done chan error
	most int64
}

func startChild(self string, args []string, stderr io.Writer) (*child, error) {
	c := newChild(self, args)
	c.cmd.Stderr = stderr
	return c, c.start()
}

func newChild(self string, args []string) *child {
	c := &child{cmd: exec.Command(self, args...)}
	c.cmd.Args[0] = "outrider" // whatever the file is called
	return c
}

func (c *child) start() error {
	c.cmd.SysProcAttr = attributes()
	c.done = make(chan error, 1)
	started := make(chan error)
	go func() {
		// A child that dies with its parent dies with the thread that started
		// it: so that stays.
		runtime.LockOSThread()
		defer close(c.done)
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.done <- c.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s %s: %w", c.cmd.Path, strings.Join(c.cmd.Args[1:2], " "), err)
	}
	return nil
}

func (c *child) observe(memory int64) { c.most = max(c.most, memory) }
func (c *child) ended() <-chan error  { return c.done }

func (c *child) stop(soon bool) (int64, float64, error) {
	c.most = max(c.most, peakMemory(c.cmd.Process.Pid, nil))
	err := c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err = <-c.done:
	case <-time.After(patience(soon)):
		_ = c.cmd.Process.Kill()
		for range c.done { // that it was killed
		}
		if err == nil && !soon {
			err = fmt.Errorf("it did not stop within %s", stopPatience)
		}
	}
	state := c.cmd.ProcessState
	if state == nil {
		return c.most, 0, err
	}
	if u, ok := state.SysUsage().(*syscall.Rusage); ok && c.most == 0 {
		c.most = maxResident(u)
	}
	return c.most, (state.UserTime() + state.SystemTime()).Seconds(), err
}

// An endedError is that a part has ended that was not told to. What else went
// wrong comes of it.
type endedError struct {
	part string
	err  error // nil: without one
}

func hasEnded(part string, err error) error { return &endedError{part: part, err: err} }

func (e *endedError) Error() string {
	if e.err == nil {
		return e.part + " has ended by itself, without an error"
	}
	return e.part + " has ended: " + e.err.Error()
}

func (e *endedError) Unwrap() error { return e.err }

// startRemote starts a simulated cluster as a process of its own. Once
// interrupted ends, it has to answer soon.
func startRemote(interrupted context.Context, self, folder string, l Load, stderr io.Writer, parts *group) (*remote, error) {
	c := newChild(self, append([]string{"simulate", "--control", "--dir", folder}, l.args()...))
	c.cmd.Stderr = stderr
	orders, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("simulated cluster: %w", err)
	}
	answers, into, err := os.Pipe() // one that Wait does not close before all is read
	if err != nil {
		return nil, fmt.Errorf("simulated cluster: %w", err)
	}
	c.cmd.Stdout = into
	err = c.start()
	into.Close()
	if err != nil {
		answers.Close()
		return nil, err
	}
	r, err := newRemote(answers, orders)
	if err != nil {
		answers.Close()
		_, _, ended := c.stop(true)
		return nil, errors.Join(err, ended)
	}
	parts.run(r.run)
	parts.run(func(ctx context.Context) error {
		defer answers.Close()
		defer orders.Close()
		return c.attend(ctx, interrupted, hangPatience)
	})
	return r, nil
}

// attend waits until ctx ends, and stops the child; or until the child ends,
// which is an error. One that still runs so long after the run was interrupted
// keeps the rest from going on, and is killed.
func (c *child) attend(ctx, interrupted context.Context, hangs time.Duration) error {
	over, hung := interrupted.Done(), (<-chan time.Time)(nil)
	for {
		select {
		case err := <-c.done:
			return hasEnded("the simulated cluster", err)
		case <-over:
			over, hung = nil, time.After(hangs)
		case <-hung:
			_ = c.cmd.Process.Kill()
			for range c.done { // that it was killed
			}
			return hasEnded("the simulated cluster", fmt.Errorf("it did not end within %s, and was killed", hangs))
		case <-ctx.Done():
			_, _, err := c.stop(true)
			return err
		}
	}
}

func processorTime(u *syscall.Rusage) float64 {
	return (time.Duration(u.Utime.Nano()) + time.Duration(u.Stime.Nano())).Seconds()
}

// peakMemory is the most memory that a running process had, in bytes: by
// /proc, where there is one, or else by u; 0: not known.
func peakMemory(pid int, u *syscall.Rusage) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
				if err == nil {
					return kib << 10
				}
			}
		}
	}
	if u == nil {
		return 0
	}
	return maxResident(u)
}

// maxResident is the most memory in bytes; only macOS counts it so.
func maxResident(u *syscall.Rusage) int64 {
	if runtime.GOOS == "darwin" || runtime.GOOS == "ios" {
		return int64(u.Maxrss) //nolint:unconvert // its type differs from system to system
	}
	return int64(u.Maxrss) << 10 //nolint:unconvert // likewise
}
