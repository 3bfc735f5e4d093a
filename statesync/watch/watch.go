// Package watch turns watch streams of Kubernetes objects into changes: reflectors, an indexer, pending lists and a work queue.
//
//	API server -> reflector -> store: indexer, pending list of the workload's key, key into the work queue
//	work queue -> worker: drains the key's list in order, asks the rules, appends to the log
//	indexer -> flusher: what became durable goes into the log once a second, with how far the stream has come
//	log -> indexer: at the start, so that the watch goes on from there and the API server tells what was missed
//
// The store's methods run on the watch's goroutine and do constant work. The
// pending list is why no state in between is lost: a queue of keys alone makes
// one of Queued, Running, Succeeded. What is pending has a bound; reaching it
// closes a gate at which every watch waits until there is room.
package watch

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

const (
	defaultMaxPending = 50_000
	defaultWorkers    = 4
	drainTime         = 1500 * time.Millisecond // for what is pending when the watch stops
)

// Options say what is watched and where the changes go.
type Options struct {
	Cluster string // part of every ID
	Streams []Stream
	Log     statesync.Log

	MaxPending int           // events read and not yet durable, all streams together; default 50,000
	Workers    int           // default 4
	Reasons    bool          // report a change of reason alone
	Audit      time.Duration // between two comparisons of a stream with the API server; 0: never

	Registry     *metrics.Registry
	QueueMetrics workqueue.MetricsProvider
	Logger       *slog.Logger
	Now          func() time.Time
}

// A Recaller is a [statesync.Log] that can be asked for one row. A row without
// UID: there is none.
type Recaller interface {
	Recall(ctx context.Context, uid string) (statesync.Row, error)
}

// A Stream is the objects of one kind in one namespace that a selector takes.
type Stream struct {
	Kind      workload.Kind
	Namespace string // empty: all
	Selector  string // of labels; empty: all
	Source    Source
	FoldOnly  bool // read only to tell the story of other workloads: its own kind is not tracked
}

// Name names the stream: pods, or pods/load for one namespace.
func (s Stream) Name() string {
	if s.Namespace == "" {
		return s.Kind.Collection
	}
	return s.Kind.Collection + "/" + s.Namespace
}

// definition says what the stream takes, by which rules, and for whose story:
// a stream that takes something else is not gone on with.
func (w *Watcher) definition(s Stream) string {
	var parts []string
	if s.Selector != "" {
		parts = append(parts, s.Selector)
	}
	if s.Kind.Rules != "" {
		parts = append(parts, "rules "+s.Kind.Rules+" of "+s.Kind.Version+" for "+s.Kind.Name)
	}
	for _, kind := range w.roots[s.Kind.Name] {
		parts = append(parts, "folds into "+kind)
	}
	if s.FoldOnly {
		parts = append(parts, "tells no story of its own")
	}
	return strings.Join(parts, "; ")
}

// takes reports whether the stream reads a namespace.
func (s Stream) takes(namespace string) bool { return s.Namespace == "" || s.Namespace == namespace }

// covers reports whether a workload is of the stream's kind and namespace.
func (s Stream) covers(r statesync.Ref) bool {
	return !s.FoldOnly && r.Kind == s.Kind.Name && s.takes(r.Namespace)
}

// overlaps reports whether a stream of another name may hold the same objects.
func (s Stream) overlaps(name string) bool {
	collection, namespace, _ := strings.Cut(name, "/")
	return collection == s.Kind.Collection && (namespace == "" || s.Namespace == "" || namespace == s.Namespace)
}

// Watcher watches streams and appends the changes to a log.
type Watcher struct {
	opts    Options
	kinds   map[string]workload.Kind // of the streams, by name
	tracked map[string]bool          // by kind: its workloads are reported
	roots   map[string][]string      // by kind: the kinds that may be roots of its objects
	streams []*stream
	queue   workqueue.TypedInterface[statesync.Key]
	gate    gate
	setBack chan struct{} // holds a token when the cluster was set back to an earlier time
	forget  []string      // streams that the log has and the configuration has not; the flusher's

	mu      sync.Mutex // guards what follows, and the indexer and pipeline of every stream
	epoch   int64
	pending map[statesync.Key][]*delta
	lives   map[string]*life                       // by UID
	within  map[string]map[string]*workload.Object // what is controlled, by the UID of its controller and of its root, and its own
	wakes   map[statesync.Key]time.Time            // when a key with deltas that wait is looked at again
	waiting int                                    // deltas that wait for what another stream may tell
	behind  int                                    // deltas put back because of one that waits
	ahead   [2]int                                 // deltas of streams that are ahead, by [stream.side]
	hurry   bool                                   // nothing waits any more: the session ends
	total   int                                    // deltas of all streams that are not durable
	idle    chan struct{}                          // closed when total is 0; nil: nobody waits
}

// A life is what the workers know of one life of a workload. Its fields
// belong to the worker that holds the workload's key; Ref, Gone and Removed
// are written with the watcher's lock held.
type life struct {
	statesync.Row
	counted    int              // pods that its object has counted, at most; since it was resumed, if it was
	passed     int              // pods that it had counted before, and counts still
	lost       int              // pods of it that are gone; since it was resumed, likewise
	lostFailed int              // of those, pods that had failed
	account    *workload.Object // the one of those that says most of a failure; nil: none
	ran        *workload.Object // the last created one of those that ran; nil: none
	elsewhere  bool             // its pods are in another cluster
	ranFirst   sighting         // its delta's first
	stopped    uint64           // version at which it was seen suspended last; 0: not known
	timeless   bool             // the cluster's clock was put back since: times do not say which pods are of which run
}

