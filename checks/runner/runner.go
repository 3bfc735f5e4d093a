// Package runner runs checks, keeps their verdicts and serves them as one digest.
//
// Every check runs in a goroutine of its own, with a deadline, and never twice
// at once. What the handlers answer is read from the last verdicts: no request
// runs a check, waits for one, or takes a lock that a check could hold.
package runner

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// Options say who runs the checks. All of them have a default.
type Options struct {
	Service, Version string // shown in the digest
	Host             string // default: the name of this host
	PID              int    // default: of this process

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default: nothing is logged
}

// A Runner runs checks and keeps their verdicts. Its methods may be called
// from many goroutines at once.
type Runner struct {
	service, version, host string
	pid                    int
	now                    func() time.Time
	log                    *slog.Logger

	set     atomic.Pointer[set] // replaced with mu held
	changes atomic.Uint64       // counts what could change a digest
	stuck   atomic.Int64        // runs past their deadline that have not returned
	cache   cache

	everything atomic.Pointer[verdict.Maintenance] // of all checks; written with mu held

	mu      sync.Mutex // held for moments, never while foreign code runs
	running bool
	flights map[*flight]struct{}     // all that have not returned, removed checks' too
	saved   map[string]verdict.State // restored, of checks that are not there yet

	beat *entry        // the runner's own heartbeat
	wake chan struct{} // has one item when the scheduler has to look again
}

// A set is the checks of a runner at one moment. It never changes.
type set struct {
	entries []*entry // sorted by name, the heartbeat included
	causes  map[*entry][]*entry
	probes  probes
}

// The heartbeat is a check without a function: the scheduler writes its
// result. Nothing else tells that verdicts get old because nobody asks.
const (
	heartbeatName       = "runner"
	heartbeatEvery      = 5 * time.Second
	heartbeatStaleAfter = 30 * time.Second
)

// New returns a runner without checks. Call [Runner.Run] to start it: until
// then, its heartbeat is unknown, and after 30 seconds a failure.
func New(o Options) *Runner {
	r := &Runner{
		service: o.Service, version: o.Version, host: o.Host, pid: o.PID,
		now: o.Now, log: o.Log,
		flights: map[*flight]struct{}{}, wake: make(chan struct{}, 1),
	}
	if r.host == "" {
		r.host, _ = os.Hostname() // a digest without a host is better than none
	}
	if r.pid == 0 {
		r.pid = os.Getpid()
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.beat = newEntry(Check{
		Name: heartbeatName, Groups: []string{LiveGroup},
		Every: heartbeatEvery, StaleAfter: heartbeatStaleAfter,
	}.withDefaults(), r.now())
	r.everything.Store(&verdict.Maintenance{})
	r.replace([]*entry{r.beat})
	return r
}

// Add adds checks, before or while the runner runs: each is run at once. An
// error names the check, what it got and what it wants; then none was added.
func (r *Runner) Add(checks ...Check) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := map[string]Check{}
	for _, e := range r.set.Load().entries {
		known[e.check.Name] = e.check
	}
	entries, now := slices.Clone(r.set.Load().entries), r.now()
	var claimed []string
	for _, c := range checks {
		c = c.withDefaults()
		if err := c.validate(); err != nil {
			return fmt.Errorf("add check %q: %w", c.Name, err)
		}
		if other, dup := known[c.Name]; dup {
			return fmt.Errorf("add check %q (%v): name is taken by %q (%v)", c.Name, c, other.Name, other)
		}
		known[c.Name] = c
		e := newEntry(c, now)
		if s, ok := r.saved[c.Name]; ok {
			r.resume(e, s, now)
			claimed = append(claimed, c.Name)
		}
		entries = append(entries, e)
	}
	if circle := findCircle(entries); circle != nil {
		return fmt.Errorf("add check %q: it depends on itself: %s", circle[0], strings.Join(circle, " -> "))
	}
	for _, name := range claimed {
		delete(r.saved, name)
	}
	r.replace(entries)
	select {
	case r.wake <- struct{}{}:
	default: // the scheduler will look anyway
	}
	return nil
}

