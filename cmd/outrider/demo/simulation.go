package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync/simcluster"
	"github.com/outrider-agent/outrider/statesync/simcluster/scenario"
)

// A Load is what a scenario puts on a simulated cluster.
type Load struct {
	Rate      float64 // changes of workloads a second
	Daily     bool    // the rate follows the hours of a day, which lasts two minutes
	Workloads int     // that are there at the beginning
	Spikes    []scenario.Spike
	SpikeText []string // as it was given
	Seed      uint64
	Script    string // of faults; empty: none
	Faults    string // its file
}

// args are the flags that give the same load.
func (l Load) args() []string {
	args := []string{
		"--rate", strconv.FormatFloat(l.Rate, 'g', -1, 64), "--workloads", strconv.Itoa(l.Workloads),
		"--seed", strconv.FormatUint(l.Seed, 10),
	}
	if l.Daily {
		args = append(args, "--daily")
	}
	for _, s := range l.SpikeText {
		args = append(args, "--spike", s)
	}
	if l.Faults != "" {
		args = append(args, "--faults", l.Faults)
	}
	return args
}

// history is how many events the cluster keeps of each resource: those of five
// minutes, as a real one does, and of the spikes. One change takes a few.
func (l Load) history() int {
	const least, most, each = 100_000, 3_000_000, 4
	changes := 5 * 60 * l.Rate
	for _, s := range l.Spikes {
		changes += s.Rate * min(s.For.Seconds(), 5*60)
	}
	return int(max(least, min(most, each*changes)))
}

// A Place is where a simulated cluster is.
type Place struct {
	Folder  string // of its kubeconfig
	Address string // host:port; empty: any port on loopback
	Log     *slog.Logger
}

// Figures are how a simulated cluster stands.
type Figures struct {
	Offered  int64                     `json:"offered"` // changes that must be told
	Initial  int64                     `json:"initial"` // of them, those from before the scenario began
	Matched  int64                     `json:"matched"` // of them, those that were
	Asked    float64                   `json:"asked"`   // changes a second, by the plan
	Achieved float64                   `json:"achieved"`
	Live     int64                     `json:"live"` // objects
	Behind   int64                     `json:"behind"`
	Requests int64                     `json:"requests"`
	Watches  int64                     `json:"watches"`
	Sent     int64                     `json:"sent"` // events
	Latency  metrics.HistogramSnapshot `json:"latency"`
}

// since is what was measured after before.
func (f Figures) since(before Figures) metrics.HistogramSnapshot {
	return f.Latency.Sub(before.Latency)
}

// A Verdict is what came of it all.
type Verdict struct {
	Offered int64                     `json:"offered"`
	Initial int64                     `json:"initial"`
	Lost    int64                     `json:"lost"`
	Unseen  int64                     `json:"unseen"` // not told, and known to nobody who watches
	Extra   int64                     `json:"extra"`  // told, and not to be
	Due     int64                     `json:"due"`    // gaps that had to be told
	First   []string                  `json:"first"`  // what is missing or extra, a few of it
	Latency metrics.HistogramSnapshot `json:"latency"`
	Longest int64                     `json:"longest"` // nanoseconds

	Answers map[string]int64 `json:"answers"` // how many requests were answered how, by verb and code
}

// measured is what can be said of a run by who has written the changes.
type measured struct {
	metrics.HistogramSnapshot               // latencies
	longest                   time.Duration // of them
	unseen, due               int64
	answers                   map[string]int64
}

func (v Verdict) latency() measured {
	return measured{
		HistogramSnapshot: v.Latency, longest: time.Duration(v.Longest),
		unseen: v.Unseen, due: v.Due, answers: v.Answers,
	}
}

// A Simulation is a simulated cluster with a scenario, in this process.
type Simulation struct {
	cluster  *simcluster.Cluster
	server   *simcluster.Server
	scenario *scenario.Scenario
	script   *simcluster.Script
	begin    chan struct{} // closed when the scenario is to begin
	stopping context.CancelFunc
	stopped  context.Context // ends when the scenario is to stop
	ended    chan struct{}   // closed once it has
	initial  int64           // what must be told of the beginning

	mu    sync.Mutex // guards what follows
	judge *judge
	track track
	ran   bool
}

