package collectors

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// QueueDepthConfig is the kind queue_depth: how many items wait in the selected
// pipelines together: now, and the least, the 95th percentile and the most of the
// seconds since the read before. A depth that is looked at now and then hides what
// goes on between.
type QueueDepthConfig struct {
	PipelineSelection
}

// Build implements [Builder].
func (c *QueueDepthConfig) Build(env Env) (Collector, error) {
	return &queueDepth{name: env.Name, selection: c.PipelineSelection, pipelines: env.Pipelines, seconds: map[string]*depths{}}, nil
}

// Descs are the metrics that the kind can give.
func (c *QueueDepthConfig) Descs() []metrics.Desc {
	desc := func(name, help string) metrics.Desc {
		return aggregateDesc(c.PipelineSelection, name, "items", help)
	}
	return []metrics.Desc{
		desc("queue_depth", "Items that wait in the pipelines that the collector selects."),
		desc("queue_depth_max", "Most items that waited at any second since the read before."),
		desc("queue_depth_min", "Fewest items that waited at any second since the read before."),
		desc("queue_depth_p95", "Items that waited at most in 95 of 100 seconds since the read before."),
	}
}

type queueDepth struct {
	name      string
	selection PipelineSelection
	pipelines func() []metrics.PipelineSnapshot

	mu      sync.Mutex
	seconds map[string]*depths // by tags
}

// depths are how much waited, once a second since the read before: an hour of
// seconds at most, as that is how seldom a collector may be read.
type depths struct {
	tags []string
	of   []float64
}

const mostDepths = int(mostEvery / time.Second)

// Run implements [Runner].
func (q *queueDepth) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			q.sample()
		}
	}
}

// sample adds a second.
func (q *queueDepth) sample() {
	now := sum{}
	for _, p := range q.pipelines() {
		if q.selection.takes(p) && p.Has(metrics.QueuedTerm) {
			now.add(append([]string{q.name}, q.selection.values(p)...), float64(p.Queued))
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for key, p := range now {
		d := q.seconds[key]
		if d == nil {
			d = &depths{tags: p.Tags}
			q.seconds[key] = d
		}
		if len(d.of) == mostDepths {
			d.of = d.of[1:]
		}
		d.of = append(d.of, p.Value)
	}
}

// Collect implements [Collector].
func (q *queueDepth) Collect(context.Context) ([]metrics.Family, error) {
	q.sample()
	q.mu.Lock()
	seconds := q.seconds
	q.seconds = map[string]*depths{}
	q.mu.Unlock()
	descs := (&QueueDepthConfig{q.selection}).Descs()
	fams := make([]metrics.Family, len(descs))
	for i, d := range descs {
		fams[i].Desc = d
	}
	for _, d := range seconds {
		last := d.of[len(d.of)-1]
		slices.Sort(d.of)
		for i, v := range []float64{last, d.of[len(d.of)-1], d.of[0], d.of[(len(d.of)*95+99)/100-1]} {
			fams[i].Points = append(fams[i].Points, metrics.Point{Tags: d.tags, Value: v})
		}
	}
	for i := range fams {
		slices.SortFunc(fams[i].Points, func(a, b metrics.Point) int { return slices.Compare(a.Tags, b.Tags) })
	}
	return fams, nil
}
