package collectors

import (
	"context"

	"github.com/outrider-agent/outrider/metrics"
)

// DropsConfig is the kind drops: how many items a second the selected pipelines
// give up, by reason, averaged since the read before.
type DropsConfig struct {
	PipelineSelection
}

// Build implements [Builder].
func (c *DropsConfig) Build(env Env) (Collector, error) {
	return &drops{newFollower(c.PipelineSelection, env), env.Name}, nil
}

// Descs are the metrics that the kind can give.
func (c *DropsConfig) Descs() []metrics.Desc {
	return []metrics.Desc{
		aggregateDesc(c.PipelineSelection, "drops_rate", "items a second", "Items a second that the pipelines that the collector selects give up, by reason.", "reason"),
	}
}

type drops struct {
	*follower
	name string
}

// Collect implements [Collector].
func (d *drops) Collect(context.Context) ([]metrics.Family, error) {
	s := sum{}
	seconds := d.moved(func(now, before metrics.PipelineSnapshot) {
		d.reasons(s, append([]string{d.name}, d.selection.values(now)...), now.Dropped, before.Dropped)
	})
	return []metrics.Family{s.family((&DropsConfig{d.selection}).Descs()[0], perSecond(seconds))}, nil
}
