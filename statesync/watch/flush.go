package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// The flusher's rules:
//   - An object is kept as of its last delta that is durable with all that it
//     caused, not as the indexer has it: a Running that a pod caused, and that
//     is not durable yet, is told again only if the log does not hold the pod
//     that runs.
//   - How far the stream has come is taken together with the objects, before
//     the first of them is written, and becomes durable with the last.
//   - A flush goes through the log's own queue, behind what was handed over
//     before.

const (
	flushEvery = time.Second
	flushChunk = 256         // objects in one transaction
	graveTime  = time.Minute // how long a life that is over is remembered; longer than an audit's question takes
)

// kept is an object that the log is to keep as it is here.
type kept struct {
	object *workload.Object
	gone   bool
}

// flushAll flushes every second until ctx ends. A flush that has begun is not
// cut short before drain ends. After an error no flush may follow: what the
// last one took, the log may not have.
func (w *Watcher) flushAll(ctx, drain context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := w.flush(drain); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// flush makes durable what of every stream is dirty, and how far it has come.
// It returns an error only when ctx ends or the log is closed.
func (w *Watcher) flush(ctx context.Context) error {
	for _, s := range w.streams {
		dirty, resume := s.takeDirty()
		_ = failpoint.Here("flush/taken")
		if err := s.keep(ctx, slices.Collect(maps.Values(dirty)), resume, false); err != nil {
			return err
		}
		if resume != nil {
			w.mu.Lock()
			s.saved = resume.Version
			w.mu.Unlock()
		}
		s.closeGraves()
	}
	return w.forgetStreams(ctx)
}

// forgetStreams lets the log forget the streams that the configuration has no
// longer, once those that have their objects now have told what is not known
// of the time between.
func (w *Watcher) forgetStreams(ctx context.Context) error {
	for _, name := range slices.Clone(w.forget) {
		if slices.ContainsFunc(w.streams, func(s *stream) bool { return s.overlaps(name) && !s.settled() }) {
			continue
		}
		if _, err := w.handOver(ctx, statesync.Entry{Forget: name}); err != nil {
			return err
		}
		w.forget = slices.DeleteFunc(w.forget, func(n string) bool { return n == name })
	}
	return nil
}

// settled reports whether the first list has been taken in, and all that it
// caused is durable.
func (s *stream) settled() bool {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.synced && s.listed == 0
}

// takeDirty takes the objects to be kept, and the resume point if it has moved.
func (s *stream) takeDirty() (dirty map[string]kept, resume *statesync.Resume) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	dirty, s.dirty = s.dirty, map[string]kept{}
	mark := s.mark()
	if mark > s.saved {
		resume = s.resumeAt(mark, s.reached)
	}
	maps.DeleteFunc(s.left, func(_ string, version uint64) bool { return version <= mark })
	return dirty, resume
}

func (s *stream) resumeAt(version uint64, at time.Time) *statesync.Resume {
	return &statesync.Resume{Stream: s.Name(), Definition: s.w.definition(s.Stream), Version: version, At: at}
}

// keep hands objects to the log in chunks, each once the one before is
// durable: the resume point comes with the last. Those of a first list are
// unread, and take the place of all that the log had. It returns an error only
// when ctx ends or the log is closed.
func (s *stream) keep(ctx context.Context, objects []kept, resume *statesync.Resume, first bool) error {
	for begun := false; len(objects) > 0 || resume != nil; begun = true {
		n := min(len(objects), flushChunk)
		e := statesync.Entry{Objects: make([]statesync.Object, n)}
		for i, k := range objects[:n] {
			e.Objects[i] = statesync.Object{Stream: s.Name(), UID: k.object.UID, Unread: first}
			if !k.gone {
				e.Objects[i].Body = encode(k.object)
			}
		}
		if objects = objects[n:]; len(objects) == 0 {
			e.Resume, resume = resume, nil
		}
		if first && !begun {
			e.Forget = s.Name()
		}
		durable, err := s.w.handOver(ctx, e)
		if err != nil {
			return err
		}
		select {
		case <-durable:
		case <-ctx.Done():
			return ctx.Err()
		}
		_ = failpoint.Here("flush/chunk")
	}
	_ = failpoint.Here("flush/durable")
	return nil
}

