package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

const retryMax = 5 * time.Second // between two tries to read the log

// errUnreadable: what the log kept of an object is not what this program
// wrote.
var errUnreadable = errors.New("unreadable")

// Run watches until ctx ends, then gives what is pending to the log, for 1.5
// seconds at most: the API server still has the rest.
//
// A session begins with what the log remembers. It ends early when the
// cluster was set back to an earlier time, or when the log had to begin anew;
// then the next one begins.
func (w *Watcher) Run(ctx context.Context) error {
	var workers errgroup.Group
	drain, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(drainTime, cancel) })()
	for range w.opts.Workers {
		workers.Go(func() error { w.work(drain); return nil })
	}
	var err error
	for ctx.Err() == nil && err == nil {
		err = w.session(ctx, drain)
	}
	w.queue.ShutDown()
	_ = workers.Wait() // they return no errors
	if ctx.Err() == nil {
		return err
	}
	if err == nil {
		_ = w.flush(drain) // what it cannot keep the API server has still
	}
	return nil // a stop is no error
}

// session watches until ctx ends or what it began with no longer holds. What
// must not be interrupted halfway runs until drain ends.
func (w *Watcher) session(ctx, drain context.Context) error {
	memory, err := w.load(ctx)
	if err != nil {
		return err
	}
	if err := w.begin(ctx, memory); errors.Is(err, errUnreadable) {
		w.opts.Logger.Error("the log's objects cannot be read: a new epoch begins, every stream is listed again", "err", err)
		return w.newEpoch(ctx, statesync.GapLedgerLost)
	} else if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var parts errgroup.Group
	for _, s := range w.streams {
		parts.Go(func() error { s.run(running); return nil })
		parts.Go(func() error { s.auditAll(running); return nil })
	}
	parts.Go(func() error { return w.flushAll(running, drain) })
	setBack := false
	select {
	case <-ctx.Done():
	case <-memory.Stale:
		w.opts.Logger.Warn("the log had to begin anew: every stream is listed again")
	case <-w.setBack:
		setBack = true
		w.opts.Logger.Warn("the cluster was set back to an earlier time: a new epoch begins, every stream is listed again")
	}
	stop()
	if err := parts.Wait(); err != nil || ctx.Err() != nil {
		return err
	}
	w.hurryUp()
	// What was read of the time before cannot be read again.
	if err := w.drained(ctx); err != nil || !setBack {
		return err
	}
	return w.newEpoch(ctx, statesync.GapRestored)
}

func (w *Watcher) newEpoch(ctx context.Context, reason string) error {
	return w.insist(ctx, "begin a new epoch", func() error { return w.opts.Log.NewEpoch(ctx, reason) })
}

func (w *Watcher) load(ctx context.Context) (memory *statesync.Memory, err error) {
	err = w.insist(ctx, "read what the log remembers", func() (err error) {
		memory, err = w.opts.Log.Load(ctx)
		return err
	})
	return memory, err
}

// insist tries until do succeeds or ctx ends. It logs the first and the last
// of a run of failures.
func (w *Watcher) insist(ctx context.Context, what string, do func() error) error {
	began, failed := w.opts.Now(), false
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, retryMax) {
		err := do()
		switch {
		case err == nil && failed:
			w.opts.Logger.Info("can "+what+" again", "after", w.opts.Now().Sub(began))
			return nil
		case err == nil || ctx.Err() != nil || errors.Is(err, errUnreadable):
			return err
		case !failed:
			failed = true
			w.opts.Logger.Error("cannot "+what+"; trying again", "err", err)
		}
		sleep(ctx, wait)
	}
}

