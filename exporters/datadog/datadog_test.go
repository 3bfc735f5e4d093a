package datadog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// agent plays the Agent: it collects the lines that come in.
type agent struct {
	address string
	close   func() error

	mu    sync.Mutex
	lines []string
	most  int // bytes of a packet
	wake  chan struct{}
}

func (a *agent) packet(b []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.most = max(a.most, len(b))
	for line := range bytes.Lines(b) {
		a.lines = append(a.lines, strings.TrimSuffix(string(line), "\n"))
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// wait returns the lines once there are so many.
func (a *agent) wait(t *testing.T, n int) []string {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		a.mu.Lock()
		lines := slices.Clone(a.lines)
		a.mu.Unlock()
		if len(lines) >= n {
			return lines
		}
		select {
		case <-a.wake:
		case <-timeout:
			t.Fatalf("got %d lines, want %d:\n%s", len(lines), n, strings.Join(lines, "\n"))
		}
	}
}

// listen listens for datagrams, or for a stream of them.
func listen(t *testing.T, network, address string) *agent {
	t.Helper()
	a := &agent{wake: make(chan struct{}, 1)}
	if network == "unix" {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		a.address, a.close = l.Addr().String(), l.Close
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go a.stream(c)
			}
		}()
	} else {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		a.address, a.close = c.LocalAddr().String(), c.Close
		go func() {
			b := make([]byte, 65536)
			for {
				n, _, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				a.packet(b[:n])
			}
		}()
	}
	t.Cleanup(func() { _ = a.close() })
	return a
}

func (a *agent) stream(c net.Conn) {
	defer c.Close()
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		b := make([]byte, binary.LittleEndian.Uint32(size[:]))
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		a.packet(b)
	}
}

// A line as a server that was never told of us would understand it.
type parsed struct {
	name, kind, tags string
	value, times     float64
}

func parse(t *testing.T, line string) parsed {
	t.Helper()
	name, rest, found := strings.Cut(line, ":")
	fields := strings.Split(rest, "|")
	if !found || len(fields) < 2 {
		t.Fatalf("line %q, want name:value|type", line)
	}
	p := parsed{name: name, kind: fields[1], times: 1}
	var err error
	if p.value, err = strconv.ParseFloat(fields[0], 64); err != nil {
		t.Fatalf("line %q: %v", line, err)
	}
	for _, f := range fields[2:] {
		switch f[0] {
		case '@':
			rate, err := strconv.ParseFloat(f[1:], 64)
			if err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			p.times = math.Trunc(1 / rate)
		case '#':
			p.tags = f[1:]
		default:
			t.Fatalf("line %q: field %q, want a rate or tags", line, f)
		}
	}
	return p
}

type source func() []metrics.Family

func (s source) Gather() []metrics.Family { return s() }

