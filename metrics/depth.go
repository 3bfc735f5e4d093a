package metrics

import "slices"

// depthSamples is for how many seconds the depth of a pipeline is remembered.
const depthSamples = 60

// A depth is how much waited in a pipeline, once a second: the last minute of it.
// A gauge alone, read now and then, hides what goes on between two reads.
type depth struct {
	ring [depthSamples]int64
	n    int // samples taken
}

// depthDescs describe what waited during the last minute. Read-only.
var depthDescs = []Desc{
	pipelineDesc("queued_min", GaugeType, "items", "Fewest items that waited at any second of the last minute."),
	pipelineDesc("queued_p95", GaugeType, "items", "Items that waited at most, in 95 of 100 seconds of the last minute."),
	pipelineDesc("queued_max", GaugeType, "items", "Most items that waited at any second of the last minute."),
}

func (d *depth) add(n int64) {
	d.ring[d.n%depthSamples] = n
	d.n++
}

// stats returns minimum, 95th percentile by nearest rank, and maximum.
func (d *depth) stats() [3]float64 {
	last := slices.Clone(d.ring[:min(d.n, depthSamples)])
	slices.Sort(last)
	return [3]float64{float64(last[0]), float64(last[(len(last)*95+99)/100-1]), float64(last[len(last)-1])}
}

// sampleDepths takes a sample of each pipeline, and forgets those that are gone.
func (r *Registry) sampleDepths(pipes []PipelineSnapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := make(map[pipelineID]*depth, len(pipes))
	for _, s := range pipes {
		if !s.Has(QueuedTerm) {
			continue
		}
		d := r.depths[s.id()]
		if d == nil {
			d = &depth{}
		}
		d.add(s.Queued)
		seen[s.id()] = d
	}
	r.depths = seen
}

func (r *Registry) depthFamilies(pipes []PipelineSnapshot) []Family {
	r.mu.Lock()
	defer r.mu.Unlock()
	var points [3][]Point
	for _, s := range pipes {
		d := r.depths[s.id()]
		if d == nil {
			continue
		}
		for i, v := range d.stats() {
			points[i] = append(points[i], Point{Tags: s.tags(), Value: v})
		}
	}
	out := make([]Family, len(depthDescs))
	for i, d := range depthDescs {
		out[i] = sortedFamily(d, points[i])
	}
	return out
}
