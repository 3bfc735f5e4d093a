package checks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/heptiolabs/healthcheck"

	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// body reads a captured one.
func body(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/digest/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// lines shows items, a line each.
func lines(items []Folded) (out []string) {
	for _, f := range items {
		line := fmt.Sprintf("%s %v", f.Name, f.Status)
		if f.Category != "" {
			line += " " + string(f.Category)
		}
		if f.Message != "" {
			line += ": " + f.Message
		}
		out = append(out, line)
	}
	return out
}

func TestParseDigestOfOthers(t *testing.T) {
	t.Parallel()
	const jsonType, textType = "application/json", "text/plain; charset=utf-8"
	tests := []struct {
		name, media  string
		status       int
		body, format string
		want         []string
	}{
		{"Spring's example", "application/vnd.spring-boot.actuator.v3+json", 200, body(t, "spring-docs.json"), "spring", []string{
			" pass", "broker pass", "broker/us1 pass", "broker/us2 pass", "db pass", "diskspace pass",
		}},
		{"Spring with a database that is down", jsonType, 503, body(t, "spring-down.json"), "spring", []string{
			" fail", "diskspace pass", "ping pass", "r2dbcconnectionfactory fail: java.lang.RuntimeException: Async resource cleanup failed after onComplete",
		}},
		{"Spring without details", jsonType, 200, `{"status":"UP","groups":["liveness","readiness"]}`, "spring", []string{" pass"}},
		{"Spring out of service", jsonType, 503, `{"status":"OUT_OF_SERVICE"}`, "spring", []string{" fail"}},
		{"Spring with a status of its own", jsonType, 200, `{"status":"UP","components":{"a":{"status":"FLAKY"},"b":{"status":"UNKNOWN"}}}`, "spring", []string{
			" pass", `a unknown: got status "FLAKY", want such as pass, UP or Healthy`, "b unknown",
		}},
		{"Spring Boot before 2.2", jsonType, 200, `{"status":"UP","details":{"diskSpace":{"status":"UP","details":{"total":1,"free":1}}}}`, "spring", []string{" pass", "diskspace pass"}},
		{"Micronaut", jsonType, 503, body(t, "micronaut-down.json"), "spring", []string{
			" fail", "compositediscoveryclient pass", "diskspace pass", "jdbc fail",
			"jdbc/jdbc-oracle-thin-localhost-1521-xe fail: java.sql.SQLTransientConnectionException: HikariPool-1 - Connection is not available, request timed out after 30002ms.", "service pass",
		}},
		{"MicroProfile", jsonType, 503, `{"status":"DOWN","checks":[{"name":"db","status":"DOWN","data":{"x":1}},{"name":"alive","status":"UP"}]}`, "microprofile", []string{" fail", "alive pass", "db fail"}},
		{"the draft's example", "application/health+json", 200, body(t, "health-json-draft.json"), "health+json", []string{
			" pass: health of authz service", "cassandra-connections warn: observed 75", "cassandra-responsetime pass: observed 250 ms",
			"cpu-utilization/6fd416e0-8920-410f-9c7b-c479000f7227 warn: observed 85 percent", "cpu-utilization/6fd416e0-8920-410f-9c7b-c479000f7227-2 warn: observed 85 percent",
			"memory-utilization/6fd416e0-8920-410f-9c7b-c479000f7227 warn: observed 8.5 GiB", "memory-utilization/6fd416e0-8920-410f-9c7b-c479000f7227-2 pass: observed 5500 MiB",
			"uptime pass: observed 1209600.245 s",
		}},
		{"health+json in the words of others", "application/health+json", 503, `{"status":"down","output":"db: refused","checks":{"db":{"status":"error","output":"refused by jdbc:pg://me:hunter2@db/x"}}}`, "health+json", []string{
			" fail: db: refused", "db fail: refused by jdbc:pg://<redacted>@db/x",
		}},
		{"a check of names and words", jsonType, 200, `{"status":"ok","checks":{"db":"ok","queue":"warning"}}`, "health+json", []string{" pass", "db pass", "queue warn"}},
		{"Terminus", jsonType, 503, `{"status":"error","info":{"a":{"status":"up"}},"error":{"b":{"status":"down","message":"gone"}},"details":{"a":{"status":"up"},"b":{"status":"down","message":"gone"}}}`, "health+json", []string{" fail", "a pass", "b fail: gone"}},
		{"ASP.NET's word", textType, 200, "Healthy", "aspnet", []string{" pass"}},
		{"ASP.NET degraded", textType, 200, "Degraded", "aspnet", []string{" warn"}},
		{"ASP.NET unhealthy", textType, 503, "Unhealthy", "aspnet", []string{" fail"}},
		{"ASP.NET's report", jsonType, 200, body(t, "aspnet-ui.json"), "aspnet", []string{" pass", "flaskapi pass", "python pass"}},
		{"ASP.NET's list", jsonType, 200, body(t, "aspnet-list.json"), "aspnet", []string{" pass", "examplehealthcheckasync pass: Health Msg Here."}},
		{"ASP.NET's results", jsonType, 503, `{"status":"Unhealthy","results":{"sql":{"status":"Unhealthy","description":"d","exception":"timeout","data":{}}}}`, "aspnet", []string{" fail", "sql fail: timeout"}},
		{"Dropwizard", jsonType, 200, body(t, "dropwizard.json"), "dropwizard", []string{" fail", "application fail: sbr test."}},
		{"Kubernetes for people", textType, 500, "[+]ping ok\n[-]etcd failed: reason withheld\n[+]poststarthook/start ok\nhealthz check failed\n", "kubernetes", []string{
			" fail", "etcd fail: failed: reason withheld", "ping pass", "poststarthook/start pass",
		}},
		{"one word", textType, 200, "OK\n", "text", []string{" pass"}},
		{"another word", textType, 200, "pong", "text", []string{" pass: pong"}},
		{"a bad word with a good code", textType, 200, "DOWN", "text", []string{" fail"}},
		{"a good word with a bad code", textType, 503, "OK", "text", []string{" fail: status 503"}},
		{"a warning by its code", jsonType, 429, `{"status":"pass"}`, "health+json", []string{" warn: status 429"}},
		{"nothing but a code", "", 204, "", "status", []string{" pass"}},
		{"a bad code", "", 503, "", "status", []string{" fail: status 503"}},
		{"a proxy's page", "text/html", 502, "<html>bad gateway</html>", "status", []string{" fail: status 502"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			items, format, err := ParseDigest(tt.media, tt.status, []byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, lines(items)); diff != "" || format != tt.format {
				t.Errorf("format %s, want %s; (-want +got):\n%s", format, tt.format, diff)
			}
		})
	}
}

func TestParseDigestOfWhatIsNone(t *testing.T) {
	t.Parallel()
	tests := []struct {
		media  string
		status int
		body   string
		want   string
	}{
		{"text/html", 200, "<!doctype html><title>Log in</title>", "got a page, want a digest: it begins with <!doctype"},
		{"", 200, "<a>", "got a page"},
		{"text/plain", 200, "# HELP a b\n# TYPE a gauge\na 1\n", "got what is no digest: it begins with # HELP a b # TYPE"},
		{"text/plain", 404, "404 page not found\n", "status 404: got what is no digest"},
		{"application/json", 404, `{"status":404,"error":"Not Found"}`, "status 404: got JSON that is no digest"},
		{"application/json", 200, `{"message":"hello"}`, "got JSON that is no digest"},
		{"application/json", 200, `{"status":"running"}`, `got status "running", want such as`},
		{"application/json", 200, `{"status":"UP"`, "got what is no JSON"},
		{"application/json", 200, `[1,2]`, "got what is no digest"},
		{"application/json", 200, `hello`, "got what is no digest"},
		{"text/plain", 401, "OK", "got status 401, want a digest"},
		{"text/plain", 302, "OK", "got status 302, want a digest"},
	}
	for _, tt := range tests {
		items, _, err := ParseDigest(tt.media, tt.status, []byte(tt.body))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d %s: got %v, %v, want %s", tt.status, tt.body, lines(items), err, tt.want)
		}
	}
}

