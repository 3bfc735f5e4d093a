package exporters

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// recorder is an exporter whose other side the test plays.
type recorder struct {
	batch int
	send  func(ctx context.Context, points []Point) (Sent, error) // nil: takes everything

	mu    sync.Mutex
	got   []Point
	tries []time.Time
}

type recorderConfig struct{ *recorder }

func (c recorderConfig) Build(Env) (Exporter, error) { return c.recorder, nil }

func (r *recorder) Batch() int { return max(r.batch, 1) }

func (r *recorder) Encode(x *Reading, emit func(ref any, value float64, times uint64)) {
	if x.State == nil {
		name := x.Desc.Name
		for _, t := range x.Tags {
			name += "," + t.Name + "=" + t.Value
		}
		x.State = name
	}
	switch {
	case x.Desc.Type == metrics.GaugeType:
		emit(x.State, x.Value, 1)
	case x.Known && x.Hist != nil:
		emit(x.State, float64(x.Since.Count), x.Since.Count)
	case x.Known:
		emit(x.State, x.Grown, 1)
	}
}

func (r *recorder) Send(ctx context.Context, points []Point) (Sent, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries = append(r.tries, time.Now())
	sent, err := Sent{Out: len(points)}, error(nil)
	if r.send != nil {
		sent, err = r.send(ctx, points)
	}
	r.got = append(r.got, points[:sent.Out]...)
	return sent, err
}

func (r *recorder) sums() map[string]float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	sums := map[string]float64{}
	for _, p := range r.got {
		sums[p.Ref.(string)] += p.Value
	}
	return sums
}

// source is a Source of a test.
type source func() []metrics.Family

func (s source) Gather() []metrics.Family { return s() }

func family(name string, t metrics.Type, values ...float64) metrics.Family {
	f := metrics.Family{Desc: metrics.Desc{Name: name, Type: t, Tags: []string{"n"}}}
	for i, v := range values {
		f.Points = append(f.Points, metrics.Point{Tags: []string{fmt.Sprint(i)}, Value: v})
	}
	return f
}

func gauges(n int) source {
	return func() []metrics.Family {
		return []metrics.Family{family("g", metrics.GaugeType, make([]float64, n)...)}
	}
}

func epoch() time.Time { return time.Unix(0, 0) }

