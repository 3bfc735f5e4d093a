package e2e

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What the Job controller writes. The API server checks it: an end has a
// decision before it, and counts nothing that runs.
const (
	jobStarts    = `status: {startTime: "@now", active: 1, ready: 0, terminating: 0, uncountedTerminatedPods: {}}`
	jobSuspends  = `status: {startTime: null, active: 0, conditions: [{type: Suspended, status: "True", reason: JobSuspended, message: Job suspended, lastTransitionTime: "@now", lastProbeTime: "@now"}]}`
	jobResumes   = `status: {startTime: "@now", active: 1, conditions: [{type: Suspended, status: "False", reason: JobResumed, message: Job resumed, lastTransitionTime: "@now", lastProbeTime: "@now"}]}`
	jobCompletes = `status: {active: 0, succeeded: 1, completionTime: "@now", conditions: [
{type: SuccessCriteriaMet, status: "True", reason: CompletionsReached, message: Reached expected number of succeeded pods, lastTransitionTime: "@now", lastProbeTime: "@now"},
{type: Complete, status: "True", reason: CompletionsReached, message: Reached expected number of succeeded pods, lastTransitionTime: "@now", lastProbeTime: "@now"}]}`
)

// jobFails is how a Job fails, in two steps.
func jobFails(reason, message string) (decides, ends string) {
	condition := func(typ string) string {
		return fmt.Sprintf(`{type: %s, status: "True", reason: %s, message: %q, lastTransitionTime: "@now", lastProbeTime: "@now"}`, typ, reason, message)
	}
	return "status: {conditions: [" + condition("FailureTarget") + "]}",
		"status: {active: 0, failed: 1, conditions: [" + condition("FailureTarget") + ", " + condition("Failed") + "]}"
}

// jobRuns has a Job's pod run.
func (c *scene) jobRuns(j *batchv1.Job, pod string) {
	c.Helper()
	c.patch("Job", j.Name, jobStarts)
	c.pod(pod, of("batch/v1", "Job", j))
	c.runs(pod)
	c.until("Job", j.Name, "Running")
}

func jobsEnd(s *stage) {
	c := s.scene("jobs-end")
	j := c.job("completes", func(j *batchv1.Job) {
		j.Labels = map[string]string{"team": "a"}
		j.Spec.Template.Labels = map[string]string{"part": "pod"}
	})
	c.jobRuns(j, "completes-1")
	c.ends("completes-1", 0, "Completed")
	c.patch("Job", "completes", jobCompletes)
	c.tells("Job", "completes", "Queued>Running>Succeeded(CompletionsReached)")

	j = c.job("late", func(j *batchv1.Job) {
		j.Spec.Template.Labels = map[string]string{"part": "pod"} // and none of its own
		j.Spec.ActiveDeadlineSeconds = new(int64(1))
	})
	c.jobRuns(j, "late-1")
	decides, ends := jobFails("DeadlineExceeded", "Job was active longer than specified deadline")
	c.patch("Job", "late", decides)
	c.remove("Pod", "late-1", 0)
	c.patch("Job", "late", ends)
	c.tells("Job", "late", "Queued>Running>Failed(DeadlineExceeded)")

	j = c.job("fails")
	c.jobRuns(j, "fails-1")
	c.ends("fails-1", 137, "OOMKilled")
	decides, ends = jobFails("BackoffLimitExceeded", "Job has reached the specified backoff limit")
	c.patch("Job", "fails", decides)
	c.patch("Job", "fails", ends)
	c.tells("Job", "fails", "Queued>Running>Failed(BackoffLimitExceeded)")

	j = c.job("deleted")
	c.jobRuns(j, "deleted-1")
	c.remove("Job", "deleted")
	c.until("Job", "deleted", "Cancelled(Deleted)")
	c.remove("Pod", "deleted-1", 0)
	c.tells("Job", "deleted", "Queued>Running>Cancelled(Deleted)")
}

// jobsLetGo are deleted, with what they own to stay, or to go first.
func jobsLetGo(s *stage) {
	c := s.scene("jobs-let-go")
	orphan, foreground := metav1.DeletePropagationOrphan, metav1.DeletePropagationForeground
	j := c.job("orphans")
	c.jobRuns(j, "orphans-1")
	c.removeBy("Job", "orphans", metav1.DeleteOptions{PropagationPolicy: &orphan})
	c.here("Job", "orphans")
	c.patch("Pod", "orphans-1", "metadata: {ownerReferences: null}")
	c.release("Job", "orphans")
	c.tells("Job", "orphans", "Queued>Running>Cancelled(Deleted)")
	c.tells("Pod", "orphans-1", "Queued>Running")

	j = c.job("waits")
	c.jobRuns(j, "waits-1")
	c.removeBy("Job", "waits", metav1.DeleteOptions{PropagationPolicy: &foreground})
	c.here("Job", "waits")
	c.remove("Pod", "waits-1", 0)
	c.release("Job", "waits")
	c.tells("Job", "waits", "Queued>Running>Cancelled(Deleted)")

	held := c.job("held", func(j *batchv1.Job) { j.Finalizers = []string{metav1.FinalizerOrphanDependents} })
	c.remove("Job", held.Name) // in the background: that counts
	c.here("Job", held.Name)
	c.release("Job", held.Name)
	c.tells("Job", held.Name, "Queued>Cancelled(Deleted)")
}

