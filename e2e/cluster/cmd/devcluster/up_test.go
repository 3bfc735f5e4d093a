package main_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/outrider-agent/outrider/e2e/cluster/supervisor"
)

const never, always = corev1.RestartPolicyNever, corev1.RestartPolicyAlways

func TestUp(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole cluster")
	}
	program, dir := binary(t), t.TempDir()
	c := start(t, program, dir, "--nodes=2")
	for _, stage := range []struct {
		name string
		run  func(*cluster)
	}{
		{"pods go through the phases their annotations ask for", testPhases},
		{"deletion ends the containers and is confirmed", testDeletion},
		{"jobs complete and fail through the real controller", testJobs},
		{"a second up in the directory is refused", testSecondUp},
		{"a component that dies by itself is reported", testDeath},
		{"pods go on after the API server was killed", testAPIServerKill},
		{"pods go on after the kubelet was restarted", testKubeletRestart},
		{"no data is lost when etcd is killed", testEtcdKill},
		{"compacted history is gone", testCompact},
		{"an older backup is restored", testRestore},
	} {
		t.Run(stage.name, func(t *testing.T) {
			inner := *c
			inner.t = t
			stage.run(&inner)
		})
	}
	if err := c.stop(); err != nil {
		t.Errorf("stop: got %v, want exit status 0\n%s", err, c.errs)
	}
	if _, err := os.Stat(filepath.Join(dir, "ready")); !os.IsNotExist(err) {
		t.Errorf("file ready after stop: got %v, want it gone", err)
	}
	t.Run("up goes on with the data it had", func(t *testing.T) {
		before, err := os.ReadFile(filepath.Join(dir, "kubeconfig"))
		if err != nil {
			t.Fatal(err)
		}
		c := start(t, program, dir)
		if _, err := c.pod("kept"); err != nil {
			t.Errorf("pod of the first run: %v", err)
		}
		if after, err := os.ReadFile(filepath.Join(dir, "kubeconfig")); err != nil || string(after) != string(before) {
			t.Errorf("kubeconfig: got another one (error %v), want the first run's", err)
		}
		testParentDeath(c)
	})
}

