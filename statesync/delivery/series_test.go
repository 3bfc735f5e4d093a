package delivery

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

// sinkSeries are the series of the test's sink that are not 0, by what comes after
// outrider_sink_.
func sinkSeries(t *testing.T, reg *metrics.Registry) map[string]float64 {
	t.Helper()
	out, all := map[string]float64{}, 0
	for _, f := range reg.Gather() {
		name, ok := strings.CutPrefix(f.Desc.Name, "outrider_sink_")
		if !ok {
			continue
		}
		for _, p := range f.Points {
			if all++; p.Tags[0] != "sink" {
				t.Errorf("%s of %v, want it of sink", f.Desc.Name, p.Tags)
			}
			if p.Value != 0 {
				out[name] = p.Value
			}
		}
	}
	if all != 7 {
		t.Errorf("%d series of a sink, want 7", all)
	}
	return out
}

func TestSinkSeries(t *testing.T) {
	t.Parallel()
	refuses := func(err error) func(statesync.Delivery) error {
		return func(statesync.Delivery) error { return err }
	}
	takes := func(after time.Duration) func(statesync.Delivery) error {
		return func(statesync.Delivery) error {
			time.Sleep(after) // sleep: in the bubble
			return nil
		}
	}
	type series = map[string]float64
	for name, tt := range map[string]struct {
		answer  func(d statesync.Delivery) error
		letters Letters
		changes []string
		want    series // after half a minute
	}{
		"nothing has come": {takes(0), SkipLetters, nil, series{}},
		"a change acknowledged in a second is in time":     {takes(time.Second), SkipLetters, []string{"a"}, series{"acknowledged_total": 1}},
		"one acknowledged later is late":                   {takes(time.Second + 1), SkipLetters, []string{"a", "b"}, series{"acknowledged_total": 2, "late_total": 2}},
		"one that waits for one before it is late as well": {takes(600 * time.Millisecond), SkipLetters, []string{"a", "a"}, series{"acknowledged_total": 2, "late_total": 1}},
		"a sink that takes nothing":                        {refuses(errRefused), SkipLetters, []string{"a"}, series{"failing_seconds": 30, "parked_lanes": 1}},
		"several lanes that fail open the circuit": {
			refuses(errRefused), SkipLetters,
			[]string{"a", "b", "c", "d", "e"},
			series{"failing_seconds": 30, "circuit_open": 1},
		},
		"a change that is refused for good": {refuses(errRejected), SkipLetters, []string{"a"}, series{"dead_letters": 1}},
		"a lane that waits for one":         {refuses(errRejected), ParkLetters, []string{"a", "a"}, series{"parked_lanes": 1}},
		"a receiver that wants nothing any more": {
			refuses(&statesync.SinkError{Gone: true, Err: errRefused}), SkipLetters, []string{"a"}, series{"detached": 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log := newLog(t)
				o := options(t, log, newRecorder(t, func(_ context.Context, d statesync.Delivery, _ int) error { return tt.answer(d) }))
				o.Letters = tt.letters
				d, _ := start(t, o)
				log.add(tt.changes...)
				time.Sleep(30 * time.Second) // sleep: in the bubble
				synctest.Wait()
				if diff := cmp.Diff(tt.want, sinkSeries(t, o.Registry)); diff != "" {
					t.Errorf("series (-want +got):\n%s", diff)
				}
				books(t, d)
			})
		})
	}
}

// TestLateIsAskedOfChangesAlone: initial states and replays, which are old when
// they are sent, do not count. What was parked meanwhile does.
func TestLateIsAskedOfChangesAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		log := newLog(t)
		o := options(t, log, newRecorder(t, refusesUntil(&well)))
		d, _ := start(t, o)
		log.add("a")
		time.Sleep(30 * time.Second) // sleep: in the bubble
		if s := sinkSeries(t, o.Registry); s["parked_lanes"] != 1 || s["acknowledged_total"] != 0 {
			t.Errorf("series %v, want a parked lane and nothing acknowledged", s)
		}
		well.Store(true)
		time.Sleep(retryMax) // sleep: in the bubble
		want := map[string]float64{"acknowledged_total": 1, "late_total": 1}
		if diff := cmp.Diff(want, sinkSeries(t, o.Registry)); diff != "" {
			t.Errorf("series (-want +got):\n%s", diff)
		}
		log.replay(1)
		log.mu.Lock()
		initial := log.changes[0]
		initial.ID = "a-initial"
		log.put(statesync.Offered{Delivery: statesync.Delivery{Change: initial, Initial: true}})
		log.wakeAll()
		log.mu.Unlock()
		time.Sleep(retryMax) // sleep: in the bubble
		if b := books(t, d); b.Out != 3 {
			t.Errorf("out %d, want 3: the replay and the initial state came", b.Out)
		}
		if diff := cmp.Diff(want, sinkSeries(t, o.Registry)); diff != "" {
			t.Errorf("series after a replay (-want +got):\n%s", diff)
		}
	})
}

// TestARefusalShowsThatTheReceiverIsAlive: for how long it has taken nothing is
// counted from after it.
func TestARefusalShowsThatTheReceiverIsAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newLog(t)
		o := options(t, log, newRecorder(t, func(_ context.Context, d statesync.Delivery, _ int) error {
			if d.Workload.Name == "bad" {
				return errRejected
			}
			return errRefused
		}))
		o.Letters = ParkLetters
		d, _ := start(t, o)
		log.add("bad")
		time.Sleep(10 * time.Minute) // sleep: in the bubble
		if s := sinkSeries(t, o.Registry); s["failing_seconds"] != 0 {
			t.Errorf("series %v, want the sink not to fail: its receiver answers", s)
		}
		log.add("good")
		time.Sleep(20 * time.Second) // sleep: in the bubble
		if s := sinkSeries(t, o.Registry); s["failing_seconds"] != 20 {
			t.Errorf("series %v, want 20 seconds without an answer", s)
		}
		if s := d.Standing(); s.TakesNothing(time.Now()) != 20*time.Second {
			t.Errorf("standing %+v, want 20 seconds without an answer", s)
		}
	})
}

// TestDropsAreShownBeforeThereAreAny, by every reason that the sink may have.
func TestDropsAreShownBeforeThereAreAny(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		filter func(*statesync.Change) bool
		want   []string
	}{
		"without a filter": {nil, []string{"compacted", "dead_letter", "detached", "missing"}},
		"with a filter":    {func(*statesync.Change) bool { return true }, []string{"compacted", "dead_letter", "detached", "filter", "missing"}},
	} {
		o := options(t, newLog(t), newRecorder(t, nil))
		o.Filter = tt.filter
		if _, err := New(o); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range o.Registry.Gather() {
			if f.Desc.Name != "outrider_pipeline_drops_total" {
				continue
			}
			for _, p := range f.Points {
				if got = append(got, p.Tags[len(p.Tags)-1]); p.Value != 0 {
					t.Errorf("%s: %v dropped for %s, want 0", name, p.Value, got[len(got)-1])
				}
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: reasons (-want +got):\n%s", name, diff)
		}
	}
}
