package watch

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// book is a notebook that says a state.
func book(name, uid, state string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: job(name, uid, 0).ObjectMeta, Data: map[string]string{"state": state}}
}

// broken is one on which the rules fail.
func broken(name, uid string) *corev1.ConfigMap {
	b := book(name, uid, "")
	b.Data["broken"] = "cel.running: got int, want bool"
	return b
}

func withNotebooks(o *Options) { add(o, notebook()) }

func TestPodsWaitForTheFirstListOfReplicaSets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.refusing("replicasets", apierrors.NewInternalError(errors.New("no leader")))
		app(c)
		c.write(kwatch.Added, pod("a", "A", 0, "Pending"))
		x := onto(t, newRecord(), c, hopped)
		passing(time.Minute)
		for _, s := range x.w.Streams() {
			switch {
			case s.Name == "replicasets" && !apierrors.IsInternalError(s.Failure):
				t.Errorf("replicasets: %v, want that there is no leader", s.Failure)
			case s.Name == "pods" && (s.Synced || s.Objects > 0):
				t.Errorf("the pods have been listed before it is known who controls them")
			case s.Name == "pods" && (s.Failure == nil || !strings.Contains(s.Failure.Error(), "replicasets")):
				t.Errorf("pods: %v, want what they wait for", s.Failure)
			}
		}
		wantTold(t, x.log, "A")
		wantTold(t, x.log, "D", "D 1 >Queued late") // which waits for nobody
		c.refusing("replicasets", nil)
		passing(time.Minute)
		wantTold(t, x.log, "A", "A 1 >Queued late")
		wantTold(t, x.log, "P")
	})
}

// TestWhatMayNotBeReadIsNotWaitedFor: pods of a ReplicaSet that the agent's
// account may not read tell their own stories.
func TestWhatMayNotBeReadIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.refusing("replicasets", apierrors.NewForbidden(appsv1.Resource("replicasets"), "", errors.New("no role")))
		app(c)
		c.write(kwatch.Added, pod("a", "A", 0, "Pending"))
		x := onto(t, newRecord(), c, hopped)
		passing(3 * time.Minute)
		wantTold(t, x.log, "A", "A 1 >Queued late")
		wantTold(t, x.log, "D", "D 1 >Queued late")
		if len(x.log.told("P")) == 0 {
			t.Error("nothing was told of the pod of a ReplicaSet that may not be read")
		}
		for _, s := range x.w.Streams() {
			if s.Name == "pods" && s.Failure != nil {
				t.Errorf("pods: %v, want no failure", s.Failure)
			}
		}
	})
}

// TestAControllerThatCannotBeAskedAboutHoldsUpNobodyElse: more objects wait
// for it than there are workers.
func TestAControllerThatCannotBeAskedAboutHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		other(c)
		x := onto(t, newRecord(), c, hopped)
		passing(2 * time.Minute)
		c.failing(func(call string) error {
			if strings.HasPrefix(call, "get ") {
				return apierrors.NewInternalError(errors.New("the webhook is down"))
			}
			return nil
		})
		for i := range 8 {
			n := strconv.Itoa(i)
			c.write(kwatch.Added, under(pod("p"+n, "P"+n, 0, "Pending"), replicaSet("r"+n, "R"+n, 0)))
		}
		passing(time.Minute)
		c.write(kwatch.Added, pod("a", "A", 0, "Pending"))
		passing(time.Second)
		wantTold(t, x.log, "A", "A 1 >Queued")
		wantTold(t, x.log, "P0")
		c.failing(nil)
		passing(time.Minute)
		wantTold(t, x.log, "P0", "P0 1 >Queued")
		wantTold(t, x.log, "P7", "P7 1 >Queued")
	})
}

