package main

// The committer makes entries durable in the order in which they were handed
// over, one or all at a time.

func (s *state) enqueue(e entry) {
	s.queue[s.nqueue] = e
	s.nqueue++
}

func (s *state) dequeue() {
	copy(s.queue[:], s.queue[1:s.nqueue])
	s.nqueue--
	s.queue[s.nqueue] = entry{}
	s.split = 0
}

func (x *explorer) committer() {
	s := x.s
	if s.nqueue == 0 {
		return
	}
	for _, all := range []uint8{0, 1} {
		if all == 1 && s.nqueue == 1 {
			break
		}
		n := x.begin()
		for {
			x.commit(n, n.split, n.queue[0].n)
			n.dequeue()
			if all == 0 || n.nqueue == 0 {
				break
			}
		}
		x.agent(actCommit, all, 0, x.checkCommit(n))
	}
	if !x.Rules.Atomic && s.split == 0 && s.queue[0].n == 2 {
		n := x.begin()
		x.commit(n, 0, 1)
		n.split = 1
		x.agent(actCommit, 2, 0, x.checkCommit(n))
	}
	if !x.Rules.HeadOfLine && s.nqueue > 1 && s.retries < 1 {
		n := x.begin()
		e := n.queue[0]
		n.dequeue()
		n.enqueue(e)
		n.retries++
		x.agent(actRequeue, 0, 0, "")
	}
	if !x.Rules.LastDurable && s.retries < 1 { // written, and taken for failed
		n := x.begin()
		x.commit(n, 0, n.queue[0].n)
		n.retries++
		x.agent(actRetry, 0, 0, x.checkCommit(n))
	}
}

// commit makes the steps from up to to of the first entry durable.
func (c *config) commit(s *state, from, to uint8) {
	e := &s.queue[0]
	d := e.delta
	switch d.kind {
	case gapAhead:
		c.appendRow(s, row{seq: d.state, state: isGap, stream: d.stream, version: d.version, epoch: s.epoch})
		return
	case firstList:
		c.storeFirst(s, d)
		return
	case chunk:
		c.storeChunk(s, d.state)
		return
	}
	l := &s.committedLives[d.uid]
	for _, st := range e.steps[from:to] {
		r := row{uid: d.uid, seq: st.seq, state: st.state, stream: d.stream, version: d.version, origin: d.origin, epoch: s.epoch}
		if c.Pods && d.stream == job && d.kind != removed {
			r.own = d.state
		}
		if d.stream == pod {
			r.owner = l.emitted[job]
		}
		c.appendRow(s, r)
		l.apply(r)
	}
	if to == e.n {
		c.settle(s, d)
		if e.superseded == 0 {
			s.committedObjects[d.stream].keep(d)
		}
	}
	if c.Rules.RowInCommit {
		s.lives[d.uid] = *l
	}
}

// apply sums a row up in its workload's.
func (l *life) apply(r row) {
	l.enter(r.epoch)
	l.known, l.state, l.seq = 1, r.state, r.seq
	l.emitted[r.stream] = r.version
	if r.stream == job {
		l.own = r.own
	}
	if hasEnded(r.state) {
		l.end = r.version
	}
}

// enter takes a life into an epoch, in which no version of an older one counts.
func (l *life) enter(epoch uint8) {
	if l.epoch != epoch {
		l.epoch, l.emitted, l.end, l.gone = epoch, [2]uint8{}, 0, 0
	}
}

// settle is what a delta leaves in its workload's row besides its changes.
func (c *config) settle(s *state, d delta) {
	l := &s.committedLives[d.uid]
	if c.Pods && d.stream == job && d.kind != removed && l.known == 1 && d.version >= l.emitted[job] {
		l.own = d.state
	}
	if d.stream == job && d.kind == removed && l.known == 1 {
		l.gone = d.version
	}
}

// appendRow gives a row the next number.
func (c *config) appendRow(s *state, r row) {
	if s.last >= maxRows {
		panic("BUG: the ledger is too short for this configuration")
	}
	if !c.Rules.AutoInc && s.trimmed == s.last && s.last > 0 { // numbers start again: every cursor is ahead of this row
		set(&s.ackedMem, s.last)
		set(&s.acks, s.last)
	}
	s.rows[s.last] = r
	s.last++
}

// retention removes rows that every sink has acknowledged. Nothing waits for
// it.
func (x *explorer) retention() {
	if !x.Retention {
		return
	}
	n := x.begin()
	for n.trimmed < n.last && (!x.Sink || has(&n.acks, n.trimmed)) {
		n.trimmed++
	}
	if n.trimmed != x.s.trimmed {
		x.surroundings(actRetain, n.trimmed, 0)
	}
}
