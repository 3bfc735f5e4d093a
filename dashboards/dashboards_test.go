package dashboards

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// few is a catalogue of metrics of each type, sorted by name. Read-only.
var few = catalogue.Catalogue{
	{Name: "in_total", Datadog: "x.in", Type: metrics.CounterType, Tags: []string{"pipeline", "service"}},
	{Name: "out_total", Datadog: "x.out", Type: metrics.CounterType, Tags: []string{"pipeline", "service"}},
	{Name: "took_seconds", Datadog: "x.took", Type: metrics.HistogramType, Tags: []string{"stage"}},
	{Name: "up", Datadog: "x.up", Type: metrics.GaugeType, Tags: []string{"check", "category"}},
}

func TestQueriesInBothLanguages(t *testing.T) {
	for _, tt := range []struct {
		name             string
		query            Query
		prom             string
		datadog, formula string
	}{
		{
			name:  "a level",
			query: Query{Metric: "up", Func: Level, Aggregate: Min},
			prom:  `min (up{job=~"$job", instance=~"$instance"})`, datadog: `min:x.up{$env,$service,$host}`, formula: "query1",
		},
		{
			name:    "a rate by tags",
			query:   Query{Metric: "in_total", Func: Rate, Aggregate: Sum, By: []string{"service", "pipeline"}},
			prom:    `sum by (service, pipeline) (rate(in_total{job=~"$job", instance=~"$instance", pipeline=~"$pipeline"}[$__rate_interval]))`,
			datadog: `sum:x.in.count{$env,$service,$host,$pipeline} by {service,pipeline}.as_rate()`, formula: "query1",
		},
		{
			name:  "a share",
			query: Query{Metric: "out_total", Func: Rate, Aggregate: Sum, Per: "in_total"},
			prom: `sum (rate(out_total{job=~"$job", instance=~"$instance", pipeline=~"$pipeline"}[$__rate_interval]))` +
				` / sum (rate(in_total{job=~"$job", instance=~"$instance", pipeline=~"$pipeline"}[$__rate_interval]))`,
			datadog: `sum:x.out.count{$env,$service,$host,$pipeline}.as_rate() sum:x.in.count{$env,$service,$host,$pipeline}.as_rate()`, formula: "query1 / query2",
		},
		{
			name:    "a quantile",
			query:   Query{Metric: "took_seconds", Func: Quantile, Q: 0.99, By: []string{"stage"}},
			prom:    `histogram_quantile(0.99, sum by (le, stage) (rate(took_seconds_bucket{job=~"$job", instance=~"$instance"}[$__rate_interval])))`,
			datadog: `p99:x.took{$env,$service,$host} by {stage}`, formula: "query1",
		},
		{
			name:    "a quantile of all",
			query:   Query{Metric: "took_seconds", Func: Quantile, Q: 0.5},
			prom:    `histogram_quantile(0.5, sum by (le) (rate(took_seconds_bucket{job=~"$job", instance=~"$instance"}[$__rate_interval])))`,
			datadog: `p50:x.took{$env,$service,$host}`, formula: "query1",
		},
		{
			name:    "how many are not 0",
			query:   Query{Metric: "up", Func: Nonzero},
			prom:    `sum (up{job=~"$job", instance=~"$instance"} != bool 0)`,
			datadog: `max:x.up{$env,$service,$host} by {category,check,host,service}`, formula: "count_nonzero(query1)",
		},
		{
			name:    "some of the series",
			query:   Query{Metric: "up", Func: Level, Aggregate: Max, Match: map[string]string{"category": "page"}, Except: map[string][]string{"check": {"self"}}},
			prom:    `max (up{job=~"$job", instance=~"$instance", category="page", check!="self"})`,
			datadog: `max:x.up{$env,$service,$host,category:page,!check:self}`, formula: "query1",
		},
		{
			name:    "without several",
			query:   Query{Metric: "up", Func: Level, Aggregate: Max, Except: map[string][]string{"check": {"self", "a.b"}}},
			prom:    `max (up{job=~"$job", instance=~"$instance", check!~"self|a\\.b"})`,
			datadog: `max:x.up{$env,$service,$host,!check:self,!check:a.b}`, formula: "query1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := promQL(tt.query, few); got != tt.prom {
				t.Errorf("Prometheus:\ngot  %s\nwant %s", got, tt.prom)
			}
			queries, f := datadogQueries(tt.query, 1, few)
			var got []string
			for _, q := range queries {
				got = append(got, q.Query)
			}
			if got := strings.Join(got, " "); got != tt.datadog || f.Formula != tt.formula {
				t.Errorf("Datadog:\ngot  %s, %s\nwant %s, %s", got, f.Formula, tt.datadog, tt.formula)
			}
		})
	}
}

