// Package statesync is the vocabulary of the change path: what a change of a workload's state is, and what the log and the sinks promise each other.
//
// It imports only the standard library.
package statesync

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// State is where a workload is in its life.
type State string

// The states. Queued and Running may alternate (a Job is suspended, a web app
// loses its replicas); the others are ends, and nothing follows an end.
const (
	Queued    State = "Queued"
	Running   State = "Running"
	Succeeded State = "Succeeded"
	Failed    State = "Failed"
	Cancelled State = "Cancelled"
	Deleted   State = "Deleted"   // left without an end of its own
	Untracked State = "Untracked" // left what the configuration selects; it may well live on
)

// Ended reports whether nothing follows the state.
func (s State) Ended() bool { return s != "" && s != Queued && s != Running }

// Key names a workload over the lives that its name may have. All changes
// with one key keep their order.
type Key struct {
	Kind, Namespace, Name string
}

// String returns namespace/kind/name.
func (k Key) String() string { return k.Namespace + "/" + k.Kind + "/" + k.Name }

// Ref names one life of one workload.
type Ref struct {
	Kind      string            `json:"kind"`
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	UID       string            `json:"uid"`
	Labels    map[string]string `json:"labels"`
}

// Key returns the key that the workload's changes share.
func (r Ref) Key() Key { return Key{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name} }

// A Change is one change of one workload's state, or a gap. It holds what is
// true for every sink; what is true for one sink alone is in [Delivery].
type Change struct {
	Number   int64  `json:"-"` // position in the log, from 1, without holes
	Previous int64  `json:"-"` // Number of this UID's change before; 0: none
	ID       string `json:"id"`
	Cluster  string `json:"cluster"`
	Epoch    int64  `json:"epoch"`
	Workload Ref    `json:"workload"`
	From     State  `json:"from"` // empty: the workload was not known before
	To       State  `json:"to"`
	Reason   string `json:"reason"`
	Message  string `json:"message"`
	ExitCode *int32 `json:"exit_code,omitempty"`
	Seq      int64  `json:"seq"` // from 1 for each UID, without holes

	Occurred time.Time `json:"occurred"` // by the cluster's clocks, whole seconds
	Observed time.Time `json:"observed"` // when the agent read it
	Recorded time.Time `json:"-"`        // when the log wrote it, just before it was durable

	Reconstructed bool `json:"reconstructed"` // filled in between two states that were seen
	ObservedLate  bool `json:"observed_late"` // found by a list or an audit, not by the live watch

	// Gap is set when this is no change of a workload but a hole in what is
	// known of a stream, which Workload then names.
	Gap *Gap `json:"gap,omitempty"`
}

// A Row is what the log remembers of one life of a workload, so that the next
// change can be told from a repeat. It is written with the changes it sums up.
type Row struct {
	Ref
	Stream          string // the workload's own; empty: one that is not watched any more
	State           State
	Reason          string
	Epoch           int64 // of its last change, and of ResourceVersion
	Seq             int64
	ResourceVersion uint64    // of the last event of the workload's own stream that changed the row
	Suspended       bool      // its pods may not move it
	Started         time.Time // when the present run began; zero: not known
	Suspension      time.Time // when it was last suspended; zero: never, as far as is known
	Gone            bool      // the object no longer exists
	Removed         uint64    // resourceVersion at which it was gone; 0: not known
}

// A Living is where one life of a workload stands.
type Living struct {
	Ref
	State State
	Since time.Time // Occurred of the change that led to State; zero: not known
}

// ChangeID returns the ID of a change: the same for a repeat of it, whoever
// computes it. resource and resourceVersion are those of the event that
// caused it; owner is the owner's last emitted resourceVersion when that
// event was a folded pod's, the seq when the change leads to or from
// Untracked, or comes of other rules, which no event need cause, the event's
// own when it begins a workload that the event tells more of, else 0. An end that cannot be taken back hashes
// none of them, so that the end seen live and the one reconstructed later are
// the same change.
func ChangeID(cluster string, epoch int64, uid, resource string, resourceVersion, owner uint64, to State) string {
	h := sha256.New()
	part := func(s string) {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	number := func(v uint64) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], v)
		h.Write(n[:])
	}
	part(cluster)
	number(uint64(epoch))
	part(uid)
	if to.Ended() && to != Untracked {
		part("end")
	} else {
		part(resource)
		number(resourceVersion)
		number(owner)
		part(string(to))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
