package simcluster

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

func TestWatchSelects(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "one", map[string]string{"team": "a"}, corev1.PodPending) // 3
	o := metav1.ListOptions{LabelSelector: "team=a", ResourceVersion: "3"}
	pods := must(w.typed(t).CoreV1().Pods("a").Watch(t.Context(), o))(t)
	defer pods.Stop()
	w.pod(t, "one", map[string]string{"team": "b"}, corev1.PodRunning)   // leaves: told as it was
	w.pod(t, "one", map[string]string{"team": "b"}, corev1.PodSucceeded) // not told
	w.pod(t, "one", map[string]string{"team": "a"}, corev1.PodFailed)    // enters
	w.pod(t, "two", map[string]string{"team": "b"}, corev1.PodRunning)   // not told
	must(w.cluster.Delete(w.pods, "a", "two", nil))(t)                   // not told
	must(w.cluster.Delete(w.pods, "a", "one", nil))(t)
	expect(t, pods, "DELETED one@4 Pending", "ADDED one@6 Failed", "DELETED one@9 Failed")
}

func TestWatchBegins(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "one", nil, corev1.PodPending)                            // 3
	w.pod(t, "two", map[string]string{"team": "a"}, corev1.PodPending) // 4
	list := metav1.ListOptions{SendInitialEvents: new(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true}
	later, none := list, list
	later.ResourceVersion, none.SendInitialEvents = "5", new(false)
	selected := list
	selected.LabelSelector = "team=a"
	tests := []struct {
		name string
		o    metav1.ListOptions
		want []string
	}{
		{"from a version", metav1.ListOptions{ResourceVersion: "3"}, []string{"ADDED two@4 Pending"}},
		{"from any version", metav1.ListOptions{ResourceVersion: "0"}, []string{"ADDED one@3 Pending", "ADDED two@4 Pending"}},
		{"from now, with what is there", metav1.ListOptions{}, []string{"ADDED one@3 Pending", "ADDED two@4 Pending"}},
		{"from now, without", none, nil},
		{"as a list", list, []string{"ADDED one@3 Pending", "ADDED two@4 Pending", "BOOKMARK @4 initial "}},
		{"as a list of some", selected, []string{"ADDED two@4 Pending", "BOOKMARK @4 initial "}},
		{"from the beginning", metav1.ListOptions{ResourceVersion: "1"}, []string{"ADDED one@3 Pending", "ADDED two@4 Pending"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pods := must(w.typed(t).CoreV1().Pods("").Watch(t.Context(), tt.o))(t)
			defer pods.Stop()
			expect(t, pods, tt.want...)
		})
	}
	t.Run("as a list of the future", func(t *testing.T) {
		pods := must(w.typed(t).CoreV1().Pods("").Watch(t.Context(), later))(t)
		defer pods.Stop()
		expect(t, pods, "ADDED one@3 Pending", "ADDED two@4 Pending")
		w.pod(t, "one", nil, corev1.PodRunning)
		expect(t, pods, "MODIFIED one@5 Running", "BOOKMARK @5 initial ")
	})
}

// It begins with status 200; that it is too old is its first event.
func TestWatchFromAForgottenVersion(t *testing.T) {
	w := newWorld(t, func(_ *ServerOptions, o *Options) { o.History = 2 })
	for i := range 10 {
		w.pod(t, fmt.Sprint("p", i), nil, corev1.PodPending)
	}
	pods := must(w.typed(t).CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: "3"}))(t)
	expect(t, pods, "ERROR 410 Expired", "end")
}

func TestWatchInEveryForm(t *testing.T) {
	w := newWorld(t)
	metadata := must(w.metadata(t, w.pods).Watch(t.Context(), metav1.ListOptions{ResourceVersion: "2"}))(t)
	defer metadata.Stop()
	trains := must(w.dynamic(t, w.trains).Namespace("a").Watch(t.Context(), metav1.ListOptions{ResourceVersion: "2"}))(t)
	defer trains.Stop()
	w.pod(t, "one", nil, corev1.PodPending)
	w.train(t, "two", "Running")
	w.train(t, "two", "Failed")
	expect(t, metadata, "ADDED one@3")
	expect(t, trains, "ADDED two@4 Running", "MODIFIED two@5 Failed")
}

func TestBookmarks(t *testing.T) {
	w := newWorld(t, func(o *ServerOptions, _ *Options) { o.BookmarkEvery = 10 * time.Millisecond })
	pods := must(w.typed(t).CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: "2", AllowWatchBookmarks: true}))(t)
	defer pods.Stop()
	expect(t, pods, "BOOKMARK @2 ")
	w.train(t, "other", "Running") // what happens elsewhere counts too
	for got := ""; got != "BOOKMARK @3 "; {
		if got = next(t, pods); got != "BOOKMARK @2 " && got != "BOOKMARK @3 " {
			t.Fatalf("got %q, want a bookmark at 2 or 3", got)
		}
	}
}

