package kube

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// A Collection is the objects of one kind in one namespace, or in all.
type Collection struct {
	client    *rest.RESTClient
	resource  string
	namespace string
	list      func() runtime.Object
}

// Collection returns the objects of a resource in a namespace; in all of them
// when it is empty. list makes an empty list of their type.
func (c *Client) Collection(group, version, resource, namespace string, list func() runtime.Object) (*Collection, error) {
	client, err := c.rest(schema.GroupVersion{Group: group, Version: version})
	if err != nil {
		return nil, err
	}
	return &Collection{client: client, resource: resource, namespace: namespace, list: list}, nil
}

// List reads the collection. A resourceVersion of 0 would let the server
// answer from a cache of any age; it is taken away, so that a list is never
// older than what was seen before.
func (c *Collection) List(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	if o.ResourceVersion == "0" {
		o.ResourceVersion = ""
	}
	into := c.list()
	err := c.client.Get().
		NamespaceIfScoped(c.namespace, c.namespace != "").Resource(c.resource).
		VersionedParams(&o, scheme.ParameterCodec).Do(ctx).Into(into)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", c.resource, withoutURL(err))
	}
	return into, nil
}

// Watch watches the collection.
func (c *Collection) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	w, err := c.client.Get().
		NamespaceIfScoped(c.namespace, c.namespace != "").Resource(c.resource).
		VersionedParams(&o, scheme.ParameterCodec).Watch(ctx)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", c.resource, withoutURL(err))
	}
	return w, nil
}
