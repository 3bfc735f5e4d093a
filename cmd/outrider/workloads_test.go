package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks"
	"github.com/outrider-agent/outrider/statesync"
)

// fakeLiving are workloads, of which reading may fail at the end.
type fakeLiving struct {
	all   []statesync.Living
	err   error
	since time.Time // as asked
}

func (f *fakeLiving) Living(_ context.Context, since time.Time, yield func(statesync.Living) error) error {
	f.since = since
	for _, l := range f.all {
		if err := yield(l); err != nil {
			return err
		}
	}
	return f.err
}

func TestWorkloads(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ref := statesync.Ref{Kind: "Pod", Namespace: "ns", Name: "a", UID: "u", Labels: map[string]string{"app": "a"}}
	f := &fakeLiving{all: []statesync.Living{{Ref: ref, State: statesync.Running, Since: now}, {Ref: ref, State: statesync.Queued}}}
	w := &workloads{of: f, now: func() time.Time { return now }}
	var got []checks.Workload
	if err := w.Each(t.Context(), func(one checks.Workload) { got = append(got, one) }); err != nil {
		t.Error(err)
	}
	want := []checks.Workload{{Kind: "Pod", Namespace: "ns", Name: "a", UID: "u", State: statesync.Running, Since: now, Labels: ref.Labels}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("workloads (-want +got):\n%s", diff)
	}
	if !f.since.Equal(now.Add(-5 * time.Minute)) {
		t.Errorf("those that have gone since %s, want the last 5 minutes", f.since)
	}
	f.err = errors.New("no disk")
	if err := w.Each(t.Context(), func(checks.Workload) {}); !errors.Is(err, f.err) {
		t.Errorf("got %v, want %v", err, f.err)
	}
}
