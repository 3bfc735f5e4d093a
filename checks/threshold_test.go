package checks

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// kept are series by source and name.
type kept map[[2]string][]*rule.Recorded

// Select implements [Series].
func (k kept) Select(source, name string, tags map[string]string) (out []Samples) {
	for id, series := range k {
		if id[1] != name || source != "" && id[0] != source {
			continue
		}
		for _, s := range series {
			matches := true
			for key, value := range tags {
				matches = matches && s.Labels[key] == value
			}
			if matches {
				out = append(out, s)
			}
		}
	}
	return out
}

// began is when the histories of tests begin.
var began = time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC) // Read-only.

// recorded is a series with a sample each step; NaN: it was not there.
func recorded(step time.Duration, tags map[string]string, values ...float64) *rule.Recorded {
	s := &rule.Recorded{Labels: tags}
	for i, v := range values {
		s.Points = append(s.Points, rule.Point{At: began.Add(time.Duration(i) * step), Value: v})
	}
	return s
}

func growing(n int, by float64) (out []float64) {
	for i := range n {
		out = append(out, by*float64(i))
	}
	return out
}

// configured reads the configuration of a kind.
func configured(t *testing.T, text string, into any) error {
	t.Helper()
	_, err := config.Parse("t.yaml", []byte("check: "+text+"\n"), t.TempDir(), config.Options{Sections: map[string]any{"check": into}})
	return err
}

// at is a clock that is set.
type at struct{ time time.Time }

func (a *at) now() time.Time { return a.time }

func thresholdOf(t *testing.T, text string, series Series, clock *at) *threshold {
	t.Helper()
	var c ThresholdConfig
	if err := configured(t, text, &c); err != nil {
		t.Fatal(err)
	}
	checker, err := c.Build(Env{Name: "volume", Now: clock.now, Series: series})
	if err != nil {
		t.Fatal(err)
	}
	return checker.(*threshold)
}