// release takes the finalizers of an object away, if it is still there.
func (c *scene) release(kind, name string) {
	c.Helper()
	if _, err := c.resource(kind).Get(c.Context(), name, metav1.GetOptions{}); err == nil {
		c.patch(kind, name, "metadata: {finalizers: null}")
	}
}

func jobsPause(s *stage) {
	c := s.scene("jobs-pause")
	j := c.job("pauses")
	c.jobRuns(j, "pauses-1")
	c.patch("Job", "pauses", "spec: {suspend: true}")
	c.here("Job", "pauses")
	c.remove("Pod", "pauses-1", 0)
	c.patch("Job", "pauses", jobSuspends)
	c.until("Job", "pauses", "Queued(Suspended)")
	c.patch("Job", "pauses", "spec: {suspend: false}")
	c.patch("Job", "pauses", jobResumes)
	c.until("Job", "pauses", "Queued")
	c.pod("pauses-2", of("batch/v1", "Job", j))
	c.runs("pauses-2")
	c.until("Job", "pauses", "Running")
	c.ends("pauses-2", 0, "Completed")
	c.patch("Job", "pauses", jobCompletes)
	c.here("Job", "pauses")
	c.tells("Job", "pauses", "Queued>Running>Queued(Suspended)>Queued>Running>Succeeded(CompletionsReached)")

	yes := true
	c.job("later", func(j *batchv1.Job) { j.Spec.Suspend = &yes })
	c.patch("Job", "later", "spec: {suspend: false}")
	c.patch("Job", "later", jobStarts)
	c.remove("Job", "later")
	c.tells("Job", "later", "Queued(Suspended)>Queued>Cancelled(Deleted)")
}

const appTemplate = `template: {metadata: {labels: {app: web}}, spec: {automountServiceAccountToken: false, containers: [{name: main, image: "work:1"}]}}`

// appSpec is what all web apps have in common, with more.
func appSpec(more string) string {
	return "spec: {selector: {matchLabels: {app: web}}, " + appTemplate + more + "}"
}

// rolls is a Deployment's status while it rolls out, or when it has.
func rolls(generation, replicas, available int, reason string) string {
	is := "True"
	if available == 0 {
		is = "False"
	}
	return fmt.Sprintf(`status: {observedGeneration: %d, replicas: %d, updatedReplicas: %[2]d, readyReplicas: %d, availableReplicas: %[3]d, conditions: [
{type: Available, status: "%s", reason: MinimumReplicas, message: how many there are, lastUpdateTime: "@now", lastTransitionTime: "@now"},
{type: Progressing, status: "True", reason: %s, message: where it is, lastUpdateTime: "@now", lastTransitionTime: "@now"}]}`,
		generation, replicas, available, is, reason)
}

func deploymentLives(s *stage) {
	c := s.scene("deployment")
	d := c.create("apps/v1", "Deployment", "web", appSpec(", replicas: 2"))
	rs := c.create("apps/v1", "ReplicaSet", "web-1", appSpec(", replicas: 2"), controlled("apps/v1", "Deployment", d)...)
	for _, name := range []string{"web-1-a", "web-1-b"} {
		c.pod(name, of("apps/v1", "ReplicaSet", rs), labelled("app=web"))
		c.runs(name)
	}
	c.patch("ReplicaSet", "web-1", "status: {observedGeneration: 1, replicas: 2, readyReplicas: 1, availableReplicas: 1}")
	c.patch("Deployment", "web", rolls(1, 2, 0, "ReplicaSetUpdated"))
	c.patch("Deployment", "web", rolls(1, 2, 1, "ReplicaSetUpdated"))
	c.patch("Deployment", "web", rolls(1, 2, 2, "NewReplicaSetAvailable"))
	c.patch("Deployment", "web", "spec: {paused: true}")
	c.patch("Deployment", "web", "spec: {paused: false}")
	c.patch("Deployment", "web", "spec: {replicas: 0}")
	c.here("Deployment", "web")
	c.patch("Deployment", "web", rolls(4, 0, 0, "NewReplicaSetAvailable"))
	c.patch("Deployment", "web", "spec: {replicas: 1}")
	c.patch("Deployment", "web", rolls(5, 1, 1, "NewReplicaSetAvailable"))
	c.remove("Deployment", "web")
	c.here("Deployment", "web")
	c.until("Deployment", "web", "Deleted(Deleted)")
	c.remove("ReplicaSet", "web-1")
	for _, name := range []string{"web-1-a", "web-1-b"} {
		c.remove("Pod", name, 0)
	}
	c.tells("Deployment", "web", "Queued>Running(RollingOut)>Running>Running(Paused)>Running>Queued(ScaledToZero)>Queued>Running>Deleted(Deleted)")
}

