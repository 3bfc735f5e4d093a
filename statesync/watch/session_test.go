package watch

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/statesync/workload"
)

func TestTheWatchGoesOnFromWhatTheLogRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newCluster(), newRecord()
		c.write(kwatch.Added, pod("a", "u1", 0, "Pending"))
		c.write(kwatch.Added, pod("b", "u2", 0, "Pending"))
		x := onto(t, log, c, nil)
		passing(2 * time.Second)
		x.stop()
		// While it is down: a lives its whole life, b's name goes to another.
		for _, phase := range []corev1.PodPhase{"Running", "Succeeded"} {
			c.write(kwatch.Modified, pod("a", "u1", 0, phase))
		}
		c.write(kwatch.Deleted, pod("a", "u1", 0, "Succeeded"))
		c.write(kwatch.Deleted, pod("b", "u2", 0, "Pending"))
		c.write(kwatch.Added, pod("b", "u3", 0, "Pending"))
		log = log.crash()
		x = onto(t, log, c, nil)
		passing(time.Second)
		wantTold(t, log, "u1", "u1 1 >Queued late", "u1 2 Queued>Running", "u1 3 Running>Succeeded Completed", "u1 gone")
		wantTold(t, log, "u2", "u2 1 >Queued late", "u2 2 Queued>Cancelled Deleted", "u2 gone")
		wantTold(t, log, "u3", "u3 1 >Queued")
		if s := x.w.Streams()[0]; s.Gaps != 0 || s.Mark != 7 || s.Seen.IsZero() {
			t.Errorf("gaps %d, mark %d, seen %s; want none, 7, and the watch to count as a sign of life", s.Gaps, s.Mark, s.Seen)
		}
	})
}

// TestAWatchThatGoesOnIsASignOfLife, though nothing happens; and it is opened
// at once.
func TestAWatchThatGoesOnIsASignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("a", "u1", 0, "Pending"))
		x := onto(t, newRecord(), c, nil)
		passing(2 * time.Second)
		x = x.again(t, c, nil)
		if s := x.w.Streams()[0]; !s.Seen.Equal(time.Now()) || !s.Synced {
			t.Errorf("seen %s, synced %v; want now: the watch is open", s.Seen, s.Synced)
		}
		c.write(kwatch.Modified, pod("a", "u1", 0, "Running"))
		x.want(t, "u1 2 Queued>Running")
	})
}

// TestAFirstListIsTakenUpWhereTheAgentDied: its objects are durable before
// what they cause is, and say so.
func TestAFirstListIsTakenUpWhereTheAgentDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newCluster(), newRecord()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
		c.write(kwatch.Added, pod("b", "u2", 0, "Pending"))
		log.hold = true
		onto(t, log, c, nil)
		log.release(1)  // the list's objects, with its version
		synctest.Wait() // so the changes are handed over
		log.release(1)  // one of them
		c.compact()     // nobody else can tell now
		c.write(kwatch.Deleted, pod("b", "u2", 0, "Pending"))
		told := log.story()
		log.mu.Lock()
		left := 2 - len(log.held)
		log.mu.Unlock()
		if left != 1 {
			t.Fatalf("the log holds %v and %d of 2 entries, want one", told, left)
		}
		log = log.crash()
		log.hold = false
		x := onto(t, log, c, nil)
		passing(time.Second)
		all := strings.Join(log.all(), "; ")
		for _, want := range []string{"u1 1 >Queued", "u1 2 Queued>Running", "u2 1 >Queued", "u2 2 Queued>Cancelled"} {
			if strings.Count(all, want) != 1 {
				t.Errorf("told %q, want %q once", all, want)
			}
		}
		if s := x.w.Streams()[0]; s.Gaps != 0 {
			t.Errorf("%d gaps, want none: the list was kept and what came after it was watched", s.Gaps)
		}
	})
}

