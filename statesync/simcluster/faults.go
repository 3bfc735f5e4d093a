package simcluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	defaultDelay      = 200 * time.Millisecond
	defaultRetryAfter = time.Second
	defaultSetBack    = 1000    // versions
	maxActive         = 1000    // faults that requests can add to
	maxUntold         = 100_000 // events that are remembered as never to be told

	mayNot = `%s is forbidden: User "simulated" cannot %s resource %q in API group %q at the cluster scope` // the API server's words
)

// A Fault is one thing that a server does wrong: once, again and again, or for
// a while.
type Fault struct {
	Kind       string        // one of FaultKinds
	Resource   string        // plural, or plural.group; empty: all
	For        time.Duration // 0: until it is cleared
	Every      time.Duration // 0: once; of what strikes at moments
	RetryAfter time.Duration // of too-many: rounded up to seconds; default 1 s
	Delay      time.Duration // of slow; default 200 ms
	By         time.Duration // of clock: so far it goes on; negative: back
	Count      int           // of swallow and lose-delete: events, default 1; of set-back: versions, default 1000; of what answers with errors: answers, default all

	spare net.Conn // the connection that asked for it
}

// A kindOfFault says what goes with a fault.
type kindOfFault struct {
	name   string
	does   string
	moment bool // it strikes at moments; else it lasts
	waits  bool // for what it strikes, up to its end
	whole  bool // it strikes all resources
	fields []string
}

// faultKinds is read-only.
var faultKinds = []kindOfFault{
	{name: "end-watch", does: "open watches are ended", moment: true},
	{name: "cut", does: "every connection is reset", moment: true, whole: true},
	{name: "half-open", does: "every open connection carries nothing from now on, and does not close", moment: true, whole: true},
	{name: "swallow", does: "the next count events are never told", moment: true, waits: true, fields: []string{"count"}},
	{name: "lose-delete", does: "the next count deletions are never told", moment: true, waits: true, fields: []string{"count"}},
	{name: "compact", does: "the history is forgotten", moment: true, whole: true},
	{name: "set-back", does: "resourceVersions go on count lower, and every connection is reset", moment: true, whole: true, fields: []string{"count"}},
	{name: "clock", does: "the clock that objects are stamped by jumps: by=1h goes on, by=-1h back", moment: true, whole: true, fields: []string{"by"}},
	{name: "gone", does: "open watches, watches and continue tokens are answered 410", fields: []string{"count"}},
	{name: "too-many", does: "requests are answered 429", fields: []string{"retry-after", "count"}},
	{name: "error", does: "requests are answered 500", fields: []string{"count"}},
	{name: "slow", does: "answers and events come after a delay", fields: []string{"delay"}},
	{name: "forbid", does: "lists and watches are answered 403, and open watches are ended"},
	{name: "remove", does: "the resource is taken away with its objects, and given back empty"},
}

// FaultKinds are the kinds of faults and what they do, for a user.
func FaultKinds() (names, does []string) {
	for _, k := range faultKinds {
		names, does = append(names, k.name), append(does, k.does)
	}
	return names, does
}

// Faults are what a server does wrong at the moment. They are safe for
// concurrent use.
type Faults struct {
	cluster  *Cluster
	listener *listener
	changed  chan struct{} // has room for one

	mu      sync.Mutex // guards what follows
	active  []*active
	bells   map[*bell]struct{}
	untolds map[untold]struct{}
}

// An active fault.
type active struct {
	Fault
	until   time.Time // zero: until it is cleared
	next    time.Time // when it strikes; zero: no more
	left    int       // of count
	from    int64     // of what is not told: events after this version
	removed []*Resource
}

type untold struct {
	resource schema.GroupResource
	number   int64
}

// A bell rings when a watch is to end.
type bell struct {
	resource *Resource
	rung     chan struct{}
	why      error // nil: it just ends
}

func newFaults(c *Cluster, l *listener) *Faults {
	return &Faults{cluster: c, listener: l, changed: make(chan struct{}, 1), bells: map[*bell]struct{}{}, untolds: map[untold]struct{}{}}
}

