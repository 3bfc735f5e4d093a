package series

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// exemplars asks for those of a query's series, by the series' name: what is shown
// of each is the trace, the value and whether it is of now.
func (p *promServer) exemplars(query string) map[string][]string {
	p.t.Helper()
	now := time.Now()
	args := url.Values{"query": {query}, "start": {now.Add(-time.Hour).Format(time.RFC3339)}, "end": {now.Add(time.Hour).Format(time.RFC3339)}}
	var data []struct {
		SeriesLabels map[string]string
		Exemplars    []struct {
			Labels    map[string]string
			Value     string
			Timestamp float64
		}
	}
	p.ask("/api/v1/query_exemplars", args, &data)
	out := map[string][]string{}
	for _, series := range data {
		key := instant{Metric: series.SeriesLabels}.key()
		for _, x := range series.Exemplars {
			recent := now.Sub(time.UnixMilli(int64(x.Timestamp*1000))).Abs() < patience
			out[key] = append(out[key], fmt.Sprint(x.Labels, " ", x.Value, " ", recent))
		}
	}
	return out
}

// TestPrometheusTakesExemplars has Prometheus read them in both forms that have
// them, and what the process says of itself beside them.
func TestPrometheusTakesExemplars(t *testing.T) {
	t.Parallel()
	need(t, "prometheus")
	reg := metricstest.Registry(t)
	timers, err := reg.Group().Timers(metrics.Desc{Name: "took_seconds", Help: "How long it took.", Tags: []string{"route"}})
	if err != nil {
		t.Fatal(err)
	}
	counters, err := reg.Group().Counters(metrics.Desc{Name: "jobs_total", Help: "Jobs."})
	if err != nil {
		t.Fatal(err)
	}
	trace := func(id string) metrics.Label { return metrics.Label{Name: "trace_id", Value: id} }
	timer := timers.With("/order")
	timer.Observe(time.Millisecond)
	timer.ObserveWithExemplar(20*time.Millisecond, trace("older"))
	timer.ObserveWithExemplar(21*time.Millisecond, trace("newer"))
	timer.ObserveWithExemplar(time.Hour, trace("slow"))
	counters.With().AddWithExemplar(2, trace("job"))
	mux := http.NewServeMux()
	mux.Handle("/metrics", exporters.PrometheusOptions{Tags: func() map[string]string {
		return map[string]string{"service": "payments", "env": "prod"}
	}}.Handler(reg))
	mux.Handle("/metrics/neighbour/shop", http.NotFoundHandler())
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)

	classic := startPrometheus(t, &agent{url: server.URL}, "--enable-feature=exemplar-storage")
	native := startPrometheus(t, &agent{url: server.URL}, "--enable-feature=exemplar-storage,native-histograms")
	classic.scraped("agent")
	native.scraped("agent")
	jobs := map[string][]string{"jobs_total": {"map[trace_id:job] 2 true"}}
	for _, p := range []*promServer{classic, native} {
		if diff := cmp.Diff(jobs, p.exemplars("jobs_total")); diff != "" {
			t.Errorf("exemplars of a counter (-want +got):\n%s", diff)
		}
		if got := p.query("target_info", 0); len(got) != 1 || got[0].key() != `target_info{env="prod",service="payments"}` || got[0].value(t) != 1 {
			t.Errorf("target_info is %v, want one of service and env", got)
		}
		joined := p.query(`jobs_total * on (job, instance) group_left (service) target_info`, 0)
		if len(joined) != 1 || joined[0].Metric["service"] != "payments" || joined[0].value(t) != 2 {
			t.Errorf("joined with target_info: %v, want 2 of the service payments", joined)
		}
	}
	want := map[string][]string{
		`took_seconds_bucket{le="0.022097086912079608",route="/order"}`: {"map[trace_id:newer] 0.021 true"},
		`took_seconds_bucket{le="+Inf",route="/order"}`:                 {"map[trace_id:slow] 3600 true"},
	}
	if diff := cmp.Diff(want, classic.exemplars("took_seconds_bucket")); diff != "" {
		t.Errorf("exemplars of classic buckets (-want +got):\n%s", diff)
	}
	// Of a native histogram this version takes the first exemplar of the classic
	// buckets; later ones take all that the histogram has.
	got := native.exemplars("took_seconds")[`took_seconds{route="/order"}`]
	if diff := cmp.Diff([]string{"map[trace_id:newer] 0.021 true"}, got); diff != "" {
		t.Errorf("exemplars of a native histogram (-want +got):\n%s", diff)
	}
}
