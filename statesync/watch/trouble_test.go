package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
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

// TestAServerThatFailsLosesNothing: while it fails, a pod comes and goes, of
// which a list would know nothing.
func TestAServerThatFailsLosesNothing(t *testing.T) {
	pods := corev1.Resource("pods")
	for name, err := range map[string]error{
		"it is starting":          apierrors.NewServiceUnavailable("starting"),
		"it has a bug":            apierrors.NewInternalError(errors.New("etcdserver: no leader")),
		"it takes too long":       apierrors.NewTimeoutError("too long", 1),
		"it gives up":             apierrors.NewServerTimeout(pods, "list", 1),
		"it has too much to do":   apierrors.NewTooManyRequests("later", 1),
		"it forbids":              apierrors.NewForbidden(pods, "", errors.New("no such role")),
		"it does not know us":     apierrors.NewUnauthorized("the token has expired"),
		"it does not know pods":   apierrors.NewNotFound(pods, ""),
		"it hangs up":             fmt.Errorf("get: %w", io.EOF),
		"it hangs up halfway":     io.ErrUnexpectedEOF,
		"it is not there":         &netError{syscall.ECONNREFUSED},
		"it does not answer":      fmt.Errorf("get: %w", context.DeadlineExceeded),
		"it is lost on the route": &netError{syscall.EHOSTUNREACH},
	} {
		for _, call := range []string{"list", "watch", "any call"} {
			t.Run(name+" to "+call, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCluster()
					c.write(kwatch.Added, pod("a", "u1", 0, "Pending"))
					x := onto(t, newRecord(), c, nil)
					passing(2 * time.Second)
					c.failing(func(now string) error {
						if now == call || call == "any call" {
							return err
						}
						return nil
					})
					c.cut()
					c.write(kwatch.Added, pod("b", "u2", 0, "Running"))
					c.write(kwatch.Deleted, pod("b", "u2", 0, "Running"))
					passing(20 * time.Second)
					if s := x.w.Streams()[0]; !errors.Is(s.Failure, err) || s.Failures < 2 || s.Failures > 30 || s.Seen.IsZero() {
						t.Errorf("failure %v after %d failures in 20 s, want %v after 2 to 30", s.Failure, s.Failures, err)
					}
					c.failing(nil)
					passing(10 * time.Second)
					x.want(t, "u1 1 >Queued late", "u2 1 >Queued reconstructed", "u2 2 Queued>Running",
						"u2 3 Running>Cancelled Deleted", "u2 gone")
					if s := x.w.Streams()[0]; s.Gaps != 0 || s.Failure != nil || s.Mark != 3 {
						t.Errorf("%d gaps, failure %v, mark %d; want none and 3: the history was there", s.Gaps, s.Failure, s.Mark)
					}
				})
			})
		}
	}
}

// TestAVersionThatIsTooOldIsListed: to open a watch from it again would fail
// for ever.
func TestAVersionThatIsTooOldIsListed(t *testing.T) {
	gone := &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonGone}
	for _, err := range []error{apierrors.NewResourceExpired("too old"), apierrors.FromObject(gone)} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster()
			c.write(kwatch.Added, pod("a", "u1", 0, "Pending"))
			x := onto(t, newRecord(), c, nil)
			passing(2 * time.Second)
			tries := 0
			c.failing(func(call string) error {
				if tries++; call == "watch" && tries < 4 {
					return err
				}
				return nil
			})
			c.cut()
			c.write(kwatch.Modified, pod("a", "u1", 0, "Running"))
			passing(20 * time.Second)
			wantTold(t, x.log, "pods", "pods gap 1 Expired 1-2")
			wantTold(t, x.log, "u1", "u1 1 >Queued late", "u1 2 Queued>Running late")
		})
	}
}

// netError is what a call ends with that did not reach the server.
type netError struct{ syscall.Errno }

func (e *netError) Unwrap() error { return e.Errno }

func TestAServerThatFailsBeforeTheFirstListIsListedLater(t *testing.T) {
	for name, err := range map[string]error{
		"it is starting":      apierrors.NewServiceUnavailable("starting"),
		"it forbids":          apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("no such role")),
		"it streams no lists": apierrors.NewBadRequest("sendInitialEvents is forbidden"),
		"it is not there":     &netError{syscall.ECONNREFUSED},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
				c.failing(func(string) error { return err })
				x := onto(t, newRecord(), c, nil)
				passing(10 * time.Second)
				if s := x.w.Streams()[0]; s.Synced || s.Failures == 0 {
					t.Errorf("synced %v after %d failures, want not yet", s.Synced, s.Failures)
				}
				c.failing(nil)
				passing(10 * time.Second)
				x.want(t, "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late")
			})
		})
	}
}

