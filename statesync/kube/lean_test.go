package kube

import (
	"bytes"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/framer"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/outrider-agent/outrider/statesync/workload"
)

// leanOf returns codecs that read what a kind's rules do, but for some fields.
func leanOf(tb testing.TB, k workload.Kind, but ...string) *leanCodecs {
	tb.Helper()
	reads := slices.DeleteFunc(slices.Clone(k.Reads), func(path string) bool { return slices.Contains(but, path) })
	c, err := newLeanCodecs(k.Object, k.List, reads)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// reduced decodes an object and says what the rules read of it.
func reduced(tb testing.TB, k workload.Kind, d runtime.Decoder, b []byte) *workload.Object {
	tb.Helper()
	obj, err := runtime.Decode(d, b)
	if err != nil {
		tb.Fatal(err)
	}
	if got, want := reflect.TypeOf(obj), reflect.TypeOf(k.Object()); got != want {
		tb.Fatalf("decoded %s, want %s", got, want)
	}
	o, err := k.Reduce(obj)
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func TestTheRulesFindAllThatTheyReadAndEveryFieldIsRead(t *testing.T) {
	const seeds = 1000
	for name, k := range workload.Kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stock, _ := decoders(t, scheme.Codecs.WithoutConversion())
			lean, _ := decoders(t, leanOf(t, k))
			var objects [seeds][]byte
			var want, got [seeds]*workload.Object
			for i := range objects {
				objects[i] = encoded(t, random(uint64(i), k.Object))
				want[i], got[i] = reduced(t, k, stock, objects[i]), reduced(t, k, lean, objects[i])
			}
			for i := range objects { // only now: none may be in the memory of the next
				if !reflect.DeepEqual(want[i], got[i]) {
					t.Fatalf("seed %d (-stock +lean):\n%s", i, cmp.Diff(want[i], got[i]))
				}
			}
			for _, path := range k.Reads {
				if slices.Contains([]string{"metadata.name", "metadata.namespace", "metadata.uid", "metadata.resourceVersion"}, path) {
					continue // are read of every object
				}
				without, _ := decoders(t, leanOf(t, k, path))
				i := 0
				for i < seeds && reflect.DeepEqual(want[i], reduced(t, k, without, objects[i])) {
					i++
				}
				if i == seeds {
					t.Errorf("no rule reads %s", path)
				}
			}
		})
	}
}

// podKind is what the tests below read in part.
func podKind() workload.Kind { return workload.Kinds["Pod"] }

// podsInPart is the collection of pods.
func podsInPart(t *testing.T, c *Client) *Collection {
	t.Helper()
	k := podKind()
	out, err := c.Collection(CollectionOptions{Version: "v1", Resource: "pods", List: k.List, Object: k.Object, Reads: k.Reads})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// whole is a pod that has more than anybody reads.
func whole() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "a", Namespace: "n", UID: "u", ResourceVersion: "5", Labels: map[string]string{"team": "a"},
			Annotations:   map[string]string{"large": strings.Repeat("x", 100)},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: metav1.NewFieldsV1("{}")}},
		},
		Spec:   corev1.PodSpec{NodeName: "node"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, HostIP: "10.0.0.1"},
	}
}

// inPart is what is read of it.
func inPart() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n", UID: "u", ResourceVersion: "5", Labels: map[string]string{"team": "a"}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

func bookmark() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		ResourceVersion: "9", Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true", "other": "x"},
	}}
}

// ofPods plays an API server that has a pod.
func ofPods(t *testing.T) *Client {
	t.Helper()
	return server(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept"); !strings.HasPrefix(got, runtime.ContentTypeProtobuf) {
			t.Errorf("accepts %s, want protobuf", got)
		}
		expired := encoded(t, &metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonExpired, Code: 410})
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		switch {
		case r.URL.Query().Get("watch") != "":
			w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
			out := framer.NewLengthDelimitedFrameWriter(w)
			second := whole()
			second.Name = "b" // the first must not be in the same memory
			for _, b := range [][]byte{
				event(t, "ADDED", encoded(t, whole())), event(t, "MODIFIED", encoded(t, second)), event(t, "DELETED", encoded(t, whole())),
				event(t, "BOOKMARK", encoded(t, bookmark())), event(t, "ERROR", expired),
			} {
				if _, err := out.Write(b); err != nil {
					t.Error(err)
				}
			}
		case r.URL.Query().Get("continue") != "":
			w.WriteHeader(http.StatusGone)
			w.Write(expired)
		case strings.HasSuffix(r.URL.Path, "/a"):
			w.Write(encoded(t, whole()))
		default:
			w.Write(encoded(t, &corev1.PodList{
				ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "more"}, Items: []corev1.Pod{*whole(), *whole()},
			}))
		}
	})
}

