package controller

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/delivery"
	"github.com/outrider-agent/outrider/statesync/sinks"
)

func TestFilter(t *testing.T) {
	change := statesync.Change{
		Workload: statesync.Ref{Kind: "Job", Namespace: "prod", Name: "n", Labels: map[string]string{"app": "web", "tier": "front"}},
		From:     statesync.Queued, To: statesync.Running,
	}
	tests := []struct {
		name   string
		filter FilterConfig
		want   bool
	}{
		{"its kind", FilterConfig{Kinds: []string{"Pod", "Job"}}, true},
		{"another kind", FilterConfig{Kinds: []string{"Pod"}}, false},
		{"its namespace", FilterConfig{Namespaces: []string{"prod"}}, true},
		{"another namespace", FilterConfig{Namespaces: []string{"dev", "test"}}, false},
		{"the state it leads to", FilterConfig{States: []statesync.State{statesync.Running}}, true},
		{"the state it leads from", FilterConfig{States: []statesync.State{statesync.Queued}}, false},
		{"its labels", FilterConfig{Labels: "app=web,tier!=back"}, true},
		{"a label in a set", FilterConfig{Labels: "app in (web, api)"}, true},
		{"a label that is there", FilterConfig{Labels: "app"}, true},
		{"a label that is not", FilterConfig{Labels: "!app"}, false},
		{"another label", FilterConfig{Labels: "app=api"}, false},
		{
			"all that is given", FilterConfig{
				Kinds: []string{"Job"}, Namespaces: []string{"prod"}, States: []statesync.State{statesync.Running}, Labels: "app=web",
			}, true,
		},
		{"all but one", FilterConfig{Kinds: []string{"Job"}, Namespaces: []string{"prod"}, Labels: "app=api"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			match, err := tt.filter.Match()
			if err != nil {
				t.Fatal(err)
			}
			if got := match(&change); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
		})
	}
	t.Run("none is none at all", func(t *testing.T) {
		if match, err := (FilterConfig{}).Match(); match != nil || err != nil {
			t.Errorf("got a filter, %v", err)
		}
	})
	t.Run("labels that cannot be read", func(t *testing.T) {
		if _, err := (FilterConfig{Labels: "a in (b"}).Match(); err == nil || !strings.Contains(err.Error(), `labels "a in (b"`) {
			t.Errorf("got %v", err)
		}
	})
}

// parseSinks reads a list of sinks of a file.
func parseSinks(t *testing.T, list string) (*Config, error) {
	t.Helper()
	c := &Config{}
	_, err := config.Parse("o.yaml", []byte("statesync:\n  kinds: [Pod, Job]\n  sinks:\n"+list), t.TempDir(), config.Options{
		Sections: map[string]any{Section: c},
		Kinds:    map[string]config.Kinds{SinksKey: sinks.Kinds()},
	})
	return c, err
}

func TestSinksOfAFile(t *testing.T) {
	c, err := parseSinks(t, `
    - {name: least, file: {path: a}}
    - name: most
      file: {path: b}
      filter: {kinds: [Job], namespaces: [prod], states: [Failed, Succeeded], labels: "tier != dev, app == web"}
      on_full: compact
      dead_letters: park
`)
	if err != nil {
		t.Fatal(err)
	}
	least, most := c.Sinks[0], c.Sinks[1]
	if least.Name != "least" || least.OnFull != delivery.Detach || least.DeadLetters != delivery.SkipLetters {
		t.Errorf("defaults: got %s, %s, %s", least.Name, least.OnFull, least.DeadLetters)
	}
	want := FilterConfig{
		Kinds: []string{"Job"}, Namespaces: []string{"prod"},
		States: []statesync.State{statesync.Failed, statesync.Succeeded}, Labels: "app==web,tier!=dev",
	}
	if diff := cmp.Diff(want, most.Filter); diff != "" {
		t.Errorf("filter (-want +got):\n%s", diff)
	}
	if most.OnFull != delivery.Compact || most.DeadLetters != delivery.ParkLetters {
		t.Errorf("got %s, %s, want compact, park", most.OnFull, most.DeadLetters)
	}
}

