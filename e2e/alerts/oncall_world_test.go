package alerts

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/e2e/nagios"
)

// oncallAgent has two sinks and a neighbour with two pipelines: what breaks, and what
// stays well beside it.
const oncallAgent = `service: oncall
data_dir: ./data
listen: {public: "%[1]s", debug: "%[2]s", status: "%[3]s"}
log: {level: warn}
alerts: {rules: [fast.yaml], every: 1s}
neighbours:
  - {name: shop, metrics: "%[4]s/shop", every: 1s}
pipelines:
  - name: orders
    neighbour: shop
    in: {series: shop_orders_received_total}
    out: {series: shop_orders_done_total}
    drops: {series: shop_orders_dropped_total, by: reason}
  - name: refunds
    neighbour: shop
    in: {series: shop_refunds_received_total}
    out: {series: shop_refunds_done_total}
    drops: {series: shop_refunds_dropped_total, by: reason}
statesync:
  kubeconfig: %[5]s
  kinds: [Pod, Job]
  sinks:
    - {name: platform, webhook: {url: "%[4]s/platform"}}
    - {name: archive, webhook: {url: "%[4]s/archive"}}
`

// oncallNumbers are rules that ship with numbers that a test can wait for. What waited
// for a broken sink is late, so delivery-latency would go on for minutes after it: a
// test has too few changes for that. Read-only.
var oncallNumbers = map[string]map[string]any{
	"sink-failing":     {"warn": "1", "crit": "3"},
	"pipeline-drops":   {"rate": "5s"},
	"delivery-latency": {"share": map[string]any{"all": "outrider_sink_acknowledged_total", "window": "1h", "short": "5m", "least": 1000000}},
}

const oncallScrapes = `global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [alerts/prometheus/outrider.rules.yaml]
scrape_configs:
  - {job_name: outrider, static_configs: [{targets: ["%s"]}]}
`

// oncallHost is the agent's host in Nagios.
const oncallHost = "app1"

// An oncallWorld is a live agent with what is around it.
type oncallWorld struct {
	dir, outrider         string // a folder with all files, and the program
	public, debug, status string // addresses of the agent
	beside                *oncallBeside
}

// oncallScene runs a cluster, what is beside the agent, and the agent, whose
// configuration is given as oncallAgent is.
func oncallScene(t *testing.T, agent string) *oncallWorld {
	t.Helper()
	dir := t.TempDir()
	w := &oncallWorld{dir: dir, outrider: builtOutrider(t), beside: &oncallBeside{}}
	boardStart(t, dir, w.outrider, "simulate", "--dir", dir, "--workloads", "50", "--rate", "20", "--seed", "1")
	kubeconfig := filepath.Join(dir, "kubeconfig")
	boardWait(t, "the simulated cluster's kubeconfig", func() bool { _, err := os.Stat(kubeconfig); return err == nil })

	server := httptest.NewServer(w.beside)
	t.Cleanup(server.Close)
	place(t, dir, "fast.yaml", fastRules(t))
	w.public, w.debug, w.status = boardAddress(t), boardAddress(t), boardAddress(t) // last: they are free until somebody listens
	boardWrite(t, dir, "outrider.yaml", fmt.Sprintf(agent, w.public, w.debug, w.status, server.URL, kubeconfig))
	boardStart(t, dir, w.outrider, "run", "-c", "outrider.yaml")
	boardWait(t, "the agent to be ready", func() bool { _, err := boardGet(t, "http://"+w.public+"/readyz"); return err == nil })
	return w
}

