package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// The plugin as a judge. Given ranges, it takes a check's figure from the digest and
// comes to a verdict of its own, so that the limits are Nagios' to set. Nothing is a
// pass but a figure that is fine, and a check that passes without one: what is late,
// unknown or not there is unknown.

// A judge has ranges, and what Nagios thinks of the service so far.
type judge struct {
	warn, crit, warnClear, critClear rangeFlag
	last, lastType                   string
}

// A rangeFlag is a range, or nothing: a macro of Nagios may be empty.
type rangeFlag struct {
	is    *nagios.Range
	given bool
}

func (r *rangeFlag) Type() string { return "range" }

func (r *rangeFlag) String() string {
	if r.is == nil {
		return ""
	}
	return r.is.String()
}

// Set implements the flag.
func (r *rangeFlag) Set(text string) error {
	r.is, r.given = nil, true
	if text == "" {
		return nil
	}
	parsed, err := nagios.ParseRange(text)
	if err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), "~:10, ", "")) // a plugin's line has no ~
	}
	r.is = &parsed
	return nil
}

// A checkFlag is the name of a check, and how often one was given: the last one counts.
type checkFlag struct {
	name  string
	times int
}

func (c *checkFlag) String() string { return c.name }
func (c *checkFlag) Type() string   { return "string" }

// Set implements the flag.
func (c *checkFlag) Set(text string) error {
	c.name = text
	c.times++
	return nil
}

func (j *judge) addFlags(c *cobra.Command) {
	flags := c.Flags()
	flags.Var(&j.warn, "warn", "judge the figure of --check: outside of this range it warns")
	flags.Var(&j.crit, "crit", "outside of this range it fails")
	flags.Var(&j.warnClear, "warn-clear", "once it warns, it does until it is within this range")
	flags.Var(&j.critClear, "crit-clear", "once it fails, it does until it is within this range")
	flags.StringVar(&j.last, "last", "", "state of the service so far: $SERVICESTATE$")
	flags.StringVar(&j.lastType, "last-type", "", "SOFT or HARD: $SERVICESTATETYPE$")
}

// on reports whether there is something to judge by.
func (j *judge) on() bool { return j.warn.is != nil || j.crit.is != nil }

// validate refuses flags that make no sense with each other.
func (j *judge) validate(f *digestFlags) error {
	clears := j.warnClear.is != nil || j.critClear.is != nil
	switch {
	case j.last != "" && !slices.Contains([]string{"OK", "WARNING", "CRITICAL", "UNKNOWN", "PENDING"}, j.last):
		return fmt.Errorf("--last: got %q, want OK, WARNING, CRITICAL, UNKNOWN or PENDING", j.last)
	case j.lastType != "" && j.lastType != "SOFT" && j.lastType != "HARD":
		return fmt.Errorf("--last-type: got %q, want SOFT or HARD", j.lastType)
	case (j.last == "") != (j.lastType == ""):
		return errors.New("got only one of --last and --last-type, want both or none")
	case !j.on() && (j.last != "" || clears || j.warn.given || j.crit.given):
		return errors.New("got neither --warn nor --crit with a range, want one: the others are about these")
	case !j.on():
		return nil
	case f.check.name == "":
		return errors.New("--warn and --crit: got no --check, want the check whose figure they judge")
	case f.check.times > 1:
		return fmt.Errorf("--check: got it %d times with --warn or --crit, want it once", f.check.times)
	case clears && j.last == "":
		return errors.New("--warn-clear and --crit-clear: got no --last and --last-type, want them: only a level that has been reached is cleared")
	case f.file != "":
		return errors.New("--fan-out: got --warn or --crit, too, want one or the other")
	}
	r := rule.Rule{
		Series: rule.Selector{Name: f.check.name},
		Warn:   j.warn.is, Crit: j.crit.is, WarnClear: j.warnClear.is, CritClear: j.critClear.is,
	}
	for _, e := range rule.KeyErrors(r.Validate()) {
		return fmt.Errorf("--%s: got %s, want %s", strings.ReplaceAll(e.Key, "_", "-"), e.Got, e.Want)
	}
	return nil
}

// level is what a figure comes to, and the range that it should be in for less. A
// clear range counts for what Nagios holds to be true, not for what it still tries
// again. Who is critical has been warned.
func (j *judge) level(v float64) (level verdict.Status, want *nagios.Range, clearing bool) {
	failed := j.lastType == "HARD" && j.last == "CRITICAL"
	warned := j.lastType == "HARD" && (failed || j.last == "WARNING")
	for _, l := range []struct {
		level        verdict.Status
		alert, clear *nagios.Range
		raised       bool
	}{{verdict.Fail, j.crit.is, j.critClear.is, failed}, {verdict.Warn, j.warn.is, j.warnClear.is, warned}} {
		switch {
		case l.alert == nil:
		case l.alert.Alerts(v):
			return l.level, l.alert, false
		case l.raised && l.clear != nil && l.clear.Alerts(v):
			return l.level, l.clear, true
		}
	}
	return verdict.Pass, nil, false
}