func TestParseDigestIsBounded(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&many, `"c%04d":{"status":"%s"},`, i, map[bool]string{true: "DOWN", false: "UP"}[i == 2500])
	}
	items, _, err := ParseDigest("application/json", 200, []byte(`{"status":"UP","components":{`+strings.TrimSuffix(many.String(), ",")+`}}`))
	if err != nil || len(items) != maxFolded+1 || !slices.Contains(lines(items), "c2500 fail") {
		t.Errorf("%d items, %v, want %d with the one that fails", len(items), err, maxFolded+1)
	}
	deep := strings.Repeat(`{"status":"UP","components":{"a":`, 2000) + `{"status":"UP"}` + strings.Repeat("}}", 2000)
	if items, _, err = ParseDigest("application/json", 200, []byte(deep)); err != nil || len(items) != maxNesting+1 {
		t.Errorf("%d items, %v, want %d", len(items), err, maxNesting+1)
	}
	same := `{"status":"UP","checks":[` + strings.Repeat(`{"name":"`+strings.Repeat("n", 300)+`","status":"UP"},`, 50) + `{"name":"///","status":"UP"}]}`
	items, _, err = ParseDigest("application/json", 200, []byte(same))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range items {
		if names[f.Name] || len(f.Name) > maxFoldedName {
			t.Errorf("name %q is there twice or too long", f.Name)
		}
		names[f.Name] = true
	}
}

