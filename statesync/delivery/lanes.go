package delivery

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
)

// The rules of lanes:
//   - A lane is known by its key and holds its changes in order; the first is
//     in flight, or waits for its turn in the work queue.
//   - The reader adds only idle lanes to the queue: adding a lane that backs
//     off would bypass its back-off, because the queue's Add knows of none.
//   - The time before which a lane is not tried is the lane's own, and a
//     worker that comes early puts the lane back until then.
//   - A lane that fails again is parked: all of it is put aside, and only its
//     first change is read again when that is to be tried. Once it goes on it
//     reads the rest, before anything newer.
//   - What was tried together is tried together again, the same body under the
//     same ID; after a few failures each lane by itself.

const (
	retryFirst   = 200 * time.Millisecond
	retryMax     = 10 * time.Second
	parkAfter    = 2                // failures
	refuseTries  = 3                // of a change that is refused as such
	stuckWait    = 15 * time.Minute // between two tries of a refused change that is not left out
	mostLetters  = 10_000           // of a sink; then its lanes wait
	laneLoad     = 64               // entries that a lane reads from aside
	groupTries   = 3                // of what was tried together
	laneFraction = 4                // a lane may fill this part of the window
)

// A lane holds one workload's changes.
type lane struct {
	items     []*item
	failures  int
	notBefore time.Time
	parked    bool
	oldest    time.Time // when its first change was observed, while it is parked
	sending   bool      // its first items are in flight, or about to be
	group     *group    // what was tried together and is to be again
	disk      bool      // there is more aside
	unsaved   int       // of that, not yet durable
	told      []string
	refused   refusal
}

// A refusal is of a change as such.
type refusal struct {
	id    string // of the change
	tries int
	first time.Time
}

// A group is what one call holds: the first items of some lanes.
type group struct {
	parts    []part
	failures int
	inFlight bool
	alone    bool // it failed before: nobody is to suffer with it
}

type part struct {
	key statesync.Key
	n   int
}

func (d *Dispatcher) laneCap() int { return max(1, d.opts.Window/laneFraction) }

// readIntoLanes has the lanes filled until ctx ends.
func (d *Dispatcher) readIntoLanes(ctx context.Context) {
	look := time.NewTicker(lookAside)
	defer look.Stop()
	for {
		if items, _ := d.next(ctx, look.C); items == nil {
			return
		}
	}
}

// line puts an item at the end of its lane. The lock must be held.
func (d *Dispatcher) line(it *item) {
	key := it.Workload.Key()
	l := d.lanes[key]
	switch {
	case l == nil && it.skips():
		d.remember(it)
		d.skip(it)
		return
	case l == nil:
		l = &lane{}
		d.lanes[key] = l
		d.queue.Add(key)
	case it.Aside == 0 && it.Mark == nil && (l.parked || l.disk || len(l.items) >= d.laneCap()):
		d.putAsideOf(l, it)
		return
	}
	d.remember(it)
	l.items = append(l.items, it)
}

// giveOut hands on what the queue gives out, so that a worker can look whether
// there is more.
func (d *Dispatcher) giveOut() {
	defer close(d.ready)
	for {
		key, shutdown := d.queue.Get()
		if shutdown {
			return
		}
		d.ready <- key
	}
}

// sendLanes delivers the first changes of one lane after another.
func (d *Dispatcher) sendLanes(ctx, sending context.Context) {
	for key := range d.ready {
		if ctx.Err() == nil {
			d.sendFirst(ctx, sending, key)
		} else {
			d.queue.Done(key)
		}
	}
}

