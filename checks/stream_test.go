package checks

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
)

func streamOf(t *testing.T, text string, clock *at, series Series) *streamCheck {
	t.Helper()
	var c StreamConfig
	if err := configured(t, text, &c); err != nil {
		t.Fatal(err)
	}
	checker, err := c.Build(Env{Now: clock.now, Series: series})
	if err != nil {
		t.Fatal(err)
	}
	return checker.(*streamCheck)
}

// streams are series of streams, with a sample a minute.
type streams struct{ kept }

func (s streams) add(name, stream string, values ...float64) {
	id := [2]string{"outrider", name}
	s.kept[id] = append(s.kept[id], recorded(time.Minute, map[string]string{"stream": stream}, values...))
}

func TestStream(t *testing.T) {
	s := streams{kept{}}
	nan := math.NaN()
	for _, name := range []string{"pods", "jobs", "late", "later", "held", "gap", "new"} {
		s.add(streamObjects, name, 1, 1, 1)
	}
	s.add(streamObjects, "gone", 1, 1, nan)
	s.add(streamAge, "pods", 0, 10, 20)
	s.add(streamAge, "jobs", 0, 1, 2)
	s.add(streamAge, "late", 0, 50, 110)
	s.add(streamAge, "later", 0, 200, 260)
	s.add(streamAge, "held", 0, 200, 260)
	s.add(streamAge, "gap", 0, 0, 0)
	s.add(streamAge, "gone", 200, 260, nan)
	s.add(streamHeld, "held", 0, 1, 1)
	s.add(streamHeld, "later", 0, 1, 0)
	s.add(streamGaps, "gap", 3, 3, 4)
	s.add(streamGaps, "pods", 3, 3, 3)
	for text, want := range map[string]string{
		`{streams: [pods]}`:                        "pass stream pods heard something 25s ago",
		`{streams: [pods, jobs]}`:                  "pass 2 streams, the least fresh heard something 25s ago",
		`{streams: [late]}`:                        "warn stream late heard no event or bookmark for 1m55s, want one in 1m30s",
		`{streams: [late], warn: 2m, crit: 3m}`:    "pass stream late heard something 1m55s ago",
		`{streams: [later]}`:                       "fail stream later heard no event or bookmark for 4m25s, want one in 2m30s",
		`{streams: ["late*"]}`:                     "fail stream later heard no event or bookmark for 4m25s, want one in 2m30s; 1 other of 2 is not well",
		`{streams: [held]}`:                        "pass stream held is held: what it read waits to be recorded",
		`{streams: [gap]}`:                         "warn stream gap has a gap in the last 1h: nobody can say what happened then",
		`{streams: [gap], gaps_for: 4s}`:           "pass stream gap heard something 5s ago",
		`{streams: [new]}`:                         "unknown stream new has read nothing yet",
		`{streams: [gone]}`:                        "unknown no stream gone is known of in the last minute",
		`{streams: [pods], source: somebody-else}`: "unknown no stream pods is known of in the last minute",
		`{}`: "fail stream later heard no event or bookmark for 4m25s, want one in 2m30s; 3 others of 7 are not well",
	} {
		clock := &at{began.Add(2*time.Minute + 5*time.Second)}
		r := streamOf(t, text, clock, s).Check(t.Context())
		if got := r.Status.String() + " " + r.Message; got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
	clock := &at{began.Add(time.Minute)}
	r := streamOf(t, `{streams: [jobs, new]}`, clock, s).Check(t.Context())
	want := []verdict.Measure{{Label: "jobs", Value: 1, Unit: "s", Warn: "90", Crit: "150"}}
	if diff := cmp.Diff(want, r.Measures); diff != "" || *r.Value != 1 {
		t.Errorf("value %v, (-want +got)\n%s", *r.Value, diff)
	}
}

func TestStreamThatNeverReads(t *testing.T) {
	s := streams{kept{}}
	s.add(streamObjects, "new", 0, 0, 0, 0, 0)
	clock := &at{began}
	c := streamOf(t, `{}`, clock, s)
	for _, want := range []verdict.Status{verdict.Unknown, verdict.Unknown, verdict.Unknown, verdict.Fail} {
		got := c.Check(t.Context())
		if got.Status != want {
			t.Errorf("after %v: got %s %q, want %s", clock.time.Sub(began), got.Status, got.Message, want)
		}
		clock.time = clock.time.Add(time.Minute)
	}
	c.series = nil
	if got := c.Check(t.Context()); got.Status != verdict.Unknown {
		t.Errorf("without a history: got %s %q", got.Status, got.Message)
	}
}

func TestStreamConfig(t *testing.T) {
	for text, want := range map[string]string{
		`{streams: ["["]}`: "check.streams[0]: got",
		`{warn: 3m}`:       "check.warn: got 3m0s, want more than 0s, and at most crit, which is 2m30s",
		`{crit: 0s}`:       "check.crit: got 0s",
		`{gaps_for: 2h}`:   "check.gaps_for: got 2h0m0s, want 0s to 1h",
		`{warn: 3m, crit: 5m, gaps_for: 0s, source: other}`: "",
	} {
		var c StreamConfig
		err := configured(t, text, &c)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