// A grave is a life whose object is gone: it stays for a while, so that an
// event or an audit that comes late does not bring it back.
type grave struct {
	uid     string
	removed uint64
	at      time.Time // zero: since the stream is complete
}

// New returns a watcher; nothing is read before Run.
func New(o Options) (*Watcher, error) {
	if o.MaxPending == 0 {
		o.MaxPending = defaultMaxPending
	}
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	w := &Watcher{
		opts: o, kinds: map[string]workload.Kind{}, tracked: map[string]bool{}, roots: map[string][]string{}, setBack: make(chan struct{}, 1),
		pending: map[statesync.Key][]*delta{}, wakes: map[statesync.Key]time.Time{},
		queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[statesync.Key]{
			Name: "watch", MetricsProvider: o.QueueMetrics,
		}),
	}
	for _, s := range o.Streams {
		w.kinds[s.Kind.Name] = s.Kind
		w.tracked[s.Kind.Name] = !s.FoldOnly
	}
	for kind := range w.kinds {
		w.roots[kind] = w.rootKinds(kind)
	}
	for _, s := range o.Streams {
		if err := w.add(s); err != nil {
			w.queue.ShutDown()
			return nil, fmt.Errorf("stream %s: %w", s.Name(), err)
		}
	}
	if err := errors.Join(w.describe()...); err != nil {
		w.queue.ShutDown()
		return nil, err
	}
	return w, nil
}

func (w *Watcher) add(config Stream) (err error) {
	s := &stream{Stream: config, w: w, inflight: list.New(), corrections: map[string]int64{}}
	s.pipe, err = w.opts.Registry.Pipeline(metrics.PipelineOptions{
		Name: "watch", Target: config.Name(), Unit: "events", Lock: &w.mu, Queue: s.queued,
		Reasons: []string{"unreadable"},
	})
	w.streams = append(w.streams, s)
	return err
}

// Streams reports every stream's standing.
func (w *Watcher) Streams() []Standing {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]Standing, len(w.streams))
	for i, s := range w.streams {
		out[i] = s.standing()
	}
	return out
}

func (w *Watcher) describe() []error {
	audits := w.describeAudits()
	series := func(name string, typ metrics.Type, unit, help string, value func(Standing) (float64, bool)) error {
		return w.opts.Registry.Func(metrics.Desc{
			Name: "outrider_stream_" + name, Datadog: "outrider.stream." + strings.TrimSuffix(name, "_total"), Type: typ,
			Help: help, Unit: unit, Tags: []string{"stream"}, Budget: 500,
		}, func(yield func(metrics.Point)) {
			for _, s := range w.Streams() {
				if v, known := value(s); known {
					yield(metrics.Point{Tags: []string{s.Name}, Value: v})
				}
			}
		})
	}
	return append(audits, []error{
		series("objects", metrics.GaugeType, "objects", "Objects that the stream holds.",
			func(s Standing) (float64, bool) { return float64(s.Objects), true }),
		series("seen_age_seconds", metrics.GaugeType, "seconds", "Since the stream's last event or bookmark; bookmarks come about once a minute. 0 while it is held: then it does not listen.",
			func(s Standing) (float64, bool) {
				if s.Held {
					return 0, true
				}
				return w.opts.Now().Sub(s.Seen).Seconds(), !s.Seen.IsZero()
			}),
		series("held", metrics.GaugeType, "bool", "1 while the stream waits at a gate, because too much is pending or because it is ahead of others.",
			func(s Standing) (float64, bool) {
				if s.Held {
					return 1, true
				}
				return 0, true
			}),
		series("low_water_version", metrics.GaugeType, "version", "Every event of the stream at or below this resourceVersion is reduced, and what follows from it is durable.",
			func(s Standing) (float64, bool) { return float64(s.Mark), s.Synced }),
		series("call_failures_total", metrics.CounterType, "calls", "Lists and watches that the API server did not answer or refused.",
			func(s Standing) (float64, bool) { return float64(s.Failures), true }),
		series("resume_version", metrics.GaugeType, "version", "The low-water mark as the log has it: after a crash the stream goes on from here.",
			func(s Standing) (float64, bool) { return float64(s.Resume), s.Resume > 0 }),
		series("rule_failures_total", metrics.CounterType, "objects", "Objects on which the rules of a configured kind failed, as often as they were read.",
			func(s Standing) (float64, bool) { return float64(s.Misjudged), true }),
		series("hasty_total", metrics.CounterType, "events", "Events that did not wait for what another stream may tell, because half of what may be pending did.",
			func(s Standing) (float64, bool) { return float64(s.Hasty), true }),
		series("last_gap_age_seconds", metrics.GaugeType, "seconds", "Since the stream's last gap was found; nothing while none was since the agent started.",
			func(s Standing) (float64, bool) {
				if s.LastGap == nil {
					return 0, false
				}
				return w.opts.Now().Sub(s.LastGap.To).Seconds(), true
			}),
		series("gaps_total", metrics.CounterType, "gaps", "Intervals of which nobody can say what happened, found since the agent started.",
			func(s Standing) (float64, bool) { return float64(s.Gaps), true }),
	}...)
}
