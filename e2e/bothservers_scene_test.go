package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

var gadgetResource = schema.GroupVersionResource{Group: "e2e.outrider.dev", Version: "v1", Resource: "gadgets"}

// A scene is one namespace of a stage. What it writes, it plays every part of:
// user, controller, scheduler and kubelet.
type scene struct {
	*stage
	ns string
}

// scene makes a namespace, on a server where nobody else does.
func (s *stage) scene(name string) *scene {
	s.Helper()
	c := &scene{stage: s, ns: s.name + "-" + name}
	c.namespace()
	return c
}

func (c *scene) namespace() {
	c.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.ns}}
	if _, err := c.client.CoreV1().Namespaces().Create(c.Context(), ns, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
	c.furnish(c.T, c.ns)
}

// noNamespace deletes the namespace, which is empty, as its controller does.
func (c *scene) noNamespace() {
	c.Helper()
	api := c.client.CoreV1().Namespaces()
	if err := api.Delete(c.Context(), c.ns, metav1.DeleteOptions{}); err != nil {
		c.Fatal(err)
	}
	ns, err := api.Get(c.Context(), c.ns, metav1.GetOptions{})
	if err == nil {
		ns.Spec.Finalizers = nil
		_, err = api.Finalize(c.Context(), ns, metav1.UpdateOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		c.Fatal(err)
	}
}

func (c *scene) tells(kind, name, story string) { c.stage.tells(c.ns, kind, name, story) }

func (c *scene) until(kind, name, state string) { c.Helper(); c.stage.until(c.ns, kind, name, state) }

// bare is a pod that no controller has, and that any admission lets pass.
func bare(name string) *corev1.Pod {
	no := false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &no, RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{Name: "main", Image: "work:1"}},
		},
	}
}

// pod creates a pod, in protobuf.
func (c *scene) pod(name string, edits ...func(*corev1.Pod)) *corev1.Pod {
	c.Helper()
	p := bare(name)
	for _, edit := range edits {
		edit(p)
	}
	created, err := c.client.CoreV1().Pods(c.ns).Create(c.Context(), p, metav1.CreateOptions{})
	if err != nil {
		c.Fatalf("create pod %s: %v", name, err)
	}
	return created
}

func labelled(labels ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		if p.Labels == nil {
			p.Labels = map[string]string{}
		}
		addLabels(p, labels)
	}
}

func onNode(p *corev1.Pod) { p.Spec.NodeName = "node-1" }

func held(p *corev1.Pod) { p.Finalizers = []string{"e2e.outrider.dev/hold"} }

// of makes a controller's own.
func of(apiVersion, kind string, owner metav1.Object) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.OwnerReferences = controlled(apiVersion, kind, owner) }
}

func controlled(apiVersion, kind string, owner metav1.Object) []metav1.OwnerReference {
	yes := true
	return []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: owner.GetName(), UID: owner.GetUID(), Controller: &yes}}
}

// job creates a Job that asks for one pod.
func (c *scene) job(name string, edits ...func(*batchv1.Job)) *batchv1.Job {
	c.Helper()
	p := bare("")
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: p.Spec}}}
	for _, edit := range edits {
		edit(j)
	}
	created, err := c.client.BatchV1().Jobs(c.ns).Create(c.Context(), j, metav1.CreateOptions{})
	if err != nil {
		c.Fatalf("create job %s: %v", name, err)
	}
	return created
}

// resource is the collection of a kind in the namespace.
func (c *scene) resource(kind string) dynamic.ResourceInterface {
	c.Helper()
	of := map[string]schema.GroupVersionResource{
		"Pod":         {Version: "v1", Resource: "pods"},
		"Job":         {Group: "batch", Version: "v1", Resource: "jobs"},
		"Deployment":  {Group: "apps", Version: "v1", Resource: "deployments"},
		"ReplicaSet":  {Group: "apps", Version: "v1", Resource: "replicasets"},
		"StatefulSet": {Group: "apps", Version: "v1", Resource: "statefulsets"},
		"DaemonSet":   {Group: "apps", Version: "v1", Resource: "daemonsets"},
		"Gadget":      gadgetResource,
	}[kind]
	if of.Resource == "" {
		c.Fatalf("there is no kind %s", kind)
	}
	return c.any.Resource(of).Namespace(c.ns)
}

