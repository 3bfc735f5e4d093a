package collectors

// The text formats of metrics: Prometheus 0.0.4 and OpenMetrics 1.0. A line is
// read in three parts: series, value, rest. What the reference parser of the
// text format (expfmt) takes is taken here too, oddities included; some of what
// it refuses is taken as well: blanks at the end of a line, CRLF, a last line
// without an end, exemplars.

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A promLabel is one label of a series.
type promLabel struct{ name, value string }

// promSeriesEnd finds quickly where the series ends for which a line has a
// value. For a line that begins with a series that [parsePromSeries] takes it
// is not before the end, and is the end where a blank follows.
func promSeriesEnd(line []byte) int {
	i := bytes.IndexAny(line, "{ \t\"")
	if i < 0 {
		return len(line)
	}
	if line[i] == '"' {
		i = promCloses(line, i)
	}
	end := i
	for i < len(line) && promBlank(line[i]) {
		i++
	}
	if i == len(line) || line[i] != '{' {
		return end
	}
	for i++; i < len(line); i++ {
		switch line[i] {
		case '}':
			return i + 1
		case '"':
			i = promCloses(line, i) - 1
		}
	}
	return len(line)
}

// promCloses returns where the text ends that is quoted from i on, with its
// quotes.
func promCloses(line []byte, i int) int {
	for i++; i < len(line); i++ {
		switch line[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return len(line)
}

// parsePromSeries reads the name and labels at the beginning of a line. end is
// where the series ends; raw is the line up to there, of which the strings are
// parts where nothing was escaped.
func parsePromSeries(line string) (name string, labels []promLabel, end int, err error) {
	i := 0
	if line != "" && line[0] != '{' {
		if name, i, err = promToken(line, 0, true); err != nil {
			return "", nil, 0, err
		}
		if name == "" {
			return "", nil, 0, fmt.Errorf("got %s, want the name of a metric", promShow(line))
		}
		end = i
		if i = promSkip(line, i); i == len(line) || line[i] != '{' {
			return name, nil, end, promUTF8(name)
		}
	}
	if name, labels, end, err = promLabels(line, i, name); err != nil {
		return "", nil, 0, err
	}
	if name == "" {
		return "", nil, 0, errors.New("got braces without a name, want the name of a metric")
	}
	return name, labels, end, promUTF8(name)
}

// promLabels reads what stands between braces; i is at the opening one. A name
// that is not followed by = is that of the metric, if that has none yet.
func promLabels(line string, i int, name string) (_ string, labels []promLabel, end int, err error) {
	named := name != ""
	for {
		if i = promSkip(line, i+1); i == len(line) {
			return "", nil, 0, errors.New("got the end of the line, want a label or }")
		}
		if line[i] == '}' {
			return name, labels, i + 1, nil
		}
		at := i
		var token string
		if token, i, err = promToken(line, i, false); err != nil {
			return "", nil, 0, err
		}
		if token == "" {
			return "", nil, 0, fmt.Errorf("got %s, want the name of a label", promShow(line[at:]))
		}
		i = promSkip(line, i)
		switch {
		case i == len(line):
			return "", nil, 0, fmt.Errorf("got the end of the line after %s, want =", promShow(token))
		case line[i] == '=':
			var value string
			if value, i, err = promValueOf(line, promSkip(line, i+1), token); err != nil {
				return "", nil, 0, err
			}
			labels = append(labels, promLabel{token, value})
			i = promSkip(line, i)
		case named:
			return "", nil, 0, fmt.Errorf("got %s after label %s, want =", promShow(line[i:]), promShow(token))
		default:
			name, named = token, true
		}
		if i < len(line) && line[i] == '}' {
			return name, labels, i + 1, nil
		}
		if i == len(line) || line[i] != ',' {
			return "", nil, 0, fmt.Errorf("got %s after label %s, want a comma or }", promShow(line[i:]), promShow(token))
		}
	}
}

// promValueOf reads the quoted value of a label.
func promValueOf(line string, i int, label string) (value string, end int, err error) {
	if i == len(line) || line[i] != '"' {
		return "", 0, fmt.Errorf("got %s as value of label %s, want it in quotes", promShow(line[i:]), promShow(label))
	}
	if value, end, err = promQuoted(line, i+1); err != nil {
		return "", 0, fmt.Errorf("value of label %s: %w", promShow(label), err)
	}
	if label == "__name__" {
		return "", 0, errors.New("got the label __name__, want the name before the braces")
	}
	if !utf8.ValidString(label) || !utf8.ValidString(value) {
		return "", 0, fmt.Errorf("got label %s with bytes that are not UTF-8, want UTF-8", promShow(label))
	}
	return value, end, nil
}

// promToken reads the name of a metric or a label. What is in quotes may be any
// text; quotes also end the name.
func promToken(line string, i int, colon bool) (token string, end int, err error) {
	start := i
	for ; i < len(line); i++ {
		b := line[i]
		switch {
		case b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '_':
		case b == ':' && colon:
		case b >= '0' && b <= '9' && i > start:
		case b == '"':
			quoted, end, err := promQuoted(line, i+1)
			if err != nil {
				return "", 0, fmt.Errorf("quoted name: %w", err)
			}
			return line[start:i] + quoted, end, nil
		default:
			return line[start:i], i, nil
		}
	}
	return line[start:], i, nil
}

// promQuoted reads the text up to the closing quotes; i is after the opening
// ones.
func promQuoted(line string, i int) (text string, end int, err error) {
	n := strings.IndexAny(line[i:], `"\`)
	if n >= 0 && line[i+n] == '"' {
		return line[i : i+n], i + n + 1, nil
	}
	var b strings.Builder
	for ; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"':
			return b.String(), i + 1, nil
		case c != '\\':
			b.WriteByte(c)
		case i+1 == len(line):
			return "", 0, errors.New("got the end of the line, want the closing quotes")
		default:
			i++
			switch line[i] {
			case '\\', '"':
				b.WriteByte(line[i])
			case 'n':
				b.WriteByte('\n')
			default:
				return "", 0, fmt.Errorf(`got the escape %s, want \\, \" or \n`, promShow(line[i-1:i+1]))
			}
		}
	}
	return "", 0, errors.New("got the end of the line, want the closing quotes")
}

