package watch

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	kwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

// listChunk is how many objects a list asks for at a time, on servers that
// cannot stream a list.
const listChunk = 500

// A Source lists and watches one collection of objects.
type Source interface {
	List(ctx context.Context, o metav1.ListOptions) (runtime.Object, error)
	Watch(ctx context.Context, o metav1.ListOptions) (kwatch.Interface, error)
}

// A stream runs one reflector and is its store. Its fields are guarded by the
// watcher's lock.
type stream struct {
	Stream
	w    *Watcher
	pipe *metrics.Pipeline
	ctx  context.Context //nolint:containedctx // of run: the reflector calls its store without one

	objects   map[string]*held // the indexer, by namespace/name
	hops      map[string]hop   // controllers of the kind that are gone or were asked about, by UID
	askAgain  time.Time        // when the API server may be asked about one again, after it did not answer
	misjudged int64            // objects on which the kind's rules failed
	failing   int              // objects of the indexer on which the kind's rules fail
	hasty     int64            // events that did not wait for another stream, because too many did
	complete  chan struct{}    // closed once synced
	inflight  *list.List       // of *delta: read and not durable, in the order they were read
	version   uint64           // resourceVersion of the last event, bookmark or list
	highest   uint64           // that was ever seen in this epoch: the log's objects may be ahead of the resume point
	taking    bool             // a list or a correction is being taken in
	restoring bool             // it is the first list of a cluster that was set back
	listed    int              // deltas of lists, gaps and corrections that are not durable
	floor     uint64           // the low-water mark before those
	synced    bool             // the first list has been taken in, or the log's objects
	seen      time.Time        // of the last event or bookmark, or when a held watch went on
	reached   time.Time        // when the stream came to its version
	own       int              // bookmarks of our own that are on their way
	failure   error            // of the last call, nil once one succeeds
	failures  int64            // calls that failed
	waits     bool             // at the gate
	listing   bool             // a list is being streamed: it is not pending, and not paused
	step      gate             // closed while the stream is ahead of what others have to say
	ahead     int              // deltas that wait for that
	leads     bool             // it was held, and deltas wait still
	apart     bool             // its versions are lower than those of others, and not to be compared with them
	current   *tap             // the open watch; nil: none
	paused    bool             // the last watch was ended by ourselves
	began     time.Time        // when the last watch was opened
	quick     wait.Backoff     // between watches that end within a second
	taps      sync.WaitGroup

	left     map[string]uint64 // what is not kept any more, by UID, and since which version
	dirty    map[string]kept   // what the log does not keep yet, by UID
	saved    uint64            // the low-water mark as the log has it; 0: none
	unread   []*held           // from the log: what they cause may not be durable
	resume   uint64            // where the log says to go on from, until the reflector is told; 0: nowhere
	resuming uint64            // the version of the list that is our own, and empty, until it is taken in; 0: none
	graves   []grave           // lives whose object is gone, oldest first

	gap         gaps
	audits      int64
	corrections map[string]int64 // by kind
	corrected   time.Time        // when the last one was
}

// Standing is where a stream stands.
type Standing struct {
	Name        string
	Objects     int
	Pending     int              // events read and not durable
	Mark        uint64           // low-water mark: every event at or below it is reduced, and what follows is durable
	Resume      uint64           // the mark as the log has it; 0: none yet
	Synced      bool             // the first list has been taken in, or the log's objects
	Seen        time.Time        // the last event or bookmark; zero: none yet
	Held        bool             // waits at the gate
	Failure     error            // of the last call to the API server
	Failures    int64            // calls that failed
	Misjudged   int64            // objects on which the kind's rules failed, as often as they were read
	Failing     int              // objects on which they fail now
	Hasty       int64            // events that did not wait for another stream, because too many did
	Gaps        int64            // since the agent started
	LastGap     *statesync.Gap   // nil: none since the agent started
	Audits      int64            // complete ones, since the agent started
	Corrections map[string]int64 // since the agent started, by what was missed: added, changed, deleted
	Corrected   time.Time        // when the last one was; zero: never
}

// run reflects until ctx ends. The loop is the reflector's own but for its
// handler of errors, which throttles the whole process and logs what the
// stream's check tells better.
func (s *stream) run(ctx context.Context) {
	s.w.mu.Lock()
	s.ctx = ctx
	s.w.mu.Unlock()
	lw := &cache.ListWatch{ListWithContextFunc: s.list, WatchFuncWithContext: s.watch}
	b := backoff()
	r := cache.NewReflectorWithOptions(lw, s.Kind.Object(), s, cache.ReflectorOptions{Name: "outrider/" + s.Name(), Backoff: &b})
	r.WatchListPageSize = listChunk
	defer s.taps.Wait()
	for again := backoff(); ctx.Err() == nil; {
		began := s.w.opts.Now()
		if err := r.ListAndWatchWithContext(ctx); err != nil && ctx.Err() == nil {
			s.endedBy(err)
		}
		if s.w.opts.Now().Sub(began) > time.Minute {
			again = backoff()
		}
		sleep(ctx, again.Step())
	}
}

