package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// Beside what [nagios.Plain] knows: a backslash is an escape in the command file of
// Nagios. Of the first line, pagers show little.

const (
	mostText   = verdict.MaxMessage // bytes of a text, of which a line has one
	mostNames  = 300                // bytes of that, for the checks that it names
	mostNamed  = 8                  // checks that the first line names
	mostPhrase = 80                 // characters of what it says of one
	mostPerf   = 8192
)

// A report is what a plugin says.
type report struct {
	status verdict.Status
	text   string
	perf   []verdict.Measure
	more   []string // lines
}

// print writes the report, and returns the exit code.
func (r report) print(w io.Writer) error {
	var b strings.Builder
	b.WriteString(nagiosLine(word(r.status)+" "+r.text, r.perf, mostPerf))
	for _, line := range r.more {
		b.WriteString(nagiosLine(line, nil, 0))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return exitCode(verdict.Unknown) // there is nobody left to tell
	}
	return exitWith(r.status)
}

func word(s verdict.Status) string { return strings.ToUpper(s.String()) }

// nagiosLine is one line, whatever is in the text, with at most so many bytes of
// performance data.
func nagiosLine(text string, perf []verdict.Measure, most int) string {
	text = nagiosText(text, mostText)
	if data := nagiosPerf(perf, most); data != "" {
		return text + " | " + data + "\n"
	}
	return text + "\n"
}

// nagiosText is one line that Nagios shows as it is. It has at most so many bytes.
func nagiosText(text string, most int) string {
	text = nagios.Plain(strings.ReplaceAll(text, `\`, "/"))
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("...")], "") + "..."
}

// nagiosPerf leaves out what would be a second of one label, and what comes
// when there is no room.
func nagiosPerf(measures []verdict.Measure, most int) string {
	var out []string
	seen, left := map[string]bool{}, most
	for _, m := range measures {
		item := nagios.FormatPerf([]verdict.Measure{m})
		if seen[m.Label] || len(item) > left {
			continue
		}
		seen[m.Label] = true
		left -= len(item) + 1
		out = append(out, item)
	}
	return strings.Join(out, " ")
}

// perfUnit is a unit in the words of performance data; none when it has none for
// it.
func perfUnit(unit string) string {
	switch unit {
	case "s", "second", "seconds":
		return "s"
	case "ms", "milliseconds":
		return "ms"
	case "us", "microseconds":
		return "us"
	case "%", "percent":
		return "%"
	case "B", "byte", "bytes":
		return "B"
	}
	return ""
}

// summary is the report on a digest: first what broke last, since for Nagios a
// service that is down already has nothing new to say but its text.
func (d *digest) summary(t *target, what string, verbose int, took, within time.Duration, now time.Time) report {
	r := report{status: *d.Status}
	counts := map[verdict.Status]int{}
	var named []string
	for _, c := range d.rows {
		counts[*c.Status]++
		if *c.Status != verdict.Pass && len(named) < mostNamed {
			named = append(named, c.phrase(len(named) == 0, now))
		}
		if verbose > 0 {
			r.more = append(r.more, c.line(verbose))
		}
	}
	bad := len(d.rows) - counts[verdict.Pass]
	if bad > len(named) {
		named = append(named, fmt.Sprintf("and %d more", bad-len(named)))
	}
	r.text = fmt.Sprintf("%s: %d %s pass", cmp.Or(d.Service, t.shown), len(d.rows), what)
	if bad > 0 {
		var told []string
		for _, s := range []verdict.Status{verdict.Fail, verdict.Unknown, verdict.Warn} {
			if counts[s] > 0 {
				told = append(told, fmt.Sprintf("%d %s", counts[s], s))
			}
		}
		r.text = fmt.Sprintf("%s: %s; %s of %d %s", cmp.Or(d.Service, t.shown), nagiosText(strings.Join(named, ", "), mostNames), strings.Join(told, ", "), len(d.rows), what)
	}
	if d.Fingerprint != "" {
		r.text += " [fingerprint " + d.Fingerprint + "]"
	}
	zero, most := 0.0, within.Seconds()
	r.perf = []verdict.Measure{
		{Label: "time", Value: took.Seconds(), Unit: "s", Min: &zero, Max: &most},
		{Label: "checks", Value: float64(len(d.rows)), Min: &zero},
	}
	for _, s := range []verdict.Status{verdict.Fail, verdict.Unknown, verdict.Warn} {
		r.perf = append(r.perf, verdict.Measure{Label: s.String(), Value: float64(counts[s]), Min: &zero})
	}
	for _, c := range d.rows {
		r.perf = append(r.perf, c.measures()...)
	}
	return r
}

// phrase is a check in the first line: the first of them says what it has, the
// others say their names.
func (c *digestCheck) phrase(first bool, now time.Time) string {
	var what []string
	if *c.Status != verdict.Fail {
		what = append(what, c.Status.String())
	}
	if first && c.Output != "" {
		text := []rune(c.Output)
		if len(text) > mostPhrase {
			text = append(text[:mostPhrase], []rune("...")...)
		}
		what = append(what, string(text))
	}
	if c.Acknowledged != nil {
		what = append(what, "acknowledged")
	}
	if first && !c.since.IsZero() {
		at := "15:04Z"
		if age := now.Sub(c.since); age >= 20*time.Hour || age < 0 {
			at = "2006-01-02 15:04Z"
		}
		what = append(what, "since "+c.since.UTC().Format(at))
	}
	if len(what) == 0 {
		return c.name
	}
	return c.name + " (" + strings.Join(what, ", ") + ")"
}

// line is a check in the lines that follow.
func (c *digestCheck) line(verbose int) string {
	text := fmt.Sprintf("[%s] %s", word(*c.Status), c.name)
	if c.Output != "" {
		text += ": " + c.Output
	}
	if !c.since.IsZero() {
		text += ", since " + c.since.UTC().Format(time.RFC3339)
	}
	if c.Acknowledged != nil {
		text += fmt.Sprintf(", acknowledged by %s: %s", c.Acknowledged.Who, c.Acknowledged.Why)
	}
	if verbose > 1 && c.Category != "" {
		text += ", category " + string(c.Category)
	}
	if verbose > 1 && c.Runbook != "" {
		text += ", runbook " + c.Runbook
	}
	return text
}
