package agent

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics"
)

var (
	update = flag.Bool("update", false, "write the golden files")
	since  = regexp.MustCompile(`since [0-9TZ:-]+`)
)

func pidText() string { return fmt.Sprintf("pid %d", os.Getpid()) }

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := statusText{
		Version: "1.2.0", Build: "0123abc", Go: "go1.26.0", Host: "web-1", PID: 42, Service: "payments", Digest: "warn",
		Since: now.Add(-26*time.Hour - 3*time.Second), Now: now,
		Components: []byte("statesync: 3 streams, resume point 17"),
	}
	line := func(name, target, unit string, in, out, queued int64, oldest time.Duration) pipelineLine {
		p := pipelineLine{PipelineSnapshot: metrics.PipelineSnapshot{
			Name: name, Target: target, Unit: unit, In: in, Out: out, Queued: queued,
		}, in: 1000.4, out: 0.25, rated: true}
		if oldest > 0 {
			p.Oldest = now.Add(-oldest)
		}
		return p
	}
	small := []pipelineLine{
		line("delivery", "archive", "changes", 12345, 12340, 5, 1500*time.Millisecond),
		line("watch", "", "events", 7, 7, 0, 0),
	}
	small[0].Carried, small[0].Retries, small[0].Dropped = 3, map[string]int64{"timeout": 2, "5xx": 9}, map[string]int64{"expired": 3}
	small[1].Unknown, small[1].rated = metrics.QueuedTerm|metrics.OldestTerm, false
	small[0].queuedHour, small[0].inHour, small[0].outHour = lastHour{0, 4.5, 12000, true}, lastHour{0, 12.25, 100, true}, lastHour{0, 0.125, 1.5, true}
	small[1].inHour = lastHour{1, 2, 3, true}
	large := []pipelineLine{
		line("delivery", "a-sink-with-a-rather-long-name", "changes", 9876543210, 9876000000, 543210, 49*time.Hour),
		line("a\x1b[2Jneighbour", "café latte", "kilogrammes", 123456, -1, 999999, 90*time.Minute),
	}
	large[0].in, large[0].out = 123456.7, 99999.4
	large[1].Service, large[1].queuedHour = "pay", lastHour{0, 123456789, 1e12, true}
	for name, lines := range map[string][]pipelineLine{"status-small.txt": small, "status-wide.txt": large, "status-empty.txt": nil} {
		s.Pipelines = lines
		got := s.render()
		golden(t, name, got)
		for l := range strings.Lines(string(got)) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > statusColumns {
				t.Errorf("%s: got a line of %d columns, want %d at most: %s", name, n, statusColumns, l)
			}
		}
	}
}

func TestShort(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 99999: "99999", -9999: "-9999", -99999: "-100k", 100000: "100k", 123456: "123k", 999499: "999k", 999500: "1M",
		1234567: "1.23M", -2500000: "-2.5M", 1 << 62: "4.61E",
	} {
		if got := short(n, 5); got != want {
			t.Errorf("short(%d): got %s, want %s", n, got, want)
		}
	}
}

func TestRatesAreOverTheLastTenSeconds(t *testing.T) {
	var in int64
	pipe := func() metrics.PipelineSnapshot {
		return metrics.PipelineSnapshot{Name: "p", Unit: "items", In: in, Out: in / 2}
	}
	s := newSampler(func(time.Time) []metrics.PipelineSnapshot { return []metrics.PipelineSnapshot{pipe()} })
	now := time.Unix(1000, 0)
	if _, _, ok := s.rates(pipe(), now); ok {
		t.Error("before the first sample: got a rate")
	}
	s.sample(now)
	in, now = 10, now.Add(500*time.Millisecond)
	if i, o, ok := s.rates(pipe(), now); !ok || i != 20 || o != 10 {
		t.Errorf("after half a second: got %v %v %v, want 20 10", i, o, ok)
	}
	for range 30 { // 1000 a second, forgotten
		now, in = now.Add(time.Second), in+1000
		s.sample(now)
	}
	for range 10 {
		now, in = now.Add(time.Second), in+4
		s.sample(now)
	}
	if i, o, ok := s.rates(pipe(), now); !ok || i != 4 || o != 2 {
		t.Errorf("after ten seconds: got %v %v %v, want 4 2", i, o, ok)
	}
	if _, _, ok := s.rates(metrics.PipelineSnapshot{Name: "new"}, now); ok {
		t.Error("a pipeline without a sample: got a rate")
	}
}

func TestTheLastHourIsTheLastHour(t *testing.T) {
	var h hour
	if _, _, _, ok := h.stats(); ok {
		t.Error("before the first second: got figures")
	}
	want := func(low, p95, high float64) {
		t.Helper()
		if l, p, m, ok := h.stats(); !ok || l != low || p != p95 || m != high {
			t.Errorf("got %v %v %v, want %v %v %v", l, p, m, low, p95, high)
		}
	}
	h.add(1000)
	h.add(math.NaN())
	want(1000, 1000, 1000)
	for range 3599 { // the first slot has nine of these
		h.add(2)
	}
	h.add(7)
	want(2, 2, 7) // the 1000 was an hour ago
	for range 3600 / 10 / 5 * 2 * 10 {
		h.add(5)
	}
	want(2, 5, 7)
}

func TestStatusServerAnswersWhoeverConnects(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", 1<<20) + "end\n"
	s := newStatusServer(l, func(w io.Writer) { _, _ = io.WriteString(w, text) })
	done := make(chan error, 1)
	go func() { done <- s.serve() }()
	for _, send := range []string{"", "GET / HTTP/1.0\r\n\r\n"} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, send); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, []byte(text)) {
			t.Errorf("after %q: got %d bytes (%v), want %d", send, len(got), err, len(text))
		}
		_ = c.Close()
	}
	s.stop()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("serve after stop: got %v, want net.ErrClosed", err)
	}
}
