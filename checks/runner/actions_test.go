package runner

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
)

func post(h http.Handler, contentType, body string) (int, string) {
	req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

func TestActions(t *testing.T) {
	t.Parallel()
	const asForm, asJSON = "application/x-www-form-urlencoded", "application/json; charset=utf-8"
	synctest.Test(t, func(t *testing.T) {
		r := zoo(t)
		for _, tt := range []struct {
			name, action, contentType, body string
			code                            int
			says                            string
		}{
			{"a form", "acknowledge", asForm, "check=license&who=ann&why=on+it", 200, "ok"},
			{"JSON", "acknowledge", asJSON, `{"check":"sink/platform","who":"bob","why":"calling them"}`, 200, "ok"},
			{"for a time", "maintenance", asForm, "check=disk&who=ann&why=new+disk&for=90m", 200, "ok"},
			{"until", "maintenance", asJSON, `{"check":"a-neighbour","who":"ann","why":"x","until":"2000-01-01T10:00:00Z"}`, 200, "ok"},
			{"its end", "maintenance", asForm, "check=a-neighbour&who=ann&why=x&for=0s", 200, "ok"},
			{"a check that there is not", "acknowledge", asForm, "check=dis&who=ann&why=x", 400, "acknowledge: check dis: not known"},
			{"the heartbeat", "maintenance", asForm, "check=runner&who=ann&why=x&for=1h", 400, "maintenance: check runner: not known"},
			{"a check that passes", "acknowledge", asForm, "check=stream/pods&who=ann&why=x", 400, "acknowledge: check stream/pods: it passes: there is nothing to acknowledge"},
			{"no check", "acknowledge", asForm, "who=ann&why=x", 400, "check: got none, want the name of a check"},
			{"nobody", "acknowledge", asForm, "check=disk&why=x", 400, "acknowledge: check disk: who: got 0 bytes, want 1 to 200"},
			{"no end", "maintenance", asForm, "check=disk&who=ann&why=x", 400, `until "" and for "", want one of them`},
			{"two ends", "maintenance", asForm, "check=disk&who=ann&why=x&for=1h&until=2000-01-01T10:00:00Z", 400, `until "2000-01-01T10:00:00Z" and for "1h", want one of them`},
			{"no time", "maintenance", asForm, "check=disk&who=ann&why=x&for=soon", 400, `for: got "soon", want a time such as 90m; 0s ends a maintenance`},
			{"no moment", "maintenance", asForm, "check=disk&who=ann&why=x&until=noon", 400, `until: got "noon", want a moment such as 2026-03-01T12:00:00Z`},
			{"too long", "maintenance", asForm, "check=all&who=ann&why=x&for=9000h", 400, "maintenance: until 2001-01-10T00:00:10Z: got 9000h0m0s from now, want at most 720h0m0s"},
			{"a key that there is not", "acknowledge", asForm, "check=disk&whom=ann", 400, ""},
			{"a key given twice", "acknowledge", asForm, "check=disk&check=all", 400, `form: got "check" 2 times, want check, who, why, until and for, once`},
			{"no JSON", "acknowledge", asJSON, "check=disk", 400, "read JSON: invalid character 'c' looking for beginning of value"},
			{"something else", "acknowledge", "text/xml", "<a/>", 400, `Content-Type: got "text/xml", want application/json or application/x-www-form-urlencoded`},
			{"too much", "acknowledge", asForm, "check=" + strings.Repeat("x", maxAction), 400, "read request: http: request body too large"},
		} {
			code, body := post(r.Actions()["checks/"+tt.action], tt.contentType, tt.body)
			if code != tt.code || tt.says != "" && body != tt.says+"\n" {
				t.Errorf("%s: %d %q, want %d %q", tt.name, code, body, tt.code, tt.says)
			}
		}
		if w := do(r.Actions()["checks/acknowledge"], "GET", "/"); w.Code != 405 || w.Header().Get("Allow") != "POST" {
			t.Errorf("GET: %d, Allow %q; want 405, POST", w.Code, w.Header().Get("Allow"))
		}
		before := r.Digest(Query{Category: AllCategories})
		if got := []string{get(t, r, "license").Acknowledged.Who, get(t, r, "sink/platform").Acknowledged.Why, get(t, r, "disk").Maintenance.Who}; !cmp.Equal(got, []string{"ann", "calling them", "ann"}) {
			t.Errorf("what was said: %q", got)
		}
		if c := get(t, r, "a-neighbour"); c.Maintenance != nil || c.Status != verdict.Unknown {
			t.Errorf("a maintenance that was ended: %+v, %v", c.Maintenance, c.Status)
		}
		want := []string{"acknowledged: license, sink/platform", "in maintenance: disk"}
		if diff := cmp.Diff(want, before.Notes); diff != "" {
			t.Errorf("notes (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"sink/platform", "license"}, before.Failing); diff != "" {
			t.Errorf("failing: what is acknowledged counts (-want +got):\n%s", diff)
		}
		if err := r.Maintain(AllChecks, time.Now().Add(time.Minute), "ann", "moving house"); err != nil {
			t.Fatal(err)
		}
		if d := r.Digest(Query{Category: AllCategories}); len(d.Failing) != 0 || d.Status != verdict.Unknown || d.Checks[0].Name != heartbeatName {
			t.Errorf("everything in maintenance: %v, failing %v; want unknown because of the heartbeat alone", d.Status, d.Failing)
		}
		time.Sleep(time.Minute)
		if d := r.Digest(Query{Category: AllCategories}); len(d.Failing) < 2 {
			t.Errorf("after it: failing %v, want at least two", d.Failing)
		}
	})
}

func TestRestartKeepsWhatIsKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := zoo(t)
		if err := r.Acknowledge("license", "ann", "on it"); err != nil {
			t.Fatal(err)
		}
		if err := r.Maintain(AllChecks, time.Now().Add(time.Hour), "bob", "moving house"); err != nil {
			t.Fatal(err)
		}
		before := r.Digest(Query{Category: AllCategories})
		text, err := r.Remember()
		if err != nil {
			t.Fatal(err)
		}
		again := newRunner()
		if err := again.Add(zooChecks()[:2]...); err != nil { // before
			t.Fatal(err)
		}
		if err := again.Restore(text); err != nil {
			t.Fatal(err)
		}
		if err := again.Add(zooChecks()[2:]...); err != nil { // and after
			t.Fatal(err)
		}
		var want, got []CheckDigest
		for i, d := range []Digest{before, again.Digest(Query{Category: AllCategories})} {
			for _, c := range d.Checks {
				if c.Name != heartbeatName {
					*[]*[]CheckDigest{&want, &got}[i] = append(*[]*[]CheckDigest{&want, &got}[i], c)
				}
			}
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(CheckDigest{})); diff != "" {
			t.Errorf("after a restart (-want +got):\n%s", diff)
		}

		// Nobody ran for a minute: what is as old as three intervals says nothing.
		time.Sleep(time.Minute)
		old := newRunner()
		mustAdd(t, old, zooChecks()...)
		if err := old.Restore(text); err != nil {
			t.Fatal(err)
		}
		if c := get(t, old, "license"); c.Found != verdict.Unknown || c.Stale || c.History != "ff" || c.Acknowledged == nil {
			t.Errorf("too old: found %v, stale %v, history %q, %v; want unknown, false, ff, acknowledged", c.Found, c.Stale, c.History, c.Acknowledged)
		}
		if c := get(t, old, "a-neighbour"); c.Runs != 2 || c.LastRun == nil {
			t.Errorf("a check that runs each hour: %d runs, last %v; want 2 and that", c.Runs, c.LastRun)
		}
	})
}

