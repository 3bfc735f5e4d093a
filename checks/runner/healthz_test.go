package runner

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

func everybody(*http.Request) bool { return true }

func TestHealthzForms(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := zoo(t)
		const health, asJSON, plainText = "application/health+json", "application/json; charset=utf-8", "text/plain; charset=utf-8"
		const open, prometheus = "application/openmetrics-text; version=1.0.0; charset=utf-8", "text/plain; version=0.0.4; charset=utf-8"
		names := `{"status":"fail","checks":{"sink/platform":[{"status":"fail"}],"a-neighbour":[{"status":"unknown"}],` +
			`"runner":[{"status":"unknown"}],"disk":[{"status":"warn"}],"stream/pods":[{"status":"pass"}]}}` + "\n"
		text := "[-]sink/platform failed\n[?]a-neighbour unknown\n[?]runner unknown\n[!]disk warn\n[+]stream/pods ok\nhealthz check failed\n"
		fullText := "[-]sink/platform failed: POST <http://platform> / status 503, want 2xx\n[?]a-neighbour unknown: no such process\n" +
			"[?]runner unknown: no result yet\n[!]disk warn: 91 % full, want <= 90 %\n[+]stream/pods ok\nhealthz check failed\n"
		nagios := "OUTRIDER FAIL: 1 of 5 checks fail: sink/platform\n"
		all := string(renderJSON(r.Digest(Query{Category: AllCategories}), true))
		tests := []struct {
			name, target, accept string
			detail               func(*http.Request) bool
			code                 int
			contentType, body    string
		}{
			{"names and statuses for who may not see more", "/healthz", "", nil, 503, health, names},
			{"anything will do", "/healthz", "*/*", nil, 503, health, names},
			{"the same bytes as plain JSON", "/healthz", "application/json", nil, 503, asJSON, names},
			{"text by format", "/healthz?format=text", "", nil, 503, plainText, text},
			{"text as the Kubernetes API server is asked", "/healthz?verbose", "", nil, 503, plainText, text},
			{"text by header", "/healthz", "text/plain", nil, 503, plainText, text},
			{"text by header among others", "/healthz", "text/html, Text/Plain;q=0.9, */*;q=0.1", nil, 503, plainText, text},
			{"JSON when the header likes both as much", "/healthz", "text/plain, application/json", nil, 503, asJSON, names},
			{"format wins over the header", "/healthz?format=json", "text/plain", nil, 503, health, names},
			{"format wins over verbose", "/healthz?format=json&verbose", "text/plain", nil, 503, health, names},
			{"text with messages", "/healthz?format=text", "", everybody, 503, plainText, fullText},
			{"Nagios", "/healthz?format=nagios", "", nil, 503, plainText, nagios},
			{"a group", "/healthz?group=live", "", nil, 200, health, `{"status":"unknown","checks":{"runner":[{"status":"unknown"}],"stream/pods":[{"status":"pass"}]}}` + "\n"},
			{"a category and a group", "/healthz?category=email&group=live&format=text", "", nil, 200, plainText, "healthz check passed\n"},
			{"a category", "/healthz?category=email", "", nil, 503, health, `{"status":"fail","checks":{"license":[{"status":"fail"}]}}` + "\n"},
			{"a check of any category", "/healthz?check=license", "", nil, 503, health, `{"status":"fail","checks":{"license":[{"status":"fail"}]}}` + "\n"},
			{"a check that warns", "/healthz?check=disk&format=nagios", "", everybody, 200, plainText, "OUTRIDER WARN: 1 of 1 check warn: disk; disk: 91 % full, want (= 90 %\n"},
			{"a warning as 429", "/healthz?check=disk&warn=429&format=text", "", nil, 429, plainText, "[!]disk warn\nhealthz check passed\n"},
			{"a failure stays a 503", "/healthz?check=license&warn=429&format=text", "", nil, 503, plainText, "[-]license failed\nhealthz check failed\n"},
			{"all of it", "/healthz?category=all", "", everybody, 503, health, all},
			{"series for who may see the status only", "/healthz?format=openmetrics&check=license", "", nil, 200, open, statusSeries("# EOF\n")},
			{"series as Prometheus had them before", "/healthz?check=license", "text/plain;version=0.0.4", nil, 200, prometheus, statusSeries("")},
			{"a check that there is not", "/healthz?check=dis", "", nil, 404, plainText, "no check \"dis\", want one of:\na-neighbour\ndisk\nlicense\nrunner\nsink/platform\nstream/pods\n"},
			{"a wrong category", "/healthz?category=pager", "", nil, 400, plainText, `category "pager", want page, email or all` + "\n"},
			{"a wrong group", "/healthz?group=%0A", "", nil, 400, plainText, `group "\n", want live, ready or startup` + "\n"},
			{"a wrong format", "/healthz?format=xml", "", nil, 400, plainText, `format "xml", want json, text, nagios, openmetrics or prometheus` + "\n"},
			{"a wrong code", "/healthz?warn=503", "", nil, 400, plainText, `warn "503", want 429 or 200` + "\n"},
			{"a value given twice", "/healthz?category=all&category=page", "", nil, 400, plainText, "category given 2 times, want once\n"},
		}
		for _, tt := range tests {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				w := do(r.Healthz(tt.detail), method, tt.target, "Accept", tt.accept)
				if w.Code != tt.code || w.Header().Get("Content-Type") != tt.contentType {
					t.Errorf("%s: %s: %d %s; want %d %s", tt.name, method, w.Code, w.Header().Get("Content-Type"), tt.code, tt.contentType)
				}
				if got := w.Header().Get("Cache-Control"); got != "no-store" {
					t.Errorf("%s: %s: Cache-Control %q, want no-store", tt.name, method, got)
				}
				if got := w.Header().Get("Content-Length"); tt.code != 400 && tt.code != 404 && got != strconv.Itoa(len(tt.body)) {
					t.Errorf("%s: %s: Content-Length %s, want %d", tt.name, method, got, len(tt.body))
				}
				if diff := cmp.Diff(tt.body, w.Body.String()); method == http.MethodGet && diff != "" {
					t.Errorf("%s (-want +got):\n%s", tt.name, diff)
				}
			}
		}
	})
}

