package watch

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/statesync"
)

// standing is where a stream stands.
func (x *world) standing(t *testing.T, name string) Standing {
	t.Helper()
	for _, s := range x.w.Streams() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no stream %s", name)
	return Standing{}
}

// wantIDs is that no two changes have the same ID.
func wantIDs(t *testing.T, log *record) {
	t.Helper()
	changes := map[string]string{}
	for _, e := range log.durable() {
		for _, c := range e.Changes {
			line := fmt.Sprintf("%s %d %s>%s", c.Workload.UID, c.Seq, c.From, c.To)
			if first, ok := changes[c.ID]; ok {
				t.Errorf("%q has the ID of %q", line, first)
			}
			changes[c.ID] = line
		}
	}
}

// suspended is a Job that was suspended while pods of it ran.
func suspended(j *batchv1.Job) {
	with(batchv1.JobSuspended, "True")(j)
	j.Status.Terminating = new(int32(1))
}

func failed(j *batchv1.Job) {
	with(batchv1.JobFailed, "True")(j)
	j.Status.Failed = 1
}

// TestTheMarkDoesNotPassWhatWasNotRead: of the flush in which the agent died,
// one pod became durable, at a version that the resume point has not reached.
// That it is told when its ReplicaSet has left the Deployment says nothing of
// the events before that version.
func TestTheMarkDoesNotPassWhatWasNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		_, r, p := app(c)
		x := onto(t, newRecord(), c, hopped)
		passing(3 * time.Second)
		left := x.log.crash()
		q := pod("q", "Q", 0, "Pending")
		c.write(kwatch.Added, q)
		c.write(kwatch.Modified, running(q))
		c.write(kwatch.Deleted, running(q))
		c.write(kwatch.Modified, running(p))
		passing(3 * time.Second)
		left.objects["pods"]["P"] = x.log.crash().objects["pods"]["P"]
		c.write(kwatch.Modified, alone(r))
		passing(3 * time.Second)
		after := x.log.crash()
		left.objects["replicasets"], left.streams["replicasets"] = after.objects["replicasets"], after.streams["replicasets"]
		x.log.die()
		x.stop()
		c.failing(func(call string) error { // nothing is read
			if call == "watch" || call == "list" {
				return errors.New("starting")
			}
			return nil
		})
		read := left.streams["pods"].Version
		left.hold = true
		x = onto(t, left, c, hopped)
		passing(2 * time.Second)
		x.log.release(-1)
		passing(2 * time.Second)
		if resume := x.log.streams["pods"].Version; resume != read {
			t.Errorf("the log would go on with pods from version %d, and they were read up to %d", resume, read)
		}
		x = x.killed(t, c, hopped)
		c.failing(nil)
		passing(20 * time.Second)
		wantTold(t, x.log, "Q", "Q 1 >Queued", "Q 2 Queued>Running", "Q 3 Running>Cancelled Deleted", "Q gone")
	})
}

// TestNoTwoChangesOfASuspensionThatWaitsHaveOneID: one event tells that the
// Job began, before its pod, and that it was suspended, after it.
func TestNoTwoChangesOfASuspensionThatWaitsHaveOneID(t *testing.T) {
	for name, late := range map[string]bool{"seen live": false, "from a first list": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				p := pod("p", "P", 0, "Running", ownedBy("j", "J"))
				if late {
					c.write(kwatch.Added, p)
					c.refusing("jobs", errors.New("starting"))
				}
				x := onto(t, newRecord(), c, withJobs)
				passing(time.Second)
				if !late {
					c.write(kwatch.Added, p)
					synctest.Wait()
				}
				c.lose = func(h happening) bool { return h.resource == "pods" } // they say nothing more
				c.write(kwatch.Added, job("j", "J", 0, suspended))
				c.refusing("jobs", nil)
				passing(15 * time.Second)
				wantIDs(t, x.log)
				if n := len(x.log.told("J")); n != 3 {
					t.Errorf("told %q, want 3 changes", x.log.told("J"))
				}
			})
		})
	}
}

