package watch

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/statesync"
)

// rollouts is a nemesis of Deployments, their ReplicaSets and their pods: it
// rolls them over, deletes them in each of the three ways, orphans and adopts,
// while the agent dies and streams come late.
type rollouts struct {
	*nemesis
	hop      bool            // ReplicaSets are read by their metadata alone
	foldOnly bool            // pods tell no stories of their own
	doomed   map[string]bool // UIDs of what is being deleted: nothing new comes of it
	todo     []func()        // what the garbage collector has yet to do, in its order
	settled  []int           // versions of times at which the agent had read all
	did      []string        // what happened, for a failure
}

func newRollouts(t *testing.T, seed uint64) *rollouts {
	n := &nemesis{t: t, rand: rand.New(rand.NewPCG(seed, 3)), c: newCluster(), log: newRecord()}
	n.most = []int{20, 1000}[n.rand.IntN(2)]
	n.log.hold, n.log.bound = true, []int{0, 0, 2, 8}[n.rand.IntN(4)]
	r := &rollouts{nemesis: n, hop: n.rand.IntN(2) == 0, foldOnly: n.rand.IntN(5) == 0, doomed: map[string]bool{}}
	n.edit = func(o *Options) {
		o.Streams = o.Streams[:1]
		if r.foldOnly {
			podsFoldOnly(o)
		}
		withDeployments(o)
		if r.hop {
			withHop(o)
		} else {
			withReplicaSets(o)
		}
	}
	r.write(kwatch.Added, replicaSet("first", r.uid(), 0)) // no cluster has version 0
	return r
}

func (r *rollouts) uid() string {
	r.made++
	return "u" + strconv.Itoa(r.made)
}

func (r *rollouts) write(typ kwatch.EventType, obj runtime.Object) {
	m := obj.(metav1.Object)
	owner := ""
	if c := metav1.GetControllerOfNoCopy(m); c != nil {
		owner = " of " + c.Name + " " + string(c.UID)
	}
	r.note("%d %s %s %s %s%s", r.c.head()+1, typ, resourceOf(obj), m.GetName(), m.GetUID(), owner)
	r.c.write(typ, obj)
}

func (r *rollouts) note(format string, args ...any) {
	r.did = append(r.did, fmt.Sprintf(format, args...))
}

// anyOf picks one that fits of what exists; false: there is none.
func anyOf[T interface {
	runtime.Object
	metav1.Object
}](r *rollouts, resource string, fits func(T) bool,
) (picked T, ok bool) {
	var all []T
	for _, obj := range r.c.source(resource).holds() {
		if o := obj.(T); !r.doomed[string(o.GetUID())] && (fits == nil || fits(o)) {
			all = append(all, o)
		}
	}
	if len(all) == 0 {
		return picked, false
	}
	return all[r.rand.IntN(len(all))], true
}

// again reads an object, if it is still there.
func (r *rollouts) again(obj runtime.Object) runtime.Object {
	m := obj.(metav1.Object)
	now, ok := r.c.now(resourceOf(obj))[m.GetNamespace()+"/"+m.GetName()]
	if !ok || uidOf(now) != uidOf(obj) {
		return nil
	}
	return now.DeepCopyObject()
}

// dependents are what an object controls.
func (r *rollouts) dependents(of runtime.Object) (out []runtime.Object) {
	resource := map[string]string{"deployments": "replicasets", "replicasets": "pods"}[resourceOf(of)]
	if resource == "" {
		return nil
	}
	for _, obj := range r.c.source(resource).holds() {
		if c := metav1.GetControllerOfNoCopy(obj.(metav1.Object)); c != nil && string(c.UID) == uidOf(of) {
			out = append(out, obj)
		}
	}
	return out
}

func (r *rollouts) taken(resource, name string) bool {
	_, taken := r.c.now(resource)["load/"+name]
	return taken
}

