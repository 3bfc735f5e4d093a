package checks

import (
	"context"
	"encoding/pem"
	"fmt"
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
	"github.com/outrider-agent/outrider/checks/verdict"
)

// configure reads a kind's configuration as the agent does.
func configure[C any](t *testing.T, text string) (*C, error) {
	t.Helper()
	c := new(C)
	_, err := config.Parse("test.yaml", []byte("check: "+text), t.TempDir(), config.Options{Sections: map[string]any{"check": c}})
	return c, err
}

// checker builds the checker of a configuration. C is the kind's configuration.
func checker[C any](t *testing.T, text string, now func() time.Time) Checker {
	t.Helper()
	c, err := configure[C](t, text)
	if err != nil {
		t.Fatal(err)
	}
	if now == nil {
		now = time.Now
	}
	made, err := any(c).(Builder).Build(Env{Name: "test", Log: slog.New(slog.DiscardHandler), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// ask runs a check with a deadline that no good answer needs.
func ask(t *testing.T, c Checker) verdict.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return c.Check(ctx)
}

// wantResult compares a result with a status and what the message must have, parts
// divided by "...".
func wantResult(t *testing.T, r verdict.Result, status verdict.Status, message string) {
	t.Helper()
	rest := r.Message
	for part := range strings.SplitSeq(message, "...") {
		_, after, ok := strings.Cut(rest, part)
		if !ok {
			t.Errorf("message %q, want %q", r.Message, message)
			break
		}
		rest = after
	}
	if r.Status != status {
		t.Errorf("status %v, want %v; message %q", r.Status, status, r.Message)
	}
}

// wantMistakes holds configurations to what they are told.
func wantMistakes[C any](t *testing.T, tests map[string]string) {
	t.Helper()
	for text, want := range tests {
		if _, err := configure[C](t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// pages is a server with an answer of every kind.
func pages(t *testing.T) *httptest.Server {
	t.Helper()
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(elsewhere.Close)
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "all is well\n") })
	mux.HandleFunc("/gone", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, "db:\x1b[31m redis://user:hunter2@db:6379 | "+strings.Repeat("x", 500))
	})
	mux.HandleFunc("/json", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"skip":[{"a":[1,{"b":2}]},"]"],"data":{"items":[{"state":"open"},{"state":"done","n":7.5,"a.b":true,"none":null}]}}`)
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Repeat("0123456789", 10_000), "end")
	})
	mux.HandleFunc("/far", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) })
	mux.HandleFunc("/near", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		body := make([]byte, 100)
		n, _ := r.Body.Read(body)
		fmt.Fprintf(w, "%s %s %s/%s %s %s", r.Method, r.Host, user, password, r.Header.Get("X-Key"), body[:n])
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
	})
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	s := pages(t)
	const pass, warn, fail = verdict.Pass, verdict.Warn, verdict.Fail
	tests := []struct {
		name, config string
		status       verdict.Status
		message      string
	}{
		{"an answer passes", `{url: URL/ok}`, pass, "GET http://127.0.0.1:.../ok: status 200 in "},
		{"a status that is not wanted fails", `{url: URL/gone}`, fail, "/gone: status 503, want 200-399: it begins with db: [31m redis://<redacted>@db:6379 | xxx..."},
		{"a status that is wanted passes", `{url: URL/gone, status: [2xx, "503"]}`, pass, "status 503 in "},
		{"another than the wanted fails", `{url: URL/ok, status: ["204", 500-599]}`, fail, "status 200, want 204 or 5xx: it begins with all is well"},
		{"what is behind the question mark is not shown", `{url: "URL/missing?token=s3cret"}`, fail, "/missing?...: status 404, want 200-399"},
		{"a text that is there passes", `{url: URL/ok, contains: is well}`, pass, "status 200"},
		{"a text that is missing fails", `{url: URL/ok, contains: ill}`, fail, `status 200, got no "ill" in the body: it begins with all is well`},
		{"a pattern that matches passes", `{url: URL/ok, matches: "^all .* well$|x"}`, fail, "no match of"}, // $ is the end of the text
		{"a pattern that matches a line passes", `{url: URL/ok, matches: "(?m)^all .* well$"}`, pass, "status 200"},
		{"what is beyond max_body is not looked at", `{url: URL/big, contains: end, max_body: 64KiB}`, fail, `got no "end" in the first 64KiB of the body`},
		{"not by a byte", `{url: URL/ok, contains: well, max_body: 10B}`, fail, `got no "well" in the first 10B of the body`},
		{"what is within is", `{url: URL/big, contains: end}`, pass, "status 200"},
		{"a redirect on the host is followed", `{url: URL/near, contains: well}`, pass, "status 200"},
		{"one elsewhere is the answer", `{url: URL/far}`, pass, "status 302"},
		{"and may be unwanted", `{url: URL/far, status: [2xx]}`, fail, "status 302, want 2xx"},
		{"a redirect need not be followed", `{url: URL/near, redirects: 0, status: ["302"]}`, pass, "status 302"},
		{"a circle fails", `{url: URL/loop}`, fail, "/loop: redirected 6 times, want at most 5"},
		{"a request has what was configured", `{url: URL/echo, method: POST, body: hello, headers: {X-Key: k, Host: a.example}, basic_auth: {username: u, password: p}, contains: POST a.example u/p k hello}`, pass, "POST http"},
		{"half an answer fails", `{url: URL/broken}`, fail, "status 200, 4 bytes of the body: unexpected EOF"},
		{"a slow answer warns", `{url: URL/ok, warn: "100:", crit: "~:100"}`, warn, "in ..., want 100: s"},
		{"a slower one fails", `{url: URL/ok, warn: "100:", crit: "50:"}`, fail, "in ..., want 50: s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := ask(t, checker[HTTPConfig](t, strings.ReplaceAll(tt.config, "URL", s.URL), nil))
			wantResult(t, r, tt.status, tt.message)
			if len(r.Message) > 400 || strings.Contains(r.Message, "hunter2") || strings.Contains(r.Message, "s3cret") {
				t.Errorf("message %q, want at most 400 bytes without a secret", r.Message)
			}
		})
	}
}

func TestHTTPWithoutAnswer(t *testing.T) {
	t.Parallel()
	s := pages(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r := checker[HTTPConfig](t, "{url: "+s.URL+"/hang}", nil).Check(ctx)
	wantResult(t, r, verdict.Fail, "/hang: no whole answer by the deadline")
	stopped, stop := context.WithCancel(t.Context())
	stop()
	r = checker[HTTPConfig](t, "{url: "+s.URL+"/hang}", nil).Check(stopped)
	wantResult(t, r, verdict.Unknown, "/hang: stopped")
	s.Close()
	wantResult(t, ask(t, checker[HTTPConfig](t, "{url: "+s.URL+"/ok}", nil)), verdict.Fail, "refused")
}

func TestHTTPOverASocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })}}
	s.Start()
	defer s.Close()
	wantResult(t, ask(t, checker[HTTPConfig](t, "{url: 'unix://"+path+":/health', contains: /health}", nil)), verdict.Pass, "GET unix://"+path+":/health: status 200")
}

// authority writes the certificate of a test server to a file.
func authority(t *testing.T, s *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHTTPOverTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	defer s.Close()
	ca := authority(t, s)
	late := func() time.Time { return s.Certificate().NotAfter.Add(-100 * time.Hour) }
	wantResult(t, ask(t, checker[HTTPConfig](t, "{url: "+s.URL+"}", nil)), verdict.Fail, "certificate signed by unknown authority")
	wantResult(t, ask(t, checker[HTTPConfig](t, fmt.Sprintf("{url: %s, tls: {ca_file: %s, server_name: b.example}}", s.URL, ca), nil)), verdict.Fail, "not b.example")
	known := fmt.Sprintf("{url: %s, tls: {ca_file: %s}, certificate: {warn: 336h, crit: 72h}}", s.URL, ca)
	wantResult(t, ask(t, checker[HTTPConfig](t, known, nil)), verdict.Pass, "status 200")
	r := ask(t, checker[HTTPConfig](t, known, late))
	wantResult(t, r, verdict.Warn, "status 200, certificate of example.com ends in 4d4h, on ..., want at least 14d0h")
	if m := r.Measures[len(r.Measures)-1]; m.Label != "certificate" || m.Value != 360_000 || m.Warn != "1209600:" || m.Crit != "259200:" {
		t.Errorf("measure %+v, want certificate 360000 s with its limits", m)
	}
}

func TestHTTPConfigIsStrict(t *testing.T) {
	t.Parallel()
	wantMistakes[HTTPConfig](t, map[string]string{
		`{}`:                            "check.url: got nothing",
		`{url: "ftp://x"}`:              "check.url: got ",
		`{url: "http://me:hunter2@x/"}`: "with a user, want the user in basic_auth",
		`{url: "http://x", tls: {insecure_skip_verify: true}}`:          "check.tls: got settings for an address without TLS",
		`{url: "http://x", status: [6xx]}`:                              "check.status[0]: got 6xx, want a code such as 204",
		`{url: "http://x", status: [300-200]}`:                          "check.status[0]: got 300-200",
		`{url: "http://x", matches: "("}`:                               "check.matches: got ",
		`{url: "http://x", method: DELETE}`:                             "check.method: got DELETE",
		`{url: "http://x", method: HEAD, contains: x}`:                  "check.method: got HEAD with a condition",
		`{url: "http://x", certificate: {warn: 1h}}`:                    "check.certificate: got a limit for an address without TLS",
		`{url: "https://x", certificate: {warn: 1h, crit: 2h}}`:         "check.certificate: got warn 1h0m0s, which is less than crit",
		`{url: "http://x", json: {path: "a..b"}}`:                       "check.json.path: got ",
		`{url: "http://x", json: {path: a, matches: "("}}`:              "check.json.matches: got ",
		`{url: "http://x", redirects: 21}`:                              "check.redirects: got 21, want 0 to 20",
		`{url: "http://x", max_body: 1GiB}`:                             "check.max_body: got 1GiB",
		`{url: "http://x", headers: {"a b": c}}`:                        `check.headers: got a b`,
		`{url: "http://x", bearer_token: a, basic_auth: {username: b}}`: "check.basic_auth: got more than one",
	})
	if _, err := configure[HTTPConfig](t, `{url: "http://me:hunter2@x/"}`); strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %q shows a password", err)
	}
}