// TestAMoveWithoutAChangeIsNotReadAgainInANewEpoch: the Job was resumed, which
// changes no state, its pod's Running is durable, and the agent dies before how
// far the streams had come is.
func TestAMoveWithoutAChangeIsNotReadAgainInANewEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		log := newRecord(statesync.Row{
			Ref:    statesync.Ref{Kind: "Job", Namespace: "load", Name: "j", UID: "J"},
			Stream: "jobs", State: statesync.Queued, Reason: "Suspended", Epoch: 1, Seq: 1, ResourceVersion: 50, Suspended: true,
		})
		log.epoch = 2
		for _, name := range []string{"jobs", "pods"} {
			log.streams[name] = statesync.Resume{Stream: name, Version: 60, Lost: statesync.GapRestored}
		}
		j := job("j", "J", 0, with(batchv1.JobSuspended, "True"))
		c.write(kwatch.Added, j)
		x := onto(t, log, c, withJobs)
		passing(3 * time.Second)
		before := x.log.crash()
		j.Labels = map[string]string{"app": "x"}
		c.write(kwatch.Modified, j)
		c.write(kwatch.Modified, job("j", "J", 0, with(batchv1.JobSuspended, "False")))
		synctest.Wait()
		c.write(kwatch.Added, pod("p", "P", 0, "Running", ownedBy("j", "J")))
		synctest.Wait()
		left := x.log.crash()
		left.streams, left.objects = before.streams, before.objects
		x.log.die()
		x.stop()
		x = onto(t, left, c, withJobs)
		passing(15 * time.Second)
		wantTold(t, x.log, "J", "J 2 Queued>Running")
	})
}

// TestAPodThatIsGoneIsNotKeptThoughItsRemovalOvertookIt: too much waits, so
// that the removal does not, and what came before goes on waiting. The stream of
// Jobs is the one that is held, for an end that waits for its pod.
func TestAPodThatIsGoneIsNotKeptThoughItsRemovalOvertookIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		edit := all(withJobs, func(o *Options) { o.MaxPending = 6 })
		x := onto(t, newRecord(), c, edit)
		passing(15 * time.Second)
		c.write(kwatch.Added, job("f", "F", 0, failed))
		synctest.Wait()
		p := pod("p", "P", 0, "Running", ownedBy("j", "J")) // whose Job never comes
		for _, p := range []*corev1.Pod{p, pod("q", "Q", 0, "Running", ownedBy("k", "K"))} {
			c.write(kwatch.Added, p)
			synctest.Wait()
		}
		c.write(kwatch.Deleted, p)
		passing(3 * time.Second)
		if n := x.standing(t, "pods").Hasty; n != 1 {
			t.Fatalf("%d events did not wait, want the removal alone", n)
		}
		passing(20 * time.Second)
		x.wantPods(t, "Q")
		x = x.again(t, c, edit)
		passing(30 * time.Second)
		x.wantPods(t, "Q")
	})
}

// TestWhatIsReadAgainHasTheRootThatItHad: the pod is in the log as it is later,
// and who controlled it is gone.
func TestWhatIsReadAgainHasTheRootThatItHad(t *testing.T) {
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprint("the pod is gone too: ", gone), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				edit := all(hopped, withJobs)
				d := deployment("d", "D", 0, wants(1))
				r := under(replicaSet("r", "R", 0), d)
				c.write(kwatch.Added, d)
				c.write(kwatch.Added, r)
				x := onto(t, newRecord(), c, edit)
				passing(15 * time.Second)
				c.write(kwatch.Added, pod("q", "Q", 0, "Running", ownedBy("k", "K"))) // waits, and the resume point with it
				synctest.Wait()
				p := under(pod("p", "P", 0, "Pending"), r)
				c.write(kwatch.Added, p)
				c.write(kwatch.Modified, running(p))
				synctest.Wait()
				c.write(kwatch.Deleted, d)
				c.write(kwatch.Deleted, r)
				if gone {
					c.write(kwatch.Deleted, running(p))
				}
				passing(3 * time.Second)
				x = x.killed(t, c, edit)
				passing(20 * time.Second)
				wantTold(t, x.log, "P")
				wantTold(t, x.log, "D", "D 1 >Queued late", "D 2 Queued>Deleted Deleted", "D gone")
			})
		})
	}
}

