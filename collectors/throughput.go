package collectors

import (
	"context"

	"github.com/outrider-agent/outrider/metrics"
)

// ThroughputConfig is the kind throughput: how many items a second come into and
// leave the selected pipelines, averaged since the read before.
type ThroughputConfig struct {
	PipelineSelection
}

// Build implements [Builder].
func (c *ThroughputConfig) Build(env Env) (Collector, error) {
	return &throughput{newFollower(c.PipelineSelection, env), env.Name}, nil
}

// Descs are the metrics that the kind can give.
func (c *ThroughputConfig) Descs() []metrics.Desc {
	return []metrics.Desc{
		aggregateDesc(c.PipelineSelection, "throughput_in_rate", "items a second", "Items a second that came into the pipelines that the collector selects."),
		aggregateDesc(c.PipelineSelection, "throughput_out_rate", "items a second", "Items a second that left them done."),
	}
}

type throughput struct {
	*follower
	name string
}

// Collect implements [Collector].
func (t *throughput) Collect(context.Context) ([]metrics.Family, error) {
	in, out := sum{}, sum{}
	seconds := t.moved(func(now, before metrics.PipelineSnapshot) {
		tags := append([]string{t.name}, t.selection.values(now)...)
		if now.Has(metrics.InTerm) && before.Has(metrics.InTerm) {
			in.add(tags, grown(now.In, before.In))
		}
		if now.Has(metrics.OutTerm) && before.Has(metrics.OutTerm) {
			out.add(tags, grown(now.Out, before.Out))
		}
	})
	descs := (&ThroughputConfig{t.selection}).Descs()
	return []metrics.Family{in.family(descs[0], perSecond(seconds)), out.family(descs[1], perSecond(seconds))}, nil
}