// Add has the server do something wrong from now on. What strikes at moments
// waits until the server runs.
func (f *Faults) Add(fault Fault) error {
	if err := f.check(&fault); err != nil {
		return err
	}
	now := time.Now()
	a := &active{Fault: fault, next: now, left: fault.Count}
	if fault.For > 0 {
		a.until = now.Add(fault.For)
	}
	f.mu.Lock()
	f.active = append(f.active, a)
	f.mu.Unlock()
	f.wake()
	return nil
}

// Clear ends all faults, and what was never told may be told again.
func (f *Faults) Clear() {
	f.mu.Lock()
	for _, a := range f.active {
		a.until = time.Unix(0, 1)
	}
	clear(f.untolds)
	f.mu.Unlock()
	f.wake()
}

// Active are the faults of the moment, in the order in which they came.
func (f *Faults) Active() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Fault
	for _, a := range f.active {
		if !a.over(time.Now()) {
			out = append(out, a.Fault)
		}
	}
	return out
}

func (f *Faults) wake() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// check says what is wrong with a fault, and fills in what it leaves out.
func (f *Faults) check(fault *Fault) error {
	if err := fault.validate(); err != nil {
		return err
	}
	return fault.among(f.served())
}

// served are the cluster's resources, those that a fault has taken away for
// now too.
func (f *Faults) served() []*Resource {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.cluster.Resources()
	for _, a := range f.active {
		all = append(all, a.removed...)
	}
	return all
}

// among says whether a fault's resource is none of those given.
func (fault *Fault) among(all []*Resource) error {
	if fault.Resource == "" {
		return nil
	}
	names := make([]string, 0, len(all))
	for _, r := range all {
		if r.named(fault.Resource) {
			return nil
		}
		names = append(names, r.groupResource().String())
	}
	return fmt.Errorf("%s: got resource %.100q, want one of %s", fault.Kind, fault.Resource, strings.Join(names, ", "))
}

// validate checks all that needs no cluster.
func (fault *Fault) validate() error {
	i := slices.IndexFunc(faultKinds, func(k kindOfFault) bool { return k.name == fault.Kind })
	if i < 0 {
		names, _ := FaultKinds()
		return fmt.Errorf("got fault %.100q, want one of %s", fault.Kind, strings.Join(names, ", "))
	}
	kind := faultKinds[i]
	given := []struct {
		name  string
		value any
		set   bool
		bad   bool
	}{
		{"count", fault.Count, fault.Count != 0, fault.Count < 0},
		{"delay", fault.Delay, fault.Delay != 0, fault.Delay < 0},
		{"retry-after", fault.RetryAfter, fault.RetryAfter != 0, fault.RetryAfter < 0},
		{"every", fault.Every, fault.Every != 0, fault.Every < 0 || fault.Every > 0 && fault.Every < time.Millisecond},
		{"for", fault.For, fault.For != 0, fault.For < 0},
		{"by", fault.By, fault.By != 0, false},
	}
	for _, g := range given {
		switch {
		case g.bad:
			return fmt.Errorf("%s: got %s=%v, want more than 0, and every at least 1ms", kind.name, g.name, g.value)
		case g.set && g.name == "every" && !kind.moment:
			return fmt.Errorf("%s: got every, want for: it lasts", kind.name)
		case g.set && g.name != "every" && g.name != "for" && !slices.Contains(kind.fields, g.name):
			return fmt.Errorf("%s: got %s, want none: it has no such thing", kind.name, g.name)
		}
	}
	if kind.moment && fault.For > 0 && fault.Every == 0 && !kind.waits {
		return fmt.Errorf("%s: got an end, want every too: it strikes once", kind.name)
	}
	if kind.whole && fault.Resource != "" {
		return fmt.Errorf("%s: got resource %.100q, want none: it strikes all", kind.name, fault.Resource)
	}
	if kind.name == "remove" && fault.Resource == "" {
		return errors.New("remove: got no resource, want one")
	}
	if kind.name == "clock" && fault.By == 0 {
		return errors.New("clock: got no by, want one such as by=1h or by=-1h")
	}
	switch kind.name {
	case "swallow", "lose-delete":
		fault.Count = cmp.Or(fault.Count, 1)
	case "set-back":
		fault.Count = cmp.Or(fault.Count, defaultSetBack)
	case "slow":
		fault.Delay = cmp.Or(fault.Delay, defaultDelay)
	case "too-many":
		fault.RetryAfter = cmp.Or(fault.RetryAfter, defaultRetryAfter)
	}
	return nil
}

