package e2e

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/outrider-agent/outrider/statesync/kube"
)

// definitions is where CustomResourceDefinitions are.
var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// widgets is a small kind, for what needs no real one.
const widgets = `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: widgets.e2e.outrider.dev}, spec: {
group: e2e.outrider.dev, scope: Namespaced, names: {kind: Widget, listKind: WidgetList, plural: widgets, singular: widget}, versions: [
{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`

// anyKind returns a client of objects of any kind.
func anyKind(t *testing.T) *dynamic.DynamicClient {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", env.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// publicCRD reads a definition of testdata/crds.
func publicCRD(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "crds", name+".yaml.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unpacked, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// install installs definitions until the test has ended.
func install(t *testing.T, texts ...string) {
	t.Helper()
	api := anyKind(t).Resource(definitions)
	for _, text := range texts {
		crd, err := parseObject(text)
		if err != nil {
			t.Fatal(err)
		}
		name := crd.GetName()
		if _, err := api.Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
			t.Fatalf("install %s: %v", name, err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			if err := api.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Errorf("delete %s: %v", name, err)
			}
			for ctx.Err() == nil {
				if _, err := api.Get(ctx, name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
					return
				}
				time.Sleep(50 * time.Millisecond) // sleep: between two looks, after the test
			}
			t.Errorf("%s is still there 30s after its deletion", name)
		})
		waitFor(t, 30*time.Second, name+" to be established", func() bool {
			now, err := api.Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && established(now)
		})
	}
}

func established(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		m, ok := c.(map[string]any)
		return ok && m["type"] == "Established" && m["status"] == "True"
	})
}

// parseObject reads an object from YAML, with whole numbers as the API
// machinery wants them.
func parseObject(text string) (*unstructured.Unstructured, error) {
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		return nil, err
	}
	b, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{}
	return u, u.UnmarshalJSON(b)
}

