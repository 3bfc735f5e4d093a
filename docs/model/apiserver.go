package main

// What the API server may do: every legal sequence of a few events, and
// forget its history.

func (x *explorer) apiServer() {
	// See epoch.go for how far a cluster that was set back may come.
	if x.s.head < x.Events && (x.s.foreign == 0 || x.s.head+1 < x.s.held()) {
		cur := x.s.truth(x.s.head)
		x.create(&cur)
		for u := uint8(1); u <= x.s.uids; u++ {
			x.jobEvents(u, cur[job][u])
			if x.Pods {
				x.podEvents(u, cur[job][u], cur[pod][u])
			}
		}
	}
	if x.s.compactions < x.Compactions && x.s.oldest < x.s.head {
		n := x.begin()
		n.compactions++
		n.oldest = n.head
		x.surroundings(actCompact, 0, 0)
	}
}

// happen appends an event to the history.
func (x *explorer) happen(e event, a action) {
	n := x.begin()
	if n.head >= maxEvents {
		panic("BUG: the log of the API server is too short for this configuration")
	}
	n.log[n.head] = e
	n.head++
	if e.stream == job && e.kind == added {
		n.uids++
		n.key[e.uid] = a.b
	}
	x.surroundings(a.kind, a.a, a.b)
}

// create lets a job appear under every free key.
func (x *explorer) create(cur *[2]objects) {
	s := x.s
	for k := uint8(0); k < x.Keys && s.uids < x.UIDs; k++ {
		free := true
		for u := uint8(1); u <= s.uids; u++ {
			free = free && (s.key[u] != k || cur[job][u].present == 0)
		}
		if k == 1 && s.uids == 0 && !x.Chunks {
			free = false // keys are symmetric, but for the chunks of a flush
		}
		if free {
			x.happen(event{job, s.uids + 1, added, queued}, action{actEvent, 0, k})
		}
	}
}

// jobEvents lets a job's object change or go. Without pods it says itself
// that it runs.
func (x *explorer) jobEvents(u uint8, o object) {
	if o.present == 0 {
		return
	}
	if x.Pods && x.Suspend && (o.state == queued || o.state == suspended) {
		x.happen(event{job, u, modified, queued + suspended - o.state}, action{actEvent, 1, u})
	}
	for st := queued; st <= succeeded; st++ {
		ok := o.state == queued && st == running && !x.Pods ||
			st == succeeded && o.state != succeeded ||
			o.state == running && st == queued && x.Suspend && !x.Pods ||
			x.Touch && st == o.state
		if ok {
			x.happen(event{job, u, modified, st}, action{actEvent, 1, u})
		}
	}
	x.happen(event{job, u, removed, o.state}, action{actEvent, 2, u})
}

// podEvents lets a job have one pod in its life.
func (x *explorer) podEvents(u uint8, owner, p object) {
	ever := false
	for _, e := range x.s.log[:x.s.head] {
		ever = ever || e.stream == pod && e.uid == u
	}
	if !ever && owner.present == here && owner.state == queued {
		x.happen(event{pod, u, added, queued}, action{actEvent, 3, u})
	}
	if p.present == 0 {
		return
	}
	if p.state == running && x.Touch {
		x.happen(event{pod, u, modified, running}, action{actEvent, 6, u})
	}
	if p.state == queued {
		x.happen(event{pod, u, modified, running}, action{actEvent, 4, u})
	}
	x.happen(event{pod, u, removed, p.state}, action{actEvent, 5, u})
}
