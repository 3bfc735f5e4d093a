package collectors

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/metrics"
)

// A promType is a type that a text declares.
type promType uint8

const (
	promUntyped promType = iota
	promCounter
	promGauge
	promHistogram
	promGaugeHistogram
	promSummary
	promInfo
)

// promTypeOf reads the word of a TYPE line, in any case.
func promTypeOf(word []byte) (promType, bool) {
	switch string(word) {
	case "counter":
		return promCounter, true
	case "gauge", "stateset":
		return promGauge, true
	case "histogram":
		return promHistogram, true
	case "gaugehistogram", "gauge_histogram":
		return promGaugeHistogram, true
	case "summary":
		return promSummary, true
	case "info":
		return promInfo, true
	case "untyped", "unknown":
		return promUntyped, true
	}
	if lower := bytes.ToLower(word); !bytes.Equal(lower, word) {
		return promTypeOf(lower)
	}
	return promUntyped, false
}

// promSuffixes are what the names of a metric's samples may have beyond its own:
// in both formats, and in OpenMetrics. Read-only.
var promSuffixes = map[promType][2][]string{
	promCounter:        {nil, {"_total", "_created"}},
	promHistogram:      {{"_bucket", "_count", "_sum"}, {"_created"}},
	promGaugeHistogram: {{"_bucket", "_count", "_sum"}, {"_gcount", "_gsum"}},
	promSummary:        {{"_count", "_sum"}, {"_created"}},
	promInfo:           {nil, {"_info"}},
}

// suffix returns the suffix if a sample of a metric of this type may have it.
func (p promType) suffix(suffix []byte, open bool) string {
	for i, list := range promSuffixes[p] {
		for _, s := range list {
			if string(suffix) == s && (open || i == 0) {
				return s
			}
		}
	}
	return ""
}

// A promPart says what a line's value is of its series.
type promPart uint8

const (
	promPartValue promPart = iota
	promPartBucket
	promPartCount
	promPartSum
)

// promMaxLabels is how many names of labels the series of one family may have:
// each series has a place for each of them.
const promMaxLabels = 100

// A promFamily is one family of the result. Its series have the tags desc.Tags,
// which are the names that any of them has, sorted.
type promFamily struct {
	name   string
	typ    metrics.Type
	group  *promGroup // the first of this read: its help is the family's
	gen    uint32
	series []*promSeries          // by tags
	fresh  map[string]*promSeries // new in this read, by labels
	dirty  bool                   // there are other series than in the last read
	desc   metrics.Desc
	bounds [][]float64 // those that series of it share
}

// A promSeries is one series of the result, of 64 bytes.
type promSeries struct {
	family *promFamily
	tags   []string
	value  float64
	hist   *promHist
	gen    uint32
	gone   bool
}

// A promHist is a histogram while it is put together.
type promHist struct {
	buckets  []promBucket
	count    float64
	sum      float64
	countGen uint32
	sumGen   uint32
}

type promBucket struct {
	bound, upTo float64
	gen         uint32
}

// build finds out what a line stands for, and remembers it.
func (t *promTable) build(e *promEntry, labels []promLabel) error {
	why, err := t.place(e, labels)
	if err != nil {
		return err
	}
	if e.series == nil {
		e.why = uint8(slices.Index(promSkips[:], why))
		// What comes before it in this text may be why; and of lines that stand
		// for nothing not too many are remembered. They are parsed again.
		if why == promDropConflict || why == promDropLabels || t.skipped >= t.limit {
			return nil
		}
		t.skipped++
	}
	e.kept = true
	t.entries[e.hash] = e
	e.link, e.same = &e.name.group.entries, e.name.group.entries
	if e.same != nil {
		e.same.link = &e.same
	}
	*e.link = e
	return nil
}

// place finds the series to which a line belongs. An error is about the line;
// why is the reason for which it is left out.
func (t *promTable) place(e *promEntry, labels []promLabel) (why string, err error) {
	n := e.name
	if t.open && n.suffix == "_created" {
		return promDropCreated, nil
	}
	name, keep := n.text, ""
	switch n.typ {
	case promHistogram, promGaugeHistogram:
		keep = "le"
	case promSummary:
		keep = "quantile"
	}
	special, labels, err := promSortLabels(labels, keep)
	if err != nil {
		return "", fmt.Errorf("%s: %w", promShow(n.text), err)
	}
	special = n.withSpecial(special)
	if len(t.relabel) > 0 {
		var kept bool
		if special != "" {
			labels = append(labels, promLabel{keep, special})
		}
		if name, labels, kept = t.relabel.apply(name, labels); !kept {
			return promDropRelabel, nil
		}
		special, labels, _ = promSortLabels(labels, keep)
	}
	name, part, typ := promRole(n, promSanitize(name, true), special)
	var bound float64
	switch {
	case n.typ == promHistogram && n.suffix == "_bucket" && special == "":
		return "", fmt.Errorf("%s: got a bucket without le, want its bound", promShow(n.text))
	case part == promPartBucket:
		v, ok := promFloat([]byte(special))
		if !ok || math.IsNaN(v) {
			return "", fmt.Errorf("%s: got the bound le=%s, want a number", promShow(n.text), promShow(special))
		}
		bound = v
	case special != "" && typ != metrics.HistogramType:
		labels = append(labels, promLabel{keep, special})
		slices.SortFunc(labels, func(a, b promLabel) int { return strings.Compare(a.name, b.name) })
	}
	s, why := t.seriesFor(name, typ, labels, n.group)
	if s == nil {
		return why, nil
	}
	e.series, e.part = s, part
	if part == promPartBucket {
		e.bucket = s.hist.bucketOf(bound)
	}
	return "", nil
}

