package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-agent/outrider/agent"
	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/collectors"
	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/exporters/datadog"
	"github.com/outrider-agent/outrider/history"
	"github.com/outrider-agent/outrider/metrics"
)

// seriesConfig are the parts of a configuration file that series come from and go
// to.
type seriesConfig struct {
	Tags       map[string]string      `yaml:"tags"` // of all series that are pushed
	Neighbours []collectors.Neighbour `yaml:"neighbours"`
	Collectors []collectors.Item      `yaml:"collectors"`
	Pipelines  []collectors.Pipeline  `yaml:"pipelines"`
	Exporters  []exporters.Config     `yaml:"exporters"`
	History    history.Config         `yaml:"history"`
}

// sections are the file's top-level keys, and where their values go.
func (c *seriesConfig) sections() map[string]any {
	return map[string]any{
		"tags": &c.Tags, "neighbours": &c.Neighbours, "collectors": &c.Collectors, "pipelines": &c.Pipelines,
		"exporters": &c.Exporters, "history": &c.History,
	}
}

// check finds what one part says of another that is not there.
func (c *seriesConfig) check() error {
	var known []string
	for _, n := range c.Neighbours {
		if n.Metrics != "" {
			known = append(known, n.Name)
		}
	}
	for _, item := range c.Collectors {
		if slices.Contains(known, item.Name) {
			return fmt.Errorf("%s.name: got %s, which is a neighbour's too, want a name of its own", item.Key, item.Name)
		}
		known = append(known, item.Name)
	}
	for i, p := range c.Pipelines {
		if !slices.Contains(known, p.Neighbour) {
			return fmt.Errorf("pipelines[%d].neighbour: got %s, want a neighbour with metrics, or a collector: %s", i, p.Neighbour, cmp.Or(strings.Join(known, ", "), "there is none"))
		}
	}
	return nil
}

// exporterKinds are those that this command is built with.
func exporterKinds() config.Kinds {
	kinds := maps.Clone(exporters.Kinds())
	kinds["datadog"] = func() any { return &datadog.Config{} }
	return kinds
}

// collectors are what a reload may change of what is read.
func (c *seriesConfig) collectors() *collectors.Config {
	return &collectors.Config{Items: c.Collectors, Neighbours: c.Neighbours, Pipelines: c.Pipelines}
}

// exporters are what it may change of what is pushed; not the service's name.
func (c *seriesConfig) exporters(service string) *exporters.SetConfig {
	return &exporters.SetConfig{Items: c.Exporters, Tags: c.processTags(service)}
}

// series are the parts of the agent that read series, remember them and give them
// away.
type series struct {
	history  *recorder
	readers  *readers
	exporter *exporters.Set
}

func (s *series) components() []agent.Component {
	return []agent.Component{s.history, s.readers, s.exporter}
}

// page serves /metrics.
func (s *series) page(log *slog.Logger) func(*metrics.Registry, *prometheus.Registry) http.Handler {
	return func(reg *metrics.Registry, program *prometheus.Registry) http.Handler {
		return exporters.PrometheusOptions{Log: log, Program: program, Tags: s.exporter.Tags}.Handler(reg)
	}
}

// newSeries makes them. They do nothing before they run.
func newSeries(s *settings, reg *metrics.Registry, log *slog.Logger) (*series, error) {
	h, err := history.New(history.Options{Budget: int64(s.series.History.MaxBytes), Keep: s.series.History.Keep, Metrics: reg})
	if err != nil {
		return nil, err
	}
	set, err := collectors.New(collectors.Options{
		Config: *s.series.collectors(), Registry: reg, Observe: h.Observe, Log: log, Now: time.Now,
	})
	if err != nil {
		return nil, err
	}
	push, err := exporters.NewSet(exporters.SetOptions{
		SetConfig: *s.series.exporters(s.Service), UserAgent: "outrider/" + version, Registry: reg, Log: log,
		Feeds: func() []exporters.Feed { return feeds(reg, set) },
	})
	if err != nil {
		return nil, err
	}
	return &series{history: &recorder{h, reg}, readers: newReaders(set, log), exporter: push}, nil
}

// feeds are the sources of all series there are.
func feeds(reg *metrics.Registry, set *collectors.Set) []exporters.Feed {
	out := []exporters.Feed{{Source: gatherer(reg.Instruments), FromZero: true}}
	for _, src := range set.Sources() {
		switch {
		case src.FromZero:
			out = append(out, exporters.Feed{Source: src, FromZero: true, Verbatim: true})
		case src.Neighbour:
			out = append(out, exporters.Feed{Source: src, Tags: map[string]string{"service": src.Name}})
		default:
			out = append(out, exporters.Feed{Source: src})
		}
	}
	return out
}

// processTags are those of everything that this process measures: what the file
// says, and where it says nothing what Datadog's variables do.
func (c *seriesConfig) processTags(service string) map[string]string {
	tags := map[string]string{"service": service}
	for tag, variable := range map[string]string{"env": "DD_ENV", "version": "DD_VERSION"} {
		if v := os.Getenv(variable); v != "" {
			tags[tag] = v
		}
	}
	maps.Copy(tags, c.Tags)
	return tags
}

// A gatherer is a function that is a [exporters.Source].
type gatherer func() []metrics.Family

func (g gatherer) Gather() []metrics.Family { return g() }

// recorder remembers the agent's own series, once a second.
type recorder struct {
	history *history.History
	reg     *metrics.Registry
}

func (r *recorder) Name() string { return "history" }

func (r *recorder) Run(ctx context.Context) error {
	defer r.history.Close()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			r.history.Observe(now, "", r.reg.Instruments())
		}
	}
}