func newPush(t *testing.T, reg *metrics.Registry, r *recorder, o PushOptions) *Push {
	t.Helper()
	o.Name, o.Kind, o.Metrics = "test", recorderConfig{r}, reg.Group()
	p, err := NewPush(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs the exporter for a while, in a bubble.
func run(t *testing.T, p *Push, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func books(t *testing.T, reg *metrics.Registry) metrics.PipelineSnapshot {
	t.Helper()
	all := reg.Pipelines()
	if len(all) != 1 {
		t.Fatalf("got %d pipelines, want 1", len(all))
	}
	if balance, ok := all[0].Balance(); !ok || balance != 0 {
		t.Errorf("balance %d, known %t, of %+v, want 0", balance, ok, all[0])
	}
	return all[0]
}

func TestSelectorChoosesByName(t *testing.T) {
	for _, tt := range []struct {
		series Selector
		name   string
		want   bool
	}{
		{nil, "a", true},
		{Selector{"outrider_*"}, "outrider_x", true},
		{Selector{"outrider_*"}, "other", false},
		{Selector{"outrider_*", "other"}, "other", true},
		{Selector{"!*_bytes"}, "a_total", true},
		{Selector{"!*_bytes"}, "a_bytes", false},
		{Selector{"!a_b*", "a_*"}, "a_bytes", false},
		{Selector{"a_*", "!a_b*"}, "a_bytes", false},
		{Selector{"a_*", "!a_b*"}, "a_c", true},
	} {
		if got := tt.series.Match(tt.name); got != tt.want {
			t.Errorf("%q matches %s: %t, want %t", tt.series, tt.name, got, tt.want)
		}
	}
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	c := Config{Every: time.Millisecond, Series: Selector{"a*", "[", "!"}, Queue: 1, MaxAge: 0}
	err := c.Validate()
	for _, want := range []string{
		`series[1]: got "[", want a glob`, `series[2]: got "!"`, "every: got 1ms, want 1s to 1h",
		"queue: got 1, want 1000 to 10000000 points", "max_age: got 0s, want at least every, which is 1ms",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if err := (&Config{Every: defaultEvery, Queue: defaultQueue, MaxAge: defaultMaxAge}).Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
}

func TestSumsOfCountersAreExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, r := metricstest.Registry(t), &recorder{batch: 7}
		var own, theirs float64 = 5, 1e9
		feed := func(name string, v *float64) source {
			return func() []metrics.Family {
				*v += 3
				return []metrics.Family{family(name, metrics.CounterType, *v)}
			}
		}
		p := newPush(t, reg, r, PushOptions{Feeds: func() []Feed {
			return []Feed{
				{Source: feed("own", &own), FromZero: true},
				{Source: feed("theirs", &theirs), Tags: map[string]string{"service": "api"}},
			}
		}})
		run(t, p, time.Minute+time.Millisecond)
		want := map[string]float64{"own,n=0": own, "theirs,n=0,service=api": theirs - 1e9 - 3}
		if diff := cmp.Diff(want, r.sums()); diff != "" {
			t.Errorf("sums (-want +got):\n%s", diff)
		}
		if b := books(t, reg); b.In != 8+7 || b.Out != b.In {
			t.Errorf("in %d, out %d, want 15: eight readings of one, seven of the other", b.In, b.Out)
		}
	})
}

// Readings of one table, each the counters that are there, and what they have
// grown by.
func TestGrowthOfCounters(t *testing.T) {
	type reading map[string]float64
	for name, tt := range map[string]struct {
		fromZero bool
		readings []reading
		want     []reading
	}{
		"that were there before":           {false, []reading{{"a": 100}, {"a": 103}}, []reading{{}, {"a": 3}}},
		"of this process":                  {true, []reading{{"a": 100}, {"a": 103}}, []reading{{"a": 100}, {"a": 3}}},
		"new in a metric that was there":   {false, []reading{{"a": 1}, {"a": 1, "b": 7}}, []reading{{}, {"a": 0, "b": 7}}},
		"that begin anew":                  {false, []reading{{"a": 100}, {"a": 4}, {"a": 5}}, []reading{{}, {"a": 4}, {"a": 1}}},
		"that were away":                   {false, []reading{{"a": 100}, {}, {"a": 102}}, []reading{{}, {}, {"a": 2}}},
		"that are no number for a while":   {true, []reading{{"a": 2}, {"a": math.NaN()}, {"a": 5}}, []reading{{"a": 2}, {}, {"a": 3}}},
		"that are infinite from the start": {true, []reading{{"a": math.Inf(1)}, {"a": 5}}, []reading{{}, {"a": 5}}},
	} {
		t.Run(name, func(t *testing.T) {
			reg, r := metricstest.Registry(t), &recorder{batch: 100}
			var now reading
			p := newPush(t, reg, r, PushOptions{Now: epoch, Feeds: func() []Feed {
				return []Feed{{FromZero: tt.fromZero, Source: source(func() []metrics.Family {
					f := metrics.Family{Desc: metrics.Desc{Name: "c", Type: metrics.CounterType, Tags: []string{"n", "none"}}}
					for _, tag := range []string{"a", "b"} {
						if v, ok := now[tag]; ok {
							f.Points = append(f.Points, metrics.Point{Tags: []string{tag, ""}, Value: v})
						}
					}
					if f.Points == nil {
						return nil
					}
					return []metrics.Family{f}
				})}}
			}})
			for i, values := range tt.readings {
				now, r.got = values, nil
				p.read(time.Unix(int64(i), 0))
				if _, f := p.send(t.Context()); f != nil {
					t.Fatal(f)
				}
				got := reading{}
				for name, v := range r.sums() {
					got[strings.TrimPrefix(name, "c,n=")] = v
				}
				if diff := cmp.Diff(tt.want[i], got); diff != "" {
					t.Errorf("reading %d (-want +got):\n%s", i, diff)
				}
			}
			books(t, reg)
		})
	}
}

// TestAnotherPushGoesOn: what has been given away is not given again, and what
// waits is sent by the other one where it is of the same kind.
func TestAnotherPushGoesOn(t *testing.T) {
	for name, tt := range map[string]struct {
		kind    Builder
		sum     float64
		dropped int64
	}{
		"of one kind": {nil, 42, 0},
		"of another":  {otherConfig{}, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			v := 40.0
			feeds := func() []Feed {
				return []Feed{{FromZero: true, Source: source(func() []metrics.Family {
					return []metrics.Family{family("c", metrics.CounterType, v)}
				})}}
			}
			reg, r := metricstest.Registry(t), &recorder{}
			old := newPush(t, reg, &recorder{}, PushOptions{Now: epoch, Feeds: feeds})
			old.read(time.Unix(1, 0))
			other := tt.kind
			if other == nil {
				other = recorderConfig{r}
			} else {
				other = otherConfig{r}
			}
			p, err := NewPush(PushOptions{Name: "test", Kind: other, Now: epoch, Feeds: feeds, After: old})
			if err != nil {
				t.Fatal(err)
			}
			v = 42
			p.read(time.Unix(2, 0))
			for p.try(t.Context()) > 0 {
			}
			if got := r.sums()["c,n=0"]; got != tt.sum {
				t.Errorf("got %g, want %g", got, tt.sum)
			}
			if s := books(t, reg); s.In != 2 || s.Dropped["stopped"] != tt.dropped {
				t.Errorf("%+v: want 2 in, %d dropped", s, tt.dropped)
			}
		})
	}
}

