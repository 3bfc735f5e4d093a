package e2e

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const hookKey = "a key for tests"

// The types of events.
const (
	changeType = "dev.outrider.workload.changed"
	gapType    = "dev.outrider.gap"
	markType   = "dev.outrider.mark"
)

// An event is a change, a gap or a mark as the receiver reads it, checked field
// by field against docs/changes.md.
type event struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Source      string          `json:"source"`
	Type        string          `json:"type"`
	Subject     string          `json:"subject"`
	Time        time.Time       `json:"time"`
	ContentType string          `json:"datacontenttype"`
	Sequence    string          `json:"sequence"`
	Raw         json.RawMessage `json:"data"`

	Data change // of a change; of a gap, what both have
	Gap  gap    // of a gap
	Mark mark   // of a mark

	body    string    // as it came
	arrived time.Time // when the receiver began to read it
	acked   time.Time // when the receiver answered
}

type change struct {
	Workload struct {
		Kind      string            `json:"kind"`
		Namespace string            `json:"namespace"`
		Name      string            `json:"name"`
		UID       string            `json:"uid"`
		Labels    map[string]string `json:"labels"`
	} `json:"workload"`
	From          string    `json:"from"`
	To            string    `json:"to"`
	Reason        string    `json:"reason"`
	Message       string    `json:"message"`
	ExitCode      *int32    `json:"exit_code"`
	Occurred      time.Time `json:"occurred"`
	Observed      time.Time `json:"observed"`
	Reconstructed bool      `json:"reconstructed"`
	ObservedLate  bool      `json:"observed_late"`
	common
}

type gap struct {
	Stream   string    `json:"stream"`
	Reason   string    `json:"reason"`
	FromRV   uint64    `json:"from_rv"`
	ToRV     uint64    `json:"to_rv"`
	FromTime time.Time `json:"from_time"`
	ToTime   time.Time `json:"to_time"`

	FromNumber int64 `json:"from_number"` // of a sink's own gap
	ToNumber   int64 `json:"to_number"`
	common
}

// ofSink reports whether it is a gap of one sink alone, which is not in the log.
func (g gap) ofSink() bool { return strings.HasPrefix(g.Stream, "sink/") }

type common struct {
	Seq      int64  `json:"seq"`
	Previous int64  `json:"previous"`
	Skipped  []skip `json:"skipped"`
	Number   int64  `json:"number"`
	Epoch    int64  `json:"epoch"`
	Initial  bool   `json:"initial"`
	Replayed bool   `json:"replayed"`
}

type skip struct {
	From  int64  `json:"from"`
	To    int64  `json:"to"`
	Cause string `json:"cause"`
}

type mark struct {
	Previous int64 `json:"previous"`
	Number   int64 `json:"number"`
	Changes  int64 `json:"changes"`
	Skipped  int64 `json:"skipped"`
	Waiting  int64 `json:"waiting"`
}

// decode reads one event and refuses what the schema does not have.
func decode(b []byte) (event, error) {
	e := event{body: strings.TrimSpace(string(b))}
	if err := strictly(b, &e); err != nil {
		return e, err
	}
	source, sequence := "", int64(0)
	switch e.Type {
	case changeType:
		if err := strictly(e.Raw, &e.Data); err != nil {
			return e, err
		}
		w := e.Data.Workload
		source = "/workloads/" + w.UID
		if e.Subject != w.Namespace+"/"+w.Kind+"/"+w.Name || w.Labels == nil {
			return e, fmt.Errorf("subject %q, labels %v of %v", e.Subject, w.Labels, w)
		}
		if e.Data.Initial != (e.Data.Number == 0) || e.Data.Initial && e.Data.From != "" {
			return e, fmt.Errorf("number %d, from %q, initial: %v", e.Data.Number, e.Data.From, e.Data.Initial)
		}
		sequence = e.Data.Seq
	case gapType:
		if err := strictly(e.Raw, &e.Gap); err != nil {
			return e, err
		}
		g := e.Gap
		source, e.Data.common = "/streams/"+g.Stream, g.common
		if e.Subject != g.Stream || !e.Time.Equal(g.ToTime) || g.ToTime.Before(g.FromTime) || g.Reason == "" {
			return e, fmt.Errorf("subject %q, time %s of %+v", e.Subject, e.Time, g)
		}
		if g.ofSink() != (g.Number == 0) || g.ofSink() != (g.Reason == "Detached") || g.FromNumber > g.ToNumber || !g.ofSink() && g.ToNumber > 0 {
			return e, fmt.Errorf("number %d, numbers above %d, up to %d, of %+v", g.Number, g.FromNumber, g.ToNumber, g)
		}
		sequence = g.Seq
	case markType:
		if err := strictly(e.Raw, &e.Mark); err != nil {
			return e, err
		}
		m := e.Mark
		source, sequence, e.Data.Epoch = "/sinks/"+e.Subject, m.Number, 1 // a mark has no epoch of its own
		if m.Number <= m.Previous || min(m.Changes, m.Skipped, m.Waiting) < 0 || m.Changes+m.Skipped+m.Waiting != m.Number-m.Previous {
			return e, fmt.Errorf("mark %+v: %d numbers", m, m.Number-m.Previous)
		}
	}
	switch {
	case e.SpecVersion != "1.0" || source == "" || e.ContentType != "application/json":
		return e, fmt.Errorf("envelope %q %q %q", e.SpecVersion, e.Type, e.ContentType)
	case e.Sequence != fmt.Sprintf("%020d", sequence):
		return e, fmt.Errorf("sequence %q, want %d padded to 20 digits", e.Sequence, sequence)
	case !strings.HasPrefix(e.Source, "/clusters/") || !strings.HasSuffix(e.Source, source) || e.ID == "" || e.Data.Epoch < 1:
		return e, fmt.Errorf("source %q, id %q, epoch %d", e.Source, e.ID, e.Data.Epoch)
	}
	return e, nil
}

