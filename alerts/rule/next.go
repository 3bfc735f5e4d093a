package rule

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// The rules of levels.
//
// Warn and crit are raised and cleared each by itself; the level of a figure is the
// worse of those that are raised. An episode is the time for which a figure had one
// level: one that goes from warn to crit and back has three.
//
// A figure that is not known is not outside of any range: it resets For, and what
// was raised is cleared, after KeepFor. Its status is then unknown, and not a pass.
// Only a staleness that was raised, of all series together, goes on to grow when
// nobody knows the series any more.

// A State is what a rule remembers from one evaluation to the next. The zero State
// is that before the first. States are plain values: [Next] changes none.
type State struct {
	Since  time.Time        `json:"since,omitzero"`   // the first evaluation
	Groups map[string]Group `json:"groups,omitempty"` // those that are not at ease
}

// A Group is the memory of one figure.
type Group struct {
	Tags map[string]string `json:"tags,omitempty"`
	Last float64           `json:"last"` // value that was known
	Seen time.Time         `json:"seen"` // when that was
	Warn Raised            `json:"warn,omitzero"`
	Crit Raised            `json:"crit,omitzero"`
	Open *Episode          `json:"open,omitempty"` // is replaced, never changed
}

// Raised is how far one level of a figure is.
type Raised struct {
	Held  time.Time `json:"held,omitzero"`  // since when the figure is outside
	Fired time.Time `json:"fired,omitzero"` // when that was long enough; zero: not yet
	Quiet time.Time `json:"quiet,omitzero"` // when it was within again, while it is kept
}

// An Episode is the time for which a figure had one level.
type Episode struct {
	Tags  map[string]string `json:"tags,omitempty"` // of the figure
	Level verdict.Status    `json:"level"`          // warn or fail
	Began time.Time         `json:"began"`          // For after the figure went outside
	Ended time.Time         `json:"ended,omitzero"` // zero: it goes on
	Worst float64           `json:"worst"`          // value, the farthest outside
}

// A Judgement is a figure with its status.
type Judgement struct {
	Figure
	Status verdict.Status // with For and recovery values considered
	Held   time.Time      // since when it is outside of the worse level; zero: it is not
}

// An Outcome is what one evaluation found.
type Outcome struct {
	Judgements []Judgement // sorted by tags
	Ended      []Episode   // just now, sorted by tags
}

