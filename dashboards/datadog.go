package dashboards

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// datadogColumns is how wide Datadog's boards are.
const datadogColumns = 12

// mostRows is how many rows a table has at most.
const mostRows = 100

// renderDatadog makes a timeboard, as POST /api/v1/dashboard takes it.
//
// Counters are counts there, whose names end in .count: as_rate makes them a second.
// Histograms are distributions, which have percentiles once they are switched on for
// the metric.
func renderDatadog(b *Board, own catalogue.Catalogue, rules Rules) ([]File, error) {
	if err := Lint(b, own); err != nil {
		return nil, fmt.Errorf("board %s: %w", b.Title, err)
	}
	out := datadogBoard{
		Title: b.Title, Description: b.Description, LayoutType: "ordered", ReflowType: "fixed",
		Widgets: []datadogWidget{}, NotifyList: []string{},
	}
	for _, name := range []string{"env", "service", "host", "pipeline"} {
		out.Variables = append(out.Variables, datadogVariable{name, name, []string{}, []string{"*"}})
	}
	y := 0
	for _, row := range b.Rows {
		group := datadogDefinition{Title: row.Title, TitleAlign: "left", Type: "group", LayoutType: "ordered", ShowTitle: new(true)}
		var high int
		group.Widgets, high = datadogWidgets(row, own, rules)
		out.Widgets = append(out.Widgets, datadogWidget{group, datadogPlace{0, y, datadogColumns, high + 1}}) // its title
		y += high + 1
	}
	return rendered(identifier(b.Title), out)
}

type datadogBoard struct {
	Title       string            `json:"title"`
	Description string            `json:"description"`
	LayoutType  string            `json:"layout_type"`
	ReflowType  string            `json:"reflow_type"`
	Variables   []datadogVariable `json:"template_variables"`
	Widgets     []datadogWidget   `json:"widgets"`
	NotifyList  []string          `json:"notify_list"`
}

type datadogVariable struct {
	Name      string   `json:"name"`
	Prefix    string   `json:"prefix"`
	Available []string `json:"available_values"` // none: all that there are
	Defaults  []string `json:"defaults"`
}

type datadogWidget struct {
	Definition datadogDefinition `json:"definition"`
	Layout     datadogPlace      `json:"layout"`
}

type datadogPlace struct {
	X      int `json:"x"`
	Y      int `json:"y"`
	Width  int `json:"width"`
	Height int `json:"height"`
}

// A datadogDefinition is a widget of any type; each has some of the fields.
type datadogDefinition struct {
	Title       string           `json:"title"`
	TitleAlign  string           `json:"title_align,omitempty"`
	Description string           `json:"description,omitempty"`
	Type        string           `json:"type"`
	LayoutType  string           `json:"layout_type,omitempty"` // of a group
	ShowTitle   *bool            `json:"show_title,omitempty"`
	Check       string           `json:"check,omitempty"` // of a check_status
	Grouping    string           `json:"grouping,omitempty"`
	GroupBy     []string         `json:"group_by,omitempty"`
	Tags        []string         `json:"tags,omitempty"`
	ShowLegend  *bool            `json:"show_legend,omitempty"`
	Legend      string           `json:"legend_layout,omitempty"`
	Columns     []string         `json:"legend_columns,omitempty"`
	Autoscale   *bool            `json:"autoscale,omitempty"` // of a query_value
	Precision   *int             `json:"precision,omitempty"`
	Requests    []datadogRequest `json:"requests,omitempty"`
	Yaxis       *datadogAxis     `json:"yaxis,omitempty"`
	Markers     []datadogMarker  `json:"markers,omitempty"`
	Widgets     []datadogWidget  `json:"widgets,omitempty"` // of a group
}

type datadogRequest struct {
	ResponseFormat string           `json:"response_format"`
	DisplayType    string           `json:"display_type,omitempty"`
	Queries        []datadogQuery   `json:"queries"`
	Formulas       []datadogFormula `json:"formulas"`
}

