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
//
// Who probes is a machine, and what it does differs. To restart a process helps
// only against its own failure: a dependency's, one that a remedy works on and one
// in maintenance are none for the live probe. Traffic is not sent to what is
// broken, whatever the reason and whoever knows: for the ready probe the bare
// verdict counts.
type probes struct {
	live, ready, startup http.HandlerFunc
}

func (r *Runner) newProbes(entries []*entry) probes {
	live, ready, startup := healthcheck.NewHandler(), healthcheck.NewHandler(), healthcheck.NewHandler()
	for _, e := range entries {
		if e.in(LiveGroup) {
			live.AddLivenessCheck(e.check.Name, func() error {
				_, v := r.show(r.set.Load(), e, r.now())
				return said(v.Status == verdict.Fail, v.Status, v.Since)
			})
		}
		if e.in(LiveGroup) || e.in(ReadyGroup) {
			ready.AddReadinessCheck(e.check.Name, func() error {
				s := e.at(r.now())
				return said(verdict.Compare(s.Status, verdict.Warn) > 0, s.Status, s.Since)
			})
		}
		if e.in(StartupGroup) {
			startup.AddReadinessCheck(e.check.Name, func() error {
				s := e.at(r.now())
				return said(!e.cameUp.Load(), s.Status, s.Since)
			})
		}
	}
	return probes{live: live.LiveEndpoint, ready: ready.ReadyEndpoint, startup: startup.ReadyEndpoint}
}

// said is the verdict as heptio wants it. It says no more than the status, because
// probes are open to everybody.
func said(bad bool, s verdict.Status, since time.Time) error {
	if !bad {
		return nil
	}
	return fmt.Errorf("%v since %s", s, since.UTC().Format(time.RFC3339))
}

// Live answers Kubernetes' liveness probe, on whatever path it is mounted: 200
// or, when a check of group live fails, 503. With ?full=1 the body names the
// checks. Not to know is no failure: a restart would not teach it.
func (r *Runner) Live() http.Handler {
	return probeHandler(func() http.HandlerFunc { return r.set.Load().probes.live })
}

// Ready answers Kubernetes' readiness probe, on whatever path it is mounted:
// 200 or, when a check of group live or ready fails or is unknown, 503. With
// ?full=1 the body names the checks.
func (r *Runner) Ready() http.Handler {
	return probeHandler(func() http.HandlerFunc { return r.set.Load().probes.ready })
}

// Startup answers Kubernetes' startup probe, on whatever path it is mounted: 503
// until every check of group startup has passed once, or warned, then 200. With
// ?full=1 the body names the checks.
func (r *Runner) Startup() http.Handler {
	return probeHandler(func() http.HandlerFunc { return r.set.Load().probes.startup })
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
