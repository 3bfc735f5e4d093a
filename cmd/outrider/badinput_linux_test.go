package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Bounds of an agent beside neighbours of the worst kind.
const (
	mostBeside     = 160 << 20       // bytes, resident; of a binary with the race detector too
	mostAnswerTime = time.Second     // of /healthz
	staleAfter     = 5 * time.Second // for what is read every half second
	mostGoroutines = 150
	besideAtLeast  = 6 * time.Second // the bad ones are at it, and then until each is named
	besidePatience = 3 * time.Minute
	endlessStream  = 128 << 20 // bytes without a newline
	endlessAnswer  = 1 << 30
	aMillionSeries = 1_000_000
)

// besideConfig has what answers soon read every half second, and one neighbour whose limit
// lets all of an endless line through.
const besideConfig = `service: beside
data_dir: ""
listen: {public: "unix:./public", debug: "off", status: "off"}
neighbours:
  - {name: good, metrics: "%[1]s/good", every: 500ms}
  - {name: noise, metrics: "%[1]s/noise", every: 500ms}
  - {name: line, metrics: "%[1]s/line", every: 20s}
  - {name: hung, metrics: "%[1]s/hung", every: 500ms}
  - {name: html, metrics: "%[1]s/html", every: 500ms}
  - {name: million, metrics: "%[1]s/million", every: 20s}
collectors:
  - {name: endless, every: 50s, timeout: 50s, prometheus: {url: "%[1]s/endless", body_limit: 2GiB}}
  - {name: packets, every: 500ms, dogstatsd: {listen: "unix://%[2]s/packets"}}
  - {name: stream, every: 500ms, dogstatsd: {listen: "unixstream://%[2]s/stream"}}
pipelines:
  - name: orders
    neighbour: good
    in: {series: good_orders_total}
    out: {series: good_orders_total}
    drops: none
    queued: {series: good_waiting}
`

// TestAllBadInputAtOnce has one agent read everything that is wrong, beside two who
// do nothing wrong and must not notice.
func TestAllBadInputAtOnce(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "beside") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	world := &badWorld{t: t, dir: dir}
	server := httptest.NewServer(world)
	t.Cleanup(server.Close)
	a := startBeside(t, dir, fmt.Sprintf(besideConfig, server.URL, dir))
	calm := a.series()["go_goroutines"]

	ctx, over := context.WithCancel(t.Context())
	var everybody sync.WaitGroup
	defer everybody.Wait()
	defer over()
	world.begin(ctx, &everybody)
	everybody.Go(func() { a.answersThroughout(ctx) })
	world.untilNamed(a)
	over()
	everybody.Wait()

	world.exact(a)
	world.bad.Store(false)
	var now float64
	if !soon(10*time.Second, func() bool { now = a.series()["go_goroutines"]; return now <= calm+2 }) {
		t.Errorf("%v goroutines afterwards, want as before: %v", now, calm)
	}
	for key, v := range a.series() {
		if strings.HasPrefix(key, "outrider_pipeline_balance{") && v != 0 {
			t.Errorf("%s is %v, want 0", key, v)
		}
	}
	most := a.mostMemory()
	t.Logf("%.1f MiB resident at most, /healthz answered in %v at most, %v goroutines at most and %v afterwards",
		float64(most)/(1<<20), a.slowest.Round(time.Millisecond), a.goroutines, now)
	if most > mostBeside {
		t.Errorf("%d bytes resident at most, want %d", most, mostBeside)
	}
	a.stop()
	for _, socket := range []string{"packets", "stream"} {
		want := `msg="lines are dropped" collector=` + socket + ` .*reason=parse line=.* error="?want `
		if !regexp.MustCompile(want).MatchString(a.log.String()) {
			t.Errorf("the log has no %s", want)
		}
	}
	if strings.Contains(a.log.String(), "level=ERROR") {
		t.Error("the log has an error, want warnings")
	}
}

// A badWorld is what the agent reads and what is sent to it.
type badWorld struct {
	t   *testing.T
	dir string
	bad atomic.Bool // false: those who are bad answer 404

	good                  tally        // answers of the good neighbour
	packets, stream       tally        // lines of the good clients
	endlessSent, lineSent atomic.Int64 // bytes
	streamSent            atomic.Bool
}

