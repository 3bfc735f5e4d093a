package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

var (
	widgetResource     = schema.GroupVersionResource{Group: "e2e.outrider.dev", Version: "v1", Resource: "widgets"}
	workflowResource   = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "workflows"}
	rayJobResource     = schema.GroupVersionResource{Group: "ray.io", Version: "v1", Resource: "rayjobs"}
	rayClusterResource = schema.GroupVersionResource{Group: "ray.io", Version: "v1", Resource: "rayclusters"}
	notebookResource   = schema.GroupVersionResource{Group: "kubeflow.org", Version: "v1", Resource: "notebooks"}
)

// documented is an example of docs/kinds.md: one entry of the list of kinds.
var documented = regexp.MustCompile("(?ms)^```yaml\n(- kind: \\{.*?)^```$")

// undocumented are kinds whose expression can fail, and which their pods move
// to Running; and one that lies between another and its pods.
const undocumented = `- kind: {group: e2e.outrider.dev, version: v1, resource: widgets, name: Widget}
  cel: {queued: "object.spec.size / object.spec.parts > 0", succeeded: "object.spec.done"}
- kind: {group: ray.io, version: v1, resource: rayclusters, name: RayCluster}
  cel: {queued: "true", running: object.status.state == "ready"}
`

const rayCluster = "spec: {headGroupSpec: {rayStartParams: {}, template: {spec: {containers: [{name: main, image: 'work:1'}]}}}}"

// kindsOf is the list of kinds of a configuration: the examples of
// docs/kinds.md word for word, and others.
func kindsOf(t *testing.T, builtIn ...string) string {
	t.Helper()
	docs, err := os.ReadFile("../docs/kinds.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := documented.FindAllStringSubmatch(string(docs), -1)
	if len(examples) != 3 {
		t.Fatalf("docs/kinds.md has %d examples, want those of Workflow, RayJob and Notebook", len(examples))
	}
	text := undocumented
	for _, example := range examples {
		text += example[1]
	}
	for _, name := range builtIn {
		text += "- " + name + "\n"
	}
	return "kinds:\n" + regexp.MustCompile("(?m)^").ReplaceAllString(text, "    ")
}

// A cast is the objects of a namespace, of any kind, and what must be told of
// them.
type cast struct {
	t    *testing.T
	ns   string
	api  *dynamic.DynamicClient
	want map[string]string
}

// A life is what happens to one object: what it is created with, and patches
// to it, all in YAML. The last of them may be "deleted".
type life struct {
	of      schema.GroupVersionResource
	kind    string
	name    string
	with    string
	patches []string
	story   string
}

// lives takes one object after another through its life. Nothing waits for
// the agent: it must tell every state all the same.
func (c *cast) lives(lives ...life) {
	c.t.Helper()
	for _, l := range lives {
		u := c.create(l.of, l.kind, l.name, l.with)
		for _, p := range l.patches {
			c.patch(l.of, l.name, p)
		}
		c.tells(u, l.story)
	}
}

// tells says what must be told of an object.
func (c *cast) tells(u *unstructured.Unstructured, story string) {
	c.want[string(u.GetUID())] = u.GetKind() + " " + story
}

// told waits until every story has been told, and no other.
func (c *cast) told(hook *receiver) {
	c.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !maps.Equal(tellings(hook.received()), c.want) {
		if time.Now().After(deadline) {
			compare(c.t, "webhook, after a minute", c.want, tellings(hook.received()))
			c.t.FailNow()
		}
		time.Sleep(50 * time.Millisecond) // sleep: between two looks
	}
}

func (c *cast) create(of schema.GroupVersionResource, kind, name, with string, owners ...metav1.OwnerReference) *unstructured.Unstructured {
	c.t.Helper()
	u, err := parseObject(fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: %s}}", of.GroupVersion(), kind, name))
	if err != nil {
		c.t.Fatal(err)
	}
	more := map[string]any{}
	if err := json.Unmarshal(c.json(with), &more); err != nil {
		c.t.Fatal(err)
	}
	maps.Copy(u.Object, more)
	u.SetOwnerReferences(owners)
	created, err := c.api.Resource(of).Namespace(c.ns).Create(c.t.Context(), u, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatalf("create %s %s: %v", kind, name, err)
	}
	return created
}