// served asks a handler once, by a check.
func served(t *testing.T, h http.Handler, path string) (verdict.Result, []string) {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	c := checker[DigestConfig](t, "{url: '"+s.URL+path+"'}", nil)
	r := ask(t, c)
	items, _ := c.(Folder).Folded()
	return r, lines(items)
}

func TestDigestOfHeptiolabs(t *testing.T) {
	t.Parallel()
	h := healthcheck.NewHandler()
	h.AddReadinessCheck("upstream-db", func() error { return errors.New("dial tcp 10.0.0.1:5432: refused") })
	h.AddLivenessCheck("goroutines", healthcheck.GoroutineCountCheck(100_000))
	r, items := served(t, h, "/ready?full=1")
	wantResult(t, r, verdict.Fail, "heptiolabs digest: upstream-db fail: dial tcp 10.0.0.1:5432: refused")
	if diff := cmp.Diff([]string{"goroutines pass", "upstream-db fail: dial tcp 10.0.0.1:5432: refused"}, items); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	r, _ = served(t, h, "/live?full=1")
	wantResult(t, r, verdict.Pass, "heptiolabs digest: 1 checks pass in ")
	r, _ = served(t, h, "/live")
	wantResult(t, r, verdict.Pass, "heptiolabs digest: pass in ")
	r, _ = served(t, h, "/ready")
	wantResult(t, r, verdict.Fail, "heptiolabs digest: fail: status 503")
}

func TestDigestOfOurs(t *testing.T) {
	t.Parallel()
	r := runner.New(runner.Options{Service: "a"})
	for name, result := range map[string]verdict.Result{
		"stream/pods": {Message: "0.2 s behind"},
		"disk":        {Status: verdict.Warn, Message: "91 % full"},
		"backup":      {Status: verdict.Fail, Message: "no backup"},
	} {
		c := runner.Check{Name: name, Run: func(context.Context) verdict.Result { return result }}
		if name == "backup" {
			c.Category = verdict.Email
		}
		if err := r.Add(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.RunNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := func(*http.Request) bool { return true }
	got, items := served(t, r.Healthz(all), "/?category=all")
	// What its owner wants told by email does not fail a check that may page; that
	// its own runner has not begun to run is unknown.
	wantResult(t, got, verdict.Unknown, "outrider digest: runner unknown: ...; and 2 more")
	want := []string{"backup fail email: no backup", "disk warn page: 91 % full", "runner unknown page", "stream/pods pass page: 0.2 s behind"}
	if len(items) != len(want) {
		t.Fatalf("got %q, want %q", items, want)
	}
	for i := range want {
		if !strings.HasPrefix(items[i], want[i]) {
			t.Errorf("got %q, want %q", items[i], want[i])
		}
	}
	_, items = served(t, r.Healthz(nil), "/?category=all")
	if diff := cmp.Diff([]string{"backup fail", "disk warn", "runner unknown", "stream/pods pass"}, items); diff != "" {
		t.Errorf("names and statuses: (-want +got):\n%s", diff)
	}
	_, items = served(t, r.Healthz(all), "/?category=all&format=text")
	if len(items) != 4 || items[0] != "backup fail: failed: no backup" {
		t.Errorf("text: got %q, want four checks with messages", items)
	}
	got, items = served(t, r.Probe(), "/")
	wantResult(t, got, verdict.Unknown, "text digest: unknown")
	if len(items) > 0 {
		t.Errorf("one word: got %q, want no checks", items)
	}
}

func TestDigestThatIsNone(t *testing.T) {
	t.Parallel()
	wrong, _ := served(t, http.NotFoundHandler(), "/health?token=s3cret")
	wantResult(t, wrong, verdict.Unknown, "/health?...: status 404: got what is no digest: it begins with 404 page not found")
	large, _ := served(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"status":"UP","x":"`, strings.Repeat("x", 2<<20), `"}`)
	}), "/")
	wantResult(t, large, verdict.Unknown, "status 200, got more than 1MiB, want a digest of at most that")
}

func TestDigestThatHangsOrIsGone(t *testing.T) {
	t.Parallel()
	hang := make(chan bool, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush() // the client reads what came
			<-r.Context().Done()
		default:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"status":"UP","components":{"db":{"status":"UP"},"cloud":{"status":"UNKNOWN"}}}`)
		}
	}))
	c := checker[DigestConfig](t, "{url: '"+s.URL+"'}", nil)
	if items, read := c.(Folder).Folded(); read || items != nil {
		t.Errorf("before the first time: got %v, %v, want nothing", items, read)
	}
	wantResult(t, ask(t, c), verdict.Pass, "spring digest: 2 checks pass in ")
	hang <- true
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantResult(t, c.Check(ctx), verdict.Fail, "no whole answer by the deadline")
	s.Close()
	wantResult(t, ask(t, c), verdict.Fail, "refused")
	items, read := c.(Folder).Folded()
	if diff := cmp.Diff([]string{"cloud unknown", "db pass"}, lines(items)); diff != "" || read {
		t.Errorf("read %v now, want what was read before; (-want +got):\n%s", read, diff)
	}
}

