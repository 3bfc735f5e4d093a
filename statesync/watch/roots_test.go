package watch

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kwatch "k8s.io/apimachinery/pkg/watch"
)

// app writes a Deployment with a ReplicaSet and a pod of it: d, r and p, with
// the UIDs D, R and P.
func app(c *cluster) (d *appsv1.Deployment, r *appsv1.ReplicaSet, p *corev1.Pod) {
	d = deployment("d", "D", 0, wants(1))
	r = under(replicaSet("r", "R", 0), d)
	p = under(pod("p", "P", 0, "Pending"), r)
	c.write(kwatch.Added, d)
	c.write(kwatch.Added, r)
	c.write(kwatch.Added, p)
	return d, r, p
}

// other writes what no test is about: no cluster is at version 0.
func other(c *cluster) {
	c.write(kwatch.Added, pod("other", "other", 0, "Pending"))
}

// hopped and tracked are the two ways to read ReplicaSets beside Deployments.
func hopped(o *Options)  { all(withDeployments, withHop)(o) }
func tracked(o *Options) { all(withDeployments, withReplicaSets)(o) }

func running(p *corev1.Pod) *corev1.Pod {
	p = p.DeepCopy()
	p.Status.Phase = "Running"
	return p
}

func available(r *appsv1.ReplicaSet, n int32) *appsv1.ReplicaSet {
	r = r.DeepCopy()
	r.Status.AvailableReplicas = n
	return r
}

func TestADeploymentTellsTheStoryOfItsPods(t *testing.T) {
	for name, of := range map[string]struct {
		edit func(*Options)
		told map[string][]string
	}{
		"its ReplicaSets read by their metadata": {hopped, map[string][]string{
			"B": nil,
			"Q": {"Q 1 >Queued late", "Q 2 Queued>Running"},
		}},
		"ReplicaSets tracked too": {tracked, map[string][]string{
			"B": {"B 1 >Queued late", "B 2 Queued>Running"},
			"Q": nil,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				d, r, p := app(c)
				b := replicaSet("b", "B", 0)
				q := under(pod("q", "Q", 0, "Pending"), b)
				c.write(kwatch.Added, b)
				c.write(kwatch.Added, q)
				x := onto(t, newRecord(), c, of.edit)
				passing(time.Second)
				for _, p := range []*corev1.Pod{p, q} {
					c.write(kwatch.Modified, running(p))
				}
				for _, r := range []*appsv1.ReplicaSet{r, b} {
					c.write(kwatch.Modified, available(r, 1))
				}
				c.write(kwatch.Modified, deployment(d.Name, "D", 1))
				c.write(kwatch.Deleted, running(p))
				passing(time.Second)
				wantTold(t, x.log, "D", "D 1 >Queued late", "D 2 Queued>Running")
				wantTold(t, x.log, "R")
				wantTold(t, x.log, "P")
				for uid, told := range of.told {
					wantTold(t, x.log, uid, told...)
				}
			})
		})
	}
}

func TestAPodWaitsForItsReplicaSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		other(c)
		x := onto(t, newRecord(), c, hopped)
		passing(time.Minute)
		asked := atomic.Int64{}
		c.failing(func(call string) error {
			if strings.HasPrefix(call, "get") {
				asked.Add(1)
			}
			return nil
		})
		d := deployment("d", "D", 0, wants(1))
		r := under(replicaSet("r", "R", 0), d)
		c.write(kwatch.Added, under(pod("p", "P", 0, "Running"), r))
		passing(hopWait / 2)
		c.write(kwatch.Added, r)
		c.write(kwatch.Added, d)
		passing(time.Minute)
		wantTold(t, x.log, "P")
		wantTold(t, x.log, "D", "D 1 >Queued")
		if n := asked.Load(); n != 0 {
			t.Errorf("asked %d times for a ReplicaSet that came", n)
		}
	})
}