func TestAPodWaitsAMinuteAtMostForAStreamThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, withJobs)
		passing(15 * time.Second)
		c.refusing("jobs", errors.New("starting"))
		c.cutOff("jobs")
		passing(time.Second)
		c.write(kwatch.Added, pod("p", "P", 0, "Running", ownedBy("j", "J")))
		passing(cutOff - 5*time.Second)
		if n := x.standing(t, "pods").Pending; n != 1 {
			t.Errorf("%d pods wait while the Jobs are not to be had, want 1", n)
		}
		passing(10 * time.Second)
		if s := x.standing(t, "pods"); s.Pending != 0 || s.Mark != uint64(c.head()) {
			t.Errorf("after a minute %d pods wait, and the mark is at %d, want none and %d", s.Pending, s.Mark, c.head())
		}
	})
}

// TestAPodDoesNotWaitForAWorkloadThatASelectorMayLeaveOut: not for longer than a
// moment, however many there are.
func TestAPodDoesNotWaitForAWorkloadThatASelectorMayLeaveOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, all(podsFoldOnly, withJobs, func(o *Options) { selectingOf(o, 1) }))
		passing(15 * time.Second)
		for i := range 20 {
			c.write(kwatch.Added, pod(fmt.Sprint("p", i), fmt.Sprint("P", i), 0, "Running", ownedBy("j", "J")))
		}
		passing(2 * hopWait)
		if s := x.standing(t, "pods"); s.Pending != 0 || s.Hasty != 0 {
			t.Errorf("%d pods wait, and %d did not because too many do, want none", s.Pending, s.Hasty)
		}
	})
}

// TestAnEndWaitsForTheFirstListOfPods: which may come long after that of Jobs,
// and says that the Job ran, and why it failed.
func TestAnEndWaitsForTheFirstListOfPods(t *testing.T) {
	for _, after := range []time.Duration{5 * time.Second, 20 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				at := metav1.Unix(1_800_000_000, 0)
				c.write(kwatch.Added, job("j", "J", 0, failed, func(j *batchv1.Job) {
					j.Status.Conditions[0].Reason, j.Status.StartTime = "BackoffLimitExceeded", &at
				}))
				c.write(kwatch.Added, pod("p", "P", 0, "Failed", ownedBy("j", "J"), func(p *corev1.Pod) {
					p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{
						Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, StartedAt: metav1.Unix(1_800_000_001, 0), FinishedAt: metav1.Unix(1_800_000_002, 0)},
					}}}
				}))
				c.refusing("pods", errors.New("starting"))
				x := onto(t, newRecord(), c, withJobs)
				passing(after)
				c.refusing("pods", nil)
				passing(20 * time.Second)
				wantTold(t, x.log, "J", "J 1 >Queued reconstructed late", "J 2 Queued>Running late", "J 3 Running>Failed BackoffLimitExceeded late")
				for _, e := range x.log.durable() {
					for _, ch := range e.Changes {
						if ch.To == statesync.Failed && (ch.ExitCode == nil || *ch.ExitCode != 3) {
							t.Errorf("failed with exit code %v, want its pod's, 3", ch.ExitCode)
						}
					}
				}
			})
		})
	}
}

// TestAnEndWaitsForItsPodsThoughItsRootHadToBeFound: who controls the Job is
// asked for first, and is gone.
func TestAnEndWaitsForItsPodsThoughItsRootHadToBeFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		other(c)
		x := onto(t, newRecord(), c, all(withJobs, withNotebooks, func(o *Options) {
			above := notebook() // what may control notebooks
			above.Name, above.Group, above.Resource, above.Collection = "Workflow", "argoproj.io", "workflows", "workflows.argoproj.io"
			above.Folds = true
			add(o, above)
		}))
		passing(15 * time.Second)
		c.write(kwatch.Added, under(job("j", "J", 0, failed), book("gone", "G", "")))
		passing(500 * time.Millisecond)
		p := pod("p", "P", 0, "Running", ownedBy("j", "J"))
		c.write(kwatch.Added, p)
		passing(500 * time.Millisecond)
		p.Status.Phase = "Failed"
		c.write(kwatch.Modified, p)
		passing(20 * time.Second)
		wantTold(t, x.log, "J", "J 1 >Queued reconstructed", "J 2 Queued>Running", "J 3 Running>Failed Failed")
		wantTold(t, x.log, "P")
	})
}

