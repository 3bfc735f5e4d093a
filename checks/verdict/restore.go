package verdict

import (
	"fmt"
	"strings"
	"time"
)

// Restore makes a state, that was kept over a restart, fit to go on with. What is
// too old to say anything is unknown, as before the first result; its history,
// its counts, and what people said stay. A moment that is still to come, from a
// clock that was ahead, counts as now. The error says what no state has.
func Restore(s State, p Policy, now time.Time) (State, error) {
	for name, h := range map[string]string{"history": s.History, "verdicts": s.Verdicts} {
		if len(h) > HistoryLen || strings.Trim(h, "pwfu") != "" {
			return State{}, fmt.Errorf("%s: got %.30q, want at most %d of p, w, f and u", name, h, HistoryLen)
		}
	}
	for i := range severities {
		if s.AtLeast[i] < 0 || s.AtMost[i] < 0 {
			return State{}, fmt.Errorf("results in a row: got %v and %v, want none below 0", s.AtLeast, s.AtMost)
		}
	}
	if Compare(s.Status, s.Settled) < 0 {
		return State{}, fmt.Errorf("status: got %v, want nothing better than what it settled on without damping, %v", s.Status, s.Settled)
	}
	if s.Busy < 0 {
		return State{}, fmt.Errorf("busy: got %v, want 0 or more", s.Busy)
	}
	s.Last = s.Last.clean()
	s.Stalled = Stall{} // its goroutine is gone
	for _, t := range []*time.Time{&s.Since, &s.Last.At, &s.Registered, &s.Ack.At, &s.Maintenance.Since, &s.Healing.Since} {
		if t.After(now) {
			*t = now
		}
	}
	s.Ack.Who, s.Ack.Why = Clean(s.Ack.Who), Clean(s.Ack.Why)
	if m := s.Maintenance; !m.Active(now) || m.Until.After(now.Add(MaxMaintenance)) {
		s.Maintenance = Maintenance{}
	}
	s.Maintenance.Who, s.Maintenance.Why = Clean(s.Maintenance.Who), Clean(s.Maintenance.Why)
	if h := s.Healing; h.Deadline.After(h.Since.Add(MaxHealing)) {
		s.Healing = Healing{}
	}
	s.Healing.Remedy = Clean(s.Healing.Remedy)
	if s.Runs > 0 && !s.Stale && (p.StaleAfter <= 0 || now.Sub(s.Last.At) < p.StaleAfter) {
		return s, nil
	}
	s.Registered = now
	s.Stale = false
	s.AtLeast, s.AtMost = [severities]int{}, [severities]int{}
	if s.Status != Unknown {
		s.Status, s.Since = Unknown, now
	}
	s.Settled, s.Flapping = Unknown, false
	return s, nil
}
