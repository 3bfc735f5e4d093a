package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	pipelineLine = regexp.MustCompile(`^outrider_pipeline_(\w+?)(?:_total)?\{(.*)\} (\S+)$`) // read-only
	label        = regexp.MustCompile(`(\w+)="([^"]*)"`)                                     // read-only
)

// pipelines reads /metrics: the terms of each pipeline by pipeline/target.
// Retries and drops are added up over their causes.
func pipelines(t *testing.T) map[string]map[string]float64 {
	t.Helper()
	body := metrics(t)
	out := map[string]map[string]float64{}
	for line := range strings.Lines(body) {
		m := pipelineLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		labels := map[string]string{}
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			labels[l[1]] = l[2]
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		name := strings.TrimSuffix(labels["pipeline"]+"/"+labels["target"], "/")
		if out[name] == nil {
			out[name] = map[string]float64{}
		}
		out[name][m[1]] += v
	}
	return out
}

// total adds up the samples of a metric that have all of the labels, each
// given as name="value".
func total(body, name string, labels ...string) (sum float64) {
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		sample, value := line[:max(0, strings.LastIndexByte(line, ' '))], line[strings.LastIndexByte(line, ' ')+1:]
		base, _, _ := strings.Cut(sample, "{")
		if base != name || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(sample, l) }) {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			sum += v
		}
	}
	return sum
}

func TestWhatAUserSees(t *testing.T) {
	needCluster(t)
	ns, dir, _ := namespace(t, "seen"), workDir(t), startReceiver(t)
	a := startAgent(t, dir, configOf(ns))
	var l load
	l.run(t.Context(), t, ns, 20, 20)
	drained(t, ns, time.Minute)

	pipes := pipelines(t)
	for _, name := range []string{"watch/pods/seen", "watch/jobs/seen", "ledger", "delivery/platform", "delivery/archive"} {
		p, ok := pipes[name]
		if balance, known := p["balance"]; !ok || !known || balance != 0 {
			t.Errorf("pipeline %s: balance %v (known: %v), want 0", name, balance, known)
		}
	}
	if p := pipes["delivery/platform"]; p["in"] != 60 || p["out"] != 60 || p["drops"] != 0 {
		t.Errorf("delivery/platform: %v, want 60 in, 60 out, no drops", p)
	}
	metrics := metrics(t)
	for _, want := range []string{
		`outrider_change_stage_seconds_count{sink="platform",stage="whole"} 60`,
		`outrider_change_stage_seconds_count{sink="platform",stage="recorded_sent"} 60`,
		`outrider_change_stage_seconds_count{sink="platform",stage="sent_acknowledged"} 60`,
		`outrider_change_stage_seconds_count{stage="observed_recorded"} 60`,
		`outrider_workqueue_adds_total{queue="watch"}`, `outrider_workqueue_depth{queue="sink/platform"} 0`,
		`outrider_check_status{`, "go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}

	digest(t)
	for _, page := range []struct {
		url  string
		want int
	}{
		{"http://127.0.0.1:9610/livez", 200},
		{"http://127.0.0.1:9610/readyz", 200},
		{"http://127.0.0.1:9610/", 200},
		{"http://127.0.0.1:9611/debug/pprof/", 200},
		{"http://127.0.0.1:9611/debug/pprof/goroutine?debug=1", 200},
		{"http://127.0.0.1:9611/debug/pprof/profile?seconds=1", 200},
		{"http://127.0.0.1:9611/debug/vars", 200},
		{"http://127.0.0.1:9610/debug/pprof/", 404},
		{"http://127.0.0.1:9610/debug/vars", 404},
	} {
		if code, _ := get(page.url); code != page.want {
			t.Errorf("%s: status %d, want %d", page.url, code, page.want)
		}
	}
	text := statusText(t)
	t.Logf("the status text:\n%s", text)
	for _, want := range []string{"outrider", "go1.", "platform-sync", "watch", "pods/seen", "ledger", "delivery", "platform", "archive"} {
		if !strings.Contains(text, want) {
			t.Errorf("the status text has no %q", want)
		}
	}
	secondAgent(t, dir)
	a.stop()
}

// digest wants the digest to name streams, ledger and sinks, all well.
func digest(t *testing.T) {
	t.Helper()
	code, body := get("http://127.0.0.1:9610/healthz")
	var d struct{ Status string }
	if err := json.Unmarshal([]byte(body), &d); err != nil || code != 200 || d.Status != "pass" {
		t.Fatalf("/healthz: status %d, %v: %s", code, err, body)
	}
	found := checks(t)
	for _, want := range []string{"cluster", "stream/pods/seen", "stream/jobs/seen", "ledger", "sink/platform", "sink/archive"} {
		if found[want].Status != "pass" {
			t.Errorf("/healthz: %s is %q, want pass", want, found[want].Status)
		}
	}
}

// A verdict is what the digest says of one check. Message is its output.
type verdict struct {
	Status  string
	Message string `json:"output"`
}

// checks reads the digest, by the checks' names.
func checks(t *testing.T) map[string]verdict {
	t.Helper()
	_, body := get("http://127.0.0.1:9610/healthz")
	var d struct{ Checks map[string][]verdict }
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		t.Fatalf("/healthz: %v: %s", err, body)
	}
	out := map[string]verdict{}
	for name, c := range d.Checks {
		if len(c) != 1 {
			t.Fatalf("/healthz: check %s has %d verdicts, want 1: %s", name, len(c), body)
		}
		out[name] = c[0]
	}
	return out
}

