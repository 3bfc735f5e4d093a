package scenario

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

func known(t *Truth, uid string, states ...state) {
	e := &entity{namespace: "ns", name: "n-" + uid, uid: types.UID(uid)}
	for i, s := range states {
		t.tell(kindJob, e, s, time.Unix(1_800_000_000, int64(len(t.stories))*1e9+int64(i)*1e6))
	}
}

func truth() *Truth {
	t := emptyTruth()
	t.kinds = []string{"Job", "Pod", "Deployment", "Training"}
	return t
}

func TestCompare(t *testing.T) {
	const all = "Queued Running Queued Running Failed"
	tests := []struct {
		name, told       string
		lost, unexpected int
	}{
		{"all of it", all, 0, 0},
		{"states again", "Queued Queued Running Running Running Queued Running Failed Failed", 0, 0},
		{"nothing", "", 5, 0},
		{"all but one", "Queued Running Queued Failed", 1, 0},
		{"all but the first", "Running Queued Running Failed", 1, 0},
		{"all but two in between", "Queued Running Failed", 2, 0},
		{"another end", "Queued Running Queued Running Deleted", 1, 1},
		{"the other way round", "Failed Running Queued Running Queued", 2, 2},
		{"more", all + " Queued", 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := truth()
			known(tr, "a", queued, running, queued, running, failed)
			r := tr.Compare(func(string) []string { return strings.Fields(tt.told) })
			if r.Offered != 5 || r.Lost != tt.lost || r.Unexpected != tt.unexpected {
				t.Errorf("got %+v, want 5 with %d lost and %d unexpected", r, tt.lost, tt.unexpected)
			}
			if differs := tt.lost+tt.unexpected > 0; differs != (len(r.First) == 1) {
				t.Errorf("got lines %q", r.First)
			}
		})
	}
}

func TestCompareNamesTheFirst(t *testing.T) {
	tr := truth()
	for i := range 30 {
		known(tr, string(rune('z'-i%26))+string(rune('a'+i/26)), queued, succeeded)
	}
	r := tr.Compare(func(string) []string { return []string{"Queued"} })
	if r.Lost != 30 || len(r.First) != 10 {
		t.Fatalf("got %d lost and %d lines, want 30 and 10", r.Lost, len(r.First))
	}
	if want := "Job ns/n-za (za): got Queued, want Queued, Succeeded"; r.First[0] != want {
		t.Errorf("got %q, want %q", r.First[0], want)
	}
}

func TestDoneLetsGo(t *testing.T) {
	tr := truth()
	known(tr, "a", queued, running, succeeded)
	known(tr, "b", queued, running)
	if tr.Done("b") || tr.Done("c") || !tr.Done("a") || tr.Done("a") {
		t.Error("want only what has ended let go, once")
	}
	if _, there := tr.Of("a"); there {
		t.Error("got what was let go")
	}
	r := tr.Compare(func(uid string) []string {
		if uid != "b" {
			t.Errorf("asked for %s, which was let go", uid)
		}
		return []string{"Queued", "Running"}
	})
	if diff := cmp.Diff(Report{Offered: 5}, r); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestWhenItWasWritten(t *testing.T) {
	tr, began := truth(), time.Now()
	e := &entity{namespace: "ns", name: "n", uid: "a"}
	tr.tell(kindPod, e, queued, time.Time{})
	tr.tell(kindPod, e, running, began)
	tr.tell(kindPod, e, queued, began.Add(time.Second))
	tr.tell(kindPod, e, running, began.Add(time.Hour))
	for _, tt := range []struct {
		to    string
		nth   int
		since time.Duration
		known bool
	}{
		{"Queued", 0, 0, false},
		{"Running", 0, 0, true},
		{"Queued", 1, time.Second, true},
		{"Running", 1, time.Hour, true},
		{"Running", 2, 0, false},
		{"Failed", 0, 0, false},
	} {
		got, known := tr.Written("a", tt.to, tt.nth)
		if known != tt.known || known && got.Sub(began).Abs() > tt.since+unit || known && got.Sub(began)-tt.since < -unit {
			t.Errorf("%s %d: got %v (%t), want %v (%t)", tt.to, tt.nth, got.Sub(began), known, tt.since, tt.known)
		}
	}
	tr.takeBack(e)
	if w, _ := tr.Of("a"); !cmp.Equal(w.States, []string{"Queued", "Running", "Queued"}) {
		t.Errorf("got %v after the last was taken back", w.States)
	}
}

func TestTheTruthIsReadAsItWasWritten(t *testing.T) {
	tr := truth()
	known(tr, "a", queued, running, queued, running, failed)
	known(tr, "b", queued)
	tr.goes("a", time.Unix(1_800_000_007, 0))
	var first, again bytes.Buffer
	if err := tr.Write(&first); err != nil {
		t.Fatal(err)
	}
	read, err := ReadTruth(bytes.NewReader(first.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := read.Write(&again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first.String(), again.String()); diff != "" || strings.Count(first.String(), "\n") != 2 || strings.Count(first.String(), `"gone":`) != 1 {
		t.Errorf("(-first +again)\n%s", diff)
	}
	for text, want := range map[string]string{
		`{`:                          "read truth: workload 1: unexpected EOF",
		`{"states":[],"written":[]}`: "read truth: workload 1: got 0 states with 0 times, want 1 to 7 of both",
		`{"states":["Queued"]}`:      "read truth: workload 1: got 1 states with 0 times, want 1 to 7 of both",
		`{"states":["On"],"written":["2026-01-01T00:00:00Z"]}`: `read truth: workload 1: got state "On", want one of Queued, Running, Succeeded, Failed, Cancelled, Deleted`,
	} {
		if _, err := ReadTruth(strings.NewReader(text)); err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}
