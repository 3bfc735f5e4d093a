package controller

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/delivery"
)

func TestSinkResult(t *testing.T) {
	now := time.Unix(1_800_000_000, 0).UTC()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	refused := errors.New("status 500")
	tests := []struct {
		name    string
		s       delivery.Standing
		lately  int64
		status  verdict.Status
		message string
	}{
		{"a sink that has all is well", delivery.Standing{Acked: 5}, 0, verdict.Pass, "all 5 changes acknowledged"},
		{"a moment's wait is well", delivery.Standing{Waiting: 3, Oldest: ago(time.Second)}, 0, verdict.Pass, "3 changes wait, the oldest for 1s"},
		{"ten seconds are a warning", delivery.Standing{Waiting: 3, Oldest: ago(10 * time.Second)}, 0, verdict.Warn, "3 changes wait, the oldest for 10s"},
		{"a minute is a failure", delivery.Standing{Waiting: 3, Oldest: ago(time.Minute)}, 0, verdict.Fail, "3 changes wait, the oldest for 1m0s"},
		{
			"refusals are told",
			delivery.Standing{Waiting: 3, Oldest: ago(time.Second), Failing: ago(10 * time.Second), Failure: refused},
			0,
			verdict.Warn, "3 changes wait, the oldest for 1s; failing since 07:59:50: status 500",
		},
		{
			"parked workloads are a warning at once",
			delivery.Standing{Waiting: 3, Oldest: ago(time.Second), Parked: 2, Stuck: ago(2 * time.Second)},
			0,
			verdict.Warn, "3 changes wait, the oldest for 1s; the changes of 2 workloads are refused for now, the oldest for 2s",
		},
		{
			"and stay one, however long the receiver refuses them",
			delivery.Standing{Waiting: 3, Parked: 1, Stuck: ago(time.Hour), Failing: ago(time.Hour), Failure: &statesync.SinkError{Rejected: true, Err: refused}},
			0,
			verdict.Warn, "3 changes wait; failing since 07:00:00: status 500; the changes of 1 workloads are refused for now, the oldest for 1h0m0s",
		},
		{
			"but a receiver that has taken nothing for a minute fails, though all that waits is parked",
			delivery.Standing{Waiting: 3, Parked: 1, Stuck: ago(time.Hour), Failing: ago(time.Minute), Failure: &statesync.SinkError{Err: refused}},
			0,
			verdict.Fail, "3 changes wait; failing since 07:59:00: status 500; the changes of 1 workloads are refused for now, the oldest for 1h0m0s",
		},
		{
			"and so does a change that waits in spite of them",
			delivery.Standing{Waiting: 3, Oldest: ago(time.Minute), Parked: 1, Stuck: ago(time.Hour)},
			0,
			verdict.Fail, "3 changes wait, the oldest for 1m0s; the changes of 1 workloads are refused for now, the oldest for 1h0m0s",
		},
		{
			"new dead letters are a warning, though nothing waits",
			delivery.Standing{Acked: 5, Letters: 9},
			4,
			verdict.Warn, "all 5 changes acknowledged; 4 dead letters in the last hour: outrider ledger deadletters",
		},
		{"old ones are not", delivery.Standing{Acked: 5, Letters: 9}, 0, verdict.Pass, "all 5 changes acknowledged"},
		{
			"a sink that held the ledger full",
			delivery.Standing{Name: "archive", Detached: statesync.DetachedFull, DetachedAt: ago(time.Hour)},
			0, verdict.Fail,
			"detached since 2027-01-15T07:00:00Z: the ledger was full, and this sink held the most of it; nothing is kept for it; " +
				"it comes back with a gap: outrider reload, or outrider ledger attach archive",
		},
		{
			"a receiver that wants nothing any more",
			delivery.Standing{Name: "archive", Detached: statesync.DetachedGone, DetachedAt: ago(time.Hour), Acked: 5},
			0, verdict.Fail,
			"detached since 2027-01-15T07:00:00Z: the receiver answered 410, it wants nothing any more; nothing is kept for it; " +
				"it comes back with a gap: outrider reload, or outrider ledger attach archive",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !tt.s.Failing.IsZero() {
				tt.s.Failing = tt.s.Failing.UTC()
			}
			r := sinkResult(tt.s, tt.lately, now)
			if r.Status != tt.status || r.Message != tt.message {
				t.Errorf("got %s %q, want %s %q", r.Status, r.Message, tt.status, tt.message)
			}
			if len(r.Message) > verdict.MaxMessage {
				t.Errorf("%d bytes, want %d at most", len(r.Message), verdict.MaxMessage)
			}
		})
	}
}

