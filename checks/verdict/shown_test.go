package verdict

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func stateOf(status Status, message string) State {
	return Next(New(start), Policy{}, Result{Status: status, Message: message, At: start})
}

func TestShow(t *testing.T) {
	t.Parallel()
	hour := start.Add(time.Hour)
	cause := Cause{Name: "db", Since: start.Add(time.Minute)}
	kept := Maintenance{Who: "ann", Why: "new disk", Since: start.Add(time.Minute), Until: hour}
	short := Maintenance{Who: "bob", Why: "test", Since: start, Until: start.Add(time.Second)}
	healing := Healing{Remedy: "restart", Since: start.Add(2 * time.Minute), Deadline: start.Add(10 * time.Minute)}
	now := start.Add(5 * time.Minute)
	tests := []struct {
		name        string
		found       Status
		change      func(*State)
		cause       Cause
		everything  Maintenance
		now         time.Time
		want        Status
		since       time.Duration
		message     string
		maintenance string
	}{
		{"a failure", Fail, nil, Cause{}, Maintenance{}, now, Fail, 0, "refused", ""},
		{"a failure because of another is unknown", Fail, nil, cause, Maintenance{}, now, Unknown, time.Minute, "because db fails; refused", ""},
		{"what is unknown because of another stays so", Unknown, nil, cause, Maintenance{}, now, Unknown, time.Minute, "because db fails; refused", ""},
		{"a warning has its own cause", Warn, nil, cause, Maintenance{}, now, Warn, 0, "refused", ""},
		{"a pass needs none", Pass, nil, cause, Maintenance{}, now, Pass, 0, "refused", ""},
		{"because of what is in maintenance nobody is told", Fail, nil, Cause{Name: "db", Maintained: true}, Maintenance{}, now, Pass, 0, "because db fails; refused", ""},
		{"in maintenance a failure passes", Fail, func(s *State) { s.Maintenance = kept }, Cause{}, Maintenance{}, now, Pass, time.Minute, "in maintenance until 2026-03-01T13:00:00Z (ann: new disk); refused", "ann"},
		{"in maintenance a warning passes", Warn, func(s *State) { s.Maintenance = kept }, Cause{}, Maintenance{}, now, Pass, time.Minute, "in maintenance until 2026-03-01T13:00:00Z (ann: new disk); refused", "ann"},
		{"in maintenance a pass says nothing of it", Pass, func(s *State) { s.Maintenance = kept }, Cause{}, Maintenance{}, now, Pass, 0, "refused", "ann"},
		{"everything in maintenance", Fail, nil, Cause{}, kept, now, Pass, time.Minute, "in maintenance until 2026-03-01T13:00:00Z (ann: new disk); refused", "ann"},
		{"of two the longer counts", Fail, func(s *State) { s.Maintenance = short }, Cause{}, kept, now, Pass, time.Minute, "in maintenance until 2026-03-01T13:00:00Z (ann: new disk); refused", "ann"},
		{"a maintenance ends on time", Fail, func(s *State) { s.Maintenance = kept }, Cause{}, Maintenance{}, hour, Fail, 0, "refused", ""},
		{"healing is a warning", Fail, func(s *State) { s.Healing = healing }, Cause{}, Maintenance{}, now, Warn, 2 * time.Minute, "restart heals it, until 2026-03-01T12:10:00Z; refused", ""},
		{"healing ends with its deadline", Fail, func(s *State) { s.Healing = healing }, Cause{}, Maintenance{}, healing.Deadline, Fail, 0, "refused", ""},
		{"healing makes nothing worse", Pass, func(s *State) { s.Healing = healing }, Cause{}, Maintenance{}, now, Pass, 0, "refused", ""},
		{"acknowledged counts", Fail, func(s *State) { s.Ack = Ack{Who: "ann"} }, Cause{}, Maintenance{}, now, Fail, 0, "refused", ""},
	}
	for _, tt := range tests {
		s := stateOf(tt.found, "refused")
		if tt.change != nil {
			tt.change(&s)
		}
		v := Show(s, tt.now, tt.cause, tt.everything)
		if v.Status != tt.want || v.Found != tt.found || v.Since.Sub(start) != tt.since || v.Message != tt.message || v.Maintenance.Who != tt.maintenance {
			t.Errorf("%s: %v, found %v, since %v, %q, maintenance of %q;\nwant %v, found %v, since %v, %q, %q", tt.name,
				v.Status, v.Found, v.Since.Sub(start), v.Message, v.Maintenance.Who, tt.want, tt.found, tt.since, tt.message, tt.maintenance)
		}
		if explained := tt.cause.Name != "" && Compare(tt.found, Warn) > 0; explained != (v.Because == "db") {
			t.Errorf("%s: because %q", tt.name, v.Because)
		}
	}
}

