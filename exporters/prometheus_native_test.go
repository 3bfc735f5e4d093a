package exporters

import (
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// scrapeNative asks for protobuf, as a Prometheus that takes native histograms
// does, and returns the histogram of a name.
func scrapeNative(t *testing.T, h http.Handler, name string) *dto.Histogram {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	d := expfmt.NewDecoder(w.Body, expfmt.ResponseFormat(w.Header()))
	for {
		var f dto.MetricFamily
		if err := d.Decode(&f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if f.GetName() == name {
			return f.Metric[0].Histogram
		}
	}
}

// buckets reads the runs of a native histogram back.
func buckets(spans []*dto.BucketSpan, deltas []int64) (out []metrics.Bucket) {
	var index int32
	var count int64
	for _, s := range spans {
		index += s.GetOffset()
		for range s.GetLength() {
			count += deltas[0]
			deltas = deltas[1:]
			out = append(out, metrics.Bucket{Index: index, Count: uint64(count)})
			index++
		}
	}
	return out
}

func TestNativeHistograms(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() float64{
		"narrow":        func() float64 { return 1 + rng.Float64() },
		"wide":          func() float64 { return math.Exp(rng.NormFloat64() * 4) },
		"of both signs": func() float64 { return rng.NormFloat64() },
		"zeroes":        func() float64 { return 0 },
	} {
		reg := metricstest.Registry(t)
		vec, err := reg.Group().Histograms(metrics.Desc{Name: "h", Help: "H."})
		if err != nil {
			t.Fatal(err)
		}
		for range 5000 {
			vec.With().Observe(draw())
		}
		s := vec.With().Snapshot()
		h := scrapeNative(t, PrometheusHandler(reg), "h")
		positive, negative := buckets(h.PositiveSpan, h.PositiveDelta), buckets(h.NegativeSpan, h.NegativeDelta)
		if len(positive) > nativeBuckets || len(negative) > nativeBuckets || h.GetSchema() > nativeSchema {
			t.Errorf("%s: %d and %d buckets of schema %d, want %d at most of schema %d", name, len(positive), len(negative), h.GetSchema(), nativeBuckets, nativeSchema)
		}
		wantPositive, _ := metrics.Coarse(s.Buckets, int(h.GetSchema()), math.MaxInt)
		wantNegative, _ := metrics.Coarse(s.Negative, int(h.GetSchema()), math.MaxInt)
		if diff := cmp.Diff(wantPositive, positive); diff != "" {
			t.Errorf("%s: positive buckets (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(wantNegative, negative); diff != "" {
			t.Errorf("%s: negative buckets (-want +got):\n%s", name, diff)
		}
		if h.GetZeroCount() != s.Zero || h.GetSampleCount() != 5000 || h.GetSampleSum() != s.Sum || len(h.PositiveSpan) == 0 {
			t.Errorf("%s: zero %d, count %d, sum %v, want %d, 5000, %v", name, h.GetZeroCount(), h.GetSampleCount(), h.GetSampleSum(), s.Zero, s.Sum)
		}
		if !slices.ContainsFunc(h.Bucket, func(b *dto.Bucket) bool { return b.GetUpperBound() == 4 && b.GetCumulativeCount() == s.AtMost(4) }) {
			t.Errorf("%s: no classic bucket up to 4 with %d values", name, s.AtMost(4))
		}
	}
}

func TestAHistogramThatHasNothing(t *testing.T) {
	t.Parallel()
	reg := metricstest.Registry(t)
	vec, err := reg.Group().Timers(metrics.Desc{Name: "t_seconds", Help: "T."})
	if err != nil {
		t.Fatal(err)
	}
	vec.With()
	h := scrapeNative(t, PrometheusHandler(reg), "t_seconds")
	if len(h.PositiveSpan) != 1 || len(h.PositiveDelta) != 0 { // by which it is known as native
		t.Errorf("got %v, want one empty span", h)
	}
}
