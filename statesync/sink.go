package statesync

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// A Delivery is a change, a gap or a mark on its way to one sink.
type Delivery struct {
	Change
	PreviousSeq int64  // seq of this UID's last change that the sink was given; 0 at its start
	Skipped     []Skip // what lies between PreviousSeq and Seq, and was left out
	Initial     bool   // tells where a workload stands, to a sink that was not told before
	Replayed    bool   // sent again by command, with its old ID and seq

	// Mark is set when this is no change but an account of those before it.
	Mark *Mark
}

// A Skip is a run of changes of one workload that a sink was not given.
type Skip struct {
	From  int64  `json:"from"` // seq of the first
	To    int64  `json:"to"`   // seq of the last
	Cause string `json:"cause"`
}

// Why a sink was not given a change.
const (
	SkipFilter     = "filter"      // its configuration does not want it
	SkipCompacted  = "compacted"   // the ledger was full, and later changes of the workload say more
	SkipDeadLetter = "dead_letter" // it refused the change; a replay may bring it yet
	SkipBefore     = "before"      // the workload was let go before the sink was there
	SkipMissing    = "missing"     // the ledger has lost it
	SkipSeveral    = "several"     // many runs, for several of these reasons
)

// A Mark is an account of what a sink was given, by numbers of the log: so a
// receiver that has lost what it acknowledged finds out. Changes, Skipped and
// Waiting count the numbers above Previous, up to Number.
type Mark struct {
	Previous int64 `json:"previous"` // number of the mark before; 0: there is none
	Number   int64 `json:"number"`   // up to which the log was gone through
	Changes  int64 `json:"changes"`  // acknowledged
	Skipped  int64 `json:"skipped"`  // left out
	Waiting  int64 `json:"waiting"`  // refused for now, and to come later
}

// markKind is the kind of the [Ref] that a sink's marks are of: they have a
// lane of their own.
const markKind = "Mark"

// MarkDelivery returns a mark as it is delivered.
func MarkDelivery(sink, cluster string, epoch int64, m Mark, now time.Time) Delivery {
	h := sha256.Sum256(fmt.Appendf(nil, "mark\x00%s\x00%s\x00%d\x00%d", cluster, sink, m.Previous, m.Number))
	return Delivery{
		Change: Change{
			ID: hex.EncodeToString(h[:16]), Cluster: cluster, Epoch: epoch,
			Workload: Ref{Kind: markKind, Name: sink, UID: "sink/" + sink},
			Occurred: now, Observed: now, Recorded: now,
		},
		Mark: &m,
	}
}

// A Cursor is where a sink stands, as the log keeps it.
type Cursor struct {
	Sink     string
	Since    int64  // what comes after is offered; what was before, only as far as it was put aside
	Acked    int64  // every change up to this number is settled: acknowledged, left out, or put aside
	Position string // the sink's own word for where it stands, as of Acked
	Aside    int64  // deliveries put aside, without what is only to be told as left out
	AsideTop int64  // the highest place among what is put aside, and was before
	Marked   Mark   // the last one that was acknowledged
	Skipped  int64  // numbers left out since, up to Acked
	Waiting  int64  // numbers put aside since, up to Acked
	Letters  int64  // dead letters
	// Detached says why nothing is delivered any more, and nothing kept; empty:
	// it is. DetachedAt says since when.
	Detached   string
	DetachedAt time.Time
}

// Why a sink is detached.
const (
	DetachedFull = "full" // the ledger was, and the sink held the most of it
	DetachedGone = "gone" // the receiver answered that it wants nothing any more
)

// An Offered is a delivery as the log has it for one sink.
type Offered struct {
	Delivery
	Aside int64 // its place among what was put aside; 0: it is read from the log itself
	// Cause is set when the sink is not to be given it, but to be told, with
	// the workload's next change, that the seqs from FromSeq to Seq were left out.
	Cause   string
	FromSeq int64
	// Replaced reports whether a later change of the workload is in the log.
	Replaced bool
	// Told is what the sink was given of the workload before, when that is not
	// simply the change before; nil: it is.
	Told *Told
}