func TestRememberKeepsChecksThatHaveNotComeAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		text, err := zoo(t).Remember()
		if err != nil {
			t.Fatal(err)
		}
		known := func(text []byte) int {
			r := newRunner()
			if err := r.Restore(text); err != nil {
				t.Fatal(err)
			}
			again, err := r.Remember()
			if err != nil {
				t.Fatal(err)
			}
			var m memory
			if err := json.Unmarshal(again, &m); err != nil {
				t.Fatal(err)
			}
			return len(m.States)
		}
		got := []int{known(text)}
		time.Sleep(keepUnclaimed)
		got = append(got, known(text))
		if diff := cmp.Diff([]int{5, 0}, got); diff != "" {
			t.Errorf("states at once and a day later (-want +got):\n%s", diff)
		}
	})
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	many := `{"version":1,"states":{"a":{}` + strings.Repeat(`,"a":{}`, 10) + `}}`
	for text, want := range map[string]string{
		``:                          "restore checks: unexpected end of JSON input",
		`{"version":2}`:             "restore checks: got version 2, want 1",
		`[]`:                        "restore checks: json: cannot unmarshal array into Go value of type runner.memory",
		strings.Repeat(" ", 17<<20): "restore checks: got 17825792 bytes, want at most 16777216",
		many:                        "",
	} {
		r := newRunner()
		if err := r.Restore([]byte(text)); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
	var log bytes.Buffer
	r := New(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	mustAdd(t, r, Check{Name: "good", Run: answer(verdict.Pass, "")}, Check{Name: "bad", Run: answer(verdict.Pass, "")})
	err := r.Restore([]byte(`{"version":1,"states":{"bad":{"history":"xyz"},"worse":[],"Not a name":{},"good":{"status":"fail","settled":"fail","history":"f"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if good, bad := get(t, r, "good"), get(t, r, "bad"); good.History != "f" || bad.History != "" {
		t.Errorf("histories %q and %q, want f and none", good.History, bad.History)
	}
	if n := strings.Count(log.String(), "makes no sense"); n != 3 {
		t.Errorf("%d warnings, want 3:\n%s", n, &log)
	}
}

// Whatever is in the file, the runner goes on.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"version":1,"everything":{"who":"a","why":"b","until":"2999-01-01T00:00:00Z"},"states":{"a":{"status":"fail","settled":"fail","history":"pf","runs":3}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := newRunner()
		mustAdd(t, r, Check{Name: "a", Run: answer(verdict.Fail, "refused")})
		if r.Restore(text) != nil {
			return
		}
		if err := r.RunNow(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c := get(t, r, "a"); c.Runs == 0 || !strings.HasSuffix(c.History, "f") {
			t.Errorf("after a result: %+v", c)
		}
		renderJSON(r.Digest(Query{Category: AllCategories}), true)
		if _, err := r.Remember(); err != nil {
			t.Error(err)
		}
	})
}

// Whoever sends whatever: an answer, and no check but the one that is named changes.
func FuzzActions(f *testing.F) {
	f.Add("application/json", `{"check":"a","who":"ann","why":"x","for":"1h"}`)
	f.Add("application/x-www-form-urlencoded", "check=a&who=ann&why=x&until=2000-01-01T10:00:00Z")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		r := newRunner()
		mustAdd(t, r, Check{Name: "a", Run: answer(verdict.Fail, "")}, Check{Name: "b", Run: answer(verdict.Fail, "")})
		for name, h := range r.Actions() {
			code, text := post(h, contentType, body)
			if code != 200 && code != 400 || text == "" {
				t.Errorf("%s: %d %q", name, code, text)
			}
		}
		if c := get(t, r, "b"); !strings.ContainsAny(body, `b\%`) && !strings.Contains(body, "all") && (c.Acknowledged != nil || c.Maintenance != nil) {
			t.Errorf("b changed: %+v", c)
		}
	})
}
