// Package watch turns watch streams of Kubernetes objects into changes: reflectors, an indexer, pending lists and a work queue.
//
//	API server -> reflector -> store: indexer, pending list of the workload's key, key into the work queue
//	work queue -> worker: drains the key's list in order, asks the rules, appends to the log
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
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
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
	Epoch   int64
	Streams []Stream
	Tracked []string // kinds whose workloads are reported; their pods fold into them
	Known   []statesync.Row
	Log     statesync.Log

	MaxPending int  // events read and not yet durable, all streams together; default 50,000
	Workers    int  // default 4
	Reasons    bool // report a change of reason alone

	Registry     *metrics.Registry
	QueueMetrics workqueue.MetricsProvider
	Logger       *slog.Logger
	Now          func() time.Time
}

// A Stream is the objects of one kind in one namespace.
type Stream struct {
	Kind      workload.Kind
	Namespace string // empty: all
	Source    Source
	FoldOnly  bool // read only to tell the story of other workloads
}

// Name names the stream: pods, or pods/load for one namespace.
func (s Stream) Name() string {
	if s.Namespace == "" {
		return s.Kind.Resource
	}
	return s.Kind.Resource + "/" + s.Namespace
}

// Watcher watches streams and appends the changes to a log.
type Watcher struct {
	opts    Options
	tracked map[string]bool
	streams []*stream
	queue   workqueue.TypedInterface[statesync.Key]
	gate    gate

	mu      sync.Mutex // guards what follows, and the indexer and pipeline of every stream
	pending map[statesync.Key][]*delta
	lives   map[string]*life                       // by UID
	pods    map[string]map[string]*workload.Object // folded pods, by owner's UID and own UID
	total   int                                    // deltas of all streams that are not durable
}

// A life is what the workers know of one life of a workload. Its fields
// belong to the worker that holds the workload's key.
type life struct {
	statesync.Row
	started    time.Time // when the present run began; zero: not known
	suspension time.Time // when it was last suspended; zero: not since the agent started
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
		opts: o, tracked: map[string]bool{},
		pending: map[statesync.Key][]*delta{}, lives: map[string]*life{},
		pods: map[string]map[string]*workload.Object{},
		queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[statesync.Key]{
			Name: "watch", MetricsProvider: o.QueueMetrics,
		}),
	}
	for _, kind := range o.Tracked {
		w.tracked[kind] = true
	}
	for _, row := range o.Known {
		w.lives[row.UID] = &life{Row: row}
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
	s := &stream{Stream: config, w: w, objects: map[string]*held{}, inflight: list.New()}
	s.pipe, err = w.opts.Registry.Pipeline(metrics.PipelineOptions{
		Name: "watch", Target: config.Name(), Unit: "events", Lock: &w.mu, Queue: s.queued,
	})
	w.streams = append(w.streams, s)
	return err
}

// Run watches until ctx ends, then gives what is pending to the log, for 1.5
// seconds at most: the API server still has the rest.
func (w *Watcher) Run(ctx context.Context) error {
	var reflectors, workers errgroup.Group
	for _, s := range w.streams {
		reflectors.Go(func() error { s.run(ctx); return nil })
	}
	drain, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	for range w.opts.Workers {
		workers.Go(func() error { w.work(drain); return nil })
	}
	<-ctx.Done()
	_ = reflectors.Wait() // they return no errors
	defer time.AfterFunc(drainTime, cancel).Stop()
	w.queue.ShutDown()
	_ = workers.Wait()
	return nil
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
	series := func(name string, typ metrics.Type, unit, help string, value func(Standing) (float64, bool)) error {
		return w.opts.Registry.Func(metrics.Desc{
			Name: "outrider_stream_" + name, Datadog: "outrider.stream." + name, Type: typ,
			Help: help, Unit: unit, Tags: []string{"stream"}, Budget: 500,
		}, func(yield func(metrics.Point)) {
			for _, s := range w.Streams() {
				if v, known := value(s); known {
					yield(metrics.Point{Tags: []string{s.Name}, Value: v})
				}
			}
		})
	}
	return []error{
		series("objects", metrics.GaugeType, "objects", "Objects that the stream holds.",
			func(s Standing) (float64, bool) { return float64(s.Objects), true }),
		series("seen_age_seconds", metrics.GaugeType, "seconds", "Since the stream's last event or bookmark; bookmarks come about once a minute.",
			func(s Standing) (float64, bool) { return w.opts.Now().Sub(s.Seen).Seconds(), !s.Seen.IsZero() }),
		series("held", metrics.GaugeType, "bool", "1 while the stream waits at the gate because too much is pending.",
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
	}
}
