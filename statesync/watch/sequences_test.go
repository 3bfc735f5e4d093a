package watch

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// Each test below is a sequence of steps that once lost or doubled something.

// TestAPodThatIsReleasedIsLetGo: a stream that is read only for Jobs has no more to do with it.
func TestAPodThatIsReleasedIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, job("j", "J", 0))
		c.write(kwatch.Added, pod("of-j", "u2", 0, "Running", ownedBy("j", "J")))
		edit := func(o *Options) {
			withJobs(o)
			o.Streams[0].FoldOnly, o.Audit = true, 10*time.Second
		}
		x := onto(t, newRecord(), c, edit)
		passing(2 * time.Second)
		c.write(kwatch.Modified, pod("of-j", "u2", 0, "Running")) // released
		passing(2 * time.Minute)
		s := x.w.Streams()[0]
		if len(s.Corrections) > 0 || s.Objects != 0 {
			t.Errorf("corrections %v, %d objects, want none", s.Corrections, s.Objects)
		}
	})
}

// TestANarrowerStreamTellsItsGapAfterAnotherStop: the stream that had its objects is forgotten only then.
func TestANarrowerStreamTellsItsGapAfterAnotherStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, c := unseenInOne(t)
		c.failing(func(string) error { return apierrors.NewInternalError(errors.New("down")) })
		x = x.again(t, c, inNamespaces("one"))
		passing(2 * time.Second)
		x.stop()
		c.failing(nil)
		x = x.again(t, c, inNamespaces("one"))
		passing(3 * time.Second)
		if !slices.Contains(x.log.all(), "pods/one gap 1 Redefined 1-3") {
			t.Errorf("told %q, want the gap from where the wider stream was", x.log.all())
		}
	})
}

// TestALifeThatTheFirstListBringsBackKeepsItsSeq: however long that list takes, and whatever the log is slow at.
func TestALifeThatTheFirstListBringsBackKeepsItsSeq(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		var rows []statesync.Row
		for i := range 8 {
			n := strconv.Itoa(i)
			p := pod("a"+n, "u"+n, 0, "Running")
			c.write(kwatch.Added, p)
			rows = append(rows, statesync.Row{
				Ref:    statesync.Ref{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: "u" + n},
				Stream: "pods", State: statesync.Untracked, Epoch: 1, Seq: 3, ResourceVersion: 1, Gone: true,
			})
		}
		log := newRecord(rows...)
		c.failing(func(string) error { return apierrors.NewInternalError(errors.New("down")) })
		x := onto(t, log, c, nil)
		passing(graveTime + time.Second)
		log.stall(1)
		c.failing(nil)
		passing(6 * time.Second) // list, keepFirst waits
		log.release(1)           // kept; the list is fed; the log is slow
		passing(5 * time.Second)
		log.release(-1)
		passing(3 * time.Second)
		for _, r := range x.log.rows {
			if r.Kind == "Pod" && r.Seq < 4 {
				t.Errorf("%s: seq %d, want above 3", r.UID, r.Seq)
			}
		}
	})
}

// TestWhatIsUntrackedIsToldOnceThoughTheLogBeginsAnew: another session begins only when it is durable.
func TestWhatIsUntrackedIsToldOnceThoughTheLogBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running", in("two")))
		x := onto(t, newRecord(), c, inNamespaces("one", "two"))
		passing(2 * time.Second)
		x.stop()
		log := x.log.crash()
		log.stall(0)
		onto(t, log, c, inNamespaces("one"))
		passing(2 * time.Second)
		log.beginAnew(func(string) bool { return true })
		passing(2 * time.Second)
		log.release(-1)
		passing(2 * time.Second)
		n := 0
		for _, l := range log.told("u1") {
			if l == "u1 3 Running>Untracked NotSelected late" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("seq 3 told %d times", n)
		}
	})
}

// TestAnUnreadObjectThatHasLeftTellsNothing: the log has all that it caused.
func TestAnUnreadObjectThatHasLeftTellsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running", labelled))
		log := newRecord()
		x := onto(t, log, c, selecting)
		synctest.Wait()
		c.write(kwatch.Modified, pod("a", "u1", 0, "Running")) // leaves
		synctest.Wait()
		x = x.killed(t, c, selecting) // before the first flush
		passing(3 * time.Second)
		if got := x.log.rows["u1"].Seq; got != 3 {
			t.Errorf("seq %d, want 3", got)
		}
	})
}

// TestASuspensionOfLaterTimeHoldsNoPod: the Job ran, was suspended, and the cluster was set back to when it ran.
func TestASuspensionOfLaterTimeHoldsNoPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, withJobs)
		created := func(p *corev1.Pod) { p.CreationTimestamp = metav1.Unix(1_800_000_001, 0) }
		begun := func(j *batchv1.Job) { j.Status.StartTime = new(metav1.Unix(1_800_000_000, 0)) }
		c.write(kwatch.Added, job("j", "J", 0, begun))
		c.write(kwatch.Added, pod("p", "u1", 0, "Running", ownedBy("j", "J"), created))
		passing(2 * time.Second)
		c.write(kwatch.Modified, job("j", "J", 0, with(batchv1.JobSuspended, corev1.ConditionTrue), func(j *batchv1.Job) {
			j.Status.Conditions[0].LastTransitionTime = metav1.Unix(1_800_000_000+3600, 0)
		}))
		c.write(kwatch.Deleted, pod("p", "u1", 0, "Running", ownedBy("j", "J"), created))
		passing(3 * time.Second)
		c.restore(2)
		passing(time.Minute)
		if r := x.log.rows["J"]; r.State != "Running" {
			t.Errorf("J is %s, and its pod runs", r.State)
		}
	})
}

