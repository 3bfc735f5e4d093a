package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/outrider-agent/outrider/e2e/cluster/component"
	"github.com/outrider-agent/outrider/e2e/cluster/settings"
)

// A process is one component's process, running or not.
type process struct {
	name string
	dir  settings.Dir

	mu      sync.Mutex
	state   State
	command *exec.Cmd
	// done is closed when the present run has ended and its end is recorded.
	done chan struct{}
	// asked is set before we end the run ourselves.
	asked bool
	end   string
}

// start starts a run. It must be called on a thread that lives as long as the process: Linux delivers the parent-death signal when the thread that forked ends.
func (p *process) start(died func(name, end string)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	log, err := os.OpenFile(p.dir.Log(p.name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	defer log.Close()
	command := &exec.Cmd{
		// Not the path: the binary may have been replaced meanwhile, and a cluster is to stay of one version.
		Path:   "/proc/self/exe",
		Args:   []string{component.Program(p.name), "component", p.name, "--dir", string(p.dir)},
		Env:    environment(),
		Stdout: log,
		Stderr: log,
		SysProcAttr: &syscall.SysProcAttr{
			// A terminal's Ctrl-C is for the supervisor, which stops its children in order.
			Setpgid:   true,
			Pdeathsig: syscall.SIGKILL,
		},
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.command, p.state, p.asked, p.end = command, Starting, false, ""
	p.done = make(chan struct{})
	go p.reap(command, p.done, died)
	return nil
}

// environment is ours, with a collector that runs less often unless the user has set it: on two cores it takes a fifth of the API server's time otherwise.
func environment() []string {
	env := os.Environ()
	if os.Getenv("GOGC") == "" {
		env = append(env, "GOGC=200")
	}
	return env
}

// reap waits for the end of a run.
func (p *process) reap(command *exec.Cmd, done chan struct{}, died func(name, end string)) {
	_ = command.Wait() // the process state tells more than the error
	p.mu.Lock()
	p.end = command.ProcessState.String()
	asked := p.asked
	p.state = Died
	if asked {
		p.state = Stopped
	}
	p.mu.Unlock()
	close(done)
	if !asked {
		died(p.name, command.ProcessState.String())
	}
}

// stop ends the run with the signal, and with SIGKILL after patience. It reports whether it came to that.
func (p *process) stop(signal syscall.Signal, patience time.Duration) (killed bool, err error) {
	p.mu.Lock()
	if !p.state.Alive() {
		p.mu.Unlock()
		return false, nil
	}
	p.asked = true
	done := p.done
	err = p.command.Process.Signal(signal)
	p.mu.Unlock()
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return false, fmt.Errorf("stop %s: %w", p.name, err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return false, nil
	case <-timer.C:
	}
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return true, fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-done
	return true, nil
}

// ended is closed when the present run has ended.
func (p *process) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// markReady records that the run answers, if it still runs.
func (p *process) markReady() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == Starting {
		p.state = Running
	}
}

func (p *process) status(ports settings.Ports) Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	status := Status{Name: p.name, State: p.state, Port: component.Port(p.name, ports), Log: p.dir.Log(p.name), End: p.end}
	if p.state.Alive() {
		status.PID = p.command.Process.Pid
	}
	return status
}

// A forker runs functions on one thread, which it keeps until stopped.
type forker struct {
	work chan func()
}

func newForker() *forker {
	f := &forker{work: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for do := range f.work {
			do()
		}
	}()
	return f
}

// do runs the function and waits for it.
func (f *forker) do(function func() error) error {
	result := make(chan error, 1)
	f.work <- func() { result <- function() }
	return <-result
}

// stop ends the thread, and with it every child that is still there.
func (f *forker) stop() { close(f.work) }
