package main

import "fmt"

// The cluster may be set back to an earlier version once: what came after is
// discarded, and other events take those versions. The agent sees it when the
// collection's version is below what it holds. Then it finishes what it has,
// begins a new epoch, and lists.
//
// That is no proof: a cluster that has come further again than what the agent
// holds looks like any other. So the API server does not come that far here
// before the agent is back, and the agent does not lose, in a crash, what would
// have told it.

// setBack lets the cluster be set back to any earlier version. All watches end.
func (x *explorer) setBack() {
	s := x.s
	if s.setBacks >= x.SetBacks {
		return
	}
	for to := uint8(1); to < s.head; to++ {
		n := x.begin()
		n.setBacks++
		n.discarded, n.setBackTo = n.log, to
		for i := to; i < n.head; i++ {
			n.log[i] = event{}
		}
		n.head, n.oldest = to, min(n.oldest, to)
		n.watching = [2]uint8{}
		if n.held() > to {
			n.foreign = 1
		}
		x.surroundings(actSetBack, to, s.head)
	}
}

// held returns the highest version that the agent knows of: the reflector's,
// the kept objects', and those in the rows of this epoch. What a stream that
// must list had kept is of another epoch.
func (s *state) held() uint8 {
	v := s.version[job]
	if s.mustList[job] == 1 {
		return v
	}
	for u := uint8(1); u <= s.uids; u++ {
		v = max(v, s.objects[job][u].version)
		if l := s.lives[u]; l.epoch == s.epoch {
			v = max(v, l.emitted[job], l.gone)
		}
	}
	return v
}

// seesSetBack reports whether the agent sees at a reconnect that the cluster was set
// back. More epochs than set-backs would be a fault of a rule removed; they
// are not followed for ever.
func (x *explorer) seesSetBack(st uint8) bool {
	s := x.s
	held := s.held()
	if !x.Rules.EpochHeld {
		held = s.version[st]
	}
	return x.Rules.EpochRead && s.setBacks > 0 && s.epoch < s.setBacks && s.lateEpoch == 0 && s.knows(st) && s.head < held
}

// notice stops the streams until what they have is durable.
func (x *explorer) notice(st uint8) {
	n := x.begin()
	n.draining = 1
	if !x.Rules.EpochDrains {
		n.pending, n.npending = [keys][maxPending]delta{}, [keys]uint8{}
		n.queue, n.nqueue, n.split = [maxQueue]entry{}, 0, 0
		n.workerLives, n.flush = n.committedLives, flush{}
	}
	x.agent(actNotice, st, 0, "")
}

// newEpoch makes the epoch durable when everything before it is.
func (x *explorer) newEpoch() {
	s := x.s
	if s.lateEpoch == 1 && s.version[job] > 0 && !s.outstanding() && s.nqueue == 0 {
		n := x.begin()
		n.epoch++
		n.lateEpoch = 0
		x.agent(actLateEpoch, 0, 0, "")
	}
	if s.draining == 0 || s.outstanding() || s.nqueue > 0 || s.nrelisted != [2]uint8{} || s.late != [2]delta{} {
		return
	}
	n := x.begin()
	if x.Rules.EpochFirst {
		n.epoch++
	} else {
		n.lateEpoch = 1
	}
	if x.Rules.EpochLists {
		n.resume, n.resumable, n.version = [2]uint8{}, [2]uint8{}, [2]uint8{}
		n.mustList[job] = 1
	}
	if x.Rules.EpochEndsFlush {
		n.flush = flush{}
	}
	n.draining, n.foreign = 0, 0
	x.agent(actEpoch, n.epoch, 0, x.checkDrained(s))
}

// checkDrained is for before a new epoch: what was received of the history
// that was discarded is told.
func (c *config) checkDrained(s *state) string {
	before := *s
	before.log, before.head, before.setBacks = s.discarded, s.version[job], 0
	for u := uint8(1); u <= s.uids; u++ {
		m := c.match(&before, u)
		for j, t := range m.all {
			if t.version > s.first[job] && !m.told(j) && !s.inGap(job, t.version) {
				return fmt.Sprintf("P1 lost: %s@%d of u%d was received before the cluster was set back and is in no row", stateName(t.state), t.version, u)
			}
		}
	}
	return ""
}

// matchEpochs is match for a cluster that was set back: which of its two
// histories a row tells of is not known, so only the rows are held against
// each other.
func (c *config) matchEpochs(s *state, u uint8) (m matching) {
	var seq, epoch uint8
	for i, r := range s.rows[:s.last] {
		if r.uid != u {
			continue
		}
		anew := r.seq == 1 && r.epoch != epoch && hasEnded(m.last) // its tombstone was gone already
		switch k := c.sameID(s, i); {
		case hasEnded(m.last) && r.epoch == epoch:
			m.violation = fmt.Sprintf("P5 resurrection within an epoch: row %d %s after the end of u%d", i+1, r, u)
		case r.seq != seq+1 && !anew:
			m.violation = fmt.Sprintf("P4 seq: row %d %s follows seq %d of u%d", i+1, r, seq, u)
		case k >= 0:
			m.violation = fmt.Sprintf("P2 two changes with one ID: rows %d and %d %s", k+1, i+1, r)
		}
		if m.violation != "" {
			return m
		}
		seq, epoch, m.last, m.reported = r.seq, r.epoch, r.state, 1
	}
	return m
}

// checkKeyOverEpochs holds a row to the rows before it of other UIDs of its
// key: a life that a set-back brings back starts after the end of the one that
// came after it.
func (s *state) checkKeyOverEpochs(i uint8) string {
	r := s.rows[i]
	var last [maxUIDs]uint8
	for _, o := range s.rows[:i] {
		last[o.uid] = o.state
	}
	for u := uint8(1); u <= s.uids && r.uid != 0; u++ {
		if u != r.uid && s.key[u] == s.key[r.uid] && last[u] != 0 && !hasEnded(last[u]) {
			return fmt.Sprintf("P3 ledger order: row %d %s before the end of u%d of the same key", i+1, r, u)
		}
	}
	return ""
}

// checkEpochGap is for at rest: the receiver knows that a new epoch has begun.
func (s *state) checkEpochGap() string {
	if s.epoch == 0 {
		return ""
	}
	for _, r := range s.rows[:s.last] {
		if r.uid == 0 && r.epoch == s.epoch {
			return ""
		}
	}
	return "P1 at rest the cluster was set back and no gap says so"
}
