package series

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"

	"github.com/outrider-agent/outrider/metrics"
)

// scrapeConfig scrapes the agent's series and those of its neighbour.
const scrapeConfig = `global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - {job_name: agent, static_configs: [{targets: ["%[1]s"]}]}
  - {job_name: shop, metrics_path: /metrics/neighbour/shop, static_configs: [{targets: ["%[1]s"]}]}
`

// A promServer is a Prometheus that scrapes the agent.
type promServer struct {
	*process
	url string
}

func startPrometheus(t *testing.T, a *agent, args ...string) *promServer {
	t.Helper()
	dir, address := t.TempDir(), freeAddress(t, "tcp")
	path := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(scrapeConfig, strings.TrimPrefix(a.url, "http://"))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{
		"--config.file=" + path, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address,
	}, args...)
	p := &promServer{start(t, dir, need(t, "prometheus"), args...), "http://" + address}
	waitFor(t, patience, "Prometheus to be ready", func() bool {
		p.running()
		status, _ := get(t, p.url+"/-/ready")
		return status == 200
	})
	return p
}

// ask reads an answer of Prometheus' API.
func (p *promServer) ask(path string, args url.Values, data any) {
	p.t.Helper()
	body := page(p.t, p.url+path+"?"+args.Encode())
	answer := struct{ Data any }{data}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		p.t.Fatalf("%s: %v: %s", path, err, body)
	}
}

// An instant is what Prometheus has of a series at one moment.
type instant struct {
	Metric    map[string]string
	Value     [2]any // time and value, of all but native histograms
	Histogram []any  // time and value, of native histograms
}

func (i instant) value(t *testing.T) float64 {
	t.Helper()
	s, _ := i.Value[1].(string)
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatalf("value of %v: %v", i.Metric, err)
	}
	return v
}

// key is the series' name as the agent has it.
func (i instant) key(more ...string) string {
	labels := map[string]string{}
	for name, value := range i.Metric {
		if !slices.Contains([]string{"__name__", "job", "instance"}, name) {
			labels[name] = value
		}
	}
	return key(i.Metric["__name__"]+strings.Join(more, ""), labels)
}

// query asks for what a query gives at a time; zero: now.
func (p *promServer) query(query string, at float64) []instant {
	p.t.Helper()
	args := url.Values{"query": {query}}
	if at != 0 {
		args.Set("time", strconv.FormatFloat(at, 'f', 3, 64))
	}
	var data struct{ Result []instant }
	p.ask("/api/v1/query", args, &data)
	return data.Result
}

// number asks for one.
func (p *promServer) number(query string, at float64) float64 {
	p.t.Helper()
	got := p.query(query, at)
	if len(got) != 1 {
		p.t.Fatalf("query %s: %d series, want 1", query, len(got))
	}
	return got[0].value(p.t)
}

// scraped waits for a good scrape of a job that began after now, and returns when
// it was.
func (p *promServer) scraped(job string) (at float64) {
	p.t.Helper()
	after := float64(time.Now().UnixMilli()) / 1000
	waitFor(p.t, patience, "a scrape of "+job, func() bool {
		p.running()
		got := p.query(fmt.Sprintf("timestamp(up{job=%[1]q}) and up{job=%[1]q} == 1", job), 0)
		if len(got) == 0 {
			return false
		}
		at = got[0].value(p.t)
		return at > after
	})
	return at
}

// latencies are values as they come in life: log-normal, around 20 ms.
func latencies(n int) (ms []float64) {
	r := rand.New(rand.NewPCG(1, 2))
	for range n {
		ms = append(ms, 20*math.Exp(r.NormFloat64()))
	}
	return ms
}

// feed sends the agent some series of its own: what is known of them does not
// change afterwards.
func feed(a *agent) (took *metrics.Histogram) {
	a.t.Helper()
	took = metrics.NewHistogram()
	var lines []string
	for i, ms := range latencies(5000) {
		took.Observe(ms / 1000)
		lines = append(lines, "web.request:"+strconv.FormatFloat(ms, 'g', -1, 64)+"|ms|#route:/order")
		lines = append(lines, fmt.Sprintf("web.hits:%d|c|#route:/order", i%3), "web.bytes:1024.5|c|@0.5", "web.render:37|ms")
	}
	a.send(append(lines, "web.users_now:41.5|g|#plan:free", "web.users_now:-3|g|#plan:paid")...)
	return took
}

// shows waits until the agent shows what feed sent, and what it read of the shop.
func (a *agent) shows() {
	a.t.Helper()
	waitFor(a.t, patience, "what was sent and read to be shown", func() bool {
		return strings.Contains(page(a.t, a.url+"/metrics"), "\nweb_users_now{") &&
			strings.Contains(page(a.t, a.url+"/metrics/neighbour/shop"), "\nshop_order_seconds_count")
	})
}

