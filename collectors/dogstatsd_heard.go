package collectors

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// Lines of these names are the terms of a pipeline of whoever sends them: its
// name is the tag pipeline, and service, target, unit, reason (of drops) and cause
// (of retries) are tags as well. Without the tag service it is the collector's. A
// term of which nothing was heard is not known.

const (
	maxHeardPipelines = 200
	maxHeardReasons   = 50 // of one pipeline; more count as one
)

// pipelineTermOf is the term that a name stands for.
func pipelineTermOf(name []byte) (metrics.Terms, bool) {
	const prefix = "pipeline."
	if len(name) < len(prefix)+2 || string(name[:len(prefix)]) != prefix {
		return 0, false
	}
	switch string(name[len(prefix):]) {
	case "in":
		return metrics.InTerm, true
	case "out":
		return metrics.OutTerm, true
	case "retry":
		return metrics.RetriesTerm, true
	case "drop":
		return metrics.DroppedTerm, true
	case "queued":
		return metrics.QueuedTerm, true
	}
	return 0, false
}

// statsdHeard are the pipelines of which lines told.
type statsdHeard struct{ pipelines map[heardName]*heardPipeline }

type heardName struct{ service, name, target string }

type heardPipeline struct {
	unit            string
	heard           metrics.Terms
	in, out, queued float64
	retries, drops  map[string]float64
	last            time.Time
}

// add counts a line of a pipeline.
func (h *statsdHeard) add(term metrics.Terms, l *DogStatsDLine, limits statsdLimits, now time.Time) lineDrop {
	want := byte('c')
	if term == metrics.QueuedTerm {
		want = 'g'
	}
	if l.Type != want {
		return dropPipeline
	}
	var service, name, target, unit, reason, cause []byte
	for key, value := range EachTag(l.Tags) {
		value = cutText(value, limits.tagLength)
		switch string(key) {
		case "pipeline":
			name = value
		case "service":
			service = value
		case "target":
			target = value
		case "unit":
			unit = value
		case "reason":
			reason = value
		case "cause":
			cause = value
		}
	}
	if len(name) == 0 {
		return dropPipeline
	}
	p := h.pipelines[heardName{string(service), string(name), string(target)}]
	if p == nil {
		if len(h.pipelines) >= maxHeardPipelines {
			return dropBudget
		}
		if h.pipelines == nil {
			h.pipelines = map[heardName]*heardPipeline{}
		}
		p = &heardPipeline{retries: map[string]float64{}, drops: map[string]float64{}}
		h.pipelines[heardName{valid(service), valid(name), valid(target)}] = p
	}
	if len(unit) > 0 && string(unit) != p.unit {
		p.unit = valid(unit)
	}
	p.heard |= term
	p.last = now
	for _, v := range l.Values {
		p.count(term, v/l.Rate, reason, cause)
	}
	return lineCounted
}

func (p *heardPipeline) count(term metrics.Terms, v float64, reason, cause []byte) {
	switch term {
	case metrics.InTerm:
		p.in += v
	case metrics.OutTerm:
		p.out += v
	case metrics.RetriesTerm:
		countFor(p.retries, cause, v)
	case metrics.DroppedTerm:
		countFor(p.drops, reason, v)
	case metrics.QueuedTerm:
		p.queued = v
	}
}

func countFor(counts map[string]float64, why []byte, v float64) {
	if old, has := counts[string(why)]; has {
		counts[string(why)] = old + v
		return
	}
	word := valid(why)
	if word == "" {
		word = "unknown"
	}
	if _, has := counts[word]; !has && len(counts) >= maxHeardReasons {
		word = metrics.Other
	}
	counts[word] += v
}

func valid(b []byte) string { return strings.ToValidUTF8(string(b), "�") }

// snapshots are the pipelines, sorted by service, name and target.
func (h *statsdHeard) snapshots(service string) []metrics.PipelineSnapshot {
	const all = metrics.CarriedTerm | metrics.InTerm | metrics.OutTerm | metrics.QueuedTerm | metrics.RetriesTerm | metrics.DroppedTerm | metrics.OldestTerm
	out := make([]metrics.PipelineSnapshot, 0, len(h.pipelines))
	keys := slices.SortedFunc(maps.Keys(h.pipelines), func(a, b heardName) int {
		return cmp.Or(strings.Compare(cmp.Or(a.service, service), cmp.Or(b.service, service)), strings.Compare(a.name, b.name), strings.Compare(a.target, b.target))
	})
	for _, key := range keys {
		p := h.pipelines[key]
		out = append(out, metrics.PipelineSnapshot{
			Service: cmp.Or(key.service, service), Name: key.name, Target: key.target, Unit: cmp.Or(p.unit, "items"),
			In: wholeTerm(p.in), Out: wholeTerm(p.out), Queued: wholeTerm(p.queued),
			Retries: wholeTerms(p.retries), Dropped: wholeTerms(p.drops),
			Unknown: all &^ p.heard,
		})
	}
	return out
}

func wholeTerms(m map[string]float64) map[string]int64 {
	out := make(map[string]int64, len(m))
	for k, v := range m {
		out[k] = wholeTerm(v)
	}
	return out
}

// wholeTerm rounds: lines may be sampled.
func wholeTerm(v float64) int64 { return int64(max(-1<<62, min(1<<62, math.Round(v)))) }

// expire forgets pipelines of which nothing was heard for the time to live.
func (h *statsdHeard) expire(limits statsdLimits, now time.Time) {
	maps.DeleteFunc(h.pipelines, func(_ heardName, p *heardPipeline) bool { return now.Sub(p.last) >= limits.ttl })
}
