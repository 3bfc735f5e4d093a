package metrics

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAnExemplarIsTheNewestOfItsMagnitude(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		timer, began := NewTimer(), time.Now()
		for i, d := range []time.Duration{8 * time.Second, 20 * time.Millisecond, 21 * time.Millisecond, 3 * time.Millisecond, -time.Second} {
			timer.ObserveWithExemplar(d, Label{"trace_id", fmt.Sprint("t", i)})
			time.Sleep(time.Second)
		}
		timer.Observe(8 * time.Second) // has none, and takes none away
		want := []Exemplar{
			{[]Label{{"trace_id", "t0"}}, 8, began},
			{[]Label{{"trace_id", "t2"}}, 0.021, began.Add(2 * time.Second)},
			{[]Label{{"trace_id", "t3"}}, 0.003, began.Add(3 * time.Second)},
			{[]Label{{"trace_id", "t4"}}, 0, began.Add(4 * time.Second)},
		}
		s := timer.Snapshot()
		if diff := cmp.Diff(want, s.Exemplars); diff != "" {
			t.Errorf("exemplars (-want +got):\n%s", diff)
		}
		if s.Count != 6 {
			t.Errorf("%d values, want 6", s.Count)
		}
		if got := s.Sub(HistogramSnapshot{}).Exemplars; got != nil {
			t.Errorf("exemplars of a difference: %v, want none", got)
		}
	})
}

func TestExemplarsOfAHistogramAreFew(t *testing.T) {
	t.Parallel()
	h := NewHistogram()
	for e := -60; e < 60; e++ {
		h.ObserveWithExemplar(math.Ldexp(1, e), Label{"n", fmt.Sprint(e)})
		h.ObserveWithExemplar(-math.Ldexp(1, e), Label{"n", fmt.Sprint(e)})
	}
	h.ObserveWithExemplar(math.Inf(1), Label{"n", "inf"})
	h.ObserveWithExemplar(math.NaN(), Label{"n", "nan"})
	s := h.Snapshot()
	if n := len(s.Exemplars); n != exemplarSlots {
		t.Errorf("%d exemplars, want %d", n, exemplarSlots)
	}
	for _, x := range s.Exemplars {
		if x.Value != x.Value {
			t.Errorf("exemplar of a value that was not counted: %v", x)
		}
	}
}

func TestLabelsOfExemplars(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 120)
	for name, tt := range map[string]struct {
		labels, want []Label
		refused      uint64
	}{
		"as given":                      {[]Label{{"trace_id", "4bf9"}, {"span_id", "1"}}, []Label{{"trace_id", "4bf9"}, {"span_id", "1"}}, 0},
		"without a value":               {[]Label{{"trace_id", ""}, {"span_id", "1"}}, []Label{{"span_id", "1"}}, 0},
		"none with a value":             {[]Label{{"trace_id", ""}}, nil, 0},
		"none":                          {nil, nil, 0},
		"128 characters":                {[]Label{{"trace_id", long}}, []Label{{"trace_id", long}}, 0},
		"129 characters":                {[]Label{{"trace_id2", long}}, nil, 1},
		"129 characters in two":         {[]Label{{"a", long}, {"b", "1234567"}}, nil, 1},
		"a name that is none":           {[]Label{{"trace-id", "1"}}, nil, 1},
		"a name that begins with digit": {[]Label{{"1st", "1"}}, nil, 1},
		"an empty name":                 {[]Label{{"", "1"}}, nil, 1},
		"a name twice":                  {[]Label{{"a", "1"}, {"a", "2"}}, nil, 1},
		"a value that is no text":       {[]Label{{"a", "\xff"}}, nil, 1},
	} {
		h, c := NewHistogram(), &Counter{}
		h.ObserveWithExemplar(2, tt.labels...)
		c.AddWithExemplar(2, tt.labels...)
		s := h.Snapshot()
		var got, ofCounter []Label
		if len(s.Exemplars) == 1 {
			got = s.Exemplars[0].Labels
		}
		if x := c.Exemplar(); x != nil {
			ofCounter = x.Labels
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: labels (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(tt.want, ofCounter); diff != "" {
			t.Errorf("%s: labels of the counter (-want +got):\n%s", name, diff)
		}
		if s.Count != 1 || c.Value() != 2 {
			t.Errorf("%s: %d values and counted %d, want 1 and 2", name, s.Count, c.Value())
		}
		if h.Refused() != tt.refused || c.Refused() != tt.refused {
			t.Errorf("%s: %d and %d refused, want %d", name, h.Refused(), c.Refused(), tt.refused)
		}
	}
}

func TestRefusedExemplarsAreCountedByMetric(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	bad, now := Label{"not a name", "1"}, time.Unix(1_700_000_000, 0)
	refused := func() map[string]float64 {
		out := map[string]float64{}
		for _, f := range reg.Gather() {
			for _, p := range f.Points {
				if f.Desc.Name == refusedDesc.Name {
					out[p.Tags[0]] = p.Value
				}
			}
		}
		return out
	}
	if got := refused(); len(got) != 0 {
		t.Errorf("%v refused before the first exemplar", got)
	}
	// Two owners of one metric, and one whose series go after a minute.
	for _, tag := range []string{"a", "b"} {
		timers, err := reg.Group().Timers(Desc{Name: "took_seconds", Help: "T.", Tags: []string{"t"}})
		if err != nil {
			t.Fatal(err)
		}
		timers.With(tag).ObserveWithExemplar(time.Second, bad)
	}
	counters, err := reg.Group().Counters(Desc{Name: "c_total", Help: "C.", Tags: []string{"t"}, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	counters.With("x").AddWithExemplar(1, bad)
	for range 2 {
		if diff := cmp.Diff(map[string]float64{"took_seconds": 2, "c_total": 1}, refused()); diff != "" {
			t.Errorf("refused (-want +got):\n%s", diff)
		}
	}
	counters.With("y").AddWithExemplar(1, bad)
	reg.Tick(now)
	reg.Tick(now.Add(time.Hour)) // the counters are idle now
	if diff := cmp.Diff(map[string]float64{"took_seconds": 2, "c_total": 2}, refused()); diff != "" {
		t.Errorf("refused after an hour (-want +got):\n%s", diff)
	}
}

func TestExemplarsComeFromManyGoroutines(t *testing.T) {
	t.Parallel()
	h := NewHistogram()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				h.ObserveWithExemplar(float64(i+1), Label{"g", fmt.Sprint(g)}, Label{"not_always", strings.Repeat("x", i)})
			}
		})
	}
	for range 100 {
		for _, x := range h.Snapshot().Exemplars {
			if len(x.Labels) == 0 || x.Value == 0 {
				t.Errorf("half an exemplar: %v", x)
			}
		}
	}
	wg.Wait()
	// 1 and 1 for the names and values of one label, 10 for the other's name: of 500
	// those with at most 116 more are kept.
	if n := h.Refused(); n != 4*(500-117) {
		t.Errorf("%d refused, want %d", n, 4*(500-117))
	}
}
