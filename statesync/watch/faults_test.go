package watch

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
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

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// The tests below run the watcher against a cluster with a history and a log
// that makes durable as much as chance lets it, and kill it, break its
// watches and take the history away at random. What the log then holds is
// held against the history. A failure prints its seed; OUTRIDER_SEED runs that
// one alone, OUTRIDER_SEEDS says how many, OUTRIDER_FIRST=random begins anywhere.

// A nemesis drives one run.
type nemesis struct {
	t    *testing.T
	rand *rand.Rand
	c    *cluster
	log  *record

	reg    *metrics.Registry
	w      *Watcher
	cancel context.CancelFunc
	done   chan error

	most   int            // MaxPending
	hasty  bool           // an event did not wait for another stream, because too many did
	edit   func(*Options) // nil: pods and Jobs, all
	spaces []string       // namespaces of the pods that are made; there are no Jobs then
	audit  time.Duration

	made      int // UIDs given
	killed    int
	compacted int
}

func (n *nemesis) start() {
	n.reg = metricstest.Registry(n.t)
	o := Options{
		Cluster: "c", Log: n.log, Registry: n.reg, Audit: n.audit,
		Streams: []Stream{{Kind: workload.Kinds["Pod"], Source: n.c.source("pods")}, {Kind: workload.Kinds["Job"], Source: n.c.source("jobs")}},
		Logger:  slog.New(slog.DiscardHandler), Now: time.Now, Workers: 3, MaxPending: n.most,
	}
	if n.edit != nil {
		n.edit(&o)
	}
	w, err := New(o)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(n.t.Context())
	n.w, n.cancel, n.done = w, cancel, make(chan error, 1)
	go func() { n.done <- w.Run(ctx) }()
}

// kill leaves nothing of the watcher but what is durable.
func (n *nemesis) kill() {
	left := n.log.crash()
	n.log.die()
	n.stop()
	n.log = left
	n.killed++
}

// stop ends the watcher.
func (n *nemesis) stop() {
	n.cancel()
	<-n.done
	for _, s := range n.w.Streams() {
		n.hasty = n.hasty || s.Hasty > 0
	}
}

// act does one random thing to the cluster's workloads.
func (n *nemesis) act() {
	pods, jobs := n.c.now("pods"), n.c.now("jobs")
	names := slices.Sorted(func(yield func(string) bool) {
		for k := range pods {
			if !yield(k) {
				return
			}
		}
	})
	if len(names) == 0 || n.rand.IntN(4) == 0 {
		n.create(keysOf(jobs))
		return
	}
	if len(names) > 10 && n.rand.IntN(4) > 0 {
		names = names[:10] // the others are many, and hardly move
	}
	p := pods[names[n.rand.IntN(len(names))]].(*corev1.Pod).DeepCopy()
	switch {
	case n.rand.IntN(5) == 0:
		n.c.write(kwatch.Deleted, p)
		if p.OwnerReferences == nil && n.rand.IntN(2) == 0 { // another life of the name
			n.made++
			n.c.write(kwatch.Added, pod(p.Name, "u"+strconv.Itoa(n.made), 0, "Pending", in(p.Namespace), n.label))
		}
	case n.spaces != nil && n.rand.IntN(3) == 0:
		n.label(p)
		n.c.write(kwatch.Modified, p)
	case p.Status.Phase == "Pending":
		p.Status.Phase = "Running"
		n.c.write(kwatch.Modified, p)
	case p.Status.Phase == "Running" && n.rand.IntN(3) > 0:
		p.Status.Phase = []corev1.PodPhase{"Succeeded", "Failed"}[n.rand.IntN(2)]
		n.c.write(kwatch.Modified, p)
		n.endJob(p, n.rand.IntN(2) == 0)
	default:
		p.Annotations = map[string]string{"touched": strconv.Itoa(n.rand.Int())}
		n.c.write(kwatch.Modified, p)
	}
}

