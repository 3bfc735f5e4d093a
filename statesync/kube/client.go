// Package kube reaches the Kubernetes API server: clients, list and watch calls, and the figures of client-go's work queues.
package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Client is a connection to one API server.
type Client struct {
	config *rest.Config
}

// Connect reads how to reach the API server: from the file kubeconfig if it
// is given; else from the service account of the pod it runs in; else from
// ~/.kube/config. It does not talk to the server.
//
// Client-side rate limits are off: each stream has its own back-off, and the
// server protects itself by priority and fairness.
func Connect(kubeconfig, userAgent string) (*Client, error) {
	cfg, err := loadConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.QPS = -1
	cfg.UserAgent = userAgent
	return &Client{config: cfg}, nil
}

// Host is the API server's address, for messages.
func (c *Client) Host() string { return c.config.Host }

// ClusterID returns what identifies the cluster: the UID of its namespace
// kube-system; without permission to read that, a hash of the server's
// certificate authority and address.
func (c *Client) ClusterID(ctx context.Context) (string, error) {
	core, err := c.rest(schema.GroupVersion{Version: "v1"}, scheme.Codecs.WithoutConversion())
	if err != nil {
		return "", err
	}
	var ns corev1.Namespace
	err = core.Get().Resource("namespaces").Name(metav1.NamespaceSystem).Do(ctx).Into(&ns)
	switch {
	case err == nil:
		return string(ns.UID), nil
	case apierrors.IsForbidden(err):
		return c.fingerprint()
	}
	return "", fmt.Errorf("identify cluster at %s: %w", c.config.Host, withoutURL(err))
}

// Missing reports whether the cluster says that it has no such namespace.
func (c *Client) Missing(ctx context.Context, namespace string) (bool, error) {
	core, err := c.rest(schema.GroupVersion{Version: "v1"}, scheme.Codecs.WithoutConversion())
	if err != nil {
		return false, err
	}
	err = core.Get().Resource("namespaces").Name(namespace).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return false, withoutURL(err)
}

// withoutURL takes the long address out of what went wrong with a request.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// rest returns a client of one API group that speaks protobuf.
func (c *Client) rest(gv schema.GroupVersion, codecs runtime.NegotiatedSerializer) (*rest.RESTClient, error) {
	cfg := rest.CopyConfig(c.config)
	cfg.GroupVersion = &gv
	cfg.APIPath = "/apis"
	if gv.Group == "" {
		cfg.APIPath = "/api"
	}
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.NegotiatedSerializer = codecs
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", gv, err)
	}
	return client, nil
}

func loadConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig != "" {
		cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
		}
		return cfg, nil
	}
	cfg, err := rest.InClusterConfig()
	if err == nil {
		return cfg, nil
	}
	if !errors.Is(err, rest.ErrNotInCluster) {
		return nil, fmt.Errorf("read in-cluster configuration: %w", err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, fmt.Errorf("find ~/.kube/config: %w", err)
	}
	path := filepath.Join(home, ".kube", "config")
	cfg, err = clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s (not in a cluster, and no kubeconfig is configured): %w", path, err)
	}
	return cfg, nil
}

// fingerprint identifies a cluster whose kube-system may not be read: by its
// certificate authority and address.
func (c *Client) fingerprint() (string, error) {
	cfg := rest.CopyConfig(c.config)
	if err := rest.LoadTLSFiles(cfg); err != nil {
		return "", fmt.Errorf("identify cluster at %s: %w", cfg.Host, err)
	}
	h := sha256.New()
	h.Write(cfg.CAData)
	h.Write([]byte{0})
	h.Write([]byte(cfg.Host))
	return "url-" + hex.EncodeToString(h.Sum(nil)[:16]), nil
}
