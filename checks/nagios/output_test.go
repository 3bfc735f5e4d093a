package nagios

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// parse gives what was read, and the errors as text.
func parse(printed string) (o Output, bad []string) {
	o = ParseOutput([]byte(printed))
	for _, err := range o.Bad {
		bad = append(bad, err.Error())
	}
	o.Bad = nil
	return o, bad
}

func TestParseOutput(t *testing.T) {
	t.Parallel()
	a := []verdict.Measure{{Label: "a", Value: 1}}
	abc := []verdict.Measure{{Label: "a", Value: 1}, {Label: "b", Value: 2}, {Label: "c", Value: 3}}
	tests := []struct {
		name, printed string
		want          Output
	}{
		{"a line", "DISK OK\n", Output{Text: "DISK OK"}},
		{"a line without an end", "DISK OK", Output{Text: "DISK OK"}},
		{"nothing", "", Output{}},
		{"a line with performance data", " DISK OK |a=1\n", Output{Text: "DISK OK", Perf: a}},
		{"an end of line from elsewhere", "DISK OK | a=1\r\nmore\r\n", Output{Text: "DISK OK", Long: "more", Perf: a}},
		{"long text", "OK\none\n\ntwo \n", Output{Text: "OK", Long: "one\n\ntwo"}},
		{"all four parts", "OK | a=1\none\ntwo | b=2\nc=3\n", Output{Text: "OK", Long: "one\ntwo", Perf: abc}},
		{"a bar at the end of the long text", "OK\none |\na=1\nb=2\nc=3", Output{Text: "OK", Long: "one", Perf: abc}},
		{"performance data alone", "|a=1", Output{Perf: a}},
		{"no performance data behind the bar", "OK |", Output{Text: "OK"}},
		{"invalid bytes", "caf\xe9 | a=1", Output{Text: "caf\ufffd", Perf: a}},
		{"a zero byte ends nothing", "a\x00b | a=1", Output{Text: "a\x00b", Perf: a}},
	}
	for _, tt := range tests {
		got, bad := parse(tt.printed)
		if diff := cmp.Diff(tt.want, got); diff != "" || bad != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, bad, diff)
		}
	}
}

