package workload

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRecorded holds what the API server said of each scenario against the
// stories that must come of it, each object told by itself.
func TestRecorded(t *testing.T) {
	want := map[string][]string{}
	for _, some := range []map[string][]string{deploymentStories(), setStories(), batchStories()} {
		maps.Copy(want, some)
	}
	files, err := filepath.Glob("testdata/recorded/*.json")
	if err != nil {
		t.Fatal(err)
	}
	happened := map[string]bool{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			got := retell(t, file)
			if diff := cmp.Diff(want[name], got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for _, line := range got {
				note(happened, line)
			}
		})
		delete(want, name)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		t.Errorf("%s is not recorded", name)
	}
	for _, what := range mustHappen() {
		if !happened[what] {
			t.Errorf("no recording has: %s", what)
		}
	}
}

// note adds what a line says happened: states with their reasons, and the ways
// back.
func note(happened map[string]bool, line string) {
	head, told, _ := strings.Cut(line, ": ")
	kind := head[strings.LastIndex(head, " ")+1:]
	before := ""
	for state := range strings.SplitSeq(told, ">") {
		state = strings.TrimSuffix(state, "*")
		if reason, _, coded := strings.Cut(state, " "); coded {
			state = reason + ")"
		}
		happened[kind+" "+state] = true
		if strings.HasPrefix(before, "Running") && strings.HasPrefix(state, "Queued") {
			happened[kind+" Running>"+state] = true
		}
		before = state
	}
}

// mustHappen returns every state and reason that the rules know of, and every
// way back, so that none goes without a recording.
func mustHappen() (all []string) {
	for kind, states := range map[string]string{
		"Pod": "Queued Queued(Unschedulable) Queued(ErrImagePull) Running Running(CrashLoopBackOff) Succeeded(Completed)" +
			" Failed(Error) Failed(OOMKilled) Failed(Evicted) Failed(Preempted) Cancelled(Deleted)",
		"Job": "Queued Queued(Suspended) Running Running>Queued(Suspended) Succeeded(CompletionsReached) Succeeded(SuccessPolicy)" +
			" Failed(BackoffLimitExceeded) Failed(DeadlineExceeded) Failed(PodFailurePolicy) Failed(MaxFailedIndexesExceeded)" +
			" Failed(FailedIndexes) Cancelled(Deleted)",
		"Deployment": "Queued Queued(ScaledToZero) Queued(ProgressDeadlineExceeded) Queued(FailedCreate) Queued(Paused)" +
			" Running Running(RollingOut) Running(ProgressDeadlineExceeded) Running(FailedCreate) Running(Paused)" +
			" Running(MinimumReplicasUnavailable) Running>Queued Running>Queued(ScaledToZero) Deleted(Deleted)",
		"StatefulSet": "Queued Queued(ScaledToZero) Running Running(RollingOut) Running>Queued Running>Queued(ScaledToZero) Deleted(Deleted)",
		"ReplicaSet": "Queued Queued(ScaledToZero) Queued(FailedCreate) Running Running(FailedCreate)" +
			" Running>Queued Running>Queued(ScaledToZero) Deleted(Deleted)",
		"DaemonSet": "Queued Queued(NoNodes) Running Running(RollingOut) Running>Queued(NoNodes) Deleted(Deleted)",
	} {
		for state := range strings.FieldsSeq(states) {
			all = append(all, kind+" "+state)
		}
	}
	slices.Sort(all)
	return all
}

