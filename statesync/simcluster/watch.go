package simcluster

import (
	"bufio"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	minWatch    = 30 * time.Minute // without timeoutSeconds it lasts so long, or up to twice
	watchBatch  = 500              // events between two looks at the clock
	watchBuffer = 32 << 10
)

// A watcher tells one watch what happens. It keeps nothing: it reads the
// history, and who is slower than that is long gets 410.
type watcher struct {
	*query
	server *Server
	call   *call
	stream *store
	out    *bufio.Writer
	events *eventWriter
	after  int64 // all up to this version was told
	told   int64 // how far the cluster was when it was last asked
	goesOn bool  // from a version, and the history reaches it
	bell   *bell
	ending time.Time
}

// watch answers a watch. Once it has begun, errors are events, as are those of
// its version.
func (s *Server) watch(c *call, q *query) error {
	stream, err := s.cluster.stream(c.resource)
	if err != nil {
		return err
	}
	if q.Continue != "" {
		return apierrors.NewBadRequest("continue is not allowed for a watch")
	}
	w := &watcher{query: q, server: s, call: c, stream: stream, bell: s.faults.listen(c.resource), ending: time.Now().Add(minWatch + rand.N(minWatch))}
	defer s.faults.leave(w.bell)
	if q.TimeoutSeconds != nil && *q.TimeoutSeconds > 0 {
		w.ending = time.Now().Add(time.Duration(*q.TimeoutSeconds) * time.Second)
	}
	s.stats.watches.Add(1)
	defer s.stats.watches.Add(-1)
	w.out = bufio.NewWriterSize(c.w, watchBuffer)
	w.events = c.form.eventWriter(w.out)
	c.w.Header().Set("Content-Type", c.form.streamType())
	c.w.WriteHeader(http.StatusOK)
	if err := w.run(); err != nil {
		s.opts.Logger.Debug("watch broken off", "resource", c.resource.Plural, "err", err)
	}
	return nil
}

// run tells until the watch is over. Its error is of what could not be
// written.
func (w *watcher) run() error {
	ctx, cancel := context.WithDeadline(w.call.Context(), w.ending)
	defer cancel()
	err := w.begin(ctx)
	if err == nil {
		err = w.follow(ctx)
	}
	refused, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return err
	}
	if apierrors.IsResourceExpired(refused) {
		w.server.lapses.refused(w.query, w.call.resource, w.after)
	}
	if err := w.events.write(watch.Error, statusOf(refused)); err != nil {
		return err
	}
	return w.flush()
}

// begin tells what is there, if that is asked for.
func (w *watcher) begin(ctx context.Context) error {
	w.after = w.version
	initial := w.SendInitialEvents != nil && *w.SendInitialEvents
	if !initial && w.version != 0 {
		if err := w.server.faults.tooOld(w.call.resource); err != nil {
			return err
		}
		return w.flush()
	}
	if w.SendInitialEvents != nil && !initial {
		w.after = w.server.cluster.Now() // without what is there
		return w.flush()
	}
	seen, err := w.server.cluster.view(w.call.resource, 0)
	if err != nil {
		return err
	}
	seen.each(w.namespace, "", func(v *Version) bool {
		if w.takes(v) {
			err = w.tell(watch.Added, v)
		}
		return err == nil && ctx.Err() == nil
	})
	w.after = seen.version
	if err == nil && initial {
		err = w.endInitial(ctx)
	}
	if err != nil {
		return err
	}
	return w.flush()
}

// endInitial says that all of a version at least as new as was asked for has
// been told.
func (w *watcher) endInitial(ctx context.Context) error {
	for w.after < w.version {
		if over, err := w.step(ctx, nil); over || err != nil {
			return err
		}
	}
	w.server.lapses.listed(w.query, w.call.resource, w.after)
	return w.bookmark(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
}

// follow tells what happens.
func (w *watcher) follow(ctx context.Context) error {
	var bookmarks <-chan time.Time
	if w.AllowWatchBookmarks {
		every := time.NewTicker(w.server.opts.BookmarkEvery)
		defer every.Stop()
		bookmarks = every.C
	}
	for {
		if over, err := w.step(ctx, bookmarks); over || err != nil {
			return err
		}
	}
}

// step tells what has happened, or waits for it.
func (w *watcher) step(ctx context.Context, bookmarks <-chan time.Time) (over bool, err error) {
	w.server.faults.wait(ctx, w.call.resource)
	events, version, wake, err := w.server.cluster.next(w.stream, w.after, watchBatch)
	if apierrors.IsNotFound(err) {
		return true, w.flush() // of a resource that is gone, all was told
	}
	if err != nil {
		return true, err
	}
	if !w.goesOn {
		w.goesOn = true
		w.server.lapses.followed(w.query, w.call.resource, w.after)
	}
	for _, e := range events {
		if err := w.event(e); err != nil {
			return true, err
		}
	}
	w.told = version
	w.after = max(w.after, version)
	var more chan struct{}
	if len(events) > 0 {
		more = make(chan struct{})
		close(more)
	} else if err := w.flush(); err != nil {
		return true, err
	}
	select {
	case <-ctx.Done():
		return true, w.flush()
	case <-w.server.ending:
		return true, w.flush()
	case <-w.bell.rung:
		return true, errors.Join(w.flush(), w.bell.why)
	case <-bookmarks:
		return false, w.bookmark(nil)
	case <-wake:
	case <-more:
	}
	return false, nil
}

// event tells of a change what a selector makes of it.
func (w *watcher) event(e Event) error {
	if w.namespace != "" && w.namespace != e.Object.Namespace || w.server.faults.untold(w.call.resource, e) {
		return nil
	}
	now := e.Type != watch.Deleted && w.takes(e.Object)
	before := e.Before != nil && w.takes(e.Before)
	switch {
	case now && before:
		return w.tell(watch.Modified, e.Object)
	case now:
		return w.tell(watch.Added, e.Object)
	case before && e.Type == watch.Deleted:
		return w.tell(watch.Deleted, e.Object)
	case before: // it left the selector: as it was, at the version at which it did
		last := *e.Before
		last.Number = e.Object.Number
		return w.tell(watch.Deleted, &last)
	}
	return nil
}

func (w *watcher) tell(what watch.EventType, v *Version) error {
	obj, err := w.call.form.object(w.call.resource, v)
	if err != nil {
		return err
	}
	w.server.stats.events.Add(1)
	return w.events.write(what, obj)
}

// bookmark says up to which version all was told. One that waits for a version
// of the future gets none, as from the API server.
func (w *watcher) bookmark(annotations map[string]string) error {
	if w.told < w.after && annotations == nil {
		return nil
	}
	obj, err := w.call.form.shape(w.call.resource, w.call.resource.empty(), w.after)
	if err != nil {
		return err
	}
	if annotations != nil {
		m, err := meta.Accessor(obj)
		if err != nil {
			return err
		}
		m.SetAnnotations(annotations)
	}
	if err := w.events.write(watch.Bookmark, obj); err != nil {
		return err
	}
	return w.flush()
}

func (w *watcher) flush() error {
	if err := w.out.Flush(); err != nil {
		return err
	}
	return http.NewResponseController(w.call.w).Flush()
}
