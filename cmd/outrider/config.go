package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/alerts"
	"github.com/outrider-agent/outrider/checks"
	"github.com/outrider-agent/outrider/collectors"
	"github.com/outrider-agent/outrider/statesync/controller"
	"github.com/outrider-agent/outrider/statesync/sinks"
)

const defaultConfig = "outrider.yaml"

// settings are a configuration file, decoded.
type settings struct {
	*config.File
	statesync *controller.Config
	series    *seriesConfig
	verdicts  []checks.Item
	alerts    alertsConfig
	rules     []alerts.Rule // that the agent evaluates
}

// load reads a configuration file. Its mistakes are errors of usage.
func load(path string) (*settings, error) {
	s := &settings{statesync: &controller.Config{}, series: &seriesConfig{}}
	sections := s.series.sections()
	sections[controller.Section], sections["checks"], sections[alertsSection] = s.statesync, &s.verdicts, &s.alerts
	file, err := config.Load(path, config.Options{
		Sections: sections,
		Kinds: map[string]config.Kinds{
			controller.SinksKey: sinks.Kinds(), "collectors": collectors.Kinds(), "exporters": exporterKinds(),
			"checks": checks.Kinds(),
		},
	})
	if err != nil {
		return nil, usageError(err)
	}
	s.File = file
	if err := errors.Join(s.series.check(), s.checkRules(), s.checkItems()); err != nil {
		return nil, usageError(fmt.Errorf("%s: %w", path, err))
	}
	if s.Has(controller.Section) && s.DataDir == "" {
		return nil, usageError(fmt.Errorf("%s: data_dir: got nothing, want a directory: state sync keeps its ledger there", path))
	}
	return s, nil
}

func configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "config",
		Short:   "Check a configuration file",
		Example: "  outrider config check -c outrider.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var path string
	check := &cobra.Command{
		Use:   "check",
		Short: "Read a configuration file and say everything that is wrong with it",
		Long: `Read a configuration file and say everything that is wrong with it: file, line,
key, what was read and what was expected. Nothing is opened and nobody is
talked to. Exit code 0: the file is good; 2: it is not.`,
		Example: "  outrider config check -c outrider.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := load(path)
			if err != nil {
				return err
			}
			for _, w := range s.Warnings {
				fmt.Fprintln(c.ErrOrStderr(), "warning:", w)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), path+": ok")
			return err
		},
	}
	check.Flags().StringVarP(&path, "config", "c", defaultConfig, "configuration file")
	c.AddCommand(check)
	return c
}

// usageError marks an error as one of the command line or configuration.
func usageError(err error) error { return errors.Join(errUsage, err) }

// trimUsage takes the mark off again, for printing.
func trimUsage(err error) string {
	return strings.TrimPrefix(err.Error(), errUsage.Error()+"\n")
}
