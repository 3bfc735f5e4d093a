package watch

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kwatch "k8s.io/apimachinery/pkg/watch"
)

// A crawl is a collection whose watches show an event only now and then.
type crawl struct {
	*collection
	every time.Duration
}

func (s crawl) Watch(ctx context.Context, o metav1.ListOptions) (kwatch.Interface, error) {
	inner, err := s.collection.Watch(ctx, o)
	if err != nil {
		return nil, err
	}
	return kwatch.Filter(inner, func(e kwatch.Event) (kwatch.Event, bool) {
		if e.Type != kwatch.Bookmark {
			time.Sleep(s.every) // sleep: in a bubble
		}
		return e, true
	}), nil
}

func crawling(resource string, every time.Duration) func(*Options) {
	return func(o *Options) {
		for i, s := range o.Streams {
			if s.Kind.Resource == resource {
				o.Streams[i].Source = crawl{s.Source.(*collection), every}
			}
		}
	}
}

// TestOneStreamMayBeMinutesBehind: Jobs that fail at once, of which only their
// pods say that they ran. One stream is read so slowly that it ends up far
// behind the other: that is held, and nothing is told in haste.
func TestOneStreamMayBeMinutesBehind(t *testing.T) {
	const jobs, bound = 300, 400
	for _, slow := range []string{"pods", "jobs"} {
		t.Run(slow, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				x := onto(t, newRecord(), c, all(withJobs, crawling(slow, 200*time.Millisecond), func(o *Options) { o.MaxPending = bound }))
				passing(time.Second)
				for i := range jobs {
					name, uid := fmt.Sprint("j", i), fmt.Sprint("J", i)
					j, p := job(name, uid, 0), pod(fmt.Sprint("p", i), fmt.Sprint("P", i), 0, "Pending", ownedBy(name, uid))
					j.CreationTimestamp, p.CreationTimestamp = metav1.Now().Rfc3339Copy(), metav1.Now().Rfc3339Copy()
					c.write(kwatch.Added, j)
					c.write(kwatch.Added, p)
					j.Status.Active = 1
					c.write(kwatch.Modified, j)
					c.write(kwatch.Modified, running(p))
					p.Status.Phase = "Failed"
					c.write(kwatch.Modified, p)
					c.write(kwatch.Modified, ends(j))
					c.write(kwatch.Deleted, p)
					c.write(kwatch.Deleted, j)
					passing(10 * time.Millisecond)
				}
				held := false
				for range 60 {
					passing(5 * time.Second)
					for _, s := range x.w.Streams() {
						held = held || s.Held && s.Name != slow
					}
				}
				for i := range jobs {
					uid := fmt.Sprint("J", i)
					wantTold(t, x.log, uid, uid+" 1 >Queued", uid+" 2 Queued>Running", uid+" 3 Running>Failed Failed", uid+" gone")
				}
				for _, s := range x.w.Streams() {
					if s.Hasty > 0 || s.Held || s.Pending > 0 {
						t.Errorf("stream %s at the end: %d told in haste, held: %v, %d pending, want none", s.Name, s.Hasty, s.Held, s.Pending)
					}
				}
				if !held {
					t.Error("the stream that is ahead was not held, so this test shows nothing")
				}
			})
		})
	}
}

func ends(j *batchv1.Job) *batchv1.Job {
	j.Status.Active = 0
	failed(j)
	return j
}

// TestWhatHasEndedKeepsNoPods: what is remembered of a life that is over, for a
// minute at least, is small.
func TestWhatHasEndedKeepsNoPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, withJobs)
		passing(time.Second)
		j := job("j", "J", 0)
		j.Status.Active = 1
		c.write(kwatch.Added, j)
		ended := func(name string) *corev1.Pod {
			p := pod(name, name, 0, "Failed", ownedBy("j", "J"))
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, StartedAt: metav1.Now()},
			}}}
			return p
		}
		for _, name := range []string{"p", "q"} { // one goes before the end, one after it
			c.write(kwatch.Added, ended(name))
		}
		c.write(kwatch.Deleted, ended("p"))
		passing(time.Second)
		of := func() *life {
			x.w.mu.Lock()
			defer x.w.mu.Unlock()
			return x.w.lives["J"]
		}
		if l := of(); l.ran == nil || l.account == nil {
			t.Error("a pod that is gone is not remembered though its Job goes on, so this test shows nothing")
		}
		c.write(kwatch.Modified, ends(j))
		passing(time.Second)
		c.write(kwatch.Deleted, ended("q"))
		passing(time.Second)
		if l := of(); l.ran != nil || l.account != nil {
			t.Error("the Job has ended, and a pod is remembered still")
		}
	})
}

// TestWhatIsGoneIsKnownUntilTheOthersHaveComeAsFar: a web app is gone for
// minutes when the stream of pods, which is behind, shows that they were there.
func TestWhatIsGoneIsKnownUntilTheOthersHaveComeAsFar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		x := onto(t, newRecord(), c, all(hopped, crawling("pods", 200*time.Millisecond)))
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
		passing(10 * time.Minute)
		wantTold(t, x.log, string(p.UID))
		if n := x.lives(); n != 1 {
			t.Errorf("%d lives are remembered at the end, want the one of q", n)
		}
	})
}
