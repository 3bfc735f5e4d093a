package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	object    runtime.Object
	list      runtime.Object
}

// Collection returns the objects of a kind in a namespace; in all of them when
// it is empty. kind is Pod or Job, resource its name in addresses: pods.
func (c *Client) Collection(kind, group, version, resource, namespace string) (*Collection, error) {
	object, list, err := example(kind)
	if err != nil {
		return nil, err
	}
	client, err := c.rest(schema.GroupVersion{Group: group, Version: version})
	if err != nil {
		return nil, err
	}
	return &Collection{client: client, resource: resource, namespace: namespace, object: object, list: list}, nil
}

// Example returns an empty object of the type that List and Watch give.
func (c *Collection) Example() runtime.Object { return c.object.DeepCopyObject() }

// List reads the collection. A resourceVersion of 0 would let the server
// answer from a cache of any age; it is taken away, so that a list is never
// older than what was seen before.
func (c *Collection) List(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	if o.ResourceVersion == "0" {
		o.ResourceVersion = ""
	}
	into := c.list.DeepCopyObject()
	err := c.client.Get().
		NamespaceIfScoped(c.namespace, c.namespace != "").Resource(c.resource).
		VersionedParams(&o, scheme.ParameterCodec).Do(ctx).Into(into)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", c.resource, err)
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
		return nil, fmt.Errorf("watch %s: %w", c.resource, err)
	}
	return w, nil
}

// fingerprint identifies a cluster whose kube-system may not be read: by its
// certificate authority and address.
func (c *Client) fingerprint() string {
	h := sha256.New()
	h.Write(c.config.CAData)
	h.Write([]byte{0})
	h.Write([]byte(c.config.CAFile))
	h.Write([]byte{0})
	h.Write([]byte(c.config.Host))
	return "url-" + hex.EncodeToString(h.Sum(nil)[:16])
}
