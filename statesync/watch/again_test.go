package watch

import (
	"errors"
	"io"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kwatch "k8s.io/apimachinery/pkg/watch"
)

// Workloads that leave and come back: by the selector, by the configuration,
// or because the cluster was set back.

func TestAnEndThatLeavesAndComesBackIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, selecting)
		c.write(kwatch.Added, pod("a", "u1", 0, "Succeeded", labelled))
		passing(2 * time.Second)
		c.write(kwatch.Modified, pod("a", "u1", 0, "Succeeded"))
		passing(2 * time.Second)
		c.write(kwatch.Modified, pod("a", "u1", 0, "Succeeded", labelled))
		passing(2 * graveTime)
		c.write(kwatch.Modified, pod("a", "u1", 0, "Succeeded", labelled))
		passing(2 * time.Second)
		wantTold(t, x.log, "u1", "u1 1 >Queued reconstructed", "u1 2 Queued>Running reconstructed", "u1 3 Running>Succeeded Completed", "u1 gone")
	})
}

// TestALeavingThatIsReplayedIsToldOnce: the agent dies when all is told and
// the resume point is behind it.
func TestALeavingThatIsReplayedIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("a", "u1", 0, "Pending", labelled))
		x := onto(t, newRecord(), c, selecting)
		passing(2500 * time.Millisecond)
		c.write(kwatch.Modified, pod("a", "u1", 0, "Running", labelled))
		c.write(kwatch.Modified, pod("a", "u1", 0, "Running"))
		c.write(kwatch.Modified, pod("a", "u1", 0, "Running", labelled))
		synctest.Wait()
		x = x.killed(t, c, selecting)
		passing(2 * time.Second)
		x.want(t)
		wantTold(t, x.log, "u1", "u1 1 >Queued late", "u1 2 Queued>Running",
			"u1 3 Running>Untracked NotSelected", "u1 gone", "u1 4 Untracked>Running")
	})
}

// TestAWorkloadThatIsSelectedAgainGoesOn, though only the log remembers it.
func TestAWorkloadThatIsSelectedAgainGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, selecting)
		c.write(kwatch.Added, pod("a", "u1", 0, "Running", labelled))
		c.write(kwatch.Modified, pod("a", "u1", 0, "Running"))
		passing(2 * graveTime)
		if n := x.lives(); n != 0 {
			t.Fatalf("%d lives, want none: the log is to be asked", n)
		}
		c.write(kwatch.Modified, pod("a", "u1", 0, "Succeeded", labelled))
		passing(time.Second)
		wantTold(t, x.log, "u1", "u1 1 >Queued reconstructed", "u1 2 Queued>Running",
			"u1 3 Running>Untracked NotSelected", "u1 gone", "u1 4 Untracked>Succeeded Completed")
	})
}

// TestAJobThatIsSelectedAgainRuns, as its pod does, of which nothing is heard.
func TestAJobThatIsSelectedAgainRuns(t *testing.T) {
	label := func(j *batchv1.Job) { j.Labels = map[string]string{"app": "x"} }
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, func(o *Options) {
			withJobs(o)
			o.Streams[0].FoldOnly = true
			selectingOf(o, 1)
		})
		c.write(kwatch.Added, job("j", "J", 0, label))
		synctest.Wait()
		c.write(kwatch.Added, pod("p", "u1", 0, "Running", ownedBy("j", "J")))
		passing(time.Second)
		c.write(kwatch.Modified, job("j", "J", 0))
		passing(time.Second)
		c.write(kwatch.Modified, job("j", "J", 0, label))
		passing(time.Second)
		x.want(t, "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Untracked NotSelected", "J gone",
			"J 4 Untracked>Queued", "J 5 Queued>Running")
	})
}

// TestAJobThatIsTrackedLaterRuns: the log's pods were kept when nobody asked
// which Job they belong to.
func TestAJobThatIsTrackedLaterRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, job("j", "J", 0))
		c.write(kwatch.Added, pod("p", "u1", 0, "Running", ownedBy("j", "J")))
		x := onto(t, newRecord(), c, nil)
		passing(2 * time.Second)
		x = x.again(t, c, withJobs)
		passing(time.Minute)
		wantTold(t, x.log, "J", "J 1 >Queued late", "J 2 Queued>Running late")
		wantTold(t, x.log, "u1", "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late")
	})
}

