package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestSinksComeAndGo adds, filters, renames and removes sinks while the agent
// runs. What each receiver gets is whole for who knows nothing else.
func TestSinksComeAndGo(t *testing.T) {
	needCluster(t)
	s := newSession(t, "sinks")
	aside := namespace(t, "sinks-aside")
	base := configOf(s.ns, aside)
	a := s.start(t, base)
	old, over := pods(t, s.ns, "old", 4, nil), pods(t, s.ns, "over", 3, second)
	old.tell(s.want, podRuns)
	over.tell(s.want, podSucceeds)
	s.hook.tells(t, time.Minute, s.want)

	// A new sink is told where the living stand, and then all that changes.
	late := startReceiverAt(t, "127.0.0.1:0")
	a.reload(withSink(base, "late", late.url))
	stands := map[string]string{} // what late is to be told
	old.tell(stands, "Pod Running")
	late.tells(t, time.Minute, stands)
	initials(t, late.received(), old)
	old.cut(t, s.ns, "old-0")
	fresh := pods(t, s.ns, "fresh", 3, second)
	s.want[old["old-0"]], stands[old["old-0"]] = podCut, "Pod Running>Cancelled(Deleted)"
	fresh.tell(s.want, podSucceeds)
	fresh.tell(stands, podSucceeds)
	late.tells(t, time.Minute, stands)

	// A filter leaves out, and says so.
	picky := startReceiverAt(t, "127.0.0.1:0")
	filter := "filter: {kinds: [Pod], namespaces: [" + s.ns + "], states: [Succeeded, Failed, Cancelled]}"
	a.reload(withSink(withSink(base, "late", late.url), "picky", picky.url, filter))
	old.cut(t, s.ns, "old-1")
	s.want[old["old-1"]], stands[old["old-1"]] = podCut, "Pod Running>Cancelled(Deleted)"
	ends, elsewhere, works := pods(t, s.ns, "ends", 2, second), pods(t, aside, "elsewhere", 2, second), jobs(t, s.ns, "works", 1, second)
	for _, want := range []map[string]string{s.want, stands} {
		ends.tell(want, podSucceeds)
		elsewhere.tell(want, podSucceeds)
		works.tell(want, jobSucceeds)
	}
	s.hook.tells(t, time.Minute, s.want)
	late.tells(t, time.Minute, stands)
	quiet(t, time.Minute)
	endsAlone(t, picky.received(), ends, old["old-1"])
	marked(t, picky, highest(s.hook.received()))
	if r := whole(t, "picky", picky.everything()); r.Explained["filter"]+r.Explained["before"] != 2*3 {
		t.Errorf("picky knows of %v that was left out, want 6 by the filter, or before it", r.Explained)
	}

	// Another name is another sink; one that is taken out is given nothing more.
	had := len(late.received())
	a.reload(withSink(base, "later", late.url))
	live := maps.Clone(old)
	delete(live, "old-0")
	delete(live, "old-1")
	waitFor(t, 30*time.Second, "the states of the living", func() bool { return len(late.received()) >= had+len(live) })
	initials(t, late.received()[had:], live)
	after := pods(t, s.ns, "after", 2, second)
	after.tell(s.want, podSucceeds)
	after.tell(stands, podSucceeds)
	s.hook.tells(t, time.Minute, s.want)
	late.tells(t, time.Minute, stands)
	if n := len(picky.received()); n != 3 {
		t.Errorf("picky was given %d events, want 3 and none after it was taken out", n)
	}
	for name, want := range map[string]bool{"sink/platform": true, "sink/later": true, "sink/late": false, "sink/picky": false} {
		if got := hasCheck(t, name); got != want {
			t.Errorf("the digest has a check %s: %v, want %v", name, got, want)
		}
	}
	marked(t, late, highest(s.hook.received()))
	a.stop()
	compare(t, "late", stands, tellings(late.received()))
	whole(t, "late", late.everything())
	addUp(t, "late", late.everything(), false)
	addUp(t, "picky", picky.everything(), false)
	s.told(t)
}

// initials wants the events to be where each of the fleet stands, and no more.
func initials(t *testing.T, events []event, of fleet) {
	t.Helper()
	got := map[string]bool{}
	for _, e := range events {
		d := e.Data
		if got[d.Workload.UID] || of[d.Workload.Name] != d.Workload.UID || !d.Initial || d.To != "Running" || d.Seq != 2 || d.Number != 0 {
			t.Errorf("got %s, want where one of %v stands, once", e.body, slices.Sorted(maps.Keys(of)))
		}
		got[d.Workload.UID] = true
	}
	if len(got) != len(of) {
		t.Errorf("the states of %d workloads were told, want %d", len(got), len(of))
	}
}