// A watch from a version of the future hears nothing until it has come, as
// from the API server.
func TestWatchFromTheFuture(t *testing.T) {
	w := newWorld(t, func(o *ServerOptions, _ *Options) { o.BookmarkEvery = 10 * time.Millisecond })
	o := metav1.ListOptions{ResourceVersion: "4", AllowWatchBookmarks: true}
	pods := must(w.typed(t).CoreV1().Pods("").Watch(t.Context(), o))(t)
	defer pods.Stop()
	w.pod(t, "p3", nil, corev1.PodRunning)
	select {
	case e := <-pods.ResultChan():
		t.Fatalf("got %s, want nothing", describe(t, e))
	case <-time.After(100 * time.Millisecond):
	}
	w.pod(t, "p4", nil, corev1.PodRunning)
	w.pod(t, "p5", nil, corev1.PodRunning)
	for got := ""; got != "ADDED p5@5 Running"; {
		if got = next(t, pods); got != "ADDED p5@5 Running" && got != "BOOKMARK @4 " {
			t.Fatalf("got %s, want what comes after 4", got)
		}
	}
}

func TestWatchFromTheLastVersionOfAll(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "one", nil, corev1.PodRunning)
	o := metav1.ListOptions{ResourceVersion: fmt.Sprint(math.MaxInt64), TimeoutSeconds: new(int64(1))}
	pods := must(w.typed(t).CoreV1().Pods("").Watch(t.Context(), o))(t)
	defer pods.Stop()
	expect(t, pods, "end")
}

func TestWatchEndsInTime(t *testing.T) {
	w := newWorld(t)
	pods := must(w.typed(t).CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: "2", TimeoutSeconds: new(int64(1))}))(t)
	begin := time.Now()
	expect(t, pods, "end")
	if took := time.Since(begin); took < 900*time.Millisecond || took > 5*time.Second {
		t.Errorf("it ended after %s, want 1s", took)
	}
}

// As when a CustomResourceDefinition is deleted, and created again.
func TestAResourceIsTakenAway(t *testing.T) {
	w := newWorld(t)
	trains := w.dynamic(t, w.trains)
	w.train(t, "one", "Running")
	w.train(t, "two", "Running")
	before := must(trains.Watch(t.Context(), metav1.ListOptions{ResourceVersion: "4"}))(t)
	w.cluster.Remove(w.trains)
	expect(t, before, "DELETED one@5 Running", "DELETED two@6 Running", "end")
	if _, err := trains.Watch(t.Context(), metav1.ListOptions{ResourceVersion: "6"}); err == nil {
		t.Error("a watch of what is gone: no error, want 404")
	}
	w.cluster.Add(w.trains)
	after := must(trains.Watch(t.Context(), metav1.ListOptions{ResourceVersion: "4"}))(t)
	expect(t, after, "ERROR 410 Expired", "end")
	if list, err := trains.List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("got %v and %v, want an empty list", list, err)
	}
}

// A reflector reads the list as a watch, and follows it.
func TestAReflectorStaysInStep(t *testing.T) {
	w := newWorld(t)
	for i := range 50 {
		w.pod(t, fmt.Sprintf("p%02d", i), nil, corev1.PodPending)
	}
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	pods := cache.NewListWatchFromClient(w.typed(t).CoreV1().RESTClient(), "pods", "", fields.Everything())
	r := cache.NewReflectorWithOptions(pods, &corev1.Pod{}, store, cache.ReflectorOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { r.RunWithContext(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	wait(t, "the list", func() bool { return len(store.List()) == 50 })
	for i := range 50 {
		if i%2 == 0 {
			must(w.cluster.Delete(w.pods, "a", fmt.Sprintf("p%02d", i), nil))(t)
		} else {
			w.pod(t, fmt.Sprintf("p%02d", i), nil, corev1.PodRunning)
		}
	}
	wait(t, "the changes", func() bool { return r.LastSyncResourceVersion() == fmt.Sprint(w.cluster.Now()) })
	if got := len(store.List()); got != 25 {
		t.Errorf("got %d pods, want 25", got)
	}
	for _, obj := range store.List() {
		if p := obj.(*corev1.Pod); p.Status.Phase != corev1.PodRunning {
			t.Errorf("%s is %s, want Running", p.Name, p.Status.Phase)
		}
	}
	for _, r := range w.server.Stats().Requests {
		if r.Verb == "list" {
			t.Errorf("got %d lists, want a watch alone", r.Count)
		}
	}
}

// Who reads slowly keeps nobody up, reads on from the history, and is told
// when that is gone.
func TestASlowWatcher(t *testing.T) {
	w := newWorld(t, func(_ *ServerOptions, o *Options) { o.History = 100 })
	slow := must(w.typed(t).CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: "2"}))(t)
	defer slow.Stop()
	long := map[string]string{}
	for i := range 30 {
		long[fmt.Sprint(i)] = string(make([]byte, 1000))
	}
	for i := range 3000 { // some 90 MB: more than all buffers on the way
		v := Version{Namespace: "a", Name: fmt.Sprint("p", i), UID: "u"}
		v.Source = stored{&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: v.Name, Annotations: long}}}
		must(w.cluster.Create(w.pods, v))(t)
	}
	n := 0
	for e := range slow.ResultChan() {
		if e.Type == watch.Error {
			if got := describe(t, e); got != "ERROR 410 Expired" {
				t.Errorf("after %d events: got %s, want 410", n, got)
			}
			return
		}
		if got, want := e.Object.(*corev1.Pod).Name, fmt.Sprint("p", n); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		n++
	}
	t.Errorf("the watch ended after %d events, want 410", n)
}
