package dashboards

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// grafanaSchema is Grafana 10's; later ones read it too.
const grafanaSchema = 38

// letters are how Grafana calls queries.
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

// colors are those of the levels of a step: well, warn, crit. Read-only.
var colors = [3]string{"green", "orange", "red"}

// grafanaUnits are how Grafana calls units. Read-only.
var grafanaUnits = map[Unit]string{
	Seconds: "s", Bytes: "bytes", BytesPerSecond: "binBps", Count: "short", PerSecond: "suffix:/s",
	Ratio: "percentunit", CPUs: "short", Flag: "short", Status: "short",
}

// renderGrafana makes one board for all agents that one Prometheus scrapes.
func renderGrafana(b *Board, own catalogue.Catalogue, rules Rules) ([]File, error) {
	if err := Lint(b, own); err != nil {
		return nil, fmt.Errorf("board %s: %w", b.Title, err)
	}
	id := identifier(b.Title)
	out := grafanaBoard{
		Description: b.Description, Editable: true, GraphTooltip: 1, Links: []struct{}{},
		Panels: grafanaPanels(b, own, rules), Refresh: "30s", SchemaVersion: grafanaSchema, Tags: []string{"outrider"},
		Templating: grafanaList{List: grafanaVariables()}, Time: grafanaTime{"now-3h", "now"}, Title: b.Title, UID: id, Version: 1,
	}
	return rendered(id, out)
}

// identifier is a name that is good for files and URLs.
func identifier(title string) string {
	return strings.ReplaceAll(strings.ToLower(title), " ", "-")
}

// rendered writes JSON as people write it: < and > stay what they are.
func rendered(id string, board any) ([]File, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(board); err != nil {
		return nil, fmt.Errorf("encode board: %w", err)
	}
	return []File{{Path: id + ".json", Data: b.Bytes()}}, nil
}

// A grafanaBoard is a dashboard as Grafana exports it.
type grafanaBoard struct {
	Description   string         `json:"description"`
	Editable      bool           `json:"editable"`
	GraphTooltip  int            `json:"graphTooltip"` // 1: one crosshair in all panels
	ID            *int           `json:"id"`           // the server's
	Links         []struct{}     `json:"links"`
	Panels        []grafanaPanel `json:"panels"`
	Refresh       string         `json:"refresh"`
	SchemaVersion int            `json:"schemaVersion"`
	Tags          []string       `json:"tags"`
	Templating    grafanaList    `json:"templating"`
	Time          grafanaTime    `json:"time"`
	Timezone      string         `json:"timezone"`
	Title         string         `json:"title"`
	UID           string         `json:"uid"`
	Version       int            `json:"version"`
}

type grafanaList struct {
	List []grafanaVariable `json:"list"`
}

type grafanaTime struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type grafanaSource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type grafanaVariable struct {
	Name       string         `json:"name"`
	Label      string         `json:"label"`
	Type       string         `json:"type"`
	Datasource *grafanaSource `json:"datasource,omitempty"`
	Definition string         `json:"definition,omitempty"`
	Query      any            `json:"query"`
	Regex      string         `json:"regex"`
	Refresh    int            `json:"refresh"` // 1: when the board is loaded, 2: with the time range too
	Sort       int            `json:"sort"`    // 1: by the alphabet
	Multi      bool           `json:"multi"`
	IncludeAll bool           `json:"includeAll"`
	AllValue   string         `json:"allValue,omitempty"`
	Current    any            `json:"current"`
	Hide       int            `json:"hide"`
	Options    []struct{}     `json:"options"`
}

type grafanaQuery struct {
	Query string `json:"query"`
	RefID string `json:"refId"`
}

type grafanaCurrent struct {
	Selected bool     `json:"selected"`
	Text     []string `json:"text"`
	Value    []string `json:"value"`
}

