package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/agent"
	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync/controller"
)

// mostAnswer is how much of an agent's answer is read: far more than the
// mistakes of one file.
const mostAnswer = 1 << 20

// reread reads the file that the running agent started with, and says what in
// it counts after a restart only.
func reread(path string, started *settings) (*agent.Configuration, error) {
	next, err := load(path)
	if err != nil {
		return nil, errors.New(trimUsage(err))
	}
	c := &agent.Configuration{
		Components: map[string]any{}, Restart: config.Changed(*started.File, *next.File), Warnings: next.Warnings,
	}
	switch has := next.Has(controller.Section); {
	case has != started.Has(controller.Section):
		c.Restart = append(c.Restart, controller.Section)
	case has:
		c.Components[controller.Section] = next.statesync
	}
	return c, nil
}

func reloadCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "reload",
		Short: "Have the running agent read its configuration again",
		Long: `Have the agent that runs on the configuration's data_dir read its configuration
file again, as SIGHUP does, and say what came of it. Sinks that were added, taken
out or changed are applied at once; a detached one is attached again, with a gap.
Other changes are named and count after a restart. A file with mistakes changes
nothing: exit code 2 for one that this command cannot read, 1 for what the agent
refused or could not apply.`,
		Example: "  outrider reload -c outrider.yaml\n  kill -HUP $PID",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := load(path)
			if err != nil {
				return err
			}
			if s.DataDir == "" {
				return usageError(fmt.Errorf("%s: data_dir: got nothing, want the directory of the agent; or send it SIGHUP", path))
			}
			return askReload(c.Context(), filepath.Join(string(s.DataDir), "control"), c.OutOrStdout())
		},
	}
	c.Flags().StringVarP(&path, "config", "c", defaultConfig, "configuration file")
	return c
}

// askReload asks the agent behind a control socket and copies its answer.
func askReload(ctx context.Context, socket string, out io.Writer) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent/act/reload", nil)
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("reload: no agent answers in the data directory: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return fmt.Errorf("reload: read the agent's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("reload: %s", bytes.TrimSpace(answer))
	}
	_, err = out.Write(answer)
	return err
}
