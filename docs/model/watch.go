package main

// What the watch goroutine of a stream does: connect, receive, list.

func (x *explorer) breakWatch(st uint8) {
	if x.s.watching[st] == 0 || x.s.breaks >= x.Breaks {
		return
	}
	n := x.begin()
	n.breaks++
	n.watching[st] = 0
	x.surroundings(actBreak, st, 0)
}

// connect goes on from the reflector's version while the API server still
// holds the history, and lists otherwise.
func (x *explorer) connect(st uint8) {
	s := x.s
	if s.watching[st] == 1 || s.draining == 1 {
		return
	}
	if x.seesSetBack(st) {
		x.notice(st)
		return
	}
	if s.knows(st) && s.version[st] >= s.oldest {
		n := x.begin()
		n.watching[st] = 1
		x.agent(actConnect, st, 0, "")
		return
	}
	if s.nrelisted[st] > 0 || s.nqueue >= maxQueue-1 {
		return
	}
	at := s.head
	if !x.Rules.ConsistentList {
		at = 1
	}
	for ; at <= s.head && at > 0; at++ {
		x.relist(x.begin(), st, at)
		x.agent(actRelist, st, at, "")
	}
}

// knows reports whether the stream has a version to go on from.
func (s *state) knows(st uint8) bool { return s.resumable[st] == 1 || s.version[st] > 0 }

// relist takes a list in as the difference to what is known. It is exempt
// from the bound of what is pending.
func (c *config) relist(s *state, st, at uint8) {
	truth := s.truth(at)
	known, from := s.knows(st) || s.mustList[st] == 1, s.version[st]
	if !known {
		s.first[st] = at
	}
	ds := c.difference(s, st, at, &truth[st])
	s.indexer[st] = truth[st]
	s.version[st] = at
	s.watching[st] = 1
	head, ahead := delta{st, 0, gapAhead, from, at, reconstructed}, c.Rules.GapTied
	if !known {
		head, ahead = delta{st, s.setBacks, firstList, 0, at, kept}, c.Rules.FirstAhead
		for i := range ds {
			if c.Rules.FirstFlush {
				ds[i].origin = kept
			}
		}
	}
	switch {
	case !known && !c.Rules.FirstFlush:
	case ahead:
		s.enqueue(entry{delta: head})
	default:
		s.late[st] = head
	}
	if c.Rules.RelBlocks {
		for _, d := range ds {
			c.push(s, d)
		}
		return
	}
	s.nrelisted[st] = uint8(copy(s.relisted[st][:], ds))
}

// difference returns what a list says against what the indexer and the ledger
// hold: ends before starts, so that a key's next life starts after the end of
// the one before.
func (c *config) difference(s *state, st, at uint8, list *objects) (ds []delta) {
	keyIsListed := func(k uint8) bool {
		for u := uint8(1); u <= s.uids; u++ {
			if s.key[u] == k && list[u].present == here {
				return true
			}
		}
		return false
	}
	for u := uint8(1); u <= s.uids; u++ {
		w := s.workerLives[u]
		was := s.indexer[st][u].present == here ||
			st == job && c.Rules.DiffW && w.known == 1 && (!hasEnded(w.state) || w.gone == 0)
		if was && list[u].present == 0 && (c.Rules.DiffUID || !keyIsListed(s.key[u])) {
			ds = append(ds, delta{st, u, removed, s.indexer[st][u].state, at, reconstructed})
		}
	}
	all := s.mustList[st] == 1 && c.Rules.EpochFeedsAll
	for u := uint8(1); u <= s.uids; u++ {
		if o := list[u]; o.present == here && (all || s.indexer[st][u] != o) {
			ds = append(ds, delta{st, u, added, o.state, o.version, reconstructed})
		}
	}
	return ds
}

// watch receives the next event of the stream, or a bookmark when there is
// none. It waits while too much is pending.
func (x *explorer) watch(st uint8) {
	s := x.s
	if s.watching[st] == 0 || s.npendingAll() >= x.PendingBound || s.nrelisted[st] > 0 && x.Rules.RelBlocks {
		return
	}
	v := s.version[st] + 1
	for v <= s.head && s.log[v-1].stream != st {
		v++
	}
	switch {
	case v <= s.head:
		if s.drops < x.Drops { // the API server loses it (etcd issue 18089)
			n := x.begin()
			n.drops++
			n.version[st] = v
			x.agent(actDrop, st, v, "")
		}
		x.receive(st, v)
	case s.version[st] < s.head:
		n := x.begin()
		n.version[st] = n.head
		x.agent(actBookmark, st, n.head, "")
	}
}

func (x *explorer) receive(st, v uint8) {
	n := x.begin()
	e := n.log[v-1]
	n.version[st] = v
	if st == job && e.kind != removed && x.Rules.KeyReplace {
		for u := uint8(1); u <= n.uids; u++ {
			if held := n.indexer[job][u]; u != e.uid && n.key[u] == n.key[e.uid] && held.present != 0 {
				n.indexer[job][u] = object{}
				x.push(n, delta{job, u, removed, held.state, v, reconstructed})
			}
		}
	}
	d := delta{st, e.uid, e.kind, e.state, v, live}
	n.indexer[st].keep(d)
	x.push(n, d)
	x.agent(actDeliver, st, v, "")
}

// feed puts the next delta of a relist into the pending lists, when that is
// not done in one step with the relist.
func (x *explorer) feed(st uint8) {
	if x.s.nrelisted[st] == 0 {
		return
	}
	n := x.begin()
	x.push(n, n.relisted[st][0])
	copy(n.relisted[st][:], n.relisted[st][1:])
	n.nrelisted[st]--
	n.relisted[st][n.nrelisted[st]] = delta{}
	x.agent(actFeed, st, 0, "")
}

// handLate hands over what should have gone ahead of a list.
func (x *explorer) handLate(st uint8) {
	if x.s.late[st].kind == 0 || x.s.nqueue >= maxQueue-1 {
		return
	}
	n := x.begin()
	n.enqueue(entry{delta: n.late[st]})
	n.late[st] = delta{}
	x.agent(actHandLate, st, 0, "")
}

// push appends a delta to the pending list of its key.
func (c *config) push(s *state, d delta) {
	k := c.pendingList(s, d.uid)
	if !c.Rules.PendingList && s.npending[k] > 0 { // a queue of keys: only the newest state is there
		s.pending[k][s.npending[k]-1] = d
		return
	}
	if s.npending[k] >= maxPending {
		panic("BUG: a pending list is too short for this configuration")
	}
	s.pending[k][s.npending[k]] = d
	s.npending[k]++
}

func (c *config) pendingList(s *state, uid uint8) uint8 {
	if c.Rules.PendKey {
		return s.key[uid]
	}
	return uid - 1
}