// TestAForbiddenQuestionKeepsNoWorkerBusy: without an answer the object may
// well live on, and others have stories to tell.
func TestAForbiddenQuestionKeepsNoWorkerBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.failing(func(call string) error {
			if !strings.HasPrefix(call, "get") {
				return nil
			}
			return apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("no such role"))
		})
		x := onto(t, newRecord(), c, selecting)
		for i := range 3 { // there are two workers
			n := strconv.Itoa(i)
			c.write(kwatch.Added, pod("a"+n, "u"+n, 0, "Running", labelled))
			c.write(kwatch.Deleted, pod("a"+n, "u"+n, 0, "Running", labelled))
		}
		c.write(kwatch.Added, pod("b", "v", 0, "Pending", labelled))
		passing(time.Second)
		for _, want := range []string{"u0 3 Running>Untracked NotSelected", "u2 3 Running>Untracked NotSelected", "v 1 >Queued"} {
			if got := x.log.story(); !slices.Contains(got, want) {
				t.Errorf("told %q, want %q", got, want)
			}
		}
	})
}

// TestAQuestionThatFailsIsAskedAgain: whether what the selector left out is
// there decides how its story goes on.
func TestAQuestionThatFailsIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, selecting)
		c.write(kwatch.Added, pod("a", "u1", 0, "Running", labelled))
		passing(time.Second)
		c.failing(func(string) error { return apierrors.NewServiceUnavailable("starting") })
		c.write(kwatch.Deleted, pod("a", "u1", 0, "Running", labelled))
		c.write(kwatch.Added, pod("a", "u2", 0, "Running")) // another one has the name
		passing(time.Minute)
		if got := x.log.told("u1"); len(got) != 2 {
			t.Errorf("told %q before anybody said whether u1 is there", got)
		}
		c.failing(nil)
		passing(10 * time.Second)
		x.want(t, "u1 1 >Queued reconstructed", "u1 2 Queued>Running", "u1 3 Running>Cancelled Deleted", "u1 gone")
	})
}

// TestAPodMovesNoJobThatItOnlyNames: the API server does not check what an
// ownerReference says.
func TestAPodMovesNoJobThatItOnlyNames(t *testing.T) {
	for name, forged := range map[string]*corev1.Pod{
		"a pod of another namespace":     pod("p", "u1", 0, "Running", ownedBy("j", "J"), in("evil")),
		"a pod that names another Job":   pod("p", "u1", 0, "Running", ownedBy("other", "J")),
		"a pod that names both wrongly":  pod("p", "u1", 0, "Running", ownedBy("other", "J"), in("evil")),
		"a pod of an earlier Job's name": pod("p", "u1", 0, "Running", ownedBy("j", "J0")),
	} {
		for _, first := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, seen first: %v", name, first), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCluster()
					x := onto(t, newRecord(), c, withJobs)
					if first {
						c.write(kwatch.Added, forged)
						synctest.Wait()
					}
					c.write(kwatch.Added, job("j", "J", 0))
					synctest.Wait()
					c.write(kwatch.Added, forged)
					x.want(t, "J 1 >Queued")
				})
			})
		}
	}
}

// TestAStreamThatCannotListKeepsNoOthersGravesOpen: each forgets its own.
func TestAStreamThatCannotListKeepsNoOthersGravesOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, closed := newCluster(), newCluster()
		closed.failing(func(string) error {
			return apierrors.NewForbidden(batchv1.Resource("jobs"), "", errors.New("no such role"))
		})
		log := newRecord(statesync.Row{
			Ref:    statesync.Ref{Kind: "Job", Namespace: "load", Name: "j", UID: "J"},
			Stream: "jobs", State: statesync.Succeeded, Epoch: 1, Seq: 3, Gone: true, Removed: 5,
		})
		log.streams["jobs"] = statesync.Resume{Stream: "jobs", Version: 4}
		x := onto(t, log, c, func(o *Options) {
			withJobs(o)
			o.Streams[1].Source = closed.source("jobs")
		})
		for i := range 10 {
			n := strconv.Itoa(i)
			c.write(kwatch.Added, pod("a"+n, "u"+n, 0, "Running"))
			c.write(kwatch.Deleted, pod("a"+n, "u"+n, 0, "Running"))
		}
		passing(2 * graveTime)
		if n := x.lives(); n != 1 {
			t.Errorf("%d lives, want that of the Job, whose stream has not come as far as its end", n)
		}
	})
}

// TestALifeThatWasLetGoIsForgotten: it lives on, and nobody watches it.
func TestALifeThatWasLetGoIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, selecting)
		for i := range 10 {
			n := strconv.Itoa(i)
			c.write(kwatch.Added, pod("a"+n, "u"+n, 0, "Running", labelled))
			c.write(kwatch.Modified, pod("a"+n, "u"+n, 0, "Running"))
		}
		passing(2 * graveTime)
		if n := x.lives(); n != 0 {
			t.Errorf("%d lives, want none", n)
		}
	})
}

