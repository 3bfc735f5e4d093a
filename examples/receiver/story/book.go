// Package story proves, from the events alone, that a receiver has the whole story of each workload.
//
// A [Book] is a receiver's memory: what it must keep of the events it has
// taken, and no more. It does no I/O and has no clock. The rules are those of
// docs/changes.md, section "Have everything, and prove it".
package story

import (
	"strings"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// comesBack is how long an Untracked workload is remembered: for as long the
// agent goes on with its seq.
const comesBack = 90 * 24 * time.Hour

// An Outcome says what an event was to the book.
type Outcome string

// The outcomes.
const (
	Applied Outcome = "applied" // the next of its story; where the workload stands changed
	Filled  Outcome = "filled"  // it was missing, or left out, and came late: what stands does not change
	Repeat  Outcome = "repeat"  // the book has it already
	Counted Outcome = "counted" // a mark, or a type that is not known
)

// A Book holds what was taken. It is not safe for concurrent use.
//
// Its memory grows with the workloads that live, and those that ended within
// the time after which they are forgotten: about 400 bytes each, and 50 for
// each run of seqs that is missing (64 at most). Of numbers it keeps runs
// of the last 16 marks, 131,072 at most.
type Book struct {
	forget   time.Duration
	stories  map[string]*story // by source
	sinks    map[string]*sink  // by source
	clusters map[string]*cluster

	events, applied, repeats, fills, replays, initials, marks, others int64

	forgotten int64            // workloads
	skipped   map[string]int64 // seqs that are not here, by cause
	lost      int64            // unexplained seqs that their story no longer keeps
	gaps      []ToldGap
	gapsTold  int64
	wrong     []string // what contradicts itself
	wrongs    int64
}

// A story is what is kept of one source: a workload's life, or a stream.
type story struct {
	subject string
	id      string // of the last event applied
	last    int64  // its seq
	epoch   int64
	state   statesync.State
	initial bool // the last was an initial state
	holes   []hole
	ended   time.Time // when the end was taken; zero: it has not ended
}

// New returns an empty book that forgets a workload so long after its end.
// One of which something is missing is not forgotten.
func New(forget time.Duration) *Book {
	return &Book{
		forget: forget, stories: map[string]*story{}, sinks: map[string]*sink{},
		clusters: map[string]*cluster{}, skipped: map[string]int64{},
	}
}

// Needs reports whether a record of events needs the event too, so that the
// book can be read back from it. A replay was asked for: what the book has, the
// record may have lost. A repeat may bring a number that the change did not
// have before, and that marks count.
func (b *Book) Needs(e Event) bool {
	if !b.Has(e) || e.Replayed {
		return true
	}
	return e.Mark == nil && !b.cluster(e.Source).numbers.has(e.Number)
}

// Has reports whether the event would be a repeat.
func (b *Book) Has(e Event) bool {
	if e.Mark != nil {
		s := b.sinks[e.Source]
		return s != nil && s.has(e.ID)
	}
	s := b.stories[e.Source]
	return s != nil && e.Seq > 0 && s.repeats(e)
}

// repeats reports whether nothing of the event is new.
func (s *story) repeats(e Event) bool {
	switch {
	case e.Epoch > s.epoch && !e.Replayed:
		return false
	case e.Seq > s.last:
		return e.Epoch < s.epoch
	}
	_, missing := holeAt(s.holes, e.Seq)
	return !missing || e.Initial
}

// Take enters an event that came in at now.
func (b *Book) Take(e Event, now time.Time) Outcome {
	b.events++
	if e.Mark != nil {
		return b.takeMark(e)
	}
	if e.Seq == 0 {
		b.others++
		return Counted
	}
	if e.Replayed {
		b.replays++
	}
	if e.Initial {
		b.initials++
	}
	outcome := b.takeChange(e, now)
	switch outcome {
	case Repeat:
		b.repeats++
	case Filled:
		b.fills++
	default:
		b.applied++
	}
	if e.Gap != nil && outcome != Repeat {
		b.takeGap(e)
	}
	return outcome
}

func (b *Book) takeChange(e Event, now time.Time) Outcome {
	c := b.cluster(e.Source)
	s := b.stories[e.Source]
	switch {
	case s == nil:
		s = &story{subject: strings.Clone(e.Subject)}
		b.stories[strings.Clone(e.Source)] = s
		if c.forgot && e.From.Ended() && !e.Replayed {
			s.last, s.epoch = e.Previous, e.Epoch // it lives again, and what was before is forgotten
		}
	case s.repeats(e):
		c.numbers.add(e.Number)
		b.contradicts(s, e)
		return Repeat
	case e.Epoch > s.epoch && e.Seq <= s.last && !e.Replayed:
		s = b.rewind(e, s)
	}
	if i, ok := holeAt(s.holes, e.Seq); ok && e.Seq <= s.last {
		cause := s.holes[i].cause
		b.fill(s, e)
		if !e.Replayed || cause != statesync.SkipDeadLetter {
			c.numbers.add(e.Number) // marks do not count what was left out
		}
		if cause == Unexplained {
			b.heal(clusterOf(e.Source), e.Number)
		}
		return Filled
	}
	c.numbers.add(e.Number)
	if e.Replayed {
		b.heal(clusterOf(e.Source), e.Number)
	}
	b.apply(s, e, now)
	return Applied
}

// rewind prepares a story for a change of a later epoch whose seq it has had:
// the agent went on from what it still knew. What was missing before stays
// missing.
func (b *Book) rewind(e Event, s *story) *story {
	anew := &story{subject: s.subject, last: min(e.Previous, e.Seq-1), epoch: s.epoch, state: s.state}
	if e.Initial {
		anew.last = e.Seq - 1
	}
	anew.holes = cut(s.holes, anew.last+1, maxSeq)
	if s.holes = cut(s.holes, 1, anew.last); s.missing() {
		b.stories[e.Source+" before epoch "+itoa(e.Epoch)] = &story{subject: s.subject, last: s.last, epoch: s.epoch, holes: s.holes}
	}
	b.stories[strings.Clone(e.Source)] = anew
	return anew
}

// apply goes on with the story.
func (b *Book) apply(s *story, e Event, now time.Time) {
	if !e.Initial {
		b.continues(s, e)
	}
	epoch := int64(0) // of a hole
	if s.epoch > 0 && e.Epoch > s.epoch {
		epoch = e.Epoch
	}
	begun := s.epoch > 0
	base := s.last
	switch {
	case e.Initial && begun:
		b.note(s, hole{base + 1, e.Seq - 1, CauseInitial, 0})
	case e.Initial: // the story begins here
	case e.Replayed && !begun:
		for _, h := range split(1, e.Seq-1, e.Skipped, CauseReplay) {
			b.note(s, h)
		}
	default:
		if e.Previous > base {
			b.note(s, hole{base + 1, e.Previous, Unexplained, epoch})
			base = e.Previous
		}
		b.given(s, e.Previous)
		otherwise := Unexplained
		if e.Replayed {
			otherwise = CauseReplay
		}
		for _, h := range split(base+1, e.Seq-1, e.Skipped, otherwise) {
			h.epoch = epoch
			b.note(s, h)
		}
	}
	b.explain(s, e.Skipped)
	s.id, s.last, s.initial = strings.Clone(e.ID), e.Seq, e.Initial
	s.epoch = max(s.epoch, e.Epoch)
	s.state = known(e.To)
	s.ended = time.Time{}
	if e.To.Ended() {
		s.ended = now
	}
}

// fill enters a change that was missing, and what it says of others.
func (b *Book) fill(s *story, e Event) {
	i, _ := holeAt(s.holes, e.Seq)
	b.skipped[s.holes[i].cause]--
	s.holes = cut(s.holes, e.Seq, e.Seq)
	if !e.Replayed {
		b.given(s, e.Previous)
	}
	b.explain(s, e.Skipped)
}

// note enters a run of seqs that are not there.
func (b *Book) note(s *story, h hole) {
	if h.size() <= 0 {
		return
	}
	b.skipped[h.cause] += h.size()
	if !mayBeFilled(h.cause) {
		return
	}
	if s.holes = put(s.holes, h); len(s.holes) > maxHoles {
		if s.holes[0].cause == Unexplained {
			b.lost += s.holes[0].size()
		}
		s.holes = s.holes[1:]
	}
}

// given enters that the sink has given a seq: if it is not here, that is not
// because it was left out.
func (b *Book) given(s *story, seq int64) {
	i, ok := holeAt(s.holes, seq)
	if !ok || s.holes[i].cause == Unexplained {
		return
	}
	h := s.holes[i]
	b.skipped[h.cause]--
	s.holes = cut(s.holes, seq, seq)
	b.note(s, hole{seq, seq, Unexplained, h.epoch})
}

// explain enters what was left out, where nothing was known of it.
func (b *Book) explain(s *story, skipped []statesync.Skip) {
	for _, run := range skipped {
		for _, h := range s.holes {
			if h.cause != Unexplained && h.cause != CauseReplay || h.to < run.From || h.from > run.To {
				continue
			}
			from, to := max(h.from, run.From), min(h.to, run.To)
			b.skipped[h.cause] -= to - from + 1
			s.holes = cut(s.holes, from, to)
			b.note(s, hole{from, to, run.Cause, h.epoch})
		}
	}
}

// Forget drops the workloads that ended long before now and of which nothing
// is missing. It looks through all of them: once in a few minutes is enough.
func (b *Book) Forget(now time.Time) {
	for source, s := range b.stories {
		after := b.forget
		if s.state == statesync.Untracked {
			after = max(after, comesBack)
		}
		if s.ended.IsZero() || now.Sub(s.ended) < after || s.missing() {
			continue
		}
		delete(b.stories, source)
		b.cluster(source).forgot = true
		b.forgotten++
	}
}

// missing reports whether the story lacks something without a reason.
func (s *story) missing() bool {
	for _, h := range s.holes {
		if h.cause == Unexplained {
			return true
		}
	}
	return false
}

// known returns a state of the vocabulary as its constant, so that it does not
// keep the event's text in memory.
func known(s statesync.State) statesync.State {
	for _, k := range states() {
		if s == k {
			return k
		}
	}
	return statesync.State(strings.Clone(string(s)))
}

func states() [7]statesync.State {
	return [...]statesync.State{
		statesync.Queued, statesync.Running, statesync.Succeeded, statesync.Failed,
		statesync.Cancelled, statesync.Deleted, statesync.Untracked,
	}
}
