package simcluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// A form is how a client wants objects: in which encoding, and their metadata
// alone or all.
type form struct {
	info    runtime.SerializerInfo
	partial bool
}

// negotiate takes the first of the forms that a client accepts and a resource
// has. Custom objects are whole in JSON alone; tables are not served.
func negotiate(accept string, custom bool) (form, error) {
	if accept == "" {
		accept = "*/*"
	}
	for clause := range strings.SplitSeq(accept, ",") {
		kind, params, err := mime.ParseMediaType(clause)
		if err != nil {
			continue
		}
		partial := false
		switch params["as"] {
		case "":
		case "PartialObjectMetadata", "PartialObjectMetadataList":
			if params["g"] != metav1.GroupName || params["v"] != "v1" {
				continue
			}
			partial = true
		default:
			continue
		}
		if kind == "*/*" || kind == "application/*" {
			kind = runtime.ContentTypeJSON
		}
		if kind == runtime.ContentTypeProtobuf && custom && !partial {
			continue
		}
		info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), kind)
		if ok && info.StreamSerializer != nil {
			return form{info, partial}, nil
		}
	}
	return form{}, status(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable, "only the following media types are accepted: "+runtime.ContentTypeJSON+", "+runtime.ContentTypeProtobuf)
}

func (f form) protobuf() bool { return f.info.MediaType == runtime.ContentTypeProtobuf }

// streamType is the content type of a watch.
func (f form) streamType() string {
	if f.protobuf() {
		return f.info.MediaType + ";stream=watch"
	}
	return f.info.MediaType
}

// object is a version in the form, as it is on its own.
func (f form) object(r *Resource, v *Version) (runtime.Object, error) {
	return f.shape(r, v.Source.Object(), v.Number)
}

func (f form) shape(r *Resource, obj runtime.Object, number int64) (runtime.Object, error) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, fmt.Errorf("read metadata of %s: %w", r.Kind, err)
	}
	m.SetResourceVersion(strconv.FormatInt(number, 10))
	if f.partial {
		p := meta.AsPartialObjectMetadata(m)
		p.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"))
		return p, nil
	}
	obj.GetObjectKind().SetGroupVersionKind(r.groupVersionKind())
	return obj, nil
}

// listKind is the kind of a list in the form.
func (f form) listKind(r *Resource) schema.GroupVersionKind {
	if f.partial {
		return metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList")
	}
	return r.groupVersion().WithKind(r.Kind + "List")
}

// item encodes a version as it is in a list: objects of Kubernetes' own lists
// do not name their kind.
func (f form) item(r *Resource, v *Version) ([]byte, error) {
	obj, err := f.object(r, v)
	if err != nil {
		return nil, err
	}
	if !f.partial && !r.custom() {
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	if !f.protobuf() {
		data, err := json.Marshal(obj)
		if err != nil {
			return nil, fmt.Errorf("encode %s %s/%s: %w", r.Plural, v.Namespace, v.Name, err)
		}
		return data, nil
	}
	var b bytes.Buffer
	if err := f.info.StreamSerializer.Encode(obj, &b); err != nil { // the bare message
		return nil, fmt.Errorf("encode %s %s/%s: %w", r.Plural, v.Namespace, v.Name, err)
	}
	return b.Bytes(), nil
}

// An eventWriter writes the events of a watch.
type eventWriter struct {
	form   form
	events streaming.Encoder
	buf    bytes.Buffer
}

func (f form) eventWriter(w io.Writer) *eventWriter {
	stream := f.info.StreamSerializer
	return &eventWriter{form: f, events: streaming.NewEncoder(stream.NewFrameWriter(w), stream.Serializer)}
}

// write writes one event.
func (w *eventWriter) write(what watch.EventType, obj runtime.Object) error {
	w.buf.Reset()
	if err := w.form.info.Serializer.Encode(obj, &w.buf); err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	raw := w.buf.Bytes()
	if !w.form.protobuf() {
		raw = bytes.TrimSuffix(raw, []byte("\n"))
	}
	if err := w.events.Encode(&metav1.WatchEvent{Type: string(what), Object: runtime.RawExtension{Raw: raw}}); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	return nil
}