// named reports whether a fault's resource means r.
func (r *Resource) named(name string) bool {
	return name == "" || name == r.Plural || name == r.groupResource().String()
}

func (a *active) over(now time.Time) bool { return !a.until.IsZero() && !now.Before(a.until) }

// find returns a fault of the kind that lasts, and counts the answer that it
// gives. No resource is what strikes all alone. The lock must be held.
func (f *Faults) find(kind string, r *Resource) *active {
	now := time.Now()
	for _, a := range f.active {
		if a.Kind != kind || a.over(now) || a.Resource != "" && (r == nil || !r.named(a.Resource)) {
			continue
		}
		if a.Count > 0 {
			if a.left == 0 {
				continue
			}
			a.left--
		}
		return a
	}
	return nil
}

// refused is what a request is answered; nil: what it asks for. The resource
// is nil when it is for none.
func (f *Faults) refused(r *Resource) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a := f.find("too-many", r); a != nil {
		seconds := int((a.RetryAfter + time.Second - 1) / time.Second)
		return apierrors.NewTooManyRequests("too many requests, please try again later", seconds)
	}
	if f.find("error", r) != nil {
		return apierrors.NewInternalError(errors.New("simulated"))
	}
	return nil
}

// forbidden is what a list or watch of a resource is answered.
func (f *Faults) forbidden(r *Resource, isWatch bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.find("forbid", r) == nil {
		return nil
	}
	verb := "list"
	if isWatch {
		verb = "watch"
	}
	return status(http.StatusForbidden, metav1.StatusReasonForbidden, fmt.Sprintf(mayNot, r.groupResource(), verb, r.Plural, r.Group))
}

// tooOld is what a watch and a continue token are answered.
func (f *Faults) tooOld(r *Resource) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.find("gone", r) == nil {
		return nil
	}
	return apierrors.NewResourceExpired("too old resource version: simulated")
}

// wait waits as long as an answer is to be delayed.
func (f *Faults) wait(ctx context.Context, r *Resource) {
	f.mu.Lock()
	a := f.find("slow", r)
	f.mu.Unlock()
	if a == nil {
		return
	}
	t := time.NewTimer(a.Delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// untold reports whether an event is never told, to any watch.
func (f *Faults) untold(r *Resource, e Event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := untold{r.groupResource(), e.Object.Number}
	if _, ok := f.untolds[key]; ok {
		return true
	}
	now := time.Now()
	for _, a := range f.active {
		if a.from == 0 || a.left == 0 || e.Object.Number <= a.from || a.over(now) || !r.named(a.Resource) ||
			a.Kind == "lose-delete" && e.Type != watch.Deleted || len(f.untolds) >= maxUntold {
			continue
		}
		a.left--
		f.untolds[key] = struct{}{}
		return true
	}
	return false
}

// listen returns a bell that rings when watches of a resource are to end.
func (f *Faults) listen(r *Resource) *bell {
	b := &bell{resource: r, rung: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bells[b] = struct{}{}
	return b
}

func (f *Faults) leave(b *bell) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.bells, b)
}

// ring ends the watches of a resource. The lock must be held.
func (f *Faults) ring(name string, why error) {
	for b := range f.bells {
		if b.resource.named(name) {
			b.why = why
			close(b.rung)
			delete(f.bells, b)
		}
	}
}

// ServeHTTP adds a fault (POST), lists them (GET), or ends them all (DELETE).
func (f *Faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		f.post(w, r)
	case http.MethodGet:
		f.writeActive(w)
	case http.MethodDelete:
		f.Clear()
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "GET, POST, DELETE")
		http.Error(w, fmt.Sprintf("got %s, want GET, POST or DELETE", r.Method), http.StatusMethodNotAllowed)
	}
}