// NewSimulation makes a cluster and what is there at the beginning, and
// listens. Run serves it.
func NewSimulation(l Load, p Place) (*Simulation, error) {
	// Of the first two there is nothing, but an agent asks for what pods may be of.
	cluster := simcluster.New(simcluster.Options{History: l.history()}, simcluster.StatefulSets(), simcluster.DaemonSets(), simcluster.Namespaces())
	sc, err := scenario.New(cluster, scenario.Options{Seed: l.Seed, Rate: l.Rate, Daily: l.Daily, Workloads: l.Workloads, Spikes: l.Spikes})
	if err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	s := &Simulation{cluster: cluster, scenario: sc, begin: make(chan struct{}), judge: newJudge(sc.Truth())}
	s.initial = int64(sc.Truth().Compare(func(string) []string { return nil }).Offered)
	if s.script, err = simcluster.Parse(l.Script); err == nil {
		err = s.script.Check(cluster)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmp.Or(l.Faults, "faults"), err)
	}
	s.server, err = simcluster.NewServer(cluster, simcluster.ServerOptions{Addr: p.Address, Dir: p.Folder, Logger: p.Log})
	if err != nil {
		return nil, fmt.Errorf("simulated cluster: %w", err)
	}
	s.stopped, s.stopping = context.WithCancel(context.Background())
	s.ended = make(chan struct{})
	return s, nil
}

// Kubeconfig is the path of a file that says how to reach the cluster.
func (s *Simulation) Kubeconfig() string { return s.server.Kubeconfig() }

// Address is where the cluster listens.
func (s *Simulation) Address() string { return s.server.Addr() }

// Run serves the cluster until ctx ends. The scenario runs from [Begin] until
// [End].
func (s *Simulation) Run(ctx context.Context) error {
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return s.server.Run(ctx) })
	parts.Go(func() error { return s.play(ctx) })
	if len(s.script.Steps) > 0 {
		parts.Go(func() error { return s.keepTrack(ctx) })
	}
	return parts.Wait()
}

// keepTrack notes how far the cluster is, for when its history is gone.
func (s *Simulation) keepTrack(ctx context.Context) error {
	tick := time.NewTicker(trackEvery)
	defer tick.Stop()
	for {
		at := time.Now()
		version := s.cluster.Now()
		s.mu.Lock()
		s.track.note(at, version)
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// play runs the scenario and the script of faults.
func (s *Simulation) play(ctx context.Context) error {
	defer close(s.ended)
	select {
	case <-s.begin:
	case <-s.stopped.Done():
		return nil
	case <-ctx.Done():
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.stopped, cancel)()
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return s.server.Faults().Run(ctx, s.script) })
	both.Go(func() error { return s.scenario.Run(ctx) })
	return both.Wait()
}

// Begin has the scenario begin.
func (s *Simulation) Begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ran {
		return errors.New("begin: it has begun before")
	}
	s.ran = true
	close(s.begin)
	return nil
}

// Told says what the receiver took.
func (s *Simulation) Told(changes []Told) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judge.take(changes)
}

// Figures says how the cluster stands. Offered is not older than Matched.
func (s *Simulation) Figures() (Figures, error) {
	s.mu.Lock()
	matched, latency := s.judge.matched, s.judge.latency.Snapshot()
	s.mu.Unlock()
	sc, server := s.scenario.Figures(), s.server.Stats()
	f := Figures{
		Offered: s.initial + sc.Offered, Initial: s.initial, Matched: matched, Latency: latency,
		Asked: sc.Asked, Achieved: sc.Achieved, Behind: sc.Behind, Watches: int64(server.Watches), Sent: server.Events,
	}
	for _, n := range sc.Live {
		f.Live += int64(n)
	}
	for _, r := range server.Requests {
		f.Requests += r.Count
	}
	if lapses := s.server.Lapses(); len(lapses) > 0 && s.stopped.Err() != nil {
		f.Matched = f.Offered - int64(s.compare(lapses).Lost) // the rest is not to be waited for
	}
	return f, nil
}

// End stops the scenario; the cluster is served on. With judge, it says what
// came of it all.
func (s *Simulation) End(judge bool) (Verdict, error) {
	s.stopping()
	<-s.ended
	if !judge {
		return Verdict{}, nil
	}
	lapses, answers := s.server.Lapses(), map[string]int64{}
	for _, r := range s.server.Stats().Requests {
		answers[fmt.Sprint(r.Verb, " ", r.Code)] += r.Count
	}
	report := s.compare(lapses)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judge.end()
	return Verdict{
		Offered: int64(report.Offered), Initial: s.initial, Lost: int64(report.Lost), Unseen: int64(report.Unseen), Extra: int64(report.Unexpected) + s.judge.extra,
		Due: int64(len(lapses)), First: append(report.First, s.judge.strange...), Latency: s.judge.latency.Snapshot(), Longest: int64(s.judge.longest), Answers: answers,
	}, nil
}

// compare holds what was told against what could be known.
func (s *Simulation) compare(lapses []simcluster.Lapse) scenario.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scenario.Truth().Compare(func(uid string) []string { return s.judge.told[uid] }, s.track.blanks(lapses)...)
}
