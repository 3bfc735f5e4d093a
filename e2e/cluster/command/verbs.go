package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/e2e/cluster/component"
	"github.com/outrider-agent/outrider/e2e/cluster/settings"
	"github.com/outrider-agent/outrider/e2e/cluster/supervisor"
)

// newVerb is stop, kill, start or restart.
func newVerb(verb, short string, at func() (settings.Dir, error)) *cobra.Command {
	var graceful bool
	cmd := &cobra.Command{
		Use:       verb + " --dir DIR COMPONENT",
		Short:     short,
		Long:      short + ".\nComponents: " + names() + ".",
		Args:      cobra.ExactArgs(1),
		ValidArgs: component.Names(),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := at()
			if err != nil {
				return err
			}
			if err := component.Check(args[0]); err != nil {
				return err
			}
			return supervisor.NewClient(dir).Act(cmd.Context(), args[0], verb, graceful)
		},
	}
	if verb == "restart" {
		cmd.Flags().BoolVar(&graceful, "graceful", false, "stop it with SIGTERM instead of SIGKILL")
	}
	return cmd
}

func newStatus(at func() (settings.Dir, error)) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status --dir DIR",
		Short: "Print name, process, state and port of every component",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := at()
			if err != nil {
				return err
			}
			statuses, err := supervisor.NewClient(dir).Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(statuses)
			}
			return table(cmd.OutOrStdout(), statuses)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func table(out io.Writer, statuses []supervisor.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tPID\tSTATE\tPORT\tEND")
	for _, s := range statuses {
		pid := "-"
		if s.PID != 0 {
			pid = fmt.Sprint(s.PID)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", s.Name, pid, s.State, s.Port, s.End)
	}
	return w.Flush()
}

func newCompact(at func() (settings.Dir, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "compact --dir DIR",
		Short: "Compact etcd to its present revision, and defragment it",
		Long: `compact drops etcd's history. A watch from an older resource version is answered
410 Gone once the API server, which remembers some history itself, has been
restarted too.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := at()
			if err != nil {
				return err
			}
			return tell(cmd, func(ctx context.Context) (string, error) { return supervisor.NewClient(dir).Compact(ctx) })
		},
	}
}

func newSnapshot(at func() (settings.Dir, error)) *cobra.Command {
	return withFile("snapshot", "Save a snapshot of etcd's data to FILE", at, (*supervisor.Client).Snapshot)
}

func newRestore(at func() (settings.Dir, error)) *cobra.Command {
	return withFile("restore", "Stop all components, restore etcd's data from FILE and start all again", at, (*supervisor.Client).Restore)
}

func withFile(verb, short string, at func() (settings.Dir, error), do func(*supervisor.Client, context.Context, string) (string, error)) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " --dir DIR FILE",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := at()
			if err != nil {
				return err
			}
			file, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", verb, err)
			}
			return tell(cmd, func(ctx context.Context) (string, error) { return do(supervisor.NewClient(dir), ctx, file) })
		},
	}
}

func tell(cmd *cobra.Command, do func(context.Context) (string, error)) error {
	message, err := do(cmd.Context())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), message)
	return err
}
