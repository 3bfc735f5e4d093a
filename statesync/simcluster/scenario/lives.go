package scenario

import (
	"errors"
	"fmt"
	"math"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/outrider-agent/outrider/statesync/simcluster"
)

// Rules of lives:
//   - What is to be told is noted before it is written: it may be told at once.
//   - A step tells one state at most, and writes all that belongs to it.
//     Whatever the order in which two watches show a step's writes, the story
//     is the same.
//   - What a workload controlled goes in the same step as the workload.

// A life is the present life of one workload, by its script.
type life struct {
	due    time.Duration // when it goes on, by the scenario's clock
	slot   int32
	step   uint8 // of its script, that comes next
	kind   kindIndex
	ended  bool // by its last state that was told
	script *script

	main     *entity // the workload itself
	pods     []*podVersion
	job      *jobVersion
	app      *app
	training *trainingVersion
}

// A script is one way to live.
type script struct {
	weight int
	first  func(*Scenario, *life) // makes what the first step writes
	steps  []step
}

// A step is what happens at once.
type step struct {
	after time.Duration // the step before, in the mean
	tells state         // none: nothing is to be told of it
	do    func(*Scenario, *life) error
}

// A written is one version of one object.
type written interface {
	simcluster.Source
	self() *entity
}

// step lets the life go on that is due first.
func (s *Scenario) step() {
	l := &s.lives[s.heap[0]]
	s.virtual = l.due
	if l.step == 0 {
		l.script.first(s, l)
	}
	next := &l.script.steps[l.step]
	switch err := s.play(l, next); {
	case err != nil:
		s.pace.failed()
		s.abandon(l, next)
	default:
		if next.tells != none {
			s.pace.made()
		}
		if l.step++; int(l.step) == len(l.script.steps) {
			s.begin(l)
		}
	}
	l.due += s.draw(l.script.steps[l.step].after)
	s.sift(0)
}

func (s *Scenario) play(l *life, next *step) error {
	if next.tells != none {
		at := time.Now()
		if s.staging {
			at = time.Time{}
		}
		s.truth.tell(l.kind, l.main, next.tells, at)
		l.ended = next.tells.ended()
	}
	return next.do(s, l)
}

// begin gives a place to the next life of its kind.
func (s *Scenario) begin(l *life) {
	*l = life{due: l.due, slot: l.slot, kind: l.kind}
	scripts := s.cast.kinds[l.kind].scripts
	total := 0
	for i := range scripts {
		total += scripts[i].weight
	}
	at := s.rand.IntN(total)
	for i := range scripts {
		if l.script = &scripts[i]; at < l.script.weight {
			break
		}
		at -= l.script.weight
	}
}

// abandon gives up a life whose objects somebody else has changed or deleted,
// or whose resource was taken away: another one takes its place.
func (s *Scenario) abandon(l *life, failed *step) {
	if failed.tells != none {
		s.truth.takeBack(l.main)
		l.ended = l.ended && !failed.tells.ended()
	}
	if l.step > 0 && !l.ended {
		s.truth.tell(l.kind, l.main, s.cast.kinds[l.kind].removed, time.Time{})
	}
	for _, e := range l.objects() {
		if s.isThere(e) {
			_ = s.delete(e) // or it has gone meanwhile
		} else if e.there {
			s.gone(e)
		}
	}
	s.begin(l)
}

// reconcile looks for workloads that somebody else removed.
func (s *Scenario) reconcile() {
	for i := range s.lives {
		if l := &s.lives[i]; l.step > 0 && !s.isThere(l.main) {
			s.abandon(l, &step{})
		}
	}
}

func (s *Scenario) isThere(e *entity) bool {
	v, err := s.cluster.Get(e.look.resource, e.namespace, e.name)
	return err == nil && v.UID == e.uid
}

