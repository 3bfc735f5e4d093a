package main

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"time"
	"unsafe"
)

// result is what a search found.
type result struct {
	states, transitions, rests, depth int
	cut                               bool // not everything was seen
	endless                           bool // some run never comes to rest; only if asked
	violation                         string
	trace                             []string
	took                              time.Duration
}

// search looks breadth first at every state that the configuration can reach:
// so the first counterexample is a shortest one.
//
// States are known by a 64-bit fingerprint. With n states the chance that two
// share one, and a part of the graph is not seen, is about n*n/2^65: one in
// 40,000 for 30 million.
type search struct {
	config    *config
	maxStates int
	cycles    bool      // look for endless runs too
	progress  io.Writer // a line now and then; nil: none
}

const progressEvery = 15 * time.Second

// run searches until everything was seen, a property is violated, or ctx
// ends.
func (q *search) run(ctx context.Context) (r result) {
	began := time.Now()
	g := graph{seen: newTable(), seed: maphash.MakeSeed()}
	defer func() { r.states, r.took = g.seen.len(), time.Since(began) }()
	x := &explorer{config: q.config}
	init := new(state)
	g.seen.add(g.fingerprint(init), 0)
	level := new(frontier)
	level.push(init, 1)
	told := began
	for level.len() > 0 {
		next := new(frontier)
		l := levelSearch{search: q, graph: &g, x: x, next: next, r: &r}
		if !level.each(l.visit) {
			r.trace = append(g.trace(q.config, l.from, l.bad), "=> "+r.violation)
			return r
		}
		level = next
		r.depth++
		if g.seen.len() > q.maxStates || ctx.Err() != nil {
			r.cut = level.len() > 0
			break
		}
		if q.progress != nil && time.Since(told) > progressEvery {
			told = time.Now()
			fmt.Fprintf(q.progress, "  %s: %d states, depth %d, %.0f s\n", q.config.Name, g.seen.len(), r.depth, time.Since(began).Seconds())
		}
	}
	r.endless = q.cycles && !r.cut && !g.acyclic()
	return r
}

// levelSearch visits the states of one depth.
type levelSearch struct {
	*search
	*graph
	x    *explorer
	next *frontier
	r    *result
	from uint32 // where a violation was found
	bad  *state // the state that violates; nil: from itself
}

// visit returns false once a property is violated.
func (l *levelSearch) visit(s *state, id uint32) bool {
	r := l.r
	busy := l.x.next(s, func(n *state, _ action, violation string) {
		if r.violation != "" {
			return
		}
		r.transitions++
		if violation != "" {
			bad := *n
			r.violation, l.from, l.bad = violation, id, &bad
			return
		}
		to, fresh := l.seen.add(l.fingerprint(n), id)
		if fresh {
			l.next.push(n, to)
		}
		if l.cycles {
			l.edges = append(l.edges, [2]uint32{id, to})
		}
	})
	if r.violation == "" && !busy {
		r.rests++
		r.violation, l.from = l.x.checkRest(s), id
	}
	return r.violation == ""
}

// graph is what was seen.
type graph struct {
	seen  *table
	seed  maphash.Seed
	edges [][2]uint32
}

func (g *graph) fingerprint(s *state) uint64 {
	return max(1, maphash.Bytes(g.seed, stateBytes(s)[:]))
}

const stateSize = int(unsafe.Sizeof(state{}))

// stateBytes is the memory of a state. It has no padding and no pointers:
// all its fields are bytes.
func stateBytes(s *state) *[stateSize]byte { return (*[stateSize]byte)(unsafe.Pointer(s)) }

// acyclic sorts the states so that every step leads forward (Kahn), and
// reports whether that can be done: without a cycle every run ends.
func (g *graph) acyclic() bool {
	n := g.seen.len()
	in := make([]int32, n+1)
	start := make([]uint32, n+2)
	for _, e := range g.edges {
		in[e[1]]++
		start[e[0]+1]++
	}
	for i := 1; i < len(start); i++ {
		start[i] += start[i-1]
	}
	to := make([]uint32, len(g.edges))
	at := append([]uint32(nil), start...)
	for _, e := range g.edges {
		to[at[e[0]]] = e[1]
		at[e[0]]++
	}
	ready := []uint32{1}
	sorted := 0
	for len(ready) > 0 {
		v := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		sorted++
		for _, w := range to[start[v]:start[v+1]] {
			if in[w]--; in[w] == 0 {
				ready = append(ready, w)
			}
		}
	}
	return sorted == n
}
