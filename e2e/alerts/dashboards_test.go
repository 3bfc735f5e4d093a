package alerts

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// boardFaults are what the API server does wrong: it refuses what it is asked.
const boardFaults = "5s..7s error\n"

const boardScrapes = `global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - {job_name: agent, static_configs: [{targets: ["%s"]}]}
`

// boardPatience is how long all queries may take to find something: what is rare,
// such as a retry, must have come up by then.
const boardPatience = 2 * time.Minute

// TestEveryQueryOfTheBoardsFindsData asks a real Prometheus, which scrapes the agent
// of outrider demo, for what each panel of both boards shows. Datadog's queries are
// asked in Prometheus' language: the catalogue has both names of each metric.
func TestEveryQueryOfTheBoardsFindsData(t *testing.T) {
	p := boardScene(t)
	queries := slices.Concat(grafanaQueries(t), datadogQueries(t))
	if _, err := os.Stat("/proc/pressure/cpu"); err != nil { // as the kernel is built
		queries = slices.DeleteFunc(queries, func(q boardQuery) bool { return q.panel == "Pressure" })
	}
	if len(queries) < 150 {
		t.Fatalf("the boards have %d queries, want 150 or more", len(queries))
	}
	missing := slices.Clone(queries)
	boardBecomes(t, boardPatience, func() bool {
		missing = slices.DeleteFunc(missing, func(q boardQuery) bool { return p.finds(t, q.promQL) })
		return len(missing) == 0
	})
	for _, q := range missing {
		t.Errorf("%s: panel %s: no data for %s, asked as %s", q.board, q.panel, q.text, q.promQL)
	}
	for _, name := range []string{"job", "instance", "pipeline"} {
		if !p.hasLabel(t, name, grafanaVariable(t, name)) {
			t.Errorf("grafana: the variable %s has no value", name)
		}
	}
	for board, n := range boardCounts(queries) {
		t.Logf("%s: %d queries", board, n)
	}
	// Queries that find whatever they ask for would prove nothing.
	if p.finds(t, `outrider_no_such_metric{job=~".*"}`) || p.finds(t, `0 / (up{job="agent"} * 0)`) {
		t.Error("a query without data finds some")
	}
}

// A boardQuery is a query of a panel.
type boardQuery struct{ board, panel, text, promQL string }

func boardCounts(queries []boardQuery) map[string]int {
	out := map[string]int{}
	for _, q := range queries {
		out[q.board]++
	}
	return out
}

// A grafanaBoard is what of Grafana's file is asked here.
type grafanaBoard struct {
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
	Templating struct {
		List []struct{ Name, Definition string }
	}
}

func readBoard(t *testing.T, backend string, to any) {
	t.Helper()
	data, err := os.ReadFile("../../dashboards/generated/" + backend + "/outrider.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, to); err != nil {
		t.Fatal(err)
	}
}

// expanded puts in what Grafana does for its variables.
func expanded(expr string) string {
	return strings.NewReplacer("$__rate_interval", "30s", "$job", ".*", "$instance", ".*", "$pipeline", ".*").Replace(expr)
}

func grafanaQueries(t *testing.T) (out []boardQuery) {
	t.Helper()
	var b grafanaBoard
	readBoard(t, "grafana", &b)
	for _, p := range b.Panels {
		for _, target := range p.Targets {
			out = append(out, boardQuery{"grafana", p.Title, target.Expr, expanded(target.Expr)})
		}
	}
	return out
}

// grafanaVariable is the series that a variable's values come from.
func grafanaVariable(t *testing.T, name string) (series string) {
	t.Helper()
	var b grafanaBoard
	readBoard(t, "grafana", &b)
	for _, v := range b.Templating.List {
		if v.Name == name {
			series, _ = strings.CutPrefix(expanded(v.Definition), "label_values(")
			return strings.TrimSuffix(series, ", "+name+")")
		}
	}
	t.Fatalf("grafana: got no variable %s", name)
	return ""
}

// A datadogWidget is what of a widget of Datadog's file is asked here.
type datadogWidget struct {
	Definition struct {
		Title    string
		Widgets  []datadogWidget
		Requests []struct {
			Queries []struct{ Query string }
		}
	}
}

func datadogQueries(t *testing.T) (out []boardQuery) {
	t.Helper()
	var b struct{ Widgets []datadogWidget }
	readBoard(t, "datadog", &b)
	own := catalogue.Own()
	var add func([]datadogWidget)
	add = func(widgets []datadogWidget) {
		for _, w := range widgets {
			add(w.Definition.Widgets)
			for _, r := range w.Definition.Requests {
				for _, q := range r.Queries {
					asked, err := fromDatadog(q.Query, own)
					if err != nil {
						t.Errorf("datadog: panel %s: %v", w.Definition.Title, err)
						continue
					}
					out = append(out, boardQuery{"datadog", w.Definition.Title, q.Query, asked})
				}
			}
		}
	}
	add(b.Widgets)
	return out
}

