package story

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// ev is a change of workload w in epoch 1 with a number of its own.
func ev(seq, previous int64, more ...func(*Event)) Event {
	e := Event{
		ID: fmt.Sprint("w", seq), Type: statesync.EventType, Source: "/clusters/c/workloads/w", Subject: "n/Pod/w",
		Change: Change{From: statesync.Running, To: statesync.Running, Seq: seq, Previous: previous, Number: 100 + seq, Epoch: 1},
	}
	if seq == 1 {
		e.From = ""
	}
	for _, m := range more {
		m(&e)
	}
	return e
}

func skips(from, to int64, cause string) func(*Event) {
	return func(e *Event) { e.Skipped = append(e.Skipped, statesync.Skip{From: from, To: to, Cause: cause}) }
}

func epoch(n int64) func(*Event) { return func(e *Event) { e.Epoch, e.ID = n, e.ID+"-"+itoa(n) } }
func replayed(e *Event)          { e.Replayed = true }
func initial(e *Event)           { e.Initial, e.ID, e.Number, e.From = true, e.ID+"i", 0, "" }
func to(s statesync.State) func(*Event) {
	return func(e *Event) { e.To = s }
}

func mark(previous, number, changes int64) Event {
	return Event{
		ID: fmt.Sprint("m", previous, "-", number), Type: statesync.MarkEventType, Source: "/clusters/c/sinks/s",
		Mark: &statesync.Mark{Previous: previous, Number: number, Changes: changes},
	}
}

func gap(stream, reason string, epoch, fromNumber, toNumber int64) Event {
	return Event{
		ID: "gap" + stream, Type: statesync.GapEventType, Source: "/clusters/c/streams/" + stream, Subject: stream,
		Change: Change{Seq: 1, Epoch: epoch},
		Gap:    &statesync.Gap{Stream: stream, Reason: reason, FromNumber: fromNumber, ToNumber: toNumber},
	}
}

