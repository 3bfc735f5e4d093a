package checks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// HeartbeatConfig describes a dead man's switch: something that has to be heard of
// from time to time, such as a nightly backup at its end.
type HeartbeatConfig struct {
	// ExpectEvery is the time between two signs of life, and Grace how much longer
	// one may be awaited.
	ExpectEvery time.Duration `yaml:"expect_every" required:"true"`
	Grace       time.Duration `yaml:"grace"`

	// StatsD is the name of a DogStatsD service check or counter that is a sign of
	// life too; empty: none but what is posted under the check's own name.
	StatsD string `yaml:"statsd"`
}

// Validate is asked when the configuration is read.
func (c *HeartbeatConfig) Validate() error {
	var errs []error
	if c.ExpectEvery < time.Second || c.ExpectEvery > 366*24*time.Hour {
		errs = append(errs, &config.FieldError{Key: "expect_every", Got: c.ExpectEvery.String(), Want: "1s to 8784h, a year"})
	}
	if c.Grace < 0 {
		errs = append(errs, &config.FieldError{Key: "grace", Got: c.Grace.String(), Want: "0s or more"})
	}
	return errors.Join(errs...)
}

// Build implements [Builder].
func (c *HeartbeatConfig) Build(env Env) (Checker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if env.Heartbeats != nil {
		if err := env.Heartbeats.expect(env.Name, c.StatsD); err != nil {
			return nil, err
		}
	}
	return &heartbeat{config: *c, name: env.Name, beats: env.Heartbeats, now: env.Now}, nil
}

type heartbeat struct {
	config HeartbeatConfig
	name   string
	beats  *Heartbeats // nil: nobody listens
	now    func() time.Time
}

// Check implements [Checker].
func (c *heartbeat) Check(context.Context) verdict.Result {
	if c.beats == nil {
		return verdict.Result{Status: verdict.Unknown, Message: "nobody listens for heartbeats here"}
	}
	now, allowed := c.now(), c.config.ExpectEvery+c.config.Grace
	last, awaited := c.beats.heard(c.name, now)
	age := max(0, now.Sub(awaited)).Round(time.Second)
	if last.IsZero() {
		r := verdict.Result{Status: verdict.Unknown, Message: fmt.Sprintf("no heartbeat yet, awaited for %s of %s", brief(age), brief(allowed))}
		if now.Sub(awaited) > allowed {
			r.Status, r.Message = verdict.Fail, fmt.Sprintf("no heartbeat ever, awaited for %s, want one every %s", brief(age), c.every())
		}
		return r
	}
	seconds := max(0, now.Sub(last)).Seconds()
	r := verdict.Result{
		Message: fmt.Sprintf("last heartbeat %s ago, at %s", brief(age), last.UTC().Format(time.RFC3339)), Value: &seconds, Unit: "seconds",
		Measures: []verdict.Measure{{Label: "age", Value: seconds, Unit: "s", Crit: upTo(allowed.Seconds()).String()}},
	}
	if now.Sub(last) > allowed {
		r.Status = verdict.Fail
		r.Message += ", want one every " + c.every()
	}
	return r
}

func (c *heartbeat) every() string {
	if c.config.Grace == 0 {
		return brief(c.config.ExpectEvery)
	}
	return brief(c.config.ExpectEvery) + " and " + brief(c.config.Grace) + " of grace"
}

// A Toucher knows of signs of life: when the last one of a name was; zero: none yet.
type Toucher interface {
	Touched(name string) time.Time
}

// Heartbeats are the signs of life that all checks of the kind wait for. They outlive
// the checks, which come and go with the configuration. Its methods may be called
// from many goroutines at once.
type Heartbeats struct {
	now func() time.Time

	mu    sync.Mutex
	more  []Toucher
	beats map[string]beat // of the checks there are, and were; at most maxBeats
}

// A beat is what is known of one name.
type beat struct {
	Awaited time.Time `json:"awaited"`          // since when somebody waits for it
	Touched time.Time `json:"touched,omitzero"` // the last time
	statsd  string
	known   bool // there is a check of that name
}