// TestAFirstListOfTheTimeBeforeIsNotKept: another stream found the cluster set back while the list waited in the log.
func TestAFirstListOfTheTimeBeforeIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		onlyJobs := func(o *Options) {
			o.Streams = []Stream{{Kind: workload.Kinds["Job"], Source: c.source("jobs")}}
		}
		c.write(kwatch.Added, job("j", "J", 0))
		x := onto(t, newRecord(), c, onlyJobs)
		c.write(kwatch.Modified, job("j", "J", 0))
		passing(3 * time.Second)
		x.stop()
		log := x.log.crash()
		c.write(kwatch.Added, pod("ghost", "ghost", 0, "Running"))
		log.stall(0) // slow, or full
		x = onto(t, log, c, withJobs)
		passing(time.Second) // pods: the first list waits
		c.restore(1)
		passing(5 * time.Second)
		for log.epoch == 1 || log.streams["pods"].Version == 0 {
			if len(log.held) == 0 {
				break
			}
			log.release(1)
			passing(10 * time.Second)
		}
		for i := range 5 {
			c.write(kwatch.Added, pod("n"+strconv.Itoa(i), "n"+strconv.Itoa(i), 0, "Running"))
		}
		x = x.killed(t, c, withJobs)
		passing(5 * time.Second)
		if len(x.log.told("n0")) == 0 || x.log.rows["ghost"].State == "Running" {
			t.Errorf("told %q of a new pod and %q of one that is gone", x.log.told("n0"), x.log.told("ghost"))
		}
	})
}

// TestPodsThatAreTrackedNoMoreAreKeptNoLonger: but for those that tell a Job's story.
func TestPodsThatAreTrackedNoMoreAreKeptNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
		x := onto(t, newRecord(), c, withJobs)
		passing(3 * time.Second)
		edit := func(o *Options) {
			withJobs(o)
			o.Streams[0].FoldOnly, o.Audit = true, 10*time.Second
		}
		x = x.again(t, c, edit)
		passing(time.Minute)
		if s := x.w.Streams()[0]; s.Audits == 0 || len(s.Corrections) > 0 || s.Objects > 0 {
			t.Errorf("%d audits with corrections %v of %d objects, want some, with none of none", s.Audits, s.Corrections, s.Objects)
		}
		c.write(kwatch.Deleted, pod("a", "u1", 0, "Running"))
		passing(10 * time.Second)
		x = x.again(t, c, edit)
		passing(time.Minute)
		if len(x.log.objects["pods"]) > 0 {
			t.Errorf("the log keeps %v, want nothing", x.log.objects["pods"])
		}
	})
}

// late is a collection whose first answer takes five seconds.
type late struct{ *collection }

func (s late) Watch(ctx context.Context, o metav1.ListOptions) (kwatch.Interface, error) {
	sleep(ctx, 5*time.Second)
	return s.collection.Watch(ctx, o)
}

// TestAPodOfTheTimeBeforeASetBackMovesNoJob: the Jobs are listed before the
// pods are, and the pod that ran is not there any more.
func TestAPodOfTheTimeBeforeASetBackMovesNoJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		slow := func(o *Options) {
			withJobs(o)
			o.Streams[0].Source = late{c.source("pods")}
		}
		c.write(kwatch.Added, job("j", "J", 0))
		x := onto(t, newRecord(), c, slow)
		passing(10 * time.Second)
		c.write(kwatch.Modified, job("j", "J", 0, with(batchv1.JobSuspended, corev1.ConditionTrue)))
		passing(time.Second)
		c.write(kwatch.Added, pod("p", "u1", 0, "Running", ownedBy("j", "J")))
		passing(10 * time.Second)
		c.restore(1)
		passing(time.Minute)
		wantTold(t, x.log, "J", "J 1 >Queued late")
	})
}

// TestAConfigurationThatIsTakenBackAtOnceLosesNobody: the agent dies after it
// told of what the selector no longer left out, and before the new definition
// of the stream is durable. Then the selector comes back, and the log says to
// go on as if it had never been away.
func TestAConfigurationThatIsTakenBackAtOnceLosesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, selecting)
		c.write(kwatch.Added, pod("a", "u1", 0, "Pending"))
		c.write(kwatch.Added, pod("b", "u2", 0, "Pending", labelled))
		passing(2 * time.Second)
		x = x.again(t, c, nil) // u1 is told
		x = x.killed(t, c, selecting)
		passing(10 * time.Second)
		wantTold(t, x.log, "u1", "u1 1 >Queued late", "u1 2 Queued>Untracked NotSelected late", "u1 gone")
	})
}

// TestAnEndThatTheSelectorLeftOutIsNotToldAgain when the selector goes: only
// the log remembers it.
func TestAnEndThatTheSelectorLeftOutIsNotToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, selecting)
		c.write(kwatch.Added, pod("a", "u1", 0, "Pending", labelled))
		c.write(kwatch.Modified, pod("a", "u1", 0, "Failed", labelled))
		c.write(kwatch.Modified, pod("a", "u1", 0, "Failed"))
		passing(2 * graveTime)
		x = x.again(t, c, nil)
		passing(2 * time.Second)
		if got := x.log.told("u1"); len(got) != 3 {
			t.Errorf("told %q, want Queued, Failed, and gone", got)
		}
	})
}
