package watch

import (
	"fmt"
	"slices"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/statesync"
)

// An oracle holds what the log has against what happened.
type oracle struct {
	n    *nemesis
	t    *testing.T
	told map[string][]statesync.Change // by UID
	gaps map[string][]statesync.Gap    // by stream

	since     map[string]uint64        // version of the first list, by stream: what was before nobody has seen
	forgotten map[string]bool          // UIDs that the log has lost
	selects   func(metav1.Object) bool // what is watched at the end; nil: all
}

func newOracle(n *nemesis) *oracle {
	o := &oracle{n: n, t: n.t, told: map[string][]statesync.Change{}, gaps: map[string][]statesync.Gap{}, since: map[string]uint64{}}
	for _, e := range n.log.durable() {
		if e.Resume != nil && o.since[e.Resume.Stream] == 0 {
			o.since[e.Resume.Stream] = e.Resume.Version
		}
		for _, c := range e.Changes {
			if c.Gap != nil {
				o.gaps[c.Gap.Stream] = append(o.gaps[c.Gap.Stream], *c.Gap)
			} else {
				o.told[c.Workload.UID] = append(o.told[c.Workload.UID], c)
			}
		}
	}
	return o
}

// shape: seqs without holes, each change begins where the last one ended, no
// ID twice, nothing after an end within an epoch, and of two lives of one
// name the first ends before the second begins. A workload that the log has
// lost begins anew. What is told as gone is.
func (o *oracle) shape() {
	ids := map[string]bool{}
	open := map[statesync.Key]string{}
	for _, e := range o.n.log.durable() {
		for _, c := range e.Changes {
			if ids[c.ID] {
				o.t.Errorf("two changes with the ID %s: %s %s", c.ID, c.Workload.UID, c.To)
			}
			ids[c.ID] = true
			if c.Gap != nil {
				continue
			}
			key := c.Workload.Key()
			if other := open[key]; other != "" && !o.forgotten[other] && other != c.Workload.UID {
				o.t.Errorf("%s of %s is told before the end of %s, which has the name %s", c.To, c.Workload.UID, other, key)
			}
			if open[key] = c.Workload.UID; c.To.Ended() {
				delete(open, key)
			}
		}
	}
	_, deleted := o.truths()
	for uid, told := range o.told {
		last := statesync.Change{}
		for _, c := range told {
			if o.forgotten[uid] && c.Seq == 1 && c.Epoch > last.Epoch {
				last = statesync.Change{}
			}
			if c.Seq != last.Seq+1 || c.From != last.To || c.To == last.To || c.Epoch < last.Epoch {
				o.t.Errorf("%s: %s after %s has seq %d, from %q, epoch %d; the one before has seq %d, epoch %d", uid, c.To, last.To, c.Seq, c.From, c.Epoch, last.Seq, last.Epoch)
			}
			if c.To == statesync.Cancelled && deleted[uid] == 0 && o.n.log.epoch == 1 {
				o.t.Errorf("%s was told as %s, and nobody deleted it", uid, c.To)
			}
			if last.To.Ended() && last.To != statesync.Untracked && c.Epoch == last.Epoch {
				o.t.Errorf("%s: %s follows the end %s", uid, c.To, last.To)
			}
			last = c
		}
	}
}

// A truth is a state that a workload was in, and since which version.
type truth struct {
	state    statesync.State
	version  int
	resource string
}

// truths derives from the history what is to be told of each workload.
func (o *oracle) truths() (out map[string][]truth, deleted map[string]int) {
	out, deleted = map[string][]truth{}, map[string]int{}
	add := func(uid string, state statesync.State, version int, resource string) {
		if s := out[uid]; len(s) == 0 || s[len(s)-1].state != state && !s[len(s)-1].state.Ended() {
			out[uid] = append(s, truth{state, version, resource})
		}
	}
	for i, h := range o.n.c.events {
		v, uid := i+1, uidOf(h.object)
		p, isPod := h.object.(*corev1.Pod)
		owner := metav1.GetControllerOf(h.object.(metav1.Object))
		switch {
		case isPod && owner != nil:
			if s := out[string(owner.UID)]; p.Status.Phase == "Running" && h.typ != kwatch.Deleted && len(s) > 0 && s[len(s)-1].state == statesync.Queued {
				add(string(owner.UID), statesync.Running, v, "pods")
			}
			continue
		case h.typ == kwatch.Deleted:
			add(uid, statesync.Cancelled, v, h.resource)
			deleted[uid] = v
		case isPod:
			add(uid, map[corev1.PodPhase]statesync.State{"Pending": statesync.Queued, "Running": statesync.Running, "Succeeded": statesync.Succeeded, "Failed": statesync.Failed}[p.Status.Phase], v, h.resource)
		case len(h.object.(*batchv1.Job).Status.Conditions) > 0:
			if s := out[uid]; len(s) > 0 && s[len(s)-1].state == statesync.Queued {
				add(uid, statesync.Running, v, h.resource) // it cannot have succeeded otherwise
			}
			add(uid, statesync.Succeeded, v, h.resource)
		default:
			add(uid, statesync.Queued, v, h.resource)
		}
	}
	return out, deleted
}

