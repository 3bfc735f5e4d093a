package collectors

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// scrapeEnv returns an Env with a registry, and a function that reads one value
// of it: of the metric, with the tags.
func scrapeEnv(t *testing.T) (Env, func(name string, tags ...string) float64) {
	t.Helper()
	r := metricstest.Registry(t)
	env := Env{Name: "api", Metrics: r.Group(), Log: slog.New(slog.DiscardHandler), Now: time.Now}
	return env, func(name string, tags ...string) float64 {
		for _, f := range r.Gather() {
			for _, p := range f.Points {
				if f.Desc.Name == name && cmp.Equal(p.Tags, tags) {
					return p.Value
				}
			}
		}
		return math.NaN()
	}
}

// scrapes is a collector of what a handler answers.
func scrapes(t *testing.T, h http.HandlerFunc, edits ...func(*PrometheusConfig)) (Collector, func(string, ...string) float64) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	c := &PrometheusConfig{ScrapeConfig: ScrapeConfig{URL: server.URL + "/metrics"}}
	for _, edit := range edits {
		edit(c)
	}
	env, value := scrapeEnv(t)
	col, err := c.Build(env)
	if err != nil {
		t.Fatal(err)
	}
	return col, value
}

// answers is a handler that always writes the same.
func answers(contentType, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, text)
	}
}

const promTextType = "text/plain; version=0.0.4"

// promRender writes families for a comparison by eye.
func promRender(fams []metrics.Family) string {
	var b strings.Builder
	for _, f := range fams {
		fmt.Fprintf(&b, "%s %s %s unit=%q %q\n", f.Desc.Type, f.Desc.Name, f.Desc.Datadog, f.Desc.Unit, f.Desc.Help)
		for _, p := range f.Points {
			var tags []string
			for i, v := range p.Tags {
				if v != "" {
					tags = append(tags, fmt.Sprintf("%s=%q", f.Desc.Tags[i], v))
				}
			}
			fmt.Fprintf(&b, "  {%s} ", strings.Join(tags, ","))
			if p.Hist == nil {
				fmt.Fprintln(&b, p.Value)
			} else {
				fmt.Fprintln(&b, p.Hist.Bounds, p.Hist.Counts, p.Hist.Count, p.Hist.Sum)
			}
		}
	}
	return b.String()
}

