package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A session is one agent, however often it is started anew, and what it has
// told.
type session struct {
	ns, dir string
	hook    *receiver
	want    map[string]string // every workload's story, by UID
	killed  bool              // the agent was, so events may have come more than once

	stopCopies func() // nil: nobody copies the ledger
}

// newSession is one in a namespace of its own.
func newSession(t *testing.T, ns string) *session {
	t.Helper()
	return &session{ns: namespace(t, ns), dir: workDir(t), hook: startReceiver(t), want: map[string]string{}}
}

// start runs the command until it is ready. From the first time on the ledger
// is copied now and then, and every copy is to hold.
func (s *session) start(t *testing.T, config string) *agent {
	t.Helper()
	a := startAgent(t, s.dir, config)
	if s.stopCopies == nil {
		s.stopCopies = copyLedger(t, s.dir)
	}
	return a
}

// received is what the webhook has, without repeats.
func (s *session) received(t *testing.T) []event {
	t.Helper()
	return withoutMarks(s.once(t, "webhook", s.hook.everything()))
}

// archive is what the file sink has, without repeats.
func (s *session) archive(t *testing.T) []event {
	t.Helper()
	return withoutMarks(s.once(t, "file", readRecord(t, s.file())))
}

func (s *session) file() string { return filepath.Join(s.dir, "changes.ndjson") }

// once wants what came more than once to have been the same each time, and no
// repeats but of an agent that was killed. It returns the rest, in the order
// of first arrival.
func (s *session) once(t *testing.T, where string, events []event) []event {
	t.Helper()
	bodies := map[string]string{}
	out := make([]event, 0, len(events))
	for _, e := range events {
		body, again := bodies[e.ID]
		switch {
		case !again:
			bodies[e.ID] = e.body
			out = append(out, e)
		case body != e.body && e.Type != markType: // a mark that is made again has another time
			t.Errorf("%s: %s came again with other content:\n%s\n%s", where, e.ID, body, e.body)
		}
	}
	if n := len(events) - len(out); n > 0 && s.killed {
		t.Logf("%s: %d events, %d of them repeats", where, len(events), n)
	} else if n > 0 {
		t.Errorf("%s: %d of %d events are repeats, want none: the agent was not killed", where, n, len(events))
	}
	return out
}

// told wants the webhook and the file to have every story, each event once but
// for repeats of the same, each to be whole for who knows nothing else, and the
// ledger to hold against both. It returns what the webhook has. The agent is
// stopped.
func (s *session) told(t *testing.T) []event {
	t.Helper()
	events := s.received(t)
	compare(t, "webhook", s.want, stories(t, "webhook", events))
	archive := s.archive(t)
	compare(t, "file", s.want, stories(t, "file", archive))
	sameIDs(t, events, archive)
	s.proved(t)
	s.verified(t)
	return events
}

// outcome is told, and wants the stories of pods to be those that the
// kubelet's log tells too.
func (s *session) outcome(t *testing.T) []event {
	t.Helper()
	events := s.told(t)
	truth, log := map[string]string{}, kubeletLog(t, s.ns)
	for uid, story := range s.want {
		truth[uid] = story
		if strings.HasPrefix(story, "Pod ") {
			truth[uid] = fromKubelet(log[uid])
		}
	}
	compare(t, "the kubelet's log", truth, tellings(events))
	return events
}

// proved wants what came to be proof by itself that nothing is missing, and the
// marks to say what was promised of them.
func (s *session) proved(t *testing.T) {
	t.Helper()
	for where, events := range map[string][]event{"webhook": s.hook.everything(), "file": readRecord(t, s.file())} {
		whole(t, where, events)
		addUp(t, where, events, s.killed)
	}
}

// verified wants the ledger to hold against what the file sink and the webhook
// have recorded.
func (s *session) verified(t *testing.T) {
	t.Helper()
	if s.stopCopies != nil {
		s.stopCopies() // a ledger that another process has just opened is not one that is at rest
	}
	data := filepath.Join(s.dir, "outrider-data")
	record := filepath.Join(t.TempDir(), "changes.ndjson")
	if err := os.WriteFile(record, concatenated(t, s.file()), 0o600); err != nil {
		t.Fatal(err)
	}
	verify(t, "--against", record, "--sink", "archive", "--dir", data)
	verify(t, "--against", s.hook.record(t), "--sink", "platform", "--dir", data)
}
