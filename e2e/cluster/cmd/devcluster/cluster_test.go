package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/outrider-agent/outrider/e2e/cluster/kubelet"
	"github.com/outrider-agent/outrider/e2e/cluster/supervisor"
)

// binary gives the devcluster under test: the one that DEVCLUSTER names, or a fresh one.
func binary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("DEVCLUSTER"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "devcluster")
	build := exec.Command("go", "build", "-ldflags=-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3", "-o", path, ".")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build devcluster: %v\n%s", err, output)
	}
	return path
}

// A cluster is a running devcluster, driven as another module's tests would: by its verbs and its files.
type cluster struct {
	t      *testing.T
	binary string
	dir    string
	client kubernetes.Interface

	command *exec.Cmd
	exited  chan error
	errs    *buffer
}

// start runs devcluster up until it says ready, and stops it when the test ends.
func start(t *testing.T, binary, dir string, flags ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, binary: binary, dir: dir, exited: make(chan error, 1), errs: &buffer{}}
	c.command = exec.Command(binary, append([]string{"up", "--dir", dir}, flags...)...)
	c.command.Stderr = c.errs
	out, err := c.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.command.Start(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			t.Logf("up: %s", lines.Text())
			if lines.Text() == "ready" {
				close(ready)
			}
		}
		c.exited <- c.command.Wait()
	}()
	t.Cleanup(func() { c.stop() })
	select {
	case <-ready:
		t.Logf("ready after %s", time.Since(begin).Round(time.Millisecond))
	case err := <-c.exited:
		c.exited <- err
		t.Fatalf("up exited before it was ready: %v\n%s", err, c.errs)
	case <-time.After(3 * time.Minute):
		t.Fatalf("up is not ready after 3 minutes\n%s", c.errs)
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	return c
}

// stop ends up with SIGTERM and gives how it exited.
func (c *cluster) stop() error {
	_ = c.command.Process.Signal(syscall.SIGTERM)
	err := <-c.exited
	c.exited <- err
	return err
}

// verb runs one verb and gives its output.
func (c *cluster) verb(args ...string) string {
	c.t.Helper()
	output, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("devcluster %s: %v\n%s\n%s", strings.Join(args, " "), err, output, c.errs)
	}
	return output
}

func (c *cluster) try(args ...string) (string, error) {
	args = append([]string{args[0], "--dir", c.dir}, args[1:]...)
	output, err := exec.Command(c.binary, args...).CombinedOutput()
	return string(output), err
}

func (c *cluster) status(name string) supervisor.Status {
	c.t.Helper()
	var statuses []supervisor.Status
	if err := json.Unmarshal([]byte(c.verb("status", "--json")), &statuses); err != nil {
		c.t.Fatal(err)
	}
	for _, status := range statuses {
		if status.Name == name {
			return status
		}
	}
	c.t.Fatalf("status: got %v, want one of %s", statuses, name)
	return supervisor.Status{}
}

// create creates a pod with the annotations, without their prefix, given as name and value in turn.
func (c *cluster) create(name string, policy corev1.RestartPolicy, annotations ...string) *corev1.Pod {
	c.t.Helper()
	pod, err := c.client.CoreV1().Pods("default").Create(context.Background(), newPod(name, policy, annotations...), metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return pod
}

func newPod(name string, policy corev1.RestartPolicy, annotations ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{RestartPolicy: policy, Containers: []corev1.Container{{Name: "main", Image: "app:1"}}},
	}
	for i := 0; i < len(annotations); i += 2 {
		pod.Annotations[kubelet.Prefix+annotations[i]] = annotations[i+1]
	}
	return pod
}

func (c *cluster) pod(name string) (*corev1.Pod, error) {
	return c.client.CoreV1().Pods("default").Get(context.Background(), name, metav1.GetOptions{})
}

// truth reads the lines of the truth log about the pod.
func (c *cluster) truth(name string) []kubelet.Line {
	c.t.Helper()
	data, err := os.ReadFile(filepath.Join(c.dir, "kubelet.ndjson"))
	if err != nil {
		c.t.Fatal(err)
	}
	var lines []kubelet.Line
	decoder := json.NewDecoder(bytes.NewReader(data))
	for {
		var line kubelet.Line
		if err := decoder.Decode(&line); err == io.EOF {
			return lines
		} else if err != nil {
			c.t.Fatal(err)
		}
		if line.Name == name {
			lines = append(lines, line)
		}
	}
}

// story is the truth about the pod in short: phase/reason, or delete.
func (c *cluster) story(name string) string {
	c.t.Helper()
	var story []string
	for _, line := range c.truth(name) {
		part := string(line.Phase)
		if line.Op == "delete" {
			part = "delete"
		} else if line.Reason != "" {
			part += "/" + line.Reason
		}
		story = append(story, part)
	}
	return strings.Join(story, " ")
}

// eventually waits until the condition holds; it gives what is still missing as an error.
func (c *cluster) eventually(what string, condition func() error) {
	c.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: %v\n%s", what, err, c.errs)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// tells waits for the pod's story.
func (c *cluster) tells(name, want string) {
	c.t.Helper()
	c.eventually("truth of "+name, func() error {
		if got := c.story(name); got != want {
			return fmt.Errorf("got %q, want %q", got, want)
		}
		return nil
	})
}

// A buffer takes a child's output while the test reads it.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}