// TestWhatIsMissing has the missing seqs as "from..to cause", and what else
// makes a report not whole.
func TestWhatIsMissing(t *testing.T) {
	for name, tt := range map[string]struct {
		events []Event
		want   string
	}{
		"a whole story":                        {[]Event{ev(1, 0), ev(2, 1), ev(3, 2)}, ""},
		"a repeat":                             {[]Event{ev(1, 0), ev(2, 1), ev(1, 0), ev(2, 1)}, ""},
		"one is lost":                          {[]Event{ev(1, 0), ev(3, 2)}, "2 LOST"},
		"the first are lost":                   {[]Event{ev(3, 2)}, "1..2 LOST"},
		"lost, and sent again":                 {[]Event{ev(1, 0), ev(3, 2), ev(2, 1, replayed)}, ""},
		"lost twice, and one is sent again":    {[]Event{ev(1, 0), ev(5, 4), ev(3, 2, replayed)}, "2 LOST 4 LOST"},
		"a filter":                             {[]Event{ev(2, 0, skips(1, 1, "filter")), ev(4, 2, skips(3, 3, "filter"))}, ""},
		"a dead letter":                        {[]Event{ev(1, 0), ev(3, 1, skips(2, 2, "dead_letter"))}, "2 dead_letter"},
		"its replay":                           {[]Event{ev(1, 0), ev(3, 1, skips(2, 2, "dead_letter")), ev(2, 1, replayed)}, ""},
		"its replay before the next":           {[]Event{ev(1, 0), ev(2, 1, replayed), ev(3, 1, skips(2, 2, "dead_letter"))}, ""},
		"its replay, given and lost":           {[]Event{ev(1, 0), ev(3, 1, skips(2, 2, "dead_letter")), ev(4, 2, skips(3, 3, "filter"))}, "2 LOST"},
		"the last of two dead letters, alone":  {[]Event{ev(1, 0), ev(3, 1, replayed)}, "2 replay"},
		"and then the next":                    {[]Event{ev(1, 0), ev(3, 1, replayed), ev(4, 1, skips(2, 3, "dead_letter"))}, "2 dead_letter"},
		"a hole that nothing names":            {[]Event{ev(1, 0), ev(4, 1, skips(2, 2, "compacted"))}, "3 LOST 2 compacted"},
		"several runs":                         {[]Event{ev(1, 0), ev(6, 1, skips(4, 5, "compacted"), skips(2, 3, "several"))}, "2..3 several 4..5 compacted"},
		"what is missing says what it skipped": {[]Event{ev(1, 0), ev(4, 3), ev(3, 1, replayed, skips(2, 2, "filter"))}, ""},
		"an initial state":                     {[]Event{ev(5, 0, initial), ev(6, 5)}, ""},
		"an initial state after others":        {[]Event{ev(1, 0), ev(5, 0, initial), ev(6, 5)}, "2..4 initial"},
		"an initial state is lost":             {[]Event{ev(1, 0), ev(6, 5)}, "2..5 LOST"},
		"a later epoch goes on":                {[]Event{ev(1, 0), ev(2, 1, epoch(2)), ev(3, 2, epoch(2))}, ""},
		"a later epoch begins anew":            {[]Event{ev(1, 0), ev(2, 1), ev(1, 0, epoch(2)), ev(2, 1, epoch(2))}, ""},
		"a later epoch from further back":      {[]Event{ev(1, 0), ev(2, 1), ev(3, 2), ev(2, 1, epoch(2))}, ""},
		"and the old one comes again":          {[]Event{ev(1, 0), ev(2, 1), ev(3, 2), ev(2, 1, epoch(2)), ev(3, 2), ev(3, 2, epoch(2))}, ""},
		"lost before a later epoch":            {[]Event{ev(1, 0), ev(3, 2), ev(1, 0, epoch(2))}, "2 LOST"},
		"lost with the agent's record":         {[]Event{ev(1, 0), ev(3, 2, epoch(2)), gap("pods", statesync.GapLedgerLost, 2, 0, 0)}, "2 ledger_lost"},
		"no such gap":                          {[]Event{ev(1, 0), ev(3, 2, epoch(2)), gap("pods", statesync.GapRestored, 2, 0, 0)}, "2 LOST"},
		"an initial state is not the change":   {[]Event{ev(1, 0), ev(3, 2), ev(2, 0, initial)}, "2 LOST"},
		"a replay after others, lost":          {[]Event{ev(1, 0), ev(4, 3, replayed)}, "2..3 LOST"},
		"after a crash it was given, and lost": {[]Event{ev(1, 0), ev(4, 1, skips(2, 3, "dead_letter")), ev(3, 2)}, "2 LOST"},
		"one seq, two changes":                 {[]Event{ev(1, 0), ev(1, 0, func(e *Event) { e.ID = "x" })}, "CONTRADICTION"},
		"from another state":                   {[]Event{ev(1, 0), ev(2, 1, func(e *Event) { e.From = statesync.Queued })}, "CONTRADICTION"},
		"marks add up":                         {[]Event{ev(1, 0), mark(0, 101, 1), ev(2, 1), mark(101, 103, 1)}, ""},
		"a mark finds the last one":            {[]Event{ev(1, 0), mark(0, 102, 2)}, "ACCOUNT"},
		"which is sent again":                  {[]Event{ev(1, 0), mark(0, 102, 2), ev(2, 1, replayed)}, ""},
		"a mark is lost":                       {[]Event{ev(1, 0), mark(0, 101, 1), mark(102, 103, 0)}, "ACCOUNT"},
		"a sink that begins late":              {[]Event{ev(1, 0), ev(2, 1), mark(101, 102, 1), mark(102, 103, 0)}, ""},
		"a mark is told again, longer":         {[]Event{ev(1, 0), mark(0, 101, 1), ev(2, 1), mark(0, 102, 2), mark(102, 103, 0)}, ""},
		"a mark is told again, and is less":    {[]Event{ev(1, 0), mark(0, 101, 1), mark(0, 102, 2)}, "ACCOUNT"},
		"a mark is told again, shorter":        {[]Event{ev(1, 0), mark(0, 101, 1), mark(0, 50, 0), mark(50, 101, 1), mark(101, 102, 0)}, ""},
		"and not the rest again":               {[]Event{ev(1, 0), mark(0, 101, 1), mark(0, 50, 0), mark(101, 102, 0)}, ""},
		"a hole and its mark, sent again":      {[]Event{ev(1, 0), ev(3, 2), mark(0, 103, 3), ev(2, 1, replayed)}, ""},
		"a dead letter stands in for nobody": {
			[]Event{ev(1, 0), ev(3, 1, skips(2, 2, "dead_letter")), ev(2, 1, replayed), mark(0, 104, 3)}, "ACCOUNT",
		},
		"another cluster's numbers": {
			[]Event{ev(1, 0, func(e *Event) { e.Source = "/clusters/d/workloads/w" }), mark(0, 101, 1)}, "ACCOUNT",
		},
		"a gap of the sink between marks": {[]Event{mark(0, 101, 0), gap("sink/s", statesync.GapDetached, 1, 101, 500), mark(500, 501, 0)}, ""},
		"a gap of another sink":           {[]Event{mark(0, 101, 0), gap("sink/t", statesync.GapDetached, 1, 101, 500), mark(500, 501, 0)}, "ACCOUNT"},
		"a repeat is one number":          {[]Event{ev(1, 0), ev(1, 0), mark(0, 102, 2)}, "ACCOUNT"},
	} {
		t.Run(name, func(t *testing.T) {
			r := bookOf(tt.events, "").Report(100)
			var got []string
			for _, m := range r.Missing {
				cause := m.Cause
				if cause == Unexplained {
					cause = "LOST"
				}
				got = append(got, span(m.From, m.To)+" "+cause)
			}
			for range r.Accounts {
				got = append(got, "ACCOUNT")
			}
			for range r.Contradictions {
				got = append(got, "CONTRADICTION")
			}
			if text := strings.Join(got, " "); text != tt.want {
				t.Errorf("missing %q, want %q", text, tt.want)
			}
			if whole := !strings.ContainsAny(tt.want, "LAC"); r.Whole != whole {
				t.Errorf("whole is %t, want %t", r.Whole, whole)
			}
		})
	}
}

