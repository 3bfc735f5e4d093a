package scenario

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// A state is where a workload stands, as it is to be told.
type state uint8

const (
	none state = iota
	queued
	running
	succeeded
	failed
	cancelled
	deleted
)

// The states' names, as they are told. Read-only.
var stateNames = [...]string{"", "Queued", "Running", "Succeeded", "Failed", "Cancelled", "Deleted"}

func (s state) ended() bool { return s >= succeeded }

// most is how many states one workload has at most.
const most = 7

// A Truth is what must be told. It is safe for concurrent use.
type Truth struct {
	mu      sync.Mutex
	kinds   []string
	spaces  []string
	indexOf map[string]uint16 // of namespaces
	stories map[string]*story // by UID
	removed []state           // by kind: what is told when it goes before an end of its own
	settled int               // states of workloads that were let go
}

// A story is what must be told of one workload, in 64 bytes: there may be
// millions in a long run.
type story struct {
	name      string
	first     int64 // Unix nanoseconds of the first state that was written with a time; 0: none was
	after     [most]uint32
	gone      uint32 // when its object was deleted, as after
	states    uint32 // 4 bits each, the first lowest
	namespace uint16
	kind, n   uint8
}

// unit is that of after and gone: a story may last 4 days. 0 is no time.
const unit = 100 * time.Microsecond

// A Workload is what must be told of one workload.
type Workload struct {
	Kind      string      `json:"kind"`
	Namespace string      `json:"namespace"`
	Name      string      `json:"name"`
	UID       string      `json:"uid"`
	States    []string    `json:"states"`
	Written   []time.Time `json:"written"`       // when what says so was written; zero: before Run, or somebody else did it
	Gone      time.Time   `json:"gone,omitzero"` // when its object was deleted; zero: it was not, or somebody else did it
}

// A Blank is a time of which a list shows only what it has left behind, since
// the history that told the rest is gone.
type Blank struct {
	Kind     string // of the workloads of which that is so
	By       string // the resource whose history is gone
	State    string // that alone it would have told; empty: all
	From, To time.Time
}

// A Report is what a comparison with what was told has found.
type Report struct {
	Offered    int      // states that must be told
	Lost       int      // of them, those that were not told in their place and could have been
	Unseen     int      // of them, those that were not told and nobody could know of: they came and went in a blank
	Unexpected int      // states that were told and must not be
	First      []string // some of the workloads that differ, the first written first
}

func newTruth(c *cast) *Truth {
	t := emptyTruth()
	for _, k := range c.kinds {
		t.kinds, t.removed = append(t.kinds, k.name), append(t.removed, k.removed)
	}
	return t
}

func emptyTruth() *Truth {
	return &Truth{indexOf: map[string]uint16{}, stories: map[string]*story{}}
}

// tell notes that a state must be told; a zero time is not known.
func (t *Truth) tell(kind kindIndex, e *entity, to state, when time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stories[string(e.uid)]
	if s == nil {
		s = &story{name: e.name, kind: uint8(kind), namespace: t.space(e.namespace)}
		t.stories[string(e.uid)] = s
	}
	s.add(to, when)
}

func (t *Truth) space(namespace string) uint16 {
	i, ok := t.indexOf[namespace]
	if !ok {
		i = uint16(len(t.spaces))
		t.indexOf[namespace], t.spaces = i, append(t.spaces, namespace)
	}
	return i
}

func (s *story) add(to state, when time.Time) {
	if s.n == most {
		panic("BUG: a workload has more states than a story holds")
	}
	s.states |= uint32(to) << (4 * s.n)
	s.after[s.n] = s.mark(when)
	s.n++
}

// mark is a time as a story keeps it.
func (s *story) mark(when time.Time) uint32 {
	if when.IsZero() {
		return 0
	}
	if s.first == 0 {
		s.first = when.UnixNano()
	}
	since := max(0, when.UnixNano()-s.first) / int64(unit)
	return uint32(min(since, 1<<32-2)) + 1
}

// time is that of a mark.
func (s *story) time(mark uint32) time.Time {
	if mark == 0 {
		return time.Time{}
	}
	return time.Unix(0, s.first+int64(mark-1)*int64(unit))
}

// goes notes when a workload's object is deleted.
func (t *Truth) goes(uid types.UID, when time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.stories[string(uid)]; s != nil {
		s.gone = s.mark(when)
	}
}

