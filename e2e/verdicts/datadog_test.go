package verdicts

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// A series is one value that Datadog's check submits.
type series struct {
	kind, name, check, category string
}

// submits runs Datadog's OpenMetrics check on a page once. A check that fails
// submits nothing.
func submits(t *testing.T, instance map[string]any) map[series]float64 {
	t.Helper()
	input, err := json.Marshal(instance)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), need(t, "series/venv/bin/python"), "../series/testdata/openmetrics.py")
	c.Env = append(os.Environ(), "DDEV_SKIP_GENERIC_TAGS_CHECK=1", "NO_PROXY=127.0.0.1")
	var problems bytes.Buffer
	c.Stdin, c.Stderr = bytes.NewReader(input), &problems
	output, err := c.Output()
	if err != nil {
		t.Logf("the check says: %.1000s", problems.String())
		return nil
	}
	var rows [][4]json.RawMessage // kind, name, value, tags
	if err := json.Unmarshal(output, &rows); err != nil {
		t.Fatalf("the check printed %.200q: %v", output, err)
	}
	out := map[series]float64{}
	for _, row := range rows {
		var s series
		var value float64
		var tags []string
		for i, to := range []any{&s.kind, &s.name, &value, &tags} {
			if err := json.Unmarshal(row[i], to); err != nil {
				t.Fatalf("the check printed %s: %v", row, err)
			}
		}
		for _, tag := range tags {
			switch key, text, _ := strings.Cut(tag, ":"); key {
			case "check":
				s.check = text
			case "category":
				s.category = text
			default:
				t.Errorf("%s has the tag %s, want check and category only", s.name, tag)
			}
		}
		out[s] = value
	}
	return out
}

// TestDatadogsCheckReadsTheDigest has it ask over TLS with the password.
func TestDatadogsCheckReadsTheDigest(t *testing.T) {
	t.Parallel()
	need(t, installed)
	c := newCertificate(t)
	a := startAgent(t, freeAddress(t, "0.0.0.0"), c)
	a.db.broken.Store(true)
	a.cache.set(verdict.Warn)
	a.becomes("/healthz", http.StatusServiceUnavailable)
	a.becomes("/healthz?category=all&check=cache&warn=429", http.StatusTooManyRequests)
	// Name by name as DogStatsD has them; the check adds .count to counters itself.
	instance := map[string]any{
		"openmetrics_endpoint": a.url + "/healthz?format=openmetrics&category=all",
		"metrics": []any{map[string]string{
			"outrider_check_status":           "outrider.check.status",
			"outrider_check_duration_seconds": "outrider.check.duration",
			"outrider_check_busy_seconds":     "outrider.check.busy",
			"outrider_check_runs":             "outrider.check.runs",
			"outrider_check_changes":          "outrider.check.changes",
			"outrider_check_flapping":         "outrider.check.flapping",
			"outrider_check_stale":            "outrider.check.stale",
		}},
		"use_latest_spec": true, "tag_by_endpoint": false, "tls_ca_cert": c.certFile,
	}
	if got := submits(t, instance); len(got) > 0 {
		t.Errorf("without the password the check submits %v, want nothing", got)
	}
	instance["username"], instance["password"] = poller, password
	got := submits(t, instance)

	statuses := map[string]float64{} // by check and category
	kinds := map[string]string{}
	for s, v := range got {
		kinds[s.name] = s.kind
		switch s.name {
		case "outrider.check.status":
			statuses[s.check+" "+s.category] = v
		case "outrider.check.runs.count":
			if v < 1 {
				t.Errorf("%v is %v, want at least 1", s, v)
			}
		case "outrider.check.stale", "outrider.check.flapping":
			if v != 0 {
				t.Errorf("%v is %v, want 0", s, v)
			}
		}
	}
	wantStatuses := map[string]float64{
		"db page": 2, "queue page": 0, "api page": 0, "api/disk page": 0, "runner page": 0,
		"cache email": 1, "start email": 0, "agent/config email": 0, "agent/goroutines email": 0,
	}
	if diff := cmp.Diff(wantStatuses, statuses); diff != "" {
		t.Errorf("outrider.check.status (-want +got):\n%s", diff)
	}
	wantKinds := map[string]string{
		"outrider.check.status": "gauge", "outrider.check.duration": "gauge", "outrider.check.flapping": "gauge", "outrider.check.stale": "gauge",
		"outrider.check.busy.count": "counter", "outrider.check.runs.count": "counter", "outrider.check.changes.count": "counter",
	}
	if diff := cmp.Diff(wantKinds, kinds); diff != "" {
		t.Errorf("names and kinds (-want +got):\n%s", diff)
	}
	if want := len(wantKinds) * len(wantStatuses); len(got) != want {
		t.Errorf("got %d series, want %d", len(got), want)
	}
}
