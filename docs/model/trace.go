package main

import (
	"fmt"
	"slices"
	"strings"
)

// trace tells how a state was reached: one line a step. bad is the state
// after the last step; nil: from itself is where it ends.
func (g *graph) trace(c *config, from uint32, bad *state) []string {
	var chain []uint64
	for id := from; id != 0; id = g.seen.parents[id-1] {
		chain = append(chain, g.seen.fingerprints[id-1])
	}
	slices.Reverse(chain)
	x := &explorer{config: c}
	s := new(state)
	var lines []string
	for k := 1; k <= len(chain); k++ {
		var to *state
		x.next(s, func(n *state, a action, _ string) {
			if to != nil {
				return
			}
			if k < len(chain) && g.fingerprint(n) == chain[k] || k == len(chain) && bad != nil && *n == *bad {
				found := *n
				to = &found
				lines = append(lines, describe(s, n, a))
			}
		})
		if to != nil {
			s = to
		}
	}
	return lines
}

// describe says in a line what an action did.
func describe(s, n *state, a action) string {
	switch a.kind {
	case actEvent:
		e := n.log[n.head-1]
		return fmt.Sprintf("API     rv %d: %s (key %d)", n.head, delta{e.stream, e.uid, e.kind, e.state, n.head, live}, n.key[e.uid])
	case actCompact:
		return fmt.Sprintf("API     compacts up to rv %d", n.oldest)
	case actDrop:
		return fmt.Sprintf("API     LOSES %s", eventAt(s, a.b))
	case actCrash:
		return fmt.Sprintf("CRASH   and restart: %s", stored(n))
	case actBreak, actConnect, actRelist, actDeliver, actBookmark, actFeed:
		return describeWatch(s, n, a)
	case actReduce:
		return "worker  " + reduced(s, n, a)
	case actCommit, actRetry:
		return "commit " + committed(s, n)
	case actHandLate:
		return "relist  hands over " + s.late[a.a].String()
	case actRequeue:
		return "commit  fails; the entry goes back behind the others"
	case actFlush:
		if n.nqueue == s.nqueue {
			return "flush   writes around the queue: " + stored(n)
		}
		return fmt.Sprintf("flush   hands over %s", n.queue[n.nqueue-1])
	case actResumeAlone:
		return fmt.Sprintf("resume  point alone: %v", n.resume)
	case actAuditList:
		return fmt.Sprintf("audit   lists at rv %d", a.a)
	case actAuditGet:
		return fmt.Sprintf("audit   compares, GET u%d: %v", a.a, n.audit.answer)
	case actAuditApply:
		return fmt.Sprintf("audit   applies u%d", a.a)
	case actSetBack:
		return fmt.Sprintf("API     IS SET BACK to rv %d (was %d)", a.a, a.b)
	case actNotice:
		return fmt.Sprintf("watch   %s sees at rv %d that the cluster was set back (holds %d)", streamName(a.a), s.head, s.held())
	case actEpoch:
		return fmt.Sprintf("epoch   %d begins: %s", a.a, stored(n))
	case actLateEpoch:
		return fmt.Sprintf("epoch   %d begins, too late", n.epoch)
	case actSend:
		return fmt.Sprintf("send    row %d %s", a.b+1, s.rows[a.b])
	case actAck:
		return fmt.Sprintf("ack     row %d", a.b+1)
	case actStoreAcks:
		return "acks    stored"
	case actRetain:
		return fmt.Sprintf("retain  rows up to %d removed", a.a)
	}
	panic(fmt.Sprintf("BUG: no words for action %v", a))
}

