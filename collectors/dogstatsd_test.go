package collectors

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// statsdConfig is the default configuration.
func statsdConfig(t testing.TB, listen string) DogStatsDConfig {
	t.Helper()
	c := DogStatsDConfig{
		Listen: listen, ReceiveBuffer: 4 << 20, Queue: 4 << 20, MaxPacket: 64 << 10, Connections: 128,
		TTL: 5 * time.Minute, Series: 10_000, SeriesPerMetric: 1000, MaxTags: 32, MaxTagLength: 200, SetWindow: 10 * time.Second,
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

// A statsdRun is a collector at work.
type statsdRun struct {
	*dogstatsd
	t    testing.TB
	reg  *metrics.Registry
	own  *metrics.Group
	stop context.CancelFunc
	end  chan error
	log  *statsdLog
}

type statsdLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *statsdLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *statsdLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func buildStatsD(t testing.TB, reg *metrics.Registry, c DogStatsDConfig) *statsdRun {
	t.Helper()
	r := &statsdRun{t: t, reg: reg, own: reg.Group(), end: make(chan error, 1), log: &statsdLog{}}
	built, err := c.Build(Env{Name: "apps", Metrics: r.own, Log: slog.New(slog.NewTextHandler(r.log, nil)), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	r.dogstatsd = built.(*dogstatsd)
	return r
}

func (r *statsdRun) run() *statsdRun {
	r.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.end <- r.Run(ctx) }()
	select {
	case <-r.listening:
	case err := <-r.end:
		stop()
		r.t.Fatalf("run: %v", err)
	}
	r.t.Cleanup(func() {
		stop()
		<-r.done
	})
	return r
}

func runStatsD(t testing.TB, c DogStatsDConfig) *statsdRun {
	t.Helper()
	return buildStatsD(t, metricstest.Registry(t), c).run()
}

// quit ends the collector, and wants its books to balance.
func (r *statsdRun) quit() {
	r.t.Helper()
	r.stop()
	if err := <-r.end; err != nil {
		r.t.Error(err)
	}
	r.balanced()
}

func (r *statsdRun) balanced() {
	r.t.Helper()
	for _, s := range r.reg.Pipelines() {
		if b, ok := s.Balance(); !ok || b != 0 {
			r.t.Errorf("%s: balance %d, known %v: %+v", s.Name, b, ok, s)
		}
	}
}

func (r *statsdRun) address() string {
	switch in := r.intake.(type) {
	case *datagramIntake:
		return in.conn.LocalAddr().String()
	case *streamIntake:
		return in.listener.Addr().String()
	}
	return ""
}

func (r *statsdRun) packets() metrics.PipelineSnapshot  { return r.pipe("dogstatsd_packets") }
func (r *statsdRun) lineBook() metrics.PipelineSnapshot { return r.pipe("dogstatsd_lines") }

func (r *statsdRun) pipe(name string) metrics.PipelineSnapshot {
	r.t.Helper()
	for _, s := range r.reg.Pipelines() {
		if s.Name == name {
			return s
		}
	}
	r.t.Fatalf("no pipeline %s", name)
	return metrics.PipelineSnapshot{}
}

// statsdUntil waits for a condition.
func statsdUntil(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// statsdShow shows families, a line a series.
func statsdShow(fams []metrics.Family) (out []string) {
	for _, f := range fams {
		for _, p := range f.Points {
			var tags []string
			for i, v := range p.Tags {
				if v != "" {
					tags = append(tags, f.Desc.Tags[i]+"="+v)
				}
			}
			value := strconv.FormatFloat(p.Value, 'g', -1, 64)
			if p.Hist != nil {
				value = fmt.Sprintf("n=%d sum=%.4g p50=%.3g", p.Hist.Count, p.Hist.Sum, p.Hist.Quantile(0.5))
			}
			out = append(out, fmt.Sprintf("%s %s{%s} %s", f.Desc.Type, f.Desc.Name, strings.Join(tags, ","), value))
		}
	}
	return out
}

func statsdDial(t testing.TB, network, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func statsdWrite(t testing.TB, conn net.Conn, data string) {
	t.Helper()
	if _, err := conn.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
}

func TestDatadogsOwnClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "unix://" + dir + "/gram", "unixstream://" + dir + "/stream"} {
		r := runStatsD(t, statsdConfig(t, listen))
		address := strings.Replace(listen, "unix://", "unixgram://", 1)
		if !strings.HasPrefix(listen, "unix") {
			address = r.address()
		}
		client, err := statsd.New(address, statsd.WithoutTelemetry(), statsd.WithoutClientSideAggregation(), statsd.WithoutOriginDetection(), statsd.WithTags([]string{"env:prod"}))
		if err != nil {
			t.Fatal(err)
		}
		sent := 0
		send := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			sent++
		}
		for i := range 500 {
			send(client.Count("orders.created", 2, []string{"region:eu"}, 1))
			send(client.Gauge("queue.depth", float64(i), nil, 1))
			send(client.Timing("db.query", 20*time.Millisecond, nil, 1))
			send(client.Distribution("payload.size", 1024, nil, 1))
			send(client.Histogram("batch.size", 8, nil, 1))
			send(client.Set("users", "u"+strconv.Itoa(i%7), nil, 1))
		}
		send(client.GaugeWithTimestamp("temperature", -4.5, nil, 1, time.Unix(1656581400, 0)))
		send(client.SimpleServiceCheck("db.up", statsd.Critical))
		send(client.Event(&statsd.Event{Title: "deploy", Text: "line\nline", AlertType: statsd.Error}))
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		statsdUntil(t, listen+": all lines counted", func() bool { return r.lineBook().In == int64(sent) })
		fams, err := r.Collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			"histogram batch_size{env=prod} n=500 sum=4000 p50=7.96",
			"histogram db_query_seconds{env=prod} n=500 sum=10 p50=0.0199",
			"counter orders_created_total{env=prod,region=eu} 1000",
			"histogram payload_size{env=prod} n=500 sum=5.12e+05 p50=1.02e+03",
			"gauge queue_depth{env=prod} 499",
			"gauge temperature{env=prod} -4.5",
			"gauge users{env=prod} 7",
		}
		if diff := cmp.Diff(want, statsdShow(fams)); diff != "" {
			t.Errorf("%s: series (-want +got):\n%s", listen, diff)
		}
		if got := r.ServiceChecks(); len(got) != 1 || got[0].Name != "db.up" || got[0].Status != 2 || !reflect.DeepEqual(got[0].Tags, []string{"env:prod"}) {
			t.Errorf("%s: service checks %+v", listen, got)
		}
		if r.table.news.events[1] != 1 {
			t.Errorf("%s: events %v, want one error", listen, r.table.news.events)
		}
		r.quit()
		if got := r.lineBook(); got.Out != int64(sent) || got.TotalDropped() != 0 {
			t.Errorf("%s: %d lines counted and %v dropped, want all of %d", listen, got.Out, got.Dropped, sent)
		}
		if _, path, is := strings.Cut(listen, "://"); is {
			if _, err := os.Lstat(path); err == nil {
				t.Errorf("%s is there after the end", path)
			}
		}
	}
}

// TestAFloodIsCountedExactly overruns a tiny buffer of the kernel's.
func TestAFloodIsCountedExactly(t *testing.T) {
	t.Parallel()
	c := statsdConfig(t, "127.0.0.1:0")
	c.ReceiveBuffer = 4 << 10
	r := runStatsD(t, c)
	const senders, each, perPacket = 4, 20_000, 3
	packet := []byte(strings.Repeat("flood:1|c|#who:me\n", perPacket))
	var wg sync.WaitGroup
	for range senders {
		conn := statsdDial(t, "udp", r.address())
		wg.Go(func() {
			for range each {
				if _, err := conn.Write(packet); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 { // the books balance at every moment
		r.balanced()
	}
	wg.Wait()
	statsdUntil(t, "sent = counted + dropped", func() bool { return r.packets().In == senders*each })
	statsdUntil(t, "nothing waits", func() bool { return r.packets().Queued == 0 })
	s := r.packets()
	if s.Dropped["kernel"] == 0 || s.Out == 0 {
		t.Fatalf("the flood did not overrun the buffer: %+v", s)
	}
	if s.Out+s.Dropped["kernel"] != senders*each {
		t.Errorf("%d counted + %d dropped, want %d sent", s.Out, s.Dropped["kernel"], senders*each)
	}
	if got := procDrops(t, r); got != s.Dropped["kernel"] {
		t.Errorf("%d dropped, /proc/net/udp says %d", s.Dropped["kernel"], got)
	}
	fams, _ := r.Collect(t.Context())
	want := []string{fmt.Sprintf("counter flood_total{who=me} %d", s.Out*perPacket)}
	if diff := cmp.Diff(want, statsdShow(fams)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
	if got := r.lineBook(); got.Out != s.Out*perPacket {
		t.Errorf("%d lines, want %d", got.Out, s.Out*perPacket)
	}
	t.Logf("%d sent, %d counted, %d dropped by the kernel", senders*each, s.Out, s.Dropped["kernel"])
	r.quit()
}

// procDrops reads the kernel's own table.
func procDrops(t *testing.T, r *statsdRun) int64 {
	t.Helper()
	_, port, _ := net.SplitHostPort(r.address())
	n, _ := strconv.Atoi(port)
	data, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if f := strings.Fields(line); len(f) > 12 && f[1] == fmt.Sprintf("0100007F:%04X", n) {
			drops, err := strconv.ParseInt(f[12], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return drops
		}
	}
	t.Fatal("the socket is not in /proc/net/udp")
	return 0
}

func TestWhatWaitsAtTheEndCounts(t *testing.T) {
	t.Parallel()
	c := statsdConfig(t, "127.0.0.1:0")
	c.Queue = 64 << 10
	r := runStatsD(t, c)
	conn := statsdDial(t, "udp", r.address())
	const sent = 6000
	r.table.mu.Lock() // nothing is counted: the queue is full, and the socket's buffer fills
	for range sent {
		statsdWrite(t, conn, "last:1|c")
	}
	r.stop()
	r.table.mu.Unlock()
	r.quit()
	if s := r.packets(); s.Out+s.Dropped["kernel"] != sent {
		t.Errorf("%d counted + %d dropped, want %d", s.Out, s.Dropped["kernel"], sent)
	}
}

func TestPacketsThatAreTooLong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, tt := range []struct{ network, listen string }{{"udp", "127.0.0.1:0"}, {"unixgram", "unix://" + dir + "/s"}} {
		c := statsdConfig(t, tt.listen)
		c.MaxPacket = 512
		r := runStatsD(t, c)
		conn := statsdDial(t, tt.network, r.address())
		statsdWrite(t, conn, strings.Repeat("x", 513))
		statsdWrite(t, conn, "a:1|c|#t:"+strings.Repeat("x", 503)) // 512
		statsdUntil(t, "both counted", func() bool { return r.packets().In == 2 })
		r.quit()
		if s := r.packets(); s.Out != 1 || s.Dropped["too_long"] != 1 {
			t.Errorf("%s: %+v", tt.network, s)
		}
	}
}

func TestGarbageIsCountedAndSaidOnce(t *testing.T) {
	t.Parallel()
	r := runStatsD(t, statsdConfig(t, "127.0.0.1:0"))
	conn := statsdDial(t, "udp", r.address())
	for range 50 {
		statsdWrite(t, conn, "\x16\x03\x01 noise\n\x00:1|c\nok:1|c\nok:2|g\n")
		statsdUntil(t, "counted", func() bool { return r.packets().Queued == 0 })
	}
	statsdUntil(t, "all counted", func() bool { return r.lineBook().In == 200 })
	if diff := cmp.Diff(map[string]int64{"parse": 50, "name": 50, "type_conflict": 50}, r.lineBook().Dropped); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	statsdUntil(t, "it is said", func() bool { return strings.Contains(r.log.String(), "\n") })
	said := r.log.String()
	if strings.Count(said, "\n") != 1 || !strings.Contains(said, "sender="+conn.LocalAddr().String()) ||
		!strings.Contains(said, "want NAME:VALUE|TYPE") || strings.Contains(said, "\x00") {
		t.Errorf("log: %q, want one line with the sender and what was expected", said)
	}
	r.quit()
}

func TestDogStatsDConfig(t *testing.T) {
	t.Parallel()
	long := "unix:///" + strings.Repeat("x", 107)
	for _, tt := range []struct {
		change func(*DogStatsDConfig)
		want   string
	}{
		{func(c *DogStatsDConfig) { c.Listen = "8125" }, `listen: got "8125", want host:port, unix:///path or unixstream:///path, a path of at most 107 bytes`},
		{func(c *DogStatsDConfig) { c.Listen = "unix://relative" }, `listen: got "unix://relative"`},
		{func(c *DogStatsDConfig) { c.Listen = long }, "a path of at most 107 bytes"},
		{func(c *DogStatsDConfig) { c.MaxPacket = 1 }, "max_packet: got 1B, want 512B to 1MiB"},
		{func(c *DogStatsDConfig) { c.Series = 0 }, "series: got 0, want 10 to 1000000"},
		{func(c *DogStatsDConfig) { c.TTL = time.Second }, "ttl: got 1s, want at least 10s"},
		{func(c *DogStatsDConfig) { c.SetWindow = time.Hour }, "set_window: got 1h0m0s, want 1s to the ttl"},
	} {
		c := statsdConfig(t, "unix:///run/x")
		tt.change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}

func TestAnAddressInUseIsAnError(t *testing.T) {
	t.Parallel()
	r := runStatsD(t, statsdConfig(t, "127.0.0.1:0"))
	other := buildStatsD(t, metricstest.Registry(t), statsdConfig(t, r.address()))
	err := other.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "dogstatsd apps: listen udp "+r.address()) {
		t.Errorf("%v", err)
	}
	if fams, err := other.Collect(t.Context()); err != nil || len(fams) != 0 {
		t.Errorf("%v %v", fams, err)
	}
}

func TestUnixPathsOfOthersStay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run := func(listen string) (*statsdRun, error) {
		r := buildStatsD(t, metricstest.Registry(t), statsdConfig(t, listen))
		ctx, stop := context.WithCancel(context.Background())
		go func() { r.end <- r.Run(ctx) }()
		select {
		case <-r.listening:
			r.stop = stop
			return r, nil
		case err := <-r.end:
			stop()
			return nil, err
		}
	}
	path := filepath.Join(dir, "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run("unix://" + path); err == nil || !strings.Contains(err.Error(), "it is there and no socket") {
		t.Errorf("a file: %v", err)
	}
	os.Remove(path)

	for _, network := range []string{"unix", "unixgram"} { // left by somebody who was killed
		var c interface{ Close() error }
		var err error
		if network == "unix" {
			l, lerr := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
			l.SetUnlinkOnClose(false)
			c, err = l, lerr
		} else {
			c, err = net.ListenUnixgram(network, &net.UnixAddr{Name: path, Net: network})
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := run("unix://" + path); err == nil || !strings.Contains(err.Error(), "another process listens there") {
			t.Errorf("a live %s socket: %v", network, err)
		}
		c.Close()
		r, err := run("unix://" + path)
		if err != nil {
			t.Fatalf("a stale %s socket: %v", network, err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != statsdSocketMode {
			t.Errorf("%v %v, want mode %o", info.Mode(), err, statsdSocketMode)
		}
		// Somebody else takes the name: then it is not ours to remove.
		os.Remove(path)
		other, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		r.quit()
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the name of another's socket is gone: %v", err)
		}
		other.Close()
		os.Remove(path)
	}
}
