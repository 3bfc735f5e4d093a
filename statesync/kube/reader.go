package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// typed reads objects of the types that client-go knows, in protobuf.
type typed struct {
	client *rest.RESTClient
	of     CollectionOptions
}

func (c *Client) typed(o CollectionOptions) (reader, error) {
	codecs := scheme.Codecs.WithoutConversion()
	if len(o.Reads) > 0 {
		lean, err := newLeanCodecs(o.Object, o.List, o.Reads)
		if err != nil {
			return nil, fmt.Errorf("read %s in part: %w", o.Resource, err)
		}
		codecs = lean
	}
	client, err := c.rest(o.resource().GroupVersion(), codecs)
	return typed{client, o}, err
}

func (t typed) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	into := t.of.List()
	return into, t.get(o).Do(ctx).Into(into)
}

func (t typed) object(ctx context.Context, namespace, name string) (runtime.Object, error) {
	into := t.of.Object()
	return into, t.client.Get().NamespaceIfScoped(namespace, namespace != "").Resource(t.of.Resource).Name(name).Do(ctx).Into(into)
}

func (t typed) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return t.get(o).Watch(ctx)
}

func (t typed) get(o metav1.ListOptions) *rest.Request {
	return t.client.Get().
		NamespaceIfScoped(t.of.Namespace, t.of.Namespace != "").Resource(t.of.Resource).
		SpecificallyVersionedParams(&o, scheme.ParameterCodec, schema.GroupVersion{Version: "v1"})
}

// partial reads the metadata of objects alone, in protobuf if the server has
// it.
type partial struct {
	of        metadata.Getter
	namespace string
}

func (p partial) all(ctx context.Context, o metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	return p.of.Namespace(p.namespace).List(ctx, o)
}

func (p partial) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	return p.all(ctx, o)
}

func (p partial) object(ctx context.Context, namespace, name string) (runtime.Object, error) {
	return p.of.Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (p partial) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return p.of.Namespace(p.namespace).Watch(ctx, o)
}

// custom reads objects of which no type is known, in JSON. Lists go around
// the dynamic client, which holds a list several times over while it decodes
// it; one object may have a megabyte, and a page 500 of them.
type custom struct {
	typed
	objects dynamic.NamespaceableResourceInterface
}

func (c *Client) custom(o CollectionOptions) (reader, error) {
	lists, err := c.rest(o.resource().GroupVersion(), scheme.Codecs.WithoutConversion())
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", o.Resource, err)
	}
	return custom{typed{lists, o}, objects.Resource(o.resource())}, nil
}

func (c custom) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	body, err := c.get(o).SetHeader("Accept", runtime.ContentTypeJSON).Stream(ctx)
	if err != nil {
		return nil, err
	}
	list, err := readList(body, c.of.Trim)
	return list, errors.Join(err, body.Close())
}

func (c custom) object(ctx context.Context, namespace, name string) (runtime.Object, error) {
	return c.objects.Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (c custom) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return c.objects.Namespace(c.of.Namespace).Watch(ctx, o)
}

// readList reads a list from JSON, and trims each object before it reads the
// next.
func readList(r io.Reader, trim func(runtime.Object)) (*unstructured.UnstructuredList, error) {
	list := &unstructured.UnstructuredList{Object: map[string]any{}}
	d := json.NewDecoder(r)
	if err := expect(d, json.Delim('{')); err != nil {
		return nil, err
	}
	var raw json.RawMessage // its memory serves all objects
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("decode list: %w", err)
		}
		if key == "items" {
			if err := readItems(d, &raw, list, trim); err != nil {
				return nil, err
			}
			continue
		}
		var value any
		if err := read(d, &raw, &value); err != nil {
			return nil, err
		}
		list.Object[key.(string)] = value
	}
	if err := expect(d, json.Delim('}')); err != nil {
		return nil, err
	}
	if !strings.HasSuffix(list.GetKind(), "List") {
		return nil, fmt.Errorf("decode list: got kind %q, want a list", list.GetKind())
	}
	return list, nil
}

// readItems reads the objects of a list. Those of Kubernetes' own lists do not
// name their kind; such a list begins with its own.
func readItems(d *json.Decoder, raw *json.RawMessage, list *unstructured.UnstructuredList, trim func(runtime.Object)) error {
	switch first, err := d.Token(); {
	case err != nil:
		return fmt.Errorf("decode list: %w", err)
	case first == nil: // null, of a list that is empty
		return nil
	case first != json.Delim('['):
		return fmt.Errorf("decode list: got items %v, want [", first)
	}
	for d.More() {
		item := unstructured.Unstructured{}
		if err := read(d, raw, &item.Object); err != nil {
			return err
		}
		if item.GetKind() == "" && item.Object != nil {
			item.SetAPIVersion(list.GetAPIVersion())
			item.SetKind(strings.TrimSuffix(list.GetKind(), "List"))
		}
		if trim != nil {
			trim(&item)
		}
		list.Items = append(list.Items, item)
	}
	return expect(d, json.Delim(']'))
}

// read reads one value as Kubernetes reads JSON: whole numbers stay whole.
func read[T any](d *json.Decoder, raw *json.RawMessage, into *T) error {
	err := d.Decode(raw)
	if err == nil {
		err = utiljson.Unmarshal(*raw, into)
	}
	if err != nil {
		return fmt.Errorf("decode list: %w", err)
	}
	return nil
}

func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err != nil {
		return fmt.Errorf("decode list: %w", err)
	}
	if got != want {
		return fmt.Errorf("decode list: got %v, want %v", got, want)
	}
	return nil
}
