package exporters

import (
	"io"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// One reading of 10,000 series, and how it becomes requests.
func BenchmarkOpenTSDBReading(b *testing.B) {
	f := metrics.Family{Desc: metrics.Desc{Name: "outrider_bench_items_total", Type: metrics.CounterType, Tags: []string{"queue", "host"}}}
	for i := range 10_000 {
		f.Points = append(f.Points, metrics.Point{Tags: []string{"queue" + string(rune('a'+i%26)), time.Duration(i).String()}})
	}
	p, err := NewPush(PushOptions{
		Name: "bench", Kind: openTSDBTo("http://x"), Metrics: metricstest.Registry(b).Group(), Queue: 10_000,
		Feeds: func() []Feed { return []Feed{{Source: source(func() []metrics.Family { return []metrics.Family{f} })}} },
	})
	if err != nil {
		b.Fatal(err)
	}
	e := p.exporter.(*openTSDB)
	at := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		at = at.Add(time.Second)
		p.read(at)
		for points := p.queue.take(50, 0); len(points) > 0; points = p.queue.take(50, 0) {
			e.body.encode(points, false)
			body, err := e.body.compress()
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Discard.Write(body)
			p.queue.settle(Sent{Out: len(points)})
		}
	}
}
