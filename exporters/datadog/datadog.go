// Package datadog gives series, service checks and events to a Datadog Agent, or to whatever else speaks DogStatsD.
package datadog

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/metrics"
)

// batch is how many points are handed to the client at once.
const batch = 256

// Build implements [exporters.Builder].
func (c *Config) Build(env exporters.Env) (exporters.Exporter, error) {
	t, got := c.target()
	if got != "" {
		return nil, fmt.Errorf("datadog: address: got %s", got)
	}
	e := &Exporter{env: env, base: map[string]string{}, samples: cmp.Or(c.Samples, defaultSamples)}
	e.options = []statsd.Option{
		statsd.WithoutTelemetry(), // series that nobody asked for
		statsd.WithoutClientSideAggregation(),
		statsd.WithWorkersCount(1),                // lines leave in the order in which they came
		statsd.WithBufferFlushInterval(time.Hour), // Send flushes
		statsd.WithMaxBytesPerPayload(t.packet),
		statsd.WithSenderQueueSize(2 * batch), // as many packets as points, were they that long
		statsd.WithBufferPoolSize(8),
	}
	if c.OriginDetection {
		e.options = append(e.options, statsd.WithOriginDetection())
	} else {
		e.options = append(e.options, statsd.WithoutOriginDetection())
	}
	added, err := additions(e.options)
	if err != nil {
		return nil, fmt.Errorf("datadog: %w", err)
	}
	if c.OriginDetection {
		maps.Copy(e.base, added.entity())
	}
	maps.Copy(e.base, env.Tags)
	maps.Copy(e.base, c.Tags)
	e.suffix = added.suffix
	e.out = &writer{target: t, timeout: cmp.Or(c.Timeout, defaultTimeout), strip: added.tags}
	return e, nil
}

// Exporter sends to DogStatsD.
type Exporter struct {
	env     exporters.Env
	base    map[string]string
	samples int
	options []statsd.Option
	suffix  string // of each line: the container's ID ...
	out     *writer
	client  *statsd.ClientDirect // nil until the first Send
	packet  []byte
}

// A series is what its points share.
type series struct {
	kind  metrics.Type
	name  string
	tags  []string // name:value
	scale float64  // of histograms: what their values are multiplied with
}

// Batch implements [exporters.Exporter].
func (e *Exporter) Batch() int { return batch }

// Encode implements [exporters.Exporter].
func (e *Exporter) Encode(r *exporters.Reading, emit func(ref any, value float64, times uint64)) {
	s, ok := r.State.(*series)
	if !ok {
		s = &series{r.Desc.Type, nameOf(r.Desc, r.Verbatim), e.tags(r.Tags), scaleOf(r.Desc, r.Verbatim)}
		r.State = s
	}
	switch {
	case s.kind == metrics.GaugeType:
		emit(s, r.Value, 1)
	case !r.Known:
	case s.kind == metrics.CounterType:
		emit(s, r.Grown, 1)
	default:
		samples(r.Since, e.samples, func(value float64, times uint64) { emit(s, value*s.scale, times) })
	}
}

func (e *Exporter) tags(own []exporters.Tag) []string {
	tags := exporters.WithBase(own, e.base)
	out := make([]string, len(tags))
	for i, t := range tags {
		out[i] = clean(t.Name, tagName) + ":" + clean(t.Value, tagValue)
	}
	return out
}

// Status is that of a service check.
type Status = statsd.ServiceCheckStatus

// The statuses of service checks.
const (
	OK       = statsd.Ok
	Warning  = statsd.Warn
	Critical = statsd.Critical
	Unknown  = statsd.Unknown
)

// ServiceCheck sends a service check. It never blocks: it waits in the queue as
// the points do, and is dropped as they are.
func (e *Exporter) ServiceCheck(name string, status Status, message string, tags []exporters.Tag) {
	now := e.env.Now()
	e.offer(now, &statsd.ServiceCheck{
		Name: clean(name, tagValue), Status: status, Timestamp: now,
		Message: clean(shorten(message), checkText), Tags: e.tags(tags),
	})
}

