package main

// lowWater returns the mark of a stream: all that its events at or below it
// caused is durable. It stays while a delta of a relist is outstanding.
func (c *config) lowWater(s *state, st uint8) uint8 {
	if !c.Rules.LowWater {
		return s.version[st]
	}
	oldest, relisting := uint8(255), false
	see := func(d *delta) {
		switch {
		case d.stream != st || d.kind == chunk || d.kind == firstList:
		case d.kind == gapAhead:
			relisting = true
		default:
			relisting = relisting || d.origin == reconstructed
			oldest = min(oldest, d.version)
		}
	}
	for k := range s.pending {
		for i := range s.npending[k] {
			see(&s.pending[k][i])
		}
	}
	for i := range s.nqueue {
		see(&s.queue[i].delta)
	}
	for i := range s.nrelisted[st] {
		see(&s.relisted[st][i])
	}
	switch {
	case relisting && c.Rules.RelUnit:
		return s.resume[st]
	case oldest == 255:
		return s.version[st]
	case oldest == 0:
		return 0
	default:
		return oldest - 1
	}
}

// flusher takes what is to be stored and hands it over like all else: behind
// what was handed over before it, in chunks, each handed over when the one
// before is durable.
func (x *explorer) flusher() {
	s := x.s
	if s.nqueue < x.QueueBound {
		switch s.flush.stage {
		case noFlush:
			x.takeFlush()
		case betweenChunks:
			n := x.begin()
			if !x.Rules.LWMBegin {
				x.takeMark(n)
			}
			x.handChunk(n, lastChunk)
		}
	}
	if x.Rules.FlushTx {
		return
	}
	n := x.begin()
	x.takeMark(n)
	x.storePoint(n)
	if n.resume != s.resume || n.resumable != s.resumable {
		n.flush = s.flush
		x.agent(actResumeAlone, 0, 0, x.checkResume(n))
	}
}

// takeFlush begins a flush if it would store anything.
func (x *explorer) takeFlush() {
	s := x.s
	n := x.begin()
	x.fillFlush(n)
	would := *n
	x.storeUIDs(&would, func(uint8) bool { return true })
	x.storePoint(&would)
	if would.objects == s.objects && would.lives == s.lives && would.resume == s.resume && would.resumable == s.resumable {
		return
	}
	stage := lastChunk
	if x.Chunks {
		stage = firstChunk
	}
	x.handChunk(n, stage)
}

// handChunk hands a chunk over. Without the rule it is durable at once.
func (x *explorer) handChunk(n *state, stage uint8) {
	violation := ""
	if n.flush.stage = stage; x.Rules.FlushQueued {
		n.enqueue(entry{delta: delta{kind: chunk, state: stage}})
	} else {
		x.storeChunk(n, stage)
		violation = x.checkResume(n)
	}
	x.agent(actFlush, stage, 0, violation)
}

func (c *config) takeMark(s *state) {
	for st := range c.streams() {
		s.flush.mark[st] = c.lowWater(s, st)
	}
}

// fillFlush takes the mark and the objects that changed, both as of now.
func (c *config) fillFlush(s *state) {
	c.takeMark(s)
	for st := range c.streams() {
		for u := uint8(1); u <= s.uids; u++ {
			o := s.committedObjects[st][u]
			if !c.Rules.FlushCommitted {
				o = s.indexer[st][u]
				if s.committedObjects[st][u].present == unread && o.present == here {
					o.present = unread
				}
			}
			if o != s.objects[st][u] {
				s.flush.objects[st][u] = o
				s.flush.changed[st] |= 1 << u
			}
		}
	}
}

// storeChunk makes a chunk durable: the first holds the objects of the first
// key, the last all others and the resume points.
func (c *config) storeChunk(s *state, stage uint8) {
	first := func(u uint8) bool { return s.key[u] == 0 }
	rest := func(u uint8) bool { return !c.Chunks || !first(u) }
	if stage == firstChunk {
		c.storeUIDs(s, first)
		if !c.Rules.PointLast {
			c.storePoint(s)
		}
		s.flush.stage = betweenChunks
		return
	}
	c.storeUIDs(s, rest)
	c.storePoint(s)
	s.flush = flush{}
}

// storePoint makes the resume points durable. They never go back.
func (c *config) storePoint(s *state) {
	for st := range c.streams() {
		if m := s.flush.mark[st]; m > s.resume[st] {
			s.resume[st], s.resumable[st], s.mustList[st] = m, 1, 0
		}
	}
}

func (c *config) storeUIDs(s *state, which func(u uint8) bool) {
	for u := uint8(1); u <= s.uids; u++ {
		if !which(u) {
			continue
		}
		for st := range c.streams() {
			if s.flush.changed[st]>>u&1 == 1 {
				s.objects[st][u] = s.flush.objects[st][u]
			}
		}
		if !c.Rules.RowInCommit {
			s.lives[u] = s.committedLives[u]
		}
		if l := s.lives[u]; l.known == 1 && hasEnded(l.state) && c.prunes(s, u) {
			s.lives[u], s.workerLives[u], s.committedLives[u] = life{}, life{}, life{}
		}
	}
}

// storeFirst makes a first list durable, its objects as not yet reduced.
func (c *config) storeFirst(s *state, d delta) {
	history := s.log
	if d.uid < s.setBacks { // listed before the cluster was set back
		history = s.discarded
	}
	list := truth(history[:d.version])[d.stream]
	for u := range list {
		if list[u].present == here {
			list[u].present = unread
		}
	}
	s.objects[d.stream], s.committedObjects[d.stream] = list, list
	s.resume[d.stream], s.resumable[d.stream] = d.version, 1
}

// prunes reports whether the tombstone of a UID may go: no event of its
// object can come any more.
func (c *config) prunes(s *state, u uint8) bool {
	if !c.Rules.Tombstone {
		return true
	}
	l := s.lives[u]
	passed := s.resume[job]
	if !c.Rules.PruneDurable {
		passed = s.flush.mark[job]
	}
	at := l.end
	if c.Rules.TombObject {
		if l.gone == 0 || s.objects[job][u].present != 0 {
			return false
		}
		at = l.gone
	}
	if c.Audits > 0 && (s.audit.list != 0 || s.audit.uid != 0 || s.outstanding()) {
		return false // an hour at least: longer than an audit and its correction take
	}
	return passed >= at
}
