package demo

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics"
)

func TestVerdict(t *testing.T) {
	n := func(n int64) *int64 { return &n }
	for _, c := range []struct {
		name string
		r    Result
		want string
	}{
		{"nothing is wrong", Result{Lost: n(0), Balance: n(0)}, ""},
		{"what nobody could see is not lost", Result{Lost: n(0), Balance: n(0), Unseen: 7, GapsDue: 1, Gaps: 1}, ""},
		{"something was lost", Result{Lost: n(2), Balance: n(0), problem: "a/Job/b: Running"}, "2 changes lost, the first: a/Job/b: Running"},
		{"something was told besides", Result{Lost: n(0), Balance: n(0), Unexpected: 2}, "2 changes told that must not be"},
		{"the events contradict one another", Result{Lost: n(0), Balance: n(0), Contradictions: 1}, "the events contradict one another: 1 time"},
		{"a gap was not told", Result{Lost: n(0), Balance: n(0), Unseen: 7, GapsDue: 2, Gaps: 1}, "1 gap told, want 2"},
		{"the books are off", Result{Lost: n(0), Balance: n(1)}, "the pipelines' books are off by 1, want 0"},
		{"nobody knows", Result{}, "it is not known what was lost; the balance is not known"},
		{"stopped too early", Result{Balance: n(0), Undelivered: 1, interrupted: true}, "stopped before all was delivered: 1 change still on the way"},
		{"stopped in time", Result{Lost: n(0), Balance: n(0), interrupted: true}, ""},
	} {
		got := ""
		if err := c.r.verdict(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestJudgement(t *testing.T) {
	for _, c := range []struct {
		name                 string
		interrupted, drained bool
		lost, holes          int64
		want, undelivered    int64 // -1: not known
	}{
		{"all is told", false, true, 0, 0, 0, 0},
		{"something is missing in the end", false, false, 5, 0, 5, 0},
		{"the events' own numbers say more", false, true, 0, 2, 2, 0},
		{"what was on its way is not lost", true, false, 5, 0, -1, 5},
		{"it was stopped when all was told", true, false, 0, 0, 0, 0},
		{"stopped, drained, and something is missing", true, true, 0, 2, 2, 0},
	} {
		r := Result{interrupted: c.interrupted}
		r.judge(Verdict{Lost: c.lost}, Taken{Holes: c.holes}, c.drained)
		got := int64(-1)
		if r.Lost != nil {
			got = *r.Lost
		}
		if got != c.want || r.Undelivered != c.undelivered {
			t.Errorf("%s: lost %d, undelivered %d, want %d and %d", c.name, got, r.Undelivered, c.want, c.undelivered)
		}
	}
}

func TestResultForPeople(t *testing.T) {
	n, p50 := int64(0), 4.2
	r := Result{Captured: 10, Acknowledged: 9, Lost: &n, Duplicates: 1, Gaps: 2, P50: &p50, Memory: 3 << 20, CPU: 1.25, OfferedRate: 5, AchievedRate: 4, Offered: 11, Seed: 7}
	var b strings.Builder
	r.write(&b, 2*time.Second)
	want := `
after 2s, seed 7:
  offered       11 changes, 5/s
  captured      10 in the ledger
  acknowledged  9 by the receiver, 4/s; 1 repeat, 2 gaps
  lost          0; balance not known
  latency       p50 4.2 ms, p99 not known, longest not known
                from the write to the receiver's answer
  agent         3MiB of memory at most, 1.2 s of processor time
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestLatencies(t *testing.T) {
	h := metrics.NewTimer()
	var before Figures
	for range 98 {
		h.Observe(4 * time.Millisecond)
	}
	before.Latency = h.Snapshot()
	for range 2 {
		h.Observe(time.Second)
	}
	after := Figures{Latency: h.Snapshot()}
	var r Result
	r.setLatencies(measured{HistogramSnapshot: after.since(Figures{}), longest: 1200 * time.Millisecond, unseen: 3, due: 2})
	if r.P50 == nil || math.Abs(*r.P50-4) > 1 || r.P99 == nil || math.Abs(*r.P99-1000) > 190 {
		t.Errorf("p50 %v and p99 %v, want about 4 and 1000", r.P50, r.P99)
	}
	if got := after.since(before).Quantile(0.5); math.Abs(got-1) > 0.19 {
		t.Errorf("since: %v, want about 1", got)
	}
	if r.Longest == nil || *r.Longest != 1200 || r.Unseen != 3 || r.GapsDue != 2 {
		t.Errorf("longest %v, %d unseen, %d due, want 1200, 3 and 2", r.Longest, r.Unseen, r.GapsDue)
	}
	r = Result{}
	r.setLatencies(measured{HistogramSnapshot: Figures{}.since(Figures{})})
	if r.P50 != nil || r.P99 != nil || r.Longest != nil {
		t.Errorf("of nothing: %v, %v and %v, want none", r.P50, r.P99, r.Longest)
	}
}

func TestEnoughRoom(t *testing.T) {
	if err := enough("/x/demo-1", leastRoom); err != nil {
		t.Error(err)
	}
	want := "room in /x: got 12 MiB free, want 256 MiB; set TMPDIR to a folder with more"
	if err := enough("/x/demo-1", 12<<20); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
