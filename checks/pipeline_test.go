package checks

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

// pipelines are what a check of pipelines sees.
type pipelines struct {
	at
	all []metrics.PipelineSnapshot
}

func (p *pipelines) check(t *testing.T, text string) Checker {
	t.Helper()
	var c PipelineConfig
	if err := configured(t, text, &c); err != nil {
		t.Fatal(err)
	}
	checker, err := c.Build(Env{Name: "books", Now: p.now, Pipelines: func() []metrics.PipelineSnapshot { return p.all }})
	if err != nil {
		t.Fatal(err)
	}
	return checker
}

func books(name string, in, out, queued int64) metrics.PipelineSnapshot {
	return metrics.PipelineSnapshot{Name: name, Unit: "changes", In: in, Out: out, Queued: queued}
}

func TestPipeline(t *testing.T) {
	dropped := func(p metrics.PipelineSnapshot, n ...int64) metrics.PipelineSnapshot {
		p.Dropped = map[string]int64{}
		for i, n := range n {
			p.Dropped[fmt.Sprintf("reason%d", i)] = n
			p.In += n
		}
		return p
	}
	oldest := func(p metrics.PipelineSnapshot, after time.Duration) metrics.PipelineSnapshot {
		p.Oldest = began.Add(after)
		return p
	}
	tolerant := func(p metrics.PipelineSnapshot, service string, tolerance int64) metrics.PipelineSnapshot {
		p.Service, p.Tolerance = service, tolerance
		return p
	}
	unknown := func(p metrics.PipelineSnapshot, terms metrics.Terms) metrics.PipelineSnapshot {
		p.Unknown = terms
		return p
	}
	for name, tt := range map[string]struct {
		text  string
		looks []metrics.PipelineSnapshot // one a minute
		want  string                     // of the last
	}{
		"well":                             {`{}`, []metrics.PipelineSnapshot{books("a", 5, 3, 2)}, "pass a is well, 2 wait"},
		"off once":                         {`{}`, []metrics.PipelineSnapshot{books("a", 5, 3, 1)}, "pass a is well, 1 wait"},
		"off, not long enough":             {`{}`, []metrics.PipelineSnapshot{books("a", 5, 3, 1), books("a", 5, 3, 1)}, "pass a is well, 1 wait"},
		"off":                              {`{}`, []metrics.PipelineSnapshot{books("a", 5, 3, 1), books("a", 5, 3, 1), books("a", 6, 3, 1)}, "fail a: balance is 2 changes since 2026-11-02T08:00:00Z, want 0"},
		"off, but not all the time":        {`{}`, []metrics.PipelineSnapshot{books("a", 5, 3, 1), books("a", 5, 3, 2), books("a", 5, 3, 1), books("a", 5, 3, 1)}, "pass a is well, 1 wait"},
		"off within what reads explain":    {`{}`, []metrics.PipelineSnapshot{tolerant(books("a", 5, 3, 1), "api", 1), tolerant(books("a", 5, 3, 1), "api", 1), tolerant(books("a", 5, 3, 1), "api", 1)}, "pass api:a is well, 1 wait"},
		"off by more":                      {`{}`, []metrics.PipelineSnapshot{tolerant(books("a", 5, 3, 0), "api", 1), tolerant(books("a", 5, 3, 0), "api", 1), tolerant(books("a", 5, 3, 4), "api", 1)}, "fail api:a: balance is -2 changes since 2026-11-02T08:00:00Z, want 0, give or take 1"},
		"two looks, however short":         {`{balance_for: 0s}`, []metrics.PipelineSnapshot{books("a", 5, 3, 1), books("a", 5, 3, 1)}, "fail a: balance is 1 changes since 2026-11-02T08:00:00Z, want 0"},
		"one look, however short":          {`{balance_for: 0s}`, []metrics.PipelineSnapshot{books("a", 5, 3, 1)}, "pass a is well, 1 wait"},
		"given up, and so it shrinks":      {`{stuck: 2m, drops: {warn: "~:"}}`, []metrics.PipelineSnapshot{books("a", 8, 3, 5), dropped(books("a", 7, 3, 4), 1), dropped(books("a", 6, 3, 3), 2)}, "pass a is well, 3 wait"},
		"an old one":                       {`{}`, []metrics.PipelineSnapshot{oldest(books("a", 5, 3, 2), 0), oldest(books("a", 5, 3, 2), 0), oldest(books("a", 6, 4, 2), 0)}, "warn a: the oldest of 2 changes waits for 2m, want at most 1m"},
		"a very old one":                   {`{oldest: {crit: 90s}}`, []metrics.PipelineSnapshot{oldest(books("a", 5, 3, 2), 0), oldest(books("a", 5, 3, 2), 0), oldest(books("a", 6, 4, 2), 0)}, "fail a: the oldest of 2 changes waits for 2m, want at most 1m30s"},
		"an old one that may be":           {`{oldest: {warn: 0s, crit: 0s}}`, []metrics.PipelineSnapshot{oldest(books("a", 5, 3, 2), 0), oldest(books("a", 5, 3, 2), 0), oldest(books("a", 6, 4, 2), 0)}, "pass a is well, 2 wait"},
		"stuck":                            {`{stuck: 2m}`, []metrics.PipelineSnapshot{books("a", 5, 3, 2), books("a", 6, 3, 3), books("a", 7, 3, 4)}, "fail a: stuck: nothing went out for 2m, and 4 changes wait, 2 then"},
		"stuck at its bound":               {`{stuck: 2m}`, []metrics.PipelineSnapshot{books("a", 5, 3, 2), books("a", 5, 3, 2), books("a", 5, 3, 2)}, "fail a: stuck: nothing went out for 2m, and 2 changes wait, 2 then"},
		"slow is not stuck":                {`{stuck: 2m}`, []metrics.PipelineSnapshot{books("a", 5, 3, 2), books("a", 7, 4, 3), books("a", 8, 4, 4)}, "pass a is well, 4 wait"},
		"not stuck for long enough":        {`{stuck: 3m}`, []metrics.PipelineSnapshot{books("a", 5, 3, 2), books("a", 6, 3, 3), books("a", 7, 3, 4)}, "pass a is well, 4 wait"},
		"was empty meanwhile":              {`{stuck: 2m}`, []metrics.PipelineSnapshot{books("a", 5, 3, 2), dropped(books("a", 3, 3, 0), 0), books("a", 7, 3, 4)}, "pass a is well, 4 wait"},
		"stuck does not matter":            {`{stuck: 0s}`, []metrics.PipelineSnapshot{books("a", 5, 3, 2), books("a", 5, 3, 2)}, "pass a is well, 2 wait"},
		"drops of before are no news":      {`{}`, []metrics.PipelineSnapshot{dropped(books("a", 5, 3, 2), 7), dropped(books("a", 5, 3, 2), 7)}, "pass a is well, 2 wait"},
		"drops":                            {`{}`, []metrics.PipelineSnapshot{dropped(books("a", 5, 3, 2), 7), dropped(books("a", 5, 3, 2), 7, 9, 1, 1, 1)}, "warn a: 12 changes dropped in 5m (reason1 9, reason2 1, reason3 1, and 1 more), want 0"},
		"too many drops":                   {`{drops: {over: 1m, crit: "10"}}`, []metrics.PipelineSnapshot{dropped(books("a", 5, 3, 2), 7), dropped(books("a", 5, 3, 2), 18)}, "fail a: 11 changes dropped in 1m (reason0 11), want at most 10"},
		"drops that may be":                {`{drops: {warn: "~:"}}`, []metrics.PipelineSnapshot{dropped(books("a", 5, 3, 2), 7), dropped(books("a", 5, 3, 2), 18)}, "pass a is well, 2 wait"},
		"drops after it began anew":        {`{}`, []metrics.PipelineSnapshot{dropped(books("a", 5, 3, 2), 7), dropped(books("a", 2, 1, 1), 3)}, "warn a: 3 changes dropped in 5m (reason0 3), want 0"},
		"drops of long ago":                {`{drops: {over: 1m}}`, []metrics.PipelineSnapshot{dropped(books("a", 5, 3, 2), 7), dropped(books("a", 5, 3, 2), 8), dropped(books("a", 6, 4, 2), 8)}, "pass a is well, 2 wait"},
		"terms that nobody knows":          {`{}`, []metrics.PipelineSnapshot{unknown(books("a", 5, 0, 9), metrics.OutTerm|metrics.DroppedTerm|metrics.OldestTerm)}, "pass a is well, 9 wait; not known: a balance (no out, drops) and oldest"},
		"no look at what is not known":     {`{stuck: 1m, balance_for: 0s}`, []metrics.PipelineSnapshot{unknown(books("a", 5, 0, 9), metrics.OutTerm), unknown(books("a", 5, 0, 9), metrics.OutTerm)}, "pass a is well, 9 wait; not known: a balance (no out)"},
		"all reasons, the worst one first": {`{stuck: 1m}`, []metrics.PipelineSnapshot{oldest(books("a", 5, 3, 2), -3*time.Minute), oldest(books("a", 5, 3, 2), -3*time.Minute)}, "fail a: stuck: nothing went out for 1m, and 2 changes wait, 2 then; the oldest of 2 changes waits for 4m, want at most 1m"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pipelines{}
			c := p.check(t, tt.text)
			var r verdict.Result
			for i, look := range tt.looks {
				p.time, p.all = began.Add(time.Duration(i)*time.Minute), []metrics.PipelineSnapshot{look}
				r = c.Check(t.Context())
			}
			if got := r.Status.String() + " " + r.Message; got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestPipelineNamesTheWorst(t *testing.T) {
	p := &pipelines{at: at{began}}
	for _, name := range []string{"a", "b", "c", "d"} {
		s := books(name, 2, 1, 1)
		s.Service, s.Target, s.Oldest = "api", "x", began
		p.all = append(p.all, s)
	}
	p.all = append(p.all, books("mine", 1, 1, 0))
	p.all[2].Oldest = began.Add(-time.Hour)
	c := p.check(t, `{pipelines: ["api:*/x", "mine"]}`)
	p.time = began.Add(2 * time.Minute)
	got := c.Check(t.Context())
	want := "api:c/x: the oldest of 1 changes waits for 1h2m, want at most 5m; 3 others of 5 are not well"
	if got.Message != want || got.Status != verdict.Fail || *got.Value != 4 {
		t.Errorf("got %s %q, want %q", got.Status, got.Message, want)
	}
	measures := []verdict.Measure{{Label: "queued", Value: 4}, {Label: "oldest", Value: 3720, Unit: "s", Warn: "60", Crit: "300"}, {Label: "drops"}}
	if diff := cmp.Diff(measures, got.Measures); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestPipelineSelection(t *testing.T) {
	p := &pipelines{at: at{began}}
	for _, id := range []pipelineID{{"", "watch", "pods"}, {"", "delivery", "hook"}, {"api", "orders", ""}, {"db", "orders", ""}} {
		p.all = append(p.all, metrics.PipelineSnapshot{Service: id.service, Name: id.name, Target: id.target})
	}
	for patterns, want := range map[string]string{
		`[]`:                  "4 pipelines are well, 0 items wait",
		`[orders]`:            "2 pipelines are well, 0 items wait",
		`["api:orders"]`:      "api:orders is well, 0 wait",
		`["*:orders", watch]`: "3 pipelines are well, 0 items wait",
		`["watch/p*"]`:        "watch/pods is well, 0 wait",
		`["watch/q*"]`:        "no pipeline is watch/q*; there are watch/pods, delivery/hook, api:orders, db:orders",
		`[a, "b:c"]`:          "no pipeline is a or b:c; there are watch/pods, delivery/hook, api:orders, db:orders",
	} {
		if got := p.check(t, "{pipelines: "+patterns+"}").Check(t.Context()); got.Message != want {
			t.Errorf("%s: got %q, want %q", patterns, got.Message, want)
		}
	}
	p.all = nil
	if got := p.check(t, "{}").Check(t.Context()); got.Status != verdict.Unknown || got.Message != "there are no pipelines" {
		t.Errorf("got %s %q", got.Status, got.Message)
	}
}

func TestPipelineRemembersLittle(t *testing.T) {
	p := &pipelines{}
	c := p.check(t, `{stuck: 5m}`).(*pipelineCheck)
	const n = 20_000
	for i := range n {
		p.time = began.Add(time.Duration(i) * 100 * time.Millisecond)
		p.all = []metrics.PipelineSnapshot{books(fmt.Sprint("old", i/1000), 1, 1, 0), books("a", int64(i)+3, 3, int64(i))}
		c.Check(t.Context())
	}
	if len(c.seen) != 2 {
		t.Errorf("got %d pipelines, want the 2 that there are", len(c.seen))
	}
	if got := len(c.seen[pipelineID{name: "a"}].looks); got < maxLooks/2 || got > maxLooks+5 {
		t.Errorf("got %d looks, want about %d", got, maxLooks)
	}
	if got := c.Check(t.Context()); !strings.HasPrefix(got.Message, "a: stuck: nothing went out for 5m") {
		t.Errorf("got %q, want it to be stuck for 5m", got.Message)
	}
}

func TestPipelineConfig(t *testing.T) {
	for text, want := range map[string]string{
		`{pipelines: ["a[", b]}`:              "check.pipelines[0]: got a[, want a pattern",
		`{stuck: 2h}`:                         "check.stuck: got 2h0m0s, want 0s to 1h",
		`{balance_for: -1s}`:                  "check.balance_for: got -1s, want 0s to 1h",
		`{oldest: {warn: 1h}}`:                "check.oldest.warn: got 1h0m0s, want at most crit, which is 5m",
		`{oldest: {warn: -1s}}`:               "check.oldest.warn: got -1s, want 0s or more",
		`{drops: {over: 0s}}`:                 "check.drops.over: got 0s, want 1s to 1h",
		`{drops: {warn: "a"}}`:                "check.drops.warn: got a",
		`{oldest: {warn: 0s, crit: 1h}}`:      "",
		`{oldest: {crit: 0s}, pipelines: []}`: "",
	} {
		var c PipelineConfig
		err := configured(t, text, &c)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(strings.ReplaceAll(err.Error(), `"`, ""), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
