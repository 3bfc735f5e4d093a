package collectors

import (
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// shop is what a neighbour shows: each line a series, its tag and its value.
func shop(received, done, invalid, expired, depth float64) []metrics.Family {
	family := func(name, tag string, points ...metrics.Point) metrics.Family {
		return metrics.Family{Desc: metrics.Desc{Name: name, Type: metrics.CounterType, Tags: []string{tag, "shard"}}, Points: points}
	}
	p := func(v float64, tags ...string) metrics.Point { return metrics.Point{Tags: tags, Value: v} }
	fams := []metrics.Family{
		family("depth", "queue", p(depth, "", ""), p(99, "other", "")),
		family("done_total", "status", p(done, "ok", "1"), p(0, "ok", "2"), p(7, "failed", "1")),
		family("dropped_total", "reason", p(invalid, "invalid", "1"), p(expired, "expired", "1"), p(expired, "expired", "2")),
		family("received_total", "", p(received-10, "", "1"), p(10, "", "2")),
		family("tries_total", "cause"),
	}
	fams[0].Desc.Type = metrics.GaugeType
	return fams
}

func orders() Pipeline {
	return Pipeline{
		Name: "orders", Neighbour: "api", Unit: "orders",
		In:      &Term{Selection: Selection{Series: "received_total"}},
		Out:     &Term{Selection: Selection{Series: "done_total", Match: map[string]string{"status": "ok"}}},
		Queued:  &Term{Selection: Selection{Series: "depth", Match: map[string]string{"queue": ""}}},
		Drops:   &Term{Selection: Selection{Series: "dropped_total", By: "reason"}},
		Retries: &Term{Selection: Selection{Series: "tries_total", By: "cause"}},
	}
}

func read(t *testing.T, m *mapping, fams []metrics.Family) metrics.PipelineSnapshot {
	t.Helper()
	m.take(time.Unix(1_700_000_000, 0), fams)
	all := m.pipelines()
	if len(all) != 1 {
		t.Fatalf("%d pipelines, want 1", len(all))
	}
	return all[0]
}

func TestANeighboursSeriesBecomeAPipeline(t *testing.T) {
	m := &mapping{Pipeline: orders()}
	s := read(t, m, shop(100, 60, 3, 2, 33))
	want := metrics.PipelineSnapshot{
		Service: "api", Name: "orders", Unit: "orders", In: 100, Out: 60, Queued: 33,
		Retries: map[string]int64{}, Dropped: map[string]int64{"invalid": 3, "expired": 4}, Unknown: metrics.OldestTerm,
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("pipeline (-want +got):\n%s", diff)
	}
	if b, ok := s.Balance(); !ok || b != 0 {
		t.Errorf("balance %d (%t), want 0", b, ok)
	}
}

func TestTheFirstLookSaysWhatWasCarried(t *testing.T) {
	m := &mapping{Pipeline: orders()}
	balance := func(fams []metrics.Family) int64 {
		t.Helper()
		b, ok := read(t, m, fams).Balance()
		if !ok {
			t.Fatal("the balance is not known")
		}
		return b
	}
	if b := balance(shop(100, 60, 0, 0, 240)); b != 0 { // 200 waited when it started
		t.Errorf("at the first look: balance %d, want 0", b)
	}
	if b := balance(shop(150, 90, 0, 0, 260)); b != 0 {
		t.Errorf("later: balance %d, want 0", b)
	}
	if got := m.books[""].snapshot.Tolerance; got != 80 {
		t.Errorf("tolerance %d, want the 80 that moved", got)
	}
	if b := balance(shop(150, 90, 0, 0, 250)); b != 10 {
		t.Errorf("ten are lost: balance %d, want 10", b)
	}
	if b := balance(shop(10, 5, 0, 0, 255)); b != 0 { // 250 were found
		t.Errorf("it has begun anew: balance %d, want 0", b)
	}
	m.take(time.Now(), nil)
	if got := m.pipelines(); got != nil {
		t.Errorf("it cannot be read: got %v, want none", got)
	}
}

func TestWhatIsNotKnownIsNotZero(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(p *Pipeline)
		want   metrics.Terms
	}{
		"a term that nobody named":   {func(p *Pipeline) { p.Queued = nil }, metrics.QueuedTerm},
		"a series that is not there": {func(p *Pipeline) { p.Out.Series = "sold_total" }, metrics.OutTerm},
		"a part of a sum that is not there": {func(p *Pipeline) {
			p.In = &Term{Sum: []Selection{{Series: "received_total"}, {Series: "stolen_total"}}}
		}, metrics.InTerm},
		"a depth that shows no series":   {func(p *Pipeline) { p.Queued.Match["queue"] = "void" }, metrics.QueuedTerm},
		"a depth of which it is said":    {func(p *Pipeline) { p.Queued = &Term{unknown: true} }, metrics.QueuedTerm},
		"a counter that shows no series": {func(p *Pipeline) { p.Drops.Match = map[string]string{"shard": "9"} }, 0},
		"a term that it does not have":   {func(p *Pipeline) { p.Drops = &Term{none: true} }, 0},
	} {
		p := orders()
		tt.change(&p)
		s := read(t, &mapping{Pipeline: p}, shop(100, 60, 0, 0, 40))
		if s.Unknown != tt.want|metrics.OldestTerm {
			t.Errorf("%s: unknown are %b, want %b", name, s.Unknown, tt.want|metrics.OldestTerm)
		}
		if b, ok := s.Balance(); ok != (tt.want == 0) || b != 0 && ok {
			t.Errorf("%s: balance %d (%t)", name, b, ok)
		}
	}
}

