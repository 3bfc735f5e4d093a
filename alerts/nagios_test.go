package alerts

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// renderedForNagios is the one file of rules in testdata.
func renderedForNagios(t *testing.T, files ...string) string {
	t.Helper()
	set, err := Load(&Set{}, files...)
	if err != nil {
		t.Fatal(err)
	}
	return nagiosFileOf(t, set)
}

func nagiosFileOf(t *testing.T, set *Set) string {
	t.Helper()
	files, err := renderNagios(set, catalogue.Own())
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || files[0].Path != "outrider-rules.cfg" {
		t.Fatalf("got %d files, want outrider-rules.cfg alone", len(files))
	}
	return string(files[0].Data)
}

// TestNagiosRendersEveryFunction has a table of rules in testdata, over all functions,
// aggregates and ranges.
func TestNagiosRendersEveryFunction(t *testing.T) {
	t.Parallel()
	const golden = "testdata/nagios.cfg"
	got := renderedForNagios(t, "testdata/nagios-rules.yaml")
	if f := flag.Lookup("update"); f != nil && f.Value.String() == "true" {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: -want +got:\n%s", golden, diff)
	}
	if again := renderedForNagios(t, "testdata/nagios-rules.yaml"); again != got {
		t.Error("rendered again it is another file")
	}
	funcs := map[rule.Func]bool{}
	set, err := Load(&Set{}, "testdata/nagios-rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range set.Rules {
		funcs[r.Rule(r.Name).Func] = true
	}
	if len(funcs) != 7 {
		t.Errorf("testdata/nagios-rules.yaml has %d functions, want all 7", len(funcs))
	}
}

// TestNagiosSaysWhatARuleSays reads the ranges, the attempts and the texts of every rule
// that ships out of what was rendered.
func TestNagiosSaysWhatARuleSays(t *testing.T) {
	t.Parallel()
	set, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	services := map[string]map[string]string{}
	for block := range strings.SplitSeq(nagiosFileOf(t, set), "define ") {
		if kind, body, _ := strings.Cut(block, " {\n"); kind == "service" {
			o := map[string]string{}
			for line := range strings.Lines(body) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
				o[key] = strings.TrimSpace(value)
			}
			services[o["service_description"]] = o
		}
	}
	for _, r := range set.For(Nagios) {
		o, is := services["outrider-alert-"+r.Name], r.Rule(r.Name)
		args := strings.Split(o["check_command"], "!")
		if len(args) != 6 || args[0] != "check_outrider_rule" || args[1] != "alert/"+r.Name {
			t.Errorf("%s: got the command %s, want check_outrider_rule with five arguments", r.Name, o["check_command"])
			continue
		}
		for i, want := range []*nagios.Range{is.Warn, is.Crit, is.WarnClear, is.CritClear} {
			var got *nagios.Range
			if args[i+2] != "" {
				read, err := nagios.ParseRange(args[i+2])
				if err != nil {
					t.Errorf("%s: %v", r.Name, err)
				}
				got = &read
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: argument %d: -want +got:\n%s", r.Name, i+2, diff)
			}
		}
		if o["notes_url"] != r.Runbook || !strings.HasPrefix(o["notes"], nagiosText(r.Summary)) || o["_EVIDENCE"] == "" {
			t.Errorf("%s: got notes %q, %s and evidence %q", r.Name, o["notes"], o["notes_url"], o["_EVIDENCE"])
		}
	}
}

func TestNagiosAttempts(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]int{
		0: 1, time.Second: 2, 59 * time.Second: 2, time.Minute: 2, 61 * time.Second: 3, 5 * time.Minute: 6, time.Hour: 61,
	} {
		if got := nagiosAttempts(d); got != want {
			t.Errorf("for %v: got %d attempts, want %d", d, got, want)
		}
	}
}

func TestNagiosTexts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"one; two":                     `one\; two`,
		`a neighbour's "patience"`:     `a neighbour’s patience`,
		"costs $5, `id`, a\\b & c < d": `costs _5, id, a/b + c ( d`,
	} {
		if got := nagiosText(text); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	if got, want := nagiosURL("https://wiki.example/a;b?c=$d&e=1"), `https://wiki.example/a\;b?c=%24d&e=1`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := nagiosGroups("a, b", "b", "c,a"), "a,b,c"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNagiosRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	const rules = `
owners:
  - name: shop
    nagios: {page: GROUP, email: shop-mail}
    datadog: {page: p, email: e}
    alertmanager: {page: p, email: e}
rules:
  - {name: orders, category: email, owner: shop, summary: s, impact: i, evidence: e, series: shop_orders, crit: "10", ONLY}
`
	for _, tt := range []struct{ name, group, only, want string }{
		{"a contact group of a name that is none", "shop=page", "only: [agent, nagios]", `rule orders: owner shop: nagios.page: got "shop=page", want names of contact groups`},
		{"a contact group that would be taken away", `"null"`, "only: []", `rule orders: owner shop: nagios.page: got "null"`},
		{"a rule that the agent does not evaluate", "shop-page", "only: [nagios]", "rule orders: only: got nagios, want agent as well"},
	} {
		path := filepath.Join(t.TempDir(), "rules.yaml")
		if err := os.WriteFile(path, []byte(strings.NewReplacer("GROUP", tt.group, "ONLY", tt.only).Replace(rules)), 0o600); err != nil {
			t.Fatal(err)
		}
		set, err := Load(&Set{}, path)
		if err != nil {
			t.Fatal(err)
		}
		if files, err := renderNagios(set, catalogue.Own()); err == nil || !strings.Contains(err.Error(), tt.want) || files != nil {
			t.Errorf("%s: got %d files and %v, want %s", tt.name, len(files), err, tt.want)
		}
	}
}
