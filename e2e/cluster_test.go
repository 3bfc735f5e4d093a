package e2e

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// cluster runs a verb of devcluster.
func cluster(t *testing.T, args ...string) {
	t.Helper()
	began := time.Now()
	args = append([]string{args[0], "--dir", env.dir}, args[1:]...)
	out, err := exec.CommandContext(t.Context(), env.devcluster, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("devcluster %v: %v\n%s", args, err, out)
	}
	t.Logf("devcluster %s: %s %s", args[0], strings.TrimSpace(string(out)), time.Since(began).Round(time.Millisecond))
}

// expireHistory makes watches from before version be answered 410, and says
// what did it. etcd forgets by compaction, the API server by its restart.
func expireHistory(t *testing.T, ns, version string) {
	t.Helper()
	cluster(t, "compact")
	if expired(t, ns, version) {
		t.Log("the compaction alone expired the history")
		return
	}
	cluster(t, "restart", "apiserver")
	if !expired(t, ns, version) {
		t.Fatalf("a watch from %s is answered after compaction and restart, want 410", version)
	}
	t.Log("the restart of the API server after the compaction expired the history; the compaction alone did not")
}

// expired reports whether a watch of pods from a version is answered 410.
func expired(t *testing.T, ns, version string) bool {
	t.Helper()
	w, err := env.client.CoreV1().Pods(ns).Watch(t.Context(), metav1.ListOptions{ResourceVersion: version})
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return true
	}
	if err != nil {
		t.Fatalf("watch pods from %s: %v", version, err)
	}
	defer w.Stop()
	select {
	case e, ok := <-w.ResultChan():
		return ok && e.Type == watch.Error && apierrors.IsResourceExpired(apierrors.FromObject(e.Object))
	case <-time.After(5 * time.Second):
		return false
	}
}

// podsVersion is the collection's resourceVersion.
func podsVersion(t *testing.T, ns string) string {
	t.Helper()
	list, err := env.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	return list.ResourceVersion
}

// A fleet is workloads of one plan: their UIDs, by name.
type fleet map[string]string

