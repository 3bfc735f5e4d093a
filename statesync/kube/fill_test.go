package kube

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

// words are what a random field of a name holds, so that rules find what they
// look for.
var words = map[string][]string{
	"Type": {
		"Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet", "Progressing", "Available", "ReplicaFailure",
		"DisruptionTarget", "PodScheduled", "RollingUpdate", "OnDelete", "Recreate", "Ready",
	},
	"Status":     {"True", "True", "False", "Unknown"},
	"Phase":      {"Pending", "Running", "Succeeded", "Failed", "Unknown"},
	"APIVersion": {"v1", "apps/v1", "batch/v1"},
}

// fill fills an object at random: every field that its bytes may have.
func fill(r *rand.Rand, obj runtime.Object) {
	fillValue(r, reflect.ValueOf(obj).Elem(), "")
	obj.(metav1.Object).SetResourceVersion(fmt.Sprint(r.Uint64N(1e12)))
}

func fillValue(r *rand.Rand, v reflect.Value, name string) {
	switch x := v.Addr().Interface().(type) {
	case *metav1.TypeMeta:
		return
	case *metav1.Time:
		*x = metav1.Unix(r.Int64N(2e9), 0)
		return
	case *intstr.IntOrString:
		*x = []intstr.IntOrString{intstr.FromInt32(r.Int32N(4)), intstr.FromString("25%"), intstr.FromString("none")}[r.IntN(3)]
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fillValue(r, v.Field(i), v.Type().Field(i).Name)
			}
		}
	case reflect.Pointer:
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fillValue(r, v.Elem(), name)
		}
	case reflect.Slice:
		if n := r.IntN(3); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				fillValue(r, v.Index(i), name)
			}
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(3) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fillValue(r, key, name)
			fillValue(r, value, name)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		if some := words[name]; some != nil {
			v.SetString(some[r.IntN(len(some))])
		} else if r.IntN(4) > 0 {
			v.SetString(fmt.Sprintf("%s-%d", name, r.IntN(1000)))
		}
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int32, reflect.Int64, reflect.Int:
		v.SetInt(r.Int64N(4))
	case reflect.Uint8:
		v.SetUint(r.Uint64N(256))
	}
}

// random returns an object of a type; of the same seed the same.
func random(seed uint64, empty func() runtime.Object) runtime.Object {
	obj := empty()
	fill(rand.New(rand.NewPCG(seed, 0)), obj)
	return obj
}

// encoded returns an object as an API server writes it.
func encoded(tb testing.TB, obj runtime.Object) []byte {
	tb.Helper()
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		tb.Fatal(err)
	}
	obj.GetObjectKind().SetGroupVersionKind(kinds[0])
	options := protobuf.SerializerOptions{StreamingCollectionsEncoding: true} // as servers of today do
	b, err := runtime.Encode(protobuf.NewSerializerWithOptions(scheme.Scheme, scheme.Scheme, options), obj)
	if err != nil {
		tb.Fatal(err)
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return b
}

// decoders returns the decoders of codecs for an object in protobuf, and for
// an event of a watch.
func decoders(tb testing.TB, codecs runtime.NegotiatedSerializer) (object, event runtime.Decoder) {
	tb.Helper()
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		tb.Fatal("no protobuf")
	}
	return codecs.DecoderToVersion(info.Serializer, schema.GroupVersion{}), info.StreamSerializer.Serializer
}

// event returns an event of a watch in protobuf.
func event(tb testing.TB, typ string, object []byte) []byte {
	tb.Helper()
	b, err := (&metav1.WatchEvent{Type: typ, Object: runtime.RawExtension{Raw: object}}).Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