// lead brings a new life to where it may stand before anything was told of it:
// what a list shows of it says all that had to be told, Queued and Running once
// at most.
func (s *Scenario) lead(l *life) error {
	s.begin(l)
	s.staging, s.staged = true, s.staged[:0]
	defer func() { s.staging = false }()
	l.script.first(s, l)
	var waits [32]time.Duration
	var whole time.Duration
	n := 0
	for told := none; n < len(l.script.steps); n++ {
		next := l.script.steps[n]
		if next.tells != none && next.tells <= told || next.tells.ended() {
			break
		}
		told = max(told, next.tells)
		if n > 0 {
			waits[n] = s.draw(next.after)
		}
		whole += waits[n]
	}
	s.past = time.Duration(s.rand.Float64() * float64(whole))
	for i := range n {
		if s.past < waits[i] {
			l.due = waits[i] - s.past
			break
		}
		s.past -= waits[i]
		if err := s.play(l, &l.script.steps[i]); err != nil {
			return err
		}
		l.step++
	}
	if int(l.step) == n {
		l.due = time.Duration(s.rand.Float64() * float64(s.draw(l.script.steps[n].after)))
	}
	s.past, s.staging = 0, false
	for _, w := range s.staged {
		if err := s.create(w); err != nil {
			return err
		}
	}
	return nil
}

// draw returns a duration with a mean: most are shorter, some much longer.
func (s *Scenario) draw(mean time.Duration) time.Duration {
	const spread = 0.8
	f := math.Exp(spread*s.rand.NormFloat64() - spread*spread/2)
	return time.Duration(float64(mean) * min(f, 10))
}

// now is the time that objects are stamped with, in seconds.
func (s *Scenario) now() int64 { return s.opts.Now().Add(-s.past).Unix() }

// sift moves a life down the heap to its place.
func (s *Scenario) sift(i int) {
	before := func(a, b int32) bool {
		x, y := s.lives[a].due, s.lives[b].due
		return x < y || x == y && a < b
	}
	for {
		first := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(s.heap); child++ {
			if before(s.heap[child], s.heap[first]) {
				first = child
			}
		}
		if first == i {
			return
		}
		s.heap[i], s.heap[first] = s.heap[first], s.heap[i]
		i = first
	}
}

// An entity is what stays the same over an object's versions.
type entity struct {
	namespace, name string
	uid             types.UID
	labels          map[string]string
	created         int64 // Unix seconds
	owner           *entity
	look            *look
	there           bool
}

func (e *entity) self() *entity { return e }

func (e *entity) version(src simcluster.Source) simcluster.Version {
	return simcluster.Version{Namespace: e.namespace, Name: e.name, UID: e.uid, Labels: e.labels, Source: src}
}

func (s *Scenario) create(w written) error {
	e := w.self()
	if e.created == 0 {
		e.created = s.now()
	}
	if s.staging {
		s.staged = append(s.staged, w)
		return nil
	}
	if _, err := s.cluster.Create(e.look.resource, e.version(w)); err != nil {
		return fmt.Errorf("create %s %s/%s: %w", e.look.resource.Kind, e.namespace, e.name, err)
	}
	e.there = true
	s.live[e.look.resource.Plural]++
	s.writes++
	return nil
}

func (s *Scenario) update(w written) error {
	e := w.self()
	if s.staging {
		for i, before := range s.staged {
			if before.self() == e {
				s.staged[i] = w
				return nil
			}
		}
		return errors.New("BUG: update of what was not created")
	}
	if _, err := s.cluster.Update(e.look.resource, e.version(w), 0); err != nil {
		return fmt.Errorf("update %s %s/%s: %w", e.look.resource.Kind, e.namespace, e.name, err)
	}
	s.writes++
	return nil
}

func (s *Scenario) delete(e *entity) error {
	if s.staging {
		for i, before := range s.staged {
			if before.self() == e {
				s.staged = append(s.staged[:i], s.staged[i+1:]...)
				return nil
			}
		}
	}
	s.truth.goes(e.uid, time.Now())
	if _, err := s.cluster.Delete(e.look.resource, e.namespace, e.name, nil); err != nil {
		return fmt.Errorf("delete %s %s/%s: %w", e.look.resource.Kind, e.namespace, e.name, err)
	}
	s.gone(e)
	s.writes++
	return nil
}

func (s *Scenario) gone(e *entity) {
	e.there = false
	s.live[e.look.resource.Plural]--
}

// all writes each in turn, up to the first error.
func all[T any](them []T, write func(T) error) error {
	for _, one := range them {
		if err := write(one); err != nil {
			return err
		}
	}
	return nil
}

// objects are those of a life that may be there, the workload's own first.
func (l *life) objects() (all []*entity) {
	all = append(all, l.main)
	if l.app != nil {
		for _, set := range l.app.sets {
			all = append(all, set.entity)
		}
	}
	for _, p := range l.pods {
		all = append(all, p.entity)
	}
	return all
}