func TestOutcomes(t *testing.T) {
	b := New(time.Hour)
	for i, tt := range []struct {
		e    Event
		want Outcome
	}{
		{ev(1, 0), Applied},
		{ev(4, 1, skips(2, 3, "dead_letter")), Applied},
		{ev(2, 1, replayed), Filled},
		{ev(2, 1, replayed), Repeat},
		{ev(4, 1), Repeat},
		{ev(4, 0, initial), Repeat},
		{mark(0, 104, 2), Counted},
		{mark(0, 104, 2), Repeat},
		{Event{ID: "x", Type: "dev.outrider.later", Source: "/clusters/c/later"}, Counted},
	} {
		if had, got := b.Has(tt.e), b.Take(tt.e, time.Time{}); got != tt.want || had != (tt.want == Repeat) {
			t.Errorf("event %d is %s, had before: %t; want %s", i, got, had, tt.want)
		}
	}
	want := Report{
		Whole: true, Events: 9, Applied: 2, Filled: 1, Repeats: 4, Replays: 2, Initials: 1, Marks: 2, Others: 1,
		Workloads: map[statesync.State]int{statesync.Running: 1}, Explained: map[string]int64{"dead_letter": 1},
		Missing:     []Missing{{Source: "/clusters/c/workloads/w", Subject: "n/Pod/w", From: 3, To: 3, Cause: "dead_letter"}},
		MissingRuns: 1, Sinks: []Standing{{Sink: "/clusters/c/sinks/s", Mark: statesync.Mark{Number: 104, Changes: 2}}},
	}
	if diff := cmp.Diff(want, b.Report(10)); diff != "" {
		t.Errorf("report (-want +got)\n%s", diff)
	}
}