// backoff is how long a stream waits between failures. A watch that ends
// within a second without an event, or by an ERROR event, lists again: the
// back-off is what keeps that from being a storm.
func backoff() wait.Backoff {
	return wait.Backoff{Duration: 200 * time.Millisecond, Cap: 5 * time.Second, Steps: 20, Factor: 2, Jitter: 0.5}
}

func (s *stream) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	if version, ok := s.takeResume(ctx); ok {
		empty := s.Kind.List()
		if l, err := meta.ListAccessor(empty); err == nil {
			l.SetResourceVersion(version)
		}
		return empty, nil
	}
	if err := s.awaitHops(ctx); err != nil {
		return nil, err
	}
	s.opened(nil, true)
	obj, err := s.Source.List(ctx, o)
	s.called(ctx, err)
	return obj, err
}

// watch opens a watch once the gate is open. The reflector asks for it at its
// own resourceVersion, so nothing is missed while the gate is closed.
//
// The first one, which is to begin with a list, begins with what the log
// remembers: the stream holds the objects already, so the reflector is told
// that there are none, and how far the log has come.
//
// A watch that goes on from a version is tried until it is opened, whatever
// the error: the reflector would list, and what came and went would be lost
// though the API server still has it. It would also wait for a server that
// refuses connections without an eye on ctx.
func (s *stream) watch(ctx context.Context, o metav1.ListOptions) (kwatch.Interface, error) {
	if o.SendInitialEvents != nil {
		if version, ok := s.takeResume(ctx); ok {
			return s.tap(ctx, s.remembered(version), o), nil
		}
		if err := s.awaitHops(ctx); err != nil {
			return nil, err
		}
	}
	if wait, quick := s.endedQuickly(); quick {
		sleep(ctx, wait)
	}
	for b := backoff(); ; {
		if err := s.pass(ctx); err != nil {
			return nil, err
		}
		w, err := s.open(ctx, o)
		s.called(ctx, err)
		if err == nil {
			s.heard()
			return s.tap(ctx, w, o), nil
		}
		if !waits(o, err) {
			return nil, err
		}
		if sleep(ctx, b.Step()); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// waits reports whether to try again to open a watch.
func waits(o metav1.ListOptions, err error) bool {
	if o.SendInitialEvents != nil {
		return utilnet.IsConnectionRefused(err) || apierrors.IsTooManyRequests(err)
	}
	return !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) && !errors.Is(err, errSetBack)
}

// open opens a watch that goes on from a version, once it knows that the
// cluster has come as far: one that was set back to an earlier time would give
// other events the versions that we have seen.
func (s *stream) open(ctx context.Context, o metav1.ListOptions) (kwatch.Interface, error) {
	if o.SendInitialEvents == nil {
		before := s.seenElsewhere()
		one, err := s.Source.List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return nil, err
		}
		l, err := meta.ListAccessor(one)
		if err != nil {
			return nil, err
		}
		if head, err := parseVersion(l.GetResourceVersion()); err != nil {
			return nil, fmt.Errorf("list of one: %w", err)
		} else if s.isSetBack(head, before) {
			return nil, fmt.Errorf("%w: it is at version %d, and this stream has seen %s", errSetBack, head, o.ResourceVersion)
		}
	}
	return s.Source.Watch(ctx, o)
}

// seenElsewhere returns the highest version that another stream has seen.
func (s *stream) seenElsewhere() (version uint64) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for _, other := range s.w.streams {
		if other != s {
			version = max(version, other.highest)
		}
	}
	return version
}

// isSetBack reports whether the cluster is at an earlier version than the
// stream has seen, and if so ends the session. At an earlier one than another
// stream had seen before, the collection is in another etcd.
func (s *stream) isSetBack(head, elsewhere uint64) bool {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.apart = s.apart || head < elsewhere
	if head >= s.highest {
		return false
	}
	s.w.setBackNow()
	return true
}

// setBackNow ends the session.
func (w *Watcher) setBackNow() {
	select {
	case w.setBack <- struct{}{}:
	default: // it has been told
	}
}

// takeResume says where to go on from, once. A call of a session that has
// ended gets nothing: client-go makes lists in goroutines of their own.
func (s *stream) takeResume(ctx context.Context) (version string, ok bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.resume == 0 || ctx.Err() != nil {
		return "", false
	}
	s.resume, s.resuming = 0, s.resume
	return strconv.FormatUint(s.resuming, 10), true
}

// remembered is a watch that ends as soon as it has said that the list is
// complete, without an object in it.
func (s *stream) remembered(version string) kwatch.Interface {
	end := s.bookmarkAt(version)
	if o, err := meta.Accessor(end.Object); err == nil {
		o.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	events := make(chan kwatch.Event, 1)
	events <- end
	close(events)
	return kwatch.NewProxyWatcher(events)
}

// expectOwn counts the bookmarks that a tap sends of its own.
func (s *stream) expectOwn(n int) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.own += n
}

