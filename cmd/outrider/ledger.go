package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/statesync/ledger"
	"github.com/outrider-agent/outrider/statesync/ledger/inspect"
)

// errFindings makes verify exit with 1.
var errFindings = errors.New("not every rule holds")

// ledgerReader is a ledger in a file, or the agent that has it open.
type ledgerReader interface {
	Stat(ctx context.Context) (*inspect.Stat, error)
	Ls(ctx context.Context, q inspect.Query, yield func(inspect.Row) error) error
	Verify(ctx context.Context, o inspect.VerifyOptions) (*inspect.Report, error)
	Close() error
}

// ledgerPlace says which ledger is meant.
type ledgerPlace struct {
	config, dir string
	json        bool
	settings    *settings // of the configuration, once it was read; nil: it is not needed
}

func ledgerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ledger",
		Short: "Look into the ledger, and have sinks given again what it keeps",
		Long: `Look into the ledger: stat, ls, verify, sinks, deadletters. It is found through
the configuration file, by its data directory, or as a file of its own, such as
a copy. While an agent has the data directory, it is asked through its control
socket; a file is always read directly. These write nothing.

replay, attach and forget change what a sink is given. They ask the agent that
has the data directory; replay and forget also work when none does.`,
		Example: `  outrider ledger stat
  outrider ledger ls --workload load/Pod/report-7
  outrider ledger verify copy.db
  outrider ledger replay --sink platform --dead-letters`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		ledgerStatCommand(), ledgerLsCommand(), ledgerVerifyCommand(), ledgerSinksCommand(), ledgerLettersCommand(),
		ledgerReplayCommand(), ledgerAttachCommand(), ledgerForgetCommand(),
	)
	return c
}

// flags adds the flags that every command has which only reads.
func (p *ledgerPlace) flags(c *cobra.Command) {
	c.Use += " [FILE]"
	c.Args = cobra.MaximumNArgs(1)
	p.dirFlags(c)
	c.Flags().BoolVar(&p.json, "json", false, "print JSON")
}

// dirFlags adds the flags that name a data directory.
func (p *ledgerPlace) dirFlags(c *cobra.Command) {
	c.Flags().StringVarP(&p.config, "config", "c", defaultConfig, "configuration file that names the data directory")
	c.Flags().StringVar(&p.dir, "dir", "", "data directory")
}

// open finds the ledger and opens it.
func (p *ledgerPlace) open(c *cobra.Command, args []string) (ledgerReader, error) {
	given := len(args)
	for _, flag := range []string{"config", "dir"} {
		if c.Flags().Changed(flag) {
			given++
		}
	}
	if given > 1 {
		return nil, usageError(errors.New("got several ledgers, want one of -c, --dir and a file"))
	}
	if len(args) > 0 {
		return inspect.Open(args[0])
	}
	dir, err := p.directory()
	if err != nil {
		return nil, err
	}
	if a := askAgent(c.Context(), dir); a != nil {
		return a, nil
	}
	return inspect.Open(filepath.Join(dir, ledger.File))
}

// directory finds the data directory.
func (p *ledgerPlace) directory() (string, error) {
	if p.dir != "" {
		return p.dir, nil
	}
	s, err := load(p.config)
	if err != nil {
		return "", err
	}
	if s.DataDir == "" {
		return "", usageError(fmt.Errorf("%s: data_dir: got nothing, want a directory, or give --dir or the ledger's file", p.config))
	}
	p.settings = s
	return string(s.DataDir), nil
}

// sinks are the names that the configuration has; known is false when none was
// read.
func (p *ledgerPlace) sinks() (names []string, known bool) {
	if p.settings == nil {
		return nil, false
	}
	for _, s := range p.settings.statesync.Sinks {
		names = append(names, s.Name)
	}
	return names, true
}

