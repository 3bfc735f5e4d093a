package inspect

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// writeTimeout is how long a client may take for one piece of an answer.
const writeTimeout = 30 * time.Second

// mostInside is how many changes are recounted inside an agent.
const mostInside = 500_000

// Message is one line of what ledger/verify streams with progress=true.
type Message struct {
	Progress *Progress `json:"progress,omitempty"`
	Report   *Report   `json:"report,omitempty"` // the last line
}

// Actions are what an agent can be asked about its ledger, by path below
// /act/. Each opens the ledger anew, reads in short transactions, and ends
// when the client goes; an answer that cannot be finished is broken off. With
// json=true it is JSON, else text.
//
//	ledger/stat
//	ledger/ls      last=N after=N workload=NAMESPACE/KIND/NAME uid=UID gaps=true
//	ledger/verify  findings=N progress=true
//	ledger/sinks
//	ledger/deadletters  sink=NAME last=N workload=NAMESPACE/KIND/NAME uid=UID
func Actions(path string) map[string]http.Handler {
	verifying := make(chan struct{}, 1) // one recount at a time: it costs a core
	serve := func(reply func(*answer, *File) error) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a := &answer{w: w, r: r, control: http.NewResponseController(w), json: r.FormValue("json") == "true"}
			a.serve(path, reply)
		})
	}
	return map[string]http.Handler{
		"ledger/stat":        serve((*answer).stat),
		"ledger/ls":          serve((*answer).ls),
		"ledger/sinks":       serve((*answer).sinks),
		"ledger/deadletters": serve((*answer).letters),
		"ledger/verify": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case verifying <- struct{}{}:
				defer func() { <-verifying }()
				serve((*answer).verify).ServeHTTP(w, r)
			default:
				http.Error(w, "another verify is under way: try again", http.StatusServiceUnavailable)
			}
		}),
	}
}

// badRequest is an error of the one who asks.
type badRequest struct{ error }

// answer is one answer under way.
type answer struct {
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	json    bool
	begun   bool // something was written: too late for a status
}

func (a *answer) serve(path string, reply func(*answer, *File) error) {
	// The server's limits are for short answers: its read deadline would end
	// the request's context under a long one.
	_ = a.control.SetReadDeadline(time.Time{})
	_ = a.control.SetWriteDeadline(time.Time{})
	kind := "text/plain; charset=utf-8"
	if a.json {
		kind = "application/json"
	}
	a.w.Header().Set("Content-Type", kind)
	err := a.read(path, reply)
	_ = a.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // of what is still buffered
	var bad badRequest
	switch {
	case err == nil:
	case a.begun:
		panic(http.ErrAbortHandler) // the client must not take a part for the whole
	case errors.As(err, &bad):
		http.Error(a.w, err.Error(), http.StatusBadRequest)
	case errors.Is(err, ErrNoWorkload), errors.Is(err, ErrNoSink):
		http.Error(a.w, err.Error(), http.StatusUnprocessableEntity)
	default:
		http.Error(a.w, err.Error(), http.StatusInternalServerError)
	}
}

