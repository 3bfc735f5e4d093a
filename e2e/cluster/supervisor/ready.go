package supervisor

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/transport"

	"github.com/outrider-agent/outrider/e2e/cluster/component"
)

const (
	readyPoll    = 50 * time.Millisecond
	readyTimeout = 2 * time.Minute
	// One answer of a server that is starting may hang; the next poll asks anew.
	pollTimeout = 2 * time.Second
)

// waitReady waits until the component answers as ready, or its process ends.
func (s *Supervisor) waitReady(ctx context.Context, p *process) error {
	url := component.ReadyURL(p.name, s.settings.Ports)
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ended := p.ended()
	for {
		last := s.ask(ctx, url)
		if last == nil {
			p.markReady()
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%s ended before it was ready: %s; see %s", p.name, p.status(s.settings.Ports).End, s.dir.Log(p.name))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; see %s", p.name, last, s.dir.Log(p.name))
		case <-time.After(readyPoll):
		}
	}
}

// ask asks once for status 200.
func (s *Supervisor) ask(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	response, err := s.poller.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d, want 200: %s", url, response.StatusCode, body)
	}
	return nil
}

// newPoller is an HTTP client for the servers' health. A server that is killed and started again between two polls leaves no connection behind that could mislead.
func newPoller(kubeconfig string) (*http.Client, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	tlsConfig, err := transport.TLSConfigFor(&transport.Config{TLS: transport.TLSConfig{
		CAData: config.CAData, CertData: config.CertData, KeyData: config.KeyData,
	}})
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	tlsConfig.MinVersion = tls.VersionTLS12
	return &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true}}, nil
}

// waitUsable waits until a pod can be created and scheduled: nodes are ready and free of taints, and the namespace default has its service account.
func (s *Supervisor) waitUsable(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", s.dir.Kubeconfig())
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("wait for nodes: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		last := usable(ctx, client, s.settings.Nodes)
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cluster is not ready: %w", last)
		case <-time.After(readyPoll):
		}
	}
}

func usable(ctx context.Context, client kubernetes.Interface, want int) error {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	got := 0
	for _, node := range nodes.Items {
		if nodeReady(node) && len(node.Spec.Taints) == 0 {
			got++
		}
	}
	if got < want {
		return fmt.Errorf("nodes: got %d ready without taints, want %d", got, want)
	}
	if _, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{}); err != nil {
		return fmt.Errorf("service account of namespace default: %w", err)
	}
	return nil
}

func nodeReady(node corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