func otherAppsLive(s *stage) {
	c := s.scene("apps")
	c.create("apps/v1", "ReplicaSet", "bare", appSpec(""))
	c.patch("ReplicaSet", "bare", "status: {observedGeneration: 1, replicas: 1, readyReplicas: 1, availableReplicas: 1}")
	c.patch("ReplicaSet", "bare", "spec: {replicas: 0}")
	c.patch("ReplicaSet", "bare", "status: {observedGeneration: 2, replicas: 0, readyReplicas: 0, availableReplicas: 0}")
	c.remove("ReplicaSet", "bare")
	c.tells("ReplicaSet", "bare", "Queued>Running>Queued(ScaledToZero)>Deleted(Deleted)")
	c.create("apps/v1", "StatefulSet", "db", appSpec(", serviceName: db"))
	c.here("StatefulSet", "db")
	c.patch("StatefulSet", "db", "status: {observedGeneration: 1, replicas: 1, readyReplicas: 1, availableReplicas: 1, currentReplicas: 1, updatedReplicas: 1, currentRevision: db-1, updateRevision: db-1}")
	c.patch("StatefulSet", "db", "status: {currentReplicas: 1, updatedReplicas: 0, updateRevision: db-2}")
	c.patch("StatefulSet", "db", "status: {updatedReplicas: 1, currentRevision: db-2}")
	c.remove("StatefulSet", "db")
	c.tells("StatefulSet", "db", "Queued>Running>Running(RollingOut)>Running>Deleted(Deleted)")
	c.create("apps/v1", "DaemonSet", "agent", appSpec(""))
	c.patch("DaemonSet", "agent", "status: {observedGeneration: 1, desiredNumberScheduled: 0}")
	c.patch("DaemonSet", "agent", "status: {desiredNumberScheduled: 2, currentNumberScheduled: 2, updatedNumberScheduled: 2, numberReady: 2, numberAvailable: 2}")
	c.patch("DaemonSet", "agent", "metadata: {finalizers: [e2e.outrider.dev/hold]}")
	c.remove("DaemonSet", "agent")
	c.here("DaemonSet", "agent")
	c.patch("DaemonSet", "agent", "status: {numberAvailable: 0}")
	c.patch("DaemonSet", "agent", "metadata: {finalizers: []}")
	c.here("DaemonSet", "agent")
	c.tells("DaemonSet", "agent", "Queued>Queued(NoNodes)>Running>Deleted(Deleted)")
}

// gadgetsLive are objects of a custom kind, one of which lives twice.
func gadgetsLive(s *stage) {
	c := s.scene("gadgets")
	c.create("e2e.outrider.dev/v1", "Gadget", "g", "spec: {size: 3}, status: {phase: Done}") // a status is not the creator's
	c.here("Gadget", "g")
	c.patch("Gadget", "g", "status: {phase: Busy, cause: Started}")
	c.patch("Gadget", "g", "spec: {size: 4}")
	c.patch("Gadget", "g", "{spec: {size: 4}, status: {phase: Done}}") // nor the spec's writer's
	c.patch("Gadget", "g", "metadata: {labels: {size: four}}")
	c.here("Gadget", "g")
	c.patch("Gadget", "g", "status: {cause: Going}")
	c.remove("Gadget", "g")
	c.create("e2e.outrider.dev/v1", "Gadget", "g", "spec: {size: 5}")
	c.patch("Gadget", "g", "status: {phase: Done, cause: AllDone}")
	c.tells("Gadget", "g", "Queued>Running(Started)>Running(Going)>Cancelled(Deleted); Queued>Running>Succeeded(AllDone)")

	c.create("e2e.outrider.dev/v1", "Gadget", "held", "spec: {size: 3}")
	c.patch("Gadget", "held", "metadata: {finalizers: [e2e.outrider.dev/hold]}")
	c.remove("Gadget", "held")
	c.here("Gadget", "held")
	c.patch("Gadget", "held", "status: {phase: Broken, cause: Fell}")
	c.patch("Gadget", "held", "metadata: {finalizers: null}")
	c.here("Gadget", "held")
	c.tells("Gadget", "held", "Queued>Failed(Fell)")

	g := c.create("e2e.outrider.dev/v1", "Gadget", "owner", "spec: {}")
	c.pod("owned", of("e2e.outrider.dev/v1", "Gadget", g))
	c.runs("owned")
	c.ends("owned", 0, "Completed")
	c.patch("Gadget", "owner", "status: {phase: Done}")
	c.tells("Gadget", "owner", "Queued>Running>Succeeded")
}
