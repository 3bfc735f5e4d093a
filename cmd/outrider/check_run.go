package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

const (
	atOnce      = 16                     // checks that run at the same time
	grace       = 100 * time.Millisecond // to return after the deadline
	mostTimeout = 5 * time.Second        // of a check of a file that says none
)

// checkKindCommand runs one check of a kind.
func checkKindCommand(kind string, kinds config.Kinds) *cobra.Command {
	within := seconds(10 * time.Second)
	c := &cobra.Command{
		Use:   kind + " KEY=VALUE... | '{KEY: VALUE, ...}'",
		Short: "Run one check of kind " + kind,
		Long: `Run one check and say its result as a Nagios plugin does. The keys are those of
the kind in the configuration; a value that begins with [ or { is YAML, and a key of
a mapping within is written with a dot. A key that reads series has none here: only
a running agent remembers them. Exit code 0 pass, 1 warn, 2 fail, 3 unknown.`,
		Example: "  outrider check tcp address=127.0.0.1:6379\n  outrider check http '{url: \"http://127.0.0.1:8080/ready\", status: [200]}' -t 2s",
		RunE: func(c *cobra.Command, args []string) error {
			return checkKind(c, kind, args, kinds, time.Duration(within))
		},
	}
	c.Flags().VarP(&within, "timeout", "t", "seconds, or a duration")
	return c
}

func checkKind(c *cobra.Command, kind string, args []string, kinds config.Kinds, within time.Duration) error {
	item, warnings, err := parseCheck(kind, args, kinds)
	if err != nil {
		return refuse(c, err)
	}
	for _, w := range warnings {
		fmt.Fprintln(c.ErrOrStderr(), "warning:", w)
	}
	item.Timeout = within
	res := runCheck(c.Context(), item)
	r := report{status: res.Status, text: strings.TrimSuffix(kind+": "+res.Message, ": ")}
	if res.Value != nil {
		r.perf = append(r.perf, verdict.Measure{Label: kind, Value: *res.Value, Unit: perfUnit(res.Unit)})
	}
	r.perf = append(r.perf, res.Measures...)
	return r.print(c.OutOrStdout())
}

// parseCheck reads the arguments as the configuration would be read.
func parseCheck(kind string, args []string, kinds config.Kinds) (checks.Item, []string, error) {
	mapping := &yaml.Node{Kind: yaml.MappingNode}
	for _, arg := range args {
		if err := addArgument(mapping, arg); err != nil {
			return checks.Item{}, nil, err
		}
	}
	text, err := yaml.Marshal(map[string]any{"checks": []any{map[string]any{"name": "check", kind: mapping}}})
	if err != nil {
		return checks.Item{}, nil, fmt.Errorf("read arguments: %w", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		return checks.Item{}, nil, fmt.Errorf("read arguments: %w", err)
	}
	var items []checks.Item
	file, err := config.Parse("arguments", text, dir, config.Options{
		Sections: map[string]any{"checks": &items}, Kinds: map[string]config.Kinds{"checks": kinds},
	})
	if mistakes, ok := errors.AsType[config.Errors](err); ok {
		// Lines and the item are of a file that nobody has seen.
		var told []string
		for _, m := range mistakes {
			key := strings.TrimPrefix(strings.TrimPrefix(m.Key, "checks[0]."), kind+".")
			told = append(told, (&config.FieldError{Key: key, Got: m.Got, Want: m.Want}).Error())
		}
		return checks.Item{}, nil, errors.New(strings.Join(told, "; "))
	}
	if err != nil {
		return checks.Item{}, nil, err
	}
	return items[0], file.Warnings, nil
}

// addArgument adds key=value, or the keys of a YAML mapping.
func addArgument(to *yaml.Node, arg string) error {
	if strings.HasPrefix(strings.TrimSpace(arg), "{") {
		n, err := parseYAML(arg)
		if err != nil {
			return err
		}
		to.Content = append(to.Content, n.Content...)
		return nil
	}
	path, text, ok := strings.Cut(arg, "=")
	if !ok || path == "" {
		return fmt.Errorf("got %q, want key=value or a YAML mapping in braces", arg)
	}
	value := &yaml.Node{Kind: yaml.ScalarNode, Value: text, Style: yaml.DoubleQuotedStyle}
	if strings.HasPrefix(text, "[") || strings.HasPrefix(text, "{") {
		var err error
		if value, err = parseYAML(text); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	keys := strings.Split(path, ".")
	for _, key := range keys[:len(keys)-1] {
		to = child(to, key)
	}
	to.Content = append(to.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: keys[len(keys)-1]}, value)
	return nil
}

// child is the mapping at a key; it is made when there is none.
func child(of *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(of.Content); i += 2 {
		if of.Content[i].Value == key && of.Content[i+1].Kind == yaml.MappingNode {
			return of.Content[i+1]
		}
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	of.Content = append(of.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, n)
	return n
}

func parseYAML(text string) (*yaml.Node, error) {
	var doc yaml.Node
	d := yaml.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("got %q: %w", text, err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("got %q, want one YAML value", text)
	}
	return doc.Content[0], nil
}

func checkRunCommand(load func(string) ([]checks.Item, error)) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "run [NAME]...",
		Short: "Run the checks of a configuration file once",
		Long: `Run the checks of a configuration file once, all of them or those named, without an
agent, and print a table, worst first. Checks of series are unknown here: only a
running agent remembers them. Exit code: the worst result's, 0 pass, 1 warn, 2 fail,
3 unknown.`,
		Example: "  outrider check run -c outrider.yaml\n  outrider check run -c outrider.yaml cache",
		RunE: func(c *cobra.Command, names []string) error {
			items, err := load(path)
			if err != nil {
				return refuse(c, errors.New(trimUsage(err)))
			}
			if items, err = named(items, names); err != nil {
				return refuse(c, fmt.Errorf("%s: %w", path, err))
			}
			return printTable(c.OutOrStdout(), runChecks(c.Context(), items))
		},
	}
	c.Flags().StringVarP(&path, "config", "c", defaultConfig, "configuration file")
	return c
}

