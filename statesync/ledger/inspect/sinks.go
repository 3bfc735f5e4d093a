package inspect

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/outrider-agent/outrider/statesync"
)

// SinkState is where one sink stands.
type SinkState struct {
	Name       string     `json:"name"`
	Acked      int64      `json:"acked"`
	Waiting    int64      `json:"waiting"` // to be delivered, with what is put aside; 0 when it is detached
	Aside      int64      `json:"aside"`   // of it, put aside
	Letters    int64      `json:"dead_letters"`
	Detached   string     `json:"detached,omitempty"` // why nothing is delivered and kept any more
	DetachedAt *time.Time `json:"detached_at,omitempty"`
	// Configured reports whether the configuration has it; nil: nobody has asked
	// for one.
	Configured *bool `json:"configured,omitempty"`
}

// A sinkRow is what the ledger keeps of where a sink stands.
type sinkRow struct {
	name, detached                      string
	since, acked, begun, aside, letters int64
	detachedAt                          time.Time // zero: not known
}

// eachSink yields all sinks, by name.
func (f *File) eachSink(yield func(sinkRow)) error {
	return f.each(`SELECT sink, since, acked, begun, detached, detached_at,
		(SELECT count(*) FROM aside a WHERE a.sink = k.sink AND a.what != 'skipped'), (SELECT count(*) FROM dead_letters d WHERE d.sink = k.sink)
		FROM cursors k ORDER BY sink`, nil, func(q *sqlite.Stmt) error {
		yield(sinkRow{
			name: q.ColumnText(0), since: q.ColumnInt64(1), acked: q.ColumnInt64(2), begun: q.ColumnInt64(3),
			detached: q.ColumnText(4), detachedAt: nanos(q.ColumnInt64(5)), aside: q.ColumnInt64(6), letters: q.ColumnInt64(7),
		})
		return nil
	})
}

// Sinks returns where all sinks stand, by name.
func (f *File) Sinks(ctx context.Context) ([]SinkState, error) {
	out := []SinkState{}
	err := f.page(ctx, func() error {
		b, err := f.bounds()
		if err != nil {
			return err
		}
		return f.eachSink(func(k sinkRow) {
			s := SinkState{Name: k.name, Acked: k.acked, Detached: k.detached, Aside: k.aside, Letters: k.letters}
			if s.Detached == "" {
				s.Waiting = b.head - s.Acked + s.Aside
			} else if !k.detachedAt.IsZero() {
				s.DetachedAt = &k.detachedAt
			}
			out = append(out, s)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read sinks: %w", err)
	}
	return out, nil
}

// Configure notes which of the sinks a configuration names.
func Configure(sinks []SinkState, names []string) {
	for i := range sinks {
		is := slices.Contains(names, sinks[i].Name)
		sinks[i].Configured = &is
	}
}

// WriteSinks writes sinks for people, in 100 columns.
func WriteSinks(w io.Writer, sinks []SinkState) error {
	var b strings.Builder
	if len(sinks) == 0 {
		b.WriteString("no sinks: none was ever configured\n")
	} else {
		fmt.Fprintf(&b, "%-32s %14s %14s %10s %12s  %s\n", "sink", "acked", "waiting", "aside", "dead letters", "configured")
	}
	for _, s := range sinks {
		configured := "-"
		if s.Configured != nil {
			configured = map[bool]string{true: "yes", false: "no"}[*s.Configured]
		}
		fmt.Fprintf(&b, "%-32s %14d %14d %10d %12d  %s\n", clipMiddle(s.Name, 32), s.Acked, s.Waiting, s.Aside, s.Letters, configured)
		name := clipMiddle(s.Name, 32)
		if s.Detached != "" {
			since := ""
			if s.DetachedAt != nil {
				since = " since " + s.DetachedAt.Format(time.DateTime+"Z")
			}
			fmt.Fprintf(&b, "  detached%s: %s\n  it comes back with a gap: outrider ledger attach %s\n", since, because(s.Detached), name)
		}
		if s.Configured != nil && !*s.Configured {
			fmt.Fprintf(&b, "  its cursor is kept in case it comes back; if it will not: outrider ledger forget %s\n", name)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// because says in words why a sink is detached.
func because(detached string) string {
	switch detached {
	case statesync.DetachedFull:
		return "the ledger was full, and it held the most of it"
	case statesync.DetachedGone:
		return "the receiver answered 410: it wants nothing any more"
	}
	return clip(printable(detached))
}