// TestOrphansAreToldThoughTheirReplicaSetWasAskedForBefore: the API server said
// that it had a controller, and the first that its stream shows of it is that
// it has none.
func TestOrphansAreToldThoughTheirReplicaSetWasAskedForBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		d := deployment("d", "D", 0)
		r := under(replicaSet("r", "R", 0), d)
		c.write(kwatch.Added, d)
		x := onto(t, newRecord(), c, hopped)
		passing(time.Second)
		c.lose = func(h happening) bool { return h.resource == "replicasets" }
		c.write(kwatch.Added, r)
		c.write(kwatch.Added, under(pod("p", "P", 0, "Running"), r))
		passing(time.Minute)
		wantTold(t, x.log, "P")
		c.write(kwatch.Modified, alone(r))
		c.write(kwatch.Deleted, d)
		passing(time.Second)
		c.lose = nil
		c.compact() // a list shows it
		passing(time.Minute)
		wantTold(t, x.log, "P", "P 1 >Queued reconstructed", "P 2 Queued>Running")
	})
}

// TestPodsOfAWorkloadThatWasAdoptedAreItsOwnToTheEnd: it goes on with its own
// story, and a pod of it comes after its removal.
func TestPodsOfAWorkloadThatWasAdoptedAreItsOwnToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, all(withJobs, func(o *Options) {
			nb := notebook()
			nb.Folds, nb.PodsRun = true, true
			add(o, nb)
		}))
		n := book("n", "N", "Queued")
		c.write(kwatch.Added, job("j", "J", 0))
		c.write(kwatch.Added, n)
		synctest.Wait()
		c.write(kwatch.Modified, under(job("j", "J", 0), n))
		synctest.Wait()
		p := pod("p", "P", 0, "Pending", ownedBy("j", "J"))
		c.write(kwatch.Added, p)
		passing(2 * time.Second)
		c.write(kwatch.Deleted, under(job("j", "J", 0), n))
		synctest.Wait()
		c.write(kwatch.Modified, running(p))
		passing(15 * time.Second)
		wantTold(t, x.log, "J", "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Cancelled Deleted", "J gone")
		wantTold(t, x.log, "N", "N 1 >Queued")
	})
}

// TestTheEndOfASessionWaitsForNothing: though a worker had found, before it was
// to end, that a pod waits, and puts it back after.
func TestTheEndOfASessionWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := onto(t, newRecord(), newCluster(), withJobs)
		passing(15 * time.Second)
		w, s := x.w, x.w.streams[0]
		o, err := s.reduce(pod("p", "P", 5, "Running", ownedBy("j", "J")))
		if err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		s.upsert(o, nil, false, time.Now())
		d := s.inflight.Front().Value.(*delta)
		key, _ := s.key(d)
		delete(w.pending, key) // a worker has it
		w.mu.Unlock()
		synctest.Wait()
		w.hurryUp()
		w.putBack(key, []*delta{d}, time.Now().Add(patience))
		began := time.Now()
		if err := w.drained(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took >= time.Second {
			t.Errorf("the session ended after %s", took)
		}
	})
}

// TestASessionEndsThoughAControllerCannotBeAskedAbout: its pod waits until the
// stream shows it, or until the next session reads it again.
func TestASessionEndsThoughAControllerCannotBeAskedAbout(t *testing.T) {
	for name, shown := range map[string]bool{"which is shown meanwhile": true, "which is not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				d := deployment("d", "D", 0)
				r := under(replicaSet("r", "R", 0), d)
				c.write(kwatch.Added, d)
				x := onto(t, newRecord(), c, hopped)
				passing(15 * time.Second)
				c.lose = func(h happening) bool { return h.resource == "replicasets" }
				c.failing(func(call string) error {
					if call == "get r" {
						return apierrors.NewInternalError(errors.New("the webhook is down"))
					}
					return nil
				})
				c.write(kwatch.Added, r)
				c.write(kwatch.Added, under(pod("p", "P", 0, "Running"), r))
				passing(10 * time.Second)
				waiting := 1
				if shown {
					c.lose = nil
					c.write(kwatch.Modified, r)
					waiting = 0
				}
				passing(askWait)
				if n := x.standing(t, "pods").Pending; n != waiting {
					t.Errorf("%d pods wait, want %d", n, waiting)
				}
				x.log.beginAnew(func(string) bool { return true })
				passing(5 * time.Second)
				if x.log.loaded != x.log.begun {
					t.Error("the log began anew, and 5 s later the session has not ended")
				}
				passing(time.Minute)
				wantTold(t, x.log, "P")
			})
		})
	}
}
