package alerts

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// How a rule becomes alert rules of Prometheus.
//
// Each level is one alert rule; both have the same name, and Alertmanager keeps the
// warning quiet while the critical one fires. An alert has the labels job and instance
// beside those of the series: the agent judges its own series only, and Prometheus has
// those of all agents.
//
// Prometheus knows no recovery values. An alert that fires goes on for as long as the
// figure is outside of these, which the series ALERTS tells: Prometheus writes it at
// each evaluation, and the next one reads it.

// promHeader says what scrape configurations the rules need.
const promHeader = `# Outrider's alerts for Prometheus 2.42 and newer. Made by "outrider alerts render":
# change the rules, not this file.
#
# They need a job that scrapes the agents, and one for each neighbour's page. The
# instance is the same in all jobs of an agent, the label neighbour says whose page it
# is, and honor_labels stays false:
#
#   scrape_configs:
#     - job_name: outrider
#       static_configs: [{targets: ["app1:9610"]}]
#     - job_name: outrider-shop
#       metrics_path: /metrics/neighbour/shop
#       static_configs: [{targets: ["app1:9610"], labels: {neighbour: shop}}]
#
# Recovery values read the series ALERTS: a label that is added to a rule here has to
# be added to its ignoring (...) too, and rules are evaluated every five minutes or
# more often.
`

const promManifest = `# Outrider's alerts for the Prometheus operator, made by "outrider alerts render": the
# same as outrider.rules.yaml, which says what they need. Add the labels that your
# Prometheus' ruleSelector wants.
`

type (
	promFile struct {
		Groups []promGroup `yaml:"groups"`
	}
	promGroup struct {
		Name  string     `yaml:"name"`
		Rules []promRule `yaml:"rules"`
	}
	promRule struct {
		Alert         string          `yaml:"alert"`
		Expr          string          `yaml:"expr"`
		For           string          `yaml:"for,omitempty"`
		KeepFiringFor string          `yaml:"keep_firing_for,omitempty"`
		Labels        promLabels      `yaml:"labels"`
		Annotations   promAnnotations `yaml:"annotations"`
	}
	promLabels struct {
		Severity string           `yaml:"severity"` // critical or warning
		Category verdict.Category `yaml:"category"`
		Owner    string           `yaml:"owner,omitempty"`
		Rule     string           `yaml:"rule"`
	}
	promAnnotations struct {
		Summary     string `yaml:"summary"`
		Description string `yaml:"description"`
		RunbookURL  string `yaml:"runbook_url,omitempty"`
		Evidence    string `yaml:"evidence"`
	}
	promResource struct {
		APIVersion string       `yaml:"apiVersion"`
		Kind       string       `yaml:"kind"`
		Metadata   promMetadata `yaml:"metadata"`
		Spec       promFile     `yaml:"spec"`
	}
	promMetadata struct {
		Name string `yaml:"name"`
	}
)

const (
	promCritical = "critical"
	promWarning  = "warning"
)

// promReserved are the labels that alerts have of their own. Read-only.
var promReserved = []string{"alertname", "alertstate", "severity", "category", "owner", "rule"}

func renderPrometheus(set *Set, own catalogue.Catalogue) ([]File, error) {
	beside, err := newCompanions()
	if err != nil {
		return nil, err
	}
	group := promGroup{Name: "outrider"}
	tags := map[string]bool{}      // of all alerts
	alertOf := map[string]string{} // rules by their alerts' names
	var errs []error
	for _, r := range set.For(Prometheus) {
		rules, labels, err := promRules(r, own, beside)
		if err != nil {
			errs = append(errs, fmt.Errorf("rule %s: %w", r.Name, err))
			continue
		}
		for _, rule := range rules {
			if other, ok := alertOf[rule.Alert]; ok && other != r.Name {
				errs = append(errs, fmt.Errorf("rule %s: name: got the alert %s, which rule %s has too, want a name of its own", r.Name, rule.Alert, other))
			}
			alertOf[rule.Alert] = r.Name
		}
		for _, name := range labels {
			tags[name] = true
		}
		group.Rules = append(group.Rules, rules...)
	}
	if other, ok := alertOf[promUnreachable]; ok {
		errs = append(errs, fmt.Errorf("rule %s: name: got the alert %s, which tells of agents, want another name", other, promUnreachable))
	}
	unreachable, err := promAgentRule(set, beside.runbook(set.For(Prometheus), "agent-unreachable"))
	if err = errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	group.Rules = append(group.Rules, unreachable)
	file := promFile{Groups: []promGroup{group}}
	rules, err := promYAML(promHeader, file)
	if err != nil {
		return nil, err
	}
	resource, err := promYAML(promManifest, promResource{
		APIVersion: "monitoring.coreos.com/v1", Kind: "PrometheusRule", Metadata: promMetadata{"outrider"}, Spec: file,
	})
	return []File{
		{"alertmanager.yaml", alertmanagerConfig(set, tags)},
		{"outrider.rules.yaml", rules},
		{"prometheusrule.yaml", resource},
	}, err
}

func promYAML(header string, v any) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(header)
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return out.Bytes(), enc.Close()
}

// promAlert is the name of a rule's alert: OutriderPipelineDrops of pipeline-drops.
func promAlert(name string) string {
	var b strings.Builder
	b.WriteString("Outrider")
	for part := range strings.SplitSeq(name, "-") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

// promDuration writes a duration; empty: none.
func promDuration(d time.Duration) (string, error) {
	switch {
	case d == 0:
		return "", nil
	case d%time.Millisecond != 0:
		return "", fmt.Errorf("got %s, want whole milliseconds: Prometheus knows nothing less", d)
	}
	return model.Duration(d).String(), nil
}
