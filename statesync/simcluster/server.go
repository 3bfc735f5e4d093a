package simcluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
)

const (
	defaultAddr     = "127.0.0.1:0"
	defaultBookmark = time.Minute            // as the API server's
	lastAnswers     = 200 * time.Millisecond // for what is being answered when the server stops
	headerTimeout   = 10 * time.Second
)

// ServerOptions say how a cluster is served.
type ServerOptions struct {
	Addr          string        // host:port; default 127.0.0.1 and any port
	Dir           string        // where the kubeconfig goes
	BookmarkEvery time.Duration // default a minute
	ClusterUID    types.UID     // of the namespace kube-system, by which clients know the cluster; default a new one
	Logger        *slog.Logger  // default none
}

// A Server serves a cluster as an API server does: over TLS and HTTP/2, to who
// has its token.
type Server struct {
	cluster    *Cluster
	opts       ServerOptions
	listener   *listener
	tls        *tls.Config
	token      string
	kubeconfig string
	faults     *Faults
	stats      stats
	lapses     lapses
	ending     chan struct{} // closed when the server is to stop: watches end
}

// NewServer listens, and writes the kubeconfig. Run serves, and closes the
// listener.
func NewServer(c *Cluster, o ServerOptions) (*Server, error) {
	o.Addr = cmp.Or(o.Addr, defaultAddr)
	o.BookmarkEvery = cmp.Or(o.BookmarkEvery, defaultBookmark)
	o.ClusterUID = cmp.Or(o.ClusterUID, uuid.NewUUID())
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dir == "" {
		return nil, errors.New("make server: got no folder for its kubeconfig, want one")
	}
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("make server: %w", err)
	}
	if err := furnish(c, o.ClusterUID); err != nil {
		return nil, fmt.Errorf("make server: %w", err)
	}
	cert, authority, err := newCertificate(host)
	if err != nil {
		return nil, fmt.Errorf("make server: %w", err)
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("make server: %w", err)
	}
	s := &Server{
		cluster: c, opts: o, listener: newListener(l), token: rand.Text(), ending: make(chan struct{}),
		tls: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}},
	}
	s.stats.init()
	s.faults = newFaults(c, s.listener)
	if s.kubeconfig, err = writeKubeconfig(o.Dir, "https://"+s.reachable(host), s.token, authority); err != nil {
		l.Close()
		return nil, fmt.Errorf("make server: %w", err)
	}
	return s, nil
}

// furnish gives the cluster what every cluster has.
func furnish(c *Cluster, uid types.UID) error {
	namespaces := Namespaces()
	c.Add(namespaces) // unless it has them
	if _, err := c.Get(namespaces, "", metav1.NamespaceSystem); err == nil {
		return nil
	}
	return c.createNamespace(namespaces, metav1.NamespaceSystem, uid)
}

func (c *Cluster) createNamespace(r *Resource, object string, uid types.UID) error {
	labels := map[string]string{corev1.LabelMetadataName: object}
	_, err := c.Create(r, Version{Name: object, UID: uid, Labels: labels, Source: stored{&corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: object, UID: uid, Labels: labels, CreationTimestamp: metav1.NewTime(c.Clock().Truncate(time.Second))},
		Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}},
		Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
	}}})
	return err
}

// reachable is an address at which this machine reaches the server, which may
// listen on all.
func (s *Server) reachable(host string) string {
	_, port, _ := net.SplitHostPort(s.Addr())
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Addr is where the server listens: host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Kubeconfig is the path of a file with all that a client needs, token
// included.
func (s *Server) Kubeconfig() string { return s.kubeconfig }

// Faults are what the server does wrong on request.
func (s *Server) Faults() *Faults { return s.faults }

// connKey is the context's key of a request's connection.
type connKey struct{}

// Run serves until ctx ends, once. It then ends the watches, and takes less
// than a second.
func (s *Server) Run(ctx context.Context) error {
	// What a client breaks off is its own affair.
	errorLog := slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelDebug)
	srv := &http.Server{
		Handler: s, TLSConfig: s.tls, ErrorLog: errorLog, ReadHeaderTimeout: headerTimeout,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served, striking := make(chan error, 1), make(chan struct{})
	go func() { served <- srv.ServeTLS(s.listener, "", "") }()
	go func() {
		defer close(striking)
		s.faults.strike(ctx)
	}()
	var err error
	select {
	case err = <-served:
		cancel()
	case <-ctx.Done():
	}
	close(s.ending)
	<-striking
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), lastAnswers)
	defer stop()
	if srv.Shutdown(last) != nil {
		_ = srv.Close() // some connection does not end by itself
	}
	if err == nil {
		if err = <-served; errors.Is(err, http.ErrServerClosed) {
			return nil
		}
	}
	return fmt.Errorf("serve %s: %w", s.Addr(), err)
}
