package verdict

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const every = 10 * time.Second

func parse(t testing.TB, letter string) Status {
	t.Helper()
	for _, s := range []Status{Pass, Warn, Fail, Unknown} {
		if s.String()[:1] == letter {
			return s
		}
	}
	t.Fatalf("script: letter %q, want p, w, f or u", letter)
	return Unknown
}

// play feeds one result each 10 seconds, "-" being one that does not come,
// and returns the statuses shown at each of those moments.
func play(t testing.TB, p Policy, script string) (shown string, s State) {
	t.Helper()
	s = New(start)
	var out []string
	for i, letter := range strings.Fields(script) {
		now := start.Add(time.Duration(i) * every)
		if letter != "-" {
			s = Next(s, p, Result{Status: parse(t, letter), At: now})
		}
		out = append(out, At(s, p, now).Status.String()[:1])
	}
	return strings.Join(out, " "), s
}

func TestNext(t *testing.T) {
	t.Parallel()
	steady := Policy{FailAfter: 3, PassAfter: 2}
	tests := []struct {
		name    string
		policy  Policy
		script  string
		want    string
		changes uint64
	}{
		{"without thresholds every result counts at once", Policy{}, "p f p w u f p", "p f p w u f p", 7},
		{"it fails after the third failure and passes after the second pass", steady, "p f f f p p", "p p p f f p", 3},
		{"a blip is not seen", steady, "p f p f f p p", "p p p p p p p", 1},
		{"a lull in trouble is not seen", steady, "p f f f p f p f", "p p p f f f f f", 2},
		{"the first pass counts at once", steady, "p p", "p p", 1},
		{"the first warn counts at once", steady, "w w", "w w", 1},
		{"a first failure waits for its threshold", steady, "f f f", "u u f", 1},
		{"after a first failure a pass waits for its threshold", steady, "f p p", "u u p", 1},
		{"warns and failures together are a warn", steady, "p f w f", "p p p w", 2},
		{"a warn that turns into failures becomes fail", steady, "p w w w f f f", "p p p w w w f", 3},
		{"a failure that eases becomes warn first", steady, "p f f f w w p p", "p p p f f w w p", 4},
		{"better results of two kinds count as the worse of them", steady, "p f f f w p p", "p p p f f w p", 4},
		{"unknown hides no pass", steady, "p u u p", "p p p p", 1},
		{"unknown lies between warn and fail", Policy{}, "w u f u w", "w u f u w", 5},
		{"unknowns and failures together are unknown", steady, "p u f u", "p p p u", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			shown, s := play(t, tt.policy, tt.script)
			if shown != tt.want {
				t.Errorf("results %q:\ngot  %q\nwant %q", tt.script, shown, tt.want)
			}
			if s.Changes != tt.changes {
				t.Errorf("changes = %d, want %d", s.Changes, tt.changes)
			}
			if got := strings.ReplaceAll(tt.script, " ", ""); s.History != got {
				t.Errorf("history = %q, want %q", s.History, got)
			}
		})
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	// Late after two intervals, failed after three.
	p := Policy{StaleAfter: 3 * every, PassAfter: 2}
	tests := []struct {
		name, script, want string
		changes            uint64
	}{
		{"a pass that gets old is unknown, then fail", "p - - - -", "p p u f f", 1},
		{"without any result it is unknown, then fail", "- - - - -", "u u u f f", 0},
		{"a failure that gets old stays a failure", "f - - - -", "f f f f f", 1},
		{"a warn that gets old is unknown, then fail", "w - - -", "w w u f", 1},
		{"a new result ends the silence", "p - - - f", "p p u f f", 3},
		{"after a silence it needs its passes", "p - p p", "p p u p", 3},
		{"after a failing silence it needs its passes", "p p - - - p p", "p p p u f f p", 4},
		{"passes around a silence are not in a row", "p - - - p - p p", "p p u f f f f p", 4},
		{"a late first pass needs its passes", "- - - p p", "u u u f p", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			shown, s := play(t, p, tt.script)
			if shown != tt.want {
				t.Errorf("results %q:\ngot  %q\nwant %q", tt.script, shown, tt.want)
			}
			if s.Changes != tt.changes {
				t.Errorf("stored changes = %d, want %d", s.Changes, tt.changes)
			}
		})
	}
}

func TestAtKeepsTheMomentOfTheChange(t *testing.T) {
	t.Parallel()
	p := Policy{StaleAfter: 30 * time.Second}
	s := Next(New(start), p, Result{Status: Pass, Message: "fine", At: start.Add(time.Second)})
	last := start.Add(time.Second)
	tests := []struct {
		after   time.Duration
		status  Status
		since   time.Time
		stale   bool
		changes uint64
		message string
	}{
		{20*time.Second - 1, Pass, last, false, 1, "fine"},
		{20 * time.Second, Unknown, last.Add(20 * time.Second), true, 2, "no result since 2026-03-01T12:00:01Z; it said: fine"},
		{30*time.Second - 1, Unknown, last.Add(20 * time.Second), true, 2, "no result since 2026-03-01T12:00:01Z; it said: fine"},
		{30 * time.Second, Fail, last.Add(30 * time.Second), true, 3, "no result since 2026-03-01T12:00:01Z; it said: fine"},
		{30 * time.Hour, Fail, last.Add(30 * time.Second), true, 3, "no result since 2026-03-01T12:00:01Z; it said: fine"},
	}
	for _, tt := range tests {
		got := At(s, p, last.Add(tt.after))
		if got.Status != tt.status || !got.Since.Equal(tt.since) || got.Stale != tt.stale || got.Changes != tt.changes {
			t.Errorf("after %v: %v since %v, stale %v, %d changes; want %v since %v, stale %v, %d changes", tt.after,
				got.Status, got.Since, got.Stale, got.Changes, tt.status, tt.since, tt.stale, tt.changes)
		}
		if got.Message() != tt.message {
			t.Errorf("after %v: message %q, want %q", tt.after, got.Message(), tt.message)
		}
		if diff := cmp.Diff(got, At(got, p, last.Add(tt.after))); diff != "" {
			t.Errorf("after %v: aged twice (-once +twice):\n%s", tt.after, diff)
		}
	}
	again := Next(s, p, Result{Status: Pass, Message: "back", At: last.Add(time.Hour)})
	if again.Status != Pass || again.Stale || again.Changes != 4 || again.Message() != "back" {
		t.Errorf("after a new result: %v %q, stale %v, %d changes; want pass back, not stale, 4", again.Status, again.Message(), again.Stale, again.Changes)
	}
	if got := At(New(start), p, start).Message(); got != "no result yet" {
		t.Errorf("message before the first result: %q, want %q", got, "no result yet")
	}
}

