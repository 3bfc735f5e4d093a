package main

import "fmt"

// The properties:
//
//	P1 nothing is lost: every true change is in a row or in a gap, and every row is delivered
//	P2 nothing is told twice: no two rows with one ID, no row without a true change of its own
//	P3 order: a key's lives follow each other, in the ledger and at the sink
//	P4 seq counts every UID's changes from 1, without holes
//	P5 nothing follows an end
//	P6 the resume point is never ahead of what is durable
//	P7 at rest the last change told is where the workload stands
//	P8 nothing is told as deleted that exists
//	P9 at rest the indexer is what the API server has
//
// P2 to P6 and P8 are checked at every commit, flush and send; P1, P7 and P9
// wherever the agent is at rest. No run is endless (-cycles checks it), so
// what holds at every rest holds eventually.

// inGap reports whether a gap of the stream covers the version.
func (s *state) inGap(st, version uint8) bool {
	for _, r := range s.rows[:s.last] {
		if r.uid == 0 && r.stream == st && version > r.seq && version <= r.version {
			return true
		}
	}
	return false
}

// checkRows is for after a commit: the rows after from are new.
func (c *config) checkRows(s *state, from uint8) string {
	for u := uint8(1); u <= s.uids; u++ {
		if m := c.match(s, u); m.violation != "" {
			return m.violation
		}
	}
	for i := from; i < s.last; i++ {
		check := s.checkKeyOrder
		if s.setBacks > 0 {
			check = s.checkKeyOverEpochs
		}
		if v := check(i); v != "" {
			return v
		}
	}
	return ""
}

// checkCommit is for after a commit that made n of where x stands.
func (x *explorer) checkCommit(n *state) string {
	if v := x.checkRows(n, x.s.last); v != "" {
		return v
	}
	if n.resume != x.s.resume {
		return x.checkResume(n)
	}
	return ""
}

// checkKeyOrder holds a row to the rows before it of other UIDs of its key.
func (s *state) checkKeyOrder(i uint8) string {
	r := s.rows[i]
	for u := uint8(1); u <= s.uids && r.uid != 0; u++ {
		if u == r.uid || s.key[u] != s.key[r.uid] {
			continue
		}
		told, over := false, false
		for _, o := range s.rows[:i] {
			if o.uid == u {
				told, over = true, over || hasEnded(o.state)
			}
		}
		if u < r.uid && told && !over {
			return fmt.Sprintf("P3 ledger order: row %d %s before the end of u%d of the same key", i+1, r, u)
		}
		if u > r.uid && told {
			return fmt.Sprintf("P3 ledger order: row %d %s after the start of u%d of the same key", i+1, r, u)
		}
	}
	return ""
}

// checkSend is for before row i is sent in state s.
func (c *config) checkSend(s *state, i uint8) string {
	r := s.rows[i]
	if has(&s.received, i) || r.uid == 0 {
		return ""
	}
	for k, o := range s.rows[:s.last] {
		if o.uid == 0 || has(&s.acked, uint8(k)) {
			continue
		}
		if o.uid < r.uid && s.key[o.uid] == s.key[r.uid] {
			return fmt.Sprintf("P3 row %d %s is sent before row %d %s is acknowledged", i+1, r, k+1, o)
		}
		if o.uid == r.uid && uint8(k) < i {
			return fmt.Sprintf("P3 row %d %s is sent before row %d is acknowledged", i+1, r, k+1)
		}
	}
	return ""
}

// checkResume is for after a resume point may have moved.
func (c *config) checkResume(s *state) string {
	if s.drops > 0 {
		return "" // the API server broke its word
	}
	for u := uint8(1); u <= s.uids; u++ {
		m := c.match(s, u)
		for j, t := range m.all {
			if c.Pods && t.state == running || t.optional {
				continue // the pod is among the objects kept; its owner reads it there
			}
			if t.version <= s.resume[job] && t.version > s.first[job] && !m.told(j) && !s.inGap(job, t.version) {
				return fmt.Sprintf("P6 resume point %d ahead of what is durable: %s@%d of u%d is in no row and no gap", s.resume[job], stateName(t.state), t.version, u)
			}
		}
	}
	return ""
}

// checkRest is for a state in which the agent has nothing to do.
func (c *config) checkRest(s *state) string {
	truth := s.truth(s.head)
	for u := uint8(1); u <= s.uids; u++ {
		m := c.match(s, u)
		if v := c.checkLost(s, u, &m, truth[job][u].present == here); v != "" {
			return v
		}
		if s.setBacks > 0 && hasEnded(truth[job][u].state) && hasEnded(m.last) {
			continue // one of the two histories has this end, the other that
		}
		if v := c.checkStands(u, &m, truth[job][u], truth[pod][u]); v != "" {
			return v
		}
	}
	if v := c.checkIndexer(s, &truth); v != "" {
		return v
	}
	if v := s.checkEpochGap(); v != "" {
		return v
	}
	if c.Sink {
		for i := range s.last {
			if !has(&s.received, i) || !has(&s.acked, i) {
				return fmt.Sprintf("P1 row %d %s was never delivered", i+1, s.rows[i])
			}
		}
	}
	return ""
}

// checkLost looks for a true change that is in no row and no gap. Before the
// first list, only where the workload then stood is promised.
func (c *config) checkLost(s *state, u uint8, m *matching, exists bool) string {
	for j, t := range m.all {
		if m.told(j) || t.optional || s.drops > 0 || c.Pods && t.state == running {
			continue
		}
		if t.version <= s.first[job] && (j+1 < len(m.all) && m.all[j+1].version <= s.first[job] || m.reported == 0 && !exists) {
			continue
		}
		if !s.inGap(job, t.version) {
			return fmt.Sprintf("P1 lost: %s@%d of u%d was never reported and is in no gap", stateName(t.state), t.version, u)
		}
	}
	return ""
}

func (c *config) checkStands(u uint8, m *matching, owner, p object) string {
	if owner.present == 0 {
		if m.reported != 0 && !hasEnded(m.last) {
			return fmt.Sprintf("P7 at rest u%d is gone, was known, and its end was never reported", u)
		}
		return ""
	}
	want := owner.state
	switch {
	case want == suspended:
		want = queued
	case c.Pods && want == queued && (p.present == here && p.state == running || m.last == running):
		want = running
	}
	if m.last != want {
		return fmt.Sprintf("P7 at rest u%d exists and is %s but the last change reported is %s", u, stateName(want), stateName(m.last))
	}
	return ""
}

func (c *config) checkIndexer(s *state, truth *[2]objects) string {
	for st := range c.streams() {
		for u := uint8(1); u <= s.uids; u++ {
			if a, b := s.indexer[st][u], truth[st][u]; a != b {
				return fmt.Sprintf("P9 at rest the indexer has %s u%d %s@%d, the API server %s@%d", streamName(st), u, stateName(a.state), a.version, stateName(b.state), b.version)
			}
		}
	}
	return ""
}