// maxBeats bounds names, those of checks that are gone included.
const maxBeats = 1000

// ErrNoHeartbeat says that no check waits for a heartbeat of that name.
var ErrNoHeartbeat = errors.New("no check of kind heartbeat has that name")

// NewHeartbeats returns heartbeats of which none was heard yet.
func NewHeartbeats(now func() time.Time) *Heartbeats {
	return &Heartbeats{now: now, beats: map[string]beat{}}
}

// Listen adds one who hears of signs of life in other ways. It is asked with the
// statsd names of checks.
func (h *Heartbeats) Listen(t Toucher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.more = append(h.more, t)
}

// Touch notes a sign of life.
func (h *Heartbeats) Touch(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.beats[name]
	if !ok || !b.known {
		return fmt.Errorf("touch %q: %w", verdict.Clean(name), ErrNoHeartbeat)
	}
	b.Touched = h.now()
	h.beats[name] = b
	return nil
}

// Touched implements [Toucher]: of what was touched or posted.
func (h *Heartbeats) Touched(name string) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.beats[name].Touched
}

// ServeHTTP takes POST of a path that ends in a check's name.
func (h *Heartbeats) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "method "+verdict.Clean(r.Method)+", want POST", http.StatusMethodNotAllowed)
		return
	}
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	if err := h.Touch(name); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// expect says that there is a check of that name.
func (h *Heartbeats) expect(name, statsd string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.beats[name]
	if !ok && len(h.beats) >= maxBeats {
		return fmt.Errorf("expect heartbeat %s: there are %d, want no more", name, maxBeats)
	}
	b.statsd, b.known = statsd, true
	h.beats[name] = b
	return nil
}

// keep forgets the names that there are no checks of any more.
func (h *Heartbeats) keep(there func(name string) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.beats, func(name string, _ beat) bool { return !there(name) })
}

// heard returns the last sign of life of a check, and since when it is awaited. That
// is when the check looked first, also before restarts: one that restarts more often
// than it expects would else never find out.
func (h *Heartbeats) heard(name string, now time.Time) (last, awaited time.Time) {
	h.mu.Lock()
	b, more := h.beats[name], h.more
	if b.Awaited.IsZero() || b.Awaited.After(now) {
		b.Awaited = now
		h.beats[name] = b
	}
	h.mu.Unlock()
	last = b.Touched
	if b.statsd != "" {
		for _, t := range more { // which may have locks of their own
			if at := t.Touched(b.statsd); at.After(last) {
				last = at
			}
		}
	}
	if last.IsZero() {
		return last, b.Awaited
	}
	if last.After(b.Touched) {
		h.mu.Lock()
		b = h.beats[name]
		if last.After(b.Touched) { // so that it survives a restart too
			b.Touched = last
			h.beats[name] = b
		}
		h.mu.Unlock()
	}
	return last, last
}

// Snapshot is what must survive a restart.
func (h *Heartbeats) Snapshot() ([]byte, error) {
	h.mu.Lock()
	known := maps.Clone(h.beats)
	h.mu.Unlock()
	maps.DeleteFunc(known, func(_ string, b beat) bool { return !b.known })
	return json.Marshal(known)
}

// Restore takes a snapshot back. What was heard since counts more; of a time to come
// it keeps none.
func (h *Heartbeats) Restore(snapshot []byte) error {
	var before map[string]beat
	if err := json.Unmarshal(snapshot, &before); err != nil {
		return fmt.Errorf("restore heartbeats: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	for name, b := range before {
		have, ok := h.beats[name]
		if !ok && len(h.beats) >= maxBeats {
			continue // of checks that are gone
		}
		if b.Touched.After(have.Touched) && !b.Touched.After(now) {
			have.Touched = b.Touched
		}
		if !b.Awaited.IsZero() && (have.Awaited.IsZero() || b.Awaited.Before(have.Awaited)) && !b.Awaited.After(now) {
			have.Awaited = b.Awaited
		}
		h.beats[name] = have
	}
	return nil
}
