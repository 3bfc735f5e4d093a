package metrics

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMergeAddsUpWhatIsTheSame: two sockets to which one program sends, say.
func TestMergeAddsUpWhatIsTheSame(t *testing.T) {
	desc := func(name string, typ Type, help string) Desc {
		return Desc{Name: name, Type: typ, Help: help, Tags: []string{"t"}}
	}
	took := func(values ...time.Duration) *HistogramSnapshot {
		h := NewTimer()
		for _, v := range values {
			h.Observe(v)
		}
		s := h.Snapshot()
		return &s
	}
	a := []Family{
		{desc("a", GaugeType, "A."), []Point{{Tags: []string{"x"}, Value: 1}, {Tags: []string{"z"}, Value: 3}}},
		{desc("c", CounterType, "C."), []Point{{Tags: []string{"x"}, Value: 1}}},
		{desc("d", GaugeType, "One."), []Point{{Tags: []string{"x"}, Value: 1}}},
		{desc("h", HistogramType, "H."), []Point{{Tags: []string{"x"}, Hist: took(time.Second, time.Millisecond)}}},
		{desc("i", HistogramType, "I."), []Point{{Tags: []string{"x"}, Hist: took(time.Second)}}},
	}
	b := []Family{
		{desc("a", GaugeType, "A."), []Point{{Tags: []string{"x"}, Value: 10}, {Tags: []string{"y"}, Value: 20}}},
		{desc("b", CounterType, "B."), []Point{{Tags: []string{"x"}, Value: 5}}},
		{desc("c", CounterType, "C."), []Point{{Tags: []string{"w"}, Value: 7}, {Tags: []string{"x"}, Value: 10}}},
		{desc("d", GaugeType, "Another."), []Point{{Tags: []string{"q"}, Value: 1}}},
		{desc("h", HistogramType, "H."), []Point{{Tags: []string{"x"}, Hist: took(time.Second, time.Hour)}}},
		{desc("i", HistogramType, "I."), []Point{{Tags: []string{"x"}, Hist: &HistogramSnapshot{Bounds: []float64{1}, Counts: []uint64{1, 0}, Count: 1}}}},
	}
	want := []Family{
		{a[0].Desc, []Point{{Tags: []string{"x"}, Value: 1}, {Tags: []string{"y"}, Value: 20}, {Tags: []string{"z"}, Value: 3}}},
		b[1],
		{a[1].Desc, []Point{{Tags: []string{"w"}, Value: 7}, {Tags: []string{"x"}, Value: 11}}},
		a[2],
		{a[3].Desc, []Point{{Tags: []string{"x"}, Hist: took(time.Second, time.Millisecond, time.Second, time.Hour)}}},
		a[4],
	}
	if diff := cmp.Diff(want, Merge(a, b)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	if a[1].Points[0].Value != 1 || b[2].Points[1].Value != 10 || a[3].Points[0].Hist.Count != 2 {
		t.Error("what was merged has been changed")
	}
}

// TestMergeOfDifferentTags: which tags a sender has been seen with is no reason to
// leave its series out.
func TestMergeOfDifferentTags(t *testing.T) {
	of := func(tags []string, points ...Point) Family {
		return Family{Desc{Name: "hits", Type: CounterType, Help: "Hits.", Tags: tags}, points}
	}
	got := Merge(
		[]Family{of([]string{"env"}, Point{Tags: []string{"p"}, Value: 1})},
		[]Family{of([]string{"pod", "env"}, Point{Tags: []string{"x", "p"}, Value: 7}, Point{Tags: []string{"", "p"}, Value: 2})},
	)
	want := []Family{of([]string{"env", "pod"}, Point{Tags: []string{"p", ""}, Value: 3}, Point{Tags: []string{"p", "x"}, Value: 7})}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
}