func grafanaVariables() []grafanaVariable {
	list := []grafanaVariable{{
		Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus", Refresh: 1,
		Current: struct{}{}, Options: []struct{}{},
	}}
	const agents = "outrider_config_reload_successful" // each agent has it
	for _, v := range []struct{ name, label, query string }{
		{"job", "Job", "label_values(" + agents + ", job)"},
		{"instance", "Instance", "label_values(" + agents + `{job=~"$job"}, instance)`},
		{"pipeline", "Pipeline", `label_values(outrider_pipeline_in_total{job=~"$job", instance=~"$instance"}, pipeline)`},
	} {
		list = append(list, grafanaVariable{
			Name: v.name, Label: v.label, Type: "query", Datasource: prometheusSource(), Definition: v.query,
			Query: grafanaQuery{v.query, "PrometheusVariableQueryEditor-VariableQuery"}, Refresh: 2, Sort: 1,
			Multi: true, IncludeAll: true, AllValue: ".*", Current: grafanaCurrent{true, []string{"All"}, []string{"$__all"}},
			Options: []struct{}{},
		})
	}
	return list
}

func prometheusSource() *grafanaSource { return &grafanaSource{"prometheus", "${datasource}"} }

type grafanaPanel struct {
	ID              int               `json:"id"`
	Type            string            `json:"type"`
	Title           string            `json:"title"`
	Description     string            `json:"description,omitempty"`
	GridPos         grafanaPlace      `json:"gridPos"`
	Collapsed       *bool             `json:"collapsed,omitempty"` // of a row
	Panels          *[]struct{}       `json:"panels,omitempty"`    // of a collapsed row
	Datasource      *grafanaSource    `json:"datasource,omitempty"`
	FieldConfig     *grafanaFields    `json:"fieldConfig,omitempty"`
	Options         any               `json:"options,omitempty"`
	Targets         []grafanaTarget   `json:"targets,omitempty"`
	Transformations []grafanaSettings `json:"transformations,omitempty"`
}

type grafanaPlace struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

type grafanaTarget struct {
	Datasource   *grafanaSource `json:"datasource"`
	EditorMode   string         `json:"editorMode"`
	Expr         string         `json:"expr"`
	Format       string         `json:"format"`
	Instant      bool           `json:"instant"`
	LegendFormat string         `json:"legendFormat"`
	Range        bool           `json:"range"`
	RefID        string         `json:"refId"`
}

// grafanaHeights are how high panels are. Read-only.
var grafanaHeights = map[Kind]int{Series: 8, Stat: 4, Table: 8}

// grafanaPanels places panels from left to right, and from top to bottom.
func grafanaPanels(b *Board, own catalogue.Catalogue, rules Rules) (out []grafanaPanel) {
	id, y := 0, 0
	for _, row := range b.Rows {
		id++
		out = append(out, grafanaPanel{
			ID: id, Type: "row", Title: row.Title, GridPos: grafanaPlace{1, Columns, 0, y},
			Collapsed: new(false), Panels: &[]struct{}{},
		})
		y++
		x, high := 0, 0
		for _, p := range row.Panels {
			if x+p.Width > Columns {
				x, y, high = 0, y+high, 0
			}
			id++
			drawn := grafanaPanelOf(p, own, rules)
			drawn.ID, drawn.GridPos = id, grafanaPlace{grafanaHeights[p.Kind], p.Width, x, y}
			out = append(out, drawn)
			x, high = x+p.Width, max(high, grafanaHeights[p.Kind])
		}
		y += high
	}
	return out
}

func grafanaPanelOf(p Panel, own catalogue.Catalogue, rules Rules) grafanaPanel {
	edges := lines(p, rules)
	out := grafanaPanel{
		Type: "timeseries", Title: p.Title, Description: p.Description, Datasource: prometheusSource(),
		FieldConfig: grafanaFieldsOf(p, edges),
	}
	if len(edges) > 0 {
		out.Description += " Thresholds: the alert rule " + p.Rule + "."
	}
	for i, q := range p.Queries {
		t := grafanaTarget{
			Datasource: prometheusSource(), EditorMode: "code", Expr: promQL(q, own), Format: "time_series",
			LegendFormat: legend(p, q), Range: true, RefID: letters[i : i+1],
		}
		if p.Kind == Table {
			t.Format, t.Instant, t.Range = "table", true, false
		}
		out.Targets = append(out.Targets, t)
	}
	switch p.Kind {
	case Stat:
		out.Type, out.Options = "stat", grafanaStatOptions()
	case Table:
		out.Type, out.Options, out.Transformations = "table", grafanaTableOptions{CellHeight: "sm", ShowHeader: true}, columns(p)
	default:
		out.Options = grafanaSeriesOptions{
			Legend:  grafanaLegend{Calcs: []string{"lastNotNull", "max"}, DisplayMode: "list", Placement: "bottom", ShowLegend: true},
			Tooltip: grafanaTooltip{"multi", "desc"},
		}
	}
	return out
}

