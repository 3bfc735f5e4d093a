package sinks

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/sinks/sinktest"
)

// openers open a sink of each kind through the configuration, as the agent
// does; some in more than one way, which a word after the kind tells apart.
func openers() map[string]sinktest.OpenWith {
	return map[string]sinktest.OpenWith{
		"file":                           openFileAt(""),
		"file that is rotated":           openFileAt(", max_bytes: 1MiB"),
		"webhook":                        openWebhook(""),
		"webhook that takes batches":     openWebhook(", batch: 8"),
		"webhook that takes big batches": openWebhook(", batch: 1000"),
	}
}

func openFileAt(options string) sinktest.OpenWith {
	return func(t *testing.T) sinktest.Opened {
		path := filepath.Join(t.TempDir(), "changes.jsonl")
		again := func() (statesync.Sink, error) { return configured(t, "file: {path: '"+path+"'"+options+"}"), nil }
		sink, err := again()
		if err != nil {
			t.Fatal(err)
		}
		return sinktest.Opened{Sink: sink, Read: func() []string { return idsIn(t, path) }, Again: again}
	}
}

// openWebhook opens a sink to a receiver that takes batches whole or not at
// all.
func openWebhook(options string) sinktest.OpenWith {
	return func(t *testing.T) sinktest.Opened {
		var mu sync.Mutex
		var got []string
		refused := map[string]bool{}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			events := []json.RawMessage{body}
			if strings.HasPrefix(r.Header.Get("Content-Type"), "application/cloudevents-batch+json") {
				if events = nil; json.Unmarshal(body, &events) != nil || len(events) == 0 {
					t.Errorf("not a batch: %.200q", body)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			var ids []string
			for _, e := range events {
				ids = append(ids, eventID(t, e))
			}
			if slices.ContainsFunc(ids, func(id string) bool { return refused[id] }) {
				w.WriteHeader(http.StatusUnprocessableEntity)
				return
			}
			got = append(got, ids...)
			w.WriteHeader(http.StatusNoContent)
		}))
		t.Cleanup(server.Close)
		return sinktest.Opened{
			Sink: configured(t, "webhook: {url: "+server.URL+"/changes"+options+"}"),
			Read: func() []string {
				mu.Lock()
				defer mu.Unlock()
				return slices.Clone(got)
			},
			Refuse: func(id string) {
				mu.Lock()
				defer mu.Unlock()
				refused[id] = true
			},
		}
	}
}

func TestEveryKindKeepsTheContract(t *testing.T) {
	t.Parallel()
	open := openers()
	for kind := range Kinds() {
		if open[kind] == nil {
			t.Errorf("kind %s has no opener in this test", kind)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(open)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sinktest.RunWith(t, open[name])
		})
	}
}

// configured opens the one sink of a configuration.
func configured(t testing.TB, sink string) statesync.Sink {
	t.Helper()
	items, err := parse(t, sink)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(items[0], "outrider/test")
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := s.(io.Closer); ok {
		t.Cleanup(func() { _ = c.Close() })
	}
	return s
}

func parse(t testing.TB, sink string) ([]config.Item, error) {
	t.Helper()
	section := struct {
		Sinks []config.Item `yaml:"sinks"`
	}{}
	_, err := config.Parse("test.yaml", fmt.Appendf(nil, "statesync:\n  sinks:\n    - name: s\n      %s\n", sink), t.TempDir(), config.Options{
		Sections: map[string]any{"statesync": &section},
		Kinds:    map[string]config.Kinds{"statesync.sinks": Kinds()},
	})
	return section.Sinks, err
}

func TestOpenNamesTheSink(t *testing.T) {
	t.Parallel()
	items, err := parse(t, "file: {path: nowhere/changes.jsonl}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(items[0], ""); err == nil || !strings.HasPrefix(err.Error(), "open sink s: ") {
		t.Errorf("error %v, want one that names the sink", err)
	}
	if _, err := Open(config.Item{Name: "x", Config: 7}, ""); err == nil || !strings.HasPrefix(err.Error(), "BUG: ") {
		t.Errorf("error %v for what is no Builder, want a BUG", err)
	}
}

func TestWebhookConfigRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		name, sink, want string // want is empty when it is accepted
	}{
		{"nothing but an address", "webhook: {url: https://platform.example/changes}", ""},
		{"no address", "webhook: {}", "url"},
		{"an address of another scheme", "webhook: {url: 'ftp://platform.example/T0PSECRET'}", "url: got an address that does not begin with http:// or https://"},
		{"an address without a host", "webhook: {url: 'http:///T0PSECRET'}", "url: got an address without a host"},
		{"an address that is none", "webhook: {url: 'http://[T0PSECRET'}", "url: got what is no web address"},
		{"a port that cannot be", "webhook: {url: 'http://platform.example:1808000/T0PSECRET'}", "url: got port 1808000"},
		{"no time at all", "webhook: {url: 'http://h', timeout: 0s}", "timeout"},
		{"no delivery at once", "webhook: {url: 'http://h', concurrency: 0}", "concurrency"},
		{"too many at once", "webhook: {url: 'http://h', concurrency: 1025}", "concurrency"},
		{"a plain key", "webhook: {url: 'http://h', secret_file: " + file("plain", "T0PSECRET") + "}", ""},
		{"a key in base64", "webhook: {url: 'http://h', secret_file: " + file("base64", "whsec_VDBQU0VDUkVU\n") + "}", ""},
		{"a key that is not base64", "webhook: {url: 'http://h', secret_file: " + file("broken", "whsec_T0PSECRET!") + "}", "secret_file: got a key that is not base64"},
		{"a prefix without a key: requests would not be signed", "webhook: {url: 'http://h', secret_file: " + file("none", "whsec_") + "}", "secret_file: got an empty key"},
	} {
		_, err := parse(t, tt.sink)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		case err != nil && strings.Contains(err.Error(), "T0PSECRET"):
			t.Errorf("%s: the error holds the secret: %v", tt.name, err)
		}
	}
}

func TestWebhookConfigHasDefaults(t *testing.T) {
	t.Parallel()
	items, err := parse(t, "webhook: {url: http://platform.example}")
	if err != nil {
		t.Fatal(err)
	}
	c := items[0].Config.(*WebhookConfig)
	if c.Timeout != 10*time.Second || c.Concurrency != 32 {
		t.Errorf("timeout %s, concurrency %d, want 10s and 32", c.Timeout, c.Concurrency)
	}
}

// TestFileTarget: two spellings of one path are one file.
func TestFileTarget(t *testing.T) {
	t.Parallel()
	a, b := &FileConfig{Path: "/var/log/x/../changes"}, &FileConfig{Path: "/var/log/changes"}
	if diff := cmp.Diff(b.Target(), a.Target()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// eventID returns the ID of an event, which must be whole.
func eventID(t testing.TB, body []byte) string {
	var e struct {
		SpecVersion string `json:"specversion"`
		ID          string `json:"id"`
		Type        string `json:"type"`
	}
	if err := json.Unmarshal(body, &e); err != nil || e.SpecVersion != "1.0" || e.ID == "" ||
		e.Type != statesync.EventType && e.Type != statesync.GapEventType && e.Type != statesync.MarkEventType {
		t.Errorf("not an event of ours: %.200q (%v)", body, err)
	}
	return e.ID
}

// idsIn reads a file of events, which must consist of whole lines.
func idsIn(t testing.TB, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		t.Errorf("the file ends within a line: %.200q", b[max(0, len(b)-200):])
	}
	ids := []string{}
	for line := range strings.Lines(string(b)) {
		ids = append(ids, eventID(t, []byte(line)))
	}
	return ids
}

// delivery is the seq-th change of a workload.
func delivery(workload string, seq int64) statesync.Delivery {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return statesync.Delivery{Change: statesync.Change{
		Number: seq, ID: fmt.Sprintf("%s-%d", workload, seq), Cluster: "c", Epoch: 1,
		Workload: statesync.Ref{Kind: "Pod", Namespace: "ns", Name: workload, UID: workload},
		To:       statesync.Running, Seq: seq, Occurred: at, Observed: at,
	}}
}
