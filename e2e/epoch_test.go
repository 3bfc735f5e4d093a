package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A past is workloads by what becomes of them between a backup and the moment
// at which the cluster is set back to it.
type past struct {
	still    fleet // nothing: they run
	works    fleet // nothing: Jobs that run
	cut      fleet // deleted, and there again after the restore
	dropped  fleet // the same of Jobs
	finished fleet // ended, run again after the restore, and end again
	born     fleet // created, and gone after the restore
	batch    fleet // the same of Jobs
}

// TestAClusterThatIsSetBack restores etcd from a backup, so that the
// resourceVersion goes back: while the agent runs, and while it does not.
func TestAClusterThatIsSetBack(t *testing.T) {
	needCluster(t)
	for _, tt := range []struct {
		name, ns string
		running  bool
	}{
		{"the agent runs", "restored-running", true},
		{"the agent is stopped", "restored-stopped", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSession(t, tt.ns)
			a := s.start(t, configOf(s.ns))
			p := live(t, s, filepath.Join(t.TempDir(), "etcd.snapshot"))
			if !tt.running {
				a.stop()
			}
			before := lastOf(s.hook.received())
			cluster(t, "restore", p.backup)
			if !tt.running {
				a = s.start(t, configOf(s.ns))
			}
			p.afterwards(t, s.hook, before)

			fresh := pods(t, s.ns, "fresh", 5, second)
			fresh.tell(s.want, podSucceeds)
			fresh.reach(t, s.ns, corev1.PodSucceeded)
			s.hook.tells(t, time.Minute, s.wants(fresh))
			p.still.deletePods(t, s.ns)
			p.works.deleteJobs(t, s.ns)
			p.dropped.deleteJobs(t, s.ns)
			p.cut.deletePods(t, s.ns)
			p.still.tell(s.want, podCut)
			p.works.tell(s.want, "Job Queued>Running>Cancelled(Deleted)")
			s.hook.tells(t, time.Minute, s.wants(p.still, p.works))
			stand(t, s.hook, 2, "Cancelled", p.cut, p.dropped)
			a.stop()
			s.restored(t)
		})
	}
}

type restorable struct {
	past
	backup string
}

// live fills the cluster, makes a backup of it, and goes on.
func live(t *testing.T, s *session, backup string) *restorable {
	t.Helper()
	p := &restorable{backup: backup}
	p.still, p.cut = pods(t, s.ns, "still", 10, nil), pods(t, s.ns, "cut", 5, nil)
	p.works, p.dropped = jobs(t, s.ns, "works", 2, nil), jobs(t, s.ns, "dropped", 2, nil)
	p.finished = pods(t, s.ns, "finished", 5, map[string]string{"devcluster/run": "6s"})
	for _, f := range []fleet{p.still, p.cut, p.finished} {
		f.tell(s.want, podRuns)
	}
	p.works.tell(s.want, "Job Queued>Running")
	p.dropped.tell(s.want, "Job Queued>Running")
	s.hook.tells(t, time.Minute, s.want)
	cluster(t, "snapshot", backup)
	p.born, p.batch = pods(t, s.ns, "born", 10, nil), jobs(t, s.ns, "batch", 2, nil)
	p.cut.deletePods(t, s.ns)
	p.dropped.deleteJobs(t, s.ns)
	p.finished.reach(t, s.ns, corev1.PodSucceeded)
	p.born.tell(s.want, podRuns)
	p.batch.tell(s.want, "Job Queued>Running")
	p.cut.tell(s.want, podCut)
	p.dropped.tell(s.want, "Job Queued>Running>Cancelled(Deleted)")
	p.finished.tell(s.want, podSucceeds)
	s.hook.tells(t, time.Minute, s.want)
	manyRevisions(t, s.ns, 1500)
	return p
}

// afterwards waits for what must be told of a cluster that was set back.
func (p *restorable) afterwards(t *testing.T, hook *receiver, before map[string]event) {
	t.Helper()
	stand(t, hook, 2, "Deleted", p.born, p.batch)
	stand(t, hook, 2, "Running", p.cut, p.dropped)
	stand(t, hook, 0, "Succeeded", p.finished) // in epoch 1, where it had ended again when the agent first looked
	quiet(t, time.Minute)
	last := lastOf(hook.received())
	for _, f := range []fleet{p.still, p.works} {
		for name, uid := range f {
			if last[uid].ID != before[uid].ID {
				t.Errorf("%s did not change, and %s was told", name, last[uid].body)
			}
		}
	}
	for _, f := range []fleet{p.still, p.works, p.cut, p.dropped} {
		for _, uid := range f {
			for _, e := range changesOf(hook.received(), uid) {
				if e.Data.Epoch == 2 && ended(e) {
					t.Errorf("%s lives, and its end was told: %s", e.Subject, e.body)
				}
			}
		}
	}
}

