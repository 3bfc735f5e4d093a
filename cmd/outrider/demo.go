package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/cmd/outrider/demo"
)

func demoCommand() *cobra.Command {
	o := demo.Options{Agent: runConfigured}
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole thing at work on a simulated cluster",
		Long: `Run a simulated cluster, the agent as outrider run does, and a receiver that
plays the platform, until Ctrl-C or for the time of --for. Nothing else is
needed. State is in a temporary folder that is removed at the end.

Each second has a line: changes offered by the cluster, made durable and
delivered to the receiver, a second; how many wait, offered and not delivered
yet; retries and drops so far; the p99 of the time from the cluster's write to
the receiver's answer; the memory; and a picture of what waited in the last
seconds, up to 20 where the terminal has room.

At the end the scenario stops, what is on its way is let through, and what was
told is compared with what the cluster knows that it had to be. --json prints
it as one line of JSON on standard output, and everything else on standard
error. agent_rss_bytes and agent_cpu_seconds are those of the whole process,
cluster and receiver included, unless with --separate.

Exit code 0: nothing was lost, nothing was told that must not be, gaps were
told of, and the books balance; 1: that is not so, or it cannot be said, since
it was stopped before all was delivered; 2: a wrong command line.`,
		Example: `  outrider demo
  outrider demo --for 20s --json
  outrider demo --separate --rate 2000 --for 30s --json
  outrider demo --rate 500 --spike 100000/10s@5s --receiver-rate 1500 --drain 3m --for 30s
  outrider demo --sink webhook-batch --receiver-down 5s..15s --seed 7`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkTogether(c, &o); err != nil {
				return err
			}
			seeded(c, &o.Load)
			var err error
			if o.Self, err = os.Executable(); err != nil && o.Separate {
				return fmt.Errorf("find this program: %w", err)
			}
			o.Out, o.Err = c.OutOrStdout(), c.ErrOrStderr()
			said := o.Out
			if o.JSON {
				said = o.Err
			}
			o.Columns = terminal(said)
			o.Colors = o.Columns != nil && inColors()
			o.Log = slog.New(slog.NewTextHandler(o.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
			// Else a reader that goes away, as head does, is this process's end
			// at once, and nobody removes the folder.
			pipes := make(chan os.Signal, 1)
			signal.Notify(pipes, syscall.SIGPIPE)
			defer signal.Stop(pipes)
			return demo.Run(c.Context(), o)
		},
	}
	c.Flags().SortFlags = false
	durationFlag(c, &o.For, "for", "", "how long changes are offered; without, until Ctrl-C", false)
	boolFlag(c, &o.JSON, "json", "print the result as one line of JSON")
	loadFlags(c, &o.Load)
	sinkFlag(c, &o.Sink)
	mannerFlags(c, &o.Manner)
	durationFlag(c, &o.Drain, "drain", "60s", "how long the end waits, at most, for what is on its way", true)
	boolFlag(c, &o.Separate, "separate", "cluster and agent as processes of their own: memory and processor time are the agent's alone")
	boolFlag(c, &o.Keep, "keep", "keep the temporary folder")
	return c
}

// runConfigured is outrider run.
func runConfigured(ctx context.Context, config string) error {
	s, err := load(config)
	if err != nil {
		return err
	}
	return runAgent(ctx, config, s)
}
