package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"time"

	"github.com/outrider-agent/outrider/examples/receiver/story"
)

// The content types of requests.
const (
	oneEvent   = "application/cloudevents+json"
	manyEvents = "application/cloudevents-batch+json"
)

const (
	pageRuns   = 50   // of missing seqs that the page shows
	reportRuns = 1000 // that the report does
)

// A server is the receiver's surface: POST takes events, GET / shows how it
// stands, GET /report says the same as JSON.
type server struct {
	notes   *notebook
	keys    [][]byte // empty: requests need no signature
	maxBody int64
	logger  *slog.Logger
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", s.post)
	mux.HandleFunc("GET /report", s.report)
	mux.HandleFunc("GET /{$}", s.page)
	return mux
}

// post takes one event or a batch. It answers 2xx only once all are noted.
// 400 refuses the events as such: the sender keeps them as dead letters, or
// looks for the wrong one in a batch. 401 and 503 refuse the request: the
// sender tries again.
func (s *server) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		s.refuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("body: more than %d bytes", s.maxBody))
		return
	}
	if err != nil {
		s.refuse(w, http.StatusRequestTimeout, fmt.Errorf("body: %w", err))
		return
	}
	if len(s.keys) > 0 {
		if err := verify(s.keys, r.Header, body, s.notes.now()); err != nil {
			s.refuse(w, http.StatusUnauthorized, err)
			return
		}
	}
	events, texts, status, err := decode(r.Header.Get("Content-Type"), body)
	if err != nil {
		s.refuse(w, status, err)
		return
	}
	if err := s.notes.take(r.Context(), events, texts); err != nil {
		s.refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// decode reads a request's events, each also as JSON without a line break, and
// says how to answer when it cannot.
func decode(contentType string, body []byte) (events []story.Event, texts [][]byte, status int, err error) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, nil, http.StatusUnsupportedMediaType, fmt.Errorf("content type: %w", err)
	}
	switch kind {
	case oneEvent:
		var e story.Event
		e, err = story.Decode(body)
		events, texts = []story.Event{e}, [][]byte{body}
	case manyEvents:
		events, texts, err = story.DecodeBatch(body)
	default:
		return nil, nil, http.StatusUnsupportedMediaType, fmt.Errorf("content type: got %.100q, want %s or %s", kind, oneEvent, manyEvents)
	}
	for i := 0; i < len(texts) && err == nil; i++ {
		var line bytes.Buffer
		err = json.Compact(&line, texts[i])
		texts[i] = line.Bytes()
	}
	if err != nil {
		return nil, nil, http.StatusBadRequest, err
	}
	return events, texts, 0, nil
}

func (s *server) refuse(w http.ResponseWriter, status int, err error) {
	s.logger.Warn("request refused", "status", status, "err", err)
	http.Error(w, err.Error(), status)
}

func (s *server) report(w http.ResponseWriter, _ *http.Request) {
	b, err := json.MarshalIndent(s.notes.report(reportRuns), "", "  ")
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(b, '\n'))
}

func (s *server) page(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	if err := page.Execute(&b, struct {
		story.Report
		Now time.Time
	}{s.notes.report(pageRuns), s.notes.now()}); err != nil {
		s.refuse(w, http.StatusInternalServerError, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	h.Set("Cache-Control", "no-store")
	w.Write(b.Bytes())
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{if .Whole}}Whole{{else}}Not whole{{end}}: receiver</title>
<style>
:root { color-scheme: light dark }
body { font: 1rem/1.4 system-ui, sans-serif; max-width: 60rem; margin: auto; padding: .5rem 1rem }
h1 { font-size: 1.3rem; padding: .5rem .8rem; border-left: .5rem solid {{if .Whole}}#2a8a3e{{else}}#c0392b{{end}} }
h2 { font-size: 1.1rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .15rem .8rem .15rem 0; vertical-align: top; overflow-wrap: anywhere }
td.n { text-align: right; width: 6rem; font-variant-numeric: tabular-nums }
</style>
</head>
<body>
<h1>{{if .Whole}}Whole{{if .Since}} since number {{.Since}}{{end}}: nothing is missing that is not accounted for{{else}}Not whole: {{.Unexplained}} changes missing, {{len .Accounts}} marks do not add up, {{.ContradictionsSeen}} contradictions{{end}}</h1>
<h2>Workloads</h2>
<table>{{range $state, $n := .Workloads}}
<tr><td class="n">{{$n}}</td><td>{{$state}}</td></tr>{{else}}
<tr><td>none yet</td></tr>{{end}}{{if .Forgotten}}
<tr><td class="n">{{.Forgotten}}</td><td>ended and forgotten</td></tr>{{end}}
</table>
<h2>Events</h2>
<table>
<tr><td class="n">{{.Events}}</td><td>taken</td></tr>
<tr><td class="n">{{.Applied}}</td><td>applied</td></tr>
<tr><td class="n">{{.Repeats}}</td><td>repeats, dropped</td></tr>
<tr><td class="n">{{.Replays}}</td><td>replays</td></tr>
<tr><td class="n">{{.Filled}}</td><td>filled a hole</td></tr>
<tr><td class="n">{{.Initials}}</td><td>initial states</td></tr>
<tr><td class="n">{{.Marks}}</td><td>marks</td></tr>
<tr><td class="n">{{.Gaps}}</td><td>gaps</td></tr>
</table>{{if .Missing}}
<h2>Missing</h2>
<table>
<tr><th>workload</th><th>seq</th><th>why</th></tr>{{range .Missing}}
<tr><td>{{.Subject}}</td><td>{{.From}}{{if ne .From .To}}..{{.To}}{{end}}</td><td>{{or .Cause "not accounted for"}}</td></tr>{{end}}
</table>{{if gt .MissingRuns (len .Missing)}}
<p>{{.MissingRuns}} runs in all: <a href="/report">/report</a> has more.</p>{{end}}{{end}}{{if .Accounts}}
<h2>Marks that do not add up</h2>
<ul>{{range .Accounts}}<li>{{.String}}</li>{{end}}</ul>{{end}}{{if .Contradictions}}
<h2>Contradictions</h2>
<ul>{{range .Contradictions}}<li>{{.}}</li>{{end}}</ul>{{end}}{{if .LastGaps}}
<h2>Gaps</h2>
<ul>{{range .LastGaps}}<li>{{.String}}</li>{{end}}</ul>{{end}}{{if .Explained}}
<h2>Left out</h2>
<table>{{range $cause, $n := .Explained}}
<tr><td class="n">{{$n}}</td><td>{{$cause}}</td></tr>{{end}}
</table>{{end}}{{if .Sinks}}
<h2>Sinks</h2>
<ul>{{range .Sinks}}<li>{{.Sink}}: up to number {{.Mark.Number}}, {{.Mark.Waiting}} waiting</li>{{end}}</ul>{{end}}
<p><small>As of {{.Now.UTC.Format "2006-01-02T15:04:05Z"}}; the same as JSON: <a href="/report">/report</a></small></p>
</body>
</html>
`))
