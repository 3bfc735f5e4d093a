package runner

import (
	"fmt"
	"net/http"
	"time"

	"github.com/heptiolabs/healthcheck"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// The probes are answered by heptiolabs/healthcheck, kept on a short lead: it
// calls checks one after the other under a lock, so it is given closures that
// only read a verdict; it cannot remove a check, so it is built anew; it
// answers "503 OK" when a name is registered for both endpoints, so each
// endpoint has a handler of its own; it refuses HEAD, so it never sees it.
type probes struct {
	live, ready http.HandlerFunc
}

func (r *Runner) newProbes(entries []*entry) probes {
	live, ready := healthcheck.NewHandler(), healthcheck.NewHandler()
	for _, e := range entries {
		if e.in(LiveGroup) {
			live.AddLivenessCheck(e.check.Name, func() error { return e.probe(r.now(), false) })
		}
		if e.in(LiveGroup) || e.in(ReadyGroup) {
			ready.AddReadinessCheck(e.check.Name, func() error { return e.probe(r.now(), true) })
		}
	}
	return probes{live: live.LiveEndpoint, ready: ready.ReadyEndpoint}
}

// probe is the verdict as heptio wants it. A failure is an error. Not to know
// is one for readiness, since a process that cannot tell yet is not ready, but
// not for liveness: to restart it would not teach it. The error says no more
// than the status, because probes are open to everybody.
func (e *entry) probe(now time.Time, known bool) error {
	s := e.view(now)
	if s.Status == verdict.Fail || known && s.Status == verdict.Unknown {
		return fmt.Errorf("%v since %s", s.Status, s.Since.UTC().Format(time.RFC3339))
	}
	return nil
}

// Live answers Kubernetes' liveness probe, on whatever path it is mounted: 200
// or, when a check of group live fails, 503. With ?full=1 the body names the
// checks.
func (r *Runner) Live() http.Handler {
	return probeHandler(func() http.HandlerFunc { return r.set.Load().probes.live })
}

// Ready answers Kubernetes' readiness probe, on whatever path it is mounted:
// 200 or, when a check of group live or ready fails or is unknown, 503. With
// ?full=1 the body names the checks.
func (r *Runner) Ready() http.Handler {
	return probeHandler(func() http.HandlerFunc { return r.set.Load().probes.ready })
}

func probeHandler(endpoint func() http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if req.Method == http.MethodHead {
			get := *req
			get.Method = http.MethodGet
			w, req = bodyless{w}, &get
		}
		endpoint()(w, req)
	})
}

// A bodyless writer drops the body, as the answer to HEAD has to.
type bodyless struct{ http.ResponseWriter }

func (bodyless) Write(b []byte) (int, error) { return len(b), nil }
