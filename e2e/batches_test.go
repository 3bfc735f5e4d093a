package e2e

import (
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// batches are the lives of Jobs and CronJobs.
func batches() []scenario {
	return []scenario{
		{"cronjob-three-ticks", cronJobThreeTicks}, // first: it takes longest
		{"job-pod-failure-policy", jobPodFailurePolicy},
		{"job-backoff-limit", jobBackoffLimit},
		{"job-restarts", jobRestarts},
		{"job-suspended", jobSuspended},
		{"job-created-suspended", jobCreatedSuspended},
		{"job-deadline", jobDeadline},
		{"job-indexed", jobIndexed},
		{"job-failed-index", jobFailedIndex},
		{"job-too-many-failed-indexes", jobTooManyFailedIndexes},
		{"job-success-policy", jobSuccessPolicy},
		{"job-managed-by-another", jobManagedByAnother},
		{"job-ttl", jobTTL},
	}
}

func cronJobThreeTicks(w *world) {
	api, jobs := env.client.BatchV1().CronJobs(w.ns), env.client.BatchV1().Jobs(w.ns)
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "tick"}}
	c.Spec.Schedule = "* * * * *"
	c.Spec.JobTemplate.Spec.Template = template("tick", corev1.RestartPolicyNever, "run=1s")
	create(w, api, c)
	var done []batchv1.Job
	for deadline := time.Now().Add(4 * time.Minute); len(done) < 3; {
		if time.Now().After(deadline) {
			w.Fatalf("%d Jobs of a CronJob are complete after 4 minutes, want 3", len(done))
		}
		time.Sleep(500 * time.Millisecond) // sleep: between two looks, until three minutes have begun
		list, err := jobs.List(w.ctx, metav1.ListOptions{})
		if err != nil {
			continue
		}
		done = slices.DeleteFunc(list.Items, func(j batchv1.Job) bool { return !jobHas(&j, batchv1.JobComplete) })
	}
	w.remove(api, "tick")
	for i := range done {
		if !strings.HasPrefix(done[i].Name, "tick-") {
			w.Errorf("Job %s, want one of the CronJob's", done[i].Name)
		}
		w.tells("Job", &done[i], "Queued>Running>Succeeded(CompletionsReached)")
	}
}

// attempt waits for the one pod that runs, ends it, and waits until the Job
// counts as many failures.
func (w *world) attempt(name string, code int, failures int32) {
	w.Helper()
	w.exit(w.pods(name, 1, "running", podRunning)[0].Name, code)
	until(w, env.client.BatchV1().Jobs(w.ns), name, "failed so often", func(j *batchv1.Job) bool { return j.Status.Failed == failures })
}

// The controller waits 10 s before the second attempt and 20 s before the
// third, and nothing makes it wait less: these two scenarios take half a
// minute.

func jobPodFailurePolicy(w *world) {
	j := w.job("tries", func(s *batchv1.JobSpec) {
		s.BackoffLimit = new(int32(6))
		s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
			Action:      batchv1.PodFailurePolicyActionFailJob,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}},
		}}}
	})
	w.attempt("tries", 1, 1)
	w.attempt("tries", 1, 2)
	w.attempt("tries", 42, 3)
	w.jobIs("tries", batchv1.JobFailed)
	w.remove(env.client.BatchV1().Jobs(w.ns), "tries")
	w.tells("Job", j, "Queued>Running>Failed(PodFailurePolicy)")
	w.exits(j, 42)
}

func jobBackoffLimit(w *world) {
	j := w.job("tries", func(s *batchv1.JobSpec) { s.BackoffLimit = new(int32(2)) })
	for failures := range int32(3) {
		w.attempt("tries", 7, failures+1)
	}
	w.jobIs("tries", batchv1.JobFailed)
	w.remove(env.client.BatchV1().Jobs(w.ns), "tries")
	w.tells("Job", j, "Queued>Running>Failed(BackoffLimitExceeded)")
	w.exits(j, 7)
}

// jobRestarts has its attempts in one pod, whose containers are restarted.
func jobRestarts(w *world) {
	j := w.job("tries", func(s *batchv1.JobSpec) {
		s.BackoffLimit = new(int32(2))
		s.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	}, "run=300ms", "exit=7", "backoff=500ms")
	w.jobIs("tries", batchv1.JobFailed)
	w.remove(env.client.BatchV1().Jobs(w.ns), "tries")
	w.tells("Job", j, "Queued>Running>Failed(BackoffLimitExceeded)")
	w.exits(j, 7)
}

func jobSuspended(w *world) {
	api := env.client.BatchV1().Jobs(w.ns)
	j := w.job("work", nil)
	w.pods("work", 1, "running", podRunning)
	patch(w, api, "work", spec(map[string]any{"suspend": true}))
	w.jobIs("work", batchv1.JobSuspended)
	w.pods("work", 0, "there", func(*corev1.Pod) bool { return true })
	patch(w, api, "work", spec(map[string]any{"suspend": false}))
	w.exit(w.pods("work", 1, "running", podRunning)[0].Name, 0)
	w.jobIs("work", batchv1.JobComplete)
	w.remove(api, "work")
	w.tells("Job", j, "Queued>Running>Queued(Suspended)>Queued>Running>Succeeded(CompletionsReached)")
}

