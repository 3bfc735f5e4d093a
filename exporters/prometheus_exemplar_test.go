package exporters

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

const (
	asOpenMetrics = "application/openmetrics-text;version=1.0.0"
	asProtobuf    = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)

// scrapeAs returns a page in the form that Accept asks for.
func scrapeAs(t *testing.T, h http.Handler, accept string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: status %d: %s", accept, w.Code, w.Body)
	}
	return w
}

// samples are the lines of a page that begin with one of the names.
func samples(page string, names ...string) (out []string) {
	for line := range strings.Lines(page) {
		for _, name := range names {
			if strings.HasPrefix(line, name) {
				out = append(out, strings.TrimSpace(line))
			}
		}
	}
	return out
}

// exemplary has a counter, a timer and a histogram with somebody else's bounds,
// each with exemplars, and one of each kind whose exemplars are wrong.
func exemplary(t *testing.T) *metrics.Registry {
	t.Helper()
	reg := metricstest.Registry(t)
	timers, err := reg.Group().Timers(metrics.Desc{Name: "took_seconds", Help: "T."})
	if err != nil {
		t.Fatal(err)
	}
	timer := timers.With()
	timer.Observe(time.Millisecond)
	timer.ObserveWithExemplar(20*time.Millisecond, metrics.Label{Name: "trace_id", Value: "20ms"})
	timer.ObserveWithExemplar(21*time.Millisecond, metrics.Label{Name: "trace_id", Value: "21ms"}, metrics.Label{Name: "span_id", Value: `"1"`})
	timer.ObserveWithExemplar(time.Hour, metrics.Label{Name: "trace_id", Value: "1h"})
	counters, err := reg.Group().Counters(metrics.Desc{Name: "jobs_total", Help: "C."})
	if err != nil {
		t.Fatal(err)
	}
	counters.With().AddWithExemplar(3, metrics.Label{Name: "trace_id", Value: "job"})
	at := time.Unix(1_700_000_000, 5e8)
	theirs := []metrics.Exemplar{{Labels: []metrics.Label{{Name: "trace_id", Value: "theirs"}}, Value: 3, At: at}}
	mustFunc(t, reg, metrics.Desc{Name: "size_bytes", Type: metrics.HistogramType}, metrics.Point{
		Hist: &metrics.HistogramSnapshot{Bounds: []float64{1, 4}, Counts: []uint64{0, 1, 0}, Count: 1, Sum: 3, Exemplars: theirs},
	})
	wrong := metrics.Exemplar{Labels: []metrics.Label{{Name: "trace_id", Value: strings.Repeat("x", 200)}}}
	mustFunc(t, reg, metrics.Desc{Name: "wrong_total", Type: metrics.CounterType}, metrics.Point{Value: 7, Exemplar: &wrong})
	mustFunc(t, reg, metrics.Desc{Name: "wrong_bytes", Type: metrics.HistogramType}, metrics.Point{
		Hist: &metrics.HistogramSnapshot{Bounds: []float64{1}, Counts: []uint64{5, 0}, Count: 5, Exemplars: []metrics.Exemplar{wrong}},
	})
	return reg
}

func TestExemplarsInOpenMetrics(t *testing.T) {
	t.Parallel()
	h := PrometheusHandler(exemplary(t))
	var got []string
	for _, line := range samples(scrapeAs(t, h, asOpenMetrics).Body.String(), "took_", "jobs_", "size_", "wrong_", "outrider_exporter_errors") {
		sample, exemplar, has := strings.Cut(line, " # ")
		if !has && strings.Contains(sample, "took_seconds_bucket") {
			continue
		}
		if has && !strings.Contains(sample, "size_") { // the time is now
			exemplar = exemplar[:strings.LastIndexByte(exemplar, ' ')]
		}
		got = append(got, strings.TrimSpace(sample+" "+exemplar))
	}
	want := []string{
		`jobs_total 3.0 {trace_id="job"} 3.0`,
		`outrider_exporter_errors_total{exporter="prometheus"} 2.0`,
		`size_bytes_bucket{le="1.0"} 0`,
		`size_bytes_bucket{le="4.0"} 1 {trace_id="theirs"} 3.0 1.7000000005e+09`,
		`size_bytes_bucket{le="+Inf"} 1`,
		`size_bytes_sum 3.0`,
		`size_bytes_count 1`,
		`took_seconds_bucket{le="0.022097086912079608"} 3 {span_id="\"1\"",trace_id="21ms"} 0.021`,
		`took_seconds_bucket{le="+Inf"} 4 {trace_id="1h"} 3600.0`,
		`took_seconds_sum 3600.042`,
		`took_seconds_count 4`,
		`wrong_bytes_bucket{le="1.0"} 5`,
		`wrong_bytes_bucket{le="+Inf"} 5`,
		`wrong_bytes_sum 0.0`,
		`wrong_bytes_count 5`,
		`wrong_total 7.0`,
	}
	if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	if page := scrapeAs(t, h, "text/plain").Body.String(); strings.Contains(page, "trace_id") {
		t.Error("exemplars in the text format of Prometheus, which has none")
	}
}