func newPush(t *testing.T, c *Config, source source) (*exporters.Push, *metrics.Registry, *bytes.Buffer) {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = 200 * time.Millisecond
	}
	reg, log := metricstest.Registry(t), &bytes.Buffer{}
	p, err := exporters.NewPush(exporters.PushOptions{
		Name: "dd", Kind: c, Metrics: reg.Group(), Every: time.Second, Tags: map[string]string{"service": "payments", "env": "prod"},
		Feeds: func() []exporters.Feed { return []exporters.Feed{{Source: source, FromZero: true}} }, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, reg, log
}

// start runs p; the function that it returns ends it.
func start(t *testing.T, p *exporters.Push) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func books(t *testing.T, reg *metrics.Registry) metrics.PipelineSnapshot {
	t.Helper()
	b := reg.Pipelines()[0]
	if balance, ok := b.Balance(); !ok || balance != 0 {
		t.Errorf("balance %d, known %t, of %+v, want 0", balance, ok, b)
	}
	return b
}

// readings gives one of all types of metric, and keeps what was counted.
type readings struct {
	mu    sync.Mutex
	quiet bool // gives nothing for a while
	n     float64
	waits metrics.Timer
}

func (r *readings) set(quiet bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet = quiet
}

func (r *readings) families() []metrics.Family {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.quiet {
		return nil
	}
	r.n++
	for i := range 1000 {
		r.waits.Observe(time.Duration(i) * time.Millisecond)
	}
	h := r.waits.Snapshot()
	tags := []string{"q", "service", "none"}
	one := func(name string, t metrics.Type, p metrics.Point) metrics.Family {
		p.Tags = []string{"a|b,c", "api", ""}
		return metrics.Family{Desc: metrics.Desc{Name: strings.ReplaceAll(name, ".", "_"), Datadog: name, Type: t, Tags: tags}, Points: []metrics.Point{p}}
	}
	return []metrics.Family{
		one("our.items", metrics.CounterType, metrics.Point{Value: 7 * r.n}),
		one("our.cpu", metrics.CounterType, metrics.Point{Value: 0.25 * r.n}),
		one("our.gauge", metrics.GaugeType, metrics.Point{Value: -r.n}),
		one("our.wait", metrics.HistogramType, metrics.Point{Hist: &h}),
	}
}

func TestSumsAreExactOverEveryTransport(t *testing.T) {
	for name, tt := range map[string]struct{ network, scheme string }{
		"UDP":                       {"udp", ""},
		"datagrams":                 {"unixgram", "unixgram://"},
		"datagrams, by themselves":  {"unixgram", "unix://"},
		"a stream":                  {"unix", "unixstream://"},
		"a stream, found to be one": {"unix", "unix://"},
	} {
		t.Run(name, func(t *testing.T) {
			address := "127.0.0.1:0"
			if tt.network != "udp" {
				address = filepath.Join(t.TempDir(), "dsd.socket")
			}
			a := listen(t, tt.network, address)
			r := &readings{}
			p, reg, log := newPush(t, &Config{Address: tt.scheme + a.address, Samples: 1000}, r.families)
			stop := start(t, p)
			a.wait(t, 1)
			stop()
			b := books(t, reg)
			if b.Out != b.In || b.TotalDropped() != 0 || b.TotalRetries() != 0 {
				t.Errorf("books %+v, want all out", b)
			}
			lines := a.wait(t, int(b.Out))
			if len(lines) != int(b.Out) {
				t.Errorf("%d lines, books say %d", len(lines), b.Out)
			}
			checkSums(t, lines, r)
			if log.Len() > 0 {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func checkSums(t *testing.T, lines []string, r *readings) {
	t.Helper()
	counts, gauge, times, sum := map[string]float64{}, 0.0, 0.0, 0.0
	for _, line := range lines {
		p := parse(t, line)
		if p.tags != "q:a_b_c,service:api,env:prod" {
			t.Fatalf("line %q: want the tags q:a_b_c,service:api,env:prod", line)
		}
		switch p.kind {
		case "c":
			counts[p.name] += p.value
		case "g":
			gauge = p.value
		case "d":
			times += p.times
			sum += p.times * p.value
		}
	}
	if diff := cmp.Diff(map[string]float64{"our.items.count": 7 * r.n, "our.cpu.count": 0.25 * r.n}, counts); diff != "" {
		t.Errorf("counts after %g readings (-want +got):\n%s", r.n, diff)
	}
	if gauge != -r.n {
		t.Errorf("gauge %g, want %g", gauge, -r.n)
	}
	h := r.waits.Snapshot()
	if times != float64(h.Count) || math.Abs(sum/h.Sum-1) > 0.0055 {
		t.Errorf("distribution of %g values with the sum %g, want %d and %g within 0.55 %%", times, sum, h.Count, h.Sum)
	}
}

func TestASocketThatIsNotThereYet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dsd.socket")
	r := &readings{}
	p, reg, log := newPush(t, &Config{Address: "unix://" + path}, r.families)
	stop := start(t, p)
	waitFor(t, reg, func(b metrics.PipelineSnapshot) bool { return b.Retries["no_socket"] > 0 })
	a := listen(t, "unixgram", path)
	waitFor(t, reg, func(b metrics.PipelineSnapshot) bool { return b.Out > 0 && b.Queued == 0 })
	// The Agent is restarted, after it has read everything: what lies in a socket
	// that is closed is lost.
	r.set(true)
	waitFor(t, reg, func(b metrics.PipelineSnapshot) bool { return b.Queued == 0 })
	got := int(reg.Pipelines()[0].Out)
	a.wait(t, got)
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	r.set(false)
	waitFor(t, reg, func(b metrics.PipelineSnapshot) bool { return b.Queued > 0 })
	again := listen(t, "unixgram", path)
	waitFor(t, reg, func(b metrics.PipelineSnapshot) bool { return b.Queued == 0 })
	stop()
	b := books(t, reg)
	if b.Out != b.In || b.TotalDropped() != 0 {
		t.Errorf("books %+v, want all out in the end", b)
	}
	checkSums(t, append(a.wait(t, got), again.wait(t, int(b.Out)-got)...), r)
	if n := strings.Count(log.String(), "export failed, trying again"); n > 2 || !strings.Contains(log.String(), "export works again") {
		t.Errorf("want two failures and their ends in the log, got\n%s", log)
	}
}

func waitFor(t *testing.T, reg *metrics.Registry, is func(metrics.PipelineSnapshot) bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is(reg.Pipelines()[0]) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come to that: %+v", reg.Pipelines()[0])
		}
		<-tick.C
	}
}

// A receiver that reads nothing: the kernel's queue of datagrams fills in the
// middle of a batch, and what was taken is not sent again.
func TestWhatTheKernelTookIsNotSentAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dsd.socket")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const n = 3000
	f := metrics.Family{Desc: metrics.Desc{Name: "x", Datadog: strings.Repeat("long.", 200), Type: metrics.CounterType, Tags: []string{"n"}}}
	for i := range n {
		f.Points = append(f.Points, metrics.Point{Tags: []string{strconv.Itoa(i)}, Value: float64(i)})
	}
	var once sync.Once
	p, reg, _ := newPush(t, &Config{Address: "unixgram://" + path, Timeout: 20 * time.Millisecond}, func() (fams []metrics.Family) {
		once.Do(func() { fams = []metrics.Family{f} })
		return fams
	})
	stop := start(t, p)
	waitFor(t, reg, func(b metrics.PipelineSnapshot) bool { return b.Retries["timeout"] > 0 && b.Out > 0 })
	var read sync.WaitGroup
	seen := map[string]int{}
	read.Go(func() {
		b := make([]byte, 65536)
		for total := 0; total < n; {
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			size, err := c.Read(b)
			if err != nil {
				t.Errorf("after %d lines: %v", total, err)
				return
			}
			for line := range bytes.Lines(b[:size]) {
				seen[string(line)]++
				total++
			}
		}
	})
	waitFor(t, reg, func(b metrics.PipelineSnapshot) bool { return b.Queued == 0 })
	read.Wait()
	stop()
	if b := books(t, reg); len(seen) != n || b.Out != n || b.In != n {
		t.Errorf("%d lines, each once, books %+v, want %d", len(seen), b, n)
	}
}

// The lines that got through are the first ones, whatever happens to the socket
// in the middle of a batch.
func TestNothingIsWrittenAfterAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dsd.socket")
	w := &writer{target: target{[]string{"unixgram"}, path, unixPacket}, timeout: time.Second}
	w.begin(t.Context())
	_, first := w.Write([]byte("a\n"))
	a := listen(t, "unixgram", path)
	_, second := w.Write([]byte("b\n"))
	if lines, err := w.end(); first == nil || second == nil || lines != 0 || err == nil {
		t.Errorf("%d lines, %v, %v, want none after the first error", lines, first, second)
	}
	w.begin(t.Context())
	if _, err := w.Write([]byte("c\nd\n")); err != nil {
		t.Fatal(err)
	}
	if lines, err := w.end(); lines != 2 || err != nil {
		t.Errorf("%d lines, %v, want 2", lines, err)
	}
	if diff := cmp.Diff([]string{"c", "d"}, a.wait(t, 2)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	_ = w.Close()
}

func TestServiceChecksAndEvents(t *testing.T) {
	a := listen(t, "udp", "127.0.0.1:0")
	p, reg, _ := newPush(t, &Config{Address: a.address, Tags: map[string]string{"team": "a"}}, func() []metrics.Family { return nil })
	e, ok := p.Exporter().(interface {
		ServiceCheck(name string, status Status, message string, tags []exporters.Tag)
		Event(title, text string, alert Alert, key string, tags []exporters.Tag)
	})
	if !ok {
		t.Fatalf("%T has no service checks and events", p.Exporter())
	}
	before := time.Now().Unix()
	e.ServiceCheck("outrider.check", Critical, "2 of 3\nm: a|b", []exporters.Tag{{Name: "check", Value: "db"}})
	e.Event("A title\nof two lines", "text\nof|two", "error", "key", nil)
	defer start(t, p)()
	lines := a.wait(t, 2)
	stamp := func(line string) string {
		for now := before; now <= time.Now().Unix(); now++ {
			line = strings.Replace(line, fmt.Sprintf("|d:%d|", now), "|d:NOW|", 1)
		}
		return line
	}
	want := []string{
		`_sc|outrider.check|2|d:NOW|#check:db,env:prod,service:payments,team:a|m:2 of 3\nm\: a_b`,
		`_e{20,12}:A title_of two lines|text\nof|two|d:NOW|k:key|t:error|#env:prod,service:payments,team:a`,
	}
	if diff := cmp.Diff(want, []string{stamp(lines[0]), stamp(lines[1])}); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	waitFor(t, reg, func(b metrics.PipelineSnapshot) bool { return b.Out == 2 })
	books(t, reg)
}

func TestTheEnvironmentAddsNothing(t *testing.T) {
	t.Setenv("DD_SERVICE", "payments")
	t.Setenv("DD_ENV", "prod")
	t.Setenv("DD_VERSION", "1.2")
	t.Setenv("DD_ENTITY_ID", "pod-1")
	t.Setenv("DD_EXTERNAL_ENV", "it-false,cn-api,pu-|1")
	for _, origin := range []bool{false, true} {
		a := listen(t, "udp", "127.0.0.1:0")
		r := &readings{}
		p, reg, _ := newPush(t, &Config{Address: a.address, OriginDetection: origin}, func() []metrics.Family { return r.families()[:3] })
		stop := start(t, p)
		lines := a.wait(t, 3)
		stop()
		want := "q:a_b_c,service:api,env:prod"
		if origin {
			want = "q:a_b_c,service:api,dd.internal.entity_id:pod-1,env:prod"
		}
		for _, line := range lines {
			_, tags, _ := strings.Cut(line, "|#")
			if tags, _, _ = strings.Cut(tags, "|"); tags != want {
				t.Errorf("origin detection %t: line %q, want the tags %s", origin, line, want)
			}
			if external := strings.HasSuffix(line, "|e:it-false,cn-api,pu-1"); external != origin {
				t.Errorf("origin detection %t: line %q, with DD_EXTERNAL_ENV: %t", origin, line, external)
			}
		}
		books(t, reg)
	}
}

func TestAPointThatIsTooLongIsRejected(t *testing.T) {
	a := listen(t, "udp", "127.0.0.1:0")
	long := strings.Repeat("v", 2000)
	p, reg, log := newPush(t, &Config{Address: a.address}, func() []metrics.Family {
		f := metrics.Family{Desc: metrics.Desc{Name: "x", Type: metrics.CounterType, Tags: []string{"n"}}}
		g := metrics.Family{Desc: metrics.Desc{Name: "y", Type: metrics.GaugeType, Tags: []string{"n"}}}
		for _, tag := range []string{"a", long, "b"} {
			f.Points = append(f.Points, metrics.Point{Tags: []string{tag}, Value: 1.5})
			g.Points = append(g.Points, metrics.Point{Tags: []string{tag}, Value: 1.5})
		}
		return []metrics.Family{f, g}
	})
	stop := start(t, p)
	a.wait(t, 4)
	stop()
	if b := books(t, reg); b.Dropped["rejected"]*2 != b.Out || b.Out < 4 {
		t.Errorf("books %+v, want two of six rejected", b)
	}
	a.mu.Lock()
	most := a.most
	a.mu.Unlock()
	if most > 1432 {
		t.Errorf("a packet of %d bytes, want 1432 at most", most)
	}
	if !strings.Contains(log.String(), "points rejected") {
		t.Errorf("log: %s", log)
	}
}
