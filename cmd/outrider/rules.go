package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/alerts"
	"github.com/outrider-agent/outrider/checks"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

const (
	alertsSection = "alerts"
	alertPrefix   = "alert/" // of the checks that rules are
)

// alertsConfig says which rules of alerts the agent evaluates. Without the section it
// evaluates none.
type alertsConfig struct {
	Rules   []config.Path `yaml:"rules"`                  // files of rules of one's own
	Shipped bool          `yaml:"shipped" default:"true"` // those that ship, too
	Without []string      `yaml:"without"`                // names of those that are left out
	Every   time.Duration `yaml:"every" default:"10s"`
}

// Validate is asked when the configuration is read.
func (c *alertsConfig) Validate() error {
	if c.Every < time.Second || c.Every > time.Hour {
		return &config.FieldError{Key: "every", Got: c.Every.String(), Want: "1s to 1h"}
	}
	return nil
}

// rules reads what the section names.
func (c *alertsConfig) rules() ([]alerts.Rule, error) {
	paths := make([]string, len(c.Rules))
	for i, p := range c.Rules {
		paths[i] = string(p)
	}
	set, err := loadRules(c.Shipped, paths)
	if err != nil {
		return nil, err
	}
	rules := set.For(alerts.Agent)
	for i, name := range c.Without {
		n := len(rules)
		if rules = slices.DeleteFunc(rules, func(r alerts.Rule) bool { return r.Name == name }); len(rules) == n {
			return nil, fmt.Errorf("without[%d]: got %s, want the name of a rule: %s", i, name, ruleNames(rules))
		}
	}
	return rules, nil
}

// loadRules reads files of rules, and checks them. The owners that ship may be those of
// other rules.
func loadRules(withShipped bool, paths []string) (*alerts.Set, error) {
	shipped, err := alerts.Shipped()
	if err != nil {
		return nil, err
	}
	if !withShipped {
		shipped.Rules = nil
	}
	set, err := alerts.Load(shipped, paths...)
	if err != nil {
		return nil, err
	}
	return set, alerts.Lint(set, catalogue.Own())
}

func ruleNames(rules []alerts.Rule) string {
	var names []string
	for _, r := range rules {
		names = append(names, r.Name)
	}
	return strings.Join(names, ", ")
}

// alertItems are rules as checks: alert/NAME.
func (s *settings) alertItems() (out []checks.Item) {
	for _, r := range s.rules {
		out = append(out, checks.Item{
			Item:     config.Item{Name: alertPrefix + r.Name, Kind: "alert", Config: &checks.AlertConfig{Spec: r.Spec, Witness: r.Witness}},
			Category: r.Category, Every: s.alerts.Every, FailAfter: 1, PassAfter: 1, Runbook: r.Runbook,
		})
	}
	return out
}

// checkRules reads the rules that the configuration names.
func (s *settings) checkRules() (err error) {
	if !s.Has(alertsSection) {
		return nil
	}
	if s.rules, err = s.alerts.rules(); err != nil {
		return fmt.Errorf("alerts: %w", err)
	}
	for _, r := range s.rules {
		if reach := r.Rule(r.Name).Reach(); reach > s.series.History.Keep {
			return fmt.Errorf("alerts: rule %s reads the last %s, want history.keep to be as much: it is %s", r.Name, reach, s.series.History.Keep)
		}
	}
	return nil
}
