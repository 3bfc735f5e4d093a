package collectors

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPrometheusRelabel(t *testing.T) {
	t.Parallel()
	const text = `# TYPE in_total counter
in_total{shop="a",path="/x/1",tmp_zone="eu"} 1
in_total{shop="b",path="/y/2",tmp_zone="us"} 2
# TYPE took_seconds histogram
took_seconds_bucket{shop="a",le="1"} 1
took_seconds_bucket{shop="a",le="2"} 2
took_seconds_bucket{shop="a",le="+Inf"} 3
took_seconds_sum{shop="a"} 4
took_seconds_count{shop="a"} 3
`
	const histogram = "histogram took_seconds{shop=a}[1 2] [1 1 1]"
	rule := func(action, source, regex, target, replacement string) RelabelConfig {
		r := RelabelConfig{Action: action, Separator: ";", Regex: regex, TargetLabel: target, Replacement: replacement}
		if source != "" {
			r.SourceLabels = strings.Split(source, ",")
		}
		return r
	}
	for _, tt := range []struct {
		name  string
		rules []RelabelConfig
		want  []string
	}{
		{"keep is anchored", []RelabelConfig{rule("keep", "__name__", "in", "", "")}, nil},
		{"keep", []RelabelConfig{rule("keep", "__name__", "in_.*", "", ""), rule("drop", "shop,path", "b;/y/.", "", "")}, []string{"counter in_total{path=/x/1,shop=a,tmp_zone=eu}1"}},
		{"replace with groups", []RelabelConfig{rule("keep", "__name__", "in_total", "", ""), rule("replace", "path", "/(.)/.*", "path", "$1"), rule("labeldrop", "", "tmp_.*", "", "")}, []string{"counter in_total{path=x,shop=a}1", "counter in_total{path=y,shop=b}2"}},
		{"labelkeep keeps the name", []RelabelConfig{rule("keep", "__name__", "in_total", "", ""), rule("labelkeep", "", "shop", "", "")}, []string{"counter in_total{shop=a}1", "counter in_total{shop=b}2"}},
		{"labelmap", []RelabelConfig{rule("keep", "shop", "b", "", ""), rule("labelmap", "", "tmp_(.*)", "", "$1"), rule("labelkeep", "", "zone", "", "")}, []string{"counter in_total{zone=us}2"}},
		{"rename", []RelabelConfig{rule("drop", "__name__", "took.*", "", ""), rule("replace", "__name__", "in_(.*)", "__name__", "orders_$1"), rule("labelkeep", "", "shop", "", "")}, []string{"counter orders_total{shop=a}1", "counter orders_total{shop=b}2"}},
		{"two series made one", []RelabelConfig{rule("keep", "__name__", "in_total", "", ""), rule("labelkeep", "", "nothing", "", "")}, []string{"counter in_total{}1"}},
		{"labels for a time", []RelabelConfig{rule("keep", "__name__", "in_total", "", ""), rule("replace", "shop", "(.*)", "__tmp", "x$1"), rule("replace", "__tmp", "(.*)", "shop", "$1"), rule("labelkeep", "", "shop|__tmp", "", "")}, []string{"counter in_total{shop=xa}1", "counter in_total{shop=xb}2"}},
		{"an empty label is none", []RelabelConfig{rule("keep", "shop", "b", "", ""), rule("replace", "shop", "b", "path", ""), rule("labelkeep", "", "path|shop", "", "")}, []string{"counter in_total{shop=b}2"}},
		{"a histogram is renamed whole", []RelabelConfig{rule("keep", "__name__", "took.*", "", ""), rule("replace", "__name__", "took_(.*)", "__name__", "api_$1")}, []string{"histogram api_seconds{shop=a}[1 2] [1 1 1]"}},
		{"a bucket is dropped", []RelabelConfig{rule("keep", "__name__", "took.*", "", ""), rule("drop", "le", "1", "", "")}, []string{"histogram took_seconds{shop=a}[2] [2 1]"}},
		{"nothing but the count", []RelabelConfig{rule("keep", "__name__", "took.*_count", "", ""), rule("replace", "__name__", "took_seconds_count", "__name__", "took_total")}, []string{"counter took_total{shop=a}3"}},
		{"no rules", nil, []string{"counter in_total{path=/x/1,shop=a,tmp_zone=eu}1", "counter in_total{path=/y/2,shop=b,tmp_zone=us}2", histogram}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			relabel, err := newPromRelabeler(tt.rules)
			if err != nil {
				t.Fatal(err)
			}
			table := newPromTable(100, relabel)
			for range 2 {
				if err := table.scan(strings.NewReader(text), false); err != nil {
					t.Fatal(err)
				}
				table.account()
				promBooks(t, table)
				if diff := cmp.Diff(tt.want, promShort(table.result())); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}
