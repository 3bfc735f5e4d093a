package runner

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/outrider-agent/outrider/metrics"
)

// maxSeries is the series a metric of the checks may have: far more checks
// than one process is asked about.
const maxSeries = 1000

// A figure is a metric that every check has.
type figure struct {
	desc  metrics.Desc
	value func(CheckDigest) float64
}

func figures() []figure {
	all := []figure{
		{metrics.Desc{
			Name: "outrider_check_status", Datadog: "outrider.check.status", Type: metrics.GaugeType, Unit: "status",
			Help: "Verdict on the check, as it counts: 0 pass, 1 warn, 2 fail, 3 unknown. A check in maintenance passes.",
		}, func(c CheckDigest) float64 { return float64(c.Status) }},
		{metrics.Desc{
			Name: "outrider_check_duration_seconds", Datadog: "outrider.check.duration", Type: metrics.GaugeType, Unit: "seconds",
			Help: "How long the last run of the check took; 0 before the first.",
		}, func(c CheckDigest) float64 { return c.TookSeconds }},
		{metrics.Desc{
			Name: "outrider_check_busy_seconds_total", Datadog: "outrider.check.busy", Type: metrics.CounterType, Unit: "seconds",
			Help: "How long the runs of the check took, all together: its rate is the share of the time that it runs.",
		}, func(c CheckDigest) float64 { return c.busy.Seconds() }},
		{metrics.Desc{
			Name: "outrider_check_runs_total", Datadog: "outrider.check.runs", Type: metrics.CounterType, Unit: "runs",
			Help: "Results of the check so far, those of runs before a restart included.",
		}, func(c CheckDigest) float64 { return float64(c.Runs) }},
		{metrics.Desc{
			Name: "outrider_check_changes_total", Datadog: "outrider.check.changes", Type: metrics.CounterType, Unit: "changes",
			Help: "How often the verdict on the check changed.",
		}, func(c CheckDigest) float64 { return float64(c.Changes) }},
		{metrics.Desc{
			Name: "outrider_check_flapping", Datadog: "outrider.check.flapping", Type: metrics.GaugeType, Unit: "flag",
			Help: "1 while the results of the check jump to and fro, and the worst of them counts.",
		}, func(c CheckDigest) float64 { return oneIf(c.Flapping) }},
		{metrics.Desc{
			Name: "outrider_check_stale", Datadog: "outrider.check.stale", Type: metrics.GaugeType, Unit: "flag",
			Help: "1 while the last result of the check is too old, or its run does not end.",
		}, func(c CheckDigest) float64 { return oneIf(c.Stale) }},
	}
	for i := range all {
		all[i].desc.Tags, all[i].desc.Budget = []string{"check", "category"}, maxSeries
	}
	return all
}

// Metrics registers the metrics of the checks. A registry takes those of one
// runner.
func (r *Runner) Metrics(reg *metrics.Registry) error {
	for _, f := range figures() {
		if err := reg.Func(f.desc, func(yield func(metrics.Point)) { r.points(f, yield) }); err != nil {
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

func (r *Runner) points(f figure, yield func(metrics.Point)) {
	s, now := r.set.Load(), r.now()
	for _, e := range s.entries {
		yield(metrics.Point{
			Tags:  []string{e.check.Name, string(e.check.Category)},
			Value: f.value(r.digest(s, e, now)),
		})
	}
}

// renderSeries writes the metrics of the digest's checks as OpenMetrics 1.0 or, not
// open, as Prometheus' text format 0.0.4. Who may not see more gets the status only.
// Names and categories need no escape.
func renderSeries(d Digest, full, open bool) []byte {
	var b bytes.Buffer
	for _, f := range figures() {
		name, family := f.desc.Name, f.desc.Name
		if open {
			family = strings.TrimSuffix(name, "_total")
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", family, f.desc.Help, family, f.desc.Type)
		for _, c := range d.Checks {
			fmt.Fprintf(&b, "%s{check=%q,category=%q} %s\n", name, c.Name, c.Category, strconv.FormatFloat(f.value(c), 'g', -1, 64))
		}
		if !full {
			break // the first is the status
		}
	}
	if open {
		b.WriteString("# EOF\n")
	}
	return b.Bytes()
}

func oneIf(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
