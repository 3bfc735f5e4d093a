package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks"
)

// runCheckCommand runs the command "check" and returns what it prints, and its
// exit code.
func runCheckCommand(t *testing.T, args ...string) (string, int) {
	t.Helper()
	c := checkCommand(config.Kinds{"fake": func() any { return &fakeKind{} }}, func(string) ([]checks.Item, error) { return nil, nil })
	c.SilenceErrors, c.SilenceUsage = true, true
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(io.Discard)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	if err == nil {
		return out.String(), 0
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return out.String(), int(code)
	}
	t.Fatalf("check %v: %v", args, err)
	return "", 0
}

// healthJSON serves a body as a digest.
func healthJSON(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/health+json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

const passing = `{"status":"pass","serviceId":"payments","checks":{"db":[{"status":"pass","observedValue":0.25,"observedUnit":"seconds"}]}}`

func TestExitCodes(t *testing.T) {
	t.Parallel()
	text := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, body, code) }
	}
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		code    int
		want    string
	}{
		"a pass":            {healthJSON(200, passing), 0, "PASS payments: 1 page checks pass | "},
		"a warning":         {healthJSON(200, `{"status":"warn","serviceId":"a","checks":{"db":[{"status":"warn"}]}}`), 1, "WARN a: db (warn); 1 warn of 1 page checks | "},
		"a warning as 429":  {healthJSON(429, `{"status":"warn","checks":{"db":[{"status":"warn"}]}}`), 1, "WARN http://127.0.0.1"},
		"a failure":         {healthJSON(503, `{"status":"fail","serviceId":"a","fingerprint":"3fa","checks":{"db":[{"status":"fail"}]}}`), 2, "FAIL a: db; 1 fail of 1 page checks [fingerprint 3fa] | "},
		"a failure as 200":  {healthJSON(200, `{"status":"fail","checks":{}}`), 2, "FAIL "},
		"an unknown":        {healthJSON(200, `{"status":"unknown","checks":{"db":[{"status":"unknown"}]}}`), 3, "UNKNOWN "},
		"no login":          {text(401, "unauthorized"), 3, "status 401 that begins with unauthorized, want --auth-file"},
		"forbidden":         {text(403, "forbidden"), 3, "status 403 that begins with forbidden, want --auth-file"},
		"one word":          {text(503, "fail"), 3, "one word is for those who do not log in"},
		"a page":            {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>|perf</html>") }, 3, "got text/html that begins with (html)/perf(/html), want application/health+json"},
		"another's JSON":    {healthJSON(200, `{"status":"UP"}`), 3, "got no digest that begins with {status:UP}: status UP, want pass, warn, fail or unknown"},
		"no status":         {healthJSON(200, `{"checks":{}}`), 3, "it has no status"},
		"no checks":         {healthJSON(200, `{"status":"pass"}`), 3, "it has no checks"},
		"a check without":   {healthJSON(200, `{"status":"pass","checks":{"db":[{}]}}`), 3, "check db has no status"},
		"the old form":      {healthJSON(200, `{"status":"pass","checks":[{"name":"db","status":"pass"}]}`), 3, "got no digest"},
		"half a digest":     {healthJSON(200, passing[:40]), 3, "unexpected end of JSON input"},
		"two digests":       {healthJSON(200, passing+passing), 3, "after top-level value"},
		"a list":            {healthJSON(200, `[]`), 3, "got no digest"},
		"null":              {healthJSON(200, `null`), 3, "it has no status"},
		"nothing":           {healthJSON(200, ``), 3, "nothing in it"},
		"another's failure": {text(500, "oops"), 3, "status 500 that begins with oops, want 200, 429 or 503"},
		"no such page":      {text(404, "404 page not found"), 3, "status 404"},
		"sent elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/x", http.StatusFound)
		}, 3, "it points to http://127.0.0.1:1/x, which is not followed"},
		"a panic":  {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 2, "connection closed before the end of an answer"},
		"too much": {healthJSON(200, passing+strings.Repeat(" ", mostAnswer)), 3, "got more than 1048576 bytes"},
		"a short body": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, passing)
		}, 2, "connection closed before the end of an answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(tt.handler)
			defer srv.Close()
			out, code := runCheckCommand(t, "digest", srv.URL)
			if code != tt.code || !strings.Contains(out, tt.want) {
				t.Errorf("got exit code %d and %q, want %d and %q", code, out, tt.code, tt.want)
			}
			if strings.Count(out, "\n") != 1 || strings.Count(out, "|") > 1 || strings.ContainsAny(out, "`~$&'\"<>\\") {
				t.Errorf("got %q, want one line that Nagios takes as it is", out)
			}
		})
	}
}