// TestTheAPIServerIsAskedForAReplicaSetThatDoesNotCome: once, however many
// pods it has.
func TestTheAPIServerIsAskedForAReplicaSetThatDoesNotCome(t *testing.T) {
	for name, of := range map[string]struct {
		there     bool
		forbidden bool
		told      bool // the pods tell their own stories
	}{
		"it is there":                   {there: true},
		"it is gone":                    {told: true},
		"it may not be asked for":       {there: true, forbidden: true, told: true},
		"it is gone, and not to be had": {forbidden: true, told: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				other(c)
				x := onto(t, newRecord(), c, hopped)
				passing(time.Minute)
				c.lose = func(h happening) bool { return h.resource == "replicasets" } // it never comes by the watch
				r := under(replicaSet("r", "R", 0), deployment("d", "D", 0, wants(1)))
				if of.there {
					c.write(kwatch.Added, r)
				}
				asked := atomic.Int64{}
				c.failing(func(call string) error {
					if call != "get r" {
						return nil
					}
					if asked.Add(1); of.forbidden {
						return apierrors.NewForbidden(appsv1.Resource("replicasets"), "r", errors.New("no role"))
					}
					return nil
				})
				for i := range 5 {
					c.write(kwatch.Added, under(pod(fmt.Sprint("p", i), fmt.Sprint("P", i), 0, "Running"), r))
					passing(time.Second)
				}
				for i := range 5 {
					uid := fmt.Sprint("P", i)
					if of.told {
						wantTold(t, x.log, uid, uid+" 1 >Queued reconstructed", uid+" 2 Queued>Running")
					} else {
						wantTold(t, x.log, uid)
					}
				}
				if n := asked.Load(); n != 1 {
					t.Errorf("asked %d times for one ReplicaSet, want 1", n)
				}
			})
		})
	}
}

func TestAPodThatComesAfterItsReplicaSetWentFolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		d, r, p := app(c)
		x := onto(t, newRecord(), c, hopped)
		passing(time.Minute)
		c.write(kwatch.Deleted, d) // in the background: what it controls goes after it
		c.write(kwatch.Deleted, r)
		c.write(kwatch.Added, under(pod("late", "L", 0, "Running"), r))
		passing(graveTime / 2)
		c.write(kwatch.Added, under(pod("later", "M", 0, "Running"), r))
		passing(time.Second)
		c.write(kwatch.Deleted, p)
		passing(time.Second)
		for _, uid := range []string{"R", "P", "L", "M"} {
			wantTold(t, x.log, uid)
		}
		passing(graveTime)
		if n := x.hops(); n != 0 {
			t.Errorf("%d ReplicaSets are remembered that are gone for more than a minute", n)
		}
	})
}

// hops counts the controllers that are remembered though they are gone.
func (x *world) hops() (n int) {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	for _, s := range x.w.streams {
		n += len(s.hops)
	}
	return n
}

func TestOrphansTellTheirOwnStories(t *testing.T) {
	for name, of := range map[string]struct {
		edit func(*Options)
		r, p []string
	}{
		"pods of a ReplicaSet read by its metadata": {hopped, nil, []string{
			"P 1 >Queued reconstructed", "P 2 Queued>Running", "P 3 Running>Succeeded Completed",
		}},
		"a tracked ReplicaSet": {tracked, []string{
			"R 1 >Queued reconstructed", "R 2 Queued>Running", "R 3 Running>Queued",
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				d, r, p := app(c)
				x := onto(t, newRecord(), c, of.edit)
				passing(time.Second)
				c.write(kwatch.Modified, running(p))
				r = available(r, 1)
				c.write(kwatch.Modified, r)
				passing(time.Second)
				c.write(kwatch.Modified, alone(r.DeepCopy()))
				c.write(kwatch.Deleted, d)
				passing(time.Second)
				p = running(p)
				p.Status.Phase = "Succeeded"
				c.write(kwatch.Modified, p)
				c.write(kwatch.Modified, alone(available(r, 0)))
				passing(time.Second)
				wantTold(t, x.log, "D", "D 1 >Queued late", "D 2 Queued>Deleted Deleted", "D gone")
				wantTold(t, x.log, "R", of.r...)
				wantTold(t, x.log, "P", of.p...)
			})
		})
	}
}

