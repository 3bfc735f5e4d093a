package watch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/statesync"
)

func TestEveryStateIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		x.pods.send(kwatch.Added, pod("a", "u1", 101, "Pending"))
		x.pods.send(kwatch.Modified, pod("a", "u1", 102, "Pending"))
		x.pods.send(kwatch.Modified, pod("a", "u1", 103, "Running"))
		x.pods.send(kwatch.Modified, pod("a", "u1", 104, "Succeeded"))
		x.pods.send(kwatch.Deleted, pod("a", "u1", 105, "Succeeded"))
		x.want(t, "u1 1 >Queued", "u1 2 Queued>Running", "u1 3 Running>Succeeded Completed", "u1 gone")
	})
}

func TestTheFirstListIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil, pod("a", "u1", 50, "Running"))
		x.want(t, "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late")
	})
}

func TestARelistTellsWhatWasMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil, pod("a", "u1", 50, "Pending"), pod("b", "u2", 51, "Pending"), pod("c", "u3", 52, "Pending"))
		synctest.Wait()
		x.log.mu.Lock()
		x.log.entries = nil
		x.log.mu.Unlock()
		// a ran, b is gone, c is another one by the same name.
		x.pods.relist("200", pod("a", "u1", 150, "Running"), pod("c", "u4", 151, "Pending"))
		time.Sleep(10 * time.Second) // the reflector's back-off, in synthetic time
		synctest.Wait()
		got := x.log.story()
		for _, want := range []string{
			"u1 2 Queued>Running late", "u2 2 Queued>Cancelled Deleted late", "u3 2 Queued>Cancelled Deleted late", "u4 1 >Queued late",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("no %q in %q", want, got)
			}
		}
		if slices.Index(got, "u3 2 Queued>Cancelled Deleted late") > slices.Index(got, "u4 1 >Queued late") {
			t.Errorf("the new life of c was told before the end of the old one: %q", got)
		}
	})
}

func TestAnotherLifeOnTheLiveWatchEndsTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		x.pods.send(kwatch.Added, pod("a", "u1", 101, "Running"))
		x.pods.send(kwatch.Added, pod("a", "u2", 105, "Pending"))
		x.want(t, "u1 1 >Queued reconstructed", "u1 2 Queued>Running",
			"u1 3 Running>Cancelled Deleted late", "u1 gone", "u2 1 >Queued")
	})
}

func TestWhatTheLogKnowsIsNotToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := func(uid, name string, state statesync.State) statesync.Row {
			return statesync.Row{Ref: statesync.Ref{Kind: "Pod", Namespace: "load", Name: name, UID: uid}, State: state, Epoch: 1, Seq: 2, ResourceVersion: 40}
		}
		x := start(t, func(o *Options) {
			o.Log = newRecord(known("u1", "a", statesync.Running), known("u2", "b", statesync.Running),
				known("u3", "c", statesync.Succeeded), known("u4", "d", statesync.Queued))
		}, pod("a", "u1", 50, "Running"), pod("c", "u3", 51, "Succeeded"), pod("d", "u4", 52, "Running"))
		synctest.Wait()
		got := strings.Join(slices.Sorted(slices.Values(x.log.story())), "; ")
		// a is where it was, b went while nobody looked, c had ended, d moved on.
		want := "pods gap 1 Redefined 0-100; u2 3 Running>Cancelled Deleted late; u2 gone; u4 3 Queued>Running late"
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestAnEventAtOrBelowTheLastChangeTellsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, func(o *Options) {
			o.Reasons = true
			o.Log = newRecord(statesync.Row{
				Ref:   statesync.Ref{Kind: "Pod", Namespace: "load", Name: "a", UID: "u1"},
				State: statesync.Queued, Reason: "ImagePullBackOff", Epoch: 1, Seq: 3, ResourceVersion: 60,
			})
		}, pod("a", "u1", 55, "Pending"))
		gap := "pods gap 1 Redefined 0-100"
		x.want(t, gap)
		x.pods.send(kwatch.Modified, pod("a", "u1", 60, "Pending"))
		x.want(t, gap)
		x.pods.send(kwatch.Modified, pod("a", "u1", 101, "Pending"))
		x.want(t, gap, "u1 4 Queued>Queued")
	})
}

func TestPodsFoldIntoTheirJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		owned := ownedBy("j", "J")
		x.jobs.send(kwatch.Added, job("j", "J", 101))
		synctest.Wait()
		x.pods.send(kwatch.Added, pod("j-1", "P", 102, "Pending", owned))
		x.pods.send(kwatch.Modified, pod("j-1", "P", 103, "Running", owned))
		synctest.Wait()
		x.pods.send(kwatch.Modified, pod("j-1", "P", 104, "Succeeded", owned))
		x.jobs.send(kwatch.Modified, job("j", "J", 105, with(batchv1.JobComplete, corev1.ConditionTrue)))
		synctest.Wait()
		x.pods.send(kwatch.Deleted, pod("j-1", "P", 106, "Succeeded", owned))
		x.jobs.send(kwatch.Deleted, job("j", "J", 107, with(batchv1.JobComplete, corev1.ConditionTrue)))
		x.want(t, "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Succeeded Completed", "J gone")
	})
}

func TestAPodThatRunsBeforeItsJobIsSeenMovesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		x.pods.send(kwatch.Added, pod("j-1", "P", 103, "Running", ownedBy("j", "J")))
		synctest.Wait()
		x.want(t)
		x.jobs.send(kwatch.Added, job("j", "J", 101))
		x.want(t, "J 1 >Queued", "J 2 Queued>Running")
	})
}

func TestASuspendedJobIsQueuedUntilItRunsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		owned := ownedBy("j", "J")
		x.jobs.send(kwatch.Added, job("j", "J", 101))
		synctest.Wait()
		x.pods.send(kwatch.Added, pod("j-1", "P1", 102, "Running", owned))
		synctest.Wait()
		x.jobs.send(kwatch.Modified, job("j", "J", 103, with(batchv1.JobSuspended, corev1.ConditionTrue)))
		synctest.Wait()
		x.pods.send(kwatch.Modified, pod("j-1", "P1", 104, "Running", owned)) // still on its way out
		x.pods.send(kwatch.Deleted, pod("j-1", "P1", 105, "Failed", owned))
		synctest.Wait()
		x.jobs.send(kwatch.Modified, job("j", "J", 106, with(batchv1.JobSuspended, corev1.ConditionFalse)))
		synctest.Wait()
		x.pods.send(kwatch.Added, pod("j-2", "P2", 107, "Running", owned))
		x.want(t, "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Queued Suspended", "J 4 Queued>Running")
	})
}

func TestAPodOfTheRunBeforeDoesNotResumeAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		owned := ownedBy("j", "J")
		created := func(second int64) func(*corev1.Pod) {
			return func(p *corev1.Pod) { p.CreationTimestamp = metav1.Unix(1_800_000_000+second, 0) }
		}
		begun := func(second int64) func(*batchv1.Job) {
			return func(j *batchv1.Job) { j.Status.StartTime = new(metav1.Unix(1_800_000_000+second, 0)) }
		}
		x.jobs.send(kwatch.Added, job("j", "J", 101, begun(1)))
		synctest.Wait()
		x.pods.send(kwatch.Added, pod("j-1", "P1", 102, "Running", owned, created(1)))
		synctest.Wait()
		// The stream of pods falls behind: the old pod looks as if it ran on.
		x.jobs.send(kwatch.Modified, job("j", "J", 103, with(batchv1.JobSuspended, corev1.ConditionTrue), func(j *batchv1.Job) {
			j.Status.Conditions[0].LastTransitionTime = metav1.Unix(1_800_000_000+30, 0)
		}))
		x.jobs.send(kwatch.Modified, job("j", "J", 106, with(batchv1.JobSuspended, corev1.ConditionFalse), begun(60)))
		x.want(t, "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Queued Suspended")
		x.pods.send(kwatch.Added, pod("j-2", "P2", 107, "Running", owned, created(59)))
		x.want(t, "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Queued Suspended", "J 4 Queued>Running")
	})
}

func TestAPodThatIsAdoptedKeepsItsStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		owned := ownedBy("j", "J")
		x.jobs.send(kwatch.Added, job("j", "J", 101))
		x.pods.send(kwatch.Added, pod("p", "P", 102, "Running"))
		x.pods.send(kwatch.Modified, pod("p", "P", 103, "Running", owned))
		x.pods.send(kwatch.Modified, pod("p", "P", 104, "Succeeded", owned))
		x.pods.send(kwatch.Deleted, pod("p", "P", 105, "Succeeded", owned))
		synctest.Wait()
		got := slices.DeleteFunc(x.log.story(), func(s string) bool { return s[0] != 'P' })
		want := []string{"P 1 >Queued reconstructed", "P 2 Queued>Running", "P 3 Running>Succeeded Completed", "P gone"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("story of the pod (-want +got)\n%s", diff)
		}
	})
}

