package runner

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"runtime/pprof"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// drainTime bounds how long Run waits for checks under way when it ends.
const drainTime = 2 * time.Second

// maxGrace is how long past its deadline a check may return and still speak
// for itself: one that watches its context knows best what it waited for.
const maxGrace = 100 * time.Millisecond

// A flight is one run of a check. Its fields are guarded by Runner.mu; the
// channels are closed once.
type flight struct {
	started  time.Time
	overran  bool
	recorded chan struct{} // closed when the verdict has the result
	returned chan struct{} // closed when the check's function has returned
}

// Run runs every check at once, then each of them again after 90 to 100 % of
// its Every, so that checks spread out. It returns nil when ctx ends, after
// waiting up to 2 seconds for the checks under way; their results are dropped.
// It is an error to call it while it runs.
func (r *Runner) Run(ctx context.Context) error {
	r.mu.Lock()
	if r.running {
		r.mu.Unlock()
		return errors.New("run checks: already running")
	}
	r.running = true
	r.mu.Unlock()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(r.step(ctx))
		select {
		case <-timer.C:
		case <-r.wake:
		case <-ctx.Done():
		}
	}
	r.drain()
	return nil
}

// RunNow runs checks, all of them without names, and returns when their
// results are recorded. A check already under way is waited for instead. The
// error is about a name that is not known, or is ctx's. A check run by it before
// Run starts is not run again at once.
func (r *Runner) RunNow(ctx context.Context, names ...string) error {
	entries, err := r.find(names)
	if err != nil {
		return fmt.Errorf("run now: %w", err)
	}
	flights := make([]*flight, 0, len(entries))
	for _, e := range entries {
		r.mu.Lock()
		flights = append(flights, r.launch(ctx, e, r.now()))
		r.mu.Unlock()
	}
	for _, f := range flights {
		select {
		case <-f.recorded:
		case <-ctx.Done():
			return fmt.Errorf("run now: %w", ctx.Err())
		}
	}
	return nil
}

// step launches what is due and returns when to look again.
func (r *Runner) step(ctx context.Context) time.Duration {
	r.mu.Lock()
	now := r.now()
	next := now.Add(heartbeatEvery)
	log := func() {}
	entries := r.set.Load().entries
	for _, e := range entries {
		if e == r.beat {
			continue
		}
		if !now.Before(e.due) {
			r.launch(ctx, e, now)
		}
		if e.due.Before(next) {
			next = e.due
		}
	}
	last := r.beat.state.Load()
	if age := now.Sub(last.Last.At); last.Runs == 0 || age >= heartbeatEvery || age < 0 {
		message := fmt.Sprintf("checks scheduled: %d", len(entries)-1)
		log = r.record(r.beat, verdict.Result{Message: message}, now)
	}
	r.mu.Unlock()
	log()
	return next.Sub(now)
}

// launch needs r.mu. It starts a run of e when its slot is free; a run under way
// is left alone. Either way the next one is due an interval later.
func (r *Runner) launch(ctx context.Context, e *entry, now time.Time) *flight {
	e.due = now.Add(e.check.Every - rand.N(e.check.Every/10+1))
	if e.flight != nil {
		return e.flight
	}
	f := &flight{started: now, recorded: make(chan struct{}), returned: make(chan struct{})}
	e.flight = f
	r.flights[f] = struct{}{}
	grace := min(maxGrace, e.check.Timeout/10)
	deadline := time.AfterFunc(e.check.Timeout+grace, func() { r.overrun(ctx, e, f) })
	go func() {
		runCtx, cancel := context.WithTimeout(ctx, e.check.Timeout)
		defer cancel()
		r.call(runCtx, e.check, func(res verdict.Result) {
			deadline.Stop()
			r.land(ctx, e, f, res)
		})
	}()
	return f
}

// overrun records that a run did not answer: its goroutine is stuck, and nobody
// knows. If it still is when as much time again has gone, that is a failure. The
// run keeps its slot.
func (r *Runner) overrun(ctx context.Context, e *entry, f *flight) {
	log := func() {}
	r.mu.Lock()
	if e.flight == f {
		f.overran = true
		r.stuck.Add(1)
		if ctx.Err() == nil && !e.removed {
			now := r.now()
			message := fmt.Sprintf("no answer in %v, still running since %s", e.check.Timeout, f.started.UTC().Format(time.RFC3339))
			log = r.become(e, func(s verdict.State) verdict.State {
				return verdict.Stop(s, e.policy, now, now.Add(e.check.Timeout), message)
			})
		}
		close(f.recorded)
	}
	r.mu.Unlock()
	log()
}

// land records the answer of a run, unless it comes too late or because the
// runner ends, and frees the slot.
func (r *Runner) land(ctx context.Context, e *entry, f *flight, res verdict.Result) {
	log := func() {}
	r.mu.Lock()
	e.flight = nil
	if f.overran {
		r.stuck.Add(-1)
		if now := r.now(); !e.removed {
			log = r.become(e, func(s verdict.State) verdict.State { return verdict.Resume(s, e.policy, now) })
		}
	} else {
		if ctx.Err() == nil && !e.removed {
			log = r.record(e, res, f.started)
		}
		close(f.recorded)
	}
	delete(r.flights, f)
	close(f.returned)
	r.mu.Unlock()
	log()
}

// drain waits for the runs under way. It does not wait for those past their
// deadline: they have shown that they do not listen.
func (r *Runner) drain() {
	bound := time.NewTimer(drainTime)
	defer bound.Stop()
	r.mu.Lock()
	var flights []*flight
	for f := range r.flights {
		if !f.overran {
			flights = append(flights, f)
		}
	}
	r.running = false
	r.mu.Unlock()
	for i, f := range flights {
		select {
		case <-f.returned:
		case <-bound.C:
			r.log.Warn("checks still run", "checks_at_most", len(flights)-i, "waited", drainTime)
			return
		}
	}
}

// call runs a check and hands its answer to done, whichever way it ends.
func (r *Runner) call(ctx context.Context, c Check, done func(verdict.Result)) {
	// This answer stays when the check ends its goroutine, as a test helper's
	// FailNow does: that passes every return.
	res := verdict.Result{Status: verdict.Fail, Message: "check ended its goroutine"}
	defer func() {
		if p := recover(); p != nil {
			res.Message = fmt.Sprintf("panic: %v", p)
			r.log.Error("check panicked", "check", c.Name, "panic", verdict.Clean(fmt.Sprint(p)), "stack", string(debug.Stack()))
		}
		done(res)
	}()
	// The label names the check in a goroutine profile: that is how a stuck
	// one is found.
	pprof.Do(ctx, pprof.Labels("check", c.Name), func(ctx context.Context) { res = c.Run(ctx) })
}
