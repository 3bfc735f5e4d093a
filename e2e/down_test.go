package e2e

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestWhatHappensWhileTheAgentIsDown creates 150 pods and 50 Jobs, deletes 100
// pods, and deletes 50 and makes them anew under the same names, while no
// agent runs. The API server holds the history, so all of it is told.
func TestWhatHappensWhileTheAgentIsDown(t *testing.T) {
	needCluster(t)
	for _, tt := range []struct {
		name, ns string
		killed   bool
		end      func(*agent)
	}{
		{"stopped", "down-stopped", false, (*agent).stop},
		{"killed", "down-killed", true, (*agent).kill},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSession(t, tt.ns)
			s.killed = tt.killed
			a := s.start(t, configOf(s.ns))
			deleted, again := pods(t, s.ns, "deleted", 100, nil), pods(t, s.ns, "again", 50, nil)
			deleted.tell(s.want, podRuns)
			again.tell(s.want, podRuns)
			// The API server's watch cache begins with 100 events of a resource,
			// and grows only when all are younger than 75 s. After a quiet time, a
			// burst pushes the last old one out: then what came just before the
			// burst is too old for it, be it seconds.
			before := jobs(t, s.ns, "before", 50, second)
			before.complete(t, s.ns)
			before.tell(s.want, jobSucceeds)
			s.hook.tells(t, time.Minute, s.want)
			tt.end(a)

			created, batch := pods(t, s.ns, "created", 150, second), jobs(t, s.ns, "batch", 50, second)
			deleted.deletePods(t, s.ns)
			reborn := again.recreate(t, s.ns, second)
			created.reach(t, s.ns, corev1.PodSucceeded)
			reborn.reach(t, s.ns, corev1.PodSucceeded)
			batch.complete(t, s.ns)

			// While it answers slowly, one life must wait for the one before.
			s.hook.answers(0, inFlight)
			began := time.Now()
			a = s.start(t, configOf(s.ns))
			deleted.tell(s.want, podCut)
			again.tell(s.want, podCut)
			created.tell(s.want, podSucceeds)
			reborn.tell(s.want, podSucceeds)
			batch.tell(s.want, jobSucceeds)
			s.hook.tells(t, time.Minute, s.want)
			t.Logf("told %s after the start", time.Since(began).Round(time.Millisecond))
			a.stop()
			events := s.outcome(t)
			fromTheWatch(t, events)
			for name, uid := range again {
				oneAfterTheOther(t, s.hook, events, uid, reborn[name])
			}
			a = s.start(t, configOf(s.ns)) // nothing is told again
			quiet(t, time.Minute)
			a.stop()
			if n := len(s.received(t)) - len(events); n != 0 {
				t.Errorf("%d events after everything was told, want none", n)
			}
		})
	}
}

// oneAfterTheOther wants the end of one life acknowledged before the start of
// the next was sent for the first time.
func oneAfterTheOther(t *testing.T, hook *receiver, events []event, before, after string) {
	t.Helper()
	old, fresh := changesOf(events, before), changesOf(events, after)
	if len(old) == 0 || len(fresh) == 0 {
		t.Errorf("the lives %s and %s have %d and %d changes, want both told", before, after, len(old), len(fresh))
		return
	}
	end, start := old[len(old)-1], fresh[0]
	if sent := hook.firstSent(start.ID); !sent.After(end.acked) {
		t.Errorf("%s: the new life was sent %s before the end of the old one was acknowledged", start.Subject, end.acked.Sub(sent))
	}
}
