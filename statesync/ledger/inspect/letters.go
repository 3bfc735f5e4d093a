package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/outrider-agent/outrider/statesync"
)

// wide is what a terminal shows in one line of a list that names workloads.
const wide = 100

// ErrNoSink is wrapped by what is returned for a sink that the ledger has never
// heard of.
var ErrNoSink = errors.New("no such sink in the ledger")

// A Letter is a dead letter: what a sink has refused as such.
type Letter struct {
	Letter   int64            `json:"letter"` // its own ID
	Sink     string           `json:"sink"`
	Number   int64            `json:"number"` // of the change; 0: it is not of the log
	Previous int64            `json:"previous"`
	Skipped  []statesync.Skip `json:"skipped,omitempty"`
	Initial  bool             `json:"initial"`
	Tries    int              `json:"tries"`
	First    time.Time        `json:"first"`
	Refused  time.Time        `json:"last"`
	Error    string           `json:"error"`
	statesync.Change
}

// LetterQuery says which dead letters are listed.
type LetterQuery struct {
	Sink     string // empty: of all
	Last     int    // the last so many of them; 0: all
	Workload *statesync.Key
	UID      string
}

// Letters returns the dead letters that the query selects, the newest last, and
// how many there are without its Last. A sink holds some thousands at most.
func (f *File) Letters(ctx context.Context, q LetterQuery) (out []Letter, all int64, err error) {
	where, args := []string{"1"}, []any{}
	add := func(condition, arg string) {
		if arg != "" {
			where, args = append(where, condition), append(args, arg)
		}
	}
	add("sink = ?", q.Sink)
	add("uid = ?", q.UID)
	if q.Workload != nil {
		add("lane = ?", q.Workload.String())
	}
	limit := int64(-1)
	if q.Last > 0 {
		limit = int64(q.Last)
	}
	condition := strings.Join(where, " AND ")
	err = f.page(ctx, func() error {
		if err := f.knowsSink(q.Sink); err != nil {
			return err
		}
		err := f.each("SELECT count(*) FROM dead_letters WHERE "+condition, args, func(s *sqlite.Stmt) error { all = s.ColumnInt64(0); return nil })
		if err != nil {
			return err
		}
		return f.each(`SELECT * FROM (SELECT id, sink, n, previous, skipped, initial, tries, first, last, error, body
			FROM dead_letters WHERE `+condition+` ORDER BY id DESC LIMIT ?) ORDER BY id`, append(args, limit), func(s *sqlite.Stmt) error {
			l, err := scanLetter(s)
			out = append(out, l)
			return err
		})
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list dead letters: %w", err)
	}
	return out, all, nil
}

// knowsSink wants a sink of the ledger, or none.
func (f *File) knowsSink(name string) error {
	if name == "" {
		return nil
	}
	var names []string
	known := false
	err := f.each("SELECT sink FROM cursors ORDER BY sink", nil, func(s *sqlite.Stmt) error {
		known = known || s.ColumnText(0) == name
		names = append(names, clipMiddle(s.ColumnText(0), 32))
		return nil
	})
	switch {
	case err != nil || known:
		return err
	case names == nil:
		return fmt.Errorf("%w: got %s, and it knows none", ErrNoSink, clip(printable(name)))
	}
	return fmt.Errorf("%w: got %s, want one of %s", ErrNoSink, clip(printable(name)), strings.Join(names, ", "))
}

func scanLetter(s *sqlite.Stmt) (Letter, error) {
	l := Letter{
		Letter: s.ColumnInt64(0), Sink: s.ColumnText(1), Number: s.ColumnInt64(2), Previous: s.ColumnInt64(3),
		Initial: s.ColumnBool(5), Tries: s.ColumnInt(6), First: nanos(s.ColumnInt64(7)), Refused: nanos(s.ColumnInt64(8)), Error: s.ColumnText(9),
	}
	if text := s.ColumnText(4); text != "" {
		if err := json.Unmarshal([]byte(text), &l.Skipped); err != nil {
			return l, fmt.Errorf("dead letter %d: skipped: %w", l.Letter, err)
		}
	}
	if err := json.Unmarshal([]byte(s.ColumnText(10)), &l.Change); err != nil {
		return l, fmt.Errorf("dead letter %d: %w", l.Letter, err)
	}
	return l, nil
}

// Text is the letter in two lines for people: what it is, and why it was
// refused.
func (l Letter) Text() string {
	what := "initial " + string(l.To)
	switch {
	case l.Gap != nil:
		what = "gap(" + l.Gap.Reason + ")"
	case !l.Initial:
		what = string(l.From) + ">" + string(l.To)
	}
	head := fmt.Sprintf("%d %s ", l.Letter, clipMiddle(l.Sink, 24))
	tail := fmt.Sprintf(" seq %d %s", l.Seq, what)
	key := l.Workload.Key().String()
	if l.Gap != nil {
		key = "stream " + l.Gap.Stream
	}
	first := head + clipMiddle(key, max(20, wide-len(head)-len(tail))) + tail
	tries := "1 try"
	if l.Tries != 1 {
		tries = fmt.Sprintf("%d tries", l.Tries)
	}
	second := fmt.Sprintf("    %s, last %s: %s", tries, l.Refused.Format(time.DateTime+"Z"), l.Error)
	return clipEnd(first, wide) + "\n" + clipEnd(second, wide) + "\n"
}

// clipEnd keeps the beginning of a text.
func clipEnd(s string, n int) string {
	r := []rune(printable(s))
	if len(r) <= n {
		return string(r)
	}
	return string(r[:n-3]) + "..."
}
