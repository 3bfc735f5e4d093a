package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// lines is what the plugin prints of a digest at 13:00.
func lines(t testing.TB, body string, verbose int) string {
	t.Helper()
	d, err := parseDigest("application/health+json; charset=utf-8", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	at, err := parseTarget("http://127.0.0.1:9610", defaultPath)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	r := d.summary(at, "page checks", verbose, 12*time.Millisecond, 10*time.Second, time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC))
	if err := r.print(&b); fmt.Sprint(err) != fmt.Sprint(exitWith(*d.Status)) {
		t.Errorf("got %v, want the exit code of %v", err, *d.Status)
	}
	return b.String()
}

const broken = `{
	"status": "fail", "serviceId": "payments", "fingerprint": "3fa9c1d2e4b5",
	"checks": {
		"db":    [{"status":"fail","output":"connection refused","since":"2026-11-23T12:01:00.123Z","observedValue":0.5,"observedUnit":"seconds","runbook":"https://r.example/db","category":"page"}],
		"api":   [{"status":"pass","output":"status 200","observedValue":120,"observedUnit":"milliseconds","since":"2026-11-20T00:00:00Z"}],
		"cache": [{"status":"warn","output":"slow","acknowledged":{"who":"ann","why":"known"},"since":"2026-11-23T12:59:00Z"}],
		"feed":  [{"status":"unknown","output":"because db fails","since":"2026-11-23T12:01:02Z"}],
		"disk":  [{"status":"pass","observedValue":"plenty","measures":[
			{"label":"/","value":12.5,"unit":"GB","warn":"20:","crit":"@0:10","min":0,"max":100},
			{"label":"/var lib","value":null,"unit":"%"},
			{"label":"/","value":1}]}]
	}
}`

func TestTheLine(t *testing.T) {
	t.Parallel()
	want := `FAIL payments: db (connection refused, since 12:01Z), feed (unknown), cache (warn, acknowledged); 1 fail, 1 unknown, 1 warn of 5 page checks [fingerprint 3fa9c1d2e4b5]` +
		` | time=0.012s;;;0;10 checks=5;;;0 fail=1;;;0 unknown=1;;;0 warn=1;;;0 db=0.5s api=120ms disk::/=12.5GB;20:;@0:10;0;100 'disk::/var lib'=U
`
	if diff := cmp.Diff(want, lines(t, broken, 0)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	want += `[FAIL] db: connection refused, since 2026-11-23T12:01:00Z, category page, runbook https://r.example/db
[UNKNOWN] feed: because db fails, since 2026-11-23T12:01:02Z
[WARN] cache: slow, since 2026-11-23T12:59:00Z, acknowledged by ann: known
[PASS] api: status 200, since 2026-11-20T00:00:00Z
[PASS] disk
`
	if diff := cmp.Diff(want, lines(t, broken, 2)); diff != "" {
		t.Errorf("-vv: -want +got:\n%s", diff)
	}
	if want, got := "[FAIL] db: connection refused, since 2026-11-23T12:01:00Z\n", lines(t, broken, 1); !strings.Contains(got, want) {
		t.Errorf("-v: got\n%s\nwant %s in it", got, want)
	}
}

// A service that is CRITICAL already has nothing but its text to tell of a second
// failure: that comes first.
func TestASecondFailureChangesTheLine(t *testing.T) {
	t.Parallel()
	body := func(also string) string {
		return `{"status":"fail","serviceId":"a","checks":{"db":[{"status":"fail","since":"2026-11-23T12:01:00Z"}]` + also + `}}`
	}
	first := lines(t, body(""), 0)
	second := lines(t, body(`,"queue":[{"status":"fail","output":"full","since":"2026-11-23T12:02:00Z"}]`), 0)
	if !strings.HasPrefix(first, "FAIL a: db (since 12:01Z); 1 fail of 1 ") || !strings.HasPrefix(second, "FAIL a: queue (full, since 12:02Z), db; 2 fail of 2 ") {
		t.Errorf("got\n%s%s", first, second)
	}
}

func TestOldAndManyFailures(t *testing.T) {
	t.Parallel()
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf(`"%s%03d":[{"status":"fail","output":"%s","since":"2026-11-01T10:00:00Z","observedValue":%d}]`, strings.Repeat("x", 150), i, strings.Repeat("é", 300), i))
	}
	got := lines(t, `{"status":"fail","serviceId":"a","fingerprint":"abc","checks":{`+strings.Join(many, ",")+`}}`, 0)
	text, perf, _ := strings.Cut(got, " | ")
	if len(text) > mostText || len(perf) > mostPerf || !utf8.ValidString(got) {
		t.Errorf("got %d and %d bytes, valid %t, want at most %d and %d", len(text), len(perf), utf8.ValidString(got), mostText, mostPerf)
	}
	if !strings.HasSuffix(text, "...; 300 fail of 300 page checks [fingerprint abc]") {
		t.Errorf("got %q, want the number and the fingerprint at its end", text)
	}
	got = lines(t, `{"status":"fail","checks":{"a":[{"status":"fail","since":"2026-11-01T10:00:00Z"},{"status":"fail"}],"b":[],"c":null}}`, 0)
	if want := "FAIL http://127.0.0.1:9610/healthz: a (since 2026-11-01 10:00Z), a/2; 2 fail of 2 page checks | "; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	names := strings.Repeat(`{"status":"fail"},`, mostNamed+2)
	if got, want := lines(t, `{"status":"fail","checks":{"a":[`+strings.TrimSuffix(names, ",")+`]}}`, 0), "a/8, and 2 more; 10 fail"; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q in it", got, want)
	}
}

