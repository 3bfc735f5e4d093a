package verdict

import (
	"math"
	"time"
)

// The rules, in full.
//
// Hysteresis. The verdict gets worse, to X, when the last FailAfter results
// were all X or worse. It gets better, to Y, when the last PassAfter results
// were all Y or better. So "f w f w" with FailAfter 2 is a warn, not a pass:
// two results in a row were a warn or worse.
//
// Start. Before its first result a check is unknown. A first result that is
// better than that counts at once, because there was no trouble yet that it
// could be a lull of; a first failure waits for FailAfter as any other.
//
// Age. A result older than two thirds of StaleAfter makes the verdict unknown
// unless it is worse already, one older than StaleAfter makes it fail. Before
// the first result the age counts from the registration. After that the check
// needs PassAfter new results to get better.

// HistoryLen is how many results a history holds: as many as Nagios looks at
// to tell whether a service flaps.
const HistoryLen = 21

// A State is the verdict on one check, with what it takes to find the next
// one. It is a plain value: copies are independent.
type State struct {
	Status     Status
	Since      time.Time // when Status came to be; never goes back
	Registered time.Time
	Last       Result // zero before the first
	Stale      bool   // the last result is late, or there is none in time

	Runs    uint64 // results so far
	Changes uint64 // how often Status changed, by age included
	History string // the last results, oldest first, a letter each: p, w, f or u

	// AtLeast and AtMost count, for each degree of badness (pass, warn,
	// unknown, fail), how many of the newest results in a row were that bad or
	// worse, and that good or better.
	AtLeast, AtMost [severities]int
}

// New returns the state of a check registered at that moment.
func New(registered time.Time) State {
	return State{Status: Unknown, Since: registered, Registered: registered}
}

// Next returns the state after a result. The result's message is cleaned (see
// [Clean]), a value that is not a finite number is left out, and a status that
// is none of the four counts as unknown.
func Next(s State, p Policy, r Result) State {
	s = At(s, p, r.At)
	r = r.clean()
	severity := r.Status.severity()
	for i := range severities {
		s.AtLeast[i] = countIf(severity >= i, s.AtLeast[i])
		s.AtMost[i] = countIf(severity <= i, s.AtMost[i])
	}
	target := s.target(p, severity)
	s.Last, s.Stale = r, false
	s.Runs++
	s.History += r.Status.String()[:1]
	s.History = s.History[max(0, len(s.History)-HistoryLen):]
	return s.become(target, r.At)
}

// At returns the state as it has to be shown at a moment: [State] ages. It
// may be applied again to what it returned.
func At(s State, p Policy, now time.Time) State {
	last := s.Registered
	if s.Runs > 0 {
		last = s.Last.At
	}
	age := now.Sub(last)
	if p.StaleAfter <= 0 || age < p.lateAfter() {
		return s
	}
	s.Stale = true
	s.AtMost = [severities]int{} // silence is no pass
	s = s.become(Worse(s.Status, Unknown), last.Add(p.lateAfter()))
	if age >= p.StaleAfter {
		s = s.become(Fail, last.Add(p.StaleAfter))
	}
	return s
}

// Message is the sentence to show with the verdict. It does not depend on the
// present moment, so what was rendered stays true while the state does.
func (s State) Message() string {
	switch {
	case s.Runs == 0:
		return "no result yet"
	case s.Stale && s.Last.Message == "":
		return "no result since " + s.Last.At.UTC().Format(time.RFC3339)
	case s.Stale:
		return Clean("no result since " + s.Last.At.UTC().Format(time.RFC3339) + "; it said: " + s.Last.Message)
	}
	return s.Last.Message
}

// target is the status that the counters ask for, the newest result, of that
// severity, included.
func (s State) target(p Policy, severity int) Status {
	now := s.Status.severity()
	if s.Runs == 0 && !s.Stale && severity < now {
		return statusOf(severity)
	}
	for i := severityFail; i > now; i-- {
		if s.AtLeast[i] >= max(1, p.FailAfter) {
			return statusOf(i)
		}
	}
	for i := range now {
		if s.AtMost[i] >= max(1, p.PassAfter) {
			return statusOf(i)
		}
	}
	return s.Status
}

func (s State) become(status Status, at time.Time) State {
	if status == s.Status {
		return s
	}
	s.Status = status
	s.Changes++
	if at.After(s.Since) {
		s.Since = at
	}
	return s
}

func (r Result) clean() Result {
	if !r.Status.valid() {
		r.Status = Unknown
	}
	r.Message = Clean(r.Message)
	if r.Value != nil {
		// Copied, because the check may use its variable again.
		v := *r.Value
		r.Value = &v
		if math.IsNaN(v) || math.IsInf(v, 0) {
			r.Value = nil // JSON has no word for it
		}
	}
	return r
}

func countIf(more bool, n int) int {
	if more {
		return n + 1
	}
	return 0
}