func TestOurOwnPipelinesNeedNoMapping(t *testing.T) {
	reg := metricstest.Registry(t)
	p, err := reg.Pipeline(metrics.PipelineOptions{Name: "mail", Target: "smtp", Unit: "mails", Queue: func() metrics.Queue { return metrics.Queue{Len: 4} }})
	if err != nil {
		t.Fatal(err)
	}
	p.In(10)
	p.Out(5)
	p.Drop("bounced", 1)
	p.Retry("busy", 2)
	o := &ours{service: "post"}
	o.take(time.Now(), reg.Gather())
	want := p.Snapshot()
	want.Service = "post"
	if diff := cmp.Diff([]metrics.PipelineSnapshot{want}, o.pipelines()); diff != "" {
		t.Errorf("pipelines (-want +got):\n%s", diff)
	}
}

func TestPipelinesInAFile(t *testing.T) {
	parse := func(text string) ([]Pipeline, error) {
		var got []Pipeline
		_, err := config.Parse("f.yaml", []byte(text), "/", config.Options{Sections: map[string]any{"pipelines": &got}})
		return got, err
	}
	got, err := parse(`
pipelines:
  - name: orders
    neighbour: api
    in: {series: orders_received_total}
    out: {sum: [{series: a_total, match: {status: ok}}, {series: b_total}]}
    drops: {series: orders_dropped_total, by: reason}
    retries: none
`)
	if err != nil || len(got) != 1 || got[0].whole().Unit != "items" || !got[0].Retries.none || got[0].Drops.By != "reason" || len(got[0].Out.Sum) != 2 {
		t.Fatalf("got %+v (%v)", got, err)
	}
	got, err = parse("pipelines: [{name: a, neighbour: b, preset: celery, target: queue, in: unknown, queued: {series: x, less: [{series: y}]}}]")
	if err != nil || len(got) != 1 || got[0].Preset != "celery" || got[0].Target != "queue" || !got[0].In.unknown || len(got[0].Queued.Less) != 1 {
		t.Fatalf("got %+v (%v)", got, err)
	}
	for text, want := range map[string]string{
		"pipelines: [{name: a, neighbour: b, preset: cellery}]":                              "pipelines[0].preset: got cellery, want one of celery, java_executor, ",
		"pipelines: [{name: a, neighbour: b, drops: {series: x, less: [{series: y}]}}]":      "pipelines[0].drops.less: got a list, want none",
		"pipelines: [{name: a, neighbour: b, queued: {series: x, less: [{match: {a: b}}]}}]": "less[0].series: got nothing",
		"pipelines: [{name: a, neighbour: b, in: 5}]":                                        "pipelines[0].in: got 5, want",
		"pipelines: [{name: a, neighbour: b, in: {}}]":                                       "pipelines[0].in.series: got nothing, want the name of a series",
		"pipelines: [{name: a, neighbour: b, in: {series: x, sum: [{series: y}]}}]":          "pipelines[0].in.sum: got series and sum, want one of them",
		"pipelines: [{name: a, neighbour: b, in: {sum: [{}]}}]":                              "sum[0].series: got nothing",
		"pipelines: [{neighbour: b}]":                                                        "pipelines[0].name: got nothing, want text",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestTwoPipelinesOfOneName(t *testing.T) {
	reg := metricstest.Registry(t)
	c := Config{
		Neighbours: []Neighbour{{Name: "api", Metrics: "http://127.0.0.1:9/metrics", Every: time.Second}},
		Pipelines:  []Pipeline{orders(), orders()},
	}
	_, err := New(Options{Config: c, Registry: reg, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err == nil || err.Error() != "pipelines[1] orders: got a second one of api by this name, want one of its own" {
		t.Errorf("got %v", err)
	}
}

func TestAPipelineOfNobody(t *testing.T) {
	_, err := New(Options{Config: Config{Pipelines: []Pipeline{orders()}}, Registry: metricstest.Registry(t), Log: slog.New(slog.DiscardHandler)})
	if err == nil || err.Error() != "pipelines[0] orders: neighbour: got api, want a neighbour with metrics, or a collector" {
		t.Errorf("got %v", err)
	}
}

func byQueue() Pipeline {
	of := func(series string) *Term { return &Term{Selection: Selection{Series: series}} }
	return Pipeline{
		Name: "jobs", Neighbour: "api", Unit: "jobs", Target: "queue",
		In: of("in_total"), Out: of("out_total"), Queued: of("depth"), Drops: &Term{none: true}, Oldest: of("age_seconds"),
	}
}

// queues are the series of queues; each row is a queue's name and what came in,
// went out and waits.
func queues(rows map[string][3]float64) []metrics.Family {
	names := slices.Sorted(maps.Keys(rows))
	family := func(name string, typ metrics.Type, i int) metrics.Family {
		f := metrics.Family{Desc: metrics.Desc{Name: name, Type: typ, Tags: []string{"queue", "shard"}}}
		for _, queue := range names {
			second := 0.0
			if name == "age_seconds" {
				second = rows[queue][i] / 2
			}
			f.Points = append(f.Points, metrics.Point{Tags: []string{queue, "1"}, Value: rows[queue][i]}, metrics.Point{Tags: []string{queue, "2"}, Value: second})
		}
		return f
	}
	return []metrics.Family{
		family("age_seconds", metrics.GaugeType, 2), family("depth", metrics.GaugeType, 2),
		family("in_total", metrics.CounterType, 0), family("out_total", metrics.CounterType, 1),
	}
}

func TestATargetIsAPipelineOfItsOwn(t *testing.T) {
	m := &mapping{Pipeline: byQueue()}
	at := time.Unix(1_700_000_000, 0)
	m.take(at, queues(map[string][3]float64{"": {7, 7, 7}, "a": {10, 4, 6}, "b": {3, 3, 0}}))
	want := []metrics.PipelineSnapshot{
		{Service: "api", Name: "jobs", Target: "a", Unit: "jobs", In: 10, Out: 4, Queued: 6, Oldest: at.Add(-6 * time.Second), Retries: map[string]int64{}, Dropped: map[string]int64{}, Unknown: metrics.RetriesTerm},
		{Service: "api", Name: "jobs", Target: "b", Unit: "jobs", In: 3, Out: 3, Retries: map[string]int64{}, Dropped: map[string]int64{}, Unknown: metrics.RetriesTerm},
	}
	if diff := cmp.Diff(want, m.pipelines()); diff != "" {
		t.Errorf("pipelines (-want +got):\n%s", diff)
	}

	// Of a target that it does not show, a counter has counted nothing, and a gauge
	// says nothing.
	fams := queues(map[string][3]float64{"a": {10, 4, 6}, "b": {3, 3, 0}})
	for i := range fams {
		fams[i].Points = fams[i].Points[:2]
	}
	fams[2].Points = queues(map[string][3]float64{"a": {10, 4, 6}, "b": {3, 0, 0}})[2].Points
	m = &mapping{Pipeline: byQueue()}
	m.take(at, fams)
	if s := m.pipelines()[1]; s.Target != "b" || s.In != 3 || s.Out != 0 || s.Unknown != metrics.RetriesTerm|metrics.QueuedTerm|metrics.OldestTerm {
		t.Errorf("got %+v, want b with 3 in, none out, and no depth and age", s)
	}

	// A metric without the tag says nothing of any target.
	fams = queues(map[string][3]float64{"a": {10, 4, 6}})
	fams[3].Desc.Tags = []string{"host", "shard"}
	m = &mapping{Pipeline: byQueue()}
	m.take(at, fams)
	if s := m.pipelines()[0]; s.Target != "a" || s.Unknown != metrics.RetriesTerm|metrics.OutTerm {
		t.Errorf("got %+v, want a, with what went out not known", s)
	}
}

func TestTargetsAreBounded(t *testing.T) {
	m := &mapping{Pipeline: byQueue()}
	rows := map[string][3]float64{}
	for i := range 1000 {
		rows[fmt.Sprintf("q%04d", i)] = [3]float64{2, 1, 1}
	}
	m.take(time.Now(), queues(rows))
	for i := range 5 { // they come later, and before the others by name
		rows[fmt.Sprintf("a%d", i)] = [3]float64{20, 10, 10}
	}
	delete(rows, "q0007")
	m.take(time.Now(), queues(rows))
	all := m.pipelines()
	if len(all) != 1001 || all[0].Target != "__other__" || all[1].Target != "a0" || all[2].Target != "q0000" {
		t.Fatalf("got %d pipelines, first those of %s, %s, %s; want 1001, first __other__, a0, which has the room of q0007, and q0000", len(all), all[0].Target, all[1].Target, all[2].Target)
	}
	if s := all[0]; s.In != 80 || s.Out != 40 || s.Queued != 40 || s.Unknown != metrics.RetriesTerm|metrics.CarriedTerm {
		t.Errorf("got %+v, want the sum of the four others", s)
	}
	for _, s := range all[1:] {
		if b, ok := s.Balance(); b != 0 || !ok {
			t.Errorf("%s: balance %d (%t), want 0", s.Target, b, ok)
		}
	}
}

func TestWhatWaitsIsTheDifferenceOfCounters(t *testing.T) {
	p := byQueue()
	p.Target, p.Oldest = "", nil
	p.Queued = &Term{Sum: []Selection{{Series: "depth"}, {Series: "taken_total"}}, Less: []Selection{{Series: "out_total"}}}
	m := &mapping{Pipeline: p}
	look := func(in, out, depth, taken, want float64) {
		t.Helper()
		fams := append(queues(map[string][3]float64{"a": {in, out, depth}}), metrics.Family{
			Desc: metrics.Desc{Name: "taken_total", Type: metrics.CounterType}, Points: []metrics.Point{{Value: taken}},
		})
		s := read(t, m, fams)
		if b, ok := s.Balance(); s.Queued != int64(want) || max(b, -b) > s.Tolerance || !ok {
			t.Errorf("in %v, out %v, depth %v, taken %v: %d wait (balance %d, %t), want %v", in, out, depth, taken, s.Queued, b, ok, want)
		}
	}
	look(10, 0, 5, 5, 10) // four more were being worked on when the counting began
	look(10, 4, 5, 5, 6)
	look(10, 14, 0, 10, 0) // no less than none waits
	look(10, 14, 0, 10, 0) // nothing moves: so four did begin before
	look(11, 14, 0, 11, 1)
	if b, _ := m.pipelines()[0].Balance(); b != 0 {
		t.Errorf("balance %d, want 0", b)
	}
	look(2, 1, 0, 2, 1) // it has begun anew
	look(2, 1, 0, 2, 1)

	m = &mapping{Pipeline: p}
	look(0, 4, 0, 0, 0) // four were finished that nobody saw come
	if b, _ := m.pipelines()[0].Balance(); b != -4 {
		t.Errorf("balance %d, want the -4 that are within the tolerance", b)
	}
	look(0, 4, 0, 0, 0)
	if s := m.pipelines()[0]; s.Tolerance != 0 {
		t.Errorf("tolerance %d, want 0: balanced at rest", s.Tolerance)
	}
	look(3, 4, 2, 1, 3)
}

func TestAValueThatIsNoNumberIsNotKnown(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e300} {
		s := read(t, &mapping{Pipeline: orders()}, shop(100, 60, 0, 0, v))
		if s.Unknown != metrics.QueuedTerm|metrics.OldestTerm || s.Queued != 0 {
			t.Errorf("depth %v: unknown are %b, queued %d", v, s.Unknown, s.Queued)
		}
	}
}