type datadogQuery struct {
	DataSource string `json:"data_source"`
	Name       string `json:"name"`
	Query      string `json:"query"`
	Aggregator string `json:"aggregator,omitempty"` // of a scalar: over the time that is shown
}

type datadogFormula struct {
	Alias   string             `json:"alias,omitempty"`
	Formula string             `json:"formula"`
	Limit   *datadogLimit      `json:"limit,omitempty"`
	Format  *datadogFormat     `json:"number_format,omitempty"`
	Colors  []datadogCondition `json:"conditional_formats,omitempty"`
}

type datadogLimit struct {
	Count int    `json:"count"`
	Order string `json:"order"`
}

type datadogFormat struct {
	Unit datadogUnit `json:"unit"`
}

type datadogUnit struct {
	Type  string `json:"type"`
	Name  string `json:"unit_name,omitempty"`
	Per   string `json:"per_unit_name,omitempty"`
	Label string `json:"label,omitempty"`
}

type datadogCondition struct {
	Comparator string  `json:"comparator"`
	Value      decimal `json:"value"`
	Palette    string  `json:"palette"`
}

type datadogAxis struct {
	IncludeZero bool `json:"include_zero"`
}

type datadogMarker struct {
	Value       string `json:"value"`
	DisplayType string `json:"display_type"`
	Label       string `json:"label"`
}

// datadogUnits are how Datadog calls units. Read-only.
var datadogUnits = map[Unit]datadogUnit{
	Seconds:        {Type: "canonical_unit", Name: "second"},
	Bytes:          {Type: "canonical_unit", Name: "byte"},
	BytesPerSecond: {Type: "canonical_unit", Name: "byte", Per: "second"},
	PerSecond:      {Type: "custom_unit_label", Label: "/s"},
	Ratio:          {Type: "canonical_unit", Name: "fraction"},
	CPUs:           {Type: "custom_unit_label", Label: "CPUs"},
}

// datadogHeights are how high widgets are. Read-only.
var datadogHeights = map[Kind]int{Series: 3, Stat: 2, Table: 3}

// datadogWidgets places a row's widgets in a group, and says how high it gets.
func datadogWidgets(row Row, own catalogue.Catalogue, rules Rules) (out []datadogWidget, bottom int) {
	x, y, high := 0, 0, 0
	for _, p := range row.Panels {
		width := p.Width * datadogColumns / Columns
		if x+width > datadogColumns {
			x, y, high = 0, y+high, 0
		}
		out = append(out, datadogWidget{datadogDefinitionOf(p, own, rules), datadogPlace{x, y, width, datadogHeights[p.Kind]}})
		x, high = x+width, max(high, datadogHeights[p.Kind])
	}
	return out, y + high
}

func datadogDefinitionOf(p Panel, own catalogue.Catalogue, rules Rules) datadogDefinition {
	edges := lines(p, rules)
	out := datadogDefinition{Title: p.Title, Description: p.Description}
	if p.Check != "" {
		out.Type, out.Check, out.Grouping = "check_status", p.Check, "cluster"
		out.GroupBy, out.Tags = p.Queries[0].By, []string{"$env", "$service", "$host"}
		return out
	}
	r := datadogRequest{ResponseFormat: "scalar"}
	for _, q := range p.Queries {
		queries, f := datadogQueries(q, len(r.Queries)+1, own)
		if p.Kind == Series {
			for i := range queries {
				queries[i].Aggregator = ""
			}
		}
		if unit, has := datadogUnits[unitOf(p, q)]; has {
			f.Format = &datadogFormat{unit}
		}
		if f.Alias = q.Name; len(p.Queries) == 1 && len(q.By) == 0 {
			f.Alias = p.Title
		}
		r.Queries, r.Formulas = append(r.Queries, queries...), append(r.Formulas, f)
	}
	switch p.Kind {
	case Stat:
		out.Type, out.Autoscale, out.Precision = "query_value", new(true), new(2)
		r.Formulas[0].Colors = conditions(edges)
	case Table:
		out.Type = "query_table"
		r.Formulas[0].Limit = &datadogLimit{mostRows, "desc"}
	default:
		out.Type, out.ShowLegend, out.Legend = "timeseries", new(true), "auto"
		out.Columns, out.Yaxis = []string{"avg", "max", "value"}, &datadogAxis{IncludeZero: true}
		out.Markers = markers(p, edges)
		r.ResponseFormat, r.DisplayType = "timeseries", "line"
	}
	out.Requests = []datadogRequest{r}
	return out
}