func TestPrometheusScrapes(t *testing.T) {
	t.Parallel()
	need(t, "prometheus")
	a := startAgent(t, "")
	took := feed(a)
	a.shows()
	p := startPrometheus(t, a, "--enable-feature=native-histograms")
	classic := startPrometheus(t, a)
	for _, job := range []string{"agent", "shop"} {
		p.scraped(job)
		classic.scraped(job)
	}

	for _, p := range []*promServer{p, classic} {
		p.isUp()
		p.describes("agent", families(t, page(t, a.url+"/metrics")))
		p.describes("shop", families(t, page(t, a.url+"/metrics/neighbour/shop")))
		p.agrees("agent", a.url+"/metrics")
		p.agrees("shop", a.url+"/metrics/neighbour/shop")
		if got := p.query(`outrider_pipeline_balance != 0`, 0); len(got) > 0 {
			t.Errorf("pipelines that do not balance: %v", got)
		}
	}
	p.nativeQuantiles(took)
	classic.classicQuantiles(took)
	a.balanced()
}

// isUp wants each target to be up, without an error.
func (p *promServer) isUp() {
	p.t.Helper()
	var data struct {
		ActiveTargets []struct{ ScrapePool, Health, LastError string }
	}
	if !becomes(p.t, patience, func() bool {
		p.ask("/api/v1/targets", nil, &data)
		up := 0
		for _, target := range data.ActiveTargets {
			if target.Health == "up" && target.LastError == "" {
				up++
			}
		}
		return up == 2
	}) {
		p.t.Errorf("targets %+v, want 2 that are up", data.ActiveTargets)
	}
}

// describes wants Prometheus to know the type and the help of each metric.
func (p *promServer) describes(job string, fams map[string]*dto.MetricFamily) {
	p.t.Helper()
	var data []struct{ Metric, Type, Help string }
	p.ask("/api/v1/targets/metadata", url.Values{"match_target": {`{job="` + job + `"}`}}, &data)
	help := map[string]string{} // by name and type
	for _, m := range data {
		name := m.Metric
		if m.Type == "counter" && !strings.HasSuffix(name, "_total") { // as OpenMetrics has it
			name += "_total"
		}
		help[name+" "+m.Type] = m.Help
	}
	for name, f := range fams {
		described, found := help[name+" "+strings.ToLower(f.GetType().String())]
		if !found || described != f.GetHelp() {
			p.t.Errorf("%s %s of %s: described: %v, as %q, want %q", f.GetType(), name, job, found, described, f.GetHelp())
		}
	}
	p.t.Logf("%s: %d metrics described", job, len(fams))
}

// agrees wants each series of a page in Prometheus, and the values of counters to
// be between those of a look before the scrape and one after it: at rest the
// very same.
func (p *promServer) agrees(job, address string) {
	p.t.Helper()
	before := families(p.t, page(p.t, address))
	at := p.scraped(job)
	got := map[string]float64{}
	for _, i := range p.query(fmt.Sprintf("{job=%q}", job), at) {
		if i.Histogram == nil {
			got[i.key()] = i.value(p.t)
			continue
		}
		h, _ := i.Histogram[1].(map[string]any)
		for _, part := range []string{"count", "sum"} {
			v, err := strconv.ParseFloat(fmt.Sprint(h[part]), 64)
			if err != nil {
				p.t.Fatalf("histogram %v: %s: %v", i.Metric, part, err)
			}
			got[i.key("_", part)] = v
		}
	}
	after := flatten(families(p.t, page(p.t, address)))

	compared, still := 0, 0
	for name, f := range before {
		for key, least := range flatten(map[string]*dto.MetricFamily{name: f}) {
			most, stays := after[key]
			v, found := got[key]
			switch {
			case !stays, strings.HasPrefix(key, name+"_bucket"): // buckets: see the quantiles
			case !found:
				p.t.Errorf("%s of %s is not in Prometheus", key, job)
			case f.GetType() == dto.MetricType_GAUGE, strings.Contains(key, "quantile="):
			case v < least || v > most:
				p.t.Errorf("%s of %s is %v, want %v to %v", key, job, v, least, most)
			default:
				compared++
				if least == most {
					still++
				}
			}
		}
	}
	if still == 0 {
		p.t.Errorf("%s: nothing was at rest", job)
	}
	p.t.Logf("%s: %d series, of which %d values that only grow are compared, %d of them at rest", job, len(got), compared, still)
}

