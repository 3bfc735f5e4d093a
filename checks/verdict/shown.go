package verdict

import (
	"fmt"
	"time"
)

// How a verdict is shown, in full.
//
// Dependencies. A check that fails or is unknown while one that it depends on
// fails is unknown, because of that one: the first cause counts, once.
//
// Healing. While a remedy runs, a failure is a warning.
//
// Maintenance. While somebody works on it, the check passes, and so does what is
// only unknown because of it. Being acknowledged changes nothing but what is said.
//
// So whoever reads one word of a check (an exit code, a service check, a series)
// acts as the people who run it want; what was found is shown beside it.

// A Cause is the check whose failure explains another's. The zero Cause is none.
type Cause struct {
	Name       string
	Since      time.Time // when it came to fail
	Maintained bool      // it fails in maintenance
}

// A Shown is a verdict as everybody sees it.
type Shown struct {
	Status  Status    // what counts
	Found   Status    // what Status would be without what is said below
	Since   time.Time // when Status came to be
	Message string

	Because     string      // the check that this one fails because of; empty: none
	Ack         Ack         // zero: none
	Maintenance Maintenance // zero: none, or over
	Healing     Healing     // zero: none, or over
}

// Show returns how a state that is not older than now is shown. The cause is a
// check that it depends on, the maintenance one of everything.
func Show(s State, now time.Time, cause Cause, everything Maintenance) Shown {
	v := Shown{Status: s.Status, Found: s.Status, Since: s.Since, Message: s.Message(), Ack: s.Ack}
	if cause.Name != "" && Compare(v.Status, Warn) > 0 {
		v.Because = cause.Name
		v.turn(Unknown, cause.Since, "because "+cause.Name+" fails")
		if cause.Maintained {
			v.Status = Pass
		}
	}
	if v.Status == Fail && now.Before(s.Healing.Deadline) {
		v.Healing = s.Healing
		v.turn(Warn, s.Healing.Since, fmt.Sprintf("%s heals it, until %s", s.Healing.Remedy, clock(s.Healing.Deadline)))
	}
	m := s.Maintenance
	if everything.Until.After(m.Until) {
		m = everything
	}
	if m.Active(now) {
		v.Maintenance = m
		if v.Status != Pass {
			v.turn(Pass, m.Since, fmt.Sprintf("in maintenance until %s (%s: %s)", clock(m.Until), m.Who, m.Why))
		}
	}
	return v
}

// turn changes what counts, and says why before what was said.
func (v *Shown) turn(to Status, at time.Time, why string) {
	v.Status = to
	if at.After(v.Since) {
		v.Since = at
	}
	if v.Message != "" {
		why += "; " + v.Message
	}
	v.Message = Clean(why)
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
