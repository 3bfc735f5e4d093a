package nagios

import (
	"bytes"
	"strings"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// Where things stand in what a plugin prints, as Nagios Core 4 reads it
// (base/checks.c, parse_check_output):
//
//	TEXT | PERF
//	LONG
//	LONG | PERF
//	PERF
//
// The first line's text ends at its first bar. In the lines after it the first
// bar begins performance data, which then takes all that follows, line breaks
// included. Unlike there, a zero byte does not end the output.

// maxBad is how many errors an [Output] keeps.
const maxBad = 10

// An Output is what a plugin printed.
type Output struct {
	Text string // of the first line, without the space around it
	Long string // the further lines
	Perf []verdict.Measure

	// Bad says what of the performance data could not be read: the first ten,
	// of BadCount. The rest of it is in Perf.
	Bad      []error
	BadCount int
}

// ParseOutput reads what a plugin printed. Invalid UTF-8 becomes U+FFFD. There is
// nothing that it refuses: bad performance data is counted and named.
func ParseOutput(printed []byte) Output {
	all := strings.ReplaceAll(string(bytes.ToValidUTF8(printed, []byte("\ufffd"))), "\r\n", "\n")
	first, rest, _ := strings.Cut(all, "\n")
	text, perf, _ := strings.Cut(first, "|")
	long, more, found := strings.Cut(rest, "|")
	if found {
		perf += "\n" + more
	}
	o := Output{Text: strings.TrimSpace(text), Long: strings.TrimRight(long, " \t\r\n")}
	o.parsePerf(perf)
	return o
}

func (o *Output) bad(err error) {
	o.BadCount++
	if len(o.Bad) < maxBad {
		o.Bad = append(o.Bad, err)
	}
}

// ExitCode is the status that a plugin ends with. What is none of the four is
// unknown.
func ExitCode(s verdict.Status) int {
	if s < verdict.Pass || s > verdict.Unknown {
		s = verdict.Unknown
	}
	return int(s)
}

// FromExitCode is the status that a plugin's end means. A code that is not 0 to 3
// is out of bounds, and to Nagios a failure.
func FromExitCode(code int) (s verdict.Status, inBounds bool) {
	if code < ExitCode(verdict.Pass) || code > ExitCode(verdict.Unknown) {
		return verdict.Fail, false
	}
	return verdict.Status(code), true
}

// Word is what Nagios calls a status: OK, WARNING, CRITICAL or UNKNOWN.
func Word(s verdict.Status) string {
	return [...]string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}[ExitCode(s)]
}

// plain replaces the characters that end a plugin's text, or that Nagios takes
// out of its macros by default (illegal_macro_output_chars), by such as are left
// alone. What only quotes goes. Read-only.
var plain = strings.NewReplacer(
	"|", "/", "<", "(", ">", ")", "&", "+", "~", "-", "$", "_",
	"`", "", `"`, "", "'", "",
)

// Plain is a text in one line, cleaned as [verdict.Clean] does, that Nagios shows
// as it is.
func Plain(text string) string {
	return strings.TrimSpace(verdict.Clean(plain.Replace(text)))
}

// Line is the line that a plugin prints: CRITICAL: text | performance data.
// Text may be anything.
func Line(s verdict.Status, text string, perf []verdict.Measure) string {
	line := Word(s)
	if text = Plain(text); text != "" {
		line += ": " + text
	}
	if p := FormatPerf(perf); p != "" {
		line += " | " + p
	}
	return line
}