func TestPrometheusTypesStayWhatTheyAre(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		open bool
		text string
		want string
	}{
		{
			"text", false, `# HELP in_total Things that\ncame.
# TYPE in_total counter
in_total{shop="b",kind=""} 2 1700000000000
in_total 1
in_total{city="x",shop="a"} 3
# TYPE depth gauge
depth -1.5
free +Inf
# TYPE took_seconds histogram
took_seconds_bucket{shop="a",le="0.5"} 1
took_seconds_bucket{shop="a",le="1"} 1
took_seconds_bucket{shop="a",le="+Inf"} 4
took_seconds_sum{shop="a"} 12.5
took_seconds_count{shop="a"} 4
took_seconds_bucket{shop="b",le="+Inf"} 9
took_seconds_bucket{shop="b",le="7"} 8
took_seconds_bucket{shop="b",le="0.25"} 2
# TYPE size_bytes summary
size_bytes{quantile="0.5"} 7
size_bytes_sum 70
size_bytes_count 10
`, `gauge depth depth unit="" "Not described by the neighbour."
  {} -1.5
gauge free free unit="" "Not described by the neighbour."
  {} +Inf
counter in_total in.count unit="" "Things that came."
  {} 1
  {shop="b"} 2
  {city="x",shop="a"} 3
gauge size_bytes size_bytes.quantile unit="bytes" "Not described by the neighbour."
  {quantile="0.5"} 7
counter size_bytes_count size_bytes.count unit="" "Not described by the neighbour."
  {} 10
counter size_bytes_sum size_bytes.sum unit="" "Not described by the neighbour."
  {} 70
histogram took_seconds took_seconds unit="seconds" "Not described by the neighbour."
  {shop="a"} [0.5 1] [1 0 3] 4 12.5
  {shop="b"} [0.25 7] [2 6 1] 9 NaN
`,
		},
		{
			"OpenMetrics", true, `# TYPE in counter
# UNIT in orders
# HELP in Things.
in_total{shop="a"} 3.0 1700000000.123 # {trace_id="x"} 1.0 1700000000.1
in_created{shop="a"} 1.7e9
# TYPE build info
build_info{v="1"} 1
# TYPE state stateset
state{state="on"} 1
state{state="off"} 0
# TYPE now gaugehistogram
now_bucket{le="1"} 2
now_bucket{le="+Inf"} 3
now_gcount 3
now_gsum 4
# TYPE h histogram
h_bucket{le="+Inf"} 2 # {trace_id="x"} 1.0
h_created 1
{"http.size","a.b"="c"} 1
# EOF
after 1
`, `gauge build_info build_info unit="" "Not described by the neighbour."
  {v="1"} 1
histogram h h unit="" "Not described by the neighbour."
  {} [] [2] 2 NaN
gauge http_size http_size unit="" "Not described by the neighbour."
  {a_b="c"} 1
counter in_total in.count unit="orders" "Things."
  {shop="a"} 3
gauge now_bucket now_bucket unit="" "Not described by the neighbour."
  {le="+Inf"} 3
  {le="1"} 2
gauge now_gcount now_gcount unit="" "Not described by the neighbour."
  {} 3
gauge now_gsum now_gsum unit="" "Not described by the neighbour."
  {} 4
gauge state state unit="" "Not described by the neighbour."
  {state="off"} 0
  {state="on"} 1
`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, promRender(promScan(t, 1000, tt.open, tt.text))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestPrometheusReadsPrograms reads what a Python program wrote, in both formats.
func TestPrometheusReadsPrograms(t *testing.T) {
	t.Parallel()
	for file, kind := range map[string]string{"python.txt": promTextType, "python_openmetrics.txt": "application/openmetrics-text; version=1.0.0; charset=utf-8"} {
		text, err := os.ReadFile(filepath.Join("testdata", "prometheus", file))
		if err != nil {
			t.Fatal(err)
		}
		col, _ := scrapes(t, answers(kind, string(text)))
		fams, err := col.Collect(t.Context())
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		got := promRender(fams)
		for _, want := range []string{
			"counter orders_received_total orders_received.count unit=\"\" \"Orders that came in.\"\n  {shop=\"berlin\"} 41\n  {shop=\"são \\\"paulo\\\"\\\\x\\n2\"} 1.5\n",
			"gauge orders_depth orders_depth unit=\"\" \"Orders that wait.\"\n  {} 17\n",
			"histogram order_seconds order_seconds unit=\"seconds\" \"Time of one order.\"\n  {shop=\"berlin\"} [0.005 0.05 0.5 5] [1 2 1 0 1] 5 7.341\n",
			"counter order_bytes_count order_bytes.count unit=\"\" \"Size of one order.\"\n  {} 2\n",
			"gauge build_info build_info unit=\"\" \"What was built.\"\n  {commit=\"deadbeef\",version=\"1.2.3\"} 1\n",
			"  {kind=\"inf\"} +Inf\n  {kind=\"minus\"} -Inf\n  {kind=\"nan\"} NaN\n",
			"counter process_cpu_seconds_total process_cpu_seconds.count unit=\"seconds\"",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: want\n%sin\n%s", file, want, got)
			}
		}
	}
}

// TestPrometheusReadsClientGolang holds what is read to what the program counted.
func TestPrometheusReadsClientGolang(t *testing.T) {
	t.Parallel()
	r := prometheus.NewRegistry()
	in := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "in_total", Help: "In."}, []string{"shop"})
	took := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "took_seconds", Help: "Took.", Buckets: []float64{0.5, 1}})
	size := prometheus.NewSummary(prometheus.SummaryOpts{Name: "size_bytes", Help: "Size.", Objectives: map[float64]float64{0.5: 0.01}})
	r.MustRegister(in, took, size)
	in.WithLabelValues("a\"\\\n{}").Add(3)
	in.WithLabelValues("b").Add(1e18)
	for _, v := range []float64{0.1, 0.7, 0.8, 3} {
		took.Observe(v)
		size.Observe(v)
	}
	for _, open := range []bool{true, false} {
		col, value := scrapes(t, promhttp.HandlerFor(r, promhttp.HandlerOpts{EnableOpenMetrics: open}).ServeHTTP)
		want := `counter in_total in.count unit="" "In."
  {shop="a\"\\\n{}"} 3
  {shop="b"} 1e+18
gauge size_bytes size_bytes.quantile unit="bytes" "Size."
  {quantile="0.5"} 0.7
counter size_bytes_count size_bytes.count unit="" "Size."
  {} 4
counter size_bytes_sum size_bytes.sum unit="" "Size."
  {} 4.6
histogram took_seconds took_seconds unit="seconds" "Took."
  {} [0.5 1] [1 2 1] 4 4.6
`
		var before []metrics.Family
		for range 3 {
			fams, err := col.Collect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, promRender(fams)); diff != "" {
				t.Errorf("OpenMetrics %t (-want +got):\n%s", open, diff)
			}
			if before != nil && &before[0].Points[0].Tags[0] != &fams[0].Points[0].Tags[0] {
				t.Error("tags are new in each read, want those of the read before")
			}
			before = fams
		}
		for name, want := range map[string]float64{"outrider_scrape_samples": 10, "outrider_scrape_requests_total": 3} {
			if got := value(name, "api"); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		if up, size := value("outrider_neighbour_up", "api"), value("outrider_scrape_body_bytes", "api"); up != 1 || !(size > 100) {
			t.Errorf("up %v with %v bytes, want 1 with more than 100", up, size)
		}
	}
}

