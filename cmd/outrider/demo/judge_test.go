package demo

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync/simcluster/scenario"
)

// fakeTruth is what must be told, by UID.
type fakeTruth map[string]scenario.Workload

func (t fakeTruth) Of(uid string) (scenario.Workload, bool) {
	w, ok := t[uid]
	return w, ok
}

func (t fakeTruth) Done(uid string) bool {
	delete(t, uid)
	return true
}

func TestJudge(t *testing.T) {
	at := func(ms ...int64) (times []time.Time) {
		for _, n := range ms {
			if n == 0 {
				times = append(times, time.Time{}) // from before the beginning
				continue
			}
			times = append(times, time.UnixMilli(n))
		}
		return times
	}
	truth := fakeTruth{
		"whole":     {States: []string{"Queued", "Running", "Queued", "Running", "Succeeded"}, Written: at(0, 100, 200, 1000, 1200)},
		"lacks one": {States: []string{"Queued", "Running", "Failed"}, Written: at(0, 0, 0)},
		"has more":  {States: []string{"Queued", "Failed"}, Written: at(0, 0)},
	}
	j := newJudge(truth)
	for _, c := range []struct {
		uid, state string
		at         int64 // milliseconds
	}{
		{"whole", "Queued", 50},
		{"whole", "Running", 110},
		{"whole", "Running", 111}, // it stands there already
		{"whole", "Queued", 210},
		{"lacks one", "Queued", 300},
		{"nobody", "Queued", 300},
		{"has more", "Queued", 300},
		{"has more", "Running", 300},
		{"whole", "Running", 2000},
		{"lacks one", "Failed", 2000},
		{"has more", "Failed", 2000},
		{"whole", "Succeeded", 2100},
		{"whole", "Deleted", 2100}, // it was let go
		{"ahead", "Queued", 2100},
		{"ahead", "Running", 2100}, // not yet
	} {
		if c.uid == "ahead" && len(j.early[c.uid]) == 0 {
			truth["ahead"] = scenario.Workload{States: []string{"Queued"}, Written: at(0)}
		}
		j.take([]Told{{UID: c.uid, State: c.state, At: c.at * 1e6}})
	}
	truth["ahead"] = scenario.Workload{States: []string{"Queued", "Running"}, Written: at(0, 2200)}
	truth["has more"] = scenario.Workload{States: []string{"Queued", "Failed", "Running"}, Written: at(0, 0, 0)} // by somebody else
	j.end()
	if j.matched != 10 {
		t.Errorf("%d matched, want 5, 2, 2 and 1", j.matched)
	}
	if diff := cmp.Diff(map[string][]string{"ahead": {"Queued", "Running"}, "lacks one": {"Queued", "Failed"}, "has more": {"Queued", "Running", "Failed"}}, j.told); diff != "" {
		t.Errorf("kept: %s", diff)
	}
	if _, kept := truth["whole"]; kept || len(truth) != 3 {
		t.Errorf("the truth keeps %d, want the two that differ, and the one that lives", len(truth))
	}
	if want := []string{
		"told again of whole, which stands there: Running",
		"told of nobody, which has ended or is not the scenario's: Queued", "told of whole, which has ended or is not the scenario's: Deleted",
		"told of ahead before it was so: Running",
	}; j.extra != 4 || !slices.Equal(j.strange, want) {
		t.Errorf("%d told that must not be: %q, want %q", j.extra, j.strange, want)
	}
	if j.longest != time.Second {
		t.Errorf("the longest latency is %s, want 1s", j.longest)
	}
	s := j.latency.Snapshot()
	if s.Count != 4 || s.Sum < 1.919 || s.Sum > 1.921 {
		t.Errorf("%d latencies of %v s in all, want 4 of 0.01, 0.01, 1 and 0.9", s.Count, s.Sum)
	}
}
