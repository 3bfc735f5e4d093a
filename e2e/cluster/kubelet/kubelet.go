// Package kubelet stands in for the kubelets of a cluster: it registers nodes and takes the pods bound to them through their phases, as the pods' annotations say.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

// Config is what one process of stand-in kubelets needs.
type Config struct {
	// Client reaches the API server.
	Client *rest.Config
	// Nodes is how many nodes to register, and PodsPerNode the pod capacity of each.
	Nodes, PodsPerNode int
	// Truth is the path of the truth log; lines are appended.
	Truth string
	// Health is the address that answers 200 on /healthz while the nodes are registered and the pods listed.
	Health string
}

// Run stands in for the kubelets until ctx ends.
func Run(ctx context.Context, config Config) error {
	client, err := newClient(config.Client)
	if err != nil {
		return fmt.Errorf("run kubelet: %w", err)
	}
	file, err := openTruth(config.Truth)
	if err != nil {
		return fmt.Errorf("run kubelet: %w", err)
	}
	defer file.Close()
	clk := clock.RealClock{}
	nodes := newNodes(client, clk, config.Nodes, config.PodsPerNode)
	pods := newPods(client, clk, newTruth(file, clk), nodes.names())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return nodes.run(ctx) })
	group.Go(func() error { return pods.run(ctx) })
	group.Go(func() error {
		return serveHealth(ctx, config.Health, func() bool { return nodes.registered() && pods.listed() })
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("run kubelet: %w", err)
	}
	return nil
}

// newClient speaks protobuf and has no throttle of its own: the number of workers bounds its requests.
func newClient(config *rest.Config) (kubernetes.Interface, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.UserAgent = "kubelet"
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return kubernetes.NewForConfig(config)
}

// openTruth opens the log to append, and ends a line that a killed kubelet left half written.
func openTruth(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open truth log: %w", err)
	}
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return file, err
	}
	last := make([]byte, 1)
	if _, err := file.ReadAt(last, info.Size()-1); err != nil {
		return nil, errors.Join(fmt.Errorf("open truth log: %w", err), file.Close())
	}
	if last[0] == '\n' {
		return file, nil
	}
	if _, err := file.WriteString("\n"); err != nil {
		return nil, errors.Join(fmt.Errorf("open truth log: %w", err), file.Close())
	}
	return file, nil
}

func serveHealth(ctx context.Context, address string, ready func() bool) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serve health: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "nodes are not registered or pods not listed yet", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health: %w", err)
	}
	return nil
}
