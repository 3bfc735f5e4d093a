package story

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-agent/outrider/statesync"
)

const (
	recentMarks = 16      // that are kept: a try that timed out may land late, and after a crash intervals come again
	maxRuns     = 1 << 17 // of numbers
	maxAccounts = 1000    // marks that do not add up, and are kept
	maxGaps     = 100     // kept to be shown
	maxWrong    = 100     // contradictions, likewise
)

// A cluster is what is kept of one agent's log.
type cluster struct {
	numbers numbers
	forgot  bool           // some of its workloads were forgotten
	lost    map[int64]bool // epochs that began because the agent's record was damaged
}

func (b *Book) cluster(source string) *cluster {
	id := clusterOf(source)
	c := b.clusters[id]
	if c == nil {
		c = &cluster{lost: map[int64]bool{}}
		b.clusters[strings.Clone(id)] = c
	}
	return c
}

// A sink is what is kept of the marks of one.
type sink struct {
	mark     statesync.Mark // the last
	since    int64          // what is above it, marks account for
	reached  int64          // the highest number that a mark has accounted for
	recent   []recent       // the last ones, the oldest first
	gaps     []int64        // numbers at which a gap of the sink ended, above the last mark
	accounts []Account      // that do not add up
	more     int64          // accounts that are not kept
	open     int64          // intervals of which too little is known to count them
}

// A recent mark: its ID, and the previous one's number.
type recent struct {
	id       string
	previous int64
}

func (s *sink) has(id string) bool {
	return slices.ContainsFunc(s.recent, func(r recent) bool { return r.id == id })
}

func (b *Book) sink(source string) *sink {
	s := b.sinks[source]
	if s == nil {
		s = &sink{}
		b.sinks[strings.Clone(source)] = s
	}
	return s
}

func (b *Book) takeMark(e Event) Outcome {
	b.marks++
	s, c, m := b.sink(e.Source), b.cluster(e.Source), *e.Mark
	if s.has(e.ID) {
		b.repeats++
		return Repeat
	}
	if len(s.recent) == 0 {
		s.reached, s.since = m.Previous, m.Previous // the account begins where the sink did
	}
	at := func(n int64) bool { return n > s.reached && n <= m.Previous }
	if m.Previous > s.reached && !slices.ContainsFunc(s.gaps, at) {
		s.add(Account{Above: s.reached, UpTo: m.Previous, Why: NoMark})
	}
	s.reached = max(s.reached, m.Number)
	switch got := c.numbers.count(m.Previous, m.Number); {
	case got >= m.Changes:
	case m.Previous < c.numbers.floor:
		s.open++
	default:
		s.add(Account{Above: m.Previous, UpTo: m.Number, Want: m.Changes, Got: got, Why: Forgotten})
	}
	s.mark = m
	if s.recent = append(s.recent, recent{strings.Clone(e.ID), m.Previous}); len(s.recent) > recentMarks {
		s.recent = slices.Delete(s.recent, 0, 1)
	}
	s.gaps = slices.DeleteFunc(s.gaps, func(n int64) bool { return n <= m.Previous })
	b.prune(clusterOf(e.Source))
	return Counted
}

// prune forgets the numbers that no sink's next mark can count. After a crash
// the agent may tell intervals again, so those of some marks are kept.
func (b *Book) prune(id string) {
	floor := int64(-1)
	for source, s := range b.sinks {
		if clusterOf(source) != id {
			continue
		}
		for _, r := range s.recent {
			if floor < 0 || r.previous < floor {
				floor = r.previous
			}
		}
	}
	b.clusters[id].numbers.prune(floor)
}

func (s *sink) add(a Account) {
	if len(s.accounts) >= maxAccounts {
		s.more++
		return
	}
	s.accounts = append(s.accounts, a)
}

// heal enters that a change which an account may have missed is here.
func (b *Book) heal(id string, number int64) {
	for source, s := range b.sinks {
		if clusterOf(source) != id || number == 0 {
			continue
		}
		for i := range s.accounts {
			if a := &s.accounts[i]; number > a.Above && number <= a.UpTo && a.Why == Forgotten {
				a.Got++
			}
		}
		s.accounts = slices.DeleteFunc(s.accounts, func(a Account) bool { return a.Why == Forgotten && a.Got >= a.Want })
	}
}

