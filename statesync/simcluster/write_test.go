package simcluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// newNamespace is a world with the namespace n.
func newNamespace(t *testing.T) (*world, *kubernetes.Clientset) {
	t.Helper()
	w := newWorld(t)
	k := w.typed(t)
	must(k.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, metav1.CreateOptions{}))(t)
	return w, k
}

func TestAPodsLifeThroughTheAPI(t *testing.T) {
	w, k := newNamespace(t)
	pods := k.CoreV1().Pods("n")
	seen := must(pods.Watch(t.Context(), metav1.ListOptions{ResourceVersion: fmt.Sprint(w.cluster.Now())}))(t)
	defer seen.Stop()
	pod := must(pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-", Labels: map[string]string{"a": "b"}, UID: "mine", Generation: 7},
		Spec:       corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "main", Image: "i"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}, metav1.CreateOptions{}))(t)
	if !strings.HasPrefix(pod.Name, "p-") || len(pod.Name) != 7 || pod.UID == "mine" || len(pod.UID) != 36 || pod.Generation != 1 ||
		time.Since(pod.CreationTimestamp.Time) > time.Minute || pod.Status.Phase != corev1.PodPending || pod.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		t.Errorf("got %v, want it with what the server gives a pod", pod)
	}
	name := pod.Name
	pod.Status.Phase, pod.Spec.Containers[0].Image = corev1.PodRunning, "other"
	pod = must(pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}))(t)
	if pod.Status.Phase != corev1.PodRunning || pod.Spec.Containers[0].Image != "i" || pod.Generation != 1 {
		t.Errorf("after a write of the status: got %v, want that alone changed", pod)
	}
	pod.Status.Phase, pod.Spec.Containers[0].Image = corev1.PodFailed, "other"
	pod = must(pods.Update(t.Context(), pod, metav1.UpdateOptions{}))(t)
	if pod.Status.Phase != corev1.PodRunning || pod.Spec.Containers[0].Image != "other" || pod.Generation != 2 {
		t.Errorf("after a write of the spec: got %v, want that alone changed, and the next generation", pod)
	}
	same := must(pods.Update(t.Context(), pod, metav1.UpdateOptions{}))(t)
	if diff := cmp.Diff(pod, same); diff != "" {
		t.Errorf("after a write of the same (-before +after):\n%s", diff)
	}
	must(pods.Patch(t.Context(), name, types.MergePatchType, []byte(`{"status":{"phase":"Succeeded","message":"done"}}`), metav1.PatchOptions{}, "status"))(t)
	must(pods.Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"labels":{"a":null,"c":"d"}},"status":{"phase":"Failed"}}`), metav1.PatchOptions{}))(t)
	if err := pods.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	at := w.cluster.Now()
	expect(t, seen, fmt.Sprintf("ADDED %s@%d Pending", name, at-5), fmt.Sprintf("MODIFIED %s@%d Running", name, at-4),
		fmt.Sprintf("MODIFIED %s@%d Running", name, at-3), fmt.Sprintf("MODIFIED %s@%d Succeeded", name, at-2),
		fmt.Sprintf("MODIFIED %s@%d Succeeded", name, at-1), fmt.Sprintf("DELETED %s@%d Succeeded", name, at))
}

func TestAPodIsGivenTimeToStop(t *testing.T) {
	w, k := newNamespace(t)
	pods := k.CoreV1().Pods("n")
	make := func(name, node string) *corev1.Pod {
		return must(pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: node}}, metav1.CreateOptions{}))(t)
	}
	remove := func(name string, grace *int64) {
		t.Helper()
		if err := pods.Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: grace}); err != nil {
			t.Fatal(err)
		}
	}
	grace := func(name string) string {
		p, err := pods.Get(t.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return "gone"
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.DeletionTimestamp == nil || p.DeletionGracePeriodSeconds == nil {
			return "there"
		}
		return fmt.Sprint(*p.DeletionGracePeriodSeconds, " ", time.Until(p.DeletionTimestamp.Time) < time.Duration(*p.DeletionGracePeriodSeconds+1)*time.Second, p.Generation)
	}
	make("bound", "node")
	check := func(want string) {
		t.Helper()
		if got := grace("bound"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	check("there")
	remove("bound", nil)
	check("30 true 2")
	remove("bound", new(int64(40))) // it is not made longer
	check("30 true 2")
	remove("bound", new(int64(5)))
	check("5 true 2")
	remove("bound", new(int64(0)))
	check("gone")

	make("unbound", "")
	remove("unbound", nil)
	if got := grace("unbound"); got != "gone" {
		t.Errorf("a pod without a node: %s, want gone", got)
	}
	p := make("kept", "node")
	if err := pods.Delete(t.Context(), "kept", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: new(types.UID("other"))}}); !apierrors.IsConflict(err) {
		t.Errorf("another UID: got %v, want a conflict", err)
	}
	if err := pods.Delete(t.Context(), "kept", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &p.UID}}); err != nil {
		t.Error(err)
	}
	if n := len(must2(w.cluster.List(w.pods, "n"))); n != 0 {
		t.Errorf("%d pods are left, want none", n)
	}
}

func must2[T any](v T, _ int64, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestFinalizers(t *testing.T) {
	w, k := newNamespace(t)
	jobs := k.BatchV1().Jobs("n")
	job := must(jobs.Create(t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Finalizers: []string{"x.y/z", "x.y/last"}}}, metav1.CreateOptions{}))(t)
	if *job.Spec.Completions != 1 || *job.Spec.BackoffLimit != 6 {
		t.Errorf("got %v, want a job with its defaults", job.Spec)
	}
	if err := jobs.Delete(t.Context(), "j", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	at := w.cluster.Now()
	if err := jobs.Delete(t.Context(), "j", metav1.DeleteOptions{}); err != nil || w.cluster.Now() != at {
		t.Errorf("deleted again: got %v at %d, want nothing at %d", err, w.cluster.Now(), at)
	}
	job = must(jobs.Get(t.Context(), "j", metav1.GetOptions{}))(t)
	if job.DeletionTimestamp == nil || *job.DeletionGracePeriodSeconds != 0 || job.Generation != 2 {
		t.Errorf("got %v, want that it is to go", job.ObjectMeta)
	}
	seen := must(jobs.Watch(t.Context(), metav1.ListOptions{ResourceVersion: fmt.Sprint(at)}))(t)
	defer seen.Stop()
	must(jobs.Patch(t.Context(), "j", types.MergePatchType, []byte(`{"metadata":{"finalizers":["x.y/last"]}}`), metav1.PatchOptions{}))(t)
	must(jobs.Patch(t.Context(), "j", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}))(t)
	expect(t, seen, fmt.Sprintf("MODIFIED j@%d", at+1), fmt.Sprintf("DELETED j@%d", at+2))
}

func TestCustomObjectsThroughTheAPI(t *testing.T) {
	w, _ := newNamespace(t)
	trains := w.dynamic(t, w.trains).Namespace("n")
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"size": int64(3)}, "status": map[string]any{"phase": "Running"}}}
	u.SetGroupVersionKind(w.trains.groupVersionKind())
	u.SetName("one")
	u = must(trains.Create(t.Context(), u, metav1.CreateOptions{}))(t)
	if _, has := u.Object["status"]; has || u.GetGeneration() != 1 {
		t.Errorf("got %v, want it without a status, at generation 1", u)
	}
	u.Object["status"] = map[string]any{"phase": "Running"}
	u = must(trains.UpdateStatus(t.Context(), u, metav1.UpdateOptions{}))(t)
	stale := u.DeepCopy()
	u = must(trains.Patch(t.Context(), "one", types.MergePatchType, []byte(`{"spec":{"size":4},"status":{"phase":"Failed"}}`), metav1.PatchOptions{}))(t)
	got := fmt.Sprint(u.Object["spec"], u.Object["status"], u.GetGeneration())
	if want := "map[size:4] map[phase:Running] 2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := trains.Update(t.Context(), stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a write of what it no longer is: got %v, want a conflict", err)
	}
	stale.SetResourceVersion("")
	if _, err := trains.Update(t.Context(), stale, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a write without a version: got %v, want invalid", err)
	}
	if err := trains.Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := trains.Get(t.Context(), "one", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
}

func TestNamespaces(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "p", nil, corev1.PodRunning) // in the namespace a, which nobody made
	k := w.typed(t)
	system := must(k.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{}))(t)
	if system.UID != "cluster" {
		t.Errorf("kube-system has UID %s, want that of the cluster", system.UID)
	}
	first := must(k.CoreV1().Namespaces().Get(t.Context(), "a", metav1.GetOptions{}))(t)
	again := must(k.CoreV1().Namespaces().Get(t.Context(), "a", metav1.GetOptions{}))(t)
	if first.UID == "" || first.UID != again.UID {
		t.Errorf("got UIDs %q and %q, want the same", first.UID, again.UID)
	}
	if _, err := k.CoreV1().Namespaces().Get(t.Context(), "b", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
	_, err := k.CoreV1().Pods("b").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}, metav1.CreateOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("a pod in no namespace: got %v, want not found", err)
	}
	if err := k.CoreV1().Namespaces().Delete(t.Context(), "kube-system", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("kube-system deleted: got %v, want that it is forbidden", err)
	}
	if err := k.CoreV1().Namespaces().Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := len(must2(w.cluster.List(w.pods, ""))); n != 0 || w.cluster.has("a") {
		t.Errorf("%d pods are left, want none, and no namespace", n)
	}
}

func TestManyAreDeletedAtOnce(t *testing.T) {
	w := newWorld(t)
	deployments := w.typed(t).AppsV1().Deployments("kube-system")
	for i := range 4 {
		must(deployments.Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("d", i), Labels: map[string]string{"odd": fmt.Sprint(i % 2)}}}, metav1.CreateOptions{}))(t)
	}
	seen := must(deployments.Watch(t.Context(), metav1.ListOptions{ResourceVersion: fmt.Sprint(w.cluster.Now())}))(t)
	defer seen.Stop()
	if err := deployments.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "odd=1"}); err != nil {
		t.Fatal(err)
	}
	at := w.cluster.Now()
	expect(t, seen, fmt.Sprintf("DELETED d1@%d", at-1), fmt.Sprintf("DELETED d3@%d", at))
	if left := must(deployments.List(t.Context(), metav1.ListOptions{}))(t); len(left.Items) != 2 {
		t.Errorf("%d are left, want 2", len(left.Items))
	}
}

func TestWriteErrors(t *testing.T) {
	w, k := newNamespace(t)
	pods, rest := k.CoreV1().Pods("n"), k.CoreV1().RESTClient()
	must(pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}, metav1.CreateOptions{}))(t)
	const trainings = "/apis/sim.outrider.dev/v1/namespaces/n/trainings"
	send := func(verb, path, kind, body string) error {
		return rest.Verb(verb).RequestURI(path).SetHeader("Content-Type", kind).Body([]byte(body)).Do(t.Context()).Error()
	}
	const all, one, asJSON = "/api/v1/namespaces/n/pods", "/api/v1/namespaces/n/pods/p", "application/json"
	if err := send("POST", trainings, asJSON, `{"apiVersion":"sim.outrider.dev/v1","kind":"Training","metadata":{"name":"t"}}`); err != nil {
		t.Fatal(err)
	}
	at := w.cluster.Now()
	tests := []struct {
		name string
		err  error
		want metav1.StatusReason
	}{
		{"one that is there", send("POST", all, asJSON, `{"metadata":{"name":"p"}}`), metav1.StatusReasonAlreadyExists},
		{"no name", send("POST", all, asJSON, `{}`), metav1.StatusReasonBadRequest},
		{"a version", send("POST", all, asJSON, `{"metadata":{"name":"q","resourceVersion":"1"}}`), metav1.StatusReasonBadRequest},
		{"another namespace", send("POST", all, asJSON, `{"metadata":{"name":"q","namespace":"m"}}`), metav1.StatusReasonBadRequest},
		{"another kind", send("POST", all, asJSON, `{"kind":"Job","apiVersion":"batch/v1","metadata":{"name":"q"}}`), metav1.StatusReasonBadRequest},
		{"no JSON", send("POST", all, asJSON, `{`), metav1.StatusReasonBadRequest},
		{"another encoding", send("POST", all, "text/plain", `{}`), metav1.StatusReasonUnsupportedMediaType},
		{"a body that is too long", send("POST", all, asJSON, strings.Repeat(" ", maxBody+1)), metav1.StatusReasonRequestEntityTooLarge},
		{"another name than the path's", send("PUT", one, asJSON, `{"metadata":{"name":"q"}}`), metav1.StatusReasonBadRequest},
		{"another UID", send("PUT", one, asJSON, `{"metadata":{"name":"p","uid":"u"}}`), metav1.StatusReasonConflict},
		{"one that is not there", send("PUT", all+"/q", asJSON, `{"metadata":{"name":"q"}}`), metav1.StatusReasonNotFound},
		{"a patch of another version", send("PATCH", one, string(types.MergePatchType), `{"metadata":{"resourceVersion":"1"}}`), metav1.StatusReasonConflict},
		{"another kind of patch", send("PATCH", one, string(types.JSONPatchType), `[]`), metav1.StatusReasonUnsupportedMediaType},
		{"a patch that makes it no pod", send("PATCH", one, string(types.MergePatchType), `{"spec":{"containers":7}}`), metav1.StatusReasonBadRequest},
		{"a name that no path has", send("POST", all, asJSON, `{"metadata":{"name":"a/b"}}`), metav1.StatusReasonInvalid},
		{"a label that is none", send("POST", all, asJSON, `{"metadata":{"name":"q","labels":{"=":"!"}}}`), metav1.StatusReasonInvalid},
		{"labels that are none", send("POST", trainings, asJSON, `{"apiVersion":"sim.outrider.dev/v1","kind":"Training","metadata":{"name":"q","labels":5}}`), metav1.StatusReasonBadRequest},
		{"a patch that leaves no metadata", send("PATCH", trainings+"/t", string(types.MergePatchType), `{"metadata":"x"}`), metav1.StatusReasonBadRequest},
		{"an object in no namespace", send("POST", "/api/v1/pods", asJSON, `{"metadata":{"name":"q"}}`), metav1.StatusReasonMethodNotAllowed},
		{"all of all namespaces", send("DELETE", "/api/v1/pods", asJSON, ``), metav1.StatusReasonMethodNotAllowed},
		{"a write that is not to be made", send("POST", all+"?dryRun=All", asJSON, `{"metadata":{"name":"q"}}`), metav1.StatusReasonBadRequest},
		{"an end that is not to be made", send("DELETE", one, asJSON, `{"dryRun":["All"]}`), metav1.StatusReasonBadRequest},
		{"a verb that is none", send("POST", one, asJSON, `{}`), metav1.StatusReasonMethodNotAllowed},
	}
	for _, tt := range tests {
		if got := apierrors.ReasonForError(tt.err); got != tt.want {
			t.Errorf("%s: got %q (%v), want %q", tt.name, got, tt.err, tt.want)
		}
	}
	if w.cluster.Now() != at {
		t.Errorf("the cluster went from %d to %d, want nothing written", at, w.cluster.Now())
	}
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1}}`), []byte(`{"a":{"b":null,"c":{"d":2}},"e":[1]}`))
	f.Fuzz(func(t *testing.T, into, patch []byte) {
		var a, b map[string]any
		if json.Unmarshal(into, &a) != nil || json.Unmarshal(patch, &b) != nil || a == nil {
			return
		}
		merge(a, b)
		once := must(json.Marshal(a))(t)
		merge(a, b)
		if twice := must(json.Marshal(a))(t); !bytes.Equal(once, twice) {
			t.Errorf("merged once %s, twice %s", once, twice)
		}
	})
}