// heard notes that the API server answers.
func (s *stream) heard() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.synced && s.seen.IsZero() {
		s.seen = s.w.opts.Now()
	}
}

// isOpen reports whether events may come. The lock must be held.
func (s *stream) isOpen() bool { return s.synced && s.current != nil && s.current.isOpen() }

// pass waits at the gates.
func (s *stream) pass(ctx context.Context) error {
	held := false
	for s.opened(nil, false) {
		held = true
		if err := errors.Join(s.step.wait(ctx), s.w.gate.wait(ctx)); err != nil {
			return err
		}
	}
	if held {
		s.w.mu.Lock()
		defer s.w.mu.Unlock()
		s.waits, s.seen = false, s.w.opts.Now() // it could not be heard while it waited
	}
	return nil
}

func (s *stream) tap(ctx context.Context, w kwatch.Interface, o metav1.ListOptions) *tap {
	t := &tap{
		inner: w, out: make(chan kwatch.Event), bookmark: s.bookmarkAt, version: o.ResourceVersion, listing: o.SendInitialEvents != nil,
		shutting: make(chan struct{}), stopped: make(chan struct{}), over: make(chan struct{}), own: s.expectOwn,
		trouble: func(err error, unreadable bool) {
			if unreadable {
				s.unreadable(err)
			} else {
				s.failed(err)
			}
		},
	}
	s.opened(t, t.listing)
	s.taps.Go(func() { t.run(ctx) })
	return t
}

// endedQuickly reports how long to wait after a watch that ended within a
// second, unless the gate ended it: such a server is not to be stormed.
func (s *stream) endedQuickly() (wait time.Duration, quick bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.paused || s.began.IsZero() || s.w.opts.Now().Sub(s.began) >= time.Second {
		s.quick = backoff()
		return 0, false
	}
	return s.quick.Step(), true
}

// bookmarkAt is the event that tells the reflector how far it has come.
func (s *stream) bookmarkAt(version string) kwatch.Event {
	obj := s.Kind.Object()
	if o, err := meta.Accessor(obj); err == nil {
		o.SetResourceVersion(version)
	}
	return kwatch.Event{Type: kwatch.Bookmark, Object: obj}
}

// opened notes the watch that is open; nil means that one is about to be. It
// reports whether the stream is held at the gate.
func (s *stream) opened(t *tap, listing bool) (held bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.current, s.listing = t, listing
	if t != nil {
		s.began, s.paused = s.w.opts.Now(), s.resuming > 0
	}
	s.waits = t == nil && !listing && (s.w.gate.closed() || s.step.closed())
	return s.waits
}

// pause ends the open watch, which the reflector then opens again, at the
// gate. A list that is being streamed goes on: what it reads is not pending.
// The lock must be held.
func (s *stream) pause() {
	if s.current != nil && !s.listing {
		s.current.end()
		s.waits, s.paused = true, true
	}
}

// unreadable drops what cannot be reduced, and counts it.
func (s *stream) unreadable(err error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.pipe.In(1)
	s.pipe.Drop("unreadable", 1)
	s.w.opts.Logger.Error("cannot read what the API server sent", "stream", s.Name(), "err", err)
}

// called notes how a call went.
func (s *stream) called(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		s.failed(err)
		return
	}
	s.notWell(nil)
}

// failed counts a call, or a watch, that failed.
func (s *stream) failed(err error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.failure = err
	s.failures++
}

// notWell notes why the stream is not well; nil: it is.
func (s *stream) notWell(err error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.failure = err
}

// endedBy notes why the reflector gave up, unless a call that failed has said
// so better.
func (s *stream) endedBy(err error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.failure == nil {
		s.failure = err
	}
}

func sleep(ctx context.Context, t time.Duration) {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// queued reports what is read and not durable, with the lock held.
func (s *stream) queued() metrics.Queue {
	q := metrics.Queue{Len: int64(s.inflight.Len())}
	if first := s.inflight.Front(); first != nil {
		q.Oldest = first.Value.(*delta).observed
	}
	return q
}

// mark is the low-water mark. A list is one unit: the mark stays where it was
// until the last of what the list caused is durable. The lock must be held.
func (s *stream) mark() uint64 {
	if s.listed > 0 {
		return s.floor
	}
	if first := s.inflight.Front(); first != nil {
		return min(s.version, first.Value.(*delta).object.ResourceVersion-1) // the log's objects may be ahead of what was read
	}
	return s.version
}

func (s *stream) standing() Standing {
	return Standing{
		Name: s.Name(), Objects: len(s.objects), Misjudged: s.misjudged, Failing: s.failing, Hasty: s.hasty, Pending: s.inflight.Len(), Mark: s.mark(), Resume: s.saved, Synced: s.synced,
		Seen: s.seen, Held: s.waits, Failure: s.failure, Failures: s.failures,
		Gaps: s.gap.ours, LastGap: s.gap.last, Audits: s.audits, Corrections: maps.Clone(s.corrections), Corrected: s.corrected,
	}
}
