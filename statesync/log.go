package statesync

import (
	"context"
	"time"
)

// A Log is the durable, ordered record of changes, and of where the watch
// stood, as the watch sees it.
type Log interface {
	// Append hands over an entry and returns before it is durable; entries
	// become durable in the order in which they were handed over. It blocks
	// while the log is behind, and returns an error only when ctx ends or the
	// log is closed: then the entry was not taken.
	Append(ctx context.Context, e Entry) error
	// Load returns what is durable. What was appended and is not durable yet
	// may be missing.
	Load(ctx context.Context) (*Memory, error)
	// Objects yields the objects that are kept of a stream, until yield
	// returns an error, which it returns.
	Objects(ctx context.Context, stream string, yield func(Object) error) error
	// NewEpoch begins a new epoch: no stream can be gone on with, for the
	// reason given.
	NewEpoch(ctx context.Context, reason string) error
}

// An Entry is all that becomes durable together, whole or not at all: what
// one event causes, or a part of what is kept of a stream's objects. An entry
// that holds nothing keeps its place in the order, so that its Done comes
// after those of the entries before it.
type Entry struct {
	Changes []Change // Number, Previous and Recorded are set by the log
	Row     Row      // the workload after the changes; without UID: none
	Objects []Object // to be kept as they are here, or no longer
	Resume  *Resume  // how far a stream has come
	Forget  string   // a stream that is not watched any more: its objects and its resume point go
	Done    func()   // called once the entry is durable; must not block; nil: nobody waits
}

// An Object is one object of a stream, as of its last event that is durable
// with all that it caused.
type Object struct {
	Stream string
	UID    string
	Body   []byte // the watch's own encoding; nil: the object is gone
	Unread bool   // kept before what it causes was durable: to be read again at the start
}

// A Resume is how far a stream has come: all that its events at or below
// Version caused is durable, and so are its objects as of then.
type Resume struct {
	Stream     string
	Definition string    // what the stream selects; a stream that selects something else is not gone on with
	Version    uint64    // resourceVersion
	At         time.Time // when the stream was there
	Lost       string    // why the API server cannot be asked for what came after
}

// A Memory is what the log holds of the time before.
type Memory struct {
	Epoch   int64
	Rows    []Row    // lives that events may still come for
	Streams []Resume // streams with a resume point, sorted by name
	// Stale is closed when the log had to begin anew: what was loaded no
	// longer holds, and is to be loaded again.
	Stale <-chan struct{}
}