// datadogForm is a metric query: aggregate, metric, scope, tags, function. Read-only.
var datadogForm = regexp.MustCompile(`^(sum|min|max|p[0-9.]+):([a-z0-9_.]+)\{([^}]*)\}(?: by \{([^}]*)\})?(\.as_rate\(\))?$`)

// fromDatadog asks in Prometheus' language what a query asks in Datadog's. What
// DogStatsD adds to each series, Prometheus' scrapes do too, or not at all.
func fromDatadog(query string, own catalogue.Catalogue) (string, error) {
	parts := datadogForm.FindStringSubmatch(query)
	if parts == nil {
		return "", fmt.Errorf("query %s: got another form, want %s", query, datadogForm)
	}
	aggregate, name, scope, by, rate := parts[1], parts[2], parts[3], parts[4], parts[5] != ""
	i := slices.IndexFunc(own, func(d metrics.Desc) bool {
		return name == d.Datadog && d.Type != metrics.CounterType || name == d.Datadog+".count" && d.Type == metrics.CounterType
	})
	if i < 0 {
		return "", fmt.Errorf("query %s: got the metric %s, which the agent does not send", query, name)
	}
	d := own[i]
	_, percentile := strings.CutPrefix(aggregate, "p")
	if rate != (d.Type == metrics.CounterType) || percentile != (d.Type == metrics.HistogramType) {
		return "", fmt.Errorf("query %s: got a %s, want rates of counters and percentiles of histograms alone", query, d.Type)
	}
	labels := map[string]string{"host": "instance", "service": "job"} // of each series
	for _, tag := range d.Tags {
		labels[tag] = tag
	}
	var match, group []string
	for part := range strings.SplitSeq(scope, ",") {
		if slices.Contains([]string{"$env", "$service", "$host", "$pipeline"}, part) {
			continue
		}
		tag, value, _ := strings.Cut(strings.TrimPrefix(part, "!"), ":")
		if labels[tag] == "" {
			return "", fmt.Errorf("query %s: got the tag %s, want one of %q", query, tag, d.Tags)
		}
		op := "="
		if strings.HasPrefix(part, "!") {
			op = "!="
		}
		match = append(match, labels[tag]+op+strconv.Quote(value))
	}
	for tag := range strings.SplitSeq(by, ",") {
		switch {
		case tag == "":
		case labels[tag] == "":
			return "", fmt.Errorf("query %s: got the tag %s, want one of %q", query, tag, d.Tags)
		default:
			group = append(group, labels[tag])
		}
	}
	series := "{" + strings.Join(match, ",") + "}"
	grouped := strings.Join(group, ",")
	switch {
	case percentile:
		p, err := strconv.ParseFloat(aggregate[1:], 64)
		if err != nil {
			return "", fmt.Errorf("query %s: %w", query, err)
		}
		return fmt.Sprintf("histogram_quantile(%v, sum by (%s) (rate(%s_bucket%s[30s])))", p/100, strings.Join(append(group, "le"), ","), d.Name, series), nil
	case rate:
		return fmt.Sprintf("%s by (%s) (rate(%s%s[30s]))", aggregate, grouped, d.Name, series), nil
	}
	return fmt.Sprintf("%s by (%s) (%s%s)", aggregate, grouped, d.Name, series), nil
}

// boardMetrics is where a demo says that its agent's metrics are. Read-only.
var boardMetrics = regexp.MustCompile(`(?m)^metrics +curl -s http://(\S+)/metrics$`)

// boardScene runs outrider demo, whose receiver refuses changes for a while, so that
// some are tried again, and Prometheus.
func boardScene(t *testing.T) *boardProm {
	t.Helper()
	prometheus := need(t, "alerts/usr/bin/prometheus")
	dir := t.TempDir()
	outrider := filepath.Join(dir, "outrider")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", outrider, "../../cmd/outrider")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build outrider: %v\n%s", err, out)
	}
	boardWrite(t, dir, "faults", boardFaults)
	t.Setenv("TMPDIR", dir) // it is killed, and leaves its folder
	demo := boardStart(t, dir, outrider, "demo", "--receiver-down", "3s..5s", "--faults", "faults", "--rate", "50", "--workloads", "100", "--seed", "1")
	var public string
	boardWait(t, "the demo to say where its agent's metrics are", func() bool {
		if said := boardMetrics.FindStringSubmatch(demo.text()); said != nil {
			public = said[1]
		}
		return public != ""
	})
	boardWait(t, "the agent to be ready", func() bool { _, err := boardGet(t, "http://"+public+"/readyz"); return err == nil })

	boardWrite(t, dir, "prometheus.yml", fmt.Sprintf(boardScrapes, public))
	p := &boardProm{url: "http://" + boardAddress(t)}
	boardStart(t, dir, prometheus, "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", "--web.listen-address="+strings.TrimPrefix(p.url, "http://"))
	boardWait(t, "Prometheus to be ready", func() bool { _, err := boardGet(t, p.url+"/-/ready"); return err == nil })
	return p
}

