package agent

import (
	"bytes"
	"math"
	"strings"
	"unicode/utf8"
)

// hourWords is how many columns of the table of the last hour are words.
const hourWords = 4

type hourRow [hourWords + 4]string

// writeHours writes one line for what waits in each pipeline and one for each of
// its rates: now, and how it was during the last hour.
func writeHours(b *bytes.Buffer, lines []pipelineLine) {
	rows := []hourRow{{"last hour", "target", "", "unit", "now", "min", "p95", "max"}}
	for _, l := range lines {
		name := printable(l.Name)
		if l.Service != "" {
			name = printable(l.Service + "/" + l.Name)
		}
		for _, m := range []struct {
			what, unit string
			now        float64
			hour       lastHour
		}{
			{"queued", l.Unit, float64(l.Queued), l.queuedHour},
			{"in", l.Unit + "/s", l.in, l.inHour},
			{"out", l.Unit + "/s", l.out, l.outHour},
		} {
			if !m.hour.known {
				continue
			}
			now := figure(m.now)
			if m.what != "queued" && !l.rated {
				now = "-"
			}
			rows = append(rows, hourRow{
				name, printable(or(l.Target, "-")), m.what, printable(m.unit),
				now, figure(m.hour.low), figure(m.hour.p95), figure(m.hour.high),
			})
		}
	}
	if len(rows) == 1 {
		return
	}
	b.WriteString("\n")
	var widths [len(hourRow{})]int
	for i, row := range rows {
		for column := range hourWords {
			if r := []rune(row[column]); len(r) > 24 {
				rows[i][column] = string(r[:23]) + "."
			}
		}
		for column, cell := range rows[i] {
			widths[column] = max(widths[column], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for column, cell := range row {
			pad := strings.Repeat(" ", widths[column]-utf8.RuneCountInString(cell))
			if column < hourWords {
				line.WriteString(cell + pad + " ")
			} else {
				line.WriteString(pad + cell + " ")
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// figure writes a number with one decimal where it is small and has one.
func figure(v float64) string {
	if v != math.Trunc(v) && math.Abs(v) < 9.95 {
		return rate(v)
	}
	return short(int64(math.Round(v)), 7)
}