// TestTheResumePointComesWithTheLastOfTheObjects: objects go into the log in
// chunks.
func TestTheResumePointComesWithTheLastOfTheObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newCluster(), newRecord()
		const many = 2*flushChunk + 1
		for i := range many {
			c.write(kwatch.Added, pod("p"+strconv.Itoa(i), "u"+strconv.Itoa(i), 0, "Pending"))
		}
		log.hold = true
		onto(t, log, c, nil)
		for chunk := range 3 {
			if len(log.streams) > 0 {
				t.Fatalf("a resume point after %d of 3 chunks", chunk)
			}
			log.release(1)
			synctest.Wait()
		}
		if log.streams["pods"].Version != many || len(log.objects["pods"]) != many {
			t.Errorf("resume point %+v with %d objects, want %d", log.streams["pods"], len(log.objects["pods"]), many)
		}
		log.release(-1)
	})
}

// TestAnObjectIsKeptOnlyWhenAllBeforeItIsDurable: the second event causes
// nothing, and what the first one caused is not durable. Were the object kept
// as of the second, a list after a crash would not tell what the first caused.
func TestAnObjectIsKeptOnlyWhenAllBeforeItIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newCluster(), newRecord()
		c.write(kwatch.Added, pod("a", "u1", 0, "Pending"))
		onto(t, log, c, nil)
		passing(2 * time.Second)
		log.stall(0)
		c.write(kwatch.Modified, pod("a", "u1", 0, "Running"))
		c.write(kwatch.Modified, pod("a", "u1", 0, "Running"))
		passing(3 * time.Second)
		log.mu.Lock()
		for _, e := range log.held {
			if len(e.Objects) > 0 || e.Resume != nil {
				t.Errorf("objects %v and resume point %v are kept", e.Objects, e.Resume)
			}
		}
		log.mu.Unlock()
		log.release(-1)
		passing(2 * time.Second)
		if o := string(log.objects["pods"]["u1"].Body); log.streams["pods"].Version != 3 || !strings.Contains(o, `"rv":3`) {
			t.Errorf("the log keeps %s at %+v, want version 3 of both", o, log.streams["pods"])
		}
	})
}

func TestTheMarkWaitsForTheGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil, pod("a", "u1", 50, "Pending"))
		passing(2 * time.Second)
		x.log.stall(0)
		x.pods.relist("200", pod("a", "u1", 50, "Pending"))
		passing(10 * time.Second)
		if s := x.w.Streams()[0]; s.Mark != 100 || s.LastGap == nil {
			t.Errorf("mark %d with a gap that is not durable, want 100", s.Mark)
		}
		x.log.release(-1)
		synctest.Wait()
		if s := x.w.Streams()[0]; s.Mark != 200 {
			t.Errorf("mark %d, want 200", s.Mark)
		}
		x.want(t, "u1 1 >Queued late", "pods gap 1 Expired 100-200")
	})
}

// TestAGapIsToldOnce: the agent dies after the gap is durable, and before what
// the list caused is.
func TestAGapIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newCluster(), newRecord()
		c.write(kwatch.Added, pod("a", "u1", 0, "Pending"))
		x := onto(t, log, c, nil)
		passing(2 * time.Second)
		x.stop()
		c.write(kwatch.Modified, pod("a", "u1", 0, "Running"))
		c.compact()
		log = log.crash()
		log.hold = true
		x = onto(t, log, c, nil)
		passing(10 * time.Second)
		log.release(1)
		log.die()
		x.stop()
		log = log.crash()
		log.dead, log.hold = false, false
		x = onto(t, log, c, nil)
		passing(10 * time.Second)
		x.want(t, "u1 2 Queued>Running late")
		if got := log.all(); !slices.Contains(got, "pods gap 1 Expired 1-2") || len(got) != 3 {
			t.Errorf("told %q, want one gap, and u1 queued and running", got)
		}
	})
}

