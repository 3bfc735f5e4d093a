package collectors

import (
	"math"
	"runtime"
	gometrics "runtime/metrics"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics"
)

func TestRuntimeTellsOfThisProgram(t *testing.T) {
	c := buildKind[RuntimeConfig](t, "{}")
	runtime.GC()
	fams, err := c.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkFamilies(t, fams, runtimeDescs.list())
	for _, d := range runtimeDescs {
		if !hasSeries(fams, d.Name) && d.Name != "outrider_runtime_memory_limit_bytes" {
			t.Errorf("%s is missing", d.Name)
		}
	}
	all := []gometrics.Sample{{Name: "/memory/classes/total:bytes"}}
	gometrics.Read(all)
	var sum float64
	for _, f := range fams {
		for _, p := range f.Points {
			if f.Desc.Name == "outrider_runtime_memory_bytes" {
				sum += p.Value
			}
			if f.Desc.Type == metrics.HistogramType {
				checkHistogram(t, f.Desc.Name, p.Hist)
			}
		}
	}
	if total := float64(all[0].Value.Uint64()); sum < 0.9*total || sum > 1.1*total {
		t.Errorf("the classes of memory have %v bytes together, want %v", sum, total)
	}
	if n := valueOf(t, fams, "outrider_runtime_goroutines"); n < 2 || n > 10_000 {
		t.Errorf("%v goroutines", n)
	}
	if valueOf(t, fams, "outrider_runtime_gc_cycles_total") < 1 {
		t.Error("no collection, though there was one")
	}
}

func checkHistogram(t *testing.T, name string, h *metrics.HistogramSnapshot) {
	t.Helper()
	var sum uint64
	for _, n := range h.Counts {
		sum += n
	}
	if sum != h.Count || len(h.Counts) != len(h.Bounds)+1 {
		t.Errorf("%s: %d of %d in %d buckets for %d bounds", name, sum, h.Count, len(h.Counts), len(h.Bounds))
	}
	if len(h.Bounds) < 10 || len(h.Bounds) > 60 || h.Bounds[0] > 1e-5 {
		t.Errorf("%s has the bounds %v", name, h.Bounds)
	}
	if name == "outrider_runtime_gc_pause_seconds" && (h.Count == 0 || h.Sum <= 0 || h.Sum > 100) {
		t.Errorf("%s: %d of %v seconds", name, h.Count, h.Sum)
	}
}

func TestHistogramsAreMadeOfFewerBuckets(t *testing.T) {
	s := newHistogramShape([]float64{math.Inf(-1), 0, 5e-7, 1e-6, 1.5e-6, 2e-6, 3e-6, 5e-6, math.Inf(1)})
	got := s.read([]uint64{1, 2, 4, 8, 16, 32, 64, 128})
	want := metrics.HistogramSnapshot{
		Bounds: []float64{1e-6, 2e-6, 5e-6},
		Counts: []uint64{1 + 2 + 4, 8 + 16, 32 + 64, 128}, Count: 255,
		Sum: 2*2.5e-7 + 4*7.5e-7 + 8*1.25e-6 + 16*1.75e-6 + 32*2.5e-6 + 64*4e-6 + 128*5e-6,
	}
	got.Sum, want.Sum = math.Round(got.Sum*1e12), math.Round(want.Sum*1e12)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

func BenchmarkRuntimeCollect(b *testing.B) {
	c := buildKind[RuntimeConfig](b, "{}")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Collect(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
