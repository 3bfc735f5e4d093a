// Package sinktest holds a sink to the contract of statesync.Sink, whatever its kind.
package sinktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// Open opens a sink whose receiver has nothing yet. read is as in [Opened].
type Open func(t *testing.T) (sink statesync.Sink, read func() []string)

// OpenWith opens a sink of which more can be asked.
type OpenWith func(t *testing.T) Opened

// Opened is a sink, and what can be asked of its receiver.
type Opened struct {
	Sink statesync.Sink
	// Read returns the IDs of what the receiver has made its own, in the order
	// of acknowledgement; repeats may be in it, unless the sink is a
	// [statesync.PositionedSink]. It must still work when the sink is closed.
	Read func() []string
	// Refuse makes the receiver refuse a delivery as such from now on; nil: it
	// has no way to. What cannot be encoded the sink itself may refuse.
	Refuse func(id string)
	// Again opens another sink on what the receiver has, as after the
	// process's end. A PositionedSink must have it.
	Again func() (statesync.Sink, error)
}

// Run runs every case against a sink of its own.
func Run(t *testing.T, open Open) {
	RunWith(t, func(t *testing.T) Opened {
		sink, read := open(t)
		return Opened{Sink: sink, Read: read}
	})
}

// RunWith is Run for a sink of which more can be asked.
func RunWith(t *testing.T, open OpenWith) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			if err := c.check(open(t)); err != nil {
				t.Errorf("%v\n%s", err, c.why)
			}
		})
	}
}

// A check plays one case. Its error says what was seen; the case says why
// that is wrong.
type check func(o Opened) error

type testCase struct {
	name  string
	why   string
	check check
}

func cases() []testCase {
	return []testCase{
		{
			"what is acknowledged is taken",
			"A Deliver that returns nil has made the change the receiver's own: the ledger may forget it.",
			taken,
		},
		{
			"calls keep their order",
			"The changes of one workload come one after another and must be taken in that order.",
			ordered,
		},
		{
			"a batch is taken whole and in order",
			"Deliver acknowledges all of its deliveries or none.",
			batch,
		},
		{
			"nothing to deliver is no error",
			"An empty batch must neither fail nor send anything.",
			nothing,
		},
		{
			"a repeat is acknowledged",
			"Delivery is at least once: what was acknowledged may come again, with the same ID, and a sink that refuses it is stuck for ever.",
			repeat,
		},
		{
			"odd changes are taken",
			"Names, labels and messages are the cluster's own text: long, of many lines, not always UTF-8.",
			odd,
		},
		{
			"deliveries are left alone",
			"The deliveries are the caller's, who sends the same ones again after an error.",
			untouched,
		},
		{
			"an ended context leaves no doubt",
			"After nil the change is taken, context or not; after an error it comes again, and must then be taken.",
			endedContext,
		},
		{
			"workloads are taken at once",
			"A sink that is not ordered gets one delivery a call from several goroutines, and keeps the order of each.",
			concurrent,
		},
		{
			"what is acknowledged survives Close",
			"Nothing may wait in a buffer once it was acknowledged.",
			closed,
		},
		{
			"marks, gaps and what was left out are taken",
			"A mark accounts for what the receiver has, and a gap for what it has not: a sink that loses one lies.",
			accounts,
		},
		{
			"a delivery that is refused is named",
			"After a BatchError those without an error are taken, and may be forgotten; a refused one must not be overtaken by a later change of its workload.",
			refused,
		},
		{
			"a position is gone on from",
			"What was given after the position comes again after a crash, and must be there once.",
			resumed,
		},
		{
			"a sink that was given nothing has a position",
			"The first delivery of all may crash too.",
			resumedFromNothing,
		},
		{
			"a position need not be known",
			"A ledger that was lost has none: everything that is given is to be taken then, and what is there stays.",
			resumedWithout,
		},
	}
}

// delivery is the seq-th change of a workload.
func delivery(workload string, seq int64) statesync.Delivery {
	at := time.Date(2026, 3, 1, 12, 0, int(seq%60), 0, time.UTC)
	return statesync.Delivery{
		Change: statesync.Change{
			Number: seq, ID: fmt.Sprintf("%s-%d", workload, seq), Cluster: "c", Epoch: 1,
			Workload: statesync.Ref{Kind: "Pod", Namespace: "ns", Name: workload, UID: workload, Labels: map[string]string{"app": workload}},
			From:     statesync.Queued, To: statesync.Running, Reason: "Started", Seq: seq, Occurred: at, Observed: at, Recorded: at,
		},
		PreviousSeq: seq - 1,
	}
}

func deliver(sink statesync.Sink, ds ...statesync.Delivery) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := sink.Deliver(ctx, ds); err != nil {
		return fmt.Errorf("deliver %v: %w", ids(ds), err)
	}
	return nil
}

func ids(ds []statesync.Delivery) []string {
	out := make([]string, len(ds))
	for i, d := range ds {
		out[i] = d.ID
	}
	return out
}

// want compares what was read, without repeats, with the IDs of ds.
func want(read func() []string, ds ...statesync.Delivery) error {
	got := withoutRepeats(read())
	if !slices.Equal(got, ids(ds)) {
		return fmt.Errorf("the receiver has %q, want %q", got, ids(ds))
	}
	return nil
}

