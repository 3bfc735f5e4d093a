package replay

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// memory is a log whose places are the even numbers up to its end.
type memory struct {
	upTo int64
	fail func(place int64) error // asked before each that is put aside; nil: none fails
	gone map[int64]bool          // while they are counted they are there

	mu   sync.Mutex // guards what follows
	put  []int64
	at   []time.Time // of each transaction
	size []int       // of each transaction
}

func (m *memory) ReplayUpTo(context.Context, *Query) (int64, error) { return m.upTo, nil }

// FindReplay looks through 1,000 places at a time.
func (m *memory) FindReplay(ctx context.Context, _ *Query, after, upTo int64) (places []int64, looked int64, err error) {
	for looked = after; looked < min(after+1000, upTo); {
		if looked++; looked%2 == 0 {
			places = append(places, looked)
		}
	}
	return places, looked, ctx.Err()
}

func (m *memory) Replay(_ context.Context, _ *Query, places []int64) (n int, err error) {
	for _, p := range places {
		if m.fail != nil {
			if err := m.fail(p); err != nil {
				return 0, err
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range places {
		if !m.gone[p] {
			m.put = append(m.put, p)
			n++
		}
	}
	m.at, m.size = append(m.at, time.Now()), append(m.size, len(places))
	return n, nil
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.put)
}

func evens(from, to int64) (out []int64) {
	for n := from; n <= to; n += 2 {
		out = append(out, n)
	}
	return out
}

func TestRunKeepsToTheRate(t *testing.T) {
	t.Parallel()
	for rate, want := range map[int]struct {
		seconds float64 // until the last is put aside
		size    int     // of a transaction at most
	}{
		0: {0, 500}, 1: {999, 1}, 100: {9.75, 25}, 400: {2.25, 100}, 10_000: {0.05, 500},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := &memory{upTo: 2000}
			var told []Report
			began := time.Now()
			r, err := Run(t.Context(), m, Query{Sink: "s", From: 1, Rate: rate}, func(r Report) { told = append(told, r) })
			if err != nil || !r.Ended || r.Found != 1000 || r.Done != 1000 || r.Last != 2000 || r.Cursor != 2000 {
				t.Errorf("rate %d: report %+v, error %v", rate, r, err)
			}
			if diff := cmp.Diff(evens(2, 2000), m.put); diff != "" {
				t.Errorf("rate %d: put aside (-want +got):\n%s", rate, diff)
			}
			if got := m.at[len(m.at)-1].Sub(began).Seconds(); got < want.seconds-0.001 || got > want.seconds+0.001 {
				t.Errorf("rate %d: the last after %.3f s, want %.3f", rate, got, want.seconds)
			}
			if got := slices.Max(m.size); got != want.size {
				t.Errorf("rate %d: up to %d in a transaction, want %d", rate, got, want.size)
			}
			if first := told[0]; first.Found != 1000 || first.Done != 0 || len(told) != 1+len(m.at) {
				t.Errorf("rate %d: told %d times, first %+v, want what was found and each of %d transactions", rate, len(told), first, len(m.at))
			}
		})
	}
}

func TestRunIsInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5100*time.Millisecond)
		defer cancel()
		m := &memory{upTo: 2000}
		q := Query{Sink: "s", From: 1, Rate: 100}
		r, err := Run(ctx, m, q, func(Report) {})
		if !errors.Is(err, context.DeadlineExceeded) || r.Ended || r.Done != int64(len(m.put)) || r.Done != 525 || r.Last != 1050 {
			t.Errorf("report %+v, error %v, %d put aside, want 525 of 1000, up to 1050", r, err, len(m.put))
		}
		if got := r.Left().Seconds(); got < 4 || got > 5 {
			t.Errorf("%.1f s left, want between 4 and 5", got)
		}
		q.From = r.Last + 1
		if r, err = Run(t.Context(), m, q, func(Report) {}); err != nil || r.Done != 475 {
			t.Errorf("then report %+v, error %v, want the other 475", r, err)
		}
		if diff := cmp.Diff(evens(2, 2000), m.put); diff != "" {
			t.Errorf("put aside (-want +got):\n%s", diff)
		}
	})
}

func TestRunEndsWithWhatItCannotDo(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is on fire")
	m := &memory{upTo: 4000, gone: map[int64]bool{2: true}, fail: func(place int64) error {
		if place > 1000 {
			return broken
		}
		return nil
	}}
	r, err := Run(t.Context(), m, Query{Sink: "s", From: 1, To: 3000}, func(Report) {})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "replay to sink s: ") || r.Found != 1500 || r.Done != 499 || r.Ended {
		t.Errorf("report %+v, error %v, want 499 of 1500, without the one that has gone", r, err)
	}
	if r, err := Run(t.Context(), m, Query{Sink: "s", From: 3000, DryRun: true}, func(Report) {}); err != nil || r.Found != 501 || r.Done != 0 || !r.Ended {
		t.Errorf("counted: report %+v, error %v", r, err)
	}
	if _, err := Run(t.Context(), m, Query{Sink: "s"}, func(Report) {}); err == nil || !strings.Contains(err.Error(), "all of the log: --from 1") {
		t.Errorf("without a filter: error %v", err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for want, q := range map[string]Query{
		"":                                    {Sink: "s", From: 1},
		"--sink: got none":                    {From: 1},
		"got nothing that says":               {Sink: "s", Rate: 5},
		"want --id":                           {Sink: "s", Letters: true, From: 1},
		"--id: got it without --dead-letters": {Sink: "s", IDs: []int64{1}},
		"--from, --to: got 5 to 4":            {Sink: "s", From: 5, To: 4},
		"--since, --until: got":               {Sink: "s", Since: now, Until: now},
		`state: got "failed"`:                 {Sink: "s", State: "failed"},
		"rate: got -1":                        {Sink: "s", From: 1, Rate: -1},
	} {
		if err := q.Check(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: error %v, want %q", q, err, want)
		}
	}
}

func TestAQuerySurvivesItsRequest(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 15, 4, 5, 123, time.UTC)
	for _, want := range []Query{
		{Sink: "s", From: 3, To: 9, Since: at, Until: at.Add(time.Hour), UID: "u", State: statesync.Failed, Rate: 100, DryRun: true, Workload: &statesync.Key{Namespace: "n", Kind: "Pod", Name: "x"}},
		{Sink: "s", Letters: true, IDs: []int64{4, 2}},
	} {
		got, err := Parse(want.Values())
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("error %v (-want +got):\n%s", err, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"sink=s&from=1&rate=100", "sink=s&dead_letters=true&id=1,2", "sink=s&since=2026-11-22T15:04:05Z&state=Failed",
		"sink=s&workload=n/Pod/x&uid=u&dry_run=true", "sink=s&id=,&to=-1", "sink=s&workload=//",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		q, err := Parse(v)
		if err != nil {
			return
		}
		again, err := Parse(q.Values())
		if err != nil || fmt.Sprintf("%+v", again.Values()) != fmt.Sprintf("%+v", q.Values()) {
			t.Errorf("%q: got %+v (%v), want %+v", text, again, err, q)
		}
	})
}
