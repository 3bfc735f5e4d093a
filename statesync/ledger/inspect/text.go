package inspect

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/outrider-agent/outrider/statesync"
)

// timeLayout is a time to the millisecond: what happens within one is told
// apart by the numbers.
const timeLayout = "2006-01-02T15:04:05.000Z"

// width is what a terminal shows in one line.
const width = 80

// WriteText writes the sum for people, in 80 columns; ages are as of now.
func (s *Stat) WriteText(w io.Writer, now time.Time) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-10s ", name)+fmt.Sprintf(format, args...), " ") + "\n")
	}
	line("ledger", "%s", clipFront(s.Path, width-11))
	cluster := "not known yet"
	if s.Cluster != "" {
		cluster = fmt.Sprintf("%s, epoch %d", clipMiddle(s.Cluster, 50), s.Epoch)
	}
	line("cluster", "%s", cluster)
	line("file", "%s, %s of it free, and a WAL of %s; format %d", bytesText(s.FileBytes), bytesText(s.FreeBytes), bytesText(s.WALBytes), s.Format)
	kept := fmt.Sprintf("none kept, head %d", s.Head)
	if s.Changes.Kept > 0 {
		kept = fmt.Sprintf("%d kept, %d..%d, %s", s.Changes.Kept, s.Changes.First, s.Changes.Last, bytesText(s.Changes.Bytes))
	}
	line("changes", "%s", kept)
	wl := s.Workloads
	line("workloads", "%d live, %d ended and still there, %d gone", wl.Live, wl.Ended, wl.Gone)
	states := make([]string, 0, len(wl.ByState))
	for _, state := range slices.Sorted(maps.Keys(wl.ByState)) {
		states = append(states, fmt.Sprintf("%s %d", quoted(string(state)), wl.ByState[state]))
	}
	for _, part := range fold(states, width-11) {
		line("", "%s", part)
	}
	s.writeStreams(&b, now)
	if len(s.Sinks) > 0 {
		fmt.Fprintf(&b, "\n%-32s %14s %14s %14s\n", "sink", "since", "cursor", "behind")
	}
	for _, sink := range s.Sinks {
		fmt.Fprintf(&b, "%-32s %14d %14d %14d\n", clipMiddle(sink.Name, 32), sink.Since, sink.Cursor, sink.Behind)
		if sink.Aside+sink.Letters > 0 {
			fmt.Fprintf(&b, "  %d put aside, %d dead letters\n", sink.Aside, sink.Letters)
		}
		if sink.Detached != "" {
			fmt.Fprintf(&b, "  detached: %s\n", clip(printable(sink.Detached)))
		}
	}
	for _, l := range s.Losses {
		fmt.Fprintf(&b, "\nlost: %d..%d, found %s\n", l.First, l.Last, l.At.Format(timeLayout))
		writeFolded(&b, "      ", printable(l.Cause))
	}
	if r := s.Rescue; r != nil {
		fmt.Fprintf(&b, "\nrescued: %s\n", clip(printable(r.At)))
		writeFolded(&b, "      ", printable(r.Note))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s *Stat) writeStreams(b *strings.Builder, now time.Time) {
	if len(s.Streams) > 0 {
		fmt.Fprintf(b, "\n%-32s %14s %14s %14s\n", "stream", "version", "age", "objects")
	}
	for _, st := range s.Streams {
		age := "-"
		if !st.At.IsZero() {
			age = max(0, now.Sub(st.At)).Round(time.Second).String()
		}
		fmt.Fprintf(b, "%-32s %14d %14s %14d\n", clipMiddle(st.Name, 32), st.Version, age, st.Objects)
		if st.Unread > 0 {
			fmt.Fprintf(b, "      %d of the objects are to be read again at the start\n", st.Unread)
		}
		if st.Lost != "" {
			fmt.Fprintf(b, "      cannot be gone on with: %s\n", clipMiddle(printable(st.Lost), 48))
		}
	}
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, c := range r.Checks {
		result := "ok"
		switch {
		case c.Found > 0:
			result = fmt.Sprintf("%d found", c.Found)
			if c.Skipped != "" {
				result += ", not looked at to the end: " + c.Skipped
			}
		case c.Skipped != "":
			result = "not looked at: " + c.Skipped
		}
		fmt.Fprintf(&b, "%-13s %-24s %s\n", c.Name, c.Scope, result)
	}
	for _, c := range r.Checks {
		if len(c.Findings) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s:\n", c.Name)
		for _, f := range c.Findings {
			fmt.Fprintf(&b, "  %s\n", printable(f.String()))
		}
		if more := c.Found - int64(len(c.Findings)); more > 0 {
			fmt.Fprintf(&b, "  and %d more\n", more)
		}
	}
	if len(r.Notes) > 0 {
		b.WriteString("\n")
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", printable(n))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// String is the finding in one line: where, got, want.
func (f Finding) String() string {
	var where []string
	if f.Line > 0 {
		where = append(where, fmt.Sprintf("line %d", f.Line))
	}
	if f.Number > 0 {
		where = append(where, fmt.Sprintf("change %d", f.Number))
	}
	if f.UID != "" {
		where = append(where, f.UID)
	}
	if len(where) == 0 {
		return fmt.Sprintf("got %s, want %s", f.Got, f.Want)
	}
	return fmt.Sprintf("%s: got %s, want %s", strings.Join(where, ", "), f.Got, f.Want)
}

// Line is the change in one line.
func (r Row) Line() string {
	what := string(r.From) + ">" + string(r.To)
	if r.Reason != "" {
		what += "(" + r.Reason + ")"
	}
	key := r.Workload.Key().String()
	if g := r.Gap; g != nil {
		key = "stream " + g.Stream
		what = fmt.Sprintf("gap(%s) rv %d..%d, %v", g.Reason, g.FromRV, g.ToRV, g.To.Sub(g.From).Round(time.Second))
	}
	out := fmt.Sprintf("%d %s %s %s", r.Number, r.Recorded.UTC().Format(timeLayout), key, what)
	if r.ObservedLate {
		out += " late"
	}
	if r.Reconstructed {
		out += " reconstructed"
	}
	return printable(out)
}

// ParseKey reads NAMESPACE/KIND/NAME, as String of [statesync.Key] writes it.
func ParseKey(s string) (statesync.Key, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return statesync.Key{}, fmt.Errorf("workload: got %q, want NAMESPACE/KIND/NAME", s)
	}
	return statesync.Key{Namespace: parts[0], Kind: parts[1], Name: parts[2]}, nil
}

// printable keeps what a cluster's users can write from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '_'
	}, s)
}

