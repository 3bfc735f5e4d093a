package datadog

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/metrics"
)

func TestNamesAreThoseOfTheOpenMetricsCheck(t *testing.T) {
	for name, tt := range map[string]struct {
		desc metrics.Desc
		want string
	}{
		"a counter":                           {metrics.Desc{Name: "a_b_total", Datadog: "a.b", Type: metrics.CounterType}, "a.b.count"},
		"a counter without a name of its own": {metrics.Desc{Name: "a_b_total", Type: metrics.CounterType}, "a_b.count"},
		"a neighbour's counter":               {metrics.Desc{Name: "a_total", Datadog: "a.count", Type: metrics.CounterType}, "a.count"},
		"the sum of a neighbour's summary":    {metrics.Desc{Name: "a_sum", Datadog: "a.sum", Type: metrics.CounterType}, "a.sum"},
		"what a program sent":                 {metrics.Desc{Name: "hits_total", Datadog: "web.hits", Type: metrics.CounterType}, "web.hits"},
		"a gauge":                             {metrics.Desc{Name: "a", Datadog: "a.b:c", Type: metrics.GaugeType}, "a.b_c"},
		"a histogram":                         {metrics.Desc{Name: "a_seconds", Datadog: "a", Type: metrics.HistogramType}, "a"},
	} {
		if got := nameOf(&tt.desc, strings.HasPrefix(name, "what")); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

// TestATimerArrivesInTheUnitInWhichItWasSent holds that what a program's dashboards
// look for does not change a thousandfold, and that nothing else does.
func TestATimerArrivesInTheUnitInWhichItWasSent(t *testing.T) {
	sent := metrics.Desc{Name: "db_query_seconds", Datadog: "db.query", Type: metrics.HistogramType, Unit: "seconds", SentUnit: "milliseconds"}
	inSeconds := sent
	inSeconds.SentUnit = ""
	var h metrics.Histogram
	for range 3 {
		h.Observe(0.037)
	}
	h.Observe(-0.037)
	for name, tt := range map[string]struct {
		desc     metrics.Desc
		verbatim bool
		want     float64
	}{
		"a program's timer":                     {sent, true, 37},
		"a program's histogram of seconds":      {inSeconds, true, 0.037},
		"a timer in a feed that is not as sent": {sent, false, 0.037},
	} {
		e, got := &Exporter{samples: defaultSamples}, map[float64]uint64{}
		r := exporters.Reading{Desc: &tt.desc, Verbatim: tt.verbatim, Since: h.Snapshot(), Known: true}
		e.Encode(&r, func(ref any, value float64, times uint64) {
			if s, ok := ref.(*series); !ok || s.name != "db.query" {
				t.Errorf("%s: %+v, want db.query", name, ref)
			}
			got[math.Copysign(tt.want, value)] = times
			if off := math.Abs(math.Abs(value)/tt.want - 1); off > 0.0055 {
				t.Errorf("%s: value %v, want %v within 0.55 %%", name, value, tt.want)
			}
		})
		if diff := cmp.Diff(map[float64]uint64{tt.want: 3, -tt.want: 1}, got); diff != "" {
			t.Errorf("%s: times (-want +got):\n%s", name, diff)
		}
	}
}

// The Agent cuts 1/rate off to a whole number.
func TestRatesCountTrue(t *testing.T) {
	for n := uint64(1); n < 3_000_000; n += 1 + n/1000 {
		rate, err := strconv.ParseFloat(strconv.FormatFloat(rateOf(n), 'f', -1, 64), 64)
		if err != nil || uint64(1/rate) != n || rate > 1 {
			t.Fatalf("%d times: rate %g counts %d times", n, rate, uint64(1/rate))
		}
	}
	if got := uint64(1 / rateOf(mostTimes)); got != mostTimes {
		t.Errorf("%d times, want %d", got, mostTimes)
	}
}

func TestSamplesOfAHistogram(t *testing.T) {
	var ours metrics.Histogram
	for i := range 100_000 {
		ours.Observe(math.Exp2(float64(i%4000)/200 - 10))
		ours.Observe(-1 - float64(i%100))
		ours.Observe(0)
	}
	exponential := ours.Snapshot()
	bounds := metrics.HistogramSnapshot{Bounds: []float64{-1, 1, 4}, Counts: []uint64{1, 2, 3, mostTimes*2 + 4}, Count: mostTimes*2 + 10}
	for name, tt := range map[string]struct {
		h    metrics.HistogramSnapshot
		most int
		off  float64
	}{
		"fine":   {exponential, 10_000, 0.0055},
		"coarse": {exponential, 100, 0.2},
		"few":    {exponential, 6, math.Inf(1)},
		"bounds": {bounds, 1, math.Inf(1)},
	} {
		t.Run(name, func(t *testing.T) {
			var n uint64
			var values int
			last := math.Inf(-1)
			var median float64
			samples(tt.h, tt.most, func(value float64, times uint64) {
				if value < last || times > mostTimes || times == 0 {
					t.Errorf("value %g %d times after %g", value, times, last)
				}
				if n < tt.h.Count*4/5 && n+times >= tt.h.Count*4/5 {
					median = value
				}
				last, n, values = value, n+times, values+1
			})
			if n != tt.h.Count {
				t.Errorf("counts %d, want %d", n, tt.h.Count)
			}
			if values > tt.most+1 && tt.h.Bounds == nil {
				t.Errorf("%d values, want %d at most, and the zero", values, tt.most)
			}
			if want := tt.h.Quantile(0.8); math.Abs(median/want-1) > tt.off {
				t.Errorf("quantile 0.8 is %g, want %g within %g", median, want, tt.off)
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a:b|c,d\ne@f#g\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, without := range []string{metricName, tagName, tagValue, checkText, eventText} {
			if got := clean(s, without); strings.ContainsAny(got, without) || clean(got, without) != got {
				t.Errorf("%q became %q, which has one of %q", s, got, without)
			}
		}
	})
}
