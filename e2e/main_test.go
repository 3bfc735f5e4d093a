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
	"strings"
	"sync"
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

// shared is what all tests use: one cluster, one binary.
type shared struct {
	dir        string // of the cluster
	kubeconfig string
	outrider   string
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
	env = &shared{dir: filepath.Join(dir, "cluster"), outrider: filepath.Join(dir, "outrider")}
	env.kubeconfig = filepath.Join(env.dir, "kubeconfig")
	build := exec.Command("go", "build", "-o", env.outrider, "../cmd/outrider")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build outrider: %w\n%s", err, out)
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

// namespace makes one for a test, which leaves it empty; it goes with the
// cluster.
func namespace(t *testing.T, name string) string {
	t.Helper()
	_, err := env.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) { // by a run before, with -count
		t.Fatal(err)
	}
	waitFor(t, 30*time.Second, "the service account default in "+name, func() bool {
		_, err := env.client.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	return name
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

// An agent is one run of the command.
type agent struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd

	mu  sync.Mutex
	log strings.Builder
	end chan error // receives the exit once
}

// Write collects what the agent logs.
func (a *agent) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.Write(b)
}

func (a *agent) logged() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.String()
}

// startAgent runs the command with the configuration in dir and waits until
// it is ready.
func startAgent(t *testing.T, dir, config string) *agent {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "outrider.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, dir: dir, cmd: exec.Command(env.outrider, "run"), end: make(chan error, 1)}
	a.cmd.Dir, a.cmd.Stdout, a.cmd.Stderr = dir, a, a
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { a.end <- a.cmd.Wait() }()
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill() // it may have ended
		if t.Failed() {
			t.Logf("the agent logged:\n%s", a.logged())
		}
	})
	waitFor(t, 30*time.Second, "/readyz to answer 200", func() bool {
		select {
		case err := <-a.end:
			t.Fatalf("the agent ended with %v; is another one running?", err)
		default:
		}
		code, _ := get("http://127.0.0.1:9610/readyz")
		return code == 200
	})
	return a
}

// stop sends SIGTERM and wants a clean end within the promised 5 s.
func (a *agent) stop() {
	a.t.Helper()
	began := time.Now()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		a.t.Fatal(err)
	}
	select {
	case err := <-a.end:
		took := time.Since(began)
		if err != nil {
			a.t.Errorf("the agent ended with %v, want a clean end", err)
		}
		if took > 5*time.Second {
			a.t.Errorf("the agent took %s to stop, want 5s at most", took)
		}
		a.t.Logf("stopped in %s", took.Round(time.Millisecond))
	case <-time.After(20 * time.Second):
		a.t.Fatal("the agent did not stop in 20 s after SIGTERM, want 5 s at most")
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
