package exporters

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

func mustFunc(t testing.TB, reg *metrics.Registry, d metrics.Desc, points ...metrics.Point) {
	t.Helper()
	if d.Help == "" {
		d.Help = "Test."
	}
	err := reg.Func(d, func(yield func(metrics.Point)) {
		for _, p := range points {
			yield(p)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

const noErrors = `
# HELP outrider_exporter_errors_total Series, or whole exports, that an exporter could not give away.
# TYPE outrider_exporter_errors_total counter
outrider_exporter_errors_total{exporter="prometheus"} 0
`

func TestPrometheusExposition(t *testing.T) {
	t.Parallel()
	reg := metricstest.Registry(t)
	c := Prometheus(reg)
	// Registered after the collector, and yet collected.
	mustFunc(t, reg, metrics.Desc{Name: "jobs_total", Type: metrics.CounterType, Help: `Jobs with a \ in them.`, Tags: []string{"queue", "why"}},
		metrics.Point{Tags: []string{"b", ""}, Value: 2}, metrics.Point{Tags: []string{"a", "said \"no\"\n"}, Value: 1e9})
	mustFunc(t, reg, metrics.Desc{Name: "depth", Type: metrics.GaugeType}, metrics.Point{Value: -1.5})
	mustFunc(t, reg, metrics.Desc{Name: "wait_seconds", Type: metrics.HistogramType, Tags: []string{"queue"}},
		metrics.Point{Tags: []string{"a"}, Hist: &metrics.HistogramSnapshot{
			Bounds: []float64{0.1, 0.2, 0.4}, Counts: []uint64{3, 0, 2, 1}, Count: 6, Sum: 2.5,
		}})
	want := `
# HELP depth Test.
# TYPE depth gauge
depth -1.5
# HELP jobs_total Jobs with a \\ in them.
# TYPE jobs_total counter
jobs_total{queue="a",why="said \"no\"\n"} 1e+09
jobs_total{queue="b"} 2
` + noErrors[1:] + `# HELP wait_seconds Test.
# TYPE wait_seconds histogram
wait_seconds_bucket{queue="a",le="0.1"} 3
wait_seconds_bucket{queue="a",le="0.2"} 3
wait_seconds_bucket{queue="a",le="0.4"} 5
wait_seconds_bucket{queue="a",le="+Inf"} 6
wait_seconds_sum{queue="a"} 2.5
wait_seconds_count{queue="a"} 6
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestPrometheusPipelinesAndHistograms(t *testing.T) {
	t.Parallel()
	reg := metrics.NewRegistry() // balances: what is shown is one that is off
	p, err := reg.Pipeline(metrics.PipelineOptions{Name: "delivery", Target: "platform", Unit: "changes", Queue: func() metrics.Queue {
		return metrics.Queue{Len: 3}
	}})
	if err != nil {
		t.Fatal(err)
	}
	p.Carry(1)
	p.In(10)
	p.Out(6)
	p.Drop("too_large", 1)
	p.Retry("status_503", 4)
	h := metrics.NewTimer()
	h.Observe(time.Millisecond)
	h.Observe(time.Hour)
	snapshot := h.Snapshot()
	mustFunc(t, reg, metrics.Desc{Name: "took_seconds", Type: metrics.HistogramType}, metrics.Point{Hist: &snapshot})
	want := `
# HELP outrider_pipeline_balance Carried + in - out - queued - drops. Not 0 for two minutes means that the pipeline lost count.
# TYPE outrider_pipeline_balance gauge
outrider_pipeline_balance{pipeline="delivery",target="platform",unit="changes"} 1
# HELP outrider_pipeline_drops_total Items given up, by reason.
# TYPE outrider_pipeline_drops_total counter
outrider_pipeline_drops_total{pipeline="delivery",reason="too_large",target="platform",unit="changes"} 1
`
	c := Prometheus(reg)
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "outrider_pipeline_balance", "outrider_pipeline_drops_total"); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

func TestPrometheusCutsAtTheBudget(t *testing.T) {
	t.Parallel()
	reg := metricstest.Registry(t)
	var points []metrics.Point
	for _, tag := range []string{"d", "a", "c", "b"} {
		points = append(points, metrics.Point{Tags: []string{tag}, Value: 1})
	}
	mustFunc(t, reg, metrics.Desc{Name: "tight", Type: metrics.GaugeType, Tags: []string{"t"}, Budget: 3}, points...)
	mustFunc(t, reg, metrics.Desc{Name: "just", Type: metrics.GaugeType, Tags: []string{"t"}, Budget: 4}, points...)
	mustFunc(t, reg, metrics.Desc{Name: "unlimited", Type: metrics.GaugeType, Tags: []string{"t"}}, points...)
	c := Prometheus(reg)
	for scrape := 1; scrape <= 2; scrape++ {
		want := fmt.Sprintf(`
# HELP outrider_exporter_series_over_budget_total Series left out because their metric had more than its budget, summed over all exports.
# TYPE outrider_exporter_series_over_budget_total counter
outrider_exporter_series_over_budget_total{exporter="prometheus",metric="tight"} %d
# HELP tight Test.
# TYPE tight gauge
tight{t="a"} 1
tight{t="b"} 1
tight{t="c"} 1
`, scrape)
		if err := testutil.CollectAndCompare(c, strings.NewReader(want), "tight", "outrider_exporter_series_over_budget_total"); err != nil {
			t.Errorf("scrape %d: %v", scrape, err)
		}
	}
	for _, name := range []string{"just", "unlimited"} {
		if n := testutil.CollectAndCount(c, name); n != 4 {
			t.Errorf("%s: %d series, want 4", name, n)
		}
	}
}

func scrape(t *testing.T, h http.Handler, accept string) (*http.Response, string) {
	t.Helper()
	req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	res := w.Result()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func line(body, prefix string) string {
	for l := range strings.Lines(body) {
		if strings.HasPrefix(l, prefix) {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

func TestPrometheusHandler(t *testing.T) {
	t.Parallel()
	reg := metricstest.Registry(t)
	mustFunc(t, reg, metrics.Desc{Name: "jobs_total", Type: metrics.CounterType}, metrics.Point{Value: 7})
	extra := prometheus.NewCounter(prometheus.CounterOpts{Name: "extra_total", Help: "Extra."})
	h := PrometheusHandler(reg, extra)

	res, body := scrape(t, h, "text/plain")
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("%d %s", res.StatusCode, res.Header.Get("Content-Type"))
	}
	for _, want := range []string{"jobs_total 7", "extra_total 0", `outrider_exporter_errors_total{exporter="prometheus"} 0`} {
		if got := line(body, want); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, prefix := range []string{"go_goroutines ", "process_resident_memory_bytes "} {
		if line(body, prefix) == "" {
			t.Errorf("no series %s", prefix)
		}
	}

	res, body = scrape(t, h, "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "application/openmetrics-text; version=1.0.0") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("OpenMetrics: %s, ends in %q", res.Header.Get("Content-Type"), body[len(body)-20:])
	}
	if got := line(body, "# TYPE jobs"); got != "# TYPE jobs counter" {
		t.Errorf("OpenMetrics: %q, want # TYPE jobs counter", got)
	}
}

// Each of these must leave the other series alone.
func TestPrometheusHandlerGoesOnAfterAnError(t *testing.T) {
	t.Parallel()
	duplicate := prometheus.NewGauge(prometheus.GaugeOpts{Name: "g", Help: "G."})
	tests := []struct {
		name   string
		desc   metrics.Desc
		points []metrics.Point
		extra  []prometheus.Collector
		errors string // on the second scrape: what fails late shows then
		log    string
	}{
		{
			"a tag too many",
			metrics.Desc{Name: "bad", Type: metrics.GaugeType, Tags: []string{"a"}},
			[]metrics.Point{{Tags: []string{"x", "y"}}},
			nil, "2",
			`metric bad, tags ["x" "y"]: inconsistent label cardinality: expected 1 label values but got 2 in []string{"x", "y"}`,
		},
		{
			"a histogram without a snapshot",
			metrics.Desc{Name: "bad", Type: metrics.HistogramType},
			[]metrics.Point{{}},
			nil, "2", "metric bad, tags []: histogram without a snapshot",
		},
		{
			"a histogram with too few counts",
			metrics.Desc{Name: "bad", Type: metrics.HistogramType},
			[]metrics.Point{{Hist: &metrics.HistogramSnapshot{Bounds: []float64{1}, Counts: []uint64{1}}}},
			nil, "2",
			"metric bad, tags []: histogram with 1 counts for 1 bounds, want one more",
		},
		{
			"a tag that is no UTF-8",
			metrics.Desc{Name: "bad", Type: metrics.GaugeType, Tags: []string{"a"}},
			[]metrics.Point{{Tags: []string{"\xff"}}},
			nil, "2", `label value "\xff" is not valid UTF-8`,
		},
		{
			"a series given twice",
			metrics.Desc{Name: "bad", Type: metrics.GaugeType},
			[]metrics.Point{{}, {}},
			nil, "1", "was collected before with the same name and label values",
		},
		{
			"a collector registered twice",
			metrics.Desc{Name: "fine", Type: metrics.GaugeType},
			nil,
			[]prometheus.Collector{duplicate, duplicate},
			"1", "register collector *prometheus.gauge: duplicate metrics collector registration attempted",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			reg := metricstest.Registry(t)
			mustFunc(t, reg, tt.desc, tt.points...)
			mustFunc(t, reg, metrics.Desc{Name: "good", Type: metrics.GaugeType}, metrics.Point{Value: 1})
			h := PrometheusOptions{Extra: tt.extra, Log: slog.New(slog.NewJSONHandler(&log, nil))}.Handler(reg)
			var body string
			for range 2 {
				var res *http.Response
				if res, body = scrape(t, h, ""); res.StatusCode != http.StatusOK || line(body, "good 1") == "" {
					t.Fatalf("%d, good series %q; want 200 and one", res.StatusCode, line(body, "good"))
				}
			}
			if got, want := line(body, "outrider_exporter_errors_total"), `outrider_exporter_errors_total{exporter="prometheus"} `+tt.errors; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			text := strings.ReplaceAll(strings.ReplaceAll(log.String(), `\\`, `\`), `\"`, `"`)
			if n := strings.Count(text, "\n"); n != 1 || !strings.Contains(text, tt.log) {
				t.Errorf("%d lines of log, want 1 with %q:\n%s", n, tt.log, text)
			}
		})
	}
}

func TestPrometheusSurvivesAPanic(t *testing.T) {
	t.Parallel()
	reg := metricstest.Registry(t)
	d := metrics.Desc{Name: "bad", Type: metrics.GaugeType, Help: "Bad."}
	if err := reg.Func(d, func(func(metrics.Point)) { panic(errors.New("boom")) }); err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(noErrors, `"} 0`, `"} 1`, 1)
	if err := testutil.CollectAndCompare(Prometheus(reg), strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestPrometheusScrapesAtOnce(t *testing.T) {
	t.Parallel()
	reg := metricstest.Registry(t)
	mustFunc(t, reg, metrics.Desc{Name: "g", Type: metrics.GaugeType, Tags: []string{"t"}, Budget: 1},
		metrics.Point{Tags: []string{"a"}}, metrics.Point{Tags: []string{"b"}})
	h := PrometheusHandler(reg)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				if res, _ := scrape(t, h, ""); res.StatusCode != http.StatusOK {
					t.Errorf("status %d, want 200", res.StatusCode)
				}
			}
		})
	}
	wg.Wait()
	_, body := scrape(t, h, "")
	want := `outrider_exporter_series_over_budget_total{exporter="prometheus",metric="g"} 41`
	if got := line(body, "outrider_exporter_series_over_budget_total"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDescs(t *testing.T) {
	t.Parallel()
	var got []string
	for _, d := range Descs() {
		got = append(got, d.Name)
	}
	want := []string{"outrider_exporter_errors_total", "outrider_exporter_last_success_age_seconds", "outrider_exporter_series_over_budget_total"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}