// handOver appends an entry of no delta, which the end of a session waits for
// as it does for deltas: what becomes durable later would be of a time that is
// over. The channel is closed when it is durable; its own Done comes before.
func (w *Watcher) handOver(ctx context.Context, e statesync.Entry) (durable <-chan struct{}, err error) {
	w.mu.Lock()
	w.total++
	w.mu.Unlock()
	done, own := make(chan struct{}), e.Done
	less := func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.less()
	}
	e.Done = func() {
		if own != nil {
			own()
		}
		less()
		close(done)
	}
	if err := w.opts.Log.Append(ctx, e); err != nil {
		less()
		return nil, err
	}
	return done, nil
}

// keepFirst makes the objects of a first list durable, as not read yet, and
// its version: were the agent to die before their changes are, nobody would
// know how far the list had told. Of a later list it does nothing.
func (s *stream) keepFirst(listed []*workload.Object, version uint64) error {
	s.w.mu.Lock()
	if s.synced {
		s.w.mu.Unlock()
		return nil
	}
	s.waits = true // while the log is behind
	resume := s.resumeAt(version, s.w.opts.Now())
	s.w.mu.Unlock()
	_ = failpoint.Here("list/first")
	objects := make([]kept, len(listed))
	for i, o := range listed {
		objects[i].object = o
	}
	err := s.keep(s.ctx, objects, resume, true)
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.waits = false
	if err != nil {
		return err
	}
	s.saved = version
	_ = failpoint.Here("list/kept")
	return nil
}

// settle notes that what a delta caused is durable, and so its object may be
// kept. The lock must be held.
func (s *stream) settle(d *delta) {
	o := d.object
	if d.stale {
		return
	}
	if h := s.objects[objectKey(o)]; h != nil && h.UID == o.UID {
		if o.ResourceVersion < h.settled {
			return // its key has changed, and a later delta was faster under the new one
		}
		h.settled = o.ResourceVersion
	}
	if o.ResourceVersion <= s.left[o.UID] {
		return // so was its removal
	}
	if d.removed {
		s.leaves(o)
	}
	if d.removed && s.hops[o.UID].kept {
		again := *o
		again.Gone = true // what it controlled may yet come, after a crash too
		s.dirty[o.UID] = kept{object: &again}
		return
	}
	s.dirty[o.UID] = kept{object: o, gone: d.removed}
}

// closeGraves forgets lives that are over, once no event can come for them:
// their removal is behind the stream's durable resume point, the other streams
// have come as far, and no audit has asked since before it.
func (s *stream) closeGraves() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if !s.synced || s.listed > 0 {
		return // a list may yet tell of them
	}
	now := s.w.opts.Now()
	shown := s.w.shownByAll(now)
	s.forgetHops(now, shown)
	for i := 0; i < len(s.graves) && s.graves[i].at.IsZero(); i++ { // those from the log are the first
		s.graves[i].at = now
	}
	for len(s.graves) > 0 {
		g := s.graves[0]
		if s.saved < g.removed || !isOver(now.Sub(g.at), g.removed, shown) {
			return
		}
		if l := s.w.lives[g.uid]; l != nil && l.Gone {
			delete(s.w.lives, g.uid)
		}
		s.graves = s.graves[1:]
	}
}

// encode writes an object for the log.
func encode(o *workload.Object) []byte {
	b, err := json.Marshal(o)
	if err != nil {
		panic(fmt.Sprintf("BUG: an object of plain fields cannot be encoded: %v", err))
	}
	return b
}
