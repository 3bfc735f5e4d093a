package verdict

import (
	"errors"
	"fmt"
	"time"
)

// What people and remedies may say is bounded, because a failure that nobody
// sees for ever is the worst of all.
const (
	MaxMaintenance = 30 * 24 * time.Hour
	MaxHealing     = time.Hour // of one failure, however many remedies are tried
)

// maxWords is the length of a name or a reason, in bytes.
const maxWords = 200

// An Ack says that somebody looks after a problem. It ends when the check passes
// or gets worse. The zero Ack is none.
type Ack struct {
	Who    string    `json:"who"`
	Why    string    `json:"why"`
	At     time.Time `json:"at"`
	Status Status    `json:"status"` // what it was about
}

// A Maintenance says that somebody works on what the check looks at: until then
// its failure does not count. The zero Maintenance is none.
type Maintenance struct {
	Who   string    `json:"who"`
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

// Active reports whether it is under way.
func (m Maintenance) Active(now time.Time) bool { return now.Before(m.Until) }

// A Healing says that a remedy runs: until its deadline the failure is a warning.
// It ends when the check passes. The zero Healing is none.
type Healing struct {
	Remedy   string    `json:"remedy"`
	Since    time.Time `json:"since"`
	Deadline time.Time `json:"deadline"`
}

// Acknowledge returns the state after somebody took over the problem; an error
// when there is none, or who and why are not said.
func Acknowledge(s State, who, why string, now time.Time) (State, error) {
	if s.Status == Pass {
		return s, errors.New("it passes: there is nothing to acknowledge")
	}
	if err := errors.Join(said("who", who), said("why", why)); err != nil {
		return s, err
	}
	s.Ack = Ack{Who: Clean(who), Why: Clean(why), At: now, Status: s.Status}
	return s, nil
}

// NewMaintenance checks what somebody wants. An end that is not after now ends
// what is under way: then the zero Maintenance is returned.
func NewMaintenance(who, why string, now, until time.Time) (Maintenance, error) {
	if err := errors.Join(said("who", who), said("why", why)); err != nil {
		return Maintenance{}, err
	}
	if left := until.Sub(now); left > MaxMaintenance {
		return Maintenance{}, fmt.Errorf("until %s: got %v from now, want at most %v", until.UTC().Format(time.RFC3339), left.Round(time.Second), MaxMaintenance)
	}
	if !until.After(now) {
		return Maintenance{}, nil
	}
	return Maintenance{Who: Clean(who), Why: Clean(why), Since: now, Until: until}, nil
}

// Heal returns the state while a remedy runs; an error when nothing fails. A next
// remedy for the same failure may move the deadline, but not past [MaxHealing]
// after the first began: what heals for ever is broken.
func Heal(s State, remedy string, now, deadline time.Time) (State, error) {
	if s.Status != Fail {
		return s, fmt.Errorf("it does not fail: status %v", s.Status)
	}
	if err := said("remedy", remedy); err != nil {
		return s, err
	}
	h := Healing{Remedy: Clean(remedy), Since: now, Deadline: deadline}
	if !s.Healing.Since.IsZero() {
		h.Since = s.Healing.Since
	}
	if last := h.Since.Add(MaxHealing); h.Deadline.After(last) {
		h.Deadline = last
	}
	s.Healing = h
	return s, nil
}

func said(key, words string) error {
	if n := len(words); n == 0 || n > maxWords {
		return fmt.Errorf("%s: got %d bytes, want 1 to %d", key, n, maxWords)
	}
	return nil
}
