package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/statesync/simcluster"
)

func cluster() *simcluster.Cluster {
	return simcluster.New(simcluster.Options{History: 1_000_000})
}

// start returns a scenario, and its cluster.
func start(t testing.TB, o Options) (*Scenario, *simcluster.Cluster) {
	t.Helper()
	c := cluster()
	s, err := New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// run lets a scenario run for a while, within a bubble. It ends between two ticks:
// of a tick that comes with the end it is chance whether it is made.
func run(t testing.TB, s *Scenario, lasts time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lasts+beat/2)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// history is every event of the cluster's after a version, in order.
func history(t testing.TB, c *simcluster.Cluster, from int64) (all []simcluster.Event) {
	t.Helper()
	for _, r := range c.Resources() {
		for after := from; ; {
			events, version, _, err := c.Events(r, after, 1000)
			if err != nil {
				t.Fatal(err)
			}
			if all = append(all, events...); len(events) == 0 {
				break
			}
			after = version
		}
	}
	slices.SortFunc(all, func(a, b simcluster.Event) int { return int(a.Object.Number - b.Object.Number) })
	return all
}

// told is how an event reads, with all of its object.
func told(e simcluster.Event) string {
	b, err := json.Marshal(e.Object.Source.Object())
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%s %s/%s %s %s", e.Type, e.Object.Namespace, e.Object.Name, e.Object.UID, b)
}

func TestTheSameSeedWritesTheSame(t *testing.T) {
	write := func(seed uint64) (lines []string) {
		synctest.Test(t, func(t *testing.T) {
			s, c := start(t, Options{Seed: seed, Rate: 200, Workloads: 100, Spikes: []Spike{{At: time.Second, For: time.Second, Rate: 500}}})
			run(t, s, 3*time.Second)
			for _, e := range history(t, c, 1) {
				lines = append(lines, told(e))
			}
		})
		return lines
	}
	first := write(7)
	if len(first) < 2000 {
		t.Fatalf("got %d writes, want 2,000 or more", len(first))
	}
	again := write(7)
	for i := range min(len(first), len(again)) {
		if first[i] != again[i] {
			t.Fatalf("write %d of seed 7 (-first +again):\n%s", i, cmp.Diff(first[i], again[i]))
		}
	}
	if len(first) != len(again) {
		t.Errorf("got %d writes and %d, want as many", len(first), len(again))
	}
	if other := write(8); slices.Equal(first, other) {
		t.Error("another seed: got the same writes")
	}
}

// TestTheRateChangesNoStory holds that the rate only says when: the same names
// live the same lives in the same order.
func TestTheRateChangesNoStory(t *testing.T) {
	write := func(rate float64) (lines []string) {
		synctest.Test(t, func(t *testing.T) {
			s, c := start(t, Options{Seed: 7, Rate: rate, Workloads: 50})
			run(t, s, 2*time.Second)
			for _, e := range history(t, c, 1) {
				lines = append(lines, fmt.Sprintf("%s %s %s", e.Type, e.Object.Name, e.Object.UID))
			}
		})
		return lines
	}
	slow, fast := write(100), write(1000)
	if len(fast) < 5*len(slow) {
		t.Fatalf("got %d writes and %d, want five times as many at ten times the rate", len(slow), len(fast))
	}
	if diff := cmp.Diff(slow, fast[:len(slow)]); diff != "" {
		t.Errorf("(-slow +fast)\n%s", diff)
	}
}

func TestTheRateIsKept(t *testing.T) {
	tests := []struct {
		name  string
		o     Options
		lasts time.Duration
		want  float64
	}{
		{"one a second", Options{Rate: 1}, 100 * time.Second, 100},
		{"many", Options{Rate: 2000}, 3 * time.Second, 6000},
		{"a spike", Options{Rate: 100, Spikes: []Spike{{At: 2 * time.Second, For: time.Second, Rate: 5000}}}, 10 * time.Second, 900 + 5000},
		{"two spikes at once", Options{Spikes: []Spike{{For: 2 * time.Second, Rate: 100}, {For: time.Second, Rate: 1000}}}, 5 * time.Second, 1100},
		{"a day", Options{Rate: 100, Daily: true}, day, 100 * day.Seconds()},
		{"the first quarter of a day", Options{Rate: 100, Daily: true}, day / 4, 100 * day.Seconds() / 4 * (1 + 0.8*2/math.Pi)},
		{"web apps alone", Options{Rate: 500, Mix: Mix{WebApps: 1}}, 10 * time.Second, 5000},
		{"one workload", Options{Rate: 100, Workloads: 1}, 10 * time.Second, 1000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.o.Workloads == 0 {
					tt.o.Workloads = 300
				}
				s, _ := start(t, tt.o)
				run(t, s, tt.lasts)
				f := s.Figures()
				if got := float64(f.Offered); math.Abs(got-tt.want) > 0.02*tt.want+1 {
					t.Errorf("got %v changes, want %v", got, tt.want)
				}
				if f.Behind > 1 || f.Asked != 0 {
					t.Errorf("got %d changes behind and %v asked for, want none of either", f.Behind, f.Asked)
				}
			})
		})
	}
}

func TestASpikeHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, Options{Rate: 100, Workloads: 200, Spikes: []Spike{{At: 2 * time.Second, For: 3 * time.Second, Rate: 2000}}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		before, last := int64(0), 0.0
		for second, want := range []float64{100, 100, 2000, 2000, 2000, 100, 100} {
			time.Sleep(time.Second - time.Nanosecond)
			f := s.Figures()
			if made := float64(f.Offered - before); math.Abs(made-want) > 0.05*max(want, last) || f.Asked != want {
				t.Errorf("second %d: got %.0f changes and %.0f asked for, want %.0f", second, made, f.Asked, want)
			}
			if want == last && math.Abs(f.Achieved-want) > 0.05*want {
				t.Errorf("second %d: got %.0f achieved, want %.0f", second, f.Achieved, want)
			}
			before, last = f.Offered, want
			time.Sleep(time.Nanosecond)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestThePlanEndsWithTheLastSpike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, Options{Workloads: 50, Spikes: []Spike{{At: time.Second, For: time.Second, Rate: 500}}})
		began := time.Now()
		if err := s.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 2*time.Second || took > 2*time.Second+4*beat {
			t.Errorf("got an end after %v, want 2s", took)
		}
		if got := s.Figures().Offered; got != 500 {
			t.Errorf("got %d changes, want 500", got)
		}
	})
}

func TestAPauseIsMadeUpForAtTwiceTheRate(t *testing.T) {
	p := &pacer{rate: func(time.Duration) float64 { return 1000 }}
	at := time.Duration(0)
	pass := func(d time.Duration) (made int) {
		at += d
		p.advance(at)
		for p.due() {
			p.made()
			made++
		}
		return made
	}
	for range 200 {
		pass(beat)
	}
	if got := pass(3 * time.Second); got > 2*1000/20 {
		t.Errorf("got %d changes at once after the pause, want 100 at most", got)
	}
	for at < 10*time.Second {
		made := 0
		for range 20 {
			made += pass(beat)
		}
		if made > 210 {
			t.Errorf("got %d changes in a tenth of a second at %v, want 200 at most", made, at)
		}
	}
	if p.behind() > 1 || math.Abs(p.done-at.Seconds()*1000) > 2 {
		t.Errorf("got %v changes after %v, want all", p.done, at)
	}
	pass(time.Hour)
	if got := p.behind(); got > 1000*maxPause.Seconds() {
		t.Errorf("after an hour: got %v behind, want 30 s of changes at most", got)
	}
}

func TestSpeedBoundsTheLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, Options{Rate: 1000, Workloads: 100, Speed: 10})
		run(t, s, 20*time.Second)
		f := s.Figures()
		if f.Speed > 10 || f.Speed < 9 || f.Offered == 0 || f.Behind < 15_000 {
			t.Errorf("got speed %v with %d changes and %d behind, want 10 at most, some and nearly all", f.Speed, f.Offered, f.Behind)
		}
	})
}

// TestWhatIsThereStaysBounded holds the objects of every kind to what the
// workloads need, and the figures to what is there.
func TestWhatIsThereStaysBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := start(t, Options{Seed: 3, Rate: 4000, Workloads: 400})
		for range 5 {
			run(t, s, time.Second)
			f := s.Figures()
			there := 0
			for _, r := range c.Resources() {
				objects, _, err := c.List(r, "")
				if err != nil {
					t.Fatal(err)
				}
				if f.Live[r.Plural] != len(objects) {
					t.Errorf("%s: got %d in the figures, want %d", r.Plural, f.Live[r.Plural], len(objects))
				}
				if r.Plural != "pods" && r.Plural != "replicasets" {
					there += len(objects)
				}
			}
			if there > 400 || there < 200 || f.Live["pods"] > 1000 || f.Live["replicasets"] > 150 {
				t.Errorf("got %v with %d workloads that have no pod of their own name, want 400 workloads at most", f.Live, there)
			}
		}
	})
}

