package collectors

import (
	"context"

	"github.com/outrider-agent/outrider/metrics"
)

// RetriesConfig is the kind retries: how many items a second the selected
// pipelines try again, by cause, averaged since the read before.
type RetriesConfig struct {
	PipelineSelection
}

// Build implements [Builder].
func (c *RetriesConfig) Build(env Env) (Collector, error) {
	return &retries{newFollower(c.PipelineSelection, env), env.Name}, nil
}

// Descs are the metrics that the kind can give.
func (c *RetriesConfig) Descs() []metrics.Desc {
	return []metrics.Desc{
		aggregateDesc(c.PipelineSelection, "retries_rate", "items a second", "Items a second that the pipelines that the collector selects try again, by cause.", "cause"),
	}
}

type retries struct {
	*follower
	name string
}

// Collect implements [Collector].
func (r *retries) Collect(context.Context) ([]metrics.Family, error) {
	s := sum{}
	seconds := r.moved(func(now, before metrics.PipelineSnapshot) {
		r.reasons(s, append([]string{r.name}, r.selection.values(now)...), now.Retries, before.Retries)
	})
	return []metrics.Family{s.family((&RetriesConfig{r.selection}).Descs()[0], perSecond(seconds))}, nil
}