// sendFirst delivers the first items of a lane, and of others that are ready
// when the sink takes several at once.
func (d *Dispatcher) sendFirst(ctx, sending context.Context, key statesync.Key) {
	keys := []statesync.Key{key}
	defer func() {
		for _, key := range keys {
			d.queue.Done(key)
		}
	}()
	d.mu.Lock()
	g := d.first(ctx, key)
	generation := d.generation
	for g != nil && g.failures == 0 && !g.alone && g.size() < d.batch {
		another, ok := d.another()
		if !ok {
			break
		}
		keys = append(keys, another)
		d.join(ctx, g, another)
	}
	if g == nil {
		d.mu.Unlock()
		return
	}
	for d.pace.full() && ctx.Err() == nil {
		d.slots.Wait()
	}
	now := d.opts.Now()
	switch {
	case ctx.Err() != nil:
		d.mu.Unlock()
		return
	case generation != d.generation:
		d.disband(g)
		d.mu.Unlock()
		return
	}
	probe, wait := d.pace.admit(now)
	if wait > 0 {
		for _, p := range g.parts {
			d.lanes[p.key].sending = false
			if g.failures == 0 || p.key == key {
				d.queue.AddAfter(p.key, wait)
			}
		}
		d.mu.Unlock()
		return
	}
	d.pace.begin()
	g.inFlight = true
	ds := d.deliveries(d.itemsOf(g))
	d.mu.Unlock()

	err := d.deliver(sending, ds)
	done := d.opts.Now()

	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.slots.Broadcast()
	d.pace.end(key, probe, blames(err), said(err).After, done)
	if generation == d.generation {
		d.conclude(g, err, now, done)
	}
}

// disband has the lanes looked at again of a group that was begun before the
// sink was attached again: some of them may be of since then. The lock must be
// held.
func (d *Dispatcher) disband(g *group) {
	for _, p := range g.parts {
		if l := d.lanes[p.key]; l != nil {
			l.sending = false
			d.queue.Add(p.key)
		}
	}
}

func (g *group) size() (n int) {
	for _, p := range g.parts {
		n += p.n
	}
	return n
}

// another takes a key that is ready, if there is one.
func (d *Dispatcher) another() (statesync.Key, bool) {
	select {
	case key, ok := <-d.ready:
		return key, ok
	default:
		return statesync.Key{}, false
	}
}

// first returns what a lane is to send now; nil when it is not to. The lock
// must be held, and is let go while the lane is read again.
func (d *Dispatcher) first(ctx context.Context, key statesync.Key) *group {
	l := d.due(ctx, key)
	switch {
	case l == nil:
		return nil
	case l.group != nil:
		if l.group.inFlight || l.group.parts[0].key != key {
			return nil // it is looked after
		}
		for _, p := range l.group.parts {
			d.lanes[p.key].sending = true
		}
		return l.group
	}
	l.sending = true
	if l.failures > 0 {
		return &group{parts: []part{{key, 1}}, alone: true}
	}
	return &group{parts: []part{{key, l.head(d.batch)}}}
}

// join adds a lane that is ready to a group. The lock must be held.
func (d *Dispatcher) join(ctx context.Context, g *group, key statesync.Key) {
	l := d.due(ctx, key)
	switch {
	case l == nil:
	case l.group != nil || l.failures > 0:
		d.queue.Add(key) // for another worker
	default:
		l.sending = true
		g.parts = append(g.parts, part{key, l.head(d.batch - g.size())})
	}
}

// due returns a lane whose first item is to be delivered now. The lock must be
// held, and is let go while the lane is read again.
func (d *Dispatcher) due(ctx context.Context, key statesync.Key) *lane {
	for {
		l := d.lanes[key]
		if l == nil {
			return nil
		}
		for len(l.items) > 0 && l.items[0].skips() {
			d.skip(l.items[0])
			l.items = l.items[1:]
		}
		now := d.opts.Now()
		if wait := max(l.notBefore.Sub(now), d.pace.rests(now)); wait > 0 {
			d.queue.AddAfter(key, wait)
			return nil
		}
		switch {
		case len(l.items) > 0:
			return l
		case !l.disk:
			d.remove(key, l)
			return nil
		case l.unsaved > 0:
			d.saveNow() // and it is looked at again
			return nil
		}
		if d.compacts || d.thins { // what is aside is being gone through
			d.queue.AddAfter(key, saveEvery)
			return nil
		}
		if !d.load(ctx, key, l) {
			return nil
		}
	}
}

// remove takes an empty lane out of memory. The lock must be held.
func (d *Dispatcher) remove(key statesync.Key, l *lane) {
	d.unpark(l)
	delete(d.lanes, key)
	for _, uid := range l.told {
		d.forget(uid)
	}
}

func (d *Dispatcher) unpark(l *lane) {
	if l.parked {
		l.parked = false
		d.parked--
	}
}

