package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve answers as an agent does, with limits far below those of its server.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ReadTimeout, s.Config.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func post(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := http.Post(url, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestHandlerSaysHowFarItIs(t *testing.T) {
	t.Parallel()
	var went atomic.Int64
	// 300 take longer than the server's limits.
	url := serve(t, Handler(&memory{upTo: 600}, func(sink string, n int64) { went.Add(n) }))
	status, body := post(t, url+"?sink=s&dead_letters=true&rate=500")
	var first, last Report
	lines := strings.Split(strings.TrimSpace(body), "\n")
	for text, to := range map[string]*Report{lines[0]: &first, lines[len(lines)-1]: &last} {
		if err := json.Unmarshal([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	if status != http.StatusOK || len(lines) < 3 || first.Found != 300 || first.Done != 0 || !last.Ended || last.Done != 300 || last.Error != "" {
		t.Errorf("status %d, first %+v, last %+v of %d lines", status, first, last, len(lines))
	}
	if got := went.Load(); got != 300 {
		t.Errorf("told of %d dead letters that went, want 300", got)
	}
}

// refusing is a log that refuses.
type refusing struct{ memory }

func (r *refusing) ReplayUpTo(context.Context, *Query) (int64, error) {
	return 0, fmt.Errorf("%w: no", ErrRefused)
}

func TestHandlerRefuses(t *testing.T) {
	t.Parallel()
	fails := func(int64) error { return errors.New("the disk is on fire") }
	for name, tt := range map[string]struct {
		log    Log
		query  string
		status int
		want   string
	}{
		"a wrong query":        {&memory{}, "sink=s&from=x", http.StatusBadRequest, `from: got "x"`},
		"a wrong time":         {&memory{}, "sink=s&since=2h", http.StatusBadRequest, `since: got "2h"`},
		"a wrong workload":     {&memory{}, "sink=s&workload=x", http.StatusBadRequest, "want NAMESPACE/KIND/NAME"},
		"no filter":            {&memory{}, "sink=s", http.StatusBadRequest, "all of the log: --from 1"},
		"a sink, by the log":   {&refusing{}, "sink=s&from=1", http.StatusConflict, "replay to sink s: refused: no"},
		"nothing, but ends so": {&memory{upTo: 10, fail: fails}, "sink=s&from=1", http.StatusOK, `"ended":false,"error":"replay to sink s: the disk is on fire"`},
	} {
		status, body := post(t, serve(t, Handler(tt.log, nil))+"?"+tt.query)
		if status != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s: status %d, want %d and %q in %s", name, status, tt.status, tt.want, body)
		}
	}
}

// TestOneReplayOfASinkAtATime also wants the client's going to end one.
func TestOneReplayOfASinkAtATime(t *testing.T) {
	t.Parallel()
	m := &memory{upTo: 1_000_000}
	url := serve(t, Handler(m, nil))
	ctx, goes := context.WithCancel(t.Context())
	defer goes()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"?sink=s&from=1&rate=10", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line := make([]byte, 500)
	n, err := resp.Body.Read(line)
	if err != nil || !bytes.Contains(line[:n], []byte(`"found":500000`)) {
		t.Fatalf("got %s, error %v", line[:n], err)
	}
	if status, body := post(t, url+"?sink=s&from=1"); status != http.StatusConflict || !strings.Contains(body, "another replay to sink s is under way") {
		t.Errorf("a second one: status %d, %s", status, body)
	}
	if status, body := post(t, url+"?sink=other&from=1&dry_run=true"); status != http.StatusOK {
		t.Errorf("one of another sink: status %d, %s", status, body)
	}
	goes()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for status := 0; status != http.StatusOK; {
		select {
		case <-tick.C:
			status, _ = post(t, url+"?sink=s&from=1&dry_run=true")
		case <-deadline:
			t.Fatal("the replay goes on without its client")
		}
	}
	if n := m.count(); n > 100 {
		t.Errorf("%d put aside, want few", n)
	}
}
