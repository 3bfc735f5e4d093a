package simcluster

import (
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// maxLapses bounds those that are over and remembered.
const maxLapses = 10_000

// A Lapse is what a client could never be told by a watch: what happened to a
// resource after it was refused with 410, and before the list with which it
// began anew.
type Lapse struct {
	Resource string    // plural, or plural.group
	From, To int64     // versions: what is after From and not after To was not told
	Until    time.Time // when the list was answered
}

// lapses are those of a server that has one client. Lists and watches of the
// whole cluster without a selector count, and no others.
type lapses struct {
	mu     sync.Mutex // guards what follows
	latest map[schema.GroupResource]*lapse
	order  []schema.GroupResource // of latest
	over   []Lapse
}

// A lapse goes on until there was a list, and a watch from it or with it: who
// lists again has not got what the first list said.
type lapse struct {
	Lapse
	followed bool
}

// Lapses are those after which there was a list: first those that are over, and
// then, of each resource, the last one, which may still become longer.
func (s *Server) Lapses() []Lapse {
	l := &s.lapses
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.Clone(l.over)
	for _, r := range l.order {
		if one := l.latest[r]; one.To > one.From {
			out = append(out, one.Lapse)
		}
	}
	return out
}

// refused notes that a watch was answered 410, and how far it had come.
func (l *lapses) refused(q *query, r *Resource, from int64) {
	if !q.whole() || from == 0 { // with 0 it was to begin with what is there
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	of := r.groupResource()
	before := l.latest[of]
	switch {
	case before == nil:
		if l.latest == nil {
			l.latest = map[schema.GroupResource]*lapse{}
		}
		l.order = append(l.order, of)
	case !before.followed && (before.To == 0 || from < before.To):
		before.From = min(before.From, from)
		return
	case before.To > before.From && len(l.over) < maxLapses:
		l.over = append(l.over, before.Lapse)
	}
	l.latest[of] = &lapse{Lapse: Lapse{Resource: of.String(), From: from}}
}

// listed notes that all was told as of a version.
func (l *lapses) listed(q *query, r *Resource, version int64) {
	if !q.whole() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.latest[r.groupResource()]; one != nil && !one.followed {
		one.To, one.Until = version, time.Now()
	}
}

// followed notes that a watch goes on from a version.
func (l *lapses) followed(q *query, r *Resource, from int64) {
	if !q.whole() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.latest[r.groupResource()]; one != nil && one.To > 0 && from >= one.To {
		one.followed = true
	}
}

// whole reports whether all of a resource is asked for. A list of one asks for
// the version.
func (q *query) whole() bool {
	return q.namespace == "" && q.labels.Empty() && q.fields.Empty() && q.Limit != 1
}
