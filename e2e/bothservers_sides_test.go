package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/outrider-agent/outrider/statesync/simcluster"
)

// A server is one that can be started.
type server interface {
	fmt.Stringer
	start(t *testing.T) *side
}

// A side is a server that runs, and how to write to it.
type side struct {
	kubeconfig string
	client     *kubernetes.Clientset // protobuf, where there is one
	any        *dynamic.DynamicClient
	furnish    func(t *testing.T, ns string) // what a new namespace needs so that pods can be created
	forget     func(t *testing.T)            // the history
	define     func(t *testing.T)            // the kind Gadget
	undefine   func(t *testing.T)            // ... with its objects
}

// connect fills in the clients.
func (s *side) connect(t *testing.T) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	if s.any, err = dynamic.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf
	if s.client, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
}

type simulated struct{}

func (simulated) String() string { return "simulated" }

func (simulated) start(t *testing.T) *side {
	gadget := simcluster.Custom("e2e.outrider.dev", "v1", "gadgets", "Gadget", true)
	cluster := simcluster.New(simcluster.Options{}, simcluster.Namespaces(), simcluster.Pods(), simcluster.Jobs(), simcluster.Deployments(),
		simcluster.ReplicaSets(), simcluster.StatefulSets(), simcluster.DaemonSets(), gadget)
	srv, err := simcluster.NewServer(cluster, simcluster.ServerOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	s := &side{
		kubeconfig: srv.Kubeconfig(),
		furnish:    func(*testing.T, string) {},
		forget:     func(*testing.T) { cluster.Compact() },
		define:     func(*testing.T) { cluster.Add(gadget) },
		undefine:   func(*testing.T) { cluster.Remove(gadget) },
	}
	s.connect(t)
	return s
}

// real is etcd and the API server of e2e/cluster, and nothing else.
type real struct{}

func (real) String() string { return "real" }

// gadgets is a kind with a status of its own.
const gadgets = `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: gadgets.e2e.outrider.dev}, spec: {
group: e2e.outrider.dev, scope: Namespaced, names: {kind: Gadget, listKind: GadgetList, plural: gadgets, singular: gadget}, versions: [
{name: v1, served: true, storage: true, subresources: {status: {}}, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`

func (real) start(t *testing.T) *side {
	dir := filepath.Join(t.TempDir(), "cluster")
	up(t, dir)
	verb := func(t *testing.T, args ...string) {
		t.Helper()
		args = append([]string{args[0], "--dir", dir}, args[1:]...)
		if out, err := exec.CommandContext(t.Context(), env.devcluster, args...).CombinedOutput(); err != nil {
			t.Fatalf("devcluster %v: %v\n%s", args, err, out)
		}
	}
	for _, component := range []string{"controller-manager", "scheduler", "kubelet"} {
		verb(t, "stop", component)
	}
	s := &side{kubeconfig: filepath.Join(dir, "kubeconfig")}
	s.connect(t)
	s.furnish = func(t *testing.T, ns string) {
		t.Helper()
		_, err := s.client.CoreV1().ServiceAccounts(ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	s.forget = func(t *testing.T) {
		t.Helper()
		verb(t, "compact")
		verb(t, "restart", "apiserver")
	}
	api := s.any.Resource(definitions)
	s.define = func(t *testing.T) {
		t.Helper()
		crd, err := parseObject(gadgets)
		if err == nil {
			_, err = api.Create(t.Context(), crd, metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, patience, "gadgets to be established", func() bool {
			now, err := api.Get(t.Context(), crd.GetName(), metav1.GetOptions{})
			return err == nil && established(now)
		})
	}
	s.undefine = func(t *testing.T) {
		t.Helper()
		const name = "gadgets.e2e.outrider.dev"
		if err := api.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, patience, "gadgets to be gone", func() bool {
			_, err := api.Get(t.Context(), name, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	}
	s.define(t)
	return s
}

// up brings a cluster up until the test has ended.
func up(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command(env.devcluster, "up", "--dir", dir, "--port", "0")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			t.Errorf("stop the cluster: %v", err)
		}
	})
	ready := make(chan bool, 2)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == "ready" {
				ready <- true
			}
		}
		ready <- false
	}()
	select {
	case is := <-ready:
		if !is {
			t.Fatal("the cluster stopped before it was ready")
		}
	case <-time.After(5 * time.Minute):
		t.Fatal("the cluster was not ready in 5 minutes")
	}
}

// outriderBinary is the command that all other tests run, or one that is built
// now.
func outriderBinary(t *testing.T) string {
	t.Helper()
	if env != nil {
		return env.outrider
	}
	path := filepath.Join(t.TempDir(), "outrider")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../cmd/outrider")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build outrider: %v\n%s", err, out)
	}
	return path
}

