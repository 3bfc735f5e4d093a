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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const hookKey = "a key for tests"

// An event is a change as the receiver reads it, checked field by field
// against docs/changes.md.
type event struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject"`
	Time        time.Time `json:"time"`
	ContentType string    `json:"datacontenttype"`
	Sequence    string    `json:"sequence"`
	Data        struct {
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
		Seq           int64     `json:"seq"`
		Previous      int64     `json:"previous"`
		Epoch         int64     `json:"epoch"`
		Reconstructed bool      `json:"reconstructed"`
		ObservedLate  bool      `json:"observed_late"`
		Initial       bool      `json:"initial"`
		Replayed      bool      `json:"replayed"`
	} `json:"data"`
	acked time.Time // when the receiver answered
}

// decode reads one event and refuses what the schema does not have.
func decode(b []byte) (event, error) {
	var e event
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return e, err
	}
	w := e.Data.Workload
	switch {
	case e.SpecVersion != "1.0" || e.Type != "dev.outrider.workload.changed" || e.ContentType != "application/json":
		return e, fmt.Errorf("envelope %q %q %q", e.SpecVersion, e.Type, e.ContentType)
	case e.Subject != w.Namespace+"/"+w.Kind+"/"+w.Name:
		return e, fmt.Errorf("subject %q of %v", e.Subject, w)
	case e.Sequence != fmt.Sprintf("%020d", e.Data.Seq):
		return e, fmt.Errorf("sequence %q, want seq %d padded to 20 digits", e.Sequence, e.Data.Seq)
	case !strings.HasSuffix(e.Source, "/workloads/"+w.UID) || e.ID == "" || w.Labels == nil:
		return e, fmt.Errorf("source %q, id %q, labels %v", e.Source, e.ID, w.Labels)
	}
	return e, nil
}

// A receiver is the platform's webhook.
type receiver struct {
	server *http.Server

	mu     sync.Mutex
	status int           // what it answers; 0 means 204
	delay  time.Duration // before it answers
	tries  int           // requests of any outcome
	events []event       // acknowledged
	wrong  []error       // requests that break the specification
}

// startReceiver listens where the configuration of the tests points.
func startReceiver(t *testing.T) *receiver {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:18080")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{}
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
	body, err := io.ReadAll(req.Body)
	e, decodeErr := decode(body)
	r.mu.Lock()
	r.tries++
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

// stories checks that every event came once and every workload's are whole
// and in order, and returns them by UID, as "Kind Queued>Running>Failed(Error)".
func stories(t *testing.T, where string, events []event) map[string]string {
	t.Helper()
	ids := map[string]bool{}
	last := map[string]event{}
	out := map[string]string{}
	for _, e := range events {
		uid := e.Data.Workload.UID
		if ids[e.ID] {
			t.Errorf("%s: %s came twice: %+v", where, e.ID, e.Data)
		}
		ids[e.ID] = true
		before := last[uid]
		if e.Data.Seq != before.Data.Seq+1 || e.Data.Previous != before.Data.Seq || e.Data.From != before.Data.To {
			t.Errorf("%s: %s: seq %d (previous %d) from %q follows seq %d %q", where, e.Subject, e.Data.Seq, e.Data.Previous, e.Data.From, before.Data.Seq, before.Data.To)
		}
		last[uid] = e
		step := e.Data.To
		if out[uid] == "" {
			out[uid] = e.Data.Workload.Kind + " " + step
		} else {
			if e.Data.Reason != "" {
				step += "(" + e.Data.Reason + ")"
			}
			out[uid] += ">" + step
		}
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
