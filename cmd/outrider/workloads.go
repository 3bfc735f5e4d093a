package main

import (
	"context"
	"time"

	"github.com/outrider-agent/outrider/checks"
	"github.com/outrider-agent/outrider/statesync"
)

// endShown is how long a workload is shown that has gone: longer than the time
// between two looks of most checks.
const endShown = 5 * time.Minute

// workloads are those that state sync knows, as checks read them.
type workloads struct {
	of interface {
		Living(ctx context.Context, since time.Time, yield func(statesync.Living) error) error
	}
	now func() time.Time
}

// Each implements [checks.Workloads]. One that is in its state nobody knows since
// when, as an earlier ledger may have them, is not shown: it would pass for stuck.
func (w *workloads) Each(ctx context.Context, yield func(checks.Workload)) error {
	return w.of.Living(ctx, w.now().Add(-endShown), func(l statesync.Living) error {
		if !l.Since.IsZero() {
			yield(checks.Workload{Kind: l.Kind, Namespace: l.Namespace, Name: l.Name, UID: l.UID, State: l.State, Since: l.Since, Labels: l.Labels})
		}
		return nil
	})
}
