package story

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

const (
	seeds = 300
	steps = 150
)

// bookOf takes all events but those with an ID, with a clock that stands.
func bookOf(events []Event, but string) *Book {
	b := New(time.Hour)
	for _, e := range events {
		if e.ID != but {
			b.Take(e, time.Unix(0, 0))
		}
	}
	return b
}

// TestATrueHistoryIsWhole: whatever repeats, refusals, crashes, gaps and
// replays there were, nothing is missing that the agent has not accounted for,
// and every workload stands where it does.
func TestATrueHistoryIsWhole(t *testing.T) {
	for seed := range uint64(seeds * 3) {
		s := newSim(seed)
		b := bookOf(s.run(steps), "")
		if r := b.Report(10); !r.Whole {
			t.Fatalf("seed %d: %+v\n%s", seed, r, dump(s.out))
		}
		for uid, row := range s.rows {
			if told := s.toldOf(change{uid: uid, seq: row.seq + 1}); len(told.skipped) > 0 || row.seq == 0 {
				continue // its last change was left out
			}
			st := b.stories[simSource+"workloads/"+uid]
			if st == nil || st.state != row.state || st.last != row.seq {
				t.Fatalf("seed %d: %s is %+v, want %+v\n%s", seed, uid, st, *row, dump(s.out))
			}
		}
	}
}

// TestTheBookKnowsWhatItHas: after a true history each seq up to the last is
// either here or in a hole, and never both.
func TestTheBookKnowsWhatItHas(t *testing.T) {
	for seed := range uint64(seeds) {
		events := newSim(seed).run(steps)
		b := bookOf(events, "")
		for _, e := range events {
			if !b.Has(e) {
				t.Fatalf("seed %d: %s seq %d was taken, and would be taken again\n%s", seed, e.Source, e.Seq, dump(events))
			}
			if s := b.stories[e.Source]; e.Mark == nil && !e.Initial && e.Seq <= s.last {
				if i, missing := holeAt(s.holes, e.Seq); missing {
					t.Fatalf("seed %d: %s seq %d was taken, and is missing: %+v", seed, e.Source, e.Seq, s.holes[i])
				}
			}
		}
	}
}

// TestEveryLossIsFound takes each single event out of true histories. What a
// later change of the workload or a later mark can show must be shown.
func TestEveryLossIsFound(t *testing.T) {
	var found, beyond int
	for seed := range uint64(seeds) {
		events := newSim(seed).run(steps)
		done := map[string]bool{}
		for i, e := range events {
			if done[e.ID] {
				continue
			}
			done[e.ID] = true
			why := showable(events, i)
			if why == "" {
				if e.Number > 0 && !e.Replayed {
					beyond++
				}
				continue
			}
			if r := bookOf(events, e.ID).Report(1000); r.Whole && !lists(r, e) {
				t.Fatalf("seed %d: without %s (%s seq %d number %d) the report is whole; want it found by %s\n%s", seed, e.ID, e.Source, e.Seq, e.Number, why, dump(events))
			}
			if e.Number > 0 && !e.Replayed {
				found++
			}
		}
	}
	// Crashes, replays and gaps are far more frequent here than in life.
	if found < 6*beyond {
		t.Errorf("%d lost changes found and %d passed over: the test asks for too little", found, beyond)
	}
}

// lists reports whether the report has the event's seq among those missing.
func lists(r Report, e Event) bool {
	for _, m := range r.Missing {
		if m.Source == e.Source && e.Seq >= m.From && e.Seq <= m.To {
			return true
		}
	}
	return false
}

// showable says what shows that an event is lost; empty: nothing can.
func showable(events []Event, i int) string {
	lost := events[i]
	if lost.Mark != nil {
		upTo, had := int64(-1), map[string]bool{lost.ID: true}
		for _, e := range events {
			if e.Mark == nil || had[e.ID] {
				continue
			}
			had[e.ID] = true
			if upTo >= 0 && e.Mark.Previous > upTo && e.Mark.Previous >= lost.Mark.Number && !gapEnds(events, upTo, e.Mark.Previous) {
				return "the mark " + e.ID
			}
			upTo = max(upTo, e.Mark.Number)
		}
		return ""
	}
	told := func(e Event) bool { return e.Source == lost.Source && e.Seq == lost.Seq && e.ID != lost.ID }
	if slices.ContainsFunc(events, told) {
		return "" // by an initial state too
	}
	taken := map[int64]bool{} // numbers of before each mark
	first := map[string]bool{lost.ID: true}
	anew := false
	for j, e := range events {
		if e.Number > 0 {
			taken[e.Number] = true
		}
		again := first[e.ID]
		first[e.ID] = true
		switch {
		case e.Source == lost.Source && e.Initial && e.Seq >= lost.Seq && e.ID != lost.ID:
			anew = true // what was before it, it need not have
		case j <= i || again:
		case e.Source == lost.Source && e.Previous >= lost.Seq && !e.Replayed && !anew:
			return "the change " + e.ID
		case e.Mark != nil && lost.Number > e.Mark.Previous && lost.Number <= e.Mark.Number:
			if counted(events, taken, *e.Mark) == e.Mark.Changes {
				return "the mark " + e.ID
			}
		}
	}
	return ""
}

// counted is how many numbers of a mark's interval were taken before it, or
// were replayed at some time: those may stand in for one that is lost.
func counted(events []Event, taken map[int64]bool, m statesync.Mark) (n int64) {
	all := maps.Clone(taken)
	for _, e := range events {
		if e.Replayed {
			all[e.Number] = true
		}
	}
	for number := range all {
		if number > m.Previous && number <= m.Number {
			n++
		}
	}
	return n
}

func gapEnds(events []Event, above, upTo int64) bool {
	for _, e := range events {
		if e.Gap != nil && e.Gap.ToNumber > above && e.Gap.ToNumber <= upTo {
			return true
		}
	}
	return false
}

func dump(events []Event) (text string) {
	for _, e := range events {
		switch {
		case e.Mark != nil:
			text += fmt.Sprintf("%s %+v\n", e.ID, *e.Mark)
		case e.Type == statesync.GapEventType:
			text += fmt.Sprintf("%s seq %d numbers %d..%d\n", e.ID, e.Seq, e.Gap.FromNumber, e.Gap.ToNumber)
		default:
			text += fmt.Sprintf("%s %s seq %d previous %d %v n%d e%d initial %t replayed %t %s>%s\n", e.ID, e.Subject, e.Seq, e.Previous, e.Skipped, e.Number, e.Epoch, e.Initial, e.Replayed, e.From, e.To)
		}
	}
	return text
}
