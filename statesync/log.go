package statesync

import (
	"context"
	"time"
)

// A Log is the durable, ordered record of changes, as those see it who write
// it.
type Log interface {
	// Append hands over an entry and returns before it is durable; entries
	// become durable in the order in which they were handed over. It blocks
	// while the log is behind, and returns an error only when ctx ends or the
	// log is closed: then the entry was not taken.
	Append(ctx context.Context, e Entry) error
}

// An Entry is all that one event causes: it becomes durable whole or not at
// all.
type Entry struct {
	Changes []Change // may be empty; Number and Recorded are set by the log
	Row     Row      // the workload after the changes
	Done    func()   // called once the entry is durable; must not block
}

// A Cursor is how far a sink has acknowledged.
type Cursor struct {
	Sink  string
	Since int64 // the log's head when the sink was first seen: it is offered what comes after
	Acked int64 // every change up to this number is acknowledged
}

// A Sink takes deliveries away. A Deliver that returns nil has made all of
// them the receiver's own; after an error none counts as taken, and all may
// be delivered again, in the same order and with the same IDs. Only one
// Deliver at a time holds changes of one key.
type Sink interface {
	Deliver(ctx context.Context, ds []Delivery) error
}

// An OrderedSink takes everything in the log's order, from one goroutine, in
// batches. A sink that is not ordered gets one delivery a call, from several
// goroutines.
type OrderedSink interface {
	Sink
	Ordered()
}

// A SinkError says more about why a delivery was not taken.
type SinkError struct {
	Cause string        // a word for metrics: timeout, network, status_5xx ...; few different ones
	After time.Duration // how long the receiver asked to be left alone; 0: it did not
	Err   error
}

func (e *SinkError) Error() string { return e.Err.Error() }

// Unwrap returns the error itself.
func (e *SinkError) Unwrap() error { return e.Err }
