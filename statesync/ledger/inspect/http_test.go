package inspect

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serve answers for a ledger as an agent does, with limits far below those of
// its server.
func serve(t *testing.T, path string) string {
	t.Helper()
	mux := http.NewServeMux()
	for name, h := range Actions(path) {
		mux.Handle("/"+name, h)
	}
	s := httptest.NewUnstartedServer(mux)
	s.Config.ReadTimeout, s.Config.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func get(t *testing.T, url string) (status int, body string) {
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

func TestActionsAnswer(t *testing.T) {
	w := write(t, t.TempDir())
	w.small()
	url := serve(t, w.path())
	for query, want := range map[string]struct {
		status int
		says   []string
	}{
		"stat":                               {200, []string{"cluster    " + cluster + ", epoch 1", "archive"}},
		"stat?json=true":                     {200, []string{`"live":true`, `"head":11`}},
		"ls":                                 {200, []string{"1 20", "11 20", "stream pods gap(Expired)"}},
		"ls?last=1&uid=a":                    {200, []string{"load/Pod/pod-a Running>Succeeded(Because)"}},
		"ls?workload=load/Pod/pod-b&after=3": {200, []string{"7 20"}},
		"ls?gaps=true&json=true":             {200, []string{`{"number":6,`, `"gap":{"stream":"pods"`}},
		"ls?last=-1":                         {400, []string{`last: got "-1", want a number from 0`}},
		"ls?after=x":                         {400, []string{`after: got "x"`}},
		"ls?workload=x":                      {400, []string{`workload: got "x", want NAMESPACE/KIND/NAME`}},
		"ls?uid=z":                           {422, []string{"no such workload"}},
		"verify":                             {200, []string{"numbers       1..11", "ok", "note: the ledger is live"}},
		"verify?findings=x":                  {400, []string{`findings: got "x"`}},
		"verify?json=true":                   {200, []string{`"name":"numbers","scope":"1..11","found":0`}},
		"verify?json=true&progress=true":     {200, []string{`{"progress":{"stage":`, `{"report":{`}},
	} {
		status, body := get(t, url+"/ledger/"+query)
		if status != want.status {
			t.Errorf("%s: status %d, want %d: %s", query, status, want.status, body)
		}
		for _, s := range want.says {
			if !strings.Contains(body, s) {
				t.Errorf("%s: no %q in\n%s", query, s, body)
			}
		}
	}
	status, body := get(t, serve(t, filepath.Join(t.TempDir(), "none.db"))+"/ledger/stat")
	if status != http.StatusInternalServerError || !strings.Contains(body, "got no such file") {
		t.Errorf("no ledger: status %d, %s", status, body)
	}
}

// TestAnAnswerThatFailsIsBrokenOff damages a change behind many good ones.
func TestAnAnswerThatFailsIsBrokenOff(t *testing.T) {
	w := write(t, t.TempDir())
	w.many(2 * pageRows)
	alter(t, w.path(), "UPDATE changes SET body = '{' WHERE n = 999")
	resp, err := http.Post(serve(t, w.path())+"/ledger/ls", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil || len(b) == 0 {
		t.Errorf("%d bytes and error %v, want a part and an error", len(b), err)
	}
}

// TestALongAnswerOutlivesTheServersLimits reads slower than the server's
// limits are.
func TestALongAnswerOutlivesTheServersLimits(t *testing.T) {
	w := write(t, t.TempDir())
	w.many(4 * pageRows)
	resp, err := http.Post(serve(t, w.path())+"/ledger/ls?json=true", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	d := json.NewDecoder(bufio.NewReader(resp.Body))
	rows := 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ; ; rows++ {
		var r Row
		if err := d.Decode(&r); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("after %d rows: %v", rows, err)
		}
		if rows < 3 {
			<-tick.C
		}
	}
	if rows != 4*pageRows {
		t.Errorf("%d rows, want %d", rows, 4*pageRows)
	}
}

func TestOneVerifyAtATime(t *testing.T) {
	w := write(t, t.TempDir())
	w.small()
	h := Actions(w.path())["ledger/verify"]
	inner := &during{ResponseRecorder: httptest.NewRecorder()}
	inner.do = func() {
		second := httptest.NewRecorder()
		h.ServeHTTP(second, httptest.NewRequest(http.MethodPost, "/", nil))
		inner.second = second.Code
	}
	h.ServeHTTP(inner, httptest.NewRequest(http.MethodPost, "/", nil))
	third := httptest.NewRecorder()
	h.ServeHTTP(third, httptest.NewRequest(http.MethodPost, "/", nil))
	if inner.Code != 200 || inner.second != http.StatusServiceUnavailable || third.Code != 200 {
		t.Errorf("status %d, meanwhile %d, then %d; want 200, 503, 200", inner.Code, inner.second, third.Code)
	}
}

// during does something while an answer is written.
type during struct {
	*httptest.ResponseRecorder
	do     func()
	second int
}

func (d *during) Write(b []byte) (int, error) {
	d.do()
	return d.ResponseRecorder.Write(b)
}

func TestAClientThatGoesEndsTheWork(t *testing.T) {
	path := stopped(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := look(t, path).Verify(ctx, VerifyOptions{}); err == nil {
		t.Error("a recount went on without its context")
	}
}

func TestALargeLedgerIsRecountedOutsideTheAgent(t *testing.T) {
	if err := tooMany(mostInside, "x.db"); err != nil {
		t.Errorf("%d changes: %v, want none", mostInside, err)
	}
	if err := tooMany(mostInside+1, "x.db"); err == nil || !strings.Contains(err.Error(), "run outrider ledger verify x.db") {
		t.Errorf("got %v, want what to run instead", err)
	}
}
