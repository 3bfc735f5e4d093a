package alerts

import (
	"math"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// A bound is one side of a range: a figure for which "figure op value" holds is not
// well.
type bound struct {
	op    string // < or >; of a range whose inside alerts >= or <=
	value float64
}

// A domain is the figures that there can be, both ends included.
type domain struct{ low, high float64 }

// bounds are the sides of a range that a figure can be outside of. Of a range whose
// inside alerts all have to hold at once, of others one is enough. None: it can never
// alert; or, of one whose inside alerts, always.
func bounds(r nagios.Range, d domain) (out []bound) {
	low, high := ">=", "<="
	if !r.Inside {
		low, high = "<", ">"
	}
	if !math.IsInf(r.Start, 0) && r.Start > d.low {
		out = append(out, bound{low, r.Start})
	}
	if !math.IsInf(r.End, 0) && r.End < d.high {
		out = append(out, bound{high, r.End})
	}
	return out
}

// never reports whether no figure that there can be alerts, and always whether all do.
func never(r nagios.Range, d domain) bool {
	if r.Inside {
		return r.Start > d.high || r.End < d.low
	}
	return r.Start <= d.low && r.End >= d.high
}

func always(r nagios.Range, d domain) bool {
	r.Inside = !r.Inside
	return never(r, d)
}

// flags are units of gauges that are between 0 and 1. Read-only.
var flags = []string{"flag", "bool", "ratio"}

// positive are ends of names of series that are never below 0. Read-only.
var positive = []string{"_count", "_total"}

// domainOf is what a rule's figures can be. Of series that the catalogue does not have
// nothing is known but what the function tells.
func domainOf(r rule.Rule, own catalogue.Catalogue) domain {
	inf := math.Inf(1)
	d, known := own.Find(r.Series.Name)
	switch r.Func {
	case rule.Rate, rule.Staleness, rule.Share:
		return domain{0, inf}
	case rule.Absence:
		return domain{0, 1}
	case rule.Change:
		return domain{-inf, inf}
	}
	sums := r.Aggregate == rule.Sum
	switch {
	case d.Name == "outrider_pipeline_balance":
		return domain{-inf, inf}
	case !known && !slices.ContainsFunc(positive, func(end string) bool { return strings.HasSuffix(r.Series.Name, end) }):
		return domain{-inf, inf}
	case slices.Contains(flags, d.Unit) && !sums:
		return domain{0, 1}
	case d.Unit == "status" && !sums:
		return domain{0, 3}
	}
	return domain{0, inf}
}
