package collectors

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// renderDogStatsD writes a line in one form, as a check of what was read.
func renderDogStatsD(l *DogStatsDLine) string {
	var b strings.Builder
	field := func(prefix string, value []byte) {
		if value != nil {
			b.WriteString("|" + prefix + string(value))
		}
	}
	switch l.Kind {
	case DogStatsDEvent:
		fmt.Fprintf(&b, "_e{%d,%d}:%s|%s", len(l.Name), len(l.Text), l.Name, l.Text)
	case DogStatsDCheck:
		fmt.Fprintf(&b, "_sc|%s|%d", l.Name, l.Type)
	default:
		b.Write(l.Name)
		for i, v := range l.Values {
			b.WriteByte(':')
			if i == 0 && l.Sign == '+' {
				b.WriteByte('+')
			}
			b.WriteString(strconv.FormatFloat(v, 'g', -1, 64))
		}
		if l.Type == 's' {
			b.WriteString(":" + string(l.Text))
		}
		b.WriteString("|" + map[byte]string{'m': "ms"}[l.Type])
		if l.Type != 'm' {
			b.WriteByte(l.Type)
		}
		if l.Rate != 1 {
			b.WriteString("|@" + strconv.FormatFloat(l.Rate, 'g', -1, 64))
		}
	}
	if l.Stamp != 0 {
		field(map[bool]string{true: "T", false: "d:"}[l.Kind == DogStatsDMetric], strconv.AppendInt(nil, l.Stamp, 10))
	}
	field("h:", l.Host)
	field("k:", l.Key)
	field("p:", l.Priority)
	field("s:", l.Source)
	field("t:", l.Alert)
	field("#", l.Tags)
	if l.Kind == DogStatsDCheck {
		field("m:", l.Text)
	}
	field("c:", l.Container)
	field("e:", l.External)
	field("card:", l.Cardinality)
	if strings.HasSuffix(b.String(), "\r") { // at the end of a line it would be cut off
		b.WriteByte('|')
	}
	return b.String()
}

func TestDogStatsDLines(t *testing.T) {
	t.Parallel()
	tests := []struct{ line, want string }{ // want "": as it is
		// plain StatsD
		{"gorets:1|c", ""},
		{"gorets:1|c|@0.1", ""},
		{"glork:320|ms", ""},
		{"glork:320|ms|@0.1", ""},
		{"gaugor:333|g", ""},
		{"gaugor:-10|g", ""},
		{"gaugor:+4|g", ""},
		{"uniques:765|s", ""},
		{"a:1|c\r", "a:1|c"},
		// DogStatsD 1.0
		{"page.views:1|c", ""},
		{"fuel.level:0.5|g", ""},
		{"song.length:240|h|@0.5", ""},
		{"users.uniques:1234|s", ""},
		{"users.online:1|c|#country:china", ""},
		{"users.online:1|c|@0.5|#country:china,vip", ""},
		{"users.online:1|c|#country:china|@0.5", "users.online:1|c|@0.5|#country:china"},
		{"latency:1e3|d", "latency:1000|d"},
		{"latency:0.1234567890123456789|d", "latency:0.12345678901234568|d"},
		{"big:9007199254740993|g", "big:9.007199254740992e+15|g"},
		{"small:-.5|g", "small:-0.5|g"},
		{"set:a b:c|s|#k:v", ""},
		// 1.1: values
		{"page.views:1:2:32|d", ""},
		{"page.views:1:2:32|d|@0.5|#a:b", ""},
		{"packed:1::2:|h", "packed:1:2|h"},
		// 1.2: container
		{"page.views:1|g|#env:dev|c:83c0a99c0a54c0c187f461c7980e9b57f3f6a8b0c918c8d93df19a9de6f3fe1d", ""},
		// 1.3: timestamp
		{"page.views:15|c|#env:dev|T1656581400", "page.views:15|c|T1656581400|#env:dev"},
		{"page.views:15|c|T1656581400", ""},
		// 1.4 to 1.6: inode, external data, cardinality
		{"page.views:1|g|#env:dev|c:ci-83c0,in-6781", ""},
		{"page.views:1|g|#env:dev|c:in-1|e:it-false,cn-nginx,pu-75a2b6d5|card:none", ""},
		{"page.views:1|g|card:low", ""},
		// what nobody knows yet
		{"page.views:1|g|z:new|#a:b|newer|", "page.views:1|g|#a:b"},
		{"_ecstatic:1|c", ""},
		{"_scores:1|c", ""},
		// events
		{"_e{21,36}:An exception occurred|Cannot parse CSV file from 10.0.0.17|t:warning|#err_type:bad_file", ""},
		{"_e{5,0}:title|", ""},
		{"_e{5,9}:a|b:c|d\\ne|f|gh|d:1|h:host|k:key|p:low|s:src|t:error|#a,b:c|c:id|e:x|card:high", ""},
		// service checks
		{"_sc|Redis connection|2|#env:dev|m:Redis connection timed out after 10s", ""},
		{"_sc|a|0", ""},
		{"_sc|a|3|d:1656581400|h:web1|#x|m:it\\nis m\\:|c:id|card:none", ""},
	}
	var l DogStatsDLine
	for _, tt := range tests {
		want := tt.want
		if want == "" {
			want = tt.line
		}
		if err := ParseDogStatsD([]byte(tt.line), &l); err != nil {
			t.Errorf("%s: %v", tt.line, err)
		} else if diff := cmp.Diff(want, renderDogStatsD(&l)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.line, diff)
		}
	}
}

