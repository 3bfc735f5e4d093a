// Package controller wires state sync into one component of the agent: streams, watcher, ledger, and a dispatcher for each sink.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/kube"
	"github.com/outrider-agent/outrider/statesync/ledger"
	"github.com/outrider-agent/outrider/statesync/watch"
)

const (
	identifyTimeout = 10 * time.Second
	identifyMax     = 5 * time.Second // between two tries
)

// Options are what the controller needs of the program it runs in.
type Options struct {
	Config    *Config
	Dir       string // the data directory; the caller holds its lock
	UserAgent string
	OpenSink  func(item config.Item, userAgent string) (statesync.Sink, error)

	Registry *metrics.Registry
	Logger   *slog.Logger
	Now      func() time.Time
}

// Controller is the component.
type Controller struct {
	opts   Options
	client *kube.Client
	queues *kube.WorkqueueMetrics
	ledger *ledger.Ledger

	orders  chan order
	stopped chan struct{} // closed when no orders are taken any more

	mu      sync.Mutex // guards what follows
	sinks   []*sink
	letters map[string]*letters // by sink

	streams []watch.Stream
	watcher atomic.Pointer[watch.Watcher] // nil until the cluster is identified
	trouble atomic.Pointer[error]         // why the cluster could not be identified; nil: no try has failed
}

// New opens the ledger and the sinks and reads how to reach the API server,
// without talking to it. Run releases them; after an error of New nothing is
// held.
func New(o Options) (_ *Controller, err error) {
	c := &Controller{opts: o, orders: make(chan order), stopped: make(chan struct{}), letters: map[string]*letters{}}
	if c.client, err = kube.Connect(string(o.Config.Kubeconfig), o.UserAgent); err != nil {
		return nil, err
	}
	if c.queues, err = kube.NewWorkqueueMetrics(o.Registry); err != nil {
		return nil, err
	}
	if c.streams, err = c.makeStreams(); err != nil {
		return nil, err
	}
	c.ledger, err = ledger.Open(ledger.Options{
		Dir: o.Dir, MaxBytes: int64(o.Config.Ledger.MaxBytes), Keep: o.Config.Ledger.Keep,
		Log: o.Logger, Registry: o.Registry, Now: o.Now,
	})
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range o.Config.Sinks {
		names = append(names, o.Config.Sinks[i].Name)
	}
	if err := c.ledger.Unplace(names...); err != nil {
		return nil, errors.Join(err, c.close())
	}
	for _, item := range o.Config.Sinks {
		s, _, err := c.opened(context.Background(), item, false)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.sinks = append(c.sinks, s)
	}
	return c, nil
}

// Name names the component.
func (c *Controller) Name() string { return Section }

// Run syncs until ctx ends. Sinks get what waits for them even while the API
// server cannot be reached. The ledger stops last: what the watch has read
// and the sinks have acknowledged becomes durable first.
func (c *Controller) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, c.close()) }()
	group, ctx := errgroup.WithContext(ctx)
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRecording()
	recorded := make(chan error, 1)
	go func() { recorded <- c.ledger.Run(recording) }()
	for _, s := range c.running() {
		s.deliver(ctx, group)
	}
	group.Go(func() error { c.takeOrders(ctx, group); return nil })
	group.Go(func() error {
		cluster, err := c.identify(ctx)
		if err != nil || ctx.Err() != nil {
			return err
		}
		group.Go(func() error { c.warnOfMissing(ctx); return nil })
		return c.watch(ctx, cluster)
	})
	err = group.Wait()
	stopRecording()
	return errors.Join(err, <-recorded)
}

// identify asks which cluster this is until it is told or ctx ends, and ties
// the ledger to it.
func (c *Controller) identify(ctx context.Context) (cluster string, err error) {
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, identifyMax) {
		try, cancel := context.WithTimeout(ctx, identifyTimeout)
		cluster, failure := c.client.ClusterID(try)
		cancel()
		if failure == nil {
			_, failure = c.ledger.Identify(cluster)
		}
		switch {
		case failure == nil:
			c.trouble.Store(nil)
			return cluster, nil
		case errors.Is(failure, ledger.ErrOtherCluster):
			return "", failure
		}
		if before := c.trouble.Swap(&failure); ctx.Err() == nil && (before == nil || (*before).Error() != failure.Error()) {
			c.opts.Logger.Warn("cannot identify the cluster; trying again", "err", failure)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return "", nil // a stop is no error
		}
	}
}

// warnOfMissing says which namespaces do not exist. They may come; more often
// they are misspelt.
func (c *Controller) warnOfMissing(ctx context.Context) {
	for _, ns := range c.opts.Config.Namespaces {
		try, cancel := context.WithTimeout(ctx, identifyTimeout)
		missing, err := c.client.Missing(try, ns)
		cancel()
		// Without permission to ask there is nothing to say.
		if err == nil && missing {
			c.opts.Logger.Warn("namespace does not exist; its workloads are watched once it does", "namespace", ns)
		}
	}
}

func (c *Controller) watch(ctx context.Context, cluster string) error {
	w, err := watch.New(watch.Options{
		Cluster: cluster, Streams: c.streams, Log: c.ledger,
		MaxPending: c.opts.Config.MaxPending, Reasons: c.opts.Config.Reasons, Audit: c.opts.Config.Audit,
		Registry: c.opts.Registry, QueueMetrics: c.queues, Logger: c.opts.Logger, Now: c.opts.Now,
	})
	if err != nil {
		return err
	}
	c.watcher.Store(w)
	return w.Run(ctx)
}

func (c *Controller) close() error {
	var errs []error
	for _, s := range c.running() {
		if s.left == nil || s.hasEnded() { // else who stopped it has said so
			errs = append(errs, c.end(s))
		}
	}
	if err := c.ledger.Close(); err != nil {
		errs = append(errs, fmt.Errorf("close ledger: %w", err))
	}
	return errors.Join(errs...)
}
