package alerts

import (
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/metrics/catalogue"
)

func TestTheShippedRulesLoad(t *testing.T) {
	set, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Rules) < 20 {
		t.Errorf("got %d rules, want 20 or more", len(set.Rules))
	}
}

// TestWhatIsRefused are rules that would do harm where they are rendered, or nothing.
func TestWhatIsRefused(t *testing.T) {
	const good = `
owners: [{name: o, nagios: {page: a, email: b}, datadog: {page: "@a", email: "@b"}, alertmanager: {page: a, email: b}}]
rules: [{name: r, category: page, owner: o, summary: s, impact: i, evidence: e, runbook: "https://r.example", series: h_total, rate: 5m, crit: "1"}]`
	if _, err := Parse("good.yaml", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ before, after, want string }{
		"a template in a runbook":         {`"https://r.example"`, `"https://r.example/{{page}}"`, "rules[0].runbook"},
		"a quote in a runbook":            {`"https://r.example"`, `'https://r.example/"'`, "rules[0].runbook"},
		"a template in a summary":         {"summary: s", `summary: "{{ x }}"`, "rules[0].summary"},
		"performance data in a summary":   {"summary: s", `summary: "a | b"`, "rules[0].summary"},
		"two lines":                       {"impact: i", `impact: "a\nb"`, "rules[0].impact"},
		"a separator that YAML knows":     {`page: a`, `page: "a\u2028b"`, "page"},
		"an object in a contact":          {`page: a`, `page: "a;b"`, "page"},
		"an empty value":                  {"rate: 5m", `rate: 5m, match: {queue: ""}`, "rules[0].match"},
		"an empty exception":              {"rate: 5m", `rate: 5m, except: {queue: []}`, "rules[0].except"},
		"a floor that must last in two":   {`rate: 5m, crit: "1"`, `share: {all: a_total, window: 1h, short: 5m}, crit: "0.9:"`, "rules[0].share.short"},
		"a page that says not what to do": {`, runbook: "https://r.example"`, "", "without runbook"},
	} {
		text := strings.Replace(good, tt.before, tt.after, 1)
		if text == good {
			t.Fatalf("%s: BUG: nothing was replaced", name)
		}
		if _, err := Parse("bad.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error at %s", name, err, tt.want)
		}
	}
}

// TestWhoIsToldOfNothing: an owner without contacts is refused by each back end.
func TestWhoIsToldOfNothing(t *testing.T) {
	set, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	set.Owners = []Owner{{Name: "platform"}}
	for _, b := range []Backend{{Datadog, renderDatadog}, {Nagios, renderNagios}} {
		if _, err := Render(set, catalogue.Own(), b); err == nil || !strings.Contains(err.Error(), "platform") {
			t.Errorf("%s: got %v, want an error that names the owner", b.Name, err)
		}
	}
}

// TestExceptions: what a rule leaves out is left out in each back end.
func TestExceptions(t *testing.T) {
	set, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"datadog/pipeline-drops.json":    "outrider.pipeline.drops.count{!reason:filter,!reason:stopped}",
		"prometheus/outrider.rules.yaml": `outrider_pipeline_drops_total{reason!~"filter|stopped"}`,
		"prometheus/prometheusrule.yaml": `outrider_check_status{category="page",check!~"alert/.*"}`,
	} {
		backend, name, _ := strings.Cut(file, "/")
		found := false
		for _, b := range Backends() {
			if b.Name != backend {
				continue
			}
			files, err := b.Render(set, catalogue.Own())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				found = found || f.Path == name && strings.Contains(strings.ReplaceAll(string(f.Data), `\"`, `"`), want)
			}
		}
		if !found {
			t.Errorf("%s: got no %s", file, want)
		}
	}
}
