package e2e

import (
	"cmp"
	"maps"
	"slices"
	"testing"
)

// stories checks that every event came once and every workload's are whole
// and in order, and returns them by UID, as "Kind Queued>Running>Failed(Error)".
// So are the gaps of each stream, which are no stories. Nothing was left out,
// sent by command, or told to a sink that came later.
func stories(t *testing.T, where string, events []event) map[string]string {
	t.Helper()
	ids, numbers := map[string]bool{}, map[int64]string{}
	last := map[string]event{}
	for _, e := range events {
		if ids[e.ID] {
			t.Errorf("%s: %s came twice: %+v", where, e.ID, e.Data)
		}
		ids[e.ID] = true
		if e.Data.Skipped != nil || e.Data.Initial || e.Data.Replayed {
			t.Errorf("%s: %s: got skipped %v, initial %v, replayed %v, want none of them", where, e.Subject, e.Data.Skipped, e.Data.Initial, e.Data.Replayed)
		}
		if other := numbers[e.Data.Number]; other != "" || e.Data.Number <= last[e.Source].Data.Number {
			t.Errorf("%s: %s: number %d, after %d; %q has it too", where, e.Subject, e.Data.Number, last[e.Source].Data.Number, other)
		}
		numbers[e.Data.Number] = e.ID
		before := last[e.Source]
		last[e.Source] = e
		if e.Data.Seq != before.Data.Seq+1 || e.Data.Previous != before.Data.Seq || e.Data.Epoch < before.Data.Epoch {
			t.Errorf("%s: %s: seq %d (previous %d) of epoch %d follows seq %d of epoch %d", where, e.Subject,
				e.Data.Seq, e.Data.Previous, e.Data.Epoch, before.Data.Seq, before.Data.Epoch)
		}
		if e.Type == gapType {
			continue
		}
		if e.Data.From != before.Data.To {
			t.Errorf("%s: %s: seq %d from %q follows %q", where, e.Subject, e.Data.Seq, e.Data.From, before.Data.To)
		}
		// A cluster that was set back may have workloads again that had ended.
		if ended(before) && before.Data.To != "Untracked" && e.Data.Epoch == before.Data.Epoch {
			t.Errorf("%s: %s: seq %d %s follows the end %s", where, e.Subject, e.Data.Seq, e.Data.To, before.Data.To)
		}
	}
	return tellings(events)
}

// tellings are the stories that the events tell, by UID; repeats are left out.
func tellings(events []event) map[string]string {
	out := map[string]string{}
	ids := map[string]bool{}
	for _, e := range events {
		uid := e.Data.Workload.UID
		if e.Type != changeType || ids[e.ID] {
			continue
		}
		ids[e.ID] = true
		step := e.Data.To
		if out[uid] == "" {
			out[uid] = e.Data.Workload.Kind + " " + step
			continue
		}
		if e.Data.Reason != "" {
			step += "(" + e.Data.Reason + ")"
		}
		out[uid] += ">" + step
	}
	return out
}

func ended(e event) bool { return e.Data.To != "" && e.Data.To != "Queued" && e.Data.To != "Running" }

// lastOf is the last change of each workload, by UID.
func lastOf(events []event) map[string]event {
	out := map[string]event{}
	for _, e := range events {
		if e.Type == changeType && e.Data.Seq >= out[e.Data.Workload.UID].Data.Seq {
			out[e.Data.Workload.UID] = e
		}
	}
	return out
}

// changesOf are the changes of one workload, in order of seq, without repeats.
func changesOf(events []event, uid string) []event {
	mine := slices.DeleteFunc(slices.Clone(events), func(e event) bool { return e.Data.Workload.UID != uid })
	slices.SortStableFunc(mine, func(a, b event) int { return cmp.Compare(a.Data.Seq, b.Data.Seq) })
	return slices.CompactFunc(mine, func(a, b event) bool { return a.ID == b.ID })
}

// storyOf is one workload's story, without its kind.
func storyOf(events []event, uid string) (story string) {
	for i, e := range changesOf(events, uid) {
		if i > 0 {
			story += ">"
		}
		story += e.Data.To
		if e.Data.Reason != "" && i > 0 {
			story += "(" + e.Data.Reason + ")"
		}
	}
	return story
}

