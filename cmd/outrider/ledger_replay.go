package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/ledger/inspect"
	"github.com/outrider-agent/outrider/statesync/ledger/replay"
)

// replayer is a ledger that replays: through its agent, or held.
type replayer interface {
	Replay(ctx context.Context, q replay.Query, tell func(replay.Report)) (replay.Report, error)
	Close() error
}

// replayFlags are those of replay as they are typed.
type replayFlags struct {
	since, until, workload, state, rate string
	ids                                 []int64
}

func ledgerReplayCommand() *cobra.Command {
	p := &ledgerPlace{}
	var q replay.Query
	var f replayFlags
	c := &cobra.Command{
		Use:   "replay --sink SINK",
		Short: "Have a sink given changes again, or the dead letters that it refused",
		Long: `Have a sink given again what the ledger keeps: changes of the log, with their old
ID, seq and number and marked as replayed, up to where the sink stands (what
comes after is on its way anyhow); or its dead letters, which go from the list
once they are to be sent. What was replayed comes before what waits, in its own
order, as fast as the sink takes it; what the sink's filter leaves out comes
too. The command ends when all is written down to be sent, at --rate: outrider
ledger sinks says what still waits.

Something must say what to replay; all of the log is --from 1. The ledger keeps
changes for a time only (ledger.keep): what is gone is not found. The agent is
asked; without one, the data directory is used directly.

Ctrl-C ends it: what was written down by then is sent, and the last line says
how to go on. Exit code 0: all was replayed, or nothing was found; 1: it ended
before, or was refused; 2: a wrong command line.`,
		Example: `  outrider ledger replay --sink platform --dead-letters
  outrider ledger replay --sink platform --dead-letters --id 17,18
  outrider ledger replay --sink platform --from 48000 --to 52000 --rate 500/s
  outrider ledger replay --sink platform --since 2h --state Failed --dry-run
  outrider ledger replay --sink platform --workload load/Pod/report-7`,
		Args: cobra.NoArgs,
	}
	p.dirFlags(c)
	flags := c.Flags()
	flags.StringVar(&q.Sink, "sink", "", "the sink to replay to")
	flags.BoolVar(&q.Letters, "dead-letters", false, "replay its dead letters, not changes of the log")
	flags.Int64SliceVar(&f.ids, "id", nil, "only these dead letters")
	flags.Int64Var(&q.From, "from", 0, "only changes from this number on")
	flags.Int64Var(&q.To, "to", 0, "only changes up to this number")
	flags.StringVar(&f.since, "since", "", "only what was recorded (dead letters: refused) since: 2h, or 2026-11-22T15:04:05Z")
	flags.StringVar(&f.until, "until", "", "only what was recorded before")
	flags.StringVar(&f.workload, "workload", "", "only this workload: NAMESPACE/KIND/NAME")
	flags.StringVar(&q.UID, "uid", "", "only this life of a workload")
	flags.StringVar(&f.state, "state", "", "only changes to this state, such as Failed")
	flags.StringVar(&f.rate, "rate", "100/s", "how many are written down a second; 0: as fast as the ledger can")
	flags.BoolVar(&q.DryRun, "dry-run", false, "only count")
	flags.BoolVar(&p.json, "json", false, "print how far it is as JSON, one object a line")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := f.into(&q, time.Now()); err != nil {
			return usageError(err)
		}
		return p.replay(c, q)
	}
	return c
}

// into reads the flags.
func (f *replayFlags) into(q *replay.Query, now time.Time) (err error) {
	if q.From < 0 || q.To < 0 {
		return fmt.Errorf("--from, --to: got %d and %d, want numbers from 1", q.From, q.To)
	}
	if q.Since, err = parseTime("--since", f.since, now); err != nil {
		return err
	}
	if q.Until, err = parseTime("--until", f.until, now); err != nil {
		return err
	}
	if f.workload != "" {
		k, err := inspect.ParseKey(f.workload)
		if err != nil {
			return err
		}
		q.Workload = &k
	}
	rate, err := strconv.ParseUint(strings.TrimSuffix(f.rate, "/s"), 10, 30)
	if err != nil {
		return fmt.Errorf("--rate: got %q, want a number a second such as 100/s, or 0", f.rate)
	}
	q.Rate, q.IDs, q.State = int(rate), f.ids, statesync.State(f.state)
	return q.Check()
}

