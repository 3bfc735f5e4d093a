package kube

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// A Collection is the objects of one kind in one namespace, or in all, that a
// selector takes.
type Collection struct {
	client *rest.RESTClient
	of     CollectionOptions
}

// CollectionOptions say which objects.
type CollectionOptions struct {
	Group, Version, Resource string
	Namespace                string // empty: all
	Selector                 string // of labels; empty: all

	List, Object func() runtime.Object // empty ones, of their type
}

// Collection returns the objects of a resource.
func (c *Client) Collection(o CollectionOptions) (*Collection, error) {
	client, err := c.rest(schema.GroupVersion{Group: o.Group, Version: o.Version})
	if err != nil {
		return nil, err
	}
	return &Collection{client: client, of: o}, nil
}

// metadataType asks the API server for the metadata of a list's objects alone.
const metadataType = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

// List reads the collection as it is now. With a resourceVersion the server
// may answer from a cache of any age (0), or with the past (another one with a
// limit means exactly that version): it is taken away.
func (c *Collection) List(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	into := c.of.List()
	if err := c.get(o).Do(ctx).Into(into); err != nil {
		return nil, fmt.Errorf("list %s: %w", c.of.Resource, withoutURL(err))
	}
	return into, nil
}

// ListMetadata reads the metadata of the collection's objects, consistently as
// List does.
func (c *Collection) ListMetadata(ctx context.Context, o metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	into := &metav1.PartialObjectMetadataList{}
	body, err := c.get(o).SetHeader("Accept", metadataType).Do(ctx).Raw()
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		return nil, fmt.Errorf("list metadata of %s: %w", c.of.Resource, withoutURL(err))
	}
	return into, nil
}

// Object reads one object of the namespace, selected or not.
func (c *Collection) Object(ctx context.Context, namespace, name string) (runtime.Object, error) {
	into := c.of.Object()
	err := c.client.Get().NamespaceIfScoped(namespace, namespace != "").Resource(c.of.Resource).Name(name).Do(ctx).Into(into)
	if err != nil {
		return nil, fmt.Errorf("get %s %s/%s: %w", c.of.Resource, namespace, name, withoutURL(err))
	}
	return into, nil
}

// Watch watches the collection.
func (c *Collection) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	w, err := c.get(o).Watch(ctx)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", c.of.Resource, withoutURL(err))
	}
	return w, nil
}

func (c *Collection) get(o metav1.ListOptions) *rest.Request {
	if !o.Watch {
		o.ResourceVersion, o.ResourceVersionMatch = "", ""
	}
	o.LabelSelector = c.of.Selector
	return c.client.Get().
		NamespaceIfScoped(c.of.Namespace, c.of.Namespace != "").Resource(c.of.Resource).
		VersionedParams(&o, scheme.ParameterCodec)
}
