package metrics

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A shop is the smallest owner of a pipeline: a bounded queue whose items can
// be done, tried again and given up.
type shop struct {
	mu    sync.Mutex
	queue []time.Time
	books *Pipeline
}

func newShop(t testing.TB, reg *Registry, name string, carried int) *shop {
	t.Helper()
	s := &shop{queue: make([]time.Time, carried)}
	var err error
	s.books, err = reg.Pipeline(PipelineOptions{Name: name, Unit: "items", Lock: &s.mu, Queue: func() Queue {
		q := Queue{Len: int64(len(s.queue))}
		if len(s.queue) > 0 {
			q.Oldest = s.queue[0]
		}
		return q
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.books.Carry(int64(carried))
	return s
}

func (s *shop) step(rng *rand.Rand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := rng.IntN(4)
	switch op := rng.IntN(4); {
	case op == 0 && len(s.queue)+n > 100:
		s.books.In(int64(n))
		s.books.Drop("full", int64(n))
	case op == 0:
		s.books.In(int64(n))
		for range n {
			s.queue = append(s.queue, time.Now())
		}
	case op == 1:
		s.books.Retry(fmt.Sprintf("cause-%d", n), 1)
	default:
		n = min(n, len(s.queue))
		s.queue = s.queue[n:]
		if op == 2 {
			s.books.Out(int64(n))
		} else {
			s.books.Drop(fmt.Sprintf("reason-%d", n), int64(n))
		}
	}
}

func TestBooksBalanceAtEveryMoment(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	s := newShop(t, reg, "shop", 5)
	var workers sync.WaitGroup
	for seed := range uint64(4) {
		workers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 7))
			for range 3000 {
				s.step(rng)
			}
		})
	}
	done := make(chan struct{})
	go func() { workers.Wait(); close(done) }()
	looks := 0
	for open := true; open; looks++ {
		select {
		case <-done:
			open = false // and look once more
		default:
		}
		snap := s.books.Snapshot()
		if balance, ok := snap.Balance(); balance != 0 || !ok {
			t.Fatalf("look %d: balance %d, known %v: %+v", looks, balance, ok, snap)
		}
	}
	snap := s.books.Snapshot()
	if snap.In == 0 || snap.Out == 0 || snap.TotalDropped() == 0 || snap.TotalRetries() == 0 {
		t.Errorf("the test moved nothing: %+v", snap)
	}
}

func TestBooksShowWhatIsLost(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		lose func(s *shop)
		want int64
	}{
		{"nothing lost", func(*shop) {}, 0},
		{"an item vanished", func(s *shop) { s.queue = s.queue[1:] }, 1},
		{"an item counted out twice", func(s *shop) { s.queue = s.queue[1:]; s.books.Out(2) }, -1},
		{"an item nobody counted in", func(s *shop) { s.queue = append(s.queue, time.Time{}) }, -1},
		{"a retry is no term", func(s *shop) { s.books.Retry("busy", 3) }, 0},
		{"a drop counted for a reason", func(s *shop) { s.queue = s.queue[2:]; s.books.Drop("full", 2) }, 0},
	}
	for _, tt := range tests {
		s := newShop(t, NewRegistry(), "shop", 5)
		tt.lose(s)
		if got, ok := s.books.Snapshot().Balance(); got != tt.want || !ok {
			t.Errorf("%s: balance %d, known %v; want %d", tt.name, got, ok, tt.want)
		}
	}
}

