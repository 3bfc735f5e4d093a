package runner

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// Limits of what is restored: many times what the largest digest needs.
const (
	memoryVersion = 1
	maxMemory     = 16 << 20
	maxSaved      = 20_000
	keepUnclaimed = 24 * time.Hour // the state of a check that has not come again
)

type memory struct {
	Version    int                        `json:"version"`
	Everything verdict.Maintenance        `json:"everything,omitzero"` // maintenance of all checks
	States     map[string]json.RawMessage `json:"states"`
}

// Remember returns the verdicts with all that it takes to go on with them after a
// restart: see [Runner.Restore].
func (r *Runner) Remember() (json.RawMessage, error) {
	r.mu.Lock()
	now := r.now()
	states := map[string]verdict.State{}
	for name, s := range r.saved {
		if now.Sub(s.Last.At) < keepUnclaimed {
			states[name] = s
		}
	}
	for _, e := range r.set.Load().entries {
		if e != r.beat {
			states[e.check.Name] = *e.state.Load()
		}
	}
	everything := *r.everything.Load()
	r.mu.Unlock()

	doc := memory{Version: memoryVersion, Everything: everything, States: map[string]json.RawMessage{}}
	for name, s := range states {
		text, err := json.Marshal(s)
		if err != nil {
			return nil, fmt.Errorf("remember check %s: %w", name, err)
		}
		doc.States[name] = text
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("remember checks: %w", err)
	}
	return text, nil
}

// Restore takes over what an earlier runner knew, of checks that there are and of
// those that come later. A result as old as its check's StaleAfter says nothing any
// more: that check is unknown, as before its first result; its history and what
// people said of it stay. Call it before Run.
//
// With an error nothing was taken. The state of one check that makes no sense is
// logged and left out; all others are taken.
func (r *Runner) Restore(text json.RawMessage) error {
	if len(text) > maxMemory {
		return fmt.Errorf("restore checks: got %d bytes, want at most %d", len(text), maxMemory)
	}
	var doc memory
	if err := json.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("restore checks: %w", err)
	}
	if doc.Version != memoryVersion {
		return fmt.Errorf("restore checks: got version %d, want %d", doc.Version, memoryVersion)
	}
	if n := len(doc.States); n > maxSaved {
		return fmt.Errorf("restore checks: got %d states, want at most %d", n, maxSaved)
	}
	saved, bad := map[string]verdict.State{}, 0
	for _, name := range slices.Sorted(maps.Keys(doc.States)) {
		s, err := readState(name, doc.States[name])
		if err != nil {
			if bad++; bad <= maxListed { // each says the same of one file
				r.log.Warn("what was known of a check makes no sense: it begins anew", "check", verdict.Clean(name), "err", err)
			}
			continue
		}
		saved[name] = s
	}
	if bad > maxListed {
		r.log.Warn("what was known of more checks makes no sense", "checks", bad-maxListed)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if m, err := verdict.NewMaintenance(doc.Everything.Who, doc.Everything.Why, now, doc.Everything.Until); err == nil && m.Active(now) {
		m.Since = doc.Everything.Since
		r.everything.Store(&m)
	}
	for _, e := range r.set.Load().entries {
		if s, ok := saved[e.check.Name]; ok && e != r.beat {
			r.resume(e, s, now)
			delete(saved, e.check.Name)
		}
	}
	r.saved = saved
	r.changes.Add(1)
	return nil
}

func readState(name string, text []byte) (s verdict.State, err error) {
	if !validName(name) {
		return s, fmt.Errorf("name, want 1 to %d of [a-z0-9._/-]", maxNameLen)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, err
	}
	// Checked now, and made fit when the check is there, with its policy.
	_, err = verdict.Restore(s, verdict.Policy{}, s.Last.At)
	return s, err
}

// resume needs r.mu. The state has been checked.
func (r *Runner) resume(e *entry, s verdict.State, now time.Time) {
	if s, err := verdict.Restore(s, e.policy, now); err == nil {
		e.state.Store(&s)
	}
}
