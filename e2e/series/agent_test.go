package series

import (
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// agentConfig has every kind of collector that needs nobody else, and a neighbour with
// a pipeline. What a test exports to comes after it.
const agentConfig = `service: e2e
data_dir: ""
tags: {env: test}
listen: {public: "%[1]s", debug: "off", status: "off"}
neighbours:
  - {name: shop, metrics: "%[2]s", every: 1s}
collectors:
  - {name: host, every: 1s, host: {}}
  - {name: self, every: 1s, process: {name: outrider}}
  - {name: cgroup, every: 1s, cgroup: {}}
  - {name: go, every: 1s, runtime: {}}
  - {name: statsd, every: 1s, dogstatsd: {listen: "%[3]s"}}
  - {name: throughput, every: 1s, throughput: {}}
  - {name: depth, every: 1s, queue_depth: {}}
  - {name: retries, every: 1s, retries: {}}
  - {name: drops, every: 1s, drops: {}}
pipelines:
  - name: orders
    neighbour: shop
    in: {series: shop_orders_received_total}
    out: {series: shop_orders_done_total}
    drops: {series: shop_orders_dropped_total, by: reason}
    queued: {series: shop_orders_waiting}
`

// An agent is one run of the command, and the neighbour beside it.
type agent struct {
	*process
	url    string // of its pages
	shop   *shop
	statsd net.Conn
}

// startAgent runs the command with agentConfig and the exporters, and waits until it
// is ready.
func startAgent(t *testing.T, exporters string) *agent {
	t.Helper()
	public, statsd, beside := freeAddress(t, "tcp"), freeAddress(t, "udp"), openShop(t)
	text := fmt.Sprintf(agentConfig, public, beside.url, statsd)
	if exporters != "" {
		text += "exporters:\n" + exporters
	}
	a := runAgent(t, public, text)
	a.shop = beside
	var err error
	if a.statsd, err = net.Dial("udp", statsd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.statsd.Close() })
	return a
}

// runAgent runs the command with a configuration whose public listener is at an
// address, and waits until it is ready.
func runAgent(t *testing.T, public, config string) *agent {
	t.Helper()
	if env.outrider == "" {
		t.Fatal("BUG: a test that needs nothing installed")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "outrider.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &agent{process: start(t, dir, env.outrider, "run", "-c", path), url: "http://" + public}
	waitFor(t, patience, "/readyz to answer 200", func() bool {
		a.running()
		status, _ := get(t, a.url+"/readyz")
		return status == 200
	})
	return a
}

// send sends lines to the agent's DogStatsD, and waits until it has counted all
// that it was ever sent.
func (a *agent) send(lines ...string) {
	a.t.Helper()
	const lineName = `outrider_pipeline_in_total{pipeline="dogstatsd_lines",target="statsd",unit="lines"}`
	before := a.series()[lineName]
	for packet := range slices.Chunk(lines, 20) {
		if _, err := a.statsd.Write([]byte(strings.Join(packet, "\n"))); err != nil {
			a.t.Fatal(err)
		}
	}
	var got float64
	if !becomes(a.t, patience, func() bool { got = a.series()[lineName] - before; return got >= float64(len(lines)) }) {
		a.t.Fatalf("the agent's DogStatsD took %v of %d lines", got, len(lines))
	}
}

// series reads /metrics.
func (a *agent) series() map[string]float64 {
	a.t.Helper()
	return flatten(families(a.t, page(a.t, a.url+"/metrics")))
}

// balanced wants the books of every pipeline to balance.
func (a *agent) balanced() {
	a.t.Helper()
	now, known := a.series(), 0
	for key, v := range now {
		if strings.HasPrefix(key, "outrider_pipeline_balance{") {
			known++
			if v != 0 {
				a.t.Errorf("%s is %v, want 0", key, v)
			}
		}
	}
	if known == 0 {
		a.t.Error("no pipeline has a balance")
	}
}

// families reads Prometheus' text format.
func families(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	fams, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return fams
}

// flatten gives each value its name: name{tag="value",...}. Of a histogram there
// are name_count, name_sum and name_bucket.
func flatten(fams map[string]*dto.MetricFamily) map[string]float64 {
	out := map[string]float64{}
	for name, f := range fams {
		for _, m := range f.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				out[key(name, labels)] = m.Counter.GetValue()
			case dto.MetricType_HISTOGRAM:
				out[key(name+"_count", labels)] = float64(m.Histogram.GetSampleCount())
				out[key(name+"_sum", labels)] = m.Histogram.GetSampleSum()
				for _, b := range m.Histogram.Bucket {
					labels["le"] = model.SampleValue(b.GetUpperBound()).String()
					out[key(name+"_bucket", labels)] = float64(b.GetCumulativeCount())
				}
			case dto.MetricType_SUMMARY:
				out[key(name+"_count", labels)] = float64(m.Summary.GetSampleCount())
				out[key(name+"_sum", labels)] = m.Summary.GetSampleSum()
				for _, q := range m.Summary.Quantile {
					labels["quantile"] = model.SampleValue(q.GetQuantile()).String()
					out[key(name, labels)] = q.GetValue()
				}
			case dto.MetricType_GAUGE:
				out[key(name, labels)] = m.Gauge.GetValue()
			default:
				out[key(name, labels)] = m.Untyped.GetValue()
			}
		}
	}
	return out
}

// key names a series, its tags in order. A tag without a value is none, and 1.0 is
// the bound 1.
func key(name string, labels map[string]string) string {
	var tags []string
	for _, l := range slices.Sorted(maps.Keys(labels)) {
		value := labels[l]
		if v, err := strconv.ParseFloat(value, 64); err == nil && (l == "le" || l == "quantile") {
			value = model.SampleValue(v).String()
		}
		if value != "" {
			tags = append(tags, fmt.Sprintf("%s=%q", l, value))
		}
	}
	if len(tags) == 0 {
		return name
	}
	return name + "{" + strings.Join(tags, ",") + "}"
}

// near reports whether two values are the same but for the last digits of a
// decimal number.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-12*max(math.Abs(a), math.Abs(b)) }