// Tell implements [exporters.Teller].
func (e *Exporter) Tell(v exporters.Verdict) {
	status := Unknown
	switch v.Status {
	case verdict.Pass:
		status = OK
	case verdict.Warn:
		status = Warning
	case verdict.Fail:
		status = Critical
	}
	e.ServiceCheck(v.Name, status, v.Message, v.Tags)
}

// An Alert says how an event is shown: info, success, warning or error.
type Alert = statsd.EventAlertType

// Event sends an event, as ServiceCheck does. Events with the same key are shown
// as one; it may be empty.
func (e *Exporter) Event(title, text string, alert Alert, key string, tags []exporters.Tag) {
	now := e.env.Now()
	e.offer(now, &statsd.Event{
		Title: clean(shorten(title), eventText), Text: shorten(text), AlertType: alert, Timestamp: now,
		AggregationKey: clean(key, tagValue), Tags: e.tags(tags),
	})
}

func (e *Exporter) offer(at time.Time, ref any) {
	e.env.Offer(exporters.Point{Ref: ref, Times: 1, At: at.UnixMilli()})
}

// Send implements [exporters.Exporter]. The client packs the lines; counts with a
// fraction, which it cannot write, are packed here, after all others.
func (e *Exporter) Send(ctx context.Context, points []exporters.Point) (exporters.Sent, error) {
	if e.client == nil {
		client, err := statsd.NewDirectWithWriter(e.out, append(e.options, statsd.WithErrorHandler(e.out.lost))...)
		if err != nil {
			return exporters.Sent{}, fmt.Errorf("make client: %w", err)
		}
		e.client = client
	}
	slices.SortStableFunc(points, func(a, b exporters.Point) int { return fraction(a) - fraction(b) })
	whole, _ := slices.BinarySearchFunc(points, 1, func(p exporters.Point, one int) int { return fraction(p) - one })

	e.out.begin(ctx)
	refused := map[int]error{}
	for i, p := range points[:whole] {
		if err := e.hand(p); err != nil {
			refused[i] = err
		}
	}
	if err := e.client.Flush(); err != nil {
		return exporters.Sent{}, fmt.Errorf("flush: %w", err)
	}
	for i, p := range points[whole:] {
		if err := e.pack(p); err != nil {
			refused[whole+i] = err
		}
	}
	e.flush()
	lines, err := e.out.end()
	return settled(len(points), lines, refused), err
}

// settled says which points the lines that were written were. Refused ones have
// none.
func settled(points, lines int, refused map[int]error) (s exporters.Sent) {
	for i := range points {
		switch err := refused[i]; {
		case err != nil:
			s.Rejected++
			if s.Why == nil {
				s.Why = err
			}
		case lines == 0:
			return s
		default:
			lines--
			s.Out++
		}
	}
	return s
}

// hand gives a point to the client: each is one line, or an error.
func (e *Exporter) hand(p exporters.Point) error {
	switch ref := p.Ref.(type) {
	case *series:
		switch ref.kind {
		case metrics.CounterType:
			return e.client.Count(ref.name, int64(p.Value), ref.tags, 1)
		case metrics.GaugeType:
			return e.client.Gauge(ref.name, p.Value, ref.tags, 1)
		}
		return e.client.DistributionSamples(ref.name, []float64{p.Value}, ref.tags, rateOf(p.Times))
	case *statsd.ServiceCheck:
		return e.client.ServiceCheck(ref)
	case *statsd.Event:
		return e.client.Event(ref)
	}
	panic(fmt.Sprintf("BUG: point of a %T for Datadog", p.Ref))
}

// Close implements [io.Closer].
func (e *Exporter) Close() error {
	if e.client == nil {
		return nil
	}
	return e.client.Close()
}
