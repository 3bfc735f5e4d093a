package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/examples/receiver/story"
)

// proof reads events as a receiver does that knows nothing else, in the order
// in which it has acknowledged them.
func proof(t *testing.T, where string, events []event) story.Report {
	t.Helper()
	book := story.New(24 * time.Hour)
	for _, e := range events {
		read, err := story.Decode([]byte(e.body))
		if err != nil {
			t.Errorf("%s: %v: %s", where, err, e.body)
			continue
		}
		book.Take(read, e.acked)
	}
	return book.Report(1000)
}

// whole wants nothing to be missing of events, and returns the report.
func whole(t *testing.T, where string, events []event) story.Report {
	t.Helper()
	r := proof(t, where, events)
	if !r.Whole {
		t.Errorf("%s: the receiver cannot prove that it has everything:\n%s", where, textOf(t, r))
	}
	return r
}

func textOf(t *testing.T, r story.Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Error(err)
	}
	return b.String()
}

// betweenMarks is how far the marks of one sink are apart at least; a tick may
// be late, and the next one then is not.
const betweenMarks = 9 * time.Second

// addUp recounts the marks of each sink as docs/changes.md says, from when they
// came.
func addUp(t *testing.T, where string, events []event, killed bool) {
	t.Helper()
	last, numbers, gapEnds := map[string]event{}, map[int64]bool{}, []int64{}
	for _, e := range events {
		if e.Type != markType {
			numbers[e.Data.Number] = e.Data.Number > 0
			if e.Gap.ofSink() {
				gapEnds = append(gapEnds, e.Gap.ToNumber)
			}
			continue
		}
		before, m := last[e.Source], e.Mark
		if e.ID == before.ID {
			continue // an answer was lost
		}
		last[e.Source] = e
		afterGap := slices.ContainsFunc(gapEnds, func(n int64) bool { return n > before.Mark.Number && n <= m.Previous })
		switch {
		case before.ID == "":
		case m.Previous < before.Mark.Number && !killed, m.Previous > before.Mark.Number && !afterGap:
			t.Errorf("%s: mark %+v follows %+v", where, m, before.Mark)
		case e.Time.Sub(before.Time) < betweenMarks && !killed:
			t.Errorf("%s: mark %+v is %s after the one before, want %s at least", where, m, e.Time.Sub(before.Time), betweenMarks)
		}
		n := int64(0)
		for number := m.Previous + 1; number <= m.Number; number++ {
			if numbers[number] {
				n++
			}
		}
		if n < m.Changes || n > m.Changes+m.Waiting+m.Skipped {
			t.Errorf("%s: %d changes came before the mark %+v that accounts for them", where, n, m)
		}
	}
}

// marked waits for the mark that accounts for everything up to a number.
func marked(t *testing.T, r *receiver, number int64) {
	t.Helper()
	waitFor(t, 15*time.Second, fmt.Sprintf("a mark up to number %d", number), func() bool {
		return slices.ContainsFunc(r.everything(), func(e event) bool { return e.Type == markType && e.Mark.Number >= number })
	})
}

// highest is the highest number of the log among events.
func highest(events []event) (n int64) {
	for _, e := range events {
		n = max(n, e.Data.Number)
	}
	return n
}
