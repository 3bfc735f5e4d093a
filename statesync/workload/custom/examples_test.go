package custom

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// examples are the kinds that docs/kinds.md shows, by name.
func examples(t testing.TB) map[string]workload.Kind {
	t.Helper()
	b, err := os.ReadFile("../../../docs/kinds.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]workload.Kind{}
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(b, -1) {
		var items []struct {
			Kind struct{ Group, Version, Resource, Name string }
			Fold bool
			CEL  Rules
		}
		if err := yaml.Unmarshal(m[1], &items); err != nil {
			t.Fatal(err)
		}
		for _, i := range items {
			k, err := Compile(Definition{i.Kind.Group, i.Kind.Version, i.Kind.Resource, i.Kind.Name, i.Fold, i.CEL})
			if err != nil {
				t.Fatal(err)
			}
			out[k.Name] = k
		}
	}
	return out
}

const name = `"metadata": {"name": "n", "namespace": "ns", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z"`

var (
	created = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	began   = created.Add(time.Minute)
	ended   = created.Add(time.Hour)
)

func TestTheExamplesOfTheDocumentation(t *testing.T) {
	queued := func(reason, message string) workload.Status {
		return workload.Status{State: statesync.Queued, Reason: reason, Message: message, Back: true}
	}
	tests := []struct {
		kind, name, object string // what follows the name in metadata, and the rest
		want               workload.Status
	}{
		{"Workflow", "a new one", `}, "spec": {"entrypoint": "main"}`, queued("", "")},
		{"Workflow", "its status begun", `}, "spec": {}, "status": {"phase": "", "startedAt": null, "finishedAt": null}`, queued("", "")},
		{"Workflow", "pending", `}, "spec": {}, "status": {"phase": "Pending", "message": "waiting for a lock", "startedAt": "2026-01-01T00:01:00Z", "finishedAt": null}`, queued("", "waiting for a lock")},
		{"Workflow", "suspended before it began", `}, "spec": {"suspend": true}`, queued("Suspended", "")},
		{"Workflow", "running", `}, "spec": {}, "status": {"phase": "Running", "startedAt": "2026-01-01T00:01:00Z", "finishedAt": null, "nodes": {"n": {"phase": "Running"}}}`, workload.Status{State: statesync.Running, Occurred: began}},
		{"Workflow", "suspended", `}, "spec": {"suspend": true}, "status": {"phase": "Running", "startedAt": "2026-01-01T00:01:00Z", "finishedAt": null}`, workload.Status{State: statesync.Queued, Reason: "Suspended", Occurred: began, Back: true}},
		{"Workflow", "succeeded", `}, "spec": {"suspend": false}, "status": {"phase": "Succeeded", "startedAt": "2026-01-01T00:01:00Z", "finishedAt": "2026-01-01T01:00:00Z"}`, workload.Status{State: statesync.Succeeded, Occurred: ended}},
		{"Workflow", "failed", `}, "spec": {}, "status": {"phase": "Failed", "message": "child 'n' failed", "finishedAt": "2026-01-01T01:00:00Z"}`, workload.Status{State: statesync.Failed, Reason: "Failed", Message: "child 'n' failed", Occurred: ended}},
		{"Workflow", "in error", `}, "spec": {}, "status": {"phase": "Error", "message": "no such template", "finishedAt": "2026-01-01T01:00:00Z"}`, workload.Status{State: statesync.Failed, Reason: "Error", Message: "no such template", Occurred: ended}},
		{"Workflow", "terminated", `}, "spec": {"shutdown": "Terminate"}, "status": {"phase": "Failed", "message": "Stopped with strategy 'Terminate'", "finishedAt": "2026-01-01T01:00:00Z"}`, workload.Status{State: statesync.Cancelled, Reason: "Failed", Message: "Stopped with strategy 'Terminate'", Occurred: ended}},

		{"RayJob", "a new one", `}, "spec": {"entrypoint": "python"}`, queued("", "")},
		{"RayJob", "its cluster starts", `}, "status": {"jobDeploymentStatus": "Initializing", "jobStatus": "", "rayClusterName": "r"}`, queued("", "")},
		{"RayJob", "submitted", `}, "status": {"jobDeploymentStatus": "Running", "jobStatus": "PENDING", "startTime": "2026-01-01T00:01:00Z"}`, queued("", "")},
		{"RayJob", "running", `}, "status": {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "startTime": "2026-01-01T00:01:00Z"}`, workload.Status{State: statesync.Running, Occurred: began}},
		{"RayJob", "on its way to be suspended", `}, "status": {"jobDeploymentStatus": "Suspending", "jobStatus": "RUNNING", "startTime": "2026-01-01T00:01:00Z"}`, workload.Status{}},
		{"RayJob", "suspended", `}, "spec": {"suspend": true}, "status": {"jobDeploymentStatus": "Suspended", "jobStatus": ""}`, queued("Suspended", "")},
		{"RayJob", "tried again", `}, "status": {"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED"}`, queued("Retrying", "")},
		{"RayJob", "succeeded", `}, "status": {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "message": "Job finished successfully.", "endTime": "2026-01-01T01:00:00Z"}`, workload.Status{State: statesync.Succeeded, Message: "Job finished successfully.", Occurred: ended}},
		{"RayJob", "stopped", `}, "status": {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED", "endTime": "2026-01-01T01:00:00Z"}`, workload.Status{State: statesync.Cancelled, Occurred: ended}},
		{"RayJob", "failed", `}, "status": {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": "exit code 1", "endTime": "2026-01-01T01:00:00Z"}`, workload.Status{State: statesync.Failed, Reason: "AppFailed", Message: "exit code 1", Occurred: ended}},
		{"RayJob", "failed, as older operators say it", `}, "status": {"jobDeploymentStatus": "Complete", "jobStatus": "FAILED", "endTime": "2026-01-01T01:00:00Z"}`, workload.Status{State: statesync.Failed, Occurred: ended}},
		{"RayJob", "past its deadline, its driver running", `}, "status": {"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "DeadlineExceeded", "endTime": "2026-01-01T01:00:00Z"}`, workload.Status{State: statesync.Failed, Reason: "DeadlineExceeded", Occurred: ended}},

		{"RayJob", "that was refused", `}, "status": {"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": "no entrypoint"}`, workload.Status{State: statesync.Failed, Reason: "ValidationFailed", Message: "no entrypoint"}},

		{"RayCluster", "a new one", `}, "spec": {}`, queued("", "")},
		{"RayCluster", "ready", `}, "status": {"state": "ready", "stateTransitionTimes": {"ready": "2026-01-01T00:01:00Z"}}`, workload.Status{State: statesync.Running, Occurred: began}},
		{"RayCluster", "suspended", `}, "status": {"state": "suspended", "reason": ""}`, queued("Suspended", "")},
		{"RayCluster", "failed", `}, "status": {"state": "failed", "reason": "FailedCreate"}`, queued("FailedCreate", "")},

		{"InferenceService", "a new one", `}, "spec": {}`, queued("", "")},
		{"InferenceService", "ready", `}, "status": {"conditions": [{"type": "PredictorReady", "status": "True"}, {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}]}`, workload.Status{State: statesync.Running, Occurred: began}},
		{"InferenceService", "not ready", `}, "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "RevisionFailed", "message": "no image", "lastTransitionTime": "2026-01-01T00:01:00Z"}]}`, workload.Status{State: statesync.Queued, Reason: "RevisionFailed", Message: "no image", Occurred: began, Back: true}},
		{"InferenceService", "not known yet", `}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}`, queued("", "")},

		{"VolcanoJob", "a new one", `}, "spec": {}`, queued("", "")},
		{"VolcanoJob", "running", `}, "status": {"state": {"phase": "Running", "lastTransitionTime": "2026-01-01T00:01:00Z"}}`, workload.Status{State: statesync.Running, Occurred: began}},
		{"VolcanoJob", "aborted", `}, "status": {"state": {"phase": "Aborted"}}`, queued("Aborted", "")},
		{"VolcanoJob", "completed", `}, "status": {"state": {"phase": "Completed", "lastTransitionTime": "2026-01-01T01:00:00Z"}}`, workload.Status{State: statesync.Succeeded, Occurred: ended}},
		{"VolcanoJob", "terminated", `}, "status": {"state": {"phase": "Terminated", "reason": "PodFailed", "message": "exit code 1"}}`, workload.Status{State: statesync.Failed, Reason: "PodFailed", Message: "exit code 1"}},

		{"Notebook", "a new one", `}, "spec": {"template": {}}`, queued("", "")},
		{"Notebook", "its image pulled", `}, "status": {"conditions": [], "readyReplicas": 0, "containerState": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}}`, queued("ImagePullBackOff", "Back-off")},
		{"Notebook", "running", `}, "status": {"conditions": [{"type": "Running"}], "readyReplicas": 1, "containerState": {"running": {"startedAt": "2026-01-01T00:01:00Z"}}}`, workload.Status{State: statesync.Running, Occurred: began}},
		{"Notebook", "stopped, its pod still there", `, "annotations": {"kubeflow-resource-stopped": "2026-01-01T00:30:00Z"}}, "status": {"readyReplicas": 1, "containerState": {"running": {"startedAt": "2026-01-01T00:01:00Z"}}}`, workload.Status{State: statesync.Running, Occurred: began}},
		{"Notebook", "stopped", `, "annotations": {"kubeflow-resource-stopped": "2026-01-01T00:30:00Z"}}, "status": {"readyReplicas": 0, "containerState": {}}`, queued("Stopped", "")},
		{"Notebook", "its container lost", `}, "status": {"readyReplicas": 0, "containerState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}`, queued("OOMKilled", "")},
	}
	kinds := examples(t)
	if len(kinds) != 6 {
		t.Fatalf("got %d examples, want 6", len(kinds))
	}
	for _, tt := range tests {
		t.Run(tt.kind+", "+tt.name, func(t *testing.T) {
			k := kinds[tt.kind]
			u := object(t, `{"apiVersion": "a/v1", "kind": "`+tt.kind+`", `+name+tt.object+"}")
			k.Trim(u)
			o, err := k.Reduce(u)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, k.Assess(o)); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
		})
	}
	for name, want := range map[string]bool{"Workflow": true, "RayJob": true, "VolcanoJob": true, "RayCluster": false, "InferenceService": false, "Notebook": false} {
		if k := kinds[name]; k.Ends != want || !k.Folds || k.PodsRun {
			t.Errorf("%s: got ends %t, folds %t, pods run it %t, want %t, true, false", name, k.Ends, k.Folds, k.PodsRun, want)
		}
	}
}