// TestOrphansAreToldThoughTheAgentDies: the ReplicaSet's event is durable, and
// what it caused is not.
func TestOrphansAreToldThoughTheAgentDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		_, r, p := app(c)
		c.write(kwatch.Modified, running(p))
		x := onto(t, newRecord(), c, hopped)
		passing(3 * time.Second)
		x.log.stall(0)
		c.write(kwatch.Modified, alone(r))
		passing(10 * time.Millisecond)
		for range 3 {
			x.log.releaseBut("P")
			passing(time.Second)
		}
		if kept := string(x.log.objects["replicasets"]["R"].Body); strings.Contains(kept, "controller") {
			t.Fatalf("of the ReplicaSet %s is durable, want without a controller", kept)
		}
		if got := x.log.told("P"); len(got) != 0 {
			t.Fatalf("told %q, want nothing durable yet", got)
		}
		x = x.killed(t, c, hopped)
		passing(time.Second)
		wantTold(t, x.log, "P", "P 1 >Queued reconstructed late", "P 2 Queued>Running late")
	})
}

func TestPodsOfAJobThatIsDeletedAloneTellTheirOwnStories(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, job("j", "J", 0))
		p := pod("p", "P", 0, "Running", ownedBy("j", "J"))
		c.write(kwatch.Added, p)
		x := onto(t, newRecord(), c, withJobs)
		passing(time.Second)
		c.write(kwatch.Modified, alone(p.DeepCopy()))
		c.write(kwatch.Deleted, job("j", "J", 0))
		p = alone(p.DeepCopy())
		p.Status.Phase = "Failed"
		c.write(kwatch.Modified, p)
		passing(time.Second)
		wantTold(t, x.log, "J", "J 1 >Queued late", "J 2 Queued>Running late", "J 3 Running>Cancelled Deleted", "J gone")
		wantTold(t, x.log, "P", "P 1 >Queued reconstructed", "P 2 Queued>Running", "P 3 Running>Failed Failed")
	})
}

func TestWhatIsAdoptedGoesOnWithItsStory(t *testing.T) {
	for name, of := range map[string]struct {
		edit func(*Options)
		uid  string
	}{
		"a pod of a ReplicaSet read by its metadata, with it": {hopped, "Q"},
		"a tracked ReplicaSet":                                {tracked, "B"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, dies := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					c := newCluster()
					d, _, _ := app(c)
					b := replicaSet("b", "B", 1)
					q := under(pod("q", "Q", 0, "Running"), b)
					c.write(kwatch.Added, b)
					c.write(kwatch.Added, q)
					x := onto(t, newRecord(), c, of.edit)
					passing(3 * time.Second)
					c.write(kwatch.Modified, under(b, d))
					passing(3 * time.Second)
					if dies {
						x = x.killed(t, c, of.edit)
						passing(time.Second)
					}
					if root := x.rootOf("load/q"); of.uid == "B" && root != "B" {
						t.Errorf("the pod of a ReplicaSet with a story of its own folds into %q", root)
					}
					c.write(kwatch.Deleted, b)
					c.write(kwatch.Deleted, q)
					passing(time.Second)
					end := "Deleted"
					if of.uid == "Q" {
						end = "Cancelled"
					}
					wantTold(t, x.log, of.uid, of.uid+" 1 >Queued reconstructed late", of.uid+" 2 Queued>Running late", of.uid+" 3 Running>"+end+" Deleted", of.uid+" gone")
					wantTold(t, x.log, map[string]string{"B": "Q", "Q": "B"}[of.uid])
				})
			}
		})
	}
}

// rootOf returns the UID of a pod's root.
func (x *world) rootOf(pod string) string {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	return x.w.streams[0].objects[pod].Root.UID
}

// TestWhatAReplicaSetWasIsKnownThoughItWentWhileItWasAskedFor: the API server
// does not have it, and its stream says who controlled it.
func TestWhatAReplicaSetWasIsKnownThoughItWentWhileItWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		d, _, _ := app(c)
		x := onto(t, newRecord(), c, hopped)
		passing(time.Minute)
		answer := make(chan struct{})
		c.failing(func(call string) error {
			if call == "get s" {
				<-answer
			}
			return nil
		})
		s := under(replicaSet("s", "S", 0), d)
		c.write(kwatch.Added, under(pod("q", "Q", 0, "Running"), s))
		passing(hopWait + lookAgain)
		c.write(kwatch.Added, s)
		c.write(kwatch.Deleted, s)
		synctest.Wait()
		close(answer)
		passing(time.Minute)
		wantTold(t, x.log, "Q")
	})
}

