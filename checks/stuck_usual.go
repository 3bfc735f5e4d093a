package checks

import (
	"cmp"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// What is usual is learnt from workloads that are followed from one look to the
// next: one that has gone on tells how long it was in the state before. One that
// vanished tells nothing, nor does one that was deleted: it was not done.
//
// A kind's workloads are followed by the hash of their UID: all of them, until there
// are too many, then every second, every fourth. Unlike the first ones or the last
// ones that came, these are a fair sample.

const (
	maxFollowed = 1024 // of a kind
	maxDone     = 512  // of a kind and a state: the last ones
	maxKinds    = 200
)

type kindState struct {
	kind  string
	state statesync.State
}

func (a kindState) compare(b kindState) int {
	return cmp.Or(strings.Compare(a.kind, b.kind), strings.Compare(string(a.state), string(b.state)))
}

// usual is what is learnt, by kind.
type usual map[string]*kindUsual

type kindUsual struct {
	seed     maphash.Seed
	mask     uint64 // of the hashes that are followed
	followed map[string]*followed
	done     map[statesync.State]*done
}

type followed struct {
	state statesync.State
	since time.Time
	seen  bool // in this look
}

// done are the last times, in seconds.
type done struct {
	seconds []float64
	next    int
}

func (u usual) begin() {
	for _, k := range u {
		for _, f := range k.followed {
			f.seen = false
		}
	}
}

func (u usual) end() {
	for _, k := range u {
		for uid, f := range k.followed {
			if !f.seen {
				delete(k.followed, uid)
			}
		}
	}
}

func (u usual) kind(name string) *kindUsual {
	k := u[name]
	if k == nil && len(u) < maxKinds {
		k = &kindUsual{seed: maphash.MakeSeed(), followed: map[string]*followed{}, done: map[statesync.State]*done{}}
		u[name] = k
	}
	return k
}

// see takes in a workload.
func (u usual) see(w Workload) {
	k := u.kind(w.Kind)
	if k == nil || maphash.String(k.seed, w.UID)&k.mask != 0 {
		return
	}
	f := k.followed[w.UID]
	if f == nil {
		if w.State.Ended() {
			return
		}
		k.followed[w.UID] = &followed{w.State, w.Since, true}
		k.thin()
		return
	}
	if f.state != w.State && w.State != statesync.Deleted && w.State != statesync.Untracked {
		u.learn(kindState{w.Kind, f.state}, w.Since.Sub(f.since).Seconds())
	}
	f.state, f.since, f.seen = w.State, w.Since, !w.State.Ended()
}

// thin follows half as many, until they are few enough.
func (k *kindUsual) thin() {
	for len(k.followed) > maxFollowed {
		k.mask = k.mask<<1 | 1
		for uid := range k.followed {
			if maphash.String(k.seed, uid)&k.mask != 0 {
				delete(k.followed, uid)
			}
		}
	}
}

func (u usual) learn(ks kindState, seconds float64) {
	k := u.kind(ks.kind)
	if k == nil || ks.state.Ended() || !(seconds >= 0) || math.IsInf(seconds, 0) {
		return
	}
	d := k.done[ks.state]
	if d == nil {
		d = &done{}
		k.done[ks.state] = d
	}
	if len(d.seconds) < maxDone {
		d.seconds = append(d.seconds, seconds)
		return
	}
	d.seconds[d.next] = seconds
	d.next = (d.next + 1) % maxDone
}

// p99 is how long 99 % of n workloads were at most in a state, in seconds.
func (u usual) p99(ks kindState) (seconds float64, n int) {
	k := u[ks.kind]
	if k == nil || k.done[ks.state] == nil {
		return 0, 0
	}
	sorted := slices.Sorted(slices.Values(k.done[ks.state].seconds))
	n = len(sorted)
	return sorted[(n*99+99)/100-1], n
}

// learnt is what to keep over a restart: seconds by kind and state, oldest first.
func (u usual) learnt() map[string]map[statesync.State][]float64 {
	out := map[string]map[statesync.State][]float64{}
	for kind, k := range u {
		for state, d := range k.done {
			if out[kind] == nil {
				out[kind] = map[statesync.State][]float64{}
			}
			out[kind][state] = slices.Concat(d.seconds[d.next:], d.seconds[:d.next])
		}
	}
	return out
}
