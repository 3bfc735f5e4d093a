// Package collectors has the kinds of collector: each reads one source, and gives series.
package collectors

import (
	"context"
	"log/slog"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// A Collector reads one source.
type Collector interface {
	// Collect reads the source once, and returns what it found, sorted by name
	// and tags. It is called by one goroutine at a time, and returns soon after
	// ctx ends, which is its deadline. What could be read is returned beside an
	// error that says what could not. The caller may keep the families: they are
	// not changed afterwards.
	Collect(ctx context.Context) ([]metrics.Family, error)
}

// A Runner is a collector with work of its own between the reads, such as a
// socket that it listens on. Run is called once, before Collect, and returns nil
// soon after ctx ends.
type Runner interface {
	Run(ctx context.Context) error
}

// A Builder is the configuration of one kind: it makes the collector that it
// describes.
type Builder interface {
	// Build makes the collector. It opens nothing that must be closed.
	Build(Env) (Collector, error)
}

// Env is what a collector is made in.
type Env struct {
	Name    string         // of the item in the configuration
	Metrics *metrics.Group // for metrics and pipelines of its own work
	Log     *slog.Logger
	Now     func() time.Time

	Pipelines func() []metrics.PipelineSnapshot // all that the agent knows
}
