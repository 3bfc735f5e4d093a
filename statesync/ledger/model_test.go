package ledger

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics/metricstest"
	"github.com/outrider-agent/outrider/statesync"
)

// A model is what the ledger should hold for its sinks, in memory.
type model struct {
	t     *testing.T
	r     *rand.Rand
	o     Options
	l     *Ledger
	now   time.Time
	trace []string

	lives []*modelLife // in the order of their rows
	byN   map[int64]*modelChange
	head  int64
	sinks map[string]*modelSink
}

type modelLife struct {
	uid   string
	seq   int64
	last  int64
	state statesync.State
	since int // seconds after epoch
	gone  bool
}

type modelChange struct {
	life *modelLife
	seq  int64
}

type modelSink struct {
	acked    int64
	detached bool
	gaps     int64
	letters  int64
	entries  []modelEntry
	told     map[string]statesync.Told
	ids      []int64 // places of the entries, as last read
}

type modelEntry struct {
	what  string // as tell says it, without what was told
	uid   string
	n     int64 // of a parked one
	first int64 // of what is left out
}

var modelSinks = [...]string{"s", "other"}

func (m *model) op(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	for _, line := range m.trace[max(0, len(m.trace)-25):] {
		m.t.Log(line)
	}
	m.t.Fatalf(format, args...)
}

// grow appends some changes of one life, which may end with them.
func (m *model) grow() {
	var e *modelLife
	if len(m.lives) > 0 && m.r.IntN(3) > 0 {
		if e = m.lives[m.r.IntN(len(m.lives))]; e.state.Ended() {
			return
		}
	} else {
		e = &modelLife{uid: fmt.Sprint("u", len(m.lives)), state: statesync.Running}
		m.lives = append(m.lives, e)
	}
	n, before := 1+m.r.IntN(3), e.state
	if e.seq == 0 {
		before = ""
	}
	added := entry(e.uid, e.seq+1, n)
	switch m.r.IntN(5) {
	case 0:
		e.state, e.gone = statesync.Failed, m.r.IntN(2) == 0
	case 1:
		e.state, e.gone = statesync.Untracked, true
	}
	added.Row.State, added.Row.Gone = e.state, e.gone
	for i := range n {
		m.head++
		c := &added.Changes[i]
		if c.From, c.To = before, e.state; i < n-1 {
			c.To = [...]statesync.State{statesync.Queued, statesync.Running}[m.r.IntN(2)]
		}
		c.Occurred = epoch.Add(time.Duration(m.head) * time.Second)
		if c.From != c.To {
			e.since = int(m.head)
		}
		before = c.To
		e.seq++
		m.byN[m.head] = &modelChange{e, e.seq}
	}
	e.last = m.head
	m.op("append %d of %s: %s", n, e.uid, e.state)
	commit(m.t, m.l, added)
}

