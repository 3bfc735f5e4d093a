package collectors

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics"
)

// A statsdFeed gives lines to a table at a time that the test sets.
type statsdFeed struct {
	*statsdTable
	now   time.Time
	drops map[string]int
	line  DogStatsDLine
}

func feedStatsD(t testing.TB, change func(*DogStatsDConfig)) *statsdFeed {
	t.Helper()
	c := statsdConfig(t, "127.0.0.1:0")
	if change != nil {
		change(&c)
	}
	return &statsdFeed{statsdTable: newStatsDTable(c.limits()), now: time.Unix(1_700_000_000, 0), drops: map[string]int{}}
}

func (f *statsdFeed) feed(lines ...string) *statsdFeed {
	for _, line := range lines {
		drop := dropParse
		if f.line.parse([]byte(line)) == faultNone {
			drop = f.add(&f.line, f.now)
		}
		if drop != lineCounted {
			f.drops[lineDropReasons[drop]]++
		}
	}
	return f
}

func (f *statsdFeed) show() []string { return statsdShow(f.collect(f.now)) }

func TestWhatLinesBecome(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		lines []string
		want  []string
		drops map[string]int
	}{
		{"counters add up", []string{"a.b:1|c", "a.b:2:3|c", "a.b:1|c|@0.1"}, []string{"counter a_b_total{} 16"}, nil},
		{"a counter that is named so", []string{"a_total:1|c"}, []string{"counter a_total{} 1"}, nil},
		{"a counter does not fall", []string{"a:5|c", "a:-1|c", "a:1:-1|c"}, []string{"counter a_total{} 5"}, map[string]int{"negative": 2}},
		{"a gauge has the last value", []string{"a:1|g", "a:-2:-3|g", "b:+1|g"}, []string{"gauge a{} -3", "gauge b{} 1"}, nil},
		{"a gauge is not set back", []string{"a:1|g|T20", "a:2|g|T19", "a:3|g|T20"}, []string{"gauge a{} 3"}, map[string]int{"late": 1}},
		{"tags in any order are one series", []string{"a:1|c|#x:1,y:2", "a:1|c|#y:2,x:1", "a:1|c|#y:2,,x:1,"}, []string{"counter a_total{x=1,y=2} 3"}, nil},
		{"series of a metric may differ in tags", []string{"a:1|c", "a:2|c|#x:1", "a:3|c|#b:2"}, []string{"counter a_total{} 1", "counter a_total{x=1} 2", "counter a_total{b=2} 3"}, nil},
		{"tags without, with empty and with many values", []string{"a:1|c|#vip,e:,r:b,r:a,r:b"}, []string{"counter a_total{r=a,b,vip=true} 1"}, nil},
		{"names of tags", []string{"a:1|c|#1x:1,a-b:2,__name__:3,le:4,:5"}, []string{"counter a_total{_1x=1,_name__=3,a_b=2,tag_le=4} 1"}, nil},
		{"timers are seconds", []string{"a.time_ms:250|ms", "a.time_ms:250|ms|@0.5", "b_seconds:1|ms"}, []string{"histogram a_time_seconds{} n=3 sum=0.75 p50=0.249", "histogram b_seconds{} n=1 sum=0.001 p50=0.001"}, nil},
		{"histograms and distributions are one", []string{"a:1|h", "a:1:4|d|@0.25"}, []string{"histogram a{} n=9 sum=21 p50=0.995"}, nil},
		{"sets count what differs", []string{"a:x|s", "a:y|s", "a:x|s", "a:1:2|s"}, []string{"gauge a{} 3"}, nil},
		{"another type is dropped", []string{"a:1|c", "a:1|g", "a:1|ms", "a:1|c", "a:1|h"}, []string{"counter a_total{} 2"}, map[string]int{"type_conflict": 3}},
		{"another metric of that name is dropped", []string{"a.b:1|c", "a_b:1|c", "x:1|h", "x_count:1|g", "x.sum:1|g"}, []string{"counter a_b_total{} 1", "histogram x{} n=1 sum=1 p50=0.995"}, map[string]int{"name_taken": 3}},
		{"names of the agent's own are dropped", []string{"outrider.x:1|c"}, nil, map[string]int{"name_taken": 1}},
		{"names that are none", []string{"\xff:1|c", "1.2:1|c", strings.Repeat("a", 201) + ":1|c", "ä:1|c", "my metric:1|g"}, []string{"gauge my_metric{} 1"}, map[string]int{"name": 4}},
		{"bytes that are no text", []string{"a:1|c|#x:\xff"}, []string{"counter a_total{x=\ufffd} 1"}, nil},
		{"origin is read and left", []string{"a:1|c|c:abc|e:it-true|card:low", "a:1|c"}, []string{"counter a_total{} 2"}, nil},
	}
	for _, tt := range tests {
		f := feedStatsD(t, nil).feed(tt.lines...)
		if diff := cmp.Diff(tt.want, f.show()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if tt.drops == nil {
			tt.drops = map[string]int{}
		}
		if diff := cmp.Diff(tt.drops, f.drops); diff != "" {
			t.Errorf("%s: dropped (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestRelativeGauges(t *testing.T) {
	t.Parallel()
	f := feedStatsD(t, func(c *DogStatsDConfig) { c.RelativeGauges = true }).feed("a:10|g", "a:-3|g", "a:+5|g", "b:-1|g")
	if diff := cmp.Diff([]string{"gauge a{} 12", "gauge b{} -1"}, f.show()); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

func TestStatsDDescriptions(t *testing.T) {
	t.Parallel()
	f := feedStatsD(t, nil).feed("web.hits:1|c|#b:1", "web.hits:1|c|#a:1", "db.query:1|ms", "users:1|s")
	var got []metrics.Desc
	for _, fam := range f.collect(f.now) {
		got = append(got, fam.Desc)
	}
	want := []metrics.Desc{
		{Name: "db_query_seconds", Datadog: "db.query", Type: metrics.HistogramType, Unit: "seconds", SentUnit: "milliseconds", Budget: 1000, Help: "Timer db.query, as sent to DogStatsD in milliseconds."},
		{Name: "users", Datadog: "users", Type: metrics.GaugeType, Budget: 1000, Help: "Distinct values of the set users, as sent to DogStatsD, in 10s."},
		{Name: "web_hits_total", Datadog: "web.hits", Type: metrics.CounterType, Tags: []string{"a", "b"}, Budget: 1000, Help: "Counter web.hits, as sent to DogStatsD."},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("descriptions (-want +got):\n%s", diff)
	}
}

func TestABudgetFoldsTheTagWithMostValues(t *testing.T) {
	t.Parallel()
	f := feedStatsD(t, func(c *DogStatsDConfig) { c.SeriesPerMetric = 100 })
	for i := range 5000 {
		f.feed(fmt.Sprintf("req:1|c|#user:u%d,status:%d,host:h1", i, 200+i%3))
	}
	f.feed("req:1|c|#user:u1,status:201,host:h1", "other:1|c")
	fams := f.collect(f.now)
	if n := len(fams[1].Points); n != 83 { // four fifths, and one of each status
		t.Errorf("%d series, want 83", n)
	}
	total, folded := 0.0, 0.0
	for _, p := range fams[1].Points {
		total += p.Value
		if slices.Contains(p.Tags, metrics.Other) {
			folded += p.Value
			if p.Tags[0] != "h1" || p.Tags[1] == metrics.Other {
				t.Errorf("folded %v, want the tag user alone", p.Tags)
			}
		}
	}
	if total != 5001 || folded != 4920 {
		t.Errorf("%v lines, %v folded, want 5001 and 4920", total, folded)
	}
	if got := *f.folded[[2]string{"req", "user"}]; got != 4920 || len(f.folded) != 1 {
		t.Errorf("%d lines folded by metric and tag, want 4920", got)
	}
	// All is idle but two series of 80: then there is room again.
	f.now = f.now.Add(4 * time.Minute)
	f.feed("req:1|c|#user:u1,status:201,host:h1", "req:1|c|#user:u4999,status:201,host:h1")
	f.now = f.now.Add(2 * time.Minute)
	if got := f.show(); len(got) != 2 {
		t.Errorf("after the time to live: %v, want two series", got)
	}
	f.feed("req:1|c|#user:u4999,status:201,host:h1")
	if got := f.show(); len(got) != 3 || got[2] != "counter req_total{host=h1,status=201,user=u4999} 1" {
		t.Errorf("with room again: %v, want a series of its own", got)
	}
}

func TestNoSenderCanExceedTheBudgets(t *testing.T) {
	t.Parallel()
	f := feedStatsD(t, func(c *DogStatsDConfig) { c.Series, c.SeriesPerMetric, c.MaxTags = 500, 50, 8 })
	rng := rand.New(rand.NewPCG(3, 4))
	const lines = 30_000
	for range lines {
		tags := make([]string, rng.IntN(12))
		for i := range tags {
			tags[i] = fmt.Sprintf("k%d:%d", rng.IntN(200), rng.IntN(1000))
		}
		f.feed(fmt.Sprintf("m%d:1|c|#%s", rng.IntN(1000), strings.Join(tags, ",")))
	}
	fams, total, count := f.collect(f.now), 0.0, 0
	for _, fam := range fams {
		if len(fam.Points) > 50 || len(fam.Desc.Tags) > maxStatsDKeys {
			t.Errorf("%s: %d series, %d tags", fam.Desc.Name, len(fam.Points), len(fam.Desc.Tags))
		}
		for _, p := range fam.Points {
			total += p.Value
			count++
		}
	}
	if count > 500 || count != f.series {
		t.Errorf("%d series, counted as %d, want at most 500", count, f.series)
	}
	if int(total)+f.drops["budget"] != lines || f.drops["budget"] == 0 || total < 500 {
		t.Errorf("%v counted + %d dropped, want %d", total, f.drops["budget"], lines)
	}
	if len(f.recent) > 1000 || len(f.older) > 1000 || len(f.folded) > maxFoldCounters+1 || f.cut == 0 {
		t.Errorf("kept: %d and %d lines, %d counters; %d tags cut", len(f.recent), len(f.older), len(f.folded), f.cut)
	}
}

func TestIdleSeriesGo(t *testing.T) {
	t.Parallel()
	f := feedStatsD(t, nil).feed("a:1|c|#x:1", "a:1|c|#y:1", "b:1|g")
	f.now = f.now.Add(4 * time.Minute)
	f.feed("a:1|c|#x:1")
	f.now = f.now.Add(time.Minute)
	if diff := cmp.Diff([]string{"counter a_total{x=1} 2"}, f.show()); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
	if f.expired != 2 || f.series != 1 {
		t.Errorf("%d expired, %d left", f.expired, f.series)
	}
	f.feed("b:1|c", "a:1|c|#y:1") // the name is free; a series that comes back begins anew
	if diff := cmp.Diff([]string{"counter a_total{y=1} 1", "counter a_total{x=1} 2", "counter b_total{} 1"}, f.show()); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

func TestFamiliesAreNotChangedAfterwards(t *testing.T) {
	t.Parallel()
	f := feedStatsD(t, nil).feed("a:1|c|#x:1", "h:1|h", "h:5|h")
	before := f.collect(f.now)
	shown := statsdShow(before)
	f.feed("a:1|c|#x:1", "a:1|c|#b:1", "h:2|h", "h:1|h|@0.1", "h:7|h|#b:1")
	if got := f.collect(f.now); len(statsdShow(got)) != 4 {
		t.Errorf("%v", statsdShow(got))
	}
	if diff := cmp.Diff(shown, statsdShow(before)); diff != "" {
		t.Errorf("families of before (-then +now):\n%s", diff)
	}
}

func TestASetBeginsAnewWithEachWindow(t *testing.T) {
	t.Parallel()
	f := feedStatsD(t, nil)
	step := func(seconds int, want float64, lines ...string) {
		t.Helper()
		f.feed(lines...)
		f.now = f.now.Add(time.Duration(seconds) * time.Second)
		if got := f.collect(f.now)[0].Points[0].Value; got != want {
			t.Errorf("%v distinct, want %v", got, want)
		}
	}
	step(1, 2, "a:x|s", "a:y|s")
	step(5, 3, "a:z|s")
	step(5, 4, "a:w|s") // the window is over
	step(5, 4, "a:x|s") // that of before, which had more
	step(6, 1)
}

func TestSetsOfAnySize(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 256, 257, 1000, 10_000, 1_000_000} {
		var s statsdSet
		rng := rand.New(rand.NewPCG(uint64(n), 1))
		for range n {
			h := rng.Uint64()
			s.add(h)
			s.add(h)
		}
		if got := s.distinct(); math.Abs(got-float64(n)) > 0.06*float64(n) || n <= exactSet && got != float64(n) {
			t.Errorf("%v, want %d", got, n)
		}
	}
}

func TestHistogramsAreThoseOfMetrics(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() float64{
		"latencies":         func() float64 { return math.Exp(rng.NormFloat64() - 4) },
		"of either sign":    func() float64 { return rng.NormFloat64() },
		"powers of two":     func() float64 { return math.Ldexp(1, rng.IntN(40)-20) },
		"beyond the bounds": func() float64 { return []float64{0, 1e300, 5e-324, 1e19, 0x1p-44, math.Copysign(0, -1)}[rng.IntN(6)] },
	} {
		var ours statsdHistogram
		theirs := metrics.NewHistogram()
		for range 5000 {
			v := draw()
			ours.observe(v, 1)
			theirs.Observe(v)
		}
		got, want := *ours.snapshot(), theirs.Snapshot()
		if math.Abs(got.Sum-want.Sum) > 1e-9*math.Abs(want.Sum) {
			t.Errorf("%s: sum %v, want %v", name, got.Sum, want.Sum)
		}
		got.Sum, want.Sum = 0, 0
		if ours.shift == 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s (-want +got):\n%s", name, cmp.Diff(want, got))
		}
	}
}

func TestAHistogramStaysSmall(t *testing.T) {
	t.Parallel()
	var h statsdHistogram
	rng := rand.New(rand.NewPCG(1, 2))
	values := make([]float64, 200_000)
	for i := range values {
		values[i] = math.Exp2(30*rng.Float64() - 20)
		h.observe(values[i], 1)
	}
	if n := len(h.above); n > maxStatsDBuckets || h.shift == 0 {
		t.Errorf("%d buckets, shift %d", n, h.shift)
	}
	slices.Sort(values)
	s := h.snapshot()
	for _, q := range []float64{0.01, 0.5, 0.95, 0.99} {
		want := values[int(q*float64(len(values)))-1]
		if got := s.Quantile(q); math.Abs(got-want)/want > 0.025 {
			t.Errorf("quantile %v: %v, want %v within 2.5 %%", q, got, want)
		}
	}
	if s.Count != uint64(len(values)) || !slices.IsSortedFunc(s.Buckets, func(a, b metrics.Bucket) int { return int(a.Index - b.Index) }) {
		t.Errorf("%d values", s.Count)
	}
}

func TestWeightsAddUp(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{1, 0.5, 0.3, 0.7, 0.001, lowestRate} {
		var h statsdHistogram
		for range 1000 {
			h.observe(2, rate)
		}
		if want := 1000 / rate; math.Abs(float64(h.count)-want) > 1 || math.Abs(h.sum-2*float64(h.count)) > 1e-6*h.sum {
			t.Errorf("rate %v: %d values, want %v", rate, h.count, want)
		}
	}
}

func TestPipelinesThatLinesTellOf(t *testing.T) {
	t.Parallel()
	f := feedStatsD(t, nil).feed(
		"pipeline.in:10|c|#pipeline:orders,unit:orders", "pipeline.in:1:1|c|#pipeline:orders", "pipeline.out:1|c|@0.25|#pipeline:orders",
		"pipeline.drop:2|c|#reason:full,pipeline:orders", "pipeline.drop:1|c|#pipeline:orders", "pipeline.queued:5|g|#pipeline:orders", "pipeline.queued:4|g|#pipeline:orders",
		"pipeline.retry:3|c|#pipeline:orders,cause:busy",
		"pipeline.in:1|c|#pipeline:mail,target:eu,service:post",
		"pipeline.in:1|c", "pipeline.in:1|g|#pipeline:x", "pipeline.queued:1|c|#pipeline:x", // not understood
		"pipeline.other:1|c", // a metric
	)
	want := []metrics.PipelineSnapshot{
		{
			Service: "post", Name: "mail", Target: "eu", Unit: "items", In: 1, Retries: map[string]int64{}, Dropped: map[string]int64{},
			Unknown: metrics.CarriedTerm | metrics.OutTerm | metrics.QueuedTerm | metrics.RetriesTerm | metrics.DroppedTerm | metrics.OldestTerm,
		},
		{
			Service: "statsd", Name: "orders", Unit: "orders", In: 12, Out: 4, Queued: 4, Retries: map[string]int64{"busy": 3}, Dropped: map[string]int64{"full": 2, "unknown": 1},
			Unknown: metrics.CarriedTerm | metrics.OldestTerm,
		},
	}
	if diff := cmp.Diff(want, f.heard.snapshots("statsd")); diff != "" {
		t.Errorf("pipelines (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"pipeline": 3}, f.drops); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"counter pipeline_other_total{} 1"}, f.show()); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
	for i := range 10_000 {
		f.feed(fmt.Sprintf("pipeline.drop:1|c|#pipeline:orders,reason:r%d", i), fmt.Sprintf("pipeline.in:1|c|#pipeline:p%d", i))
	}
	if n := len(f.heard.pipelines); n != maxHeardPipelines {
		t.Errorf("%d pipelines, want %d", n, maxHeardPipelines)
	}
	s := f.heard.snapshots("statsd")
	if s := s[slices.IndexFunc(s, func(s metrics.PipelineSnapshot) bool { return s.Name == "orders" })]; len(s.Dropped) != maxHeardReasons+1 || s.TotalDropped() != 10_003 {
		t.Errorf("%s: %d reasons, %d dropped", s.Name, len(s.Dropped), s.TotalDropped())
	}
	f.now = f.now.Add(time.Hour)
	f.collect(f.now)
	if got := f.heard.snapshots("statsd"); len(got) != 0 {
		t.Errorf("after the time to live: %+v", got)
	}
}

func TestServiceChecksAreKept(t *testing.T) {
	t.Parallel()
	f := feedStatsD(t, nil).feed(
		"_sc|db|0|#b:1,a", "_sc|db|2|h:web1|#a,b:1,a|m:it\\nm\\: x", "_sc|db|1|d:1656581400",
		"_e{1,1}:a|b|t:warning", "_e{1,1}:a|b|t:odd", "_e{1,1}:a|b",
	)
	want := []ServiceCheck{
		{Name: "db", Status: 1, At: time.Unix(1656581400, 0)},
		{Name: "db", Status: 2, Tags: []string{"a", "b:1"}, Host: "web1", Message: "it\nm: x", At: f.now},
	}
	if diff := cmp.Diff(want, f.news.last()); diff != "" {
		t.Errorf("service checks (-want +got):\n%s", diff)
	}
	if f.news.events != [4]int64{2, 0, 0, 1} {
		t.Errorf("events %v", f.news.events)
	}
	for i := range 2 * maxServiceChecks {
		f.now = f.now.Add(time.Second)
		f.feed("_sc|c"+strconv.Itoa(i)+"|0|m:"+strings.Repeat("ä", 1000), "_sc|db|0|#b:1,a")
	}
	last := f.news.last()
	if len(last) != maxServiceChecks || last[len(last)-1].Name != "db" || len(last[0].Message) > maxCheckMessage || f.news.evicts == 0 {
		t.Errorf("%d service checks, the last is %s", len(last), last[len(last)-1].Name)
	}
}

// statsdTypical is what an application sends over and over.
func statsdTypical() (lines [][]byte) {
	for i := range 200 {
		lines = append(lines,
			fmt.Appendf(nil, "api.requests.count:1|c|#env:prod,service:payments,endpoint:/v1/e%d,status:200", i),
			fmt.Appendf(nil, "api.requests.latency:%d|d|#env:prod,service:payments,endpoint:/v1/e%d", 10+i%7, i),
			fmt.Appendf(nil, "queue.depth:%d|g|#queue:q%d", i, i),
			fmt.Appendf(nil, "db.time:%d|ms|@0.5|#table:t%d", i, i))
	}
	return lines
}

func TestKnownSeriesNeedNoMemory(t *testing.T) {
	f := feedStatsD(t, nil)
	lines := append(statsdTypical(), []byte("pipeline.in:1|c|#pipeline:orders,unit:orders"), []byte("_e{1,1}:a|b"), []byte("garbage"))
	all := func() {
		for _, line := range lines {
			if f.line.parse(line) == faultNone {
				f.add(&f.line, f.now)
			}
		}
	}
	all()
	if n := testing.AllocsPerRun(20, all); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkStatsDLineToSeries(b *testing.B) {
	f := feedStatsD(b, nil)
	lines := statsdTypical()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if f.line.parse(lines[i%len(lines)]) != faultNone || f.add(&f.line, f.now) != lineCounted {
			b.Fatal("a line was dropped")
		}
	}
}

func BenchmarkStatsDCollect(b *testing.B) {
	f := feedStatsD(b, nil)
	for i := range 9000 {
		kind := []string{"c", "g", "ms"}[i%3]
		f.feed(fmt.Sprintf("metric%d:%d|%s|#env:prod,endpoint:e%d", i%30, i, kind, i))
	}
	if f.series != 9000 {
		b.Fatal(f.series, f.drops)
	}
	b.ReportAllocs()
	for b.Loop() {
		f.collect(f.now)
	}
}

// FuzzStatsDPackets gives packets of any content to a collector with small
// budgets, and wants these to hold.
func FuzzStatsDPackets(f *testing.F) {
	f.Add([]byte("a:1|c|#x:1\na:1|g\nb:1:2|d|@0.5\n_sc|a|0\n_e{1,1}:a|b\npipeline.in:1|c|#pipeline:x"))
	f.Add([]byte("a:1|h|#le:1,quantile:2,__x:3,:4,a:\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		feed := feedStatsD(t, func(c *DogStatsDConfig) { c.Series, c.SeriesPerMetric, c.MaxTags, c.MaxTagLength = 20, 10, 4, 10 })
		d := &dogstatsd{table: feed.statsdTable}
		tally := lineTally{now: feed.now}
		d.countPacket(&feed.line, packet{data: data}, &tally)
		seen := map[string]bool{}
		fams := feed.collect(feed.now)
		series := 0
		for _, fam := range fams {
			if seen[fam.Desc.Name] || len(fam.Points) > 10 || fam.Desc.Help == "" {
				t.Fatalf("%+v", fam)
			}
			seen[fam.Desc.Name] = true
			for i, p := range fam.Points {
				if len(p.Tags) != len(fam.Desc.Tags) || math.IsNaN(p.Value) || i > 0 && slices.Compare(fam.Points[i-1].Tags, p.Tags) >= 0 {
					t.Fatalf("%+v", fam)
				}
				series++
			}
		}
		if series > 20 || series != feed.series {
			t.Fatalf("%d series, counted as %d", series, feed.series)
		}
	})
}
