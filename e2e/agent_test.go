package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// config is the configuration that the documentation promises to work as it
// stands, but for the namespaces and the place of the kubeconfig.
const config = `service: platform-sync
data_dir: ./outrider-data
listen: {public: 127.0.0.1:9610, debug: 127.0.0.1:9611, status: 127.0.0.1:9612}
statesync:
  kubeconfig: ./kubeconfig          # empty: in-cluster, then ~/.kube/config
  namespaces: [%s]                # empty: all
  kinds: [Pod, Job]
  sinks:
    - name: platform
      webhook: {url: "http://127.0.0.1:18080/changes", secret_file: ./hook.key}
    - name: archive
      file: {path: ./changes.ndjson}
`

// configOf is config for some namespaces, and with an audit every second: no
// test may see one that finds something, but for those that hide something.
func configOf(namespaces ...string) string {
	s := fmt.Sprintf(config, strings.Join(namespaces, ", "))
	return strings.Replace(s, "  sinks:", "  audit: 1s\n  sinks:", 1)
}

// with replaces what a configuration says, which it must say.
func with(t *testing.T, config, was, is string) string {
	t.Helper()
	if strings.Count(config, was) != 1 {
		t.Fatalf("the configuration has %d times %q, want once", strings.Count(config, was), was)
	}
	return strings.Replace(config, was, is, 1)
}

// withSink adds a webhook to a configuration; more are further keys of it, a
// line each.
func withSink(config, name, url string, more ...string) string {
	config += fmt.Sprintf("    - name: %s\n      webhook: {url: %q, secret_file: ./hook.key}\n", name, url)
	for _, line := range more {
		config += "      " + line + "\n"
	}
	return config
}

// workDir is a folder with what the configuration names.
func workDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hook.key"), []byte(hookKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(env.kubeconfig, filepath.Join(dir, "kubeconfig")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// An agent is one run of the command.
type agent struct {
	t           *testing.T
	cmd         *exec.Cmd
	corrections float64 // that the audit will have made when it is stopped

	mu  sync.Mutex
	log strings.Builder

	ended chan struct{} // closed when the process has ended
	err   error         // how; to be read once ended is closed
}

// Write collects what the agent logs.
func (a *agent) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.Write(b)
}

func (a *agent) logged() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.String()
}

// startAgent runs the command with the configuration in dir and waits until
// it is ready.
func startAgent(t *testing.T, dir, config string) *agent {
	t.Helper()
	a := launch(t, dir, config, "")
	a.ready()
	return a
}

// launch runs the command with the configuration in dir; with failpoints if
// some are named.
func launch(t *testing.T, dir, config, failpoints string) *agent {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "outrider.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, cmd: exec.Command(env.outrider, "run"), ended: make(chan struct{})}
	if failpoints != "" {
		a.cmd = exec.Command(env.failing, "run")
		a.cmd.Env = append(os.Environ(), "OUTRIDER_FAILPOINTS="+failpoints)
	}
	a.cmd.Dir, a.cmd.Stdout, a.cmd.Stderr = dir, a, a
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		a.err = a.cmd.Wait()
		close(a.ended)
	}()
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill() // it may have ended
		<-a.ended
		if t.Failed() {
			lines := slices.Collect(strings.Lines(a.logged()))
			t.Logf("the agent with pid %d logged %d lines, and last:\n%s", a.cmd.Process.Pid, len(lines), strings.Join(lines[max(0, len(lines)-60):], ""))
		}
	})
	return a
}

// ready waits until the agent says that it is.
func (a *agent) ready() {
	a.t.Helper()
	waitFor(a.t, 30*time.Second, "/readyz to answer 200", func() bool {
		select {
		case <-a.ended:
			a.t.Fatalf("the agent ended with %v; is another one running?", a.err)
		default:
		}
		code, _ := get("http://127.0.0.1:9610/readyz")
		return code == 200
	})
}

// reload has the agent read another configuration, as an operator does.
func (a *agent) reload(config string) {
	a.t.Helper()
	before := metrics(a.t)
	a.hangUp(config)
	waitFor(a.t, 30*time.Second, "the agent to read its configuration again", func() bool {
		now := metrics(a.t)
		if was, is := total(before, reloadsTotal, `result="failed"`), total(now, reloadsTotal, `result="failed"`); is != was {
			a.t.Fatalf("the reload failed: %s", a.logged())
		}
		return total(now, reloadsTotal, `result="ok"`) > total(before, reloadsTotal, `result="ok"`)
	})
}

const reloadsTotal = "outrider_config_reload_total"

// hangUp writes a configuration and sends SIGHUP.
func (a *agent) hangUp(config string) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.cmd.Dir, "outrider.yaml"), []byte(config), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := a.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		a.t.Fatal(err)
	}
}

// stop sends SIGTERM and wants a clean end within the promised 5 s.
func (a *agent) stop() {
	a.t.Helper()
	a.audited()
	began := time.Now()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		a.t.Fatal(err)
	}
	select {
	case <-a.ended:
		took := time.Since(began)
		if a.err != nil {
			a.t.Errorf("the agent ended with %v, want a clean end", a.err)
		}
		if took > 5*time.Second {
			a.t.Errorf("the agent took %s to stop, want 5s at most", took)
		}
		a.t.Logf("stopped in %s", took.Round(time.Millisecond))
	case <-time.After(20 * time.Second):
		a.t.Fatal("the agent did not stop in 20 s after SIGTERM, want 5 s at most")
	}
}

// kill ends the agent as a crash does.
func (a *agent) kill() {
	a.t.Helper()
	if err := a.cmd.Process.Kill(); err != nil {
		a.t.Fatalf("kill the agent: %v", err)
	}
	<-a.ended
}

// died waits until the failpoint has killed the agent.
func (a *agent) died(place string, limit time.Duration) bool {
	a.t.Helper()
	select {
	case <-a.ended:
	case <-time.After(limit):
		a.t.Errorf("%s: not passed often enough in %s, want the agent killed there", place, limit)
		a.kill()
		return false
	}
	if !strings.Contains(a.logged(), "failpoint "+place) {
		a.t.Errorf("%s: the agent ended with %v, want it killed there", place, a.err)
		return false
	}
	return true
}

// audited wants the audits of this run to have corrected what they should,
// which is mostly nothing, and the books of all pipelines to balance.
func (a *agent) audited() {
	a.t.Helper()
	code, body := get("http://127.0.0.1:9610/metrics")
	if code != 200 {
		a.t.Errorf("/metrics: status %d: %s", code, body)
		return
	}
	if got := total(body, "outrider_audit_corrections_total"); got != a.corrections {
		a.t.Errorf("the audits made %v corrections, want %v", got, a.corrections)
	}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "outrider_pipeline_balance{") && !strings.HasSuffix(line, "} 0\n") {
			a.t.Errorf("a pipeline has lost count: %s", line)
		}
	}
}

// metrics reads /metrics.
func metrics(t *testing.T) string {
	t.Helper()
	code, body := get("http://127.0.0.1:9610/metrics")
	if code != 200 {
		t.Fatalf("/metrics: status %d: %s", code, body)
	}
	return body
}
