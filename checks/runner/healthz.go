package runner

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// A form is a way to render a digest.
type form int8

const (
	wordForm  form = iota // one word
	namesJSON             // names and statuses
	namesText
	fullJSON // all of it
	fullText
)

// A page is a rendered digest. It never changes.
type page struct {
	code        int
	contentType []string
	length      []string
	body        []byte
}

// Healthz serves the digest: 503 when a check that it counts fails, which one
// that is stale does, else 200.
//
// It counts the checks of category page; ?category=email or all, and
// ?group=live or ready, choose others. The answer is JSON (see [Digest]) or,
// with ?format=text or an Accept header that asks for text/plain and not for
// JSON, text such as the Kubernetes API server's. A value that it does not
// know is a 400.
//
// Only requests that detail approves see more than names and statuses; a nil
// detail approves none.
func (r *Runner) Healthz(detail func(*http.Request) bool) http.Handler {
	return r.pages(func(req *http.Request, format string) (form, error) {
		full := detail != nil && detail(req)
		text := false
		switch format {
		case "":
			text = prefersText(req.Header["Accept"])
		case "text":
			text = true
		case "json":
		default:
			return 0, fmt.Errorf("format %q, want json or text", format)
		}
		switch {
		case full && text:
			return fullText, nil
		case full:
			return fullJSON, nil
		case text:
			return namesText, nil
		}
		return namesJSON, nil
	})
}

// Probe serves the digest as status code and one word, ok, warn, unknown or
// fail: for callers that may not see the names of checks. It takes the
// ?category and ?group of [Runner.Healthz].
func (r *Runner) Probe() http.Handler {
	return r.pages(func(_ *http.Request, format string) (form, error) {
		if format != "" {
			return 0, fmt.Errorf("format %q, want none: the answer is one word", format)
		}
		return wordForm, nil
	})
}

func (r *Runner) pages(choose func(req *http.Request, format string) (form, error)) http.Handler {
	noStore, noSniff, vary := []string{"no-store"}, []string{"nosniff"}, []string{"Accept"}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h["Cache-Control"], h["X-Content-Type-Options"], h["Vary"] = noStore, noSniff, vary
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, fmt.Sprintf("method %s, want GET or HEAD", req.Method), http.StatusMethodNotAllowed)
			return
		}
		v, err := parseView(req, choose)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p := r.page(v)
		h["Content-Type"], h["Content-Length"] = p.contentType, p.length
		w.WriteHeader(p.code)
		if req.Method == http.MethodGet {
			w.Write(p.body)
		}
	})
}

func parseView(req *http.Request, choose func(*http.Request, string) (form, error)) (view, error) {
	v := view{category: string(verdict.Page)}
	var format string
	if req.URL.RawQuery != "" { // most requests have none, and parsing allocates
		values := req.URL.Query()
		for _, key := range []string{"category", "group", "format"} {
			if len(values[key]) > 1 {
				return view{}, fmt.Errorf("%s given %d times, want once", key, len(values[key]))
			}
		}
		q, err := parseQuery(values.Get("category"), values.Get("group"))
		if err != nil {
			return view{}, err
		}
		v.category, v.group, format = q.Category, q.Group, values.Get("format")
	}
	var err error
	v.form, err = choose(req, format)
	return v, err
}

// prefersText tells whether an Accept header names plain text and no JSON.
// Quality factors are left out: who sends them can say ?format.
func prefersText(accept []string) bool {
	text := false
	for _, line := range accept {
		for item := range strings.SplitSeq(line, ",") {
			media, _, _ := strings.Cut(item, ";")
			switch strings.ToLower(strings.TrimSpace(media)) {
			case "text/plain":
				text = true
			case "application/json":
				return false
			}
		}
	}
	return text
}

func render(d Digest, f form) *page {
	p := &page{code: http.StatusOK}
	if d.Status == verdict.Fail {
		p.code = http.StatusServiceUnavailable
	}
	switch f {
	case fullJSON, namesJSON:
		p.contentType = []string{"application/json; charset=utf-8"}
		p.body = renderJSON(d, f == fullJSON)
	case fullText, namesText:
		p.contentType = []string{"text/plain; charset=utf-8"}
		p.body = renderText(d, f == fullText)
	case wordForm:
		p.contentType = []string{"text/plain; charset=utf-8"}
		p.body = []byte(word(d.Status) + "\n")
	}
	p.length = []string{strconv.Itoa(len(p.body))}
	return p
}

func renderJSON(d Digest, full bool) []byte {
	var document any = d
	if !full {
		type check struct {
			Name   string         `json:"name"`
			Status verdict.Status `json:"status"`
		}
		names := struct {
			Status verdict.Status `json:"status"`
			Checks []check        `json:"checks"`
		}{d.Status, []check{}}
		for _, c := range d.Checks {
			names.Checks = append(names.Checks, check{c.Name, c.Status})
		}
		document = names
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // never shown as HTML, and <= reads better
	if err := e.Encode(document); err != nil {
		panic(errors.Join(errors.New("BUG: a digest cannot be encoded"), err))
	}
	return b.Bytes()
}

// renderText writes what the Kubernetes API server writes for ?verbose, with
// marks for the two statuses that it does not know.
func renderText(d Digest, full bool) []byte {
	var b bytes.Buffer
	for _, c := range d.Checks {
		mark, said := "?", c.Status.String()
		switch c.Status {
		case verdict.Pass:
			mark, said = "+", "ok"
		case verdict.Warn:
			mark = "!"
		case verdict.Fail:
			mark, said = "-", "failed"
		}
		fmt.Fprintf(&b, "[%s]%s %s", mark, c.Name, said)
		if full && c.Status != verdict.Pass && c.Message != "" {
			// check_http -B passes this on to Nagios, for which a bar starts
			// performance data.
			fmt.Fprintf(&b, ": %s", strings.ReplaceAll(c.Message, "|", "/"))
		}
		b.WriteByte('\n')
	}
	outcome := "passed"
	if d.Status == verdict.Fail {
		outcome = "failed"
	}
	fmt.Fprintf(&b, "healthz check %s\n", outcome)
	return b.Bytes()
}

func word(s verdict.Status) string {
	if s == verdict.Pass {
		return "ok"
	}
	return s.String()
}
