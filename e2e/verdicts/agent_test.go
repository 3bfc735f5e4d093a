package verdicts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// Who may read the digest of agents with a password.
const poller, password = "monitor", "an open secret"

// A process is one run of a command.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	said *output

	ended chan struct{} // closed when the process has ended
}

// output is what a process prints. It may be read while that runs.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write adds what was printed.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) last(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := slices.Collect(strings.Lines(o.text.String()))
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// startProcess runs a command in dir until the test ends, or until stop.
func startProcess(t *testing.T, dir, command string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(command, args...), said: &output{}, ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, p.said, p.said
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // a signal ends it
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s printed last:\n%s", filepath.Base(command), p.said.last(30))
		}
	})
	return p
}

// stop ends the process: with SIGTERM, and if that does not help with SIGKILL.
func (p *process) stop() {
	p.t.Helper()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = p.cmd.Process.Signal(s) // it may have ended
		select {
		case <-p.ended:
			return
		case <-time.After(15 * time.Second):
			p.t.Errorf("%s did not stop in 15 s of %v", p.cmd.Path, s)
		}
	}
}

// An agent is one run of the command with checks that the test breaks and mends.
type agent struct {
	*process
	t      *testing.T
	dir    string
	listen string // the address it listens on
	url    string // of its pages
	client *http.Client
	checked
}

// checked is what the agent's checks ask.
type checked struct {
	db    *app  // http, category page
	queue *door // tcp, category page
	cache *flag // exec, category email
	api   *app  // a neighbour's health, category page
	start *flag // exec, category email, groups startup and live
}

const checksConfig = `service: e2e
data_dir: ""
listen: {public: "%[1]s", debug: "off", status: "off"%[2]s}
neighbours:
  - {name: api, every: 3s, health: "%[6]s"}
checks:
  - {name: db, every: 1s, stale_after: 20s, category: page, runbook: "https://runbooks.example/db", http: {url: "%[3]s"}}
  - {name: queue, every: 1s, stale_after: 20s, category: page, groups: [ready], tcp: {address: "%[4]s"}}
  - {name: cache, every: 1s, stale_after: 20s, category: email, exec: {command: [/bin/sh, "%[5]s"]}}
  - {name: start, every: 1s, stale_after: 20s, category: email, groups: [live, startup], exec: {command: [/bin/sh, "%[7]s"]}}
`

// startAgent runs an agent that listens at an address, and waits until all its checks
// pass. With a certificate it speaks TLS, and knows the poller by its password.
func startAgent(t *testing.T, address string, c *certificate) *agent {
	t.Helper()
	a := &agent{t: t, dir: t.TempDir(), listen: address, client: &http.Client{Timeout: 10 * time.Second}}
	a.db, a.api = openApp(t), openApp(t)
	a.queue = openDoor(t)
	a.cache, a.start = newFlag(t, a.dir, "cache"), newFlag(t, a.dir, "start")
	scheme, web := "http", ""
	if c != nil {
		scheme, web = "https", fmt.Sprintf(", web_config_file: %q", c.webConfig(t, a.dir))
		a.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.pool}}
		t.Cleanup(a.client.CloseIdleConnections)
	}
	_, port, _ := net.SplitHostPort(address)
	a.url = scheme + "://127.0.0.1:" + port
	text := fmt.Sprintf(checksConfig, address, web, a.db.url, a.queue.address, a.cache.script, a.api.url, a.start.script)
	if err := os.WriteFile(filepath.Join(a.dir, "outrider.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a.run()
	return a
}

// run starts the agent, again after a stop, and waits until all its checks pass.
func (a *agent) run() {
	a.t.Helper()
	a.launch()
	waitFor(a.t, "the agent's checks to pass", func() bool {
		status, body := a.get("/healthz?category=all&format=nagios")
		known, _ := a.get("/healthz?check=api/disk") // shown when the neighbour has been asked
		return status == http.StatusOK && strings.Contains(body, "PASS") && known == http.StatusOK
	})
}

func (a *agent) launch() {
	a.t.Helper()
	a.process = startProcess(a.t, a.dir, env.outrider, "run", "-c", filepath.Join(a.dir, "outrider.yaml"))
}

// get reads a page with the password; the status is 0 when nobody answers.
func (a *agent) get(path string) (status int, body string) {
	a.t.Helper()
	req := request(a.t, a.url+path)
	req.SetBasicAuth(poller, password)
	return do(a.client, req)
}

func request(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func do(c *http.Client, req *http.Request) (status int, body string) {
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// An app answers 200, or broken 500.
type app struct {
	url    string
	broken atomic.Bool
}

func openApp(t *testing.T) *app {
	a := &app{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if a.broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"status":"DOWN","components":{"disk":{"status":"DOWN"}}}`)
			return
		}
		fmt.Fprint(w, `{"status":"UP","components":{"disk":{"status":"UP"}}}`)
	}))
	t.Cleanup(s.Close)
	a.url = s.URL + "/health"
	return a
}

// A door is a port that listens, or does not.
type door struct {
	t       *testing.T
	address string
	l       net.Listener
}

func openDoor(t *testing.T) *door {
	d := &door{t: t, address: freeAddress(t, "127.0.0.1")}
	d.open()
	t.Cleanup(d.shut)
	return d
}

func (d *door) open() {
	d.t.Helper()
	var err error
	if d.l, err = net.Listen("tcp", d.address); err != nil {
		d.t.Fatal(err)
	}
	go func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}(d.l)
}

func (d *door) shut() { _ = d.l.Close() }

// A flag is a plugin that says what it was set to.
type flag struct {
	t            *testing.T
	file, script string
}

func newFlag(t *testing.T, dir, name string) *flag {
	f := &flag{t: t, file: filepath.Join(dir, name), script: filepath.Join(dir, name+".sh")}
	text := fmt.Sprintf("code=$(cat %q); echo \"the flag says $code|flag=$code\"; exit $code\n", f.file)
	if err := os.WriteFile(f.script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f.set(verdict.Pass)
	return f
}

func (f *flag) set(s verdict.Status) {
	f.t.Helper()
	next := f.file + ".next" // so that nobody reads half of it
	err := errors.Join(os.WriteFile(next, fmt.Appendln(nil, int(s)), 0o600), os.Rename(next, f.file))
	if err != nil {
		f.t.Fatal(err)
	}
}

// A certificate is for this machine, and its own authority.
type certificate struct {
	certFile, keyFile string
	pair              tls.Certificate
	pool              *x509.CertPool
}

func newCertificate(t *testing.T) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	dir := t.TempDir()
	c := &certificate{certFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem"), pool: x509.NewCertPool()}
	err = errors.Join(os.WriteFile(c.certFile, certPEM, 0o600), os.WriteFile(c.keyFile, keyPEM, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if c.pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	c.pool.AppendCertsFromPEM(certPEM)
	return c
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c.pair}}
}

// webConfig writes the file that makes an agent use the certificate and ask for a
// password.
func (c *certificate) webConfig(t *testing.T, dir string) (path string) {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("tls_server_config: {cert_file: %q, key_file: %q}\nbasic_auth_users: {%s: %q}\n", c.certFile, c.keyFile, poller, hash)
	path = filepath.Join(dir, "web.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// freeAddress is one that nobody listened on a moment ago.
func freeAddress(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return net.JoinHostPort(host, port)
}

// patience is how long to wait for what takes a few seconds on an idle machine.
const patience = 60 * time.Second

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}