func testPhases(c *cluster) {
	c.create("kept", always)
	for _, test := range []struct {
		name        string
		policy      corev1.RestartPolicy
		annotations []string
		want        string
	}{
		{"succeeds", never, []string{"run", "100ms"}, "Pending/ContainerCreating Running Succeeded/Completed"},
		{"fails", never, []string{"run", "0s", "exit", "3"}, "Pending/ContainerCreating Running Failed/Error"},
		{"out-of-memory", never, []string{"end", "OOMKilled"}, "Pending/ContainerCreating Running Failed/OOMKilled"},
		{"evicted", never, []string{"end", "Evicted"}, "Pending/ContainerCreating Running Failed/Evicted"},
		{"no-image", always, []string{"end", "ImagePullBackOff"}, "Pending/ContainerCreating Pending/ErrImagePull Pending/ImagePullBackOff"},
		{"not-admitted", never, []string{"end", "OutOfcpu"}, "Failed/OutOfcpu"},
		{"misspelt", never, []string{"exot", "3"}, "Failed/InvalidDevclusterAnnotation"},
		{"third-time-lucky", corev1.RestartPolicyOnFailure, []string{"run", "10ms", "exit", "1,1,0"}, "Pending/ContainerCreating Running Running/Error Running Running/Error Running/CrashLoopBackOff Running Succeeded/Completed"},
		{"slowly-ready", always, []string{"ready", "50ms"}, "Pending/ContainerCreating Running Running"},
	} {
		c.create(test.name, test.policy, test.annotations...)
		defer c.tells(test.name, test.want)
	}
	limited := newPod("too-long", never)
	limited.Spec.ActiveDeadlineSeconds = new(int64(1))
	if _, err := c.client.CoreV1().Pods("default").Create(context.Background(), limited, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	c.tells("too-long", "Pending/ContainerCreating Running Failed/DeadlineExceeded")
}

func testDeletion(c *cluster) {
	c.create("ended", always)
	c.create("clean-exit", always, "exit-on-delete", "0")
	c.create("was-done", never, "run", "0s")
	want := map[string]string{
		"ended":      "Pending/ContainerCreating Running Failed/Error delete",
		"clean-exit": "Pending/ContainerCreating Running Succeeded/Completed delete",
	}
	c.tells("ended", "Pending/ContainerCreating Running")
	c.tells("clean-exit", "Pending/ContainerCreating Running")
	c.tells("was-done", "Pending/ContainerCreating Running Succeeded/Completed")
	for name, story := range want {
		if err := c.client.CoreV1().Pods("default").Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
			c.t.Fatal(err)
		}
		c.eventually("deletion of "+name, func() error {
			if _, err := c.pod(name); !apierrors.IsNotFound(err) {
				return fmt.Errorf("get: got error %w, want not found", err)
			}
			return nil
		})
		c.tells(name, story)
	}
	// The API server deletes a pod that has ended by itself, unless its cache does not know of the end yet.
	if err := c.client.CoreV1().Pods("default").Delete(context.Background(), "was-done", metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
	c.eventually("deletion of was-done", func() error {
		if _, err := c.pod("was-done"); !apierrors.IsNotFound(err) {
			return fmt.Errorf("get: got error %w, want not found", err)
		}
		return nil
	})
	lines := c.truth("ended")
	last := lines[len(lines)-2]
	if last.ExitCode == nil || *last.ExitCode != 143 || !last.Deleting || last.Ready {
		c.t.Errorf("last status of a deleted pod: got %+v, want exit code 143, deleting, not ready", last)
	}
}

func testJobs(c *cluster) {
	job := func(name, exit string) *batchv1.Job {
		pod := newPod("", never, "run", "50ms", "exit", exit)
		return &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: batchv1.JobSpec{
				Completions: new(int32(3)), Parallelism: new(int32(2)), BackoffLimit: new(int32(0)),
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: pod.Annotations}, Spec: pod.Spec},
			},
		}
	}
	jobs := c.client.BatchV1().Jobs("default")
	for name, want := range map[string]batchv1.JobConditionType{"good": batchv1.JobComplete, "bad": batchv1.JobFailed} {
		exit := map[string]string{"good": "0", "bad": "1"}[name]
		if _, err := jobs.Create(context.Background(), job(name, exit), metav1.CreateOptions{}); err != nil {
			c.t.Fatal(err)
		}
		c.eventually("job "+name, func() error {
			got, err := jobs.Get(context.Background(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, condition := range got.Status.Conditions {
				if condition.Type == want && condition.Status == corev1.ConditionTrue {
					return nil
				}
			}
			return fmt.Errorf("got conditions %v, want %s", got.Status.Conditions, want)
		})
	}
}

func testSecondUp(c *cluster) {
	output, err := c.try("up")
	if err == nil || !strings.Contains(output, "one is running there already") {
		c.t.Errorf("second up: got error %v and %q, want it refused", err, output)
	}
}

func testDeath(c *cluster) {
	process, err := os.FindProcess(c.status("scheduler").PID)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		c.t.Fatal(err)
	}
	c.eventually("report", func() error {
		if got := c.errs.String(); !strings.Contains(got, "scheduler died: signal: killed; see ") {
			return fmt.Errorf("got %q, want the scheduler's death", got)
		}
		return nil
	})
	if got := c.status("scheduler").State; got != supervisor.Died {
		c.t.Errorf("state: got %s, want %s", got, supervisor.Died)
	}
	c.verb("start", "scheduler")
	c.create("after-death", never, "run", "0s")
	c.tells("after-death", "Pending/ContainerCreating Running Succeeded/Completed")
}

