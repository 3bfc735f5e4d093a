package main

// auditor lists, waits until the stream's mark has reached the list, compares,
// asks for what differs, and corrects through the pending list of the key.
func (x *explorer) auditor() {
	if x.Audits == 0 {
		return
	}
	x.auditList()
	x.auditCompare()
	x.auditCorrect()
}

func (x *explorer) auditList() {
	s := x.s
	if s.audit.list != 0 || s.audit.uid != 0 || s.drops == 0 || s.head == 0 {
		return
	}
	truth, differs := s.truth(s.head), false
	for u := uint8(1); u <= s.uids; u++ {
		a, b := s.indexer[job][u], truth[job][u]
		differs = differs || a.present != b.present || a.version != b.version
	}
	n := x.begin()
	n.audit.list = n.head
	if differs && s.version[job] == s.head && s.watching[job] == 1 { // the next period always comes
		x.agent(actAuditList, n.head, 0, "")
	} else if s.audits < x.Audits {
		n.audits++
		x.surroundings(actAuditList, n.head, 0)
	}
}

func (x *explorer) auditCompare() {
	s := x.s
	if s.audit.list == 0 || x.lowWater(s, job) < s.audit.list {
		return
	}
	listed, now := s.truth(s.audit.list), s.truth(s.head)
	differs := false
	for u := uint8(1); u <= s.uids; u++ {
		a, b := s.indexer[job][u], listed[job][u]
		if a.present == b.present && (a.present == 0 || a.version >= b.version) {
			continue
		}
		differs = true
		n := x.begin()
		n.audit = audit{uid: u, answer: now[job][u], compared: a, at: n.head}
		x.agent(actAuditGet, u, 0, "")
	}
	if !differs {
		n := x.begin()
		n.audit = audit{}
		x.agent(actAuditGet, 0, 0, "")
	}
}

func (x *explorer) auditCorrect() {
	s := x.s
	u := s.audit.uid
	if u == 0 || s.npendingAll() >= maxPending-2 {
		return
	}
	n := x.begin()
	n.audit = audit{}
	was, answer := s.indexer[job][u], s.audit.answer
	changed := was != s.audit.compared || s.workerLives[u].gone > 0 && answer.present == here || x.endIsPending(s, u)
	switch {
	case answer == was || x.Rules.AuditGuard && changed:
		// dropped
	case answer.present == here:
		n.indexer[job][u] = answer
		x.push(n, delta{job, u, added, answer.state, answer.version, kept})
	default:
		n.indexer[job][u] = object{}
		x.push(n, delta{job, u, removed, was.state, s.audit.at, reconstructed})
	}
	x.agent(actAuditApply, u, 0, "")
}

// endIsPending reports whether a DELETED of the UID waits in its pending list.
func (c *config) endIsPending(s *state, u uint8) bool {
	k := c.pendingList(s, u)
	for _, d := range s.pending[k][:s.npending[k]] {
		if d.uid == u && d.kind == removed {
			return true
		}
	}
	return false
}
