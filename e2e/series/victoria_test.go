package series

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A victoria is a VictoriaMetrics that takes OpenTSDB's puts. It can be stopped
// and run again, with the same data and addresses.
type victoria struct {
	*process
	t         *testing.T
	dir       string
	url       string
	web, puts string // addresses
}

func newVictoria(t *testing.T) *victoria {
	t.Helper()
	need(t, "victoria-metrics")
	v := &victoria{t: t, dir: t.TempDir(), web: freeAddress(t, "tcp"), puts: freeAddress(t, "tcp")}
	v.url = "http://" + v.web
	return v
}

func (v *victoria) run() {
	v.t.Helper()
	v.process = start(v.t, v.dir, need(v.t, "victoria-metrics"),
		"-storageDataPath="+filepath.Join(v.dir, "data"), "-httpListenAddr="+v.web, "-opentsdbHTTPListenAddr="+v.puts,
		"-memory.allowedBytes=256MB")
	waitFor(v.t, patience, "VictoriaMetrics to answer", func() bool {
		v.running()
		status, _ := get(v.t, v.url+"/health")
		return status == 200 && listens(v.puts)
	})
}

func listens(address string) bool {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// points are values by the time in milliseconds, by series.
type points map[string]map[int64]float64

func (p points) put(series string, at int64, value float64) {
	if p[series] == nil {
		p[series] = map[int64]float64{}
	}
	p[series][at] = value
}

func (p points) count() (n int) {
	for _, values := range p {
		n += len(values)
	}
	return n
}

// export reads back all that was ever put.
func (v *victoria) export() points {
	v.t.Helper()
	page(v.t, v.url+"/internal/force_flush")
	text := page(v.t, v.url+"/api/v1/export?"+url.Values{"match[]": {`{__name__!=""}`}}.Encode())
	out := points{}
	for line := range strings.Lines(text) {
		var row struct {
			Metric     map[string]string
			Values     []float64
			Timestamps []int64
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			v.t.Fatalf("export: %v: %.200s", err, line)
		}
		name := row.Metric["__name__"]
		delete(row.Metric, "__name__")
		for i, at := range row.Timestamps {
			out.put(key(name, row.Metric), at, row.Values[i])
		}
	}
	return out
}

// A recorder stands between the agent and VictoriaMetrics, passes everything on,
// and remembers the points of which the answer was good.
type recorder struct {
	t       *testing.T
	address string
	to      *httputil.ReverseProxy
	server  *httptest.Server // nil: closed

	mu     sync.Mutex
	stored points
	sums   map[string]int // answers, by their status
}

func newRecorder(t *testing.T, address string) *recorder {
	t.Helper()
	r := &recorder{
		t: t, address: freeAddress(t, "tcp"), stored: points{}, sums: map[string]int{},
		to: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address}),
	}
	r.to.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	t.Cleanup(r.close)
	return r
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stored.count()
}