func statusSeries(end string) string {
	return "# HELP outrider_check_status Verdict on the check, as it counts: 0 pass, 1 warn, 2 fail, 3 unknown. A check in maintenance passes.\n" +
		"# TYPE outrider_check_status gauge\n" + `outrider_check_status{check="license",category="email"} 2` + "\n" + end
}

func TestHealthzRefusesOtherMethods(t *testing.T) {
	t.Parallel()
	w := do(newRunner().Healthz(nil), http.MethodPost, "/healthz")
	if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" || w.Body.String() != "method POST, want GET or HEAD\n" {
		t.Errorf("POST: %d, Allow %q, %q", w.Code, w.Header().Get("Allow"), w.Body)
	}
}

func TestHealthzByStatus(t *testing.T) {
	t.Parallel()
	tests := []struct {
		status verdict.Status
		code   int
		word   string
	}{
		{verdict.Pass, 200, "ok\n"},
		{verdict.Warn, 200, "warn\n"},
		{verdict.Unknown, 200, "unknown\n"},
		{verdict.Fail, 503, "fail\n"},
	}
	for _, tt := range tests {
		t.Run(tt.status.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRunner()
				mustAdd(t, r,
					Check{Name: "a", Run: answer(tt.status, "")},
					Check{Name: "mail", Category: verdict.Email, Run: answer(verdict.Fail, "")})
				start(t, r)
				if w := do(r.Healthz(nil), "GET", "/healthz"); w.Code != tt.code {
					t.Errorf("healthz: %d, want %d", w.Code, tt.code)
				}
				if w := do(r.Probe(), "GET", "/healthz"); w.Code != tt.code || w.Body.String() != tt.word {
					t.Errorf("probe: %d %q, want %d %q", w.Code, w.Body, tt.code, tt.word)
				}
				if w := do(r.Probe(), "GET", "/healthz?category=all"); w.Code != 503 || w.Body.String() != "fail\n" {
					t.Errorf("probe of all: %d %q, want 503 fail", w.Code, w.Body)
				}
				if w := do(r.Probe(), "GET", "/healthz?verbose"); w.Code != tt.code || w.Body.String() != tt.word {
					t.Errorf("probe, verbose: %d %q, want %d %q", w.Code, w.Body, tt.code, tt.word)
				}
				for _, query := range []string{"format=json", "check=a", "check=nowhere"} {
					if w := do(r.Probe(), "GET", "/healthz?"+query); w.Code != 400 {
						t.Errorf("probe with %s: %d %q, want 400", query, w.Code, w.Body)
					}
				}
			})
		})
	}
}