// otherConfig makes an exporter of another type.
type otherConfig struct{ *recorder }

func (c otherConfig) Build(Env) (Exporter, error) { return &struct{ *recorder }{c.recorder}, nil }

func TestWhatCannotBeExportedIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, r := metricstest.Registry(t), &recorder{batch: 100}
		budget := family("b", metrics.GaugeType, 1, 2, 3)
		budget.Desc.Budget = 2
		malformed := family("m", metrics.GaugeType, 1)
		malformed.Points[0].Tags = []string{"a", "b"}
		p := newPush(t, reg, r, PushOptions{Series: Selector{"!hidden"}, Feeds: func() []Feed {
			return []Feed{
				{Source: source(func() []metrics.Family { panic("a metric's function") })},
				{Source: source(func() []metrics.Family {
					return []metrics.Family{
						budget, malformed, family("f", metrics.GaugeType, math.NaN(), 1), family("hidden", metrics.GaugeType, 1),
						family("twice", metrics.GaugeType, 1), family("twice", metrics.GaugeType, 2),
						{Desc: metrics.Desc{Name: "h", Type: metrics.HistogramType}, Points: []metrics.Point{{}}},
					}
				})},
			}
		}})
		run(t, p, time.Second)
		b := books(t, reg)
		want := map[string]int64{"over_budget": 2, "malformed": 4, "not_finite": 2, "duplicate": 2}
		if diff := cmp.Diff(want, b.Dropped); diff != "" {
			t.Errorf("dropped in two readings (-want +got):\n%s", diff)
		}
		if b.Out != 8 {
			t.Errorf("out %d, want 4 in each of two readings", b.Out)
		}
		if p.errors != 2 {
			t.Errorf("errors %d, want one for each panic", p.errors)
		}
	})
}

func TestADeadBackEndIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := metricstest.Registry(t)
		r := &recorder{batch: 50, send: func(context.Context, []Point) (Sent, error) {
			return Sent{}, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}}
		p := newPush(t, reg, r, PushOptions{Queue: 1000, Feeds: func() []Feed { return []Feed{{Source: gauges(300)}} }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(time.Hour - time.Second) // an hour later the batch in flight is too old
		synctest.Wait()

		b := books(t, reg)
		if b.Queued != 1000 || b.Dropped["queue_full"] != 360*300-1000 {
			t.Errorf("queued %d, dropped %v, want 1000 and the rest as queue_full", b.Queued, b.Dropped)
		}
		// With full jitter a pause is half a minute on average.
		if n := len(r.tries); n < 70 || n > 200 {
			t.Errorf("%d tries in an hour, want about 125", n)
		}
		if want := int64(len(r.tries)) * 50; b.Retries["refused"] != want || b.TotalRetries() != want {
			t.Errorf("retries %v, want %d refused", b.Retries, want)
		}
		if got := gaugeValue(t, reg, lastSuccessDesc.Name); got != 3599 {
			t.Errorf("last success %g s ago, want 3599", got)
		}
		// Those in flight are kept; of the others the oldest went.
		if oldest := time.Since(b.Oldest); oldest < time.Hour/2 {
			t.Errorf("oldest is %s old, want the batch of the first minutes, which is in flight", oldest)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if b := books(t, reg); b.Queued != 0 || b.Dropped["stopped"] != 1000 {
			t.Errorf("queued %d, dropped %v after the end, want none, and 1000 stopped", b.Queued, b.Dropped)
		}
	})
}

