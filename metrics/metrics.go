// Package metrics is the vocabulary of measurement: descriptors, pipelines, histograms and the registry that holds them.
//
// It imports only the standard library. An exporter reads a [Registry]
// through [Registry.Gather] and renders what it finds; nothing here knows a
// wire format.
package metrics

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Type is what a metric's values mean.
type Type string

// The types of metric that a registry can hold.
const (
	CounterType   Type = "counter"
	GaugeType     Type = "gauge"
	HistogramType Type = "histogram"
)

// Desc describes one metric, once: documentation, dashboards, alerts and the
// limit on series all read it.
type Desc struct {
	Name    string   // Prometheus name, with its unit: outrider_pipeline_oldest_age_seconds
	Datadog string   // name in Datadog: outrider.pipeline.oldest_age
	Type    Type     // counter, gauge or histogram
	Help    string   // one sentence
	Unit    string   // seconds, bytes, items, ratio ...
	Tags    []string // names of the tags, in the order of the values of a Point
	Budget  int      // series this metric may have at most, those folded included (see [Vec]); 0: no bound

	// SentUnit is the unit in which somebody sent the values, where we count them
	// in another: milliseconds, which are seconds here. Empty: it is Unit.
	SentUnit string

	// TTL is after how long a series that does not change is shown no longer;
	// 0: it stays. What a function yields stays for as long as it is yielded.
	TTL time.Duration
}

// A Point is one series' value now. Tags are the values of Desc.Tags, in order;
// an empty one means that the series does not have that tag.
type Point struct {
	Tags  []string
	Value float64
	Hist  *HistogramSnapshot // set for histograms, then Value is unused

	Exemplar *Exemplar // of a counter; nil: none
}

// A Family is a descriptor with its points, sorted by tags.
type Family struct {
	Desc   Desc
	Points []Point
}

// Registry holds every metric of one process. Its methods may be called from
// many goroutines at once.
type Registry struct {
	mu        sync.Mutex
	families  map[string]*family
	others    []others
	pipelines map[string]*Pipeline
	mapped    []mapped
	depths    map[pipelineID]*depth
	refused   map[string]uint64 // exemplars, by metric
}

// others yields whole families, whose names and tags are known when they are
// read.
type others struct {
	families func() []Family
	group    *Group
}

type family struct {
	desc    Desc
	sources []source
}

// A source yields the points of one owner. It is called for every Gather.
type source struct {
	points func(yield func(Point))
	tick   func(now time.Time) // nil: nothing of it goes with time
	group  *Group
}

// NewRegistry returns an empty registry that already describes pipelines.
func NewRegistry() *Registry {
	return &Registry{families: map[string]*family{}, pipelines: map[string]*Pipeline{}, depths: map[pipelineID]*depth{}}
}

// Func registers a function that yields the points of d each time they are
// read. Several functions may feed one descriptor. The function must be fast,
// must not call the registry, and may be called concurrently with itself.
//
// A name registered twice with different descriptions is an error, and so is
// one of those that describe pipelines.
func (r *Registry) Func(d Desc, points func(yield func(Point))) error {
	return r.Group().Func(d, points)
}

func (r *Registry) add(d Desc, s source) error {
	if err := d.check(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.families[d.Name]
	if !ok {
		f = &family{desc: d}
		r.families[d.Name] = f
	} else if !f.desc.equal(d) {
		return fmt.Errorf("metric %s: described twice: %+v, then %+v", d.Name, f.desc, d)
	}
	f.sources = append(f.sources, s)
	return nil
}

// Gather reads every metric once. The result is sorted by name, then by tags.
func (r *Registry) Gather() []Family {
	r.mu.Lock()
	more := slices.Clone(r.others)
	r.mu.Unlock()
	out := r.Instruments()
	if len(more) == 0 {
		return out
	}
	sets := [][]Family{out}
	for _, o := range more {
		sets = append(sets, o.families())
	}
	return Merge(sets...)
}

// Instruments is [Registry.Gather] without what [Group.Families] yields, which
// others read at a pace of their own.
func (r *Registry) Instruments() []Family {
	r.mu.Lock()
	fams := make([]*family, 0, len(r.families))
	for _, f := range r.families {
		fams = append(fams, &family{desc: f.desc, sources: slices.Clone(f.sources)})
	}
	r.mu.Unlock()

	out := make([]Family, 0, len(fams)+len(pipelineDescs))
	for _, f := range fams {
		var points []Point
		for _, s := range f.sources {
			s.points(func(p Point) { points = append(points, p) })
		}
		out = append(out, sortedFamily(f.desc, points))
	}
	if pipes := r.Pipelines(); len(pipes) > 0 {
		out = append(out, r.pipelineFamilies(pipes)...)
	}
	out = append(out, r.refusedExemplars()...)
	slices.SortFunc(out, func(a, b Family) int { return strings.Compare(a.Desc.Name, b.Desc.Name) })
	return out
}

// Tick brings what goes with time up to now: the rates of meters, series that
// are idle, how much waits in each pipeline. The program calls it once a second.
// It returns the pipelines as they are.
func (r *Registry) Tick(now time.Time) []PipelineSnapshot {
	r.mu.Lock()
	var ticks []func(time.Time)
	for _, f := range r.families {
		for _, s := range f.sources {
			if s.tick != nil {
				ticks = append(ticks, s.tick)
			}
		}
	}
	r.mu.Unlock()
	for _, tick := range ticks {
		tick(now)
	}
	pipes := r.Pipelines()
	r.sampleDepths(pipes)
	return pipes
}

// Descs returns the descriptors of everything registered, pipelines
// included, sorted by name: the catalogue.
func (r *Registry) Descs() []Desc {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Concat(pipelineDescs, depthDescs, []Desc{refusedDesc})
	for _, f := range r.families {
		out = append(out, f.desc)
	}
	slices.SortFunc(out, func(a, b Desc) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func sortedFamily(d Desc, points []Point) Family {
	slices.SortFunc(points, func(a, b Point) int { return slices.Compare(a.Tags, b.Tags) })
	return Family{Desc: d, Points: points}
}

func (d Desc) check() error {
	switch {
	case d.Name == "" || d.Help == "":
		return fmt.Errorf("metric %q: name and help must not be empty", d.Name)
	case slices.ContainsFunc(slices.Concat(pipelineDescs, depthDescs), func(p Desc) bool { return p.Name == d.Name }):
		return fmt.Errorf("metric %s: the name belongs to the pipelines", d.Name)
	case d.Name == refusedDesc.Name:
		return fmt.Errorf("metric %s: the name belongs to the exemplars", d.Name)
	case d.Type != CounterType && d.Type != GaugeType && d.Type != HistogramType:
		return fmt.Errorf("metric %s: type %q, want counter, gauge or histogram", d.Name, d.Type)
	}
	return nil
}

func (d Desc) equal(o Desc) bool {
	return d.Datadog == o.Datadog && d.Type == o.Type && d.Help == o.Help &&
		d.Unit == o.Unit && d.SentUnit == o.SentUnit && d.Budget == o.Budget && d.TTL == o.TTL && slices.Equal(d.Tags, o.Tags)
}