// TestALaterEpochCounts: with a seq that the book has, it is another change.
func TestALaterEpochCounts(t *testing.T) {
	b := bookOf([]Event{ev(1, 0), ev(2, 1), ev(3, 2)}, "")
	for _, tt := range []struct {
		e    Event
		want Outcome
		last int64
	}{
		{ev(2, 1, epoch(2), to(statesync.Failed)), Applied, 2},
		{ev(3, 2), Repeat, 2}, // of the epoch before
		{ev(2, 1, epoch(2)), Repeat, 2},
		{ev(2, 0, initial, epoch(3)), Applied, 2},
		{ev(3, 2, epoch(3)), Applied, 3},
	} {
		got := b.Take(tt.e, time.Time{})
		if s := b.stories[tt.e.Source]; got != tt.want || s.last != tt.last {
			t.Errorf("seq %d of epoch %d is %s and the last is %d, want %s and %d", tt.e.Seq, tt.e.Epoch, got, s.last, tt.want, tt.last)
		}
	}
	if r := b.Report(10); r.MissingRuns != 0 || !r.Whole {
		t.Errorf("missing %+v, want nothing", r.Missing)
	}
}

// TestOldMarksAreNotCounted: the numbers of some marks are kept, and an
// interval that reaches further back is not judged.
func TestOldMarksAreNotCounted(t *testing.T) {
	b := New(time.Hour)
	const marks = 2 * recentMarks
	for seq := int64(1); seq <= marks; seq++ {
		b.Take(ev(seq, seq-1), time.Time{})
		b.Take(mark(100+seq-1, 100+seq, 1), time.Time{})
	}
	n := b.clusters["/clusters/c"].numbers
	if got := n.count(0, 1000); got != recentMarks {
		t.Errorf("%d numbers are kept, want those of %d marks", got, recentMarks)
	}
	b.Take(mark(101, 100+marks, marks-1), time.Time{})
	r := b.Report(10)
	if !r.Whole || len(r.Sinks) != 1 || r.Sinks[0].Unchecked != 1 || r.Sinks[0].Since != 100 {
		t.Errorf("%+v, want it whole, since 100, with one interval that was not checked", r)
	}
}

// TestWhatHasEndedIsForgotten, but not while something is missing, and not
// what may come back.
func TestWhatHasEndedIsForgotten(t *testing.T) {
	at := func(uid string) func(*Event) {
		return func(e *Event) { e.Source, e.Subject = "/clusters/c/workloads/"+uid, uid }
	}
	b, start := New(time.Hour), time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, e := range []Event{
		ev(1, 0, at("ended"), to(statesync.Succeeded)), ev(1, 0, at("runs")), ev(1, 0, at("untracked"), to(statesync.Untracked)),
		ev(2, 1, at("lacks"), to(statesync.Failed)),
	} {
		b.Take(e, start)
	}
	left := func() (names string) {
		for _, uid := range []string{"ended", "lacks", "runs", "untracked"} {
			if b.stories["/clusters/c/workloads/"+uid] != nil {
				names += uid + " "
			}
		}
		return names
	}
	for _, step := range []struct {
		after time.Duration
		want  string
	}{
		{59 * time.Minute, "ended lacks runs untracked "},
		{time.Hour, "lacks runs untracked "},
		{89 * 24 * time.Hour, "lacks runs untracked "},
		{90 * 24 * time.Hour, "lacks runs "},
	} {
		if b.Forget(start.Add(step.after)); left() != step.want {
			t.Errorf("after %s there are %s, want %s", step.after, left(), step.want)
		}
	}
	// In a cluster that was set back it may live again.
	b.Take(ev(2, 1, at("ended"), epoch(2), func(e *Event) { e.From = statesync.Succeeded }), start)
	if r := b.Report(10); r.Unexplained != 1 || r.Forgotten != 2 {
		t.Errorf("%d missing, %d forgotten; want 1 (of lacks), 2", r.Unexplained, r.Forgotten)
	}
}

