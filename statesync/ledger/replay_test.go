package ledger

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/ledger/replay"
)

// runReplay replays without a limit, and returns the report.
func runReplay(t *testing.T, l *Ledger, q replay.Query) (replay.Report, error) {
	t.Helper()
	q.Sink = "s"
	return replay.Run(t.Context(), l, q, func(replay.Report) {})
}

// replayed returns what is put aside for the sink s, in short.
func replayed(t *testing.T, l *Ledger) (out []string) {
	t.Helper()
	got, err := l.Read(t.Context(), statesync.ReadQuery{Sink: "s", Aside: true, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range got {
		if o.Replayed {
			out = append(out, fmt.Sprintf("%s seq %d number %d after %d %v", o.ID, o.Seq, o.Number, o.PreviousSeq, o.Skipped))
		}
	}
	return out
}

// replays is a ledger with six changes, of which the sink s has settled five
// and put the second aside.
//
//	1 a-1   2 a-2 (parked)   3 b-1 Failed   4 b-2 Failed   5 a-3   6 a-4
func replays(t *testing.T, o Options) (l *Ledger, stop func() error) {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	stop = start(t, l)
	if _, err := l.Identify("c"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Cursor("s"); err != nil {
		t.Fatal(err)
	}
	b := entry("b", 1, 2)
	b.Changes[0].To, b.Changes[1].To = statesync.Failed, statesync.Failed
	record(t, l, entry("a", 1, 2), b, entry("a", 3, 2))
	put, err := l.Read(t.Context(), statesync.ReadQuery{Sink: "s", After: 1, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	saveNow(t, l, statesync.Progress{Sink: "s", Acked: 5, PutAside: put})
	return l, stop
}

// saveNow saves and waits until it is durable.
func saveNow(t *testing.T, l *Ledger, p statesync.Progress) {
	t.Helper()
	saved := make(chan struct{})
	p.Saved = func() { close(saved) }
	l.Save(p)
	<-saved
}

func TestReplayOfTheLog(t *testing.T) {
	t.Parallel()
	long, soon := epoch, time.Now().Add(time.Hour)
	key := statesync.Key{Namespace: "ns", Kind: "Pod", Name: "pod-b"}
	const a1, b1, b2, a3 = "a-1 seq 1 number 1 after 0 []", "b-1 seq 1 number 3 after 0 []", "b-2 seq 2 number 4 after 1 []", "a-3 seq 3 number 5 after 2 []"
	for name, tt := range map[string]struct {
		q    replay.Query
		want []string
	}{
		"all, but what comes anyway":   {replay.Query{From: 1}, []string{a1, b1, b2, a3}},
		"a part":                       {replay.Query{From: 3, To: 4}, []string{b1, b2}},
		"beyond the cursor":            {replay.Query{From: 6}, nil},
		"parked":                       {replay.Query{From: 2, To: 2}, nil},
		"a workload":                   {replay.Query{Workload: &key}, []string{b1, b2}},
		"a life":                       {replay.Query{UID: "a"}, []string{a1, a3}},
		"a state":                      {replay.Query{State: statesync.Failed, To: 3}, []string{b1}},
		"since long":                   {replay.Query{Since: long}, []string{a1, b1, b2, a3}},
		"since a time that is to come": {replay.Query{Since: soon}, nil},
		"until":                        {replay.Query{Until: long}, nil},
		"counted only":                 {replay.Query{From: 1, DryRun: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, _ := replays(t, options(t, t.TempDir()))
			_, wake := l.Head()
			r, err := runReplay(t, l, tt.q)
			if err != nil || !r.Ended || r.Cursor != 5 || r.Done != int64(len(tt.want)) || !tt.q.DryRun && r.Found != r.Done || tt.q.DryRun && r.Found != 4 {
				t.Errorf("report %+v, error %v", r, err)
			}
			if diff := cmp.Diff(tt.want, replayed(t, l)); diff != "" {
				t.Errorf("put aside (-want +got):\n%s", diff)
			}
			select {
			case <-wake:
			default:
				if tt.want != nil {
					t.Error("nobody was told that something was put aside")
				}
			}
		})
	}
}

// letters gives the sink s three dead letters: a change, a later one of the
// same workload, and an initial state of another.
func letters(t *testing.T, l *Ledger) {
	t.Helper()
	skipped := []statesync.Skip{{From: 2, To: 2, Cause: statesync.SkipFilter}}
	var all []statesync.DeadLetter
	for _, c := range append(entry("a", 3, 2).Changes, entry("z", 7, 1).Changes...) {
		all = append(all, statesync.DeadLetter{
			Delivery: statesync.Delivery{Change: c, PreviousSeq: 1, Skipped: skipped},
			Tries:    3, First: epoch, Last: epoch.Add(time.Duration(c.Seq) * time.Hour), Error: "status 422",
		})
	}
	all[0].Number = 5
	all[2].Initial, all[2].Skipped, all[2].PreviousSeq = true, nil, 0
	saveNow(t, l, statesync.Progress{Sink: "s", Acked: 5, Letters: all})
}

func TestReplayOfDeadLetters(t *testing.T) {
	t.Parallel()
	key := statesync.Key{Namespace: "ns", Kind: "Pod", Name: "pod-z"}
	const a3, a4, z7 = "a-3 seq 3 number 5 after 1 [{2 2 filter}]", "a-4 seq 4 number 0 after 1 [{2 2 filter}]", "z-7 seq 7 number 0 after 0 []"
	for name, tt := range map[string]struct {
		q    replay.Query
		want []string
	}{
		"all":        {replay.Query{}, []string{a3, a4, z7}},
		"some":       {replay.Query{IDs: []int64{1, 3, 9}}, []string{a3, z7}},
		"a workload": {replay.Query{Workload: &key}, []string{z7}},
		"a life":     {replay.Query{UID: "a"}, []string{a3, a4}},
		"a time":     {replay.Query{Since: epoch.Add(4 * time.Hour), Until: epoch.Add(5 * time.Hour)}, []string{a4}},
		"a state":    {replay.Query{State: statesync.Failed}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, _ := replays(t, options(t, t.TempDir()))
			letters(t, l)
			tt.q.Letters = true
			r, err := runReplay(t, l, tt.q)
			if err != nil || !r.Ended || r.Done != int64(len(tt.want)) || r.Found != r.Done {
				t.Errorf("report %+v, error %v", r, err)
			}
			if diff := cmp.Diff(tt.want, replayed(t, l)); diff != "" {
				t.Errorf("put aside (-want +got):\n%s", diff)
			}
			sinks, err := l.Sinks(t.Context())
			if err != nil || sinks[0].Letters != 3-r.Done || sinks[0].Aside != 1+r.Done {
				t.Errorf("sinks %+v, error %v, want the letters to have gone aside", sinks, err)
			}
		})
	}
}

// TestALetterThatIsRefusedAgainIsLeftAlone: else a replay would never end.
func TestALetterThatIsRefusedAgainIsLeftAlone(t *testing.T) {
	t.Parallel()
	l, _ := replays(t, options(t, t.TempDir()))
	letters(t, l)
	again := 0
	r, err := replay.Run(t.Context(), l, replay.Query{Sink: "s", Letters: true, Rate: 100_000}, func(r replay.Report) {
		if again++; again < 10 {
			letters(t, l)
		}
	})
	if err != nil || r.Done != 3 {
		t.Errorf("report %+v, error %v, want the three that were there", r, err)
	}
}

func TestReplayIsRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sink string
		make func(t *testing.T, l *Ledger)
		want string
	}{
		"of an unknown sink":        {"z", func(*testing.T, *Ledger) {}, "the ledger has no such sink"},
		"of one that is not of now": {"s", func(t *testing.T, l *Ledger) { l.Release("s"); other(t, l) }, "the sink is not configured"},
		"of a detached one": {"s", func(t *testing.T, l *Ledger) {
			saveNow(t, l, statesync.Progress{Sink: "s", Acked: 5, Detach: statesync.DetachedGone})
		}, "the sink is detached: attach it first"},
		"when there is no room": {"s", func(_ *testing.T, l *Ledger) {
			l.writing.Lock()
			defer l.writing.Unlock()
			l.opts.MaxBytes = 1000
		}, "the ledger is nearly full"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, _ := replays(t, options(t, t.TempDir()))
			tt.make(t, l)
			_, err := replay.Run(t.Context(), l, replay.Query{Sink: tt.sink, From: 1}, func(replay.Report) {})
			if !errors.Is(err, replay.ErrRefused) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if got := replayed(t, l); got != nil {
				t.Errorf("put aside %v, want nothing", got)
			}
		})
	}
}

func other(t *testing.T, l *Ledger) {
	t.Helper()
	if _, err := l.Cursor("other"); err != nil {
		t.Fatal(err)
	}
}

// TestWhatHasGoneMeanwhileIsLeftOut: what is parked after it was counted, or
// is not there any more.
func TestWhatHasGoneMeanwhileIsLeftOut(t *testing.T) {
	t.Parallel()
	l, _ := replays(t, options(t, t.TempDir()))
	letters(t, l)
	for _, tt := range []struct {
		q      replay.Query
		places []int64
		want   int
	}{
		{replay.Query{Sink: "s"}, []int64{1, 2, 99}, 1},
		{replay.Query{Sink: "s", Letters: true}, []int64{2, 99}, 1},
		{replay.Query{Sink: "s", Letters: true}, []int64{2}, 0},
	} {
		if n, err := l.Replay(t.Context(), &tt.q, tt.places); err != nil || n != tt.want {
			t.Errorf("%v (dead letters %t): %d put aside, error %v, want %d", tt.places, tt.q.Letters, n, err, tt.want)
		}
	}
}