func strictly(b []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// A receiver is a platform's webhook.
type receiver struct {
	server *http.Server
	url    string

	mu     sync.Mutex
	status int                  // what it answers; 0 means 204
	delay  time.Duration        // before it answers
	judge  func(event) int      // what it answers to one event; 0: as to all; forgets: it forgets the event
	tries  int                  // requests of any outcome
	events []event              // acknowledged
	sent   map[string]time.Time // when the first try of each ID arrived
	wrong  []error              // requests that break the specification
}

// forgets is the answer of a receiver that says 200 and keeps nothing.
const forgets = http.StatusOK

// startReceiver listens where the configuration of the tests points.
func startReceiver(t *testing.T) *receiver {
	t.Helper()
	return startReceiverAt(t, "127.0.0.1:18080")
}

func startReceiverAt(t *testing.T, address string) *receiver {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{sent: map[string]time.Time{}, url: "http://" + l.Addr().String() + "/changes"}
	r.server = &http.Server{Handler: r}
	go func() { _ = r.server.Serve(l) }() // returns when it is closed
	t.Cleanup(func() {
		_ = r.server.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, err := range r.wrong {
			t.Errorf("request: %v", err)
		}
	})
	return r
}

// answers sets how the receiver answers from now on.
func (r *receiver) answers(status int, delay time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.delay = status, delay
}

// judges sets how the receiver answers to single events from now on. It must
// not call the receiver.
func (r *receiver) judges(judge func(event) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.judge = judge
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	arrived := time.Now()
	body, err := io.ReadAll(req.Body)
	if errors.Is(err, io.ErrUnexpectedEOF) { // an agent that was killed while it sent
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	e, decodeErr := decode(body)
	e.arrived = arrived
	r.mu.Lock()
	r.tries++
	if _, again := r.sent[e.ID]; !again {
		r.sent[e.ID] = arrived
	}
	status, delay := r.status, r.delay
	if r.judge != nil && decodeErr == nil {
		if answer := r.judge(e); answer != 0 {
			status = answer
		}
	}
	switch {
	case err != nil:
		r.wrong = append(r.wrong, err)
	case decodeErr != nil:
		r.wrong = append(r.wrong, fmt.Errorf("%w: %s", decodeErr, body))
	case req.URL.Path != "/changes" || req.Method != http.MethodPost:
		r.wrong = append(r.wrong, fmt.Errorf("%s %s", req.Method, req.URL))
	case req.Header.Get("Idempotency-Key") != e.ID || !signed(req.Header, body):
		r.wrong = append(r.wrong, fmt.Errorf("headers of %s: %v", e.ID, req.Header))
	}
	r.mu.Unlock()
	time.Sleep(delay) // sleep: the receiver is slow, that is the test
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	r.mu.Lock()
	e.acked = time.Now()
	r.events = append(r.events, e)
	r.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// signed checks the signature as the Standard Webhooks specification says.
func signed(h http.Header, body []byte) bool {
	mac := hmac.New(sha256.New, []byte(hookKey))
	fmt.Fprintf(mac, "%s.%s.%s", h.Get("webhook-id"), h.Get("webhook-timestamp"), body)
	return h.Get("webhook-signature") == "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func (r *receiver) tried() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tries
}

// received is what the receiver has acknowledged, and the marks left out.
func (r *receiver) received() []event { return withoutMarks(r.everything()) }

func (r *receiver) everything() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func withoutMarks(events []event) []event {
	return slices.DeleteFunc(slices.Clone(events), func(e event) bool { return e.Type == markType })
}

// firstSent is when the first try of an event arrived.
func (r *receiver) firstSent(id string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent[id]
}

// record writes what was acknowledged to a file, an event a line, as a
// platform might.
func (r *receiver) record(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, e := range r.everything() {
		b.WriteString(e.body + "\n")
	}
	path := filepath.Join(t.TempDir(), "received.ndjson")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tells waits until the receiver has these stories, by UID, and perhaps more.
func (r *receiver) tells(t *testing.T, limit time.Duration, want map[string]string) {
	t.Helper()
	var missing string
	ok := func() bool {
		got := tellings(r.received())
		missing = ""
		n := 0
		for uid, story := range want {
			if got[uid] != story {
				n++
				missing = fmt.Sprintf("%d of %d, as %s: got %q, want %q", n, len(want), uid, got[uid], story)
			}
		}
		return n == 0
	}
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for stories at the webhook; wrong are %s", limit, missing)
		}
		time.Sleep(50 * time.Millisecond) // sleep: between two looks
	}
}

// readFile reads the events of the file sink, but for the marks.
func readFile(t *testing.T, path string) []event {
	t.Helper()
	return withoutMarks(readRecord(t, path))
}

// readRecord reads all events of the file sink, of its rotated files too.
func readRecord(t *testing.T, path string) (out []event) {
	t.Helper()
	for line := range bytes.Lines(concatenated(t, path)) {
		e, err := decode(line)
		if err != nil {
			t.Fatalf("%s: %v: %s", path, err, line)
		}
		out = append(out, e)
	}
	return out
}

// rotated are the names of the files of a file sink, the oldest first.
func rotated(t *testing.T, path string) []string {
	t.Helper()
	names, err := filepath.Glob(path + ".[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names) // the numbers are padded
	return append(names, path)
}

// concatenated is what the files of a file sink hold.
func concatenated(t *testing.T, path string) (all []byte) {
	t.Helper()
	for _, name := range rotated(t, path) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

func get(url string) (status int, body string) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}
