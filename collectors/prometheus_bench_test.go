package collectors

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// promTypical is a text of about so many series: counters, gauges, histograms.
func promTypical(series int) string {
	var b strings.Builder
	for m := 0; series > 0; m++ {
		fmt.Fprintf(&b, "# HELP api_requests_%d_total Requests that were answered, by what was asked.\n# TYPE api_requests_%d_total counter\n", m, m)
		for i := range 50 {
			fmt.Fprintf(&b, "api_requests_%d_total{method=\"GET\",path=\"/api/v1/orders/%d\",status=\"200\",zone=\"eu-west-1\"} %d\n", m, i, 12345+i)
		}
		fmt.Fprintf(&b, "# HELP api_depth_%d Orders that wait.\n# TYPE api_depth_%d gauge\n", m, m)
		for i := range 20 {
			fmt.Fprintf(&b, "api_depth_%d{queue=\"q%d\"} %d.25\n", m, i, i)
		}
		fmt.Fprintf(&b, "# HELP api_took_%d_seconds Time of an answer.\n# TYPE api_took_%d_seconds histogram\n", m, m)
		for i := range 2 {
			for n, le := range []string{"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"} {
				fmt.Fprintf(&b, "api_took_%d_seconds_bucket{path=\"/%d\",le=\"%s\"} %d\n", m, i, le, n*100)
			}
			fmt.Fprintf(&b, "api_took_%d_seconds_sum{path=\"/%d\"} 123.456789\napi_took_%d_seconds_count{path=\"/%d\"} 1100\n", m, i, m, i)
		}
		series -= 98
	}
	return b.String()
}

// BenchmarkPrometheusText reads 9,000 series again and again, as every ten
// seconds: under 1 % of a core are 100 ms.
func BenchmarkPrometheusText(b *testing.B) {
	text := promTypical(9000)
	b.Run("table", func(b *testing.B) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		table := newPromTable(10000, nil)
		read := func() {
			if err := table.scan(strings.NewReader(text), false); err != nil || table.read.bad > 0 || len(table.result()) == 0 {
				b.Fatal(err, table.read.first)
			}
			table.account()
		}
		read()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportAllocs()
		for b.Loop() {
			read()
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB_kept")
	})
	b.Run("first_read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			table := newPromTable(10000, nil)
			_ = table.scan(strings.NewReader(text), false)
			table.result()
		}
	})
	b.Run("expfmt", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			parser := expfmt.NewTextParser(model.UTF8Validation)
			if _, err := parser.TextToMetricFamilies(strings.NewReader(text)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestPrometheusReadsAgainWithoutCopies: a text that was read before costs what
// its result needs, and no more.
func TestPrometheusReadsAgainWithoutCopies(t *testing.T) {
	text := promTypical(9000)
	lines := strings.Count(text, "\n")
	table := newPromTable(10000, nil)
	read := func() {
		if err := table.scan(strings.NewReader(text), false); err != nil || table.read.bad > 0 || len(table.result()) == 0 {
			t.Fatal(err, table.read.first)
		}
		table.account()
	}
	read()
	if allocs := testing.AllocsPerRun(5, read); allocs > float64(lines)/5 {
		t.Errorf("%.0f allocations for %d lines, want a fifth of that at most", allocs, lines)
	}
}
