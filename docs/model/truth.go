package main

import "fmt"

// change is one true change of a workload, as the API server's history has it.
type change struct {
	state, version uint8
	optional       bool // may be passed over: an end or a suspension came as well, and the order is not known
}

// changes returns the true changes of a UID, and the version that removed it.
func (c *config) changes(s *state, u uint8) (all []change, gone uint8) {
	var end change
	var suspensions []change
	var state, podRan uint8
	for i, e := range s.log[:s.head] {
		v := uint8(i) + 1
		switch {
		case e.uid != u:
		case e.stream == pod:
			if e.state == running && e.kind != removed && podRan == 0 {
				podRan = v
			}
		case e.kind == removed:
			gone = v
			if !hasEnded(state) {
				state, end = deleted, change{deleted, v, false}
			}
		case e.state == state || hasEnded(state):
		case c.Pods && state != 0 && e.state != succeeded: // suspended or resumed: a change only if pods had moved it
			state = e.state
			suspensions = append(suspensions, change{queued, v, true}, change{running, v, true})
		default:
			state = e.state
			if hasEnded(state) {
				end = change{succeeded, v, false}
			} else {
				all = append(all, change{state, v, false})
			}
		}
	}
	if podRan > 0 {
		all = append(all, change{running, podRan, end.state != 0 || suspensions != nil})
		all = append(all, suspensions...)
	}
	if end.state != 0 {
		all = append(all, end)
	}
	return all, gone
}

// matching is what the rows of a UID report of its true changes.
type matching struct {
	all       []change
	reported  uint16 // bit i: all[i] is in a row
	last      uint8  // state in the last row
	violation string
}

func (m *matching) told(i int) bool { return m.reported>>i&1 == 1 }

// match finds for each row of a UID the true change that it reports.
func (c *config) match(s *state, u uint8) (m matching) {
	if s.setBacks > 0 {
		return c.matchEpochs(s, u)
	}
	var gone, seq uint8
	m.all, gone = c.changes(s, u)
	at := -1
	for i, r := range s.rows[:s.last] {
		if r.uid != u {
			continue
		}
		switch {
		case hasEnded(m.last):
			m.violation = fmt.Sprintf("P5 resurrection: row %d %s after the end of u%d", i+1, r, u)
		case r.seq != seq+1:
			m.violation = fmt.Sprintf("P4 seq: row %d %s follows seq %d of u%d", i+1, r, seq, u)
		}
		if m.violation != "" {
			return m
		}
		seq, m.last = r.seq, r.state
		if k := c.sameID(s, i); k >= 0 {
			m.violation = fmt.Sprintf("P2 two changes with one ID: rows %d and %d %s", k+1, i+1, r)
			return m
		}
		if r.state == deleted && gone == 0 {
			m.violation = fmt.Sprintf("P8 false delete: row %d %s", i+1, r)
			return m
		}
		if at = c.reports(r, m.all, at, gone); at < 0 {
			m.violation = fmt.Sprintf("P2 one change reported twice, or out of order: row %d %s of u%d matches no further true change", i+1, r, u)
			return m
		}
		m.reported |= 1 << at
	}
	return m
}

// sameID returns an earlier row with the ID of row i, or -1.
func (c *config) sameID(s *state, i int) int {
	r := s.rows[i]
	for k, o := range s.rows[:i] {
		if o.uid == r.uid && o.state == r.state && o.stream == r.stream && o.version == r.version && o.epoch == r.epoch && (!c.Rules.PodID || o.owner == r.owner) {
			return k
		}
	}
	return -1
}

// reports returns which true change after the one at a row reports, or -1.
// With pods the versions of two streams are not compared; beyond the history
// a true end is not known, and Deleted may stand for it.
func (c *config) reports(r row, all []change, at int, gone uint8) int {
	best := -1
	for j := at + 1; j < len(all); j++ {
		t := all[j]
		if t.state != r.state && !(r.state == deleted && t.state == succeeded && r.origin == reconstructed && gone > 0) {
			continue
		}
		if t.version == r.version || c.Pods {
			return j
		}
		if t.version <= r.version {
			best = j
		}
	}
	return best
}