func TestRulesThatFailOnAnObjectLeaveItWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, said := newCluster(), &bytes.Buffer{}
		other(c)
		c.write(kwatch.Added, broken("l", "L"))
		x := onto(t, newRecord(), c, all(withNotebooks, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(said, nil)) }))
		passing(time.Second)
		c.write(kwatch.Added, broken("n", "N"))
		c.write(kwatch.Modified, broken("n", "N"))
		c.write(kwatch.Added, book("o", "O", "Running"))
		c.write(kwatch.Modified, broken("o", "O"))
		c.write(kwatch.Modified, broken("o", "O"))
		c.write(kwatch.Modified, book("o", "O", "")) // none of its rules holds
		c.write(kwatch.Added, book("m", "M", ""))
		c.write(kwatch.Modified, book("m", "M", "Running"))
		passing(time.Second)
		wantTold(t, x.log, "O", "O 1 >Queued reconstructed", "O 2 Queued>Running")
		c.write(kwatch.Modified, book("o", "O", "Queued"))
		c.write(kwatch.Modified, broken("o", "O"))
		passing(time.Second)
		wantTold(t, x.log, "L", "L 1 >Queued late")
		wantTold(t, x.log, "N", "N 1 >Queued")
		wantTold(t, x.log, "O", "O 1 >Queued reconstructed", "O 2 Queued>Running", "O 3 Running>Queued")
		wantTold(t, x.log, "M", "M 1 >Queued", "M 2 Queued>Running")
		if n := failuresOf(x.reg, "notebooks.kubeflow.org"); n != 6 {
			t.Errorf("%v failures counted, want 6", n)
		}
		for uid, want := range map[string]int{"L": 1, "N": 1, "O": 2, "M": 0} { // O had recovered
			if n := strings.Count(said.String(), "uid="+uid+" "); n != want {
				t.Errorf("%s was named %d times, want %d:\n%s", uid, n, want, said)
			}
		}
		if !strings.Contains(said.String(), "got int, want bool") {
			t.Errorf("the cause is not in the log:\n%s", said)
		}
		c.write(kwatch.Deleted, broken("o", "O"))
		passing(time.Second)
		wantTold(t, x.log, "O", "O 1 >Queued reconstructed", "O 2 Queued>Running", "O 3 Running>Queued", "O 4 Queued>Deleted Deleted", "O gone")
	})
}

func failuresOf(reg *metrics.Registry, stream string) (sum float64) {
	for _, f := range reg.Gather() {
		for _, p := range f.Points {
			if f.Desc.Name == "outrider_stream_rule_failures_total" && p.Tags[0] == stream {
				sum += p.Value
			}
		}
	}
	return sum
}

func TestAWebAppGoesBackAndForth(t *testing.T) {
	for name, of := range map[string]struct {
		reasons bool
		want    []string
	}{
		"states": {false, []string{
			"D 1 >Queued late", "D 2 Queued>Running", "D 3 Running>Queued ScaledToZero", "D 4 Queued>Running RollingOut",
		}},
		"reasons too": {true, []string{
			"D 1 >Queued late", "D 2 Queued>Running", "D 3 Running>Running RollingOut", "D 4 Running>Running",
			"D 5 Running>Queued ScaledToZero", "D 6 Queued>Queued", "D 7 Queued>Running RollingOut", "D 8 Running>Running",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				app(c)
				x := onto(t, newRecord(), c, all(hopped, func(o *Options) { o.Reasons = of.reasons }))
				passing(time.Second)
				rolling := func(d *appsv1.Deployment) { d.Status.Replicas, d.Status.UpdatedReplicas = 2, 1 }
				for _, d := range []*appsv1.Deployment{
					deployment("d", "D", 1), deployment("d", "D", 1, rolling), deployment("d", "D", 1),
					deployment("d", "D", 0), deployment("d", "D", 0, wants(1)),
					deployment("d", "D", 1, rolling), deployment("d", "D", 1),
				} {
					c.write(kwatch.Modified, d)
				}
				passing(time.Second)
				wantTold(t, x.log, "D", of.want...)
			})
		})
	}
}

// TestTheEndOfAWebAppIsTheSameHoweverItIsFound: seen live, by a list or by the
// audit.
func TestTheEndOfAWebAppIsTheSameHoweverItIsFound(t *testing.T) {
	ends := map[string]statesync.Change{}
	for name, remove := range map[string]func(*testing.T, *world, *cluster, *appsv1.Deployment) *world{
		"live": func(_ *testing.T, x *world, c *cluster, d *appsv1.Deployment) *world {
			c.write(kwatch.Deleted, d)
			return x
		},
		"by a list": func(t *testing.T, x *world, c *cluster, d *appsv1.Deployment) *world {
			x.stop()
			c.write(kwatch.Deleted, d)
			c.compact()
			return x.again(t, c, hopped)
		},
		"by the audit": func(t *testing.T, x *world, c *cluster, d *appsv1.Deployment) *world {
			x.stop()
			x = x.again(t, c, all(hopped, func(o *Options) { o.Audit = time.Second }))
			passing(time.Second)
			c.lose = func(h happening) bool { return h.typ == kwatch.Deleted }
			c.write(kwatch.Deleted, d)
			c.bookmark()
			return x
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster()
			d, _, _ := app(c)
			x := onto(t, newRecord(), c, hopped)
			c.write(kwatch.Modified, deployment("d", "D", 1))
			passing(3 * time.Second)
			x = remove(t, x, c, deployment(d.Name, "D", 1))
			passing(10 * time.Second)
			for _, e := range x.log.durable() {
				for _, change := range e.Changes {
					if change.Gap == nil && change.To.Ended() {
						ends[name] = statesync.Change{ID: change.ID, To: change.To, Reason: change.Reason, Seq: change.Seq}
					}
				}
			}
		})
	}
	want := ends["live"]
	if want.To != statesync.Deleted {
		t.Errorf("ends as %q, want Deleted", want.To)
	}
	for name, end := range ends {
		if diff := cmp.Diff(want, end); diff != "" {
			t.Errorf("%s (-live +got)\n%s", name, diff)
		}
	}
	if len(ends) != 3 {
		t.Errorf("ends found %d ways, want 3", len(ends))
	}
}

