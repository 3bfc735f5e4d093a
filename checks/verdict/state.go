package verdict

import (
	"fmt"
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
// needs PassAfter new results to get better. What was restored after a restart
// and has become too old meanwhile is unknown, as before the first result.
//
// Stalls. A run that does not end is no result. The verdict is unknown at the
// run's deadline unless it is worse already, and fail when as much time again
// has gone.

// Flaps. A verdict that jumps to and fro is damped: see flap.go.
//
// What people and remedies say of a check, and what follows from the checks that
// it depends on, is no part of the verdict. It decides how the verdict is shown:
// see shown.go.

// HistoryLen is how many results a history holds: as many as Nagios looks at
// to tell whether a service flaps.
const HistoryLen = 21

// A State is the verdict on one check, with what it takes to find the next
// one. It is a plain value: copies are independent.
type State struct {
	Status     Status    `json:"status"`
	Since      time.Time `json:"since"` // when Status came to be; never goes back
	Registered time.Time `json:"registered"`
	Last       Result    `json:"last"`  // zero before the first
	Stale      bool      `json:"stale"` // the last result is late, or there is none in time

	Runs    uint64        `json:"runs"`    // results so far
	Changes uint64        `json:"changes"` // how often Status changed, by age included
	Busy    time.Duration `json:"busy"`    // how long its runs took, all together
	History string        `json:"history"` // the last results, oldest first, a letter each: p, w, f or u

	// Settled is the status without damping, Verdicts what it was after each of
	// the last results, as in History. Flapping is whether Status is damped.
	Settled  Status `json:"settled"`
	Verdicts string `json:"verdicts"`
	Flapping bool   `json:"flapping"`

	// AtLeast and AtMost count, for each degree of badness (pass, warn,
	// unknown, fail), how many of the newest results in a row were that bad or
	// worse, and that good or better.
	AtLeast [severities]int `json:"at_least"`
	AtMost  [severities]int `json:"at_most"`

	Stalled     Stall       `json:"stalled,omitzero"`
	Ack         Ack         `json:"ack,omitzero"`
	Maintenance Maintenance `json:"maintenance,omitzero"`
	Healing     Healing     `json:"healing,omitzero"`
}

// A Stall is a run that does not end. The zero Stall is none.
type Stall struct {
	Message string    `json:"message"`
	FailAt  time.Time `json:"fail_at,omitzero"` // from then on it is a failure
}

// New returns the state of a check registered at that moment.
func New(registered time.Time) State {
	return State{Status: Unknown, Settled: Unknown, Since: registered, Registered: registered}
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
	s.Settled = s.target(p, severity)
	s.Last, s.Stale, s.Stalled = r, false, Stall{}
	s.Runs++
	s.Busy += max(0, r.Took)
	s.History = remember(s.History, r.Status)
	s.Verdicts = remember(s.Verdicts, s.Settled)
	s.Flapping = flaps(s.History, s.Flapping, p)
	return s.become(s.damped(), r.At)
}

// At returns the state as it has to be shown at a moment: [State] ages. It
// may be applied again to what it returned.
func At(s State, p Policy, now time.Time) State {
	if at := s.Stalled.FailAt; !at.IsZero() && !now.Before(at) {
		s = s.settle(Fail, at)
	}
	last := s.Registered
	if s.Last.At.After(last) {
		last = s.Last.At // else it is from before a restart
	}
	age := now.Sub(last)
	if p.StaleAfter <= 0 || age < p.lateAfter() {
		return s
	}
	s.Stale = true
	s.AtMost = [severities]int{} // silence is no pass
	s = s.settle(Unknown, last.Add(p.lateAfter()))
	if age >= p.StaleAfter {
		s = s.settle(Fail, last.Add(p.StaleAfter))
	}
	return s
}

// Stop returns the state of a check whose run did not end in time. Nobody knows
// any more: it is unknown and stale, and at failAt a failure, however many
// results that takes otherwise. The message says what did not end.
func Stop(s State, p Policy, now, failAt time.Time, message string) State {
	s = At(s, p, now)
	s.Stale = true
	s.AtMost = [severities]int{}
	s.Stalled = Stall{Message: Clean(message), FailAt: failAt}
	return s.settle(Unknown, now)
}

// Resume returns the state after such a run has ended all the same, with an
// answer that came too late. What it has come to stays until the next result.
func Resume(s State, p Policy, now time.Time) State {
	s = At(s, p, now)
	s.Stalled.FailAt = time.Time{}
	return s
}

// Message is the sentence to show with the verdict. It does not depend on the
// present moment, so what was rendered stays true while the state does.
func (s State) Message() string {
	silence := s.Stalled.Message
	if silence == "" && s.Runs > 0 {
		silence = "no result since " + s.Last.At.UTC().Format(time.RFC3339)
	}
	switch {
	case s.Stale && silence != "" && s.Last.Message == "":
		return silence
	case s.Stale && silence != "":
		return Clean(silence + "; it said: " + s.Last.Message)
	case s.Runs == 0 || s.Last.At.Before(s.Registered):
		return "no result yet"
	case s.Flapping:
		return Clean(fmt.Sprintf("flaps, the worst of %d results counts; now %v: %s", len(s.Verdicts), s.Last.Status, s.Last.Message))
	}
	return s.Last.Message
}

// target is the status that the counters ask for, the newest result, of that
// severity, included.
func (s State) target(p Policy, severity int) Status {
	now := s.Settled.severity()
	if first := s.AtLeast[severityPass] == 1; first && !s.Stale && severity < now {
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
	return s.Settled
}

// settle makes the verdict at least that bad.
func (s State) settle(status Status, at time.Time) State {
	s.Settled = Worse(s.Settled, status)
	return s.become(Worse(s.Status, status), at)
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
	if status == Pass || Compare(status, s.Ack.Status) > 0 {
		s.Ack = Ack{} // of another problem
	}
	if status == Pass {
		s.Healing = Healing{}
	}
	return s
}

// remember adds a letter to a history.
func remember(history string, s Status) string {
	history += s.String()[:1]
	return history[max(0, len(history)-HistoryLen):]
}

func countIf(more bool, n int) int {
	if more {
		return n + 1
	}
	return 0
}