// takeBack forgets the last state: what would have said so was not written.
func (t *Truth) takeBack(e *entity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stories[string(e.uid)]
	s.n--
	s.states &^= 15 << (4 * s.n)
	s.after[s.n] = 0
	if s.n == 0 {
		delete(t.stories, string(e.uid))
	}
}

func (s *story) state(i int) state { return state(s.states >> (4 * i) & 15) }

func (s *story) at(i int) time.Time { return s.time(s.after[i]) }

func (t *Truth) workload(uid string, s *story) Workload {
	w := Workload{Kind: t.kinds[s.kind], Namespace: t.spaces[s.namespace], Name: s.name, UID: uid, Gone: s.time(s.gone)}
	for i := range int(s.n) {
		w.States, w.Written = append(w.States, stateNames[s.state(i)]), append(w.Written, s.at(i))
	}
	return w
}

// Of returns what must be told of a workload; false: it is not known, or was
// let go.
func (t *Truth) Of(uid string) (Workload, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stories[uid]
	if s == nil {
		return Workload{}, false
	}
	return t.workload(uid, s), true
}

// Written returns when the nth time (from 0) was written that a workload came
// to a state; false: it is not known.
func (t *Truth) Written(uid, to string, nth int) (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.stories[uid]; s != nil {
		for i := range int(s.n) {
			if stateNames[s.state(i)] != to {
				continue
			}
			if nth == 0 {
				return s.at(i), s.after[i] != 0
			}
			nth--
		}
	}
	return time.Time{}, false
}

// Done lets a workload go that has ended and of which all was told. It reports
// whether it had ended.
func (t *Truth) Done(uid string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stories[uid]
	if s == nil || !s.state(int(s.n)-1).ended() {
		return false
	}
	t.settled += int(s.n)
	delete(t.stories, uid)
	return true
}

// all returns the workloads that are known, the first written first.
func (t *Truth) all() iter.Seq2[string, *Workload] {
	t.mu.Lock()
	type known struct {
		uid string
		story
	}
	them := make([]known, 0, len(t.stories))
	for uid, s := range t.stories {
		them = append(them, known{uid, *s})
	}
	t.mu.Unlock()
	slices.SortFunc(them, func(a, b known) int { return cmp.Or(cmp.Compare(a.first, b.first), strings.Compare(a.uid, b.uid)) })
	return func(yield func(string, *Workload) bool) {
		for i := range them {
			t.mu.Lock()
			w := t.workload(them[i].uid, &them[i].story)
			t.mu.Unlock()
			if !yield(w.UID, &w) {
				return
			}
		}
	}
}

// Compare holds what was told of each workload against what must be, in order.
// A state that is told again while the workload stands there is not another
// one. told is called for each workload that was not let go. What began and
// was over in one of the blanks may be missing.
func (t *Truth) Compare(told func(uid string) []string, blanks ...Blank) Report {
	t.mu.Lock()
	r := Report{Offered: t.settled}
	t.mu.Unlock()
	blank := merged(blanks)
	for uid, w := range t.all() {
		got := slices.Compact(slices.Clone(told(uid)))
		wanted := w.States
		if those := blank[w.Kind]; len(those) > 0 {
			wanted = w.seen(w.unseen(those), got, t.removal(w.Kind))
		}
		same := common(wanted, got)
		r.Offered += len(w.States)
		r.Lost += len(wanted) - same
		r.Unseen += len(w.States) - len(wanted)
		r.Unexpected += len(got) - same
		if same < max(len(wanted), len(got)) && len(r.First) < 10 {
			r.First = append(r.First, fmt.Sprintf("%s %s/%s (%s): got %s, want %s", w.Kind, w.Namespace, w.Name, uid, list(got), list(w.States)))
		}
	}
	return r
}

// removal is what is told of a workload of which it is only known that it has
// gone.
func (t *Truth) removal(kind string) string {
	if i := slices.Index(t.kinds, kind); i >= 0 && i < len(t.removed) {
		return stateNames[t.removed[i]]
	}
	return ""
}

