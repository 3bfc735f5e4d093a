package metrics

import (
	"maps"
	"slices"
)

// A Group is what one owner has registered, so that it can be given back when
// the owner goes before the process does. Its methods may be called from many
// goroutines at once.
type Group struct{ registry *Registry }

// Group returns a group without metrics.
func (r *Registry) Group() *Group { return &Group{registry: r} }

// Func registers as [Registry.Func] does, until Close.
func (g *Group) Func(d Desc, points func(yield func(Point))) error {
	return g.registry.add(d, source{points: points, group: g})
}

// Pipeline registers as [Registry.Pipeline] does, until Close.
func (g *Group) Pipeline(o PipelineOptions) (*Pipeline, error) {
	return g.registry.addPipeline(o, g)
}

// Families registers a function that yields whole families each time they are
// read, until Close: for what is known only then. They are sorted by tags, may be
// read from many goroutines, and must not change afterwards. One of a name that
// the registry has, described otherwise, is left out.
func (g *Group) Families(families func() []Family) {
	g.registry.mu.Lock()
	defer g.registry.mu.Unlock()
	g.registry.others = append(g.registry.others, others{families, g})
}

// Pipelines registers a function that yields pipelines whose terms somebody else
// counts, until Close. One whose service, name and target the registry has is
// left out.
func (g *Group) Pipelines(snapshots func() []PipelineSnapshot) {
	g.registry.mu.Lock()
	defer g.registry.mu.Unlock()
	g.registry.mapped = append(g.registry.mapped, mapped{snapshots, g})
}

// Close takes the group's metrics out of the registry; the same may then be
// registered anew. Descriptions stay. What is being read at that moment may
// still call the group's functions for the last time.
func (g *Group) Close() {
	r := g.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.families {
		f.sources = slices.DeleteFunc(f.sources, func(s source) bool { return s.group == g })
	}
	r.others = slices.DeleteFunc(r.others, func(o others) bool { return o.group == g })
	r.mapped = slices.DeleteFunc(r.mapped, func(m mapped) bool { return m.group == g })
	maps.DeleteFunc(r.pipelines, func(_ string, p *Pipeline) bool { return p.group == g })
}