// Told is what a sink was given of a workload, and what was left out since.
// Without anything left out it is not kept: the sink was given the change
// before.
type Told struct {
	UID     string
	Seq     int64 // of the last change that it was given; 0: none
	Skipped []Skip
}

// A ReadQuery says what to read for a sink: of the log, or of what was put
// aside. That comes in the order of the log: first what is not of the log (an
// initial state, a replay), by place, then what the sink itself has put aside,
// by number. So it is read in the order of its lane, whatever was put aside
// first.
type ReadQuery struct {
	Sink       string
	After      int64 // numbers above it; with Aside, 0 for what is not of the log
	AfterAside int64 // with Aside: and of the same number (or none), places above it
	Limit      int
	Aside      bool
	Lane       *Key // of what was put aside, that of this lane alone; nil: all
	// Fresh leaves out what the sink itself has put aside: it knows of that.
	Fresh bool
}

// Progress is what has become of a sink's deliveries since the last one. It
// becomes durable as a whole.
type Progress struct {
	Sink     string
	Acked    int64
	Position string
	Skipped  int64 // as in Cursor
	Marked   *Mark // nil: as before

	PutAside  []Offered // refused for now; in their order
	Settled   []int64   // places of what was put aside and is so no more
	Compacted []int64   // places of changes put aside that are to be told as left out, by [SkipCompacted]
	Told      []Told    // in place of what was kept of the same UIDs
	Letters   []DeadLetter
	Detach    string // nothing is to be delivered any more; empty: as before

	Saved func() // called once it is durable; must not block; nil: nobody waits
}

// A DeadLetter is a delivery that a sink refused as such.
type DeadLetter struct {
	Delivery
	Tries int
	First time.Time // of the tries
	Last  time.Time
	Error string
}

// A Sink takes deliveries away. A Deliver that returns nil has made all of
// them the receiver's own. After a [BatchError] those without an error are;
// after any other none counts as taken, and all may be delivered again, in the
// same order and with the same IDs. Only one Deliver at a time holds changes
// of one key.
type Sink interface {
	Deliver(ctx context.Context, ds []Delivery) error
}

// An OrderedSink takes everything in the log's order, from one goroutine, in
// batches. A sink that is not ordered gets deliveries from several goroutines.
type OrderedSink interface {
	Sink
	Ordered()
}

// A BatchingSink is not ordered and takes up to Batch deliveries at once. The
// deliveries of one key are next to each other, in order.
type BatchingSink interface {
	Sink
	Batch() int
}

// A PositionedSink has a word for where it stands, which is kept with the
// cursor: a start after a crash can tell what was written beyond it.
type PositionedSink interface {
	Sink
	// Position is where the sink stands after its last Deliver. It is called
	// from the same goroutine.
	Position() string
	// Resume is called once, before the first Deliver: everything up to the
	// position was acknowledged, and what came after it comes again. It is
	// empty for a sink that was never given anything, and for one whose
	// position is not known.
	Resume(position string) error
}

// A BatchError says what became of each delivery of a batch.
type BatchError struct {
	Errs []error // by delivery; nil: it was taken
}

func (e *BatchError) Error() string {
	failed, first := 0, error(nil)
	for _, err := range e.Errs {
		if err != nil {
			if failed++; first == nil {
				first = err
			}
		}
	}
	return fmt.Sprintf("%d of %d changes: %v", failed, len(e.Errs), first)
}

// A SinkError says more about why a delivery was not taken.
type SinkError struct {
	Cause    string        // a word for metrics: timeout, network, status_5xx ...; few different ones
	After    time.Duration // how long the receiver asked to be left alone; 0: it did not
	Rejected bool          // the receiver refuses this delivery as such; others may pass
	Gone     bool          // the receiver wants nothing any more
	Err      error
}

func (e *SinkError) Error() string { return e.Err.Error() }

// Unwrap returns the error itself.
func (e *SinkError) Unwrap() error { return e.Err }
