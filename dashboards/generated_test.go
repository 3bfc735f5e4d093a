package dashboards

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/alerts"
	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

var update = flag.Bool("update", false, "write the boards in generated")

// shippedRules are the alert rules that ship, as the command hands them over.
func shippedRules(t *testing.T) ([]string, Rules) {
	t.Helper()
	set, err := alerts.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	rules := map[string]rule.Rule{}
	for _, r := range set.Rules {
		names = append(names, r.Name)
		rules[r.Name] = r.Rule(r.Name)
	}
	return names, func(name string) (rule.Rule, bool) {
		r, found := rules[name]
		return r, found
	}
}

// TestTheBoardsThatShip holds the files in generated to the list of panels, the
// catalogue and the alert rules: with -update they are written.
func TestTheBoardsThatShip(t *testing.T) {
	_, rules := shippedRules(t)
	for _, b := range Backends() {
		files, err := b.Render(Shipped(), catalogue.Own(), rules)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join("generated", b.Name)
		var paths []string
		for _, f := range files {
			path := filepath.Join(dir, f.Path)
			paths = append(paths, path)
			if *update {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, f.Data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(f.Data)); diff != "" {
				t.Errorf("%s is stale, run go test ./dashboards -update (-file +code):\n%s", path, diff)
			}
		}
		there, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(paths, there); diff != "" {
			t.Errorf("files in %s (-rendered +there):\n%s", dir, diff)
		}
	}
}

// TestRulesAreDrawn wants the lines of each rule that a panel names, and each rule
// that ships on a panel: without one, nobody sees what it judged.
func TestRulesAreDrawn(t *testing.T) {
	names, rules := shippedRules(t)
	var drawn []string
	for _, row := range Shipped().Rows {
		for _, p := range row.Panels {
			drawn = append(drawn, p.Rule)
			if p.Rule != "" && len(lines(p, rules)) == 0 {
				t.Errorf("panel %s: rule %s draws no line", p.Title, p.Rule)
			}
		}
	}
	without := []string{
		"check-failing", "check-failing-email", // a status has its own colours
		"dead-letters", "pipeline-throughput", // they judge changes, the panels show levels
		"stream-gap",    // it judges how long ago the last one was
		"series-folded", // its series is there only once something is folded
	}
	for _, name := range names {
		if slices.Contains(drawn, name) == slices.Contains(without, name) {
			t.Errorf("rule %s: on a panel: %t, listed as one that is on none: %t", name, slices.Contains(drawn, name), slices.Contains(without, name))
		}
	}
}