// TestPrometheusBadAnswers: each is a clear error and a count, and the next good
// answer is read as if nothing had been.
func TestPrometheusBadAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		reason string // empty: the neighbour is up
		says   string
		keeps  string // a line of what could be read
	}{
		{"HTML", answers("text/html; charset=utf-8", "<!DOCTYPE html><title>Log in</title>"), "format", `got text/html; charset=utf-8 beginning with "<!DOCTYPE html><title>Log in</title>", want Prometheus text`, ""},
		{"JSON", answers("application/json", `{"status":"ok"}`), "format", `got application/json beginning with "{\"status\":\"ok\"}", want Prometheus text`, ""},
		{"binary noise", answers("", strings.Repeat("\x7fELF\x00\x01\xff\n\x03", 5000)), "format", `beginning with "\x7fELF\x00`, ""},
		{"status 503", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "try later", http.StatusServiceUnavailable)
		}, "status", `status 503, want 200: it begins with "try later"`, ""},
		{"another host", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://169.254.169.254/latest")
			w.WriteHeader(http.StatusFound)
		}, "redirect", "redirected to http://169.254.169.254, want an answer from http://127.0.0.1", ""},
		{"a loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/metrics", http.StatusFound) }, "redirect", "redirected 4 times", ""},
		{"a long line", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "good 1\n")
			chunk := []byte(strings.Repeat("x", 1<<20))
			for range 1024 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "too_large", "got more than 1048576 bytes, want at most body_limit", ""},
		{"a line too long", answers("", "good 1\nbad{a=\""+strings.Repeat("x", 100<<10)+"\"} 1\nfine 2\n"), "", "left out 1 lines of 3: line 2: got a line of more than 64 KiB", "gauge fine"},
		{"bad lines", answers("", "good 1\nbad one\nworse{ 1\nfine 2\n"), "", `left out 2 lines of 4: line 2: got the value "one", want a number`, "gauge fine"},
		{"cut short", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "good 1\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+In")
		}, "truncated", "the answer broke off after", "gauge good"},
		{"OpenMetrics cut short", answers("application/openmetrics-text", "good 1\nbad 12"), "truncated", "without # EOF", "gauge good"},
		{"gzip that is none", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "good 1\nand more\n")
		}, "encoding", "gzip: invalid header", ""},
		{"a gzip bomb", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(bytes.Repeat([]byte("good 1\n"), 1<<20))
			z.Close()
		}, "too_large", "got more than 1048576 bytes", ""},
		{"another encoding", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "br") }, "encoding", `got Content-Encoding "br"`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bad := true
			col, value := scrapes(t, func(w http.ResponseWriter, r *http.Request) {
				if bad {
					tt.answer(w, r)
				} else {
					answers(promTextType, "good 1\n")(w, r)
				}
			}, func(c *PrometheusConfig) { c.BodyLimit = 1 << 20 })
			fams, err := col.Collect(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.HasPrefix(err.Error(), "scrape http://127.0.0.1:") || len(err.Error()) > 400 {
				t.Errorf("error %v, want it to say %q", err, tt.says)
			}
			if got := promRender(fams); !strings.Contains(got, tt.keeps) || tt.keeps != "" && strings.Contains(got, "bad") || strings.Contains(got, "histogram") {
				t.Errorf("got\n%s, want in it %q", got, tt.keeps)
			}
			up, failures := value("outrider_neighbour_up", "api"), value("outrider_scrape_failures_total", "api", tt.reason)
			if (tt.reason == "") != (up == 1) || tt.reason != "" && failures != 1 {
				t.Errorf("up %v, failures for %q %v, want 1 of them", up, tt.reason, failures)
			}
			bad = false
			if fams, err = col.Collect(t.Context()); err != nil || value("outrider_neighbour_up", "api") != 1 {
				t.Errorf("afterwards: %v", err)
			}
			if got, want := promRender(fams), "gauge good good unit=\"\" \"Not described by the neighbour.\"\n  {} 1\n"; got != want {
				t.Errorf("afterwards:\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestPrometheusHungNeighbour: before the answer, and in the middle of it.
func TestPrometheusHungNeighbour(t *testing.T) {
	t.Parallel()
	for _, begin := range []string{"", "good 1\nhalf 1"} {
		release := make(chan struct{})
		col, value := scrapes(t, func(w http.ResponseWriter, r *http.Request) {
			if begin != "" {
				_, _ = io.WriteString(w, begin)
				w.(http.Flusher).Flush()
			}
			select {
			case <-release:
			case <-r.Context().Done():
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		began := time.Now()
		_, err := col.Collect(ctx)
		cancel()
		if want := fmt.Sprintf("no whole answer by the deadline: got %d bytes of it", len(begin)); err == nil || !strings.Contains(err.Error(), want) || time.Since(began) > 5*time.Second {
			t.Errorf("error %v after %s, want %q at once", err, time.Since(began), want)
		}
		if got := value("outrider_scrape_failures_total", "api", "timeout"); got != 1 {
			t.Errorf("%v timeouts, want 1", got)
		}
		close(release)
	}
}

func TestPrometheusRefusedConnection(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	env, value := scrapeEnv(t)
	col, err := (&PrometheusConfig{ScrapeConfig: ScrapeConfig{URL: "http://" + l.Addr().String()}}).Build(env)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := col.Collect(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v, want it to say that the connection was refused", err)
	}
	if got := value("outrider_scrape_failures_total", "api", "connect"); got != 1 {
		t.Errorf("%v failures to connect, want 1", got)
	}
}

func TestPrometheusWaysToTheNeighbour(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := make(chan *http.Request, 10)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		answers(promTextType, "good 1\n")(w, r)
	})
	unix := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	unix.Start()
	t.Cleanup(unix.Close)
	secure := httptest.NewUnstartedServer(h)
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		c      ScrapeConfig
		header string
		want   string
		says   string
	}{
		"a socket":          {ScrapeConfig{URL: "unix://" + socket + ":/custom/metrics", Headers: map[string]config.Secret{"X-Tenant": config.NewSecret("a")}}, "X-Tenant", "a", ""},
		"basic auth":        {ScrapeConfig{URL: "unix://" + socket, BasicAuth: ScrapeBasicAuth{"u", config.NewSecret("p")}}, "Authorization", "Basic dTpw", ""},
		"a token in a file": {ScrapeConfig{URL: "unix://" + socket, BearerTokenFile: config.NewSecretFile(config.Path(token), []byte("old"))}, "Authorization", "Bearer first", ""},
		"TLS":               {ScrapeConfig{URL: secure.URL, TLS: ScrapeTLS{CAFile: config.Path(ca)}, BearerToken: config.NewSecret("t")}, "Authorization", "Bearer t", ""},
		"another authority": {ScrapeConfig{URL: secure.URL}, "", "", "certificate signed by unknown authority"},
		"no TLS":            {ScrapeConfig{URL: "http" + strings.TrimPrefix(secure.URL, "https")}, "", "", "status 400"},
	} {
		t.Run(name, func(t *testing.T) {
			env, value := scrapeEnv(t)
			col, err := (&PrometheusConfig{ScrapeConfig: tt.c}).Build(env)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = col.Collect(t.Context()); tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) || value("outrider_neighbour_up", "api") != 0 {
					t.Errorf("error %v, want it to say %q", err, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if r := <-asked; r.Header.Get(tt.header) != tt.want || r.Header.Get("User-Agent") != "outrider" {
				t.Errorf("header %v, want %s: %s", r.Header, tt.header, tt.want)
			}
		})
	}
}

// TestPrometheusConfigErrors: each names its key.
func TestPrometheusConfigErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"url: ftp://x/", "p.url: got \"ftp://x/\", want an address such as"},
		{"url: http://u:pw@x/", "p.url: got \"<redacted>@x/\" with a user, want the user in basic_auth"},
		{"url: http://x/\nsample_limit: 0", "p.sample_limit: got 0, want 1 to 1000000"},
		{"url: http://x/\nbody_limit: 0", "p.body_limit: got 0B, want more than 0B"},
		{"url: http://x/\nbearer_token: a\nbasic_auth: {username: u}", "p.basic_auth: got more than one"},
		{"url: http://x/\ntls: {insecure_skip_verify: true}", "p.tls: got settings for an address without TLS"},
		{"url: https://x/\ntls: {ca_file: /nowhere}", "p.tls.ca_file: got stat /nowhere: no such file"},
		{"url: http://x/\nheaders: {\"a b\": x}", "p.headers: got \"a b\""},
		{"url: http://x/\nrelabel: [{action: keep, source_labels: [a], regex: a}, {action: hashmod}]", "p.relabel[1].action: got \"hashmod\", want keep, drop"},
		{"url: http://x/\nrelabel: [{source_labels: [a], target_label: b, regex: \"(\"}]", "p.relabel[0].regex: got \"(\": missing closing )"},
		{"url: http://x/\nrelabel: [{source_labels: [a]}]", "p.relabel[0].target_label: got nothing with action replace"},
		{"url: http://x/\nrelabel: [{action: labeldrop, source_labels: [a]}]", "p.relabel[0].source_labels: got them with action labeldrop"},
		{"url: http://x/\nrelabel: [{action: drop, source_labels: [\"a b\"]}]", "p.relabel[0].source_labels[0]: got \"a b\""},
		{"url: http://x/\nrelabel: [{action: labelmap, regex: \"x_(.*)\", replacement: \"a-b\"}]", "p.relabel[0].replacement: got \"a-b\""},
		{"url: http://x/\nrelabel: [{action: keep, source_labels: [a], target_label: b, separator: \"\"}]", "p.relabel[0].target_label: got \"b\" with action keep"},
		{"url: unix:///run/a.sock:metrics", "p.url: got \"unix:///run/a.sock:metrics\", want an address such as unix:///"},
	} {
		var c struct{ PrometheusConfig }
		_, err := config.Parse("f", []byte("p:\n  "+strings.ReplaceAll(tt.text, "\n", "\n  ")+"\n"), ".", config.Options{Sections: map[string]any{"p": &c.PrometheusConfig}})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want it to say %q", tt.text, err, tt.want)
		}
	}
	var c PrometheusConfig
	_, err := config.Parse("f", []byte("p: {url: 'unix:///run/a.sock:/m', relabel: [{source_labels: [a], target_label: b, replacement: '$${1}x'}]}"), ".", config.Options{Sections: map[string]any{"p": &c}})
	if err != nil || c.SampleLimit != 10000 || c.BodyLimit != 32<<20 || c.Relabel[0].Replacement != "${1}x" || c.Relabel[0].Separator != ";" {
		t.Errorf("%+v, %v, want the limits by default", c, err)
	}
}

