package statesync

import "time"

// StreamKind is the kind of the [Ref] whose changes are the gaps of a stream:
// so a gap has a seq, an ID and a place in the log as any change has.
const StreamKind = "Stream"

// Why a stream has a gap.
const (
	GapExpired    = "Expired"         // the API server no longer holds the history
	GapRestored   = "ClusterRestored" // the cluster was set back to an earlier time
	GapLedgerLost = "LedgerLost"      // the agent's own record was damaged
	GapRedefined  = "Redefined"       // the stream selects something else than before
	GapDetached   = "Detached"        // the sink was not given anything for a time
)

// A Gap is an interval of which a stream knows where its workloads stood
// before and after, and not what happened in between: a workload that lived
// only then is not known at all.
type Gap struct {
	Stream string    `json:"stream"`
	Reason string    `json:"reason"`
	FromRV uint64    `json:"from_rv"` // everything up to here is known; 0: not known how far
	ToRV   uint64    `json:"to_rv"`   // the list that told where the workloads stand; below FromRV when the cluster was set back
	From   time.Time `json:"from_time"`
	To     time.Time `json:"to_time"`
	// FromNumber and ToNumber are set for a gap of one sink alone, whose stream
	// is sink/NAME: numbers of the log that it was not given are above the one
	// and up to the other.
	FromNumber int64 `json:"from_number,omitempty"`
	ToNumber   int64 `json:"to_number,omitempty"`
}

// StreamRef names a stream as the workload whose changes are its gaps.
func StreamRef(stream string) Ref {
	return Ref{Kind: StreamKind, Name: stream, UID: "stream/" + stream}
}
