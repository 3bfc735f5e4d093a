package controller

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/delivery"
)

// checkSink looks the sink up by its name: a reload may have put another in
// its place.
func (c *Controller) checkSink(name string) verdict.Result {
	s := find(c.running(), name)
	switch {
	case s == nil:
		return verdict.Result{Status: verdict.Unknown, Message: "not configured any more"}
	case s.failure != nil:
		return verdict.Result{Status: verdict.Fail, Message: "not open: " + s.failure.Error() + "; mend it and reload"}
	}
	standing, now := s.dispatcher.Standing(), c.opts.Now()
	return sinkResult(standing, c.noteLetters(standing, now), now)
}

// sinkResult: lately is how many dead letters came in the last hour. It fails
// for the sink as a whole alone: workloads that are parked are a warning, however
// long, as long as others may pass.
func sinkResult(s delivery.Standing, lately int64, now time.Time) verdict.Result {
	if s.Detached != "" {
		return verdict.Result{Status: verdict.Fail, Message: fmt.Sprintf(
			"detached since %s: %s; nothing is kept for it; it comes back with a gap: outrider reload, or outrider ledger attach %s",
			s.DetachedAt.UTC().Format(time.RFC3339), detachedBecause(s.Detached), s.Name)}
	}
	waited := time.Duration(0)
	if !s.Oldest.IsZero() {
		waited = max(0, now.Sub(s.Oldest))
	}
	value := waited.Seconds()
	r := verdict.Result{Status: verdict.Pass, Value: &value, Unit: "seconds"}
	said := []string{fmt.Sprintf("all %d changes acknowledged", s.Acked)}
	if s.Waiting > 0 {
		said[0] = fmt.Sprintf("%d changes wait", s.Waiting)
		if !s.Oldest.IsZero() {
			said[0] += ", the oldest for " + waited.Round(100*time.Millisecond).String()
		}
		switch {
		case waited >= sinkFail || s.TakesNothing(now) >= sinkFail:
			r.Status = verdict.Fail
		case waited >= sinkWarn || (!s.Failing.IsZero() && now.Sub(s.Failing) >= sinkWarn):
			r.Status = verdict.Warn
		}
		if !s.Failing.IsZero() {
			said = append(said, fmt.Sprintf("failing since %s: %s", s.Failing.Format(time.TimeOnly), s.Failure))
		}
	}
	if s.Parked > 0 {
		parked := fmt.Sprintf("the changes of %d workloads are refused for now", s.Parked)
		if !s.Stuck.IsZero() {
			parked += ", the oldest for " + max(0, now.Sub(s.Stuck)).Round(100*time.Millisecond).String()
		}
		said = append(said, parked)
	}
	if lately > 0 {
		said = append(said, fmt.Sprintf("%d dead letters in the last hour: outrider ledger deadletters", lately))
	}
	if (s.Parked > 0 || lately > 0) && r.Status == verdict.Pass {
		r.Status = verdict.Warn
	}
	r.Message = strings.Join(said, "; ")
	return r
}

// detachedBecause says in words why a sink is detached.
func detachedBecause(word string) string {
	switch word {
	case statesync.DetachedFull:
		return "the ledger was full, and this sink held the most of it"
	case statesync.DetachedGone:
		return "the receiver answered 410, it wants nothing any more"
	}
	return word
}

// checkSinks tells of cursors that no sink of the configuration has: of a sink
// that was taken out on purpose, or whose name was changed by mistake.
func (c *Controller) checkSinks(ctx context.Context) verdict.Result {
	cursors, err := c.ledger.Sinks(ctx)
	if err != nil {
		return verdict.Result{Status: verdict.Unknown, Message: err.Error()}
	}
	return sinksResult(cursors, c.names())
}

func sinksResult(cursors []statesync.Cursor, configured []string) verdict.Result {
	var left []string
	for _, cursor := range cursors {
		if !slices.Contains(configured, cursor.Sink) {
			left = append(left, fmt.Sprintf("%s (at %d)", cursor.Sink, cursor.Acked))
		}
	}
	if left == nil {
		return verdict.Result{Message: fmt.Sprintf("%d sinks", len(configured))}
	}
	slices.Sort(left)
	return verdict.Result{Status: verdict.Warn, Message: fmt.Sprintf(
		"cursors of sinks that are not configured are kept: %s; if they are not to come back: outrider ledger forget NAME", strings.Join(left, ", "))}
}

// statusName is how much of a sink's name the status text shows, so that no
// line is longer than 100 columns.
const statusName = 40

// status writes a sink's lines of the status text.
func (s *sink) status(w io.Writer) {
	if s.failure != nil {
		fmt.Fprintf(w, "sink    %-24s not open\n", clip(s.config.Name, statusName))
		return
	}
	writeSink(w, s.dispatcher.Standing())
}

func writeSink(w io.Writer, s delivery.Standing) {
	state := "well"
	switch {
	case s.Detached != "":
		state = "detached"
	case !s.Failing.IsZero():
		state = "failing"
	}
	fmt.Fprintf(w, "sink    %-24s %-9s acked %d of %d\n", clip(s.Name, statusName), state, s.Acked, s.Head)
	if s.Detached != "" {
		fmt.Fprintf(w, "        since %s: %s\n", s.DetachedAt.UTC().Format(time.RFC3339), clip(detachedBecause(s.Detached), 64))
	}
	var more []string
	if s.Breaker != "" && s.Breaker != "closed" {
		more = append(more, "breaker "+s.Breaker)
	}
	for _, f := range []struct {
		word string
		n    int64
	}{{"parked", int64(s.Parked)}, {"aside", s.Aside}, {"dead letters", s.Letters}} {
		if f.n > 0 {
			more = append(more, fmt.Sprintf("%s %d", f.word, f.n))
		}
	}
	if more != nil {
		fmt.Fprintf(w, "        %s\n", strings.Join(more, "  "))
	}
}

// clip cuts text; a dot at its end says so.
func clip(text string, width int) string {
	if r := []rune(text); len(r) > width {
		return string(r[:width-1]) + "."
	}
	return text
}
