package kube

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/watch"
)

// workflows are objects of a kind of which no type is known.
func workflows(t *testing.T, c *Client, trim func(runtime.Object)) *Collection {
	t.Helper()
	out, err := c.Collection(CollectionOptions{
		Group: "argoproj.io", Version: "v1alpha1", Resource: "workflows", Namespace: "n", Selector: "team=a", Trim: trim,
		Object: func() runtime.Object { return &unstructured.Unstructured{} },
		List:   func() runtime.Object { return &unstructured.UnstructuredList{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// replicaSets are read by their metadata.
func replicaSets(t *testing.T, c *Client) *Collection {
	t.Helper()
	out, err := c.Collection(CollectionOptions{
		Group: "apps", Version: "v1", Resource: "replicasets",
		Object: func() runtime.Object { return &metav1.PartialObjectMetadata{} },
		List:   func() runtime.Object { return &metav1.PartialObjectMetadataList{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAListOfCustomObjectsIsTrimmedAsItIsRead(t *testing.T) {
	trimmed := make(chan string, 2)
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.URL.String(), "/apis/argoproj.io/v1alpha1/namespaces/n/workflows?labelSelector=team%3Da&limit=2"; got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
		if got := r.Header.Get("Accept"); got != "application/json" {
			t.Errorf("accepts %s, want JSON", got)
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"apiVersion":"argoproj.io/v1alpha1","items":[{"kind":"Workflow","metadata":{"name":"a","generation":3},"spec":{"large":1.5}},`)
		w.(http.Flusher).Flush()
		select { // the second is sent once the first has been trimmed
		case <-trimmed:
		case <-time.After(10 * time.Second):
			t.Error("the first object is not trimmed before the second is read")
		}
		io.WriteString(w, `{"kind":"Workflow","metadata":{"name":"b"}}],"kind":"WorkflowList","metadata":{"continue":"more","resourceVersion":"7"}}`)
	})
	got, err := workflows(t, c, func(obj runtime.Object) {
		u := obj.(*unstructured.Unstructured)
		unstructured.RemoveNestedField(u.Object, "spec")
		trimmed <- u.GetName()
	}).List(t.Context(), metav1.ListOptions{Limit: 2, ResourceVersion: "5"})
	want := &unstructured.UnstructuredList{
		Object: map[string]any{
			"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowList",
			"metadata": map[string]any{"continue": "more", "resourceVersion": "7"},
		},
		Items: []unstructured.Unstructured{
			{Object: map[string]any{"kind": "Workflow", "metadata": map[string]any{"name": "a", "generation": int64(3)}}},
			{Object: map[string]any{"kind": "Workflow", "metadata": map[string]any{"name": "b"}}},
		},
	}
	if diff := cmp.Diff(runtime.Object(want), got); err != nil || diff != "" {
		t.Errorf("got %v (-want +got):\n%s", err, diff)
	}
}

func TestReadList(t *testing.T) {
	tests := []struct {
		name, text string
		want       string // the objects, or the error
	}{
		{"objects of Kubernetes' own lists get their kind", `{"kind":"JobList","apiVersion":"batch/v1","items":[{"metadata":{"name":"a"}}]}`, "[batch/v1 Job a]"},
		{"objects that name their kind keep it", `{"items":[{"kind":"A","apiVersion":"x/v1","metadata":{"name":"a"}}],"kind":"BList","apiVersion":"y/v1"}`, "[x/v1 A a]"},
		{"no objects", `{"kind":"AList","items":[]}`, "[]"},
		{"null for objects", `{"kind":"AList","items":null}`, "[]"},
		{"what is no list", `{"kind":"Status","apiVersion":"v1","code":200}`, `decode list: got kind "Status", want a list`},
		{"what is no object", `[]`, "decode list: got [, want {"},
		{"one object for objects", `{"kind":"AList","items":{}}`, "decode list: got items {, want ["},
		{"an object that is none", `{"kind":"AList","items":[7]}`, "decode list: json: cannot unmarshal number into Go value of type map[string]interface {}"},
		{"a list that breaks off between objects", `{"kind":"AList","items":[{"kind":"A"},`, "decode list: EOF"},
		{"a list that breaks off in an object", `{"kind":"AList","items":[{"kin`, "decode list: unexpected EOF"},
		{"a list that breaks off after the objects", `{"kind":"AList","items":[]`, "decode list: EOF"},
		{"nothing", ``, "decode list: EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, err := readList(strings.NewReader(tt.text), nil)
			got := fmt.Sprint(err)
			if err == nil {
				var all []string
				for _, u := range list.Items {
					all = append(all, u.GetAPIVersion()+" "+u.GetKind()+" "+u.GetName())
				}
				got = fmt.Sprint(all)
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func FuzzReadList(f *testing.F) {
	f.Add([]byte(`{"kind":"AList","items":[{"kind":"A"}],"metadata":{"resourceVersion":"7"}}`))
	f.Add([]byte(`{"kind":"AList","items":[null,{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := readList(bytes.NewReader(b), func(obj runtime.Object) {
			if _, ok := obj.(*unstructured.Unstructured); !ok {
				t.Errorf("trims %T", obj)
			}
		})
		if (list == nil) == (err == nil) {
			t.Errorf("got %v and %v", list, err)
		}
	})
}

// events plays a watch that says these lines.
func events(t *testing.T, lines ...string) *Client {
	t.Helper()
	return server(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("watch") != "true" || q.Get("sendInitialEvents") != "true" || q.Get("resourceVersionMatch") != "NotOlderThan" {
			t.Errorf("asked %s, want a list that is streamed", r.URL)
		}
		if got, selected := q.Get("labelSelector"), strings.HasSuffix(r.URL.Path, "/namespaces/n/workflows"); (got == "team=a") != selected {
			t.Errorf("asked %s for labels %s", r.URL.Path, got)
		}
		answer(w, 200, strings.Join(lines, "\n"))
	})
}

// streamed is how a reflector asks for a list that is streamed.
func streamed() metav1.ListOptions {
	yes := true
	return metav1.ListOptions{SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true}
}

// told writes a watch's events: what they say, and of what type.
func told(t *testing.T, c *Collection) (out []string) {
	t.Helper()
	w, err := c.Watch(t.Context(), streamed())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if e.Type == watch.Error {
			out = append(out, fmt.Sprintf("ERROR %s", apierrors.ReasonForError(apierrors.FromObject(e.Object))))
			continue
		}
		o := e.Object.(metav1.Object)
		out = append(out, fmt.Sprintf("%s %T %s %s%s", e.Type, e.Object, o.GetName(), o.GetResourceVersion(), o.GetAnnotations()[metav1.InitialEventsAnnotationKey]))
	}
	return out
}

func TestAWatchOfCustomObjects(t *testing.T) {
	c := events(t,
		`{"type":"ADDED","object":{"kind":"Workflow","apiVersion":"argoproj.io/v1alpha1","metadata":{"name":"a","resourceVersion":"5"}}}`,
		`{"type":"BOOKMARK","object":{"kind":"Workflow","apiVersion":"argoproj.io/v1alpha1","metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}`,
		`{"type":"DELETED","object":{"kind":"Workflow","apiVersion":"argoproj.io/v1alpha1","metadata":{"name":"a","resourceVersion":"10"}}}`,
		`{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}}`)
	want := []string{
		"ADDED *unstructured.Unstructured a 5", "BOOKMARK *unstructured.Unstructured  9true",
		"DELETED *unstructured.Unstructured a 10", "ERROR Expired",
	}
	if diff := cmp.Diff(want, told(t, workflows(t, c, nil))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAWatchOfMetadata(t *testing.T) {
	c := events(t,
		`{"type":"ADDED","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","resourceVersion":"5"}}}`,
		`{"type":"BOOKMARK","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}`)
	want := []string{"ADDED *v1.PartialObjectMetadata a 5", "BOOKMARK *v1.PartialObjectMetadata  9true"}
	if diff := cmp.Diff(want, told(t, replicaSets(t, c))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatCannotBeDecodedIsAnErrorEvent(t *testing.T) {
	broken := `{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"5"}}}`
	whole := `{"type":"ADDED","object":{"kind":"ReplicaSet","apiVersion":"apps/v1","metadata":{"name":"a","resourceVersion":"5"}}}`
	if diff := cmp.Diff([]string{"ERROR InternalError"}, told(t, workflows(t, events(t, broken), nil))); diff != "" {
		t.Errorf("custom objects (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"ERROR InternalError"}, told(t, replicaSets(t, events(t, whole)))); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

func TestMetadataIsAskedForInProtobuf(t *testing.T) {
	codec := protobuf.NewSerializer(metainternal.Scheme, metainternal.Scheme)
	typ := metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}
	one := metav1.PartialObjectMetadata{TypeMeta: typ, ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "u"}}
	all := metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}, Items: []metav1.PartialObjectMetadata{one}}
	all.APIVersion, all.Kind = typ.APIVersion, "PartialObjectMetadataList"
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		kind, obj := "PartialObjectMetadataList", runtime.Object(&all)
		if strings.HasSuffix(r.URL.Path, "/namespaces/n/replicasets/a") {
			kind, obj = "PartialObjectMetadata", &one
		}
		if got, want := r.Header.Get("Accept"), "application/vnd.kubernetes.protobuf;as="+kind+";g=meta.k8s.io;v=v1,application/json;as="+kind+";"; !strings.HasPrefix(got, want) {
			t.Errorf("%s accepts %s, want %s", r.URL, got, want)
		}
		if got := r.URL.Query().Get("resourceVersion"); got != "" {
			t.Errorf("asked for version %s, want the present", got)
		}
		w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
		if err := codec.Encode(obj, w); err != nil {
			t.Error(err)
		}
	})
	sets := replicaSets(t, c)
	old := metav1.ListOptions{ResourceVersion: "5"}
	list, err := sets.List(t.Context(), old)
	if got, ok := list.(*metav1.PartialObjectMetadataList); err != nil || !ok || len(got.Items) != 1 || got.ResourceVersion != "7" {
		t.Errorf("list: got %v, %v; want one object at version 7", list, err)
	}
	// Of kinds that are read whole too, as the audit does.
	some, err := workflows(t, c, nil).ListMetadata(t.Context(), old)
	if err != nil || len(some.Items) != 1 || some.Items[0].UID != "u" {
		t.Errorf("list metadata: got %v, %v; want one object", some, err)
	}
	obj, err := sets.Object(t.Context(), "n", "a")
	if got, ok := obj.(*metav1.PartialObjectMetadata); err != nil || !ok || got.UID != "u" {
		t.Errorf("get: got %v, %v; want the object", obj, err)
	}
}

func TestACustomObjectIsReadByItself(t *testing.T) {
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.String() != "/apis/argoproj.io/v1alpha1/namespaces/other/workflows/a" {
			answer(w, 404, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"no b"}`)
			return
		}
		answer(w, 200, `{"kind":"Workflow","apiVersion":"argoproj.io/v1alpha1","metadata":{"name":"a","uid":"u"}}`)
	})
	obj, err := workflows(t, c, nil).Object(t.Context(), "other", "a")
	if got, ok := obj.(*unstructured.Unstructured); err != nil || !ok || got.GetUID() != "u" {
		t.Errorf("got %v, %v; want the object", obj, err)
	}
	if _, err := workflows(t, c, nil).Object(t.Context(), "other", "b"); !apierrors.IsNotFound(err) || err.Error() != "get workflows other/b: no b" {
		t.Errorf("got %v, want not found", err)
	}
}

func TestAResourceThatIsNotThereOrMayNotBeReadIsAnErrorOfTheCall(t *testing.T) {
	reasons := map[int]string{403: "Forbidden", 404: "NotFound"}
	code := 0
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		answer(w, code, fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"the reason"}`, reasons[code], code))
	})
	is := map[int]func(error) bool{403: apierrors.IsForbidden, 404: apierrors.IsNotFound}
	says := map[int]string{403: "the reason", 404: "the server has no %s: is the CustomResourceDefinition installed"}
	for name, of := range map[string]*Collection{"workflows in argoproj.io/v1alpha1": workflows(t, c, nil), "replicasets in apps/v1": replicaSets(t, c)} {
		for code = range is {
			resource, _, _ := strings.Cut(name, " ")
			want := strings.Replace(says[code], "%s", name, 1)
			if code == 404 && of.of.Namespace != "" {
				want += ", or is it cluster-scoped, which `namespaces` leaves out"
			}
			if code == 404 {
				want += "?"
			}
			if _, err := of.List(t.Context(), metav1.ListOptions{}); !is[code](err) || err.Error() != "list "+resource+": "+want {
				t.Errorf("list: got %v, want %s", err, want)
			}
			if _, err := of.ListMetadata(t.Context(), metav1.ListOptions{}); !is[code](err) || err.Error() != "list metadata of "+resource+": "+want {
				t.Errorf("list metadata: got %v, want %s", err, want)
			}
			if _, err := of.Watch(t.Context(), streamed()); !is[code](err) || err.Error() != "watch "+resource+": "+want {
				t.Errorf("watch: got %v, want %s", err, want)
			}
		}
	}
}
