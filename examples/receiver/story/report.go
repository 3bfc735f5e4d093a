package story

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/outrider-agent/outrider/statesync"
)

// What is wrong with an [Account].
const (
	Forgotten = "forgotten" // fewer changes are here than were acknowledged
	NoMark    = "no mark"   // no mark came for the interval
)

// An Account is an interval of numbers that does not add up.
type Account struct {
	Sink  string `json:"sink"`
	Above int64  `json:"above"`
	UpTo  int64  `json:"up_to"`
	Want  int64  `json:"want"` // acknowledged, as the mark has it
	Got   int64  `json:"got"`
	Why   string `json:"why"`
}

// A Missing is a run of seqs of one source that are not here.
type Missing struct {
	Source  string `json:"source"`
	Subject string `json:"subject"`
	From    int64  `json:"from"`
	To      int64  `json:"to"`
	Cause   string `json:"cause"` // empty: it is not accounted for
}

// A ToldGap is a gap that the agent told of.
type ToldGap struct {
	Source string        `json:"source"`
	Gap    statesync.Gap `json:"gap"`
}

// A Standing is where a sink stood at its last mark.
type Standing struct {
	Sink  string         `json:"sink"`
	Since int64          `json:"since"` // where the first mark began: what is up to it, no mark has accounted for
	Mark  statesync.Mark `json:"mark"`
	// Unchecked counts marks whose interval reaches below what the book
	// remembers, and which did not add up with what it does.
	Unchecked int64 `json:"unchecked"`
}

// A Report is what a book knows.
type Report struct {
	// Whole reports whether nothing is missing, but for what the agent has
	// accounted for.
	Whole bool `json:"whole"`
	// Since is the highest number at which a sink's first mark began. What was
	// before it, the book can say nothing of.
	Since int64 `json:"since"`

	Workloads map[statesync.State]int `json:"workloads"` // by where they stand; those that are remembered
	Forgotten int64                   `json:"forgotten"` // ended long ago

	Events   int64 `json:"events"`   // taken, repeats included
	Applied  int64 `json:"applied"`  // moved a workload or a stream on
	Filled   int64 `json:"filled"`   // came late, into a hole
	Repeats  int64 `json:"repeats"`  // dropped
	Replays  int64 `json:"replays"`  // sent again by command
	Initials int64 `json:"initials"` // initial states
	Marks    int64 `json:"marks"`
	Others   int64 `json:"others"` // of a type that is not known
	Gaps     int64 `json:"gaps"`

	Unexplained int64            `json:"unexplained"` // seqs that were given and are not here
	Explained   map[string]int64 `json:"explained"`   // seqs that are not here, by cause
	Missing     []Missing        `json:"missing"`     // unexplained ones first, at most as many as asked for
	MissingRuns int              `json:"missing_runs"`

	Accounts     []Account  `json:"accounts"`      // that do not add up
	MoreAccounts int64      `json:"more_accounts"` // likewise, and not kept
	Sinks        []Standing `json:"sinks"`
	LastGaps     []ToldGap  `json:"last_gaps"`

	Contradictions     []string `json:"contradictions"`
	ContradictionsSeen int64    `json:"contradictions_seen"`
}