func named(items []checks.Item, names []string) ([]checks.Item, error) {
	var known []string
	for _, item := range items {
		known = append(known, item.Name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("got check %s, want one of %s", name, cmp.Or(strings.Join(known, ", "), "none: the file has no checks"))
		}
	}
	if len(items) == 0 {
		return nil, errors.New("checks: got none, want at least one")
	}
	return slices.DeleteFunc(slices.Clone(items), func(item checks.Item) bool {
		return len(names) > 0 && !slices.Contains(names, item.Name)
	}), nil
}

// A checked item is one with its result.
type checked struct {
	checks.Item
	verdict.Result
}

func runChecks(ctx context.Context, items []checks.Item) []checked {
	out := make([]checked, len(items))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			out[i] = checked{item, runCheck(ctx, item)}
			<-slots
		})
	}
	wg.Wait()
	slices.SortStableFunc(out, func(a, b checked) int { return verdict.Compare(b.Status, a.Status) })
	return out
}

// printTable returns the worst result's exit code.
func printTable(w io.Writer, rows []checked) error {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CHECK\tKIND\tCATEGORY\tSTATUS\tTOOK\tMESSAGE")
	worst := verdict.Pass
	for _, r := range rows {
		worst = verdict.Worse(worst, r.Status)
		fmt.Fprintf(t, "%s\t%s\t%s\t%v\t%v\t%s\n", r.Name, r.Kind, r.Category, r.Status, r.Took.Round(time.Millisecond/10), r.Message)
	}
	_ = t.Flush() // to memory
	if _, err := w.Write(b.Bytes()); err != nil {
		return exitCode(verdict.Unknown) // there is nobody left to tell
	}
	return exitWith(worst)
}

// runCheck runs a check once. It returns soon after the deadline, and a panic is a
// failure, as when an agent runs it.
func runCheck(ctx context.Context, item checks.Item) verdict.Result {
	within := cmp.Or(item.Timeout, min(item.Every*8/10, mostTimeout))
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	started := time.Now()
	done := make(chan verdict.Result, 1)
	go func() {
		res := verdict.Result{Status: verdict.Fail, Message: "check ended its goroutine"}
		defer func() {
			if p := recover(); p != nil {
				res.Message = fmt.Sprintf("panic: %v%s", p, place())
			}
			done <- res
		}()
		res = newChecker(item).Check(ctx)
	}()
	late := time.NewTimer(within + grace)
	defer late.Stop()
	var res verdict.Result
	select {
	case res = <-done:
	case <-late.C:
		res = verdict.Result{Status: verdict.Fail, Message: fmt.Sprintf("no answer in %v", within)}
	}
	res.Took, res.Message = time.Since(started), verdict.Clean(res.Message)
	return res
}

// newChecker makes the checker. One that cannot be made says so when it is asked.
func newChecker(item checks.Item) checks.Checker {
	b, ok := item.Config.(checks.Builder)
	if !ok {
		panic(fmt.Sprintf("BUG: kind %s: %T is not a Builder", item.Kind, item.Config))
	}
	c, err := b.Build(checks.Env{Name: item.Name, Log: slog.New(slog.DiscardHandler), Now: time.Now, Pipelines: none})
	if err != nil {
		return cannot{err}
	}
	return c
}

func none() []metrics.PipelineSnapshot { return nil }

type cannot struct{ err error }

// Check implements [checks.Checker].
func (c cannot) Check(context.Context) verdict.Result {
	return verdict.Result{Status: verdict.Unknown, Message: c.err.Error()}
}
