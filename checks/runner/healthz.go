package runner

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// A page is a rendered digest. It never changes.
type page struct {
	status      verdict.Status
	contentType []string
	length      []string
	body        []byte
}

// Healthz serves the digest: 503 when a check that it counts fails, which one
// that is stale does, else 200.
//
// It counts the checks of category page; ?category=email or all, ?group=live,
// ready or startup, and ?check=NAME choose others. A name that there is not is a
// 404. The answer is JSON (see [Digest]), or what the Accept header likes better,
// or what ?format= says:
//
//	json         application/health+json; with Accept: application/json as that
//	text         what the Kubernetes API server writes; so does ?verbose
//	nagios       one line with performance data
//	openmetrics  series of the checks; the status code is always 200,
//	prometheus   because a scraper drops all that comes with another
//
// A warning is a 200, with ?warn=429 a 429. A value that it does not know is a 400.
//
// Only requests that detail approves see more than names and statuses; a nil
// detail approves none.
func (r *Runner) Healthz(detail func(*http.Request) bool) http.Handler {
	return r.pages(func(req *http.Request, o *ask) error {
		o.full = detail != nil && detail(req)
		var err error
		o.form, err = parseFormat(o.format, o.verbose, req.Header["Accept"])
		return err
	})
}

// Probe serves the digest as status code and one word, ok, warn, unknown or
// fail: for callers that may not see the names of checks. It takes the
// ?category, ?group and ?warn of [Runner.Healthz].
func (r *Runner) Probe() http.Handler {
	return r.pages(func(_ *http.Request, o *ask) error {
		if o.format != "" || o.check != "" {
			return fmt.Errorf("format %.50q and check %.50q, want none: the answer is one word", o.format, o.check)
		}
		o.form = wordForm
		return nil
	})
}

// An ask is what a request asks to see.
type ask struct {
	view
	format        string
	verbose, busy bool // busy: a warning is a 429
}

func (r *Runner) pages(choose func(*http.Request, *ask) error) http.Handler {
	noStore, noSniff, vary := []string{"no-store"}, []string{"nosniff"}, []string{"Accept"}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h["Cache-Control"], h["X-Content-Type-Options"], h["Vary"] = noStore, noSniff, vary
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, fmt.Sprintf("method %.20s, want GET or HEAD", req.Method), http.StatusMethodNotAllowed)
			return
		}
		o := ask{view: view{category: string(verdict.Page)}}
		err := o.parse(req)
		if err == nil {
			err = choose(req, &o)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if o.check != "" && !r.has(o.check) {
			http.Error(w, fmt.Sprintf("no check %.50q, want one of:\n%s", o.check, strings.Join(r.names(), "\n")), http.StatusNotFound)
			return
		}
		p := r.page(o.view)
		h["Content-Type"], h["Content-Length"] = p.contentType, p.length
		w.WriteHeader(o.code(p.status))
		if req.Method == http.MethodGet {
			_, _ = w.Write(p.body) // nobody is left to tell
		}
	})
}

// code is what a load balancer, a kubelet and check_http act on.
func (o *ask) code(s verdict.Status) int {
	switch {
	case o.form == openMetricsForm || o.form == prometheusForm:
	case s == verdict.Fail:
		return http.StatusServiceUnavailable
	case s == verdict.Warn && o.busy:
		return http.StatusTooManyRequests
	}
	return http.StatusOK
}

func (o *ask) parse(req *http.Request) error {
	if req.URL.RawQuery == "" { // most requests have none, and parsing allocates
		return nil
	}
	values := req.URL.Query()
	for _, key := range []string{"category", "group", "check", "format", "warn"} {
		if len(values[key]) > 1 {
			return fmt.Errorf("%s given %d times, want once", key, len(values[key]))
		}
	}
	q, err := parseQuery(values.Get("category"), values.Get("group"), values.Get("check"))
	if err != nil {
		return err
	}
	if code := values.Get("warn"); code != "" && code != "429" && code != "200" {
		return fmt.Errorf("warn %.50q, want 429 or 200", code)
	}
	o.category, o.group, o.check = q.Category, q.Group, q.Check
	o.format, o.verbose, o.busy = values.Get("format"), values.Has("verbose"), values.Get("warn") == "429"
	return nil
}

func (r *Runner) has(name string) bool { return index(r.set.Load().entries)[name] != nil }

func (r *Runner) names() (out []string) {
	for _, e := range r.set.Load().entries {
		out = append(out, e.check.Name)
	}
	return out
}

func render(d Digest, f form, full bool) *page {
	p := &page{status: d.Status, contentType: []string{f.contentType()}}
	switch f {
	case healthForm, jsonForm:
		p.body = renderJSON(d, full)
	case textForm:
		p.body = renderText(d, full)
	case nagiosForm:
		p.body = renderNagios(d, full)
	case openMetricsForm, prometheusForm:
		p.body = renderSeries(d, full, f == openMetricsForm)
	case wordForm:
		p.body = []byte(word(d.Status) + "\n")
	}
	p.length = []string{strconv.Itoa(len(p.body))}
	return p
}

func word(s verdict.Status) string {
	if s == verdict.Pass {
		return "ok"
	}
	return s.String()
}