// act does one random thing.
func (r *rollouts) act() {
	if len(r.todo) > 0 && r.rand.IntN(2) == 0 {
		r.collect()
		return
	}
	switch k := r.rand.IntN(22); {
	case k < 2:
		if name := "d" + strconv.Itoa(r.rand.IntN(3)); !r.taken("deployments", name) {
			r.write(kwatch.Added, deployment(name, r.uid(), 0, wants(1)))
		}
	case k < 5:
		if d, ok := anyOf[*appsv1.Deployment](r, "deployments", nil); ok {
			uid := r.uid()
			r.write(kwatch.Added, under(replicaSet(d.Name+"-"+uid, uid, 0), d))
		}
	case k < 6:
		if name := "r" + strconv.Itoa(r.rand.IntN(2)); !r.taken("replicasets", name) {
			r.write(kwatch.Added, replicaSet(name, r.uid(), 0))
		}
	case k < 7:
		if name := "b" + strconv.Itoa(r.rand.IntN(2)); !r.taken("pods", name) {
			r.write(kwatch.Added, pod(name, r.uid(), 0, "Pending"))
		}
	case k < 12:
		if rs, ok := anyOf[*appsv1.ReplicaSet](r, "replicasets", nil); ok {
			uid := r.uid()
			r.write(kwatch.Added, under(pod(rs.Name+"-"+uid, uid, 0, "Pending"), rs))
		}
	case k < 16:
		r.movePod()
	case k < 19:
		r.scale()
	case k < 20:
		r.remove()
	default:
		r.adopt()
	}
}

func (r *rollouts) movePod() {
	p, ok := anyOf[*corev1.Pod](r, "pods", nil)
	switch {
	case !ok:
	case r.rand.IntN(6) == 0:
		r.write(kwatch.Deleted, p)
	case p.Status.Phase == "Pending":
		p.Status.Phase = "Running"
		r.write(kwatch.Modified, p)
	case p.Status.Phase == "Running":
		p.Status.Phase = []corev1.PodPhase{"Succeeded", "Failed"}[r.rand.IntN(2)]
		r.write(kwatch.Modified, p)
	}
}

func (r *rollouts) scale() {
	want, available := int32(r.rand.IntN(3)), int32(r.rand.IntN(2))
	if r.rand.IntN(2) == 0 {
		if rs, ok := anyOf[*appsv1.ReplicaSet](r, "replicasets", nil); ok {
			rs.Spec.Replicas, rs.Status.AvailableReplicas = &want, available
			r.write(kwatch.Modified, rs)
		}
		return
	}
	if d, ok := anyOf[*appsv1.Deployment](r, "deployments", nil); ok {
		d.Spec.Replicas, d.Status.AvailableReplicas = &want, available
		r.write(kwatch.Modified, d)
	}
}

func (r *rollouts) adopt() {
	bare := func(m metav1.Object) bool { return m.GetOwnerReferences() == nil }
	rs, ok := anyOf(r, "replicasets", func(rs *appsv1.ReplicaSet) bool { return bare(rs) })
	d, found := anyOf[*appsv1.Deployment](r, "deployments", nil)
	if ok && found && r.rand.IntN(2) == 0 {
		r.write(kwatch.Modified, under(rs, d))
		return
	}
	p, ok := anyOf(r, "pods", func(p *corev1.Pod) bool { return bare(p) })
	if rs, found := anyOf[*appsv1.ReplicaSet](r, "replicasets", nil); ok && found {
		r.write(kwatch.Modified, under(p, rs))
	}
}

// remove deletes a Deployment or a ReplicaSet as kubectl and the garbage
// collector do: in the background, in the foreground, or with its dependents
// orphaned.
func (r *rollouts) remove() {
	var obj runtime.Object
	if d, ok := anyOf[*appsv1.Deployment](r, "deployments", nil); ok && r.rand.IntN(3) > 0 {
		obj = d
	} else if rs, ok := anyOf[*appsv1.ReplicaSet](r, "replicasets", nil); ok {
		obj = rs
	} else {
		return
	}
	r.doomed[uidOf(obj)] = true
	switch r.rand.IntN(3) {
	case 0:
		r.note("delete %s in the background", uidOf(obj))
		r.doom(obj)
		r.goes(obj)
	case 1:
		r.note("delete %s in the foreground", uidOf(obj))
		now := metav1.Now().Rfc3339Copy()
		obj.(metav1.Object).SetDeletionTimestamp(&now)
		r.write(kwatch.Modified, obj)
		r.doom(obj)
		r.later(func() { r.goesAfterAll(obj) })
	default:
		r.note("delete %s, its dependents orphaned", uidOf(obj))
		r.later(func() {
			for _, child := range r.dependents(obj) {
				r.later(func() {
					if now := r.again(child); now != nil {
						alone(now.(metav1.Object))
						r.write(kwatch.Modified, now)
					}
				})
			}
			r.later(func() {
				if now := r.again(obj); now != nil {
					r.write(kwatch.Deleted, now)
				}
			})
		})
	}
}