// deploymentStories are those of Deployments and of what they control.
func deploymentStories() map[string][]string {
	return map[string][]string{
		"deployment-deleted-background": {
			"Deployment: Queued>Running>Deleted(Deleted)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
			"ReplicaSet: Queued>Running>Deleted(Deleted)",
		},
		"deployment-deleted-foreground": {
			"Deployment: Queued>Running>Deleted(Deleted)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
			"ReplicaSet: Queued>Running>Deleted(Deleted)",
		},
		"deployment-leaving": {
			"2 Pod: Queued>Running>Running(CrashLoopBackOff 1)>Cancelled(Deleted 137)",
			"Deployment: Queued>Running(RollingOut)>Running>Deleted(Deleted)",
			"ReplicaSet: Queued>Running>Queued>Deleted(Deleted)",
		},
		"deployment-failed-create": {
			"2 Pod: Queued>Running>Cancelled(Deleted 143)",
			"Deployment: Queued>Queued(FailedCreate)>Queued>Running>Running(FailedCreate)>Running>Deleted(Deleted)",
			"ReplicaSet: Queued>Queued(FailedCreate)>Queued>Running>Running(FailedCreate)>Running>Deleted(Deleted)",
		},
		"deployment-failed-rollout": {
			"Deployment: Queued>Running>Running(RollingOut)>Running(ProgressDeadlineExceeded)>Running>Deleted(Deleted)",
			"Pod: Queued>Queued(ErrImagePull)>Cancelled(Deleted 137)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
			"ReplicaSet: Queued>Queued(ScaledToZero)>Deleted(Deleted)",
			"ReplicaSet: Queued>Running>Deleted(Deleted)",
		},
		"deployment-lost": {
			"Deployment: Queued>Running>Queued>Running>Deleted(Deleted)",
			"Pod: Queued>Running>Running(CrashLoopBackOff 1)>Running>Cancelled(Deleted 143)",
			"ReplicaSet: Queued>Running>Queued>Running>Deleted(Deleted)",
		},
		"deployment-never-available": {
			"Deployment: Queued>Queued(ProgressDeadlineExceeded)>Running>Deleted(Deleted)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
			"ReplicaSet: Queued>Running>Deleted(Deleted)",
		},
		"deployment-orphans": {
			"Deployment: Queued>Running>Deleted(Deleted)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
			"ReplicaSet: Queued>Running>Deleted(Deleted)",
		},
		"deployment-paused": {
			"2 Pod: Queued>Running>Cancelled(Deleted 143)",
			"Deployment: Queued(Paused)>Queued>Running>Running(Paused)>Running(RollingOut)>Running>Deleted(Deleted)",
			"ReplicaSet: Queued>Running>Deleted(Deleted)",
			"ReplicaSet: Queued>Running>Queued(ScaledToZero)>Deleted(Deleted)",
		},
		"deployment-recreate": {
			"2 Pod: Queued>Running>Cancelled(Deleted 143)",
			"Deployment: Queued>Running>Running(RollingOut)>Queued>Running>Deleted(Deleted)",
			"ReplicaSet: Queued>Running>Deleted(Deleted)",
			"ReplicaSet: Queued>Running>Queued(ScaledToZero)>Deleted(Deleted)",
		},
		"deployment-rollout": {
			"6 Pod: Queued>Running>Cancelled(Deleted 143)",
			"Deployment: Queued>Running(RollingOut)>Running>Running(RollingOut)>Running>Deleted(Deleted)",
			"ReplicaSet: Queued>Running>Deleted(Deleted)",
			"ReplicaSet: Queued>Running>Queued(ScaledToZero)>Deleted(Deleted)",
		},
		"deployment-scaled": {
			"2 Pod: Queued>Running>Cancelled(Deleted 143)",
			"Deployment: Queued>Running>Queued(ScaledToZero)>Queued>Running>Deleted(Deleted)",
			"ReplicaSet: Queued>Running>Queued(ScaledToZero)>Queued>Running>Deleted(Deleted)",
		},
		"deployment-short": {
			"Deployment: Queued>Running>Running(MinimumReplicasUnavailable)>Running>Running(MinimumReplicasUnavailable)>Running>Deleted(Deleted)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
			"Pod: Queued>Running>Running(CrashLoopBackOff 1)>Running>Cancelled(Deleted 143)",
			"ReplicaSet: Queued>Running>Deleted(Deleted)",
		},
	}
}

// setStories are those of StatefulSets, ReplicaSets and DaemonSets.
func setStories() map[string][]string {
	return map[string][]string{
		"daemonset-nowhere": {
			"DaemonSet: Queued>Queued(NoNodes)>Queued>Running>Queued(NoNodes)>Deleted(Deleted)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
		},
		"daemonset-rollout": {
			"6 Pod: Queued>Running>Cancelled(Deleted 143)",
			"DaemonSet: Queued>Running>Running(RollingOut)>Running>Deleted(Deleted)",
		},
		"replicaset-bare": {
			"Pod: Queued>Running>Cancelled(Deleted 143)",
			"Pod: Queued>Running>Running(CrashLoopBackOff 1)>Running>Cancelled(Deleted 143)",
			"ReplicaSet: Queued>Running>Queued>Running>Queued(ScaledToZero)>Queued>Running>Deleted(Deleted)",
		},
		"replicaset-failed-create": {
			"Pod: Queued>Running>Cancelled(Deleted 143)",
			"ReplicaSet: Queued>Queued(FailedCreate)>Queued>Running>Deleted(Deleted)",
		},
		"statefulset-lost": {
			"Pod: Queued>Running>Running(CrashLoopBackOff 1)>Running>Cancelled(Deleted 143)",
			"StatefulSet: Queued>Running>Queued>Running>Deleted(Deleted)",
		},
		"statefulset-orphans": {
			"Pod: Queued>Running>Cancelled(Deleted 143)",
			"StatefulSet: Queued>Running>Deleted(Deleted)",
		},
		"statefulset-rollout": {
			"4 Pod: Queued>Running>Cancelled(Deleted 143)",
			"StatefulSet: Queued>Running>Running(RollingOut)>Running>Deleted(Deleted)",
		},
		"statefulset-scaled": {
			"2 Pod: Queued>Running>Cancelled(Deleted 143)",
			"StatefulSet: Queued>Running>Queued(ScaledToZero)>Queued>Running>Deleted(Deleted)",
		},
	}
}

