package collectors

import (
	"net/netip"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// lineBooks count the lines. No line waits: each counts, or is dropped, when it
// is read.
type lineBooks struct {
	mu    sync.Mutex
	books *metrics.Pipeline

	said   time.Time // when a message was logged last
	silent int64     // lines since then
}

// A lineTally counts the lines of what was taken from the queue at once.
type lineTally struct {
	now time.Time
	n   [lineDrops]int64

	bad    []byte // the first that was dropped
	fault  lineFault
	drop   lineDrop
	sender netip.AddrPort
}

func (b *lineBooks) enter(tally *lineTally) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for drop, n := range tally.n {
		switch {
		case n == 0:
			continue
		case lineDrop(drop) == lineCounted:
			b.books.Out(n)
		default:
			b.books.Drop(lineDropReasons[drop], n)
		}
		b.books.In(n)
	}
}

// register registers the pipelines and metrics of the collector's own work, and
// carries the figures of the one whose place it took on.
func (d *dogstatsd) register() error {
	g, name := d.env.Metrics, d.env.Name
	intake, table := d.intake, d.table
	d.queue = newPacketQueue(int(d.config.Queue), intake.lost)
	var err error
	d.queue.mu.Lock() // a look at the pipeline must not come before its books are there
	d.queue.books, err = g.Pipeline(d.queue.options(name))
	if err == nil {
		carryOn(d.queue.books, d.before[0])
	}
	d.queue.mu.Unlock()
	if err != nil {
		return err
	}
	d.lines.books, err = g.Pipeline(metrics.PipelineOptions{
		Name: "dogstatsd_lines", Target: name, Unit: "lines", Lock: &d.lines.mu,
		Reasons: lineDropReasons[lineCounted+1:],
		Queue:   func() metrics.Queue { return metrics.Queue{} },
	})
	if err != nil {
		return err
	}
	carryOn(d.lines.books, d.before[1])

	for _, m := range dogstatsdMetrics(table, intake) {
		m.desc.Tags = append([]string{"collector"}, m.desc.Tags...)
		err := g.Func(m.desc, func(yield func(metrics.Point)) {
			table.mu.Lock()
			defer table.mu.Unlock()
			m.points(func(v float64, tags ...string) {
				yield(metrics.Point{Tags: append([]string{name}, tags...), Value: v})
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func carryOn(p *metrics.Pipeline, before metrics.PipelineSnapshot) {
	p.In(before.In)
	p.Out(before.Out)
	for reason, n := range before.Dropped {
		p.Drop(reason, n)
	}
}

type dogstatsdMetric struct {
	desc   metrics.Desc
	points func(yield func(v float64, tags ...string))
}

// dogstatsdMetrics are a collector's own, in all of which the tag collector comes
// first. They are read with the table's lock held.
func dogstatsdMetrics(t *statsdTable, in intake) []dogstatsdMetric {
	one := func(v func() float64) func(func(float64, ...string)) {
		return func(yield func(float64, ...string)) { yield(v()) }
	}
	out := []dogstatsdMetric{
		{metrics.Desc{
			Name: "outrider_dogstatsd_series", Datadog: "outrider.dogstatsd.series", Type: metrics.GaugeType,
			Help: "Series that a DogStatsD collector holds.", Unit: "series", Budget: 100,
		}, one(func() float64 { return float64(t.series) })},
		{metrics.Desc{
			Name: "outrider_dogstatsd_series_expired_total", Datadog: "outrider.dogstatsd.series_expired", Type: metrics.CounterType,
			Help: "Series of which nothing came for the time to live.", Unit: "series", Budget: 100,
		}, one(func() float64 { return float64(t.expired) })},
		{metrics.Desc{
			Name: "outrider_dogstatsd_tags_cut_total", Datadog: "outrider.dogstatsd.tags_cut", Type: metrics.CounterType,
			Help: "Tags left out or shortened in new series because they were too many or too long.", Unit: "tags", Budget: 100,
		}, one(func() float64 { return float64(t.cut) })},
		{metrics.Desc{
			Name: "outrider_dogstatsd_folded_total", Datadog: "outrider.dogstatsd.folded", Type: metrics.CounterType,
			Help: "Lines that count in a series whose tag is " + metrics.Other + ", because a budget of series was used up.",
			Unit: "lines", Tags: []string{"metric", "tag"}, Budget: 20 * (maxFoldCounters + 1),
		}, func(yield func(float64, ...string)) {
			for key, n := range t.folded {
				yield(float64(*n), key[0], key[1])
			}
		}},
		{metrics.Desc{
			Name: "outrider_dogstatsd_events_total", Datadog: "outrider.dogstatsd.events", Type: metrics.CounterType,
			Help: "Events that came.", Unit: "events", Tags: []string{"alert_type"}, Budget: 100 * len(alertTypes),
		}, func(yield func(float64, ...string)) {
			for i, n := range t.news.events {
				yield(float64(n), alertTypes[i])
			}
		}},
		{metrics.Desc{
			Name: "outrider_dogstatsd_service_checks", Datadog: "outrider.dogstatsd.service_checks", Type: metrics.GaugeType,
			Help: "Service checks of which the last is kept.", Unit: "checks", Budget: 100,
		}, one(func() float64 { return float64(len(t.news.checks)) })},
		{metrics.Desc{
			Name: "outrider_dogstatsd_service_checks_evicted_total", Datadog: "outrider.dogstatsd.service_checks_evicted", Type: metrics.CounterType,
			Help: "Service checks let go of to make room for others.", Unit: "checks", Budget: 100,
		}, one(func() float64 { return float64(t.news.evicts) })},
	}
	switch in := in.(type) {
	case *datagramIntake:
		out = append(out, dogstatsdMetric{metrics.Desc{
			Name: "outrider_dogstatsd_receive_buffer_bytes", Datadog: "outrider.dogstatsd.receive_buffer", Type: metrics.GaugeType,
			Help: "The kernel's buffer for the socket. A packet takes more of it than its length.", Unit: "bytes", Budget: 100,
		}, one(func() float64 { return float64(in.buffer) })})
	case *streamIntake:
		out = append(out, dogstatsdMetric{metrics.Desc{
			Name: "outrider_dogstatsd_connections_refused_total", Datadog: "outrider.dogstatsd.connections_refused", Type: metrics.CounterType,
			Help: "Connections closed at once because there were as many as may be.", Unit: "connections", Budget: 100,
		}, one(func() float64 { return float64(in.refused.Load()) })})
	}
	return out
}
