package runner

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// renderText writes what the Kubernetes API server writes for ?verbose, with
// marks for the two statuses that it does not know.
func renderText(d Digest, full bool) []byte {
	var b bytes.Buffer
	for _, c := range d.Checks {
		mark, said := "?", c.Status.String()
		switch c.Status {
		case verdict.Pass:
			mark, said = "+", "ok"
		case verdict.Warn:
			mark = "!"
		case verdict.Fail:
			mark, said = "-", "failed"
		}
		fmt.Fprintf(&b, "[%s]%s %s", mark, c.Name, said)
		if full {
			if text := sentence(c); text != "" {
				// check_http -B passes this on to Nagios, for which a bar starts
				// performance data.
				fmt.Fprintf(&b, ": %s", strings.ReplaceAll(text, "|", "/"))
			}
		}
		b.WriteByte('\n')
	}
	outcome := "passed"
	if d.Status == verdict.Fail {
		outcome = "failed"
	}
	fmt.Fprintf(&b, "healthz check %s\n", outcome)
	return b.Bytes()
}

// sentence is what a person has to read of a check; nothing when all is well.
func sentence(c CheckDigest) string {
	if c.Status == verdict.Pass && c.Found == verdict.Pass {
		return ""
	}
	if c.Acknowledged != nil {
		return strings.TrimSuffix(fmt.Sprintf("acknowledged by %s (%s); %s", c.Acknowledged.Who, c.Acknowledged.Why, c.Message), "; ")
	}
	return c.Message
}

// renderNagios writes what a Nagios plugin prints: one line, and the performance
// data of what the checks measured. The newest failure comes first, so that a
// second failure behind the first changes the line.
func renderNagios(d Digest, full bool) []byte {
	line := "OUTRIDER " + strings.ToUpper(d.Status.String()) + ": "
	switch {
	case d.Output != "":
		line += d.Output
	case d.Status == verdict.Pass:
		line += counted(len(d.Checks), "check passes", "checks pass")
	default:
		var names []string
		for _, c := range d.Checks {
			if c.Status == d.Status {
				names = append(names, c.Name)
			}
		}
		line += fmt.Sprintf("%d of %s %v: %s", len(names), counted(len(d.Checks), "check", "checks"), d.Status, listed(names))
	}
	if full {
		for _, note := range d.Notes {
			line += "; " + note
		}
		for _, c := range d.Checks {
			if text := sentence(c); text != "" {
				line += "; " + c.Name + ": " + text
			}
		}
	}
	line = nagios.Plain(line)
	if perf := perfdata(d); full && perf != "" {
		line += " | " + perf
	}
	return []byte(line + "\n")
}

// perfdata has a figure for each value that a check measured.
func perfdata(d Digest) string {
	var all []verdict.Measure
	for _, c := range d.Checks {
		if c.Value != nil {
			all = append(all, verdict.Measure{Label: c.Name, Value: *c.Value, Unit: nagiosUnit(c.Unit)})
		}
		for _, m := range c.Measures {
			m.Label = c.Name + "::" + m.Label // as check_multi does
			all = append(all, m)
		}
	}
	return nagios.FormatPerf(all)
}

func nagiosUnit(unit string) string {
	switch unit {
	case "seconds", "second", "s":
		return "s"
	case "bytes", "byte", "B":
		return "B"
	case "percent", "%":
		return "%"
	}
	return ""
}
