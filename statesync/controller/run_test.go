package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics/metricstest"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/delivery"
	"github.com/outrider-agent/outrider/statesync/ledger"
	"github.com/outrider-agent/outrider/statesync/sinks"
)

// apiServer plays an API server with one pod, for the order in which things
// start and stop; the real one is in e2e.
type apiServer struct {
	uid  atomic.Value // of kube-system; "" answers 503
	pods atomic.Int32 // watches of pods that were opened
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch uid, _ := s.uid.Load().(string); {
	case uid == "":
		w.WriteHeader(http.StatusServiceUnavailable)
	case strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/kube-system"):
		fmt.Fprintf(w, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":%q}}`, uid)
	case r.URL.Query().Get("watch") == "": // how far the cluster has come
		io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[]}`)
	default:
		s.pods.Add(1)
		pod := `{"kind":"Pod","apiVersion":"v1","metadata":{"namespace":"n","name":"p","uid":"u","resourceVersion":"5","creationTimestamp":"2026-01-01T00:00:00Z"},"status":{"phase":"Running"}}`
		if r.URL.Query().Get("sendInitialEvents") == "true" {
			fmt.Fprintf(w, `{"type":"ADDED","object":%s}`+"\n", pod)
			io.WriteString(w, `{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}`+"\n")
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

// fileSink is a sink that writes a file.
func fileSink(name, path string) SinkConfig {
	return SinkConfig{
		Item:   config.Item{Name: name, Kind: "file", Config: &sinks.FileConfig{Path: config.Path(path)}},
		OnFull: delivery.Detach, DeadLetters: delivery.SkipLetters,
	}
}

// start makes a controller of pods with a file sink and runs it.
func start(t *testing.T, dir string, api *apiServer) (c *Controller, stop func() error) {
	t.Helper()
	return startWith(t, dir, api, sinks.Open, fileSink("archive", filepath.Join(dir, "changes.ndjson")))
}

// startWith is start with other sinks, and with how they are opened.
func startWith(t *testing.T, dir string, api *apiServer, open func(config.Item, string) (statesync.Sink, error), to ...SinkConfig) (c *Controller, stop func() error) {
	t.Helper()
	return startBounded(t, dir, api, LedgerConfig{}, open, to...)
}

// startBounded is startWith with a bounded ledger.
func startBounded(t *testing.T, dir string, api *apiServer, bounds LedgerConfig, open func(config.Item, string) (statesync.Sink, error), to ...SinkConfig) (c *Controller, stop func() error) {
	t.Helper()
	server := httptest.NewServer(api)
	kubeconfig := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c}}]}`, server.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{
		Config: &Config{
			Kubeconfig: config.Path(kubeconfig), Kinds: []KindConfig{{Kind: KindName{Name: "Pod"}}}, MaxPending: 1000,
			Ledger: bounds, Sinks: to,
		},
		Dir: dir, OpenSink: open, Registry: metricstest.Registry(t), Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return c, func() error {
		cancel()
		server.CloseClientConnections()
		defer server.Close()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("did not stop")
		}
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatal("waited for " + what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func status(t *testing.T, c *Controller, name string) verdict.Result {
	t.Helper()
	for _, check := range c.Checks() {
		if check.Name == name {
			return check.Run(t.Context())
		}
	}
	t.Fatalf("no check %s", name)
	return verdict.Result{}
}

func TestAChangeComesThroughAndIsNotToldAgainAfterARestart(t *testing.T) {
	dir, api := t.TempDir(), &apiServer{}
	api.uid.Store("here")
	for run := range 2 {
		c, stop := start(t, dir, api)
		waitFor(t, "the sink to have everything", func() bool {
			s := c.running()[0].dispatcher.Standing()
			return s.Acked == 2 && api.pods.Load() > int32(run)
		})
		waitFor(t, "the stream to be well", func() bool { return status(t, c, "stream/pods").Status == verdict.Pass })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if head, _ := c.ledger.Head(); head != 2 {
			t.Errorf("%d changes in the ledger after run %d, want 2", head, run+1)
		}
		if err := c.ledger.Append(t.Context(), statesync.Entry{}); !errors.Is(err, ledger.ErrClosed) {
			t.Errorf("the ledger takes entries after the stop: %v", err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "changes.ndjson"))
	if n := strings.Count(string(b), "\n"); err != nil || n != 2 {
		t.Errorf("%d changes in the file, want 2 (Queued, Running): %v\n%s", n, err, b)
	}
}

func TestAServerInTroubleIsWaitedForAndTold(t *testing.T) {
	api := &apiServer{}
	c, stop := start(t, t.TempDir(), api)
	if r := status(t, c, "stream/pods"); r.Status != verdict.Unknown {
		t.Errorf("stream: %s %q, want unknown", r.Status, r.Message)
	}
	waitFor(t, "the check to fail", func() bool { return status(t, c, "cluster").Status == verdict.Fail })
	api.uid.Store("here")
	waitFor(t, "the check to pass", func() bool { return status(t, c, "cluster").Status == verdict.Pass })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAStopBeforeTheClusterIsKnownIsClean(t *testing.T) {
	_, stop := start(t, t.TempDir(), &apiServer{})
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestALedgerOfAnotherClusterIsRefused(t *testing.T) {
	dir, api := t.TempDir(), &apiServer{}
	api.uid.Store("here")
	c, stop := start(t, dir, api)
	waitFor(t, "the cluster to be known", func() bool { return status(t, c, "cluster").Status == verdict.Pass })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	api.uid.Store("elsewhere")
	c, stop = start(t, dir, api)
	waitFor(t, "the ledger to be closed", func() bool {
		return errors.Is(c.ledger.Append(t.Context(), statesync.Entry{Done: func() {}}), ledger.ErrClosed)
	})
	if err := stop(); !errors.Is(err, ledger.ErrOtherCluster) {
		t.Errorf("got %v, want %v", err, ledger.ErrOtherCluster)
	}
}