func TestDigestConfigIsStrict(t *testing.T) {
	t.Parallel()
	wantMistakes[DigestConfig](t, map[string]string{
		`{}`:                               "check.url: got nothing",
		`{url: "http://x", redirects: -1}`: "check.redirects: got -1",
		`{url: "http://x", max_body: 0B}`:  "check.max_body: got 0B",
		`{url: "http://u:p@x"}`:            "with a user",
	})
}

func FuzzForeignDigest(f *testing.F) {
	for _, name := range []string{"spring-docs.json", "spring-down.json", "micronaut-down.json", "aspnet-ui.json", "aspnet-list.json", "health-json-draft.json", "dropwizard.json"} {
		f.Add("application/json", 200, []byte(body(f, name)))
	}
	f.Add("text/plain", 500, []byte("[+]ping ok\n[-]etcd failed: reason withheld\n"))
	f.Add("application/json", 503, []byte(`{"a":"OK","b":"gone"}`))
	f.Add("text/plain; charset=x", 200, []byte("Unhealthy"))
	f.Fuzz(func(t *testing.T, media string, status int, body []byte) {
		items, format, err := ParseDigest(media, status, body)
		if err != nil {
			if items != nil || format != "" || len(err.Error()) > 400 {
				t.Errorf("got %v, %q beside error %q", items, format, err)
			}
			return
		}
		if len(items) == 0 || len(items) > maxFolded+1 || items[0].Name != "" || format == "" {
			t.Fatalf("%d items of format %q, the first %+v", len(items), format, items[0])
		}
		names := map[string]bool{}
		for i, f := range items {
			bad := strings.ContainsFunc(f.Name, func(r rune) bool {
				return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("._/-", r)
			})
			if bad || len(f.Name) > maxFoldedName || names[f.Name] || i > 0 && f.Name == "" {
				t.Errorf("name %q is malformed, too long or there twice", f.Name)
			}
			names[f.Name] = true
			if len(f.Message) > maxFoldedMessage || verdict.Clean(f.Message) != f.Message {
				t.Errorf("message %q, want it cleaned and at most %d bytes", f.Message, maxFoldedMessage)
			}
		}
		if status >= 500 && items[0].Status != verdict.Fail {
			t.Errorf("status code %d gives %v, want fail", status, items[0].Status)
		}
		again, _, err := ParseDigest(media, status, body)
		if diff := cmp.Diff(items, again); diff != "" || err != nil {
			t.Errorf("read twice: %v\n%s", err, diff)
		}
	})
}