func describeWatch(s, n *state, a action) string {
	switch a.kind {
	case actBreak:
		return fmt.Sprintf("API     the %s watch breaks", streamName(a.a))
	case actConnect:
		return fmt.Sprintf("watch   %s from rv %d", streamName(a.a), n.version[a.a])
	case actRelist:
		return fmt.Sprintf("relist  %s at rv %d (was %d)", streamName(a.a), a.b, s.version[a.a])
	case actDeliver:
		return "watch   receives " + eventAt(s, a.b).String()
	case actBookmark:
		return fmt.Sprintf("watch   %s bookmark %d", streamName(a.a), a.b)
	default:
		return "relist  feeds " + s.relisted[a.a][0].String()
	}
}

// eventAt returns the event at a version as the delta that it becomes.
func eventAt(s *state, version uint8) delta {
	e := s.log[version-1]
	return delta{e.stream, e.uid, e.kind, e.state, version, live}
}

// reduced says what a worker's delta caused.
func reduced(s, n *state, a action) string {
	if n.nqueue > s.nqueue {
		return n.queue[n.nqueue-1].String()
	}
	return s.pending[a.a][a.b].String() + " -> nothing, settled at once"
}

// committed says what became durable.
func committed(s, n *state) string {
	var b strings.Builder
	for i := s.last; i < n.last; i++ {
		fmt.Fprintf(&b, " row %d %s", i+1, n.rows[i])
	}
	if n.objects != s.objects || n.resume != s.resume || n.lives != s.lives {
		b.WriteString(" " + stored(n))
	}
	if b.Len() == 0 {
		return " nothing"
	}
	return b.String()
}

// stored is what of the watch is durable: objects, workloads and how far each
// stream has come.
func stored(s *state) string {
	var b strings.Builder
	b.WriteString("objects {")
	for st := range s.objects {
		for u, o := range s.objects[st] {
			if o.present != 0 {
				fmt.Fprintf(&b, " %s u%d %s@%d", streamName(uint8(st)), u, stateName(o.state), o.version)
			}
		}
	}
	b.WriteString(" } workloads {")
	for u, l := range s.lives {
		if l.known == 1 {
			fmt.Fprintf(&b, " u%d=%s#%d", u, stateName(l.state), l.seq)
		}
	}
	fmt.Fprintf(&b, " } resume %v", s.resume)
	return b.String()
}

func stateName(st uint8) string {
	return [...]string{"-", "Queued", "Running", "Succeeded", "Deleted", "Suspended", "", "", "", "GAP"}[st]
}

func streamName(st uint8) string { return [...]string{"job", "pod"}[st] }

// String is for traces.
func (d delta) String() string {
	switch d.kind {
	case gapAhead:
		return fmt.Sprintf("the gap of %s (%d,%d]", streamName(d.stream), d.state, d.version)
	case firstList:
		return fmt.Sprintf("the first list of %s at %d", streamName(d.stream), d.version)
	case chunk:
		return [...]string{firstChunk: "the first chunk", lastChunk: "the last chunk"}[d.state]
	}
	kind := [...]string{added: "ADDED", modified: "MODIFIED", removed: "DELETED"}[d.kind]
	return fmt.Sprintf("%s %s u%d %s@%d", streamName(d.stream), kind, d.uid, stateName(d.state), d.version)
}

// String is for traces.
func (e entry) String() string {
	if e.n == 0 && e.delta.kind > removed {
		return e.delta.String()
	}
	if e.n == 0 {
		return e.delta.String() + " -> nothing"
	}
	var b strings.Builder
	b.WriteString(e.delta.String() + " ->")
	for _, st := range e.steps[:e.n] {
		fmt.Fprintf(&b, " #%d %s", st.seq, stateName(st.state))
	}
	return b.String()
}

// String is for traces.
func (r row) String() string {
	if r.uid == 0 {
		return fmt.Sprintf("[gap %s (%d,%d]]", streamName(r.stream), r.seq, r.version)
	}
	text := fmt.Sprintf("[u%d #%d %s %s@%d", r.uid, r.seq, stateName(r.state), streamName(r.stream), r.version)
	if r.origin == reconstructed {
		text += " reconstructed"
	}
	return text + "]"
}
