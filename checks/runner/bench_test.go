package runner

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// A race is the digest of 100 checks against a handler that writes the same bytes,
// each behind a server of its own.
type race struct {
	digest, plain string // URLs
	bytes         int
	buf           []byte
}

func newRace(t testing.TB) *race {
	r := newRunner()
	for i := range 99 { // and the heartbeat
		mustAdd(t, r, Check{Name: fmt.Sprintf("check/%02d", i), Every: time.Hour, Run: answer(verdict.Status(i%4), "status 503, want 2xx")})
	}
	if err := r.RunNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	body := r.page(view{category: "page", full: true}).body
	ours := httptest.NewServer(r.Healthz(everybody))
	t.Cleanup(ours.Close)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/health+json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write(body)
	}))
	t.Cleanup(plain.Close)
	return &race{digest: ours.URL, plain: plain.URL, bytes: len(body), buf: make([]byte, 64<<10)}
}

// fetch reads one answer, and wants all of it.
func (r *race) fetch(t testing.TB, url string) time.Duration {
	began := time.Now()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	total := 0
	for err == nil {
		var n int
		n, err = res.Body.Read(r.buf)
		total += n
	}
	if res.StatusCode != http.StatusServiceUnavailable || total < r.bytes*9/10 {
		t.Fatalf("%s: status %d, %d bytes; want 503, about %d", url, res.StatusCode, total, r.bytes)
	}
	return time.Since(began)
}

// BenchmarkHealthz100Checks asks both, one request each in turn. The budget is a
// ratio of at least 0.70.
func BenchmarkHealthz100Checks(b *testing.B) {
	r := newRace(b)
	var digest, plain time.Duration
	for b.Loop() {
		digest += r.fetch(b, r.digest)
		plain += r.fetch(b, r.plain)
	}
	b.ReportMetric(float64(plain)/float64(digest), "ratio")
	b.ReportMetric(float64(b.N)/digest.Seconds(), "digest/s")
	b.ReportMetric(float64(b.N)/plain.Seconds(), "plain/s")
	b.ReportMetric(float64(r.bytes), "bytes")
}

// TestHealthzIsAboutAsFastAsItsBytes leaves room for noise below the budget of 0.70,
// and for the race detector.
func TestHealthzIsAboutAsFastAsItsBytes(t *testing.T) {
	r := newRace(t)
	best := 0.0
	for range 5 {
		var digest, plain time.Duration
		for range 200 {
			digest += r.fetch(t, r.digest)
			plain += r.fetch(t, r.plain)
		}
		if best = max(best, float64(plain)/float64(digest)); best >= 0.70 {
			break
		}
	}
	t.Logf("ratio %.2f, budget 0.70", best)
	if best < 0.45 {
		t.Errorf("%.2f of the requests/s of a handler that writes the same %d bytes, want 0.70 or, with noise, 0.45", best, r.bytes)
	}
}