func TestAGapBeginsWhenTheStreamWasLastThere(t *testing.T) {
	gap := func(t *testing.T, x *world, last time.Time) {
		t.Helper()
		if g := x.w.Streams()[0].LastGap; g == nil || g.From.After(last) || g.From.Before(last.Add(-5*time.Second)) || !g.To.After(last.Add(time.Hour)) {
			t.Errorf("gap %+v, want one from %s, an hour long", g, last)
		}
	}
	t.Run("before the agent went", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster()
			c.write(kwatch.Added, pod("a", "u1", 0, "Pending"))
			x := onto(t, newRecord(), c, nil)
			passing(2 * time.Second)
			x.stop()
			last := time.Now()
			c.write(kwatch.Modified, pod("a", "u1", 0, "Running"))
			c.compact()
			passing(time.Hour)
			x = x.again(t, c, nil)
			passing(10 * time.Second)
			gap(t, x, last)
		})
	})
	t.Run("before it was held", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster()
			x := onto(t, newRecord(), c, func(o *Options) { o.MaxPending = 2 })
			c.write(kwatch.Added, pod("a", "u1", 0, "Pending"))
			passing(2 * time.Second)
			x.log.stall(0)
			for _, n := range []string{"2", "3", "4"} {
				c.write(kwatch.Added, pod("p"+n, "u"+n, 0, "Pending"))
			}
			passing(time.Second)
			last := time.Now()
			passing(time.Hour)
			c.write(kwatch.Added, pod("p5", "u5", 0, "Pending"))
			c.compact()
			x.log.release(-1)
			passing(30 * time.Second)
			gap(t, x, last)
		})
	})
}

// gapInTheWay makes a watcher hand over a gap just when the log, in which so
// many entries may wait, has to begin anew.
func gapInTheWay(t *testing.T, bound int) *world {
	t.Helper()
	c := newCluster()
	c.write(kwatch.Added, pod("a", "u1", 0, "Running"))
	x := onto(t, newRecord(), c, nil)
	passing(2500 * time.Millisecond)
	x.log.stall(bound)
	c.write(kwatch.Modified, pod("a", "u1", 0, "Succeeded"))
	synctest.Wait()
	c.write(kwatch.Added, job("j", "J", 0)) // the version moves
	c.compact()
	passing(900 * time.Millisecond)
	x.log.beginAnew(func(name string) bool { return name == "u1" })
	passing(300 * time.Millisecond)
	x.log.release(-1)
	passing(20 * time.Second)
	return x
}

func TestAGapThatTheLogDidNotTakeLeavesNoHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := gapInTheWay(t, 1)
		want := []string{"pods gap 1 LedgerLost 0-3"}
		if got := x.log.told("pods"); !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}

// TestASessionEndsWhenItsGapIsDurable: else the gap's end would be counted in
// the session that follows.
func TestASessionEndsWhenItsGapIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := gapInTheWay(t, 0)
		if got := x.log.told("pods"); len(got) != 2 || got[0] != "pods gap 1 Expired 2-3" {
			t.Errorf("told %q, want the gap that was on its way, and that of the log", got)
		}
		if s := x.w.Streams()[0]; s.Mark != 3 || x.w.streams[0].listed != 0 || x.w.total != 0 {
			t.Errorf("mark %d with %d listed of %d pending, want 3 with none", s.Mark, x.w.streams[0].listed, x.w.total)
		}
	})
}

// TestASetBackThatWasWrittenBeyondIsFoundByTheAudit: no version tells, but
// that of an object which is older than it was.
func TestASetBackThatWasWrittenBeyondIsFoundByTheAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("a", "u1", 0, "Pending"))
		c.write(kwatch.Modified, pod("a", "u1", 0, "Running"))
		x := onto(t, newRecord(), c, func(o *Options) { o.Audit = 10 * time.Second })
		passing(2500 * time.Millisecond)
		c.write(kwatch.Modified, pod("a", "u1", 0, "Succeeded"))
		synctest.Wait()
		c.restore(2)
		for _, n := range []string{"1", "2", "3", "4", "5"} {
			c.write(kwatch.Added, job("j"+n, "J"+n, 0))
		}
		passing(10 * time.Second)
		c.bookmark()
		passing(time.Minute)
		want := []string{
			"u1 1 >Queued reconstructed late", "u1 2 Queued>Running late", "u1 3 Running>Succeeded Completed", "u1 4 Succeeded>Running late",
		}
		if got := x.log.told("u1"); !slices.Equal(got, want) || x.log.epoch != 2 {
			t.Errorf("told %q in epoch %d, want %q in epoch 2", got, x.log.epoch, want)
		}
		if s := x.w.Streams()[0]; s.LastGap == nil || s.LastGap.Reason != statesync.GapRestored || len(s.Corrections) > 0 {
			t.Errorf("gap %v with corrections %v, want one of the restore, with none", s.LastGap, s.Corrections)
		}
	})
}

func TestAListOfAnEarlierVersionBeginsANewEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil, pod("a", "u1", 50, "Running"))
		passing(2 * time.Second)
		x.pods.relist("60", pod("a", "u1", 50, "Running"))
		passing(10 * time.Second)
		wantTold(t, x.log, "u1", "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late")
		wantTold(t, x.log, "pods", "pods gap 1 ClusterRestored 100-60")
		if x.log.epoch != 2 {
			t.Errorf("epoch %d, want 2", x.log.epoch)
		}
	})
}
