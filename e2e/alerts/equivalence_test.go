package alerts

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"

	ours "github.com/outrider-agent/outrider/alerts"
	"github.com/outrider-agent/outrider/alerts/alertstest"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// wanted are the episodes that a back end is to make of a history.
func wanted(h alertstest.History, backend string) []alertstest.Episode {
	if d, differs := h.Differs[backend]; differs {
		return d.Want
	}
	return h.Want
}

// TestPrometheusSeesWhatTheAgentSees plays the histories through real Prometheus, by the
// rules that are rendered for it.
func TestPrometheusSeesWhatTheAgentSees(t *testing.T) {
	promtool := need(t, "alerts/usr/bin/promtool")
	for _, h := range alertstest.Histories(t) {
		t.Run(h.Name, func(t *testing.T) {
			t.Parallel()
			got := promtoolPlays(t, promtool, h)
			if diff := cmp.Diff(wanted(h, ours.Prometheus), got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("episodes (-want +got)\n%s", diff)
			}
		})
	}
}

// firing is what promtool says of a moment: the time, and the severities that fire.
var firing = regexp.MustCompile(`(?s)time: (\S+),\s+exp:.*?\s+got:(.*?)(?:expr:|$)`) // read-only

// promtoolPlays returns the episodes of a history. promtool can only say that a moment
// is not as it was expected to be, so it is always wrongly expected.
func promtoolPlays(t *testing.T, promtool string, h alertstest.History) []alertstest.Episode {
	t.Helper()
	dir := t.TempDir()
	files := renderOne(t, ours.Prometheus, ruleOf(h))
	length := alertstest.Length(t, h.Series)
	type sample struct {
		Labels string
		Value  float64
	}
	type look struct {
		Expr       string
		EvalTime   string   `yaml:"eval_time"`
		ExpSamples []sample `yaml:"exp_samples"`
	}
	var looks []look
	for at := time.Duration(0); at <= length; at += alertstest.Step {
		looks = append(looks, look{`group by (severity) (ALERTS{alertstate="firing"})`, at.String(), []sample{{`{severity="never"}`, 99}}})
	}
	type series struct{ Series, Values string }
	var input []series
	for id, values := range h.Series {
		input = append(input, series{id, values})
	}
	test := map[string]any{
		"rule_files": []string{"rules.yaml"}, "evaluation_interval": alertstest.Step.String(),
		"tests": []any{map[string]any{"interval": alertstest.Step.String(), "input_series": input, "promql_expr_test": looks}},
	}
	text, err := yaml.Marshal(test)
	if err != nil {
		t.Fatal(err)
	}
	place(t, dir, "rules.yaml", files["outrider.rules.yaml"])
	place(t, dir, "test.yaml", text)
	out, ok := try(t, promtool, "test", "rules", filepath.Join(dir, "test.yaml"))
	if ok {
		t.Fatalf("nothing was expected to be so, got %s", out)
	}
	said := firing.FindAllStringSubmatch(out, -1)
	if len(said) != len(looks) {
		t.Fatalf("got %d moments, want %d:\n%s", len(said), len(looks), out)
	}
	levels := make([]string, len(said))
	for i, m := range said {
		switch {
		case strings.Contains(m[2], "critical"):
			levels[i] = "fail"
		case strings.Contains(m[2], "warning"):
			levels[i] = "warn"
		}
	}
	return episodes(levels, alertstest.Step)
}

// episodes makes episodes of the level at each step; empty is none.
func episodes(levels []string, step time.Duration) (out []alertstest.Episode) {
	began := 0
	for i := 1; i <= len(levels); i++ {
		if i < len(levels) && levels[i] == levels[began] {
			continue
		}
		if level := levels[began]; level != "" {
			end := ""
			if i < len(levels) {
				end = alertstest.Short(time.Duration(i) * step)
			}
			out = append(out, alertstest.Episode(fmt.Sprintf("%s %s-%s", level, alertstest.Short(time.Duration(began)*step), end)))
		}
		began = i
	}
	return out
}

// ruleOf is a history's rule with what people need filled in.
func ruleOf(h alertstest.History) ours.Rule {
	return ours.Rule{
		Name: h.Name, Category: verdict.Page, Owner: "platform", Summary: "s", Impact: "i", Evidence: "e",
		Runbook: "https://runbooks.example/" + h.Name, Spec: h.Rule,
	}
}

// renderOne renders one rule for a back end, and returns the files by their name.
func renderOne(t *testing.T, backend string, rules ...ours.Rule) map[string][]byte {
	t.Helper()
	shipped, err := ours.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	shipped.Rules = rules
	for _, b := range ours.Backends() {
		if b.Name != backend {
			continue
		}
		files, err := b.Render(shipped, catalogue.Own())
		if err != nil {
			t.Fatal(err)
		}
		out := map[string][]byte{}
		for _, f := range files {
			out[f.Path] = f.Data
		}
		return out
	}
	t.Fatalf("got no back end %s", backend)
	return nil
}

// place writes a file into a folder.
func place(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}
