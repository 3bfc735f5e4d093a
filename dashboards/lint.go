package dashboards

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// Lint says what is wrong with a board: panels that do not say what they show, metrics
// and tags that the agent does not have, and functions that do not go with a metric.
func Lint(b *Board, own catalogue.Catalogue) error {
	var errs []error
	titles := map[string]bool{}
	for _, row := range b.Rows {
		for _, p := range row.Panels {
			for _, text := range lintPanel(p, own) {
				errs = append(errs, fmt.Errorf("row %s: panel %s: %s", row.Title, p.Title, text))
			}
			if titles[p.Title] {
				errs = append(errs, fmt.Errorf("row %s: panel %s: got the title twice, want one panel of a title", row.Title, p.Title))
			}
			titles[p.Title] = true
		}
	}
	return errors.Join(errs...)
}

// units are those that there are. Read-only.
var units = []Unit{Seconds, Bytes, BytesPerSecond, Count, PerSecond, Ratio, CPUs, Flag, Status}

func lintPanel(p Panel, own catalogue.Catalogue) (out []string) {
	wrong := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if p.Title == "" {
		wrong("title: got nothing, want a title")
	}
	if !strings.HasSuffix(p.Description, ".") || strings.Contains(p.Description, ". ") {
		wrong("description: got %q, want one sentence", p.Description)
	}
	if !slices.Contains([]Kind{Series, Stat, Table}, p.Kind) {
		wrong("kind: got %q, want series, stat or table", p.Kind)
	}
	if p.Kind != Table && !slices.Contains(units, p.Unit) {
		wrong("unit: got %q, want one of %q", p.Unit, units)
	}
	if !slices.Contains([]int{Columns / 3, Columns / 2, Columns}, p.Width) {
		wrong("width: got %d, want 8, 12 or 24", p.Width)
	}
	switch n := len(p.Queries); {
	case n == 0:
		wrong("queries: got none, want one")
	case p.Kind == Stat && n > 1:
		wrong("queries: got %d for one number, want one", n)
	case p.Kind == Table && n < 2:
		wrong("queries: got one column, want two or more")
	case n > len(letters):
		wrong("queries: got %d, want %d at most", n, len(letters))
	}
	names := map[string]bool{}
	for _, q := range p.Queries {
		if len(p.Queries) > 1 && (q.Name == "" || names[q.Name]) {
			wrong("%s: name: got %q, want another one for each query of a panel", q.Metric, q.Name)
		}
		names[q.Name] = true
		if p.Kind == Table && (!slices.Contains(units, q.Unit) || len(q.By) == 0 || !slices.Equal(q.By, p.Queries[0].By)) {
			wrong("%s: unit %q by %q: want a unit, and the same tags for each column", q.Metric, q.Unit, q.By)
		}
		lintQuery(q, own, wrong)
	}
	return out
}

func lintQuery(q Query, own catalogue.Catalogue, wrong func(string, ...any)) {
	for _, name := range []string{q.Metric, q.Per} {
		d, found := own.Find(name)
		switch {
		case name == "": // no Per
		case !found:
			wrong("got the metric %s, which the agent does not have, want a name of docs/metrics.md", name)
		case typeFor(q.Func) != d.Type:
			wrong("%s of %s: got a %s, want a %s", q.Func, name, d.Type, typeFor(q.Func))
		default:
			for _, tag := range slices.Concat(q.By, slices.Collect(maps.Keys(q.Match)), slices.Collect(maps.Keys(q.Except))) {
				if !slices.Contains(d.Tags, tag) {
					wrong("%s: got the tag %s, want one of %q", name, tag, d.Tags)
				}
			}
		}
	}
	if q.Func == Quantile && !(q.Q > 0 && q.Q < 1) {
		wrong("%s: got the quantile %v, want one between 0 and 1", q.Metric, q.Q)
	}
	if (q.Func == Level || q.Func == Rate) != slices.Contains([]Aggregate{Sum, Max, Min}, q.Aggregate) {
		wrong("%s of %s: got the aggregate %q, want sum, max or min of a level or a rate, and none of others", q.Func, q.Metric, q.Aggregate)
	}
	if q.Per != "" && q.Func != Rate {
		wrong("%s of %s: got one by %s, want shares of rates only", q.Func, q.Metric, q.Per)
	}
}

// typeFor is what a function reads.
func typeFor(f Func) metrics.Type {
	switch f {
	case Rate:
		return metrics.CounterType
	case Quantile:
		return metrics.HistogramType
	}
	return metrics.GaugeType
}