func gaugeValue(t *testing.T, reg *metrics.Registry, name string) float64 {
	t.Helper()
	for _, f := range reg.Gather() {
		if f.Desc.Name == name && len(f.Points) == 1 {
			return f.Points[0].Value
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestABackEndThatComesBackGetsWhatWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, began := metricstest.Registry(t), time.Now()
		r := &recorder{batch: 4, send: func(_ context.Context, points []Point) (Sent, error) {
			switch gone := time.Since(began); {
			case gone < 5*time.Minute:
				return Sent{}, &Failure{Cause: "5xx", Err: errors.New("status 503")}
			case gone < 6*time.Minute: // takes some of each batch
				return Sent{Out: 1, Rejected: 1, Why: errors.New("no")}, &Failure{Cause: "429", After: 3 * time.Second, Err: errors.New("slowly")}
			}
			return Sent{Out: len(points)}, nil
		}}
		p := newPush(t, reg, r, PushOptions{Feeds: func() []Feed { return []Feed{{Source: gauges(3)}} }})
		run(t, p, 10*time.Minute+time.Millisecond)
		b := books(t, reg)
		if b.Out+b.Dropped["rejected"] != b.In || b.Dropped["rejected"] == 0 || b.In != 3*62 {
			t.Errorf("in %d, out %d, dropped %v, want all sent but for the rejected", b.In, b.Out, b.Dropped)
		}
		for i, at := range r.tries[1:] {
			if gone := r.tries[i].Sub(began); gone > 5*time.Minute && gone < 6*time.Minute && at.Sub(r.tries[i]) < 3*time.Second {
				t.Errorf("tried again after %s, want at least 3s", at.Sub(r.tries[i]))
			}
		}
		for i := range r.got[1:] {
			if r.got[i].At > r.got[i+1].At {
				t.Fatalf("point %d is older than the one before it", i+1)
			}
		}
	})
}

func TestPausesGrow(t *testing.T) {
	p := newPush(t, metricstest.Registry(t), &recorder{}, PushOptions{})
	for failures, most := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 7: time.Minute, 1000: time.Minute} {
		p.failures = failures
		var longest time.Duration
		for range 2000 {
			longest = max(longest, p.pause(&Failure{}))
		}
		if longest > most || longest < most*9/10 {
			t.Errorf("after %d failures: %s at most, want up to %s", failures, longest, most)
		}
	}
	if got := p.pause(&Failure{After: 1000 * time.Hour}); got != time.Hour {
		t.Errorf("asked for 1000h: got %s, want 1h", got)
	}
}

func TestNoTwoReadingsOfOneSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, r := metricstest.Registry(t), &recorder{}
		run(t, newPush(t, reg, r, PushOptions{Feeds: func() []Feed { return []Feed{{Source: gauges(1)}} }}), 10*time.Second+300*time.Millisecond)
		if len(r.got) != 3 || r.got[2].At-r.got[1].At != 1000 {
			t.Errorf("got %+v, want three, the last a second after the one before", r.got)
		}
		books(t, reg)
	})
}

func TestPointsGrowOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, began := metricstest.Registry(t), time.Now()
		r := &recorder{batch: 100, send: func(_ context.Context, points []Point) (Sent, error) {
			if time.Since(began) < time.Hour {
				return Sent{}, context.DeadlineExceeded
			}
			return Sent{Out: len(points)}, nil
		}}
		p := newPush(t, reg, r, PushOptions{MaxAge: 10 * time.Minute, Feeds: func() []Feed { return []Feed{{Source: gauges(1)}} }})
		run(t, p, 2*time.Hour)
		b := books(t, reg)
		if first := time.UnixMilli(r.got[0].At).Sub(began); first < 50*time.Minute || first > 52*time.Minute {
			t.Errorf("the first point sent is of %s after the start, want about 50m", first)
		}
		if b.Dropped["too_old"] < 300 || b.Dropped["too_old"] > 312 || b.Retries["timeout"] == 0 {
			t.Errorf("dropped %v, retries %v, want about 306 too old", b.Dropped, b.Retries)
		}
	})
}

func TestAHungBackEndDelaysTheEndByTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := metricstest.Registry(t)
		r := &recorder{batch: 2, send: func(ctx context.Context, _ []Point) (Sent, error) {
			<-ctx.Done()
			return Sent{}, ctx.Err()
		}}
		p := newPush(t, reg, r, PushOptions{Feeds: func() []Feed { return []Feed{{Source: gauges(5)}} }})
		began := time.Now()
		run(t, p, 61*time.Second)
		if took := time.Since(began); took != 61*time.Second+stopTime {
			t.Errorf("ended after %s, want two seconds after 61s", took)
		}
		if b := books(t, reg); b.Dropped["stopped"] != b.In || b.In != 5*8 {
			t.Errorf("in %d, dropped %v, want 40, all stopped", b.In, b.Dropped)
		}
	})
}

