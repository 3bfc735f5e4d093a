package main

// workers let each key's worker take its next delta and hand over what it
// causes. Taking and handing over is one step; a key that two workers may
// hold at once is a second delta that overtakes the first.
func (x *explorer) workers() {
	s := x.s
	for k := range s.pending {
		for i := uint8(0); i < s.npending[k] && i < 2; i++ {
			if i == 1 && x.Rules.KeyExclusive || s.nqueue >= x.QueueBound {
				break
			}
			n := x.begin()
			d := n.pending[k][i]
			copy(n.pending[k][i:], n.pending[k][i+1:])
			n.npending[k]--
			n.pending[k][n.npending[k]] = delta{}
			if e := x.reduce(n, d); x.Rules.PlaceKept || e.n > 0 || n.workerLives != s.workerLives || n.firstListQueued(d.stream) {
				n.enqueue(e)
			} else {
				n.settleAtOnce(d, x.Rules.NoStepBack)
			}
			x.agent(actReduce, uint8(k), i, "")
		}
	}
}

// settleAtOnce takes a delta for committed that causes nothing, ahead of what
// was handed over before it.
func (s *state) settleAtOnce(d delta, noStepBack bool) {
	s.committedObjects[d.stream].keep(d)
	if !noStepBack {
		return
	}
	for i := range s.queue[:s.nqueue] {
		if q := s.queue[i].delta; q.kind <= removed && q.stream == d.stream && q.uid == d.uid {
			s.queue[i].superseded = 1
		}
	}
}

func (s *state) firstListQueued(st uint8) bool {
	for _, e := range s.queue[:s.nqueue] {
		if e.delta.kind == firstList && e.delta.stream == st {
			return true
		}
	}
	return false
}

// reduce returns what a delta causes, and moves what the workers know of its
// life.
func (c *config) reduce(s *state, d delta) entry {
	r := reduction{entry{delta: d}, &s.workerLives[d.uid], s.epoch}
	switch {
	case d.stream == pod:
		c.reducePod(s, &r)
	case d.kind == removed:
		c.reduceRemoved(&r)
	default:
		c.reduceJob(s, &r)
	}
	return r.entry
}

// reduction is a delta being reduced.
type reduction struct {
	entry
	life  *life
	epoch uint8
}

// tell adds a change to this state.
func (r *reduction) tell(st uint8) {
	l := r.life
	l.enter(r.epoch)
	l.seq++
	r.steps[r.n] = step{st, l.seq}
	r.n++
	l.known, l.state = 1, st
	l.emitted[r.delta.stream] = r.delta.version
	if hasEnded(st) {
		l.end = r.delta.version
	}
}

// repeated reports whether the event's changes, if any, are told already.
func (c *config) repeated(l *life, r *reduction) bool {
	d := r.delta
	switch {
	case !c.Rules.EmittedRV || l.known == 0 || l.epoch != r.epoch && c.Rules.EpochFresh:
		return false
	case !c.Rules.EmitPerStream:
		return d.version <= max(l.emitted[job], l.emitted[pod])
	default:
		return d.version <= l.emitted[d.stream]
	}
}

// reducePod lets a running pod move its owner from Queued to Running, and do
// nothing else; it never starts one.
func (c *config) reducePod(s *state, r *reduction) {
	l, d := r.life, r.delta
	if d.kind == removed || d.state != running || l.known == 0 || l.state != queued {
		return
	}
	if !c.Rules.PodLevel && c.repeated(l, r) {
		return
	}
	if c.Rules.PodsNotSuspended {
		own := l.own
		if !c.Rules.OwnInRow {
			own = s.indexer[job][d.uid].state
		}
		if own == suspended {
			return
		}
	}
	r.tell(running)
}

func (c *config) reduceRemoved(r *reduction) {
	l, d := r.life, r.delta
	if l.known == 1 && hasEnded(l.state) {
		l.gone = d.version
		return
	}
	if c.repeated(l, r) {
		return
	}
	if l.known == 0 {
		r.tell(queued)
	}
	if c.Rules.DelState && d.origin == live && d.state == succeeded {
		r.tell(succeeded)
	} else {
		r.tell(deleted)
	}
	l.gone = d.version
}

func (c *config) reduceJob(s *state, r *reduction) {
	l, d := r.life, r.delta
	ended := l.known == 1 && hasEnded(l.state)
	again := ended && l.epoch != r.epoch && d.state != succeeded && c.Rules.EpochRevives
	if ended && !again || c.repeated(l, r) {
		return
	}
	if c.Pods {
		l.own = d.state
	}
	to := d.state
	if d.state == suspended {
		to = queued
	}
	if p := s.indexer[pod][d.uid]; c.Pods && d.state == queued && p.present == here && p.state == running {
		to = running
	}
	switch {
	case l.known == 0 || again:
		if to != queued {
			r.tell(queued)
		}
		r.tell(to)
	case to == l.state || c.Pods && to == queued && d.state != suspended:
		// Nothing new; that the pods are gone is no way back.
	default:
		r.tell(to)
	}
}
