package metrics

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shown are the lines of the metrics of a prefix.
func shown(reg *Registry, prefix string) (out []string) {
	for _, line := range lines(reg.Gather()) {
		if strings.HasPrefix(line, prefix) {
			out = append(out, line)
		}
	}
	return out
}

func counters(t *testing.T, d Desc) (*Registry, *Vec[Counter]) {
	t.Helper()
	reg := NewRegistry()
	v, err := reg.Group().Counters(d)
	if err != nil {
		t.Fatal(err)
	}
	return reg, v
}

func TestASeriesThatIsIdleIsNotShown(t *testing.T) {
	t.Parallel()
	reg, v := counters(t, Desc{Name: "c_total", Help: "C.", Tags: []string{"a"}, TTL: 10 * time.Second})
	held := v.With("held")
	held.Inc()
	v.With("busy").Inc()
	now := time.Unix(1_700_000_000, 0)
	for range 12 {
		v.With("busy").Inc()
		reg.Tick(now)
		now = now.Add(time.Second)
	}
	if diff := cmp.Diff([]string{"c_total[busy] 13"}, shown(reg, "c_")); diff != "" {
		t.Errorf("held is idle (-want +got):\n%s", diff)
	}
	held.Inc()
	reg.Tick(now)
	if diff := cmp.Diff([]string{"c_total[busy] 13", "c_total[held] 2"}, shown(reg, "c_")); diff != "" {
		t.Errorf("held has moved again (-want +got):\n%s", diff)
	}
	if v.With("held") != held {
		t.Error("there are two of held")
	}
}

func TestWhatNobodyHoldsIsForgotten(t *testing.T) {
	reg, v := counters(t, Desc{Name: "c_total", Help: "C.", Tags: []string{"a"}, TTL: time.Second})
	held := v.With("held")
	for i := range 1000 {
		v.With(fmt.Sprint(i)).Inc()
	}
	now := time.Unix(1_700_000_000, 0)
	for range 4 {
		reg.Tick(now)
		now = now.Add(time.Second)
	}
	for range 10 { // the collector may need more than one turn
		runtime.GC()
		reg.Tick(now)
		if len(v.idle) == 1 {
			break
		}
	}
	if len(v.live) != 0 || len(v.idle) != 1 {
		t.Errorf("%d live and %d idle, want the one that is held, idle", len(v.live), len(v.idle))
	}
	if v.With("held") != held {
		t.Error("there are two of held")
	}
}

func TestABudgetFoldsTheTagThatHasMost(t *testing.T) {
	t.Parallel()
	reg, v := counters(t, Desc{Name: "c_total", Help: "C.", Tags: []string{"code", "user", "host"}, Budget: 50})
	for i := range 10_000 {
		v.With([]string{"200", "500"}[i%2], fmt.Sprint(i), "h").Inc()
	}
	got := shown(reg, "c_")
	if len(got) > 50 {
		t.Errorf("%d series, want 50 at most", len(got))
	}
	for _, want := range []string{"c_total[200 __other__ h] 4980", "c_total[500 __other__ h] 4980"} {
		if !slices.Contains(got, want) {
			t.Errorf("want %s among %q", want, got)
		}
	}
	if diff := cmp.Diff([]string{"outrider_series_folded_total[c_total user] 9960"}, shown(reg, "outrider_series")); diff != "" {
		t.Errorf("what was folded (-want +got):\n%s", diff)
	}
	v.With("200", "0", "h").Inc() // as before
	if !slices.Contains(shown(reg, "c_"), "c_total[200 0 h] 2") {
		t.Error("what came first is folded too")
	}
}

func TestABudgetHoldsWhenEveryTagHasMany(t *testing.T) {
	t.Parallel()
	reg, v := counters(t, Desc{Name: "c_total", Help: "C.", Tags: []string{"a", "b"}, Budget: 20})
	for i := range 1000 {
		v.With(fmt.Sprint(i), fmt.Sprint(i)).Inc()
	}
	got, sum := shown(reg, "c_"), 0
	for _, line := range got {
		var n int
		if _, err := fmt.Sscanf(line[strings.LastIndex(line, " "):], "%d", &n); err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if len(got) != 20 || sum != 1000 {
		t.Errorf("%d series that count %d, want 20 and 1000", len(got), sum)
	}
}

func TestWrongInstruments(t *testing.T) {
	t.Parallel()
	g := NewRegistry().Group()
	if _, err := g.Gauges(Desc{Name: "g", Help: "G.", Type: CounterType}); err == nil || !strings.Contains(err.Error(), "want gauge") {
		t.Errorf("a gauge that is a counter: %v", err)
	}
	v, err := g.Gauges(Desc{Name: "g", Help: "G.", Tags: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "BUG: metric g: got 2 values") {
			t.Errorf("two values for one tag: %v", p)
		}
	}()
	v.With("a", "b")
}

func TestEveryInstrumentIsShown(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	g := reg.Group()
	d := func(name string) Desc { return Desc{Name: name, Help: "X.", Tags: []string{"a"}, Budget: 10} }
	gauges, err1 := g.Gauges(d("x_gauge"))
	meters, err2 := g.Meters(d("x_meter_total"))
	histograms, err3 := g.Histograms(d("x_histogram"))
	timers, err4 := g.Timers(d("x_timer_seconds"))
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			t.Fatal(err)
		}
	}
	gauges.With("1").Set(1.5)
	histograms.With("1").Observe(2)
	timers.With("1").Observe(time.Second)
	now := time.Unix(1_700_000_000, 0)
	reg.Tick(now)
	m := meters.With("1")
	reg.Tick(now.Add(time.Second))
	m.Mark(8)
	reg.Tick(now.Add(3 * time.Second))
	want := []string{
		"x_gauge[1] 1.5", "x_histogram[1] 0",
		"x_meter_rate[1 15m] 4", "x_meter_rate[1 1m] 4", "x_meter_rate[1 5m] 4", "x_meter_rate[1 mean] 4", "x_meter_total[1] 8",
		"x_timer_seconds[1] 0",
	}
	if diff := cmp.Diff(want, shown(reg, "x_")); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
	for _, f := range reg.Gather() {
		if f.Desc.Type == HistogramType && (f.Points[0].Hist == nil || f.Points[0].Hist.Count != 1) {
			t.Errorf("%s: %+v, want one value", f.Desc.Name, f.Points[0].Hist)
		}
	}
	g.Close()
	if got := shown(reg, "x_"); got != nil {
		t.Errorf("after the end: %q", got)
	}
}