// restored wants a gap for each stream, and everything from the first of them
// on in the new epoch.
func (s *session) restored(t *testing.T) {
	t.Helper()
	events := s.received(t)
	stories(t, "webhook", events)
	archive := s.archive(t)
	stories(t, "file", archive)
	sameIDs(t, events, archive)
	for where, events := range map[string][]event{"webhook": events, "file": archive} {
		oneGap(t, where, events, "ClusterRestored", "pods/"+s.ns, "jobs/"+s.ns)
	}
	// The file has the ledger's order.
	i := slices.IndexFunc(archive, func(e event) bool { return e.Type == gapType })
	if i < 0 {
		return
	}
	for n, e := range archive {
		want := int64(1)
		if n >= i {
			want = 2
		}
		if e.Data.Epoch != want {
			t.Errorf("event %d, with the first gap at %d: epoch %d, want %d: %s", n, i, e.Data.Epoch, want, e.body)
		}
	}
	s.verified(t)
}

// wants is what must be told of some fleets alone.
func (s *session) wants(fleets ...fleet) map[string]string {
	out := map[string]string{}
	for _, f := range fleets {
		for _, uid := range f {
			out[uid] = s.want[uid]
		}
	}
	return out
}

// stand waits until the last change of each workload of the fleets leads to the
// state, in the epoch if not 0, and nothing waits in the agent.
func stand(t *testing.T, hook *receiver, epoch int64, state string, fleets ...fleet) {
	t.Helper()
	wrong := ""
	stood := func() bool {
		last := lastOf(hook.received())
		for _, f := range fleets {
			for _, uid := range f {
				if e := last[uid]; e.Data.To != state || epoch != 0 && e.Data.Epoch != epoch {
					wrong = fmt.Sprintf("%s is %s in epoch %d, by %s", e.Subject, e.Data.To, e.Data.Epoch, statesOf(hook.received(), uid))
					return false
				}
			}
		}
		return true
	}
	for deadline := time.Now().Add(30 * time.Second); !stood(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s after 30s, want %s in epoch %d", wrong, state, epoch)
		}
		time.Sleep(50 * time.Millisecond) // sleep: between two looks
	}
	quiet(t, time.Minute)
}

// TestWhatIsNoLongerSelected changes the configuration: what it leaves out
// ends as Untracked, and goes on when it is selected again.
func TestWhatIsNoLongerSelected(t *testing.T) {
	needCluster(t)
	s := newSession(t, "selected-a")
	nsA, nsB := s.ns, namespace(t, "selected-b")
	a := s.start(t, configOf(nsA, nsB))
	chosen, others, jobsA := pods(t, nsA, "chosen", 4, nil, "app=x"), pods(t, nsA, "others", 4, nil), jobs(t, nsA, "works", 2, nil)
	inB, jobsB := pods(t, nsB, "b", 4, nil), jobs(t, nsB, "works", 2, nil)
	for _, f := range []fleet{chosen, others, inB} {
		f.tell(s.want, podRuns)
	}
	jobsA.tell(s.want, "Job Queued>Running")
	jobsB.tell(s.want, "Job Queued>Running")
	s.hook.tells(t, time.Minute, s.want)

	restart := func(config string) {
		a.stop()
		a = s.start(t, config)
	}
	restart(configOf(nsA))
	stand(t, s.hook, 1, "Untracked", inB, jobsB)
	stand(t, s.hook, 1, "Running", chosen, others, jobsA)
	restart(with(t, configOf(nsA), "kinds: [Pod, Job]", `kinds: [{kind: Pod, selector: "app=x"}]`))
	stand(t, s.hook, 1, "Untracked", inB, jobsB, others, jobsA)
	stand(t, s.hook, 1, "Running", chosen)
	restart(configOf(nsA, nsB))
	stand(t, s.hook, 1, "Running", chosen, others, inB, jobsA, jobsB)
	for _, e := range s.hook.received() {
		if ended(e) && e.Data.To != "Untracked" {
			t.Errorf("%s: told %s, and nothing has ended: %s", e.Subject, e.Data.To, e.body)
		}
	}
	for _, f := range []fleet{others, inB, jobsA, jobsB} {
		for _, uid := range f {
			if story := statesOf(s.hook.received(), uid); !strings.HasPrefix(story, "Queued>Running>Untracked>") || strings.Count(story, "Untracked") != 1 {
				t.Errorf("%s: got %s, want it untracked once and then gone on with", uid, story)
			}
		}
	}
	both := maps.Clone(chosen)
	maps.Copy(both, others)
	both.deletePods(t, nsA)
	inB.deletePods(t, nsB)
	jobsA.deleteJobs(t, nsA)
	jobsB.deleteJobs(t, nsB)
	stand(t, s.hook, 1, "Cancelled", chosen, others, inB, jobsA, jobsB)
	a.stop()
	events, archive := s.received(t), s.archive(t)
	stories(t, "webhook", events)
	stories(t, "file", archive)
	sameIDs(t, events, archive)
	for stream, g := range gapsOf(events) {
		t.Logf("gaps of %s: %+v", stream, gaps(g))
	}
	s.verified(t)
}

// statesOf is the states of a workload's story, without reasons.
func statesOf(events []event, uid string) string {
	var states []string
	for _, e := range changesOf(events, uid) {
		states = append(states, e.Data.To)
	}
	return strings.Join(states, ">")
}