// advance takes a part of the log as a sink, settles some of what was put
// aside, and saves.
func (m *model) advance(name string) {
	k := m.sinks[name]
	if k.detached {
		return
	}
	read, err := m.l.Read(m.t.Context(), statesync.ReadQuery{Sink: name, After: k.acked, Limit: 1 + m.r.IntN(6)})
	if err != nil {
		m.fatalf("read: %v", err)
	}
	p := statesync.Progress{Sink: name, Acked: k.acked}
	told, last := maps.Clone(k.told), map[string]int{}
	for i, o := range read {
		want := m.byN[k.acked+int64(i)+1]
		if o.Number != k.acked+int64(i)+1 || o.Workload.UID != want.life.uid || o.Seq != want.seq {
			m.fatalf("sink %s read change %d, %s %d, want %s %d", name, o.Number, o.Workload.UID, o.Seq, want.life.uid, want.seq)
		}
		m.checkTold(name, &o, told)
		if o.Replaced != (o.Number != want.life.last) {
			m.fatalf("change %d is replaced: %t", o.Number, o.Replaced)
		}
		p.Acked = o.Number
		o.Told = nil
		switch uid := o.Workload.UID; m.r.IntN(6) {
		case 0, 1:
			last[uid] = len(k.entries)
			k.entries = append(k.entries, modelEntry{what: tell(&o), uid: uid, n: o.Number})
			p.PutAside = append(p.PutAside, o)
		case 2:
			o.Cause, o.FromSeq = "x", o.Seq
			p.PutAside = append(p.PutAside, o)
			j, ok := last[uid]
			if ok && k.entries[j].what == fmt.Sprintf("%s %d-%d x", uid, k.entries[j].first, o.Seq-1) {
				k.entries[j].what = fmt.Sprintf("%s %d-%d x", uid, k.entries[j].first, o.Seq)
				break
			}
			last[uid] = len(k.entries)
			k.entries = append(k.entries, modelEntry{what: tell(&o), uid: uid, first: o.Seq})
		case 3:
			t := statesync.Told{UID: uid, Seq: o.Seq - 1, Skipped: []statesync.Skip{{From: o.Seq, To: o.Seq, Cause: "y"}}}
			p.Told, k.told[uid] = append(p.Told, t), t
			p.Letters = append(p.Letters, statesync.DeadLetter{Delivery: o.Delivery})
			k.letters++
		case 4:
			p.Told = append(p.Told, statesync.Told{UID: uid, Seq: o.Seq})
			delete(k.told, uid)
		}
	}
	k.acked = p.Acked
	for i, id := range slices.Backward(k.ids) {
		if m.r.IntN(4) == 0 {
			p.Settled = append(p.Settled, id)
			k.entries, k.ids = slices.Delete(k.entries, i, i+1), slices.Delete(k.ids, i, i+1)
		}
	}
	if m.r.IntN(12) == 0 {
		p.Detach, k.detached = statesync.DetachedGone, true
	}
	m.op("%s saves %d, puts aside %d, settles %v, detach %q", name, p.Acked, len(p.PutAside), p.Settled, p.Detach)
	m.l.Save(p)
	k.ids = nil // not read again before it is durable
}

func (m *model) checkTold(name string, o *statesync.Offered, told map[string]statesync.Told) {
	m.t.Helper()
	var want *statesync.Told
	if t, ok := told[o.Workload.UID]; ok {
		want = &t
	}
	if diff := cmp.Diff(want, o.Told); diff != "" {
		m.fatalf("sink %s: told before %s (-want +got):\n%s", name, tell(o), diff)
	}
}

// commit makes what was saved durable, after failures of all kinds.
func (m *model) commit() {
	for m.r.IntN(3) == 0 { // a try that fails, or whose answer is lost
		group, savings := m.l.next()
		m.l.writing.Lock()
		err := error(nil)
		if m.l.writer != nil && m.r.IntN(2) == 0 {
			err = m.l.write(group, savings)
		}
		lost := m.l.drop(errors.New("the answer was lost"))
		m.l.writing.Unlock()
		m.op("a lost answer")
		if err != nil || lost == nil {
			m.fatalf("write: %v", err)
		}
	}
	m.l.commitAll(m.t.Context())
	if _, err := m.l.Failure(); err != nil {
		m.fatalf("commit: %v", err)
	}
}

// attach is what a detached sink is given.
func (m *model) attach(name string) {
	k := m.sinks[name]
	if !k.detached {
		return
	}
	from := k.acked
	unheard := map[string]bool{}
	for _, e := range k.entries {
		if unheard[e.uid] = true; e.n > 0 {
			from = min(from, e.n-1)
		}
	}
	for uid := range k.told {
		unheard[uid] = true
	}
	k.gaps++
	stream := "stream/sink/" + name
	k.entries = slices.DeleteFunc(k.entries, func(e modelEntry) bool { return e.uid != stream })
	k.entries = append(k.entries, modelEntry{what: fmt.Sprintf("%s %d gap %d..%d", stream, k.gaps, from, m.head), uid: stream})
	for _, e := range m.lives {
		if !e.state.Ended() && !e.gone || e.last > from || unheard[e.uid] {
			k.entries = append(k.entries, modelEntry{what: fmt.Sprintf("%s %d initial %s", e.uid, e.seq, e.state), uid: e.uid})
		}
	}
	k.told, k.acked, k.detached = map[string]statesync.Told{}, m.head, false
	m.op("attach %s at %d", name, m.head)
	if _, err := m.l.Attach(m.t.Context(), name); err != nil {
		m.fatalf("attach: %v", err)
	}
}