// endsAlone wants the ends of these, each saying that what was before was left
// out by a filter, and no more.
func endsAlone(t *testing.T, events []event, ends fleet, more ...string) {
	t.Helper()
	want := append(slices.Sorted(maps.Values(ends)), more...)
	for _, e := range events {
		d := e.Data
		n := len(d.Skipped)
		if !slices.Contains(want, d.Workload.UID) || !ended(e) || d.Seq != 3 || d.Previous != 0 ||
			n == 0 || d.Skipped[0].From != 1 || d.Skipped[n-1].To != 2 || d.Skipped[n-1].Cause != "filter" {
			t.Errorf("got %s, want an end that says what the filter left out before", e.body)
		}
	}
	if len(events) != len(want) {
		t.Errorf("got %d ends, want %d", len(events), len(want))
	}
}

// cut deletes one of the fleet's pods.
func (f fleet) cut(t *testing.T, ns, name string) {
	t.Helper()
	if err := env.client.CoreV1().Pods(ns).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// detached waits until the digest says of a sink that nothing is delivered to
// it any more.
func detached(t *testing.T, name string) {
	t.Helper()
	waitFor(t, time.Minute, "the digest to say that "+name+" is detached", func() bool {
		status, message := check(t, "sink/"+name)
		return status == "fail" && strings.Contains(message, "detached since ")
	})
}

// atAnAttach are the places that a sink passes when it comes back: at the last
// it has, durably. At the start each of three cursors passes the latter two, and
// the look at who is configured. Read-only.
var atAnAttach = []place{{"ledger/attach", 1}, {"ledger/alter", 5}, {"ledger/altered", 5}}

// TestAReceiverThatIsGoneAndComesBack answers 410: nothing is delivered then,
// until a reload brings the sink back, with one gap, whenever the agent is
// killed on the way.
func TestAReceiverThatIsGoneAndComesBack(t *testing.T) {
	needCluster(t)
	s := newSession(t, "gone")
	s.killed = true
	remote := startReceiverAt(t, "127.0.0.1:0")
	config := withSink(configOf(s.ns), "remote", remote.url)
	a := s.start(t, config)
	still, cut := pods(t, s.ns, "still", 3, nil), pods(t, s.ns, "cut", 2, nil)
	still.tell(s.want, podRuns)
	cut.tell(s.want, podRuns)
	remote.tells(t, time.Minute, s.want)
	before := highest(remote.received())

	remote.answers(410, 0)
	cut.deletePods(t, s.ns)
	within := pods(t, s.ns, "within", 2, second)
	cut.tell(s.want, podCut)
	within.tell(s.want, podSucceeds)
	s.hook.tells(t, time.Minute, s.want)
	detached(t, "remote")
	remote.answers(0, 0)
	a.kill()
	for _, p := range atAnAttach {
		a = launch(t, s.dir, config, fmt.Sprintf("%s=kill@%d", p.name, p.times))
		a.ready()
		detached(t, "remote") // a start alone does not bring it back
		a.hangUp(config)
		a.died(p.name, 20*time.Second)
	}
	a = s.start(t, config)
	fresh := pods(t, s.ns, "fresh", 2, second)
	fresh.tell(s.want, podSucceeds)
	s.hook.tells(t, time.Minute, s.want)
	stands := map[string]string{}
	still.tell(stands, podRuns) // told again where it stands, with nothing new
	cut.tell(stands, podCut)
	within.tell(stands, "Pod Succeeded")
	fresh.tell(stands, podSucceeds)
	waitFor(t, time.Minute, "everything at the receiver that was gone", func() bool {
		return maps.Equal(stands, movements(remote.received()))
	})
	marked(t, remote, highest(s.hook.received()))
	a.stop()
	found := gapsOf(remote.received())
	if g := gaps(found["sink/remote"]); len(g) != 1 || g[0].FromNumber != before || g[0].ToNumber < before+2+6 || len(found) != 1 {
		t.Errorf("gaps %+v, want one of the sink, above number %d and over 8 numbers", g, before)
	}
	whole(t, "remote", remote.everything())
	addUp(t, "remote", remote.everything(), true)
	s.told(t)
}

// movements are tellings without states that are told again.
func movements(events []event) map[string]string {
	at := map[string]string{}
	return tellings(slices.DeleteFunc(events, func(e event) bool {
		again := e.Data.Initial && at[e.Source] == e.Data.To
		at[e.Source] = e.Data.To
		return again
	}))
}
