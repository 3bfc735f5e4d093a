package agent

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/metrics"
)

// statusColumns is the width of the status text: what a terminal beside
// another one has.
const statusColumns = 100

// A statusText is what the status text shows.
type statusText struct {
	Version, Build, Go, Host, Service, Digest string
	PID                                       int
	Since, Now                                time.Time
	Pipelines                                 []pipelineLine
	Components                                []byte
}

type pipelineLine struct {
	metrics.PipelineSnapshot
	in, out float64 // a second
	rated   bool

	queuedHour, inHour, outHour lastHour
}

// WriteStatus writes the status text: who this is, how it is, one line a
// pipeline, then what the components have to say.
func (a *Agent) WriteStatus(w io.Writer) {
	now := time.Now()
	s := statusText{
		Version: a.opts.Version, Build: a.opts.Build, Go: runtime.Version(),
		Host: a.host, PID: os.Getpid(), Service: a.opts.Service,
		Digest: a.runner.Digest(runner.Query{Category: runner.AllCategories}).Status.String(),
		Since:  a.started, Now: now,
	}
	for _, p := range a.opts.Registry.Pipelines() {
		line := pipelineLine{PipelineSnapshot: p}
		line.in, line.out, line.rated = a.sampler.rates(p, now)
		line.queuedHour, line.inHour, line.outHour = a.sampler.lastHours(p)
		s.Pipelines = append(s.Pipelines, line)
	}
	var more bytes.Buffer
	for _, c := range a.opts.Components {
		if st, ok := c.(StatusWriter); ok {
			st.Status(&more)
		}
	}
	s.Components = more.Bytes()
	_, _ = w.Write(s.render())
}

func (s statusText) render() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "outrider %s  build %s  %s  since %s\n", or(s.Version, "unknown"), or(s.Build, "unknown"), s.Go, s.Since.UTC().Format(time.RFC3339))
	fmt.Fprintf(&b, "service %s  host %s  pid %d  up %v\n", s.Service, s.Host, s.PID, s.Now.Sub(s.Since).Round(time.Second))
	fmt.Fprintf(&b, "status %s\n", s.Digest)
	if len(s.Pipelines) > 0 {
		b.WriteString("\n")
		writeTable(&b, s.Pipelines, s.Now)
		writeHours(&b, s.Pipelines)
	}
	if len(s.Components) > 0 {
		b.WriteString("\n")
		b.Write(s.Components)
		if !bytes.HasSuffix(s.Components, []byte("\n")) {
			b.WriteString("\n")
		}
	}
	return b.Bytes()
}

// The table's columns; the first three are words, aligned to the left.
const (
	wordColumns = 3
	allColumns  = wordColumns + 10
)

// writeTable writes the pipelines. Figures are exact as long as they fit,
// because balances are checked by eye; a table that is too wide gets short
// figures (1.2M), then short words.
func writeTable(b *bytes.Buffer, lines []pipelineLine, now time.Time) {
	render := func(number func(n int64, width int) string) [][allColumns]string {
		rows := [][allColumns]string{{
			"pipeline", "target", "unit", "carried", "in", "out", "queued", "retries", "drops", "balance", "oldest", "in/s", "out/s",
		}}
		for _, l := range lines {
			rows = append(rows, l.cells(now, number))
		}
		return rows
	}
	rows := render(func(n int64, _ int) string { return strconv.FormatInt(n, 10) })
	if tableWidth(rows) > statusColumns {
		rows = render(short)
	}
	for _, column := range []int{1, 0, 2} { // the target is longest, the unit says least
		if over := tableWidth(rows) - statusColumns; over > 0 {
			shorten(rows, column, max(8, columnWidths(rows)[column]-over))
		}
	}
	widths := columnWidths(rows)
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case i < wordColumns:
				line.WriteString(cell + pad + " ")
			case i == allColumns-1:
				line.WriteString(pad + cell)
			default:
				line.WriteString(pad + cell + " ")
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// cells are one row. Each number may be as wide as its column's head.
func (l pipelineLine) cells(now time.Time, number func(n int64, width int) string) [allColumns]string {
	term := func(t metrics.Terms, text string) string {
		if l.Has(t) {
			return text
		}
		return "?"
	}
	balance := "?"
	if n, ok := l.Balance(); ok {
		balance = number(n, 7)
	}
	in, out := "-", "-"
	if l.rated {
		in, out = rate(l.in), rate(l.out)
	}
	name := printable(l.Name)
	if l.Service != "" {
		name = printable(l.Service + "/" + l.Name)
	}
	return [allColumns]string{
		name, printable(or(l.Target, "-")), printable(l.Unit),
		term(metrics.CarriedTerm, number(l.Carried, 7)), term(metrics.InTerm, number(l.In, 5)), term(metrics.OutTerm, number(l.Out, 5)),
		term(metrics.QueuedTerm, number(l.Queued, 6)), term(metrics.RetriesTerm, number(l.TotalRetries(), 7)),
		term(metrics.DroppedTerm, number(l.TotalDropped(), 5)), balance, term(metrics.OldestTerm, age(l.OldestAge(now))),
		term(metrics.InTerm, in), term(metrics.OutTerm, out),
	}
}

func columnWidths(rows [][allColumns]string) (widths [allColumns]int) {
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

func tableWidth(rows [][allColumns]string) int {
	width := allColumns - 1
	for _, w := range columnWidths(rows) {
		width += w
	}
	return width
}

// shorten cuts a column of words; a dot at the end says so.
func shorten(rows [][allColumns]string, column, width int) {
	for i := range rows {
		if r := []rune(rows[i][column]); len(r) > width {
			rows[i][column] = string(r[:width-1]) + "."
		}
	}
}

// short writes a number exactly if it fits the width, else with three digits:
// 99999, 1.23M, -456k.
func short(n int64, width int) string {
	if exact := strconv.FormatInt(n, 10); len(exact) <= width {
		return exact
	}
	v, unit := math.Abs(float64(n)), ""
	for _, unit = range []string{"k", "M", "G", "T", "P", "E"} {
		if v /= 1000; v < 999.5 {
			break
		}
	}
	return strconv.FormatFloat(math.Copysign(v, float64(n)), 'g', 3, 64) + unit
}

func rate(perSecond float64) string {
	if perSecond < 9.95 {
		return strconv.FormatFloat(max(perSecond, 0), 'f', 1, 64)
	}
	return short(int64(math.Round(perSecond)), 5)
}

// age writes how long the oldest item has waited, in one unit.
func age(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	case d < 2*time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + "d"
}

// printable keeps a neighbour's words from moving the reader's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != ' ' && r != utf8.RuneError {
			return r
		}
		return '_'
	}, s)
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
