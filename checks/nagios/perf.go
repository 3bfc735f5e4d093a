package nagios

import (
	"fmt"
	"math"
	"strings"
	"unicode"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// Performance data is a list of
//
//	'label'=value[unit];[warn];[crit];[min];[max]
//
// with space between. A label needs quotes if it has space or quotes in it; a
// quote in it is written twice. The value U is not known. Fields at the end may
// be missing.

const (
	maxLabel = 256 // bytes
	maxUnit  = 16  // bytes
)

// parsePerf reads performance data. After an error it goes on behind the next
// space, so that one bad measure costs no other.
func (o *Output) parsePerf(text string) {
	for {
		text = strings.TrimLeftFunc(text, unicode.IsSpace)
		if text == "" {
			return
		}
		label, rest, err := cutLabel(text)
		end := strings.IndexFunc(rest, unicode.IsSpace)
		if end < 0 {
			end = len(rest)
		}
		fields := rest[:end]
		text = rest[end:]
		if err != nil {
			o.bad(err)
			continue
		}
		m, ok := o.parseValue(label, fields)
		if ok {
			o.Perf = append(o.Perf, m)
		}
	}
}

// cutLabel cuts text, which begins with no space, behind the label's equals sign.
// With an error, rest is where to look for the end of what was bad.
func cutLabel(text string) (label, rest string, err error) {
	quoted := text[0] == '\''
	if quoted {
		label, rest, err = cutQuoted(text)
	} else {
		end := strings.IndexFunc(text, func(r rune) bool { return r == '=' || unicode.IsSpace(r) })
		if end < 0 {
			end = len(text)
		}
		label, rest = text[:end], text[end:]
	}
	after, ok := strings.CutPrefix(rest, "=")
	switch {
	case err != nil:
		return "", text, err
	case !ok:
		return "", rest, fmt.Errorf("performance data %s: no equals sign after the label, want label=value", show(text))
	case strings.TrimSpace(label) == "":
		return "", after, fmt.Errorf("performance data %s: the label is empty, want label=value", show(text))
	case !quoted && strings.Contains(label, "'"):
		return "", after, fmt.Errorf("performance data %s: a quote in the label, want it written twice in a label in quotes", show(text))
	case len(label) > maxLabel:
		return "", after, fmt.Errorf("performance data %s: a label of %d bytes, want %d at most", show(text), len(label), maxLabel)
	}
	return label, after, nil
}

// cutQuoted cuts text behind the quoted label with which it begins.
func cutQuoted(text string) (label, rest string, err error) {
	var b strings.Builder
	for rest = text[1:]; ; {
		part, after, closed := strings.Cut(rest, "'")
		b.WriteString(part)
		if !closed {
			return "", text, fmt.Errorf("performance data %s: the label's quote is never closed", show(text))
		}
		var again bool
		if rest, again = strings.CutPrefix(after, "'"); !again {
			return b.String(), after, nil
		}
		b.WriteByte('\'')
	}
}

// parseValue reads what stands behind a label's equals sign. Without a value there
// is no measure; any other field that is bad counts as missing.
func (o *Output) parseValue(label, text string) (m verdict.Measure, ok bool) {
	bad := func(what, got, want string) {
		o.bad(fmt.Errorf("performance data of %s: %s %s, want %s", show(label), what, show(got), want))
	}
	m.Label = label
	var value string
	value, text, _ = strings.Cut(text, ";")
	if m.Value, m.Unit, ok = parseQuantity(value); !ok {
		bad("value", value, "a number with a unit, or U")
		return m, false
	}
	var warn, crit, least, most string
	warn, text, _ = strings.Cut(text, ";")
	crit, text, _ = strings.Cut(text, ";")
	least, text, _ = strings.Cut(text, ";")
	most, text, _ = strings.Cut(text, ";")
	for _, f := range []struct {
		name, text string
		to         *string
	}{{"warn", warn, &m.Warn}, {"crit", crit, &m.Crit}} {
		if f.text == "" {
			continue
		}
		if _, err := ParseRange(f.text); err != nil {
			bad(f.name, f.text, wantRange)
			continue
		}
		*f.to = f.text
	}
	for _, f := range []struct {
		name, text string
		to         **float64
	}{{"min", least, &m.Min}, {"max", most, &m.Max}} {
		if f.text == "" {
			continue
		}
		v, ok := parseNumber(f.text)
		if !ok {
			bad(f.name, f.text, "a number")
			continue
		}
		*f.to = &v
	}
	if strings.Trim(text, ";") != "" {
		bad("the field behind max is", text, "five fields at most")
	}
	return m, true
}

// parseQuantity reads a number with a unit. U is NaN.
func parseQuantity(text string) (v float64, unit string, ok bool) {
	if text == "U" {
		return math.NaN(), "", true
	}
	end := numberEnd(text)
	if v, ok = parseNumber(text[:end]); !ok || !validUnit(text[end:]) {
		return 0, "", false
	}
	return v, text[end:], true
}

// numberEnd is where the number at the beginning of text ends. An e that no
// digits follow belongs to the unit.
func numberEnd(text string) int {
	digits := func(i int) int {
		for i < len(text) && text[i] >= '0' && text[i] <= '9' {
			i++
		}
		return i
	}
	sign := func(i int) int {
		if i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		return i
	}
	end := digits(sign(0))
	if end < len(text) && text[end] == '.' {
		end = digits(end + 1)
	}
	if end < len(text) && (text[end] == 'e' || text[end] == 'E') {
		if from := sign(end + 1); digits(from) > from {
			end = digits(from)
		}
	}
	return end
}

// validUnit reports whether a text may stand behind a value. Plugins have more
// units than the guidelines' ten, such as C, W and KiB.
func validUnit(unit string) bool {
	return len(unit) <= maxUnit && !strings.ContainsFunc(unit, func(r rune) bool {
		return !unicode.IsLetter(r) && !strings.ContainsRune("%°/", r)
	})
}

// FormatPerf writes performance data in one line, without a bar: what the grammar
// has no place for in a label is replaced, a value that is no finite number is U,
// and a unit or a range that is none is left out.
func FormatPerf(perf []verdict.Measure) string {
	var b strings.Builder
	for _, m := range perf {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(formatLabel(m.Label) + "=")
		if math.IsNaN(m.Value) || math.IsInf(m.Value, 0) {
			b.WriteByte('U')
		} else {
			b.WriteString(formatNumber(m.Value))
			if validUnit(m.Unit) {
				b.WriteString(m.Unit)
			}
		}
		fields := ";" + formatRange(m.Warn) + ";" + formatRange(m.Crit) + ";" + formatBound(m.Min) + ";" + formatBound(m.Max)
		b.WriteString(strings.TrimRight(fields, ";"))
	}
	return b.String()
}

// formatLabel writes a label, with quotes if it needs them. One of nothing but
// space is _, so that its value is not lost.
func formatLabel(label string) string {
	label = strings.Map(func(r rune) rune {
		switch {
		case r == '|' || r == '=':
			return '_'
		case !unicode.IsPrint(r):
			return ' '
		}
		return r
	}, label)
	if len(label) > maxLabel {
		label = strings.ToValidUTF8(label[:maxLabel], "")
	}
	switch label = strings.TrimSpace(label); {
	case label == "":
		return "_"
	case strings.ContainsAny(label, " ';"):
		return "'" + strings.ReplaceAll(label, "'", "''") + "'"
	}
	return label
}

func formatRange(text string) string {
	if _, err := ParseRange(text); err != nil {
		return ""
	}
	return text
}

func formatBound(v *float64) string {
	if v == nil || math.IsNaN(*v) || math.IsInf(*v, 0) {
		return ""
	}
	return formatNumber(*v)
}
