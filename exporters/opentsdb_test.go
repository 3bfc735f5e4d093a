package exporters

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// tsdb plays an OpenTSDB that stores what it gets.
type tsdb struct {
	answer func(w http.ResponseWriter, r *http.Request, points []tsdbPoint) bool // false: it has answered

	mu     sync.Mutex
	points []tsdbPoint
	sizes  []int // points of each request
}

type tsdbPoint struct {
	Metric    string            `json:"metric"`
	Timestamp int64             `json:"timestamp"`
	Value     json.Number       `json:"value"`
	Tags      map[string]string `json:"tags"`
}

func (s *tsdb) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	var points []tsdbPoint
	if err := json.NewDecoder(body).Decode(&points); err != nil || r.URL.Path != "/api/put" || !r.URL.Query().Has("details") {
		http.Error(w, fmt.Sprint(r.URL, err), http.StatusTeapot)
		return
	}
	s.mu.Lock()
	s.sizes = append(s.sizes, len(points))
	s.mu.Unlock()
	if s.answer != nil && !s.answer(w, r, points) {
		return
	}
	s.mu.Lock()
	s.points = append(s.points, points...)
	s.mu.Unlock()
	fmt.Fprintf(w, `{"failed":0,"success":%d,"errors":[]}`, len(points))
}

func openTSDBTo(url string) *OpenTSDBConfig {
	return &OpenTSDBConfig{URL: config.NewSecret(url), Gzip: true, Timestamps: "s", Tags: map[string]string{"rack": "r1"}}
}

