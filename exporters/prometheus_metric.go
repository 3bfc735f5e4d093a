package exporters

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/outrider-agent/outrider/metrics"
)

// Of a native histogram as many buckets are shown as client_golang's own have at
// most, and no finer ones than with schema 5 (2 % wide).
const (
	nativeBuckets = 160
	nativeSchema  = 5
)

// zeroThreshold is below which values count as 0: see [metrics.Histogram].
const zeroThreshold = 0x1p-44

// bounds are those of the classic buckets, for people whose Prometheus does not
// take native ones: of seconds from 122 microseconds to 128 s by the square root
// of two, of all else from 1 by four. Ours end there too, so they are exact.
// Read-only.
var secondBounds, otherBounds = grow(-13, 7, 0.5), grow(0, 40, 2)

func grow(from, to, step float64) (bounds []float64) {
	for e := from; e <= to; e += step {
		bounds = append(bounds, math.Exp2(e))
	}
	return bounds
}

// A descs is the descriptions of one family, by which of its tags a series has.
type descs struct {
	of    metrics.Desc
	whole *prometheus.Desc            // of series that have all
	parts map[string]*prometheus.Desc // of others, by the tags they have
}

func newDescs(d metrics.Desc) *descs {
	return &descs{of: d, whole: prometheus.NewDesc(d.Name, d.Help, d.Tags, nil)}
}

// metric is a point in client_golang's terms. Tags without a value are left out.
// Beside an error there may be a metric: then only its exemplars are wrong.
func (d *descs) metric(p metrics.Point) (prometheus.Metric, error) {
	desc, tags := d.whole, p.Tags
	if len(tags) == len(d.of.Tags) && slices.Contains(tags, "") {
		desc, tags = d.part(tags)
	}
	switch d.of.Type {
	case metrics.CounterType:
		m, err := prometheus.NewConstMetric(desc, prometheus.CounterValue, p.Value, tags...)
		if err != nil || p.Exemplar == nil {
			return m, err
		}
		return withExemplars(m, []metrics.Exemplar{*p.Exemplar})
	case metrics.GaugeType:
		return prometheus.NewConstMetric(desc, prometheus.GaugeValue, p.Value, tags...)
	case metrics.HistogramType:
		if p.Hist == nil {
			return nil, errors.New("histogram without a snapshot")
		}
		return d.histogram(desc, p.Hist, tags)
	}
	return nil, fmt.Errorf("type %q, want counter, gauge or histogram", d.of.Type)
}

func (d *descs) part(all []string) (desc *prometheus.Desc, values []string) {
	var names []string
	key := make([]byte, len(all))
	for i, value := range all {
		if value != "" {
			names, values = append(names, d.of.Tags[i]), append(values, value)
			key[i] = 1
		}
	}
	if desc = d.parts[string(key)]; desc == nil {
		desc = prometheus.NewDesc(d.of.Name, d.of.Help, names, nil)
		if d.parts == nil {
			d.parts = map[string]*prometheus.Desc{}
		}
		d.parts[string(key)] = desc
	}
	return desc, values
}

// histogram has both forms: who asks for text reads classic buckets, who asks
// for protobuf native ones too. Of one that was counted by bounds there are these.
func (d *descs) histogram(desc *prometheus.Desc, h *metrics.HistogramSnapshot, tags []string) (prometheus.Metric, error) {
	bounds := h.Bounds
	switch {
	case bounds != nil && len(h.Counts) != len(bounds)+1:
		return nil, fmt.Errorf("histogram with %d counts for %d bounds, want one more", len(h.Counts), len(bounds))
	case bounds != nil:
	case d.of.Unit == "seconds":
		bounds = secondBounds
	default:
		bounds = otherBounds
	}
	classic := make(map[float64]uint64, len(bounds))
	for _, b := range bounds {
		classic[b] = h.AtMost(b)
	}
	m, err := prometheus.NewConstHistogram(desc, h.Count, h.Sum, classic, tags...)
	if err != nil {
		return nil, err
	}
	if h.Bounds == nil {
		m = nativeMetric{m, h}
	}
	return withExemplars(m, h.Exemplars)
}

// A nativeMetric adds native buckets to a classic histogram.
type nativeMetric struct {
	prometheus.Metric
	h *metrics.HistogramSnapshot
}

// Write implements [prometheus.Metric].
func (m nativeMetric) Write(out *dto.Metric) error {
	if err := m.Metric.Write(out); err != nil {
		return err
	}
	positive, schema := metrics.Coarse(m.h.Buckets, nativeSchema, nativeBuckets)
	negative, lower := metrics.Coarse(m.h.Negative, schema, nativeBuckets)
	if lower < schema {
		positive, schema = metrics.Coarse(m.h.Buckets, lower, nativeBuckets)
	}
	h := out.Histogram
	h.Schema, h.ZeroThreshold, h.ZeroCount = new(int32(schema)), new(float64(zeroThreshold)), &m.h.Zero
	h.PositiveSpan, h.PositiveDelta = spans(positive)
	h.NegativeSpan, h.NegativeDelta = spans(negative)
	if len(positive)+len(negative) == 0 { // an empty span says that it is native
		h.PositiveSpan = []*dto.BucketSpan{{Offset: new(int32(0)), Length: new(uint32(0))}}
	}
	return nil
}

// spans writes buckets as Prometheus does: runs of them, and each count as the
// difference to the one before.
func spans(buckets []metrics.Bucket) (out []*dto.BucketSpan, deltas []int64) {
	var next int32
	var before uint64
	for i, b := range buckets {
		if i == 0 || b.Index != next {
			out = append(out, &dto.BucketSpan{Offset: new(b.Index - next), Length: new(uint32(0))})
		}
		*out[len(out)-1].Length++
		deltas = append(deltas, int64(b.Count-before))
		next, before = b.Index+1, b.Count
	}
	return out, deltas
}
