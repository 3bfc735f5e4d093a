package bench

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/statsd_exporter/pkg/event"
	"github.com/prometheus/statsd_exporter/pkg/line"

	"github.com/outrider-agent/outrider/collectors"
)

// statsdLines are what clients send most. Read-only.
var statsdLines = []string{
	"page.views:1|c",
	"page.views:1|c|@0.1",
	"fuel.level:0.5|g",
	"request.time:320|ms",
	"users.online:1|c|#country:china",
	"api.requests.count:1|c|#env:prod,service:payments,endpoint:/v1/orders,status:200",
	"api.requests.latency:12.875|d|#env:prod,service:payments,endpoint:/v1/orders,status:200",
	"api.requests.latency:12.875|h|@0.5|#env:prod,service:payments",
	"queue.depth:1842|g|#queue:orders,shard:7",
	"request.size:512:1024:2048:4096|d|#env:prod,service:payments",
}

// A statsdExporter is its parser, with nothing on but DogStatsD.
type statsdExporter struct {
	parser                                   *line.Parser
	sampleErrors                             *prometheus.CounterVec
	samplesReceived, tagErrors, tagsReceived prometheus.Counter
	log                                      *slog.Logger
}

func newStatsDExporter() *statsdExporter {
	counter := func(name string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name})
	}
	e := &statsdExporter{
		parser:          line.NewParser(),
		sampleErrors:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "errors"}, []string{"reason"}),
		samplesReceived: counter("samples"), tagErrors: counter("tag_errors"), tagsReceived: counter("tags"),
		log: slog.New(slog.DiscardHandler),
	}
	e.parser.EnableDogstatsdParsing()
	return e
}

func (e *statsdExporter) parse(text string) event.Events {
	return e.parser.LineToEvents(text, *e.sampleErrors, e.samplesReceived, e.tagErrors, e.tagsReceived, e.log)
}

// ours reads a line and looks at all that it says.
func ours(text []byte, l *collectors.DogStatsDLine) (sum float64, tags int) {
	if collectors.ParseDogStatsD(text, l) != nil {
		return 0, 0
	}
	for _, v := range l.Values {
		sum += v
	}
	for key, value := range collectors.EachTag(l.Tags) {
		tags += len(key) + len(value)
	}
	return sum, tags
}

func TestBothParsersReadTheSame(t *testing.T) {
	theirs := newStatsDExporter()
	var l collectors.DogStatsDLine
	for _, text := range statsdLines {
		if err := collectors.ParseDogStatsD([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		var want, got []string
		seen := map[string]bool{}
		for _, e := range theirs.parse(text) { // it repeats what was sampled
			s := fmt.Sprint(e.MetricName(), e.Value(), e.Labels())
			if !seen[s] {
				want = append(want, s)
			}
			seen[s] = true
		}
		labels := map[string]string{}
		for key, value := range collectors.EachTag(l.Tags) {
			labels[string(key)] = string(value)
		}
		for _, v := range l.Values {
			switch l.Type {
			case 'm':
				v /= 1000
			case 'c':
				v /= l.Rate
			}
			got = append(got, fmt.Sprint(string(l.Name), v, labels))
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-statsd_exporter +ours):\n%s", text, diff)
		}
	}
}

// TestStatsDIsTenTimesFaster takes the median of five paired runs.
func TestStatsDIsTenTimesFaster(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes about ten seconds")
	}
	var ratios, costs []float64
	for range 5 {
		own, their := testing.Benchmark(benchmarkOurs), testing.Benchmark(benchmarkTheirs)
		if own.AllocsPerOp() != 0 {
			t.Errorf("%d allocations, want 0", own.AllocsPerOp())
		}
		each := float64(own.NsPerOp()) / float64(len(statsdLines))
		costs = append(costs, each)
		ratios = append(ratios, float64(their.NsPerOp())/float64(own.NsPerOp()))
	}
	slices.Sort(ratios)
	slices.Sort(costs)
	t.Logf("a line takes %.0f ns; statsd_exporter's parser takes %.1f times as long", costs[2], ratios[2])
	if ratios[2] < 10 {
		t.Errorf("statsd_exporter's parser takes %.1f times as long, want at least 10", ratios[2])
	}
	if costs[2] > 1.5*100 { // the budget is 100; machines that test are busy
		t.Errorf("a line takes %.0f ns, want less than 100", costs[2])
	}
}

func BenchmarkStatsDOurs(b *testing.B)           { benchmarkOurs(b) }
func BenchmarkStatsDStatsDExporter(b *testing.B) { benchmarkTheirs(b) }

// BenchmarkStatsDLine is one kind of line at a time.
func BenchmarkStatsDLine(b *testing.B) {
	for _, text := range statsdLines {
		raw := []byte(text)
		b.Run(strings.ReplaceAll(text, "/", "_"), func(b *testing.B) {
			var l collectors.DogStatsDLine
			b.ReportAllocs()
			for b.Loop() {
				ours(raw, &l)
			}
		})
	}
}

func benchmarkOurs(b *testing.B) {
	lines := make([][]byte, len(statsdLines))
	for i, text := range statsdLines {
		lines[i] = []byte(text)
	}
	var l collectors.DogStatsDLine
	ours(lines[len(lines)-1], &l) // the memory of its values is kept
	b.ReportAllocs()
	for b.Loop() {
		for _, text := range lines {
			if sum, _ := ours(text, &l); sum == 0 {
				b.Fatal("a line was not understood")
			}
		}
	}
}

func benchmarkTheirs(b *testing.B) {
	theirs := newStatsDExporter()
	b.ReportAllocs()
	for b.Loop() {
		for _, text := range statsdLines {
			if len(theirs.parse(text)) == 0 {
				b.Fatal("a line was not understood")
			}
		}
	}
}
