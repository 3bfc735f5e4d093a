package collectors

import (
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// scrapeNames is how many metrics outrider_scrape_series_dropped_total names for
// one collector; the rest go under __other__.
const scrapeNames = 100

// A scrapeBook counts what became of a collector's requests.
type scrapeBook struct {
	name string

	mu      sync.Mutex
	up      bool
	asked   bool // at least once
	took    time.Duration
	bytes   int64
	samples int64
	scrapes int64
	failed  map[string]int64 // by reason
	dropped map[string]int64 // samples, by reason
	cut     map[string]int64 // samples left out for the limit, by metric
}

// newScrapeBook registers the metrics of a collector's requests.
func newScrapeBook(env Env) (*scrapeBook, error) {
	b := &scrapeBook{name: env.Name, failed: map[string]int64{}, dropped: map[string]int64{}, cut: map[string]int64{}}
	one := func(value func() float64) func(func(metrics.Point)) {
		return func(yield func(metrics.Point)) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.asked {
				yield(metrics.Point{Tags: []string{b.name}, Value: value()})
			}
		}
	}
	each := func(counts map[string]int64) func(func(metrics.Point)) {
		return func(yield func(metrics.Point)) {
			b.mu.Lock()
			counts := maps.Clone(counts)
			b.mu.Unlock()
			for key, n := range counts {
				yield(metrics.Point{Tags: []string{b.name, key}, Value: float64(n)})
			}
		}
	}
	return b, errors.Join(
		env.Metrics.Func(scrapeDesc("neighbour_up", "neighbour.up", metrics.GaugeType, "ratio",
			"1 when the last answer of the neighbour could be read to its end, else 0.", 200, "neighbour"),
			one(func() float64 {
				if b.up {
					return 1
				}
				return 0
			})),
		env.Metrics.Func(scrapeDesc("scrape_duration_seconds", "scrape.duration", metrics.GaugeType, "seconds",
			"How long the last request took, with reading the answer.", 200, "collector"),
			one(func() float64 { return b.took.Seconds() })),
		env.Metrics.Func(scrapeDesc("scrape_body_bytes", "scrape.body", metrics.GaugeType, "bytes",
			"Size of the last answer, unpacked.", 200, "collector"),
			one(func() float64 { return float64(b.bytes) })),
		env.Metrics.Func(scrapeDesc("scrape_samples", "scrape.samples", metrics.GaugeType, "samples",
			"Samples in the last answer, those left out included.", 200, "collector"),
			one(func() float64 { return float64(b.samples) })),
		env.Metrics.Func(scrapeDesc("scrape_requests_total", "scrape.requests", metrics.CounterType, "requests",
			"Requests to the neighbour.", 200, "collector"),
			one(func() float64 { return float64(b.scrapes) })),
		env.Metrics.Func(scrapeDesc("scrape_failures_total", "scrape.failures", metrics.CounterType, "requests",
			"Requests without an answer that could be read to its end, by reason.", 2000, "collector", "reason"),
			each(b.failed)),
		env.Metrics.Func(scrapeDesc("scrape_samples_dropped_total", "scrape.samples_dropped", metrics.CounterType, "samples",
			"Samples that were left out, by reason.", 2000, "collector", "reason"),
			each(b.dropped)),
		env.Metrics.Func(scrapeDesc("scrape_series_dropped_total", "scrape.series_dropped", metrics.CounterType, "samples",
			"Samples that were left out because there were more than sample_limit, by metric: those with the most samples.", 20000, "collector", "metric"),
			each(b.cut)),
	)
}

func scrapeDesc(name, datadog string, typ metrics.Type, unit, help string, budget int, tags ...string) metrics.Desc {
	return metrics.Desc{Name: "outrider_" + name, Datadog: "outrider." + datadog, Type: typ, Unit: unit, Help: help, Tags: tags, Budget: budget}
}

// note books one request. failure is nil, or what kept the answer from being
// read to its end.
func (b *scrapeBook) note(took time.Duration, size int64, read promRead, failure error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked, b.up, b.took, b.bytes, b.samples = true, failure == nil, took, size, int64(read.samples)
	b.scrapes++
	if failure != nil {
		reason := "format"
		if known, ok := errors.AsType[*scrapeError](failure); ok {
			reason = known.reason
		}
		b.failed[reason]++
	}
	for reason, n := range read.dropped {
		if n > 0 {
			b.dropped[reason] += n
		}
	}
	for name, n := range read.cut {
		if name = promCut(name); b.cut[name] == 0 && len(b.cut) >= scrapeNames {
			name = promOthers
		}
		b.cut[name] += n
	}
}
