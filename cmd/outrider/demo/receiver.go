package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/examples/receiver/story"
)

const (
	maxBody     = 16 << 20        // bytes of a request
	forgetAfter = time.Minute     // so long after its end the receiver remembers a workload
	forgetEvery = 5 * time.Second // how often it looks for those to forget
)

// A Window is a part of a run, from its beginning.
type Window struct{ From, To time.Duration }

// ParseWindow reads 5s..15s.
func ParseWindow(text string) (Window, error) {
	from, to, ok := strings.Cut(text, "..")
	if !ok {
		return Window{}, fmt.Errorf("got %q, want a beginning and an end, such as 5s..15s", text)
	}
	var w Window
	for _, part := range []struct {
		text string
		to   *time.Duration
	}{{from, &w.From}, {to, &w.To}} {
		d, err := time.ParseDuration(part.text)
		if err != nil || d < 0 {
			return Window{}, fmt.Errorf("got %q in %q, want a duration, as in 5s..15s", part.text, text)
		}
		*part.to = d
	}
	if w.From >= w.To {
		return Window{}, fmt.Errorf("got %q, want an end after the beginning, such as 5s..15s", text)
	}
	return w, nil
}

func (w Window) String() string { return w.From.String() + ".." + w.To.String() }

// A Manner is how a receiver behaves.
type Manner struct {
	Latency time.Duration // of each answer
	Rate    float64       // changes it takes a second at most; more wait; 0: all
	Down    *Window       // when it answers 503; nil: never
}

// A Told is a change that the receiver has made its own.
type Told struct {
	UID   string `json:"u"`
	State string `json:"s"`
	At    int64  `json:"t"` // nanoseconds of the Unix time
}

// Taken is what a receiver has taken so far.
type Taken struct {
	Changes    int64 // without repeats
	Duplicates int64
	Gaps       int64 // told
	Holes      int64 // changes that were given and are not here; counted by whole alone
	Wrong      int64 // of what the events' own numbers say, what contradicts itself or does not add up; counted by whole alone
	Unsigned   int64 // requests whose signature was not right
}

// A receiver pretends to be the platform: it checks signatures, drops repeats,
// and notes what is missing. It is safe for concurrent use.
type receiver struct {
	manner Manner
	key    []byte
	now    func() time.Time
	tell   func([]Told) // is given what was taken, before it is acknowledged
	pages  *http.ServeMux
	tally  *tally

	mu      sync.Mutex // guards what follows
	book    *story.Book
	taken   Taken
	began   time.Time // zero: the run has not begun
	last    time.Time // when it took something new
	free    time.Time // when it can take the next change
	forgot  time.Time
	hurries chan struct{} // closed once it no longer waits before it answers
}

func newReceiver(m Manner, key []byte, now func() time.Time, tell func([]Told)) *receiver {
	r := &receiver{
		manner: m, key: key, now: now, tell: tell, tally: newTally(),
		book: story.New(forgetAfter), forgot: now(), hurries: make(chan struct{}),
	}
	r.pages = r.serves()
	return r
}

// begin sets the beginning that Down counts from.
func (r *receiver) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began = r.now()
}

// hurry has the receiver answer at once from now on.
func (r *receiver) hurry() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.hurries:
	default:
		close(r.hurries)
	}
}

// serve answers requests on l until ctx ends.
func (r *receiver) serve(ctx context.Context, l net.Listener, log *slog.Logger) error {
	s := &http.Server{
		Handler: r, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("receiver: %w", err)
	}
	return nil
}

// ServeHTTP implements [http.Handler].
func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) { r.pages.ServeHTTP(w, q) }