// create creates an object from YAML, in JSON.
func (c *scene) create(apiVersion, kind, name, text string, owners ...metav1.OwnerReference) *unstructured.Unstructured {
	c.Helper()
	u, err := parseObject(fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: %s}, %s}", apiVersion, kind, name, text))
	if err == nil {
		u.SetOwnerReferences(owners)
		u, err = c.resource(kind).Create(c.Context(), u, metav1.CreateOptions{})
	}
	if err != nil {
		c.Fatalf("create %s %s: %v", kind, name, err)
	}
	return u
}

// patch merges YAML into an object, or into its status. @now is the time.
func (c *scene) patch(kind, name, text string) *unstructured.Unstructured {
	c.Helper()
	var sub []string
	if strings.HasPrefix(text, "status:") {
		sub = []string{"status"}
	}
	var value any
	err := yaml.Unmarshal([]byte(strings.ReplaceAll(text, "@now", time.Now().UTC().Format(time.RFC3339))), &value)
	b, jsonErr := json.Marshal(value)
	if err != nil || jsonErr != nil {
		c.Fatalf("%s: %v, %v", text, err, jsonErr)
	}
	u, err := c.resource(kind).Patch(c.Context(), name, types.MergePatchType, b, metav1.PatchOptions{}, sub...)
	if err != nil {
		c.Fatalf("patch %s %s with %s: %v", kind, name, b, err)
	}
	return u
}

// remove deletes an object as kubectl does, or with another time to stop.
func (c *scene) remove(kind, name string, grace ...int64) {
	c.Helper()
	background := metav1.DeletePropagationBackground
	o := metav1.DeleteOptions{PropagationPolicy: &background}
	if len(grace) > 0 {
		o.GracePeriodSeconds = &grace[0]
	}
	c.removeBy(kind, name, o)
}

// removeBy notes the answer, too: what may be gone already is no mistake.
func (c *scene) removeBy(kind, name string, o metav1.DeleteOptions) {
	c.Helper()
	err := c.resource(kind).Delete(c.Context(), name, o)
	c.answered("delete %s %s/%s: %q", kind, c.ns, name, apierrors.ReasonForError(err))
	if err != nil && !apierrors.IsNotFound(err) {
		c.Fatalf("delete %s %s: %v", kind, name, err)
	}
}

// here notes how an object stands on the server.
func (c *scene) here(kind, name string) {
	c.Helper()
	u, err := c.resource(kind).Get(c.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.answered("%s %s/%s: %s", kind, c.ns, name, apierrors.ReasonForError(err))
		return
	}
	grace := "none"
	if n := u.GetDeletionGracePeriodSeconds(); n != nil {
		grace = fmt.Sprint(*n)
	}
	labels := strings.ReplaceAll(fmt.Sprint(u.GetLabels()), string(u.GetUID()), "ITS-UID")
	c.answered("%s %s/%s: generation %d, deletion asked for: %v, grace %s, finalizers %v, labels %s", kind, c.ns, name,
		u.GetGeneration(), u.GetDeletionTimestamp() != nil, grace, u.GetFinalizers(), labels)
}

// runs has the kubelet say that a pod's container runs.
func (c *scene) runs(name string) {
	c.Helper()
	c.patch("Pod", name, `status: {phase: Running, startTime: "@now", containerStatuses: [`+container("running: {startedAt: \"@now\"}")+`]}`)
}

// ends has the kubelet say that a pod's container has ended.
func (c *scene) ends(name string, exitCode int, reason string) {
	c.Helper()
	phase := corev1.PodSucceeded
	if exitCode != 0 {
		phase = corev1.PodFailed
	}
	c.patch("Pod", name, fmt.Sprintf(`status: {phase: %s, containerStatuses: [%s]}`, phase,
		container(fmt.Sprintf(`terminated: {exitCode: %d, reason: %s, startedAt: "@now", finishedAt: "@now"}`, exitCode, reason))))
}

// container is a container's status with one state.
func container(state string) string {
	return `{name: main, image: "work:1", imageID: "", ready: false, restartCount: 0, state: {` + state + `}}`
}
