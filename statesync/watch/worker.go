package watch

import (
	"context"
	"time"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// work drains keys until the queue is shut down and empty.
func (w *Watcher) work(ctx context.Context) {
	for {
		key, shutdown := w.queue.Get()
		if shutdown {
			return
		}
		w.drain(ctx, key)
		w.queue.Done(key)
	}
}

// drain takes a key's pending list and gives what it causes to the log, in
// order but for what waits (see [Watcher.waits]), which stays pending. Nothing
// else goes back to the queue: a later delta of the key would overtake it. A
// delta that causes nothing takes its place in the log's queue too: its object
// may be kept only when what came before it is durable.
func (w *Watcher) drain(ctx context.Context, key statesync.Key) {
	w.mu.Lock()
	deltas := w.pending[key]
	delete(w.pending, key)
	w.mu.Unlock()
	var until time.Time
	for again := true; again && len(deltas) > 0; {
		var err error
		before := len(deltas)
		if deltas, until, err = w.pass(ctx, key, deltas); err != nil {
			return // the agent stops: what is not durable stays with the API server
		}
		again = len(deltas) < before // what waits may have waited for that
	}
	if len(deltas) > 0 {
		w.putBack(key, deltas, until)
	}
}

// pass handles a key's deltas once and returns those that wait, and until when
// at most. Behind an end that waits, only pods go on; behind an object whose
// root is not known, only those whose is.
func (w *Watcher) pass(ctx context.Context, key statesync.Key, deltas []*delta) (waiting []*delta, until time.Time, err error) {
	comes := newComing(deltas)
	held, unresolved := false, false
	for _, d := range deltas {
		wait := time.Time{}
		switch was := d.unresolved; {
		case was && !unresolved:
			if wait, err = w.resolve(ctx, d); err == nil && !d.unresolved && w.route(d) {
				comes.less(d)
				continue
			}
			unresolved = !wait.IsZero()
		case was:
			wait = until
		}
		if wait.IsZero() && err == nil && (!held || d.folded()) {
			wait, err = w.waits(ctx, d, key, comes)
		} else if wait.IsZero() {
			wait = until
		}
		if err == nil && wait.IsZero() {
			comes.less(d)
			err = w.handle(ctx, d)
		} else {
			held = held || !d.folded() && !d.unresolved
			waiting = append(waiting, d)
			if until.IsZero() || wait.Before(until) {
				until = wait
			}
		}
		if err != nil {
			return nil, until, err
		}
	}
	return waiting, until, nil
}

// handle gives what a delta causes to the log. It returns an error only when
// ctx ends or the log is closed.
func (w *Watcher) handle(ctx context.Context, d *delta) error {
	var entry statesync.Entry
	if d.ahead || d.behind {
		w.unpark(d)
	}
	if d.unresolved {
		d.stale = true // the session ends, and the next one reads it again
	} else if _, wanted := d.stream.key(d); wanted {
		var err error
		if entry, err = w.reduce(ctx, d); err != nil {
			return err
		}
	}
	_ = failpoint.Here("watch/reduced")
	entry.Done = func() { w.done(d) }
	if err := w.opts.Log.Append(ctx, entry); err != nil {
		return err
	}
	_ = failpoint.Here("watch/appended")
	return nil
}

// reduce says what a delta causes; an entry that holds nothing when that is
// nothing. It returns an error only when ctx ends.
func (w *Watcher) reduce(ctx context.Context, d *delta) (statesync.Entry, error) {
	if d.folded() {
		return w.reducePod(d), nil
	}
	if d.stream.FoldOnly {
		return statesync.Entry{}, nil
	}
	l, err := w.life(ctx, d)
	if err != nil {
		return statesync.Entry{}, err
	}
	o, kind := d.object, d.stream.Kind
	l.counted, l.elsewhere = max(l.counted, o.Counted()-l.passed), o.Elsewhere
	replayed := w.isReplayed(d, l)
	if l.Epoch < w.epoch && d.late {
		l.Suspension, l.stopped = time.Time{}, 0 // it may not have happened yet
	}
	if l.State.Ended() {
		return w.reduceEnded(d, l, replayed && d.before(l.ResourceVersion)), nil
	}
	if replayed && !d.anew && (!d.late || !d.removed) {
		return statesync.Entry{}, nil
	}
	status := w.assess(d, l)
	if d.removed {
		if status, err = w.removed(ctx, d); err != nil {
			return statesync.Entry{}, err
		}
	}
	before := l.Row
	var changes []statesync.Change
	anew := l.before().RunsAnew(status, o)
	steps := workload.Steps(l.before(), status, o)
	if len(steps) == 0 && w.opts.Reasons && status.State == l.State && kind.Retells(l.Reason, status, o) {
		steps = []workload.Status{status}
	}
	if w.ranBefore(l, status) {
		steps = []workload.Status{status}
	}
	if n := len(steps); n > 0 {
		steps[n-1] = w.explain(d, l, steps[n-1])
	}
	for _, step := range steps {
		changes = append(changes, w.change(d, l, step, 0))
	}
	if status.Suspended {
		l.Suspension = status.Occurred
		if o.Phase == workload.Unrun { // its pods are of the run to come, in the same second too
			l.Suspension = o.Created.Add(-time.Second)
		}
		if !before.Suspended {
			if l.stopped, l.timeless = o.ResourceVersion, false; !w.isOfOneEtcd() {
				l.stopped = 0
			}
		}
	}
	if anew { // it was suspended before that, at a time that nobody knows
		l.Suspension, l.stopped = o.Started.Add(-time.Second), 0
	}
	l.Suspended, l.Started = status.Suspended, o.Started
	if anew || before.Suspended && !l.Suspended { // what it counts from now on is of this run
		l.passed, l.lost = o.Counted()-int(o.Pods.Active), 0
		l.counted = int(o.Pods.Active)
	}
	l.noteClockBack()
	if pod, runs := w.runningPod(l); runs {
		changes = append(changes, w.change(d, l, pod, 0))
	}
	moved := before.Suspended != l.Suspended || kind.PodsRun && !before.Started.Equal(l.Started)
	if len(changes) > 0 || moved { // what came before is not to be read into it again
		l.Epoch, l.ResourceVersion = w.epoch, o.ResourceVersion
	}
	if d.removed {
		w.bury(d, l)
	}
	if len(changes) == 0 && !d.removed && !moved {
		return statesync.Entry{}, nil
	}
	return statesync.Entry{Changes: changes, Row: l.Row}, nil
}

// ranBefore reports whether a life that ran does not run any more, because the
// cluster was set back to a time at which it did not. Of a workload that its
// pods set running they will tell.
func (w *Watcher) ranBefore(l *life, now workload.Status) bool {
	return l.Epoch < w.epoch && l.State == statesync.Running && now.State == statesync.Queued && !w.kinds[l.Kind].PodsRun
}

// isReplayed reports whether the delta's changes are in the log. A list has the
// version of the list for what is gone, and what the configuration selects
// again is as it was.
func (w *Watcher) isReplayed(d *delta, l *life) bool {
	return l.Epoch == w.epoch && d.object.ResourceVersion <= l.ResourceVersion
}

// assess says where the workload stands by its object. One that does not say
// stands where it stood; a new one is there, and so queued.
func (w *Watcher) assess(d *delta, l *life) workload.Status {
	status := d.stream.Kind.Assess(d.object)
	if status.State == "" {
		status.State, status.Reason, status.Suspended = l.State, l.Reason, l.Suspended
		if l.State == "" {
			status.State, status.Occurred = statesync.Queued, d.object.Created
		}
	}
	return status
}

// explain adds what the workload's pods say, and the most telling one of those
// that are gone.
func (w *Watcher) explain(d *delta, l *life, status workload.Status) workload.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	pods := w.podsOf(d.object.UID)
	if l.account != nil {
		pods = append(pods, l.account)
	}
	return d.stream.Kind.Explain(status, pods)
}

