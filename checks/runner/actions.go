package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// AllChecks as a name stands for all checks, those that come later included.
const AllChecks = "all"

// maxAction is the size of what an action is told, in bytes.
const maxAction = 64 << 10

// Acknowledge notes that somebody looks after the problem that a check has, until
// it passes or gets worse. The failure counts as before. An error when the check
// is not known or passes, or who or why is missing.
func (r *Runner) Acknowledge(name, who, why string) error {
	err := r.change(name, func(s verdict.State, p verdict.Policy, now time.Time) (verdict.State, error) {
		return verdict.Acknowledge(verdict.At(s, p, now), who, why, now)
	})
	if err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	r.log.Info("check acknowledged", "check", name, "who", verdict.Clean(who), "why", verdict.Clean(why))
	return nil
}

// Maintain notes that somebody works on what a check looks at, or, with the name
// [AllChecks], on everything: until then its failures do not count. A moment that
// is past ends what is under way. It lasts 30 days at most.
func (r *Runner) Maintain(name string, until time.Time, who, why string) error {
	m, err := verdict.NewMaintenance(who, why, r.now(), until)
	switch {
	case err != nil:
	case name == AllChecks:
		r.mu.Lock()
		r.everything.Store(&m)
		r.changes.Add(1)
		r.mu.Unlock()
	default:
		err = r.change(name, func(s verdict.State, _ verdict.Policy, _ time.Time) (verdict.State, error) {
			s.Maintenance = m
			return s, nil
		})
	}
	if err != nil {
		return fmt.Errorf("maintenance: %w", err)
	}
	r.log.Info("check maintenance", "check", name, "until", until.UTC().Format(time.RFC3339), "who", verdict.Clean(who), "why", verdict.Clean(why))
	return nil
}

// Heal notes that a remedy runs for a check that fails: until its deadline, and an
// hour after the first remedy for this failure at most, the failure is a warning.
func (r *Runner) Heal(name, remedy string, deadline time.Time) error {
	err := r.change(name, func(s verdict.State, p verdict.Policy, now time.Time) (verdict.State, error) {
		return verdict.Heal(verdict.At(s, p, now), remedy, now, deadline)
	})
	if err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	return nil
}

func (r *Runner) change(name string, to func(verdict.State, verdict.Policy, time.Time) (verdict.State, error)) error {
	entries, err := r.find([]string{name})
	if err != nil {
		return err
	}
	e := entries[0]
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := to(*e.state.Load(), e.policy, r.now())
	if err != nil {
		return fmt.Errorf("check %s: %w", name, err)
	}
	e.state.Store(&s)
	r.changes.Add(1)
	return nil
}

// What an action is told: a form, or a JSON object with the same keys.
type order struct {
	Check string `json:"check"`
	Who   string `json:"who"`
	Why   string `json:"why"`
	Until string `json:"until"` // a moment as in RFC 3339
	For   string `json:"for"`   // or how long from now: 90m
}

// Actions are what people do to checks, by name: POST check, who and why to
// checks/acknowledge, and also until or for to checks/maintenance. They have no
// protection of their own.
func (r *Runner) Actions() map[string]http.Handler {
	return map[string]http.Handler{
		"checks/acknowledge": action(func(o order) error { return r.Acknowledge(o.Check, o.Who, o.Why) }),
		"checks/maintenance": action(func(o order) error {
			until, err := o.end(r.now())
			if err != nil {
				return err
			}
			return r.Maintain(o.Check, until, o.Who, o.Why)
		}),
	}
}

func action(do func(order) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if req.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, fmt.Sprintf("method %.20s, want POST", req.Method), http.StatusMethodNotAllowed)
			return
		}
		o, err := readOrder(http.MaxBytesReader(w, req.Body, maxAction), req.Header.Get("Content-Type"))
		if err == nil {
			err = do(o)
		}
		if err != nil {
			http.Error(w, verdict.Clean(err.Error()), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n") // nobody is left to tell
	})
}

func readOrder(body io.Reader, contentType string) (o order, err error) {
	text, err := io.ReadAll(body)
	if err != nil {
		return o, fmt.Errorf("read request: %w", err)
	}
	switch media, _, _ := mime.ParseMediaType(contentType); media {
	case "application/json":
		if err := json.Unmarshal(text, &o); err != nil {
			return o, fmt.Errorf("read JSON: %w", err)
		}
	case "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(text))
		if err != nil {
			return o, fmt.Errorf("read form: %w", err)
		}
		keys := map[string]*string{"check": &o.Check, "who": &o.Who, "why": &o.Why, "until": &o.Until, "for": &o.For}
		for key, values := range form {
			to := keys[key]
			if to == nil || len(values) != 1 {
				return o, fmt.Errorf("form: got %.50q %d times, want check, who, why, until and for, once", key, len(values))
			}
			*to = values[0]
		}
	default:
		return o, fmt.Errorf("Content-Type: got %.100q, want application/json or application/x-www-form-urlencoded", contentType)
	}
	if o.Check == "" {
		return o, errors.New("check: got none, want the name of a check")
	}
	return o, nil
}

// end is when a maintenance is over.
func (o order) end(now time.Time) (time.Time, error) {
	switch {
	case (o.Until == "") == (o.For == ""):
		return time.Time{}, fmt.Errorf("until %.50q and for %.50q, want one of them", o.Until, o.For)
	case o.For != "":
		d, err := time.ParseDuration(o.For)
		if err != nil || d < 0 {
			return time.Time{}, fmt.Errorf("for: got %.50q, want a time such as 90m; 0s ends a maintenance", o.For)
		}
		return now.Add(d), nil
	}
	until, err := time.Parse(time.RFC3339, o.Until)
	if err != nil {
		return time.Time{}, fmt.Errorf("until: got %.50q, want a moment such as 2026-03-01T12:00:00Z", o.Until)
	}
	return until, nil
}
