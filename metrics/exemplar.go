package metrics

import (
	"maps"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// maxExemplarRunes is what the names and values of an exemplar's labels may have in
// all (OpenMetrics 1.0, "Exemplars").
const maxExemplarRunes = 128

// exemplarSlots bounds the exemplars of one histogram. Each octave of values has a
// slot, which it shares with those that are 16 octaves off, 65,536 times as large.
const exemplarSlots = 16

// refusedDesc describes the exemplars that could not be kept. Read-only.
var refusedDesc = Desc{
	Name: "outrider_exemplars_refused_total", Datadog: "outrider.exemplars.refused", Type: CounterType, Unit: "exemplars",
	Help: "Exemplars that were left out because of their labels: more than 128 characters, or a name or text that is none. Their values were counted.",
	Tags: []string{"metric"}, Budget: 1000,
}

// A Label is a label of an exemplar. The name has letters, digits and _, and does
// not begin with a digit.
type Label struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// An Exemplar is one of the values that were counted, with what leads to the event
// behind it, such as a trace's ID.
type Exemplar struct {
	Labels []Label   `json:"labels"`
	Value  float64   `json:"value"`
	At     time.Time `json:"at"`
}

// exemplars are those of one instrument, made for the first one.
type exemplars struct {
	slots   [exemplarSlots]atomic.Pointer[Exemplar]
	refused atomic.Uint64
}

// exemplified is the part of an instrument that has exemplars.
type exemplified struct{ kept atomic.Pointer[exemplars] }

// ObserveWithExemplar counts one value, and keeps the labels as its exemplar until
// there is a newer one of about the same value. Labels without a value are left
// out; an exemplar without any is none. One whose labels have more than 128
// characters in all, a wrong name, a name twice or a value that is not UTF-8 is left
// out and counted in [Histogram.Refused]; the value is counted all the same.
func (h *Histogram) ObserveWithExemplar(v float64, labels ...Label) {
	h.Observe(v)
	if v == v {
		h.keep(slotOf(v), v, labels)
	}
}

// ObserveWithExemplar counts one duration, as [Histogram.ObserveWithExemplar] does.
func (t *Timer) ObserveWithExemplar(d time.Duration, labels ...Label) {
	t.Observe(d)
	v := float64(max(d, 0)) * 1e-9
	t.keep(slotOf(v), v, labels)
}

// AddWithExemplar counts n, which must not be negative, and keeps the labels as the
// counter's one exemplar, as [Histogram.ObserveWithExemplar] does.
func (c *Counter) AddWithExemplar(n int64, labels ...Label) {
	c.Add(n)
	c.keep(0, float64(n), labels)
}

// Exemplar is the newest one; nil: there is none.
func (c *Counter) Exemplar() *Exemplar {
	if kept := c.kept.Load(); kept != nil {
		return kept.slots[0].Load()
	}
	return nil
}

// Refused is how many exemplars were left out because of their labels.
func (e *exemplified) Refused() uint64 {
	if kept := e.kept.Load(); kept != nil {
		return kept.refused.Load()
	}
	return 0
}

func (e *exemplified) keep(slot int, v float64, labels []Label) {
	var space [8]Label
	given, ok := checkLabels(labels, space[:0])
	if ok && len(given) == 0 {
		return
	}
	kept := e.kept.Load()
	if kept == nil {
		e.kept.CompareAndSwap(nil, new(exemplars))
		kept = e.kept.Load()
	}
	if !ok {
		kept.refused.Add(1)
		return
	}
	x := &Exemplar{Labels: make([]Label, len(given)), Value: v, At: time.Now()}
	for i, l := range given { // what they were cut from may be large
		x.Labels[i] = Label{strings.Clone(l.Name), strings.Clone(l.Value)}
	}
	kept.slots[slot].Store(x)
}

// read returns the exemplars, oldest first.
func (e *exemplified) read() (out []Exemplar) {
	kept := e.kept.Load()
	if kept == nil {
		return nil
	}
	for i := range kept.slots {
		if x := kept.slots[i].Load(); x != nil {
			out = append(out, *x)
		}
	}
	slices.SortFunc(out, func(a, b Exemplar) int { return a.At.Compare(b.At) })
	return out
}

// slotOf spreads values by their magnitude, and the two signs apart.
func slotOf(v float64) int {
	octave := int(math.Float64bits(v) >> 52 & 0x7ff)
	if v < 0 {
		octave += exemplarSlots / 2
	}
	return octave % exemplarSlots
}

// checkLabels appends those labels to given that have a value. It is false when
// they cannot be an exemplar's.
func checkLabels(labels, given []Label) ([]Label, bool) {
	runes := 0
	for _, l := range labels {
		if l.Value == "" {
			continue
		}
		again := slices.ContainsFunc(given, func(g Label) bool { return g.Name == l.Name })
		runes += utf8.RuneCountInString(l.Name) + utf8.RuneCountInString(l.Value)
		if again || runes > maxExemplarRunes || !isLabelName(l.Name) || !utf8.ValidString(l.Value) {
			return nil, false
		}
		given = append(given, l)
	}
	return given, true
}

func isLabelName(name string) bool {
	for i, r := range name {
		switch {
		case r == '_', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', i > 0 && r >= '0' && r <= '9':
		default:
			return false
		}
	}
	return name != ""
}

// refusedExemplars is the family of refusedDesc; none: nothing was refused.
func (r *Registry) refusedExemplars() []Family {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.refused) == 0 {
		return nil
	}
	f := Family{Desc: refusedDesc}
	for _, metric := range slices.Sorted(maps.Keys(r.refused)) {
		f.Points = append(f.Points, Point{Tags: []string{metric}, Value: float64(r.refused[metric])})
	}
	return []Family{f}
}

func (r *Registry) refuseExemplars(metric string, n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused == nil {
		r.refused = map[string]uint64{}
	}
	r.refused[metric] += n
}