// promShort writes each series in few words.
func promShort(fams []metrics.Family) (out []string) {
	for _, f := range fams {
		for _, p := range f.Points {
			var tags []string
			for i, v := range p.Tags {
				if v != "" {
					tags = append(tags, f.Desc.Tags[i]+"="+v)
				}
			}
			s := fmt.Sprintf("%s %s{%s}", f.Desc.Type, f.Desc.Name, strings.Join(tags, ","))
			if p.Hist == nil {
				s += fmt.Sprint(p.Value)
			} else {
				s += fmt.Sprint(p.Hist.Bounds, p.Hist.Counts)
			}
			out = append(out, s)
		}
	}
	return out
}

// TestAMetricWithoutSeriesIsThere: prometheus_client shows a counter with labels
// before the first one is known.
func TestAMetricWithoutSeriesIsThere(t *testing.T) {
	for typ, text := range map[string]string{
		"text/plain; version=0.0.4":                   "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n# HELP drops_total X.\n# TYPE drops_total counter\n# TYPE depth gauge\n# TYPE what untyped\n",
		"application/openmetrics-text; version=1.0.0": "# TYPE a counter\na_total 1\n# TYPE drops counter\n# TYPE depth gauge\n# TYPE s summary\n# EOF\n",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", typ)
			_, _ = io.WriteString(w, text)
		}))
		defer s.Close()
		c, err := (&PrometheusConfig{ScrapeConfig: ScrapeConfig{URL: s.URL}}).Build(Env{Name: "x", Metrics: metricstest.Registry(t).Group(), Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			fams, err := c.Collect(t.Context())
			var got []string
			for _, f := range fams {
				got = append(got, fmt.Sprint(f.Desc.Name, " ", f.Desc.Type, " ", len(f.Points)))
			}
			if diff := cmp.Diff([]string{"a_total counter 1", "depth gauge 0", "drops_total counter 0"}, got); diff != "" || err != nil {
				t.Errorf("%s: %v (-want +got):\n%s", typ, err, diff)
			}
		}
	}
}