func TestExemplarsOfNativeHistograms(t *testing.T) {
	t.Parallel()
	reg := exemplary(t)
	h := scrapeNative(t, PrometheusHandler(reg), "took_seconds")
	show := func(x *dto.Exemplar) string {
		if x == nil {
			return ""
		}
		if since := time.Since(x.GetTimestamp().AsTime()); since < 0 || since > time.Hour {
			t.Errorf("exemplar %v: %v ago", x, since)
		}
		return fmt.Sprint(x.GetLabel()[len(x.GetLabel())-1].GetValue(), " ", x.GetValue())
	}
	var native, classic []string
	for _, x := range h.Exemplars {
		native = append(native, show(x))
	}
	for _, b := range h.Bucket {
		if b.Exemplar != nil {
			classic = append(classic, show(b.Exemplar))
		}
	}
	want := []string{"21ms 0.021", "1h 3600"}
	if diff := cmp.Diff(want, native); diff != "" {
		t.Errorf("native (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, classic); diff != "" {
		t.Errorf("classic (-want +got):\n%s", diff)
	}
	if last := h.Bucket[len(h.Bucket)-1]; !math.IsInf(last.GetUpperBound(), 1) || last.GetCumulativeCount() != h.GetSampleCount() {
		t.Errorf("last bucket %v, want +Inf with all %d", last, h.GetSampleCount())
	}
}

func TestTargetInfo(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		tags map[string]string
		want []string
	}{
		"what is known": {
			map[string]string{"service": "payments", "env": "prod", "version": ""},
			[]string{`target_info{env="prod",service="payments"} 1`},
		},
		"names that labels cannot have": {
			map[string]string{"kube.cluster": "a", "kube-cluster": "b", "1st": "c", "__name__": "d", "": "e", "ärger": "f\xff"},
			[]string{`target_info{_="e",_1st="c",_name__="d",_rger="f` + "\uFFFD" + `",kube_cluster="b"} 1`},
		},
		"nothing": {nil, nil},
	} {
		h := PrometheusOptions{Tags: func() map[string]string { return tt.tags }}.Handler(metricstest.Registry(t))
		for _, accept := range []string{"text/plain", asOpenMetrics + ";escaping=underscores", "text/plain;version=1.0.0;escaping=allow-utf-8"} {
			w := scrapeAs(t, h, accept)
			var got []string
			for _, line := range samples(w.Body.String(), "target_info") {
				got = append(got, strings.TrimSuffix(line, ".0"))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", name, accept, diff)
			}
			if got := samples(w.Body.String(), "outrider_exporter_errors_total"); len(got) != 1 || !strings.HasSuffix(strings.TrimSuffix(got[0], ".0"), " 0") {
				t.Errorf("%s: %s: %v, want no errors", name, accept, got)
			}
		}
	}
}

// TestTargetInfoIsOnThePageAlone holds that what is pushed, whose series have the
// tags themselves, has no target_info.
func TestTargetInfoIsOnThePageAlone(t *testing.T) {
	t.Parallel()
	reg := metricstest.Registry(t)
	o := PrometheusOptions{Tags: func() map[string]string { return map[string]string{"service": "payments"} }}
	w := scrapeAs(t, o.Handler(reg), asProtobuf)
	d, found := expfmt.NewDecoder(w.Body, expfmt.ResponseFormat(w.Header())), false
	for f := new(dto.MetricFamily); d.Decode(f) == nil; f = new(dto.MetricFamily) {
		found = found || f.GetName() == "target_info"
	}
	if !found {
		t.Error("target_info is not on the page")
	}
	for _, f := range reg.Gather() {
		if f.Desc.Name == "target_info" {
			t.Error("target_info is in the registry, and so in what is pushed")
		}
	}
	page := scrapeAs(t, o.Neighbour("shop", reg), "text/plain").Body.String()
	if got := samples(page, "target_info"); len(got) > 0 {
		t.Errorf("a neighbour's page has %v, which is of this process", got)
	}
}
