package kube

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// Rules for reading objects in part, from protobuf:
//   - What nobody reads is left out of the bytes before they are decoded: of a
//     pod of 7 KB less than one is left. The generated decoders do the rest.
//   - Only objects of one kind, and lists of them, are read so, and only where
//     their bytes are as apimachinery writes them. All else, and all that is
//     in any way wrong, is left to the stock decoder: statuses, JSON, garbage.
//   - What is left out is not looked at: a mistake in there goes unseen.
//   - The annotation that ends a streamed list always stays, with the
//     metadata that a reflector and a list of pages go by.

// prefix is how Kubernetes' protobuf begins: bytes of a runtime.Unknown follow.
const prefix = "k8s\x00"

// The fields of runtime.Unknown and runtime.TypeMeta, and of metav1.WatchEvent
// and runtime.RawExtension.
const (
	unknownTypeMeta, unknownRaw = 1, 2
	typeAPIVersion, typeKind    = 1, 2
	eventType, eventObject      = 1, 2
	extensionRaw                = 1
)

// unencoded is what follows the object in a runtime.Unknown: empty strings for
// contentEncoding and contentType.
const unencoded = "\x1a\x00\x22\x00"

// maxKept is the largest buffer that is kept for the next object, in bytes:
// a list's may be large, and rare.
const maxKept = 64 << 10

// A message is an object with generated decoders. They keep none of the bytes.
type message interface {
	runtime.Object
	Reset()
	Unmarshal(b []byte) error
}

// A form is what is read in part: objects of a kind, or lists of them.
type form struct {
	prefix []byte // how one in protobuf begins, up to the object itself
	kind   schema.GroupVersionKind
	make   func() runtime.Object // an empty one
	typ    reflect.Type          // that make returns
	reads  *part
}

func newForm(empty func() runtime.Object, reads []string) (form, error) {
	obj, ok := empty().(message)
	if !ok {
		return form{}, fmt.Errorf("%T has no protobuf", empty())
	}
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		return form{}, err
	}
	f := form{kind: kinds[0], make: empty, typ: reflect.TypeOf(obj), reads: &part{}}
	for _, path := range reads {
		if err := f.reads.add(f.typ, path); err != nil {
			return form{}, fmt.Errorf("field %s of %s: %w", path, f.kind.Kind, err)
		}
	}
	version, kind := f.kind.ToAPIVersionAndKind()
	var typ []byte
	typ = protowire.AppendString(protowire.AppendTag(typ, typeAPIVersion, protowire.BytesType), version)
	typ = protowire.AppendString(protowire.AppendTag(typ, typeKind, protowire.BytesType), kind)
	f.prefix = protowire.AppendTag([]byte(prefix), unknownTypeMeta, protowire.BytesType)
	f.prefix = protowire.AppendBytes(f.prefix, typ)
	return f, nil
}

// object returns the object's own bytes; false: they are of something else, or
// not written as apimachinery writes them.
func (f *form) object(data []byte) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(data, f.prefix)
	if !ok {
		return nil, false
	}
	raw, rest, ok := cutField(rest, unknownRaw)
	return raw, ok && (len(rest) == 0 || string(rest) == unencoded)
}

// leanCodecs are client-go's codecs, but for objects of one kind, and lists of
// them, in protobuf: those are read in part.
type leanCodecs struct {
	runtime.NegotiatedSerializer
	forms   []form
	buffers sync.Pool // of *[]byte
}

// newLeanCodecs returns codecs for objects of which the fields at these paths
// are read.
func newLeanCodecs(object, list func() runtime.Object, reads []string) (*leanCodecs, error) {
	reads = append(slices.Clone(reads),
		"metadata.name", "metadata.namespace", "metadata.uid", "metadata.resourceVersion",
		"metadata.annotations["+metav1.InitialEventsAnnotationKey+"]")
	of, err := newForm(object, reads)
	if err != nil {
		return nil, err
	}
	ofAll := []string{"metadata"}
	for _, path := range reads {
		ofAll = append(ofAll, "items."+path)
	}
	lists, err := newForm(list, ofAll)
	if err != nil {
		return nil, err
	}
	c := &leanCodecs{NegotiatedSerializer: scheme.Codecs.WithoutConversion(), forms: []form{of, lists}}
	c.buffers.New = func() any { return new([]byte) }
	return c, nil
}