func unitOf(p Panel, q Query) Unit {
	if p.Kind == Table {
		return q.Unit
	}
	return p.Unit
}

// datadogQueries are those that a query takes, numbered from n, and what is made of
// them.
func datadogQueries(q Query, n int, own catalogue.Catalogue) ([]datadogQuery, datadogFormula) {
	ask := func(metric string, n int) datadogQuery {
		last := "last"
		if q.Func == Rate || q.Func == Quantile {
			last = "avg"
		}
		return datadogQuery{"metrics", fmt.Sprintf("query%d", n), datadogQL(q, metric, own), last}
	}
	queries := []datadogQuery{ask(q.Metric, n)}
	formula := queries[0].Name
	switch {
	case q.Per != "":
		queries = append(queries, ask(q.Per, n+1))
		formula += " / " + queries[1].Name
	case q.Func == Nonzero:
		formula = "count_nonzero(" + formula + ")"
	}
	return queries, datadogFormula{Formula: formula}
}

// datadogQL is a query in Datadog's language.
func datadogQL(q Query, metric string, own catalogue.Catalogue) string {
	d := described(metric, own)
	name, by, aggregate, after := d.Datadog, q.By, string(q.Aggregate), ""
	switch q.Func {
	case Rate:
		after = ".as_rate()"
	case Quantile:
		aggregate = "p" + number(q.Q*100)
	case Nonzero: // of each series by itself
		aggregate, by = string(Max), slices.Concat([]string{"host", "service"}, d.Tags)
		slices.Sort(by)
		by = slices.Compact(by) // pipelines have the tag service too
	}
	if d.Type == metrics.CounterType { // as exporters/datadog sends them
		name += ".count"
	}
	scope := []string{"$env", "$service", "$host"}
	if slices.Contains(d.Tags, "pipeline") {
		scope = append(scope, "$pipeline")
	}
	for _, tag := range slices.Sorted(maps.Keys(q.Match)) {
		scope = append(scope, tag+":"+q.Match[tag])
	}
	for _, tag := range slices.Sorted(maps.Keys(q.Except)) {
		for _, value := range q.Except[tag] {
			scope = append(scope, "!"+tag+":"+value)
		}
	}
	grouped := ""
	if len(by) > 0 {
		grouped = " by {" + strings.Join(by, ",") + "}"
	}
	return fmt.Sprintf("%s:%s{%s}%s%s", aggregate, name, strings.Join(scope, ","), grouped, after)
}

// markers draws lines.
func markers(p Panel, edges []line) (out []datadogMarker) {
	for _, e := range edges {
		m := datadogMarker{"y = " + number(e.value), "warning dashed", "warn: " + p.Rule}
		if e.crit {
			m.DisplayType, m.Label = "error dashed", "crit: "+p.Rule
		}
		out = append(out, m)
	}
	return out
}

// conditions colours a number: the first that holds does.
func conditions(edges []line) (out []datadogCondition) {
	if len(edges) == 0 {
		return nil
	}
	for _, crit := range []bool{true, false} {
		for _, e := range edges {
			c := datadogCondition{"<", decimal(e.value), "white_on_yellow"}
			if e.above {
				c.Comparator = ">"
			}
			if e.crit {
				c.Palette = "white_on_red"
			}
			if e.crit == crit {
				out = append(out, c)
			}
		}
	}
	return out
}