// parseTime reads a time, or how long ago it was.
func parseTime(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, fmt.Errorf("%s: got %q, want how long ago (2h), or a time (2026-11-22T15:04:05Z)", flag, s)
	}
	return t, nil
}

func (p *ledgerPlace) replay(c *cobra.Command, q replay.Query) (err error) {
	dir, err := p.directory()
	if err != nil {
		return err
	}
	var l replayer
	if a := askAgent(c.Context(), dir); a != nil {
		l = a
	} else if l, err = p.holdLedger(dir, c.ErrOrStderr()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	line, done := showLine(os.Stderr)
	defer done()
	enc := json.NewEncoder(c.OutOrStdout())
	r, failure := l.Replay(c.Context(), q, func(r replay.Report) {
		line(func() string { return replayProgress(r, q.Rate) })
		if p.json {
			_ = enc.Encode(r) // the last line says whether anybody reads
		}
	})
	done()
	if failure != nil && r.Error == "" {
		r.Error = failure.Error()
	}
	if p.json {
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else if failure == nil {
		if _, err := fmt.Fprintln(c.OutOrStdout(), replayed(r)); err != nil {
			return err
		}
	}
	if failure == nil {
		return nil
	}
	return replayEnded(r, failure, c.Context().Err() != nil)
}

// replayProgress is a line for a terminal.
func replayProgress(r replay.Report, rate int) string {
	text := fmt.Sprintf("replayed %d of %d", r.Done, r.Found)
	if r.Found > 0 {
		text += fmt.Sprintf(" (%d%%)", 100*r.Done/r.Found)
	}
	if r.Seconds > 0 {
		text += fmt.Sprintf(", %.0f/s", float64(r.Done)/r.Seconds)
	}
	left := r.Left()
	if left == 0 && rate > 0 {
		left = time.Duration(float64(r.Found-r.Done) / float64(rate) * float64(time.Second))
	}
	if left > 0 {
		text += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	return text
}

// countOf is a number of what was replayed.
func countOf(n int64, letters bool) string {
	what := "change"
	if letters {
		what = "dead letter"
	}
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// replayed says what was done.
func replayed(r replay.Report) string {
	switch {
	case r.Found == 0 && r.Letters:
		return "found no dead letters to replay to sink " + r.Sink
	case r.Found == 0:
		return fmt.Sprintf("found no changes to replay to sink %s, up to its cursor at %d", r.Sink, r.Cursor)
	case r.DryRun:
		return fmt.Sprintf("found %s to replay to sink %s; nothing was done", countOf(r.Found, r.Letters), r.Sink)
	}
	text := fmt.Sprintf("replayed %s to sink %s: they are sent as fast as it takes them", countOf(r.Done, r.Letters), r.Sink)
	if r.Done < r.Found {
		text += fmt.Sprintf("; %d have gone meanwhile", r.Found-r.Done)
	}
	return text
}

// replayEnded says how far a replay came that ended before its end, and how to
// go on.
func replayEnded(r replay.Report, failure error, interrupted bool) error {
	if interrupted {
		failure = errors.New("interrupted")
	}
	switch {
	case r.Done == 0:
		return failure
	case r.Letters:
		return fmt.Errorf("%w: %d of %s replayed; the rest are still dead letters: the same command goes on with them", failure, r.Done, countOf(r.Found, true))
	}
	return fmt.Errorf("%w: %d of %s replayed, up to number %d; go on with --from %d", failure, r.Done, countOf(r.Found, false), r.Last, r.Last+1)
}
