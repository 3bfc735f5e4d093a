package kube

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/outrider-agent/outrider/metrics"
)

// WorkqueueMetrics gives the figures of client-go's work queues to a registry
// of ours. It is handed to each queue, so that a program that embeds the
// agent keeps client-go's global provider for itself.
type WorkqueueMetrics struct {
	mu     sync.Mutex
	queues map[string]*queueFigures
}

type queueFigures struct {
	depth, adds, retries     figure
	latency, work            *metrics.Timer
	unfinished, longestSince figure
}

// NewWorkqueueMetrics registers the figures of all queues that will use it.
func NewWorkqueueMetrics(reg *metrics.Registry) (*WorkqueueMetrics, error) {
	w := &WorkqueueMetrics{queues: map[string]*queueFigures{}}
	for _, f := range []struct {
		name, unit, help string
		typ              metrics.Type
		point            func(*queueFigures) metrics.Point
	}{
		{"depth", "items", "Keys that wait in the work queue.", metrics.GaugeType, func(q *queueFigures) metrics.Point { return q.depth.point() }},
		{"adds_total", "items", "Keys added to the work queue.", metrics.CounterType, func(q *queueFigures) metrics.Point { return q.adds.point() }},
		{"retries_total", "items", "Keys put back into the work queue after a wait.", metrics.CounterType, func(q *queueFigures) metrics.Point { return q.retries.point() }},
		{"wait_seconds", "seconds", "How long a key waits in the work queue.", metrics.HistogramType, func(q *queueFigures) metrics.Point { return histogramPoint(q.latency) }},
		{"work_seconds", "seconds", "How long a worker holds a key.", metrics.HistogramType, func(q *queueFigures) metrics.Point { return histogramPoint(q.work) }},
		{"unfinished_seconds", "seconds", "How long the keys now held by workers have been held, added up.", metrics.GaugeType, func(q *queueFigures) metrics.Point { return q.unfinished.point() }},
		{"longest_running_seconds", "seconds", "How long the key held longest has been held.", metrics.GaugeType, func(q *queueFigures) metrics.Point { return q.longestSince.point() }},
	} {
		d := metrics.Desc{
			Name: "outrider_workqueue_" + f.name, Datadog: "outrider.workqueue." + strings.TrimSuffix(f.name, "_total"), Type: f.typ,
			Help: f.help, Unit: f.unit, Tags: []string{"queue"}, Budget: 200,
		}
		if err := reg.Func(d, func(yield func(metrics.Point)) { w.each(f.point, yield) }); err != nil {
			return nil, fmt.Errorf("work queue metrics: %w", err)
		}
	}
	return w, nil
}

func (w *WorkqueueMetrics) each(point func(*queueFigures) metrics.Point, yield func(metrics.Point)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, q := range w.queues {
		p := point(q)
		p.Tags = []string{name}
		yield(p)
	}
}

func (w *WorkqueueMetrics) queue(name string) *queueFigures {
	w.mu.Lock()
	defer w.mu.Unlock()
	q, ok := w.queues[name]
	if !ok {
		q = &queueFigures{latency: metrics.NewTimer(), work: metrics.NewTimer()}
		w.queues[name] = q
	}
	return q
}

// Remove drops the figures of a queue that is shut down. Another one of its name
// begins anew.
func (w *WorkqueueMetrics) Remove(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.queues, name)
}

// The methods below make *WorkqueueMetrics a workqueue.MetricsProvider.

// NewDepthMetric implements [workqueue.MetricsProvider].
func (w *WorkqueueMetrics) NewDepthMetric(name string) workqueue.GaugeMetric {
	return &w.queue(name).depth
}

// NewAddsMetric implements [workqueue.MetricsProvider].
func (w *WorkqueueMetrics) NewAddsMetric(name string) workqueue.CounterMetric {
	return &w.queue(name).adds
}

// NewLatencyMetric implements [workqueue.MetricsProvider].
func (w *WorkqueueMetrics) NewLatencyMetric(name string) workqueue.HistogramMetric {
	return seconds{w.queue(name).latency}
}

// NewWorkDurationMetric implements [workqueue.MetricsProvider].
func (w *WorkqueueMetrics) NewWorkDurationMetric(name string) workqueue.HistogramMetric {
	return seconds{w.queue(name).work}
}

// NewUnfinishedWorkSecondsMetric implements [workqueue.MetricsProvider].
func (w *WorkqueueMetrics) NewUnfinishedWorkSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return &w.queue(name).unfinished
}

// NewLongestRunningProcessorSecondsMetric implements [workqueue.MetricsProvider].
func (w *WorkqueueMetrics) NewLongestRunningProcessorSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return &w.queue(name).longestSince
}

// NewRetriesMetric implements [workqueue.MetricsProvider].
func (w *WorkqueueMetrics) NewRetriesMetric(name string) workqueue.CounterMetric {
	return &w.queue(name).retries
}

var _ workqueue.MetricsProvider = (*WorkqueueMetrics)(nil)

// figure is a number that goes up, down or to a value.
type figure struct{ bits atomic.Uint64 }

func (f *figure) Inc()          { f.add(1) }
func (f *figure) Dec()          { f.add(-1) }
func (f *figure) Set(v float64) { f.bits.Store(math.Float64bits(v)) }

func (f *figure) add(d float64) {
	for {
		old := f.bits.Load()
		if f.bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+d)) {
			return
		}
	}
}

func (f *figure) point() metrics.Point {
	return metrics.Point{Value: math.Float64frombits(f.bits.Load())}
}

// seconds is a histogram to which client-go gives seconds.
type seconds struct{ h *metrics.Timer }

func (s seconds) Observe(v float64) { s.h.Observe(time.Duration(v * float64(time.Second))) }

func histogramPoint(h *metrics.Timer) metrics.Point {
	s := h.Snapshot()
	return metrics.Point{Hist: &s}
}