func TestParsePerf(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, perf string
		want       []verdict.Measure
		bad        []string
	}{
		{
			"all fields", "/=2643MB;5948;5958;0;5968",
			[]verdict.Measure{{Label: "/", Value: 2643, Unit: "MB", Warn: "5948", Crit: "5958", Min: new(0.0), Max: new(5968.0)}},
			nil,
		},
		{
			"missing fields at the end and between", "time=0.01s;;;0.000;10.000 size=5B;;; n=3;@1:2 m=-4.5;;~:0;",
			[]verdict.Measure{
				{Label: "time", Value: 0.01, Unit: "s", Min: new(0.0), Max: new(10.0)},
				{Label: "size", Value: 5, Unit: "B"},
				{Label: "n", Value: 3, Warn: "@1:2"},
				{Label: "m", Value: -4.5, Crit: "~:0"},
			},
			nil,
		},
		{
			"labels in quotes", "'C: used %'=3% 'it''s'=1 'a=b'=2 '''x'''=4 plain=5",
			[]verdict.Measure{
				{Label: "C: used %", Value: 3, Unit: "%"},
				{Label: "it's", Value: 1},
				{Label: "a=b", Value: 2},
				{Label: "'x'", Value: 4},
				{Label: "plain", Value: 5},
			},
			nil,
		},
		{
			"every unit", "a=1 b=1s c=1us d=1ms e=1% f=1B g=1KB h=1MB i=1GB j=1TB k=1c l=21.5°C",
			[]verdict.Measure{
				{Label: "a", Value: 1},
				{Label: "b", Value: 1, Unit: "s"},
				{Label: "c", Value: 1, Unit: "us"},
				{Label: "d", Value: 1, Unit: "ms"},
				{Label: "e", Value: 1, Unit: "%"},
				{Label: "f", Value: 1, Unit: "B"},
				{Label: "g", Value: 1, Unit: "KB"},
				{Label: "h", Value: 1, Unit: "MB"},
				{Label: "i", Value: 1, Unit: "GB"},
				{Label: "j", Value: 1, Unit: "TB"},
				{Label: "k", Value: 1, Unit: "c"},
				{Label: "l", Value: 21.5, Unit: "°C"},
			},
			nil,
		},
		{
			"numbers of other forms", "a=1e+06 b=1.5e-05s c=+3 d=.5 e=5. f=2eV",
			[]verdict.Measure{
				{Label: "a", Value: 1e6},
				{Label: "b", Value: 1.5e-5, Unit: "s"},
				{Label: "c", Value: 3},
				{Label: "d", Value: 0.5},
				{Label: "e", Value: 5},
				{Label: "f", Value: 2, Unit: "eV"},
			},
			nil,
		},
		{"a value that is not known", "rta=U;1;2", []verdict.Measure{{Label: "rta", Value: math.NaN(), Warn: "1", Crit: "2"}}, nil},
		{
			"what is bad costs nothing else", "a=1 junk b=2 =7 c= d=0,5s e=3;2:1;5;x;9;7 f=1.2.3 g'h=1 i=4",
			[]verdict.Measure{
				{Label: "a", Value: 1},
				{Label: "b", Value: 2},
				{Label: "e", Value: 3, Crit: "5", Max: new(9.0)},
				{Label: "i", Value: 4},
			},
			[]string{
				`performance data "junk b=2 =7 c= d=0,5s e=3;2:1;5;x;9;7 f=1.2.3 g'h=1 i=4": no equals sign after the label, want label=value`,
				`performance data "=7 c= d=0,5s e=3;2:1;5;x;9;7 f=1.2.3 g'h=1 i=4": the label is empty, want label=value`,
				`performance data of "c": value "", want a number with a unit, or U`,
				`performance data of "d": value "0,5s", want a number with a unit, or U`,
				`performance data of "e": warn "2:1", want [@]start:end such as 10, 10:, ~:10, 10:20 or @10:20`,
				`performance data of "e": min "x", want a number`,
				`performance data of "e": the field behind max is "7", want five fields at most`,
				`performance data of "f": value "1.2.3", want a number with a unit, or U`,
				`performance data "g'h=1 i=4": a quote in the label, want it written twice in a label in quotes`,
			},
		},
		{
			"a quote that is never closed", "'a b=1 c=2",
			[]verdict.Measure{{Label: "b", Value: 1}, {Label: "c", Value: 2}},
			[]string{`performance data "'a b=1 c=2": the label's quote is never closed`},
		},
		{
			"another bar", "a=1|b=2 c=3",
			[]verdict.Measure{{Label: "c", Value: 3}},
			[]string{`performance data of "a": value "1|b=2", want a number with a unit, or U`},
		},
		{
			"a label that is too long", strings.Repeat("x", 257) + "=1 b=2",
			[]verdict.Measure{{Label: "b", Value: 2}},
			[]string{`performance data "` + strings.Repeat("x", 60) + `...": a label of 257 bytes, want 256 at most`},
		},
	}
	for _, tt := range tests {
		got, bad := parse("OK|" + tt.perf)
		if diff := cmp.Diff(tt.want, got.Perf, cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.bad, bad); diff != "" || got.BadCount != len(tt.bad) {
			t.Errorf("%s: %d bad (-want +got):\n%s", tt.name, got.BadCount, diff)
		}
	}
}

func TestBadPerfIsCountedAndItsErrorsAreBounded(t *testing.T) {
	t.Parallel()
	o := ParseOutput([]byte("OK|" + strings.Repeat("junk ", 10_000) + "a=1"))
	if o.BadCount != 10_000 || len(o.Bad) != maxBad || len(o.Perf) != 1 {
		t.Errorf("%d bad, %d errors, %d measures; want 10000, %d, 1", o.BadCount, len(o.Bad), len(o.Perf), maxBad)
	}
}