func parsed(t *testing.T, text string) *nagios.Range {
	t.Helper()
	if text == "" {
		return nil
	}
	r, err := nagios.ParseRange(text)
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

func TestLinesAndSteps(t *testing.T) {
	low := math.Inf(-1)
	for _, tt := range []struct {
		name, warn, crit string
		lines            []line
		steps            []step
	}{
		{"no rule", "", "", nil, []step{{low, 0}}},
		{"any is too many", "", "0", []line{{0, true, true}}, []step{{low, 0}, {least, 2}}},
		{"two ceilings", "60", "300", []line{{60, false, true}, {300, true, true}}, []step{{low, 0}, {60, 1}, {300, 2}}},
		{"two floors", "0.9:", "0.5:", []line{{0.5, true, false}, {0.9, false, false}}, []step{{low, 2}, {0.5, 1}, {0.9, 0}}},
		{"both sides", "", "10:20", []line{{10, true, false}, {20, true, true}}, []step{{low, 2}, {10, 0}, {20, 2}}},
		{"a growth", "", "~:0", []line{{0, true, true}}, []step{{low, 0}, {least, 2}}},
		{"the same twice", "5", "5", []line{{5, false, true}, {5, true, true}}, []step{{low, 0}, {5, 2}}},
		{"inside", "", "@2:2", nil, []step{{low, 0}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules := func(string) (rule.Rule, bool) {
				return rule.Rule{Series: rule.Selector{Name: "up"}, Warn: parsed(t, tt.warn), Crit: parsed(t, tt.crit)}, true
			}
			got := lines(Panel{Rule: "r", Queries: []Query{{Metric: "up", Func: Level}}}, rules)
			if diff := cmp.Diff(tt.lines, got, cmp.AllowUnexported(line{})); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.steps, steps(got), cmp.AllowUnexported(step{})); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARuleIsDrawnOnlyOnWhatItJudges(t *testing.T) {
	level := rule.Rule{Series: rule.Selector{Name: "up"}}
	share := rule.Rule{Func: rule.Share, Series: rule.Selector{Name: "out_total"}, All: rule.Selector{Name: "in_total"}}
	matched := rule.Rule{Series: rule.Selector{Name: "up", Tags: map[string]string{"category": "page"}}}
	for _, tt := range []struct {
		name  string
		rule  rule.Rule
		query Query
		want  int
	}{
		{"a level on a level", level, Query{Metric: "up", Func: Level}, 1},
		{"a level on how many", level, Query{Metric: "up", Func: Nonzero}, 0},
		{"another metric", level, Query{Metric: "in_total", Func: Level}, 0},
		{"a share on a share", share, Query{Metric: "out_total", Func: Rate, Per: "in_total"}, 1},
		{"a share on a rate", share, Query{Metric: "out_total", Func: Rate}, 0},
		{"some series on all", matched, Query{Metric: "up", Func: Level}, 0},
		{"all series on some", level, Query{Metric: "up", Func: Level, Except: map[string][]string{"check": {"self"}}}, 0},
		{"some series on those", matched, Query{Metric: "up", Func: Level, Match: map[string]string{"category": "page"}}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.rule.Crit = parsed(t, "3")
			there := func(string) (rule.Rule, bool) { return tt.rule, true }
			p := Panel{Rule: "r", Queries: []Query{tt.query}}
			if got := lines(p, there); len(got) != tt.want {
				t.Errorf("got lines %v, want %d", got, tt.want)
			}
			gone := func(string) (rule.Rule, bool) { return rule.Rule{}, false }
			if got := lines(p, gone); got != nil {
				t.Errorf("got lines %v of a rule that is not there", got)
			}
		})
	}
}

func TestLintFinds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Panel)
		want   string // empty: nothing
	}{
		{"nothing", func(*Panel) {}, ""},
		{"no description", func(p *Panel) { p.Description = "" }, `description: got "", want one sentence`},
		{"two sentences", func(p *Panel) { p.Description = "One. Two." }, "want one sentence"},
		{"no unit", func(p *Panel) { p.Unit = "" }, `unit: got ""`},
		{"an unknown unit", func(p *Panel) { p.Unit = "apples" }, `unit: got "apples"`},
		{"an odd width", func(p *Panel) { p.Width = 7 }, "width: got 7, want 8, 12 or 24"},
		{"no query", func(p *Panel) { p.Queries = nil }, "queries: got none"},
		{"two numbers in one", func(p *Panel) { p.Queries = append(p.Queries, Query{Name: "b", Metric: "up", Func: Nonzero}) }, "got 2 for one number"},
		{"an unknown metric", func(p *Panel) { p.Queries[0].Metric = "down" }, "got the metric down, which the agent does not have"},
		{"an unknown tag", func(p *Panel) { p.Queries[0].By = []string{"colour"} }, "got the tag colour"},
		{"an unknown tag in a filter", func(p *Panel) { p.Queries[0].Except = map[string][]string{"colour": {"red"}} }, "got the tag colour"},
		{"the rate of a gauge", func(p *Panel) { p.Queries[0].Func = Rate }, "rate of up: got a gauge, want a counter"},
		{"the level of a counter", func(p *Panel) { p.Queries[0].Metric = "in_total" }, "level of in_total: got a counter, want a gauge"},
		{"no aggregate", func(p *Panel) { p.Queries[0].Aggregate = "" }, `got the aggregate ""`},
		{"a quantile of all there is", func(p *Panel) { p.Queries[0] = Query{Metric: "took_seconds", Func: Quantile, Q: 1} }, "got the quantile 1"},
		{"a share of a level", func(p *Panel) { p.Queries[0].Per = "up" }, "want shares of rates only"},
		{"a table of one column", func(p *Panel) { p.Kind = Table }, "got one column"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := Panel{
				Title: "Up", Description: "What is up.", Kind: Stat, Unit: Count, Width: half,
				Queries: []Query{{Metric: "up", Func: Level, Aggregate: Max}},
			}
			tt.change(&p)
			b := &Board{Title: "Few", Rows: []Row{{"All", []Panel{p}}}}
			err := Lint(b, few)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			for _, back := range Backends() {
				if _, rendered := back.Render(b, few, func(string) (rule.Rule, bool) { return rule.Rule{}, false }); (rendered == nil) != (err == nil) {
					t.Errorf("%s: got %v, want it to refuse what Lint does: %v", back.Name, rendered, err)
				}
			}
		})
	}
	twice := Panel{Title: "Up", Description: "What is up.", Kind: Stat, Unit: Count, Width: half, Queries: []Query{{Metric: "up", Func: Nonzero}}}
	if err := Lint(&Board{Rows: []Row{{"All", []Panel{twice, twice}}}}, few); err == nil || !strings.Contains(err.Error(), "got the title twice") {
		t.Errorf("two panels of a title: got %v", err)
	}
}

