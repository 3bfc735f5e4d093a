package rule

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// t0 is when all histories begin.
var t0 = time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC) // Read-only.

func at(d time.Duration) time.Time { return t0.Add(d) }

func mustRange(t testing.TB, s string) *nagios.Range {
	t.Helper()
	var r nagios.Range
	if err := r.UnmarshalText([]byte(s)); err != nil {
		t.Fatal(err)
	}
	return &r
}

var nan = math.NaN() // Read-only.

// every returns a series of values, one each step. Steps without a sample are gap.
func every(step time.Duration, values ...float64) *Recorded {
	s := &Recorded{}
	for i, v := range values {
		if v != gap {
			s.Points = append(s.Points, Point{at(time.Duration(i) * step), v})
		}
	}
	return s
}

const gap = -12345.678

func tagged(s *Recorded, pairs ...string) *Recorded {
	s.Labels = map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		s.Labels[pairs[i]] = pairs[i+1]
	}
	return s
}

func steps(n int, from, by float64) (out []float64) {
	for i := range n {
		out = append(out, from+by*float64(i))
	}
	return out
}

func TestFigures(t *testing.T) {
	const s = 10 * time.Second
	counter := func(s *Recorded) *Recorded { s.Grows = true; return s }
	for name, tt := range map[string]struct {
		rule Rule
		of   []Samples
		at   time.Duration
		want float64
		why  string
	}{
		"the newest sample":                    {Rule{}, []Samples{every(s, 1, 2, 3)}, 21 * time.Second, 3, ""},
		"a sample of later does not count":     {Rule{}, []Samples{every(s, 1, 2, 3)}, 19 * time.Second, 2, ""},
		"a level as old as may be":             {Rule{Window: s}, []Samples{every(s, 1, 2, 3)}, 30 * time.Second, 3, ""},
		"a level that is too old":              {Rule{Window: s}, []Samples{every(s, 1, 2, 3)}, 31 * time.Second, nan, "no sample in 10s"},
		"a series that has gone":               {Rule{}, []Samples{every(s, 1, 2, nan)}, 25 * time.Second, nan, "not there any more"},
		"infinite":                             {Rule{}, []Samples{every(s, math.Inf(1))}, 0, math.MaxFloat64, ""},
		"a rate":                               {Rule{Func: Rate, Window: time.Minute}, []Samples{every(s, steps(7, 100, 50)...)}, time.Minute, 5, ""},
		"a rate of half the window":            {Rule{Func: Rate, Window: time.Minute}, []Samples{every(s, steps(4, 100, 50)...)}, 30 * time.Second, 5, ""},
		"a rate of less":                       {Rule{Func: Rate, Window: time.Minute}, []Samples{every(s, steps(3, 100, 50)...)}, 20 * time.Second, nan, "3 samples over 20s, want 2 or more over at least 30s"},
		"a rate of one sample":                 {Rule{Func: Rate, Window: time.Minute}, []Samples{every(s, 1)}, 0, nan, "1 sample over 0s"},
		"a rate of none":                       {Rule{Func: Rate, Window: time.Minute}, []Samples{every(s)}, 0, nan, "0 samples"},
		"a rate with a gap":                    {Rule{Func: Rate, Window: time.Minute}, []Samples{every(s, 0, 50, nan, gap, 200, 250, 300)}, time.Minute, 5, ""},
		"a rate of a counter that began anew":  {Rule{Func: Rate, Window: time.Minute}, []Samples{every(s, 1000, 1050, 1100, 50, 100, 150, 200)}, time.Minute, 5, ""},
		"a rate of nothing":                    {Rule{Func: Rate, Window: time.Minute}, []Samples{every(s, 7, 7, 7, 7, 7, 7, 7)}, time.Minute, 0, ""},
		"a sum of rates":                       {Rule{Func: Rate, Window: time.Minute}, []Samples{every(s, steps(7, 0, 10)...), every(s, steps(7, 0, 20)...), every(s, 1)}, time.Minute, 3, ""},
		"the median":                           {Rule{Func: Quantile, Quantile: 0.5, Window: time.Minute}, []Samples{every(s, 9, 1, 3, 7)}, 30 * time.Second, 5, ""},
		"the maximum":                          {Rule{Func: Quantile, Quantile: 1, Window: time.Minute}, []Samples{every(s, 9, 1, 3, 7)}, 30 * time.Second, 9, ""},
		"a quantile between two":               {Rule{Func: Quantile, Quantile: 0.9, Window: time.Minute}, []Samples{every(s, 0, 10, 20, 30, 40, 50)}, 50 * time.Second, 45, ""},
		"absent":                               {Rule{Func: Absence, Window: time.Minute}, []Samples{every(s, 1, nan)}, 61 * time.Second, 1, ""},
		"not absent":                           {Rule{Func: Absence, Window: time.Minute}, []Samples{every(s, 1, nan)}, 60 * time.Second, 0, ""},
		"no series at all is absent":           {Rule{Func: Absence, Window: time.Minute}, nil, 0, 1, ""},
		"the age of the stalest":               {Rule{Func: Staleness}, []Samples{every(s, 1, 2), every(s, 1, nan, nan)}, 25 * time.Second, 25, ""},
		"the age of the freshest":              {Rule{Func: Staleness, Aggregate: Min}, []Samples{every(s, 1, 2), every(s, 1)}, 25 * time.Second, 15, ""},
		"grown since":                          {Rule{Func: Change, Shift: 2 * s}, []Samples{every(s, 10, 20, 40)}, 20 * time.Second, 30, ""},
		"grown by a part":                      {Rule{Func: Change, Shift: 2 * s, Ratio: true}, []Samples{every(s, 40, 20, 10)}, 20 * time.Second, -0.75, ""},
		"grown from nothing":                   {Rule{Func: Change, Shift: 2 * s, Ratio: true}, []Samples{every(s, 0, 20, 10)}, 20 * time.Second, math.MaxFloat64, ""},
		"nothing of nothing":                   {Rule{Func: Change, Shift: 2 * s, Ratio: true}, []Samples{every(s, 0, 20, 0)}, 20 * time.Second, 0, ""},
		"nothing to compare with":              {Rule{Func: Change, Shift: time.Hour}, []Samples{every(s, 10, 20, 40)}, 20 * time.Second, nan, "1h earlier: no sample in 5m"},
		"a counter's rate against its earlier": {Rule{Func: Change, Shift: time.Minute, Window: time.Minute, Ratio: true}, []Samples{counter(every(s, 0, 100, 200, 300, 400, 500, 600, 650, 700, 750, 800, 850, 900))}, 2 * time.Minute, -0.5, ""},
		"the average":                          {Rule{Aggregate: Avg}, []Samples{every(s, 1), every(s, 2)}, 0, 1.5, ""},
		"the least":                            {Rule{Aggregate: Min}, []Samples{every(s, 1), every(s, 2), every(s, nan)}, 0, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := Figures(tt.rule, Input{Series: tt.of}, at(tt.at))
			if len(got) != 1 {
				t.Fatalf("got %d figures, want 1", len(got))
			}
			if math.Abs(got[0].Value-tt.want) > 1e-9 || got[0].Known() == math.IsNaN(tt.want) {
				t.Errorf("got %v, want %v", got[0].Value, tt.want)
			}
			if !strings.Contains(got[0].Why, tt.why) || (tt.why == "") != (got[0].Why == "") {
				t.Errorf("why: got %q, want %q", got[0].Why, tt.why)
			}
		})
	}
}

