package watch

import (
	"container/list"
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	kwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// listChunk is how many objects a list asks for at a time, on servers that
// cannot stream a list.
const listChunk = 500

// A Source lists and watches one collection of objects.
type Source interface {
	Example() runtime.Object
	List(ctx context.Context, o metav1.ListOptions) (runtime.Object, error)
	Watch(ctx context.Context, o metav1.ListOptions) (kwatch.Interface, error)
}

// A stream runs one reflector and is its store. Its fields are guarded by the
// watcher's lock.
type stream struct {
	Stream
	w    *Watcher
	pipe *metrics.Pipeline

	objects  map[string]*workload.Object // by namespace/name
	inflight *list.List                  // of *delta: read and not durable, in the order they were read
	version  uint64                      // resourceVersion of the last event, bookmark or list
	synced   bool                        // the first list has been taken in
	seen     time.Time                   // of the last event or bookmark
	failure  error                       // of the last call, nil once one succeeds
	failures int64                       // calls that failed
	held     bool                        // waits at the gate
	current  kwatch.Interface            // nil while it lists
}

// Standing is where a stream stands.
type Standing struct {
	Name     string
	Objects  int
	Pending  int       // events read and not durable
	Version  uint64    // the last seen
	Mark     uint64    // low-water mark
	Synced   bool      // the first list has been taken in
	Seen     time.Time // the last event or bookmark; zero: none yet
	Held     bool      // waits at the gate
	Failure  error     // of the last call to the API server
	Failures int64
}

// run reflects until ctx ends.
func (s *stream) run(ctx context.Context) {
	lw := &cache.ListWatch{
		ListWithContextFunc:  s.list,
		WatchFuncWithContext: s.watch,
	}
	r := cache.NewReflectorWithOptions(lw, s.Source.Example(), s, cache.ReflectorOptions{
		Name: "outrider/" + s.Name(),
		// A watch that ends within a second without an event, or by an ERROR
		// event, relists: the back-off is what keeps that from being a storm.
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Cap: 5 * time.Second, Steps: 20, Factor: 2, Jitter: 0.5},
	})
	r.WatchListPageSize = listChunk
	r.RunWithContext(ctx)
}

func (s *stream) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	obj, err := s.Source.List(ctx, o)
	s.called(err)
	return obj, err
}

// watch opens a watch once the gate is open. The reflector asks for it at its
// own resourceVersion, so nothing is missed while the gate is closed.
func (s *stream) watch(ctx context.Context, o metav1.ListOptions) (kwatch.Interface, error) {
	s.hold(nil)
	if err := s.w.gate.wait(ctx); err != nil {
		return nil, err
	}
	w, err := s.Source.Watch(ctx, o)
	s.called(err)
	if err != nil {
		return nil, err
	}
	s.hold(w)
	return w, nil
}

// hold notes the watch that is open; nil means that it waits to open one.
func (s *stream) hold(w kwatch.Interface) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.current = w
	s.held = w == nil && s.w.gate.closed()
}

// pause ends the open watch, which the reflector then opens again, at the
// gate. A watch that still streams a list goes on: what it reads is not
// pending. The lock must be held.
func (s *stream) pause() {
	if s.current != nil && s.synced {
		s.current.Stop()
		s.held = true
	}
}

func (s *stream) called(err error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.failure = err
	if err != nil {
		s.failures++
		s.pipe.Retry("call", 1)
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

// mark is the low-water mark: every event of the stream at or below it has
// been reduced and its changes are durable. The lock must be held.
func (s *stream) mark() uint64 {
	if first := s.inflight.Front(); first != nil {
		return min(first.Value.(*delta).object.ResourceVersion-1, s.version)
	}
	return s.version
}

func (s *stream) standing() Standing {
	return Standing{
		Name: s.Name(), Objects: len(s.objects), Pending: s.inflight.Len(),
		Version: s.version, Mark: s.mark(), Synced: s.synced, Seen: s.seen, Held: s.held,
		Failure: s.failure, Failures: s.failures,
	}
}