// Renew changes checks that are there: how often, how long, whom they concern. Each
// keeps its verdict, and is run at once; a run of the old one that is under way is
// dropped. One that is described as it was goes on undisturbed.
func (r *Runner) Renew(checks ...Check) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries, now := slices.Clone(r.set.Load().entries), r.now()
	var gone []*entry
	for _, c := range checks {
		c = c.withDefaults()
		if err := c.validate(); err != nil {
			return fmt.Errorf("renew check %q: %w", c.Name, err)
		}
		i := slices.IndexFunc(entries, func(e *entry) bool { return e.check.Name == c.Name && e != r.beat })
		if i < 0 {
			return fmt.Errorf("renew check %q: not known", c.Name)
		}
		if entries[i].check.same(c) {
			continue
		}
		e := newEntry(c, now)
		e.state.Store(entries[i].state.Load())
		gone = append(gone, entries[i])
		entries[i] = e
	}
	if circle := findCircle(entries); circle != nil {
		return fmt.Errorf("renew check %q: it depends on itself: %s", circle[0], strings.Join(circle, " -> "))
	}
	for _, e := range gone {
		e.removed = true
	}
	r.replace(entries)
	select {
	case r.wake <- struct{}{}:
	default: // the scheduler will look anyway
	}
	return nil
}

// Remove takes checks out of the digest and runs them no more. A run under way
// is not interrupted, its result is dropped. A name that is not known is left
// out.
func (r *Runner) Remove(names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replace(slices.DeleteFunc(slices.Clone(r.set.Load().entries), func(e *entry) bool {
		e.removed = e != r.beat && slices.Contains(names, e.check.Name)
		return e.removed
	}))
}

// replace needs r.mu, and takes over the entries.
func (r *Runner) replace(entries []*entry) {
	slices.SortFunc(entries, byCheckName)
	r.set.Store(&set{entries: entries, causes: findCauses(entries), probes: r.newProbes(entries)})
	r.changes.Add(1)
}

// find returns the entries of these checks, of all when there are no names.
func (r *Runner) find(names []string) ([]*entry, error) {
	var found []*entry
	for _, e := range r.set.Load().entries {
		if e != r.beat && (len(names) == 0 || slices.Contains(names, e.check.Name)) {
			found = append(found, e)
		}
	}
	var unknown []string
	for _, name := range names {
		if !slices.ContainsFunc(found, func(e *entry) bool { return e.check.Name == name }) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("check %s: not known", strings.Join(unknown, ", "))
	}
	return found, nil
}

// record stores a result and returns what to log once r.mu, which it needs, is
// free again: a slow log must not hold up the scheduler.
func (r *Runner) record(e *entry, res verdict.Result, started time.Time) (log func()) {
	res.At = r.now()
	res.Took = max(0, res.At.Sub(started))
	return r.become(e, func(s verdict.State) verdict.State { return verdict.Next(s, e.policy, res) })
}

// become changes a state; see record.
func (r *Runner) become(e *entry, next func(verdict.State) verdict.State) (log func()) {
	before := *e.state.Load()
	after := next(before)
	e.state.Store(&after)
	r.changes.Add(1)
	if verdict.Compare(after.Status, verdict.Unknown) < 0 {
		e.cameUp.Store(true)
	}
	if after.Status == before.Status && after.Flapping == before.Flapping {
		return func() {}
	}
	return func() {
		if after.Flapping != before.Flapping {
			r.log.Info("check flaps, or does no longer", "check", e.check.Name, "flapping", after.Flapping, "history", after.History)
		}
		if after.Status == before.Status {
			return
		}
		write := r.log.Info
		if after.Status == verdict.Fail {
			write = r.log.Warn
		}
		write("check changed", "check", e.check.Name, "category", string(e.check.Category),
			"from", before.Status.String(), "to", after.Status.String(), "message", after.Message())
	}
}
