package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	demoBudget   = 2 * time.Second // from the start to changes, and from Ctrl-C to the end
	demoPatience = 10 * demoBudget // what a test holds it to, beside others on two cores
)

// TestMakeRun does what a newcomer does, with nothing but Go: make run, a look
// at all that it says can be looked at, and Ctrl-C.
func TestMakeRun(t *testing.T) {
	needCluster(t)
	t.Run("needs no compiler but Go", func(t *testing.T) {
		out, err := exec.Command("make", "-n", "-C", "..", "run").Output()
		if err != nil {
			t.Fatal(err)
		}
		steps := string(out)
		if !strings.Contains(steps, "CGO_ENABLED=0 go build ") || !strings.Contains(steps, "\nbin/outrider demo\n") {
			t.Errorf("make run does %s\nwant CGO_ENABLED=0 go build, and bin/outrider demo", steps)
		}
		// Of the standard library alone: it has the same in Go.
		list := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{with .CgoFiles}}{{.}}{{end}}{{end}}", "../cmd/outrider")
		list.Env = append(os.Environ(), "CGO_ENABLED=1")
		if out, err = list.Output(); err != nil || len(bytes.TrimSpace(out)) > 0 {
			t.Errorf("packages that need a C compiler: %s, %v", bytes.TrimSpace(out), err)
		}
	})
	t.Run("shows changes until Ctrl-C", makeRunUntilCtrlC)
	t.Run("ends with a line of JSON", makeRunJSON)
}

func makeRunUntilCtrlC(t *testing.T) {
	d := startDemo(t)
	told := d.wait(`(?m)^0:00: the agent has told ([0-9]+) changes of what was there`)
	if n, err := strconv.Atoi(told[1]); err != nil || n < 1000 {
		t.Errorf("%s changes were told of 1000 workloads", told[1])
	}
	t.Logf("changes were told %s after the start, want %s", time.Since(d.began).Round(time.Millisecond), demoBudget)

	for what, want := range map[string]string{
		`(?m)^digest +curl -s '(http://\S+)'$`:   "sink/platform ",
		`(?m)^metrics +curl -s (http://\S+)$`:    "\noutrider_pipeline_in_total{",
		`(?m)^pprof +(http://\S+)$`:              "goroutine",
		`(?m)^ +webhook: {url: "(http://[^"]+)"`: "want POST",
	} {
		if status, body := get(d.wait(what)[1]); status == 0 || status >= 500 || !strings.Contains(body, want) {
			t.Errorf("%s: status %d, %.200q, want %q", d.wait(what)[0], status, body, want)
		}
	}
	at := d.wait(`(?m)^status text +nc (\S+) (\d+)$`)
	if text := textAt(t, net.JoinHostPort(at[1], at[2])); !strings.Contains(text, "demo") {
		t.Errorf("status text: %.200q, want the service's name", text)
	}
	config, err := clientcmd.BuildConfigFromFlags("", d.wait(`(?m)^cluster +export KUBECONFIG=(\S+)$`)[1])
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{Limit: 5})
	if err != nil || len(pods.Items) != 5 {
		t.Errorf("the cluster's pods: %v, want 5 of them", err)
	}

	// Time, offered, in, delivered, and hardly anything that waits.
	d.wait(`(?m)^ +0:(?:0[2-9]|[1-5][0-9]) +[1-9][0-9]* +[1-9][0-9]* +[1-9][0-9]* +[0-9]{1,2} +\d+ +0 `)
	d.interrupt()
	d.wait(`(?m)^ +lost +0; balance 0$`)
}

func makeRunJSON(t *testing.T) {
	d := startDemo(t, "--for", "3s", "--json")
	select {
	case <-d.ended:
	case <-time.After(time.Minute + demoPatience): // --drain
		t.Fatal("it has not ended")
	}
	d.whole()
	if n := strings.Count(d.out.String(), "\n"); n != 1 {
		t.Fatalf("%d lines, want 1: %s", n, d.out.String())
	}
	var result map[string]any
	if err := json.Unmarshal([]byte(d.out.String()), &result); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"captured", "acknowledged", "p50_ms", "p99_ms", "agent_rss_bytes", "agent_cpu_seconds", "offered_rate", "achieved_rate"} {
		if n, ok := result[key].(float64); !ok || n <= 0 {
			t.Errorf("%s: %v, want a number", key, result[key])
		}
	}
	for _, key := range []string{"lost", "gaps", "balance"} {
		if n, ok := result[key].(float64); !ok || n != 0 {
			t.Errorf("%s: %v, want 0", key, result[key])
		}
	}
	if n, ok := result["duplicates"].(float64); !ok || n < 0 {
		t.Errorf("duplicates: %v, want a number", result["duplicates"])
	}
}

// A demoRun is the demo on a machine on which nothing is installed.
type demoRun struct {
	t     *testing.T
	cmd   *exec.Cmd
	dir   string // of its temporary files
	began time.Time
	ended chan struct{} // closed once it has ended, and all is read
	err   error         // with which it ended
	out   said
	both  said // what it says, and its errors
}

// said is what was written, for several to write and read.
type said struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *said) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(text)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func startDemo(t *testing.T, args ...string) *demoRun {
	t.Helper()
	d := &demoRun{t: t, dir: t.TempDir(), ended: make(chan struct{})}
	d.cmd = exec.Command(env.outrider, append([]string{"demo"}, args...)...)
	d.cmd.Env = []string{"TMPDIR=" + d.dir, "PATH=/nowhere", "HOME=/nowhere"}
	d.cmd.Stdout, d.cmd.Stderr = io.MultiWriter(&d.out, &d.both), &d.both
	d.began = time.Now()
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.ended)
		d.err = d.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.ended
		if t.Failed() {
			t.Log(d.both.String())
		}
	})
	return d
}

// wait waits until it has said what a pattern matches.
func (d *demoRun) wait(pattern string) (match []string) {
	d.t.Helper()
	want := regexp.MustCompile(pattern)
	waitFor(d.t, demoPatience, pattern, func() bool {
		match = want.FindStringSubmatch(d.both.String())
		return match != nil
	})
	return match
}

// interrupt does what Ctrl-C does.
func (d *demoRun) interrupt() {
	d.t.Helper()
	began := time.Now()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		d.t.Fatal(err)
	}
	select {
	case <-d.ended:
		d.t.Logf("it stopped %s after Ctrl-C, want %s", time.Since(began).Round(time.Millisecond), demoBudget)
	case <-time.After(demoPatience):
		d.t.Fatalf("it has not ended %s after Ctrl-C", demoPatience)
	}
	d.whole()
}

// whole checks that it ended well, and left nothing.
func (d *demoRun) whole() {
	d.t.Helper()
	if d.err != nil {
		d.t.Errorf("it ended with %v, want exit code 0", d.err)
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil || len(entries) > 0 {
		d.t.Errorf("it left %v in its temporary folder, %v, want nothing", entries, err)
	}
}

// textAt is what nc shows.
func textAt(t *testing.T, address string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, demoPatience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(demoPatience)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
