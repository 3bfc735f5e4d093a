package nagios

import (
	"math"
	"strings"
	"testing"
)

// The ranges that monitoring-plugins tests its own parser with
// (lib/tests/test_utils.c), and those of its guidelines.
func TestRange(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	const big = 12345678901234567890.0
	tests := []struct {
		text        string
		want        Range
		shown       string
		fine, alert []float64
	}{
		{"6", Range{0, 6, false}, "6", []float64{0, 3, 6}, []float64{-0.1, 6.1}},
		{"1:12%%", Range{1, 12, false}, "1:12", []float64{1, 12}, []float64{0, 12.5}},
		{"-7:23", Range{-7, 23, false}, "-7:23", []float64{-7, 0, 23}, []float64{-7.01, 24}},
		{":5.75", Range{0, 5.75, false}, "5.75", []float64{0, 5.75}, []float64{-1, 5.76}},
		{"~:-95.99", Range{-inf, -95.99, false}, "~:-95.99", []float64{-1e300, -95.99}, []float64{-95.9, 0}},
		{"12345678901234567890:", Range{big, inf, false}, "12345678901234567000:", []float64{big, big * 2}, []float64{big / 1.1, 0}},
		{"~:0", Range{-inf, 0, false}, "~:0", []float64{-10, 0}, []float64{0.5}},
		{"@0:657.8210567", Range{0, 657.8210567, true}, "@657.8210567", []float64{-2, 658}, []float64{32.88, 657.8210567, 0}},
		{"@1:1", Range{1, 1, true}, "@1:1", []float64{0.5, 5.2}, []float64{1}},
		{"1:1", Range{1, 1, false}, "1:1", []float64{1}, []float64{0.5, 5.2}},

		{"10", Range{0, 10, false}, "10", []float64{0, 10}, []float64{-1, 11}},
		{"10:", Range{10, inf, false}, "10:", []float64{10, 1e9}, []float64{9.99, -1}},
		{"~:10", Range{-inf, 10, false}, "~:10", []float64{-1e9, 10}, []float64{10.01}},
		{"10:20", Range{10, 20, false}, "10:20", []float64{10, 20}, []float64{9, 21}},
		{"@10:20", Range{10, 20, true}, "@10:20", []float64{9, 21}, []float64{10, 15, 20}},
		{"@~:0", Range{-inf, 0, true}, "@~:0", []float64{1}, []float64{0, -5}},
		{"@5:", Range{5, inf, true}, "@5:", []float64{4}, []float64{5, 6}},
		{"90%", Range{0, 90, false}, "90", []float64{90}, []float64{91}},
		{"10%:90%", Range{10, 90, false}, "10:90", []float64{10}, []float64{9}},
		{":", Range{0, inf, false}, "0:", []float64{0, 5}, []float64{-1}},
		{"~:", Range{-inf, inf, false}, "~:", []float64{-1e300, 0, inf}, []float64{math.NaN()}},
		{"@~:", Range{-inf, inf, true}, "@~:", []float64{math.NaN()}, []float64{0}},
		{"0:10", Range{0, 10, false}, "10", []float64{0}, []float64{math.NaN()}},
		{"-0:+1e3", Range{0, 1000, false}, "1000", []float64{0, 1000}, []float64{1001}},
		{"1e-12:1e30", Range{1e-12, 1e30, false}, "1e-12:1e+30", []float64{1}, []float64{0}},
	}
	for _, tt := range tests {
		got, err := ParseRange(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("%q = %+v, %v; want %+v", tt.text, got, err, tt.want)
			continue
		}
		if got.String() != tt.shown {
			t.Errorf("%q shows as %q, want %q", tt.text, got, tt.shown)
		}
		for _, v := range tt.fine {
			if got.Alerts(v) {
				t.Errorf("%q alerts on %v", tt.text, v)
			}
		}
		for _, v := range tt.alert {
			if !got.Alerts(v) {
				t.Errorf("%q does not alert on %v", tt.text, v)
			}
		}
	}
}

func TestRangeRefuses(t *testing.T) {
	t.Parallel()
	const form = "want [@]start:end such as 10, 10:, ~:10, 10:20 or @10:20"
	tests := []struct{ text, want string }{
		{"2:1", `range "2:1": it ends before it starts, want a start that is not above the end`},
		{"", `range "": got no bound, ` + form},
		{"@", `range "@": got no bound, ` + form},
		{"10:20x", `range "10:20x": end "20x" is not a number, ` + form},
		{"x10:20", `range "x10:20": start "x10" is not a number, ` + form},
		{"1:2:3", `range "1:2:3": end "2:3" is not a number, ` + form},
		{"~", `range "~": end "~" is not a number, ` + form},
		{"~5:10", `range "~5:10": start "~5" is not a number, ` + form},
		{"5:~", `range "5:~": end "~" is not a number, ` + form},
		{"%", `range "%": end "%" is not a number, ` + form},
		{"%:5", `range "%:5": start "%" is not a number, ` + form},
		{"1%0:20", `range "1%0:20": start "1%0" is not a number, ` + form},
		{"nan:", `range "nan:": start "nan" is not a number, ` + form},
		{"inf", `range "inf": end "inf" is not a number, ` + form},
		{"1e999", `range "1e999": end "1e999" is not a number, ` + form},
		{"0x10", `range "0x10": end "0x10" is not a number, ` + form},
		{"1_000", `range "1_000": end "1_000" is not a number, ` + form},
		{"1,5", `range "1,5": end "1,5" is not a number, ` + form},
		{" 1", `range " 1": end " 1" is not a number, ` + form},
		{"@@1", `range "@@1": end "@1" is not a number, ` + form},
		{"1" + strings.Repeat("0", 100), `range "1` + strings.Repeat("0", 59) + `...": longer than 100 characters, ` + form},
	}
	for _, tt := range tests {
		kept := Range{1, 2, true}
		err := kept.UnmarshalText([]byte(tt.text))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%q: got %v\nwant %s", tt.text, err, tt.want)
		}
		if kept != (Range{1, 2, true}) {
			t.Errorf("%q was refused and still became %v", tt.text, kept)
		}
	}
}

func FuzzRange(f *testing.F) {
	for _, seed := range []string{"6", "1:12%%", "~:-95.99", "@0:657.8210567", "2:1", ":", "@~:", "1e-12:1e30", "-0"} {
		f.Add(seed, 1.5)
	}
	f.Fuzz(func(t *testing.T, text string, v float64) {
		r, err := ParseRange(text)
		if err != nil {
			if len(err.Error()) > 600 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if !(r.Start <= r.End) {
			t.Fatalf("%q became %+v", text, r)
		}
		var again Range
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Fatalf("%q shows as %q, which reads as %+v, %v; want %+v", text, r, again, err, r)
		}
		if outside := (Range{r.Start, r.End, !r.Inside}); outside.Alerts(v) == r.Alerts(v) {
			t.Fatalf("%v and %v agree on %v", r, outside, v)
		}
	})
}
