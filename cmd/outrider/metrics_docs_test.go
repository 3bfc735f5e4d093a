package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-agent/outrider/agent"
	"github.com/outrider-agent/outrider/cmd/outrider/demo"
	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

var update = flag.Bool("update", false, "write docs/metrics.md")

// everyKind is a configuration with everything that has metrics of its own.
const everyKind = `
service: catalogue
data_dir: data
listen: {public: off, debug: off, status: off}
statesync:
  kubeconfig: %s
  sinks: [{name: archive, file: {path: changes.ndjson}}]
neighbours: [{name: api, metrics: "http://127.0.0.1:1/metrics"}]
collectors:
  - {name: host, host: {}}
  - {name: self, process: {pid: 1}}
  - {name: group, cgroup: {}}
  - {name: go, runtime: {}}
  - {name: statsd, dogstatsd: {listen: "127.0.0.1:0"}}
  - {name: in-out, throughput: {}}
  - {name: depth, queue_depth: {}}
  - {name: again, retries: {}}
  - {name: lost, drops: {}}
exporters: [{name: tsdb, opentsdb: {url: "http://127.0.0.1:1"}}]
`

// descriptions runs an agent with everything, against a simulated cluster, and
// returns the descriptions of all its metrics, sorted by name.
func descriptions(t *testing.T) []metrics.Desc {
	t.Helper()
	dir := t.TempDir()
	sim, err := demo.NewSimulation(demo.Load{Rate: 20, Workloads: 10, Seed: 1}, demo.Place{Folder: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "outrider.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, everyKind, sim.Kubeconfig()), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	reg, log := metricstest.Registry(t), slog.New(slog.DiscardHandler)
	series, err := newSeries(s, reg, log)
	if err != nil {
		t.Fatal(err)
	}
	data, err := agent.OpenDataDir(string(s.DataDir), s.Service)
	if err != nil {
		t.Fatal(err)
	}
	c, err := stateSync(s, data.Path(), reg, log)
	if err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(agent.Options{
		Service: s.Service, Registry: reg, Components: append(series.components(), c),
		Configuration: func() (*agent.Configuration, error) { return &agent.Configuration{}, nil },
		MetricsHandler: func(reg *metrics.Registry, program *prometheus.Registry) http.Handler {
			return exporters.PrometheusOptions{Program: program}.Handler(reg)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 2)
	go func() { ran <- sim.Run(ctx) }()
	go func() { ran <- a.Run(ctx) }()
	for deadline := time.After(time.Minute); !hasChanges(reg); {
		select {
		case err := <-ran:
			t.Fatalf("it has stopped: %v", err)
		case <-deadline:
			t.Fatal("no change was delivered within a minute")
		case <-time.After(20 * time.Millisecond):
		}
	}
	descs := append(reg.Descs(), exporters.Descs()...)
	stop()
	for range 2 {
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}
	if err := data.Close(); err != nil {
		t.Error(err)
	}
	for _, item := range s.series.Collectors {
		if k, ok := item.Config.(interface{ Descs() []metrics.Desc }); ok {
			descs = append(descs, k.Descs()...)
		}
	}
	slices.SortFunc(descs, func(a, b metrics.Desc) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(descs, func(a, b metrics.Desc) bool { return a.Name == b.Name })
}

func hasChanges(reg *metrics.Registry) bool {
	return slices.ContainsFunc(reg.Pipelines(), func(p metrics.PipelineSnapshot) bool { return p.Name == "delivery" && p.Out > 0 })
}

// TestEveryMetricIsDocumented holds docs/metrics.md, and the list that alerts and
// dashboards are made from, to the descriptions in the code: with -update they are
// written.
func TestEveryMetricIsDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString(metricsHead)
	part := ""
	descs := descriptions(t)
	list, err := json.MarshalIndent(descs, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	written(t, "../../metrics/catalogue/catalogue.json", string(list)+"\n")
	for _, d := range descs {
		if next := partOf(d.Name); next != part {
			part = next
			fmt.Fprintf(&b, "\n## %s\n| name | type | unit | tags | what |\n|---|---|---|---|---|\n", part)
		}
		fmt.Fprintf(&b, "| `%s`<br>`%s` | %s | %s | %s | %s |\n", d.Name, d.Datadog, d.Type, d.Unit, strings.Join(d.Tags, ", "), strings.ReplaceAll(d.Help, "|", "\\|"))
	}
	written(t, "../../docs/metrics.md", b.String())
}

// written wants a file to be what the code says, and writes it with -update.
func written(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s is not what the code says, run go test ./cmd/outrider -run Documented -update (-file +code):\n%s", path, diff)
	}
}

// TestEveryMetricIsWellNamed holds the names to what Prometheus' users expect, and
// each to one name in Datadog.
func TestEveryMetricIsWellNamed(t *testing.T) {
	seen := map[string]string{}
	for _, d := range descriptions(t) {
		counter := strings.HasSuffix(d.Name, "_total")
		switch {
		case !strings.HasPrefix(d.Name, "outrider_"), !strings.HasPrefix(d.Datadog, "outrider."):
			t.Errorf("%s, %s: want outrider_..., outrider. ...", d.Name, d.Datadog)
		case counter != (d.Type == metrics.CounterType):
			t.Errorf("%s: a %s, want _total at the end of counters' names and of no others", d.Name, d.Type)
		case d.Unit == "":
			t.Errorf("%s: no unit", d.Name)
		case d.Budget <= 0 && len(d.Tags) > 0:
			t.Errorf("%s: no budget", d.Name)
		case strings.HasSuffix(d.Datadog, "_total"), strings.HasSuffix(d.Datadog, ".count"):
			t.Errorf("%s: in Datadog %s, want it without _total and .count", d.Name, d.Datadog)
		case seen[d.Datadog] != "":
			t.Errorf("%s and %s are both %s in Datadog", seen[d.Datadog], d.Name, d.Datadog)
		}
		seen[d.Datadog] = d.Name
	}
}

// partOf is the part of the agent that a metric belongs to.
func partOf(name string) string {
	rest := strings.TrimPrefix(name, "outrider_")
	part, _, _ := strings.Cut(rest, "_")
	return part
}

const metricsHead = `# Metrics

Written by ` + "`go test ./cmd/outrider -run Documented -update`" + ` from the descriptions in the code. Of each: its name in Prometheus and OpenTSDB, and in Datadog. Those of neighbours keep the names that they come with. Histograms are within 0.55 % of each value, and are exported as native and classic histograms to Prometheus, as distributions to Datadog, as percentiles to OpenTSDB. A tag without a value is left out.
`
