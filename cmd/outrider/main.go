// Command outrider is the agent: it tells a platform about every state change of its workloads, and shows how it does.
//
// Exit codes: 0 for a clean stop, 1 for what went wrong while running, 2 for
// a wrong command line or configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/checks"
)

// Set by the linker; read-only.
var (
	version = "devel"
	commit  = ""
	date    = ""
	builder = "" // the host on which it was built
)

// errUsage marks errors of the command line and the configuration.
var errUsage = errors.New("usage")

func main() { os.Exit(run(commandLine(os.Args))) }

// run runs the command and returns its exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code): // all has been said
		return int(code)
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "outrider:", trimUsage(err))
		return 2
	}
	fmt.Fprintln(os.Stderr, "outrider:", err)
	return 1
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "outrider",
		Short: "Tells a platform about every state change of its Kubernetes workloads, and shows how it does",
		Example: `  outrider config check -c outrider.yaml
  outrider run -c outrider.yaml
  outrider check digest http://127.0.0.1:9610
  outrider ledger stat -c outrider.yaml`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError(fmt.Errorf("%w; see %s --help", err, c.CommandPath()))
	})
	root.AddCommand(runCommand(), demoCommand(), simulateCommand(), reloadCommand(), configCommand(), checkCommand(checks.Kinds(), loadChecks), probeCommand(), ledgerCommand(), alertsCommand(), versionCommand())
	strictArgs(root)
	return root
}

// strictArgs makes a wrong argument an error of usage, in c and below it.
func strictArgs(c *cobra.Command) {
	check := c.Args
	c.Args = func(c *cobra.Command, args []string) error {
		if check == nil {
			check = cobra.ArbitraryArgs
		}
		if err := check(c, args); err != nil {
			return usageError(fmt.Errorf("%w; see %s --help", err, c.CommandPath()))
		}
		return nil
	}
	for _, sub := range c.Commands() {
		strictArgs(sub)
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print version, commit and Go version",
		Example: "  outrider version",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "outrider %s (%s)\n", version, strings.TrimPrefix(build()+", "+platform(), ", "))
			return err
		},
	}
}