func (n *nemesis) create(jobs []string) {
	n.made++
	uid, name := "u"+strconv.Itoa(n.made), "w"+strconv.Itoa(n.rand.IntN(6))
	if n.spaces != nil {
		namespace := n.spaces[n.rand.IntN(len(n.spaces))]
		if _, taken := n.c.now("pods")[namespace+"/"+name]; !taken {
			n.c.write(kwatch.Added, pod(name, uid, 0, "Pending", in(namespace), n.label))
		}
		return
	}
	if n.rand.IntN(3) == 0 && !slices.Contains(jobs, "load/"+name) {
		n.c.write(kwatch.Added, job(name, uid, 0))
		n.made++
		n.c.write(kwatch.Added, pod("p"+uid, "u"+strconv.Itoa(n.made), 0, "Pending", ownedBy(name, uid)))
		return
	}
	if _, taken := n.c.now("pods")["load/"+name]; !taken {
		n.c.write(kwatch.Added, pod(name, uid, 0, "Pending"))
	}
}

// label makes a selector take a pod, or not.
func (n *nemesis) label(p *corev1.Pod) {
	p.Labels = nil
	if n.rand.IntN(2) == 0 {
		labelled(p)
	}
}

// endJob ends the Job that a pod belongs to, and may remove it.
func (n *nemesis) endJob(p *corev1.Pod, remove bool) {
	if p.OwnerReferences == nil {
		return
	}
	j, ok := n.c.now("jobs")["load/"+p.OwnerReferences[0].Name].(*batchv1.Job)
	if !ok || string(j.UID) != string(p.OwnerReferences[0].UID) {
		return
	}
	j = j.DeepCopy()
	with(batchv1.JobComplete, corev1.ConditionTrue)(j)
	n.c.write(kwatch.Modified, j)
	if remove {
		n.c.write(kwatch.Deleted, j)
	}
}

func keysOf[T any](m map[string]T) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// rest lets everything become durable and be read.
func (n *nemesis) rest() {
	n.c.failing(nil)
	for range 40 {
		for n.log.waiting() {
			n.log.release(1 << 20)
		}
		time.Sleep(time.Second) // sleep: in a bubble
	}
	n.c.bookmark()
	synctest.Wait()
	n.log.release(1 << 20)
	time.Sleep(15 * time.Second) // sleep: in a bubble
	synctest.Wait()
	n.log.release(1 << 20)
}

// seeds runs a test with many seeds.
func seeds(t *testing.T, count int, run func(t *testing.T, seed uint64)) {
	first := uint64(1) // the same ones each time, but for what the scheduler does
	if os.Getenv("OUTRIDER_FIRST") == "random" {
		first = uint64(time.Now().UnixNano())
	}
	if s, err := strconv.ParseUint(os.Getenv("OUTRIDER_SEED"), 10, 64); err == nil {
		first, count = s, 1
	} else if more, err := strconv.Atoi(os.Getenv("OUTRIDER_SEEDS")); err == nil {
		count = more
	}
	for i := range count {
		seed := first + uint64(i)
		synctest.Test(t, func(t *testing.T) {
			run(t, seed)
			if t.Failed() {
				t.Fatalf("seed %d: run it again with OUTRIDER_SEED=%d", seed, seed)
			}
		})
		if t.Failed() {
			return
		}
	}
}

func newNemesis(t *testing.T, seed uint64) *nemesis {
	n := &nemesis{t: t, rand: rand.New(rand.NewPCG(seed, 1)), c: newCluster(), log: newRecord()}
	n.most = []int{20, 1000}[n.rand.IntN(2)]
	n.log.hold, n.log.bound = true, []int{0, 0, 2, 8}[n.rand.IntN(4)]
	n.c.write(kwatch.Added, pod("first", "u0", 0, "Pending"))
	return n
}

// firstList starts the watcher, and may kill it while its first list becomes
// durable. In some runs the list has more objects than are kept at a time.
func (n *nemesis) firstList() {
	if n.rand.IntN(10) == 0 {
		for range flushChunk + 20 {
			n.made++
			n.c.write(kwatch.Added, pod("x"+strconv.Itoa(n.made), "u"+strconv.Itoa(n.made), 0, "Pending"))
		}
	}
	for n.start(); n.rand.IntN(3) == 0; n.start() {
		for range n.rand.IntN(4) {
			synctest.Wait()
			n.log.release(1)
		}
		n.kill()
		for range n.rand.IntN(4) {
			n.act()
		}
	}
	synctest.Wait()
	n.log.release(1 << 20)
}

