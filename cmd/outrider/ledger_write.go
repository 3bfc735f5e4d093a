package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/agent"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync/ledger"
	"github.com/outrider-agent/outrider/statesync/ledger/replay"
)

// heldLedger is a ledger that no agent has: this process holds its directory.
type heldLedger struct {
	*ledger.Ledger
	dir  *agent.DataDir
	stop func() // ends the checkpoints
}

// holdLedger opens the ledger of a data directory for writing. It makes none.
func (p *ledgerPlace) holdLedger(dir string, stderr io.Writer) (_ *heldLedger, err error) {
	path := filepath.Join(dir, ledger.File)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open ledger: %w: want a data directory in which an agent has run", err)
	}
	held, err := agent.OpenDataDir(dir, "outrider ledger")
	if err != nil {
		return nil, err
	}
	o := ledger.Options{
		Dir: held.Path(), Registry: metrics.NewRegistry(), Now: time.Now,
		Log: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if p.settings != nil {
		o.MaxBytes, o.Keep = int64(p.settings.statesync.Ledger.MaxBytes), p.settings.statesync.Ledger.Keep
	}
	l, err := ledger.Open(o)
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	// Not Run: what it deletes of age may be what a sink has not been given.
	ctx, cancel := context.WithCancel(context.Background())
	var checkpoints sync.WaitGroup
	checkpoints.Go(func() { l.RunCheckpoints(ctx) })
	return &heldLedger{l, held, func() { cancel(); checkpoints.Wait() }}, nil
}

// Close releases the ledger and its directory.
func (h *heldLedger) Close() error {
	h.stop()
	return errors.Join(h.Ledger.Close(), h.dir.Close())
}

// Replay implements [replayer].
func (h *heldLedger) Replay(ctx context.Context, q replay.Query, tell func(replay.Report)) (replay.Report, error) {
	return replay.Run(ctx, h.Ledger, q, tell)
}

func ledgerAttachCommand() *cobra.Command {
	p := &ledgerPlace{}
	c := &cobra.Command{
		Use:   "attach SINK",
		Short: "Have a detached sink delivered to again, with a gap",
		Long: `Have the running agent deliver to a sink again that is detached: because its
receiver answered 410, or because the ledger was full and it held the most of
it. The sink is told a gap, and where every workload stands; then changes follow
as before. A reload of the configuration does the same for all sinks.`,
		Example: "  outrider ledger attach platform",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			dir, err := p.directory()
			if err != nil {
				return err
			}
			a := askAgent(c.Context(), dir)
			if a == nil {
				return fmt.Errorf("attach sink %s: no agent answers in %s, want one that runs: start it, and try again", args[0], dir)
			}
			defer func() { err = errors.Join(err, a.Close()) }()
			said, err := a.tellAgent(c.Context(), "attach", args[0])
			if err != nil {
				return doing("attach sink "+args[0], err)
			}
			_, err = io.WriteString(c.OutOrStdout(), said)
			return err
		},
	}
	p.dirFlags(c)
	return c
}

func ledgerForgetCommand() *cobra.Command {
	p := &ledgerPlace{}
	var yes bool
	c := &cobra.Command{
		Use:   "forget SINK",
		Short: "Remove all that is kept of a sink that is not configured any more",
		Long: `Remove what the ledger keeps of a sink that is not configured any more: its
cursor, what is put aside for it, and its dead letters. If a sink of that name
is configured again, it is a new one. The agent is asked; without one, the
data directory is used directly, and the configuration must say which sinks
there are: with --dir, give -c too. It asks first, unless --yes is given.`,
		Example: "  outrider ledger forget archive\n  outrider ledger forget archive --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			err := p.forget(c, args[0], yes)
			if err != nil && !errors.Is(err, errUsage) {
				return doing("forget sink "+args[0], err)
			}
			return err
		},
	}
	p.dirFlags(c)
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// doing says what was being done, unless the agent has said so.
func doing(what string, err error) error {
	if strings.HasPrefix(err.Error(), what+": ") {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (p *ledgerPlace) forget(c *cobra.Command, sink string, yes bool) (err error) {
	dir, err := p.directory()
	if err != nil {
		return err
	}
	if p.settings == nil && c.Flags().Changed("config") {
		if p.settings, err = load(p.config); err != nil {
			return err
		}
	}
	names, known := p.sinks()
	if known && slices.Contains(names, sink) {
		return usageError(fmt.Errorf("forget: got sink %s, which %s has, want one that is not configured: take it out and reload first", sink, p.config))
	}
	if err := p.confirm(c, sink, yes); err != nil {
		return err
	}
	if a := askAgent(c.Context(), dir); a != nil {
		defer func() { err = errors.Join(err, a.Close()) }()
		said, err := a.tellAgent(c.Context(), "forget", sink)
		if err != nil {
			return err
		}
		_, err = io.WriteString(c.OutOrStdout(), said)
		return err
	}
	if !known {
		return usageError(fmt.Errorf("forget: no agent answers in %s, and got no configuration that says which sinks there are, want -c FILE, or an agent that runs", dir))
	}
	h, err := p.holdLedger(dir, c.ErrOrStderr())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	if err := h.Forget(c.Context(), sink); err != nil {
		return errors.Unwrap(err)
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "sink %s: forgotten\n", sink)
	return err
}

// confirm asks, and says what would go.
func (p *ledgerPlace) confirm(c *cobra.Command, sink string, yes bool) error {
	if yes {
		return nil
	}
	if !isTerminal(os.Stdin) {
		return usageError(errors.New("forget: got no --yes, and no terminal to ask at"))
	}
	kept := ""
	err := p.lists(c, nil, func(l ledgerLists) error {
		sinks, err := l.Sinks(c.Context())
		for _, s := range sinks {
			if s.Name == sink {
				kept = fmt.Sprintf(" at %d, with %d dead letters and %d put aside,", s.Acked, s.Letters, s.Aside)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "The cursor of sink %s%s is removed for good. Go on? [y/N] ", sink, kept)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if word := strings.ToLower(strings.TrimSpace(answer)); word != "y" && word != "yes" {
		return errors.New("got no yes: nothing was removed")
	}
	return nil
}
