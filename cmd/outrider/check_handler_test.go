package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// TestThePluginReadsTheDigest holds the plugin to what the runner serves.
func TestThePluginReadsTheDigest(t *testing.T) {
	t.Parallel()
	r := runner.New(runner.Options{Service: "payments"})
	says := func(res verdict.Result) func(context.Context) verdict.Result {
		return func(context.Context) verdict.Result { return res }
	}
	half := 0.5
	err := r.Add(
		runner.Check{Name: "db", Run: says(verdict.Result{Status: verdict.Fail, Message: "refused | <nil>", Value: &half, Unit: "seconds"})},
		runner.Check{Name: "cache", Category: verdict.Email, Run: says(verdict.Result{Status: verdict.Warn, Message: "slow", Measures: []verdict.Measure{{Label: "hits", Value: 3, Unit: "%", Crit: "10:"}}})},
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.RunNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	srv, anonymous, word := httptest.NewServer(r.Healthz(func(*http.Request) bool { return true })), httptest.NewServer(r.Healthz(nil)), httptest.NewServer(r.Probe())
	defer srv.Close()
	defer anonymous.Close()
	defer word.Close()
	for _, tt := range []struct {
		url, args string
		code      int
		begin, in string
	}{
		{srv.URL, "", 2, "FAIL payments: db (refused / (nil), since ", "; 1 fail, 1 unknown of 2 page checks [fingerprint "},
		{srv.URL, "", 2, "FAIL", " db=0.5s"},
		{srv.URL, "--category email", 1, "WARN payments: cache (warn, slow, since ", " cache::hits=3%;;10:"},
		{srv.URL, "--category all", 2, "FAIL payments: db (", "1 fail, 1 unknown, 1 warn of 3 checks"},
		{srv.URL, "--check cache", 1, "WARN payments: cache (", "1 warn of 1 checks"},
		{srv.URL, "--group live", 3, "UNKNOWN payments: runner (unknown, no result yet, since ", "1 unknown of 1 page checks of group live"},
		{srv.URL, "--check nine", 3, "UNKNOWN http://127.0.0.1:", "status 404 that begins with no check nine, want one of: cache db runner"},
		{srv.URL, "--group nine", 3, "UNKNOWN http://127.0.0.1:", "status 400 that begins with group nine, want live, ready"},
		{anonymous.URL, "--category all", 2, "FAIL http://127.0.0.1:", "/healthz: db, runner (unknown), cache (warn); 1 fail, 1 unknown, 1 warn of 3 checks | "},
		{word.URL, "", 3, "UNKNOWN http://127.0.0.1:", "that begins with fail, want application/health+json; one word is for those who do not log in"},
		{srv.URL + "?format=nagios", "", 3, "UNKNOWN ", "got text/plain"},
	} {
		out, code := runCheckCommand(t, append([]string{"digest", tt.url}, strings.Fields(tt.args)...)...)
		if code != tt.code || !strings.HasPrefix(out, tt.begin) || !strings.Contains(out, tt.in) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: got exit code %d and %q, want %d, %q, and %q in it", tt.args, code, out, tt.code, tt.begin, tt.in)
		}
	}
}