// pods creates n pods named prefix-0 and so on.
func pods(t *testing.T, ns, prefix string, n int, annotations map[string]string, labels ...string) fleet {
	t.Helper()
	out, mu := fleet{}, sync.Mutex{}
	each(n, func(i int) {
		pod := newPod(fmt.Sprintf("%s-%d", prefix, i), plan{annotations: annotations})
		addLabels(pod, labels)
		created, err := env.client.CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{})
		if err != nil {
			t.Errorf("create pod: %v", err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		out[pod.Name] = string(created.UID)
	})
	if len(out) != n {
		t.FailNow()
	}
	return out
}

// jobs creates n Jobs named prefix-0 and so on.
func jobs(t *testing.T, ns, prefix string, n int, annotations map[string]string) fleet {
	t.Helper()
	out, mu := fleet{}, sync.Mutex{}
	each(n, func(i int) {
		created, err := env.client.BatchV1().Jobs(ns).Create(t.Context(), newJob(fmt.Sprintf("%s-%d", prefix, i), annotations), metav1.CreateOptions{})
		if err != nil {
			t.Errorf("create job: %v", err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		out[created.Name] = string(created.UID)
	})
	if len(out) != n {
		t.FailNow()
	}
	return out
}

// each calls do for 0 to n-1, some at a time.
func each(n int, do func(i int)) {
	var wg sync.WaitGroup
	room := make(chan struct{}, 16)
	for i := range n {
		room <- struct{}{}
		wg.Go(func() {
			do(i)
			<-room
		})
	}
	wg.Wait()
}

// tell adds what must be told of each workload of the fleet.
func (f fleet) tell(want map[string]string, story string) {
	for _, uid := range f {
		want[uid] = story
	}
}

// recreate deletes each of the fleet's pods and makes another one under its
// name as soon as it is gone.
func (f fleet) recreate(t *testing.T, ns string, annotations map[string]string) fleet {
	t.Helper()
	out, mu, api := fleet{}, sync.Mutex{}, env.client.CoreV1().Pods(ns)
	names := slices.Sorted(maps.Keys(f))
	each(len(names), func(i int) {
		if err := api.Delete(t.Context(), names[i], metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete pod: %v", err)
			return
		}
		for deadline := time.Now().Add(time.Minute); ; {
			created, err := api.Create(t.Context(), newPod(names[i], plan{annotations: annotations}), metav1.CreateOptions{})
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				out[names[i]] = string(created.UID)
				return
			}
			if !apierrors.IsAlreadyExists(err) || time.Now().After(deadline) {
				t.Errorf("create pod again: %v", err)
				return
			}
			time.Sleep(10 * time.Millisecond) // sleep: until the old one is gone
		}
	})
	if len(out) != len(f) {
		t.FailNow()
	}
	return out
}

// deletePods deletes the fleet's pods and waits until they are gone.
func (f fleet) deletePods(t *testing.T, ns string) {
	t.Helper()
	names := slices.Sorted(maps.Keys(f))
	each(len(names), func(i int) {
		if err := env.client.CoreV1().Pods(ns).Delete(t.Context(), names[i], metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete pod: %v", err)
		}
	})
	waitFor(t, time.Minute, fmt.Sprintf("%d pods to be gone", len(f)), func() bool {
		here := podPhases(t, ns)
		for _, uid := range f {
			if _, yes := here[uid]; yes {
				return false
			}
		}
		return true
	})
}

// deleteJobs deletes the fleet's Jobs and waits until they are gone.
func (f fleet) deleteJobs(t *testing.T, ns string) {
	t.Helper()
	background := metav1.DeletePropagationBackground
	for name := range f {
		if err := env.client.BatchV1().Jobs(ns).Delete(t.Context(), name, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
			t.Errorf("delete job: %v", err)
		}
	}
	waitFor(t, time.Minute, fmt.Sprintf("%d Jobs to be gone", len(f)), func() bool {
		list, err := env.client.BatchV1().Jobs(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		for _, j := range list.Items {
			if f[j.Name] == string(j.UID) {
				return false
			}
		}
		return true
	})
}

// reach waits until all pods of the fleet are in the phase.
func (f fleet) reach(t *testing.T, ns string, phase corev1.PodPhase) {
	t.Helper()
	waitFor(t, time.Minute, fmt.Sprintf("%d pods to be %s", len(f), phase), func() bool {
		here := podPhases(t, ns)
		for _, uid := range f {
			if here[uid] != phase {
				return false
			}
		}
		return true
	})
}

// complete waits until all Jobs of the fleet are complete.
func (f fleet) complete(t *testing.T, ns string) {
	t.Helper()
	waitFor(t, time.Minute, fmt.Sprintf("%d Jobs to be complete", len(f)), func() bool {
		list, err := env.client.BatchV1().Jobs(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		done := 0
		for _, j := range list.Items {
			if f[j.Name] == string(j.UID) && j.Status.CompletionTime != nil {
				done++
			}
		}
		return done == len(f)
	})
}

// podPhases is the phase of each pod that there is, by UID.
func podPhases(t *testing.T, ns string) map[string]corev1.PodPhase {
	t.Helper()
	list, err := env.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]corev1.PodPhase{}
	for _, p := range list.Items {
		out[string(p.UID)] = p.Status.Phase
	}
	return out
}

// manyRevisions lets the cluster write n times, so that a restore takes the
// resourceVersion back by more than the start of the servers writes.
func manyRevisions(t *testing.T, ns string, n int) {
	t.Helper()
	api := env.client.CoreV1().ConfigMaps(ns)
	_, err := api.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "counter"}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	each(n, func(i int) {
		patch := fmt.Sprintf(`{"data":{"n":"%d"}}`, i)
		if _, err := api.Patch(t.Context(), "counter", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Errorf("write revision %d: %v", i, err)
		}
	})
}