// doom: nothing new comes of what is deleted with its owner.
func (r *rollouts) doom(obj runtime.Object) {
	for _, child := range r.dependents(obj) {
		r.doomed[uidOf(child)] = true
		r.doom(child)
	}
}

// goes deletes an object; what it controls goes after it.
func (r *rollouts) goes(obj runtime.Object) {
	if now := r.again(obj); now != nil {
		r.write(kwatch.Deleted, now)
	}
	for _, child := range r.dependents(obj) {
		r.later(func() { r.goes(child) })
	}
}

// goesAfterAll deletes what an object controls, then the object.
func (r *rollouts) goesAfterAll(obj runtime.Object) {
	children := r.dependents(obj)
	if len(children) == 0 {
		if now := r.again(obj); now != nil {
			r.write(kwatch.Deleted, now)
		}
		return
	}
	for _, child := range children {
		r.later(func() { r.goesAfterAll(child) })
	}
	r.later(func() { r.goesAfterAll(obj) })
}

func (r *rollouts) later(do func()) { r.todo = append(r.todo, do) }

// collect does the next thing that the garbage collector has to do.
func (r *rollouts) collect() {
	do := r.todo[0]
	r.todo = r.todo[1:]
	do()
}

func (r *rollouts) kill() {
	r.note("kill, at %d", r.c.head())
	r.nemesis.kill()
}

// begin starts the watcher on what has happened by then, and may kill it while
// its first lists become durable.
func (r *rollouts) begin() {
	for range r.rand.IntN(40) {
		r.act()
	}
	for r.start(); r.rand.IntN(3) == 0; r.start() {
		for range r.rand.IntN(6) {
			synctest.Wait()
			r.log.release(1)
		}
		r.kill()
		for range r.rand.IntN(4) {
			r.act()
		}
	}
	synctest.Wait()
	r.log.release(1 << 20)
}

// wreak does steps random things to cluster, log and agent.
func (r *rollouts) wreak(steps int) {
	resources := []string{"pods", "replicasets", "deployments"}
	for range steps {
		resource := resources[r.rand.IntN(3)]
		switch k := r.rand.IntN(44); {
		case k < 24:
			r.act()
		case k < 31:
			synctest.Wait()
			r.log.release(1 + r.rand.IntN(4))
		case k < 34:
			time.Sleep(time.Duration(r.rand.IntN(1500)) * time.Millisecond) // sleep: in a bubble
		case k < 35:
			r.c.bookmark()
		case k < 36:
			r.c.cut()
		case k < 38:
			r.note("cut off %s", resource)
			r.c.cutOff(resource)
		case k < 39:
			r.note("refuse %s", resource)
			r.c.refusing(resource, apierrors.NewServiceUnavailable("starting"))
			r.c.cutOff(resource)
		case k < 40:
			r.fail()
			r.c.cut()
		case k < 42:
			time.Sleep(time.Duration(r.rand.IntN(3000)) * time.Millisecond) // sleep: in a bubble
			r.well()
		case r.killed < 8:
			r.kill()
			for range r.rand.IntN(8) {
				r.act()
			}
			r.start()
		}
	}
}

// well ends all that fails.
func (r *rollouts) well() {
	r.c.failing(nil)
	for _, resource := range []string{"pods", "replicasets", "deployments"} {
		r.c.refusing(resource, nil)
	}
}

// settle lets the garbage collector do all that it has to, and the agent read
// all that happened.
func (r *rollouts) settle() {
	for len(r.todo) > 0 {
		r.collect()
	}
	r.well()
	r.rest()
	r.settled = append(r.settled, r.c.head())
	r.note("settled, at %d", r.c.head())
}

// stories holds what was told against the history. Its rules:
//   - A Deployment's story is its own. A ReplicaSet's is, once it was seen
//     without a controller; a pod's too, or with one of which no story is told.
//   - What told a story of its own goes on with it, whoever adopts it.
//   - What another stream says comes sooner or later: of a pod whose ReplicaSet
//     is no workload itself, and was in no Deployment at some time, it is only
//     known that it tells if that was so when all had been read; and when it
//     tells, then all that happens to it from then on.
type stories struct {
	*oracle
	r    *rollouts
	bare map[string][][2]int // when ReplicaSets had no controller, or were gone before the first list
}

