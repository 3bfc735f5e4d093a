package e2e

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
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
)

// An event is a change or a gap as the receiver reads it, checked field by
// field against docs/changes.md.
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
	common
}

type common struct {
	Seq      int64 `json:"seq"`
	Previous int64 `json:"previous"`
	Epoch    int64 `json:"epoch"`
	Initial  bool  `json:"initial"`
	Replayed bool  `json:"replayed"`
}

// decode reads one event and refuses what the schema does not have.
func decode(b []byte) (event, error) {
	e := event{body: strings.TrimSpace(string(b))}
	if err := strictly(b, &e); err != nil {
		return e, err
	}
	source := ""
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
	case gapType:
		if err := strictly(e.Raw, &e.Gap); err != nil {
			return e, err
		}
		g := e.Gap
		source, e.Data.common = "/streams/"+g.Stream, g.common
		if e.Subject != g.Stream || !e.Time.Equal(g.ToTime) || g.ToTime.Before(g.FromTime) || g.Reason == "" {
			return e, fmt.Errorf("subject %q, time %s of %+v", e.Subject, e.Time, g)
		}
	}
	switch {
	case e.SpecVersion != "1.0" || source == "" || e.ContentType != "application/json":
		return e, fmt.Errorf("envelope %q %q %q", e.SpecVersion, e.Type, e.ContentType)
	case e.Sequence != fmt.Sprintf("%020d", e.Data.Seq):
		return e, fmt.Errorf("sequence %q, want seq %d padded to 20 digits", e.Sequence, e.Data.Seq)
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

// A receiver is the platform's webhook.
type receiver struct {
	server *http.Server

	mu     sync.Mutex
	status int                  // what it answers; 0 means 204
	delay  time.Duration        // before it answers
	tries  int                  // requests of any outcome
	events []event              // acknowledged
	sent   map[string]time.Time // when the first try of each ID arrived
	wrong  []error              // requests that break the specification
}

// startReceiver listens where the configuration of the tests points.
func startReceiver(t *testing.T) *receiver {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:18080")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{sent: map[string]time.Time{}}
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

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	arrived := time.Now()
	body, err := io.ReadAll(req.Body)
	e, decodeErr := decode(body)
	e.arrived = arrived
	r.mu.Lock()
	r.tries++
	if _, again := r.sent[e.ID]; !again {
		r.sent[e.ID] = arrived
	}
	status, delay := r.status, r.delay
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

func (r *receiver) received() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
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
	for _, e := range r.received() {
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

// readFile reads the events of the file sink.
func readFile(t *testing.T, path string) (out []event) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		e, err := decode(lines.Bytes())
		if err != nil {
			t.Fatalf("%s: %v: %s", path, err, lines.Bytes())
		}
		out = append(out, e)
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	return out
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