// TestMemoryIsBounded: what a broken receiver lacks, and numbers with holes.
func TestMemoryIsBounded(t *testing.T) {
	b := New(time.Hour)
	for seq := int64(2); seq < 1000; seq += 2 {
		b.Take(ev(seq, seq-1), time.Time{})
	}
	r := b.Report(1000)
	if r.MissingRuns != maxHoles || r.Unexplained != 499 {
		t.Errorf("%d runs are kept and %d seqs are missing, want %d and 499", r.MissingRuns, r.Unexplained, maxHoles)
	}
	var n numbers
	for v := int64(1); v < 4*maxRuns; v += 2 {
		n.add(v)
	}
	if len(n.runs) > maxRuns || n.floor == 0 || n.count(n.floor, 4*maxRuns) != int64(len(n.runs)) {
		t.Errorf("%d runs above %d, want %d at most, and each to count", len(n.runs), n.floor, maxRuns)
	}
}

// TestABatchOfOtherThingsEndsAtTheFirst: it is not taken apart to the end.
func TestABatchOfOtherThingsEndsAtTheFirst(t *testing.T) {
	body := append(append([]byte("["), bytes.Repeat([]byte("1,"), 1<<20)...), "1]"...)
	var err error
	allocs := testing.AllocsPerRun(1, func() { _, _, err = DecodeBatch(body) })
	if err == nil || allocs > 1000 {
		t.Errorf("error %v after %v allocations, want one after few", err, allocs)
	}
	for _, text := range []string{"", "[", "[]]", "[] []", "{}", "1", "null", "[1", "[null]"} {
		if _, _, err := DecodeBatch([]byte(text)); err == nil {
			t.Errorf("%q was read as a batch", text)
		}
	}
}

// TestAReportsLinesAreItsOwn: what came from outside makes no line that looks
// like one of them.
func TestAReportsLinesAreItsOwn(t *testing.T) {
	b := New(time.Hour)
	b.Take(ev(5, 4, func(e *Event) { e.Subject = "x\x1b[2J\nwhole: nothing is missing" }), time.Time{})
	var out strings.Builder
	if err := b.Report(10).WriteText(&out); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "\nwhole: ") || strings.Contains(text, "\x1b") || !strings.Contains(text, `x\x1b[2J\nwhole`) {
		t.Errorf("the report has a forged line:\n%s", text)
	}
}

// TestAReportSaysSinceWhen: a receiver that began anew has no account of what
// was before.
func TestAReportSaysSinceWhen(t *testing.T) {
	b := New(time.Hour)
	b.Take(ev(1, 0), time.Time{})
	b.Take(mark(100, 101, 1), time.Time{})
	var out strings.Builder
	if err := b.Report(10).WriteText(&out); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.HasPrefix(text, "whole since number 100: nothing is missing") {
		t.Errorf("the report does not say since when it is whole:\n%s", text)
	}
}

func TestDecodeRefusesLongWords(t *testing.T) {
	long := strings.Repeat("x", maxWord+1)
	for name, data := range map[string]string{
		"a state":       `"from":"","to":"` + long + `"`,
		"a state left":  `"from":"` + long + `","to":"Running"`,
		"why it is out": `"from":"","to":"Running","skipped":[{"from":1,"to":1,"cause":"` + long + `"}]`,
	} {
		text := fmt.Sprintf(`{"specversion":"1.0","id":"i","source":"/s","type":%q,"data":{%s,"seq":2,"epoch":1}}`, statesync.EventType, data)
		if _, err := Decode([]byte(text)); err == nil {
			t.Errorf("%s of %d bytes was read", name, len(long))
		}
		if _, err := Decode([]byte(strings.ReplaceAll(text, long, long[1:]))); err != nil {
			t.Errorf("%s of %d bytes: %v", name, maxWord, err)
		}
	}
}

// TestNumbersAreASet compares runs with a map, in any order.
func TestNumbersAreASet(t *testing.T) {
	rng := newSim(7).rng
	for range 200 {
		var n numbers
		set := map[int64]bool{}
		for range rng.IntN(60) {
			v := 1 + rng.Int64N(40)
			n.add(v)
			set[v] = true
		}
		floor := rng.Int64N(20)
		n.prune(floor)
		above, upTo := floor+rng.Int64N(10), floor+rng.Int64N(30)
		want := int64(0)
		for v := range set {
			if v > above && v <= upTo {
				want++
			}
		}
		if got := n.count(above, upTo); got != want {
			t.Fatalf("%d of %v above %d, up to %d; want %d", got, n.runs, above, upTo, want)
		}
		for i := 1; i < len(n.runs); i++ {
			if n.runs[i].from <= n.runs[i-1].to+1 {
				t.Fatalf("runs %v, want them apart and in order", n.runs)
			}
		}
	}
}