func ledgerStatCommand() *cobra.Command {
	p := &ledgerPlace{}
	c := &cobra.Command{
		Use:   "stat",
		Short: "Sum a ledger up",
		Long: `Sum a ledger up: what is kept, where the workloads stand, how far the streams
and the sinks have come, and what was lost.`,
		Example: `  outrider ledger stat -c outrider.yaml
  outrider ledger stat --dir /var/lib/outrider
  outrider ledger stat --json copy.db | jq .sinks`,
	}
	p.flags(c)
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		l, err := p.open(c, args)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		s, err := l.Stat(c.Context())
		if err != nil {
			return err
		}
		if p.json {
			return printJSON(c.OutOrStdout(), s)
		}
		return s.WriteText(c.OutOrStdout(), time.Now())
	}
	return c
}

func ledgerLsCommand() *cobra.Command {
	p := &ledgerPlace{}
	var q inspect.Query
	var key string
	c := &cobra.Command{
		Use:   "ls",
		Short: "List the changes in a ledger",
		Long: `List changes, the newest last: number, when it was recorded, workload, the states
from and to with the reason; "late" when a list or an audit found it, and
"reconstructed" when it was filled in. With --json each line is the change as
it is stored, with its number.`,
		Example: `  outrider ledger ls
  outrider ledger ls --workload load/Pod/report-7 --last 0
  outrider ledger ls --after 48000 --json copy.db
  outrider ledger ls --gaps`,
	}
	p.flags(c)
	c.Flags().IntVar(&q.Last, "last", 20, "only the last N; 0: all. With --after all, unless it is given")
	c.Flags().Int64Var(&q.After, "after", 0, "only changes with a number above")
	c.Flags().StringVar(&key, "workload", "", "only this workload: NAMESPACE/KIND/NAME")
	c.Flags().StringVar(&q.UID, "uid", "", "only this life of a workload")
	c.Flags().BoolVar(&q.Gaps, "gaps", false, "only gaps")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if q.Last < 0 || q.After < 0 {
			return usageError(errors.New("--last, --after: got a number below 0, want one from 0"))
		}
		if c.Flags().Changed("after") && !c.Flags().Changed("last") {
			q.Last = 0
		}
		if key != "" {
			k, err := inspect.ParseKey(key)
			if err != nil {
				return usageError(err)
			}
			q.Workload = &k
		}
		l, err := p.open(c, args)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		return p.list(c, l, q)
	}
	return c
}

func (p *ledgerPlace) list(c *cobra.Command, l ledgerReader, q inspect.Query) error {
	out := bufio.NewWriter(c.OutOrStdout())
	enc := json.NewEncoder(out)
	err := l.Ls(c.Context(), q, func(r inspect.Row) error {
		if p.json {
			return enc.Encode(r)
		}
		_, err := out.WriteString(r.Line() + "\n")
		return err
	})
	return errors.Join(err, out.Flush())
}

// verifyFlags are those of verify alone.
type verifyFlags struct {
	against, sink string
	findings      int
}

func ledgerVerifyCommand() *cobra.Command {
	p := &ledgerPlace{}
	var f verifyFlags
	c := &cobra.Command{
		Use:   "verify",
		Short: "Recount a ledger, and compare it with what a receiver has recorded",
		Long: `Recount a ledger from its rows, trusting no stored counter, and say where a rule
is broken. With --against compare it with what a receiver has recorded, one
CloudEvent a line, as the file sink writes them: every change that the sink has
acknowledged must be there. Exit code 0: every rule holds; 1: one does not, or
the ledger cannot be read; 2: a wrong command line.`,
		Example: `  outrider ledger verify -c outrider.yaml
  outrider ledger verify --against changes.ndjson --sink archive
  zcat changes.ndjson.gz | outrider ledger verify --against - copy.db`,
	}
	p.flags(c)
	c.Flags().StringVar(&f.against, "against", "", "what a receiver has recorded: a file of CloudEvents, one a line; - is standard input")
	c.Flags().StringVar(&f.sink, "sink", "", "the sink through which it got them (default: the only one, or the one furthest behind)")
	c.Flags().IntVar(&f.findings, "findings", 5, "how many findings to show for each check")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		switch {
		case f.sink != "" && f.against == "":
			return usageError(errors.New("--sink: got it without --against, want both"))
		case f.findings < 1:
			return usageError(fmt.Errorf("--findings: got %d, want at least 1", f.findings))
		}
		l, err := p.open(c, args)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		return p.verify(c, l, f)
	}
	return c
}