// TestAJobRunsByAPodWithAStoryOfItsOwn, also when the pod is heard of later
// than the Job: the pod began its story before anybody asked about Jobs.
func TestAJobRunsByAPodWithAStoryOfItsOwn(t *testing.T) {
	for name, jobs := range map[string]func(*Options){"pods too": withJobs, "Jobs alone": all(withJobs, podsFoldOnly)} {
		for _, last := range []string{"pods", "jobs"} {
			t.Run(name+", last "+last, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCluster()
					c.write(kwatch.Added, job("j", "J", 0))
					c.write(kwatch.Added, pod("p", "u1", 0, "Running", ownedBy("j", "J")))
					x := onto(t, newRecord(), c, nil)
					passing(2 * time.Second)
					x = x.again(t, c, selecting) // it is not
					passing(2 * time.Second)
					x.stop()
					c.refusing(last, errors.New("not yet"))
					time.AfterFunc(5*time.Second, func() { c.refusing(last, nil) })
					x = x.again(t, c, jobs)
					passing(time.Minute)
					wantTold(t, x.log, "J", "J 1 >Queued late", "J 2 Queued>Running late")
				})
			})
		}
	}
}

// TestPodsThatFoldedTellNothingWhenTheirJobsAreNoLongerTracked, and are not
// selected either: nobody has told of them.
func TestPodsThatFoldedTellNothingWhenTheirJobsAreNoLongerTracked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, job("j", "J", 0))
		c.write(kwatch.Added, pod("p", "u1", 0, "Running", ownedBy("j", "J")))
		x := onto(t, newRecord(), c, withJobs)
		passing(2 * time.Second)
		x = x.again(t, c, selecting)
		passing(2 * time.Second)
		x = x.again(t, c, withJobs)
		passing(2 * time.Second)
		wantTold(t, x.log, "u1")
		wantTold(t, x.log, "J", "J 1 >Queued late", "J 2 Queued>Running late", "J 3 Running>Untracked NotSelected late", "J gone",
			"J 4 Untracked>Queued late", "J 5 Queued>Running late")
	})
}

// unseenInOne is a watcher of all namespaces that has stopped; a pod came and
// went in one of them since.
func unseenInOne(t *testing.T) (*world, *cluster) {
	t.Helper()
	c := newCluster()
	c.write(kwatch.Added, pod("a", "u1", 0, "Running", in("two")))
	x := onto(t, newRecord(), c, nil)
	passing(2 * time.Second)
	x.stop()
	c.write(kwatch.Added, pod("b", "u2", 0, "Running", in("one")))
	c.write(kwatch.Deleted, pod("b", "u2", 0, "Running", in("one")))
	return x, c
}

// TestAStreamThatIsNarrowedLeavesAGap: what came and went between the two
// configurations nobody can tell.
func TestAStreamThatIsNarrowedLeavesAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, c := unseenInOne(t)
		x = x.again(t, c, inNamespaces("one"))
		passing(2 * time.Second)
		x.want(t, "u1 3 Running>Untracked NotSelected late", "u1 gone", "pods/one gap 1 Redefined 1-3")
	})
}

func TestAnEndOfAStreamThatComesBackIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("b", "u2", 0, "Succeeded", in("two")))
		x := onto(t, newRecord(), c, inNamespaces("one", "two"))
		passing(2 * time.Second)
		x = x.again(t, c, inNamespaces("one"))
		passing(2 * time.Second)
		x = x.again(t, c, inNamespaces("one", "two"))
		passing(2 * graveTime)
		c.write(kwatch.Deleted, pod("b", "u2", 0, "Succeeded", in("two")))
		passing(2 * time.Second)
		changes := slices.DeleteFunc(x.log.told("u2"), func(line string) bool { return line == "u2 gone" })
		want := []string{"u2 1 >Queued reconstructed late", "u2 2 Queued>Running reconstructed late", "u2 3 Running>Succeeded Completed late"}
		if diff := cmp.Diff(want, changes); diff != "" {
			t.Errorf("told of u2 (-want +got)\n%s", diff)
		}
	})
}

// TestTheIDOfAWorkloadThatIsTrackedAgainIsNew: it is as it was when its state
// was told first, and as it was when it was let go.
func TestTheIDOfAWorkloadThatIsTrackedAgainIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running", in("two")))
		x := onto(t, newRecord(), c, inNamespaces("one", "two"))
		passing(2 * time.Second)
		for range 2 {
			x = x.again(t, c, inNamespaces("one"))
			passing(2 * time.Second)
			x = x.again(t, c, inNamespaces("one", "two"))
			passing(2 * time.Second)
		}
		seqs := map[string]int64{}
		for _, e := range x.log.durable() {
			for _, change := range e.Changes {
				if seq := seqs[change.ID]; seq != 0 {
					t.Errorf("%s>%s has seq %d, and the ID of seq %d", change.From, change.To, change.Seq, seq)
				}
				seqs[change.ID] = change.Seq
			}
		}
	})
}