func TestFiguresAreKeptApartByTags(t *testing.T) {
	of := []Samples{
		tagged(every(time.Second, 1), "queue", "b", "pod", "1"),
		tagged(every(time.Second, 2), "queue", "a", "pod", "1"),
		tagged(every(time.Second, 4), "queue", "b", "pod", "2"),
		tagged(every(time.Second, 8), "pod", "3"),
	}
	show := func(r Rule) map[string]float64 {
		out := map[string]float64{}
		for _, f := range Figures(r, Input{Series: of}, t0) {
			b, err := json.Marshal(f.Tags)
			if err != nil {
				t.Fatal(err)
			}
			out[string(b)] = f.Value
		}
		return out
	}
	want := map[string]float64{`{}`: 8, `{"queue":"a"}`: 2, `{"queue":"b"}`: 5}
	if diff := cmp.Diff(want, show(Rule{Aggregate: Sum, By: []string{"queue"}})); diff != "" {
		t.Errorf("by queue: (-want +got)\n%s", diff)
	}
	want = map[string]float64{`{"pod":"1","queue":"a"}`: 2, `{"pod":"1","queue":"b"}`: 1, `{"pod":"2","queue":"b"}`: 4, `{"pod":"3"}`: 8}
	if diff := cmp.Diff(want, show(Rule{})); diff != "" {
		t.Errorf("each: (-want +got)\n%s", diff)
	}
}

