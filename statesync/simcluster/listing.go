package simcluster

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// keepEncoded is how many bytes of encoded objects a list in protobuf keeps
// between its two passes.
const keepEncoded = 8 << 20

// A listing is what answers a list. It is encoded object by object: not even
// its objects are in memory together.
type listing struct {
	resource *Resource
	form     form
	meta     metav1.ListMeta
	objects  []*Version
}

func (l *listing) write(w io.Writer) error {
	if l.form.protobuf() {
		return l.writeProtobuf(w)
	}
	return l.writeJSON(w)
}

func (l *listing) writeJSON(w io.Writer) error {
	kind := l.form.listKind(l.resource)
	head, err := json.Marshal(struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata"`
	}{metav1.TypeMeta{Kind: kind.Kind, APIVersion: kind.GroupVersion().String()}, l.meta})
	if err != nil {
		return fmt.Errorf("encode list: %w", err)
	}
	head[len(head)-1] = ','
	if _, err := io.WriteString(w, string(head)+`"items":[`); err != nil {
		return fmt.Errorf("write list: %w", err)
	}
	for i, v := range l.objects {
		data, err := l.form.item(l.resource, v)
		if err != nil {
			return err
		}
		if i > 0 {
			data = append([]byte{','}, data...)
		}
		if _, err := w.Write(data); err != nil {
			return fmt.Errorf("write list: %w", err)
		}
	}
	if _, err := io.WriteString(w, "]}\n"); err != nil {
		return fmt.Errorf("write list: %w", err)
	}
	return nil
}

// writeProtobuf encodes the list in two passes, as its size comes first: what
// was encoded in the first is kept for the second up to a bound.
func (l *listing) writeProtobuf(w io.Writer) error {
	head, err := l.meta.Marshal()
	if err != nil {
		return fmt.Errorf("encode list: %w", err)
	}
	var encoded [][]byte
	kept, size := 0, len(prefixed(0x0a, head))
	for _, v := range l.objects {
		data, err := l.form.item(l.resource, v)
		if err != nil {
			return err
		}
		field := prefixed(0x12, data)
		size += len(field)
		if kept += len(field); kept < keepEncoded {
			encoded = append(encoded, field)
		}
	}
	body := func(w io.Writer) (int, error) {
		n, err := w.Write(prefixed(0x0a, head))
		for i := 0; err == nil && i < len(l.objects); i++ {
			var field, data []byte
			if i < len(encoded) {
				field = encoded[i]
			} else if data, err = l.form.item(l.resource, l.objects[i]); err == nil {
				field = prefixed(0x12, data)
			}
			var more int
			if err == nil {
				more, err = w.Write(field)
			}
			n += more
		}
		return n, err
	}
	if _, err := w.Write([]byte("k8s\x00")); err != nil {
		return fmt.Errorf("write list: %w", err)
	}
	version, kind := l.form.listKind(l.resource).ToAPIVersionAndKind()
	envelope := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: version, Kind: kind}}
	if _, err := envelope.MarshalToWriter(w, size, body); err != nil {
		return fmt.Errorf("write list: %w", err)
	}
	return nil
}

// prefixed is a message as a field of another: 0x0a is the metadata of every
// list, 0x12 one of its objects.
func prefixed(tag byte, message []byte) []byte {
	out := make([]byte, 0, len(message)+1+binary.MaxVarintLen32)
	out = binary.AppendUvarint(append(out, tag), uint64(len(message)))
	return append(out, message...)
}