// patch changes an object: its status where that is a resource of its own.
func (c *cast) patch(of schema.GroupVersionResource, name, text string) {
	c.t.Helper()
	api := c.api.Resource(of).Namespace(c.ns)
	if text == "deleted" {
		if err := api.Delete(c.t.Context(), name, metav1.DeleteOptions{}); err != nil {
			c.t.Fatal(err)
		}
		return
	}
	var sub []string
	if strings.HasPrefix(text, "status:") && of != workflowResource && of != widgetResource {
		sub = []string{"status"}
	}
	if _, err := api.Patch(c.t.Context(), name, types.MergePatchType, c.json(text), metav1.PatchOptions{}, sub...); err != nil {
		c.t.Fatalf("patch %s %s with %s: %v", of.Resource, name, text, err)
	}
}

func (c *cast) json(text string) []byte {
	c.t.Helper()
	var value any
	err := yaml.Unmarshal([]byte(text), &value)
	b, jsonErr := json.Marshal(value)
	if err != nil || jsonErr != nil {
		c.t.Fatalf("%s: %v, %v", text, err, jsonErr)
	}
	return b
}

// owner is the reference of what an object controls.
func owner(of schema.GroupVersionResource, u *unstructured.Unstructured) []metav1.OwnerReference {
	yes := true
	return []metav1.OwnerReference{{APIVersion: of.GroupVersion().String(), Kind: u.GetKind(), Name: u.GetName(), UID: u.GetUID(), Controller: &yes}}
}