// SupportedMediaTypes implements [runtime.NegotiatedSerializer].
func (c *leanCodecs) SupportedMediaTypes() []runtime.SerializerInfo {
	all := slices.Clone(c.NegotiatedSerializer.SupportedMediaTypes())
	for i := range all {
		if all[i].MediaType == runtime.ContentTypeProtobuf && all[i].StreamSerializer != nil {
			stream := *all[i].StreamSerializer
			stream.Serializer = eventCodec{stream.Serializer}
			all[i].StreamSerializer = &stream
		}
	}
	return all
}

// DecoderToVersion implements [runtime.NegotiatedSerializer]. As client-go's
// own, the decoder leaves the object's TypeMeta empty.
func (c *leanCodecs) DecoderToVersion(d runtime.Decoder, gv runtime.GroupVersioner) runtime.Decoder {
	return leanDecoder{c, c.NegotiatedSerializer.DecoderToVersion(d, gv)}
}

type leanDecoder struct {
	codecs *leanCodecs
	stock  runtime.Decoder
}

// Decode implements [runtime.Decoder].
func (d leanDecoder) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	for i := range d.codecs.forms {
		f := &d.codecs.forms[i]
		raw, ok := f.object(data)
		if !ok {
			continue
		}
		if obj, ok := d.codecs.decode(raw, f, into); ok {
			kind := f.kind
			return obj, &kind, nil
		}
		break
	}
	return d.stock.Decode(data, defaults, into)
}

// decode returns false for what the stock decoder is to judge.
func (c *leanCodecs) decode(raw []byte, f *form, into runtime.Object) (runtime.Object, bool) {
	if into != nil && reflect.TypeOf(into) != f.typ {
		return nil, false
	}
	buffer := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(buffer)
	kept, ok := f.reads.cut((*buffer)[:0], raw)
	if cap(kept) <= maxKept {
		*buffer = kept
	}
	if !ok {
		return nil, false
	}
	if into == nil {
		into = f.make()
	}
	m := into.(message)
	m.Reset()
	return into, m.Unmarshal(kept) == nil
}

// An eventCodec decodes the events of a watch without a copy of the object: it stays
// in the bytes of the stream, until the next event. By then it is decoded.
type eventCodec struct{ runtime.Serializer }

// Decode implements [runtime.Decoder].
func (e eventCodec) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	event, ok := into.(*metav1.WatchEvent)
	if !ok {
		return e.Serializer.Decode(data, defaults, into)
	}
	typ, rest, isTyped := cutField(data, eventType)
	object, rest, isObject := cutField(rest, eventObject)
	raw, more, isRaw := cutField(object, extensionRaw)
	if !isTyped || !isObject || !isRaw || len(rest)+len(more) > 0 {
		return e.Serializer.Decode(data, defaults, into)
	}
	*event = metav1.WatchEvent{Type: string(typ), Object: runtime.RawExtension{Raw: raw}}
	return event, &schema.GroupVersionKind{Version: "v1", Kind: "WatchEvent"}, nil
}

// cutField returns the bytes of the field with which a message begins, and
// what follows it; false: it is another one.
func cutField(b []byte, want protowire.Number) (value, rest []byte, ok bool) {
	number, typ, n := protowire.ConsumeTag(b)
	if n < 0 || number != want || typ != protowire.BytesType {
		return nil, nil, false
	}
	value, size := protowire.ConsumeBytes(b[n:])
	if size < 0 {
		return nil, nil, false
	}
	return value, b[n+size:], true
}
