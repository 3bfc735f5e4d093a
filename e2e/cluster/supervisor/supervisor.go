// Package supervisor starts the components of a cluster as child processes and does to them what the verbs ask.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outrider-agent/outrider/e2e/cluster/component"
	"github.com/outrider-agent/outrider/e2e/cluster/pki"
	"github.com/outrider-agent/outrider/e2e/cluster/settings"
)

const (
	// stopPatience is how long a component may take to stop on a verb before it is killed, and downPatience when the whole cluster stops.
	stopPatience = 10 * time.Second
	downPatience = 4 * time.Second
	// forever ends a wait for a signal that cannot be ignored.
	forever = time.Hour
)

// A Supervisor owns the components of one cluster while it is up.
type Supervisor struct {
	dir       settings.Dir
	settings  settings.Settings
	out, errs io.Writer
	forker    *forker
	poller    *http.Client
	processes []*process

	// verbs lets one verb act at a time.
	verbs sync.Mutex
}

// Run brings up the cluster in dir and keeps it up until ctx ends; then it stops the components in order. Progress goes to out, and what went wrong with a component to errs.
func Run(ctx context.Context, dir settings.Dir, given settings.Settings, out, errs io.Writer) error {
	if err := dir.Create(); err != nil {
		return err
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(dir.Ready()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("start cluster: %w", err)
	}
	s, err := prepare(dir, given, out, errs)
	if err != nil {
		return err
	}
	defer s.forker.stop()
	stopServing, err := s.serve(ctx)
	if err != nil {
		return err
	}
	defer stopServing()
	err = s.up(ctx)
	if err == nil {
		<-ctx.Done()
	} else if ctx.Err() != nil {
		err = nil // stopped while it was starting
	}
	return errors.Join(err, s.down())
}

// prepare makes the files the components need.
func prepare(dir settings.Dir, given settings.Settings, out, errs io.Writer) (*Supervisor, error) {
	if err := given.Ports.Fill(); err != nil {
		return nil, err
	}
	if err := given.Save(dir); err != nil {
		return nil, err
	}
	files, err := pki.Ensure(dir.PKI(), time.Now())
	if err != nil {
		return nil, err
	}
	if err := pki.WriteAdminKubeconfig(dir.Kubeconfig(), files, given.Ports.APIServer); err != nil {
		return nil, err
	}
	if err := pki.WriteComponentKubeconfig(dir.ComponentKubeconfig(), files, given.Ports.APIServer); err != nil {
		return nil, err
	}
	poller, err := newPoller(dir.Kubeconfig())
	if err != nil {
		return nil, err
	}
	s := &Supervisor{dir: dir, settings: given, out: out, errs: errs, forker: newForker(), poller: poller}
	for _, name := range component.Names() {
		s.processes = append(s.processes, &process{name: name, dir: dir, state: Stopped})
	}
	return s, nil
}

// up starts all components and waits until the cluster can be used.
func (s *Supervisor) up(ctx context.Context) error {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	begin := time.Now()
	if err := s.startAll(ctx); err != nil {
		return err
	}
	if err := s.waitUsable(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(s.dir.Ready(), []byte(s.dir.Kubeconfig()+"\n"), 0o600); err != nil {
		return fmt.Errorf("start cluster: %w", err)
	}
	s.say("nodes ready %.1fs", time.Since(begin).Seconds())
	s.say("KUBECONFIG=%s", s.dir.Kubeconfig())
	s.say("ready")
	return nil
}

// startAll starts etcd, then the API server, then its clients at once.
func (s *Supervisor) startAll(ctx context.Context) error {
	for _, name := range []string{component.Etcd, component.APIServer} {
		if err := s.start(ctx, s.find(name)); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, name := range []string{component.ControllerManager, component.Scheduler, component.Kubelet} {
		group.Go(func() error { return s.start(ctx, s.find(name)) })
	}
	return group.Wait()
}

// down stops all components: first the API server's clients, then itself, then its store.
func (s *Supervisor) down() error {
	s.verbs.Lock()
	defer s.verbs.Unlock()
	_ = os.Remove(s.dir.Ready()) // its absence is no harm
	return s.stopAll(downPatience)
}

func (s *Supervisor) stopAll(patience time.Duration) error {
	var group errgroup.Group
	for _, name := range []string{component.Kubelet, component.Scheduler, component.ControllerManager} {
		group.Go(func() error { return s.stop(s.find(name), syscall.SIGTERM, patience) })
	}
	err := group.Wait()
	for _, name := range []string{component.APIServer, component.Etcd} {
		err = errors.Join(err, s.stop(s.find(name), syscall.SIGTERM, patience))
	}
	return err
}

// start starts the component and waits until it is ready.
func (s *Supervisor) start(ctx context.Context, p *process) error {
	begin := time.Now()
	if p.status(s.settings.Ports).State.Alive() {
		return fmt.Errorf("start %s: it is running already", p.name)
	}
	if err := s.forker.do(func() error { return p.start(s.died) }); err != nil {
		return err
	}
	if err := s.waitReady(ctx, p); err != nil {
		return err
	}
	s.say("%s ready %.1fs", p.name, time.Since(begin).Seconds())
	return nil
}

func (s *Supervisor) stop(p *process, signal syscall.Signal, patience time.Duration) error {
	if !p.status(s.settings.Ports).State.Alive() {
		return nil
	}
	begin := time.Now()
	killed, err := p.stop(signal, patience)
	if err != nil {
		return err
	}
	how := "stopped"
	if killed || signal == syscall.SIGKILL {
		how = "killed"
	}
	s.say("%s %s %.1fs", p.name, how, time.Since(begin).Seconds())
	return nil
}

// died reports a component that ended by itself. It stays down: a test that did not ask for that must not miss it.
func (s *Supervisor) died(name, end string) {
	fmt.Fprintf(s.errs, "devcluster: %s died: %s; see %s; start it again with: devcluster start --dir %s %s\n", name, end, s.dir.Log(name), s.dir, name)
}

func (s *Supervisor) say(format string, args ...any) {
	fmt.Fprintf(s.out, format+"\n", args...)
}

func (s *Supervisor) find(name string) *process {
	at := slices.IndexFunc(s.processes, func(p *process) bool { return p.name == name })
	return s.processes[at]
}

// lock takes the directory for this process.
func lock(dir settings.Dir) (unlock func(), err error) {
	file, err := os.OpenFile(dir.Lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("start cluster in %s: one is running there already; see: devcluster status --dir %s", dir, dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { _ = file.Close() }, nil
}