// load reads an empty lane's entries from aside: of a parked one, the first;
// false: not now. The lock must be held, and is let go meanwhile.
func (d *Dispatcher) load(ctx context.Context, key statesync.Key, l *lane) bool {
	most := laneLoad
	if l.parked || d.memory >= d.opts.Window {
		most = 1
	}
	for after := (place{}); ; {
		saves, generation := d.saves, d.generation
		d.mu.Unlock()
		read, err := d.opts.Source.Read(ctx, statesync.ReadQuery{Sink: d.opts.Name, Aside: true, Lane: &key, After: after.number, AfterAside: after.id, Limit: laneLoad})
		d.mu.Lock()
		switch {
		case generation != d.generation:
			return false
		case err != nil:
			if ctx.Err() == nil {
				d.failing(err, d.opts.Now())
				d.queue.AddAfter(key, time.Second)
			}
			return false
		case saves != d.saves:
			after = place{} // once more: an entry may be gone by now
			continue
		}
		l.disk = len(read) == laneLoad || l.unsaved > 0
		for i := range read {
			after = placeOf(&read[i])
			if d.left[after.id] { // what comes after it is not to be given before that is durable
				l.disk = true
				d.saveNow()
				d.queue.AddAfter(key, saveEvery)
				return len(l.items) > 0
			}
			if d.taken[after.id] || after.number == 0 && after.id > d.asideTop {
				continue
			}
			if len(l.items) >= most {
				l.disk = true
				return true
			}
			it := d.fetch(&read[i])
			d.remember(it)
			l.items = append(l.items, it)
		}
		if len(l.items) > 0 || len(read) < laneLoad {
			return true
		}
	}
}

// head is how many of the first items may go into one call: at most a number,
// and nothing that is not delivered.
func (l *lane) head(most int) (n int) {
	for n < len(l.items) && n < most && !l.items[n].skips() {
		n++
	}
	return n
}

// itemsOf returns the items of a group. The lock must be held.
func (d *Dispatcher) itemsOf(g *group) (items []*item) {
	for _, p := range g.parts {
		items = append(items, d.lanes[p.key].items[:p.n]...)
	}
	return items
}

// conclude takes in what became of a call. The lock must be held.
func (d *Dispatcher) conclude(g *group, err error, sent, now time.Time) {
	g.inFlight = false
	errs := errorsOf(err, g.size())
	if isGone(err) || slices.ContainsFunc(errs, isGone) {
		d.detach(statesync.DetachedGone, err)
		return
	}
	whole := g.size() > 1 && err != nil && errs == nil && !refuses(err)
	if whole {
		g.failures++
	}
	if whole && g.failures < groupTries && said(err).After <= retryMax && !d.compacts {
		d.again(g, err, now)
		return
	}
	for _, p := range g.parts {
		l := d.lanes[p.key]
		l.group, l.sending = nil, false
		taken, failure := taken(p.n, err, errs)
		if errs != nil {
			errs = errs[p.n:]
		}
		if taken > 0 {
			d.acknowledge(l.items[:taken], sent, now)
			l.pop(taken)
			d.unpark(l)
		}
		if failure != nil {
			d.failed(l, failure, now)
		}
		switch {
		case len(l.items) == 0 && !l.disk:
			d.remove(p.key, l)
		case failure != nil:
			d.queue.AddAfter(p.key, l.notBefore.Sub(now))
		default:
			d.queue.Add(p.key)
		}
	}
}

// taken is how many of a part's items were taken, and why the next was not.
func taken(n int, err error, errs []error) (taken int, failure error) {
	if errs == nil {
		if err != nil {
			return 0, err
		}
		return n, nil
	}
	for taken < n && errs[taken] == nil {
		taken++
	}
	if taken < n {
		failure = errs[taken]
	}
	return taken, failure
}

// again has a group tried again as it is. The lock must be held.
func (d *Dispatcher) again(g *group, err error, now time.Time) {
	wait := backoff(g.failures, err)
	for _, p := range g.parts {
		l := d.lanes[p.key]
		l.group, l.notBefore, l.sending = g, now.Add(wait), false
	}
	d.refused(g.size(), err, now)
	d.queue.AddAfter(g.parts[0].key, wait)
}

// pop takes off items that are settled.
func (l *lane) pop(n int) {
	clear(l.items[:n])
	l.items, l.failures, l.notBefore, l.refused = l.items[n:], 0, time.Time{}, refusal{}
}