func TestValidate(t *testing.T) {
	ok := Rule{Name: "r", Series: Selector{Name: "x"}, Crit: mustRange(t, "10")}
	with := func(change func(*Rule)) Rule {
		r := ok
		change(&r)
		return r
	}
	for name, tt := range map[string]struct {
		rule Rule
		want string // empty: it is fine
	}{
		"the shortest":             {ok, ""},
		"no series":                {with(func(r *Rule) { r.Series.Name = "" }), "rule r: series: got nothing"},
		"no range":                 {with(func(r *Rule) { r.Crit = nil }), "warn and crit: got nothing"},
		"a func of nobody":         {with(func(r *Rule) { r.Func = "slope" }), "func: got slope, want level, rate"},
		"an aggregate of nobody":   {with(func(r *Rule) { r.Aggregate = "mode" }), "aggregate: got mode"},
		"a rate without a window":  {with(func(r *Rule) { r.Func = Rate }), "window: got 0s, want more than 0"},
		"a quantile of 99":         {with(func(r *Rule) { r.Func, r.Window, r.Quantile = Quantile, time.Minute, 99 }), "quantile: got 99, want 0 to 1"},
		"a change against now":     {with(func(r *Rule) { r.Func = Change }), "shift: got 0s"},
		"for less than nothing":    {with(func(r *Rule) { r.For = -1 }), "for: got -1ns"},
		"recovers sooner":          {with(func(r *Rule) { r.CritClear = mustRange(t, "8") }), ""},
		"recovers while it alerts": {with(func(r *Rule) { r.CritClear = mustRange(t, "12") }), "crit_clear: got 12, want a range within crit, which is 10"},
		"recovers from nothing":    {with(func(r *Rule) { r.WarnClear = mustRange(t, "12") }), "warn_clear: got 12, want none without warn"},
		"inside, recovers farther": {with(func(r *Rule) { r.Crit, r.CritClear = mustRange(t, "@10:20"), mustRange(t, "@5:25") }), ""},
		"inside, recovers nearer":  {with(func(r *Rule) { r.Crit, r.CritClear = mustRange(t, "@10:20"), mustRange(t, "@12:25") }), "crit_clear"},
		"inside, recovers above":   {with(func(r *Rule) { r.Crit, r.CritClear = mustRange(t, "@10:20"), mustRange(t, "25:") }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.rule.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestWorstSpeaksForAll(t *testing.T) {
	r := Rule{Warn: mustRange(t, "10"), Crit: mustRange(t, "20")}
	of := func(values ...float64) (out []Samples) {
		for i, v := range values {
			out = append(out, tagged(every(time.Second, v), "n", string(rune('a'+i))))
		}
		return out
	}
	for name, tt := range map[string]struct {
		values []float64
		want   string
		status verdict.Status
	}{
		"the farthest outside":             {[]float64{25, 30, 15, 1}, "b", verdict.Fail},
		"a warning before all passes":      {[]float64{1, 15, 2}, "b", verdict.Warn},
		"nearest to trouble":               {[]float64{1, 9, 2}, "b", verdict.Pass},
		"what is not known does not count": {[]float64{nan, 9, 2}, "b", verdict.Pass},
		"if nothing is known":              {[]float64{nan, nan}, "a", verdict.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			_, o := Next(State{}, r, Input{Series: of(tt.values...)}, t0)
			got, ok := o.Worst(r)
			if !ok || got.Tags["n"] != tt.want || got.Status != tt.status {
				t.Errorf("got %+v, want %s %s", got, tt.want, tt.status)
			}
		})
	}
	if _, ok := (Outcome{}).Worst(r); ok {
		t.Error("got a worst of nothing")
	}
}
