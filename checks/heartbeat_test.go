package checks

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

func heartbeatOf(t *testing.T, text string, clock *at, beats *Heartbeats) *heartbeat {
	t.Helper()
	var c HeartbeatConfig
	if err := configured(t, text, &c); err != nil {
		t.Fatal(err)
	}
	checker, err := c.Build(Env{Name: "backup", Now: clock.now, Heartbeats: beats})
	if err != nil {
		t.Fatal(err)
	}
	return checker.(*heartbeat)
}

func TestHeartbeat(t *testing.T) {
	clock := &at{began}
	beats := NewHeartbeats(clock.now)
	c := heartbeatOf(t, `{expect_every: 24h, grace: 1h}`, clock, beats)
	for _, step := range []struct {
		after time.Duration
		touch bool
		want  string
	}{
		{0, false, "unknown no heartbeat yet, awaited for 0s of 25h"},
		{24 * time.Hour, false, "unknown no heartbeat yet, awaited for 24h of 25h"},
		{25 * time.Hour, false, "unknown no heartbeat yet, awaited for 25h of 25h"},
		{25*time.Hour + time.Second, false, "fail no heartbeat ever, awaited for 25h0m1s, want one every 24h and 1h of grace"},
		{26 * time.Hour, true, "pass last heartbeat 0s ago, at 2026-11-03T10:00:00Z"},
		{51 * time.Hour, false, "pass last heartbeat 25h ago, at 2026-11-03T10:00:00Z"},
		{51*time.Hour + time.Minute, false, "fail last heartbeat 25h1m ago, at 2026-11-03T10:00:00Z, want one every 24h and 1h of grace"},
		{52 * time.Hour, true, "pass last heartbeat 0s ago, at 2026-11-04T12:00:00Z"},
	} {
		clock.time = began.Add(step.after)
		if step.touch {
			if err := beats.Touch("backup"); err != nil {
				t.Fatal(err)
			}
		}
		r := c.Check(t.Context())
		if got := r.Status.String() + " " + r.Message; got != step.want {
			t.Errorf("after %v: got %q, want %q", step.after, got, step.want)
		}
	}
	if got := heartbeatOf(t, `{expect_every: 24h}`, clock, nil).Check(t.Context()); got.Status != verdict.Unknown {
		t.Errorf("without listener: got %s %q", got.Status, got.Message)
	}
}

func TestHeartbeatsOverHTTP(t *testing.T) {
	clock := &at{began}
	beats := NewHeartbeats(clock.now)
	heartbeatOf(t, `{expect_every: 24h}`, clock, beats)
	s := httptest.NewServer(beats)
	defer s.Close()
	for _, tt := range []struct {
		method, path string
		code         int
		body         string
	}{
		{http.MethodGet, "/act/heartbeat/backup", http.StatusMethodNotAllowed, "method GET, want POST\n"},
		{http.MethodPost, "/act/heartbeat/restore", http.StatusNotFound, "touch \"restore\": no check of kind heartbeat has that name\n"},
		{http.MethodPost, "/act/heartbeat/", http.StatusNotFound, "touch \"\": no check of kind heartbeat has that name\n"},
		{http.MethodPost, "/act/heartbeat/backup", http.StatusNoContent, ""},
	} {
		if at := beats.Touched("backup"); !at.IsZero() {
			t.Fatalf("before %s %s: touched at %v", tt.method, tt.path, at)
		}
		w := httptest.NewRecorder()
		beats.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.code || w.Body.String() != tt.body || (w.Header().Get("Allow") == "POST") != (tt.code == http.StatusMethodNotAllowed) {
			t.Errorf("%s %s: got %d %q, want %d %q", tt.method, tt.path, w.Code, w.Body.String(), tt.code, tt.body)
		}
	}
	if at := beats.Touched("backup"); !at.Equal(began) {
		t.Errorf("touched at %v, want %v", at, began)
	}
}

// heardAt is a listener that heard of everything at that moment.
type heardAt struct {
	name string
	time time.Time
}

func (h heardAt) Touched(name string) time.Time {
	if name == h.name {
		return h.time
	}
	return time.Time{}
}