// TestALifeThatIsOverIsRemembered until no event of it can come any more.
func TestALifeThatIsOverIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newCluster(), newRecord()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
		c.write(kwatch.Added, pod("b", "u2", 0, "Running"))
		x := onto(t, log, c, nil)
		passing(2 * time.Second)
		c.write(kwatch.Deleted, pod("a", "u1", 0, "Running"))
		passing(graveTime - 2*time.Second)
		if n := x.lives(); n != 2 {
			t.Errorf("%d lives within a minute of the end, want 2", n)
		}
		passing(4 * time.Second)
		if n := x.lives(); n != 1 {
			t.Errorf("%d lives a minute after the end, want 1", n)
		}
		log.stall(0) // the resume point stays where it is
		c.write(kwatch.Deleted, pod("b", "u2", 0, "Running"))
		passing(2 * graveTime)
		if n := x.lives(); n != 1 {
			t.Errorf("%d lives while the removal is not behind the resume point, want 1", n)
		}
		log.release(-1)
		passing(3 * time.Second)
		if n := x.lives(); n != 0 {
			t.Errorf("%d lives, want none", n)
		}
	})
}

func TestWhatTheConfigurationLeavesOutIsUntracked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newCluster(), newRecord()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running", in("one")))
		c.write(kwatch.Added, pod("b", "u2", 0, "Running", in("two")))
		x := onto(t, log, c, inNamespaces("one", "two"))
		passing(2 * time.Second)
		x.stop()
		log = log.crash()
		x = onto(t, log, c, inNamespaces("one"))
		passing(2 * time.Second)
		x.want(t, "u2 3 Running>Untracked NotSelected late", "u2 gone")
		if len(log.streams) != 1 || len(log.objects["pods/two"]) != 0 {
			t.Errorf("the log still has streams %v and objects %v", log.streams, log.objects["pods/two"])
		}
		x.stop()
		log = log.crash()
		x = onto(t, log, c, inNamespaces("one", "two"))
		passing(2 * time.Second)
		x.want(t, "u2 4 Untracked>Running late")
	})
}

// TestWhatTheSelectorLeavesOutIsUntracked: what a stream with a selector is
// told to be gone may live on, which a question tells.
func TestWhatTheSelectorLeavesOutIsUntracked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, selecting)
		c.write(kwatch.Added, pod("a", "u1", 0, "Running", labelled))
		c.write(kwatch.Added, pod("b", "u2", 0, "Running", labelled))
		c.write(kwatch.Deleted, pod("b", "u2", 0, "Running", labelled))
		c.write(kwatch.Modified, pod("a", "u1", 0, "Running")) // the watch says DELETED, and it is there
		passing(time.Second)
		got := x.log.all()
		for _, want := range []string{"u2 3 Running>Cancelled Deleted", "u1 3 Running>Untracked NotSelected"} {
			if !slices.Contains(got, want) {
				t.Errorf("told %q, want %q", got, want)
			}
		}
	})
}

func TestASelectorThatChangesLeavesAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newCluster(), newRecord()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
		x := onto(t, log, c, func(o *Options) { o.Streams[0].Selector = "app=x" })
		passing(2 * time.Second)
		x.stop()
		log = log.crash()
		x = onto(t, log, c, func(o *Options) {
			o.Streams[0].Selector = "app=y"
			o.Streams[0].Source = c.source("pods").within("none")
		})
		passing(2 * time.Second)
		x.want(t, "pods gap 1 Redefined 1-1", "u1 3 Running>Untracked NotSelected late", "u1 gone")
		if got := log.streams["pods"].Definition; got != "app=y" {
			t.Errorf("the log has the definition %q, want that of app=y", got)
		}
	})
}

