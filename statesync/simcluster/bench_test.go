package simcluster

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// A templated pod is a pointer to what many have in common, and its own name
// and phase.
type templated struct {
	of    *corev1.Pod
	name  string
	uid   types.UID
	phase corev1.PodPhase
}

func (s *templated) Object() apiruntime.Object {
	p := s.of.DeepCopy()
	p.Name, p.UID, p.Status.Phase = s.name, s.uid, s.phase
	return p
}

// template is a pod of some 2 KB in protobuf.
func template() *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "team", Labels: map[string]string{"app": "a", "team": "t"}, Annotations: map[string]string{},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "j", UID: "8b1d4f2e-0f6a-4a53-9d0c-6f1b7f0f3f11", Controller: new(true)}},
	}, Spec: corev1.PodSpec{NodeName: "node-17", RestartPolicy: corev1.RestartPolicyNever}}
	for i := range 3 {
		c := corev1.Container{Name: fmt.Sprint("c", i), Image: "registry.example.org/team/image:v1", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi")},
		}}
		for j := range 6 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("VARIABLE_", j), Value: "some value of a usual length"})
		}
		p.Spec.Containers = append(p.Spec.Containers, c)
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: c.Image})
		p.Annotations[fmt.Sprint("example.org/annotation-", i)] = "some value of a usual length"
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodConditionType(fmt.Sprint("Condition", i)), Status: corev1.ConditionTrue})
	}
	return p
}

func podOf(of *corev1.Pod, i int, phase corev1.PodPhase) Version {
	s := &templated{of: of, name: fmt.Sprintf("pod-%06d", i), uid: types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i)), phase: phase}
	return Version{Namespace: of.Namespace, Name: s.name, UID: s.uid, Labels: of.Labels, Source: s}
}

// BenchmarkWatch is of one watch in protobuf over TLS and HTTP/2; the client
// reads frames and does not decode them.
func BenchmarkWatch(b *testing.B) {
	w := newWorld(b, func(_ *ServerOptions, o *Options) { o.History = b.N + 10 })
	of := template()
	client := must(rest.HTTPClientFor(w.config))(b)
	req := must(http.NewRequestWithContext(b.Context(), http.MethodGet, "https://"+w.server.Addr()+"/api/v1/pods?watch=1&resourceVersion=2", nil))(b)
	req.Header.Set("Accept", apiruntime.ContentTypeProtobuf)
	resp := must(client.Do(req))(b)
	defer resp.Body.Close()
	must(w.cluster.Create(w.pods, podOf(of, 0, corev1.PodPending)))(b)
	frames := protobuf.LengthDelimitedFramer.NewFrameReader(resp.Body)
	buf := make([]byte, 1<<20)
	b.ResetTimer()
	go func() {
		for i := 1; i < b.N; i++ {
			_, _ = w.cluster.Update(w.pods, podOf(of, 0, corev1.PodRunning), 0)
		}
	}()
	size := 0
	for range b.N {
		size += must(frames.Read(buf))(b)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(size)/float64(b.N), "B/event")
}

const many = 100_000

// BenchmarkMemory is of a cluster with 100,000 pods made of one template.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		before := heap()
		pods, of := Pods(), template()
		c := New(Options{}, pods)
		for i := range many {
			must(c.Create(pods, podOf(of, i, corev1.PodRunning)))(b)
		}
		used := heap() - before
		b.ReportMetric(float64(used)/(1<<20), "MiB")
		b.ReportMetric(float64(used)/many, "B/pod")
		runtime.KeepAlive(c)
	}
}

// BenchmarkList is of a whole list of 100,000 pods in protobuf, and what the
// heap grows by meanwhile.
func BenchmarkList(b *testing.B) {
	pods, of := Pods(), template()
	c := New(Options{}, pods)
	for i := range many {
		must(c.Create(pods, podOf(of, i, corev1.PodRunning)))(b)
	}
	f := must(negotiate(apiruntime.ContentTypeProtobuf, false))(b)
	for b.Loop() {
		before, peak := heap(), uint64(0)
		l := &listing{resource: pods, form: f}
		l.objects, _, _ = c.List(pods, "")
		n := 0
		if err := l.write(writer(func(p []byte) (int, error) {
			if n++; n%20_000 == 0 {
				peak = max(peak, heap())
			}
			return len(p), nil
		})); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(peak-before)/(1<<20), "MiB")
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