// ServeHTTP plays the neighbours.
func (w *badWorld) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/good" {
		w.good.add(func(n int64) {
			_, _ = fmt.Fprintf(out, "# TYPE good_orders_total counter\ngood_orders_total %d\n# TYPE good_waiting gauge\ngood_waiting 0\n", n)
		})
		return
	}
	if !w.bad.Load() {
		http.NotFound(out, r)
		return
	}
	switch r.URL.Path {
	case "/noise":
		random := rand.NewChaCha8([32]byte{1})
		_, _ = io.CopyN(out, random, 1<<20)
	case "/line", "/endless":
		sent := &w.lineSent
		if r.URL.Path == "/endless" {
			sent = &w.endlessSent
		}
		piece := bytes.Repeat([]byte("x"), 1<<20)
		for range endlessAnswer / len(piece) {
			if _, err := out.Write(piece); err != nil {
				return
			}
			sent.Add(int64(len(piece)))
		}
		_, _ = io.WriteString(out, "\nafter_the_line 1\n")
	case "/hung":
		<-r.Context().Done()
	case "/html":
		out.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(out, "<!doctype html><title>Welcome</title>\n")
	case "/million":
		b := []byte("# TYPE flood gauge\n")
		for n := range aMillionSeries {
			b = fmt.Appendf(b, "flood{n=\"%d\"} 1\n", n)
			if len(b) > 64<<10 {
				if _, err := out.Write(b); err != nil {
					return
				}
				b = b[:0]
			}
		}
		_, _ = out.Write(b)
	}
}

// begin has the bad ones begin, and two clients that are good.
func (w *badWorld) begin(ctx context.Context, everybody *sync.WaitGroup) {
	w.bad.Store(true)
	everybody.Go(func() { w.goodClient(ctx, "unixgram", "packets", &w.packets) })
	everybody.Go(func() { w.goodClient(ctx, "unix", "stream", &w.stream) })
	everybody.Go(func() { w.noise(ctx, "unixgram", "packets", 'c') })
	everybody.Go(func() { w.noise(ctx, "unix", "stream", 'g') })
	everybody.Go(func() { w.lineWithoutEnd(ctx) })
}

// dial connects to one of the agent's sockets, and to none once ctx has ended.
func (w *badWorld) dial(ctx context.Context, network, name string) net.Conn {
	conn, err := new(net.Dialer).DialContext(ctx, network, filepath.Join(w.dir, name))
	if err != nil {
		if ctx.Err() == nil {
			w.t.Errorf("%s: %v", name, err)
		}
		return nil
	}
	context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now().Add(5 * time.Second)) })
	return conn
}

// goodClient sends what must all be counted.
func (w *badWorld) goodClient(ctx context.Context, network, name string, sent *tally) {
	conn := w.dial(ctx, network, name)
	if conn == nil {
		return
	}
	defer conn.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		sent.add(func(int64) {
			line := fmt.Sprintf("good.%s:1|c", name)
			if network == "unix" {
				line = framed(line)
			}
			if _, err := io.WriteString(conn, line); err != nil {
				w.t.Errorf("the good client of %s: %v", name, err)
			}
		})
	}
}

// noise sends bytes that are now and then a line, of one type only: two collectors
// are not to have the same series. On a stream each length is right, as who has lost
// its place is only cut off.
func (w *badWorld) noise(ctx context.Context, network, name string, kind byte) {
	conn := w.dial(ctx, network, name)
	if conn == nil {
		return
	}
	defer conn.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same noise each time
	alphabet := "xyz:|#@,.0123456789-+eE\n\x00\xff\xfe{}\"_" + string(kind)
	for ctx.Err() == nil {
		<-tick.C
		b := make([]byte, 1+random.IntN(2000))
		for i := range b {
			b[i] = alphabet[random.IntN(len(alphabet))]
		}
		text := string(b)
		if network == "unix" {
			text = framed(text)
		}
		if _, err := io.WriteString(conn, text); err != nil {
			if ctx.Err() == nil {
				w.t.Errorf("noise on %s: %v", name, err)
			}
			return
		}
	}
}

// lineWithoutEnd opens a stream of lines, and never ends the first.
func (w *badWorld) lineWithoutEnd(ctx context.Context) {
	conn := w.dial(ctx, "unix", "stream")
	if conn == nil {
		return
	}
	defer conn.Close()
	piece := bytes.Repeat([]byte("x"), 64<<10)
	for range endlessStream / len(piece) {
		if _, err := conn.Write(piece); err != nil {
			if ctx.Err() == nil {
				w.t.Errorf("a line without an end: %v", err)
			}
			return
		}
	}
	w.streamSent.Store(true)
	<-ctx.Done()
}

func framed(text string) string {
	return string(binary.LittleEndian.AppendUint32(nil, uint32(len(text)))) + text
}