// TestAKindThatIsTrackedNoMore: its stream goes on for the sake of others.
func TestAKindThatIsTrackedNoMore(t *testing.T) {
	tracking := func(c *cluster, kinds ...string) func(*Options) {
		return func(o *Options) {
			o.Streams = []Stream{
				{Kind: workload.Kinds["Pod"], Source: c.source("pods"), FoldOnly: !slices.Contains(kinds, "Pod")},
				{Kind: workload.Kinds["Job"], Source: c.source("jobs")},
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		c, log := newCluster(), newRecord()
		c.write(kwatch.Added, job("j", "J", 0))
		c.write(kwatch.Added, pod("of-j", "u1", 0, "Running", ownedBy("j", "J")))
		c.write(kwatch.Added, pod("a", "u2", 0, "Running"))
		x := onto(t, log, c, tracking(c, "Job", "Pod"))
		passing(2 * time.Second)
		x.stop()
		log = log.crash()
		x = onto(t, log, c, tracking(c, "Job"))
		passing(2 * time.Second)
		x.want(t, "u2 3 Running>Untracked NotSelected late", "u2 gone", "pods gap 1 Redefined 3-3")
		x.stop()
		log = log.crash()
		c.write(kwatch.Added, pod("b", "u3", 0, "Pending"))
		x = onto(t, log, c, tracking(c, "Job", "Pod"))
		passing(2 * time.Second)
		got := x.log.story()
		slices.Sort(got)
		want := []string{"pods gap 2 Redefined 3-4", "u2 4 Untracked>Running late", "u3 1 >Queued late"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("story (-want +got)\n%s", diff)
		}
	})
}

// TestALogThatBeginsAnewIsLoadedAgain: the log lost everything but says so.
func TestALogThatBeginsAnewIsLoadedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newCluster(), newRecord()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
		x := onto(t, log, c, nil)
		passing(2 * time.Second)
		log.beginAnew(func(name string) bool { return name != "pods" })
		passing(2 * time.Second)
		c.write(kwatch.Modified, pod("a", "u1", 0, "Succeeded"))
		passing(2 * time.Second)
		x.want(t, "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late",
			"pods gap 1 LedgerLost 0-1", "u1 3 Running>Succeeded Completed")
		if c := x.log.durable(); c[len(c)-1].Resume == nil && x.log.streams["pods"].Version != 2 {
			t.Errorf("resume point %+v, want version 2", x.log.streams["pods"])
		}
	})
}

// TestALogThatBeginsAnewTwiceLeavesTwoGaps, though of the same versions.
func TestALogThatBeginsAnewTwiceLeavesTwoGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
		x := onto(t, newRecord(), c, nil)
		for range 2 {
			passing(2 * time.Second)
			x.log.beginAnew(func(name string) bool { return name != "pods" })
		}
		passing(2 * time.Second)
		wantTold(t, x.log, "pods", "pods gap 1 LedgerLost 0-1", "pods gap 2 LedgerLost 0-1")
	})
}

func TestObjectsThatTheLogHasGarbledAreListedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, log := newCluster(), newRecord()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
		x := onto(t, log, c, nil)
		passing(2 * time.Second)
		x.stop()
		log = log.crash()
		o := log.objects["pods"]["u1"]
		o.Body = []byte("{")
		log.objects["pods"]["u1"] = o
		x = onto(t, log, c, nil)
		passing(2 * time.Second)
		x.want(t, "pods gap 1 LedgerLost 1-1")
	})
}

// TestTheMarkWaitsForACorrection, and does not move to where the corrected
// object is: other events may come before that.
func TestTheMarkWaitsForACorrection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, job("j", "J", 0))
		c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
		x := onto(t, newRecord(), c, nil)
		passing(2 * time.Second)
		x.log.stall(0)
		s := x.w.streams[0]
		newer := pod("a", "u1", 9, "Succeeded")
		if err := s.correct(t.Context(), asked{c.source("pods"), newer}, difference{"changed", "load", "a", "u1", s.objects["load/a"]}, 2); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := x.w.Streams()[0]; got.Mark != 2 || got.Pending != 1 {
			t.Errorf("mark %d with %d pending, want 2 with the correction", got.Mark, got.Pending)
		}
		x.log.release(-1)
		x.want(t, "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late", "u1 3 Running>Succeeded Completed late")
	})
}

// TestAnAuditLooksOnlyAtWhatTheStreamHolds: one that is read for the sake of
// others holds only their pods.
func TestAnAuditLooksOnlyAtWhatTheStreamHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
		c.write(kwatch.Added, job("j", "J", 0))
		c.write(kwatch.Added, pod("of-j", "u2", 0, "Running", ownedBy("j", "J")))
		x := onto(t, newRecord(), c, func(o *Options) {
			withJobs(o)
			o.Streams[0].FoldOnly, o.Audit = true, 10*time.Second
		})
		passing(time.Minute)
		if s := x.w.Streams()[0]; s.Audits < 3 || len(s.Corrections) > 0 || s.Objects != 1 {
			t.Errorf("%d audits of %d objects with corrections %v, want some, of one, with none", s.Audits, s.Objects, s.Corrections)
		}
	})
}