// check reads one check of the digest.
func check(t *testing.T, name string) (status, message string) {
	t.Helper()
	c, ok := checks(t)[name]
	if !ok {
		t.Fatalf("/healthz has no check %s", name)
	}
	return c.Status, c.Message
}

func hasCheck(t *testing.T, name string) bool {
	t.Helper()
	_, ok := checks(t)[name]
	return ok
}

// statusText reads the status as `nc 127.0.0.1 9612` does.
func statusText(t *testing.T) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", "127.0.0.1:9612", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// secondAgent wants a second agent on the same data directory to say so and
// exit with 1.
func secondAgent(t *testing.T, dir string) {
	t.Helper()
	out, err := runOnce(dir, "run")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, "is in use by pid") {
		t.Errorf("second agent: %v: %s; want exit code 1 and who has the directory", err, out)
	}
}

func runOnce(dir string, args ...string) (output string, err error) {
	cmd := exec.Command(env.outrider, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestWrongConfigurations(t *testing.T) {
	needCluster(t)
	good := fmt.Sprintf(config, "load")
	for _, tt := range []struct{ name, config, want string }{
		{"an unknown field", strings.Replace(good, "  kinds:", "  kind:", 1), "outrider.yaml:7: statesync.kind: got "},
		{"a wrong type", strings.Replace(good, "kinds: [Pod, Job]", "kinds: 3", 1), "outrider.yaml:7: statesync.kinds: got "},
		{"a kind that does not exist", strings.Replace(good, "[Pod, Job]", "[Pod, Jobs]", 1), "outrider.yaml:7: statesync.kinds[1].kind: got Jobs, want one of DaemonSet, Deployment, Job, Pod"},
		{"a missing secret file", strings.Replace(good, "./hook.key", "./no.key", 1), "outrider.yaml:10: statesync.sinks[0].webhook.secret_file: got ./no.key: no such file, want "},
		{"two sinks on one file", good + "    - name: again\n      file: {path: ./x/../changes.ndjson}\n", "statesync.sinks[2]: got the file of sink archive again, want "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := workDir(t)
			if err := os.WriteFile(filepath.Join(dir, "outrider.yaml"), []byte(tt.config), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"run"}, {"config", "check"}} {
				out, err := runOnce(dir, args...)
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(out, tt.want) {
					t.Errorf("%v: %v: %s\nwant exit code 2 and %q", args, err, out, tt.want)
				}
			}
		})
	}
}

func TestABacklogOutlivesTheAgent(t *testing.T) {
	needCluster(t)
	s := newSession(t, "backlog")
	a := s.start(t, configOf(s.ns))
	s.hook.answers(503, 0)
	var l load
	l.run(t.Context(), t, s.ns, 60, 60)
	waitFor(t, time.Minute, "the file to have every end", func() bool {
		return pipelines(t)["delivery/archive"]["out"] == 180
	})
	a.stop()
	if n := len(s.hook.received()); n != 0 {
		t.Fatalf("%d changes acknowledged in the outage, want none", n)
	}
	s.hook.answers(0, 0)
	a = s.start(t, configOf(s.ns))
	drained(t, s.ns, time.Minute)
	if carried := pipelines(t)["delivery/platform"]["carried"]; carried != 180 {
		t.Errorf("%v changes carried over, want 180", carried)
	}
	a.stop()
	s.want = l.stories()
	fromTheWatch(t, s.outcome(t))
}
