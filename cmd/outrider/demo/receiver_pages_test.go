package demo

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// ask has the receiver answer a request.
func ask(r *receiver, method, path, body string) (status int, text string) {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

func TestReceiverShowsItsOwnBooks(t *testing.T) {
	key := []byte("a key")
	now := time.Unix(1_800_000_000, 0)
	var r *receiver
	waiting := ""
	r = newReceiver(Manner{Down: &Window{5 * time.Second, 15 * time.Second}}, key, func() time.Time { return now }, func([]Told) {
		w := httptest.NewRecorder()
		r.tally.serve(w, nil)
		waiting = w.Body.String()
	})
	queued, running := changeOf(t, "u1", 1, "", statesync.Queued), changeOf(t, "u1", 2, statesync.Queued, statesync.Running)
	batch := []byte("[" + string(queued) + "," + string(running) + "]")
	r.begin()
	post(r, key, batch)
	post(r, key, queued)                        // again
	post(r, []byte("another"), queued)          // nobody knows whose it is
	post(r, key, []byte(`{"not": "a change"}`)) // nobody knows how many
	if !strings.Contains(waiting, "platform_changes_waiting 2\n") || !strings.Contains(waiting, "platform_changes_recorded_total 0\n") {
		t.Errorf("while two are taken: %s", waiting)
	}
	now = now.Add(6 * time.Second)
	if status := post(r, key, batch); status != http.StatusServiceUnavailable {
		t.Errorf("while it is down: status %d, want 503", status)
	}
	status, got := ask(r, http.MethodGet, "/stats", "")
	want := `# HELP platform_changes_received_total Changes that came, those told again included.
# TYPE platform_changes_received_total counter
platform_changes_received_total 5
# HELP platform_changes_recorded_total Changes that are recorded, those told again included.
# TYPE platform_changes_recorded_total counter
platform_changes_recorded_total 3
# HELP platform_changes_refused_total Changes that are not recorded, by reason.
# TYPE platform_changes_refused_total counter
platform_changes_refused_total{reason="down"} 2
platform_changes_refused_total{reason="gone"} 0
# HELP platform_changes_waiting Changes that wait for an answer.
# TYPE platform_changes_waiting gauge
platform_changes_waiting 0
`
	if diff := cmp.Diff(want, got); status != http.StatusOK || diff != "" {
		t.Errorf("status %d, %s", status, diff)
	}
}

func TestReceiverHasPagesBesides(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := newReceiver(Manner{Down: &Window{5 * time.Second, 15 * time.Second}}, nil, func() time.Time { return now }, func([]Told) {})
	pages := func(want map[string]int) {
		t.Helper()
		for page, status := range want {
			method, path, _ := strings.Cut(page, " ")
			if got, text := ask(r, method, path, "\x1f\x8b whatever"); got != status {
				t.Errorf("%s: status %d, %s, want %d", page, got, text, status)
			}
		}
	}
	r.begin()
	pages(map[string]int{
		"GET /": 200, "GET /stats": 200, "POST /api/put": 204,
		"GET /api/put": 405, "GET /changes": 405, "POST /stats": 405, "GET /away": 404,
	})
	now = now.Add(5 * time.Second)
	pages(map[string]int{"GET /": 503, "GET /stats": 200, "POST /api/put": 204})
	if status, _ := ask(r, http.MethodPost, "/api/put", strings.Repeat("x", maxBody+1)); status != http.StatusBadRequest {
		t.Errorf("points without end: status %d, want 400", status)
	}
}