func TestFormatPerf(t *testing.T) {
	t.Parallel()
	got := FormatPerf([]verdict.Measure{
		{Label: "time", Value: 0.25, Unit: "s", Warn: "1", Crit: "~:5", Min: new(0.0), Max: new(10.0)},
		{Label: "free space", Value: 12e9, Unit: "B", Crit: "10:"},
		{Label: "it's|a=b\n", Value: 1, Unit: "1;2", Warn: "x", Crit: "1 2", Min: new(math.Inf(1))},
		{Label: "", Value: math.NaN(), Unit: "s", Max: new(3.0)},
	})
	want := "time=0.25s;1;~:5;0;10 'free space'=12000000000B;;10: 'it''s_a_b'=1 _=U;;;;3"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestLine(t *testing.T) {
	t.Parallel()
	perf := []verdict.Measure{{Label: "a", Value: 1}}
	tests := []struct {
		status verdict.Status
		text   string
		perf   []verdict.Measure
		want   string
	}{
		{verdict.Pass, "2 of 2 fine", perf, "OK: 2 of 2 fine | a=1"},
		{verdict.Warn, "", perf, "WARNING | a=1"},
		{verdict.Fail, "a|b\nc `id` $(x) <y> & \"z\" ~:10 don't", nil, "CRITICAL: a/b c id _(x) (y) + z -:10 dont"},
		{verdict.Unknown, " x ", nil, "UNKNOWN: x"},
		{verdict.Status(9), "x", nil, "UNKNOWN: x"},
		{verdict.Fail, strings.Repeat("x", 600), nil, "CRITICAL: " + strings.Repeat("x", 509) + "..."},
	}
	for _, tt := range tests {
		if got := Line(tt.status, tt.text, tt.perf); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	for code, want := range []verdict.Status{verdict.Pass, verdict.Warn, verdict.Fail, verdict.Unknown} {
		if got, ok := FromExitCode(code); got != want || !ok || ExitCode(want) != code {
			t.Errorf("%d is %v, %v; want %v; which exits with %d", code, got, ok, want, ExitCode(want))
		}
	}
	for _, code := range []int{-1, 4, 126, 127, 255, 1 << 40} {
		if got, ok := FromExitCode(code); got != verdict.Fail || ok {
			t.Errorf("%d is %v, %v; want fail, out of bounds", code, got, ok)
		}
	}
	if got := ExitCode(verdict.Status(-1)); got != 3 {
		t.Errorf("exit code of status(-1) = %d, want 3", got)
	}
}

func FuzzPluginOutput(f *testing.F) {
	for _, seed := range []string{
		"OK | a=1\none\ntwo | b=2\nc=3\n",
		"DISK OK - free space: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968",
		"x|'it''s'=1us;@1:2;~:5;U 'open=1 a=1|b=2 \xe9=1e5",
		"x|''''=U;;;;5;6 'a b'=.5e-3KB 10:=5",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, printed []byte) {
		o := ParseOutput(printed)
		if strings.Contains(o.Text, "|") || strings.Contains(o.Text, "\n") || strings.Contains(o.Long, "|") {
			t.Fatalf("text %q, long text %q", o.Text, o.Long)
		}
		if len(o.Bad) != min(o.BadCount, maxBad) || len(o.Text)+len(o.Long) > 3*len(printed) {
			t.Fatalf("%d errors of %d bad, %d and %d bytes of %d", len(o.Bad), o.BadCount, len(o.Text), len(o.Long), len(printed))
		}
		for _, m := range o.Perf {
			if math.IsInf(m.Value, 0) || strings.TrimSpace(m.Label) == "" {
				t.Fatalf("measure %+v", m)
			}
		}
		line := Line(verdict.Warn, "x"+o.Text+"|"+o.Long, o.Perf)
		if err := oneLine(line); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		again := ParseOutput([]byte(line))
		if again.BadCount > 0 || len(again.Perf) != len(o.Perf) || again.Text != "WARNING: "+Plain("x"+o.Text+"|"+o.Long) {
			t.Fatalf("%q\nreads as %+v\nwant the measures %+v", line, again, o.Perf)
		}
		for i, m := range again.Perf {
			want := o.Perf[i]
			want.Label, m.Label = "", ""
			if diff := cmp.Diff(want, m, cmpopts.EquateNaNs()); diff != "" {
				t.Fatalf("%q: measure %d (-want +got):\n%s", line, i, diff)
			}
		}
		if got := Line(verdict.Warn, again.Text[len("WARNING: "):], again.Perf); got != line {
			t.Fatalf("written again: %q\nwant %q", got, line)
		}
	})
}

func oneLine(line string) error {
	text, perf, _ := strings.Cut(line, "|")
	if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		return fmt.Errorf("not printable at %d", i)
	}
	if strings.ContainsAny(text, "`~$&|'\"<>") || strings.Contains(perf, "|") {
		return fmt.Errorf("what Nagios strips is in %q, or a bar in %q", text, perf)
	}
	return nil
}
