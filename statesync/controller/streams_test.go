package controller

import (
	"context"
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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics/metricstest"
	"github.com/outrider-agent/outrider/statesync/sinks"
	"github.com/outrider-agent/outrider/statesync/watch"
	"github.com/outrider-agent/outrider/statesync/workload"
	"github.com/outrider-agent/outrider/statesync/workload/custom"
)

func TestWithFolded(t *testing.T) {
	workflow := workload.Kind{Name: "workflows.argoproj.io", Folds: true}
	alone := workload.Kinds["Deployment"]
	alone.Folds = false
	custom := workflow
	custom.Folds = false
	kind := func(name string) workload.Kind { return workload.Kinds[name] }
	tests := []struct {
		name    string
		tracked []workload.Kind
		want    string // what is read for the stories of others, in its order; metadata alone in brackets
	}{
		{"pods alone need nothing", []workload.Kind{kind("Pod")}, ""},
		{"Jobs need their pods", []workload.Kind{kind("Job")}, "Pod"},
		{"pods that are tracked are there", []workload.Kind{kind("Job"), kind("Pod")}, ""},
		{"Deployments need the ReplicaSets between", []workload.Kind{kind("Deployment")}, "(ReplicaSet) Pod"},
		{"ReplicaSets that are tracked are there", []workload.Kind{kind("Deployment"), kind("ReplicaSet")}, "Pod"},
		{"pods that are tracked are not hops", []workload.Kind{kind("Pod"), kind("Deployment")}, "(ReplicaSet)"},
		{"one that pods do not fold into needs nothing", []workload.Kind{alone, custom}, ""},
		{"a configured kind may control anything", []workload.Kind{workflow}, "(DaemonSet) (Deployment) (Job) (ReplicaSet) (StatefulSet) Pod"},
		{"but for what is tracked", []workload.Kind{workflow, kind("Job"), alone}, "(DaemonSet) (ReplicaSet) (StatefulSet) Pod"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tracked []watch.Stream
			for _, k := range tt.tracked {
				tracked = append(tracked, watch.Stream{Kind: k, Selector: "a=b"})
			}
			var got []string
			all := withFolded(tracked)
			before, after := all[:len(all)-len(tracked)], all[len(all)-len(tracked):]
			for _, s := range before {
				name := s.Kind.Name
				if _, ok := s.Kind.Object().(*metav1.PartialObjectMetadata); ok {
					name = "(" + name + ")"
				}
				if !s.FoldOnly || s.Selector != "" {
					t.Errorf("%s tells a story of its own, or is selected", name)
				}
				got = append(got, name)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", strings.Join(got, " "), tt.want)
			}
			for i, s := range after {
				if s.FoldOnly || s.Selector != "a=b" || s.Kind.Name != tt.tracked[i].Name {
					t.Errorf("what is tracked became %s", fmt.Sprint(s.Kind.Name, s.Selector, s.FoldOnly))
				}
			}
		})
	}
}

// customServer plays an API server that has Workflows once they are installed.
type customServer struct {
	api       apiServer
	installed atomic.Bool
}

func (s *customServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/apis/argoproj.io/v1alpha1/workflows") {
		s.api.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	const version = `"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}`
	switch {
	case !s.installed.Load():
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, "404 page not found")
	case r.URL.Query().Get("watch") == "":
		io.WriteString(w, `{"kind":"WorkflowList","apiVersion":"argoproj.io/v1alpha1","items":[],`+version+`}`)
	default:
		if r.URL.Query().Get("sendInitialEvents") == "true" {
			io.WriteString(w, `{"type":"BOOKMARK","object":{"kind":"Workflow","apiVersion":"argoproj.io/v1alpha1",`+version+`}}`+"\n")
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

func TestAKindThatTheServerDoesNotHaveIsToldPlainlyAndWatchedOnceItComes(t *testing.T) {
	api := &customServer{}
	api.api.uid.Store("here")
	server := httptest.NewServer(api)
	defer server.Close()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c}}]}`, server.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	no := false
	c, err := New(Options{
		Config: &Config{
			Kubeconfig: config.Path(kubeconfig), MaxPending: 1000,
			Kinds: []KindConfig{{
				Kind: KindName{Group: "argoproj.io", Version: "v1alpha1", Resource: "workflows"},
				Fold: &no, CEL: custom.Rules{Running: "true"},
			}},
			Sinks: []SinkConfig{fileSink("archive", filepath.Join(dir, "changes.ndjson"))},
		},
		Dir: dir, OpenSink: sinks.Open, Registry: metricstest.Registry(t), Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	const want = "list workflows: the server has no workflows in argoproj.io/v1alpha1: is the CustomResourceDefinition installed?"
	waitFor(t, "the check to say what is missing", func() bool {
		r := status(t, c, "stream/workflows.argoproj.io")
		return r.Status == verdict.Fail && strings.HasSuffix(r.Message, want)
	})
	api.installed.Store(true)
	waitFor(t, "the check to pass", func() bool {
		return status(t, c, "stream/workflows.argoproj.io").Status == verdict.Pass
	})
	cancel()
	server.CloseClientConnections()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
