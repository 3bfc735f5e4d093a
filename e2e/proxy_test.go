package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// A proxy stands between the agent and the API server. It lets watches come as
// JSON, an event a line, hides some of the events and delays the others.
type proxy struct {
	hide    func(line []byte) bool
	delay   time.Duration // of each event; lists are not delayed
	watches atomic.Int64  // that it has passed on
	hidden  atomic.Int64  // events
}

// startProxy makes the kubeconfig in dir point to a proxy.
func startProxy(t *testing.T, dir string, p *proxy) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", env.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(&httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(server)
			if isWatch(r.In) {
				r.Out.Header.Set("Accept", "application/json")
				r.Out.Header.Del("Accept-Encoding")
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if isWatch(r.Request) && r.StatusCode == http.StatusOK {
				p.watches.Add(1)
				r.Body = p.filter(r.Body)
			}
			return nil
		},
	})
	t.Cleanup(func() {
		front.CloseClientConnections() // a watch would go on for minutes
		front.Close()
	})
	path := filepath.Join(dir, "kubeconfig")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s"}}]
contexts: [{name: c, context: {cluster: c, user: ""}}]
current-context: c
`, front.URL), 0o600); err != nil {
		t.Fatal(err)
	}
}

func isWatch(r *http.Request) bool {
	v := r.URL.Query().Get("watch")
	return v == "true" || v == "1"
}

// A line is what a watch says of one event, and when it is to be passed on.
type line struct {
	text []byte
	due  time.Time
	err  error // after the last one
}

// filter passes on all lines but those to be hidden, each after the delay.
func (p *proxy) filter(from io.ReadCloser) io.ReadCloser {
	lines := make(chan line, 10_000)
	go func() {
		defer close(lines)
		for r := bufio.NewReader(from); ; {
			text, err := r.ReadBytes('\n')
			if p.hide != nil && len(text) > 0 && p.hide(text) {
				p.hidden.Add(1)
				text = nil
			}
			lines <- line{text, time.Now().Add(p.delay), err}
			if err != nil {
				return
			}
		}
	}()
	r, w := io.Pipe()
	go func() {
		var err error
		for l := range lines {
			time.Sleep(time.Until(l.due)) // sleep: the watch is slow, that is the test
			if err == nil {
				_, err = w.Write(l.text)
			}
			if err == nil {
				err = l.err
			}
			if err != nil {
				_ = w.CloseWithError(err)
			}
		}
	}()
	return filtered{r, from}
}

type filtered struct {
	*io.PipeReader
	from io.Closer
}

// Close ends the watch, and by that the goroutines that pass it on.
func (f filtered) Close() error { return errors.Join(f.from.Close(), f.PipeReader.Close()) }
