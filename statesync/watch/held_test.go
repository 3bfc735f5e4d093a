package watch

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kwatch "k8s.io/apimachinery/pkg/watch"
)

// TestWhatWaitsBehindAnEndDoesNotShutOutWhatItWaitsFor: behind each end wait
// the later events of its Job. They fill what may be pending, and the gate
// closes to the pods that the ends wait for.
func TestWhatWaitsBehindAnEndDoesNotShutOutWhatItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, all(withJobs, crawling("pods", 200*time.Millisecond), func(o *Options) { o.MaxPending = 100 }))
		passing(time.Second)
		other(c)
		for i := range 20 { // the stream of pods has something to say
			q := pod(fmt.Sprint("q", i), fmt.Sprint("Q", i), 0, "Pending")
			c.write(kwatch.Added, q)
		}
		for i := range 20 {
			name, uid := fmt.Sprint("j", i), fmt.Sprint("J", i)
			j, p := job(name, uid, 0), pod(fmt.Sprint("p", i), fmt.Sprint("P", i), 0, "Pending", ownedBy(name, uid))
			c.write(kwatch.Added, j)
			c.write(kwatch.Added, running(p))
			p.Status.Phase = "Failed"
			c.write(kwatch.Modified, p)
			j = ends(j)
			c.write(kwatch.Modified, j)
			for range 6 {
				c.write(kwatch.Modified, j)
			}
			c.write(kwatch.Deleted, p)
			c.write(kwatch.Deleted, j)
		}
		passing(time.Minute)
		for _, s := range x.w.Streams() {
			if s.Held || s.Pending > 0 || s.Hasty > 0 {
				t.Errorf("stream %s after a minute: held: %v, %d pending, %d told in haste, want none", s.Name, s.Held, s.Pending, s.Hasty)
			}
		}
		for i := range 20 {
			uid := fmt.Sprint("J", i)
			wantTold(t, x.log, uid, uid+" 1 >Queued", uid+" 2 Queued>Running", uid+" 3 Running>Failed Failed", uid+" gone")
		}
	})
}

// TestWhatMayNotBeReadHoldsNobody: Jobs may not be read. The stream of pods is
// not held for what does not come.
func TestWhatMayNotBeReadHoldsNobody(t *testing.T) {
	for name, err := range map[string]error{
		"forbidden": apierrors.NewForbidden(batchv1.Resource("jobs"), "", errors.New("no role")),
		"away":      apierrors.NewServiceUnavailable("starting"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				x := onto(t, newRecord(), c, all(withJobs, func(o *Options) { o.MaxPending = 400 }))
				passing(time.Second)
				c.refusing("jobs", err)
				c.cutOff("jobs")
				passing(time.Second)
				held := time.Duration(0)
				for i := range 600 { // a minute
					name := fmt.Sprint("p", i)
					c.write(kwatch.Added, pod(name, name, 0, "Pending", ownedBy(fmt.Sprint("j", i), fmt.Sprint("J", i))))
					if i%10 == 0 {
						at := fmt.Sprint("alone", i)
						c.write(kwatch.Added, pod(at, at, 0, "Running"))
					}
					passing(100 * time.Millisecond)
					if s := x.w.Streams()[0]; s.Held {
						held += 100 * time.Millisecond
					}
				}
				if len(x.log.told("alone590")) == 0 {
					t.Error("the last pod that has no Job is not told of")
				}
				if held > 0 {
					t.Errorf("the stream of pods was held for %s of a minute, want never", held)
				}
			})
		})
	}
}

