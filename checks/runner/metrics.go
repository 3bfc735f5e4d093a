package runner

import (
	"fmt"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

// maxSeries is the series a metric of the checks may have: far more checks
// than one process is asked about.
const maxSeries = 1000

// Metrics registers the metrics of the checks. A registry takes those of one
// runner.
func (r *Runner) Metrics(reg *metrics.Registry) error {
	byCheck := []string{"check", "category"}
	perCheck := []struct {
		desc  metrics.Desc
		value func(verdict.State) float64
	}{
		{metrics.Desc{
			Name: "outrider_check_status", Datadog: "outrider.check.status", Type: metrics.GaugeType, Unit: "status",
			Help: "Verdict on the check: 0 pass, 1 warn, 2 fail, 3 unknown.",
		}, func(s verdict.State) float64 { return float64(s.Status) }},
		{metrics.Desc{
			Name: "outrider_check_duration_seconds", Datadog: "outrider.check.duration", Type: metrics.GaugeType, Unit: "seconds",
			Help: "How long the last run of the check took; 0 before the first.",
		}, func(s verdict.State) float64 { return s.Last.Took.Seconds() }},
		{metrics.Desc{
			Name: "outrider_check_runs_total", Datadog: "outrider.check.runs", Type: metrics.CounterType, Unit: "runs",
			Help: "Results of the check so far, those that did not come in time included.",
		}, func(s verdict.State) float64 { return float64(s.Runs) }},
		{metrics.Desc{
			Name: "outrider_check_changes_total", Datadog: "outrider.check.changes", Type: metrics.CounterType, Unit: "changes",
			Help: "How often the verdict on the check changed.",
		}, func(s verdict.State) float64 { return float64(s.Changes) }},
	}
	for _, m := range perCheck {
		m.desc.Tags, m.desc.Budget = byCheck, maxSeries
		if err := reg.Func(m.desc, func(yield func(metrics.Point)) { r.points(r.now(), m.value, yield) }); err != nil {
			return fmt.Errorf("metrics of checks: %w", err)
		}
	}
	err := reg.Func(metrics.Desc{
		Name: "outrider_checks_stuck", Datadog: "outrider.checks.stuck", Type: metrics.GaugeType, Unit: "checks", Budget: 1,
		Help: "Checks past their deadline that have not returned: each holds a goroutine.",
	}, func(yield func(metrics.Point)) { yield(metrics.Point{Value: float64(r.stuck.Load())}) })
	if err != nil {
		return fmt.Errorf("metrics of checks: %w", err)
	}
	return nil
}

func (r *Runner) points(now time.Time, value func(verdict.State) float64, yield func(metrics.Point)) {
	for _, e := range r.set.Load().entries {
		yield(metrics.Point{
			Tags:  []string{e.check.Name, string(e.check.Category)},
			Value: value(e.view(now)),
		})
	}
}
