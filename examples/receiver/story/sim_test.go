package story

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

const simSource = "/clusters/c/"

// A sim is an agent's log and its sink, after the rules of docs/changes.md:
// what it delivers is what a receiver may see.
type sim struct {
	rng   *rand.Rand
	epoch int64
	log   []change           // by number, from 1
	rows  map[string]*simRow // by UID
	order []string           // of the UIDs, as they came

	sinkState
	saved *sinkState // what a crash goes back to

	letters []simDelivery
	gaps    int64
	now     time.Time
	out     []Event
}

type change struct {
	uid      string
	from, to statesync.State
	seq      int64
	epoch    int64
}

// A simRow is where a workload stands, in truth.
type simRow struct {
	state statesync.State
	seq   int64
	lastN int64
}

// A simDelivery is a change with what was true of it when it was refused.
type simDelivery struct {
	n        int64
	previous int64
	skipped  []statesync.Skip
}

// sinkState is what the ledger keeps of the sink.
type sinkState struct {
	acked     int64
	got       map[int64]bool // numbers acknowledged
	left      map[int64]bool // left out
	parked    map[string][]int64
	told      map[string]simTold
	initials  []Event // to be told
	mark      int64
	detached  bool
	detachedN int64
}

type simTold struct {
	seq     int64
	skipped []statesync.Skip
}

func (s sinkState) clone() sinkState {
	s.got, s.left = maps.Clone(s.got), maps.Clone(s.left)
	s.told, s.initials = maps.Clone(s.told), slices.Clone(s.initials)
	parked := map[string][]int64{}
	for k, v := range s.parked {
		parked[k] = slices.Clone(v)
	}
	s.parked = parked
	return s
}

func newSim(seed uint64) *sim {
	return &sim{
		rng: rand.New(rand.NewPCG(seed, 5)), epoch: 1, rows: map[string]*simRow{},
		now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
		sinkState: sinkState{
			got: map[int64]bool{}, left: map[int64]bool{}, parked: map[string][]int64{}, told: map[string]simTold{},
		},
	}
}

// run plays some steps, and ends with all delivered and a mark.
func (s *sim) run(steps int) []Event {
	for range steps {
		s.step()
	}
	if s.detached {
		s.attach()
	}
	s.drain()
	s.sendMark()
	return s.out
}

func (s *sim) step() {
	s.now = s.now.Add(time.Second)
	switch p := s.rng.IntN(100); {
	case p < 45:
		s.happen()
	case p < 85:
		s.deliver()
	case p < 89:
		s.sendMark()
	case p < 92:
		s.replay()
	case p < 94:
		saved := s.sinkState.clone()
		s.saved = &saved
	case p < 95 && s.saved != nil:
		s.sinkState = s.saved.clone() // a crash
	case p < 96:
		s.epoch++
	case p < 97 && !s.detached:
		s.detached, s.detachedN = true, s.acked
	case p < 99 && s.detached:
		s.attach()
	default: // a try that timed out lands late
		if n := len(s.out); n > 0 {
			s.out = append(s.out, s.out[n-1-s.rng.IntN(min(n, 8))])
		}
	}
}

// happen adds a change to the log.
func (s *sim) happen() {
	var uid string
	if len(s.order) == 0 || s.rng.IntN(6) == 0 {
		uid = fmt.Sprint("u", len(s.order))
		s.order = append(s.order, uid)
		s.rows[uid] = &simRow{}
	} else {
		uid = s.order[s.rng.IntN(len(s.order))]
	}
	row := s.rows[uid]
	if row.state.Ended() && row.state != statesync.Untracked {
		return
	}
	to := []statesync.State{statesync.Queued, statesync.Running, statesync.Succeeded, statesync.Untracked, statesync.Running}[s.rng.IntN(5)]
	s.log = append(s.log, change{uid: uid, from: row.state, to: to, seq: row.seq + 1, epoch: s.epoch})
	*row = simRow{state: to, seq: row.seq + 1, lastN: int64(len(s.log))}
}

// deliver takes a few lanes one step on, or reads on.
func (s *sim) deliver() {
	if s.detached {
		return
	}
	if len(s.initials) > 0 && s.rng.IntN(2) == 0 {
		s.sendInitial(s.rng.IntN(len(s.initials)))
		return
	}
	if lanes := slices.Sorted(maps.Keys(s.parked)); len(lanes) > 0 && s.rng.IntN(3) == 0 {
		lane := lanes[s.rng.IntN(len(lanes))]
		if !s.waits(lane) {
			s.send(s.parked[lane][0])
			s.unpark(lane)
		}
		return
	}
	if s.acked == int64(len(s.log)) {
		return
	}
	s.acked++
	n := s.acked
	c := s.log[n-1]
	switch p := s.rng.IntN(20); {
	case len(s.parked[c.uid]) > 0 || s.waits(c.uid) || p == 0:
		s.parked[c.uid] = append(s.parked[c.uid], n)
	case p == 1 && c.to != statesync.Queued:
		s.letters = append(s.letters, simDelivery{n: n, previous: s.toldOf(c).seq, skipped: slices.Clone(s.toldOf(c).skipped)})
		s.skip(n, statesync.SkipDeadLetter)
	case p == 2 && c.to != statesync.Queued && s.rows[c.uid].lastN != n:
		s.skip(n, statesync.SkipCompacted)
	default:
		s.send(n)
	}
}

