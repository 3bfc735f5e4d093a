package simcluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func TestAPodIsListedAndWatched(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "one", nil, corev1.PodPending)
	pods := w.typed(t).CoreV1().Pods("a")
	list, err := pods.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].Name != "one" || list.Items[0].ResourceVersion != "3" || list.ResourceVersion != "3" {
		t.Errorf("got %v, want one pod at 3", list)
	}
	watch, err := pods.Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	w.pod(t, "one", nil, corev1.PodRunning)
	w.pod(t, "two", nil, corev1.PodPending)
	if _, err := w.cluster.Delete(w.pods, "a", "one", nil); err != nil {
		t.Fatal(err)
	}
	expect(t, watch, "MODIFIED one@4 Running", "ADDED two@5 Pending", "DELETED one@6 Running")
}

func TestServerSpeaksHTTP2ToWhoHasTheToken(t *testing.T) {
	w := newWorld(t)
	info, err := os.Stat(w.server.Kubeconfig())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the kubeconfig has mode %v (%v), want 0600", info.Mode(), err)
	}
	client := must(rest.HTTPClientFor(w.config))(t)
	tests := []struct {
		name, path, token, want string
	}{
		{"its token", "/version", w.config.BearerToken, "200 HTTP/2.0"},
		{"health", "/readyz", w.config.BearerToken, "200 HTTP/2.0"},
		{"another token", "/version", "wrong", "401 HTTP/2.0"},
		{"another token for faults", "/sim/faults", "wrong", "401 HTTP/2.0"},
		{"nothing there", "/api/v2/pods", w.config.BearerToken, "404 HTTP/2.0"},
		{"no such subresource", "/api/v1/namespaces/a/pods/p/log", w.config.BearerToken, "404 HTTP/2.0"},
		{"no namespace", "/api/v1/namespaces//pods", w.config.BearerToken, "404 HTTP/2.0"},
		{"no group", "/apis//v1/pods", w.config.BearerToken, "404 HTTP/2.0"},
		{"no name", "/api/v1/namespaces/a/pods//status", w.config.BearerToken, "404 HTTP/2.0"},
		{"no namespaced path of what has none", "/api/v1/namespaces/a/namespaces", w.config.BearerToken, "404 HTTP/2.0"},
	}
	for _, tt := range tests {
		req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+w.server.Addr()+tt.path, nil))(t)
		req.Header.Set("Authorization", "Bearer "+tt.token)
		resp := must(client.Do(req))(t)
		resp.Body.Close()
		if got := fmt.Sprint(resp.StatusCode, " ", resp.Proto); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	want := "[{get 200 2} {get 401 2} {get 404 4} {list 404 2}]"
	if got := fmt.Sprint(w.server.Stats().Requests); got != want {
		t.Errorf("got requests %s, want %s", got, want)
	}
}

func TestStats(t *testing.T) {
	w := newWorld(t)
	first, second := w.watch(t, 2), w.watch(t, 2)
	w.pod(t, "one", nil, corev1.PodPending)
	expect(t, first, "ADDED one@3 Pending")
	expect(t, second, "ADDED one@3 Pending")
	got := w.server.Stats()
	if got.Watches != 2 || got.Events != 2 || got.Connections != 1 || fmt.Sprint(got.Requests) != "[{watch 200 2}]" {
		t.Errorf("got %+v, want two watches on one connection with an event each", got)
	}
	second.Stop()
	wait(t, "the end of a watch", func() bool { return w.server.Stats().Watches == 1 })
}

// A watch that is open when the server stops ends as one that is over.
func TestServerStops(t *testing.T) {
	c := New(Options{}, Pods())
	s := must(NewServer(c, ServerOptions{Dir: t.TempDir()}))(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	client := must(rest.HTTPClientFor(must(clientcmd.BuildConfigFromFlags("", s.Kubeconfig()))(t)))(t)
	resp := must(client.Get("https://" + s.Addr() + "/api/v1/pods?watch=1"))(t)
	defer resp.Body.Close()
	cancel()
	begin := time.Now()
	if err := <-done; err != nil || time.Since(begin) > time.Second {
		t.Errorf("got %v after %s, want nil within 1s", err, time.Since(begin))
	}
	if text, err := io.ReadAll(resp.Body); err != nil || len(text) > 0 {
		t.Errorf("got %q and %v, want a clean end", text, err)
	}
}

func TestNewServerErrors(t *testing.T) {
	taken := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		o    ServerOptions
		want string
	}{
		{"no folder", ServerOptions{}, "make server: got no folder"},
		{"no folder there", ServerOptions{Dir: file}, "make server: write kubeconfig: mkdir"},
		{"no address", ServerOptions{Dir: t.TempDir(), Addr: "nonsense"}, "make server: address nonsense: missing port in address"},
		{"a taken port", ServerOptions{Dir: t.TempDir(), Addr: taken.Addr().String()}, "make server: listen tcp " + taken.Addr().String() + ": bind: address already in use"},
	}
	for _, tt := range tests {
		if _, err := NewServer(New(Options{}), tt.o); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}
