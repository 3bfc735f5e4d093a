package series

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/exporters/datadog"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// A statsdServer is a statsd_exporter.
type statsdServer struct {
	*process
	url, udp, socket string
}

func startStatsd(t *testing.T) *statsdServer {
	t.Helper()
	dir, web := t.TempDir(), freeAddress(t, "tcp")
	s := &statsdServer{url: "http://" + web + "/metrics", udp: freeAddress(t, "udp"), socket: filepath.Join(dir, "dsd.socket")}
	s.process = start(t, dir, need(t, "statsd_exporter"),
		"--web.listen-address="+web, "--statsd.listen-udp="+s.udp, "--statsd.listen-tcp=", "--statsd.listen-unixgram="+s.socket,
		"--statsd.read-buffer=4194304")
	waitFor(t, patience, "statsd_exporter to answer", func() bool {
		s.running()
		status, _ := get(t, s.url)
		return status == 200
	})
	return s
}

func (s *statsdServer) series() map[string]float64 {
	s.t.Helper()
	return flatten(families(s.t, page(s.t, s.url)))
}

func TestStatsdExporterCountsTheSame(t *testing.T) {
	for name, address := range map[string]func(*statsdServer) string{
		"over UDP":                  func(s *statsdServer) string { return s.udp },
		"over a socket of the host": func(s *statsdServer) string { return "unix://" + s.socket },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			need(t, "statsd_exporter")
			s := startStatsd(t)
			a := startAgent(t, fmt.Sprintf("  - {name: dd, every: 1s, datadog: {address: %q, tags: {team: a}}}\n", address(s)))
			toStatsd(t, a, s)
		})
	}
}

