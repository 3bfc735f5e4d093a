package demo

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/statesync/simcluster"
)

// FaultHelp is what scripts of faults are made of, for a user.
func FaultHelp() string {
	var b strings.Builder
	names, does := simcluster.FaultKinds()
	for i, name := range names {
		fmt.Fprintf(&b, "  %-12s %s\n", name, does[i])
	}
	return b.String()
}

// SimulateOptions say what a simulated cluster in the foreground is like.
type SimulateOptions struct {
	Load
	Folder  string
	Address string
	For     time.Duration // 0: until ctx ends
	Control bool          // obeys orders that In gives; the scenario begins when one says so
	In      io.Reader
	Out     io.Writer
	Log     *slog.Logger
}

// Simulate serves a simulated cluster until its time is up or ctx ends.
func Simulate(ctx context.Context, o SimulateOptions) error {
	s, err := NewSimulation(o.Load, Place{Folder: o.Folder, Address: o.Address, Log: o.Log})
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	parts, stop := newGroup(ctx, failed)
	defer stop()
	parts.run(s.Run)
	if o.Control {
		return Obey(ctx, s, s.Kubeconfig(), s.Address(), o.In, o.Out)
	}
	fmt.Fprintf(o.Out, "serving https://%s, seed %d; Ctrl-C stops it\nexport KUBECONFIG=%s\n\n", s.Address(), o.Seed, s.Kubeconfig())
	if err := s.Begin(); err != nil {
		return err
	}
	return s.show(ctx, o, failed)
}

// show writes a line every second.
func (s *Simulation) show(ctx context.Context, o SimulateOptions, failed <-chan error) error {
	if o.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.For)
		defer cancel()
	}
	began, before, n := time.Now(), Figures{}, 0
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case now := <-tick.C:
			f, err := s.Figures()
			if err != nil {
				return err
			}
			if n%headEvery == 0 {
				fmt.Fprintf(o.Out, simulateFormat, "time", "asked/s", "offered/s", "behind", "objects", "watches", "requests", "events/s", "events")
			}
			n++
			fmt.Fprintf(o.Out, simulateFormat, clock(now.Sub(began)), short(f.Asked), short(f.Achieved), short(float64(f.Behind)),
				short(float64(f.Live)), short(float64(f.Watches)), short(float64(f.Requests)), short(float64(f.Sent-before.Sent)), short(float64(f.Sent)))
			before = f
		}
	}
}

const simulateFormat = "%6s %8s %10s %8s %8s %8s %9s %9s %8s\n"