// gapsOf are the gaps of each stream, in order, without repeats.
func gapsOf(events []event) map[string][]event {
	out := map[string][]event{}
	ids := map[string]bool{}
	for _, e := range events {
		if e.Type == gapType && !ids[e.ID] {
			out[e.Gap.Stream] = append(out[e.Gap.Stream], e)
		}
		ids[e.ID] = true
	}
	return out
}

// noGaps wants none.
func noGaps(t *testing.T, where string, events []event) {
	t.Helper()
	for stream, gaps := range gapsOf(events) {
		t.Errorf("%s: %d gaps of %s, want none: %+v", where, len(gaps), stream, gaps[0].Gap)
	}
}

// oneGap wants each stream to have one gap, for the reason, and no other
// stream any.
func oneGap(t *testing.T, where string, events []event, reason string, streams ...string) {
	t.Helper()
	got := gapsOf(events)
	for _, s := range streams {
		if len(got[s]) != 1 || got[s][0].Gap.Reason != reason || got[s][0].Gap.FromRV == 0 || got[s][0].Gap.ToRV == 0 || got[s][0].Gap.FromTime.IsZero() {
			t.Errorf("%s: stream %s has %d gaps, want one with reason %s and both ends: %+v", where, s, len(got[s]), reason, gaps(got[s]))
		}
	}
	if len(got) != len(streams) {
		t.Errorf("%s: gaps of %v, want of %v", where, slices.Sorted(maps.Keys(got)), streams)
	}
}

func gaps(events []event) (out []gap) {
	for _, e := range events {
		out = append(out, e.Gap)
	}
	return out
}

// fromTheWatch wants every change to be from the live watch, however late that
// was read: nothing found by a list, and nothing of a pod filled in. (A Job's
// start may be: its pods are another stream, and may be read after its end.)
// Those of the workloads in but are left out.
func fromTheWatch(t *testing.T, events []event, but ...fleet) {
	t.Helper()
	known := map[string]bool{}
	for _, f := range but {
		for _, uid := range f {
			known[uid] = true
		}
	}
	wrong := 0
	for _, e := range events {
		d := e.Data
		if known[d.Workload.UID] || !d.ObservedLate && !(d.Reconstructed && d.Workload.Kind == "Pod") {
			continue
		}
		if wrong++; wrong <= 5 {
			t.Errorf("%s was found by a list or filled in, want it from the watch: %s", e.Subject, e.body)
		}
	}
	if wrong > 0 {
		t.Errorf("%d changes were found by a list or filled in, want all from the watch", wrong)
	}
	noGaps(t, "webhook", events)
}

// fromKubelet is the model of what is told of a pod: a function of what the
// stand-in kubelet has set, and of nothing else.
func fromKubelet(log []set) string {
	story, phase := "Pod Queued", "Pending"
	for _, s := range log {
		if s.Op != "status" || s.Phase == phase {
			continue
		}
		switch phase = s.Phase; {
		case s.Phase == "Running":
			story += ">Running"
		case s.Phase == "Succeeded":
			story += ">Succeeded(Completed)"
		case s.Deleting:
			story += ">Cancelled(Deleted)"
		default:
			story += ">Failed(" + s.Reason + ")"
		}
	}
	return story
}

func compare(t *testing.T, where string, want, got map[string]string) {
	t.Helper()
	wrong := 0
	for uid, story := range want {
		if got[uid] == story {
			continue
		}
		if wrong++; wrong <= 10 {
			t.Errorf("%s: %s: got %q, want %q", where, uid, got[uid], story)
		}
	}
	for uid, story := range got {
		if _, known := want[uid]; !known {
			if wrong++; wrong <= 10 {
				t.Errorf("%s: %s: got %q of a workload that nobody made", where, uid, story)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%s: %d stories are wrong; of %d, %d were told", where, wrong, len(want), len(got))
	}
}

func sameIDs(t *testing.T, a, b []event) {
	t.Helper()
	ids := func(events []event) []string {
		out := make([]string, len(events))
		for i, e := range events {
			out[i] = e.ID
		}
		slices.Sort(out)
		return out
	}
	if x, y := ids(a), ids(b); slices.Compare(x, y) != 0 {
		t.Errorf("the webhook has %d changes, the file %d, or not the same ones", len(x), len(y))
	}
}

// foundLate counts the changes that were found by a list or an audit.
func foundLate(events []event) (n int) {
	for _, e := range events {
		if e.Data.ObservedLate {
			n++
		}
	}
	return n
}