func (r *recorder) open() {
	r.t.Helper()
	l, err := net.Listen("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: r}}
	r.server.Start()
}

func (r *recorder) close() {
	if r.server != nil {
		r.server.CloseClientConnections()
		r.server.Close()
		r.server = nil
	}
}

// ServeHTTP passes a request on.
func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the agent has gone
	}
	req.Body = io.NopCloser(strings.NewReader(string(body)))
	answer := httptest.NewRecorder()
	r.to.ServeHTTP(answer, req)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sums[fmt.Sprintf("%s %s %d", req.Method, req.URL.Path, answer.Code)]++
	if answer.Code/100 == 2 {
		if err := r.record(body, req.Header.Get("Content-Encoding")); err != nil {
			r.t.Errorf("a put that VictoriaMetrics took: %v", err)
		}
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (r *recorder) record(body []byte, encoding string) error {
	if encoding != "gzip" {
		return fmt.Errorf("encoding %q, want gzip", encoding)
	}
	plain, err := gzip.NewReader(strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	var rows []struct {
		Metric    string
		Timestamp int64
		Value     float64
		Tags      map[string]string
	}
	if err := json.NewDecoder(plain).Decode(&rows); err != nil {
		return err
	}
	for _, row := range rows {
		r.stored.put(key(row.Metric, row.Tags), 1000*row.Timestamp, row.Value)
	}
	return nil
}

// tagged are the tags of what feed sends.
const tagged = `{env="test",route="/order",service="e2e"}`

func TestVictoriaMetricsGivesTheSameNumbersBack(t *testing.T) {
	t.Parallel()
	v := newVictoria(t)
	v.run()
	r := newRecorder(t, v.puts)
	r.open()
	a := startAgent(t, fmt.Sprintf("  - {name: tsdb, every: 1s, opentsdb: {url: %q}}\n", "http://"+r.address))
	took := feed(a).Snapshot()
	const hits = `web_hits_total` + tagged
	waitFor(t, patience, "what was sent to be stored", func() bool { return v.export()[hits] != nil })

	before := time.Now()
	v.stop()
	waitFor(t, patience, "an answer 502", func() bool { return a.retries("5xx") > 0 })
	r.close()
	waitFor(t, patience, "a refused connection", func() bool { return a.retries("refused") > 0 })
	a.send("web.hits:1000|c|#route:/order") // while nobody takes it
	waitFor(t, patience, "points to wait for five seconds", func() bool { return a.export("tsdb", "oldest_age_seconds") > 5 })
	a.balanced()
	v.run()
	r.open()
	down := time.Since(before)
	waitFor(t, patience, "what waited to be stored", func() bool { return a.export("tsdb", "queued") < 1000 })
	a.balanced()
	if dropped := a.drops(); len(dropped) > 0 {
		t.Errorf("points were dropped: %v", dropped)
	}
	var sent, stored float64
	if !becomes(t, patience, func() bool {
		before := a.export("tsdb", "out_total")
		stored = float64(r.count())
		sent = a.export("tsdb", "out_total")
		return before == sent && sent == stored
	}) {
		t.Errorf("%v points were stored, the agent sent %v", stored, sent)
	}
	a.stop()
	if strings.Contains(a.printed(), "points unsent") {
		t.Error("the agent stopped with points unsent")
	}

	got := v.export()
	becomes(t, patience, func() bool { // what came last can be read a moment later
		got = v.export()
		return got.count() >= r.count()
	})
	r.compare(got)
	r.noGaps(got, "outrider_pipeline_in_total{", before, before.Add(down))
	for series, want := range map[string]float64{
		hits:                                 5999,
		`web_request_seconds.count` + tagged: float64(took.Count),
		`web_request_seconds.sum` + tagged:   took.Sum,
		`web_users_now{env="test",plan="paid",service="e2e"}`:                    -3,
		`shop_orders_dropped_total{env="test",reason="sold_out",service="shop"}`: 20,
	} {
		values := got[series]
		if v := values[slices.Max(append(slices.Collect(maps.Keys(values)), 0))]; math.Abs(v-want) > 1e-9*math.Abs(want) {
			t.Errorf("the last %s is %v, want %v", series, v, want)
		}
	}
	t.Logf("%d points of %d series, down for %s; answers: %v", got.count(), len(got), down.Round(time.Millisecond), r.sums)
}

// export is a term of an exporter's pipeline.
func (a *agent) export(exporter, term string) float64 {
	a.t.Helper()
	return a.series()["outrider_pipeline_"+term+`{pipeline="export",target="`+exporter+`",unit="points"}`]
}

func (a *agent) retries(cause string) float64 {
	a.t.Helper()
	return a.series()[`outrider_pipeline_retries_total{cause="`+cause+`",pipeline="export",target="tsdb",unit="points"}`]
}

// drops are the exporters' drops that are not 0.
func (a *agent) drops() map[string]float64 {
	a.t.Helper()
	out := a.series()
	maps.DeleteFunc(out, func(key string, v float64) bool {
		return !strings.HasPrefix(key, "outrider_pipeline_drops_total{") || !strings.Contains(key, `pipeline="export"`) || v == 0
	})
	return out
}

// compare wants each point that was stored to be there, and no other.
func (r *recorder) compare(got points) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if want := r.stored.count(); got.count() != want || want == 0 {
		r.t.Errorf("VictoriaMetrics has %d points, want %d", got.count(), want)
	}
	wrong := 0
	for series, values := range r.stored {
		for at, want := range values {
			if v, found := got[series][at]; !found || !near(v, want) {
				if wrong++; wrong <= 5 {
					r.t.Errorf("%s at %d: %v (found: %v), want %v", series, at, v, found, want)
				}
			}
		}
	}
}

// noGaps wants a point of each series of a metric every second or so.
func (r *recorder) noGaps(got points, prefix string, from, to time.Time) {
	r.t.Helper()
	looked := 0
	for series, values := range got {
		if !strings.HasPrefix(series, prefix) {
			continue
		}
		looked++
		last := from.UnixMilli()
		for _, at := range slices.Sorted(maps.Keys(values)) {
			if at > last && last < to.UnixMilli() && at-last > 3000 {
				r.t.Errorf("%s: nothing for %d ms", series, at-last)
			}
			last = max(last, at)
		}
		// Points are of whole seconds, and one a second; a slow machine misses one.
		if until := to.Truncate(time.Second).Add(-2 * time.Second).UnixMilli(); last < until {
			r.t.Errorf("%s: nothing after %d, want some until %d", series, last, until)
		}
	}
	if looked == 0 {
		r.t.Errorf("no series %s...", prefix)
	}
}
