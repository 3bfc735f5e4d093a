package main

// crash stops the agent at any moment and starts it again: nothing but the
// database is left. That is one step, because a start without a watch sees
// nothing of what happens meanwhile.
func (x *explorer) crash() {
	if x.s.crashes >= x.Crashes {
		return
	}
	n := x.begin()
	n.crashes++
	x.restart(n)
	if n.foreign == 1 {
		if held := n.held(); held <= n.setBackTo {
			n.foreign = 0
		} else if held <= n.head {
			return // see epoch.go
		}
	}
	x.surroundings(actCrash, 0, 0)
}

// restart loads what is durable. Objects that a first list had stored and
// that were not reduced yet are fed; all others are known and cause nothing.
func (c *config) restart(s *state) {
	// Everything that is not named here is gone.
	*s = state{
		log: s.log, head: s.head, oldest: s.oldest, uids: s.uids, key: s.key,
		discarded: s.discarded, setBackTo: s.setBackTo,

		rows: s.rows, last: s.last, trimmed: s.trimmed, objects: s.objects, lives: s.lives,
		resume: s.resume, resumable: s.resumable, acks: s.acks,
		epoch: s.epoch, mustList: s.mustList, lateEpoch: s.lateEpoch,

		indexer: s.objects, committedObjects: s.objects,
		workerLives: s.lives, committedLives: s.lives,
		version: s.resume, ackedMem: s.acks,

		first: s.first, acked: s.acked, received: s.received, foreign: s.foreign,
		crashes: s.crashes, breaks: s.breaks, compactions: s.compactions, retries: s.retries,
		drops: s.drops, audits: s.audits, setBacks: s.setBacks,
	}
	for st := range c.streams() {
		for u := uint8(1); u < maxUIDs; u++ {
			o := &s.indexer[st][u]
			older := s.mustList[st] == 1 && c.Rules.EpochUnread
			if o.present == unread && !older || o.present == here && !c.Rules.InitSilent {
				c.push(s, delta{st, u, added, o.state, o.version, live})
			}
			if o.present == unread {
				o.present = here
			}
		}
	}
}
