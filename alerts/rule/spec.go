package rule

import (
	"errors"
	"time"

	"github.com/outrider-agent/outrider/checks/nagios"
)

// A Spec is a rule as a configuration writes it. Exactly one of the functions says how
// the figure is made: Level, which is the default, to Share. What they mean in full, and
// what the ranges, For and KeepFor do, [Rule] says.
type Spec struct {
	Series string            `yaml:"series" required:"true"` // a name
	Source string            `yaml:"source"`                 // a neighbour's or a collector's name; empty: all
	Match  map[string]string `yaml:"match"`                  // tags that the series have; they may have others

	// Except are values of tags that the series do not have; a * at the end of one
	// stands for any text.
	Except map[string][]string `yaml:"except"`

	Level     time.Duration `yaml:"level"`     // the newest sample, at most this old; default 5m
	Rate      time.Duration `yaml:"rate"`      // how fast a counter grew in this window, a second
	Quantile  *QuantileSpec `yaml:"quantile"`  // of the samples of a window
	Absence   time.Duration `yaml:"absence"`   // fails when there was no sample for this long
	Staleness time.Duration `yaml:"staleness"` // fails when the newest sample is older
	Change    *ChangeSpec   `yaml:"change"`    // against earlier
	Share     *ShareSpec    `yaml:"share"`     // of what another counter counts

	// Aggregate is sum, min, max, avg, or worst, which judges each series by itself.
	// Default: sum of rates, changes and shares, max of stalenesses, worst of all
	// others. By keeps apart by tags what is aggregated.
	Aggregate Aggregate `yaml:"aggregate"`
	By        []string  `yaml:"by"`

	Warn      *nagios.Range `yaml:"warn"`
	Crit      *nagios.Range `yaml:"crit"`
	WarnClear *nagios.Range `yaml:"warn_clear"` // recovered only within this
	CritClear *nagios.Range `yaml:"crit_clear"`

	For     time.Duration `yaml:"for"`      // outside for this long before it counts
	KeepFor time.Duration `yaml:"keep_for"` // counts this much longer
}

// QuantileSpec is a quantile of the samples of a window.
type QuantileSpec struct {
	Q      float64       `yaml:"q" required:"true"` // 0 to 1
	Window time.Duration `yaml:"window" default:"5m"`
}

// ChangeSpec is how much more it is than it was.
type ChangeSpec struct {
	Shift  time.Duration `yaml:"shift" required:"true"` // how much earlier
	Window time.Duration `yaml:"window" default:"5m"`   // of a counter's rates; how old a level may be
	Ratio  bool          `yaml:"ratio"`                 // as a part of what it was: -0.5 is half as much
}

// ShareSpec is which part of what All counts the series counts too.
type ShareSpec struct {
	All    string            `yaml:"all" required:"true"` // the name of a series
	Match  map[string]string `yaml:"match"`               // its tags; default: those of the rule, with except
	Window time.Duration     `yaml:"window" default:"5m"`
	Short  time.Duration     `yaml:"short"` // a second window, in which the share must be as bad
	Least  float64           `yaml:"least"` // that All must have grown by in the window
}

const maxReach = 24 * time.Hour // the most that is ever kept

// Validate says what is wrong, all of it: a joined [KeyError] each, at the keys of the
// configuration. An empty key is the rule as a whole.
func (c *Spec) Validate() error {
	given := c.functions()
	if len(given) > 1 {
		return &KeyError{Key: given[1], Got: given[0] + " and " + given[1], Want: "one of level, rate, quantile, absence, staleness, change and share"}
	}
	var errs []error
	if c.Absence != 0 || c.Staleness != 0 {
		for _, r := range []struct {
			key string
			is  *nagios.Range
		}{{"warn", c.Warn}, {"crit", c.Crit}, {"warn_clear", c.WarnClear}, {"crit_clear", c.CritClear}} {
			if r.is != nil {
				errs = append(errs, &KeyError{Key: r.key, Got: r.is.String(), Want: "no range with " + given[0] + ", which is the limit itself"})
			}
		}
	}
	if c.Absence != 0 && (c.Aggregate != "" || len(c.By) > 0) {
		errs = append(errs, &KeyError{Key: "absence", Got: "aggregate or by", Want: "neither: all series together are absent"})
	}
	r := c.Rule("")
	for _, e := range KeyErrors(r.Validate()) {
		errs = append(errs, c.inPlace(e, given))
	}
	if reach := r.Reach(); reach > maxReach {
		errs = append(errs, &KeyError{Key: append(given, "level")[0], Got: reach.String() + " in all", Want: "24h at most, as the history"})
	}
	return errors.Join(errs...)
}