// TestWhatAPodTellsGoesOnThoughItWasAdoptedBeforeItWasTold: its event waits for
// a worker when its ReplicaSet comes into a Deployment.
func TestWhatAPodTellsGoesOnThoughItWasAdoptedBeforeItWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		d, _, _ := app(c)
		b := replicaSet("b", "B", 0)
		c.write(kwatch.Added, b)
		x := onto(t, newRecord(), c, hopped)
		passing(3 * time.Second)
		x.log.stall(1)
		for i := range 3 { // one that waits to be durable, and one for each worker
			c.write(kwatch.Added, pod(fmt.Sprint("w", i), fmt.Sprint("W", i), 0, "Pending"))
		}
		synctest.Wait()
		q := under(pod("q", "Q", 0, "Pending"), b)
		c.write(kwatch.Added, q)
		synctest.Wait()
		c.write(kwatch.Modified, under(b, d))
		synctest.Wait()
		c.write(kwatch.Deleted, q)
		synctest.Wait()
		x.log.release(-1)
		passing(time.Second)
		wantTold(t, x.log, "Q", "Q 1 >Queued", "Q 2 Queued>Cancelled Deleted", "Q gone")
	})
}

// TestAPodThatWaitsIsToldInOrder: what comes of it while it waits for its
// ReplicaSet does not overtake it, though the ReplicaSet has come.
func TestAPodThatWaitsIsToldInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		other(c)
		x := onto(t, newRecord(), c, hopped)
		passing(time.Minute)
		r := replicaSet("r", "R", 0)
		p := under(pod("p", "P", 0, "Pending"), r)
		c.write(kwatch.Added, p)
		passing(hopWait / 4)
		c.write(kwatch.Added, under(r.DeepCopy(), deployment("d", "D", 0)))
		synctest.Wait()
		c.write(kwatch.Deleted, p)
		synctest.Wait()
		c.write(kwatch.Modified, r)
		passing(time.Minute)
		wantTold(t, x.log, "P") // both events were of the Deployment's pod: the second woke the first
	})
}

// TestAPodWaitsForAStreamThatIsCutOff: its ReplicaSet is gone by the time that
// the API server could be asked, and the stream tells who controlled it.
func TestAPodWaitsForAStreamThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		d, _, _ := app(c)
		x := onto(t, newRecord(), c, hopped)
		passing(time.Minute)
		c.refusing("replicasets", apierrors.NewServiceUnavailable("starting"))
		c.cutOff("replicasets")
		s := under(replicaSet("s", "S", 0), d)
		q := under(pod("q", "Q", 0, "Running"), s)
		c.write(kwatch.Added, s)
		c.write(kwatch.Added, q)
		c.write(kwatch.Deleted, s)
		c.write(kwatch.Added, pod("b", "B", 0, "Running")) // others go on
		passing(cutOff / 2)
		wantTold(t, x.log, "B", "B 1 >Queued reconstructed", "B 2 Queued>Running")
		c.refusing("replicasets", nil)
		passing(time.Minute)
		wantTold(t, x.log, "Q")
		c.write(kwatch.Deleted, q)
		passing(time.Second)
		wantTold(t, x.log, "Q")
	})
}

// TestAReplicaSetThatIsGoneIsRememberedOverARestart: its removal is durable,
// and the stream of its pods is behind.
func TestAReplicaSetThatIsGoneIsRememberedOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		d, r, _ := app(c)
		x := onto(t, newRecord(), c, hopped)
		passing(3 * time.Second)
		c.refusing("pods", apierrors.NewServiceUnavailable("starting"))
		c.cutOff("pods")
		c.write(kwatch.Added, under(pod("q", "Q", 0, "Running"), r))
		c.write(kwatch.Deleted, d)
		c.write(kwatch.Deleted, r)
		passing(5 * time.Second)
		c.refusing("pods", nil)
		x = x.killed(t, c, hopped)
		passing(time.Minute)
		wantTold(t, x.log, "P")
		wantTold(t, x.log, "Q")
		passing(graveTime + 5*time.Second)
		if n := x.hops(); n != 0 || len(x.log.objects["replicasets"]) > 0 {
			t.Errorf("%d ReplicaSets are remembered, and the log keeps %v, want nothing for longer than a minute", n, x.log.objects["replicasets"])
		}
	})
}

