package alerts

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const generated = "../../alerts/generated/prometheus"

// ruleFiles are files of rules with what they find in series. Read-only.
var ruleFiles = map[string]struct{ rules, cases string }{
	"those that ship":    {generated + "/outrider.rules.yaml", "../../alerts/testdata/cases.yaml"},
	"over all functions": {"../../alerts/testdata/prometheus_outrider.rules.yaml", "../../alerts/testdata/prometheus_cases.yaml"},
}

// An alertRule is one of a file.
type alertRule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

// level is which of a rule's alerts it is: critical, warning or absent.
func (r alertRule) level() string {
	if strings.HasSuffix(r.Alert, "Absent") && witness.MatchString(r.Expr) {
		return "absent"
	}
	return r.Labels["severity"]
}

// witness is how the expression of an Absent alert begins. Read-only.
var witness = regexp.MustCompile(`^group by \(job, instance\) \((\w+)\)\nunless `)

type group struct {
	Name  string
	Rules []alertRule
}

// A scene is series, and what a rule finds in them.
type scene struct {
	Rule, Name string
	At         int    // minute
	Is         string // fail, warn, pass or absent
	Series     map[string]string
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	if err := yaml.Unmarshal(readFile(t, path), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func readRules(t *testing.T, path string) []alertRule {
	t.Helper()
	var file struct{ Groups []group }
	readYAML(t, path, &file)
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) == 0 {
		t.Fatalf("%s: got %d groups, want one, with rules", path, len(file.Groups))
	}
	return file.Groups[0].Rules
}

func TestPromtoolFindsNothingWrong(t *testing.T) {
	promtool := need(t, "alerts/usr/bin/promtool")
	for name, files := range ruleFiles {
		t.Run(name, func(t *testing.T) {
			n := len(readRules(t, files.rules))
			got := run(t, promtool, "check", "rules", "--lint-fatal", files.rules)
			if want := fmt.Sprintf("Checking %s\n  SUCCESS: %d rules found\n\n", files.rules, n); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	broken := write(t, "broken.yaml", []byte("groups: [{name: a, rules: [{alert: A, expr: 'up =='}]}]\n"))
	if out, ok := try(t, promtool, "check", "rules", broken); ok {
		t.Errorf("a rule that is none: got %s, want an error", out)
	}
}

func TestTheManifestHasTheSameGroup(t *testing.T) {
	var file, resource map[string]any
	readYAML(t, generated+"/outrider.rules.yaml", &file)
	readYAML(t, generated+"/prometheusrule.yaml", &resource)
	if got := resource["spec"]; !reflect.DeepEqual(got, any(file)) {
		t.Errorf("spec: got %v, want %v", got, file)
	}
	if resource["apiVersion"] != "monitoring.coreos.com/v1" || resource["kind"] != "PrometheusRule" {
		t.Errorf("got %v %v, want monitoring.coreos.com/v1 PrometheusRule", resource["apiVersion"], resource["kind"])
	}
}

// Each alert fires in one case and is silent in another; where a rule is not tested
// for one of them, that is a failure.
func TestEachRuleFiresAndStaysSilent(t *testing.T) {
	for name, files := range ruleFiles {
		t.Run(name, func(t *testing.T) {
			scenes, rules := readScenes(t, files.cases), readRules(t, files.rules)
			if name == "those that ship" {
				for _, missing := range untested(rules, scenes) {
					t.Error(missing)
				}
			}
			byRule := map[string][]scene{}
			for _, s := range scenes {
				byRule[s.Rule] = append(byRule[s.Rule], s)
			}
			for rule, scenes := range byRule {
				t.Run(rule, func(t *testing.T) {
					var tests []any
					for _, s := range scenes {
						tests = append(tests, s.test(t, rules))
					}
					promtoolTest(t, files.rules, tests...)
				})
			}
		})
	}
}

func readScenes(t *testing.T, path string) []scene {
	t.Helper()
	var file struct{ Cases []scene }
	readYAML(t, path, &file)
	return file.Cases
}

// untested are alerts for which there is no scene in which they fire, or none in which
// they are silent. An Absent alert that is silent because there is no witness does not
// count as such.
func untested(rules []alertRule, scenes []scene) (out []string) {
	known := map[string]bool{}
	for _, r := range rules {
		if r.Alert == "OutriderUnreachable" { // it has a test of its own
			continue
		}
		known[r.Labels["rule"]] = true
		var fires, silent bool
		for _, s := range scenes {
			if s.Rule != r.Labels["rule"] {
				continue
			}
			is := map[string]string{"fail": "critical", "warn": "warning", "absent": "absent"}[s.Is]
			fires = fires || is == r.level()
			m := witness.FindStringSubmatch(r.Expr)
			silent = silent || is != r.level() && (is != "critical" || r.level() != "warning") && (m == nil || s.has(m[1]))
		}
		if !fires {
			out = append(out, fmt.Sprintf("%s %s: got no case in which it fires", r.Alert, r.level()))
		}
		if !silent {
			out = append(out, fmt.Sprintf("%s %s: got no case in which it is silent", r.Alert, r.level()))
		}
	}
	for _, s := range scenes {
		if !known[s.Rule] {
			out = append(out, fmt.Sprintf("case %s: %s: got a rule that is not there", s.Rule, s.Name))
		}
	}
	return out
}

func TestUntestedRulesAreFound(t *testing.T) {
	of := func(alert, severity, expr string) alertRule {
		return alertRule{Alert: alert, Expr: expr, Labels: map[string]string{"rule": "r", "severity": severity}}
	}
	rules := []alertRule{of("R", "critical", "x > 2"), of("R", "warning", "x > 1"), of("RAbsent", "warning", "group by (job, instance) (w)\nunless on (job, instance)\nx")}
	fail, warn, absent := scene{Rule: "r", Is: "fail"}, scene{Rule: "r", Is: "warn", Series: map[string]string{"w{a=\"b\"}": "1"}}, scene{Rule: "r", Is: "absent"}
	for name, tt := range map[string]struct {
		scenes []scene
		want   []string
	}{
		"none":                {nil, []string{"R critical: got no case in which it fires", "R critical: got no case in which it is silent", "R warning: got no case in which it fires", "R warning: got no case in which it is silent", "RAbsent absent: got no case in which it fires", "RAbsent absent: got no case in which it is silent"}},
		"one":                 {[]scene{fail}, []string{"R critical: got no case in which it is silent", "R warning: got no case in which it fires", "R warning: got no case in which it is silent", "RAbsent absent: got no case in which it fires", "RAbsent absent: got no case in which it is silent"}},
		"all but the witness": {[]scene{fail, {Rule: "r", Is: "warn"}, absent}, []string{"RAbsent absent: got no case in which it is silent"}},
		"of another rule":     {[]scene{fail, warn, absent, {Rule: "s", Name: "n"}}, []string{"case s: n: got a rule that is not there"}},
		"all":                 {[]scene{fail, warn, absent}, nil},
	} {
		if got := untested(rules, tt.scenes); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

// has reports whether there is a series of a name.
func (s scene) has(name string) bool {
	for series := range s.Series {
		if before, _, _ := strings.Cut(series, "{"); before == name {
			return true
		}
	}
	return false
}

// test is what promtool is to find: which alerts of the rule fire.
func (s scene) test(t *testing.T, rules []alertRule) map[string]any {
	t.Helper()
	i := slices.IndexFunc(rules, func(r alertRule) bool { return r.Labels["rule"] == s.Rule && r.level() != "absent" })
	if i < 0 {
		t.Fatalf("case %s: got no rule %s", s.Name, s.Rule)
	}
	name := rules[i].Alert
	firing := func(name, severity string) string {
		return fmt.Sprintf(`(count(ALERTS{alertname=%q,severity=%q,alertstate="firing"}) or vector(0)) > bool 0`, name, severity)
	}
	want := []any{
		s.sample(firing(name, "critical"), s.Is == "fail"),
		s.sample(firing(name+"Absent", "warning"), s.Is == "absent"),
	}
	if s.Is != "fail" { // then Alertmanager keeps the warning quiet
		want = append(want, s.sample(firing(name, "warning"), s.Is == "warn"))
	}
	test := testOf(s.Series)
	test["name"], test["promql_expr_test"] = s.Name, want
	return test
}

// sample is the test that an expression is 1 or 0.
func (s scene) sample(expr string, is bool) map[string]any {
	value := 0
	if is {
		value = 1
	}
	return map[string]any{
		"expr": expr, "eval_time": fmt.Sprintf("%dm", s.At), "exp_samples": []any{map[string]any{"labels": "{}", "value": value}},
	}
}

// testOf is a test of promtool with series of one agent, a sample a minute.
func testOf(series map[string]string) map[string]any {
	var input []any
	for name, values := range series {
		input = append(input, map[string]any{"series": ofAgent(name), "values": values})
	}
	return map[string]any{"interval": "1m", "input_series": input}
}

// promtoolTest runs tests of the rules of a file.
func promtoolTest(t *testing.T, file string, tests ...any) {
	t.Helper()
	promtool := need(t, "alerts/usr/bin/promtool")
	file, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := yaml.Marshal(map[string]any{"rule_files": []string{file}, "evaluation_interval": "1m", "tests": tests})
	if err != nil {
		t.Fatal(err)
	}
	if out, ok := try(t, promtool, "test", "rules", write(t, "test.yaml", data)); !ok {
		t.Error(out)
	}
}

// ofAgent adds the labels that Prometheus does when it scrapes an agent.
func ofAgent(series string) string {
	name, tags, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	if tags != "" {
		tags = "," + tags
	}
	return name + `{job="outrider",instance="app1:9610"` + tags + "}"
}

// Of the agent's job alone, and only of what was an agent; for as long as it is away.
func TestAnAgentThatCannotBeScraped(t *testing.T) {
	const was = "outrider_config_reload_successful"
	up := func(name, values string, at int, fires bool, more map[string]string) map[string]any {
		more["up"] = values
		test := testOf(more)
		s := scene{At: at}
		test["name"] = name
		test["promql_expr_test"] = []any{s.sample(`(count(ALERTS{alertname="OutriderUnreachable",alertstate="firing"}) or vector(0)) > bool 0`, fires)}
		return test
	}
	promtoolTest(t, generated+"/outrider.rules.yaml",
		up("away for three minutes", "1+0x9 0+0x300", 13, true, map[string]string{was: "1+0x9 stale"}),
		up("a restart", "1+0x9 0 1+0x300", 12, false, map[string]string{was: "1+0x9 stale 1+0x300"}),
		up("away for hours", "1+0x9 0+0x300", 250, true, map[string]string{was: "1+0x9 stale"}),
		up("it is back", "1+0x9 0+0x90 1+0x300", 110, false, map[string]string{was: "1+0x9 stale _x90 1+0x300"}),
		up("it is there", "1+0x300", 20, false, map[string]string{was: "1+0x300"}),
		up("it never was an agent", "0+0x300", 20, false, map[string]string{}),
	)
}

// What people read, and what Alertmanager routes by.
func TestWhatAnAlertSays(t *testing.T) {
	test := testOf(map[string]string{
		`outrider_ledger_used_ratio`: "0.97+0x20", `outrider_stream_objects{stream="pods"}`: "1+0x20",
		`outrider_pipeline_drops_total{service="shop",pipeline="orders",unit="items",reason="full"}`: "0+300x20",
	})
	rules := readRules(t, generated+"/outrider.rules.yaml")
	said := func(alert, summary string, labels map[string]string) any {
		labels["job"], labels["instance"] = "outrider", "app1:9610"
		i := slices.IndexFunc(rules, func(r alertRule) bool { return r.Alert == alert })
		annotations := maps.Clone(rules[i].Annotations)
		annotations["summary"] = summary
		if !strings.HasSuffix(annotations["runbook_url"], "/docs/runbooks/"+labels["rule"]+".md") {
			t.Errorf("%s: got the runbook %s, want that of %s", alert, annotations["runbook_url"], labels["rule"])
		}
		return map[string]any{"exp_labels": labels, "exp_annotations": annotations}
	}
	const ledger, drops = "OutriderLedgerSpace", "OutriderPipelineDrops"
	test["alert_rule_test"] = []any{
		map[string]any{"alertname": ledger, "eval_time": "10m", "exp_alerts": []any{
			said(ledger, "app1:9610: The ledger is nearly full: 0.97", map[string]string{
				"severity": "critical", "category": "page", "owner": "platform", "rule": "ledger-space",
			}),
			said(ledger, "app1:9610: The ledger is nearly full: 0.97", map[string]string{
				"severity": "warning", "category": "email", "owner": "platform", "rule": "ledger-space",
			}),
		}},
		map[string]any{"alertname": drops, "eval_time": "10m", "exp_alerts": []any{
			said(drops, "app1:9610: A pipeline gives up work: 5 items a second, service shop, pipeline orders, reason full", map[string]string{
				"severity": "critical", "category": "email", "owner": "platform", "rule": "pipeline-drops",
				"service": "shop", "pipeline": "orders", "reason": "full",
			}),
		}},
	}
	promtoolTest(t, generated+"/outrider.rules.yaml", test)
}

// toldOf is who is told of which alert, and whether a worse one keeps it quiet. Read-only.
var toldOf = []struct {
	labels    string
	receiver  string
	inhibited bool
}{
	{"alertname=OutriderSinkFailing severity=critical category=page owner=platform sink=a", "platform-page", false},
	{"alertname=OutriderSinkFailing severity=warning category=email owner=platform sink=a", "platform-email", true},
	{"alertname=OutriderSinkFailing severity=warning category=email owner=platform sink=b", "platform-email", false},
	{"alertname=OutriderSinkDetached severity=warning category=email owner=platform sink=a", "platform-email", false},
	{"alertname=OutriderUnreachable severity=critical category=page owner=platform", "platform-page", false},
	{"alertname=OutriderShop severity=critical category=page owner=nobody", "default", false},
	{"alertname=Other severity=warning category=page owner=platform", "default", false},
}

const target = "job=outrider instance=app1:9610"

func TestAlertmanagerRoutes(t *testing.T) {
	amtool := need(t, "alerts/usr/bin/amtool")
	config := generated + "/alertmanager.yaml"
	for _, path := range []string{config, "../../alerts/testdata/prometheus_alertmanager.yaml"} {
		if out := run(t, amtool, "check-config", path); !strings.Contains(out, "SUCCESS") {
			t.Errorf("%s: got %s, want SUCCESS", path, out)
		}
	}
	for _, a := range toldOf {
		args := append([]string{"config", "routes", "test", "--config.file=" + config}, strings.Fields(a.labels+" "+target)...)
		if got := strings.Fields(run(t, amtool, args...)); len(got) == 0 || got[len(got)-1] != a.receiver { // after warnings
			t.Errorf("%s: got %q, want %s", a.labels, got, a.receiver)
		}
	}
}

// Debian's Alertmanager wants its templates in /usr/share, where install.sh puts
// nothing. So it sees a folder that has both.
const withTemplates = `mount -t overlay overlay -o "lowerdir=$0:/usr/share" /usr/share && exec "$@"`

func TestAlertmanagerInhibits(t *testing.T) {
	manager, amtool := need(t, "alerts/usr/bin/prometheus-alertmanager"), need(t, "alerts/usr/bin/amtool")
	share := need(t, "alerts/usr/share")
	if out, ok := try(t, "unshare", "-rm", "sh", "-c", withTemplates, share, "true"); !ok {
		t.Skipf("got no mount of one's own, which Alertmanager needs to find its templates: %s", out)
	}
	config := write(t, "alertmanager.yaml", readFile(t, generated+"/alertmanager.yaml"))
	address := boardAddress(t)
	boardStart(t, t.TempDir(), "unshare", "-rm", "sh", "-c", withTemplates, share, manager,
		"--config.file="+config, "--storage.path="+t.TempDir(), "--web.listen-address="+address, "--cluster.listen-address=")
	boardWait(t, "Alertmanager", func() bool { _, err := boardGet(t, "http://"+address+"/-/ready"); return err == nil })
	for _, a := range toldOf {
		args := append([]string{"--alertmanager.url=http://" + address, "alert", "add"}, strings.Fields(a.labels+" "+target)...)
		run(t, amtool, args...)
	}
	wrong := ""
	if !boardBecomes(t, 20*time.Second, func() bool { wrong = notToldOf(t, address); return wrong == "" }) {
		t.Error(wrong)
	}
}

// notToldOf says what Alertmanager has otherwise than toldOf.
func notToldOf(t *testing.T, address string) string {
	t.Helper()
	var found []struct {
		Labels map[string]string
		Status struct{ InhibitedBy []string }
	}
	data, err := boardGet(t, "http://"+address+"/api/v2/alerts")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &found); err != nil {
		t.Fatal(err)
	}
	for _, a := range toldOf {
		want := map[string]string{}
		for field := range strings.FieldsSeq(a.labels + " " + target) {
			name, value, _ := strings.Cut(field, "=")
			want[name] = value
		}
		is := 0
		for _, f := range found {
			if maps.Equal(f.Labels, want) && (len(f.Status.InhibitedBy) > 0) == a.inhibited {
				is++
			}
		}
		if is != 1 {
			return fmt.Sprintf("got %s, want %s inhibited: %t", data, a.labels, a.inhibited)
		}
	}
	return ""
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