func TestHealthzIsNeverOlderThanTheVerdicts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		status := verdict.Pass
		mustAdd(t, r, Check{Name: "a", Every: time.Second, Run: func(context.Context) verdict.Result { return verdict.Result{Status: status} }})
		h := r.Healthz(nil)
		code := func() int { return do(h, "GET", "/healthz").Code }
		got := []int{code()}
		for _, status = range []verdict.Status{verdict.Fail, verdict.Pass, verdict.Fail} {
			if err := r.RunNow(t.Context()); err != nil {
				t.Fatal(err)
			}
			got = append(got, code())
		}
		r.Remove("a")
		got = append(got, code())
		if diff := cmp.Diff([]int{200, 503, 200, 503, 200}, got); diff != "" {
			t.Errorf("codes (-want +got):\n%s", diff)
		}

		status = verdict.Pass
		mustAdd(t, r, Check{Name: "b", Every: time.Second, Run: answer(verdict.Pass, "")})
		if err := r.RunNow(t.Context()); err != nil {
			t.Fatal(err)
		}
		got = []int{code()}
		time.Sleep(3*time.Second - 1)
		got = append(got, code())
		time.Sleep(maxPageAge)
		got = append(got, code())
		if diff := cmp.Diff([]int{200, 200, 503}, got); diff != "" {
			t.Errorf("codes as the result ages (-want +got):\n%s", diff)
		}
	})
}

func TestHealthzRendersABurstOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := zoo(t)
		v := view{category: "page"}
		first := r.page(v)
		time.Sleep(maxPageAge - 1)
		if r.page(v) != first {
			t.Error("rendered anew although nothing changed")
		}
		time.Sleep(time.Nanosecond)
		if r.page(v) == first {
			t.Errorf("a page was served at an age of %v", maxPageAge)
		}
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		reg := metricstest.Registry(t)
		if err := r.Metrics(reg); err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		mustAdd(t, r,
			Check{Name: "a", Category: verdict.Email, Every: time.Hour, Run: answer(verdict.Warn, "")},
			Check{Name: "hung", Every: time.Hour, Run: func(context.Context) verdict.Result { <-release; return verdict.Result{} }})
		start(t, r)
		time.Sleep(61 * time.Second) // a heartbeat each 5 seconds, the first at once
		synctest.Wait()
		var got []string
		for _, f := range reg.Gather() {
			for _, p := range f.Points {
				got = append(got, fmt.Sprintf("%s{%s} %v", f.Desc.Name, strings.Join(p.Tags, ","), p.Value))
			}
		}
		close(release)
		want := []string{
			"outrider_check_busy_seconds_total{a,email} 0",
			"outrider_check_busy_seconds_total{hung,page} 0",
			"outrider_check_busy_seconds_total{runner,page} 0",
			"outrider_check_changes_total{a,email} 1",
			"outrider_check_changes_total{hung,page} 1",
			"outrider_check_changes_total{runner,page} 1",
			"outrider_check_duration_seconds{a,email} 0",
			"outrider_check_duration_seconds{hung,page} 0",
			"outrider_check_duration_seconds{runner,page} 0",
			"outrider_check_flapping{a,email} 0",
			"outrider_check_flapping{hung,page} 0",
			"outrider_check_flapping{runner,page} 0",
			"outrider_check_runs_total{a,email} 1",
			"outrider_check_runs_total{hung,page} 0",
			"outrider_check_runs_total{runner,page} 13",
			"outrider_check_stale{a,email} 0",
			"outrider_check_stale{hung,page} 1",
			"outrider_check_stale{runner,page} 0",
			"outrider_check_status{a,email} 1",
			"outrider_check_status{hung,page} 2",
			"outrider_check_status{runner,page} 0",
			"outrider_checks_stuck{} 1",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
	})
}

// Everything at once, for the race detector and for deadlocks.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	r := newRunner()
	reg := metricstest.Registry(t)
	if err := r.Metrics(reg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	var wg sync.WaitGroup
	for i, work := range []func(i int){
		func(i int) {
			name := fmt.Sprintf("check-%d", i%5)
			err := r.Add(Check{Name: name, Groups: []string{"live"}, Every: time.Millisecond, Run: func(context.Context) verdict.Result {
				if i%7 == 0 {
					panic("boom")
				}
				return verdict.Result{Status: verdict.Status(i % 4)}
			}})
			if err != nil {
				t.Error(err)
			}
			if err := r.RunNow(t.Context(), name); err != nil {
				t.Error(err)
			}
			r.Remove(name)
		},
		func(int) { do(r.Healthz(everybody), "GET", "/healthz?category=all") },
		func(int) { do(r.Probe(), "GET", "/healthz") },
		func(int) { do(r.Ready(), "GET", "/readyz?full=1") },
		func(int) { reg.Gather() },
	} {
		wg.Go(func() {
			for n := range 100 {
				work(n*10 + i)
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