func (s *sim) unpark(lane string) {
	if s.parked[lane] = s.parked[lane][1:]; len(s.parked[lane]) == 0 {
		delete(s.parked, lane)
	}
}

// toldOf is what the sink was given of the workload before a change.
func (s *sim) toldOf(c change) simTold {
	if t, ok := s.told[c.uid]; ok {
		return t
	}
	return simTold{seq: c.seq - 1}
}

func (s *sim) skip(n int64, cause string) {
	c := s.log[n-1]
	t := s.toldOf(c)
	t.skipped = slices.Clone(t.skipped)
	if k := len(t.skipped); k > 0 && t.skipped[k-1].Cause == cause && t.skipped[k-1].To == c.seq-1 {
		t.skipped[k-1].To = c.seq
	} else {
		t.skipped = append(t.skipped, statesync.Skip{From: c.seq, To: c.seq, Cause: cause})
	}
	s.told[c.uid] = t
	s.left[n] = true
}

func (s *sim) event(n int64) Event {
	c := s.log[n-1]
	return Event{
		ID: fmt.Sprint("id", n), Type: statesync.EventType, Source: simSource + "workloads/" + c.uid, Subject: c.uid, Time: s.now,
		Change: Change{From: c.from, To: c.to, Seq: c.seq, Number: n, Epoch: c.epoch},
	}
}

func (s *sim) send(n int64) {
	c := s.log[n-1]
	if c.to == statesync.Queued && c.seq%2 == 0 { // the filter, which never changes its mind
		s.skip(n, statesync.SkipFilter)
		return
	}
	e := s.event(n)
	t := s.toldOf(c)
	e.Previous, e.Skipped = t.seq, t.skipped
	delete(s.told, c.uid)
	s.got[n] = true
	s.out = append(s.out, e)
}

func (s *sim) replay() {
	if len(s.letters) == 0 || s.detached {
		return
	}
	d := s.letters[s.rng.IntN(len(s.letters))]
	e := s.event(d.n)
	e.Previous, e.Skipped, e.Replayed = d.previous, d.skipped, true
	s.out = append(s.out, e)
}

func (s *sim) attach() {
	head := int64(len(s.log))
	s.gaps++
	s.out = append(s.out, Event{
		ID: fmt.Sprint("gap", s.gaps), Type: statesync.GapEventType, Source: simSource + "streams/sink/x", Subject: "sink/x", Time: s.now,
		Change: Change{Seq: s.gaps, Previous: s.gaps - 1, Epoch: s.epoch},
		Gap:    &statesync.Gap{Stream: "sink/x", Reason: statesync.GapDetached, FromNumber: s.detachedN, ToNumber: head},
	})
	var initials []Event
	for _, uid := range s.order {
		// One of which something was put aside has not been told of either.
		if row := s.rows[uid]; row.seq > 0 && (!row.state.Ended() || row.lastN > s.detachedN || len(s.parked[uid]) > 0 || s.waits(uid)) {
			initials = append(initials, Event{
				ID: fmt.Sprint("initial", uid, "-", row.seq, "-", s.epoch), Type: statesync.EventType,
				Source: simSource + "workloads/" + uid, Subject: uid, Time: s.now,
				Change: Change{To: row.state, Seq: row.seq, Epoch: s.epoch, Initial: true},
			})
			delete(s.told, uid)
		}
	}
	s.initials, s.parked = initials, map[string][]int64{}
	s.acked, s.detached, s.saved = head, false, nil
}

func (s *sim) sendInitial(i int) {
	s.out = append(s.out, s.initials[i])
	s.initials = slices.Delete(s.initials, i, i+1)
}

// waits reports whether the workload's initial state is still to be told.
func (s *sim) waits(uid string) bool {
	return slices.ContainsFunc(s.initials, func(e Event) bool { return e.Subject == uid })
}

func (s *sim) sendMark() {
	if s.detached || s.acked <= s.mark {
		return
	}
	m := statesync.Mark{Previous: s.mark, Number: s.acked}
	waiting := map[int64]bool{}
	for _, lane := range s.parked {
		for _, n := range lane {
			waiting[n] = true
		}
	}
	for n := m.Previous + 1; n <= m.Number; n++ {
		switch {
		case s.got[n]:
			m.Changes++
		case waiting[n]:
			m.Waiting++
		default:
			m.Skipped++
		}
	}
	s.mark = m.Number
	s.out = append(s.out, Event{
		ID: fmt.Sprint("mark", m.Previous, "-", m.Number), Type: statesync.MarkEventType, Source: simSource + "sinks/x", Time: s.now, Mark: &m,
	})
}

func (s *sim) drain() {
	for len(s.initials) > 0 {
		s.sendInitial(0)
	}
	for _, lane := range slices.Sorted(maps.Keys(s.parked)) {
		for len(s.parked[lane]) > 0 {
			s.send(s.parked[lane][0])
			s.unpark(lane)
		}
	}
	for s.acked < int64(len(s.log)) {
		s.acked++
		s.send(s.acked)
	}
}