func withoutRepeats(ids []string) []string {
	seen := map[string]bool{}
	out := []string{}
	for _, id := range ids {
		if !seen[id] {
			out = append(out, id)
		}
		seen[id] = true
	}
	return out
}

func taken(o Opened) error {
	sink, read := o.Sink, o.Read
	a, b := delivery("a", 1), delivery("b", 1)
	return firstError(
		func() error { return deliver(sink, a) },
		func() error { return want(read, a) },
		func() error { return deliver(sink, b) },
		func() error { return want(read, a, b) },
	)
}

func ordered(o Opened) error {
	sink, read := o.Sink, o.Read
	var ds []statesync.Delivery
	for seq := range int64(20) {
		ds = append(ds, delivery("a", seq+1))
		if err := deliver(sink, ds[seq]); err != nil {
			return err
		}
	}
	return want(read, ds...)
}

func batch(o Opened) error {
	sink, read := o.Sink, o.Read
	var ds []statesync.Delivery
	for i := range int64(60) {
		ds = append(ds, delivery(fmt.Sprintf("w%d", i%3), i/3+1))
	}
	return firstError(
		func() error { return deliver(sink, ds[:50]...) },
		func() error { return want(read, ds[:50]...) },
		func() error { return deliver(sink, ds[50:]...) },
		func() error { return want(read, ds...) },
	)
}

func nothing(o Opened) error {
	sink, read := o.Sink, o.Read
	return firstError(
		func() error { return deliver(sink) },
		func() error { return want(read) },
	)
}

func repeat(o Opened) error {
	sink, read := o.Sink, o.Read
	a, b := delivery("a", 1), delivery("a", 2)
	return firstError(
		func() error { return deliver(sink, a, b) },
		func() error { return deliver(sink, a, b) },
		func() error { return deliver(sink, b) },
		func() error { return want(read, a, b) },
	)
}

func odd(o Opened) error {
	sink, read := o.Sink, o.Read
	lines, binary, long, bare := delivery("lines", 1), delivery("binary", 1), delivery("long", 1), delivery("bare", 1)
	lines.Message = "one\r\ntwo\n\"three\"\u2028four"
	binary.Message, binary.Reason = "\xff\xfe\x00\x1b[31m", "<&>"
	long.Message = strings.Repeat("long message ", 20_000)
	code := int32(-1)
	bare.Workload.Labels, bare.ExitCode, bare.Reason, bare.From = nil, &code, "", ""
	bare.Occurred, bare.Observed, bare.Recorded = time.Time{}, time.Time{}, time.Time{}
	for _, d := range []statesync.Delivery{lines, binary, long, bare} {
		if err := deliver(sink, d); err != nil {
			return err
		}
	}
	return want(read, lines, binary, long, bare)
}

func untouched(o Opened) error {
	sink, read := o.Sink, o.Read
	fresh := func() []statesync.Delivery {
		bare := delivery("bare", 1)
		bare.Workload.Labels = nil
		return []statesync.Delivery{delivery("a", 1), bare}
	}
	ds := fresh()
	if err := deliver(sink, ds...); err != nil {
		return err
	}
	if !reflect.DeepEqual(ds, fresh()) {
		return fmt.Errorf("deliveries are now %+v, want them as they were: %+v", ds, fresh())
	}
	clear(ds) // the caller uses its slice again
	return want(read, fresh()...)
}

func endedContext(o Opened) error {
	sink, read := o.Sink, o.Read
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	a, b := delivery("a", 1), delivery("a", 2)
	err := sink.Deliver(ended, []statesync.Delivery{a})
	if err == nil {
		if err := want(read, a); err != nil {
			return fmt.Errorf("after nil for an ended context: %w", err)
		}
	}
	return firstError(
		func() error { return deliver(sink, a) },
		func() error { return deliver(sink, b) },
		func() error { return want(read, a, b) },
	)
}

// concurrent gives an ordered sink, which has one caller, the same work from
// one goroutine.
func concurrent(o Opened) error {
	sink, read := o.Sink, o.Read
	const workloads, each = 8, 15
	_, one := sink.(statesync.OrderedSink)
	errs := make([]error, workloads)
	var group sync.WaitGroup
	for w := range workloads {
		work := func() {
			for seq := range int64(each) {
				if err := deliver(sink, delivery(fmt.Sprintf("w%d", w), seq+1)); err != nil {
					errs[w] = err
					return
				}
			}
		}
		if one {
			work()
		} else {
			group.Go(work)
		}
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	got := withoutRepeats(read())
	if len(got) != workloads*each {
		return fmt.Errorf("the receiver has %d changes, want %d", len(got), workloads*each)
	}
	next := map[string]int{}
	for _, id := range got {
		workload, _, _ := strings.Cut(id, "-")
		next[workload]++
		if wanted := fmt.Sprintf("%s-%d", workload, next[workload]); id != wanted {
			return fmt.Errorf("the receiver has %s where %s was due", id, wanted)
		}
	}
	return nil
}

func closed(o Opened) error {
	sink, read := o.Sink, o.Read
	a, b := delivery("a", 1), delivery("a", 2)
	return firstError(
		func() error { return deliver(sink, a) },
		func() error { return deliver(sink, b) },
		func() error {
			if c, ok := sink.(io.Closer); ok {
				return c.Close()
			}
			return nil
		},
		func() error { return want(read, a, b) },
	)
}

// firstError runs steps until one fails.
func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