func (b *Book) takeGap(e Event) {
	b.gapsTold++
	if len(b.gaps) == maxGaps {
		b.gaps = slices.Delete(b.gaps, 0, 1)
	}
	b.gaps = append(b.gaps, ToldGap{Source: strings.Clone(e.Source), Gap: cloneGap(*e.Gap)})
	if e.Gap.Reason == statesync.GapLedgerLost {
		b.cluster(e.Source).lost[e.Epoch] = true
	}
	if name, ok := strings.CutPrefix(e.Gap.Stream, "sink/"); ok {
		s := b.sink(clusterOf(e.Source) + "/sinks/" + name)
		s.gaps = append(s.gaps, e.Gap.ToNumber)
	}
}

func cloneGap(g statesync.Gap) statesync.Gap {
	g.Stream, g.Reason = strings.Clone(g.Stream), strings.Clone(g.Reason)
	return g
}

// contradicts enters that one seq is two changes.
func (b *Book) contradicts(s *story, e Event) {
	if e.Seq != s.last || e.Epoch != s.epoch || e.ID == s.id || e.Initial || s.initial {
		return
	}
	b.disagree("%s: seq %d is %s and %s", s.subject, e.Seq, s.id, e.ID)
}

// continues enters that a change does not leave the state in which its
// workload stands. Over epochs and holes that may be.
func (b *Book) continues(s *story, e Event) {
	if e.Gap != nil || e.Epoch != s.epoch || e.Seq != s.last+1 || s.state == "" || e.From == s.state {
		return
	}
	b.disagree("%s: seq %d leaves %s, and seq %d led to %s", s.subject, e.Seq, e.From, s.last, s.state)
}

func (b *Book) disagree(format string, args ...any) {
	if b.wrongs++; len(b.wrong) < maxWrong {
		b.wrong = append(b.wrong, fmt.Sprintf(format, args...))
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// numbers is a set of numbers of the log, as runs in order.
type numbers struct {
	runs  []run
	floor int64 // those up to it are not known any more
}

type run struct{ from, to int64 }

// add puts a number in; 0 is none.
func (n *numbers) add(v int64) {
	if v <= n.floor {
		return
	}
	i, found := slices.BinarySearchFunc(n.runs, v, func(r run, v int64) int {
		switch {
		case r.to < v:
			return -1
		case r.from > v:
			return 1
		}
		return 0
	})
	if found {
		return
	}
	left, right := i > 0 && n.runs[i-1].to == v-1, i < len(n.runs) && n.runs[i].from == v+1
	switch {
	case left && right:
		n.runs[i-1].to = n.runs[i].to
		n.runs = slices.Delete(n.runs, i, i+1)
	case left:
		n.runs[i-1].to = v
	case right:
		n.runs[i].from = v
	default:
		if n.runs = slices.Insert(n.runs, i, run{v, v}); len(n.runs) > maxRuns {
			n.prune(n.runs[maxRuns/8].to) // some at once: to move the rest costs
		}
	}
}

// has reports whether to put a number in would change nothing.
func (n *numbers) has(v int64) bool { return v <= n.floor || n.count(v-1, v) > 0 }

// count returns how many there are above one number, up to another.
func (n *numbers) count(above, upTo int64) (sum int64) {
	for _, r := range n.runs {
		if from, to := max(r.from, above+1), min(r.to, upTo); from <= to {
			sum += to - from + 1
		}
	}
	return sum
}

// prune forgets what is up to floor.
func (n *numbers) prune(floor int64) {
	if floor <= n.floor {
		return
	}
	n.floor = floor
	n.runs = slices.DeleteFunc(n.runs, func(r run) bool { return r.to <= floor })
	if len(n.runs) > 0 {
		n.runs[0].from = max(n.runs[0].from, floor+1)
	}
}
