// Package command is devcluster's command line.
package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/outrider-agent/outrider/e2e/cluster/component"
	"github.com/outrider-agent/outrider/e2e/cluster/settings"
)

const long = `devcluster runs a real etcd, kube-apiserver, kube-controller-manager and
kube-scheduler on this machine, on 127.0.0.1 only, with a stand-in for the
kubelets: it registers nodes and takes pods through their phases as the pods'
annotations say, but runs no container.`

const examples = `  devcluster up --dir /tmp/dc                      start a cluster; Ctrl-C stops it
  kubectl --kubeconfig /tmp/dc/kubeconfig get nodes
  devcluster status --dir /tmp/dc
  devcluster kill --dir /tmp/dc apiserver          as a crash would
  devcluster start --dir /tmp/dc apiserver         returns when it is ready again
  devcluster restart --dir /tmp/dc --graceful etcd
  devcluster compact --dir /tmp/dc                 drop etcd's history
  devcluster snapshot --dir /tmp/dc /tmp/dc.db
  devcluster restore --dir /tmp/dc /tmp/dc.db`

// Run runs devcluster with the arguments and gives its exit code.
func Run(ctx context.Context, args []string, out, errs io.Writer) int {
	exit := 0
	root := &cobra.Command{
		Use:           "devcluster",
		Short:         "A real Kubernetes control plane with stand-in kubelets, on this machine alone",
		Long:          long,
		Example:       examples,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	var dir string
	root.PersistentFlags().StringVar(&dir, "dir", "", "directory of the cluster (required)")
	at := func() (settings.Dir, error) { return settings.NewDir(dir) }
	root.AddCommand(newUp(at), newStatus(at), newCompact(at), newSnapshot(at), newRestore(at), newComponent(at, &exit))
	for _, verb := range []struct{ name, short string }{
		{"stop", "Stop a component with SIGTERM"},
		{"kill", "Kill a component with SIGKILL"},
		{"start", "Start a component and wait until it is ready"},
		{"restart", "Kill a component, start it again and wait until it is ready"},
	} {
		root.AddCommand(newVerb(verb.name, verb.short, at))
	}
	// The Kubernetes packages put their own flag here.
	if version := pflag.Lookup("version"); version != nil {
		version.Hidden = true
	}
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(errs, "devcluster: %v\n", err)
		return max(exit, 1)
	}
	return exit
}

// newComponent is how the supervisor runs its children.
func newComponent(at func() (settings.Dir, error), exit *int) *cobra.Command {
	return &cobra.Command{
		Use:    "component NAME",
		Short:  "Run one component in this process",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := at()
			if err != nil {
				return err
			}
			*exit, err = component.Run(cmd.Context(), args[0], dir)
			return err
		},
	}
}

// untilSignal ends the context on SIGTERM and Ctrl-C. A second one ends the process at once, and the kernel its children.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	// Whoever waited for the line "ready" may have closed the pipe since; that is no reason to end.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func names() string { return strings.Join(component.Names(), ", ") }
