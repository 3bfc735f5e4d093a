// Command embedded is a program with an agent inside: a shop whose orders wait in a queue.
//
// It has one HTTP server of its own, on which the agent's pages are mounted: the
// agent opens nothing. Try it:
//
//	go run ./examples/embedded &
//	curl -X POST 'http://127.0.0.1:8080/order?item=tea'
//	curl http://127.0.0.1:8080/healthz
//	curl http://127.0.0.1:8080/metrics
//	curl http://127.0.0.1:8080/debug/status
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-agent/outrider/agent"
	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/metrics"
)

func main() {
	addr := flag.String("listen", "127.0.0.1:8080", "where to listen")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", *addr)
	if err == nil {
		slog.Info("the shop is open", "url", "http://"+l.Addr().String())
		err = run(ctx, l)
	}
	stop()
	if err != nil {
		slog.Error("the shop is closed", "err", err)
		os.Exit(1)
	}
}

// run serves the shop until ctx ends.
func run(ctx context.Context, l net.Listener) error {
	a, err := agent.New(agent.Options{
		Service: "shop", Version: "1.0.0",
		Trusted: true, // the server below listens on loopback; one that does not must ask who it is
		MetricsHandler: func(reg *metrics.Registry, program *prometheus.Registry) http.Handler {
			return exporters.PrometheusOptions{Program: program}.Handler(reg)
		},
	})
	if err != nil {
		return err
	}
	s, err := newShop(a)
	if err != nil {
		return err
	}

	mux := http.NewServeMux()
	mux.HandleFunc("POST /order", s.order)
	mux.Handle("/", a.Handler())            // /healthz, /metrics ...
	mux.Handle("/debug/", a.DebugHandler()) // pprof
	mux.Handle("/debug/status", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { a.WriteStatus(w) }))

	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	go s.work(ctx)
	go func() {
		if err := a.Run(ctx); err != nil { // the shop goes on without its agent
			slog.Error("the agent has stopped", "err", err)
		}
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// A shop takes orders and works them off, one after the other.
type shop struct {
	books *metrics.Pipeline
	took  *metrics.Timer
	queue chan order

	mu      sync.Mutex
	waiting []time.Time // since when; the one that is worked on included
}

type order struct {
	item string
	came time.Time
}

const mostOrders = 100

// newShop describes the shop to the agent.
func newShop(a *agent.Agent) (*shop, error) {
	s := &shop{queue: make(chan order, mostOrders)}
	var err error
	if s.books, err = a.Pipeline(metrics.PipelineOptions{Name: "orders", Unit: "orders", Lock: &s.mu, Queue: s.depth}); err != nil {
		return nil, err
	}
	timers, err := a.Registry().Group().Timers(metrics.Desc{
		Name: "shop_order_seconds", Datadog: "shop.order", Help: "From an order's coming in to its being done.",
	})
	if err != nil {
		return nil, err
	}
	s.took = timers.With()
	return s, a.Check(runner.Check{Name: "orders", Category: verdict.Page, Every: time.Second, Run: s.check})
}

// depth is read with the lock held, so that no order is half moved.
func (s *shop) depth() metrics.Queue {
	q := metrics.Queue{Len: int64(len(s.waiting))}
	if q.Len > 0 {
		q.Oldest = s.waiting[0]
	}
	return q
}

func (s *shop) check(context.Context) verdict.Result {
	s.mu.Lock()
	n := float64(len(s.waiting))
	s.mu.Unlock()
	r := verdict.Result{Value: &n, Unit: "orders", Message: fmt.Sprintf("%.0f of %d orders wait", n, mostOrders)}
	if n == mostOrders {
		r.Status = verdict.Fail
	}
	return r
}

// order takes an order, or says that there are too many.
func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	o := order{r.FormValue("item"), time.Now()}
	s.mu.Lock()
	s.books.In(1)
	full := len(s.waiting) == mostOrders
	if full {
		s.books.Drop("full", 1)
	} else {
		s.waiting = append(s.waiting, o.came)
		s.queue <- o // which has room for all that wait
	}
	s.mu.Unlock()
	if full {
		http.Error(w, "too many orders wait", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// work works orders off until ctx ends.
func (s *shop) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-s.queue:
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Millisecond): // making tea
			}
			s.mu.Lock()
			s.waiting = s.waiting[1:]
			s.books.Out(1)
			s.mu.Unlock()
			s.took.Since(o.came)
		}
	}
}
