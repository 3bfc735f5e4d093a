package simcluster

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// lapsed are a server's lapses as text: the resource, and from which version to
// which.
func (w *world) lapsed() string {
	var out []string
	for _, l := range w.server.Lapses() {
		out = append(out, fmt.Sprintf("%s %d..%d", l.Resource, l.From, l.To))
	}
	return strings.Join(out, ", ")
}

func TestLapses(t *testing.T) {
	w := newWorld(t)
	pods := w.typed(t).CoreV1().Pods("")
	check := func(when, want string) {
		t.Helper()
		if got := w.lapsed(); got != want {
			t.Errorf("%s: got lapses %q, want %q", when, got, want)
		}
	}
	list := func(o metav1.ListOptions) {
		t.Helper()
		must(pods.List(t.Context(), o))(t)
	}
	w.pod(t, "one", nil, corev1.PodRunning) // 3
	expect(t, w.watch(t, 2), "ADDED one@3 Running")
	list(metav1.ListOptions{})
	check("a history that reaches back", "")

	w.pod(t, "two", nil, corev1.PodRunning) // 4
	w.cluster.Compact()
	expect(t, w.watch(t, 3), "ERROR 410 Expired", "end")
	check("nobody has listed yet", "")
	list(metav1.ListOptions{Limit: 1})
	list(metav1.ListOptions{LabelSelector: "a=b"})
	check("not all was listed", "")
	list(metav1.ListOptions{})
	check("listed", "pods 3..4")

	w.pod(t, "two", nil, corev1.PodSucceeded) // 5
	list(metav1.ListOptions{})
	check("listed again, since the first list did not arrive", "pods 3..5")
	following := w.watch(t, 5)
	w.pod(t, "three", nil, corev1.PodRunning) // 6
	expect(t, following, "ADDED three@6 Running")
	list(metav1.ListOptions{})
	check("it was over with the watch", "pods 3..5")

	w.train(t, "other", "Running") // 7
	w.cluster.Compact()
	expect(t, w.watch(t, 6), "ERROR 410 Expired", "end")
	expect(t, w.watch(t, 6), "ERROR 410 Expired", "end") // the same one
	streamed := must(pods.Watch(t.Context(), metav1.ListOptions{
		SendInitialEvents: new(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true,
	}))(t)
	defer streamed.Stop()
	expect(t, streamed, "ADDED one@3 Running", "ADDED three@6 Running", "ADDED two@5 Succeeded", "BOOKMARK @7 initial ")
	check("a list that was streamed", "pods 3..5, pods 6..7")

	streamed.Stop()
	following.Stop()
	wait(t, "the watches' end", func() bool { return w.server.Stats().Watches == 0 })
	for _, from := range []int64{7, 8} { // again before a watch goes on from the list
		w.pod(t, "three", nil, corev1.PodFailed) // 8, 9
		w.cluster.Compact()
		expect(t, w.watch(t, from), "ERROR 410 Expired", "end")
		list(metav1.ListOptions{})
	}
	check("one after the other", "pods 3..5, pods 6..7, pods 7..8, pods 8..9")
}

func TestNoLapseWhereNothingHappened(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "one", nil, corev1.PodRunning) // 3
	open := w.watch(t, 3)
	w.fault(t, `{"fault":"gone","resource":"pods","count":1}`)
	expect(t, open, "ERROR 410 Expired", "end")
	must(w.typed(t).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}))(t)
	if got := w.lapsed(); got != "" {
		t.Errorf("got lapses %q, want none: the list is as of the version that was known", got)
	}
}

func TestALapseOfAResourceThatIsDefinedAgain(t *testing.T) {
	w := newWorld(t)
	w.train(t, "one", "Running") // 3
	trains := w.dynamic(t, w.trains)
	open := must(trains.Watch(t.Context(), metav1.ListOptions{ResourceVersion: "3"}))(t)
	w.cluster.Remove(w.trains)
	expect(t, open, "DELETED one@4 Running", "end")
	w.pod(t, "one", nil, corev1.PodRunning) // 5
	w.cluster.Add(w.trains)
	w.train(t, "two", "Running") // 6
	expect(t, must(trains.Watch(t.Context(), metav1.ListOptions{ResourceVersion: "4"}))(t), "ERROR 410 Expired", "end")
	must(trains.List(t.Context(), metav1.ListOptions{Limit: 1}))(t)
	if got := w.lapsed(); got != "" {
		t.Errorf("got lapses %q, want none yet: a list of one asks for the version, though that is all there is", got)
	}
	must(trains.List(t.Context(), metav1.ListOptions{}))(t)
	if got := w.lapsed(); got != "trainings.sim.outrider.dev 4..6" {
		t.Errorf("got lapses %q, want one from the end of the definition to the list", got)
	}
}