// pod creates a pod that an object controls, and waits until it has ended.
func (c *cast) pod(name string, owners []metav1.OwnerReference) {
	c.t.Helper()
	pod := newPod(name, plan{annotations: map[string]string{"devcluster/run": "200ms"}})
	pod.OwnerReferences = owners
	if _, err := env.client.CoreV1().Pods(c.ns).Create(c.t.Context(), pod, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	waitFor(c.t, time.Minute, "pod "+name+" to end", func() bool {
		now, err := env.client.CoreV1().Pods(c.ns).Get(c.t.Context(), name, metav1.GetOptions{})
		return err == nil && now.Status.Phase == corev1.PodSucceeded
	})
}

func workflows() []life {
	w := func(name, story string, patches ...string) life {
		return life{workflowResource, "Workflow", name, "spec: {entrypoint: main}", patches, story}
	}
	running := "status: {phase: Running, startedAt: 2026-01-01T00:00:05Z, finishedAt: null}"
	return []life{
		w("succeeds", "Queued>Running>Succeeded", "status: {phase: Pending}", running, "status: {phase: Succeeded, finishedAt: 2026-01-01T00:01:00Z}"),
		w("fails", "Queued>Running>Failed(Failed)", running, `status: {phase: Failed, message: "child 'main' failed", finishedAt: 2026-01-01T00:01:00Z}`),
		w("errs", "Queued>Failed(Error)", "status: {phase: Pending}", `status: {phase: Error, message: "invalid spec", finishedAt: 2026-01-01T00:01:00Z}`),
		w("is-stopped", "Queued>Running>Cancelled(Failed)", running, "spec: {shutdown: Stop}", "status: {phase: Failed, finishedAt: 2026-01-01T00:01:00Z}"),
		w("pauses", "Queued>Running>Queued(Suspended)>Running>Succeeded", running, "spec: {suspend: true}", "spec: {suspend: null}", "status: {phase: Succeeded, finishedAt: 2026-01-01T00:01:00Z}"),
		w("goes", "Queued>Running>Cancelled(Deleted)", running, "deleted"),
		w("never-starts", "Queued>Cancelled(Deleted)", "deleted"),
	}
}

func rayJobs() []life {
	r := func(name, story string, patches ...string) life {
		return life{rayJobResource, "RayJob", name, "spec: {entrypoint: python main.py}", patches, story}
	}
	start := []string{"status: {jobDeploymentStatus: Initializing}", "status: {jobDeploymentStatus: Running, jobStatus: PENDING}"}
	running := "status: {jobDeploymentStatus: Running, jobStatus: RUNNING, startTime: 2026-01-01T00:00:05Z}"
	after := func(patches ...string) []string { return append(append(start[:2:2], running), patches...) }
	return []life{
		r("succeeds", "Queued>Running>Succeeded", after("status: {jobDeploymentStatus: Complete, jobStatus: SUCCEEDED, endTime: 2026-01-01T00:01:00Z}")...),
		r("fails", "Queued>Running>Failed(AppFailed)", after("status: {jobDeploymentStatus: Failed, jobStatus: FAILED, reason: AppFailed, message: exit code 1, endTime: 2026-01-01T00:01:00Z}")...),
		r("late", "Queued>Running>Failed(DeadlineExceeded)", after("status: {jobDeploymentStatus: Failed, reason: DeadlineExceeded, endTime: 2026-01-01T00:01:00Z}")...),
		r("stopped", "Queued>Running>Cancelled", after("status: {jobDeploymentStatus: Complete, jobStatus: STOPPED, endTime: 2026-01-01T00:01:00Z}")...),
		r("pauses", "Queued>Running>Queued(Suspended)>Running>Cancelled(Deleted)", after("status: {jobDeploymentStatus: Suspending}", `status: {jobDeploymentStatus: Suspended, jobStatus: ""}`, running, "deleted")...),
		r("retries", "Queued>Running>Queued(Retrying)>Running>Succeeded", after("status: {jobDeploymentStatus: Retrying, jobStatus: FAILED}", `status: {jobDeploymentStatus: Initializing, jobStatus: ""}`, running, "status: {jobDeploymentStatus: Complete, jobStatus: SUCCEEDED, endTime: 2026-01-01T00:01:00Z}")...),
		r("never-starts", "Queued>Cancelled(Deleted)", start[0], "deleted"),
	}
}

func notebooks() []life {
	n := func(name, story string, patches ...string) life {
		return life{notebookResource, "Notebook", name, "spec: {template: {spec: {containers: [{name: main, image: 'work:1'}]}}}", patches, story}
	}
	waits := `status: {readyReplicas: 0, conditions: [], containerState: {running: null, waiting: {reason: ContainerCreating}}}`
	runs := `status: {readyReplicas: 1, conditions: [], containerState: {waiting: null, running: {startedAt: 2026-01-01T00:00:05Z}}}`
	crashes := `status: {readyReplicas: 0, conditions: [], containerState: {running: null, waiting: {reason: CrashLoopBackOff}}}`
	gone := `status: {readyReplicas: 0, conditions: [], containerState: {running: null, waiting: null}}`
	return []life{
		n("works", "Queued>Running>Deleted(Deleted)", waits, runs, "deleted"),
		n("stops", "Queued>Running>Queued(Stopped)>Running>Deleted(Deleted)", waits, runs, "metadata: {annotations: {kubeflow-resource-stopped: 2026-01-01T00:02:00Z}}", gone, "metadata: {annotations: {kubeflow-resource-stopped: null}}", runs, "deleted"),
		n("crashes", "Queued>Running>Queued(CrashLoopBackOff)>Deleted(Deleted)", waits, runs, crashes, "deleted"),
	}
}

// withPods are objects whose pods, and what lies between, tell no story of
// their own. It returns one that stands where its pod has moved it.
func (c *cast) withPods() *unstructured.Unstructured {
	c.t.Helper()
	workflow := c.create(workflowResource, "Workflow", "with-pods", "spec: {entrypoint: main}")
	c.patch(workflowResource, "with-pods", "status: {phase: Running}")
	c.pod("step-1", owner(workflowResource, workflow))
	c.pod("step-2", owner(workflowResource, workflow))
	c.patch(workflowResource, "with-pods", "status: {phase: Succeeded}")
	c.tells(workflow, "Queued>Running>Succeeded")

	ray := c.create(rayJobResource, "RayJob", "with-pods", "spec: {entrypoint: python main.py}")
	c.patch(rayJobResource, "with-pods", "status: {jobDeploymentStatus: Running, jobStatus: RUNNING}")
	job := newJob("submitter", map[string]string{"devcluster/run": "200ms"})
	job.OwnerReferences = owner(rayJobResource, ray)
	if _, err := env.client.BatchV1().Jobs(c.ns).Create(c.t.Context(), job, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	waitFor(c.t, time.Minute, "the submitter to complete", func() bool {
		now, err := env.client.BatchV1().Jobs(c.ns).Get(c.t.Context(), "submitter", metav1.GetOptions{})
		return err == nil && now.Status.CompletionTime != nil
	})
	cluster := c.create(rayClusterResource, "RayCluster", "of-with-pods", rayCluster, owner(rayJobResource, ray)...)
	c.pod("head", owner(rayClusterResource, cluster))
	c.patch(rayClusterResource, cluster.GetName(), "status: {state: ready}")
	c.patch(rayJobResource, "with-pods", "status: {jobDeploymentStatus: Complete, jobStatus: SUCCEEDED}")
	c.tells(ray, "Queued>Running>Succeeded")

	alone := c.create(rayClusterResource, "RayCluster", "alone", rayCluster)
	c.pod("other-head", owner(rayClusterResource, alone))
	c.patch(rayClusterResource, "alone", "status: {state: ready}")
	c.patch(rayClusterResource, "alone", "deleted")
	c.tells(alone, "Queued>Running>Deleted(Deleted)")

	notebook := c.create(notebookResource, "Notebook", "with-pods", "spec: {template: {spec: {containers: [{name: main, image: 'work:1'}]}}}")
	c.statefulSet(owner(notebookResource, notebook))
	c.patch(notebookResource, "with-pods", "status: {readyReplicas: 1, conditions: [], containerState: {running: {}}}")
	c.tells(notebook, "Queued>Running")

	widget := c.create(widgetResource, "Widget", "with-pods", "spec: {size: 6, parts: 2}")
	c.deployment(owner(widgetResource, widget))
	return widget
}

// podTemplate is a pod for ever.
func podTemplate() (*metav1.LabelSelector, corev1.PodTemplateSpec) {
	labels := map[string]string{"app": "with-pods"}
	return &metav1.LabelSelector{MatchLabels: labels}, corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: newPod("", plan{}).Spec.Containers},
	}
}