// judged is the report on one check's figure.
func (f *digestFlags) judged(d *digest, t *target, took time.Duration) report {
	j, name, from, within := &f.judge, f.check.name, cmp.Or(d.Service, t.shown), time.Duration(f.within)
	unknown := func(format string, args ...any) report {
		return report{status: verdict.Unknown, text: from + ": " + fmt.Sprintf(format, args...)}
	}
	if len(d.rows) == 0 {
		return unknown("%s", notThere(name))
	}
	c := d.rows[0]
	said := ""
	if c.Output != "" {
		said = " (" + c.Output + ")"
	}
	v, err := strconv.ParseFloat(string(c.Value), 64)
	none := len(c.Value) == 0 || string(c.Value) == "null"
	switch {
	case len(d.rows) > 1 || c.name != name:
		return unknown("got %d checks, the first of them %s, want %s alone", len(d.rows), c.name, name)
	case c.late():
		return unknown("%s is late%s", name, said)
	case given(c.Maintenance):
		return report{text: fmt.Sprintf("%s: %s is in maintenance%s", from, name, said), perf: timed(took, within)}
	case *c.Status == verdict.Unknown:
		return unknown("%s is not known%s", name, said)
	case none && *c.Status == verdict.Pass:
		return report{text: fmt.Sprintf("%s: %s: nothing to judge%s", from, name, said), perf: timed(took, within)}
	case none:
		return unknown("%s has no figure to judge, and it says %s%s", name, c.Status, said)
	case err != nil:
		return unknown("the figure of %s is %.50s, want a number", name, c.Value)
	}
	r := report{text: fmt.Sprintf("%s: %s is %s", from, name, nagios.Figure(v, j.warn.is, j.crit.is, j.warnClear.is, j.critClear.is))}
	if f.verbose > 0 {
		r.more = []string{c.line(f.verbose)}
	}
	level, want, clearing := j.level(v)
	if r.status = level; want != nil {
		r.text += ", want " + inWords(*want)
	}
	if clearing {
		r.text += " to recover"
	}
	r.text += said
	r.perf = append(timed(took, within), verdict.Measure{Label: name, Value: v, Unit: perfUnit(c.Unit), Warn: j.warn.String(), Crit: j.crit.String()})
	return r
}

// late reports whether what a check measured is of long ago, or may be.
func (c *digestCheck) late() bool { return given(c.Stale) && string(c.Stale) != "false" }

// given reports whether a key is there, and not null.
func given(v json.RawMessage) bool { return len(v) > 0 && string(v) != "null" }

// notThere says that a check is missing, and what of an agent may be the reason.
func notThere(name string) string {
	text := "no check " + name + " there"
	if strings.HasPrefix(name, "alert/") {
		text += ": has the agent alerts: {} in its configuration, and this rule?"
	}
	return text
}

// without takes out the checks whose names begin so, which others tell of. Those of
// which nothing is known stay: whoever judges figures has none of them.
func (d *digest) without(prefix string) {
	worst := func() verdict.Status {
		if len(d.rows) == 0 {
			return verdict.Pass
		}
		return *d.rows[0].Status // they are sorted
	}
	before, n := worst(), len(d.rows)
	d.rows = slices.DeleteFunc(d.rows, func(c digestCheck) bool {
		return strings.HasPrefix(c.name, prefix) && *c.Status != verdict.Unknown && !c.late()
	})
	if len(d.rows) == n {
		return
	}
	d.Fingerprint = "" // of them all
	if after := worst(); *d.Status == before {
		d.Status = &after
	}
}

// inWords is a range as a line of a plugin can say it, which has no ~.
func inWords(r nagios.Range) string {
	start, end := strconv.FormatFloat(r.Start, 'g', -1, 64), strconv.FormatFloat(r.End, 'g', -1, 64)
	low, high := !math.IsInf(r.Start, -1), !math.IsInf(r.End, 1)
	switch {
	case r.Inside && low && high:
		return "less than " + start + " or more than " + end
	case r.Inside && low:
		return "less than " + start
	case r.Inside && high:
		return "more than " + end
	case low && high && r.Start == r.End:
		return start
	case low && high:
		return start + " to " + end
	case high:
		return "at most " + end
	case low:
		return "at least " + start
	}
	return "nothing at all"
}

// timed is how long it took to ask.
func timed(took, within time.Duration) []verdict.Measure {
	zero, most := 0.0, within.Seconds()
	return []verdict.Measure{{Label: "time", Value: took.Seconds(), Unit: "s", Min: &zero, Max: &most}}
}