// check holds every object's story against what happened to it.
func (o *stories) check() {
	lives := map[string][]happening{}
	versions := map[string][]int{}
	for i, h := range o.n.c.events {
		uid := uidOf(h.object)
		lives[uid], versions[uid] = append(lives[uid], h), append(versions[uid], i+1)
	}
	for uid, life := range lives {
		got := []statesync.State{}
		for _, c := range o.told[uid] {
			if !c.Reconstructed {
				got = append(got, c.To)
			}
		}
		resource := life[0].resource
		tells := resource == "deployments" || resource == "replicasets" && !o.r.hop || resource == "pods" && !o.r.foldOnly
		from, exact, must := o.own(life, versions[uid])
		since := int(o.since[resource])
		want := path(life, versions[uid], max(since, from))
		exact = exact && !(o.r.hasty && o.r.hop && resource == "pods") // else there was no room to wait for the other stream
		switch {
		case !tells || exact && from == 0:
			want = nil
		case exact:
		case len(got) == 0 && !must:
			want = nil
		default:
			if want = path(life, versions[uid], since); len(got) > 0 && len(got) <= len(want) {
				want = want[len(want)-len(got):]
			}
		}
		if !slices.Equal(got, want) {
			o.t.Errorf("%s %s: told %v, want %v (own from %d, exact %v, must %v, first list %d)", resource, uid, got, want, from, exact, must, since)
		}
	}
}

// own says from which version on an object tells a story of its own, 0: it
// never does; whether it is known exactly; and, if not, whether it must have
// told.
func (o *stories) own(life []happening, versions []int) (from int, exact, must bool) {
	exact = true
	resource := life[0].resource
	since := int(o.since[resource])
	for i, h := range life {
		next := len(o.n.c.events) + 1
		if i+1 < len(life) {
			next = versions[i+1]
		}
		if h.typ == kwatch.Deleted || next <= since && h.typ != kwatch.Deleted && i+1 < len(life) {
			continue
		}
		own := resource == "deployments" || controllerOf(h) == ""
		at := max(versions[i], since)
		for _, bare := range o.bare[string(controllerOf(h))] {
			if resource != "pods" || !o.r.hop {
				break
			}
			exact = false
			must = must || o.settledWithin(max(at, bare[0]), min(next, bare[1]))
		}
		if own {
			if from == 0 {
				from = at
			}
			must = must || o.settledWithin(at, next)
		}
	}
	return from, exact, must
}

// settledWithin reports whether the agent had read all at a version of [from, to).
func (o *stories) settledWithin(from, to int) bool {
	return slices.ContainsFunc(o.r.settled, func(s int) bool { return s >= from && s < to })
}

// findBare notes from which version to which each ReplicaSet had no controller.
func (o *stories) findBare() {
	for i, h := range o.n.c.events {
		if h.resource != "replicasets" {
			continue
		}
		uid := uidOf(h.object)
		if all := o.bare[uid]; len(all) > 0 {
			all[len(all)-1][1] = min(all[len(all)-1][1], i+1)
		}
		if h.typ != kwatch.Deleted && controllerOf(h) == "" || h.typ == kwatch.Deleted && i < int(o.since["replicasets"]) {
			o.bare[uid] = append(o.bare[uid], [2]int{i + 1, math.MaxInt})
		}
	}
}

func controllerOf(h happening) types.UID {
	if c := metav1.GetControllerOfNoCopy(h.object.(metav1.Object)); c != nil {
		return c.UID
	}
	return ""
}

// path is the states that an object was in since a version, and its end.
func path(life []happening, versions []int, since int) (out []statesync.State) {
	last := statesync.State("")
	for i, h := range life {
		state := stateOf(h)
		switch {
		case i+1 < len(life) && versions[i+1] <= since, last.Ended():
			continue
		case h.typ == kwatch.Deleted && versions[i] <= since:
			return nil
		case last == statesync.Running && state == statesync.Queued && h.object.(metav1.Object).GetDeletionTimestamp() != nil:
			continue // it waits for none
		}
		if state != last {
			out = append(out, state)
		}
		last = state
	}
	return out
}