func TestObjectsAreReadInPart(t *testing.T) {
	pods := podsInPart(t, ofPods(t))
	list, err := pods.List(t.Context(), metav1.ListOptions{})
	wantList := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "more"}, Items: []corev1.Pod{*inPart(), *inPart()}}
	if diff := cmp.Diff(runtime.Object(wantList), list); err != nil || diff != "" {
		t.Errorf("list: %v (-want +got):\n%s", err, diff)
	}
	if _, err := pods.List(t.Context(), metav1.ListOptions{Continue: "old"}); !apierrors.IsResourceExpired(err) {
		t.Errorf("list: got %v, want expired", err)
	}
	obj, err := pods.Object(t.Context(), "n", "a")
	if diff := cmp.Diff(runtime.Object(inPart()), obj); err != nil || diff != "" {
		t.Errorf("get: %v (-want +got):\n%s", err, diff)
	}
	w, err := pods.Watch(t.Context(), streamed())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var got []string
	var objects []runtime.Object
	for e := range w.ResultChan() {
		got, objects = append(got, string(e.Type)), append(objects, e.Object)
	}
	second, last := inPart(), bookmark()
	second.Name = "b"
	delete(last.Annotations, "other")
	if diff := cmp.Diff([]string{"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"}, got); diff != "" {
		t.Fatalf("watch (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]runtime.Object{inPart(), second, inPart(), last}, objects[:4]); diff != "" {
		t.Errorf("watch (-want +got):\n%s", diff)
	}
	if err := apierrors.FromObject(objects[4]); !apierrors.IsResourceExpired(err) {
		t.Errorf("watch: got %v, want expired", err)
	}
}

