package verdict

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestFlapShare(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, history string
		want          float64
	}{
		{"nothing yet", "", 0},
		{"one result", "f", 0},
		{"all alike", strings.Repeat("p", 21), 0},
		{"every result differs", strings.Repeat("pf", 11)[:21], 100},
		{"the newest change weighs 1.2", strings.Repeat("p", 20) + "f", 6},
		{"the oldest change weighs 0.8", "f" + strings.Repeat("p", 20), 4},
		{"a change in the middle", strings.Repeat("p", 10) + strings.Repeat("w", 11), 100 * (1.2 - 0.4*10/19) / 20},
		{"of a short history the newest weigh as much", "pf", 6},
		{"warn to fail is a change too", "wf", 6},
	}
	for _, tt := range tests {
		if got := FlapShare(tt.history); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%s: %q has %v %%, want %v", tt.name, tt.history, got, tt.want)
		}
	}
}

func TestFlapping(t *testing.T) {
	t.Parallel()
	damped := Policy{FlapHigh: FlapHigh, FlapLow: FlapLow}
	slow := Policy{FailAfter: 2, PassAfter: 2, FlapHigh: FlapHigh, FlapLow: FlapLow}
	jumps := func(pair string, n int) string { return strings.Repeat(pair, n) }
	tests := []struct {
		name     string
		policy   Policy
		script   string
		want     string // the statuses shown
		flapping string // * while it flaps
	}{
		{
			"eight changes are none, nine are", damped,
			jumps("pf", 5), "pfpfpfpfpf", ".........*",
		},
		{
			"while it flaps the worst counts", damped,
			jumps("pf", 6), "pfpfpfpfpfff", ".........***",
		},
		{
			"warnings that flap are a warning", damped,
			jumps("pw", 6), "pwpwpwpwpwww", ".........***",
		},
		{
			"a failure in it counts for as long as it is among the last 21", damped,
			"f" + jumps("pw", 12), "fpwpwpwpwffffffffffffwwww", ".........****************",
		},
		{
			"steady passes end it, and the end is a change", damped,
			jumps("pf", 5) + strings.Repeat("p", 20), "pfpfpfpfpf" + strings.Repeat("f", 16) + "pppp", "........." + strings.Repeat("*", 17) + "....",
		},
		{
			"steady failures end it with a failure", damped,
			jumps("fp", 5) + strings.Repeat("f", 20), "fpfpfpfpff" + strings.Repeat("f", 20), "........." + strings.Repeat("*", 17) + "....",
		},
		{
			"what the thresholds take for blips stays one, but it says that it flaps", slow,
			"p" + jumps("pf", 6), "ppppppppppppp", "..........***",
		},
		{
			"without a high threshold nothing flaps",
			Policy{},
			jumps("pf", 6), "pfpfpfpfpfpf", "............",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := New(start)
			var shown, flapping strings.Builder
			for i := range len(tt.script) {
				s = Next(s, tt.policy, Result{Status: parse(t, tt.script[i:i+1]), At: start.Add(time.Duration(i) * every)})
				shown.WriteString(s.Status.String()[:1])
				flapping.WriteByte(map[bool]byte{true: '*', false: '.'}[s.Flapping])
			}
			if shown.String() != tt.want || flapping.String() != tt.flapping {
				t.Errorf("results %s:\ngot  %s\nwant %s\ngot  %s\nwant %s", tt.script, &shown, tt.want, &flapping, tt.flapping)
			}
		})
	}
}

// The verdict of a check that flaps changes twice: it is one problem to who polls.
func TestAFlappingCheckChangesSeldom(t *testing.T) {
	t.Parallel()
	script := "p " + strings.Repeat("f p ", 500) + strings.Repeat("p ", 30)
	_, plain := play(t, Policy{}, script)
	_, s := play(t, Policy{FlapHigh: FlapHigh, FlapLow: FlapLow}, script)
	if plain.Changes != 1001 || s.Changes > 12 || s.Status != Pass || s.Flapping {
		t.Errorf("%d changes without damping, %d with; at the end %v, flapping %v; want 1001, 12 at most, pass, false", plain.Changes, s.Changes, s.Status, s.Flapping)
	}
}

// Whatever the script: damping never shows less than there is without it, never
// more than the worst of the last 21 results, and 21 results alike end it.
func FuzzFlapping(f *testing.F) {
	f.Add(uint8(1), uint8(1), []byte("pfpfpfpfpfpfpppppppppppppppppppppppppp"))
	f.Add(uint8(3), uint8(2), []byte("wfwfupwfuwpfupfwupfwuwpfwupfwupfwuppppppp"))
	f.Fuzz(func(t *testing.T, failAfter, passAfter uint8, script []byte) {
		p := Policy{FailAfter: int(failAfter % 4), PassAfter: int(passAfter % 4)}
		damped := p
		damped.FlapHigh, damped.FlapLow = FlapHigh, FlapLow
		a, b := New(start), New(start)
		alike := 0
		for i, c := range script {
			r := Result{Status: Status(c & 3), At: start.Add(time.Duration(i) * every)}
			if i > 0 && script[i-1]&3 == c&3 {
				alike++
			} else {
				alike = 1
			}
			a, b = Next(a, p, r), Next(b, damped, r)
			if b.Settled != a.Status {
				t.Fatalf("result %d: settled on %v, want %v as without damping", i, b.Settled, a.Status)
			}
			if Compare(b.Status, a.Status) < 0 {
				t.Fatalf("result %d: damping shows %v for %v", i, b.Status, a.Status)
			}
			if !b.Flapping && b.Status != a.Status {
				t.Fatalf("result %d: shows %v for %v without flapping", i, b.Status, a.Status)
			}
			if !strings.Contains(b.Verdicts, b.Status.String()[:1]) {
				t.Fatalf("result %d: shows %v, not among the last verdicts %s", i, b.Status, b.Verdicts)
			}
			if alike >= HistoryLen && b.Flapping {
				t.Fatalf("result %d: flaps after %d results alike", i, alike)
			}
		}
	})
}