func newOpenTSDB(t *testing.T, reg *metrics.Registry, c *OpenTSDBConfig, log io.Writer, feeds ...Feed) *Push {
	t.Helper()
	p, err := NewPush(PushOptions{
		Name: "tsdb", Kind: c, Feeds: func() []Feed { return feeds }, Metrics: reg.Group(), Tags: map[string]string{"env": "prod", "version": "a b"},
		UserAgent: "outrider/test", Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// overPipes serves h where the exporter thinks that its server is, in memory, so
// that a bubble's clock runs.
func overPipes(t *testing.T, p *Push, h http.Handler) {
	t.Helper()
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: h}
	done := make(chan error)
	go func() { done <- server.Serve(l) }()
	p.exporter.(*openTSDB).client.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		near, far := net.Pipe()
		select {
		case l.conns <- far:
			return near, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func TestOpenTSDBGetsTrueNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, server, log := metricstest.Registry(t), &tsdb{}, &bytes.Buffer{}
		waits, requests := metrics.NewTimer(), 0.0
		theirs := &metrics.HistogramSnapshot{Bounds: []float64{1, 4}, Counts: []uint64{0, 0, 5}, Count: 5, Sum: 50}
		p := newOpenTSDB(t, reg, openTSDBTo("http://tsdb"), log, Feed{FromZero: true, Source: source(func() []metrics.Family {
			requests += 1e6
			for i := range 1000 {
				waits.Observe(time.Duration(i+1) * time.Millisecond)
			}
			h := waits.Snapshot()
			return []metrics.Family{
				{Desc: metrics.Desc{Name: "requests:sum_total", Type: metrics.CounterType, Tags: []string{"path", "none", "env"}}, Points: []metrics.Point{{Tags: []string{"/a?b=é c", "", "own"}, Value: requests}}},
				{Desc: metrics.Desc{Name: "share", Type: metrics.GaugeType}, Points: []metrics.Point{{Value: 0.1}}},
				{Desc: metrics.Desc{Name: "wait_seconds", Type: metrics.HistogramType}, Points: []metrics.Point{{Hist: &h}}},
				{Desc: metrics.Desc{Name: "bounds", Type: metrics.HistogramType}, Points: []metrics.Point{{Hist: theirs}}},
				family("wrong", metrics.GaugeType, math.NaN(), math.Inf(-1)),
			}
		})})
		overPipes(t, p, server)
		began := time.Now().Unix()
		run(t, p, 15*time.Second)

		got := map[string][]string{}
		for _, point := range server.points {
			var tags []string
			for _, name := range slices.Sorted(maps.Keys(point.Tags)) {
				tags = append(tags, name+"="+point.Tags[name])
			}
			name := point.Metric + " " + strings.Join(tags, " ")
			got[name] = append(got[name], fmt.Sprintf("%s@%d", point.Value, point.Timestamp-began))
		}
		base := " env=prod rack=r1 version=a_b"
		want := map[string][]string{
			"requests_sum_total env=own path=/a_b_é_c rack=r1 version=a_b": {"1000000@0", "2000000@10", "3000000@15"},
			"share" + base:              {"0.1@0", "0.1@10", "0.1@15"},
			"wait_seconds.count" + base: {"1000@0", "2000@10", "3000@15"},
			"wait_seconds.sum" + base:   {"500.5@0", "1001@10", "1501.5@15"},
			"bounds.count" + base:       {"5@0", "5@10", "5@15"},
			"bounds.sum" + base:         {"50@0", "50@10", "50@15"},
			// Nothing came to it after the first reading.
			"bounds.p50" + base: {"4@0"}, "bounds.p95" + base: {"4@0"}, "bounds.p99" + base: {"4@0"}, "bounds.max" + base: {"4@0"},
		}
		for suffix, q := range map[string]float64{"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1} {
			name := "wait_seconds." + suffix + base
			if len(got[name]) != 3 {
				t.Errorf("%s: got %v, want three", name, got[name])
			}
			for _, text := range got[name] {
				var v float64
				if _, err := fmt.Sscanf(text, "%g@", &v); err != nil && v == 0 {
					t.Error(err)
				}
				if math.Abs(v/q-1) > 0.0056 {
					t.Errorf("%s: got %g, want %g within 0.55 %%", name, v, q)
				}
			}
			delete(got, name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		if b := books(t, reg); b.Dropped["not_finite"] != 6 || b.TotalDropped() != 6 || b.Out != int64(len(server.points)) {
			t.Errorf("out %d, dropped %v, want %d and 6 not finite", b.Out, b.Dropped, len(server.points))
		}
		if log.Len() > 0 {
			t.Errorf("log: %s", log)
		}
	})
}

func TestOpenTSDBTakesSoManyTagsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, server, log := metricstest.Registry(t), &tsdb{}, &bytes.Buffer{}
		c := openTSDBTo("http://tsdb")
		c.MaxTags, c.Timestamps, c.Gzip = 3, "ms", false
		f := family("g", metrics.GaugeType, 1)
		f.Desc.Tags, f.Points[0].Tags = []string{"a", "b"}, []string{"1", "2"}
		p := newOpenTSDB(t, reg, c, log, Feed{Source: source(func() []metrics.Family { return []metrics.Family{f} })})
		overPipes(t, p, server)
		run(t, p, time.Minute)
		if diff := cmp.Diff(map[string]string{"a": "1", "b": "2", "env": "prod"}, server.points[0].Tags); diff != "" {
			t.Errorf("tags (-want +got):\n%s", diff)
		}
		if got := server.points[0].Timestamp; got < 946684800000 {
			t.Errorf("timestamp %d, want milliseconds", got)
		}
		if n := strings.Count(log.String(), `metric=g max_tags=3 left_out="[rack version]"`); n != 1 {
			t.Errorf("said %d times what is left out, want once:\n%s", n, log)
		}
		books(t, reg)
	})
}

func TestOpenTSDBAsksForTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, log := metricstest.Registry(t), &bytes.Buffer{}
		began := time.Now()
		var tries []time.Duration
		server := &tsdb{answer: func(w http.ResponseWriter, _ *http.Request, _ []tsdbPoint) bool {
			tries = append(tries, time.Since(began))
			switch {
			case time.Since(began) < time.Minute:
				w.Header().Set("Retry-After", "40")
				w.WriteHeader(http.StatusTooManyRequests)
			case time.Since(began) < 2*time.Minute:
				w.Header().Set("Retry-After", time.Now().Add(50*time.Second).UTC().Format(http.TimeFormat))
				w.WriteHeader(http.StatusServiceUnavailable)
			default:
				return true
			}
			return false
		}}
		p := newOpenTSDB(t, reg, openTSDBTo("http://tsdb"), log, Feed{Source: gauges(10)})
		overPipes(t, p, server)
		run(t, p, 5*time.Minute)
		want := []time.Duration{0, 40 * time.Second, 80 * time.Second, 130 * time.Second}
		for i, at := range want {
			if tries[i].Truncate(time.Second) != at {
				t.Errorf("tries at %v, want the first at %v", tries[:len(want)], want)
				break
			}
		}
		b := books(t, reg)
		if b.Retries["429"] == 0 || b.Retries["5xx"] == 0 || b.Out != b.In || b.TotalDropped() != 0 {
			t.Errorf("in %d, out %d, retries %v, dropped %v, want all out after both causes", b.In, b.Out, b.Retries, b.Dropped)
		}
	})
}

func TestOpenTSDBThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, log := metricstest.Registry(t), &bytes.Buffer{}
		began := time.Now()
		server := &tsdb{answer: func(_ http.ResponseWriter, r *http.Request, _ []tsdbPoint) bool {
			if time.Since(began) < time.Minute {
				<-r.Context().Done()
				return false
			}
			return true
		}}
		p := newOpenTSDB(t, reg, openTSDBTo("http://tsdb"), log, Feed{Source: gauges(60)})
		overPipes(t, p, server)
		run(t, p, 5*time.Minute)
		if b := books(t, reg); b.Retries["timeout"] == 0 || b.Out != b.In || b.TotalDropped() != 0 {
			t.Errorf("in %d, out %d, retries %v, dropped %v, want all out after timeouts", b.In, b.Out, b.Retries, b.Dropped)
		}
	})
}

func TestOpenTSDBTakesRequestsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, log := metricstest.Registry(t), &bytes.Buffer{}
		server := &tsdb{answer: func(w http.ResponseWriter, _ *http.Request, points []tsdbPoint) bool {
			if len(points) > 7 {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return false
			}
			return true
		}}
		p := newOpenTSDB(t, reg, openTSDBTo("http://tsdb"), log, Feed{Source: gauges(100)})
		overPipes(t, p, server)
		run(t, p, time.Minute-time.Second)
		if b := books(t, reg); b.Out != b.In || b.In != 700 || len(server.points) != 700 {
			t.Errorf("in %d, out %d, stored %d, want 700", b.In, b.Out, len(server.points))
		}
		var large int
		for _, n := range server.sizes {
			if n > 7 {
				large++
			}
		}
		if large > 7 {
			t.Errorf("%d requests were too large, want it learnt from the first batch", large)
		}
	})
}