func TestAcknowledge(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 201)
	for _, tt := range []struct {
		name     string
		status   Status
		who, why string
		want     string
	}{
		{"a pass", Pass, "ann", "on it", "it passes: there is nothing to acknowledge"},
		{"nobody", Fail, "", "on it", "who: got 0 bytes, want 1 to 200"},
		{"no reason", Fail, "ann", "", "why: got 0 bytes, want 1 to 200"},
		{"too many words", Fail, "ann", long, "why: got 201 bytes, want 1 to 200"},
	} {
		s := stateOf(tt.status, "")
		got, err := Acknowledge(s, tt.who, tt.why, start)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %v, want %s", tt.name, err, tt.want)
		}
		if diff := cmp.Diff(s, got); diff != "" {
			t.Errorf("%s: changed:\n%s", tt.name, diff)
		}
	}
	for _, tt := range []struct {
		name, script string
		kept         bool
	}{
		{"it stays while the check fails", "fff", true},
		{"it stays while it eases", "wuf", true},
		{"it ends when the check passes", "fp", false},
		{"it is not of the next failure", "pf", false},
	} {
		s, err := Acknowledge(stateOf(Fail, ""), "ann", "on\nit", start)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(tt.script) {
			s = Next(s, Policy{}, Result{Status: parse(t, tt.script[i:i+1]), At: start})
		}
		want := Ack{}
		if tt.kept {
			want = Ack{Who: "ann", Why: "on it", At: start, Status: Fail}
		}
		if s.Ack != want {
			t.Errorf("%s: %+v, want %+v", tt.name, s.Ack, want)
		}
	}
	s, err := Acknowledge(stateOf(Warn, ""), "ann", "on it", start)
	if err != nil {
		t.Fatal(err)
	}
	if s = Next(s, Policy{}, Result{Status: Fail, At: start}); s.Ack != (Ack{}) {
		t.Errorf("a warning that was acknowledged got worse, and is still: %+v", s.Ack)
	}
}

func TestNewMaintenance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, who string
		left      time.Duration
		want      Maintenance
		err       string
	}{
		{"an hour", "ann", time.Hour, Maintenance{Who: "ann", Why: "new disk", Since: start, Until: start.Add(time.Hour)}, ""},
		{"its end", "ann", 0, Maintenance{}, ""},
		{"longer than anybody remembers", "ann", MaxMaintenance + time.Second, Maintenance{}, "until 2026-03-31T12:00:01Z: got 720h0m1s from now, want at most 720h0m0s"},
		{"nobody", "", time.Hour, Maintenance{}, "who: got 0 bytes, want 1 to 200"},
	} {
		got, err := NewMaintenance(tt.who, "new disk", start, start.Add(tt.left))
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s: %+v, %v; want %+v, %s", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func TestHealingIsBounded(t *testing.T) {
	t.Parallel()
	if _, err := Heal(stateOf(Warn, ""), "restart", start, start.Add(time.Minute)); err == nil || err.Error() != "it does not fail: status warn" {
		t.Errorf("heal a warning: %v", err)
	}
	s := stateOf(Fail, "")
	// A remedy that is tried again and again hides the failure for an hour, no longer.
	for now := start; now.Before(start.Add(3 * time.Hour)); now = now.Add(time.Minute) {
		var err error
		if s, err = Heal(s, "restart", now, now.Add(5*time.Minute)); err != nil {
			t.Fatal(err)
		}
		s = Next(s, Policy{}, Result{Status: Fail, At: now})
		want := Warn
		if !now.Before(start.Add(MaxHealing)) {
			want = Fail
		}
		if got := Show(s, now, Cause{}, Maintenance{}).Status; got != want {
			t.Fatalf("after %v: %v, want %v", now.Sub(start), got, want)
		}
	}
	if s = Next(s, Policy{}, Result{Status: Pass, At: start.Add(3 * time.Hour)}); s.Healing != (Healing{}) {
		t.Errorf("healed, and still healing: %+v", s.Healing)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	p := Policy{StaleAfter: time.Hour, FailAfter: 5, PassAfter: 1}
	before := Next(New(start), p, Result{Status: Pass, Message: "fine", At: start})
	s := Stop(before, p, start.Add(time.Minute), start.Add(2*time.Minute), "no answer")
	for _, tt := range []struct {
		after  time.Duration
		status Status
	}{{time.Minute, Unknown}, {2*time.Minute - 1, Unknown}, {2 * time.Minute, Fail}, {2 * time.Hour, Fail}} {
		got := At(s, p, start.Add(tt.after))
		if got.Status != tt.status || !got.Stale || got.Runs != 1 || got.Message() != "no answer; it said: fine" {
			t.Errorf("after %v: %v, stale %v, %d runs, %q; want %v, true, 1", tt.after, got.Status, got.Stale, got.Runs, got.Message(), tt.status)
		}
	}
	late := Resume(s, p, start.Add(90*time.Second))
	if got := At(late, p, start.Add(30*time.Minute)); got.Status != Unknown || !got.Stale {
		t.Errorf("after an answer that came too late: %v, stale %v; want unknown, true", got.Status, got.Stale)
	}
	if got := Next(late, p, Result{Status: Pass, Message: "back", At: start.Add(3 * time.Minute)}); got.Status != Pass || got.Stale || got.Message() != "back" {
		t.Errorf("after the next result: %v, stale %v, %q; want pass, false, back", got.Status, got.Stale, got.Message())
	}
	if got := Stop(stateOf(Fail, "x"), p, start, start.Add(time.Minute), "no answer").Status; got != Fail {
		t.Errorf("a failure that stops answering: %v, want fail", got)
	}
}