func stateOf(h happening) statesync.State {
	available := int32(0)
	switch obj := h.object.(type) {
	case *corev1.Pod:
		ended := obj.Status.Phase == "Succeeded" || obj.Status.Phase == "Failed"
		if h.typ == kwatch.Deleted && !ended {
			return statesync.Cancelled
		}
		return map[corev1.PodPhase]statesync.State{"Pending": statesync.Queued, "Running": statesync.Running, "Succeeded": statesync.Succeeded, "Failed": statesync.Failed}[obj.Status.Phase]
	case *appsv1.Deployment:
		available = obj.Status.AvailableReplicas
	case *appsv1.ReplicaSet:
		available = obj.Status.AvailableReplicas
	}
	switch {
	case h.typ == kwatch.Deleted:
		return statesync.Deleted
	case available > 0:
		return statesync.Running
	}
	return statesync.Queued
}

// shape: no ID twice, seqs without holes, each change begins where the one
// before ended, nothing follows an end.
func (o *stories) shape() {
	ids := map[string]bool{}
	for uid, told := range o.told {
		last := statesync.Change{}
		for _, c := range told {
			if c.Seq != last.Seq+1 || c.From != last.To || c.To == last.To || last.To.Ended() || ids[c.ID] {
				o.t.Errorf("%s: seq %d %s>%s (ID told before: %v) follows seq %d %s", uid, c.Seq, c.From, c.To, ids[c.ID], last.Seq, last.To)
			}
			ids[c.ID], last = true, c
		}
	}
	if len(o.gaps) > 0 {
		o.t.Errorf("gaps %v although the history was there", o.gaps)
	}
}

// remembers holds what the watcher knows at the end against the cluster: who
// is whose root, and that nothing is kept for longer than it is of use.
func (r *rollouts) remembers() {
	for range 2 { // a minute at least
		r.rest()
	}
	w := r.w
	w.mu.Lock()
	defer w.mu.Unlock()
	found := map[string]int{}
	for _, s := range w.streams {
		if len(s.hops) > 0 {
			r.t.Errorf("stream %s remembers %v, want nothing", s.Name(), s.hops)
		}
		kept := map[string]bool{}
		for uid := range r.log.objects[s.Name()] {
			kept[uid] = true
		}
		for _, h := range s.objects {
			if h.unresolved {
				r.t.Errorf("%s %s: its root is not known", s.Name(), h.UID)
			}
			if h.Controller.UID != "" && h.Root.UID != "" && !h.own {
				root, unseen := w.root(h.Namespace, h.Controller)
				if unseen.UID == "" && root != h.Root {
					r.t.Errorf("%s %s: its root is %v, want %v", s.Name(), h.UID, h.Root, root)
				}
			}
			if s.FoldOnly && s.Kind.Name == "Pod" && h.Root.UID == "" {
				r.t.Errorf("%s %s folds into nothing, and is kept", s.Name(), h.UID)
			}
			if !kept[h.UID] {
				r.t.Errorf("%s %s is not in the log", s.Name(), h.UID)
			}
			delete(kept, h.UID)
			for _, by := range within(h.Object) {
				found[by]++
				if w.within[by][h.UID] != h.Object {
					r.t.Errorf("%s %s is not found by %s", s.Name(), h.UID, by)
				}
			}
		}
		if len(kept) > 0 {
			r.t.Errorf("stream %s: the log keeps %v, the indexer does not", s.Name(), kept)
		}
	}
	for by, objects := range w.within {
		if len(objects) != found[by] {
			r.t.Errorf("by %s %d objects are found, want %d", by, len(objects), found[by])
		}
	}
}

func TestADeploymentTellsOneStoryOverCrashesAndBrokenWatches(t *testing.T) {
	seeds(t, 30, func(t *testing.T, seed uint64) {
		r := newRollouts(t, seed)
		r.begin()
		r.wreak(80)
		r.settle()
		r.wreak(120)
		r.settle()
		r.remembers()
		r.stop()
		o := &stories{newOracle(r.nemesis), r, map[string][][2]int{}}
		o.findBare()
		o.shape()
		o.check()
		if t.Failed() {
			t.Logf("hop %v, pods fold only %v", r.hop, r.foldOnly)
			for _, line := range r.did {
				t.Log(line)
			}
		}
	})
}
