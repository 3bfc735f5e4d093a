package collectors

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics"
)

// figuresOf are the series of families, a line each.
func figuresOf(fams []metrics.Family) (out []string) {
	for _, f := range fams {
		for _, p := range f.Points {
			out = append(out, fmt.Sprintf("%s{%s} %v", strings.TrimPrefix(f.Desc.Name, "outrider_"), strings.Join(p.Tags, " "), p.Value))
		}
	}
	return out
}

func TestSelectionOfPipelines(t *testing.T) {
	orders := metrics.PipelineSnapshot{Service: "api", Name: "orders"}
	watch := metrics.PipelineSnapshot{Name: "watch", Target: "pods"}
	for _, tt := range []struct {
		patterns      string
		orders, watch bool
	}{
		{"", true, true},
		{"orders", true, false},
		{"*", true, true},
		{"watch", false, true},
		{"watch/pods", false, true},
		{"watch/jobs", false, false},
		{"watch/*", false, true},
		{"api:*", true, false},
		{":watch", false, true},
		{"other:orders", false, false},
		{"jobs,ord*", true, false},
	} {
		s := &PipelineSelection{Pipelines: strings.FieldsFunc(tt.patterns, func(r rune) bool { return r == ',' })}
		if o, w := s.takes(orders), s.takes(watch); o != tt.orders || w != tt.watch {
			t.Errorf("%q: takes orders %t, watch %t; want %t, %t", tt.patterns, o, w, tt.orders, tt.watch)
		}
	}
	for _, tt := range []struct {
		s    PipelineSelection
		want string
	}{
		{PipelineSelection{Pipelines: []string{"ok", "[a"}}, `pipelines[1]: got "[a", want a pattern`},
		{PipelineSelection{By: []string{"host"}}, "by[0]: got host, want one of service, pipeline, target, unit"},
	} {
		if err := tt.s.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %s", tt.s, err, tt.want)
		}
	}
}

func TestAggregates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipes := []metrics.PipelineSnapshot{
			{Name: "delivery", Target: "a", Unit: "changes", In: 100, Out: 100, Queued: 1, Dropped: map[string]int64{"old": 5}, Retries: map[string]int64{"5xx": 2}},
			{Name: "delivery", Target: "b", Unit: "changes", In: 10, Out: 10, Queued: 3},
			{Service: "api", Name: "orders", Unit: "orders", In: 7, Out: 7, Unknown: metrics.QueuedTerm},
		}
		var mu sync.Mutex
		env := Env{Name: "all", Now: time.Now, Pipelines: func() []metrics.PipelineSnapshot {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(pipes)
		}}
		by := PipelineSelection{By: []string{"pipeline", "service"}}
		var kinds []Collector
		for _, b := range []Builder{&ThroughputConfig{by}, &RetriesConfig{by}, &DropsConfig{by}, &QueueDepthConfig{by}} {
			c, err := b.Build(env)
			if err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, c)
		}
		collect := func() (out []string) {
			for _, c := range kinds {
				fams, err := c.Collect(t.Context())
				if err != nil {
					t.Error(err)
				}
				out = append(out, figuresOf(fams)...)
			}
			return out
		}
		want := []string{
			"queue_depth{all  delivery} 4", "queue_depth_max{all  delivery} 4", "queue_depth_min{all  delivery} 4", "queue_depth_p95{all  delivery} 4",
		}
		if diff := cmp.Diff(want, collect()); diff != "" {
			t.Errorf("at first (-want +got):\n%s", diff)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = kinds[3].(Runner).Run(ctx) }()
		time.Sleep(4*time.Second + 500*time.Millisecond)
		mu.Lock()
		pipes = []metrics.PipelineSnapshot{
			{Name: "delivery", Target: "a", Unit: "changes", In: 140, Out: 120, Queued: 20, Dropped: map[string]int64{"old": 6, "new": 9}, Retries: map[string]int64{"5xx": 12}},
			{Name: "delivery", Target: "b", Unit: "changes", In: 20, Out: 12, Queued: 9},
			{Service: "api", Name: "orders", Unit: "orders", In: 5, Out: 2, Unknown: metrics.QueuedTerm}, // begun anew
		}
		mu.Unlock()
		time.Sleep(5*time.Second + 500*time.Millisecond)
		synctest.Wait()
		mu.Lock()
		pipes[0].Queued = 2
		mu.Unlock()
		want = []string{
			"throughput_in_rate{all  delivery} 5", "throughput_in_rate{all api orders} 0.5",
			"throughput_out_rate{all  delivery} 2.2", "throughput_out_rate{all api orders} 0.2",
			"retries_rate{all  delivery 5xx} 1",
			"drops_rate{all  delivery new} 0.9", "drops_rate{all  delivery old} 0.1",
			"queue_depth{all  delivery} 11", "queue_depth_max{all  delivery} 29", "queue_depth_min{all  delivery} 4", "queue_depth_p95{all  delivery} 29",
		}
		if diff := cmp.Diff(want, collect()); diff != "" {
			t.Errorf("after ten seconds (-want +got):\n%s", diff)
		}
		cancel()
	})
}