// TestAFirstListThatWasCutShortIsForgotten: part of its objects were durable
// when the agent died, and one of them was gone when it looked again.
func TestAFirstListThatWasCutShortIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newCluster(), newRecord()
		const many = 2*flushChunk + 1
		for i := range many {
			c.write(kwatch.Added, pod("p"+strconv.Itoa(i), "u"+strconv.Itoa(i), 0, "Running"))
		}
		log.stall(0)
		x := onto(t, log, c, nil)
		log.release(1)
		gone := ""
		for uid := range log.objects["pods"] {
			gone = uid
		}
		if len(log.objects["pods"]) != flushChunk || gone == "" {
			t.Fatalf("%d objects are durable, want the first chunk", len(log.objects["pods"]))
		}
		c.write(kwatch.Deleted, pod("p"+gone[1:], gone, 0, "Running"))
		x = x.killed(t, c, nil)
		passing(3 * time.Second)
		x = x.again(t, c, nil)
		passing(2 * graveTime)
		wantTold(t, x.log, gone)
		if n := x.w.Streams()[0].Objects; n != many-1 {
			t.Errorf("%d objects, want the %d that are there", n, many-1)
		}
	})
}

// TestAJobThatWasSetBackEnds: it was last told at a version that the cluster
// has not come to again.
func TestAJobThatWasSetBackEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, withJobs)
		c.write(kwatch.Added, job("j", "J", 0))
		for range 30 {
			c.write(kwatch.Added, pod("x", "x", 0, "Pending"))
			c.write(kwatch.Deleted, pod("x", "x", 0, "Pending"))
		}
		c.write(kwatch.Added, pod("p", "u1", 0, "Running", ownedBy("j", "J")))
		passing(time.Second)
		c.write(kwatch.Modified, job("j", "J", 0, with(batchv1.JobSuspended, corev1.ConditionTrue)))
		c.write(kwatch.Deleted, pod("p", "u1", 0, "Running", ownedBy("j", "J")))
		passing(3 * time.Second)
		c.restore(3)
		c.write(kwatch.Added, pod("y", "y", 0, "Pending"))
		passing(30 * time.Second)
		c.write(kwatch.Added, pod("p", "u2", 0, "Running", ownedBy("j", "J")))
		passing(3 * time.Second)
		c.write(kwatch.Modified, job("j", "J", 0, with(batchv1.JobComplete, corev1.ConditionTrue)))
		passing(time.Minute)
		wantTold(t, x.log, "J", "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Queued Suspended",
			"J 4 Queued>Running", "J 5 Running>Succeeded Completed")
	})
}

func TestWhatASetBackClusterDoesNotHaveEndsAsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
		x := onto(t, newRecord(), c, nil)
		passing(2 * time.Second)
		c.write(kwatch.Added, pod("b", "u2", 0, "Running"))
		c.write(kwatch.Added, pod("c", "u3", 0, "Failed"))
		passing(2 * time.Second)
		c.restore(1)
		passing(10 * time.Second)
		wantTold(t, x.log, "u1", "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late")
		wantTold(t, x.log, "u2", "u2 1 >Queued reconstructed", "u2 2 Queued>Running", "u2 3 Running>Deleted ClusterRestored late", "u2 gone")
		wantTold(t, x.log, "u3", "u3 1 >Queued reconstructed", "u3 2 Queued>Failed Failed", "u3 gone")
	})
}

// TestWhatWasReadBeforeASetBackBelongsToItsTime: it is durable before the new
// epoch begins.
func TestWhatWasReadBeforeASetBackBelongsToItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("a", "u1", 0, "Pending"))
		x := onto(t, newRecord(), c, nil)
		passing(2 * time.Second)
		x.log.stall(0)
		c.write(kwatch.Modified, pod("a", "u1", 0, "Running"))
		c.write(kwatch.Added, pod("b", "u2", 0, "Pending"))
		synctest.Wait()
		c.restore(1)
		passing(10 * time.Second)
		x.log.mu.Lock()
		epoch := x.log.epoch
		x.log.mu.Unlock()
		if epoch != 1 {
			t.Errorf("epoch %d with changes of the one before that are not durable, want 1", epoch)
		}
		x.log.release(-1)
		passing(10 * time.Second)
		wantTold(t, x.log, "u1", "u1 1 >Queued late", "u1 2 Queued>Running", "u1 3 Running>Queued late")
		wantTold(t, x.log, "u2", "u2 1 >Queued", "u2 2 Queued>Deleted ClusterRestored late", "u2 gone")
		for _, e := range x.log.durable() {
			for _, change := range e.Changes {
				if late := change.Seq > 1 && change.To != "Running"; late != (change.Epoch == 2) && change.Gap == nil {
					t.Errorf("%s of %s in epoch %d", change.To, change.Workload.UID, change.Epoch)
				}
			}
		}
	})
}

