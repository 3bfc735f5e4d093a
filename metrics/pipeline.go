package metrics

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Pipeline counts the work that passes one place where work can wait:
//
//	Carried + In = Out + Queued + Dropped
//
// What is left over is its balance, which is exported and should be 0. Queued
// is read from the structure that holds the work, never derived from the
// other terms: that is what makes the balance mean something.
//
// The owner changes the terms under the same lock that guards its structure
// (see [Lock]), so that a snapshot never sees work half moved.
type Pipeline struct {
	opts  PipelineOptions
	group *Group // nil: it stays

	mu      sync.Mutex
	carried int64
	in      int64
	out     int64
	retries map[string]int64
	drops   map[string]int64
}

// PipelineOptions say what a pipeline is.
type PipelineOptions struct {
	Name   string // delivery, watch, ledger ...
	Target string // which one of them: a sink's name, a stream's; empty when there is only one
	Unit   string // what is counted: changes, events, lines, samples

	// Reasons are those for drops that are known beforehand. Each is shown from
	// the beginning, at 0: of a counter that appears at 1 Prometheus knows no rate.
	Reasons []string

	// Lock guards the structure in which the work waits. Snapshot holds it
	// while it reads Queue and the terms. May be nil.
	Lock sync.Locker

	// Queue reads how much waits, in flight included. It is called with Lock
	// held. Nil means that the term is not known, and neither is the balance.
	Queue func() Queue
}

// Queue is what waits in a pipeline now.
type Queue struct {
	Len    int64
	Oldest time.Time // when the oldest item came in; zero when nothing waits
}

// PipelineSnapshot is every term of a pipeline at one moment.
type PipelineSnapshot struct {
	Name, Target, Unit string
	Service            string // whose it is: a neighbour's name; empty: this process's
	Carried, In, Out   int64
	Queued             int64
	Oldest             time.Time        // zero when nothing waits
	Retries            map[string]int64 // by cause
	Dropped            map[string]int64 // by reason
	Reasons            []string         // of [PipelineOptions]
	Unknown            Terms            // those of which nobody knows the figures

	// Tolerance is how far the balance may be off without anything being wrong: a
	// neighbour's terms are not read at one moment. 0 for this process's own.
	Tolerance int64
}

// Terms is a set of a pipeline's terms.
type Terms uint8

// The terms of a pipeline. CarriedTerm and RetriesTerm are known of all but a
// neighbour's.
const (
	CarriedTerm Terms = 1 << iota
	InTerm
	OutTerm
	QueuedTerm
	RetriesTerm
	DroppedTerm
	OldestTerm
)

// Has reports whether the terms are all known.
func (s PipelineSnapshot) Has(t Terms) bool { return s.Unknown&t == 0 }

// Balance is Carried + In - Out - Queued - Dropped: 0 when the books balance.
// ok is false when a term is not known.
func (s PipelineSnapshot) Balance() (balance int64, ok bool) {
	return s.Carried + s.In - s.Out - s.Queued - s.TotalDropped(), s.Has(CarriedTerm | InTerm | OutTerm | QueuedTerm | DroppedTerm)
}

// Excess is how far the balance is off beyond Tolerance: 0 when the books balance.
// ok is false when a term is not known.
func (s PipelineSnapshot) Excess() (excess int64, ok bool) {
	balance, ok := s.Balance()
	return max(0, max(balance, -balance)-s.Tolerance), ok
}

// Drops are the drops by reason, with those of the Reasons that have none at 0.
func (s PipelineSnapshot) Drops() map[string]int64 {
	out := make(map[string]int64, len(s.Reasons)+len(s.Dropped))
	for _, reason := range s.Reasons {
		out[reason] = 0
	}
	maps.Copy(out, s.Dropped)
	return out
}

// TotalDropped is the sum of the drops for all reasons.
func (s PipelineSnapshot) TotalDropped() int64 { return sum(s.Dropped) }

// TotalRetries is the sum of the retries for all causes.
func (s PipelineSnapshot) TotalRetries() int64 { return sum(s.Retries) }

