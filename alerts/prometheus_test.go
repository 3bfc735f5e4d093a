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

var updatePrometheus = flag.Bool("update-prometheus", false, "write the golden files of Prometheus")

// What promtool says of the golden files, and of what their rules find in series, is
// tested in e2e/alerts.
func TestPrometheusHasWordsForAllFunctions(t *testing.T) {
	path := filepath.Join("testdata", "prometheus_rules.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set, err := Parse(path, data)
	if err != nil {
		t.Fatal(err)
	}
	if set, err = merge([]*Set{set}); err != nil {
		t.Fatal(err)
	}
	files, err := renderPrometheus(set, catalogue.Own())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Path == "prometheusrule.yaml" { // the same in other words, as e2e/alerts shows
			continue
		}
		golden := filepath.Join("testdata", "prometheus_"+f.Path)
		if *updatePrometheus {
			if err := os.WriteFile(golden, f.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(f.Data)); diff != "" {
			t.Errorf("%s (-update-prometheus writes it) (-want +got)\n%s", golden, diff)
		}
	}
}

func TestPrometheusRefusesWhatItHasNoWordsFor(t *testing.T) {
	ok := Rule{Name: "depth", Category: "email", Owner: "shop", Spec: rule.Spec{Series: "shop_depth", Crit: &nagios.Range{End: 5}}}
	for name, tt := range map[string]struct {
		change func(*Rule)
		want   string
	}{
		"a name with dots":             {func(r *Rule) { r.Series = "shop.depth" }, `rule depth: series: got "shop.depth", want a name of letters`},
		"a tag with dots":              {func(r *Rule) { r.Match = map[string]string{"a.b": "c"} }, `rule depth: by, match or except: got the tag "a.b", want a name of letters`},
		"a window of less than a ms":   {func(r *Rule) { r.Level = time.Microsecond }, "rule depth: window: got 1µs, want whole milliseconds"},
		"waiting for less than a ms":   {func(r *Rule) { r.For = time.Microsecond }, "rule depth: for: got 1µs, want whole milliseconds"},
		"keeping for less than a ms":   {func(r *Rule) { r.KeepFor = time.Microsecond }, "rule depth: keep_for: got 1µs, want whole milliseconds"},
		"the alert of another rule":    {func(r *Rule) { r.Name = "a-b" }, "rule a-b: name: got the alert OutriderAB, which rule a--b has too, want a name of its own"},
		"the alert of another's flaw":  {func(r *Rule) { r.Name = "flaw-absent" }, "rule flaw-absent: name: got the alert OutriderFlawAbsent, which rule flaw has too"},
		"the alert that is for agents": {func(r *Rule) { r.Name = "unreachable" }, "rule unreachable: name: got the alert OutriderUnreachable, which tells of agents"},
	} {
		t.Run(name, func(t *testing.T) {
			r, other, flaw := ok, ok, ok
			tt.change(&r)
			other.Name, flaw.Name, flaw.Witness = "a--b", "flaw", "shop_up"
			set := &Set{Rules: []Rule{flaw, other, r}, Owners: []Owner{{Name: "shop"}}}
			_, err := renderPrometheus(set, catalogue.Own())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestPrometheusNumbersAreReadBackExactly(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.1: "0.1", -2.5: "-2.5", 1e6: "1000000", 1e-7: "0.0000001", 1e30: "1e+30"} {
		if got := promNumber(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}