func TestAnOrphanLeavesTheIndexOfItsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		x.pods.send(kwatch.Added, pod("p", "P", 102, "Running", ownedBy("j", "J")))
		x.pods.send(kwatch.Modified, pod("p", "P", 103, "Running"))
		x.want(t, "P 1 >Queued reconstructed", "P 2 Queued>Running")
		x.w.mu.Lock()
		defer x.w.mu.Unlock()
		if len(x.w.within) != 0 {
			t.Errorf("by controller: %v, want none", x.w.within)
		}
	})
}

func TestTheGateHoldsTheWatchAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, func(o *Options) { o.MaxPending = 10 })
		x.log.stall(0)
		for i := range 10 {
			x.pods.send(kwatch.Added, pod(fmt.Sprintf("p%d", i), fmt.Sprintf("u%d", i), 101+i, "Pending"))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := x.w.Streams()[0]; !s.Held || s.Pending != 10 {
			t.Errorf("stream held: %v with %d pending, want held with 10", s.Held, s.Pending)
		}
		if got := x.pods.watches(); len(got) != 1 {
			t.Errorf("watches opened: %q, want only the first while the gate is closed", got)
		}
		x.log.release(-1)
		synctest.Wait()
		if s := x.w.Streams()[0]; s.Held || !s.Seen.Equal(time.Now()) {
			t.Errorf("held: %v, seen %s; want it to go on, and now: it could not be heard while it was held", s.Held, s.Seen)
		}
		if got := x.pods.watches(); len(got) != 2 || got[1] != "110" {
			t.Fatalf("watches of pods: %q, want a second from 110, and no list", got)
		}
		if got := x.jobs.watches(); len(got) != 2 || got[1] != "100" {
			t.Fatalf("watches of jobs: %q, want a second from 100, and no list", got)
		}
		x.pods.send(kwatch.Added, pod("late", "u10", 111, "Pending"))
		synctest.Wait()
		if got := x.log.story(); len(got) != 11 {
			t.Errorf("%d changes, want 11: %q", len(got), got)
		}
	})
}

// TestAListIsTakenInThoughTheGateCloses, and the watch that follows it waits.
func TestAListIsTakenInThoughTheGateCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, func(o *Options) { o.MaxPending = 2 })
		passing(2 * time.Second)
		x.log.stall(0)
		x.pods.relist("200", pod("a", "u1", 150, "Pending"), pod("b", "u2", 151, "Pending"), pod("c", "u3", 152, "Pending"))
		passing(10 * time.Second)
		if s := x.w.Streams()[0]; !s.Held || s.Pending != 3 {
			t.Errorf("held: %v with %d pending, want held with 3", s.Held, s.Pending)
		}
		if got, want := x.pods.watches(), []string{"list", "list"}; !slices.Equal(got, want) {
			t.Errorf("watches opened: %q, want %q: the next one waits", got, want)
		}
		x.log.release(-1)
		synctest.Wait()
		if got, want := x.pods.watches(), []string{"list", "list", "200"}; !slices.Equal(got, want) {
			t.Errorf("watches opened: %q, want %q", got, want)
		}
	})
}

func TestReasonsAloneAreToldWhenAskedFor(t *testing.T) {
	for _, asked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			x := start(t, func(o *Options) { o.Reasons = asked })
			x.pods.send(kwatch.Added, pod("a", "u1", 101, "Pending"))
			x.pods.send(kwatch.Modified, pod("a", "u1", 102, "Pending", func(p *corev1.Pod) {
				p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}}}
			}))
			want := []string{"u1 1 >Queued"}
			if asked {
				want = append(want, "u1 2 Queued>Queued ErrImagePull")
			}
			x.want(t, want...)
		})
	}
}

func TestAStreamThatFailsSaysSoAndDeletesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil, pod("a", "u1", 50, "Pending"))
		x.pods.mu.Lock()
		x.pods.fail = apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("no"))
		x.pods.current <- kwatch.Event{Type: kwatch.Error, Object: &apierrors.NewResourceExpired("x").ErrStatus}
		x.pods.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		s := x.w.Streams()[0]
		x.pods.mu.Lock()
		if s.Failure == nil || s.Failures < 10 || s.Failures != x.pods.refused || s.Objects != 1 {
			t.Errorf("failure %v after %d failures of %d refused calls with %d objects, want each of ten and more, and the object", s.Failure, s.Failures, x.pods.refused, s.Objects)
		}
		x.pods.fail, x.pods.version = nil, "200"
		x.pods.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := x.w.Streams()[0]; s.Failure != nil || s.Mark != 200 {
			t.Errorf("failure %v, mark %d; want none and 200", s.Failure, s.Mark)
		}
		x.want(t, "u1 1 >Queued late", "pods gap 1 Expired 100-200")
	})
}

