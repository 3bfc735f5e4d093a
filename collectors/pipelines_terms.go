package collectors

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

// A Term is one series, all series of a name added up, or a sum of such, less
// others: what came in less what went out, say, of a neighbour that counts both,
// and not what waits between.
type Term struct {
	Selection
	Sum  []Selection `yaml:"sum"`
	Less []Selection `yaml:"less"`

	none, unknown bool
}

// A Selection is the series of one name whose tags are as given.
type Selection struct {
	Series string            `yaml:"series"`
	Match  map[string]string `yaml:"match"`
	By     string            `yaml:"by"` // for retries and drops: the tag that says why
	As     string            `yaml:"as"` // why, where there is no such tag

	optional bool // the neighbour counts this only when it is told to: 0 is not known
}

// UnmarshalText reads a term that is not a mapping.
func (t *Term) UnmarshalText(text []byte) error {
	switch string(text) {
	case "none":
		t.none = true
	case "unknown":
		t.unknown = true
	default:
		return errors.New("want a mapping with series or sum, none, or unknown")
	}
	return nil
}

// Validate wants exactly one way to find the term.
func (t *Term) Validate() error {
	switch {
	case t.none || t.unknown:
		return nil
	case t.Series == "" && len(t.Sum) == 0:
		return &config.FieldError{Key: "series", Got: "nothing", Want: "the name of a series; or sum, none, or unknown"}
	case t.Series != "" && len(t.Sum) > 0:
		return &config.FieldError{Key: "sum", Got: "series and sum", Want: "one of them"}
	}
	for key, selections := range map[string][]Selection{"sum": t.Sum, "less": t.Less} {
		for i, s := range selections {
			if s.Series == "" {
				return &config.FieldError{Key: fmt.Sprintf("%s[%d].series", key, i), Got: "nothing", Want: "the name of a series"}
			}
		}
	}
	return nil
}

// found is a term's value, by cause or reason; nil: it is not known.
type found map[string]float64

func (f found) total() (sum float64) {
	for _, v := range f {
		sum += v
	}
	return sum
}

// most is the greatest of the values; 0 when there is none above it.
func (f found) most() (most float64) {
	for _, v := range f {
		most = max(most, v)
	}
	return most
}

// add returns the sum; it is not known when one of them is not.
func (f found) add(g found, factor float64) found {
	if f == nil || g == nil {
		return nil
	}
	for why, v := range g {
		f[why] += factor * v
	}
	return f
}

// A tally is a term's value for each target.
type tally struct {
	of   map[string]found
	rest found // of targets that no series speaks of
}

func (y tally) at(target string) found {
	if f, ok := y.of[target]; ok {
		return f
	}
	return y.rest
}

// in adds up the series of the term, for each value of a tag; with no tag, for the
// target "". Ages are not added up: each series is a reason of its own.
func (t *Term) in(fams map[string]*metrics.Family, tag string, is metrics.Terms) tally {
	switch {
	case t == nil || t.unknown:
		return tally{}
	case t.none:
		return tally{rest: found{}}
	}
	sum := tally{of: map[string]found{}, rest: found{}}
	if t.Series != "" {
		sum.add(t.Selection.in(fams, tag, is), 1)
	}
	for _, s := range t.Sum {
		sum.add(s.in(fams, tag, is), 1)
	}
	for _, s := range t.Less {
		sum.add(s.in(fams, tag, is), -1)
	}
	return sum
}

func (y *tally) add(z tally, factor float64) {
	for target := range z.of {
		if _, ok := y.of[target]; !ok {
			y.of[target] = maps.Clone(y.rest)
		}
	}
	for target, f := range y.of {
		y.of[target] = f.add(z.at(target), factor)
	}
	y.rest = y.rest.add(z.rest, factor)
}

// in adds up the series. Where the neighbour says that there is such a metric, and
// shows no series, nothing has been counted yet. A gauge of what waits, and for how
// long, then says nothing.
func (s Selection) in(fams map[string]*metrics.Family, tag string, is metrics.Terms) tally {
	f := fams[s.Series]
	if f == nil {
		return tally{}
	}
	y := tally{of: map[string]found{}, rest: found{}}
	names := f.Desc.Tags
	level := f.Desc.Type == metrics.GaugeType && is&(metrics.QueuedTerm|metrics.OldestTerm) != 0
	apart := tag != "" && len(f.Points) > 0 && !slices.Contains(names, tag) // it does not tell targets apart
	if level || apart || s.optional {
		y.rest = nil
	}
	for _, p := range f.Points {
		target := tagOf(names, p.Tags, tag)
		if tag != "" && target == "" || !s.matches(names, p.Tags) {
			continue
		}
		sum, ok := y.of[target]
		if !ok {
			sum = found{}
		}
		why := s.why(names, p.Tags)
		if is == metrics.OldestTerm {
			why = s.Series + "\xff" + strings.Join(p.Tags, "\xff")
		}
		y.of[target] = sum.add(amount(p, why), 1)
	}
	if s.optional {
		for target, f := range y.of {
			if f.total() == 0 {
				y.of[target] = nil
			}
		}
	}
	return y
}

// amount is a point's value; of a histogram the number of its values. One that is
// no number is not known.
func amount(p metrics.Point, why string) found {
	v := p.Value
	if p.Hist != nil {
		v = float64(p.Hist.Count)
	}
	if math.IsNaN(v) || math.Abs(v) > math.MaxInt64/2 {
		return nil
	}
	return found{why: v}
}

func (s Selection) matches(names, values []string) bool {
	for name, want := range s.Match {
		if tagOf(names, values, name) != want {
			return false
		}
	}
	return true
}

// why is the value of the tag that says so.
func (s Selection) why(names, values []string) string {
	return cmp.Or(tagOf(names, values, s.By), s.As, "unspecified")
}

// tagOf is a tag's value; "": there is no such tag.
func tagOf(names, values []string, tag string) string {
	if i := slices.Index(names, tag); tag != "" && i >= 0 {
		return values[i]
	}
	return ""
}
