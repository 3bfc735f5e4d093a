package checks

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

// maxLooks bounds what is remembered of a pipeline: looks that come faster than
// this many in the time to remember are not all kept.
const maxLooks = 60

// A look is what a pipeline was at one moment.
type look struct {
	at          time.Time
	out, queued int64
	dropped     map[string]int64 // since the first look, by reason
}

// watched is what is remembered of one pipeline.
type watched struct {
	looks []look // by growing time; the last is the newest one

	raw     map[string]int64 // drops as they were counted last, by reason
	dropped map[string]int64 // grown since the first look; replaced, not changed

	offSince time.Time // since when the balance is off; zero: it is not
	offLooks int
}

// look takes in what a pipeline is now.
func (w *watched) look(p metrics.PipelineSnapshot, now time.Time, c PipelineConfig) {
	if n := len(w.looks); n > 0 && now.Before(w.looks[n-1].at) {
		w.looks, w.offLooks = nil, 0 // the clock was set back
	}
	if w.raw == nil {
		w.raw, w.dropped = p.Dropped, map[string]int64{}
	}
	grown := maps.Clone(w.dropped)
	for reason, n := range p.Dropped {
		before := w.raw[reason]
		if n < before {
			before = 0 // it began anew
		}
		if n > before {
			grown[reason] += n - before
		}
	}
	w.raw, w.dropped = p.Dropped, grown

	off, known := p.Balance()
	switch {
	case !known || max(off, -off) <= p.Tolerance:
		w.offSince, w.offLooks = time.Time{}, 0
	case w.offLooks == 0:
		w.offSince, w.offLooks = now, 1
	default:
		w.offLooks++
	}
	w.remember(look{now, p.Out, p.Queued, grown}, max(c.Stuck, c.Drops.Over))
}

// remember keeps looks for a time, and one that is older: what was when it began.
func (w *watched) remember(l look, keep time.Duration) {
	if n := len(w.looks); n > 1 && l.at.Sub(w.looks[n-2].at) < keep/maxLooks {
		w.looks[n-1] = l
	} else {
		w.looks = append(w.looks, l)
	}
	for len(w.looks) > 1 && l.at.Sub(w.looks[1].at) >= keep {
		w.looks = slices.Delete(w.looks, 0, 1)
	}
}

// since is the look of that long ago, or the first one.
func (w *watched) since(d time.Duration) (l look, whole bool) {
	now := w.looks[len(w.looks)-1].at
	for _, old := range slices.Backward(w.looks) {
		if now.Sub(old.at) >= d {
			return old, true
		}
	}
	return w.looks[0], false
}

// A finding is what is said of one pipeline.
type finding struct {
	id      pipelineID
	status  verdict.Status
	message string // why, where it does not pass; all reasons, the worst first
	unknown string // terms

	queued, oldest, drops float64
}

