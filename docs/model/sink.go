package main

// sink lets every lane send its next change and wait for the answer, and
// store what was acknowledged.
func (x *explorer) sink() {
	if !x.Sink {
		return
	}
	s := x.s
	for lane := range uint8(keys) {
		if i := s.inFlight[lane]; i == 0 {
			x.send(lane)
		} else {
			n := x.begin()
			set(&n.ackedMem, i-1)
			set(&n.acked, i-1)
			n.inFlight[lane] = 0
			x.agent(actAck, lane, i-1, "")
		}
	}
	n := x.begin()
	n.acks = n.ackedMem
	if !x.Rules.AckAfter {
		for _, i := range n.inFlight {
			if i > 0 {
				set(&n.acks, i-1)
			}
		}
	}
	if n.acks != s.acks {
		x.agent(actStoreAcks, 0, 0, "")
	}
}

func (x *explorer) send(lane uint8) {
	s := x.s
	for i := s.trimmed; i < s.last; i++ {
		if x.lane(s, i) == lane && !has(&s.ackedMem, i) {
			n := x.begin()
			n.inFlight[lane] = i + 1
			violation := x.checkSend(s, i)
			set(&n.received, i)
			x.agent(actSend, lane, i, violation)
			return
		}
	}
}

func (c *config) lane(s *state, i uint8) uint8 {
	switch r := s.rows[i]; {
	case r.uid == 0:
		return keys - 1
	case c.Rules.LaneKey:
		return s.key[r.uid]
	default:
		return (r.uid - 1) & 1
	}
}
