package datadog

import (
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/metrics"
)

// One reading of 10,000 counters, and how it is sent.
func BenchmarkReading(b *testing.B) {
	path := filepath.Join(b.TempDir(), "dsd.socket")
	c, err := net.ListenPacket("unixgram", path)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	go func() {
		buffer := make([]byte, 65536)
		for {
			if _, _, err := c.ReadFrom(buffer); err != nil {
				return
			}
		}
	}()
	e, err := (&Config{Address: "unixgram://" + path}).Build(exporters.Env{Tags: map[string]string{"service": "x", "env": "prod"}, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	d := metrics.Desc{Name: "x", Datadog: "outrider.bench.items", Type: metrics.CounterType}
	readings := make([]exporters.Reading, 10_000)
	for i := range readings {
		readings[i] = exporters.Reading{Desc: &d, Known: true, Grown: float64(i), Tags: []exporters.Tag{{Name: "queue", Value: strconv.Itoa(i)}}}
	}
	points := make([]exporters.Point, 0, batch)
	b.ReportAllocs()
	for b.Loop() {
		for i := range readings {
			e.Encode(&readings[i], func(ref any, v float64, n uint64) {
				points = append(points, exporters.Point{Ref: ref, Value: v, Times: n})
			})
			if len(points) < batch {
				continue
			}
			if sent, err := e.Send(b.Context(), points); err != nil || sent.Out != batch {
				b.Fatal(sent, err)
			}
			points = points[:0]
		}
	}
}