// OldestAge is how long the oldest item has waited at now; 0 when none waits.
func (s PipelineSnapshot) OldestAge(now time.Time) time.Duration {
	if s.Oldest.IsZero() || now.Before(s.Oldest) {
		return 0
	}
	return now.Sub(s.Oldest)
}

// Pipeline registers a pipeline. A second one of the same name and target is
// an error.
func (r *Registry) Pipeline(o PipelineOptions) (*Pipeline, error) { return r.addPipeline(o, nil) }

func (r *Registry) addPipeline(o PipelineOptions, g *Group) (*Pipeline, error) {
	if o.Name == "" || o.Unit == "" {
		return nil, fmt.Errorf("pipeline %q: name and unit must not be empty", o.Name)
	}
	o.Reasons = slices.Clone(o.Reasons)
	p := &Pipeline{opts: o, group: g, retries: map[string]int64{}, drops: map[string]int64{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := o.Name + "\x00" + o.Target
	if _, dup := r.pipelines[key]; dup {
		return nil, fmt.Errorf("pipeline %s %s: registered twice", o.Name, o.Target)
	}
	r.pipelines[key] = p
	return p, nil
}

// A mapped source yields pipelines whose terms somebody else counts.
type mapped struct {
	snapshots func() []PipelineSnapshot
	group     *Group
}

// Pipelines returns a snapshot of every pipeline, sorted by service, name and
// target.
func (r *Registry) Pipelines() []PipelineSnapshot {
	r.mu.Lock()
	pipes := r.sortedPipelines()
	more := slices.Clone(r.mapped)
	r.mu.Unlock()
	out := make([]PipelineSnapshot, len(pipes))
	for i, p := range pipes {
		out[i] = p.Snapshot()
	}
	if len(more) == 0 {
		return out
	}
	for _, m := range more {
		out = append(out, m.snapshots()...)
	}
	slices.SortStableFunc(out, func(a, b PipelineSnapshot) int { return a.id().compare(b.id()) })
	return slices.CompactFunc(out, func(a, b PipelineSnapshot) bool { return a.id() == b.id() })
}

// A pipelineID says which pipeline it is.
type pipelineID struct{ service, name, target string }

func (s PipelineSnapshot) id() pipelineID { return pipelineID{s.Service, s.Name, s.Target} }

func (a pipelineID) compare(b pipelineID) int {
	return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.name, b.name), cmp.Compare(a.target, b.target))
}

// Carry counts n items found waiting at the start.
func (p *Pipeline) Carry(n int64) { p.add(&p.carried, n) }

// In counts n items that came in.
func (p *Pipeline) In(n int64) { p.add(&p.in, n) }

// Out counts n items that left done.
func (p *Pipeline) Out(n int64) { p.add(&p.out, n) }

// Retry counts n items tried again because of cause. A retry is not a term of
// the balance: the item still waits.
func (p *Pipeline) Retry(cause string, n int64) { p.addTo(p.retries, cause, n) }

// Drop counts n items given up for reason.
func (p *Pipeline) Drop(reason string, n int64) { p.addTo(p.drops, reason, n) }

