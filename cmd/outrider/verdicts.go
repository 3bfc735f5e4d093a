package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks"
	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/history"
	"github.com/outrider-agent/outrider/metrics"
)

// items are the checks, those of alerts' rules and of the neighbours' health after the
// others.
func (s *settings) items() []checks.Item {
	items := append(slices.Clone(s.verdicts), s.alertItems()...)
	for _, n := range s.series.Neighbours {
		if n.Health != "" {
			items = append(items, checks.Item{
				Item:     config.Item{Name: n.Name, Kind: "digest", Config: checks.DigestOf(n.Health)},
				Category: verdict.Page, Every: n.Every, FailAfter: 1, PassAfter: 1,
			})
		}
	}
	return items
}

// loadChecks are the checks of a configuration file that can be run without an agent:
// rules of alerts judge the last hour, of which then nothing is known.
func loadChecks(path string) ([]checks.Item, error) {
	s, err := load(path)
	if err != nil {
		return nil, err
	}
	s.rules = nil
	return s.items(), nil
}

// checkItems finds two checks of one name, and a health that is no address.
func (s *settings) checkItems() error {
	var errs []error
	for i, n := range s.series.Neighbours {
		if n.Health == "" {
			continue
		}
		place := fmt.Sprintf("neighbours[%d].health", i)
		var f *config.FieldError
		switch err := checks.DigestOf(n.Health).Validate(); {
		case errors.As(err, &f):
			errs = append(errs, fmt.Errorf("%s: got %s, want %s", place, f.Got, f.Want))
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", place, err))
		}
		if j := slices.IndexFunc(s.verdicts, func(c checks.Item) bool { return c.Name == n.Name }); j >= 0 {
			errs = append(errs, fmt.Errorf("%s: got %s, whose check goes by its name as %s does, want another name for one of them", place, n.Name, s.verdicts[j].Key))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	set, err := checks.New(checks.Options{Items: s.items(), Log: quiet, Now: time.Now})
	if err != nil {
		return err
	}
	return runner.New(runner.Options{Log: quiet}).Add(set.Checks()...) // a circle of depends_on, say
}

// newVerdicts makes the checks of a configuration. Signs of life come by the control
// socket, the debug listener and DogStatsD.
func newVerdicts(s *settings, reg *metrics.Registry, from *series, living checks.Workloads, log *slog.Logger) (*checks.Set, error) {
	beats := checks.NewHeartbeats(time.Now)
	beats.Listen(from.readers)
	return checks.New(checks.Options{
		Items: s.items(), Series: remembered{from.history.history}, Pipelines: reg.Pipelines, Workloads: living, Heartbeats: beats, Log: log, Now: time.Now,
	})
}

// told are the verdicts as service checks: one a check, and one a category for the
// digest as a whole. They are of the snapshot that the digest shows.
func told(r *runner.Runner) []exporters.Verdict {
	var out []exporters.Verdict
	for _, category := range []verdict.Category{verdict.Page, verdict.Email} {
		d := r.Digest(runner.Query{Category: string(category)})
		tag := exporters.Tag{Name: "category", Value: string(category)}
		out = append(out, exporters.Verdict{Name: "outrider.digest", Status: d.Status, Message: d.Output, Tags: []exporters.Tag{tag}})
		for _, c := range d.Checks {
			if strings.HasPrefix(c.Name, alertPrefix) {
				continue // Datadog has monitors of its own for these
			}
			out = append(out, exporters.Verdict{
				Name: "outrider.check", Status: c.Status, Message: c.Message, Tags: []exporters.Tag{tag, {Name: "check", Value: c.Name}},
			})
		}
	}
	return out
}

// remembered is the history as checks read it.
type remembered struct{ *history.History }

// Select implements [checks.Series].
func (r remembered) Select(source, name string, tags map[string]string) []checks.Samples {
	found := r.History.Select(name, func(s history.Series) bool {
		if source != "" && s.Source != source {
			return false
		}
		for tag, v := range tags {
			if s.Tags[tag] != v {
				return false
			}
		}
		return true
	})
	out := make([]checks.Samples, 0, len(found))
	for _, s := range found {
		out = append(out, kept{s})
	}
	return out
}

// kept are one series of it.
type kept struct{ history.Series }

// Tags implements [checks.Samples].
func (s kept) Tags() map[string]string { return s.Series.Tags }

// Counter implements [checks.Samples].
func (s kept) Counter() bool { return s.Type == metrics.CounterType }
