package demo

import (
	"fmt"
	"io"
	"net/http"
	"sync"
)

// Why the receiver refuses changes.
const (
	reasonDown = "down" // it is, as --receiver-down has it
	reasonGone = "gone" // who asked did not wait for the answer
)

// serves are the receiver's pages: for changes, and for what an agent has to do
// with besides.
func (r *receiver) serves() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("/changes", r.changes)
	m.HandleFunc("GET /stats", r.tally.serve)
	m.HandleFunc("POST /api/put", takePoints)
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		if r.isDown() {
			http.Error(w, reasonDown, http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "it takes changes at /changes, and points at /api/put\n")
	})
	return m
}

// takePoints plays OpenTSDB. Nobody asks for the points.
func takePoints(w http.ResponseWriter, q *http.Request) {
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, q.Body, maxBody)); err != nil {
		http.Error(w, "read body: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// A tally is what the receiver shows of itself: the terms of a pipeline, of
// changes that came signed and whole. It is safe for concurrent use.
type tally struct {
	mu       sync.Mutex
	received int
	recorded int
	waiting  int
	refused  map[string]int // by reason, each from the beginning
}

func newTally() *tally { return &tally{refused: map[string]int{reasonDown: 0, reasonGone: 0}} }

func (t *tally) came(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.received += n
	t.waiting += n
}

func (t *tally) record(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting -= n
	t.recorded += n
}

func (t *tally) refuse(reason string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting -= n
	t.refused[reason] += n
}

// serve writes all terms as of one moment, in Prometheus' text format.
func (t *tally) serve(w http.ResponseWriter, _ *http.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	family := func(name, kind, help string) {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	family("platform_changes_received_total", "counter", "Changes that came, those told again included.")
	fmt.Fprintln(w, "platform_changes_received_total", t.received)
	family("platform_changes_recorded_total", "counter", "Changes that are recorded, those told again included.")
	fmt.Fprintln(w, "platform_changes_recorded_total", t.recorded)
	family("platform_changes_refused_total", "counter", "Changes that are not recorded, by reason.")
	for _, reason := range []string{reasonDown, reasonGone} {
		fmt.Fprintf(w, "platform_changes_refused_total{reason=%q} %d\n", reason, t.refused[reason])
	}
	family("platform_changes_waiting", "gauge", "Changes that wait for an answer.")
	fmt.Fprintln(w, "platform_changes_waiting", t.waiting)
}
