package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// figureOf is a digest with one check.
func figureOf(status, more string) string {
	return fmt.Sprintf(`{"status":%[1]q,"serviceId":"shop","checks":{"alert/x":[{"status":%[1]q%[2]s}]}}`, status, more)
}

func TestAFigureIsJudgedByTheRangesGiven(t *testing.T) {
	t.Parallel()
	value := func(v string) string { return figureOf("fail", `,"observedUnit":"seconds","observedValue":`+v) }
	for _, tt := range []struct {
		name, body, args string
		code             int
		want             string
	}{
		{"the agent's failure is fine here", value("7"), "--warn 10 --crit 20", 0, "PASS shop: alert/x is 7 | time="},
		{"the agent's pass warns here", figureOf("pass", `,"observedValue":11,"output":"11 wait"`), "--warn 10 --crit 20", 1, "WARN shop: alert/x is 11, want 0 to 10 (11 wait) | time="},
		{"it fails", value("20.000001"), "--warn 10 --crit 20", 2, "FAIL shop: alert/x is 20.000001, want 0 to 20 | time="},
		{"the range has only a lower end", value("4"), "--crit 5:", 2, "alert/x is 4, want at least 5 |"},
		{"the range has only an upper end", value("5"), "--crit ~:4.5", 2, "alert/x is 5, want at most 4.5 |"},
		{"the inside alerts", value("15"), "--warn @10:20", 1, "alert/x is 15, want less than 10 or more than 20 |"},
		{"the inside alerts, and it is outside", value("21"), "--warn @10:20", 0, "PASS"},
		{"an empty range is none", value("11"), "--warn 10 --crit= --warn-clear= --crit-clear= --last OK --last-type HARD", 1, "WARN"},
		{"no figure alerts, and there is one", value("1e9"), "--warn ~:", 0, "PASS"},
		{"performance data has the ranges", value("0.25"), "--warn ~:10 --crit @20:", 0, "time=0"},
		{"performance data has them as they are", value("0.25"), "--warn ~:10 --crit @20:", 0, " alert/x=0.25s;~:10;@20:\n"},

		// Recovery values.
		{"critical stays so until the clear range", value("15"), "--crit 20 --crit-clear 10 --last CRITICAL --last-type HARD", 2, "alert/x is 15, want 0 to 10 to recover |"},
		{"critical is over within the clear range", value("10"), "--crit 20 --crit-clear 10 --last CRITICAL --last-type HARD", 0, "PASS"},
		{"what was tried only is not cleared", value("15"), "--crit 20 --crit-clear 10 --last CRITICAL --last-type SOFT", 0, "PASS"},
		{"what was fine is not cleared", value("15"), "--crit 20 --crit-clear 10 --last OK --last-type HARD", 0, "PASS"},
		{"what was not known is not cleared", value("15"), "--crit 20 --crit-clear 10 --last UNKNOWN --last-type HARD", 0, "PASS"},
		{"what was a warning has not failed", value("15"), "--crit 20 --crit-clear 10 --last WARNING --last-type HARD", 0, "PASS"},
		{"a warning stays so until its clear range", value("8"), "--warn 10 --warn-clear 5 --last WARNING --last-type HARD", 1, "want 0 to 5 to recover"},
		{"a warning of what was critical, too", value("8"), "--warn 10 --warn-clear 5 --crit 20 --last CRITICAL --last-type HARD", 1, "want 0 to 5 to recover"},
		{"from critical to the warning in between", value("15"), "--warn 10 --crit 20 --crit-clear 18 --last CRITICAL --last-type HARD", 1, "want 0 to 10 |"},
		{"worse again than a warning", value("21"), "--warn 10 --warn-clear 5 --crit 20 --last WARNING --last-type HARD", 2, "want 0 to 20 |"},

		// No figure.
		{"a pass without a figure", figureOf("pass", `,"output":"no series"`), "--crit 20", 0, "PASS shop: alert/x: nothing to judge (no series) | time="},
		{"a pass whose figure is null", figureOf("pass", `,"observedValue":null`), "--crit 20", 0, "nothing to judge"},
		{"unknown", figureOf("unknown", `,"observedValue":1,"output":"no sample"`), "--crit 20", 3, "UNKNOWN shop: alert/x is not known (no sample)\n"},
		{"late", figureOf("fail", `,"observedValue":1,"stale":true,"output":"no result since 12:00"`), "--crit 20", 3, "UNKNOWN shop: alert/x is late (no result since 12:00)\n"},
		{"late in maintenance", figureOf("pass", `,"observedValue":1,"stale":true`), "--crit 20", 3, "alert/x is late\n"},
		{"a failure without a figure", figureOf("fail", ""), "--crit 20", 3, "alert/x has no figure to judge, and it says fail\n"},
		{"a figure that is no number", figureOf("pass", `,"observedValue":"plenty"`), "--crit 20", 3, "the figure of alert/x is plenty, want a number"},
		{"a figure that is beyond numbers", figureOf("pass", `,"observedValue":1e999`), "--crit 20", 3, "want a number"},
		{"a digest without the check", `{"status":"pass","checks":{}}`, "--crit 20", 3, "no check alert/x there: has the agent alerts: {} in its configuration"},
		{"another check", `{"status":"pass","checks":{"y":[{"status":"pass","observedValue":1}]}}`, "--crit 20", 3, "got 1 checks, the first of them y, want alert/x alone"},
		{"two of one name", `{"status":"pass","checks":{"alert/x":[{"status":"pass","observedValue":1},{"status":"pass","observedValue":99}]}}`, "--crit 20", 3, "got 2 checks"},
		{"more of it with -v", value("7"), "--crit 20 -v", 0, "\n[FAIL] alert/x\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(healthJSON(http.StatusOK, tt.body))
			defer srv.Close()
			out, code := runCheckCommand(t, append([]string{"digest", srv.URL, "--check=alert/x"}, strings.Fields(tt.args)...)...)
			if code != tt.code || !strings.Contains(out, tt.want) {
				t.Errorf("got exit code %d and %q, want %d and %q", code, out, tt.code, tt.want)
			}
			if text, _, _ := strings.Cut(out, "|"); strings.ContainsAny(text, "`~$&'\"<>\\") {
				t.Errorf("got %q, want a text that Nagios takes as it is", text)
			}
		})
	}
}