// asked is a collection that answers questions with an object, or that it is
// not there: as it was when it was asked.
type asked struct {
	*collection
	object runtime.Object
}

func (a asked) Object(context.Context, string, string) (runtime.Object, error) {
	if a.object == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("pods"), "a")
	}
	return a.object, nil
}

// TestAnAuditThatIsOvertakenCorrectsNothing: the entry changes between the
// comparison and the answer.
func TestAnAuditThatIsOvertakenCorrectsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
		x := onto(t, newRecord(), c, nil)
		passing(2 * time.Second)
		s := x.w.streams[0]
		correct := func(d difference, answer runtime.Object) {
			t.Helper()
			before := len(x.log.story())
			if err := s.correct(t.Context(), asked{c.source("pods"), answer}, d, 1); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if told, corrections := x.log.story()[before:], x.w.Streams()[0].Corrections; len(told)+len(corrections) > 0 {
				t.Errorf("%v: told %q with corrections %v, want none", d, told, corrections)
			}
		}
		entry := s.objects["load/a"]
		other := *entry
		newer := pod("a", "u1", 5, "Succeeded")
		correct(difference{"changed", "load", "a", "u1", &other}, newer) // the watch has told since
		correct(difference{"deleted", "load", "a", "u1", &other}, nil)
		correct(difference{"changed", "load", "a", "u1", entry}, pod("a", "u1", 1, "Running")) // it does not differ
		correct(difference{"added", "load", "b", "u2", nil}, nil)                              // it has gone
		correct(difference{"added", "load", "a", "u0", nil}, newer)
		x.log.stall(1)
		for range 2 { // the worker waits with the second
			c.write(kwatch.Modified, pod("a", "u1", 0, "Running"))
		}
		c.write(kwatch.Deleted, pod("a", "u1", 0, "Running"))
		synctest.Wait()
		correct(difference{"added", "load", "a", "u1", nil}, newer) // its removal waits for its worker
		x.log.release(-1)
		synctest.Wait()
		correct(difference{"added", "load", "a", "u1", nil}, newer) // it is over
	})
}

func TestAnAuditCorrectsWhatTheWatchWasNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.page = 1
		c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
		c.write(kwatch.Added, pod("b", "u2", 0, "Running"))
		x := onto(t, newRecord(), c, func(o *Options) { o.Audit = 10 * time.Second })
		passing(2 * time.Second)
		x.log.stall(0)
		c.write(kwatch.Modified, pod("b", "u2", 0, "Running"))
		c.lose = func(happening) bool { return true }
		c.write(kwatch.Modified, pod("a", "u1", 0, "Succeeded"))
		c.write(kwatch.Deleted, pod("b", "u2", 0, "Running"))
		c.write(kwatch.Added, pod("c", "u3", 0, "Pending"))
		c.bookmark()
		passing(time.Minute)
		if s := x.w.Streams()[0]; s.Audits > 1 || len(s.Corrections) > 0 {
			t.Errorf("%d audits with corrections %v, want none: the mark is not where the list is", s.Audits, s.Corrections)
		}
		x.log.release(-1)
		passing(20 * time.Second)
		wantTold(t, x.log, "u1", "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late", "u1 3 Running>Succeeded Completed late")
		wantTold(t, x.log, "u2", "u2 1 >Queued reconstructed late", "u2 2 Queued>Running late", "u2 3 Running>Cancelled Deleted late", "u2 gone")
		wantTold(t, x.log, "u3", "u3 1 >Queued late")
		want := map[string]int64{"added": 1, "changed": 1, "deleted": 1}
		if diff := cmp.Diff(want, x.w.Streams()[0].Corrections); diff != "" {
			t.Errorf("corrections (-want +got)\n%s", diff)
		}
	})
}