// legend names a query's series: by its name, by the values of its tags, or both.
func legend(p Panel, q Query) string {
	var words []string
	if len(p.Queries) > 1 {
		words = append(words, q.Name)
	}
	for _, tag := range q.By {
		words = append(words, "{{"+tag+"}}")
	}
	if len(words) == 0 {
		return p.Title
	}
	return strings.Join(words, " ")
}

// promQL is a query in Prometheus' language.
func promQL(q Query, own catalogue.Catalogue) string {
	of := func(name string) string {
		by := q.By
		if q.Func == Quantile {
			by = slices.Concat([]string{"le"}, by)
		}
		grouped := func(aggregate Aggregate) string {
			if len(by) == 0 {
				return string(aggregate) + " "
			}
			return fmt.Sprintf("%s by (%s) ", aggregate, strings.Join(by, ", "))
		}
		series := name + selector(q, name, own)
		switch q.Func {
		case Rate:
			return fmt.Sprintf("%s(rate(%s[$__rate_interval]))", grouped(q.Aggregate), series)
		case Quantile:
			series = name + "_bucket" + selector(q, name, own)
			return fmt.Sprintf("histogram_quantile(%s, %s(rate(%s[$__rate_interval])))", number(q.Q), grouped(Sum), series)
		case Nonzero:
			return fmt.Sprintf("%s(%s != bool 0)", grouped(Sum), series)
		}
		return fmt.Sprintf("%s(%s)", grouped(q.Aggregate), series)
	}
	if q.Per != "" {
		return of(q.Metric) + " / " + of(q.Per)
	}
	return of(q.Metric)
}

// selector keeps to the board's variables: pipeline where a metric has the tag.
func selector(q Query, metric string, own catalogue.Catalogue) string {
	by := []string{`job=~"$job"`, `instance=~"$instance"`}
	if hasTag(metric, "pipeline", own) {
		by = append(by, `pipeline=~"$pipeline"`)
	}
	for _, tag := range slices.Sorted(maps.Keys(q.Match)) {
		by = append(by, tag+"="+strconv.Quote(q.Match[tag]))
	}
	for _, tag := range slices.Sorted(maps.Keys(q.Except)) {
		if values := q.Except[tag]; len(values) == 1 {
			by = append(by, tag+"!="+strconv.Quote(values[0]))
		} else {
			by = append(by, tag+"!~"+strconv.Quote(anyOf(values)))
		}
	}
	return "{" + strings.Join(by, ", ") + "}"
}

// anyOf is a regular expression of texts.
func anyOf(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = regexp.QuoteMeta(text)
	}
	return strings.Join(quoted, "|")
}

func hasTag(metric, tag string, own catalogue.Catalogue) bool {
	return slices.Contains(described(metric, own).Tags, tag)
}

// described is a metric that Lint has found.
func described(metric string, own catalogue.Catalogue) metrics.Desc {
	d, found := own.Find(metric)
	if !found {
		panic("BUG: panel of " + metric + ", which Lint let pass")
	}
	return d
}

// number writes a number that parses back, without an exponent.
func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// decimal is a number that JSON has without an exponent.
type decimal float64

// MarshalJSON implements [json.Marshaler].
func (d decimal) MarshalJSON() ([]byte, error) {
	if math.IsInf(float64(d), 0) || math.IsNaN(float64(d)) {
		return []byte("null"), nil
	}
	return []byte(number(float64(d))), nil
}