func TestWrongCommandLinesAreUnknown(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(t.TempDir(), "auth")
	if err := os.WriteFile(closed, []byte("a:b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "auth")
	if err := os.WriteFile(open, []byte("user:hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, want string }{
		{"--bogus", "unknown flag: --bogus; see check digest --help"},
		{"-p 99999", "invalid argument"},
		{"-t 0", "want 1ms to 1h"},
		{"-t soon", "want 1ms to 1h"},
		{"--category pages", "--category: got pages, want page, email or all"},
		{"http://a http://b", "got more than one address"},
		{"http://a -H b", "got more than one address"},
		{"127.0.0.1:9610", "want http://HOST:PORT/PATH"},
		{"ftp://a", "want http://HOST:PORT/PATH"},
		{"unix:", "want http://HOST:PORT/PATH"},
		{"http://u:hunter2@a/", "want that in a file"},
		{"http://u:hunter2@%zz/", "got something with @"},
		{"-u healthz", "want a path such as /healthz"},
		{"--ca-file x http://a", "want https:// or -S"},
		{"https://a --ca-file /nowhere", "--ca-file: stat /nowhere"},
		{"https://a --ca-file " + closed, "has no certificate in PEM"},
		{"https://a --cert x", "got only one of --cert and --key"},
		{"http://a --auth-file /nowhere", "--auth-file: stat /nowhere"},
		{"http://a --auth-file /dev/zero", "not a regular file"},
		{"http://a --auth-file " + open, "has mode 0644, want 0640 or less"},
		{"--fan-out x", "--fan-out-host: got nothing"},
		{"--fan-out-host x", "got no --fan-out"},
		{"--fan-out x --fan-out-host a;b", "got a character that Nagios allows in no name"},
		{"-V", "UNKNOWN check_digest of outrider devel"},
	} {
		out, code := runCheckCommand(t, append([]string{"digest"}, strings.Fields(tt.args)...)...)
		if code != 3 || !strings.Contains(out, tt.want) || strings.Count(out, "\n") != 1 || strings.Contains(out, "hunter2") {
			t.Errorf("check digest %s: got exit code %d and %q, want 3 and %q", tt.args, code, out, tt.want)
		}
	}
	if out, code := runCheckCommand(t, "nonsense"); code != 3 || !strings.Contains(out, "got nonsense, want one of digest, fake, run") {
		t.Errorf("check nonsense: got exit code %d and %q", code, out)
	}
}

func TestWhoIsDownFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	stale, err := net.Listen("unix", filepath.Join(dir, "stale"))
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	for _, tt := range []struct {
		address, want string
		code          int
	}{
		{"http://" + free.Addr().String(), "connection refused", 2},
		{"https://" + free.Addr().String(), "connection refused", 2},
		{"unix:" + dir + "/none", "no such file or directory", 2},
		{"unix://" + dir + "/stale:/healthz", "connection refused", 2},
		{"http://nowhere.invalid", "nowhere.invalid: ", 3},
	} {
		if out, code := runCheckCommand(t, "digest", tt.address); code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%s: got exit code %d and %q, want %d and %q", tt.address, code, out, tt.code, tt.want)
		}
	}
}

// raw serves each connection with a function that has the connection.
func raw(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close() // and no sooner, as it would be were it forgotten
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

func TestNoServerHoldsItUp(t *testing.T) {
	t.Parallel()
	done := t.Context().Done()
	silent := func(net.Conn) { <-done }
	trickle := func(begin string) func(net.Conn) {
		return func(c net.Conn) {
			_, err := c.Read(make([]byte, 1))
			if err == nil {
				_, err = io.WriteString(c, begin)
			}
			for tick := time.Tick(10 * time.Millisecond); err == nil; <-tick {
				_, err = io.WriteString(c, " ")
			}
		}
	}
	for name, tt := range map[string]struct {
		serve  func(net.Conn)
		scheme string
		code   int
		want   string
	}{
		"it says nothing":          {silent, "http", 2, "no answer in 300ms"},
		"it shakes no hands":       {silent, "https", 2, "no answer in 300ms"},
		"its header has no end":    {trickle("HTTP/1.1 200 OK\r\nX: "), "http", 2, "no answer in 300ms"},
		"its body has no end":      {trickle("HTTP/1.1 200 OK\r\nContent-Type: application/health+json\r\n\r\n{"), "http", 2, "no answer in 300ms"},
		"it is no web server":      {func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n"); <-done }, "http", 3, "UNKNOWN http://127.0.0.1"},
		"it speaks no TLS":         {func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n"); <-done }, "https", 3, "tls: first record does not look like a TLS handshake"},
		"it hangs up":              {func(c net.Conn) { _, _ = c.Read(make([]byte, 1)); c.Close() }, "http", 2, ""},
		"it hangs up at once":      {func(c net.Conn) { c.Close() }, "http", 2, ""},
		"it resets the connection": {func(c net.Conn) { _, _ = c.Read(make([]byte, 1)); _ = c.(*net.TCPConn).SetLinger(0); c.Close() }, "http", 2, "connection reset by peer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			out, code := runCheckCommand(t, "digest", tt.scheme+"://"+raw(t, tt.serve), "-t", "300ms")
			if code != tt.code || !strings.Contains(out, tt.want) {
				t.Errorf("got exit code %d and %q, want %d and %q", code, out, tt.code, tt.want)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("took %v, want 300ms", took)
			}
		})
	}
}

func TestTLSAndLogin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user+password != "nagiosp:w" && r.Header.Get("Authorization") != "Bearer token" && len(r.TLS.PeerCertificates) == 0 {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		healthJSON(200, passing)(w, r)
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	strict := httptest.NewUnstartedServer(healthJSON(200, passing))
	strict.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	strict.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	strict.StartTLS()
	defer strict.Close()

	ca := write("ca.pem", 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	der, err := x509.MarshalPKCS8PrivateKey(srv.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key := write("key.pem", 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	basic, bearer := write("basic", 0o640, []byte("nagios:p:w\n")), write("bearer", 0o600, []byte("Bearer token"))
	wrong, lines := write("wrong", 0o600, []byte("nagios:no\n")), write("lines", 0o600, []byte("a:b\nc:d\n"))
	host, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{srv.URL, "--ca-file", ca, "--auth-file", basic}, 0, "PASS payments: 1 page checks pass"},
		{[]string{srv.URL, "--ca-file", ca, "--auth-file", bearer}, 0, "PASS"},
		{[]string{"-H", host, "-p", port, "-S", "--ca-file", ca, "--auth-file", bearer}, 0, "PASS"},
		{[]string{srv.URL, "--ca-file", ca, "--cert", ca, "--key", key}, 0, "PASS"},
		{[]string{srv.URL, "--ca-file", ca, "--server-name", "example.com", "--auth-file", basic}, 0, "PASS"},
		{[]string{srv.URL, "--insecure", "--auth-file", basic}, 0, "PASS"},
		{[]string{srv.URL, "--ca-file", ca}, 3, "status 401"},
		{[]string{srv.URL, "--ca-file", ca, "--auth-file", wrong}, 3, "status 401"},
		{[]string{srv.URL, "--ca-file", ca, "--auth-file", lines}, 3, "want one with user:password or a bearer token"},
		{[]string{srv.URL}, 3, "certificate: x509: certificate signed by unknown authority"},
		{[]string{srv.URL, "--ca-file", ca, "--server-name", "other.test"}, 3, "certificate: x509: certificate is valid for"},
		{[]string{"http://" + srv.Listener.Addr().String()}, 3, "status 400"},
		{[]string{strict.URL, "--ca-file", ca, "--cert", ca, "--key", key}, 0, "PASS"},
		{[]string{strict.URL, "--ca-file", ca}, 3, "certificate required"},
	} {
		if out, code := runCheckCommand(t, append([]string{"digest"}, tt.args...)...); code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%v: got exit code %d and %q, want %d and %q", tt.args, code, out, tt.code, tt.want)
		}
	}
}

func TestWhatIsAsked(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Accept") + " " + r.URL.String()
		healthJSON(200, passing)(w, r)
	}))
	defer srv.Close()
	for _, tt := range []struct{ args, want string }{
		{"", "/healthz?category=page"},
		{"--category email", "/healthz?category=email"},
		{"--check db", "/healthz?category=all&check=db"},
		{"--check db --category page", "/healthz?category=page&check=db"},
		{"--group ready -u /health", "/health?category=page&group=ready"},
	} {
		_, code := runCheckCommand(t, append([]string{"digest", srv.URL}, strings.Fields(tt.args)...)...)
		if got := <-asked; code != 0 || got != "application/health+json "+tt.want {
			t.Errorf("%s: got exit code %d and %s, want %s", tt.args, code, got, tt.want)
		}
	}
	_, _ = runCheckCommand(t, "digest", srv.URL+"/own?category=all&x=1")
	if got, want := <-asked, "application/health+json /own?category=all&x=1"; got != want {
		t.Errorf("an address with a query: got %s, want %s", got, want)
	}
}

// Seen through the plugin's name, the arguments are the plugin's.
func TestTheNameIsThePlugin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ argv, want string }{
		{"outrider run -c x", "run -c x"},
		{"/usr/lib/nagios/plugins/check_digest -H a", "check digest -H a"},
		{"check_digest", "check digest"},
	} {
		if got := strings.Join(commandLine(strings.Fields(tt.argv)), " "); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.argv, got, tt.want)
		}
	}
}