// seen returns the states that had to be told, when those that were unseen
// may be missing: the choice of them that is the nearest to what was told, and
// of those the longest.
func (w *Workload) seen(unseen []bool, got []string, removal string) []string {
	states := slices.Clone(w.States)
	if n := len(states); len(got) > 0 && unseen[n-1] {
		unseen[n-1] = false // that it is gone could be seen, and told as such
		if got[len(got)-1] == removal {
			states[n-1] = removal
		}
	}
	best, off := states, math.MaxInt
	for without := range 1 << len(states) {
		some := make([]string, 0, len(states))
		allowed := true
		for i, s := range states {
			if without>>i&1 == 0 {
				some = append(some, s)
			} else if !unseen[i] {
				allowed = false
			}
		}
		if !allowed {
			continue
		}
		some = slices.Compact(some) // it stood there, as far as could be seen
		differs := len(some) + len(got) - 2*common(some, got)
		if differs < off || differs == off && len(some) > len(best) {
			best, off = some, differs
		}
	}
	return best
}

// unseen says of each state whether it began and was over in one blank.
func (w *Workload) unseen(blanks []Blank) []bool {
	out := make([]bool, len(w.States))
	for _, b := range blanks {
		for i, from := range w.Written {
			if b.State != "" && b.State != w.States[i] {
				continue
			}
			over := w.Gone
			if i+1 < len(w.Written) {
				over = w.Written[i+1]
			}
			if !from.IsZero() && !over.IsZero() && !from.Before(b.From) && !over.After(b.To) {
				out[i] = true
			}
		}
	}
	return out
}

// merged returns the blanks by kind, and with them as one any two of different
// resources that overlap: what two watches tell of a workload belongs together.
// Between two of one resource there was a list, which shows what lasted.
func merged(blanks []Blank) map[string][]Blank {
	out := map[string][]Blank{}
	sorted := slices.SortedFunc(slices.Values(blanks), func(a, b Blank) int { return a.From.Compare(b.From) })
	for i, b := range sorted {
		out[b.Kind] = append(out[b.Kind], b)
		for _, next := range sorted[i+1:] {
			if next.From.After(b.To) {
				break
			}
			if next.Kind == b.Kind && next.By != b.By {
				both := Blank{Kind: b.Kind, From: b.From, To: b.To}
				if next.To.After(both.To) {
					both.To = next.To
				}
				out[b.Kind] = append(out[b.Kind], both)
			}
		}
	}
	return out
}

func list(states []string) string {
	if len(states) == 0 {
		return "nothing"
	}
	return strings.Join(states, ", ")
}

// common returns the length of the longest sequence that is in both.
func common(a, b []string) int {
	best := make([]int, len(b)+1) // of a up to here and b up to each place
	for _, x := range a {
		before := 0
		for j, y := range b {
			above := best[j+1]
			if x == y {
				best[j+1] = before + 1
			} else {
				best[j+1] = max(above, best[j])
			}
			before = above
		}
	}
	return best[len(b)]
}

// Write writes what must be told for another process: a line of JSON for each
// workload that was not let go.
func (t *Truth) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	for _, workload := range t.all() {
		if err := e.Encode(workload); err != nil {
			return fmt.Errorf("write truth: %w", err)
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write truth: %w", err)
	}
	return nil
}

// ReadTruth reads what [Truth.Write] has written.
func ReadTruth(r io.Reader) (*Truth, error) {
	t := emptyTruth()
	d := json.NewDecoder(r)
	for line := 1; ; line++ {
		var w Workload
		if err := d.Decode(&w); errors.Is(err, io.EOF) {
			return t, nil
		} else if err != nil {
			return nil, fmt.Errorf("read truth: workload %d: %w", line, err)
		}
		if err := t.read(w); err != nil {
			return nil, fmt.Errorf("read truth: workload %d: %w", line, err)
		}
	}
}

func (t *Truth) read(w Workload) error {
	if len(w.States) == 0 || len(w.States) > most || len(w.Written) != len(w.States) {
		return fmt.Errorf("got %d states with %d times, want 1 to %d of both", len(w.States), len(w.Written), most)
	}
	kind := slices.Index(t.kinds, w.Kind)
	if kind < 0 {
		kind, t.kinds = len(t.kinds), append(t.kinds, w.Kind)
	}
	if kind > 255 || len(t.spaces) > 65535 {
		return errors.New("got too many kinds or namespaces, want 256 and 65,536 at most")
	}
	s := &story{name: w.Name, kind: uint8(kind), namespace: t.space(w.Namespace)}
	for i, name := range w.States {
		to := slices.Index(stateNames[1:], name) + 1
		if to == 0 {
			return fmt.Errorf("got state %q, want one of %s", name, strings.Join(stateNames[1:], ", "))
		}
		s.add(state(to), w.Written[i])
	}
	s.gone = s.mark(w.Gone)
	t.stories[w.UID] = s
	return nil
}