// complete: what is told of each workload is what happened, but for what a gap
// covers.
func (o *oracle) complete() {
	truths, deleted := o.truths()
	for uid, want := range truths {
		if v := deleted[uid]; v > 0 && uint64(v) <= o.since[want[0].resource] {
			if len(o.told[uid]) > 0 {
				o.t.Errorf("%s was told, and was gone before the first list", uid)
			}
			continue
		}
		var got []statesync.State
		for _, c := range o.told[uid] {
			got = append(got, c.To)
		}
		i := 0
		for _, w := range want {
			switch {
			case i < len(got) && got[i] == w.state:
				i++
			case i < len(got) && got[i] == statesync.Cancelled && w.state.Ended() && o.inGap(truth{"", deleted[uid], w.resource}):
				i++ // it had ended, and was gone when we looked again
			case o.inGap(w):
			case w.resource != want[0].resource && (o.inGap(want[0]) || o.inGap(truth{"", deleted[uid], want[0].resource})):
				// of a Job that was not seen to begin or to end, pods may be gone, or not have been read
			case w.resource != want[0].resource && o.n.hasty: // there was no room to wait for the other stream
			default:
				o.t.Errorf("%s: told %v, want %v: %s since version %d is missing and in no gap %v", uid, got, states(want), w.state, w.version, o.gaps[w.resource])
			}
		}
		if i < len(got) {
			o.t.Errorf("%s: told %v, want %v", uid, got, states(want))
		}
	}
	for uid := range o.told {
		if truths[uid] == nil {
			o.t.Errorf("%s was told and never was", uid)
		}
	}
}

// inGap reports whether nobody can tell what happened at a version.
func (o *oracle) inGap(w truth) bool {
	if w.version > 0 && uint64(w.version) <= o.since[w.resource] {
		return true
	}
	return slices.ContainsFunc(o.gaps[w.resource], func(g statesync.Gap) bool {
		return uint64(w.version) > g.FromRV && uint64(w.version) <= g.ToRV
	})
}

// present: the last thing told of each workload is where it stands; those that
// are gone, or not watched any more, have ended.
func (o *oracle) present() {
	here := map[string]statesync.State{}
	for _, obj := range o.n.c.now("pods") {
		p := obj.(*corev1.Pod)
		if p.OwnerReferences == nil && (o.selects == nil || o.selects(p)) {
			here[uidOf(p)] = map[corev1.PodPhase]statesync.State{"Pending": statesync.Queued, "Running": statesync.Running, "Succeeded": statesync.Succeeded, "Failed": statesync.Failed}[p.Status.Phase]
		}
	}
	for _, obj := range o.n.c.now("jobs") {
		j := obj.(*batchv1.Job)
		switch told := o.told[uidOf(j)]; {
		case len(j.Status.Conditions) > 0:
			here[uidOf(j)] = statesync.Succeeded
		case len(told) > 0 && told[len(told)-1].To == statesync.Running:
			here[uidOf(j)] = statesync.Running // its pod may have run and be gone
		default:
			here[uidOf(j)] = statesync.Queued
		}
	}
	for uid, state := range here {
		told := o.told[uid]
		if len(told) == 0 {
			o.t.Errorf("%s is %s, and nothing was told of it", uid, state)
		} else if last := told[len(told)-1].To; last != state && (!last.Ended() || last == statesync.Untracked || !state.Ended()) {
			o.t.Errorf("%s is %s, and was last told as %s", uid, state, last)
		}
	}
	for uid, told := range o.told {
		if last := told[len(told)-1]; here[uid] == "" && !o.forgotten[uid] && !last.To.Ended() {
			o.t.Errorf("%s is gone, and was last told as %s", uid, last.To)
		}
	}
}

func states(ts []truth) (out []string) {
	for _, t := range ts {
		out = append(out, fmt.Sprintf("%s@%d", t.state, t.version))
	}
	return out
}
