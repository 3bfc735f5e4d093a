package dashboards

// This file is how Grafana's panels look: units, colours, columns.

type grafanaFields struct {
	Defaults  grafanaField      `json:"defaults"`
	Overrides []grafanaOverride `json:"overrides"`
}

type grafanaField struct {
	Color      grafanaColor      `json:"color"`
	Custom     *grafanaCustom    `json:"custom,omitempty"`
	Mappings   []grafanaMapping  `json:"mappings"`
	Min        *decimal          `json:"min,omitempty"`
	Thresholds grafanaThresholds `json:"thresholds"`
	Unit       string            `json:"unit,omitempty"`
}

type grafanaColor struct {
	Mode string `json:"mode"`
}

type grafanaCustom struct {
	DrawStyle         string          `json:"drawStyle"`
	FillOpacity       int             `json:"fillOpacity"`
	LineInterpolation string          `json:"lineInterpolation"`
	LineWidth         int             `json:"lineWidth"`
	ShowPoints        string          `json:"showPoints"`
	SpanNulls         bool            `json:"spanNulls"`
	ThresholdsStyle   grafanaColor    `json:"thresholdsStyle"`
	Stacking          grafanaStacking `json:"stacking"`
}

type grafanaStacking struct {
	Mode string `json:"mode"`
}

type grafanaThresholds struct {
	Mode  string        `json:"mode"`
	Steps []grafanaStep `json:"steps"`
}

type grafanaStep struct {
	Color string  `json:"color"`
	Value decimal `json:"value"` // null: from below
}

type grafanaMapping struct {
	Type    string                        `json:"type"`
	Options map[string]grafanaMappingText `json:"options"`
}

type grafanaMappingText struct {
	Color string `json:"color"`
	Index int    `json:"index"`
	Text  string `json:"text"`
}

type grafanaOverride struct {
	Matcher    grafanaSettings   `json:"matcher"`
	Properties []grafanaProperty `json:"properties"`
}

type grafanaProperty struct {
	ID    string `json:"id"`
	Value any    `json:"value"`
}

// grafanaSettings are of a transformation, and of a matcher.
type grafanaSettings struct {
	ID      string `json:"id"`
	Options any    `json:"options"`
}

type grafanaOrganize struct {
	ExcludeByName map[string]bool   `json:"excludeByName"`
	IndexByName   map[string]int    `json:"indexByName"`
	RenameByName  map[string]string `json:"renameByName"`
}

type grafanaStat struct {
	ColorMode     string        `json:"colorMode"`
	GraphMode     string        `json:"graphMode"`
	JustifyMode   string        `json:"justifyMode"`
	Orientation   string        `json:"orientation"`
	ReduceOptions grafanaReduce `json:"reduceOptions"`
	TextMode      string        `json:"textMode"`
}

type grafanaReduce struct {
	Calcs  []string `json:"calcs"`
	Fields string   `json:"fields"`
	Values bool     `json:"values"`
}

type grafanaTableOptions struct {
	CellHeight string `json:"cellHeight"`
	ShowHeader bool   `json:"showHeader"`
}

type grafanaSeriesOptions struct {
	Legend  grafanaLegend  `json:"legend"`
	Tooltip grafanaTooltip `json:"tooltip"`
}

type grafanaLegend struct {
	Calcs       []string `json:"calcs"`
	DisplayMode string   `json:"displayMode"`
	Placement   string   `json:"placement"`
	ShowLegend  bool     `json:"showLegend"`
}

type grafanaTooltip struct {
	Mode string `json:"mode"`
	Sort string `json:"sort"`
}

func grafanaStatOptions() grafanaStat {
	return grafanaStat{
		ColorMode: "value", GraphMode: "area", JustifyMode: "auto", Orientation: "auto",
		ReduceOptions: grafanaReduce{Calcs: []string{"lastNotNull"}}, TextMode: "auto",
	}
}

func grafanaFieldsOf(p Panel, edges []line) *grafanaFields {
	f := grafanaField{
		Color: grafanaColor{"palette-classic"}, Mappings: mappings(p.Unit), Unit: grafanaUnits[p.Unit],
		Thresholds: grafanaThresholds{Mode: "absolute"},
	}
	for _, s := range steps(edges) {
		f.Thresholds.Steps = append(f.Thresholds.Steps, grafanaStep{colors[s.level], decimal(s.from)})
	}
	if p.Unit == Flag || p.Unit == Status {
		f.Min = new(decimal(0))
	}
	out := &grafanaFields{Defaults: f, Overrides: []grafanaOverride{}}
	switch p.Kind {
	case Stat:
		out.Defaults.Color.Mode = "thresholds"
		if len(edges) == 0 && p.Unit != Status { // nobody says which figures are well
			out.Defaults.Thresholds.Steps = []grafanaStep{{"text", out.Defaults.Thresholds.Steps[0].Value}}
		}
	case Table:
		out.Overrides = overrides(p)
	default:
		out.Defaults.Custom = grafanaCustomOf(p, edges)
	}
	return out
}

func grafanaCustomOf(p Panel, edges []line) *grafanaCustom {
	c := &grafanaCustom{
		DrawStyle: "line", FillOpacity: 10, LineInterpolation: "linear", LineWidth: 1, ShowPoints: "auto",
		ThresholdsStyle: grafanaColor{"off"}, Stacking: grafanaStacking{"none"},
	}
	if len(edges) > 0 {
		c.ThresholdsStyle.Mode = "line"
	}
	if p.Unit == Flag || p.Unit == Status {
		c.LineInterpolation = "stepAfter"
	}
	return c
}

// statuses are what a status means, by its number. Read-only.
var statuses = [...]grafanaMappingText{{"green", 0, "pass"}, {"orange", 1, "warn"}, {"red", 2, "fail"}, {"purple", 3, "unknown"}}

func mappings(u Unit) []grafanaMapping {
	if u != Status {
		return []grafanaMapping{}
	}
	texts := map[string]grafanaMappingText{}
	for i, text := range statuses {
		texts[number(float64(i))] = text
	}
	return []grafanaMapping{{"value", texts}}
}

// columns makes one table of the answers to all queries: the rows with the same tags
// are one.
func columns(p Panel) []grafanaSettings {
	o := grafanaOrganize{ExcludeByName: map[string]bool{"Time": true}, IndexByName: map[string]int{}, RenameByName: map[string]string{}}
	for i, tag := range p.Queries[0].By {
		o.IndexByName[tag] = i
	}
	for i, q := range p.Queries {
		name := "Value #" + letters[i:i+1]
		o.IndexByName[name], o.RenameByName[name] = len(p.Queries[0].By)+i, q.Name
	}
	return []grafanaSettings{{"merge", struct{}{}}, {"organize", o}}
}

// overrides gives each column its unit.
func overrides(p Panel) (out []grafanaOverride) {
	for _, q := range p.Queries {
		props := []grafanaProperty{{"unit", grafanaUnits[q.Unit]}}
		if m := mappings(q.Unit); len(m) > 0 {
			props = append(props, grafanaProperty{"mappings", m}, grafanaProperty{"custom.cellOptions", struct {
				Type string `json:"type"`
			}{"color-text"}})
		}
		out = append(out, grafanaOverride{grafanaSettings{"byName", q.Name}, props})
	}
	return out
}
