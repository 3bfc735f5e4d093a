package exporters

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/outrider-agent/outrider/metrics"
)

// withExemplars adds them to a metric: to a counter its one, to classic buckets the
// newest of each, to native ones all. They are in OpenMetrics and protobuf. Where
// one is wrong the metric is returned without, beside the error.
func withExemplars(m prometheus.Metric, exemplars []metrics.Exemplar) (prometheus.Metric, error) {
	if len(exemplars) == 0 {
		return m, nil
	}
	theirs := make([]prometheus.Exemplar, len(exemplars))
	for i, x := range exemplars {
		labels := make(prometheus.Labels, len(x.Labels))
		for _, l := range x.Labels {
			labels[l.Name] = l.Value
		}
		theirs[i] = prometheus.Exemplar{Value: x.Value, Labels: labels, Timestamp: x.At}
	}
	with, err := prometheus.NewMetricWithExemplars(m, theirs...)
	if err != nil {
		return m, fmt.Errorf("exemplars: %w", err)
	}
	return sortedExemplars{with}, nil
}

// sortedExemplars brings the labels of exemplars, which client_golang takes from a
// map, into an order.
type sortedExemplars struct{ prometheus.Metric }

// Write implements [prometheus.Metric].
func (m sortedExemplars) Write(out *dto.Metric) error {
	if err := m.Metric.Write(out); err != nil {
		return err
	}
	exemplars := append(slices.Clip(out.GetHistogram().GetExemplars()), out.GetCounter().GetExemplar())
	for _, b := range out.GetHistogram().GetBucket() {
		exemplars = append(exemplars, b.GetExemplar())
	}
	for _, x := range exemplars {
		slices.SortFunc(x.GetLabel(), func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	}
	return nil
}
