package metrics

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAGroupIsGivenBackAsAWhole(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	d := Desc{Name: "m", Type: GaugeType, Help: "M.", Tags: []string{"a"}}
	register := func(g *Group, tag string) *Pipeline {
		t.Helper()
		if err := g.Func(d, points(Point{Tags: []string{tag}})); err != nil {
			t.Fatal(err)
		}
		p, err := g.Pipeline(PipelineOptions{Name: "p", Target: tag, Unit: "items"})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if err := reg.Func(d, points(Point{Tags: []string{"own"}})); err != nil {
		t.Fatal(err)
	}
	kept, gone := reg.Group(), reg.Group()
	register(kept, "kept")
	register(gone, "gone").In(7)
	seen := func() (out []string) {
		for _, line := range lines(reg.Gather()) {
			if line[0] == 'm' {
				out = append(out, line)
			}
		}
		for _, s := range reg.Pipelines() {
			out = append(out, s.Target)
		}
		return out
	}
	all := []string{"m[gone] 0", "m[kept] 0", "m[own] 0", "gone", "kept"}
	if diff := cmp.Diff(all, seen()); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	if _, err := reg.Pipeline(PipelineOptions{Name: "p", Target: "gone", Unit: "items"}); err == nil {
		t.Error("the pipeline of a group can be registered twice")
	}
	gone.Close()
	if diff := cmp.Diff([]string{"m[kept] 0", "m[own] 0", "kept"}, seen()); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
	gone.Close() // a second time is nothing
	again := reg.Group()
	if p := register(again, "gone"); p.Snapshot().In != 0 {
		t.Error("a pipeline that was registered anew has old figures")
	}
	if diff := cmp.Diff(all, seen()); diff != "" {
		t.Errorf("registered anew (-want +got):\n%s", diff)
	}
}

func TestAGroupGoesWhileTheMetricsAreRead(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	d := Desc{Name: "m", Type: GaugeType, Help: "M."}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 200 {
				g := reg.Group()
				if err := g.Func(d, points(Point{})); err != nil {
					t.Error(err)
				}
				g.Close()
			}
		})
	}
	for range 200 {
		reg.Gather()
	}
	wg.Wait()
	if got := lines(reg.Gather()); got != nil {
		t.Errorf("left over: %v", got)
	}
}