// untilNamed waits until each of the bad has its error in the digest and its counter
// on /metrics. Until then those who are good are looked at again and again.
func (w *badWorld) untilNamed(a *beside) {
	w.t.Helper()
	const scrape = `scrape http://127\.0\.0\.1:[0-9]+/`
	digest := map[string]string{
		"neighbour/noise":   scrape + `noise: got .* beginning with .*, want Prometheus text`,
		"neighbour/line":    scrape + `line: got more than 33554432 bytes, want at most body_limit`,
		"neighbour/hung":    scrape + `hung: no whole answer by the deadline: got 0 bytes of it`,
		"neighbour/html":    scrape + `html: got text/html beginning with "<!doctype html>.*", want Prometheus text`,
		"neighbour/million": scrape + `million: sample_limit: got 1000000 samples, want at most 10000: left out flood \(1000000\)`,
		"neighbour/endless": scrape + `endless: left out 1 lines of 2: `,
		"neighbour/good":    `^read [0-9]+s ago$`,
	}
	counters := []string{
		`outrider_scrape_failures_total{collector="noise",reason="format"}`,
		`outrider_scrape_failures_total{collector="line",reason="too_large"}`,
		`outrider_scrape_failures_total{collector="hung",reason="timeout"}`,
		`outrider_scrape_failures_total{collector="html",reason="format"}`,
		`outrider_scrape_series_dropped_total{collector="million",metric="flood"}`,
		`outrider_scrape_samples_dropped_total{collector="endless",reason="line_too_long"}`,
		`outrider_pipeline_drops_total{pipeline="dogstatsd_lines",reason="parse",target="packets",unit="lines"}`,
		`outrider_pipeline_drops_total{pipeline="dogstatsd_lines",reason="parse",target="stream",unit="lines"}`,
		`outrider_pipeline_drops_total{pipeline="dogstatsd_packets",reason="too_long",target="stream",unit="packets"}`,
	}
	began := time.Now()
	var missing []string
	done := func() bool {
		missing = nil
		said := a.digest()
		for check, want := range digest {
			if !regexp.MustCompile(want).MatchString(said[check]) {
				missing = append(missing, fmt.Sprintf("%s: got %q, want %s", check, said[check], want))
			}
		}
		now := a.series()
		a.goroutines = max(a.goroutines, now["go_goroutines"])
		for _, key := range counters {
			if now[key] == 0 {
				missing = append(missing, key+" is 0")
			}
		}
		if !w.streamSent.Load() {
			missing = append(missing, "the stream that never ends a line could not write all of it")
		}
		w.fresh(a, now)
		return len(missing) == 0 && time.Since(began) > besideAtLeast
	}
	if !soon(besidePatience, done) {
		w.t.Errorf("after %v:\n%s", besidePatience, strings.Join(missing, "\n"))
	}
	if a.goroutines > mostGoroutines {
		w.t.Errorf("%v goroutines, want %d at most", a.goroutines, mostGoroutines)
	}
}

// goodStream is a series of the second socket: its name is on it, since the first may
// be sent the same.
const goodStream = `good_stream_total{collector="stream"}`

// fresh wants of those who are good what they told a moment ago.
func (w *badWorld) fresh(a *beside, now map[string]float64) {
	w.t.Helper()
	page := samples(a.read("/metrics/neighbour/good"))
	for name, tt := range map[string]struct {
		told *tally
		got  float64
	}{
		"the good neighbour":            {&w.good, page["good_orders_total"]},
		"its pipeline":                  {&w.good, now[`outrider_pipeline_in_total{pipeline="orders",service="good",unit="items"}`]},
		"the good client, packets":      {&w.packets, now["good_packets_total"]},
		"the good client of the stream": {&w.stream, now[goodStream]},
	} {
		low, high := tt.told.between(staleAfter)
		if got := int64(tt.got); got < low || got > high {
			w.t.Errorf("%s: %d is shown, want %d, which it was %v ago, to %d", name, got, low, staleAfter, high)
		}
	}
}

// exact wants all that the good ones have told, when they tell no more.
func (w *badWorld) exact(a *beside) {
	w.t.Helper()
	for key, sent := range map[string]*tally{"good_packets_total": &w.packets, goodStream: &w.stream} {
		_, want := sent.between(0)
		var got float64
		if !soon(staleAfter, func() bool { got = a.series()[key]; return int64(got) == want }) {
			w.t.Errorf("%s is %v, want %d", key, got, want)
		}
	}
	page := samples(a.read("/metrics/neighbour/endless"))
	if n := w.endlessSent.Load(); n < endlessAnswer || page["after_the_line"] != 1 {
		w.t.Errorf("of the endless line %d bytes were read, and after it %v, want all %d, and what is after it", n, page, endlessAnswer)
	}
}