func TestHeartbeatOfOtherListeners(t *testing.T) {
	clock := &at{began.Add(time.Hour)}
	beats := NewHeartbeats(clock.now)
	beats.Listen(heardAt{"backup.done", began})
	for text, want := range map[string]verdict.Status{
		`{expect_every: 1h, statsd: backup.done}`:  verdict.Pass,
		`{expect_every: 30m, statsd: backup.done}`: verdict.Fail,
	} {
		if got := heartbeatOf(t, text, clock, beats).Check(t.Context()); got.Status != want {
			t.Errorf("%s: got %s %q, want %s", text, got.Status, got.Message, want)
		}
	}
	if at := beats.Touched("backup"); !at.Equal(began) {
		t.Errorf("what was heard is not kept for a restart: got %v, want %v", at, began)
	}
	if got := heartbeatOf(t, `{expect_every: 1h}`, clock, NewHeartbeats(clock.now)).Check(t.Context()); got.Status != verdict.Unknown {
		t.Errorf("its own name is no name of StatsD: got %s %q", got.Status, got.Message)
	}
}

func TestHeartbeatsSurviveARestart(t *testing.T) {
	clock := &at{began}
	beats := NewHeartbeats(clock.now)
	c := heartbeatOf(t, `{expect_every: 24h}`, clock, beats)
	restart := func() {
		t.Helper()
		snapshot, err := beats.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		beats = NewHeartbeats(clock.now)
		c = heartbeatOf(t, `{expect_every: 24h}`, clock, beats)
		c.Check(t.Context()) // looks before anything is restored
		if err := beats.Restore(snapshot); err != nil {
			t.Fatal(err)
		}
	}
	// A process that restarts twice a day still finds out that nothing came.
	var got verdict.Result
	for i := range 4 {
		clock.time = began.Add(time.Duration(i) * 12 * time.Hour)
		got = c.Check(t.Context())
		restart()
	}
	if got.Status != verdict.Fail {
		t.Errorf("never touched: got %s %q, want fail", got.Status, got.Message)
	}
	if err := beats.Touch("backup"); err != nil {
		t.Fatal(err)
	}
	clock.time = clock.time.Add(23 * time.Hour)
	restart()
	if got := c.Check(t.Context()); got.Status != verdict.Pass || *got.Value != (23*time.Hour).Seconds() {
		t.Errorf("touched: got %s %q, want pass", got.Status, got.Message)
	}
	if err := beats.Restore([]byte("[]")); err == nil || !strings.Contains(err.Error(), "restore heartbeats") {
		t.Errorf("got %v, want an error", err)
	}
	if err := beats.Restore([]byte(`{"backup":{"awaited":"2036-01-01T00:00:00Z","touched":"2036-01-01T00:00:00Z"}}`)); err != nil {
		t.Fatal(err)
	}
	if at := beats.Touched("backup"); at.After(clock.time) {
		t.Errorf("touched at %v, which is to come", at)
	}
}

func TestHeartbeatsAreBounded(t *testing.T) {
	beats := NewHeartbeats((&at{began}).now)
	if err := beats.Restore([]byte(`{"was":{"touched":"2026-01-01T00:00:00Z"}}`)); err != nil {
		t.Fatal(err)
	}
	if err := beats.Touch("was"); !errors.Is(err, ErrNoHeartbeat) {
		t.Errorf("a check that is gone: got %v, want %v", err, ErrNoHeartbeat)
	}
	delete(beats.beats, "was")
	for i := range maxBeats {
		if err := beats.expect(fmt.Sprint(i), ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := beats.expect("one more", ""); err == nil {
		t.Error("got one more than there may be")
	}
	if err := beats.Restore([]byte(`{"another":{"touched":"2026-01-01T00:00:00Z"}}`)); err != nil || len(beats.beats) != maxBeats {
		t.Errorf("got %d, %v, want %d", len(beats.beats), err, maxBeats)
	}
	if err := beats.Touch("one more"); !errors.Is(err, ErrNoHeartbeat) {
		t.Errorf("got %v, want %v", err, ErrNoHeartbeat)
	}
}

func TestHeartbeatConfig(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                             "check.expect_every: got nothing",
		`{expect_every: 1ms}`:            "check.expect_every: got 1ms, want 1s to 8784h",
		`{expect_every: 1h, grace: -1s}`: "check.grace: got -1s, want 0s or more",
		`{expect_every: 1h, statsd: a}`:  "",
	} {
		var c HeartbeatConfig
		err := configured(t, text, &c)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