func (a *answer) read(path string, reply func(*answer, *File) error) (err error) {
	f, err := open(path, true)
	if err != nil {
		return fmt.Errorf("open ledger %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return reply(a, f)
}

// Write gives the client a new deadline for each piece.
func (a *answer) Write(b []byte) (int, error) {
	a.begun = true
	_ = a.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	n, err := a.w.Write(b)
	// Not while the next piece is looked for, which may take long.
	_ = a.control.SetWriteDeadline(time.Time{})
	return n, err
}

func (a *answer) encode(v any) error { return json.NewEncoder(a).Encode(v) }

func (a *answer) stat(f *File) error {
	s, err := f.Stat(a.r.Context())
	if err != nil {
		return err
	}
	if a.json {
		return a.encode(s)
	}
	return s.WriteText(a, time.Now())
}

func (a *answer) ls(f *File) error {
	q := Query{UID: a.r.FormValue("uid"), Gaps: a.r.FormValue("gaps") == "true"}
	last, err := a.number("last")
	if err != nil {
		return err
	}
	q.Last = int(min(last, 1<<30))
	if q.After, err = a.number("after"); err != nil {
		return err
	}
	if q.Workload, err = a.workload(); err != nil {
		return err
	}
	out := bufio.NewWriterSize(a, 32<<10)
	enc := json.NewEncoder(out)
	err = f.Ls(a.r.Context(), q, func(r Row) error {
		if a.json {
			return enc.Encode(r)
		}
		_, err := io.WriteString(out, r.Line()+"\n")
		return err
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

func (a *answer) sinks(f *File) error {
	sinks, err := f.Sinks(a.r.Context())
	if err != nil {
		return err
	}
	if a.json {
		return a.encode(sinks)
	}
	return WriteSinks(a, sinks)
}

// A LetterList is what ledger/deadletters answers.
type LetterList struct {
	All     int64    `json:"all"` // without last
	Letters []Letter `json:"letters"`
}

// WriteText writes the list for people.
func (l *LetterList) WriteText(w io.Writer) error {
	out := bufio.NewWriter(w)
	for _, letter := range l.Letters {
		_, _ = out.WriteString(letter.Text()) // Flush tells
	}
	switch shown := int64(len(l.Letters)); {
	case l.All == 0:
		_, _ = out.WriteString("no dead letters\n")
	case shown < l.All:
		fmt.Fprintf(out, "the last %d of %d; all: --last 0\n", shown, l.All)
	}
	return out.Flush()
}

func (a *answer) letters(f *File) error {
	q := LetterQuery{Sink: a.r.FormValue("sink"), UID: a.r.FormValue("uid")}
	last, err := a.number("last")
	if err != nil {
		return err
	}
	q.Last = int(min(last, 1<<30))
	if q.Workload, err = a.workload(); err != nil {
		return err
	}
	var list LetterList
	if list.Letters, list.All, err = f.Letters(a.r.Context(), q); err != nil {
		return err
	}
	if a.json {
		return a.encode(list)
	}
	return list.WriteText(a)
}

// workload reads a workload; nil when none is asked for.
func (a *answer) workload() (*statesync.Key, error) {
	w := a.r.FormValue("workload")
	if w == "" {
		return nil, nil
	}
	key, err := ParseKey(w)
	if err != nil {
		return nil, badRequest{err}
	}
	return &key, nil
}

// tooMany refuses a recount that would cost the agent itself more memory than
// it can be expected to have: some 200 bytes a change.
func tooMany(n int64, path string) error {
	if n > mostInside {
		return fmt.Errorf("the ledger keeps %d changes, and inside the agent %d are recounted at most: run outrider ledger verify %s, which needs the memory itself", n, mostInside, path)
	}
	return nil
}

func (a *answer) verify(f *File) error {
	findings, err := a.number("findings")
	if err != nil {
		return err
	}
	var kept int64
	err = f.page(a.r.Context(), func() error {
		b, err := f.bounds()
		if err == nil {
			kept, err = f.kept(b)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := tooMany(kept, f.path); err != nil {
		return badRequest{err}
	}
	o := VerifyOptions{Findings: int(min(findings, 1<<30))}
	streaming := a.json && a.r.FormValue("progress") == "true"
	var told time.Time
	if streaming {
		o.Progress = func(p Progress) {
			if now := time.Now(); now.Sub(told) > time.Second/2 {
				told = now
				// A client that has gone ends the context too.
				_ = a.encode(Message{Progress: &p})
				_ = a.control.Flush()
			}
		}
	}
	report, err := f.Verify(a.r.Context(), o)
	switch {
	case err != nil:
		return err
	case streaming:
		return a.encode(Message{Report: report})
	case a.json:
		return a.encode(report)
	}
	return report.WriteText(a)
}

// number reads a number from 0; what is not there is 0.
func (a *answer) number(key string) (int64, error) {
	s := a.r.FormValue(key)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, badRequest{fmt.Errorf("%s: got %q, want a number from 0", key, clip(s))}
	}
	return n, nil
}
