package checks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/statesync"
)

// cluster is the workloads that there are.
type cluster []Workload

// Each implements [Workloads].
func (c *cluster) Each(_ context.Context, f func(Workload)) error {
	for _, w := range *c {
		f(w)
	}
	return nil
}

// broken is a cluster of which only the beginning can be read.
type broken struct{ *cluster }

func (b broken) Each(ctx context.Context, f func(Workload)) error {
	return errors.Join(b.cluster.Each(ctx, f), errors.New("disk I/O error"))
}

func TestStuckSaysWhatItCannotRead(t *testing.T) {
	t.Parallel()
	c := stuckOf(t, "{than: 1h}", &at{began}, broken{&cluster{}})
	if r := c.Check(t.Context()); r.Status != verdict.Unknown || !strings.Contains(r.Message, "disk I/O error") {
		t.Errorf("got %+v, want it unknown and why", r)
	}
}

func stuckOf(t *testing.T, text string, clock *at, workloads Workloads) *stuckCheck {
	t.Helper()
	var c StuckConfig
	if err := configured(t, text, &c); err != nil {
		t.Fatal(err)
	}
	checker, err := c.Build(Env{Name: "stuck", Now: clock.now, Workloads: workloads})
	if err != nil {
		t.Fatal(err)
	}
	return checker.(*stuckCheck)
}

// job is a workload of kind Job, in that state for some time.
func job(name string, state statesync.State, age time.Duration, labels ...string) Workload {
	w := Workload{Kind: "Job", Namespace: "batch", Name: name, UID: name, State: state, Since: began.Add(-age), Labels: map[string]string{}}
	for i := 0; i+1 < len(labels); i += 2 {
		w.Labels[labels[i]] = labels[i+1]
	}
	return w
}

