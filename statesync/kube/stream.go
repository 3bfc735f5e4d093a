package kube

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
)

// A Collection is the objects of one kind in one namespace, or in all, that a
// selector takes.
type Collection struct {
	of       CollectionOptions
	reader   reader
	metadata partial
}

// CollectionOptions say which objects, and how they are read: in the type that
// List returns. *unstructured.UnstructuredList is for the resources of
// CustomResourceDefinitions, and *metav1.PartialObjectMetadataList reads the
// metadata alone.
//
// Reads are the paths of the fields that are read of each object, such as
// metadata.labels and status.conditions.type. What else an object of
// Kubernetes' own types has may then be missing; none: nothing is.
type CollectionOptions struct {
	Group, Version, Resource string
	Namespace                string // empty: all
	Selector                 string // of labels; empty: all

	List, Object func() runtime.Object // empty ones, of their type
	Reads        []string              // fields; none: all
	Trim         func(runtime.Object)  // nil, or drops what nobody reads, in place: a list of unstructured objects never has two of them whole
}

// A reader makes the calls in one form of the objects.
type reader interface {
	list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error)
	object(ctx context.Context, namespace, name string) (runtime.Object, error)
	watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
}

// Collection returns the objects of a resource. It does not talk to the server.
func (c *Client) Collection(o CollectionOptions) (*Collection, error) {
	all, err := metadata.NewForConfig(c.config)
	if err != nil {
		return nil, fmt.Errorf("client for the metadata of %s: %w", o.Resource, err)
	}
	out := &Collection{of: o, metadata: partial{all.Resource(o.resource()), o.Namespace}}
	switch o.List().(type) {
	case *metav1.PartialObjectMetadataList:
		out.reader = out.metadata
	case *unstructured.UnstructuredList:
		out.reader, err = c.custom(o)
	default:
		out.reader, err = c.typed(o)
	}
	return out, err
}

func (o CollectionOptions) resource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: o.Group, Version: o.Version, Resource: o.Resource}
}

// List reads the collection as it is now. With a resourceVersion the server
// may answer from a cache of any age (0), or with the past (another one with a
// limit means exactly that version): it is taken away.
func (c *Collection) List(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	list, err := c.reader.list(ctx, c.present(o))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", c.of.Resource, c.explain(err))
	}
	return list, nil
}

// ListMetadata reads the metadata of the collection's objects, consistently as
// List does.
func (c *Collection) ListMetadata(ctx context.Context, o metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	list, err := c.metadata.all(ctx, c.present(o))
	if err != nil {
		return nil, fmt.Errorf("list metadata of %s: %w", c.of.Resource, c.explain(err))
	}
	return list, nil
}

// Object reads one object of the namespace, selected or not.
func (c *Collection) Object(ctx context.Context, namespace, name string) (runtime.Object, error) {
	obj, err := c.reader.object(ctx, namespace, name)
	if err != nil {
		return nil, fmt.Errorf("get %s %s/%s: %w", c.of.Resource, namespace, name, withoutURL(err))
	}
	return obj, nil
}

// Watch watches the collection. What cannot be decoded comes as an ERROR
// event.
func (c *Collection) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch, o.LabelSelector = true, c.of.Selector
	w, err := c.reader.watch(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", c.of.Resource, c.explain(err))
	}
	return w, nil
}

// present returns the options of a list of the present.
func (c *Collection) present(o metav1.ListOptions) metav1.ListOptions {
	o.ResourceVersion, o.ResourceVersionMatch = "", ""
	o.LabelSelector = c.of.Selector
	return o
}

// explain says what an error of a list or watch means: 404 answers for a
// resource that the server does not have, or has in no namespace. (A namespace
// that it does not have is an empty list.)
func (c *Collection) explain(err error) error {
	err = withoutURL(err)
	if apierrors.IsNotFound(err) {
		return &missing{c.of.resource(), c.of.Namespace, err}
	}
	return err
}

// missing is the error of a resource that the server does not have. Whether
// that is a mistake or will come, only the operator can say.
type missing struct {
	resource  schema.GroupVersionResource
	namespace string // that was asked for; empty: all
	err       error
}

func (m *missing) Error() string {
	text := fmt.Sprintf("the server has no %s in %s: is the CustomResourceDefinition installed?", m.resource.Resource, m.resource.GroupVersion())
	if m.namespace != "" {
		text = strings.TrimSuffix(text, "?") + ", or is it cluster-scoped, which `namespaces` leaves out?"
	}
	return text
}

func (m *missing) Unwrap() error { return m.err }