// nativeQuantiles wants a native histogram to be the one that was observed.
func (p *promServer) nativeQuantiles(took *metrics.Histogram) {
	p.t.Helper()
	const series = `web_request_seconds{job="agent"}`
	got := p.query(series, 0)
	if len(got) != 1 || got[0].Histogram == nil {
		p.t.Fatalf("%s is %v, want one native histogram", series, got)
	}
	snapshot := took.Snapshot()
	for _, q := range []float64{0.5, 0.9, 0.99} {
		want := snapshot.Quantile(q)
		v := p.number(fmt.Sprintf("histogram_quantile(%v, %s)", q, series), 0)
		off := math.Abs(v/want - 1)
		p.t.Logf("native quantile %v: %.6f, ours %.6f: %.2f %% off", q, v, want, 100*off)
		if !(off <= 0.02) {
			p.t.Errorf("native quantile %v is %v, want %v, 2 %% off at most", q, v, want)
		}
	}
	// Between values that lie close together wide buckets would do as well.
	constant := p.number(`histogram_quantile(0.5, web_render_seconds{job="agent"})`, 0)
	if off := math.Abs(constant/0.037 - 1); !(off <= 0.02) {
		p.t.Errorf("native median of nothing but 0.037 is %v, want it 2 %% off at most", constant)
	}
	if n := p.number("histogram_count("+series+")", 0); n != float64(snapshot.Count) {
		p.t.Errorf("histogram_count is %v, want %d", n, snapshot.Count)
	}
}

// classicQuantiles wants each classic bucket to be exact.
func (p *promServer) classicQuantiles(took *metrics.Histogram) {
	p.t.Helper()
	snapshot := took.Snapshot()
	buckets := p.query(`web_request_seconds_bucket{job="agent"}`, 0)
	if len(buckets) < 20 {
		p.t.Errorf("%d classic buckets, want 20 or more", len(buckets))
	}
	for _, b := range buckets {
		bound, err := strconv.ParseFloat(b.Metric["le"], 64)
		if err != nil {
			p.t.Fatal(err)
		}
		if got, want := b.value(p.t), float64(snapshot.AtMost(bound)); got != want {
			p.t.Errorf("%v values are at most %v, want %v", got, model.SampleValue(bound), want)
		}
	}
	want := snapshot.Quantile(0.99)
	got := p.number(`histogram_quantile(0.99, web_request_seconds_bucket{job="agent"})`, 0)
	p.t.Logf("classic quantile 0.99: %.6f, ours %.6f", got, want)
	if got < want/math.Sqrt2 || got > want*math.Sqrt2 {
		p.t.Errorf("classic quantile 0.99 is %v, want within one bucket of %v", got, want)
	}
}

func TestPromtoolIsSilent(t *testing.T) {
	t.Parallel()
	need(t, "promtool")
	a := startAgent(t, "  - {name: datadog, datadog: {address: \"127.0.0.1:9\"}}\n"+
		"  - {name: tsdb, opentsdb: {url: \"http://127.0.0.1:9\"}}\n")
	feed(a)
	a.shows()
	lint(t, a.url+"/metrics")
	lint(t, a.url+"/metrics/neighbour/shop")
	a.balanced()
}

// syncConfig has what the other one has not: state sync.
const syncConfig = `service: e2e
data_dir: ./data
listen: {public: "%s", debug: "off", status: "off"}
statesync:
  kubeconfig: %s
  kinds: [Pod, Job]
  audit: 1s
  sinks:
    - {name: archive, file: {path: ./changes.ndjson}}
`

func TestPromtoolIsSilentAboutStateSync(t *testing.T) {
	t.Parallel()
	need(t, "promtool")
	dir, public := t.TempDir(), freeAddress(t, "tcp")
	cluster := start(t, dir, env.outrider, "simulate", "--dir", dir, "--workloads", "20", "--rate", "20")
	kubeconfig := filepath.Join(dir, "kubeconfig")
	waitFor(t, patience, "the simulated cluster's kubeconfig", func() bool {
		cluster.running()
		_, err := os.Stat(kubeconfig)
		return err == nil
	})
	a := runAgent(t, public, fmt.Sprintf(syncConfig, public, kubeconfig))
	waitFor(t, patience, "changes to be delivered", func() bool {
		return a.series()[`outrider_pipeline_out_total{pipeline="delivery",target="archive",unit="changes"}`] > 20
	})
	lint(t, a.url+"/metrics")
}

// lint wants promtool to find nothing wrong with a page.
func lint(t *testing.T, address string) {
	t.Helper()
	text := page(t, address)
	c := exec.CommandContext(t.Context(), need(t, "promtool"), "check", "metrics")
	c.Stdin = strings.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics of %s: %v\n%s", address, err, out)
	}
	t.Logf("%s: %d metrics checked", address, strings.Count(text, "# TYPE "))
}