// podsOf returns the pods that fold into a workload. The lock must be held.
func (w *Watcher) podsOf(uid string) (pods []*workload.Object) {
	for _, o := range w.within[uid] {
		if o.Kind == "Pod" && o.Root.UID == uid {
			pods = append(pods, o)
		}
	}
	return pods
}

// reduceEnded: nothing follows an end, but that the object goes; and that it
// is selected again after it was not, or lives again in a cluster that was set
// back to a time before the end.
func (w *Watcher) reduceEnded(d *delta, l *life, replayed bool) statesync.Entry {
	if d.removed {
		w.bury(d, l)
		return statesync.Entry{Row: l.Row}
	}
	wasGone, o := l.Gone, d.object
	if replayed || d.stale || wasGone && d.before(l.Removed) && l.Epoch == w.epoch && o.ResourceVersion <= l.Removed {
		return statesync.Entry{}
	}
	w.revive(l)
	status := w.assess(d, l)
	if l.State != statesync.Untracked && (l.Epoch == w.epoch || status.State.Ended()) {
		if !wasGone {
			return statesync.Entry{}
		}
		return statesync.Entry{Row: l.Row} // it is there again, and has ended still
	}
	changes := []statesync.Change{w.change(d, l, status, 0)}
	l.Suspended, l.Started = status.Suspended, o.Started
	if pod, runs := w.runningPod(l); runs {
		changes = append(changes, w.change(d, l, pod, 0))
	}
	l.ResourceVersion = o.ResourceVersion
	return statesync.Entry{Changes: changes, Row: l.Row}
}