// A tally counts what somebody told, and when.
type tally struct {
	mu sync.Mutex
	n  int64
	at []time.Time
}

func (c *tally) add(tell func(n int64)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	tell(c.n)
	c.at = append(c.at, time.Now())
}

// between is how much was told a while ago, and how much now.
func (c *tally) between(ago time.Duration) (then, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := time.Now().Add(-ago)
	for _, at := range c.at {
		if at.Before(limit) {
			then++
		}
	}
	return then, c.n
}

// A beside is the agent, a process of its own.
type beside struct {
	t          *testing.T
	cmd        *exec.Cmd
	client     *http.Client
	log        lockedBuffer
	slowest    time.Duration
	goroutines float64
}

func startBeside(t *testing.T, dir, text string) *beside {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "outrider.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &beside{t: t, cmd: exec.Command("outrider", "run")}
	a.cmd.Dir, a.cmd.Stdout, a.cmd.Stderr = dir, &a.log, &a.log
	a.cmd.Env = append(os.Environ(), "GOCOVERDIR="+t.TempDir())
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "public"))
	}}
	a.client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = a.cmd.Process.Kill() // it may have ended
		_ = a.cmd.Wait()
		if t.Failed() {
			log := a.log.String()
			t.Logf("the agent logged:\n%s", log[max(0, len(log)-5000):])
		}
	})
	if !soon(20*time.Second, func() bool {
		for _, name := range []string{"packets", "stream"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				return false
			}
		}
		resp, err := a.client.Get("http://agent/metrics/neighbour/good")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return err == nil && bytes.Contains(b, []byte("good_orders_total"))
	}) {
		t.Fatal("the agent did not read its good neighbour in 20s")
	}
	return a
}

// stop sends SIGTERM, and wants a clean end.
func (a *beside) stop() {
	a.t.Helper()
	began := time.Now()
	err := errors.Join(a.cmd.Process.Signal(syscall.SIGTERM), a.cmd.Wait())
	if took := time.Since(began); err != nil || took > 5*time.Second {
		a.t.Errorf("the agent ended with %v after %v, want a clean end in 5s", err, took)
	}
}

func (a *beside) read(path string) string {
	a.t.Helper()
	resp, err := a.client.Get("http://agent" + path)
	if err != nil {
		a.t.Errorf("%s: %v", path, err)
		return ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Errorf("%s: %v", path, err)
	}
	return string(b)
}

func (a *beside) series() map[string]float64 { return samples(a.read("/metrics")) }

// samples are those of Prometheus' text, by name and tags as written.
func samples(page string) map[string]float64 {
	out := map[string]float64{}
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			out[line[:i]] = v
		}
	}
	return out
}

// digest is what each check says.
func (a *beside) digest() map[string]string {
	a.t.Helper()
	var digest struct {
		Checks map[string][]struct{ Output string }
	}
	if err := json.Unmarshal([]byte(a.read("/healthz?category=all")), &digest); err != nil {
		a.t.Errorf("digest: %v", err)
	}
	out := map[string]string{}
	for name, checks := range digest.Checks {
		for _, c := range checks {
			out[name] = c.Output
		}
	}
	return out
}

// answersThroughout asks for the digest until ctx ends.
func (a *beside) answersThroughout(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		a.read("/healthz")
		a.slowest = max(a.slowest, time.Since(began))
		<-tick.C
	}
	if a.slowest > mostAnswerTime {
		a.t.Errorf("/healthz took %v once, want %v at most", a.slowest, mostAnswerTime)
	}
}

// mostMemory is how much was resident at most.
func (a *beside) mostMemory() int64 {
	a.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid))
	if err != nil {
		a.t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^VmHWM:\s+([0-9]+) kB$`).FindSubmatch(text)
	if m == nil {
		a.t.Fatalf("no VmHWM in %s", text)
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		a.t.Fatal(err)
	}
	return kib << 10
}

// soon waits until done, and reports whether it was in time.
func soon(limit time.Duration, done func() bool) bool {
	end := time.Now().Add(limit)
	for !done() {
		if time.Now().After(end) {
			return false
		}
		<-time.After(50 * time.Millisecond)
	}
	return true
}

// A lockedBuffer takes down what a process prints.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
