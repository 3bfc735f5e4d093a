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
	"slices"
	"strings"

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
		Components: map[string]any{"collectors": next.series.collectors(), "exporters": next.series.exporters(started.Service)},
		Restart:    config.Changed(*started.File, *next.File),
		Warnings:   next.Warnings,
	}
	items := next.items()
	c.Components["checks"] = &items
	for _, key := range config.Changed(*started.series, *next.series) {
		if strings.HasPrefix(key, "history.") {
			c.Restart = append(c.Restart, key)
		}
	}
	if c.Auth, err = loadAuth(next); err != nil {
		return nil, err
	}
	// Their contents are compared, and taken as far as they can be.
	c.Restart = slices.DeleteFunc(c.Restart, func(key string) bool {
		return key == "listen.web_config_file" || key == "listen.bearer_tokens_file"
	})
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
file again, as SIGHUP does, and say what came of it. Sinks, neighbours, checks,
collectors, pipelines and exporters that were added, taken out or changed are applied
at once; counters and sockets stay. A detached sink is attached again, with a gap. So are
other users and tokens in the files that listen names. Other changes are named and
count after a restart. A file with mistakes changes nothing: exit code 2
for one that this command cannot read, 1 for what the agent refused or could not
apply.`,
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
			return askReload(c.Context(), string(s.DataDir), c.OutOrStdout())
		},
	}
	c.Flags().StringVarP(&path, "config", "c", defaultConfig, "configuration file")
	return c
}

// askReload asks the agent that has a data directory and copies its answer.
func askReload(ctx context.Context, dir string, out io.Writer) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "control"))
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent/act/reload", nil)
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("reload: no agent answers in the data directory %s: %w; one that was started with another data_dir is told by SIGHUP", dir, err)
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
