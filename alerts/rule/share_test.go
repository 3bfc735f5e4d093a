package rule

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestShare(t *testing.T) {
	const s = 10 * time.Second
	share := Rule{Func: Share, Window: time.Minute, All: Selector{Name: "all"}}
	with := func(change func(*Rule)) Rule {
		r := share
		change(&r)
		return r
	}
	short := with(func(r *Rule) { r.Short = 2 * s })
	least := with(func(r *Rule) { r.Least = 61 })
	for name, tt := range map[string]struct {
		rule      Rule
		part, all []Samples
		want      float64
		why       string
	}{
		"a tenth":                        {share, []Samples{every(s, steps(7, 0, 1)...)}, []Samples{every(s, steps(7, 0, 10)...)}, 0.1, ""},
		"of several":                     {share, []Samples{every(s, steps(7, 0, 1)...), every(s, steps(7, 0, 1)...)}, []Samples{every(s, steps(7, 0, 5)...), every(s, steps(7, 0, 5)...)}, 0.2, ""},
		"of counters that began anew":    {share, []Samples{every(s, 8, 9, 1, 2, 3, 4, 5)}, []Samples{every(s, 80, 90, 10, 20, 30, 40, 50)}, 0.1, ""},
		"two samples are enough":         {share, []Samples{every(s, gap, gap, gap, gap, gap, 0, 1)}, []Samples{every(s, gap, gap, gap, gap, gap, 0, 4)}, 0.25, ""},
		"of nothing to count":            {share, nil, []Samples{every(s, steps(7, 0, 10)...)}, 0, ""},
		"of all that did not grow":       {share, []Samples{every(s, 1, 1, 1, 1, 1, 1, 1)}, []Samples{every(s, 5, 5, 5, 5, 5, 5, 5)}, nan, "all did not grow in 1m"},
		"of none":                        {share, []Samples{every(s, steps(7, 0, 1)...)}, nil, nan, "fewer than two samples of all"},
		"of one sample":                  {share, nil, []Samples{every(s, 1)}, nan, "fewer than two samples of all"},
		"of too little":                  {least, nil, []Samples{every(s, steps(7, 0, 10)...)}, nan, "all grew by 60 in 1m, want 61 or more"},
		"as bad in the short window":     {short, []Samples{every(s, steps(7, 0, 1)...)}, []Samples{every(s, steps(7, 0, 10)...)}, 0.1, ""},
		"better in the short window":     {short, []Samples{every(s, 0, 5, 10, 15, 20, 20, 20)}, []Samples{every(s, steps(7, 0, 10)...)}, 0, ""},
		"worse in the short window":      {short, []Samples{every(s, 0, 0, 0, 0, 0, 3, 6)}, []Samples{every(s, steps(7, 0, 10)...)}, 0.1, ""},
		"nothing in the short window":    {short, []Samples{every(s, 0, 5, 5, 5, 5, 5, 5)}, []Samples{every(s, 0, 10, 10, 10, 10, 10, 10)}, nan, "all did not grow in 20s"},
		"of less than all, by the wrong": {share, []Samples{every(s, steps(7, 0, 3)...)}, []Samples{every(s, steps(7, 0, 2)...)}, 1.5, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := Figures(tt.rule, Input{Series: tt.part, All: tt.all}, at(time.Minute))
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

func TestSharesAreKeptApartByTags(t *testing.T) {
	const s = 10 * time.Second
	r := Rule{Func: Share, Window: time.Minute, All: Selector{Name: "all"}, By: []string{"sink"}}
	got := Figures(r, Input{
		Series: []Samples{tagged(every(s, steps(7, 0, 1)...), "sink", "a", "cause", "x"), tagged(every(s, steps(7, 0, 1)...), "sink", "a", "cause", "y")},
		All:    []Samples{tagged(every(s, steps(7, 0, 10)...), "sink", "a"), tagged(every(s, steps(7, 0, 10)...), "sink", "b")},
	}, at(time.Minute))
	var values []float64
	for _, f := range got {
		values = append(values, f.Value)
	}
	if !slices.Equal(values, []float64{0.2, 0}) {
		t.Errorf("got %v of %+v, want 0.2 of a and 0 of b", values, got)
	}
}

func TestSelectorExcepts(t *testing.T) {
	s := Selector{Except: map[string][]string{"reason": {"filter", "stopped"}}}
	for want, tags := range map[bool][]map[string]string{
		true:  {{"reason": "filter"}, {"reason": "stopped", "pipeline": "export"}},
		false: {{"reason": "full"}, {}, {"pipeline": "filter"}},
	} {
		for _, tag := range tags {
			if got := s.Excepts(tag); got != want {
				t.Errorf("%v: got %t, want %t", tag, got, want)
			}
		}
	}
}

func TestSpecSaysWhatIsWrong(t *testing.T) {
	for name, tt := range map[string]struct {
		spec Spec
		want []string
	}{
		"two functions":            {Spec{Series: "s", Rate: 1, Level: 1}, []string{"rate: got level and rate"}},
		"nothing to compare with":  {Spec{Series: "s", Rate: time.Minute}, []string{"got neither warn nor crit"}},
		"a share of itself alone":  {Spec{Series: "s", Share: &ShareSpec{Window: time.Minute}, Crit: mustRange(t, "1")}, []string{"share.all: got nothing"}},
		"a short window that is":   {Spec{Series: "s", Share: &ShareSpec{All: "a", Window: time.Minute, Short: time.Hour}, Crit: mustRange(t, "1")}, []string{"share.short: got 1h0m0s, want less than window"}},
		"an average share":         {Spec{Series: "s", Aggregate: Avg, Share: &ShareSpec{All: "a", Window: time.Minute}, Crit: mustRange(t, "1")}, []string{"aggregate: got avg"}},
		"a range with an absence":  {Spec{Series: "s", Absence: time.Minute, Crit: mustRange(t, "1")}, []string{"crit: got 1, want no range with absence"}},
		"longer than what is kept": {Spec{Series: "s", Rate: 48 * time.Hour, Crit: mustRange(t, "1")}, []string{"rate: got 48h0m0s in all, want 24h at most"}},
		"a recovery of no alert":   {Spec{Series: "s", Crit: mustRange(t, "1"), WarnClear: mustRange(t, "1")}, []string{"warn_clear: got 1"}},
		"good":                     {Spec{Series: "s", Share: &ShareSpec{All: "a", Window: time.Hour, Short: time.Minute}, Crit: mustRange(t, "0.1")}, nil},
	} {
		errs := KeyErrors(tt.spec.Validate())
		if len(errs) != len(tt.want) {
			t.Errorf("%s: got %v, want %q", name, errs, tt.want)
			continue
		}
		for i, want := range tt.want {
			if text := strings.TrimPrefix(errs[i].Error(), "rule : "); !strings.Contains(text, want) {
				t.Errorf("%s: got %q, want %q", name, text, want)
			}
		}
	}
}