func jobCreatedSuspended(w *world) {
	api := env.client.BatchV1().Jobs(w.ns)
	j := w.job("work", func(s *batchv1.JobSpec) { s.Suspend = new(true) })
	w.jobIs("work", batchv1.JobSuspended)
	patch(w, api, "work", spec(map[string]any{"suspend": false}))
	w.exit(w.pods("work", 1, "running", podRunning)[0].Name, 0)
	w.jobIs("work", batchv1.JobComplete)
	w.remove(api, "work")
	w.tells("Job", j, "Queued(Suspended)>Queued>Running>Succeeded(CompletionsReached)")
}

func jobDeadline(w *world) {
	j := w.job("work", func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = new(int64(3)) })
	w.pods("work", 1, "running", podRunning)
	w.jobIs("work", batchv1.JobFailed)
	w.remove(env.client.BatchV1().Jobs(w.ns), "work")
	w.tells("Job", j, "Queued>Running>Failed(DeadlineExceeded)")
}

// indexed gives a Job n indexes, all of which run at once.
func indexed(s *batchv1.JobSpec, n int32) {
	mode := batchv1.IndexedCompletion
	s.CompletionMode, s.Completions, s.Parallelism = &mode, &n, &n
}

// indexes waits until the pods of all indexes run, and returns their names in
// order.
func (w *world) indexes(job string, n int) []string {
	w.Helper()
	names := make([]string, n)
	for _, p := range w.pods(job, n, "running", podRunning) {
		for i := range n {
			if p.Annotations[batchv1.JobCompletionIndexAnnotation] == string(rune('0'+i)) {
				names[i] = p.Name
			}
		}
	}
	return names
}

func jobIndexed(w *world) {
	j := w.job("parts", func(s *batchv1.JobSpec) { indexed(s, 3) })
	for _, pod := range w.indexes("parts", 3) {
		w.exit(pod, 0)
	}
	w.jobIs("parts", batchv1.JobComplete)
	w.remove(env.client.BatchV1().Jobs(w.ns), "parts")
	w.tells("Job", j, "Queued>Running>Succeeded(CompletionsReached)")
}

// failedIndexes has index 1 of three fail, at once and for good.
func (w *world) failedIndexes(limit *int32) *batchv1.Job {
	w.Helper()
	j := w.job("parts", func(s *batchv1.JobSpec) {
		indexed(s, 3)
		s.BackoffLimitPerIndex, s.MaxFailedIndexes = new(int32(0)), limit
	})
	pods := w.indexes("parts", 3)
	w.exit(pods[1], 3)
	until(w, env.client.BatchV1().Jobs(w.ns), "parts", "without index 1", func(j *batchv1.Job) bool {
		return j.Status.FailedIndexes != nil && *j.Status.FailedIndexes == "1"
	})
	if limit == nil {
		w.exit(pods[0], 0)
		w.exit(pods[2], 0)
	}
	w.jobIs("parts", batchv1.JobFailed)
	w.remove(env.client.BatchV1().Jobs(w.ns), "parts")
	w.exits(j, 3)
	return j
}

func jobFailedIndex(w *world) {
	w.tells("Job", w.failedIndexes(nil), "Queued>Running>Failed(FailedIndexes)")
}

func jobTooManyFailedIndexes(w *world) {
	w.tells("Job", w.failedIndexes(new(int32(0))), "Queued>Running>Failed(MaxFailedIndexesExceeded)")
}

func jobSuccessPolicy(w *world) {
	j := w.job("parts", func(s *batchv1.JobSpec) {
		indexed(s, 3)
		s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: new("0")}}}
	})
	w.exit(w.indexes("parts", 3)[0], 0)
	w.jobIs("parts", batchv1.JobComplete)
	w.remove(env.client.BatchV1().Jobs(w.ns), "parts")
	w.tells("Job", j, "Queued>Running>Succeeded(SuccessPolicy)")
}

// jobManagedByAnother has no pods here: another controller writes its status.
func jobManagedByAnother(w *world) {
	api := env.client.BatchV1().Jobs(w.ns)
	j := w.job("remote", func(s *batchv1.JobSpec) { s.ManagedBy = new("example.com/elsewhere") })
	write := func(edit func(*batchv1.JobStatus)) {
		now, err := api.Get(w.ctx, "remote", metav1.GetOptions{})
		if err != nil {
			w.Fatal(err)
		}
		edit(&now.Status)
		if _, err := api.UpdateStatus(w.ctx, now, metav1.UpdateOptions{}); err != nil {
			w.Fatalf("write the status as another controller: %v", err)
		}
	}
	condition := func(typ batchv1.JobConditionType) batchv1.JobCondition {
		return batchv1.JobCondition{
			Type: typ, Status: corev1.ConditionTrue, Reason: "DoneElsewhere", Message: "it ran in another cluster",
			LastTransitionTime: metav1.Now(),
		}
	}
	write(func(s *batchv1.JobStatus) { s.StartTime, s.Active, s.Ready = new(metav1.Now()), 1, new(int32(1)) })
	write(func(s *batchv1.JobStatus) {
		s.Active, s.Ready, s.Succeeded, s.CompletionTime = 0, new(int32(0)), 1, new(metav1.Now())
		s.Conditions = []batchv1.JobCondition{condition(batchv1.JobSuccessCriteriaMet), condition(batchv1.JobComplete)}
	})
	w.remove(api, "remote")
	w.tells("Job", j, "Queued>Running>Succeeded(DoneElsewhere)")
}

func jobTTL(w *world) {
	j := w.job("brief", func(s *batchv1.JobSpec) { s.TTLSecondsAfterFinished = new(int32(1)) }, "run=300ms")
	gone(w, env.client.BatchV1().Jobs(w.ns), "brief")
	w.tells("Job", j, "Queued>Running>Succeeded(CompletionsReached)")
}
