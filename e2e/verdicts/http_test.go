package verdicts

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// plugin runs a plugin, or whatever ends as one does.
func plugin(t *testing.T, command string, args ...string) (code int, out string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), command, args...)
	var said, complained bytes.Buffer
	c.Stdout, c.Stderr = &said, &complained
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	} else if ok {
		code = exit.ExitCode()
	}
	return code, said.String() + complained.String()
}

// becomes waits until a page has that status.
func (a *agent) becomes(path string, status int) {
	a.t.Helper()
	waitFor(a.t, fmt.Sprintf("%s to answer %d", path, status), func() bool {
		got, _ := a.get(path)
		return got == status
	})
}

// TestCheckHTTP has Debian's check_http read the digest, as those do who have no
// plugin of ours: it knows status codes, and shows the body with -B.
func TestCheckHTTP(t *testing.T) {
	t.Parallel()
	command := need(t, plugins+"check_http")
	a := startAgent(t, freeAddress(t, "127.0.0.1"), nil)
	check := func(wantCode int, want []string, args ...string) {
		t.Helper()
		code, out := plugin(t, command, append([]string{"-I", "127.0.0.1", "-p", port(a.listen)}, args...)...)
		for _, text := range want {
			if code != wantCode || !strings.Contains(out, text) {
				t.Errorf("check_http %q: got %d and %q, want %d and %q", args, code, out, wantCode, text)
			}
		}
	}

	check(0, []string{"HTTP OK", "200 OK"}, "-u", "/healthz")
	check(0, []string{"[+]db ok", "[+]api/disk ok", "healthz check passed"}, "-B", "-u", "/healthz?verbose")
	check(0, []string{"OUTRIDER PASS: ", "flag"}, "-B", "-u", "/healthz?format=nagios&category=all")
	check(1, []string{"HTTP WARNING", "404"}, "-u", "/healthz?check=nobody")

	a.cache.set(verdict.Warn)
	a.becomes("/healthz?category=all&warn=429", http.StatusTooManyRequests)
	check(1, []string{"HTTP WARNING", "429"}, "-u", "/healthz?category=all&warn=429")
	check(0, []string{"[!]cache warn"}, "-B", "-u", "/healthz?category=all&format=text")

	a.cache.set(verdict.Fail)
	a.becomes("/healthz?category=all", http.StatusServiceUnavailable)
	check(0, []string{"HTTP OK"}, "-u", "/healthz")
	check(2, []string{"HTTP CRITICAL", "503"}, "-u", "/healthz?category=email")

	a.db.broken.Store(true)
	a.becomes("/healthz", http.StatusServiceUnavailable)
	check(2, []string{"HTTP CRITICAL", "503", "[-]db failed: GET"}, "-B", "-u", "/healthz?format=text")
	check(2, []string{"HTTP CRITICAL"}, "-u", "/healthz?check=db")
	check(0, []string{"HTTP OK"}, "-u", "/healthz?check=queue")

	a.stop()
	check(2, []string{"refused"}, "-u", "/healthz")
}