// fail makes calls fail, each as others have been seen to.
func (n *nemesis) fail() {
	err := []error{
		apierrors.NewServiceUnavailable("starting"), apierrors.NewInternalError(errors.New("no leader")), apierrors.NewTimeoutError("slow", 1),
		apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("no role")), apierrors.NewTooManyRequests("later", 1),
		io.EOF, &netError{syscall.ECONNREFUSED}, context.DeadlineExceeded,
	}[n.rand.IntN(8)]
	call := []string{"list", "watch", "audit", "get", "", ""}[n.rand.IntN(6)]
	if call == "get" || call == "" && apierrors.IsForbidden(err) {
		err = io.EOF // without the permission to ask, a pod that is gone may well be there
	}
	n.c.failing(func(now string) error {
		if call == "" || strings.HasPrefix(now, call) {
			return err
		}
		return nil
	})
}

// wreak does steps random things to cluster, log and agent.
func (n *nemesis) wreak(steps int, compact bool) {
	for range steps {
		switch k := n.rand.IntN(43); {
		case k < 22:
			n.act()
		case k < 30:
			synctest.Wait()
			n.log.release(1 + n.rand.IntN(4))
		case k < 33:
			time.Sleep(time.Duration(n.rand.IntN(1500)) * time.Millisecond) // sleep: in a bubble
		case k < 35:
			n.c.bookmark()
		case k < 37:
			n.c.cut()
		case k < 38:
			n.fail()
			n.c.cut()
		case k < 40:
			time.Sleep(time.Duration(n.rand.IntN(3000)) * time.Millisecond) // sleep: in a bubble
			n.c.failing(nil)
		case k < 42 && n.killed < 6:
			n.restart(compact && n.rand.IntN(2) == 0)
		case compact && n.compacted < 3:
			n.c.compact()
			n.compacted++
		}
	}
}

// restart kills the watcher, and starts it when some has happened.
func (n *nemesis) restart(compact bool) {
	n.kill()
	for range n.rand.IntN(5) {
		n.act()
	}
	if compact {
		n.c.compact()
		n.compacted++
	}
	n.start()
}

// finish lets everything come to rest, and says what there is to be judged.
func (n *nemesis) finish() *oracle {
	n.rest()
	n.stop()
	return newOracle(n)
}

func TestNothingIsLostOverCrashesAndBrokenWatches(t *testing.T) {
	seeds(t, 30, func(t *testing.T, seed uint64) {
		n := newNemesis(t, seed)
		n.firstList()
		n.wreak(150, false)
		o := n.finish()
		o.shape()
		if len(o.gaps) > 0 {
			t.Errorf("gaps %v although the history was there", o.gaps)
		}
		o.complete()
		o.present()
	})
}

func TestBeyondTheHistoryEveryGapIsNamed(t *testing.T) {
	seeds(t, 30, func(t *testing.T, seed uint64) {
		n := newNemesis(t, seed)
		n.firstList()
		n.wreak(150, true)
		o := n.finish()
		o.shape()
		o.complete()
		o.present()
	})
}

func TestAClusterThatIsSetBackBeginsANewEpoch(t *testing.T) {
	seeds(t, 30, func(t *testing.T, seed uint64) {
		n := newNemesis(t, seed)
		n.firstList()
		n.wreak(60, false)
		n.rest()
		n.killed = 4
		down := n.rand.IntN(2) == 0
		if down {
			n.kill()
		}
		back := n.c.head() / 2
		n.c.restore(back)
		for range n.rand.IntN(3) {
			if n.c.head() < back+2 {
				n.act()
			}
		}
		if down {
			n.start()
		}
		n.rest()
		n.wreak(40, false)
		o := n.finish()
		o.shape()
		o.present()
		if n.log.epoch != 2 {
			t.Errorf("epoch %d, want 2", n.log.epoch)
		}
		if !slices.ContainsFunc(o.gaps["pods"], func(g statesync.Gap) bool { return g.Reason == statesync.GapRestored }) {
			t.Errorf("gaps of pods %v, want one of the restore", o.gaps["pods"])
		}
	})
}