// drained waits until all that was read is durable.
func (w *Watcher) drained(ctx context.Context) error {
	w.mu.Lock()
	idle := make(chan struct{})
	if w.total == 0 {
		close(idle)
	} else {
		w.idle = idle
	}
	w.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin takes over what the log remembers. Nothing is pending then.
func (w *Watcher) begin(ctx context.Context, m *statesync.Memory) error {
	select {
	case <-w.setBack: // told of the session before
	default:
	}
	w.mu.Lock()
	w.epoch = m.Epoch
	w.lives = map[string]*life{}
	w.within, w.hurry = map[string]map[string]*workload.Object{}, false
	for _, s := range w.streams {
		s.forgetAll()
	}
	for _, row := range m.Rows {
		if row.Kind != statesync.StreamKind {
			w.lives[row.UID] = &life{Row: row}
		}
	}
	w.mu.Unlock()
	if err := w.untrack(ctx, m); err != nil {
		return err
	}
	for _, s := range w.streams {
		err := s.remember(ctx, m)
		if err == nil {
			err = s.owe(ctx)
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", s.Name(), err)
		}
	}
	if err := w.drained(ctx); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.digGraves()
	for _, s := range w.streams {
		s.feedUnread()
	}
	return nil
}

// digGraves puts the lives whose object is gone where they are forgotten in
// time; those that no stream can tell of are forgotten at once. The lock must
// be held.
func (w *Watcher) digGraves() {
	for _, uid := range slices.Sorted(maps.Keys(w.lives)) {
		l := w.lives[uid]
		if !l.Gone {
			continue
		}
		s := w.streamOf(l.Row)
		if s == nil {
			delete(w.lives, uid)
			continue
		}
		removed := l.Removed
		if l.Epoch != w.epoch {
			removed = 0 // versions have begun anew
		}
		s.graves = append(s.graves, grave{uid: uid, removed: removed})
	}
}

// streamOf returns the stream that a workload's own events come from; nil: it
// is not watched any more, or only to tell the story of others.
func (w *Watcher) streamOf(r statesync.Row) *stream {
	for _, s := range w.streams {
		if s.covers(r.Ref) {
			return s
		}
	}
	return nil
}

// untrack ends, as Untracked, the workloads of streams that the configuration
// has no longer, and waits until that is durable: another session would tell
// them again.
func (w *Watcher) untrack(ctx context.Context, m *statesync.Memory) error {
	versions := map[string]uint64{}
	w.forget = nil
	for _, r := range m.Streams {
		versions[r.Stream] = r.Version
		if slices.ContainsFunc(w.streams, func(s *stream) bool { return s.Name() == r.Stream }) {
			continue
		}
		w.forget = append(w.forget, r.Stream)
		if r.Lost == "" { // were it configured again, others have gone on meanwhile
			r.Lost = statesync.GapRedefined
			if _, err := w.handOver(ctx, statesync.Entry{Resume: &r}); err != nil {
				return err
			}
		}
	}
	for _, row := range m.Rows {
		l := w.lives[row.UID]
		if l == nil || l.Gone || w.streamOf(row) != nil {
			continue
		}
		var changes []statesync.Change
		if !l.State.Ended() {
			o := &workload.Object{Kind: l.Kind, ResourceVersion: versions[row.Stream]}
			d := &delta{object: o, observed: w.opts.Now(), late: true}
			changes = append(changes, w.change(d, l, workload.Untracked(l.Ref), 0))
		}
		l.Gone = true
		if _, err := w.handOver(ctx, statesync.Entry{Changes: changes, Row: l.Row}); err != nil {
			return err
		}
	}
	return w.drained(ctx)
}

// forgetAll makes the stream as if nothing had been read.
func (s *stream) forgetAll() {
	s.objects, s.dirty, s.unread = map[string]*held{}, map[string]kept{}, nil
	s.hops, s.left, s.complete, s.failing = map[string]hop{}, map[string]uint64{}, make(chan struct{}), 0
	s.version, s.highest, s.saved, s.floor, s.listed, s.resume, s.resuming = 0, 0, 0, 0, 0, 0, 0
	s.synced, s.taking, s.waits, s.listing, s.apart, s.own = false, false, false, false, false, 0
	s.gap, s.graves = gaps{last: s.gap.last}, nil
	s.seen, s.reached = time.Time{}, time.Time{}
}

// remember takes over what the log remembers of the stream: where to go on
// from, or why that cannot be and how far it had come.
func (s *stream) remember(ctx context.Context, m *statesync.Memory) error {
	if !s.standsAt(m) {
		return nil
	}
	return s.w.insist(ctx, "read the objects of stream "+s.Name(), func() error { return s.loadObjects(ctx) })
}

// standsAt notes where the stream stands, and reports whether the log holds
// objects of it.
func (s *stream) standsAt(m *statesync.Memory) bool {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	known := false
	for _, row := range m.Rows {
		if row.UID == statesync.StreamRef(s.Name()).UID {
			if s.gap.count = row.Seq; row.Epoch == m.Epoch {
				s.gap.told = [2]uint64{row.Removed, row.ResourceVersion}
			}
		}
		if s.covers(row.Ref) {
			known = known || !row.Gone
			if row.Epoch == m.Epoch {
				s.highest = max(s.highest, row.ResourceVersion, row.Removed)
			}
		}
	}
	i := slices.IndexFunc(m.Streams, func(r statesync.Resume) bool { return r.Stream == s.Name() })
	if i < 0 {
		s.isNewIn(m, known)
		return false
	}
	r := m.Streams[i]
	switch s.gap.from, s.gap.since = r.Version, r.At; {
	case r.Lost != "":
		s.gap.reason, s.highest = r.Lost, 0
	case r.Definition != s.w.definition(s.Stream):
		s.gap.reason, s.highest = statesync.GapRedefined, max(s.highest, r.Version)
	default:
		s.version, s.saved, s.resume = r.Version, r.Version, r.Version
		s.reached, s.highest = r.At, max(s.highest, r.Version)
	}
	return true
}

// isNewIn says why a stream that the log does not know leaves a gap, if it
// does: its objects were in another stream, or the log has lost it.
func (s *stream) isNewIn(m *statesync.Memory, known bool) {
	lost := m.Epoch > 1 && len(m.Streams) == 0
	for _, r := range m.Streams {
		lost = lost || r.Lost == statesync.GapLedgerLost
		if s.overlaps(r.Stream) && (s.gap.from == 0 || r.Version < s.gap.from) {
			s.gap.reason, s.gap.from, s.gap.since = statesync.GapRedefined, r.Version, r.At
		}
	}
	switch {
	case lost:
		s.gap.reason, s.highest = statesync.GapLedgerLost, 0
	case known:
		s.gap.reason = statesync.GapRedefined
	}
}

func (s *stream) loadObjects(ctx context.Context) error {
	s.w.mu.Lock()
	s.objects, s.unread = map[string]*held{}, nil
	resumes := s.gap.reason == "" // else the list that comes feeds all
	otherTime := s.gap.reason == statesync.GapRestored || s.gap.reason == statesync.GapLedgerLost
	s.w.mu.Unlock()
	return s.w.opts.Log.Objects(ctx, s.Name(), func(was statesync.Object) error {
		o := &workload.Object{}
		err := json.Unmarshal(was.Body, o)
		if err != nil && resumes {
			return fmt.Errorf("%w: object %s: %w", errUnreadable, was.UID, err)
		}
		s.w.mu.Lock()
		defer s.w.mu.Unlock()
		if err != nil { // the log may forget it
			s.dirty[was.UID] = kept{object: &workload.Object{UID: was.UID}, gone: true}
			return nil
		}
		if o.Kind = s.Kind.Name; o.Gone {
			s.hops[o.UID] = hop{owner: o.Controller, at: s.w.opts.Now(), kept: true, gone: o.ResourceVersion}
			return nil
		}
		h := &held{Object: o, settled: o.ResourceVersion, first: sighting{version: o.ResourceVersion}}
		if h.own = s.w.lives[o.UID] != nil; o.Root.UID == "" { // an unread one was kept before it was looked for, another before its kind was tracked
			h.teller = s.findRoot(o, nil)
		}
		_, wanted := s.key(&delta{object: o, teller: h.teller})
		if old := s.objects[objectKey(o)]; !wanted || old != nil && old.ResourceVersion > o.ResourceVersion {
			s.dirty[was.UID] = kept{object: o, gone: true} // of no use, or of an earlier life of the name
			return nil
		}
		if otherTime { // only to find what the list lacks
			s.objects[objectKey(o)] = h
			return nil
		}
		if l := s.w.lives[o.UID]; l != nil {
			l.counted, l.elsewhere = o.Counted(), o.Elsewhere
		}
		s.index(h)
		s.highest = max(s.highest, o.ResourceVersion)
		if resumes && was.Unread {
			s.unread = append(s.unread, h)
		}
		return nil
	})
}

// feedUnread gives the workers what a first list found and the agent died
// before it had told; and what has another root than when it was kept, because
// its controller's event was durable and what that caused was not. The lock
// must be held.
func (s *stream) feedUnread() {
	if s.gap.reason != "" {
		return // the list that comes feeds all
	}
	unread := make(map[string]bool, len(s.unread))
	for _, h := range s.unread {
		unread[h.UID] = true
	}
	s.unread = nil
	now := s.w.opts.Now()
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		h := s.objects[key]
		root, known := s.rootOf(h.Object, nil)
		moved := known && (h.unresolved || root.UID != h.Root.UID)
		untold := known && root.UID == "" && !s.FoldOnly && s.w.lives[h.UID] == nil
		if !moved && !untold && !unread[h.UID] {
			continue
		}
		if moved {
			again := *h.Object
			s.replace(h.Object, &again, s.findRoot(&again, nil))
		}
		if h.own && s.w.lives[h.UID] != nil && !unread[h.UID] {
			continue
		}
		s.feed(&delta{object: h.Object, teller: h.teller, late: true, unread: s.saved, recall: true, observed: now})
	}
}

// hurryUp ends all waiting: nothing comes any more that it could be for.
func (w *Watcher) hurryUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hurry = true
	for key := range w.pending {
		w.queue.Add(key)
	}
}