// A boardProm is a Prometheus.
type boardProm struct{ url string }

// finds reports whether a query gives a number.
func (p *boardProm) finds(t *testing.T, query string) bool {
	t.Helper()
	body, err := boardGet(t, p.url+"/api/v1/query?"+url.Values{"query": {query}}.Encode())
	if err != nil {
		t.Fatalf("query %s: %v", query, err)
	}
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("query %s: %v", query, err)
	}
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
			return true
		}
	}
	return false
}

// hasLabel reports whether series have a value of a label.
func (p *boardProm) hasLabel(t *testing.T, label, series string) bool {
	t.Helper()
	body, err := boardGet(t, p.url+"/api/v1/label/"+label+"/values?"+url.Values{"match[]": {series}}.Encode())
	if err != nil {
		t.Fatalf("values of %s of %s: %v", label, series, err)
	}
	var answer struct{ Data []string }
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	return len(answer.Data) > 0
}

func boardWrite(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// boardStart runs a command until the test ends, and returns what it prints.
func boardStart(t *testing.T, dir, command string, args ...string) *boardOutput {
	t.Helper()
	c, said := exec.Command(command, args...), &boardOutput{}
	c.Dir, c.Stdout, c.Stderr = dir, said, said
	c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "DD_") }) // would add tags
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}                                    // also if the tests are killed
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill() // it may have ended
		err := c.Wait()
		if t.Failed() {
			t.Logf("%s %s ended with %v, and printed last:\n%s", filepath.Base(command), args[0], err, said.last())
		}
	})
	return said
}

// A boardOutput is what a command prints.
type boardOutput struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *boardOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *boardOutput) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (o *boardOutput) last() string {
	lines := slices.Collect(strings.Lines(o.text()))
	return strings.Join(lines[max(0, len(lines)-20):], "")
}

func boardAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// boardGet reads a page that must answer 200.
func boardGet(t *testing.T, address string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d, want 200: %s", resp.StatusCode, body)
	}
	return body, err
}

func boardWait(t *testing.T, what string, done func() bool) {
	t.Helper()
	if !boardBecomes(t, time.Minute, done) {
		t.Fatalf("waited a minute for %s", what)
	}
}

func boardBecomes(t *testing.T, limit time.Duration, done func() bool) bool {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func TestDatadogQueriesInPrometheusWords(t *testing.T) {
	own := catalogue.Own()
	for query, want := range map[string]string{
		"sum:outrider.pipeline.in.count{$env,$service,$host,$pipeline} by {service,pipeline}.as_rate()": `sum by (service,pipeline) (rate(outrider_pipeline_in_total{}[30s]))`,
		"p99:outrider.change.stage{$env,$service,$host,stage:whole} by {sink}":                          `histogram_quantile(0.99, sum by (sink,le) (rate(outrider_change_stage_seconds_bucket{stage="whole"}[30s])))`,
		"max:outrider.check.status{$env,$service,$host} by {check,host}":                                `max by (check,instance) (outrider_check_status{})`,
		"sum:outrider.host.cpu.count{$env,$service,$host,!mode:idle} by {mode}.as_rate()":               `sum by (mode) (rate(outrider_host_cpu_seconds_total{mode!="idle"}[30s]))`,
	} {
		if got, err := fromDatadog(query, own); err != nil || got != want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", query, got, err, want)
		}
	}
	wrong := map[string]string{
		"sum:outrider.pipeline.in{$env}.as_rate()":               "which the agent does not send", // without .count
		"sum:outrider.pipeline.in.count{$env}":                   "want rates of counters",
		"avg:outrider.check.status{$env}":                        "another form",
		"max:outrider.check.status{$env} by {colour}":            "the tag colour",
		"max:outrider.check.status{$env,colour:red}":             "the tag colour",
		"sum:outrider.change.stage{$env} by {stage}":             "percentiles of histograms",
		"p99:outrider.check.status{$env}":                        "percentiles of histograms",
		"max:outrider.nothing{$env,$service,$host}":              "which the agent does not send",
		"max:outrider.check.status{$env} by {check}.rollup(max)": "another form",
		"max:outrider.check.status{$env},max:outrider.x{$env}":   "another form",
	}
	for _, query := range slices.Sorted(maps.Keys(wrong)) {
		if got, err := fromDatadog(query, own); err == nil || !strings.Contains(err.Error(), wrong[query]) {
			t.Errorf("%s: got %s, %v, want an error: %s", query, got, err, wrong[query])
		}
	}
}