func TestThreshold(t *testing.T) {
	nan := math.NaN()
	tags := func(queue string) map[string]string { return map[string]string{"queue": queue} }
	series := kept{
		{"api", "payments_requests_total"}: {recorded(time.Second, nil, growing(61, 3.25)...)},
		{"api", "young_total"}:             {recorded(time.Second, nil, growing(11, 100)...)},
		{"api", "depth"}:                   {recorded(time.Minute, tags("a"), 5, 120), recorded(time.Minute, tags("b"), 5, 240), recorded(time.Minute, tags("c"), 5, 3), recorded(time.Minute, tags("gone"), 5, nan)},
		{"api", "answer_seconds_p99"}:      {recorded(10*time.Second, nil, 0.1, 0.2, 0.3, 0.4, 0.5, 1.5, 1.5)},
		{"api", "answer_seconds_count"}:    {recorded(10*time.Second, nil, 1)},
		{"db", "used_bytes"}:               {recorded(time.Minute, nil, 123456789, 999999)},
		{"db", "hit_ratio"}:                {recorded(time.Minute, nil, 0.8, 0.2)},
		{"db", "low"}:                      {recorded(time.Minute, nil, -3)},
		{"db", "near"}:                     {recorded(time.Minute, nil, 9.99999)},
	}
	for name, tt := range map[string]struct {
		text   string
		status verdict.Status
		want   string
	}{
		"a floor":                       {`{series: payments_requests_total, rate: 1m, crit: "10:"}`, verdict.Fail, "rate of payments_requests_total over 1m is 3.25/s, want at least 10/s"},
		"a floor that is kept":          {`{series: payments_requests_total, rate: 1m, crit: "3:"}`, verdict.Pass, "rate of payments_requests_total over 1m is 3.25/s"},
		"a warning, with its source":    {`{series: payments_requests_total, source: api, rate: 1m, warn: "5:", crit: "1:"}`, verdict.Warn, "rate of payments_requests_total of api over 1m is 3.25/s, want at least 5/s"},
		"too young":                     {`{series: young_total, rate: 1m, crit: "10:"}`, verdict.Unknown, "rate of young_total over 1m is not known: 11 samples over 10s, want 2 or more over at least 30s"},
		"no such series":                {`{series: nobody_total, match: {a: b}, rate: 1m, crit: "10:"}`, verdict.Unknown, "no series nobody_total{a=b}"},
		"no such tags":                  {`{series: depth, match: {queue: z}, crit: "10"}`, verdict.Unknown, "no series depth{queue=z}, though there are some of that name"},
		"without its ending":            {`{series: payments_requests, rate: 1m, crit: "10:"}`, verdict.Unknown, "no series payments_requests; there is payments_requests_total"},
		"a histogram":                   {`{series: answer_seconds, crit: "1"}`, verdict.Unknown, "no series answer_seconds; it is a histogram, kept as answer_seconds_count, _sum, _p50, _p95, _p99 and _max"},
		"of somebody else":              {`{series: depth, source: db, crit: "1"}`, verdict.Unknown, "no series depth of db; others have it"},
		"each by itself":                {`{series: depth, crit: "100"}`, verdict.Fail, "depth{queue=b} is 240, want at most 100; so is 1 other; 1 of 4 not known"},
		"one of them":                   {`{series: depth, match: {queue: c}, crit: "100"}`, verdict.Pass, "depth{queue=c} is 3"},
		"all of them":                   {`{series: depth, aggregate: sum, crit: "100"}`, verdict.Fail, "depth is 363, want at most 100"},
		"by tag":                        {`{series: depth, aggregate: max, by: [queue], warn: "200"}`, verdict.Warn, "depth{queue=b} is 240, want at most 200; 1 of 4 not known"},
		"what has gone":                 {`{series: depth, match: {queue: gone}, crit: "100"}`, verdict.Unknown, "depth{queue=gone} is not known: it is not there any more"},
		"a quantile":                    {`{series: answer_seconds_p99, quantile: {q: 0.9, window: 1m}, crit: "1"}`, verdict.Fail, "0.9 quantile of answer_seconds_p99 over 1m is 1.5s, want at most 1s"},
		"bytes":                         {`{series: used_bytes, crit: "1000:5000"}`, verdict.Fail, "used_bytes is 999999 bytes, want 1000 to 5000 bytes"},
		"inside":                        {`{series: hit_ratio, crit: "@0.1:0.3"}`, verdict.Fail, "hit_ratio is 0.2, want less than 0.1 or more than 0.3"},
		"below 0":                       {`{series: low, crit: "10"}`, verdict.Fail, "low is -3, want 0 to 10"},
		"as many digits as it takes":    {`{series: near, crit: "10:"}`, verdict.Fail, "near is 9.99999, want at least 10"},
		"a change":                      {`{series: used_bytes, change: {shift: 1m, ratio: true}, crit: "-0.5:"}`, verdict.Fail, "change of used_bytes against 1m earlier is -0.9919, want at least -0.5"},
		"nothing to compare with":       {`{series: used_bytes, change: {shift: 30m}, crit: "-0.5:"}`, verdict.Unknown, "change of used_bytes against 30m earlier is not known: 30m earlier: no sample in 5m"},
		"stale":                         {`{series: young_total, staleness: 30s}`, verdict.Fail, "age of the newest sample of young_total is 50s, want at most 30s"},
		"fresh":                         {`{series: young_total, staleness: 1m}`, verdict.Pass, "age of the newest sample of young_total is 50s"},
		"there":                         {`{series: young_total, absence: 1m}`, verdict.Pass, "young_total is there"},
		"absent, but looked just now":   {`{series: nobody_total, absence: 1m}`, verdict.Unknown, "no sample of nobody_total yet: looked for 0s only"},
		"for: it does not count before": {`{series: depth, match: {queue: a}, crit: "100", for: 5m}`, verdict.Pass, "depth{queue=a} is 120, want at most 100; for 0s, counts after 5m"},
	} {
		t.Run(name, func(t *testing.T) {
			c := thresholdOf(t, tt.text, series, &at{began.Add(time.Minute)})
			got := c.Check(t.Context())
			if got.Status != tt.status || got.Message != tt.want {
				t.Errorf("got  %s %q\nwant %s %q", got.Status, got.Message, tt.status, tt.want)
			}
			if (got.Value == nil) == (got.Status != verdict.Unknown) {
				t.Errorf("value: got %v of %s", got.Value, got.Status)
			}
		})
	}
}

func TestThresholdMeasures(t *testing.T) {
	series := kept{{"api", "wait_seconds"}: {
		recorded(time.Second, map[string]string{"queue": "a", "zone": "eu"}, 2),
		recorded(time.Second, map[string]string{"queue": "b"}, math.NaN()),
	}}
	c := thresholdOf(t, `{series: wait_seconds, warn: "1", crit: "~:5"}`, series, &at{began})
	got := c.Check(t.Context())
	want := []verdict.Measure{{Label: "wait_seconds/a/eu", Value: 2, Unit: "s", Warn: "1", Crit: "~:5"}}
	if diff := cmp.Diff(want, got.Measures); diff != "" || *got.Value != 2 || got.Unit != "seconds" {
		t.Errorf("value %v %s, (-want +got)\n%s", *got.Value, got.Unit, diff)
	}
}