func TestTheAuditFindsALostEventAndNothingElse(t *testing.T) {
	seeds(t, 30, func(t *testing.T, seed uint64) {
		n := newNemesis(t, seed)
		lost := ""
		n.audit = time.Second
		n.c.lose = func(h happening) bool { return h.typ == kwatch.Deleted && uidOf(h.object) == lost }
		n.firstList()
		n.killed = 100 // an agent that was killed and reads on might be told what was lost
		n.wreak(100, false)
		n.made++
		n.c.mu.Lock()
		lost = "u" + strconv.Itoa(n.made)
		n.c.mu.Unlock()
		n.c.write(kwatch.Added, pod("victim", lost, 0, "Pending"))
		n.c.write(kwatch.Modified, pod("victim", lost, 0, "Running"))
		n.rest()
		n.c.write(kwatch.Deleted, pod("victim", lost, 0, "Running"))
		n.wreak(60, false)
		o := n.finish()
		o.shape()
		o.complete()
		if last := o.told[lost][len(o.told[lost])-1]; last.To != statesync.Cancelled || !last.ObservedLate {
			t.Errorf("the lost deletion was told as %s (late %v), want Cancelled, late", last.To, last.ObservedLate)
		}
		if got := corrections(n.reg); got != 1 {
			t.Errorf("%v corrections, want 1", got)
		}
	})
}

// TestALogThatBeginsAnewIsMadeUpFor: it has lost its objects, and some of what
// it knew of streams and workloads, alive or not.
func TestALogThatBeginsAnewIsMadeUpFor(t *testing.T) {
	seeds(t, 30, func(t *testing.T, seed uint64) {
		n := newNemesis(t, seed)
		n.firstList()
		n.wreak(60, false)
		forgotten := map[string]bool{}
		for range 1 + n.rand.IntN(2) {
			down := n.rand.IntN(2) == 0
			if down {
				n.kill()
			}
			all := n.rand.IntN(2) == 0
			n.log.beginAnew(func(name string) bool {
				if name == "pods" || name == "jobs" {
					return n.rand.IntN(2) == 0
				}
				if !all && n.rand.IntN(3) == 0 {
					forgotten[name] = true
				}
				return !forgotten[name]
			})
			if down {
				n.start()
			}
			n.wreak(40, false)
		}
		o := n.finish()
		o.forgotten = forgotten
		o.shape()
		o.present()
		for _, stream := range []string{"pods", "jobs"} {
			if !slices.ContainsFunc(o.gaps[stream], func(g statesync.Gap) bool { return g.Reason == statesync.GapLedgerLost }) {
				t.Errorf("gaps of %s %v, want one of the log", stream, o.gaps[stream])
			}
		}
	})
}

// TestAConfigurationThatChangesLosesNoStory: namespaces come and go
// while the watcher is down; labels, which a selector reads, all the time.
func TestAConfigurationThatChangesLosesNoStory(t *testing.T) {
	seeds(t, 30, func(t *testing.T, seed uint64) {
		n := newNemesis(t, seed)
		n.spaces = []string{"one", "two", "three"}
		changed := false
		var selects func(metav1.Object) bool
		configure := func() {
			spaces := [][]string{{""}, {"one"}, {"one", "two"}, {"two", "three"}}[n.rand.IntN(4)]
			selecting := n.rand.IntN(2) == 0
			selects = func(m metav1.Object) bool {
				return (spaces[0] == "" || slices.Contains(spaces, m.GetNamespace())) && (!selecting || m.GetLabels()["app"] == "x")
			}
			n.edit = func(o *Options) {
				if o.Streams = o.Streams[:1]; spaces[0] != "" {
					inNamespaces(spaces...)(o)
				}
				for i := range o.Streams {
					if selecting {
						selectingOf(o, i)
					}
				}
			}
		}
		configure()
		n.firstList()
		steady := n.rand.IntN(3) == 0
		for range 5 {
			n.wreak(30, false)
			if !steady && n.rand.IntN(3) > 0 {
				n.kill()
				configure()
				changed = true
				n.start()
			}
		}
		o := n.finish()
		o.selects = selects
		o.shape()
		o.present()
		if !changed && len(o.gaps) > 0 {
			t.Errorf("gaps %v although the history was there", o.gaps)
		}
	})
}

func corrections(reg *metrics.Registry) (sum float64) {
	for _, f := range reg.Gather() {
		if f.Desc.Name == "outrider_audit_corrections_total" {
			for _, p := range f.Points {
				sum += p.Value
			}
		}
	}
	return sum
}
