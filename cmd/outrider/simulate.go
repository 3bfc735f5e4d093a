package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/cmd/outrider/demo"
	"github.com/outrider-agent/outrider/statesync/simcluster"
)

func simulateCommand() *cobra.Command {
	var o demo.SimulateOptions
	c := &cobra.Command{
		Use:   "simulate",
		Short: "Play a Kubernetes API server that holds simulated workloads",
		Long: `Serve the API of a Kubernetes cluster over TLS: pods, jobs, deployments and
custom objects, which a scenario changes at the rate given. It stays in the
foreground until Ctrl-C, and stops within a second.

The folder gets a kubeconfig, for outrider, kubectl get --raw, or any client.
Faults come by script, or while it runs by POST /sim/faults with the same
token. Each second has a line: changes offered a second, asked for and made;
how far the plan is behind; objects; open watches; requests and events so far.

Faults, each as in "5s..15s too-many pods retry-after=2s" or "5s cut":
` + demo.FaultHelp(),
		Example: `  outrider simulate --dir ./sim
  outrider simulate --addr 127.0.0.1:6443 --rate 2000 --workloads 20000 --for 5m
  outrider simulate --spike 50000/10s@30s --faults faults.txt --seed 7`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			seeded(c, &o.Load)
			o.Log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			o.In, o.Out = c.InOrStdin(), c.OutOrStdout()
			if err := os.MkdirAll(o.Folder, 0o700); err != nil {
				return fmt.Errorf("make the folder: %w", err)
			}
			var err error
			if o.Folder, err = filepath.Abs(o.Folder); err != nil {
				return fmt.Errorf("find the folder: %w", err)
			}
			return demo.Simulate(c.Context(), o)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().Var(preset(&flagValue{name: "address", set: func(text string) error {
		_, port, err := net.SplitHostPort(text)
		if _, wrong := strconv.ParseUint(port, 10, 16); err != nil || wrong != nil {
			return fmt.Errorf("got %q, want host:port, such as 127.0.0.1:6443", text)
		}
		o.Address = text
		return nil
	}}, "127.0.0.1:0"), "addr", "where to listen; port 0: a free one")
	c.Flags().Var(preset(&flagValue{name: "folder", set: func(text string) error {
		if text == "" {
			return errors.New("want a folder, such as ./sim")
		}
		o.Folder = text
		return nil
	}}, "outrider-sim"), "dir", "folder of the kubeconfig")
	loadFlags(c, &o.Load)
	durationFlag(c, &o.For, "for", "", "how long to run; without, until Ctrl-C", false)
	boolFlag(c, &o.Control, "control", "take orders from standard input")
	if err := c.Flags().MarkHidden("control"); err != nil {
		panic("BUG: " + err.Error())
	}
	return c
}

// readScript reads a script of faults, and says what is wrong with it.
func readScript(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		if reason, ok := errors.AsType[*fs.PathError](err); ok {
			err = reason.Err
		}
		return "", fmt.Errorf("got %q, want a readable file: %w", path, err)
	}
	if _, err := simcluster.Parse(string(text)); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return string(text), nil
}
