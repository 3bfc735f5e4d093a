package collectors

import (
	"cmp"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

// A Pipeline says which series of a neighbour are the terms of one of its
// pipelines. A term that is left out is not known, and neither is the balance
// then; one that the neighbour does not have, because it never gives up or never
// tries again, is none.
//
// A neighbour counts from its own start, of which nobody saw what waited then. So
// what it carried is what makes the books balance at the first look, and again
// after its counters have begun anew: the balance says what went wrong since.
type Pipeline struct {
	Name      string `yaml:"name" required:"true"`
	Neighbour string `yaml:"neighbour" required:"true"` // or the name of a collector that reads one
	Preset    string `yaml:"preset"`                    // says what is not said here, of a program that many run
	Unit      string `yaml:"unit"`                      // default items

	// Target is a tag, and there is one pipeline for each value of it; a series
	// without the tag belongs to none. Values beyond the first 1,000 share the
	// target __other__.
	Target string `yaml:"target"`

	Carried *Term `yaml:"carried"`
	In      *Term `yaml:"in"`
	Out     *Term `yaml:"out"`
	Queued  *Term `yaml:"queued"`
	Retries *Term `yaml:"retries"`
	Drops   *Term `yaml:"drops"`
	Oldest  *Term `yaml:"oldest"` // how long items have waited, in seconds; of several series the greatest
}

const (
	mappedTargets = 1000
	otherTargets  = "__other__"
)

// Validate checks the preset. Only what is one number can be less another.
func (p *Pipeline) Validate() error {
	if _, ok := presets[p.Preset]; !ok && p.Preset != "" {
		return &config.FieldError{Key: "preset", Got: p.Preset, Want: "one of " + strings.Join(slices.Sorted(maps.Keys(presets)), ", ")}
	}
	for key, t := range map[string]*Term{"retries": p.Retries, "drops": p.Drops, "oldest": p.Oldest} {
		if t != nil && len(t.Less) > 0 {
			return &config.FieldError{Key: key + ".less", Got: "a list", Want: "none: it is for carried, in, out and queued"}
		}
	}
	return nil
}

// whole is the pipeline with what its preset says.
func (p Pipeline) whole() Pipeline {
	from := presets[p.Preset]
	p.Unit, p.Target = cmp.Or(p.Unit, from.Unit, "items"), cmp.Or(p.Target, from.Target)
	p.Carried, p.In, p.Out = cmp.Or(p.Carried, from.Carried), cmp.Or(p.In, from.In), cmp.Or(p.Out, from.Out)
	p.Queued, p.Retries = cmp.Or(p.Queued, from.Queued), cmp.Or(p.Retries, from.Retries)
	p.Drops, p.Oldest = cmp.Or(p.Drops, from.Drops), cmp.Or(p.Oldest, from.Oldest)
	return p
}

// A mapping is a pipeline of a neighbour as it was read last, for each target.
type mapping struct {
	Pipeline
	group *metrics.Group

	mu    sync.Mutex
	seen  bool
	books map[string]*book
}

// A book is what is remembered of one target.
type book struct {
	snapshot metrics.PipelineSnapshot
	carried  int64 // by which the books balanced at the first look

	// short is by how much fewer seem to wait than do: where what waits is the
	// difference of two counters, and more was counted to go out than to come in,
	// the rest came in before the counting began.
	short int64
}

// mapPipelines has the pipelines read by the collector. What before had of one
// that says the same goes on: its books are open.
func (u *unit) mapPipelines(reg *metrics.Registry, pipelines []Pipeline, before []*mapping) {
	var maps []*mapping
	for _, p := range pipelines {
		p = p.whole()
		i := slices.IndexFunc(before, func(m *mapping) bool { return reflect.DeepEqual(m.Pipeline, p) })
		if i >= 0 {
			maps = append(maps, before[i])
			continue
		}
		m := &mapping{Pipeline: p, group: reg.Group()}
		m.group.Pipelines(m.pipelines)
		maps = append(maps, m)
	}
	for _, m := range before {
		if !slices.Contains(maps, m) {
			m.group.Close()
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.maps = maps
	if u.foreign && u.ours == nil {
		u.ours = &ours{service: u.name}
		u.group.Pipelines(u.ours.pipelines)
	}
}

func (m *mapping) pipelines() []metrics.PipelineSnapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.seen {
		return nil
	}
	var out []metrics.PipelineSnapshot
	for _, target := range slices.Sorted(maps.Keys(m.books)) {
		out = append(out, m.books[target].snapshot)
	}
	return out
}

// take reads the terms. When the neighbour could not be read there are none.
func (m *mapping) take(at time.Time, fams []metrics.Family) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if fams == nil {
		m.seen = false
		return
	}
	next := map[string]*book{}
	for target, terms := range m.read(byName(fams)) {
		b := m.books[target]
		if b == nil {
			b = &book{}
		}
		b.take(&m.Pipeline, terms.snapshot(m.Pipeline, target, at))
		next[target] = b
	}
	m.books, m.seen = next, true
}

// take makes the books balance when they are opened.
func (b *book) take(p *Pipeline, s metrics.PipelineSnapshot) {
	before := b.snapshot
	anew := before.Unit == "" || before.Unknown != s.Unknown ||
		s.In < before.In || s.Out < before.Out || s.TotalDropped() < before.TotalDropped()
	if anew {
		b.short = 0
	} else {
		s.Tolerance = s.In - before.In + s.Out - before.Out + s.TotalDropped() - before.TotalDropped()
	}
	difference := p.Queued != nil && len(p.Queued.Less) > 0
	if less := -(s.Queued + b.short); less > 0 && difference && !anew && s.Tolerance == 0 {
		b.short += less
		b.carried += less
	}
	s.Queued += b.short
	if p.Carried == nil {
		if anew {
			s.Carried, b.carried = 0, 0
			if off, known := s.Balance(); known {
				b.carried = -off
			}
		}
		s.Carried = b.carried
	}
	if difference && s.Queued < 0 { // the terms are not read at one moment, or it is to be found out
		s.Tolerance -= s.Queued
		s.Queued = 0
	}
	b.snapshot = s
}

// terms are the values of one target's terms, in the order of pipelineTerms.
type terms [7]found

// pipelineTerms are the terms of a pipeline. Read-only.
var pipelineTerms = [7]metrics.Terms{
	metrics.CarriedTerm, metrics.InTerm, metrics.OutTerm, metrics.QueuedTerm, metrics.RetriesTerm, metrics.DroppedTerm, metrics.OldestTerm,
}

func (p *Pipeline) terms() [7]*Term {
	return [7]*Term{p.Carried, p.In, p.Out, p.Queued, p.Retries, p.Drops, p.Oldest}
}

// read finds the terms of each target.
func (m *mapping) read(fams map[string]*metrics.Family) map[string]terms {
	var tallies [7]tally
	targets := map[string]bool{}
	for i, t := range m.terms() {
		tallies[i] = t.in(fams, m.Target, pipelineTerms[i])
		for target := range tallies[i].of {
			targets[target] = true
		}
	}
	if m.Target == "" {
		targets[""] = true
	}
	out := make(map[string]terms, len(targets))
	for i, target := range m.admit(targets) {
		own := target
		if i >= mappedTargets {
			own = otherTargets
		}
		var sum terms
		for i, y := range tallies {
			sum[i] = y.at(target)
			if before, ok := out[own]; ok {
				sum[i] = before[i].add(sum[i], 1)
			} else {
				sum[i] = maps.Clone(sum[i])
			}
		}
		out[own] = sum
	}
	return out
}

// admit returns the targets in the order in which there is room for them: first
// those that had some.
func (m *mapping) admit(targets map[string]bool) []string {
	all := slices.Sorted(maps.Keys(targets))
	if len(all) > mappedTargets {
		slices.SortStableFunc(all, func(a, b string) int {
			switch had := m.books[a] != nil; {
			case had == (m.books[b] != nil):
				return 0
			case had:
				return -1
			}
			return 1
		})
	}
	return all
}

func (t terms) snapshot(p Pipeline, target string, at time.Time) metrics.PipelineSnapshot {
	s := metrics.PipelineSnapshot{
		Service: p.Neighbour, Name: p.Name, Target: target, Unit: p.Unit, Retries: map[string]int64{}, Dropped: map[string]int64{},
	}
	for i, is := range pipelineTerms {
		if t[i] == nil && (is != metrics.CarriedTerm || p.Carried != nil) {
			s.Unknown |= is
		}
	}
	if target == otherTargets {
		s.Unknown |= metrics.CarriedTerm // they come and go
	}
	if seconds := t[6].most(); seconds > 0 {
		s.Oldest = at.Add(-time.Duration(min(seconds, math.MaxInt64/2e9) * float64(time.Second)))
	}
	for i, into := range []*int64{&s.Carried, &s.In, &s.Out, &s.Queued} {
		*into = int64(math.Round(t[i].total()))
	}
	for i, into := range []map[string]int64{s.Retries, s.Dropped} {
		for why, v := range t[4+i] {
			into[why] = int64(math.Round(v))
		}
	}
	return s
}

func byName(fams []metrics.Family) map[string]*metrics.Family {
	out := make(map[string]*metrics.Family, len(fams))
	for i := range fams {
		out[fams[i].Desc.Name] = &fams[i]
	}
	return out
}
