package main

import (
	"html/template"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/outrider-agent/outrider/collectors"
	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/metrics"
)

// readers are the collectors, and a page for each neighbour's series.
type readers struct {
	*collectors.Set
	log *slog.Logger

	mu    sync.Mutex
	pages map[string]http.Handler // by neighbour; each counts what goes wrong with it
}

func newReaders(set *collectors.Set, log *slog.Logger) *readers {
	return &readers{Set: set, log: log, pages: map[string]http.Handler{}}
}

// Routes implements [agent.Routes].
func (r *readers) Routes() map[string]http.Handler {
	return map[string]http.Handler{
		"/metrics/neighbour/{$}":    http.HandlerFunc(r.list),
		"/metrics/neighbour/{name}": http.HandlerFunc(r.one),
	}
}

// sources are the neighbours', by name.
func (r *readers) sources() map[string]collectors.Source {
	out := map[string]collectors.Source{}
	for _, src := range r.Sources() {
		if src.Neighbour {
			out[src.Name] = src
		}
	}
	return out
}

func (r *readers) one(w http.ResponseWriter, req *http.Request) {
	name := req.PathValue("name")
	sources := r.sources()
	if _, ok := sources[name]; !ok {
		http.Error(w, "got no neighbour of this name, want one of /metrics/neighbour/", http.StatusNotFound)
		return
	}
	r.mu.Lock()
	maps.DeleteFunc(r.pages, func(name string, _ http.Handler) bool { _, ok := sources[name]; return !ok })
	page := r.pages[name]
	if page == nil {
		page = exporters.PrometheusOptions{Log: r.log}.Neighbour(name, gatherer(func() []metrics.Family {
			src, ok := r.sources()[name] // a reload may have brought another one
			if !ok {
				return nil
			}
			return src.Gather()
		}))
		r.pages[name] = page
	}
	r.mu.Unlock()
	page.ServeHTTP(w, req)
}

// neighbourList is the page of their names. Read-only.
var neighbourList = template.Must(template.New("neighbours").Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>neighbours</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 1em auto; padding: 0 1em; color: #222; background: #fff }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #111 } a { color: #8bf } }
</style>
<h1>Neighbours</h1>
<ul>
{{range .}}<li><a href="/metrics/neighbour/{{.}}">{{.}}</a></li>
{{else}}<li>There is none: <code>neighbours</code> in the configuration names them.</li>
{{end}}</ul>
</html>
`))

func (r *readers) list(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_ = neighbourList.Execute(w, slices.Sorted(maps.Keys(r.sources()))) // the reader may have gone
}
