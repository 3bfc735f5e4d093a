package watch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// API servers have lost events: a watch cache without deletions for a day, an
// etcd that skipped some. The audit asks what is there, and corrects what the
// stream has missed. Its rules:
//   - The list is consistent, and compared only once the stream has come as
//     far: else events on their way look like losses.
//   - What differs is asked for again, by itself.
//   - A correction is dropped when the entry has changed since the comparison,
//     or the life has ended: the watch was faster.
//   - It goes the way of all deltas, through its key's pending list.

const (
	auditPage    = 500
	auditFixes   = 500 // corrections in one audit; the rest comes with the next
	auditPatient = 2 * time.Minute
	askTimeout   = 10 * time.Second
)

// An Inspector is a [Source] that can be asked about single objects: without
// it a stream has no audit and no selector.
type Inspector interface {
	// ListMetadata lists the collection, metadata alone, never from a cache
	// of any age.
	ListMetadata(ctx context.Context, o metav1.ListOptions) (*metav1.PartialObjectMetadataList, error)
	// Object reads one object, never from a cache.
	Object(ctx context.Context, namespace, name string) (runtime.Object, error)
}

// A listing is one object of the audit's list.
type listing struct {
	namespace, name string
	version         uint64
}

// A difference is one object that the API server has otherwise.
type difference struct {
	kind            string // added, changed, deleted: what the stream has missed
	namespace, name string
	uid             string
	entry           *held // of the indexer, when they were compared; nil: none
}

// auditAll audits the stream until ctx ends. The first one waits for a random
// part of the interval, so that the streams do not ask all at once.
func (s *stream) auditAll(ctx context.Context) {
	source, ok := s.Source.(Inspector)
	if every := s.w.opts.Audit; ok && every > 0 {
		for sleep(ctx, time.Duration(rand.Int64N(int64(every)))); ctx.Err() == nil; sleep(ctx, every) {
			if err := s.audit(ctx, source); err != nil && ctx.Err() == nil {
				s.w.opts.Logger.Warn("audit failed; the next one comes", "stream", s.Name(), "err", err)
			}
		}
	}
}

