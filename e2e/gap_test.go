package e2e

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestTheAPIServerIsKilled kills it three times under load. What it held of
// the history is gone with it (a watch from before its start is answered 410
// as soon as anything was written in between), so there may be a gap each
// time; but nothing that outlives the gap is lost, nor told without one.
func TestTheAPIServerIsKilled(t *testing.T) {
	needCluster(t)
	s := newSession(t, "outage")
	a := s.start(t, configOf(s.ns))
	l := load{linger: 15 * time.Second} // longer than it takes the agent to be back
	l.start(t.Context(), t, s.ns, 100_000, 20)
	for range 3 {
		time.Sleep(4 * time.Second) // sleep: the load goes on for a while
		cluster(t, "kill", "apiserver")
		time.Sleep(time.Second) // sleep: the agent finds it gone
		cluster(t, "start", "apiserver")
		a.ready()
	}
	l.finish(t)
	drained(t, s.ns, 2*time.Minute)
	s.want = l.stories()
	s.hook.tells(t, time.Minute, s.want)
	a.stop()
	events := s.outcome(t)
	gaps, found := gapsOf(events), foundLate(events)
	t.Logf("%d gaps of pods, %d of Jobs; %d changes were found by a list", len(gaps["pods/"+s.ns]), len(gaps["jobs/"+s.ns]), found)
	for stream, g := range gaps {
		if len(g) > 3 {
			t.Errorf("%d gaps of %s, want one for each restart at most", len(g), stream)
		}
	}
	if found > 0 && len(gaps["pods/"+s.ns]) == 0 {
		t.Errorf("%d changes were found by a list, and no gap was told", found)
	}
}

// TestHistoryExpiresWhileTheAgentIsDown wants one gap a stream, every end and
// every present state, and nothing of what did not change.
func TestHistoryExpiresWhileTheAgentIsDown(t *testing.T) {
	needCluster(t)
	s := newSession(t, "expired")
	a := s.start(t, configOf(s.ns))
	still, gone, again := pods(t, s.ns, "still", 10, nil), pods(t, s.ns, "gone", 10, nil), pods(t, s.ns, "again", 5, nil)
	ends := pods(t, s.ns, "ends", 10, map[string]string{"devcluster/run": "8s"})
	works, dropped := jobs(t, s.ns, "works", 3, nil), jobs(t, s.ns, "dropped", 2, nil)
	for _, f := range []fleet{still, gone, again, ends} {
		f.tell(s.want, podRuns)
	}
	works.tell(s.want, "Job Queued>Running")
	dropped.tell(s.want, "Job Queued>Running")
	s.hook.tells(t, time.Minute, s.want)
	a.stop()
	before := lastOf(s.hook.received())

	version := podsVersion(t, s.ns)
	fresh := pods(t, s.ns, "fresh", 10, nil)
	gone.deletePods(t, s.ns)
	reborn := again.recreate(t, s.ns, nil)
	pods(t, s.ns, "passing", 5, nil).deletePods(t, s.ns) // known to nobody
	dropped.deleteJobs(t, s.ns)
	ends.reach(t, s.ns, corev1.PodSucceeded)
	fresh.reach(t, s.ns, corev1.PodRunning)
	reborn.reach(t, s.ns, corev1.PodRunning)
	expireHistory(t, s.ns, version)

	s.hook.answers(0, inFlight)
	a = s.start(t, configOf(s.ns))
	gone.tell(s.want, podCut)
	again.tell(s.want, podCut)
	ends.tell(s.want, podSucceeds)
	dropped.tell(s.want, "Job Queued>Running>Cancelled(Deleted)")
	fresh.tell(s.want, podRuns)
	reborn.tell(s.want, podRuns)
	s.hook.tells(t, time.Minute, s.want)
	quiet(t, time.Minute)
	for name, uid := range still {
		if got := lastOf(s.hook.received())[uid]; got.ID != before[uid].ID {
			t.Errorf("%s did not change, and %s was told", name, got.body)
		}
	}
	for name, uid := range again {
		oneAfterTheOther(t, s.hook, s.hook.received(), uid, reborn[name])
	}
	a.stop()
	a = s.start(t, configOf(s.ns)) // and no gap again
	quiet(t, time.Minute)
	a.stop()
	events := s.told(t)
	oneGap(t, "webhook", events, "Expired", "pods/"+s.ns, "jobs/"+s.ns)
	oneGap(t, "file", s.archive(t), "Expired", "pods/"+s.ns, "jobs/"+s.ns)
	for _, f := range []fleet{fresh, reborn, ends} {
		for name, uid := range f {
			if last := lastOf(events)[uid]; !last.Data.ObservedLate {
				t.Errorf("%s: %s is not marked as found by a list", name, last.body)
			}
		}
	}
}

// atAGap are the places that a relist with a gap passes. Read-only.
var atAGap = []place{{"list/gap", 1}, {"list/gapped", 1}, {"list/fed", 1}}

// TestAGapOutlivesTheAgent kills the agent before it has handed over the gap,
// again just after, and again when all of the list is on its way.
func TestAGapOutlivesTheAgent(t *testing.T) {
	needCluster(t)
	s := newSession(t, "outlives")
	s.killed = true
	a := s.start(t, configOf(s.ns))
	still, gone := pods(t, s.ns, "still", 5, nil), pods(t, s.ns, "gone", 5, nil)
	still.tell(s.want, podRuns)
	gone.tell(s.want, podRuns)
	s.hook.tells(t, time.Minute, s.want)
	a.stop()
	version := podsVersion(t, s.ns)
	gone.deletePods(t, s.ns)
	works := jobs(t, s.ns, "works", 2, second)
	works.complete(t, s.ns)
	expireHistory(t, s.ns, version)
	for _, p := range atAGap {
		killedAt(t, s, p)
	}
	a = s.start(t, configOf(s.ns))
	gone.tell(s.want, podCut)
	works.tell(s.want, jobSucceeds)
	s.hook.tells(t, time.Minute, s.want)
	quiet(t, time.Minute)
	a.stop()
	// A gap that was durable when the agent was killed is told, and the list that
	// it belonged to may be read again, with a gap of its own.
	for where, events := range map[string][]event{"webhook": s.told(t), "file": s.archive(t)} {
		found := gapsOf(events)
		for _, stream := range []string{"pods/" + s.ns, "jobs/" + s.ns} {
			if n := len(found[stream]); n < 1 || n > len(atAGap) {
				t.Errorf("%s: %d gaps of %s, want one, or one for each time the list was read: %+v", where, n, stream, gaps(found[stream]))
			}
		}
	}
}