func TestWhatIsNotOfTheKindIsDecodedWhole(t *testing.T) {
	stock, _ := decoders(t, scheme.Codecs.WithoutConversion())
	lean, _ := decoders(t, leanOf(t, podKind()))
	pod, other := encoded(t, whole()), encoded(t, &corev1.ConfigMap{Data: map[string]string{"a": "b"}})
	tests := []struct {
		name string
		data []byte
		into runtime.Object
	}{
		{"another kind", other, nil},
		{"a status", encoded(t, &metav1.Status{Message: "m"}), nil},
		{"a pod into another type", pod, &corev1.PodTemplate{}},
		{"a pod into what takes all", pod, &runtime.Unknown{}},
		{"nothing", nil, nil},
		{"nothing but the prefix", []byte(prefix), nil},
		{"JSON", []byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}`), nil},
		{"a pod that breaks off", pod[:len(pod)-8], nil},
		{"a pod with more in its envelope", append(slices.Clone(pod), 0x2a, 0x01, 'x'), nil},
		{"a pod with a condition that is none", encodedPod([]byte{0x1a, 0x03, 0x12, 0x01, 0x0a}), nil},
		{"a pod whose status is a number", encodedPod([]byte{0x18, 0x00}), nil},
		{"a pod with an endless group", encodedPod([]byte{0x7b}), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			decode := func(d runtime.Decoder) string {
				var into runtime.Object
				if tt.into != nil {
					into = tt.into.DeepCopyObject()
				}
				obj, kind, err := d.Decode(tt.data, nil, into)
				return fmt.Sprintf("%T %v %v %v", obj, obj, kind, err)
			}
			if diff := cmp.Diff(decode(stock), decode(lean)); diff != "" {
				t.Errorf("(-stock +lean):\n%s", diff)
			}
		})
	}
}

func TestAnObjectThatHadSomethingIsDecodedAnew(t *testing.T) {
	lean, _ := decoders(t, leanOf(t, podKind()))
	into := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"old": "x"}}, Spec: corev1.PodSpec{NodeName: "old"}}
	obj, kind, err := lean.Decode(encoded(t, whole()), nil, into)
	if err != nil || obj != runtime.Object(into) || *kind != corev1.SchemeGroupVersion.WithKind("Pod") {
		t.Errorf("got %T, %v, %v; want the Pod that was given", obj, kind, err)
	}
	if diff := cmp.Diff(inPart(), into); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEventsAreAsTheStockDecoderReadsThem(t *testing.T) {
	_, stock := decoders(t, scheme.Codecs.WithoutConversion())
	_, lean := decoders(t, leanOf(t, podKind()))
	good := event(t, "ADDED", []byte("object"))
	for name, b := range map[string][]byte{
		"an event":               good,
		"one without an object":  event(t, "ADDED", nil),
		"one of no type":         event(t, "", []byte("object")),
		"two":                    slices.Concat(good, event(t, "DELETED", []byte("other"))),
		"one and an end":         append(slices.Clone(good), 0x0a),
		"one that breaks off":    good[:len(good)-1],
		"an object of two parts": {0x0a, 0x01, 'A', 0x12, 0x06, 0x0a, 0x01, 'x', 0x0a, 0x01, 'y'},
		"an object with garbage": {0x0a, 0x01, 'A', 0x12, 0x04, 0x0a, 0x01, 'x', 0x0a},
		"an object first":        {0x12, 0x03, 0x0a, 0x01, 'x', 0x0a, 0x01, 'A'},
		"nothing":                {},
	} {
		t.Run(name, func(t *testing.T) { sameEvent(t, stock, lean, b) })
	}
}

// encodedPod returns a Pod of these bytes.
func encodedPod(raw []byte) []byte {
	u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Raw: raw}
	b, err := u.Marshal()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return append([]byte(prefix), b...)
}

func TestPathsThatAreNone(t *testing.T) {
	k := podKind()
	for path, want := range map[string]string{
		"status.fase":       "read pods in part: field status.fase of Pod: v1.PodStatus has no fase",
		"metadata.name.a":   "read pods in part: field metadata.name.a of Pod: string has no fields",
		"metadata.name[a]":  "read pods in part: field metadata.name[a] of Pod: string is no map",
		"":                  "read pods in part: field  of Pod: v1.Pod has no ",
		"status.startTime.": "read pods in part: field status.startTime. of Pod: v1.Time has no ",
	} {
		_, err := (&Client{}).typed(CollectionOptions{Version: "v1", Resource: "pods", List: k.List, Object: k.Object, Reads: []string{path}})
		if fmt.Sprint(err) != want {
			t.Errorf("%q: got %v, want %s", path, err, want)
		}
	}
}

func TestAPathMayHoldAnother(t *testing.T) {
	for _, reads := range [][]string{{"metadata.annotations"}, {"metadata"}, {"status", "metadata.labels", "metadata"}, {"metadata", "metadata.labels"}} {
		k := podKind()
		k.Reads = reads
		lean, _ := decoders(t, leanOf(t, k))
		obj, err := runtime.Decode(lean, encoded(t, whole()))
		if err != nil || obj.(*corev1.Pod).Annotations["large"] == "" {
			t.Errorf("%s: got %v, %v; want the annotations", reads, obj, err)
		}
	}
}

func FuzzLeanDecoder(f *testing.F) {
	k := podKind()
	f.Add(encoded(f, whole()))
	f.Add(encoded(f, bookmark()))
	f.Add(event(f, "ADDED", encoded(f, whole())))
	f.Add(encoded(f, &corev1.PodList{Items: []corev1.Pod{*whole()}}))
	for i := range uint64(8) {
		f.Add(encoded(f, random(i, k.Object)))
	}
	f.Add(encodedPod([]byte{0x0a, 0x84, 0x80, 0x00, 0x62, 0x02, 0x12, 0x00}))
	stock, stockEvent := decoders(f, scheme.Codecs.WithoutConversion())
	lean, leanEvent := decoders(f, leanOf(f, k))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		sameEvent(t, stockEvent, leanEvent, b)
		for _, data := range [][]byte{b, encodedPod(b)} {
			want, wantErr := runtime.Decode(stock, data)
			got, err := runtime.Decode(lean, data)
			switch {
			case err != nil && fmt.Sprint(err) != fmt.Sprint(wantErr):
				t.Fatalf("got error %v, want %v", err, wantErr)
			case err != nil || wantErr != nil: // in what is left out
				continue
			}
			switch want.(type) {
			case *corev1.Pod, *corev1.PodList: // the same once no more than what is read is left
				want, got = again(t, lean, want), again(t, lean, got)
			}
			if !equality.Semantic.DeepEqual(want, got) {
				t.Fatalf("(-stock +lean):\n%s", cmp.Diff(want, got))
			}
		}
		if !bytes.Equal(b, before) {
			t.Fatal("the decoder wrote into the bytes")
		}
	})
}

// again encodes an object and decodes it.
func again(t *testing.T, d runtime.Decoder, obj runtime.Object) runtime.Object {
	t.Helper()
	out, err := runtime.Decode(d, encoded(t, obj))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sameEvent decodes an event of a watch in both ways.
func sameEvent(t *testing.T, stock, lean runtime.Decoder, b []byte) {
	t.Helper()
	var want, got metav1.WatchEvent
	_, _, wantErr := stock.Decode(b, nil, &want)
	into, _, err := lean.Decode(b, nil, &got)
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Fatalf("event: got error %v, want %v", err, wantErr)
	}
	if err == nil && (into != &got || !equality.Semantic.DeepEqual(want, got)) {
		t.Fatalf("event: (-stock +lean):\n%s", cmp.Diff(want, got))
	}
}
