package collectors

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// promNames returns the names of what a read gives.
func promFamilyNames(table *promTable) (names []string) {
	for _, f := range table.result() {
		names = append(names, f.Desc.Name)
	}
	return names
}

func promMetric(b *strings.Builder, name string, series int) {
	for i := range series {
		fmt.Fprintf(b, "%s{id=\"%d\"} %d\n", name, i, i)
	}
}

// TestPrometheusSampleLimit: the metrics with the most samples are left out whole
// and named, wherever they stand; the others are all there.
func TestPrometheusSampleLimit(t *testing.T) {
	t.Parallel()
	type metric struct {
		name   string
		series int
	}
	for _, tt := range []struct {
		name    string
		metrics []metric
		first   []string // of the first read, which does not know what is to come
		then    []string
		says    string
	}{
		{"within the limit", []metric{{"a", 50}, {"b", 50}}, []string{"a", "b"}, []string{"a", "b"}, ""},
		{"the great one is last", []metric{{"a", 30}, {"b", 40}, {"c", 1000}}, []string{"a"}, []string{"a", "b"}, "sample_limit: got 1070 samples, want at most 100: left out c (1000)"},
		{"the great one is first", []metric{{"c", 1000}, {"a", 30}, {"b", 40}}, []string{"a", "b"}, []string{"a", "b"}, "left out c (1000)"},
		{"two great ones", []metric{{"c", 1000}, {"a", 30}, {"d", 2000}, {"b", 40}}, []string{"a", "b"}, []string{"a", "b"}, "left out d (2000), c (1000)"},
		{"all alike", []metric{{"a", 60}, {"b", 60}, {"c", 60}}, []string{"c"}, []string{"c"}, "left out a (60), b (60)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			for _, m := range tt.metrics {
				promMetric(&b, m.name, m.series)
			}
			table := newPromTable(100, nil)
			for i, want := range [][]string{tt.first, tt.then, tt.then} {
				if err := table.scan(strings.NewReader(b.String()), false); err != nil {
					t.Fatal(err)
				}
				table.account()
				promBooks(t, table)
				if diff := cmp.Diff(want, promFamilyNames(table)); diff != "" {
					t.Errorf("read %d (-want +got):\n%s", i+1, diff)
				}
				got := fmt.Sprint(table.read.cutError(100))
				if i > 0 && tt.says == "" != (got == "<nil>") || i > 0 && !strings.Contains(got, tt.says) {
					t.Errorf("read %d: %s, want it to say %q", i+1, got, tt.says)
				}
				if len(table.entries) > 200 || len(table.groups) > 100 {
					t.Errorf("read %d: %d lines and %d metrics remembered, want fewer", i+1, len(table.entries), len(table.groups))
				}
			}
			// The great ones shrink: all is back after one read that sees it.
			for range 2 {
				_ = table.scan(strings.NewReader("a 1\nb 1\nc 1\nd 1\n"), false)
				table.account()
			}
			if diff := cmp.Diff([]string{"a", "b", "c", "d"}, promFamilyNames(table)); diff != "" {
				t.Errorf("afterwards (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPrometheusManyNames: a limit of samples is one of metrics too.
func TestPrometheusManyNames(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&b, "# TYPE m%d counter\n# HELP m%d text\nm%d 1\n", i, i, i)
	}
	table := newPromTable(100, nil)
	for range 3 {
		_ = table.scan(strings.NewReader(b.String()), false)
		table.account()
		promBooks(t, table)
		if n := len(table.result()); n != 100 || len(table.groups) > 100 || len(table.names) > 100 {
			t.Errorf("%d families, %d metrics and %d names remembered, want 100", n, len(table.groups), len(table.names))
		}
		if got := table.read.cut[promOthers]; got != 9900 {
			t.Errorf("%d samples left out, want 9900", got)
		}
	}
}

// A promFlood is a text of many lines that is never whole in memory.
type promFlood struct {
	line func(i int) string
	n, i int
	rest string
}

func (f *promFlood) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if f.rest == "" {
			if f.i == f.n {
				return n, io.EOF
			}
			f.rest = f.line(f.i)
			f.i++
		}
		c := copy(p[n:], f.rest)
		f.rest = f.rest[c:]
		n += c
	}
	return n, nil
}

// TestPrometheusMillionSeries: of one metric, of a thousand, and such as the rules
// drop: the memory does not grow with them, and what else there is stays.
func TestPrometheusMillionSeries(t *testing.T) {
	const million = 1_000_000
	drop, err := newPromRelabeler([]RelabelConfig{{Action: "drop", SourceLabels: []string{"__name__"}, Regex: "flood.*"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		n       int
		line    func(int) string
		relabel promRelabeler
	}{
		"one metric":      {million, func(i int) string { return fmt.Sprintf("flood{id=\"%d\",path=\"/a/b/c\"} %d\n", i, i) }, nil},
		"many metrics":    {million / 5, func(i int) string { return fmt.Sprintf("flood%d{id=\"%d\"} %d\n", i%1000, i, i) }, nil},
		"metrics of one":  {million / 5, func(i int) string { return fmt.Sprintf("flood%d %d\n", i, i) }, nil},
		"dropped by rule": {million / 5, func(i int) string { return fmt.Sprintf("flood{id=\"%d\",path=\"/a/b/c\"} %d\n", i, i) }, drop},
		"buckets":         {million / 5, func(i int) string { return fmt.Sprintf("flood_bucket{le=\"%d\"} %d\n", i, i) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			table := newPromTable(10000, tt.relabel)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var peak uint64
			line := func(i int) string {
				if i%(tt.n/10) == tt.n/20 { // what is reachable, at ten moments
					runtime.GC()
					runtime.ReadMemStats(&after)
					peak = max(peak, after.HeapAlloc)
				}
				return tt.line(i)
			}
			for range 2 {
				text := io.MultiReader(strings.NewReader("# TYPE flood histogram\nfirst 1\n"), &promFlood{line: line, n: tt.n}, strings.NewReader("last 1\n"))
				if err := table.scan(text, false); err != nil {
					t.Fatal(err)
				}
				table.account()
				promBooks(t, table)
			}
			if table.read.samples != tt.n+2 {
				t.Errorf("%d samples, want %d", table.read.samples, tt.n+2)
			}
			names := promFamilyNames(table)
			if len(names) == 0 || names[0] != "first" || name != "metrics of one" && names[len(names)-1] != "last" {
				t.Errorf("%d families, want first and last among them", len(names))
			}
			if grown := (float64(peak) - float64(before.HeapAlloc)) / (1 << 20); grown > 32 {
				t.Errorf("the heap grew by %.1f MiB, want at most 32", grown)
			} else {
				t.Logf("the heap grew by %.1f MiB", grown)
			}
			if table.skipped > 10000 || len(table.entries) > 20000 {
				t.Errorf("%d lines remembered, %d of them for nothing", len(table.entries), table.skipped)
			}
		})
	}
}
