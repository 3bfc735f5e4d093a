package checks

import (
	"context"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// AlertConfig is a rule of alerts as a check. It is no kind of its own: whoever writes
// a configuration takes a threshold.
//
// A threshold that has nothing to judge is unknown, since somebody asked for it by
// name. A rule of alerts is for every agent, and is well where there is nothing of what
// it is about.
type AlertConfig struct {
	rule.Spec

	// Witness is a series that is there whenever the rule's should be. Where it is and
	// the other is not, that is unknown. Empty: there need not be any.
	Witness string
}

// Build implements [Builder].
func (c *AlertConfig) Build(env Env) (Checker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &alert{threshold: newThreshold(c.Rule(env.Name), env), witness: c.Witness}, nil
}

type alert struct {
	*threshold
	witness string
}

// Check implements [Checker].
func (a *alert) Check(ctx context.Context) verdict.Result {
	r := a.threshold.Check(ctx)
	if r.Status != verdict.Unknown || a.series == nil || ctx.Err() != nil {
		return r
	}
	if a.witness != "" && len(a.series.Select("", a.witness, nil)) > 0 && len(a.series.Select(a.rule.Series.Source, a.rule.Series.Name, nil)) == 0 {
		return r
	}
	r.Status = verdict.Pass // there is nothing to judge, or not yet
	return r
}
