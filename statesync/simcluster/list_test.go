package simcluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/pager"
)

const partial = ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

func TestNegotiate(t *testing.T) {
	tests := []struct {
		name, accept string
		custom       bool
		want         string
	}{
		{"nothing said", "", false, "application/json"},
		{"anything", "*/*", false, "application/json"},
		{"protobuf before JSON", "application/vnd.kubernetes.protobuf,application/json", false, "application/vnd.kubernetes.protobuf"},
		{"custom objects have no protobuf", "application/vnd.kubernetes.protobuf,application/json", true, "application/json"},
		{"but their metadata has", "application/vnd.kubernetes.protobuf" + partial, true, "application/vnd.kubernetes.protobuf partial"},
		{"metadata in JSON", "application/json" + partial, false, "application/json partial"},
		{"a table is none of ours", "application/json;as=Table;g=meta.k8s.io;v=v1,application/json", false, "application/json"},
		{"metadata of another version", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v2", false, "406"},
		{"protobuf alone of custom objects", "application/vnd.kubernetes.protobuf", true, "406"},
		{"no stream of YAML", "application/yaml", false, "406"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := negotiate(tt.accept, tt.custom)
			got := f.info.MediaType
			if f.partial {
				got += " partial"
			}
			if err != nil {
				got = fmt.Sprint(statusOf(err).Code)
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// The list that is written object by object is what apimachinery's codec makes
// of the whole.
func TestAListIsEncodedAsTheCodecDoes(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		w.pod(t, fmt.Sprint("p", i), map[string]string{"i": fmt.Sprint(i)}, corev1.PodRunning)
		w.train(t, fmt.Sprint("t", i), "Running")
	}
	tests := []struct {
		name, accept string
		resource     *Resource
		none         bool
		into         runtime.Object
	}{
		{"pods in protobuf", runtime.ContentTypeProtobuf, w.pods, false, &corev1.PodList{}},
		{"pods in JSON", runtime.ContentTypeJSON, w.pods, false, &corev1.PodList{}},
		{"no pods in protobuf", runtime.ContentTypeProtobuf, w.pods, true, &corev1.PodList{}},
		{"no pods in JSON", runtime.ContentTypeJSON, w.pods, true, &corev1.PodList{}},
		{"metadata in protobuf", runtime.ContentTypeProtobuf + partial, w.pods, false, &metav1.PartialObjectMetadataList{}},
		{"metadata in JSON", runtime.ContentTypeJSON + partial, w.trains, false, &metav1.PartialObjectMetadataList{}},
		{"custom objects", runtime.ContentTypeJSON, w.trains, false, &unstructured.UnstructuredList{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := must(negotiate(tt.accept, tt.resource.custom()))(t)
			l := &listing{resource: tt.resource, form: f, meta: metav1.ListMeta{ResourceVersion: "9", Continue: "more", RemainingItemCount: new(int64(5))}}
			if !tt.none {
				l.objects, _, _ = w.cluster.List(tt.resource, "")
			}
			var got, want bytes.Buffer
			if err := l.write(&got); err != nil {
				t.Fatal(err)
			}
			if u, ok := tt.into.(*unstructured.UnstructuredList); ok {
				if err := u.UnmarshalJSON(got.Bytes()); err != nil {
					t.Fatal(err)
				}
			} else if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(got.Bytes(), nil, tt.into); err != nil && !f.partial {
				t.Fatal(err)
			} else if _, _, err := f.info.Serializer.Decode(got.Bytes(), nil, tt.into); err != nil && f.partial {
				t.Fatal(err)
			}
			tt.into.GetObjectKind().SetGroupVersionKind(f.listKind(tt.resource))
			if n := meta.LenList(tt.into); n != len(l.objects) {
				t.Errorf("got %d objects, want %d", n, len(l.objects))
			}
			if err := f.info.Serializer.Encode(tt.into, &want); err != nil {
				t.Fatal(err)
			}
			if f.protobuf() {
				if !bytes.Equal(got.Bytes(), want.Bytes()) {
					t.Errorf("got %d bytes that differ from the codec's %d", got.Len(), want.Len())
				}
				return
			}
			if diff := cmp.Diff(fromJSON(t, want.Bytes()), fromJSON(t, got.Bytes())); diff != "" {
				t.Errorf("(-codec +got):\n%s", diff)
			}
		})
	}
}

// What does not fit between the two passes is encoded twice.
func TestALongListIsEncodedInTwoPasses(t *testing.T) {
	w := newWorld(t)
	const size = 1 << 20
	for i := range 2 * keepEncoded / size {
		name := fmt.Sprintf("p%02d", i)
		v := Version{Namespace: "a", Name: name, UID: "u"}
		v.Source = stored{&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, Annotations: map[string]string{"long": string(make([]byte, size))}}}}
		if _, err := w.cluster.Create(w.pods, v); err != nil {
			t.Fatal(err)
		}
	}
	list, err := w.typed(t).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range list.Items {
		if p.Name != fmt.Sprintf("p%02d", i) || len(p.Annotations["long"]) != size {
			t.Errorf("object %d is %s with %d bytes", i, p.Name, len(p.Annotations["long"]))
		}
	}
	if len(list.Items) != 2*keepEncoded/size {
		t.Errorf("got %d objects, want %d", len(list.Items), 2*keepEncoded/size)
	}
}

// Pages are of one version, whatever is written between them.
func TestPagesAreConsistent(t *testing.T) {
	w := newWorld(t)
	const all = 2000
	for i := range all {
		w.pod(t, fmt.Sprintf("p%04d", i), nil, corev1.PodPending)
	}
	pods := w.typed(t).CoreV1().Pods("")
	pages, before := 0, w.cluster.Now()
	p := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		list, err := pods.List(ctx, o)
		if err != nil {
			return nil, err
		}
		pages++
		if want := int64(all - 500*pages); want > 0 && (list.RemainingItemCount == nil || *list.RemainingItemCount != want) {
			t.Errorf("page %d: %v objects remain, want %d", pages, list.RemainingItemCount, want)
		}
		for i := range 100 { // they change, go and come on pages that are yet to be read
			w.pod(t, fmt.Sprintf("p%04d", 1900+i), nil, corev1.PodPhase(fmt.Sprint(pages)))
			w.pod(t, fmt.Sprintf("q%04d-%d", i, pages), nil, corev1.PodPending)
		}
		_, err = w.cluster.Delete(w.pods, "a", fmt.Sprintf("p%04d", 1000+pages), nil)
		return list, err
	})
	p.PageSize = 500
	n := 0
	err := p.EachListItem(t.Context(), metav1.ListOptions{}, func(obj runtime.Object) error {
		pod := obj.(*corev1.Pod)
		if want := fmt.Sprintf("p%04d", n); pod.Name != want || pod.Status.Phase != corev1.PodPending {
			t.Errorf("got %s %s, want %s as it was", pod.Name, pod.Status.Phase, want)
		}
		n++
		return nil
	})
	if err != nil || n != all || pages != 4 {
		t.Errorf("got %d objects on %d pages and %v, want %d on 4", n, pages, err, all)
	}
	list, err := pods.List(t.Context(), metav1.ListOptions{ResourceVersion: fmt.Sprint(before), ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	if err != nil || len(list.Items) != all || list.ResourceVersion != fmt.Sprint(before) {
		t.Errorf("the list of version %d has %d objects and %v, want %d", before, len(list.Items), err, all)
	}
}

func TestListErrors(t *testing.T) {
	w := newWorld(t)
	for i := range 4 {
		w.pod(t, fmt.Sprint("p", i), nil, corev1.PodPending)
	}
	pods := w.typed(t).CoreV1().Pods("a")
	err := w.typed(t).CoreV1().RESTClient().Get().Resource("pods").Param("resourceVersion", "999").MaxRetries(0).Do(t.Context()).Error()
	if !apierrors.IsTimeout(err) || !apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
		t.Errorf("a version of the future: got %v, want that it is too large", err)
	}
	first, err := pods.List(t.Context(), metav1.ListOptions{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	w.pod(t, "p0", nil, corev1.PodRunning)
	w.cluster.Compact()
	_, err = pods.List(t.Context(), metav1.ListOptions{Limit: 2, Continue: first.Continue})
	if !apierrors.IsResourceExpired(err) {
		t.Fatalf("a token of a forgotten version: got %v, want that it is expired", err)
	}
	// The error has a token that goes on with the present.
	rest, err := pods.List(t.Context(), metav1.ListOptions{Limit: 2, Continue: statusOf(err).Continue})
	if err != nil || len(rest.Items) != 2 || rest.Items[0].Name != "p2" || rest.ResourceVersion != fmt.Sprint(w.cluster.Now()) {
		t.Errorf("got %v and %v, want the other two of now", rest, err)
	}
	_, err = pods.List(t.Context(), metav1.ListOptions{ResourceVersion: "2", ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	if !apierrors.IsResourceExpired(err) {
		t.Errorf("a forgotten version: got %v, want that it is expired", err)
	}
	for name, o := range map[string]metav1.ListOptions{
		"a token that is none":    {Continue: "nonsense"},
		"a version that is none":  {ResourceVersion: "x"},
		"a field that is unknown": {FieldSelector: "spec.nodeName=n"},
		"a label that is none":    {LabelSelector: "a in"},
	} {
		if _, err := pods.List(t.Context(), o); !apierrors.IsBadRequest(err) {
			t.Errorf("%s: got %v, want a bad request", name, err)
		}
	}
	if _, err := w.dynamic(t, Custom("no.such", "v1", "things", "Thing", true)).List(t.Context(), metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("an unknown resource: got %v, want not found", err)
	}
}

func TestANegativeLimitIsNone(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "one", nil, corev1.PodPending)
	list, err := w.typed(t).CoreV1().Pods("a").List(t.Context(), metav1.ListOptions{Limit: -5})
	if err != nil || len(list.Items) != 1 || list.Continue != "" {
		t.Errorf("got %v and %v, want the one pod", list, err)
	}
}

func TestListSelects(t *testing.T) {
	w := newWorld(t)
	for i := range 6 {
		w.pod(t, fmt.Sprint("p", i), map[string]string{"odd": fmt.Sprint(i%2 == 1)}, corev1.PodPending)
	}
	tests := []struct {
		name string
		o    metav1.ListOptions
		want string
	}{
		{"by label", metav1.ListOptions{LabelSelector: "odd=true"}, "[p1 p3 p5] "},
		{"by label, a page", metav1.ListOptions{LabelSelector: "odd=true", Limit: 2}, "[p1 p3] more"},
		{"by name", metav1.ListOptions{FieldSelector: "metadata.name=p4"}, "[p4] "},
		{"by namespace", metav1.ListOptions{FieldSelector: "metadata.namespace=b"}, "[] "},
		{"a cache has no pages", metav1.ListOptions{Limit: 2, ResourceVersion: "0"}, "[p0 p1 p2 p3 p4 p5] "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, err := w.metadata(t, w.pods).List(t.Context(), tt.o)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, p := range list.Items {
				names = append(names, p.Name)
			}
			more := ""
			if list.Continue != "" {
				more = "more"
			}
			if got := fmt.Sprintf("%v %s", names, more); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func fromJSON(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// A list that breaks off is not taken for a whole one.
func TestAListThatCannotBeEncodedIsCutOff(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "one", nil, corev1.PodPending)
	must(w.cluster.Create(w.pods, Version{Namespace: "a", Name: "two", UID: "u", Source: stored{&metav1.Status{}}}))(t)
	for _, kind := range []string{runtime.ContentTypeProtobuf, runtime.ContentTypeJSON} {
		err := w.typed(t).CoreV1().RESTClient().Get().Resource("pods").SetHeader("Accept", kind).MaxRetries(0).Do(t.Context()).Error()
		if err == nil {
			t.Errorf("in %s: no error", kind)
		}
	}
}

func TestObjectsOfAListNameTheirKindWhenTheyAreCustom(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "one", nil, corev1.PodPending)
	w.train(t, "two", "Running")
	for r, want := range map[*Resource]string{w.pods: "<nil>", w.trains: "Training"} {
		l := &listing{resource: r, form: must(negotiate(runtime.ContentTypeJSON, r.custom()))(t)}
		l.objects, _, _ = w.cluster.List(r, "")
		var b bytes.Buffer
		if err := l.write(&b); err != nil {
			t.Fatal(err)
		}
		list := fromJSON(t, b.Bytes()).(map[string]any)
		if got := fmt.Sprint(list["items"].([]any)[0].(map[string]any)["kind"]); got != want || list["kind"] != r.Kind+"List" {
			t.Errorf("got kind %s in a %s, want %s", got, list["kind"], want)
		}
	}
}