func (p *ledgerPlace) verify(c *cobra.Command, l ledgerReader, f verifyFlags) error {
	progress, done := showProgress(os.Stderr)
	defer done()
	report, err := l.Verify(c.Context(), inspect.VerifyOptions{Findings: f.findings, Progress: progress})
	if err != nil {
		return err
	}
	if f.against != "" {
		if err := f.compare(c, l, report, progress); err != nil {
			return err
		}
	}
	done()
	if p.json {
		err = printJSON(c.OutOrStdout(), report)
	} else {
		err = report.WriteText(c.OutOrStdout())
	}
	if err == nil && !report.Holds() {
		return errFindings
	}
	return err
}

// compare adds to the report what a receiver's record shows. The record stays
// on this side: it may be larger than an agent takes, or a stream. The
// cursor is read before it, so that all it acknowledges has been recorded.
func (f verifyFlags) compare(c *cobra.Command, l ledgerReader, report *inspect.Report, progress func(inspect.Progress)) (err error) {
	s, err := l.Stat(c.Context())
	if err != nil {
		return err
	}
	sink, err := pickSink(s.Sinks, f.sink)
	if err != nil {
		return err
	}
	var in io.Reader = c.InOrStdin()
	if f.against != "-" {
		file, err := os.Open(f.against)
		if err != nil {
			return usageError(fmt.Errorf("--against: %w", err))
		}
		defer file.Close()
		in = file
	}
	checks, notes, err := inspect.Compare(c.Context(), inspect.CompareOptions{
		Cluster: s.Cluster, Sink: sink, Lost: s.Live || len(s.Losses) > 0 || s.Rescue != nil,
		Rows: func(yield func(inspect.Row) error) error {
			return l.Ls(c.Context(), inspect.Query{}, yield)
		},
		Record: in, Findings: f.findings, Progress: progress,
	})
	if err != nil {
		return err
	}
	report.Checks = append(report.Checks, checks...)
	report.Notes = append(report.Notes, fmt.Sprintf("the record is compared up to the cursor of sink %s: %d", sink.Name, sink.Cursor))
	report.Notes = append(report.Notes, notes...)
	return nil
}

// pickSink returns the sink of that name; without one, the one furthest
// behind, whose changes all the others have too.
func pickSink(sinks []inspect.SinkStat, name string) (inspect.SinkStat, error) {
	var names []string
	for _, s := range sinks {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	switch {
	case len(sinks) == 0:
		return inspect.SinkStat{}, errors.New("compare: the ledger knows no sink, want one whose cursor says how far the record goes")
	case name != "":
		return inspect.SinkStat{}, usageError(fmt.Errorf("--sink: got %s, want one of %s", name, strings.Join(names, ", ")))
	}
	return slices.MinFunc(sinks, func(a, b inspect.SinkStat) int { return int(min(1, max(-1, a.Cursor-b.Cursor))) }), nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// showProgress returns what shows progress in one line of a terminal, and
// what takes the line away. Where there is no terminal it shows nothing.
func showProgress(w *os.File) (show func(inspect.Progress), done func()) {
	line, done := showLine(w)
	return func(p inspect.Progress) {
		line(func() string {
			text := fmt.Sprintf("%s %d", p.Stage, p.Done)
			if p.Total > 0 {
				text += fmt.Sprintf(" of %d (%d%%)", p.Total, 100*p.Done/p.Total)
			}
			return text
		})
	}, done
}

// isTerminal reports whether somebody sits at the other end.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// showLine is [showProgress] for any text.
func showLine(w *os.File) (show func(text func() string), done func()) {
	if !isTerminal(w) {
		return func(func() string) {}, func() {}
	}
	var last time.Time
	shown := false
	show = func(text func() string) {
		if time.Since(last) < 200*time.Millisecond {
			return
		}
		last, shown = time.Now(), true
		fmt.Fprintf(w, "\r\x1b[K%s", text())
	}
	done = func() {
		if shown {
			fmt.Fprint(w, "\r\x1b[K")
			shown = false
		}
	}
	return show, done
}