// TestWhatSomebodyElseRemoves holds that a resource that goes ends its
// workloads, and that others take their place when it comes back.
func TestWhatSomebodyElseRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := start(t, Options{Rate: 200, Workloads: 100, Mix: Mix{Custom: 1}})
		run(t, s, 2*time.Second)
		var trainings *simcluster.Resource
		for _, r := range c.Resources() {
			if r.Plural == "trainings" {
				trainings = r
			}
		}
		gone := history(t, c, 1)
		c.Remove(trainings)
		from := c.Now()
		run(t, s, 2*time.Second)
		if got := s.Figures().Live["trainings"]; got != 0 {
			t.Errorf("got %d trainings, want none", got)
		}
		for _, w := range s.truth.all() {
			if last := w.States[len(w.States)-1]; last == "Queued" || last == "Running" {
				t.Errorf("%s: got %v, want an end", w.Name, w.States)
			}
		}
		c.Add(trainings)
		if from != c.Now() {
			t.Errorf("got writes while nothing could be written: %d, want %d", c.Now(), from)
		}
		run(t, s, 10*time.Second)
		if got := s.Figures().Live["trainings"]; got < 50 {
			t.Errorf("got %d trainings, want about 100", got)
		}
		for _, e := range history(t, c, from) {
			if slices.ContainsFunc(gone, func(other simcluster.Event) bool { return other.Object.UID == e.Object.UID }) && e.Type != watch.Deleted {
				t.Fatalf("got %s of %s, which was removed", e.Type, e.Object.Name)
			}
		}
	})
}

func TestOptionsThatCannotBe(t *testing.T) {
	for want, o := range map[string]Options{
		"rate: got -1":            {Rate: -1},
		"rate: got NaN":           {Rate: math.NaN()},
		"workloads: got -1":       {Workloads: -1},
		"namespaces: got 70000":   {Namespaces: 70_000},
		"speed: got +Inf":         {Speed: math.Inf(1)},
		"mix: got {Jobs:-1":       {Mix: Mix{Jobs: -1}},
		"spike: got a rate of 0":  {Spikes: []Spike{{For: time.Second}}},
		"spike: got a start of -": {Spikes: []Spike{{Rate: 1, For: time.Second, At: -time.Second}}},
	} {
		if _, err := New(cluster(), o); err == nil || !strings.HasPrefix(err.Error(), "scenario: "+want) {
			t.Errorf("got %v, want scenario: %s", err, want)
		}
	}
}

func TestParseSpike(t *testing.T) {
	for text, want := range map[string]Spike{
		"50000/10s":    {At: 5 * time.Second, For: 10 * time.Second, Rate: 50_000},
		"50000/10s@1m": {At: time.Minute, For: 10 * time.Second, Rate: 50_000},
		"0.5/1m@0s":    {For: time.Minute, Rate: 0.5},
	} {
		got, err := ParseSpike(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v (%v), want %+v", text, got, err, want)
		}
		if again, err := ParseSpike(got.String()); err != nil || again != got {
			t.Errorf("%s: got %+v (%v), want %+v", got, again, err, got)
		}
	}
	for text, want := range map[string]string{
		"nonsense":     `spike: got "nonsense", want RATE/DURATION or RATE/DURATION@START, such as 50000/10s@5s`,
		"many/10s":     `spike "many/10s": rate: got "many", want changes a second, such as 50000`,
		"5/10":         `spike "5/10": duration: got "10", want one such as 10s`,
		"5/10s@later":  `spike "5/10s@later": start: got "later", want a duration since the start, such as 5s`,
		"-5/10s":       "spike: got a rate of -5, want more than 0",
		"NaN/10s":      "spike: got a rate of NaN, want more than 0",
		"5/0s":         "spike: got a duration of 0s, want more than 0",
		"5/10s@-1s":    "spike: got a start of -1s, want 0 or later",
		"5/10s@5s@10s": `spike "5/10s@5s@10s": start: got "5s@10s", want a duration since the start, such as 5s`,
	} {
		if _, err := ParseSpike(text); err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}
