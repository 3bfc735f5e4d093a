package metrics

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func lines(fams []Family) (out []string) {
	for _, f := range fams {
		for _, p := range f.Points {
			out = append(out, fmt.Sprintf("%s%v %v", f.Desc.Name, p.Tags, p.Value))
		}
	}
	return out
}

func points(ps ...Point) func(yield func(Point)) {
	return func(yield func(Point)) {
		for _, p := range ps {
			yield(p)
		}
	}
}

func TestGatherIsSorted(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	z := Desc{Name: "z", Type: GaugeType, Help: "Z.", Tags: []string{"a", "b"}}
	for _, err := range []error{
		reg.Func(z, points(Point{Tags: []string{"2", "1"}, Value: 1}, Point{Tags: []string{"1", "2"}, Value: 2})),
		reg.Func(Desc{Name: "a_total", Type: CounterType, Help: "A."}, points(Point{Value: 3})),
		reg.Func(z, points(Point{Tags: []string{"1", "1"}, Value: 4})),
		reg.Func(Desc{Name: "empty", Type: GaugeType, Help: "E."}, points()),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"a_total[] 3", "z[1 1] 4", "z[1 2] 2", "z[2 1] 1"}
	for range 20 { // the order of maps is random
		fams := reg.Gather()
		if diff := cmp.Diff(want, lines(fams)); diff != "" {
			t.Fatalf("series (-want +got):\n%s", diff)
		}
		if len(fams) != 3 || fams[1].Desc.Name != "empty" {
			t.Fatalf("%d families, want a_total, empty and z", len(fams))
		}
	}
}

func TestFuncRefuses(t *testing.T) {
	t.Parallel()
	good := Desc{Name: "m", Datadog: "m", Type: GaugeType, Help: "M.", Unit: "bytes", Tags: []string{"a"}, Budget: 2}
	with := func(change func(*Desc)) Desc {
		d := good
		d.Tags = slices.Clone(d.Tags)
		change(&d)
		return d
	}
	tests := []struct {
		name string
		desc Desc
		want string // start of the error; empty for none
	}{
		{"the same description again is welcome", with(func(*Desc) {}), ""},
		{"another Datadog name", with(func(d *Desc) { d.Datadog = "n" }), "metric m: described twice: "},
		{"another type", with(func(d *Desc) { d.Type = CounterType }), "metric m: described twice: "},
		{"another help", with(func(d *Desc) { d.Help = "N." }), "metric m: described twice: "},
		{"another unit", with(func(d *Desc) { d.Unit = "seconds" }), "metric m: described twice: "},
		{"other tags", with(func(d *Desc) { d.Tags[0] = "b" }), "metric m: described twice: "},
		{"another budget", with(func(d *Desc) { d.Budget = 3 }), "metric m: described twice: "},
		{"no name", with(func(d *Desc) { d.Name = "" }), `metric "": name and help must not be empty`},
		{"no help", with(func(d *Desc) { d.Help = "" }), `metric "m": name and help must not be empty`},
		{"no type", with(func(d *Desc) { d.Type = "meter" }), `metric m: type "meter", want counter, gauge or histogram`},
		{"a pipeline's name", with(func(d *Desc) { d.Name = "outrider_pipeline_queued" }), "metric outrider_pipeline_queued: the name belongs to the pipelines"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reg := NewRegistry()
			if err := reg.Func(good, points(Point{Tags: []string{"x"}})); err != nil {
				t.Fatal(err)
			}
			err := reg.Func(tt.desc, points(Point{Tags: []string{"y"}}))
			if got := fmt.Sprint(err); tt.want == "" && err != nil || !strings.HasPrefix(got, tt.want) && tt.want != "" {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			want := []string{"m[x] 0"}
			if err == nil {
				want = append(want, "m[y] 0")
			}
			if diff := cmp.Diff(want, lines(reg.Gather())); diff != "" {
				t.Errorf("series (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDescsIsTheCatalogue(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	for _, name := range []string{"z", "a"} {
		if err := reg.Func(Desc{Name: name, Type: GaugeType, Help: "H."}, points()); err != nil {
			t.Fatal(err)
		}
	}
	descs := reg.Descs()
	if len(descs) != 3+len(pipelineDescs)+len(depthDescs) || descs[0].Name != "a" || descs[len(descs)-1].Name != "z" {
		t.Errorf("%d descriptors, want a, those of pipelines and exemplars, and z", len(descs))
	}
	for _, d := range descs[1 : len(descs)-1] {
		if d.Name == refusedDesc.Name {
			continue
		}
		if !strings.HasPrefix(d.Name, "outrider_pipeline_") || !strings.HasPrefix(d.Datadog, "outrider.pipeline.") ||
			strings.HasSuffix(d.Datadog, "_total") || strings.HasSuffix(d.Datadog, "_seconds") || d.Budget <= 0 || d.Unit == "" {
			t.Errorf("descriptor of a pipeline: %+v", d)
		}
	}
	descs[0].Name = "changed"
	if got := reg.Descs()[0].Name; got != "a" {
		t.Errorf("a caller changed the catalogue: %s", got)
	}
}

func TestRegistryFromManyGoroutines(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 50 {
				tag := fmt.Sprintf("%d-%d", g, i)
				if err := reg.Func(Desc{Name: "m", Type: GaugeType, Help: "M.", Tags: []string{"t"}}, points(Point{Tags: []string{tag}})); err != nil {
					t.Error(err)
				}
				if _, err := reg.Pipeline(PipelineOptions{Name: tag, Unit: "items"}); err != nil {
					t.Error(err)
				}
				reg.Gather()
				reg.Descs()
				reg.Pipelines()
			}
		})
	}
	wg.Wait()
	if got := len(lines(reg.Gather())); got != 200+200*3 {
		t.Errorf("%d series, want 800", got)
	}
}