// collection is one that the agent's own client reads.
func collection(t *testing.T, ns, group, version, resource string, list, object runtime.Object) *kube.Collection {
	t.Helper()
	client, err := kube.Connect(env.kubeconfig, "outrider/e2e")
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.Collection(kube.CollectionOptions{
		Group: group, Version: version, Resource: resource, Namespace: ns, Selector: "e2e=yes",
		List: list.DeepCopyObject, Object: object.DeepCopyObject,
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCollectionsOfEverySort reads objects of a custom kind whole, and their
// metadata alone, and that of ReplicaSets, from the real API server.
func TestCollectionsOfEverySort(t *testing.T) {
	needCluster(t)
	ns := namespace(t, "collections")
	custom := collection(t, ns, "e2e.outrider.dev", "v1", "widgets", &unstructured.UnstructuredList{}, &unstructured.Unstructured{})
	metadata := collection(t, ns, "e2e.outrider.dev", "v1", "widgets", &metav1.PartialObjectMetadataList{}, &metav1.PartialObjectMetadata{})
	sets := collection(t, ns, "apps", "v1", "replicasets", &metav1.PartialObjectMetadataList{}, &metav1.PartialObjectMetadata{})

	missing := "the server has no widgets in e2e.outrider.dev/v1: is the CustomResourceDefinition installed, or is it cluster-scoped, which `namespaces` leaves out?"
	for _, c := range []*kube.Collection{custom, metadata} {
		if _, err := c.List(t.Context(), metav1.ListOptions{}); !apierrors.IsNotFound(err) || err.Error() != "list widgets: "+missing {
			t.Errorf("list: got %v, want %s", err, missing)
		}
		if _, err := c.Watch(t.Context(), streamedList()); !apierrors.IsNotFound(err) || err.Error() != "watch widgets: "+missing {
			t.Errorf("watch: got %v, want %s", err, missing)
		}
	}

	install(t, widgets)
	widget := `{apiVersion: e2e.outrider.dev/v1, kind: Widget, metadata: {name: %s, labels: {e2e: "yes"}}, spec: {size: 3}}`
	set := `{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: %s, labels: {e2e: "yes"}}, spec: {replicas: 0, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: main, image: "work:1"}]}}}}`
	t.Run("custom", func(t *testing.T) {
		watches(t, custom, schema.GroupVersionResource{Group: "e2e.outrider.dev", Version: "v1", Resource: "widgets"}, ns, widget, "*unstructured.Unstructured")
	})
	t.Run("metadata of custom", func(t *testing.T) {
		watches(t, metadata, schema.GroupVersionResource{Group: "e2e.outrider.dev", Version: "v1", Resource: "widgets"}, ns, widget, "*v1.PartialObjectMetadata")
	})
	t.Run("metadata", func(t *testing.T) {
		watches(t, sets, schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}, ns, set, "*v1.PartialObjectMetadata")
	})
}

// streamedList is how a reflector asks for a list that is streamed.
func streamedList() metav1.ListOptions {
	yes := true
	return metav1.ListOptions{SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true}
}

// watches creates an object before and after the collection is watched, and
// wants it to tell of both, and of the first one's deletion; then it wants
// what can be asked to agree.
func watches(t *testing.T, c *kube.Collection, of schema.GroupVersionResource, ns, text, typ string) {
	t.Helper()
	api := anyKind(t).Resource(of).Namespace(ns)
	create := func(name string) *unstructured.Unstructured {
		t.Helper()
		u, err := parseObject(fmt.Sprintf(text, name))
		if err == nil {
			u, err = api.Create(t.Context(), u, metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	remove := func(name string) {
		t.Helper()
		if err := api.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create("first")
	w, err := c.Watch(t.Context(), streamedList())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var got []string
	next := func(want string) {
		t.Helper()
		for {
			select {
			case e := <-w.ResultChan():
				o, ok := e.Object.(metav1.Object)
				if !ok || fmt.Sprintf("%T", e.Object) != typ {
					t.Fatalf("got %s of %T: %v, want %s", e.Type, e.Object, e.Object, typ)
				}
				if e.Type == watch.Modified {
					continue // by the ReplicaSet controller
				}
				got = append(got, strings.Join(strings.Fields(fmt.Sprintf("%s %s %s", e.Type, o.GetName(), o.GetAnnotations()[metav1.InitialEventsAnnotationKey])), " "))
				if got[len(got)-1] != want || o.GetResourceVersion() == "" {
					t.Fatalf("got %v at version %q, want %s", got, o.GetResourceVersion(), want)
				}
				return
			case <-time.After(10 * time.Second):
				t.Fatalf("waited 10s for %s; there was %v", want, got)
			}
		}
	}
	next("ADDED first")
	next("BOOKMARK true")
	second := create("second")
	next("ADDED second")
	remove("first")
	next("DELETED first")
	agree(t, c, second)
	remove("second")
	next("DELETED second")
}

// agree wants every call to have one object.
func agree(t *testing.T, c *kube.Collection, want *unstructured.Unstructured) {
	t.Helper()
	obj, err := c.Object(t.Context(), want.GetNamespace(), want.GetName())
	if err != nil {
		t.Fatal(err)
	}
	if o := obj.(metav1.Object); o.GetUID() != want.GetUID() || o.GetLabels()["e2e"] != "yes" {
		t.Errorf("get: got %v, want %s", o, want.GetUID())
	}
	old := metav1.ListOptions{ResourceVersion: "1"}
	list, err := c.List(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	names := func(items ...metav1.Object) (out []string) {
		for _, o := range items {
			out = append(out, o.GetName()+" "+string(o.GetUID()))
		}
		return out
	}
	var got []string
	switch list := list.(type) {
	case *unstructured.UnstructuredList:
		for i := range list.Items {
			got = append(got, names(&list.Items[i])...)
		}
		if diff := cmp.Diff(want.Object["spec"], list.Items[0].Object["spec"]); diff != "" {
			t.Errorf("spec (-want +got):\n%s", diff)
		}
	case *metav1.PartialObjectMetadataList:
		for i := range list.Items {
			got = append(got, names(&list.Items[i])...)
		}
	}
	if diff := cmp.Diff(names(want), got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	all, err := c.ListMetadata(t.Context(), old)
	if err != nil || len(all.Items) != 1 || all.Items[0].UID != want.GetUID() || all.ResourceVersion == "" {
		t.Errorf("list metadata: got %v, %v; want one object", all, err)
	}
}