func toStatsd(t *testing.T, a *agent, s *statsdServer) {
	const ours, theirs = `env="test",service="e2e",team="a"}`, `env="test",service="shop",team="a"}`
	took := feed(a)
	waitFor(t, patience, "the neighbour's series", func() bool {
		_, found := s.series()["shop_orders_waiting{"+theirs]
		return found
	})
	a.shop.trade(1000)
	a.send("web.hits:1|c|#route:/order", "web.hits:0.25|c|#route:/basket", "web.users_now:17|g|#plan:paid")

	want := map[string]float64{
		`web_hits{env="test",route="/order",service="e2e",team="a"}`:  5000,
		`web_hits{env="test",route="/basket",service="e2e",team="a"}`: 0.25,
		`web_bytes{` + ours: 5000 * 2 * 1024.5,
		`web_users_now{env="test",plan="free",service="e2e",team="a"}`:                                                          41.5,
		`web_users_now{env="test",plan="paid",service="e2e",team="a"}`:                                                          17,
		`web_request_count{env="test",route="/order",service="e2e",team="a"}`:                                                   float64(took.Snapshot().Count),
		`shop_orders_received_count{` + theirs:                                                                                  1000,
		`shop_orders_done_count{` + theirs:                                                                                      700,
		`shop_orders_dropped_count{` + `env="test",reason="sold out",` + theirs[11:]:                                            200,
		`shop_orders_waiting{` + theirs:                                                                                         110,
		`shop_order_seconds_count{` + theirs:                                                                                    700,
		`outrider_pipeline_in_count{env="test",pipeline="dogstatsd_lines",service="e2e",target="statsd",team="a",unit="lines"}`: 20005,
	}
	var got map[string]float64
	becomes(t, patience, func() bool {
		got = map[string]float64{}
		all := s.series()
		for key := range want {
			if v, found := all[key]; found {
				got[key] = v
			}
		}
		return cmp.Equal(want, got)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statsd_exporter (-want +got):\n%s", diff)
	}
	all := s.series()
	// It was sent in milliseconds, and goes on in them.
	sum, want1 := all[`web_request_sum{env="test",route="/order",service="e2e",team="a"}`], 1000*took.Snapshot().Sum
	if off := sum/want1 - 1; off > 0.01 || off < -0.01 {
		t.Errorf("the distribution's sum is %v, want %v, 1 %% off at most", sum, want1)
	}
	s.tookAll(a)
	a.balanced()
	a.stop()
	if strings.Contains(a.printed(), "points unsent") {
		t.Error("the agent stopped with points unsent")
	}
}

// serviceChecks are the errors that statsd_exporter makes of service checks, which it
// does not know. Read-only.
var serviceChecks = []string{
	`statsd_exporter_sample_errors_total{reason="illegal_event"}`,
	`statsd_exporter_sample_errors_total{reason="invalid_sample_factor"}`,
}

// tookAll wants each point that the agent counts as sent to have been taken, and
// nothing but service checks that could not be read.
func (s *statsdServer) tookAll(a *agent) {
	s.t.Helper()
	var sent, taken float64
	if !becomes(s.t, patience, func() bool {
		before := a.export("dd", "out_total")
		taken = s.series()["statsd_exporter_samples_total"]
		sent = a.export("dd", "out_total")
		return before == sent && taken == sent
	}) {
		s.t.Errorf("%v samples were taken, the agent sent %v points", taken, sent)
	}
	for key, v := range s.series() {
		if strings.HasPrefix(key, "statsd_exporter_") && strings.Contains(key, "error") && v != 0 && !slices.Contains(serviceChecks, key) {
			s.t.Errorf("%s is %v, want 0", key, v)
		}
	}
	s.t.Logf("%v points sent and taken", sent)
}

func TestServiceChecksAndEventsByteForByte(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "dsd.socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reg, at := metricstest.Registry(t), time.Unix(1_795_000_000, 5e8)
	p, err := exporters.NewPush(exporters.PushOptions{
		Name: "dd", Kind: &datadog.Config{Address: "unix://" + socket, Tags: map[string]string{"team": "a"}},
		Tags: map[string]string{"service": "payments", "env": "prod"}, Metrics: reg.Group(), Now: func() time.Time { return at },
	})
	if err != nil {
		t.Fatal(err)
	}
	e, ok := p.Exporter().(*datadog.Exporter)
	if !ok {
		t.Fatalf("the exporter is a %T", p.Exporter())
	}
	tags := []exporters.Tag{{Name: "check", Value: "db"}, {Name: "shard", Value: "a,b|c"}}
	e.ServiceCheck("outrider.check", datadog.OK, "", nil)
	e.ServiceCheck("outrider.check", datadog.Critical, "2 of 3\nm: a|b", tags)
	e.ServiceCheck("outrider.check", datadog.Unknown, "größer als 1", nil)
	e.Event("Größe", "zwei\nZeilen|ä", "warning", "", nil)
	e.Event("deployed", "", "success", "deploy:42", tags)

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if b, ok := reg.Pipelines()[0].Balance(); b != 0 || !ok {
			t.Errorf("balance %d, known: %v, want 0", b, ok)
		}
	}()

	// As in "Datagram format and shell usage" of Datadog's documentation; the
	// lengths of an event are bytes, of the text as it is sent.
	want := []string{
		"_sc|outrider.check|0|d:1795000000|#env:prod,service:payments,team:a",
		`_sc|outrider.check|2|d:1795000000|#check:db,shard:a_b_c,env:prod,service:payments,team:a|m:2 of 3\nm\: a_b`,
		"_sc|outrider.check|3|d:1795000000|#env:prod,service:payments,team:a|m:größer als 1",
		`_e{7,15}:Größe|zwei\nZeilen|ä|d:1795000000|t:warning|#env:prod,service:payments,team:a`,
		"_e{8,0}:deployed||d:1795000000|k:deploy:42|t:success|#check:db,shard:a_b_c,env:prod,service:payments,team:a",
		"",
	}
	packet := make([]byte, 65536)
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(packet)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Join(want, "\n"), string(packet[:n])); diff != "" {
		t.Errorf("packet (-want +got):\n%s", diff)
	}
}
