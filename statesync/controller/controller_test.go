package controller

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/statesync/delivery"
	"github.com/outrider-agent/outrider/statesync/watch"
	"github.com/outrider-agent/outrider/statesync/workload"
)

func TestConfig(t *testing.T) {
	file := func(path string) any { return &struct{ fakeFile }{fakeFile(path)} }
	sinks := []config.Item{{Name: "a", Config: file("x")}}
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
			Config{Sinks: []config.Item{{Name: "a", Config: file("x")}, {Name: "b", Config: file("y")}, {Name: "c", Config: file("x")}}},
			"sinks[2]: got the file of sink a again, want a file of its own for each sink",
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

func TestCheckSink(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	refused := errors.New("status 500")
	tests := []struct {
		name   string
		s      delivery.Standing
		status verdict.Status
		holds  string
	}{
		{"a sink that has all is well", delivery.Standing{Acked: 5}, verdict.Pass, "all 5 changes acknowledged"},
		{"a moment's wait is well", delivery.Standing{Waiting: 3, Oldest: ago(time.Second)}, verdict.Pass, "3 changes wait, the oldest for 1s"},
		{"ten seconds are a warning", delivery.Standing{Waiting: 3, Oldest: ago(10 * time.Second)}, verdict.Warn, "the oldest for 10s"},
		{"a minute is a failure", delivery.Standing{Waiting: 3, Oldest: ago(time.Minute)}, verdict.Fail, "the oldest for 1m0s"},
		{"refusals are told", delivery.Standing{Waiting: 3, Oldest: ago(time.Second), Failing: ago(10 * time.Second), Failure: refused}, verdict.Warn, "status 500"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if r := checkSink(tt.s, now); r.Status != tt.status || !strings.Contains(r.Message, tt.holds) {
				t.Errorf("got %s %q, want %s and %q", r.Status, r.Message, tt.status, tt.holds)
			}
		})
	}
}
