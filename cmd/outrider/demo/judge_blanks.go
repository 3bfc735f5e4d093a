package demo

import (
	"slices"
	"time"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/simcluster"
	"github.com/outrider-agent/outrider/statesync/simcluster/scenario"
)

const (
	trackEvery = 10 * time.Millisecond
	mostMarks  = 100_000 // of a track; the older half goes
)

// A track remembers how far a cluster was, and when.
type track []mark

// A mark is a moment at which nothing after a version had been written.
type mark struct {
	version int64
	at      time.Time
}

// note adds a mark. The time is from before the version was read.
func (t *track) note(at time.Time, version int64) {
	if n := len(*t); n > 0 && (*t)[n-1].version == version {
		(*t)[n-1].at = at
		return
	}
	if len(*t) == mostMarks {
		*t = slices.Clone((*t)[mostMarks/2:])
	}
	*t = append(*t, mark{version, at})
}

// before returns a time before which all up to a version was written, and
// nothing that came later; zero: it is not known.
func (t track) before(version int64) time.Time {
	for _, m := range slices.Backward(t) {
		if m.version <= version {
			return m.at
		}
	}
	return time.Time{}
}

// toldBy are the kinds of workloads whose changes come by the watch of a
// resource and no other: all of them, or those to one state.
func toldBy(resource string) []scenario.Blank {
	switch resource {
	case "pods":
		return []scenario.Blank{{Kind: "Pod"}, {Kind: "Job", State: string(statesync.Running)}}
	case "jobs.batch":
		return []scenario.Blank{{Kind: "Job"}}
	case "deployments.apps":
		return []scenario.Blank{{Kind: "Deployment"}}
	case "trainings.sim.outrider.dev":
		return []scenario.Blank{{Kind: "Training"}}
	}
	return nil // it only says what pods belong to
}

// blanks are the times of which an agent could know nothing but what a list
// has shown of them: the cluster, and not the agent, says which.
func (t track) blanks(lapses []simcluster.Lapse) (all []scenario.Blank) {
	for _, l := range lapses {
		from := t.before(l.From)
		if from.IsZero() {
			continue
		}
		for _, b := range toldBy(l.Resource) {
			b.By, b.From, b.To = l.Resource, from, l.Until
			all = append(all, b)
		}
	}
	return all
}
