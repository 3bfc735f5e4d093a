package controller

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/watch"
)

const (
	// A server sends a bookmark about once a minute; two missed ones and some
	// time mean that the stream is dead.
	streamStale = 150 * time.Second
	sinkWarn    = 10 * time.Second // the oldest change not acknowledged
	sinkFail    = time.Minute
	ledgerFail  = 5 * time.Second // the first commit that failed
	tellFor     = time.Hour       // after a gap or a correction
	tellRescue  = 24 * time.Hour  // after a damaged ledger
	checkEvery  = time.Second
	sinksEvery  = 10 * time.Second // the cursors are read from the ledger
)

// Checks returns the checks of state sync: the cluster, each stream, the
// ledger and each sink.
func (c *Controller) Checks() []runner.Check {
	checks := []runner.Check{
		{Name: "cluster", Groups: []string{runner.ReadyGroup}, Run: c.checkCluster},
		{Name: "ledger", Run: c.checkLedger},
		{Name: "sinks", Category: verdict.Email, Every: sinksEvery, Run: c.checkSinks},
	}
	for _, s := range c.streams {
		checks = append(checks, runner.Check{
			Name: "stream/" + s.Name(), Groups: []string{runner.ReadyGroup},
			Run: func(context.Context) verdict.Result { return c.checkStream(s.Name()) },
		})
	}
	for _, name := range c.names() {
		checks = append(checks, runner.Check{
			Name: "sink/" + name,
			Run:  func(context.Context) verdict.Result { return c.checkSink(name) },
		})
	}
	for i := range checks {
		if checks[i].Every == 0 {
			checks[i].Every = checkEvery
		}
	}
	return checks
}

func (c *Controller) checkCluster(context.Context) verdict.Result {
	if err := c.trouble.Load(); err != nil {
		return verdict.Result{Status: verdict.Fail, Message: (*err).Error()}
	}
	if c.watcher.Load() == nil {
		return verdict.Result{Status: verdict.Unknown, Message: "asking the API server at " + c.client.Host()}
	}
	return verdict.Result{Status: verdict.Pass, Message: "API server at " + c.client.Host()}
}

func (c *Controller) checkLedger(context.Context) verdict.Result {
	if since, err := c.ledger.Failure(); err != nil {
		return ledgerFailure(since, err, c.opts.Now())
	}
	if err := c.ledger.Intact(); err != nil {
		return verdict.Result{Status: verdict.Fail, Message: err.Error() + "; stop the agent, put it back or start with an empty data directory"}
	}
	head, _ := c.ledger.Head()
	value := float64(head)
	r := verdict.Result{Status: verdict.Pass, Message: fmt.Sprintf("%d changes recorded", head), Value: &value, Unit: "changes"}
	if at, report := c.ledger.Rescued(); !at.IsZero() && c.opts.Now().Sub(at) < tellRescue {
		r.Status, r.Message = verdict.Warn, fmt.Sprintf("the ledger was damaged at %s: %s", at.Format(time.RFC3339), report)
	}
	return r
}

// ledgerFailure: what holds the database locked for a moment, such as a copy
// being made, wakes nobody.
func ledgerFailure(since time.Time, err error, now time.Time) verdict.Result {
	r := verdict.Result{Status: verdict.Warn, Message: fmt.Sprintf("cannot commit since %s: %s", since.Format(time.TimeOnly), err)}
	if now.Sub(since) >= ledgerFail {
		r.Status = verdict.Fail
	}
	return r
}

func (c *Controller) checkStream(name string) verdict.Result {
	for _, s := range c.standings() {
		if s.Name == name {
			return streamResult(s, c.opts.Now())
		}
	}
	return verdict.Result{Status: verdict.Unknown, Message: "not started: the cluster is not identified yet"}
}

// streamResult: a stream that waits at its own gate is neither stale nor
// unready; what fills the ledger or a sink has a check of its own.
func streamResult(s watch.Standing, now time.Time) verdict.Result {
	trouble := ""
	if s.Failure != nil {
		trouble = "; last call: " + s.Failure.Error()
	}
	age := now.Sub(s.Seen)
	r := verdict.Result{Status: verdict.Pass}
	switch {
	case s.Held:
		r.Message = fmt.Sprintf("held: %d events wait to be recorded", s.Pending)
		return r
	case s.Seen.IsZero():
		r.Status, r.Message = verdict.Unknown, "nothing read yet"+trouble
		if s.Resume > 0 {
			r.Message = fmt.Sprintf("goes on from version %d, nothing read yet%s", s.Resume, trouble)
		}
		if s.Failure != nil {
			r.Status = verdict.Fail
		}
		return r
	case !s.Synced:
		r.Status, r.Message = verdict.Unknown, "the first list is not complete"+trouble
	case age > streamStale:
		r.Status, r.Message = verdict.Fail, fmt.Sprintf("no event or bookmark for %s, want one in %s%s", age.Round(time.Second), streamStale, trouble)
	case s.Failure != nil:
		r.Status, r.Message = verdict.Warn, "trying again"+trouble
	case s.LastGap != nil && now.Sub(s.LastGap.To) < tellFor:
		r.Status, r.Message = verdict.Warn, gapMessage(s.LastGap)
	case !s.Corrected.IsZero() && now.Sub(s.Corrected) < tellFor:
		r.Status, r.Message = verdict.Warn, correctionMessage(s)
	case s.Failing > 0:
		r.Status, r.Message = verdict.Warn, fmt.Sprintf("the rules of the kind fail on %d of %d objects; the log names them", s.Failing, s.Objects)
	default:
		r.Message = fmt.Sprintf("%d objects, last heard %s ago", s.Objects, age.Round(time.Second))
	}
	seconds := age.Seconds()
	r.Value, r.Unit = &seconds, "seconds"
	return r
}

func gapMessage(g *statesync.Gap) string {
	return fmt.Sprintf("a gap (%s): what happened from %s to %s, versions %d to %d, is not known",
		g.Reason, g.From.Format(time.RFC3339), g.To.Format(time.RFC3339), g.FromRV, g.ToRV)
}

func correctionMessage(s watch.Standing) string {
	return fmt.Sprintf("the API server never told of %d objects, the last at %s; the audit found them (%d added, %d changed, %d deleted)",
		s.Corrections["added"]+s.Corrections["changed"]+s.Corrections["deleted"], s.Corrected.Format(time.TimeOnly),
		s.Corrections["added"], s.Corrections["changed"], s.Corrections["deleted"])
}

func (c *Controller) standings() []watch.Standing {
	if w := c.watcher.Load(); w != nil {
		return w.Streams()
	}
	return nil
}

// Status writes the lines of the status text that are state sync's own.
func (c *Controller) Status(w io.Writer) {
	now := c.opts.Now()
	for _, s := range c.standings() {
		state := "watching"
		switch {
		case s.Held:
			state = "held"
		case !s.Synced:
			state = "listing"
		case s.Failure != nil:
			state = "retrying"
		}
		age := "-"
		if !s.Seen.IsZero() {
			age = now.Sub(s.Seen).Round(time.Second).String()
		}
		fmt.Fprintf(w, "stream  %-24s %-9s objects %-7d pending %-6d heard %s ago\n", s.Name, state, s.Objects, s.Pending, age)
	}
	for _, k := range c.running() {
		k.status(w)
	}
}
