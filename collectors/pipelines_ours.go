package collectors

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// ours are the pipelines of a neighbour that shows them by our own names: its
// terms need no mapping.
type ours struct {
	service string

	mu        sync.Mutex
	snapshots []metrics.PipelineSnapshot
}

func (o *ours) pipelines() []metrics.PipelineSnapshot {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.snapshots
}

func (o *ours) take(at time.Time, fams []metrics.Family) {
	named := byName(fams)
	found := map[[2]string]*metrics.PipelineSnapshot{}
	each := func(name string, term metrics.Terms, set func(s *metrics.PipelineSnapshot, v float64, why string)) {
		f := named["outrider_pipeline_"+name]
		if f == nil {
			return
		}
		tag := func(p metrics.Point, name string) string {
			if i := slices.Index(f.Desc.Tags, name); i >= 0 {
				return p.Tags[i]
			}
			return ""
		}
		for _, p := range f.Points {
			if tag(p, "service") != "" { // a neighbour's neighbour speaks for itself
				continue
			}
			id := [2]string{tag(p, "pipeline"), tag(p, "target")}
			s := found[id]
			if s == nil {
				s = &metrics.PipelineSnapshot{
					Service: o.service, Name: id[0], Target: id[1], Unit: tag(p, "unit"), Retries: map[string]int64{}, Dropped: map[string]int64{},
					Unknown: metrics.CarriedTerm | metrics.InTerm | metrics.OutTerm | metrics.QueuedTerm | metrics.OldestTerm,
				}
				found[id] = s
			}
			s.Unknown &^= term
			set(s, p.Value, tag(p, "cause")+tag(p, "reason"))
		}
	}
	each("carried_total", metrics.CarriedTerm, func(s *metrics.PipelineSnapshot, v float64, _ string) { s.Carried = int64(v) })
	each("in_total", metrics.InTerm, func(s *metrics.PipelineSnapshot, v float64, _ string) { s.In = int64(v) })
	each("out_total", metrics.OutTerm, func(s *metrics.PipelineSnapshot, v float64, _ string) { s.Out = int64(v) })
	each("queued", metrics.QueuedTerm, func(s *metrics.PipelineSnapshot, v float64, _ string) { s.Queued = int64(v) })
	each("retries_total", 0, func(s *metrics.PipelineSnapshot, v float64, why string) { s.Retries[why] = int64(v) })
	each("drops_total", 0, func(s *metrics.PipelineSnapshot, v float64, why string) { s.Dropped[why] = int64(v) })
	each("oldest_age_seconds", metrics.OldestTerm, func(s *metrics.PipelineSnapshot, v float64, _ string) {
		if v > 0 {
			s.Oldest = at.Add(-time.Duration(v * float64(time.Second)))
		}
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	o.snapshots = nil
	for _, id := range slices.SortedFunc(maps.Keys(found), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		o.snapshots = append(o.snapshots, *found[id])
	}
}