// TestStreamsOfSeveralNamespacesAreHeld: each of several streams is ahead of
// the pods in its namespace.
func TestStreamsOfSeveralNamespacesAreHeld(t *testing.T) {
	const jobs, bound = 300, 400
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		namespaces := []string{"a", "b", "c"}
		x := onto(t, newRecord(), c, func(o *Options) {
			withJobs(o)
			streams := o.Streams
			o.Streams, o.MaxPending = nil, bound
			for _, s := range streams {
				for _, ns := range namespaces {
					one := s
					one.Namespace, one.Source = ns, s.Source.(*collection).within(ns)
					if s.Kind.Name == "Pod" {
						one.Source = crawl{one.Source.(*collection), 200 * time.Millisecond}
					}
					o.Streams = append(o.Streams, one)
				}
			}
		})
		passing(time.Second)
		for i := range jobs {
			name, uid := fmt.Sprint("j", i), fmt.Sprint("J", i)
			j, p := job(name, uid, 0), pod(fmt.Sprint("p", i), fmt.Sprint("P", i), 0, "Pending", ownedBy(name, uid))
			j.Namespace, p.Namespace = namespaces[i%3], namespaces[i%3]
			j.CreationTimestamp, p.CreationTimestamp = metav1.Now().Rfc3339Copy(), metav1.Now().Rfc3339Copy()
			c.write(kwatch.Added, j)
			c.write(kwatch.Added, p)
			j.Status.Active = 1
			c.write(kwatch.Modified, j)
			c.write(kwatch.Modified, p)
			c.write(kwatch.Modified, p)
			c.write(kwatch.Modified, running(p))
			p.Status.Phase = "Failed"
			c.write(kwatch.Modified, p)
			c.write(kwatch.Modified, ends(j))
			c.write(kwatch.Deleted, p)
			c.write(kwatch.Deleted, j)
			passing(10 * time.Millisecond)
		}
		passing(10 * time.Minute)
		for i := range jobs {
			uid := fmt.Sprint("J", i)
			wantTold(t, x.log, uid, uid+" 1 >Queued", uid+" 2 Queued>Running", uid+" 3 Running>Failed Failed", uid+" gone")
		}
		for _, s := range x.w.Streams() {
			if s.Hasty > 0 || s.Held || s.Pending > 0 {
				t.Errorf("stream %s at the end: %d told in haste, held: %v, %d pending, want none", s.Name, s.Hasty, s.Held, s.Pending)
			}
		}
	})
}

// TestWhatIsGoneIsKnownOverARestartUntilTheOthersHaveComeAsFar: the stream of
// pods goes on from minutes before.
func TestWhatIsGoneIsKnownOverARestartUntilTheOthersHaveComeAsFar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		edit := all(hopped, crawling("pods", 200*time.Millisecond))
		x := onto(t, newRecord(), c, edit)
		passing(time.Second)
		q := pod("q", "Q", 0, "Pending")
		c.write(kwatch.Added, q)
		for range 600 {
			c.write(kwatch.Modified, q)
		}
		d, r, p := app(c)
		c.write(kwatch.Modified, running(p))
		c.write(kwatch.Deleted, d)
		c.write(kwatch.Deleted, r)
		c.write(kwatch.Deleted, p)
		passing(10 * time.Second)
		x = x.killed(t, c, edit)
		passing(10 * time.Minute)
		wantTold(t, x.log, string(p.UID))
		if n := x.hops(); n != 0 {
			t.Errorf("%d hops are remembered at the end, want none", n)
		}
	})
}

// TestWatchesThatEndDoNotMakeAnEndWaitForMinutes: the pod that a Job counts is
// never shown, and the watches of pods end every 5 s.
func TestWatchesThatEndDoNotMakeAnEndWaitForMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, withJobs)
		passing(time.Second)
		c.write(kwatch.Added, job("j", "J", 0, failed))
		other(c) // pods have come as far
		began := time.Now()
		for len(x.log.told("J")) < 2 {
			passing(5 * time.Second)
			c.cutOff("pods")
		}
		if took := time.Since(began); took > 2*cutOff {
			t.Errorf("the end was told %s after it was seen, want a minute or so", took)
		}
	})
}

// TestAnEndWaitsForPodsThatAreCutOff, a minute at most.
func TestAnEndWaitsForPodsThatAreCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, withJobs)
		passing(time.Second)
		c.refusing("pods", apierrors.NewServiceUnavailable("starting"))
		c.cutOff("pods")
		passing(time.Second)
		j, p := job("j", "J", 0), pod("p", "P", 0, "Pending", ownedBy("j", "J"))
		c.write(kwatch.Added, j)
		c.write(kwatch.Added, p)
		c.write(kwatch.Modified, running(p))
		c.write(kwatch.Modified, ends(j))
		p.Status.Phase = "Failed"
		c.write(kwatch.Modified, p)
		passing(30 * time.Second)
		c.refusing("pods", nil)
		passing(time.Minute)
		wantTold(t, x.log, "J", "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Failed Failed")
	})
}

// TestVersionsOfAnotherEtcdAreNotWaitedFor: pods have lower versions than Jobs
// for ever, and come all the time.
func TestVersionsOfAnotherEtcdAreNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, all(withJobs, wrap("jobs", func(s Source) Source { return elsewhere{s, 1_000_000} })))
		other(c)
		passing(time.Second)
		c.cutOff("pods") // as an API server ends each watch, after minutes
		passing(time.Second)
		c.write(kwatch.Added, job("j", "J", 0, failed)) // its pod is never shown
		for i := range 20 {
			name := fmt.Sprint("p", i)
			c.write(kwatch.Added, pod(name, name, 0, "Pending"))
			passing(time.Second)
		}
		wantTold(t, x.log, "J", "J 1 >Queued reconstructed", "J 2 Queued>Failed Failed")
	})
}
