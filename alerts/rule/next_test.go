package rule

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// show writes episodes as level began-ended worst, in steps.
func show(episodes []Episode, step time.Duration) (out []string) {
	for _, e := range episodes {
		ended := "..."
		if !e.Ended.IsZero() {
			ended = fmt.Sprint(int(e.Ended.Sub(t0) / step))
		}
		out = append(out, fmt.Sprintf("%s%s %d-%s %v", e.Tags["n"], e.Level, int(e.Began.Sub(t0)/step), ended, e.Worst))
	}
	return out
}

func TestEpisodes(t *testing.T) {
	const s = 10 * time.Second
	repeat := func(n int, values ...float64) []float64 { return slices.Repeat(values, n) }
	crit := Rule{Crit: mustRange(t, "10")}
	both := Rule{Warn: mustRange(t, "10"), Crit: mustRange(t, "20")}
	floor := Rule{Func: Rate, Window: time.Minute, Crit: mustRange(t, "5:")}
	with := func(r Rule, change func(*Rule)) Rule {
		change(&r)
		return r
	}
	for name, tt := range map[string]struct {
		rule Rule
		of   []float64
		want []string
	}{
		"quiet":                                {crit, []float64{1, 2, 10, 3}, nil},
		"a spike":                              {crit, []float64{1, 11, 30, 11, 1}, []string{"fail 1-4 30"}},
		"it goes on":                           {crit, []float64{1, 11, 12}, []string{"fail 1-... 12"}},
		"a spike shorter than for":             {with(crit, func(r *Rule) { r.For = 3 * s }), []float64{1, 11, 11, 11, 1, 1}, nil},
		"as long as for":                       {with(crit, func(r *Rule) { r.For = 3 * s }), []float64{1, 11, 11, 11, 11, 1}, []string{"fail 4-5 11"}},
		"flaps, with for":                      {with(crit, func(r *Rule) { r.For = 2 * s }), repeat(5, 11, 11, 1), nil},
		"flaps, kept":                          {with(crit, func(r *Rule) { r.KeepFor = 2 * s }), []float64{11, 1, 11, 1, 1, 11, 1, 1, 1, 1}, []string{"fail 0-8 11"}},
		"flaps within the recovery value":      {with(crit, func(r *Rule) { r.CritClear = mustRange(t, "5") }), []float64{11, 9, 11, 6, 12, 5, 9}, []string{"fail 0-5 12"}},
		"the recovery value raises nothing":    {with(crit, func(r *Rule) { r.CritClear = mustRange(t, "5") }), []float64{1, 9, 6, 9}, nil},
		"the recovery value and for":           {with(crit, func(r *Rule) { r.CritClear, r.For = mustRange(t, "5"), 2*s }), []float64{11, 9, 11, 11, 11, 9, 5}, []string{"fail 4-6 11"}},
		"a slow ramp":                          {both, steps(8, 0, 4), []string{"warn 3-6 20", "fail 6-... 28"}},
		"up and down":                          {both, []float64{5, 15, 25, 15, 5}, []string{"warn 1-2 15", "fail 2-3 25", "warn 3-4 15"}},
		"below":                                {Rule{Crit: mustRange(t, "10:")}, []float64{10, 9, 3, 8, 10}, []string{"fail 1-4 3"}},
		"outside on either side":               {Rule{Crit: mustRange(t, "10:20")}, []float64{15, 22, 2, 15}, []string{"fail 1-3 2"}},
		"inside":                               {Rule{Crit: mustRange(t, "@10:20")}, []float64{9, 10, 14, 19, 21}, []string{"fail 1-4 14"}},
		"a gap is no recovery by itself":       {crit, []float64{11, gap, gap, 11, 1}, []string{"fail 0-4 11"}},
		"what has gone is over":                {crit, []float64{11, nan, gap, 11, 1}, []string{"fail 0-1 11", "fail 3-4 11"}},
		"what has gone, kept":                  {with(crit, func(r *Rule) { r.KeepFor = 5 * s }), []float64{11, nan, gap, 12, 1, 1, 1, 1, 1, 1}, []string{"fail 0-9 12"}},
		"a gap resets for":                     {with(crit, func(r *Rule) { r.For = 2 * s }), []float64{11, 11, nan, 11, 11, 1}, nil},
		"what warned and has gone":             {with(both, func(r *Rule) { r.KeepFor = 2 * s }), []float64{25, 15, nan, nan, nan, nan}, []string{"fail 0-3 25", "warn 3-4 15"}},
		"a rate that falls":                    {floor, slices.Concat(steps(10, 0, 60), steps(6, 550, 10)), []string{"fail 11-... 1"}},
		"a rate with a reset":                  {floor, slices.Concat(steps(10, 5000, 60), steps(10, 60, 60)), nil},
		"a rate from the start is not known":   {floor, []float64{0, 1, 2, 3}, []string{"fail 3-... 0.1"}},
		"a rate after a long gap is not known": {floor, []float64{0, 60, 120, 180, gap, gap, gap, gap, gap, gap, 600, 660, 720, 780}, nil},
		"nothing for a minute":                 {Rule{Func: Absence, Window: time.Minute, Crit: mustRange(t, "0")}, []float64{1, 1, gap, gap, gap, gap, gap, gap, 1}, nil},
		"nothing for more":                     {Rule{Func: Absence, Window: time.Minute, Crit: mustRange(t, "0")}, []float64{1, 1, gap, gap, gap, gap, gap, gap, gap, 1}, []string{"fail 8-9 1"}},
		"stale, and then forgotten":            {Rule{Func: Staleness, Window: time.Minute, Crit: mustRange(t, "30")}, []float64{1, gap, gap, gap, gap, gap, gap, gap, gap, 1}, []string{"fail 4-9 80"}},
		"never there":                          {Rule{Func: Absence, Window: time.Minute, Crit: mustRange(t, "0")}, []float64{gap, gap, gap, gap, gap, gap, gap, gap}, []string{"fail 6-... 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := show(Replay(tt.rule, Input{Series: []Samples{every(s, tt.of...)}}, t0, at(time.Duration(len(tt.of)-1)*s), s), s)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestEachSeriesHasItsOwnFor(t *testing.T) {
	const s = 10 * time.Second
	r := Rule{Crit: mustRange(t, "10"), For: 2 * s}
	of := []Samples{
		tagged(every(s, 11, 11, 1, 1, 11, 11, 11, 1), "n", "a"),
		tagged(every(s, 1, 1, 11, 11, 1, 11, 1, 1), "n", "b"),
	}
	want := []string{"afail 6-7 11"}
	if diff := cmp.Diff(want, show(Replay(r, Input{Series: of}, t0, at(7*s), s), s)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestForSurvivesARestart(t *testing.T) {
	const s = 10 * time.Second
	r := Rule{Warn: mustRange(t, "5"), Crit: mustRange(t, "10"), For: 3 * s, KeepFor: 2 * s}
	of := []Samples{tagged(every(s, 6, 11, 12, 30, 11, 11, 6, 1, 1, 1, 11, 11, 11, 11), "n", "a")}
	var whole, parts []Episode
	var a, b State
	for i := range 14 {
		var o Outcome
		a, o = Next(a, r, Input{Series: of}, at(time.Duration(i)*s))
		whole = append(whole, o.Ended...)
		data, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		b = State{}
		if err := json.Unmarshal(data, &b); err != nil {
			t.Fatal(err)
		}
		b, o = Next(b, r, Input{Series: of}, at(time.Duration(i)*s))
		parts = append(parts, o.Ended...)
	}
	whole, parts = append(whole, a.Open()...), append(parts, b.Open()...)
	if diff := cmp.Diff(whole, parts); diff != "" || len(whole) != 4 {
		t.Errorf("%d episodes, want 4: (-whole +restarted)\n%s", len(whole), diff)
	}
}

func TestAClockSetBack(t *testing.T) {
	r := Rule{Crit: mustRange(t, "10"), For: time.Minute, Window: 24 * time.Hour}
	of := []Samples{&Recorded{Points: []Point{{at(-2 * time.Hour), 11}}}}
	s, _ := Next(State{}, r, Input{Series: of}, t0)
	s, _ = Next(s, r, Input{Series: of}, at(time.Minute))
	if len(s.Open()) != 1 {
		t.Fatalf("got %+v, want an open episode", s)
	}
	s, o := Next(s, r, Input{}, at(-time.Hour))
	if len(o.Ended) != 1 || o.Ended[0].Ended.Before(o.Ended[0].Began) || len(s.Groups) != 0 {
		t.Errorf("got %+v and %+v, want an episode that ended no earlier than it began", o.Ended, s)
	}
}

// randomHistory has spikes, ramps, gaps, ends and resets.
func randomHistory(rnd *rand.Rand, name string) *Recorded {
	s := tagged(&Recorded{Grows: rnd.IntN(2) == 0}, "n", name)
	v, now := 0.0, t0
	for range 60 {
		now = now.Add(time.Duration(rnd.IntN(20_000)+1) * time.Millisecond)
		switch rnd.IntN(8) {
		case 0:
			v = rnd.Float64() * 100
		case 1:
			v = 0
		case 2:
			s.Points = append(s.Points, Point{now, nan})
			continue
		default:
			v += rnd.Float64() * 10
		}
		s.Points = append(s.Points, Point{now, v})
	}
	return s
}

func randomRule(t *testing.T, rnd *rand.Rand) Rule {
	pick := func(of ...string) *nagios.Range { return mustRange(t, of[rnd.IntN(len(of))]) }
	maybe := func(r *nagios.Range) *nagios.Range {
		if rnd.IntN(2) == 0 {
			return nil
		}
		return r
	}
	d := func(most time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(most))) }
	r := Rule{
		Name: "r", Series: Selector{Name: "x"}, Func: []Func{Level, Rate, Quantile, Absence, Staleness, Change}[rnd.IntN(6)],
		Window: d(2*time.Minute) + time.Second, Quantile: rnd.Float64(), Shift: d(time.Minute) + 1, Ratio: rnd.IntN(2) == 0,
		Aggregate: []Aggregate{"", Sum, Min, Max, Avg, Worst}[rnd.IntN(6)],
		Warn:      maybe(pick("10", "5:", "~:20", "@3:9")), Crit: pick("30", "1:", "~:50", "@4:6", "0"),
		For: d(40 * time.Second), KeepFor: d(40 * time.Second),
	}
	if r.Crit.String() == "30" {
		r.CritClear = maybe(mustRange(t, "20"))
	}
	if rnd.IntN(2) == 0 {
		r.By = []string{"n"}
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestProperties(t *testing.T) {
	const step = 7 * time.Second
	episodes := 0
	for seed := range uint64(120) {
		rnd := rand.New(rand.NewPCG(seed, 8))
		r := randomRule(t, rnd)
		a, b := randomHistory(rnd, "a"), randomHistory(rnd, "b")
		of := []Samples{a, b}
		last := map[string]time.Time{} // when the last episode of a figure ended
		var s State
		for now := t0; now.Before(at(12 * time.Minute)); now = now.Add(step) {
			before, err := json.Marshal(s)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			next, o := Next(s, r, Input{Series: of}, now)
			again, oAgain := Next(s, r, Input{Series: []Samples{until(a, now), until(b, now)}}, now)
			if diff := cmp.Diff(next, again) + cmp.Diff(o, oAgain, nans); diff != "" {
				t.Fatalf("seed %d: without later samples: %s", seed, diff)
			}
			if after, _ := json.Marshal(s); string(after) != string(before) {
				t.Fatalf("seed %d: the state before was changed: %s to %s", seed, before, after)
			}
			for _, e := range slices.Concat(o.Ended, next.Open()) {
				key := keyOf(e.Tags)
				if e.Began.Before(last[key]) || !e.Ended.IsZero() && !e.Ended.After(e.Began) || e.Ended.After(now) || e.Began.After(now) {
					t.Fatalf("seed %d: %v: episode %+v, the one before ended at %v", seed, now, e, last[key])
				}
				if e.Level != verdict.Warn && e.Level != verdict.Fail || e.Worst != e.Worst {
					t.Fatalf("seed %d: episode %+v", seed, e)
				}
			}
			for _, e := range o.Ended {
				last[keyOf(e.Tags)] = e.Ended
				episodes++
			}
			if len(next.Groups) > 2 {
				t.Fatalf("seed %d: %d groups are remembered, there are 2 series", seed, len(next.Groups))
			}
			s = next
		}
	}
	if episodes < 100 {
		t.Errorf("got %d episodes, want more to tell of", episodes)
	}
}

// nans makes not known and not known the same.
var nans = cmp.Comparer(func(a, b float64) bool { return a == b || a != a && b != b }) // Read-only.

func until(s *Recorded, now time.Time) *Recorded {
	short := *s
	short.Points = nil
	for _, p := range s.Points {
		if !p.At.After(now) {
			short.Points = append(short.Points, p)
		}
	}
	return &short
}

func BenchmarkNextHundredSeries(b *testing.B) {
	r := Rule{Func: Rate, Window: time.Minute, Crit: mustRange(b, "10:")}
	var of []Samples
	for range 100 {
		of = append(of, every(time.Second, steps(3600, 0, 5)...))
	}
	b.ReportAllocs()
	var s State
	for b.Loop() {
		s, _ = Next(s, r, Input{Series: of}, at(time.Hour-time.Second))
	}
}
