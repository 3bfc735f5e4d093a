package metrics

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFamiliesThatAreKnownWhenTheyAreRead(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	d := Desc{Name: "m", Type: GaugeType, Help: "M.", Tags: []string{"a"}}
	if err := reg.Func(d, points(Point{Tags: []string{"2"}, Value: 2})); err != nil {
		t.Fatal(err)
	}
	g := reg.Group()
	other := d
	other.Help = "Another."
	g.Families(func() []Family {
		return []Family{
			{Desc: Desc{Name: "z", Type: GaugeType, Help: "Z."}, Points: []Point{{Value: 9}}},
			{Desc: d, Points: []Point{{Tags: []string{"1"}, Value: 1}, {Tags: []string{"3"}, Value: 3}}},
			{Desc: other, Points: []Point{{Tags: []string{"4"}, Value: 4}}},
		}
	})
	want := []string{"m[1] 1", "m[2] 2", "m[3] 3", "z[] 9"} // the one that is described otherwise is left out
	if diff := cmp.Diff(want, lines(reg.Gather())); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
	g.Close()
	if diff := cmp.Diff([]string{"m[2] 2"}, lines(reg.Gather())); diff != "" {
		t.Errorf("after the end (-want +got):\n%s", diff)
	}
}

func TestPipelinesThatOthersCount(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	if _, err := reg.Pipeline(PipelineOptions{Name: "p", Unit: "items"}); err != nil {
		t.Fatal(err)
	}
	g := reg.Group()
	g.Pipelines(func() []PipelineSnapshot {
		return []PipelineSnapshot{
			{Service: "api", Name: "p", Unit: "orders", In: 9, Out: 5, Queued: 3, Unknown: DroppedTerm | OldestTerm},
			{Name: "p", Unit: "items", In: 1000}, // there is one of that name
			{Service: "api", Name: "a", Unit: "items", Unknown: CarriedTerm | InTerm | OutTerm | QueuedTerm | RetriesTerm | DroppedTerm | OldestTerm},
		}
	})
	var got []string
	for _, s := range reg.Pipelines() {
		got = append(got, s.Service+":"+s.Name)
	}
	if diff := cmp.Diff([]string{":p", "api:a", "api:p"}, got); diff != "" {
		t.Errorf("pipelines (-want +got):\n%s", diff)
	}
	want := []string{
		"outrider_pipeline_carried_total[p  orders api] 0", "outrider_pipeline_in_total[p  orders api] 9",
		"outrider_pipeline_out_total[p  orders api] 5", "outrider_pipeline_queued[p  orders api] 3",
	}
	got = slices.DeleteFunc(shown(reg, "outrider_pipeline"), func(line string) bool { return !strings.Contains(line, "api") })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is not known is shown (-want +got):\n%s", diff)
	}
	g.Close()
	if got := reg.Pipelines(); len(got) != 1 {
		t.Errorf("after the end: %d pipelines, want 1", len(got))
	}
}

func TestDepthsOfTheLastMinute(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	var queued int64
	g := reg.Group()
	if _, err := g.Pipeline(PipelineOptions{Name: "p", Unit: "items", Queue: func() Queue { return Queue{Len: queued} }}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Pipeline(PipelineOptions{Name: "blind", Unit: "items"}); err != nil {
		t.Fatal(err)
	}
	if got := shown(reg, "outrider_pipeline_queued_"); got != nil {
		t.Errorf("before the first second: %q", got)
	}
	now := time.Unix(1_700_000_000, 0)
	tick := func(n int64) {
		queued = n
		reg.Tick(now)
		now = now.Add(time.Second)
	}
	for range 30 {
		tick(1_000_000) // more than a minute ago, in the end
	}
	for n := range int64(60) {
		tick(n + 1)
	}
	want := []string{
		"outrider_pipeline_queued_max[p  items ] 60", "outrider_pipeline_queued_min[p  items ] 1", "outrider_pipeline_queued_p95[p  items ] 57",
	}
	if diff := cmp.Diff(want, shown(reg, "outrider_pipeline_queued_")); diff != "" {
		t.Errorf("depths (-want +got):\n%s", diff)
	}
	g.Close()
	reg.Tick(now)
	if len(reg.depths) != 0 {
		t.Errorf("depths of %d pipelines are remembered, want none", len(reg.depths))
	}
}
