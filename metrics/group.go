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
	maps.DeleteFunc(r.pipelines, func(_ string, p *Pipeline) bool { return p.group == g })
}
