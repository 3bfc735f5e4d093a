package main

// Streams: job is the workload's own; pod is folded into it.
const (
	job uint8 = 0
	pod uint8 = 1
)

// States of a workload. Succeeded ends it while the object is still there;
// Deleted ends it without an end of its own.
const (
	queued    uint8 = 1
	running   uint8 = 2
	succeeded uint8 = 3
	deleted   uint8 = 4
	suspended uint8 = 5 // of a job's object: Queued by its condition
	isGap     uint8 = 9 // of a row: no change, a gap
)

// Types of events and deltas.
const (
	added    uint8 = 1
	modified uint8 = 2
	removed  uint8 = 3
)

// What else goes through the committer's queue, in the place of a type.
const (
	gapAhead  uint8 = 4 // the gap that a relist comes with
	firstList uint8 = 5 // the objects of a first list, and its version
	chunk     uint8 = 6 // a part of a flush; its state is which
)

// How a delta came about.
const (
	live          uint8 = 0
	reconstructed uint8 = 1 // by a list or an audit: the mark waits for it
	kept          uint8 = 2 // by a first list: durable before it was reduced, so the mark need not wait
)

// Sizes of what a state can hold. A search that needs more panics: it must
// not be cut without a word.
const (
	maxEvents  = 7
	maxUIDs    = 4 // and one: UIDs count from 1
	maxRows    = 12
	maxPending = 6
	maxQueue   = 6
	maxRelist  = 5
	keys       = 3 // lanes too: two keys and the gaps
)

// event is one entry of the API server's history; its resourceVersion is its
// place in it, from 1.
type event struct{ stream, uid, kind, state uint8 }

// object is one object as someone holds it.
type object struct{ present, state, version uint8 }

// objects are those of one stream, by UID.
type objects [maxUIDs]object

// keep takes in what a delta says of its object.
func (o *objects) keep(d delta) {
	if d.kind == removed {
		o[d.uid] = object{}
	} else {
		o[d.uid] = object{here, d.state, d.version}
	}
}

// Values of object.present.
const (
	here   uint8 = 1
	unread uint8 = 2 // stored by a first list, not reduced yet: a start feeds it
)

// life is what is known of one UID: the workload's row.
type life struct {
	known, state, seq uint8
	end               uint8    // version that ended it
	gone              uint8    // version at which the object was gone; 0: it exists
	emitted           [2]uint8 // per stream: version of the last event that caused a change
	own               uint8    // the last state of the owner itself
	epoch             uint8    // of its last change: versions of an older one do not count
}

// delta is one event, or one difference that a list found, on its way through
// the agent.
type delta struct{ stream, uid, kind, state, version, origin uint8 }

// step is one change of a delta before it is a row.
type step struct{ state, seq uint8 }

// entry is all that becomes durable together.
type entry struct {
	delta      delta
	n          uint8
	steps      [2]step
	superseded uint8 // a later delta of its object has been settled before it
}

// row is one row of the ledger's changes. A gap has UID 0 and holds the
// stream and its two ends.
type row struct{ uid, seq, state, stream, version, origin, own, owner, epoch uint8 }

// state is everything, the API server included. It is flat and made of bytes,
// so that it can be hashed, compared and stored as it is.
type state struct {
	// The API server.
	log    [maxEvents]event
	head   uint8
	oldest uint8 // history at or below it is compacted: a watch from below it answers 410
	uids   uint8 // given so far
	key    [maxUIDs]uint8

	discarded [maxEvents]event // the history of before it was set back
	setBackTo uint8

	// The database: it survives a crash.
	rows      [maxRows]row
	last      uint8 // number of the last row
	trimmed   uint8 // rows up to here went by retention
	objects   [2]objects
	lives     [maxUIDs]life
	resume    [2]uint8
	resumable [2]uint8
	acks      [2]uint8
	epoch     uint8
	mustList  [2]uint8 // the stream was known in an older epoch, and not listed in this one
	lateEpoch uint8    // the epoch that should have begun already

	// Memory: it does not.
	indexer          [2]objects
	committedObjects [2]objects    // as of their last committed delta
	workerLives      [maxUIDs]life // as the workers see them
	committedLives   [maxUIDs]life
	version          [2]uint8 // the reflector's
	watching         [2]uint8
	pending          [keys][maxPending]delta
	npending         [keys]uint8
	relisted         [2][maxRelist]delta // of a relist, not in the pending lists yet
	nrelisted        [2]uint8
	late             [2]delta // what should have been handed over ahead of its list
	queue            [maxQueue]entry
	nqueue           uint8
	split            uint8 // rows of queue[0] that are durable already
	flush            flush
	ackedMem         [2]uint8
	inFlight         [keys]uint8 // row number, per lane
	draining         uint8       // the cluster was set back: no stream connects before the new epoch

	// What only the properties look at.
	first           [2]uint8 // version of the first list: what came before is not promised
	acked, received [2]uint8
	foreign         uint8 // the agent holds something of a discarded history

	// Budgets spent.
	crashes, breaks, compactions, retries uint8
	drops, audits, setBacks               uint8

	audit audit
}

// flush is a flush under way.
type flush struct {
	stage   uint8
	mark    [2]uint8
	objects [2]objects // as they are to be stored
	changed [2]uint8   // bit u: the object of UID u is to be stored
}

// Values of flush.stage: of no flush, of one whose first chunk is on its way
// or durable, and of one whose last chunk is on its way.
const (
	noFlush uint8 = iota
	firstChunk
	betweenChunks
	lastChunk
)

// audit is an audit under way.
type audit struct {
	list     uint8  // version of the list; 0: none
	uid      uint8  // under correction; 0: none
	answer   object // what the GET said; not present: 404
	compared object // what the indexer had
	at       uint8  // version of the GET
}

func hasEnded(st uint8) bool { return st == succeeded || st == deleted }

// npendingAll returns how many deltas are pending on all keys.
func (s *state) npendingAll() (n uint8) {
	for _, k := range s.npending {
		n += k
	}
	return n
}

// outstanding reports whether a delta is on its way.
func (s *state) outstanding() bool {
	for _, e := range s.queue[:s.nqueue] {
		if e.delta.kind <= removed {
			return true
		}
	}
	return s.npendingAll() > 0
}

// truth returns all objects as they were at a version.
func (s *state) truth(version uint8) (o [2]objects) { return truth(s.log[:version]) }

func truth(history []event) (o [2]objects) {
	for i, e := range history {
		o[e.stream].keep(delta{uid: e.uid, kind: e.kind, state: e.state, version: uint8(i) + 1})
	}
	return o
}

func set(bits *[2]uint8, i uint8)      { bits[i>>3] |= 1 << (i & 7) }
func has(bits *[2]uint8, i uint8) bool { return bits[i>>3]>>(i&7)&1 == 1 }