// A follower is an agent that tells what it sees to files. It listens on a
// socket in its folder, so that there may be many.
type follower struct {
	t      *testing.T
	binary string
	dir    string
	client http.Client // of its socket

	cmd   *exec.Cmd
	ended chan error // nil: it does not run
}

func newFollower(t *testing.T, binary, kubeconfig string) *follower {
	t.Helper()
	dir, err := os.MkdirTemp("", "both-") // a short name: that of a socket has 108 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t, binary: binary, dir: dir}
	f.client.Timeout = 5 * time.Second
	f.client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "public.sock"))
	}}
	t.Cleanup(func() {
		if f.ended != nil {
			_ = f.cmd.Process.Kill() // it may have ended
			<-f.ended
		}
		if t.Failed() {
			t.Logf("the agent logged, last:\n%s", tail(filepath.Join(dir, "agent.log"), 40))
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Symlink(kubeconfig, filepath.Join(dir, "kubeconfig")); err != nil {
		t.Fatal(err)
	}
	return f
}

func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(string(b), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// follow starts the agent and waits until it is ready. more are lines of the
// section statesync; sinks are files.
func (f *follower) follow(more string, sinks ...string) {
	f.t.Helper()
	f.launch(more, sinks...)
	f.ready()
}

func (f *follower) launch(more string, sinks ...string) {
	f.t.Helper()
	var b strings.Builder
	b.WriteString("service: both\ndata_dir: ./data\nlisten: {public: \"unix:./public.sock\", debug: \"off\", status: \"off\"}\n")
	b.WriteString("statesync:\n  kubeconfig: ./kubeconfig\n  reasons: true\n  audit: 1s\n" + more + "  sinks:\n")
	for _, name := range sinks {
		fmt.Fprintf(&b, "    - {name: %s, file: {path: ./%s.ndjson}}\n", name, name)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "outrider.yaml"), []byte(b.String()), 0o600); err != nil {
		f.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(f.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer log.Close()
	cmd, ended := exec.Command(f.binary, "run"), make(chan error, 1)
	cmd.Dir, cmd.Stdout, cmd.Stderr = f.dir, log, log
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.cmd, f.ended = cmd, ended
	go func() { ended <- cmd.Wait() }()
}

// ready waits until the agent says that it is.
func (f *follower) ready() {
	f.t.Helper()
	waitFor(f.t, 2*time.Minute, "/readyz to answer 200", func() bool {
		select {
		case err := <-f.ended:
			f.ended = nil
			f.t.Fatalf("the agent ended with %v", err)
		default:
		}
		resp, err := f.client.Get("http://agent/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// stop wants the agent to end by itself, and not to have corrected anything.
func (f *follower) stop() {
	f.t.Helper()
	if n := total(f.metrics(), "outrider_audit_corrections_total"); n != 0 {
		f.t.Errorf("the audits made %v corrections, want none: the server keeps no event back", n)
	}
	if err := f.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		f.t.Fatal(err)
	}
	select {
	case err := <-f.ended:
		f.ended = nil
		if err != nil {
			f.t.Errorf("the agent ended with %v, want a clean end", err)
		}
	case <-time.After(patience):
		f.t.Fatalf("the agent did not stop in %s after SIGTERM", patience)
	}
}

func (f *follower) metrics() string {
	f.t.Helper()
	resp, err := f.client.Get("http://agent/metrics")
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		f.t.Fatalf("/metrics: %s, %v", resp.Status, err)
	}
	return string(b)
}

// read reads the whole lines of a file that may still be written.
func (f *follower) read(path string) (out []event) {
	f.t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		f.t.Fatal(err)
	}
	for line := range bytes.Lines(b[:bytes.LastIndexByte(b, '\n')+1]) {
		e, err := decode(line)
		if err != nil {
			f.t.Fatalf("%s: %v: %s", path, err, line)
		}
		out = append(out, e)
	}
	return out
}
