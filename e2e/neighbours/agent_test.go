package neighbours

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// freePort is one that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// output is what a process says. It may be read while that runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs a command in a process group of its own until the test ends. What it
// said is shown when the test fails.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	said := &output{}
	cmd.Stderr = said
	if cmd.Stdout == nil {
		cmd.Stdout = said
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // gone already: nothing to do
		_ = cmd.Wait()                                      // killed: that is its error
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(cmd.Path), said)
		}
	})
}

// debian is a command of Debian's packages, of which only those of this folder are
// seen by Python.
func debian(name string, args ...string) *exec.Cmd {
	path := filepath.Join(env.system, "usr", "bin", name)
	if _, err := os.Stat(path); err != nil {
		path = filepath.Join("/usr/bin", name) // it is installed, and was not fetched
	}
	cmd := exec.Command(path, args...)
	libs, _ := filepath.Glob(filepath.Join(env.system, "usr", "lib", "*-linux-gnu*")) // the pattern is good
	cmd.Env = append(withoutPython(), "LD_LIBRARY_PATH="+strings.Join(libs, ":"),
		"PYTHONPATH="+filepath.Join(env.system, "usr", "lib", "python3", "dist-packages")+":testdata")
	return cmd
}

func withoutPython() (out []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PYTHON") && !strings.HasPrefix(v, "VIRTUAL_ENV=") {
			out = append(out, v)
		}
	}
	return append(out, "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1")
}

// An agent is the command at work.
type agent struct{ public string }

// startAgent runs it with a configuration to which its addresses are added.
func startAgent(t *testing.T, config string) *agent {
	t.Helper()
	a := &agent{public: "127.0.0.1:" + freePort(t)}
	file := filepath.Join(t.TempDir(), "outrider.yaml")
	config += fmt.Sprintf("service: shop\ndata_dir: \"\"\nlisten: {public: %q, debug: \"127.0.0.1:0\", status: \"127.0.0.1:0\"}\n", a.public)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, exec.Command(env.outrider, "run", "--config", file))
	return a
}

// pipeline is what the agent shows of one: each term, and for retries and drops
// what is kept apart, such as drops_total/full.
type pipeline map[string]float64

// shown reads the pipelines of a neighbour, by name and target.
func (a *agent) shown(t *testing.T) map[string]pipeline {
	t.Helper()
	resp, err := http.Get("http://" + a.public + "/metrics")
	if err != nil {
		return nil // it is not up yet
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, want 200 (%v)", resp.StatusCode, err)
	}
	return parsePipelines(t, string(text))
}

// Read-only.
var (
	pipelineLine = regexp.MustCompile(`(?m)^outrider_pipeline_([a-z_]+)\{(.*)\} (\S+)$`)
	label        = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)
)

func parsePipelines(t *testing.T, text string) map[string]pipeline {
	t.Helper()
	out := map[string]pipeline{}
	for _, line := range pipelineLine.FindAllStringSubmatch(text, -1) {
		labels := map[string]string{}
		for _, l := range label.FindAllStringSubmatch(line[2], -1) {
			labels[l[1]] = l[2]
		}
		if labels["service"] == "" {
			continue // the agent's own
		}
		id := strings.TrimSuffix(labels["pipeline"]+"/"+labels["target"], "/")
		if out[id] == nil {
			out[id] = pipeline{}
		}
		v, err := strconv.ParseFloat(line[3], 64)
		if err != nil {
			t.Fatalf("value of %s: %v", line[0], err)
		}
		out[id][strings.TrimSuffix(line[1]+"/"+labels["cause"]+labels["reason"], "/")] = v
	}
	return out
}

// wantShown waits until the agent shows of each pipeline what is wanted; what is
// not wanted may be as it likes.
func (a *agent) wantShown(t *testing.T, when string, want map[string]pipeline) {
	t.Helper()
	var wrong string
	eventually(t, 30*time.Second, func() bool {
		wrong = differences(a.shown(t), want)
		return wrong == ""
	}, func() string { return when + ":" + wrong })
}

func differences(got, want map[string]pipeline) (out string) {
	for id, terms := range want {
		for term, v := range terms {
			if g, ok := got[id][term]; !ok || g != v {
				out += fmt.Sprintf("\n  %s %s: got %v (shown: %t), want %v", id, term, g, ok, v)
			}
		}
	}
	return out
}

func eventually(t *testing.T, within time.Duration, done func() bool, otherwise func() string) {
	t.Helper()
	for end := time.Now().Add(within); !done(); {
		if time.Now().After(end) {
			t.Fatal(otherwise())
		}
		time.Sleep(50 * time.Millisecond) // sleep: other programs are at work
	}
}
