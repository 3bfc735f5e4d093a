package controller

import (
	"errors"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/watch"
	"github.com/outrider-agent/outrider/statesync/workload"
	"github.com/outrider-agent/outrider/statesync/workload/custom"
)

func TestConfig(t *testing.T) {
	file := func(path string) any { return &struct{ fakeFile }{fakeFile(path)} }
	item := func(name, path string) SinkConfig {
		return SinkConfig{Item: config.Item{Name: name, Config: file(path)}}
	}
	sinks := []SinkConfig{item("a", "x")}
	filtered := func(f FilterConfig) []SinkConfig {
		return []SinkConfig{item("a", "x"), {Item: item("b", "y").Item, Filter: f}}
	}
	pods := []KindConfig{{Kind: KindName{Name: "Pod"}}, {Kind: KindName{Group: "b.io", Version: "v1", Resource: "builds", Name: "Build"}, CEL: custom.Rules{Running: "true"}}}
	tests := []struct {
		name   string
		config Config
		want   string
	}{
		{"no kinds mean all", Config{Sinks: sinks}, ""},
		{"a namespace twice", Config{Namespaces: []string{"a", "a"}, Sinks: sinks}, "namespaces[1]: got a a second time, want each namespace once"},
		{"an empty namespace", Config{Namespaces: []string{""}, Sinks: sinks}, `namespaces[0]: got "", want the name of a namespace; for all of them, leave namespaces out`},
		{"a pattern for a namespace", Config{Namespaces: []string{"*"}, Sinks: sinks}, `namespaces[0]: got "*", want the name of a namespace; for all of them, leave namespaces out`},
		{"a kubeconfig that is not there", Config{Kubeconfig: "/no/such", Sinks: sinks}, "kubeconfig: got no such file or directory: /no/such, want a readable file; empty for in-cluster, then ~/.kube/config"},
		{"audits too often", Config{Audit: time.Millisecond, Sinks: sinks}, "audit: got 1ms, want 1s or more, or 0 for no audits"},
		{"a ledger too small to work with", Config{Ledger: LedgerConfig{MaxBytes: 1 << 20}, Sinks: sinks}, "ledger.max_bytes: got 1MiB, want 8MiB or more"},
		{"a time to keep below none", Config{Ledger: LedgerConfig{Keep: -time.Second}, Sinks: sinks}, "ledger.keep: got -1s, want more than 0s"},
		{"no sinks", Config{}, "sinks: got none, want at least one sink, to which changes go"},
		{"a bound too small to work with", Config{MaxPending: 9, Sinks: sinks}, "max_pending: got 9, want 100 or more"},
		{
			"two sinks on one file",
			Config{Sinks: []SinkConfig{item("a", "x"), item("b", "y"), item("c", "x")}},
			"sinks[2]: got the file of sink a again, want a file of its own for each sink",
		},
		{
			"a filter for a kind that is not reported",
			Config{Kinds: pods, Sinks: filtered(FilterConfig{Kinds: []string{"Pod", "Build", "Job"}})},
			"sinks[1].filter.kinds[2]: got Job, want a kind that is reported: Build, Pod",
		},
		{
			"a filter for a namespace that is not watched",
			Config{Namespaces: []string{"a", "b"}, Sinks: filtered(FilterConfig{Namespaces: []string{"a", "c"}})},
			"sinks[1].filter.namespaces[1]: got c, want a namespace that is watched: a, b",
		},
		{
			"a filter for what is no namespace",
			Config{Sinks: filtered(FilterConfig{Namespaces: []string{"a*"}})},
			`sinks[1].filter.namespaces[0]: got "a*", want the name of a namespace`,
		},
		{
			"a filter for an unknown state",
			Config{Sinks: filtered(FilterConfig{States: []statesync.State{statesync.Failed, "Crashed"}})},
			"sinks[1].filter.states[1]: got Crashed, want one of Queued, Running, Succeeded, Failed, Cancelled, Deleted, Untracked",
		},
		{
			"a filter for labels that cannot be read",
			Config{Sinks: filtered(FilterConfig{Labels: "a in (b"})},
			`sinks[1].filter.labels: got "a in (b", want labels such as app=web,tier!=dev`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.config.MaxPending == 0 {
				tt.config.MaxPending = 1000
			}
			if tt.config.Ledger.MaxBytes == 0 {
				tt.config.Ledger.MaxBytes = 1 << 30
			}
			if tt.config.Ledger.Keep == 0 {
				tt.config.Ledger.Keep = time.Hour
			}
			err := tt.config.Validate()
			if tt.want == "" {
				if err != nil || len(tt.config.Kinds) != len(workload.Kinds) {
					t.Errorf("got %v with kinds %v, want all that are built in", err, tt.config.Kinds)
				}
				return
			}
			var field *config.FieldError
			if !errors.As(err, &field) || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

type fakeFile string

func (f fakeFile) Target() string { return string(f) }

func TestStreamResult(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	refused := errors.New("connection refused")
	tests := []struct {
		name    string
		s       watch.Standing
		status  verdict.Status
		message string
	}{
		{"a stream that was heard lately is well", watch.Standing{Synced: true, Objects: 3, Seen: ago(time.Minute)}, verdict.Pass, "3 objects, last heard 1m0s ago"},
		{"one that was not for 150 s is not", watch.Standing{Synced: true, Seen: ago(151 * time.Second)}, verdict.Fail, "no event or bookmark for 2m31s, want one in 2m30s"},
		{"one that waits at its gate is well, however long", watch.Standing{Synced: true, Held: true, Pending: 7, Seen: ago(time.Hour)}, verdict.Pass, "held: 7 events wait to be recorded"},
		{"one that has just begun is not known", watch.Standing{}, verdict.Unknown, "nothing read yet"},
		{"one that cannot begin has failed", watch.Standing{Failure: refused}, verdict.Fail, "nothing read yet; last call: connection refused"},
		{"one whose first list is under way is not known", watch.Standing{Seen: ago(0)}, verdict.Unknown, "the first list is not complete"},
		{"one with objects on which its rules fail is a warning", watch.Standing{Synced: true, Seen: ago(0), Objects: 3, Failing: 2}, verdict.Warn, "the rules of the kind fail on 2 of 3 objects; the log names them"},
		{"one that tries again is a warning", watch.Standing{Synced: true, Seen: ago(0), Failure: refused}, verdict.Warn, "trying again; last call: connection refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if r := streamResult(tt.s, now); r.Status != tt.status || r.Message != tt.message {
				t.Errorf("got %s %q, want %s %q", r.Status, r.Message, tt.status, tt.message)
			}
		})
	}
}

func TestALedgerThatIsLockedForAMomentWakesNobody(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for age, want := range map[time.Duration]verdict.Status{time.Second: verdict.Warn, 5 * time.Second: verdict.Fail} {
		if r := ledgerFailure(now.Add(-age), errors.New("locked"), now); r.Status != want {
			t.Errorf("after %s: got %s, want %s", age, r.Status, want)
		}
	}
}