func TestDogStatsDLinesThatAreNone(t *testing.T) {
	t.Parallel()
	tests := []struct {
		want  lineFault
		lines []string
	}{
		{faultForm, []string{"", "a", "a:1", ":1|c", "a|c", "a|b:1|c", "a:|c", "GET / HTTP/1.1", "\x00\x01\x02\xff", "_e", "_sc", "_e{"}},
		{faultType, []string{"a:1|", "a:1|x", "a:1|m", "a:1|cc", "a:1|mss", "a:1||c", "a:1|C"}},
		{faultValue, []string{
			"a:x|c", "a:::|c", "a:1:x|c", "a:--1|g", "a:+|g", "a:.|g", "a:1.2.3|g", "a:NaN|g", "a:inf|g", "a:-Inf|g", "a:1e999|g", "a:0x10|g",
			"a:1_000|g", "a:1e|g", "a: 1|g", "a:１|g",
		}},
		{faultRate, []string{"a:1|c|@", "a:1|c|@0", "a:1|c|@-1", "a:1|c|@2", "a:1|c|@x", "a:1|c|@1e-300", "a:1|c|@NaN"}},
		{faultStamp, []string{"a:1|c|T", "a:1|c|T0", "a:1|c|T-1", "a:1|c|Tx", "a:1|c|T99999999999999999999", "_sc|a|0|d:x"}},
		{faultEvent, []string{
			"_e{}:a|b", "_e{1}:a|b", "_e{1,1}:a", "_e{1,1}:ab|c", "_e{0,1}:|b", "_e{1,2}:a|b", "_e{1,1}a|b", "_e{-1,1}:a|b",
			"_e{999999999999999999,999999999999999999}:a|b", "_e{1,1}:a|bc", "_e{9,9}:",
		}},
		{faultCheck, []string{"_sc|", "_sc||0", "_sc|a"}},
		{faultStatus, []string{"_sc|a|", "_sc|a|4", "_sc|a|00", "_sc|a|x"}},
	}
	var l DogStatsDLine
	for _, tt := range tests {
		for _, line := range tt.lines {
			var got lineFault
			if err := ParseDogStatsD([]byte(line), &l); !errors.As(err, &got) || got != tt.want {
				t.Errorf("%q: %v, want %v", line, err, tt.want)
			}
		}
	}
}

func TestEachTag(t *testing.T) {
	t.Parallel()
	var got []string
	for key, value := range EachTag([]byte("a:b,,c,d:,:e,f:g:h,")) {
		got = append(got, fmt.Sprintf("%s=%s %v", key, value, value == nil))
	}
	if diff := cmp.Diff([]string{"a=b false", "c= true", "d= false", "=e false", "f=g:h false"}, got); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	for range EachTag([]byte("a,b")) {
		break
	}
}

func TestParsingNeedsNoMemory(t *testing.T) {
	var l DogStatsDLine
	lines := [][]byte{
		[]byte("page.views:1:2:32|d|@0.5|#a:b,c:d|c:83c0a99c|T1656581400"), []byte("a:1e3|g"), []byte("a:b|c"),
		[]byte("_sc|a|0|m:x"), []byte("_e{5,0}:title|"),
	}
	if n := testing.AllocsPerRun(100, func() {
		for _, line := range lines {
			_ = ParseDogStatsD(line, &l)
			for range EachTag(l.Tags) {
				continue
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func FuzzDogStatsD(f *testing.F) {
	for _, line := range []string{
		"a:1|c", "a:1:2|d|@0.5|#a:b,c|c:x|T16|e:y|card:low", "a:-1.5e3|g", "a:x:y|s", "_sc|a|0|d:1|h:x|#y|m:z", "_e{1,1}:a|b|d:1|t:error",
		"a:+.5|ms", "a:1|c|\r", "a:1|c||", "_e{3,3}:|||||||#",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var l, again DogStatsDLine
		if err := ParseDogStatsD(line, &l); err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		if l.Kind == DogStatsDMetric && l.Type != 's' && len(l.Values) == 0 || len(l.Name) == 0 {
			t.Fatalf("%q: %+v", line, l)
		}
		for _, v := range append(l.Values, l.Rate) {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Fatalf("%q: value %v", line, v)
			}
		}
		text := renderDogStatsD(&l)
		if err := ParseDogStatsD([]byte(text), &again); err != nil {
			t.Fatalf("%q, rendered %q: %v", line, text, err)
		}
		if got := renderDogStatsD(&again); got != text {
			t.Fatalf("%q: rendered %q, then %q", line, text, got)
		}
	})
}

// FuzzStatsDDecimal holds the numbers to those of strconv.
func FuzzStatsDDecimal(f *testing.F) {
	for _, s := range []string{"1", "-0.5", "123456789012345678901234567890", "1e22", "9007199254740993", ".1", "1.7976931348623157e308", "0.30000000000000004"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseDecimal([]byte(s))
		want, err := strconv.ParseFloat(s, 64)
		plain := strings.Trim(s, "0123456789.+-eE") == ""
		if wantOK := err == nil && plain && !math.IsInf(want, 0); ok != wantOK {
			t.Fatalf("%q: ok %v, want %v (%v)", s, ok, wantOK, err)
		}
		if ok && math.Float64bits(got) != math.Float64bits(want) {
			t.Fatalf("%q: %v, want %v", s, got, want)
		}
	})
}
