package series

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	outrider "github.com/outrider-agent/outrider/agent"
	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/collectors"
	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/exporters/datadog"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// An assembled is an agent in the test's own process, put together as the command
// does it: only so is it known under which names its metrics are described.
type assembled struct {
	t     *testing.T
	reg   *metrics.Registry
	page  string // where /metrics is
	feeds []exporters.Feed
	shop  collectors.Source
}

// assemble runs an agent beside the shop, which sends what it has to a socket.
func assemble(t *testing.T, beside *shop, statsd, socket string) *assembled {
	t.Helper()
	var conf struct {
		neighbours []collectors.Neighbour
		items      []collectors.Item
		pipelines  []collectors.Pipeline
	}
	_, err := config.Parse("outrider.yaml", fmt.Appendf(nil, agentConfig, "127.0.0.1:0", beside.url, statsd), t.TempDir(), config.Options{
		Sections: map[string]any{
			"tags": new(map[string]string), "neighbours": &conf.neighbours, "collectors": &conf.items, "pipelines": &conf.pipelines,
		},
		Kinds: map[string]config.Kinds{"collectors": collectors.Kinds()},
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &assembled{t: t, reg: metricstest.Registry(t)}
	set, err := collectors.New(collectors.Options{
		Config:   collectors.Config{Items: conf.items, Neighbours: conf.neighbours, Pipelines: conf.pipelines},
		Registry: a.reg, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	a.feeds = []exporters.Feed{{Source: instruments{a.reg}, FromZero: true}}
	for _, src := range set.Sources() {
		a.feeds = append(a.feeds, exporters.Feed{Source: src, FromZero: src.FromZero})
		if src.Neighbour {
			a.shop = src
		}
	}
	push, err := exporters.NewSet(exporters.SetOptions{
		SetConfig: exporters.SetConfig{Items: []exporters.Config{{
			Item:  config.Item{Name: "dd", Kind: "datadog", Config: &datadog.Config{Address: "unix://" + socket}},
			Every: time.Second,
		}}},
		Registry: a.reg, Feeds: func() []exporters.Feed { return a.feeds }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	agent, err := outrider.New(outrider.Options{Service: "e2e", Registry: a.reg, Components: []outrider.Component{set, push}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, agent.Run)
	mux := http.NewServeMux()
	mux.Handle("/metrics", exporters.PrometheusHandler(a.reg))
	mux.Handle("/metrics/neighbour/shop", exporters.PrometheusOptions{}.Neighbour("shop", a.shop))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	a.page = server.URL + "/metrics"
	return a
}

// instruments are what the agent counts of its own work.
type instruments struct{ reg *metrics.Registry }

func (i instruments) Gather() []metrics.Family { return i.reg.Instruments() }

// fromZero are the names in Datadog of what is sent from 0 on.
func (a *assembled) fromZero() map[string]bool {
	out := map[string]bool{}
	for _, feed := range a.feeds {
		for _, f := range feed.Source.Gather() {
			if feed.FromZero {
				out[strings.TrimSuffix(f.Desc.Datadog, ".count")] = true
			}
		}
	}
	return out
}

// run runs a component until the test ends.
func run(t *testing.T, component func(context.Context) error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- component(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// mapping is the configuration of the check that the descriptions make: each
// metric's name without _total, and its name in Datadog without .count, which the
// check adds itself.
func mapping(fams []metrics.Family) map[string]string {
	out := map[string]string{}
	for _, f := range fams {
		if f.Desc.Type == metrics.CounterType {
			out[strings.TrimSuffix(f.Desc.Name, "_total")] = strings.TrimSuffix(f.Desc.Datadog, ".count")
		} else {
			out[f.Desc.Name] = f.Desc.Datadog
		}
	}
	return out
}

// A figure is one series as Datadog gets it.
type figure struct{ kind, name, tags string }

// submits runs the check on a page.
func submits(t *testing.T, url string, metrics map[string]string, more map[string]any) map[figure]float64 {
	t.Helper()
	instance := map[string]any{
		"openmetrics_endpoint": url, "metrics": []any{metrics}, "histogram_buckets_as_distributions": true, "tag_by_endpoint": false,
	}
	maps.Copy(instance, more)
	input, err := json.Marshal(instance)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), filepath.Join(need(t, "venv"), "bin", "python"), "testdata/openmetrics.py")
	// Integrations that Datadog ships must not have a tag such as service, whose
	// meaning Datadog knows. Ours means just that.
	c.Env = append(os.Environ(), "DDEV_SKIP_GENERIC_TAGS_CHECK=1", "NO_PROXY=127.0.0.1")
	var problems strings.Builder
	c.Stdin, c.Stderr = bytes.NewReader(input), &problems
	output, err := c.Output()
	if err != nil {
		t.Fatalf("the check of %s: %v: %s", url, err, problems.String())
	}
	var rows [][4]any
	if err := json.Unmarshal(output, &rows); err != nil {
		t.Fatalf("the check of %s: %v: %.200s", url, err, output)
	}
	out := map[figure]float64{}
	for _, row := range rows {
		var tags []string
		list, _ := row[3].([]any)
		for _, tag := range list {
			tags = append(tags, fmt.Sprint(tag))
		}
		value, _ := row[2].(float64)
		out[figure{fmt.Sprint(row[0]), fmt.Sprint(row[1]), strings.Join(tags, ",")}] += value
	}
	return out
}

// A listener takes DogStatsD's lines from a socket and adds them up.
type listener struct {
	t    *testing.T
	path string

	mu  sync.Mutex
	got map[figure]float64
}

func listen(t *testing.T) *listener {
	t.Helper()
	l := &listener{t: t, path: filepath.Join(t.TempDir(), "dsd.socket"), got: map[figure]float64{}}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: l.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for packet := make([]byte, 65536); ; {
			n, err := conn.Read(packet)
			if err != nil {
				return
			}
			for line := range strings.Lines(string(packet[:n])) {
				l.take(strings.TrimSpace(line))
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return l
}

// take adds one line: name:value|type, and perhaps |@rate and |#tags.
func (l *listener) take(line string) {
	fields := strings.Split(line, "|")
	name, text, _ := strings.Cut(fields[0], ":")
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || len(fields) < 2 {
		l.t.Errorf("line %q: want name:value|type", line)
		return
	}
	f, times := figure{name: name}, 1.0
	for _, field := range fields[2:] {
		if rest, found := strings.CutPrefix(field, "#"); found {
			tags := strings.Split(rest, ",")
			slices.Sort(tags)
			f.tags = strings.Join(tags, ",")
		} else if rate, err := strconv.ParseFloat(field[1:], 64); field[0] == '@' && err == nil {
			times = math.Trunc(1 / rate)
		} else {
			l.t.Errorf("line %q: what is %q?", line, field)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch fields[1] {
	case "c":
		f.kind = "counter"
		l.got[f] += value
	case "g":
		f.kind = "gauge"
		l.got[f] = value
	case "d":
		f.kind = "histogram"
		l.got[f] += times
	default:
		l.t.Errorf("line %q: type %q", line, fields[1])
	}
}

func (l *listener) sums() map[figure]float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.got)
}

// exported waits until something was read after now, and sent.
func (l *listener) exported(a *assembled) {
	l.t.Helper()
	out := func() (n int64) {
		for _, p := range a.reg.Pipelines() {
			if p.Name == "export" && p.Queued == 0 {
				return p.Out
			}
		}
		return 0
	}
	before := out()
	waitFor(l.t, patience, "an export", func() bool { return out() > before })
	before = out()
	waitFor(l.t, patience, "one more", func() bool { return out() > before })
}

func TestDatadogsCheckSubmitsTheNamesOfDogStatsD(t *testing.T) {
	t.Parallel()
	need(t, "venv")
	l, beside, statsd := listen(t), openShop(t), freeAddress(t, "udp")
	a := assemble(t, beside, statsd, l.path)
	conn, err := net.Dial("udp", statsd)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	waitFor(t, patience, "the neighbour's series", func() bool { return len(a.shop.Gather()) > 0 })
	l.exported(a)
	beside.trade(500)
	for range 10 {
		if _, err := conn.Write([]byte("web.hits:1|c|#route:/order\nweb.users:4.5|g\nweb.took:12|ms|#route:/order\nweb.size:80|d")); err != nil {
			t.Fatal(err)
		}
	}
	l.exported(a)

	for path, gather := range map[string]func() []metrics.Family{"": a.reg.Gather, "/neighbour/shop": a.shop.Gather} {
		fams, before := gather(), l.sums()
		got := submits(t, a.page+path, mapping(fams), nil)
		l.exported(a)
		compareFigures(t, fams, got, before, l.sums(), a.fromZero())
	}
}

// compareFigures wants the check to submit what DogStatsD got: each metric under
// the same name and of the same kind. Where counters began at 0 their values are
// between those before and after the check.
func compareFigures(t *testing.T, fams []metrics.Family, check, before, after map[figure]float64, zero map[string]bool) {
	t.Helper()
	described := map[string]metrics.Type{} // by the name in Datadog without .count
	for _, f := range fams {
		described[strings.TrimSuffix(f.Desc.Datadog, ".count")] = f.Desc.Type
	}
	kinds := func(figures map[figure]float64) map[string]string {
		out := map[string]string{}
		for f := range figures {
			if _, ours := described[strings.TrimSuffix(f.name, ".count")]; ours {
				out[f.name] = f.kind
			}
		}
		return out
	}
	got, want := kinds(check), kinds(after)
	same := 0
	for name, kind := range got {
		switch sent := want[name]; {
		case sent == kind:
			same++
		case sent == "" && kind == "histogram": // of which nothing came meanwhile
		default:
			t.Errorf("%s: submitted as a %s, but DogStatsD got a %q", name, kind, sent)
		}
	}
	for name, kind := range want {
		if got[name] == "" {
			t.Errorf("%s: DogStatsD got a %s, the check submits nothing of that name", name, kind)
		}
	}
	compared := 0
	for f, v := range check {
		least, most := before[f], after[f]
		if _, sent := after[f]; !sent || f.kind == "gauge" || !zero[strings.TrimSuffix(f.name, ".count")] {
			continue
		}
		compared++
		if slack := 1e-9 * math.Abs(v); v < least-slack || v > most+slack {
			t.Errorf("%v: the check submits %v, DogStatsD got %v to %v", f, v, least, most)
		}
	}
	if same == 0 {
		t.Error("no name is the same")
	}
	t.Logf("%d names are the same, of %d described; %d values compared", same, len(fams), compared)
}

// TestOpenMetricsForDatadogsCheck has the check ask for OpenMetrics, which its
// parser takes strictly.
func TestOpenMetricsForDatadogsCheck(t *testing.T) {
	t.Parallel()
	need(t, "venv")
	a := startAgent(t, "")
	feed(a)
	a.shows()
	strict := map[string]any{"use_latest_spec": true}
	if got := submits(t, a.url+"/metrics", map[string]string{"web_hits": "web.hits"}, strict); len(got) != 1 {
		t.Errorf("the check submits %v, want web.hits", got)
	}
	if got := submits(t, a.url+"/metrics/neighbour/shop", map[string]string{"shop_orders_done": "shop.done"}, strict); len(got) != 1 {
		t.Errorf("the check submits %v, want shop.done", got)
	}
}
