package nagios

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxRangeText is far above any range of two numbers.
const maxRangeText = 100

// A Range is the figures from Start to End, both included, and says which of them
// alert: those outside it, or with Inside those in it. The zero Range alerts on
// all but 0.
type Range struct {
	Start, End float64 // -Inf and +Inf: no bound
	Inside     bool
}

const wantRange = "[@]start:end such as 10, 10:, ~:10, 10:20 or @10:20"

// ParseRange reads a range as plugins write it: [@][start:][end]. The start is 0
// if it is missing, and ~ is minus infinity; a missing end is infinity. A percent
// sign behind a number is ignored, as monitoring-plugins does. Anything else that
// is not the number is an error, where strtod ignores it.
func ParseRange(text string) (Range, error) {
	bad := func(cause, want string) (Range, error) {
		return Range{}, fmt.Errorf("range %s: %s, want %s", show(text), cause, want)
	}
	if len(text) > maxRangeText {
		return bad("longer than "+strconv.Itoa(maxRangeText)+" characters", wantRange)
	}
	r := Range{End: math.Inf(1)}
	rest, inside := strings.CutPrefix(text, "@")
	r.Inside = inside
	if rest == "" {
		return bad("got no bound", wantRange)
	}
	start, end, two := strings.Cut(rest, ":")
	if !two {
		start, end = "", rest
	}
	var ok bool
	switch {
	case start == "~":
		r.Start = math.Inf(-1)
	case start != "":
		if r.Start, ok = rangeNumber(start); !ok {
			return bad("start "+show(start)+" is not a number", wantRange)
		}
	}
	if end != "" {
		if r.End, ok = rangeNumber(end); !ok {
			return bad("end "+show(end)+" is not a number", wantRange)
		}
	}
	if r.Start > r.End {
		return bad("it ends before it starts", "a start that is not above the end")
	}
	return r, nil
}

// rangeNumber reads a finite decimal number, perhaps with percent signs behind it.
func rangeNumber(text string) (float64, bool) {
	return parseNumber(strings.TrimRight(text, "%"))
}

// parseNumber reads a finite decimal number: what strconv reads beyond that, such
// as inf, 0x1p3 and 1_000, is none.
func parseNumber(text string) (float64, bool) {
	if strings.ContainsFunc(text, func(c rune) bool { return !strings.ContainsRune("+-.0123456789eE", c) }) {
		return 0, false
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, false
	}
	return v + 0, true // -0 becomes 0
}

// Alerts reports whether a figure is one to alert on. NaN lies in no range.
func (r Range) Alerts(v float64) bool {
	return (r.Start <= v && v <= r.End) == r.Inside
}

// String gives the range in its shortest form; [ParseRange] reads it.
func (r Range) String() string {
	var b strings.Builder
	if r.Inside {
		b.WriteByte('@')
	}
	switch {
	case math.IsInf(r.Start, -1):
		b.WriteString("~:")
	case r.Start != 0 || math.IsInf(r.End, 1):
		b.WriteString(formatNumber(r.Start) + ":")
	}
	if !math.IsInf(r.End, 1) {
		b.WriteString(formatNumber(r.End))
	}
	return b.String()
}

// MarshalText gives the range as [Range.String] does.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a range as [ParseRange] does: a configuration can hold it.
func (r *Range) UnmarshalText(text []byte) error {
	parsed, err := ParseRange(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// formatNumber writes digits as far as they are read easily: performance data
// officially has no exponents.
func formatNumber(v float64) string {
	if a := math.Abs(v); a != 0 && (a < 1e-9 || a >= 1e21) {
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// show quotes a foreign text, cut to what an error can hold.
func show(text string) string {
	const most = 60
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return strconv.Quote(text)
}