func TestRootsSurviveARestart(t *testing.T) {
	for name, edit := range map[string]func(*Options){"by hop": hopped, "tracked": tracked} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				d, r, p := app(c)
				x := onto(t, newRecord(), c, edit)
				passing(3 * time.Second)
				x.stop()
				c.write(kwatch.Modified, running(p))
				c.write(kwatch.Deleted, r) // what it controls goes after it
				x = x.again(t, c, edit)
				passing(3 * time.Second)
				x = x.again(t, c, edit)
				c.write(kwatch.Deleted, running(p))
				c.write(kwatch.Deleted, d)
				passing(time.Second)
				wantTold(t, x.log, "P")
				wantTold(t, x.log, "R")
				wantTold(t, x.log, "D", "D 1 >Queued late", "D 2 Queued>Deleted Deleted", "D gone")
			})
		})
	}
}

// TestAFirstListThatWasNotReadHasItsRootsFound: the log keeps it as the API
// server has it.
func TestAFirstListThatWasNotReadHasItsRootsFound(t *testing.T) {
	for name, edit := range map[string]func(*Options){"by hop": hopped, "tracked": tracked} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				_, _, p := app(c)
				b := under(pod("b", "B", 0, "Pending"), replicaSet("gone", "G", 0))
				c.write(kwatch.Added, alone(b.DeepCopy()))
				log := newRecord()
				log.stall(0)
				x := onto(t, log, c, edit)
				for len(log.objects["pods"]) == 0 {
					passing(100 * time.Millisecond)
					log.release(1)
				}
				if body := string(log.objects["pods"]["P"].Body); strings.Contains(body, "root") {
					t.Fatalf("the log has %s, want without a root", body)
				}
				x = x.killed(t, c, edit)
				passing(3 * time.Second)
				c.write(kwatch.Modified, running(p))
				passing(time.Second)
				wantTold(t, x.log, "P")
				wantTold(t, x.log, "R")
				wantTold(t, x.log, "D", "D 1 >Queued late")
				wantTold(t, x.log, "B", "B 1 >Queued late")
			})
		})
	}
}

func TestPodsThatTellNobodysStoryAreNotKept(t *testing.T) {
	edit := all(podsFoldOnly, hopped)
	for name, dies := range map[string]bool{"from a first list": false, "from one that was not read": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				_, r, p := app(c)
				b := replicaSet("b", "B", 0)
				c.write(kwatch.Added, b)
				c.write(kwatch.Added, under(pod("q", "Q", 0, "Pending"), b))
				c.write(kwatch.Added, pod("a", "A", 0, "Pending"))
				log := newRecord()
				if dies {
					log.stall(0)
				}
				x := onto(t, log, c, edit)
				if dies {
					for len(log.objects["pods"]) == 0 {
						passing(100 * time.Millisecond)
						log.release(1)
					}
					x = x.killed(t, c, edit)
				}
				passing(3 * time.Second)
				x.wantPods(t, "P")
				c.write(kwatch.Modified, alone(r)) // with its ReplicaSet it leaves the Deployment
				passing(3 * time.Second)
				x.wantPods(t)
				c.write(kwatch.Modified, under(p, replicaSet("s", "S", 0)))
				passing(time.Minute)
				x.wantPods(t)
			})
		})
	}
}

// TestAPodThatIsLetGoIsNotKeptAfterAll: what came of it before becomes durable
// later.
func TestAPodThatIsLetGoIsNotKeptAfterAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		_, _, p := app(c)
		x := onto(t, newRecord(), c, all(podsFoldOnly, hopped))
		passing(3 * time.Second)
		x.log.stall(0)
		c.write(kwatch.Modified, running(p))
		c.write(kwatch.Modified, alone(running(p)))
		passing(2 * time.Second) // the log is told to forget it, and is slow
		x.log.release(-1)
		passing(3 * time.Second)
		x.wantPods(t)
	})
}

// wantPods is for the pods that the indexer and the log hold.
func (x *world) wantPods(t *testing.T, want ...string) {
	t.Helper()
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	var held []string
	for _, h := range x.w.streams[0].objects {
		held = append(held, h.UID)
	}
	slices.Sort(held)
	if diff := cmp.Diff(want, held); diff != "" {
		t.Errorf("pods in the indexer (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(x.log.objects["pods"]))); diff != "" {
		t.Errorf("pods in the log (-want +got)\n%s", diff)
	}
}
