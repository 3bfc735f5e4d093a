// Package dashboards builds the boards for Datadog and Grafana from one list of panels.
//
// A panel says what it shows in words that belong to no back end: the metric as the
// catalogue names it, what is done with its values, and by which tags they are kept
// apart. The lines that it draws are the thresholds of an alert rule, so what a board
// shows in red is what somebody is told of.
package dashboards

import "github.com/outrider-agent/outrider/alerts/rule"

// A Board is rows of panels, from top to bottom.
type Board struct {
	Title, Description string
	Rows               []Row
}

// A Row is panels that belong together, from left to right.
type Row struct {
	Title  string
	Panels []Panel
}

// A Panel shows what its queries find.
type Panel struct {
	Title       string
	Description string // one sentence
	Kind        Kind
	Unit        Unit
	Width       int // of Columns: a third, half or all of them
	Queries     []Query

	// Rule is the alert rule whose thresholds are drawn; empty: none are.
	Rule string

	// Check is a service check that tells the same, for back ends that have them.
	Check string
}

// Columns is how wide a board is.
const Columns = 24

// A Query finds figures, one for each combination of the values of By.
type Query struct {
	Name      string // in the legend, or of the column; needed where a panel has several
	Metric    string // its name in Prometheus
	Func      Func
	Q         float64   // of Quantile: 0 to 1
	Aggregate Aggregate // of Level and Rate
	By        []string
	Match     map[string]string   // tags that the series have
	Except    map[string][]string // values of tags that they do not have

	// Per is a metric of which the same is found, to divide by: the result is a
	// share, unknown where that is 0.
	Per string

	Unit Unit // of the column, in tables
}

// A Kind is how a panel looks.
type Kind string

// The kinds.
const (
	Series Kind = "series" // lines over time
	Stat   Kind = "stat"   // one number, now
	Table  Kind = "table"  // rows by tag, a column a query, now
)

// A Func is what is done with the values of each series.
type Func string

// The functions.
const (
	Level    Func = "level"    // the value as it stands
	Rate     Func = "rate"     // of a counter: how fast it grows, a second
	Quantile Func = "quantile" // of a histogram: of what was observed lately
	Nonzero  Func = "nonzero"  // of how many series the value is not 0
)

// An Aggregate makes one figure of several series.
type Aggregate string

// The aggregates.
const (
	Sum Aggregate = "sum"
	Max Aggregate = "max"
	Min Aggregate = "min"
)

// A Unit is what figures count.
type Unit string

// The units.
const (
	Seconds        Unit = "seconds"
	Bytes          Unit = "bytes"
	BytesPerSecond Unit = "bytes a second"
	Count          Unit = "count"
	PerSecond      Unit = "a second"
	Ratio          Unit = "ratio"  // 0 to 1, shown in percent
	CPUs           Unit = "cpus"   // seconds a second
	Flag           Unit = "flag"   // 0 or 1
	Status         Unit = "status" // 0 pass, 1 warn, 2 fail, 3 unknown
)

// Rules finds an alert rule by its name.
type Rules func(name string) (rule.Rule, bool)