func TestThresholdOverTime(t *testing.T) {
	series := kept{{"api", "depth"}: {recorded(time.Minute, nil, 120, 120, 90, 90, 90, 40)}}
	clock := &at{began}
	text := `{series: depth, crit: "100", crit_clear: "50", for: 1m, keep_for: 1m}`
	c := thresholdOf(t, text, series, clock)
	for i, want := range []string{
		"pass depth is 120, want at most 100; for 0s, counts after 1m",
		"fail depth is 120, want at most 100",
		"fail depth is 90, want at most 50 to recover",
		"fail depth is 90, want at most 50 to recover",
		"fail depth is 90, want at most 50 to recover",
		"fail depth is 40, well again for less than 1m",
		"pass depth is 40",
	} {
		clock.time = began.Add(time.Duration(i) * time.Minute)
		r := c.Check(t.Context())
		if got := r.Status.String() + " " + r.Message; got != want {
			t.Errorf("minute %d: got %q, want %q", i, got, want)
		}
		// A restart between any two of them changes nothing.
		snapshot, err := c.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		c = thresholdOf(t, text, series, clock)
		if err := c.Restore(snapshot); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Restore([]byte("{")); err == nil || !strings.Contains(err.Error(), "restore threshold volume") {
		t.Errorf("got %v, want an error that names the check", err)
	}
}

func TestThresholdWithoutTimeLeft(t *testing.T) {
	series := kept{{"api", "depth"}: {recorded(time.Minute, nil, 120)}}
	c := thresholdOf(t, `{series: depth, crit: "100"}`, series, &at{began})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := c.Check(ctx); got.Status != verdict.Unknown || got.Message != "reading 1 series of depth: context canceled" {
		t.Errorf("got %s %q", got.Status, got.Message)
	}
	if got := c.Check(t.Context()); got.Status != verdict.Fail {
		t.Errorf("afterwards: got %s %q, want fail", got.Status, got.Message)
	}
	c.series = nil
	if got := c.Check(t.Context()); got.Status != verdict.Unknown || !strings.Contains(got.Message, "no series are kept") {
		t.Errorf("without a history: got %s %q", got.Status, got.Message)
	}
}

func TestThresholdConfig(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:          "check.series: got nothing",
		`{series: x}`: "check: got neither warn nor crit, want a range",
		`{series: x, rate: 1m, quantile: {q: 1}, crit: "1"}`:             "check.quantile: got rate and quantile, want one of level, rate",
		`{series: x, rate: -1m, crit: "1"}`:                              "check.rate: got -1m0s, want more than 0",
		`{series: x, quantile: {q: 99}, crit: "1"}`:                      "check.quantile.q: got 99, want 0 to 1",
		`{series: x, quantile: {q: 0.9, window: -1s}, crit: "1"}`:        "check.quantile.window: got -1s",
		`{series: x, change: {shift: -1m}, crit: "1"}`:                   "check.change.shift: got -1m0s",
		`{series: x, change: {shift: 23h, window: 2h}, crit: "1"}`:       "check.change: got 25h0m0s in all, want 24h at most",
		`{series: x, absence: 1m, crit: "1"}`:                            "check.crit: got 1, want no range with absence",
		`{series: x, absence: 1m, by: [a]}`:                              "check.absence: got aggregate or by, want neither",
		`{series: x, crit: "20:10"}`:                                     "check.crit: got",
		`{series: x, crit: "10", crit_clear: "20"}`:                      "check.crit_clear: got 20, want a range within crit, which is 10",
		`{series: x, crit: "10", aggregate: median}`:                     "check.aggregate: got median, want sum, min, max",
		`{series: x, crit: "10", for: -1s}`:                              "check.for: got -1s",
		`{series: x, absence: 1m}`:                                       "",
		`{series: x, staleness: 1m, aggregate: min}`:                     "",
		`{series: x, level: 1m, match: {a: b}, warn: "5", crit: "~:10"}`: "",
	} {
		var c ThresholdConfig
		err := configured(t, text, &c)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(strings.ReplaceAll(err.Error(), `"`, ""), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