func TestWrongSinksOfAFile(t *testing.T) {
	_, err := parseSinks(t, `    - name: a
      file: {path: a}
      on_full: drop
      dead_letters: "no"
      filters: {}
    - name: b
      file: {path: b}
      filter:
        kind: [Pod]
        kinds: Pod
`)
	want := `o.yaml:8: statesync.sinks[0].filters: got an unknown key, want one of dead_letters, file, filter, name, on_full, webhook (did you mean filter?)
o.yaml:12: statesync.sinks[1].filter.kind: got an unknown key, want one of kinds, labels, namespaces, states (did you mean kinds?)
o.yaml:13: statesync.sinks[1].filter.kinds: got Pod, want a list`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	_, err = parseSinks(t, `    - name: a
      file: {path: a}
      on_full: drop
      dead_letters: "no"
`)
	want = `o.yaml:6: statesync.sinks[0].on_full: got drop, want detach, compact or block
o.yaml:7: statesync.sinks[0].dead_letters: got no, want skip or park`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	_, err = parseSinks(t, `    - name: a
      file: {path: a}
      filter:
        kinds: [Pod, Deployment]
        states:
          - Failed
          - failed
        labels: "a in (b"
`)
	want = `o.yaml:7: statesync.sinks[0].filter.kinds[1]: got Deployment, want a kind that is reported: Job, Pod
o.yaml:10: statesync.sinks[0].filter.states[1]: got failed, want one of Queued, Running, Succeeded, Failed, Cancelled, Deleted, Untracked
o.yaml:11: statesync.sinks[0].filter.labels: got "a in (b", want labels such as app=web,tier!=dev`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// TestTheSameSinkReadAgainIsTheSame reads every kind twice: what cannot be
// compared would be interrupted by every reload.
func TestTheSameSinkReadAgainIsTheSame(t *testing.T) {
	lists := map[string]string{
		"file":    "    - {name: a, file: {path: /a}}\n",
		"webhook": "    - {name: a, webhook: {url: \"http://receiver/token\"}, filter: {labels: \"b=c,a!=b\"}}\n",
	}
	for kind := range sinks.Kinds() {
		list, ok := lists[kind]
		if !ok {
			t.Errorf("no configuration of kind %s here", kind)
			continue
		}
		first, err := parseSinks(t, list)
		if err != nil {
			t.Fatal(err)
		}
		moved, err := parseSinks(t, "\n\n"+strings.Replace(list, "b=c,a!=b", "a != b, b = c", 1))
		if err != nil {
			t.Fatal(err)
		}
		if !first.Sinks[0].same(&moved.Sinks[0]) {
			t.Errorf("%s: read again, it is another", kind)
		}
		for change, other := range map[string]string{
			"on_full": ", on_full: block}\n", "dead_letters": ", dead_letters: park}\n",
		} {
			next, err := parseSinks(t, strings.Replace(list, "}\n", other, 1))
			if err != nil {
				t.Fatal(err)
			}
			if first.Sinks[0].same(&next.Sinks[0]) {
				t.Errorf("%s: another %s makes no difference", kind, change)
			}
		}
		next, err := parseSinks(t, strings.NewReplacer("/a}", "/b}", "/token", "/other").Replace(list))
		if err != nil {
			t.Fatal(err)
		}
		if first.Sinks[0].same(&next.Sinks[0]) {
			t.Errorf("%s: another place makes no difference", kind)
		}
	}
}

// TestOtherAuthoritiesAreAnotherSink: they may come under the same path.
func TestOtherAuthoritiesAreAnotherSink(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	path := filepath.Join(t.TempDir(), "ca.pem")
	load := func(text []byte) *SinkConfig {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := parseSinks(t, "    - {name: a, webhook: {url: 'https://h', tls: {ca_file: '"+path+"'}}}\n")
		if err != nil {
			t.Fatal(err)
		}
		return &c.Sinks[0]
	}
	one, again, two := load(authority), load(authority), load(append(authority, authority...))
	if !one.same(again) || one.same(two) {
		t.Errorf("the same authorities make the same sink: %t, want true; others: %t, want false", one.same(again), one.same(two))
	}
}

// TestTheSinksThatTheDocumentationShows reads them word for word.
func TestTheSinksThatTheDocumentationShows(t *testing.T) {
	b, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\nsinks:\n(.*?)```").FindSubmatch(b)
	if block == nil {
		t.Fatal("docs/config.md shows no sinks")
	}
	c, err := parseSinks(t, string(block[1]))
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Sinks[0]; s.OnFull != delivery.Block || s.DeadLetters != delivery.ParkLetters || s.Filter.Labels == "" {
		t.Errorf("got %+v", s)
	}
}