func TestOpenTSDBRestarts(t *testing.T) {
	reg, log := metricstest.Registry(t), &bytes.Buffer{}
	server := &tsdb{}
	first := httptest.NewServer(server)
	address := first.Listener.Addr().String()
	now := time.Now()
	p := newOpenTSDB(t, reg, openTSDBTo(first.URL), log, Feed{Source: gauges(3)})
	p.read(now)
	if _, f := p.send(t.Context()); f != nil {
		t.Fatal(f)
	}
	first.Close()
	p.read(now.Add(time.Second))
	for cause := ""; cause != "refused"; { // the kept connection may be closed first
		_, f := p.send(t.Context())
		if f == nil || f.Cause != "refused" && f.Cause != "closed" {
			t.Fatalf("got %+v, want closed, then refused", f)
		}
		cause = f.Cause
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	second := &httptest.Server{Listener: l, Config: &http.Server{Handler: server}}
	second.Start()
	defer second.Close()
	if _, f := p.send(t.Context()); f != nil {
		t.Fatal(f)
	}
	if b := books(t, reg); b.Out != 6 || len(server.points) != 6 {
		t.Errorf("out %d, stored %d, want 6", b.Out, len(server.points))
	}
}

// The answers below have the form of OpenTSDB 2.4.1: the example of its HTTP API
// documentation (api_http/put), and what its source PutDataPointRpc and
// HttpSerializer write.
const (
	answerWrongValue = `{"errors":[{"datapoint":{"metric":"sys.cpu.nice","timestamp":1365465600,"value":"NaN","tags":{"host":"web01"}},"error":"Unable to parse value to a number"}],"failed":1,"success":0}`
	answerManyTags   = `{"success":48,"failed":2,"errors":[{"datapoint":{"metric":"a","timestamp":1,"value":"1","tags":{}},"error":"Too many tags: 9 maximum allowed: 8, tags: {}"},{"datapoint":{"metric":"b","timestamp":1,"value":"1","tags":{}},"error":"Unknown metric"}]}`
	answerStorage    = `{"success":49,"failed":1,"errors":[{"datapoint":{"metric":"a"},"error":"Storage exception: Region unavailable"}]}`
	answerTimeouts   = `{"success":40,"failed":0,"timeouts":10,"errors":[{"datapoint":{"metric":"a"},"error":"Write timedout"}]}`
	answerChunked    = `{"error":{"code":400,"message":"Chunked request not supported.","trace":"net.opentsdb.tsd.BadRequestException: Chunked request not supported."}}`
	answerNoJSON     = `{"error":{"code":400,"message":"Unable to parse the given JSON","details":"Unexpected character"}}`
	answerThrown     = `{"error":{"code":500,"message":"An unknown exception occurred"}}`
)

func TestReadAnswer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   putAnswer
		why    string
	}{
		{"without a body", 204, "", putAnswer{}, ""},
		{"all stored", 200, `{"errors":[],"failed":0,"success":50}`, putAnswer{}, ""},
		{"a wrong value", 400, answerWrongValue, putAnswer{rejected: 1}, `Unable to parse value to a number: {"metric":"sys.cpu.nice"`},
		{"too many tags", 400, answerManyTags, putAnswer{rejected: 2}, "Too many tags: 9 maximum allowed: 8"},
		{"a storage error", 200, answerStorage, putAnswer{rejected: 1, later: "storage"}, "Storage exception: Region unavailable"},
		{"timeouts", 400, answerTimeouts, putAnswer{rejected: 10, later: "storage"}, "Write timedout"},
		{"more failures than points", 400, `{"failed":1000000}`, putAnswer{rejected: 50}, "no reason given"},
		{"fewer than none", 400, `{"failed":-1,"success":50}`, putAnswer{}, ""},
		{"chunks", 400, answerChunked, putAnswer{rejected: 50, tooLarge: true}, `status 400 saying "Chunked request not supported."`},
		{"too large", 413, "", putAnswer{rejected: 50, tooLarge: true}, "status 413, want 200 or 204"},
		{"no JSON", 400, answerNoJSON, putAnswer{rejected: 50}, `status 400 saying "Unable to parse the given JSON Unexpected character", want`},
		{"read-only", 404, "", putAnswer{rejected: 50}, "status 404"},
		{"a redirect", 302, "<html>", putAnswer{rejected: 50}, "status 302"},
		{"an error of its own", 500, answerThrown, putAnswer{retry: "5xx"}, `status 500 saying "An unknown exception occurred"`},
		{"too many requests", 429, "", putAnswer{retry: "429"}, "status 429"},
		{"a page", 200, "<html>Welcome", putAnswer{retry: "answer"}, `answer saying "<html>Welcome", want none or OpenTSDB's details`},
		{"another's JSON", 200, `{"status":"ok"}`, putAnswer{retry: "answer"}, `answer saying "{\"status\":\"ok\"}"`},
		{"noise", 200, "\xff\x00", putAnswer{retry: "answer"}, `answer saying "\xff\x00"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := readAnswer(tt.status, []byte(tt.body), 50)
			why := fmt.Sprint(got.why)
			if got.why == nil {
				why = ""
			}
			got.why = nil
			if got != tt.want || !strings.Contains(why, tt.why) || (why == "") != (tt.why == "") {
				t.Errorf("got %+v because of %q, want %+v because of %q", got, why, tt.want, tt.why)
			}
		})
	}
}

func TestOpenTSDBPartialFailures(t *testing.T) {
	for name, tt := range map[string]struct {
		body     string
		requests int
		rejected int64
		log      string
	}{
		"for good":  {answerManyTags, 1, 2, `msg="points rejected" exporter=tsdb points=2 first="Too many tags: 9`},
		"for a bit": {answerStorage, 3, 1, `first="Storage exception: Region unavailable`},
	} {
		t.Run(name, func(t *testing.T) {
			reg, log := metricstest.Registry(t), &bytes.Buffer{}
			server := &tsdb{answer: func(w http.ResponseWriter, _ *http.Request, _ []tsdbPoint) bool {
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, tt.body)
				return false
			}}
			s := httptest.NewServer(server)
			defer s.Close()
			p := newOpenTSDB(t, reg, openTSDBTo(s.URL), log, Feed{Source: gauges(50)})
			p.read(time.Now())
			requests := 1
			for p.try(t.Context()) == 0 && requests < 10 {
				requests++
			}
			b := books(t, reg)
			if requests != tt.requests || b.Dropped["rejected"] != tt.rejected || b.Out != 50-tt.rejected || b.Queued != 0 {
				t.Errorf("%d requests, books %+v, want %d and %d rejected", requests, b, tt.requests, tt.rejected)
			}
			if !strings.Contains(log.String(), tt.log) {
				t.Errorf("log %s, want %s in it", log, tt.log)
			}
			p.read(time.Now())
			before := log.Len()
			for p.try(t.Context()) == 0 {
			}
			if strings.Contains(log.String()[before:], "rejected") {
				t.Errorf("log repeats itself: %s", log)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "soon": 0, "99999999999999999999": 0,
		"Mon, 23 Nov 2026 00:01:00 GMT": time.Minute, "Sun, 22 Nov 2026 00:01:00 GMT": 0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: got %s, want %s", header, got, want)
		}
	}
}

func TestOpenTSDBConfigNamesWhatIsWrong(t *testing.T) {
	c := OpenTSDBConfig{
		URL: config.NewSecret("tsdb:pass@4242"), Tags: map[string]string{"a b": "c"}, MaxTags: 65, Batch: -1,
		Timestamps: "us", Timeout: time.Hour,
	}
	err := c.Validate()
	for _, want := range []string{
		"url: got an address that does not begin with http:// or https://, want an address such as http://127.0.0.1:4242",
		`tags: got "a b": "c", want a name and a value of letters, digits, - _ . and /`,
		"max_tags: got 65, want 1 to 64", "batch: got -1, want 1 to 10000 points", `timestamps: got "us", want s or ms`,
		"timeout: got 1h0m0s, want 100ms to 5m",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if strings.Contains(fmt.Sprint(err), "pass") {
		t.Errorf("the address, which may hold a password, is in %v", err)
	}
	for address, want := range map[string]string{
		"http://tsdb:4242":                "http://tsdb:4242/api/put?details=true",
		"http://tsdb/":                    "http://tsdb/api/put?details=true",
		"https://x/insert/0/opentsdb":     "https://x/insert/0/opentsdb/api/put?details=true",
		"https://x/opentsdb/api/put?x=y1": "https://x/opentsdb/api/put?details=true&x=y1",
	} {
		u, got := openTSDBTo(address).address()
		if got != "" || u.String() != want {
			t.Errorf("%s: got %v %s, want %s", address, u, got, want)
		}
	}
	sync := openTSDBTo("http://tsdb")
	sync.Sync, sync.Timeout = true, 10*time.Second
	if u, _ := sync.address(); u.RawQuery != "details=true&sync=true&sync_timeout=9000" {
		t.Errorf("sync: got %s", u.RawQuery)
	}
}

func FuzzReadAnswer(f *testing.F) {
	for _, body := range []string{answerWrongValue, answerManyTags, answerStorage, answerTimeouts, answerChunked, answerNoJSON, answerThrown, "", "<html>"} {
		f.Add(200, []byte(body))
		f.Add(400, []byte(body))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		a := readAnswer(status, body, 50)
		if a.rejected < 0 || a.rejected > 50 {
			t.Errorf("rejected %d of 50", a.rejected)
		}
		if (a.rejected > 0 || a.retry != "") && (a.why == nil || len(a.why.Error()) > 2000) {
			t.Errorf("why: %v", a.why)
		}
	})
}

func FuzzOpenTSDBText(f *testing.F) {
	f.Add("a b:é\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := openTSDBText(s)
		if quoted, err := json.Marshal(got); err != nil || string(quoted) != `"`+got+`"` || openTSDBText(got) != got {
			t.Errorf("%q became %q, which is not plain", s, got)
		}
	})
}