// A place is where something is drawn.
type place struct{ X, Y, W, H int }

func (p place) overlaps(o place) bool {
	return p.X < o.X+o.W && o.X < p.X+p.W && p.Y < o.Y+o.H && o.Y < p.Y+p.H
}

func apart(t *testing.T, columns int, places map[string]place) {
	t.Helper()
	for a, p := range places {
		if p.X < 0 || p.Y < 0 || p.W <= 0 || p.H <= 0 || p.X+p.W > columns {
			t.Errorf("%s at %+v, want it within %d columns", a, p, columns)
		}
		for b, o := range places {
			if a < b && p.overlaps(o) {
				t.Errorf("%s at %+v overlaps %s at %+v", a, p, b, o)
			}
		}
	}
}

// board renders the board that ships and reads it again.
func board(t *testing.T, render func(*Board, catalogue.Catalogue, Rules) ([]File, error), to any) {
	t.Helper()
	_, rules := shippedRules(t)
	files, err := render(Shipped(), catalogue.Own(), rules)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 {
		t.Fatalf("got %d files, want one", len(files))
	}
	if err := json.Unmarshal(files[0].Data, to); err != nil {
		t.Fatal(err)
	}
}

func TestGrafanaPanelsAreApart(t *testing.T) {
	var b struct {
		Panels []struct {
			ID          int
			Type, Title string
			Description string
			GridPos     place
			FieldConfig struct{ Defaults struct{ Unit string } }
			Targets     []struct{ RefID, Expr string }
		}
	}
	board(t, renderGrafana, &b)
	ids, places, panels := map[int]string{}, map[string]place{}, 0
	for _, p := range b.Panels {
		if other, twice := ids[p.ID]; twice || p.ID <= 0 {
			t.Errorf("panel %s: got the id %d, which %q has, want one of its own above 0", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		places[p.Type+" "+p.Title] = p.GridPos
		if p.Type == "row" {
			continue
		}
		panels++
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.Expr == "" {
				t.Errorf("panel %s: query %q with the id %q, want a query, and an id of its own", p.Title, target.Expr, target.RefID)
			}
			refs[target.RefID] = true
		}
		if p.Description == "" || len(p.Targets) == 0 || p.Type != "table" && p.FieldConfig.Defaults.Unit == "" {
			t.Errorf("panel %s: description %q, unit %q, %d queries, want all of them", p.Title, p.Description, p.FieldConfig.Defaults.Unit, len(p.Targets))
		}
	}
	if len(places) != len(b.Panels) {
		t.Errorf("got %d places of %d panels", len(places), len(b.Panels))
	}
	apart(t, Columns, places)
	t.Logf("%d panels", panels)
}

func TestDatadogWidgetsAreApart(t *testing.T) {
	type widget struct {
		Definition struct {
			Title, Type string
			Widgets     []widget
			Requests    []struct {
				Queries  []struct{ Name string }
				Formulas []struct{ Formula string }
			}
		}
		Layout struct{ X, Y, Width, Height int }
	}
	var b struct{ Widgets []widget }
	board(t, renderDatadog, &b)
	placeOf := func(w widget) place { return place{w.Layout.X, w.Layout.Y, w.Layout.Width, w.Layout.Height} }
	groups := map[string]place{}
	for _, g := range b.Widgets {
		groups[g.Definition.Title] = placeOf(g)
		places := map[string]place{}
		for _, w := range g.Definition.Widgets {
			at := placeOf(w)
			places[w.Definition.Title] = at
			if at.Y+at.H+1 > g.Layout.Height {
				t.Errorf("%s at %+v, want it within the group %s of height %d", w.Definition.Title, at, g.Definition.Title, g.Layout.Height)
			}
			for _, r := range w.Definition.Requests {
				used := fmt.Sprint(r.Formulas)
				for _, q := range r.Queries {
					if strings.Count(used, q.Name) != 1 {
						t.Errorf("%s: formulas %v use %s not once", w.Definition.Title, used, q.Name)
					}
				}
			}
		}
		apart(t, datadogColumns, places)
	}
	apart(t, datadogColumns, groups)
}