// fastRules is a file of rules that take the place of those that ship.
func fastRules(t *testing.T) []byte {
	t.Helper()
	var file struct {
		Runbooks string           `yaml:"runbooks"`
		Rules    []map[string]any `yaml:"rules"`
	}
	readYAML(t, "../../alerts/rules.yaml", &file)
	file.Rules = slices.DeleteFunc(file.Rules, func(r map[string]any) bool { return oncallNumbers[r["name"].(string)] == nil })
	if len(file.Rules) != len(oncallNumbers) {
		t.Fatalf("alerts/rules.yaml has %d of the rules that are made faster, want %d", len(file.Rules), len(oncallNumbers))
	}
	for _, r := range file.Rules {
		maps.Copy(r, oncallNumbers[r["name"].(string)])
		r["evidence"] = "as long as a test can wait"
	}
	data, err := yaml.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// prometheus runs Prometheus with the rules that were rendered for it.
func (w *oncallWorld) prometheus(t *testing.T) *boardProm {
	t.Helper()
	command := need(t, "alerts/usr/bin/prometheus")
	boardWrite(t, w.dir, "prometheus.yml", fmt.Sprintf(oncallScrapes, w.public))
	listen := boardAddress(t)
	p := &boardProm{url: "http://" + listen}
	boardStart(t, w.dir, command, "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", "--web.listen-address="+listen)
	boardWait(t, "Prometheus to be ready", func() bool { _, err := boardGet(t, p.url+"/-/ready"); return err == nil })
	boardWait(t, "Prometheus to have scraped the agent", func() bool { return p.finds(t, `up{job="outrider"} == 1`) })
	return p
}

// nagios runs Nagios with what deploy/nagios ships and the rules that were rendered for
// it, and returns how many services it has.
func (w *oncallWorld) nagios(t *testing.T) (n *nagios.Nagios, services int) {
	t.Helper()
	rules := readFile(t, filepath.Join(w.dir, "alerts/nagios/outrider-rules.cfg"))
	_, port, err := net.SplitHostPort(w.public)
	if err != nil {
		t.Fatal(err)
	}
	n = nagios.Start(t, nagios.Options{
		Command:  nagiosCommand(t),
		Interval: int(oncallPoll / time.Second),
		Plugins:  map[string]string{"check_digest": w.outrider},
		Files: map[string][]byte{
			"outrider.cfg":       shippedForNagios(t),
			"outrider-rules.cfg": rules,
		},
		Hosts: []nagios.Host{{Name: oncallHost, Port: port, Args: "null", More: "_OUTRIDER_WITHOUT alert/"}},
	})
	// And outrider-page, -email, -agent and -rules.
	return n, 4 + strings.Count(string(rules), "dependent_service_description  outrider-alert-")
}

// digest is the agent's verdict on one check, or on all without a name.
func (w *oncallWorld) digest(t *testing.T, check string) (d runner.Digest) {
	t.Helper()
	body, err := boardGet(t, "http://"+w.public+"/healthz?"+url.Values{"category": {"all"}, "check": {check}}.Encode())
	if len(body) == 0 { // while something fails it is an error with a body
		t.Fatalf("read the digest: %v", err)
	}
	if err := json.Unmarshal(body, &d); err != nil {
		t.Fatalf("read the digest: %v: %s", err, body)
	}
	return d
}

// runs runs a command of a runbook against the agent, and returns what it prints.
func (w *oncallWorld) runs(t *testing.T, command string) (string, error) {
	t.Helper()
	ports := make([]string, 3)
	for i, address := range []string{w.public, w.debug, w.status} {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = port
	}
	c := exec.CommandContext(t.Context(), "sh", "-c", strings.NewReplacer(
		"127.0.0.1:9610", w.public, "127.0.0.1:9611", w.debug, "127.0.0.1 9612", "127.0.0.1 "+ports[2],
		":961[012] ", ":("+strings.Join(ports, "|")+") ",
		"/etc/outrider/outrider.yaml", filepath.Join(w.dir, "outrider.yaml"),
	).Replace(command))
	c.Env = append(os.Environ(), "PATH="+filepath.Dir(w.outrider)+":"+w.dir+":"+os.Getenv("PATH"))
	out, err := c.CombinedOutput()
	return string(out), err
}

// lookFirst are the commands of a runbook.
func lookFirst(t *testing.T, path string) (commands []string) {
	t.Helper()
	_, part, _ := strings.Cut(string(readFile(t, path)), "\n## Look first\n")
	part, _, _ = strings.Cut(part, "\n## ")
	for i, block := range strings.Split(part, "```sh\n") {
		command, _, closed := strings.Cut(block, "```")
		if i > 0 && closed {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	if len(commands) != 3 {
		t.Fatalf("%s: got %d commands to look first, want 3", path, len(commands))
	}
	return commands
}

// A firingAlert is one of Prometheus.
type firingAlert struct {
	Labels, Annotations map[string]string
	State               string // pending or firing
	ActiveAt            time.Time
}

// firing are the alerts that fire.
func (p *boardProm) firing(t *testing.T) []firingAlert {
	t.Helper()
	body, err := boardGet(t, p.url+"/api/v1/alerts")
	if err != nil {
		t.Fatalf("read Prometheus' alerts: %v", err)
	}
	var answer struct {
		Data struct{ Alerts []firingAlert }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("read Prometheus' alerts: %v", err)
	}
	return slices.DeleteFunc(answer.Data.Alerts, func(a firingAlert) bool { return a.State != "firing" })
}

// An oncallBeside plays both receivers and the neighbour shop, which works off ten
// orders and ten refunds between two reads.
type oncallBeside struct {
	broken   atomic.Bool // platform takes nothing
	dropping atomic.Bool // the shop gives up orders as well

	mu           sync.Mutex
	done, gaveUp int // orders
}

// ServeHTTP implements [http.Handler].
func (b *oncallBeside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // what it says is asked elsewhere
	switch {
	case r.URL.Path == "/shop":
		b.shop(w)
	case r.URL.Path == "/refused": // each change as such
		w.WriteHeader(http.StatusBadRequest)
	case r.URL.Path == "/platform" && b.broken.Load(), strings.HasPrefix(r.URL.Path, "/broken"):
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// shop shows the neighbour's series. The reason is there once it gave up something.
func (b *oncallBeside) shop(w io.Writer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done += 10
	if b.dropping.Load() {
		b.gaveUp += 2
	}
	for _, c := range []struct {
		series string
		value  int
	}{
		{"shop_orders_received_total", b.done + b.gaveUp},
		{"shop_orders_done_total", b.done},
		{`shop_orders_dropped_total{reason="sold out"}`, b.gaveUp},
		{"shop_refunds_received_total", b.done},
		{"shop_refunds_done_total", b.done},
		{`shop_refunds_dropped_total{reason="sold out"}`, 0},
	} {
		name, tags, _ := strings.Cut(c.series, "{")
		fmt.Fprintf(w, "# TYPE %s counter\n", name)
		if tags == "" || c.value > 0 {
			fmt.Fprintf(w, "%s %d\n", c.series, c.value)
		}
	}
}