// withSpecial is the le or quantile of a sample that has it by its name: the
// count and the sum of a metric have none, whatever their labels say.
func (n *promName) withSpecial(special string) string {
	switch n.suffix {
	case "_count", "_sum", "_gcount", "_gsum":
		return ""
	}
	return special
}

// promRole says of which family a sample is, and which part. A histogram is
// put together as long as the names and the bounds are there to do it: rules may
// have renamed them.
func promRole(n *promName, name, special string) (string, promPart, metrics.Type) {
	switch n.typ {
	case promCounter:
		return name, promPartValue, metrics.CounterType
	case promSummary:
		if n.suffix != "" {
			return name, promPartValue, metrics.CounterType
		}
	case promHistogram:
		if n.suffix == "" {
			if special != "" { // as the reference parser does
				return name, promPartBucket, metrics.HistogramType
			}
			return name, promPartValue, metrics.GaugeType
		}
		base, whole := strings.CutSuffix(name, n.suffix)
		switch {
		case !whole || base == "":
			return name, promPartValue, metrics.CounterType
		case n.suffix == "_bucket" && special != "":
			return base, promPartBucket, metrics.HistogramType
		case n.suffix == "_count":
			return base, promPartCount, metrics.HistogramType
		case n.suffix == "_sum":
			return base, promPartSum, metrics.HistogramType
		}
		return name, promPartValue, metrics.CounterType
	}
	return name, promPartValue, metrics.GaugeType
}

// promSortLabels returns the value of the label special apart from the others,
// which are sorted, with names that need no quotes. Of several values of special
// the last one counts, as in the reference parser.
func promSortLabels(labels []promLabel, special string) (value string, rest []promLabel, err error) {
	rest = labels[:0]
	for _, l := range labels {
		switch l.name = promSanitize(l.name, false); {
		case special != "" && l.name == special:
			value = l.value
		case l.value == "":
		default:
			rest = append(rest, l)
		}
	}
	slices.SortStableFunc(rest, func(a, b promLabel) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(rest); i++ {
		if rest[i].name == rest[i-1].name {
			return "", nil, fmt.Errorf("got the label %s twice, want it once", promShow(rest[i].name))
		}
	}
	return value, rest, nil
}

// seriesFor returns the series, or why there is none.
func (t *promTable) seriesFor(name string, typ metrics.Type, labels []promLabel, g *promGroup) (*promSeries, string) {
	f := t.families[name]
	if f != nil && f.typ != typ {
		if f.gen == t.gen {
			return nil, promDropConflict
		}
		t.drop(f)
		f = nil
	}
	if f == nil {
		f = &promFamily{name: strings.Clone(name), typ: typ}
		t.families[f.name] = f
		t.sorted = nil
	}
	t.touch(f, g)
	s := f.find(labels)
	if s == nil {
		s = f.add(&t.shared, labels)
	}
	if s == nil {
		return nil, promDropLabels
	}
	return s, ""
}

// touch notes that a family is in this text.
func (t *promTable) touch(f *promFamily, g *promGroup) {
	if f.gen != t.gen {
		f.gen, f.group = t.gen, g
	}
}

// drop takes a family out.
func (t *promTable) drop(f *promFamily) {
	for _, s := range f.series {
		s.gone = true
	}
	for _, s := range f.fresh {
		s.gone = true
	}
	delete(t.families, f.name)
	t.sorted = nil
}

func (h *promHist) bucketOf(bound float64) uint32 {
	for i, b := range slices.Backward(h.buckets) {
		if b.bound == bound {
			return uint32(i)
		}
	}
	h.buckets = append(h.buckets, promBucket{bound: bound})
	return uint32(len(h.buckets) - 1)
}

// takes says whether a line, whose text is that of the entry, may have a value.
func (e *promEntry) takes(text []byte, v float64) error {
	count := e.series != nil && (e.part == promPartBucket || e.part == promPartCount)
	if count && (!(v >= 0) || math.IsInf(v, 0)) {
		return fmt.Errorf("%s: got the count %v, want one that is not negative", promShow(string(text)), v)
	}
	return nil
}

// see notes that a line is in this text.
func (t *promTable) see(e *promEntry) {
	if e.kept && e.gen != t.gen {
		t.seen++
	}
	e.gen = t.gen
}

// take puts a line's value where it belongs.
func (t *promTable) take(e *promEntry, v float64) {
	t.read.samples++
	s, g := e.series, e.name.group
	if s == nil {
		t.see(e)
		t.read.dropped[promSkips[e.why]]++
		return
	}
	if e.gen == t.gen || s.gen == t.gen && e.part == promPartValue {
		t.see(e)
		t.read.dropped[promDropDuplicate]++
		return
	}
	if !t.admit(g) {
		return
	}
	if s.gone { // cut with another metric that the rules made one with this
		t.admitted--
		t.read.dropped[promDropLimit]++
		return
	}
	t.see(e)
	s.gen = t.gen
	switch e.part {
	case promPartValue:
		s.value = v
	case promPartBucket:
		s.hist.buckets[e.bucket].upTo, s.hist.buckets[e.bucket].gen = v, t.gen
	case promPartCount:
		s.hist.count, s.hist.countGen = v, t.gen
	case promPartSum:
		s.hist.sum, s.hist.sumGen = v, t.gen
	}
}