// Next evaluates a rule at a moment. The same arguments give the same results, and
// samples later than now change nothing. It is meant to be called at even intervals
// with growing times; of a clock that was set back it makes no negative times.
func Next(s State, r Rule, in Input, now time.Time) (State, Outcome) {
	r = r.WithDefaults()
	next := State{Since: s.Since, Groups: map[string]Group{}}
	if next.Since.IsZero() || next.Since.After(now) {
		next.Since = now
	}
	var out Outcome
	judge := func(key string, f Figure) {
		g := s.Groups[key]
		g.Tags = f.Tags
		if r.Func == Staleness && !f.Known() && key == "" && !g.Seen.IsZero() {
			f.Value, f.Why = g.Last+max(0, now.Sub(g.Seen)).Seconds(), ""
		}
		ended := g.step(r, f.Value, now)
		if ended != nil {
			out.Ended = append(out.Ended, *ended)
		}
		if g.Warn != (Raised{}) || g.Crit != (Raised{}) {
			next.Groups[key] = g
		}
		out.Judgements = append(out.Judgements, g.judgement(f))
	}
	figures := map[string]Figure{}
	for _, f := range Figures(r, in, now) {
		if r.Func == Absence && f.Value > 0 && now.Sub(next.Since) < r.Window {
			f.Value, f.Why = math.NaN(), "looked for "+short(now.Sub(next.Since))+" only"
		}
		figures[keyOf(f.Tags)] = f
	}
	for key, g := range s.Groups {
		if _, ok := figures[key]; !ok {
			figures[key] = Figure{Tags: g.Tags, Value: math.NaN(), Why: "it is not there any more"}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(figures)) {
		judge(key, figures[key])
	}
	return next, out
}

// Open are the episodes that go on, sorted by tags.
func (s State) Open() (out []Episode) {
	for _, key := range slices.Sorted(maps.Keys(s.Groups)) {
		if e := s.Groups[key].Open; e != nil {
			out = append(out, *e)
		}
	}
	return out
}

// Replay evaluates a rule over recorded samples, from one moment to another, both
// included, and returns its episodes in the order in which they ended; those that go
// on come last. A step that is not positive gives none.
func Replay(r Rule, in Input, from, to time.Time, step time.Duration) (out []Episode) {
	if step <= 0 {
		return nil
	}
	var s State
	for at := from; !at.After(to); at = at.Add(step) {
		var o Outcome
		s, o = Next(s, r, in, at)
		out = append(out, o.Ended...)
	}
	return append(out, s.Open()...)
}

// step takes in a value and returns the episode that is over.
func (g *Group) step(r Rule, v float64, now time.Time) (ended *Episode) {
	if !math.IsNaN(v) {
		g.Last, g.Seen = v, now
	}
	g.Warn = g.Warn.next(outside(r.Warn, r.WarnClear, g.Warn, v), r, now)
	g.Crit = g.Crit.next(outside(r.Crit, r.CritClear, g.Crit, v), r, now)
	level, of := g.level(), r.Warn
	if level == verdict.Fail {
		of = r.Crit
	}
	if g.Open != nil && g.Open.Level == level {
		open := *g.Open
		if !math.IsNaN(v) && excess(of, v) > excess(of, open.Worst) {
			open.Worst = v
		}
		g.Open = &open
		return nil
	}
	if g.Open != nil {
		over := *g.Open
		over.Ended = now
		if over.Began.After(now) {
			over.Began = now // the clock was set back
		}
		ended, g.Open = &over, nil
	}
	if level != verdict.Pass {
		g.Open = &Episode{Tags: g.Tags, Level: level, Began: now, Worst: g.Last}
	}
	return ended
}

// outside reports whether a value is outside of a level's range, and, once that is
// raised, whether it has not recovered yet.
func outside(alert, clear *nagios.Range, r Raised, v float64) bool {
	switch {
	case alert == nil || math.IsNaN(v):
		return false
	case !r.Fired.IsZero() && clear != nil:
		return clear.Alerts(v)
	}
	return alert.Alerts(v)
}

func (l Raised) next(outside bool, r Rule, now time.Time) Raised {
	switch {
	case outside:
		l.Quiet = time.Time{}
		if l.Held.IsZero() || l.Held.After(now) {
			l.Held = now
		}
		if l.Fired.IsZero() && now.Sub(l.Held) >= r.For {
			l.Fired = now
		}
		return l
	case l.Fired.IsZero():
		return Raised{}
	}
	if l.Quiet.IsZero() || l.Quiet.After(now) {
		l.Quiet = now
	}
	if now.Sub(l.Quiet) >= r.KeepFor {
		return Raised{}
	}
	return l
}

func (g *Group) level() verdict.Status {
	switch {
	case !g.Crit.Fired.IsZero():
		return verdict.Fail
	case !g.Warn.Fired.IsZero():
		return verdict.Warn
	}
	return verdict.Pass
}

func (g *Group) judgement(f Figure) Judgement {
	j := Judgement{Figure: f, Status: g.level(), Held: g.Crit.Held}
	if j.Held.IsZero() {
		j.Held = g.Warn.Held
	}
	if j.Status == verdict.Pass && !f.Known() {
		j.Status = verdict.Unknown
	}
	return j
}

// Worst returns the judgement that speaks for all: the worst status, and of those the
// value farthest outside, or nearest to it. Figures that are not known speak only
// if none is: series come and go. ok is false if there is none.
func (o Outcome) Worst(r Rule) (worst Judgement, ok bool) {
	for _, j := range o.Judgements {
		if !ok || r.worse(j, worst) {
			worst, ok = j, true
		}
	}
	return worst, ok
}

func (r Rule) worse(a, b Judgement) bool {
	raised := func(j Judgement) bool { return j.Status == verdict.Warn || j.Status == verdict.Fail }
	if raised(a) != raised(b) || raised(a) && a.Status != b.Status {
		return raised(a) && (!raised(b) || a.Status == verdict.Fail)
	}
	if a.Known() != b.Known() {
		return a.Known()
	}
	return cmp.Or(cmp.Compare(excess(r.Crit, a.Value), excess(r.Crit, b.Value)), cmp.Compare(excess(r.Warn, a.Value), excess(r.Warn, b.Value))) > 0
}