// check compares everything.
func (m *model) check() {
	for _, name := range modelSinks {
		k := m.sinks[name]
		c, err := m.l.Cursor(name)
		if err != nil {
			m.fatalf("%v", err)
		}
		if c.Acked != k.acked || (c.Detached != "") != k.detached || c.Letters != k.letters {
			m.fatalf("cursor %+v, want %d acknowledged, detached %t, %d letters", c, k.acked, k.detached, k.letters)
		}
		got := asides(m.t, m.l, name)
		k.ids = nil
		var words, want []string
		for i := range got {
			k.ids = append(k.ids, got[i].Aside)
			if !k.detached && got[i].Cause != CauseMissing && got[i].Gap == nil {
				m.checkTold(name, &got[i], k.told)
			}
			if got[i].Told = nil; got[i].Cause == CauseMissing && k.detached { // nothing is kept for it
				words = append(words, k.entries[min(i, len(k.entries)-1)].what)
				continue
			}
			words = append(words, tell(&got[i]))
		}
		for _, e := range k.entries {
			want = append(want, e.what)
		}
		if diff := cmp.Diff(want, words); diff != "" {
			m.fatalf("put aside for %s (-want +got):\n%s", name, diff)
		}
	}
	m.checkKept()
	m.checkLiving()
}

// checkLiving looks that all that is there is told of, since the last change
// that was not of a reason alone.
func (m *model) checkLiving() {
	var want []string
	for _, e := range m.lives {
		if !e.gone {
			want = append(want, fmt.Sprintf("ns/Pod/pod-%s %s %s %s app=%[1]s", e.uid, e.uid, e.state, time.Duration(e.since)*time.Second))
		}
	}
	if diff := cmp.Diff(want, living(m.t, m.l, m.now.Add(time.Second))); diff != "" {
		m.fatalf("living (-want +got):\n%s", diff)
	}
}

// checkKept looks that every change is there that some sink holds.
func (m *model) checkKept() {
	there := map[int64]bool{}
	for _, n := range numbersIn(m.t, m.o.Dir) {
		there[n] = true
	}
	for name, k := range m.sinks {
		if k.detached {
			continue
		}
		for n := k.acked + 1; n <= m.head; n++ {
			if !there[n] {
				m.fatalf("change %d is gone, and sink %s is at %d", n, name, k.acked)
			}
		}
		for _, e := range k.entries {
			if e.n > 0 && !there[e.n] {
				m.fatalf("change %d is gone, and sink %s has put it aside", e.n, name)
			}
		}
	}
}

// prune lets two days pass, and looks that nothing stays that nobody holds.
func (m *model) prune() {
	m.now = m.now.Add(48 * time.Hour)
	m.op("prune")
	retainAll(m.l)
	low, held := m.head, map[int64]bool{}
	for _, k := range m.sinks {
		if k.detached {
			continue
		}
		low = min(low, k.acked)
		for _, e := range k.entries {
			held[e.n] = true
		}
	}
	for _, n := range numbersIn(m.t, m.o.Dir) {
		if n <= low && !held[n] {
			m.fatalf("change %d is there, and nobody holds it: all are at %d", n, low)
		}
	}
}

// TestSinksAgainstAModel does what sinks do in any order, with commits whose
// answer is lost and starts in between.
func TestSinksAgainstAModel(t *testing.T) {
	t.Parallel()
	seeds := dice(t)
	for range 8 {
		m := &model{
			t: t, r: rand.New(rand.NewPCG(seeds.Uint64(), 1)), now: epoch,
			byN: map[int64]*modelChange{}, sinks: map[string]*modelSink{},
		}
		m.o = options(t, scratch(t))
		m.o.Now = func() time.Time { return m.now }
		m.open()
		for _, name := range modelSinks {
			m.sinks[name] = &modelSink{told: map[string]statesync.Told{}}
		}
		for range 120 {
			switch name := modelSinks[m.r.IntN(len(modelSinks))]; m.r.IntN(12) {
			case 0, 1, 2, 3:
				m.grow()
			case 4, 5, 6, 7:
				m.advance(name)
				m.commit()
			case 8:
				m.attach(name)
			case 9, 10:
				m.prune()
			case 11:
				m.op("open again")
				if err := m.l.Close(); err != nil {
					t.Fatal(err)
				}
				m.open()
			}
			m.check()
		}
		if err := m.l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func (m *model) open() {
	o := m.o
	o.Registry = metricstest.Registry(m.t)
	l, err := Open(o)
	if err != nil {
		m.fatalf("%v", err)
	}
	m.l = l
	for _, name := range modelSinks {
		cursorOf(m.t, l, name)
	}
}