// statefulSet creates one that an object controls, and waits until its pod is
// ready.
func (c *cast) statefulSet(owners []metav1.OwnerReference) {
	c.t.Helper()
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "with-pods", OwnerReferences: owners}}
	set.Spec.Selector, set.Spec.Template = podTemplate()
	api := env.client.AppsV1().StatefulSets(c.ns)
	if _, err := api.Create(c.t.Context(), set, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	waitFor(c.t, time.Minute, "the StatefulSet's pod to be ready", func() bool {
		now, err := api.Get(c.t.Context(), set.Name, metav1.GetOptions{})
		return err == nil && now.Status.ReadyReplicas == 1
	})
}

// deployment creates one that an object controls; its pod is two hops away.
func (c *cast) deployment(owners []metav1.OwnerReference) {
	c.t.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "with-pods", OwnerReferences: owners}}
	d.Spec.Selector, d.Spec.Template = podTemplate()
	if _, err := env.client.AppsV1().Deployments(c.ns).Create(c.t.Context(), d, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// remove deletes what would create its pods again, then the pods.
func (c *cast) remove() {
	c.t.Helper()
	err := errors.Join(
		env.client.AppsV1().StatefulSets(c.ns).Delete(c.t.Context(), "with-pods", metav1.DeleteOptions{}),
		env.client.AppsV1().Deployments(c.ns).Delete(c.t.Context(), "with-pods", metav1.DeleteOptions{}),
	)
	if err != nil {
		c.t.Error(err)
	}
	empty(c.t, c.ns)
	drained(c.t, c.ns, time.Minute)
}

// failing are objects on which an expression fails, and one on which it does
// not. "halfway" fails twice, "from-the-start" also in its deletion.
func failing() []life {
	w := func(name, with, story string, patches ...string) life {
		return life{widgetResource, "Widget", name, "spec: " + with, patches, story}
	}
	return []life{
		w("halfway", "{size: 6, parts: 2}", "Queued>Running>Succeeded", "spec: {parts: 0}", "spec: {size: 7}", "spec: {parts: 1, done: true}"),
		w("from-the-start", "{size: 6, parts: 0}", "Queued>Cancelled(Deleted)", "deleted"),
		w("never", "{size: 6, parts: 2}", "Queued>Cancelled(Deleted)", "deleted"),
	}
}

// TestKindsOfTheConfiguration drives public custom kinds through their states.
// The agent knows them from its configuration alone.
func TestKindsOfTheConfiguration(t *testing.T) {
	needCluster(t)
	t.Run("beside all built-in kinds", func(t *testing.T) {
		customKinds(t, "custom-beside", "Pod", "Job", "Deployment", "StatefulSet", "ReplicaSet", "DaemonSet")
	})
	// What lies between is then read by its metadata alone.
	t.Run("beside pods", func(t *testing.T) { customKinds(t, "custom-pods", "Pod") })
}

func customKinds(t *testing.T, ns string, others ...string) {
	s := newSession(t, ns)
	config := with(t, configOf(s.ns), "kinds: [Pod, Job]", kindsOf(t, others...))
	a := launch(t, s.dir, config, "")
	const missing = "the server has no workflows in argoproj.io/v1alpha1: is the CustomResourceDefinition installed, or is it cluster-scoped, which `namespaces` leaves out?"
	waitFor(t, 30*time.Second, "the check to say what is missing", func() bool {
		if code, _ := get("http://127.0.0.1:9610/healthz"); code == 0 {
			return false // it does not listen yet
		}
		status, message := check(t, "stream/workflows.argoproj.io/"+s.ns)
		return status == "fail" && strings.HasSuffix(message, missing)
	})
	install(t, widgets, publicCRD(t, "argoproj.io_workflows"), publicCRD(t, "ray.io_rayjobs"), publicCRD(t, "ray.io_rayclusters"), publicCRD(t, "kubeflow.org_notebooks"))
	a.ready()

	c := &cast{t: t, ns: s.ns, api: anyKind(t), want: s.want}
	c.lives(workflows()...)
	c.told(s.hook)
	a.stop()
	c.lives(rayJobs()...) // while nobody watches
	a = s.start(t, config)
	c.lives(notebooks()...)
	c.lives(failing()...)
	widget := c.withPods()
	c.tells(widget, "Queued>Running") // by its pod, told in time
	c.told(s.hook)
	c.patch(widgetResource, widget.GetName(), "spec: {done: true}")
	c.tells(widget, "Queued>Running>Succeeded")
	c.told(s.hook)
	misjudged(t, a, s.ns)
	c.remove()
	a.stop()
	events := s.told(t)
	noGaps(t, "webhook", events)
	inWords(t, events)
	t.Logf("%d stories, as they should be", len(s.want))
}

// misjudged wants the objects on which an expression failed to be counted, and
// each to be named once.
func misjudged(t *testing.T, a *agent, ns string) {
	t.Helper()
	if got := total(metrics(t), "outrider_stream_rule_failures_total"); got != 4 {
		t.Errorf("rules failed %v times, want 4", got)
	}
	for object, want := range map[string]int{"halfway": 1, "from-the-start": 1, "never": 0} {
		if got := strings.Count(a.logged(), "object="+ns+"/"+object+" "); got != want {
			t.Errorf("the log names %s %d times, want %d", object, got, want)
		}
	}
}

// inWords wants changes to say what the objects' own fields say.
func inWords(t *testing.T, events []event) {
	t.Helper()
	want := map[string]string{
		"Workflow/fails Running":      "2026-01-01T00:00:05Z ",
		"Workflow/fails Failed":       "2026-01-01T00:01:00Z child 'main' failed",
		"Workflow/succeeds Succeeded": "2026-01-01T00:01:00Z ",
		"RayJob/fails Running":        "2026-01-01T00:00:05Z ",
		"RayJob/fails Failed":         "2026-01-01T00:01:00Z exit code 1",
		"Notebook/works Running":      "2026-01-01T00:00:05Z ",
	}
	got := map[string]string{}
	for _, e := range events {
		name := e.Data.Workload.Kind + "/" + e.Data.Workload.Name + " " + e.Data.To
		if _, asked := want[name]; asked {
			got[name] = e.Data.Occurred.Format(time.RFC3339) + " " + e.Data.Message
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("when and what (-want +got):\n%s", diff)
	}
}
