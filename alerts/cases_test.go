package alerts_test

import (
	"os"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/outrider-agent/outrider/alerts"
	"github.com/outrider-agent/outrider/alerts/alertstest"
	"github.com/outrider-agent/outrider/alerts/rule"
)

// TestEveryRuleFiresAndStaysSilent plays the cases of testdata/cases.yaml through the
// agent's evaluator. Prometheus plays the same ones in e2e/alerts.
func TestEveryRuleFiresAndStaysSilent(t *testing.T) {
	set, err := alerts.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("testdata/cases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			Rule, Name, Is string
			At             int
			Series         map[string]string
		}
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, c := range file.Cases {
		for _, r := range set.Rules {
			if r.Name != c.Rule {
				continue
			}
			t.Run(r.Name+"/"+c.Name, func(t *testing.T) {
				is := r.Rule(r.Name)
				var s rule.State
				var out rule.Outcome
				in := alertstest.Input(t, is, c.Series, time.Minute)
				for i := range c.At + 1 {
					s, out = rule.Next(s, is, in, alertstest.Start.Add(time.Duration(i)*time.Minute))
				}
				got, want := "pass", c.Is
				if worst, ok := out.Worst(is); ok && (worst.Status.String() == "fail" || worst.Status.String() == "warn") {
					got = worst.Status.String()
				}
				if want == "absent" { // which the check says, not the rule
					want = "pass"
				}
				if got != want {
					t.Errorf("got %s, want %s: %+v", got, want, out.Judgements)
				}
			})
			fires[r.Name], silent[r.Name] = fires[r.Name] || c.Is == "fail" || c.Is == "warn", silent[r.Name] || c.Is == "pass"
		}
	}
	for _, r := range set.Rules {
		if !fires[r.Name] || !silent[r.Name] {
			t.Errorf("rule %s: fires in a case: %t, stays silent in one: %t, want both", r.Name, fires[r.Name], silent[r.Name])
		}
	}
}