// parsePromValue reads what follows a series: a value, and maybe a timestamp and
// an exemplar, which are held to their form and left.
func parsePromValue(rest []byte) (float64, error) {
	rest = bytes.TrimLeft(rest, " \t")
	token, rest := promWord(rest)
	v, ok := promFloat(token)
	if !ok {
		return 0, fmt.Errorf("got the value %s, want a number", promShow(string(token)))
	}
	if len(rest) == 0 {
		return v, nil
	}
	if rest[0] != '#' {
		if token, rest = promWord(rest); len(token) > 0 {
			// Milliseconds in the text format, seconds with a fraction in OpenMetrics.
			if _, ok := promFloat(token); !ok {
				return 0, fmt.Errorf("got the timestamp %s, want a number", promShow(string(token)))
			}
		}
	}
	if len(rest) > 0 && rest[0] != '#' {
		return 0, fmt.Errorf("got %s after the value, want the end of the line", promShow(string(rest)))
	}
	return v, nil
}

// promWord cuts off the first word and the blanks after it.
func promWord(b []byte) (word, rest []byte) {
	for i, c := range b {
		if promBlank(c) {
			return b[:i], bytes.TrimLeft(b[i:], " \t")
		}
	}
	return b, nil
}

// promFloat reads a number as the text format writes it: without hexadecimal
// and underscores, and with Inf and NaN in any case.
func promFloat(b []byte) (float64, bool) {
	if len(b) > 0 && len(b) <= 15 {
		var n int64
		for i, c := range b {
			if c < '0' || c > '9' {
				break
			}
			if n = n*10 + int64(c-'0'); i == len(b)-1 {
				return float64(n), true
			}
		}
	}
	if bytes.ContainsAny(b, "pP_") {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(b), 64)
	return v, err == nil
}

// A promComment is what a line that begins with # says of a metric.
type promComment struct {
	word       string // HELP, TYPE, UNIT or EOF; empty: nothing of interest
	name, text []byte
}

// parsePromComment reads a line after its #.
func parsePromComment(line []byte) (promComment, error) {
	word, rest := promWord(bytes.TrimLeft(line, " \t"))
	var c promComment
	switch string(word) {
	case "HELP":
		c.word = "HELP"
	case "TYPE":
		c.word = "TYPE"
	case "UNIT":
		c.word = "UNIT"
	case "EOF":
		return promComment{word: "EOF"}, nil
	default:
		return c, nil
	}
	if len(rest) == 0 {
		return promComment{}, nil
	}
	// The common case goes without a copy.
	if c.name, c.text = promWord(rest); promPlain(c.name) {
		c.text = bytes.TrimRight(c.text, " \t")
		return c, nil
	}
	name, end, err := promToken(string(rest), 0, true)
	switch {
	case err != nil:
		return c, err
	case name == "" || end < len(rest) && !promBlank(rest[end]):
		return c, fmt.Errorf("got %s after %s, want the name of a metric", promShow(string(rest)), c.word)
	}
	c.name, c.text = []byte(name), bytes.Trim(rest[end:], " \t")
	return c, promUTF8(name)
}

// promPlain reports whether a name needs no quotes.
func promPlain(name []byte) bool {
	for i, b := range name {
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '_' || b == ':'
		if !letter && (i == 0 || b < '0' || b > '9') {
			return false
		}
	}
	return len(name) > 0
}

// promUnescape reads the text of a HELP line. What is no escape stays as it is.
func promUnescape(b []byte) string {
	s := strings.ToValidUTF8(string(b), "\uFFFD")
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	return strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\"`, `"`).Replace(s)
}

func promUTF8(name string) error {
	if !utf8.ValidString(name) {
		return fmt.Errorf("got the name %s, want UTF-8", promShow(name))
	}
	return nil
}

// promSanitize makes a name out of letters, digits, underscores and, for metrics,
// colons. What else there is becomes an underscore.
func promSanitize(name string, colon bool) string {
	ok := func(i int, r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_' || r == ':' && colon || r >= '0' && r <= '9' && i > 0
	}
	for i, r := range name {
		if ok(i, r) {
			continue
		}
		var b strings.Builder
		for i, r := range name {
			switch {
			case ok(i, r):
				b.WriteRune(r)
			case i == 0 && r >= '0' && r <= '9':
				b.WriteString("_" + string(r))
			default:
				b.WriteByte('_')
			}
		}
		return b.String()
	}
	return name
}

func promSkip(line string, i int) int {
	for i < len(line) && promBlank(line[i]) {
		i++
	}
	return i
}

func promBlank(b byte) bool { return b == ' ' || b == '\t' }

// promShow quotes text for an error, the beginning of it if it is long.
func promShow(s string) string {
	const limit = 60
	if s == "" {
		return "nothing"
	}
	if len(s) > limit {
		return strconv.QuoteToASCII(s[:limit]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