func TestLettersOfTheLastHour(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	l := letters{seen: 7}
	for _, tt := range []struct {
		name         string
		after        time.Duration
		count, wants int64
	}{
		{"those before the first look are old", 0, 7, 0},
		{"two more", time.Second, 9, 2},
		{"no more", 20 * time.Minute, 9, 2},
		{"one more", 30 * time.Minute, 10, 3},
		{"a replay took five away", 31 * time.Minute, 5, 3},
		{"and one more", 32 * time.Minute, 6, 4},
		{"the first two are an hour old", time.Hour, 6, 2},
		{"all are", 3 * time.Hour, 6, 0},
	} {
		if got := l.note(tt.count, start.Add(tt.after)); got != tt.wants {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.wants)
		}
	}
	for i := range int64(10_000) {
		l.note(10+i, start.Add(4*time.Hour+time.Duration(i)*time.Second))
	}
	if len(l.added) > 61 {
		t.Errorf("%d minutes are kept, want 61 at most", len(l.added))
	}
}

func TestSinksResult(t *testing.T) {
	cursors := []statesync.Cursor{{Sink: "old", Acked: 9}, {Sink: "archive", Acked: 12}, {Sink: "ancient", Acked: 3}}
	tests := []struct {
		name       string
		configured []string
		status     verdict.Status
		message    string
	}{
		{"all are configured", []string{"old", "archive", "ancient", "new"}, verdict.Pass, "4 sinks"},
		{
			"two are not",
			[]string{"archive"},
			verdict.Warn,
			"cursors of sinks that are not configured are kept: ancient (at 3), old (at 9); if they are not to come back: outrider ledger forget NAME",
		},
	}
	for _, tt := range tests {
		if r := sinksResult(cursors, tt.configured); r.Status != tt.status || r.Message != tt.message {
			t.Errorf("%s: got %s %q, want %s %q", tt.name, r.Status, r.Message, tt.status, tt.message)
		}
	}
}

func TestStatusOfASink(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	long := strings.Repeat("a-name.", 9)
	for _, tt := range []struct {
		s    delivery.Standing
		want string
	}{
		{
			delivery.Standing{Name: "archive", Acked: 12, Head: 12, Breaker: "closed"},
			"sink    archive                  well      acked 12 of 12\n",
		},
		{
			delivery.Standing{Name: "platform", Acked: 12, Head: 90, Breaker: "half-open", Failing: at, Parked: 3, Aside: 40, Letters: 2},
			"sink    platform                 failing   acked 12 of 90\n        breaker half-open  parked 3  aside 40  dead letters 2\n",
		},
		{
			delivery.Standing{Name: "gone", Acked: 12, Head: 90, Detached: statesync.DetachedGone, DetachedAt: at, Failing: at, Letters: 1},
			"sink    gone                     detached  acked 12 of 90\n" +
				"        since 2026-03-01T12:00:00Z: the receiver answered 410, it wants nothing any more\n        dead letters 1\n",
		},
		{
			delivery.Standing{
				Name: long, Acked: 1e12, Head: 1e12, Detached: strings.Repeat("x", 99), DetachedAt: at,
				Breaker: "half-open", Parked: 1e6, Aside: 1e12, Letters: 1e4,
			},
			"sink    " + long[:39] + ". detached  acked 1000000000000 of 1000000000000\n" +
				"        since 2026-03-01T12:00:00Z: " + strings.Repeat("x", 63) + ".\n" +
				"        breaker half-open  parked 1000000  aside 1000000000000  dead letters 10000\n",
		},
	} {
		var b strings.Builder
		writeSink(&b, tt.s)
		if diff := cmp.Diff(tt.want, b.String()); diff != "" {
			t.Errorf("lines (-want +got):\n%s", diff)
		}
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 {
				t.Errorf("%d columns, want 100 at most: %s", n, line)
			}
		}
	}
}
