package verdict

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRestore(t *testing.T) {
	t.Parallel()
	p := Policy{StaleAfter: 30 * time.Second, PassAfter: 2, FailAfter: 2, FlapHigh: FlapHigh, FlapLow: FlapLow}
	_, kept := play(t, p, "p p f f")
	kept.Ack = Ack{Who: "ann", Why: "on it", At: start, Status: Fail}
	kept.Maintenance = Maintenance{Who: "bob", Why: "disk", Since: start, Until: start.Add(time.Hour)}
	last := start.Add(30 * time.Second)

	fresh, err := Restore(kept, p, last.Add(29*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kept, fresh); diff != "" {
		t.Errorf("what is not too old changed:\n%s", diff)
	}

	now := last.Add(30 * time.Second)
	old, err := Restore(kept, p, now)
	if err != nil {
		t.Fatal(err)
	}
	if got := At(old, p, now.Add(10*time.Second)); got.Status != Unknown || got.Stale || got.Message() != "no result yet" {
		t.Errorf("what is too old: %v, stale %v, %q; want unknown, false, no result yet", got.Status, got.Stale, got.Message())
	}
	if got := At(old, p, now.Add(30*time.Second)); got.Status != Fail || !got.Stale {
		t.Errorf("without a result since: %v, stale %v; want fail, true", got.Status, got.Stale)
	}
	if old.History != "ppff" || old.Runs != 4 || old.Ack != kept.Ack || old.Maintenance != kept.Maintenance {
		t.Errorf("history %q, %d runs, %+v, %+v; want what was kept", old.History, old.Runs, old.Ack, old.Maintenance)
	}
	if got := Next(old, p, Result{Status: Pass, At: now}); got.Status != Pass || got.History != "ppffp" || got.Runs != 5 {
		t.Errorf("its first result: %v %q, %d runs; want pass at once, ppffp, 5", got.Status, got.History, got.Runs)
	}
	if got, err := Restore(kept, p, start.Add(2*time.Hour)); err != nil || got.Maintenance != (Maintenance{}) {
		t.Errorf("a maintenance that is over: %+v, %v", got.Maintenance, err)
	}
	if got, err := Restore(kept, p, start); err != nil || got.Last.At.After(start) || got.Since.After(start) {
		t.Errorf("a clock set back: since %v, last %v, %v; want none after %v", got.Since, got.Last.At, err, start)
	}
	hung := Stop(kept, p, last, last.Add(time.Second), "stuck")
	if got, err := Restore(hung, p, last); err != nil || got.Stale || got.Status != Unknown || got.Stalled != (Stall{}) {
		t.Errorf("a run that did not end: %v, stale %v, %+v, %v; want unknown", got.Status, got.Stale, got.Stalled, err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*State){
		`history: got "pxf", want at most 21 of p, w, f and u`:                                func(s *State) { s.History = "pxf" },
		`verdicts: got "pppppppppppppppppppppp", want at most 21 of p, w, f and u`:            func(s *State) { s.Verdicts = strings.Repeat("p", 22) },
		`results in a row: got [0 0 -1 0] and [0 0 0 0], want none below 0`:                   func(s *State) { s.AtLeast[2] = -1 },
		`busy: got -1s, want 0 or more`:                                                       func(s *State) { s.Busy = -time.Second },
		`status: got pass, want nothing better than what it settled on without damping, warn`: func(s *State) { s.Status, s.Settled = Pass, Warn },
	} {
		s := New(start)
		change(&s)
		if _, err := Restore(s, Policy{}, start); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// Any JSON is refused or gives a state that can go on.
func FuzzRestore(f *testing.F) {
	_, s := play(f, Policy{}, "p f w u p")
	text, err := json.Marshal(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"history":"pf","last":{"measures":[{"label":"a","value":null}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s State
		if json.Unmarshal(text, &s) != nil {
			return
		}
		p := Policy{StaleAfter: time.Minute, FailAfter: 2, FlapHigh: FlapHigh, FlapLow: FlapLow}
		s, err := Restore(s, p, start)
		if err != nil {
			return
		}
		if s.Since.After(start) || s.Last.At.After(start) || len(s.Last.Message) > MaxMessage {
			t.Errorf("restored with since %v, last %v", s.Since, s.Last.At)
		}
		s = Next(s, p, Result{Status: Fail, At: start})
		s = Next(s, p, Result{Status: Fail, At: start.Add(time.Second)})
		if v := Show(s, start.Add(time.Second), Cause{}, Maintenance{}); v.Found != Fail {
			t.Errorf("two failures are %v", v.Found)
		}
		if _, err := json.Marshal(s); err != nil {
			t.Error(err)
		}
	})
}

func TestMeasures(t *testing.T) {
	t.Parallel()
	low, inf := 1.0, math.Inf(1)
	many := make([]Measure, MaxMeasures+5)
	for i := range many {
		many[i] = Measure{Label: "m", Value: float64(i)}
	}
	in := append([]Measure{
		{Label: "a\nb", Value: 1, Unit: "s", Warn: "10:", Crit: "5:", Min: &low, Max: &inf},
		{Label: "unknown", Value: math.NaN()},
		{Label: "endless", Value: inf},
		{Value: 3},
		{Label: strings.Repeat("ä", 100), Value: 4},
	}, many...)
	got := Next(New(start), Policy{}, Result{Measures: in, At: start}).Last.Measures
	low = 9
	if len(got) != MaxMeasures || got[0].Label != "a b" || *got[0].Min != 1 || got[0].Max != nil {
		t.Errorf("%d measures, the first %+v; want %d, label a b, min 1, no max", len(got), got[0], MaxMeasures)
	}
	if got[1].Label != "unknown" || !math.IsNaN(got[1].Value) || got[2].Label != strings.Repeat("ä", 50) || got[3].Value != 0 {
		t.Errorf("measures 2 to 4: %+v", got[1:4])
	}
	text, err := json.Marshal(got[:2])
	if want := `[{"label":"a b","value":1,"unit":"s","warn":"10:","crit":"5:","min":1},{"label":"unknown","value":null}]`; err != nil || string(text) != want {
		t.Errorf("JSON %s, %v; want %s", text, err, want)
	}
	var back []Measure
	if err := json.Unmarshal(text, &back); err != nil || back[0].Value != 1 || !math.IsNaN(back[1].Value) || *back[0].Min != 1 {
		t.Errorf("read back: %+v, %v", back, err)
	}
}