// TestDecodeReadsWhatIsSent decodes what MarshalEvent makes.
func TestDecodeReadsWhatIsSent(t *testing.T) {
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, d := range []statesync.Delivery{
		{Change: statesync.Change{
			ID: "a", Cluster: "c", Epoch: 2, Number: 7, Seq: 3, From: statesync.Queued, To: statesync.Failed, Occurred: at, Observed: at,
			Workload: statesync.Ref{Kind: "Pod", Namespace: "n", Name: "w", UID: "u"},
		}, PreviousSeq: 1, Skipped: []statesync.Skip{{From: 2, To: 2, Cause: statesync.SkipFilter}}, Replayed: true},
		{Change: statesync.Change{
			ID: "b", Cluster: "c", Epoch: 1, Seq: 1, Workload: statesync.StreamRef("sink/s"), Occurred: at, Observed: at,
			Gap: &statesync.Gap{Stream: "sink/s", Reason: statesync.GapDetached, From: at, To: at, FromNumber: 3, ToNumber: 9},
		}},
		statesync.MarkDelivery("s", "c", 1, statesync.Mark{Previous: 1, Number: 5, Changes: 3, Skipped: 1}, at),
	} {
		text, err := statesync.MarshalEvent(d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != d.ID || got.Number != d.Number || got.Seq != d.Seq || got.Previous != d.PreviousSeq || got.Replayed != d.Replayed ||
			got.To != d.To || got.From != d.From || !cmp.Equal(got.Skipped, d.Skipped) || !cmp.Equal(got.Gap, d.Gap) || !cmp.Equal(got.Mark, d.Mark) {
			t.Errorf("decoded %+v of %s", got, text)
		}
		events, texts, err := DecodeBatch(fmt.Appendf(nil, "[ %s , %s]", text, text))
		if err != nil || len(events) != 2 || !cmp.Equal(events[1], got) || !bytes.Equal(texts[1], text) {
			t.Errorf("batch: %v, %d events, %s", err, len(events), texts)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		`{}`, `[]`, `{"specversion":"1.0","id":"a","source":"/clusters/c/x","type":"dev.outrider.mark","data":{"number":3}}`,
		`{"specversion":"1.0","id":"a","source":"/clusters/c/workloads/u","type":"dev.outrider.workload.changed","data":{"to":"Running","seq":9,"previous":3,"skipped":[{"from":2,"to":8,"cause":"filter"},{"from":1,"to":1152921504606846976,"cause":"x"}],"epoch":1}}`,
		`[{"specversion":"1.0","id":"a","source":"/clusters/c/streams/s","type":"dev.outrider.gap","data":{"stream":"sink/s","to_number":9,"seq":1,"epoch":1}}]`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		events, texts, err := DecodeBatch(text)
		if e, one := Decode(text); one == nil {
			events, texts, err = []Event{e}, [][]byte{text}, nil
		}
		if err != nil {
			return
		}
		b := New(time.Hour)
		for i, e := range events {
			b.Take(e, time.Time{})
			if !json.Valid(texts[i]) {
				t.Fatalf("no JSON: %q", texts[i])
			}
			if e.Seq+e.Number > 0 && !b.Has(e) && !e.Replayed {
				t.Fatalf("taken, and would be taken again: %+v", e)
			}
			if o := b.Take(e, time.Time{}); e.Seq > 0 && o != Repeat {
				t.Fatalf("taken again as %s: %+v", o, e)
			}
		}
		for _, s := range b.stories {
			for i, h := range s.holes {
				if h.from > h.to || h.to >= s.last || i > 0 && h.from <= s.holes[i-1].to {
					t.Fatalf("holes %+v below %d, want them in order and apart", s.holes, s.last)
				}
			}
		}
		if err := b.Report(10).WriteText(new(strings.Builder)); err != nil {
			t.Fatal(err)
		}
	})
}