func TestStuckForLongerThanWanted(t *testing.T) {
	const queued, running, done = statesync.Queued, statesync.Running, statesync.Succeeded
	for name, tt := range map[string]struct {
		text string
		of   cluster
		want string
	}{
		"nobody":            {`{than: 1h}`, nil, "pass 0 workloads, none is stuck"},
		"none":              {`{than: 1h}`, cluster{job("a", running, time.Hour), job("b", done, 9*time.Hour)}, "pass 1 workloads, none is stuck"},
		"one":               {`{than: 1h}`, cluster{job("a", running, 61*time.Minute), job("b", queued, 0)}, "fail 1 stuck: Job batch/a Running for 1h1m, want at most 1h"},
		"the worst first":   {`{than: 1h}`, cluster{job("a", running, 2*time.Hour), job("b", queued, 3*time.Hour)}, "fail 2 stuck: Job batch/b Queued for 3h, want at most 1h; Job batch/a Running for 2h, want at most 1h"},
		"another state":     {`{than: 1h, states: [Queued]}`, cluster{job("a", running, 2*time.Hour)}, "unknown 1 workloads, none of which can be judged"},
		"another kind":      {`{than: 1h, kinds: [Pod]}`, cluster{job("a", running, 2*time.Hour)}, "pass 0 workloads, none is stuck"},
		"another namespace": {`{than: 1h, namespaces: [web]}`, cluster{job("a", running, 2*time.Hour)}, "pass 0 workloads, none is stuck"},
		"other labels":      {`{than: 1h, match: {team: x}}`, cluster{job("a", running, 2*time.Hour, "team", "y")}, "pass 0 workloads, none is stuck"},
		"these labels":      {`{than: 1h, match: {team: x}}`, cluster{job("a", running, 2*time.Hour, "team", "x")}, "fail 1 stuck: Job batch/a Running for 2h, want at most 1h"},
		"a workflow names who holds it up": {
			`{than: 1h, workflow: flow}`,
			cluster{
				job("first", done, 5*time.Hour, "flow", "nightly"), job("second", running, 2*time.Hour, "flow", "nightly"),
				job("third", queued, 4*time.Hour, "flow", "nightly"), job("fourth", queued, 4*time.Hour, "flow", "nightly"),
				job("fine", running, time.Minute, "flow", "hourly"), job("alone", running, 9*time.Hour),
			},
			"fail 1 stuck: workflow nightly by Job batch/second, Running for 2h, want at most 1h, 2 others wait",
		},
		"the one that holds up most comes first": {
			`{than: 1h, workflow: flow}`,
			cluster{
				job("a", queued, 9*time.Hour, "flow", "x"),
				job("b", queued, 2*time.Hour, "flow", "y"), job("c", queued, time.Minute, "flow", "y"),
			},
			"fail 2 stuck: workflow y by Job batch/b, Queued for 2h, want at most 1h, 1 other waits; workflow x by Job batch/a, Queued for 9h, want at most 1h",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := stuckOf(t, tt.text, &at{began}, &tt.of).Check(t.Context())
			if got := r.Status.String() + " " + r.Message; got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestStuckNamesFive(t *testing.T) {
	var c cluster
	for i := range 40 {
		c = append(c, job(fmt.Sprintf("job-%02d", i), statesync.Running, time.Duration(i)*time.Hour))
	}
	r := stuckOf(t, `{than: 30m}`, &at{began}, &c).Check(t.Context())
	if !strings.HasPrefix(r.Message, "39 stuck, the 5 worst are: Job batch/job-39 Running for 39h, ") || strings.Count(r.Message, "batch/") != 5 || *r.Value != 39 {
		t.Errorf("got %v %q", *r.Value, r.Message)
	}
}

func TestStuckLearnsWhatIsUsual(t *testing.T) {
	clock, c := &at{began}, cluster{}
	check := stuckOf(t, `{kinds: [Job]}`, clock, &c)
	look := func() string {
		t.Helper()
		r := check.Check(t.Context())
		return r.Status.String() + " " + r.Message
	}
	// Each runs for ten minutes. Those that vanish or are deleted tell nothing.
	rounds := func(n int) {
		for range n {
			name := fmt.Sprint(clock.time.Unix())
			w := job(name, statesync.Running, 0)
			w.Since = clock.time
			gone, deleted := w, w
			gone.UID, deleted.UID = "gone"+name, "deleted"+name
			c = cluster{w, gone, deleted}
			look()
			clock.time = clock.time.Add(10 * time.Minute)
			w.State, w.Since = statesync.Succeeded, clock.time
			deleted.State, deleted.Since = statesync.Deleted, clock.time
			c = cluster{w, deleted}
			look()
			look() // it is shown twice
		}
	}
	rounds(19)
	old := job("old", statesync.Running, 0)
	old.Since = clock.time.Add(-31 * time.Minute)
	c = cluster{old}
	if got, want := look(), "unknown 1 workloads, none of which can be judged; what is usual takes 20 to learn: Job Running (19 seen)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	rounds(1)
	old.Since = clock.time.Add(-30 * time.Minute)
	c = cluster{old}
	if got, want := look(), "pass 1 workloads, none is stuck"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	clock.time = clock.time.Add(time.Minute)
	want := "fail 1 stuck: Job batch/old Running for 31m, usual is up to 10m"
	if got := look(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	snapshot, err := check.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	check = stuckOf(t, `{kinds: [Job]}`, clock, &c)
	if err := check.Restore(snapshot); err != nil {
		t.Fatal(err)
	}
	if got := look(); got != want {
		t.Errorf("after a restart: got %q, want %q", got, want)
	}
	if err := check.Restore([]byte("1")); err == nil || !strings.Contains(err.Error(), "restore stuck stuck") {
		t.Errorf("got %v, want an error that names the check", err)
	}
}

func TestStuckIsPatientWithTheQuick(t *testing.T) {
	clock, c := &at{began}, cluster{job("a", statesync.Queued, 59*time.Second)}
	check := stuckOf(t, `{}`, clock, &c)
	for range learntEnough {
		check.usual.learn(kindState{"Job", statesync.Queued}, 0)
	}
	if got := check.Check(t.Context()); got.Status != verdict.Pass {
		t.Errorf("got %s %q, want pass: under a minute is never too long", got.Status, got.Message)
	}
	clock.time = clock.time.Add(2 * time.Second)
	if got := check.Check(t.Context()); got.Status != verdict.Fail {
		t.Errorf("got %s %q, want fail", got.Status, got.Message)
	}
}

func TestUsualIsBoundedAndFair(t *testing.T) {
	u, rnd := usual{}, rand.New(rand.NewPCG(1, 2))
	workload := func(i int) Workload {
		return Workload{Kind: "Pod", UID: fmt.Sprint(i), State: statesync.Running, Since: began}
	}
	const n = 20_000
	// Every fourth takes ten times as long, and there are a thousand that never end.
	u.begin()
	for i := range n {
		u.see(workload(i))
	}
	u.end()
	followed := len(u["Pod"].followed)
	if followed < maxFollowed/4 || followed > maxFollowed {
		t.Errorf("got %d followed, want %d at most and not much less", followed, maxFollowed)
	}
	u.begin()
	for i := range n {
		w := workload(i)
		if i >= 1000 {
			w.State, w.Since = statesync.Succeeded, began.Add(time.Minute)
			if i%4 == 0 {
				w.Since = began.Add(10 * time.Minute)
			}
		}
		u.see(w)
	}
	u.end()
	d := u["Pod"].done[statesync.Running]
	long := 0
	for _, s := range d.seconds {
		if s == 600 {
			long++
		}
	}
	if share := float64(long) / float64(len(d.seconds)); share < 0.15 || share > 0.35 {
		t.Errorf("got %.2f of the long ones, want about 0.25", share)
	}
	if left := len(u["Pod"].followed); left > followed/10 {
		t.Errorf("got %d followed of %d, want only those that go on", left, followed)
	}
	for range 10 * maxDone {
		u.learn(kindState{"Pod", statesync.Queued}, rnd.Float64())
	}
	for i := range 2 * maxKinds {
		u.learn(kindState{fmt.Sprint("kind", i), statesync.Queued}, 1)
		u.see(Workload{Kind: fmt.Sprint("other", i), UID: "1"})
	}
	if len(u["Pod"].done[statesync.Queued].seconds) != maxDone || len(u) != maxKinds {
		t.Errorf("got %d times of %d kinds, want %d of %d", len(u["Pod"].done[statesync.Queued].seconds), len(u), maxDone, maxKinds)
	}
}

func TestStuckConfig(t *testing.T) {
	for text, want := range map[string]string{
		`{states: [Done]}`:            "check.states[0]: got Done, want Queued or Running",
		`{states: []}`:                "check.states: got none",
		`{than: -1s}`:                 "check.than: got -1s",
		`{factor: 0.5}`:               "check.factor: got 0.5, want 1 to 1000",
		`{than: 1h, workflow: a.b/c}`: "",
	} {
		var c StuckConfig
		err := configured(t, text, &c)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	if got := stuckOf(t, `{}`, &at{began}, nil).Check(t.Context()); got.Status != verdict.Unknown {
		t.Errorf("without state sync: got %s %q", got.Status, got.Message)
	}
}

func BenchmarkStuckHundredThousand(b *testing.B) {
	var c cluster
	for i := range 100_000 {
		c = append(c, job(fmt.Sprint(i), statesync.Running, time.Minute, "flow", fmt.Sprint(i/100)))
	}
	config := StuckConfig{States: []statesync.State{statesync.Queued, statesync.Running}, Factor: 3, Workflow: "flow"}
	check, err := config.Build(Env{Now: (&at{began}).now, Workloads: &c})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		check.Check(b.Context())
	}
}