// fold puts words into lines of at most n columns.
func fold(words []string, n int) (lines []string) {
	for _, w := range words {
		if last := len(lines) - 1; last >= 0 && len(lines[last])+2+len(w) <= n {
			lines[last] += ", " + w
		} else {
			lines = append(lines, w)
		}
	}
	return lines
}

func writeFolded(b *strings.Builder, indent, text string) {
	line := ""
	for w := range strings.FieldsSeq(text) {
		if line != "" && len(indent)+len(line)+1+len(w) > width {
			b.WriteString(indent + line + "\n")
			line = ""
		}
		line = strings.TrimLeft(line+" "+w, " ")
	}
	if line != "" {
		b.WriteString(indent + line + "\n")
	}
}

// clipFront keeps the end of a path.
func clipFront(s string, n int) string {
	r := []rune(printable(s))
	if len(r) <= n {
		return string(r)
	}
	return "..." + string(r[len(r)-n+3:])
}

// clipMiddle keeps both ends of a name.
func clipMiddle(s string, n int) string {
	r := []rune(printable(s))
	if len(r) <= n {
		return string(r)
	}
	half := (n - 3) / 2
	return string(r[:n-3-half]) + "..." + string(r[len(r)-half:])
}

func bytesText(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value := float64(n)
	for _, unit := range []string{"KiB", "MiB", "GiB"} {
		value /= 1 << 10
		if value < 1<<10 {
			return fmt.Sprintf("%.1f %s", value, unit)
		}
	}
	return fmt.Sprintf("%.1f TiB", value/(1<<10))
}