// failed notes that a lane's first item was not taken. The lock must be held.
func (d *Dispatcher) failed(l *lane, err error, now time.Time) {
	d.refused(1, err, now)
	l.failures++
	wait := backoff(l.failures, err)
	if first := l.items[0]; refuses(err) {
		if l.refused.id != first.ID {
			l.refused = refusal{id: first.ID, first: now}
		}
		l.refused.tries++
		switch {
		case l.refused.tries < refuseTries:
		case first.Mark != nil: // the receiver does not know of marks
			d.acknowledge(l.items[:1], now, now)
			l.pop(1)
			return
		case d.opts.Letters == SkipLetters && d.letters < mostLetters:
			d.bury(l, now, err)
			l.pop(1)
			d.unpark(l)
			return
		default:
			wait = max(wait, stuckWait)
		}
	}
	l.notBefore = now.Add(wait)
	if ((l.failures >= parkAfter || wait > retryMax) && !d.pace.open || d.compacts || d.thins) && l.items[0].Mark == nil {
		d.park(l)
	}
}

// park takes a lane out of memory. The lock must be held.
func (d *Dispatcher) park(l *lane) {
	if !l.parked {
		l.parked, l.oldest = true, l.items[0].Observed
		d.parked++
	}
	for _, it := range l.items {
		d.setAside(l, it)
	}
	l.items = nil
}

// putAsideOf puts aside what a lane in memory is to read again. The lock must
// be held.
func (d *Dispatcher) putAsideOf(l *lane, it *item) {
	l.disk = true
	l.unsaved++
	d.putAside(it, l)
}

// clearOut puts aside what the lanes hold, but for what is in flight: so that
// the cursor moves. The lock must be held.
func (d *Dispatcher) clearOut() {
	for _, l := range d.lanes {
		if l.sending || len(l.items) == 0 || l.items[0].Mark != nil {
			continue
		}
		if l.group != nil { // each of its lanes goes on by itself
			for _, p := range l.group.parts {
				d.lanes[p.key].group = nil
				d.queue.Add(p.key)
			}
		}
		for _, it := range l.items {
			d.setAside(l, it)
		}
		l.items = nil
	}
}

// setAside takes an item out of a lane's memory. The lock must be held.
func (d *Dispatcher) setAside(l *lane, it *item) {
	if it.Aside == 0 {
		d.putAsideOf(l, it)
		return
	}
	l.disk = true
	d.stays(it)
}

// stays lets an item go that is still put aside. The lock must be held.
func (d *Dispatcher) stays(it *item) {
	delete(d.taken, it.Aside)
	d.release(it)
	if it.unit {
		d.aside++
	}
}

func (d *Dispatcher) deliver(ctx context.Context, batch []statesync.Delivery) error {
	_ = failpoint.Here("delivery/sending")
	err := d.opts.Sink.Deliver(ctx, batch)
	_ = failpoint.Here("delivery/sent")
	return err
}

// errorsOf returns an error for each delivery; nil when one holds for all.
func errorsOf(err error, n int) []error {
	if b, ok := errors.AsType[*statesync.BatchError](err); ok && len(b.Errs) == n {
		return b.Errs
	}
	return nil
}

// said is what the sink says of a failure; nothing, when it says nothing.
func said(err error) statesync.SinkError {
	if s, ok := errors.AsType[*statesync.SinkError](err); ok {
		return *s
	}
	return statesync.SinkError{}
}

// isGone reports whether the receiver wants nothing any more.
func isGone(err error) bool { return said(err).Gone }

// refuses reports whether the sink refuses the delivery as such.
func refuses(err error) bool { return said(err).Rejected }

// blames reports whether a failure is the receiver's: one that refuses some
// deliveries and not others is well.
func blames(err error) bool {
	_, some := errors.AsType[*statesync.BatchError](err)
	return err != nil && !some && !refuses(err)
}

// backoff is how long to wait after a number of failures in a row, and never
// less than the receiver asked for.
func backoff(failures int, err error) time.Duration {
	return max(grown(failures), said(err).After)
}

// grown doubles from 200 ms up to 10 s, the upper half of it random.
func grown(failures int) time.Duration {
	wait := min(retryFirst<<min(failures-1, 16), retryMax)
	return wait/2 + rand.N(wait/2)
}