// batchStories are those of Jobs and Pods.
func batchStories() map[string][]string {
	return map[string][]string{
		"cronjob-three-ticks": {
			"3 Job: Queued>Running>Succeeded(CompletionsReached)",
			"3 Pod: Queued>Running>Succeeded(Completed 0)",
		},
		"job-backoff-limit": {
			"3 Pod: Queued>Running>Failed(Error 7)",
			"Job: Queued>Running>Failed(BackoffLimitExceeded 7)",
		},
		"job-created-suspended": {
			"Job: Queued(Suspended)>Queued>Running>Succeeded(CompletionsReached)",
			"Pod: Queued>Running>Succeeded(Completed 0)",
		},
		"job-deadline": {
			"Job: Queued>Running>Failed(DeadlineExceeded)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
		},
		"job-deleted-background": {
			"Job: Queued>Running>Cancelled(Deleted)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
		},
		"job-deleted-failing": {
			"Job: Queued>Running>Failed(DeadlineExceeded)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
		},
		"job-deleted-foreground": {
			"Job: Queued>Running>Cancelled(Deleted)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
		},
		"job-deleted-queued": {
			"Job: Queued>Cancelled(Deleted)",
			"Pod: Queued>Queued(Unschedulable)>Cancelled(Deleted)",
		},
		"job-deleted-succeeding": {
			"Job: Queued>Running>Succeeded(SuccessPolicy)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
			"Pod: Queued>Running>Succeeded(Completed 0)",
		},
		"job-failed-index": {
			"2 Pod: Queued>Running>Succeeded(Completed 0)",
			"Job: Queued>Running>Failed(FailedIndexes 3)",
			"Pod: Queued>Running>Failed(Error 3)",
		},
		"job-indexed": {
			"3 Pod: Queued>Running>Succeeded(Completed 0)",
			"Job: Queued>Running>Succeeded(CompletionsReached)",
		},
		"job-managed-by-another": {
			"Job: Queued>Running>Succeeded(DoneElsewhere)",
		},
		"job-orphans": {
			"Job: Queued>Running>Cancelled(Deleted)",
			"Pod: Queued>Running>Succeeded(Completed 0)",
		},
		"job-pod-evicted-ignored": {
			"Job: Queued>Running>Succeeded(CompletionsReached)",
			"Pod: Queued>Running>Failed(Evicted 143)",
			"Pod: Queued>Running>Succeeded(Completed 0)",
		},
		"job-pod-evicted": {
			"Job: Queued>Running>Failed(BackoffLimitExceeded 143)",
			"Pod: Queued>Running>Failed(Evicted 143)",
		},
		"job-pod-failure-policy": {
			"2 Pod: Queued>Running>Failed(Error 1)",
			"Job: Queued>Running>Failed(PodFailurePolicy 42)",
			"Pod: Queued>Running>Failed(Error 42)",
		},
		"job-pod-out-of-memory": {
			"Job: Queued>Running>Failed(BackoffLimitExceeded 137)",
			"Pod: Queued>Running>Failed(OOMKilled 137)",
		},
		"job-restarts": {
			"Job: Queued>Running>Failed(BackoffLimitExceeded 7)",
			"Pod: Queued>Running>Running(CrashLoopBackOff 7)>Running>Running(CrashLoopBackOff 7)>Cancelled(Deleted 137)",
		},
		"job-success-policy": {
			"2 Pod: Queued>Running>Cancelled(Deleted 143)",
			"Job: Queued>Running>Succeeded(SuccessPolicy)",
			"Pod: Queued>Running>Succeeded(Completed 0)",
		},
		"job-suspended": {
			"Job: Queued>Running>Queued(Suspended)>Queued>Running>Succeeded(CompletionsReached)",
			"Pod: Queued>Running>Cancelled(Deleted 143)",
			"Pod: Queued>Running>Succeeded(Completed 0)",
		},
		"job-too-many-failed-indexes": {
			"2 Pod: Queued>Running>Cancelled(Deleted 143)",
			"Job: Queued>Running>Failed(MaxFailedIndexesExceeded 3)",
			"Pod: Queued>Running>Failed(Error 3)",
		},
		"job-ttl": {
			"Job: Queued>Running>Succeeded(CompletionsReached)",
			"Pod: Queued>Running>Succeeded(Completed 0)",
		},
		"pod-deleted": {
			"Pod: Queued>Running>Cancelled(Deleted 143)",
		},
		"pod-evicted-by-kubelet": {
			"Pod: Queued>Running>Failed(Evicted 137)",
		},
		"pod-evicted": {
			"Pod: Queued>Running>Failed(Evicted 143)",
		},
		"pod-preempted": {
			"Pod: Queued>Queued(Unschedulable)>Queued>Running>Succeeded(Completed 0)",
			"Pod: Queued>Running>Failed(Preempted 143)",
		},
		"pod-tainted": {
			"Pod: Queued>Running>Failed(Evicted)",
		},
	}
}