// KeyErrors are those that an error of a rule is made of.
func KeyErrors(err error) (out []*KeyError) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			out = append(out, KeyErrors(err)...)
		}
		return out
	}
	if e, ok := errors.AsType[*KeyError](err); ok {
		out = append(out, e)
	}
	return out
}

// functions are the keys of those that are given.
func (c *Spec) functions() (given []string) {
	for _, f := range []struct {
		key   string
		given bool
	}{
		{"level", c.Level != 0},
		{"rate", c.Rate != 0},
		{"quantile", c.Quantile != nil},
		{"absence", c.Absence != 0},
		{"staleness", c.Staleness != 0},
		{"change", c.Change != nil},
		{"share", c.Share != nil},
	} {
		if f.given {
			given = append(given, f.key)
		}
	}
	return given
}

// inPlace puts a rule's error at the key of the configuration.
func (c *Spec) inPlace(e *KeyError, given []string) error {
	f := &KeyError{Key: e.Key, Got: e.Got, Want: e.Want}
	switch {
	case f.Key == "quantile":
		f.Key = "quantile.q"
	case f.Key == "shift":
		f.Key = "change.shift"
	case f.Key == "all" || f.Key == "short" || f.Key == "least":
		f.Key = "share." + f.Key
	case f.Key == "window" && (c.Quantile != nil || c.Change != nil || c.Share != nil):
		f.Key = given[0] + ".window"
	case f.Key == "window" && len(given) == 1:
		f.Key = given[0]
	case f.Key == "warn and crit":
		f.Key, f.Got = "", "neither warn nor crit"
	}
	return f
}

// Rule is what the configuration means.
func (c *Spec) Rule(name string) Rule {
	r := Rule{
		Name: name, Series: Selector{Source: c.Source, Name: c.Series, Tags: c.Match, Except: c.Except}, Aggregate: c.Aggregate, By: c.By,
		Warn: c.Warn, Crit: c.Crit, WarnClear: c.WarnClear, CritClear: c.CritClear, For: c.For, KeepFor: c.KeepFor,
	}
	switch {
	case c.Rate != 0:
		r.Func, r.Window = Rate, c.Rate
	case c.Quantile != nil:
		r.Func, r.Window, r.Quantile = Quantile, c.Quantile.Window, c.Quantile.Q
	case c.Absence != 0:
		r.Func, r.Window = Absence, c.Absence
		r.Crit = new(nagios.Range) // 0
	case c.Staleness != 0:
		r.Func, r.Window = Staleness, max(time.Hour, 2*c.Staleness)
		r.Crit = &nagios.Range{End: c.Staleness.Seconds()}
	case c.Change != nil:
		r.Func, r.Window, r.Shift, r.Ratio = Change, c.Change.Window, c.Change.Shift, c.Change.Ratio
	case c.Share != nil:
		r.Func, r.Window, r.Short, r.Least = Share, c.Share.Window, c.Share.Short, c.Share.Least
		r.All = Selector{Source: c.Source, Name: c.Share.All, Tags: c.Share.Match}
		if c.Share.Match == nil {
			r.All.Tags, r.All.Except = c.Match, c.Except
		}
	default:
		r.Func, r.Window = Level, c.Level
	}
	return r.WithDefaults()
}