// changes takes one event or a batch.
func (r *receiver) changes(w http.ResponseWriter, q *http.Request) {
	if q.Method != http.MethodPost {
		http.Error(w, q.Method+", want POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, maxBody))
	if err != nil {
		http.Error(w, "read body: "+err.Error(), http.StatusBadRequest)
		return
	}
	if err := verify(r.key, q.Header, body, r.now()); err != nil {
		r.mu.Lock()
		r.taken.Unsigned++
		r.mu.Unlock()
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	events, err := decode(q.Header.Get("Content-Type"), body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.tally.came(len(events))
	if r.isDown() {
		r.tally.refuse(reasonDown, len(events))
		http.Error(w, reasonDown, http.StatusServiceUnavailable)
		return
	}
	if !r.wait(q.Context(), len(events)) {
		r.tally.refuse(reasonGone, len(events))
		return // who asked has gone
	}
	r.take(events)
	r.tally.record(len(events))
	w.WriteHeader(http.StatusNoContent)
}

func decode(contentType string, body []byte) ([]story.Event, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, fmt.Errorf("content type: %w", err)
	}
	switch kind {
	case "application/cloudevents+json":
		e, err := story.Decode(body)
		return []story.Event{e}, err
	case "application/cloudevents-batch+json":
		events, _, err := story.DecodeBatch(body)
		return events, err
	}
	return nil, fmt.Errorf("content type: got %.100q, want one event or a batch", kind)
}

func (r *receiver) isDown() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.manner.Down == nil || r.began.IsZero() {
		return false
	}
	at := r.now().Sub(r.began)
	return at >= r.manner.Down.From && at < r.manner.Down.To
}

// wait lasts as long as the receiver takes for n events. It reports whether
// whoever waits for the answer is still there.
func (r *receiver) wait(ctx context.Context, n int) bool {
	now := r.now()
	until := now
	if r.manner.Rate > 0 {
		r.mu.Lock()
		if r.free.Before(now) {
			r.free = now
		}
		r.free = r.free.Add(time.Duration(float64(n) / r.manner.Rate * float64(time.Second)))
		until = r.free
		r.mu.Unlock()
	}
	if least := now.Add(r.manner.Latency); until.Before(least) {
		until = least
	}
	if !until.After(now) {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(until.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.hurries:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// take notes events, and tells what is new of them.
func (r *receiver) take(events []story.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	var news []Told
	for _, e := range events {
		outcome := r.book.Take(e, now)
		switch {
		case outcome == story.Counted:
		case outcome == story.Repeat:
			r.taken.Duplicates++
		case e.Gap != nil:
			r.taken.Gaps++
		default:
			r.taken.Changes++
			news = append(news, Told{UID: uidOf(e.Source), State: string(e.To), At: now.UnixNano()})
		}
	}
	if len(news) > 0 {
		r.last = now
		r.tell(news)
	}
	if now.Sub(r.forgot) >= forgetEvery {
		r.forgot = now
		r.book.Forget(now)
	}
}

// uidOf returns the UID that ends a source: a copy, so that the event's text
// can go.
func uidOf(source string) string {
	return strings.Clone(source[strings.LastIndexByte(source, '/')+1:])
}

// figures are what was taken so far, without Holes.
func (r *receiver) figures() Taken {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken
}

// whole is what was taken in all, and when the last of it was. It goes through
// all workloads. problem is the first thing that the events' own numbers say is
// missing or wrong.
func (r *receiver) whole() (t Taken, last time.Time, problem string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t = r.taken
	report := r.book.Report(1)
	t.Holes = report.Unexplained
	t.Wrong = report.ContradictionsSeen + int64(len(report.Accounts)) + report.MoreAccounts
	switch {
	case report.Whole:
	case report.Unexplained > 0 && len(report.Missing) > 0:
		m := report.Missing[0]
		problem = fmt.Sprintf("%s: seq %d to %d", m.Subject, m.From, m.To)
	case len(report.Contradictions) > 0:
		problem = report.Contradictions[0]
	case len(report.Accounts) > 0:
		problem = report.Accounts[0].String()
	}
	return t, r.last, problem
}
