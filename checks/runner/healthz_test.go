package runner

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

func everybody(*http.Request) bool { return true }

func TestHealthzForms(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := zoo(t)
		names := `{"status":"fail","checks":[{"name":"sink/platform","status":"fail"},{"name":"a-neighbour","status":"unknown"},` +
			`{"name":"runner","status":"unknown"},{"name":"disk","status":"warn"},{"name":"stream/pods","status":"pass"}]}` + "\n"
		text := "[-]sink/platform failed\n[?]a-neighbour unknown\n[?]runner unknown\n[!]disk warn\n[+]stream/pods ok\nhealthz check failed\n"
		fullText := "[-]sink/platform failed: POST <http://platform> / status 503, want 2xx\n[?]a-neighbour unknown: no such process\n" +
			"[?]runner unknown: no result yet\n[!]disk warn: 91 % full, want <= 90 %\n[+]stream/pods ok\nhealthz check failed\n"
		tests := []struct {
			name, target, accept string
			detail               func(*http.Request) bool
			code                 int
			contentType, body    string
		}{
			{"names and statuses for who may not see more", "/healthz", "", nil, 503, "application/json; charset=utf-8", names},
			{"text by format", "/healthz?format=text", "", nil, 503, "text/plain; charset=utf-8", text},
			{"text by header", "/healthz", "text/plain", nil, 503, "text/plain; charset=utf-8", text},
			{"text by header among others", "/healthz", "text/html, Text/Plain;q=0.9, */*", nil, 503, "text/plain; charset=utf-8", text},
			{"JSON when the header names both", "/healthz", "text/plain, application/json", nil, 503, "application/json; charset=utf-8", names},
			{"format wins over the header", "/healthz?format=json", "text/plain", nil, 503, "application/json; charset=utf-8", names},
			{"text with messages", "/healthz?format=text", "", everybody, 503, "text/plain; charset=utf-8", fullText},
			{"a group", "/healthz?group=live", "", nil, 200, "application/json; charset=utf-8", `{"status":"unknown","checks":[{"name":"runner","status":"unknown"},{"name":"stream/pods","status":"pass"}]}` + "\n"},
			{"a category and a group", "/healthz?category=email&group=live&format=text", "", nil, 200, "text/plain; charset=utf-8", "healthz check passed\n"},
			{"a category", "/healthz?category=email", "", nil, 503, "application/json; charset=utf-8", `{"status":"fail","checks":[{"name":"license","status":"fail"}]}` + "\n"},
			{"all of it", "/healthz?category=all", "", everybody, 503, "application/json; charset=utf-8", string(renderJSON(r.Digest(Query{Category: AllCategories}), true))},
			{"a wrong category", "/healthz?category=pager", "", nil, 400, "text/plain; charset=utf-8", `category "pager", want page, email or all` + "\n"},
			{"a wrong group", "/healthz?group=%0A", "", nil, 400, "text/plain; charset=utf-8", `group "\n", want live or ready` + "\n"},
			{"a wrong format", "/healthz?format=xml", "", nil, 400, "text/plain; charset=utf-8", `format "xml", want json or text` + "\n"},
			{"a value given twice", "/healthz?category=all&category=page", "", nil, 400, "text/plain; charset=utf-8", "category given 2 times, want once\n"},
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
				if got := w.Header().Get("Content-Length"); tt.code != 400 && got != strconv.Itoa(len(tt.body)) {
					t.Errorf("%s: %s: Content-Length %s, want %d", tt.name, method, got, len(tt.body))
				}
				if diff := cmp.Diff(tt.body, w.Body.String()); method == http.MethodGet && diff != "" {
					t.Errorf("%s (-want +got):\n%s", tt.name, diff)
				}
			}
		}
	})
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
				if w := do(r.Probe(), "GET", "/healthz?format=json"); w.Code != 400 {
					t.Errorf("probe as JSON: %d, want 400", w.Code)
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
		reg := metrics.NewRegistry()
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
			"outrider_check_changes_total{a,email} 1",
			"outrider_check_changes_total{hung,page} 1",
			"outrider_check_changes_total{runner,page} 1",
			"outrider_check_duration_seconds{a,email} 0",
			"outrider_check_duration_seconds{hung,page} 5.1",
			"outrider_check_duration_seconds{runner,page} 0",
			"outrider_check_runs_total{a,email} 1",
			"outrider_check_runs_total{hung,page} 1",
			"outrider_check_runs_total{runner,page} 13",
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
	reg := metrics.NewRegistry()
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

// BenchmarkHealthz compares the digest of 100 checks with a handler that
// writes the same bytes, one request each in turn. The budget is a ratio of at
// least 0.70.
func BenchmarkHealthz(b *testing.B) {
	r := newRunner()
	for i := range 99 { // and the heartbeat
		mustAdd(b, r, Check{Name: fmt.Sprintf("check/%02d", i), Every: time.Hour, Run: answer(verdict.Status(i%4), "status 503, want 2xx")})
	}
	if err := r.RunNow(b.Context()); err != nil {
		b.Fatal(err)
	}
	body := r.page(view{category: "page", form: fullJSON}).body
	ours := httptest.NewServer(r.Healthz(everybody))
	defer ours.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write(body)
	}))
	defer plain.Close()
	buf := make([]byte, 64<<10)
	fetch := func(url string) time.Duration {
		began := time.Now()
		res, err := http.Get(url)
		if err != nil {
			b.Fatal(err)
		}
		defer res.Body.Close()
		for {
			if _, err := res.Body.Read(buf); err != nil {
				break
			}
		}
		return time.Since(began)
	}
	var digest, same time.Duration
	for b.Loop() {
		digest += fetch(ours.URL)
		same += fetch(plain.URL)
	}
	b.ReportMetric(float64(same)/float64(digest), "ratio")
	b.ReportMetric(float64(b.N)/digest.Seconds(), "digest/s")
	b.ReportMetric(float64(b.N)/same.Seconds(), "plain/s")
	b.ReportMetric(float64(len(body)), "bytes")
}
