package main

// The kinds of actions.
const (
	actEvent uint8 = iota
	actCompact
	actBreak
	actCrash
	actConnect
	actRelist
	actDeliver
	actBookmark
	actFeed
	actReduce
	actCommit
	actRequeue
	actRetry
	actFlush
	actResumeAlone
	actHandLate
	actSend
	actAck
	actStoreAcks
	actRetain
	actDrop
	actAuditList
	actAuditGet
	actAuditApply
	actSetBack
	actNotice
	actEpoch
	actLateEpoch
)

// action says what led from one state to the next, for traces.
type action struct{ kind, a, b uint8 }

// explorer walks the transition relation of one configuration.
type explorer struct {
	*config
	s    *state // where it stands
	n    state  // the successor being made; one for all, because a state is large
	emit func(n *state, a action, violation string)
	busy bool // an action of the agent, not of its surroundings, is possible
}

// next hands every successor of s to emit, and reports whether the agent can
// do anything: where it cannot, it is at rest.
//
// The order of what follows decides which of several shortest counterexamples
// is found.
func (x *explorer) next(s *state, emit func(*state, action, string)) (busy bool) {
	x.s, x.emit, x.busy = s, emit, false
	x.apiServer()
	x.setBack()
	x.crash()
	for st := range x.streams() {
		x.breakWatch(st)
		x.connect(st)
		x.watch(st)
		x.feed(st)
		x.handLate(st)
	}
	x.newEpoch()
	x.auditor()
	x.workers()
	x.committer()
	x.flusher()
	x.sink()
	x.retention()
	return x.busy
}

// begin returns a copy of the present state to be made a successor.
func (x *explorer) begin() *state {
	x.n = *x.s
	return &x.n
}

// surroundings hands over a successor that the agent did not make.
func (x *explorer) surroundings(kind, a, b uint8) { x.emit(&x.n, action{kind, a, b}, "") }

// agent hands over a successor that the agent made.
func (x *explorer) agent(kind, a, b uint8, violation string) {
	x.busy = true
	x.emit(&x.n, action{kind, a, b}, violation)
}