// judge applies all conditions.
func (c *pipelineCheck) judge(w *watched, p metrics.PipelineSnapshot, now time.Time) finding {
	f := finding{id: idOf(p), unknown: unknownTerms(p)}
	type reason struct {
		status verdict.Status
		text   string
	}
	var reasons []reason
	say := func(s verdict.Status, format string, args ...any) {
		reasons = append(reasons, reason{s, fmt.Sprintf(format, args...)})
	}
	unit := cmp.Or(p.Unit, "items")
	if off, _ := p.Balance(); w.offLooks > 1 && now.Sub(w.offSince) >= c.config.BalanceFor {
		within := "0"
		if p.Tolerance > 0 {
			within = fmt.Sprintf("0, give or take %d", p.Tolerance)
		}
		say(verdict.Fail, "balance is %d %s since %s, want %s", off, unit, w.offSince.UTC().Format(time.RFC3339), within)
	}
	if p.Has(metrics.OldestTerm) {
		age := p.OldestAge(now)
		f.oldest = age.Seconds()
		shown := age.Round(time.Millisecond)
		if age >= time.Minute {
			shown = age.Truncate(time.Second)
		}
		switch limits := c.config.Oldest; {
		case limits.Crit > 0 && age > limits.Crit:
			say(verdict.Fail, "the oldest of %d %s waits for %s, want at most %s", p.Queued, unit, brief(shown), brief(limits.Crit))
		case limits.Warn > 0 && age > limits.Warn:
			say(verdict.Warn, "the oldest of %d %s waits for %s, want at most %s", p.Queued, unit, brief(shown), brief(limits.Warn))
		}
	}
	if p.Has(metrics.QueuedTerm) {
		f.queued = float64(p.Queued)
		if then, ok := c.stuck(w, p); ok {
			say(verdict.Fail, "stuck: nothing went out for %s, and %d %s wait, %d then", brief(now.Sub(then.at).Round(time.Second)), p.Queued, unit, then.queued)
		}
	}
	if p.Has(metrics.DroppedTerm) {
		over := c.config.Drops
		lost, why := w.lost(over.Over)
		f.drops = float64(lost)
		switch {
		case over.Crit != nil && over.Crit.Alerts(f.drops):
			say(verdict.Fail, "%d %s dropped in %s%s, want %s", lost, unit, brief(over.Over), why, wanted(*over.Crit, f.drops, ""))
		case over.Warn != nil && over.Warn.Alerts(f.drops):
			say(verdict.Warn, "%d %s dropped in %s%s, want %s", lost, unit, brief(over.Over), why, wanted(*over.Warn, f.drops, ""))
		}
	}
	slices.SortStableFunc(reasons, func(a, b reason) int { return verdict.Compare(b.status, a.status) })
	var texts []string
	for _, r := range reasons {
		f.status = verdict.Worse(f.status, r.status)
		texts = append(texts, r.text)
	}
	f.message = strings.Join(texts, "; ")
	return f
}

// stuck reports whether something waited all the time, nothing went out, and no
// less waits than then.
func (c *pipelineCheck) stuck(w *watched, p metrics.PipelineSnapshot) (then look, ok bool) {
	then, whole := w.since(c.config.Stuck)
	if !whole || c.config.Stuck == 0 || !p.Has(metrics.OutTerm) || p.Queued < then.queued {
		return then, false
	}
	for _, l := range w.looks {
		if !l.at.Before(then.at) && (l.queued <= 0 || l.out != p.Out) {
			return then, false
		}
	}
	return then, true
}

// lost is how many items were dropped in a time, and for what reasons.
func (w *watched) lost(over time.Duration) (n int64, why string) {
	then, _ := w.since(over)
	type part struct {
		reason string
		n      int64
	}
	var parts []part
	for reason, total := range w.dropped {
		if more := total - then.dropped[reason]; more > 0 {
			parts = append(parts, part{reason, more})
			n += more
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.reason, b.reason)) })
	const some = 3
	var texts []string
	for _, p := range parts[:min(len(parts), some)] {
		texts = append(texts, fmt.Sprintf("%s %d", p.reason, p.n))
	}
	if len(parts) > some {
		texts = append(texts, fmt.Sprintf("and %d more", len(parts)-some))
	}
	if len(texts) > 0 {
		why = " (" + strings.Join(texts, ", ") + ")"
	}
	return n, why
}

// unknownTerms names what cannot be judged, and the terms that are missing for it.
func unknownTerms(p metrics.PipelineSnapshot) string {
	var terms, missing []string
	for _, t := range []struct {
		term metrics.Terms
		name string
	}{{metrics.InTerm, "in"}, {metrics.OutTerm, "out"}, {metrics.QueuedTerm, "queued"}, {metrics.DroppedTerm, "drops"}} {
		if !p.Has(t.term) {
			terms = append(terms, t.name)
		}
	}
	if len(terms) > 0 {
		missing = append(missing, "balance (no "+strings.Join(terms, ", ")+")")
	}
	if !p.Has(metrics.OldestTerm) {
		missing = append(missing, "oldest")
	}
	return strings.Join(missing, " and ")
}