func testAPIServerKill(c *cluster) {
	c.create("outlives-server", never, "run", "2s")
	c.tells("outlives-server", "Pending/ContainerCreating Running")
	const many = 60 // some of whose writes are under way when the server dies
	for i := range many {
		c.create(fmt.Sprintf("in-flight-%d", i), never, "pull", fmt.Sprintf("%dms", 10*i+10), "run", "0s")
	}
	c.verb("kill", "apiserver")
	if got := c.status("apiserver").State; got != supervisor.Stopped {
		c.t.Errorf("state: got %s, want %s", got, supervisor.Stopped)
	}
	if _, err := c.pod("kept"); err == nil {
		c.t.Error("get pod without an API server: got an answer, want an error")
	}
	c.verb("start", "apiserver")
	c.tells("outlives-server", "Pending/ContainerCreating Running Succeeded/Completed")
	for i := range many {
		c.tells(fmt.Sprintf("in-flight-%d", i), "Pending/ContainerCreating Running Succeeded/Completed")
	}
	c.create("after-kill", never, "run", "0s")
	c.tells("after-kill", "Pending/ContainerCreating Running Succeeded/Completed")
}

func testKubeletRestart(c *cluster) {
	c.create("outlives-kubelet", never, "run", "3s")
	c.tells("outlives-kubelet", "Pending/ContainerCreating Running")
	c.verb("restart", "kubelet")
	c.tells("outlives-kubelet", "Pending/ContainerCreating Running Succeeded/Completed")
	c.verb("restart", "--graceful", "kubelet")
	c.tells("outlives-kubelet", "Pending/ContainerCreating Running Succeeded/Completed")
}

func testEtcdKill(c *cluster) {
	c.create("outlives-etcd", never, "run", "1s")
	c.tells("outlives-etcd", "Pending/ContainerCreating Running")
	c.verb("restart", "etcd")
	c.tells("outlives-etcd", "Pending/ContainerCreating Running Succeeded/Completed")
	c.verb("restart", "--graceful", "etcd")
	if _, err := c.pod("outlives-etcd"); err != nil {
		c.t.Errorf("pod after restarts of etcd: %v", err)
	}
}

// testParentDeath checks that no component outlives its supervisor.
func testParentDeath(c *cluster) {
	var pids []int
	for _, name := range []string{"etcd", "apiserver", "controller-manager", "scheduler", "kubelet"} {
		pids = append(pids, c.status(name).PID)
	}
	if err := c.command.Process.Kill(); err != nil {
		c.t.Fatal(err)
	}
	c.eventually("end of the components", func() error {
		for _, pid := range pids {
			if err := syscall.Kill(pid, 0); err == nil {
				return fmt.Errorf("process %d is still there", pid)
			}
		}
		return nil
	})
}

func testCompact(c *cluster) {
	list, err := c.client.CoreV1().Pods("default").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	old := list.ResourceVersion
	c.create("newer", never, "run", "0s")
	c.tells("newer", "Pending/ContainerCreating Running Succeeded/Completed")
	if got := c.verb("compact"); !strings.HasPrefix(got, "compacted to revision ") {
		c.t.Errorf("compact: got %q", got)
	}
	c.verb("restart", "--graceful", "apiserver")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	watch, err := c.client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{ResourceVersion: old})
	if err == nil {
		defer watch.Stop()
		err = apierrors.FromObject((<-watch.ResultChan()).Object)
	}
	if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		c.t.Errorf("watch from version %s: got %v, want 410", old, err)
	}
}

func testRestore(c *cluster) {
	c.create("in-backup", always)
	c.tells("in-backup", "Pending/ContainerCreating Running")
	file := filepath.Join(c.t.TempDir(), "etcd.db")
	c.verb("snapshot", file)
	c.create("after-backup", always)
	c.tells("after-backup", "Pending/ContainerCreating Running")
	c.verb("restore", file)
	if _, err := c.pod("in-backup"); err != nil {
		c.t.Errorf("pod of the backup: %v", err)
	}
	if _, err := c.pod("after-backup"); !apierrors.IsNotFound(err) {
		c.t.Errorf("pod after the backup: got error %v, want not found", err)
	}
	c.create("after-restore", never, "run", "0s")
	c.tells("after-restore", "Pending/ContainerCreating Running Succeeded/Completed")
}
