package runner

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
)

func TestNegotiate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, accept string
		want         form
	}{
		{"nothing", "", healthForm},
		{"anything", "*/*", healthForm},
		{"any application", "application/*", healthForm},
		{"any text", "text/*", textForm},
		{"what there is not", "text/html", healthForm},
		{"a browser", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", healthForm},
		{"health", "application/health+json", healthForm},
		{"JSON", "application/json", jsonForm},
		{"JSON before all else", "application/json, */*;q=0.1", jsonForm},
		{"the better quality", "application/json;q=0.2, text/plain;q=0.9", textForm},
		{"a quality of nought is a refusal", "application/health+json;q=0, application/json;q=0, */*", textForm},
		{"the more exact range decides", "application/*;q=0.9, application/json;q=0.1, text/plain;q=0.5", healthForm},
		{"case does not matter", "Application/JSON;Q=0.5", jsonForm},
		{"a quality that is no number is none", "application/json;q=NaN, text/plain;q=0.1", textForm},
		{"Prometheus", "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", openMetricsForm},
		{"an older Prometheus", "text/plain;version=0.0.4;q=0.5,*/*;q=0.1", prometheusForm},
		{"Datadog's scraper", "text/plain; version=0.0.4", prometheusForm},
		{"nonsense", ",;=,/,*/json", healthForm},
	}
	for _, tt := range tests {
		var accept []string
		if tt.accept != "" {
			accept = []string{tt.accept}
		}
		if got := negotiate(accept); got != tt.want {
			t.Errorf("%s: %q gives form %d, want %d", tt.name, tt.accept, got, tt.want)
		}
	}
	if got := negotiate([]string{"text/html", "text/plain"}); got != textForm {
		t.Errorf("two headers give form %d, want %d", got, textForm)
	}
	if n := len(parseAccept([]string{strings.Repeat("a/b,", 1000)})); n != maxRanges {
		t.Errorf("%d ranges of a long header, want %d", n, maxRanges)
	}
}

func FuzzNegotiate(f *testing.F) {
	f.Add("application/json;q=0.5, text/plain;version=0.0.4, */*;q=0.1")
	f.Fuzz(func(t *testing.T, accept string) {
		f := negotiate([]string{accept})
		if f < healthForm || f > prometheusForm || f == nagiosForm {
			t.Errorf("form %d", f)
		}
		if !strings.Contains(strings.ToLower(accept), "text/") && strings.Count(accept, "*") == 0 && f == textForm {
			t.Errorf("text, which %q does not ask for", accept)
		}
	})
}

func TestNagiosLine(t *testing.T) {
	t.Parallel()
	low, value := 0.0, 1234567890.5
	check := func(name string, s verdict.Status, message string) CheckDigest {
		return CheckDigest{Name: name, Status: s, Found: s, Message: message}
	}
	measured := check("db", verdict.Fail, "refused")
	measured.Value, measured.Unit = &value, "seconds"
	measured.Measures = []verdict.Measure{
		{Label: "it's | a=b", Value: 5, Unit: "B", Warn: "10:", Min: &low},
		{Label: "gone", Value: math.NaN(), Unit: "s"},
	}
	kept := check("disk", verdict.Pass, "in maintenance until x; 99 % full")
	kept.Found, kept.Maintenance = verdict.Fail, &verdict.Maintenance{Who: "ann"}
	seen := check("queue", verdict.Fail, "full")
	seen.Acknowledged = &verdict.Ack{Who: "ann", Why: "on it"}
	tests := []struct {
		name   string
		checks []CheckDigest
		want   string
	}{
		{"all is well", []CheckDigest{check("a", verdict.Pass, "fine"), check("b", verdict.Pass, "")}, "OUTRIDER PASS: 2 checks pass"},
		{"no checks", nil, "OUTRIDER PASS: 0 checks pass"},
		{"a warning", []CheckDigest{check("a", verdict.Warn, "slow"), check("b", verdict.Pass, "")}, "OUTRIDER WARN: 1 of 2 checks warn: a; a: slow"},
		{"nobody knows", []CheckDigest{check("a", verdict.Unknown, "no result yet")}, "OUTRIDER UNKNOWN: 1 of 1 check unknown: a; a: no result yet"},
		{
			"performance data, and a bar that starts none",
			[]CheckDigest{measured, check("x", verdict.Warn, "a | b='1' `rm` <$HOME> & ~")},
			"OUTRIDER FAIL: 1 of 2 checks fail: db; db: refused; x: a / b=1 rm (_HOME) + - | db=1234567890.5s 'db::it''s _ a_b'=5B;10:;;0 db::gone=U",
		},
		{"in maintenance", []CheckDigest{kept}, "OUTRIDER PASS: 1 check passes; in maintenance: disk; disk: in maintenance until x; 99 % full"},
		{"acknowledged", []CheckDigest{seen}, "OUTRIDER FAIL: 1 of 1 check fails: queue; acknowledged: queue; queue: acknowledged by ann (on it); full"},
	}
	for _, tt := range tests {
		d := Digest{Checks: tt.checks}
		d.sum()
		if diff := cmp.Diff(tt.want+"\n", string(renderNagios(d, true))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	var many Digest
	for i := range 100 {
		many.Checks = append(many.Checks, check(strings.Repeat("x", 190)+string(rune('a'+i%26)), verdict.Fail, strings.Repeat("ä", 200)))
	}
	many.sum()
	if got := renderNagios(many, true); len(got) > verdict.MaxMessage+1 || strings.Count(string(got), "\n") != 1 || !strings.HasSuffix(string(got), "...\n") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

func TestSeries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := zoo(t)
		for name, target := range map[string]string{
			"series-openmetrics.txt": "/healthz?format=openmetrics&category=all",
			"series-prometheus.txt":  "/healthz?format=prometheus&group=live",
		} {
			golden(t, name, do(r.Healthz(everybody), "GET", target).Body.Bytes())
		}
	})
}
