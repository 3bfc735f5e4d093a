package agent

import (
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/agent/listen"
)

// An endpoint is one line of an index page.
type endpoint struct {
	Path, Help string
}

// publicHandler has the probes, and what may be read. A component may bring a
// page of its own for "/{$}" or "/", which then takes the place of the index.
func (a *Agent) publicHandler() (http.Handler, error) {
	mux := http.NewServeMux()
	mux.Handle("/healthz", a.gate.Healthz(a.runner.Healthz(listen.Detail), a.runner.Probe()))
	mux.Handle("/livez", a.gate.Probe(a.runner.Live()))
	mux.Handle("/readyz", a.gate.Probe(a.runner.Ready()))
	mux.Handle("/startupz", a.gate.Probe(a.runner.Startup()))
	index := []endpoint{
		{"/healthz", "The digest of all checks; ?category=all has those that page nobody, ?verbose is for people."},
		{"/livez", "Whether this process should go on: the liveness probe."},
		{"/readyz", "Whether this process is ready: the readiness probe."},
		{"/startupz", "Whether this process has started: the startup probe."},
	}
	if a.opts.MetricsHandler != nil {
		mux.Handle("/metrics", a.gate.Read("metrics", a.opts.MetricsHandler(a.opts.Registry, a.program)))
		index = append(index, endpoint{"/metrics", "Time series in the Prometheus format: the pipelines, the checks, the agent."})
	}
	ownIndex := false
	for _, c := range a.opts.Components {
		routes, ok := c.(Routes)
		if !ok {
			continue
		}
		all := routes.Routes()
		for _, pattern := range slices.Sorted(maps.Keys(all)) {
			path := pattern[max(0, strings.Index(pattern, "/")):]
			open := ""
			if strings.HasPrefix(path, "/metrics/") {
				open = "metrics" // who may read those may read these
			}
			if err := mount(mux, pattern, a.gate.Read(open, all[pattern])); err != nil {
				return nil, fmt.Errorf("component %s: route %s: %w", c.Name(), pattern, err)
			}
			path = strings.TrimSuffix(path, "{$}")
			ownIndex = ownIndex || path == "/"
			if !strings.Contains(path, "{") {
				index = append(index, endpoint{path, "Served by " + c.Name() + "."})
			}
		}
	}
	if !ownIndex {
		mux.Handle("/{$}", a.gate.Read("", a.index("", index)))
	}
	return a.gate.Headers(mux), nil
}

// debugHandler has what looks inside the process, and what acts.
func (a *Agent) debugHandler() (http.Handler, error) {
	mux := http.NewServeMux()
	handlePprof(mux, a.gate.Debug)
	mux.Handle("/status", a.gate.Debug(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		a.WriteStatus(w)
	})))
	index := []endpoint{
		{"/debug/pprof/", "Profiles of this process for go tool pprof; one CPU profile or trace at a time."},
		{"/debug/vars", "The variables of expvar: memory statistics and the command line."},
		{"/status", "The status text: every pipeline in one line."},
	}
	if a.reloads.read != nil {
		mux.Handle("/act/reload", a.gate.Act(http.HandlerFunc(a.serveReload)))
		index = append(index, endpoint{"/act/reload", "Reads the configuration file anew, and applies what can be while it runs: POST only."})
	}
	for name, h := range a.runner.Actions() {
		mux.Handle("/act/"+name, a.gate.Act(h))
	}
	index = append(index,
		endpoint{"/act/checks/acknowledge", "Says that somebody looks after a failing check: POST check, who, why."},
		endpoint{"/act/checks/maintenance", "Keeps a check, or all, from counting for a while: POST check, who, why, and until or for."})
	for _, c := range a.opts.Components {
		actor, ok := c.(Actor)
		if !ok {
			continue
		}
		all := actor.Actions()
		for _, name := range slices.Sorted(maps.Keys(all)) {
			pattern := "/act/" + strings.TrimPrefix(name, "/")
			if err := mount(mux, pattern, a.gate.Act(all[name])); err != nil {
				return nil, fmt.Errorf("component %s: action %s: %w", c.Name(), name, err)
			}
			index = append(index, endpoint{pattern, "An action of " + c.Name() + ": POST only."})
		}
	}
	mux.Handle("/{$}", a.gate.Debug(a.index("debug", index)))
	return a.gate.Headers(mux), nil
}

// mount turns the panic, with which a mux answers a bad pattern or one that is
// taken, into an error: patterns come from components.
func mount(mux *http.ServeMux, pattern string, h http.Handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	if !strings.Contains(pattern, "/") {
		return fmt.Errorf("got %q, want a path", pattern)
	}
	mux.Handle(pattern, h)
	return nil
}

const indexPage = `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Service}}{{with .Listener}} {{.}}{{end}}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 1em auto; padding: 0 1em; color: #222; background: #fff }
dt { font-family: ui-monospace, monospace; margin-top: .8em; overflow-wrap: anywhere }
dd { margin: 0 0 0 1em }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #111 } a { color: #8bf } }
</style>
<h1>{{.Service}}</h1>
<p>Outrider {{.Version}} on {{.Host}}{{with .Listener}}, the {{.}} listener{{end}}</p>
<dl>
{{range .Endpoints}}<dt><a href="{{.Path}}">{{.Path}}</a></dt><dd>{{.Help}}</dd>
{{end}}</dl>
</html>
`

// index is the page at "/": what there is, one sentence each.
func (a *Agent) index(listener string, endpoints []endpoint) http.Handler {
	var page strings.Builder
	t := template.Must(template.New("index").Parse(indexPage))
	err := t.Execute(&page, struct {
		Service, Version, Host, Listener string
		Endpoints                        []endpoint
	}{a.opts.Service, a.opts.Version, a.host, listener, endpoints})
	if err != nil {
		panic("BUG: index page: " + err.Error())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		_, _ = w.Write([]byte(page.String()))
	})
}
