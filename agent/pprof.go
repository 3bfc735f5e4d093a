package agent

import (
	"expvar"
	"net/http"
	"net/http/pprof"
	"strconv"
)

// maxProfileSeconds is above any profile that a person waits for.
const maxProfileSeconds = 300

// handlePprof mounts the profiles on mux, each behind guard. The handlers are
// named one by one: the mux on which the package registers itself is never
// served (CVE-2019-11248 is what happens to those who do).
func handlePprof(mux *http.ServeMux, guard func(http.Handler) http.Handler) {
	handle := func(path string, h http.HandlerFunc) { mux.Handle(path, guard(h)) }
	one := make(chan struct{}, 1)
	handle("/debug/pprof/", timed(nil, pprof.Index))
	handle("/debug/pprof/cmdline", pprof.Cmdline)
	handle("/debug/pprof/symbol", pprof.Symbol)
	handle("/debug/pprof/profile", timed(one, pprof.Profile))
	handle("/debug/pprof/trace", timed(one, pprof.Trace))
	mux.Handle("/debug/vars", guard(expvar.Handler()))
}

// timed bounds how long a profile may take and, where there is a slot, how
// many run at once: the runtime has one CPU profiler. The pprof package moves
// the server's write deadline by the seconds asked for.
func timed(slot chan struct{}, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s := r.FormValue("seconds"); s != "" {
			if n, err := strconv.ParseFloat(s, 64); err != nil || !(n > 0 && n <= maxProfileSeconds) {
				http.Error(w, "seconds "+strconv.Quote(s[:min(len(s), 20)])+", want more than 0 and at most "+strconv.Itoa(maxProfileSeconds), http.StatusBadRequest)
				return
			}
		}
		if slot != nil {
			select {
			case slot <- struct{}{}:
				defer func() { <-slot }()
			default:
				w.Header().Set("Retry-After", "30")
				http.Error(w, "another CPU profile or trace runs: want one at a time", http.StatusTooManyRequests)
				return
			}
		}
		h(w, r)
	}
}