// aheadOfItsResumePoint is a log that keeps objects of a later time than the
// watch goes on from: x leaves the selection, and nobody says whether it is
// still there, while a is deleted and made again, and b changes.
func aheadOfItsResumePoint(t *testing.T) (*world, *cluster) {
	t.Helper()
	c := newCluster()
	c.write(kwatch.Added, pod("x", "u0", 0, "Pending", labelled))
	x := onto(t, newRecord(), c, selecting)
	passing(2 * time.Second)
	c.failing(func(call string) error {
		if call == "get x" {
			return io.EOF
		}
		return nil
	})
	c.write(kwatch.Deleted, pod("x", "u0", 0, "Pending", labelled))
	c.write(kwatch.Added, pod("a", "u1", 0, "Pending", labelled))
	c.write(kwatch.Deleted, pod("a", "u1", 0, "Pending", labelled))
	c.write(kwatch.Added, pod("a", "u2", 0, "Pending", labelled))
	passing(3 * time.Second)
	if resume, a := x.log.streams["pods"].Version, x.log.objects["pods"]["u2"].Body; resume != 1 || a == nil {
		t.Fatalf("resume point %d, a %s; want 1 and a kept", resume, a)
	}
	return x, c
}

func TestAnEarlierLifeThatIsReplayedEndsNotTheLaterOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, c := aheadOfItsResumePoint(t)
		c.failing(nil)
		x = x.killed(t, c, selecting)
		passing(3 * time.Second)
		wantTold(t, x.log, "u0", "u0 1 >Queued late", "u0 2 Queued>Cancelled Deleted", "u0 gone")
		wantTold(t, x.log, "u2", "u2 1 >Queued")
		c.write(kwatch.Modified, pod("a", "u2", 0, "Running", labelled))
		passing(3 * time.Second)
		wantTold(t, x.log, "u2", "u2 1 >Queued", "u2 2 Queued>Running")
		if s := x.w.Streams()[0]; s.Objects != 1 || len(x.log.objects["pods"]) != 1 || s.Gaps != 0 {
			t.Errorf("%d objects, %d of them kept, %d gaps; want a alone, and none", s.Objects, len(x.log.objects["pods"]), s.Gaps)
		}
	})
}

func TestASetBackToAVersionAfterTheResumePointIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, c := aheadOfItsResumePoint(t)
		c.failing(nil)
		c.restore(3)
		x = x.killed(t, c, selecting)
		passing(10 * time.Second)
		if x.log.epoch != 2 {
			t.Errorf("epoch %d, want 2: a was seen at version 5, and the cluster is at 3", x.log.epoch)
		}
		wantTold(t, x.log, "u2", "u2 1 >Queued", "u2 2 Queued>Deleted ClusterRestored late", "u2 gone")
	})
}

// TestASuspensionThatNobodySawIsKnownByTheNextRun: it came and went while the
// history was gone. That the Job has another start says so.
func TestASuspensionThatNobodySawIsKnownByTheNextRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, withJobs)
		passing(2 * time.Second)
		j, p := job("j", "J", 0), pod("p", "P", 0, "Running", ownedBy("j", "J"))
		starts := func() {
			now := metav1.Now().Rfc3339Copy()
			j.Status.StartTime, j.Status.Active, p.CreationTimestamp = &now, 1, now
		}
		starts()
		c.write(kwatch.Added, j)
		c.write(kwatch.Added, p)
		passing(5 * time.Second)
		c.lose = func(happening) bool { return true }
		c.write(kwatch.Deleted, p)
		p = pod("q", "Q", 0, "Pending", ownedBy("j", "J"))
		starts()
		c.write(kwatch.Modified, j)
		c.write(kwatch.Added, p)
		passing(time.Second)
		c.lose = nil
		c.compact() // a list shows it
		passing(5 * time.Second)
		wantTold(t, x.log, "J", "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Queued reconstructed late")
		c.write(kwatch.Modified, running(p))
		passing(time.Second)
		wantTold(t, x.log, "J", "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Queued reconstructed late", "J 4 Queued>Running")
	})
}
