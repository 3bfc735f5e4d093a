package sinktest

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// accounts delivers everything that is no plain change.
func accounts(o Opened) error {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	gap := delivery("gap", 1)
	gap.Workload = statesync.StreamRef("pods")
	gap.Gap = &statesync.Gap{Stream: "pods", Reason: statesync.GapDetached, From: at, To: at.Add(time.Minute)}
	initial, after, replayed := delivery("a", 4), delivery("a", 7), delivery("a", 5)
	initial.Initial, initial.PreviousSeq = true, 0
	after.PreviousSeq = 4
	after.Skipped = []statesync.Skip{{From: 5, To: 5, Cause: statesync.SkipDeadLetter}, {From: 6, To: 6, Cause: statesync.SkipFilter}}
	replayed.Replayed = true
	mark := statesync.MarkDelivery("s", "c", 1, statesync.Mark{Previous: 3, Number: 9, Changes: 4, Skipped: 2}, at)
	ds := []statesync.Delivery{initial, gap, after, mark, replayed}
	for _, d := range ds {
		if err := deliver(o.Sink, d); err != nil {
			return err
		}
	}
	return want(o.Read, ds...)
}

// refused gives a batch of several workloads, some of whose changes are
// refused: by the sink because JSON has no such year, or by the receiver.
func refused(o Opened) error {
	var ds []statesync.Delivery
	bad := map[string]bool{}
	for _, workload := range []string{"a", "b", "c", "d"} {
		for seq := range int64(4) {
			ds = append(ds, delivery(workload, seq+1))
		}
	}
	const year = 9 // the second change of c
	ds[year].Occurred = ds[year].Occurred.AddDate(9000, 0, 0)
	bad[ds[year].ID] = true
	if o.Refuse != nil {
		for _, i := range []int{4, 15} { // the first of b, the last of d
			o.Refuse(ds[i].ID)
			bad[ds[i].ID] = true
		}
	}
	left, err := deliverSome(o, ds)
	if err != nil {
		return err
	}
	// Without the refused ones the rest is taken.
	for _, d := range left {
		if bad[d.ID] {
			continue
		}
		if err := deliver(o.Sink, d); err != nil {
			return err
		}
	}
	got := withoutRepeats(o.Read())
	for _, d := range ds {
		if !bad[d.ID] && !slices.Contains(got, d.ID) {
			return fmt.Errorf("the receiver has %q, want %s too", got, d.ID)
		}
	}
	return nil
}

// deliverSome delivers a batch and holds what Deliver said to what the receiver
// has. It returns those that are to be delivered again.
func deliverSome(o Opened, ds []statesync.Delivery) (left []statesync.Delivery, err error) {
	err = deliver(o.Sink, ds...)
	batchErr, some := errors.AsType[*statesync.BatchError](err)
	switch {
	case err == nil:
		return nil, onlyTaken(make([]error, len(ds)), ds, o.Read())
	case !some: // none counts as taken
		return ds, nil
	case len(batchErr.Errs) != len(ds):
		return nil, fmt.Errorf("%d errors for %d deliveries", len(batchErr.Errs), len(ds))
	}
	for i, e := range batchErr.Errs {
		if e != nil {
			left = append(left, ds[i])
		}
	}
	if len(left) == 0 {
		return nil, errors.New("a BatchError without an error: want nil")
	}
	return left, onlyTaken(batchErr.Errs, ds, o.Read())
}

func onlyTaken(errs []error, ds []statesync.Delivery, got []string) error {
	behind := map[statesync.Key]string{}
	for i, d := range ds {
		has, key := slices.Contains(got, d.ID), d.Workload.Key()
		switch first := behind[key]; {
		case errs[i] == nil && !has:
			return fmt.Errorf("%s was acknowledged, and the receiver has %q", d.ID, got)
		case first != "" && (has || errs[i] == nil):
			return fmt.Errorf("%s was taken, and %s before it was not: the receiver has %q", d.ID, first, got)
		case errs[i] != nil && first == "":
			behind[key] = d.ID
		}
	}
	return nil
}

// resumed ends a sink and opens another one with an older position.
func resumed(o Opened) error {
	sink, ok := o.Sink.(statesync.PositionedSink)
	if !ok {
		return nil
	}
	a, b, c, d, e := delivery("a", 1), delivery("b", 1), delivery("a", 2), delivery("b", 2), delivery("a", 3)
	if err := firstError(
		func() error { return sink.Resume("") },
		func() error { return deliver(sink, a, b) },
	); err != nil {
		return err
	}
	position := sink.Position()
	return firstError(
		func() error { return deliver(sink, c) },
		func() error { return deliver(sink, d) },
		func() error { return again(o, &sink, position) },
		func() error { return deliver(sink, c, d, e) }, // in another batch than before
		func() error { return wantOnce(o, a, b, c, d, e) },
		func() error { return again(o, &sink, position) },
		func() error { return deliver(sink, c) },
		func() error { return again(o, &sink, sink.Position()) },
		func() error { return deliver(sink, d) },
		func() error { return deliver(sink, e) },
		func() error { return wantOnce(o, a, b, c, d, e) },
	)
}

func resumedFromNothing(o Opened) error {
	sink, ok := o.Sink.(statesync.PositionedSink)
	if !ok {
		return nil
	}
	a, b := delivery("a", 1), delivery("a", 2)
	if err := sink.Resume(""); err != nil {
		return err
	}
	position := sink.Position()
	if position == "" {
		return errors.New("the position is empty, want the place before the first delivery")
	}
	return firstError(
		func() error { return deliver(sink, a, b) },
		func() error { return again(o, &sink, position) },
		func() error { return deliver(sink, a) },
		func() error { return deliver(sink, b) },
		func() error { return wantOnce(o, a, b) },
	)
}

func resumedWithout(o Opened) error {
	sink, ok := o.Sink.(statesync.PositionedSink)
	if !ok {
		return nil
	}
	a, b, c := delivery("a", 1), delivery("a", 2), delivery("a", 3)
	return firstError(
		func() error { return deliver(sink, a) },
		func() error { return again(o, &sink, "") },
		func() error { return deliver(sink, b) },
		func() error { return again(o, &sink, "nonsense") },
		func() error { return deliver(sink, c) },
		func() error { return wantOnce(o, a, b, c) },
	)
}

// again opens a sink in place of another, at a position.
func again(o Opened, sink *statesync.PositionedSink, position string) error {
	if c, ok := (*sink).(io.Closer); ok {
		if err := c.Close(); err != nil {
			return fmt.Errorf("close: %w", err)
		}
	}
	if o.Again == nil {
		return errors.New("a PositionedSink that cannot be opened again: want Again, to see what a crash does")
	}
	opened, err := o.Again()
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	next, ok := opened.(statesync.PositionedSink)
	if !ok {
		return fmt.Errorf("opened again it is a %T, want a PositionedSink", opened)
	}
	if err := next.Resume(position); err != nil {
		return fmt.Errorf("resume %q: %w", position, err)
	}
	*sink = next
	return nil
}

// wantOnce is want for a receiver that has no repeats.
func wantOnce(o Opened, ds ...statesync.Delivery) error {
	if got := o.Read(); !slices.Equal(got, ids(ds)) {
		return fmt.Errorf("the receiver has %q, want %q, each once", got, ids(ds))
	}
	return nil
}
