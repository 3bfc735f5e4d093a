// Package verdict is the vocabulary of health: what a check answers, and the pure state machine that turns its answers into a verdict.
//
// Nothing here reads a clock or does I/O: every moment comes in as an
// argument, so the same script of results always gives the same states.
package verdict

import (
	"fmt"
	"time"
)

// Status is one answer to "is it healthy?". The numbers are those of Nagios
// and of the metric outrider_check_status; they are not the order of badness,
// which is [Compare].
type Status int8

// The four statuses.
const (
	Pass    Status = 0 // healthy
	Warn    Status = 1 // look at it, but nobody need wake up
	Fail    Status = 2 // broken
	Unknown Status = 3 // the check could not tell
)

// The order of badness. Unknown is worse than warn, because it may hide a
// failure, and better than fail, because it may not.
const (
	severityPass = iota
	severityWarn
	severityUnknown
	severityFail
	severities
)

// String is pass, warn, fail or unknown; anything else prints as its number.
func (s Status) String() string {
	switch s {
	case Pass:
		return "pass"
	case Warn:
		return "warn"
	case Fail:
		return "fail"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("status(%d)", int8(s))
}

// MarshalText gives the status's name. A status that is none of the four is
// an error.
func (s Status) MarshalText() ([]byte, error) {
	if !s.valid() {
		return nil, fmt.Errorf("%v, want pass, warn, fail or unknown", s)
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads a status's name.
func (s *Status) UnmarshalText(text []byte) error {
	for _, known := range []Status{Pass, Warn, Fail, Unknown} {
		if string(text) == known.String() {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("status %q, want pass, warn, fail or unknown", text)
}

// Compare orders statuses by badness: fail > unknown > warn > pass. It is
// positive when a is worse than b. A status that is none of the four counts
// as unknown.
func Compare(a, b Status) int { return a.severity() - b.severity() }

// Worse returns the worse of two statuses.
func Worse(a, b Status) Status {
	if Compare(a, b) >= 0 {
		return a
	}
	return b
}

func (s Status) valid() bool { return s >= Pass && s <= Unknown }

func (s Status) severity() int {
	switch s {
	case Pass:
		return severityPass
	case Warn:
		return severityWarn
	case Fail:
		return severityFail
	}
	return severityUnknown
}

func statusOf(severity int) Status {
	return [severities]Status{Pass, Warn, Unknown, Fail}[severity]
}

// Category says who is told: every back end honours it.
type Category string

// The two categories.
const (
	Page  Category = "page"  // wakes somebody
	Email Category = "email" // can wait until the morning
)

// A Result is what one run of a check found. The zero Result is a pass that
// says nothing.
type Result struct {
	Status  Status        `json:"status"`
	Message string        `json:"message"`         // one sentence, without secrets; cut to [MaxMessage] bytes
	Value   *float64      `json:"value,omitempty"` // what was measured; nil when nothing was
	Unit    string        `json:"unit,omitempty"`  // of Value: seconds, bytes, items, ratio ...
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took"`

	// Measures are what else was measured, such as a Nagios plugin's performance
	// data; [MaxMeasures] at most, the rest is left out.
	Measures []Measure `json:"measures,omitempty"`
}

// A Policy says how results become a verdict.
type Policy struct {
	// FailAfter is how many results in a row must be worse than the verdict
	// before it gets worse, PassAfter how many must be better before it gets
	// better. Less than 1 counts as 1.
	FailAfter, PassAfter int

	// StaleAfter is the age at which the last result counts as a failure.
	// After two thirds of it the result is late, and the verdict unknown: with
	// the usual three intervals, one whole interval was missed. 0 means that
	// results never age.
	StaleAfter time.Duration

	// FlapHigh is the share of changes among the last results, in percent, from
	// which on a check flaps, FlapLow the one at which it does no longer. With a
	// FlapHigh of 0 no check flaps. See [FlapHigh].
	FlapHigh, FlapLow float64
}

func (p Policy) lateAfter() time.Duration { return p.StaleAfter * 2 / 3 }