func TestAWatchThatBreaksGoesOnWhereItWas(t *testing.T) {
	broken := kwatch.Event{Type: kwatch.Error, Object: &apierrors.NewInternalError(errors.New("http2: client connection lost")).ErrStatus}
	for name, end := range map[string]func(*source){
		"a lost connection":                  func(s *source) { s.current <- broken },
		"a quiet watch that the server ends": func(s *source) { close(s.current) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := start(t, nil)
				for range 3 {
					x.pods.mu.Lock()
					end(x.pods)
					x.pods.mu.Unlock()
					time.Sleep(10 * time.Second)
					synctest.Wait()
				}
				if got, want := x.pods.watches(), []string{"list", "100", "100", "100"}; !slices.Equal(got, want) {
					t.Errorf("watches opened: %q, want %q", got, want)
				}
			})
		})
	}
}

func TestAServerThatEndsEveryWatchAtOnceIsNotStormed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		x.pods.mu.Lock()
		x.pods.hasty = true
		close(x.pods.current)
		x.pods.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(x.pods.watches()); n < 5 || n > 30 {
			t.Errorf("%d watches in a minute, want 5 to 30", n)
		}
	})
}

func TestAServerThatRefusesIsWaitedForWithAnEyeOnTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		x.pods.mu.Lock()
		x.pods.fail = apierrors.NewTooManyRequests("later", 1)
		close(x.pods.current)
		x.pods.mu.Unlock()
		time.Sleep(time.Minute) // the back-off has grown
		began := time.Now()
		x.stop()
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("took %s to stop, want an instant", took)
		}
	})
}

func TestTheMarkWaitsForAllOfAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil, pod("a", "u1", 50, "Pending"), pod("b", "u2", 60, "Pending"))
		x.log.stall(0)
		x.pods.relist("200", pod("a", "u1", 150, "Running"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := x.w.Streams()[0]; s.Mark != 100 || s.Pending != 2 {
			t.Errorf("mark %d with %d pending, want 100 with 2: the list at 200 is not durable", s.Mark, s.Pending)
		}
		x.log.release(-1)
		synctest.Wait()
		if s := x.w.Streams()[0]; s.Mark != 200 {
			t.Errorf("mark %d, want 200", s.Mark)
		}
	})
}

func TestAnEventThatCannotBeReadIsCountedAndListedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		bad := pod("a", "u1", 101, "Pending")
		bad.ResourceVersion = "soon"
		x.pods.mu.Lock()
		x.pods.objects, x.pods.version = []runtime.Object{pod("a", "u1", 102, "Running")}, "102"
		x.pods.mu.Unlock()
		x.pods.send(kwatch.Added, bad)
		time.Sleep(10 * time.Second)
		x.want(t, "pods gap 1 Expired 100-102", "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late")
		for _, p := range x.reg.Pipelines() {
			if p.Target == "pods" && p.Dropped["unreadable"] != 1 {
				t.Errorf("dropped %v, want one unreadable", p.Dropped)
			}
		}
	})
}

func TestAnObjectThatCannotBeReadInAListIsNotDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil, pod("a", "u1", 50, "Running"))
		bad := pod("a", "u1", 150, "Running")
		bad.ResourceVersion = "soon"
		x.pods.mu.Lock()
		w := x.w.streams[0]
		x.pods.mu.Unlock()
		if err := w.Replace([]any{bad}, "200"); err != nil {
			t.Fatal(err)
		}
		x.want(t, "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late", "pods gap 1 Expired 100-200")
	})
}

func TestBookmarksKeepAStreamFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		time.Sleep(time.Minute)
		x.pods.send(kwatch.Bookmark, bookmark(&corev1.Pod{}, "500", false))
		synctest.Wait()
		if s := x.w.Streams()[0]; !s.Seen.Equal(time.Now()) || s.Mark != 500 {
			t.Errorf("seen %s, mark %d; want now, 500", s.Seen, s.Mark)
		}
	})
}
