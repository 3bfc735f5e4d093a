package simcluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const patience = 20 * time.Second

// A world is a served cluster and its clients.
type world struct {
	cluster *Cluster
	server  *Server
	config  *rest.Config
	pods    *Resource
	jobs    *Resource
	trains  *Resource
}

func newWorld(t testing.TB, change ...func(*ServerOptions, *Options)) *world {
	t.Helper()
	w := &world{pods: Pods(), jobs: Jobs(), trains: Custom("sim.outrider.dev", "v1", "trainings", "Training", true)}
	so, co := ServerOptions{Dir: t.TempDir(), ClusterUID: "cluster"}, Options{}
	for _, f := range change {
		f(&so, &co)
	}
	w.cluster = New(co, w.pods, w.jobs, Deployments(), w.trains)
	var err error
	if w.server, err = NewServer(w.cluster, so); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Run(ctx) }()
	t.Cleanup(func() {
		if shared, err := rest.TransportFor(w.config); err == nil {
			utilnet.CloseIdleConnectionsFor(shared) // or the server waits for them
		}
		cancel()
		begin := time.Now()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the server took %s to stop, want at most 1s", took)
		}
	})
	if w.config, err = clientcmd.BuildConfigFromFlags("", w.server.Kubeconfig()); err != nil {
		t.Fatal(err)
	}
	w.config.QPS = -1
	return w
}

// typed is a client that speaks protobuf.
func (w *world) typed(t testing.TB) *kubernetes.Clientset {
	t.Helper()
	cfg := rest.CopyConfig(w.config)
	cfg.ContentType = runtime.ContentTypeProtobuf
	return must(kubernetes.NewForConfig(cfg))(t)
}

func (w *world) dynamic(t testing.TB, r *Resource) dynamic.NamespaceableResourceInterface {
	t.Helper()
	return must(dynamic.NewForConfig(w.config))(t).Resource(schema.GroupVersionResource{Group: r.Group, Version: r.Version, Resource: r.Plural})
}

func (w *world) metadata(t testing.TB, r *Resource) metadata.Getter {
	t.Helper()
	return must(metadata.NewForConfig(w.config))(t).Resource(schema.GroupVersionResource{Group: r.Group, Version: r.Version, Resource: r.Plural})
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// pod writes a pod into the cluster past the API.
func (w *world) pod(t testing.TB, name string, labels map[string]string, phase corev1.PodPhase) *Version {
	t.Helper()
	v := Version{Namespace: "a", Name: name, UID: types.UID("uid-" + name), Labels: labels}
	v.Source = stored{&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: v.Namespace, Name: name, UID: v.UID, Labels: labels},
		Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "main", Image: "i"}}},
		Status:     corev1.PodStatus{Phase: phase},
	}}
	if _, err := w.cluster.Get(w.pods, v.Namespace, name); err == nil {
		return must(w.cluster.Update(w.pods, v, 0))(t)
	}
	return must(w.cluster.Create(w.pods, v))(t)
}

func (w *world) train(t testing.TB, name, phase string) *Version {
	t.Helper()
	v := Version{Namespace: "a", Name: name, UID: types.UID("uid-" + name)}
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"size": int64(3)}, "status": map[string]any{"phase": phase}}}
	u.SetNamespace(v.Namespace)
	u.SetName(name)
	u.SetUID(v.UID)
	u.SetGroupVersionKind(w.trains.groupVersionKind())
	v.Source = stored{u}
	if _, err := w.cluster.Get(w.trains, v.Namespace, name); err == nil {
		return must(w.cluster.Update(w.trains, v, 0))(t)
	}
	return must(w.cluster.Create(w.trains, v))(t)
}

// next returns a watch's next event, as text; "end" when it has ended.
func next(t testing.TB, w watch.Interface) string {
	t.Helper()
	select {
	case e, ok := <-w.ResultChan():
		if !ok {
			return "end"
		}
		return describe(t, e)
	case <-time.After(patience):
		t.Fatal("no event")
	}
	return ""
}

func describe(t testing.TB, e watch.Event) string {
	t.Helper()
	if st, ok := e.Object.(*metav1.Status); ok {
		return fmt.Sprintf("ERROR %d %s", st.Code, st.Reason)
	}
	m, ok := e.Object.(metav1.Object)
	if !ok {
		t.Fatalf("got an event of %T, want an object", e.Object)
	}
	text := fmt.Sprintf("%s %s@%s", e.Type, m.GetName(), m.GetResourceVersion())
	if m.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
		text += " initial"
	}
	switch o := e.Object.(type) {
	case *corev1.Pod:
		text += " " + string(o.Status.Phase)
	case *unstructured.Unstructured:
		phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
		text += " " + phase
	}
	return text
}

// expect holds a watch's next events to what is wanted.
func expect(t testing.TB, w watch.Interface, want ...string) {
	t.Helper()
	for _, text := range want {
		if got := next(t, w); got != text {
			t.Fatalf("got event %q, want %q", got, text)
		}
	}
}

// wait waits until a condition holds.
func wait(t testing.TB, what string, holds func() bool) {
	t.Helper()
	end, look := time.After(patience), time.NewTicker(5*time.Millisecond)
	defer look.Stop()
	for !holds() {
		select {
		case <-end:
			t.Fatalf("waited %s for %s", patience, what)
		case <-look.C:
		}
	}
}
