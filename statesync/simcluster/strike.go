package simcluster

import (
	"context"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// strike has faults begin, strike again, and end, until ctx ends.
func (f *Faults) strike(ctx context.Context) {
	for {
		var timer <-chan time.Time
		if next := f.due(time.Now()); !next.IsZero() {
			timer = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-timer:
		case <-f.changed:
		}
	}
}

// due does what is due, and returns when the next is; zero: not before
// something changes.
func (f *Faults) due(now time.Time) (next time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var back []*Resource
	f.active = slices.DeleteFunc(f.active, func(a *active) bool {
		if !a.over(now) {
			return false
		}
		back = append(back, a.removed...)
		return true
	})
	for _, r := range back {
		f.giveBack(r)
	}
	for _, a := range f.active {
		if !a.next.IsZero() && !now.Before(a.next) {
			f.begin(a)
			a.next = time.Time{}
			if a.Every > 0 {
				a.next = now.Add(a.Every)
			}
		}
	}
	f.active = slices.DeleteFunc(f.active, func(a *active) bool { return a.done() })
	for _, a := range f.active {
		for _, t := range []time.Time{a.next, a.until} {
			if !t.IsZero() && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}

// giveBack has the cluster serve a resource again, unless another fault has it
// taken away too. The lock must be held.
func (f *Faults) giveBack(r *Resource) {
	for _, a := range f.active {
		if a.Kind == "remove" && r.named(a.Resource) {
			a.removed = append(a.removed, r)
			return
		}
	}
	f.cluster.Add(r)
}

// done reports whether nothing more comes of a fault, though it has no end.
func (a *active) done() bool {
	if a.Every > 0 || !a.next.IsZero() {
		return false
	}
	switch a.Kind {
	case "end-watch", "cut", "half-open", "compact", "set-back", "clock":
		return true
	case "swallow", "lose-delete", "gone", "too-many", "error":
		return a.Count > 0 && a.left == 0
	}
	return false
}

// begin does what a fault does at its beginning, or every time it strikes. The
// lock must be held.
func (f *Faults) begin(a *active) {
	switch a.Kind {
	case "end-watch", "forbid":
		f.ring(a.Resource, nil)
	case "gone":
		f.ring(a.Resource, apierrors.NewResourceExpired("too old resource version: simulated"))
	case "cut":
		f.cut(a)
	case "half-open":
		for _, c := range f.listener.all(a.spare) {
			c.halfOpen.Store(true)
		}
	case "swallow", "lose-delete":
		a.left, a.from = a.Count, f.cluster.Now()
	case "compact":
		f.cluster.Compact()
	case "clock":
		f.cluster.SetClock(a.By)
	case "set-back":
		f.cluster.SetBack(int64(a.Count))
		clear(f.untolds)
		f.cut(a)
	case "remove":
		for _, r := range f.cluster.Resources() {
			if r.named(a.Resource) {
				f.cluster.Remove(r)
				a.removed = append(a.removed, r)
			}
		}
	}
}

func (f *Faults) cut(a *active) {
	for _, c := range f.listener.all(a.spare) {
		c.cut()
	}
}
