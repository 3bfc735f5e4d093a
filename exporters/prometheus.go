// Package exporters gives series away to the systems that store and show them.
package exporters

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/outrider-agent/outrider/metrics"
)

// maxScrapes bounds the scrapes answered at once: when a scrape hangs, those
// that pile up behind it get a 503 instead of memory.
const maxScrapes = 10

const prometheusName = "prometheus"

// errorsDesc and overBudgetDesc describe what an exporter says of itself.
// Read-only.
var (
	errorsDesc = metrics.Desc{
		Name: "outrider_exporter_errors_total", Datadog: "outrider.exporter.errors", Type: metrics.CounterType, Unit: "errors",
		Help: "Series, or whole exports, that an exporter could not give away.",
		Tags: []string{"exporter"}, Budget: 20,
	}
	overBudgetDesc = metrics.Desc{
		Name: "outrider_exporter_series_over_budget_total", Datadog: "outrider.exporter.series_over_budget", Type: metrics.CounterType, Unit: "series",
		Help: "Series left out because their metric had more than its budget, summed over all exports.",
		Tags: []string{"exporter", "metric"}, Budget: 1000,
	}
)

// Descs returns the descriptors of the exporters' own metrics, sorted by name.
func Descs() []metrics.Desc { return []metrics.Desc{errorsDesc, lastSuccessDesc, overBudgetDesc} }

// Prometheus returns a collector of everything in reg, to be registered with a
// prometheus.Registry. It is unchecked: what reg gets later is collected too.
//
// A series that cannot be given away (a tag too many, a name that is none) is
// left out and counted. Of a metric with more series than its budget, the
// first ones in the order of their tags are kept and the rest is counted; a
// budget of 0 is no limit.
func Prometheus(reg *metrics.Registry) prometheus.Collector {
	return newPrometheus(reg, prometheusName, nil)
}

// PrometheusHandler serves /metrics: everything in reg, the Go runtime, the
// process, and the extra collectors. What goes wrong is counted in
// outrider_exporter_errors_total; the rest is still served.
func PrometheusHandler(reg *metrics.Registry, extra ...prometheus.Collector) http.Handler {
	return PrometheusOptions{Extra: extra}.Handler(reg)
}

// PrometheusOptions are what [PrometheusHandler] leaves at its defaults.
type PrometheusOptions struct {
	Extra []prometheus.Collector
	Log   *slog.Logger // where errors go, besides being counted; nil for nowhere

	// Program is where the program that embeds the agent registers metrics of its
	// own; nil for none.
	Program *prometheus.Registry

	// Tags are those of the process (service, env ...). They are shown once, as
	// target_info, and not on each series.
	// It is asked for each page; nil for none.
	Tags func() map[string]string
}

// Handler is [PrometheusHandler] with these options.
func (o PrometheusOptions) Handler(reg *metrics.Registry) http.Handler {
	c := newPrometheus(reg, prometheusName, o.Log)
	c.tags = o.Tags
	registry := o.Program
	if registry == nil { // the default one belongs to the host program
		registry = prometheus.NewRegistry()
	}
	// Without go_memstats: two of its names differ by _total alone, which OpenMetrics
	// does not allow, and strict readers refuse the page. The kind runtime of
	// collector has more.
	for _, standard := range []prometheus.Collector{
		collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled()), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		var there prometheus.AlreadyRegisteredError // the program may have it already
		if err := registry.Register(standard); err != nil && !errors.As(err, &there) {
			c.failed(fmt.Errorf("register collector %T: %w", standard, err))
		}
	}
	for _, more := range append([]prometheus.Collector{c}, o.Extra...) {
		if err := registry.Register(more); err != nil {
			c.failed(fmt.Errorf("register collector %T: %w", more, err))
		}
	}
	return handlerFor(registry, c)
}

// Neighbour serves what a neighbour shows, and nothing of ours but what went
// wrong with it, under the exporter prometheus/name.
func (o PrometheusOptions) Neighbour(name string, src Source) http.Handler {
	c := newPrometheus(src, prometheusName+"/"+name, o.Log)
	registry := prometheus.NewRegistry()
	if err := registry.Register(c); err != nil {
		c.failed(fmt.Errorf("register neighbour %s: %w", name, err))
	}
	return handlerFor(registry, c)
}

func handlerFor(registry *prometheus.Registry, c *promCollector) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            c,
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		EnableOpenMetrics:   true,
	})
}

// promCollector renders a registry in client_golang's terms.
type promCollector struct {
	src  Source
	name string
	tags func() map[string]string // of the process; nil: none
	log  *slog.Logger

	mu         sync.Mutex
	errors     int64
	lastError  string
	overBudget map[string]int64 // by metric
}

func newPrometheus(src Source, name string, log *slog.Logger) *promCollector {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &promCollector{src: src, name: name, log: log, overBudget: map[string]int64{}}
}

// Describe describes nothing, which makes the collector an unchecked one.
func (c *promCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *promCollector) Collect(ch chan<- prometheus.Metric) {
	if c.tags != nil {
		c.collectFamily(targetInfo(c.tags()), ch)
	}
	c.collectRegistry(ch)
	for _, f := range c.own() {
		c.collectFamily(f, ch)
	}
}

func (c *promCollector) collectRegistry(ch chan<- prometheus.Metric) {
	// client_golang calls Collect in a goroutine of its own, where a panic of
	// one metric's function would end the process.
	defer func() {
		if p := recover(); p != nil {
			c.failed(fmt.Errorf("gather metrics: panic: %v", p))
		}
	}()
	for _, f := range c.src.Gather() {
		c.collectFamily(f, ch)
	}
}

func (c *promCollector) collectFamily(f metrics.Family, ch chan<- prometheus.Metric) {
	points := f.Points
	if excess := len(points) - f.Desc.Budget; f.Desc.Budget > 0 && excess > 0 {
		points = points[:f.Desc.Budget]
		c.mu.Lock()
		c.overBudget[f.Desc.Name] += int64(excess)
		c.mu.Unlock()
	}
	desc := newDescs(f.Desc)
	for _, p := range points {
		m, err := desc.metric(p)
		if err != nil {
			c.failed(fmt.Errorf("metric %s, tags %q: %w", f.Desc.Name, p.Tags, err))
		}
		if m != nil {
			ch <- m
		}
	}
}

// own is what the collector says of itself. It comes last, so that the scrape
// that went wrong is the scrape that says so.
func (c *promCollector) own() []metrics.Family {
	c.mu.Lock()
	defer c.mu.Unlock()
	over := metrics.Family{Desc: overBudgetDesc}
	for _, name := range slices.Sorted(maps.Keys(c.overBudget)) {
		over.Points = append(over.Points, metrics.Point{Tags: []string{c.name, name}, Value: float64(c.overBudget[name])})
	}
	failed := metrics.Point{Tags: []string{c.name}, Value: float64(c.errors)}
	return []metrics.Family{{Desc: errorsDesc, Points: []metrics.Point{failed}}, over}
}

// Println takes the errors of promhttp, which calls it as its log.
func (c *promCollector) Println(v ...any) {
	c.failed(errors.New(strings.ReplaceAll(strings.TrimSpace(fmt.Sprintln(v...)), "\n", " ")))
}

// failed counts an error, and logs it unless it was the last one too: a wrong
// metric is wrong on every scrape.
func (c *promCollector) failed(err error) {
	c.mu.Lock()
	c.errors++
	repeated := err.Error() == c.lastError
	c.lastError = err.Error()
	c.mu.Unlock()
	if !repeated {
		c.log.Error("export failed", "exporter", c.name, "err", err)
	}
}