// Snapshot reads all terms at one moment.
func (p *Pipeline) Snapshot() PipelineSnapshot {
	if p.opts.Lock != nil {
		p.opts.Lock.Lock()
		defer p.opts.Lock.Unlock()
	}
	var q Queue
	var unknown Terms
	if p.opts.Queue != nil {
		q = p.opts.Queue()
	} else {
		unknown = QueuedTerm | OldestTerm
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return PipelineSnapshot{
		Name: p.opts.Name, Target: p.opts.Target, Unit: p.opts.Unit,
		Carried: p.carried, In: p.in, Out: p.out,
		Queued: q.Len, Oldest: q.Oldest, Unknown: unknown,
		Retries: maps.Clone(p.retries), Dropped: maps.Clone(p.drops), Reasons: p.opts.Reasons,
	}
}

func (p *Pipeline) add(term *int64, n int64) {
	p.mu.Lock()
	*term += n
	p.mu.Unlock()
}

func (p *Pipeline) addTo(terms map[string]int64, key string, n int64) {
	p.mu.Lock()
	terms[key] += n
	p.mu.Unlock()
}

// sortedPipelines needs r.mu.
func (r *Registry) sortedPipelines() []*Pipeline {
	keys := slices.Sorted(maps.Keys(r.pipelines))
	out := make([]*Pipeline, len(keys))
	for i, k := range keys {
		out[i] = r.pipelines[k]
	}
	return out
}

// pipelineTags are the tags of every term of a pipeline. Read-only.
var pipelineTags = []string{"pipeline", "target", "unit", "service"}

// pipelineDescs describe the terms of every pipeline. Read-only.
var pipelineDescs = []Desc{
	pipelineDesc("carried_total", CounterType, "items", "Items found waiting when the process started."),
	pipelineDesc("in_total", CounterType, "items", "Items that came in."),
	pipelineDesc("out_total", CounterType, "items", "Items that left done: acknowledged, not just sent."),
	pipelineDesc("queued", GaugeType, "items", "Items that wait now, in flight included, read from the structure that holds them."),
	pipelineDesc("retries_total", CounterType, "items", "Items tried again, by cause.", "cause"),
	pipelineDesc("drops_total", CounterType, "items", "Items given up, by reason.", "reason"),
	pipelineDesc("balance", GaugeType, "items", "Carried + in - out - queued - drops. Not 0 for two minutes means that the pipeline lost count."),
	pipelineDesc("balance_tolerance", GaugeType, "items", "How far a neighbour's balance may be off because its terms are not read at one moment: what moved between the last two reads."),
	pipelineDesc("balance_excess", GaugeType, "items", "How far the balance is off beyond what reads of several moments explain: 0 when the books balance."),
	pipelineDesc("oldest_age_seconds", GaugeType, "seconds", "How long the oldest waiting item has waited; 0 when none waits."),
}

func pipelineDesc(name string, t Type, unit, help string, more ...string) Desc {
	dd := "outrider.pipeline." + strings.TrimSuffix(strings.TrimSuffix(name, "_total"), "_seconds")
	return Desc{
		Name: "outrider_pipeline_" + name, Datadog: dd, Type: t, Unit: unit, Help: help,
		Tags: append(slices.Clone(pipelineTags), more...), Budget: 1000,
	}
}

// pipelineFamilies shows what is known of each term. A cause is shown from when
// there is one, and so is a reason that was not known beforehand.
func (r *Registry) pipelineFamilies(pipes []PipelineSnapshot) []Family {
	now := time.Now()
	points := make([][]Point, len(pipelineDescs))
	for _, s := range pipes {
		tags := s.tags()
		put := func(i int, known bool, v float64, more ...string) {
			if known {
				points[i] = append(points[i], Point{Tags: append(slices.Clone(tags), more...), Value: v})
			}
		}
		put(0, s.Has(CarriedTerm), float64(s.Carried))
		put(1, s.Has(InTerm), float64(s.In))
		put(2, s.Has(OutTerm), float64(s.Out))
		put(3, s.Has(QueuedTerm), float64(s.Queued))
		for cause, n := range s.Retries {
			put(4, s.Has(RetriesTerm), float64(n), cause)
		}
		for reason, n := range s.Drops() {
			put(5, s.Has(DroppedTerm), float64(n), reason)
		}
		balance, known := s.Balance()
		put(6, known, float64(balance))
		put(7, known && s.Service != "", float64(s.Tolerance))
		excess, known := s.Excess()
		put(8, known, float64(excess))
		put(9, s.Has(OldestTerm), s.OldestAge(now).Seconds())
	}
	out := make([]Family, len(pipelineDescs))
	for i, d := range pipelineDescs {
		out[i] = sortedFamily(d, points[i])
	}
	return append(out, r.depthFamilies(pipes)...)
}

func (s PipelineSnapshot) tags() []string { return []string{s.Name, s.Target, s.Unit, s.Service} }

func sum(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}