// before reports whether the delta tells of a time before a version: what a
// list says is true as of the list, however old the object is.
func (d *delta) before(version uint64) bool {
	return !d.late || d.unread > 0 && version > d.unread
}

// removed says which end a removal gives. With a selector, an object that is
// no longer in the stream may live on: the API server is asked.
func (w *Watcher) removed(ctx context.Context, d *delta) (workload.Status, error) {
	if d.stream.Selector != "" {
		there, err := d.stream.stillThere(ctx, d.object)
		if err != nil {
			return workload.Status{}, err
		}
		if there {
			return workload.Untracked(d.object.Ref()), nil
		}
	}
	if d.setBack {
		return d.stream.Kind.SetBack(d.object), nil
	}
	return d.stream.Kind.Removed(d.object), nil
}

// reducePod says what a folded object causes: a pod may move its root to
// Running; nothing else causes anything. A pod never starts a workload; one
// that runs before its root is seen is found in the indexer when that comes.
func (w *Watcher) reducePod(d *delta) statesync.Entry {
	l := w.rootLife(d)
	if l == nil || d.object.Kind != "Pod" {
		return statesync.Entry{}
	}
	kind := w.kinds[l.Kind]
	if !kind.PodsRun {
		return statesync.Entry{}
	}
	if l.State.Ended() {
		return statesync.Entry{}
	}
	if d.removed {
		if l.ofThisRun(d.object, d.first) {
			l.lost++
		}
		if d.object.Phase == "Failed" {
			l.lostFailed++
		}
		l.account = kind.Account(l.account, d.object)
		if _, ran := workload.Ran(d.object); ran && (l.ran == nil || !l.ran.Created.After(l.Suspension) || !d.object.Created.Before(l.ran.Created)) {
			l.ran, l.ranFirst = d.object, d.first
		}
		return statesync.Entry{}
	}
	step, moves := l.movedBy(d.object, d.first)
	if !moves {
		return statesync.Entry{}
	}
	change := w.change(d, l, step, l.ResourceVersion)
	return statesync.Entry{Changes: []statesync.Change{change}, Row: l.Row}
}

// rootLife returns the life of a folded delta's root; nil: it is not known.
func (w *Watcher) rootLife(d *delta) *life {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.lives[d.object.Root.UID]
	if l == nil || !owns(l.Ref, d.object) {
		return nil
	}
	return l
}

