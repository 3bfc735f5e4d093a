package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// Every command below "check" ends as a Nagios plugin does: what it says is on
// standard output, and its exit code is a verdict, 0 pass, 1 warn, 2 fail,
// 3 unknown. So a wrong command line is 3 here, not 2: Nagios would take a 2 for
// a failure of what is watched.

// pluginName is the name of a link to this program that makes it the plugin.
const pluginName = "check_digest"

// An exitCode ends the command with a code of its own; all has been said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exitWith is nil for a pass.
func exitWith(s verdict.Status) error {
	if s == verdict.Pass {
		return nil
	}
	return exitCode(s)
}

// commandLine returns the arguments of a process: called by the plugin's name, it
// is the plugin.
func commandLine(argv []string) []string {
	if filepath.Base(argv[0]) == pluginName {
		return append([]string{"check", "digest"}, argv[1:]...)
	}
	return argv[1:]
}

// checkCommand knows the kinds of check, and how to load those of a file.
func checkCommand(kinds config.Kinds, load func(path string) ([]checks.Item, error)) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Ask a digest, or run checks once: exit code 0 pass, 1 warn, 2 fail, 3 unknown",
		Long: `Ask for the digest of an application, or run checks once without an agent. The
exit code is the verdict, as Nagios wants it of a plugin: 0 pass, 1 warn, 2 fail,
3 unknown, which a wrong command line is too.`,
		Example: `  outrider check digest http://127.0.0.1:9610
  outrider check tcp address=127.0.0.1:6379
  outrider check run -c outrider.yaml`,
		Args: cobra.ArbitraryArgs, // RunE says what is wrong with them
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			known := append([]string{"run"}, slices.Collect(maps.Keys(kinds))...)
			if !slices.Contains(known, "digest") {
				known = append(known, "digest")
			}
			slices.Sort(known)
			return refuse(c, fmt.Errorf("got %s, want one of %s", args[0], strings.Join(known, ", ")))
		},
	}
	c.SetFlagErrorFunc(refuse)
	c.AddCommand(checkDigestCommand(kinds), checkRunCommand(load))
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if kind != "digest" { // which takes its mapping, too
			c.AddCommand(checkKindCommand(kind, kinds))
		}
	}
	return c
}

// refuse answers a wrong command line.
func refuse(c *cobra.Command, err error) error {
	return report{status: verdict.Unknown, text: fmt.Sprintf("%v; see %s --help", err, c.CommandPath())}.print(c.OutOrStdout())
}