// Who judges a figure leaves it to the service outrider-agent to tell that nobody
// answers.
func TestWithoutAnAnswerAFigureIsNotKnown(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	deaf := "http://" + raw(t, func(net.Conn) { <-t.Context().Done() })
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		address string
		code    int
		want    string
	}{
		"refused":      {nil, gone.URL, 2, "connection refused"},
		"no answer":    {nil, deaf, 2, "no answer in 200ms"},
		"no login":     {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "unauthorized", http.StatusUnauthorized) }, "", 3, "status 401"},
		"another page": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "404 page not found", http.StatusNotFound) }, "", 3, "status 404 that begins with 404 page not found"},
		"no such check": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no check \"alert/x\", want one of:\nrunner", http.StatusNotFound)
		}, "", 3, "no check alert/x"},
		"a digest of bad": {healthJSON(503, `{"status":"fail"}`), "", 3, "it has no checks"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.handler != nil {
				srv := httptest.NewServer(tt.handler)
				defer srv.Close()
				tt.address = srv.URL
			}
			for args, want := range map[string]int{"": tt.code, "--crit=1": 3, "--warn=1 --last=CRITICAL --last-type=HARD": 3} {
				out, code := runCheckCommand(t, append([]string{"digest", tt.address, "-t=200ms", "--check=alert/x"}, strings.Fields(args)...)...)
				if code != want || !strings.Contains(out, tt.want) {
					t.Errorf("with %q got exit code %d and %q, want %d and %q", args, code, out, want, tt.want)
				}
				if hint := "no check alert/x there: has the agent alerts: {} in its configuration"; name == "no such check" && args != "" && !strings.Contains(out, hint) {
					t.Errorf("with %q got %q, want %q", args, out, hint)
				}
			}
		})
	}
}

func TestFlagsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, want string }{
		{"--warn 1", "--warn and --crit: got no --check"},
		{"--crit 1 --check=", "--warn and --crit: got no --check"},
		{"--crit 1 --check a --check b", "--check: got it 2 times"},
		{"--check a --warn-clear 1", "got neither --warn nor --crit with a range"},
		{"--check a --crit-clear 1 --last OK --last-type HARD", "got neither --warn nor --crit with a range"},
		{"--check a --last OK --last-type HARD", "got neither --warn nor --crit with a range"},
		{"--check a --warn= --crit=", "got neither --warn nor --crit with a range"},
		{"--check a --crit 10 --last OK", "got only one of --last and --last-type"},
		{"--check a --crit 10 --last-type HARD", "got only one of --last and --last-type"},
		{"--check a --crit 10 --last DOWN --last-type HARD", "--last: got DOWN, want OK, WARNING"},
		{"--check a --crit 10 --last OK --last-type FIRM", "--last-type: got FIRM, want SOFT or HARD"},
		{"--check a --crit 10 --crit-clear 5", "got no --last and --last-type"},
		{"--check a --crit 10 --warn-clear 5 --last OK --last-type HARD", "--warn-clear: got 5, want none without warn"},
		{"--check a --crit 10 --crit-clear 20 --last OK --last-type HARD", "--crit-clear: got 20, want a range within crit, which is 10"},
		{"--check a --crit ten", "start:end such as 10, 10:, 10:20 or @10:20"},
		{"--check a --crit 10:5", "it ends before it starts"},
		{"--check a --crit 10 --fan-out x --fan-out-host h", "--fan-out: got --warn or --crit, too"},
		{"--check a --without b", "--without: got --check, too"},
	} {
		out, code := runCheckCommand(t, append([]string{"digest", "http://127.0.0.1:1"}, strings.Fields(tt.args)...)...)
		if code != 3 || !strings.Contains(out, tt.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("check digest %s: got exit code %d and %q, want 3 and %q", tt.args, code, out, tt.want)
		}
	}
}

// What has services of its own is left out of the digest, but for what these cannot
// know.
func TestWhatOthersTellOfIsLeftOut(t *testing.T) {
	t.Parallel()
	check := func(name, status, more string) string {
		return fmt.Sprintf(`%q:[{"status":%q%s}]`, name, status, more)
	}
	digest := func(status string, checks ...string) string {
		return fmt.Sprintf(`{"status":%q,"serviceId":"shop","fingerprint":"3fa","checks":{%s}}`, status, strings.Join(checks, ","))
	}
	for name, tt := range map[string]struct {
		body string
		code int
		want string
	}{
		"a failure of theirs":              {digest("fail", check("alert/x", "fail", ""), check("db", "pass", "")), 0, "PASS shop: 1 page checks pass | "},
		"a failure of ours":                {digest("fail", check("alert/x", "fail", ""), check("db", "fail", "")), 2, "FAIL shop: db; 1 fail of 1 page checks | "},
		"a warning of ours":                {digest("fail", check("alert/x", "fail", ""), check("db", "warn", "")), 1, "WARN shop: db (warn); 1 warn of 1 page checks | "},
		"all are theirs":                   {digest("fail", check("alert/x", "fail", "")), 0, "PASS shop: 0 page checks pass"},
		"one of theirs is unknown":         {digest("fail", check("alert/x", "fail", ""), check("alert/y", "unknown", "")), 3, "UNKNOWN shop: alert/y (unknown); 1 unknown of 1 page checks | "},
		"one of theirs is late":            {digest("fail", check("alert/x", "fail", `,"stale":true`)), 2, "FAIL shop: alert/x; 1 fail of 1 page checks [fingerprint 3fa] | "},
		"a name that has it in the middle": {digest("fail", check("an/alert/x", "fail", "")), 2, "FAIL shop: an/alert/x"},
		"a failure that is no check's":     {digest("fail", check("alert/x", "pass", "")), 2, "FAIL shop: 0 page checks pass"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(healthJSON(http.StatusOK, tt.body))
			defer srv.Close()
			if out, code := runCheckCommand(t, "digest", srv.URL, "--without=alert/"); code != tt.code || !strings.Contains(out, tt.want) {
				t.Errorf("got exit code %d and %q, want %d and %q", code, out, tt.code, tt.want)
			}
			if out, code := runCheckCommand(t, "digest", srv.URL, "--without="); code == 0 || !strings.Contains(out, "fingerprint 3fa") {
				t.Errorf("without a beginning got exit code %d and %q, want all", code, out)
			}
		})
	}
}
