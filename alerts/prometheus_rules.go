package alerts

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

const (
	promUnreachable = "OutriderUnreachable"

	// agentSeries is what every agent shows, and nobody else.
	agentSeries = "outrider_config_reload_successful"

	promAbsentFor      = 5 * time.Minute
	promUnreachableFor = 2 * time.Minute
)

// promRules are the alert rules of a rule, and the tags that its alerts have, as far as
// they are known.
func promRules(r Rule, own catalogue.Catalogue, beside companions) (out []promRule, tags []string, err error) {
	q := newPromQuery(r, own)
	if err := q.check(); err != nil {
		return nil, nil, err
	}
	spec := q.rule
	for _, l := range []struct {
		key, severity string
		category      verdict.Category
		alert, clear  *nagios.Range
	}{
		{"crit", promCritical, r.Category, spec.Crit, spec.CritClear},
		{"warn", promWarning, verdict.Email, spec.Warn, spec.WarnClear},
	} {
		if l.alert == nil || never(*l.alert, q.domain) { // Lint says so
			continue
		}
		is := promRule{
			Alert: promAlert(r.Name), Expr: q.level(promAlert(r.Name), l.severity, *l.alert, l.clear),
			Labels: promLabels{l.severity, l.category, r.Owner, r.Name},
			Annotations: promAnnotations{
				Summary: q.summary(r.Summary), Description: r.Impact, RunbookURL: r.Runbook, Evidence: r.Evidence,
			},
		}
		if is.For, err = promDuration(spec.For); err != nil {
			return nil, nil, fmt.Errorf("for: %w", err)
		}
		if is.KeepFiringFor, err = promDuration(spec.KeepFor); err != nil {
			return nil, nil, fmt.Errorf("keep_for: %w", err)
		}
		out = append(out, is)
	}
	// An absence says itself that the series is not there.
	if r.Witness != "" && spec.Func != rule.Absence {
		absent, err := q.absent(r, beside.runbook([]Rule{r}, "series-absent"))
		if err != nil {
			return nil, nil, err
		}
		out = append(out, absent)
	}
	return out, q.shown, nil
}

// absent tells of a series that is not there: of what the value alert judges there is
// nothing then, so only one of the two fires.
func (q *promQuery) absent(r Rule, runbook string) (promRule, error) {
	wait, err := promDuration(promAbsentFor)
	return promRule{
		Alert: promAlert(r.Name) + "Absent",
		Expr:  fmt.Sprintf("group by (job, instance) (%s)\nunless on (%s)\n%s", r.Witness, q.pages(), q.present()),
		For:   wait,
		Labels: promLabels{
			Severity: promWarning, Category: verdict.Email, Owner: r.Owner, Rule: r.Name,
		},
		Annotations: promAnnotations{
			Summary:     fmt.Sprintf("{{ $labels.instance }}: there is %s and no %s", r.Witness, r.Series),
			Description: "A reporting flaw, not a failure: nobody can tell whether the alert " + promAlert(r.Name) + " should fire.",
			RunbookURL:  runbook,
			Evidence:    "default: the one is there whenever the other is",
		},
	}, err
}

// promAgentRule tells of agents that cannot be scraped. It goes on for longer than
// Prometheus remembers that they were agents.
func promAgentRule(set *Set, runbook string) (promRule, error) {
	wait, err := promDuration(promUnreachableFor)
	return promRule{
		Alert: promUnreachable,
		Expr: fmt.Sprintf("up == 0\nand on (job, instance)\n(\n  last_over_time(%s[1h])\n  or ALERTS{alertname=%q,alertstate=\"firing\"}\n)",
			agentSeries, promUnreachable),
		For:    wait,
		Labels: promLabels{Severity: promCritical, Category: verdict.Page, Owner: ownerOfMost(set), Rule: "agent-unreachable"},
		Annotations: promAnnotations{
			Summary:     "{{ $labels.instance }}: the agent cannot be scraped",
			Description: "Nobody knows how what it watches is. The other alerts of this agent are quiet meanwhile.",
			RunbookURL:  runbook,
			Evidence:    "default: a restart is over within two minutes",
		},
	}, err
}

// ownerOfMost is the owner of more rules than any other: who runs the agents.
func ownerOfMost(set *Set) string {
	n := map[string]int{}
	for _, r := range set.Rules {
		n[r.Owner]++
	}
	if len(set.Owners) == 0 {
		return ""
	}
	return slices.MaxFunc(set.Owners, func(a, b Owner) int {
		return cmp.Or(cmp.Compare(n[a.Name], n[b.Name]), cmp.Compare(b.Name, a.Name))
	}).Name
}
