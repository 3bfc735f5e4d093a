package runner

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
)

func do(h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func TestProbesByStatusAndGroup(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		status      verdict.Status
		groups      []string
		live, ready int
	}{
		{"a live check that passes", verdict.Pass, []string{"live"}, 200, 200},
		{"a live check that warns", verdict.Warn, []string{"live"}, 200, 200},
		{"a live check that is unknown", verdict.Unknown, []string{"live"}, 200, 503},
		{"a live check that fails", verdict.Fail, []string{"live"}, 503, 503},
		{"a ready check that passes", verdict.Pass, []string{"ready"}, 200, 200},
		{"a ready check that warns", verdict.Warn, []string{"ready"}, 200, 200},
		{"a ready check that is unknown", verdict.Unknown, []string{"ready"}, 200, 503},
		{"a ready check that fails", verdict.Fail, []string{"ready"}, 200, 503},
		{"a check of both that is unknown", verdict.Unknown, []string{"live", "ready"}, 200, 503},
		{"a check of both that fails", verdict.Fail, []string{"live", "ready"}, 503, 503},
		{"a check of neither that fails", verdict.Fail, nil, 200, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRunner()
				mustAdd(t, r, Check{Name: "a", Groups: tt.groups, Run: answer(tt.status, "secret")})
				start(t, r)
				for _, probe := range []struct {
					name    string
					handler http.Handler
					want    int
				}{{"live", r.Live(), tt.live}, {"ready", r.Ready(), tt.ready}} {
					for _, method := range []string{http.MethodGet, http.MethodHead} {
						if w := do(probe.handler, method, "/"); w.Code != probe.want {
							t.Errorf("%s %s: %d, want %d", method, probe.name, w.Code, probe.want)
						}
					}
				}
			})
		})
	}
}

func TestProbesAtAnyPathAndInFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		mustAdd(t, r,
			Check{Name: "both", Groups: []string{"live", "ready"}, Run: answer(verdict.Pass, "")},
			Check{Name: "sink", Groups: []string{"ready"}, Run: answer(verdict.Fail, "the message is for those who may read the digest")})
		start(t, r)
		mux := http.NewServeMux()
		mux.Handle("/livez", r.Live())
		mux.Handle("/some/where/readyz", r.Ready())
		tests := []struct {
			method, target string
			code           int
			body           string
		}{
			{"GET", "/livez", 200, "{}\n"},
			{"GET", "/livez?full=1", 200, "{\n    \"both\": \"OK\",\n    \"runner\": \"OK\"\n}\n"},
			{"GET", "/some/where/readyz", 503, "{}\n"},
			{"GET", "/some/where/readyz?full=1", 503, "{\n    \"both\": \"OK\",\n    \"runner\": \"OK\",\n    \"sink\": \"fail since 2000-01-01T00:00:00Z\"\n}\n"},
			{"HEAD", "/some/where/readyz?full=1", 503, ""},
			{"POST", "/livez", 405, "method not allowed\n"},
		}
		for _, tt := range tests {
			w := do(mux, tt.method, tt.target)
			if w.Code != tt.code || w.Body.String() != tt.body {
				t.Errorf("%s %s: %d %q; want %d %q", tt.method, tt.target, w.Code, w.Body, tt.code, tt.body)
			}
			if got := w.Header().Get("Cache-Control"); got != "no-store" {
				t.Errorf("%s %s: Cache-Control %q, want no-store", tt.method, tt.target, got)
			}
		}
	})
}

func TestProbesForgetRemovedChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		live, ready := r.Live(), r.Ready()
		start(t, r)
		mustAdd(t, r, Check{Name: "a", Groups: []string{"live"}, Run: answer(verdict.Fail, "")})
		synctest.Wait()
		got := []int{do(live, "GET", "/").Code, do(ready, "GET", "/").Code}
		r.Remove("a")
		got = append(got, do(live, "GET", "/").Code, do(ready, "GET", "/").Code)
		if diff := cmp.Diff([]int{503, 503, 200, 200}, got); diff != "" {
			t.Errorf("live, ready, with the check and without (-want +got):\n%s", diff)
		}
	})
}

func TestProbesSeeAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		mustAdd(t, r, Check{Name: "a", Groups: []string{"ready"}, Every: time.Second, Run: answer(verdict.Pass, "")})
		if w := do(r.Ready(), "GET", "/"); w.Code != 503 {
			t.Errorf("before the first result: %d, want 503", w.Code)
		}
		stop := start(t, r)
		if w := do(r.Ready(), "GET", "/"); w.Code != 200 {
			t.Errorf("after it: %d, want 200", w.Code)
		}
		stop()
		time.Sleep(2 * time.Second)
		if w := do(r.Ready(), "GET", "/"); w.Code != 503 {
			t.Errorf("when it is late: %d, want 503", w.Code)
		}
		if w := do(r.Live(), "GET", "/"); w.Code != 200 {
			t.Errorf("live when the runner stopped 2s ago: %d, want 200", w.Code)
		}
		time.Sleep(30 * time.Second)
		if w := do(r.Live(), "GET", "/"); w.Code != 503 {
			t.Errorf("live when the runner stopped 32s ago: %d, want 503", w.Code)
		}
	})
}