func TestSnapshotIsACopy(t *testing.T) {
	t.Parallel()
	p, err := NewRegistry().Pipeline(PipelineOptions{Name: "p", Target: "t", Unit: "lines"})
	if err != nil {
		t.Fatal(err)
	}
	p.Drop("full", 1)
	p.Retry("busy", 2)
	got := p.Snapshot()
	p.Drop("full", 10)
	p.Retry("busy", 10)
	want := PipelineSnapshot{
		Name: "p", Target: "t", Unit: "lines",
		Dropped: map[string]int64{"full": 1}, Retries: map[string]int64{"busy": 2},
		Unknown: QueuedTerm | OldestTerm,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
	if _, ok := got.Balance(); ok {
		t.Error("a balance without a queue is known")
	}
}

func TestOldestAge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		name   string
		oldest time.Time
		want   time.Duration
	}{
		{"nothing waits", time.Time{}, 0},
		{"an item waits", now.Add(-3 * time.Second), 3 * time.Second},
		{"a clock that was set back gives no negative age", now.Add(time.Hour), 0},
	}
	for _, tt := range tests {
		if got := (PipelineSnapshot{Oldest: tt.oldest}).OldestAge(now); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestPipelineRegistration(t *testing.T) {
	t.Parallel()
	reg := NewRegistry()
	for _, o := range []PipelineOptions{
		{Name: "b", Unit: "items"},
		{Name: "a", Target: "2", Unit: "items"},
		{Name: "a", Target: "1", Unit: "items"},
	} {
		if _, err := reg.Pipeline(o); err != nil {
			t.Error(err)
		}
	}
	for _, tt := range []struct {
		name string
		opts PipelineOptions
		want string
	}{
		{"the same name and target", PipelineOptions{Name: "a", Target: "1", Unit: "lines"}, "pipeline a 1: registered twice"},
		{"no name", PipelineOptions{Unit: "lines"}, `pipeline "": name and unit must not be empty`},
		{"no unit", PipelineOptions{Name: "c"}, `pipeline "c": name and unit must not be empty`},
	} {
		if _, err := reg.Pipeline(tt.opts); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	var got []string
	for _, s := range reg.Pipelines() {
		got = append(got, s.Name+"/"+s.Target)
	}
	if diff := cmp.Diff([]string{"a/1", "a/2", "b/"}, got); diff != "" {
		t.Errorf("pipelines (-want +got):\n%s", diff)
	}
}

func TestPipelineFamilies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := NewRegistry()
		s := newShop(t, reg, "shop", 0)
		s.queue = append(s.queue, time.Now(), time.Now())
		s.books.Carry(1)
		s.books.In(9)
		s.books.Out(4)
		s.books.Drop("full", 2)
		s.books.Drop("bad", 1)
		s.books.Retry("busy", 7)
		if _, err := reg.Pipeline(PipelineOptions{Name: "blind", Target: "x", Unit: "lines"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		want := []string{
			"outrider_pipeline_balance[shop  items ] 1",
			"outrider_pipeline_balance_excess[shop  items ] 1",
			"outrider_pipeline_carried_total[blind x lines ] 0",
			"outrider_pipeline_carried_total[shop  items ] 1",
			"outrider_pipeline_drops_total[shop  items  bad] 1",
			"outrider_pipeline_drops_total[shop  items  full] 2",
			"outrider_pipeline_in_total[blind x lines ] 0",
			"outrider_pipeline_in_total[shop  items ] 9",
			"outrider_pipeline_oldest_age_seconds[shop  items ] 1.5",
			"outrider_pipeline_out_total[blind x lines ] 0",
			"outrider_pipeline_out_total[shop  items ] 4",
			"outrider_pipeline_queued[shop  items ] 2",
			"outrider_pipeline_retries_total[shop  items  busy] 7",
		}
		if diff := cmp.Diff(want, lines(reg.Gather())); diff != "" {
			t.Errorf("series (-want +got):\n%s", diff)
		}
	})
}

func TestReasonsAreShownBeforeThereAreDrops(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		reasons []string
		drops   map[string]int64
		want    map[string]float64
	}{
		{"no reason is known", nil, nil, map[string]float64{}},
		{"nothing was dropped", []string{"full", "bad"}, nil, map[string]float64{"bad": 0, "full": 0}},
		{"one was dropped", []string{"full", "bad"}, map[string]int64{"full": 1}, map[string]float64{"bad": 0, "full": 1}},
		{"for a reason not known before", []string{"full"}, map[string]int64{"odd": 2}, map[string]float64{"full": 0, "odd": 2}},
	} {
		reg := NewRegistry()
		p, err := reg.Pipeline(PipelineOptions{Name: "p", Unit: "items", Reasons: tt.reasons})
		if err != nil {
			t.Fatal(err)
		}
		for reason, n := range tt.drops {
			p.In(n)
			p.Drop(reason, n)
		}
		got := map[string]float64{}
		for _, f := range reg.Gather() {
			if f.Desc.Name != "outrider_pipeline_drops_total" {
				continue
			}
			for _, p := range f.Points {
				got[p.Tags[len(p.Tags)-1]] = p.Value
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: drops (-want +got):\n%s", tt.name, diff)
		}
		if s := p.Snapshot(); len(s.Dropped) != len(tt.drops) {
			t.Errorf("%s: the books have %v, want %v", tt.name, s.Dropped, tt.drops)
		}
	}
}

func TestExcess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		s     PipelineSnapshot
		want  int64
		known bool
	}{
		{"the books balance", PipelineSnapshot{In: 5, Out: 3, Queued: 2}, 0, true},
		{"one is missing", PipelineSnapshot{In: 5, Out: 3, Queued: 1}, 1, true},
		{"one is there twice", PipelineSnapshot{In: 5, Out: 3, Queued: 3}, 1, true},
		{"off by what reads of several moments explain", PipelineSnapshot{In: 9, Out: 3, Tolerance: 6}, 0, true},
		{"off by more", PipelineSnapshot{Out: 9, Tolerance: 6}, 3, true},
		{"a term that is not known", PipelineSnapshot{In: 5, Unknown: OutTerm}, 5, false},
	} {
		if got, known := tt.s.Excess(); got != tt.want || known != tt.known {
			t.Errorf("%s: %d, known %v, want %d, %v", tt.name, got, known, tt.want, tt.known)
		}
	}
}
