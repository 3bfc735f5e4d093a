package watch

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// errSetBack ends a session: the cluster is at an earlier version than the
// stream has seen.
var errSetBack = errors.New("the cluster was set back to an earlier time")

// Replace implements [cache.ReflectorStore]: it takes in a list as the
// difference to what is known, by UID. What is gone comes first, so that the
// end of one life of a name is told before the start of the next. It is
// exempt from the bound: a bound that closed during the first list would
// never open again.
//
// A list after which nobody can say what happened before it leaves a gap,
// which is handed to the log first, and without which the low-water mark does
// not move. The very first list is made durable before what it causes is.
//
// It returns an error only when the session ends: then the list is read again.
func (s *stream) Replace(items []any, version string) error {
	v, err := parseVersion(version)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if s.isOurOwn(len(items), v) {
		return nil
	}
	if s.isSetBack(v, 0) {
		return errSetBack
	}
	listed := make([]*workload.Object, 0, len(items))
	failures := map[string]error{}             // of the rules, by UID
	there := make(map[string]bool, len(items)) // UIDs, of those too that cannot be read
	for _, item := range items {
		o, failure := s.reduce(item)
		if o != nil {
			listed = append(listed, o)
		}
		if failure != nil {
			failures[o.UID] = failure
		}
		if m, err := meta.Accessor(item); err == nil {
			there[string(m.GetUID())] = true
		}
	}
	reason, err := s.tellGap(v)
	if err == nil && reason == "" {
		err = s.keepFirst(listed, v)
	}
	if err != nil {
		return err
	}
	s.takeList(listed, failures, there, v, reason)
	_ = failpoint.Here("list/fed")
	return nil
}

// isOurOwn takes in the empty list with which a stream goes on from what the
// log remembers; false when the list is the API server's.
func (s *stream) isOurOwn(items int, v uint64) bool {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.resuming == 0 || items > 0 || v != s.resuming {
		return false
	}
	s.resuming, s.listing = 0, false
	s.isComplete()
	return true
}

// isComplete notes that the stream holds what there is. The lock must be held.
func (s *stream) isComplete() {
	if !s.synced {
		s.synced = true
		close(s.complete)
	}
}

// takeList takes in a list, as one unit: the low-water mark stays where it
// was until all that the list causes is durable.
func (s *stream) takeList(listed []*workload.Object, failures map[string]error, there map[string]bool, v uint64, reason string) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.beginUnit()
	defer s.endUnit()
	now := s.w.opts.Now()
	s.restoring = reason == statesync.GapRestored // the versions of before say nothing about those after it
	defer func() { s.restoring = false }()
	all := reason != "" && reason != statesync.GapExpired
	names := s.told()
	for _, old := range s.missing(there) {
		// Another configuration has told of a later life before anything of
		// this one was, or had this one tell the story of a root that is none
		// any more: it is over, and in the gap that the change left.
		if s.w.lives[old.UID] == nil && (names[old.Ref().Key()] || old.Root.UID != "" && !s.w.isRoot(old.Root.Kind)) {
			s.drop(old)
			continue
		}
		gone := *old
		gone.ResourceVersion = v
		s.removeAs(&delta{object: &gone, late: true, setBack: s.restoring, observed: now})
	}
	for _, o := range listed {
		if old := s.objects[objectKey(o)]; all || old == nil || old.UID != o.UID || old.ResourceVersion != o.ResourceVersion {
			s.upsert(o, failures[o.UID], true, now)
		}
	}
	s.touch(v)
	s.listing, s.resuming, s.gap.reason = false, 0, ""
	s.isComplete()
	if s.w.gate.closed() {
		s.pause()
	}
}

// told returns, for the first list of a session, the names under which lives
// have been told that are not over.
func (s *stream) told() map[statesync.Key]bool {
	names := map[statesync.Key]bool{}
	if !s.synced {
		for _, l := range s.w.lives {
			names[l.Key()] = names[l.Key()] || !l.Gone
		}
	}
	return names
}

// beginUnit and endUnit enclose deltas that the low-water mark waits for as
// one. The lock must be held.
func (s *stream) beginUnit() {
	s.hold()
	s.taking = true
}

func (s *stream) endUnit() { s.taking = false }

// hold keeps the low-water mark where it is while anything of a unit is not
// durable.
func (s *stream) hold() {
	if s.listed == 0 {
		s.floor = s.mark()
	}
}

// missing returns what is known of the stream and not there, by UID: objects
// of the indexer, and lives whose objects it does not have.
func (s *stream) missing(there map[string]bool) (gone []*workload.Object) {
	here := make(map[string]bool, len(s.objects))
	for _, old := range s.objects {
		here[old.UID] = true
		if !there[old.UID] {
			gone = append(gone, old.Object)
		}
	}
	for uid, l := range s.w.lives {
		if l.Gone || here[uid] || there[uid] || !s.covers(l.Ref) {
			continue
		}
		gone = append(gone, &workload.Object{
			Kind: l.Kind, Namespace: l.Namespace, Name: l.Name, UID: uid, Labels: l.Labels,
		})
	}
	slices.SortFunc(gone, func(a, b *workload.Object) int { return cmp.Compare(a.UID, b.UID) })
	return gone
}