// TestWhoBringsNoPassword has those ask who cannot bring one: a kubelet, a load
// balancer, and somebody else.
func TestWhoBringsNoPassword(t *testing.T) {
	t.Parallel()
	command := need(t, plugins+"check_http")
	c := newCertificate(t)
	a := startAgent(t, freeAddress(t, "0.0.0.0"), c)
	// A kubelet asks with GET, trusts any certificate, and takes 200 to 399.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	kubelet := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	probe := func(path string) bool {
		req := request(t, a.url+path)
		req.Header.Set("User-Agent", "kube-probe/1.36")
		req.Header.Set("Accept", "*/*")
		status, _ := do(kubelet, req)
		return status >= 200 && status < 400
	}
	probes := func(when string, want map[string]bool) {
		t.Helper()
		for path, ok := range want {
			if got := probe(path); got != ok {
				t.Errorf("%s: the probe of %s succeeds: %t, want %t", when, path, got, ok)
			}
		}
	}
	balancer := func(when, method string, status int, word string) {
		t.Helper()
		req := request(t, a.url+"/healthz")
		req.Method = method
		if got, body := do(kubelet, req); got != status || body != word {
			t.Errorf("%s: %s /healthz without a password: got %d and %q, want %d and %q", when, method, got, body, status, word)
		}
	}

	probes("all well", map[string]bool{"/livez": true, "/readyz": true, "/startupz": true, "/healthz": true, "/metrics": false})
	balancer("all well", http.MethodGet, http.StatusOK, "ok\n")
	balancer("all well", http.MethodHead, http.StatusOK, "")
	for _, tt := range []struct {
		password, body string
		code           int
	}{{poller + ":" + password, "[+]db ok", 0}, {poller + ":guessed", "unauthorized", 1}} {
		args := []string{"-I", "127.0.0.1", "-p", port(a.listen), "-S", "-B", "-u", "/healthz?format=text", "-a", tt.password}
		if code, out := plugin(t, command, args...); code != tt.code || !strings.Contains(out, tt.body) {
			t.Errorf("check_http %q: got %d and %q, want %d and %q", args, code, out, tt.code, tt.body)
		}
	}

	a.queue.shut()
	a.becomes("/healthz", http.StatusServiceUnavailable)
	probes("a check of group ready fails", map[string]bool{"/livez": true, "/readyz": false, "/healthz": false})
	balancer("a check fails", http.MethodGet, http.StatusServiceUnavailable, "fail\n")
	balancer("a check fails", http.MethodHead, http.StatusServiceUnavailable, "")
	a.queue.open()
	a.becomes("/healthz", http.StatusOK)
	probes("mended", map[string]bool{"/livez": true, "/readyz": true, "/healthz": true})

	a.start.set(verdict.Fail)
	a.becomes("/healthz?check=start", http.StatusServiceUnavailable)
	probes("a check of group live fails, which pages nobody", map[string]bool{"/livez": false, "/readyz": false, "/startupz": true, "/healthz": true})
	if status, body := do(kubelet, request(t, a.url+"/livez?full=1")); status != http.StatusServiceUnavailable || strings.Contains(body, "start") {
		t.Errorf("/livez?full=1 without a password: got %d and %q, want 503 and no name", status, body)
	}

	a.stop()
	a.launch()
	waitFor(t, "the agent to answer", func() bool { return probe("/healthz") })
	probes("a check of group startup has never passed", map[string]bool{"/livez": false, "/startupz": false})
	a.start.set(verdict.Pass)
	waitFor(t, "the startup probe to succeed", func() bool { return probe("/startupz") })
	probes("it has passed", map[string]bool{"/livez": true, "/readyz": true})
}

// TestARemoteCallerGetsOneWord asks an agent without any password from another
// address than loopback, in a network of its own.
func TestARemoteCallerGetsOneWord(t *testing.T) {
	t.Parallel()
	command := need(t, plugins+"check_http")
	dir := t.TempDir()
	text := `service: e2e
data_dir: ""
listen: {public: "192.0.2.1:9610", debug: "off", status: "off"}
checks:
  - {name: db, every: 1s, stale_after: 20s, exec: {command: [/bin/sh, -c, "echo secret; exit 2"]}}
`
	if err := os.WriteFile(filepath.Join(dir, "outrider.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	const network = `ip link set lo up && ip address add 192.0.2.1/32 dev lo && exec "$0" run -c outrider.yaml`
	p := startProcess(t, dir, "unshare", "--map-root-user", "--net", "sh", "-c", network, env.outrider)
	ask := func(args ...string) (code int, answer string) {
		t.Helper()
		inside := []string{"--target", fmt.Sprint(p.cmd.Process.Pid), "--user", "--net", "--preserve-credentials", command, "-I", "192.0.2.1", "-p", "9610", "-B"}
		code, out := plugin(t, "nsenter", append(inside, args...)...)
		_, answer, _ = strings.Cut(out, "\n") // the body comes after its own line
		return code, strings.TrimSpace(answer)
	}
	waitFor(t, "the agent to find its check failing", func() bool {
		code, answer := ask("-u", "/healthz")
		return code == 2 && answer == "fail"
	})
	for _, args := range [][]string{
		{"-u", "/healthz?category=all"},
		{"-u", "/healthz?verbose"},
		{"-u", "/healthz?format=text"},
		{"-u", "/healthz?format=openmetrics"},
		{"-u", "/healthz", "-k", "Accept: application/health+json"},
		{"-u", "/healthz", "-k", "X-Forwarded-For: 127.0.0.1"},
		{"-u", "/healthz", "-H", "localhost"},
	} {
		if code, answer := ask(args...); code != 2 || answer != "fail" {
			t.Errorf("check_http %q: got %d and %q, want 2 and one word", args, code, answer)
		}
	}
	for _, path := range []string{"/healthz?check=db", "/metrics", "/", "/livez?full=1"} {
		if _, answer := ask("-u", path); strings.Contains(answer, "secret") || strings.Contains(answer, "[") || strings.Contains(answer, "outrider_check") {
			t.Errorf("%s: got %q, want nothing of the checks", path, answer)
		}
	}
}
