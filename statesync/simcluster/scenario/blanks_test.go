package scenario

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/statesync/simcluster"
)

// TestCompareWithBlanks has when each state was written, and when the object
// went, in seconds; 0 is not at all, or before the beginning.
func TestCompareWithBlanks(t *testing.T) {
	at := func(seconds float64) time.Time {
		if seconds == 0 {
			return time.Time{}
		}
		return time.Unix(1_800_000_000, int64(seconds*1e9))
	}
	blank := func(kind string, from, to float64) Blank { return Blank{Kind: kind, From: at(from), To: at(to)} }
	pods := func(from, to float64) Blank {
		return Blank{Kind: "Job", By: "pods", State: "Running", From: at(from), To: at(to)}
	}
	one := []Blank{blank("Job", 10, 20)}
	two := []state{queued, running, queued, running, failed}
	once := []state{queued, running, succeeded}
	tests := []struct {
		name                     string
		states                   []state
		written                  []float64
		gone                     float64
		blanks                   []Blank
		told                     string
		lost, unseen, unexpected int
	}{
		{"what came and went in it", two, []float64{1, 11, 12, 13, 30}, 0, one, "Queued Running Failed", 0, 2, 0},
		{"and was told all the same", two, []float64{1, 11, 12, 13, 30}, 0, one, "Queued Running Queued Running Failed", 0, 0, 0},
		{"all that came and went in it", two, []float64{1, 11, 12, 13, 14}, 0, one, "Queued Failed", 0, 3, 0},
		{"what lasts beyond it", two, []float64{1, 11, 12, 13, 30}, 0, one, "Queued Failed", 1, 2, 0},
		{"what began before it", two, []float64{1, 9, 12, 13, 30}, 0, one, "Queued Running Failed", 0, 2, 0},
		{"and was not told", two, []float64{1, 9, 12, 13, 30}, 0, one, "Queued Failed", 1, 2, 0},
		{"another kind's", two, []float64{1, 11, 12, 13, 30}, 0, []Blank{blank("Pod", 10, 20)}, "Queued Running Failed", 2, 0, 0},
		{"between two of them", two, []float64{1, 11, 12, 13, 30}, 0, []Blank{blank("Job", 10, 11.5), blank("Job", 12.5, 20)}, "Queued Running Failed", 2, 0, 0},
		{"in two that overlap", two, []float64{1, 11, 12, 13, 30}, 0, []Blank{blank("Job", 11.5, 20), pods(10, 11.5)}, "Queued Running Failed", 0, 2, 0},
		{"across two that overlap", two, []float64{1, 11, 12, 13, 14}, 0, []Blank{blank("Job", 11.5, 20), pods(10, 11.5)}, "Queued Failed", 0, 3, 0},
		{"across two of one resource, with a list between", two, []float64{1, 11, 12, 13, 14}, 0, []Blank{blank("Job", 11.5, 20), blank("Job", 10, 11.5)}, "Queued Failed", 1, 2, 0},
		{"what another watch told", once, []float64{11, 12, 13}, 14, []Blank{pods(10, 20)}, "", 2, 1, 0},
		{"what that watch alone tells", once, []float64{11, 12, 13}, 14, []Blank{pods(10, 20)}, "Queued Succeeded", 0, 1, 0},
		{"in one with another within", two, []float64{1, 11, 12, 13, 30}, 0, []Blank{blank("Job", 10, 20), blank("Job", 11, 11.5)}, "Queued Running Failed", 0, 2, 0},
		{"it stood there before and after", []state{queued, running, queued, running}, []float64{0, 1, 11, 12}, 0, one, "Queued Running", 0, 2, 0},
		{"a whole life", once, []float64{11, 12, 13}, 14, one, "", 0, 3, 0},
		{"a whole life, but its object is still there", once, []float64{11, 12, 13}, 0, one, "", 1, 2, 0},
		{"a life whose object went after it", once, []float64{11, 12, 13}, 21, one, "", 1, 2, 0},
		{"an end that nobody saw", once, []float64{1, 2, 13}, 14, one, "Queued Running Cancelled", 0, 0, 0},
		{"an end that nobody saw, told as another", once, []float64{1, 2, 13}, 14, one, "Queued Running Failed", 1, 0, 1},
		{"an end that nobody saw, and nobody told", once, []float64{1, 2, 13}, 14, one, "Queued Running", 1, 0, 0},
		{"an end that could be seen", once, []float64{1, 2, 13}, 21, one, "Queued Running Cancelled", 1, 0, 1},
		{"somebody else's end", []state{queued, running, cancelled}, []float64{1, 2, 0}, 0, one, "Queued Running", 1, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := truth()
			tr.removed = []state{cancelled, cancelled, deleted, cancelled}
			e := &entity{namespace: "ns", name: "n", uid: "a"}
			for i, s := range tt.states {
				tr.tell(kindJob, e, s, at(tt.written[i]))
			}
			if tt.gone > 0 {
				tr.goes("a", at(tt.gone))
			}
			r := tr.Compare(func(string) []string { return strings.Fields(tt.told) }, tt.blanks...)
			r.First = nil
			if diff := cmp.Diff(Report{Offered: len(tt.states), Lost: tt.lost, Unseen: tt.unseen, Unexpected: tt.unexpected}, r); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// A story holds the longest script, and the removal that may come in the place
// of its end.
func TestAStoryHoldsEveryScript(t *testing.T) {
	for _, k := range newCast(cluster(), 1).kinds {
		for i, sc := range k.scripts {
			n, ends := 0, false
			for _, s := range sc.steps {
				if s.tells != none {
					n, ends = n+1, s.tells.ended()
				}
			}
			if n > most || n == most && !ends {
				t.Errorf("script %d of a %s tells %d states, want %d at most, an end included", i, k.name, n, most)
			}
		}
	}
}

// The truth knows when the objects of workloads went, but not of those that
// somebody else took away.
func TestTheTruthKnowsWhenObjectsWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := start(t, Options{Seed: 3, Rate: 100, Workloads: 50})
		from, began := c.Now(), time.Now()
		run(t, s, 10*time.Second)
		there, went := 0, 0
		for _, w := range s.Truth().all() {
			switch v := find(t, c, w.UID, from); {
			case w.Gone.IsZero() != v:
				t.Errorf("%s %s: it went at %v, and is there: %t", w.Kind, w.Name, w.Gone, v)
			case v:
				there++
			case w.Gone.Before(began) || w.Gone.After(time.Now()):
				t.Errorf("%s %s went at %v, want it since the beginning", w.Kind, w.Name, w.Gone)
			default:
				went++
			}
		}
		if there < 45 || there > 50 || went < 20 { // some have gone, and the next is not there yet
			t.Errorf("%d are there and %d went, want nearly 50 and 20 at least", there, went)
		}
	})
}

