package alerts

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/exporters/datadog"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// TestDatadogIsAskedForWhatIsSent sends a point of each of our metrics, and wants the
// name and the tags that a monitor of it would have.
func TestDatadogIsAskedForWhatIsSent(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e, err := (&datadog.Config{Address: l.LocalAddr().String(), Samples: 1}).Build(exporters.Env{Tags: map[string]string{"service": "s"}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	known := catalogue.Own()
	own := append(slices.Clip(known),
		metrics.Desc{Name: "shop_queue_depth", Type: metrics.GaugeType},
		metrics.Desc{Name: "shop_errors_total", Type: metrics.CounterType, Tags: []string{"code"}},
		metrics.Desc{Name: "shop_wait_sum", Datadog: "shop_wait.sum", Type: metrics.CounterType},
	)
	for _, d := range own {
		if d.Type == metrics.HistogramType {
			continue
		}
		r := exporters.Reading{Desc: &d, Known: true, Grown: 1, Value: 1}
		for _, tag := range d.Tags {
			r.Tags = append(r.Tags, exporters.Tag{Name: tag, Value: "x"})
		}
		var points []exporters.Point
		e.Encode(&r, func(ref any, v float64, n uint64) {
			points = append(points, exporters.Point{Ref: ref, Value: v, Times: n})
		})
		if sent, err := e.Send(t.Context(), points); err != nil || sent.Out != 1 {
			t.Fatalf("%s: sent %+v, %v, want 1 out", d.Name, sent, err)
		}
		packet := make([]byte, 65536)
		if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := l.ReadFrom(packet)
		if err != nil {
			t.Fatal(err)
		}
		name, rest, _ := strings.Cut(strings.TrimSpace(string(packet[:n])), ":")
		_, list, _ := strings.Cut(rest, "|#")
		list, _, _ = strings.Cut(list, "|")
		sent := []string{"host"} // by the Datadog Agent
		for tag := range strings.SplitSeq(list, ",") {
			key, _, _ := strings.Cut(tag, ":")
			sent = append(sent, key)
		}
		asked := datadogSeries{own: known, rule: rule.Rule{Series: rule.Selector{Name: d.Name}, Aggregate: rule.Worst}}
		if d.Datadog == "shop_wait.sum" {
			asked.rule.Series.Name = "shop_wait.sum"
			asked.rule.Func = rule.Rate
		}
		if got := asked.name(asked.rule.Series); got != name {
			t.Errorf("%s: a monitor asks for %s, want %s, which is sent", d.Name, got, name)
		}
		by, _ := asked.by()
		for _, tag := range by {
			if !slices.Contains(sent, tag) {
				t.Errorf("%s: a monitor groups by %s, want one of what is sent: %v", d.Name, tag, sent)
			}
		}
	}
}
