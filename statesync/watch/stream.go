package watch

import (
	"container/list"
	"context"
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

	objects  map[string]*held // the indexer, by namespace/name
	inflight *list.List       // of *delta: read and not durable, in the order they were read
	version  uint64           // resourceVersion of the last event, bookmark or list
	taking   bool             // a list is being taken in
	listed   int              // deltas of lists that are not durable
	floor    uint64           // the low-water mark before those lists
	synced   bool             // the first list has been taken in
	seen     time.Time        // of the last event or bookmark, or when a held watch went on
	failure  error            // of the last call, nil once one succeeds
	failures int64            // calls that failed
	waits    bool             // at the gate
	listing  bool             // a list is being streamed: it is not pending, and not paused
	current  *tap             // the open watch; nil: none
	paused   bool             // the last watch was ended by the gate
	began    time.Time        // when the last watch was opened
	quick    wait.Backoff     // between watches that end within a second
	taps     sync.WaitGroup
}

// Standing is where a stream stands.
type Standing struct {
	Name     string
	Objects  int
	Pending  int       // events read and not durable
	Mark     uint64    // low-water mark: every event at or below it is reduced, and what follows is durable
	Synced   bool      // the first list has been taken in
	Seen     time.Time // the last event or bookmark; zero: none yet
	Held     bool      // waits at the gate
	Failure  error     // of the last call to the API server
	Failures int64     // calls that failed
}

// run reflects until ctx ends. The loop is the reflector's own but for its
// handler of errors, which throttles the whole process and logs what the
// stream's check tells better.
func (s *stream) run(ctx context.Context) {
	lw := &cache.ListWatch{ListWithContextFunc: s.list, WatchFuncWithContext: s.watch}
	b := backoff()
	r := cache.NewReflectorWithOptions(lw, s.Kind.Object(), s, cache.ReflectorOptions{Name: "outrider/" + s.Name(), Backoff: &b})
	r.WatchListPageSize = listChunk
	defer s.taps.Wait()
	for again := backoff(); ctx.Err() == nil; {
		began := s.w.opts.Now()
		if err := r.ListAndWatchWithContext(ctx); err != nil && ctx.Err() == nil {
			s.notWell(err) // calls that failed have been counted
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
	s.opened(nil, true)
	obj, err := s.Source.List(ctx, o)
	s.called(ctx, err)
	return obj, err
}

// watch opens a watch once the gate is open. The reflector asks for it at its
// own resourceVersion, so nothing is missed while the gate is closed.
//
// A server that refuses connections or asks for patience is waited for here:
// the reflector would do so without an eye on ctx.
func (s *stream) watch(ctx context.Context, o metav1.ListOptions) (kwatch.Interface, error) {
	if wait, quick := s.endedQuickly(); quick {
		sleep(ctx, wait)
	}
	for b := backoff(); ; {
		if err := s.pass(ctx); err != nil {
			return nil, err
		}
		w, err := s.Source.Watch(ctx, o)
		s.called(ctx, err)
		if err == nil {
			return s.tap(ctx, w, o), nil
		}
		if !utilnet.IsConnectionRefused(err) && !apierrors.IsTooManyRequests(err) {
			return nil, err
		}
		if sleep(ctx, b.Step()); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// pass waits at the gate.
func (s *stream) pass(ctx context.Context) error {
	held := s.opened(nil, false)
	if err := s.w.gate.wait(ctx); err != nil {
		return err
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
		shutting: make(chan struct{}), stopped: make(chan struct{}),
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
		s.began, s.paused = s.w.opts.Now(), false
	}
	s.waits = t == nil && !listing && s.w.gate.closed()
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
		return first.Value.(*delta).object.ResourceVersion - 1
	}
	return s.version
}

func (s *stream) standing() Standing {
	return Standing{
		Name: s.Name(), Objects: len(s.objects), Pending: s.inflight.Len(), Mark: s.mark(), Synced: s.synced,
		Seen: s.seen, Held: s.waits, Failure: s.failure, Failures: s.failures,
	}
}
