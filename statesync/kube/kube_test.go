package kube

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// server is an API server that the test plays; it returns a client of it.
func server(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c}}]}`, s.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Connect(path, "outrider/test")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(w http.ResponseWriter, status int, json string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprint(w, json)
}

func TestClusterIDIsThatOfKubeSystem(t *testing.T) {
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/namespaces/kube-system" || r.UserAgent() != "outrider/test" {
			t.Errorf("%s by %s", r.URL, r.UserAgent())
		}
		answer(w, 200, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":"the-uid"}}`)
	})
	if id, err := c.ClusterID(t.Context()); id != "the-uid" || err != nil {
		t.Errorf("got %q, %v; want the-uid", id, err)
	}
}

func TestClusterIDWithoutPermissionIsOfTheAuthorityAndTheAddress(t *testing.T) {
	c := server(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 403, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`)
	})
	ids := map[string]string{}
	for _, authority := range []string{"one", "other", "one"} {
		// As in a pod, the authority is a file that has the same name everywhere.
		file := filepath.Join(t.TempDir(), "ca.crt")
		if err := os.WriteFile(file, []byte(authority), 0o600); err != nil {
			t.Fatal(err)
		}
		c.config.CAFile, c.config.CAData = file, nil
		id, err := c.fingerprint()
		if err != nil || !strings.HasPrefix(id, "url-") || ids[authority] != "" && ids[authority] != id {
			t.Errorf("authority %s: got %q, %v; before %q", authority, id, err, ids[authority])
		}
		ids[authority] = id
	}
	if ids["one"] == ids["other"] {
		t.Error("two authorities give one cluster")
	}
	c.config.CAFile = ""
	if id, err := c.ClusterID(t.Context()); err != nil || !strings.HasPrefix(id, "url-") {
		t.Errorf("got %q, %v; want url-...", id, err)
	}
}

func TestClusterIDOfAServerInTroubleIsAnError(t *testing.T) {
	c := server(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 503, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"ServiceUnavailable","code":503}`)
	})
	if id, err := c.ClusterID(t.Context()); err == nil || !strings.Contains(err.Error(), "identify cluster at http://127.0.0.1:") {
		t.Errorf("got %q, %v; want an error that names the server", id, err)
	}
}

func TestAListIsOfThePresent(t *testing.T) {
	var asked []string
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		answer(w, 200, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a"}}]}`)
	})
	pods, err := c.Collection(CollectionOptions{Version: "v1", Resource: "pods", Namespace: "load", List: func() runtime.Object { return &corev1.PodList{} }})
	if err != nil {
		t.Fatal(err)
	}
	for _, rv := range []string{"0", "5", ""} {
		obj, err := pods.List(t.Context(), metav1.ListOptions{ResourceVersion: rv, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
		if list, ok := obj.(*corev1.PodList); err != nil || !ok || len(list.Items) != 1 {
			t.Fatalf("got %v, %v; want a list of one pod", obj, err)
		}
	}
	want := "/api/v1/namespaces/load/pods /api/v1/namespaces/load/pods /api/v1/namespaces/load/pods"
	if got := strings.Join(asked, " "); got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

func TestErrorsOfCallsKeepWhatTheReflectorDecidesBy(t *testing.T) {
	c := server(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 410, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}`)
	})
	jobs, err := c.Collection(CollectionOptions{Group: "batch", Version: "v1", Resource: "jobs", List: func() runtime.Object { return &batchv1.JobList{} }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jobs.List(t.Context(), metav1.ListOptions{}); !apierrors.IsResourceExpired(err) || !strings.HasPrefix(err.Error(), "list jobs: ") {
		t.Errorf("list: got %v, want Expired", err)
	}
	if _, err := jobs.Watch(t.Context(), metav1.ListOptions{}); !apierrors.IsResourceExpired(err) || !strings.HasPrefix(err.Error(), "watch jobs: ") {
		t.Errorf("watch: got %v, want Expired", err)
	}
}

func TestConnectSaysWhatItCouldNotRead(t *testing.T) {
	if _, err := Connect("/does/not/exist", ""); err == nil || !strings.Contains(err.Error(), "read kubeconfig /does/not/exist") {
		t.Errorf("got %v", err)
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := Connect("", ""); err == nil || !strings.Contains(err.Error(), "not in a cluster, and no kubeconfig is configured") {
		t.Errorf("got %v", err)
	}
}

func TestWorkqueueMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := metricstest.Registry(t)
		m, err := NewWorkqueueMetrics(reg)
		if err != nil {
			t.Fatal(err)
		}
		q := workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[string]{Name: "q", MetricsProvider: m})
		defer q.ShutDown()
		q.Add("a")
		q.Add("b")
		time.Sleep(3 * time.Second)
		key, _ := q.Get()
		time.Sleep(2 * time.Second)
		q.Done(key)
		q.AddAfter("c", time.Minute)
		got := map[string]metrics.Point{}
		for _, f := range reg.Gather() {
			for _, p := range f.Points {
				got[strings.TrimPrefix(f.Desc.Name, "outrider_workqueue_")] = p
			}
		}
		for name, want := range map[string]float64{"depth": 1, "adds_total": 2, "retries_total": 1} {
			if got[name].Value != want || got[name].Tags[0] != "q" {
				t.Errorf("%s: got %v, want %v", name, got[name], want)
			}
		}
		if h := got["wait_seconds"].Hist; h.Count != 1 || h.Sum != 3 {
			t.Errorf("wait: got %d in %v s, want 1 in 3 s", h.Count, h.Sum)
		}
		if h := got["work_seconds"].Hist; h.Count != 1 || h.Sum != 2 {
			t.Errorf("work: got %d in %v s, want 1 in 2 s", h.Count, h.Sum)
		}
		m.Remove("q")
		for _, f := range reg.Gather() {
			if len(f.Points) > 0 {
				t.Errorf("%s of a queue that is removed: %v", f.Desc.Name, f.Points)
			}
		}
	})
}
