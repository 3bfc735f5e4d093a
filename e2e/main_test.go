package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// shared is what all tests use: one cluster, and two binaries.
type shared struct {
	devcluster string // the command that makes the cluster
	dir        string // of the cluster
	kubeconfig string
	outrider   string
	failing    string // the same, built with failpoints
	client     *kubernetes.Clientset
}

// env is set by TestMain and read-only after it.
var env *shared

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	devcluster := os.Getenv("DEVCLUSTER")
	if devcluster == "" {
		if os.Getenv("CI") != "" {
			return 1, errors.New("DEVCLUSTER is not set, want the binary that make e2e builds: a missing server is a failure in CI")
		}
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "outrider-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	env = &shared{
		devcluster: devcluster, dir: filepath.Join(dir, "cluster"),
		outrider: filepath.Join(dir, "outrider"), failing: filepath.Join(dir, "outrider-failing"),
	}
	env.kubeconfig = filepath.Join(env.dir, "kubeconfig")
	for _, args := range [][]string{{"-o", env.outrider}, {"-o", env.failing, "-tags", "failpoint"}} {
		build := exec.Command("go", append(append([]string{"build"}, args...), "../cmd/outrider")...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("build outrider: %w\n%s", err, out)
		}
	}
	stop, err := startCluster(devcluster)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return m.Run(), nil
}

// startCluster brings the cluster up and returns what brings it down.
func startCluster(devcluster string) (stop func() error, err error) {
	cmd := exec.Command(devcluster, "up", "--dir", env.dir, "--port", "0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", devcluster, err)
	}
	stop = func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return fmt.Errorf("stop the cluster: %w", err)
		}
		return cmd.Wait()
	}
	ready := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(os.Stderr, "cluster:", lines.Text())
			if lines.Text() == "ready" {
				ready <- nil
			}
		}
		ready <- errors.New("the cluster stopped before it was ready")
	}()
	select {
	case err = <-ready:
	case <-time.After(3 * time.Minute):
		err = errors.New("the cluster was not ready in 3 minutes")
	}
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	config, err := clientcmd.BuildConfigFromFlags("", env.kubeconfig)
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	config.QPS = -1
	// The tests share two cores with all the servers: JSON would cost the API
	// server more than the load itself.
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf
	env.client, err = kubernetes.NewForConfig(config)
	return stop, err
}

// needCluster skips a test where there is no cluster.
func needCluster(t *testing.T) {
	t.Helper()
	if env == nil {
		t.Skip("DEVCLUSTER is not set: run make e2e, which builds a real API server")
	}
}

// namespace makes one for a test; it is emptied after the test, and goes with
// the cluster.
func namespace(t *testing.T, name string) string {
	t.Helper()
	_, err := env.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) { // by a run before, with -count
		t.Fatal(err)
	}
	waitFor(t, 2*time.Minute, "the service account default in "+name, func() bool {
		_, err := env.client.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	t.Cleanup(func() { empty(t, name) })
	return name
}

// empty deletes what a test that failed has left in its namespace, so that
// the next one has the cluster to itself.
func empty(t *testing.T, namespace string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	policy, now := metav1.DeletePropagationBackground, int64(0)
	o := metav1.DeleteOptions{PropagationPolicy: &policy, GracePeriodSeconds: &now}
	err := errors.Join(
		env.client.BatchV1().Jobs(namespace).DeleteCollection(ctx, o, metav1.ListOptions{}),
		env.client.CoreV1().Pods(namespace).DeleteCollection(ctx, o, metav1.ListOptions{}),
	)
	if err != nil {
		t.Errorf("empty namespace %s: %v", namespace, err)
	}
}

// A set is one line of the stand-in kubelet's log: what it set, once the API
// server had answered.
type set struct {
	Time      time.Time `json:"time"`
	Op        string    `json:"op"`
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       string    `json:"uid"`
	Phase     string    `json:"phase"`
	Reason    string    `json:"reason"`
	ExitCode  *int32    `json:"exitCode"`
	Deleting  bool      `json:"deleting"`
}

// kubeletLog reads what the kubelet did in a namespace, by UID.
func kubeletLog(t *testing.T, namespace string) map[string][]set {
	t.Helper()
	f, err := os.Open(filepath.Join(env.dir, "kubelet.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][]set{}
	dec := json.NewDecoder(f)
	for {
		var s set
		if err := dec.Decode(&s); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return out
			}
			t.Fatal(err)
		}
		if s.Namespace == namespace {
			out[s.UID] = append(out[s.UID], s)
		}
	}
}

func waitFor(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %s for %s", limit, what)
		}
	}
}
