package delivery

import (
	"container/list"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

// The rules of the books:
//   - What is in memory, of the log or from aside, has a bound: the window.
//   - The cursor is the number below which everything is settled. An item of
//     the log is settled when it is acknowledged, left out, or put aside; then
//     it leaves the window, and what that means for later (the entry put
//     aside, what the receiver was told) becomes durable with the cursor.
//   - What follows of an item is not made durable before the cursor has passed
//     it: else it would be read again after a crash, as what it no longer is.
//   - An entry put aside is settled when it is acknowledged or left out. Until
//     its going is durable it may be read again, and is known by its place.

// An item is what a lane holds: a delivery, or a run of changes that the sink
// is not to be given.
type item struct {
	statesync.Offered
	place *list.Element // in the window; nil: it comes from aside
	unit  bool          // the books count it: it was not counted as left out before
}

// skips reports whether the item is not delivered.
func (it *item) skips() bool { return it.Cause != "" }

// logged is the item's number if it comes from the log itself, else 0.
func (it *item) logged() int64 {
	if it.Aside > 0 {
		return 0
	}
	return it.Number
}

// An effect is what becomes durable of an item that is settled.
type effect struct {
	number  int64 // the cursor must have passed it; 0: it comes from aside
	put     *statesync.Offered
	lane    *lane // that waits for put; nil: none does
	settled int64
	compact int64
	told    *statesync.Told
	letter  *statesync.DeadLetter
}

func (d *Dispatcher) effect(e effect) {
	d.effects = append(d.effects, e)
	d.unsaved++
}

// apart reports whether the item is not a part of its workload's story as it
// goes on: it says by itself what came before.
func (it *item) apart() bool { return it.Replayed || it.Mark != nil || it.Gap != nil && it.Number == 0 }

// A place is where an entry is in the order of what is put aside.
type place struct{ number, id int64 }

func placeOf(o *statesync.Offered) place {
	if own(o) {
		return place{o.Number, o.Aside}
	}
	return place{0, o.Aside}
}

func (p place) after(q place) bool { return p.number > q.number || p.number == q.number && p.id > q.id }

// replaced reports whether a later change of the workload says more.
func replaced(o *statesync.Offered) bool { return o.Replaced && o.Gap == nil }

// own reports whether an entry was put aside by the sink itself.
func own(o *statesync.Offered) bool {
	return o.Cause != "" || o.Number > 0 && !o.Initial && !o.Replayed
}

// countIn counts in what is new in the log and returns a channel that is
// closed when there is more. The lock must be held.
func (d *Dispatcher) countIn() (wake <-chan struct{}) {
	head, wake := d.opts.Source.Head()
	d.pipe.In(head - d.head)
	if d.detached != "" {
		d.pipe.Drop(dropDetached, head-d.head)
		d.read = head
	}
	d.head = head
	if d.head > d.read && d.behind.IsZero() {
		d.behind = d.opts.Now()
	}
	return wake
}

// acked is the number up to which everything is settled. The lock must be
// held.
func (d *Dispatcher) acked() int64 {
	if d.detached != "" {
		return d.saved
	}
	if first := d.window.Front(); first != nil {
		return first.Value.(*item).Number - 1
	}
	return d.read
}

// queued reports what is not acknowledged: what is in memory, put aside, or
// still to be read. It looks at the log itself, because nobody reads while the
// sink holds everything up. The lock must be held.
func (d *Dispatcher) queued() metrics.Queue {
	d.countIn()
	q := metrics.Queue{Len: int64(d.memory) + d.aside + d.head - d.read, Oldest: d.oldest()}
	if stuck := d.stuck(); !stuck.IsZero() && (q.Oldest.IsZero() || stuck.Before(q.Oldest)) {
		q.Oldest = stuck
	}
	return q
}

// oldest is when the oldest change was observed that is not acknowledged, but
// for those of parked lanes; when none is read yet, since when there are any.
// The lock must be held.
func (d *Dispatcher) oldest() time.Time {
	if first := d.window.Front(); first != nil {
		return first.Value.(*item).Observed
	}
	if int64(d.memory)+d.aside+d.head-d.read > 0 {
		return d.behind
	}
	return time.Time{}
}

// stuck is when the oldest change of a parked lane was observed. The lock must
// be held.
func (d *Dispatcher) stuck() (oldest time.Time) {
	for _, l := range d.lanes {
		if l.parked && (oldest.IsZero() || l.oldest.Before(oldest)) {
			oldest = l.oldest
		}
	}
	return oldest
}

// hold puts an item into memory. The lock must be held.
func (d *Dispatcher) hold(it *item) {
	if it.Aside > 0 {
		d.taken[it.Aside] = true
	} else {
		it.place = d.window.PushBack(it)
	}
	if it.unit {
		d.memory++
	}
}

// release takes an item out of memory. The lock must be held.
func (d *Dispatcher) release(it *item) {
	if it.place != nil {
		d.window.Remove(it.place)
		it.place = nil
	}
	if it.unit {
		d.memory--
	}
	d.wakeReader()
}

// acknowledge takes items that were delivered off the books. The lock must be
// held.
func (d *Dispatcher) acknowledge(items []*item, sent, now time.Time) {
	n := int64(0)
	for _, it := range items {
		if it.Mark != nil {
			d.marks.acknowledged()
			d.marked = it.Mark
			continue
		}
		d.tell(it)
		d.done(it)
		n++
		if !it.apart() && !it.Initial {
			d.observe(it, sent, now)
		}
	}
	d.pipe.Out(n)
	_ = failpoint.Here("delivery/acknowledged")
	d.standing.Failing = time.Time{}
}

// done settles an item that was delivered. The lock must be held.
func (d *Dispatcher) done(it *item) {
	d.release(it)
	if it.Aside == 0 {
		return
	}
	d.effect(effect{settled: it.Aside})
	if it.Number > 0 && !it.Replayed && it.unit {
		d.marks.came(it.Number)
	}
}

// skip settles an item that is left out: the receiver is to be told with the
// workload's next change. The lock must be held.
func (d *Dispatcher) skip(it *item) {
	d.leaveOut(it)
	number := it.Number
	if it.unit {
		d.pipe.Drop(it.Cause, 1)
	}
	if d.done(it); it.unit && own(&it.Offered) {
		d.marks.leftOut(number, d.acked())
	}
}

// bury settles a lane's first item, which the sink refuses as such. The lock
// must be held.
func (d *Dispatcher) bury(l *lane, now time.Time, err error) {
	it, tries := l.items[0], l.refused.tries
	filled := d.deliveries([]*item{it})[0]
	d.effect(effect{number: it.logged(), letter: &statesync.DeadLetter{
		Delivery: filled, Tries: tries, First: l.refused.first, Last: now, Error: err.Error(),
	}})
	d.letters++
	d.pipe.Drop(statesync.SkipDeadLetter, 1)
	d.done(it)
	it.Cause = statesync.SkipDeadLetter
	d.leaveOut(it)
	if it.Number > 0 && !it.Replayed {
		d.marks.leftOut(it.Number, d.acked())
	}
	d.opts.Logger.Warn("sink refuses a change: it is a dead letter now", "sink", d.opts.Name,
		"workload", it.Workload.Key().String(), "seq", it.Seq, "tries", tries, "err", err)
}

// putAside settles an item of the log by writing it down for later. The lock
// must be held.
func (d *Dispatcher) putAside(it *item, l *lane) {
	o := it.Offered
	if o.Told = nil; it.skips() && o.FromSeq == 0 {
		o.FromSeq = o.Seq
	}
	d.effect(effect{number: it.Number, put: &o, lane: l})
	if d.putting++; l == nil {
		d.homeless++
	}
	d.release(it)
	switch {
	case it.skips():
		d.pipe.Drop(it.Cause, 1)
		d.marks.leftOut(it.Number, d.acked())
	default:
		d.aside++
		d.marks.waits(it.Number, d.acked())
	}
}

// What the receiver was given of a workload, while that is not simply the
// change before.

// told is such an entry; nothing is left out: it need not be kept.
type told struct {
	statesync.Told
	key    statesync.Key
	lane   *lane // of key, that will forget it; nil: there is none
	saving int   // versions that are not durable
}

// remember takes over what the log knows of an item's workload, unless
// something newer is known here. The lock must be held.
func (d *Dispatcher) remember(it *item) {
	if it.apart() {
		return
	}
	t := d.told[it.Workload.UID]
	switch {
	case t == nil && it.Told == nil:
		return
	case t == nil:
		t = &told{Told: *it.Told, key: it.Workload.Key()}
		d.told[t.UID] = t
	}
	d.mayForget(t)
}

// mayForget has the lane in memory forget an entry when it goes. The lock must
// be held.
func (d *Dispatcher) mayForget(t *told) {
	if l := d.lanes[t.key]; l != nil && l != t.lane {
		t.lane = l
		l.told = append(l.told, t.UID)
	}
}

// before is what the receiver was given before an item, if everything before it
// was settled. The lock must be held.
func (d *Dispatcher) before(it *item) statesync.Told {
	if t := d.told[it.Workload.UID]; t != nil && len(t.Skipped) > 0 {
		return t.Told
	}
	out := statesync.Told{UID: it.Workload.UID}
	switch {
	case it.Initial:
	case it.FromSeq > 0:
		out.Seq = it.FromSeq - 1
	case it.Previous > d.since:
		out.Seq = it.Seq - 1
	case it.Seq > 1:
		out.Skipped = []statesync.Skip{{From: 1, To: it.Seq - 1, Cause: statesync.SkipBefore}}
	}
	return out
}

// tell notes that an item was given to the receiver. The lock must be held.
func (d *Dispatcher) tell(it *item) {
	if it.apart() || d.told[it.Workload.UID] == nil {
		return
	}
	d.note(it, statesync.Told{UID: it.Workload.UID, Seq: it.Seq})
}

// leaveOut notes that it was not. The lock must be held.
func (d *Dispatcher) leaveOut(it *item) {
	if it.apart() {
		return
	}
	t := d.before(it)
	t.Skipped = addSkip(t.Skipped, skipOf(it))
	d.note(it, t)
}

func (d *Dispatcher) note(it *item, t statesync.Told) {
	entry := d.told[t.UID]
	if entry == nil {
		entry = &told{key: it.Workload.Key()}
		d.told[t.UID] = entry
	}
	entry.Told = t
	d.mayForget(entry)
	entry.saving++
	d.effect(effect{number: it.logged(), told: &t})
}

// forget lets go what need not be known here: the log has it, and nothing in
// memory is about it. The lock must be held.
func (d *Dispatcher) forget(uid string) {
	t := d.told[uid]
	switch {
	case t == nil || t.saving > 0 || d.running: // it is looked at again
	case d.lanes[t.key] == nil:
		delete(d.told, uid)
	default:
		d.mayForget(t)
	}
}

func skipOf(it *item) statesync.Skip {
	s := statesync.Skip{From: it.Seq, To: it.Seq, Cause: it.Cause}
	switch {
	case it.FromSeq > 0:
		s.From = it.FromSeq
	case it.Initial:
		s.From = 1
	}
	return s
}

const mostSkips = 32 // runs that are told apart

// addSkip adds a run to those before it. It does not change them.
func addSkip(skips []statesync.Skip, s statesync.Skip) []statesync.Skip {
	skips = slices.Clone(skips)
	if n := len(skips); n > 0 && skips[n-1].Cause == s.Cause && skips[n-1].To+1 >= s.From {
		skips[n-1].To = max(skips[n-1].To, s.To)
		return skips
	}
	skips = append(skips, s)
	if len(skips) <= mostSkips {
		return skips
	}
	first := statesync.Skip{From: skips[0].From, To: skips[1].To, Cause: statesync.SkipSeveral}
	return append([]statesync.Skip{first}, skips[2:]...)
}

// deliveries are the items of one call as the sink is given them: each with
// what the receiver will have been given before it. The lock must be held.
func (d *Dispatcher) deliveries(items []*item) []statesync.Delivery {
	given := map[string]bool{} // UIDs of which one before it is among them
	out := make([]statesync.Delivery, len(items))
	for i, it := range items {
		out[i] = it.Delivery
		if it.apart() {
			continue
		}
		t := d.before(it)
		if given[it.Workload.UID] {
			t = statesync.Told{Seq: it.Seq - 1}
		}
		given[it.Workload.UID] = true
		out[i].PreviousSeq, out[i].Skipped = t.Seq, t.Skipped
	}
	return out
}