func TestPerformanceDataIsBounded(t *testing.T) {
	t.Parallel()
	all := []verdict.Measure{{Label: "a", Value: 1}, {Label: "a", Value: 2}, {Label: strings.Repeat("b", 20), Value: 3}, {Label: "c", Value: 4, Unit: "s"}}
	if got, want := nagiosPerf(all, 10), "a=1 c=4s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// FuzzPluginLine shows the plugin what an application may answer: what it prints
// is lines that mean to Nagios what they should.
func FuzzPluginLine(f *testing.F) {
	f.Add([]byte(broken))
	f.Add([]byte(passing))
	f.Add([]byte(`{"status":"fail","serviceId":"|<$` + "`" + `>","fingerprint":"\n|","checks":{"a|\n=;'":[{"status":"fail","output":"a | b\r\n\u0000 $HOME \"'~&","since":"x","observedUnit":"|","observedValue":-1e400}]}}`))
	f.Add([]byte(`{"status":"pass","checks":{"":[{"status":"pass","observedValue":NaN}]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := parseDigest("application/health+json", body)
		if err != nil {
			return
		}
		got := lines(t, string(body), 2)
		all := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		if len(all) != 1+len(d.rows) || strings.Count(got, "|") != 1 || !strings.Contains(all[0], "|") {
			t.Fatalf("got %d lines of %d checks, and %d bars, want one in the first:\n%s", len(all), len(d.rows), strings.Count(got, "|"), got)
		}
		text, perf, _ := strings.Cut(all[0], " | ")
		if strings.ContainsAny(text+strings.Join(all[1:], ""), "`~$&'\"<>\\\x00\r\t") || strings.ContainsAny(perf, "\x00\r\t") || !utf8.ValidString(got) {
			t.Fatalf("got what Nagios drops:\n%q", got)
		}
		if !strings.HasPrefix(text, word(*d.Status)+" ") || len(text) > mostText || len(perf) > mostPerf {
			t.Fatalf("got %d and %d bytes, want %s and at most %d and %d:\n%s", len(text), len(perf), word(*d.Status), mostText, mostPerf, got)
		}
		fan := fanOut{host: "h", prefix: "p"}
		for _, c := range d.rows {
			line := fan.line(c, time.Unix(1, 0))
			fields := strings.SplitN(line, ";", 5)
			if len(line) > atomicWrite || strings.Count(line, "\n") != 1 || len(fields) != 5 || fields[3] != fmt.Sprint(int(*c.Status)) {
				t.Fatalf("got %d bytes, %d fields: %q", len(line), len(fields), line)
			}
		}
	})
}
