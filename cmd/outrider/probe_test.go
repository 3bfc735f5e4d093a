package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

func runProbe(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := probeCommand()
	c.SilenceErrors, c.SilenceUsage = true, true
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestProbe(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\nand more\n") })
	mux.HandleFunc("/fail", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "fail", http.StatusServiceUnavailable) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/fail", http.StatusFound) })
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write(make([]byte, 1<<16))
		}
	})
	srv, secure := httptest.NewServer(mux), httptest.NewUnstartedServer(mux)
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	t.Cleanup(srv.Close)
	t.Cleanup(secure.Close)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}}
	local.Start()
	t.Cleanup(local.Close)
	for _, tt := range []struct{ args, want, err string }{
		{srv.URL + "/ok", "/ok: status 200 that begins with ok and more\n", ""},
		{"unix:" + socket + ":/ok", "unix:" + socket + ":/ok: status 200", ""},
		{"unix://" + socket + ":/ok?x=1", "unix:" + socket + ":/ok: status 200", ""},
		{srv.URL + "/moved", "/moved: status 302", ""},
		{srv.URL + "/endless", "/endless: status 200", ""},
		{secure.URL + "/ok --insecure", "/ok: status 200", ""},
		{secure.URL + "/ok", "", "certificate: x509: certificate signed by unknown authority"},
		{srv.URL + "/fail", "", "/fail: status 503 that begins with fail, want 200 to 399"},
		{srv.URL, "", "/: status 404"},
		{srv.URL + "/hang --timeout 100ms", "", "/hang: no answer in 100ms"},
		{"http://127.0.0.1:1/", "", "connection refused"},
		{"", "", "accepts 1 arg(s), received 0"},
		{"127.0.0.1:1", "", "want http://HOST:PORT/PATH"},
		{srv.URL + " --ca-file /nowhere", "", "--ca-file: stat /nowhere"},
	} {
		out, err := runProbe(t, strings.Fields(tt.args)...)
		switch {
		case tt.err == "" && (err != nil || !strings.Contains(out, tt.want) || strings.Count(out, "\n") != 1):
			t.Errorf("probe %s: got %q and %v, want %q", tt.args, out, err, tt.want)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || out != ""):
			t.Errorf("probe %s: got %q and %v, want %q", tt.args, out, err, tt.err)
		}
		if wrong := strings.Contains(tt.err, "want http") || strings.Contains(tt.err, "--ca-file"); wrong != errors.Is(err, errUsage) {
			t.Errorf("probe %s: got %v, an error of usage: %t, want %t", tt.args, err, !wrong, wrong)
		}
	}
}
