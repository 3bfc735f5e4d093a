package demo

import (
	"maps"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/simcluster/scenario"
)

// truth is what a scenario knows of what must be told.
type truth interface {
	// Of returns what must be told of a workload; false: nothing, or it was
	// let go.
	Of(uid string) (scenario.Workload, bool)
	// Done lets a workload go that has ended and of which all was told.
	Done(uid string) bool
}

const mostStrange = 10

// A judge compares what is told with the truth, as it comes. It is not safe
// for concurrent use.
type judge struct {
	truth   truth
	told    map[string][]string // states, by UID, of workloads that were not let go
	matched int64               // states that had to be told, and were
	strange []string            // what must not be told, of workloads that the truth does not know, that had ended, or that stood there; the first ones
	extra   int64               // how many these are
	early   map[string][]nth    // states, by UID, that were told when they were not true, if they ever are
	latency *metrics.Timer
	longest time.Duration // of them
}

// An nth is a state that a workload comes to for the nth time, from 0.
type nth struct {
	state string
	n     int
}

func newJudge(t truth) *judge {
	return &judge{truth: t, told: map[string][]string{}, early: map[string][]nth{}, latency: metrics.NewTimer()}
}

func (j *judge) take(changes []Told) {
	for _, c := range changes {
		w, ok := j.truth.Of(c.UID)
		if !ok {
			j.isStrange("told of " + c.UID + ", which has ended or is not the scenario's: " + c.State)
			continue
		}
		state, states := string(known(c.State)), j.told[c.UID]
		if n := len(states); n > 0 && states[n-1] == state {
			// It stands there, and reasons alone are not told in a demo.
			j.isStrange("told again of " + c.UID + ", which stands there: " + c.State)
			continue
		}
		before := occurrences(states, state)
		at := place(w.States, state, before)
		if at < 0 {
			j.early[c.UID] = append(j.early[c.UID], nth{state, before})
		} else {
			j.matched++
			if written := w.Written[at]; !written.IsZero() {
				took := time.Unix(0, c.At).Sub(written)
				j.latency.Observe(took)
				j.longest = max(j.longest, took)
			}
		}
		states = append(states, state)
		if statesync.State(state).Ended() && slices.Equal(w.States, states) && j.truth.Done(c.UID) {
			j.tooEarly(c.UID, w)
			delete(j.told, c.UID)
			continue
		}
		j.told[c.UID] = states
	}
}

// end finds what was told too early of all workloads that were not let go.
func (j *judge) end() {
	for _, uid := range slices.Sorted(maps.Keys(j.early)) {
		if w, ok := j.truth.Of(uid); ok {
			j.tooEarly(uid, w)
		}
	}
}

// tooEarly counts what was told of a workload before it was written, though it
// came true. What somebody else wrote, the truth learns later than an agent.
func (j *judge) tooEarly(uid string, w scenario.Workload) {
	for _, e := range j.early[uid] {
		if at := place(w.States, e.state, e.n); at >= 0 && !w.Written[at].IsZero() {
			j.isStrange("told of " + uid + " before it was so: " + e.state)
		}
	}
	delete(j.early, uid)
}

func (j *judge) isStrange(what string) {
	if j.extra++; len(j.strange) < mostStrange {
		j.strange = append(j.strange, what)
	}
}

// place is where the nth of a state is, from 0; -1: nowhere.
func place(states []string, state string, nth int) int {
	for i, s := range states {
		if s != state {
			continue
		}
		if nth == 0 {
			return i
		}
		nth--
	}
	return -1
}

func occurrences(states []string, state string) (n int) {
	for _, s := range states {
		if s == state {
			n++
		}
	}
	return n
}

// known returns a state of the vocabulary as its constant, so that what is
// kept of a line is not the line.
func known(state string) statesync.State {
	for _, s := range []statesync.State{
		statesync.Queued, statesync.Running, statesync.Succeeded, statesync.Failed,
		statesync.Cancelled, statesync.Deleted, statesync.Untracked,
	} {
		if string(s) == state {
			return s
		}
	}
	return statesync.State(state)
}
