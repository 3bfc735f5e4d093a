package demo

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync/simcluster/scenario"
)

func TestHistoryIsThatOfFiveMinutes(t *testing.T) {
	spike := scenario.Spike{For: 10 * time.Second, Rate: 10_000}
	for _, c := range []struct {
		load Load
		want int
	}{
		{Load{Rate: 1}, 100_000},
		{Load{Rate: 500}, 600_000},
		{Load{Rate: 500, Spikes: []scenario.Spike{spike, spike}}, 1_400_000},
		{Load{Rate: 1_000_000}, 3_000_000},
	} {
		if got := c.load.history(); got != c.want {
			t.Errorf("%+v: %d events, want %d", c.load, got, c.want)
		}
	}
}

func TestLoadAsFlags(t *testing.T) {
	l := Load{Rate: 0.5, Daily: true, Workloads: 7, Seed: 1 << 63, SpikeText: []string{"5/1s", "6/2s@3s"}, Faults: "a.txt"}
	want := []string{"--rate", "0.5", "--workloads", "7", "--seed", "9223372036854775808", "--daily", "--spike", "5/1s", "--spike", "6/2s@3s", "--faults", "a.txt"}
	if diff := cmp.Diff(want, l.args()); diff != "" {
		t.Error(diff)
	}
}
