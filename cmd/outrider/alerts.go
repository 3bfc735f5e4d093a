package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/alerts"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

func alertsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "alerts",
		Short: "Render alerts for Datadog, Nagios and Prometheus from one set of rules",
		Long: `Render alerts for Datadog, Nagios and Prometheus from one set of rules: those
that ship, and those of your own files. The agent evaluates the same rules as
checks, if its configuration has the section alerts.`,
		Example: `  outrider alerts lint --rules payments.yaml
  outrider alerts render --to prometheus --rules payments.yaml -o /etc/prometheus/outrider`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(alertsRenderCommand(), alertsDiffCommand(), alertsLintCommand())
	return c
}

// ruleFlags say which rules.
type ruleFlags struct {
	files   []string
	without bool // those that ship
}

func (f *ruleFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.files, "rules", nil, "file of rules of your own; may be given several times")
	c.Flags().BoolVar(&f.without, "without-shipped", false, "leave out the rules that ship")
}

func (f *ruleFlags) load() (*alerts.Set, error) {
	set, err := loadRules(!f.without, f.files)
	switch {
	case err != nil:
		return nil, usageError(err)
	case len(set.Rules) == 0:
		return nil, usageError(errors.New("there is no rule: --without-shipped wants --rules FILE"))
	}
	return set, nil
}

// to is what --to means.
func backends(to string) ([]alerts.Backend, error) {
	all := alerts.Backends()
	if to == "all" {
		return all, nil
	}
	i := slices.IndexFunc(all, func(b alerts.Backend) bool { return b.Name == to })
	if i < 0 {
		return nil, usageError(fmt.Errorf("--to: got %q, want datadog, nagios, prometheus or all", to))
	}
	return all[i : i+1], nil
}

// rendered are the files of back ends, by their path below the output folder: there is
// a folder for each back end.
func rendered(to, dir string, set *alerts.Set) (chosen []alerts.Backend, out []alerts.File, err error) {
	if dir == "" {
		return nil, nil, usageError(errors.New("--output: got nothing, want a folder"))
	}
	if chosen, err = backends(to); err != nil {
		return nil, nil, err
	}
	if out, err = alerts.Render(set, catalogue.Own(), chosen...); err != nil {
		return nil, nil, usageError(err)
	}
	return chosen, out, nil
}

func alertsRenderCommand() *cobra.Command {
	var rules ruleFlags
	var to, dir string
	c := &cobra.Command{
		Use:   "render",
		Short: "Write the files of back ends",
		Long: `Write the files of back ends, a folder each. Monitors of rules that are gone are
removed from the folder datadog; nothing else is, and a file of somebody else that is
in the way is an error.`,
		Example: `  outrider alerts render -o alerts
  outrider alerts render --to nagios --rules payments.yaml -o /etc/nagios4/conf.d`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := rules.load()
			if err != nil {
				return err
			}
			chosen, files, err := rendered(to, dir, set)
			if err != nil {
				return err
			}
			written, err := write(dir, chosen, files)
			if err != nil {
				return fmt.Errorf("render alerts: %w", err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %d rules, %d files, %d of them written\n", dir, len(set.Rules), len(files), written)
			return err
		},
	}
	rules.add(c)
	c.Flags().StringVar(&to, "to", "all", "datadog, nagios, prometheus or all")
	c.Flags().StringVarP(&dir, "output", "o", "", "folder in which the back ends' folders are")
	_ = c.MarkFlagRequired("output")
	return c
}

// write writes the files that differ, and returns how many. Nothing is written if one
// of them cannot be.
func write(dir string, chosen []alerts.Backend, files []alerts.File) (n int, err error) {
	var differ []alerts.File
	for _, f := range files {
		path := filepath.Join(dir, f.Path)
		before, err := readOwn(path)
		switch {
		case err != nil:
			return 0, err
		case before != nil && bytes.Equal(before, f.Data):
			continue
		case before != nil && !isOwn(before):
			return 0, fmt.Errorf("%s: got a file that was not rendered, want none of this name: move it away", path)
		}
		differ = append(differ, f)
	}
	gone, err := stale(dir, chosen, files)
	if err != nil {
		return 0, err
	}
	for _, f := range differ {
		if err := replaceFile(filepath.Join(dir, f.Path), f.Data); err != nil {
			return n, err
		}
		n++
	}
	for _, path := range gone {
		err = errors.Join(err, os.Remove(filepath.Join(dir, path)))
	}
	return n, err
}

// replaceFile puts a file in the place of another one, whole.
func replaceFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".rendered-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// readOwn reads what is where a file is to be; nil: there is nothing.
func readOwn(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: got a %s, want a file or nothing", path, info.Mode().Type())
	}
	return os.ReadFile(path)
}

// isOwn reports whether a file was rendered. What has no mark is somebody else's.
func isOwn(data []byte) bool {
	return bytes.Contains(data, []byte("outrider alerts render")) || isMonitor(data)
}

func isMonitor(data []byte) bool { return bytes.Contains(data, []byte(`"managed-by:outrider"`)) }