// Report sums the book up, with so many runs of missing seqs at most. It
// shares nothing with the book.
func (b *Book) Report(limit int) Report {
	r := Report{
		Workloads: map[statesync.State]int{}, Forgotten: b.forgotten,
		Events: b.events, Applied: b.applied, Filled: b.fills, Repeats: b.repeats,
		Replays: b.replays, Initials: b.initials, Marks: b.marks, Others: b.others, Gaps: b.gapsTold,
		Unexplained: b.lost, Explained: map[string]int64{},
		LastGaps: slices.Clone(b.gaps), Contradictions: slices.Clone(b.wrong), ContradictionsSeen: b.wrongs,
	}
	for cause, n := range b.skipped {
		if cause != Unexplained && n > 0 {
			r.Explained[cause] = n
		}
	}
	for source, s := range b.stories {
		if s.state != "" {
			r.Workloads[s.state]++
		}
		lost := b.cluster(source).lost
		for _, h := range s.holes {
			cause := h.cause
			switch {
			case cause == Unexplained && h.epoch > 0 && lost[h.epoch]:
				cause = CauseLedgerLost
				r.Explained[cause] += h.size()
			case cause == Unexplained:
				r.Unexplained += h.size()
			}
			r.Missing = append(r.Missing, Missing{Source: source, Subject: s.subject, From: h.from, To: h.to, Cause: cause})
		}
	}
	slices.SortFunc(r.Missing, func(a, b Missing) int {
		return cmp.Or(-compareBool(a.Cause == Unexplained, b.Cause == Unexplained),
			cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Source, b.Source), cmp.Compare(a.From, b.From))
	})
	r.MissingRuns = len(r.Missing)
	r.Missing = slices.Clone(r.Missing[:min(max(limit, 0), len(r.Missing))])
	for _, source := range slices.Sorted(maps.Keys(b.sinks)) {
		s := b.sinks[source]
		r.MoreAccounts += s.more
		for _, a := range s.accounts {
			a.Sink = source
			r.Accounts = append(r.Accounts, a)
		}
		if len(s.recent) > 0 {
			r.Since = max(r.Since, s.since)
			r.Sinks = append(r.Sinks, Standing{Sink: source, Since: s.since, Mark: s.mark, Unchecked: s.open})
		}
	}
	r.Whole = r.Unexplained == 0 && len(r.Accounts) == 0 && r.MoreAccounts == 0 && r.ContradictionsSeen == 0
	return r
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// WriteText writes the report for people.
func (r Report) WriteText(w io.Writer) error {
	var t strings.Builder
	line := func(format string, args ...any) { t.WriteString(plain(fmt.Sprintf(format, args...)) + "\n") }
	switch {
	case r.Whole && r.Since > 0:
		line("whole since number %d: nothing is missing that is not accounted for", r.Since)
	case r.Whole:
		line("whole: nothing is missing that is not accounted for")
	default:
		line("NOT WHOLE: %d changes missing, %d marks that do not add up, %d contradictions",
			r.Unexplained, int64(len(r.Accounts))+r.MoreAccounts, r.ContradictionsSeen)
	}
	var states []string
	for _, s := range slices.Sorted(maps.Keys(r.Workloads)) {
		states = append(states, fmt.Sprintf("%s %d", s, r.Workloads[s]))
	}
	if len(states) == 0 {
		states = append(states, "none")
	}
	line("workloads   %s; ended and forgotten %d", strings.Join(states, ", "), r.Forgotten)
	line("events      %d: %d applied, %d filled a hole, %d repeats, %d marks, %d of other types", r.Events, r.Applied, r.Filled, r.Repeats, r.Marks, r.Others)
	line("among them  %d replays, %d initial states, %d gaps", r.Replays, r.Initials, r.Gaps)
	for _, cause := range slices.Sorted(maps.Keys(r.Explained)) {
		line("left out    %d: %s", r.Explained[cause], cause)
	}
	for _, s := range r.Sinks {
		line("marks       %s: above number %d, up to %d; %d waiting, %d intervals not checked", s.Sink, s.Since, s.Mark.Number, s.Mark.Waiting, s.Unchecked)
	}
	for _, m := range r.Missing {
		line("missing     %s seq %s: %s  (%s)", m.Subject, span(m.From, m.To), cmp.Or(m.Cause, "NOT ACCOUNTED FOR"), m.Source)
	}
	if more := r.MissingRuns - len(r.Missing); more > 0 {
		line("missing     and %d runs more", more)
	}
	for _, a := range r.Accounts {
		line("account     %s", a)
	}
	for _, g := range r.LastGaps {
		line("gap         %s", g)
	}
	for _, c := range r.Contradictions {
		line("contradicts %s", c)
	}
	_, err := io.WriteString(w, t.String())
	return err
}

// plain keeps what came from outside from looking like more than a part of its
// line: breaks, colours and their like are shown, not done.
func plain(line string) string {
	if !strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return line
	}
	quoted := strconv.Quote(line)
	return quoted[1 : len(quoted)-1]
}

// String says what is wrong with the account.
func (a Account) String() string {
	if a.Why == NoMark {
		return fmt.Sprintf("%s: no mark came for the numbers above %d, up to %d", a.Sink, a.Above, a.UpTo)
	}
	return fmt.Sprintf("%s: numbers above %d, up to %d: %d changes are here, %d were acknowledged", a.Sink, a.Above, a.UpTo, a.Got, a.Want)
}

// String says what the gap is.
func (g ToldGap) String() string {
	text := fmt.Sprintf("%s: %s, %s to %s", g.Gap.Stream, g.Gap.Reason, g.Gap.From.Format("2006-01-02T15:04:05Z07:00"), g.Gap.To.Format("2006-01-02T15:04:05Z07:00"))
	if g.Gap.ToNumber > 0 {
		text += fmt.Sprintf(", numbers above %d, up to %d", g.Gap.FromNumber, g.Gap.ToNumber)
	}
	return text
}

func span(from, to int64) string {
	if from == to {
		return itoa(from)
	}
	return itoa(from) + ".." + itoa(to)
}
