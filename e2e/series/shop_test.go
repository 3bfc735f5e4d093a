package series

import (
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A shop is a neighbour that behaves well, with a queue of orders.
type shop struct {
	url                     string // of its series
	received, done, dropped prometheus.Counter
	waiting                 prometheus.Gauge
	took                    prometheus.Histogram
}

func openShop(t *testing.T) *shop {
	t.Helper()
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shop_orders_dropped_total", Help: "Orders that were given up."}, []string{"reason"})
	s := &shop{
		received: prometheus.NewCounter(prometheus.CounterOpts{Name: "shop_orders_received_total", Help: "Orders that came in."}),
		done:     prometheus.NewCounter(prometheus.CounterOpts{Name: "shop_orders_done_total", Help: "Orders that were worked off."}),
		dropped:  dropped.WithLabelValues("sold out"),
		waiting:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "shop_orders_waiting", Help: "Orders that wait."}),
		took:     prometheus.NewHistogram(prometheus.HistogramOpts{Name: "shop_order_seconds", Help: "From coming in to being done.", Buckets: []float64{.1, 1, 10}}),
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(s.received, s.done, dropped, s.waiting, s.took)
	s.trade(100)
	server := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// trade has n orders come in. Of ten seven are done and two given up, and one
// waits.
func (s *shop) trade(n int) {
	for i := range n {
		s.received.Inc()
		switch i % 10 {
		case 0:
			s.waiting.Inc()
		case 1, 2:
			s.dropped.Inc()
		default:
			s.done.Inc()
			s.took.Observe(float64(i%100) / 7)
		}
	}
}