// find reports whether an object was not deleted after a version.
func find(t *testing.T, c *simcluster.Cluster, uid string, from int64) bool {
	t.Helper()
	for _, e := range history(t, c, from) {
		if e.Type == watch.Deleted && e.Object.UID == types.UID(uid) {
			return false
		}
	}
	return true
}

// The objects' times are the cluster's, and the truth's are not: a clock that
// jumps leaves what must be told, and when, as it was.
func TestTheClockOfTheClusterJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := start(t, Options{Seed: 3, Rate: 200, Workloads: 100})
		began := time.Now()
		created := func(by time.Duration) (ahead, jobs int) {
			c.SetClock(by)
			from := c.Now()
			run(t, s, 5*time.Second)
			for _, e := range history(t, c, from) {
				if j, ok := e.Object.Source.Object().(*batchv1.Job); ok && e.Type == watch.Added {
					jobs++
					if d := j.CreationTimestamp.Sub(began).Round(time.Hour); d == time.Hour {
						ahead++
					} else if d != 0 {
						t.Errorf("a Job was created %s after the beginning", d)
					}
				}
			}
			return ahead, jobs
		}
		if ahead, jobs := created(time.Hour); jobs == 0 || ahead != jobs {
			t.Errorf("on: %d of %d Jobs are ahead, want all", ahead, jobs)
		}
		if ahead, jobs := created(-time.Hour); jobs == 0 || ahead != 0 {
			t.Errorf("back again: %d of %d Jobs are ahead, want none", ahead, jobs)
		}
		for _, w := range s.Truth().all() {
			for i, at := range w.Written {
				if !at.IsZero() && (at.Before(began) || at.After(time.Now())) {
					t.Errorf("%s %s: state %d was written at %v, want a time of the run", w.Kind, w.Name, i, at)
				}
			}
		}
	})
}