// audit compares the stream with the API server once, and corrects it.
func (s *stream) audit(ctx context.Context, source Inspector) error {
	there, version, err := s.whatIsThere(ctx, source)
	if err != nil {
		return err
	}
	differences, err := s.compare(ctx, there, version)
	if err != nil {
		return err
	}
	for _, diff := range differences[:min(len(differences), auditFixes)] {
		err = errors.Join(err, s.correct(ctx, source, diff, version)) // one that cannot be read keeps no other from it
	}
	if err != nil || len(differences) > auditFixes {
		return err
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.audits++
	return nil
}

// whatIsThere lists the metadata of all objects, page after page, all as of
// one version.
func (s *stream) whatIsThere(ctx context.Context, source Inspector) (there map[string]listing, version uint64, err error) {
	there = map[string]listing{}
	for o := (metav1.ListOptions{Limit: auditPage}); ; {
		list, err := source.ListMetadata(ctx, o)
		if err != nil {
			return nil, 0, err
		}
		if version, err = parseVersion(list.ResourceVersion); err != nil {
			return nil, 0, fmt.Errorf("audit: list: %w", err)
		}
		for i := range list.Items {
			m := &list.Items[i]
			if s.tellsNothing(m) {
				continue // not in the indexer
			}
			v, err := parseVersion(m.ResourceVersion)
			if err != nil {
				return nil, 0, fmt.Errorf("audit: %s/%s: %w", m.Namespace, m.Name, err)
			}
			there[string(m.UID)] = listing{m.Namespace, m.Name, v}
		}
		if o.Continue = list.Continue; o.Continue == "" {
			return there, version, nil
		}
	}
}

// tellsNothing reports whether an object tells nobody's story, in a stream of
// which only that is wanted.
func (s *stream) tellsNothing(m metav1.Object) bool {
	if !s.FoldOnly || s.isHop() {
		return false
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if h := s.objects[m.GetNamespace()+"/"+m.GetName()]; h != nil && h.UID == string(m.GetUID()) {
		return false
	}
	root, _ := s.w.root(m.GetNamespace(), workload.ControllerOf(m))
	return root.UID == ""
}

// compare waits until the stream has come as far as the list, and says what
// differs. One that does not come as far in two minutes, because it is held or
// cannot be reached, is not compared.
func (s *stream) compare(ctx context.Context, there map[string]listing, version uint64) ([]difference, error) {
	deadline := s.w.opts.Now().Add(auditPatient)
	for {
		s.w.mu.Lock()
		if s.synced && s.mark() >= version {
			defer s.w.mu.Unlock()
			return s.differences(there, version)
		}
		mark := s.mark()
		s.w.mu.Unlock()
		if s.w.opts.Now().After(deadline) {
			return nil, fmt.Errorf("audit: the stream is at version %d after %s, want %d of the list: not compared", mark, auditPatient, version)
		}
		if sleep(ctx, 20*time.Millisecond); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// differences says what the indexer has otherwise than a list of the version.
// What it has newer than the list is not looked at; an object that was older
// when the list was made than we had seen it before shows that the cluster was
// set back, and has come beyond our version since. The lock must be held.
func (s *stream) differences(there map[string]listing, version uint64) (out []difference, err error) {
	here := make(map[string]bool, len(s.objects))
	for _, h := range s.objects {
		here[h.UID] = true
		t, ok := there[h.UID]
		switch {
		case !ok && h.ResourceVersion <= version:
			out = append(out, difference{"deleted", h.Namespace, h.Name, h.UID, h})
		case ok && t.version < h.ResourceVersion && h.ResourceVersion <= version:
			s.w.setBackNow()
			return nil, fmt.Errorf("audit: %s: %w: its version is %d, and was %d", objectKey(h.Object), errSetBack, t.version, h.ResourceVersion)
		case ok && t.version > h.ResourceVersion:
			out = append(out, difference{"changed", h.Namespace, h.Name, h.UID, h})
		}
	}
	for uid, t := range there {
		if l := s.w.lives[uid]; !here[uid] && (l == nil || !l.Gone) {
			out = append(out, difference{"added", t.namespace, t.name, uid, nil})
		}
	}
	slices.SortFunc(out, func(a, b difference) int { return strings.Compare(a.uid, b.uid) })
	return out, nil
}

// correct asks about one object, and corrects the stream if it still stands
// as it did when it was compared.
func (s *stream) correct(ctx context.Context, source Inspector, diff difference, version uint64) error {
	var o *workload.Object
	var failure error                               // of the rules
	if diff.kind != "deleted" || s.Selector == "" { // what is no longer selected may well be there: the worker asks
		found, err := ask(ctx, source, diff.namespace, diff.name, diff.uid)
		if err == nil && found != nil {
			if o, err = s.Kind.Reduce(found); o != nil {
				failure, err = err, nil
			}
		}
		if err != nil {
			return fmt.Errorf("audit: %s/%s: %w", diff.namespace, diff.name, err)
		}
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	key := diff.namespace + "/" + diff.name
	now := s.objects[key]
	if now != nil && now.UID != diff.uid {
		now = nil
	}
	l := s.w.lives[diff.uid]
	switch {
	case now != diff.entry, o == nil && now == nil,
		o != nil && now != nil && o.ResourceVersion <= now.ResourceVersion,
		o != nil && l != nil && l.Gone, o != nil && s.leaving(diff.uid):
		return nil // the watch was faster
	}
	s.beginUnit()
	defer s.endUnit()
	if o != nil {
		s.upsert(o, failure, true, s.w.opts.Now())
	} else {
		gone := *now.Object
		gone.ResourceVersion = version
		s.removeAs(&delta{object: &gone, late: true, observed: s.w.opts.Now()})
	}
	s.corrections[diff.kind]++
	s.corrected = s.w.opts.Now()
	s.w.opts.Logger.Error("the API server never told the watch; the audit found it",
		"stream", s.Name(), "missed", diff.kind, "object", key, "uid", diff.uid)
	return nil
}

// leaving reports whether a removal of the object waits for its worker. The
// lock must be held.
func (s *stream) leaving(uid string) bool {
	for e := s.inflight.Front(); e != nil; e = e.Next() {
		if d := e.Value.(*delta); d.removed && d.object.UID == uid {
			return true
		}
	}
	return false
}

// ask reads one object from the API server; nil when it is not there, or
// another one has its name.
func ask(ctx context.Context, source Inspector, namespace, name, uid string) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	obj, err := source.Object(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := meta.Accessor(obj)
	if err != nil || string(m.GetUID()) != uid {
		return nil, err
	}
	return obj, nil
}

// stillThere reports whether an object that the stream no longer selects
// lives on. It asks until it is told, or ctx ends: the worker must not go on
// without knowing. Without the permission to ask, it may well live on.
func (s *stream) stillThere(ctx context.Context, o *workload.Object) (there bool, err error) {
	source, ok := s.Source.(Inspector)
	if !ok {
		return true, nil
	}
	err = s.w.insist(ctx, "ask whether "+objectKey(o)+" is still there", func() error {
		found, err := ask(ctx, source, o.Namespace, o.Name, o.UID)
		if there = found != nil || apierrors.IsForbidden(err); there || err == nil {
			return nil
		}
		s.failed(err)
		return err
	})
	return there, err
}

func (w *Watcher) describeAudits() []error {
	return []error{
		w.opts.Registry.Func(metrics.Desc{
			Name: "outrider_audit_runs_total", Datadog: "outrider.audit.runs", Type: metrics.CounterType,
			Help: "Complete comparisons of a stream with the API server.", Unit: "audits", Tags: []string{"stream"}, Budget: 500,
		}, func(yield func(metrics.Point)) {
			for _, s := range w.Streams() {
				yield(metrics.Point{Tags: []string{s.Name}, Value: float64(s.Audits)})
			}
		}),
		w.opts.Registry.Func(metrics.Desc{
			Name: "outrider_audit_corrections_total", Datadog: "outrider.audit.corrections", Type: metrics.CounterType,
			Help: "Objects that the API server never told the watch about, by what was missed.", Unit: "objects", Tags: []string{"stream", "kind"}, Budget: 1500,
		}, func(yield func(metrics.Point)) {
			for _, s := range w.Streams() {
				for _, kind := range []string{"added", "changed", "deleted"} {
					yield(metrics.Point{Tags: []string{s.Name, kind}, Value: float64(s.Corrections[kind])})
				}
			}
		}),
	}
}
