package collectors

import (
	"context"
	"math"
	gometrics "runtime/metrics"

	"github.com/outrider-agent/outrider/metrics"
)

// RuntimeConfig describes the Go runtime of the agent itself, or of the program
// that the agent is part of. There is nothing to choose.
type RuntimeConfig struct{}

// runtimeDescs describes what the kind runtime gives. Read-only.
var runtimeDescs = describe("runtime", nil, []described{
	{"goroutines", metrics.GaugeType, "goroutines", "Goroutines that there are.", 1, nil},
	{"goroutines_created_total", metrics.CounterType, "goroutines", "Goroutines that were made.", 1, nil},
	{"threads", metrics.GaugeType, "threads", "Threads of the system that the runtime has.", 1, nil},
	{"gomaxprocs", metrics.GaugeType, "threads", "Threads that may run Go code at once.", 1, nil},
	{"memory_bytes", metrics.GaugeType, "bytes", "Memory that the runtime has of the system, by what it is for; all together it is what it has.", 16, []string{"class"}},
	{"memory_limit_bytes", metrics.GaugeType, "bytes", "Memory that the runtime tries to stay below.", 1, nil},
	{"heap_live_bytes", metrics.GaugeType, "bytes", "Memory that the last collection found in use.", 1, nil},
	{"heap_goal_bytes", metrics.GaugeType, "bytes", "Size of the heap at which the next collection ends.", 1, nil},
	{"heap_objects", metrics.GaugeType, "objects", "Objects on the heap.", 1, nil},
	{"allocated_bytes_total", metrics.CounterType, "bytes", "Memory that was allocated on the heap.", 1, nil},
	{"allocations_total", metrics.CounterType, "objects", "Objects that were allocated on the heap.", 1, nil},
	{"gc_cycles_total", metrics.CounterType, "cycles", "Collections of garbage.", 1, nil},
	{"gc_percent", metrics.GaugeType, "percent", "GOGC: how much the heap may grow before the next collection.", 1, nil},
	{"gc_pause_seconds", metrics.HistogramType, "seconds", "Times for which collections stopped the program.", 1, nil},
	{"gc_cpu_seconds_total", metrics.CounterType, "seconds", "CPU time of collections, as the runtime estimates it.", 1, nil},
	{"cpu_seconds_total", metrics.CounterType, "seconds", "CPU time of the program's own code, as the runtime estimates it.", 1, nil},
	{"scheduling_latency_seconds", metrics.HistogramType, "seconds", "Times for which goroutines that could run waited for a thread.", 1, nil},
	{"mutex_wait_seconds_total", metrics.CounterType, "seconds", "Time that goroutines waited for locks, estimated.", 1, nil},
	{"cgo_calls_total", metrics.CounterType, "calls", "Calls from Go to C.", 1, nil},
})

// Descs are the metrics that the kind can give.
func (c *RuntimeConfig) Descs() []metrics.Desc { return runtimeDescs.list() }

// runtimePicks are the runtime's names. What a version of Go does not have is
// left out. Read-only.
var runtimePicks = []struct {
	name string
	pick
}{
	{"/sched/goroutines:goroutines", pick{metric: "goroutines"}},
	{"/sched/goroutines-created:goroutines", pick{metric: "goroutines_created_total"}},
	{"/sched/threads/total:threads", pick{metric: "threads"}},
	{"/sched/gomaxprocs:threads", pick{metric: "gomaxprocs"}},
	{"/memory/classes/heap/objects:bytes", pick{metric: "memory_bytes", tags: []string{"heap_objects"}}},
	{"/memory/classes/heap/unused:bytes", pick{metric: "memory_bytes", tags: []string{"heap_unused"}}},
	{"/memory/classes/heap/free:bytes", pick{metric: "memory_bytes", tags: []string{"heap_free"}}},
	{"/memory/classes/heap/released:bytes", pick{metric: "memory_bytes", tags: []string{"heap_released"}}},
	{"/memory/classes/heap/stacks:bytes", pick{metric: "memory_bytes", tags: []string{"stacks"}}},
	{"/memory/classes/os-stacks:bytes", pick{metric: "memory_bytes", tags: []string{"os_stacks"}}},
	{"/memory/classes/metadata/mcache/free:bytes", pick{metric: "memory_bytes", tags: []string{"mcache_free"}}},
	{"/memory/classes/metadata/mcache/inuse:bytes", pick{metric: "memory_bytes", tags: []string{"mcache_inuse"}}},
	{"/memory/classes/metadata/mspan/free:bytes", pick{metric: "memory_bytes", tags: []string{"mspan_free"}}},
	{"/memory/classes/metadata/mspan/inuse:bytes", pick{metric: "memory_bytes", tags: []string{"mspan_inuse"}}},
	{"/memory/classes/metadata/other:bytes", pick{metric: "memory_bytes", tags: []string{"metadata_other"}}},
	{"/memory/classes/profiling/buckets:bytes", pick{metric: "memory_bytes", tags: []string{"profiling"}}},
	{"/memory/classes/other:bytes", pick{metric: "memory_bytes", tags: []string{"other"}}},
	{"/gc/gomemlimit:bytes", pick{metric: "memory_limit_bytes"}},
	{"/gc/heap/live:bytes", pick{metric: "heap_live_bytes"}},
	{"/gc/heap/goal:bytes", pick{metric: "heap_goal_bytes"}},
	{"/gc/heap/objects:objects", pick{metric: "heap_objects"}},
	{"/gc/heap/allocs:bytes", pick{metric: "allocated_bytes_total"}},
	{"/gc/heap/allocs:objects", pick{metric: "allocations_total"}},
	{"/gc/cycles/total:gc-cycles", pick{metric: "gc_cycles_total"}},
	{"/gc/gogc:percent", pick{metric: "gc_percent"}},
	{"/sched/pauses/total/gc:seconds", pick{metric: "gc_pause_seconds"}},
	{"/cpu/classes/gc/total:cpu-seconds", pick{metric: "gc_cpu_seconds_total"}},
	{"/cpu/classes/user:cpu-seconds", pick{metric: "cpu_seconds_total"}},
	{"/sched/latencies:seconds", pick{metric: "scheduling_latency_seconds"}},
	{"/sync/mutex/wait/total:seconds", pick{metric: "mutex_wait_seconds_total"}},
	{"/cgo/go-to-c-calls:calls", pick{metric: "cgo_calls_total"}},
}