func TestOfferedPointsWaitWithTheOthers(t *testing.T) {
	reg, r := metricstest.Registry(t), &recorder{batch: 10}
	p := newPush(t, reg, r, PushOptions{})
	p.queue.put(Point{Ref: "event", Value: 1, At: time.Now().UnixMilli()})
	p.try(t.Context())
	if got := r.sums()["event"]; got != 1 {
		t.Errorf("got %g, want the event", got)
	}
	books(t, reg)
}

// The queue against a plain slice, with what each step does drawn at random.
func TestQueueIsARing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		reg := metricstest.Registry(t)
		q, err := newQueue(reg.Group(), "test", 700)
		if err != nil {
			t.Fatal(err)
		}
		var model, flight []float64
		next := 0.0
		for range 200 {
			if rnd.IntN(2) == 0 {
				points := make([]Point, rnd.IntN(400))
				for i := range points {
					next++
					points[i] = Point{Value: next}
					model = append(model, next)
				}
				q.put(points...)
				model = model[max(0, len(model)+len(flight)-700):]
				continue
			}
			batch := rnd.IntN(300)
			n := min(max(0, batch-len(flight)), len(model))
			flight, model = append(flight, model[:n]...), model[n:]
			var got []float64
			for _, p := range q.take(batch, math.MinInt64) {
				got = append(got, p.Value)
			}
			if !slices.Equal(got, flight) {
				t.Fatalf("took %v, want %v", got, flight)
			}
			done := rnd.IntN(len(flight) + 1)
			q.settle(Sent{Out: done / 2, Rejected: done - done/2})
			flight = slices.Clone(flight[done:])
		}
		if b := books(t, reg); b.Queued != int64(len(model)+len(flight)) {
			t.Fatalf("queued %d, want %d", b.Queued, len(model)+len(flight))
		}
	}
}

func TestSeriesThatAreGoneAreForgotten(t *testing.T) {
	reg, r := metricstest.Registry(t), &recorder{}
	n := 100
	p := newPush(t, reg, r, PushOptions{Every: 10 * time.Second, Feeds: func() []Feed { return []Feed{{Source: source(func() []metrics.Family { return gauges(n)() })}} }})
	p.read(time.Unix(0, 0))
	n = 1
	for i := range 420 {
		p.read(time.Unix(int64(i)*10, 0))
	}
	if got := len(p.table.series); got != 1 {
		t.Errorf("%d series remembered after more than an hour, want 1", got)
	}
	books(t, reg)
}

func TestCausesHaveNames(t *testing.T) {
	for want, err := range map[string]error{
		"timeout":    fmt.Errorf("put: %w", context.DeadlineExceeded),
		"refused":    &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
		"closed":     &net.OpError{Op: "write", Err: syscall.EPIPE},
		"dns":        &net.DNSError{Err: "no such host", IsNotFound: true},
		"no_socket":  &fs.PathError{Op: "dial", Err: syscall.ENOENT},
		"permission": &net.OpError{Op: "dial", Err: syscall.EACCES},
		"429":        fmt.Errorf("x: %w", &Failure{Cause: "429", Err: errors.New("y")}),
		"other":      errors.New("x"),
	} {
		if got := failureOf(err).Cause; got != want {
			t.Errorf("cause of %v: %s, want %s", err, got, want)
		}
	}
}

func TestRacingReadersOfTheBooks(t *testing.T) {
	reg := metricstest.Registry(t)
	p := newPush(t, reg, &recorder{batch: 3}, PushOptions{Feeds: func() []Feed { return []Feed{{Source: reg, FromZero: true}} }})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Run(ctx) })
	for range 4 {
		wg.Go(func() {
			for range 200 {
				p.queue.put(Point{Ref: "x", At: time.Now().UnixMilli()})
				for _, b := range reg.Pipelines() {
					if balance, ok := b.Balance(); !ok || balance != 0 {
						t.Errorf("balance %d", balance)
					}
				}
			}
		})
	}
	for range 20 {
		reg.Gather()
	}
	cancel()
	wg.Wait()
	books(t, reg)
}