// stale are monitors that were rendered once, and are not any more: only for them are
// the rules in the names of the files.
func stale(dir string, chosen []alerts.Backend, files []alerts.File) (out []string, err error) {
	if !slices.ContainsFunc(chosen, func(b alerts.Backend) bool { return b.Name == alerts.Datadog }) {
		return nil, nil
	}
	entries, err := os.ReadDir(filepath.Join(dir, alerts.Datadog))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		path := filepath.Join(alerts.Datadog, e.Name())
		if !e.Type().IsRegular() || filepath.Ext(path) != ".json" || slices.ContainsFunc(files, func(f alerts.File) bool { return f.Path == path }) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			return nil, err
		}
		if isMonitor(data) {
			out = append(out, path)
		}
	}
	return out, err
}

func alertsDiffCommand() *cobra.Command {
	var rules ruleFlags
	var to, dir string
	c := &cobra.Command{
		Use:   "diff",
		Short: "Show what render would change",
		Long: `Show what "outrider alerts render" would change in a folder. Exit code 0: nothing;
1: something, or it cannot be found out; 2: the rules or the command line are wrong.`,
		Example: "  outrider alerts diff --rules payments.yaml -o alerts",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := rules.load()
			if err != nil {
				return err
			}
			chosen, files, err := rendered(to, dir, set)
			if err != nil {
				return err
			}
			n, err := diff(c.OutOrStdout(), dir, chosen, files)
			switch {
			case err != nil:
				return fmt.Errorf("compare alerts: %w", err)
			case n > 0:
				return exitCode(1)
			}
			return nil
		},
	}
	rules.add(c)
	c.Flags().StringVar(&to, "to", "all", "datadog, nagios, prometheus or all")
	c.Flags().StringVarP(&dir, "output", "o", "", "folder in which the back ends' folders are")
	_ = c.MarkFlagRequired("output")
	return c
}

// diff writes what differs, and returns in how many files.
func diff(w io.Writer, dir string, chosen []alerts.Backend, files []alerts.File) (n int, err error) {
	gone, err := stale(dir, chosen, files)
	if err != nil {
		return 0, err
	}
	for _, path := range gone {
		files = append(files, alerts.File{Path: path})
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Path)
		before, err := readOwn(path)
		if err != nil {
			return n, err
		}
		if text := udiff.Unified(path, path+" (rendered)", string(before), string(f.Data)); text != "" {
			n++
			if _, err := io.WriteString(w, text); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func alertsLintCommand() *cobra.Command {
	var rules ruleFlags
	var against string
	c := &cobra.Command{
		Use:   "lint",
		Short: "Say what is wrong with rules",
		Long: `Say what is wrong with rules: series and tags that the agent does not have,
thresholds that can never be crossed or always are, or are in the wrong order, and
what a back end cannot do. Exit code 0: nothing is wrong; 2: something is.

With --against the series of a running agent are looked at too: a rule whose series
is not there cannot fire, be it that its name is misspelt, or that nothing happened
yet. That is said, and is no mistake.`,
		Example: `  outrider alerts lint
  outrider alerts lint --rules payments.yaml --against http://127.0.0.1:9610`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := rules.load()
			if err != nil {
				return err
			}
			if _, err := alerts.Render(set, catalogue.Own(), alerts.Backends()...); err != nil {
				return usageError(err)
			}
			if against != "" {
				if err := sayMissing(c, set, against); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%d rules of %d owners: nothing is wrong\n", len(set.Rules), len(set.Owners))
			return err
		},
	}
	rules.add(c)
	c.Flags().StringVar(&against, "against", "", "public listener of a running agent")
	return c
}

const (
	againstPatience = 10 * time.Second
	mostAgainst     = 64 << 20 // bytes of metrics that are read
)

// sayMissing says which rules find nothing among the series of a running agent.
func sayMissing(c *cobra.Command, set *alerts.Set, address string) error {
	ask, err := http.NewRequestWithContext(c.Context(), http.MethodGet, strings.TrimSuffix(address, "/")+"/metrics", nil)
	if err != nil {
		return usageError(fmt.Errorf("--against: %w", err))
	}
	answer, err := (&http.Client{Timeout: againstPatience}).Do(ask)
	if err != nil {
		return fmt.Errorf("read the agent's series: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("read the agent's series: %s: status %d, want 200", ask.URL, answer.StatusCode)
	}
	page, err := io.ReadAll(io.LimitReader(answer.Body, mostAgainst))
	if err != nil {
		return fmt.Errorf("read the agent's series: %s: %w", ask.URL, err)
	}
	there := map[string]bool{}
	for line := range bytes.Lines(page) {
		if name := line[:len(line)-len(bytes.TrimLeft(line, nameLetters))]; len(name) > 0 && line[0] != '#' {
			there[string(name)] = true
		}
	}
	for _, r := range set.Rules {
		if !there[r.Series] {
			if _, err := fmt.Fprintf(c.OutOrStdout(), "rule %s cannot fire there now: there is no series %s\n", r.Name, r.Series); err != nil {
				return err
			}
		}
	}
	return nil
}

const nameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:"