func TestOtherRulesReadEveryObjectAgain(t *testing.T) {
	ruled := func(rules string, back bool) func(*Options) {
		return func(o *Options) {
			k := notebook()
			reduce := k.Reducer
			if k.Rules = rules; back {
				k.Reducer = func(obj runtime.Object) (*workload.Object, error) {
					out, err := reduce(obj)
					out.Said.State = statesync.Queued
					return out, err
				}
			}
			add(o, k)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		other(c)
		c.write(kwatch.Added, book("n", "N", "Running"))
		x := onto(t, newRecord(), c, ruled("one", false))
		passing(3 * time.Second)
		x = x.again(t, c, ruled("one", false))
		passing(3 * time.Second)
		wantTold(t, x.log, "notebooks.kubeflow.org")
		x = x.again(t, c, ruled("two", true))
		passing(3 * time.Second)
		wantTold(t, x.log, "N", "N 1 >Queued reconstructed late", "N 2 Queued>Running late", "N 3 Running>Queued late")
		wantTold(t, x.log, "notebooks.kubeflow.org", "notebooks.kubeflow.org gap 1 Redefined 2-2")
	})
}

// TestAnEndThatWasLetGoIsNotToldAgain: one configuration had its stream, the
// next one had not, and the log has forgotten it; the third has it again.
func TestAnEndThatWasLetGoIsNotToldAgain(t *testing.T) {
	for name, dies := range map[string]bool{"its list is read at once": false, "its list is read after a crash": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				c.write(kwatch.Added, pod("x", "X", 0, "Succeeded", in("one")))
				x := onto(t, newRecord(), c, inNamespaces("one"))
				passing(3 * time.Second)
				x = x.again(t, c, inNamespaces("two"))
				passing(3 * time.Second)
				if _, known := x.log.streams["pods/one"]; known {
					t.Fatal("the log knows the stream still")
				}
				x.stop()
				if x.log = x.log.crash(); dies {
					x.log.stall(0)
				}
				x = onto(t, x.log, c, inNamespaces("one"))
				for dies && len(x.log.objects["pods/one"]) == 0 {
					passing(100 * time.Millisecond)
					x.log.release(1)
				}
				if dies {
					x = x.killed(t, c, inNamespaces("one"))
				}
				passing(time.Minute)
				want := []string{"X 1 >Queued reconstructed late", "X 2 Queued>Running reconstructed late", "X 3 Running>Succeeded Completed late"}
				if diff := cmp.Diff(want, slices.DeleteFunc(x.log.told("X"), func(line string) bool { return line == "X gone" })); diff != "" {
					t.Errorf("told (-want +got)\n%s", diff)
				}
			})
		})
	}
}

// TestAnUnreadLifeIsNotToldAfterALaterOne: the first list of one configuration
// had it, the agent died, and another configuration has told of a later life of
// its name.
func TestAnUnreadLifeIsNotToldAfterALaterOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("x", "X", 0, "Pending", in("one")))
		log := newRecord()
		log.stall(0)
		x := onto(t, log, c, inNamespaces("one"))
		for len(log.objects["pods/one"]) == 0 {
			passing(100 * time.Millisecond)
			log.release(1)
		}
		c.write(kwatch.Deleted, pod("x", "X", 0, "Pending", in("one")))
		c.write(kwatch.Added, pod("x", "Y", 0, "Pending", in("one")))
		x = x.killed(t, c, nil)
		passing(500 * time.Millisecond)
		wantTold(t, x.log, "Y", "Y 1 >Queued late")
		if len(x.log.objects["pods/one"]) == 0 {
			t.Fatal("the log has forgotten the first list")
		}
		x = x.killed(t, c, inNamespaces("one"))
		passing(time.Minute)
		wantTold(t, x.log, "X")
		wantTold(t, x.log, "Y", "Y 1 >Queued late")
	})
}
