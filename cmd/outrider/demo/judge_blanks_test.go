package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync/simcluster"
	"github.com/outrider-agent/outrider/statesync/simcluster/scenario"
)

func TestATrackKnowsWhenAVersionWasTheLast(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	var tr track
	if got := tr.before(7); !got.IsZero() {
		t.Errorf("of nothing: got %v, want none", got)
	}
	for _, m := range []mark{{5, at(1)}, {5, at(2)}, {9, at(3)}, {12, at(4)}} {
		tr.note(m.at, m.version)
	}
	for version, want := range map[int64]time.Time{4: {}, 5: at(2), 8: at(2), 9: at(3), 11: at(3), 12: at(4), 99: at(4)} {
		if got := tr.before(version); !got.Equal(want) {
			t.Errorf("version %d: got %v, want %v", version, got, want)
		}
	}
	for i := range int64(3 * mostMarks) {
		tr.note(at(10+i), 100+i)
	}
	if n := len(tr); n > mostMarks {
		t.Errorf("it remembers %d marks, want %d at most", n, mostMarks)
	}
	if got := tr.before(100 + 3*mostMarks); !got.Equal(at(9 + 3*mostMarks)) {
		t.Errorf("the last: got %v", got)
	}
}

func TestBlanks(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	tr := track{{5, at(2)}, {9, at(3)}}
	got := tr.blanks([]simcluster.Lapse{
		{Resource: "pods", From: 6, To: 8, Until: at(4)},
		{Resource: "trainings.sim.outrider.dev", From: 9, To: 10, Until: at(5)},
		{Resource: "replicasets.apps", From: 9, To: 10, Until: at(5)},
		{Resource: "jobs.batch", From: 3, To: 10, Until: at(5)}, // nobody knows since when
	})
	want := []scenario.Blank{
		{Kind: "Pod", By: "pods", From: at(2), To: at(4)},
		{Kind: "Job", By: "pods", State: "Running", From: at(2), To: at(4)},
		{Kind: "Training", By: "trainings.sim.outrider.dev", From: at(3), To: at(5)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Every resource that a kind's changes come by is one of the scenario's.
func TestBlanksAreOfKindsThatThereAre(t *testing.T) {
	cluster := simcluster.New(simcluster.Options{})
	sc, err := scenario.New(cluster, scenario.Options{Workloads: 10, Mix: scenario.Mix{Jobs: 1, Notebooks: 1, WebApps: 1, Custom: 1}, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	kinds, told := map[string]bool{}, map[string]bool{}
	for _, line := range sc.Truth().Compare(func(string) []string { return nil }).First {
		kind, _, _ := strings.Cut(line, " ")
		kinds[kind] = true
	}
	for _, r := range cluster.Resources() {
		name := strings.TrimSuffix(r.Plural+"."+r.Group, ".")
		for _, b := range toldBy(name) {
			told[b.Kind] = true
		}
	}
	if diff := cmp.Diff(kinds, told); diff != "" {
		t.Errorf("kinds (-that there are +that a resource tells of):\n%s", diff)
	}
}

func TestFaultHelpNamesEveryFault(t *testing.T) {
	help := FaultHelp()
	names, _ := simcluster.FaultKinds()
	lines := strings.Split(strings.TrimSuffix(help, "\n"), "\n")
	if len(lines) != len(names) {
		t.Errorf("%d lines, want %d:\n%s", len(lines), len(names), help)
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, "  "+names[i]+" ") {
			t.Errorf("line %d: got %q, want it to be of %s", i, line, names[i])
		}
	}
}