// runningPod looks for a pod that moves its root: in the indexer, and the last
// one that is gone.
func (w *Watcher) runningPod(l *life) (workload.Status, bool) {
	if !w.kinds[l.Kind].PodsRun || l.State != statesync.Queued || l.Suspended || l.elsewhere {
		return workload.Status{}, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	pods := w.podsOf(l.UID)
	if l.ran != nil {
		if _, sure := l.byVersion(l.ran, l.ranFirst); sure || l.ran.Created.After(l.Suspension) { // of the same second it may be of the run before
			pods = append(pods, l.ran)
		}
	}
	for _, pod := range pods {
		if step, moves := l.movedBy(pod, w.firstOf(pod, l)); moves && (l.Namespace == "" || owns(l.Ref, pod)) { // one of the whole cluster may have been seen later
			return step, true
		}
	}
	return workload.Status{}, false
}

// movedBy reports whether a pod sets the workload running.
func (l *life) movedBy(pod *workload.Object, first sighting) (workload.Status, bool) {
	before := l.before()
	if ofThis, sure := l.byVersion(pod, first); sure {
		if !ofThis {
			return workload.Status{}, false
		}
		before.Suspension = time.Time{} // it is of this run, whatever the times say
	}
	return workload.PodRuns(before, pod)
}

// owns reports whether the pod's root is the workload, not only by its UID:
// the API server does not check what an ownerReference says.
func owns(r statesync.Ref, pod *workload.Object) bool {
	return r.Key() == rootKey(pod)
}

// change makes the next change of a life, and moves the life to it. owner is
// the owner's last emitted resourceVersion when a folded pod causes it, else 0.
func (w *Watcher) change(d *delta, l *life, step workload.Status, owner uint64) statesync.Change {
	l.Seq++
	if l.Epoch != w.epoch { // versions have begun anew
		l.Epoch, l.ResourceVersion = w.epoch, 0
	}
	if d.anew || l.State == statesync.Untracked || step.State == statesync.Untracked {
		owner = uint64(l.Seq) // the event need not be a new one
	}
	resource := w.kinds[d.object.Kind].Collection
	c := statesync.Change{
		ID:      statesync.ChangeID(w.opts.Cluster, w.epoch, l.UID, resource, d.object.ResourceVersion, owner, step.State),
		Cluster: w.opts.Cluster, Epoch: w.epoch, Workload: l.Ref,
		From: l.State, To: step.State, Reason: step.Reason, Message: step.Message, ExitCode: step.ExitCode,
		Seq: l.Seq, Occurred: step.Occurred, Observed: d.observed,
		Reconstructed: step.Reconstructed, ObservedLate: d.late,
	}
	if c.Occurred.IsZero() {
		c.Occurred = d.observed.Truncate(time.Second)
	}
	if l.State, l.Reason = step.State, step.Reason; l.State.Ended() {
		l.account, l.ran = nil, nil // nobody asks any more
	}
	return c
}

// life returns what is known of the delta's life, beginning one if need be. A
// stream may be told again of a life that a selector had let go, and that only
// the log remembers.
func (w *Watcher) life(ctx context.Context, d *delta) (*life, error) {
	o := d.object
	var row statesync.Row
	if log, ok := w.opts.Log.(Recaller); ok && d.recall && !w.knows(o.UID) {
		err := w.insist(ctx, "ask the log for "+o.UID, func() (err error) {
			row, err = log.Recall(ctx, o.UID)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.lives[o.UID]
	if l == nil {
		l = &life{Row: row}
		w.lives[o.UID] = l
		if l.Gone {
			d.stream.graves = append(d.stream.graves, grave{uid: o.UID, at: w.opts.Now()})
		}
	}
	l.Ref, l.Stream = o.Ref(), d.stream.Name()
	return l, nil
}

func (w *Watcher) knows(uid string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lives[uid] != nil
}

// bury notes that a life's object is gone, or no longer selected.
func (w *Watcher) bury(d *delta, l *life) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.Gone {
		return
	}
	l.Gone, l.Removed = true, d.object.ResourceVersion
	d.stream.graves = append(d.stream.graves, grave{uid: l.UID, removed: l.Removed, at: w.opts.Now()})
}

// revive notes that a life's object is there again.
func (w *Watcher) revive(l *life) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.Gone, l.Removed = false, 0
}

func (l *life) before() workload.Before {
	return workload.Before{
		State: l.State, Suspended: l.Suspended, Elsewhere: l.elsewhere, Started: l.Started, Suspension: l.Suspension,
	}
}