// Build implements [Builder].
func (c *RuntimeConfig) Build(Env) (Collector, error) {
	r := &goRuntime{found: newFindings(runtimeDescs), shapes: map[string]*histogramShape{}}
	for _, p := range runtimePicks {
		r.samples = append(r.samples, gometrics.Sample{Name: p.name})
	}
	return r, nil
}

type goRuntime struct {
	samples []gometrics.Sample // in the order of runtimePicks
	found   *findings
	shapes  map[string]*histogramShape
}

// Collect implements [Collector].
func (r *goRuntime) Collect(context.Context) ([]metrics.Family, error) {
	gometrics.Read(r.samples)
	for i, s := range r.samples {
		p := runtimePicks[i].pick
		switch s.Value.Kind() {
		case gometrics.KindUint64:
			if n := s.Value.Uint64(); p.metric != "memory_limit_bytes" || n < math.MaxInt64 { // that is none
				r.found.add(p.metric, float64(n), p.tags...)
			}
		case gometrics.KindFloat64:
			r.found.add(p.metric, s.Value.Float64(), p.tags...)
		case gometrics.KindFloat64Histogram:
			h := s.Value.Float64Histogram()
			shape := r.shapes[s.Name]
			if shape == nil || shape.of != len(h.Buckets) {
				shape = newHistogramShape(h.Buckets)
				r.shapes[s.Name] = shape
			}
			r.found.addHistogram(p.metric, shape.read(h.Counts), p.tags...)
		case gometrics.KindBad: // this version does not have it
		}
	}
	return r.found.take(), nil
}

// histogramShape makes few buckets of the runtime's many: it leaves out bounds
// that are less than twice the one before. The counts stay exact.
type histogramShape struct {
	of      int // bounds of the runtime's
	bounds  []float64
	into    []int     // for each of the runtime's buckets the one that it goes to
	middles []float64 // of the runtime's buckets: it does not tell the sum
}

// leastBound is the first bound: what takes less than a microsecond is all one.
const leastBound = 1e-6

// newHistogramShape takes the bounds of the runtime: those of bucket i are
// buckets[i] and buckets[i+1], and the outermost ones may be infinite.
func newHistogramShape(buckets []float64) *histogramShape {
	s := &histogramShape{of: len(buckets)}
	for i := 1; i < len(buckets); i++ {
		low, high := buckets[i-1], buckets[i]
		s.into = append(s.into, len(s.bounds))
		s.middles = append(s.middles, middleOf(low, high))
		last := len(s.bounds) - 1
		const nearly = 1 - 1e-9 // bounds were computed
		if math.IsInf(high, 1) || high < leastBound*nearly || last >= 0 && high < 2*s.bounds[last]*nearly {
			continue
		}
		s.bounds = append(s.bounds, high)
	}
	return s
}

func middleOf(low, high float64) float64 {
	switch {
	case math.IsInf(low, -1):
		return min(0, high)
	case math.IsInf(high, 1):
		return low
	}
	return (low + high) / 2
}

func (s *histogramShape) read(counts []uint64) metrics.HistogramSnapshot {
	h := metrics.HistogramSnapshot{Bounds: s.bounds, Counts: make([]uint64, len(s.bounds)+1)}
	for i, n := range counts {
		h.Counts[s.into[i]] += n
		h.Count += n
		h.Sum += float64(n) * s.middles[i]
	}
	return h
}