func TestNextCleansTheResult(t *testing.T) {
	t.Parallel()
	value := 1.5
	s := Next(New(start), Policy{}, Result{Status: Status(7), Message: "a\nb", Value: &value, At: start})
	value = 2
	if s.Status != Unknown || s.Last.Status != Unknown {
		t.Errorf("status(7) became %v, last result %v; want unknown", s.Status, s.Last.Status)
	}
	if s.Last.Message != "a b" {
		t.Errorf("message %q, want %q", s.Last.Message, "a b")
	}
	if *s.Last.Value != 1.5 {
		t.Errorf("value %v, want 1.5: it must not follow the check's variable", *s.Last.Value)
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if s := Next(s, Policy{}, Result{Value: &v, At: start}); s.Last.Value != nil {
			t.Errorf("value %v was kept, but JSON cannot say it", v)
		}
	}
}

func TestAClockSetBackDoesNotMoveSince(t *testing.T) {
	t.Parallel()
	s := Next(New(start), Policy{}, Result{Status: Pass, At: start.Add(time.Minute)})
	s = Next(s, Policy{}, Result{Status: Fail, At: start})
	if want := start.Add(time.Minute); !s.Since.Equal(want) {
		t.Errorf("since %v, want %v", s.Since, want)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	_, s := play(t, Policy{}, strings.Repeat("f ", 30)+strings.Repeat("p ", 5))
	if want := strings.Repeat("f", 16) + "ppppp"; s.History != want {
		t.Errorf("history %q, want %q", s.History, want)
	}
	if s.Runs != 35 {
		t.Errorf("runs = %d, want 35", s.Runs)
	}
}

// The fuzzer writes scripts: two bits of status, six of time that passes.
func FuzzNext(f *testing.F) {
	f.Add(uint8(3), uint8(2), uint8(30), []byte{0, 2, 2, 2, 0, 0})
	f.Add(uint8(1), uint8(1), uint8(0), []byte{0x43, 0xff, 0x81, 0x02})
	f.Fuzz(func(t *testing.T, failAfter, passAfter, staleAfter uint8, script []byte) {
		p := Policy{FailAfter: int(failAfter % 8), PassAfter: int(passAfter % 8), StaleAfter: time.Duration(staleAfter) * time.Second}
		s, now := New(start), start
		for i, b := range script {
			now = now.Add(time.Duration(b>>2) * time.Second)
			before := s
			aged := At(s, p, now)
			checkOrder(t, before, aged)
			if Compare(aged.Status, before.Status) < 0 {
				t.Fatalf("step %d: age made %v better: %v", i, before.Status, aged.Status)
			}
			s = Next(s, p, Result{Status: Status(b & 3), At: now})
			checkOrder(t, aged, s)
			if s.Runs != uint64(i+1) || len(s.History) != min(i+1, HistoryLen) {
				t.Fatalf("step %d: %d runs, history %q", i, s.Runs, s.History)
			}
			if err := hidden(t, s, p); err != nil {
				t.Fatalf("step %d, %+v: %v", i, p, err)
			}
		}
	})
}

func checkOrder(t *testing.T, a, b State) {
	t.Helper()
	if b.Since.Before(a.Since) || b.Changes < a.Changes {
		t.Fatalf("since went from %v to %v, changes from %d to %d", a.Since, b.Since, a.Changes, b.Changes)
	}
	if a.Status != b.Status && b.Changes == a.Changes {
		t.Fatalf("status went from %v to %v without being counted", a.Status, b.Status)
	}
}

// hidden returns an error when the last FailAfter results were all worse than
// the verdict, or the last PassAfter, with no silence between, all better.
func hidden(t *testing.T, s State, p Policy) error {
	worse, better := 0, 0
	for i := len(s.History) - 1; i >= 0; i-- {
		switch c := Compare(parse(t, s.History[i:i+1]), s.Status); {
		case c > 0 && worse == len(s.History)-1-i:
			worse++
		case c < 0 && better == len(s.History)-1-i:
			better++
		}
	}
	// A silence breaks a row of passes, and the history does not show it.
	if worse >= max(1, p.FailAfter) || better >= max(1, p.PassAfter) && p.StaleAfter == 0 {
		return fmt.Errorf("history %q shows as %v", s.History, s.Status)
	}
	return nil
}
