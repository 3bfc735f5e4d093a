package history

import (
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// register registers the metrics of a history.
func (h *History) register() (err error) {
	// The books are a pipeline's, but they are not shown as one: what is kept does
	// not wait to be worked off, and a queue that is full by design would trip
	// whoever looks at queues.
	h.pipe, err = metrics.NewRegistry().Pipeline(metrics.PipelineOptions{
		Name: "history", Unit: "samples", Lock: &h.mu,
		Queue: func() metrics.Queue { return metrics.Queue{Len: h.kept} },
	})
	if err != nil {
		return err
	}
	for _, m := range []struct {
		desc   metrics.Desc
		points func(yield func(metrics.Point))
	}{
		{metrics.Desc{
			Name: "outrider_history_reach_seconds", Datadog: "outrider.history.reach", Type: metrics.GaugeType, Unit: "seconds",
			Help: "How far back the history of a source reaches without a chunk given up: as long as it is kept, unless it is younger or takes too much of the budget.",
			Tags: []string{"source"}, Budget: 1000,
		}, h.bySource(func(src *source, now int64) float64 { return src.reach(now).Seconds() })},
		{metrics.Desc{
			Name: "outrider_history_series", Datadog: "outrider.history.series", Type: metrics.GaugeType, Unit: "series",
			Help: "Series in the history, by source.",
			Tags: []string{"source"}, Budget: 1000,
		}, h.bySource(func(src *source, _ int64) float64 { return float64(src.series) })},
		{metrics.Desc{
			Name: "outrider_history_bytes", Datadog: "outrider.history.bytes", Type: metrics.GaugeType, Unit: "bytes",
			Help: "Memory that the history takes: of names, tags and open chunks (index), and of closed chunks (chunks).",
			Tags: []string{"part"}, Budget: 2,
		}, func(yield func(metrics.Point)) {
			used, index := h.bytes()
			yield(metrics.Point{Tags: []string{"chunks"}, Value: float64(used - index)})
			yield(metrics.Point{Tags: []string{"index"}, Value: float64(index)})
		}},
		{metrics.Desc{
			Name: "outrider_history_budget_bytes", Datadog: "outrider.history.budget", Type: metrics.GaugeType, Unit: "bytes",
			Help: "Memory that the history may take.", Budget: 1,
		}, func(yield func(metrics.Point)) { yield(metrics.Point{Value: float64(h.opts.Budget)}) }},
		{metrics.Desc{
			Name: "outrider_history_samples", Datadog: "outrider.history.samples", Type: metrics.GaugeType, Unit: "samples",
			Help: "Samples in the history.", Budget: 1,
		}, h.books(func(b metrics.PipelineSnapshot) int64 { return b.Queued })},
		{metrics.Desc{
			Name: "outrider_history_samples_observed_total", Datadog: "outrider.history.samples_observed", Type: metrics.CounterType, Unit: "samples",
			Help: "Samples that came in: those in the history, those that expired and those that were dropped.", Budget: 1,
		}, h.books(func(b metrics.PipelineSnapshot) int64 { return b.In })},
		{metrics.Desc{
			Name: "outrider_history_samples_expired_total", Datadog: "outrider.history.samples_expired", Type: metrics.CounterType, Unit: "samples",
			Help: "Samples that were kept for as long as they were to be.", Budget: 1,
		}, h.books(func(b metrics.PipelineSnapshot) int64 { return b.Out })},
		{metrics.Desc{
			Name: "outrider_history_samples_dropped_total", Datadog: "outrider.history.samples_dropped", Type: metrics.CounterType, Unit: "samples",
			Help: "Samples that were not kept, or not for as long, by reason.",
			Tags: []string{"reason"}, Budget: 20,
		}, func(yield func(metrics.Point)) {
			for reason, n := range h.pipe.Snapshot().Dropped {
				yield(metrics.Point{Tags: []string{reason}, Value: float64(n)})
			}
		}},
	} {
		if err := h.group.Func(m.desc, m.points); err != nil {
			return err
		}
	}
	return nil
}

// books returns the point of one term of the books.
func (h *History) books(term func(metrics.PipelineSnapshot) int64) func(func(metrics.Point)) {
	return func(yield func(metrics.Point)) { yield(metrics.Point{Value: float64(term(h.pipe.Snapshot()))}) }
}

// bySource returns points of a figure of each source.
func (h *History) bySource(figure func(src *source, now int64) float64) func(func(metrics.Point)) {
	return func(yield func(metrics.Point)) {
		now := h.opts.Now().UnixMilli()
		var points []metrics.Point
		h.mu.Lock()
		for _, src := range h.sources {
			points = append(points, metrics.Point{Tags: []string{src.name}, Value: figure(src, now)})
		}
		h.mu.Unlock()
		for _, p := range points {
			yield(p)
		}
	}
}

// Bytes returns how much memory everything takes.
func (h *History) Bytes() int64 {
	used, _ := h.bytes()
	return used
}

func (h *History) bytes() (used, index int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.used, h.index
}

// Reach returns how far back the history of a source reaches; 0 of one that it does
// not know.
func (h *History) Reach(from string) time.Duration {
	now := h.opts.Now().UnixMilli()
	h.mu.Lock()
	defer h.mu.Unlock()
	if src := h.sources[from]; src != nil {
		return src.reach(now)
	}
	return 0
}

func (src *source) reach(now int64) time.Duration {
	return time.Duration(max(0, min(now-src.since, 2*src.half))) * time.Millisecond
}
